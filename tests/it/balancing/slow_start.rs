//! `slow_start`: who is new, or back, begins with a tenth of its weight.

use super::{authorities, tally, upstream, visits};
use crate::harness::{Gateway, Origin, wait_until};

fn percent(gateway: &Gateway, target: usize) -> u64 {
    let shown = gateway.admin("/status/upstreams").json();
    let address = &shown["upstreams"][0]["targets"][target]["addresses"][0];
    address["weight_percent"].as_u64().expect("a number")
}

#[test]
fn the_first_targets_have_their_weight_and_one_that_joins_them_grows() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let fields = "slow_start: 600";
    let gateway = Gateway::start(&upstream(fields, &authorities(&[&a])));
    assert_eq!(percent(&gateway, 0), 100);

    gateway.reload(&upstream(fields, &authorities(&[&a, &b])));

    assert_eq!(percent(&gateway, 0), 100);
    assert!((10..15).contains(&percent(&gateway, 1)));
    let names = visits(&gateway, 110);
    let counts = tally(&names);
    assert!((7..=16).contains(&counts["b"]), "{counts:?}");

    // A reload goes on where it was.
    gateway.reload(&upstream(
        "slow_start: 600\ntags: [other]",
        &authorities(&[&a, &b]),
    ));
    assert!((10..15).contains(&percent(&gateway, 1)));
}

#[test]
fn after_the_time_it_has_its_whole_weight() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let fields = "slow_start: 1";
    let gateway = Gateway::start(&upstream(fields, &authorities(&[&a])));
    gateway.reload(&upstream(fields, &authorities(&[&a, &b])));

    let mut last = 0;
    wait_until("the whole weight", || {
        let now = percent(&gateway, 1);
        assert!(now >= last, "{last} and then {now}");
        last = now;
        now == 100
    });

    let names = visits(&gateway, 10);
    assert_eq!(tally(&names)["b"], 5);
}

#[test]
fn without_it_a_new_target_has_its_weight_at_once() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let gateway = Gateway::start(&upstream("slow_start: 0", &authorities(&[&a])));
    gateway.reload(&upstream("slow_start: 0", &authorities(&[&a, &b])));
    assert_eq!(percent(&gateway, 1), 100);
    let names = visits(&gateway, 10);
    assert_eq!(tally(&names)["b"], 5);
}

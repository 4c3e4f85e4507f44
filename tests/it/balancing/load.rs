//! Algorithms that look at what targets have to do: `least-connections` and `latency`.

use std::time::Duration;

use super::{authorities, upstream, visits};
use crate::harness::{Gate, Gateway, Origin, Reply, Request, Stopwatch};

/// Answers after so many milliseconds.
fn slow(name: &'static str, delay: u64) -> Origin {
    Origin::start(move |_| {
        Reply::stream(move |stream| {
            use std::io::Write;
            std::thread::sleep(Duration::from_millis(delay));
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
                name.len()
            )
        })
    })
}

/// S09
#[test]
fn least_connections_sends_more_than_four_fifths_to_the_fast_one_of_two() {
    let (fast, slow) = (slow("fast", 5), slow("slow", 500));
    let gateway = Gateway::start(&upstream(
        "algorithm: least-connections",
        &authorities(&[&slow, &fast]),
    ));
    let watch = Stopwatch::start();

    gateway.concurrently(50, |client| {
        while watch.elapsed() < Duration::from_secs(3) {
            assert_eq!(client.send(&Request::get("/")).status, 200);
        }
    });

    let (fast, slow) = (fast.count(), slow.count());
    assert!(fast * 100 > (fast + slow) * 80, "{fast} and {slow}");
}

#[test]
fn least_connections_goes_where_nothing_is_under_way() {
    let gate = Gate::new();
    let held = gate.clone();
    let busy = Origin::start(move |request| match request.target.as_str() {
        "/held" => Reply::ok("busy").after(&held),
        _ => Reply::ok("busy"),
    });
    let idle = Origin::replying("idle");
    let gateway = Gateway::start(&upstream(
        "algorithm: least-connections",
        &authorities(&[&busy]),
    ));
    let mut holder = gateway.connect();
    holder
        .write(Request::get("/held").bytes())
        .expect("written");
    busy.wait_until("the request", |requests| requests.len() == 1);

    // What is under way is still counted under another configuration.
    gateway.reload(&upstream(
        "algorithm: least-connections",
        &authorities(&[&busy, &idle]),
    ));
    assert_eq!(visits(&gateway, 10), ["idle"; 10]);
    let shown = gateway.admin("/status/upstreams").json();
    let upstream = &shown["upstreams"][0];
    assert_eq!(upstream["algorithm"], "least-connections");
    assert_eq!(upstream["targets"][0]["addresses"][0]["requests"], 1);

    gate.open();
    assert_eq!(holder.read_response().expect("an answer").text(), "busy");
    let names = visits(&gateway, 10);
    assert!(names.contains(&"busy".to_owned()), "{names:?}");
}

#[test]
fn a_retry_of_least_connections_avoids_what_failed() {
    let good = Origin::replying("good");
    let dead = Origin::start(|_| Reply::reset());
    let gateway = Gateway::start(&upstream(
        "algorithm: least-connections",
        &authorities(&[&dead, &good]),
    ));

    assert_eq!(visits(&gateway, 20), ["good"; 20]);
    assert!(dead.count() > 0);
}

#[test]
fn latency_prefers_the_target_that_answers_sooner() {
    let (fast, slow) = (Origin::replying("fast"), slow("slow", 200));
    let gateway = Gateway::start(&upstream(
        "algorithm: latency",
        &authorities(&[&slow, &fast]),
    ));

    let names = visits(&gateway, 60);

    let late = names.iter().filter(|name| *name == "slow").count();
    assert!(
        (1..=2).contains(&late),
        "it is tried, and then left alone: {late}"
    );
    let shown = gateway.admin("/status/upstreams").json();
    let latency = &shown["upstreams"][0]["targets"][0]["addresses"][0]["latency_ms"];
    assert!(
        latency.as_f64().is_some_and(|latency| latency > 100.0),
        "{latency}"
    );
}

#[test]
fn latency_survives_a_reload() {
    let (fast, slow) = (Origin::replying("fast"), slow("slow", 200));
    let targets = authorities(&[&slow, &fast]);
    let gateway = Gateway::start(&upstream("algorithm: latency", &targets));
    visits(&gateway, 20);
    let before = slow.count();

    gateway.reload(&upstream("algorithm: latency\ntags: [other]", &targets));

    assert_eq!(visits(&gateway, 20), ["fast"; 20]);
    assert_eq!(slow.count(), before);
}

#[test]
fn a_target_that_refuses_does_not_look_fast() {
    let (good, dead) = (slow("good", 20), Origin::start(|_| Reply::reset()));
    let gateway = Gateway::start(&upstream(
        "algorithm: latency",
        &authorities(&[&dead, &good]),
    ));

    assert_eq!(visits(&gateway, 40), ["good"; 40]);

    assert!(dead.count() < 12, "{} tries", dead.count());
}

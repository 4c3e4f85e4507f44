//! `consistent-hashing`: one target for one key, whatever the key is taken from.

use std::collections::{BTreeMap, BTreeSet};

use super::{authorities, upstream, visits};
use crate::harness::{Gateway, Origin, Request, Response, tollgate};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const TRUSTING: &str = "trusted_ips: 127.0.0.1\nreal_ip_header: X-Real-IP";

/// Five origins behind an upstream with these fields.
fn started(fields: &str) -> (Gateway, [Origin; 5]) {
    let origins = NAMES.map(Origin::replying);
    let gateway = Gateway::start_with(
        TRUSTING,
        &upstream(fields, &authorities(&origins.each_ref())),
    );
    (gateway, origins)
}

/// Asserts that equal requests go to one target and that different ones do not all.
#[track_caller]
fn assert_hashed(gateway: &Gateway, request: impl Fn(usize) -> Request) {
    let mut client = gateway.connect();
    let mut places = BTreeSet::new();
    for number in 0..30 {
        let first = client.send(&request(number)).text();
        assert_eq!(
            client.send(&request(number)).text(),
            first,
            "request {number}"
        );
        places.insert(first);
    }
    assert!(places.len() >= 4, "30 keys on {places:?}");
}

/// Where the requests of so many clients go.
fn map_of_clients(gateway: &Gateway, count: usize) -> BTreeMap<usize, String> {
    let mut client = gateway.connect();
    (0..count)
        .map(|number| {
            let ip = format!("10.1.{}.{}", number / 250, number % 250 + 1);
            let request = Request::get("/").header("X-Real-IP", &ip);
            (number, client.send(&request).text())
        })
        .collect()
}

/// S10
#[test]
fn clients_stay_when_a_target_leaves_and_the_map_is_the_same_everywhere() {
    let origins = NAMES.map(Origin::replying);
    let targets = authorities(&origins.each_ref());
    let document = |targets: &[String]| upstream("hash_on: ip", targets);
    let gateway = Gateway::start_with(TRUSTING, &document(&targets));
    let before = map_of_clients(&gateway, 500);

    let mut turned = targets.clone();
    turned.rotate_left(2);
    let other = Gateway::start_with(TRUSTING, &document(&turned));
    assert_eq!(
        map_of_clients(&other, 500),
        before,
        "another process and order"
    );

    gateway.reload(&document(&targets[..4]));
    let after = map_of_clients(&gateway, 500);
    let mut moved = 0;
    for (client, place) in &before {
        if &after[client] != place {
            assert_eq!(place, "e", "only the clients of the one that left");
            moved += 1;
        }
    }
    assert!((1..=130).contains(&moved), "{moved} of 500 moved");
}

#[test]
fn only_the_clients_of_an_unhealthy_target_move_and_they_come_back() {
    let checks = "hash_on: ip\nhealthchecks: { active: { timeout: 1, healthy: { interval: 0.05, successes: 1 }, \
                  unhealthy: { interval: 0.05, http_failures: 1, tcp_failures: 1, timeouts: 1 } } }";
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_broken = std::sync::Arc::clone(&broken);
    let e = Origin::start(move |_| {
        if is_broken.load(std::sync::atomic::Ordering::SeqCst) {
            crate::harness::Reply::status(500)
        } else {
            crate::harness::Reply::ok("e")
        }
    });
    let others = ["a", "b", "c"].map(Origin::replying);
    let [a, b, c] = &others;
    let gateway = Gateway::start_with(TRUSTING, &upstream(checks, &authorities(&[a, b, c, &e])));
    let before = map_of_clients(&gateway, 100);

    broken.store(true, std::sync::atomic::Ordering::SeqCst);
    crate::harness::wait_until("it to be out", || {
        gateway.admin("/health").json()["healthy_backends"] == 3
    });
    let during = map_of_clients(&gateway, 100);
    for (client, place) in &before {
        let now = &during[client];
        assert!(if place == "e" {
            now != "e"
        } else {
            now == place
        });
    }

    broken.store(false, std::sync::atomic::Ordering::SeqCst);
    crate::harness::wait_until("it to be back", || {
        gateway.admin("/health").json()["healthy_backends"] == 4
    });
    assert_eq!(map_of_clients(&gateway, 100), before);
}

#[test]
fn a_header_decides() {
    let (gateway, _origins) = started("hash_on: header\nhash_on_header: X-User");
    assert_hashed(&gateway, |number| {
        Request::get("/").header("x-user", &number.to_string())
    });
    let joined = gateway.send(&Request::get("/").header("X-User", "a, b"));
    let lines = Request::get("/")
        .header("X-User", "a")
        .header("X-User", "b");
    assert_eq!(
        gateway.send(&lines).text(),
        joined.text(),
        "lines are joined"
    );
}

#[test]
fn the_path_decides() {
    let (gateway, _origins) = started("hash_on: path");
    assert_hashed(&gateway, |number| {
        Request::get(&format!("/{number}?x={number}"))
    });
    let of = |path: &str| gateway.get(path).text();
    assert_eq!(
        of("/a/b?x=1"),
        of("/a/./b?x=2"),
        "as it is normalised, without the query"
    );
}

#[test]
fn an_argument_decides() {
    let (gateway, _origins) = started("hash_on: query_arg\nhash_on_query_arg: user");
    assert_hashed(&gateway, |number| {
        Request::get(&format!("/?a=1&user={number}"))
    });
    let of = |query: &str| gateway.get(&format!("/?{query}")).text();
    assert_eq!(of("user=a%20b"), of("user=a+b"));
    assert_eq!(of("user=1&user=2"), of("user=2&user=1"));
}

#[test]
fn a_capture_of_the_route_decides() {
    let origins = NAMES.map(Origin::replying);
    let text = upstream(
        "hash_on: uri_capture\nhash_on_uri_capture: user",
        &authorities(&origins.each_ref()),
    );
    let gateway = Gateway::start(&text.replace("[/]", r"['~/(?<user>\w+)/\w+']"));
    assert_hashed(&gateway, |number| {
        Request::get(&format!("/{number}/x{number}"))
    });
    let of = |path: &str| gateway.get(path).text();
    assert_eq!(of("/alice/1"), of("/alice/2"));
}

#[test]
fn a_consumer_decides_and_strangers_take_turns() {
    let origins = NAMES.map(Origin::replying);
    let mut text = upstream("hash_on: consumer", &authorities(&origins.each_ref()));
    text.push_str("plugins:\n- { name: key-auth, config: { anonymous: nobody } }\nconsumers:\n- { username: nobody }\n");
    for number in 0..30 {
        text.push_str(&format!(
            "- {{ username: u{number}, keyauth_credentials: [{{ key: k{number} }}] }}\n"
        ));
    }
    let gateway = Gateway::start(&text);
    assert_hashed(&gateway, |number| {
        Request::get("/").header("apikey", &format!("k{number}"))
    });
}

fn set_cookie(response: &Response) -> Option<String> {
    response.header("set-cookie").map(str::to_owned)
}

#[test]
fn a_cookie_decides_and_who_has_none_gets_one() {
    let (gateway, _origins) =
        started("hash_on: cookie\nhash_on_cookie: sid\nhash_on_cookie_path: /shop");
    assert_hashed(&gateway, |number| {
        Request::get("/").header("Cookie", &format!("x=1; sid={number}"))
    });

    let first = gateway.get("/");
    let cookie = set_cookie(&first).expect("a cookie");
    assert!(
        cookie.ends_with("; Path=/shop; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().expect("a pair");
    assert_eq!(pair.len(), "sid=".len() + 36, "{pair}");
    for _ in 0..5 {
        let again = gateway.send(&Request::get("/").header("Cookie", pair));
        assert_eq!((again.text(), set_cookie(&again)), (first.text(), None));
    }
}

#[test]
fn what_is_missing_falls_back_and_then_takes_turns() {
    let (gateway, _origins) = started(
        "hash_on: header\nhash_on_header: x-user\nhash_fallback: query_arg\nhash_fallback_query_arg: user",
    );
    assert_hashed(&gateway, |number| Request::get(&format!("/?user={number}")));
    let of_header = gateway
        .send(&Request::get("/?user=1").header("x-user", "7"))
        .text();
    let alone = gateway
        .send(&Request::get("/").header("x-user", "7"))
        .text();
    assert_eq!(of_header, alone, "the header comes first");

    let mut turns = visits(&gateway, 5);
    turns.sort();
    assert_eq!(turns, NAMES, "without both in turn");
}

#[test]
fn a_retry_goes_on_along_the_ring() {
    let good = Origin::replying("good");
    let dead = Origin::start(|_| crate::harness::Reply::reset());
    let gateway = Gateway::start_with(
        TRUSTING,
        &upstream("hash_on: ip", &authorities(&[&dead, &good])),
    );

    let places = map_of_clients(&gateway, 20);

    assert!(places.values().all(|place| place == "good") && dead.count() > 0);
}

/// What `tollgate explain` says of a request to the running gateway.
fn explained(gateway: &Gateway, header: &str) -> serde_json::Value {
    let admin = format!("http://127.0.0.1:{}", gateway.admin_port());
    let arguments = [
        "explain", "--format", "json", "--admin", &admin, "-H", header, "GET", "/",
    ];
    let outcome = tollgate(std::path::Path::new("."), &arguments);
    serde_json::from_str(&outcome.stdout).expect("an explanation in JSON")
}

#[test]
fn an_explanation_names_the_target_that_live_traffic_takes() {
    let (gateway, origins) = started("hash_on: header\nhash_on_header: x-user");
    for number in 0..8 {
        let value = number.to_string();
        let taken = gateway
            .send(&Request::get("/").header("x-user", &value))
            .text();
        let origin = origins.iter().zip(NAMES).find(|(_, name)| *name == taken);
        let authority = origin.expect("an origin").0.authority();
        let explanation = explained(&gateway, &format!("x-user: {value}"));
        let choice = explanation["service"]["upstream"]["choice"].as_str();
        let expected = format!("the header `x-user` leads to {authority}");
        assert_eq!(choice, Some(expected.as_str()));
        assert_eq!(explanation["sent"]["to"], authority.as_str());
    }
}

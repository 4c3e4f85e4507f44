//! `sticky-sessions`: a cookie names the target.

use super::{authorities, upstream, visits};
use crate::harness::{Gateway, Origin, Reply, Request};

const FIELDS: &str =
    "algorithm: sticky-sessions\nsticky_sessions_cookie: gw\nsticky_sessions_cookie_path: /x";

#[test]
fn a_client_that_brings_its_cookie_stays_and_others_take_turns() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let targets = authorities(&[&a, &b]);
    let gateway = Gateway::start(&upstream(FIELDS, &targets));
    assert_eq!(visits(&gateway, 4), ["a", "b", "a", "b"]);

    let first = gateway.get("/");
    let cookie = first.header("set-cookie").expect("a cookie").to_owned();
    assert!(
        cookie.ends_with("; Path=/x; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().expect("a pair");
    assert_eq!(pair.len(), "gw=".len() + 16, "{pair}");
    let port = a.port().to_string();
    assert!(!pair.contains(&port) && !pair.contains("127"), "{pair}");
    let request = Request::get("/").header("Cookie", pair);
    for _ in 0..5 {
        let again = gateway.send(&request);
        assert_eq!(again.text(), first.text());
        assert_eq!(again.header("set-cookie"), None);
    }

    let other = Gateway::start(&upstream(FIELDS, &targets));
    assert_eq!(
        other.send(&request).text(),
        first.text(),
        "another process knows it too"
    );
}

#[test]
fn a_client_whose_target_is_gone_gets_another_and_a_new_cookie() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let gateway = Gateway::start(&upstream(FIELDS, &authorities(&[&a])));
    let first = gateway.get("/");
    let pair = first
        .header("set-cookie")
        .and_then(|it| it.split(';').next());
    let request = Request::get("/").header("Cookie", pair.expect("a cookie"));

    gateway.reload(&upstream(FIELDS, &authorities(&[&b])));

    let moved = gateway.send(&request);
    assert_eq!(moved.text(), "b");
    let new = moved.header("set-cookie").expect("a new cookie");
    assert!(!new.starts_with(pair.expect("a cookie")), "{new}");
}

#[test]
fn a_cookie_that_means_nothing_is_replaced() {
    let a = Origin::replying("a");
    let gateway = Gateway::start(&upstream(FIELDS, &authorities(&[&a])));
    for value in [
        "gw=",
        "gw=zzz",
        "gw=0123456789abcdef",
        "gw=ffffffffffffffffffffffff",
    ] {
        let answer = gateway.send(&Request::get("/").header("Cookie", value));
        assert!(answer.header("set-cookie").is_some(), "{value}");
    }
}

#[test]
fn a_retry_moves_the_session() {
    let good = Origin::replying("good");
    let dying = Origin::start(|request| match request.header("cookie") {
        None => Reply::ok("dying"),
        Some(_) => Reply::reset(),
    });
    let gateway = Gateway::start(&upstream(FIELDS, &authorities(&[&dying, &good])));
    let first = gateway.get("/");
    assert_eq!(first.text(), "dying");
    let pair = first
        .header("set-cookie")
        .and_then(|it| it.split(';').next());

    let moved = gateway.send(&Request::get("/").header("Cookie", pair.expect("a cookie")));

    assert_eq!(moved.text(), "good");
    assert!(moved.header("set-cookie").is_some());
}

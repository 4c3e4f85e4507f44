//! Rules, turns and stickiness, through the plugin's configuration.

use std::collections::HashMap;

use uuid::Uuid;

use super::*;
use crate::{
    entity::consumer::ConsumerIndex,
    plugin::{
        Destination, Destinations,
        testing::{Visit, World},
    },
};

const NINETY_TEN: &str =
    "{ rules: [ { to: [ { service: v1, weight: 90 }, { service: v2, weight: 10 } ] } ] }";

/// The place of the service that a request of this visit goes to; `None` = the route's own.
async fn sent(plugin: &TrafficSplit, mut visit: Visit<'_, TrafficSplit>) -> Option<usize> {
    visit.admit(plugin).await.expect("it never answers");
    visit.directions.service.map(|service| service.0)
}

#[tokio::test]
async fn of_any_hundred_requests_in_a_row_each_service_gets_its_share() {
    let world = World::new();
    let plugin = world.configured::<TrafficSplit>(NINETY_TEN);
    let mut turns = Vec::new();
    for _ in 0..350 {
        turns.push(sent(&plugin, Visit::get(&world, "/")).await);
    }
    for window in turns.windows(100) {
        let canary = window.iter().filter(|turn| **turn == Some(1)).count();
        assert!((9..=11).contains(&canary), "{canary} of 100");
    }
}

#[tokio::test]
async fn a_reload_goes_on_where_the_turns_were() {
    let world = World::new();
    let yaml = "{ rules: [ { to: [ { service: v1, weight: 3 }, { service: v2 } ] } ] }";
    let mut turns = Vec::new();
    let mut kept = world.configured::<TrafficSplit>(yaml);
    for _ in 0..40 {
        turns.push(sent(&kept, Visit::get(&world, "/")).await);
        kept = world.configured::<TrafficSplit>(yaml);
    }
    for window in turns.windows(4) {
        let canary = window.iter().filter(|turn| **turn == Some(1)).count();
        assert_eq!(canary, 1, "{turns:?}");
    }
}

#[tokio::test]
async fn the_first_rule_that_fits_decides() {
    let world = World::new();
    let plugin = world.configured::<TrafficSplit>(
        r#"
        rules:
        - when: { headers: { X-Canary: ["1", "yes"] }, query: { trial: ["a b"] } }
          to: [ { service: v3 } ]
        - when: { cookies: { canary: ["on"] } }
          to: [ { service: v2 } ]
        - when: { headers: { X-Own: ["1"] } }
          to: [ {} ]
        - when: { query: { all: ["1"] } }
          to: [ { service: v1 } ]
        "#,
    );
    let get = |target| Visit::get(&world, target);
    for (visit, expected) in [
        (get("/?trial=a+b").header("x-canary", "yes"), Some(2)),
        (
            get("/?trial=no&trial=a%20b").header("x-canary", "1"),
            Some(2),
        ),
        (get("/?trial=a+b").header("x-canary", "no"), None),
        (get("/").header("x-canary", "1"), None),
        (get("/").header("cookie", "a=1; canary=on ;b"), Some(1)),
        (get("/").header("cookie", "canary=off"), None),
        (get("/?all=1").header("x-own", "1"), None),
        (get("/?all=1"), Some(0)),
        (get("/"), None),
    ] {
        let shown = format!("{visit:?}");
        assert_eq!(sent(&plugin, visit).await, expected, "{shown}");
    }
}

#[tokio::test]
async fn consumers_are_told_by_whoever_found_them() {
    let world = World::new();
    let plugin = world.configured::<TrafficSplit>(
        "{ rules: [ { when: { consumers: [bob] }, to: [ { service: v2 } ] } ] }",
    );
    let mut visit = Visit::get(&world, "/");
    visit.identity.consumer = Some(ConsumerIndex(0));
    assert_eq!(sent(&plugin, visit).await, Some(1));
    let mut visit = Visit::get(&world, "/");
    visit.identity.consumer = Some(ConsumerIndex(1));
    assert_eq!(sent(&plugin, visit).await, None);
    assert_eq!(sent(&plugin, Visit::get(&world, "/")).await, None);
}

#[tokio::test]
async fn a_sticky_client_stays_and_one_without_its_mark_is_told_by_its_address() {
    let world = World::new();
    for (sticky, mark) in [
        ("ip", None),
        ("consumer", None),
        ("header:X-Tenant", Some(("x-tenant", ""))),
        ("cookie:session", Some(("cookie", "session="))),
    ] {
        let yaml = format!(
            "{{ sticky: '{sticky}', rules: [ {{ to: [ {{ service: v1 }}, {{ service: v2 }} ] }} ] }}"
        );
        let plugin = world.configured::<TrafficSplit>(&yaml);
        let mut shares: HashMap<Option<usize>, usize> = HashMap::new();
        for number in 0..60 {
            let ip = format!("192.0.2.{number}");
            let visit = || match mark {
                Some((name, before)) => {
                    Visit::get(&world, "/").header(name, &format!("{before}{number}"))
                }
                None => Visit::get(&world, "/").client_ip(&ip),
            };
            let first = sent(&plugin, visit()).await;
            assert_eq!(sent(&plugin, visit()).await, first, "{sticky}");
            *shares.entry(first).or_default() += 1;
            let unmarked = || Visit::get(&world, "/").client_ip(&ip);
            let first = sent(&plugin, unmarked()).await;
            assert_eq!(sent(&plugin, unmarked()).await, first, "{sticky}");
        }
        assert_eq!(shares.len(), 2, "{sticky}: {shares:?}");
    }
}

#[test]
fn services_that_speak_grpc_stand_apart_from_those_that_do_not() {
    let mut world = World::new();
    let services = [(1, "web", false), (2, "calls", true), (3, "next", true)];
    world.destinations = Destinations::new(services.map(|(id, name, is_grpc)| Destination {
        id: Uuid::from_u128(id),
        name: Some(name.to_owned()),
        obstacle: None,
        is_grpc,
    }));
    world.configured::<TrafficSplit>(
        "{ rules: [ { to: [ { service: calls }, { service: next } ] } ] }",
    );
    let mixed = "{ rules: [ { when: { query: { a: ['1'] } }, to: [ { service: calls } ] }, { to: [ {}, { service: web } ] } ] }";
    let error = world.configure::<TrafficSplit>(mixed).expect_err("refused");
    assert_eq!(
        (&*error.field, &*error.message),
        (
            "rules[1].to[1].service",
            "service `calls` speaks gRPC and service `web` does not: no request can go to both"
        )
    );
}

#[test]
fn mistakes_are_told_at_their_place() {
    let world = World::new();
    for (yaml, field, message) in [
        (
            "{ rules: [ { to: [ {} ] }, { to: [ { service: v2 } ] } ] }",
            "rules[0]",
            "it is for every request, so rule 2 is never asked: put it last",
        ),
        (
            "{ rules: [ { to: [ { service: v9 } ] } ] }",
            "rules[0].to[0].service",
            "invalid reference 'v9' (no such entry in 'services')",
        ),
        (
            "{ rules: [ { to: [ { service: v1, weight: 0 } ] } ] }",
            "rules[0].to",
            "no service has a weight above 0",
        ),
        (
            "{ rules: [ { to: [ { service: v1 }, { service: v1 } ] } ] }",
            "rules[0].to[1]",
            "service `v1` stands here twice: add the weights up",
        ),
        (
            "{ rules: [ { when: { consumers: [bob, eve] }, to: [ {} ] } ] }",
            "rules[0].when.consumers[1]",
            "invalid reference 'eve' (no such entry in 'consumers')",
        ),
        (
            "{ rules: [ { when: { consumer_groups: [gold] }, to: [ {} ] } ] }",
            "rules[0].when.consumer_groups[0]",
            "invalid reference 'gold' (no such entry in 'consumer_groups')",
        ),
        (
            "{ rules: [ { when: { cookies: { a: [] } }, to: [ {} ] } ] }",
            "rules[0].when.cookies",
            "`a` has no value, so no request could fit",
        ),
        (
            "{ sticky: moon, rules: [ { to: [ {} ] } ] }",
            "sticky",
            "`moon` is not one of `none`, `ip`, `consumer`, `header:NAME` and `cookie:NAME`",
        ),
    ] {
        let error = world.configure::<TrafficSplit>(yaml).expect_err("refused");
        assert_eq!((&*error.field, &*error.message), (field, message), "{yaml}");
    }
}

//! What the plugin does, through its real configuration and views.

use std::time::Duration;

use http::HeaderValue;

use super::*;
use crate::plugin::testing::{Visit, World};

type Limited<'w> = Visit<'w, RateLimiting>;

async fn is_admitted(visit: &mut Limited<'_>, plugin: &RateLimiting) -> bool {
    visit.admit(plugin).await.is_ok()
}

fn refused(yaml: &str) -> ConfigError {
    World::new()
        .configure::<RateLimiting>(yaml)
        .expect_err("the configuration is wrong")
}

#[tokio::test]
async fn the_first_of_one_passes_and_the_second_is_refused() {
    let world = World::new();
    let plugin = world.configured::<RateLimiting>("{ minute: 1 }");
    let (mut first, mut second) = (Limited::get(&world, "/"), Limited::get(&world, "/"));

    assert!(is_admitted(&mut first, &plugin).await);
    first.deliver(&plugin, 200, &[("X-RateLimit-Remaining-Minute", "77")]);
    assert_eq!(first.seen_by_client("X-RateLimit-Limit-Minute"), "1");
    assert_eq!(first.seen_by_client("X-RateLimit-Remaining-Minute"), "0");
    assert_eq!(first.seen_by_client("Retry-After"), "");

    world.state.clock.advance(Duration::from_millis(1500));
    let reply = second.refused(&plugin).await;
    assert_eq!((reply.status, reply.reason), (429, Reason::RateLimited));
    assert_eq!(reply.body, crate::plugin::Body::Message(MESSAGE.into()));
    second.deliver(&plugin, 429, &[]);
    assert_eq!(second.seen_by_client("RateLimit-Limit"), "1");
    assert_eq!(second.seen_by_client("RateLimit-Remaining"), "0");
    assert_eq!(second.seen_by_client("RateLimit-Reset"), "59");
    assert_eq!(second.seen_by_client("Retry-After"), "59");
}

#[tokio::test]
async fn a_refusal_shows_the_other_periods_undiminished() {
    let world = World::new();
    let plugin = world.configured::<RateLimiting>("{ second: 2, hour: 10 }");
    let mut visit = Limited::get(&world, "/");
    for _ in 0..5 {
        is_admitted(&mut visit, &plugin).await;
    }
    visit.deliver(&plugin, 429, &[]);
    assert_eq!(visit.seen_by_client("X-RateLimit-Remaining-Second"), "0");
    assert_eq!(visit.seen_by_client("X-RateLimit-Limit-Hour"), "10");
    assert_eq!(visit.seen_by_client("X-RateLimit-Remaining-Hour"), "8");
    assert_eq!(visit.seen_by_client("RateLimit-Limit"), "2");
    assert_eq!(visit.seen_by_client("Retry-After"), "1");
    world.state.clock.advance(Duration::from_secs(1));
    assert!(is_admitted(&mut visit, &plugin).await);
}

#[tokio::test]
async fn fractions_show_a_decimal_point_and_whole_numbers_do_not() {
    let world = World::new();
    let plugin = world.configured::<RateLimiting>("{ minute: 2.5, hour: 1e3 }");
    let mut visit = Limited::get(&world, "/");
    assert!(is_admitted(&mut visit, &plugin).await);
    visit.deliver(&plugin, 200, &[]);
    assert_eq!(visit.seen_by_client("X-RateLimit-Limit-Minute"), "2.5");
    assert_eq!(visit.seen_by_client("X-RateLimit-Remaining-Minute"), "1.5");
    assert_eq!(visit.seen_by_client("X-RateLimit-Limit-Hour"), "1000");
    assert_eq!(visit.seen_by_client("X-RateLimit-Remaining-Hour"), "999");
}

#[tokio::test]
async fn hidden_headers_are_not_sent() {
    let world = World::new();
    let plugin = world.configured::<RateLimiting>("{ minute: 1, hide_client_headers: true }");
    let mut visit = Limited::get(&world, "/");
    assert!(is_admitted(&mut visit, &plugin).await);
    assert!(!is_admitted(&mut visit, &plugin).await);
    visit.deliver(&plugin, 429, &[]);
    for name in ["X-RateLimit-Limit-Minute", "RateLimit-Limit", "Retry-After"] {
        assert_eq!(visit.seen_by_client(name), "");
    }
}

#[tokio::test]
async fn a_request_that_never_came_here_carries_no_headers() {
    let world = World::new();
    let plugin = world.configured::<RateLimiting>("{ minute: 1 }");
    let mut visit = Limited::get(&world, "/");
    visit.deliver(&plugin, 401, &[]);
    assert_eq!(visit.seen_by_client("X-RateLimit-Limit-Minute"), "");
}

#[tokio::test]
async fn status_and_message_of_a_refusal_can_be_chosen() {
    let world = World::new();
    let plugin = world
        .configured::<RateLimiting>("{ minute: 1, error_code: 403, error_message: slow down }");
    let mut visit = Limited::get(&world, "/");
    assert!(is_admitted(&mut visit, &plugin).await);
    let reply = visit.refused(&plugin).await;
    assert_eq!(reply.status, 403);
    assert_eq!(reply.body, crate::plugin::Body::Message("slow down".into()));
}

#[tokio::test]
async fn clients_are_told_apart_by_address_unless_they_are_known() {
    let world = World::new();
    let plugin = world.configured::<RateLimiting>("{ minute: 1 }");
    let from = |ip| Limited::get(&world, "/").client_ip(ip);
    assert!(is_admitted(&mut from("192.0.2.1"), &plugin).await);
    assert!(is_admitted(&mut from("192.0.2.2"), &plugin).await);
    assert!(!is_admitted(&mut from("192.0.2.1"), &plugin).await);

    let mut bob = from("192.0.2.1");
    bob.identity.consumer = world.consumers.find("bob");
    assert!(is_admitted(&mut bob, &plugin).await);
    let mut bob_elsewhere = from("2001:db8::1");
    bob_elsewhere.identity.consumer = world.consumers.find("bob");
    assert!(!is_admitted(&mut bob_elsewhere, &plugin).await);
    let mut guest = from("192.0.2.1");
    guest.identity.consumer = world.consumers.find("guest");
    assert!(is_admitted(&mut guest, &plugin).await);
}

#[tokio::test]
async fn a_credential_counts_for_itself() {
    let world = World::new();
    let plugin = world.configured::<RateLimiting>("{ minute: 1, limit_by: credential }");
    let with = |id: &'static str| {
        let mut visit = Limited::get(&world, "/");
        visit.identity.consumer = world.consumers.find("bob");
        visit.identity.credential = Some(HeaderValue::from_static(id));
        visit
    };
    assert!(is_admitted(&mut with("key-1"), &plugin).await);
    assert!(is_admitted(&mut with("key-2"), &plugin).await);
    assert!(!is_admitted(&mut with("key-1"), &plugin).await);
    assert!(is_admitted(&mut Limited::get(&world, "/"), &plugin).await);
}

#[tokio::test]
async fn a_service_counts_all_clients_together() {
    let world = World::new();
    let plugin = world.configured::<RateLimiting>("{ minute: 1, limit_by: service }");
    let from = |ip| Limited::get(&world, "/").client_ip(ip);
    assert!(is_admitted(&mut from("192.0.2.1"), &plugin).await);
    assert!(!is_admitted(&mut from("192.0.2.2"), &plugin).await);
}

#[tokio::test]
async fn a_header_value_counts_for_itself_and_is_no_address() {
    let world = World::new();
    let plugin = world
        .configured::<RateLimiting>("{ minute: 1, limit_by: header, header_name: X-Api-Client }");
    let with = |value| Limited::get(&world, "/").header("x-api-client", value);
    assert!(is_admitted(&mut with("a"), &plugin).await);
    assert!(is_admitted(&mut with("192.0.2.7"), &plugin).await);
    assert!(!is_admitted(&mut with("a"), &plugin).await);
    assert!(is_admitted(&mut Limited::get(&world, "/"), &plugin).await);
    assert!(!is_admitted(&mut Limited::get(&world, "/"), &plugin).await);
}

#[tokio::test]
async fn one_path_shares_a_count_and_others_go_by_address() {
    let world = World::new();
    let plugin = world.configured::<RateLimiting>("{ minute: 1, limit_by: path, path: /login }");
    let from = |ip, target| Limited::get(&world, target).client_ip(ip);
    assert!(is_admitted(&mut from("192.0.2.1", "/login?a=1"), &plugin).await);
    assert!(!is_admitted(&mut from("192.0.2.2", "/login"), &plugin).await);
    assert!(is_admitted(&mut from("192.0.2.1", "/login/"), &plugin).await);
    assert!(is_admitted(&mut from("192.0.2.2", "/login/"), &plugin).await);
    assert!(!is_admitted(&mut from("192.0.2.1", "/other"), &plugin).await);
}

#[tokio::test]
async fn a_reload_with_another_limit_keeps_the_counts() {
    let world = World::new();
    let before = world.configured::<RateLimiting>("{ hour: 1 }");
    let mut visit = Limited::get(&world, "/");
    assert!(is_admitted(&mut visit, &before).await);
    let after = world.configured::<RateLimiting>("{ hour: 3, max_keys: 5000 }");
    drop(before);
    assert!(is_admitted(&mut visit, &after).await);
    visit.deliver(&after, 200, &[]);
    assert_eq!(visit.seen_by_client("X-RateLimit-Remaining-Hour"), "1");
}

#[test]
fn what_kong_files_say_of_redis_is_known_and_inert() {
    let yaml = "
        minute: 5
        policy: local
        sync_rate: -1
        fault_tolerant: true
        redis_host: cache
        redis_port: 6379
        redis_ssl: false
        redis: { host: cache, port: 6379, timeout: 2000, username: u, password: p,
                 database: 0, ssl: false, ssl_verify: false, server_name: cache }";
    World::new().configured::<RateLimiting>(yaml);
    let error = refused("{ minute: 5, redis_port: 6380, redis: { port: 6379 } }");
    assert_eq!(error.field, "redis_port");
}

#[test]
fn rules_between_fields_name_the_field_at_fault() {
    for (yaml, field) in [
        ("{}", ""),
        ("{ second: 10, hour: 9 }", "hour"),
        ("{ day: 10, month: 20, year: 19.5 }", "year"),
        ("{ minute: 0 }", "minute"),
        ("{ minute: .inf }", "minute"),
        ("{ minute: 5, limit_by: header }", "header_name"),
        (
            "{ minute: 5, limit_by: header, header_name: 'a b' }",
            "header_name",
        ),
        ("{ minute: 5, limit_by: path }", "path"),
        ("{ minute: 5, limit_by: path, path: login }", "path"),
        ("{ minute: 5, sync_rate: 0.5 }", "sync_rate"),
        ("{ minute: 5, max_keys: 999 }", "max_keys"),
        ("{ minute: 5, error_code: 42 }", "error_code"),
    ] {
        assert_eq!(refused(yaml).field, field, "{yaml}");
    }
}

#[test]
fn what_this_version_does_not_take_is_refused_with_a_way_out() {
    let schema = schemars::schema_for!(Config).to_value().to_string();
    for name in [
        "redis",
        "cluster",
        "sliding",
        "token-bucket",
        "burst",
        "cost_header",
    ] {
        assert!(schema.contains(&format!("[\"{name}\",\"")), "{name}");
    }
    for yaml in [
        "{ minute: 5, policy: redis }",
        "{ minute: 5, policy: cluster }",
        "{ minute: 5, algorithm: sliding }",
        "{ minute: 5, burst: 10 }",
    ] {
        refused(yaml);
    }
}

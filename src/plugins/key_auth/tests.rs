//! What `key-auth` does, sentence by sentence.

use std::time::Duration;

use super::*;
use crate::{
    entity::consumer::Consumer,
    plugin::testing::{NOON, Visit, World, reply_header},
};
use uuid::Uuid;

const EVERYWHERE: &str = "{ key_in_body: true, hide_credentials: true }";

type KeyVisit<'w> = Visit<'w, KeyAuth>;

fn form<'w>(world: &'w World, target: &str, body: &'static str) -> KeyVisit<'w> {
    Visit::new(world, "POST", target)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body)
}

fn json<'w>(world: &'w World, target: &str, body: &'static str) -> KeyVisit<'w> {
    Visit::new(world, "POST", target)
        .header("content-type", "application/json; charset=utf-8")
        .body(body)
}

fn multipart<'w>(world: &'w World, fields: &[(&str, &str)]) -> KeyVisit<'w> {
    Visit::new(world, "POST", "/orders")
        .header("content-type", "multipart/form-data; boundary=cut")
        .body(multipart_body(fields))
}

fn multipart_body(fields: &[(&str, &str)]) -> String {
    let parts = fields.iter().map(|(name, value)| {
        format!("--cut\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    });
    parts.collect::<String>() + "--cut--\r\n"
}

/// Asserts that the request is bob's.
async fn assert_bob(mut visit: KeyVisit<'_>, yaml: &str, world: &World) {
    let plugin = world.configured::<KeyAuth>(yaml);
    visit.admit(&plugin).await.expect("admitted");
    assert_eq!(visit.seen_by_origin("x-consumer-username"), "bob");
}

/// Asserts that the request is refused with 401 and `message`.
async fn assert_refused(mut visit: KeyVisit<'_>, yaml: &str, world: &World, message: &'static str) {
    let plugin = world.configured::<KeyAuth>(yaml);
    let expected = Reply::message(401, Reason::Unauthorized, message)
        .header(WWW_AUTHENTICATE, HeaderValue::from_static("Key"));
    assert_eq!(visit.refused(&plugin).await, expected);
    assert!(visit.identity.consumer.is_none());
}

const MISSING: &str = "No API key found in request";
const DUPLICATE: &str = "Duplicate API key found";
const UNKNOWN: &str = "Unauthorized";

#[tokio::test]
async fn a_key_is_found_in_each_place() {
    let world = World::new();
    let yaml = "{ key_in_body: true }";
    for visit in [
        Visit::get(&world, "/").header("ApiKey", "bob-key"),
        Visit::get(&world, "/?a=1&apikey=bob%2Dkey"),
        Visit::get(&world, "/?api%6Bey=bob-key"),
        form(&world, "/", "a=1&apikey=bob-key"),
        json(&world, "/", r#"{"a":1,"apikey":"bob-key"}"#),
        multipart(&world, &[("a", "1"), ("apikey", "bob-key")]),
    ] {
        assert_bob(visit, yaml, &world).await;
    }
}

#[tokio::test]
async fn a_request_with_a_key_has_the_consumers_identity_and_no_smuggled_one() {
    let world = World::new();
    let plugin = world.configured::<KeyAuth>("{}");
    let mut visit = Visit::get(&world, "/")
        .header("apikey", "bob-key")
        .header("x-consumer-id", "forged")
        .header("x-anonymous-consumer", "true");

    visit.admit(&plugin).await.expect("admitted");

    assert_eq!(
        visit.seen_by_origin("x-consumer-id"),
        Uuid::from_u128(0xb0b).to_string()
    );
    assert_eq!(visit.seen_by_origin("x-consumer-custom-id"), "bob-42");
    assert_eq!(
        visit.seen_by_origin("x-credential-identifier"),
        Uuid::from_u128(0xce).to_string()
    );
    assert_eq!(visit.seen_by_origin("x-anonymous-consumer"), "");
    assert!(!visit.identity.anonymous);
    // Without `hide_credentials` the key goes on.
    assert_eq!(visit.seen_by_origin("apikey"), "bob-key");
}

#[tokio::test]
async fn the_first_place_that_has_something_decides() {
    let world = World::new();
    let yaml = "{ key_in_body: true }";
    assert_bob(
        Visit::get(&world, "/?apikey=wrong").header("apikey", "bob-key"),
        yaml,
        &world,
    )
    .await;
    assert_bob(
        form(&world, "/?apikey=bob-key", "apikey=wrong"),
        yaml,
        &world,
    )
    .await;
    assert_bob(
        form(&world, "/", "apikey=wrong").header("apikey", "bob-key"),
        yaml,
        &world,
    )
    .await;

    let wrong_in_header = Visit::get(&world, "/?apikey=bob-key").header("apikey", "wrong");
    assert_refused(wrong_in_header, yaml, &world, UNKNOWN).await;
    let wrong_in_query = form(&world, "/?apikey=wrong", "apikey=bob-key");
    assert_refused(wrong_in_query, yaml, &world, UNKNOWN).await;
    let empty_in_header = Visit::get(&world, "/?apikey=bob-key").header("apikey", "");
    assert_refused(empty_in_header, yaml, &world, MISSING).await;
}

#[tokio::test]
async fn names_are_tried_in_their_order_each_in_every_place() {
    let world = World::new();
    let yaml = "{ key_names: [first, second], key_in_body: true }";
    assert_bob(
        Visit::get(&world, "/").header("second", "bob-key"),
        yaml,
        &world,
    )
    .await;
    assert_bob(
        Visit::get(&world, "/?first=bob-key").header("second", "wrong"),
        yaml,
        &world,
    )
    .await;
    assert_bob(
        form(&world, "/", "first=bob-key").header("second", "wrong"),
        yaml,
        &world,
    )
    .await;
    let wrong_first = Visit::get(&world, "/?first=wrong").header("second", "bob-key");
    assert_refused(wrong_first, yaml, &world, UNKNOWN).await;
}

#[tokio::test]
async fn several_values_at_the_chosen_place_are_refused() {
    let world = World::new();
    let yaml = "{ key_in_body: true }";
    for visit in [
        Visit::get(&world, "/")
            .header("apikey", "bob-key")
            .header("APIKEY", "bob-key"),
        Visit::get(&world, "/?apikey=bob-key&api%6bey=bob-key"),
        form(&world, "/", "apikey=bob-key&apikey="),
        json(&world, "/", r#"{"apikey":["bob-key"]}"#),
        multipart(&world, &[("apikey", "bob-key"), ("apikey", "bob-key")]),
    ] {
        assert_refused(visit, yaml, &world, DUPLICATE).await;
    }
    // Several at a later place do not matter.
    assert_bob(
        Visit::get(&world, "/?apikey=1&apikey=2").header("apikey", "bob-key"),
        yaml,
        &world,
    )
    .await;
}

#[tokio::test]
async fn nothing_and_an_empty_string_are_no_key() {
    let world = World::new();
    let yaml = "{ key_in_body: true }";
    for visit in [
        Visit::get(&world, "/"),
        Visit::get(&world, "/").header("apikey", ""),
        Visit::get(&world, "/?apikey="),
        Visit::get(&world, "/?apikey"),
        form(&world, "/", "apikey="),
        json(&world, "/", r#"{"apikey":""}"#),
        multipart(&world, &[("apikey", "")]),
    ] {
        assert_refused(visit, yaml, &world, MISSING).await;
    }
}

#[tokio::test]
async fn arguments_match_exactly_and_brackets_make_another_name() {
    let world = World::new();
    let yaml = "{ key_in_body: true }";
    for visit in [
        Visit::get(&world, "/?APIKEY=bob-key"),
        Visit::get(&world, "/?apikey[]=bob-key"),
        Visit::get(&world, "/?apikey[1]=bob-key"),
        form(&world, "/", "apikey%5B%5D=bob-key"),
        json(&world, "/", r#"{"ApiKey":"bob-key"}"#),
    ] {
        assert_refused(visit, yaml, &world, MISSING).await;
    }
}

#[tokio::test]
async fn an_unreadable_or_unsupported_body_has_no_key() {
    let world = World::new();
    let yaml = "{ key_in_body: true }";
    for visit in [
        json(&world, "/", r#"{"apikey":"bob-key""#),
        json(&world, "/", r#""apikey""#),
        json(&world, "/", ""),
        form(&world, "/", ""),
        Visit::new(&world, "POST", "/").body("apikey=bob-key"),
        Visit::new(&world, "POST", "/")
            .header("content-type", "text/plain")
            .body("apikey=bob-key"),
        Visit::new(&world, "POST", "/")
            .header("content-type", "multipart/form-data")
            .body(multipart_body(&[("apikey", "bob-key")])),
    ] {
        assert_refused(visit, yaml, &world, MISSING).await;
    }
}

#[tokio::test]
async fn unknown_and_expired_keys_get_the_same_answer() {
    let world = World::new();
    for key in ["bob-kez", "BOB-KEY", "bob-old-key"] {
        assert_refused(
            Visit::get(&world, "/").header("apikey", key),
            "{}",
            &world,
            UNKNOWN,
        )
        .await;
    }
}

#[tokio::test]
async fn a_key_expires_while_the_plugin_runs() {
    let mut world = World::new();
    let mut consumers = Consumers::default();
    let amy = Consumer::new(Uuid::from_u128(1), Some("amy".into()), None, vec![]);
    let amy = consumers.add(amy);
    let ends = NOON / 1000 + 60;
    consumers.add_key("k", KeyCredential::new(Uuid::from_u128(2), amy, Some(ends)));
    world.consumers = consumers.into();
    let plugin = world.configured::<KeyAuth>("{}");
    let visit = || Visit::get(&world, "/?apikey=k");

    world.state.clock.advance(Duration::from_secs(59));
    visit().admit(&plugin).await.expect("admitted");
    world.state.clock.advance(Duration::from_secs(1));
    assert_eq!(visit().refused(&plugin).await.status, 401);
}

#[tokio::test]
async fn a_place_that_is_switched_off_is_not_looked_at() {
    let world = World::new();
    let yaml = "{ key_in_header: false }";
    assert_refused(
        Visit::get(&world, "/").header("apikey", "bob-key"),
        yaml,
        &world,
        MISSING,
    )
    .await;
    assert_bob(
        Visit::get(&world, "/?apikey=bob-key").header("apikey", "wrong"),
        yaml,
        &world,
    )
    .await;
    let yaml = "{ key_in_query: false }";
    assert_refused(
        Visit::get(&world, "/?apikey=bob-key"),
        yaml,
        &world,
        MISSING,
    )
    .await;
    assert_refused(form(&world, "/", "apikey=bob-key"), "{}", &world, MISSING).await;
    let yaml = "{ key_in_header: false, key_in_query: false }";
    let visit = form(&world, "/?apikey=bob-key", "apikey=bob-key").header("apikey", "bob-key");
    assert_refused(visit, yaml, &world, MISSING).await;
}

#[tokio::test]
async fn all_refusals_name_the_realm() {
    let world = World::new();
    let plugin = world.configured::<KeyAuth>("{ realm: My API }");
    for target in ["/", "/?apikey=wrong", "/?apikey=1&apikey=2"] {
        let reply = Visit::get(&world, target).refused(&plugin).await;
        assert_eq!(
            reply_header(&reply, "www-authenticate"),
            "Key realm=\"My API\""
        );
    }
}

#[tokio::test]
async fn a_hidden_key_leaves_the_header() {
    let world = World::new();
    let plugin = world.configured::<KeyAuth>("{ key_names: [k, apikey], hide_credentials: true }");
    let mut visit = Visit::get(&world, "/")
        .header("ApiKey", "bob-key")
        .header("other", "x");

    visit.admit(&plugin).await.expect("admitted");

    assert_eq!(visit.seen_by_origin("apikey"), "");
    assert_eq!(visit.seen_by_origin("other"), "x");
}

#[tokio::test]
async fn a_hidden_key_leaves_the_query_and_the_rest_keeps_order_and_bytes() {
    let world = World::new();
    let plugin = world.configured::<KeyAuth>(EVERYWHERE);
    for (target, rest) in [
        ("/?b=%7e+x&apikey=bob-key&a=%2F&&c", "b=%7e+x&a=%2F&&c"),
        ("/?api%6B%65y=bob-key&a=1", "a=1"),
        ("/?apikey=bob-key", ""),
    ] {
        let mut visit = Visit::get(&world, target);
        visit.admit(&plugin).await.expect("admitted");
        assert_eq!(visit.query_seen_by_origin(), Some(rest), "{target}");
    }
}

#[tokio::test]
async fn a_key_in_the_header_hides_the_argument_of_that_name_too_and_no_other_name() {
    let world = World::new();
    let plugin = world.configured::<KeyAuth>("{ key_names: [apikey, k], hide_credentials: true }");
    let mut visit = Visit::get(&world, "/?apikey=1&k=2&apikey=3")
        .header("apikey", "bob-key")
        .header("k", "4");

    visit.admit(&plugin).await.expect("admitted");

    assert_eq!(visit.query_seen_by_origin(), Some("k=2"));
    assert_eq!(visit.seen_by_origin("apikey"), "");
    assert_eq!(visit.seen_by_origin("k"), "4");
}

#[tokio::test]
async fn a_hidden_key_leaves_the_body() {
    let world = World::new();
    let plugin = world.configured::<KeyAuth>(EVERYWHERE);
    for (mut visit, rest) in [
        (
            form(&world, "/", "b=%7e&apikey=bob-key&a=1"),
            "b=%7e&a=1".to_owned(),
        ),
        (
            json(&world, "/", r#"{"b":1.0,"apikey":"bob-key","a":{}}"#),
            r#"{"b":1.0,"a":{}}"#.into(),
        ),
        (
            multipart(&world, &[("b", "1"), ("apikey", "bob-key"), ("a", "2")]),
            multipart_body(&[("b", "1"), ("a", "2")]),
        ),
    ] {
        let media_type = visit.seen_by_origin("content-type").to_owned();
        visit.admit(&plugin).await.expect("admitted");
        assert_eq!(visit.replaced_body().expect("replaced"), rest.as_bytes());
        assert_eq!(visit.seen_by_origin("content-type"), media_type);
    }
}

#[tokio::test]
async fn a_body_is_left_alone_if_the_key_is_elsewhere_or_not_to_be_hidden() {
    let world = World::new();
    let plugin = world.configured::<KeyAuth>(EVERYWHERE);
    let mut visit = form(&world, "/?apikey=bob-key", "apikey=other");
    visit.admit(&plugin).await.expect("admitted");
    assert_eq!(visit.replaced_body(), None);

    let plugin = world.configured::<KeyAuth>("{ key_in_body: true }");
    let mut visit = form(&world, "/", "apikey=bob-key");
    visit.admit(&plugin).await.expect("admitted");
    assert_eq!(visit.replaced_body(), None);
}

#[tokio::test]
async fn grpc_carries_its_key_in_a_header() {
    let world = World::new();
    let yaml = "{ key_in_body: true }";
    let grpc = |target| {
        Visit::new(&world, "POST", target).header("content-type", "application/grpc+proto")
    };
    assert_bob(grpc("/s/m").header("apikey", "bob-key"), yaml, &world).await;
    assert_refused(grpc("/s/m?apikey=bob-key"), yaml, &world, MISSING).await;
}

#[tokio::test]
async fn options_requests_need_a_key_unless_told_otherwise() {
    let world = World::new();
    assert_refused(Visit::new(&world, "OPTIONS", "/"), "{}", &world, MISSING).await;

    let plugin = world.configured::<KeyAuth>("{ run_on_preflight: false, anonymous: guest }");
    let mut visit = Visit::new(&world, "OPTIONS", "/").header("apikey", "bob-key");
    visit.admit(&plugin).await.expect("admitted");
    assert!(visit.identity.consumer.is_none());
    assert_eq!(visit.seen_by_origin("x-consumer-id"), "");

    assert_refused(
        Visit::get(&world, "/"),
        "{ run_on_preflight: false }",
        &world,
        MISSING,
    )
    .await;
}

#[tokio::test]
async fn the_anonymous_consumer_stands_in_silently() {
    let world = World::new();
    let guest = Uuid::from_u128(0x90e5).to_string();
    for anonymous in ["guest", &guest] {
        let plugin = world.configured::<KeyAuth>(&format!("{{ anonymous: {anonymous} }}"));
        for target in ["/", "/?apikey=wrong", "/?apikey=1&apikey=2"] {
            let mut visit = Visit::get(&world, target)
                .header("x-credential-identifier", "forged")
                .header("x-consumer-custom-id", "forged");
            visit.admit(&plugin).await.expect("admitted");
            assert!(visit.identity.anonymous);
            assert_eq!(visit.seen_by_origin("x-consumer-id"), guest);
            assert_eq!(visit.seen_by_origin("x-consumer-username"), "guest");
            assert_eq!(visit.seen_by_origin("x-anonymous-consumer"), "true");
            assert_eq!(visit.seen_by_origin("x-credential-identifier"), "");
            assert_eq!(visit.seen_by_origin("x-consumer-custom-id"), "");
        }
    }
}

#[tokio::test]
async fn a_wrong_key_is_hidden_too_when_the_anonymous_consumer_stands_in() {
    let world = World::new();
    let plugin = world.configured::<KeyAuth>("{ hide_credentials: true, anonymous: guest }");
    let mut visit = Visit::get(&world, "/?apikey=1&a=2&apikey=3").header("apikey", "wrong");

    visit.admit(&plugin).await.expect("admitted");

    assert_eq!(visit.query_seen_by_origin(), Some("a=2"));
    assert_eq!(visit.seen_by_origin("apikey"), "");
}

#[tokio::test]
async fn with_anonymous_a_key_is_not_asked_for_twice() {
    let world = World::new();
    let plugin = world.configured::<KeyAuth>("{ anonymous: guest }");
    let mut visit = Visit::get(&world, "/?apikey=wrong");
    visit.identity.consumer = world.consumers.find("bob");
    visit.identity.credential = Some(HeaderValue::from_static("from-another-plugin"));

    visit.admit(&plugin).await.expect("admitted");

    assert_eq!(visit.identity.consumer, world.consumers.find("bob"));
    assert!(!visit.identity.anonymous);
}

#[tokio::test]
async fn without_anonymous_a_key_is_needed_even_if_another_plugin_was_satisfied() {
    let world = World::new();
    let plugin = world.configured::<KeyAuth>("{}");
    let mut visit = Visit::get(&world, "/");
    visit.identity.credential = Some(HeaderValue::from_static("from-another-plugin"));

    assert_eq!(visit.refused(&plugin).await.status, 401);
}

#[tokio::test]
async fn a_key_replaces_the_anonymous_consumer_of_an_earlier_plugin() {
    let world = World::new();
    let plugin = world.configured::<KeyAuth>("{ anonymous: guest }");
    let mut visit = Visit::get(&world, "/")
        .header("apikey", "bob-key")
        .header("x-anonymous-consumer", "true");
    visit.identity.consumer = world.consumers.find("guest");
    visit.identity.anonymous = true;

    visit.admit(&plugin).await.expect("admitted");

    assert_eq!(visit.identity.consumer, world.consumers.find("bob"));
    assert!(!visit.identity.anonymous);
    assert_eq!(visit.seen_by_origin("x-anonymous-consumer"), "");
}

#[test]
fn every_key_name_is_a_secret_argument_wherever_the_key_is_looked_for() {
    let world = World::new();
    let plugin = world.configured::<KeyAuth>("{ key_names: [apikey, k], key_in_query: false }");
    assert_eq!(plugin.secret_arguments(), ["apikey", "k"]);
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let world = World::new();
    let field = |yaml: &str| {
        let error = world.configure::<KeyAuth>(yaml).expect_err(yaml);
        (error.field, error.message)
    };
    assert_eq!(
        field("{ anonymous: nobody }"),
        (
            "anonymous".into(),
            "there is no consumer with the id or username `nobody`: add it to `consumers`".into()
        )
    );
    // The custom id is not a name here.
    assert_eq!(field("{ anonymous: bob-42 }").0, "anonymous");
    assert_eq!(field("{ key_names: [] }").0, "key_names");
    for name in ["''", "a b", "a[]", "ä", "a%b"] {
        assert_eq!(
            field(&format!("{{ key_names: [ok, \"{name}\"] }}")).0,
            "key_names"
        );
    }
    for realm in [r#"'a"b'"#, r"'a\b'", r#""a\nb""#, r#""a\u0085b""#] {
        assert_eq!(field(&format!("{{ realm: {realm} }}")).0, "realm");
    }
    assert!(field("{ key_name: [k] }").1.contains("unknown field"));
}

#[test]
fn it_cannot_be_attached_to_a_consumer() {
    const { assert!(!KeyAuth::CONSUMER_SCOPE) };
}

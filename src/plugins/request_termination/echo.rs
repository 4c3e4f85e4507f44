//! The answer that describes the request it answers, with Kong's field names.
//!
//! What authenticates the request is masked: an answer may be cached, logged or shown to somebody.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use regex::bytes::Regex;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::JSON;
use crate::{
    entity::{
        facts::{RouteFacts, ServiceFacts},
        reason::Reason,
    },
    plugin::{Halt, Reply, Request, is_credential},
};

const MASK: &str = "***";

/// The most bytes of a body that is taken apart: many small fields take far more memory than they
/// take on the wire.
const FIELDS_BYTES_MAX: usize = 64 * 1024;

/// Describes requests.
#[derive(Debug)]
pub(super) struct Echo {
    status: u16,
    message: Option<String>,
    /// Which gateway answers: node, process and host.
    gateway: Value,
}

impl Echo {
    pub(super) fn new(status: u16, message: Option<String>, node: Uuid) -> Self {
        Self {
            status,
            message,
            gateway: json!({
                "node_id": node.to_string(),
                "worker_pid": std::process::id(),
                "hostname": gethostname::gethostname().to_string_lossy(),
            }),
        }
    }

    /// The description of `request`, for which its whole body is read.
    ///
    /// # Errors
    /// When the body is too large or does not arrive.
    pub(super) async fn reply(&self, request: &mut Request<'_>) -> Result<Reply, Halt> {
        let body = request.body().await?;
        let mut description = Map::new();
        if let Some(message) = &self.message {
            description.insert("message".into(), json!(message));
        }
        description.insert("request_id".into(), json!(request.about.request_id));
        description.insert("kong".into(), self.gateway.clone());
        description.insert("gateway".into(), self.gateway.clone());
        description.insert("request".into(), described(request, &body));
        description.insert("matched_route".into(), route(request.about.route));
        if let Some(facts) = request.about.service {
            description.insert("matched_service".into(), service(facts));
        }
        let text = Value::Object(description).to_string();
        Ok(Reply::raw(
            self.status,
            Reason::Terminated,
            JSON,
            Bytes::from(text),
        ))
    }
}

fn described(request: &Request<'_>, body: &[u8]) -> Value {
    let mut description = json!({
        "scheme": request.about.scheme.as_str(),
        "host": request.about.host,
        "port": request.about.port,
        "method": request.method().as_str(),
        "path": request.path(),
        "headers": headers(request),
        "query": arguments(request.query().unwrap_or_default().as_bytes(), request.about.secret_arguments),
        "raw_body": raw_body(request, body),
        "uri_captures": captures(request.about.matched.regex, request.normal_path()),
    });
    if let (Some(members), Some(fields)) = (description.as_object_mut(), fields(request, body)) {
        members.insert("body".into(), fields);
    }
    description
}

/// The body as it came, unless a credential may be in it.
fn raw_body<'b>(request: &Request<'_>, body: &'b [u8]) -> Cow<'b, str> {
    if request.about.secret_arguments.is_empty() || body.is_empty() {
        String::from_utf8_lossy(body)
    } else {
        MASK.into()
    }
}

fn headers(request: &Request<'_>) -> Value {
    let masked = request.about.secret_arguments;
    grouped(request.headers.iter().map(|(name, value)| {
        let text = if is_credential(name, masked) {
            MASK.to_owned()
        } else {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        (name.as_str().to_owned(), text)
    }))
}

/// The arguments of a query or a form. One without `=` has an empty value.
fn arguments(text: &[u8], secret: &[String]) -> Value {
    grouped(form_urlencoded::parse(text).map(|(name, value)| {
        let is_masked = secret.iter().any(|secret| *secret == name);
        let value = if is_masked { MASK.into() } else { value };
        (name.into_owned(), value.into_owned())
    }))
}

/// The body as the gateway understands it: a form or JSON, if it is small.
fn fields(request: &Request<'_>, body: &[u8]) -> Option<Value> {
    if body.len() > FIELDS_BYTES_MAX {
        return None;
    }
    let content_type = request.headers.get(&CONTENT_TYPE)?.as_bytes();
    let essence = content_type
        .split(|&byte| byte == b';')
        .next()?
        .trim_ascii();
    if essence.eq_ignore_ascii_case(b"application/json") {
        serde_json::from_slice(body)
            .ok()
            .map(|json| masked_members(json, request.about.secret_arguments))
    } else if essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
        Some(arguments(body, request.about.secret_arguments))
    } else {
        None
    }
}

/// A JSON value without the values of the members that carry a credential.
fn masked_members(json: Value, secret: &[String]) -> Value {
    let Value::Object(members) = json else {
        return json;
    };
    let mask = |(name, value): (String, Value)| {
        let is_masked = secret.contains(&name);
        (name, if is_masked { MASK.into() } else { value })
    };
    Value::Object(members.into_iter().map(mask).collect())
}

/// A text for a name that comes once, a list for one that comes several times.
fn grouped(pairs: impl Iterator<Item = (String, String)>) -> Value {
    let mut members = Map::new();
    for (name, text) in pairs {
        let text = Value::String(text);
        match members.get_mut(&name) {
            None => drop(members.insert(name, text)),
            Some(Value::Array(texts)) => texts.push(text),
            Some(first) => *first = Value::Array(vec![first.take(), text]),
        }
    }
    Value::Object(members)
}

/// What the groups of the route's regex matched; like Kong's, `unnamed` has the named ones too.
fn captures(regex: Option<&Regex>, path: &[u8]) -> Value {
    let (mut named, mut unnamed) = (Map::new(), Vec::new());
    if let Some(regex) = regex
        && let Some(captures) = regex.captures(path)
    {
        for (name, group) in regex.capture_names().zip(captures.iter()).skip(1) {
            let text = group.map(|group| json!(String::from_utf8_lossy(group.as_bytes())));
            if let (Some(name), Some(text)) = (name, &text) {
                named.insert(name.to_owned(), text.clone());
            }
            unnamed.push(text.unwrap_or_default());
        }
    }
    json!({ "named": named, "unnamed": unnamed })
}

fn route(facts: &RouteFacts) -> Value {
    json!({
        "id": facts.id.to_string(),
        "name": facts.name,
        "paths": facts.paths,
        "methods": facts.methods,
        "hosts": facts.hosts,
        "tags": facts.tags,
    })
}

fn service(facts: &ServiceFacts) -> Value {
    json!({
        "id": facts.id.to_string(),
        "name": facts.name,
        "protocol": facts.protocol,
        "host": facts.host,
        "port": facts.port,
        "path": facts.path,
        "tags": facts.tags,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plugin::{
            Body,
            testing::{Visit, World},
        },
        plugins::request_termination::RequestTermination,
    };

    /// What `echo` answers to `visit`.
    async fn echoed(
        world: &World,
        yaml: &str,
        mut visit: Visit<'_, RequestTermination>,
    ) -> (Reply, Value) {
        let plugin = world.configured::<RequestTermination>(yaml);
        let reply = visit.refused(&plugin).await;
        let Body::Raw {
            content_type,
            bytes,
        } = &reply.body
        else {
            panic!("not a raw body");
        };
        assert_eq!(content_type, JSON);
        let description = serde_json::from_slice(bytes).expect("JSON");
        (reply, description)
    }

    #[tokio::test]
    async fn the_request_the_route_the_service_and_the_gateway_are_described() {
        let world = World::new();
        let visit = Visit::new(&world, "POST", "/orders/7?a=1&b=%20x&b=2&c")
            .header("X-One", "1")
            .header("X-Two", "1")
            .header("X-Two", "2")
            .header("Content-Type", "application/json")
            .body(r#"{"n":1}"#);

        let (reply, description) = echoed(
            &world,
            "{ status_code: 404, message: gone, echo: true }",
            visit,
        )
        .await;

        assert_eq!((reply.status, reply.reason), (404, Reason::Terminated));
        assert_eq!(description["message"], "gone");
        assert_eq!(
            description["request_id"],
            "0123456789abcdef0123456789abcdef"
        );
        assert_eq!(
            description["request"],
            json!({
                "scheme": "http",
                "host": "api.test",
                "port": 8000,
                "method": "POST",
                "path": "/orders/7",
                "headers": {
                    "host": "api.test",
                    "x-one": "1",
                    "x-two": ["1", "2"],
                    "content-type": "application/json",
                },
                "query": { "a": "1", "b": [" x", "2"], "c": "" },
                "raw_body": "{\"n\":1}",
                "body": { "n": 1 },
                "uri_captures": { "named": {}, "unnamed": [] },
            })
        );
        assert_eq!(description["matched_route"]["name"], "orders-route");
        assert_eq!(
            description["matched_route"]["id"],
            Uuid::from_u128(0xa).to_string()
        );
        assert_eq!(description["matched_service"]["name"], "orders");
        assert_eq!(
            description["matched_service"]["id"],
            Uuid::from_u128(0xb).to_string()
        );
        let node = world.state.identifiers.process().to_string();
        assert_eq!(description["gateway"]["node_id"], node);
        assert_eq!(description["kong"], description["gateway"]);
        assert!(
            !description["gateway"]["hostname"]
                .as_str()
                .expect("text")
                .is_empty()
        );
    }

    #[tokio::test]
    async fn the_message_is_the_usual_one_of_the_status_if_it_has_one() {
        let world = World::new();
        let (_, description) = echoed(&world, "{ echo: true }", Visit::get(&world, "/")).await;
        assert_eq!(description["message"], "Service unavailable");
        let yaml = "{ echo: true, status_code: 200 }";
        let (_, description) = echoed(&world, yaml, Visit::get(&world, "/")).await;
        assert_eq!(description.get("message"), None);
    }

    #[tokio::test]
    async fn what_authenticates_the_request_is_masked() {
        let world = World::new();
        let mut visit = Visit::get(&world, "/?api%6Bey=secret&a=1")
            .header("Authorization", "Bearer secret")
            .header("Proxy-Authorization", "Basic secret")
            .header("Cookie", "a=secret")
            .header("Cookie", "b=secret");
        visit.secret_arguments.push("apikey".into());

        let (_, description) = echoed(&world, "{ echo: true }", visit).await;

        assert!(!description.to_string().contains("secret"), "{description}");
        assert_eq!(description["request"]["headers"]["authorization"], "***");
        assert_eq!(
            description["request"]["headers"]["cookie"],
            json!(["***", "***"])
        );
        assert_eq!(
            description["request"]["query"],
            json!({ "apikey": "***", "a": "1" })
        );
    }

    #[tokio::test]
    async fn with_a_trigger_only_the_triggering_request_is_described() {
        let world = World::new();
        let yaml = "{ echo: true, trigger: debug }";
        let plugin = world.configured::<RequestTermination>(yaml);
        Visit::get(&world, "/")
            .admit(&plugin)
            .await
            .expect("passes");
        let (_, description) = echoed(&world, yaml, Visit::get(&world, "/?debug")).await;
        assert_eq!(description["request"]["query"], json!({ "debug": "" }));
    }

    #[tokio::test]
    async fn a_body_of_any_bytes_is_shown_as_text() {
        let world = World::new();
        let form = Visit::new(&world, "POST", "/")
            .header(
                "content-type",
                "Application/X-www-form-urlencoded; charset=utf-8",
            )
            .body("a=1&a=2&b=+");
        let (_, description) = echoed(&world, "{ echo: true }", form).await;
        assert_eq!(
            description["request"]["body"],
            json!({ "a": ["1", "2"], "b": " " })
        );

        let binary = Visit::new(&world, "POST", "/").body(&b"a\xff"[..]);
        let (_, description) = echoed(&world, "{ echo: true }", binary).await;
        assert_eq!(description["request"]["raw_body"], "a\u{fffd}");
        assert_eq!(description["request"].get("body"), None);
    }

    #[tokio::test]
    async fn a_large_body_is_shown_but_not_taken_apart() {
        let world = World::new();
        let text = "a=1&".repeat(FIELDS_BYTES_MAX / 4) + "a";
        let large = Visit::new(&world, "POST", "/")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(text.clone());
        let (_, description) = echoed(&world, "{ echo: true }", large).await;
        assert_eq!(description["request"]["raw_body"], text);
        assert_eq!(description["request"].get("body"), None);
    }

    #[test]
    fn the_groups_of_a_route_are_shown_by_name_and_in_order() {
        let regex = Regex::new("^/(?<version>v[0-9])/([a-z]+)(/x)?").expect("valid");
        assert_eq!(
            captures(Some(&regex), b"/v1/orders"),
            json!({ "named": { "version": "v1" }, "unnamed": ["v1", "orders", null] })
        );
    }
}

//! Answers requests itself, so that they never reach an upstream: for maintenance, for a route that only says no,
//! or to see what the gateway makes of a request.
//!
//! ```yaml
//! _format_version: "3.0"
//! routes:
//!   - name: maintenance
//!     paths: [/orders]
//! plugins:
//!   - name: request-termination
//!     route: maintenance
//!     config:
//!       status_code: 503
//!       message: back in an hour
//! ```
//!
//! # What goes together
//!
//! `message` goes without `body` and `content_type`, `content_type` only with `body`, `echo` without `body` and
//! `content_type`. An answer with status 204 or 304 has no body.
//!
//! `message` comes in the [form](../errors-and-reasons.md#the-body) that the client's `Accept` asks for.
//!
//! It runs last of all plugins, so that authentication and limits come first. A route needs no service for it.
//!
//! # echo
//!
//! The answer is a JSON object: `message`, `request_id`, `gateway` (and the same as `kong`) with `node_id`,
//! `worker_pid` and `hostname`, `request` with scheme, host, port, method, path, headers, query, body and
//! captures of the route's regex, `matched_route` and `matched_service`.
//!
//! The headers `Authorization`, `Proxy-Authorization` and `Cookie`, and query arguments under a name that
//! `key-auth` looks for, are masked. Other headers are not: a key in a header of its own is shown unless
//! `key-auth` has `hide_credentials`. The request's body is read up to `gateway.client_body_buffer_limit` and
//! shown as it is in `raw_body`.
//!
//! Do not leave `echo` on where strangers can reach it.

mod echo;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    entity::reason::Reason,
    plugin::{ConfigError, Env, Halt, Plugin, Reply, Request},
};
use echo::Echo;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const PLAIN_TEXT: HeaderValue = HeaderValue::from_static("text/plain");

/// The `config:` block of `request-termination`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The status of the answer.
    #[schemars(range(min = 200, max = 599), extend("x-not-null" = true))]
    pub status_code: u16,
    /// A sentence for the client, formatted by its `Accept`. If there is none, and no `body`, the
    /// usual one of the status.
    pub message: Option<String>,
    /// The media type of `body`. If there is none, `application/json` for JSON, else `text/plain`.
    #[schemars(extend("format" = "header-value"))]
    pub content_type: Option<String>,
    /// The body of the answer as it is, in place of `message`.
    pub body: Option<String>,
    /// Describes the request in the answer, its body included. The headers `Authorization`,
    /// `Proxy-Authorization` and `Cookie` and arguments with a key are masked.
    pub echo: bool,
    /// Answers only requests that have a header or a query argument of this name, whatever its
    /// value.
    #[schemars(extend("format" = "header-name"))]
    pub trigger: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            status_code: 503,
            message: None,
            content_type: None,
            body: None,
            echo: false,
            trigger: None,
        }
    }
}

/// The plugin `request-termination`.
#[derive(Debug)]
pub struct RequestTermination {
    trigger: Option<Trigger>,
    answer: Answer,
}

#[derive(Debug)]
struct Trigger {
    header: HeaderName,
    argument: String,
}

#[derive(Debug)]
enum Answer {
    Fixed(Reply),
    Echo(Echo),
}

impl Plugin for RequestTermination {
    const NAME: &'static str = "request-termination";
    const REHEARSABLE: bool = true;
    type Config = Config;
    type Memo = ();
    type Metrics = ();

    fn configure(config: Config, env: &Env<'_, Self>) -> Result<Self, ConfigError> {
        check(&config)?;
        Ok(Self {
            trigger: config.trigger.as_deref().map(Trigger::new).transpose()?,
            answer: if config.echo && has_content(config.status_code) {
                let process = env.state.identifiers.process();
                Answer::Echo(Echo::new(config.status_code, message(&config), process))
            } else {
                Answer::Fixed(fixed(&config)?)
            },
        })
    }

    async fn access(&self, _memo: &mut (), request: &mut Request<'_>) -> Result<(), Halt> {
        if let Some(trigger) = &self.trigger
            && !trigger.is_pulled_by(request)
        {
            return Ok(());
        }
        Err(match &self.answer {
            Answer::Fixed(reply) => reply.clone().into(),
            Answer::Echo(echo) => echo.reply(request).await?.into(),
        })
    }
}

impl Trigger {
    fn new(name: &str) -> Result<Self, ConfigError> {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(header) => Ok(Self {
                header,
                argument: name.to_owned(),
            }),
            Err(_) => Err(ConfigError::at(
                "trigger",
                format!(
                    "`{}` is not a header name: use letters, digits and `-`",
                    name.escape_default()
                ),
            )),
        }
    }

    fn is_pulled_by(&self, request: &Request<'_>) -> bool {
        let mut arguments = form_urlencoded::parse(request.query().unwrap_or_default().as_bytes());
        request.headers.contains(&self.header)
            || arguments.any(|(name, _)| name == self.argument.as_str())
    }
}

/// The rules that concern a value's meaning or several fields.
fn check(config: &Config) -> Result<(), ConfigError> {
    if !(200..=599).contains(&config.status_code) {
        return Err(ConfigError::at(
            "status_code",
            format!(
                "{} cannot end a request: use a status from 200 to 599",
                config.status_code
            ),
        ));
    }
    let (body, content_type) = (config.body.is_some(), config.content_type.is_some());
    let conflict = if config.message.is_some() && (body || content_type) {
        "`message` goes without `body` and `content_type`: remove it or them"
    } else if content_type && !body {
        "`content_type` goes only with `body`: add `body` or remove `content_type`"
    } else if config.echo && body {
        "`echo` goes without `body` and `content_type`: remove it or them"
    } else {
        return check_message(config.message.as_deref());
    };
    Err(ConfigError::at("", conflict))
}

/// A message may become a gRPC header.
fn check_message(message: Option<&str>) -> Result<(), ConfigError> {
    if message.is_some_and(|message| message.contains(char::is_control)) {
        return Err(ConfigError::at(
            "message",
            "must not contain control characters: use `body` for several lines",
        ));
    }
    Ok(())
}

/// The answer that is the same for all requests.
fn fixed(config: &Config) -> Result<Reply, ConfigError> {
    let status = config.status_code;
    if !has_content(status) {
        return Ok(Reply::empty(status, Reason::Terminated));
    }
    if let Some(body) = &config.body {
        let media_type = media_type(config.content_type.as_deref(), body)?;
        let bytes = Bytes::from(body.clone());
        return Ok(Reply::raw(status, Reason::Terminated, media_type, bytes));
    }
    Ok(match message(config) {
        Some(message) => Reply::message(status, Reason::Terminated, message),
        None => Reply::empty(status, Reason::Terminated),
    })
}

fn message(config: &Config) -> Option<String> {
    let usual = || default_message(config.status_code).map(str::to_owned);
    config.message.clone().or_else(usual)
}

fn media_type(configured: Option<&str>, body: &str) -> Result<HeaderValue, ConfigError> {
    match configured {
        Some(text) => HeaderValue::from_bytes(text.as_bytes()).map_err(|_| {
            ConfigError::at(
                "content_type",
                format!(
                    "`{}` cannot be a header's value: it contains a control character",
                    text.escape_default()
                ),
            )
        }),
        None if serde_json::from_str::<IgnoredAny>(body).is_ok() => Ok(JSON),
        None => Ok(PLAIN_TEXT),
    }
}

/// Whether a response of `status` may have a body (RFC 9110, sections 15.3.5 and 15.4.5).
const fn has_content(status: u16) -> bool {
    !matches!(status, 204 | 304)
}

/// What Kong says with a status if nobody says anything else.
const fn default_message(status: u16) -> Option<&'static str> {
    Some(match status {
        400 => "Bad request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not found",
        405 => "Method not allowed",
        411 => "Length required",
        413 => "Payload too large",
        417 => "Expectation failed",
        429 => "Too many requests",
        500 => "An unexpected error occurred",
        502 => "Bad gateway",
        503 => "Service unavailable",
        504 => "Gateway timeout",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{
        Body,
        testing::{Visit, World},
    };

    type TerminationVisit<'w> = Visit<'w, RequestTermination>;

    /// The answer to a plain request.
    async fn answer(yaml: &str) -> Reply {
        let world = World::new();
        let plugin = world.configured::<RequestTermination>(yaml);
        Visit::get(&world, "/orders").refused(&plugin).await
    }

    #[tokio::test]
    async fn by_default_every_request_gets_503() {
        assert_eq!(
            answer("{}").await,
            Reply::message(503, Reason::Terminated, "Service unavailable")
        );
    }

    #[tokio::test]
    async fn a_status_without_a_message_has_its_usual_one() {
        for (status, message) in [
            (401, "Unauthorized"),
            (404, "Not found"),
            (413, "Payload too large"),
            (504, "Gateway timeout"),
        ] {
            assert_eq!(
                answer(&format!("{{ status_code: {status} }}")).await,
                Reply::message(status, Reason::Terminated, message)
            );
        }
    }

    #[tokio::test]
    async fn a_status_without_any_message_has_an_empty_body() {
        for status in [200, 301, 418, 599] {
            assert_eq!(
                answer(&format!("{{ status_code: {status} }}")).await,
                Reply::empty(status, Reason::Terminated)
            );
        }
    }

    #[tokio::test]
    async fn a_message_is_what_the_client_reads() {
        assert_eq!(
            answer("{ status_code: 418, message: I am a teapot }").await,
            Reply::message(418, Reason::Terminated, "I am a teapot")
        );
    }

    #[tokio::test]
    async fn a_body_goes_out_as_it_is() {
        assert_eq!(
            answer("{ status_code: 200, body: '<p>hi', content_type: text/html }").await,
            Reply::raw(
                200,
                Reason::Terminated,
                HeaderValue::from_static("text/html"),
                Bytes::from_static(b"<p>hi")
            )
        );
    }

    #[tokio::test]
    async fn the_content_type_of_a_body_is_json_if_it_parses_as_json() {
        for (body, expected) in [
            ("{\"a\":1}", JSON),
            ("[1]", JSON),
            ("null", JSON),
            ("{a:1}", PLAIN_TEXT),
            ("sorry", PLAIN_TEXT),
        ] {
            let Body::Raw { content_type, .. } =
                answer(&format!("{{ body: '{body}' }}")).await.body
            else {
                panic!("not a raw body");
            };
            assert_eq!(content_type, expected, "{body}");
        }
    }

    #[tokio::test]
    async fn a_204_and_a_304_have_no_body() {
        for status in [204, 304] {
            for rest in ["message: hi", "body: hi", "echo: true"] {
                assert_eq!(
                    answer(&format!("{{ status_code: {status}, {rest} }}")).await,
                    Reply::empty(status, Reason::Terminated)
                );
            }
        }
    }

    #[tokio::test]
    async fn with_a_trigger_only_requests_that_have_it_are_answered() {
        let world = World::new();
        let plugin = world.configured::<RequestTermination>("{ trigger: X-Debug }");
        let passes: [TerminationVisit<'_>; 4] = [
            Visit::get(&world, "/"),
            Visit::get(&world, "/?x-debug=1"),
            Visit::get(&world, "/?a=X-Debug&X-Debug[]=1"),
            Visit::get(&world, "/X-Debug").header("a", "X-Debug"),
        ];
        for mut visit in passes {
            visit.admit(&plugin).await.expect("passes");
        }
        let ends: [TerminationVisit<'_>; 4] = [
            Visit::get(&world, "/").header("x-debug", ""),
            Visit::get(&world, "/").header("X-DEBUG", "no"),
            Visit::get(&world, "/?a=1&X-Debug"),
            Visit::get(&world, "/?X%2dDebug=1"),
        ];
        for mut visit in ends {
            assert_eq!(visit.refused(&plugin).await.status, 503);
        }
    }

    #[test]
    fn fields_that_exclude_each_other_are_refused_and_named() {
        let world = World::new();
        for (yaml, named) in [
            ("{ message: a, body: b }", ["`message`", "`body`"]),
            (
                "{ message: a, content_type: b }",
                ["`message`", "`content_type`"],
            ),
            (
                "{ message: a, body: b, content_type: c }",
                ["`message`", "`content_type`"],
            ),
            ("{ content_type: text/html }", ["`content_type`", "`body`"]),
            ("{ echo: true, body: b }", ["`echo`", "`body`"]),
            (
                "{ echo: true, body: b, content_type: c }",
                ["`echo`", "`content_type`"],
            ),
        ] {
            let error = world.configure::<RequestTermination>(yaml).expect_err(yaml);
            assert_eq!(error.field, "");
            assert!(
                named.iter().all(|name| error.message.contains(name)),
                "{yaml}: {error}"
            );
        }
        world.configured::<RequestTermination>("{ echo: true, message: a, trigger: b }");
    }

    #[test]
    fn a_value_that_cannot_be_sent_is_refused_at_its_field() {
        let world = World::new();
        for (yaml, field) in [
            ("{ status_code: 101 }", "status_code"),
            ("{ status_code: 199 }", "status_code"),
            ("{ status_code: 600 }", "status_code"),
            ("{ message: \"a\\r\\nb\" }", "message"),
            ("{ trigger: 'a b' }", "trigger"),
            ("{ body: a, content_type: \"a\\nb\" }", "content_type"),
        ] {
            let error = world.configure::<RequestTermination>(yaml).expect_err(yaml);
            assert_eq!(error.field, field, "{yaml}");
        }
        let error = world
            .configure::<RequestTermination>("{ status: 200 }")
            .expect_err("refused");
        assert!(error.message.contains("unknown field"));
    }
}

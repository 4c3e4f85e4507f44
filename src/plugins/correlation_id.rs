//! Gives every request an id that the client and the upstream share.
//!
//! ```yaml
//! _format_version: "3.0"
//! services:
//!   - name: orders
//!     url: http://orders.internal
//!     routes:
//!       - name: orders
//!         paths: [/orders]
//! plugins:
//!   - name: correlation-id
//!     config:
//!       header_name: X-Request-ID
//!       generator: uuid
//!       echo_downstream: true
//! ```
//!
//! # Which id it is
//!
//! An id that the client sends is kept if it is 1 to 128 bytes of visible ASCII; anything else is replaced. A
//! header that comes several times counts as its first line, and goes upstream once.
//!
//! A request without a route has no access phase; with `echo_downstream` its response gets a new id.
//!
//! The gateway's own `X-Kong-Request-Id` is another id: it is always new, and it is the `request_id` in error
//! bodies and in the log.
//!
//! The plugin runs before authentication, when the consumer is not known yet. An instance on a consumer therefore
//! does not run; put it on routes or services, or make it global.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    entity::identifier::uuid_header,
    plugin::{ConfigError, Env, Halt, Plugin, Request, Response},
    state::{clock::Clock, identifiers::Identifiers},
};

/// The most bytes of an incoming id: enough for every usual form, too few to fill a log with.
const INCOMING_BYTES_MAX: usize = 128;

/// The peer of a response whose request no plugin saw.
const NO_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The `config:` block of `correlation-id`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The header that carries the id.
    #[schemars(extend("format" = "header-name"))]
    pub header_name: String,
    /// The form of a new id.
    #[schemars(extend("x-not-null" = true))]
    pub generator: Generator,
    /// Puts the id on the response too, also on one that the gateway makes itself.
    #[schemars(extend("x-not-null" = true))]
    pub echo_downstream: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            header_name: "Kong-Request-ID".to_owned(),
            generator: Generator::default(),
            echo_downstream: false,
        }
    }
}

/// The form of a new id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Generator {
    /// A random UUID (version 4) for each request.
    #[serde(rename = "uuid")]
    Uuid,
    /// `<uuid>#<n>`: a UUID of the gateway process and a number that counts up.
    #[default]
    #[serde(rename = "uuid#counter")]
    Counter,
    /// `<ip>-<port>-<pid>-<number>-1-<time>`: the client's end of the connection, the gateway
    /// process, a number that counts up, and the Unix time in seconds with milliseconds. Where
    /// Kong numbers a connection and its requests, every id has a number of its own, so the
    /// request is always the first.
    #[serde(rename = "tracker")]
    Tracker,
}

/// The plugin `correlation-id`.
#[derive(Debug)]
pub struct CorrelationId {
    header_name: HeaderName,
    generator: Generator,
    echo_downstream: bool,
    identifiers: Arc<Identifiers>,
    clock: Clock,
}

impl Plugin for CorrelationId {
    const NAME: &'static str = "correlation-id";
    const REHEARSABLE: bool = true;
    type Config = Config;
    type Memo = Option<HeaderValue>;
    type Metrics = ();

    fn configure(config: Config, env: &Env<'_, Self>) -> Result<Self, ConfigError> {
        let header_name = HeaderName::from_bytes(config.header_name.as_bytes()).map_err(|_| {
            ConfigError::at(
                "header_name",
                format!(
                    "`{}` is not a header name: use letters, digits and `-`",
                    config.header_name.escape_default()
                ),
            )
        })?;
        Ok(Self {
            header_name,
            generator: config.generator,
            echo_downstream: config.echo_downstream,
            identifiers: Arc::clone(&env.state.identifiers),
            clock: env.state.clock.clone(),
        })
    }

    async fn access(
        &self,
        memo: &mut Option<HeaderValue>,
        request: &mut Request<'_>,
    ) -> Result<(), Halt> {
        let incoming = request.headers.get(&self.header_name);
        let id = match incoming.filter(|id| is_acceptable(id)) {
            // A copy: what is kept for the log must not keep the whole head in memory.
            Some(id) => HeaderValue::from_bytes(id.as_bytes()).expect("it is a header value"),
            None => self.generate(request.about.client.peer),
        };
        request.headers.set(&self.header_name, id.clone());
        request.notes.correlation_id = Some(id.clone());
        *memo = Some(id);
        Ok(())
    }

    fn response(&self, memo: &mut Option<HeaderValue>, response: &mut Response<'_>) {
        if self.echo_downstream {
            let id = memo.take().unwrap_or_else(|| self.generate(NO_PEER));
            response.headers.set(&self.header_name, id);
        }
    }
}

impl CorrelationId {
    fn generate(&self, peer: SocketAddr) -> HeaderValue {
        let id = match self.generator {
            Generator::Uuid => return uuid_header(self.identifiers.uuid()),
            Generator::Counter => self.identifiers.counted(),
            Generator::Tracker => self.tracker(peer),
        };
        HeaderValue::try_from(id).expect("addresses, numbers and UUIDs are visible ASCII")
    }

    fn tracker(&self, peer: SocketAddr) -> String {
        let now = self.clock.unix_milliseconds();
        format!(
            "{}-{}-{}-{}-1-{}.{:03}",
            peer.ip().to_canonical(),
            peer.port(),
            std::process::id(),
            self.identifiers.serial(),
            now.div_euclid(1000),
            now.rem_euclid(1000),
        )
    }
}

/// Whether a client's id is taken over. It goes into logs and upstream, so it must be short, and
/// without bytes that a log line could stumble over.
fn is_acceptable(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    (1..=INCOMING_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::plugin::testing::{Visit, World};

    async fn id_sent_upstream(world: &World, plugin: &CorrelationId) -> String {
        let mut visit = Visit::get(world, "/orders");
        visit.admit(plugin).await.expect("admitted");
        visit.seen_by_origin("Kong-Request-ID").to_owned()
    }

    /// The id that goes upstream when the client sent `incoming`.
    async fn id_for(incoming: &str) -> String {
        let world = World::new();
        let plugin = world.configured::<CorrelationId>("{}");
        let mut visit = Visit::get(&world, "/orders").header("kong-request-id", incoming);
        visit.admit(&plugin).await.expect("admitted");
        visit.seen_by_origin("Kong-Request-ID").to_owned()
    }

    #[tokio::test]
    async fn an_incoming_id_is_kept_forwarded_echoed_and_logged() {
        let world = World::new();
        let plugin = world
            .configured::<CorrelationId>("{ header_name: X-Request-ID, echo_downstream: true }");
        let mut visit = Visit::get(&world, "/orders").header("x-request-id", "abc");

        visit.admit(&plugin).await.expect("admitted");
        visit.deliver(&plugin, 200, &[("x-request-id", "the origin's own")]);

        assert_eq!(visit.seen_by_origin("X-Request-ID"), "abc");
        assert_eq!(visit.seen_by_client("X-Request-ID"), "abc");
        assert_eq!(visit.notes.correlation_id.expect("noted"), "abc");
    }

    #[tokio::test]
    async fn an_empty_or_blank_id_is_replaced() {
        for incoming in ["", " ", " \t "] {
            assert!(id_for(incoming).await.ends_with("#1"), "{incoming:?}");
        }
    }

    #[tokio::test]
    async fn an_id_of_more_than_128_bytes_is_replaced() {
        let longest = "a".repeat(128);
        assert_eq!(id_for(&longest).await, longest);
        assert!(id_for(&"a".repeat(129)).await.ends_with("#1"));
    }

    #[tokio::test]
    async fn an_id_with_bytes_outside_visible_ascii_is_replaced() {
        for incoming in ["grün", "a b", "a\tb"] {
            assert!(id_for(incoming).await.ends_with("#1"), "{incoming:?}");
        }
        assert_eq!(id_for("!~#\"\\").await, "!~#\"\\");
    }

    #[tokio::test]
    async fn of_several_incoming_ids_only_the_first_goes_upstream() {
        let world = World::new();
        let plugin = world.configured::<CorrelationId>("{}");
        let mut visit = Visit::get(&world, "/orders")
            .header("Kong-Request-ID", "one")
            .header("Kong-Request-ID", "two");

        visit.admit(&plugin).await.expect("admitted");

        assert_eq!(visit.seen_by_origin("Kong-Request-ID"), "one");
    }

    #[tokio::test]
    async fn by_default_a_new_id_is_the_uuid_of_the_process_and_a_count() {
        let world = World::new();
        let plugin = world.configured::<CorrelationId>("{}");
        let process = world.state.identifiers.process();

        let first = id_sent_upstream(&world, &plugin).await;
        let second = id_sent_upstream(&world, &plugin).await;

        assert_eq!(first, format!("{process}#1"));
        assert_eq!(second, format!("{process}#2"));
    }

    #[tokio::test]
    async fn two_instances_share_one_count() {
        let world = World::new();
        let one = world.configured::<CorrelationId>("{}");
        let other = world.configured::<CorrelationId>("{ generator: 'uuid#counter' }");

        assert!(id_sent_upstream(&world, &one).await.ends_with("#1"));
        assert!(id_sent_upstream(&world, &other).await.ends_with("#2"));
    }

    #[tokio::test]
    async fn the_generator_uuid_makes_a_random_uuid_for_each_request() {
        let world = World::new();
        let plugin = world.configured::<CorrelationId>("{ generator: uuid }");

        let first = id_sent_upstream(&world, &plugin).await;
        let second = id_sent_upstream(&world, &plugin).await;

        assert_ne!(first, second);
        for id in [first, second] {
            let uuid: Uuid = id.parse().expect("a UUID");
            assert_eq!(uuid.get_version_num(), 4);
            assert_eq!(id, uuid.hyphenated().to_string());
        }
    }

    #[tokio::test]
    async fn the_generator_tracker_tells_connection_process_number_and_time() {
        let world = World::new();
        let plugin = world.configured::<CorrelationId>("{ generator: tracker }");
        let pid = std::process::id();

        assert_eq!(
            id_sent_upstream(&world, &plugin).await,
            format!("192.0.2.7-40000-{pid}-1-1-1738324800.000")
        );
        world.state.clock.advance(Duration::from_millis(1042));
        assert_eq!(
            id_sent_upstream(&world, &plugin).await,
            format!("192.0.2.7-40000-{pid}-2-1-1738324801.042")
        );
    }

    #[tokio::test]
    async fn a_new_id_is_the_same_upstream_downstream_and_in_the_log() {
        let world = World::new();
        let plugin =
            world.configured::<CorrelationId>("{ generator: uuid, echo_downstream: true }");
        let mut visit = Visit::get(&world, "/orders");

        visit.admit(&plugin).await.expect("admitted");
        visit.deliver(&plugin, 502, &[]);

        let id = visit.seen_by_origin("Kong-Request-ID");
        assert!(!id.is_empty());
        assert_eq!(visit.seen_by_client("Kong-Request-ID"), id);
        assert_eq!(visit.notes.correlation_id.as_ref().expect("noted"), id);
    }

    #[test]
    fn a_response_without_an_access_phase_gets_an_id_too() {
        let world = World::new();
        for (generator, expected) in [
            (
                "uuid#counter",
                format!("{}#1", world.state.identifiers.process()),
            ),
            (
                "tracker",
                format!("0.0.0.0-0-{}-2-1-1738324800.000", std::process::id()),
            ),
        ] {
            let plugin = world.configured::<CorrelationId>(&format!(
                "{{ generator: '{generator}', echo_downstream: true }}"
            ));
            let mut visit = Visit::get(&world, "/orders");
            visit.deliver(&plugin, 404, &[]);
            assert_eq!(visit.seen_by_client("Kong-Request-ID"), expected);
        }
    }

    #[tokio::test]
    async fn without_echo_downstream_the_response_is_left_alone() {
        let world = World::new();
        let plugin = world.configured::<CorrelationId>("{}");
        let mut visit = Visit::get(&world, "/orders").header("Kong-Request-ID", "abc");

        visit.admit(&plugin).await.expect("admitted");
        visit.deliver(&plugin, 200, &[("kong-request-id", "the origin's own")]);

        assert_eq!(visit.seen_by_client("Kong-Request-ID"), "the origin's own");
    }

    #[test]
    fn a_bad_header_name_or_generator_is_refused() {
        let world = World::new();
        let refused = |yaml: &str| world.configure::<CorrelationId>(yaml).expect_err("refused");

        assert_eq!(
            refused("{ header_name: 'a b' }"),
            ConfigError::at(
                "header_name",
                "`a b` is not a header name: use letters, digits and `-`"
            )
        );
        assert!(
            refused("{ generator: snowflake }")
                .message
                .contains("snowflake")
        );
        assert!(refused("{ echo: true }").message.contains("unknown field"));
    }
}

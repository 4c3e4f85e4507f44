//! An upstream: a name that several targets share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::discovery::Discovery;
use super::healthchecks::{self, Healthchecks};
use super::reference::Reference;
use super::{Inspection, Model, model};
use crate::config::diagnostics::Code;

/// How a target is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// By what the request is about: `hash_on`.
    ConsistentHashing,
    /// The one with the fewest requests under way for its weight.
    LeastConnections,
    /// The faster of two drawn at random, by weight.
    Latency,
    /// The one that a cookie names.
    StickySessions,
}

/// What consistent hashing hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashInput {
    /// Nothing.
    #[default]
    None,
    /// The id of the consumer, else that of the credential.
    Consumer,
    /// The address of the client.
    Ip,
    /// A header of the request.
    Header,
    /// A cookie, which a request without it gets.
    Cookie,
    /// The path of the request.
    Path,
    /// An argument of the query.
    QueryArg,
    /// A group of the regex that matched the path.
    UriCapture,
}

impl HashInput {
    const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Consumer => "consumer",
            Self::Ip => "ip",
            Self::Header => "header",
            Self::Cookie => "cookie",
            Self::Path => "path",
            Self::QueryArg => "query_arg",
            Self::UriCapture => "uri_capture",
        }
    }
}

/// A name that several targets share; a service uses it as its `host`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct Upstream {
    /// A UUID; derived from the name if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// What services give as their `host`: syntax of a host name, no IP address, no port. Unique among upstreams.
    #[schemars(extend("format" = "upstream-name"))]
    pub name: String,
    /// How a target is chosen. With a `hash_on` it is `consistent-hashing`.
    pub algorithm: Algorithm,
    /// What consistent hashing hashes.
    pub hash_on: HashInput,
    /// What is hashed if that is missing from a request. If it is missing too, targets take turns.
    pub hash_fallback: HashInput,
    /// The header of `hash_on: header`. Several lines count as one, joined with `, `.
    #[schemars(extend("format" = "header-name"))]
    pub hash_on_header: Option<String>,
    /// The header of `hash_fallback: header`.
    #[schemars(extend("format" = "header-name"))]
    pub hash_fallback_header: Option<String>,
    /// The cookie of `hash_on: cookie` and `hash_fallback: cookie`. A request without it gets one with a random value.
    #[schemars(extend("format" = "cookie-name"))]
    pub hash_on_cookie: Option<String>,
    /// The path of that cookie.
    #[schemars(extend("format" = "cookie-path"))]
    pub hash_on_cookie_path: String,
    /// The argument of `hash_on: query_arg`. Several values are sorted and joined with `,`.
    pub hash_on_query_arg: Option<String>,
    /// The argument of `hash_fallback: query_arg`.
    pub hash_fallback_query_arg: Option<String>,
    /// The group of `hash_on: uri_capture`: its name, or its number as text.
    pub hash_on_uri_capture: Option<String>,
    /// The group of `hash_fallback: uri_capture`.
    pub hash_fallback_uri_capture: Option<String>,
    /// The cookie of `sticky-sessions`. Its value stands for a target; a written random `id` of the upstream keeps anybody from guessing which.
    #[schemars(extend("format" = "cookie-name"))]
    pub sticky_sessions_cookie: Option<String>,
    /// The path of that cookie.
    #[schemars(extend("format" = "cookie-path"))]
    pub sticky_sessions_cookie_path: String,
    /// How many places the ring of consistent hashing has; fewer than 1000 count as 1000.
    #[schemars(range(min = 10, max = 65536))]
    pub slots: u32,
    /// Seconds in which a new or recovered address grows from a tenth to its whole weight; 0: it has that at once. Without effect on `consistent-hashing`.
    #[schemars(range(min = 0, max = 3600))]
    pub slow_start: f64,
    /// The Host header for all targets, maybe with a port.
    #[schemars(extend("format" = "host-header"))]
    pub host_header: Option<String>,
    /// Whether the Host header is the name of the SRV record rather than that of the target, where `host_header` says nothing.
    pub use_srv_name: bool,
    /// The most requests that one address serves at once, and so the most connections of this process to it; 0: no limit. A further request goes to another address; while all are full it waits up to `connect_timeout`.
    pub max_connections: u32,
    /// The `certificates` entry that is shown to targets over https, by id, where the service names none.
    #[serde(skip_serializing)]
    pub client_certificate: Option<Reference>,
    /// Where its instances are asked for; absent: it has the targets of the files.
    pub discovery: Option<Discovery>,
    /// How the health of targets is watched. Nothing is watched by default.
    pub healthchecks: Healthchecks,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            id: None,
            name: String::new(),
            algorithm: Algorithm::RoundRobin,
            hash_on: HashInput::None,
            hash_fallback: HashInput::None,
            hash_on_header: None,
            hash_fallback_header: None,
            hash_on_cookie: None,
            hash_on_cookie_path: "/".to_owned(),
            hash_on_query_arg: None,
            hash_fallback_query_arg: None,
            hash_on_uri_capture: None,
            hash_fallback_uri_capture: None,
            sticky_sessions_cookie: None,
            sticky_sessions_cookie_path: "/".to_owned(),
            slots: 10_000,
            slow_start: 0.0,
            host_header: None,
            use_srv_name: false,
            max_connections: 0,
            client_certificate: None,
            discovery: None,
            healthchecks: Healthchecks::default(),
            tags: Vec::new(),
            created_at: None,
            updated_at: None,
        }
    }
}

impl Model for Upstream {
    model!(Upstream);

    fn settle(&mut self, inspection: &mut Inspection<'_>) {
        self.check_algorithm(inspection);
        if inspection.sound("hash_on") && inspection.sound("hash_fallback") {
            self.check_fallback(inspection);
            self.check_inputs(inspection);
        }
        healthchecks::settle(inspection);
        let consul = self.discovery.as_ref().map(Discovery::access);
        if inspection.sound("discovery")
            && let Some((field, message)) = consul.and_then(|consul| consul.complaint())
        {
            let field = format!("discovery.{field}");
            inspection.error(Code::InvalidCombination, &field, message);
        }
    }
}

impl Upstream {
    fn check_algorithm(&mut self, inspection: &mut Inspection<'_>) {
        if !inspection.sound("algorithm") {
            return;
        }
        if self.algorithm == Algorithm::StickySessions {
            require(
                inspection,
                "sticky_sessions_cookie",
                self.sticky_sessions_cookie.is_some(),
                "algorithm: sticky-sessions",
            );
        }
        if self.hash_on == HashInput::None {
            if self.algorithm == Algorithm::ConsistentHashing && inspection.sound("hash_on") {
                inspection
                    .warning(
                        Code::Ignored,
                        "algorithm",
                        "`consistent-hashing` without `hash_on` hashes nothing: targets take turns",
                    )
                    .hint("say what to hash, such as `hash_on: ip`");
            }
            return;
        }
        let is_other = !matches!(
            self.algorithm,
            Algorithm::RoundRobin | Algorithm::ConsistentHashing
        );
        if is_other {
            let input = self.hash_on.as_str();
            inspection
                .warning(
                    Code::Ignored,
                    "algorithm",
                    format!("`hash_on: {input}` makes it `consistent-hashing`, as in Kong"),
                )
                .hint("leave out one of the two");
        }
        self.algorithm = Algorithm::ConsistentHashing;
    }

    /// What may be hashed instead of what.
    fn check_fallback(&self, inspection: &mut Inspection<'_>) {
        let (on, fallback) = (self.hash_on, self.hash_fallback);
        if fallback == HashInput::None {
            return;
        }
        if matches!(on, HashInput::None | HashInput::Cookie) {
            let why = if on == HashInput::None {
                "there is nothing to fall back from"
            } else {
                "a request without the cookie gets one, so it is never missing"
            };
            inspection
                .error(
                    Code::InvalidValue,
                    "hash_fallback",
                    format!(
                        "must be `none` with `hash_on: {}`, found `{}`: {why}",
                        on.as_str(),
                        fallback.as_str()
                    ),
                )
                .hint("leave it out");
            return;
        }
        let is_alone = matches!(on, HashInput::Consumer | HashInput::Ip | HashInput::Path);
        if is_alone && on == fallback {
            inspection
                .error(
                    Code::InvalidValue,
                    "hash_fallback",
                    format!(
                        "must differ from `hash_on`, found `{}` in both",
                        on.as_str()
                    ),
                )
                .hint("leave it out");
        }
    }

    /// Which fields the inputs need.
    fn check_inputs(&self, inspection: &mut Inspection<'_>) {
        let inputs = [
            ("hash_on", self.hash_on),
            ("hash_fallback", self.hash_fallback),
        ];
        for (side, input) in inputs {
            let is_first = side == "hash_on";
            let (field, value) = match (input, is_first) {
                (HashInput::Header, true) => ("hash_on_header", &self.hash_on_header),
                (HashInput::Header, false) => ("hash_fallback_header", &self.hash_fallback_header),
                (HashInput::Cookie, _) => ("hash_on_cookie", &self.hash_on_cookie),
                (HashInput::QueryArg, true) => ("hash_on_query_arg", &self.hash_on_query_arg),
                (HashInput::QueryArg, false) => {
                    ("hash_fallback_query_arg", &self.hash_fallback_query_arg)
                }
                (HashInput::UriCapture, true) => ("hash_on_uri_capture", &self.hash_on_uri_capture),
                (HashInput::UriCapture, false) => {
                    ("hash_fallback_uri_capture", &self.hash_fallback_uri_capture)
                }
                _ => continue,
            };
            let because = format!("{side}: {}", input.as_str());
            require(inspection, field, value.is_some(), &because);
        }
        let header = |name: &Option<String>| name.as_ref().map(|name| name.to_ascii_lowercase());
        let pairs = [
            (
                HashInput::Header,
                "hash_fallback_header",
                header(&self.hash_on_header),
                header(&self.hash_fallback_header),
            ),
            (
                HashInput::QueryArg,
                "hash_fallback_query_arg",
                self.hash_on_query_arg.clone(),
                self.hash_fallback_query_arg.clone(),
            ),
            (
                HashInput::UriCapture,
                "hash_fallback_uri_capture",
                self.hash_on_uri_capture.clone(),
                self.hash_fallback_uri_capture.clone(),
            ),
        ];
        for (input, field, on, fallback) in pairs {
            if (self.hash_on, self.hash_fallback) == (input, input)
                && let (Some(on), Some(fallback)) = (on, fallback)
                && on == fallback
            {
                inspection
                    .error(
                        Code::InvalidValue,
                        field,
                        format!("must differ from that of `hash_on`, found `{on}` in both"),
                    )
                    .hint("name another one, or leave out `hash_fallback`");
            }
        }
    }
}

/// Reports a field that is missing `because` of another.
fn require(inspection: &mut Inspection<'_>, field: &str, is_there: bool, because: &str) {
    if !is_there && inspection.sound(field) {
        inspection.error(
            Code::MissingField,
            "",
            format!("required field `{field}` is missing: `{because}` needs it"),
        );
    }
}

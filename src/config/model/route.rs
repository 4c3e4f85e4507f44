//! A route: which requests go to a service.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::reference::Reference;
use super::retry::{self, Retry};
use super::{Inspection, Model, model};
use crate::config::diagnostics::Code;
use crate::entity::Protocol;
use crate::entity::path::PathHandling;

/// Which requests go to a service. Every attribute that is given must match, by any one of its values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the switches are the format's"
)]
pub struct Route {
    /// A UUID; derived from the name if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// Unique among routes.
    #[schemars(extend("format" = "entity-name"))]
    pub name: Option<String>,
    /// The service that requests go to; without one a plugin must answer.
    #[serde(skip_serializing)]
    pub service: Option<Reference>,
    /// What clients may speak; a request that comes in another way is answered by `https_redirect_status_code`.
    #[schemars(length(min = 1))]
    pub protocols: BTreeSet<Protocol>,
    /// Methods in capital letters.
    #[schemars(extend("items" = {"type": "string", "format": "method"}))]
    pub methods: BTreeSet<String>,
    /// Host names, maybe with a port; `*` may stand for the first or the last label.
    #[schemars(extend("items" = {"type": "string", "format": "route-host"}))]
    pub hosts: Vec<String>,
    /// Path prefixes (`/…`) and regexes (`~/…`).
    #[schemars(extend("items" = {"type": "string", "format": "route-path"}))]
    pub paths: Vec<String>,
    /// Header names with their possible values; a value that begins with `~*` is a regex.
    #[schemars(extend(
        "propertyNames" = {"format": "route-header"},
        "additionalProperties" = {"type": "array", "minItems": 1, "items": {"type": "string", "format": "route-header-value"}}
    ))]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Names that TLS clients ask for (SNI); `*` may stand for the first or the last label. Requests without TLS are not compared.
    #[schemars(extend("items" = {"type": "string", "format": "route-sni"}))]
    pub snis: BTreeSet<String>,
    /// Where connections of a stream route come from.
    pub sources: Vec<Endpoint>,
    /// Where connections of a stream route arrive.
    pub destinations: Vec<Endpoint>,
    /// In the router flavour `expressions`: a predicate over the request, instead of the attributes above.
    #[schemars(extend("format" = "route-expression"))]
    pub expression: Option<String>,
    /// Among routes with an expression the higher number is tried first.
    #[schemars(range(max = 70_368_744_177_663_u64))]
    pub priority: u64,
    /// The answer to a plaintext request on a route for https only: 426, or a redirect.
    #[schemars(extend("enum" = [426, 301, 302, 307, 308]))]
    pub https_redirect_status_code: u16,
    /// Among regex routes the higher number is tried first.
    pub regex_priority: i64,
    /// Whether the matched part of the path is cut off. For `grpc` and `grpcs` it is always false.
    pub strip_path: bool,
    /// How the service's path and the request's path are joined.
    pub path_handling: PathHandling,
    /// Whether the client's Host header goes upstream.
    pub preserve_host: bool,
    /// How tries are repeated, in place of what the service says.
    pub retry: Option<Retry>,
    /// Milliseconds until the head of the response must be there, over all tries and what they wait for, in place of what the service says; 0: no such limit.
    #[schemars(range(max = 2_147_483_646))]
    pub total_timeout: Option<u32>,
    /// Accepted for Kong's sake: bodies are streamed, but for what a retry needs.
    pub request_buffering: bool,
    /// Accepted for Kong's sake: responses are streamed.
    pub response_buffering: bool,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970; of two routes that are otherwise equal the older one wins.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

/// An address or network, a port, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Endpoint {
    /// An IP address, or a network such as `10.0.0.0/8`.
    #[schemars(extend("format" = "trusted-network"))]
    pub ip: Option<String>,
    /// A port.
    pub port: Option<u16>,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            id: None,
            name: None,
            service: None,
            protocols: BTreeSet::from([Protocol::Http, Protocol::Https]),
            methods: BTreeSet::new(),
            hosts: Vec::new(),
            paths: Vec::new(),
            headers: BTreeMap::new(),
            snis: BTreeSet::new(),
            sources: Vec::new(),
            destinations: Vec::new(),
            expression: None,
            priority: 0,
            https_redirect_status_code: 426,
            regex_priority: 0,
            strip_path: true,
            path_handling: PathHandling::V0,
            preserve_host: false,
            retry: None,
            total_timeout: None,
            request_buffering: true,
            response_buffering: true,
            tags: Vec::new(),
            created_at: None,
            updated_at: None,
        }
    }
}

impl Model for Route {
    model!(Route);

    fn settle(&mut self, inspection: &mut Inspection<'_>) {
        if inspection.sound("protocols") && !self.check_families(inspection) {
            return;
        }
        if self.is_stream() {
            self.check_stream(inspection);
            let protocol = self.protocols.first().copied().unwrap_or_default();
            retry::settle(None, Some(protocol.as_str()), inspection);
            return;
        }
        retry::settle(self.retry.as_ref(), None, inspection);
        self.check_that_no_stream_is_meant(inspection);
        let is_grpc = self.protocols.iter().any(|protocol| protocol.is_grpc());
        if is_grpc {
            self.check_grpc(inspection);
            self.strip_path = false;
        }
        self.check_snis(inspection);
        self.check_expression(inspection);
        self.check_that_something_is_matched(is_grpc, inspection);
    }
}

impl Route {
    /// Whether all protocols can be those of one route.
    fn check_families(&self, inspection: &mut Inspection<'_>) -> bool {
        let kind = |protocol: &Protocol| match protocol {
            Protocol::Http | Protocol::Https => 0,
            Protocol::Grpc | Protocol::Grpcs => 1,
            Protocol::Tcp | Protocol::Tls => 2,
            Protocol::TlsPassthrough => 3,
        };
        let mut kinds = self.protocols.iter().map(kind);
        let first = kinds.next();
        let is_mixed = kinds.any(|kind| Some(kind) != first);
        if is_mixed {
            inspection
                .error(
                    Code::InvalidCombination,
                    "protocols",
                    "these sets of protocols are mutually exclusive: ('http', 'https'), ('grpc', 'grpcs'), ('tcp', 'tls'), ('tls_passthrough')",
                )
                .hint("make it two routes");
        }
        !is_mixed
    }

    /// Whether it takes connections rather than requests.
    pub fn is_stream(&self) -> bool {
        self.protocols.iter().any(|protocol| protocol.is_stream())
    }

    fn check_stream(&self, inspection: &mut Inspection<'_>) {
        let protocol = self.protocols.first().copied().unwrap_or_default();
        let of_requests = [
            ("methods", self.methods.is_empty()),
            ("hosts", self.hosts.is_empty()),
            ("paths", self.paths.is_empty()),
            ("headers", self.headers.is_empty()),
            ("expression", self.expression.is_none()),
            ("priority", self.priority == 0),
        ];
        for (field, _) in of_requests.iter().filter(|(_, is_empty)| !is_empty) {
            inspection.error(
                Code::InvalidCombination,
                field,
                format!("cannot set '{field}' when 'protocols' is '{protocol}'"),
            );
        }
        let knows_names = |protocol: &Protocol| *protocol != Protocol::Tcp;
        if !self.snis.is_empty() && !self.protocols.iter().any(knows_names) {
            inspection.error(
                Code::InvalidCombination,
                "snis",
                "'snis' can only be set when 'protocols' has 'tls' or 'tls_passthrough'",
            );
        }
        for (field, endpoints) in [
            ("sources", &self.sources),
            ("destinations", &self.destinations),
        ] {
            let is_empty = |endpoint: &Endpoint| endpoint.ip.is_none() && endpoint.port.is_none();
            if endpoints.iter().any(is_empty) {
                inspection.error(
                    Code::InvalidCombination,
                    field,
                    format!("each of '{field}' needs at least one of 'ip' and 'port'"),
                );
            }
        }
        let is_passthrough = protocol == Protocol::TlsPassthrough;
        let has_ends = !self.sources.is_empty() || !self.destinations.is_empty();
        let suspect = ["snis", "sources", "destinations", "protocols"]
            .iter()
            .any(|field| !inspection.sound(field));
        if self.snis.is_empty() && !suspect && (is_passthrough || !has_ends) {
            let attributes = if is_passthrough {
                "'snis'"
            } else {
                "one of 'sources', 'destinations', 'snis'"
            };
            inspection.error(
                Code::InvalidCombination,
                "",
                format!("must set {attributes} when 'protocols' is '{protocol}'"),
            );
        }
    }

    fn check_that_no_stream_is_meant(&self, inspection: &mut Inspection<'_>) {
        let protocol = self.protocols.first().copied().unwrap_or_default();
        for (field, is_empty) in [
            ("sources", self.sources.is_empty()),
            ("destinations", self.destinations.is_empty()),
        ] {
            if !is_empty {
                inspection
                    .error(
                        Code::InvalidCombination,
                        field,
                        format!("cannot set '{field}' when 'protocols' is '{protocol}'"),
                    )
                    .hint("it belongs to routes for tcp and tls");
            }
        }
    }

    fn check_grpc(&self, inspection: &mut Inspection<'_>) {
        if !self.methods.is_empty() {
            inspection.error(
                Code::InvalidCombination,
                "methods",
                "cannot set 'methods' when 'protocols' is 'grpc' or 'grpcs': every call is a POST",
            );
        }
        if self.strip_path && inspection.has("strip_path") {
            inspection.error(
                Code::InvalidCombination,
                "strip_path",
                "'strip_path' cannot be true when 'protocols' is 'grpc' or 'grpcs': the path of a call is its method",
            );
        }
    }

    fn check_snis(&self, inspection: &mut Inspection<'_>) {
        let is_encrypted = |protocol: &Protocol| protocol.is_encrypted();
        if !self.snis.is_empty()
            && inspection.sound("protocols")
            && !self.protocols.iter().any(is_encrypted)
        {
            inspection.error(
                Code::InvalidCombination,
                "snis",
                "'snis' can only be set when 'protocols' has 'https' or 'grpcs'",
            );
        }
    }

    /// The attributes that are given, by name.
    fn attributes(&self) -> impl Iterator<Item = &'static str> {
        [
            ("methods", self.methods.is_empty()),
            ("hosts", self.hosts.is_empty()),
            ("headers", self.headers.is_empty()),
            ("paths", self.paths.is_empty()),
            ("snis", self.snis.is_empty()),
        ]
        .into_iter()
        .filter_map(|(name, is_empty)| (!is_empty).then_some(name))
    }

    fn check_expression(&self, inspection: &mut Inspection<'_>) {
        if self.expression.is_none() {
            if self.priority != 0 {
                inspection
                    .error(
                        Code::InvalidCombination,
                        "priority",
                        "`priority` has no meaning without `expression`",
                    )
                    .hint("routes with attributes have `regex_priority`");
            }
            return;
        }
        for name in self.attributes() {
            inspection
                .error(
                    Code::InvalidCombination,
                    name,
                    format!("a route has either `expression` or attributes, not both: `{name}`"),
                )
                .hint("say it in the expression, or make it two routes");
        }
    }

    fn check_that_something_is_matched(&self, is_grpc: bool, inspection: &mut Inspection<'_>) {
        let matches = self.expression.is_some() || self.attributes().next().is_some();
        let suspect = [
            "methods",
            "hosts",
            "paths",
            "headers",
            "snis",
            "expression",
            "protocols",
        ]
        .iter()
        .any(|field| !inspection.sound(field));
        if matches || suspect {
            return;
        }
        // The one for plain text has the shorter list.
        let protocol = self
            .protocols
            .iter()
            .find(|protocol| !protocol.is_encrypted())
            .or_else(|| self.protocols.first())
            .copied()
            .unwrap_or_default();
        let mut attributes = vec!["'hosts'", "'headers'", "'paths'"];
        if !is_grpc {
            attributes.insert(0, "'methods'");
        }
        if protocol.is_encrypted() {
            attributes.push("'snis'");
        }
        inspection.error(
            Code::InvalidCombination,
            "",
            format!(
                "must set one of {} when 'protocols' is '{protocol}'",
                attributes.join(", ")
            ),
        );
    }
}

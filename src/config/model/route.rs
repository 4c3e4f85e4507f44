//! A route: which requests go to a service.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::reference::Reference;
use super::{Inspection, Model, model};
use crate::config::diagnostics::Code;
use crate::entity::Protocol;
use crate::entity::path::PathHandling;

const STREAM: &str = "it needs stream proxying; match on `hosts`, `paths`, `methods` or `headers`";
const EXPRESSIONS: &str =
    "it needs the router flavour `expressions`; use `hosts`, `paths`, `methods` and `headers`";
const REFUSED: &[(&str, &str)] = &[
    ("snis", "it needs TLS listeners; match on `hosts`"),
    ("sources", STREAM),
    ("destinations", STREAM),
    ("expression", EXPRESSIONS),
    ("priority", EXPRESSIONS),
    (
        "retry",
        "retries follow the service's `retries` alone; leave the field out",
    ),
];

/// Which requests go to a service. Every attribute that is given must match, by any one of its values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-refused" = REFUSED))]
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
    /// The answer to a plaintext request on a route for https only: 426, or a redirect.
    #[schemars(extend("enum" = [426, 301, 302, 307, 308]))]
    pub https_redirect_status_code: u16,
    /// Among regex routes the higher number is tried first.
    pub regex_priority: i32,
    /// Whether the matched part of the path is cut off.
    pub strip_path: bool,
    /// How the service's path and the request's path are joined.
    pub path_handling: PathHandling,
    /// Whether the client's Host header goes upstream.
    pub preserve_host: bool,
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
            https_redirect_status_code: 426,
            regex_priority: 0,
            strip_path: true,
            path_handling: PathHandling::V0,
            preserve_host: false,
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
        self.check_that_something_is_matched(inspection);
    }
}

impl Route {
    fn check_that_something_is_matched(&self, inspection: &mut Inspection<'_>) {
        let matches = !(self.methods.is_empty()
            && self.hosts.is_empty()
            && self.paths.is_empty()
            && self.headers.is_empty());
        let suspect = ["methods", "hosts", "paths", "headers", "protocols"]
            .iter()
            .any(|field| !inspection.sound(field));
        let refused = REFUSED.iter().any(|(field, _)| inspection.has(field));
        if matches || suspect || refused {
            return;
        }
        let protocol = if self.protocols.contains(&Protocol::Http) {
            Protocol::Http
        } else {
            Protocol::Https
        };
        inspection.error(
            Code::InvalidCombination,
            "",
            format!("must set one of 'methods', 'hosts', 'headers', 'paths' when 'protocols' is '{protocol}'"),
        );
    }
}

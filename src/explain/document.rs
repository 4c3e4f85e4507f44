//! What an explanation says: plain facts that are written as JSON and read again, so that those of a
//! running process are shown like those of files. How people are told is the command's business.

use serde::{Deserialize, Serialize};

/// What the gateway does with a request, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The hash of the configuration that it is about, as `/status` shows it.
    pub configuration_hash: String,
    /// The request as the gateway sees it.
    pub request: Request,
    /// The route that takes it.
    pub route: Option<Route>,
    /// Other routes, the nearest first.
    pub near_misses: Vec<NearMiss>,
    /// How many other routes are not listed.
    pub near_misses_omitted: usize,
    /// The plugins that run for it, in order.
    pub plugins: Vec<Plugin>,
    /// Plugins written for this route, its service or everybody that do not run for it.
    pub idle_plugins: Vec<IdlePlugin>,
    /// How many of those are not listed.
    pub idle_plugins_omitted: usize,
    /// The gateway's own answer; the request does not go upstream then.
    pub answer: Option<Answer>,
    /// The service that it goes to: that of the route, or the likeliest that a plugin chooses.
    pub service: Option<Service>,
    /// What the target gets that the request leads to, else the service's first one with a weight. With an `answer`: what it would get.
    pub sent: Option<Sent>,
    /// What else is worth knowing, in sentences.
    pub notes: Vec<String>,
}

/// A request after the gateway has read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub method: String,
    /// `http` or `https`, as far as a trusted proxy may say otherwise.
    pub scheme: String,
    /// In lower case without port; empty if there is none.
    pub host: String,
    /// The port that routes compare.
    pub port: u16,
    /// As it was asked; arguments that may hold credentials are masked.
    pub url: String,
    /// The normalised path that routes compare; bytes that are not UTF-8 are `U+FFFD`.
    pub path: String,
    /// Who asks, as far as a trusted proxy may say otherwise.
    pub client_ip: String,
    /// Whether the peer is in `trusted_ips`.
    pub trusted: bool,
    /// The consumer that authentication finds or that was taken for granted.
    pub consumer: Option<String>,
}

/// The route that a request takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Its name, else its id: what metrics and the access log call it.
    pub label: String,
    pub id: String,
    pub name: Option<String>,
    /// `FILE:LINE:COLUMN`.
    pub place: String,
    /// How each of its conditions is met.
    pub matched: Vec<Matched>,
    /// Why it comes before every other route.
    pub first_because: String,
    pub strip_path: bool,
    pub preserve_host: bool,
}

/// One condition of a route that is met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matched {
    /// `hosts`, `paths`, `methods`, `headers`, `snis` or `expression`.
    pub attribute: String,
    /// What is written in the route that counts.
    pub by: String,
    /// The same in a sentence.
    pub sentence: String,
    /// The captures of a regex: names, else numbers, with their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub captures: Vec<(String, String)>,
}

/// A route that does not take the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearMiss {
    pub label: String,
    pub place: String,
    /// Whether all of its conditions are met.
    pub matches: bool,
    /// Why it lost: one sentence for each condition that fails, or the rule that put it behind.
    pub reasons: Vec<String>,
}

/// A plugin that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugin {
    pub name: String,
    pub priority: i32,
    /// `global`, or such as `route orders and consumer ann`.
    pub scope: String,
    pub place: String,
    pub access: Access,
    /// What that means here.
    pub detail: String,
    /// The services that it chooses from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Share>,
    /// Consumers for whom another instance runs in its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consumers: Vec<ForConsumer>,
    /// How many of those are not listed.
    pub consumers_omitted: usize,
}

/// A service that a plugin chooses for some of the requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The label of the service.
    pub service: String,
    /// How often it is chosen, compared with the others.
    pub weight: u32,
}

/// What becomes of the access phase of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// The request goes on.
    Passes,
    /// It depends on what an explanation must not touch, such as counts.
    Open,
    /// It sends the request to one of several services.
    Chooses,
    /// Its finding was taken for granted.
    Assumed,
    /// It answers, or fails.
    Answers,
    /// The request is answered before; only the response and log phases run.
    NotReached,
}

/// A consumer with an instance of a plugin of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForConsumer {
    pub consumer: String,
    pub scope: String,
    pub place: String,
}

/// A plugin that is written and does not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdlePlugin {
    pub name: String,
    pub priority: i32,
    pub scope: String,
    pub place: String,
    pub why: Idle,
    /// The same in a sentence.
    pub reason: String,
}

/// Why a plugin does not run for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Idle {
    /// It has `enabled: false`.
    Disabled,
    /// It is for the other of http and https.
    OtherProtocol,
    /// It is for a consumer that the request is not of.
    OtherConsumer,
    /// A more specific one runs in its place.
    Shadowed,
}

/// An answer of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub status: u16,
    /// The reason code of logs and metrics.
    pub reason: String,
    /// A plugin, or what else answered.
    pub by: String,
    /// The sentence in its body; empty if it has another body or none.
    pub message: String,
    /// Its headers, as far as they are its own.
    pub headers: Vec<(String, String)>,
}

/// Where requests of a route go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub label: String,
    pub id: String,
    pub name: Option<String>,
    pub place: String,
    pub protocol: String,
    /// The path before that of the request; absent if it is `/`.
    pub path: Option<String>,
    /// How often a request is sent again.
    pub retries: u16,
    pub connect_timeout_ms: u64,
    pub write_timeout_ms: u64,
    pub read_timeout_ms: u64,
    pub upstream: Upstream,
}

/// The targets of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// The upstream's name, else the service's host.
    pub name: String,
    /// Absent if the service names a host, not an upstream.
    pub place: Option<String>,
    pub algorithm: String,
    /// What decides which target this request gets, in a sentence.
    #[serde(default)]
    pub choice: String,
    pub targets: Vec<Target>,
    /// How many targets are not listed.
    pub targets_omitted: usize,
}

/// One target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub target: String,
    pub weight: u16,
    /// The `Host` it gets.
    pub host: String,
    /// What the running process knows of its addresses; empty where only files are looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
}

/// An address of a target and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// With port; empty if the name has no address.
    pub address: String,
    pub health: String,
    /// The part of its weight that it has now, in percent.
    #[serde(default)]
    pub weight_percent: u8,
    /// The requests that are under way to it.
    #[serde(default)]
    pub requests: u32,
    /// How long it takes to answer, in whole milliseconds, where that is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
}

/// A request as an upstream gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The target, as `services` or `targets` write it.
    pub to: String,
    pub method: String,
    /// Scheme, target and path; arguments that may hold credentials are masked.
    pub url: String,
    /// The same without scheme and target: what stands in the request line.
    pub target: String,
    /// In the order sent, names in lower case.
    pub headers: Vec<(String, String)>,
    /// In what they differ from those of the client.
    pub changes: Vec<Change>,
}

/// A header that differs between client and upstream. Several lines are joined with `, `.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub name: String,
    /// Absent if it is added.
    pub from: Option<String>,
    /// Absent if it is removed.
    pub to: Option<String>,
}

//! The `config:` block as it is written. What it means is decided elsewhere.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// The `config:` block of `traffic-split`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["rules"]))]
pub struct Config {
    /// The first of these that fits a request decides where it goes.
    #[schemars(length(min = 1))]
    pub rules: Vec<Rule>,
    /// What keeps a client with its service: `none`, `ip`, `consumer`, `header:NAME` or `cookie:NAME`.
    #[schemars(regex(pattern = "^(none|ip|consumer|header:.+|cookie:.+)$"))]
    pub sticky: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            sticky: "none".to_owned(),
        }
    }
}

/// For which requests, and where those go.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["to"]))]
pub struct Rule {
    /// What a request must have; left out, the rule is for every request.
    pub when: Option<When>,
    /// The services that get these requests.
    #[schemars(length(min = 1))]
    pub to: Vec<To>,
}

impl Rule {
    /// Whether there is no condition.
    pub(super) fn is_for_everybody(&self) -> bool {
        self.when.as_ref().is_none_or(|when| {
            when.headers.is_empty()
                && when.cookies.is_empty()
                && when.query.is_empty()
                && when.consumers.is_empty()
                && when.consumer_groups.is_empty()
        })
    }
}

/// What a request must have: all of what is listed.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct When {
    /// Headers, each with one of these values.
    #[schemars(extend("propertyNames" = {"format": "header-name"}))]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Cookies, each with one of these values.
    pub cookies: BTreeMap<String, Vec<String>>,
    /// Arguments of the query, each with one of these values.
    pub query: BTreeMap<String, Vec<String>>,
    /// Usernames or ids; the consumer that authentication found is one of them.
    pub consumers: Vec<String>,
    /// Names or ids; the consumer is in one of these groups.
    pub consumer_groups: Vec<String>,
}

/// A service and its share.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct To {
    /// The name or id of the service; left out, the route's own.
    pub service: Option<String>,
    /// Its share, compared with the others of the rule; 0 = none.
    pub weight: u16,
}

impl Default for To {
    fn default() -> Self {
        Self {
            service: None,
            weight: 1,
        }
    }
}

//! Lets in requests that carry a key of some [consumer](../../concepts/consumers.md).
//!
//! ```yaml
//! _format_version: "3.0"
//! services:
//!   - name: orders
//!     url: http://orders.internal
//!     routes:
//!       - name: orders
//!         paths: [/orders]
//!     plugins:
//!       - name: key-auth
//!         config:
//!           key_names: [apikey, X-API-Key]
//!           hide_credentials: true
//! consumers:
//!   - username: ann
//!     keyauth_credentials:
//!       - key: anns-key
//! ```
//!
//! # Where a key is looked for
//!
//! The names are tried in their order, each in the header, then in the query, then in the body. The first place
//! that has something decides: a wrong key in the header is not rescued by a right one in the query.
//!
//! | what is presented | answer without `anonymous` |
//! |---|---|
//! | nothing, or an empty key | 401 `No API key found in request` |
//! | several values at the place that decides | 401 `Duplicate API key found` |
//! | a key that nobody has, or that has expired | 401 `Unauthorized` |
//!
//! Every 401 carries `WWW-Authenticate: Key`, or `Key realm="…"`.
//!
//! A body is read only with `key_in_body`, only if header and query have nothing under that name, and only if its
//! `Content-Type` is one of the three. It is then held in memory up to `gateway.client_body_buffer_limit`; a
//! larger one is answered with 413. gRPC requests carry their key in a header.
//!
//! The plugin cannot be put on a consumer: it is what finds the consumer.

mod arguments;
mod body;
mod konnect;
mod multipart;

use http::{
    HeaderName, HeaderValue, Method,
    header::{CONTENT_TYPE, WWW_AUTHENTICATE},
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    entity::{
        consumer::ConsumerIndex, consumers::Consumers, credential::KeyCredential, reason::Reason,
    },
    plugin::{ConfigError, Env, Halt, Plugin, Reply, Request},
    state::clock::Clock,
};
use body::{Fields, MediaType};
use konnect::{IdentityRealm, Principals};

/// The `config:` block of `key-auth`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one switch of the operator's"
)]
pub struct Config {
    /// The names under which a key is looked for, in this order: letters, digits, `_` and `-`. A
    /// header matches in any letter case, an argument or a field only exactly.
    #[schemars(
        length(min = 1),
        inner(regex(pattern = r"^[A-Za-z0-9_-]+$")),
        extend("x-not-null" = true)
    )]
    pub key_names: Vec<String>,
    /// Looks in headers.
    #[schemars(extend("x-not-null" = true))]
    pub key_in_header: bool,
    /// Looks in the query.
    #[schemars(extend("x-not-null" = true))]
    pub key_in_query: bool,
    /// Looks in the body: a form (urlencoded or multipart, up to 100 parts) or a JSON object.
    /// Only then, and only if header and query have nothing, is the body held in memory.
    #[schemars(extend("x-not-null" = true))]
    pub key_in_body: bool,
    /// Removes what was found under the name that decided before the request goes upstream, from
    /// header and query, and from the body if the key was looked for there.
    #[schemars(extend("x-not-null" = true))]
    pub hide_credentials: bool,
    /// The id or username of the consumer that stands in when there is no valid key. Also lets
    /// requests pass that another plugin has authenticated already.
    pub anonymous: Option<String>,
    /// The realm that a 401 names in `WWW-Authenticate`.
    pub realm: Option<String>,
    /// `false` lets every `OPTIONS` request pass without a key and without a consumer.
    #[schemars(extend("x-not-null" = true))]
    pub run_on_preflight: bool,
    /// As exports from Konnect have it: only `scope: cp`, the consumers of this configuration.
    pub identity_realms: Vec<IdentityRealm>,
    /// As exports from Konnect have it: only with `enabled: false`.
    pub principals: Option<Principals>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            key_names: vec!["apikey".to_owned()],
            key_in_header: true,
            key_in_query: true,
            key_in_body: false,
            hide_credentials: false,
            anonymous: None,
            realm: None,
            run_on_preflight: true,
            identity_realms: Vec::new(),
            principals: None,
        }
    }
}

/// The plugin `key-auth`.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one switch of the operator's"
)]
pub struct KeyAuth {
    names: Box<[KeyName]>,
    in_header: bool,
    in_query: bool,
    in_body: bool,
    hide_credentials: bool,
    run_on_preflight: bool,
    anonymous: Option<ConsumerIndex>,
    refusals: Refusals,
    clock: Clock,
}

/// A name under which a key may stand.
#[derive(Debug)]
struct KeyName {
    header: HeaderName,
    argument: String,
}

/// The answers to a request without a valid key.
#[derive(Debug)]
struct Refusals {
    missing: Reply,
    duplicate: Reply,
    unknown: Reply,
}

/// What is wrong with the key of a request.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    Missing,
    Duplicate,
    Unknown,
}

/// What stands at the first place that has something.
enum Presented<K> {
    One(K),
    Several,
}

/// What the search for a key came to.
struct Finding<'p, 'a> {
    /// The name that decided.
    name: Option<&'p KeyName>,
    /// The body, if it was read for that name.
    body: Option<Fields>,
    verdict: Result<&'a KeyCredential, Refusal>,
}

impl Plugin for KeyAuth {
    const NAME: &'static str = "key-auth";
    const CONSUMER_SCOPE: bool = false;
    const REHEARSABLE: bool = true;
    type Config = Config;
    type Memo = ();
    type Metrics = ();

    fn configure(config: Config, env: &Env<'_, Self>) -> Result<Self, ConfigError> {
        if config.key_names.is_empty() {
            return Err(ConfigError::at("key_names", "name at least one"));
        }
        config
            .principals
            .as_ref()
            .map_or(Ok(()), Principals::check)?;
        let names = config.key_names.iter().map(|name| KeyName::new(name));
        Ok(Self {
            names: names.collect::<Result<_, _>>()?,
            in_header: config.key_in_header,
            in_query: config.key_in_query,
            in_body: config.key_in_body,
            hide_credentials: config.hide_credentials,
            run_on_preflight: config.run_on_preflight,
            anonymous: anonymous(config.anonymous.as_deref(), env.consumers)?,
            refusals: Refusals::new(config.realm.as_deref())?,
            clock: env.state.clock.clone(),
        })
    }

    fn secret_arguments(&self) -> Vec<String> {
        self.names
            .iter()
            .map(|name| name.argument.clone())
            .collect()
    }

    async fn access(&self, _memo: &mut (), request: &mut Request<'_>) -> Result<(), Halt> {
        if self.lets_pass(request) {
            return Ok(());
        }
        let Finding {
            name,
            body,
            verdict,
        } = self.find(request).await?;
        if let Err(refusal) = verdict
            && self.anonymous.is_none()
        {
            return Err(self.refusals.reply(refusal).clone().into());
        }
        if self.hide_credentials
            && let Some(name) = name
        {
            hide(request, name, body.as_ref());
        }
        match (verdict, self.anonymous) {
            (Ok(credential), _) => request.authenticate(credential),
            (Err(_), Some(consumer)) => request.authenticate_anonymous(consumer),
            (Err(_), None) => {}
        }
        Ok(())
    }
}

impl KeyAuth {
    /// Whether the request needs no key of ours.
    fn lets_pass(&self, request: &Request<'_>) -> bool {
        let is_preflight = request.method() == Method::OPTIONS;
        // With `anonymous`, plugins are alternatives: one credential is enough.
        let is_authenticated = request.identity.credential.is_some();
        (is_preflight && !self.run_on_preflight) || (is_authenticated && self.anonymous.is_some())
    }

    /// Looks for a key and for whom it belongs to.
    async fn find<'a>(&self, request: &mut Request<'a>) -> Result<Finding<'_, 'a>, Halt> {
        for name in &self.names {
            if let Some(verdict) = self.in_head(request, name) {
                return Ok(Finding {
                    name: Some(name),
                    body: None,
                    verdict,
                });
            }
            let Some(fields) = self.fields(request).await? else {
                continue;
            };
            if let Some(presented) = fields.value(&name.argument) {
                let verdict = self.judge(&presented, request.about.consumers);
                return Ok(Finding {
                    name: Some(name),
                    body: Some(fields),
                    verdict,
                });
            }
        }
        Ok(Finding {
            name: None,
            body: None,
            verdict: Err(Refusal::Missing),
        })
    }

    /// Looks into header and query; `None` if they have nothing under `name`.
    fn in_head<'a>(
        &self,
        request: &Request<'a>,
        name: &KeyName,
    ) -> Option<Result<&'a KeyCredential, Refusal>> {
        let consumers = request.about.consumers;
        if self.in_header
            && let Some(presented) = sole(request.headers.get_all(&name.header))
        {
            return Some(self.judge(&presented, consumers));
        }
        if self.in_query
            && !request.is_grpc()
            && let Some(presented) = sole(arguments::values(
                request.query()?.as_bytes(),
                &name.argument,
            ))
        {
            return Some(self.judge(&presented, consumers));
        }
        None
    }

    /// The fields of the body, if keys may stand there. Any other body is not read at all.
    async fn fields(&self, request: &mut Request<'_>) -> Result<Option<Fields>, Halt> {
        if !self.in_body || request.is_grpc() {
            return Ok(None);
        }
        let Some(media_type) = request.headers.get(&CONTENT_TYPE).and_then(MediaType::of) else {
            return Ok(None);
        };
        let body = request.body().await?;
        Ok(Some(Fields { media_type, body }))
    }

    fn judge<'a, K: AsRef<[u8]>>(
        &self,
        presented: &Presented<K>,
        consumers: &'a Consumers,
    ) -> Result<&'a KeyCredential, Refusal> {
        match presented {
            Presented::Several => Err(Refusal::Duplicate),
            Presented::One(key) if key.as_ref().is_empty() => Err(Refusal::Missing),
            Presented::One(key) => consumers
                .find_key(key.as_ref(), || self.clock.unix_seconds())
                .ok_or(Refusal::Unknown),
        }
    }
}

impl KeyName {
    fn new(name: &str) -> Result<Self, ConfigError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let header = HeaderName::from_bytes(name.as_bytes())
            .ok()
            .filter(|_| name.bytes().all(is_plain));
        match header {
            Some(header) => Ok(Self {
                header,
                argument: name.to_owned(),
            }),
            None => Err(ConfigError::at(
                "key_names",
                format!(
                    "`{}` cannot be the name of a key: use letters, digits, `_` and `-`",
                    name.escape_default()
                ),
            )),
        }
    }
}

impl Refusals {
    fn new(realm: Option<&str>) -> Result<Self, ConfigError> {
        let challenge = challenge(realm)?;
        let reply = |message| {
            Reply::message(401, Reason::Unauthorized, message)
                .header(WWW_AUTHENTICATE, challenge.clone())
        };
        Ok(Self {
            missing: reply("No API key found in request"),
            duplicate: reply("Duplicate API key found"),
            unknown: reply("Unauthorized"),
        })
    }

    fn reply(&self, refusal: Refusal) -> &Reply {
        match refusal {
            Refusal::Missing => &self.missing,
            Refusal::Duplicate => &self.duplicate,
            Refusal::Unknown => &self.unknown,
        }
    }
}

/// The value of `WWW-Authenticate`.
fn challenge(realm: Option<&str>) -> Result<HeaderValue, ConfigError> {
    let Some(realm) = realm else {
        return Ok(HeaderValue::from_static("Key"));
    };
    let breaks_quotes = |character: char| matches!(character, '"' | '\\') || character.is_control();
    HeaderValue::from_bytes(format!("Key realm=\"{realm}\"").as_bytes())
        .ok()
        .filter(|_| !realm.contains(breaks_quotes))
        .ok_or_else(|| {
            ConfigError::at(
                "realm",
                "goes between quotes into a header: write it without `\"`, `\\` and control \
                 characters",
            )
        })
}

fn anonymous(
    name: Option<&str>,
    consumers: &Consumers,
) -> Result<Option<ConsumerIndex>, ConfigError> {
    let Some(name) = name else { return Ok(None) };
    match consumers.find(name) {
        Some(consumer) => Ok(Some(consumer)),
        None => Err(ConfigError::at(
            "anonymous",
            format!(
                "there is no consumer with the id or username `{}`: add it to `consumers`",
                name.escape_default()
            ),
        )),
    }
}

/// The only one of `values`, if there is any.
fn sole<K>(mut values: impl Iterator<Item = K>) -> Option<Presented<K>> {
    let first = values.next()?;
    Some(match values.next() {
        None => Presented::One(first),
        Some(_) => Presented::Several,
    })
}

/// Removes everything that stands under `name` from what goes upstream.
fn hide(request: &mut Request<'_>, name: &KeyName, body: Option<&Fields>) {
    request.headers.remove(&name.header);
    if let Some(rest) = request
        .forwarded_query()
        .and_then(|query| arguments::without(query.as_bytes(), &name.argument))
    {
        let rest = String::from_utf8(rest).expect("text cut at ampersands is text");
        request.forward_query(rest);
    }
    if let Some(rest) = body.and_then(|body| body.without(&name.argument)) {
        request.replace_body(rest);
    }
}

#[cfg(test)]
mod tests;

//! Whose requests are taken together by plugins that limit: how a request is told apart from others, and
//! what it falls back to.

use std::net::IpAddr;

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ConfigError, Request};

/// By what requests are told apart, with what it takes to tell.
#[derive(Debug)]
pub enum Grouping {
    /// By consumer, else by credential, else by client address.
    Consumer,
    /// By credential, else by client address.
    Credential,
    /// By client address.
    Ip,
    /// By service, else by client address.
    Service,
    /// By the value of this header, else by client address.
    Header(HeaderName),
    /// Those for this path are one; others by client address.
    Path(Box<str>),
    /// Not at all.
    Everyone,
}

/// Makes the setting `limit_by`, maybe with a value more.
macro_rules! limit_by {
    ($(#[$about:meta])* $name:ident $(, $(#[$about_more:meta])* $more:ident => $grouping:ident)?) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "lowercase")]
        pub enum $name {
            /// Those of a consumer, else of a credential, else of a client address.
            #[default]
            Consumer,
            /// Those with the same credential, else from the same client address.
            Credential,
            /// Those from the same client address.
            Ip,
            /// All those to a service.
            Service,
            /// Those with the same value of `header_name`, else from the same client address.
            Header,
            /// Those to `path`; others by client address.
            Path,
            $($(#[$about_more])* $more,)?
        }

        impl $name {
            /// The grouping, with the settings `header_name` and `path` where it needs them.
            ///
            /// # Errors
            /// When the one that it needs is missing or no name or path.
            pub fn grouping(
                self,
                header_name: Option<&str>,
                path: Option<&str>,
            ) -> Result<Grouping, ConfigError> {
                Ok(match self {
                    Self::Consumer => Grouping::Consumer,
                    Self::Credential => Grouping::Credential,
                    Self::Ip => Grouping::Ip,
                    Self::Service => Grouping::Service,
                    Self::Header => Grouping::by_header(header_name)?,
                    Self::Path => Grouping::by_path(path)?,
                    $(Self::$more => Grouping::$grouping,)?
                })
            }
        }
    };
}

limit_by! {
    /// Whose requests are counted together.
    LimitBy
}

limit_by! {
    /// Whose requests are counted together.
    LimitByOrGlobal,
    /// All.
    Global => Everyone
}

/// Whose a request is. The kind is part of it: a header value that looks like an address is not that
/// address.
#[derive(Debug, PartialEq, Eq, Hash)]
pub enum Subject<'a> {
    Consumer(Uuid),
    Credential(&'a [u8]),
    Client(IpAddr),
    Service(Uuid),
    Header(&'a [u8]),
    Path,
    Everyone,
}

impl Grouping {
    /// By the header of the setting `header_name`.
    ///
    /// # Errors
    /// When it is missing or no name of a header.
    fn by_header(header_name: Option<&str>) -> Result<Self, ConfigError> {
        let name = header_name
            .ok_or_else(|| ConfigError::at("header_name", "required with `limit_by: header`"))?;
        let parsed = name.parse().map_err(|_| {
            ConfigError::at("header_name", format!("`{name}` is not a header name"))
        })?;
        Ok(Self::Header(parsed))
    }

    /// By the path of the setting `path`.
    ///
    /// # Errors
    /// When it is missing or no path.
    fn by_path(path: Option<&str>) -> Result<Self, ConfigError> {
        match path {
            Some(path) if path.starts_with('/') => Ok(Self::Path(path.into())),
            Some(path) => {
                let message = format!("`{path}` must start with `/`");
                Err(ConfigError::at("path", message))
            }
            None => Err(ConfigError::at("path", "required with `limit_by: path`")),
        }
    }

    /// Whose `request` is.
    pub fn subject<'a>(&self, request: &'a Request<'_>) -> Subject<'a> {
        let credential = || {
            let credential = request.identity.credential.as_ref();
            credential.map(|id| Subject::Credential(id.as_bytes()))
        };
        let found = match self {
            Self::Consumer => request
                .consumer()
                .map(|consumer| Subject::Consumer(consumer.id))
                .or_else(credential),
            Self::Credential => credential(),
            Self::Ip => None,
            Self::Service => request
                .about
                .service
                .map(|service| Subject::Service(service.id)),
            Self::Header(name) => request
                .headers
                .get(name)
                .map(|value| Subject::Header(value.as_bytes())),
            Self::Path(path) => is_path(request, path).then_some(Subject::Path),
            Self::Everyone => Some(Subject::Everyone),
        };
        found.unwrap_or(Subject::Client(request.about.client.ip))
    }
}

/// Whether the request is for `path`, as it was sent or in the normal form it is routed by: else
/// an escaped letter would slip past the limit.
fn is_path(request: &Request<'_>, path: &str) -> bool {
    request.path() == path || request.normal_path() == path.as_bytes()
}

//! Where a registry tells what the files do not: the instances of an upstream, and whole services with their
//! routes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::settings::FilePath;
use crate::client::Base;
use crate::entity::Secret;

/// The kinds of registries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Registry {
    /// Consul, by its HTTP API.
    #[default]
    Consul,
}

/// How Consul is asked: what [`Discovery`] and [`ConsulRoutes`] have in common.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    pub address: &'a str,
    pub tls_verify: bool,
    /// Empty: the host of the address.
    pub tls_server_name: &'a str,
    pub ca_file: Option<&'a FilePath>,
    pub cert_file: Option<&'a FilePath>,
    pub key_file: Option<&'a FilePath>,
    /// Empty: that of the agent.
    pub datacenter: &'a str,
    /// Empty: none.
    pub token: &'a Secret<String>,
    /// In seconds.
    pub wait: u32,
}

impl<'a> Access<'a> {
    /// The address; none if it was found to be none.
    pub fn base(&self) -> Option<Base> {
        Base::with_tls(self.address).ok()
    }

    /// The files that are named, each with its field.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &'a FilePath)> {
        let files = [
            ("ca_file", self.ca_file),
            ("cert_file", self.cert_file),
            ("key_file", self.key_file),
        ];
        files
            .into_iter()
            .filter_map(|(field, file)| Some((field, file?)))
    }

    /// What does not go together: the field, and a sentence about it.
    pub(super) fn complaint(&self) -> Option<(&'static str, String)> {
        let name = (!self.tls_server_name.is_empty()).then_some("tls_server_name");
        let first = self.files().next().map(|(field, _)| field).or(name);
        let is_plain = self.base().is_some_and(|address| !address.is_secure());
        match (first, self.cert_file, self.key_file) {
            (Some(field), ..) if is_plain => {
                let message = "is for TLS, which is not spoken with `http://`: write `https://`";
                Some((field, format!("`{field}` {message}")))
            }
            (_, Some(_), None) => {
                Some(("cert_file", "`cert_file` needs `key_file` as well".into()))
            }
            (_, None, Some(_)) => Some(("key_file", "`key_file` needs `cert_file` as well".into())),
            _ => None,
        }
    }
}

/// A record with fields of its own, and behind them those with which Consul is asked.
macro_rules! asks_consul {
    (
        $(#[$about:meta])*
        $name:ident {
            $($(#[$about_field:meta])* $field:ident: $type:ty = $default:expr,)*
        }
    ) => {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        $(#[$about])*
        pub struct $name {
            $($(#[$about_field])* pub $field: $type,)*
            /// The HTTP API: `http://host:port` or `https://host:port`, maybe with a path.
            #[schemars(extend("format" = "consul-address"))]
            pub address: String,
            /// Whether the certificate of an `https` address is verified. Without it anybody in between can read the token.
            pub tls_verify: bool,
            /// The name that is asked for, and that the certificate must have; empty: the host of the address.
            #[schemars(length(min = 0, max = 253))]
            pub tls_server_name: String,
            /// The file of the authorities in PEM that the certificate is verified by; absent: those of `gateway.trusted_certificates`. Paths are relative to the main file.
            pub ca_file: Option<FilePath>,
            /// The file of the certificate in PEM that is shown to Consul.
            pub cert_file: Option<FilePath>,
            /// The file of its key.
            pub key_file: Option<FilePath>,
            /// The datacenter; empty: that of the agent.
            #[schemars(length(min = 0, max = 128))]
            pub datacenter: String,
            /// The ACL token; empty: none. It is sent in a header and never shown.
            #[serde(skip_serializing)]
            #[schemars(length(min = 0, max = 1024))]
            pub token: Secret<String>,
            /// Seconds that a question waits for a change.
            #[schemars(range(min = 1, max = 600))]
            pub wait: u32,
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    address: String::new(),
                    tls_verify: true,
                    tls_server_name: String::new(),
                    ca_file: None,
                    cert_file: None,
                    key_file: None,
                    datacenter: String::new(),
                    token: Secret::default(),
                    wait: 30,
                }
            }
        }

        impl $name {
            /// How Consul is asked.
            pub fn access(&self) -> Access<'_> {
                Access {
                    address: &self.address,
                    tls_verify: self.tls_verify,
                    tls_server_name: &self.tls_server_name,
                    ca_file: self.ca_file.as_ref(),
                    cert_file: self.cert_file.as_ref(),
                    key_file: self.key_file.as_ref(),
                    datacenter: &self.datacenter,
                    token: &self.token,
                    wait: self.wait,
                }
            }
        }
    };
}

asks_consul! {
    /// Where the instances of an upstream are asked for. Targets of the files are used only until the first answer.
    #[schemars(extend("required" = ["type", "address", "service"]))]
    Discovery {
        /// The kind of registry.
        #[serde(rename = "type")]
        kind: Registry = Registry::Consul,
        /// The name of the service there.
        #[schemars(length(min = 1, max = 256))]
        service: String = String::new(),
        /// Tags that an instance must have, all of them.
        #[schemars(inner(length(min = 1, max = 256)), length(max = 64))]
        tags: Vec<String> = Vec::new(),
        /// Whether only instances count whose checks pass.
        passing: bool = true,
    }
}

/// Where whole services with their routes are taken from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouteDiscovery {
    /// The catalog of a Consul.
    pub consul: Option<ConsulRoutes>,
}

asks_consul! {
    /// The catalog of a Consul, whose services ask for routes by their tags.
    #[schemars(extend("required" = ["address"]))]
    ConsulRoutes {
        /// What the tags begin with that are meant for the gateway.
        #[schemars(length(min = 1, max = 64))]
        tag_prefix: String = "tollgate.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(address: &str, change: impl FnOnce(&mut ConsulRoutes)) -> Option<&'static str> {
        let mut routes = ConsulRoutes {
            address: address.to_owned(),
            ..ConsulRoutes::default()
        };
        change(&mut routes);
        routes.access().complaint().map(|(field, _)| field)
    }

    #[test]
    fn what_is_for_tls_needs_https_and_a_certificate_its_key() {
        let file = || Some(FilePath("a.pem".to_owned()));
        let (http, https) = ("http://c:8500", "https://c:8501");
        assert_eq!(complaint(http, |_| {}), None);
        assert_eq!(complaint(https, |_| {}), None);
        assert_eq!(
            complaint(http, |routes| routes.ca_file = file()),
            Some("ca_file")
        );
        assert_eq!(
            complaint(http, |routes| routes.tls_server_name = "c".to_owned()),
            Some("tls_server_name")
        );
        assert_eq!(
            complaint(https, |routes| routes.cert_file = file()),
            Some("cert_file")
        );
        assert_eq!(
            complaint(https, |routes| routes.key_file = file()),
            Some("key_file")
        );
        let both = |routes: &mut ConsulRoutes| {
            routes.cert_file = file();
            routes.key_file = file();
        };
        assert_eq!(complaint(https, both), None);
    }
}

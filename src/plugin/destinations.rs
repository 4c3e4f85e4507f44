//! Where plugins may send requests besides the service of a route. Collected while a configuration is
//! compiled; the services themselves are made afterwards, and no request looks here.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use url::Url;
use uuid::Uuid;

use crate::entity::facts::ServiceIndex;

/// A service, as far as a plugin's configuration may name it.
#[derive(Debug, Clone)]
pub struct Destination {
    pub id: Uuid,
    pub name: Option<String>,
    /// Why no request can be sent to it, as a sentence about it; absent if it can.
    pub obstacle: Option<&'static str>,
    /// Whether it speaks gRPC.
    pub is_grpc: bool,
}

/// A place that is no service of the configuration, which a plugin names by URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// Whether over https.
    pub is_encrypted: bool,
    /// A name or an address, an IPv6 one in brackets.
    pub host: String,
    pub port: u16,
    /// What comes before the path of a request; absent if it is `/`.
    pub path: Option<String>,
}

impl Outside {
    /// Reads `scheme://host[:port][/prefix]`.
    ///
    /// # Errors
    /// What is wrong with it, without what may be a secret.
    pub fn parse(written: &str) -> Result<Self, String> {
        let url = Url::parse(written).map_err(|error| format!("is no URL: {error}"))?;
        let is_encrypted = match url.scheme() {
            "http" => false,
            "https" => true,
            other => {
                return Err(format!(
                    "must begin with `http://` or `https://`, found `{other}:`"
                ));
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("cannot hold a user name or password: set a header instead".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("ends with its path: a query or fragment has no meaning here".to_owned());
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let path = Some(url.path()).filter(|path| *path != "/");
        Ok(Self {
            is_encrypted,
            host: host.ok_or("has no host")?.to_owned(),
            port: url.port_or_known_default().ok_or("has no port")?,
            path: path.map(str::to_owned),
        })
    }
}

/// All services, in their order.
#[derive(Debug, Default)]
pub struct Destinations {
    services: Vec<Facts>,
    outside: Mutex<Vec<Outside>>,
    by_name: HashMap<String, ServiceIndex>,
}

#[derive(Debug, Clone, Copy)]
struct Facts {
    obstacle: Option<&'static str>,
    is_grpc: bool,
}

/// Why a service cannot be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreachable {
    Unknown,
    Obstacle(&'static str),
}

impl Destinations {
    /// These services, in the order of the snapshot.
    pub fn new(services: impl IntoIterator<Item = Destination>) -> Self {
        let mut destinations = Self::default();
        for service in services {
            let index = ServiceIndex(destinations.services.len());
            destinations.services.push(Facts {
                obstacle: service.obstacle,
                is_grpc: service.is_grpc,
            });
            let names = [Some(service.id.to_string()), service.name];
            for name in names.into_iter().flatten() {
                destinations.by_name.entry(name).or_insert(index);
            }
        }
        destinations
    }

    /// Whether a service speaks gRPC.
    pub fn is_grpc(&self, service: ServiceIndex) -> bool {
        let facts = self.services.get(service.0);
        facts.is_some_and(|facts| facts.is_grpc)
    }

    /// The service that stands for a place outside; the same for the same place. It comes behind those of the
    /// configuration, has no name, no retries and no plugins, and verifies certificates.
    pub fn outside(&self, place: Outside) -> ServiceIndex {
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        let index = outside.iter().position(|known| *known == place);
        let index = index.unwrap_or_else(|| {
            outside.push(place);
            outside.len() - 1
        });
        ServiceIndex(self.services.len() + index)
    }

    /// The places that plugins named, in the order of the services that stand for them.
    pub fn into_outside(self) -> Vec<Outside> {
        self.outside
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a service by its name or id.
    pub(super) fn find(&self, name_or_id: &str) -> Result<ServiceIndex, Unreachable> {
        let index = self.by_name.get(name_or_id);
        let index = *index.ok_or(Unreachable::Unknown)?;
        match self.services.get(index.0).and_then(|facts| facts.obstacle) {
            Some(obstacle) => Err(Unreachable::Obstacle(obstacle)),
            None => Ok(index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_found_by_name_and_id_unless_something_is_in_the_way() {
        let service = |id, name: &str, obstacle| Destination {
            id: Uuid::from_u128(id),
            name: Some(name.to_owned()),
            obstacle,
            is_grpc: false,
        };
        let destinations = Destinations::new([
            service(1, "v1", None),
            service(2, "v2", Some("has `enabled: false`")),
        ]);
        assert_eq!(destinations.find("v1"), Ok(ServiceIndex(0)));
        let id = Uuid::from_u128(1).to_string();
        assert_eq!(destinations.find(&id), Ok(ServiceIndex(0)));
        assert_eq!(destinations.find("v3"), Err(Unreachable::Unknown));
        let place = |url| destinations.outside(Outside::parse(url).expect("a place"));
        assert_eq!(place("http://a.test"), ServiceIndex(2));
        assert_eq!(place("https://a.test:8443/prefix"), ServiceIndex(3));
        assert_eq!(place("http://a.test:80/"), ServiceIndex(2));
        assert_eq!(
            destinations.find("v2"),
            Err(Unreachable::Obstacle("has `enabled: false`"))
        );
    }
    #[test]
    fn a_place_outside_is_a_scheme_a_host_and_a_prefix() {
        let place = Outside::parse("https://[::1]/prefix").expect("a place");
        assert_eq!(
            place,
            Outside {
                is_encrypted: true,
                host: "[::1]".to_owned(),
                port: 443,
                path: Some("/prefix".to_owned()),
            }
        );
        for wrong in [
            "a.test",
            "ftp://a.test",
            "http://secret@a.test",
            "http://a.test?x",
            "http://a.test#x",
            "http://",
        ] {
            let message = Outside::parse(wrong).expect_err(wrong);
            assert!(!message.contains("secret"), "{message}");
        }
    }
}

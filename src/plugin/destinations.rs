//! Where plugins may send requests besides the service of a route. Collected while a configuration is
//! compiled; the services themselves are made afterwards, and no request looks here.

use std::collections::HashMap;

use uuid::Uuid;

use crate::entity::facts::ServiceIndex;

/// A service, as far as a plugin's configuration may name it.
#[derive(Debug, Clone)]
pub struct Destination {
    pub id: Uuid,
    pub name: Option<String>,
    /// Why no request can be sent to it, as a sentence about it; absent if it can.
    pub obstacle: Option<&'static str>,
}

/// All services, in their order.
#[derive(Debug, Default)]
pub struct Destinations {
    obstacles: Vec<Option<&'static str>>,
    by_name: HashMap<String, ServiceIndex>,
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
            let index = ServiceIndex(destinations.obstacles.len());
            destinations.obstacles.push(service.obstacle);
            let names = [Some(service.id.to_string()), service.name];
            for name in names.into_iter().flatten() {
                destinations.by_name.entry(name).or_insert(index);
            }
        }
        destinations
    }

    /// Finds a service by its name or id.
    pub(super) fn find(&self, name_or_id: &str) -> Result<ServiceIndex, Unreachable> {
        let index = self.by_name.get(name_or_id);
        let index = *index.ok_or(Unreachable::Unknown)?;
        match self.obstacles.get(index.0).copied().flatten() {
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
        };
        let destinations = Destinations::new([
            service(1, "v1", None),
            service(2, "v2", Some("has `enabled: false`")),
        ]);
        assert_eq!(destinations.find("v1"), Ok(ServiceIndex(0)));
        let id = Uuid::from_u128(1).to_string();
        assert_eq!(destinations.find(&id), Ok(ServiceIndex(0)));
        assert_eq!(destinations.find("v3"), Err(Unreachable::Unknown));
        assert_eq!(
            destinations.find("v2"),
            Err(Unreachable::Obstacle("has `enabled: false`"))
        );
    }
}

//! What plugins, logs and metrics may know of the route and service that a request takes.

use uuid::Uuid;

/// The names of a route.
#[derive(Debug, Clone)]
pub struct RouteFacts {
    pub id: Uuid,
    pub name: Option<String>,
    /// What metrics call it: its name, else its id.
    pub label: String,
    pub paths: Vec<String>,
    pub methods: Vec<String>,
    pub hosts: Vec<String>,
    pub tags: Vec<String>,
}

/// The place of a service in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceIndex(pub usize);

/// The names of a service.
#[derive(Debug, Clone)]
pub struct ServiceFacts {
    pub id: Uuid,
    pub name: Option<String>,
    /// What metrics call it: its name, else its host.
    pub label: String,
    pub host: String,
    pub port: u16,
    pub protocol: &'static str,
    pub path: Option<String>,
    pub tags: Vec<String>,
}

//! What plugins decide of a request's way upstream: plain values, which the proxy follows.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, header};
use tokio::sync::OwnedSemaphorePermit;

use super::CircuitGuard;
use crate::entity::facts::ServiceIndex;

/// What tells that a request is a copy.
pub const MIRRORED: HeaderName = HeaderName::from_static("x-tollgate-mirror");

/// Where a request goes on, and as what. At its default it goes as it came to the service of its route.
#[derive(Debug, Default)]
pub struct Directions {
    /// The query to send in place of the client's, without `?`; empty means none.
    pub query: Option<String>,
    /// The service to send it to in place of the route's.
    pub service: Option<ServiceIndex>,
    /// A copy to send elsewhere in the background, until it is begun.
    pub copy: Option<Box<Duplicate>>,
    /// The circuits of the addresses that it may go to.
    pub guard: Option<Arc<CircuitGuard>>,
}

/// A copy of one request.
#[derive(Debug)]
pub struct Duplicate {
    pub mirror: Arc<Mirror>,
    /// Given back when the copy is done with, whatever becomes of it.
    pub place: OwnedSemaphorePermit,
}

/// Where copies of requests go, and how.
#[derive(Debug)]
pub struct Mirror {
    pub service: ServiceIndex,
    /// Set on every copy.
    pub headers: Box<[(HeaderName, HeaderValue)]>,
    /// A request with a larger body is not copied.
    pub body_bytes_max: usize,
    /// For all of a copy: connecting, sending and the whole answer.
    pub timeout: Duration,
}

impl Mirror {
    /// Headers that a copy does not take over: they say where a message goes, how it is framed, and what
    /// concerns one connection.
    pub const OWN: [HeaderName; 8] = [
        header::HOST,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::EXPECT,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
}

/// What a plugin does with a request besides letting it pass, in an explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What decides, or what is done, as half a sentence: `rule 2, by weight`.
    pub by: String,
    /// The services that it chooses from; empty if it chooses none.
    pub prospects: Vec<Prospect>,
}

impl Choice {
    /// The service that is chosen most often, the first of several: the one to go on with in an explanation.
    pub fn likeliest(&self) -> Option<&Prospect> {
        // Of equals `max_by_key` gives the last.
        self.prospects
            .iter()
            .rev()
            .max_by_key(|prospect| prospect.weight)
    }
}

/// One of the services that a plugin may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prospect {
    /// Absent = that of the route.
    pub service: Option<ServiceIndex>,
    /// How often it is chosen, compared with the others.
    pub weight: u32,
}

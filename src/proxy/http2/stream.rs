//! What the steps of a request know of the HTTP/2 stream it came on, beside Pingora's session:
//! bytes counted, and a body that takes the place of the one on the stream.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;

use crate::proxy::exchange::Connection;

/// One stream of a connection.
#[derive(Debug)]
pub(in crate::proxy) struct Stream {
    pub connection: Arc<Connection>,
    received: AtomicU64,
    sent: AtomicU64,
    body: OnceLock<Bytes>,
}

impl Stream {
    /// A stream on which a head of `head_bytes` came.
    pub(super) fn new(connection: Arc<Connection>, head_bytes: u64) -> Self {
        Self {
            connection,
            received: AtomicU64::new(head_bytes),
            sent: AtomicU64::new(0),
            body: OnceLock::new(),
        }
    }

    /// Bytes received and sent so far: bodies, and heads as they are before they are compressed.
    pub(in crate::proxy) fn bytes(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.received), of(&self.sent))
    }

    /// Makes `body` the whole body of the request, in place of what is on the stream.
    pub(in crate::proxy) fn replace_body(&self, body: Bytes) {
        // A request is admitted once, so there is no other.
        let _ = self.body.set(body);
    }

    pub(super) fn replacement(&self) -> Option<&Bytes> {
        self.body.get()
    }

    pub(super) fn count_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

//! The series of streams: how they ended and how many bytes they carried, by service and route.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use super::{count::Count, families, held::Held, page::Page};

/// How a stream ended.
///
/// The codes are part of the product, like those of requests. The comment of each says when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    /// Both sides said that they have nothing more to say.
    Done,
    /// No route takes the connection.
    NoRoute,
    /// The route has no service.
    NoService,
    /// No target is available.
    NoTarget,
    /// No address is known for the name.
    NameResolution,
    /// The upstream could not be connected to.
    UpstreamConnect,
    /// Its certificate was not accepted.
    UpstreamUnverified,
    /// It did not take the connection in time.
    UpstreamTimeout,
    /// A side broke the connection off.
    Reset,
    /// No byte went in either direction for the time of the service.
    Idle,
    /// The TLS handshake of the client failed or took too long.
    Handshake,
}

impl Ending {
    /// Every way to end, in the order of the enum.
    pub const ALL: [Self; 11] = [
        Self::Done,
        Self::NoRoute,
        Self::NoService,
        Self::NoTarget,
        Self::NameResolution,
        Self::UpstreamConnect,
        Self::UpstreamUnverified,
        Self::UpstreamTimeout,
        Self::Reset,
        Self::Idle,
        Self::Handshake,
    ];

    /// The code as it appears in the log and in the metric label `ending`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NoRoute => "no_route",
            Self::NoService => "no_service",
            Self::NoTarget => "no_healthy_upstream",
            Self::NameResolution => "name_resolution",
            Self::UpstreamConnect => "upstream_connect",
            Self::UpstreamUnverified => "upstream_unverified",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::Reset => "reset",
            Self::Idle => "idle",
            Self::Handshake => "tls_handshake",
        }
    }

    /// The status that nginx would log.
    pub const fn status(self) -> u16 {
        match self {
            Self::Done | Self::Reset | Self::Idle => 200,
            Self::Handshake => 400,
            Self::UpstreamConnect | Self::UpstreamUnverified | Self::UpstreamTimeout => 502,
            Self::NoRoute | Self::NoService | Self::NoTarget | Self::NameResolution => 503,
        }
    }
}

/// The series of one (service label, route label).
#[derive(Debug, Default)]
pub struct StreamSeries {
    endings: [Count; Ending::ALL.len()],
    received: Count,
    sent: Count,
    open: AtomicI64,
}

/// A stream that goes on; dropped when it ends.
#[derive(Debug)]
pub struct OpenStream(Arc<StreamSeries>);

impl StreamSeries {
    /// Counts a stream as open until what this gives is dropped.
    pub fn begin(self: &Arc<Self>) -> OpenStream {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenStream(Arc::clone(self))
    }

    /// Counts an end, and the bytes that came from and went to the client.
    pub fn ended(&self, ending: Ending, received: u64, sent: u64) {
        if let Some(count) = self.endings.get(ending as usize) {
            count.inc();
        }
        self.received.add(received);
        self.sent.add(sent);
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All series of streams.
#[derive(Debug, Default)]
pub(super) struct Streams(Held<(String, String), StreamSeries>);

impl Streams {
    pub(super) fn of(&self, service: &str, route: &str) -> Arc<StreamSeries> {
        let key = (service.to_owned(), route.to_owned());
        self.0
            .get_or_create_with(&key.clone(), || Arc::new(key), |_| StreamSeries::default())
    }

    pub(super) fn write(&self, page: &mut Page) {
        let all = self.0.sorted();
        let mut sessions = page.family(&families::STREAM_SESSIONS);
        for (labels, series) in &all {
            let (service, route) = (labels.0.as_str(), labels.1.as_str());
            for (ending, count) in Ending::ALL.iter().zip(&series.endings) {
                if count.get() > 0 {
                    sessions.count(&[service, route, ending.code()], count.get());
                }
            }
        }
        sessions.end();
        let mut bytes = page.family(&families::STREAM_BYTES);
        for (labels, series) in &all {
            let (service, route) = (labels.0.as_str(), labels.1.as_str());
            bytes
                .count(&[service, route, "ingress"], series.received.get())
                .count(&[service, route, "egress"], series.sent.get());
        }
        bytes.end();
        let mut open = page.family(&families::STREAM_OPEN);
        for (labels, series) in &all {
            let (service, route) = (labels.0.as_str(), labels.1.as_str());
            let count = super::page::signed_number(series.open.load(Ordering::Relaxed));
            open.gauge(&[service, route], count);
        }
        open.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_stands_at_its_own_index_and_has_a_code_of_its_own() {
        let mut codes = std::collections::HashSet::new();
        for (index, ending) in Ending::ALL.iter().enumerate() {
            assert_eq!(*ending as usize, index);
            assert!(codes.insert(ending.code()), "{} twice", ending.code());
        }
    }
}

//! What the log tells of a stream.

use std::{
    borrow::Cow,
    io::Write,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::line::{Now, milliseconds};
use crate::{snapshot::AccessFormat, telemetry::streams::Ending};

/// One stream and how it ended.
#[derive(Debug)]
pub struct StreamEntry {
    pub format: AccessFormat,
    pub began: Instant,
    pub took: Duration,
    /// Whether the client speaks TLS.
    pub tls: bool,
    pub client_ip: IpAddr,
    /// Where the client connected to.
    pub local: SocketAddr,
    /// The name that it asked for.
    pub server_name: Option<Box<str>>,
    pub route: Option<Arc<str>>,
    pub service: Option<Arc<str>>,
    pub backend: Option<SocketAddr>,
    pub tries: u32,
    pub ending: Ending,
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

/// The line as JSON.
#[derive(Debug, Serialize)]
struct Line<'a> {
    timestamp: String,
    protocol: &'static str,
    client_ip: IpAddr,
    listener: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<&'a str>,
    status_code: u16,
    response_time_ms: f64,
    backend: Cow<'a, str>,
    error: &'static str,
    route: &'a str,
    service: &'a str,
    bytes_received: u64,
    bytes_sent: u64,
    tries: u32,
}

impl StreamEntry {
    const fn protocol(&self) -> &'static str {
        if self.tls { "tls" } else { "tcp" }
    }

    /// Appends the line for this stream, with its line break.
    pub(super) fn write_line(&self, now: Now, lines: &mut Vec<u8>) {
        let began = now.at(self.began);
        if self.format == AccessFormat::Plain {
            // What nginx writes for streams: seconds with three digits.
            let _ = writeln!(
                lines,
                "{} [{}] {} {} {} {} {:.3}",
                self.client_ip,
                began.format("%d/%b/%Y:%H:%M:%S +0000"),
                self.protocol().to_ascii_uppercase(),
                self.ending.status(),
                self.sent_bytes,
                self.received_bytes,
                self.took.as_secs_f64()
            );
            return;
        }
        let line = Line {
            timestamp: began.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            protocol: self.protocol(),
            client_ip: self.client_ip,
            listener: self.local,
            server_name: self.server_name.as_deref(),
            status_code: self.ending.status(),
            response_time_ms: milliseconds(self.took),
            backend: self
                .backend
                .map_or(Cow::Borrowed(""), |backend| Cow::Owned(backend.to_string())),
            error: match self.ending {
                Ending::Done => "",
                ending => ending.code(),
            },
            route: self.route.as_deref().unwrap_or_default(),
            service: self.service.as_deref().unwrap_or_default(),
            bytes_received: self.received_bytes,
            bytes_sent: self.sent_bytes,
            tries: self.tries,
        };
        serde_json::to_writer(&mut *lines, &line).expect("texts and numbers are always JSON");
        lines.push(b'\n');
    }
}

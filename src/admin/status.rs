//! `GET /status` and `GET /status/ready`.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, SecondsFormat, Utc};
use http::StatusCode;
use serde::Serialize;

use super::{Admin, Configuration, Reload, message};
use crate::telemetry::{Telemetry, process};

/// Kong's status document, and what we add to it.
#[derive(Debug, Serialize)]
struct Status {
    server: Server,
    memory: Memory,
    configuration_hash: String,
    configuration: Live,
}

#[derive(Debug, Serialize)]
struct Server {
    connections_active: u64,
    connections_reading: u64,
    connections_writing: u64,
    connections_waiting: u64,
    connections_accepted: u64,
    connections_handled: u64,
    total_requests: u64,
}

#[derive(Debug, Serialize)]
struct Memory {
    /// In bytes; absent where the system does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    resident: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Live {
    live_since: String,
    last_reload: Option<LastReload>,
}

#[derive(Debug, Serialize)]
struct LastReload {
    result: &'static str,
    at: String,
    diagnostics: Vec<String>,
}

/// `GET /status`.
pub(super) async fn show(State(admin): State<Admin>) -> Response {
    let Configuration {
        hash,
        live_since,
        last_reload,
    } = admin.facts.configuration();
    Json(Status {
        server: Server::of(&admin.telemetry),
        memory: Memory {
            resident: process::resident_bytes(),
        },
        configuration_hash: hash,
        configuration: Live {
            live_since: rfc3339(live_since),
            last_reload: last_reload.map(LastReload::from),
        },
    })
    .into_response()
}

/// `GET /status/ready`.
pub(super) async fn ready(State(admin): State<Admin>) -> Response {
    match admin.facts.readiness() {
        Ok(()) => message(StatusCode::OK, "ready"),
        Err(reason) => message(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

impl Server {
    fn of(telemetry: &Telemetry) -> Self {
        let counts = telemetry.connections().counts();
        Self {
            connections_active: counts.active(),
            connections_reading: counts.reading,
            connections_writing: counts.writing,
            connections_waiting: counts.waiting,
            connections_accepted: counts.accepted,
            connections_handled: counts.handled,
            total_requests: telemetry.requests_received(),
        }
    }
}

impl From<Reload> for LastReload {
    fn from(reload: Reload) -> Self {
        Self {
            result: if reload.refused.is_some() {
                "failure"
            } else {
                "success"
            },
            at: rfc3339(reload.at),
            diagnostics: reload.refused.unwrap_or_default(),
        }
    }
}

/// `2025-01-31T12:00:00Z`; empty for a time that no calendar knows.
pub(super) fn rfc3339(unix_seconds: i64) -> String {
    DateTime::<Utc>::from_timestamp(unix_seconds, 0).map_or_else(String::new, |time| {
        time.to_rfc3339_opts(SecondsFormat::Secs, true)
    })
}

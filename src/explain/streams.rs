//! What becomes of a connection to `stream_listen`, and why.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{
    Subject, Unanswerable,
    document::{Matched, NearMiss, Service},
    upstream,
};
use crate::{
    router::streams::{
        Arrived, Way,
        reasons::{Condition, Findings, Loser, LossReason},
    },
    snapshot::Snapshot,
};

/// How many other routes are shown unless all are asked for.
const NEAR_MISSES_MAX: usize = 10;

/// A question: what becomes of this connection?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamQuestion {
    /// `tcp://host:port` or `tls://host:port`: a name is the one that the client asks for in its handshake, an address
    /// the one that it connects to.
    pub url: String,
    /// Where it comes from; absent = 127.0.0.1.
    #[serde(default)]
    pub client_ip: Option<IpAddr>,
    /// From which port; absent = none that a route could mean.
    #[serde(default)]
    pub client_port: Option<u16>,
    /// The server name, where it is not the host; empty: none.
    #[serde(default)]
    pub sni: Option<String>,
    /// Lists every route that lost, not only the nearest.
    #[serde(default)]
    pub all: bool,
}

/// An address of `stream_listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamListener {
    pub address: SocketAddr,
    pub tls: bool,
}

/// What the gateway does with a connection, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamExplanation {
    /// The hash of the configuration that it is about, as `/status` shows it.
    pub configuration_hash: String,
    pub connection: Connection,
    /// The route that takes it.
    pub route: Option<StreamRoute>,
    /// Other routes, the nearest first.
    pub near_misses: Vec<NearMiss>,
    /// How many other routes are not listed.
    pub near_misses_omitted: usize,
    /// The service that it goes to.
    pub service: Option<Service>,
    /// What else is worth knowing, in sentences.
    pub notes: Vec<String>,
}

/// A connection as the gateway sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// As it was asked.
    pub url: String,
    /// The address, with the port if one was given.
    pub source: String,
    /// Where it arrives.
    pub destination: String,
    /// The address of `stream_listen` that takes it.
    pub listener: Option<String>,
    /// Whether the listener reads a `ClientHello`.
    pub tls: bool,
    /// The name in that.
    pub server_name: Option<String>,
}

/// The route that a connection takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRoute {
    /// Its name, else its id.
    pub label: String,
    /// `FILE:LINE:COLUMN`.
    pub place: String,
    /// The protocol by which it is taken: `tcp`, `tls` or `tls_passthrough`.
    pub protocol: String,
    /// How each of its conditions is met.
    pub matched: Vec<Matched>,
    /// Why it comes before every other route.
    pub first_because: String,
}

/// Answers `question` about the configuration in `subject`.
///
/// # Errors
/// When the question makes no sense for this configuration.
pub fn explain_stream(
    subject: Subject<'_>,
    question: &StreamQuestion,
) -> Result<StreamExplanation, Unanswerable> {
    let snapshot = subject.snapshot;
    let url = Url::read(&question.url)?;
    let mut notes = Vec::new();
    let met = Meeting::find(&url, &subject.listening.streams, &mut notes)?;
    let ip = question
        .client_ip
        .unwrap_or_else(|| Ipv4Addr::LOCALHOST.into());
    let source = SocketAddr::new(ip.to_canonical(), question.client_port.unwrap_or(0));
    let server_name = match &question.sni {
        Some(name) => Some(name.as_str()).filter(|name| !name.is_empty()),
        None => url.name(),
    };
    let server_name = server_name
        .filter(|_| met.tls)
        .map(|name| name.trim_end_matches('.').to_ascii_lowercase());
    let findings = snapshot.streams.router.explain(&Arrived {
        source,
        destination: met.destination,
        tls: met.tls,
        server_name: server_name.as_deref(),
    });
    let service = findings.winner.and_then(|(route, _)| {
        let route = snapshot.streams.routes.get(route)?;
        upstream::service_of_stream(subject, route.service?, source.ip())
    });
    if findings.winner.is_none() {
        notes.push("no route takes the connection, so it is closed".to_owned());
    } else if service.is_none() {
        notes.push("the route has no service, so the connection is closed".to_owned());
    }
    let (near_misses, near_misses_omitted) = near_misses(snapshot, &findings, question.all);
    Ok(StreamExplanation {
        configuration_hash: snapshot.hash.clone(),
        connection: Connection {
            url: question.url.clone(),
            source: match question.client_port {
                Some(_) => source.to_string(),
                None => source.ip().to_string(),
            },
            destination: met.destination.to_string(),
            listener: met.listener.map(|address| address.to_string()),
            tls: met.tls,
            server_name,
        },
        route: route(snapshot, &findings),
        near_misses,
        near_misses_omitted,
        service,
        notes,
    })
}

/// The parts of a URL.
#[derive(Debug, PartialEq, Eq)]
struct Url<'u> {
    tls: bool,
    /// Without brackets.
    host: &'u str,
    ip: Option<IpAddr>,
    port: Option<u16>,
}

impl<'u> Url<'u> {
    fn read(written: &'u str) -> Result<Self, Unanswerable> {
        let wrong = || Unanswerable::StreamUrl(written.to_owned());
        let (scheme, rest) = written.split_once("://").ok_or_else(wrong)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "tcp" => false,
            "tls" => true,
            _ => return Err(wrong()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let is_odd = |byte: char| byte.is_control() || matches!(byte, '/' | '?' | '#' | '@' | ' ');
        if rest.is_empty() || rest.contains(is_odd) {
            return Err(wrong());
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, behind) = rest.split_once(']').ok_or_else(wrong)?;
                (host, behind.strip_prefix(':'))
            }
            None => match rest.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port: Option<u16> = port.map(str::parse).transpose().map_err(|_| wrong())?;
        let ip: Option<IpAddr> = host.parse().ok();
        // Without brackets nobody knows where an address ends and a port begins.
        if host.is_empty() || (host.contains(':') && !rest.starts_with('[')) {
            return Err(wrong());
        }
        Ok(Self {
            tls,
            host,
            ip,
            port,
        })
    }

    /// The host, unless it is an address.
    fn name(&self) -> Option<&'u str> {
        self.ip.is_none().then_some(self.host)
    }
}

/// Where a connection arrives.
struct Meeting {
    destination: SocketAddr,
    listener: Option<SocketAddr>,
    tls: bool,
}

impl Meeting {
    fn find(
        url: &Url<'_>,
        listeners: &[StreamListener],
        notes: &mut Vec<String>,
    ) -> Result<Self, Unanswerable> {
        let takes = |listener: &&StreamListener| {
            let (own, ip) = (listener.address.ip(), url.ip);
            let is_there = ip.is_none_or(|ip| {
                own == ip || (own.is_unspecified() && own.is_ipv4() == ip.is_ipv4())
            });
            is_there && url.port.is_none_or(|port| listener.address.port() == port)
        };
        let mut found: Vec<&StreamListener> = listeners.iter().filter(takes).collect();
        // Stable, so that of those which the scheme fits the first one counts; one at the very address goes before.
        found.sort_by_key(|listener| {
            (
                listener.tls != url.tls,
                listener.address.ip().is_unspecified(),
            )
        });
        let Some(listener) = found.first() else {
            let port = url.port.ok_or(Unanswerable::StreamPort)?;
            notes.push(
                "no address of `stream_listen` takes this connection: this is what one would do that did"
                    .to_owned(),
            );
            let ip = url.ip.unwrap_or_else(|| Ipv4Addr::LOCALHOST.into());
            return Ok(Self {
                destination: SocketAddr::new(ip, port),
                listener: None,
                tls: url.tls,
            });
        };
        if listener.tls && !url.tls {
            notes.push(format!(
                "{} has `ssl`: a client that does not speak TLS there is not served",
                listener.address
            ));
        } else if url.tls && !listener.tls {
            notes.push(format!(
                "{} has no `ssl`: TLS goes through it like any other bytes, and its server name is not looked at",
                listener.address
            ));
        }
        let own = listener.address.ip();
        let ip = url.ip.unwrap_or_else(|| match own {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            _ => own,
        });
        Ok(Self {
            destination: SocketAddr::new(ip, listener.address.port()),
            listener: Some(listener.address),
            tls: listener.tls,
        })
    }
}

fn route(snapshot: &Snapshot, findings: &Findings) -> Option<StreamRoute> {
    let (index, way) = findings.winner?;
    let matched = |condition: &Condition| Matched {
        attribute: condition.attribute.to_owned(),
        by: condition.wanted.join(", "),
        sentence: condition.to_string(),
        captures: Vec::new(),
    };
    Some(StreamRoute {
        label: snapshot.streams.routes.get(index)?.label.to_string(),
        place: place(snapshot, index),
        protocol: Way::as_str(way).to_owned(),
        matched: findings.met.iter().map(matched).collect(),
        first_because: first_because(snapshot, findings),
    })
}

fn first_because(snapshot: &Snapshot, findings: &Findings) -> String {
    let mut rivals = findings.losers.iter().filter_map(|loser| {
        let LossReason::Outranked(reason) = &loser.reason else {
            return None;
        };
        Some((loser.route, reason))
    });
    let Some((next, reason)) = rivals.next() else {
        return "no other route matches".to_owned();
    };
    let label = snapshot
        .streams
        .routes
        .get(next)
        .map_or("?", |route| &route.label);
    match rivals.count() {
        0 => format!("1 other route matches, {label}: {reason}"),
        more => format!(
            "{} other routes match; the next is {label}: {reason}",
            more + 1
        ),
    }
}

/// The nearest first: those that match, then those with the fewest conditions that fail.
fn near_misses(snapshot: &Snapshot, findings: &Findings, all: bool) -> (Vec<NearMiss>, usize) {
    let lacking = |loser: &&Loser| match &loser.reason {
        LossReason::Outranked(_) => 0,
        LossReason::Mismatched(conditions) => conditions.len(),
    };
    let mut losers: Vec<&Loser> = findings.losers.iter().collect();
    losers.sort_by_key(lacking);
    let total = losers.len();
    if !all {
        losers.truncate(NEAR_MISSES_MAX);
    }
    let omitted = total - losers.len();
    let near_miss = |loser: &Loser| {
        let route = snapshot.streams.routes.get(loser.route)?;
        Some(NearMiss {
            label: route.label.to_string(),
            place: place(snapshot, loser.route),
            matches: matches!(loser.reason, LossReason::Outranked(_)),
            reasons: match &loser.reason {
                LossReason::Outranked(reason) => vec![reason.to_string()],
                LossReason::Mismatched(all) => all.iter().map(ToString::to_string).collect(),
            },
        })
    };
    (losers.into_iter().filter_map(near_miss).collect(), omitted)
}

fn place(snapshot: &Snapshot, route: usize) -> String {
    let origins = &snapshot.origins;
    let place = origins.streams.get(route);
    place.map_or_else(String::new, |place| origins.shown(*place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_scheme_a_host_and_maybe_a_port() {
        let url = |written| Url::read(written).expect("a URL");
        assert_eq!(
            url("tls://db.test:5432"),
            Url {
                tls: true,
                host: "db.test",
                ip: None,
                port: Some(5432)
            }
        );
        let found = url("tcp://[::1]:80/");
        assert_eq!(
            (found.ip, found.port),
            (Some("::1".parse().expect("IP")), Some(80))
        );
        assert_eq!(found.name(), None);
        assert_eq!(url("TCP://10.0.0.1").port, None);
        for wrong in [
            "http://a:1",
            "tls://",
            "tls://:1",
            "tls://a:x",
            "tcp://a/b",
            "a:1",
            "tls://a b",
            "tcp://::1:80",
        ] {
            assert!(Url::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_connection_meets_the_listener_that_its_port_and_address_lead_to() {
        let listener = |address: &str, tls| StreamListener {
            address: address.parse().expect("an address"),
            tls,
        };
        let listeners = [
            listener("0.0.0.0:5432", false),
            listener("10.0.0.1:5433", true),
            listener("0.0.0.0:5433", true),
        ];
        let meet = |url: &str| {
            let mut notes = Vec::new();
            let url = Url::read(url).expect("a URL");
            let met = Meeting::find(&url, &listeners, &mut notes).expect("a listener");
            let listener = met.listener.map(|address| address.to_string());
            (met.destination.to_string(), listener, met.tls, notes.len())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            meet("tcp://db.test:5432"),
            ("127.0.0.1:5432".to_owned(), some("0.0.0.0:5432"), false, 0)
        );
        assert_eq!(
            meet("tls://10.0.0.1:5433"),
            ("10.0.0.1:5433".to_owned(), some("10.0.0.1:5433"), true, 0)
        );
        assert_eq!(
            meet("tls://10.0.0.2:5433"),
            ("10.0.0.2:5433".to_owned(), some("0.0.0.0:5433"), true, 0)
        );
        assert_eq!(meet("tls://db.test").0, "10.0.0.1:5433");
        assert_eq!(
            meet("tls://db.test:5432"),
            ("127.0.0.1:5432".to_owned(), some("0.0.0.0:5432"), false, 1)
        );
        assert_eq!(
            meet("tls://db.test:1"),
            ("127.0.0.1:1".to_owned(), None, true, 1)
        );
        let nowhere = Url::read("tls://db.test").expect("a URL");
        let found = Meeting::find(&nowhere, &[], &mut Vec::new());
        assert_eq!(found.err(), Some(Unanswerable::StreamPort));
    }
}

//! Where a request goes, and what arrives there.

use std::{net::IpAddr, time::Duration};

use http::HeaderName;

use super::{
    FRESH, Subject,
    document::{Address, Change, Sent, Service, Target, Upstream},
    shown,
};
use crate::{
    entity::message::{Headers, RequestHead},
    proxy::{
        access_log::masked,
        rehearse::{Rehearsal, parse},
    },
    snapshot::Snapshot,
    upstream::{
        Algorithm, Balancer, Key,
        algorithm::Input,
        health::survey::{TargetSurvey, UpstreamSurvey},
    },
};

/// How many targets are listed.
const TARGETS_MAX: usize = 100;

pub(super) fn service(subject: Subject<'_>, rehearsal: &Rehearsal) -> Option<Service> {
    let snapshot = subject.snapshot;
    let index = rehearsal.service_index()?;
    let service = rehearsal.service()?;
    let balancer = &service.balancer;
    let host = |target: &crate::upstream::Target| rehearsal.host_for(target).unwrap_or_default();
    let choice = choice(rehearsal, balancer);
    Some(described(
        snapshot,
        index,
        service,
        upstream(subject, balancer, choice, host),
    ))
}

/// The service of a connection from `client`.
pub(super) fn service_of_stream(
    subject: Subject<'_>,
    index: usize,
    client: IpAddr,
) -> Option<Service> {
    let snapshot = subject.snapshot;
    let service = snapshot.services.get(index)?;
    let balancer = &service.balancer;
    let choice = choice_of_stream(client, balancer);
    let upstream = upstream(subject, balancer, choice, |_| String::new());
    Some(described(snapshot, index, service, upstream))
}

fn described(
    snapshot: &Snapshot,
    index: usize,
    service: &crate::snapshot::Service,
    upstream: Upstream,
) -> Service {
    let origins = &snapshot.origins;
    let place = origins.services.get(index);
    Service {
        label: service.facts.label.clone(),
        id: service.facts.id.to_string(),
        name: service.facts.name.clone(),
        place: place.map_or_else(String::new, |place| origins.shown(*place)),
        protocol: service.protocol.as_str().to_owned(),
        path: service.path.clone(),
        retries: service.retries,
        connect_timeout_ms: milliseconds(service.timeouts.connect),
        write_timeout_ms: milliseconds(service.timeouts.write),
        read_timeout_ms: milliseconds(service.timeouts.read),
        upstream,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn upstream(
    subject: Subject<'_>,
    balancer: &Balancer,
    choice: String,
    host: impl Fn(&crate::upstream::Target) -> String,
) -> Upstream {
    let snapshot = subject.snapshot;
    let mut upstreams = snapshot.upstreams.iter().zip(&snapshot.origins.upstreams);
    let place = upstreams
        .find(|(upstream, _)| std::ptr::eq(&raw const ***upstream, balancer))
        .map(|(_, place)| snapshot.origins.shown(*place));
    let survey = subject.is_live.then(|| UpstreamSurvey::of(balancer));
    let targets = balancer.targets().iter();
    let targets: Vec<_> = targets.filter(|target| !target.is_replaced()).collect();
    Upstream {
        name: balancer.name.clone(),
        place,
        algorithm: balancer.algorithm().as_str().to_owned(),
        choice,
        targets: targets
            .iter()
            .take(TARGETS_MAX)
            .enumerate()
            .map(|(place, target)| Target {
                target: target.label.to_string(),
                weight: target.weight,
                host: host(target),
                addresses: survey
                    .as_ref()
                    .and_then(|survey| survey.targets.get(place))
                    .map_or_else(Vec::new, addresses),
            })
            .collect(),
        targets_omitted: targets.len().saturating_sub(TARGETS_MAX),
    }
}

fn addresses(target: &TargetSurvey) -> Vec<Address> {
    if target.addresses.is_empty() {
        return vec![Address {
            address: String::new(),
            health: target.state().as_str().to_owned(),
            weight_percent: 0,
            requests: 0,
            latency_ms: None,
        }];
    }
    target
        .addresses
        .iter()
        .map(|known| Address {
            address: known.address.to_string(),
            health: known.state.as_str().to_owned(),
            weight_percent: known.weight_percent,
            requests: known.under_way,
            latency_ms: known.latency_ms.map(whole),
        })
        .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and a latency is never negative"
)]
fn whole(milliseconds: f64) -> u64 {
    milliseconds.round() as u64
}

const IN_TURN: &str = "the next in turn, by weight";
const FEWEST: &str = "the one with the fewest requests under way for its weight";
const SOONER: &str = "of two drawn at random the one that answers sooner, with what is under way there, for its weight";

fn found(balancer: &Balancer, key: Key) -> String {
    match balancer.peek(key) {
        Some(member) if *member.label == *member.address.to_string() => member.label.to_string(),
        Some(member) => format!("{} ({})", member.label, member.address),
        None => "no target".to_owned(),
    }
}

/// What decides which target a connection gets.
fn choice_of_stream(client: IpAddr, balancer: &Balancer) -> String {
    let algorithm = balancer.algorithm();
    match (algorithm, algorithm.key_of_stream(client)) {
        (Algorithm::LeastConnections, _) => FEWEST.to_owned(),
        (Algorithm::Latency, _) => SOONER.to_owned(),
        (_, Key::Nothing) => IN_TURN.to_owned(),
        (_, key) => format!("{} leads to {}", named(&Input::Ip), found(balancer, key)),
    }
}

/// What decides which target the request gets.
fn choice(rehearsal: &Rehearsal, balancer: &Balancer) -> String {
    let (key, input) = rehearsal.target_key().unwrap_or_default();
    let found = || found(balancer, key);
    match balancer.algorithm() {
        Algorithm::RoundRobin => IN_TURN.to_owned(),
        Algorithm::LeastConnections => FEWEST.to_owned(),
        Algorithm::Latency => SOONER.to_owned(),
        Algorithm::ConsistentHashing(_) => match input {
            Some(Input::Cookie(cookie)) if !rehearsal.has_cookie(&cookie.name) => format!(
                "the request has no cookie `{}` and gets a new one, whose value decides",
                cookie.name
            ),
            Some(input) => format!("{} leads to {}", named(input), found()),
            None => {
                "the request has nothing of what is hashed: the next in turn, by weight".to_owned()
            }
        },
        Algorithm::StickySessions(cookie) => match balancer.peek(key) {
            Some(_) => format!("the cookie `{}` names {}", cookie.name, found()),
            None if rehearsal.has_cookie(&cookie.name) => format!(
                "the cookie `{}` names none that is usable: the next in turn, by weight, and a new cookie",
                cookie.name
            ),
            None => format!(
                "there is no cookie `{}`: the next in turn, by weight, and a new cookie",
                cookie.name
            ),
        },
    }
}

fn named(input: &Input) -> String {
    match input {
        Input::Consumer => "the consumer or credential".to_owned(),
        Input::Ip => "the address of the client".to_owned(),
        Input::Header(name) => format!("the header `{name}`"),
        Input::Cookie(cookie) => format!("the cookie `{}`", cookie.name),
        Input::Path => "the path".to_owned(),
        Input::QueryArg(name) => format!("the argument `{name}`"),
        Input::UriCapture(group) => format!("the capture `{group}`"),
    }
}

/// What the target gets that the request leads to, else the first with a weight. `again` is a second rehearsal of the same request:
/// what differs from it is made anew for each.
pub(super) fn sent(
    snapshot: &Snapshot,
    rehearsal: &mut Rehearsal,
    again: &mut Rehearsal,
    bytes: &[u8],
) -> Option<Sent> {
    let service = rehearsal.service()?;
    let scheme = service.protocol.as_str();
    let targets = service.balancer.targets();
    let key = rehearsal.target_key().map(|(key, _)| key);
    let led_to = key.and_then(|key| service.balancer.peek(key));
    let first = || targets.iter().position(|target| target.weight > 0);
    let place = led_to
        .map(|member| member.target)
        .or_else(first)
        .unwrap_or(0);
    let to = targets.get(place)?.label.to_string();
    let head = rehearsal.sent_to(place)?;
    let other = again.sent_to(place)?;
    let client = parse(bytes)?;
    let secret = &snapshot.secret_arguments;
    let value = |name: &HeaderName| {
        if head.headers.get(name) == other.headers.get(name) {
            shown(&head.headers, name, secret)
        } else {
            FRESH.to_owned()
        }
    };
    let target = masked(&request_target(&head), secret).into_owned();
    Some(Sent {
        method: head.method.to_string(),
        url: format!("{scheme}://{to}{target}"),
        to,
        target,
        headers: head
            .headers
            .keys()
            .map(|name| (name.to_string(), value(name)))
            .collect(),
        changes: changes(&client.headers, &head.headers, secret, value),
    })
}

fn request_target(head: &RequestHead) -> String {
    head.uri
        .path_and_query()
        .map_or_else(String::new, ToString::to_string)
}

fn changes(
    client: &Headers,
    upstream: &Headers,
    secret: &[String],
    value: impl Fn(&HeaderName) -> String,
) -> Vec<Change> {
    let mut names: Vec<&HeaderName> = client.keys().collect();
    names.extend(upstream.keys().filter(|name| !client.contains_key(*name)));
    names
        .into_iter()
        .filter(|name| !client.get_all(*name).eq(upstream.get_all(*name)))
        .map(|name| Change {
            name: name.to_string(),
            from: client
                .contains_key(name)
                .then(|| shown(client, name, secret)),
            to: upstream.contains_key(name).then(|| value(name)),
        })
        .collect()
}

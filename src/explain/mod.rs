//! What the gateway does with a request, and why: the request is rehearsed with the code of live
//! ones, and what came of it is put into words. Nothing is decided here.

mod document;
mod plugins;
mod question;
mod routes;
mod streams;
mod upstream;

use std::sync::Arc;

use http::HeaderName;

pub use document::{
    Access, Address, Answer, Change, Explanation, ForConsumer, Idle, IdlePlugin, Matched, NearMiss,
    Plugin, Request, Route, Sent, Service, Share, Target, Upstream,
};
use question::Asked;
pub use question::{Question, Unanswerable};
pub use streams::{StreamExplanation, StreamListener, StreamQuestion, explain_stream};

use crate::{
    entity::{consumer::Consumer, message::Headers},
    plugin::{Body, Scheme, is_credential},
    proxy::{
        access_log::masked,
        rehearse::{AnsweredBy, Rehearsal, rehearse},
    },
    snapshot::Snapshot,
    state::State,
};

/// What stands in place of a credential.
pub const MASK: &str = "***";
/// What stands in place of a value that is made anew for each request.
pub const FRESH: &str = "(new for each request)";

/// What an explanation is made from.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub snapshot: &'a Arc<Snapshot>,
    pub state: &'a State,
    pub listening: &'a Listening,
    /// Whether `state` is that of a running process, which knows addresses and their health.
    pub is_live: bool,
}

/// Where clients come in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listening {
    /// The ports for requests, in their order.
    pub ports: Vec<u16>,
    /// Whether one of these speaks TLS.
    pub has_tls: bool,
    /// The addresses for streams.
    pub streams: Vec<StreamListener>,
}

/// Answers `question` about the configuration in `subject`.
///
/// It looks at every route, so its cost grows with their number: some milliseconds for 10,000.
///
/// # Errors
/// When the question makes no sense for this configuration.
pub fn explain(subject: Subject<'_>, question: &Question) -> Result<Explanation, Unanswerable> {
    answer_with(subject, question, |snapshot, rehearsal| Reasons {
        routes: routes::explain(snapshot, rehearsal, question.all),
        idle: plugins::idle(snapshot, rehearsal),
    })
}

/// Answers `question` as [`explain`] does, but without the why: the route has no reasons, and there
/// are no near misses and no idle plugins. It costs about as much as a request, however many
/// routes there are.
///
/// # Errors
/// When the question makes no sense for this configuration.
pub fn foretell(subject: Subject<'_>, question: &Question) -> Result<Explanation, Unanswerable> {
    answer_with(subject, question, |snapshot, rehearsal| Reasons {
        routes: routes::winner_alone(snapshot, rehearsal),
        idle: plugins::IdlePlugins::default(),
    })
}

/// What only those want to know who ask why.
struct Reasons {
    routes: routes::Routes,
    idle: plugins::IdlePlugins,
}

fn answer_with(
    subject: Subject<'_>,
    question: &Question,
    reasons: impl FnOnce(&Snapshot, &Rehearsal) -> Reasons,
) -> Result<Explanation, Unanswerable> {
    let Subject {
        snapshot, state, ..
    } = subject;
    let asked = Asked::read(question, snapshot, &subject.listening.ports)?;
    let rehearse = || rehearse(Arc::clone(snapshot), state, &asked.bytes, &asked.visitor);
    let mut rehearsal = rehearse();
    let Reasons { routes, idle } = reasons(snapshot, &rehearsal);
    let sent = upstream::sent(snapshot, &mut rehearsal, &mut rehearse(), &asked.bytes);
    Ok(Explanation {
        configuration_hash: snapshot.hash.clone(),
        request: request(snapshot, &rehearsal, question),
        route: routes.winner,
        near_misses: routes.near_misses,
        near_misses_omitted: routes.omitted,
        plugins: plugins::running(snapshot, &rehearsal),
        idle_plugins: idle.list,
        idle_plugins_omitted: idle.omitted,
        answer: answer(snapshot, &rehearsal),
        service: upstream::service(subject, &rehearsal),
        sent,
        notes: notes(subject, &rehearsal, question),
    })
}

fn request(snapshot: &Snapshot, rehearsal: &Rehearsal, question: &Question) -> Request {
    let key = rehearsal.key();
    let consumer = rehearsal
        .consumer()
        .and_then(|index| snapshot.consumers.get(index));
    let is_read = !matches!(
        rehearsal.answer.as_ref().map(|answer| answer.by),
        Some(AnsweredBy::Head(_))
    );
    Request {
        method: question.method.clone(),
        scheme: rehearsal.scheme().as_str().to_owned(),
        host: key.host.to_owned(),
        port: key.port,
        url: masked(&question.url, &snapshot.secret_arguments).into_owned(),
        path: if is_read {
            String::from_utf8_lossy(key.path).into_owned()
        } else {
            String::new()
        },
        client_ip: rehearsal.client().ip.to_string(),
        trusted: rehearsal.is_trusted(),
        consumer: consumer.map(Consumer::label),
    }
}

fn answer(snapshot: &Snapshot, rehearsal: &Rehearsal) -> Option<Answer> {
    let answer = rehearsal.answer.as_ref()?;
    let by = match answer.by {
        AnsweredBy::Head(detail) => format!("the reading of the request: {detail}"),
        AnsweredBy::Receive => "the limits of the gateway".to_owned(),
        AnsweredBy::Route => "routing".to_owned(),
        AnsweredBy::Plugin(instance) => snapshot
            .instances
            .get(instance.0 as usize)
            .map_or("a plugin", |instance| instance.name())
            .to_owned(),
        AnsweredBy::NoService => "the route, which has no service".to_owned(),
    };
    let headers = answer.reply.headers.iter();
    Some(Answer {
        status: answer.reply.status,
        reason: answer.reply.reason.code().to_owned(),
        by,
        message: match &answer.reply.body {
            Body::Message(message) => message.to_string(),
            Body::Raw { .. } | Body::Empty => String::new(),
        },
        headers: headers
            .map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes());
                (name.to_string(), value.into_owned())
            })
            .collect(),
    })
}

fn notes(subject: Subject<'_>, rehearsal: &Rehearsal, question: &Question) -> Vec<String> {
    let snapshot = subject.snapshot;
    let mut notes = Vec::new();
    let is_secure = rehearsal.scheme() == Scheme::Https && !rehearsal.is_trusted();
    if is_secure && !subject.listening.has_tls {
        notes.push(
            "taken to be https although no listener speaks TLS: a live request is, if an address in `trusted_ips` says so with X-Forwarded-Proto"
                .to_owned(),
        );
    }
    if let Some(consumer) = &question.consumer
        && rehearsal.consumer().is_none()
        && rehearsal.answer.is_none()
    {
        notes.push(format!(
            "no plugin of this route finds consumers, so the request is not known to be from `{consumer}`"
        ));
    }
    let streams = &snapshot.streams.routes;
    if rehearsal.route_index().is_none() && !streams.is_empty() {
        let shown: Vec<&str> = streams
            .iter()
            .take(UNSERVED_MAX)
            .map(|route| &*route.label)
            .collect();
        let rest = match streams.len().saturating_sub(UNSERVED_MAX) {
            0 => String::new(),
            rest => format!(" and {rest} more"),
        };
        notes.push(format!(
            "not asked, for they take connections of `stream_listen` rather than requests (ask with `tls://HOST:PORT` or `tcp://HOST:PORT`): {}{rest}",
            shown.join(", ")
        ));
    }
    let unserved = &snapshot.origins.unserved;
    if rehearsal.route_index().is_none() && !unserved.is_empty() {
        let shown: Vec<String> = unserved
            .iter()
            .take(UNSERVED_MAX)
            .map(|route| {
                let service = snapshot.services.get(route.service as usize);
                format!(
                    "{} ({}, service {})",
                    route.label,
                    snapshot.origins.shown(route.place),
                    service.map_or("?", |service| &service.facts.label)
                )
            })
            .collect();
        let rest = match unserved.len().saturating_sub(UNSERVED_MAX) {
            0 => String::new(),
            rest => format!(" and {rest} more"),
        };
        notes.push(format!(
            "not served, for their services have `enabled: false`: {}{rest}",
            shown.join(", ")
        ));
    }
    notes
}

/// How many routes of disabled services, or of streams, are named.
const UNSERVED_MAX: usize = 5;

/// The lines of `name` as one text, masked if they may hold a credential.
fn shown(headers: &Headers, name: &HeaderName, secret: &[String]) -> String {
    if is_credential(name, secret) {
        return MASK.to_owned();
    }
    let lines = headers.get_all(name);
    let lines: Vec<_> = lines
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    lines.join(", ")
}

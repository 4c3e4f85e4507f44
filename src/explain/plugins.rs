//! The plugins that run for a request, in order, and those that are written for it and do not.

use super::document::{Access, ForConsumer, Idle, IdlePlugin, Plugin, Share};
use crate::{
    chain::{self, Chain, InstanceIndex, Link, Step},
    entity::consumer::{Consumer, ConsumerIndex, GroupIndex},
    plugin::{Body, Choice, Scheme},
    proxy::rehearse::Rehearsal,
    snapshot::{PluginOrigin, Snapshot},
};

/// How many consumers are named that have a plugin of their own.
const CONSUMERS_MAX: usize = 10;
/// How many plugins are shown that do not run.
const IDLE_MAX: usize = 20;

/// Plugins that do not run for a request.
#[derive(Debug, Default)]
pub(super) struct IdlePlugins {
    pub(super) list: Vec<IdlePlugin>,
    pub(super) omitted: usize,
}

/// The plugins that run, in order.
pub(super) fn running(snapshot: &Snapshot, rehearsal: &Rehearsal) -> Vec<Plugin> {
    let chain = snapshot.chain(rehearsal.chain());
    let running = rehearsal.steps.iter();
    running
        .filter_map(|step| plugin(snapshot, rehearsal, chain, step))
        .collect()
}

fn plugin(
    snapshot: &Snapshot,
    rehearsal: &Rehearsal,
    chain: &Chain,
    step: &Step,
) -> Option<Plugin> {
    let origin = snapshot.origins.of_instance(step.instance)?;
    let link = link_of(snapshot, chain, origin);
    let others = others(snapshot, rehearsal, link, step.instance);
    let (access, detail) = access(snapshot, rehearsal, step);
    Some(Plugin {
        name: origin.name().to_owned(),
        priority: origin.priority(),
        scope: origin.scope(snapshot),
        place: snapshot.origins.shown(origin.place),
        access,
        detail,
        choices: match &step.access {
            chain::Access::Chooses(choice) => shares(snapshot, rehearsal, choice),
            _ => Vec::new(),
        },
        consumers_omitted: others.len().saturating_sub(CONSUMERS_MAX),
        consumers: others
            .into_iter()
            .take(CONSUMERS_MAX)
            .filter_map(|(consumer, instance)| for_consumer(snapshot, consumer, instance))
            .collect(),
    })
}

/// The link of the chain that stands for the plugin of `origin`.
fn link_of<'c>(snapshot: &Snapshot, chain: &'c Chain, origin: &PluginOrigin) -> Option<&'c Link> {
    chain.links().iter().find(|link| {
        link.instances()
            .next()
            .and_then(|instance| snapshot.instances.get(instance.0 as usize))
            .is_some_and(|instance| instance.name() == origin.name())
    })
}

/// The consumers and the groups of consumers for whom another instance than `running` runs, by what they are called:
/// first the consumers. None where the consumer is known, or no plugin looks for one.
fn others(
    snapshot: &Snapshot,
    rehearsal: &Rehearsal,
    link: Option<&Link>,
    running: InstanceIndex,
) -> Vec<(String, InstanceIndex)> {
    let Some(link) = link.filter(|_| may_be_anybodys(rehearsal)) else {
        return Vec::new();
    };
    let consumers = link.consumers().into_iter().filter_map(|index| {
        let consumer = snapshot.consumers.get(index)?;
        let instance = link.pick(snapshot.consumers.caller(Some(index)))?;
        Some((consumer.label(), instance))
    });
    let groups = link.groups().into_iter().filter_map(|index| {
        let group = snapshot.consumers.group(index)?;
        Some((format!("group {}", group.name), link.pick_for_group(index)?))
    });
    consumers
        .chain(groups)
        .filter(|(_, instance)| *instance != running)
        .collect()
}

fn for_consumer(
    snapshot: &Snapshot,
    consumer: String,
    instance: InstanceIndex,
) -> Option<ForConsumer> {
    let origin = snapshot.origins.of_instance(instance)?;
    Some(ForConsumer {
        consumer,
        scope: origin.scope(snapshot),
        place: snapshot.origins.shown(origin.place),
    })
}

fn access(snapshot: &Snapshot, rehearsal: &Rehearsal, step: &Step) -> (Access, String) {
    match &step.access {
        chain::Access::Passed => (Access::Passes, String::new()),
        chain::Access::NotRun => (
            Access::Open,
            "may answer: what it decides by is not touched here".to_owned(),
        ),
        chain::Access::Chooses(choice) if choice.prospects.is_empty() => {
            (Access::Passes, choice.by.clone())
        }
        chain::Access::Chooses(choice) => (Access::Chooses, chosen(snapshot, rehearsal, choice)),
        chain::Access::Assumed => {
            let consumer = rehearsal
                .consumer()
                .and_then(|index| snapshot.consumers.get(index))
                .map_or_else(String::new, Consumer::label);
            (
                Access::Assumed,
                format!("taken to find consumer {consumer}"),
            )
        }
        chain::Access::Replied(reply) => {
            let message = match &reply.body {
                Body::Message(message) => format!(": {message}"),
                Body::Raw { .. } | Body::Empty => String::new(),
            };
            (
                Access::Answers,
                format!("answers {}{message}", reply.status),
            )
        }
        chain::Access::Failed(cause) => (Access::Answers, format!("fails: {cause}")),
        chain::Access::NotReached => (Access::NotReached, "sees the response only".to_owned()),
    }
}

/// The services of `choice` by their labels.
fn shares(snapshot: &Snapshot, rehearsal: &Rehearsal, choice: &Choice) -> Vec<Share> {
    let own = rehearsal.route().and_then(|route| route.service);
    let shares = choice.prospects.iter().map(|prospect| {
        let index = prospect.service.map(|service| service.0).or(own);
        let service = index.and_then(|index| snapshot.services.get(index));
        Share {
            service: service.map_or_else(String::new, |service| service.facts.label.clone()),
            weight: prospect.weight,
        }
    });
    shares.collect()
}

/// The same in a sentence.
fn chosen(snapshot: &Snapshot, rehearsal: &Rehearsal, choice: &Choice) -> String {
    let by = &choice.by;
    let shares = shares(snapshot, rehearsal, choice);
    let named = |share: &Share| match share.service.as_str() {
        "" => "no service, for the route has none".to_owned(),
        service => format!("service {service}"),
    };
    if let [only] = shares.as_slice() {
        return format!("{by}: {}", named(only));
    }
    let all: u32 = shares.iter().map(|share| share.weight).sum();
    let parts: Vec<String> = shares
        .iter()
        .map(|share| format!("{} for {} of {all}", named(share), share.weight))
        .collect();
    let likeliest = choice.likeliest().and_then(|likeliest| {
        let place = choice
            .prospects
            .iter()
            .position(|prospect| prospect == likeliest)?;
        shares.get(place)
    });
    let likeliest = likeliest.map_or_else(String::new, named);
    format!(
        "{by}: {}; what follows is for {likeliest}",
        parts.join(", ")
    )
}

/// Those that concern the request's route and service, but for one of the reasons in [`Idle`].
pub(super) fn idle(snapshot: &Snapshot, rehearsal: &Rehearsal) -> IdlePlugins {
    let chain = snapshot.chain(rehearsal.chain());
    let route = rehearsal.route_index();
    let service = rehearsal.route().and_then(|route| route.service);
    let running: Vec<&PluginOrigin> = rehearsal
        .steps
        .iter()
        .filter_map(|step| snapshot.origins.of_instance(step.instance))
        .collect();
    let is_told = |origin: &PluginOrigin| {
        running.iter().any(|running| {
            // A plugin that runs names the consumers who have their own.
            let names = may_be_anybodys(rehearsal) && origin.is_personal();
            let would_run = origin.instance.is_some()
                && origin.runs_over(scheme(rehearsal), is_grpc(rehearsal));
            running.place == origin.place || (names && would_run && running.entry == origin.entry)
        })
    };
    let mut idle: Vec<&PluginOrigin> = snapshot
        .origins
        .plugins
        .iter()
        .filter(|origin| origin.concerns(route, service) && !is_told(origin))
        .collect();
    // Those of the one consumer, or of nobody in particular, say more than those of all the others.
    idle.sort_by_key(|origin| (is_for_another(snapshot, rehearsal, origin), origin.entry));
    let omitted = idle.len().saturating_sub(IDLE_MAX);
    idle.truncate(IDLE_MAX);
    IdlePlugins {
        list: idle
            .into_iter()
            .map(|origin| {
                let (why, reason) = reason(snapshot, rehearsal, chain, origin);
                IdlePlugin {
                    name: origin.name().to_owned(),
                    priority: origin.priority(),
                    scope: origin.scope(snapshot),
                    place: snapshot.origins.shown(origin.place),
                    why,
                    reason,
                }
            })
            .collect(),
        omitted,
    }
}

/// The protocol by which plugins are chosen: requests without a route have the global ones for
/// http, whatever they came over.
fn scheme(rehearsal: &Rehearsal) -> Scheme {
    match rehearsal.route() {
        Some(_) => rehearsal.scheme(),
        None => Scheme::Http,
    }
}

/// Whether the request has a route and no consumer yet.
fn may_be_anybodys(rehearsal: &Rehearsal) -> bool {
    rehearsal.route().is_some() && rehearsal.consumer().is_none()
}

/// Whether the route is for gRPC.
fn is_grpc(rehearsal: &Rehearsal) -> bool {
    rehearsal.route().is_some_and(|route| route.grpc)
}

fn is_for_another(snapshot: &Snapshot, rehearsal: &Rehearsal, origin: &PluginOrigin) -> bool {
    let caller = snapshot.consumers.caller(rehearsal.consumer());
    let is_his = |consumer| caller.consumer == Some(ConsumerIndex(consumer));
    let is_theirs = |group| caller.groups.contains(&GroupIndex(group));
    !origin.consumer.is_none_or(is_his) || !origin.consumer_group.is_none_or(is_theirs)
}

fn reason(
    snapshot: &Snapshot,
    rehearsal: &Rehearsal,
    chain: &Chain,
    origin: &PluginOrigin,
) -> (Idle, String) {
    let scheme = scheme(rehearsal);
    if origin.instance.is_none() {
        return (Idle::Disabled, "it has `enabled: false`".to_owned());
    }
    if !origin.runs_over(scheme, is_grpc(rehearsal)) {
        return (
            Idle::OtherProtocol,
            format!(
                "its `protocols` are without {}",
                match (scheme, is_grpc(rehearsal)) {
                    (Scheme::Http, true) => "grpc",
                    (Scheme::Https, true) => "grpcs",
                    (scheme, false) => scheme.as_str(),
                }
            ),
        );
    }
    if is_for_another(snapshot, rehearsal, origin) {
        let whose = match origin.consumer_group {
            Some(_) => "it is for requests of that group's consumers",
            None => "it is for that consumer's requests",
        };
        return (Idle::OtherConsumer, whose.to_owned());
    }
    let picked = link_of(snapshot, chain, origin)
        .and_then(|link| link.pick(snapshot.consumers.caller(rehearsal.consumer())))
        .and_then(|instance| snapshot.origins.of_instance(instance));
    let by = picked.map_or_else(String::new, |picked| {
        format!(
            ": {} ({})",
            picked.scope(snapshot),
            snapshot.origins.shown(picked.place)
        )
    });
    (
        Idle::Shadowed,
        format!("a more specific one runs in its place{by}"),
    )
}

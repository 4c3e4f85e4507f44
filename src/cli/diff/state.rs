//! What becomes of the state, told by the keys under which the state itself finds it again. Connections to upstreams
//! are kept by address and TLS, whatever they are configured as.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;
use uuid::Uuid;

use super::entities::Labels;
use crate::{
    config::{Config, Entity, model::Model},
    snapshot::Snapshot,
    state::Held,
};

/// A piece of state as people know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(super) struct Told {
    /// Such as `counts` or `health`.
    pub(super) what: &'static str,
    /// Whose.
    pub(super) of: String,
    /// What else it is found by, such as the limit of connections.
    #[serde(skip)]
    key: String,
}

/// What becomes of all of it.
#[derive(Debug, Default, Serialize)]
pub(super) struct Fate {
    pub(super) kept: Vec<Told>,
    pub(super) lost: Vec<Told>,
    pub(super) new: Vec<Told>,
}

impl Fate {
    pub(super) fn of(before: &BTreeSet<Told>, after: &BTreeSet<Told>) -> Self {
        Self {
            kept: before.intersection(after).cloned().collect(),
            lost: before.difference(after).cloned().collect(),
            new: after.difference(before).cloned().collect(),
        }
    }
}

/// What the entities are called that state belongs to, by their ids.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<Uuid, String>);

impl Names {
    /// Those of both configurations; the new one knows better.
    pub(super) fn of(old: &Config, new: &Config) -> Self {
        let mut names = Self::default();
        for config in [old, new] {
            let labels = Labels::of(config);
            names.add(&labels, "service", &config.services);
            names.add(&labels, "upstream", &config.upstreams);
            names.add(&labels, "plugin", &config.plugins);
        }
        names
    }

    fn add<T: Model>(&mut self, labels: &Labels, kind: &str, entities: &[Entity<T>]) {
        let named = entities
            .iter()
            .map(|entity| (entity.id, format!("{kind} {}", labels.label(entity))));
        self.0.extend(named);
    }

    /// Every piece of state in words.
    pub(super) fn tell(&self, held: BTreeSet<Held>) -> impl Iterator<Item = Told> {
        // A place that is named by URL has one target, which takes every turn.
        let is_told = |held: &Held| !matches!(held, Held::Turns(id) if !self.0.contains_key(id));
        held.into_iter().filter(is_told).map(|held| {
            let key = format!("{held:?}");
            let (what, of) = match held {
                Held::Counts(id) => ("counts", self.name(id)),
                Held::Places(id) => ("requests under way", self.name(id)),
                Held::Turns(id) => ("turns", self.name(id)),
                Held::Budget(id) => ("retry budget", self.name(id)),
                Held::Circuits(id) => ("circuits", self.name(id)),
                Held::Splits { instance, rule } => (
                    "turns",
                    format!("rule {} of {}", rule + 1, self.name(instance)),
                ),
                Held::Slots {
                    upstream,
                    target,
                    limit,
                } => {
                    let upstream = self.name(upstream);
                    ("places", format!("{limit} for {target} of {upstream}"))
                }
                Held::Health {
                    upstream,
                    host,
                    port,
                } => (
                    "health",
                    format!("{host}:{port} of {}", self.name(upstream)),
                ),
                Held::Addresses(host) => ("addresses", host),
                Held::Instances {
                    service,
                    agent,
                    datacenter,
                    tags,
                    passing,
                } => {
                    let of = [("tags", tags.join(", ")), ("of", agent)];
                    let datacenter = ("in", datacenter.unwrap_or_default());
                    let passing = if passing { "" } else { " (all)" };
                    let of = words(of.into_iter().chain([datacenter]));
                    ("instances", format!("{service}{passing}{of}"))
                }
                Held::Catalog {
                    agent,
                    datacenter,
                    tag_prefix,
                } => {
                    let datacenter = datacenter.unwrap_or_default();
                    let of = words([("of", agent), ("in", datacenter)].into_iter());
                    ("discovered routes", format!("{tag_prefix}{of}"))
                }
            };
            Told { what, of, key }
        })
    }

    fn name(&self, id: Uuid) -> String {
        self.0.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }
}

/// Those that are not empty, each behind its word.
fn words(given: impl Iterator<Item = (&'static str, String)>) -> String {
    let given = given.filter(|(_, text)| !text.is_empty());
    let given: Vec<String> = given
        .map(|(word, text)| format!(" {word} {text}"))
        .collect();
    given.concat()
}

/// The idle connections that a process with this configuration may have.
pub(super) fn connections(snapshot: &Snapshot) -> Vec<Told> {
    let mut connections = Vec::new();
    for service in &snapshot.services {
        let protocol = service.protocol.as_str();
        let (kind, key) = match &service.tls {
            Some(tls) if tls.verifies() => (format!("{protocol}, verified"), tls.key().to_string()),
            Some(tls) => (format!("{protocol}, not verified"), tls.key().to_string()),
            None => (protocol.to_owned(), String::new()),
        };
        for target in service.balancer.targets() {
            connections.push(Told {
                what: "connections",
                of: format!("{} ({kind})", target.label),
                key: key.clone(),
            });
        }
    }
    connections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_another_key_is_another_piece_of_state() {
        let names = Names(HashMap::from([(Uuid::nil(), "upstream u".to_owned())]));
        let slots = |limit| Held::Slots {
            upstream: Uuid::nil(),
            target: "a:1".to_owned(),
            limit,
        };
        let told = |held: &[Held]| names.tell(held.iter().cloned().collect()).collect();
        let turns = Held::Turns(Uuid::nil());
        let fate = Fate::of(&told(&[turns.clone(), slots(1)]), &told(&[turns, slots(2)]));
        let shown = |list: &[Told]| {
            let list = list.iter();
            list.map(|told| format!("{} {}", told.what, told.of))
                .collect::<Vec<_>>()
        };
        assert_eq!(shown(&fate.kept), ["turns upstream u"]);
        assert_eq!(shown(&fate.lost), ["places 1 for a:1 of upstream u"]);
        assert_eq!(shown(&fate.new), ["places 2 for a:1 of upstream u"]);
    }
}

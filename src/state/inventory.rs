//! What the state holds for the snapshots that there are, by the keys under which the next one finds it again.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::State;

/// Something that the state keeps as long as a snapshot uses it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Held {
    /// The counts of a plugin instance.
    Counts(Uuid),
    /// The requests of a plugin instance that are under way.
    Places(Uuid),
    /// The turns of an upstream, or of a service without one.
    Turns(Uuid),
    /// The turns of the services of a rule of a plugin instance.
    Splits { instance: Uuid, rule: usize },
    /// The connections that a target may still take.
    Slots {
        upstream: Uuid,
        target: String,
        limit: u32,
    },
    /// What the retries of a service may still cost.
    Budget(Uuid),
    /// The circuits of a plugin instance.
    Circuits(Uuid),
    /// How the addresses of a target are.
    Health {
        upstream: Uuid,
        host: String,
        port: u16,
    },
    /// The addresses of a host name.
    Addresses(String),
    /// The instances of a service that Consul tells.
    Instances {
        service: String,
        agent: String,
        datacenter: Option<String>,
        /// An instance has all of them.
        tags: Vec<String>,
        /// Only instances whose checks pass.
        passing: bool,
    },
    /// The services that ask Consul for routes.
    Catalog {
        agent: String,
        datacenter: Option<String>,
        /// What the tags begin with that are meant for the gateway.
        tag_prefix: String,
    },
}

impl State {
    /// Everything that some snapshot uses now.
    pub fn inventory(&self) -> BTreeSet<Held> {
        let Self {
            rates,
            turnstiles,
            turns,
            splits,
            slots,
            budgets,
            circuits,
            health,
            names,
            consul,
            // What goes on at the moment goes with the targets, whose turns are listed.
            loads: _,
            pools: _,
            // These are the process's own, or count for its lifetime.
            clock: _,
            identifiers: _,
            news: _,
            telemetry: _,
        } = self;
        let mut held = BTreeSet::new();
        held.extend(rates.instances().into_iter().map(Held::Counts));
        held.extend(turnstiles.instances().into_iter().map(Held::Places));
        held.extend(turns.keys().into_iter().map(Held::Turns));
        let splits = splits.keys().into_iter();
        held.extend(splits.map(|(instance, rule)| Held::Splits { instance, rule }));
        let slots = slots.keys().into_iter();
        held.extend(slots.map(|(upstream, target, limit)| Held::Slots {
            upstream,
            target,
            limit,
        }));
        held.extend(budgets.keys().into_iter().map(Held::Budget));
        held.extend(circuits.keys().into_iter().map(Held::Circuits));
        let health = health.keys().into_iter();
        held.extend(health.map(|(upstream, host, port)| Held::Health {
            upstream,
            host,
            port,
        }));
        held.extend(names.hosts().into_iter().map(Held::Addresses));
        let followed = consul.followed().into_iter();
        held.extend(followed.map(|key| Held::Instances {
            service: key.service,
            agent: key.agent.address.url(""),
            datacenter: key.agent.datacenter,
            tags: key.tags,
            passing: key.passing,
        }));
        let catalogs = consul.followed_catalogs().into_iter();
        held.extend(catalogs.map(|key| Held::Catalog {
            agent: key.agent.address.url(""),
            datacenter: key.agent.datacenter,
            tag_prefix: key.tag_prefix,
        }));
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::consul::{Agent, CatalogKey, ServiceKey, tests::agent};

    #[test]
    fn what_is_held_is_listed_until_it_goes() {
        let state = State::new();
        let turns = state.turns.get_or_create(Uuid::nil(), Default::default);
        let table = state.rates.table(Uuid::nil(), 1000);
        let name = state.names.get("A.test");
        assert_eq!(
            state.inventory().into_iter().collect::<Vec<_>>(),
            [
                Held::Counts(Uuid::nil()),
                Held::Turns(Uuid::nil()),
                Held::Addresses("a.test".to_owned()),
            ]
        );
        drop((turns, table, name));
        assert!(state.inventory().is_empty());
    }

    #[test]
    fn lists_of_consul_are_the_same_with_another_token_and_nothing_else() {
        let state = State::new();
        let key = |token| ServiceKey {
            agent: agent(token),
            service: "users".to_owned(),
            tags: Vec::new(),
            passing: true,
        };
        let held = |key: ServiceKey| {
            let catalog = CatalogKey {
                agent: key.agent.clone(),
                tag_prefix: "tollgate.".to_owned(),
            };
            let _held = (state.consul.service(key), state.consul.catalog(catalog));
            state.inventory()
        };
        let first = held(key("hunter2"));
        assert_eq!(first.len(), 2);
        assert_eq!(held(key("other")), first);
        assert!(!format!("{first:?}").contains("hunter2"));
        let elsewhere = Agent {
            datacenter: Some("dc2".to_owned()),
            ..agent("other")
        };
        let tags = vec!["v2".to_owned()];
        let others = [
            ServiceKey {
                tags,
                ..key("other")
            },
            ServiceKey {
                passing: false,
                ..key("other")
            },
            ServiceKey {
                agent: elsewhere,
                ..key("other")
            },
        ];
        for other in others {
            assert_ne!(held(other), first);
        }
    }
}

//! Which instance of a plugin runs for whom on which route, and in what order: the chains of a snapshot.
//! Routes with the same plugins share a chain, and chains share what they have in common.

use std::{collections::HashMap, sync::Arc};

use super::{chains::Instances, references::Scopes};
use crate::{
    chain::{Candidates, Chain, InstanceIndex, Link},
    config::{Code, Config, Diagnostics, model::ordering::Ordering},
    entity::consumer::{ConsumerIndex, GroupIndex},
    plugins::CATALOG,
    snapshot::ChainIndex,
};

/// A route and a service, as far as a plugin is for one only.
type Place = (Option<usize>, Option<usize>);

/// Makes chains, and gives routes with the same plugins the same one.
pub(super) struct Chains<'c> {
    config: &'c Config,
    instances: &'c Instances,
    /// For http, https, grpc and grpcs the plugins that have instances, in order of execution.
    plugins: [Vec<ByPlace>; 4],
    protocols_differ: bool,
    is_reordered: bool,
    list: Vec<Chain>,
    made: HashMap<(Place, usize), ChainIndex>,
    /// An instance whose `ordering` cannot be kept on some route.
    contradiction: Option<InstanceIndex>,
}

/// The instances of one plugin by where they apply.
struct ByPlace {
    entry: usize,
    candidates: HashMap<Place, Arc<Candidates>>,
}

impl<'c> Chains<'c> {
    pub(super) fn new(config: &'c Config, instances: &'c Instances) -> Self {
        let placed = &instances.placed;
        let ordering = |written: usize| config.plugins.get(written)?.fields.ordering.as_ref();
        Self {
            config,
            instances,
            plugins: std::array::from_fn(|protocol| by_place(instances, protocol)),
            protocols_differ: placed.iter().any(|placed| placed.protocols != [true; 4]),
            is_reordered: placed
                .iter()
                .any(|placed| ordering(placed.written).is_some()),
            list: Vec::new(),
            made: HashMap::new(),
            contradiction: None,
        }
    }

    /// The chain of requests without a route: the global plugins.
    pub(super) fn global(&mut self) -> ChainIndex {
        self.chain((None, None), 0)
    }

    /// The chains of a route for http and https, or for grpc and grpcs if it `is_grpc`.
    pub(super) fn of_route(
        &mut self,
        route: usize,
        service: Option<usize>,
        is_grpc: bool,
    ) -> [ChainIndex; 2] {
        let protocol = if is_grpc && self.protocols_differ {
            2
        } else {
            0
        };
        let cleartext = self.chain((Some(route), service), protocol);
        let encrypted = if self.protocols_differ {
            self.chain((Some(route), service), protocol + 1)
        } else {
            cleartext
        };
        [cleartext, encrypted]
    }

    /// The chains, unless one of them cannot be ordered as its plugins ask for.
    pub(super) fn into_chains(self, diagnostics: &mut Diagnostics) -> Option<Box<[Chain]>> {
        let contradiction = self.contradiction.and_then(|instance| {
            let placed = self.instances.placed.get(instance.0 as usize)?;
            self.config.plugins.get(placed.written)
        });
        if let Some(plugin) = contradiction {
            diagnostics
                .error(
                    Code::InvalidCombination,
                    plugin.place.at("ordering"),
                    plugin.place.path_of("ordering"),
                    format!(
                        "plugin '{}' and others that run with it ask for an order that contradicts itself",
                        plugin.fields.name
                    ),
                )
                .hint("let only one of them say before or after which it runs");
            return None;
        }
        Some(self.list.into_boxed_slice())
    }

    /// A plugin that is on neither the route nor the service makes no chain of its own.
    fn chain(&mut self, (route, service): Place, protocol: usize) -> ChainIndex {
        let Some(plugins) = self.plugins.get(protocol) else {
            return ChainIndex(0);
        };
        let has = |place: Place| {
            plugins
                .iter()
                .any(|plugin| plugin.candidates.contains_key(&place))
        };
        let both = (route, service);
        let by_both = route.is_some() && service.is_some() && has(both);
        let place = (
            route.filter(|_| by_both || has((route, None))),
            service.filter(|_| by_both || has((None, service))),
        );
        if let Some(made) = self.made.get(&(place, protocol)) {
            return *made;
        }
        let mut links: Vec<(usize, Link)> = plugins
            .iter()
            .map(|plugin| (plugin.entry, plugin.link(place)))
            .filter(|(_, link)| !link.is_empty())
            .collect();
        let is_reordered = self.is_reordered && {
            let ordering = |link: &Link| {
                let placed = self.instances.placed.get(link.everyone()?.0 as usize)?;
                self.config
                    .plugins
                    .get(placed.written)?
                    .fields
                    .ordering
                    .as_ref()
            };
            match reorder(&mut links, ordering) {
                Ok(moved) => moved,
                Err(instance) => {
                    self.contradiction = instance;
                    false
                }
            }
        };
        let links = links.into_iter().map(|(_, link)| link);
        let index = ChainIndex(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
        self.list.push(if is_reordered {
            Chain::reordered(links)
        } else {
            Chain::new(links)
        });
        self.made.insert((place, protocol), index);
        index
    }
}

impl ByPlace {
    fn link(&self, (route, service): Place) -> Link {
        let at = |place: Place| self.candidates.get(&place).map(Arc::clone);
        // A scope that is asked for must be there: without it the scope would be wider.
        Link::new([
            at((route, service)).filter(|_| route.is_some() && service.is_some()),
            at((route, None)).filter(|_| route.is_some()),
            at((None, service)).filter(|_| service.is_some()),
            at((None, None)),
        ])
    }
}

/// The plugins that run over http (0) or https (1).
fn by_place(instances: &Instances, protocol: usize) -> Vec<ByPlace> {
    let mut plugins: Vec<HashMap<Place, Candidates>> =
        CATALOG.iter().map(|_| HashMap::new()).collect();
    for (placed, index) in instances.placed.iter().zip(0..) {
        let runs = placed.protocols.get(protocol).copied().unwrap_or(false);
        let Some(plugin) = plugins.get_mut(placed.entry).filter(|_| runs) else {
            continue;
        };
        let Scopes {
            service,
            route,
            consumer,
            consumer_group,
        } = placed.scopes;
        let candidates = plugin.entry((route, service)).or_default();
        let instance = InstanceIndex(index);
        match (consumer, consumer_group) {
            (None, None) => candidates.everyone = Some(instance),
            (Some(consumer), _) => {
                candidates
                    .consumers
                    .insert(ConsumerIndex(small(consumer)), instance);
            }
            (None, Some(group)) => {
                candidates.groups.insert(GroupIndex(small(group)), instance);
            }
        }
    }
    plugins
        .into_iter()
        .enumerate()
        .filter(|(_, candidates)| !candidates.is_empty())
        .map(|(entry, candidates)| ByPlace {
            entry,
            candidates: candidates
                .into_iter()
                .map(|(place, candidates)| (place, Arc::new(candidates)))
                .collect(),
        })
        .collect()
}

fn small(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// Moves each link whose plugin asks for it next to the plugin that it asks for; the others keep their order.
/// Gives whether one was moved, or an instance whose wish cannot be granted.
fn reorder<'o>(
    links: &mut Vec<(usize, Link)>,
    ordering: impl Fn(&Link) -> Option<&'o Ordering>,
) -> Result<bool, Option<InstanceIndex>> {
    let wishes: Vec<(usize, &Ordering)> = links
        .iter()
        .filter_map(|(entry, link)| Some((*entry, ordering(link)?)))
        .collect();
    let mut moved = false;
    // Every pass puts at least one more plugin into its final place, if there is one for each.
    for _ in 0..=links.len() {
        let mut unsettled = false;
        for (entry, wish) in &wishes {
            unsettled |= grant(links, *entry, wish);
        }
        if !unsettled {
            return Ok(moved);
        }
        moved = true;
    }
    let last = wishes.last().and_then(|(entry, _)| position(links, *entry));
    Err(last.and_then(|place| links.get(place)?.1.everyone()))
}

fn position(links: &[(usize, Link)], entry: usize) -> Option<usize> {
    links.iter().position(|(other, _)| *other == entry)
}

/// Whether the link of the plugin `entry` had to be moved.
fn grant(links: &mut Vec<(usize, Link)>, entry: usize, wish: &Ordering) -> bool {
    let places = |links: &[(usize, Link)], names: &[String]| -> Vec<usize> {
        let named = |entry: usize| {
            let name = CATALOG.get(entry).map_or("", |entry| entry.name);
            names.iter().any(|wanted| wanted == name)
        };
        let places = links.iter().enumerate();
        let places = places.filter(|(_, (entry, _))| named(*entry));
        places.map(|(place, _)| place).collect()
    };
    let Some(from) = position(links, entry) else {
        return false;
    };
    let first = places(links, wish.before()).into_iter().min();
    let last = places(links, wish.after()).into_iter().max();
    let to = match (first, last) {
        (Some(first), _) if from > first => first,
        // Behind what moves up when this one is taken out.
        (_, Some(last)) if from < last => last,
        _ => return false,
    };
    let link = links.remove(from);
    links.insert(to, link);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::ordering::Neighbours;

    fn entry(name: &str) -> usize {
        CATALOG.iter().position(|entry| entry.name == name).unwrap()
    }

    /// The names of the plugins in the order that the wishes (plugin, before, after) make.
    fn ordered(wishes: &[(&str, &[&str], &[&str])]) -> Option<Vec<&'static str>> {
        let side = |names: &[&str]| {
            Some(Neighbours {
                access: names.iter().map(ToString::to_string).collect(),
            })
        };
        let wishes: HashMap<InstanceIndex, Ordering> = wishes
            .iter()
            .map(|(plugin, before, after)| {
                let instance = InstanceIndex(small(entry(plugin)));
                let (before, after) = (side(before), side(after));
                (instance, Ordering { before, after })
            })
            .collect();
        let mut links: Vec<(usize, Link)> = (0..CATALOG.len())
            .map(|entry| {
                let everyone = Some(InstanceIndex(small(entry)));
                let candidates = Candidates {
                    everyone,
                    ..Candidates::default()
                };
                let link = Link::new([None, None, None, Some(Arc::new(candidates))]);
                (entry, link)
            })
            .collect();
        reorder(&mut links, |link| wishes.get(&link.everyone()?)).ok()?;
        Some(
            links
                .iter()
                .map(|(entry, _)| CATALOG[*entry].name)
                .collect(),
        )
    }

    /// Whether the plugins come in this order, whatever is between them.
    fn is_order(found: &[&str], expected: &[&str]) -> bool {
        let places: Vec<_> = expected
            .iter()
            .map(|name| found.iter().position(|found| found == name))
            .collect();
        places.is_sorted() && places.iter().all(Option::is_some)
    }

    #[test]
    fn only_the_plugin_that_asks_is_moved() {
        let found = ordered(&[("request-termination", &["key-auth"], &[])]).unwrap();
        assert!(is_order(
            &found,
            &[
                "correlation-id",
                "request-termination",
                "key-auth",
                "rate-limiting",
                "prometheus"
            ]
        ));
        let found = ordered(&[("correlation-id", &[], &["rate-limiting", "key-auth"])]).unwrap();
        assert!(is_order(
            &found,
            &["key-auth", "rate-limiting", "correlation-id", "prometheus"]
        ));
    }

    #[test]
    fn wishes_that_build_on_each_other_are_granted() {
        let found = ordered(&[
            ("rate-limiting", &["key-auth"], &[]),
            ("request-termination", &["rate-limiting"], &[]),
        ])
        .unwrap();
        assert!(is_order(
            &found,
            &["request-termination", "rate-limiting", "key-auth"]
        ));
        let stays = ordered(&[("key-auth", &["rate-limiting"], &["correlation-id"])]).unwrap();
        let names: Vec<_> = CATALOG.iter().map(|entry| entry.name).collect();
        assert_eq!(stays, names);
    }

    #[test]
    fn wishes_that_contradict_each_other_are_refused() {
        let circle = ordered(&[
            ("rate-limiting", &["key-auth"], &[]),
            ("key-auth", &["rate-limiting"], &[]),
        ]);
        assert_eq!(circle, None);
        let torn = ordered(&[("rate-limiting", &["key-auth"], &["prometheus"])]);
        assert_eq!(torn, None);
    }
}

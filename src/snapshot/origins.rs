//! Where the entities of a snapshot are written, for explanations. One small table beside the
//! snapshot; no request looks at it.

use super::Snapshot;
use crate::{chain::InstanceIndex, entity::consumer::GroupIndex, plugin::Scheme, plugins::CATALOG};

/// A place in one of the files of an [`Origins`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub file: u16,
    /// Counted from 1; 0 for what has no lines.
    pub line: u32,
    /// Counted from 1, in characters.
    pub column: u32,
}

/// The places of a snapshot's entities. Lists of places run parallel to the snapshot's lists.
#[derive(Debug, Default)]
pub struct Origins {
    /// The names of the files, as diagnostics show them.
    pub files: Box<[Box<str>]>,
    pub routes: Box<[Place]>,
    /// Of the routes for streams.
    pub streams: Box<[Place]>,
    pub services: Box<[Place]>,
    pub upstreams: Box<[Place]>,
    /// Every plugin that is written, except those of routes that are not served.
    pub plugins: Box<[PluginOrigin]>,
    /// Routes that are not served, for their service has `enabled: false`.
    pub unserved: Box<[Unserved]>,
}

/// A plugin as it is written.
#[derive(Debug, Clone, Copy)]
pub struct PluginOrigin {
    pub place: Place,
    /// Its place in the catalog.
    pub entry: u16,
    /// The places of service, route and consumer in the snapshot, as far as it is for one only.
    pub service: Option<u32>,
    pub route: Option<u32>,
    pub consumer: Option<u32>,
    /// The place of the consumer group in the directory of consumers.
    pub consumer_group: Option<u32>,
    /// Absent if it has `enabled: false`.
    pub instance: Option<InstanceIndex>,
    /// Whether it runs for http, https, grpc and grpcs.
    pub protocols: [bool; 4],
}

/// A route that is not served.
#[derive(Debug)]
pub struct Unserved {
    /// Its name, else its id.
    pub label: Box<str>,
    /// The place of its service.
    pub service: u32,
    pub place: Place,
}

impl Origins {
    /// `FILE:LINE:COLUMN`; for what no file says, whence it comes.
    pub fn shown(&self, place: Place) -> String {
        let file = self.files.get(usize::from(place.file));
        let file = file.map_or("?", |file| &**file);
        if place.line == 0 {
            return format!("from {file}");
        }
        format!("{file}:{}:{}", place.line, place.column)
    }

    /// The plugin that became `instance`.
    pub fn of_instance(&self, instance: InstanceIndex) -> Option<&PluginOrigin> {
        let same = |plugin: &&PluginOrigin| plugin.instance == Some(instance);
        self.plugins.iter().find(same)
    }
}

impl PluginOrigin {
    /// The plugin's name.
    pub fn name(&self) -> &'static str {
        CATALOG
            .get(usize::from(self.entry))
            .map_or("", |entry| entry.name)
    }

    /// The plugin's place in the order; higher runs first.
    pub fn priority(&self) -> i32 {
        CATALOG
            .get(usize::from(self.entry))
            .map_or(0, |entry| entry.priority)
    }

    /// Whether it runs for requests over `scheme`, or for calls if they are gRPC.
    pub fn runs_over(&self, scheme: Scheme, is_grpc: bool) -> bool {
        let [http, https, grpc, grpcs] = self.protocols;
        match (scheme, is_grpc) {
            (Scheme::Http, false) => http,
            (Scheme::Https, false) => https,
            (Scheme::Http, true) => grpc,
            (Scheme::Https, true) => grpcs,
        }
    }

    /// Whether it is for requests to this route and service, whoever sends them.
    pub fn concerns(&self, route: Option<usize>, service: Option<usize>) -> bool {
        let is = |scope: Option<u32>, index: Option<usize>| {
            scope.is_none_or(|scope| index.is_some_and(|index| index == scope as usize))
        };
        is(self.route, route) && is(self.service, service)
    }

    /// Whether it is for one consumer or consumer group only.
    pub const fn is_personal(&self) -> bool {
        self.consumer.is_some() || self.consumer_group.is_some()
    }

    /// Where it applies: `global`, or such as `route orders and consumer ann`.
    pub fn scope(&self, snapshot: &Snapshot) -> String {
        let at = |index: Option<u32>| index.map(|index| index as usize);
        let scopes: Vec<String> = [
            at(self.service)
                .and_then(|index| snapshot.services.get(index))
                .map(|service| format!("service {}", service.facts.label)),
            at(self.route)
                .and_then(|index| snapshot.routes.get(index))
                .map(|route| format!("route {}", route.facts.label)),
            at(self.consumer)
                .and_then(|index| snapshot.consumers.iter().nth(index))
                .map(|consumer| format!("consumer {}", consumer.label())),
            self.consumer_group
                .and_then(|index| snapshot.consumers.group(GroupIndex(index)))
                .map(|group| format!("consumer group {}", group.name)),
        ]
        .into_iter()
        .flatten()
        .collect();
        if scopes.is_empty() {
            "global".to_owned()
        } else {
            scopes.join(" and ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_entities_of_each_kind_take_less_than_a_mebibyte() {
        // A route is either for requests or for streams.
        let of_each = 3 * size_of::<Place>() + size_of::<PluginOrigin>();

        assert!(10_000 * of_each < 1 << 20, "{of_each} bytes");
    }

    #[test]
    fn a_plugin_concerns_what_its_scopes_name() {
        let place = Place {
            file: 0,
            line: 1,
            column: 1,
        };
        let scoped = |service, route| PluginOrigin {
            place,
            entry: 0,
            service,
            route,
            consumer: Some(9),
            consumer_group: None,
            instance: None,
            protocols: [true; 4],
        };
        for (plugin, route, service, expected) in [
            (scoped(None, None), None, None, true),
            (scoped(None, None), Some(1), Some(2), true),
            (scoped(Some(2), None), Some(1), Some(2), true),
            (scoped(Some(2), None), Some(1), None, false),
            (scoped(Some(2), Some(1)), Some(1), Some(2), true),
            (scoped(Some(2), Some(1)), Some(0), Some(2), false),
            (scoped(None, Some(1)), None, None, false),
        ] {
            assert_eq!(plugin.concerns(route, service), expected, "{plugin:?}");
        }
    }
}

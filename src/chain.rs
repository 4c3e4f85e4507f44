//! The ordered plugins of a route, and the loops of the access, response and log phases.

use std::{collections::HashMap, sync::Arc};

use futures_util::FutureExt;
use smallvec::SmallVec;

use crate::{
    entity::{
        consumer::{Caller, ConsumerIndex, GroupIndex},
        consumers::Consumers,
    },
    plugin::{Choice, Halt, Record, Reply, Request, Response},
    plugins::{CATALOG, Instance, Memo},
};

/// The place of an instance in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceIndex(pub u32);

/// The instances of one plugin that are for the same routes and services: one for everybody, and those for one
/// consumer or consumer group only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Candidates {
    pub everyone: Option<InstanceIndex>,
    pub consumers: HashMap<ConsumerIndex, InstanceIndex, ahash::RandomState>,
    pub groups: HashMap<GroupIndex, InstanceIndex, ahash::RandomState>,
}

/// One plugin name in a chain: which of its instances runs for whom.
///
/// Kong runs exactly one instance of a plugin per request, the most specific one whose scopes all
/// hold; the consumer is known only after authentication, so that part is decided per request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    everyone: Option<InstanceIndex>,
    /// Absent if no consumer and no group has an instance of its own.
    personal: Option<Box<Levels>>,
}

/// The candidates of a plugin by the scopes that the route decides, shared by all chains that have them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Levels {
    both: Option<Arc<Candidates>>,
    route: Option<Arc<Candidates>>,
    service: Option<Arc<Candidates>>,
    global: Option<Arc<Candidates>>,
}

impl Link {
    /// A link of the candidates for this route on this service, for this route, for this service, and for all.
    pub fn new(levels: [Option<Arc<Candidates>>; 4]) -> Self {
        let everyone = levels.iter().flatten().find_map(|level| level.everyone);
        let is_personal = levels
            .iter()
            .flatten()
            .any(|level| !level.consumers.is_empty() || !level.groups.is_empty());
        let [both, route, service, global] = levels;
        let levels = || {
            Box::new(Levels {
                both,
                route,
                service,
                global,
            })
        };
        Self {
            everyone,
            personal: is_personal.then(levels),
        }
    }

    /// The instance that runs for a request of `caller`.
    pub fn pick(&self, caller: Caller<'_>) -> Option<InstanceIndex> {
        match (&self.personal, caller.consumer) {
            (Some(levels), Some(consumer)) => {
                levels.pick(consumer, caller.groups).or(self.everyone)
            }
            _ => self.everyone,
        }
    }

    /// The most specific instance without a consumer and a consumer group among its scopes.
    pub const fn everyone(&self) -> Option<InstanceIndex> {
        self.everyone
    }

    /// Whether nothing ever runs.
    pub const fn is_empty(&self) -> bool {
        self.everyone.is_none() && self.personal.is_none()
    }

    /// Every instance that may run.
    pub fn instances(&self) -> impl Iterator<Item = InstanceIndex> {
        let candidates = self.candidates();
        let personal =
            candidates.flat_map(|level| level.consumers.values().chain(level.groups.values()));
        self.everyone.into_iter().chain(personal.copied())
    }

    /// The consumers that have an instance of their own, in their order.
    pub fn consumers(&self) -> Vec<ConsumerIndex> {
        let mut consumers: Vec<ConsumerIndex> = self
            .candidates()
            .flat_map(|level| level.consumers.keys().copied())
            .collect();
        consumers.sort_unstable();
        consumers.dedup();
        consumers
    }

    /// The consumer groups that have an instance of their own, in their order.
    pub fn groups(&self) -> Vec<GroupIndex> {
        let mut groups: Vec<GroupIndex> = self
            .candidates()
            .flat_map(|level| level.groups.keys().copied())
            .collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    fn candidates(&self) -> impl Iterator<Item = &Candidates> {
        let levels = self.personal.iter();
        levels
            .flat_map(|levels| [&levels.both, &levels.route, &levels.service, &levels.global])
            .flatten()
            .map(|level| &**level)
    }

    /// The instance that runs for consumers that are in this group and in no other, and have none of their own.
    pub fn pick_for_group(&self, group: GroupIndex) -> Option<InstanceIndex> {
        let levels = self.personal.as_ref()?;
        let nobody = ConsumerIndex(u32::MAX);
        levels.pick(nobody, &[group]).or(self.everyone)
    }
}

impl Levels {
    /// Kong's order of scopes, most specific first. What is for everybody on a route, a service or globally comes
    /// after all of it.
    fn pick(&self, consumer: ConsumerIndex, groups: &[GroupIndex]) -> Option<InstanceIndex> {
        let own =
            |level: &Option<Arc<Candidates>>| level.as_ref()?.consumers.get(&consumer).copied();
        let shared = |level: &Option<Arc<Candidates>>| {
            let level = level.as_ref().filter(|level| !level.groups.is_empty())?;
            groups
                .iter()
                .find_map(|group| level.groups.get(group).copied())
        };
        own(&self.both)
            .or_else(|| shared(&self.both))
            .or_else(|| own(&self.route))
            .or_else(|| own(&self.service))
            .or_else(|| shared(&self.route))
            .or_else(|| shared(&self.service))
            .or_else(|| self.both.as_ref()?.everyone)
            .or_else(|| own(&self.global))
            .or_else(|| shared(&self.global))
    }
}

/// The plugins of a route in order of execution.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    links: Box<[Link]>,
    /// The access phase has an order of its own, which the later phases do not follow.
    is_reordered: bool,
}

/// What a chain remembers of one request: the instances that ran, with their memos.
///
/// The pair of instance and memo is made here and nowhere else.
#[derive(Debug, Default)]
pub struct Run {
    steps: SmallVec<[(InstanceIndex, Memo); 4]>,
    links_seen: usize,
}

/// How the access phase ended early: the plugin that ended it, and with what.
#[derive(Debug)]
pub struct Ended {
    pub plugin: &'static str,
    pub halt: Halt,
}

/// One plugin in the rehearsal of a request.
#[derive(Debug)]
pub struct Step {
    pub instance: InstanceIndex,
    pub access: Access,
}

/// What the access phase of a plugin came to in a rehearsal.
#[derive(Debug)]
pub enum Access {
    /// The request goes on.
    Passed,
    /// It would leave something behind or wait for somebody, so it was not run.
    NotRun,
    /// It does this besides; of the services that it chooses from, the rehearsal goes on with the likeliest.
    Chooses(Choice),
    /// It would have found the consumer, who was taken for granted instead.
    Assumed,
    /// It answered.
    Replied(Box<Reply>),
    /// It failed; why is for the operator.
    Failed(String),
    /// The request was answered before.
    NotReached,
}

impl Chain {
    /// A chain of `links`, highest priority first.
    pub fn new(links: impl IntoIterator<Item = Link>) -> Self {
        Self {
            links: links.into_iter().collect(),
            is_reordered: false,
        }
    }

    /// A chain whose access phase runs `links` in this order, and whose later phases have that of the catalog.
    pub fn reordered(links: impl IntoIterator<Item = Link>) -> Self {
        Self {
            is_reordered: true,
            ..Self::new(links)
        }
    }

    /// The links in order.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Runs `access` link by link. Each link picks its instance after the links before it ran, so
    /// an authentication plugin decides what the plugins below it see.
    ///
    /// # Errors
    /// The first reply or fault; the links behind it do not run.
    pub async fn access(
        &self,
        instances: &[Instance],
        run: &mut Run,
        request: &mut Request<'_>,
    ) -> Result<(), Ended> {
        for link in &self.links {
            run.links_seen += 1;
            let caller = request.about.consumers.caller(request.identity.consumer);
            let Some((instance, memo)) = run.begin(link, instances, caller) else {
                continue;
            };
            instance.access(memo, request).await.map_err(|halt| Ended {
                plugin: instance.name(),
                halt,
            })?;
        }
        self.settle(instances, run);
        Ok(())
    }

    /// Goes through `access` like a request, but runs only what leaves nothing behind. With
    /// `assumed`, that consumer is taken for granted where the chain would find one.
    pub fn rehearse(
        &self,
        instances: &[Instance],
        request: &mut Request<'_>,
        assumed: Option<ConsumerIndex>,
    ) -> Vec<Step> {
        let mut steps = Vec::with_capacity(self.links.len());
        let mut has_ended = false;
        for link in &self.links {
            let caller = request.about.consumers.caller(request.identity.consumer);
            let Some(index) = link.pick(caller) else {
                continue;
            };
            let Some(instance) = instances.get(index.0 as usize) else {
                continue;
            };
            let access = if has_ended {
                Access::NotReached
            } else if let Some(consumer) = assumed.filter(|_| instance.finds_consumer()) {
                request.assume(consumer);
                Access::Assumed
            } else if instance.is_rehearsable() {
                rehearse_access(instance, request)
            } else {
                rehearse_choice(instance, request)
            };
            has_ended |= matches!(access, Access::Replied(_) | Access::Failed(_));
            steps.push(Step {
                instance: index,
                access,
            });
        }
        steps
    }

    /// The instances whose response and log phases see a request that no link admits.
    pub fn bystanders(&self) -> Vec<Step> {
        let picked = self.links.iter().filter_map(Link::everyone);
        picked
            .map(|instance| Step {
                instance,
                access: Access::NotReached,
            })
            .collect()
    }

    /// Lets the links that `access` did not reach take part in the later phases, as Kong does: a
    /// 401 carries its CORS headers and is counted like any other response.
    pub fn complete(
        &self,
        instances: &[Instance],
        run: &mut Run,
        consumers: &Consumers,
        consumer: Option<ConsumerIndex>,
    ) {
        let caller = consumers.caller(consumer);
        for link in self.links.iter().skip(run.links_seen) {
            run.begin(link, instances, caller);
        }
        run.links_seen = self.links.len();
        self.settle(instances, run);
    }

    /// Brings what ran into the order of the later phases.
    fn settle(&self, instances: &[Instance], run: &mut Run) {
        if !self.is_reordered {
            return;
        }
        run.steps.sort_by_key(|(index, _)| {
            let name = instances.get(index.0 as usize).map(Instance::name);
            CATALOG.iter().position(|entry| Some(entry.name) == name)
        });
    }
}

fn rehearse_access(instance: &Instance, request: &mut Request<'_>) -> Access {
    let mut memo = instance.memo();
    match instance.access(&mut memo, request).now_or_never() {
        Some(Ok(())) => Access::Passed,
        Some(Err(Halt::Reply(reply))) => Access::Replied(reply),
        Some(Err(Halt::Fault(fault))) => Access::Failed(fault.to_string()),
        None => Access::NotRun,
    }
}

fn rehearse_choice(instance: &Instance, request: &mut Request<'_>) -> Access {
    let Some(choice) = instance.choice(request) else {
        return Access::NotRun;
    };
    if let Some(service) = choice.likeliest().and_then(|likeliest| likeliest.service) {
        request.send_to(service);
    }
    Access::Chooses(choice)
}

impl Run {
    fn begin<'i, 'r>(
        &'r mut self,
        link: &Link,
        instances: &'i [Instance],
        caller: Caller<'_>,
    ) -> Option<(&'i Instance, &'r mut Memo)> {
        let index = link.pick(caller)?;
        let instance = instances.get(index.0 as usize)?;
        self.steps.push((index, instance.memo()));
        let (_, memo) = self.steps.last_mut()?;
        Some((instance, memo))
    }

    /// Runs the response phase.
    pub fn response(&mut self, instances: &[Instance], response: &mut Response<'_>) {
        for (index, memo) in &mut self.steps {
            if let Some(instance) = instances.get(index.0 as usize) {
                instance.response(memo, response);
            }
        }
    }

    /// Runs the log phase.
    pub fn log(&mut self, instances: &[Instance], record: &Record<'_>) {
        for (index, memo) in &mut self.steps {
            if let Some(instance) = instances.get(index.0 as usize) {
                instance.log(memo, record);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: ConsumerIndex = ConsumerIndex(0);
    const GOLD: GroupIndex = GroupIndex(7);
    const SILVER: GroupIndex = GroupIndex(3);

    /// The instances for everybody, for Ann, for gold and for silver.
    fn level(
        everyone: Option<u32>,
        ann: Option<u32>,
        gold: Option<u32>,
        silver: Option<u32>,
    ) -> Arc<Candidates> {
        let groups = [(GOLD, gold), (SILVER, silver)];
        Arc::new(Candidates {
            everyone: everyone.map(InstanceIndex),
            consumers: ann
                .map(|ann| (ANN, InstanceIndex(ann)))
                .into_iter()
                .collect(),
            groups: groups
                .into_iter()
                .filter_map(|(group, instance)| Some((group, InstanceIndex(instance?))))
                .collect(),
        })
    }

    fn picked(link: &Link, consumer: Option<ConsumerIndex>, groups: &[GroupIndex]) -> Option<u32> {
        link.pick(Caller { consumer, groups })
            .map(|instance| instance.0)
    }

    #[test]
    fn the_most_specific_instance_runs_and_without_a_consumer_none_of_the_personal_ones() {
        let link = Link::new([
            Some(level(Some(7), Some(1), Some(2), None)),
            Some(level(Some(10), Some(3), Some(5), None)),
            Some(level(Some(11), Some(4), Some(6), None)),
            Some(level(Some(12), Some(8), Some(9), None)),
        ]);
        assert_eq!(picked(&link, Some(ANN), &[GOLD]), Some(1));
        assert_eq!(picked(&link, Some(ConsumerIndex(1)), &[GOLD]), Some(2));
        assert_eq!(picked(&link, Some(ConsumerIndex(1)), &[]), Some(7));
        assert_eq!(picked(&link, None, &[]), Some(7));
        assert_eq!(link.pick_for_group(GOLD), Some(InstanceIndex(2)));
    }

    #[test]
    fn a_group_of_a_route_goes_before_everybody_on_route_and_service() {
        let link = Link::new([
            Some(level(Some(7), None, None, None)),
            Some(level(None, None, Some(5), None)),
            None,
            Some(level(None, Some(8), None, Some(9))),
        ]);
        assert_eq!(picked(&link, Some(ANN), &[GOLD]), Some(5));
        assert_eq!(picked(&link, Some(ANN), &[SILVER]), Some(7));
    }

    #[test]
    fn of_several_groups_the_first_with_an_instance_decides() {
        let link = Link::new([None, None, None, Some(level(None, None, Some(1), Some(2)))]);
        let ben = Some(ConsumerIndex(1));
        assert_eq!(picked(&link, ben, &[SILVER, GOLD]), Some(2));
        assert_eq!(picked(&link, ben, &[GroupIndex(9), GOLD, SILVER]), Some(1));
        assert_eq!(picked(&link, ben, &[GroupIndex(9)]), None);
        assert!(!link.is_empty());
    }

    #[test]
    fn a_link_without_personal_instances_keeps_no_levels() {
        let link = Link::new([None, Some(level(Some(4), None, None, None)), None, None]);
        assert!(link.personal.is_none());
        assert_eq!(picked(&link, Some(ANN), &[GOLD]), Some(4));
        assert!(Link::new([None, None, None, None]).is_empty());
    }
}

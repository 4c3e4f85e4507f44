//! The ordered plugins of a route, and the loops of the access, response and log phases.

use std::collections::HashMap;

use futures_util::FutureExt;
use smallvec::SmallVec;

use crate::{
    entity::consumer::ConsumerIndex,
    plugin::{Halt, Record, Reply, Request, Response},
    plugins::{Instance, Memo},
};

/// The place of an instance in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceIndex(pub u32);

/// One plugin name in a chain: which of its instances runs for whom.
///
/// Kong runs exactly one instance of a plugin per request, the most specific one whose scopes all
/// hold; the consumer is known only after authentication, so that part is decided per request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// The most specific instance without a consumer among its scopes.
    pub everyone: Option<InstanceIndex>,
    /// The most specific instance for one consumer.
    pub consumers: HashMap<ConsumerIndex, InstanceIndex, ahash::RandomState>,
}

impl Link {
    /// The instance that runs for a request of `consumer`.
    pub fn pick(&self, consumer: Option<ConsumerIndex>) -> Option<InstanceIndex> {
        if let Some(consumer) = consumer
            && !self.consumers.is_empty()
            && let Some(instance) = self.consumers.get(&consumer)
        {
            return Some(*instance);
        }
        self.everyone
    }
}

/// The plugins of a route in order of execution.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    links: Box<[Link]>,
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
            let Some((instance, memo)) = run.begin(link, instances, request.identity.consumer)
            else {
                continue;
            };
            instance.access(memo, request).await.map_err(|halt| Ended {
                plugin: instance.name(),
                halt,
            })?;
        }
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
            let Some(index) = link.pick(request.identity.consumer) else {
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
                Access::NotRun
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
        let picked = self.links.iter().filter_map(|link| link.pick(None));
        picked
            .map(|instance| Step {
                instance,
                access: Access::NotReached,
            })
            .collect()
    }

    /// Lets the links that `access` did not reach take part in the later phases, as Kong does: a
    /// 401 carries its CORS headers and is counted like any other response.
    pub fn complete(&self, instances: &[Instance], run: &mut Run, consumer: Option<ConsumerIndex>) {
        for link in self.links.iter().skip(run.links_seen) {
            run.begin(link, instances, consumer);
        }
        run.links_seen = self.links.len();
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

impl Run {
    fn begin<'i, 'r>(
        &'r mut self,
        link: &Link,
        instances: &'i [Instance],
        consumer: Option<ConsumerIndex>,
    ) -> Option<(&'i Instance, &'r mut Memo)> {
        let index = link.pick(consumer)?;
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

//! The one task that keeps the members of live upstreams in step with names, registries and health.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::runtime::Handle;
use tracing::error;

use super::Balancer;
use crate::state::{feed::News, pool::Pools};

/// How long news may gather before they are followed again: until then those who are out are passed
/// over all the same.
const GATHER: Duration = Duration::from_millis(50);
/// How often everything is followed though there are no news, so that addresses that nobody names
/// are forgotten in time.
const TICK: Duration = Duration::from_secs(10);

/// Follows the balancers of the live snapshot.
#[derive(Debug)]
pub struct Follower {
    news: Arc<News>,
    pools: Arc<Pools>,
    live: Mutex<Arc<[Arc<Balancer>]>>,
}

impl Follower {
    /// Follows nothing yet, and listens to `news`. The `pools` of addresses that nobody has are closed.
    pub fn new(news: Arc<News>, pools: Arc<Pools>) -> Self {
        Self {
            news,
            pools,
            live: Mutex::new(Arc::new([])),
        }
    }

    /// Follows `balancers`, once at once, and no others.
    pub fn adopt(&self, balancers: impl Iterator<Item = Arc<Balancer>>) {
        let balancers: Arc<[Arc<Balancer>]> = balancers.collect();
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&balancers);
        if follow(&balancers, &self.pools).is_some() {
            self.news.tell();
        }
    }

    /// Follows until it is dropped.
    pub async fn run(&self) {
        let mut pause = TICK;
        loop {
            // Silence is no reason not to look.
            let _ = tokio::time::timeout(pause, self.news.heard()).await;
            let live = Arc::clone(&self.live.lock().unwrap_or_else(PoisonError::into_inner));
            // Many members take a while, which the threads that serve requests do not have.
            let pools = Arc::clone(&self.pools);
            let followed = Handle::current()
                .spawn_blocking(move || follow(&live, &pools))
                .await;
            if let Err(cause) = &followed {
                error!(%cause, "following the members of upstreams failed");
            }
            pause = followed.ok().flatten().unwrap_or(TICK).min(TICK);
            tokio::time::sleep(GATHER).await;
        }
    }
}

/// Gives the time after which somebody is to be followed again though there are no news.
fn follow(balancers: &[Arc<Balancer>], pools: &Pools) -> Option<Duration> {
    let mut named = HashSet::new();
    let followed = balancers.iter().map(|balancer| {
        let again = balancer.follow();
        balancer.with_members(|members| named.extend(members.iter().map(|it| it.address)));
        again
    });
    let again = followed.reduce(|one, other| [one, other].into_iter().flatten().min());
    pools.keep_only(&named);
    again?
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::{
        state::{feed::Record, names::Names},
        upstream::{Key, Outline, TargetHost, balancer::tests::outline, target::tests::at},
    };

    #[tokio::test]
    async fn members_follow_a_name() {
        let news = Arc::new(News::default());
        let name = Names::new(Arc::clone(&news)).get("a.test");
        let mut target = at(1, 1);
        target.host = TargetHost::Name(Arc::clone(&name));
        let balancer = Arc::new(Balancer::new(Outline {
            news: Arc::clone(&news),
            ..outline(vec![target])
        }));
        let follower = Arc::new(Follower::new(news, Arc::default()));
        follower.adopt(std::iter::once(Arc::clone(&balancer)));
        let task = tokio::spawn({
            let follower = Arc::clone(&follower);
            async move { follower.run().await }
        });
        let address = IpAddr::from([10, 0, 0, 1]);
        name.feed().publish(vec![Record::of_address(address)]);
        tokio::time::timeout(Duration::from_secs(5), async {
            while balancer.pick(Key::Nothing, |_| true).is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the member in time");
        task.abort();
    }
}

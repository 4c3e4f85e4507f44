//! How many requests of an identity are under way at once, and the queue of those that wait for a place.
//!
//! A place is a [`Pass`] and goes back when it is dropped, however a request ends: to whoever waits
//! longest and is still there. Only identities with requests under way are held, so what is held is
//! bounded by them.

use std::{
    collections::{HashMap, VecDeque, hash_map},
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::registry::Registry;
use crate::telemetry::admissions::{Admissions, Level};

/// Locks by which requests of different identities do not wait for each other.
const SHARDS: usize = 16;

/// How many requests of one identity there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// At once, between admission and the end of the response.
    pub running: u32,
    /// Waiting behind those.
    pub waiting: u32,
}

/// All turnstiles of the process, found by the stable identity of the plugin instance they belong to.
#[derive(Debug, Default)]
pub struct Turnstiles(Registry<Uuid, Turnstile>);

impl Turnstiles {
    /// The turnstile of instance `id`: the one that is in use, with whoever is inside, or an empty one.
    pub fn of(&self, id: Uuid, admissions: &Arc<Admissions>) -> Arc<Turnstile> {
        self.0
            .get_or_create(id, || Turnstile::new(Arc::clone(admissions)))
    }

    /// The instances whose turnstiles are in use.
    pub fn instances(&self) -> Vec<Uuid> {
        self.0.keys()
    }

    /// Forgets the names of those that are gone.
    pub fn sweep(&self) {
        self.0.sweep();
    }
}

/// The 128-bit hash of whose requests they are, under keys that nobody knows.
type Identity = (u64, u64);

/// The requests of one plugin instance.
pub struct Turnstile {
    keys: [RandomState; 2],
    shards: Box<[Mutex<HashMap<Identity, Line, ahash::RandomState>>]>,
    admissions: Arc<Admissions>,
}

/// The requests of one identity. It is there as long as there are some.
#[derive(Debug, Default)]
struct Line {
    inside: u32,
    /// What the latest request to come found configured.
    running_max: u32,
    waiting: VecDeque<oneshot::Sender<Pass>>,
    /// How many of those in the queue left it, at most.
    gone: usize,
}

/// What a request finds at a turnstile.
#[derive(Debug)]
pub enum Entrance {
    /// There is a place.
    Open(Pass),
    /// There may be one later.
    Queue(Ticket),
    /// Too many wait.
    Full,
}

impl Turnstile {
    fn new(admissions: Arc<Admissions>) -> Self {
        Self {
            keys: [RandomState::new(), RandomState::new()],
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            admissions,
        }
    }

    /// Lets a request of `identity` in, or queue up, within `bounds`. Those who wait are let in first.
    pub fn enter(self: &Arc<Self>, identity: &(impl Hash + ?Sized), bounds: Bounds) -> Entrance {
        let identity = (
            self.keys[0].hash_one(identity),
            self.keys[1].hash_one(identity),
        );
        let mut shard = self.shard(identity);
        let line = shard.entry(identity).or_default();
        line.running_max = bounds.running;
        if line.inside < line.running_max && !line.waiting.is_empty() {
            // There are more places than before, or somebody left; who waited is first.
            drop(shard);
            self.let_in(identity);
            shard = self.shard(identity);
        }
        let line = shard.entry(identity).or_default();
        line.running_max = bounds.running;
        // Those who left the queue are looked for only where they are in the way.
        if line.gone > 0 && line.waiting.len() >= bounds.waiting as usize {
            line.waiting.retain(|sender| !sender.is_closed());
            line.gone = 0;
        }
        if line.inside < line.running_max && line.waiting.is_empty() {
            line.inside += 1;
            drop(shard);
            return Entrance::Open(self.pass(identity));
        }
        if line.waiting.len() >= bounds.waiting as usize {
            return Entrance::Full;
        }
        let (sender, granted) = oneshot::channel();
        line.waiting.push_back(sender);
        drop(shard);
        // Somebody may have left between the two looks at the line.
        self.let_in(identity);
        Entrance::Queue(Ticket {
            turnstile: Arc::clone(self),
            identity,
            granted,
            _waiting: Level::begin(&self.admissions, |admissions| &admissions.waiting),
        })
    }

    /// How many identities have requests under way.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether no request is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn pass(self: &Arc<Self>, identity: Identity) -> Pass {
        Pass {
            turnstile: Some(Arc::clone(self)),
            identity,
            _running: Level::begin(&self.admissions, |admissions| &admissions.running),
        }
    }

    fn shard(
        &self,
        identity: Identity,
    ) -> MutexGuard<'_, HashMap<Identity, Line, ahash::RandomState>> {
        let number = usize::try_from(identity.1 % SHARDS as u64).unwrap_or(0);
        lock(&self.shards[number])
    }

    /// Gives free places to those who wait longest.
    fn let_in(self: &Arc<Self>, identity: Identity) {
        while let Some(next) = self.next(identity) {
            if let Err(mut pass) = next.send(self.pass(identity)) {
                // Whoever waited is gone; the place is not given back by way of the pass, but here.
                pass.turnstile = None;
                self.vacate(identity);
            }
        }
    }

    /// Takes a place for the one who waits longest, if there is a place and somebody.
    fn next(&self, identity: Identity) -> Option<oneshot::Sender<Pass>> {
        let mut shard = self.shard(identity);
        let hash_map::Entry::Occupied(mut entry) = shard.entry(identity) else {
            return None;
        };
        let line = entry.get_mut();
        if line.inside < line.running_max {
            while let Some(sender) = line.waiting.pop_front() {
                if !sender.is_closed() {
                    line.inside += 1;
                    return Some(sender);
                }
                line.gone = line.gone.saturating_sub(1);
            }
        }
        if line.inside == 0 && line.waiting.is_empty() {
            entry.remove();
        }
        None
    }

    fn vacate(&self, identity: Identity) {
        if let Some(line) = self.shard(identity).get_mut(&identity) {
            line.inside = line.inside.saturating_sub(1);
        }
    }

    fn note_departure(&self, identity: Identity) {
        if let Some(line) = self.shard(identity).get_mut(&identity) {
            line.gone += 1;
        }
    }
}

impl fmt::Debug for Turnstile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Turnstile").finish_non_exhaustive()
    }
}

fn lock<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place among those under way. Dropping it gives it back.
#[derive(Debug)]
pub struct Pass {
    /// Absent once the place is given back.
    turnstile: Option<Arc<Turnstile>>,
    identity: Identity,
    _running: Level,
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(turnstile) = self.turnstile.take() {
            turnstile.vacate(self.identity);
            turnstile.let_in(self.identity);
        }
    }
}

/// A place in the queue. Dropping it leaves the queue; a pass that was granted meanwhile goes on to the
/// next.
#[derive(Debug)]
pub struct Ticket {
    turnstile: Arc<Turnstile>,
    identity: Identity,
    granted: oneshot::Receiver<Pass>,
    _waiting: Level,
}

impl Ticket {
    /// Waits until it is this request's turn; `None` never comes while the turnstile is held.
    pub async fn turn(&mut self) -> Option<Pass> {
        (&mut self.granted).await.ok()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.granted.is_terminated() {
            return;
        }
        // Whoever looks for those that were counted must find them closed.
        self.granted.close();
        if self.granted.try_recv().is_err() {
            self.turnstile.note_departure(self.identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;

    use super::*;

    const ONE: Bounds = Bounds {
        running: 1,
        waiting: 2,
    };

    fn turnstile() -> Arc<Turnstile> {
        Arc::new(Turnstile::new(Arc::default()))
    }

    fn open(entrance: Entrance) -> Pass {
        match entrance {
            Entrance::Open(pass) => pass,
            other => panic!("expected a place, got {other:?}"),
        }
    }

    fn queued(entrance: Entrance) -> Ticket {
        match entrance {
            Entrance::Queue(ticket) => ticket,
            other => panic!("expected to wait, got {other:?}"),
        }
    }

    fn granted(ticket: &mut Ticket) -> Option<Pass> {
        ticket.turn().now_or_never().flatten()
    }

    #[test]
    fn places_go_in_the_order_of_arrival_and_nobody_overtakes() {
        let turnstile = turnstile();
        let first = open(turnstile.enter("a", ONE));
        let mut second = queued(turnstile.enter("a", ONE));
        let mut third = queued(turnstile.enter("a", ONE));
        assert!(matches!(turnstile.enter("a", ONE), Entrance::Full));
        assert!(granted(&mut second).is_none());
        drop(first);
        let pass = granted(&mut second).expect("it is the second's turn");
        assert!(granted(&mut third).is_none());
        let mut fourth = queued(turnstile.enter("a", ONE));
        drop(pass);
        let pass = granted(&mut third).expect("it is the third's turn");
        assert!(granted(&mut fourth).is_none());
        drop(pass);
        drop(granted(&mut fourth).expect("it is the fourth's turn"));
        assert!(turnstile.is_empty());
    }

    #[test]
    fn whoever_leaves_the_queue_takes_no_place() {
        let turnstile = turnstile();
        let inside = open(turnstile.enter("a", ONE));
        let gone = queued(turnstile.enter("a", ONE));
        let mut stays = queued(turnstile.enter("a", ONE));
        drop(gone);
        let mut late = queued(turnstile.enter("a", ONE));
        drop(inside);
        let pass = granted(&mut stays).expect("it is the turn of who stayed");
        drop(stays);
        drop(pass);
        // A pass that was granted and never taken goes on as well.
        let last = queued(turnstile.enter("a", ONE));
        drop(granted(&mut late));
        drop(last);
        assert!(turnstile.is_empty());
    }

    #[test]
    fn only_those_who_leave_the_queue_have_it_looked_through() {
        let turnstile = turnstile();
        let gone = || -> usize {
            let shards = turnstile.shards.iter();
            shards
                .map(|shard| lock(shard).values().map(|line| line.gone).sum::<usize>())
                .sum()
        };
        let inside = open(turnstile.enter("a", ONE));
        let leaves = queued(turnstile.enter("a", ONE));
        let mut stays = queued(turnstile.enter("a", ONE));
        assert!(matches!(turnstile.enter("a", ONE), Entrance::Full));
        assert_eq!(gone(), 0);
        drop(leaves);
        assert_eq!(gone(), 1);
        let late = queued(turnstile.enter("a", ONE));
        assert_eq!(gone(), 0);
        assert!(matches!(turnstile.enter("a", ONE), Entrance::Full));
        drop(inside);
        let pass = granted(&mut stays).expect("it is the turn of who stayed");
        drop(stays);
        assert_eq!(gone(), 0, "who was let in has not left");
        drop(late);
        assert_eq!(gone(), 1);
        drop(pass);
        assert!(turnstile.is_empty());
    }

    #[test]
    fn identities_do_not_wait_for_each_other_and_are_forgotten() {
        let turnstile = turnstile();
        let passes: Vec<_> = (0..1000)
            .map(|identity| open(turnstile.enter(&identity, ONE)))
            .collect();
        assert_eq!(turnstile.len(), 1000);
        drop(passes);
        assert!(turnstile.is_empty());
    }

    #[test]
    fn a_refusal_leaves_nothing_behind() {
        let turnstile = turnstile();
        let bounds = Bounds {
            running: 1,
            waiting: 0,
        };
        let pass = open(turnstile.enter("a", bounds));
        assert!(matches!(turnstile.enter("a", bounds), Entrance::Full));
        drop(pass);
        assert!(turnstile.is_empty());
    }

    #[test]
    fn a_raised_limit_lets_those_in_who_wait_and_a_lowered_one_waits_for_those_inside() {
        let turnstile = turnstile();
        let first = open(turnstile.enter("a", ONE));
        let mut second = queued(turnstile.enter("a", ONE));
        let raised = Bounds {
            running: 3,
            waiting: 2,
        };
        let third = open(turnstile.enter("a", raised));
        let passes = [granted(&mut second), Some(third)];
        assert!(passes.iter().all(Option::is_some));
        let mut fourth = queued(turnstile.enter("a", ONE));
        drop(passes);
        assert!(granted(&mut fourth).is_none());
        drop(first);
        assert!(granted(&mut fourth).is_some());
    }

    #[test]
    fn no_place_is_lost_or_made_when_threads_come_wait_and_leave_at_once() {
        let turnstile = turnstile();
        let bounds = Bounds {
            running: 3,
            waiting: 4,
        };
        let inside = AtomicUsize::new(0);
        let most = AtomicUsize::new(0);
        let work = |pass: Pass| {
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            inside.fetch_sub(1, Ordering::SeqCst);
            drop(pass);
        };
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (turnstile, work) = (&turnstile, &work);
                scope.spawn(move || {
                    for round in 0..2000 {
                        match turnstile.enter("a", bounds) {
                            Entrance::Open(pass) => work(pass),
                            Entrance::Queue(mut ticket) => {
                                // Some leave while they wait.
                                let patience = (thread + round) % 3 * 20;
                                let pass = (0..patience).find_map(|_| {
                                    std::thread::yield_now();
                                    granted(&mut ticket)
                                });
                                drop(ticket);
                                pass.map(work);
                            }
                            Entrance::Full => std::thread::yield_now(),
                        }
                    }
                });
            }
        });
        assert!(turnstile.is_empty(), "a place was lost");
        assert!(most.load(Ordering::SeqCst) <= 3, "a place was made");
        assert_eq!(turnstile.admissions.running.get(), 0);
        assert_eq!(turnstile.admissions.waiting.get(), 0);
    }
}

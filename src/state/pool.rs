//! Idle connections to upstreams, one pool for each address. When no live member has an address any
//! more, its pool closes what it holds and what comes back.
//!
//! A pool has several shelves. A thread puts and takes from its own first, so threads wait for each
//! other only where one has nothing left.

use std::{
    collections::{HashSet, VecDeque},
    fmt::Debug,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    time::Instant,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::registry::Registry;

/// Threads beyond this number share shelves.
const SHELVES_MAX: usize = 16;

/// What bytes go over, with or without TLS.
pub trait Socket: AsyncRead + AsyncWrite + Debug + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Debug + Send + Sync + Unpin> Socket for S {}

/// With whom a TLS connection was made. Where this differs no connection stands in for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counterpart {
    /// Differs wherever trust or the client certificate differs.
    pub terms: u64,
    pub server_name: Box<str>,
}

/// A connection to an upstream over which requests go one after the other.
#[derive(Debug)]
pub struct Wire {
    pub socket: Box<dyn Socket>,
    /// Absent without TLS.
    pub counterpart: Option<Counterpart>,
    /// Requests that it was used for.
    pub requests: u32,
    /// Wakes whoever waits for it. It is kept, because setting a timer costs more than leaving one.
    pub timer: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    /// A new connection.
    pub fn new(socket: Box<dyn Socket>, counterpart: Option<Counterpart>) -> Self {
        Self {
            socket,
            counterpart,
            requests: 0,
            timer: None,
        }
    }

    /// Whether it is open and silent. An upstream says nothing unless it is asked, so whatever it
    /// sends belongs to no request.
    fn is_idle(&mut self) -> bool {
        let mut space = [0];
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(&mut self.socket)
            .poll_read(&mut context, &mut ReadBuf::new(&mut space))
            .is_pending()
    }
}

/// A connection that nobody uses.
#[derive(Debug)]
struct Idle {
    wire: Wire,
    until: Instant,
}

/// The pools of all addresses that some member has.
pub type Pools = Registry<SocketAddr, Pool>;

impl Pools {
    /// Closes what was idle for too long at `now`, and what upstreams have closed.
    pub fn reclaim(&self, now: Instant) {
        for pool in self.values() {
            pool.reclaim(now);
        }
    }

    /// Closes the idle connections to all other addresses than these, also those that requests
    /// give back later.
    pub fn keep_only(&self, named: &HashSet<SocketAddr>) {
        for (address, pool) in self.entries() {
            pool.open_or_close(named.contains(&address));
        }
    }
}

type Shelf = VecDeque<Idle>;

/// The idle connections to one address.
#[derive(Debug)]
pub struct Pool {
    shelves: Box<[Mutex<Shelf>]>,
    idle: AtomicUsize,
    is_closed: AtomicBool,
}

impl Default for Pool {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            shelves: (0..threads.min(SHELVES_MAX))
                .map(|_| Mutex::default())
                .collect(),
            idle: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
        }
    }
}

impl Pool {
    /// Takes the connection to `counterpart` that was used last, if one is idle at `now`.
    pub fn take(&self, counterpart: Option<&Counterpart>, now: Instant) -> Option<Wire> {
        if self.idle.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.shelves_from_own().find_map(|shelf| {
            loop {
                // What turns out to be closed is dropped while nobody waits.
                let mut idle = self.take_from(shelf, counterpart)?;
                if idle.until > now && idle.wire.is_idle() {
                    return Some(idle.wire);
                }
            }
        })
    }

    fn take_from(&self, from: &Mutex<Shelf>, counterpart: Option<&Counterpart>) -> Option<Idle> {
        let mut all = lock(from);
        let fits = |idle: &Idle| idle.wire.counterpart.as_ref() == counterpart;
        let place = all.iter().rposition(fits)?;
        let idle = all.remove(place);
        self.idle.fetch_sub(1, Ordering::Relaxed);
        idle
    }

    /// Keeps `wire` until somebody takes it, at most until `until`. Of more than `size` the one that
    /// was unused longest goes.
    pub fn put(&self, wire: Wire, until: Instant, size: usize) {
        if self.is_closed.load(Ordering::Relaxed) {
            return;
        }
        let Some(own) = self.shelves_from_own().next() else {
            return;
        };
        let is_full = self.idle.fetch_add(1, Ordering::Relaxed) >= size;
        let mut wires = lock(own);
        wires.push_back(Idle { wire, until });
        if is_full {
            let oldest = wires.pop_front();
            self.idle.fetch_sub(1, Ordering::Relaxed);
            drop(wires);
            drop(oldest);
        }
    }

    /// Closes what was idle for too long at `now`, and what the upstream has closed.
    fn reclaim(&self, now: Instant) {
        self.retain(|idle| idle.until > now && idle.wire.is_idle());
    }

    fn open_or_close(&self, is_open: bool) {
        self.is_closed.store(!is_open, Ordering::Relaxed);
        if !is_open {
            self.retain(|_| false);
        }
    }

    fn retain(&self, mut is_kept: impl FnMut(&mut Idle) -> bool) {
        for shelf in &self.shelves {
            let mut wires = lock(shelf);
            let before = wires.len();
            wires.retain_mut(&mut is_kept);
            self.idle.fetch_sub(before - wires.len(), Ordering::Relaxed);
        }
    }

    /// All shelves, that of the current thread first.
    fn shelves_from_own(&self) -> impl Iterator<Item = &Mutex<Shelf>> {
        let own = own_shelf() % self.shelves.len();
        let (before, from) = self.shelves.split_at(own);
        from.iter().chain(before)
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of the current thread.
fn own_shelf() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    OWN.with(|own| *own)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::state::clock::Clock;

    /// A connection and its other end.
    fn wire(counterpart: Option<&Counterpart>) -> (Wire, DuplexStream) {
        let (near, far) = duplex(64);
        (Wire::new(Box::new(near), counterpart.cloned()), far)
    }

    fn counterpart(terms: u64, server_name: &str) -> Counterpart {
        Counterpart {
            terms,
            server_name: server_name.into(),
        }
    }

    fn now() -> Instant {
        Clock::system().instant()
    }

    fn later(now: Instant) -> Instant {
        now + Duration::from_mins(1)
    }

    #[test]
    fn the_connection_used_last_comes_first() {
        let (pool, now) = (Pool::default(), now());
        let ends: Vec<_> = (1..=2)
            .map(|requests| {
                let (mut wire, end) = wire(None);
                wire.requests = requests;
                pool.put(wire, later(now), 8);
                end
            })
            .collect();
        let requests = || pool.take(None, now).map(|wire| wire.requests);
        assert_eq!(
            [requests(), requests(), requests()],
            [Some(2), Some(1), None]
        );
        drop(ends);
    }

    #[test]
    fn what_another_thread_put_is_found() {
        let (pool, now) = (Pool::default(), now());
        let (wire, _end) = wire(None);
        std::thread::scope(|scope| {
            scope.spawn(|| pool.put(wire, later(now), 8));
        });
        assert!(pool.take(None, now).is_some());
    }

    #[test]
    fn a_connection_serves_only_its_own_counterpart() {
        let (pool, now) = (Pool::default(), now());
        let (one, other) = (counterpart(1, "a.test"), counterpart(1, "b.test"));
        let (kept, _end) = wire(Some(&one));
        pool.put(kept, later(now), 8);
        for stranger in [None, Some(&other), Some(&counterpart(2, "a.test"))] {
            assert!(pool.take(stranger, now).is_none());
        }
        assert!(pool.take(Some(&one), now).is_some());
    }

    #[tokio::test]
    async fn what_is_closed_or_speaks_unasked_is_not_given() {
        let (pool, now) = (Pool::default(), now());
        let (closed, end) = wire(None);
        drop(end);
        let (speaks, mut end) = wire(None);
        end.write_all(b"surplus").await.expect("written");
        pool.put(closed, later(now), 8);
        pool.put(speaks, later(now), 8);
        assert!(pool.take(None, now).is_none());
        assert_eq!(pool.idle.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_oldest_goes_when_the_pool_is_full() {
        let (pool, now) = (Pool::default(), now());
        let ends: Vec<_> = (1..=3)
            .map(|requests| {
                let (mut wire, end) = wire(None);
                wire.requests = requests;
                pool.put(wire, later(now), 2);
                end
            })
            .collect();
        let left = std::iter::from_fn(|| pool.take(None, now)).map(|wire| wire.requests);
        assert_eq!(left.collect::<Vec<_>>(), [3, 2]);
        drop(ends);
    }

    #[test]
    fn a_pool_whose_address_is_not_named_keeps_nothing_until_it_is_again() {
        let (pools, now) = (Pools::default(), now());
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let pool = pools.get_or_create(address, Pool::default);
        let put = || {
            let (wire, end) = wire(None);
            pool.put(wire, later(now), 8);
            end
        };
        let ends = [put(), {
            pools.keep_only(&HashSet::new());
            put()
        }];
        assert!(pool.take(None, now).is_none());
        pools.keep_only(&HashSet::from([address]));
        let end = put();
        assert!(pool.take(None, now).is_some());
        drop((ends, end));
    }

    #[test]
    fn what_is_idle_for_too_long_or_closed_is_reclaimed() {
        let (pools, now) = (Pools::default(), now());
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let pool = pools.get_or_create(address, Pool::default);
        let (old, _old_end) = wire(None);
        let (closed, end) = wire(None);
        let (good, _good_end) = wire(None);
        drop(end);
        pool.put(old, now + Duration::from_secs(1), 8);
        pool.put(closed, later(now), 8);
        pool.put(good, later(now), 8);
        pools.reclaim(now + Duration::from_secs(2));
        assert_eq!(pool.idle.load(Ordering::Relaxed), 1);
        assert!(pool.take(None, now).is_some());
    }
}

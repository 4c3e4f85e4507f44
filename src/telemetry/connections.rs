//! How many client connections there are and what they do, as nginx and Kong tell it.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

use super::{SUBSYSTEM, count::Count, families, page::Page};

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Activity {
    /// A request head is arriving.
    Reading,
    /// A request is being answered.
    Writing,
    /// Nothing, between two requests.
    Waiting,
}

/// Bits for each activity in the one word that counts them all: two million connections each.
const LANE_BITS: u32 = 21;
const LANE_MASK: u64 = (1 << LANE_BITS) - 1;

impl Activity {
    /// One connection in the lane of this activity.
    const fn one(self) -> u64 {
        1 << (LANE_BITS * self as u32)
    }

    const fn from_u8(number: u8) -> Self {
        match number {
            0 => Self::Reading,
            1 => Self::Writing,
            _ => Self::Waiting,
        }
    }
}

/// Counts client connections. A connection is in exactly one activity, and going from one to the
/// next is a single addition, so that the numbers always fit together.
#[derive(Debug, Default)]
pub struct Connections {
    accepted: Count,
    handled: Count,
    activities: AtomicU64,
    turned_away: [Count; TurnedAway::ALL.len()],
}

/// Why a connection was closed before it could carry a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// It did not begin with a PROXY header, where one is required.
    ProxyProtocol,
}

impl TurnedAway {
    const ALL: [Self; 1] = [Self::ProxyProtocol];

    /// The metric label `reason`.
    const fn code(self) -> &'static str {
        match self {
            Self::ProxyProtocol => "proxy_protocol",
        }
    }
}

/// The numbers at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// Since the start.
    pub accepted: u64,
    /// Since the start. The same as `accepted`: none is dropped before it is looked at.
    pub handled: u64,
    pub reading: u64,
    pub writing: u64,
    pub waiting: u64,
}

impl ConnectionCounts {
    /// The connections that are open.
    pub const fn active(self) -> u64 {
        self.reading + self.writing + self.waiting
    }
}

impl Connections {
    /// A connection was accepted. It counts as open, and as reading, until the guard is dropped.
    pub fn accept(self: &Arc<Self>) -> Connection {
        self.accepted.inc();
        self.handled.inc();
        let activity = Activity::Reading;
        self.activities.fetch_add(activity.one(), Ordering::Relaxed);
        Connection {
            among: Arc::clone(self),
            activity: AtomicU8::new(activity as u8),
        }
    }

    /// A connection is closed before it could carry a request.
    pub fn turned_away(&self, reason: TurnedAway) {
        self.turned_away[reason as usize].inc();
    }

    /// The numbers now.
    pub fn counts(&self) -> ConnectionCounts {
        let activities = self.activities.load(Ordering::Relaxed);
        let lane = |activity: Activity| (activities >> (LANE_BITS * activity as u32)) & LANE_MASK;
        ConnectionCounts {
            accepted: self.accepted.get(),
            handled: self.handled.get(),
            reading: lane(Activity::Reading),
            writing: lane(Activity::Writing),
            waiting: lane(Activity::Waiting),
        }
    }

    /// Writes the family. `total` is the number of requests, as in nginx' status page.
    pub(super) fn write(&self, page: &mut Page, node_id: &str, total: u64) {
        let counts = self.counts();
        let mut family = page.family(&families::CONNECTIONS);
        for (state, value) in [
            ("accepted", counts.accepted),
            ("active", counts.active()),
            ("handled", counts.handled),
            ("reading", counts.reading),
            ("total", total),
            ("waiting", counts.waiting),
            ("writing", counts.writing),
        ] {
            family.gauge(&[node_id, SUBSYSTEM, state], super::page::number(value));
        }
        family.end();
        let mut family = page.family(&families::CONNECTIONS_TURNED_AWAY);
        for (reason, count) in TurnedAway::ALL.iter().zip(&self.turned_away) {
            family.count(&[reason.code()], count.get());
        }
        family.end();
    }
}

/// An open client connection. Dropping it closes it in the numbers.
#[derive(Debug)]
pub struct Connection {
    among: Arc<Connections>,
    activity: AtomicU8,
}

impl Connection {
    /// The connection goes on to another activity.
    pub fn enter(&self, next: Activity) {
        let before = Activity::from_u8(self.activity.swap(next as u8, Ordering::Relaxed));
        if before != next {
            self.among
                .activities
                .fetch_add(next.one().wrapping_sub(before.one()), Ordering::Relaxed);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let last = Activity::from_u8(*self.activity.get_mut());
        self.among
            .activities
            .fetch_sub(last.one(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_connection_is_in_exactly_one_activity() {
        let connections = Arc::new(Connections::default());
        let first = connections.accept();
        let second = connections.accept();
        first.enter(Activity::Writing);
        first.enter(Activity::Writing);
        second.enter(Activity::Waiting);
        let _third = connections.accept();
        let counts = connections.counts();
        assert_eq!((counts.reading, counts.writing, counts.waiting), (1, 1, 1));
        drop((first, second));
        assert_eq!(connections.counts().active(), 1);
        assert_eq!(connections.counts().accepted, 3);
    }

    #[test]
    fn many_threads_leave_nothing_behind() {
        let connections = Arc::new(Connections::default());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        let connection = connections.accept();
                        connection.enter(Activity::Writing);
                        connection.enter(Activity::Waiting);
                        connection.enter(Activity::Reading);
                    }
                });
            }
        });
        assert_eq!(connections.counts().active(), 0);
        assert_eq!(connections.counts().handled, 4_000);
    }
}

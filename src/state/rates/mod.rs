//! Local rate counters: how often each identity was admitted in the current calendar windows.
//!
//! # What a [`Table`] promises
//!
//! * Windows are calendar windows of UTC (see [`Period`]). One hit checks and counts all limited
//!   periods of an identity in one step, so with limit N exactly N hits of a window pass, however
//!   many threads try. A refused hit counts nowhere.
//! * Up to `max_keys` identities are counted exactly; a million of them take 90 MiB. Identities are
//!   kept as 128-bit hashes under random keys, so a long header value costs as much as a short one and
//!   nobody can construct two that collide.
//! * [`Rates::reclaim`] frees the counters whose windows ended. It holds one shard's lock for the
//!   time of one small chunk, so hits do not wait for it.
//! * A time that lies a second or less before an identity's last admission counts as that last
//!   admission: threads overtake each other at the edge of a window, and leap seconds are repeated.
//!   After a greater step back the wall clock alone says which window it is.
//!
//! # What happens above `max_keys`
//!
//! A new identity takes the place of another one of the same shard, chosen by these rules:
//!
//! 1. The least recently admitted goes first; an identity at one of its limits goes only if its
//!    whole shard is at a limit, and one that was even turned away goes last of all.
//! 2. The shard notes who went: one half of the hash (the other half selects where the note is
//!    kept) and which limits were reached. The counts go into a count-min sketch of
//!    `pingora-limits` for the window they belong to.
//! 3. An identity that is neither in the table nor noted is new and starts at zero. The
//!    sketch is not even asked, so its over-counting cannot charge or refuse a new identity.
//! 4. An identity that is noted continues from the sketch's estimate, which is never below
//!    its true count. It is refused at once only if it had reached the limit when it went and the
//!    estimate reaches the limit of today; otherwise the estimate is capped so that a hit passes.
//! 5. Notes are bounded too, 16 bytes each and as many as keys (65,536 to 1,048,576), and go in the
//!    same order. Whoever is forgotten altogether starts at zero.
//!
//! So a flood of invented keys grows the memory to a fixed bound only, evicts and forgets its own
//! keys before those of a blocked client, and never blocks anybody. It would take as many
//! identities turned away in one window as there are places to free one that is blocked.

mod calendar;
mod evicted;
mod limits;
mod moment;
mod shard;
mod slab;
mod table;

use std::sync::Arc;

use uuid::Uuid;

use super::registry::Registry;

pub use calendar::{Period, Timestamp};
pub use limits::{Limits, Usage};
pub use table::Table;

/// All tables of the process, found by the stable identity of the plugin instance they belong to.
#[derive(Debug, Default)]
pub struct Rates {
    tables: Registry<Uuid, Table>,
}

impl Rates {
    /// The table of instance `id`: the one that is in use, with its counts, or an empty one.
    /// From now on it keeps `max_keys` identities. It goes when its last holder goes.
    pub fn table(&self, id: Uuid, max_keys: usize) -> Arc<Table> {
        let table = self.tables.get_or_create(id, || Table::new(max_keys));
        table.resize(max_keys);
        table
    }

    /// The instances whose tables are in use.
    pub fn instances(&self) -> Vec<Uuid> {
        self.tables.keys()
    }

    /// Frees the counters whose windows ended before `now`, and the names of tables that are gone.
    /// To be called about once a second; cheap when nothing ended.
    pub fn reclaim(&self, now: Timestamp) {
        for table in self.tables.values() {
            table.reclaim(now);
        }
        self.tables.sweep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn per_hour(limit: f64) -> Limits {
        Limits::new(|period| (period == Period::Hour).then_some(limit))
    }

    #[test]
    fn a_new_limit_and_a_new_bound_keep_the_counts() {
        let rates = Rates::default();
        let now = Timestamp::from_unix_milliseconds(0);
        let before = rates.table(Uuid::nil(), 1000);
        assert!(before.hit("bob", &per_hour(1.0), now).is_admitted());
        let after = rates.table(Uuid::nil(), 2000);
        drop(before);
        assert!(!after.hit("bob", &per_hour(1.0), now).is_admitted());
        let usage = after.hit("bob", &per_hour(5.0), now);
        assert!(usage.is_admitted());
        assert!((usage.remaining(Period::Hour) - 3.0).abs() < f64::EPSILON);
    }

    #[test]
    fn tables_count_apart_and_go_with_their_last_holder() {
        let rates = Rates::default();
        let now = Timestamp::from_unix_milliseconds(0);
        let one = rates.table(Uuid::from_u128(1), 1000);
        let two = rates.table(Uuid::from_u128(2), 1000);
        assert!(one.hit("bob", &per_hour(1.0), now).is_admitted());
        assert!(two.hit("bob", &per_hour(1.0), now).is_admitted());
        drop(one);
        rates.reclaim(now);
        assert_eq!(rates.tables.values().len(), 1);
        let again = rates.table(Uuid::from_u128(1), 1000);
        assert!(again.hit("bob", &per_hour(1.0), now).is_admitted());
    }
}

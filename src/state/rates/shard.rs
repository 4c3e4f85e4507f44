//! A part of a table under one lock: finds the counters of an identity, keeps them in the order of
//! eviction, and frees those whose windows ended.

use hashbrown::HashTable;

use super::{
    calendar::Second,
    evicted::{Notes, Sketches},
    limits::Usage,
    moment::Moment,
    slab::{Entry, Identity, Place, Slab, Tier},
};

/// With several periods a counter may be at a limit while younger ones of its tier are no longer:
/// the most that an eviction looks past.
const LOOK_PAST_MAX: usize = 16;

/// Entries of one tier, from the oldest to the newest.
#[derive(Debug, Default, Clone, Copy)]
struct List {
    oldest: Option<Place>,
    newest: Option<Place>,
}

/// See the module. All methods expect the caller to hold the shard's lock.
#[derive(Debug)]
pub(super) struct Shard {
    index: HashTable<Place>,
    slab: Slab,
    /// By [`Tier`]. The first two are in the order of admission, the last in that of refusal.
    tiers: [List; Tier::COUNT],
    notes: Notes,
    /// No entry's last window ends before.
    next_expiry: Second,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            index: HashTable::new(),
            slab: Slab::default(),
            tiers: [List::default(); Tier::COUNT],
            notes: Notes::default(),
            next_expiry: Second::MAX,
        }
    }
}

impl Shard {
    /// Where the counters of `identity` are.
    pub(super) fn find(&self, identity: Identity) -> Option<Place> {
        self.index
            .find(identity.hash, |&place| {
                self.slab[place].identity == identity
            })
            .copied()
    }

    /// Adds the counters of an identity that is not here: from its note if it was evicted in a
    /// current window, else from zero.
    pub(super) fn insert(
        &mut self,
        identity: Identity,
        moment: &Moment,
        sketches: &Sketches,
    ) -> Place {
        let entry = self
            .notes
            .take(identity, moment, sketches)
            .unwrap_or_else(|| Entry::new(identity, moment.second));
        self.store(entry)
    }

    /// Admits and counts one hit, or refuses it.
    pub(super) fn hit(&mut self, place: Place, moment: &Moment) -> Usage {
        let entry = &mut self.slab[place];
        let (usage, is_spent) = moment.hit(entry);
        let tier = match (usage.is_admitted(), is_spent) {
            (true, false) => Tier::Open,
            (true, true) => Tier::Spent,
            (false, _) => Tier::Refused,
        };
        self.next_expiry = self.next_expiry.min(entry.expires);
        self.move_to_newest(place, tier);
        usage
    }

    /// Removes one entry to make room and notes it down; false if there is none.
    pub(super) fn evict(&mut self, moment: &Moment, sketches: &Sketches, notes_max: usize) -> bool {
        let Some(place) = self.pick_victim(moment) else {
            return false;
        };
        self.notes
            .write(&self.slab[place], moment, sketches, notes_max);
        self.remove(place);
        true
    }

    /// Frees the entries of one chunk whose windows ended. Gives how many they were, and the next
    /// chunk to look at; `None` when this round is over. A round begins with chunk 0.
    pub(super) fn reclaim(&mut self, chunk: usize, now: Second) -> (usize, Option<usize>) {
        if chunk == 0 {
            self.notes.reclaim(now);
            if now < self.next_expiry {
                return (0, None);
            }
            self.next_expiry = Second::MAX;
        }
        let before = self.slab.len();
        for place in self.slab.places(chunk) {
            let Entry { expires, tier, .. } = self.slab[place];
            if tier.is_none() {
                continue;
            }
            if expires <= now {
                self.remove(place);
            } else {
                self.next_expiry = self.next_expiry.min(expires);
            }
        }
        let freed = before - self.slab.len();
        if chunk + 1 < self.slab.chunks() {
            return (freed, Some(chunk + 1));
        }
        if self.slab.len() * 4 < self.slab.capacity() {
            self.shrink();
        }
        (freed, None)
    }

    /// The least recently admitted entry that is at no limit now; failing that, one that is at a
    /// limit; failing that, one that was turned away.
    fn pick_victim(&mut self, moment: &Moment) -> Option<Place> {
        let candidates = [
            self.tiers[Tier::Open as usize].oldest,
            self.oldest_lapsed(Tier::Spent, moment),
            self.oldest_lapsed(Tier::Refused, moment),
        ];
        candidates
            .into_iter()
            .flatten()
            .min_by_key(|&place| self.slab[place].at)
            .or(self.tiers[Tier::Spent as usize].oldest)
            .or(self.tiers[Tier::Refused as usize].oldest)
    }

    /// The oldest entry of `tier` whose limits are not reached any more because windows ended.
    fn oldest_lapsed(&mut self, tier: Tier, moment: &Moment) -> Option<Place> {
        for _ in 0..LOOK_PAST_MAX {
            let place = self.tiers[tier as usize].oldest?;
            let entry = &self.slab[place];
            if !moment.is_exhausted(&entry.counts, entry.at) {
                return Some(place);
            }
            // With one period all windows of a tier end at once: nothing younger has lapsed.
            if moment.spans.len() == 1 {
                return None;
            }
            self.move_to_newest(place, tier);
        }
        None
    }

    fn store(&mut self, entry: Entry) -> Place {
        if self.index.len() == self.index.capacity() {
            self.rebuild_index();
        }
        let place = self.slab.insert(entry);
        self.link_newest(place, entry.tier.unwrap_or(Tier::Open));
        self.enter(place);
        place
    }

    fn enter(&mut self, place: Place) {
        let slab = &self.slab;
        let hash = |place: &Place| slab[*place].identity.hash;
        self.index.insert_unique(hash(&place), place, hash);
    }

    /// Makes an index with room for half as many entries again. The index could grow by itself, but
    /// it would look the entries up in random order, and hits would wait several times as long.
    fn rebuild_index(&mut self) {
        let len = self.slab.len();
        self.index = HashTable::with_capacity(len + len / 2 + 1);
        for chunk in 0..self.slab.chunks() {
            for place in self.slab.places(chunk) {
                if self.slab[place].tier.is_some() {
                    self.enter(place);
                }
            }
        }
    }

    fn remove(&mut self, place: Place) {
        self.unlink(place);
        let hash = self.slab[place].identity.hash;
        if let Ok(indexed) = self.index.find_entry(hash, |&candidate| candidate == place) {
            indexed.remove();
        }
        self.slab.remove(place);
    }

    /// Moves the entries into chunks that fit them.
    fn shrink(&mut self) {
        let mut smaller = Self {
            index: HashTable::with_capacity(self.slab.len()),
            notes: std::mem::take(&mut self.notes),
            next_expiry: self.next_expiry,
            ..Self::default()
        };
        for list in self.tiers {
            let mut next = list.oldest;
            while let Some(place) = next {
                let entry = self.slab[place];
                next = entry.newer;
                smaller.store(entry);
            }
        }
        *self = smaller;
    }

    fn move_to_newest(&mut self, place: Place, tier: Tier) {
        let entry = &self.slab[place];
        if entry.newer.is_some() || entry.tier != Some(tier) {
            self.unlink(place);
            self.link_newest(place, tier);
        }
    }

    fn link_newest(&mut self, place: Place, tier: Tier) {
        let older = self.tiers[tier as usize].newest.replace(place);
        match older {
            Some(older) => self.slab[older].newer = Some(place),
            None => self.tiers[tier as usize].oldest = Some(place),
        }
        let entry = &mut self.slab[place];
        entry.tier = Some(tier);
        entry.older = older;
        entry.newer = None;
    }

    fn unlink(&mut self, place: Place) {
        let Entry {
            newer, older, tier, ..
        } = self.slab[place];
        let Some(tier) = tier else { return };
        match older {
            Some(older) => self.slab[older].newer = newer,
            None => self.tiers[tier as usize].oldest = newer,
        }
        match newer {
            Some(newer) => self.slab[newer].older = older,
            None => self.tiers[tier as usize].newest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::rates::{
        calendar::{Period, Timestamp},
        limits::Limits,
    };

    fn identity(number: u64) -> Identity {
        Identity {
            hash: number,
            place: number,
        }
    }

    fn moment(second: u64) -> Moment {
        let limits = Limits::new(|period| (period == Period::Hour).then_some(3.0));
        let now = i64::try_from(second * 1000).unwrap();
        Moment::new(Timestamp::from_unix_milliseconds(now), &limits)
    }

    fn hit(shard: &mut Shard, number: u64, moment: &Moment) {
        let found = shard.find(identity(number));
        let place =
            found.unwrap_or_else(|| shard.insert(identity(number), moment, &Sketches::default()));
        shard.hit(place, moment);
    }

    /// The identities below `below` in the order in which they are evicted.
    fn evicted(shard: &mut Shard, below: u64, moment: &Moment) -> Vec<u64> {
        let mut order = Vec::new();
        let sketches = Sketches::default();
        while shard.evict(moment, &sketches, 64) {
            let gone = (0..below).filter(|&number| shard.find(identity(number)).is_none());
            let new: Vec<u64> = gone.filter(|number| !order.contains(number)).collect();
            order.extend(new);
        }
        order
    }

    #[test]
    fn the_least_recently_admitted_goes_first() {
        let mut shard = Shard::default();
        for (second, number) in (0..).zip([0, 1, 2, 3, 1, 4, 0]) {
            hit(&mut shard, number, &moment(second));
        }
        assert_eq!(evicted(&mut shard, 5, &moment(9)), [2, 3, 1, 4, 0]);
    }

    #[test]
    fn who_is_at_a_limit_goes_late_and_who_was_turned_away_last() {
        let mut shard = Shard::default();
        let hits = [(0, 4), (1, 3), (2, 4), (3, 1), (4, 3), (5, 2)];
        for (number, count) in hits {
            for _ in 0..count {
                hit(&mut shard, number, &moment(number));
            }
        }
        assert_eq!(evicted(&mut shard, 6, &moment(9)), [3, 5, 1, 4, 0, 2]);
    }

    #[test]
    fn who_was_blocked_in_a_window_that_is_over_goes_by_its_last_admission() {
        let mut shard = Shard::default();
        for _ in 0..4 {
            hit(&mut shard, 1, &moment(10));
        }
        hit(&mut shard, 0, &moment(5));
        hit(&mut shard, 2, &moment(20));
        assert_eq!(evicted(&mut shard, 3, &moment(3600)), [0, 1, 2]);
    }

    #[test]
    fn shrinking_keeps_what_is_left_and_its_order() {
        let mut shard = Shard::default();
        for number in 0..2000 {
            hit(&mut shard, number, &moment(number));
        }
        let kept = [7, 1999, 3];
        for (second, number) in (3600..).zip(kept) {
            hit(&mut shard, number, &moment(second));
        }
        let (mut next, mut freed) = (Some(0), 0);
        while let Some(chunk) = next {
            let part;
            (part, next) = shard.reclaim(chunk, 3600);
            freed += part;
        }
        assert_eq!((freed, shard.slab.len(), shard.slab.chunks()), (1997, 3, 1));
        let mut order = evicted(&mut shard, 2000, &moment(6000));
        order.retain(|number| kept.contains(number));
        assert_eq!(order, kept);
    }
}

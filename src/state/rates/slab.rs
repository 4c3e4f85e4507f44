//! Where counters lie: one cache line each, in chunks that do not move once full, so that a
//! table grows without copying and its memory is what its entries need.

use std::{
    num::NonZeroU32,
    ops::{Index, IndexMut},
};

use super::calendar::{Period, Second};

/// Entries of one chunk, and the most that are looked at under one hold of a shard's lock.
pub(super) const CHUNK: usize = 256;

/// A 128-bit hash of whose count it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    /// Finds the entry within its shard.
    pub(super) hash: u64,
    /// Selects the shard, and the place of the shard's note after an eviction.
    pub(super) place: u64,
}

/// How close to being refused an identity was seen last: the order of eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Tier {
    /// Below its limits.
    Open,
    /// At a limit, but not yet turned away.
    Spent,
    /// Turned away.
    Refused,
}

impl Tier {
    pub(super) const COUNT: usize = 3;
}

/// The counts of all six periods, each up to 2^40 - 1: over a year 34,000 a second. The width is
/// chosen so that an [`Entry`] is one cache line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts([[u8; Self::BYTES]; Period::ALL.len()]);

impl Counts {
    const BYTES: usize = 5;
    const MAX: u64 = (1 << (8 * Self::BYTES)) - 1;

    pub(super) fn get(&self, period: Period) -> u64 {
        let mut bytes = [0; size_of::<u64>()];
        bytes[..Self::BYTES].copy_from_slice(&self.0[period.index()]);
        u64::from_le_bytes(bytes)
    }

    pub(super) fn set(&mut self, period: Period, count: u64) {
        let bytes = count.min(Self::MAX).to_le_bytes();
        self.0[period.index()].copy_from_slice(&bytes[..Self::BYTES]);
    }
}

/// The counters of one identity.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) identity: Identity,
    /// When it was admitted last: says which windows `counts` belong to.
    pub(super) at: Second,
    /// When the last of these windows ends.
    pub(super) expires: Second,
    /// Neighbours in the list of `tier`; `older` also links the vacant entries.
    pub(super) newer: Option<Place>,
    pub(super) older: Option<Place>,
    pub(super) counts: Counts,
    /// `None` for a vacant entry.
    pub(super) tier: Option<Tier>,
}

impl Entry {
    /// An identity that was not admitted yet.
    pub(super) fn new(identity: Identity, now: Second) -> Self {
        Self {
            identity,
            at: now,
            expires: now,
            newer: None,
            older: None,
            counts: Counts::default(),
            tier: Some(Tier::Open),
        }
    }
}

const _: () = assert!(size_of::<Entry>() == 64, "an entry is one cache line");

/// Where an entry lies, until it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(NonZeroU32);

impl Place {
    fn new(index: usize) -> Self {
        let number = u32::try_from(index + 1).expect("a shard holds far fewer than 2^32 entries");
        Self(NonZeroU32::new(number).expect("one was added"))
    }

    const fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The entries of a shard.
#[derive(Debug, Default)]
pub(super) struct Slab {
    chunks: Vec<Vec<Entry>>,
    vacant: Option<Place>,
    len: usize,
}

impl Slab {
    /// How many entries there are.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// How many entries the chunks hold, vacant ones included.
    pub(super) const fn capacity(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// The number of chunks.
    pub(super) const fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The places in a chunk, vacant ones included.
    pub(super) fn places(&self, chunk: usize) -> impl Iterator<Item = Place> + use<> {
        let len = self.chunks.get(chunk).map_or(0, Vec::len);
        (0..len).map(move |offset| Place::new(chunk * CHUNK + offset))
    }

    /// Stores an entry, in a vacant place if there is one.
    pub(super) fn insert(&mut self, entry: Entry) -> Place {
        self.len += 1;
        if let Some(place) = self.vacant {
            self.vacant = self[place].older;
            self[place] = entry;
            return place;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            // Many tables know a handful of clients: the first chunk grows as it is needed.
            let capacity = if self.chunks.is_empty() { 4 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let last = self.chunks.last_mut().expect("a chunk was just added");
        last.push(entry);
        Place::new(before + last.len() - 1)
    }

    /// Makes a place vacant.
    pub(super) fn remove(&mut self, place: Place) {
        self.len -= 1;
        let vacant = self.vacant.replace(place);
        let entry = &mut self[place];
        entry.tier = None;
        entry.older = vacant;
    }
}

impl Index<Place> for Slab {
    type Output = Entry;

    fn index(&self, place: Place) -> &Entry {
        &self.chunks[place.index() / CHUNK][place.index() % CHUNK]
    }
}

impl IndexMut<Place> for Slab {
    fn index_mut(&mut self, place: Place) -> &mut Entry {
        &mut self.chunks[place.index() / CHUNK][place.index() % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_periods_are_kept_apart_and_stop_at_their_greatest_value() {
        let mut counts = Counts::default();
        for (period, count) in Period::ALL
            .into_iter()
            .zip([1, 1 << 31, 1 << 32, 7, 0, u64::MAX])
        {
            counts.set(period, count);
        }
        let read = Period::ALL.map(|period| counts.get(period));
        assert_eq!(read, [1, 1 << 31, 1 << 32, 7, 0, (1 << 40) - 1]);
    }
}

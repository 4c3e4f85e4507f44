//! What is left of the identities that had to go: a short note each in their shard, and their
//! counts in count-min sketches that all shards share.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use pingora_limits::estimator::Estimator;

use super::{
    calendar::{Period, Second, saturate},
    moment::{Moment, Span},
    slab::{Entry, Identity, Tier},
};

/// Rows and columns of a sketch: 2 MiB. With fewer columns the estimates of some ten thousand
/// identities are already useless.
const SKETCH: (usize, usize) = (4, 65_536);

/// Notes that share a place: one cache line of them.
const NOTES_PER_PLACE: usize = 4;

/// The counts of evicted identities, by period and window. Allocated when first needed.
#[derive(Default)]
pub(super) struct Sketches {
    /// Two for each period, so that the windows of even and odd number do not mix: one is cleared
    /// while the other is in use.
    pairs: [[Sketch; 2]; Period::ALL.len()],
}

#[derive(Default)]
struct Sketch {
    counts: OnceLock<Estimator>,
    /// When the window ends that was counted last; 0 for an empty sketch.
    ends: AtomicU32,
}

impl Sketches {
    fn sketch(&self, span: &Span) -> &Sketch {
        &self.pairs[span.period.index()][usize::from(span.window.is_odd)]
    }

    /// Makes sure that the estimate for `identity` is at least `count`. Raising it only by what is
    /// missing keeps the sketch far more exact than adding would.
    fn raise(&self, span: &Span, identity: Identity, count: u64) {
        let sketch = self.sketch(span);
        let counts = sketch
            .counts
            .get_or_init(|| Estimator::new(SKETCH.0, SKETCH.1));
        let key = (identity.hash, identity.place, span.window.start);
        let missing = isize::try_from(count).unwrap_or(isize::MAX) - counts.get(key);
        if missing > 0 {
            counts.incr(key, missing);
            sketch
                .ends
                .store(saturate(span.window.end), Ordering::Relaxed);
        }
    }

    /// At least the count of `identity` in the window of `span`.
    fn estimate(&self, span: &Span, identity: Identity) -> u64 {
        let key = (identity.hash, identity.place, span.window.start);
        let estimate = self
            .sketch(span)
            .counts
            .get()
            .map_or(0, |counts| counts.get(key));
        u64::try_from(estimate).unwrap_or(0)
    }

    /// Clears the sketches of windows that are over. A count carries its window in its key, so
    /// this only keeps estimates close: a late call makes no count of an old window valid.
    pub(super) fn clear_ended(&self, now: Second) {
        for sketch in self.pairs.iter().flatten() {
            let ends = sketch.ends.load(Ordering::Relaxed);
            if ends != 0
                && ends <= now
                && let Some(counts) = sketch.counts.get()
            {
                sketch.ends.store(0, Ordering::Relaxed);
                counts.reset();
            }
        }
    }
}

/// That an identity was evicted, and in what state.
#[derive(Debug, Clone, Copy, Default)]
struct Note {
    /// The part of the identity's hash that did not select this note's place.
    fingerprint: u64,
    at: Second,
    /// One bit for each period, by index: whether its limit was reached.
    reached: u8,
    /// `None` for a vacant note.
    tier: Option<Tier>,
}

/// The order in which notes are overwritten, least first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    is_current: bool,
    /// `None` unless the identity is at a limit now.
    tier: Option<Tier>,
    at: Second,
}

const _: () = assert!(size_of::<Note>() == 16, "four notes are one cache line");

impl Note {
    /// Whether any of its windows is still current.
    fn is_current(&self, moment: &Moment) -> bool {
        moment
            .spans
            .iter()
            .any(|span| span.window.contains(self.at))
    }

    fn worth(&self, moment: &Moment) -> Worth {
        if self.tier.is_none() || !self.is_current(moment) {
            return Worth::default();
        }
        let is_blocked = moment
            .spans
            .iter()
            .any(|span| span.window.contains(self.at) && self.has_reached(span.period));
        Worth {
            is_current: true,
            tier: if is_blocked { self.tier } else { None },
            at: self.at,
        }
    }

    const fn has_reached(&self, period: Period) -> bool {
        self.reached & (1 << period.index()) != 0
    }
}

/// The notes of one shard. Allocated when first needed.
#[derive(Debug, Default)]
pub(super) struct Notes {
    notes: Vec<Note>,
    /// When the last of the noted windows ends.
    expires: Second,
}

impl Notes {
    /// Writes down an entry that is evicted, unless it counts nothing in a current window.
    /// Remembers up to `capacity` identities, the most important ones if there are more.
    pub(super) fn write(
        &mut self,
        entry: &Entry,
        moment: &Moment,
        sketches: &Sketches,
        capacity: usize,
    ) {
        let moved = moment.overtaken_by(entry.at);
        let moment = moved.as_ref().unwrap_or(moment);
        let mut note = Note {
            fingerprint: entry.identity.hash,
            at: entry.at,
            reached: 0,
            tier: entry.tier,
        };
        if !note.is_current(moment) {
            return;
        }
        for span in moment
            .spans
            .iter()
            .filter(|span| span.window.contains(entry.at))
        {
            let count = entry.counts.get(span.period);
            sketches.raise(span, entry.identity, count);
            if span.is_reached(count) {
                note.reached |= 1 << span.period.index();
            }
        }
        if self.notes.is_empty() {
            let places = capacity.div_ceil(NOTES_PER_PLACE).max(1);
            self.notes = vec![Note::default(); places * NOTES_PER_PLACE];
        }
        let (worth, _, index) = self
            .places(entry.identity)
            .map(|place| self.least_worth(place, moment))
            .min()
            .expect("there are two places");
        if worth <= note.worth(moment) {
            self.notes[index] = note;
            self.expires = self.expires.max(entry.expires);
        }
    }

    /// Takes back the note on `identity`, if there is one: an entry that continues where the
    /// evicted one left off.
    pub(super) fn take(
        &mut self,
        identity: Identity,
        moment: &Moment,
        sketches: &Sketches,
    ) -> Option<Entry> {
        if self.notes.is_empty() {
            return None;
        }
        let is_it = |note: &Note| note.tier.is_some() && note.fingerprint == identity.hash;
        let index = self
            .places(identity)
            .flat_map(|place| place..place + NOTES_PER_PLACE)
            .find(|&index| is_it(&self.notes[index]))?;
        let note = std::mem::take(&mut self.notes[index]);
        let moved = moment.overtaken_by(note.at);
        let moment = moved.as_ref().unwrap_or(moment);
        let mut entry = Entry::new(identity, moment.second);
        for span in moment
            .spans
            .iter()
            .filter(|span| span.window.contains(note.at))
        {
            let estimate = sketches.estimate(span, identity);
            let count = if note.has_reached(span.period) {
                estimate
            } else {
                estimate.min(span.last_open())
            };
            entry.at = note.at;
            entry.expires = saturate(span.window.end);
            entry.counts.set(span.period, count);
        }
        entry.tier = note.tier;
        Some(entry)
    }

    /// Frees the notes when all their windows are over.
    pub(super) fn reclaim(&mut self, now: Second) {
        if !self.notes.is_empty() && self.expires <= now {
            *self = Self::default();
        }
    }

    /// Where the two places begin that a note on `identity` may be at.
    fn places(&self, identity: Identity) -> impl Iterator<Item = usize> + use<> {
        let places = (self.notes.len() / NOTES_PER_PLACE) as u64;
        [identity.place, identity.place.rotate_right(32)]
            .into_iter()
            .map(move |bits| {
                let place = usize::try_from(bits % places).expect("it is below a length");
                place * NOTES_PER_PLACE
            })
    }

    /// The worth and index of the note at `place` to overwrite first, and in between how crowded
    /// the place is: choosing the emptier of two keeps nearly all places from overflowing.
    fn least_worth(&self, place: usize, moment: &Moment) -> (Worth, usize, usize) {
        let worths =
            (place..place + NOTES_PER_PLACE).map(|index| (self.notes[index].worth(moment), index));
        let crowd = worths.clone().filter(|(worth, _)| worth.is_current).count();
        let (worth, index) = worths.min().expect("a place holds some notes");
        (worth, crowd, index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::rates::{calendar::Timestamp, limits::Limits};

    const CAPACITY: usize = 1024;

    fn identity(number: u64) -> Identity {
        Identity {
            hash: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            place: number.wrapping_mul(0xd1b5_4a32_d192_ed03),
        }
    }

    fn moment(limit: f64, second: i64) -> Moment {
        let limits = Limits::new(|period| (period == Period::Hour).then_some(limit));
        Moment::new(Timestamp::from_unix_milliseconds(second * 1000), &limits)
    }

    fn entry(number: u64, count: u64, tier: Tier) -> Entry {
        let mut entry = Entry::new(identity(number), 10);
        entry.counts.set(Period::Hour, count);
        entry.expires = 3600;
        entry.tier = Some(tier);
        entry
    }

    fn taken(notes: &mut Notes, number: u64, moment: &Moment, sketches: &Sketches) -> Option<u64> {
        let entry = notes.take(identity(number), moment, sketches)?;
        Some(entry.counts.get(Period::Hour))
    }

    #[test]
    fn who_was_never_evicted_has_no_count_however_full_the_sketch_is() {
        let (mut notes, sketches) = (Notes::default(), Sketches::default());
        let moment = moment(10.0, 20);
        for number in 0..100_000 {
            let entry = entry(number, 10, Tier::Spent);
            notes.write(&entry, &moment, &sketches, CAPACITY);
        }
        for number in 100_000..200_000 {
            assert_eq!(taken(&mut notes, number, &moment, &sketches), None);
        }
    }

    #[test]
    fn an_evicted_count_comes_back_once() {
        let (mut notes, sketches) = (Notes::default(), Sketches::default());
        let moment = moment(10.0, 20);
        notes.write(&entry(1, 7, Tier::Open), &moment, &sketches, CAPACITY);
        assert_eq!(taken(&mut notes, 1, &moment, &sketches), Some(7));
        assert_eq!(taken(&mut notes, 1, &moment, &sketches), None);
    }

    #[test]
    fn an_estimate_alone_never_reaches_the_limit() {
        let (mut notes, sketches) = (Notes::default(), Sketches::default());
        let moment = moment(10.0, 20);
        notes.write(&entry(1, 7, Tier::Open), &moment, &sketches, CAPACITY);
        sketches.raise(&moment.spans[0], identity(1), 5000);
        assert_eq!(taken(&mut notes, 1, &moment, &sketches), Some(9));
    }

    #[test]
    fn who_had_reached_the_limit_is_still_there_but_a_higher_limit_lets_it_on() {
        let (mut notes, sketches) = (Notes::default(), Sketches::default());
        let low = moment(10.0, 20);
        for number in [1, 2] {
            notes.write(&entry(number, 10, Tier::Refused), &low, &sketches, CAPACITY);
        }
        assert_eq!(taken(&mut notes, 1, &low, &sketches), Some(10));
        let high = moment(20.0, 20);
        assert_eq!(taken(&mut notes, 2, &high, &sketches), Some(10));
    }

    #[test]
    fn notes_of_the_blocked_outlive_a_flood_of_others() {
        let (mut notes, sketches) = (Notes::default(), Sketches::default());
        let moment = moment(10.0, 20);
        notes.write(&entry(0, 10, Tier::Spent), &moment, &sketches, CAPACITY);
        for number in 1..50_000 {
            let entry = entry(number, 1, Tier::Open);
            notes.write(&entry, &moment, &sketches, CAPACITY);
        }
        assert_eq!(notes.notes.len(), CAPACITY);
        assert!(taken(&mut notes, 0, &moment, &sketches) >= Some(10));
    }

    #[test]
    fn nothing_is_left_of_a_window_that_is_over() {
        let (mut notes, sketches) = (Notes::default(), Sketches::default());
        let (before, after) = (moment(10.0, 20), moment(10.0, 3600));
        notes.write(&entry(1, 10, Tier::Refused), &before, &sketches, CAPACITY);
        notes.write(&entry(2, 10, Tier::Refused), &after, &sketches, CAPACITY);
        assert_eq!(taken(&mut notes, 1, &after, &sketches), Some(0));
        assert_eq!(taken(&mut notes, 2, &after, &sketches), None);
        notes.reclaim(3600);
        assert!(notes.notes.is_empty());
    }

    #[test]
    fn clearing_spares_the_window_that_is_current() {
        let sketches = Sketches::default();
        let (before, after) = (moment(10.0, 20), moment(10.0, 3600));
        sketches.raise(&before.spans[0], identity(1), 3);
        sketches.raise(&after.spans[0], identity(1), 4);
        sketches.clear_ended(3600);
        assert_eq!(sketches.estimate(&before.spans[0], identity(1)), 0);
        assert_eq!(sketches.estimate(&after.spans[0], identity(1)), 4);
    }
}

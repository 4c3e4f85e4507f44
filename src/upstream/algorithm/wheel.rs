//! The order in which weighted targets take their turns: a fixed cycle, so that a pick is one
//! atomic addition and one look-up, and the counts over any full cycle are exact.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

/// The largest cycle that is laid out turn by turn.
const TABLE_TURNS_MAX: u64 = 1 << 16;

/// A cycle of turns for weighted targets.
///
/// Each target has `weight / gcd` turns in a cycle of `sum(weight / gcd)` turns, spread evenly.
/// Targets of weight 0 have no turn.
#[derive(Debug, Clone)]
pub enum Wheel {
    /// No target has a positive weight.
    Empty,
    /// Turn → target.
    Table(Box<[u16]>),
    /// Too many turns to lay out: turns are strided over the cumulative weights instead.
    Strided {
        /// Target → first turn behind its own, over the undivided cycle.
        ends: Box<[u64]>,
        turns: u64,
        stride: u64,
    },
}

impl Wheel {
    /// Lays out the cycle of `weights`.
    pub fn new(weights: &[u16]) -> Self {
        let divisor = weights
            .iter()
            .map(|weight| u64::from(*weight))
            .fold(0, greatest_common_divisor);
        if divisor == 0 {
            return Self::Empty;
        }
        let shares: Vec<u64> = weights
            .iter()
            .map(|weight| u64::from(*weight) / divisor)
            .collect();
        let turns: u64 = shares.iter().sum();
        if turns <= TABLE_TURNS_MAX && u16::try_from(shares.len()).is_ok() {
            return Self::Table(spread(&shares));
        }
        let ends = shares
            .iter()
            .scan(0, |end, share| {
                *end += share;
                Some(*end)
            })
            .collect();
        Self::Strided {
            ends,
            turns,
            stride: golden_stride(turns),
        }
    }

    /// The target whose turn is `position`; positions run on without end.
    pub fn target(&self, position: u64) -> Option<usize> {
        match self {
            Self::Empty => None,
            Self::Table(table) => {
                let turn = position % table.len() as u64;
                table
                    .get(usize::try_from(turn).ok()?)
                    .map(|target| usize::from(*target))
            }
            Self::Strided {
                ends,
                turns,
                stride,
            } => {
                let turn = u128::from(position % turns) * u128::from(*stride) % u128::from(*turns);
                let turn = u64::try_from(turn).ok()?;
                Some(ends.partition_point(|end| *end <= turn))
            }
        }
    }

    /// The number of turns in a cycle.
    pub fn turns(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Table(table) => table.len() as u64,
            Self::Strided { turns, .. } => *turns,
        }
    }
}

/// Lays out a cycle in which every target is at any turn within one turn of its share.
///
/// The n-th turn of a target falls into the n-th equal part of the cycle: of the targets whose part
/// has begun, the one whose part ends first is next. Smooth weighted round-robin spreads alike.
fn spread(shares: &[u64]) -> Box<[u16]> {
    let turns: u64 = shares.iter().sum();
    let mut table = Vec::with_capacity(usize::try_from(turns).unwrap_or(0));
    let mut begun: BinaryHeap<Reverse<Part>> = BinaryHeap::new();
    let mut later: BinaryHeap<Reverse<Part>> = shares
        .iter()
        .zip(0..)
        .filter(|(share, _)| **share > 0)
        .map(|(share, target)| {
            Reverse(Part {
                bound: 0,
                share: *share,
                target,
            })
        })
        .collect();
    for turn in 0..turns {
        while let Some(Reverse(part)) = later.peek()
            && part.bound * turns <= turn * part.share
            && let Some(Reverse(mut part)) = later.pop()
        {
            part.bound += 1;
            begun.push(Reverse(part));
        }
        // A part that has begun is always there: the shares add up to the cycle.
        let Some(Reverse(part)) = begun.pop() else {
            break;
        };
        table.push(part.target);
        later.push(Reverse(part));
    }
    table.into_boxed_slice()
}

/// A part of the cycle that belongs to a target, by one of its bounds: `bound / share` of a cycle.
#[derive(PartialEq, Eq)]
struct Part {
    bound: u64,
    share: u64,
    target: u16,
}

impl Ord for Part {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.bound * other.share)
            .cmp(&(other.bound * self.share))
            .then(other.share.cmp(&self.share))
            .then(self.target.cmp(&other.target))
    }
}

impl PartialOrd for Part {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A stride coprime to `turns` near its golden section, so that neighbouring turns fall far apart
/// and every turn comes exactly once per cycle.
fn golden_stride(turns: u64) -> u64 {
    let start = u64::try_from(u128::from(turns) * 618 / 1000)
        .unwrap_or(1)
        .max(1);
    (start..start + turns)
        .find(|stride| greatest_common_divisor(*stride, turns) == 1)
        .unwrap_or(1)
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(weights: &[u16], from: u64, count: u64) -> Vec<usize> {
        let wheel = Wheel::new(weights);
        (from..from + count)
            .filter_map(|position| wheel.target(position))
            .collect()
    }

    #[test]
    fn equal_weights_take_strict_turns() {
        assert_eq!(turns(&[100, 100], 0, 4), [0, 1, 0, 1]);
        assert_eq!(turns(&[7, 7, 7], 0, 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn heavy_targets_are_spread() {
        assert_eq!(turns(&[3, 1], 0, 4), [0, 1, 0, 0]);
        assert_eq!(turns(&[5, 1, 1], 0, 7), [0, 1, 0, 0, 2, 0, 0]);
    }

    #[test]
    fn a_target_without_weight_has_no_turn() {
        assert_eq!(turns(&[0, 2, 0], 0, 2), [1, 1]);
        assert!(matches!(Wheel::new(&[0, 0]), Wheel::Empty));
        assert!(matches!(Wheel::new(&[]), Wheel::Empty));
    }

    #[test]
    fn a_cycle_too_long_to_lay_out_is_exact_all_the_same() {
        let weights = [65_535, 65_534, 3];
        let wheel = Wheel::new(&weights);
        assert!(matches!(wheel, Wheel::Strided { .. }));
        let mut counts = [0_u32; 3];
        for position in 17..17 + wheel.turns() {
            counts[wheel.target(position).expect("a target")] += 1;
        }
        assert_eq!(counts, [65_535, 65_534, 3]);
    }

    proptest! {
        #[test]
        fn every_cycle_is_exactly_proportional_and_even(
            weights in proptest::collection::vec(0_u16..40, 1..12),
            start in 0_u64..10_000,
        ) {
            let wheel = Wheel::new(&weights);
            let cycle = wheel.turns();
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            let mut counts = vec![0_u64; weights.len()];
            for position in start..start + cycle {
                counts[wheel.target(position).expect("a target")] += 1;
            }
            for (count, weight) in counts.iter().zip(&weights) {
                prop_assert_eq!(count * total, u64::from(*weight) * cycle);
            }
            // Within a cycle nobody is ever further than one turn from its share.
            let mut counts = vec![0_u64; weights.len()];
            for position in 0..cycle {
                counts[wheel.target(position).expect("a target")] += 1;
                for (count, weight) in counts.iter().zip(&weights) {
                    // |count - weight * turns so far / total| <= 1, without fractions.
                    let had = i128::from(count * total);
                    let due = i128::from(u64::from(*weight) * (position + 1));
                    prop_assert!((had - due).abs() <= i128::from(total));
                }
            }
        }
    }
}

//! Which of several matching routes wins: Kong's order of evaluation as a type with `Ord`, and the
//! tie-break.
//!
//! Nothing here looks at a request.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;

/// How specific one way of matching a route is; the greater one wins.
///
/// The order of the fields is the rule: Kong's bit-packed number of a route as a tuple, the last
/// field ours. What counts in one flavour only is the same for all routes in the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the criteria are Kong's, and each is one answer"
)]
pub(super) struct Precedence {
    /// The priority of a route with an expression; such a route goes before all without.
    pub(super) expression: Option<u64>,
    /// How many of methods, hosts, headers, paths and SNI the route has.
    pub(super) attributes: u8,
    /// Flavour `traditional`: which of them, as bits of [`Attributes`].
    pub(super) set: u8,
    /// Flavour `traditional`: one of its hosts is a wildcard with a port.
    pub(super) wildcard_host_with_port: bool,
    /// It has hosts, and none of them is a wildcard.
    pub(super) only_plain_hosts: bool,
    /// Flavour `traditional`: the path that matched is a regex.
    pub(super) regex_first: bool,
    /// How many different headers it asks for.
    pub(super) header_names: usize,
    /// The path that matched.
    pub(super) path: PathRank,
    /// The host that matched names a port.
    pub(super) host_with_port: bool,
}

/// All precedences that may occur in one table. There are few, however many routes there are.
#[derive(Debug)]
pub(super) struct Ranking(Box<[Precedence]>);

/// The place of a precedence in a [`Ranking`]: compares as the precedence does, in a fraction of its
/// bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(u32);

impl Ranking {
    pub(super) fn new(precedences: impl IntoIterator<Item = Precedence>) -> Self {
        let distinct: BTreeSet<Precedence> = precedences.into_iter().collect();
        Self(distinct.into_iter().collect())
    }

    /// The rank of one of these precedences.
    pub(super) fn rank(&self, precedence: &Precedence) -> Rank {
        let place = self.0.binary_search(precedence);
        let place = place.ok().and_then(|place| u32::try_from(place).ok());
        Rank(place.expect("a ranking is made of the precedences of all routes"))
    }

    /// The precedence with this rank.
    pub(super) fn precedence(&self, rank: Rank) -> &Precedence {
        &self.0[rank.0 as usize]
    }
}

/// The attributes of a route as bits, the more important ones higher (flavour `traditional`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes(pub(super) u8);

impl Attributes {
    /// Their names; the place of each is its bit.
    const NAMES: [&str; 5] = ["snis", "methods", "paths", "headers", "hosts"];

    /// The attributes of which it is said whether they are there, in the order of the bits.
    pub(super) fn new(are_there: [bool; 5]) -> Self {
        let bits = are_there.into_iter().enumerate();
        Self(bits.fold(0, |set, (bit, is_there)| set | (u8::from(is_there) << bit)))
    }

    /// How many there are.
    pub(super) fn count(self) -> u8 {
        u8::try_from(self.0.count_ones()).unwrap_or(u8::MAX)
    }

    /// The most important one that `self` has and `other` has not.
    fn first_beyond(self, other: Self) -> &'static str {
        let beyond = self.0 & !other.0;
        let named = Self::NAMES.iter().enumerate().rev();
        let mut beyond = named.filter(|(bit, _)| beyond & (1 << bit) != 0);
        beyond.next().map_or("", |(_, name)| name)
    }
}

/// How specific a path condition is: any regex beats any prefix, even one that is the whole path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PathRank {
    /// The route has no paths.
    Absent,
    /// A prefix of this many bytes.
    Prefix(usize),
    /// A regex of a route with this `regex_priority`.
    Regex(i64),
}

/// Where a candidate stands among those of equal precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seniority {
    /// The route's `created_at`.
    pub(super) created_at: Option<i64>,
    /// The route's place in the file, then the place of the path in the route.
    pub(super) position: (usize, usize),
}

/// Why a route that matches the request stands below the one that wins: the first criterion in
/// which they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// The winner has an expression, the loser has not.
    Expression,
    /// Both have an expression, and the winner's `priority` is higher.
    ExpressionPriority {
        /// The winner's.
        winner: u64,
        /// The loser's.
        loser: u64,
    },
    /// The winner has conditions on more of methods, hosts, headers, paths and SNI.
    Attributes {
        /// How many the winner has.
        winner: u8,
        /// How many the loser has.
        loser: u8,
    },
    /// Both have as many, and the winner has a more important one. Flavour `traditional` only.
    AttributeSet {
        /// The attribute that the loser has not.
        winner: &'static str,
        /// The attribute that the loser has instead.
        loser: &'static str,
    },
    /// The winner has a wildcard host with a port, the loser has not. Flavour `traditional` only.
    WildcardHostWithPort,
    /// The winner has hosts without any wildcard, the loser has not.
    OnlyPlainHosts,
    /// The winner asks for more headers.
    HeaderNames {
        /// How many the winner asks for.
        winner: usize,
        /// How many the loser asks for.
        loser: usize,
    },
    /// The winner matches with a regex, the loser with a prefix or without a path.
    RegexPath,
    /// Both match with a regex, and the winner's `regex_priority` is higher.
    RegexPriority {
        /// The winner's.
        winner: i64,
        /// The loser's.
        loser: i64,
    },
    /// The winner's prefix is longer, in bytes; 0: no path.
    PrefixLength {
        /// The winner's.
        winner: usize,
        /// The loser's.
        loser: usize,
    },
    /// The winner's host names the port.
    HostWithPort,
    /// They are equal, and the winner is older by `created_at`.
    CreatedAt {
        /// The winner's.
        winner: i64,
        /// The loser's.
        loser: i64,
    },
    /// They are equal, and `first` comes first in the file. It is the winner, or else a route that
    /// `created_at` then puts below the winner.
    FileOrder {
        /// The index of the route that comes first among equals.
        first: usize,
    },
}

impl Precedence {
    /// The first criterion in which `self` differs from a lower `loser`; `None` if they are equal.
    pub(super) fn decided_by(&self, loser: &Self) -> Option<Criterion> {
        if self.expression != loser.expression {
            return Some(match (self.expression, loser.expression) {
                (Some(winner), Some(loser)) => Criterion::ExpressionPriority { winner, loser },
                _ => Criterion::Expression,
            });
        }
        if self.attributes != loser.attributes {
            return Some(Criterion::Attributes {
                winner: self.attributes,
                loser: loser.attributes,
            });
        }
        if self.set != loser.set {
            let (winner, loser) = (Attributes(self.set), Attributes(loser.set));
            return Some(Criterion::AttributeSet {
                winner: winner.first_beyond(loser),
                loser: loser.first_beyond(winner),
            });
        }
        if self.wildcard_host_with_port != loser.wildcard_host_with_port {
            return Some(Criterion::WildcardHostWithPort);
        }
        if self.only_plain_hosts != loser.only_plain_hosts {
            return Some(Criterion::OnlyPlainHosts);
        }
        if self.regex_first != loser.regex_first {
            return Some(Criterion::RegexPath);
        }
        if self.header_names != loser.header_names {
            return Some(Criterion::HeaderNames {
                winner: self.header_names,
                loser: loser.header_names,
            });
        }
        if self.path != loser.path {
            return Some(match (self.path, loser.path) {
                (PathRank::Regex(winner), PathRank::Regex(loser)) => {
                    Criterion::RegexPriority { winner, loser }
                }
                (PathRank::Regex(_), _) => Criterion::RegexPath,
                (winner, loser) => Criterion::PrefixLength {
                    winner: winner.prefix_len(),
                    loser: loser.prefix_len(),
                },
            });
        }
        (self.host_with_port != loser.host_with_port).then_some(Criterion::HostWithPort)
    }
}

impl PathRank {
    fn prefix_len(self) -> usize {
        match self {
            Self::Prefix(len) => len,
            Self::Absent | Self::Regex(_) => 0,
        }
    }
}

impl Seniority {
    /// Whether one of equal precedence with `other` can never win while `self` matches as well,
    /// whatever else does.
    pub(super) fn always_beats(&self, other: &Self) -> bool {
        match (self.age(), other.age()) {
            (Some(own), Some(others)) => own < others,
            // A third, dated route could come first, and then the dated of these two be the oldest.
            (None, Some(_)) => false,
            (_, None) => self.position < other.position,
        }
    }

    fn age(&self) -> Option<(i64, (usize, usize))> {
        self.created_at
            .map(|created_at| (created_at, self.position))
    }
}

/// The best of the matching candidates seen so far, in whatever order they come. `P` compares as
/// their precedences do.
///
/// Among equals the first in the file wins, unless it has a `created_at` and another one's is
/// smaller. That is no order one could sort by: with A (created at 5), B (undated) and C (created
/// at 1) in this order, A comes before B, B before C, and C before A. So both the first and the
/// oldest are kept; of A, B and C together, C wins.
#[derive(Debug)]
pub(super) struct Contest<P, T> {
    leaders: Option<Leaders<P, T>>,
}

#[derive(Debug)]
struct Leaders<P, T> {
    precedence: P,
    first: (Seniority, T),
    oldest: Option<(Seniority, T)>,
}

impl<P: Ord, T: Copy> Contest<P, T> {
    /// Nobody has entered.
    pub(super) fn new() -> Self {
        Self { leaders: None }
    }

    /// Whether a candidate could still matter, so that it is worth the cost of matching it.
    ///
    /// `Err` if not even one of lower precedence could.
    pub(super) fn admits(&self, precedence: &P, seniority: &Seniority) -> Result<bool, Hopeless> {
        let Some(leaders) = &self.leaders else {
            return Ok(true);
        };
        match precedence.cmp(&leaders.precedence) {
            Ordering::Greater => Ok(true),
            Ordering::Less => Err(Hopeless),
            Ordering::Equal => Ok(leaders.is_earlier(seniority) || leaders.is_older(seniority)),
        }
    }

    /// Enters a candidate that matches.
    pub(super) fn enter(&mut self, precedence: P, seniority: Seniority, candidate: T) {
        let dated = seniority.created_at.map(|_| (seniority, candidate));
        match &mut self.leaders {
            Some(leaders) if precedence < leaders.precedence => {}
            Some(leaders) if precedence == leaders.precedence => {
                if leaders.is_older(&seniority) {
                    leaders.oldest = dated;
                }
                if leaders.is_earlier(&seniority) {
                    leaders.first = (seniority, candidate);
                }
            }
            _ => {
                self.leaders = Some(Leaders {
                    precedence,
                    first: (seniority, candidate),
                    oldest: dated,
                });
            }
        }
    }

    /// The winner.
    pub(super) fn winner(self) -> Option<T> {
        let leaders = self.leaders?;
        let (first, candidate) = leaders.first;
        match leaders.oldest {
            Some((_, oldest)) if first.created_at.is_some() => Some(oldest),
            _ => Some(candidate),
        }
    }
}

/// No candidate of this or a lower precedence can win any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hopeless;

impl<P, T> Leaders<P, T> {
    fn is_earlier(&self, seniority: &Seniority) -> bool {
        seniority.position < self.first.0.position
    }

    fn is_older(&self, seniority: &Seniority) -> bool {
        let Some(age) = seniority.age() else {
            return false;
        };
        self.oldest
            .as_ref()
            .and_then(|(oldest, _)| oldest.age())
            .is_none_or(|oldest| age < oldest)
    }
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expression => {
                f.write_str("the winner has an expression, this route has attributes")
            }
            Self::ExpressionPriority { winner, loser } => write!(
                f,
                "the winner's priority is {winner}, this route's is {loser}"
            ),
            Self::Attributes { winner, loser } => {
                write!(
                    f,
                    "the winner has conditions on {winner} of methods, hosts, headers, paths and snis, this route on {loser}"
                )
            }
            Self::AttributeSet { winner, loser } => write!(
                f,
                "both have conditions on as many attributes, and the winner's {winner} go before this route's {loser}"
            ),
            Self::WildcardHostWithPort => {
                f.write_str("the winner has a wildcard host with a port, this route has not")
            }
            Self::OnlyPlainHosts => {
                f.write_str("the winner has hosts without a wildcard, this route has not")
            }
            Self::HeaderNames { winner, loser } => write!(
                f,
                "the winner asks for {winner} headers, this route for {loser}"
            ),
            Self::RegexPath => {
                f.write_str("the winner matches the path with a regex, this route does not")
            }
            Self::RegexPriority { winner, loser } => write!(
                f,
                "the winner's regex_priority is {winner}, this route's is {loser}"
            ),
            Self::PrefixLength { winner, loser: 0 } => {
                write!(
                    f,
                    "the winner matches {winner} bytes of the path, this route has no paths"
                )
            }
            Self::PrefixLength { winner, loser } => write!(
                f,
                "the winner's prefix has {winner} bytes, this route's has {loser}"
            ),
            Self::HostWithPort => {
                f.write_str("the winner's host names the port, this route's does not")
            }
            Self::CreatedAt { winner, loser } => {
                write!(
                    f,
                    "they are equal but for created_at: the winner's is {winner}, this route's is {loser}"
                )
            }
            Self::FileOrder { .. } => {
                f.write_str("they are equal, and this route comes later in the file")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOWEST: Precedence = Precedence {
        expression: None,
        attributes: 1,
        set: 0,
        wildcard_host_with_port: false,
        only_plain_hosts: false,
        regex_first: false,
        header_names: 0,
        path: PathRank::Absent,
        host_with_port: false,
    };

    /// The winner among candidates given as (precedence, `created_at`, place in the file), named by
    /// that place.
    fn winner(candidates: &[(Precedence, Option<i64>, usize)]) -> Option<usize> {
        let mut contest = Contest::new();
        for &(precedence, created_at, place) in candidates {
            let seniority = Seniority {
                created_at,
                position: (place, 0),
            };
            if contest.admits(&precedence, &seniority) == Ok(true) {
                contest.enter(precedence, seniority, place);
            }
        }
        contest.winner()
    }

    #[test]
    fn each_criterion_counts_more_than_all_that_follow() {
        let ascending = [
            LOWEST,
            Precedence {
                host_with_port: true,
                ..LOWEST
            },
            Precedence {
                path: PathRank::Prefix(1),
                ..LOWEST
            },
            Precedence {
                path: PathRank::Prefix(9),
                ..LOWEST
            },
            Precedence {
                path: PathRank::Regex(-1),
                ..LOWEST
            },
            Precedence {
                path: PathRank::Regex(0),
                ..LOWEST
            },
            Precedence {
                header_names: 1,
                ..LOWEST
            },
            Precedence {
                header_names: 2,
                ..LOWEST
            },
            Precedence {
                regex_first: true,
                ..LOWEST
            },
            Precedence {
                only_plain_hosts: true,
                ..LOWEST
            },
            Precedence {
                wildcard_host_with_port: true,
                ..LOWEST
            },
            Precedence { set: 1, ..LOWEST },
            Precedence {
                attributes: 2,
                ..LOWEST
            },
            Precedence {
                expression: Some(0),
                ..LOWEST
            },
            Precedence {
                expression: Some(1),
                ..LOWEST
            },
        ];
        assert!(ascending.is_sorted_by(|lower, higher| lower < higher));
        for pair in ascending.windows(2) {
            assert!(pair[1].decided_by(&pair[0]).is_some());
        }
    }

    #[test]
    fn ranks_compare_as_the_precedences_that_they_stand_for() {
        let precedences = [9, 1, 5, 9].map(|len| Precedence {
            path: PathRank::Prefix(len),
            ..LOWEST
        });
        let ranking = Ranking::new(precedences);
        for left in &precedences {
            assert_eq!(ranking.precedence(ranking.rank(left)), left);
            for right in &precedences {
                assert_eq!(
                    ranking.rank(left).cmp(&ranking.rank(right)),
                    left.cmp(right)
                );
            }
        }
    }

    #[test]
    fn the_most_important_attribute_that_differs_is_named() {
        let hosts_and_methods = Attributes::new([false, true, false, false, true]);
        let paths_and_methods = Attributes::new([false, true, true, false, false]);
        assert_eq!(hosts_and_methods.count(), 2);
        assert_eq!(hosts_and_methods.first_beyond(paths_and_methods), "hosts");
        assert_eq!(paths_and_methods.first_beyond(hosts_and_methods), "paths");
    }

    #[test]
    fn among_equals_the_first_in_the_file_wins_in_whatever_order_they_come() {
        assert_eq!(winner(&[]), None);
        assert_eq!(winner(&[(LOWEST, None, 1), (LOWEST, None, 0)]), Some(0));
        assert_eq!(winner(&[(LOWEST, None, 0), (LOWEST, None, 1)]), Some(0));
    }

    #[test]
    fn the_older_wins_only_if_both_are_dated() {
        assert_eq!(
            winner(&[(LOWEST, Some(5), 0), (LOWEST, Some(1), 1)]),
            Some(1)
        );
        assert_eq!(winner(&[(LOWEST, None, 0), (LOWEST, Some(1), 1)]), Some(0));
        assert_eq!(winner(&[(LOWEST, Some(5), 0), (LOWEST, None, 1)]), Some(0));
        assert_eq!(
            winner(&[(LOWEST, Some(1), 1), (LOWEST, Some(1), 0)]),
            Some(0)
        );
    }

    #[test]
    fn dated_and_undated_routes_together_have_one_winner_in_whatever_order_they_come() {
        let (a, b, c) = (
            (LOWEST, Some(5), 0),
            (LOWEST, None, 1),
            (LOWEST, Some(1), 2),
        );
        for order in [
            [a, b, c],
            [a, c, b],
            [b, a, c],
            [b, c, a],
            [c, a, b],
            [c, b, a],
        ] {
            assert_eq!(winner(&order), Some(2));
        }
    }

    #[test]
    fn a_lower_precedence_is_hopeless_however_old() {
        let higher = Precedence {
            attributes: 2,
            ..LOWEST
        };
        let mut contest = Contest::new();
        contest.enter(
            higher,
            Seniority {
                created_at: None,
                position: (9, 0),
            },
            9,
        );
        assert_eq!(
            contest.admits(
                &LOWEST,
                &Seniority {
                    created_at: Some(0),
                    position: (0, 0)
                }
            ),
            Err(Hopeless)
        );
    }
}

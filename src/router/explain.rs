//! Why a request went to one route and not to the others, for people: what was met, what failed, and
//! which rule decided. It routes nothing itself.

use std::cmp::Reverse;
use std::fmt;

use super::candidates::Candidate;
use super::conditions::{Conditions, HeaderCondition, PathCondition, ValueCondition};
use super::patterns::PatternId;
use super::precedence::{Criterion, PathRank, Precedence};
use super::{Key, Router};
use crate::entity::host::RequestHost;

/// The answer of [`Router::explain`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The index of the route that [`Router::find`] returns.
    pub winner: Option<usize>,
    /// How the winner's conditions are met, each of them.
    pub met: Vec<Met>,
    /// Every other route, in file order.
    pub losers: Vec<Loser>,
}

/// A condition of a route, and by what a request meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Met {
    /// The request's host and port are those of a host of the route.
    Host {
        /// The route's host that counts.
        by: String,
        /// The request's host as it is compared, and its port.
        got: (String, u16),
    },
    /// The path begins with a prefix.
    Prefix {
        /// The prefix.
        by: String,
    },
    /// The path begins with a match of a regex.
    Regex {
        /// The regex as written.
        by: String,
        /// The part of the path that it matches; bytes that are not UTF-8 are `U+FFFD`.
        text: String,
        /// The captures with their names, else their numbers.
        captures: Vec<(String, String)>,
    },
    /// The method is one of the route's.
    Method {
        /// The route's methods.
        wanted: Vec<String>,
    },
    /// A header has one of the values.
    Header {
        /// The header's name in lower case.
        name: String,
        /// The route's value that counts; a plain one in lower case.
        by: String,
        /// The value of the request's header that has it.
        got: String,
    },
}

/// A route that a request does not go to, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loser {
    /// The route's index.
    pub route: usize,
    /// Why it is not the winner.
    pub reason: LossReason,
    /// How much the request is like those that it takes.
    pub likeness: Likeness,
}

/// How near a route is to taking a request; the greater one is nearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Likeness {
    /// How many conditions fail.
    failing: Reverse<usize>,
    /// How specific the route is, if none fails.
    precedence: Option<Precedence>,
    /// How many conditions are met.
    met: usize,
    /// How many bytes of the path are those of one of the route's paths.
    path_bytes: usize,
}

impl Likeness {
    /// Whether any condition of the route is met.
    pub fn is_partial(self) -> bool {
        self.met > 0
    }
}

/// Why a route is not the winner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// It does not match the request: all of its conditions that fail.
    Mismatched(Vec<Mismatch>),
    /// It matches, but ranks below the winner.
    Outranked(Criterion),
}

/// A condition of a route that a request does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// None of the hosts is the request's.
    Host {
        /// The route's hosts.
        wanted: Vec<String>,
        /// The request's host as it is compared, and its port.
        got: (String, u16),
    },
    /// None of the paths matches.
    Path {
        /// The route's paths.
        wanted: Vec<String>,
        /// The request's normalised path; bytes that are not UTF-8 are shown as `U+FFFD`.
        got: String,
    },
    /// None of the methods is the request's.
    Method {
        /// The route's methods.
        wanted: Vec<String>,
        /// The request's method.
        got: String,
    },
    /// A header is absent or has none of the values.
    Header {
        /// The header's name in lower case.
        name: String,
        /// The route's values; plain ones in lower case.
        wanted: Vec<String>,
        /// What the request has: one value for each occurrence.
        got: Vec<String>,
    },
}

impl Router {
    /// The route that [`Self::find`] returns for this request, and for every other one why it lost.
    ///
    /// It looks at every route; it is for people, not for the path of a request.
    pub fn explain(&self, key: &Key<'_>) -> Explanation {
        let winner = self.best(key).map(|hit| *hit.candidate);
        let verdicts: Vec<_> = self
            .conditions
            .iter()
            .map(|conditions| self.examine(conditions, key))
            .collect();
        let likenesses = verdicts.iter().zip(&self.conditions);
        let likenesses: Vec<Likeness> = likenesses
            .map(|(verdict, conditions)| self.likeness(conditions, verdict, key))
            .collect();
        let first_among_equals = verdicts
            .iter()
            .position(|verdict| {
                verdict.as_ref().ok() == winner.as_ref().map(|winner| &winner.precedence)
            })
            .unwrap_or_default();
        let reason = |route: usize, verdict: Result<Precedence, Vec<Mismatch>>| {
            let Some(winner) = &winner else {
                return verdict.err().map(LossReason::Mismatched);
            };
            Some(match verdict {
                _ if route == winner.route() => return None,
                Err(mismatches) => LossReason::Mismatched(mismatches),
                Ok(precedence) => {
                    LossReason::Outranked(winner.precedence.decided_by(&precedence).unwrap_or_else(
                        || self.tie_broken_by(winner.route(), route, first_among_equals),
                    ))
                }
            })
        };
        let losers = verdicts.into_iter().enumerate();
        Explanation {
            winner: winner.map(|winner| winner.route()),
            met: winner
                .map(|winner| self.met_by(&winner, key))
                .unwrap_or_default(),
            losers: losers
                .zip(likenesses)
                .filter_map(|((route, verdict), likeness)| {
                    Some(Loser {
                        route,
                        reason: reason(route, verdict)?,
                        likeness,
                    })
                })
                .collect(),
        }
    }

    /// The precedence with which a route matches, or all its conditions that fail.
    fn examine(&self, conditions: &Conditions, key: &Key<'_>) -> Result<Precedence, Vec<Mismatch>> {
        let host = RequestHost::new(key.host);
        let host_with_port = conditions.matching_host(&host, key.port);
        let path = conditions.matching_path(key.path, &self.patterns);
        let method_matches = conditions.method_matches(key.method);
        if let (Some(path), Some(host_with_port), true) = (path, host_with_port, method_matches)
            && conditions.headers_match(key.headers, &self.patterns)
        {
            return Ok(conditions.precedence(path, host_with_port));
        }
        let mut mismatches = Vec::new();
        if host_with_port.is_none() {
            mismatches.push(Mismatch::Host {
                wanted: conditions.hosts.iter().map(ToString::to_string).collect(),
                got: (String::from_utf8_lossy(&host).into_owned(), key.port),
            });
        }
        if path.is_none() {
            mismatches.push(Mismatch::Path {
                wanted: conditions
                    .paths
                    .iter()
                    .map(|path| self.written_path(path))
                    .collect(),
                got: String::from_utf8_lossy(key.path).into_owned(),
            });
        }
        if !method_matches {
            mismatches.push(Mismatch::Method {
                wanted: conditions.methods.clone(),
                got: key.method.to_owned(),
            });
        }
        let failing = conditions
            .headers
            .iter()
            .filter(|header| !header.matches(key.headers, &self.patterns));
        mismatches.extend(failing.map(|header| self.header_mismatch(header, key)));
        Err(mismatches)
    }

    fn likeness(
        &self,
        conditions: &Conditions,
        verdict: &Result<Precedence, Vec<Mismatch>>,
        key: &Key<'_>,
    ) -> Likeness {
        let failing = verdict.as_ref().err().map_or(0, Vec::len);
        let shared = |path: &PathCondition| {
            let prefix = path.literal_prefix(&self.patterns);
            let pairs = prefix.iter().zip(key.path);
            pairs.take_while(|(left, right)| left == right).count()
        };
        Likeness {
            failing: Reverse(failing),
            precedence: verdict.as_ref().ok().copied(),
            met: conditions.count().saturating_sub(failing),
            path_bytes: conditions.paths.iter().map(shared).max().unwrap_or(0),
        }
    }

    /// How `winner` came to match.
    fn met_by(&self, winner: &Candidate, key: &Key<'_>) -> Vec<Met> {
        let conditions = &self.conditions[winner.route()];
        let mut met = Vec::new();
        let host = RequestHost::new(key.host);
        let hosts = conditions.hosts.iter();
        let by_host = hosts
            .filter(|pattern| pattern.matches(&host, key.port))
            .max_by_key(|pattern| pattern.port.is_some());
        met.extend(by_host.map(|pattern| Met::Host {
            by: pattern.to_string(),
            got: (String::from_utf8_lossy(&host).into_owned(), key.port),
        }));
        met.extend(match (winner.regex, winner.precedence.path) {
            (Some(id), _) => self.regex_met(id, key.path),
            (None, PathRank::Prefix(len)) => key.path.get(..len).map(|prefix| Met::Prefix {
                by: String::from_utf8_lossy(prefix).into_owned(),
            }),
            (None, _) => None,
        });
        if !conditions.methods.is_empty() {
            met.push(Met::Method {
                wanted: conditions.methods.clone(),
            });
        }
        let headers = conditions.headers.iter();
        met.extend(headers.filter_map(|header| {
            let (value, sent) = header.matching(key.headers, &self.patterns)?;
            Some(Met::Header {
                name: header.name.to_string(),
                by: self.written_value(value),
                got: String::from_utf8_lossy(sent.as_bytes()).into_owned(),
            })
        }));
        met
    }

    fn regex_met(&self, id: PatternId, path: &[u8]) -> Option<Met> {
        let regex = self.patterns.regex(id);
        let found = regex.captures(path)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let names = regex.capture_names().enumerate().zip(found.iter()).skip(1);
        Some(Met::Regex {
            by: self.patterns.written(id).to_owned(),
            text: found
                .get(0)
                .map_or_else(String::new, |whole| text(whole.as_bytes())),
            captures: names
                .filter_map(|((number, name), capture)| {
                    let name = name.map_or_else(|| number.to_string(), str::to_owned);
                    Some((name, text(capture?.as_bytes())))
                })
                .collect(),
        })
    }

    fn tie_broken_by(&self, winner: usize, loser: usize, first: usize) -> Criterion {
        match (
            self.conditions[winner].created_at,
            self.conditions[loser].created_at,
        ) {
            (Some(winner), Some(loser)) if winner < loser => Criterion::CreatedAt { winner, loser },
            (Some(_), Some(_)) => Criterion::FileOrder { first: winner },
            _ => Criterion::FileOrder { first },
        }
    }

    fn written_path(&self, path: &PathCondition) -> String {
        match path {
            PathCondition::Prefix(prefix) => prefix.clone(),
            PathCondition::Regex(id) => self.patterns.written(*id).to_owned(),
        }
    }

    fn written_value(&self, value: &ValueCondition) -> String {
        match value {
            ValueCondition::Whole(text) => text.clone(),
            ValueCondition::Regex(id) => self.patterns.written(*id).to_owned(),
        }
    }

    fn header_mismatch(&self, header: &HeaderCondition, key: &Key<'_>) -> Mismatch {
        let wanted = header.values.iter().map(|value| self.written_value(value));
        let got = key.headers.get_all(&header.name).iter();
        Mismatch::Header {
            name: header.name.to_string(),
            wanted: wanted.collect(),
            got: got
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .collect(),
        }
    }
}

impl fmt::Display for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host {
                by,
                got: (host, port),
            } => write!(f, "host `{host}` on port {port} is `{by}`"),
            Self::Prefix { by } => write!(f, "the path begins with `{by}`"),
            Self::Regex { by, text, captures } => {
                write!(f, "the path begins with a match of `{by}`: `{text}`")?;
                for (name, value) in captures {
                    write!(f, ", {name} = `{value}`")?;
                }
                Ok(())
            }
            Self::Method { wanted } => {
                f.write_str("the method is ")?;
                write_quoted(f, wanted)
            }
            Self::Header { name, by, got } => {
                write!(f, "header `{name}` is `{got}`, as `{by}` asks")
            }
        }
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatched(mismatches) => write_list(f, mismatches, "; "),
            Self::Outranked(criterion) => write!(f, "it matches, but {criterion}"),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host {
                wanted,
                got: (host, port),
            } if host.is_empty() => {
                write!(f, "a request without a host on port {port} is not for ")?;
                write_quoted(f, wanted)
            }
            Self::Host {
                wanted,
                got: (host, port),
            } => {
                write!(f, "host `{host}` on port {port} is not ")?;
                write_quoted(f, wanted)
            }
            Self::Path { wanted, got } => {
                write!(f, "path `{got}` does not begin with a match of ")?;
                write_quoted(f, wanted)
            }
            Self::Method { wanted, got } => {
                write!(f, "method `{got}` is not ")?;
                write_quoted(f, wanted)
            }
            Self::Header { name, wanted, got } if got.is_empty() => {
                write!(f, "header `{name}` is absent and should be ")?;
                write_quoted(f, wanted)
            }
            Self::Header { name, wanted, got } => {
                write!(f, "header `{name}` is ")?;
                write_quoted(f, got)?;
                f.write_str(" and should be ")?;
                write_quoted(f, wanted)
            }
        }
    }
}

fn write_quoted(f: &mut fmt::Formatter<'_>, texts: &[String]) -> fmt::Result {
    let quoted: Vec<String> = texts.iter().map(|text| format!("`{text}`")).collect();
    write_list(f, &quoted, " or ")
}

fn write_list(
    f: &mut fmt::Formatter<'_>,
    items: &[impl fmt::Display],
    separator: &str,
) -> fmt::Result {
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            f.write_str(separator)?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

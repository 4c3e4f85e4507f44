//! Why a request went to one route and not to the others, for people: what was met, what failed, and
//! which rule decided. It routes nothing itself.

use std::cmp::Reverse;
use std::fmt;

use super::candidates::{Candidate, CandidatePath};
use super::conditions::{
    Conditions, ExpressionCondition, HeaderCondition, PathCondition, ValueCondition,
};
use super::evaluation::{Evaluation, shown_values};
use super::patterns::PatternId;
use super::precedence::{Criterion, PathRank, Precedence};
use super::{Key, Router};
use crate::entity::expression::{Comparison, Node, Predicate, TextField};
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
    /// The server name that the client asked for is one of the route's, or there is no TLS.
    Sni {
        /// The route's names.
        wanted: Vec<String>,
        /// The client's; `None` without TLS.
        got: Option<String>,
    },
    /// A predicate of the expression is as the expression needs it.
    Predicate(Finding),
}

/// A predicate of an expression, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// As it is written.
    pub predicate: String,
    /// What its field is.
    pub subject: Subject,
    /// The values of the field.
    pub got: Vec<String>,
    /// Whether it holds.
    pub holds: bool,
}

/// What a predicate is about, as far as it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A header of this name.
    Header(String),
    /// An argument of the query of this name.
    Argument(String),
    /// Something else.
    Other,
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
    /// None of the server names is the one that the client asked for.
    Sni {
        /// The route's names.
        wanted: Vec<String>,
        /// The client's; empty if it asked for none.
        got: String,
    },
    /// A predicate of the expression is not as the expression needs it.
    Predicate(Finding),
}

impl Router {
    /// The route that [`Self::find`] returns for this request, and for every other one why it lost.
    ///
    /// It looks at every route; it is for people, not for the path of a request.
    pub fn explain(&self, key: &Key<'_>) -> Explanation {
        let winner = self.best(key).map(|hit| *hit.candidate);
        let highest = winner.map(|winner| self.ranking.precedence(winner.rank));
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
            .position(|verdict| verdict.as_ref().ok() == highest)
            .unwrap_or_default();
        let reason = |route: usize, verdict: Result<Precedence, Vec<Mismatch>>| {
            let Some((winner, highest)) = winner.zip(highest) else {
                return verdict.err().map(LossReason::Mismatched);
            };
            Some(match verdict {
                _ if route == winner.route() => return None,
                Err(mismatches) => LossReason::Mismatched(mismatches),
                Ok(precedence) => {
                    LossReason::Outranked(highest.decided_by(&precedence).unwrap_or_else(|| {
                        self.tie_broken_by(winner.route(), route, first_among_equals)
                    }))
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
        if let Some(expression) = &conditions.expression {
            let findings = self.findings(expression, key, false);
            return if findings.is_empty() {
                Ok(conditions.precedence(PathRank::Absent, false))
            } else {
                Err(findings.into_iter().map(Mismatch::Predicate).collect())
            };
        }
        let host = RequestHost::new(key.host);
        let host_with_port = conditions.matching_host(&host, key.port);
        let path = conditions.matching_path(key.path, &self.patterns);
        let method_matches = conditions.method_matches(key.method);
        if let (Some(path), Some(host_with_port), true) = (path, host_with_port, method_matches)
            && conditions.headers_match(key.headers, &self.patterns)
            && conditions.sni_matches(key.sni)
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
        if !conditions.sni_matches(key.sni) {
            mismatches.push(Mismatch::Sni {
                wanted: conditions.snis.iter().map(ToString::to_string).collect(),
                got: key.sni.unwrap_or_default().to_owned(),
            });
        }
        Err(mismatches)
    }

    /// The predicates by which an expression holds, or (with `by` false) those by which it does not;
    /// none if it is the other way round.
    fn findings(&self, expression: &ExpressionCondition, key: &Key<'_>, by: bool) -> Vec<Finding> {
        let mut why = Why {
            evaluation: Evaluation::new(expression, &self.patterns, key),
            key,
            findings: Vec::new(),
        };
        if why.evaluation.holds(&expression.root) == by {
            why.collect(&expression.root, by);
        }
        why.findings
    }

    fn likeness(
        &self,
        conditions: &Conditions,
        verdict: &Result<Precedence, Vec<Mismatch>>,
        key: &Key<'_>,
    ) -> Likeness {
        let failing = verdict.as_ref().err().map_or(0, Vec::len);
        let shared = |prefix: &[u8]| {
            let pairs = prefix.iter().zip(key.path);
            pairs.take_while(|(left, right)| left == right).count()
        };
        let prefixes = conditions.paths.iter();
        let prefixes = prefixes.map(|path| path.literal_prefix(&self.patterns));
        let needed = conditions.expression.iter();
        let needed =
            needed.flat_map(|expression| expression.needs.prefixes.iter().map(|prefix| &**prefix));
        Likeness {
            failing: Reverse(failing),
            precedence: verdict.as_ref().ok().copied(),
            met: conditions.count().saturating_sub(failing),
            path_bytes: prefixes.chain(needed).map(shared).max().unwrap_or(0),
        }
    }

    /// How `winner` came to match.
    fn met_by(&self, winner: &Candidate, key: &Key<'_>) -> Vec<Met> {
        let conditions = &self.conditions[winner.route()];
        if let Some(expression) = &conditions.expression {
            let findings = self.findings(expression, key, true);
            return findings.into_iter().map(Met::Predicate).collect();
        }
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
        met.extend(match winner.path {
            CandidatePath::Regex(id) => self.regex_met(id, key.path),
            CandidatePath::Prefix(len) => {
                let prefix = key.path.get(..len as usize);
                prefix.map(|prefix| Met::Prefix {
                    by: String::from_utf8_lossy(prefix).into_owned(),
                })
            }
            CandidatePath::Absent => None,
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
        if !conditions.snis.is_empty() {
            met.push(Met::Sni {
                wanted: conditions.snis.iter().map(ToString::to_string).collect(),
                got: key.sni.map(str::to_owned),
            });
        }
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
        let got = key.headers.get_all(&header.name);
        Mismatch::Header {
            name: header.name.to_string(),
            wanted: wanted.collect(),
            got: got
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .collect(),
        }
    }
}

/// Looks for the predicates that decide an expression.
struct Why<'e> {
    evaluation: Evaluation<'e>,
    key: &'e Key<'e>,
    findings: Vec<Finding>,
}

impl Why<'_> {
    /// Collects why a node, whose value is `value`, has that value.
    fn collect(&mut self, node: &Node, value: bool) {
        match node {
            Node::All(parts) | Node::Any(parts) => {
                for part in parts {
                    if self.evaluation.holds(part) != value {
                        continue;
                    }
                    self.collect(part, value);
                    // One alternative is reason enough for an expression to hold.
                    if value && matches!(node, Node::Any(_)) {
                        break;
                    }
                }
            }
            Node::Not(inner) => self.collect(inner, !value),
            Node::Is(predicate) => self.findings.push(Finding {
                predicate: predicate.to_string(),
                subject: Subject::of(predicate),
                got: shown_values(predicate, self.key),
                holds: value,
            }),
        }
    }
}

impl Subject {
    fn of(predicate: &Predicate) -> Self {
        match &predicate.comparison {
            Comparison::Text {
                field: TextField::Header(name),
                ..
            } => Self::Header(name.to_string()),
            Comparison::Text {
                field: TextField::Query(name),
                ..
            } => Self::Argument(name.to_string()),
            _ => Self::Other,
        }
    }
}

impl Finding {
    /// A sentence; `as_needed`: the expression needs it so.
    fn write(&self, f: &mut fmt::Formatter<'_>, as_needed: bool) -> fmt::Result {
        write!(f, "`{}` ", self.predicate)?;
        f.write_str(match (self.holds, as_needed) {
            (true, true) => "holds: ",
            (true, false) => "holds and should not: ",
            (false, true) => "does not hold, as it should not: ",
            (false, false) => "does not hold: ",
        })?;
        if self.got.is_empty() {
            return f.write_str("it has no value");
        }
        f.write_str("it is ")?;
        let quoted: Vec<String> = self.got.iter().map(|text| format!("`{text}`")).collect();
        write_list(f, &quoted, " and ")
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
            Self::Sni { got: None, .. } => {
                f.write_str("there is no TLS, so no server name is asked for")
            }
            Self::Sni {
                wanted,
                got: Some(got),
            } => {
                write!(f, "the server name `{got}` is ")?;
                write_quoted(f, wanted)
            }
            Self::Predicate(finding) => finding.write(f, true),
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
            Self::Sni { wanted, got } if got.is_empty() => {
                f.write_str("the client asked for no server name, which should be ")?;
                write_quoted(f, wanted)
            }
            Self::Sni { wanted, got } => {
                write!(f, "the server name `{got}` is not ")?;
                write_quoted(f, wanted)
            }
            Self::Predicate(finding) => finding.write(f, false),
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

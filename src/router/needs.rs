//! What a request must have for an expression to hold at all, as far as the index can look it up.
//! Whether the expression holds is not decided here.

use crate::entity::expression::{Comparison, Expression, Node, Predicate, TextField, TextTest};
use crate::entity::host::{HostName, HostPattern};
use crate::entity::pattern::Pattern;

/// An expression that needs one of more hosts or prefixes than this is found by none of them.
const MOST: usize = 64;

/// A request that meets the expression has one of these hosts, and a path that begins with one of
/// these prefixes.
#[derive(Debug)]
pub(super) struct Needs {
    /// None: any host.
    pub(super) hosts: Vec<HostPattern>,
    /// None of them begins with another; `[""]`: any path.
    pub(super) prefixes: Vec<Box<[u8]>>,
}

impl Needs {
    pub(super) fn of(expression: &Expression) -> Self {
        let prefix_of = |predicate: &Predicate| needed_prefix(predicate, &expression.patterns);
        let mut hosts = alternatives(&expression.root, &needed_host).unwrap_or_default();
        hosts.sort_unstable();
        hosts.dedup();
        let prefixes = alternatives(&expression.root, &prefix_of).unwrap_or_default();
        Self {
            hosts: hosts
                .into_iter()
                .map(|name| HostPattern {
                    name: HostName::Exact(name),
                    port: None,
                })
                .collect(),
            prefixes: shortest(prefixes),
        }
    }
}

/// Of what `node` needs one; `None` if it may hold without any.
fn alternatives<T>(node: &Node, of: &impl Fn(&Predicate) -> Option<T>) -> Option<Vec<T>> {
    match node {
        // Any part of it will do; the one with the fewest alternatives tells most.
        Node::All(parts) => parts
            .iter()
            .filter_map(|part| alternatives(part, of))
            .min_by_key(Vec::len),
        Node::Any(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(alternatives(part, of)?);
                if all.len() > MOST {
                    return None;
                }
            }
            Some(all)
        }
        Node::Not(_) => None,
        Node::Is(predicate) => of(predicate).map(|needed| vec![needed]),
    }
}

fn needed_host(predicate: &Predicate) -> Option<String> {
    match &predicate.comparison {
        Comparison::Text {
            field: TextField::Host,
            test: TextTest::Equals(host),
            ..
        } => {
            let bare = host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'));
            Some(bare.unwrap_or(host).to_owned())
        }
        _ => None,
    }
}

fn needed_prefix(predicate: &Predicate, patterns: &[Pattern]) -> Option<Box<[u8]>> {
    let Comparison::Text {
        field: TextField::Path,
        lower: false,
        test,
    } = &predicate.comparison
    else {
        return None;
    };
    match test {
        TextTest::Equals(path) | TextTest::Prefix(path) => Some(path.as_bytes().into()),
        TextTest::Matches(number, _) => {
            let prefix = patterns.get(*number)?.literal_prefix();
            (!prefix.is_empty()).then(|| prefix.into())
        }
        _ => None,
    }
}

/// Without those that begin with another one, so that no path has two of them.
fn shortest(mut prefixes: Vec<Box<[u8]>>) -> Vec<Box<[u8]>> {
    if prefixes.is_empty() {
        return vec![Box::default()];
    }
    prefixes.sort_unstable();
    prefixes.dedup_by(|later, earlier| later.starts_with(earlier));
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(source: &str) -> (Vec<String>, Vec<String>) {
        let needs = Needs::of(&Expression::parse(source).unwrap());
        let hosts = needs.hosts.iter().map(ToString::to_string).collect();
        let text = |prefix: &[u8]| String::from_utf8_lossy(prefix).into_owned();
        let prefixes = needs.prefixes.iter().map(|prefix| text(prefix)).collect();
        (hosts, prefixes)
    }

    #[test]
    fn what_every_way_to_hold_has_in_common_is_needed() {
        for (source, hosts, prefixes) in [
            (r#"http.path ^= "/a""#, &[][..], &["/a"][..]),
            (r#"http.path ^= "/ab" || http.path == "/a""#, &[], &["/a"]),
            (r#"http.path ^= "/a" || http.method == "GET""#, &[], &[""]),
            (
                r#"http.method == "GET" && http.path ~ "^/a/[0-9]" && http.host == "A.test""#,
                &["a.test"],
                &["/a/"],
            ),
            (
                r#"(http.host == "b.test" || http.host == "[::1]") && !(http.path ^= "/a")"#,
                &["[::1]", "b.test"],
                &[""],
            ),
            (r#"lower(http.path) ^= "/a""#, &[], &[""]),
            (r#"http.path ~ "/a""#, &[], &[""]),
            (r#"http.path != "/a""#, &[], &[""]),
        ] {
            let (got_hosts, got_prefixes) = needs(source);
            assert_eq!(got_hosts, hosts, "{source}");
            assert_eq!(got_prefixes, prefixes, "{source}");
        }
    }
}

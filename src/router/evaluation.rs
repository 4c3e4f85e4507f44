//! Whether a request meets an expression: the values of its fields, without copying them, and what
//! is asked of them. Alternatives are tried in the order in which they are written.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::ControlFlow;

use super::conditions::ExpressionCondition;
use super::patterns::Patterns;
use super::{Key, MatchedPath};
use crate::entity::expression::{
    AddressField, Comparison, Node, NumberField, Predicate, TextField, TextTest,
};
use crate::entity::host::LowerCase;

/// One request before one expression.
#[derive(Debug)]
pub(super) struct Evaluation<'e> {
    condition: &'e ExpressionCondition,
    patterns: &'e Patterns,
    key: &'e Key<'e>,
    /// What matched the path: of the predicates by which the expression holds, the last one that
    /// says how the path begins.
    path: MatchedPath,
}

impl<'e> Evaluation<'e> {
    pub(super) fn new(
        condition: &'e ExpressionCondition,
        patterns: &'e Patterns,
        key: &'e Key<'e>,
    ) -> Self {
        Self {
            condition,
            patterns,
            key,
            path: MatchedPath::None,
        }
    }

    /// What matched the path if the expression holds, else `None`.
    pub(super) fn outcome(mut self) -> Option<MatchedPath> {
        self.holds(&self.condition.root).then_some(self.path)
    }

    /// Whether a part of the expression holds.
    pub(super) fn holds(&mut self, node: &Node) -> bool {
        let before = self.path;
        let holds = match node {
            Node::All(parts) => parts.iter().all(|part| self.holds(part)),
            Node::Any(parts) => parts.iter().any(|part| self.holds(part)),
            Node::Not(inner) => {
                let holds = !self.holds(inner);
                self.path = before;
                holds
            }
            Node::Is(predicate) => self.meets(predicate),
        };
        if !holds {
            self.path = before;
        }
        holds
    }

    fn meets(&mut self, predicate: &Predicate) -> bool {
        let any = predicate.any;
        match &predicate.comparison {
            Comparison::Text {
                field: TextField::Path,
                lower,
                test,
            } => self.path_passes(*lower, test),
            Comparison::Text { field, lower, test } => {
                // Without a value nothing is met; else any, or all.
                let mut met = false;
                each_text(field, self.key, |value| {
                    let passes = if *lower {
                        self.text_passes(test, &LowerCase::new(value))
                    } else {
                        self.text_passes(test, value)
                    };
                    met = passes;
                    if passes == any {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                });
                met
            }
            Comparison::Number { field, test } => test.passes(number(*field, self.key)),
            Comparison::Address { field, test } => {
                address(*field, self.key).is_some_and(|value| test.passes(value))
            }
        }
    }

    fn text_passes(&self, test: &TextTest, value: &[u8]) -> bool {
        match test {
            TextTest::Equals(wanted) => value == wanted.as_bytes(),
            TextTest::Differs(wanted) => value != wanted.as_bytes(),
            TextTest::Prefix(wanted) => value.starts_with(wanted.as_bytes()),
            TextTest::Suffix(wanted) => value.ends_with(wanted.as_bytes()),
            TextTest::Contains(wanted) => memchr::memmem::find(value, wanted.as_bytes()).is_some(),
            TextTest::Matches(number, _) => {
                let id = self.condition.first_pattern.plus(*number);
                self.patterns.regex(id).is_match(value)
            }
        }
    }

    /// The same for the path, of which is also noted what matched it.
    fn path_passes(&mut self, lower: bool, test: &TextTest) -> bool {
        let (key, lowered) = (self.key, lower.then(|| LowerCase::new(self.key.path)));
        let value = lowered.as_deref().unwrap_or(key.path);
        if let TextTest::Matches(number, _) = test {
            let pattern = self.condition.first_pattern.plus(*number);
            let Some(found) = self.patterns.regex(pattern).find(value) else {
                return false;
            };
            // What does not match from the start cannot be cut off; then it counts as one for `/`.
            let len = if found.start() == 0 { found.end() } else { 1 };
            self.path = MatchedPath::Regex { len, pattern };
            return true;
        }
        let passes = self.text_passes(test, value);
        if let (true, TextTest::Equals(text) | TextTest::Prefix(text)) = (passes, test) {
            self.path = MatchedPath::Prefix(text.len());
        }
        passes
    }
}

/// The values that a predicate compares, as texts for people.
pub(super) fn shown_values(predicate: &Predicate, key: &Key<'_>) -> Vec<String> {
    match &predicate.comparison {
        Comparison::Text { field, .. } => {
            let mut values = Vec::new();
            each_text(field, key, |value| {
                values.push(String::from_utf8_lossy(value).into_owned());
                ControlFlow::Continue(())
            });
            values
        }
        Comparison::Number { field, .. } => vec![number(*field, key).to_string()],
        Comparison::Address { field, .. } => {
            let value = address(*field, key);
            value.iter().map(ToString::to_string).collect()
        }
    }
}

/// Shows the values of a field until it is told to stop.
fn each_text(field: &TextField, key: &Key<'_>, mut visit: impl FnMut(&[u8]) -> ControlFlow<()>) {
    let _ = match field {
        TextField::Method => visit(key.method.as_bytes()),
        TextField::Host => {
            let name = key.host.strip_suffix('.').unwrap_or(key.host);
            visit(&LowerCase::new(name.as_bytes()))
        }
        TextField::Path => visit(key.path),
        TextField::Segments(from, to) => match segments(key.path, *from, *to) {
            Some(value) => visit(value),
            None => ControlFlow::Continue(()),
        },
        TextField::Header(name) => {
            let mut values = key.headers.get_all(name);
            values.try_for_each(|value| visit(value.as_bytes()))
        }
        TextField::Query(name) => form_urlencoded::parse(key.query.as_bytes())
            .filter(|(argument, _)| *argument == **name)
            .try_for_each(|(_, value): (_, Cow<'_, str>)| visit(value.as_bytes())),
        TextField::Protocol => visit(key.protocol.as_bytes()),
        TextField::ServerName => match key.sni {
            None | Some("") => ControlFlow::Continue(()),
            Some(name) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                visit(&LowerCase::new(name.as_bytes()))
            }
        },
    };
}

fn number(field: NumberField, key: &Key<'_>) -> i64 {
    match field {
        NumberField::SegmentCount => {
            let count =
                all_segments(key.path).map_or(0, |path| path.split(|byte| *byte == b'/').count());
            i64::try_from(count).unwrap_or(i64::MAX)
        }
        NumberField::SourcePort => key.source.port().into(),
        NumberField::DestinationPort => key.port.into(),
    }
}

fn address(field: AddressField, key: &Key<'_>) -> Option<IpAddr> {
    match field {
        AddressField::Source => Some(key.source.ip()),
        AddressField::Destination => key.destination,
    }
}

/// A path without the slashes around it; `None` if nothing is left.
fn all_segments(path: &[u8]) -> Option<&[u8]> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let path = path.strip_suffix(b"/").unwrap_or(path);
    (!path.is_empty()).then_some(path)
}

/// The segments from one to another with the slashes between them; `None` if there are fewer.
fn segments(path: &[u8], from: usize, to: usize) -> Option<&[u8]> {
    let path = all_segments(path)?;
    // The n-th segment, counted from 0, begins behind the n-th slash and ends at the next.
    let mut slashes = memchr::memchr_iter(b'/', path);
    let start = match from.checked_sub(1) {
        Some(before) => slashes.nth(before)? + 1,
        None => 0,
    };
    let end = match (to - from).checked_sub(1) {
        None => slashes.next().unwrap_or(path.len()),
        Some(between) => {
            slashes.nth(between)?;
            slashes.next().unwrap_or(path.len())
        }
    };
    path.get(start..end)
}

#[cfg(test)]
mod tests {

    use super::super::{Flavor, Router, Rule};
    use super::*;
    use crate::entity::message::Headers;

    fn route(expression: &str) -> Router {
        let rule = Rule {
            expression: Some(expression.to_owned()),
            ..Rule::default()
        };
        Router::build(&[rule], Flavor::Expressions).unwrap()
    }

    fn with_key<R>(look_up: impl FnOnce(&Key<'_>) -> R) -> R {
        let headers = [("x-a", "1"), ("x-a", "Two"), ("x-b", "3")];
        let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let headers = Headers::from_iter(headers);
        look_up(&Key {
            method: "PUT",
            host: "Shop.test.",
            port: 8080,
            path: b"/api/v1/users/42/",
            sni: Some("Shop.test"),
            query: "a=1&b=x%20y&a=2&c&d=p+q",
            protocol: "https",
            source: ([10, 1, 2, 3], 50_000).into(),
            destination: Some([192, 0, 2, 1].into()),
            ..Key::plain(&headers)
        })
    }

    fn holds(expression: &str) -> bool {
        with_key(|key| route(expression).find(key).is_some())
    }

    #[test]
    fn every_field_has_its_value() {
        for expression in [
            r#"http.method == "PUT""#,
            r#"http.host == "SHOP.test""#,
            r#"http.host =^ ".test" && http.host ~ "^Shop""#,
            r#"http.path == "/api/v1/users/42/""#,
            r#"http.path.segments.0 == "api" && http.path.segments.3 == "42""#,
            r#"http.path.segments.0_1 == "api/v1" && http.path.segments.1_3 == "v1/users/42""#,
            "http.path.segments.len == 4",
            r#"http.headers.x_b == "3" && http.headers.X_B == "3""#,
            r#"http.queries.b == "x y" && http.queries.c == "" && http.queries.d == "p q""#,
            r#"net.protocol == "https" && tls.sni == "shop.test""#,
            "net.src.ip in 10.0.0.0/8 && net.src.ip not in 10.2.0.0/16 && net.src.ip == 10.1.2.3",
            "net.src.port == 50000 && net.src.port > 1024 && net.src.port <= 50000",
            "net.dst.ip == 192.0.2.1 && net.dst.port == 8080 && net.dst.port != 80",
            r#"http.path contains "users" && lower(http.method) == "put""#,
        ] {
            assert!(holds(expression), "{expression}");
        }
    }

    #[test]
    fn all_values_must_do_unless_any_is_asked_for_and_none_never_does() {
        for (expression, expected) in [
            (r#"http.headers.x_a == "1""#, false),
            (r#"any(http.headers.x_a) == "1""#, true),
            (r#"any(lower(http.headers.x_a)) == "two""#, true),
            (r#"http.headers.x_a != "3""#, true),
            (r#"http.headers.x_a != "1""#, false),
            (r#"any(http.headers.x_a) != "1""#, true),
            (r#"http.queries.a ~ "^[0-9]$""#, true),
            (r#"any(http.queries.a) == "2""#, true),
            (r#"http.headers.x_c != "1""#, false),
            (r#"!(http.headers.x_c == "1")"#, true),
            (r#"http.path.segments.4 != "x""#, false),
            (r#"http.path.segments.3_4 ^= """#, false),
        ] {
            assert_eq!(holds(expression), expected, "{expression}");
        }
    }

    #[test]
    fn a_path_has_the_segments_between_its_slashes() {
        for (path, len, first, second_and_third) in [
            ("/", 0, None, None),
            ("/a", 1, Some("a"), None),
            ("/a/", 1, Some("a"), None),
            ("/a/b/c", 3, Some("a"), Some("b/c")),
            ("/a/b/c/d", 4, Some("a"), Some("b/c")),
        ] {
            let headers = Headers::default();
            let key = Key {
                path: path.as_bytes(),
                ..Key::plain(&headers)
            };
            assert_eq!(number(NumberField::SegmentCount, &key), len, "{path}");
            assert_eq!(segments(key.path, 0, 0), first.map(str::as_bytes), "{path}");
            let both = segments(key.path, 1, 2);
            assert_eq!(both, second_and_third.map(str::as_bytes), "{path}");
        }
    }

    #[test]
    fn what_holds_of_the_beginning_of_the_path_is_what_strip_path_cuts() {
        for (expression, cut) in [
            (r#"http.path ^= "/api""#, 4),
            (r#"http.path ^= "/x" || http.path ^= "/api/""#, 5),
            (
                r#"(http.path ^= "/api/v1" && http.method == "GET") || http.path ^= "/api""#,
                4,
            ),
            (r#"!(http.path ^= "/x") && http.method == "PUT""#, 1),
            (r#"http.path ~ "^/api/v[0-9]+""#, 7),
            (r#"http.path ~ "users""#, 1),
            (r#"http.path =^ "/42/""#, 1),
            (r#"http.path == "/api/v1/users/42/""#, 17),
            (r#"http.host == "shop.test""#, 1),
        ] {
            let got = with_key(|key| {
                route(expression)
                    .find(key)
                    .map(|found| found.path.cut_len())
            });
            assert_eq!(got, Some(cut), "{expression}");
        }
    }

    #[test]
    fn a_regex_of_an_expression_gives_its_captures() {
        let router = route(r##"http.path ~ r#"^/api/.*/users/(?<id>\d+)"#"##);
        with_key(|key| {
            let MatchedPath::Regex { pattern, .. } = router.find(key).unwrap().path else {
                unreachable!()
            };
            let captures = router.regex(pattern).captures(key.path).unwrap();
            assert_eq!(&captures["id"], b"42");
        });
    }
}

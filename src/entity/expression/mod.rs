//! An expression of a route: a predicate over requests in Kong's language, checked and typed. Whether
//! a request meets it is decided by the router.

mod field;
mod syntax;

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::pattern::Pattern;
pub use field::{AddressField, NumberField, TextField};

/// The longest expression, in bytes.
const LENGTH_MAX: usize = 16 << 10;

/// An expression that can be evaluated.
#[derive(Debug)]
pub struct Expression {
    /// What must hold.
    pub root: Node,
    /// The regexes, by the numbers that predicates have for them.
    pub patterns: Vec<Pattern>,
}

/// A part of an expression. `&&` and `||` hold two parts or more.
#[derive(Debug)]
pub enum Node {
    /// `a && b`.
    All(Box<[Self]>),
    /// `a || b`.
    Any(Box<[Self]>),
    /// `!(a)`.
    Not(Box<Self>),
    /// One comparison.
    Is(Predicate),
}

/// A field compared with a constant. A field without a value meets no comparison, not even `!=`.
#[derive(Debug)]
pub struct Predicate {
    /// What is compared.
    pub comparison: Comparison,
    /// One value of the field is enough; else every one must do.
    pub any: bool,
}

/// A field with a test for values of its type.
#[derive(Debug)]
pub enum Comparison {
    Text {
        field: TextField,
        /// Compared in lower case (ASCII).
        lower: bool,
        test: TextTest,
    },
    Number {
        field: NumberField,
        test: NumberTest,
    },
    Address {
        field: AddressField,
        test: AddressTest,
    },
}

/// What is asked of a text.
#[derive(Debug, PartialEq, Eq)]
pub enum TextTest {
    Equals(Box<str>),
    Differs(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    /// A regex that may match anywhere: its number, and how it is written.
    Matches(usize, Box<str>),
}

/// What is asked of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberTest {
    Equals(i64),
    Differs(i64),
    Greater(i64),
    GreaterOrEqual(i64),
    Less(i64),
    LessOrEqual(i64),
}

/// What is asked of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressTest {
    Equals(IpAddr),
    Differs(IpAddr),
    In(IpNet),
    NotIn(IpNet),
}

/// Why a text is no expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// One line, lowercase, with the way out.
    pub message: String,
    /// The byte at which it is, where that is known.
    pub offset: Option<usize>,
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse(source: &str) -> Result<Self, Mistake> {
        if source.len() > LENGTH_MAX {
            return Err(Mistake {
                message: format!(
                    "it has {} bytes, more than {LENGTH_MAX}; make it several routes",
                    source.len()
                ),
                offset: None,
            });
        }
        syntax::parse(source)
    }
}

/// Checks an expression. The error is a sentence for the operator that says where in the text.
pub fn validate(source: &str) -> Result<(), String> {
    Expression::parse(source)
        .map(|_| ())
        .map_err(|mistake| mistake.told(source))
}

impl Mistake {
    /// The message with the place in `source`.
    pub fn told(&self, source: &str) -> String {
        let Some(before) = self.offset.and_then(|offset| source.get(..offset)) else {
            return format!("expression: {}", self.message);
        };
        let line = before.matches('\n').count() + 1;
        let character = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        let place = if source.trim_end().contains('\n') {
            format!("line {line}, character {character}")
        } else {
            format!("character {character}")
        };
        format!("expression, {place}: {}", self.message)
    }
}

impl NumberTest {
    /// Whether `value` passes.
    pub fn passes(self, value: i64) -> bool {
        match self {
            Self::Equals(wanted) => value == wanted,
            Self::Differs(other) => value != other,
            Self::Greater(bound) => value > bound,
            Self::GreaterOrEqual(bound) => value >= bound,
            Self::Less(bound) => value < bound,
            Self::LessOrEqual(bound) => value <= bound,
        }
    }
}

impl AddressTest {
    /// Whether `value` passes.
    pub fn passes(self, value: IpAddr) -> bool {
        match self {
            Self::Equals(wanted) => value == wanted,
            Self::Differs(other) => value != other,
            Self::In(network) => network.contains(&value),
            Self::NotIn(network) => !network.contains(&value),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, parts: &[Self], operator: &str| {
            for (place, part) in parts.iter().enumerate() {
                if place > 0 {
                    write!(f, " {operator} ")?;
                }
                match part {
                    Self::All(_) | Self::Any(_) => write!(f, "({part})")?,
                    Self::Not(_) | Self::Is(_) => part.fmt(f)?,
                }
            }
            Ok(())
        };
        match self {
            Self::All(parts) => joined(f, parts, "&&"),
            Self::Any(parts) => joined(f, parts, "||"),
            Self::Not(part) => write!(f, "!({part})"),
            Self::Is(predicate) => predicate.fmt(f),
        }
    }
}

impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, lower): (&dyn fmt::Display, bool) = match &self.comparison {
            Comparison::Text { field, lower, .. } => (field, *lower),
            Comparison::Number { field, .. } => (field, false),
            Comparison::Address { field, .. } => (field, false),
        };
        match (self.any, lower) {
            (false, false) => write!(f, "{name}")?,
            (true, false) => write!(f, "any({name})")?,
            (false, true) => write!(f, "lower({name})")?,
            (true, true) => write!(f, "any(lower({name}))")?,
        }
        match &self.comparison {
            Comparison::Text { test, .. } => write!(f, " {test}"),
            Comparison::Number { test, .. } => write!(f, " {test}"),
            Comparison::Address { test, .. } => write!(f, " {test}"),
        }
    }
}

impl fmt::Display for TextTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operator, text) = match self {
            Self::Equals(text) => ("==", text),
            Self::Differs(text) => ("!=", text),
            Self::Prefix(text) => ("^=", text),
            Self::Suffix(text) => ("=^", text),
            Self::Contains(text) => ("contains", text),
            Self::Matches(_, text) => ("~", text),
        };
        if text.contains('\\') && !text.contains("\"#") {
            write!(f, "{operator} r#\"{text}\"#")
        } else {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            write!(f, "{operator} \"{escaped}\"")
        }
    }
}

impl fmt::Display for NumberTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operator, number) = match self {
            Self::Equals(number) => ("==", number),
            Self::Differs(number) => ("!=", number),
            Self::Greater(number) => (">", number),
            Self::GreaterOrEqual(number) => (">=", number),
            Self::Less(number) => ("<", number),
            Self::LessOrEqual(number) => ("<=", number),
        };
        write!(f, "{operator} {number}")
    }
}

impl fmt::Display for AddressTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equals(address) => write!(f, "== {address}"),
            Self::Differs(address) => write!(f, "!= {address}"),
            Self::In(network) => write!(f, "in {network}"),
            Self::NotIn(network) => write!(f, "not in {network}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(source: &str) -> String {
        validate(source).unwrap_err()
    }

    #[test]
    fn an_expression_is_read_and_written_again() {
        for (source, written) in [
            (
                r#"http.path ^= "/a" && http.method == "GET""#,
                r#"http.path ^= "/a" && http.method == "GET""#,
            ),
            // `||` binds tighter than `&&` in this language.
            (
                r#"http.method=="A"&&http.method!="B"||http.host=^".c""#,
                r#"http.method == "A" && (http.method != "B" || http.host =^ ".c")"#,
            ),
            (
                r#"!(any(lower(http.headers.x_tenant)) ~ "^a\\d")"#,
                r##"!(any(lower(http.headers.x_tenant)) ~ r#"^a\d"#)"##,
            ),
            (
                "net.src.ip in 10.0.0.0/8 && net.src.ip not in fd00::/64 || net.dst.ip == ::1",
                "net.src.ip in 10.0.0.0/8 && (net.src.ip not in fd00::/64 || net.dst.ip == ::1)",
            ),
            (
                "net.dst.port >= 0x50 && net.src.port < 1024 && http.path.segments.len == 2",
                "net.dst.port >= 80 && net.src.port < 1024 && http.path.segments.len == 2",
            ),
            (
                r##"http.path.segments.0 == r#"a"b"# && http.path.segments.1_3 contains "c""##,
                r#"http.path.segments.0 == "a\"b" && http.path.segments.1_3 contains "c""#,
            ),
            (
                r#"http.queries.page == "" && net.protocol == "https" && tls.sni == "A.test.""#,
                r#"http.queries.page == "" && net.protocol == "https" && tls.sni == "a.test""#,
            ),
        ] {
            let read = Expression::parse(source).unwrap();
            assert_eq!(read.root.to_string(), written);
            let again = Expression::parse(written).unwrap();
            assert_eq!(again.root.to_string(), written);
        }
    }

    #[test]
    fn not_in_may_have_any_space_between_its_words() {
        for source in [
            "net.src.ip not in 10.0.0.0/8",
            "net.src.ip not   in 10.0.0.0/8",
            "net.src.ip not\n\tin 10.0.0.0/8",
            "any(net.src.ip)not  in10.0.0.0/8",
        ] {
            let read = Expression::parse(source).unwrap();
            assert!(
                read.root.to_string().ends_with("not in 10.0.0.0/8"),
                "{source}"
            );
        }
        let quoted = Expression::parse(r#"http.path == "/not  in""#).unwrap();
        assert_eq!(quoted.root.to_string(), r#"http.path == "/not  in""#);
        assert_eq!(
            mistake("net.src.ip notin 10.0.0.0/8"),
            "expression, character 12: `notin` is no operator; write `not in`"
        );
    }

    #[test]
    fn a_mistake_is_told_with_its_place_in_the_text() {
        for (source, told) in [
            (
                r#"http.path ^= "/a" && "#,
                "expression, character 22: expected a comparison such as `http.path ^= \"/a\"`",
            ),
            (
                r#"http.path "/a""#,
                "expression, character 11: expected an operator",
            ),
            (
                "http.method == \"GET\" &&\nhttp.paht == \"/\"",
                "expression, line 2, character 1: unknown field `http.paht`; there are http.method, http.host, http.path, \
                 http.path.segments.…, http.headers.…, http.queries.…, net.protocol, net.src.ip, net.src.port, net.dst.ip, \
                 net.dst.port, tls.sni",
            ),
            (
                r#"net.src.port == "80""#,
                "expression, character 1: `net.src.port` is a number, and `\"80\"` is not",
            ),
            (
                "http.path == 80",
                "expression, character 1: `http.path` is a text, and `80` is not",
            ),
            (
                r#"net.src.ip ^= "10.""#,
                "expression, character 1: `net.src.ip` is an address, and `\"10.\"` is not",
            ),
            (
                "net.src.ip in 10.0.0.1",
                "expression, character 1: `in` takes a network such as `10.0.0.0/8`; for one address write `==`",
            ),
            (
                "net.src.ip == 10.0.0.0/8",
                "expression, character 1: an address is in a network or not; write `in` or `not in`",
            ),
            (
                r#"http.path > "/a""#,
                "expression, character 1: `>` compares numbers, and `http.path` is a text",
            ),
            (
                "lower(net.src.ip) == 10.0.0.1",
                "expression, character 7: `lower` is for texts, and `net.src.ip` is an address",
            ),
            (
                r#"upper(http.path) == "/A""#,
                "expression, character 1: unknown transformation function: upper",
            ),
            (
                r#"http.path ~ "/(?=a)""#,
                "expression, character 13: regex: look-around, including look-ahead and look-behind, is not supported",
            ),
            (
                r#"http.headers.host == "a""#,
                "expression, character 1: the header `host` cannot be compared; use `http.host`",
            ),
            (
                r#"http.path.segments.3_1 == "a""#,
                "expression, character 1: `http.path.segments.3_1` has no segments: the second number is the smaller",
            ),
            (
                "net.src.ip in 10.0.0.1/8",
                "expression, character 15: host part of address was not zero",
            ),
        ] {
            let got = mistake(source);
            assert!(got.starts_with(told), "{got}\n{told}");
        }
    }

    #[test]
    fn what_is_too_long_or_too_deep_is_refused_before_it_is_parsed() {
        let deep = format!(
            "{}http.path == \"/\"{}",
            "(".repeat(100_000),
            ")".repeat(100_000)
        );
        assert!(mistake(&deep).contains("more than 16384"));
        let deep = format!("{}http.path == \"/\"{}", "(".repeat(60), ")".repeat(60));
        assert!(mistake(&deep).contains("nested deeper than"));
        let functions = format!(
            "{}http.path{} == \"/\"",
            "lower(".repeat(60),
            ")".repeat(60)
        );
        assert!(mistake(&functions).contains("nested deeper than"));
        let long = vec![r#"http.path ^= "/a""#; 700].join(" && ");
        assert!(validate(&long).is_ok());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, cases: 2_000, ..Default::default() })]

        #[test]
        fn no_text_makes_the_parser_panic(
            words in proptest::collection::vec(
                proptest::sample::select(&[
                    "http.path", "net.src.ip", "net.src.port", "lower(", "any(", ")", "(", "!", "&&", "||", "==", "!=", "~",
                    "^=", "=^", ">", "<=", "in", "not", "notin", "not  in", "contains", "\"/a\"", "\"", "r#\"a\"#", "10.0.0.0/8",
                    "10.0.0.1", "::1", "fd00::/64", "80", "-0x1", "é", "\n", "in10.0.0.0/8", "9999999999999999999", "300.1.1.1",
                ][..]),
                0..12,
            ),
            blank: bool,
        ) {
            let _ = Expression::parse(&words.join(if blank { " " } else { "" }));
        }
    }
}

//! A regex from the configuration: checked when it is read, compiled when it is first needed.
//!
//! Compiling a regex costs some fifty microseconds and tens of kilobytes, parsing one a few
//! microseconds. A table of thousands of regexes therefore starts fast and small, and still no bad
//! regex gets past the check.

use std::sync::OnceLock;

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ast;
use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// The most a pattern may weigh: about one unit for each byte or range of characters that it can
/// step through.
///
/// It stands for some megabytes of compiled program; `\w` weighs near 800, so `\w{1,100}` fits and
/// `\w{1,200}` does not.
const WEIGHT_MAX: usize = 100_000;

/// How deep groups may nest: a little less than the `regex` crate's own 250, for the group that we
/// put around.
const NEST_LIMIT: u32 = 200;

/// What a value of a route's `headers` begins with if it is a regex.
pub const HEADER_REGEX_MARK: &str = "~*";

/// A regex over bytes, in the syntax of the `regex` crate.
///
/// `.`, `\w` and negated classes mean Unicode characters, so they do not match bytes that are not
/// UTF-8; `(?-u:…)` does. There is no look-around and no back-reference, which makes matching
/// linear in the text's length.
#[derive(Debug)]
pub struct Pattern {
    expression: String,
    case_insensitive: bool,
    literal_prefix: Box<[u8]>,
    has_assertions: bool,
    compiled: OnceLock<Regex>,
}

impl Pattern {
    /// A regex that must match from the start of a path, but not up to its end.
    pub fn for_path(pattern: &str) -> Result<Self, String> {
        // Parsed alone, for in `a)|(?:b` our group would end early and the anchor hold for the
        // first part only.
        let hir = parse(pattern, false)?;
        let anchored = format!("^(?:{pattern})");
        if pattern.contains('#') {
            // In the mode `(?x)` a comment at the end would hide the parenthesis that closes our
            // group.
            parse(&anchored, false)?;
        }
        Self::new(&hir, anchored, false)
    }

    /// A regex that may match anywhere in a text.
    pub fn anywhere(pattern: &str, case_insensitive: bool) -> Result<Self, String> {
        let hir = parse(pattern, case_insensitive)?;
        let mut read = Self::new(&hir, pattern.to_owned(), case_insensitive)?;
        let is_anchored = hir.properties().look_set_prefix().contains(Look::Start);
        if !is_anchored {
            read.literal_prefix = Box::default();
        }
        Ok(read)
    }

    /// A regex that may match anywhere in a header's value, in any letter case.
    pub fn for_header_value(pattern: &str) -> Result<Self, String> {
        Self::new(&parse(pattern, true)?, pattern.to_owned(), true)
    }

    fn new(hir: &Hir, expression: String, case_insensitive: bool) -> Result<Self, String> {
        if weight(hir) > WEIGHT_MAX {
            return Err("the regex is too large; use smaller repetition counts, or ASCII classes such as `[0-9]`".to_owned());
        }
        let literal_prefix = Extractor::new()
            .extract(hir)
            .longest_common_prefix()
            .unwrap_or_default()
            .into();
        Ok(Self {
            expression,
            case_insensitive,
            literal_prefix,
            has_assertions: !hir.properties().look_set().is_empty(),
            compiled: OnceLock::new(),
        })
    }

    /// The compiled regex; the first call compiles it.
    pub fn regex(&self) -> &Regex {
        self.compiled.get_or_init(|| {
            RegexBuilder::new(&self.expression)
                .case_insensitive(self.case_insensitive)
                // The weight is the limit, so that one that passed the check cannot fail here.
                .size_limit(usize::MAX)
                .build()
                .expect("the pattern was parsed, and its depth and size are within the limits")
        })
    }

    /// Bytes with which every match begins, and for [`Self::anywhere`] every text that matches;
    /// maybe none.
    pub fn literal_prefix(&self) -> &[u8] {
        &self.literal_prefix
    }

    /// Whether it says something of what stands around a match, such as `$` or `\b`. Else a text that
    /// matches still does with more behind it.
    pub fn has_assertions(&self) -> bool {
        self.has_assertions
    }
}

/// One value of a route's `headers`, checked.
#[derive(Debug)]
pub enum HeaderValue<'a> {
    /// The whole value, compared in any letter case.
    Whole(&'a str),
    /// A regex that may match anywhere in the value.
    Regex(Pattern),
}

impl<'a> HeaderValue<'a> {
    /// Reads one value of a route's `headers`: `~*…` is a regex, anything else the whole value.
    ///
    /// The error is a sentence for the operator, without the field's place.
    pub fn parse(written: &'a str) -> Result<Self, String> {
        match written.strip_prefix(HEADER_REGEX_MARK) {
            Some(regex) => Pattern::for_header_value(regex)
                .map(Self::Regex)
                .map_err(|message| format!("regex `{written}`: {message}")),
            None => Ok(Self::Whole(written)),
        }
    }
}

/// Checks one value of a route's `headers`; see [`HeaderValue::parse`].
pub fn validate_header_value(written: &str) -> Result<(), String> {
    HeaderValue::parse(written).map(|_| ())
}

fn parse(pattern: &str, case_insensitive: bool) -> Result<Hir, String> {
    regex_syntax::ParserBuilder::new()
        .utf8(false)
        .nest_limit(NEST_LIMIT)
        .case_insensitive(case_insensitive)
        .build()
        .parse(pattern)
        .map_err(|error| describe(&error))
}

fn describe(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(error) => {
            let column = error.span().start.column;
            let hint = match error.kind() {
                ast::ErrorKind::UnsupportedLookAround => {
                    "; use two routes, and let `regex_priority` decide between them"
                }
                ast::ErrorKind::UnsupportedBackreference => "; write out what may be repeated",
                _ => "",
            };
            format!("{} (at character {column}){hint}", error.kind())
        }
        regex_syntax::Error::Translate(error) => error.kind().to_string(),
        other => other.to_string(),
    }
}

/// How large the compiled program gets, as a number of single steps; saturating.
fn weight(hir: &Hir) -> usize {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len(),
        HirKind::Class(Class::Unicode(class)) => class.ranges().len().max(1),
        HirKind::Class(Class::Bytes(class)) => class.ranges().len().max(1),
        HirKind::Capture(capture) => weight(&capture.sub).saturating_add(2),
        HirKind::Repetition(repetition) => {
            let copies = repetition
                .max
                .unwrap_or_else(|| repetition.min.saturating_add(1))
                .max(1) as usize;
            weight(&repetition.sub)
                .saturating_add(1)
                .saturating_mul(copies)
        }
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().map(weight).fold(1, usize::saturating_add)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(pattern: &str, path: &str) -> Option<usize> {
        Pattern::for_path(pattern)
            .unwrap()
            .regex()
            .find(path.as_bytes())
            .map(|found| found.end())
    }

    #[test]
    fn a_path_pattern_is_anchored_at_the_start_only() {
        assert_eq!(matched("/a", "/abc"), Some(2));
        assert_eq!(matched("/a$", "/abc"), None);
        assert_eq!(matched("/b", "/a/b"), None);
        assert_eq!(matched("/a|/b", "/x/b"), None);
    }

    #[test]
    fn a_header_pattern_matches_anywhere_in_any_letter_case() {
        let pattern = Pattern::for_header_value(r"chrome/\S+").unwrap();
        assert!(pattern.regex().is_match(b"Mozilla Chrome/1 x"));
        assert!(!pattern.regex().is_match(b"Mozilla Chrome/"));
    }

    #[test]
    fn a_header_value_is_a_regex_only_behind_its_mark() {
        assert_eq!(validate_header_value("a(b"), Ok(()));
        assert_eq!(validate_header_value("~a(b"), Ok(()));
        assert_eq!(
            validate_header_value("~*a(b").unwrap_err(),
            "regex `~*a(b`: unclosed group (at character 2)"
        );
    }

    #[test]
    fn every_match_begins_with_the_literal_prefix() {
        for (pattern, prefix) in [
            (r"/users/(?<id>\d+)", "/users/"),
            ("/a/b$", "/a/b"),
            ("/a[bc]/d", "/a"),
            ("/a|/b", "/"),
            ("(?i)/ab", "/"),
            ("/(x|y)?z", "/"),
            ("/a*", "/"),
            (".*", ""),
            ("", ""),
        ] {
            assert_eq!(
                Pattern::for_path(pattern).unwrap().literal_prefix(),
                prefix.as_bytes(),
                "{pattern}"
            );
        }
    }

    #[test]
    fn a_pattern_for_anywhere_has_a_prefix_only_if_it_is_anchored() {
        for (pattern, prefix) in [
            ("^/users/", "/users/"),
            (r"^/users/\d+$", "/users/"),
            ("/users/", ""),
            ("^/a|^/b", "/"),
            ("^/a|/b", ""),
            ("(?m)^/a", ""),
            (r"^(?i)/a", "/"),
        ] {
            let read = Pattern::anywhere(pattern, false).unwrap();
            assert_eq!(read.literal_prefix(), prefix.as_bytes(), "{pattern}");
        }
    }

    #[test]
    fn assertions_are_what_looks_around_a_match() {
        let has = |pattern| Pattern::for_path(pattern).unwrap().has_assertions();
        assert!(!has(r"/users/\d+"));
        assert!(has("/a$"));
        assert!(has(r"/a\b"));
    }

    #[test]
    fn mistakes_are_told_in_one_line() {
        assert_eq!(
            Pattern::for_path("/a(").unwrap_err(),
            "unclosed group (at character 3)"
        );
        assert_eq!(
            Pattern::for_path(r"/\pX").unwrap_err(),
            "Unicode property not found"
        );
        assert!(
            Pattern::for_path("/a(?=b)")
                .unwrap_err()
                .starts_with("look-around")
        );
        assert!(
            Pattern::for_path(r"/(a)\1")
                .unwrap_err()
                .starts_with("backreferences are not supported")
        );
        assert!(
            Pattern::for_path("/a)|(?:b")
                .unwrap_err()
                .starts_with("unopened group")
        );
        assert!(Pattern::for_path("(?x)/a # comment").is_err());
        for error in [
            r"/\w{1,200}",
            r"/((a{1000}){1000}){1000}",
            r"/(((x{999}){999}){999}){999}",
        ] {
            assert!(
                Pattern::for_path(error)
                    .unwrap_err()
                    .starts_with("the regex is too large"),
                "{error}"
            );
        }
        let deep = format!("/{}a{}", "(".repeat(300), ")".repeat(300));
        assert!(
            Pattern::for_path(&deep)
                .unwrap_err()
                .starts_with("exceed the maximum number of nested parentheses")
        );
    }

    #[test]
    fn the_heaviest_patterns_that_pass_do_compile() {
        let deep = format!("/{}a{}", "(".repeat(190), ")".repeat(190));
        for pattern in [
            &deep,
            r"/\w{1,100}",
            r"/[0-9a-z]{1,9999}",
            r"/(\p{L}|x{500}){50}",
            r"/(?-u:[^a]{30000})",
            r"/(?i)é{1,20000}",
        ] {
            assert!(
                Pattern::for_path(pattern)
                    .unwrap()
                    .regex()
                    .find(b"/")
                    .is_none(),
                "{pattern}"
            );
        }
    }

    #[test]
    fn patterns_can_match_bytes_that_are_not_utf8_if_they_say_so() {
        assert!(
            Pattern::for_path("/.")
                .unwrap()
                .regex()
                .find(b"/\xff")
                .is_none()
        );
        assert!(
            Pattern::for_path("/(?-u:.)")
                .unwrap()
                .regex()
                .find(b"/\xff")
                .is_some()
        );
    }
}

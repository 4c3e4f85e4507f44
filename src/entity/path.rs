//! The normal form of a request path, and the rules for a route's `paths`.
//!
//! Requests are brought into normal form before they are routed, and prefixes must be written in
//! it, so that routing itself compares plain bytes. Choosing a route and building the upstream path
//! are the router's.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pattern::Pattern;

/// What a route path begins with if it is a regex.
pub const REGEX_MARK: char = '~';

/// How the service's path and the request's path are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PathHandling {
    /// With exactly one slash between them.
    #[default]
    V0,
    /// Plain concatenation.
    V1,
}

/// One entry of a route's `paths`, checked.
#[derive(Debug)]
pub enum RoutePath<'a> {
    /// A prefix in normal form.
    Prefix(&'a str),
    /// A regex that must match from the start of the path.
    Regex(Pattern),
}

impl<'a> RoutePath<'a> {
    /// Reads one entry of a route's `paths` as Kong's format 3.0 has it: `/…` is a prefix, `~/…` is
    /// a regex.
    ///
    /// The error is a sentence for the operator, without the field's place.
    pub fn parse(written: &'a str) -> Result<Self, String> {
        if written.contains("//") {
            return Err(format!(
                "`{written}` has an empty segment `//`; requests are matched after runs of `/` are merged"
            ));
        }
        match written.strip_prefix(REGEX_MARK) {
            Some(regex) if regex.starts_with('/') => Pattern::for_path(regex)
                .map(Self::Regex)
                .map_err(|message| format!("regex `{written}`: {message}")),
            None if written.starts_with('/') => {
                check_prefix(written).map(|()| Self::Prefix(written))
            }
            _ => Err(format!(
                "`{written}` should begin with `/` (a prefix) or `~/` (a regex)"
            )),
        }
    }
}

/// Checks one entry of a route's `paths`; see [`RoutePath::parse`].
pub fn validate(written: &str) -> Result<(), String> {
    RoutePath::parse(written).map(|_| ())
}

fn check_prefix(prefix: &str) -> Result<(), String> {
    if let Some(triplet) = first_malformed_triplet(prefix.as_bytes()) {
        let triplet = String::from_utf8_lossy(triplet);
        return Err(format!(
            "`{prefix}` has `{triplet}`, which is not a percent-encoded byte; write a literal `%` as `%25`"
        ));
    }
    match normalise(prefix.as_bytes()) {
        Cow::Borrowed(_) => Ok(()),
        Cow::Owned(normal) => Err(match String::from_utf8(normal) {
            Ok(normal) => format!(
                "`{prefix}` is not in normal form, so it would never match; write `{normal}`"
            ),
            Err(_) => format!(
                "`{prefix}` encodes bytes that are not UTF-8 and cannot be written as a prefix; use a regex with `(?-u:\\xHH)`"
            ),
        }),
    }
}

fn first_malformed_triplet(path: &[u8]) -> Option<&[u8]> {
    (0..path.len())
        .filter(|&at| path.get(at) == Some(&b'%'))
        .find(|&at| encoded_byte(path, at).is_none())
        .and_then(|at| path.get(at..path.len().min(at + 3)))
}

/// Whether `path` is what [`normalise`] would make of it.
pub fn is_normal(path: &[u8]) -> bool {
    path.first() == Some(&b'/')
        && (has_nothing_to_normalise(path)
            || path.iter().enumerate().all(|(at, byte)| match byte {
                b'/' => !begins_removable_segment(path.get(at + 1..).unwrap_or_default()),
                b'%' => encoded_byte(path, at)
                    .is_none_or(|byte| is_reserved(byte) && is_upper_case_triplet(path, at)),
                _ => true,
            }))
}

/// Whether `path` has no `%` with something behind it, no empty segment before its end, and none that
/// begins with a dot; nearly all have not. Looks at every byte, which the compiler turns into a few
/// wide instructions.
fn has_nothing_to_normalise(path: &[u8]) -> bool {
    let pairs = path.iter().zip(path.get(1..).unwrap_or_default());
    !pairs.fold(false, |has, (byte, next)| {
        has | may_be_removable(*byte, *next)
    })
}

fn may_be_removable(byte: u8, next: u8) -> bool {
    byte == b'%' || (byte == b'/' && matches!(next, b'/' | b'.'))
}

/// Brings a raw request path, already cut at its `?`, into the form that is matched and sent
/// upstream.
///
/// Percent-encoded bytes are decoded unless they are reserved (RFC 3986 §2.2, and `%` itself),
/// whose hex digits are put in upper case; runs of `/` are merged; dot segments are resolved (RFC
/// 3986 §5.2.4) and never climb above the root. Merging comes before resolving, as in Kong:
/// `/a//../b` is `/b`. The result begins with `/`, may hold bytes that are not UTF-8, and is
/// borrowed if nothing had to change.
pub fn normalise(raw: &[u8]) -> Cow<'_, [u8]> {
    if is_normal(raw) {
        Cow::Borrowed(raw)
    } else {
        Cow::Owned(resolve_segments(&decode_unreserved(raw)))
    }
}

fn decode_unreserved(raw: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        match encoded_byte(raw, at) {
            Some(value) if is_reserved(value) => {
                decoded.extend(raw.iter().skip(at).take(3).map(u8::to_ascii_uppercase));
                at += 3;
            }
            Some(value) => {
                decoded.push(value);
                at += 3;
            }
            None => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

fn resolve_segments(path: &[u8]) -> Vec<u8> {
    let mut resolved = Vec::with_capacity(path.len() + 1);
    let mut ends_in_folder = true;
    for segment in path.split(|&byte| byte == b'/') {
        ends_in_folder = matches!(segment, b"" | b"." | b"..");
        if segment == b".." {
            let parent = resolved.iter().rposition(|&byte| byte == b'/');
            resolved.truncate(parent.unwrap_or(0));
        } else if !ends_in_folder {
            resolved.push(b'/');
            resolved.extend_from_slice(segment);
        }
    }
    if ends_in_folder {
        resolved.push(b'/');
    }
    resolved
}

/// Whether the segment at the start of `rest` is one that normal form does not have: an empty one
/// that is not the last, `.` or `..`.
fn begins_removable_segment(rest: &[u8]) -> bool {
    matches!(
        rest,
        [b'/', ..] | [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..]
    )
}

/// The byte that the `%XX` at `at` stands for.
fn encoded_byte(path: &[u8], at: usize) -> Option<u8> {
    let [b'%', high, low] = *path.get(at..at + 3)? else {
        return None;
    };
    Some(hex_value(high)? << 4 | hex_value(low)?)
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn is_upper_case_triplet(path: &[u8], at: usize) -> bool {
    path.iter()
        .skip(at)
        .take(3)
        .all(|byte| !byte.is_ascii_lowercase())
}

/// RFC 3986 §2.2 reserved characters and `%`: encoded and plain they mean different things.
pub const fn is_reserved(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'*'
            | b'\''
            | b'('
            | b')'
            | b';'
            | b':'
            | b'@'
            | b'&'
            | b'='
            | b'+'
            | b'$'
            | b','
            | b'/'
            | b'?'
            | b'%'
            | b'#'
            | b'['
            | b']'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normalised(raw: &str) -> String {
        String::from_utf8(normalise(raw.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn paths_are_brought_into_normal_form_as_kong_does() {
        for (raw, normal) in [
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2fb", "/a%2Fb"),
            ("/%61bc", "/abc"),
            ("//a///b", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/%2E./b", "/b"),
            ("/../../etc", "/etc"),
            ("/a%20b", "/a b"),
            ("/caf%c3%a9", "/café"),
            ("/a%25b", "/a%25b"),
            ("/a%252e%252e/b", "/a%252e%252e/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a/..%2fb", "/a/..%2Fb"),
            ("/a//../b", "/b"),
            ("/A", "/A"),
            ("/.well-known/..x", "/.well-known/..x"),
            ("/...", "/..."),
            ("/100%", "/100%"),
            ("/%zz%4", "/%zz%4"),
            ("/", "/"),
            ("", "/"),
            ("a", "/a"),
            ("../a", "/a"),
        ] {
            assert_eq!(normalised(raw), normal, "{raw}");
        }
    }

    #[test]
    fn a_normal_path_is_borrowed() {
        for path in [
            "/",
            "/a/b/",
            "/a%2Fb",
            "/.well-known/x",
            "/a b",
            "/café",
            "/a%zz",
        ] {
            assert!(
                matches!(normalise(path.as_bytes()), Cow::Borrowed(_)),
                "{path}"
            );
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_survive() {
        assert_eq!(&*normalise(b"/%ff"), b"/\xff");
    }

    #[test]
    fn a_prefix_that_is_not_normal_is_refused_with_the_normal_one() {
        assert_eq!(
            validate("/caf%c3%a9/../x").unwrap_err(),
            "`/caf%c3%a9/../x` is not in normal form, so it would never match; write `/x`"
        );
        assert!(validate("/a%2fb").unwrap_err().ends_with("write `/a%2Fb`"));
        assert!(validate("/%ff").unwrap_err().contains("(?-u:"));
    }

    #[test]
    fn a_path_must_begin_with_a_slash_and_have_no_empty_segment() {
        for wrong in [
            "", "a", "~a", "~^/a", "*", "/a//b", "~/a//b", "/a%4", "/a%zz", "/%",
        ] {
            assert!(validate(wrong).is_err(), "{wrong}");
        }
        for right in [
            "/",
            "/a",
            "/a/",
            "/a%2Fb",
            "/a b",
            "/é",
            "/a/(\\d+)",
            "~/a$",
            "~/(?<id>\\d+)",
            "~/(?P<id>[^/]+)",
        ] {
            assert_eq!(validate(right), Ok(()), "{right}");
        }
    }

    #[test]
    fn a_bad_regex_is_refused_with_its_reason() {
        assert!(validate("~/a(?!b)").unwrap_err().contains("look-ahead"));
        assert!(
            validate("~/(a)\\1")
                .unwrap_err()
                .contains("backreferences are not supported")
        );
        assert!(validate("~/a)(b").unwrap_err().contains("unopened group"));
    }

    /// The obvious way: decode, drop empty and `.` segments, then let each `..` take one away.
    fn normalise_plainly(raw: &[u8]) -> Vec<u8> {
        let decoded = decode_unreserved(raw);
        let mut segments: Vec<&[u8]> = Vec::new();
        for segment in decoded.split(|&byte| byte == b'/') {
            match segment {
                b"" | b"." => {}
                b".." => drop(segments.pop()),
                name => segments.push(name),
            }
        }
        let mut path = b"/".to_vec();
        path.extend(segments.join(&b'/'));
        let last = decoded
            .rsplit(|&byte| byte == b'/')
            .next()
            .unwrap_or_default();
        if matches!(last, b"" | b"." | b"..") && !segments.is_empty() {
            path.push(b'/');
        }
        path
    }

    fn hard_paths() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            "/", ".", "..", "a", "%2e", "%2F", "%2f", "%25", "%41", "%", "%c3%a9", "\u{e9}", "?",
        ]);
        prop::collection::vec(piece, 0..10)
            .prop_map(|pieces| format!("/{}", pieces.concat()).into_bytes())
    }

    proptest! {
        #[test]
        fn normalising_agrees_with_the_plain_way_and_is_borrowed_exactly_when_nothing_changes(raw in hard_paths()) {
            let normal = normalise(&raw);
            prop_assert_eq!(&*normal, normalise_plainly(&raw));
            prop_assert_eq!(matches!(normal, Cow::Borrowed(_)), *normal == *raw);
        }

        #[test]
        fn no_dot_segment_and_no_empty_segment_survives(raw in hard_paths()) {
            let normal = normalise(&raw).into_owned();
            let mut segments = normal.split(|&byte| byte == b'/').skip(1).peekable();
            while let Some(segment) = segments.next() {
                prop_assert!(!matches!(segment, b"." | b".."));
                prop_assert!(!segment.is_empty() || segments.peek().is_none());
            }
        }
    }
}

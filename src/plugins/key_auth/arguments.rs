//! Arguments of a query or of a form-urlencoded body, as bytes: found by their decoded name,
//! removed without touching the rest.
//!
//! Names to look for are of `[A-Za-z0-9_-]`, so a `+` in a name never has to be decoded.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// The decoded values of the argument `name`, in order. One without `=` has an empty value.
pub(super) fn values<'t>(text: &'t [u8], name: &str) -> impl Iterator<Item = Cow<'t, [u8]>> {
    pairs(text)
        .filter(move |pair| is_named(pair, name))
        .map(|pair| decoded(value_of(pair)))
}

/// Whether there is an argument `name`.
pub(super) fn contains(text: &[u8], name: &str) -> bool {
    pairs(text).any(|pair| is_named(pair, name))
}

/// `text` without any argument `name`, the rest byte for byte; `None` if there is no such argument.
pub(super) fn without(text: &[u8], name: &str) -> Option<Vec<u8>> {
    if !contains(text, name) {
        return None;
    }
    let mut rest = Vec::with_capacity(text.len());
    for (place, pair) in pairs(text).filter(|pair| !is_named(pair, name)).enumerate() {
        if place > 0 {
            rest.push(b'&');
        }
        rest.extend_from_slice(pair);
    }
    Some(rest)
}

fn pairs(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'&')
}

fn is_named(pair: &[u8], name: &str) -> bool {
    let raw = pair.split(|&byte| byte == b'=').next().unwrap_or_default();
    percent_decode(raw).eq(name.bytes())
}

fn value_of(pair: &[u8]) -> &[u8] {
    pair.splitn(2, |&byte| byte == b'=')
        .nth(1)
        .unwrap_or_default()
}

fn decoded(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(raw);
    }
    let spaced: Vec<u8> = raw
        .iter()
        .map(|&byte| if byte == b'+' { b' ' } else { byte })
        .collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        values(text.as_bytes(), "apikey")
            .map(|value| String::from_utf8(value.into_owned()).unwrap())
            .collect()
    }

    fn rest(text: &str) -> Option<String> {
        without(text.as_bytes(), "apikey").map(|rest| String::from_utf8(rest).unwrap())
    }

    #[test]
    fn values_are_found_by_their_decoded_name() {
        assert_eq!(found("a=1&apikey=x&b=2"), ["x"]);
        assert_eq!(found("api%6B%65y=x&apikey=y"), ["x", "y"]);
        assert_eq!(found("apikey"), [""]);
        assert_eq!(found("apikey="), [""]);
        assert_eq!(found(""), [""; 0]);
    }

    #[test]
    fn other_names_are_other_names() {
        for text in [
            "apikey[]=x",
            "apikey[1]=x",
            "APIKEY=x",
            "api+key=x",
            "apikey%00=x",
            "x=apikey",
        ] {
            assert!(found(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn values_are_decoded() {
        assert_eq!(found("apikey=a%20b+c%2Bd=e"), ["a b c+d=e"]);
        assert_eq!(found("apikey=100%"), ["100%"]);
    }

    #[test]
    fn the_rest_keeps_order_and_encoding() {
        assert_eq!(
            rest("b=%7e&apikey=x&&a=+%2B&api%6bey&c"),
            Some("b=%7e&&a=+%2B&c".into())
        );
        assert_eq!(rest("apikey=x"), Some(String::new()));
        assert_eq!(rest("a=1&apikey[]=x"), None);
    }
}

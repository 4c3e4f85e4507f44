//! Paths of routes from the format versions 1.1 and 2.1, in which no `~` told a regex from a prefix.

use crate::entity;

/// What a path of format 1.1 or 2.1 is called in 3.0: plain text is a prefix in normal form, all else is a regex.
pub(super) fn path(written: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~/%".contains(&byte);
    if written.bytes().all(plain) {
        let normal = entity::path::normalise(written.as_bytes()).into_owned();
        return String::from_utf8(normal).unwrap_or_else(|_| written.to_owned());
    }
    format!("{}{}", entity::path::REGEX_MARK, decode_unreserved(written))
}

/// Percent triplets of unreserved characters become those characters, escaped where they mean something in a regex.
fn decode_unreserved(pattern: &str) -> String {
    let mut result = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('%') {
        result.push_str(before);
        let triplet = after
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (triplet.map(char::from), after.get(2..)) {
            (Some(character), Some(behind))
                if character.is_ascii_alphanumeric() || "-._~".contains(character) =>
            {
                result.push_str(&regex_syntax::escape(character.encode_utf8(&mut [0; 4])));
                rest = behind;
            }
            _ => {
                result.push('%');
                rest = after;
            }
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_become_prefixes_in_normal_form() {
        assert_eq!(path("/a/b"), "/a/b");
        assert_eq!(path("/a/../%61"), "/a");
        assert_eq!(path("/a%2fb"), "/a%2Fb");
    }

    #[test]
    fn other_paths_become_regexes() {
        assert_eq!(path(r"/a/(\d+)"), r"~/a/(\d+)");
        assert_eq!(path("/a.%2e$%2F"), r"~/a.\.$%2F");
        assert_eq!(path("/é%"), "~/é%");
    }
}

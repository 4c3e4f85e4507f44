//! How field names are spelled to clients. A response is edited with names in lower case, because
//! one map is half the work of two; this gives them the customary capitals as the head is written.

/// Names that have other capitals as well, as they are with one capital for each word.
const SPELLED: [(&[u8], &[u8]); 7] = [
    (b"Etag", b"ETag"),
    (b"Ratelimit-", b"RateLimit-"),
    (b"Sec-Websocket-", b"Sec-WebSocket-"),
    (b"Sourcemap", b"SourceMap"),
    (b"Www-", b"WWW-"),
    (b"X-Ratelimit-", b"X-RateLimit-"),
    (b"X-Xss-", b"X-XSS-"),
];

/// Gives every word of a field name in `head` its capital. `head` is a status line and fields; what
/// comes behind the empty line stays as it is.
pub(super) fn capitalise(head: &mut [u8]) {
    let begin = memchr::memchr(b'\n', head).map_or(head.len(), |end| end + 1);
    let (_, mut rest) = head.split_at_mut(begin);
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let (line, behind) = rest.split_at_mut(end + 1);
        rest = behind;
        let Some(colon) = memchr::memchr(b':', line) else {
            return;
        };
        let (name, _) = line.split_at_mut(colon);
        let mut before = b'-';
        for byte in &mut *name {
            let capital = byte.to_ascii_uppercase();
            let is_first = before == b'-';
            before = *byte;
            *byte = if is_first { capital } else { *byte };
        }
        // Few names begin with these letters, so few are compared.
        if matches!(name.first(), Some(b'E' | b'R' | b'S' | b'W' | b'X'))
            && let Some((plain, spelled)) =
                SPELLED.iter().find(|(plain, _)| name.starts_with(plain))
            && let Some(begin) = name.get_mut(..plain.len())
        {
            begin.copy_from_slice(spelled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(head: &str) -> String {
        let mut head = head.as_bytes().to_vec();
        capitalise(&mut head);
        String::from_utf8(head).expect("UTF-8")
    }

    #[test]
    fn every_word_of_a_name_begins_with_a_capital_and_values_stay() {
        assert_eq!(
            spelled(
                "HTTP/1.1 200 all-right\r\nx-kong-request-id: a-b: c\r\netag: w\r\n\r\nbody: x\nbody-y: z\n"
            ),
            "HTTP/1.1 200 all-right\r\nX-Kong-Request-Id: a-b: c\r\nETag: w\r\n\r\nbody: x\nbody-y: z\n"
        );
        assert_eq!(
            spelled(
                "HTTP/1.1 429 x\r\nx-ratelimit-limit-minute: 1\r\nwww-authenticate: Key\r\nContent-Type: t\r\n\r\n"
            ),
            "HTTP/1.1 429 x\r\nX-RateLimit-Limit-Minute: 1\r\nWWW-Authenticate: Key\r\nContent-Type: t\r\n\r\n"
        );
    }

    #[test]
    fn odd_names_stay_names() {
        assert_eq!(
            spelled("HTTP/1.1 200 x\r\n-a--b-: 1\r\n_c: 2\r\n\r\n"),
            "HTTP/1.1 200 x\r\n-A--B-: 1\r\n_c: 2\r\n\r\n"
        );
    }
}

//! How field names are spelled to clients. A response is edited with names in lower case, because
//! one map is half the work of two; this gives them the customary capitals as the head is written.

/// Words of other spellings, each as long as it is in lower case.
const WORDS: [(&[u8], &[u8]); 6] = [
    (b"etag", b"ETag"),
    (b"ratelimit", b"RateLimit"),
    (b"sourcemap", b"SourceMap"),
    (b"websocket", b"WebSocket"),
    (b"www", b"WWW"),
    (b"xss", b"XSS"),
];

/// Gives every word of a field name in `head` its capital. `head` is a status line and fields; what
/// comes behind the empty line stays as it is.
pub(super) fn capitalise(head: &mut [u8]) {
    let mut place = match memchr::memchr(b'\n', head) {
        Some(end) => end + 1,
        None => return,
    };
    while let Some(line) = head.get_mut(place..) {
        let Some(end) = memchr::memchr(b'\n', line) else {
            return;
        };
        let mut word = 0;
        let mut at = 0;
        loop {
            match line.get(at) {
                Some(b'-') => {
                    capitalise_word(line, word, at);
                    word = at + 1;
                }
                Some(b':') => {
                    capitalise_word(line, word, at);
                    break;
                }
                Some(b'\n') | None => return,
                Some(_) => {}
            }
            at += 1;
        }
        place += end + 1;
    }
}

fn capitalise_word(line: &mut [u8], begin: usize, end: usize) {
    let Some(word) = line.get_mut(begin..end) else {
        return;
    };
    if let Some((_, spelled)) = WORDS.iter().find(|(plain, _)| *plain == word) {
        word.copy_from_slice(spelled);
    } else if let Some(first) = word.first_mut() {
        first.make_ascii_uppercase();
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

//! How field names are spelled to clients. A response is edited with names in lower case, because
//! one map is half the work of two; this gives them the customary capitals as the head is written.

/// Gives every word of a field name in `head` its capital. `head` is a status line and fields; what
/// comes behind the empty line stays as it is.
pub(super) fn capitalise(head: &mut [u8]) {
    let begin = memchr::memchr(b'\n', head).map_or(head.len(), |end| end + 1);
    let (_, mut rest) = head.split_at_mut(begin);
    // The empty line has no name, and no line begins with its colon.
    while !matches!(rest.first(), None | Some(b'\r' | b'\n'))
        && let Some(colon) = memchr::memchr(b':', rest)
    {
        let (name, behind) = rest.split_at_mut(colon);
        capitalise_words(name);
        spell(name);
        let Some(end) = memchr::memchr(b'\n', behind) else {
            return;
        };
        (_, rest) = behind.split_at_mut(end + 1);
    }
}

/// Eight bytes at a time: a letter becomes a capital where the byte before it is a dash.
fn capitalise_words(name: &mut [u8]) {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = EACH << 7;
    const DASHES: u64 = EACH * b'-' as u64;
    let mut begins_word = true;
    let (chunks, rest) = name.as_chunks_mut::<8>();
    for chunk in chunks {
        let bytes = u64::from_le_bytes(*chunk);
        let other = bytes ^ DASHES;
        // The high bit of each byte that is a dash; names are ASCII.
        let dashes = !(((other & !HIGH) + (HIGH - EACH)) | other) & HIGH;
        let mut firsts = (dashes << 8) | (u64::from(begins_word) << 7);
        begins_word = dashes >> 63 == 1;
        while firsts != 0 {
            if let Some(first) = chunk.get_mut(firsts.trailing_zeros() as usize / 8) {
                first.make_ascii_uppercase();
            }
            firsts &= firsts - 1;
        }
    }
    for byte in rest {
        if begins_word {
            byte.make_ascii_uppercase();
        }
        begins_word = *byte == b'-';
    }
}

/// Gives names that are customarily spelled with more capitals those as well.
fn spell(name: &mut [u8]) {
    match name {
        [b'E', b't', b'a', b'g'] => put(name, b"ET"),
        [b'R', rest @ ..] if rest.starts_with(b"atelimit-") => put(name, b"RateL"),
        [b'S', b'e', b'c', b'-', rest @ ..] if rest.starts_with(b"Websocket-") => {
            put(rest, b"WebS");
        }
        [b'S', rest @ ..] if rest.starts_with(b"ourcemap") => put(name, b"SourceM"),
        [b'W', b'w', b'w', b'-', ..] => put(name, b"WWW"),
        [b'X', b'-', rest @ ..] if rest.starts_with(b"Ratelimit-") => put(rest, b"RateL"),
        [b'X', b'-', rest @ ..] if rest.starts_with(b"Xss-") => put(rest, b"XSS"),
        _ => {}
    }
}

fn put(name: &mut [u8], spelled: &[u8]) {
    if let Some(begin) = name.get_mut(..spelled.len()) {
        begin.copy_from_slice(spelled);
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
    fn words_of_every_length_and_place_get_their_capital() {
        for name in [
            "a",
            "access-control-allow-credentials",
            "abcdefg-hijklmn-opqrstu-vwxyz",
            "abcdefgh-i-j",
            "a-b-c-d-e-f-g-h-i-j",
            "--------a",
            "1-2x-y_z",
        ] {
            let mut begins = true;
            let expected: String = name
                .chars()
                .map(|letter| {
                    let first = std::mem::replace(&mut begins, letter == '-');
                    if first {
                        letter.to_ascii_uppercase()
                    } else {
                        letter
                    }
                })
                .collect();
            assert_eq!(
                spelled(&format!("HTTP/1.1 200 x\r\n{name}: a-b\r\n\r\n")),
                format!("HTTP/1.1 200 x\r\n{expected}: a-b\r\n\r\n")
            );
        }
    }

    #[test]
    fn odd_names_stay_names() {
        assert_eq!(
            spelled("HTTP/1.1 200 x\r\n-a--b-: 1\r\n_c: 2\r\n\r\n"),
            "HTTP/1.1 200 x\r\n-A--B-: 1\r\n_c: 2\r\n\r\n"
        );
        assert_eq!(spelled("HTTP/1.1 200 x\r\nname"), "HTTP/1.1 200 x\r\nname");
    }
}

//! How field names are spelled to clients: in heads they are in lower case, on the wire they get the customary
//! capitals.

use bytes::BytesMut;
use http::HeaderName;

/// Appends `name` with a capital for every word.
pub(super) fn append(line: &mut BytesMut, name: &HeaderName) {
    let begin = line.len();
    line.extend_from_slice(name.as_str().as_bytes());
    let name = line.get_mut(begin..).unwrap_or_default();
    capitalise_words(name);
    spell(name);
}

/// Eight bytes at a time: a letter becomes a capital where the byte before it is a dash.
fn capitalise_words(name: &mut [u8]) {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = EACH << 7;
    const DASHES: u64 = EACH * b'-' as u64;
    const NOT_BELOW_A: u64 = EACH * (0x80 - b'a' as u64);
    const ABOVE_Z: u64 = EACH * (0x7f - b'z' as u64);
    let mut begins_word = true;
    let capitalise = |chunk: &mut [u8; 8], begins_word: bool| {
        let bytes = u64::from_le_bytes(*chunk);
        let other = bytes ^ DASHES;
        // The high bit of each byte that is a dash, and of each that is a letter; names are ASCII.
        let dashes = !(((other & !HIGH) + (HIGH - EACH)) | other) & HIGH;
        let letters = (bytes + NOT_BELOW_A) & !(bytes + ABOVE_Z) & HIGH;
        let firsts = (dashes << 8) | (u64::from(begins_word) << 7);
        // Capitals lack the bit of 0x20.
        *chunk = (bytes ^ ((firsts & letters) >> 2)).to_le_bytes();
    };
    let end = name.len();
    let (chunks, rest) = name.as_chunks_mut::<8>();
    for chunk in &mut *chunks {
        capitalise(chunk, begins_word);
        begins_word = chunk.ends_with(b"-");
    }
    if chunks.is_empty() {
        for byte in rest {
            if begins_word {
                byte.make_ascii_uppercase();
            }
            begins_word = *byte == b'-';
        }
    } else if !rest.is_empty() {
        // The last eight bytes once more: what is a capital stays one.
        begins_word = name.get(end - 9) == Some(&b'-');
        if let Some(chunk) = name.last_chunk_mut() {
            capitalise(chunk, begins_word);
        }
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

    fn spelled(name: &str) -> String {
        let mut line = BytesMut::from("before: ");
        append(&mut line, &name.parse().expect("a header name"));
        let line = String::from_utf8(line.to_vec()).expect("UTF-8");
        line.strip_prefix("before: ").expect("kept").to_owned()
    }

    #[test]
    fn names_have_the_customary_capitals() {
        for name in [
            "X-Kong-Request-Id",
            "ETag",
            "X-RateLimit-Limit-Minute",
            "RateLimit-Reset",
            "WWW-Authenticate",
            "Content-Type",
            "Sec-WebSocket-Accept",
            "SourceMap",
            "X-XSS-Protection",
        ] {
            assert_eq!(spelled(&name.to_lowercase()), name);
        }
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
            "-a--b-",
            "_c",
            "1-2x-y_z",
            "a|b~-`c-~d^e",
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
            assert_eq!(spelled(name), expected);
        }
    }
}

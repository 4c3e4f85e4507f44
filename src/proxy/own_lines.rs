//! The lines of a head that are ours: Pingora writes the first line and what frames the message, and the two are
//! joined into the head that goes out.

use bytes::{Buf, BufMut, BytesMut};
use http::{HeaderName, HeaderValue};
use memchr::memchr;

use super::spelling;
use crate::entity::message::Headers;

/// What a line of a field has beside name and value.
const LINE_BYTES: usize = 4;

/// Takes the lines of a head, one after the other.
pub(super) trait Lines {
    /// Adds a line. `value` is a field value (RFC 9110 §5.5).
    fn add(&mut self, name: &HeaderName, value: &[u8]);
}

impl Lines for Headers {
    fn add(&mut self, name: &HeaderName, value: &[u8]) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            self.append(name, value);
        }
    }
}

/// Lines as they go out, behind room for the first line of the head.
#[derive(Debug)]
pub(super) struct OwnLines {
    text: BytesMut,
    first_line: usize,
}

/// Names in lower case, as upstreams get them.
impl Lines for OwnLines {
    fn add(&mut self, name: &HeaderName, value: &[u8]) {
        put_line(&mut self.text, name, value);
    }
}

impl OwnLines {
    /// No lines yet. The head will begin with a line of about `first_line` bytes, and the lines behind it, with
    /// whatever else goes out in one piece with them, take about `rest`.
    pub(super) fn new(first_line: usize, rest: usize) -> Self {
        let mut text = BytesMut::with_capacity(first_line + rest);
        text.put_bytes(0, first_line);
        Self { text, first_line }
    }

    /// Adds a line for a client.
    pub(super) fn add_spelled(&mut self, name: &HeaderName, value: &HeaderValue) {
        put_spelled_line(&mut self.text, name, value);
    }

    /// The whole head: the first line of `head`, which Pingora wrote, then these lines, then all the rest of `head`.
    pub(super) fn join(mut self, head: &[u8]) -> BytesMut {
        let end = memchr(b'\n', head).map_or(head.len(), |end| end + 1);
        let (first, rest) = head.split_at(end);
        let Some(unused) = self.first_line.checked_sub(first.len()) else {
            // Longer than it was thought to be.
            let own = self.text.split_off(self.first_line);
            return BytesMut::from(&*[first, &own, rest].concat());
        };
        self.text.advance(unused);
        let (room, _) = self.text.split_at_mut(first.len());
        room.copy_from_slice(first);
        self.text.extend_from_slice(rest);
        self.text
    }
}

/// Appends a line, its name in lower case.
pub(super) fn put_line(text: &mut BytesMut, name: &HeaderName, value: &[u8]) {
    let name = name.as_str().as_bytes();
    text.reserve(name.len() + value.len() + LINE_BYTES);
    for part in [name, b": ", value, b"\r\n"] {
        text.extend_from_slice(part);
    }
}

/// Appends a line for a client, its name with the customary capitals.
pub(super) fn put_spelled_line(text: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    text.reserve(name.as_str().len() + value.len() + LINE_BYTES);
    spelling::append(text, name);
    for part in [b": ", value.as_bytes(), b"\r\n"] {
        text.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    #[test]
    fn own_lines_stand_behind_the_first_line_whatever_its_length() {
        const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nDate: now\r\n\r\n";
        for first_line in [0, 1, 16, 17, 18, 100] {
            let mut lines = OwnLines::new(first_line, 8);
            lines.add(&header::VIA, b"1.1 a");
            lines.add_spelled(&header::ETAG, &HeaderValue::from_static("b"));
            let joined = lines.join(HEAD);
            let expected = "HTTP/1.1 200 OK\r\nvia: 1.1 a\r\nETag: b\r\nDate: now\r\n\r\n";
            assert_eq!(joined, expected, "{first_line}");
        }
    }

    #[test]
    fn a_head_without_an_end_is_a_first_line() {
        let mut lines = OwnLines::new(4, 8);
        lines.add(&header::VIA, b"a");
        assert_eq!(lines.join(b"head"), "headvia: a\r\n");
        assert_eq!(OwnLines::new(4, 0).join(b""), "");
    }
}

//! Watches the head of a response go by. Pingora drops a `Content-Length` beside a `Transfer-Encoding` before anybody
//! can see that there were both, so it is seen here, on the wire.

use memchr::memchr_iter;

/// As much of a line as is ever looked at.
const LOOKED_AT: usize = 24;
const CONTENT_LENGTH: &[u8] = b"content-length";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding";
/// Where the status stands in `HTTP/1.1 200 OK`.
const STATUS_AT: usize = 9;

/// Where the head stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// More of it is to come, or the head of another response after an informational one.
    Open,
    /// The rest is body.
    Done,
    /// The rest is a tunnel.
    Switched,
    /// It says in two ways how long the body is (RFC 9112 §6.3).
    Ambiguous,
}

/// The head of a response, as far as it has come.
#[derive(Debug, Default)]
pub(super) struct HeadWatch {
    /// The begin of a line whose end has not come.
    begun: [u8; LOOKED_AT],
    /// How long that line is so far.
    begun_bytes: usize,
    status: Option<Status>,
    has_length: bool,
    has_coding: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Informational,
    Switching,
    Final,
}

impl HeadWatch {
    /// Looks at the next bytes.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Progress {
        let mut from = 0;
        for end in memchr_iter(b'\n', bytes) {
            let line = bytes.get(from..end).unwrap_or_default();
            from = end + 1;
            let progress = if self.begun_bytes == 0 {
                self.line(line)
            } else {
                self.go_on(line);
                let begun = self.begun;
                let length = std::mem::take(&mut self.begun_bytes);
                self.line(begun.get(..length.min(LOOKED_AT)).unwrap_or_default())
            };
            if progress != Progress::Open {
                return progress;
            }
        }
        self.go_on(bytes.get(from..).unwrap_or_default());
        Progress::Open
    }

    /// Keeps what is looked at of a line that has no end yet.
    fn go_on(&mut self, part: &[u8]) {
        if let Some(room) = self.begun.get_mut(self.begun_bytes..) {
            let fitting = room.len().min(part.len());
            if let (Some(room), Some(part)) = (room.get_mut(..fitting), part.get(..fitting)) {
                room.copy_from_slice(part);
            }
        }
        self.begun_bytes += part.len();
    }

    /// Looks at a line, or at the begin of a long one.
    fn line(&mut self, line: &[u8]) -> Progress {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(status) = self.status else {
            // Empty lines before a response are passed over, as parsers do.
            self.status = (!line.is_empty()).then(|| status(line));
            return Progress::Open;
        };
        match line.first() {
            None => return self.end(status),
            Some(b'c' | b'C') => self.has_length |= is_field(line, CONTENT_LENGTH),
            Some(b't' | b'T') => self.has_coding |= is_field(line, TRANSFER_ENCODING),
            Some(_) => {}
        }
        Progress::Open
    }

    fn end(&mut self, status: Status) -> Progress {
        if self.has_length && self.has_coding {
            return Progress::Ambiguous;
        }
        match status {
            Status::Final => Progress::Done,
            Status::Switching => Progress::Switched,
            Status::Informational => {
                *self = Self::default();
                Progress::Open
            }
        }
    }
}

fn status(line: &[u8]) -> Status {
    let digits = line.get(STATUS_AT..).unwrap_or_default();
    if digits.starts_with(b"101") {
        Status::Switching
    } else if digits.starts_with(b"1") {
        Status::Informational
    } else {
        Status::Final
    }
}

fn is_field(line: &[u8], name: &[u8]) -> bool {
    let Some((begin, rest)) = line.split_at_checked(name.len()) else {
        return false;
    };
    begin.eq_ignore_ascii_case(name) && rest.trim_ascii_start().starts_with(b":")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a head comes to that arrives in pieces of `size`, and how much of it was looked at.
    fn watch(head: &[u8], size: usize) -> (Progress, usize) {
        let mut watch = HeadWatch::default();
        let mut read = 0;
        for piece in head.chunks(size.max(1)) {
            let progress = watch.read(piece);
            read += piece.len();
            if progress != Progress::Open {
                return (progress, read);
            }
        }
        (Progress::Open, read)
    }

    const HEADS: &[(&str, Progress)] = &[
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Progress::Done,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Progress::Done,
        ),
        ("\r\nHTTP/1.0 200\nA: b\n\nrest", Progress::Done),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            Progress::Ambiguous,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding : chunked\r\nX: y\r\nCONTENT-LENGTH:2\r\n\r\n",
            Progress::Ambiguous,
        ),
        (
            "HTTP/1.1 103 Early Hints\r\nContent-Length: 1\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\n",
            Progress::Done,
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
            Progress::Switched,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length-Old: 1\r\nTransfer-Encoding: x\r\n\r\n",
            Progress::Done,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n", Progress::Open),
    ];

    #[test]
    fn a_head_comes_to_the_same_in_pieces_of_any_size() {
        for (head, expected) in HEADS {
            for size in 1..=head.len() {
                assert_eq!(
                    watch(head.as_bytes(), size).0,
                    *expected,
                    "{head:?} by {size}"
                );
            }
        }
    }

    #[test]
    fn nothing_behind_the_head_is_looked_at() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nTransfer-Encoding: x\r\n\r\n";
        let end = head.find("\r\n\r\n").expect("an end") + 4;
        assert_eq!(watch(head.as_bytes(), 1), (Progress::Done, end));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes: Vec<u8>, size in 1_usize..64) {
            watch(&bytes, size);
        }
    }
}

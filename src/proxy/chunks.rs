//! Chunked framing of a request body (RFC 9112 §7.1), checked as the bytes pass.
//!
//! Pingora decodes the body; this finds its exact end and refuses what two parsers could read
//! differently, so that no byte of one message ever becomes another.

use std::io;

use super::head::{is_field_byte, is_token};

/// Chunk extensions of one message together.
const EXTENSION_BYTES_MAX: usize = 16 * 1024;
/// The trailer section of one message.
const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Hex digits of a chunk size.
const SIZE_DIGITS_MAX: u8 = 16;

/// A scanner over one chunked message.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    state: State,
    size: u64,
    digits: u8,
    extension_bytes: usize,
    trailer_bytes: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Extension,
    SizeEnd,
    Data,
    DataReturn,
    DataEnd,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineEnd,
    LastEnd,
    Done,
}

impl Chunks {
    /// Whether the last chunk and its trailers have passed.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Looks at the next bytes and says how many of them belong to this message.
    ///
    /// # Errors
    /// `InvalidData` with the reason at the first byte that breaks the framing.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut position = 0;
        while let Some(byte) = bytes.get(position) {
            match self.state {
                State::Done => break,
                State::Data => {
                    let here = (bytes.len() - position) as u64;
                    let step = here.min(self.size);
                    self.size -= step;
                    if self.size == 0 {
                        self.state = State::DataReturn;
                    }
                    position += usize::try_from(step).unwrap_or(usize::MAX);
                    continue;
                }
                _ => self.step(*byte)?,
            }
            position += 1;
        }
        Ok(position)
    }

    fn step(&mut self, byte: u8) -> io::Result<()> {
        self.state = match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.digits += 1;
                if self.digits > SIZE_DIGITS_MAX || self.size >> 60 != 0 {
                    return invalid("a chunk size is too large");
                }
                self.size = self.size << 4 | u64::from(hex(byte));
                State::Size
            }
            (State::Size, b';') if self.digits > 0 => self.extension()?,
            (State::Size, b'\r') if self.digits > 0 => State::SizeEnd,
            (State::Size, _) => return invalid("a chunk size is not a hexadecimal number"),
            (State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, b'\n' | 0) => return invalid("a chunk extension is malformed"),
            (State::Extension, _) => self.extension()?,
            (State::SizeEnd, b'\n') => {
                self.digits = 0;
                if self.size == 0 {
                    State::TrailerStart
                } else {
                    State::Data
                }
            }
            (State::DataReturn, b'\r') => State::DataEnd,
            (State::DataEnd, b'\n') => State::Size,
            (State::TrailerStart, b'\r') => State::LastEnd,
            // The rules of header fields hold: what is no field may be something else to somebody.
            (State::TrailerStart | State::TrailerName, byte) if is_token(byte) => {
                self.trailer(State::TrailerName)?
            }
            (State::TrailerName, b':') => self.trailer(State::TrailerValue)?,
            (State::TrailerValue, b'\r') => State::TrailerLineEnd,
            (State::TrailerValue, byte) if is_field_byte(byte) => {
                self.trailer(State::TrailerValue)?
            }
            (State::TrailerStart | State::TrailerName | State::TrailerValue, _) => {
                return invalid("a trailer is malformed");
            }
            (State::TrailerLineEnd, b'\n') => State::TrailerStart,
            (State::LastEnd, b'\n') => State::Done,
            (State::DataReturn | State::DataEnd, _) => {
                return invalid("a chunk is longer or shorter than its size");
            }
            _ => return invalid("a line does not end in CR LF"),
        };
        Ok(())
    }

    fn trailer(&mut self, next: State) -> io::Result<State> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return invalid("the trailers are too large");
        }
        Ok(next)
    }

    fn extension(&mut self) -> io::Result<State> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return invalid("the chunk extensions are too large");
        }
        Ok(State::Extension)
    }
}

const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

fn invalid<T>(reason: &'static str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans `bytes` in pieces of `step`; gives what belongs to the message and whether it ended.
    fn scan(bytes: &[u8], step: usize) -> io::Result<(usize, bool)> {
        let mut chunks = Chunks::default();
        let mut taken = 0;
        for piece in bytes.chunks(step) {
            let count = chunks.scan(piece)?;
            taken += count;
            if count < piece.len() {
                break;
            }
        }
        Ok((taken, chunks.is_done()))
    }

    #[test]
    fn the_end_is_found_however_the_bytes_are_cut() {
        let message = b"5\r\nhello\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n";
        let mut bytes = message.to_vec();
        bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
        for step in 1..=bytes.len() {
            assert_eq!(
                scan(&bytes, step).expect("well-formed"),
                (message.len(), true),
                "step {step}"
            );
        }
    }

    #[test]
    fn an_unfinished_message_is_not_done() {
        assert_eq!(scan(b"5\r\nhel", 2).expect("so far so good"), (6, false));
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for message in [
            &b"0x5\r\n"[..],
            b"+5\r\n",
            b"-5\r\n",
            b" 5\r\n",
            b"5 \r\n",
            b"5_0\r\n",
            b"\r\n",
            b";a\r\n",
            b"g\r\n",
            b"11111111111111111\r\n",
            b"10000000000000000\r\n",
            b"5\nhello\r\n",
            b"5\r\nhelloX",
            b"5\r\nhello\n",
            b"5;a\nb\r\n",
            b"5;a\0b\r\n",
            b"0\r\n\n",
            b"0\r\nX: y\n\r\n",
            b"5\rX",
        ] {
            let error = scan(message, 1).expect_err(&message.escape_ascii().to_string());
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let mut extensions = b"5;".to_vec();
        extensions.resize(EXTENSION_BYTES_MAX + 10, b'x');
        assert!(scan(&extensions, 4096).is_err());
        let mut trailers = b"0\r\n".to_vec();
        trailers.resize(TRAILER_BYTES_MAX + 10, b'x');
        assert!(scan(&trailers, 4096).is_err());
    }
}

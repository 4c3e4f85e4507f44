//! Reads HTTP/1 messages as they are on the wire, strictly; both the origin and the client use it.
//! It interprets nothing beyond framing.

use std::io::{self, BufRead, ErrorKind};

/// A message head: the start line, the fields in order, and the exact bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    pub(crate) start_line: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) raw: Vec<u8>,
}

impl Head {
    /// The first value of a field, names compared without case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a field, in order.
    pub(crate) fn headers(&self, name: &str) -> Vec<&str> {
        let named = self
            .fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// Reads up to and including the empty line; `None` if the peer closed before the first byte.
    pub(crate) fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut raw = Vec::new();
        loop {
            let before = raw.len();
            reader.read_until(b'\n', &mut raw)?;
            if raw.is_empty() {
                return Ok(None);
            }
            let line = raw.get(before..).unwrap_or_default();
            if line == b"\r\n" {
                return Self::parse(raw).map(Some);
            }
            if !line.ends_with(b"\r\n") {
                return Err(malformed(
                    "a head line does not end in CRLF, or the head is cut off",
                ));
            }
        }
    }

    fn parse(raw: Vec<u8>) -> io::Result<Self> {
        let text = String::from_utf8_lossy(&raw).into_owned();
        let mut lines = text.split("\r\n").take_while(|line| !line.is_empty());
        let start_line = lines
            .next()
            .ok_or_else(|| malformed("no start line"))?
            .to_owned();
        let mut fields = Vec::new();
        for line in lines {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| malformed("a field without a colon"))?;
            if name.is_empty() || !name.bytes().all(is_token) || value.contains(['\r', '\n', '\0'])
            {
                return Err(malformed("a field with an illegal name or value"));
            }
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
        Ok(Self {
            start_line,
            fields,
            raw,
        })
    }

    /// How the body after this head is framed, if it has to have one at all.
    pub(crate) fn framing(&self) -> io::Result<Option<Framing>> {
        let lengths = self.headers("content-length");
        let codings = self.headers("transfer-encoding");
        match (lengths.as_slice(), codings.as_slice()) {
            ([], []) => Ok(None),
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
            ([length], [])
                if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                length
                    .parse()
                    .map(|length| Some(Framing::Length(length)))
                    .map_err(|_| malformed("length overflow"))
            }
            _ => Err(malformed("ambiguous framing")),
        }
    }
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// Reads a body and hands over its pieces as they arrive. `Err` if it ends early or is malformed.
pub(crate) fn read_body(
    reader: &mut impl BufRead,
    framing: Framing,
    mut piece: impl FnMut(&[u8]),
) -> io::Result<()> {
    match framing {
        Framing::Length(length) => read_exactly(reader, length, &mut piece),
        Framing::UntilClose => loop {
            let available = reader.fill_buf()?;
            if available.is_empty() {
                return Ok(());
            }
            piece(available);
            let count = available.len();
            reader.consume(count);
        },
        Framing::Chunked => loop {
            let size = read_chunk_size(reader)?;
            if size == 0 {
                return read_trailers(reader);
            }
            read_exactly(reader, size, &mut piece)?;
            if !read_line(reader)?.is_empty() {
                return Err(malformed("no CRLF after a chunk"));
            }
        },
    }
}

fn read_exactly(
    reader: &mut impl BufRead,
    mut left: u64,
    piece: &mut impl FnMut(&[u8]),
) -> io::Result<()> {
    while left > 0 {
        let available = reader.fill_buf()?;
        if available.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let count = available
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        piece(available.get(..count).unwrap_or_default());
        reader.consume(count);
        left -= count as u64;
    }
    Ok(())
}

fn read_chunk_size(reader: &mut impl BufRead) -> io::Result<u64> {
    let line = read_line(reader)?;
    let digits = line.bytes().all(|byte| byte.is_ascii_hexdigit());
    if line.is_empty() || !digits {
        return Err(malformed("a chunk size that is not hexadecimal"));
    }
    u64::from_str_radix(&line, 16).map_err(|_| malformed("a chunk size that overflows"))
}

fn read_trailers(reader: &mut impl BufRead) -> io::Result<()> {
    while !read_line(reader)?.is_empty() {}
    Ok(())
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let content = line
        .strip_suffix(b"\r\n")
        .ok_or_else(|| malformed("a line that does not end in CRLF"))?;
    Ok(String::from_utf8_lossy(content).into_owned())
}

/// RFC 9110 §5.6.2: the characters of a field name.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_owned())
}

/// The wire form of a body in chunks of at most `size` bytes, with the last chunk.
pub(crate) fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut wire = Vec::with_capacity(body.len() + body.len() / size.max(1) * 8 + 16);
    for piece in body.chunks(size.max(1)) {
        wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        wire.extend_from_slice(piece);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

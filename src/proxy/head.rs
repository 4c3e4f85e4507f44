//! The strict reading of a request head, line by line as it arrives.
//!
//! It accepts what RFC 9110 and 9112 allow without a second reading and refuses the rest. It builds
//! nothing: it finds the end of the head and the framing of the body, before the head is taken apart.

use memchr::memchr;

use crate::entity::reason::Reason;

/// Fields of one head.
pub(super) const FIELDS_MAX: usize = 256;
/// Empty lines that may come before a request line (RFC 9112 §2.2).
const EMPTY_LINES_MAX: u8 = 2;
pub(super) const METHOD_BYTES_MAX: usize = 32;
/// The longest target that Pingora's URI type holds.
const TARGET_BYTES_MAX: usize = 65_534;

/// The limits of one head, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// One line, the request line included.
    pub line: usize,
    /// The whole head.
    pub head: usize,
}

/// How the body of a request is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

/// A complete, acceptable head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Its length, with the empty line that ends it.
    pub bytes: usize,
    /// How much of that are empty lines before the request line.
    pub leading: usize,
    pub framing: Framing,
    /// Whether the request asks to become a WebSocket.
    pub tunnel: bool,
}

/// Why a head is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    pub reason: Reason,
    /// For the log.
    pub detail: &'static str,
}

impl Refusal {
    /// What the client is told.
    pub(super) fn message(self) -> &'static str {
        match self.status {
            405 => "Method not allowed",
            408 => "Request timeout",
            414 => "URI too long",
            417 => "Expectation failed",
            501 => "Not implemented",
            505 => "HTTP version not supported",
            _ if self.reason == Reason::HttpsRequired => {
                "The plain HTTP request was sent to HTTPS port"
            }
            _ if self.reason == Reason::HeaderTooLarge => "Request header or cookie too large",
            _ => "Bad request",
        }
    }
}

pub(super) const fn refusal(status: u16, reason: Reason, detail: &'static str) -> Refusal {
    Refusal {
        status,
        reason,
        detail,
    }
}

pub(super) const fn bad(detail: &'static str) -> Refusal {
    refusal(400, Reason::BadRequest, detail)
}

/// A head that is still arriving. Give it the same, growing bytes until it is complete.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    line_start: usize,
    leading: usize,
    empty_lines: u8,
    version_11: Option<bool>,
    method: Method,
    fields: usize,
    hosts: u8,
    length: Option<u64>,
    chunked: bool,
    /// Whether the one Upgrade field is to a WebSocket.
    upgrade: Option<bool>,
    connection_upgrade: bool,
    /// The authority of an absolute target; Host must not say anything else.
    authority: Option<Box<[u8]>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Method {
    #[default]
    Other,
    Options,
}

impl HeadReader {
    /// Reads on. `Ok(None)` means that more bytes are needed.
    ///
    /// # Errors
    /// The first thing that is not acceptable; the connection must be closed after the answer.
    pub(super) fn read(&mut self, bytes: &[u8], limits: Limits) -> Result<Option<Head>, Refusal> {
        loop {
            let rest = bytes.get(self.line_start..).unwrap_or_default();
            let end = memchr(b'\n', rest);
            if end.unwrap_or(rest.len()) > limits.line {
                return Err(if self.version_11.is_none() {
                    refusal(414, Reason::UriTooLong, "the request line is too long")
                } else {
                    too_large("a header line is too long")
                });
            }
            if self.line_start + end.unwrap_or(rest.len()) - self.leading > limits.head {
                return Err(too_large("the request head is too large"));
            }
            let Some(end) = end else {
                // What cannot become a request line is refused without waiting for its end.
                if self.version_11.is_none()
                    && rest
                        .first()
                        .is_some_and(|byte| !is_token(*byte) && *byte != b'\r')
                {
                    return Err(bad("the request line does not begin with a method"));
                }
                return Ok(None);
            };
            let Some((b'\r', line)) = rest.get(..end).and_then(<[u8]>::split_last) else {
                return Err(bad("a line ends in LF without CR"));
            };
            self.line_start += end + 1;
            if self.version_11.is_none() {
                if line.is_empty() && self.empty_lines < EMPTY_LINES_MAX {
                    self.empty_lines += 1;
                    self.leading = self.line_start;
                    continue;
                }
                self.request_line(line)?;
            } else if line.is_empty() {
                return self.complete().map(Some);
            } else {
                self.field(line)?;
            }
        }
    }

    /// Whether any byte of a request has been seen.
    pub(super) fn has_begun(&self, bytes: &[u8]) -> bool {
        bytes.len() > self.leading
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad("the request line is not method, target and version"));
        };
        if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
            return Err(bad("the method is not a token"));
        }
        if method.len() > METHOD_BYTES_MAX {
            return Err(refusal(
                501,
                Reason::NotImplemented,
                "the method is too long",
            ));
        }
        self.version_11 = Some(match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', digit] if digit.is_ascii_digit() => {
                return Err(refusal(
                    505,
                    Reason::BadRequest,
                    "the HTTP version is not 1.0 or 1.1",
                ));
            }
            _ => return Err(bad("the HTTP version is malformed")),
        });
        match method {
            b"CONNECT" => {
                return Err(refusal(
                    405,
                    Reason::MethodNotAllowed,
                    "CONNECT is not served",
                ));
            }
            b"TRACE" => {
                return Err(refusal(
                    405,
                    Reason::MethodNotAllowed,
                    "TRACE is not served",
                ));
            }
            b"OPTIONS" => self.method = Method::Options,
            _ => {}
        }
        self.target(target)
    }

    fn target(&mut self, target: &[u8]) -> Result<(), Refusal> {
        if target.len() > TARGET_BYTES_MAX {
            return Err(refusal(414, Reason::UriTooLong, "the target is too long"));
        }
        if !holds_target_bytes(target) {
            return Err(bad("the target holds a byte that must be percent-encoded"));
        }
        match target {
            [b'/', ..] => Ok(()),
            b"*" if self.method == Method::Options => Ok(()),
            _ if starts_with_ignoring_case(target, b"http://") => {
                let authority = target.get(7..).unwrap_or_default();
                let end = authority
                    .iter()
                    .position(|byte| matches!(byte, b'/' | b'?'))
                    .unwrap_or(authority.len());
                let authority = authority.get(..end).unwrap_or_default();
                self.authority = Some(authority.into());
                host(authority, false)
            }
            _ => Err(bad("the target is neither a path nor an http URI")),
        }
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Refusal> {
        self.fields += 1;
        if self.fields > FIELDS_MAX {
            return Err(too_large("there are too many header fields"));
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(bad("a header field is folded over two lines"));
        }
        let Some(colon) = memchr(b':', line) else {
            return Err(bad("a header field has no colon"));
        };
        let (name, rest) = line.split_at(colon);
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(bad("a header name is not a token"));
        }
        let value = rest.get(1..).unwrap_or_default();
        // Looks at every byte, which the compiler turns into a few wide instructions.
        if value
            .iter()
            .fold(false, |bad, byte| bad | !is_field_byte(*byte))
        {
            return Err(bad("a header value holds a control character"));
        }
        // Only a few names have a say in framing; their lengths tell them apart from most others.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.hosts = self.hosts.saturating_add(1);
                let value = trim(value);
                host(value, true)?;
                if let Some(authority) = &self.authority
                    && !authority.eq_ignore_ascii_case(value)
                {
                    return Err(bad("the target and Host name different hosts"));
                }
            }
            6 if name.eq_ignore_ascii_case(b"expect")
                && self.version_11 == Some(true)
                && !trim(value).eq_ignore_ascii_case(b"100-continue") =>
            {
                return Err(refusal(
                    417,
                    Reason::ExpectationFailed,
                    "an expectation other than 100-continue",
                ));
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                // Two upgrades could be understood as either.
                let is_websocket = trim(value).eq_ignore_ascii_case(b"websocket");
                self.upgrade = Some(self.upgrade.is_none() && is_websocket);
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.connection_upgrade |= value
                    .split(|byte| *byte == b',')
                    .any(|option| trim(option).eq_ignore_ascii_case(b"upgrade"));
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                self.content_length(trim(value))?;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.transfer_encoding(trim(value))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.length.is_some() {
            return Err(bad("there are two Content-Length fields"));
        }
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(bad("Content-Length is not a number"));
        }
        let length = value.iter().try_fold(0_u64, |sum, digit| {
            sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
        });
        self.length = length.filter(|length| i64::try_from(*length).is_ok());
        if self.length.is_none() {
            return Err(bad("Content-Length is too large"));
        }
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked {
            return Err(bad("there are two Transfer-Encoding fields"));
        }
        if self.version_11 == Some(false) {
            return Err(bad("Transfer-Encoding in an HTTP/1.0 request"));
        }
        if value.is_empty() {
            return Err(bad("Transfer-Encoding is empty"));
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(refusal(
                501,
                Reason::NotImplemented,
                "a transfer coding other than chunked",
            ));
        }
        self.chunked = true;
        Ok(())
    }

    fn complete(&self) -> Result<Head, Refusal> {
        if self.hosts > 1 {
            return Err(bad("there are two Host fields"));
        }
        if self.hosts == 0 && self.version_11 == Some(true) {
            return Err(bad("an HTTP/1.1 request has no Host"));
        }
        let framing = match (self.chunked, self.length) {
            (true, Some(_)) => return Err(bad("both Content-Length and Transfer-Encoding")),
            (true, None) => Framing::Chunked,
            (false, length) => Framing::Length(length.unwrap_or(0)),
        };
        Ok(Head {
            bytes: self.line_start,
            leading: self.leading,
            framing,
            tunnel: self.upgrade == Some(true)
                && self.connection_upgrade
                && self.version_11 == Some(true)
                && framing == Framing::Length(0),
        })
    }
}

pub(super) const fn too_large(detail: &'static str) -> Refusal {
    refusal(400, Reason::HeaderTooLarge, detail)
}

/// Checks `host[:port]` (RFC 9110 §7.2). An empty Host is allowed, an empty authority is not.
pub(super) fn host(value: &[u8], empty_allowed: bool) -> Result<(), Refusal> {
    if value.is_empty() {
        return if empty_allowed {
            Ok(())
        } else {
            Err(bad("the target has no host"))
        };
    }
    let (name, port) = if value.first() == Some(&b'[') {
        let Some(end) = memchr(b']', value) else {
            return Err(bad("the host is malformed"));
        };
        let (name, rest) = value.split_at(end + 1);
        match rest {
            [] => (name, None),
            [b':', port @ ..] => (name, Some(port)),
            _ => return Err(bad("the host is malformed")),
        }
    } else {
        match memchr(b':', value) {
            Some(colon) => {
                let (name, rest) = value.split_at(colon);
                (name, rest.get(1..))
            }
            None => (value, None),
        }
    };
    let bracketed = name.first() == Some(&b'[');
    let is_host_byte = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'.' | b'-'
                    | b'_'
                    | b'~'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b';'
                    | b'='
            )
    };
    let is_host = if bracketed {
        is_ipv6(name)
    } else {
        !name.is_empty() && name.iter().all(is_host_byte)
    };
    if !is_host {
        return Err(bad("the host is malformed"));
    }
    let port_is_valid = port.is_none_or(|port| {
        port.len() <= 5
            && port.iter().all(u8::is_ascii_digit)
            && u16::try_from(
                port.iter()
                    .fold(0_u32, |sum, digit| sum * 10 + u32::from(digit - b'0')),
            )
            .is_ok()
    });
    if port_is_valid {
        Ok(())
    } else {
        Err(bad("the port of the host is malformed"))
    }
}

/// Whether path and query hold only what may stand there, which is no more than what the type of a URI
/// takes.
fn holds_target_bytes(target: &[u8]) -> bool {
    let (path, query) = target.split_at(memchr(b'?', target).unwrap_or(target.len()));
    // Looks at every byte, which the compiler turns into a few wide instructions.
    let hold = |bytes: &[u8], forbidden: u8| {
        bytes
            .iter()
            .fold(true, |hold, byte| hold & is_target_byte(*byte, forbidden))
    };
    hold(path, b'`') && hold(query, b'"')
}

fn is_target_byte(byte: u8, forbidden: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'#' | b'<' | b'>') && byte != forbidden
}

/// An IPv6 address in brackets. Nothing else that may stand there is in use (RFC 3986 §3.2.2).
fn is_ipv6(name: &[u8]) -> bool {
    let inner = name
        .strip_prefix(b"[")
        .and_then(|rest| rest.strip_suffix(b"]"));
    inner
        .and_then(|inner| std::str::from_utf8(inner).ok())
        .is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    TOKENS[byte as usize]
}

/// Which bytes may stand in a token.
static TOKENS: [bool; 256] = {
    let mut tokens = [false; 256];
    let mut byte = 0_u8;
    loop {
        tokens[byte as usize] = is_token_character(byte);
        if byte == u8::MAX {
            break tokens;
        }
        byte += 1;
    }
};

const fn is_token_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Visible bytes, blanks and obs-text (RFC 9110 §5.5).
pub(super) const fn is_field_byte(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || byte == b'\t'
}

/// Without optional white space around (RFC 9110 §5.6.3: blank and tab only).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn starts_with_ignoring_case(value: &[u8], prefix: &[u8]) -> bool {
    value
        .get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        line: 8 * 1024,
        head: 32 * 1024,
    };

    fn read(bytes: &[u8]) -> Result<Option<Head>, Refusal> {
        HeadReader::default().read(bytes, LIMITS)
    }

    fn status(bytes: &[u8]) -> u16 {
        match read(bytes) {
            Ok(Some(_)) => 200,
            Ok(None) => 0,
            Err(refusal) => refusal.status,
        }
    }

    #[test]
    fn a_head_is_found_however_it_arrives() {
        let head = b"\r\nPOST /a?b HTTP/1.1\r\nHost: a.test:8000\r\nContent-Length: 5\r\n\r\n";
        let mut bytes = head.to_vec();
        bytes.extend_from_slice(b"hello");
        for step in 1..bytes.len() {
            let mut reader = HeadReader::default();
            let mut end = step;
            let found = loop {
                if let Some(found) = reader
                    .read(&bytes[..end.min(bytes.len())], LIMITS)
                    .expect("acceptable")
                {
                    break found;
                }
                end += step;
            };
            assert_eq!(found.bytes, head.len());
            assert_eq!(found.leading, 2);
            assert_eq!(found.framing, Framing::Length(5));
        }
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        let with = |fields: &str| {
            status(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n").as_bytes())
        };
        assert_eq!(with("Content-Length: 5"), 200);
        assert_eq!(with("Transfer-Encoding: CHUNKED"), 200);
        assert_eq!(with("Content-Length: 5\r\nTransfer-Encoding: chunked"), 400);
        assert_eq!(with("Content-Length: 5\r\nContent-Length: 5"), 400);
        for length in [
            "+5",
            "-1",
            "0x5",
            "5.0",
            "5 5",
            "1_0",
            "",
            "5, 5",
            "9223372036854775808",
            "99999999999999999999",
        ] {
            assert_eq!(with(&format!("Content-Length: {length}")), 400, "{length}");
        }
        for coding in [
            "gzip, chunked",
            "chunked, chunked",
            "xchunked",
            "\"chunked\"",
            "chunked;q=1",
            "identity",
        ] {
            assert_eq!(
                with(&format!("Transfer-Encoding: {coding}")),
                501,
                "{coding}"
            );
        }
        assert_eq!(
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
            400
        );
        assert_eq!(
            status(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            400
        );
    }

    #[test]
    fn malformed_lines_are_refused() {
        for (head, expected) in [
            (&b"GET / HTTP/1.1\nHost: a\n\n"[..], 400),
            (b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX\xc3\xa9: b\r\n\r\n", 400),
            (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /\r\n\r\n", 400),
            (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
            (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
            (b"PRI * HTTP/2.0\r\n\r\n", 400),
            (b"\x16\x03\x01\x02", 400),
            (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a:70000\r\n\r\n", 400),
            (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417),
            (b"GET / HTTP/1.0\r\nExpect: x\r\n\r\n", 200),
            (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            (b"GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET http://u@a/b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200),
            (b"GET / HTTP/1.0\r\n\r\n", 200),
            (b"PURGE / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            (
                b"GET / HTTP/1.1\r\nHost: a\r\nX_Y: caf\xc3\xa9\r\n\r\n",
                200,
            ),
        ] {
            assert_eq!(status(head), expected, "{}", head.escape_ascii());
        }
    }

    #[test]
    fn limits_hold_while_the_head_arrives() {
        let long = vec![b'a'; 9 * 1024];
        let mut line = b"GET /".to_vec();
        line.extend_from_slice(&long);
        assert_eq!(status(&line), 414);
        let mut field = b"GET / HTTP/1.1\r\nX: ".to_vec();
        field.extend_from_slice(&long);
        assert_eq!(status(&field), 400);
        let mut head = b"GET / HTTP/1.1\r\n".to_vec();
        for index in 0..40 {
            head.extend_from_slice(format!("X{index}: ").as_bytes());
            head.extend_from_slice(&long[..1000]);
            head.extend_from_slice(b"\r\n");
        }
        assert_eq!(status(&head), 400);
    }

    #[test]
    fn whatever_is_taken_is_a_uri_for_pingora() {
        for byte in (0..=u8::MAX).map(char::from).filter(char::is_ascii) {
            for target in [format!("/a{byte}b"), format!("/?a{byte}b")] {
                let is_uri = http::uri::PathAndQuery::try_from(target.as_str()).is_ok();
                assert!(
                    !holds_target_bytes(target.as_bytes()) || is_uri,
                    "{target:?}"
                );
            }
            let authority = format!("a{byte}b.test");
            let is_uri = http::uri::Authority::try_from(authority.as_str()).is_ok();
            assert!(
                host(authority.as_bytes(), false).is_err() || is_uri,
                "{authority:?}"
            );
        }
        let longest = format!("/{}", "a".repeat(TARGET_BYTES_MAX - 1));
        assert!(http::Uri::try_from(longest.as_str()).is_ok());
    }

    #[test]
    fn a_websocket_handshake_is_recognised() {
        let head = read(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n")
            .expect("acceptable")
            .expect("complete");
        assert!(head.tunnel);
        let other =
            read(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
                .expect("acceptable")
                .expect("complete");
        assert!(!other.tunnel);
    }
}

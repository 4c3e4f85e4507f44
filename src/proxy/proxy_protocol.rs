//! The PROXY protocol, versions 1 and 2: what a balancer in front says of a connection before its
//! first byte. Takes exactly the header from the socket, so that whatever comes next, TLS or HTTP,
//! finds its own beginning. Whether the word is believed is decided elsewhere.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use memchr::memchr;
use thiserror::Error;
use tokio::{io::AsyncReadExt, net::TcpStream};

/// The longest line of version 1, CRLF included.
const LINE_BYTES_MAX: usize = 107;
/// The longest header of version 2 that is taken, with all that it carries beside the addresses.
const BINARY_BYTES_MAX: usize = 4096;
/// How much is looked at in one go; most headers are shorter.
const LOOK_BYTES: usize = 256;

const LINE_BEGIN: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The fixed part of version 2: signature, version and command, family, length.
const FIXED_BYTES: usize = 16;

/// Why there is no usable header.
#[derive(Debug, Error)]
pub(super) enum Absent {
    /// Nothing came at all, as from a balancer that only looks whether somebody listens.
    #[error("closed without a word")]
    Silent,
    #[error("{0}")]
    Malformed(&'static str),
    #[error("the connection failed")]
    Failed(#[from] io::Error),
}

/// A complete header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    bytes: usize,
    source: Option<SocketAddr>,
}

/// Reads the header from the beginning of a connection, and nothing behind it. Gives the client's
/// address; `None` if the balancer speaks for itself or does not know.
///
/// # Errors
/// When what comes is not such a header.
pub(super) async fn read(tcp: &mut TcpStream) -> Result<Option<SocketAddr>, Absent> {
    let mut header = Vec::new();
    let mut space = [0; LOOK_BYTES];
    loop {
        let seen = tcp.peek(&mut space).await?;
        if seen == 0 {
            return Err(if header.is_empty() {
                Absent::Silent
            } else {
                Absent::Malformed("the header ends early")
            });
        }
        let before = header.len();
        header.extend_from_slice(space.get(..seen).unwrap_or_default());
        let found = parse(&header).map_err(Absent::Malformed)?;
        // As long as the header is not complete, all that came belongs to it.
        let ours = found.map_or(seen, |found| found.bytes - before);
        tcp.read_exact(space.get_mut(..ours).unwrap_or_default())
            .await?;
        if let Some(found) = found {
            return Ok(found.source);
        }
    }
}

/// The header at the beginning of `bytes`; `None` while it is not complete.
fn parse(bytes: &[u8]) -> Result<Option<Header>, &'static str> {
    if is_beginning(bytes, SIGNATURE) {
        binary(bytes)
    } else if is_beginning(bytes, LINE_BEGIN) {
        line(bytes)
    } else {
        Err("the connection does not begin with a PROXY header")
    }
}

/// Whether `bytes` begin with `expected`, as far as either goes.
fn is_beginning(bytes: &[u8], expected: &[u8]) -> bool {
    bytes.iter().zip(expected).all(|(is, should)| is == should)
}

/// Version 1: `PROXY TCP4 <source> <destination> <source port> <destination port>`.
fn line(bytes: &[u8]) -> Result<Option<Header>, &'static str> {
    let within = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = memchr(b'\n', within) else {
        return if bytes.len() < LINE_BYTES_MAX {
            Ok(None)
        } else {
            Err("the line is too long")
        };
    };
    let text = within
        .get(..end)
        .and_then(|line| line.strip_suffix(b"\r"))
        .ok_or("the line ends in LF without CR")?;
    let text = std::str::from_utf8(text).map_err(|_| "the line is not text")?;
    let mut words = text.split(' ').skip(1);
    let source = match words.next() {
        // What else the line says is to be ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(addresses::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(addresses::<Ipv6Addr>(words)?),
        _ => return Err("the protocol is none of TCP4, TCP6, UNKNOWN"),
    };
    Ok(Some(Header {
        bytes: end + 1,
        source,
    }))
}

/// Source address, destination address and their ports. Gives the source.
fn addresses<'t, A>(words: impl Iterator<Item = &'t str>) -> Result<SocketAddr, &'static str>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let words: Vec<&str> = words.take(5).collect();
    let [source, destination, source_port, destination_port] = words.as_slice() else {
        return Err("the line does not hold two addresses and two ports");
    };
    let address = |text: &str| text.parse::<A>().map_err(|_| "an address is malformed");
    let port = |text: &str| {
        // `parse` would take a sign.
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let port = text.parse::<u16>().ok().filter(|_| is_number);
        port.ok_or("a port is malformed")
    };
    address(destination)?;
    port(destination_port)?;
    Ok(SocketAddr::new(address(source)?.into(), port(source_port)?))
}

/// Version 2.
fn binary(bytes: &[u8]) -> Result<Option<Header>, &'static str> {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED_BYTES) else {
        return Ok(None);
    };
    let [.., command, family, high, low] = fixed else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if FIXED_BYTES + length > BINARY_BYTES_MAX {
        return Err("the header is too long");
    }
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err("the version is not 2, or the command is none of LOCAL and PROXY"),
    };
    if family >> 4 > 3 || family & 0x0f > 2 {
        return Err("the address family or the protocol is unknown");
    }
    let Some(block) = rest.get(..length) else {
        return Ok(None);
    };
    // What stands behind the addresses, checksums included, concerns nobody here.
    let source = match family {
        _ if is_local => None,
        0x11 => Some(source_in::<4>(block)?),
        0x21 => Some(source_in::<16>(block)?),
        // Datagrams, Unix sockets and unspecified: there is no address that means anything here.
        _ => None,
    };
    Ok(Some(Header {
        bytes: FIXED_BYTES + length,
        source,
    }))
}

/// The source in a block of two addresses of `N` bytes and two ports.
fn source_in<const N: usize>(block: &[u8]) -> Result<SocketAddr, &'static str>
where
    IpAddr: From<[u8; N]>,
{
    const SHORT: &str = "the header is too short for its addresses";
    let (source, rest) = block.split_first_chunk::<N>().ok_or(SHORT)?;
    let (_destination, ports) = rest.split_first_chunk::<N>().ok_or(SHORT)?;
    let ([high, low, _, _], _more) = ports.split_first_chunk::<4>().ok_or(SHORT)?;
    Ok(SocketAddr::new(
        IpAddr::from(*source),
        u16::from_be_bytes([*high, *low]),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source(bytes: &[u8]) -> Result<Option<SocketAddr>, &'static str> {
        let found = parse(bytes)?.ok_or("not complete")?;
        assert_eq!(found.bytes, bytes.len());
        Ok(found.source)
    }

    fn version_2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).expect("short").to_be_bytes();
        [SIGNATURE, &[command, family], &length, block].concat()
    }

    #[test]
    fn a_line_tells_the_source() {
        for (text, expected) in [
            (
                "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n",
                Some("192.0.2.1:56324"),
            ),
            (
                "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
                Some("[2001:db8::1]:1"),
            ),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 whatever 1 2\r\n", None),
        ] {
            let expected = expected.map(|address| address.parse().expect("an address"));
            assert_eq!(source(text.as_bytes()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_malformed_line_is_refused() {
        for text in [
            "GET / HTTP/1.1\r\n",
            "proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 \r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.1 1 2\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY \r\n",
        ] {
            assert!(source(text.as_bytes()).is_err(), "{text:?}");
        }
        let endless = [LINE_BEGIN, &[b'x'; LINE_BYTES_MAX]].concat();
        assert!(parse(&endless).is_err());
    }

    #[test]
    fn the_binary_form_tells_the_source_whatever_it_carries_besides() {
        let four = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 1, 187];
        let checksum = [&four[..], &[3, 0, 4, 1, 2, 3, 4]].concat();
        let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 28], &[0, 7, 0, 8]].concat();
        for (bytes, expected) in [
            (version_2(0x21, 0x11, &four), Some("192.0.2.1:56324")),
            (version_2(0x21, 0x11, &checksum), Some("192.0.2.1:56324")),
            (version_2(0x21, 0x21, &six), Some("[2001:db8::]:7")),
            (version_2(0x20, 0x11, &four), None),
            (version_2(0x20, 0x00, &[]), None),
            (version_2(0x21, 0x00, &[]), None),
            (version_2(0x21, 0x31, &[0; 216]), None),
        ] {
            let expected = expected.map(|address| address.parse().expect("an address"));
            assert_eq!(source(&bytes), Ok(expected), "{bytes:?}");
        }
    }

    #[test]
    fn a_malformed_binary_form_is_refused() {
        for bytes in [
            version_2(0x11, 0x11, &[0; 12]),
            version_2(0x22, 0x11, &[0; 12]),
            version_2(0x21, 0x11, &[0; 11]),
            version_2(0x21, 0x21, &[0; 35]),
            version_2(0x21, 0x41, &[0; 12]),
            version_2(0x21, 0x13, &[0; 12]),
            version_2(0x21, 0x11, &[0; BINARY_BYTES_MAX]),
            b"\r\n\r\n\0\r\nQUIT\r".to_vec(),
        ] {
            assert!(source(&bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_header_that_is_still_arriving_is_waited_for() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec();
        for whole in [line, version_2(0x21, 0x11, &[1; 20])] {
            for end in 1..whole.len() {
                assert_eq!(parse(&whole[..end]), Ok(None), "{end} of {whole:?}");
            }
            let followed = [&whole[..], b"GET / HTTP/1.1\r\n"].concat();
            let found = parse(&followed).expect("a header").expect("complete");
            assert_eq!(found.bytes, whole.len());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_read_beyond_or_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), form in 0..3) {
            let begin: &[u8] = match form { 0 => b"", 1 => LINE_BEGIN, _ => SIGNATURE };
            let bytes = [begin, &bytes].concat();
            if let Ok(Some(found)) = parse(&bytes) {
                prop_assert!(found.bytes <= bytes.len());
            }
        }
    }
}

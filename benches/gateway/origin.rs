//! The origin behind every contender: constant answers, as cheap as they can be had. What it answers is in the path
//! that it is asked for.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The length of the small answer's body.
pub(crate) const SMALL_BYTES: usize = 100;
/// The length of the large answer's body.
pub(crate) const LARGE_BYTES: usize = 1 << 20;

/// What `/chunked` is answered with.
const CHUNKED: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n\
    a\r\n0123456789\r\n14\r\n01234567890123456789\r\n0\r\n\r\n";
/// What `/failure` is answered with.
const FAILURE: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";

/// Starts the origin on the current runtime; gives its address.
pub(crate) async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(tcp));
        }
    });
    address
}

fn answer(bytes: usize) -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {bytes}\r\n\r\n")
            .into_bytes();
    answer.resize(answer.len() + bytes, b'x');
    answer
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Small,
    Large,
    Chunked,
    Failure,
}

impl Kind {
    /// What a request is answered with.
    fn of(head: &[u8]) -> Self {
        let path = head.strip_prefix(b"GET /").unwrap_or_default();
        [
            (&b"large"[..], Self::Large),
            (b"chunked", Self::Chunked),
            (b"failure", Self::Failure),
        ]
        .into_iter()
        .find_map(|(prefix, kind)| path.starts_with(prefix).then_some(kind))
        .unwrap_or(Self::Small)
    }
}

async fn serve(mut tcp: TcpStream) {
    let _ = tcp.set_nodelay(true);
    let small = answer(SMALL_BYTES);
    let mut large = None;
    let mut space = vec![0; 64 * 1024];
    let mut filled = 0;
    loop {
        let head = loop {
            if let Some(end) = head_end(&space[..filled]) {
                break end;
            }
            match tcp.read(&mut space[filled..]).await {
                Ok(0) | Err(_) => return,
                Ok(count) => filled += count,
            }
        };
        let kind = Kind::of(&space[..head]);
        let mut rest = content_length(&space[..head]);
        let buffered = rest.min(filled - head);
        space.copy_within(head + buffered..filled, 0);
        filled -= head + buffered;
        rest -= buffered;
        while rest > 0 {
            let wanted = rest.min(space.len());
            match tcp.read(&mut space[..wanted]).await {
                Ok(0) | Err(_) => return,
                Ok(count) => rest -= count,
            }
        }
        let answer = match kind {
            Kind::Small => &small,
            Kind::Large => &*large.get_or_insert_with(|| answer(LARGE_BYTES)),
            Kind::Chunked => CHUNKED,
            Kind::Failure => FAILURE,
        };
        if tcp.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// Where the head ends, if it is complete.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The length that a head announces; 0 without one.
pub(crate) fn content_length(head: &[u8]) -> usize {
    head.split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

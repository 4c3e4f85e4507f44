//! The clients: closed-loop keep-alive connections that check every answer.

use std::{
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    time::{Duration, Instant},
};

use openssl::ssl::{Ssl, SslContextBuilder, SslMethod, SslVerifyMode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{JoinSet, LocalSet},
};
use tokio_openssl::SslStream;

use super::origin::{content_length, head_end};

/// What one kind of client sends, again and again.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Whole requests, sent in turn.
    pub(crate) requests: Rc<[Vec<u8>]>,
    pub(crate) connections: usize,
    /// Whether the clients speak TLS.
    pub(crate) tls: bool,
    /// Whether they take any answer, not only 200.
    pub(crate) takes_refusals: bool,
}

/// When the clients stop.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    After(Duration),
    /// So many requests were answered, over all connections.
    Answered(usize),
}

/// What the clients saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How long each request took, in nanoseconds, in order of size.
    latencies: Vec<u32>,
    pub(crate) elapsed: Duration,
}

impl Seen {
    pub(crate) fn requests(&self) -> usize {
        self.latencies.len()
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.requests() as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that 99 of 100 requests did not pass, in milliseconds.
    pub(crate) fn p99_ms(&self) -> f64 {
        let place = self.latencies.len() * 99 / 100;
        f64::from(*self.latencies.get(place).unwrap_or(&0)) / 1e6
    }
}

/// Sends `load` to `address` until `until`.
pub(crate) async fn send(address: SocketAddr, load: &Load, until: Until) -> Seen {
    let local = LocalSet::new();
    let mut clients = JoinSet::new();
    let began = Instant::now();
    for number in 0..load.connections {
        let load = load.clone();
        let quota = match until {
            Until::After(duration) => Quota::Until(began + duration),
            Until::Answered(count) => Quota::Requests(count / load.connections),
        };
        clients.spawn_local_on(client(address, load, number, quota), &local);
    }
    let latencies = local.run_until(clients.join_all()).await;
    let elapsed = began.elapsed();
    let mut latencies = latencies.concat();
    latencies.sort_unstable();
    Seen { latencies, elapsed }
}

#[derive(Debug, Clone, Copy)]
enum Quota {
    Until(Instant),
    Requests(usize),
}

async fn client(address: SocketAddr, load: Load, number: usize, quota: Quota) -> Vec<u32> {
    let mut stream = connect(address, load.tls).await;
    let mut space = vec![0; 64 * 1024];
    let mut latencies = Vec::new();
    // The connections begin at different requests, so that they do not march in step.
    let mut turn = number * 7919;
    loop {
        let more = match quota {
            Quota::Until(end) => Instant::now() < end,
            Quota::Requests(count) => latencies.len() < count,
        };
        if !more {
            return latencies;
        }
        let sent = Instant::now();
        let request = &load.requests[turn % load.requests.len()];
        let status = exchange(&mut stream, request, &mut space).await;
        assert!(status == *b"200" || load.takes_refusals, "{status:?}");
        latencies.push(u32::try_from(sent.elapsed().as_nanos()).unwrap_or(u32::MAX));
        turn += 1;
    }
}

/// A client's connection.
#[derive(Debug)]
pub(crate) enum Connection {
    Plain(TcpStream),
    Secure(SslStream<TcpStream>),
}

impl Connection {
    async fn read(&mut self, space: &mut [u8]) -> usize {
        let read = match self {
            Self::Plain(stream) => stream.read(space).await,
            Self::Secure(stream) => stream.read(space).await,
        };
        let count = read.expect("read");
        assert!(count > 0, "the connection was closed");
        count
    }

    async fn write(&mut self, bytes: &[u8]) {
        let written = match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Secure(stream) => stream.write_all(bytes).await,
        };
        written.expect("sent");
    }
}

/// A connection to `address`, whose certificate is not looked at.
pub(crate) async fn connect(address: SocketAddr, tls: bool) -> Connection {
    if tls {
        Connection::Secure(connect_securely(address, b"\x08http/1.1").await)
    } else {
        Connection::Plain(connect_plainly(address).await)
    }
}

pub(crate) async fn connect_plainly(address: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(address).await.expect("connected");
    tcp.set_nodelay(true).expect("a socket option");
    tcp
}

/// A connection over which `protocols` are offered (RFC 7301 §3.1).
pub(crate) async fn connect_securely(
    address: SocketAddr,
    protocols: &[u8],
) -> SslStream<TcpStream> {
    let tcp = connect_plainly(address).await;
    let mut context = SslContextBuilder::new(SslMethod::tls_client()).expect("a context");
    context.set_verify(SslVerifyMode::NONE);
    context.set_alpn_protos(protocols).expect("protocols");
    let ssl = Ssl::new(&context.build()).expect("a connection");
    let mut stream = SslStream::new(ssl, tcp).expect("a connection");
    Pin::new(&mut stream).connect().await.expect("a handshake");
    stream
}

/// Sends `request` and takes its whole answer. Gives the three digits of its status.
pub(crate) async fn exchange(stream: &mut Connection, request: &[u8], space: &mut [u8]) -> [u8; 3] {
    stream.write(request).await;
    let mut filled = 0;
    let head = loop {
        filled += stream.read(&mut space[filled..]).await;
        if let Some(end) = head_end(&space[..filled]) {
            break end;
        }
    };
    let status = space.strip_prefix(b"HTTP/1.1 ");
    let status = *status
        .and_then(|rest| rest.first_chunk())
        .expect("a status line");
    if memchr::memmem::find(&space[..head], b"chunked").is_some() {
        while !space[head..filled].ends_with(b"0\r\n\r\n") {
            filled += stream.read(&mut space[filled..]).await;
        }
        return status;
    }
    let mut rest = (head + content_length(&space[..head])).saturating_sub(filled);
    while rest > 0 {
        let wanted = rest.min(space.len());
        rest -= stream.read(&mut space[..wanted]).await;
    }
    status
}

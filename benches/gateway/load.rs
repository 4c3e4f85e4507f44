//! The clients: closed-loop keep-alive connections that check every answer.

use std::{
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{JoinSet, LocalSet},
};

use super::origin::{content_length, head_end};

/// What one kind of client sends, again and again.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Whole requests, sent in turn.
    pub(crate) requests: Rc<[Vec<u8>]>,
    pub(crate) connections: usize,
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
        let requests = Rc::clone(&load.requests);
        let quota = match until {
            Until::After(duration) => Quota::Until(began + duration),
            Until::Answered(count) => Quota::Requests(count / load.connections),
        };
        clients.spawn_local_on(client(address, requests, number, quota), &local);
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

async fn client(
    address: SocketAddr,
    requests: Rc<[Vec<u8>]>,
    number: usize,
    quota: Quota,
) -> Vec<u32> {
    let mut tcp = connect(address).await;
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
        exchange(&mut tcp, &requests[turn % requests.len()], &mut space).await;
        latencies.push(u32::try_from(sent.elapsed().as_nanos()).unwrap_or(u32::MAX));
        turn += 1;
    }
}

/// A connection to `address`.
pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(address).await.expect("connected");
    tcp.set_nodelay(true).expect("a socket option");
    tcp
}

/// Sends `request` and takes its whole answer, which must be 200.
pub(crate) async fn exchange(tcp: &mut TcpStream, request: &[u8], space: &mut [u8]) {
    tcp.write_all(request).await.expect("sent");
    let mut filled = 0;
    let head = loop {
        let count = tcp.read(&mut space[filled..]).await.expect("read");
        assert!(count > 0, "the connection was closed");
        filled += count;
        if let Some(end) = head_end(&space[..filled]) {
            break end;
        }
    };
    assert!(
        space.starts_with(b"HTTP/1.1 200 "),
        "{}",
        String::from_utf8_lossy(&space[..head])
    );
    let mut rest = (head + content_length(&space[..head])).saturating_sub(filled);
    while rest > 0 {
        let wanted = rest.min(space.len());
        let count = tcp.read(&mut space[..wanted]).await.expect("read");
        assert!(count > 0, "the connection was closed");
        rest -= count;
    }
}

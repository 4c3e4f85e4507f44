//! A connection to an upstream for the time of one try, as Pingora sees it.
//!
//! It comes from the pool of its address or is new, and goes back when Pingora found that it can be used again. It
//! gives up when the upstream is silent for too long, by a timer that stays with the connection; and it watches the
//! head of the response. Pingora's own pool, timers and TLS have no part in HTTP/1 towards upstreams.

mod dial;
mod head;

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use pingora_core::{
    Error, ErrorType,
    protocols::l4::virt::{VirtualSockOpt, VirtualSocket},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until},
};

pub(super) use dial::Dial;
use head::{HeadWatch, Progress};

use super::own_lines::OwnLines;
use crate::{
    snapshot::Upkeep,
    state::pool::{Pool, Wire},
};

/// How long is waited for an upstream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// Between two reads.
    pub read: Duration,
    /// Between two writes.
    pub write: Duration,
    /// For the whole head of the response, wherever that ends earlier.
    pub head_until: Option<Instant>,
}

/// What a connection is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A request among others.
    Request,
    /// A request that no connection from the pool will do for.
    RequestOnNew,
    /// A request that asks for a tunnel.
    Tunnel,
}

/// What Pingora does not write of a head.
#[derive(Debug)]
struct Following {
    lines: OwnLines,
    /// When the head is sent.
    sent: std::time::Instant,
}

/// A connection that is in use.
#[derive(Debug)]
struct Lease {
    /// Absent only while it is dropped.
    wire: Option<Wire>,
    pool: Arc<Pool>,
    patience: Patience,
    /// Absent where it is not kept.
    upkeep: Option<Upkeep>,
    stage: Stage,
    /// Until when a read, or a write, that is under way may take.
    read_until: Option<Instant>,
    write_until: Option<Instant>,
    /// Pingora gives it back.
    is_returned: bool,
    /// Our lines of the first head that is written; absent once that is done.
    lines: Option<Arc<Mutex<Option<Following>>>>,
    /// What of that head is still to be written.
    unsent: BytesMut,
    /// A request for a tunnel was written, and its next read has to wait for one turn.
    yields: Option<bool>,
}

/// How far the response is.
#[derive(Debug)]
enum Stage {
    Head(HeadWatch),
    Body,
    /// A tunnel may be silent in one direction for ever; the client's side bounds its silence.
    Tunnel,
}

/// Why a connection is given up. Pingora sees an error of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Trouble {
    #[error("the upstream sent nothing in time")]
    Silent,
    #[error("the upstream took nothing in time")]
    Stalled,
    #[error("the response has both Content-Length and Transfer-Encoding")]
    Ambiguous,
}

impl From<Trouble> for io::Error {
    fn from(trouble: Trouble) -> Self {
        let kind = match trouble {
            Trouble::Silent | Trouble::Stalled => io::ErrorKind::TimedOut,
            Trouble::Ambiguous => io::ErrorKind::InvalidData,
        };
        Self::new(kind, trouble)
    }
}

/// Gives an error its proper type whose cause is that a connection was given up: Pingora takes it for a broken one.
pub(super) fn name_trouble(error: &mut Error) {
    let cause = error.root_cause();
    let trouble = cause
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
        .and_then(|inner| inner.downcast_ref::<Trouble>());
    error.etype = match trouble {
        Some(Trouble::Silent) => ErrorType::ReadTimedout,
        Some(Trouble::Stalled) => ErrorType::WriteTimedout,
        Some(Trouble::Ambiguous) => ErrorType::InvalidHTTPHeader,
        None => return,
    };
}

impl Lease {
    fn new(wire: Wire, pool: Arc<Pool>, patience: Patience, upkeep: Option<Upkeep>) -> Self {
        Self {
            wire: Some(wire),
            pool,
            patience,
            upkeep,
            stage: Stage::Head(HeadWatch::default()),
            read_until: None,
            write_until: None,
            is_returned: false,
            lines: None,
            unsent: BytesMut::new(),
            yields: None,
        }
    }

    fn wire(&mut self) -> io::Result<&mut Wire> {
        self.wire
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Looks at what was read.
    fn note(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.read_until = None;
        let Stage::Head(watch) = &mut self.stage else {
            return Ok(());
        };
        self.stage = match watch.read(bytes) {
            Progress::Open => {
                let is_late = |until| Instant::now() >= until;
                return match self.patience.head_until {
                    Some(until) if is_late(until) => Err(Trouble::Silent.into()),
                    _ => Ok(()),
                };
            }
            Progress::Done => Stage::Body,
            Progress::Switched => Stage::Tunnel,
            Progress::Ambiguous => return Err(Trouble::Ambiguous.into()),
        };
        Ok(())
    }

    /// Writes what is left of the head.
    fn poll_unsent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let wire = self.wire.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            match Pin::new(&mut wire.socket).poll_write(context, &self.unsent) {
                Poll::Pending => return self.poll_stall(context).map(Err),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) if written == self.unsent.len() => {
                    self.unsent = BytesMut::new();
                }
                Poll::Ready(Ok(written)) => self.unsent.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
            // An upstream that takes something is not silent.
            (self.read_until, self.write_until) = (None, None);
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for an upstream that sends nothing.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let read = self.patience.read;
        let until = *self.read_until.get_or_insert_with(|| Instant::now() + read);
        self.poll_patience(until, context)
            .map(|()| Trouble::Silent.into())
    }

    /// Waits for an upstream that takes nothing.
    fn poll_stall(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let write = self.patience.write;
        let until = *self
            .write_until
            .get_or_insert_with(|| Instant::now() + write);
        self.poll_patience(until, context)
            .map(|()| Trouble::Stalled.into())
    }

    /// Ready when the time is over for a read or write that may take until `until`.
    fn poll_patience(&mut self, until: Instant, context: &mut Context<'_>) -> Poll<()> {
        match (&self.stage, self.patience.head_until) {
            (Stage::Tunnel, _) => Poll::Pending,
            (Stage::Head(_), Some(end)) => self.poll_timer(until.min(end), context),
            (Stage::Head(_) | Stage::Body, _) => self.poll_timer(until, context),
        }
    }

    /// Ready at `until`. The timer may stand at an earlier time: setting it costs more than finding
    /// now and then that it rang too early.
    fn poll_timer(&mut self, until: Instant, context: &mut Context<'_>) -> Poll<()> {
        let Some(wire) = &mut self.wire else {
            return Poll::Pending;
        };
        let timer = wire
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        while timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
        Poll::Pending
    }

    /// Pingora asks whether the connection is open and silent, which it is, once it has decided that the next request
    /// may have it. It is told that the connection is closed, so that it lets go of it.
    fn give_back(&mut self, context: &mut Context<'_>) {
        self.is_returned = true;
        // Whoever waited last is not to be kept in memory.
        if let Some(timer) = self.wire.as_mut().and_then(|wire| wire.timer.as_mut()) {
            let _ = timer.as_mut().poll(context);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (Some(wire), Some(upkeep), true) = (
            self.wire.take(),
            self.upkeep,
            self.is_returned && self.unsent.is_empty(),
        ) else {
            return;
        };
        if upkeep.requests_max.is_none_or(|most| wire.requests < most) {
            let until = Instant::now() + upkeep.idle;
            self.pool.put(wire, until.into_std(), upkeep.pool_size);
        }
    }
}

impl VirtualSocket for Lease {
    fn set_socket_option(&self, _option: VirtualSockOpt) -> io::Result<()> {
        // They were set when it was new.
        Ok(())
    }
}

impl AsyncRead for Lease {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.yields == Some(true) {
            this.yields = Some(false);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.wire()?.socket).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => {
                Poll::Ready(this.note(buffer.filled().get(before..).unwrap_or_default()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // Only who does not mean to wait has nobody to wake: the waker has no task.
            Poll::Pending if context.waker().data().is_null() => {
                if matches!(this.stage, Stage::Body) {
                    this.give_back(context);
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending
            }
            Poll::Pending => this.poll_silence(context).map(Err),
        }
    }
}

impl AsyncWrite for Lease {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(yields) = &mut this.yields {
            *yields = true;
        }
        if let Some(lines) = this.lines.take() {
            // The head comes in one piece.
            let following = lines.lock().unwrap_or_else(PoisonError::into_inner).take();
            let sent = following.as_ref().map(|following| following.sent);
            this.unsent = following.map_or_else(
                || BytesMut::from(bytes),
                |following| following.lines.join(bytes),
            );
            // All of it is taken, whether or not it leaves now; a flush sends the rest.
            if let Poll::Ready(Err(error)) = this.poll_unsent(context) {
                return Poll::Ready(Err(error));
            }
            if let Some(sent) = sent.filter(|_| this.unsent.is_empty()) {
                this.read_until = Some(Instant::from_std(sent) + this.patience.read);
            }
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(this.poll_unsent(context))?;
        match Pin::new(&mut this.wire()?.socket).poll_write(context, bytes) {
            Poll::Pending => this.poll_stall(context).map(Err),
            ready @ Poll::Ready(_) => {
                // An upstream that takes something is not silent.
                (this.read_until, this.write_until) = (None, None);
                ready
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_unsent(context))?;
        match Pin::new(&mut this.wire()?.socket).poll_flush(context) {
            Poll::Pending => this.poll_stall(context).map(Err),
            ready @ Poll::Ready(_) => ready,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire()?.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http::header;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::proxy::own_lines::Lines;

    const PATIENCE: Patience = Patience {
        connect: Duration::from_mins(1),
        read: Duration::from_millis(50),
        write: Duration::from_millis(50),
        head_until: None,
    };
    const UPKEEP: Upkeep = Upkeep {
        idle: Duration::from_mins(1),
        requests_max: Some(2),
        pool_size: 4,
    };
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

    /// A lease over a pipe of 64 bytes, and the upstream's end.
    fn lease(patience: Patience, pool: &Arc<Pool>) -> (Lease, DuplexStream) {
        let (near, far) = duplex(64);
        let wire = Wire::new(Box::new(near), None);
        let lease = Lease::new(wire, Arc::clone(pool), patience, Some(UPKEEP));
        (lease, far)
    }

    fn trouble_of(error: io::Error, etype: ErrorType) -> ErrorType {
        let mut error = Error::because(etype, "while it was used", error);
        name_trouble(&mut error);
        error.etype().clone()
    }

    async fn read(lease: &mut Lease) -> io::Result<usize> {
        lease.read(&mut [0; 64]).await
    }

    /// What Pingora does with a connection whose response is complete.
    fn ask_whether_it_is_idle(lease: &mut Lease) -> Option<usize> {
        let read = lease.read(&mut [0; 1]).now_or_never();
        read.map(|read| read.expect("no error"))
    }

    #[tokio::test]
    async fn silence_and_a_full_pipe_end_a_try() {
        let pool = Arc::default();
        let (mut silent, _upstream) = lease(PATIENCE, &pool);
        let error = read(&mut silent).await.expect_err("silence");
        assert_eq!(
            trouble_of(error, ErrorType::ReadError),
            ErrorType::ReadTimedout
        );
        let (mut full, _upstream) = lease(PATIENCE, &pool);
        let error = full.write_all(&[0; 65]).await.expect_err("a full pipe");
        assert_eq!(
            trouble_of(error, ErrorType::WriteError),
            ErrorType::WriteTimedout
        );
    }

    #[tokio::test]
    async fn lines_follow_a_head_through_a_narrow_pipe() {
        let (mut lease, mut upstream) = lease(PATIENCE, &Arc::default());
        let mut lines = OwnLines::new(16, 0);
        let value = "x".repeat(100);
        lines.add(&header::VIA, value.as_bytes());
        lease.lines = Some(Arc::new(Mutex::new(Some(Following {
            lines,
            sent: Instant::now().into_std(),
        }))));
        let expected = format!("GET / HTTP/1.1\r\nvia: {value}\r\nA: b\r\n\r\nbody!!");
        let bytes = expected.len();
        let reading = tokio::spawn(async move {
            let mut read = vec![0; bytes];
            upstream.read_exact(&mut read).await.expect("all of it");
            read
        });

        lease
            .write_all(b"GET / HTTP/1.1\r\nA: b\r\n\r\n")
            .await
            .expect("taken");
        lease.write_all(b"body!!").await.expect("taken");
        lease.flush().await.expect("sent");

        let read = reading.await.expect("read");
        assert_eq!(String::from_utf8(read).expect("text"), expected);
    }

    #[tokio::test]
    async fn silence_is_measured_from_byte_to_byte() {
        let (mut lease, mut upstream) = lease(PATIENCE, &Arc::default());
        let speaking = tokio::spawn(async move {
            for piece in ANSWER.chunks(8) {
                tokio::time::sleep(PATIENCE.read * 3 / 5).await;
                upstream.write_all(piece).await.expect("written");
            }
            upstream
        });
        let mut bytes = 0;
        while bytes < ANSWER.len() {
            bytes += read(&mut lease).await.expect("a steady upstream");
        }
        drop(speaking.await);
    }

    #[tokio::test]
    async fn a_head_that_drips_ends_in_time_and_a_body_may_go_on() {
        let patience = Patience {
            head_until: Some(Instant::now() + PATIENCE.read / 2),
            ..PATIENCE
        };
        let (mut lease, mut upstream) = lease(patience, &Arc::default());
        upstream.write_all(b"HTTP/1.1 ").await.expect("written");
        read(&mut lease).await.expect("a begin");
        let error = read(&mut lease).await.expect_err("late");
        assert_eq!(
            trouble_of(error, ErrorType::ReadError),
            ErrorType::ReadTimedout
        );
        upstream
            .write_all(b"200 OK\r\n\r\n")
            .await
            .expect("written");
        read(&mut lease).await.expect("the rest of the head");
        upstream.write_all(b"body").await.expect("written");
        assert_eq!(read(&mut lease).await.expect("the body"), 4);
    }

    #[tokio::test]
    async fn a_tunnel_may_be_silent() {
        let (mut lease, mut upstream) = lease(PATIENCE, &Arc::default());
        let head = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
        upstream.write_all(head).await.expect("written");
        read(&mut lease).await.expect("the head");
        let waited = tokio::time::timeout(PATIENCE.read * 3, read(&mut lease)).await;
        assert!(waited.is_err(), "an open tunnel may be silent");
    }

    #[tokio::test]
    async fn a_head_with_two_lengths_is_no_head() {
        let (mut lease, mut upstream) = lease(PATIENCE, &Arc::default());
        let head = b"HTTP/1.1 200\r\nContent-Length: 1\r\nTransfer-Encoding: x\r\n\r\n";
        upstream.write_all(head).await.expect("written");
        let error = read(&mut lease).await.expect_err("ambiguous");
        assert_eq!(
            trouble_of(error, ErrorType::ReadError),
            ErrorType::InvalidHTTPHeader
        );
    }

    #[tokio::test]
    async fn what_pingora_gives_back_goes_to_the_pool_until_it_has_served_enough() {
        let pool = Arc::default();
        let (mut lease, mut upstream) = lease(PATIENCE, &pool);
        for requests in 1..=2 {
            if let Some(wire) = &mut lease.wire {
                wire.requests = requests;
            }
            assert_eq!(ask_whether_it_is_idle(&mut lease), None, "it owes a head");
            upstream.write_all(ANSWER).await.expect("written");
            read(&mut lease).await.expect("the answer");
            assert_eq!(ask_whether_it_is_idle(&mut lease), Some(0));
            drop(lease);
            let kept = pool.take(None, Instant::now().into_std());
            assert_eq!(kept.is_some(), requests == 1);
            let Some(wire) = kept else { return };
            lease = Lease::new(wire, Arc::clone(&pool), PATIENCE, Some(UPKEEP));
        }
    }

    #[tokio::test]
    async fn what_is_dropped_or_says_more_than_it_was_asked_is_not_kept() {
        let pool = Arc::default();
        let (mut dropped, mut upstream) = lease(PATIENCE, &pool);
        upstream.write_all(ANSWER).await.expect("written");
        read(&mut dropped).await.expect("the answer");
        drop(dropped);
        let (mut surplus, mut other) = lease(PATIENCE, &pool);
        other.write_all(ANSWER).await.expect("written");
        read(&mut surplus).await.expect("the answer");
        other.write_all(b"more").await.expect("written");
        assert_eq!(ask_whether_it_is_idle(&mut surplus), Some(1));
        drop(surplus);
        assert!(pool.take(None, Instant::now().into_std()).is_none());
    }

    #[tokio::test]
    async fn a_read_behind_a_write_for_a_tunnel_waits_for_one_turn() {
        let (mut lease, mut upstream) = lease(PATIENCE, &Arc::default());
        lease.yields = Some(false);
        upstream.write_all(b"answer").await.expect("written");
        lease.write_all(b"question").await.expect("written");
        let mut space = [0; 6];
        let mut read = std::pin::pin!(lease.read_exact(&mut space));
        assert!(futures_util::poll!(read.as_mut()).is_pending());
        read.await.expect("read in the next turn");
        assert_eq!(&space, b"answer");
    }
}

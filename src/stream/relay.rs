//! Bytes in both directions until both sides are done, one breaks off, or nothing moves for too long.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes},
    time::{Instant, sleep},
};

use crate::telemetry::streams::Ending;

/// How much is taken at once in each direction.
const BUFFER_BYTES: usize = 16 * 1024;
/// How often silence is looked for at most.
const STEP_MIN: Duration = Duration::from_millis(1);

/// The bytes that crossed the client's connection.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    /// Those that came from the client, and those that went to it.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (
            self.received.load(Ordering::Relaxed),
            self.sent.load(Ordering::Relaxed),
        )
    }
}

/// Lets the bytes through. The end of one direction is passed on, and the other one goes on.
pub(super) async fn relay(
    client: impl AsyncRead + AsyncWrite + Unpin,
    mut upstream: impl AsyncRead + AsyncWrite + Unpin,
    idle: Duration,
    traffic: &Arc<Traffic>,
) -> Ending {
    let mut client = Counted {
        inner: client,
        traffic: Arc::clone(traffic),
    };
    let copied =
        copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER_BYTES, BUFFER_BYTES);
    tokio::select! {
        copied = copied => match copied {
            Ok(_) => Ending::Done,
            Err(_) => Ending::Reset,
        },
        () = silence(idle, traffic) => Ending::Idle,
    }
}

/// Waits until no byte has moved for `idle`.
async fn silence(idle: Duration, traffic: &Traffic) {
    // Looked at more often than it ends, so that it ends at most a fourth too late.
    let step = idle / 4;
    let mut seen = traffic.bytes();
    let mut since = Instant::now();
    loop {
        let left = idle.saturating_sub(since.elapsed());
        sleep(left.min(step).max(STEP_MIN)).await;
        let now = traffic.bytes();
        if now != seen {
            seen = now;
            since = Instant::now();
        } else if since.elapsed() >= idle {
            return;
        }
    }
}

/// A client's connection whose bytes are counted.
struct Counted<S> {
    inner: S,
    traffic: Arc<Traffic>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let count = buffer.filled().len().saturating_sub(before);
        self.traffic
            .received
            .fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.inner).poll_write(context, bytes))?;
        self.traffic.sent.fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn the_end_of_one_direction_leaves_the_other_open() {
        let (mut near, client) = duplex(64);
        let (upstream, mut far) = duplex(64);
        let traffic = Arc::new(Traffic::default());
        let counted = Arc::clone(&traffic);
        let relayed =
            tokio::spawn(
                async move { relay(client, upstream, Duration::from_mins(1), &counted).await },
            );
        near.write_all(b"ask").await.expect("written");
        near.shutdown().await.expect("closed");
        let mut asked = Vec::new();
        far.read_to_end(&mut asked).await.expect("read");
        assert_eq!(asked, b"ask");
        far.write_all(b"answer").await.expect("written");
        drop(far);
        let mut answered = Vec::new();
        near.read_to_end(&mut answered).await.expect("read");
        assert_eq!(answered, b"answer");
        assert_eq!(relayed.await.expect("no panic"), Ending::Done);
        assert_eq!(traffic.bytes(), (3, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_stream_and_a_byte_now_and_then_does_not() {
        let (mut near, client) = duplex(64);
        let (upstream, mut far) = duplex(64);
        let traffic = Arc::new(Traffic::default());
        let relayed = tokio::spawn(async move {
            relay(client, upstream, Duration::from_secs(10), &traffic).await
        });
        for _ in 0..5 {
            sleep(Duration::from_secs(6)).await;
            near.write_all(b".").await.expect("written");
            assert_eq!(far.read_u8().await.expect("read"), b'.');
        }
        assert_eq!(relayed.await.expect("no panic"), Ending::Idle);
    }
}

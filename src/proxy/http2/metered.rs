//! A client connection as the HTTP/2 layer sees it: the client's stream, whose frames are counted
//! on the way. After an offence nothing more is read, and the end waits for the client to take the
//! last word.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::meter::{Meter, Pulse};
use crate::proxy::stream::ClientStream;

/// How much of what an offender still sends is taken, so that a reset does not overtake the last
/// word.
const LINGER_BYTES_MAX: usize = 1 << 20;

/// The client's stream and the meter on it.
#[derive(Debug)]
pub(super) struct MeteredStream {
    stream: Box<ClientStream>,
    meter: Meter,
    pulse: Arc<Pulse>,
    lingered: usize,
    is_shut: bool,
}

impl MeteredStream {
    pub(super) fn new(stream: Box<ClientStream>, pulse: Arc<Pulse>, now: Instant) -> Self {
        Self {
            stream,
            meter: Meter::new(now),
            pulse,
            lingered: 0,
            is_shut: false,
        }
    }

    /// Takes what still comes until the client closes. The task of the connection bounds the time.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut space = [0; 4096];
        while self.lingered < LINGER_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => self.lingered += buffer.filled().len(),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for MeteredStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.pulse.offence().is_some() {
            // Whoever polls looks for an offence next.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        let bytes = buffer.filled().get(before..).unwrap_or_default();
        this.meter.receive(bytes, Instant::now(), &this.pulse);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MeteredStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.pulse.set_stalled(written.is_pending());
        let count = ready!(written)?;
        this.meter.send(bytes.get(..count).unwrap_or_default());
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.is_shut {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            this.is_shut = true;
        }
        if this.pulse.offence().is_some() {
            ready!(this.poll_linger(context));
        }
        Poll::Ready(Ok(()))
    }
}

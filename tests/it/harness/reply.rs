//! What a scripted origin does with a request: an ordinary answer, or something worse.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::http1::chunked;
use super::wait::PATIENCE;

/// What an origin does when it has read a request.
pub(crate) struct Reply(pub(super) Act);

/// Writes a response by hand.
type Write = dyn FnOnce(&mut TcpStream) -> io::Result<()> + Send;

pub(super) enum Act {
    Answer(Answer),
    Write(Box<Write>, Then),
    Reset,
    Never,
    Echo,
}

pub(super) struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    chunk_size: Option<usize>,
    pub(super) gate: Option<Gate>,
    pub(super) then: Then,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    KeepOpen,
    Close,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        let (fields, body) = (Vec::new(), Vec::new());
        Self(Act::Answer(Answer {
            status,
            fields,
            body,
            chunk_size: None,
            gate: None,
            then: Then::KeepOpen,
        }))
    }

    /// A 200 with this body and its length.
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::status(200).body(body)
    }

    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        self.edit(|answer| answer.fields.push((name.to_owned(), value.to_owned())))
    }

    pub(crate) fn body(self, body: impl Into<Vec<u8>>) -> Self {
        self.edit(|answer| answer.body = body.into())
    }

    /// Sends the body in chunks of at most `size` bytes instead of with a length.
    pub(crate) fn chunked(self, size: usize) -> Self {
        self.edit(|answer| answer.chunk_size = Some(size))
    }

    /// Replies only once the gate is open.
    pub(crate) fn after(self, gate: &Gate) -> Self {
        self.edit(|answer| answer.gate = Some(gate.clone()))
    }

    /// Closes the connection after the reply, without having said so.
    pub(crate) fn then_close(self) -> Self {
        match self.0 {
            Act::Write(write, _) => Self(Act::Write(write, Then::Close)),
            act => Self(act).edit(|answer| answer.then = Then::Close),
        }
    }

    /// Writes these bytes, whatever they are.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::stream(move |stream| stream.write_all(&bytes))
    }

    /// Lets the test write by itself: pieces, pauses at gates, anything.
    pub(crate) fn stream(
        write: impl FnOnce(&mut TcpStream) -> io::Result<()> + Send + 'static,
    ) -> Self {
        Self(Act::Write(Box::new(write), Then::KeepOpen))
    }

    /// Closes the connection without a byte.
    pub(crate) fn close() -> Self {
        Self::raw("").then_close()
    }

    /// Resets the connection without a byte.
    pub(crate) fn reset() -> Self {
        Self(Act::Reset)
    }

    /// Stays silent until the other side closes.
    pub(crate) fn never() -> Self {
        Self(Act::Never)
    }

    /// Accepts the WebSocket handshake with the first sub-protocol offered, then echoes messages.
    pub(crate) fn websocket() -> Self {
        Self(Act::Echo)
    }

    fn edit(mut self, change: impl FnOnce(&mut Answer)) -> Self {
        if let Act::Answer(answer) = &mut self.0 {
            change(answer);
        }
        self
    }
}

impl Answer {
    /// The response on the wire, for a request with this method.
    pub(super) fn bytes(&self, method: &str) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let bodiless = matches!(self.status, 204 | 304);
        match self.chunk_size {
            _ if bodiless => {}
            Some(_) => head.push_str("Transfer-Encoding: chunked\r\n"),
            None => head.push_str(&format!("Content-Length: {}\r\n", self.body.len())),
        }
        head.push_str("\r\n");
        let body = match self.chunk_size {
            _ if bodiless || method == "HEAD" => Vec::new(),
            Some(size) => chunked(&self.body, size),
            None => self.body.clone(),
        };
        [head.into_bytes(), body].concat()
    }
}

/// Holds a reply back until the test opens it.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Gives up after a while, so that a failed test ends.
    pub(crate) fn wait(&self) {
        let open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self
            .0
            .1
            .wait_timeout_while(open, PATIENCE * 4, |open| !*open);
    }
}

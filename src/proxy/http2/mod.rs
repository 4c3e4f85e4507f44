//! HTTP/2 from clients. One task drives a connection and starts one for each stream; every stream
//! goes the way of any other request. What a client may cost is bounded here: streams, resets,
//! frames without a message, header blocks, silence.

mod frames;
mod head;
mod meter;
mod metered;
mod session;
mod stream;

use std::{
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, task::AtomicWaker};
use h2::{
    Reason, RecvStream,
    server::{self, SendResponse},
};
use http::Request;
use pingora_core::protocols::http::{ServerSession, custom::server::Session as _};
use pingora_http::RequestHeader;
use tokio::{
    sync::futures::Notified,
    time::{Instant, Sleep, sleep_until, timeout_at},
};
use tracing::debug;

use self::{meter::Pulse, metered::MeteredStream, session::Session};
use super::{
    connection::Edge,
    drain::Open,
    exchange::{Arrived, Connection},
    framing,
    head::{FIELDS_MAX, Limits, Refusal, bad},
    listener::Retired,
    record, reply,
    stream::ClientStream,
};
use crate::{
    plugin::Reply,
    telemetry::connections::{Activity, Connection as Gauge},
};

pub(super) use self::{frames::PREFACE, session::ANSWERED, stream::Stream};

/// Streams of one connection at once.
const STREAMS_MAX: u32 = 128;
/// What may be on its way to the gateway of one body, and of all bodies of a connection.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024 - 1;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// What waits to be sent of one response: all streams together make one MiB.
const SEND_BUFFER_BYTES: usize = (1 << 20) / STREAMS_MAX as usize;
/// Streams that may be reset because of what the client sent on them, in the life of a connection.
const FAULTY_STREAMS_MAX: usize = 1000;
/// Streams that a client may take back before anybody looked at them.
const UNSEEN_RESETS_MAX: usize = 200;
/// What HTTP/2 counts for each field beside its name and value (RFC 9113 §6.5.2).
const FIELD_OVERHEAD_BYTES: usize = 32;
/// How long a connection that ends may take for its last words, and its client to learn of the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

/// The streams of a connection that are being served.
#[derive(Debug, Default)]
struct Active {
    count: AtomicUsize,
    /// The task of the connection, which must know when the last one ends.
    waker: AtomicWaker,
}

impl Active {
    fn begin(self: &Arc<Self>) -> Serving {
        self.count.fetch_add(1, Ordering::AcqRel);
        Serving(Arc::clone(self))
    }

    fn is_none(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }
}

/// A stream while it is being served.
#[derive(Debug)]
struct Serving(Arc<Active>);

impl Drop for Serving {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.waker.wake();
        }
    }
}

/// What happened on a connection.
enum Event {
    Stream(Box<Accepted>),
    /// It has come to its end, or is no HTTP/2.
    Over,
    /// The client sends too much of something.
    Offence(&'static str),
    /// Idle connections are asked to close.
    Asked,
    Late(Late),
}

/// Which patience came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    /// Nothing was asked for.
    Idle,
    /// A header block does not come to its end.
    Block,
    /// The client takes nothing of what is sent.
    Stalled,
    /// The connection does not come to its end.
    End,
}

/// How long a connection may be without what.
#[derive(Debug, Clone, Copy)]
struct Patience {
    first: Duration,
    idle: Duration,
    block: Duration,
    send: Duration,
}

/// One connection.
struct Driver<'o> {
    edge: Arc<Edge>,
    connection: Arc<Connection>,
    /// Whether the listener that it came by is gone.
    retired: Retired,
    h2: server::Connection<MeteredStream, Bytes>,
    pulse: Arc<Pulse>,
    active: Arc<Active>,
    limits: Limits,
    patience: Patience,
    requests_max: u32,
    requests: u32,
    /// Since when no stream is being served.
    idle_since: Option<Instant>,
    /// Since when the connection is coming to its end.
    ending: Option<Instant>,
    /// Whether it ends without waiting for anything.
    is_cut: bool,
    /// Fires no later than the next deadline, maybe earlier.
    timer: Pin<Box<Sleep>>,
    open: &'o Open,
    word: Pin<Box<Notified<'o>>>,
    words: u64,
}

/// Serves a connection on which a client begins to speak HTTP/2, until it closes.
pub(super) async fn serve(
    edge: Arc<Edge>,
    mut stream: Box<ClientStream>,
    connection: Arc<Connection>,
    retired: Retired,
    open: &Open,
    gauge: &Gauge,
) {
    stream.unfence();
    let now = Instant::now();
    let pulse = Arc::new(Pulse::new(now));
    let (limits, patience, requests_max) = {
        let snapshot = edge.gateway().live.look();
        let settings = &snapshot.settings;
        let limits = Limits {
            line: settings.head_line_bytes_max,
            head: settings.head_bytes_max,
        };
        let patience = Patience {
            first: settings.header_timeout,
            idle: settings.keepalive_timeout,
            block: settings.header_timeout,
            send: settings.send_timeout,
        };
        (limits, patience, settings.keepalive_requests)
    };
    let stream = MeteredStream::new(stream, Arc::clone(&pulse), now);
    let handshake = builder(limits).handshake(stream);
    let Ok(Ok(h2)) = timeout_at(now + patience.first, handshake).await else {
        return;
    };
    let mut driver = Driver {
        edge,
        connection,
        retired,
        h2,
        pulse,
        active: Arc::default(),
        limits,
        patience,
        requests_max,
        requests: 0,
        idle_since: Some(now),
        ending: None,
        is_cut: false,
        timer: Box::pin(sleep_until(now + patience.first)),
        open,
        word: Box::pin(open.asked_to_close()),
        words: open.words(),
    };
    driver.word.as_mut().enable();
    driver.drive(gauge).await;
}

/// The HTTP/2 layer itself answers a head that is about twice as large as `limits` allow, in a form of
/// its own; `head.rs` judges what is smaller.
fn builder(limits: Limits) -> server::Builder {
    let list = limits.head + limits.head.max(FIELDS_MAX * FIELD_OVERHEAD_BYTES);
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(list).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_local_error_reset_streams(Some(FAULTY_STREAMS_MAX))
        .max_pending_accept_reset_streams(UNSEEN_RESETS_MAX);
    builder
}

impl Driver<'_> {
    async fn drive(&mut self, gauge: &Gauge) {
        gauge.enter(Activity::Waiting);
        if self.edge.gateway().drain.is_draining() {
            self.end_gracefully();
        }
        loop {
            match self.next(gauge).await {
                Event::Stream(accepted) if self.takes_streams() => {
                    gauge.enter(Activity::Writing);
                    self.begin(*accepted);
                }
                Event::Stream(accepted) => {
                    let (_, mut respond) = *accepted;
                    respond.send_reset(Reason::REFUSED_STREAM);
                }
                Event::Over => return,
                Event::Offence(detail) => self.end_at_once(Reason::ENHANCE_YOUR_CALM, detail),
                Event::Asked => {
                    if self.active.is_none() || self.edge.gateway().drain.is_draining() {
                        self.end_gracefully();
                    }
                }
                Event::Late(Late::Idle) => self.end_at_once(Reason::NO_ERROR, "idle"),
                Event::Late(Late::Block) => {
                    let detail = "a header block did not arrive in time";
                    self.end_at_once(Reason::ENHANCE_YOUR_CALM, detail);
                }
                Event::Late(late @ (Late::Stalled | Late::End)) => {
                    debug!(client_ip = %self.connection.ip, ?late, "HTTP/2 connection cut");
                    return;
                }
            }
        }
    }

    /// Lets streams finish, and refuses new ones once the client knows.
    fn end_gracefully(&mut self) {
        if self.ending.is_none() {
            self.h2.graceful_shutdown();
            self.ending = Some(Instant::now());
        }
    }

    /// Whether a stream that comes now is served. A client that was told of the end may not have
    /// heard it yet, but one that goes on for long does not listen.
    fn takes_streams(&self) -> bool {
        self.ending
            .is_none_or(|ending| ending.elapsed() < LAST_WORDS)
    }

    /// Ends with what is being served.
    fn end_at_once(&mut self, reason: Reason, detail: &'static str) {
        debug!(client_ip = %self.connection.ip, %reason, detail, "HTTP/2 connection ends");
        self.h2.abrupt_shutdown(reason);
        self.is_cut = true;
        self.ending = Some(Instant::now());
        // Streams that are still served do not keep it.
        self.idle_since = self.ending;
    }

    /// Waits for what comes next.
    async fn next(&mut self, gauge: &Gauge) -> Event {
        let Self {
            h2,
            pulse,
            active,
            patience,
            requests,
            idle_since,
            ending,
            is_cut,
            timer,
            open,
            word,
            words,
            ..
        } = self;
        let mut accept = pin!(h2.accept());
        poll_fn(|context| {
            active.waker.register(context.waker());
            match accept.as_mut().poll(context) {
                Poll::Ready(Some(Ok(accepted))) => {
                    return Poll::Ready(Event::Stream(Box::new(accepted)));
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Event::Over),
                Poll::Pending => {}
            }
            if !*is_cut && let Some(offence) = pulse.offence() {
                return Poll::Ready(Event::Offence(offence.detail()));
            }
            if *words != open.words() || word.as_mut().poll(context).is_ready() {
                *words = open.words();
                word.set(open.asked_to_close());
                word.as_mut().enable();
                return Poll::Ready(Event::Asked);
            }
            if idle_since.is_none() && active.is_none() {
                *idle_since = Some(Instant::now());
                gauge.enter(Activity::Waiting);
            }
            let deadlines = Deadlines {
                patience: *patience,
                idle_since: *idle_since,
                ending: *ending,
                is_first: *requests == 0,
            };
            poll_deadline(timer, deadlines.next(pulse), context).map(Event::Late)
        })
        .await
    }

    /// Starts to serve a stream.
    fn begin(&mut self, (request, respond): Accepted) {
        self.idle_since = None;
        self.requests += 1;
        if self.requests >= self.requests_max || self.retired.is_set() {
            self.end_gracefully();
        }
        self.edge.gateway().state.telemetry.request_received();
        let (head, body) = request.into_parts();
        let stream = Arc::new(Stream::new(Arc::clone(&self.connection), head::size(&head)));
        let serving = self.active.begin();
        let edge = Arc::clone(&self.edge);
        match head::read(head, self.limits) {
            Ok(head) => {
                let request = framing::carry(Arrived {
                    connection: Arc::clone(&self.connection),
                    stream: Some(Arc::clone(&stream)),
                    head: head.into(),
                });
                let mut session = Session::new(request, body, respond, Arc::clone(&stream));
                let patience = self.patience.block;
                tokio::spawn(async move {
                    if session.has_no_more_than_announced(patience).await {
                        edge.serve_stream(session).await;
                    } else {
                        let refusal = bad("a body comes that was announced as empty");
                        edge.refuse_stream(session, stream, refusal).await;
                    }
                    drop(serving);
                });
            }
            Err(refusal) => {
                let (nothing, ()) = Request::new(()).into_parts();
                let request = RequestHeader::from(nothing);
                let session = Session::new(request, body, respond, Arc::clone(&stream));
                tokio::spawn(async move {
                    edge.refuse_stream(session, stream, refusal).await;
                    drop(serving);
                });
            }
        }
    }
}

/// What a connection's deadlines follow from.
#[derive(Debug, Clone, Copy)]
struct Deadlines {
    patience: Patience,
    idle_since: Option<Instant>,
    ending: Option<Instant>,
    is_first: bool,
}

impl Deadlines {
    /// The next of them.
    fn next(self, pulse: &Pulse) -> Option<(Instant, Late)> {
        let stalled = pulse
            .stalled_since()
            .map(|since| (since + self.patience.send, Late::Stalled));
        let other = if let Some(ending) = self.ending {
            // While streams are served, the end waits for them.
            [
                self.idle_since
                    .map(|idle| (idle.max(ending) + LAST_WORDS, Late::End)),
                None,
            ]
        } else {
            let patience = if self.is_first {
                self.patience.first
            } else {
                self.patience.idle
            };
            [
                self.idle_since.map(|since| (since + patience, Late::Idle)),
                pulse
                    .block_since()
                    .map(|since| (since + self.patience.block, Late::Block)),
            ]
        };
        let all = other.into_iter().chain([stalled]).flatten();
        all.min_by_key(|(deadline, _)| *deadline)
    }
}

/// Waits for the deadline, if there is one.
fn poll_deadline(
    timer: &mut Pin<Box<Sleep>>,
    next: Option<(Instant, Late)>,
    context: &mut Context<'_>,
) -> Poll<Late> {
    let Some((deadline, late)) = next else {
        return Poll::Pending;
    };
    loop {
        if timer.is_elapsed() || timer.deadline() > deadline {
            if Instant::now() >= deadline {
                return Poll::Ready(late);
            }
            timer.as_mut().reset(deadline);
        }
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
    }
}

impl Edge {
    /// Hands the request on a stream to Pingora.
    async fn serve_stream(&self, session: Session) {
        let session = ServerSession::new_custom(Box::new(session));
        let processed = AssertUnwindSafe(self.process(session)).catch_unwind().await;
        if processed.is_err() {
            self.gateway().state.telemetry.panicked();
        }
    }

    /// Answers a request that is not acceptable.
    async fn refuse_stream(&self, mut session: Session, stream: Arc<Stream>, refusal: Refusal) {
        let gateway = self.gateway();
        let mut exchange = self.stranger(&stream.connection, refusal);
        exchange.stream = Some(stream);
        let message = Reply::message(refusal.status, refusal.reason, refusal.message());
        let (head, body) = reply::refusal(&mut exchange, message, &gateway.state.telemetry);
        let patience = exchange.snapshot.settings.send_timeout;
        session.set_write_timeout(Some(patience));
        // Whoever is gone needs no answer.
        let _ = session
            .write_response_header(Box::new(framing::whole_response(head)), false)
            .await;
        let _ = session.write_body(body, true).await;
        record::record(None, None, &mut exchange, gateway);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn deadlines(now: Instant) -> Deadlines {
        Deadlines {
            patience: Patience {
                first: SECOND,
                idle: 5 * SECOND,
                block: 3 * SECOND,
                send: 4 * SECOND,
            },
            idle_since: Some(now),
            ending: None,
            is_first: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_waits_for_its_first_request_and_between_two_as_long_as_is_set() {
        let now = Instant::now();
        let pulse = Pulse::new(now);
        let between = deadlines(now);
        assert_eq!(between.next(&pulse), Some((now + 5 * SECOND, Late::Idle)));
        let first = Deadlines {
            is_first: true,
            ..between
        };
        assert_eq!(first.next(&pulse), Some((now + SECOND, Late::Idle)));
        let busy = Deadlines {
            idle_since: None,
            ..between
        };
        assert_eq!(busy.next(&pulse), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_streams_and_then_not_for_long() {
        let now = Instant::now();
        let pulse = Pulse::new(now);
        let ending = Deadlines {
            ending: Some(now + SECOND),
            ..deadlines(now)
        };
        assert_eq!(
            ending.next(&pulse),
            Some((now + SECOND + LAST_WORDS, Late::End))
        );
        let busy = Deadlines {
            idle_since: None,
            ..ending
        };
        assert_eq!(busy.next(&pulse), None);
    }
}

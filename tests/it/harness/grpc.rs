//! An origin that speaks HTTP/2, as gRPC servers do. What it does is in the path of a call.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use openssl::ssl::{AlpnError, Ssl, SslAcceptor, select_next_proto};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use super::certificates::Issued;
use super::ports::free_port;
use super::tls_origin::acceptor;
use super::wait::wait_until;

/// One call as the origin saw it.
#[derive(Clone, Debug)]
pub(crate) struct CallSeen {
    pub(crate) path: String,
    pub(crate) authority: String,
    pub(crate) headers: HeaderMap,
    /// What arrived of its body, and whether that was to the end; `None` while it arrives.
    pub(crate) ended: Option<bool>,
    pub(crate) body: Vec<u8>,
}

/// What a server says when it is asked how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// A state, such as 1 for SERVING.
    State(u8),
    /// A status of gRPC and no state.
    Status(&'static str),
    /// Nothing.
    Nothing,
}

struct Seen {
    calls: Vec<CallSeen>,
    connections: usize,
    says: Says,
}

/// A gRPC server. It stops when dropped.
pub(crate) struct GrpcOrigin {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    _runtime: Runtime,
}

impl GrpcOrigin {
    /// Serves:
    /// - `/echo.Echo/Unary`: the whole body, then status 0
    /// - `/echo.Echo/Bidi`: each piece as it comes, then status 0
    /// - `/echo.Echo/Early`: status 8 at the first piece, without waiting for more
    /// - `/echo.Echo/Fail`: status 5 in the head
    /// - `/echo.Echo/Silent`: nothing
    /// - `/echo.Echo/Refuse`: the first call is refused unseen, the others are as `Unary`
    /// - `/echo.Echo/Cut`: a head and a piece, then a reset
    /// - `/grpc.health.v1.Health/Check`: what it is told to say, SERVING at first
    pub(crate) fn start() -> Self {
        Self::serve(None)
    }

    /// The same over TLS, with this certificate.
    pub(crate) fn start_with_tls(issued: &Issued) -> Self {
        let mut acceptor = acceptor(issued, None);
        acceptor.set_alpn_select_callback(|_, offered| {
            select_next_proto(b"\x02h2", offered).ok_or(AlpnError::ALERT_FATAL)
        });
        Self::serve(Some(acceptor.build()))
    }

    fn serve(tls: Option<SslAcceptor>) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let port = free_port();
        let seen = Arc::new(Mutex::new(Seen {
            calls: Vec::new(),
            connections: 0,
            says: Says::State(1),
        }));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = runtime
            .block_on(TcpListener::bind(address))
            .expect("a free port");
        let calls = Arc::clone(&seen);
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let _ = tcp.set_nodelay(true);
                let seen = Arc::clone(&calls);
                lock(&seen).connections += 1;
                let ssl = tls
                    .as_ref()
                    .map(|acceptor| Ssl::new(acceptor.context()).expect("a connection's TLS"));
                tokio::spawn(async move {
                    let Some(ssl) = ssl else {
                        return converse(tcp, seen).await;
                    };
                    let mut stream = tokio_openssl::SslStream::new(ssl, tcp).expect("a stream");
                    if Pin::new(&mut stream).accept().await.is_ok() {
                        converse(stream, seen).await;
                    }
                });
            }
        });
        Self {
            port,
            seen,
            _runtime: runtime,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What it says from now on when it is asked how it is.
    pub(crate) fn says(&self, says: Says) {
        lock(&self.seen).says = says;
    }

    pub(crate) fn calls(&self) -> Vec<CallSeen> {
        lock(&self.seen).calls.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        lock(&self.seen).connections
    }

    /// Waits until the last call has ended, and gives it.
    pub(crate) fn last_ended(&self) -> CallSeen {
        wait_until("the last call to end", || {
            self.calls().last().is_some_and(|call| call.ended.is_some())
        });
        self.calls().pop().expect("a call")
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, seen: Arc<Mutex<Seen>>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond, Arc::clone(&seen)));
    }
}

fn trailers(status: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers.insert("grpc-message", HeaderValue::from_static("said"));
    trailers
}

impl CallSeen {
    /// A call of which only the head has come.
    fn of(head: http::request::Parts) -> Self {
        Self {
            path: head.uri.path().to_owned(),
            authority: head
                .uri
                .authority()
                .map(ToString::to_string)
                .unwrap_or_default(),
            headers: head.headers,
            ended: None,
            body: Vec::new(),
        }
    }
}

/// Answers 503 with a body that goes on until the caller gives it up.
async fn refuse_for_now(respond: &mut SendResponse<Bytes>) {
    let mut response = Response::new(());
    *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    if let Ok(mut send) = respond.send_response(response, false) {
        let _ = send.send_data(Bytes::from_static(b"not this one"), false);
        let _ = std::future::poll_fn(|context| send.poll_reset(context)).await;
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    seen: Arc<Mutex<Seen>>,
) {
    let (head, mut body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let (number, is_first) = {
        let mut seen = lock(&seen);
        let is_first = !seen.calls.iter().any(|call| call.path == path);
        seen.calls.push(CallSeen::of(head));
        (seen.calls.len() - 1, is_first)
    };
    let note = |piece: Option<Result<Bytes, h2::Error>>, body: &mut RecvStream| {
        let mut seen = lock(&seen);
        let call = seen.calls.get_mut(number)?;
        match piece {
            Some(Ok(piece)) => {
                let _ = body.flow_control().release_capacity(piece.len());
                call.body.extend(&piece);
                Some(piece)
            }
            Some(Err(_)) => {
                call.ended = Some(false);
                None
            }
            None => {
                call.ended = Some(true);
                None
            }
        }
    };
    let method = path.rsplit('/').next().unwrap_or_default();
    if method == "Refuse" && is_first {
        respond.send_reset(Reason::REFUSED_STREAM);
        return;
    }
    if method == "Busy" && is_first {
        refuse_for_now(&mut respond).await;
        lock(&seen).calls[number].ended = Some(false);
        return;
    }
    let says = lock(&seen).says;
    if method == "Silent" || (method == "Check" && says == Says::Nothing) {
        // Until the caller gives up.
        while note(body.data().await, &mut body).is_some() {}
        let _ = std::future::poll_fn(|context| respond.poll_reset(context)).await;
        lock(&seen).calls[number].ended = Some(false);
        return;
    }
    let mut response = Response::new(());
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    let failure = match says {
        Says::Status(status) if method == "Check" => Some(status),
        _ => (method == "Fail").then_some("5"),
    };
    if let Some(status) = failure {
        response.headers_mut().extend(trailers(status));
        let _ = respond.send_response(response, true);
        return;
    }
    let Ok(mut send) = respond.send_response(response, false) else {
        return;
    };
    match method {
        "Bidi" => {
            while let Some(piece) = note(body.data().await, &mut body) {
                let _ = send.send_data(piece, false);
            }
            let _ = send.send_trailers(trailers("0"));
        }
        "Check" => {
            while note(body.data().await, &mut body).is_some() {}
            if let Says::State(state) = says {
                let message = vec![0, 0, 0, 0, 2, 8, state];
                let _ = send.send_data(Bytes::from(message), false);
            }
            let _ = send.send_trailers(trailers("0"));
        }
        "Early" => {
            let first = body.data().await;
            note(first, &mut body);
            let _ = send.send_trailers(trailers("8"));
            // A server that has answered wants no more of the request.
            drop(body);
            lock(&seen).calls[number].ended = Some(false);
        }
        "Cut" => {
            let _ = send.send_data(Bytes::from_static(b"half"), false);
            tokio::time::sleep(Duration::from_millis(50)).await;
            send.send_reset(Reason::INTERNAL_ERROR);
        }
        _ => {
            let mut whole = Vec::new();
            while let Some(piece) = note(body.data().await, &mut body) {
                whole.extend(piece);
            }
            let _ = send.send_data(Bytes::from(whole), false);
            let _ = send.send_trailers(trailers("0"));
        }
    }
}

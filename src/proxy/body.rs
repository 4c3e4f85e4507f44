//! Whole request bodies for plugins: read from the client, and put back so that they are proxied
//! like any other.
//!
//! Pingora replays at most 64 KiB of a body that was read before proxying began. So the session
//! gives up its stream, and a new session on the same stream starts with the request as if it had
//! arrived in one piece.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header;
use pingora_core::{
    ErrorType,
    protocols::http::{ServerSession, v1::server::HttpSession as SessionV1},
};
use pingora_proxy::Session;
use thiserror::Error;

use super::{exchange::Exchange, failure, framing, receive, stream::ClientStream};
use crate::{
    entity::reason::Reason,
    plugin::{Halt, Reply, RequestBody},
    snapshot::Settings,
};

/// How often a client is looked after while its request waits.
const HANGUP_INTERVAL: Duration = Duration::from_millis(100);

/// The body of the request in a session.
pub(super) struct ClientBody<'s> {
    session: &'s mut ServerSession,
    waits_for_permission: bool,
    bytes_max: usize,
    read: Option<Bytes>,
}

impl std::fmt::Debug for ClientBody<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ClientBody")
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}

impl<'s> ClientBody<'s> {
    pub(super) fn new(
        session: &'s mut ServerSession,
        waits_for_permission: bool,
        settings: &Settings,
    ) -> Self {
        let body_max = settings
            .body_bytes_max
            .and_then(|limit| usize::try_from(limit).ok())
            .unwrap_or(usize::MAX);
        Self {
            session,
            waits_for_permission,
            bytes_max: settings.body_buffer_bytes_max.min(body_max),
            read: None,
        }
    }

    /// The body, if somebody read or replaced it.
    pub(super) fn into_read(self) -> Option<Bytes> {
        self.read
    }

    /// Whether the connection is one that the client has closed.
    fn has_hung_up(&self) -> bool {
        let stream = self.session.stream();
        let stream = stream.and_then(|stream| stream.as_any().downcast_ref::<ClientStream>());
        stream.is_some_and(ClientStream::has_hung_up)
    }

    async fn read_all(&mut self) -> Result<Bytes, Halt> {
        if self.waits_for_permission && !self.session.is_body_done() {
            self.session
                .write_continue_response()
                .await
                .map_err(|_| client_gone())?;
        }
        let mut whole = BytesMut::new();
        loop {
            match self.session.read_request_body().await {
                Ok(Some(piece)) if whole.len() + piece.len() > self.bytes_max => {
                    return Err(receive::too_large().into());
                }
                Ok(Some(piece)) => whole.extend_from_slice(&piece),
                Ok(None) => return Ok(whole.freeze()),
                Err(error) => return Err(unreadable(&error)),
            }
        }
    }
}

#[async_trait]
impl RequestBody for ClientBody<'_> {
    async fn read(&mut self) -> Result<Bytes, Halt> {
        if self.read.is_none() {
            self.read = Some(self.read_all().await?);
        }
        Ok(self.read.clone().unwrap_or_default())
    }

    fn replace(&mut self, bytes: Bytes) {
        self.read = Some(bytes);
    }

    async fn client_left(&mut self) {
        if !matches!(self.session, ServerSession::H1(_)) {
            // A stream is given up with a frame of its own, whatever of its body is still to come.
            let _ = self.session.read_body_or_idle(true).await;
            return;
        }
        // Reading would take the body from the upstream, and not get to the end of a connection behind it.
        while !self.has_hung_up() {
            tokio::time::sleep(HANGUP_INTERVAL).await;
        }
    }
}

fn client_gone() -> Halt {
    Reply::empty(499, Reason::ClientClosed).into()
}

fn unreadable(error: &pingora_core::Error) -> Halt {
    if error.etype() == &ErrorType::ReadTimedout {
        Reply::message(408, Reason::RequestTimeout, "Request timeout").into()
    } else if failure::is_malformed(error) {
        Reply::message(400, Reason::BadRequest, "Bad request").into()
    } else {
        client_gone()
    }
}

/// Why a body could not be put back. Each is a bug of ours.
#[derive(Debug, Error)]
pub(super) enum PutBackError {
    #[error("the session is not HTTP/1")]
    NotHttp1,
    #[error("the stream is not a client stream")]
    NotOurs,
    #[error("the request was not read again: {0}")]
    Unread(Box<pingora_core::Error>),
}

/// Starts the session over with `body` as its whole, unread body.
///
/// # Errors
/// See [`PutBackError`].
pub(super) async fn put_back(
    session: &mut Session,
    exchange: &mut Exchange,
    body: Bytes,
) -> Result<(), PutBackError> {
    let headers = &mut exchange.head.headers;
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::EXPECT);
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    if let Some(stream) = &exchange.stream {
        stream.replace_body(body);
        return Ok(());
    }
    let keepalive = session.get_keepalive();
    let reuses = session.get_keepalive_reuses_remaining();
    let vacant = ServerSession::new_http1(Box::new(std::io::Cursor::new(Vec::new())));
    let stream = match std::mem::replace(session.as_downstream_mut(), vacant) {
        ServerSession::H1(http1) => http1.into_inner(),
        other => {
            *session.as_downstream_mut() = other;
            return Err(PutBackError::NotHttp1);
        }
    };
    let mut stream = stream
        .into_any()
        .downcast::<ClientStream>()
        .map_err(|_| PutBackError::NotOurs)?;
    stream.put_back(&body);
    let mut next = SessionV1::new(stream);
    next.set_pipelined_prefix(framing::stand_in(&exchange.head, &[]));
    next.read_request().await.map_err(PutBackError::Unread)?;
    *session.as_downstream_mut() = ServerSession::H1(next);
    session.set_keepalive(keepalive);
    session.set_keepalive_reuses_remaining(reuses);
    let fields = exchange.head.headers.fields();
    receive::set_limits(session, exchange, fields);
    Ok(())
}

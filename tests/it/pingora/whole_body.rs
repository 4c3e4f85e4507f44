//! Reading a whole request body before proxying, and giving it back to Pingora so that proxying
//! reads it again: Pingora itself replays no more than 64 KiB. HTTP/1 only.

use std::io::Cursor;
use std::mem;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v1::server::HttpSession as Http1Session;
use pingora_core::protocols::{Digest, Stream};
use pingora_core::{Error, ErrorType, Result};

use super::connection::Connection;

/// Reads the request's body, however it is framed. `None` if it is longer than `limit` bytes: the
/// rest is then unread, and the connection must not be used for another request.
///
/// A client that waits for `100 Continue` gets it, unless its `Content-Length` is over the limit.
pub(super) async fn read_whole_body(
    session: &mut ServerSession,
    limit: usize,
) -> Result<Option<Bytes>> {
    let announced = session
        .get_header(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Ok(None);
    }
    if session.get_header(EXPECT).is_some() && !session.is_body_done() {
        session.write_continue_response().await?;
    }
    // The announcement is a client's claim, so memory follows what really arrives.
    let mut body = BytesMut::new();
    while let Some(piece) = session.read_request_body().await? {
        if body.len() + piece.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Some(body.freeze()))
}

/// Makes `body` the request's body, unread, framed by an exact `Content-Length`. What is left of the
/// present body is dropped. May be called again before a retry, when the body has been sent already.
/// The future holds whole sessions, 5 KiB: pin it in a box.
///
/// Pingora has no way to refill a session, so the connection moves into a new one. These settings
/// cannot be read back from the old session and must be set again: the minimum send rate, ignoring
/// 1xx responses, closing before the request's end, and aborting when the client closes.
pub(super) async fn put_back_body(session: &mut ServerSession, body: &Bytes) -> Result<()> {
    if session.as_http1().is_none() {
        return Error::e_explain(
            ErrorType::InternalError,
            "only an HTTP/1 request can take its body back",
        );
    }
    session.drain_request_body().await?;

    let placeholder = ServerSession::new_http1(Box::new(Cursor::new(Vec::new())));
    let old = mem::replace(session, placeholder);
    let mut settings = Settings::of(&old);
    let mut header = old.req_header().clone();
    header.remove_header(&TRANSFER_ENCODING);
    // The client has been told to go on.
    header.remove_header(&EXPECT);
    header.insert_header(CONTENT_LENGTH, body.len())?;
    let (stream, next_request) = release(old).await?;

    let mut connection = Connection::from_stream(stream);
    if settings.pipelining {
        connection.put_back(joined(body, &next_request));
    } else {
        connection.put_back(body.clone());
        if !next_request.is_empty() {
            // Pingora drops a request that came too early; so the client must not wait for it.
            settings.keepalive = None;
        }
    }
    let mut new = ServerSession::new_http1(Box::new(connection));
    // A head that always parses, whatever has been done to the request since: only its length
    // counts, and the real one takes its place below.
    let head = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    new.set_pipelined_prefix(BytesMut::from(head.as_bytes()));
    new.read_request().await?;
    *new.req_header_mut() = header;
    settings.apply(&mut new);
    *session = new;
    Ok(())
}

/// Takes the connection out of a session whose body has been read, with what was read beyond it.
async fn release(session: ServerSession) -> Result<(Stream, BytesMut)> {
    let ServerSession::H1(mut session) = session else {
        return Error::e_explain(
            ErrorType::InternalError,
            "only HTTP/1 has a connection of its own",
        );
    };
    if !session.will_keepalive() {
        return Ok((Http1Session::into_inner(session), BytesMut::new()));
    }
    // Only a session that pipelines hands out the bytes of the next request.
    session.set_pipelining_enabled(true);
    match session.reuse().await? {
        Some(reusable) => {
            let (stream, next_request) = reusable.into_parts();
            Ok((stream, next_request.unwrap_or_default()))
        }
        None => Error::e_explain(
            ErrorType::InternalError,
            "a connection that stays open was closed",
        ),
    }
}

fn joined(body: &Bytes, next_request: &[u8]) -> Bytes {
    if next_request.is_empty() {
        return body.clone();
    }
    Bytes::from([body, next_request].concat())
}

/// What a session was told and can be asked for again.
struct Settings {
    keepalive: Option<u64>,
    reuses: Option<u32>,
    pipelining: bool,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
    digest: Option<Digest>,
}

impl Settings {
    fn of(session: &ServerSession) -> Self {
        Self {
            keepalive: session.get_keepalive(),
            reuses: session.get_keepalive_reuses_remaining(),
            pipelining: session.pipelining_enabled(),
            read_timeout: session.get_read_timeout(),
            write_timeout: session.get_write_timeout(),
            drain_timeout: session.get_total_drain_timeout(),
            digest: session.digest().cloned(),
        }
    }

    fn apply(self, session: &mut ServerSession) {
        session.set_keepalive(self.keepalive);
        session.set_keepalive_reuses_remaining(self.reuses);
        session.set_pipelining_enabled(self.pipelining);
        session.set_read_timeout(self.read_timeout);
        session.set_write_timeout(self.write_timeout);
        session.set_total_drain_timeout(self.drain_timeout);
        if let (Some(new), Some(old)) = (session.digest_mut(), self.digest) {
            *new = old;
        }
    }
}

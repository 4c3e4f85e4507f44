//! One HTTP/2 stream as Pingora's proxy sees it. Pingora has a session of its own for that; it
//! knows no time limit for bodies, answers some requests by itself, and cannot be given a body that
//! was read before.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderName, Response, StatusCode, header};
use pingora_core::{
    Error, ErrorType, OrErr, Result,
    protocols::{
        Digest,
        http::{
            HttpTask,
            body_buffer::FixedBuffer,
            custom::{CustomMessageWrite, server::Session as CustomSession},
            date::get_cached_date,
        },
        l4::socket::SocketAddr,
    },
};
use pingora_http::{RequestHeader, ResponseHeader};

use super::stream::Stream;

/// How much of a body is kept for another try, as Pingora does for HTTP/1.
const RETRY_BYTES_MAX: usize = 64 * 1024;
/// What a request ends with whose answer was complete before its body was.
pub(in crate::proxy) const ANSWERED: ErrorType =
    ErrorType::Custom("answered before the end of the request");

/// Fields that concern a connection and mean nothing in HTTP/2 (RFC 9113 §8.2.2).
const OF_CONNECTIONS: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A request and its response on one stream.
pub(super) struct Session {
    request: RequestHeader,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    send: Option<SendStream<Bytes>>,
    stream: Arc<Stream>,
    /// Status and version of the response that was begun.
    written: Option<ResponseHeader>,
    /// A response head that waits to learn whether a body follows.
    waiting: Option<Response<()>>,
    ended: bool,
    /// The end of the body on the stream was read.
    body_read: bool,
    replacement_read: bool,
    retry: Option<FixedBuffer>,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
    received: usize,
    sent: usize,
}

impl Session {
    pub(super) fn new(
        request: RequestHeader,
        body: RecvStream,
        respond: SendResponse<Bytes>,
        stream: Arc<Stream>,
    ) -> Self {
        Self {
            request,
            body,
            respond,
            send: None,
            stream,
            written: None,
            waiting: None,
            ended: false,
            body_read: false,
            replacement_read: false,
            retry: None,
            read_timeout: None,
            write_timeout: None,
            drain_timeout: None,
            received: 0,
            sent: 0,
        }
    }

    /// The next piece of the body; `None` behind the last one.
    async fn read(&mut self) -> Result<Option<Bytes>> {
        if let Some(body) = self.stream.replacement() {
            let rest = (!self.replacement_read && !body.is_empty()).then(|| body.clone());
            self.replacement_read = true;
            return Ok(rest);
        }
        let data = self.body.data();
        let piece = match self.read_timeout {
            Some(limit) => tokio::time::timeout(limit, data)
                .await
                .map_err(|_| Error::explain(ErrorType::ReadTimedout, "the body stopped"))?,
            None => data.await,
        };
        let Some(piece) = piece
            .transpose()
            .or_err(ErrorType::ReadError, "while the body was read")?
        else {
            self.body_read = true;
            return Ok(None);
        };
        self.received += piece.len();
        self.stream.count_received(piece.len());
        if let Some(retry) = &mut self.retry {
            retry.write_to_buffer(&piece);
        }
        // It fails only on a stream that has ended, where nobody waits for room.
        let _ = self.body.flow_control().release_capacity(piece.len());
        Ok(Some(piece))
    }

    /// What is here of the body of a request that was answered.
    async fn read_if_here(&mut self) -> Result<Option<Bytes>> {
        let mut read = Box::pin(self.read());
        poll_fn(|context| match Pin::new(&mut read).poll(context) {
            Poll::Pending => Poll::Ready(Err(Error::new_down(ANSWERED))),
            ready @ Poll::Ready(_) => ready,
        })
        .await
    }

    /// Waits until the client gives up the stream.
    async fn given_up(&mut self) -> Box<Error> {
        let reset = poll_fn(|context| match &mut self.send {
            Some(send) => send.poll_reset(context),
            None => self.respond.poll_reset(context),
        });
        match reset.await {
            Ok(reason) => Error::explain(
                ErrorType::ConnectionClosed,
                format!("the client reset the stream: {reason}"),
            ),
            Err(cause) => Error::because(ErrorType::ConnectionClosed, "the client is gone", cause),
        }
        .into_down()
    }

    /// Begins the response; a head that ends it goes out at once, another waits for what follows.
    fn begin(&mut self, mut head: ResponseHeader) -> Result<()> {
        if self.ended || self.written.is_some() {
            return Ok(());
        }
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Error::e_explain(ErrorType::InternalError, "HTTP/2 switches no protocols");
        }
        if head.status.is_informational() {
            return self.inform(head.status);
        }
        for name in &OF_CONNECTIONS {
            head.remove_header(name);
        }
        head.insert_header(header::DATE, get_cached_date())?;
        let mut written = ResponseHeader::build_no_case(head.status, Some(0))?;
        written.set_version(http::Version::HTTP_2);
        self.written = Some(written);
        let head = http::response::Parts::from(head);
        let bytes = head
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len());
        self.stream.count_sent(bytes.sum());
        self.waiting = Some(Response::from_parts(head, ()));
        Ok(())
    }

    /// Sends an interim response, of which only the permission to go on means something to a client
    /// of the gateway.
    fn inform(&mut self, status: StatusCode) -> Result<()> {
        if status != StatusCode::CONTINUE {
            return Ok(());
        }
        let mut response = Response::new(());
        *response.status_mut() = status;
        self.respond
            .send_informational(response)
            .or_err(ErrorType::WriteError, "while an interim response was sent")
            .map_err(Error::into_down)
    }

    /// Sends the head that waits, if one does.
    fn send_head(&mut self, end: bool) -> Result<()> {
        if let Some(head) = self.waiting.take() {
            let send = self
                .respond
                .send_response(head, end)
                .or_err(ErrorType::WriteError, "while the response head was sent")
                .map_err(Error::into_down)?;
            self.send = Some(send);
            self.ended = end;
        }
        Ok(())
    }

    /// Sends `data` as the client makes room for it.
    async fn send_data(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.send_head(end && data.is_empty())?;
        if self.ended {
            return Ok(());
        }
        let Some(send) = &mut self.send else {
            return Error::e_explain(ErrorType::InternalError, "a body comes before its head");
        };
        while !data.is_empty() {
            send.reserve_capacity(data.len());
            let room = poll_fn(|context| send.poll_capacity(context));
            let room = match self.write_timeout {
                Some(limit) => tokio::time::timeout(limit, room).await.map_err(|_| {
                    Error::explain(ErrorType::WriteTimedout, "the client takes nothing").into_down()
                })?,
                None => room.await,
            };
            let room = room
                .transpose()
                .or_err(ErrorType::WriteError, "while the body was sent")
                .map_err(Error::into_down)?
                .ok_or_else(|| {
                    Error::explain(ErrorType::WriteError, "the client is gone").into_down()
                })?;
            let piece = data.split_to(room.min(data.len()));
            self.sent += piece.len();
            self.stream.count_sent(piece.len());
            let is_last = end && data.is_empty();
            send.send_data(piece, is_last)
                .or_err(ErrorType::WriteError, "while the body was sent")
                .map_err(Error::into_down)?;
            self.ended = is_last;
        }
        if end {
            self.end()?;
        }
        Ok(())
    }

    fn send_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.send_head(false)?;
        if let Some(send) = &mut self.send
            && !self.ended
        {
            send.send_trailers(trailers)
                .or_err(ErrorType::WriteError, "while the trailers were sent")
                .map_err(Error::into_down)?;
            self.ended = true;
        }
        Ok(())
    }

    /// Ends the response, if it was begun.
    fn end(&mut self) -> Result<()> {
        self.send_head(true)?;
        if let Some(send) = &mut self.send
            && !self.ended
        {
            send.send_data(Bytes::new(), true)
                .or_err(ErrorType::WriteError, "while the end was sent")
                .map_err(Error::into_down)?;
            self.ended = true;
        }
        Ok(())
    }

    fn reset(&mut self) {
        if !self.ended {
            self.respond.send_reset(Reason::INTERNAL_ERROR);
            self.ended = true;
        }
    }

    fn has_body_ended(&self) -> bool {
        match self.stream.replacement() {
            Some(body) => self.replacement_read || body.is_empty(),
            None => self.body_read || self.body.is_end_stream(),
        }
    }

    /// Waits until a body that is announced as empty has ended: an HTTP/1 upstream would take the request
    /// for whole before. Whether it ends, and in time.
    pub(super) async fn has_no_more_than_announced(&mut self, patience: Duration) -> bool {
        let length = self.request.headers.get(header::CONTENT_LENGTH);
        let is_zero =
            length.is_some_and(|length| length.as_bytes().iter().all(|digit| *digit == b'0'));
        if !is_zero || self.body.is_end_stream() {
            return true;
        }
        self.read_timeout = Some(patience);
        while let Ok(piece) = self.read().await {
            match piece {
                None => return true,
                Some(piece) if piece.is_empty() => {}
                Some(_) => return false,
            }
        }
        false
    }
}

impl Drop for Session {
    /// Tells the client of a response that it will not get to its end.
    fn drop(&mut self) {
        self.reset();
    }
}

#[async_trait]
impl CustomSession for Session {
    fn req_header(&self) -> &RequestHeader {
        &self.request
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.read().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        // What is left of the body is refused together with the stream.
        Ok(())
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.begin(*head)?;
        if end { self.end() } else { Ok(()) }
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.write_response_header(Box::new(head.clone()), end)
            .await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.send_data(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.send_trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut ends = false;
        let more = tasks.len();
        for (place, task) in tasks.into_iter().enumerate() {
            ends |= match task {
                HttpTask::Header(head, end) => {
                    self.begin(*head)?;
                    // Nothing else may come for long.
                    if !end && place + 1 == more {
                        self.send_head(false)?;
                    }
                    end
                }
                HttpTask::Body(data, end) => {
                    let data = data.unwrap_or_default();
                    if !data.is_empty() {
                        self.send_data(data, end).await?;
                    }
                    end
                }
                HttpTask::Trailer(Some(trailers)) => {
                    self.send_trailers(*trailers)?;
                    true
                }
                HttpTask::Trailer(None) | HttpTask::Done => true,
                HttpTask::UpgradedBody(..) => {
                    return Error::e_explain(
                        ErrorType::InternalError,
                        "HTTP/2 switches no protocols",
                    );
                }
                HttpTask::Failed(error) => return Err(error),
            };
        }
        if ends {
            self.end()?;
        }
        Ok(ends)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    fn request_summary(&self) -> String {
        format!("{} {}", self.request.method, self.request.uri)
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_ref()
    }

    async fn shutdown(&mut self, _code: u32, _context: &str) {
        self.reset();
    }

    fn is_body_done(&mut self) -> bool {
        self.has_body_ended()
    }

    async fn finish(&mut self) -> Result<()> {
        self.end()
    }

    fn is_body_empty(&mut self) -> bool {
        match self.stream.replacement() {
            Some(body) => body.is_empty(),
            None => self.received == 0 && self.has_body_ended(),
        }
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.has_body_ended() {
            Err(self.given_up().await)
        } else if self.ended {
            self.read_if_here().await
        } else {
            self.read().await
        }
    }

    fn body_bytes_sent(&self) -> usize {
        self.sent
    }

    fn body_bytes_read(&self) -> usize {
        self.received
    }

    fn digest(&self) -> Option<&Digest> {
        None
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        None
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        // Asked for by sub-requests only, which the gateway does not make.
        Bytes::new()
    }

    fn enable_retry_buffering(&mut self) {
        if self.retry.is_none() {
            self.retry = Some(FixedBuffer::new(RETRY_BYTES_MAX));
        }
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.stream.replacement().is_none()
            && self.retry.as_ref().is_some_and(FixedBuffer::is_truncated)
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        match self.stream.replacement() {
            Some(body) => self.replacement_read.then(|| body.clone()),
            None => self
                .retry
                .as_ref()
                .filter(|retry| !retry.is_truncated())
                .and_then(FixedBuffer::get_buffer),
        }
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn futures_util::Stream<Item = Result<Bytes>> + Unpin + Send + Sync>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn futures_util::Stream<Item = Result<Bytes>> + Unpin + Send + Sync>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(
        &mut self,
        _writer: Box<dyn CustomMessageWrite>,
    ) -> Result<()> {
        Ok(())
    }
}

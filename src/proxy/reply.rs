//! Answers of our own. They go through the response phase like any other response.

use std::panic::AssertUnwindSafe;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora_core::Result;
use pingora_proxy::Session;

use super::{error_body, exchange::Exchange, framing, own_lines::put_spelled_line};
use crate::{
    entity::{
        message::{Headers, ResponseHead},
        reason::Reason,
    },
    plugin::{Body, Reply, Response, Source},
    state::State,
    telemetry::Telemetry,
};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-kong-request-id");
const RESPONSE_LATENCY: HeaderName = HeaderName::from_static("x-kong-response-latency");
pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(super) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The product token.
pub(super) const SERVER: HeaderValue =
    HeaderValue::from_static(concat!("tollgate/", env!("CARGO_PKG_VERSION")));

/// How many fields a reply has beside its own, and how many some plugins add.
const ADDED_FIELDS: usize = 16;

/// Writes `reply` to the client, after every plugin of the chain had its say on it.
///
/// # Errors
/// When the client is gone.
pub(super) async fn send(
    session: &mut Session,
    exchange: &mut Exchange,
    reply: Reply,
    telemetry: &Telemetry,
) -> Result<()> {
    exchange.outcome.reason = Some(reply.reason);
    exchange.outcome.source = Source::Gateway;
    exchange.outcome.status = reply.status;
    telemetry.replies(reply.reason).inc();
    if reply.reason == Reason::ClientClosed {
        session.set_keepalive(None);
        return Ok(());
    }
    let (mut head, body) = shape(exchange, reply);
    run_response_phase(exchange, &mut head, Source::Gateway, telemetry);
    let head = framing::give_response(head, exchange);
    let ends_here = body.is_empty() || exchange.head.method == http::Method::HEAD;
    session
        .write_response_header(Box::new(head), ends_here)
        .await?;
    if !ends_here {
        session.write_response_body(Some(body), true).await?;
    } else if session.as_downstream().is_custom() {
        // Nothing follows the head of a stream, and not always does Pingora say so.
        session.as_downstream_mut().finish_body().await?;
    }
    Ok(())
}

/// Head and body of a reply to what never became a request.
pub(super) fn refusal(
    exchange: &mut Exchange,
    reply: Reply,
    telemetry: &Telemetry,
) -> (ResponseHead, Bytes) {
    exchange.outcome.reason = Some(reply.reason);
    exchange.outcome.status = reply.status;
    telemetry.replies(reply.reason).inc();
    let (mut head, body) = shape(exchange, reply);
    run_response_phase(exchange, &mut head, Source::Gateway, telemetry);
    (head, body)
}

/// A reply as bytes for a connection without a request, which it closes.
pub(super) fn raw(exchange: &mut Exchange, reply: Reply, state: &State) -> BytesMut {
    let (head, body) = refusal(exchange, reply, &state.telemetry);
    let mut bytes = BytesMut::with_capacity(512);
    bytes.extend_from_slice(format!("HTTP/1.1 {}\r\n", head.status).as_bytes());
    bytes.extend_from_slice(
        format!(
            "Date: {}\r\n",
            httpdate::fmt_http_date(state.clock.system_time())
        )
        .as_bytes(),
    );
    for (name, value) in head.headers.iter() {
        put_spelled_line(&mut bytes, name, value);
    }
    bytes.extend_from_slice(b"Connection: close\r\n\r\n");
    bytes.extend_from_slice(&body);
    bytes
}

/// Runs the response phase of the request's chain, those links included that `access` did not
/// reach. A panic costs the plugins' changes, not the response.
pub(super) fn run_response_phase(
    exchange: &mut Exchange,
    head: &mut ResponseHead,
    source: Source,
    telemetry: &Telemetry,
) {
    let chain = exchange.chain();
    let Exchange {
        snapshot,
        run,
        identity,
        outcome,
        ..
    } = exchange;
    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| {
        snapshot.chain(chain).complete(
            &snapshot.instances,
            run,
            &snapshot.consumers,
            identity.consumer,
        );
        let mut response = Response::new(head, source, outcome.reason);
        run.response(&snapshot.instances, &mut response);
    }));
    if ran.is_err() {
        telemetry.panicked();
    }
}

/// The head and body of a reply, before the plugins had their say.
pub(super) fn shape(exchange: &Exchange, reply: Reply) -> (ResponseHead, Bytes) {
    let settings = &exchange.snapshot.settings;
    // A reply that has its status of gRPC is in form; who does not speak HTTP/2 has no gRPC.
    let grpc = crate::plugin::is_grpc(&exchange.head.headers)
        && reply.reason != Reason::Http2Required
        && !reply.headers.iter().any(|(name, _)| *name == GRPC_STATUS);
    let status = if grpc { 200 } else { reply.status };
    let mut headers = Headers::with_capacity(ADDED_FIELDS + reply.headers.len());
    let mut set = |name: HeaderName, value: HeaderValue| headers.append(name, value);
    let body = match reply.body {
        body if grpc => {
            let (code, message) = error_body::grpc_status(reply.status, &body);
            set(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/grpc"),
            );
            set(GRPC_STATUS, code.into());
            set(GRPC_MESSAGE, message);
            Bytes::new()
        }
        Body::Message(message) => {
            let form = error_body::form(
                exchange.head.headers.get(header::ACCEPT),
                error_body::default_form(reply.reason, settings.error_type),
            );
            set(header::CONTENT_TYPE, error_body::content_type(form));
            error_body::format(
                form,
                &settings.error_templates,
                &message,
                exchange.id.as_str(),
            )
        }
        Body::Raw {
            content_type,
            bytes,
        } => {
            set(header::CONTENT_TYPE, content_type);
            bytes
        }
        Body::Empty => Bytes::new(),
    };
    if !matches!(reply.status, 204 | 304) {
        set(header::CONTENT_LENGTH, body.len().into());
    }
    if settings.tokens.server {
        set(header::SERVER, SERVER);
    }
    if settings.tokens.response_latency {
        let elapsed = exchange.began.elapsed().as_millis();
        set(
            RESPONSE_LATENCY,
            u64::try_from(elapsed).unwrap_or(u64::MAX).into(),
        );
    }
    if settings.tokens.request_id {
        set(REQUEST_ID, request_id(exchange));
    }
    for (name, value) in reply.headers {
        set(name, value);
    }
    let head = ResponseHead {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        headers,
        ..ResponseHead::default()
    };
    (head, body)
}

/// The request's id as a header value.
pub(super) fn request_id(exchange: &Exchange) -> HeaderValue {
    HeaderValue::from_bytes(exchange.id.as_bytes()).expect("hex digits are visible ASCII")
}

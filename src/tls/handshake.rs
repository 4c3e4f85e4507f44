//! From an accepted socket to a TLS connection. Deadlines are the caller's.

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use openssl::{
    ex_data::Index,
    ssl::{ErrorCode, Ssl, SslRef},
};
use tokio::{io::AsyncReadExt, net::TcpStream};

use super::{
    certificates::Chosen,
    facts::TlsFacts,
    hello::{self, Hello},
    stream::{Replayed, SecureStream},
};
use crate::telemetry::handshakes::HandshakeFailure;

/// How much room a `ClientHello` gets at first; most fit.
const HELLO_BYTES: usize = 2048;

/// What a listener speaks over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offer {
    #[default]
    Http1,
    /// HTTP/2, and HTTP/1 beside it.
    Http2,
    /// Nothing that the gateway knows of: the protocol is between client and upstream.
    Opaque,
}

/// How the beginning of a connection ended.
#[derive(Debug)]
pub enum Opened {
    Secure(Box<SecureStream>, Box<TlsFacts>),
    /// The client speaks HTTP without TLS; its first bytes are gone.
    Cleartext(TcpStream),
    Failed(Failed),
}

/// Why there is no TLS connection.
#[derive(Debug)]
pub struct Failed {
    pub failure: HandshakeFailure,
    /// What OpenSSL says, for the log.
    pub detail: String,
}

/// A `ClientHello` that was read and that nobody answered yet.
#[derive(Debug)]
pub struct Greeting {
    server_name: Option<Box<str>>,
    read: Bytes,
}

/// What a client began with.
#[derive(Debug)]
pub enum Greeted {
    Hello(Greeting),
    /// HTTP without TLS.
    Cleartext,
    Failed(Failed),
}

impl Greeting {
    /// The name that the client asks for, in lower case.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// `tcp` as if nothing had been read from it.
    pub fn replay(self, tcp: TcpStream) -> Replayed {
        Replayed::new(self.read, tcp)
    }
}

/// Reads what the client asks for.
pub async fn greet(tcp: &mut TcpStream) -> Greeted {
    let mut read = BytesMut::with_capacity(HELLO_BYTES);
    let fail = |failure, detail: &str| {
        Greeted::Failed(Failed {
            failure,
            detail: detail.to_owned(),
        })
    };
    let server_name = loop {
        match hello::read(&read) {
            Hello::Complete(name) => break name,
            Hello::Foreign if read.first().is_some_and(u8::is_ascii_uppercase) => {
                return Greeted::Cleartext;
            }
            Hello::Foreign => {
                return fail(HandshakeFailure::NotTls, "the first byte is not one of TLS");
            }
            Hello::Unfinished if read.len() > hello::HELLO_BYTES_MAX => {
                return fail(HandshakeFailure::Protocol, "the ClientHello is too long");
            }
            Hello::Unfinished => {}
        }
        read.reserve(HELLO_BYTES);
        match tcp.read_buf(&mut read).await {
            Ok(0) => return fail(HandshakeFailure::Closed, "the client closed"),
            Ok(_) => {}
            Err(error) => return fail(HandshakeFailure::Closed, &error.to_string()),
        }
    };
    Greeted::Hello(Greeting {
        server_name,
        read: read.freeze(),
    })
}

/// Reads what the client asks for, lets `choose` pick a certificate by the name, and shakes hands.
pub async fn open(
    mut tcp: TcpStream,
    offer: Offer,
    choose: impl FnOnce(Option<&str>) -> Option<Chosen>,
) -> Opened {
    match greet(&mut tcp).await {
        Greeted::Hello(greeting) => {
            let chosen = choose(greeting.server_name());
            answer(tcp, greeting, offer, chosen).await
        }
        Greeted::Cleartext => Opened::Cleartext(tcp),
        Greeted::Failed(failed) => Opened::Failed(failed),
    }
}

/// Shakes hands with a client that has greeted.
pub async fn answer(
    tcp: TcpStream,
    greeting: Greeting,
    offer: Offer,
    chosen: Option<Chosen>,
) -> Opened {
    let Some(chosen) = chosen else {
        return failed(HandshakeFailure::NoCertificate, "there is no certificate");
    };
    let Greeting { server_name, read } = greeting;
    let stream = Ssl::new(&chosen.context).and_then(|mut ssl| {
        ssl.set_ex_data(*OFFER, offer);
        SecureStream::new(ssl, tcp, read)
    });
    let mut stream = match stream {
        Ok(stream) => Box::new(stream),
        Err(error) => return failed(HandshakeFailure::Internal, &error),
    };
    if let Err(error) = stream.accept().await {
        return Opened::Failed(Failed {
            failure: failure_of(&error),
            detail: detail_of(&error),
        });
    }
    match TlsFacts::of(stream.ssl(), server_name, chosen.rules) {
        Some(facts) => Opened::Secure(stream, Box::new(facts)),
        None => failed(
            HandshakeFailure::ClientCertificate,
            "the client's certificate cannot be described",
        ),
    }
}

fn failed(failure: HandshakeFailure, detail: &(impl ToString + ?Sized)) -> Opened {
    Opened::Failed(Failed {
        failure,
        detail: detail.to_string(),
    })
}

static OFFER: LazyLock<Index<Ssl, Offer>> =
    LazyLock::new(|| Ssl::new_ex_index().expect("OpenSSL has room for one more index"));

/// What the listener of this handshake speaks.
pub(super) fn offer_of(ssl: &SslRef) -> Offer {
    ssl.ex_data(*OFFER).copied().unwrap_or_default()
}

fn failure_of(error: &openssl::ssl::Error) -> HandshakeFailure {
    if matches!(error.code(), ErrorCode::SYSCALL | ErrorCode::ZERO_RETURN) {
        return HandshakeFailure::Closed;
    }
    let reasons = error.ssl_error().map(openssl::error::ErrorStack::errors);
    let reason = reasons
        .and_then(|errors| errors.iter().rev().find_map(openssl::error::Error::reason))
        .unwrap_or_default();
    match reason {
        "peer did not return a certificate" | "certificate verify failed" => {
            HandshakeFailure::ClientCertificate
        }
        "unexpected eof while reading" => HandshakeFailure::Closed,
        reason if reason.contains("alert") => HandshakeFailure::RefusedByClient,
        "no shared cipher"
        | "unsupported protocol"
        | "no protocols available"
        | "no application protocol"
        | "no suitable key share"
        | "no suitable signature algorithm"
        | "no shared signature algorithms" => HandshakeFailure::NothingInCommon,
        _ => HandshakeFailure::Protocol,
    }
}

fn detail_of(error: &openssl::ssl::Error) -> String {
    let reasons = error.ssl_error().map(openssl::error::ErrorStack::errors);
    match reasons.and_then(|errors| errors.iter().find_map(openssl::error::Error::reason)) {
        Some(reason) => reason.to_owned(),
        None => error
            .io_error()
            .map_or_else(|| "the client closed".to_owned(), ToString::to_string),
    }
}

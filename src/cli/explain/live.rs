//! Asks the admin listener of a running process for an explanation.

use std::{io, time::Duration};

use axum::body::{Body, to_bytes};
use http::{Request, StatusCode, Uri, header, uri::Scheme};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use thiserror::Error;
use tokio::{net::TcpStream, runtime::Builder, time::timeout};

use crate::explain::{Explanation, Question};

/// How long the whole exchange may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than an explanation with ten thousand routes has.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why the running process gave no explanation.
#[derive(Debug, Error)]
pub(super) enum AskError {
    #[error("`{0}` is no address of an admin listener; write http://HOST:PORT")]
    Address(String),
    /// What stands before the `@` may be a password, so none of it is shown.
    #[error("there is a user name or password in the URL of `--admin`; write http://HOST:PORT")]
    Credentials,
    #[error("the runtime cannot be started")]
    Runtime(#[source] io::Error),
    #[error("cannot connect to {address}; is it the address in `gateway.admin`, and does it run?")]
    Connect {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("the connection to {0} failed")]
    Exchange(String, #[source] hyper::Error),
    #[error("{0} did not answer within 30 s")]
    Timeout(String),
    #[error("{message}")]
    Refused { message: String },
    #[error("{0} is not an admin listener of this version: it answered {1}")]
    Stranger(String, StatusCode),
    #[error("{0} answered with something that is no explanation")]
    Answer(String, #[source] serde_json::Error),
    #[error("the answer of {0} broke off")]
    Body(String, #[source] axum::Error),
}

/// Asks the process at `admin`.
pub(super) fn ask(admin: &str, question: &Question) -> Result<Explanation, AskError> {
    if admin.contains('@') {
        return Err(AskError::Credentials);
    }
    let address = address(admin).ok_or_else(|| AskError::Address(admin.to_owned()))?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AskError::Runtime)?;
    runtime.block_on(async {
        timeout(PATIENCE, exchange(&address, question))
            .await
            .map_err(|_| AskError::Timeout(address.clone()))?
    })
}

/// `HOST:PORT` of an http URL without a path.
fn address(admin: &str) -> Option<String> {
    let uri: Uri = admin.parse().ok()?;
    let is_plain = uri.scheme() == Some(&Scheme::HTTP) && matches!(uri.path(), "" | "/");
    let host = uri.host().filter(|_| is_plain && uri.query().is_none())?;
    Some(format!("{host}:{}", uri.port_u16().unwrap_or(80)))
}

async fn exchange(address: &str, question: &Question) -> Result<Explanation, AskError> {
    let failed = |error| AskError::Exchange(address.to_owned(), error);
    let stream = TcpStream::connect(address)
        .await
        .map_err(|source| AskError::Connect {
            address: address.to_owned(),
            source,
        })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    // Its end shows in the answer.
    tokio::spawn(connection);
    let question = serde_json::to_vec(question).expect("a question is plain data");
    let request = Request::post("/explain")
        .header(header::HOST, address)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(question))
        .expect("host and port of a URI make a header");
    let answer = sender.send_request(request).await.map_err(failed)?;
    let status = answer.status();
    let body = to_bytes(Body::new(answer.into_body()), ANSWER_BYTES_MAX)
        .await
        .map_err(|error| AskError::Body(address.to_owned(), error))?;
    match status {
        StatusCode::OK => serde_json::from_slice(&body)
            .map_err(|error| AskError::Answer(address.to_owned(), error)),
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => {
            #[derive(Deserialize)]
            struct Refusal {
                message: String,
            }
            let Refusal { message } = serde_json::from_slice(&body)
                .map_err(|error| AskError::Answer(address.to_owned(), error))?;
            Err(AskError::Refused { message })
        }
        other => Err(AskError::Stranger(address.to_owned(), other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_the_url_is_refused_and_not_repeated() {
        let question: Question =
            serde_json::from_str(r#"{"method": "GET", "url": "/"}"#).expect("a question");
        for admin in ["http://user:secret@127.0.0.1:1", "https://user:secret@a:1"] {
            let error = ask(admin, &question).expect_err("it is refused");
            assert!(matches!(error, AskError::Credentials), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_admin_listener_is_an_http_url_without_a_path() {
        assert_eq!(
            address("http://127.0.0.1:8001").as_deref(),
            Some("127.0.0.1:8001")
        );
        assert_eq!(address("http://[::1]:8001/").as_deref(), Some("[::1]:8001"));
        assert_eq!(address("http://admin").as_deref(), Some("admin:80"));
        for wrong in [
            "",
            "127.0.0.1:8001",
            "https://a:1",
            "http://a/b",
            "http://a/?b",
        ] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }
}

//! Asks the admin listener of a running process for an explanation.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::runtime::Builder;

use crate::client::{Base, Client, Failure};

/// How long the whole exchange may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the running process gave no explanation.
#[derive(Debug, Error)]
pub(super) enum AskError {
    /// What is wrong with the URL, without what may be a password in it.
    #[error("--admin: {0}")]
    Address(String),
    #[error("the runtime cannot be started")]
    Runtime(#[source] io::Error),
    #[error("{0}; is the address that of `gateway.admin`, and does it run?")]
    Exchange(Failure),
    #[error("{message}")]
    Refused { message: String },
    #[error("{0} is not an admin listener of this version: it answered {1}")]
    Stranger(String, StatusCode),
    #[error("{0} answered with something that is no explanation")]
    Answer(String, #[source] serde_json::Error),
}

/// Asks the process at `admin` by its endpoint at `path`.
pub(super) fn ask<A: DeserializeOwned>(
    admin: &str,
    path: &str,
    question: &impl Serialize,
) -> Result<A, AskError> {
    let base: Base = admin.parse().map_err(AskError::Address)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AskError::Runtime)?;
    runtime.block_on(exchange(base, path, question))
}

async fn exchange<A: DeserializeOwned>(
    base: Base,
    path: &str,
    question: &impl Serialize,
) -> Result<A, AskError> {
    let place = base.authority.clone();
    let question = serde_json::to_vec(question).expect("a question is plain data");
    let request = Request::post(base.target(path))
        .header(header::HOST, &place)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(question)))
        .expect("path and place of a URL make a request");
    let answer = Client::new(base, PATIENCE).send(request).await;
    let answer = answer.map_err(AskError::Exchange)?;
    let unreadable = |error| AskError::Answer(place.clone(), error);
    match answer.status {
        StatusCode::OK => serde_json::from_slice(&answer.body).map_err(unreadable),
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => {
            #[derive(Deserialize)]
            struct Refusal {
                message: String,
            }
            let Refusal { message } = serde_json::from_slice(&answer.body).map_err(unreadable)?;
            Err(AskError::Refused { message })
        }
        other => Err(AskError::Stranger(place, other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::{Explanation, Question};

    #[test]
    fn a_password_in_the_url_is_refused_and_not_repeated() {
        let question: Question =
            serde_json::from_str(r#"{"method": "GET", "url": "/"}"#).expect("a question");
        for admin in ["http://user:secret@127.0.0.1:1", "https://user:secret@a:1"] {
            let answer: Result<Explanation, _> = ask(admin, "/explain", &question);
            let error = answer.expect_err("it is refused");
            assert!(matches!(error, AskError::Address(_)), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}

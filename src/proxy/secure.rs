//! The beginning of a TLS connection: the handshake within its deadline, counted and, now and then, logged.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{net::TcpStream, time::Instant};
use tracing::{debug, info};

use super::{
    Gateway,
    connection::{Arrival, LAST_CALL},
    drain::Open,
};
use crate::{
    telemetry::handshakes::HandshakeFailure,
    tls::{self, Failed, Offer, Opened, SecureStream, TlsFacts},
};

/// How often a kind of failure is told.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// When each kind of failure was last told.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<[Option<Instant>; HandshakeFailure::ALL.len()]>);

/// What became of a connection to a TLS port.
pub(super) enum Beginning {
    Secure(Box<SecureStream>, Box<TlsFacts>),
    /// HTTP came without TLS; there is an answer for that.
    Cleartext(TcpStream),
    Over,
}

/// Shakes hands, unless it takes longer than a request head may, or the process wants to end.
pub(super) async fn begin(
    gateway: &Gateway,
    tcp: TcpStream,
    arrival: &Arrival,
    open: &Open,
    told: &Told,
) -> Beginning {
    let word = open.asked_to_close();
    tokio::pin!(word);
    word.as_mut().enable();
    let offer = if arrival.terms.dialect.http2 {
        Offer::Http2
    } else {
        Offer::Http1
    };
    let patience = gateway.live.look().settings.header_timeout;
    let choose = |name: Option<&str>| gateway.live.look().certificates.choose(name).cloned();
    let asked = async {
        if !gateway.drain.is_draining() {
            word.await;
        }
        // Others are asked to make room for new ones, and go at once.
        if gateway.drain.is_draining() {
            tokio::time::sleep(LAST_CALL).await;
        }
    };
    let opened = tokio::select! {
        opened = tls::open(tcp, offer, choose) => opened,
        () = tokio::time::sleep(patience) => Opened::Failed(Failed {
            failure: HandshakeFailure::Timeout,
            detail: "the handshake did not end in time".to_owned(),
        }),
        () = asked => return Beginning::Over,
    };
    let handshakes = gateway.state.telemetry.handshakes();
    match opened {
        Opened::Secure(stream, facts) => {
            handshakes.succeeded(facts.resumed);
            Beginning::Secure(stream, facts)
        }
        Opened::Cleartext(tcp) => {
            handshakes.failed(HandshakeFailure::Cleartext);
            Beginning::Cleartext(tcp)
        }
        Opened::Failed(Failed { failure, detail }) => {
            handshakes.failed(failure);
            let client = tracing::field::display(arrival.peer.ip().to_canonical());
            // Whoever only looks whether the port is open closes without a word.
            if failure != HandshakeFailure::Closed && told.is_due(failure) {
                info!(
                    client_ip = client,
                    reason = failure.code(),
                    detail,
                    "TLS handshake failed; others like it are counted"
                );
            } else {
                debug!(
                    client_ip = client,
                    reason = failure.code(),
                    detail,
                    "TLS handshake failed"
                );
            }
            Beginning::Over
        }
    }
}

impl Told {
    /// Whether a failure of this kind may be told now.
    fn is_due(&self, failure: HandshakeFailure) -> bool {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = times.get_mut(failure as usize) else {
            return false;
        };
        let now = Instant::now();
        let is_due = last.is_none_or(|last| now - last >= LOG_INTERVAL);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_kind_of_failure_is_told_once_in_a_while() {
        let told = Told::default();
        assert!(told.is_due(HandshakeFailure::NotTls));
        assert!(!told.is_due(HandshakeFailure::NotTls));
        assert!(told.is_due(HandshakeFailure::Timeout));
        tokio::time::advance(LOG_INTERVAL).await;
        assert!(told.is_due(HandshakeFailure::NotTls));
    }
}

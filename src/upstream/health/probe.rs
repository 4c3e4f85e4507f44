//! One probe: a connection, or a GET or a call of gRPC over a connection of its own, and what that
//! showed.

use std::{fmt, net::SocketAddr, sync::OnceLock};

use http::{HeaderValue, StatusCode, header};
use pingora_core::{
    Error, ErrorType, Result,
    connectors::http::{v1, v2},
};
use pingora_http::RequestHeader;
use pingora_load_balancing::{
    Backend,
    health_check::{HealthCheck, TcpHealthCheck},
};

use super::{
    checks::{Active, Ask, HttpAsk},
    finding_of, grpc,
};
use crate::{state::health::Finding, upstream::target::Called};

/// What connections are made with. Making one reads all certificates of the system (some 15 ms), so
/// the process has one of each, once it is needed. For the same reason Pingora's `HttpHealthCheck`
/// is not used: it has a connector and a `Host` of its own, so each target would need one (25 ms and
/// 1.7 MB).
#[derive(Default)]
pub(super) struct Connectors {
    http: OnceLock<v1::Connector>,
    http2: OnceLock<v2::Connector>,
    tcp: OnceLock<TcpHealthCheck>,
}

impl fmt::Debug for Connectors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connectors").finish_non_exhaustive()
    }
}

impl Connectors {
    /// Probes the member at `address`, which is called so. `None` if the answer counts for nothing.
    pub(super) async fn probe(
        &self,
        active: &Active,
        called: &Called,
        address: SocketAddr,
    ) -> Option<Finding> {
        let probe = Box::pin(async {
            match &active.ask {
                Ask::Tcp => self
                    .connect(address)
                    .await
                    .map(|()| Some(Finding::Connected)),
                Ask::Http(ask) => {
                    let status = self.get(ask, called, address).await?;
                    Ok(ask.statuses.judge(status.as_u16()))
                }
                Ask::Grpc(ask) => {
                    let connector = self.http2.get_or_init(|| v2::Connector::new(None));
                    let host = ask.envelope.host(called);
                    let peer = ask.envelope.peer(called, address);
                    let check = grpc::check(connector, peer, ask, host);
                    Box::pin(check).await.map(Some)
                }
            }
        });
        match tokio::time::timeout(active.timeout, probe).await {
            Ok(Ok(finding)) => finding,
            Ok(Err(error)) => finding_of_probe(&error),
            Err(_) => Some(Finding::TimedOut),
        }
    }

    async fn connect(&self, address: SocketAddr) -> Result<()> {
        let tcp = self.tcp.get_or_init(|| {
            let mut tcp = TcpHealthCheck::default();
            // The whole probe has a time limit already.
            tcp.peer_template.options.connection_timeout = None;
            tcp
        });
        tcp.check(&Backend::new(&address.to_string())?).await
    }

    /// The status of the answer, which is not read further. Redirects are not followed.
    async fn get(&self, ask: &HttpAsk, called: &Called, address: SocketAddr) -> Result<StatusCode> {
        let request = request(ask, called)?;
        let peer = ask.envelope.peer(called, address);
        let connector = self.http.get_or_init(|| v1::Connector::new(None));
        let (mut connection, _) = connector.get_http_session(&peer).await?;
        if let Some(tls) = &ask.envelope.tls {
            tls.tls.check(Some(connection.digest()))?;
        }
        connection.write_request_header(Box::new(request)).await?;
        loop {
            connection.read_response().await?;
            match connection.get_status() {
                Some(status) if status.is_informational() => {}
                Some(status) => return Ok(status),
                None => return Err(Error::new(ErrorType::InvalidHTTPHeader)),
            }
        }
    }
}

/// Of a probe everything counts that kept the answer from coming, also what is not HTTP, but not
/// what is wrong on this machine.
fn finding_of_probe(error: &Error) -> Option<Finding> {
    match error.etype() {
        ErrorType::InvalidHTTPHeader => Some(Finding::Broken("not http")),
        ErrorType::InvalidH2 | ErrorType::H2Downgrade => Some(Finding::Broken("not http/2")),
        etype => finding_of(etype),
    }
}

fn request(ask: &HttpAsk, called: &Called) -> Result<RequestHeader> {
    let mut request = RequestHeader::build("GET", ask.path.as_bytes(), None)?;
    request.insert_header(header::HOST, ask.envelope.host(called))?;
    request.insert_header(header::CONNECTION, HeaderValue::from_static("close"))?;
    ask.envelope.set_headers(&mut request)?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use http::HeaderMap;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::{
        tls::UpstreamTls,
        upstream::{
            health::checks::{Envelope, Intervals, Statuses, TlsAsk},
            target::tests::target,
        },
    };

    fn ask() -> HttpAsk {
        HttpAsk {
            envelope: Envelope {
                tls: None,
                host: None,
                headers: HeaderMap::new(),
            },
            path: "/ready".into(),
            statuses: Statuses::new(vec![200], vec![500]),
        }
    }

    fn active(ask: Ask, timeout: Duration) -> Active {
        Active {
            ask,
            timeout,
            concurrency: 1,
            intervals: Intervals::default(),
            limits: crate::state::health::Limits::default(),
        }
    }

    /// Answers one connection with these bytes; gives what was asked.
    async fn answering(bytes: &'static [u8]) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n")
                && stream.read_buf(&mut head).await.expect("read") > 0
            {}
            stream.write_all(bytes).await.expect("written");
            String::from_utf8(head).expect("text")
        });
        (address, served)
    }

    async fn probe(active: &Active, address: SocketAddr) -> Option<Finding> {
        Connectors::default()
            .probe(active, &target(1).called, address)
            .await
    }

    #[tokio::test]
    async fn a_get_shows_the_final_status_without_reading_on() {
        let active = active(Ask::Http(Box::new(ask())), Duration::from_secs(5));
        let (address, served) = answering(
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 9999\r\n\r\n",
        )
        .await;
        assert_eq!(probe(&active, address).await, Some(Finding::BadStatus(500)));
        let head = served.await.expect("served");
        assert!(head.starts_with("GET /ready HTTP/1.1\r\n"), "{head}");
        assert!(
            head.to_lowercase().contains("\r\nhost: 127.0.0.1\r\n"),
            "{head}"
        );
    }

    #[tokio::test]
    async fn a_status_in_no_list_and_a_redirect_count_for_nothing() {
        let active = active(Ask::Http(Box::new(ask())), Duration::from_secs(5));
        let (address, _served) =
            answering(b"HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(probe(&active, address).await, None);
    }

    #[tokio::test]
    async fn a_closed_port_refuses_and_garbage_is_not_http() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        for ask in [Ask::Tcp, Ask::Http(Box::new(ask()))] {
            let active = active(ask, Duration::from_secs(5));
            assert_eq!(
                probe(&active, address).await,
                Some(Finding::Broken("connection refused"))
            );
        }
        let active = active(Ask::Http(Box::new(ask())), Duration::from_secs(5));
        let (address, _served) = answering(b"SSH-2.0-garbage\r\n\r\n").await;
        assert!(matches!(
            probe(&active, address).await,
            Some(Finding::Broken(_))
        ));
    }

    #[tokio::test]
    async fn silence_is_a_timeout_for_a_get_and_nothing_to_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let get = active(Ask::Http(Box::new(ask())), Duration::from_millis(50));
        assert_eq!(probe(&get, address).await, Some(Finding::TimedOut));
        let tcp = active(Ask::Tcp, Duration::from_secs(5));
        assert_eq!(probe(&tcp, address).await, Some(Finding::Connected));
    }

    #[test]
    fn configured_headers_replace_those_that_are_sent_by_default() {
        let mut ask = ask();
        ask.envelope.host = Some(HeaderValue::from_static("a.test"));
        let headers = &mut ask.envelope.headers;
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static("2"));
        headers.append(header::USER_AGENT, HeaderValue::from_static("probe"));
        let request = request(&ask, &target(1).called).expect("a request");
        let values = |name: &str| -> Vec<_> { request.headers.get_all(name).iter().collect() };
        assert_eq!(values("host"), ["a.test"]);
        assert_eq!(values("user-agent"), ["probe"]);
        assert_eq!(values("x-a"), ["1", "2"]);
    }

    #[test]
    fn a_member_is_called_in_probes_as_in_requests() {
        let request = request(&ask(), &Called::new("a.test", 8080)).expect("a request");
        let host = request.headers.get(header::HOST);
        assert_eq!(host, Some(&HeaderValue::from_static("a.test:8080")));
    }

    #[test]
    fn the_server_name_is_the_configured_one_else_the_host() {
        let mut ask = ask();
        ask.envelope.host = Some(HeaderValue::from_static("a.test:8443"));
        let address = SocketAddr::from(([127, 0, 0, 1], 443));
        let mut name = |server_name: Option<&str>| {
            ask.envelope.tls = Some(TlsAsk {
                server_name: server_name.map(str::to_owned),
                tls: Arc::new(UpstreamTls::new(None, None)),
            });
            ask.envelope.peer(&target(1).called, address).sni
        };
        assert_eq!(name(None), "a.test");
        assert_eq!(name(Some("b.test")), "b.test");
    }
}

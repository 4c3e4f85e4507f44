//! The server under the admin listener: HTTP/1 with limits that no client can wear out. Only the
//! operator's own network should reach it, but nothing relies on that.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

/// What one client may use up.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most connections at a time; further ones wait in the backlog.
    pub connections_max: usize,
    /// The longest wait for a request head, also between two requests.
    pub head: Duration,
    /// The longest life of a connection; the request it is at may finish.
    pub connection: Duration,
    /// How long a request may take to finish when its connection or the process is to end.
    pub finish: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 128,
            head: Duration::from_secs(10),
            connection: Duration::from_mins(5),
            finish: Duration::from_secs(5),
        }
    }
}

/// How long to wait after the system gave no connection, as when it is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `shutdown` says `true` or is gone, and then until the
/// requests in flight are answered, within their limit.
pub async fn run(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = JoinSet::new();
    let mut stop = pin!(stopped(shutdown.clone()));
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &places) => accepted,
        };
        // What has ended already is not kept.
        while connections.try_join_next().is_some() {}
        let Some((stream, place)) = accepted else {
            continue;
        };
        let connection = serve_connection(stream, router.clone(), limits, shutdown.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Waits for a place and then for a connection; `None` after an error of the system.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            warn!(%error, "admin listener cannot accept a connection");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    shutdown: watch::Receiver<bool>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = sleep(limits.connection) => None,
        () = stopped(shutdown) => None,
    };
    let ended = if let Some(ended) = ended {
        Ok(ended)
    } else {
        connection.as_mut().graceful_shutdown();
        timeout(limits.finish, connection).await
    };
    if let Ok(Err(error)) = ended {
        debug!(%error, "admin connection ended");
    }
}

/// Completes when the process is to end.
async fn stopped(mut shutdown: watch::Receiver<bool>) {
    // An error means that nobody is left who could say so, which says it too.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::Notify,
        task::JoinHandle,
    };

    use super::*;

    const LIMITS: Limits = Limits {
        connections_max: 2,
        head: Duration::from_millis(200),
        connection: Duration::from_secs(10),
        finish: Duration::from_secs(5),
    };
    /// Far longer than any limit above that a test waits for.
    const DEADLINE: Duration = Duration::from_secs(5);

    struct Server {
        address: SocketAddr,
        stop: watch::Sender<bool>,
        running: JoinHandle<()>,
        /// A request for `/slow` arrived, and may be answered.
        arrived: Arc<Notify>,
        released: Arc<Notify>,
    }

    async fn start(limits: Limits) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (stop, shutdown) = watch::channel(false);
        let (arrived, released) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (at_arrival, at_release) = (Arc::clone(&arrived), Arc::clone(&released));
        let slow = async move || {
            at_arrival.notify_one();
            at_release.notified().await;
            "done"
        };
        let router = Router::new()
            .route("/", get(async || "hello"))
            .route("/slow", get(slow));
        let running = tokio::spawn(run(listener, router, limits, shutdown));
        Server {
            address,
            stop,
            running,
            arrived,
            released,
        }
    }

    async fn connect(server: &Server) -> TcpStream {
        TcpStream::connect(server.address).await.expect("connected")
    }

    /// Everything until the server closes.
    async fn rest(mut stream: TcpStream) -> String {
        let mut bytes = Vec::new();
        timeout(DEADLINE, stream.read_to_end(&mut bytes))
            .await
            .expect("the server closes")
            .expect("bytes");
        String::from_utf8(bytes).expect("UTF-8")
    }

    async fn visit(server: &Server, path: &str) -> String {
        let mut stream = connect(server).await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        rest(stream).await
    }

    #[tokio::test]
    async fn a_client_that_sends_nothing_is_closed() {
        let server = start(LIMITS).await;
        let _ = rest(connect(&server).await).await;
    }

    #[tokio::test]
    async fn a_client_that_sends_half_a_head_is_closed() {
        let server = start(LIMITS).await;
        let mut stream = connect(&server).await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHo")
            .await
            .expect("sent");
        let _ = rest(stream).await;
    }

    #[tokio::test]
    async fn a_client_that_is_idle_between_requests_is_closed() {
        let server = start(LIMITS).await;
        let mut stream = connect(&server).await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .expect("sent");
        assert!(rest(stream).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn a_connection_does_not_live_for_ever() {
        let server = start(Limits {
            head: DEADLINE * 2,
            connection: Duration::from_millis(100),
            ..LIMITS
        })
        .await;
        let _ = rest(connect(&server).await).await;
    }

    #[tokio::test]
    async fn silent_clients_cannot_keep_others_out_for_long() {
        let server = start(LIMITS).await;
        let _silent = [connect(&server).await, connect(&server).await];
        assert!(visit(&server, "/").await.ends_with("hello"));
    }

    #[tokio::test]
    async fn a_request_in_flight_is_answered_when_the_process_ends() {
        let server = start(LIMITS).await;
        let mut stream = connect(&server).await;
        stream
            .write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .expect("sent");
        server.arrived.notified().await;
        server.stop.send(true).expect("the server runs");
        server.released.notify_one();
        assert!(rest(stream).await.ends_with("done"));
        timeout(DEADLINE, server.running)
            .await
            .expect("the server ends")
            .expect("no panic");
    }
}

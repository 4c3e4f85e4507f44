//! Runs a server application of Pingora on a loopback port, without Pingora's own server around it.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::ServerApp;
use pingora_core::protocols::l4::stream::Stream as TcpConnection;
use pingora_core::protocols::{GetSocketDigest, SocketDigest, Stream};
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{HttpProxy, ProxyHttp, http_proxy};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::harness::{Client, free_port};

/// How long a test waits for something that should happen at once.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// A running server application; it ends when dropped.
pub(super) struct Bed {
    port: u16,
    runtime: Option<Runtime>,
    _shutdown: watch::Sender<bool>,
}

impl Bed {
    /// Runs a proxy as Pingora's own listeners do.
    pub(super) fn proxying<P>(hooks: P) -> Self
    where
        P: ProxyHttp + Send + Sync + 'static,
        P::CTX: Send + Sync + 'static,
    {
        Self::serving(proxy(hooks))
    }

    pub(super) fn serving(app: impl ServerApp + Send + Sync + 'static) -> Self {
        let port = free_port();
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, port)))
            .expect("a free port");
        let (shutdown, watch) = watch::channel(false);
        let app = Arc::new(app);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (app, watch) = (Arc::clone(&app), watch.clone());
                tokio::spawn(async move { app.process_new(accepted(stream), &watch).await });
            }
        });
        Self {
            port,
            runtime: Some(runtime),
            _shutdown: shutdown,
        }
    }

    pub(super) fn client(&self) -> Client {
        Client::connect(self.port)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(super) fn proxy<P: ProxyHttp>(hooks: P) -> HttpProxy<P> {
    http_proxy(&Arc::new(ServerConf::default()), hooks)
}

/// An origin on a loopback port, over plain HTTP/1.1.
pub(super) fn peer(port: u16) -> Box<HttpPeer> {
    Box::new(HttpPeer::new(
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        false,
        String::new(),
    ))
}

/// An accepted connection with its addresses, as Pingora's listeners make it.
fn accepted(stream: TcpStream) -> Stream {
    stream.set_nodelay(true).expect("an open socket");
    let addresses = SocketDigest::from_raw_fd(stream.as_raw_fd());
    let mut connection = TcpConnection::from(stream);
    connection.set_socket_digest(addresses);
    Box::new(connection)
}

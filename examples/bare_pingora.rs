//! Bare Pingora: a proxy with one upstream and nothing else, with the system's allocator. It is what
//! `make bench` compares the gateway with.
//!
//! `bare_pingora LISTEN UPSTREAM`, both `address:port`; with `CERTIFICATE KEY` behind them, two files in PEM, clients
//! speak TLS.

use std::{env, net::SocketAddr, process::ExitCode};

use async_trait::async_trait;
use pingora_core::{
    Result,
    server::{Server, configuration::ServerConf},
    upstreams::peer::HttpPeer,
};
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

struct Bare {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let (Some(listen), Some(Ok(upstream))) = (
        arguments.next(),
        arguments.next().map(|address| address.parse()),
    ) else {
        return ExitCode::FAILURE;
    };
    // The gateway gets the same: one thread, and a pool that no load of the benchmark exhausts.
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: 4096,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Bare { upstream });
    match (arguments.next(), arguments.next()) {
        (Some(certificate), Some(key)) => {
            if proxy.add_tls(&listen, &certificate, &key).is_err() {
                return ExitCode::FAILURE;
            }
        }
        _ => proxy.add_tcp(&listen),
    }
    server.add_service(proxy);
    server.run_forever()
}

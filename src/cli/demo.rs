//! `tollgate demo`: the gateway and three mock origins in one process, to try things out.

use std::{net::Ipv4Addr, path::PathBuf, process::ExitCode};

use tokio::{net::TcpListener, sync::watch};

use super::{environment, mock, report, say};
use crate::{
    reload::Source,
    server::{self, Beside},
};

/// The ports of the mock origins, as the default configuration names them.
const PORTS: [u16; 3] = [9001, 9002, 9003];

/// Arguments of `tollgate demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file; its targets are 127.0.0.1:9001 to 9003
    #[arg(long, short, default_value = "config/gateway.yaml")]
    config: PathBuf,
}

const WELCOME: &str = "\
three mock origins on 127.0.0.1:9001 to 9003, the gateway on 127.0.0.1:8000, admin on 127.0.0.1:8001. Try:

  curl -i http://127.0.0.1:8000/api/user                        # balanced over the three origins
  curl -i http://127.0.0.1:8000/api/echo?a=b                    # what an origin gets to see
  curl -i http://127.0.0.1:8000/orders/api/data                 # 401: this route wants a key
  curl -i http://127.0.0.1:8000/orders/api/data -H 'apikey: demo-key'
  for i in $(seq 12); do curl -s -o /dev/null -w '%{http_code} ' http://127.0.0.1:8000/limited/api/user; done; echo
  curl -s http://127.0.0.1:8001/metrics | grep tollgate_http_requests_total

or let the built-in client do it:

  tollgate probe health                       # each scenario sends requests and judges the answers
  tollgate probe echo
  tollgate probe user --count 30              # which origin answered how often
  tollgate probe data
  tollgate probe slow --count 20 --concurrency 10
  tollgate probe auth                         # without a key, with a wrong one, with the right one
  tollgate probe rate-limit --count 150       # 100 pass in a minute, the others get 429
  tollgate probe breaker                      # an origin that always fails, call by call

Edit the configuration and save: the change is live at once. Ctrl-C ends the demo.";

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    report(server::run(server::Start {
        source: Source::file(arguments.config.clone(), environment),
        beside: Some(Beside {
            start: origins,
            welcome: || say(WELCOME),
        }),
    }))
}

/// Starts the three origins; they end when `stop` turns true.
fn origins(runtime: &tokio::runtime::Handle, stop: &watch::Receiver<bool>) -> std::io::Result<()> {
    for (number, port) in (1..).zip(PORTS) {
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, port)))?;
        let mut stop = stop.clone();
        runtime.spawn(async move {
            let stopped = async move {
                // An ended sender means the end as well.
                let _ = stop.wait_for(|stopped| *stopped).await;
            };
            let name = format!("Backend-{number}");
            if let Err(error) = mock::serve(listener, name, stopped).await {
                say(&format!("a mock origin ended: {error}"));
            }
        });
    }
    Ok(())
}

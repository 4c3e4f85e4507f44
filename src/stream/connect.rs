//! From a service to a connection with one of its targets: tries, health and TLS.

use std::time::Duration;

use pingora_core::{Error, ErrorType, Result, protocols::l4::ext};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::Stream;
use crate::{
    proxy::verify,
    snapshot::Service,
    state::{clock::Clock, health::Finding},
    telemetry::streams::Ending,
    upstream::{
        Hold, Member,
        health::finding_of,
        search::{Absent, Found, Search},
        server_name,
    },
};

/// A connection with an upstream, encrypted or not.
pub(super) trait Upstream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Upstream for S {}

/// The connection, and what counts it for the target's address as long as it lasts.
pub(super) type Connected = (Hold, Box<dyn Upstream>);

/// Connects to a target of `service`; tries as many more as its retries say.
pub(super) async fn connect(
    service: &Service,
    clock: &Clock,
    stream: &mut Stream,
) -> std::result::Result<Connected, Ending> {
    let patience = service.timeouts.connect;
    let balancer = &service.balancer;
    let key = balancer
        .algorithm()
        .key_of_stream(stream.peer.ip().to_canonical());
    let mut search = Search::default();
    let mut ending = None;
    loop {
        let found = search.next(balancer, key, patience, |_| true);
        let Found { member, hold } = match found.await {
            Ok(found) => found,
            // What the last try showed says more than that there is no further one.
            Err(absent) => return Err(ending.unwrap_or_else(|| ending_of_absence(absent))),
        };
        stream.tries += 1;
        stream.backend = Some(member.address);
        let error = match try_one(service, &member, patience).await {
            Ok(upstream) => {
                balancer.note_latency(&hold, true);
                balancer.note_passively(&member, Finding::Connected);
                return Ok((hold, upstream));
            }
            Err(error) => error,
        };
        if let Some(finding) = finding_of(error.etype()) {
            balancer.note_latency(&hold, false);
            balancer.note_passively(&member, finding);
        }
        ending = Some(ending_of(error.etype()));
        let has_another = if error.etype() == &ErrorType::InvalidCert {
            verify::complain(service, (Some(member.address), None), &error, clock);
            search.distrust(balancer, &member)
        } else {
            search.rule_out(&member);
            true
        };
        if !has_another || stream.tries > u32::from(service.retries) {
            return Err(ending_of(error.etype()));
        }
        service.repeats.made.inc();
    }
}

async fn try_one(
    service: &Service,
    member: &Member,
    patience: Duration,
) -> Result<Box<dyn Upstream>> {
    let connecting = async {
        // Pingora's own, so that its errors tell the upstream's trouble from that of this machine.
        let tcp = ext::connect(&member.address, None).await?;
        // A stream without it works, only slower.
        let _ = tcp.set_nodelay(true);
        secured(service, member, tcp).await
    };
    tokio::time::timeout(patience, connecting)
        .await
        .map_err(|_| Error::explain(ErrorType::ConnectTimedout, "no connection in time"))?
}

async fn secured(service: &Service, member: &Member, tcp: TcpStream) -> Result<Box<dyn Upstream>> {
    let Some(tls) = &service.tls else {
        return Ok(Box::new(tcp));
    };
    let host = service
        .balancer
        .host_header
        .as_ref()
        .and_then(|host| host.to_str().ok())
        .unwrap_or(&member.called.server_name);
    let name = server_name(host, &member.called.server_name, tls.verifies());
    Ok(Box::new(tls.connect(tcp, &name, None).await?))
}

const fn ending_of_absence(absent: Absent) -> Ending {
    match absent {
        Absent::Target | Absent::Usable | Absent::Slot => Ending::NoTarget,
        Absent::Address => Ending::NameResolution,
        Absent::Verified => Ending::UpstreamUnverified,
    }
}

fn ending_of(etype: &ErrorType) -> Ending {
    match etype {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Ending::UpstreamTimeout,
        ErrorType::InvalidCert => Ending::UpstreamUnverified,
        _ => Ending::UpstreamConnect,
    }
}

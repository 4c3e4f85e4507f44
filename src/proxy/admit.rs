//! Step 3: run `access` along the chain.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use http::header;
use pingora_proxy::Session;
use tracing::{error, warn};

use super::{
    body::{self, ClientBody},
    exchange::Exchange,
};
use crate::{
    chain::{Chain, Run},
    entity::reason::Reason,
    plugin::{Halt, Matched, Reply, Request, RequestBody, Surroundings},
    snapshot::Snapshot,
    telemetry::Telemetry,
};

/// Runs the plugins of the route that may answer or change the request.
///
/// # Errors
/// What a plugin answered; 500 for a fault or a panic of a plugin; 503 if nobody answered and the
/// route has no service.
pub(super) async fn admit(
    session: &mut Session,
    exchange: &mut Exchange,
    telemetry: &Telemetry,
) -> Result<(), Box<Reply>> {
    if !exchange.snapshot.chain(exchange.chain()).links().is_empty() {
        run_access(session, exchange, telemetry).await?;
    }
    require_service(exchange)
}

/// What nobody answered must go to a service.
///
/// # Errors
/// 503, if the route has none.
pub(super) fn require_service(exchange: &Exchange) -> Result<(), Box<Reply>> {
    if exchange.service().is_none() {
        return Err(Box::new(Reply::message(
            503,
            Reason::NoService,
            "no Service found with those values",
        )));
    }
    Ok(())
}

async fn run_access(
    session: &mut Session,
    exchange: &mut Exchange,
    telemetry: &Telemetry,
) -> Result<(), Box<Reply>> {
    let waits_for_permission = exchange.head.headers.contains_key(header::EXPECT);
    let settings = &exchange.snapshot.settings;
    let downstream = session.as_downstream_mut();
    let mut body = ClientBody::new(downstream, waits_for_permission, settings);
    let ended = caught(access(&mut body, exchange), telemetry).await;
    let read = body.into_read();
    match ended? {
        Ok(()) => {}
        Err((_, Halt::Reply(reply))) => return Err(reply),
        Err((plugin, Halt::Fault(cause))) => {
            warn!(plugin, %cause, request_id = exchange.id.as_str(), "a plugin failed");
            return Err(Box::new(fault(Reason::PluginFault)));
        }
    }
    if let Some(bytes) = read {
        body::put_back(session, exchange, bytes).await.map_err(|cause| {
            error!(%cause, request_id = exchange.id.as_str(), "a request body could not be put back");
            Box::new(fault(Reason::Internal))
        })?;
    }
    Ok(())
}

async fn access(
    body: &mut ClientBody<'_>,
    exchange: &mut Exchange,
) -> Result<(), (&'static str, Halt)> {
    let Some(entrance) = enter(body, exchange) else {
        return Ok(());
    };
    let Entrance {
        mut request,
        snapshot,
        chain,
        run,
    } = entrance;
    chain
        .access(&snapshot.instances, run, &mut request)
        .await
        .map_err(|ended| (ended.plugin, ended.halt))
}

/// A request before the plugins of its route.
pub(super) struct Entrance<'e> {
    pub(super) request: Request<'e>,
    pub(super) snapshot: &'e Snapshot,
    pub(super) chain: &'e Chain,
    pub(super) run: &'e mut Run,
}

/// What the plugins see of the request; `None` without a route.
pub(super) fn enter<'e>(
    body: &'e mut dyn RequestBody,
    exchange: &'e mut Exchange,
) -> Option<Entrance<'e>> {
    let chain = exchange.chain();
    let Exchange {
        snapshot,
        route,
        id,
        head,
        client,
        scheme,
        host,
        port,
        normal_path,
        pattern,
        identity,
        notes,
        run,
        forward,
        ..
    } = exchange;
    let snapshot: &Snapshot = snapshot;
    let route = snapshot.routes.get((*route)?)?;
    let host = std::str::from_utf8(host).unwrap_or_default();
    let matched = Matched {
        normal_path: normal_path.as_deref(),
        regex: pattern.map(|pattern| snapshot.router.regex(pattern)),
    };
    let about = Surroundings {
        request_id: id.as_str(),
        client: *client,
        scheme: *scheme,
        host,
        port: *port,
        route: &route.facts,
        service: snapshot.service(route, None).map(|service| &*service.facts),
        services: &snapshot.service_facts,
        consumers: &snapshot.consumers,
        secret_arguments: &snapshot.secret_arguments,
        matched,
    };
    Some(Entrance {
        request: Request::new(head, about, identity, notes, body, &mut forward.directions),
        snapshot,
        chain: snapshot.chain(chain),
        run,
    })
}

/// Runs `plugins` to their end. A panic costs this request, which gets 500, and nobody else.
async fn caught<T>(
    plugins: impl Future<Output = T>,
    telemetry: &Telemetry,
) -> Result<T, Box<Reply>> {
    AssertUnwindSafe(plugins).catch_unwind().await.map_err(|_| {
        telemetry.panicked();
        error!("a plugin panicked");
        Box::new(fault(Reason::Internal))
    })
}

pub(super) fn fault(reason: Reason) -> Reply {
    Reply::message(500, reason, "An unexpected error occurred")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::health::UpstreamsHealth;

    #[tokio::test]
    async fn a_panic_is_answered_with_500_and_counted() {
        let telemetry = Telemetry::new();
        let reply = caught(async { panic!("a bug") }, &telemetry)
            .await
            .map(|(): ()| ())
            .expect_err("the panic is caught");
        assert_eq!((reply.status, reply.reason), (500, Reason::Internal));
        assert!(
            telemetry
                .render(&UpstreamsHealth::default())
                .contains("tollgate_panics_total 1")
        );
    }
}

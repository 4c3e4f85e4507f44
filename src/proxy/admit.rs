//! Step 3: run `access` along the chain.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use http::request::Parts;
use pingora_proxy::Session;
use tracing::{error, warn};

use super::{
    body::{self, ClientBody},
    exchange::Exchange,
    parts,
    receive::raw_path,
};
use crate::{
    entity::reason::Reason,
    plugin::{Halt, Matched, Reply, Request, Surroundings},
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
    // The views edit the head while a plugin may await the body, so the two part for this phase;
    // the body's framing must be read from the head before.
    session.is_body_done();
    let mut head = parts::of_request(session.req_header_mut());
    let mut body = ClientBody::new(
        session.as_downstream_mut(),
        &head,
        &exchange.snapshot.settings,
    );
    let ended = caught(access(&mut head, &mut body, exchange), telemetry).await;
    let read = body.into_read();
    *session.req_header_mut() = head.into();
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
    head: &mut Parts,
    body: &mut ClientBody<'_>,
    exchange: &mut Exchange,
) -> Result<(), (&'static str, Halt)> {
    let chain = exchange.chain();
    let Exchange {
        snapshot,
        route,
        id,
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
    let Some(route) = route.and_then(|route| snapshot.routes.get(route)) else {
        return Ok(());
    };
    let sent_path;
    let path = if let Some(path) = normal_path {
        path.as_slice()
    } else {
        sent_path = raw_path(head).to_vec();
        &sent_path
    };
    let host = std::str::from_utf8(host).unwrap_or_default();
    let matched = Matched {
        path,
        regex: pattern.map(|pattern| snapshot.router.regex(pattern)),
    };
    let about = Surroundings {
        request_id: id.as_str(),
        client: *client,
        scheme: *scheme,
        host,
        port: *port,
        route: &route.facts,
        service: snapshot.service(route).map(|service| &service.facts),
        consumers: &snapshot.consumers,
        secret_arguments: &snapshot.secret_arguments,
        matched,
    };
    let mut request = Request::new(head, about, identity, notes, body, &mut forward.query);
    snapshot
        .chain(chain)
        .access(&snapshot.instances, run, &mut request)
        .await
        .map_err(|ended| (ended.plugin, ended.halt))
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

fn fault(reason: Reason) -> Reply {
    Reply::message(500, reason, "An unexpected error occurred")
}

#[cfg(test)]
mod tests {
    use super::*;

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
                .render(Vec::new())
                .contains("tollgate_panics_total 1")
        );
    }
}

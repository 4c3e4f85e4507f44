//! Probes of gRPC servers, which say themselves how they are.

use super::{Backend, is_in_state, pool, wait_for_state};
use crate::harness::{Blueprint, Gateway, GrpcOrigin, Issued, Says, wait_until};

const CHECK: &str = "/grpc.health.v1.Health/Check";

fn target(origin: &GrpcOrigin) -> String {
    format!("127.0.0.1:{}", origin.port())
}

/// An upstream over this target, probed every 50 ms; out after two failures, back after two successes.
fn probed(target: String, kind: &str, more: &str) -> String {
    let healthchecks = format!(
        "{{active: {{type: {kind}, timeout: 0.3, {more} healthy: {{interval: 0.05, successes: 2}}, \
         unhealthy: {{interval: 0.05, http_failures: 2, tcp_failures: 2, timeouts: 2}}}}}}"
    );
    pool(&[(target, 100)], 0, &healthchecks)
}

#[test]
fn a_server_that_does_not_serve_goes_out_and_comes_back_when_it_does() {
    let origin = GrpcOrigin::start();
    let target = target(&origin);
    let gateway = Gateway::start(&probed(target.clone(), "grpc", ""));
    wait_until("five probes", || origin.calls().len() >= 5);
    assert!(is_in_state(&gateway, &target, "healthy"));

    origin.says(Says::State(2));
    wait_for_state(&gateway, &target, "unhealthy");
    gateway.wait_for_log("target is unhealthy (2/2 grpc not serving)");

    origin.says(Says::State(1));
    wait_for_state(&gateway, &target, "healthy");
    gateway.wait_for_log("target is healthy (2/2 grpc serving)");
}

#[test]
fn a_probe_is_a_call_of_the_health_service_on_a_connection_of_its_own() {
    let origin = GrpcOrigin::start();
    let more = "headers: {X-Probe: [yes], Host: [greeter.test]},";
    let _gateway = Gateway::start(&probed(target(&origin), "grpc", more));

    wait_until("five probes", || origin.calls().len() >= 5);

    let call = origin.calls().swap_remove(3);
    assert_eq!(call.path, CHECK);
    assert_eq!(call.authority, "greeter.test");
    assert_eq!(call.body, [0; 5], "the server as a whole");
    assert_eq!(call.ended, Some(true));
    assert_eq!(call.headers["content-type"], "application/grpc");
    assert_eq!(call.headers["te"], "trailers");
    assert_eq!(call.headers["x-probe"], "yes");
    assert!(
        call.headers["user-agent"]
            .to_str()
            .is_ok_and(|agent| agent.starts_with("tollgate/"))
    );
    assert!(origin.connections() >= 5);
}

#[test]
fn the_path_names_the_service_that_is_asked_for() {
    let origin = GrpcOrigin::start();
    let _gateway = Gateway::start(&probed(
        target(&origin),
        "grpc",
        "http_path: /orders.v1.Orders,",
    ));

    wait_until("a whole probe", || {
        origin.calls().iter().any(|call| call.ended == Some(true))
    });

    let calls = origin.calls();
    let call = calls.iter().find(|call| call.ended == Some(true));
    let body = &call.expect("a whole probe").body;
    assert_eq!(body.as_slice(), b"\0\0\0\0\x12\x0a\x10orders.v1.Orders");
}

#[test]
fn a_server_that_does_not_know_the_question_or_is_silent_or_speaks_no_grpc_is_out() {
    let origin = GrpcOrigin::start();
    let target = target(&origin);
    let gateway = Gateway::start(&probed(target.clone(), "grpc", ""));
    for (says, why) in [
        (Says::Status("12"), "2/2 grpc unimplemented"),
        (Says::State(3), "2/2 grpc service unknown"),
        (Says::State(0), "2/2 grpc health unknown"),
        (Says::Nothing, "2/2 timeout"),
    ] {
        origin.says(says);
        gateway.wait_for_log(&format!("target is unhealthy ({why})"));
        origin.says(Says::State(1));
        wait_for_state(&gateway, &target, "healthy");
    }

    let plain = Backend::start("not gRPC");
    gateway.reload(&probed(plain.authority(), "grpc", ""));
    wait_for_state(&gateway, &plain.authority(), "unhealthy");
}

#[test]
fn over_tls_the_certificate_is_verified_unless_it_is_not_to_be() {
    let authority = Issued::authority("authority");
    let issued = authority.issue("greeter.test");
    let origin = GrpcOrigin::start_with_tls(&issued);
    let target = target(&origin);
    let blueprint = Blueprint::new("trusted_certificates: authority.pem");
    authority.write(blueprint.folder(), "authority");
    let gateway = blueprint.start(&probed(target.clone(), "grpcs", "https_sni: greeter.test,"));
    wait_until("five probes", || origin.calls().len() >= 5);
    assert!(is_in_state(&gateway, &target, "healthy"));

    gateway.reload(&probed(target.clone(), "grpcs", "https_sni: other.test,"));
    wait_for_state(&gateway, &target, "unhealthy");
    gateway.wait_for_log("tcp certificate not valid");

    let more = "https_sni: other.test, https_verify_certificate: false,";
    gateway.reload(&probed(target.clone(), "grpcs", more));
    wait_for_state(&gateway, &target, "healthy");
}

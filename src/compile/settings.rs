//! The `gateway:` settings in the form requests need them.

use crate::{
    config::model::{
        Gateway,
        gateway::ErrorType as WrittenErrorType,
        settings::{AccessLog as WrittenAccessLog, RealIpHeader, RequestToken, ResponseToken},
    },
    entity::error_template::ErrorTemplates,
    snapshot::{
        AccessFormat, AccessLog, ErrorType, RealIp, ResponseTokens, Settings, Trusted, Upkeep,
    },
    telemetry::log_file::Destination,
};

/// Request lines and header lines are never cut shorter than this, however the buffers are set.
const LINE_BYTES_MIN: usize = 1024;
/// The largest head that Pingora reads.
const HEAD_BYTES_MAX: usize = (1 << 20) - 1;

pub(super) fn compile(gateway: &Gateway, error_templates: &ErrorTemplates) -> Settings {
    let line = bytes(gateway.large_client_header_buffers.bytes)
        .max(bytes(gateway.client_header_buffer_size.0))
        .max(LINE_BYTES_MIN);
    let lines = usize::try_from(gateway.large_client_header_buffers.count).unwrap_or(usize::MAX);
    Settings {
        trusted: Trusted::new(
            gateway
                .trusted_ips
                .iter()
                .map(|network| network.0)
                .collect(),
        ),
        real_ip: match &gateway.real_ip_header {
            RealIpHeader::ProxyProtocol => RealIp::ProxyProtocol,
            RealIpHeader::Named(name) if name == "x-forwarded-for" => RealIp::ForwardedFor,
            RealIpHeader::Named(name) => RealIp::Header(name.clone()),
        },
        real_ip_recursive: gateway.real_ip_recursive.0,
        body_bytes_max: (gateway.client_max_body_size.0 > 0)
            .then_some(gateway.client_max_body_size.0),
        body_buffer_bytes_max: bytes(gateway.client_body_buffer_limit.0),
        connections_max: (gateway.client_max_connections > 0)
            .then(|| usize::try_from(gateway.client_max_connections).unwrap_or(usize::MAX)),
        strip_identity_headers: gateway.strip_identity_headers.0,
        method_not_allowed: gateway.method_not_allowed == 405,
        head_line_bytes_max: line.min(HEAD_BYTES_MAX),
        head_bytes_max: line.saturating_mul(lines).min(HEAD_BYTES_MAX),
        tokens: tokens(&gateway.headers),
        upstream_request_id: gateway.headers_upstream.contains(&RequestToken::RequestId),
        error_type: match gateway.error_default_type {
            WrittenErrorType::Plain => ErrorType::Plain,
            WrittenErrorType::Html => ErrorType::Html,
            WrittenErrorType::Json => ErrorType::Json,
            WrittenErrorType::Xml => ErrorType::Xml,
        },
        error_templates: error_templates.clone(),
        keepalive_timeout: gateway.keepalive_timeout.0,
        keepalive_requests: gateway.keepalive_requests,
        header_timeout: gateway.client_header_timeout.0,
        body_timeout: gateway.client_body_timeout.0,
        send_timeout: gateway.client_send_timeout.0,
        upkeep: (gateway.upstream_keepalive_pool_size > 0).then(|| Upkeep {
            idle: gateway.upstream_keepalive_idle_timeout.0,
            requests_max: Some(gateway.upstream_keepalive_max_requests).filter(|most| *most > 0),
            pool_size: usize::try_from(gateway.upstream_keepalive_pool_size).unwrap_or(usize::MAX),
        }),
        port_maps: gateway
            .port_maps
            .iter()
            .map(|ports| (ports.inner, ports.outer))
            .collect(),
        debug_header: gateway.allow_debug_header.0,
        access_log: access_log(&gateway.access_log),
    }
}

fn access_log(written: &WrittenAccessLog) -> Option<AccessLog> {
    let WrittenAccessLog::On { path, plain } = written else {
        return None;
    };
    Some(AccessLog {
        to: path.clone().map_or(Destination::Stdout, Destination::Path),
        format: if *plain {
            AccessFormat::Plain
        } else {
            AccessFormat::Json
        },
    })
}

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

fn tokens(written: &[ResponseToken]) -> ResponseTokens {
    let has = |tokens: &[ResponseToken]| written.iter().any(|token| tokens.contains(token));
    ResponseTokens {
        server: has(&[ResponseToken::Server, ResponseToken::ServerTokens]),
        via: has(&[ResponseToken::Via, ResponseToken::ServerTokens]),
        proxy_latency: has(&[ResponseToken::ProxyLatency, ResponseToken::LatencyTokens]),
        response_latency: has(&[ResponseToken::ResponseLatency, ResponseToken::LatencyTokens]),
        upstream_latency: has(&[ResponseToken::UpstreamLatency, ResponseToken::LatencyTokens]),
        upstream_status: has(&[ResponseToken::UpstreamStatus]),
        request_id: has(&[ResponseToken::RequestId]),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn the_defaults_are_kongs() {
        let settings = compile(&Gateway::default(), &ErrorTemplates::default());
        assert_eq!(settings.head_line_bytes_max, 8 * 1024);
        assert_eq!(settings.head_bytes_max, 32 * 1024);
        assert_eq!(settings.body_bytes_max, None);
        assert_eq!(settings.connections_max, None);
        assert!(settings.tokens.server && settings.tokens.upstream_latency);
        assert!(settings.tokens.request_id && !settings.tokens.upstream_status);
        assert!(settings.upstream_request_id);
        assert_eq!(
            settings.real_ip,
            RealIp::Header(HeaderName::from_static("x-real-ip"))
        );
    }

    #[test]
    fn a_group_of_tokens_stands_for_its_members() {
        let none = tokens(&[ResponseToken::Off]);
        assert!(!none.server && !none.via && !none.request_id);
        let server = tokens(&[ResponseToken::ServerTokens]);
        assert!(server.server && server.via && !server.proxy_latency);
    }
}

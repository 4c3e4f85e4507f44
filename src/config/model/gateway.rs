//! The `gateway:` settings: Kong's names from `kong.conf`, in one flat record.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::discovery::RouteDiscovery;
use super::dns::{DnsRecords, DnsServer};
use super::listen::{Listen, ListenEntry, StreamListenEntry};
use super::settings::{
    AccessLog, ErrorLog, FilePath, HeaderBuffers, List, PluginName, PortMap, RealIpHeader,
    RequestToken, ResponseToken, Seconds, Size, Switch, Threads, TrustedNetwork,
};
use super::tls::{DhParameters, TlsVersions, TrustedCertificates};
use crate::config::diagnostics::{Code, Diagnostics};
use crate::config::node::{Entry, Node};

/// How long OpenSSL lets a session be resumed. The `openssl` crate has no setter for it.
const SESSION_LIFETIME: Duration = Duration::from_hours(2);

/// What `ssl_session_cache_size` may be, in bytes.
const SESSION_CACHE_BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 30;

/// What Kong calls a setting in `kong.conf`, where that is not what it is called here.
pub(in crate::config) const KONG_NAMES: &[(&str, &str)] = &[
    ("proxy_listen", "listen"),
    ("admin_listen", "admin"),
    ("status_listen", "admin"),
    ("nginx_worker_processes", "threads"),
    ("nginx_http_client_max_body_size", "client_max_body_size"),
    (
        "nginx_http_client_header_buffer_size",
        "client_header_buffer_size",
    ),
    (
        "nginx_http_large_client_header_buffers",
        "large_client_header_buffers",
    ),
    ("nginx_http_keepalive_timeout", "keepalive_timeout"),
    ("nginx_http_keepalive_requests", "keepalive_requests"),
    ("nginx_http_client_header_timeout", "client_header_timeout"),
    ("nginx_http_client_body_timeout", "client_body_timeout"),
    ("nginx_http_send_timeout", "client_send_timeout"),
    ("proxy_access_log", "access_log"),
    ("proxy_error_log", "error_log"),
    ("lua_ssl_trusted_certificate", "trusted_certificates"),
    ("lua_ssl_verify_depth", "tls_verify_depth"),
    ("resolver_address", "dns_resolver"),
    ("resolver_hosts_file", "dns_hostsfile"),
    ("resolver_family", "dns_order"),
    ("resolver_valid_ttl", "dns_valid_ttl"),
    ("resolver_error_ttl", "dns_error_ttl"),
    ("resolver_stale_ttl", "dns_stale_ttl"),
];

/// Families of settings that only make sense for what Kong is built on.
const FOREIGN_PREFIXES: &[(&str, &str)] = &[
    ("nginx_", "there is no nginx underneath"),
    ("lua_", "there is no Lua underneath"),
    (
        "pg_",
        "there is no database; the configuration is this file",
    ),
    (
        "cassandra_",
        "there is no database; the configuration is this file",
    ),
    (
        "cluster_",
        "there are no cluster nodes; give each node this file",
    ),
    ("declarative_config", "the configuration is this file"),
    (
        "database",
        "there is no database; the configuration is this file",
    ),
];

/// How much goes into the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Debug,
    Info,
    #[default]
    Notice,
    Warn,
    Error,
    Crit,
}

/// The type of an error's body if the client has no preference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ErrorType {
    #[default]
    #[serde(rename = "text/plain")]
    Plain,
    #[serde(rename = "text/html")]
    Html,
    #[serde(rename = "application/json")]
    Json,
    #[serde(rename = "application/xml")]
    Xml,
}

/// Which ciphers clients may use: Mozilla's profiles and one for FIPS 140.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CipherSuite {
    /// TLS 1.3 only.
    Modern,
    #[default]
    Intermediate,
    /// Also ciphers without forward secrecy.
    Old,
    Fips,
    /// Those of `ssl_ciphers`.
    Custom,
}

/// How routes are written and weighed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RouterFlavor {
    /// Kong's default: routes have attributes, and those with more of them go first.
    #[default]
    TraditionalCompatible,
    /// The same attributes in Kong's older order: hosts, headers, paths, methods and SNI weigh differently.
    Traditional,
    /// Routes may have an `expression` instead; those with attributes come after all of them.
    Expressions,
}

/// Settings of the gateway itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gateway {
    /// Where requests come in: `ip:port` with flags (`ssl` for TLS, `http2`, `proxy_protocol`, `reuseport`, `deferred`, `bind`, `backlog=N`, `ipv6only=on|off`, `so_keepalive=on|off|idle:interval:count`), or `off`. Addresses that a reload adds or removes are opened and closed in place; the options of a socket that stays need a restart.
    pub listen: List<ListenEntry>,
    /// Where connections for stream routes come in: like `listen`, with `ssl` for `tls` and `tls_passthrough`, without it for `tcp`; or `off`.
    pub stream_listen: List<StreamListenEntry>,
    /// Where `/metrics`, `/status`, `/health` and `/explain` are served: like `listen`, without `ssl`, `http2` and `proxy_protocol`. Keep it private.
    pub admin: List<ListenEntry>,
    /// Threads that serve requests: 1 to 1024, or `auto` for one per core. Needs a restart to change.
    pub threads: Threads,
    /// The folder of fragments, relative to this file: its `*.yaml` and `*.yml` files are further documents.
    pub conf_d: Option<String>,
    /// The files of the default certificate, in PEM, for clients that ask for no name or for one without `certificates`: one, or two whose keys have different algorithms. Relative to this file. Absent: a self-signed one.
    pub ssl_cert: List<FilePath>,
    /// The files of the keys of `ssl_cert`, in the same order.
    pub ssl_cert_key: List<FilePath>,
    /// The versions of TLS that clients may speak.
    pub ssl_protocols: List<TlsVersions>,
    /// Which ciphers clients may use: `modern` (TLS 1.3 only), `intermediate`, `old`, `fips`, or `custom` for those of `ssl_ciphers`.
    pub ssl_cipher_suite: CipherSuite,
    /// With `ssl_cipher_suite: custom`: the ciphers of TLS 1.2, in OpenSSL's notation.
    pub ssl_ciphers: Option<String>,
    /// Whether the gateway picks the cipher by its own order, else by the client's; absent: with `ssl_cipher_suite` `old` and `custom`.
    pub ssl_prefer_server_ciphers: Option<Switch>,
    /// The parameters of DHE in TLS 1.2: `ffdhe2048`, `ffdhe3072`, `ffdhe4096`, `ffdhe6144`, `ffdhe8192`, a file in PEM (relative to this file), or the PEM itself. Absent: no cipher with DHE is used.
    pub ssl_dhparam: Option<DhParameters>,
    /// Whether clients keep their sessions in tickets; else the gateway keeps a limited number of them.
    pub ssl_session_tickets: Switch,
    /// How long a session may be resumed: two hours, which cannot be changed; longer ones are accepted with a warning.
    pub ssl_session_timeout: Seconds,
    /// How much the gateway keeps of the sessions of clients without tickets, `1k` to `1g` for each certificate; a session counts as 1 KiB.
    pub ssl_session_cache_size: Size,
    /// Addresses and networks whose `X-Forwarded-*` headers and `real_ip_header` are believed.
    pub trusted_ips: List<TrustedNetwork>,
    /// The header by which a trusted peer tells the client's address; of `X-Forwarded-For` it is the last address. `proxy_protocol`: the PROXY header with which a trusted balancer begins a connection.
    pub real_ip_header: RealIpHeader,
    /// With `X-Forwarded-For`: whether the client is the last address that is not trusted.
    pub real_ip_recursive: Switch,
    /// The largest request body, such as `10m`; 0: no limit.
    pub client_max_body_size: Size,
    /// How many clients may be connected at once; 0: no limit.
    pub client_max_connections: u32,
    /// The most that plugins may keep of one request body; over it 413.
    pub client_body_buffer_limit: Size,
    /// Whether a client's own copies of the identity headers are removed.
    pub strip_identity_headers: Switch,
    /// The status if only the method keeps a request from a route: 404, or 405 with `Allow`.
    #[schemars(extend("enum" = [404, 405]))]
    pub method_not_allowed: u16,
    /// A line of a request's head may be at least so long, whatever `large_client_header_buffers` says.
    pub client_header_buffer_size: Size,
    /// The longest line of a request's head is one buffer, the largest head all of them.
    pub large_client_header_buffers: HeaderBuffers,
    /// Headers that the gateway adds to responses: `Server`, `Via`, `X-Kong-Proxy-Latency`, `X-Kong-Response-Latency`, `X-Kong-Upstream-Latency`, `X-Kong-Upstream-Status`, `X-Kong-Request-Id`, the groups `server_tokens` (the first two) and `latency_tokens` (the three latencies), or `off`.
    pub headers: List<ResponseToken>,
    /// Headers that the gateway adds to requests: `X-Kong-Request-Id` or `off`.
    pub headers_upstream: List<RequestToken>,
    /// The type of some error bodies if the client has no preference.
    pub error_default_type: ErrorType,
    /// A file, relative to this one, with `%s` twice: the HTML body of errors, with the message and the request id in these places. Read again when it changes.
    pub error_template_html: Option<String>,
    /// The same for JSON.
    pub error_template_json: Option<String>,
    /// The same for plain text.
    pub error_template_plain: Option<String>,
    /// The same for XML.
    pub error_template_xml: Option<String>,
    /// Idle connections that are kept to each address of an upstream; 0: none.
    pub upstream_keepalive_pool_size: u32,
    /// Requests on one upstream connection, which is closed then; 0: any number.
    pub upstream_keepalive_max_requests: u32,
    /// Seconds until an idle upstream connection is closed.
    pub upstream_keepalive_idle_timeout: Seconds,
    /// Seconds until an idle client connection is closed.
    pub keepalive_timeout: Seconds,
    /// Requests on one client connection.
    pub keepalive_requests: u32,
    /// Seconds in which a request's head must arrive.
    pub client_header_timeout: Seconds,
    /// Seconds between two parts of a request's body.
    pub client_body_timeout: Seconds,
    /// Seconds in which a client must take some more of a response; else its connection or stream is cut.
    pub client_send_timeout: Seconds,
    /// How much goes into the log.
    pub log_level: LogLevel,
    /// Where a line for each request goes: `stdout`, a path (best an absolute one), or `off`; JSON, or with ` plain` behind the place in the format of Kong's log.
    pub access_log: AccessLog,
    /// Where the gateway's own log goes: `stderr`, a path (best an absolute one), or `off`. What a file does not take goes to stderr.
    pub error_log: ErrorLog,
    /// How routes are written and weighed.
    pub router_flavor: RouterFlavor,
    /// Which plugins may be configured: names, `bundled` for all, or `off` for none.
    pub plugins: List<PluginName>,
    /// `outer:inner` pairs, such as `80:8000`: the port that `X-Forwarded-Port` tells for a port that the gateway listens on.
    pub port_maps: List<PortMap>,
    /// Whether the request header `Kong-Debug: 1` makes a proxied response name its route and service.
    pub allow_debug_header: Switch,
    /// The name servers, as `ip` or `ip:port`; absent: those of `/etc/resolv.conf`, whose search domains and options hold in any case.
    pub dns_resolver: List<DnsServer>,
    /// The hosts file (best an absolute path): names in it are not asked for.
    pub dns_hostsfile: FilePath,
    /// The records that a name is asked for, one kind after the other until one gives addresses: `SRV`, `A`, `AAAA`; `LAST` at the beginning stands for the kind that gave the last answer. `CNAME` is followed whatever is written.
    pub dns_order: List<DnsRecords>,
    /// Seconds that an answer holds, at least 1; absent: as its records say.
    pub dns_valid_ttl: Option<Seconds>,
    /// Accepted for Kong's sake, without effect: the last known addresses are used until there are others, without limit.
    pub dns_stale_ttl: Option<Seconds>,
    /// Seconds until a name of which there are no records is asked for again, at least 1.
    pub dns_not_found_ttl: Seconds,
    /// Seconds until a name is asked for again after a failure, at least 1; twice as long after each further one, up to 30.
    pub dns_error_ttl: Seconds,
    /// Where whole services with their routes are taken from, beside those of the files.
    pub discovery: Option<RouteDiscovery>,
    /// Whether certificates of upstreams are verified where a service does not say.
    pub tls_verify: Switch,
    /// How many authorities may stand between an upstream's certificate and a trusted one, where a service does not say.
    #[schemars(range(max = 64))]
    pub tls_verify_depth: u8,
    /// Whom certificates of upstreams are verified by where a service does not say: files of certificates in PEM (paths relative to this file), and `system` for the authorities of the system.
    pub trusted_certificates: List<TrustedCertificates>,
    /// Whether `client_ssl_cert` is shown to upstreams; absent: as soon as it is given.
    pub client_ssl: Option<Switch>,
    /// The file of the certificate in PEM that is shown to https upstreams which ask for one, where neither service nor upstream names another; a path relative to this file.
    pub client_ssl_cert: Option<FilePath>,
    /// The file of its key.
    pub client_ssl_cert_key: Option<FilePath>,
}

impl Default for Gateway {
    fn default() -> Self {
        let seconds = |count| Seconds(Duration::from_secs(count));
        let listen = |ip: Ipv4Addr, port| {
            List(vec![ListenEntry::On(Listen::on(SocketAddr::new(
                IpAddr::V4(ip),
                port,
            )))])
        };
        Self {
            listen: listen(Ipv4Addr::UNSPECIFIED, 8000),
            stream_listen: List(vec![StreamListenEntry(ListenEntry::Off)]),
            admin: listen(Ipv4Addr::LOCALHOST, 8001),
            threads: Threads::Auto,
            conf_d: None,
            ssl_cert: List::default(),
            ssl_cert_key: List::default(),
            ssl_protocols: List(vec![TlsVersions {
                tls12: true,
                tls13: true,
            }]),
            ssl_cipher_suite: CipherSuite::Intermediate,
            ssl_ciphers: None,
            ssl_prefer_server_ciphers: None,
            ssl_dhparam: None,
            ssl_session_tickets: Switch(true),
            ssl_session_timeout: Seconds(SESSION_LIFETIME),
            ssl_session_cache_size: Size(1 << 20),
            trusted_ips: List::default(),
            real_ip_header: RealIpHeader::Named(HeaderName::from_static("x-real-ip")),
            real_ip_recursive: Switch(false),
            client_max_body_size: Size(0),
            client_max_connections: 0,
            client_body_buffer_limit: Size(8 << 20),
            strip_identity_headers: Switch(true),
            method_not_allowed: 404,
            client_header_buffer_size: Size(1 << 10),
            large_client_header_buffers: HeaderBuffers {
                count: 4,
                bytes: 8 << 10,
            },
            headers: List(vec![
                ResponseToken::ServerTokens,
                ResponseToken::LatencyTokens,
                ResponseToken::RequestId,
            ]),
            headers_upstream: List(vec![RequestToken::RequestId]),
            error_default_type: ErrorType::Plain,
            error_template_html: None,
            error_template_json: None,
            error_template_plain: None,
            error_template_xml: None,
            upstream_keepalive_pool_size: 512,
            upstream_keepalive_max_requests: 10_000,
            upstream_keepalive_idle_timeout: seconds(60),
            keepalive_timeout: seconds(75),
            keepalive_requests: 10_000,
            client_header_timeout: seconds(60),
            client_body_timeout: seconds(60),
            client_send_timeout: seconds(60),
            log_level: LogLevel::Notice,
            access_log: AccessLog::default(),
            error_log: ErrorLog::Stderr,
            router_flavor: RouterFlavor::TraditionalCompatible,
            plugins: List(vec![PluginName::Bundled]),
            port_maps: List::default(),
            allow_debug_header: Switch(false),
            dns_resolver: List::default(),
            dns_hostsfile: FilePath("/etc/hosts".to_owned()),
            dns_order: List(vec![
                DnsRecords::Last,
                DnsRecords::Srv,
                DnsRecords::A,
                DnsRecords::Aaaa,
                DnsRecords::Cname,
            ]),
            dns_valid_ttl: None,
            dns_stale_ttl: None,
            dns_not_found_ttl: seconds(30),
            dns_error_ttl: seconds(1),
            discovery: None,
            tls_verify: Switch(false),
            tls_verify_depth: 1,
            trusted_certificates: List(vec![TrustedCertificates::System]),
            client_ssl: None,
            client_ssl_cert: None,
            client_ssl_cert_key: None,
        }
    }
}

/// Reports the rules that span several settings.
pub(in crate::config) fn check(gateway: &Gateway, node: &Node, diagnostics: &mut Diagnostics) {
    let mut report = |code: Code, field: &str, message: &str| {
        let path = format!("gateway.{field}");
        diagnostics.error(code, node.span_at(field), path, message);
    };
    if gateway.admin.addresses().any(|listen| listen.ssl) {
        let message =
            "the admin listener has no TLS: keep it on loopback, or put TLS in front of it";
        report(Code::UnsupportedValue, "admin", message);
    }
    if gateway.admin.addresses().any(|listen| listen.http2) {
        let message = "the admin listener speaks HTTP/1.1 only: leave `http2` out";
        report(Code::UnsupportedValue, "admin", message);
    }
    let suite = gateway.ssl_cipher_suite;
    let (is_custom, has_ciphers) = (suite == CipherSuite::Custom, gateway.ssl_ciphers.is_some());
    if is_custom && !has_ciphers {
        let message = "`ssl_cipher_suite: custom` needs `ssl_ciphers`";
        report(Code::MissingField, "ssl_cipher_suite", message);
    }
    if has_ciphers && !is_custom {
        let message = "`ssl_ciphers` has no effect without `ssl_cipher_suite: custom`";
        report(Code::InvalidCombination, "ssl_ciphers", message);
    }
    let has_tls13 = gateway.ssl_protocols.iter().any(|versions| versions.tls13);
    if suite == CipherSuite::Modern && !has_tls13 {
        let message = "`ssl_cipher_suite: modern` is for TLSv1.3, which `ssl_protocols` leaves out";
        report(Code::InvalidCombination, "ssl_cipher_suite", message);
    }
    let asks = |records: &DnsRecords| !matches!(records, DnsRecords::Last | DnsRecords::Cname);
    if !gateway.dns_order.iter().any(asks) {
        let message = "`dns_order` must have at least one of SRV, A, AAAA";
        report(Code::InvalidValue, "dns_order", message);
    }
    let consul = gateway.discovery.as_ref();
    let consul = consul.and_then(|discovery| discovery.consul.as_ref());
    if let Some((field, message)) = consul.and_then(|consul| consul.access().complaint()) {
        let field = format!("discovery.consul.{field}");
        report(Code::InvalidCombination, &field, &message);
    }
    check_sessions(gateway, node, diagnostics);
    for (index, listen) in gateway.admin.addresses().enumerate() {
        if listen.proxy_protocol {
            let path = format!("admin[{index}]");
            diagnostics.error(
                Code::InvalidCombination,
                node.span_at(&path),
                format!("gateway.{path}"),
                "the admin listener takes no `proxy_protocol`: operators come to it directly",
            );
        }
    }
    let has_header = |listen: &Listen| listen.proxy_protocol;
    if gateway.real_ip_header == RealIpHeader::ProxyProtocol
        && !gateway.listen.addresses().any(has_header)
    {
        diagnostics
            .warning(
                Code::Ignored,
                node.span_at("real_ip_header"),
                "gateway.real_ip_header",
                "no listener has the flag `proxy_protocol`, so no client's address comes from it",
            )
            .hint("write `listen: 0.0.0.0:8000 proxy_protocol`");
    }
    if gateway.dns_stale_ttl.is_some() {
        diagnostics.warning(
            Code::Ignored,
            node.span_at("dns_stale_ttl"),
            "gateway.dns_stale_ttl",
            "the last known addresses of a name are used without limit",
        );
    }
}

/// Reports what cannot be had of sessions, and parameters that nobody needs.
fn check_sessions(gateway: &Gateway, node: &Node, diagnostics: &mut Diagnostics) {
    if gateway.ssl_session_timeout.0 < SESSION_LIFETIME {
        diagnostics
            .error(
                Code::UnsupportedValue,
                node.span_at("ssl_session_timeout"),
                "gateway.ssl_session_timeout",
                "a session can be resumed for two hours: OpenSSL's own time, for which the crate `openssl` has no setter",
            )
            .hint("leave it out; where sessions must end sooner, replace the certificate, or restart");
    }
    if !SESSION_CACHE_BYTES.contains(&gateway.ssl_session_cache_size.0) {
        diagnostics
            .error(
                Code::OutOfRange,
                node.span_at("ssl_session_cache_size"),
                "gateway.ssl_session_cache_size",
                "must be between 1k and 1g",
            )
            .hint("a session counts as 1 KiB, for each certificate");
    }
    if gateway.ssl_session_timeout.0 > SESSION_LIFETIME {
        diagnostics.warning(
            Code::Ignored,
            node.span_at("ssl_session_timeout"),
            "gateway.ssl_session_timeout",
            "a session can be resumed for two hours, not longer: the crate `openssl` has no setter for OpenSSL's time",
        );
    }
    if gateway.ssl_dhparam.is_some() && !has_tls12(gateway) {
        diagnostics.warning(
            Code::Ignored,
            node.span_at("ssl_dhparam"),
            "gateway.ssl_dhparam",
            "`ssl_dhparam` has no effect: TLS 1.3 has groups of its own",
        );
    }
}

fn has_tls12(gateway: &Gateway) -> bool {
    gateway.ssl_cipher_suite != CipherSuite::Modern
        && gateway.ssl_protocols.iter().any(|versions| versions.tls12)
}

/// Reports the settings that have a better explanation than «unknown field»; gives the rest for checking.
pub(in crate::config) fn without_foreign_names(
    gateway: &Node,
    diagnostics: &mut Diagnostics,
) -> Node {
    let mut rest = Node::empty_mapping(gateway.span);
    for entry in gateway.entries() {
        if !report_foreign_name(entry, diagnostics)
            && let crate::config::node::Kind::Mapping(entries) = &mut rest.kind
        {
            entries.push(entry.clone());
        }
    }
    rest
}

fn report_foreign_name(entry: &Entry, diagnostics: &mut Diagnostics) -> bool {
    let (key, path) = (entry.key.as_str(), format!("gateway.{}", entry.key));
    if let Some((_, ours)) = KONG_NAMES.iter().find(|(name, _)| *name == key) {
        let message = format!("unknown field `{key}`");
        diagnostics
            .error(Code::UnknownField, entry.key_span, path, message)
            .hint(format!("here it is called `{ours}`"));
    } else if let Some((_, reason)) = FOREIGN_PREFIXES
        .iter()
        .find(|(prefix, _)| key.starts_with(prefix))
    {
        let message = format!("`{key}` is a setting of Kong's that does not exist here");
        diagnostics
            .error(Code::UnsupportedField, entry.key_span, path, message)
            .hint(*reason);
    } else {
        return false;
    }
    true
}

//! A configuration with 200 routes of every kind, and requests that show what is explained of it.

use crate::harness::{Origin, Request};

/// A request, for the command and for the wire.
pub(super) struct Ask {
    pub(super) method: &'static str,
    pub(super) host: &'static str,
    pub(super) target: String,
    pub(super) headers: &'static [(&'static str, &'static str)],
}

pub(super) fn ask(
    method: &'static str,
    host: &'static str,
    target: &str,
    headers: &'static [(&'static str, &'static str)],
) -> Ask {
    Ask {
        method,
        host,
        target: target.to_owned(),
        headers,
    }
}

impl Ask {
    pub(super) fn live(&self) -> Request {
        let request = Request::new(self.method, &self.target).host(self.host);
        let fields = self.headers.iter();
        fields.fold(request, |request, (name, value)| {
            request.header(name, value)
        })
    }

    /// The arguments that ask the command for it.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            self.method.to_owned(),
            format!("http://{}{}", self.host, self.target),
        ];
        for (name, value) in self.headers {
            arguments.extend(["-H".to_owned(), format!("{name}: {value}")]);
        }
        arguments
    }
}

/// 200 routes on 20 services with all kinds of conditions, and plugins at every scope. Whatever is
/// asked about stands on one line, so that a place tells which one it is.
pub(super) fn site(origin: &Origin) -> String {
    let mut text = String::from("services:\n");
    for service in 0..20 {
        let (host, path) = match service % 4 {
            0 => ("pool".to_owned(), "/"),
            1 => ("127.0.0.1".to_owned(), "/base"),
            2 => ("127.0.0.1".to_owned(), "/base/"),
            _ => ("hosted".to_owned(), "/"),
        };
        text.push_str(&format!(
            "- name: s{service}\n  host: {host}\n  port: {}\n  path: {path}\n  routes:\n",
            origin.port()
        ));
        for route in (0..200).filter(|route| route % 20 == service) {
            text.push_str(&format!(
                "  - {{ name: r{route}, {} }}\n",
                conditions(route)
            ));
        }
    }
    text.push_str(&format!(
        "upstreams:\n- {{ name: pool, targets: [{{ target: '{0}' }}] }}\n- {{ name: hosted, host_header: inner.test, targets: [{{ target: '{0}' }}] }}\n",
        origin.authority()
    ));
    text.push_str(
        "consumers:
- { username: alice, keyauth_credentials: [{ key: alice-key }] }
- { username: bob, keyauth_credentials: [{ key: bob-key }] }
plugins:
- { name: prometheus }
- { name: rate-limiting, config: { year: 90001, limit_by: ip } }
- { name: rate-limiting, config: { year: 90002, limit_by: ip }, service: s1 }
- { name: rate-limiting, config: { year: 90003, limit_by: ip }, route: r3 }
- { name: rate-limiting, config: { year: 90004, limit_by: ip }, consumer: alice }
- { name: rate-limiting, config: { year: 90005, limit_by: ip }, consumer: alice, route: r43 }
- { name: rate-limiting, config: { year: 90006, limit_by: ip }, route: r5, enabled: false }
- { name: rate-limiting, config: { year: 90007, limit_by: ip }, route: r6, protocols: [https] }
- { name: correlation-id, config: { header_name: X-Of-Service, echo_downstream: true }, service: s2 }
- { name: correlation-id, config: { header_name: X-Of-Route, echo_downstream: true }, route: r82 }
- { name: key-auth, config: { hide_credentials: true }, service: s3 }
- { name: key-auth, config: { anonymous: bob }, service: s4 }
- { name: request-termination, config: { status_code: 418 }, route: r8 }
- { name: request-termination, config: { status_code: 451, trigger: stop }, service: s5 }
",
    );
    text
}

fn conditions(route: usize) -> String {
    let nth = route % 40;
    match route {
        0..40 => format!("hosts: [h{nth}.test], paths: [/a]"),
        40..80 => {
            let method = if nth.is_multiple_of(2) { "GET" } else { "POST" };
            format!("paths: [/b/{}], methods: [{method}]", nth / 2)
        }
        80..120 if nth < 3 => format!("paths: ['~/c/(?<rest>.*)'], regex_priority: {nth}"),
        80..120 => format!(
            "paths: ['~/c/{nth}/(?<id>[0-9]+)$', /c/{nth}], regex_priority: {}, strip_path: false",
            nth + 10
        ),
        120..160 => {
            format!("paths: [/d, /d/deep], headers: {{ x-tenant: [t{nth}, '~*^vip-{nth}-'] }}")
        }
        160..199 => format!(
            "hosts: ['*.w{}.test', 'w{nth}.test'], paths: [/e, /e/{nth}], preserve_host: true, path_handling: v{}",
            nth / 2,
            nth % 2
        ),
        _ => "paths: [/]".to_owned(),
    }
}

pub(super) fn requests() -> Vec<Ask> {
    let alice: &[(&str, &str)] = &[("apikey", "alice-key")];
    let mut requests = vec![
        ask("GET", "h0.test", "/a/x", &[]),
        ask("GET", "H1.test.", "/a", &[("X-Forwarded-For", "10.0.0.1")]),
        ask("GET", "h2.test:81", "/a/%7Ex//y", &[]),
        ask("GET", "h3.test", "/a/b", alice),
        ask("GET", "h3.test", "/a/b", &[("apikey", "bob-key")]),
        ask("GET", "h3.test", "/a/b", &[]),
        ask("GET", "h4.test", "/a", &[("apikey", "nobody's")]),
        ask("GET", "h5.test", "/a", &[("stop", "1")]),
        ask("GET", "h5.test", "/a", &[("X-Consumer-Username", "root")]),
        ask(
            "GET",
            "h6.test",
            "/a",
            &[("Connection", "x-a, close"), ("X-A", "1")],
        ),
        ask("GET", "h8.test", "/a", &[]),
        ask("POST", "b.test", "/b/1/c", alice),
        ask(
            "GET",
            "b.test",
            "/b/1",
            &[("TE", "trailers"), ("Keep-Alive", "1")],
        ),
        ask("GET", "c.test", "/c/41/7", &[]),
        ask("GET", "c.test", "/c/9/77", &[]),
        ask(
            "GET",
            "c.test",
            "/c/9/seven",
            &[("Proxy-Authorization", "Basic eA==")],
        ),
        ask("GET", "d.test", "/d/deep/er", &[("X-Tenant", "T7")]),
        ask(
            "GET",
            "d.test",
            "/d",
            &[("x-tenant", "none"), ("x-tenant", "vip-9-x")],
        ),
        ask("GET", "a.w3.test", "/e/7x", &[]),
        ask("GET", "w8.test:8080", "/e", &[("Via", "1.1 edge")]),
        ask("GET", "z.test", "/nowhere%20/./else", &[("Cookie", "a=b")]),
        ask("DELETE", "z.test", "/b/1", &[("X-Request-Id", "7")]),
        ask(
            "GET",
            "w8.test",
            "/e",
            &[
                ("Connection", "keep-alive, Upgrade"),
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ],
        ),
    ];
    for (number, request) in requests.iter_mut().enumerate() {
        request.target.push_str(&format!("?n={number}-"));
    }
    requests
}

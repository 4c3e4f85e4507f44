//! Which route a request takes, and which path its origin then receives.

use crate::harness::{Blueprint, Gateway, Origin, Reply, Request, Response, dedent, one_service};

/// One service per route: the origin's reply names the route that won.
struct Site {
    gateway: Gateway,
    _origin: Origin,
}

impl Site {
    /// Each route is its name and its other fields in flow style, in file order.
    fn new(routes: &[(&str, &str)]) -> Self {
        Self::with("", routes)
    }

    fn with(settings: &str, routes: &[(&str, &str)]) -> Self {
        let origin = Origin::start(|request| {
            let name = request.target.split(['/', '?']).nth(1).unwrap_or_default();
            Reply::ok(name)
        });
        let mut yaml = String::from("services:\n");
        for (name, fields) in routes {
            yaml.push_str(&format!("- name: {name}-service\n  url: {origin}/{name}\n"));
            yaml.push_str(&format!("  routes:\n  - {{ name: {name}, {fields} }}\n"));
        }
        Self {
            gateway: Gateway::start_with(settings, &yaml),
            _origin: origin,
        }
    }

    /// The name of the route that took the request, or the status if none did.
    fn winner(&self, request: &Request) -> String {
        name_or_status(&self.gateway.send(request))
    }

    fn winner_of(&self, path: &str) -> String {
        self.winner(&Request::get(path))
    }

    fn winner_for_host(&self, host: &str) -> String {
        self.winner(&Request::get("/").host(host))
    }
}

fn name_or_status(response: &Response) -> String {
    if response.status == 200 {
        response.text()
    } else {
        response.status.to_string()
    }
}

/// S01
#[test]
fn two_prefixes_reach_two_origins_and_replies_come_back_unchanged() {
    let users = Origin::start(|_| Reply::status(201).header("X-From", "users").body("created"));
    let orders = Origin::start(|_| Reply::status(418).header("X-From", "orders").body("teapot"));
    let gateway = Gateway::start(&format!(
        "
        services:
        - {{ name: users, url: '{users}', routes: [{{ name: users, paths: [/users] }}] }}
        - {{ name: orders, url: '{orders}', routes: [{{ name: orders, paths: [/orders] }}] }}
        "
    ));

    let (first, second) = (gateway.get("/users"), gateway.get("/orders"));

    assert_eq!(
        (first.status, first.header("x-from"), first.text().as_str()),
        (201, Some("users"), "created")
    );
    assert_eq!(
        (
            second.status,
            second.header("x-from"),
            second.text().as_str()
        ),
        (418, Some("orders"), "teapot")
    );
}

/// S02
#[test]
fn a_prefix_matches_byte_by_byte_without_segment_boundary() {
    let site = Site::new(&[("users", "paths: [/users]")]);

    for (path, winner) in [
        ("/users", "users"),
        ("/users/", "users"),
        ("/users/7", "users"),
        ("/users?page=2", "users"),
        ("/usersandmore", "users"),
        ("/Users", "404"),
        ("/user", "404"),
        ("/", "404"),
    ] {
        assert_eq!(site.winner_of(path), winner, "{path}");
    }
}

/// S02, S06
#[test]
fn an_unmatched_request_gets_the_exact_404() {
    let site = Site::new(&[("users", "paths: [/users]")]);

    let response = site.gateway.get("/nowhere");

    let id = response
        .header("x-kong-request-id")
        .expect("a request id")
        .to_owned();
    let body = format!(
        "{{\n  \"message\":\"no Route matched with those values\",\n  \"request_id\":\"{id}\"\n}}"
    );
    assert_eq!((response.status, response.text()), (404, body));
    assert_eq!(
        response.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    assert!(
        response
            .header("x-kong-response-latency")
            .is_some_and(|ms| ms.parse::<u32>().is_ok())
    );
    assert!(
        response
            .header("server")
            .is_some_and(|server| server.starts_with("tollgate/"))
    );
    assert!(
        response.header("via").is_none() && response.header("x-kong-upstream-latency").is_none()
    );
}

/// S03
#[test]
fn the_longest_prefix_wins_in_any_file_order() {
    let routes = [
        ("root", "paths: [/]"),
        ("users", "paths: [/users]"),
        ("admin", "paths: [/users/admin]"),
    ];
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let site = Site::new(&order.map(|index| routes[index]));

        let winners = ["/users/admin/1", "/users/1", "/other"].map(|path| site.winner_of(path));

        assert_eq!(winners, ["admin", "users", "root"], "{order:?}");
    }
}

/// S03
#[test]
fn the_same_route_wins_a_thousand_times_of_a_thousand() {
    let site = Site::new(&[
        ("users", "paths: [/users]"),
        ("admin", "paths: [/users/admin]"),
    ]);
    let mut client = site.gateway.connect();

    for attempt in 0..1000 {
        assert_eq!(
            name_or_status(&client.send(&Request::get("/users/admin"))),
            "admin",
            "attempt {attempt}"
        );
    }
}

/// S04
#[test]
fn a_regex_path_is_anchored_at_the_start_only() {
    let site = Site::new(&[
        ("profile", "paths: ['~/api/users/[^/]+/profile$']"),
        ("digits", r"paths: ['~/v\d+/things']"),
    ]);

    for (path, winner) in [
        ("/api/users/7/profile", "profile"),
        ("/api/users/7/profile/x", "404"),
        ("/api/users/7/8/profile", "404"),
        ("/x/api/users/7/profile", "404"),
        ("/v12/things/and/more", "digits"),
        ("/V12/things", "404"),
    ] {
        assert_eq!(site.winner_of(path), winner, "{path}");
    }
}

/// S04
#[test]
fn a_regex_beats_even_the_exact_prefix_and_its_priority_decides_among_regexes() {
    let site = Site::new(&[
        ("exact", "paths: [/api/users/list]"),
        ("low", "paths: ['~/api/users/[a-z]+'], regex_priority: 1"),
        ("high", "paths: ['~/api/users/l.*'], regex_priority: 2"),
    ]);

    assert_eq!(site.winner_of("/api/users/list"), "high");
    assert_eq!(site.winner_of("/api/users/abc"), "low");
}

/// S05
#[test]
fn a_method_that_no_route_takes_is_a_404_as_in_kong() {
    let site = Site::new(&[
        ("read", "paths: [/a], methods: [GET, HEAD]"),
        ("purge", "paths: [/p], methods: [PURGE]"),
    ]);

    assert_eq!(site.winner(&Request::get("/a")), "read");
    assert_eq!(site.winner(&Request::new("PURGE", "/p")), "purge");
    let refused = site.gateway.send(&Request::post("/a", "x"));
    assert_eq!(
        (refused.status, refused.message().as_str()),
        (404, "no Route matched with those values")
    );
    assert!(refused.header("allow").is_none());
}

/// S05
#[test]
fn with_method_not_allowed_405_the_answer_names_the_methods() {
    let routes = [
        ("read", "paths: [/a], methods: [GET, HEAD]"),
        ("write", "paths: [/a], methods: [PUT]"),
    ];
    let site = Site::with("method_not_allowed: 405", &routes);

    let refused = site.gateway.send(&Request::new("DELETE", "/a"));

    assert_eq!(refused.status, 405);
    let allow = refused.header("allow").expect("an Allow header");
    let mut methods: Vec<&str> = allow.split(',').map(str::trim).collect();
    methods.sort_unstable();
    assert_eq!(methods, ["GET", "HEAD", "PUT"]);
    assert_eq!(site.winner(&Request::new("DELETE", "/elsewhere")), "404");
}

#[test]
fn hosts_match_without_case_port_or_trailing_dot() {
    let site = Site::new(&[("plain", "hosts: [Example.com]")]);

    for host in [
        "example.com",
        "EXAMPLE.COM",
        "example.com:1234",
        "example.com.",
    ] {
        assert_eq!(site.winner_for_host(host), "plain", "{host}");
    }
    for host in ["www.example.com", "example.com.evil.test", "example.org"] {
        assert_eq!(site.winner_for_host(host), "404", "{host}");
    }
}

#[test]
fn wildcard_hosts_match_several_labels_but_not_none() {
    let site = Site::new(&[
        ("left", "hosts: ['*.example.com']"),
        ("right", "hosts: ['shop.*']"),
    ]);

    for (host, winner) in [
        ("a.example.com", "left"),
        ("a.b.example.com", "left"),
        ("A.Example.COM:80", "left"),
        ("example.com", "404"),
        ("aexample.com", "404"),
        ("shop.test", "right"),
        ("shop.co.uk", "right"),
        ("shop", "404"),
        ("myshop.test", "404"),
    ] {
        assert_eq!(site.winner_for_host(host), winner, "{host}");
    }
}

#[test]
fn a_plain_host_goes_before_a_wildcard() {
    let site = Site::new(&[
        ("wild", "hosts: ['*.example.com']"),
        ("plain", "hosts: [api.example.com]"),
    ]);

    assert_eq!(site.winner_for_host("api.example.com"), "plain");
    assert_eq!(site.winner_for_host("www.example.com"), "wild");
}

#[test]
fn a_host_with_port_needs_that_port_and_goes_before_one_without() {
    let site = Site::new(&[
        ("any", "hosts: [a.test]"),
        ("exact", "hosts: ['a.test:8080']"),
    ]);

    assert_eq!(site.winner_for_host("a.test:8080"), "exact");
    assert_eq!(site.winner_for_host("a.test:8081"), "any");
    assert_eq!(site.winner_for_host("a.test"), "any");
}

#[test]
fn a_host_without_port_is_taken_to_name_the_port_of_the_listener() {
    let origin = Origin::replying("hello");
    let blueprint = Blueprint::new("");
    let port = blueprint.port();
    let gateway = blueprint.start(&format!(
        "
        services:
        - {{ name: a, url: '{origin}', routes: [{{ name: a, hosts: ['a.test:{port}'] }}] }}
        "
    ));

    assert_eq!(gateway.send(&Request::get("/").host("a.test")).status, 200);
    assert_eq!(
        gateway.send(&Request::get("/").host("a.test:1")).status,
        404
    );
}

#[test]
fn every_header_name_must_match_with_any_of_its_values() {
    let site = Site::new(&[("both", "headers: { x-env: [test, dev], x-team: [red] }")]);
    let visit = |fields: &[(&str, &str)]| {
        let request = fields
            .iter()
            .fold(Request::get("/"), |request, (name, value)| {
                request.header(name, value)
            });
        site.winner(&request)
    };

    assert_eq!(visit(&[("X-Env", "dev"), ("X-Team", "red")]), "both");
    assert_eq!(visit(&[("x-env", "TEST"), ("x-team", "Red")]), "both");
    assert_eq!(
        visit(&[("X-Env", "prod"), ("X-Env", "dev"), ("X-Team", "red")]),
        "both"
    );
    assert_eq!(visit(&[("X-Env", "dev")]), "404");
    assert_eq!(visit(&[("X-Env", "prod"), ("X-Team", "red")]), "404");
    assert_eq!(visit(&[("X-Env", "dev, test"), ("X-Team", "red")]), "404");
}

#[test]
fn a_header_value_can_be_a_regex() {
    let site = Site::new(&[("beta", r"headers: { x-version: ['~*^2\.\d+'] }")]);

    assert_eq!(
        site.winner(&Request::get("/").header("X-Version", "2.17-rc")),
        "beta"
    );
    assert_eq!(
        site.winner(&Request::get("/").header("X-Version", "12.1")),
        "404"
    );
}

#[test]
fn more_attributes_beat_a_longer_path() {
    let site = Site::new(&[
        ("long", "paths: [/a/very/long/path]"),
        ("host", "hosts: [a.test], paths: [/a]"),
        ("host-only", "hosts: [a.test]"),
    ]);

    assert_eq!(
        site.winner(&Request::get("/a/very/long/path").host("a.test")),
        "host"
    );
    assert_eq!(
        site.winner(&Request::get("/a/very/long/path").host("b.test")),
        "long"
    );
    assert_eq!(
        site.winner(&Request::get("/other").host("a.test")),
        "host-only"
    );
}

#[test]
fn more_header_names_go_before_a_regex_path() {
    let site = Site::new(&[
        ("regex", "paths: ['~/a.*'], headers: { x-a: ['1'] }"),
        (
            "headers",
            "paths: [/a], headers: { x-a: ['1'], x-b: ['1'] }",
        ),
    ]);

    assert_eq!(
        site.winner(&Request::get("/abc").header("X-A", "1").header("X-B", "1")),
        "headers"
    );
    assert_eq!(
        site.winner(&Request::get("/abc").header("X-A", "1")),
        "regex"
    );
}

#[test]
fn a_better_candidate_that_fails_falls_through_to_the_next() {
    let site = Site::new(&[
        ("strict", "hosts: [a.test], paths: [/a], methods: [PUT]"),
        ("loose", "paths: [/a]"),
        ("catch-all", "paths: [/]"),
    ]);

    assert_eq!(site.winner(&Request::get("/a/b").host("a.test")), "loose");
    assert_eq!(site.winner(&Request::get("/b").host("a.test")), "catch-all");
}

#[test]
fn equal_routes_are_decided_by_age_and_then_by_file_order() {
    let aged = Site::new(&[
        ("young", "paths: [/a], created_at: 200"),
        ("old", "paths: [/a], created_at: 100"),
    ]);
    let placed = Site::new(&[("first", "paths: [/a]"), ("second", "paths: [/a]")]);

    assert_eq!(aged.winner_of("/a"), "old");
    assert_eq!(placed.winner_of("/a"), "first");
}

#[test]
fn one_route_competes_with_each_of_its_paths_by_itself() {
    let site = Site::new(&[("both", "paths: [/a, /a/b/c]"), ("middle", "paths: [/a/b]")]);

    assert_eq!(site.winner_of("/a/b/c"), "both");
    assert_eq!(site.winner_of("/a/b/x"), "middle");
    assert_eq!(site.winner_of("/a/x"), "both");
}

#[test]
fn a_disabled_service_takes_its_routes_away() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&format!("{}\n  enabled: false", one_service(&origin)));

    let response = gateway.get("/");

    assert_eq!(
        (response.status, response.message().as_str()),
        (404, "no Route matched with those values")
    );
}

/// A catch-all route that neither strips nor has a service path shows the path as it is forwarded.
#[test]
fn paths_are_normalised_once_for_matching_and_for_the_origin() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&format!("{}\n    strip_path: false", one_service(&origin)));

    for (requested, forwarded) in [
        ("/a%2Fb", "/a%2Fb"),
        ("/a%2fb", "/a%2Fb"),
        ("/%61bc", "/abc"),
        ("//a///b", "/a/b"),
        ("/a/./b/../c", "/a/c"),
        ("/a/%2e%2e/b", "/b"),
        ("/../../etc", "/etc"),
        ("/a%20b", "/a%20b"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a%25b", "/a%25b"),
        ("/%252e%252e/a", "/%252e%252e/a"),
        ("/a/..", "/"),
        ("/A", "/A"),
        ("/a;x=1/b", "/a;x=1/b"),
        ("/a/", "/a/"),
        ("/a?", "/a?"),
        ("/a?b=%2f../%2e&c=+", "/a?b=%2f../%2e&c=+"),
        ("/a?x=//y/../z", "/a?x=//y/../z"),
    ] {
        assert_eq!(gateway.get(requested).status, 200, "{requested}");
        assert_eq!(origin.last().target, forwarded, "{requested}");
    }
}

#[test]
fn routes_match_the_normalised_path() {
    let site = Site::new(&[
        ("encoded", "paths: ['/a%2Fb']"),
        ("admin", "paths: [/admin]"),
        ("blank", r"paths: ['~/with space$']"),
    ]);

    for (path, winner) in [
        ("/a%2fb", "encoded"),
        ("/a/b", "404"),
        ("/public/../admin", "admin"),
        ("/%61dmin", "admin"),
        ("/x/%2e%2e/admin", "admin"),
        ("//admin", "admin"),
        ("/%2561dmin", "404"),
        ("/admin/../public", "404"),
        ("/with%20space", "blank"),
    ] {
        assert_eq!(site.winner_of(path), winner, "{path}");
    }
}

const CONCATENATION: &[(&str, Option<&str>, &str, [&str; 4])] = &[
    // service path, route path, request: v0 strip, v0 keep, v1 strip, v1 keep
    ("/", Some("/"), "/", ["/", "/", "/", "/"]),
    (
        "/",
        Some("/"),
        "/route/",
        ["/route/", "/route/", "/route/", "/route/"],
    ),
    (
        "/",
        Some("/route"),
        "/route",
        ["/", "/route", "/", "/route"],
    ),
    (
        "/",
        Some("/route"),
        "/route/",
        ["/", "/route/", "/", "/route/"],
    ),
    (
        "/",
        Some("/route"),
        "/routereq",
        ["/req", "/routereq", "/req", "/routereq"],
    ),
    (
        "/",
        Some("/route/"),
        "/route/req",
        ["/req", "/route/req", "/req", "/route/req"],
    ),
    (
        "/srv",
        Some("/rou"),
        "/roureq",
        ["/srv/req", "/srv/roureq", "/srvreq", "/srvroureq"],
    ),
    (
        "/srv/",
        Some("/rou"),
        "/rou",
        ["/srv", "/srv/rou", "/srv/", "/srv/rou"],
    ),
    (
        "/service",
        Some("/"),
        "/",
        ["/service", "/service", "/service", "/service"],
    ),
    (
        "/service",
        Some("/"),
        "/route",
        [
            "/service/route",
            "/service/route",
            "/serviceroute",
            "/serviceroute",
        ],
    ),
    (
        "/service",
        Some("/route"),
        "/route",
        ["/service", "/service/route", "/service", "/serviceroute"],
    ),
    (
        "/service",
        Some("/route"),
        "/route/",
        [
            "/service/",
            "/service/route/",
            "/service/",
            "/serviceroute/",
        ],
    ),
    (
        "/service",
        Some("/route"),
        "/routereq",
        [
            "/service/req",
            "/service/routereq",
            "/servicereq",
            "/serviceroutereq",
        ],
    ),
    (
        "/service",
        Some("/route/"),
        "/route/",
        ["/service/", "/service/route/", "/service", "/serviceroute/"],
    ),
    (
        "/service",
        Some("/route/"),
        "/route/req",
        [
            "/service/req",
            "/service/route/req",
            "/servicereq",
            "/serviceroute/req",
        ],
    ),
    (
        "/service/",
        Some("/"),
        "/route/",
        [
            "/service/route/",
            "/service/route/",
            "/service/route/",
            "/service/route/",
        ],
    ),
    (
        "/service/",
        Some("/route"),
        "/route",
        ["/service", "/service/route", "/service/", "/service/route"],
    ),
    (
        "/service/",
        Some("/route"),
        "/route/",
        [
            "/service/",
            "/service/route/",
            "/service/",
            "/service/route/",
        ],
    ),
    (
        "/service/",
        Some("/route"),
        "/routereq",
        [
            "/service/req",
            "/service/routereq",
            "/service/req",
            "/service/routereq",
        ],
    ),
    (
        "/service/",
        Some("/route/"),
        "/route/req",
        [
            "/service/req",
            "/service/route/req",
            "/service/req",
            "/service/route/req",
        ],
    ),
    (
        "/service",
        None,
        "/",
        ["/service", "/service", "/service", "/service"],
    ),
    (
        "/service",
        None,
        "/route/",
        [
            "/service/route/",
            "/service/route/",
            "/serviceroute/",
            "/serviceroute/",
        ],
    ),
    (
        "/service",
        Some("/route"),
        "/route../req",
        [
            "/service/req",
            "/service/route../req",
            "/servicereq",
            "/serviceroute../req",
        ],
    ),
];

const MODES: [&str; 4] = [
    "path_handling: v0, strip_path: true",
    "path_handling: v0, strip_path: false",
    "path_handling: v1, strip_path: true",
    "path_handling: v1, strip_path: false",
];

/// S65
#[test]
fn service_path_and_request_path_are_joined_as_in_kongs_table() {
    let origin = Origin::replying("hello");
    let mut yaml = String::from("services:\n");
    for (row, (service, route, ..)) in CONCATENATION.iter().enumerate() {
        yaml.push_str(&format!(
            "- name: s{row}\n  url: {origin}{service}\n  routes:\n"
        ));
        for (mode, fields) in MODES.iter().enumerate() {
            let paths = route
                .map(|path| format!(", paths: [{path}]"))
                .unwrap_or_default();
            yaml.push_str(&format!(
                "  - {{ name: r{row}-{mode}, hosts: [r{row}-{mode}.test], {fields}{paths} }}\n"
            ));
        }
    }
    let gateway = Gateway::start(&yaml);

    for (row, (service, route, request, expected)) in CONCATENATION.iter().enumerate() {
        for (mode, path) in expected.iter().enumerate() {
            let response =
                gateway.send(&Request::get(request).host(&format!("r{row}-{mode}.test")));
            let case = format!(
                "service {service}, route {route:?}, request {request}, {}",
                MODES[mode]
            );
            assert_eq!(
                (response.status, origin.last().target.as_str()),
                (200, *path),
                "{case}"
            );
        }
    }
}

#[test]
fn a_regex_strips_what_it_matched_and_the_query_follows_untouched() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&format!(
        r"
        services:
        - name: a
          url: {origin}/base
          routes:
          - name: a
            paths: ['~/v\d+/(?<name>[a-z]+)']
        "
    ));

    assert_eq!(gateway.get("/v2/users/7?a=%20b&&c").status, 200);

    assert_eq!(origin.last().target, "/base/7?a=%20b&&c");
}

/// S65
#[test]
fn an_https_only_route_asks_plain_clients_to_upgrade() {
    let site = Site::new(&[("secure", "paths: [/], protocols: [https]")]);

    let response = site.gateway.get("/a");

    assert_eq!(
        (response.status, response.message().as_str()),
        (426, "Please use HTTPS protocol")
    );
    assert_eq!(response.header("upgrade"), Some("TLS/1.2, HTTP/1.1"));
    assert_eq!(response.header("connection"), Some("keep-alive, Upgrade"));
}

#[test]
fn a_redirect_to_https_names_the_host_that_a_trusted_proxy_forwards() {
    let fields = "paths: [/], protocols: [https], https_redirect_status_code: 301";
    let request = Request::get("/a")
        .host("inner.test:8000")
        .header("X-Forwarded-Host", "shop.test:80");
    let location = |settings| {
        let site = Site::with(settings, &[("secure", fields)]);
        let response = site.gateway.send(&request);
        response.header("location").map(str::to_owned)
    };

    let trusting = location("trusted_ips: 127.0.0.1");
    assert_eq!(trusting.as_deref(), Some("https://shop.test/a"));
    assert_eq!(location("").as_deref(), Some("https://inner.test/a"));
}

#[test]
fn a_route_for_grpc_refuses_what_is_no_grpc_and_what_is_no_http_2() {
    let site = Site::new(&[
        ("calls", "paths: [/greeter], protocols: [grpc, grpcs]"),
        ("rest", "paths: [/]"),
    ]);

    let plain = site.gateway.get("/greeter/Hello");
    assert_eq!(
        (plain.status, plain.message().as_str()),
        (415, "Non-gRPC request matched gRPC route")
    );

    let call = Request::new("POST", "/greeter/Hello").header("Content-Type", "application/grpc");
    let call = site.gateway.send(&call);
    assert_eq!(
        (call.status, call.message().as_str()),
        (426, "Please use HTTP2 protocol")
    );
    assert_eq!(call.header("upgrade"), Some("HTTP/2"));
    assert_eq!(call.header("connection"), Some("keep-alive, Upgrade"));
    assert_eq!(site.winner_of("/other"), "rest");
}

#[test]
fn without_tls_a_route_is_found_whatever_its_server_names_are() {
    let site = Site::new(&[
        ("named", "paths: [/a], snis: [a.test, '*.b.test']"),
        ("rest", "paths: [/a]"),
    ]);

    assert_eq!(site.winner_of("/a"), "named");
}

#[test]
fn an_https_only_route_can_redirect_with_host_target_and_query() {
    for status in [301, 302, 307, 308] {
        let fields =
            format!("paths: [/], protocols: [https], https_redirect_status_code: {status}");
        let site = Site::new(&[("secure", &fields)]);

        let response = site
            .gateway
            .send(&Request::get("/a%20b?c=d").host("shop.test:8000"));

        assert_eq!((response.status, response.body.len()), (status, 0));
        assert_eq!(
            response.header("location"),
            Some("https://shop.test/a%20b?c=d")
        );
    }
}

#[test]
fn a_trusted_proxy_that_spoke_https_satisfies_an_https_only_route() {
    let routes = [("secure", "paths: [/], protocols: [https]")];
    let trusting = Site::with("trusted_ips: 127.0.0.1", &routes);
    let wary = Site::new(&routes);
    let request = Request::get("/").header("X-Forwarded-Proto", "https");

    assert_eq!(trusting.winner(&request), "secure");
    assert_eq!(wary.winner(&request), "426");
}

#[test]
fn routes_may_stand_beside_their_services_and_refer_by_name_or_id() {
    let origin = Origin::replying("hello");
    let id = "7fca84d6-7d37-4a74-a7b0-93e576089a41";
    let gateway = Gateway::start(&format!(
        "
        routes:
        - {{ name: by-name, paths: [/a], service: flat }}
        - {{ name: by-id, paths: [/b], service: {id} }}
        - {{ name: by-record, paths: [/c], service: {{ name: flat }} }}
        services:
        - {{ name: flat, id: {id}, url: '{origin}' }}
        "
    ));

    for path in ["/a", "/b", "/c"] {
        assert_eq!(gateway.get(path).status, 200, "{path}");
    }
}

/// S51
#[test]
fn an_old_format_version_turns_patterns_into_regexes() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&dedent(&format!(
        r#"
        _format_version: "1.1"
        services:
        - name: a
          url: {origin}
          routes:
          - name: pattern
            paths: ['/a/(\d+)$']
        "#
    )));

    assert_eq!(gateway.get("/a/12").status, 200);
    assert_eq!(gateway.get("/a/x").status, 404);
}

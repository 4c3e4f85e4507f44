//! What the router decides, sentence by sentence, and that it agrees with the obvious matcher.

use super::*;

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn host(host: &str) -> Rule {
    Rule {
        hosts: texts(&[host]),
        ..Rule::default()
    }
}

fn path(path: &str) -> Rule {
    Rule {
        paths: texts(&[path]),
        ..Rule::default()
    }
}

fn method(method: &str) -> Rule {
    Rule {
        methods: texts(&[method]),
        ..Rule::default()
    }
}

fn header(name: &str, value: &str) -> Rule {
    Rule {
        headers: vec![(name.to_owned(), texts(&[value]))],
        ..Rule::default()
    }
}

/// One rule with the conditions of both.
fn both(left: Rule, right: Rule) -> Rule {
    Rule {
        hosts: [left.hosts, right.hosts].concat(),
        paths: [left.paths, right.paths].concat(),
        methods: [left.methods, right.methods].concat(),
        headers: [left.headers, right.headers].concat(),
        ..left
    }
}

fn router(rules: &[Rule]) -> Router {
    Router::build(rules, Flavor::default()).unwrap()
}

/// A GET request on port 80 with the header `x-a: 1`.
fn with_key<R>(host: &str, path: &str, look_up: impl FnOnce(&Key<'_>) -> R) -> R {
    let headers =
        [("x-a", "1")].map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    let headers = Headers::from_iter(headers);
    look_up(&Key {
        host,
        path: path.as_bytes(),
        ..Key::plain(&headers)
    })
}

fn route(rules: &[Rule], host: &str, path: &str) -> Option<usize> {
    let router = router(rules);
    with_key(host, path, |key| router.find(key).map(|found| found.route))
}

#[test]
fn more_conditions_beat_a_longer_path() {
    assert_eq!(
        route(
            &[path("/orders/new"), both(host("a.test"), path("/"))],
            "a.test",
            "/orders/new"
        ),
        Some(1)
    );
    assert_eq!(
        route(
            &[host("a.test"), both(host("a.test"), path("/"))],
            "a.test",
            "/"
        ),
        Some(1)
    );
}

#[test]
fn a_regex_beats_even_the_whole_path_as_a_prefix() {
    assert_eq!(
        route(
            &[path("/orders/42"), path(r"~/orders/\d")],
            "",
            "/orders/42"
        ),
        Some(1)
    );
}

#[test]
fn a_prefix_needs_no_segment_boundary() {
    assert_eq!(route(&[path("/foo")], "", "/foobar"), Some(0));
}

#[test]
fn a_better_candidate_that_fails_falls_through_to_the_next() {
    let rules = [
        path("/"),
        both(path("/orders"), method("POST")),
        both(path("/orders"), header("x-a", "2")),
    ];
    assert_eq!(route(&rules, "", "/orders"), Some(0));
}

#[test]
fn a_host_with_its_port_comes_before_the_host_alone() {
    assert_eq!(
        route(&[host("a.test"), host("a.test:80")], "a.test", "/"),
        Some(1)
    );
}

#[test]
fn among_equal_routes_the_older_or_else_the_first_wins() {
    let dated = |created_at| Rule {
        created_at: Some(created_at),
        ..path("/")
    };
    assert_eq!(route(&[path("/"), path("/")], "", "/"), Some(0));
    assert_eq!(route(&[dated(2), dated(1)], "", "/"), Some(1));
    assert_eq!(route(&[path("/"), dated(1)], "", "/"), Some(0));
}

#[test]
fn a_match_says_what_strip_path_cuts() {
    let router = router(&[
        path(r"~/users/(?<id>\d+)"),
        path("/static/"),
        host("a.test"),
    ]);
    let cut = |host, path| with_key(host, path, |key| router.find(key).unwrap().path.cut_len());
    assert_eq!(cut("", "/users/42/x"), "/users/42".len());
    assert_eq!(cut("", "/static/x"), "/static/".len());
    assert_eq!(cut("a.test", "/x"), 1);
}

#[test]
fn captures_can_be_taken_from_the_path_that_matched() {
    let router = router(&[path(r"~/users/(?<id>\d+)")]);
    let path = "/users/42/x";
    with_key("", path, |key| {
        let MatchedPath::Regex { pattern, .. } = router.find(key).unwrap().path else {
            unreachable!()
        };
        let regex = router.regex(pattern);
        assert_eq!(&regex.captures(path.as_bytes()).unwrap()["id"], b"42");
    });
}

#[test]
fn the_allowed_methods_are_those_of_routes_that_only_the_method_excludes() {
    let rules = [
        both(
            path("/orders"),
            Rule {
                methods: texts(&["PUT", "POST"]),
                ..Rule::default()
            },
        ),
        both(path("/orders"), method("POST")),
        both(path("/users"), method("DELETE")),
        both(both(path("/orders"), method("PATCH")), header("x-a", "2")),
    ];
    assert_eq!(
        with_key("", "/orders", |key| router(&rules)
            .allowed_methods(key)
            .join(", ")),
        "POST, PUT"
    );
}

#[test]
fn every_invalid_pattern_is_reported() {
    let rules = [
        both(both(host("a.*.b"), path("/a//b")), header("x-a", "~*(")),
        path("/"),
        both(path(r"~/(?!a)"), header("x a", "1")),
    ];
    let invalid = Router::build(&rules, Flavor::default()).unwrap_err();
    let places: Vec<_> = invalid
        .iter()
        .map(|invalid| (invalid.rule, invalid.field, invalid.pattern.as_str()))
        .collect();
    assert_eq!(
        places,
        [
            (0, Field::Hosts, "a.*.b"),
            (0, Field::Paths, "/a//b"),
            (0, Field::Headers, "~*("),
            (2, Field::Paths, r"~/(?!a)"),
            (2, Field::Headers, "x a"),
        ]
    );
}

fn sni(name: &str) -> Rule {
    Rule {
        snis: texts(&[name]),
        ..Rule::default()
    }
}

#[test]
fn a_server_name_is_compared_only_where_there_is_tls() {
    let router = router(&[sni("a.test"), sni("*.b.test"), sni("c.*")]);
    let found = |sni| {
        let headers = Headers::default();
        let key = Key {
            sni,
            ..Key::plain(&headers)
        };
        router.find(&key).map(|found| found.route)
    };
    for (name, route) in [
        ("a.test", Some(0)),
        ("A.test.", Some(0)),
        ("x.y.b.test", Some(1)),
        ("b.test", None),
        ("c.d", Some(2)),
        ("", None),
    ] {
        assert_eq!(found(Some(name)), route, "{name}");
    }
    assert_eq!(found(None), Some(0));
}

#[test]
fn an_expression_goes_before_every_attribute_and_the_higher_priority_first() {
    let expression = |source: &str, priority| Rule {
        expression: Some(source.to_owned()),
        priority,
        ..Rule::default()
    };
    let rules = [
        both(host("a.test"), path("~/.*")),
        expression(r#"http.path ^= "/a""#, 1),
        expression(r#"http.path ^= "/a/b""#, 0),
        expression(r#"http.method == "GET" && http.path == "/a""#, 2),
    ];
    let router = Router::build(&rules, Flavor::Expressions).unwrap();
    let winner = |path| {
        with_key("a.test", path, |key| {
            router.find(key).map(|found| found.route)
        })
    };
    assert_eq!(winner("/a"), Some(3));
    assert_eq!(winner("/a/b"), Some(1));
    assert_eq!(winner("/b"), Some(0));
}

#[test]
fn the_allowed_methods_of_expressions_are_those_with_which_they_hold() {
    let rules = [
        Rule {
            expression: Some(
                r#"(http.method == "PUT" || http.method == "POST") && http.path ^= "/a""#
                    .to_owned(),
            ),
            ..Rule::default()
        },
        both(path("/a"), method("DELETE")),
    ];
    let router = Router::build(&rules, Flavor::Expressions).unwrap();
    let allowed = |path| with_key("", path, |key| router.allowed_methods(key).join(", "));
    assert_eq!(allowed("/a"), "DELETE, POST, PUT");
    assert_eq!(allowed("/b"), "");
}

#[test]
fn the_traditional_flavour_puts_hosts_before_paths() {
    let rules = [path("/a"), host("*.test")];
    let winner = |flavor| {
        let router = Router::build(&rules, flavor).unwrap();
        with_key("a.test", "/a", |key| {
            router.find(key).map(|found| found.route)
        })
    };
    assert_eq!(winner(Flavor::TraditionalCompatible), Some(0));
    assert_eq!(winner(Flavor::Traditional), Some(1));
}

#[test]
fn the_traditional_flavour_puts_a_regex_before_more_headers() {
    let two_headers = both(header("x-a", "1"), header("x-b", "2"));
    let rules = [
        both(path("/a"), two_headers),
        both(path("~/a"), header("x-a", "1")),
    ];
    let headers = [("x-a", "1"), ("x-b", "2")];
    let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    let headers = Headers::from_iter(headers);
    let winner = |flavor| {
        let router = Router::build(&rules, flavor).unwrap();
        let key = Key {
            path: b"/a",
            ..Key::plain(&headers)
        };
        router.find(&key).map(|found| found.route)
    };
    assert_eq!(winner(Flavor::TraditionalCompatible), Some(0));
    assert_eq!(winner(Flavor::Traditional), Some(1));
}

#[test]
fn an_explanation_of_expressions_names_what_fails_with_its_value() {
    let expression = |source: &str| Rule {
        expression: Some(source.to_owned()),
        ..Rule::default()
    };
    let rules = [
        expression(r#"http.path ^= "/a" && (http.method == "GET" || http.host == "b.test")"#),
        expression(r#"http.method == "PUT" && (http.path == "/b" || http.headers.x_b == "1")"#),
        expression(r#"!(http.path ^= "/a")"#),
        path("/a"),
    ];
    let router = Router::build(&rules, Flavor::Expressions).unwrap();
    let explanation = with_key("a.test", "/a/b", |key| router.explain(key));
    let met: Vec<String> = explanation.met.iter().map(ToString::to_string).collect();
    assert_eq!(
        met,
        [
            "`http.path ^= \"/a\"` holds: it is `/a/b`",
            "`http.method == \"GET\"` holds: it is `GET`",
        ]
    );
    let reasons: Vec<String> = explanation
        .losers
        .iter()
        .map(|loser| loser.reason.to_string())
        .collect();
    assert_eq!(
        reasons,
        [
            "`http.method == \"PUT\"` does not hold: it is `GET`; `http.path == \"/b\"` does not hold: it is `/a/b`; \
             `http.headers.x_b == \"1\"` does not hold: it has no value",
            "`http.path ^= \"/a\"` holds and should not: it is `/a/b`",
            "it matches, but the winner has an expression, this route has attributes",
        ]
    );
}

#[test]
fn an_explanation_reads_as_sentences() {
    let rules = [
        path("/orders"),
        path("/"),
        both(
            both(host("*.b.test"), path(r"~/users/\d")),
            both(method("POST"), header("x-a", "~*two")),
        ),
        header("x-b", "3"),
    ];
    let explanation = with_key("A.test.", "/orders", |key| router(&rules).explain(key));
    assert_eq!(explanation.winner, Some(0));
    let reasons: Vec<String> = explanation
        .losers
        .iter()
        .map(|loser| loser.reason.to_string())
        .collect();
    assert_eq!(
        reasons,
        [
            "it matches, but the winner's prefix has 7 bytes, this route's has 1",
            "host `a.test` on port 80 is not `*.b.test`; path `/orders` does not begin with a match of \
             `~/users/\\d`; method `GET` is not `POST`; header `x-a` is `1` and should be `~*two`",
            "header `x-b` is absent and should be `3`",
        ]
    );
}

#[test]
fn the_winners_conditions_are_told_with_what_meets_them() {
    let rules = [both(
        both(host("*.test"), path(r"~/users/(?<id>\d+)/([a-z]*)")),
        both(method("GET"), header("x-a", "~*^1")),
    )];
    let explanation = with_key("A.test.", "/users/7/cart", |key| {
        router(&rules).explain(key)
    });
    let met: Vec<String> = explanation.met.iter().map(ToString::to_string).collect();
    assert_eq!(
        met,
        [
            "host `a.test` on port 80 is `*.test`",
            r"the path begins with a match of `~/users/(?<id>\d+)/([a-z]*)`: `/users/7/cart`, id = `7`, 2 = `cart`",
            "the method is `GET`",
            "header `x-a` is `1`, as `~*^1` asks",
        ]
    );
}

#[test]
fn the_nearest_losers_match_or_fail_least_or_share_most_of_the_path() {
    let rules = [
        path("/users"),
        path("/ordinary"),
        both(path("/orders"), method("POST")),
        path("/"),
        both(path("/users"), method("POST")),
        path("/orders"),
        path("/order"),
    ];
    let mut losers = with_key("a.test", "/orders", |key| router(&rules).explain(key)).losers;
    losers.sort_by_key(|loser| std::cmp::Reverse(loser.likeness));
    let nearest: Vec<usize> = losers.iter().map(|loser| loser.route).collect();
    assert_eq!(nearest, [6, 3, 2, 1, 0, 4]);
}

#[test]
fn a_router_can_be_shared_between_threads() {
    fn is_shareable<T: Send + Sync + 'static>(_: &T) {}
    is_shareable(&router(&[path("/")]));
}

//! `tollgate explain`: what it says is what live traffic then does.

mod site;
mod streams;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use self::site::{Ask, ask, requests, site};
use crate::harness::{
    Client, Gateway, Origin, Outcome, Received, Request, Response, free_port, one_service, pool,
    tollgate, wait_until,
};

/// What a rehearsal cannot know beforehand.
const FRESH: &str = "(new for each request)";

/// Runs `explain --format json` with these arguments; gives the exit code and what it printed.
fn explain(source: &[&str], arguments: &[String]) -> (Option<i32>, Value) {
    let mut all = vec!["explain", "--format", "json"];
    all.extend(source);
    all.extend(arguments.iter().map(String::as_str));
    let outcome = tollgate(Path::new("."), &all);
    let explanation = serde_json::from_str(&outcome.stdout);
    assert!(explanation.is_ok(), "{all:?}: {}", outcome.stderr);
    (outcome.code, explanation.expect("it is JSON"))
}

fn offline(file: &Path, arguments: &[String]) -> (Option<i32>, Value) {
    explain(&["-c", file.to_str().expect("a path in UTF-8")], arguments)
}

fn through_admin(gateway: &Gateway, arguments: &[String]) -> (Option<i32>, Value) {
    let admin = format!("http://127.0.0.1:{}", gateway.admin_port());
    explain(&["--admin", &admin], arguments)
}

fn words(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|&word| word.to_owned()).collect()
}

/// The line of the file that a `FILE:LINE:COLUMN` names.
fn line_at(place: &str) -> String {
    let mut parts = place.rsplitn(3, ':');
    let (_column, line, file) = (parts.next(), parts.next(), parts.next());
    let line: usize = line
        .and_then(|line| line.parse().ok())
        .expect("a line number");
    let text = fs::read_to_string(PathBuf::from(file.expect("a file"))).expect("a readable file");
    text.lines()
        .nth(line - 1)
        .expect("the file has the line")
        .to_owned()
}

/// What follows `key: ` in a line of flow style.
fn value_of<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    let (_, rest) = line.split_once(&format!("{key}: "))?;
    rest.split([',', ' ', '}']).next()
}

/// What the access log says of the request whose target this is.
fn logged(gateway: &Gateway, target: &str) -> Value {
    let entry = || {
        let log = gateway.access_log();
        let mut entries = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries.find(|entry| entry["path"] == target)
    };
    wait_until(&format!("{target} in the access log"), || entry().is_some());
    entry().expect("it is there")
}

/// Which instances a response shows to have run: by the header that each of them leaves.
fn seen_live(response: &Response) -> BTreeSet<String> {
    let limit = response.header("X-RateLimit-Limit-Year");
    let headers = ["X-Of-Service", "X-Of-Route"];
    let correlation = headers
        .iter()
        .filter(|name| response.header(name).is_some());
    limit
        .into_iter()
        .map(str::to_owned)
        .chain(correlation.map(|&name| name.to_owned()))
        .collect()
}

/// The same by the lines of the plugins that are explained to run.
fn foretold(explanation: &Value) -> BTreeSet<String> {
    let plugins = explanation["plugins"].as_array().expect("a list");
    plugins
        .iter()
        .filter_map(|plugin| {
            let line = line_at(plugin["place"].as_str()?);
            let name = plugin["name"].as_str()?;
            assert!(line.contains(&format!("name: {name}")), "{plugin}: {line}");
            let is_reached = plugin["access"] != "not_reached";
            let mark = match name {
                "rate-limiting" if is_reached => value_of(&line, "year"),
                "correlation-id" => value_of(&line, "header_name"),
                _ => None,
            };
            mark.map(str::to_owned)
        })
        .collect()
}

/// Headers by name in lower case, repeated ones joined.
fn joined(headers: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let mut joined: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        joined
            .entry(name.to_ascii_lowercase())
            .and_modify(|known| known.push_str(&format!(", {value}")))
            .or_insert(value);
    }
    joined
}

#[track_caller]
fn assert_sent_as_explained(received: &Received, explanation: &Value) {
    let sent = &explanation["sent"];
    assert_eq!(received.method, sent["method"].as_str().expect("a method"));
    assert_eq!(received.target, sent["target"].as_str().expect("a target"));
    let url = sent["url"].as_str().expect("a URL");
    assert!(url.ends_with(&received.target), "{url}");
    let got = joined(received.head.fields.iter().cloned());
    let explained = sent["headers"].as_array().expect("a list");
    let explained = joined(explained.iter().map(|header| {
        let text = |index: usize| header[index].as_str().unwrap_or_default().to_owned();
        (text(0), text(1))
    }));
    let names = |headers: &BTreeMap<String, String>| headers.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&got), names(&explained), "{url}");
    for (name, value) in &explained {
        if value != FRESH && value != "***" {
            assert_eq!(&got[name], value, "{name} of {url}");
        }
    }
}

/// A copy without what only a running process knows.
fn without_addresses(explanation: &Value) -> Value {
    let mut copy = explanation.clone();
    let targets = copy["service"]["upstream"]["targets"].as_array_mut();
    for target in targets.into_iter().flatten() {
        target
            .as_object_mut()
            .expect("a target is an object")
            .remove("addresses");
    }
    copy
}

/// S04, S69
#[test]
fn what_is_explained_is_what_live_traffic_takes() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&site(&origin));

    let (routes, instances) = compare(&origin, &gateway, &requests());

    assert!(
        routes.len() >= 16,
        "the requests are too much alike: {routes:?}"
    );
    for instance in [
        "90001",
        "90002",
        "90003",
        "90004",
        "90005",
        "X-Of-Service",
        "X-Of-Route",
    ] {
        assert!(
            instances.contains(instance),
            "{instance} runs for no request"
        );
    }
}

#[test]
fn forwarding_headers_of_a_trusted_peer_are_explained_as_they_are_believed() {
    let origin = Origin::replying("hello");
    let settings = "
        trusted_ips: 127.0.0.0/8
        real_ip_header: X-Forwarded-For
        real_ip_recursive: on
        strip_identity_headers: off
        headers_upstream: off
    ";
    let gateway = Gateway::start_with(settings, &site(&origin));

    let proxied: &[(&str, &str)] = &[
        ("X-Forwarded-For", "203.0.113.9, 127.0.0.7"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "edge.test"),
        ("X-Forwarded-Prefix", "/edge"),
        ("X-Consumer-Username", "kept"),
        ("X_Real_IP", "dropped"),
    ];
    compare(
        &origin,
        &gateway,
        &[
            ask("GET", "h6.test", "/a/x?n=0-", proxied),
            ask("GET", "h6.test", "/a/x?n=1-", &[]),
            ask(
                "GET",
                "h3.test",
                "/a/x?n=2-",
                &[("apikey", "bob-key"), ("X-Forwarded-For", "?")],
            ),
        ],
    );
}

/// Asks for, sends and compares each request; gives the routes that were taken and the instances
/// that ran.
fn compare(
    origin: &Origin,
    gateway: &Gateway,
    requests: &[Ask],
) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut routes, mut instances) = (BTreeSet::new(), BTreeSet::new());
    for request in requests {
        let (code, explanation) = offline(gateway.file(), &request.arguments());
        let response = gateway.send(&request.live());

        let what = format!("{} {}{}", request.method, request.host, request.target);
        assert_eq!(code, Some(0), "{what}");
        let entry = logged(gateway, &request.target);
        assert_eq!(entry["route"], explanation["route"]["label"], "{what}");
        let name = explanation["route"]["name"].as_str().expect("a name");
        let line = line_at(explanation["route"]["place"].as_str().expect("a place"));
        assert_eq!(value_of(&line, "name"), Some(name), "{what}");
        assert_eq!(entry["service"], explanation["service"]["label"], "{what}");
        assert_eq!(
            entry["consumer"],
            explanation["request"]["consumer"].as_str().unwrap_or(""),
            "{what}"
        );
        let seen = seen_live(&response);
        assert_eq!(seen, foretold(&explanation), "{what}");
        instances.extend(seen);
        let (_, mark) = request.target.split_once("?n=").expect("a mark");
        let mark = format!("n={mark}");
        let mut received = origin.requests().into_iter();
        let received = received.find(|received| received.target.contains(&mark));
        match &explanation["answer"] {
            Value::Null => {
                assert_eq!(response.status, 200, "{what}");
                let received = received.expect("the origin got it");
                assert_sent_as_explained(&received, &explanation);
            }
            answer => {
                assert_eq!(answer["status"], response.status, "{what}");
                assert_eq!(answer["reason"], entry["error"], "{what}");
                assert!(received.is_none(), "{what}");
            }
        }
        let (_, running) = through_admin(gateway, &request.arguments());
        assert_eq!(without_addresses(&running), explanation, "{what}");
        routes.insert(name.to_owned());
    }
    (routes, instances)
}

/// A site for the questions below.
const SHOP: &str = "
services:
- name: shop
  host: pool
  path: /v1
  routes:
  - name: orders
    hosts: [api.example.com]
    paths: [/orders]
    methods: [GET, HEAD]
    plugins:
    - name: key-auth
  - name: customers
    paths: ['~/customers/(?<customer>[0-9]+)$']
  plugins:
  - name: rate-limiting
    config: { minute: 5, limit_by: consumer }
- name: pages
  url: http://127.0.0.1:9009
  routes:
  - name: all-orders
    paths: [/orders]
  - name: secure
    paths: [/secure]
    protocols: [https]
- name: old
  enabled: false
  url: http://127.0.0.1:9010
  routes:
  - { name: legacy, paths: [/legacy] }
upstreams:
- name: pool
  targets:
  - { target: '127.0.0.1:9001', weight: 100 }
  - { target: '127.0.0.1:9002', weight: 50 }
consumers:
- username: ann
  keyauth_credentials: [{ key: anns-key }]
  plugins:
  - name: rate-limiting
    config: { minute: 100 }
plugins:
- name: rate-limiting
  config: { minute: 1, limit_by: ip }
- { name: correlation-id, enabled: false }
- { name: prometheus, protocols: [https] }
_format_version: '3.0'
gateway: { listen: '127.0.0.1:8000', admin: 'off' }
";

/// Runs `explain` on [`SHOP`], saved as `gateway.yaml` in the current folder.
fn shop(arguments: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("gateway.yaml"), SHOP).expect("a file in a temporary folder");
    let mut all = vec!["explain", "-c", "gateway.yaml"];
    all.extend(arguments);
    tollgate(folder.path(), &all)
}

fn shop_json(arguments: &[&str]) -> (Option<i32>, Value) {
    let mut all = vec!["--format", "json"];
    all.extend(arguments);
    let outcome = shop(&all);
    let explanation = serde_json::from_str(&outcome.stdout);
    assert!(explanation.is_ok(), "{arguments:?}: {}", outcome.stderr);
    (outcome.code, explanation.expect("it is JSON"))
}

fn texts<'v>(list: &'v Value, field: &str) -> Vec<&'v str> {
    let list = list.as_array().expect("a list").iter();
    list.map(|item| item[field].as_str().unwrap_or_default())
        .collect()
}

#[test]
fn an_explanation_reads_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/explain");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let url = "http://api.example.com:8000/orders/7?expand=1";

    settings.bind(|| {
        let outcome = shop(&["GET", url, "-H", "Connection: close"]);
        insta::assert_snapshot!("answered_by_a_plugin", outcome.stdout);
        let outcome = shop(&["GET", url, "--consumer", "ann"]);
        insta::assert_snapshot!("of_a_consumer", outcome.stdout);
        let outcome = shop(&["POST", "/legacy/7"]);
        insta::assert_snapshot!("no_route", outcome.stdout);
    });
}

#[test]
fn without_a_route_the_exit_code_is_3_and_the_nearest_are_named() {
    let (code, explanation) = shop_json(&["POST", "http://api.example.com/orders-old/1"]);
    assert_eq!(code, Some(0));
    assert_eq!(explanation["route"]["label"], "all-orders");
    let nearest = &explanation["near_misses"][0];
    assert_eq!(nearest["label"], "orders");
    assert_eq!(nearest["matches"], false);
    assert_eq!(
        nearest["reasons"],
        serde_json::json!(["method `POST` is not `GET` or `HEAD`"])
    );

    let (code, explanation) = shop_json(&["GET", "http://api.example.com/cust"]);
    assert_eq!(code, Some(3));
    assert_eq!(explanation["route"], Value::Null);
    assert_eq!(explanation["answer"]["status"], 404);
    assert_eq!(explanation["answer"]["reason"], "no_route");
    assert_eq!(explanation["service"], Value::Null);
    assert_eq!(explanation["sent"], Value::Null);
    assert_eq!(
        texts(&explanation["near_misses"], "label"),
        ["orders", "customers", "all-orders", "secure"]
    );
    let note = explanation["notes"][0].as_str().expect("a note");
    assert!(
        note.contains("legacy (gateway.yaml:30:5, service old)"),
        "{note}"
    );
}

#[test]
fn a_route_for_https_alone_is_found_and_says_so() {
    let (code, explanation) = shop_json(&["GET", "http://a.test/secure"]);
    assert_eq!(code, Some(0));
    assert_eq!(explanation["route"]["label"], "secure");
    assert_eq!(explanation["answer"]["status"], 426);
    assert_eq!(explanation["answer"]["by"], "routing");

    let (_, explanation) = shop_json(&["GET", "https://a.test/secure"]);
    assert_eq!(explanation["answer"], Value::Null);
    assert_eq!(explanation["request"]["scheme"], "https");
    assert_eq!(
        texts(&explanation["plugins"], "name"),
        ["rate-limiting", "prometheus"]
    );
}

#[test]
fn what_does_not_run_is_listed_with_its_reason() {
    let (_, explanation) = shop_json(&["GET", "http://api.example.com/orders"]);
    assert_eq!(
        texts(&explanation["idle_plugins"], "why"),
        ["disabled", "shadowed", "other_protocol"]
    );
    let limiter = &explanation["plugins"][1];
    assert_eq!(limiter["scope"], "service shop");
    assert_eq!(limiter["consumers"][0]["consumer"], "ann");
    assert_eq!(limiter["consumers"][0]["scope"], "consumer ann");
}

#[test]
fn a_consumer_that_is_taken_for_granted_has_the_chain_of_one_with_a_key() {
    let url = "http://api.example.com/orders";
    let chain = |arguments: &[&str]| {
        let (_, explanation) = shop_json(arguments);
        assert_eq!(explanation["request"]["consumer"], "ann");
        assert_eq!(explanation["answer"], Value::Null);
        let scopes = texts(&explanation["plugins"], "scope");
        scopes.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let granted = chain(&["GET", url, "--consumer", "ann"]);

    assert_eq!(granted, ["route orders", "consumer ann"]);
    assert_eq!(granted, chain(&["GET", url, "-H", "apikey: anns-key"]));
}

#[test]
fn what_may_be_a_credential_is_not_shown() {
    let url = "http://api.example.com/orders?apikey=anns-key&page=2";
    let headers = [
        "Authorization: Bearer hush",
        "Cookie: session=hush",
        "Proxy-Authorization: Basic hush",
        "apikey: hush",
    ];
    for format in ["text", "json"] {
        let mut arguments = vec!["--format", format, "GET", url];
        arguments.extend(headers.iter().flat_map(|header| ["-H", header]));
        let outcome = shop(&arguments);

        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        for secret in ["hush", "anns-key"] {
            assert!(!outcome.stdout.contains(secret), "{}", outcome.stdout);
        }
        assert!(outcome.stdout.contains("page=2"), "{}", outcome.stdout);
    }
}

#[test]
fn a_request_that_is_refused_as_it_is_has_no_route() {
    let (code, explanation) = shop_json(&["TRACE", "http://api.example.com/orders"]);
    assert_eq!(code, Some(3));
    assert_eq!(explanation["answer"]["status"], 405);
    assert_eq!(explanation["near_misses"], serde_json::json!([]));

    let outcome = shop(&["GET", "http://api.example.com/a b"]);
    assert_eq!(outcome.code, Some(3));
    assert!(
        outcome.stdout.contains("400 bad_request"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn a_question_that_makes_no_sense_is_a_failure_with_a_message() {
    for (arguments, code, message) in [
        (
            &["GET", "orders"][..],
            1,
            "error: `orders` is neither a path nor an http or https URL; write http://HOST/PATH or /PATH\n",
        ),
        (
            &["GET", "/", "--consumer", "joe"],
            1,
            "error: there is no consumer `joe` in this configuration; name one by username, custom_id or id\n",
        ),
        (&["GET", "/", "-H", "no colon"], 2, "is not `NAME: VALUE`"),
        (&["GET"], 2, "`GET` is a method without a URL"),
    ] {
        let outcome = shop(arguments);
        assert_eq!(outcome.code, Some(code), "{arguments:?}");
        assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
    }
}

#[test]
fn a_process_that_cannot_be_asked_is_a_failure_with_a_message() {
    let admin = format!("http://127.0.0.1:{}", free_port());
    let outcome = tollgate(Path::new("."), &["explain", "--admin", &admin, "GET", "/"]);

    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stderr
            .starts_with("error: the running process was not asked: cannot connect to 127.0.0.1:"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn the_running_process_explains_what_is_live() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service(&origin));
    let question = words(&["GET", "http://a.test/orders"]);
    let label = |explanation: &Value| explanation["route"]["label"].clone();

    let (code, explanation) = through_admin(&gateway, &question);
    assert_eq!((code, label(&explanation)), (Some(0), "orders".into()));
    assert_eq!(
        explanation["configuration_hash"],
        gateway.configuration_hash().as_str()
    );
    let target = &explanation["service"]["upstream"]["targets"][0];
    assert_eq!(target["addresses"][0]["address"], origin.authority());

    let renamed =
        one_service(&origin).replace("- name: orders\n    paths", "- name: renamed\n    paths");
    gateway.reload(&renamed);
    let (_, explanation) = through_admin(&gateway, &question);
    assert_eq!(label(&explanation), "renamed");

    gateway.refusing_configuration(|| gateway.replace("services: [{ nmae: orders }]"));
    let (code, explanation) = through_admin(&gateway, &question);
    assert_eq!((code, label(&explanation)), (Some(0), "renamed".into()));
    let file = gateway.file().to_str().expect("a path in UTF-8");
    let outcome = tollgate(
        Path::new("."),
        &["explain", "-c", file, "GET", "http://a.test/orders"],
    );
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("nmae"), "{}", outcome.stderr);
}

#[test]
fn an_explanation_takes_nothing_from_anybody() {
    let origins = [Origin::replying("first"), Origin::replying("second")];
    let gateway = Gateway::start(&format!(
        "{}{}",
        pool(&[(&origins[0], 1), (&origins[1], 1)]),
        "plugins:\n- { name: rate-limiting, config: { year: 2, limit_by: ip } }\n- { name: prometheus }\n"
    ));
    let question = words(&["GET", "http://a.test/"]);

    for _ in 0..3 {
        let (_, explanation) = through_admin(&gateway, &question);
        assert_eq!(explanation["plugins"][0]["access"], "open");
    }

    assert!(gateway.metric("tollgate_http_requests_total") < 1.0);
    assert_eq!(origins[0].connections() + origins[1].connections(), 0);
    assert_eq!(gateway.get("/").text(), "first");
    assert_eq!(gateway.get("/").text(), "second");
    assert_eq!(gateway.get("/").status, 429);
}

#[test]
fn the_admin_listener_takes_one_small_question_at_a_time() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service(&origin));
    let post = |body: Vec<u8>| {
        let request = Request::post("/explain", body).header("Content-Type", "application/json");
        Client::connect(gateway.admin_port()).send(&request)
    };

    let asked = post(br#"{"method":"GET","url":"/"}"#.to_vec());
    assert_eq!(asked.status, 200);
    assert_eq!(asked.json()["route"]["label"], "orders");
    let unknown = post(br#"{"method":"GET","url":"/","path":"/"}"#.to_vec());
    assert_eq!(unknown.status, 422);
    let wrong = post(br#"{"method":"GET","url":"nowhere"}"#.to_vec());
    assert_eq!(wrong.status, 400);
    assert!(
        wrong.text().contains("neither a path nor"),
        "{}",
        wrong.text()
    );
    let smuggled = post(br#"{"method":"GET","url":"/","headers":[["a","b\r\nc: d"]]}"#.to_vec());
    assert_eq!(smuggled.status, 400);
    let large = format!(
        "{{\"method\":\"GET\",\"url\":\"/{}\"}}",
        "a".repeat(300_000)
    );
    assert_eq!(post(large.into_bytes()).status, 413);
    assert_eq!(gateway.admin("/explain").status, 405);
    assert_eq!(gateway.admin("/status").status, 200);
}

/// Routing is documented with a real example: the first YAML block of the page and what is printed
/// about it.
#[test]
fn the_example_in_the_documentation_is_what_is_printed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/concepts/routing.md")).expect("the page");
    let between = |from: &str, to: &str| {
        let (_, rest) = page.split_once(from).expect("the page has it");
        let (inside, _) = rest.split_once(to).expect("the page has its end");
        inside.to_owned()
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let document = between("```yaml\n", "```");
    fs::write(folder.path().join("gateway.yaml"), document).expect("a file");
    let command = "explain -c gateway.yaml GET http://api.example.com/orders/7 -H";
    let mut arguments: Vec<&str> = command.split(' ').collect();
    arguments.push("x-release: beta");

    let outcome = tollgate(folder.path(), &arguments);

    let printed = between(&format!("$ tollgate {command} 'x-release: beta'\n"), "```");
    assert_eq!(outcome.stdout, printed);
}

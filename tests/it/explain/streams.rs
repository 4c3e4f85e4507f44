//! `tollgate explain tls://HOST:PORT`: what it says of a connection is what then becomes of one.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use serde_json::{Value, json};

use super::{explain, offline, texts, through_admin, words};
use crate::harness::{
    EchoOrigin, Gateway, Issued, Outcome, free_port, quoted, tollgate, wait_until,
};

/// Without TLS on 15432, with it on 15433.
const DATABASES: &str = "
_format_version: '3.0'
gateway:
  listen: 127.0.0.1:8000
  stream_listen: [0.0.0.0:15432, 0.0.0.0:15433 ssl]
services:
- name: orders
  url: tcp://orders.internal:5432
  routes:
  - name: named
    protocols: [tls]
    snis: ['*.db.test']
  - name: passed
    protocols: [tls_passthrough]
    snis: [raw.db.test]
  - name: office
    protocols: [tcp]
    sources: [{ip: 10.1.0.0/16}]
    destinations: [{port: 15432}]
  - name: anybody
    protocols: [tcp, tls]
    destinations: [{port: 15432}]
- name: pooled
  protocol: tls
  host: pool
  routes:
  - {name: pooled, protocols: [tcp], sources: [{ip: 192.0.2.7, port: 4000}]}
upstreams:
- name: pool
  hash_on: ip
  targets: [{target: '10.0.0.1:5432'}, {target: '10.0.0.2:5432'}]
routes:
- {name: nowhere, protocols: [tcp], sources: [{ip: 192.0.2.8}]}
";

fn databases(arguments: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("gateway.yaml"), DATABASES).expect("written");
    let mut all = vec!["explain", "-c", "gateway.yaml"];
    all.extend(arguments);
    tollgate(folder.path(), &all)
}

fn databases_json(arguments: &[&str]) -> (Option<i32>, Value) {
    let mut all = vec!["--format", "json"];
    all.extend(arguments);
    let outcome = databases(&all);
    let explanation = serde_json::from_str(&outcome.stdout);
    assert!(explanation.is_ok(), "{arguments:?}: {}", outcome.stderr);
    (outcome.code, explanation.expect("it is JSON"))
}

#[test]
fn an_explanation_of_a_connection_reads_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/explain");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);

    settings.bind(|| {
        let outcome = databases(&["tcp://127.0.0.1:15432", "--source", "10.1.2.3"]);
        insta::assert_snapshot!("of_a_connection", outcome.stdout);
        let outcome = databases(&["tls://other.test:15433"]);
        assert_eq!(outcome.code, Some(3));
        insta::assert_snapshot!("of_a_connection_without_a_route", outcome.stdout);
    });
}

#[test]
fn the_server_name_the_source_and_the_destination_decide() {
    for (arguments, label, protocol) in [
        (&["tls://a.db.test:15433"][..], "named", "tls"),
        (
            &["tls://127.0.0.1:15433", "--sni", "A.db.test."],
            "named",
            "tls",
        ),
        (
            &["tls://a.db.test", "--client-ip", "10.1.2.3"],
            "named",
            "tls",
        ),
        (&["tcp://10.9.9.9:15432"], "anybody", "tcp"),
        (
            &["tcp://10.9.9.9:15432", "--source", "10.1.2.3"],
            "office",
            "tcp",
        ),
        (
            &["tcp://10.9.9.9:15432", "--source", "192.0.2.7:4000"],
            "pooled",
            "tcp",
        ),
        (
            &["tcp://10.9.9.9:15432", "--source", "192.0.2.7:4001"],
            "anybody",
            "tcp",
        ),
    ] {
        let (code, explanation) = databases_json(arguments);
        assert_eq!(code, Some(0), "{arguments:?}");
        let route = &explanation["route"];
        assert_eq!(route["label"], label, "{arguments:?}: {explanation:#}");
        assert_eq!(route["protocol"], protocol, "{arguments:?}");
    }
    // Kong's order: of two with `snis` the first in the file.
    let (_, explanation) = databases_json(&["tls://raw.db.test:15433"]);
    assert_eq!(explanation["route"]["label"], "named");
    assert_eq!(
        explanation["near_misses"][0],
        json!({
            "label": "passed",
            "place": "gateway.yaml:13:5",
            "matches": true,
            "reasons": ["it matches, but comes later in the files"],
        })
    );
}

#[test]
fn what_keeps_a_connection_from_being_served_is_said() {
    let (code, explanation) = databases_json(&["tcp://127.0.0.1:15432", "--source", "192.0.2.8"]);
    assert_eq!(code, Some(0));
    // A source address goes before a destination port.
    assert_eq!(explanation["route"]["label"], "nowhere");
    assert_eq!(
        explanation["notes"],
        json!(["the route has no service, so the connection is closed"])
    );

    let (code, explanation) = databases_json(&["tls://a.db.test:15432"]);
    assert_eq!(
        (code, &explanation["connection"]["tls"]),
        (Some(0), &json!(false))
    );
    let note = explanation["notes"][0].as_str().expect("a note");
    assert!(note.starts_with("0.0.0.0:15432 has no `ssl`"), "{note}");

    let (_, explanation) = databases_json(&["tcp://127.0.0.1:9"]);
    let note = explanation["notes"][0].as_str().expect("a note");
    assert!(
        note.starts_with("no address of `stream_listen` takes"),
        "{note}"
    );

    let (_, explanation) = databases_json(&["tcp://127.0.0.1:15432", "--source", "192.0.2.7:4000"]);
    let choice = &explanation["service"]["upstream"]["choice"];
    let choice = choice.as_str().expect("a sentence");
    assert!(
        choice.starts_with("the address of the client leads to "),
        "{choice}"
    );
}

#[test]
fn a_question_about_a_connection_that_makes_no_sense_is_a_failure_with_a_message() {
    for (arguments, code, message) in [
        (
            &["GET"][..],
            2,
            "`GET` is a method without a URL; write METHOD URL",
        ),
        (
            &["tls://a.test:1", "-H", "a: b"],
            2,
            "a header is part of requests",
        ),
        (
            &["tls://a.test:1", "--consumer", "ann"],
            2,
            "a consumer is part of requests",
        ),
        (
            &["udp://a.test:1"],
            1,
            "is neither tcp://HOST:PORT nor tls://HOST:PORT",
        ),
        (&["tls://192.0.2.1"], 0, ""),
        (
            &["GET", "http://a.test/", "--sni", "a.test"],
            1,
            "write an https URL",
        ),
        (
            &["tls://a.test:1", "--source", "here"],
            2,
            "`here` is neither an IP address nor IP:PORT",
        ),
    ] {
        let outcome = databases(arguments);
        if code != 0 {
            assert_eq!(
                outcome.code,
                Some(code),
                "{arguments:?}: {}",
                outcome.stderr
            );
        }
        assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
    }
}

/// What the log says of the only stream that ended since `before` bytes of it.
fn route_of_the_next_stream(gateway: &Gateway, before: usize) -> String {
    let entry = || {
        let log = gateway.access_log();
        let new = log.get(before..).unwrap_or_default().lines();
        let mut entries = new.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries.find(|entry| entry["protocol"] != "http")
    };
    wait_until("the stream is in the access log", || entry().is_some());
    let route = entry().expect("it is there")["route"].clone();
    route.as_str().unwrap_or_default().to_owned()
}

#[test]
fn what_is_explained_of_a_connection_is_what_becomes_of_it() {
    let origin = EchoOrigin::start("echo");
    let (plain, secure) = (free_port(), free_port());
    let issued = Issued::authority("ca").issue("a.test");
    let gateway = Gateway::start_with(
        &format!("stream_listen: [127.0.0.1:{plain}, 127.0.0.1:{secure} ssl]"),
        &format!(
            "certificates:
- {{cert: {}, key: {}, snis: ['*']}}
services:
- name: echo
  url: tcp://127.0.0.1:{}
  routes:
  - {{name: a, protocols: [tls], snis: [a.test]}}
  - {{name: wild, protocols: [tls], snis: ['*.test']}}
  - {{name: near, protocols: [tls], sources: [{{ip: 127.0.0.0/8}}]}}
  - {{name: plain, protocols: [tcp], destinations: [{{port: {plain}}}]}}
",
            quoted(&issued.certificate_pem()),
            quoted(&issued.key_pem()),
            origin.port(),
        ),
    );
    let file = gateway.file();
    for name in ["a.test", "b.test", "a.example", ""] {
        let question = words(&[&format!("tls://127.0.0.1:{secure}"), "--sni", name]);
        let (_, foretold) = through_admin(&gateway, &question);
        let (_, from_files) = offline(file, &question);
        assert_eq!(foretold["route"], from_files["route"]);
        let before = gateway.access_log().len();
        let stream = TcpStream::connect(("127.0.0.1", secure)).expect("connected");
        let mut connector = SslConnector::builder(SslMethod::tls_client()).expect("a connector");
        connector.set_verify(SslVerifyMode::NONE);
        let client = connector.build().configure().expect("configured");
        let client = client
            .use_server_name_indication(!name.is_empty())
            .verify_hostname(false);
        let mut client = client.connect(name, stream).expect("a handshake");
        let _ = client.shutdown();
        drop(client);
        let label = foretold["route"]["label"].as_str().unwrap_or_default();
        assert_eq!(route_of_the_next_stream(&gateway, before), label, "{name}");
        let expected = match name {
            "a.test" => "a",
            "b.test" => "wild",
            _ => "near",
        };
        assert_eq!(label, expected, "{name}");
    }

    let question = words(&[&format!("tcp://127.0.0.1:{plain}")]);
    let (code, foretold) = through_admin(&gateway, &question);
    assert_eq!(
        (code, foretold["route"]["label"].as_str()),
        (Some(0), Some("plain"))
    );
    assert_eq!(
        texts(&foretold["near_misses"], "label").len(),
        3,
        "{foretold:#}"
    );
    let target = &foretold["service"]["upstream"]["targets"][0];
    let address = format!("127.0.0.1:{}", origin.port());
    assert_eq!(target["addresses"][0]["address"], address);
    let before = gateway.access_log().len();
    let mut stream = TcpStream::connect(("127.0.0.1", plain)).expect("connected");
    stream.write_all(b"x").expect("written");
    stream.shutdown(Shutdown::Write).expect("closed");
    let _ = stream.read_to_end(&mut Vec::new());
    assert_eq!(route_of_the_next_stream(&gateway, before), "plain");
}

#[test]
fn a_request_is_asked_about_with_another_server_name_than_its_host() {
    let (one, two) = (
        Issued::authority("servers").issue("a.test"),
        Issued::authority("clients"),
    );
    let pair = |issued: &Issued| {
        let (cert, key) = (issued.certificate_pem(), issued.key_pem());
        format!("cert: {}, key: {}", quoted(&cert), quoted(&key))
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("gateway.yaml");
    let text = format!(
        "_format_version: '3.0'
gateway: {{listen: '127.0.0.1:8443 ssl'}}
certificates:
- {{{}, snis: [a.test]}}
- {{{}, snis: [b.test], client_verify: required, client_ca_certificates: [9f1c1a31-6fbb-4f4d-8a5a-0f5d4f1f0002]}}
ca_certificates:
- {{id: 9f1c1a31-6fbb-4f4d-8a5a-0f5d4f1f0002, cert: {}}}
services:
- name: orders
  url: http://127.0.0.1:1
  routes:
  - {{name: named, protocols: [https], paths: [/], snis: [a.test]}}
  - {{name: rest, paths: [/]}}
",
        pair(&one),
        pair(&one),
        quoted(&two.certificate_pem()),
    );
    fs::write(&file, text).expect("written");
    let source = ["-c", file.to_str().expect("UTF-8")];
    let ask = |name: Option<&str>, url: &str| {
        let mut arguments = vec!["GET", url];
        arguments.extend(name.into_iter().flat_map(|name| ["--sni", name]));
        explain(&source, &words(&arguments)).1
    };

    let label = |explanation: &Value| explanation["route"]["label"].clone();

    assert_eq!(label(&ask(None, "https://a.test/")), "named");
    assert_eq!(label(&ask(Some("A.test"), "https://other.test/")), "named");
    let other = ask(Some("other.test"), "https://a.test/");
    assert_eq!(label(&other), "rest");
    assert_eq!(
        other["near_misses"][0]["reasons"],
        json!(["the server name `other.test` is not `a.test`"])
    );
    let misdirected = ask(Some("a.test"), "https://b.test/");
    assert_eq!(misdirected["answer"]["status"], 421, "{misdirected:#}");
    let without = ask(Some(""), "https://a.test/");
    let reasons = without["near_misses"][0]["reasons"].clone();
    assert!(
        reasons[0]
            .as_str()
            .is_some_and(|reason| reason.contains("asked for no server name")),
        "{without:#}"
    );
}

//! Stream routes: which one takes a connection, what passes through, and how it ends.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode};

use crate::harness::{
    Blueprint, EchoOrigin, Gateway, Issued, Origin, Stopwatch, TlsOrigin, free_port, one_service,
    quoted, wait_until,
};

const PATIENCE: Duration = Duration::from_secs(15);

/// A connection with a stream listener.
fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream
}

/// Everything until the other side is done.
fn rest(mut stream: impl Read) -> String {
    let mut read = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut read);
    String::from_utf8_lossy(&read).into_owned()
}

fn line(mut stream: impl Read) -> String {
    let mut read = Vec::new();
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() && byte != *b"\n" {
        read.push(byte[0]);
    }
    String::from_utf8(read).expect("text")
}

/// Sends `ask`, says that this is all, and gives everything that comes.
fn ask(mut stream: TcpStream, ask: &str) -> String {
    // Where nobody listens any more the answer shows it.
    let _ = stream.write_all(ask.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
    rest(stream)
}

/// A TCP service and routes to it.
fn tcp(origin: &EchoOrigin, routes: &str) -> String {
    format!(
        "services:\n- name: echo\n  url: tcp://127.0.0.1:{}\n  routes: [{}]\n",
        origin.port(),
        routes
    )
}

fn tls(port: u16, name: Option<&str>) -> Result<SslStream<Fragmented>, String> {
    tls_over(Fragmented::whole(connect(port)), name)
}

fn tls_over(stream: Fragmented, name: Option<&str>) -> Result<SslStream<Fragmented>, String> {
    let mut connector = SslConnector::builder(SslMethod::tls_client()).expect("a connector");
    connector.set_verify(SslVerifyMode::NONE);
    let configuration = connector.build().configure().expect("configured");
    configuration
        .use_server_name_indication(name.is_some())
        .verify_hostname(false)
        .connect(name.unwrap_or_default(), stream)
        .map_err(|error| error.to_string())
}

/// A connection whose first record is cut into pieces.
#[derive(Debug)]
struct Fragmented {
    stream: TcpStream,
    /// How many bytes of the handshake a record has.
    record: Option<usize>,
}

impl Fragmented {
    fn whole(stream: TcpStream) -> Self {
        Self {
            stream,
            record: None,
        }
    }
}

impl Read for Fragmented {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Fragmented {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(size) = self.record.take() else {
            return self.stream.write(bytes);
        };
        let (header, message) = bytes.split_at(5);
        for piece in message.chunks(size) {
            let length = u16::try_from(piece.len())
                .expect("a small piece")
                .to_be_bytes();
            let mut record = header[..3].to_vec();
            record.extend(length);
            record.extend(piece);
            for part in record.chunks(7) {
                self.stream.write_all(part)?;
                self.stream.flush()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[test]
fn bytes_pass_in_both_directions_until_both_sides_are_done() {
    let origin = EchoOrigin::start("echo");
    let port = free_port();
    let gateway = Gateway::start_with(
        &format!("stream_listen: 127.0.0.1:{port}"),
        &tcp(
            &origin,
            &format!("{{name: all, protocols: [tcp], destinations: [{{port: {port}}}]}}"),
        ),
    );

    let mut stream = connect(port);
    assert_eq!(line(&stream), "echo");
    stream.write_all(b"one").expect("written");
    let mut back = [0; 3];
    stream.read_exact(&mut back).expect("read");
    assert_eq!(&back, b"one");
    // The client has nothing more to say, and the upstream still has.
    assert_eq!(ask(stream, "two"), "twobye");

    gateway.wait_for_access_log("\"route\":\"all\"");
    let log = gateway.access_log();
    for part in [
        "\"protocol\":\"tcp\"",
        "\"client_ip\":\"127.0.0.1\"",
        "\"status_code\":200",
        "\"service\":\"echo\"",
        "\"bytes_received\":6",
        "\"bytes_sent\":14",
        "\"error\":\"\"",
        "\"tries\":1",
    ] {
        assert!(log.contains(part), "{part} in {log}");
    }
    let labels = "service=\"echo\",route=\"all\"";
    let count = |selector: &str| gateway.metric(selector);
    assert!(
        count(&format!(
            "tollgate_stream_sessions_total{{{labels},ending=\"done\"}}"
        )) > 0.5
    );
    assert!(
        count(&format!(
            "tollgate_stream_bytes_total{{{labels},direction=\"egress\"}}"
        )) > 13.5
    );
    assert!(count("tollgate_stream_sessions_open") < 0.5);
}

#[test]
fn the_end_of_the_upstream_reaches_the_client() {
    let (port, upstream) = (free_port(), free_port());
    let listener = std::net::TcpListener::bind(("127.0.0.1", upstream)).expect("free");
    let _gateway = Gateway::start_with(
        &format!("stream_listen: 127.0.0.1:{port}"),
        &format!(
            "services: [{{name: a, url: 'tcp://127.0.0.1:{upstream}', routes: [{{protocols: [tcp], sources: [{{ip: 127.0.0.0/8}}]}}]}}]"
        ),
    );
    let mut client = connect(port);
    let (mut server, _) = listener.accept().expect("accepted");
    server.write_all(b"all").expect("written");
    server.shutdown(Shutdown::Write).expect("closed");
    assert_eq!(rest(&client), "all");
    client.write_all(b"late").expect("written");
    client.shutdown(Shutdown::Write).expect("closed");
    assert_eq!(rest(server), "late");
}

#[test]
fn routes_are_chosen_by_where_a_connection_comes_from_and_arrives() {
    let (exact, by_port, other) = (
        EchoOrigin::start("exact"),
        EchoOrigin::start("port"),
        EchoOrigin::start("other"),
    );
    let (one, two) = (free_port(), free_port());
    let service = |name: &str, origin: &EchoOrigin, route: &str| {
        format!(
            "- {{name: {name}, url: 'tcp://127.0.0.1:{}', routes: [{{protocols: [tcp], {route}}}]}}\n",
            origin.port()
        )
    };
    let yaml = format!(
        "services:\n{}{}{}",
        service("other", &other, "sources: [{ip: 127.0.0.0/8}]"),
        service(
            "port",
            &by_port,
            &format!("destinations: [{{port: {two}}}]")
        ),
        service("exact", &exact, "sources: [{ip: 127.0.0.2}]"),
    );
    let _gateway = Gateway::start_with(
        &format!("stream_listen: '127.0.0.1:{one}, 127.0.0.1:{two}'"),
        &yaml,
    );

    assert_eq!(ask(connect(one), ""), "other\nbye");
    // A source, however wide, goes before a destination.
    assert_eq!(ask(connect(two), ""), "other\nbye");
    assert_eq!((exact.connections(), by_port.connections()), (0, 0));
}

#[test]
fn a_connection_without_a_route_is_closed_and_counted() {
    let origin = EchoOrigin::start("echo");
    let port = free_port();
    let gateway = Gateway::start_with(
        &format!("stream_listen: 127.0.0.1:{port}"),
        &tcp(&origin, "{protocols: [tcp], sources: [{ip: 10.0.0.0/8}]}"),
    );

    assert_eq!(ask(connect(port), "hello"), "");

    wait_until("the count", || {
        gateway
            .metric("tollgate_stream_sessions_total{service=\"\",route=\"\",ending=\"no_route\"}")
            > 0.5
    });
    gateway.wait_for_access_log("\"error\":\"no_route\"");
    assert_eq!(origin.connections(), 0);
}

/// A gateway whose stream listener has TLS; gives its port.
fn with_tls(yaml: &str) -> (Gateway, u16) {
    let port = free_port();
    let gateway = Gateway::start_with(&format!("stream_listen: 127.0.0.1:{port} ssl"), yaml);
    (gateway, port)
}

/// `certificates:` with a certificate of its own for each name.
fn certificates(authority: &Issued, names: &[&str]) -> String {
    let mut text = String::from("certificates:\n");
    for name in names {
        let issued = authority.issue(name);
        text.push_str(&format!(
            "- {{cert: {}, key: {}, snis: [{name}]}}\n",
            quoted(&issued.certificate_pem()),
            quoted(&issued.key_pem())
        ));
    }
    text
}

fn common_name(stream: &SslStream<Fragmented>) -> String {
    let certificate = stream.ssl().peer_certificate().expect("a certificate");
    let name = certificate
        .subject_name()
        .entries_by_nid(openssl::nid::Nid::COMMONNAME)
        .next()
        .expect("a name")
        .data()
        .to_string();
    name.expect("text")
}

#[test]
fn tls_ends_here_with_the_certificate_of_the_name_that_chose_the_route() {
    let (a, b, any) = (
        EchoOrigin::start("a"),
        EchoOrigin::start("b"),
        EchoOrigin::start("any"),
    );
    let authority = Issued::authority("Root");
    let service = |name: &str, origin: &EchoOrigin, route: &str| {
        format!(
            "- {{name: {name}, url: 'tcp://127.0.0.1:{}', routes: [{{name: {name}, protocols: [tls], {route}}}]}}\n",
            origin.port()
        )
    };
    let (gateway, port) = with_tls(&format!(
        "services:\n{}{}{}{}",
        service("any", &any, "sources: [{ip: 0.0.0.0/0}]"),
        service("a", &a, "snis: [a.test]"),
        service("b", &b, "snis: ['*.b.test']"),
        certificates(&authority, &["a.test", "x.b.test"])
    ));

    for (name, origin, certificate) in [
        (Some("a.test"), "a", "a.test"),
        (Some("A.TEST"), "a", "a.test"),
        (Some("x.b.test"), "b", "x.b.test"),
    ] {
        let mut stream = tls(port, name).expect("a handshake");
        assert_eq!(common_name(&stream), certificate);
        assert_eq!(line(&mut stream), origin);
        stream.write_all(b"hello").expect("written");
        stream.shutdown().expect("closed");
        assert_eq!(rest(&mut stream), "hellobye", "{name:?}");
    }
    // Without a name only a route without names takes it.
    let mut stream = tls(port, None).expect("a handshake");
    assert_eq!(line(&mut stream), "any");
    gateway.wait_for_access_log("\"server_name\":\"a.test\"");
}

#[test]
fn tls_passes_through_unopened_by_name() {
    let authority = Issued::authority("Root");
    let (one, two) = (
        TlsOrigin::echoing(&authority.issue("one.test")),
        TlsOrigin::echoing(&authority.issue("two.test")),
    );
    let service = |name: &str, origin: &TlsOrigin| {
        format!(
            "- {{name: {name}, url: 'tcp://{}', routes: [{{name: {name}, protocols: [tls_passthrough], snis: [{name}.test]}}]}}\n",
            origin.authority()
        )
    };
    let (gateway, port) = with_tls(&format!(
        "services:\n{}{}",
        service("one", &one),
        service("two", &two)
    ));

    for name in ["one", "two"] {
        let mut stream = tls(port, Some(&format!("{name}.test"))).expect("a handshake");
        assert_eq!(common_name(&stream), format!("{name}.test"));
        stream.write_all(b"hello").expect("written");
        stream.shutdown().expect("closed");
        assert_eq!(rest(&mut stream), "hellobye");
    }
    assert!(tls(port, Some("three.test")).is_err());
    assert!(tls(port, None).is_err());
    wait_until("the count", || {
        gateway.metric("tollgate_stream_sessions_total{ending=\"no_route\"}") > 1.5
    });
    assert_eq!(one.shown()[0].server_name.as_deref(), Some("one.test"));
}

#[test]
fn a_hello_in_pieces_is_put_together() {
    let authority = Issued::authority("Root");
    let origin = TlsOrigin::echoing(&authority.issue("one.test"));
    let echo = EchoOrigin::start("echo");
    let (_gateway, port) = with_tls(&format!(
        "services:\n\
         - {{name: one, url: 'tcp://{}', routes: [{{protocols: [tls_passthrough], snis: [one.test]}}]}}\n\
         - {{name: two, url: 'tcp://127.0.0.1:{}', routes: [{{protocols: [tls], snis: [two.test]}}]}}\n",
        origin.authority(),
        echo.port()
    ));

    for size in [1, 50, 100] {
        for (name, expected) in [("one.test", "hellobye"), ("two.test", "echo\nhellobye")] {
            let fragmented = Fragmented {
                stream: connect(port),
                record: Some(size),
            };
            let mut stream = tls_over(fragmented, Some(name)).expect("a handshake");
            stream.write_all(b"hello").expect("written");
            stream.shutdown().expect("closed");
            assert_eq!(rest(&mut stream), expected, "{name} in pieces of {size}");
        }
    }
}

#[test]
fn a_client_that_never_finishes_its_hello_is_closed_in_time() {
    let origin = EchoOrigin::start("echo");
    let port = free_port();
    let gateway = Gateway::start_with(
        &format!("stream_listen: 127.0.0.1:{port} ssl\nclient_header_timeout: 500ms"),
        &tcp(&origin, "{protocols: [tls], snis: [a.test]}"),
    );
    let watch = Stopwatch::start();
    let mut slow = connect(port);
    slow.write_all(&[22, 3, 1, 2, 0, 1]).expect("written");
    assert_eq!(rest(&slow), "");
    assert!(watch.elapsed() < Duration::from_secs(10));

    assert_eq!(ask(connect(port), "GET / HTTP/1.1\r\n\r\n"), "");
    // Records without end are not kept.
    let mut endless = connect(port);
    let record = [
        &[22, 3, 1, 0x40, 0][..],
        &[1, 0, 0x7f, 0xff],
        &[0; 0x4000 - 4],
    ]
    .concat();
    for _ in 0..10 {
        if endless.write_all(&record).is_err() {
            break;
        }
    }
    assert_eq!(rest(&endless), "");
    wait_until("the counts", || {
        gateway.metric("tollgate_stream_sessions_total{ending=\"tls_handshake\"}") > 1.5
    });
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_service_with_the_protocol_tls_is_spoken_to_in_tls_and_verified() {
    let authority = Issued::authority("Root");
    let good = TlsOrigin::echoing(&authority.issue("echo.test"));
    let bad = TlsOrigin::echoing(&Issued::authority("Stranger").issue("echo.test"));
    for (origin, expected) in [(&good, "hellobye"), (&bad, "")] {
        let port = free_port();
        let blueprint = Blueprint::new(&format!(
            "stream_listen: 127.0.0.1:{port}\ntls_verify: on\ntrusted_certificates: authority.pem"
        ));
        authority.write(blueprint.folder(), "authority");
        let gateway = blueprint.start(&format!(
            "services:\n- {{name: echo, protocol: tls, host: pool, routes: [{{protocols: [tcp], sources: [{{ip: 127.0.0.1}}]}}]}}\n\
             upstreams:\n- {{name: pool, host_header: echo.test, targets: [{{target: '{}'}}]}}\n",
            origin.authority()
        ));
        assert_eq!(ask(connect(port), "hello"), expected);
        if expected.is_empty() {
            gateway.wait_for_log("unable to get local issuer certificate");
            gateway.wait_for_access_log("\"error\":\"upstream_unverified\"");
        }
    }
}

#[test]
fn another_target_is_tried_when_one_refuses_and_health_takes_note() {
    let origin = EchoOrigin::start("echo");
    let (port, closed) = (free_port(), free_port());
    let document = |retries: u32, checks: &str| {
        format!(
            "services:\n- {{name: echo, protocol: tcp, host: pool, retries: {retries}, routes: [{{protocols: [tcp], sources: [{{ip: 127.0.0.1}}]}}]}}\n\
             upstreams:\n- {{name: pool, {checks} targets: [{{target: '127.0.0.1:{closed}'}}, {{target: '127.0.0.1:{}'}}]}}\n",
            origin.port()
        )
    };
    let gateway = Gateway::start_with(
        &format!("stream_listen: 127.0.0.1:{port}"),
        &document(1, ""),
    );
    for _ in 0..4 {
        assert_eq!(ask(connect(port), "hello"), "echo\nhellobye");
    }
    gateway.wait_for_access_log("\"tries\":2");

    gateway.reload(&document(0, ""));
    let answers: Vec<String> = (0..4).map(|_| ask(connect(port), "")).collect();
    assert_eq!(answers.iter().filter(|answer| answer.is_empty()).count(), 2);
    gateway.wait_for_access_log("\"error\":\"upstream_connect\"");

    gateway.reload(&document(
        0,
        "healthchecks: {passive: {type: tcp, unhealthy: {tcp_failures: 1}}},",
    ));
    wait_until("the target to be out", || {
        let _ = ask(connect(port), "");
        gateway.log().contains("target is unhealthy")
    });
    for _ in 0..4 {
        assert_eq!(ask(connect(port), ""), "echo\nbye");
    }
}

#[test]
fn a_stream_that_is_silent_for_too_long_ends() {
    let origin = EchoOrigin::start("echo");
    let port = free_port();
    let gateway = Gateway::start_with(
        &format!("stream_listen: 127.0.0.1:{port}"),
        &tcp(&origin, "{protocols: [tcp], sources: [{ip: 127.0.0.1}]}").replace(
            "  routes",
            "  read_timeout: 300\n  write_timeout: 300\n  routes",
        ),
    );
    let stream = connect(port);
    assert_eq!(rest(&stream), "echo\n");
    gateway.wait_for_access_log("\"error\":\"idle\"");
}

#[test]
fn a_reload_leaves_running_streams_alone_and_changes_the_next() {
    let (old, new) = (EchoOrigin::start("old"), EchoOrigin::start("new"));
    let port = free_port();
    let route = "{protocols: [tcp], sources: [{ip: 127.0.0.1}]}";
    let gateway = Gateway::start_with(
        &format!("stream_listen: 127.0.0.1:{port}"),
        &tcp(&old, route),
    );
    let running = connect(port);
    assert_eq!(line(&running), "old");

    gateway.reload(&tcp(&new, route));

    assert_eq!(ask(connect(port), ""), "new\nbye");
    assert_eq!(ask(running, "still"), "stillbye");
}

#[test]
fn streams_in_flight_may_finish_while_the_gateway_stops() {
    let origin = EchoOrigin::start("echo");
    let port = free_port();
    let mut gateway = Gateway::start_with(
        &format!("stream_listen: 127.0.0.1:{port}"),
        &tcp(&origin, "{protocols: [tcp], sources: [{ip: 127.0.0.1}]}"),
    );
    let running = connect(port);
    assert_eq!(line(&running), "echo");

    gateway.sigterm();
    wait_until("the listener to close", || {
        TcpStream::connect(("127.0.0.1", port)).is_err()
    });

    assert!(gateway.is_running());
    assert_eq!(ask(running, "last"), "lastbye");
    assert_eq!(gateway.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn requests_and_streams_do_not_see_each_others_routes() {
    let (http, echo) = (Origin::replying("http"), EchoOrigin::start("echo"));
    let port = free_port();
    let yaml = format!(
        "{}\n- {{name: echo, url: 'tcp://127.0.0.1:{}', routes: [{{protocols: [tcp], sources: [{{ip: 127.0.0.1}}]}}]}}\n",
        one_service(&http),
        echo.port()
    );
    let gateway = Gateway::start_with(&format!("stream_listen: 127.0.0.1:{port}"), &yaml);

    assert_eq!(gateway.get("/").text(), "http");
    assert_eq!(ask(connect(port), ""), "echo\nbye");
}

#[test]
fn mistakes_in_stream_routes_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let service =
        |fields: &str| format!("services: [{{name: a, url: 'tcp://a:1', routes: [{{{fields}}}]}}]");
    for (yaml, expected) in [
        (
            service("protocols: [tcp]"),
            "must set one of 'sources', 'destinations', 'snis' when 'protocols' is 'tcp'",
        ),
        (
            service("protocols: [tls_passthrough], sources: [{port: 1}]"),
            "must set 'snis' when 'protocols' is 'tls_passthrough'",
        ),
        (
            service("protocols: [tcp], snis: [a.test]"),
            "'snis' can only be set when 'protocols' has 'tls' or 'tls_passthrough'",
        ),
        (
            service("protocols: [tcp], sources: [{port: 1}], paths: [/]"),
            "cannot set 'paths' when 'protocols' is 'tcp'",
        ),
        (
            service("protocols: [tcp, http], sources: [{port: 1}]"),
            "mutually exclusive",
        ),
        (
            service("protocols: [udp], sources: [{port: 1}]"),
            "`udp` is not supported in this version",
        ),
        (
            service("protocols: [tcp], sources: [{}]"),
            "each of 'sources' needs at least one of 'ip' and 'port'",
        ),
        (
            service("protocols: [tcp], sources: [{ip: nowhere}]"),
            "`nowhere` is neither an IP address nor a network",
        ),
        (
            service("paths: [/]"),
            "a route for requests cannot lead to a service with the protocol tcp",
        ),
        (
            service("protocols: [tcp], sources: [{port: 1}], plugins: [{name: key-auth}]"),
            "must match the associated route: plugin 'key-auth' works on requests",
        ),
        (
            service("protocols: [tcp], sources: [{port: 1}]"),
            "no connection reaches this route: there is no listener for streams",
        ),
        (
            "gateway: {stream_listen: '0.0.0.0:9000 udp'}".to_owned(),
            "streams carry TCP only, not `udp`",
        ),
        (
            "services: [{url: 'tcp://a:1/path'}]".to_owned(),
            "`path` must be null, as `protocol` is tcp",
        ),
    ] {
        let file = folder.path().join("gateway.yaml");
        std::fs::write(&file, format!("_format_version: \"3.0\"\n{yaml}\n")).expect("written");
        let file = file.display().to_string();

        let outcome = crate::harness::tollgate(folder.path(), &["check", "--config", &file]);

        assert!(
            outcome.stderr.contains(expected),
            "{yaml}: {}",
            outcome.stderr
        );
    }
}

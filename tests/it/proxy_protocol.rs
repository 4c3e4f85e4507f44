//! The PROXY protocol in front of requests: what a balancer says of a connection before its first
//! byte, whom it is believed, and what happens to whatever is no such header.

#![expect(clippy::float_cmp, reason = "what is counted is whole")]

use std::time::Duration;

use crate::harness::{
    Blueprint, Client, Gateway, Origin, Received, Reply, Request, Stopwatch, Tls, one_service,
    wait_until,
};

const BELIEVED: &str = "
    real_ip_header: proxy_protocol
    trusted_ips: 127.0.0.1
";
const LINE: &str = "PROXY TCP4 203.0.113.7 198.51.100.1 56324 443\r\n";
const TURNED_AWAY: &str = "tollgate_connections_turned_away_total{reason=\"proxy_protocol\"}";

fn origin() -> Origin {
    Origin::start(|request| Reply::ok(format!("{} {}", request.method, request.target)))
}

fn behind_a_balancer(settings: &str, origin: &Origin) -> Gateway {
    Blueprint::new(settings)
        .with_listen_flags(" proxy_protocol")
        .start(&one_service(origin))
}

/// A header of version 2.
fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("a short block");
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([command, family]);
    header.extend(length.to_be_bytes());
    header.extend(block);
    header
}

/// 203.0.113.7 to 198.51.100.1, and whatever else the header carries.
fn binary_tcp4(more: &[u8]) -> Vec<u8> {
    let addresses = [203, 0, 113, 7, 198, 51, 100, 1, 0xdc, 0x04, 1, 187];
    binary(0x21, 0x11, &[&addresses[..], more].concat())
}

/// A GET behind this header, answered; what the origin received.
#[track_caller]
fn forwarded(gateway: &Gateway, origin: &Origin, header: &[u8], request: &Request) -> Received {
    let mut client = gateway.connect();
    client
        .write([header, &request.bytes()].concat())
        .expect("written");
    let response = client.read_response().expect("an answer");
    assert_eq!(response.status, 200);
    origin.last()
}

/// Closed without a byte, and nobody was asked.
#[track_caller]
fn expect_turned_away(gateway: &Gateway, origin: &Origin, bytes: &[u8]) {
    let shown = String::from_utf8_lossy(bytes).into_owned();
    let (before, asked) = (gateway.metric(TURNED_AWAY), origin.count());
    let mut client = gateway.connect();
    let _ = client.write(bytes);
    let said = client.closed_within(Duration::from_secs(5));
    assert_eq!(said, Some(Vec::new()), "{shown:?}");
    assert!(gateway.metric(TURNED_AWAY) > before, "{shown:?} is counted");
    assert_eq!(origin.count(), asked, "{shown:?}");
}

#[test]
fn the_source_of_a_trusted_balancer_is_the_client() {
    let origin = origin();
    let gateway = behind_a_balancer(BELIEVED, &origin);
    let checksum = [3, 0, 4, 0xde, 0xad, 0xbe, 0xef];
    let aws = [&[0xea, 0, 23, 1][..], b"vpce-08d2bf15fac5001c9"].concat();
    let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 28], &[0, 7, 1, 187]].concat();
    for (case, header, expected) in [
        ("version 1", LINE.as_bytes().to_vec(), "203.0.113.7"),
        (
            "version 1, IPv6",
            b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n".to_vec(),
            "2001:db8::7",
        ),
        ("version 2", binary_tcp4(&[]), "203.0.113.7"),
        ("with a checksum", binary_tcp4(&checksum), "203.0.113.7"),
        ("with what a cloud adds", binary_tcp4(&aws), "203.0.113.7"),
        ("with much more", binary_tcp4(&[0; 3000]), "203.0.113.7"),
        ("version 2, IPv6", binary(0x21, 0x21, &six), "2001:db8::"),
    ] {
        let received = forwarded(&gateway, &origin, &header, &Request::get("/"));
        assert_eq!(received.header("X-Real-IP"), Some(expected), "{case}");
        assert_eq!(received.header("X-Forwarded-For"), Some(expected), "{case}");
    }
    gateway.wait_for_access_log("203.0.113.7");
}

#[test]
fn a_balancer_that_speaks_for_itself_is_the_client() {
    let origin = origin();
    let gateway = behind_a_balancer(BELIEVED, &origin);
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff:ffff::1 ::1 65535 1\r\n".to_vec(),
        binary(0x20, 0x00, &[]),
        binary(0x20, 0x11, &[203, 0, 113, 7, 1, 1, 1, 1, 0, 1, 0, 1]),
        binary(0x21, 0x00, &[0; 7]),
        binary(0x21, 0x31, &[0; 216]),
    ] {
        let received = forwarded(&gateway, &origin, &header, &Request::get("/"));
        assert_eq!(
            received.header("X-Real-IP"),
            Some("127.0.0.1"),
            "{header:?}"
        );
    }
}

#[test]
fn a_balancer_that_is_not_trusted_is_not_believed() {
    let origin = origin();
    let gateway = behind_a_balancer(
        "real_ip_header: proxy_protocol\ntrusted_ips: 10.0.0.0/8",
        &origin,
    );

    let received = forwarded(&gateway, &origin, LINE.as_bytes(), &Request::get("/"));

    assert_eq!(received.header("X-Real-IP"), Some("127.0.0.1"));
    assert_eq!(received.header("X-Forwarded-For"), Some("127.0.0.1"));
}

#[test]
fn with_another_real_ip_header_the_header_is_required_and_its_address_not_used() {
    let origin = origin();
    let gateway = behind_a_balancer("trusted_ips: 127.0.0.1", &origin);
    let request = Request::get("/").header("X-Real-IP", "192.0.2.9");

    let received = forwarded(&gateway, &origin, LINE.as_bytes(), &request);

    assert_eq!(received.header("X-Real-IP"), Some("192.0.2.9"));
    expect_turned_away(&gateway, &origin, &Request::get("/").bytes());
}

#[test]
fn the_client_behind_a_trusted_balancer_is_itself_not_trusted() {
    let origin = origin();
    let gateway = behind_a_balancer(BELIEVED, &origin);
    let request = Request::get("/")
        .header("X-Forwarded-For", "192.0.2.1")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "evil.test")
        .header("X-Real-IP", "192.0.2.1");

    let received = forwarded(&gateway, &origin, LINE.as_bytes(), &request);

    assert_eq!(received.header("X-Real-IP"), Some("203.0.113.7"));
    assert_eq!(
        received.header("X-Forwarded-For"),
        Some("192.0.2.1, 203.0.113.7")
    );
    assert_eq!(received.header("X-Forwarded-Proto"), Some("http"));
    assert_eq!(received.header("X-Forwarded-Host"), Some("gateway.test"));
}

#[test]
fn the_header_stands_once_before_all_requests_of_a_connection() {
    let origin = origin();
    let gateway = behind_a_balancer(BELIEVED, &origin);
    let mut client = gateway.connect();
    client.write(LINE).expect("written");

    for target in ["/1", "/2", "/3"] {
        assert_eq!(client.send(&Request::get(target)).status, 200);
        assert_eq!(origin.last().header("X-Real-IP"), Some("203.0.113.7"));
    }
    let again = [LINE.as_bytes(), &Request::get("/4").bytes()].concat();
    client.write(again).expect("written");
    assert_eq!(client.read_response().expect("an answer").status, 400);
    assert_eq!(origin.count(), 3);
}

#[test]
fn a_header_may_come_byte_by_byte() {
    let origin = origin();
    let gateway = behind_a_balancer(BELIEVED, &origin);
    for header in [LINE.as_bytes().to_vec(), binary_tcp4(&[1, 0, 1, b'x'])] {
        let mut client = gateway.connect();
        for byte in header {
            client.write([byte]).expect("written");
            Stopwatch::pace(Duration::from_millis(1));
        }
        assert_eq!(client.send(&Request::get("/")).status, 200);
        assert_eq!(origin.last().header("X-Real-IP"), Some("203.0.113.7"));
    }
}

#[test]
fn what_is_no_header_is_turned_away_and_nobody_else_notices() {
    let origin = origin();
    let gateway = behind_a_balancer(BELIEVED, &origin);
    let mut neighbour = gateway.connect();
    neighbour.write(LINE).expect("written");
    let address = [203, 0, 113, 7, 198, 51, 100, 1, 0xdc, 0x04, 1, 187];
    let lines = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET",
        "PROXY\r\n",
        "PROXY \r\n",
        "proxy TCP4 203.0.113.7 198.51.100.1 1 2\r\n",
        "PROXY TCP4 203.0.113.7 198.51.100.1 1 2\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PROXY TCP4 203.0.113.7 198.51.100.1 1\r\n",
        "PROXY TCP4 203.0.113.7 198.51.100.1 1 2 3\r\n",
        "PROXY TCP4 203.0.113.7  198.51.100.1 1 2\r\n",
        "PROXY TCP4 203.0.113.256 198.51.100.1 1 2\r\n",
        "PROXY TCP4 203.0.113.7 nowhere 1 2\r\n",
        "PROXY TCP4 203.0.113.7 198.51.100.1 -1 2\r\n",
        "PROXY TCP4 203.0.113.7 198.51.100.1 1 65536\r\n",
        "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
        "PROXY TCP6 203.0.113.7 198.51.100.1 1 2\r\n",
        "PROXY UDP4 203.0.113.7 198.51.100.1 1 2\r\n",
        "PROXY TCP4 203.0.113.7 198.51.100.1 1 2\0\r\n",
        "PROXY TCP4 \u{663}.0.113.7 198.51.100.1 1 2\r\n",
    ];
    let mut cases: Vec<Vec<u8>> = lines.map(|line| line.as_bytes().to_vec()).into();
    cases.extend([
        [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat(),
        binary(0x11, 0x11, &address),
        binary(0x22, 0x11, &address),
        binary(0x2f, 0x11, &address),
        binary(0x21, 0x41, &address),
        binary(0x21, 0x13, &address),
        binary(0x21, 0x11, &address[..11]),
        binary(0x21, 0x21, &[0; 35]),
        binary(0x21, 0x11, &[0; 5000]),
        binary(0x21, 0x11, &vec![0; 65535]),
        b"\r\n\r\n\0\r\nQUIT\r".to_vec(),
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03".to_vec(),
        b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
    ]);
    for bytes in cases {
        expect_turned_away(&gateway, &origin, &bytes);
        assert_eq!(neighbour.send(&Request::get("/next")).text(), "GET /next");
    }
}

#[test]
fn a_header_that_ends_early_is_turned_away() {
    let origin = origin();
    let gateway = behind_a_balancer(BELIEVED, &origin);
    for bytes in [&LINE.as_bytes()[..20], &binary_tcp4(&[])[..18]] {
        let before = gateway.metric(TURNED_AWAY);
        let mut client = gateway.connect();
        client.write(bytes).expect("written");
        client.half_close();
        assert_eq!(
            client.closed_within(Duration::from_secs(5)),
            Some(Vec::new())
        );
        assert!(gateway.metric(TURNED_AWAY) > before);
    }
}

#[test]
fn a_balancer_that_only_looks_whether_somebody_listens_is_no_mistake() {
    let origin = origin();
    let gateway = behind_a_balancer(BELIEVED, &origin);

    for _ in 0..3 {
        let mut client = gateway.connect();
        client.half_close();
        assert!(client.closed_within(Duration::from_secs(5)).is_some());
    }

    assert_eq!(gateway.metric(TURNED_AWAY), 0.0);
}

#[test]
fn a_header_must_come_in_time() {
    let origin = origin();
    let gateway = behind_a_balancer(
        &format!("{BELIEVED}    client_header_timeout: 0.5"),
        &origin,
    );
    for begin in ["", "PROXY TCP4 203"] {
        let watch = Stopwatch::start();
        let mut client = gateway.connect();
        client.write(begin).expect("written");
        let said = client.closed_within(Duration::from_secs(5));
        assert_eq!(said, Some(Vec::new()), "{begin:?}");
        assert!(watch.elapsed() >= Duration::from_millis(400), "{begin:?}");
    }
}

#[test]
fn the_header_stands_before_the_handshake_and_only_there() {
    let origin = origin();
    let gateway = Blueprint::new(BELIEVED)
        .with_listen_flags(" ssl proxy_protocol")
        .start(&one_service(&origin));
    let tls = Tls::to("a.test");
    for header in [LINE.as_bytes().to_vec(), binary_tcp4(&[])] {
        let client = Client::secure_behind(&header, gateway.port(), &tls);
        let response = client.expect("a handshake").send(&Request::get("/"));
        assert_eq!(response.status, 200);
        let received = origin.last();
        assert_eq!(received.header("X-Real-IP"), Some("203.0.113.7"));
        assert_eq!(received.header("X-Forwarded-Proto"), Some("https"));
    }

    let before = gateway.metric(TURNED_AWAY);
    assert!(Client::secure(gateway.port(), &tls).is_err());
    wait_until("the client without header is counted", || {
        gateway.metric(TURNED_AWAY) > before
    });

    let asked = origin.count();
    let client = Client::secure_behind(LINE.as_bytes(), gateway.port(), &tls);
    let mut client = client.expect("a handshake");
    let forged = "PROXY TCP4 192.0.2.66 198.51.100.1 1 2\r\n";
    let _ = client.write([forged.as_bytes(), &Request::get("/").bytes()].concat());
    assert_eq!(client.read_response().expect("an answer").status, 400);
    assert_eq!(origin.count(), asked);
}

#[test]
fn a_header_on_a_listener_without_the_flag_is_no_request() {
    let origin = origin();
    let gateway = Gateway::start_with("trusted_ips: 127.0.0.1", &one_service(&origin));
    for header in [LINE.as_bytes().to_vec(), binary_tcp4(&[])] {
        let mut client = gateway.connect();
        let _ = client.write([&header[..], &Request::get("/").bytes()].concat());
        let statuses = client.read_response().map(|response| response.status);
        assert!(matches!(statuses, Ok(400)), "{statuses:?}");
        assert!(client.closed_within(Duration::from_secs(5)).is_some());
    }
    assert_eq!(origin.count(), 0);
}

#[test]
fn a_reload_can_ask_for_the_header_and_connections_that_are_open_go_on() {
    let origin = origin();
    let yaml = one_service(&origin);
    let gateway = Gateway::start(&yaml);
    let mut kept: Client = gateway.connect();
    assert_eq!(kept.send(&Request::get("/")).status, 200);

    gateway.changing_configuration(|| {
        let text = gateway.compose(&yaml);
        let listen = format!("listen: 127.0.0.1:{}", gateway.port());
        let flagged = text.replace(&listen, &format!("{listen} proxy_protocol"));
        gateway.replace_exactly(&flagged);
    });

    // The terms of a listener follow its configuration in an instant.
    wait_until("a connection without header is turned away", || {
        let mut client = gateway.connect();
        client.try_send(&Request::get("/")).is_err()
    });
    forwarded(&gateway, &origin, LINE.as_bytes(), &Request::get("/"));
    assert_eq!(kept.send(&Request::get("/kept")).text(), "GET /kept");
}

#[test]
fn a_connection_without_its_header_yet_does_not_hold_up_the_end() {
    let origin = origin();
    let mut gateway = behind_a_balancer(BELIEVED, &origin);
    let mut waiting = gateway.connect();
    waiting.write("PROXY TCP4").expect("written");
    wait_until("the connection", || {
        gateway.metric("tollgate_connections{state=\"active\"}") >= 1.0
    });

    gateway.sigterm();

    let status = gateway.wait_exit(Duration::from_secs(5));
    assert!(status.success(), "{status}");
}

//! `WebSocket`s through the gateway.

use tungstenite::Message;

use crate::harness::{
    Gateway, Origin, Reply, Request, Stopwatch, one_service, one_service_and, text,
};

fn echo() -> Origin {
    Origin::start(|_| Reply::websocket())
}

/// S62
#[test]
fn messages_of_every_kind_and_size_are_echoed() {
    let origin = echo();
    let gateway = Gateway::start(&one_service(&origin));
    let (mut socket, _) = gateway
        .websocket("/chat?room=1", &[])
        .expect("an open socket");

    assert_eq!(text(&mut socket, "hello"), "hello");
    for size in [0, 1, 125, 126, 70_000, 1 << 20] {
        let message = Message::binary(vec![7; size]);
        socket.send(message.clone()).expect("a message goes out");
        assert_eq!(
            socket.read().expect("a message comes back"),
            message,
            "{size} bytes"
        );
    }
    socket
        .send(Message::Ping(vec![1, 2].into()))
        .expect("a ping goes out");
    assert_eq!(
        socket.read().expect("a pong comes back"),
        Message::Pong(vec![1, 2].into())
    );
    assert_eq!(origin.last().target, "/chat?room=1");
}

/// S62
#[test]
fn the_handshake_passes_with_its_fields() {
    let origin = echo();
    let gateway = Gateway::start(&one_service(&origin));
    let fields = [
        ("Sec-WebSocket-Protocol", "chat, super"),
        ("Origin", "https://app.test"),
        ("Cookie", "a=1"),
    ];

    let (_socket, handshake) = gateway.websocket("/", &fields).expect("an open socket");

    assert_eq!(handshake.headers()["sec-websocket-protocol"], "chat");
    let received = origin.last();
    assert_eq!(
        received
            .header("Upgrade")
            .map(str::to_ascii_lowercase)
            .as_deref(),
        Some("websocket")
    );
    assert_eq!(
        received
            .header("Connection")
            .map(str::to_ascii_lowercase)
            .as_deref(),
        Some("upgrade")
    );
    assert_eq!(received.headers("Sec-WebSocket-Protocol"), ["chat, super"]);
    assert_eq!(received.headers("Sec-WebSocket-Key").len(), 1);
    assert_eq!(
        (received.header("Origin"), received.header("Cookie")),
        (Some("https://app.test"), Some("a=1"))
    );
    assert_eq!(received.header("X-Forwarded-Proto"), Some("http"));
}

#[test]
fn a_refused_upgrade_is_relayed_as_plain_http() {
    let origin = Origin::start(|_| Reply::status(403).header("X-Why", "no").body("not you"));
    let gateway = Gateway::start(&one_service(&origin));
    let mut client = gateway.connect();
    let upgrade = Request::get("/")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");

    let response = client.send(&upgrade);

    assert_eq!(
        (
            response.status,
            response.header("X-Why"),
            response.text().as_str()
        ),
        (403, Some("no"), "not you")
    );
}

#[test]
fn access_plugins_judge_the_handshake() {
    let origin = echo();
    let gateway = Gateway::start(&one_service_and(
        &origin,
        "
        plugins:
        - name: key-auth
        consumers:
        - { username: alice, keyauth_credentials: [{ key: alice-key }] }
        ",
    ));

    assert_eq!(gateway.websocket("/", &[]).expect_err("a refusal"), 401);
    assert_eq!(origin.count(), 0);
    let (mut socket, _) = gateway
        .websocket("/", &[("apikey", "alice-key")])
        .expect("an open socket");
    assert_eq!(text(&mut socket, "hello"), "hello");
}

/// S62
#[test]
fn a_web_socket_survives_reloads() {
    let origin = echo();
    let gateway = Gateway::start(&one_service(&origin));
    let (mut socket, _) = gateway.websocket("/", &[]).expect("an open socket");

    for round in 0..3 {
        gateway.reload(&format!(
            "{}\n    tags: [round-{round}]",
            one_service(&origin)
        ));
        assert_eq!(
            text(&mut socket, "still here"),
            "still here",
            "round {round}"
        );
    }
    gateway.reload("services: []\n");
    assert_eq!(
        text(&mut socket, "even without its route"),
        "even without its route"
    );
}

#[test]
fn other_upgrade_tokens_are_removed_and_the_request_goes_on() {
    let origin = Origin::replying("plain");
    let gateway = Gateway::start(&one_service(&origin));
    let request = Request::get("/")
        .header("Connection", "Upgrade, HTTP2-Settings")
        .header("Upgrade", "h2c")
        .header("HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA");

    let response = gateway.send(&request);

    assert_eq!((response.status, response.text().as_str()), (200, "plain"));
    let received = origin.last();
    assert!(received.header("Upgrade").is_none() && received.header("HTTP2-Settings").is_none());
    assert!(
        !received
            .headers("Connection")
            .join(",")
            .to_ascii_lowercase()
            .contains("upgrade")
    );
}

#[test]
fn a_client_that_closes_closes_the_origins_side() {
    let origin = echo();
    let gateway = Gateway::start(&one_service(&origin));
    let (socket, _) = gateway.websocket("/", &[]).expect("an open socket");

    drop(socket);

    origin.wait_for_open_connections(0);
}

#[test]
fn an_origin_that_closes_closes_the_clients_side_after_its_last_message() {
    let origin = echo();
    let gateway = Gateway::start(&one_service(&origin));
    let (mut socket, _) = gateway.websocket("/", &[]).expect("an open socket");

    socket
        .send(Message::text("close please"))
        .expect("a message goes out");

    assert!(matches!(socket.read(), Ok(Message::Close(_))));
    assert!(socket.read().is_err(), "nothing follows the closing frame");
}

#[test]
fn an_origin_that_does_not_answer_the_handshake_is_a_504_in_time() {
    let origin = Origin::start(|_| Reply::never());
    let gateway = Gateway::start(&format!(
        "{}\n  read_timeout: 300\n  retries: 0",
        one_service(&origin)
    ));
    let watch = Stopwatch::start();

    assert_eq!(gateway.websocket("/", &[]).expect_err("a refusal"), 504);

    assert!(watch.elapsed().as_secs() < 5, "{:?}", watch.elapsed());
    gateway.wait_for_access_log("\"error\":\"upstream_timeout\"");
    origin.wait_for_open_connections(0);
}

#[test]
fn a_tunnel_may_be_silent_in_one_direction_for_longer_than_read_timeout() {
    let origin = Origin::start(|_| {
        Reply::stream(|stream| {
            use std::io::{Read, Write};
            stream.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )?;
            let mut heard = Vec::new();
            while !heard.ends_with(b"end") {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                heard.extend(byte);
            }
            stream.write_all(b"done")
        })
    });
    let gateway = Gateway::start(&format!("{}\n  read_timeout: 500", one_service(&origin)));
    let mut client = gateway.connect();
    let upgrade = Request::get("/")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    client.write(upgrade.bytes()).expect("written");
    let head = client.read_head().expect("a head");
    assert!(head.start_line.contains(" 101 "), "{}", head.start_line);

    for _ in 0..10 {
        Stopwatch::pace(std::time::Duration::from_millis(100));
        client.write("tick").expect("the tunnel is open");
    }
    client.write("end").expect("the tunnel is open");

    client.read_until(b"done");
}

#[test]
fn read_timeout_bounds_the_silence_of_a_tunnel_and_not_its_length() {
    let origin = echo();
    let gateway = Gateway::start(&format!(
        "{}\n  read_timeout: 1500\n  write_timeout: 1500",
        one_service(&origin)
    ));
    let (mut socket, _) = gateway.websocket("/", &[]).expect("an open socket");
    let watch = Stopwatch::start();

    while watch.elapsed().as_millis() < 3000 {
        Stopwatch::pace(std::time::Duration::from_millis(300));
        assert_eq!(text(&mut socket, "tick"), "tick");
    }

    assert!(socket.read().is_err(), "silence ends the tunnel");
    origin.wait_for_open_connections(0);
}

#[test]
fn what_could_be_two_upgrades_is_none() {
    let origin = Origin::replying("plain");
    let gateway = Gateway::start(&one_service(&origin));
    for second in ["h2c", "websocket"] {
        let request = Request::get("/")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Upgrade", second);
        assert_eq!(gateway.send(&request).status, 200, "{second}");
        let received = origin.last();
        assert_eq!(
            (received.header("upgrade"), received.header("connection")),
            (None, None),
            "{second}"
        );
    }
}

#[test]
fn an_upgrade_that_is_none_is_bounded_like_any_request() {
    let origin = Origin::replying("plain");
    let gateway = Gateway::start_with("client_max_body_size: 10", &one_service(&origin));
    let request = Request::post("/", "0123456789a").header("Upgrade", "websocket");
    assert_eq!(gateway.send(&request).status, 413);
}

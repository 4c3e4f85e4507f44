//! `WebSocket`s on both ends: the origin's echo and the client's connection.

use std::io::{self, Write};
use std::net::TcpStream;

use tungstenite::handshake::client::Response as Handshake;
use tungstenite::handshake::derive_accept_key;
use tungstenite::http::Request as Opening;
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message};

use super::http1::Head;
use super::wait::{PATIENCE, fail};

/// An open WebSocket of a client.
pub(crate) type Socket = WebSocket<TcpStream>;

/// Opens a WebSocket through the gateway; `Err` carries the status of a refusal.
#[track_caller]
pub(crate) fn open(
    port: u16,
    path: &str,
    fields: &[(&str, &str)],
) -> Result<(Socket, Handshake), u16> {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection to a listening port");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a read timeout");
    let mut opening = Opening::builder()
        .uri(format!("ws://127.0.0.1:{port}{path}"))
        .header("Host", "gateway.test")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    for (name, value) in fields {
        opening = opening.header(*name, *value);
    }
    let opening = opening.body(()).expect("a well-formed handshake");
    match tungstenite::client::client(opening, stream) {
        Ok(opened) => Ok(opened),
        Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => {
            Err(response.status().as_u16())
        }
        Err(error) => fail(&format!("the WebSocket handshake failed: {error}")),
    }
}

/// Sends a text and reads one message back.
#[track_caller]
pub(crate) fn text(socket: &mut Socket, message: &str) -> String {
    socket
        .send(Message::text(message))
        .expect("a message goes out");
    socket
        .read()
        .expect("a message comes back")
        .into_text()
        .expect("a text message")
        .to_string()
}

/// The origin's side: accepts the handshake, then echoes until either side closes.
/// The message `close please` makes the origin close.
pub(super) fn serve_echo(mut stream: TcpStream, head: &Head, early: Vec<u8>) -> io::Result<()> {
    let key = head.header("sec-websocket-key").unwrap_or_default();
    let mut answer = String::from(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
    );
    answer.push_str(&format!(
        "Sec-WebSocket-Accept: {}\r\n",
        derive_accept_key(key.as_bytes())
    ));
    if let Some(protocol) = head
        .header("sec-websocket-protocol")
        .and_then(|list| list.split(',').next())
    {
        answer.push_str(&format!("Sec-WebSocket-Protocol: {}\r\n", protocol.trim()));
    }
    answer.push_str("\r\n");
    stream.write_all(answer.as_bytes())?;

    let mut socket = WebSocket::from_partially_read(stream, early, Role::Server, None);
    loop {
        match socket.read() {
            Ok(Message::Text(text)) if text.as_str() == "close please" => {
                socket.close(None).map_err(to_io)?;
            }
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                socket.send(message).map_err(to_io)?;
            }
            Ok(_) => {}
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Ok(()),
            Err(error) => return Err(to_io(error)),
        }
    }
}

fn to_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

//! An origin that speaks HTTP/1.1 over TLS and remembers what each connection showed in its handshake.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use openssl::nid::Nid;
use openssl::ssl::{
    NameType, SslAcceptor, SslAcceptorBuilder, SslMethod, SslStream, SslVerifyMode, SslVersion,
};
use openssl::x509::store::X509StoreBuilder;

use super::certificates::Issued;
use super::ports::free_port;

/// What a connection showed, and how many requests came over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The server name that was asked for.
    pub(crate) server_name: Option<String>,
    /// The common name of the client certificate.
    pub(crate) client: Option<String>,
    /// Request lines, one for each request.
    pub(crate) requests: Vec<String>,
}

/// It answers `200` with its name to every request; it ends with the test process.
pub(crate) struct TlsOrigin {
    port: u16,
    shown: Arc<Mutex<Vec<Shown>>>,
}

/// What an origin does after its handshake.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    Http,
    /// Sends back what it gets, and `bye` when the client has nothing more to say.
    Echo,
}

impl TlsOrigin {
    /// With this certificate.
    pub(crate) fn start(issued: &Issued) -> Self {
        Self::serve(issued, None, Manners::Http)
    }

    /// With this certificate, for clients with a certificate of `authority` only.
    pub(crate) fn start_for_clients_of(issued: &Issued, authority: &Issued) -> Self {
        Self::serve(issued, Some(authority), Manners::Http)
    }

    /// Speaks no HTTP: sends back what it gets.
    pub(crate) fn echoing(issued: &Issued) -> Self {
        Self::serve(issued, None, Manners::Echo)
    }

    fn serve(issued: &Issued, clients_of: Option<&Issued>, manners: Manners) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        let acceptor = Arc::new(acceptor(issued, clients_of).build());
        let shown: Arc<Mutex<Vec<Shown>>> = Arc::default();
        let record = Arc::clone(&shown);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (acceptor, record) = (Arc::clone(&acceptor), Arc::clone(&record));
                thread::spawn(move || {
                    if let Ok(stream) = acceptor.accept(stream) {
                        converse(stream, &record, manners);
                    }
                });
            }
        });
        Self { port, shown }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The connections whose handshake went well, in their order.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        self.shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// All requests of all connections.
    pub(crate) fn requests(&self) -> usize {
        self.shown().iter().map(|shown| shown.requests.len()).sum()
    }
}

/// What accepts TLS with a certificate, for clients with one of `clients_of` only.
pub(super) fn acceptor(issued: &Issued, clients_of: Option<&Issued>) -> SslAcceptorBuilder {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("an acceptor");
    acceptor
        .set_min_proto_version(Some(SslVersion::TLS1_2))
        .expect("set");
    acceptor.set_certificate(&issued.certificate).expect("set");
    acceptor.set_private_key(&issued.key).expect("set");
    for above in &issued.chain {
        acceptor.add_extra_chain_cert(above.clone()).expect("set");
    }
    if let Some(authority) = clients_of {
        let mut store = X509StoreBuilder::new().expect("a store");
        store.add_cert(authority.certificate.clone()).expect("set");
        acceptor.set_verify_cert_store(store.build()).expect("set");
        acceptor.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    }
    acceptor
}

fn converse(mut stream: SslStream<TcpStream>, record: &Mutex<Vec<Shown>>, manners: Manners) {
    let client = stream.ssl().peer_certificate().and_then(|certificate| {
        let name = certificate.subject_name().entries_by_nid(Nid::COMMONNAME);
        name.map(|entry| entry.data().to_string().unwrap_or_default())
            .next()
    });
    let server_name = stream.ssl().servername(NameType::HOST_NAME);
    let number = {
        let mut shown = record.lock().unwrap_or_else(PoisonError::into_inner);
        shown.push(Shown {
            server_name: server_name.map(str::to_owned),
            client,
            requests: Vec::new(),
        });
        shown.len() - 1
    };
    let mut buffer = [0; 16 * 1024];
    if manners == Manners::Echo {
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
        let _ = stream.write_all(b"bye");
        let _ = stream.shutdown();
        return;
    }
    let mut head = Vec::new();
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        head.extend_from_slice(&buffer[..count]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let line = String::from_utf8_lossy(&head);
        let line = line.lines().next().unwrap_or_default().to_owned();
        head.clear();
        record.lock().unwrap_or_else(PoisonError::into_inner)[number]
            .requests
            .push(line);
        if stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .is_err()
        {
            return;
        }
    }
}

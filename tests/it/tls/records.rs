//! Records of TLS arrive in pieces and in heaps. The gateway never waits for what it has already, and never takes a
//! piece for the whole.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use openssl::ssl::{Ssl, SslContextBuilder, SslMethod, SslStream, SslVerifyMode, SslVersion};

use crate::harness::{Gate, Gateway, Origin, Reply, Request, one_service};

const SOON: Duration = Duration::from_secs(6);

/// A socket that keeps back what it should send, on demand.
#[derive(Debug)]
struct Tap {
    tcp: TcpStream,
    kept: Option<Vec<u8>>,
}

impl Read for Tap {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp.read(buffer)
    }
}

impl Write for Tap {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.kept {
            Some(kept) => kept.write(bytes),
            None => self.tcp.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

struct Client(SslStream<Tap>);

impl Client {
    fn connect(gateway: &Gateway, version: SslVersion) -> Self {
        let tcp = TcpStream::connect(("127.0.0.1", gateway.tls_port())).expect("connected");
        tcp.set_nodelay(true).expect("set");
        tcp.set_read_timeout(Some(SOON)).expect("set");
        let mut context = SslContextBuilder::new(SslMethod::tls_client()).expect("a context");
        context.set_verify(SslVerifyMode::NONE);
        context.set_max_proto_version(Some(version)).expect("set");
        let ssl = Ssl::new(&context.build()).expect("a connection");
        let stream = ssl.connect(Tap { tcp, kept: None });
        Self(stream.expect("a handshake"))
    }

    /// `plain` in a record of its own, which is not sent.
    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        self.0.get_mut().kept = Some(Vec::new());
        self.0.write_all(plain).expect("sealed");
        self.0.get_mut().kept.take().expect("kept")
    }

    fn send(&mut self, sealed: &[u8]) {
        self.0.get_mut().tcp.write_all(sealed).expect("sent");
    }

    /// The bodies of the next answers, each of which is one byte long.
    fn read_bodies(&mut self, count: usize) -> String {
        let mut bodies = String::new();
        let mut read = String::new();
        while bodies.len() < count {
            let mut space = [0; 4096];
            let length = self.0.read(&mut space).expect("an answer");
            assert!(length > 0, "closed after {bodies:?}");
            read.push_str(&String::from_utf8_lossy(space.get(..length).expect("read")));
            while let Some((head, behind)) = read.split_once("\r\n\r\n") {
                assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                let Some(body) = behind.chars().next() else {
                    break;
                };
                bodies.push(body);
                read = behind.chars().skip(1).collect();
            }
        }
        bodies
    }
}

/// An origin that answers with the number of bytes behind the first slash.
fn origin() -> Origin {
    Origin::start(|request| Reply::ok((request.target.len() - 1).to_string()))
}

const VERSIONS: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];

#[test]
fn requests_in_records_of_their_own_that_arrive_at_once_are_all_answered() {
    let origin = origin();
    let gateway = Gateway::start_with_tls(&one_service(&origin));
    for version in VERSIONS {
        let mut client = Client::connect(&gateway, version);
        let heap: Vec<u8> = ["/", "/a", "/bc", "/def"]
            .into_iter()
            .flat_map(|path| client.seal(&Request::get(path).bytes()))
            .collect();
        client.send(&heap);
        assert_eq!(client.read_bodies(4), "0123");
    }
}

#[test]
fn a_head_with_a_record_for_each_byte_is_one_head() {
    let origin = origin();
    let gateway = Gateway::start_with_tls(&one_service(&origin));
    for version in VERSIONS {
        let mut client = Client::connect(&gateway, version);
        let crumbs: Vec<Vec<u8>> = Request::get("/")
            .bytes()
            .chunks(1)
            .map(|byte| client.seal(byte))
            .collect();
        client.send(&crumbs.concat());
        assert_eq!(client.read_bodies(1), "0");
    }
}

#[test]
fn a_record_of_which_a_part_came_with_the_one_before_is_read_when_it_is_whole() {
    let origin = origin();
    let gateway = Gateway::start_with_tls(&one_service(&origin));
    for version in VERSIONS {
        let mut client = Client::connect(&gateway, version);
        for cut in [1, 4, 5, 6, 30] {
            let first = client.seal(&Request::get("/a").bytes());
            let second = client.seal(&Request::get("/bc").bytes());
            let (begin, end) = second.split_at(cut);

            client.send(&[&first, begin].concat());
            assert_eq!(client.read_bodies(1), "1", "cut at {cut}");
            client.send(end);
            assert_eq!(client.read_bodies(1), "2", "cut at {cut}");
        }
    }
}

#[test]
fn a_record_that_is_larger_than_a_read_is_read_to_its_end() {
    let origin = Origin::start(|request| {
        Reply::ok(if request.body.len() == 10_000 {
            "y"
        } else {
            "n"
        })
    });
    let gateway = Gateway::start_with_tls(&one_service(&origin));
    for version in VERSIONS {
        let mut client = Client::connect(&gateway, version);
        for _ in 0..2 {
            let record = client.seal(&Request::post("/", "x".repeat(10_000)).bytes());
            client.send(&record);
            assert_eq!(client.read_bodies(1), "y");
        }
    }
}

#[test]
fn a_client_that_leaves_while_it_waits_is_noticed() {
    let gate = Gate::new();
    let open = gate.clone();
    let origin = Origin::start(move |_| Reply::ok("x").after(&open));
    let gateway = Gateway::start_with_tls(&one_service(&origin));
    let mut client = Client::connect(&gateway, SslVersion::TLS1_3);
    let request = client.seal(&Request::get("/").bytes());
    client.send(&request);
    origin.wait_until("the request is there", |received| received.len() == 1);

    drop(client);

    gateway.wait_for_access_log("\"error\":\"client_closed\"");
    gate.open();
}

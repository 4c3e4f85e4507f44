//! A scripted HTTP/1.1 origin: it records what it receives, byte for byte, and replies as a test says.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

use super::http1::{Framing, Head, read_body};
use super::ports::free_port;
use super::reply::{Act, Reply, Then};
use super::wait::{PATIENCE, Stopwatch};
use super::websocket::serve_echo;

/// One request as the origin saw it; it grows while its body arrives.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) chunked: bool,
    /// The whole message has arrived, well-formed.
    pub(crate) complete: bool,
    /// Which accepted connection it came on, from 0.
    pub(crate) connection: usize,
    /// Which request of this origin it is, from 0.
    pub(crate) number: usize,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub(crate) fn headers(&self, name: &str) -> Vec<&str> {
        self.head.headers(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

type Script = dyn Fn(&Received) -> Reply + Send + Sync;

struct Shared {
    script: Box<Script>,
    state: Mutex<State>,
    changed: Condvar,
    running: AtomicBool,
}

#[derive(Default)]
struct State {
    requests: Vec<Received>,
    connections: Vec<Connection>,
    malformed: Vec<String>,
}

struct Connection {
    /// A second handle, to close the connection from outside; none once it was reset.
    stream: Option<TcpStream>,
    open: bool,
}

impl Connection {
    fn close(&self) {
        if let Some(stream) = &self.stream {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.notify_all();
        result
    }
}

/// A server behind the gateway. It stops when dropped.
pub(crate) struct Origin {
    ip: Ipv4Addr,
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Origin {
    /// Replies to each request, once it has arrived whole, as `script` says.
    pub(crate) fn start(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(free_port(), script)
    }

    pub(crate) fn start_at(
        port: u16,
        script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST, port, script)
    }

    /// Listens on this loopback address: origins with one port and several addresses stand behind one name.
    pub(crate) fn start_on(
        ip: Ipv4Addr,
        port: u16,
        script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let running = AtomicBool::new(false);
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared {
            script: Box::new(script),
            state,
            changed,
            running,
        });
        let mut origin = Self {
            ip,
            port,
            shared,
            acceptor: None,
        };
        origin.restart();
        origin
    }

    /// Always replies 200 with this body.
    pub(crate) fn replying(body: &'static str) -> Self {
        Self::start(move |_| Reply::ok(body))
    }

    /// Replies with the body that it received.
    pub(crate) fn echoing() -> Self {
        Self::start(|request| Reply::ok(request.body.clone()))
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:port`.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.ip, self.port)
    }

    /// Everything received so far, also what is still incomplete.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.shared.state().requests.clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.shared.state().requests.len()
    }

    /// The latest request.
    #[track_caller]
    pub(crate) fn last(&self) -> Received {
        self.requests()
            .pop()
            .expect("the origin has received a request")
    }

    /// Messages that were no HTTP/1.1.
    pub(crate) fn malformed(&self) -> Vec<String> {
        self.shared.state().malformed.clone()
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.state().connections.len()
    }

    /// Connections that are open now.
    pub(crate) fn open_connections(&self) -> usize {
        self.shared
            .state()
            .connections
            .iter()
            .filter(|connection| connection.open)
            .count()
    }

    /// Waits until what was received satisfies `condition`.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn(&[Received]) -> bool) {
        self.wait_for_state(what, |state| condition(&state.requests));
    }

    /// Waits until exactly this many connections are open.
    #[track_caller]
    pub(crate) fn wait_for_open_connections(&self, count: usize) {
        let open = |state: &State| {
            state
                .connections
                .iter()
                .filter(|connection| connection.open)
                .count()
        };
        self.wait_for_state(&format!("{count} open upstream connections"), |state| {
            open(state) == count
        });
    }

    #[track_caller]
    fn wait_for_state(&self, what: &str, condition: impl Fn(&State) -> bool) {
        let watch = Stopwatch::start();
        let mut state = self.shared.state();
        while !condition(&state) {
            assert!(
                watch.elapsed() < PATIENCE,
                "waited in vain for {what}; received {:#?}",
                state.requests
            );
            let waited = self
                .shared
                .changed
                .wait_timeout(state, Duration::from_millis(200));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Closes the listener and every connection.
    pub(crate) fn stop(&mut self) {
        self.shared.running.store(false, Ordering::SeqCst);
        // The acceptor sleeps in `accept`; one last connection wakes it.
        drop(TcpStream::connect(self.address()));
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().expect("the acceptor of an origin ends");
        }
        for connection in &self.shared.state().connections {
            connection.close();
        }
    }

    /// Listens again on the same port.
    pub(crate) fn restart(&mut self) {
        let listener = TcpListener::bind(self.address()).expect("the origin's port is free");
        self.shared.running.store(true, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        self.acceptor = Some(thread::spawn(move || accept(&listener, &shared)));
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((self.ip, self.port))
    }
}

impl fmt::Display for Origin {
    /// The origin's URL, ready for `url:`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "http://{}", self.authority())
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if !shared.running.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let Ok(handle) = stream.try_clone() else {
            continue;
        };
        let number = shared.update(|state| {
            state.connections.push(Connection {
                stream: Some(handle),
                open: true,
            });
            state.connections.len() - 1
        });
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            let outcome = converse(&shared, number, stream);
            shared.update(|state| {
                if let Some(connection) = state.connections.get_mut(number) {
                    connection.close();
                    connection.open = false;
                }
                if let Err(error) = outcome
                    && error.kind() == io::ErrorKind::InvalidData
                {
                    state.malformed.push(error.to_string());
                }
            });
        });
    }
}

fn converse(shared: &Shared, connection: usize, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    loop {
        let Some(head) = Head::read(&mut reader)? else {
            return Ok(());
        };
        let request = receive(shared, connection, head, &mut reader)?;
        let reply = (shared.script)(&request);
        if perform(reply, &request, &mut reader, shared)? == Then::Close {
            return Ok(());
        }
    }
}

fn receive(
    shared: &Shared,
    connection: usize,
    head: Head,
    reader: &mut BufReader<TcpStream>,
) -> io::Result<Received> {
    let framing = head.framing()?;
    let mut words = head.start_line.split(' ').map(str::to_owned);
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, head.start_line));
    };
    if version != "HTTP/1.1" {
        return Err(io::Error::new(io::ErrorKind::InvalidData, head.start_line));
    }
    let expects_continue = head.header("expect").is_some();
    let chunked = framing == Some(Framing::Chunked);
    let number = shared.update(|state| {
        let number = state.requests.len();
        let (body, complete) = (Vec::new(), framing.is_none());
        state.requests.push(Received {
            method,
            target,
            head,
            body,
            chunked,
            complete,
            connection,
            number,
        });
        number
    });
    if expects_continue {
        reader
            .get_mut()
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if let Some(framing) = framing {
        read_body(reader, framing, |piece| {
            shared.update(|state| state.requests[number].body.extend_from_slice(piece));
        })?;
    }
    Ok(shared.update(|state| {
        state.requests[number].complete = true;
        state.requests[number].clone()
    }))
}

fn perform(
    reply: Reply,
    request: &Received,
    reader: &mut BufReader<TcpStream>,
    shared: &Shared,
) -> io::Result<Then> {
    match reply.0 {
        Act::Answer(answer) => {
            if let Some(gate) = &answer.gate {
                gate.wait();
            }
            reader.get_mut().write_all(&answer.bytes(&request.method))?;
            Ok(answer.then)
        }
        Act::Write(write, then) => {
            write(reader.get_mut())?;
            Ok(then)
        }
        Act::Reset => {
            SockRef::from(reader.get_ref()).set_linger(Some(Duration::ZERO))?;
            // With no time to linger, closing the last handle resets; a shutdown would say goodbye first.
            shared.update(|state| state.connections[request.connection].stream = None);
            Ok(Then::Close)
        }
        Act::Never => {
            io::copy(reader, &mut io::sink())?;
            Ok(Then::Close)
        }
        Act::Echo => {
            let early = reader.buffer().to_vec();
            reader.consume(early.len());
            serve_echo(reader.get_ref().try_clone()?, &request.head, early)?;
            Ok(Then::Close)
        }
    }
}

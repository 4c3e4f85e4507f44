//! A Consul agent that speaks the documented HTTP API of its health and catalog endpoints, blocking queries
//! included, and that can fail in every way that a real one has.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use openssl::ssl::SslAcceptor;
use serde_json::{Value, json};

use super::certificates::Issued;
use super::origin::Origin;
use super::ports::free_port;
use super::tls_origin::acceptor;
use super::wait::Stopwatch;

/// What happens to every question, also to those that wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConsulFault {
    Status(u16),
    /// A good status with this body.
    Body(String),
    /// The question is read, and nothing more happens.
    Hang,
    /// The connection is closed without an answer.
    Close,
}

/// One instance of a service.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    port: u16,
    weight: Option<u16>,
    tags: Vec<String>,
    passing: bool,
}

impl Instance {
    pub(crate) fn at(port: u16) -> Self {
        Self {
            port,
            weight: None,
            tags: Vec::new(),
            passing: true,
        }
    }

    pub(crate) fn of(origin: &Origin) -> Self {
        Self::at(origin.port())
    }

    pub(crate) fn weight(self, weight: u16) -> Self {
        Self {
            weight: Some(weight),
            ..self
        }
    }

    pub(crate) fn tags(self, tags: &[&str]) -> Self {
        Self {
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..self
        }
    }

    pub(crate) fn failing(self) -> Self {
        Self {
            passing: false,
            ..self
        }
    }

    fn shown(&self, service: &str) -> Value {
        let mut shown = json!({
            "Node": {"Node": "n1", "Address": "127.0.0.1"},
            "Service": {"ID": format!("{service}-{}", self.port), "Service": service, "Address": "", "Port": self.port, "Tags": self.tags},
            "Checks": [{"Status": if self.passing { "passing" } else { "critical" }}],
        });
        if let Some(weight) = self.weight {
            shown["Service"]["Weights"] = json!({"Passing": weight, "Warning": 1});
        }
        shown
    }
}

#[derive(Default)]
struct State {
    index: u64,
    services: BTreeMap<String, Vec<Instance>>,
    fault: Option<ConsulFault>,
    /// Each question: path and query, and the token.
    asked: Vec<(String, Option<String>)>,
    connections: Vec<TcpStream>,
    open: usize,
    /// The most connections that were open at once.
    open_max: usize,
    is_stopped: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A Consul agent. It stops when dropped.
pub(crate) struct Consul {
    port: u16,
    tls: Option<Arc<SslAcceptor>>,
    shared: Arc<Shared>,
}

impl Consul {
    pub(crate) fn start() -> Self {
        let consul = Self::absent();
        consul.listen();
        consul
    }

    /// One that is reached over TLS, with this certificate; for clients with one of `clients_of` only.
    pub(crate) fn start_with_tls(issued: &Issued, clients_of: Option<&Issued>) -> Self {
        let mut consul = Self::absent();
        consul.tls = Some(Arc::new(acceptor(issued, clients_of).build()));
        consul.listen();
        consul
    }

    /// A port where an agent could be, and is not yet.
    pub(crate) fn absent() -> Self {
        let shared = Shared::default();
        shared.lock().index = 10;
        Self {
            port: free_port(),
            tls: None,
            shared: Arc::new(shared),
        }
    }

    /// Begins to listen.
    pub(crate) fn listen(&self) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).expect("a free port");
        let (shared, tls) = (Arc::clone(&self.shared), self.tls.clone());
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let mut state = shared.lock();
                if state.is_stopped {
                    return;
                }
                state
                    .connections
                    .push(stream.try_clone().expect("a second handle"));
                drop(state);
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                thread::spawn(move || {
                    let connection = stream.try_clone().expect("a second handle");
                    let mut state = shared.lock();
                    state.open += 1;
                    state.open_max = state.open_max.max(state.open);
                    drop(state);
                    match tls {
                        None => serve(stream, &shared),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream) {
                                serve(stream, &shared);
                            }
                        }
                    }
                    shared.lock().open -= 1;
                    let _ = connection.shutdown(Shutdown::Both);
                });
            }
        });
    }

    /// `http://127.0.0.1:port`, or the same with https.
    pub(crate) fn address(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Replaces the instances of a service; none removes it.
    pub(crate) fn register(&self, service: &str, instances: Vec<Instance>) {
        self.change(|state| {
            if instances.is_empty() {
                state.services.remove(service);
            } else {
                state.services.insert(service.to_owned(), instances);
            }
        });
    }

    /// Does this to every question until it is told otherwise, also to those that wait; those that hang are closed
    /// when that ends.
    pub(crate) fn fail(&self, fault: impl Into<Option<ConsulFault>>) {
        let fault = fault.into();
        let mut state = self.shared.lock();
        let was_hanging = state.fault == Some(ConsulFault::Hang);
        state.fault = fault;
        let old = std::mem::take(&mut state.connections);
        if was_hanging {
            for connection in old {
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Begins to count from this index, as after a restart with other data.
    pub(crate) fn reset_index(&self, index: u64) {
        self.shared.lock().index = index;
        self.shared.changed.notify_all();
    }

    /// Every question so far: path and query.
    pub(crate) fn questions(&self) -> Vec<String> {
        let state = self.shared.lock();
        state.asked.iter().map(|(path, _)| path.clone()).collect()
    }

    /// The most connections that were open at once so far.
    pub(crate) fn most_connections(&self) -> usize {
        self.shared.lock().open_max
    }

    /// The tokens that were sent.
    pub(crate) fn tokens(&self) -> Vec<Option<String>> {
        let state = self.shared.lock();
        state.asked.iter().map(|(_, token)| token.clone()).collect()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.shared.lock();
        state.index += 1;
        change(&mut state);
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_stopped = true;
        for connection in state.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

/// Answers until the connection is to be closed.
fn serve(stream: impl Read + Write, shared: &Shared) {
    let mut stream = BufReader::new(stream);
    while let Some((target, token)) = read_question(&mut stream) {
        shared.lock().asked.push((target.clone(), token));
        let Some((status, index, body)) = answer(&target, shared) else {
            return;
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nX-Consul-Index: {index}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = head + &body;
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_question(reader: &mut impl BufRead) -> Option<(String, Option<String>)> {
    let (mut target, mut token) = (None, None);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Some((target?, token));
        }
        if let Some(rest) = line.strip_prefix("GET ") {
            target = rest.split(' ').next().map(str::to_owned);
        }
        let field = line.split_once(": ");
        if let Some((_, value)) =
            field.filter(|(name, _)| name.eq_ignore_ascii_case("x-consul-token"))
        {
            token = Some(value.to_owned());
        }
    }
}

/// Status, index and body; none to close the connection.
fn answer(target: &str, shared: &Shared) -> Option<(u16, u64, String)> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parameters: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let all = |name: &str| -> Vec<&str> {
        let same = parameters.iter().filter(|(key, _)| key == name);
        same.map(|(_, value)| value.as_str()).collect()
    };
    let index: u64 = all("index")
        .first()
        .map_or(0, |index| index.parse().expect("a number"));
    let wait: u64 = all("wait").first().map_or(300, |wait| {
        let seconds = wait.strip_suffix('s').expect("seconds");
        seconds.parse().expect("a number of seconds")
    });
    let watch = Stopwatch::start();
    let wait = Duration::from_secs(wait);
    let mut state = shared.lock();
    loop {
        if state.is_stopped {
            return None;
        }
        match state.fault.clone() {
            Some(ConsulFault::Status(status)) => return Some((status, 0, "trouble".to_owned())),
            Some(ConsulFault::Body(body)) => return Some((200, state.index + 1, body)),
            Some(ConsulFault::Close) => return None,
            Some(ConsulFault::Hang) => {}
            None if index > 0 && index == state.index && watch.elapsed() < wait => {}
            None => break,
        }
        let pause = Duration::from_millis(50);
        let waited = shared.changed.wait_timeout(state, pause);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    let body = match path.strip_prefix("/v1/health/service/") {
        Some(service) => {
            let passing = all("passing") == ["true"];
            let tags = all("tag");
            let is_asked_for = |instance: &&Instance| {
                (instance.passing || !passing)
                    && tags
                        .iter()
                        .all(|tag| instance.tags.iter().any(|own| own == tag))
            };
            let instances = state.services.get(service).into_iter().flatten();
            let shown = instances
                .filter(is_asked_for)
                .map(|instance| instance.shown(service));
            Value::from(shown.collect::<Vec<_>>())
        }
        None if path == "/v1/catalog/services" => {
            let tags = |instances: &Vec<Instance>| {
                let mut tags: Vec<&String> = instances
                    .iter()
                    .flat_map(|instance| &instance.tags)
                    .collect();
                tags.sort_unstable();
                tags.dedup();
                json!(tags)
            };
            let services = state.services.iter();
            let mut shown: serde_json::Map<String, Value> = services
                .map(|(name, instances)| (name.clone(), tags(instances)))
                .collect();
            shown.insert("consul".to_owned(), json!([]));
            Value::Object(shown)
        }
        None => return Some((404, state.index, String::new())),
    };
    Some((200, state.index, body.to_string()))
}

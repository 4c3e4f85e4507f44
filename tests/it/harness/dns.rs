//! A name server that answers over UDP and TCP as a test says: records with their TTLs, no such name, no
//! records, failures, silence, answers that are cut short, and bytes that are no answer.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{CNAME, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::ports::free_port;
use super::wait::wait_until;

/// What the server does with a question.
#[derive(Clone, Debug)]
pub(crate) enum DnsReply {
    Records(Vec<RData>, u32),
    /// Of this name there is nothing at all.
    NotFound,
    /// The name exists, but has no records of this kind.
    Empty,
    ServerFailure,
    Silence,
    /// Bytes that are no message.
    Garbage,
    /// The answer is too long for UDP: it comes over TCP only.
    Truncated(Vec<RData>, u32),
}

#[derive(Default)]
struct Zone {
    replies: HashMap<(String, RecordType), DnsReply>,
    aliases: HashMap<String, (String, u32)>,
    /// Each question with whether it came over TCP.
    asked: Vec<(String, RecordType, bool)>,
    /// What happens to all questions, whatever the zone says.
    instead: Option<DnsReply>,
}

/// A name server on loopback. It stops when dropped.
pub(crate) struct DnsServer {
    port: u16,
    zone: Arc<Mutex<Zone>>,
    running: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl DnsServer {
    pub(crate) fn start() -> Self {
        let port = free_port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let udp = UdpSocket::bind(address).expect("a free UDP port");
        let tcp = TcpListener::bind(address).expect("a free TCP port");
        udp.set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a timeout");
        let zone = Arc::<Mutex<Zone>>::default();
        let running = Arc::new(AtomicBool::new(true));
        let threads = vec![
            {
                let (zone, running) = (Arc::clone(&zone), Arc::clone(&running));
                thread::spawn(move || serve_udp(&udp, &zone, &running))
            },
            {
                let (zone, running) = (Arc::clone(&zone), Arc::clone(&running));
                thread::spawn(move || serve_tcp(&tcp, &zone, &running))
            },
        ];
        Self {
            port,
            zone,
            running,
            threads,
        }
    }

    /// The settings that make a gateway ask this server, and nothing else.
    pub(crate) fn settings(&self) -> String {
        format!(
            "dns_resolver: 127.0.0.1:{}\ndns_hostsfile: /dev/null",
            self.port
        )
    }

    /// Answers questions for addresses of `name` with these, each kind for itself.
    pub(crate) fn addresses(&self, name: &str, ttl: u32, addresses: &[&str]) {
        let parsed: Vec<IpAddr> = addresses
            .iter()
            .map(|address| address.parse().expect("an address"))
            .collect();
        for (kind, v4) in [(RecordType::A, true), (RecordType::AAAA, false)] {
            let of_kind = parsed.iter().filter(|address| address.is_ipv4() == v4);
            let records: Vec<RData> = of_kind.map(|address| RData::from(*address)).collect();
            let reply = if records.is_empty() {
                DnsReply::Empty
            } else {
                DnsReply::Records(records, ttl)
            };
            self.reply(name, kind, reply);
        }
    }

    /// Answers questions for services with these places: priority, weight, port and host.
    pub(crate) fn services(&self, name: &str, ttl: u32, places: &[(u16, u16, u16, &str)]) {
        let records = places.iter().map(|(priority, weight, port, host)| {
            let host = Name::from_str(&format!("{host}.")).expect("a name");
            RData::SRV(SRV::new(*priority, *weight, *port, host))
        });
        let reply = DnsReply::Records(records.collect(), ttl);
        self.reply(name, RecordType::SRV, reply);
    }

    /// Makes `name` another name of `target`.
    pub(crate) fn alias(&self, name: &str, ttl: u32, target: &str) {
        self.lock()
            .aliases
            .insert(name.to_owned(), (target.to_owned(), ttl));
    }

    pub(crate) fn reply(&self, name: &str, kind: RecordType, reply: DnsReply) {
        self.lock().replies.insert((name.to_owned(), kind), reply);
    }

    /// Does the same with every question until it is told otherwise.
    pub(crate) fn instead(&self, reply: impl Into<Option<DnsReply>>) {
        self.lock().instead = reply.into();
    }

    /// How often `name` was asked for, in whatever way.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.asked(|asked, _, _| asked == name)
    }

    /// How often a question came that satisfies `condition`: name, kind, whether over TCP.
    pub(crate) fn asked(&self, condition: impl Fn(&str, RecordType, bool) -> bool) -> usize {
        let zone = self.lock();
        let asked = zone.asked.iter();
        asked
            .filter(|(name, kind, tcp)| condition(name, *kind, *tcp))
            .count()
    }

    /// Waits until `name` was asked for `more` times from now on.
    #[track_caller]
    pub(crate) fn wait_for_questions(&self, name: &str, more: usize) {
        let before = self.count(name);
        wait_until(&format!("{more} questions for {name}"), || {
            self.count(name) >= before + more
        });
    }

    fn lock(&self) -> MutexGuard<'_, Zone> {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.running.store(false, Ordering::SeqCst);
        // The listener sleeps in `accept`; one last connection wakes it.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_udp(socket: &UdpSocket, zone: &Mutex<Zone>, running: &AtomicBool) {
    let mut buffer = [0; 4096];
    while running.load(Ordering::SeqCst) {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let question = buffer.get(..length).unwrap_or_default();
        if let Some(answer) = answer(question, zone, false) {
            let _ = socket.send_to(&answer, client);
        }
    }
}

fn serve_tcp(listener: &TcpListener, zone: &Mutex<Zone>, running: &AtomicBool) {
    while let Ok((mut stream, _)) = listener.accept() {
        if !running.load(Ordering::SeqCst) {
            return;
        }
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let mut length = [0; 2];
        while stream.read_exact(&mut length).is_ok() {
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            if stream.read_exact(&mut question).is_err() {
                break;
            }
            let Some(answer) = answer(&question, zone, true) else {
                break;
            };
            let length = u16::try_from(answer.len()).expect("a short answer");
            let sent = [length.to_be_bytes().as_slice(), &answer].concat();
            if stream.write_all(&sent).is_err() {
                break;
            }
        }
    }
}

fn answer(question: &[u8], zone: &Mutex<Zone>, tcp: bool) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).ok()?;
    let query = question.queries.first()?.clone();
    let name = query.name().to_utf8().to_ascii_lowercase();
    let name = name.trim_end_matches('.').to_owned();
    let kind = query.query_type();
    let mut zone = zone.lock().unwrap_or_else(PoisonError::into_inner);
    zone.asked.push((name.clone(), kind, tcp));
    let mut reply = Message::response(question.id, OpCode::Query);
    reply.add_query(query);
    reply.metadata.recursion_available = true;
    let mut owner = name;
    while let Some((target, ttl)) = zone.aliases.get(&owner) {
        let alias = Name::from_str(&format!("{target}.")).expect("a name");
        let of = Name::from_str(&format!("{owner}.")).expect("a name");
        reply.add_answer(Record::from_rdata(of, *ttl, RData::CNAME(CNAME(alias))));
        owner.clone_from(target);
    }
    let scripted = zone.replies.get(&(owner.clone(), kind)).cloned();
    let exists = zone.replies.keys().any(|(name, _)| *name == owner);
    let otherwise = if exists {
        DnsReply::Empty
    } else {
        DnsReply::NotFound
    };
    let act = zone.instead.clone().or(scripted).unwrap_or(otherwise);
    let owner = Name::from_str(&format!("{owner}.")).expect("a name");
    let mut add = |records: Vec<RData>, ttl| {
        let records = records.into_iter();
        reply.add_answers(records.map(|data| Record::from_rdata(owner.clone(), ttl, data)));
    };
    match act {
        DnsReply::Records(records, ttl) => add(records, ttl),
        DnsReply::Truncated(records, ttl) if tcp => add(records, ttl),
        DnsReply::Truncated(..) => reply.metadata.truncation = true,
        DnsReply::Empty => {}
        DnsReply::NotFound => reply.metadata.response_code = ResponseCode::NXDomain,
        DnsReply::ServerFailure => reply.metadata.response_code = ResponseCode::ServFail,
        DnsReply::Silence => return None,
        DnsReply::Garbage => return Some(vec![0xff; 40]),
    }
    Some(reply.to_vec().expect("a message that can be written"))
}

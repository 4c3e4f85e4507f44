//! Asks what a host name stands for: the hosts file, then name servers for SRV and address records,
//! with the time for which the answer holds. It asks once; when to ask again is `names`' business.

mod hosts;
mod settings;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, Record as Answer, RecordType, rdata::SRV},
    system_conf::parse_resolv_conf,
};
use thiserror::Error;
use tokio::time::Instant;

use super::feed::Record;
pub use settings::{Ask, Settings};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The port of name servers where none is written.
pub const PORT: u16 = 53;
/// How long the question for one kind of records may take, all servers, tries and search domains together.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one server may take.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the servers are asked in turn.
const ATTEMPTS_MAX: usize = 3;
/// How long what the hosts file says holds.
const HOSTS_TTL: Duration = Duration::from_secs(5);
/// The most places of one name.
const RECORDS_MAX: usize = 1024;
/// The most hosts that SRV records may name.
const SRV_HOSTS_MAX: usize = 64;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// At least one.
    pub records: Vec<Record>,
    /// How long that holds, as the records say.
    pub ttl: Duration,
    pub by: Source,
    /// Why some of it is only what was known before, or is missing.
    pub failure: Option<Unresolved>,
}

/// What gave an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The kind of records.
    pub ask: Ask,
    /// The fully qualified name that has them; absent: that of the hosts file.
    name: Option<Name>,
}

impl Source {
    /// The hosts file, for addresses of this kind.
    pub const fn hosts_file(ask: Ask) -> Self {
        Self { ask, name: None }
    }
}

/// Why a name stands for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unresolved {
    /// The servers know of no such records.
    #[error("there are no records of this name")]
    NotFound,
    /// No server gave an answer that can be used.
    #[error("{0}")]
    Failed(String),
}

/// Asks name servers. What is needed for that is made with the first question.
#[derive(Debug, Default)]
pub struct Dns {
    settings: Mutex<Arc<Settings>>,
    servers: Mutex<Option<Arc<Servers>>>,
}

/// Whom to ask, and what that was read from.
#[derive(Debug)]
struct Servers {
    resolver: TokioResolver,
    /// What names that are not fully qualified are completed with, in turn.
    domains: Vec<Name>,
    settings: Arc<Settings>,
    /// Which `resolv.conf` it was.
    print: Option<(u64, u64, i64, i64)>,
}

impl Dns {
    /// Asks by `settings` from now on. Whether they differ from those before.
    pub fn adopt(&self, settings: Settings) -> bool {
        let mut current = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let differs = **current != settings;
        if differs {
            *current = Arc::new(settings);
        }
        differs
    }

    /// How it asks now.
    pub fn settings(&self) -> Arc<Settings> {
        let current = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// What `host` stands for. `last` is what gave `known`, if anything did.
    ///
    /// # Errors
    /// When no kind of records gives an address. A failure of the kind that gave the last answer is
    /// an error at once: another kind may say something else of the same name.
    pub async fn look_up(
        &self,
        host: &str,
        last: Option<&Source>,
        known: &[Record],
    ) -> Result<Found, Unresolved> {
        let settings = self.settings();
        if let Some(found) = of_hosts_file(&settings, host) {
            return Ok(found);
        }
        let name = parse(host)?;
        let servers = self.servers(&settings)?;
        let is_the_host = |candidate: &Name| {
            let last = last.and_then(|last| last.name.as_ref());
            known.is_empty() || last == Some(candidate)
        };
        let last = last.map(|last| last.ask);
        let mut failure = None;
        for ask in settings.in_turn(last) {
            let answer = match ask {
                Ask::Srv => by_srv(&servers, &settings, &name, known, is_the_host).await,
                _ => by_address(&servers, &name, ask, is_the_host).await,
            };
            match answer {
                Ok(found) if !found.records.is_empty() => return Ok(found),
                Ok(_) | Err(Unresolved::NotFound) => {}
                Err(failed) if last == Some(ask) => return Err(failed),
                Err(failed) => failure = failure.or(Some(failed)),
            }
        }
        Err(failure.unwrap_or(Unresolved::NotFound))
    }

    /// The servers of `settings` and today's `resolv.conf`, made anew if either has changed.
    fn servers(&self, settings: &Arc<Settings>) -> Result<Arc<Servers>, Unresolved> {
        let print = print_of(Path::new(RESOLV_CONF));
        let mut current = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*current
            && known.print == print
            && Arc::ptr_eq(&known.settings, settings)
        {
            return Ok(Arc::clone(known));
        }
        let system = fs::read(RESOLV_CONF).unwrap_or_default();
        let (config, options) = configuration(settings, &system);
        let domains = config.domain().into_iter().chain(config.search());
        let domains = domains.cloned().collect();
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let resolver = builder.build().map_err(|error| failed(&error))?;
        let servers = Arc::new(Servers {
            resolver,
            domains,
            settings: Arc::clone(settings),
            print,
        });
        *current = Some(Arc::clone(&servers));
        Ok(servers)
    }
}

/// The records of one kind that a name has.
struct Answers {
    /// The fully qualified name.
    name: Name,
    records: Vec<Answer>,
    /// How long all of them hold.
    ttl: Duration,
}

impl Servers {
    /// The records of the first candidate for `name` that has any; for `is_the_host` see [`first_of`].
    async fn ask(
        &self,
        name: &Name,
        kind: RecordType,
        is_the_host: impl Fn(&Name) -> bool,
    ) -> Result<Answers, Unresolved> {
        let candidates = candidates(name, &self.domains, self.resolver.options().ndots);
        let question = |name: Name| async move {
            let lookup = self.resolver.lookup(name.clone(), kind).await;
            let lookup = match lookup {
                Err(error) if error.is_no_records_found() => return Err(Unresolved::NotFound),
                Err(error) => return Err(failed(&error)),
                Ok(lookup) => lookup,
            };
            let answers = lookup.answers();
            let ttl = answers.iter().map(|answer| answer.ttl).min();
            Ok(Answers {
                name,
                records: answers.iter().take(RECORDS_MAX).cloned().collect(),
                ttl: Duration::from_secs(u64::from(ttl.ok_or(Unresolved::NotFound)?)),
            })
        };
        first_of(&candidates, question, is_the_host).await
    }
}

/// What `question` gives for the first of `candidates` that has any records. Whether a candidate has
/// some must be known before the next one is asked for: it may be another host. So where one could not
/// be asked for, a later one counts only if `is_the_host` says that it is the right one all the same.
async fn first_of<T, F: Future<Output = Result<T, Unresolved>>>(
    candidates: &[Name],
    question: impl Fn(Name) -> F,
    is_the_host: impl Fn(&Name) -> bool,
) -> Result<T, Unresolved> {
    let until = Instant::now() + QUESTION_TIMEOUT;
    let mut failure = None;
    for (candidate, left) in candidates.iter().zip((1..=candidates.len()).rev()) {
        if failure.is_some() && !is_the_host(candidate) {
            continue;
        }
        // Servers that are silent about one domain leave the others their part of the time.
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        let time = until.saturating_duration_since(Instant::now()) / left;
        match tokio::time::timeout(time, question(candidate.clone())).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(Unresolved::NotFound)) => {}
            Ok(Err(failed)) => failure = failure.or(Some(failed)),
            Err(_) => {
                let silence = || Unresolved::Failed("the servers did not answer".to_owned());
                failure = failure.or_else(|| Some(silence()));
            }
        }
    }
    Err(failure.unwrap_or(Unresolved::NotFound))
}

/// `host` as servers are asked for it, also with an underscore inside of a label, which no host name
/// has and many a name in DNS.
fn parse(host: &str) -> Result<Name, Unresolved> {
    Name::from_str_relaxed(host).map_err(|error| Unresolved::Failed(error.to_string()))
}

/// The fully qualified names that `name` may stand for, in the order in which they are asked for: as
/// it is, and completed with each of `domains`, the former first if it has at least `ndots` dots.
fn candidates(name: &Name, domains: &[Name], ndots: usize) -> Vec<Name> {
    let mut itself = name.clone();
    itself.set_fqdn(true);
    if name.is_fqdn() {
        return vec![itself];
    }
    let completed = domains
        .iter()
        .filter_map(|domain| name.clone().append_domain(domain).ok());
    let mut all: Vec<Name> = completed.collect();
    let is_first = usize::from(name.num_labels()) > ndots || name.is_localhost();
    let place = if is_first { 0 } else { all.len() };
    all.insert(place, itself);
    // The domain of the system is often the first one that is searched, too.
    all.dedup();
    all
}

/// Device and inode, size and time of change.
fn print_of(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    ))
}

/// Whom to ask: the servers of the settings, else those of the system, else one on this machine, as
/// the system's resolver does.
fn configuration(settings: &Settings, system: &[u8]) -> (ResolverConfig, ResolverOpts) {
    let (system, mut options) = parse_resolv_conf(system).unwrap_or_else(|_| {
        let local = NameServerConfig::udp_and_tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![local]);
        (config, ResolverOpts::default())
    });
    let config = if settings.servers.is_empty() {
        system
    } else {
        let servers = settings.servers.iter().copied().map(server).collect();
        ResolverConfig::from_parts(system.domain().cloned(), system.search().to_vec(), servers)
    };
    options.timeout = options.timeout.min(SERVER_TIMEOUT);
    options.attempts = options.attempts.min(ATTEMPTS_MAX);
    // Every look-up is meant to ask: the answer before has just run out.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    (config, options)
}

fn server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

/// What the hosts file says; for `localhost` the loopback address if it says nothing (RFC 6761 §6.3).
fn of_hosts_file(settings: &Settings, host: &str) -> Option<Found> {
    let mut written = hosts::addresses(&settings.hosts_file, host);
    if written.is_empty() && host == "localhost" {
        written.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let of_kind = |ask: Ask| -> Vec<Record> {
        let same = |address: &&IpAddr| address.is_ipv4() == (ask == Ask::A);
        let addresses = written.iter().filter(same);
        addresses.copied().map(Record::of_address).collect()
    };
    let kinds = settings.families().chain([Ask::A, Ask::Aaaa]);
    kinds
        .map(|ask| (ask, of_kind(ask)))
        .find_map(|(ask, records)| {
            (!records.is_empty()).then_some(Found {
                records,
                ttl: HOSTS_TTL,
                by: Source::hosts_file(ask),
                failure: None,
            })
        })
}

fn failed(error: &NetError) -> Unresolved {
    Unresolved::Failed(error.to_string())
}

async fn by_address(
    servers: &Servers,
    name: &Name,
    ask: Ask,
    is_the_host: impl Fn(&Name) -> bool,
) -> Result<Found, Unresolved> {
    let kind = match ask {
        Ask::Aaaa => RecordType::AAAA,
        Ask::A | Ask::Srv => RecordType::A,
    };
    let Answers { name, records, ttl } = servers.ask(name, kind, is_the_host).await?;
    let addresses = records.iter().filter_map(|answer| answer.data.ip_addr());
    let name = Some(name);
    Ok(Found {
        records: addresses.map(Record::of_address).collect(),
        ttl,
        by: Source { ask, name },
        failure: None,
    })
}

async fn by_srv(
    servers: &Servers,
    settings: &Settings,
    name: &Name,
    known: &[Record],
    is_the_host: impl Fn(&Name) -> bool,
) -> Result<Found, Unresolved> {
    let answers = servers.ask(name, RecordType::SRV, is_the_host).await?;
    let mut ttl = answers.ttl;
    let chosen = of_best_priority(&answers.records);
    let hosts = chosen.iter().map(|place| async {
        for ask in settings.families() {
            // The name in a record is whole: it is its only candidate.
            match by_address(servers, &place.target, ask, |_| true).await {
                Ok(found) if found.records.is_empty() => {}
                Err(Unresolved::NotFound) => {}
                answered => return answered,
            }
        }
        Err(Unresolved::NotFound)
    });
    let mut records = Vec::new();
    let mut failure = None;
    for (place, resolved) in chosen.iter().zip(join_all(hosts).await) {
        let name: Arc<str> = place.target.to_utf8().trim_end_matches('.').into();
        let addresses: Vec<IpAddr> = match resolved {
            Ok(found) => {
                ttl = ttl.min(found.ttl);
                let records = found.records.into_iter();
                records.map(|record| record.address).collect()
            }
            Err(Unresolved::NotFound) => Vec::new(),
            // What this host was before is nearer to the truth than to do without it.
            Err(failed) => {
                failure.get_or_insert_with(|| Unresolved::Failed(format!("{name}: {failed}")));
                let of_host = |record: &&Record| record.name.as_ref() == Some(&name);
                let before = known.iter().filter(of_host);
                before.map(|record| record.address).collect()
            }
        };
        records.extend(addresses.into_iter().map(|address| Record {
            address,
            port: Some(place.port).filter(|port| *port > 0),
            weight: Some(place.weight.max(1)),
            name: Some(Arc::clone(&name)),
        }));
    }
    records.truncate(RECORDS_MAX);
    match failure {
        Some(failed) if records.is_empty() => Err(failed),
        failure => Ok(Found {
            records,
            ttl,
            by: Source {
                ask: Ask::Srv,
                name: Some(answers.name),
            },
            failure,
        }),
    }
}

/// The SRV records of the smallest number; one whose target is the root says that there is no such
/// service (RFC 2782).
fn of_best_priority(answers: &[Answer]) -> Vec<SRV> {
    let places = answers.iter().filter_map(|answer| match &answer.data {
        RData::SRV(place) if !place.target.is_root() => Some(place),
        _ => None,
    });
    let best = places.clone().map(|place| place.priority).min();
    let chosen = places.filter(|place| Some(place.priority) == best);
    chosen.take(SRV_HOSTS_MAX).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(servers: &[&str]) -> Settings {
        Settings {
            servers: servers
                .iter()
                .map(|server| server.parse().expect("an address"))
                .collect(),
            hosts_file: "/no/such/file".into(),
            ..Settings::default()
        }
    }

    #[test]
    fn own_servers_replace_those_of_the_system_but_not_its_search_domains() {
        let system = b"nameserver 10.0.0.1\nsearch a.test b.test\noptions ndots:3 timeout:30\n";
        let (config, options) = configuration(&settings(&["127.0.0.1:5353"]), system);
        let [server] = config.name_servers() else {
            panic!("one server: {config:?}");
        };
        assert_eq!(server.ip, IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert!(server.connections.iter().all(|each| each.port == 5353));
        assert_eq!(config.search().len(), 2);
        assert_eq!((options.ndots, options.timeout), (3, SERVER_TIMEOUT));
        assert_eq!(options.cache_size, 0);
    }

    #[test]
    fn without_any_server_this_machine_is_asked() {
        let (config, _) = configuration(&settings(&[]), b"");
        let servers: Vec<_> = config.name_servers().iter().map(|each| each.ip).collect();
        assert_eq!(servers, [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }

    fn names(host: &str, ndots: usize) -> Vec<String> {
        let domains = ["a.test", "a.test", "b.test"].map(|domain| parse(domain).expect("a name"));
        let name = parse(host).expect("a name");
        let all = candidates(&name, &domains, ndots).into_iter();
        all.map(|name| name.to_utf8()).collect()
    }

    #[test]
    fn a_name_is_completed_unless_it_is_whole() {
        assert_eq!(names("x", 1), ["x.a.test.", "x.b.test.", "x."]);
        assert_eq!(names("x.y", 1), ["x.y.", "x.y.a.test.", "x.y.b.test."]);
        assert_eq!(names("x.y", 2), ["x.y.a.test.", "x.y.b.test.", "x.y."]);
        assert_eq!(names("x.y.", 5), ["x.y."]);
    }

    /// What is found where `a.test` fails or is silent, `b.test` has `b` and `c.test` nothing; and how
    /// long that takes.
    async fn search(
        candidates: &[&str],
        is_silent: bool,
        is_the_host: impl Fn(&str) -> bool,
    ) -> (Result<String, Unresolved>, Duration) {
        let candidates: Vec<Name> = candidates
            .iter()
            .map(|name| parse(name).expect("a name"))
            .collect();
        let question = |name: Name| async move {
            match name.to_utf8().as_str() {
                "a.test" if is_silent => std::future::pending().await,
                "a.test" => Err(Unresolved::Failed("refused".to_owned())),
                "b.test" => Ok("b".to_owned()),
                _ => Err(Unresolved::NotFound),
            }
        };
        let began = Instant::now();
        let found = first_of(&candidates, question, |name| is_the_host(&name.to_utf8())).await;
        (found, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_domain_that_fails_hides_no_other_while_nothing_is_known() {
        let refused = || Err(Unresolved::Failed("refused".to_owned()));
        let all = ["a.test", "c.test", "b.test"];
        assert_eq!(search(&all, false, |_| true).await.0, Ok("b".to_owned()));
        let of_b = |name: &str| name == "b.test";
        assert_eq!(search(&all, false, of_b).await.0, Ok("b".to_owned()));
        let of_a = |name: &str| name == "a.test";
        assert_eq!(search(&all, false, of_a).await.0, refused());
        let without = ["a.test", "c.test"];
        assert_eq!(search(&without, false, |_| true).await.0, refused());
        let missing = search(&["c.test"], false, |_| true).await.0;
        assert_eq!(missing, Err(Unresolved::NotFound));
    }

    #[tokio::test(start_paused = true)]
    async fn a_domain_that_is_silent_leaves_the_others_time() {
        let (found, took) = search(&["a.test", "c.test", "b.test"], true, |_| true).await;
        assert_eq!(found, Ok("b".to_owned()));
        assert!(took < QUESTION_TIMEOUT / 2, "{took:?}");
        let (found, took) = search(&["a.test"], true, |_| true).await;
        assert!(matches!(found, Err(Unresolved::Failed(_))));
        assert!(took < QUESTION_TIMEOUT + SERVER_TIMEOUT, "{took:?}");
    }

    #[test]
    fn an_underscore_may_stand_anywhere() {
        for host in ["user_service", "_http._tcp.user_service.test", "a_.test"] {
            let name = parse(host).expect("a name");
            assert_eq!(name.to_utf8(), host);
        }
        assert!(parse("a..b").is_err());
    }

    #[tokio::test]
    async fn localhost_is_nobodys_business_but_ours() {
        let dns = Dns::default();
        dns.adopt(settings(&["127.0.0.1:1"]));
        let found = dns.look_up("localhost", None, &[]).await.expect("found");
        let expected = Record::of_address(IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!((found.records, found.by.ask), (vec![expected], Ask::A));
    }

    #[test]
    fn only_the_best_priority_counts() {
        let place = |priority, target: &str| {
            let target = Name::from_utf8(target).expect("a name");
            let place = SRV::new(priority, 0, 80, target);
            Answer::from_rdata(Name::root(), 60, RData::SRV(place))
        };
        let answers = [
            place(1, "."),
            place(20, "c.test."),
            place(10, "a.test."),
            place(10, "b.test."),
        ];
        let chosen = of_best_priority(&answers).into_iter();
        let names: Vec<String> = chosen.map(|place| place.target.to_utf8()).collect();
        assert_eq!(names, ["a.test.", "b.test."]);
    }
}

//! A target as it is written: an address, or a name that stands for several. Which of them a request
//! goes to is not its business.

use std::{
    cmp::Reverse,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::HeaderValue;
use tokio::sync::Semaphore;

use super::Member;
use crate::{
    entity::Protocol,
    state::{
        addresses::PerAddress,
        consul::Service,
        feed::{Feed, Record},
        health::TargetHealth,
        load::Load,
        names::Name,
        pool::Pools,
    },
};

/// One place behind an upstream or a service.
#[derive(Debug, Clone)]
pub struct Target {
    pub host: TargetHost,
    pub port: u16,
    pub weight: u16,
    /// As the operator wrote it, for logs and metrics.
    pub label: Arc<str>,
    /// What it is called towards itself, unless the route or upstream says otherwise.
    pub called: Called,
    /// Whether an address is called by the name of its SRV record.
    pub srv_host: bool,
    /// How its addresses are; absent = nobody watches them.
    pub health: Option<Arc<TargetHealth>>,
    /// What its addresses have to do.
    pub loads: Arc<PerAddress<Load>>,
    /// The idle connections to its addresses, and to those of others.
    pub pools: Arc<Pools>,
    /// What is left of `max_connections`; absent = no limit.
    pub slots: Option<Slots>,
    /// It is used only until these are known; absent = always.
    pub until: Option<Arc<Service>>,
}

/// The connections that each address of a target may still take.
#[derive(Debug, Clone)]
pub struct Slots {
    /// The most of them.
    pub limit: usize,
    pub left: Arc<PerAddress<Semaphore>>,
}

/// How a target is addressed.
#[derive(Debug, Clone)]
pub enum TargetHost {
    Address(IpAddr),
    Name(Arc<Name>),
    /// The instances of a service that a registry tells.
    Instances(Arc<Service>),
}

impl TargetHost {
    /// What says which addresses it stands for; absent for an address.
    pub fn feed(&self) -> Option<&Feed> {
        match self {
            Self::Address(_) => None,
            Self::Name(name) => Some(name.feed()),
            Self::Instances(service) => Some(service.feed()),
        }
    }
}

/// One of the addresses that a target stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub address: SocketAddr,
    pub weight: u16,
    /// The host name of an SRV record.
    pub name: Option<Arc<str>>,
}

impl Target {
    /// What the member at `address` is called towards itself, which has the name of its SRV record:
    /// like its target, unless that is to be its name, or only the address is known of it.
    pub(super) fn called_at(&self, address: SocketAddr, name: Option<&str>) -> Called {
        match (&self.host, name) {
            (TargetHost::Instances(_), _) => Called::new(&address.ip().to_string(), address.port()),
            (_, Some(name)) if self.srv_host => Called::new(name, address.port()),
            _ if address.port() == self.port => self.called.clone(),
            _ => Called::new(&self.called.server_name, address.port()),
        }
    }

    /// Whether a registry has told what is used instead.
    pub fn is_replaced(&self) -> bool {
        let is_known = |until: &Arc<Service>| until.feed().is_known();
        self.until.as_ref().is_some_and(is_known)
    }

    /// What it stands for now, each address once; empty for a name without addresses, and for what
    /// has been replaced.
    pub fn places(&self) -> Vec<Place> {
        if self.is_replaced() {
            return Vec::new();
        }
        match (&self.host, self.host.feed()) {
            (TargetHost::Address(address), _) => vec![self.place(&Record::of_address(*address))],
            (_, Some(feed)) => {
                let records = feed.records();
                let mut places: Vec<_> = records.iter().map(|record| self.place(record)).collect();
                // Two hosts of an SRV record may be one: the greater weight counts.
                places.sort_by_key(|place| (place.address, Reverse(place.weight)));
                places.dedup_by_key(|place| place.address);
                places
            }
            (_, None) => Vec::new(),
        }
    }

    fn place(&self, record: &Record) -> Place {
        Place {
            address: SocketAddr::new(record.address, record.port.unwrap_or(self.port)),
            weight: record.weight.unwrap_or(self.weight),
            name: record.name.clone(),
        }
    }

    /// What is needed to say what it would be sent, where no address is known or needed.
    pub fn stand_in(&self) -> Member {
        let address = match &self.host {
            TargetHost::Address(address) => *address,
            TargetHost::Name(_) | TargetHost::Instances(_) => IpAddr::from([0, 0, 0, 0]),
        };
        let mut address = SocketAddr::new(address, self.port);
        // What instances are called, only they can tell.
        if let (TargetHost::Instances(_), Some(first)) = (&self.host, self.places().first()) {
            address = first.address;
        }
        Member {
            address,
            weight: self.weight,
            target: 0,
            label: Arc::clone(&self.label),
            name: None,
            session: 0,
            called: self.called_at(address, None),
            health: None,
            load: Arc::default(),
            pool: Arc::default(),
            slots: None,
        }
    }
}

/// What a target is called towards itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// The `Host` sent to it over http and over https.
    host_headers: [HeaderValue; 2],
    /// The name to verify and to send as SNI: the host without its port.
    pub server_name: Arc<str>,
}

impl Called {
    /// What `host` is called, a name or an address without brackets.
    pub fn new(host: &str, port: u16) -> Self {
        let shown = match host.parse() {
            Ok(IpAddr::V6(_)) => format!("[{host}]"),
            _ => host.to_owned(),
        };
        let header = |protocol: Protocol| {
            let text = if port == protocol.default_port() {
                shown.clone()
            } else {
                format!("{shown}:{port}")
            };
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
        };
        Self {
            host_headers: [header(Protocol::Http), header(Protocol::Https)],
            server_name: host.into(),
        }
    }

    /// The `Host` sent over `protocol`.
    pub fn host_header(&self, protocol: Protocol) -> &HeaderValue {
        let [http, https] = &self.host_headers;
        if protocol.is_encrypted() { https } else { http }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::state::consul::{Consul, ServiceKey, tests::agent};

    /// `127.0.0.1:80`, not watched.
    pub(crate) fn target(weight: u16) -> Target {
        at(1, weight)
    }

    /// `127.0.0.<last>:80`, not watched.
    pub(crate) fn at(last: u8, weight: u16) -> Target {
        let address = IpAddr::from([127, 0, 0, last]);
        Target {
            host: TargetHost::Address(address),
            port: 80,
            weight,
            label: format!("{address}:80").into(),
            called: Called::new(&address.to_string(), 80),
            srv_host: false,
            health: None,
            loads: Arc::default(),
            pools: Arc::default(),
            slots: None,
            until: None,
        }
    }

    #[test]
    fn the_host_header_names_the_port_unless_it_is_the_protocols() {
        let host = |host, port, protocol| {
            let called = Called::new(host, port);
            let header = called.host_header(protocol).to_str();
            header.expect("text").to_owned()
        };
        assert_eq!(host("a.test", 80, Protocol::Http), "a.test");
        assert_eq!(host("a.test", 80, Protocol::Https), "a.test:80");
        assert_eq!(host("a.test", 443, Protocol::Https), "a.test");
        assert_eq!(host("::1", 8080, Protocol::Http), "[::1]:8080");
        assert_eq!(host("::1", 80, Protocol::Http), "[::1]");
    }

    #[test]
    fn a_record_may_bring_its_own_port_and_weight() {
        let addresses = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let name = Name::of_addresses("a.test", addresses.to_vec());
        let mut record = Record::of_address(addresses[1]);
        record.port = Some(8080);
        record.weight = Some(7);
        name.feed()
            .publish(vec![Record::of_address(addresses[0]), record]);
        let target = Target {
            host: TargetHost::Name(Arc::new(name)),
            ..target(100)
        };
        let places: Vec<_> = target
            .places()
            .iter()
            .map(|place| (place.address.to_string(), place.weight))
            .collect();
        assert_eq!(
            places,
            [
                ("10.0.0.1:80".to_owned(), 100),
                ("10.0.0.2:8080".to_owned(), 7)
            ]
        );
    }

    #[test]
    fn two_hosts_with_one_address_and_port_are_one_place() {
        let name = Name::of_addresses("a.test", Vec::new());
        let record = |host: &str, weight| Record {
            port: Some(8080),
            weight: Some(weight),
            name: Some(host.into()),
            ..Record::of_address(IpAddr::from([10, 0, 0, 1]))
        };
        name.feed()
            .publish(vec![record("a.test", 1), record("b.test", 2)]);
        let target = Target {
            host: TargetHost::Name(Arc::new(name)),
            ..target(100)
        };
        let [place] = target.places().try_into().expect("one place");
        assert_eq!((place.weight, place.name.as_deref()), (2, Some("b.test")));
    }

    #[test]
    fn a_target_may_stand_in_until_instances_are_known() {
        let consul = Consul::default();
        let service = consul.service(ServiceKey {
            agent: agent("t"),
            service: "users".to_owned(),
            tags: Vec::new(),
            passing: true,
        });
        let written = Target {
            until: Some(Arc::clone(&service)),
            ..target(1)
        };
        let told = Target {
            host: TargetHost::Instances(Arc::clone(&service)),
            port: 0,
            ..target(100)
        };
        assert_eq!((written.places().len(), told.places().len()), (1, 0));
        service.feed().note_answer();
        assert_eq!(written.places().len(), 1, "a failure says nothing");
        service.read_and_adopt(br#"[{"Service": {"Address": "10.0.0.1", "Port": 81}}]"#);
        assert!(written.places().is_empty());
        let [place] = told.places().try_into().expect("one place");
        assert_eq!(
            (place.address.to_string(), place.weight),
            ("10.0.0.1:81".to_owned(), 100)
        );
        let called = told.called_at(place.address, None);
        assert_eq!(called.host_header(Protocol::Http), "10.0.0.1:81");
    }
}

//! Which stream route takes a connection: by the server name, by where it comes from and where it
//! arrived. Pure, and looked at once for a connection.

pub mod reasons;

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::entity::host::HostName;

/// What a stream route asks of a connection.
#[derive(Debug, Clone, Default)]
pub struct StreamRule {
    /// The ways in which it can be reached.
    pub over: Vec<Way>,
    /// Without TLS they are not looked at.
    pub snis: Vec<HostName>,
    pub sources: Vec<Endpoint>,
    pub destinations: Vec<Endpoint>,
    /// Of two that are otherwise equal the older one wins.
    pub created_at: Option<i64>,
}

/// How a connection comes, and what becomes of its TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Without TLS.
    Tcp,
    /// TLS that ends here.
    Tls,
    /// TLS that goes on to the upstream as it is.
    Passthrough,
}

/// An address, a network, a port, or a combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    pub network: Option<IpNet>,
    pub port: Option<u16>,
    /// Whether `network` was written as one, with a prefix length.
    pub is_network: bool,
}

/// A connection, before anything but a server name was read from it.
#[derive(Debug, Clone, Copy)]
pub struct Arrived<'a> {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub tls: bool,
    /// In lower case.
    pub server_name: Option<&'a str>,
}

/// The stream routes in the order in which they are tried.
#[derive(Debug, Default)]
pub struct StreamRouter(Box<[(usize, StreamRule)]>);

impl Endpoint {
    fn matches(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.network.is_none_or(|network| network.contains(&ip))
            && self.port.is_none_or(|port| port == address.port())
    }

    /// Kong's weight of one entry: an address before a port before a network.
    fn weight(&self) -> u8 {
        let by_address = match (self.network, self.is_network) {
            (None, _) => 0,
            (Some(_), true) => 1,
            (Some(_), false) => 8,
        };
        by_address | if self.port.is_some() { 4 } else { 0 }
    }
}

impl StreamRule {
    /// Kong's order: a server name, or source and destination both, before less; then the most exact
    /// source; then the most exact destination.
    fn weight(&self) -> (bool, u8, u8) {
        let of = |endpoints: &[Endpoint]| {
            endpoints
                .iter()
                .fold(0, |weight, endpoint| weight | endpoint.weight())
        };
        let is_special =
            !self.snis.is_empty() || (!self.sources.is_empty() && !self.destinations.is_empty());
        (is_special, of(&self.sources), of(&self.destinations))
    }

    fn way(&self, tls: bool) -> Option<Way> {
        let suits = |way: &&Way| (**way == Way::Tcp) != tls;
        self.over.iter().find(suits).copied()
    }

    fn matches(&self, arrived: &Arrived<'_>) -> Option<Way> {
        let way = self.way(arrived.tls)?;
        let any = |endpoints: &[Endpoint], address: SocketAddr| {
            endpoints.is_empty() || endpoints.iter().any(|endpoint| endpoint.matches(address))
        };
        let named = !arrived.tls
            || self.snis.is_empty()
            || arrived
                .server_name
                .is_some_and(|name| self.snis.iter().any(|sni| sni.matches(name.as_bytes())));
        (named
            && any(&self.sources, arrived.source)
            && any(&self.destinations, arrived.destination))
        .then_some(way)
    }
}

impl StreamRouter {
    /// Sorts the rules; each is known by its place in the list.
    pub fn new(rules: Vec<StreamRule>) -> Self {
        let mut sorted: Vec<(usize, StreamRule)> = rules.into_iter().enumerate().collect();
        sorted.sort_by(|(_, one), (_, other)| {
            let by_age = match (one.created_at, other.created_at) {
                (Some(one), Some(other)) => one.cmp(&other),
                _ => std::cmp::Ordering::Equal,
            };
            other.weight().cmp(&one.weight()).then(by_age)
        });
        Self(sorted.into_boxed_slice())
    }

    /// The place of the route that takes the connection, and how it does.
    pub fn find(&self, arrived: &Arrived<'_>) -> Option<(usize, Way)> {
        self.0
            .iter()
            .find_map(|(place, rule)| Some((*place, rule.matches(arrived)?)))
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Endpoint {
    /// Any port of one address.
    pub fn of(address: IpAddr) -> Self {
        Self {
            network: Some(address.into()),
            port: None,
            is_network: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::host::parse_server_name;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn endpoint(text: &str) -> Endpoint {
        let (network, port) = match text.rsplit_once(':') {
            Some((network, port)) => (network, port.parse().ok()),
            None => (text, None),
        };
        let is_network = network.contains('/');
        let network = if is_network {
            network.parse().ok()
        } else {
            network.parse::<IpAddr>().ok().map(IpNet::from)
        };
        Endpoint {
            network,
            port,
            is_network,
        }
    }

    fn rule(over: &[Way], snis: &[&str], sources: &[&str], destinations: &[&str]) -> StreamRule {
        let endpoints = |texts: &[&str]| texts.iter().map(|text| endpoint(text)).collect();
        StreamRule {
            over: over.to_vec(),
            snis: snis
                .iter()
                .map(|sni| parse_server_name(sni).expect("a name"))
                .collect(),
            sources: endpoints(sources),
            destinations: endpoints(destinations),
            created_at: None,
        }
    }

    fn arrived(tls: bool, server_name: Option<&str>) -> Arrived<'_> {
        Arrived {
            source: address("10.1.2.3:40000"),
            destination: address("192.0.2.1:9000"),
            tls,
            server_name,
        }
    }

    fn winner(rules: &[StreamRule], arrived: &Arrived<'_>) -> Option<usize> {
        StreamRouter::new(rules.to_vec())
            .find(arrived)
            .map(|(place, _)| place)
    }

    #[test]
    fn every_attribute_must_match_by_any_of_its_values() {
        let tcp = |sources: &[&str], destinations: &[&str]| {
            winner(
                &[rule(&[Way::Tcp], &[], sources, destinations)],
                &arrived(false, None),
            )
        };
        assert_eq!(tcp(&["10.0.0.0/8"], &[]), Some(0));
        assert_eq!(tcp(&["10.9.9.9", "10.1.2.3"], &[":9000"]), Some(0));
        assert_eq!(tcp(&["10.1.2.3:40000"], &["192.0.2.1:9000"]), Some(0));
        assert_eq!(tcp(&["10.1.2.3:1"], &[]), None);
        assert_eq!(tcp(&["10.0.0.0/8"], &[":9001"]), None);
        assert_eq!(tcp(&["192.168.0.0/16"], &[]), None);
    }

    #[test]
    fn a_mapped_address_counts_as_its_ipv4() {
        let rules = [rule(&[Way::Tcp], &[], &["10.0.0.0/8"], &[])];
        let arrived = Arrived {
            source: address("[::ffff:10.1.2.3]:40000"),
            ..arrived(false, None)
        };
        assert_eq!(winner(&rules, &arrived), Some(0));
    }

    #[test]
    fn server_names_decide_between_tls_connections_only() {
        let rules = [
            rule(&[Way::Tls], &["a.test"], &[], &[]),
            rule(&[Way::Tcp, Way::Tls], &["*.b.test"], &[], &[]),
            rule(&[Way::Passthrough], &["c.*"], &[], &[]),
        ];
        let find = |name| winner(&rules, &arrived(true, name));
        assert_eq!(find(Some("a.test")), Some(0));
        assert_eq!(find(Some("x.b.test")), Some(1));
        assert_eq!(find(Some("c.example")), Some(2));
        assert_eq!((find(Some("b.test")), find(None)), (None, None));
        assert_eq!(winner(&rules, &arrived(false, None)), Some(1));
    }

    #[test]
    fn tls_goes_on_only_where_the_route_says_so() {
        let router = StreamRouter::new(vec![rule(&[Way::Passthrough], &["a.test"], &[], &[])]);
        let found = router.find(&arrived(true, Some("a.test")));
        assert_eq!(found, Some((0, Way::Passthrough)));
        assert_eq!(router.find(&arrived(false, None)), None);
    }

    #[test]
    fn the_more_exact_rule_is_tried_first() {
        let both = [Way::Tcp, Way::Tls];
        let by_name = rule(&both, &["a.test"], &[], &[]);
        let by_ends = rule(&both, &[], &["10.0.0.0/8"], &[":9000"]);
        let by_address = rule(&both, &[], &["10.1.2.3"], &[]);
        let by_network = rule(&both, &[], &["10.0.0.0/8"], &[]);
        let by_port = rule(&both, &[], &[], &[":9000"]);
        let order = |rules: &[&StreamRule]| {
            let rules: Vec<StreamRule> = rules.iter().map(|rule| (*rule).clone()).collect();
            winner(&rules, &arrived(true, Some("a.test")))
        };
        assert_eq!(order(&[&by_address, &by_name]), Some(1));
        assert_eq!(order(&[&by_address, &by_ends]), Some(1));
        assert_eq!(order(&[&by_network, &by_address]), Some(1));
        assert_eq!(order(&[&by_port, &by_network]), Some(1));
        let mut senior = by_port.clone();
        senior.created_at = Some(1);
        let mut junior = by_port.clone();
        junior.created_at = Some(2);
        assert_eq!(order(&[&junior, &senior]), Some(1));
        assert_eq!(order(&[&by_port, &senior]), Some(0));
    }
}

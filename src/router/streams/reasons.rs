//! Why a stream route takes a connection, and why the others do not: what the rules say of it, in words. For people,
//! not for connections.

use std::fmt;

use super::{Arrived, Endpoint, StreamRouter, StreamRule, Way};

/// What the router says of a connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Findings {
    /// What [`StreamRouter::find`] gives.
    pub winner: Option<(usize, Way)>,
    /// How the winner's conditions are met.
    pub met: Vec<Condition>,
    /// The other routes, in the order in which they are tried.
    pub losers: Vec<Loser>,
}

/// A route that does not take the connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Loser {
    /// The place of the route.
    pub route: usize,
    pub reason: LossReason,
}

/// Why a route does not take a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum LossReason {
    /// All that keeps it from doing so.
    Mismatched(Vec<Condition>),
    /// It would, but another one is tried before.
    Outranked(Precedence),
}

/// What puts one of two rules that match behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    Kind,
    Sources,
    Destinations,
    Age,
    Order,
}

/// A condition of a route beside what the connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `protocols`, `snis`, `sources` or `destinations`.
    pub attribute: &'static str,
    /// As they are written.
    pub wanted: Vec<String>,
    /// What the connection has; `None`: nothing of the kind.
    pub got: Option<String>,
    pub is_met: bool,
}

impl StreamRouter {
    /// The route that [`Self::find`] gives, and for every other one why it is another. It looks at all.
    pub fn explain(&self, arrived: &Arrived<'_>) -> Findings {
        let winning = self
            .0
            .iter()
            .find_map(|(place, rule)| Some((*place, rule, rule.matches(arrived)?)));
        let losers = self
            .0
            .iter()
            .filter(|(place, _)| winning.is_none_or(|(winner, ..)| winner != *place));
        Findings {
            winner: winning.map(|(place, _, way)| (place, way)),
            met: winning.map_or_else(Vec::new, |(_, rule, _)| rule.conditions(arrived)),
            losers: losers
                .map(|(place, rule)| Loser {
                    route: *place,
                    reason: match winning {
                        Some((_, winner, _)) if rule.matches(arrived).is_some() => {
                            LossReason::Outranked(winner.precedence(rule))
                        }
                        _ => LossReason::Mismatched(rule.mismatches(arrived)),
                    },
                })
                .collect(),
        }
    }
}

impl StreamRule {
    fn mismatches(&self, arrived: &Arrived<'_>) -> Vec<Condition> {
        let mut conditions = self.conditions(arrived);
        conditions.retain(|condition| !condition.is_met);
        conditions
    }

    /// Every condition of the rule that counts for this connection.
    fn conditions(&self, arrived: &Arrived<'_>) -> Vec<Condition> {
        let texts = |endpoints: &[Endpoint]| endpoints.iter().map(ToString::to_string).collect();
        let mut conditions = vec![Condition {
            attribute: "protocols",
            wanted: self
                .over
                .iter()
                .map(|way| way.as_str().to_owned())
                .collect(),
            got: Some(if arrived.tls { "TLS" } else { "no TLS" }.to_owned()),
            is_met: self.way(arrived.tls).is_some(),
        }];
        if arrived.tls && !self.snis.is_empty() {
            let name = arrived.server_name;
            conditions.push(Condition {
                attribute: "snis",
                wanted: self.snis.iter().map(ToString::to_string).collect(),
                got: name.map(str::to_owned),
                is_met: name
                    .is_some_and(|name| self.snis.iter().any(|sni| sni.matches(name.as_bytes()))),
            });
        }
        for (attribute, endpoints, address) in [
            ("sources", &self.sources, arrived.source),
            ("destinations", &self.destinations, arrived.destination),
        ] {
            if !endpoints.is_empty() {
                conditions.push(Condition {
                    attribute,
                    wanted: texts(endpoints),
                    got: Some(if address.port() == 0 {
                        address.ip().to_canonical().to_string()
                    } else {
                        address.to_string()
                    }),
                    is_met: endpoints.iter().any(|endpoint| endpoint.matches(address)),
                });
            }
        }
        conditions
    }

    /// What puts `other` behind this one.
    fn precedence(&self, other: &Self) -> Precedence {
        let (kind, sources, destinations) = self.weight();
        let (other_kind, other_sources, other_destinations) = other.weight();
        if kind != other_kind {
            Precedence::Kind
        } else if sources != other_sources {
            Precedence::Sources
        } else if destinations != other_destinations {
            Precedence::Destinations
        } else if self.created_at.is_some()
            && other.created_at.is_some()
            && self.created_at != other.created_at
        {
            Precedence::Age
        } else {
            Precedence::Order
        }
    }
}

impl Way {
    /// The protocol of routes that are reached so.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Passthrough => "tls_passthrough",
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = self.network.map(|network| {
            if self.is_network {
                network.to_string()
            } else {
                network.addr().to_string()
            }
        });
        match (network, self.port) {
            (Some(network), Some(port)) => write!(f, "{network} port {port}"),
            (Some(network), None) => f.write_str(&network),
            (None, Some(port)) => write!(f, "port {port}"),
            (None, None) => f.write_str("anything"),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted: Vec<String> = self.wanted.iter().map(|one| format!("`{one}`")).collect();
        let wanted = wanted.join(" or ");
        let is = if self.is_met { "is" } else { "is not" };
        match (self.attribute, &self.got) {
            ("protocols", Some(got)) => {
                let is = if self.is_met { "as" } else { "but" };
                write!(f, "there is {got}, {is} `protocols` has {wanted}")
            }
            ("snis", Some(got)) => write!(f, "the server name `{got}` {is} {wanted}"),
            ("snis", None) => {
                write!(
                    f,
                    "the client asked for no server name, which should be {wanted}"
                )
            }
            ("sources", Some(got)) => write!(f, "the source `{got}` {is} {wanted}"),
            (_, Some(got)) => write!(f, "the destination `{got}` {is} {wanted}"),
            (attribute, None) => write!(f, "`{attribute}` should be {wanted}"),
        }
    }
}

impl fmt::Display for Precedence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kind => "it matches, but has neither `snis` nor both `sources` and `destinations`, as the winner",
            Self::Sources => "it matches, but its `sources` are less exact",
            Self::Destinations => "it matches, but its `destinations` are less exact",
            Self::Age => "it matches, but is younger (`created_at`)",
            Self::Order => "it matches, but comes later in the files",
        })
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;
    use crate::entity::host::parse_server_name;

    fn arrived(tls: bool, server_name: Option<&str>) -> Arrived<'_> {
        Arrived {
            source: "10.1.2.3:0".parse().expect("an address"),
            destination: "192.0.2.1:5432".parse().expect("an address"),
            tls,
            server_name,
        }
    }

    fn network(text: &str) -> Endpoint {
        Endpoint {
            network: Some(text.parse::<IpNet>().expect("a network")),
            port: None,
            is_network: true,
        }
    }

    const fn port(port: u16) -> Endpoint {
        Endpoint {
            network: None,
            port: Some(port),
            is_network: false,
        }
    }

    fn said(router: &StreamRouter, arrived: &Arrived<'_>) -> Vec<String> {
        let findings = router.explain(arrived);
        assert_eq!(findings.winner, router.find(arrived));
        let losers = findings
            .losers
            .iter()
            .flat_map(|loser| match &loser.reason {
                LossReason::Mismatched(all) => {
                    let all = all.iter();
                    all.map(|one| format!("{}: {one}", loser.route)).collect()
                }
                LossReason::Outranked(reason) => vec![format!("{}: {reason}", loser.route)],
            });
        findings
            .met
            .iter()
            .map(ToString::to_string)
            .chain(losers)
            .collect()
    }

    #[test]
    fn the_winner_has_its_conditions_and_the_others_what_they_lack() {
        let named = StreamRule {
            over: vec![Way::Tls],
            snis: vec![parse_server_name("*.db.test").expect("a name")],
            ..StreamRule::default()
        };
        let by_port = StreamRule {
            over: vec![Way::Tcp, Way::Passthrough],
            destinations: vec![port(5432)],
            ..StreamRule::default()
        };
        let elsewhere = StreamRule {
            over: vec![Way::Tls],
            sources: vec![
                network("192.168.0.0/16"),
                Endpoint::of([10, 0, 0, 1].into()),
            ],
            ..StreamRule::default()
        };
        let router = StreamRouter::new(vec![by_port, named, elsewhere]);
        assert_eq!(
            said(&router, &arrived(true, Some("a.db.test"))),
            [
                "there is TLS, as `protocols` has `tls`",
                "the server name `a.db.test` is `*.db.test`",
                "2: the source `10.1.2.3` is not `192.168.0.0/16` or `10.0.0.1`",
                "0: it matches, but has neither `snis` nor both `sources` and `destinations`, as the winner",
            ]
        );
        assert_eq!(
            said(&router, &arrived(false, None)),
            [
                "there is no TLS, as `protocols` has `tcp` or `tls_passthrough`",
                "the destination `192.0.2.1:5432` is `port 5432`",
                "1: there is no TLS, but `protocols` has `tls`",
                "2: there is no TLS, but `protocols` has `tls`",
                "2: the source `10.1.2.3` is not `192.168.0.0/16` or `10.0.0.1`",
            ]
        );
    }

    #[test]
    fn of_equal_routes_the_older_one_and_then_the_first_one_wins() {
        let rule = |created_at| StreamRule {
            over: vec![Way::Tcp],
            destinations: vec![port(5432)],
            created_at,
            ..StreamRule::default()
        };
        let router = StreamRouter::new(vec![rule(Some(2)), rule(Some(1)), rule(None)]);
        let findings = router.explain(&arrived(false, None));
        assert_eq!(findings.winner, Some((1, Way::Tcp)));
        let reasons: Vec<&LossReason> = findings.losers.iter().map(|one| &one.reason).collect();
        assert_eq!(
            reasons,
            [
                &LossReason::Outranked(Precedence::Age),
                &LossReason::Outranked(Precedence::Order)
            ]
        );
    }
}

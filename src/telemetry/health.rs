//! The health of upstream targets as metrics. Who is healthy is decided elsewhere.

use super::{SUBSYSTEM, circuits::CircuitPhases, discovery::DiscoveryHealth, families, page::Page};

/// How the upstreams are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamsHealth {
    /// By name: whether a request to it would find an address now.
    pub available: Vec<(String, bool)>,
    pub targets: Vec<TargetHealth>,
    /// How what they consist of is found out. Shown whether or not somebody asked for target health.
    pub discovery: DiscoveryHealth,
    /// Which of them are cut off. Shown as well.
    pub circuits: CircuitPhases,
}

/// One address of a target and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetHealth {
    /// The name of the upstream.
    pub upstream: String,
    /// The target as written.
    pub target: String,
    /// The address and port it resolved to; empty in the state `dns_error`.
    pub address: String,
    pub state: TargetState,
}

/// How a target address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetState {
    HealthchecksOff,
    Healthy,
    Unhealthy,
    DnsError,
}

impl TargetState {
    const ALL: [Self; 4] = [
        Self::HealthchecksOff,
        Self::Healthy,
        Self::Unhealthy,
        Self::DnsError,
    ];

    /// The state as Kong's metric spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HealthchecksOff => "healthchecks_off",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::DnsError => "dns_error",
        }
    }
}

/// Writes whether each upstream is available, and all four states of each address, exactly one of
/// them 1.
pub(super) fn write(page: &mut Page, upstreams: &UpstreamsHealth) {
    let mut family = page.family(&families::UPSTREAM_AVAILABLE);
    for (upstream, is_available) in &upstreams.available {
        family.gauge(&[upstream], if *is_available { 1.0 } else { 0.0 });
    }
    family.end();
    let mut family = page.family(&families::TARGET_HEALTH);
    for health in &upstreams.targets {
        for state in TargetState::ALL {
            family.gauge(
                &[
                    &health.upstream,
                    &health.target,
                    &health.address,
                    state.as_str(),
                    SUBSYSTEM,
                ],
                if state == health.state { 1.0 } else { 0.0 },
            );
        }
    }
    family.end();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::exports::Namespace;

    #[test]
    fn an_upstream_is_available_or_not() {
        for namespace in [Namespace::Tollgate, Namespace::Kong] {
            let mut page = Page::new(namespace, 0);
            write(
                &mut page,
                &UpstreamsHealth {
                    available: vec![("orders".into(), false), ("users".into(), true)],
                    ..UpstreamsHealth::default()
                },
            );
            let text = page.into_text();
            for line in [
                "tollgate_upstream_available{upstream=\"orders\"} 0",
                "tollgate_upstream_available{upstream=\"users\"} 1",
            ] {
                assert!(text.lines().any(|found| found == line), "{text}");
            }
        }
    }

    #[test]
    fn each_address_has_four_states_and_exactly_one_is_1() {
        let mut page = Page::new(Namespace::Tollgate, 0);
        write(
            &mut page,
            &UpstreamsHealth {
                targets: vec![TargetHealth {
                    upstream: "users".into(),
                    target: "users.internal:80".into(),
                    address: "10.0.0.1:80".into(),
                    state: TargetState::Unhealthy,
                }],
                ..UpstreamsHealth::default()
            },
        );
        let text = page.into_text();
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples.len(), 4);
        let one: Vec<_> = samples.iter().filter(|line| line.ends_with(" 1")).collect();
        assert_eq!(
            one,
            [
                &"tollgate_upstream_target_health{upstream=\"users\",target=\"users.internal:80\",\
                 address=\"10.0.0.1:80\",state=\"unhealthy\",subsystem=\"http\"} 1"
            ]
        );
    }
}

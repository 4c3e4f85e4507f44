//! How names are asked for, in the form that look-ups need.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// A kind of records to ask for. Aliases (CNAME) are followed whatever is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ask {
    Srv,
    A,
    Aaaa,
}

impl Ask {
    /// The kind as DNS calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Srv => "SRV",
            Self::A => "A",
            Self::Aaaa => "AAAA",
        }
    }
}

/// How names are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whom to ask; none: those of `resolv.conf`.
    pub servers: Vec<SocketAddr>,
    pub hosts_file: PathBuf,
    /// The kinds of records to ask for, one after the other.
    pub order: Vec<Ask>,
    /// Whether the kind that gave the last answer is asked for first.
    pub last_first: bool,
    /// How long an answer holds; absent: as its records say.
    pub valid_ttl: Option<Duration>,
    /// How long it takes until a name that has no records is asked for again.
    pub not_found_ttl: Duration,
    /// The same after the first failure.
    pub error_ttl: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            hosts_file: "/etc/hosts".into(),
            order: vec![Ask::Srv, Ask::A, Ask::Aaaa],
            last_first: true,
            valid_ttl: None,
            not_found_ttl: Duration::from_secs(30),
            error_ttl: Duration::from_secs(1),
        }
    }
}

impl Settings {
    /// The kinds to ask for, beginning with `last` where the settings say so.
    pub(super) fn in_turn(&self, last: Option<Ask>) -> impl Iterator<Item = Ask> {
        let first = last.filter(|last| self.last_first && self.order.contains(last));
        let rest = self.order.iter().copied();
        let rest = rest.filter(move |ask| Some(*ask) != first);
        first.into_iter().chain(rest)
    }

    /// The kinds of addresses to ask for, in their order; both if there is none in it, as the hosts
    /// that SRV records name need addresses.
    pub(super) fn families(&self) -> impl Iterator<Item = Ask> {
        let is_family = |ask: &Ask| *ask != Ask::Srv;
        let all = [Ask::A, Ask::Aaaa];
        let missing = !self.order.iter().any(is_family);
        let instead = all.into_iter().filter(move |_| missing);
        self.order.iter().copied().filter(is_family).chain(instead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_turn(settings: &Settings, last: Option<Ask>) -> Vec<&'static str> {
        settings.in_turn(last).map(Ask::as_str).collect()
    }

    #[test]
    fn what_answered_last_is_asked_first_where_the_settings_say_so() {
        let mut settings = Settings::default();
        assert_eq!(in_turn(&settings, None), ["SRV", "A", "AAAA"]);
        assert_eq!(in_turn(&settings, Some(Ask::A)), ["A", "SRV", "AAAA"]);
        settings.last_first = false;
        assert_eq!(in_turn(&settings, Some(Ask::A)), ["SRV", "A", "AAAA"]);
    }

    #[test]
    fn a_kind_that_is_not_in_the_order_is_not_asked_for() {
        let settings = Settings {
            order: vec![Ask::Aaaa],
            ..Settings::default()
        };
        assert_eq!(in_turn(&settings, Some(Ask::Srv)), ["AAAA"]);
        let of_srv_only = Settings {
            order: vec![Ask::Srv],
            ..Settings::default()
        };
        let families: Vec<_> = of_srv_only.families().map(Ask::as_str).collect();
        assert_eq!(families, ["A", "AAAA"]);
    }
}

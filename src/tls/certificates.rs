//! Which certificate a client gets: by the name that it asks for, else the default one. Decided into maps when the
//! configuration is compiled, read without a lock.

use std::{collections::HashMap, sync::Arc};

use super::context::{RulesId, ServerContext};

/// The certificate for a name.
pub type Chosen = Arc<ServerContext>;

/// All certificates of a configuration by the names that they are for.
#[derive(Debug, Default)]
pub struct Certificates {
    exact: HashMap<Box<str>, Chosen>,
    /// `*.rest` by `rest`.
    any_before: HashMap<Box<str>, Chosen>,
    /// `first.*` by `first`.
    any_after: HashMap<Box<str>, Chosen>,
    any: Option<Chosen>,
    default: Option<Chosen>,
    asks_clients: bool,
}

impl Certificates {
    /// Those of one name: `a.test`, `*.a.test`, `a.*` or `*`, in lower case.
    pub fn add(&mut self, name: &str, chosen: Chosen) {
        self.asks_clients |= chosen.rules() != RulesId::NONE;
        if name == "*" {
            self.any = Some(chosen);
        } else if let Some(rest) = name.strip_prefix("*.") {
            self.any_before.insert(rest.into(), chosen);
        } else if let Some(first) = name.strip_suffix(".*") {
            self.any_after.insert(first.into(), chosen);
        } else {
            self.exact.insert(name.into(), chosen);
        }
    }

    /// The one for clients that ask for no name, or for one that no other certificate has.
    pub fn set_default(&mut self, chosen: Chosen) {
        self.default = Some(chosen);
    }

    /// The certificate for a name in lower case: exact, then `*.rest`, then `first.*`, then `*`, then the default.
    /// `None` only if there is no default one.
    pub fn choose(&self, name: Option<&str>) -> Option<&Chosen> {
        name.and_then(|name| self.named(name))
            .or(self.default.as_ref())
    }

    fn named(&self, name: &str) -> Option<&Chosen> {
        // A wildcard stands for one label.
        let rest = || self.any_before.get(name.split_once('.')?.1);
        let first = || self.any_after.get(name.rsplit_once('.')?.0);
        self.exact
            .get(name)
            .or_else(rest)
            .or_else(first)
            .or(self.any.as_ref())
    }

    /// Whether a connection whose handshake followed `rules` may be used for requests to `host`, which is in lower
    /// case: only if the certificate of that host has the same rules.
    pub fn allows(&self, rules: RulesId, host: &str) -> bool {
        if !self.asks_clients && rules == RulesId::NONE {
            return true;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let wanted = self.choose(Some(host));
        wanted.map_or(RulesId::NONE, |wanted| wanted.rules()) == rules
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{ClientRules, Pair, Policy, Verify, self_signed},
        *,
    };

    fn context(depth: Option<u32>) -> Chosen {
        let (certificate, key) = self_signed().expect("made");
        let pair = Pair::parse(&certificate, &key).expect("a pair");
        let rules = depth.map(|depth| ClientRules {
            verify: Verify::Required,
            authorities: vec![pair.leaf.clone()],
            depth,
        });
        let policy = Policy::usual();
        Arc::new(ServerContext::new(&[pair], rules.as_ref(), &policy).expect("a context"))
    }

    #[test]
    fn names_are_preferred_from_exact_to_any() {
        let mut certificates = Certificates::default();
        let contexts: Vec<Chosen> = (0..5).map(|_| context(None)).collect();
        let [exact, before, after, any, default] = contexts.as_slice() else {
            panic!("five were made");
        };
        certificates.add("a.b.test", Arc::clone(exact));
        certificates.add("*.b.test", Arc::clone(before));
        certificates.add("a.b.*", Arc::clone(after));
        let is = |certificates: &Certificates, name: Option<&str>, wanted: &Chosen| {
            let chosen = certificates.choose(name).expect("a certificate");
            Arc::ptr_eq(chosen, wanted)
        };
        assert!(certificates.choose(Some("other")).is_none());
        certificates.set_default(Arc::clone(default));
        assert!(is(&certificates, Some("a.b.test"), exact));
        assert!(is(&certificates, Some("c.b.test"), before));
        assert!(is(&certificates, Some("a.b.example"), after));
        for name in ["b.test", "c.a.b.test", "a.b", "a.b.co.uk"] {
            assert!(is(&certificates, Some(name), default), "{name}");
        }
        certificates.add("*", Arc::clone(any));
        assert!(is(&certificates, Some("b.test"), any));
        assert!(is(&certificates, None, default));
    }

    #[test]
    fn a_connection_serves_only_hosts_with_the_rules_of_its_handshake() {
        let mut certificates = Certificates::default();
        assert!(certificates.allows(RulesId::NONE, "a.test"));
        certificates.set_default(context(None));
        let asking = context(Some(1));
        certificates.add("a.test", Arc::clone(&asking));
        certificates.add("b.test", context(None));
        assert!(certificates.allows(RulesId::NONE, "b.test"));
        assert!(certificates.allows(RulesId::NONE, "c.test"));
        assert!(!certificates.allows(RulesId::NONE, "a.test"));
        assert!(!certificates.allows(RulesId::NONE, "a.test."));
        assert!(certificates.allows(asking.rules(), "a.test"));
        assert!(!certificates.allows(asking.rules(), "b.test"));
    }
}

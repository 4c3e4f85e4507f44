//! Which service an identity always gets: weighted rendezvous hashing, so that a change of weights moves as
//! few identities as it can. A pure function of identity, names and weights, the same on every node.

use std::fmt;

use http::HeaderName;
use sha2::{Digest, Sha256};

use super::conditions::cookies;
use crate::{
    entity::facts::ServiceIndex,
    plugin::{ConfigError, Grouping, Request, Subject},
};

/// What keeps a client with its service.
#[derive(Debug)]
pub(super) enum Sticky {
    /// Client address, consumer or header, which all limits know as well.
    Grouping(Grouping),
    Cookie(Box<str>),
}

/// One of the services of a rule.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Absent = that of the route.
    pub(super) service: Option<ServiceIndex>,
    pub(super) weight: u16,
    /// Stands for its name.
    seed: u64,
}

impl Candidate {
    pub(super) fn new(service: Option<ServiceIndex>, name: Option<&str>, weight: u16) -> Self {
        Self {
            service,
            weight,
            seed: digest(&[b"service", name.unwrap_or_default().as_bytes()]),
        }
    }
}

impl Sticky {
    /// Reads the setting `sticky`; `None` if it is `none`.
    ///
    /// # Errors
    /// When it is something else.
    pub(super) fn read(written: &str) -> Result<Option<Self>, ConfigError> {
        let wrong = |message: String| Err(ConfigError::at("sticky", message));
        Ok(Some(match written.split_once(':') {
            None if written == "none" => return Ok(None),
            None if written == "ip" => Self::Grouping(Grouping::Ip),
            None if written == "consumer" => Self::Grouping(Grouping::Consumer),
            Some(("header", name)) => match name.parse::<HeaderName>() {
                Ok(name) => Self::Grouping(Grouping::Header(name)),
                Err(_) => return wrong(format!("`{name}` is not a header name")),
            },
            Some(("cookie", name)) if !name.is_empty() => Self::Cookie(name.into()),
            _ => {
                return wrong(format!(
                    "`{written}` is not one of `none`, `ip`, `consumer`, `header:NAME` and `cookie:NAME`"
                ));
            }
        }))
    }

    /// A number that stands for whose `request` is, the same everywhere.
    pub(super) fn identity(&self, request: &Request<'_>) -> u64 {
        let subject = match self {
            Self::Grouping(grouping) => grouping.subject(request),
            Self::Cookie(name) => {
                let mut named = cookies(request).filter(|(cookie, _)| *cookie == name.as_bytes());
                match named.next() {
                    Some((_, value)) => return digest(&[b"cookie", value]),
                    None => Grouping::Ip.subject(request),
                }
            }
        };
        match subject {
            Subject::Consumer(id) | Subject::Service(id) => digest(&[b"consumer", id.as_bytes()]),
            Subject::Credential(id) => digest(&[b"credential", id]),
            Subject::Client(address) => digest(&[b"ip", address.to_string().as_bytes()]),
            Subject::Header(value) => digest(&[b"header", value]),
            Subject::Path | Subject::Everyone => digest(&[b"everyone"]),
        }
    }
}

impl fmt::Display for Sticky {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grouping(Grouping::Header(name)) => write!(formatter, "by header {name}"),
            Self::Grouping(Grouping::Consumer) => formatter.write_str("by consumer"),
            Self::Grouping(_) => formatter.write_str("by client address"),
            Self::Cookie(name) => write!(formatter, "by cookie {name}"),
        }
    }
}

/// The candidate that `identity` gets: the one with the highest score. A score depends on the identity, on one
/// candidate's name and its weight alone, so it changes with that weight and no other.
pub(super) fn choose(candidates: &[Candidate], identity: u64) -> Option<&Candidate> {
    let score = |candidate: &Candidate| {
        let fraction = fraction(mixed(identity ^ candidate.seed));
        f64::from(candidate.weight) / -fraction.ln()
    };
    candidates
        .iter()
        .max_by(|one, other| score(one).total_cmp(&score(other)))
}

/// 64 bits of SHA-256, which is the same in every version and on every machine. The parts cannot run into
/// each other: only the last has no fixed length.
fn digest(parts: &[&[u8]]) -> u64 {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
        digest.update([0]);
    }
    let bytes: [u8; 32] = digest.finalize().into();
    let first = bytes.first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(first)
}

/// The finaliser of splitmix64: every bit of the result depends on every bit of `value`.
const fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A number between 0 and 1, and neither of them.
#[expect(
    clippy::cast_precision_loss,
    reason = "53 bits are what the type holds exactly"
)]
fn fraction(bits: u64) -> f64 {
    ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: &[(&'static str, u16)]) -> Vec<Candidate> {
        weights
            .iter()
            .zip(0..)
            .map(|((name, weight), index)| {
                Candidate::new(Some(ServiceIndex(index)), Some(name), *weight)
            })
            .collect()
    }

    fn chosen(candidates: &[Candidate], identity: &str) -> usize {
        let identity = digest(&[b"header", identity.as_bytes()]);
        let candidate = choose(candidates, identity).and_then(|candidate| candidate.service);
        candidate.expect("one is chosen").0
    }

    #[test]
    fn identities_fall_to_services_by_weight() {
        let candidates = candidates(&[("v1", 90), ("v2", 10)]);
        let to_v2: usize = (0..20_000)
            .map(|number| chosen(&candidates, &number.to_string()))
            .sum();
        assert!((1800..2200).contains(&to_v2), "{to_v2} of 20,000");
    }

    #[test]
    fn a_change_of_weights_moves_only_those_whose_service_shrinks() {
        let before = candidates(&[("v1", 90), ("v2", 10)]);
        let after = candidates(&[("v1", 80), ("v2", 20)]);
        let mut moved = 0;
        for number in 0..20_000 {
            let identity = number.to_string();
            match (chosen(&before, &identity), chosen(&after, &identity)) {
                (0, 1) => moved += 1,
                (one, other) => assert_eq!(one, other, "nobody moves the other way"),
            }
        }
        assert!((1700..2300).contains(&moved), "{moved} of 20,000 moved");
    }

    #[test]
    fn the_choice_is_the_same_in_every_process_and_version() {
        let candidates = candidates(&[("v1", 50), ("v2", 30), ("v3", 20)]);
        let chosen: Vec<usize> = ["ann", "bob", "cyd", "dan", "eve", "fay", "gus", "hal"]
            .iter()
            .map(|identity| chosen(&candidates, identity))
            .collect();
        assert_eq!(chosen, RECORDED);
    }

    /// What came out when this was written.
    const RECORDED: [usize; 8] = [0, 1, 0, 2, 0, 1, 1, 0];
}

//! Sends requests of a route to several services: canaries, blue and green, trials with chosen clients.
//!
//! ```yaml
//! _format_version: "3.0"
//! services:
//!   - name: v1
//!     url: http://orders-v1.internal
//!     routes:
//!       - name: orders
//!         paths: [/orders]
//!         plugins:
//!           - name: traffic-split
//!             config:
//!               sticky: ip
//!               rules:
//!                 - when:
//!                     headers:
//!                       X-Canary: ["1"]
//!                   to:
//!                     - service: v2
//!                 - to:
//!                     - service: v1
//!                       weight: 90
//!                     - service: v2
//!                       weight: 10
//!   - name: v2
//!     url: http://orders-v2.internal
//! ```
//!
//! # Rules
//!
//! The first rule that fits decides; where none fits, the request goes to the route's own service. A rule fits if
//! all that stands in `when` holds, and a list holds if one of its values is there. A header, cookie or argument
//! that comes several times counts with each of its values. Values are compared letter by letter; those of
//! arguments after decoding.
//!
//! # Weights
//!
//! Without `sticky` the services of a rule take turns by weight, evenly spread: of any 100 requests in a row a
//! service of weight 10 beside one of weight 90 gets 10, give or take one, whatever thread they run on. A reload
//! goes on where the turns were.
//!
//! # The same client, the same service
//!
//! With `sticky` the service follows from who the request is, and from nothing else: it is the same on every
//! gateway and after every restart. A change of weights moves only as many clients as it must, from services
//! whose share shrinks to those whose share grows. A request that does not have what `sticky` names is told by
//! its client's address; `consumer` falls back to the credential first. The share that a service gets is close to
//! its weight if there are many clients.
//!
//! # What the chosen service changes
//!
//! Its host and balancer, path, timeouts, retries, TLS and circuit. Plugins are those of the route and its own
//! service, for they are chosen before. Metrics and the access log show the chosen service. `tollgate explain`
//! shows between which services a request is split, and `tollgate test` compares them (`services`).
//!
//! The services that are named here speak gRPC either all or none, and where an entry names none, so does the route's
//! own. A service that is only named here needs no
//! route. [Canary releases](../../operations/canary.md) shows a roll-out step by step.

mod conditions;
mod configuration;
mod sticky;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    entity::facts::ServiceIndex,
    plugin::{Choice, ConfigError, Env, Halt, Plugin, Prospect, Request},
    upstream::algorithm::wheel::Wheel,
};

use conditions::Conditions;
pub use configuration::Config;
use configuration::Rule as Written;
use sticky::{Candidate, Sticky};

/// The plugin `traffic-split`.
#[derive(Debug)]
pub struct TrafficSplit {
    rules: Box<[Rule]>,
    sticky: Option<Sticky>,
}

/// One rule: for whom, and between which services.
#[derive(Debug)]
struct Rule {
    conditions: Conditions,
    /// Those with a weight.
    candidates: Box<[Candidate]>,
    /// The turns of the candidates, and how many were taken.
    wheel: Wheel,
    position: Arc<AtomicU64>,
}

impl Plugin for TrafficSplit {
    const NAME: &'static str = "traffic-split";
    type Config = Config;
    type Memo = ();
    type Metrics = ();

    fn configure(config: Config, env: &Env<'_, Self>) -> Result<Self, ConfigError> {
        let sticky = Sticky::read(&config.sticky)?;
        let last = config.rules.len().saturating_sub(1);
        if let Some(early) = config.rules.iter().position(Written::is_for_everybody)
            && early < last
        {
            let message = format!(
                "it is for every request, so rule {} is never asked: put it last",
                early + 2
            );
            return Err(ConfigError::at(format!("rules[{early}]"), message));
        }
        let rules = config.rules.iter().enumerate();
        let rules: Result<Box<[Rule]>, ConfigError> = rules
            .map(|(index, rule)| Rule::new(index, rule, env))
            .collect();
        let rules = rules?;
        require_one_kind(&config.rules, env)?;
        Ok(Self { rules, sticky })
    }

    fn services(&self) -> Vec<ServiceIndex> {
        let candidates = self.rules.iter().flat_map(|rule| &rule.candidates);
        candidates
            .filter_map(|candidate| candidate.service)
            .collect()
    }

    fn choice(&self, request: &Request<'_>) -> Option<Choice> {
        let (number, rule) = self.rule_for(request)?;
        let prospect = |candidate: &Candidate| Prospect {
            service: candidate.service,
            weight: candidate.weight.into(),
        };
        let (by, prospects) = match &self.sticky {
            Some(sticky) => (
                sticky.to_string(),
                rule.stuck(sticky, request)
                    .map(prospect)
                    .into_iter()
                    .collect(),
            ),
            None => (
                "by weight".to_owned(),
                rule.candidates.iter().map(prospect).collect(),
            ),
        };
        Some(Choice {
            by: format!("rule {number}, {by}"),
            prospects,
        })
    }

    async fn access(&self, _memo: &mut (), request: &mut Request<'_>) -> Result<(), Halt> {
        if let Some((_, rule)) = self.rule_for(request) {
            let candidate = match &self.sticky {
                Some(sticky) => rule.stuck(sticky, request),
                None => rule.next(),
            };
            if let Some(service) = candidate.and_then(|candidate| candidate.service) {
                request.send_to(service);
            }
        }
        Ok(())
    }
}

/// Requires that all services that are named speak gRPC, or none: no request can go to both kinds. An entry that
/// names none stands for the own services of the routes.
fn require_one_kind(rules: &[Written], env: &Env<'_, TrafficSplit>) -> Result<(), ConfigError> {
    let mut first: Option<(&str, bool)> = None;
    for (index, rule) in rules.iter().enumerate() {
        for (number, to) in rule.to.iter().enumerate() {
            let Some(name) = to.service.as_deref() else {
                continue;
            };
            let place = format!("rules[{index}].to[{number}].service");
            let service = env.service(place.clone(), name)?;
            let is_grpc = env.destinations.is_grpc(service);
            let (other, is_other_grpc) = *first.get_or_insert((name, is_grpc));
            if is_grpc != is_other_grpc {
                let (grpc, plain) = if is_grpc {
                    (name, other)
                } else {
                    (other, name)
                };
                let message = format!(
                    "service `{grpc}` speaks gRPC and service `{plain}` does not: no request can go to both"
                );
                return Err(ConfigError::at(place, message));
            }
        }
    }
    let Some((name, is_grpc)) = first else {
        return Ok(());
    };
    let mut own = env.own_services.iter();
    if own.all(|service| env.destinations.is_grpc(*service) == is_grpc) {
        return Ok(());
    }
    let (this, that) = if is_grpc {
        (
            format!("service `{name}`"),
            "the route's own service".to_owned(),
        )
    } else {
        (
            "the route's own service".to_owned(),
            format!("service `{name}`"),
        )
    };
    for (index, rule) in rules.iter().enumerate() {
        if let Some(number) = rule.to.iter().position(|to| to.service.is_none()) {
            let message =
                format!("{this} speaks gRPC and {that} does not: no request can go to both");
            return Err(ConfigError::at(
                format!("rules[{index}].to[{number}]"),
                message,
            ));
        }
    }
    Ok(())
}

impl TrafficSplit {
    /// The rule that decides on `request`, with its number, from 1.
    fn rule_for(&self, request: &Request<'_>) -> Option<(usize, &Rule)> {
        let mut rules = (1..).zip(&self.rules);
        rules.find(|(_, rule)| rule.conditions.hold(request))
    }
}

impl Rule {
    fn new(
        index: usize,
        written: &Written,
        env: &Env<'_, TrafficSplit>,
    ) -> Result<Self, ConfigError> {
        let place = format!("rules[{index}]");
        let conditions = Conditions::read(&place, written.when.as_ref(), env)?;
        let mut candidates: Vec<Candidate> = Vec::with_capacity(written.to.len());
        for (number, to) in written.to.iter().enumerate() {
            let place = format!("{place}.to[{number}]");
            let name = to.service.as_deref();
            let service = name
                .map(|name| env.service(format!("{place}.service"), name))
                .transpose()?;
            if candidates
                .iter()
                .any(|candidate| candidate.service == service)
            {
                let which = name.map_or_else(
                    || "the route's own service".to_owned(),
                    |name| format!("service `{name}`"),
                );
                let message = format!("{which} stands here twice: add the weights up");
                return Err(ConfigError::at(place, message));
            }
            candidates.push(Candidate::new(service, name, to.weight));
        }
        candidates.retain(|candidate| candidate.weight > 0);
        if candidates.is_empty() {
            let message = "no service has a weight above 0";
            return Err(ConfigError::at(format!("{place}.to"), message));
        }
        let weights: Vec<u16> = candidates
            .iter()
            .map(|candidate| candidate.weight)
            .collect();
        Ok(Self {
            conditions,
            wheel: Wheel::new(&weights),
            candidates: candidates.into_boxed_slice(),
            position: env
                .state
                .splits
                .get_or_create((env.id, index), Default::default),
        })
    }

    /// The candidate whose turn it is.
    fn next(&self) -> Option<&Candidate> {
        let position = self.position.fetch_add(1, Ordering::Relaxed);
        self.candidates.get(self.wheel.target(position)?)
    }

    /// The candidate that `request` always gets.
    fn stuck(&self, sticky: &Sticky, request: &Request<'_>) -> Option<&Candidate> {
        sticky::choose(&self.candidates, sticky.identity(request))
    }
}

#[cfg(test)]
mod tests;

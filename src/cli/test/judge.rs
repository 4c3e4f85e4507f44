//! Compares what is found of a request with what a test expects. Decides nothing about requests, and shows no
//! credential: what an explanation masks is not compared.

use std::collections::BTreeMap;

use super::suite::{Expected, Wanted, WantedPlugin};
use crate::{
    config::{Span, suggest::nearest},
    explain::{Access, Answer, Explanation, FRESH, MASK, Plugin, Route},
    snapshot::Snapshot,
};

/// How an expectation says that there must be no such thing.
const NONE: &str = "none";

/// One field that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Miss {
    pub(super) field: String,
    pub(super) place: Span,
    pub(super) expected: String,
    pub(super) found: String,
    /// Why it is so, in sentences.
    pub(super) why: Vec<String>,
}

/// What differs. `why` explains the same request at length, which is asked for only if a route is not the right one.
pub(super) fn judge(
    expected: &Expected,
    found: &Explanation,
    snapshot: &Snapshot,
    why: &dyn Fn() -> Option<Explanation>,
) -> Vec<Miss> {
    let mut judge = Judge {
        expected,
        found,
        snapshot,
        misses: Vec::new(),
    };
    judge.route(why);
    judge.entities();
    judge.plugins();
    judge.answer();
    judge.sent();
    judge.misses
}

struct Judge<'a> {
    expected: &'a Expected,
    found: &'a Explanation,
    snapshot: &'a Snapshot,
    misses: Vec<Miss>,
}

impl Judge<'_> {
    fn miss(&mut self, field: &str, expected: String, found: String) -> &mut Miss {
        self.misses.push(Miss {
            field: field.to_owned(),
            place: self.expected.place(field),
            expected,
            found,
            why: Vec::new(),
        });
        self.misses.last_mut().expect("one was just pushed")
    }

    /// Compares a name, for which `none` may stand.
    fn name(&mut self, field: &str, wanted: Option<&String>, found: Option<&str>) {
        let Some(wanted) = wanted else { return };
        if found.unwrap_or(NONE) != wanted {
            self.miss(field, named(Some(wanted)), named(found));
        }
    }

    fn route(&mut self, why: &dyn Fn() -> Option<Explanation>) {
        let Some(wanted) = &self.expected.fields.route else {
            return;
        };
        let found = self.found.route.as_ref();
        let is_right = match found {
            Some(route) => route.label == *wanted || route.id == *wanted,
            None => wanted == NONE,
        };
        if is_right {
            return;
        }
        let reasons = match why() {
            Some(explanation) => reasons(wanted, &explanation, self.snapshot),
            None => Vec::new(),
        };
        let found = match found {
            Some(Route { label, place, .. }) => format!("`{label}` ({place})"),
            None => NONE.to_owned(),
        };
        self.miss("route", named(Some(wanted)), found).why = reasons;
    }

    fn entities(&mut self) {
        let (fields, found) = (&self.expected.fields, self.found);
        let service = found.service.as_ref();
        let label = service.map(|service| service.label.as_str());
        self.name("service", fields.service.as_ref(), label);
        self.choices();
        let consumer = found.request.consumer.as_deref();
        self.name("consumer", fields.consumer.as_ref(), consumer);
        let upstream = service.map(|service| &service.upstream);
        let name = upstream.map(|upstream| upstream.name.as_str());
        self.name("upstream", fields.upstream.as_ref(), name);
        if let Some(wanted) = &fields.targets {
            let mut wanted = wanted.clone();
            wanted.sort_unstable();
            let targets = upstream.map_or(&[][..], |upstream| &upstream.targets);
            let mut found: Vec<String> =
                targets.iter().map(|target| target.target.clone()).collect();
            found.sort_unstable();
            let omitted = upstream.map_or(0, |upstream| upstream.targets_omitted);
            if omitted > 0 {
                found.push(format!("and {omitted} more"));
            }
            if wanted != found {
                self.miss("targets", list(&wanted), list(&found));
            }
        }
    }

    /// Compares between which services a plugin chooses, and how often.
    fn choices(&mut self) {
        let Some(wanted) = &self.expected.fields.services else {
            return;
        };
        let plugins = self.found.plugins.iter();
        let found: BTreeMap<String, u32> = plugins
            .flat_map(|plugin| &plugin.choices)
            .map(|share| (share.service.clone(), share.weight))
            .collect();
        if *wanted != found {
            let shown = |shares: &BTreeMap<String, u32>| {
                let shares = shares.iter();
                list(
                    &shares
                        .map(|(service, weight)| format!("{service}: {weight}"))
                        .collect::<Vec<_>>(),
                )
            };
            self.miss("services", shown(wanted), shown(&found));
        }
    }

    fn plugins(&mut self) {
        let fields = &self.expected.fields;
        let reached: Vec<&Plugin> = self
            .found
            .plugins
            .iter()
            .filter(|plugin| plugin.access != Access::NotReached)
            .collect();
        let shown = || {
            let reached = reached.iter();
            let names = reached.map(|plugin| format!("{} @ {}", plugin.name, plugin.scope));
            list(&names.collect::<Vec<_>>())
        };
        if let Some(wanted) = &fields.plugins {
            let is_right = wanted.len() == reached.len()
                && wanted
                    .iter()
                    .zip(&reached)
                    .all(|(wanted, plugin)| is(wanted, plugin));
            if !is_right {
                self.miss("plugins", list(wanted), shown());
            }
        }
        if let Some(wanted) = &fields.plugins_include {
            // In this order, whatever runs in between.
            let mut rest = reached.iter();
            let has_all = wanted
                .iter()
                .all(|wanted| rest.any(|plugin| is(wanted, plugin)));
            if !has_all {
                self.miss("plugins_include", list(wanted), shown());
            }
        }
        if let Some(unwanted) = &fields.plugins_exclude {
            let runs = |unwanted: &String| reached.iter().any(|plugin| is(unwanted, plugin));
            if unwanted.iter().any(runs) {
                let expected = format!("none of {}", list(unwanted));
                self.miss("plugins_exclude", expected, shown());
            }
        }
    }

    fn answer(&mut self) {
        let (fields, answer) = (&self.expected.fields, self.found.answer.as_ref());
        if let Some(wanted) = fields.proxied
            && wanted == answer.is_some()
        {
            let expected = if wanted {
                "it goes upstream"
            } else {
                "the gateway answers"
            };
            self.miss("proxied", expected.to_owned(), outcome(answer));
        }
        if let Some(wanted) = fields.status
            && answer.map(|answer| answer.status) != Some(wanted)
        {
            self.miss("status", wanted.to_string(), outcome(answer));
        }
        if let Some(wanted) = &fields.reason
            && answer.map(|answer| &answer.reason) != Some(wanted)
        {
            self.miss("reason", format!("`{wanted}`"), outcome(answer));
        }
        if let Some(wanted) = &fields.message
            && answer.map(|answer| &answer.message) != Some(wanted)
        {
            let found = match answer {
                Some(Answer { message, .. }) => format!("`{message}`"),
                None => outcome(None),
            };
            self.miss("message", format!("`{wanted}`"), found);
        }
        let headers = answer.map(|answer| answer.headers.as_slice());
        if let Some(wanted) = &fields.location {
            let wanted = Wanted::One(wanted.clone());
            self.header("location", "location", &wanted, headers, answer);
        }
        for (name, wanted) in &fields.answer_headers {
            let field = format!("answer_headers.{name}");
            self.header(&field, name, wanted, headers, answer);
        }
    }

    fn sent(&mut self) {
        let (fields, answer) = (&self.expected.fields, self.found.answer.as_ref());
        // With an answer of the gateway nothing is sent, whatever would have been.
        let sent = self.found.sent.as_ref().filter(|_| answer.is_none());
        let missing = || format!("nothing: {}", outcome(answer));
        let headers = sent.map(|sent| sent.headers.as_slice());
        for (field, wanted, found) in [
            (
                "upstream_url",
                &fields.upstream_url,
                sent.map(|sent| &sent.url),
            ),
            (
                "upstream_path",
                &fields.upstream_path,
                sent.map(|sent| &sent.target),
            ),
        ] {
            if let Some(wanted) = wanted
                && found != Some(wanted)
            {
                let found = found.map_or_else(missing, |found| format!("`{found}`"));
                self.miss(field, format!("`{wanted}`"), found);
            }
        }
        if let Some(wanted) = &fields.upstream_host {
            let wanted = Wanted::One(wanted.clone());
            self.header("upstream_host", "host", &wanted, headers, answer);
        }
        for (name, wanted) in &fields.upstream_headers {
            let field = format!("upstream_headers.{name}");
            self.header(&field, name, wanted, headers, answer);
        }
    }

    /// Compares a header of a message, which is absent if there is no such message.
    fn header(
        &mut self,
        field: &str,
        name: &str,
        wanted: &Wanted,
        message: Option<&[(String, String)]>,
        answer: Option<&Answer>,
    ) {
        let expected = match wanted {
            Wanted::Present(true) => "that it is there".to_owned(),
            Wanted::Present(false) => "that it is not there".to_owned(),
            Wanted::One(value) => format!("`{value}`"),
            Wanted::Several(values) => format!("`{}`", values.join(", ")),
        };
        let Some(headers) = message else {
            let found = format!("no such message: {}", outcome(answer));
            self.miss(field, expected, found);
            return;
        };
        let lines: Vec<&str> = headers
            .iter()
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        let found = (!lines.is_empty()).then(|| lines.join(", "));
        let is_right = match wanted {
            Wanted::Present(wanted) => found.is_some() == *wanted,
            Wanted::One(value) => found.as_ref() == Some(value),
            Wanted::Several(values) => found.as_ref() == Some(&values.join(", ")),
        };
        if is_right {
            return;
        }
        let shown = match found.as_deref() {
            None => "that it is not there".to_owned(),
            Some(MASK) => {
                "a value that is not compared, for it may be a credential; expect `true`".to_owned()
            }
            Some(FRESH) => "a value that is new for each request; expect `true`".to_owned(),
            Some(found) => format!("`{found}`"),
        };
        self.miss(field, expected, shown);
    }
}

fn is(wanted: &str, plugin: &Plugin) -> bool {
    let wanted = WantedPlugin::of(wanted);
    wanted.name == plugin.name && wanted.scope.is_none_or(|scope| scope == plugin.scope)
}

fn named(name: Option<&str>) -> String {
    match name {
        None | Some(NONE) => NONE.to_owned(),
        Some(name) => format!("`{name}`"),
    }
}

fn list(names: &[String]) -> String {
    format!("[{}]", names.join(", "))
}

/// What becomes of the request, in a few words.
fn outcome(answer: Option<&Answer>) -> String {
    match answer {
        None => "it goes upstream".to_owned(),
        Some(answer) => format!(
            "the gateway answers {} {}, by {}",
            answer.status, answer.reason, answer.by
        ),
    }
}

/// Why `wanted` is not the route of the request.
fn reasons(wanted: &str, explanation: &Explanation, snapshot: &Snapshot) -> Vec<String> {
    let mut reasons = Vec::new();
    if wanted == NONE {
        if let Some(route) = &explanation.route {
            let sentences = route.matched.iter();
            reasons
                .extend(sentences.map(|matched| format!("{}: {}", route.label, matched.sentence)));
        }
        return reasons;
    }
    let routes = || snapshot.routes.iter().map(|route| &route.facts);
    let route = routes().find(|facts| facts.label == wanted || facts.id.to_string() == wanted);
    let Some(route) = route else {
        let mut unserved = snapshot.origins.unserved.iter();
        if let Some(route) = unserved.find(|route| *route.label == *wanted) {
            let place = snapshot.origins.shown(route.place);
            return vec![format!(
                "{wanted} ({place}) is not served, for its service has `enabled: false`"
            )];
        }
        let near = nearest(wanted, routes().map(|facts| facts.label.as_str()));
        let hint = near.map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"));
        return vec![format!(
            "there is no route `{wanted}` in the configuration{hint}"
        )];
    };
    match explanation
        .near_misses
        .iter()
        .find(|miss| miss.label == route.label)
    {
        Some(miss) => reasons.extend(
            miss.reasons
                .iter()
                .map(|reason| format!("{} ({}): {reason}", miss.label, miss.place)),
        ),
        // The router was never asked.
        None => reasons.push(outcome(explanation.answer.as_ref())),
    }
    reasons
}

//! Requests that another route would take: one is made up for each plain condition of each route, and rehearsed under
//! both configurations. It finds what a new or changed route takes from others, not every such request.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{
    cli::Candidate,
    config::{Config, Route},
    entity::Protocol,
    explain::{self, Question, Subject, foretell},
    server::listening,
};

/// How many hosts and paths of one route are tried.
const OF_EACH_MAX: usize = 5;
/// How many requests are tried.
const REQUESTS_MAX: usize = 20_000;

/// A request that goes to another route than before.
#[derive(Debug, Serialize)]
pub(super) struct Moved {
    /// Method and URL.
    pub(super) request: String,
    pub(super) old_route: String,
    pub(super) new_route: String,
}

/// The requests that have a route under both configurations, and not the same one.
pub(super) fn moved(old: &Candidate, new: &Candidate) -> Vec<Moved> {
    let mut seen = BTreeSet::new();
    let mut requests = samples(&old.loaded.config);
    requests.extend(samples(&new.loaded.config));
    requests.retain(|question| {
        let key = (
            question.method.clone(),
            question.url.clone(),
            question.headers.clone(),
        );
        seen.insert(key)
    });
    requests.truncate(REQUESTS_MAX);
    requests
        .iter()
        .filter_map(|question| {
            let (old, new) = (taken(old, question)?, taken(new, question)?);
            (old.id != new.id).then(|| Moved {
                request: format!("{} {}", question.method, question.url),
                old_route: old.label,
                new_route: new.label,
            })
        })
        .collect()
}

fn taken(candidate: &Candidate, question: &Question) -> Option<explain::Route> {
    let subject = Subject {
        snapshot: &candidate.snapshot,
        state: &candidate.state,
        listening: &listening(&candidate.loaded.config.gateway),
        is_live: false,
    };
    foretell(subject, question).ok()?.route
}

fn samples(config: &Config) -> Vec<Question> {
    let routes = config.routes.iter();
    routes
        .flat_map(|route| samples_of(&route.fields))
        .take(REQUESTS_MAX)
        .collect()
}

/// Requests that meet the conditions of a route, as far as these are no regexes.
fn samples_of(route: &Route) -> Vec<Question> {
    let or_one = |mut list: Vec<String>, one: &str| {
        if list.is_empty() {
            list.push(one.to_owned());
        }
        list.truncate(OF_EACH_MAX);
        list
    };
    let is_regex_alone = !route.paths.is_empty() && route.paths.iter().all(|path| is_regex(path));
    let headers: Option<Vec<(String, String)>> = route
        .headers
        .iter()
        .map(|(name, values)| {
            let value = values.iter().find(|value| !value.starts_with('~'))?;
            Some((name.clone(), value.clone()))
        })
        .collect();
    let Some(headers) = headers.filter(|_| !is_regex_alone) else {
        return Vec::new();
    };
    let plain = route.paths.iter().filter(|path| !is_regex(path)).cloned();
    let paths = or_one(plain.collect(), "/");
    let hosts = route.hosts.iter().map(|host| host.replace('*', "any"));
    let hosts = or_one(hosts.collect(), "");
    let method = route.methods.first().map_or("GET", String::as_str);
    let scheme = if route.protocols.contains(&Protocol::Http) {
        "http"
    } else {
        "https"
    };
    let mut questions = Vec::new();
    for host in &hosts {
        for path in &paths {
            let url = match (host.as_str(), scheme) {
                ("", "http") => path.clone(),
                ("", _) => format!("{scheme}://any{path}"),
                (host, _) => format!("{scheme}://{host}{path}"),
            };
            questions.push(Question {
                method: method.to_owned(),
                url,
                headers: headers.clone(),
                client_ip: None,
                sni: None,
                consumer: None,
                all: false,
            });
        }
    }
    questions
}

fn is_regex(path: &str) -> bool {
    path.starts_with('~')
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn urls(route: &Route) -> Vec<String> {
        let samples = samples_of(route);
        let shown = samples.iter();
        shown
            .map(|question| {
                format!(
                    "{} {} {:?}",
                    question.method, question.url, question.headers
                )
            })
            .collect()
    }

    #[test]
    fn a_request_is_made_up_for_each_plain_condition() {
        let route = Route {
            hosts: vec!["*.a.test".into(), "b.test:81".into()],
            paths: vec!["/x".into(), "~/y".into()],
            methods: BTreeSet::from(["PUT".to_owned()]),
            headers: BTreeMap::from([("x-a".into(), vec!["~*^v".into(), "w".into()])]),
            ..Route::default()
        };
        assert_eq!(
            urls(&route),
            [
                r#"PUT http://any.a.test/x [("x-a", "w")]"#,
                r#"PUT http://b.test:81/x [("x-a", "w")]"#
            ]
        );
        let bare = Route {
            protocols: BTreeSet::from([Protocol::Https]),
            ..Route::default()
        };
        assert_eq!(urls(&bare), ["GET https://any/ []"]);
    }

    #[test]
    fn nothing_is_made_up_for_regexes() {
        let route = Route {
            paths: vec!["~/y".into()],
            ..Route::default()
        };
        assert_eq!(urls(&route), Vec::<String>::new());
    }
}

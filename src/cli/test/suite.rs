//! A test file: requests, and what is expected of each. Reads it with a diagnostic for each mistake; what is found
//! of a request is compared elsewhere.

use std::{collections::BTreeMap, net::IpAddr, path::Path, rc::Rc, sync::LazyLock};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    config::{
        self, Code, Diagnostics, Node, Span,
        check::check,
        environment::Environment,
        node,
        read::read,
        schema::{Shape, shape_of},
        suggest::nearest,
    },
    entity::reason::Reason,
    explain::Question,
    plugins::CATALOG,
};

/// Between the name of a plugin and where it is attached, as in `rate-limiting @ route orders`.
const AT: char = '@';

/// A whole test file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["tests"]))]
struct TestFile {
    /// What all requests of the file have in common.
    defaults: Defaults,
    /// The tests.
    tests: Vec<Test>,
}

/// What a request has unless it says otherwise.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Defaults {
    scheme: Option<Scheme>,
    host: Option<String>,
    #[schemars(extend("propertyNames" = {"format": "header-name"}))]
    headers: BTreeMap<String, Lines>,
    client_ip: Option<String>,
    consumer: Option<String>,
}

/// One expectation, for one request or for many.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["expect"]))]
struct Test {
    name: Option<String>,
    request: Option<Written>,
    #[schemars(length(min = 1))]
    requests: Option<Vec<Written>>,
    expect: Expectation,
}

/// A request: `METHOD URL`, a URL alone, or a record.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Written {
    Line(String),
    Record(Box<Record>),
}

/// A request part by part.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Record {
    method: Option<String>,
    url: Option<String>,
    scheme: Option<Scheme>,
    host: Option<String>,
    path: Option<String>,
    #[schemars(extend("propertyNames" = {"format": "header-name"}))]
    headers: Option<BTreeMap<String, Lines>>,
    client_ip: Option<String>,
    consumer: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Scheme {
    Http,
    Https,
}

/// One line of a header, or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Lines {
    One(String),
    Several(Vec<String>),
}

impl Lines {
    fn iter(&self) -> impl Iterator<Item = &String> {
        match self {
            Self::One(line) => std::slice::from_ref(line).iter(),
            Self::Several(lines) => lines.iter(),
        }
    }
}

/// What must become of a request. What is left out is not looked at.
#[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Expectation {
    pub(super) route: Option<String>,
    /// The service that it goes to; where a plugin chooses by weight, the likeliest.
    pub(super) service: Option<String>,
    /// The services that a plugin chooses from, with their weights.
    pub(super) services: Option<BTreeMap<String, u32>>,
    pub(super) consumer: Option<String>,
    /// The name of the upstream, or the host of a service without one.
    pub(super) upstream: Option<String>,
    /// All targets, in any order.
    pub(super) targets: Option<Vec<String>>,
    pub(super) upstream_url: Option<String>,
    /// Path and query.
    pub(super) upstream_path: Option<String>,
    pub(super) upstream_host: Option<String>,
    #[schemars(extend("propertyNames" = {"format": "header-name"}))]
    pub(super) upstream_headers: BTreeMap<String, Wanted>,
    /// All plugins whose access phase is reached, in order.
    pub(super) plugins: Option<Vec<String>>,
    pub(super) plugins_include: Option<Vec<String>>,
    pub(super) plugins_exclude: Option<Vec<String>>,
    /// Whether it goes upstream.
    pub(super) proxied: Option<bool>,
    /// The status of the gateway's own answer.
    #[schemars(range(min = 100, max = 999))]
    pub(super) status: Option<u16>,
    pub(super) reason: Option<String>,
    pub(super) message: Option<String>,
    pub(super) location: Option<String>,
    #[schemars(extend("propertyNames" = {"format": "header-name"}))]
    pub(super) answer_headers: BTreeMap<String, Wanted>,
}

/// What a header must be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Wanted {
    /// There, or not there.
    Present(bool),
    One(String),
    Several(Vec<String>),
}

/// A plugin that is expected, and where it is attached if that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WantedPlugin<'e> {
    pub(super) name: &'e str,
    pub(super) scope: Option<&'e str>,
}

impl<'e> WantedPlugin<'e> {
    pub(super) fn of(written: &'e str) -> Self {
        match written.split_once(AT) {
            Some((name, scope)) => Self {
                name: name.trim(),
                scope: Some(scope.trim()),
            },
            None => Self {
                name: written.trim(),
                scope: None,
            },
        }
    }
}

/// The expectation of a test with the places of its fields.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) fields: Expectation,
    file: Rc<Node>,
    path: String,
}

impl Expected {
    /// Where a field stands.
    pub(super) fn place(&self, field: &str) -> Span {
        self.file.span_at(&format!("{}.{field}", self.path))
    }
}

/// One request with what is expected of it.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) place: Span,
    pub(super) question: Question,
    pub(super) expected: Rc<Expected>,
}

/// Reads a test file. There are no cases if it has a mistake.
pub(super) fn read_file(
    path: &Path,
    environment: Environment<'_>,
    diagnostics: &mut Diagnostics,
) -> Vec<Case> {
    let Some(root) = config::read_tree(path, environment, diagnostics) else {
        return Vec::new();
    };
    read_root(root, diagnostics)
}

fn read_root(root: Node, diagnostics: &mut Diagnostics) -> Vec<Case> {
    static SHAPE: LazyLock<Shape> = LazyLock::new(shape_of::<TestFile>);
    if !check(&root, &SHAPE, node::Path::Root(""), diagnostics) {
        return Vec::new();
    }
    let file: TestFile = match read(&root) {
        Ok(file) => file,
        Err(error) => {
            let span = error.span.unwrap_or(root.span);
            diagnostics.error(
                Code::InvalidValue,
                span,
                error.path.clone(),
                error.to_string(),
            );
            return Vec::new();
        }
    };
    let mut reading = Reading {
        root: Rc::new(root),
        defaults: &file.defaults,
        diagnostics,
        cases: Vec::new(),
    };
    for (index, test) in file.tests.into_iter().enumerate() {
        reading.test(&format!("tests[{index}]"), test);
    }
    reading.cases
}

struct Reading<'a> {
    root: Rc<Node>,
    defaults: &'a Defaults,
    diagnostics: &'a mut Diagnostics,
    cases: Vec<Case>,
}

impl Reading<'_> {
    fn error(&mut self, code: Code, path: &str, message: impl Into<String>, hint: &str) {
        let span = self.root.span_at(path);
        self.diagnostics.error(code, span, path, message).hint(hint);
    }

    fn test(&mut self, path: &str, test: Test) {
        let expect = format!("{path}.expect");
        self.check_expectation(&expect, &test.expect);
        let requests: Vec<(String, Written)> = match (test.request, test.requests) {
            (Some(request), None) => vec![(format!("{path}.request"), request)],
            (None, Some(requests)) => (0..)
                .zip(requests)
                .map(|(index, request): (usize, _)| (format!("{path}.requests[{index}]"), request))
                .collect(),
            (None, None) => {
                let hint = "write `request: GET /path`, or a list of them under `requests`";
                self.error(Code::MissingField, path, "the test has no request", hint);
                return;
            }
            (Some(_), Some(_)) => {
                let message = "`request` and `requests` do not go together";
                let hint = "put all of them under `requests`";
                self.error(Code::InvalidCombination, path, message, hint);
                return;
            }
        };
        let expected = Rc::new(Expected {
            fields: test.expect,
            file: Rc::clone(&self.root),
            path: expect,
        });
        let is_alone = requests.len() == 1;
        for (path, written) in requests {
            let Some(question) = self.question(&path, written) else {
                continue;
            };
            let line = format!("{} {}", question.method, question.url);
            let name = match &test.name {
                Some(name) if is_alone => name.clone(),
                Some(name) => format!("{name}: {line}"),
                None => line,
            };
            self.cases.push(Case {
                name,
                place: self.root.span_at(&path),
                question,
                expected: Rc::clone(&expected),
            });
        }
    }

    fn check_expectation(&mut self, path: &str, wanted: &Expectation) {
        if *wanted == Expectation::default() {
            let hint = "write such as `route: NAME`, `route: none` or `status: 404`";
            self.error(Code::MissingField, path, "the test expects nothing", hint);
        }
        if let Some(reason) = &wanted.reason {
            let known = || Reason::ALL.iter().map(|reason| reason.code());
            if !known().any(|code| code == reason) {
                let path = format!("{path}.reason");
                let message = format!("there is no reason `{reason}`");
                self.diagnostics
                    .error(Code::NotAllowed, self.root.span_at(&path), path, message)
                    .value(reason.as_str())
                    .did_you_mean(nearest(reason, known()));
            }
        }
        for (field, plugins) in [
            ("plugins", &wanted.plugins),
            ("plugins_include", &wanted.plugins_include),
            ("plugins_exclude", &wanted.plugins_exclude),
        ] {
            for (index, written) in plugins.iter().flatten().enumerate() {
                self.check_plugin(&format!("{path}.{field}[{index}]"), written);
            }
        }
    }

    fn check_plugin(&mut self, path: &str, written: &str) {
        let name = WantedPlugin::of(written).name;
        let known = || CATALOG.iter().map(|entry| entry.name);
        if !known().any(|known| known == name) {
            let message = format!("there is no plugin `{name}`");
            self.diagnostics
                .error(Code::UnknownPlugin, self.root.span_at(path), path, message)
                .value(name)
                .did_you_mean(nearest(name, known()));
        }
    }

    fn question(&mut self, path: &str, written: Written) -> Option<Question> {
        let record = match written {
            Written::Record(record) => *record,
            Written::Line(line) => self.record(path, &line)?,
        };
        let url = self.url(path, &record)?;
        let client_ip = record.client_ip.as_ref().map(|ip| (path, ip)).or_else(|| {
            let default = self.defaults.client_ip.as_ref();
            default.map(|ip| ("defaults", ip))
        });
        let mut ip = None;
        if let Some((path, written)) = client_ip {
            ip = written.parse::<IpAddr>().ok();
            if ip.is_none() {
                let path = format!("{path}.client_ip");
                let message = format!("`{written}` is not an IP address");
                let hint = "write such as `192.0.2.1` or `2001:db8::1`";
                self.error(Code::InvalidValue, &path, message, hint);
                return None;
            }
        }
        Some(Question {
            method: record.method.clone().unwrap_or_else(|| "GET".to_owned()),
            url,
            headers: self.headers(&record.headers.unwrap_or_default()),
            client_ip: ip,
            sni: None,
            consumer: record.consumer.or_else(|| self.defaults.consumer.clone()),
            all: true,
        })
    }

    /// `METHOD URL` or a URL alone.
    fn record(&mut self, path: &str, line: &str) -> Option<Record> {
        let mut words = line.split_whitespace();
        let (method, url) = match (words.next(), words.next(), words.next()) {
            (Some(url), None, None) => (None, url),
            (Some(method), Some(url), None) => (Some(method.to_owned()), url),
            _ => {
                let message = format!("`{line}` is not `METHOD URL`");
                let hint = "write such as `GET /orders` or `GET http://shop.test/orders`";
                self.error(Code::InvalidValue, path, message, hint);
                return None;
            }
        };
        let is_path = url.starts_with('/') || url == "*";
        let url = url.to_owned();
        let (url, path) = if is_path {
            (None, Some(url))
        } else {
            (Some(url), None)
        };
        Some(Record {
            method,
            url,
            path,
            ..Record::default()
        })
    }

    fn url(&mut self, path: &str, record: &Record) -> Option<String> {
        let has_parts = record.scheme.is_some() || record.host.is_some() || record.path.is_some();
        match (&record.url, &record.path) {
            (Some(_), _) if has_parts => {
                let message = "`url` says all of `scheme`, `host` and `path`";
                let hint = "leave either it or them out";
                self.error(Code::InvalidCombination, path, message, hint);
                None
            }
            (Some(url), _) => Some(url.clone()),
            (None, None) => {
                let message = "the request has neither `url` nor `path`";
                let hint = "write such as `path: /orders`";
                self.error(Code::MissingField, path, message, hint);
                None
            }
            (None, Some(target)) => {
                let scheme = record.scheme.or(self.defaults.scheme);
                let host = record.host.as_ref().or(self.defaults.host.as_ref());
                match (scheme, host) {
                    (Some(Scheme::Https), None) => {
                        let message = "a request over https has a host";
                        self.error(Code::InvalidCombination, path, message, "write `host`");
                        None
                    }
                    (Some(Scheme::Https), Some(host)) => Some(format!("https://{host}{target}")),
                    (_, Some(host)) => Some(format!("http://{host}{target}")),
                    (_, None) => Some(target.clone()),
                }
            }
        }
    }

    /// The request's own headers, and those of the defaults that it does not have.
    fn headers(&self, own: &BTreeMap<String, Lines>) -> Vec<(String, String)> {
        let is_own = |name: &str| own.keys().any(|own| own.eq_ignore_ascii_case(name));
        let inherited = self
            .defaults
            .headers
            .iter()
            .filter(|(name, _)| !is_own(name));
        inherited
            .chain(own)
            .flat_map(|(name, lines)| lines.iter().map(|line| (name.clone(), line.clone())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::{self, Unchanged};

    fn cases(text: &str) -> (Vec<Case>, String) {
        let mut diagnostics = Diagnostics::default();
        let file = diagnostics.add_file("t");
        let root = yaml::parse(text, file, &Unchanged, &mut diagnostics).expect("a tree");
        let cases = read_root(root, &mut diagnostics);
        (cases, diagnostics.to_text())
    }

    #[test]
    fn a_request_is_a_line_or_a_record_and_has_what_all_have_in_common() {
        let (cases, mistakes) = cases(
            "defaults: {host: shop.test, headers: {apikey: k, x-a: '1'}, client_ip: 10.0.0.1}\n\
             tests:\n\
             - {request: /a, expect: {route: a}}\n\
             - name: many\n\
             \x20 requests: [POST /b?c, {path: /d, scheme: https, headers: {X-A: [], x-b: ['2', '3']}}]\n\
             \x20 expect: {route: none}\n\
             - {request: GET http://other.test/, expect: {proxied: true}}\n",
        );
        assert_eq!(mistakes, "");
        let shown: Vec<String> = cases
            .iter()
            .map(|case| {
                let Question {
                    method,
                    url,
                    headers,
                    ..
                } = &case.question;
                format!(
                    "{} | {method} {url} {headers:?} {}",
                    case.name, case.place.line
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                r#"GET http://shop.test/a | GET http://shop.test/a [("apikey", "k"), ("x-a", "1")] 3"#,
                r#"many: POST http://shop.test/b?c | POST http://shop.test/b?c [("apikey", "k"), ("x-a", "1")] 5"#,
                r#"many: GET https://shop.test/d | GET https://shop.test/d [("apikey", "k"), ("x-b", "2"), ("x-b", "3")] 5"#,
                r#"GET http://other.test/ | GET http://other.test/ [("apikey", "k"), ("x-a", "1")] 7"#,
            ]
        );
    }

    #[test]
    fn every_mistake_has_its_place_and_a_way_out() {
        for (text, expected) in [
            (
                "tests: [{request: /a, expect: {rout: a}}]\n",
                "t:1:32: error[config::unknown_field]: tests[0].expect.rout: unknown field `rout` (did you mean `route`?)\n",
            ),
            (
                "tests: [{request: {pth: /a}, expect: {route: a}}]\n",
                "t:1:20: error[config::unknown_field]: tests[0].request.pth: unknown field `pth` (did you mean `path`?)\n",
            ),
            (
                "tests: [{request: /a, expect: {}}]\n",
                "t:1:31: error[config::missing_field]: tests[0].expect: the test expects nothing (write such as `route: NAME`, `route: none` or `status: 404`)\n",
            ),
            (
                "tests:\n- expect: {route: a}\n",
                "t:2:3: error[config::missing_field]: tests[0]: the test has no request (write `request: GET /path`, or a list of them under `requests`)\n",
            ),
            (
                "tests: [{request: /a, expect: {reason: no_rout, plugins: [key-aut @ global]}}]\n",
                "t:1:40: error[config::not_allowed]: tests[0].expect.reason: there is no reason `no_rout` (did you mean `no_route`?)\n\
                 t:1:59: error[plugin::unknown]: tests[0].expect.plugins[0]: there is no plugin `key-aut` (did you mean `key-auth`?)\n",
            ),
            (
                "tests: [{request: GET /a b, expect: {route: a}}]\n",
                "t:1:19: error[config::invalid_value]: tests[0].request: `GET /a b` is not `METHOD URL` (write such as `GET /orders` or `GET http://shop.test/orders`)\n",
            ),
            (
                "tests: [{request: {url: http://a/, path: /b}, expect: {route: a}}]\n",
                "t:1:19: error[config::invalid_combination]: tests[0].request: `url` says all of `scheme`, `host` and `path` (leave either it or them out)\n",
            ),
            (
                "tests: [{request: {path: /b, client_ip: me}, expect: {route: a}}]\n",
                "t:1:41: error[config::invalid_value]: tests[0].request.client_ip: `me` is not an IP address (write such as `192.0.2.1` or `2001:db8::1`)\n",
            ),
            (
                "{}\n",
                "t:1:1: error[config::missing_field]: tests: required field `tests` is missing\n",
            ),
        ] {
            let (cases, mistakes) = cases(text);
            assert_eq!(mistakes, expected);
            assert!(cases.len() <= 1, "{text}");
        }
    }

    #[test]
    fn a_plugin_may_be_wanted_at_one_place() {
        let wanted = WantedPlugin::of("rate-limiting @ route orders and consumer ann");
        assert_eq!(wanted.name, "rate-limiting");
        assert_eq!(wanted.scope, Some("route orders and consumer ann"));
        assert_eq!(WantedPlugin::of("key-auth").scope, None);
    }
}

//! The dashboard and the alerts: they ask for what the gateway exports, and a real Prometheus answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use regex::Regex;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    Blueprint, Client, Gateway, Origin, Reply, Request, Stopwatch, free_port, wait_for, wait_until,
};

/// How long Prometheus may take for what needs several scrapes.
const PATIENCE: Duration = Duration::from_mins(1);

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text_of(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect("a readable file of the repository")
}

fn dashboard() -> Value {
    serde_json::from_str(&text_of("dashboards/tollgate.json")).expect("a dashboard in JSON")
}

fn panels() -> Vec<Value> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    panels.clone()
}

/// The queries of all panels, each with the title of its panel.
fn queries() -> Vec<(String, String)> {
    let query = |panel: &Value, target: &Value| {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        (text(&panel["title"]), text(&target["expr"]))
    };
    panels()
        .iter()
        .flat_map(|panel| {
            let targets = panel["targets"].as_array().cloned().unwrap_or_default();
            targets
                .iter()
                .map(|target| query(panel, target))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The conditions of all alerts, each with the name of its alert.
fn alerts() -> Vec<(String, String)> {
    let rules: serde_yaml::Value =
        serde_yaml::from_str(&text_of("dashboards/alerts.yml")).expect("rules in YAML");
    let rules = rules["groups"][0]["rules"]
        .as_sequence()
        .expect("rules")
        .clone();
    let text = |value: &serde_yaml::Value| value.as_str().expect("a text").to_owned();
    rules
        .iter()
        .map(|rule| (text(&rule["alert"]), text(&rule["expr"])))
        .collect()
}

/// The labels of each series that the gateway exports, by the name of the series.
fn exported() -> BTreeMap<String, BTreeSet<String>> {
    let family = Regex::new(r#"(Counter|Gauge|Histogram) "(\w+)"(?: = "\w+")?\s*\[([^\]]*)\]"#)
        .expect("a pattern");
    let source = text_of("src/telemetry/families.rs");
    let mut series = BTreeMap::new();
    for found in family.captures_iter(&source) {
        let labels: BTreeSet<String> = found[3]
            .split(',')
            .map(|label| label.trim().trim_matches('"').to_owned())
            .filter(|label| !label.is_empty())
            .chain(["instance".to_owned(), "job".to_owned()])
            .collect();
        if &found[1] == "Histogram" {
            for part in ["_sum", "_count", "_bucket"] {
                let mut labels = labels.clone();
                labels.insert("le".to_owned());
                series.insert(format!("{}{part}", &found[2]), labels);
            }
        } else {
            series.insert(found[2].to_owned(), labels);
        }
    }
    series
}

#[test]
fn dashboard_and_alerts_ask_for_series_and_labels_that_exist() {
    let exported = exported();
    let series = Regex::new(r"\b((?:tollgate|process)_\w+)(?:\{([^}]*)\})?").expect("a pattern");
    let matcher = Regex::new(r#"(\w+)\s*(?:=~|!~|!=|=)\s*""#).expect("a pattern");
    let grouping = Regex::new(r"\bby \(([^)]*)\)").expect("a pattern");
    let mut wrong = Vec::new();
    for (place, query) in queries().into_iter().chain(alerts()) {
        let mut known = BTreeSet::new();
        for found in series.captures_iter(&query) {
            let Some(labels) = exported.get(&found[1]) else {
                wrong.push(format!("{place}: there is no {}", &found[1]));
                continue;
            };
            known.extend(labels.clone());
            let selected = found.get(2).map_or("", |selected| selected.as_str());
            for label in matcher.captures_iter(selected) {
                if !labels.contains(&label[1]) {
                    wrong.push(format!("{place}: {} has no label {}", &found[1], &label[1]));
                }
            }
        }
        for found in grouping.captures_iter(&query) {
            for label in found[1].split(',').map(str::trim) {
                if !known.contains(label) {
                    wrong.push(format!("{place}: grouped by {label}, which is nowhere"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_dashboard_is_in_order() {
    let mut ids = BTreeSet::new();
    for panel in panels() {
        assert!(ids.insert(panel["id"].to_string()), "{panel}");
        let place = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
        assert!(place("x") + place("w") <= 24, "{panel}");
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{panel}");
        }
    }
    let dashboard = dashboard();
    let variables: BTreeSet<&str> = dashboard["templating"]["list"]
        .as_array()
        .expect("variables")
        .iter()
        .filter_map(|variable| variable["name"].as_str())
        .collect();
    let used = Regex::new(r"\$\{?([a-z]\w*)").expect("a pattern");
    for (panel, query) in queries() {
        for found in used.captures_iter(&query) {
            assert!(variables.contains(&found[1]), "{panel}: ${}", &found[1]);
        }
    }
}

#[track_caller]
fn promtool(arguments: &[&str], folder: &Path) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("promtool, which `make test-tools` installs");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn each_alert_fires_when_it_should_and_not_before() {
    let folder = root().join("dashboards");

    promtool(&["check", "rules", "alerts.yml"], &folder);
    promtool(&["test", "rules", "alerts.test.yml"], &folder);

    let tests = text_of("dashboards/alerts.test.yml");
    let page = text_of("docs/operations/monitoring.md");
    for (alert, _) in alerts() {
        let fires = format!("alertname: {alert}\n        exp_alerts:");
        assert!(tests.contains(&fires), "no test in which {alert} fires");
        assert!(
            page.contains(&format!("| `{alert}` |")),
            "{alert} is not documented"
        );
    }
}

/// A Prometheus that scrapes one gateway twice a second; killed when dropped.
struct Prometheus {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Prometheus {
    /// With the alerts, without their waiting times and with windows of seconds.
    fn scraping(gateway: &Gateway) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("a file in a temporary folder");
        };
        let waiting = Regex::new(r"(?m)^ +for: \w+\n").expect("a pattern");
        let window = Regex::new(r"\[\d+m\]").expect("a pattern");
        let rules = text_of("dashboards/alerts.yml");
        let rules = window.replace_all(&rules, "[5s]");
        write("alerts.yml", &waiting.replace_all(&rules, ""));
        let config = text_of("docker/prometheus.yml")
            .replace("5s", "500ms")
            .replace(
                "gateway:8001",
                &format!("127.0.0.1:{}", gateway.admin_port()),
            );
        write("prometheus.yml", &config);
        let port = free_port();
        let child = Command::new("prometheus")
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus, which `make test-tools` installs");
        let prometheus = Self {
            child,
            port,
            _folder: folder,
        };
        wait_until("Prometheus to be ready", || {
            prometheus.get("/-/ready").is_some()
        });
        prometheus
    }

    /// The body of an answer with status 200.
    fn get(&self, target: &str) -> Option<String> {
        let mut client = Client::try_connect(self.port).ok()?;
        let response = client.try_send(&Request::get(target)).ok()?;
        (response.status == 200).then(|| response.text())
    }

    fn data(&self, target: &str) -> Value {
        let text = self.get(target).expect("an answer of Prometheus");
        let answer: Value = serde_json::from_str(&text).expect("an answer in JSON");
        answer["data"].clone()
    }

    /// Whether a query gives at least one number now.
    fn has_data(&self, query: &str) -> bool {
        let query = query
            .replace("$__rate_interval", "5s")
            .replace("$instance", ".*")
            .replace("$service", ".*")
            .replace("$route", ".*");
        let query = utf8_percent_encode(&query, NON_ALPHANUMERIC);
        let data = self.data(&format!("/api/v1/query?query={query}"));
        let result = data["result"].as_array().expect("a result").clone();
        result.iter().any(|sample| sample["value"][1] != "NaN")
    }

    fn wait_for_alert(&self, name: &str, mut meanwhile: impl FnMut()) {
        wait_for(&format!("the alert {name}"), PATIENCE, || {
            meanwhile();
            let data = self.data("/api/v1/alerts");
            let alerts = data["alerts"].as_array().expect("alerts").clone();
            let fires =
                |alert: &Value| alert["labels"]["alertname"] == name && alert["state"] == "firing";
            alerts.iter().any(fires).then_some(())
        });
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The configuration of `make demo`, with the ports of this test.
fn demo(origins: &[Origin; 3]) -> Gateway {
    let blueprint = Blueprint::new("");
    let mut text = text_of("config/gateway.yaml").replace("../conf.d", "conf.d");
    let ports = [8000, 8001, 9001, 9002, 9003].into_iter().zip(
        [blueprint.port(), blueprint.admin_port()]
            .into_iter()
            .chain(origins.iter().map(Origin::port)),
    );
    for (written, port) in ports {
        text = text.replace(
            &format!("127.0.0.1:{written}"),
            &format!("127.0.0.1:{port}"),
        );
    }
    fs::write(blueprint.folder().join("gateway.yaml"), text).expect("written");
    let fragments = blueprint.folder().join("conf.d");
    fs::create_dir(&fragments).expect("a folder");
    for entry in fs::read_dir(root().join("conf.d")).expect("a readable folder") {
        let entry = entry.expect("a readable entry");
        fs::copy(entry.path(), fragments.join(entry.file_name())).expect("copied");
    }
    blueprint.start_as_it_is()
}

/// What visitors of the demo do: all goes well, there is no key, no route, no more allowed, and an
/// origin that fails.
fn visit(gateway: &Gateway) {
    for target in [
        "/api/user",
        "/orders/api/data",
        "/nowhere",
        "/limited/a",
        "/api/fail",
    ] {
        gateway.get(target);
    }
    gateway.send(&Request::get("/orders/api/data").header("apikey", "demo-key"));
}

#[test]
fn every_query_of_the_dashboard_returns_data_and_alerts_fire_in_a_real_prometheus() {
    let origins = [(); 3].map(|()| {
        Origin::start(|request| match request.target.as_str() {
            "/api/fail" => Reply::status(500),
            _ => Reply::ok("hello"),
        })
    });
    let mut gateway = demo(&origins);
    let prometheus = Prometheus::scraping(&gateway);

    let mut unanswered = queries();
    assert!(unanswered.len() > 30, "{}", unanswered.len());
    let watch = Stopwatch::start();
    while !unanswered.is_empty() && watch.elapsed() < PATIENCE {
        visit(&gateway);
        unanswered.retain(|(_, query)| !prometheus.has_data(query));
        Stopwatch::pace(Duration::from_millis(100));
    }
    assert!(unanswered.is_empty(), "without data: {unanswered:#?}");

    let rules = prometheus.data("/api/v1/rules");
    let rules = rules["groups"][0]["rules"]
        .as_array()
        .expect("rules")
        .clone();
    assert_eq!(rules.len(), alerts().len());
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    prometheus.wait_for_alert("TollgateErrorRatioHigh", || visit(&gateway));
    gateway.replace_exactly("nonsense");
    prometheus.wait_for_alert("TollgateConfigurationRefused", || {});
    gateway.sigterm();
    gateway.wait_exit(PATIENCE);
    prometheus.wait_for_alert("TollgateDown", || {});
}

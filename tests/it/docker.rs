//! The pieces of the container set-up, each tried without a container engine: what they refer to exists, and
//! what they start would start.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;
use serde_yaml::Value;

use crate::harness::{Gateway, Origin, free_port, one_service, tollgate};

fn docker() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker")
}

fn text_of(path: &str) -> String {
    fs::read_to_string(docker().join(path)).expect("a readable file of the repository")
}

fn yaml(path: &str) -> Value {
    let mut value: Value = serde_yaml::from_str(&text_of(path)).expect("YAML");
    // A merged record may itself merge another.
    for _ in 0..2 {
        value.apply_merge().expect("records to merge");
    }
    value
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_sequence().cloned().unwrap_or_default();
    items
        .iter()
        .map(|item| item.as_str().expect("a text").to_owned())
        .collect()
}

/// A service of `compose.yaml`; it has to be there.
fn service(name: &str) -> Value {
    let service = yaml("compose.yaml")["services"][name].clone();
    assert!(service.is_mapping(), "compose.yaml has no service {name}");
    service
}

/// What a service mounts from the repository: the file or folder, and its place in the container.
fn mounts(service: &Value) -> Vec<(PathBuf, String)> {
    texts(&service["volumes"])
        .iter()
        .filter(|volume| volume.starts_with('.'))
        .map(|volume| {
            let mut parts = volume.split(':');
            let (source, place) = (
                parts.next().expect("a source"),
                parts.next().expect("a place"),
            );
            (docker().join(source), place.to_owned())
        })
        .collect()
}

/// The ports inside the container that a service publishes.
fn published(service: &Value) -> BTreeSet<String> {
    let port = |text: &String| text.rsplit(':').next().expect("a port").to_owned();
    texts(&service["ports"]).iter().map(port).collect()
}

fn port_of(address: &Value) -> String {
    let address = address.as_str().expect("an address");
    address.rsplit(':').next().expect("a port").to_owned()
}

#[test]
fn everything_that_compose_mounts_or_builds_from_exists() {
    let compose = yaml("compose.yaml");
    let services = compose["services"].as_mapping().expect("services");
    for (name, service) in services {
        for (source, _) in mounts(service) {
            assert!(source.exists(), "{name:?} mounts {}", source.display());
        }
        if let Some(file) = service["build"]["dockerfile"].as_str() {
            let context = service["build"]["context"].as_str().expect("a context");
            assert!(docker().join(context).join(file).exists(), "{name:?}");
        } else {
            let image = service["image"].as_str().expect("an image");
            assert!(image.contains(':'), "{image} has no version");
        }
        let depends_on = &service["depends_on"];
        let names = depends_on
            .as_mapping()
            .map(|on| on.keys().cloned().collect());
        for other in names
            .or_else(|| depends_on.as_sequence().cloned())
            .unwrap_or_default()
        {
            assert!(
                services.contains_key(&other),
                "{name:?} waits for {other:?}"
            );
        }
    }
}

#[test]
fn the_gateway_of_compose_starts_and_listens_where_it_is_published() {
    let gateway = service("gateway");
    let mounted = mounts(&gateway);
    let (folder, place) = mounted.first().expect("a mounted configuration");
    let arguments = texts(&gateway["command"]);
    let file = arguments[2]
        .strip_prefix(place.as_str())
        .expect("a mounted file");

    let outcome = tollgate(folder, &["check", "--config", file.trim_start_matches('/')]);

    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("warning"), "{}", outcome.stderr);
    let settings = yaml("gateway.yaml")["gateway"].clone();
    let listening = BTreeSet::from([port_of(&settings["listen"]), port_of(&settings["admin"])]);
    assert_eq!(listening, published(&gateway));
    assert_eq!(arguments[..2], ["run", "--config"]);
}

#[test]
fn every_target_is_a_mock_of_compose() {
    let gateway = yaml("gateway.yaml");
    let targets = gateway["upstreams"][0]["targets"]
        .as_sequence()
        .expect("targets");
    assert_eq!(targets.len(), 2);
    for target in targets {
        let target = target["target"].as_str().expect("a target");
        let (name, port) = target.split_once(':').expect("a name and a port");
        let mock = service(name);
        let mut arguments = texts(&mock["command"]);
        assert!(
            arguments.windows(2).any(|pair| pair == ["--port", port]),
            "{name}"
        );
        assert!(
            arguments
                .windows(2)
                .any(|pair| pair == ["--host", "0.0.0.0"]),
            "{name}"
        );
        assert_eq!(texts(&mock["healthcheck"]["test"])[2], port);

        // What is not understood is refused before the help is printed.
        arguments.push("--help".to_owned());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let outcome = tollgate(&docker(), &arguments);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    }
}

#[test]
fn prometheus_accepts_its_configuration_and_finds_the_gateway() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (source, place) in mounts(&service("prometheus")) {
        let name = Path::new(&place).file_name().expect("a file");
        fs::copy(source, folder.path().join(name)).expect("copied");
    }

    let checked = Command::new("promtool")
        .args(["check", "config", "prometheus.yml"])
        .current_dir(folder.path())
        .output()
        .expect("promtool, which `make test-tools` installs");

    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
    let scrape = yaml("prometheus.yml")["scrape_configs"][0].clone();
    assert_eq!(scrape["job_name"], "tollgate");
    let admin = port_of(&yaml("gateway.yaml")["gateway"]["admin"]);
    let targets = texts(&scrape["static_configs"][0]["targets"]);
    assert_eq!(targets, [format!("gateway:{admin}")]);
}

#[test]
fn grafana_finds_prometheus_and_the_dashboard() {
    let grafana = service("grafana");
    let places: Vec<String> = mounts(&grafana)
        .into_iter()
        .map(|(_, place)| place)
        .collect();
    let source = yaml("grafana/datasources.yaml")["datasources"][0].clone();
    let url = source["url"].as_str().expect("a URL");
    let port = published(&service("prometheus"));
    assert_eq!(
        Some(url),
        port.first()
            .map(|port| format!("http://prometheus:{port}"))
            .as_deref()
    );
    let provider = yaml("grafana/dashboards.yaml")["providers"][0].clone();
    let folder = provider["options"]["path"].as_str().expect("a folder");
    let dashboard = format!("{folder}/tollgate.json");
    assert!(places.contains(&dashboard), "{places:?}");
    assert_eq!(
        grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"],
        dashboard.as_str()
    );
}

/// Whether `docker/answers` finds an answer of 200.
fn answers(port: u16, path: &str) -> bool {
    let status = Command::new("bash")
        .arg(docker().join("answers"))
        .args([&port.to_string(), path])
        .stderr(std::process::Stdio::null())
        .status();
    status.expect("bash").success()
}

#[test]
fn the_health_check_of_the_image_tells_ready_from_not_ready() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service(&origin));

    assert!(answers(gateway.admin_port(), "/status/ready"));
    assert!(!answers(gateway.admin_port(), "/nowhere"));
    assert!(!answers(free_port(), "/status/ready"));
}

#[test]
fn the_dockerfile_uses_what_the_repository_has() {
    let text = text_of("Dockerfile");
    let repository = docker().join("..");
    let copied = Regex::new(r"(?m)^COPY (?:--chmod=\d+ )?(\S+) (\S+)$").expect("a pattern");
    let mut places = Vec::new();
    for found in copied.captures_iter(&text) {
        assert!(repository.join(&found[1]).exists(), "{}", &found[1]);
        places.push(found[2].to_owned());
    }
    let makefile = fs::read_to_string(repository.join("Makefile")).expect("a Makefile");
    let target = Regex::new(r"\bmake (\S+)").expect("a pattern");
    for found in target.captures_iter(&text) {
        assert!(
            makefile.contains(&format!("\n{}:", &found[1])),
            "{}",
            &found[1]
        );
    }
    let check = Regex::new(r#"HEALTHCHECK [^\[]*\["([^"]+)""#).expect("a pattern");
    let check = &check.captures(&text).expect("a health check")[1];
    assert!(places.iter().any(|place| place == check), "{check}");
    let release = Regex::new("(?m)^FROM rust:([0-9.]+)").expect("a pattern");
    let toolchain =
        fs::read_to_string(repository.join("rust-toolchain.toml")).expect("a toolchain");
    let release = &release.captures(&text).expect("a release of Rust")[1];
    assert!(toolchain.contains(release), "the image has Rust {release}");
    assert!(
        text.contains("\nUSER 10001:10001\n"),
        "the image runs as root"
    );
}

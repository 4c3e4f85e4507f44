//! The access log: what a line tells, where it goes, and what happens when it cannot go there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    Gateway, Origin, Request, free_port, one_service, one_service_and, wait_until,
};

const KEYS: &str = "
    plugins:
    - name: key-auth
      config: { key_names: [apikey] }
    - name: correlation-id
      config: { header_name: X-Trace }
    consumers:
    - username: alice
      keyauth_credentials:
      - { id: 5d9f5d5e-0000-4000-8000-000000000000, key: alice-key }
";

/// The lines of a log as JSON; a line that is none fails the test.
fn entries(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect()
}

/// The entry of the request for `path`, as soon as it is there.
fn entry(gateway: &Gateway, path: &str) -> Value {
    let found = || {
        entries(&gateway.access_log())
            .into_iter()
            .find(|entry| entry["path"] == path)
    };
    wait_until(&format!("{path} in the access log"), || found().is_some());
    found().expect("it is there")
}

fn text_of(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[track_caller]
fn wait_for_line(path: &Path, text: &str) {
    wait_until(&format!("`{text}` in {}", path.display()), || {
        text_of(path).contains(text)
    });
}

/// A gateway that logs to `logs/access.log` in a folder of its own.
struct Logging {
    gateway: Gateway,
    _origin: Origin,
    folder: TempDir,
}

impl Logging {
    /// Starts it, with a folder for the log if `ready`. `format` follows the path.
    fn start(format: &str, ready: bool) -> Self {
        let origin = Origin::replying("hello");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("logs");
        if ready {
            fs::create_dir(&log).expect("a folder");
        }
        let settings = format!("access_log: {}/access.log{format}", log.display());
        Self {
            gateway: Gateway::start_with(&settings, &one_service(&origin)),
            _origin: origin,
            folder,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("logs/access.log")
    }

    /// The series of the lines that were lost.
    fn lost(&self, reason: &str) -> f64 {
        self.gateway.metric(&format!(
            "tollgate_log_entries_dropped_total{{plugin=\"access-log\",reason=\"{reason}\"}}"
        ))
    }
}

// What a line tells

/// S45
#[test]
fn a_proxied_request_is_one_line_of_json() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service_and(&origin, KEYS));

    let response = gateway.send(
        &Request::get("/orders?id=1")
            .header("apikey", "alice-key")
            .header("X-Trace", "trace-1"),
    );

    let entry = entry(&gateway, "/orders?id=1");
    assert_eq!(entry["method"], "GET");
    assert_eq!(entry["client_ip"], "127.0.0.1");
    assert_eq!(entry["api_key"], "5d9f5d5e-0000-4000-8000-000000000000");
    assert_eq!(entry["consumer"], "alice");
    assert_eq!(entry["status_code"], 200);
    assert_eq!(entry["upstream_status"], 200);
    assert_eq!(entry["backend"], format!("http://{}", origin.authority()));
    assert_eq!(entry["error"], "");
    assert_eq!(entry["route"], "orders");
    assert_eq!(entry["service"], "orders");
    let tries = entry["tries"].as_array().expect("a list");
    assert_eq!(tries.len(), 1);
    assert_eq!(tries[0]["address"], origin.authority());
    assert_eq!(tries[0]["outcome"], "200");
    assert!(tries[0]["time_ms"].is_number());
    assert_eq!(entry["correlation_id"], "trace-1");
    assert_eq!(
        entry["request_id"].as_str(),
        response.header("X-Kong-Request-Id")
    );
    let timestamp = entry["timestamp"].as_str().expect("a text");
    assert!(
        timestamp.len() == "2025-01-31T12:00:00.123Z".len() && timestamp.ends_with('Z'),
        "{timestamp}"
    );
    let number = |name: &str| entry[name].as_f64().expect(name);
    assert!(number("response_time_ms") >= number("upstream_latency_ms"));
    assert!(number("response_time_ms") >= number("gateway_latency_ms"));
    assert!(number("bytes_received") > 0.0 && number("bytes_sent") > 0.0);
}

#[test]
fn what_the_gateway_answers_itself_is_logged_with_the_reason() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service_and(&origin, KEYS));

    gateway.get("/locked?apikey=wrong-key");

    let entry = entry(&gateway, "/locked?apikey=REDACTED");
    assert_eq!(
        (&entry["status_code"], &entry["error"]),
        (&401.into(), &"unauthorized".into())
    );
    assert_eq!(
        (&entry["api_key"], &entry["consumer"], &entry["backend"]),
        (&"".into(), &"".into(), &"".into())
    );
    assert!(entry.get("upstream_status").is_none() && entry.get("upstream_latency_ms").is_none());
    assert!(!gateway.access_log().contains("wrong-key"));
}

#[test]
fn a_request_without_a_route_names_none() {
    let gateway = Gateway::start("services: []");

    gateway.get("/nowhere");

    let entry = entry(&gateway, "/nowhere");
    assert_eq!(
        (&entry["status_code"], &entry["error"]),
        (&404.into(), &"no_route".into())
    );
    assert_eq!(
        (&entry["route"], &entry["service"]),
        (&"".into(), &"".into())
    );
}

#[test]
fn what_never_became_a_request_is_logged_too() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service(&origin));

    let mut client = gateway.connect();
    client.write("BROKEN\r\n\r\n").expect("written");
    client.read_response().expect("an answer");

    let entry = entry(&gateway, "");
    assert_eq!(
        (&entry["method"], &entry["status_code"], &entry["error"]),
        (&"".into(), &400.into(), &"bad_request".into())
    );
}

#[test]
fn the_backend_is_that_of_the_last_try() {
    let (closed, origin) = (free_port(), Origin::replying("hello"));
    let gateway = Gateway::start(&format!(
        "
        services:
        - name: orders
          host: pool
          routes: [{{ name: orders, paths: [/] }}]
        upstreams:
        - name: pool
          targets:
          - target: 127.0.0.1:{closed}
          - target: {}
        ",
        origin.authority()
    ));

    gateway.get("/orders");

    let entry = entry(&gateway, "/orders");
    assert_eq!(entry["backend"], format!("http://{}", origin.authority()));
    let tries = entry["tries"].as_array().expect("a list");
    let told: Vec<_> = tries
        .iter()
        .map(|one| (&one["address"], &one["outcome"]))
        .collect();
    let (dead, alive) = (format!("127.0.0.1:{closed}"), origin.authority());
    assert_eq!(
        told,
        [
            (&dead.into(), &"upstream_connect".into()),
            (&alive.into(), &"200".into())
        ]
    );
    assert_eq!(entry["error"], "");
}

#[test]
fn the_plain_format_is_kongs() {
    let logging = Logging::start(" plain", true);

    let response = logging.gateway.send(
        &Request::get("/orders?id=1")
            .header("Referer", "http://a.test/")
            .header("User-Agent", "curl \"8\""),
    );

    let id = response.header("X-Kong-Request-Id").expect("an id");
    wait_for_line(&logging.path(), id);
    let text = text_of(&logging.path());
    let (before, after) = text.split_once(" [").expect("a time");
    assert_eq!(before, "127.0.0.1 - -");
    let (_, after) = after.split_once("] ").expect("the end of the time");
    assert_eq!(
        after,
        format!(
            "\"GET /orders?id=1 HTTP/1.1\" 200 5 \"http://a.test/\" \"curl \\x228\\x22\" kong_request_id: \"{id}\"\n"
        )
    );
}

// Where it goes

#[test]
fn a_file_is_created_for_owner_and_group_before_the_first_request() {
    let logging = Logging::start("", true);

    wait_until("the file", || logging.path().exists());

    let mode = fs::metadata(logging.path())
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
}

#[test]
fn nothing_is_written_when_it_is_off() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with("access_log: off", &one_service(&origin));

    gateway.get("/");
    gateway.reload(&one_service_and(
        &origin,
        "# changed\nconsumers: [{ username: a }]",
    ));

    assert_eq!(gateway.access_log(), "");
}

#[test]
fn a_reload_changes_where_it_goes() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with("access_log: off", &one_service(&origin));
    let path = gateway.folder().join("access.log");
    let turn_to = |place: &str| {
        let text = gateway.compose(&one_service(&origin));
        gateway.replace_exactly(&text.replace("access_log: off", &format!("access_log: {place}")));
    };
    let seen = |path: &str, log: &dyn Fn() -> String| {
        wait_until(&format!("{path} in the log"), || {
            gateway.get(path);
            log().contains(path)
        });
    };

    turn_to(&path.display().to_string());
    seen("/to-the-file", &|| text_of(&path));
    turn_to("stdout");
    seen("/to-stdout", &|| gateway.access_log());

    assert!(!gateway.access_log().contains("/to-the-file"));
}

// Trouble

#[test]
fn after_a_rotation_and_sighup_a_new_file_is_begun() {
    let logging = Logging::start("", true);
    logging.gateway.get("/before");
    wait_for_line(&logging.path(), "/before");
    let rotated = logging.folder.path().join("logs/access.log.1");

    fs::rename(logging.path(), &rotated).expect("the file is renamed");
    logging.gateway.sighup();
    wait_until("a new file", || logging.path().exists());
    logging.gateway.get("/after");

    wait_for_line(&logging.path(), "/after");
    assert_eq!(entries(&text_of(&rotated)).len(), 1);
    assert_eq!(entries(&text_of(&logging.path())).len(), 1);
}

#[test]
fn a_vanished_file_comes_back_without_being_told() {
    let logging = Logging::start("", true);
    wait_until("the file", || logging.path().exists());

    fs::remove_file(logging.path()).expect("the file is removed");

    wait_until("a new file", || {
        logging.gateway.get("/again");
        text_of(&logging.path()).contains("/again")
    });
}

#[test]
fn a_place_that_cannot_be_written_costs_lines_and_no_requests() {
    let logging = Logging::start("", false);

    for _ in 0..20 {
        assert_eq!(logging.gateway.get("/lost").status, 200);
    }

    wait_until("the lost lines in the metrics", || {
        logging.lost("unwritable") >= 20.0
    });
    let complaints = |log: &str| log.matches("the access log cannot be written").count();
    assert_eq!(complaints(&logging.gateway.log()), 1);
    fs::create_dir(logging.folder.path().join("logs")).expect("a folder");
    wait_until("a line", || {
        logging.gateway.get("/found");
        text_of(&logging.path()).contains("/found")
    });
    logging
        .gateway
        .wait_for_log("the access log is written again");
}

#[test]
fn a_full_disk_does_not_stop_the_traffic() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with("access_log: /dev/full", &one_service(&origin));

    for _ in 0..20 {
        assert_eq!(gateway.get("/").status, 200);
    }

    gateway.wait_for_log("the access log cannot be written");
    wait_until("the lost lines in the metrics", || {
        gateway.metric("tollgate_log_entries_dropped_total{reason=\"unwritable\"}") >= 20.0
    });
}

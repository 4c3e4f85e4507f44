//! Starting, and refusing to start; the commands that only look at a file.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use crate::harness::{
    Blueprint, Client, Gateway, Origin, Request, check, free_port, one_service, tollgate,
    wait_until,
};

const PROMPTLY: Duration = Duration::from_secs(2);

fn document(services: &str) -> String {
    format!("_format_version: \"3.0\"\n{services}")
}

#[test]
fn an_invalid_file_is_refused_with_its_position() {
    let blueprint = Blueprint::new("");
    let text =
        blueprint.compose("services:\n- name: a\n  url: http://127.0.0.1:1\n  retries: many\n");
    fs::write(blueprint.folder().join("gateway.yaml"), text).expect("written");

    let outcome = tollgate(blueprint.folder(), &["run", "--config", "gateway.yaml"]);

    assert!(outcome.code.is_some_and(|code| code != 0), "{outcome:?}");
    assert!(outcome.took < PROMPTLY, "{:?}", outcome.took);
    assert!(
        outcome.stderr.contains("gateway.yaml:4:"),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome.stderr.contains("services[0].retries"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn an_occupied_port_is_refused_and_nothing_is_left_listening() {
    for occupied in ["listen", "admin"] {
        let blueprint = Blueprint::new("");
        let port = if occupied == "listen" {
            blueprint.port()
        } else {
            blueprint.admin_port()
        };
        let _occupant = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        fs::write(
            blueprint.folder().join("gateway.yaml"),
            blueprint.compose("services: []"),
        )
        .expect("written");

        let outcome = tollgate(blueprint.folder(), &["run", "--config", "gateway.yaml"]);

        assert!(
            outcome.code.is_some_and(|code| code != 0),
            "{occupied}: {outcome:?}"
        );
        assert!(outcome.took < PROMPTLY, "{occupied}: {:?}", outcome.took);
        assert!(
            outcome.stderr.contains(&port.to_string()),
            "{occupied}: {}",
            outcome.stderr
        );
        let other = if occupied == "listen" {
            blueprint.admin_port()
        } else {
            blueprint.port()
        };
        assert!(Client::try_connect(other).is_err());
    }
}

#[test]
fn a_missing_file_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");

    for command in ["run", "check"] {
        let outcome = tollgate(folder.path(), &[command, "--config", "nowhere.yaml"]);
        assert!(
            outcome.code.is_some_and(|code| code != 0),
            "{command}: {outcome:?}"
        );
        assert!(
            outcome.stderr.contains("nowhere.yaml"),
            "{command}: {}",
            outcome.stderr
        );
        assert!(outcome.took < PROMPTLY, "{command}: {:?}", outcome.took);
    }
}

#[test]
fn the_version_is_told() {
    let outcome = tollgate(&std::env::temp_dir(), &["--version"]);

    assert_eq!(
        (outcome.code, outcome.stdout.trim()),
        (Some(0), concat!("tollgate ", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn an_unknown_command_or_flag_is_refused() {
    for arguments in [&["fly"][..], &["run", "--nonsense"], &["check"]] {
        let outcome = tollgate(&std::env::temp_dir(), arguments);
        assert!(
            outcome.code.is_some_and(|code| code != 0),
            "{arguments:?}: {outcome:?}"
        );
        assert!(!outcome.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn the_short_form_of_config_works() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(
        folder.path().join("gateway.yaml"),
        document("services: []\n"),
    )
    .expect("written");

    assert_eq!(
        tollgate(folder.path(), &["check", "-c", "gateway.yaml"]).code,
        Some(0)
    );
}

#[test]
fn check_accepts_a_usable_file() {
    let outcome = check(&document(
        "services:\n- name: a\n  url: http://127.0.0.1:1\n  routes:\n  - name: a\n    paths: [/]\n",
    ));

    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(diagnostics(&outcome.stderr).len(), 0, "{}", outcome.stderr);
}

/// The lines that begin with a position.
fn diagnostics(stderr: &str) -> Vec<&str> {
    let lines = stderr.lines();
    lines
        .filter(|line| {
            line.strip_prefix("gateway.yaml:")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
        .collect()
}

#[test]
fn every_independent_mistake_is_one_line_with_its_position() {
    let outcome = check(&document(
        "\
services:
- name: a
  url: http://127.0.0.1:1
  retries: many
  routes:
  - name: r
    paths: [no-slash]
- name: b
  hots: example.com
plugins:
- name: rate-limitin
  config: { minute: 5 }
",
    ));

    assert!(outcome.code.is_some_and(|code| code != 0), "{outcome:?}");
    let lines = diagnostics(&outcome.stderr);
    for (position, words) in [
        (":5:", "services[0].retries"),
        (":8:", "no-slash"),
        (":10:3:", "hots"),
        (":12:", "rate-limiting"),
    ] {
        let found = lines.iter().any(|line| {
            line.starts_with(&format!("gateway.yaml{position}")) && line.contains(words)
        });
        assert!(
            found,
            "no line {position} with {words} in\n{}",
            outcome.stderr
        );
    }
    assert!(
        lines.iter().any(|line| line.contains("host")),
        "service b lacks its host:\n{}",
        outcome.stderr
    );
}

#[test]
fn a_dangling_reference_and_a_duplicate_are_found_where_they_stand() {
    let outcome = check(&document(
        "\
services:
- { name: a, host: a.test }
- { name: a, host: b.test }
routes:
- name: r
  paths: [/]
  service: nope
",
    ));

    let lines = diagnostics(&outcome.stderr);
    assert!(outcome.code.is_some_and(|code| code != 0));
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("gateway.yaml:4:") && line.contains("already declared")),
        "{lines:#?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("gateway.yaml:8:") && line.contains("service: nope")),
        "{lines:#?}"
    );
}

#[test]
fn a_syntax_error_has_a_position_too() {
    let outcome = check("_format_version: \"3.0\"\nservices:\n- name: [unclosed\n");

    assert!(outcome.code.is_some_and(|code| code != 0));
    assert!(
        !diagnostics(&outcome.stderr).is_empty(),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_secret_value_is_not_printed() {
    let outcome = check(&document(
        "consumers:\n- username: a\n  keyauth_credentials:\n  - { key: s3cr3t-value }\n  - { key: s3cr3t-value }\n  - { key: [s3cr3t-value] }\n",
    ));

    assert!(outcome.code.is_some_and(|code| code != 0));
    assert!(
        !outcome.stderr.contains("s3cr3t") && !outcome.stdout.contains("s3cr3t"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_warning_leaves_the_file_usable() {
    let outcome = check("_format_version: 3.0\nservices: []\n");

    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(
        outcome.stderr.contains("_format_version"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn an_empty_document_is_invalid() {
    for text in ["", "# nothing\n", "services: []\n", "[]\n"] {
        assert!(check(text).code.is_some_and(|code| code != 0), "{text:?}");
    }
}

#[test]
fn diagnostics_come_as_json_on_request() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(
        folder.path().join("gateway.yaml"),
        document("servicez: []\n"),
    )
    .expect("written");

    let outcome = tollgate(
        folder.path(),
        &["check", "--config", "gateway.yaml", "--format", "json"],
    );

    assert!(outcome.code.is_some_and(|code| code != 0));
    let parsed: serde_json::Value =
        serde_json::from_str(&outcome.stdout).expect("one JSON document on stdout");
    let list = parsed
        .as_array()
        .or_else(|| parsed["diagnostics"].as_array())
        .expect("a list of diagnostics");
    assert_eq!(list.len(), 1, "{parsed}");
    assert_eq!(
        (list[0]["line"].as_u64(), list[0]["column"].as_u64()),
        (Some(2), Some(1)),
        "{parsed}"
    );
    for member in ["file", "code", "message"] {
        assert!(
            list[0][member]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{member}: {parsed}"
        );
    }
}

/// S53: fragments in name order belong to the document.
#[test]
fn fragments_of_conf_d_are_part_of_the_document() {
    let origin = Origin::replying("hello");
    let blueprint = Blueprint::new("conf_d: conf.d");
    let conf_d = blueprint.folder().join("conf.d");
    fs::create_dir(&conf_d).expect("a folder");
    let route =
        |name: &str| format!("routes:\n- {{ name: {name}, paths: [/{name}], service: orders }}\n");
    fs::write(conf_d.join("10-first.yaml"), route("first")).expect("written");
    fs::write(conf_d.join("20-second.yml"), route("second")).expect("written");
    fs::write(conf_d.join(".hidden.yaml"), "nonsense: true\n").expect("written");
    fs::write(conf_d.join("notes.txt"), "nonsense: true\n").expect("written");

    let gateway = blueprint.start(&one_service(&origin).replace("paths: [/]", "paths: [/main]"));

    for path in ["/main", "/first", "/second"] {
        assert_eq!(gateway.get(path).status, 200, "{path}");
    }
}

#[test]
fn a_mistake_in_a_fragment_names_the_fragment() {
    let blueprint = Blueprint::new("conf_d: conf.d");
    let conf_d = blueprint.folder().join("conf.d");
    fs::create_dir(&conf_d).expect("a folder");
    fs::write(conf_d.join("10-bad.yaml"), "gateway:\n  threads: 1\n").expect("written");
    fs::write(
        conf_d.join("20-bad.yaml"),
        "\nroutes:\n- { name: r, paths: [/], service: nope }\n",
    )
    .expect("written");
    fs::write(
        blueprint.folder().join("gateway.yaml"),
        blueprint.compose("services: []"),
    )
    .expect("written");

    let outcome = tollgate(blueprint.folder(), &["check", "--config", "gateway.yaml"]);

    assert!(outcome.code.is_some_and(|code| code != 0));
    assert!(
        outcome.stderr.contains("conf.d/10-bad.yaml:1:1: "),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome.stderr.contains("conf.d/20-bad.yaml:3:"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn values_come_from_the_environment() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text =
        document("services:\n- { name: a, host: '${{ env \"DECK_TOLLGATE_TEST_UNSET\" }}' }\n");
    fs::write(folder.path().join("gateway.yaml"), text).expect("written");

    let outcome = tollgate(folder.path(), &["check", "--config", "gateway.yaml"]);

    assert!(outcome.code.is_some_and(|code| code != 0));
    assert!(
        outcome.stderr.contains("gateway.yaml:3:")
            && outcome.stderr.contains("DECK_TOLLGATE_TEST_UNSET"),
        "{}",
        outcome.stderr
    );
}

/// Names that do not resolve are no reason not to start.
#[test]
fn unresolvable_names_do_not_keep_the_gateway_from_starting() {
    let gateway = Gateway::start(&format!(
        "services:\n- {{ name: a, host: no-such-host.invalid, port: {}, routes: [{{ name: a, paths: [/] }}] }}\n",
        free_port()
    ));

    assert_eq!(gateway.get("/").status, 503);
}

#[test]
fn after_a_kill_the_next_start_needs_no_repair() {
    let origin = Origin::replying("hello");
    let blueprint = Blueprint::new("access_log: access.log\nerror_log: error.log");
    let (port, folder) = (blueprint.port(), blueprint.folder().to_owned());
    let mut gateway = blueprint.start(&one_service(&origin));
    let text = fs::read_to_string(folder.join("gateway.yaml")).expect("the document");
    assert_eq!(gateway.get("/").status, 200);

    wait_until("the error log", || {
        let log = fs::read_to_string(folder.join("error.log"));
        log.is_ok_and(|log| log.contains("tollgate is ready"))
    });

    gateway.signal(nix::sys::signal::Signal::SIGKILL);
    gateway.wait_exit(Duration::from_secs(5));

    let again = Blueprint::new("");
    let admin = format!("127.0.0.1:{}", gateway.admin_port());
    let own_admin = format!("127.0.0.1:{}", again.admin_port());
    fs::write(
        again.folder().join("gateway.yaml"),
        text.replace(&admin, &own_admin),
    )
    .expect("the same document");
    let _successor = again.start_as_it_is();
    let response = Client::connect(port).send(&Request::get("/"));
    assert_eq!(response.status, 200);
}

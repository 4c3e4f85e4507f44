//! `tollgate run` with flags instead of a file, and with flags beside a file.

use std::fs;

use crate::harness::{
    Blueprint, Client, Gateway, Origin, Outcome, Request, free_port, one_service, tollgate,
};

fn started(flags: &[&str]) -> Gateway {
    Blueprint::new("").start_without_a_file(flags)
}

fn url(origin: &Origin) -> String {
    format!("http://{}", origin.authority())
}

/// What `tollgate run` with these flags says in an empty folder.
fn run(flags: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().expect("a temporary folder");
    tollgate(folder.path(), &[&["run"], flags].concat())
}

#[test]
fn two_upstreams_take_turns_until_the_limit_of_a_client_is_reached() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let gateway = started(&[
        "--upstream",
        &url(&a),
        "--upstream",
        &url(&b),
        "--rate-limit",
        "200/day",
    ]);
    let mut client = gateway.connect();

    for number in 1..=200 {
        let response = client.send(&Request::get("/"));
        assert_eq!(response.status, 200, "request {number}");
    }
    let refused = client.send(&Request::get("/"));

    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("ratelimit-limit"), Some("200"));
    assert_eq!((a.count(), b.count()), (100, 100));
}

#[test]
fn the_path_of_an_upstream_stands_before_that_of_a_request() {
    let origin = Origin::replying("hello");
    let gateway = started(&["--upstream", &format!("{}/base", url(&origin))]);

    assert_eq!(gateway.get("/api?x=1").status, 200);

    assert_eq!(origin.last().target, "/base/api?x=1");
}

#[test]
fn retries_are_as_many_as_the_flag_says() {
    let dead = format!("http://127.0.0.1:{}", free_port());
    let origin = Origin::replying("alive");
    let flags = ["--upstream", &dead, "--upstream", &url(&origin)];

    let without = started(&[&flags[..], &["--retries", "0"]].concat());
    let statuses: Vec<u16> = (0..2).map(|_| without.get("/").status).collect();
    assert!(statuses.contains(&502), "{statuses:?}");

    let with = started(&[&flags[..], &["--retries", "1"]].concat());
    for _ in 0..4 {
        assert_eq!(with.get("/").text(), "alive");
    }
}

#[test]
fn a_lone_port_listens_on_every_address() {
    let origin = Origin::replying("hello");
    let blueprint = Blueprint::new("");
    let listen = format!(":{}", blueprint.port());
    let admin = format!("127.0.0.1:{}", blueprint.admin_port());
    let gateway = blueprint.start_command(&[
        "--listen",
        &listen,
        "--admin",
        &admin,
        "--upstream",
        &url(&origin),
    ]);

    assert_eq!(gateway.get("/").text(), "hello");
    gateway.wait_for_log(&format!("0.0.0.0:{}", gateway.port()));
}

#[test]
fn several_addresses_are_listened_on() {
    let origin = Origin::replying("hello");
    let other = free_port();
    let gateway = started(&[
        "--listen",
        &format!("127.0.0.1:{other}"),
        "--upstream",
        &url(&origin),
    ]);

    for port in [gateway.port(), other] {
        assert_eq!(
            Client::connect(port).send(&Request::get("/")).text(),
            "hello"
        );
    }
}

#[test]
fn a_hangup_without_a_file_changes_nothing() {
    let origin = Origin::replying("hello");
    let gateway = started(&["--upstream", &url(&origin)]);
    let before = gateway.configuration_hash();

    gateway.sighup();
    gateway.wait_for_log("configuration reloaded");

    assert_eq!(gateway.configuration_hash(), before);
    assert_eq!(gateway.get("/").text(), "hello");
}

#[test]
fn addresses_of_the_flags_hold_instead_of_those_of_the_file_also_after_a_reload() {
    let origin = Origin::replying("hello");
    let blueprint = Blueprint::new("");
    let (taken, file) = (free_port(), blueprint.folder().join("gateway.yaml"));
    let listen = format!("127.0.0.1:{}", blueprint.port());
    let admin = format!("127.0.0.1:{}", blueprint.admin_port());
    let text = |services: &str| {
        format!(
            "_format_version: \"3.0\"\ngateway:\n  listen: 127.0.0.1:{taken}\n  admin: off\n{services}"
        )
    };
    fs::write(&file, text("services: []\n")).expect("written");
    let arguments = ["-c", "gateway.yaml", "--listen", &listen, "--admin", &admin];
    let gateway = blueprint.start_command(&arguments);

    gateway.changing_configuration(|| gateway.replace_exactly(&text(&one_service(&origin))));

    assert_eq!(gateway.get("/").text(), "hello");
    assert!(Client::try_connect(taken).is_err(), "the file's address");
    assert!(
        !gateway.log().contains("needs a restart"),
        "{}",
        gateway.log()
    );
}

#[test]
fn the_printed_configuration_is_a_file_that_serves_the_same() {
    let origin = Origin::replying("hello");
    let blueprint = Blueprint::new("");
    let outcome = tollgate(
        blueprint.folder(),
        &[
            "run",
            "--listen",
            &format!("127.0.0.1:{}", blueprint.port()),
            "--admin",
            &format!("127.0.0.1:{}", blueprint.admin_port()),
            "--upstream",
            &format!("{}/base", url(&origin)),
            "--rate-limit",
            "1/day",
            "--retries",
            "2",
            "--print-config",
        ],
    );
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    fs::write(blueprint.folder().join("gateway.yaml"), &outcome.stdout).expect("written");
    let checked = tollgate(blueprint.folder(), &["check", "-c", "gateway.yaml"]);
    assert_eq!(
        checked.stderr,
        "ok: 1 service, 1 route, 0 consumers, 1 plugin\n"
    );

    let gateway = blueprint.start_as_it_is();

    assert_eq!(gateway.get("/x").status, 200);
    assert_eq!(origin.last().target, "/base/x");
    assert_eq!(gateway.get("/x").status, 429);
}

#[test]
fn without_flags_and_without_a_file_the_way_out_is_told() {
    for flags in [&[][..], &["--listen", ":8080"]] {
        let outcome = run(flags);

        assert_eq!(outcome.code, Some(1));
        assert_eq!(
            outcome.stderr,
            "error: there is no config/gateway.yaml here; name another file with `--config FILE`, or serve without \
             one: `tollgate run --listen :8080 --upstream http://127.0.0.1:9001`\n"
        );
    }
}

#[test]
fn a_bad_flag_is_refused_under_its_name() {
    let good = ["--upstream", "http://a.test"];
    let mut told = String::new();
    for flags in [
        &["--upstream", "ftp://a.test"][..],
        &["--upstream", "http://"],
        &["--upstream", "http://a.test:99999"],
        &["--upstream", "http://user:word@a.test"],
        &[
            "--upstream",
            "http://a.test",
            "--upstream",
            "https://a.test",
        ],
        &[
            "--upstream",
            "http://a.test/x",
            "--upstream",
            "http://b.test/y",
        ],
        &["--upstream", "http://a.test", "--upstream", "http://a.test"],
        &[&good[..], &["--listen", "8080"]].concat(),
        &[&good[..], &["--listen", "localhost:8080"]].concat(),
        &[&good[..], &["--admin", "nowhere"]].concat(),
        &[&good[..], &["--rate-limit", "0"]].concat(),
        &[&good[..], &["--rate-limit", "5/week"]].concat(),
        &[&good[..], &["--retries", "40000"]].concat(),
        &["--rate-limit", "5"],
        &["--print-config"],
        &["-c", "x.yaml", "--upstream", "http://a.test"],
    ] {
        let outcome = run(flags);
        assert_eq!(outcome.code, Some(2), "{flags:?}: {outcome:?}");
        let error = outcome
            .stderr
            .split("\n\n")
            .next()
            .expect("a first paragraph");
        told.push_str(&format!("{}\n{}\n\n", flags.join(" "), error.trim_end()));
    }
    insta::assert_snapshot!(told, @r"
    --upstream ftp://a.test
    error: --upstream: `ftp://a.test` begins with neither http:// nor https://

    --upstream http://
    error: --upstream: `http://` has no host; write scheme://host[:port][/path]

    --upstream http://a.test:99999
    error: --upstream: `http://a.test:99999` has a bad port `99999`

    --upstream http://user:word@a.test
    error: --upstream: the URL has a user name or password, which a service cannot have

    --upstream http://a.test --upstream https://a.test
    error: --upstream: `http://a.test` and `https://a.test` differ in their scheme, which one service has once; give all of them the same, or write a file with a service for each

    --upstream http://a.test/x --upstream http://b.test/y
    error: --upstream: `http://a.test/x` and `http://b.test/y` differ in their path, which one service has once; give all of them the same, or write a file with a service for each

    --upstream http://a.test --upstream http://a.test
    error: --upstream: uniqueness violation: 'targets' entity with target set to 'a.test:80' already declared for upstream 'app-servers' (the first one is at command line:5:13)

    --upstream http://a.test --listen 8080
    error: invalid value '8080' for '--listen <ADDRESS>': `8080` has no address: write `0.0.0.0:8080`

    --upstream http://a.test --listen localhost:8080
    error: invalid value 'localhost:8080' for '--listen <ADDRESS>': `localhost:8080` needs an IP address: write `127.0.0.1:8080`

    --upstream http://a.test --admin nowhere
    error: invalid value 'nowhere' for '--admin <ADDRESS>': `nowhere` is not `ip:port`, such as `0.0.0.0:8000` or `[::]:8000`

    --upstream http://a.test --rate-limit 0
    error: --rate-limit: plugin 'rate-limiting': must be greater than 0, found `0`

    --upstream http://a.test --rate-limit 5/week
    error: invalid value '5/week' for '--rate-limit <N[/PERIOD]>': `5/week` is not a limit: write a number of requests and, after a slash, second, minute, hour or day, such as `200/minute`

    --upstream http://a.test --retries 40000
    error: --retries: must be between 0 and 32767, found `40000`

    --rate-limit 5
    error: the following required arguments were not provided:
      --upstream <URL>

    --print-config
    error: the following required arguments were not provided:
      --upstream <URL>

    -c x.yaml --upstream http://a.test
    error: the argument '--config <FILE>' cannot be used with '--upstream <URL>'
    ");
}

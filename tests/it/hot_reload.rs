//! Changing the configuration of a running gateway.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{
    Blueprint, Gate, Gateway, Origin, Reply, Request, Stopwatch, dedent, one_service,
    one_service_and, pool, text, wait_for, wait_until,
};

/// How soon a valid change has to be live; the rest is for the test's own polling on a busy machine.
const LIVE: Duration = Duration::from_secs(3);

/// A service with a route for each of these paths.
fn paths(origin: &Origin, paths: &[&str]) -> String {
    let mut yaml = format!("services:\n- name: orders\n  url: {origin}\n  routes:\n");
    for path in paths {
        yaml.push_str(&format!(
            "  - name: route{}\n    paths: [{path}]\n",
            path.replace('/', "-")
        ));
    }
    yaml
}

fn wait_until_live(gateway: &Gateway, path: &str) {
    wait_for(&format!("{path} to be live"), LIVE, || {
        (gateway.get(path).status == 200).then_some(())
    });
}

fn successes(gateway: &Gateway) -> f64 {
    gateway.metric("tollgate_config_reloads_total{result=\"success\"}")
}

fn last_reload_succeeded(gateway: &Gateway) -> bool {
    gateway.metric("tollgate_config_last_reload_successful") > 0.5
}

// Ways a file can change

/// S53
#[test]
fn a_file_replaced_by_rename_is_live_soon() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&paths(&origin, &["/a"]));
    let before = successes(&gateway);

    gateway.replace(&paths(&origin, &["/b"]));

    wait_until_live(&gateway, "/b");
    assert_eq!(gateway.get("/a").status, 404);
    assert!(successes(&gateway) > before && last_reload_succeeded(&gateway));
}

/// S53
#[test]
fn a_file_written_in_place_is_live_soon() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&paths(&origin, &["/a"]));

    gateway.write_in_place(&paths(&origin, &["/b"]));

    wait_until_live(&gateway, "/b");
}

#[test]
fn a_swapped_symlink_is_followed() {
    let origin = Origin::replying("hello");
    let blueprint = Blueprint::new("");
    let folder = blueprint.folder().to_owned();
    fs::write(
        folder.join("one.yaml"),
        blueprint.compose(&paths(&origin, &["/one"])),
    )
    .expect("written");
    fs::write(
        folder.join("two.yaml"),
        blueprint.compose(&paths(&origin, &["/two"])),
    )
    .expect("written");
    symlink("one.yaml", folder.join("gateway.yaml")).expect("a symlink");
    let gateway = blueprint.start_as_it_is();
    assert_eq!(gateway.get("/one").status, 200);

    swap_symlink(&folder, "two.yaml", "gateway.yaml");

    wait_until_live(&gateway, "/two");
}

/// Points the symlink `name` elsewhere in one step, as `ln -sfn` and rename do.
fn swap_symlink(folder: &Path, to: &str, name: &str) {
    symlink(to, folder.join(".next")).expect("a symlink");
    fs::rename(folder.join(".next"), folder.join(name)).expect("a swapped symlink");
}

/// A mounted `ConfigMap`: gateway.yaml → ..data/gateway.yaml, ..data → ..version.
#[test]
fn a_kubernetes_data_folder_swap_is_followed_again_and_again() {
    let origin = Origin::replying("hello");
    let blueprint = Blueprint::new("");
    let folder = blueprint.folder().to_owned();
    let versions = ["/one", "/two", "/three"];
    for path in versions {
        let version = folder.join(format!("..{}", path.trim_start_matches('/')));
        fs::create_dir(&version).expect("a folder");
        fs::write(
            version.join("gateway.yaml"),
            blueprint.compose(&paths(&origin, &[path])),
        )
        .expect("written");
    }
    symlink("..one", folder.join("..data")).expect("a symlink");
    symlink("..data/gateway.yaml", folder.join("gateway.yaml")).expect("a symlink");
    let gateway = blueprint.start_as_it_is();
    assert_eq!(gateway.get("/one").status, 200);

    for (old, new) in [("..one", "/two"), ("..two", "/three")] {
        swap_symlink(
            &folder,
            &format!("..{}", new.trim_start_matches('/')),
            "..data",
        );
        fs::remove_dir_all(folder.join(old)).expect("the old version is removed");
        wait_until_live(&gateway, new);
    }
}

#[test]
fn a_target_of_a_symlink_written_in_place_is_noticed() {
    let origin = Origin::replying("hello");
    let blueprint = Blueprint::new("");
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let real = elsewhere.path().join("real.yaml");
    fs::write(&real, blueprint.compose(&paths(&origin, &["/one"]))).expect("written");
    symlink(&real, blueprint.folder().join("gateway.yaml")).expect("a symlink");
    let gateway = blueprint.start_as_it_is();

    fs::write(&real, gateway.compose(&paths(&origin, &["/two"]))).expect("written");

    wait_until_live(&gateway, "/two");
}

#[test]
fn fragments_that_appear_change_and_vanish_are_followed() {
    let origin = Origin::replying("hello");
    let blueprint = Blueprint::new("conf_d: conf.d");
    let conf_d = blueprint.folder().join("conf.d");
    fs::create_dir(&conf_d).expect("a folder");
    let gateway = blueprint.start(&paths(&origin, &["/main"]));
    let fragment =
        |path: &str| format!("routes:\n- {{ name: extra, paths: [{path}], service: orders }}\n");

    gateway.changing_configuration(|| {
        fs::write(conf_d.join("10-extra.yaml"), fragment("/extra")).expect("written");
    });
    assert_eq!(gateway.get("/extra").status, 200);

    gateway.changing_configuration(|| {
        fs::write(conf_d.join("10-extra.yaml"), fragment("/other")).expect("written");
    });
    assert_eq!(
        (gateway.get("/other").status, gateway.get("/extra").status),
        (200, 404)
    );

    gateway
        .changing_configuration(|| fs::remove_file(conf_d.join("10-extra.yaml")).expect("removed"));
    assert_eq!(
        (gateway.get("/other").status, gateway.get("/main").status),
        (404, 200)
    );
}

#[test]
fn a_conf_d_folder_that_appears_later_is_noticed() {
    let origin = Origin::replying("hello");
    let blueprint = Blueprint::new("conf_d: conf.d");
    let folder = blueprint.folder().to_owned();
    let gateway = blueprint.start(&paths(&origin, &["/main"]));
    let draft = folder.join("draft");
    fs::create_dir(&draft).expect("a folder");
    fs::write(
        draft.join("a.yaml"),
        "routes:\n- { name: late, paths: [/late], service: orders }\n",
    )
    .expect("written");

    gateway.changing_configuration(|| fs::rename(&draft, folder.join("conf.d")).expect("renamed"));

    assert_eq!(gateway.get("/late").status, 200);
}

// Files that must not be applied

/// Writes slowly in place. Every prefix that ends at an entry is valid YAML and lacks the last routes.
#[test]
fn a_half_written_file_is_never_applied() {
    let origin = Origin::replying("hello");
    let all: Vec<String> = (0..30).map(|number| format!("/route-{number}/")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let mut rounds = 0;
    let gateway = Gateway::start(&paths(&origin, &all));
    wait_for(
        "a write without pauses that would end it",
        Duration::from_mins(1),
        || {
            rounds += 1;
            let marker = format!("/round-{rounds}/");
            let text = gateway.compose(&paths(&origin, &[&all[..], &[&marker]].concat()));
            let (longest_pause, lost) = write_slowly(&gateway, &text, all[29]);
            wait_until_live(&gateway, &marker);
            // A machine too busy to write every few milliseconds has written two files, not one: no verdict.
            let judged = longest_pause < Duration::from_millis(90);
            assert!(
                !judged || lost == 0,
                "the last route was gone {lost} times while the file was being written"
            );
            judged.then_some(())
        },
    );
}

/// Rewrites the file piece by piece; yields the longest pause and how often `path` was not served.
fn write_slowly(gateway: &Gateway, text: &str, path: &str) -> (Duration, usize) {
    let mut client = gateway.connect();
    let mut file = fs::File::create(gateway.file()).expect("a truncated file");
    let (mut longest, mut lost) = (Duration::ZERO, 0);
    for piece in text.as_bytes().chunks(text.len() / 25 + 1) {
        let watch = Stopwatch::start();
        Stopwatch::pace(Duration::from_millis(20));
        lost += usize::from(client.send(&Request::get(path)).status != 200);
        file.write_all(piece).expect("a written piece");
        longest = longest.max(watch.elapsed());
    }
    (longest, lost)
}

#[test]
fn a_deleted_file_changes_nothing_and_its_return_is_noticed() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&paths(&origin, &["/a"]));

    fs::remove_file(gateway.file()).expect("removed");
    gateway.sighup();
    gateway.wait_for_log("gateway.yaml");
    assert_eq!(gateway.get("/a").status, 200);

    gateway.replace(&paths(&origin, &["/b"]));
    wait_until_live(&gateway, "/b");
}

#[test]
fn a_replaced_folder_is_followed() {
    let origin = Origin::replying("hello");
    let outer = tempfile::tempdir().expect("a temporary folder");
    let blueprint = Blueprint::new("");
    let (folder, aside) = (outer.path().join("etc"), outer.path().join("old"));
    fs::create_dir(&folder).expect("a folder");
    fs::write(
        folder.join("gateway.yaml"),
        blueprint.compose(&paths(&origin, &["/a"])),
    )
    .expect("written");
    symlink(
        folder.join("gateway.yaml"),
        blueprint.folder().join("gateway.yaml"),
    )
    .expect("a symlink");
    let gateway = blueprint.start_as_it_is();

    fs::rename(&folder, &aside).expect("moved away");
    assert_eq!(gateway.get("/a").status, 200);
    fs::create_dir(&folder).expect("a folder");
    fs::write(
        folder.join("gateway.yaml"),
        gateway.compose(&paths(&origin, &["/b"])),
    )
    .expect("written");

    wait_until_live(&gateway, "/b");
}

#[test]
fn an_emptied_file_is_refused() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&paths(&origin, &["/a"]));

    gateway.refusing_configuration(|| fs::write(gateway.file(), "").expect("truncated"));

    assert_eq!(gateway.get("/a").status, 200);
    assert!(!last_reload_succeeded(&gateway));
}

#[test]
fn an_unreadable_file_changes_nothing() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&paths(&origin, &["/a"]));

    // A folder and not a file without permissions, which root could still read.
    gateway.refusing_configuration(|| {
        fs::remove_file(gateway.file()).expect("a file of ours");
        fs::create_dir(gateway.file()).expect("a folder in its place");
        gateway.sighup();
    });
    assert_eq!(gateway.get("/a").status, 200);
    assert!(!last_reload_succeeded(&gateway));

    fs::remove_dir(gateway.file()).expect("an empty folder");
    gateway.replace(&paths(&origin, &["/b"]));
    wait_until_live(&gateway, "/b");
}

#[test]
fn a_bad_file_keeps_the_old_configuration_and_says_where_it_is_wrong() {
    let origin = Origin::replying("hello");
    let good = paths(&origin, &["/a"]);
    let gateway = Gateway::start(&good);
    let hash = gateway.configuration_hash();
    let bad =
        format!("{good}- name: second\n  url: http://127.0.0.1:1\n  retries: many\n  hots: x\n");

    gateway.refusing_configuration(|| gateway.replace(&bad));

    assert_eq!(
        (gateway.get("/a").status, gateway.configuration_hash()),
        (200, hash)
    );
    assert!(!last_reload_succeeded(&gateway));
    gateway.wait_for_log("gateway.yaml:9:");
    gateway.wait_for_log("services[1].retries");
    gateway.wait_for_log("gateway.yaml:10:3: ");

    gateway.reload(&paths(&origin, &["/b"]));
    assert_eq!(gateway.get("/b").status, 200);
    assert!(last_reload_succeeded(&gateway));
}

#[test]
fn every_kind_of_bad_file_is_refused_whole() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&paths(&origin, &["/a"]));
    for (case, bad) in [
        ("syntax", "services: [\n"),
        (
            "reference",
            "routes:\n- { name: a, paths: [/new], service: nope }\n",
        ),
        (
            "duplicate",
            "services:\n- { name: a, host: a }\n- { name: a, host: b }\n",
        ),
        ("unknown plugin", "plugins:\n- name: no-such-plugin\n"),
        (
            "plugin field",
            "plugins:\n- { name: rate-limiting, config: { minuet: 1 } }\n",
        ),
        ("regex", "routes:\n- { name: a, paths: ['~/('] }\n"),
        ("unknown setting", "gatewayy: {}\n"),
    ] {
        gateway.refusing_configuration(|| gateway.replace(bad));
        assert_eq!(gateway.get("/a").status, 200, "{case}");
    }
}

// Signals

/// A signal asks for a reload by itself, whether or not a change was noticed.
#[test]
fn sighup_reloads() {
    let origin = Origin::replying("hello");
    let mut gateway = Gateway::start(&paths(&origin, &["/a"]));
    let before = successes(&gateway);

    gateway.sighup();

    wait_until("a reload", || successes(&gateway) > before);
    assert!(gateway.is_running());
    assert_eq!(gateway.get("/a").status, 200);
}

#[test]
fn other_signals_are_ignored() {
    let origin = Origin::replying("hello");
    let mut gateway = Gateway::start(&paths(&origin, &["/a"]));
    let mut client = gateway.connect();

    for signal in [
        Signal::SIGPIPE,
        Signal::SIGCHLD,
        Signal::SIGWINCH,
        Signal::SIGURG,
        Signal::SIGUSR1,
    ] {
        gateway.signal(signal);
        assert_eq!(client.send(&Request::get("/a")).status, 200, "{signal}");
    }
    assert!(gateway.is_running());
}

// Under load

const LIMITED: &str = "
    plugins:
    - name: rate-limiting
      config: { year: 1000000, limit_by: ip }
    ";

/// S53: keep-alive clients, a request in flight and a WebSocket all along.
#[test]
fn a_hundred_reloads_under_load_lose_nothing() {
    const CLIENTS: usize = 4;
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| match request.target.as_str() {
        "/held" => Reply::ok("finished").after(&held),
        "/ws" => Reply::websocket(),
        _ => Reply::ok("hello"),
    });
    let version = |number: usize| {
        format!(
            "{}\n- name: other\n  host: other.test\n  tags: [v{number}]\n",
            services(&origin)
        )
    };
    let gateway = Gateway::start_with("keepalive_requests: 1000000", &version(0));
    let mut slow = gateway.connect();
    slow.write(Request::get("/held").bytes()).expect("written");
    origin.wait_until("the request in flight", |requests| requests.len() == 1);
    let (mut socket, _) = gateway.websocket("/ws", &[]).expect("an open socket");

    let (running, served) = (AtomicBool::new(true), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            gateway.concurrently(CLIENTS, |client| {
                // One connection for the whole test: a cut one fails the next request.
                while running.load(Ordering::Relaxed) {
                    assert_eq!(client.send(&Request::get("/")).status, 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let _stop = StopOnDrop(&running);
        for number in 1..=100 {
            gateway.reload(&version(number));
            assert_eq!(
                text(&mut socket, "still here"),
                "still here",
                "reload {number}"
            );
        }
    });
    gate.open();

    assert_eq!(slow.read_response().expect("an answer").text(), "finished");
    assert!(
        served.load(Ordering::Relaxed) >= 100,
        "the clients were busy all along"
    );
    assert!(
        // Now and then Pingora's pool opens one although another is idle; a lost pool would show
        // in hundreds.
        origin.connections() <= 2 * CLIENTS + 2,
        "{} upstream connections",
        origin.connections()
    );
    let last = gateway.get("/");
    let used = 1_000_000
        - last
            .header("X-RateLimit-Remaining-Year")
            .and_then(|n| n.parse::<usize>().ok())
            .expect("a number");
    assert_eq!(
        used,
        served.load(Ordering::Relaxed) + 3,
        "every request is counted once"
    );
}

/// Stops the clients of a test also when it fails, so that their threads end.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// The plugins come first, so that a test can append services.
fn services(origin: &Origin) -> String {
    format!("{}\n{}", dedent(LIMITED), one_service(origin))
}

#[test]
fn the_last_of_a_hundred_quick_rewrites_wins_and_nothing_is_left_over() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&paths(&origin, &["/a"]));
    gateway.reload(&paths(&origin, &["/warm"]));
    let (files, memory) = (gateway.open_files(), gateway.rss_bytes());

    for number in 1..=100 {
        gateway.replace(&paths(&origin, &["/a", &format!("/version-{number}/")]));
    }

    wait_until_live(&gateway, "/version-100/");
    assert_eq!(gateway.get("/version-99/").status, 404);
    wait_until("descriptors to return to level", || {
        gateway.open_files() <= files + 20
    });
    let growth = gateway.rss_bytes().saturating_sub(memory);
    assert!(growth < 32 << 20, "{growth} bytes");
}

#[test]
fn a_request_in_flight_finishes_with_the_configuration_it_began_with() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Reply::ok("old").after(&held));
    let gateway = Gateway::start(&one_service(&origin));
    let mut client = gateway.connect();
    client.write(Request::get("/").bytes()).expect("written");
    origin.wait_until("the request in flight", |requests| requests.len() == 1);

    gateway.reload("services: []\n");
    gate.open();

    assert_eq!(client.read_response().expect("an answer").text(), "old");
    assert_eq!(
        client.send(&Request::get("/")).status,
        404,
        "the same connection, the new configuration"
    );
}

// What survives

fn limited_to(origin: &Origin, limit: u32) -> String {
    let plugin =
        format!("plugins:\n- {{ name: rate-limiting, config: {{ year: {limit}, limit_by: ip }} }}");
    one_service_and(origin, &plugin)
}

fn remaining(gateway: &Gateway) -> (u16, Option<String>) {
    let response = gateway.get("/");
    (
        response.status,
        response
            .header("X-RateLimit-Remaining-Year")
            .map(str::to_owned),
    )
}

#[test]
fn counts_stay_when_something_else_changes() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&limited_to(&origin, 5));
    assert_eq!(remaining(&gateway), (200, Some("4".into())));

    gateway.reload(&limited_to(&origin, 5).replace(
        "name: orders\n    paths",
        "name: orders\n    tags: [x]\n    paths",
    ));

    assert_eq!(remaining(&gateway), (200, Some("3".into())));
}

#[test]
fn counts_stay_when_the_limit_itself_changes() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&limited_to(&origin, 5));
    for left in ["4", "3", "2"] {
        assert_eq!(remaining(&gateway), (200, Some(left.into())));
    }

    gateway.reload(&limited_to(&origin, 4));
    assert_eq!(remaining(&gateway), (200, Some("0".into())));
    assert_eq!(remaining(&gateway), (429, Some("0".into())));

    gateway.reload(&limited_to(&origin, 10));
    assert_eq!(remaining(&gateway), (200, Some("5".into())));
}

fn weighted(a: &Origin, b: &Origin, weight: u32, tag: usize) -> String {
    format!(
        "{}\n  tags: [t{tag}]\n",
        pool(&[(a, weight), (b, weight)]).trim_end()
    )
}

#[test]
fn the_balancers_position_stays_when_something_else_changes() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let other = |number: usize| {
        format!(
            "{}\nconsumers: [{{ username: c{number} }}]\n",
            weighted(&a, &b, 1, 0)
        )
    };
    let gateway = Gateway::start(&other(0));

    for number in 1..=10 {
        assert_eq!(gateway.get("/").status, 200);
        gateway.reload(&other(number));
    }

    assert_eq!((a.count(), b.count()), (5, 5));
}

#[test]
fn the_balancers_position_stays_when_its_weights_change() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let gateway = Gateway::start(&weighted(&a, &b, 1, 0));

    for round in 1..=10 {
        assert_eq!(gateway.get("/").status, 200);
        gateway.reload(&weighted(&a, &b, [1, 2][round % 2], round));
    }

    assert_eq!((a.count(), b.count()), (5, 5));
}

#[test]
fn a_removed_credential_stops_working_and_a_new_one_works() {
    let origin = Origin::replying("hello");
    let with_key = |key: &str| {
        let rest = "plugins:\n- name: key-auth\nconsumers:\n- { username: alice, keyauth_credentials: [{ key: KEY }] }";
        one_service_and(&origin, &rest.replace("KEY", key))
    };
    let gateway = Gateway::start(&with_key("old-key"));
    let status = |key: &str| {
        gateway
            .send(&Request::get("/").header("apikey", key))
            .status
    };
    assert_eq!((status("old-key"), status("new-key")), (200, 401));

    gateway.reload(&with_key("new-key"));

    assert_eq!((status("old-key"), status("new-key")), (401, 200));
}

#[test]
fn targets_that_join_and_leave_are_followed_without_a_failed_request() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let gateway = Gateway::start(&pool(&[(&a, 1)]));
    let visits = |count: usize| {
        (0..count)
            .map(|_| gateway.get("/").text())
            .collect::<Vec<_>>()
    };

    assert_eq!(visits(4), ["a"; 4]);
    gateway.reload(&pool(&[(&a, 1), (&b, 1)]));
    let mut both = visits(4);
    both.sort();
    assert_eq!(both, ["a", "a", "b", "b"]);
    gateway.reload(&pool(&[(&b, 1)]));
    assert_eq!(visits(4), ["b"; 4]);
}

/// Threads are started once.
#[test]
fn a_new_number_of_threads_needs_a_restart_and_the_rest_applies() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&paths(&origin, &["/a"]));
    let moved = gateway
        .compose(&paths(&origin, &["/b"]))
        .replace("threads: 2", "threads: 1");

    gateway.replace_exactly(&moved);

    wait_until_live(&gateway, "/b");
    assert_eq!(gateway.readiness(), Some(200));
    gateway.wait_for_log("restart");
}

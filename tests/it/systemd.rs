//! What systemd is told while the gateway runs, and what it thinks of the unit.

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::{Blueprint, Gateway, Origin, free_port, one_service, wait_for};

const PATIENCE: Duration = Duration::from_secs(15);
/// In tenths, as `systemd-analyze` takes it.
const EXPOSURE_MAX: &str = "20";

/// Has its mistake in line 3.
const BROKEN: &str = "services:\n- host: a\n  retries: many\n";

/// The other end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    address: String,
    _folder: Option<TempDir>,
}

impl Manager {
    fn at_a_path() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("notify");
        Self::listening(
            UnixDatagram::bind(&path).expect("a path of its own"),
            path.to_string_lossy().into_owned(),
            Some(folder),
        )
    }

    fn at_an_abstract_name() -> Self {
        // A port that no other test gets makes the name unique on the machine.
        let name = format!("tollgate-test-{}", free_port());
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        Self::listening(
            UnixDatagram::bind_addr(&address).expect("a name of its own"),
            format!("@{name}"),
            None,
        )
    }

    fn listening(socket: UnixDatagram, address: String, folder: Option<TempDir>) -> Self {
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout above zero");
        Self {
            socket,
            address,
            _folder: folder,
        }
    }

    fn blueprint(&self) -> Blueprint {
        Blueprint::new("").with_variable("NOTIFY_SOCKET", self.address.as_str())
    }

    fn start(&self, yaml: &str) -> Gateway {
        let gateway = self.blueprint().start(yaml);
        assert!(self.hear().starts_with("READY=1\n"));
        gateway
    }

    /// The next message.
    #[track_caller]
    fn hear(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a message in time");
        String::from_utf8_lossy(buffer.split_at(length).0).into_owned()
    }
}

#[test]
fn ready_is_told_when_requests_are_answered() {
    let origin = Origin::replying("hello");
    for manager in [Manager::at_a_path(), Manager::at_an_abstract_name()] {
        let gateway = manager.blueprint().spawn_with(&one_service(&origin));

        let told = manager.hear();

        assert_eq!(gateway.get("/").text(), "hello");
        assert_eq!(gateway.readiness(), Some(200));
        let status = format!(
            "READY=1\nSTATUS=serving 1 routes, configuration {}\n",
            gateway.configuration_hash()
        );
        assert_eq!(told, status);
    }
}

#[test]
fn a_start_that_fails_tells_why_and_never_that_it_is_ready() {
    let manager = Manager::at_a_path();
    let mut gateway = manager.blueprint().spawn_with(BROKEN);

    assert_eq!(gateway.wait_exit(PATIENCE).code(), Some(1));

    let told = manager.hear();
    assert!(
        told.starts_with("STATUS=the configuration is not usable; "),
        "{told}"
    );
    assert!(told.contains("gateway.yaml:3:12: error["), "{told}");
    manager.socket.set_nonblocking(true).expect("a socket");
    assert!(manager.socket.recv(&mut [0; 64]).is_err());
}

#[test]
fn a_reload_is_told_with_its_beginning_and_its_end() {
    let origin = Origin::replying("hello");
    let manager = Manager::at_a_path();
    let gateway = manager.start(&one_service(&origin));

    gateway.sighup();

    let told = manager.hear();
    assert!(told.starts_with("RELOADING=1\n"), "{told}");
    assert!(told.contains("\nMONOTONIC_USEC="), "{told}");
    let told = manager.hear();
    assert!(told.starts_with("READY=1\nSTATUS=serving 1 "), "{told}");
    assert!(told.contains(&gateway.configuration_hash()), "{told}");
}

#[test]
fn refused_files_are_told_with_the_mistake_until_they_are_right_again() {
    let origin = Origin::replying("hello");
    let manager = Manager::at_a_path();
    let gateway = manager.start(&one_service(&origin));

    gateway.replace(BROKEN);

    assert!(manager.hear().starts_with("RELOADING=1\n"));
    let told = manager.hear();
    assert!(told.starts_with("READY=1\nSTATUS=serving 1 "), "{told}");
    assert!(told.contains("; the files were refused: "), "{told}");
    assert!(told.contains("gateway.yaml:3:12: error["), "{told}");
    assert_eq!(gateway.get("/").text(), "hello");

    gateway.replace(&one_service(&origin));

    assert!(manager.hear().starts_with("RELOADING=1\n"));
    assert!(!manager.hear().contains("refused"));
}

#[test]
fn stopping_is_told_before_the_end() {
    let origin = Origin::replying("hello");
    let manager = Manager::at_a_path();
    let mut gateway = manager.start(&one_service(&origin));

    gateway.sigterm();

    let told = manager.hear();
    assert!(told.starts_with("STOPPING=1\nSTATUS=draining 0 "), "{told}");
    assert_eq!(gateway.wait_exit(PATIENCE).code(), Some(0));
}

#[test]
fn signs_of_life_come_when_they_are_asked_for() {
    let origin = Origin::replying("hello");
    let manager = Manager::at_a_path();
    let _gateway = manager
        .blueprint()
        .with_variable("WATCHDOG_USEC", "300000")
        .spawn_with(&one_service(&origin));

    for _ in 0..3 {
        wait_for("a sign of life", PATIENCE, || {
            (manager.hear() == "WATCHDOG=1\n").then_some(())
        });
    }
}

#[test]
fn a_socket_that_nobody_reads_keeps_nobody_from_serving() {
    let origin = Origin::replying("hello");
    let gateway = Blueprint::new("")
        .with_variable("NOTIFY_SOCKET", "/nowhere/at/all")
        .start(&one_service(&origin));

    assert_eq!(gateway.get("/").text(), "hello");
    gateway.wait_for_log("the service manager cannot be told");
}

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/tollgate.service")
}

fn systemd_analyze(arguments: &[&str], unit: &Path) -> Output {
    Command::new("systemd-analyze")
        .args(arguments)
        .arg(unit)
        .output()
        .expect("systemd-analyze, which `make test-tools` installs")
}

#[track_caller]
fn assert_success(output: &Output) {
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = folder.path().join("tollgate.service");
    let text = fs::read_to_string(unit()).expect("the unit");
    // What is verified includes that the program exists.
    let here = text.replace("/usr/bin/tollgate", env!("CARGO_BIN_EXE_tollgate"));
    fs::write(&copy, here).expect("a file in a temporary folder");

    let verified = systemd_analyze(&["verify", "--man=no"], &copy);

    assert_success(&verified);
    assert_eq!(String::from_utf8_lossy(&verified.stderr), "");
}

#[test]
fn systemd_finds_nothing_wrong_with_the_sockets() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let service = fs::read_to_string(unit()).expect("the unit");
    let service = service.replace("/usr/bin/tollgate", env!("CARGO_BIN_EXE_tollgate"));
    fs::write(folder.path().join("tollgate.service"), service).expect("written");
    let optional = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/optional/tollgate.socket");
    let copy = folder.path().join("tollgate.socket");
    fs::copy(optional, &copy).expect("copied");

    let verified = systemd_analyze(&["verify", "--man=no"], &copy);

    assert_success(&verified);
    assert_eq!(String::from_utf8_lossy(&verified.stderr), "");
}

#[test]
fn the_unit_gives_the_process_little_to_abuse() {
    let threshold = format!("--threshold={EXPOSURE_MAX}");

    assert_success(&systemd_analyze(
        &["security", "--offline=true", "--no-pager", &threshold],
        &unit(),
    ));
}

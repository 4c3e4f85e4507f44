//! The product under test: one `tollgate run` process with its configuration in a folder of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tungstenite::handshake::client::Response as Handshake;

use super::client::{Client, Request, Response};
use super::metrics::Metrics;
use super::ports::free_port;
use super::tls::Tls;
use super::wait::{PATIENCE, wait_for, wait_until};
use super::websocket::{self, Socket};

/// A gateway before it starts: its folder, its ports and its `gateway:` settings.
pub(crate) struct Blueprint {
    folder: TempDir,
    file: PathBuf,
    port: u16,
    admin_port: u16,
    tls_port: Option<u16>,
    http2: bool,
    settings: String,
    listen_flags: &'static str,
    open_files_max: Option<u32>,
    handed_over: Option<TcpListener>,
    environment: Vec<(&'static str, String)>,
}

impl Blueprint {
    /// `settings` are lines for `gateway:` beside `listen`, `admin` and `threads`, such as `trusted_ips: 10.0.0.0/8`.
    pub(crate) fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("gateway.yaml");
        Self {
            folder,
            file,
            port: free_port(),
            admin_port: free_port(),
            tls_port: None,
            http2: false,
            settings: dedent(settings),
            listen_flags: "",
            open_files_max: None,
            handed_over: None,
            environment: Vec::new(),
        }
    }

    /// Lets clients speak HTTP/2 on every port.
    pub(crate) fn with_http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Listens for TLS as well, on a port of its own.
    pub(crate) fn with_tls(mut self) -> Self {
        self.tls_port = Some(free_port());
        self
    }

    /// Gives the process a variable.
    pub(crate) fn with_variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Listens where this socket does, and hands it over as systemd does.
    pub(crate) fn with_socket(mut self, socket: &TcpListener) -> Self {
        self.port = socket.local_addr().expect("an address").port();
        self.handed_over = Some(socket.try_clone().expect("a second handle"));
        self
    }

    /// Flags behind the address to listen on, such as `proxy_protocol`.
    pub(crate) fn with_listen_flags(mut self, flags: &'static str) -> Self {
        self.listen_flags = flags;
        self
    }

    /// Gives the process no more descriptors than this.
    pub(crate) fn with_open_files_max(mut self, limit: u32) -> Self {
        self.open_files_max = Some(limit);
        self
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn admin_port(&self) -> u16 {
        self.admin_port
    }

    /// The whole document: what a test wrote, and after it what every gateway here needs.
    /// Lines keep their numbers.
    pub(crate) fn compose(&self, yaml: &str) -> String {
        let mut text = dedent(yaml);
        text.push('\n');
        if !text.contains("_format_version") {
            text.push_str("_format_version: \"3.0\"\n");
        }
        let (port, admin) = (self.port, self.admin_port);
        let secure = self.tls_port;
        let http2 = if self.http2 { " http2" } else { "" };
        let secure =
            secure.map_or_else(String::new, |port| format!(", 127.0.0.1:{port} ssl{http2}"));
        text.push_str(&format!(
            "gateway:\n  listen: 127.0.0.1:{port}{}{http2}{secure}\n  admin: 127.0.0.1:{admin}\n",
            self.listen_flags
        ));
        if !self.settings.contains("threads:") {
            text.push_str("  threads: 2\n");
        }
        for line in self.settings.lines() {
            text.push_str(&format!("  {line}\n"));
        }
        text
    }

    /// Writes the document and starts.
    pub(crate) fn start(self, yaml: &str) -> Gateway {
        self.write(yaml);
        self.start_as_it_is()
    }

    /// Writes the document and starts the process, without waiting for anything.
    pub(crate) fn spawn_with(self, yaml: &str) -> Gateway {
        self.write(yaml);
        self.spawn_as_it_is()
    }

    fn write(&self, yaml: &str) {
        fs::write(&self.file, self.compose(yaml)).expect("the configuration is written");
    }

    /// Starts with what the test has put into the folder; returns once the gateway is ready.
    pub(crate) fn start_as_it_is(self) -> Gateway {
        let file = self.file.display().to_string();
        self.start_command(&["--config", &file])
    }

    fn spawn_as_it_is(self) -> Gateway {
        let file = self.file.display().to_string();
        self.spawn(&["--config", &file])
    }

    /// Starts with flags and no file; those for its ports are added.
    pub(crate) fn start_without_a_file(self, flags: &[&str]) -> Gateway {
        let listen = format!("127.0.0.1:{}", self.port);
        let admin = format!("127.0.0.1:{}", self.admin_port);
        let addresses = ["--listen", &listen, "--admin", &admin];
        self.start_command(&[&addresses, flags].concat())
    }

    /// Runs `tollgate run` with these arguments, which lead to this blueprint's ports; returns once it is ready.
    pub(crate) fn start_command(self, arguments: &[&str]) -> Gateway {
        let mut gateway = self.spawn(arguments);
        let probe = || {
            let exited = gateway
                .child
                .try_wait()
                .expect("a child's state can be asked for");
            assert!(
                exited.is_none(),
                "the gateway exited: {exited:?}\n{}",
                gateway.log()
            );
            (gateway.readiness() == Some(200)).then_some(())
        };
        wait_for("the gateway to be ready", PATIENCE, probe);
        gateway
    }

    fn spawn(self, arguments: &[&str]) -> Gateway {
        let binary = env!("CARGO_BIN_EXE_tollgate");
        let through_a_shell = |script: &str| {
            let mut shell = Command::new("sh");
            let script = format!("{script}; exec \"$0\" \"$@\"");
            shell.args(["-c", &script, binary]);
            shell
        };
        let mut command = match (self.open_files_max, &self.handed_over) {
            (_, Some(_)) => {
                through_a_shell("exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$")
            }
            (Some(limit), None) => through_a_shell(&format!("ulimit -n {limit}")),
            (None, None) => Command::new(binary),
        };
        let input = match &self.handed_over {
            Some(socket) => OwnedFd::from(socket.try_clone().expect("a handle")).into(),
            None => Stdio::null(),
        };
        let mut child = command
            .arg("run")
            .args(arguments)
            .current_dir(self.folder())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = capture(child.stderr.take().expect("a piped stderr"));
        let access_log = capture(child.stdout.take().expect("a piped stdout"));
        Gateway {
            blueprint: self,
            child,
            log,
            access_log,
        }
    }
}

/// A running gateway; killed when dropped. After a failed test its log is printed.
pub(crate) struct Gateway {
    blueprint: Blueprint,
    child: Child,
    log: Arc<Mutex<String>>,
    access_log: Arc<Mutex<String>>,
}

impl Gateway {
    /// Starts with this document; `gateway:` and `_format_version` are added.
    pub(crate) fn start(yaml: &str) -> Self {
        Blueprint::new("").start(yaml)
    }

    /// Starts with TLS on a second port.
    pub(crate) fn start_with_tls(yaml: &str) -> Self {
        Blueprint::new("").with_tls().start(yaml)
    }

    /// Starts with more `gateway:` settings and HTTP/2.
    pub(crate) fn start_with_http2(settings: &str, yaml: &str) -> Self {
        Blueprint::new(settings).with_http2().start(yaml)
    }

    /// Starts with more `gateway:` settings.
    pub(crate) fn start_with(settings: &str, yaml: &str) -> Self {
        Blueprint::new(settings).start(yaml)
    }

    pub(crate) fn port(&self) -> u16 {
        self.blueprint.port
    }

    pub(crate) fn admin_port(&self) -> u16 {
        self.blueprint.admin_port
    }

    /// The port of a blueprint `with_tls`.
    #[track_caller]
    pub(crate) fn tls_port(&self) -> u16 {
        self.blueprint.tls_port.expect("a gateway with TLS")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.blueprint.folder()
    }

    pub(crate) fn file(&self) -> &Path {
        &self.blueprint.file
    }

    pub(crate) fn compose(&self, yaml: &str) -> String {
        self.blueprint.compose(yaml)
    }

    // Requests

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.port())
    }

    /// Connects to the port with TLS; `Err` says why the handshake failed.
    #[track_caller]
    pub(crate) fn secure(&self, tls: &Tls) -> Result<Client, String> {
        Client::secure(self.tls_port(), tls)
    }

    /// Sends a request on a connection of its own.
    #[track_caller]
    pub(crate) fn send(&self, request: &Request) -> Response {
        self.connect().send(request)
    }

    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Response {
        self.send(&Request::get(target))
    }

    /// Runs `visit` in `threads` threads at once, each with a connection of its own, and collects what they yield.
    pub(crate) fn concurrently<T: Send>(
        &self,
        threads: usize,
        visit: impl Fn(&mut Client) -> T + Sync,
    ) -> Vec<T> {
        thread::scope(|scope| {
            let visitors: Vec<_> = (0..threads)
                .map(|_| scope.spawn(|| visit(&mut self.connect())))
                .collect();
            visitors
                .into_iter()
                .map(|visitor| visitor.join().expect("a visitor that did not fail"))
                .collect()
        })
    }

    /// Opens a WebSocket; `Err` carries the status of a refusal.
    pub(crate) fn websocket(
        &self,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Result<(Socket, Handshake), u16> {
        websocket::open(self.port(), path, fields)
    }

    // The admin listener

    #[track_caller]
    pub(crate) fn admin(&self, target: &str) -> Response {
        Client::connect(self.admin_port()).send(&Request::get(target))
    }

    /// The status of `/status/ready`; `None` if nobody listens.
    pub(crate) fn readiness(&self) -> Option<u16> {
        let mut client = Client::try_connect(self.admin_port()).ok()?;
        client
            .try_send(&Request::get("/status/ready"))
            .ok()
            .map(|response| response.status)
    }

    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::parse(&self.admin("/metrics").text())
    }

    /// The sum of the series that this selector names, 0 if there is none.
    pub(crate) fn metric(&self, selector: &str) -> f64 {
        self.metrics().sum(selector)
    }

    pub(crate) fn configuration_hash(&self) -> String {
        let status = self.admin("/status").json();
        status["configuration_hash"]
            .as_str()
            .expect("a configuration hash")
            .to_owned()
    }

    // Configuration

    /// Replaces the document by rename and waits until the new one is live. It must differ in content.
    #[track_caller]
    pub(crate) fn reload(&self, yaml: &str) {
        self.changing_configuration(|| self.replace(yaml));
    }

    /// Does something to the configuration and waits until another one is live.
    #[track_caller]
    pub(crate) fn changing_configuration(&self, change: impl FnOnce()) {
        let before = self.configuration_hash();
        change();
        wait_until("the new configuration", || {
            self.configuration_hash() != before
        });
    }

    /// Does something to the configuration and waits until it was refused.
    #[track_caller]
    pub(crate) fn refusing_configuration(&self, change: impl FnOnce()) {
        let failures = || self.metric("tollgate_config_reloads_total{result=\"failure\"}");
        let before = failures();
        change();
        wait_until("the refusal of a configuration", || failures() > before);
    }

    /// Replaces the document by rename.
    pub(crate) fn replace(&self, yaml: &str) {
        self.replace_exactly(&self.compose(yaml));
    }

    /// Replaces the file by rename, with nothing added.
    pub(crate) fn replace_exactly(&self, text: &str) {
        let draft = self.folder().join(".gateway.yaml.draft");
        fs::write(&draft, text).expect("the draft is written");
        fs::rename(&draft, self.file()).expect("the draft replaces the file");
    }

    /// Overwrites the document in place.
    pub(crate) fn write_in_place(&self, yaml: &str) {
        fs::write(self.file(), self.compose(yaml)).expect("the configuration is written");
    }

    // The process

    /// What was written to stderr so far.
    pub(crate) fn log(&self) -> String {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What was written to stdout so far: the access log, unless configured elsewhere.
    pub(crate) fn access_log(&self) -> String {
        self.access_log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        wait_until(&format!("`{text}` in the log"), || {
            self.log().contains(text)
        });
    }

    #[track_caller]
    pub(crate) fn wait_for_access_log(&self, text: &str) {
        wait_until(&format!("`{text}` in the access log"), || {
            self.access_log().contains(text)
        });
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id is a positive i32");
        kill(Pid::from_raw(pid), signal).expect("a signal to our own child");
    }

    pub(crate) fn sigterm(&self) {
        self.signal(Signal::SIGTERM);
    }

    pub(crate) fn sighup(&self) {
        self.signal(Signal::SIGHUP);
    }

    /// Waits until the process has ended.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        let child = &mut self.child;
        wait_for("the gateway to exit", deadline, || {
            child.try_wait().expect("a child's state can be asked for")
        })
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child's state can be asked for")
            .is_none()
    }

    /// Resident memory.
    pub(crate) fn rss_bytes(&self) -> u64 {
        let status = fs::read_to_string(self.proc("status")).expect("/proc of a running child");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a VmRSS line");
        let kilobytes = line
            .split_whitespace()
            .next()
            .and_then(|number| number.parse::<u64>().ok());
        kilobytes.expect("VmRSS is a number of kB") * 1024
    }

    /// Open file descriptors.
    pub(crate) fn open_files(&self) -> usize {
        fs::read_dir(self.proc("fd"))
            .expect("/proc of a running child")
            .count()
    }

    fn proc(&self, entry: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{entry}", self.child.id()))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            print_log(&self.log());
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the log of the gateway explains a failed test"
)]
fn print_log(log: &str) {
    eprintln!("--- the gateway's log\n{log}---");
}

/// Collects a stream's lines for as long as the process lives, so that it never blocks on a full pipe.
fn capture(stream: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let captured = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&captured);
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(count) if count > 0) {
            sink.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    captured
}

/// Removes the common indentation, so that documents can be written in line with a test's code.
pub(crate) fn dedent(text: &str) -> String {
    let blank = |line: &&str| line.trim().is_empty();
    let indents = text
        .lines()
        .filter(|line| !blank(line))
        .map(|line| line.len() - line.trim_start().len());
    let indent = indents.min().unwrap_or(0);
    let lines: Vec<&str> = text
        .lines()
        .skip_while(blank)
        .map(|line| line.get(indent..).unwrap_or_default())
        .collect();
    lines.join("\n").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_composed_without_moving_their_lines() {
        let blueprint = Blueprint::new("client_max_body_size: 1k");

        let text = blueprint.compose("\n    services:\n    - name: a\n");

        assert!(
            text.starts_with("services:\n- name: a\n_format_version: \"3.0\"\ngateway:\n"),
            "{text}"
        );
        assert!(
            text.ends_with("  threads: 2\n  client_max_body_size: 1k\n"),
            "{text}"
        );
    }
}

//! A proxy under measurement: a process on a core of its own.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    time::{ClockId, clock_getcpuclockid},
    unistd::Pid,
};

/// The core of the contenders.
pub(crate) const PROXY_CORE: usize = 0;
/// The core of clients and origin.
pub(crate) const LOAD_CORE: usize = 1;

/// A running proxy. It ends with this value.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) address: SocketAddr,
    process: Child,
}

impl Contender {
    /// Starts `command`, which will listen on `address`, and waits until it does.
    pub(crate) fn start(mut command: Command, address: SocketAddr) -> Self {
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a contender starts");
        let mut contender = Self { address, process };
        let deadline = Instant::now() + Duration::from_mins(2);
        while TcpStream::connect(address).is_err() {
            let ended = contender.process.try_wait().expect("a child");
            assert!(ended.is_none(), "{command:?} ended: {ended:?}");
            assert!(Instant::now() < deadline, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        contender
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).expect("a process id"))
    }

    /// Processor time that the process has used, all threads together.
    pub(crate) fn cpu(&self) -> Duration {
        let clock: ClockId = clock_getcpuclockid(self.pid()).expect("the process runs");
        Duration::from(clock.now().expect("a clock"))
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> usize {
        let pages = fs::read_to_string(format!("/proc/{}/statm", self.process.id()))
            .expect("the process runs")
            .split(' ')
            .nth(1)
            .and_then(|pages| pages.parse::<usize>().ok())
            .expect("a number of pages");
        pages * 4096
    }

    /// Ends the process in its own way (Pingora takes minutes for any other signal) and waits for it.
    pub(crate) fn stop(mut self) {
        kill(self.pid(), Signal::SIGINT).expect("the process runs");
        self.process.wait().expect("a child");
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A command on the core of the contenders.
pub(crate) fn on_proxy_core(program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(PROXY_CORE.to_string()).arg(program);
    command
}

/// The same under callgrind, which writes what it counted to `out` at the end.
pub(crate) fn under_callgrind(program: &Path, out: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program);
    command
}

/// The instructions that callgrind counted into `out`.
pub(crate) fn instructions(out: &Path) -> u64 {
    let counted = fs::read_to_string(out).expect("callgrind wrote what it counted");
    counted
        .lines()
        .find_map(|line| {
            line.strip_prefix("summary: ")
                .or_else(|| line.strip_prefix("totals: "))
        })
        .and_then(|total| total.trim().parse().ok())
        .expect("callgrind counts instructions")
}

/// The gateway that was built last.
pub(crate) fn gateway() -> PathBuf {
    beside("../tollgate")
}

/// The bare proxy.
pub(crate) fn bare_pingora() -> PathBuf {
    beside("bare_pingora")
}

/// A program by its place from where this one is, `target/release/examples`.
fn beside(path: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a program has a path");
    let program = own.with_file_name(path);
    assert!(
        program.exists(),
        "{} is missing: run `make bench`",
        program.display()
    );
    program
}

/// An address that nobody listens on.
pub(crate) fn free_address() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("an address")
}

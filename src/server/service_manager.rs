//! Tells systemd, or whoever set `NOTIFY_SOCKET`, how the gateway is: ready, reloading, stopping,
//! alive. Without that variable nothing is sent. Decides nothing by itself.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::runtime::Handle;
use tracing::{error, warn};

/// How long a full socket is waited for.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// What is told of an error, in characters; the log has all of it.
const STATUS_MAX: usize = 400;
/// How many signs of life are sent in the time that the service manager allows without one.
const SIGNS_OF_LIFE: u32 = 3;
/// What the runtime has to wait before it answers the watchdog, so that its timers must work too.
const TURN: Duration = Duration::from_millis(1);

/// The service manager that started this process, if one did.
#[derive(Debug)]
pub(super) struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// The longest silence before the service manager takes the process for dead.
    silence_max: Option<Duration>,
}

impl ServiceManager {
    /// Finds the service manager in the environment.
    pub(super) fn from_environment() -> Self {
        let address = std::env::var_os("NOTIFY_SOCKET");
        Self::new(address.as_deref(), sd_notify::watchdog_enabled())
    }

    /// `address` is a path, or an abstract name after `@`.
    fn new(address: Option<&OsStr>, silence_max: Option<Duration>) -> Self {
        let socket = address.and_then(|address| {
            open(address)
                .inspect_err(|error| {
                    warn!(%error, "NOTIFY_SOCKET is not usable: the service manager is told nothing");
                })
                .ok()
        });
        Self {
            silence_max: silence_max.filter(|_| socket.is_some()),
            socket,
        }
    }

    /// The gateway answers requests with what `status` describes.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// The configuration is loaded again; `ready` ends it.
    pub(super) fn reloading(&self) {
        let mut states = vec![
            NotifyState::Reloading,
            NotifyState::Status("loading the configuration"),
        ];
        states.extend(NotifyState::monotonic_usec_now().ok());
        self.tell(&states);
    }

    /// The gateway takes no more requests.
    pub(super) fn stopping(&self, open_connections: usize) {
        let status = format!("draining {open_connections} connections");
        self.tell(&[NotifyState::Stopping, NotifyState::Status(&status)]);
    }

    /// The gateway does not start.
    pub(super) fn failed(&self, reason: &str) {
        self.tell(&[NotifyState::Status(&one_line(reason))]);
    }

    /// Gives signs of life for as long as `runtime` makes progress, if they are asked for.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn watch_over(self: &Arc<Self>, runtime: &Handle) -> io::Result<()> {
        let Some(silence_max) = self.silence_max else {
            return Ok(());
        };
        let (manager, runtime) = (Arc::clone(self), runtime.clone());
        thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || manager.give_signs_of_life(&runtime, silence_max))?;
        Ok(())
    }

    fn give_signs_of_life(&self, runtime: &Handle, silence_max: Duration) {
        loop {
            let (answer, answered) = mpsc::channel();
            runtime.spawn(async move {
                tokio::time::sleep(TURN).await;
                // Who asked may have given up waiting.
                let _ = answer.send(());
            });
            match answered.recv_timeout(silence_max) {
                Ok(()) => {
                    self.tell(&[NotifyState::Watchdog]);
                    thread::sleep(silence_max / SIGNS_OF_LIFE);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    error!(waited = ?silence_max, "the runtime makes no progress");
                }
                // The runtime is gone, and the process with it.
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some((socket, address)) = &self.socket else {
            return;
        };
        let mut message = String::new();
        for state in states {
            message.push_str(&state.to_string());
            message.push('\n');
        }
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            warn!(%error, "the service manager cannot be told");
        }
    }
}

/// The crate for the messages would wait for a full socket without end, and knows no abstract names.
fn open(address: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok((socket, address))
}

/// A status is one line of bounded length.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join("; ").chars().take(STATUS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    /// Far longer than anything below takes.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn listening(name: &str) -> UnixDatagram {
        let address = SocketAddr::from_abstract_name(name).expect("a short name");
        let socket = UnixDatagram::bind_addr(&address).expect("a name of its own");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout above zero");
        socket
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer).expect("a message in time");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn messages_of_many_lines_become_one_line_of_bounded_length() {
        assert_eq!(
            one_line("the file\n  a.yaml:1:2: é\n"),
            "the file; a.yaml:1:2: é"
        );
        assert_eq!(one_line(&"é".repeat(1000)).chars().count(), STATUS_MAX);
    }

    #[test]
    fn a_reload_tells_when_it_began_and_a_failure_only_its_reason() {
        let name = format!("tollgate-reload-{}", std::process::id());
        let socket = listening(&name);
        let manager = ServiceManager::new(Some(OsStr::new(&format!("@{name}"))), None);

        manager.reloading();
        manager.failed("no\nway");

        let reloading = heard(&socket);
        assert!(reloading.starts_with("RELOADING=1\nSTATUS="), "{reloading}");
        assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
        assert_eq!(heard(&socket), "STATUS=no; way\n");
    }

    #[test]
    fn a_stuck_runtime_gives_no_sign_of_life_until_it_runs_again() {
        let name = format!("tollgate-stuck-{}", std::process::id());
        let socket = listening(&name);
        let manager = Arc::new(ServiceManager::new(
            Some(OsStr::new(&format!("@{name}"))),
            Some(Duration::from_millis(50)),
        ));
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .expect("a runtime");
        let (release, held) = mpsc::channel::<()>();
        let (take, taken) = mpsc::channel();
        runtime.spawn(async move {
            take.send(()).expect("the test waits");
            // Blocks the only worker until the test lets it go.
            let _ = held.recv();
        });
        taken.recv().expect("the worker is taken");

        manager.watch_over(runtime.handle()).expect("a thread");
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .expect("a timeout above zero");
        let silence = socket.recv(&mut [0; 64]);
        assert!(silence.is_err(), "a stuck runtime looked alive");

        drop(release);
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout above zero");
        assert_eq!(heard(&socket), "WATCHDOG=1\n");
    }

    #[test]
    fn an_address_that_is_no_socket_is_left_alone() {
        let too_long = format!("/{}", "x".repeat(200));
        for address in [Some(too_long.as_str()), None] {
            let manager = ServiceManager::new(address.map(OsStr::new), Some(PATIENCE));
            assert!(manager.silence_max.is_none());
            manager.ready("serving");
        }
        let nobody = ServiceManager::new(Some(OsStr::new("/nowhere/at/all")), None);
        nobody.stopping(0);
    }
}

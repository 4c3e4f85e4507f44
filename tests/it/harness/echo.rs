//! An origin without any protocol: it sends back what it gets, preceded by its name.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::ports::free_port;

/// Greets every connection with its name and a line break, echoes, and says `bye` when the client has nothing more to
/// say. It ends with the test process.
pub(crate) struct EchoOrigin {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl EchoOrigin {
    pub(crate) fn start(name: &'static str) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    let mut buffer = [0; 16 * 1024];
                    if (&stream).write_all(format!("{name}\n").as_bytes()).is_err() {
                        return;
                    }
                    while let Ok(count @ 1..) = (&stream).read(&mut buffer) {
                        if (&stream).write_all(&buffer[..count]).is_err() {
                            return;
                        }
                    }
                    let _ = (&stream).write_all(b"bye");
                    let _ = stream.shutdown(Shutdown::Write);
                });
            }
        });
        Self { port, connections }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many connections came so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

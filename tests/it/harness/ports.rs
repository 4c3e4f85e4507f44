//! One allocator of loopback ports for all tests of all processes on this machine.
//! Ports lie below 32768, where the kernel takes the source ports of outgoing connections from.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use socket2::{Domain, Socket, Type};

use super::wait::fail;

const FIRST: u16 = 12_000;
const LAST: u16 = 31_999;

struct Allocator {
    next: u16,
    /// A lock is held until this process ends: the kernel releases it even after a crash.
    locks: Vec<File>,
}

static ALLOCATOR: Mutex<Option<Allocator>> = Mutex::new(None);

/// A loopback port that nobody listens on and that no other test gets.
pub(crate) fn free_port() -> u16 {
    let mut guard = ALLOCATOR.lock().unwrap_or_else(PoisonError::into_inner);
    let allocator = guard.get_or_insert_with(Allocator::new);
    for _ in FIRST..=LAST {
        let port = allocator.advance();
        if allocator.claim(port) {
            return port;
        }
    }
    fail(&format!("every port between {FIRST} and {LAST} is taken"))
}

impl Allocator {
    /// Processes start at different places, so that they seldom ask for the same lock.
    fn new() -> Self {
        let span = u32::from(LAST - FIRST);
        let offset = std::process::id().wrapping_mul(997) % span;
        let offset = u16::try_from(offset).expect("an offset within the span of ports");
        Self {
            next: FIRST + offset,
            locks: Vec::new(),
        }
    }

    fn advance(&mut self) -> u16 {
        let port = self.next;
        self.next = if port == LAST { FIRST } else { port + 1 };
        port
    }

    fn claim(&mut self, port: u16) -> bool {
        let folder = std::env::temp_dir().join("tollgate-test-ports");
        fs::create_dir_all(&folder).expect("a folder for port locks");
        let Ok(lock) = File::create(folder.join(port.to_string())) else {
            return false;
        };
        let free = lock.try_lock().is_ok() && nobody_listens(port);
        if free {
            self.locks.push(lock);
        }
        free
    }
}

/// Binds without listening: a process that is forked meanwhile keeps the socket for a moment, and
/// a listening one would be in the way of whoever gets the port.
fn nobody_listens(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    Socket::new(Domain::IPV4, Type::STREAM, None).is_ok_and(|socket| {
        socket.set_reuse_address(true).is_ok() && socket.bind(&address.into()).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_port_is_handed_out_twice() {
        let ports: Vec<u16> = (0..50).map(|_| free_port()).collect();

        let distinct: HashSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), ports.len());
        assert!(ports.iter().all(|port| (FIRST..=LAST).contains(port)));
    }
}

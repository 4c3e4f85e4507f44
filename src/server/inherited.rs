//! Listening sockets that whoever started this process holds open, such as systemd for a `.socket`
//! unit: they outlive it, so that a restart refuses nobody. Knows no settings.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use listenfd::ListenFd;
use socket2::SockRef;
use tracing::warn;

/// The sockets that were handed over. They stay open as long as the process, since whoever handed
/// them over does not open them a second time.
#[derive(Debug, Default)]
pub(super) struct Inherited(Vec<(SocketAddr, TcpListener)>);

impl Inherited {
    /// Takes what `LISTEN_FDS` announces. Anything else than listening TCP sockets is not used.
    pub(super) fn from_environment() -> Self {
        let mut announced = ListenFd::from_env();
        let sockets = (0..announced.len()).filter_map(|place| {
            let taken = announced
                .take_tcp_listener(place)
                .and_then(|socket| adopt(socket.ok_or(io::ErrorKind::NotFound)?));
            taken
                .inspect_err(
                    |error| warn!(place, %error, "a socket that was handed over is not used"),
                )
                .ok()
        });
        Self(sockets.collect())
    }

    /// A handle of the socket that listens on `address`, if one was handed over.
    ///
    /// # Errors
    /// When no descriptor is left for the handle.
    pub(super) fn find(&self, address: SocketAddr) -> Option<io::Result<TcpListener>> {
        let (_, socket) = self
            .0
            .iter()
            .find(|(listens_on, _)| *listens_on == address)?;
        Some(socket.try_clone())
    }

    /// The addresses that were handed over.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().map(|(address, _)| *address)
    }
}

/// Readies a socket that was handed over, with the address that it listens on.
fn adopt(socket: TcpListener) -> io::Result<(SocketAddr, TcpListener)> {
    if !SockRef::from(&socket).is_listener()? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it does not listen",
        ));
    }
    socket.set_nonblocking(true)?;
    Ok((socket.local_addr()?, socket))
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn a_socket_that_does_not_listen_is_not_adopted() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any_port.into()).expect("a port");
        let error = adopt(socket.into()).expect_err("it is bound only");
        assert_eq!(error.to_string(), "it does not listen");
        let socket = TcpListener::bind(any_port).expect("a port");
        let address = socket.local_addr().expect("an address");
        assert_eq!(adopt(socket).expect("it listens").0, address);
    }

    #[test]
    fn a_socket_is_found_by_its_address_again_and_again() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("an address");
        let inherited = Inherited(vec![(address, socket)]);
        for _ in 0..2 {
            let found = inherited.find(address).expect("found").expect("a handle");
            assert_eq!(found.local_addr().expect("an address"), address);
        }
        let other = SocketAddr::new(address.ip(), 1);
        assert!(inherited.find(other).is_none());
        assert!(Inherited::default().find(address).is_none());
    }
}

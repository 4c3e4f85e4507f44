//! The three time limits of a service.

use std::time::Duration;

/// Limits on talking to an upstream, as Kong means them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// The whole connection: TCP and, for https, the TLS handshake.
    pub connect: Duration,
    /// Between two successive writes, not for the whole request.
    pub write: Duration,
    /// Between two successive reads, not for the whole response.
    pub read: Duration,
}

impl Timeouts {
    /// From the milliseconds that a configuration gives.
    pub const fn from_millis(connect: u32, write: u32, read: u32) -> Self {
        Self {
            connect: Duration::from_millis(connect as u64),
            write: Duration::from_millis(write as u64),
            read: Duration::from_millis(read as u64),
        }
    }
}

impl Default for Timeouts {
    /// Kong's 60 seconds each.
    fn default() -> Self {
        Self::from_millis(60_000, 60_000, 60_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_a_minute_each() {
        let timeouts = Timeouts::default();
        assert_eq!(timeouts.connect, Duration::from_mins(1));
        assert_eq!(timeouts.write, timeouts.read);
    }
}

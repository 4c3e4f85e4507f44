//! Request ids and the ids that plugins hand out.

use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

/// 32 lower-case hex digits, new for each request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId([u8; 32]);

impl RequestId {
    /// The digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits are ASCII")
    }

    /// The digits as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for RequestId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Generates ids. Thread-safe and without a lock.
#[derive(Debug)]
pub struct Identifiers {
    process: Uuid,
    counter: AtomicU64,
}

impl Identifiers {
    /// A generator with a process id of its own.
    pub fn new() -> Self {
        Self {
            process: Uuid::new_v4(),
            counter: AtomicU64::new(0),
        }
    }

    /// A new request id: 128 random bits.
    pub fn request_id(&self) -> RequestId {
        let mut digits = [0; 32];
        Uuid::new_v4().simple().encode_lower(&mut digits);
        RequestId(digits)
    }

    /// A random (version 4) UUID.
    pub fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }

    /// The next of the numbers 1, 2, 3, … of this process.
    pub fn serial(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// `<uuid of this process>#<n>` with n counting up from 1.
    pub fn counted(&self) -> String {
        format!("{}#{}", self.process, self.serial())
    }

    /// The id of this process, as `node_id` in metrics.
    pub fn process(&self) -> Uuid {
        self.process
    }
}

impl Default for Identifiers {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_32_hex_digits_and_differ() {
        let identifiers = Identifiers::new();
        let (one, two) = (identifiers.request_id(), identifiers.request_id());
        assert_ne!(one, two);
        assert_eq!(one.as_str().len(), 32);
        assert!(one.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn counted_ids_count_up() {
        let identifiers = Identifiers::new();
        assert!(identifiers.counted().ends_with("#1"));
        assert!(identifiers.counted().ends_with("#2"));
    }
}

//! Numbers as header values.

use std::sync::LazyLock;

use http::HeaderValue;

/// Most numbers in headers are small: milliseconds, what is left of a limit, the seconds of an hour.
const READY: u64 = 3_601;

static SMALL: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| {
    // Kept for ever, so that a copy of such a value counts no references.
    let ready = (0..READY).map(|number| &*number.to_string().leak());
    ready.map(HeaderValue::from_static).collect()
});

/// `number` in decimal. Those up to 3,600 are ready and cost no allocation.
pub fn header(number: u64) -> HeaderValue {
    usize::try_from(number)
        .ok()
        .and_then(|place| SMALL.get(place).cloned())
        .unwrap_or_else(|| HeaderValue::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_on_both_sides_of_what_is_ready() {
        for number in [0, 9, 10, 3_600, 3_601, u64::MAX] {
            assert_eq!(header(number), number.to_string().as_str());
        }
    }
}

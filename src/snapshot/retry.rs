//! How the tries of a request are repeated, as it was configured; whether one may be is decided by the
//! proxy.

use std::time::Duration;

use http::Method;

/// How tries are repeated.
#[derive(Debug, Clone)]
pub struct Retry {
    /// The statuses for which a request is sent again.
    pub statuses: Box<[u16]>,
    /// The methods that may be sent again once an upstream may have seen the request.
    pub methods: Box<[Method]>,
    /// How long the first repetition waits at most, and any.
    pub backoff: Duration,
    pub backoff_max: Duration,
    /// Which share of the requests repetitions may be; absent: any.
    pub budget: Option<f64>,
    /// How long one try may wait for its upstream; absent: as long as the service says.
    pub per_try: Option<Duration>,
}

impl Retry {
    /// How long repetition `number`, from 1, waits; `chance` is from 0 to 1.
    pub fn pause(&self, number: u32, chance: f64) -> Duration {
        if self.backoff.is_zero() {
            return Duration::ZERO;
        }
        let doubled = 1_u32.checked_shl(number.saturating_sub(1));
        let longest = doubled
            .and_then(|times| self.backoff.checked_mul(times))
            .map_or(self.backoff_max, |longest| longest.min(self.backoff_max));
        longest.mul_f64(chance.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let retry = Retry {
            statuses: Box::default(),
            methods: Box::default(),
            backoff: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
            budget: None,
            per_try: None,
        };
        let pause = |number| retry.pause(number, 1.0).as_millis();
        assert_eq!([1, 2, 4, 5, 6, 40].map(pause), [25, 50, 200, 250, 250, 250]);
        assert_eq!(retry.pause(3, 0.5).as_millis(), 50);
        assert_eq!(retry.pause(3, 0.0), Duration::ZERO);
        let at_once = Retry {
            backoff: Duration::ZERO,
            ..retry
        };
        assert_eq!(at_once.pause(3, 1.0), Duration::ZERO);
    }
}

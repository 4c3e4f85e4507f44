//! How many repeated requests a service bears: a share of its requests, so that an upstream in trouble
//! is not asked several times as often as before. What counts as a repetition is said by the caller.

use std::time::Instant;

use super::window::Window;

/// Repetitions in 10 seconds that need no requests to be a share of.
const REPEATS_MIN: f64 = 30.0;

/// Requests and repetitions of a service over the last 10 seconds.
#[derive(Debug)]
pub struct RetryBudget {
    began: Instant,
    requests: Window,
    repeats: Window,
}

impl RetryBudget {
    /// A budget of which nothing is spent.
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            requests: Window::default(),
            repeats: Window::default(),
        }
    }

    /// Counts a request.
    pub fn request(&self, now: Instant) {
        self.requests.add(self.second(now));
    }

    /// Whether one more repetition keeps all of them within `share` of the requests and 30; if so it
    /// is counted. Threads that ask at the same moment may exceed it by one each.
    pub fn spend(&self, share: f64, now: Instant) -> bool {
        let second = self.second(now);
        let has = number(self.repeats.sum(second)) + 1.0;
        let may = share * number(self.requests.sum(second)) + REPEATS_MIN;
        let is_within = has <= may;
        if is_within {
            self.repeats.add(second);
        }
        is_within
    }

    fn second(&self, now: Instant) -> u32 {
        let seconds = now.saturating_duration_since(self.began).as_secs();
        u32::try_from(seconds & u64::from(u32::MAX)).expect("32 bits are left")
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no service has so many requests in 10 seconds"
)]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::state::clock::Clock;

    fn spent(budget: &RetryBudget, share: f64, now: Instant) -> usize {
        (0..1000).take_while(|_| budget.spend(share, now)).count()
    }

    #[test]
    fn repetitions_are_a_share_of_the_requests_and_thirty() {
        let now = Clock::system().instant();
        let budget = RetryBudget::new(now);
        assert_eq!(spent(&budget, 0.2, now), 30);
        for _ in 0..100 {
            budget.request(now);
        }
        assert_eq!(spent(&budget, 0.2, now), 20);
        assert_eq!(spent(&budget, 0.0, now), 0);
    }

    #[test]
    fn what_was_spent_comes_back_after_ten_seconds() {
        let now = Clock::system().instant();
        let budget = RetryBudget::new(now);
        assert_eq!(spent(&budget, 0.2, now), 30);
        assert_eq!(spent(&budget, 0.2, now + Duration::from_secs(9)), 0);
        assert_eq!(spent(&budget, 0.2, now + Duration::from_secs(10)), 30);
    }
}

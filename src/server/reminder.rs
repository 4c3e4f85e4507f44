//! Tells each day of certificates that expire soon: nobody would hear of it for as long as nothing is
//! reloaded.

use std::time::Duration;

use tracing::warn;

use crate::{state::State, telemetry::handshakes::CertificateExpiry};

/// How often certificates that expire soon are told of.
const DAY: Duration = Duration::from_hours(24);

/// Each day gives `tell` the certificates that expire soon, and the days that are left.
pub(super) async fn run(state: &State, mut tell: impl FnMut(&CertificateExpiry, i64)) {
    loop {
        tokio::time::sleep(DAY).await;
        let now = state.clock.unix_seconds();
        for expiry in state.telemetry.handshakes().expiries() {
            if expiry.is_near(now) {
                let days_left = (expiry.not_after - now).div_euclid(DAY.as_secs().cast_signed());
                tell(&expiry, days_left);
            }
        }
    }
}

/// Tells the log.
pub(super) fn tell(expiry: &CertificateExpiry, days_left: i64) {
    warn!(
        certificate = expiry.certificate,
        days_left, "a certificate for clients expires soon, or has expired"
    );
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_certificate_that_expires_within_two_weeks_is_told_of_each_day() {
        let state = Arc::new(State::new());
        let now = state.clock.unix_seconds();
        let expiry = |certificate: &str, days: i64| CertificateExpiry {
            certificate: certificate.to_owned(),
            algorithm: "ecdsa",
            // Half a day more, so that it does not matter how long the test takes.
            not_after: now + days * 86_400 + 43_200,
        };
        let expiries = vec![expiry("soon", 3), expiry("gone", -2), expiry("good", 30)];
        state.telemetry.handshakes().adopt(expiries);
        let told = Arc::new(Mutex::new(Vec::new()));
        let (heard, watched) = (Arc::clone(&told), Arc::clone(&state));
        let task = tokio::spawn(async move {
            let tell = |expiry: &CertificateExpiry, days_left| {
                let mut told = heard.lock().expect("no panic");
                told.push((expiry.certificate.clone(), days_left));
            };
            run(&watched, tell).await;
        });
        let after = async |hours| {
            tokio::time::sleep(Duration::from_hours(hours)).await;
            std::mem::take(&mut *told.lock().expect("no panic"))
        };
        assert_eq!(after(23).await, []);
        let both = [("soon".to_owned(), 3), ("gone".to_owned(), -2)];
        assert_eq!(after(2).await, both);
        assert_eq!(after(24).await, both);
        task.abort();
    }
}

//! Calendar windows of UTC: which one a time lies in, where it begins and ends. True lengths: a
//! month is 28 to 31 days, a year 365 or 366.

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime};

/// A point of the wall clock. Passed in with each hit, never read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// A time in milliseconds since 1970-01-01 UTC.
    pub const fn from_unix_milliseconds(milliseconds: i64) -> Self {
        Self(milliseconds)
    }

    /// The whole second. Times before 1970 and after 2106-02-07 count as these ends of the range.
    pub(super) fn second(self) -> Second {
        saturate(self.0.div_euclid(1000))
    }

    /// Whole seconds until the beginning of `second`, rounded up, at least 1.
    pub(super) fn seconds_until(self, second: i64) -> u32 {
        let milliseconds = second.saturating_mul(1000).saturating_sub(self.0);
        saturate(milliseconds.saturating_add(999).div_euclid(1000)).max(1)
    }
}

/// Seconds since 1970-01-01 UTC, as counters keep them.
pub(super) type Second = u32;

/// The second nearest to `seconds` that a counter can keep.
pub(super) fn saturate(seconds: i64) -> Second {
    Second::try_from(seconds.max(0)).unwrap_or(Second::MAX)
}

/// A span of the calendar that a limit is counted in, from the shortest to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Period {
    Second,
    Minute,
    Hour,
    Day,
    Month,
    Year,
}

impl Period {
    /// Every period, from the shortest to the longest.
    pub const ALL: [Self; 6] = [
        Self::Second,
        Self::Minute,
        Self::Hour,
        Self::Day,
        Self::Month,
        Self::Year,
    ];

    /// The name as in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The place of this period in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// One window: from `start` up to, but not including, `end`, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) start: i64,
    pub(super) end: i64,
    /// Whether the window has an odd number; of two neighbours exactly one has.
    pub(super) is_odd: bool,
}

impl Window {
    /// The window of `period` that `second` lies in.
    pub(super) fn of(period: Period, second: Second) -> Self {
        match period {
            Period::Second => Self::even_spans(second, 1),
            Period::Minute => Self::even_spans(second, 60),
            Period::Hour => Self::even_spans(second, 3600),
            Period::Day => Self::even_spans(second, 86_400),
            Period::Month => Self::month(second),
            Period::Year => Self::year(second),
        }
    }

    /// Whether `second` lies in this window.
    pub(super) fn contains(&self, second: Second) -> bool {
        (self.start..self.end).contains(&i64::from(second))
    }

    fn even_spans(second: Second, length: u32) -> Self {
        let number = second / length;
        let start = i64::from(number * length);
        Self {
            start,
            end: start + i64::from(length),
            is_odd: number % 2 == 1,
        }
    }

    fn month(second: Second) -> Self {
        let today = date(second);
        let (year, month) = (today.year(), today.month());
        let (next_year, next_month) = if month == 12 {
            (year + 1, 1)
        } else {
            (year, month + 1)
        };
        Self {
            start: first_of(year, month),
            end: first_of(next_year, next_month),
            // A year has twelve months, so parity goes on over New Year.
            is_odd: month % 2 == 1,
        }
    }

    fn year(second: Second) -> Self {
        let year = date(second).year();
        Self {
            start: first_of(year, 1),
            end: first_of(year + 1, 1),
            is_odd: year % 2 == 1,
        }
    }
}

fn date(second: Second) -> NaiveDate {
    DateTime::from_timestamp(i64::from(second), 0)
        .expect("32-bit seconds lie within chrono's range")
        .date_naive()
}

fn first_of(year: i32, month: u32) -> i64 {
    NaiveDate::from_ymd_opt(year, month, 1)
        .expect("every month between 1970 and 2107 has a first day")
        .and_time(NaiveTime::MIN)
        .and_utc()
        .timestamp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(text: &str) -> i64 {
        text.parse::<DateTime<chrono::Utc>>()
            .expect("a time")
            .timestamp()
    }

    fn window(period: Period, at: &str) -> (i64, i64) {
        let window = Window::of(period, saturate(second(at)));
        (window.start, window.end)
    }

    #[test]
    fn windows_begin_and_end_with_the_calendar() {
        let at = "2024-02-29T23:59:59Z";
        let next_day = second("2024-03-01T00:00:00Z");
        assert_eq!(window(Period::Second, at), (next_day - 1, next_day));
        assert_eq!(window(Period::Minute, at), (next_day - 60, next_day));
        assert_eq!(window(Period::Hour, at), (next_day - 3600, next_day));
        assert_eq!(window(Period::Day, at), (next_day - 86_400, next_day));
        assert_eq!(
            window(Period::Month, at),
            (second("2024-02-01T00:00:00Z"), next_day)
        );
        assert_eq!(
            window(Period::Year, at),
            (
                second("2024-01-01T00:00:00Z"),
                second("2025-01-01T00:00:00Z")
            )
        );
    }

    #[test]
    fn december_ends_with_the_year() {
        assert_eq!(
            window(Period::Month, "2025-12-31T00:00:00Z"),
            (
                second("2025-12-01T00:00:00Z"),
                second("2026-01-01T00:00:00Z")
            )
        );
    }

    #[test]
    fn neighbouring_windows_touch_and_differ_in_parity() {
        for period in Period::ALL {
            let mut window = Window::of(period, saturate(second("2023-11-30T22:59:58Z")));
            for _ in 0..40 {
                let next = Window::of(period, saturate(window.end));
                assert_eq!(window.end, next.start);
                assert_ne!(window.is_odd, next.is_odd, "{period:?} {window:?}");
                window = next;
            }
        }
    }

    #[test]
    fn shorter_windows_lie_within_longer_ones() {
        for at in (0..=u32::MAX).step_by(9_999_991) {
            for pair in Period::ALL.windows(2) {
                let (inner, outer) = (Window::of(pair[0], at), Window::of(pair[1], at));
                assert!(inner.contains(at) && outer.contains(at));
                assert!(outer.start <= inner.start && inner.end <= outer.end);
            }
        }
    }

    #[test]
    fn a_reset_is_rounded_up_and_never_below_one() {
        let until = |now| Timestamp::from_unix_milliseconds(now).seconds_until(60);
        assert_eq!(until(59_999), 1);
        assert_eq!(until(59_000), 1);
        assert_eq!(until(58_999), 2);
        assert_eq!(until(60_000), 1);
        assert_eq!(until(i64::MAX), 1);
        assert_eq!(until(i64::MIN), u32::MAX);
    }

    #[test]
    fn times_out_of_range_are_the_ends_of_the_range() {
        assert_eq!(Timestamp::from_unix_milliseconds(i64::MIN).second(), 0);
        assert_eq!(
            Timestamp::from_unix_milliseconds(i64::MAX).second(),
            u32::MAX
        );
        for period in Period::ALL {
            assert!(Window::of(period, u32::MAX).contains(u32::MAX));
        }
    }
}

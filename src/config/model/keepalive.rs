//! `so_keepalive` of a listener: nginx's notation for TCP keep-alive.

use std::fmt::{self, Display};
use std::str::FromStr;
use std::time::Duration;

use super::settings::Seconds;

/// TCP keep-alive of a listener's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keepalive {
    Off,
    /// What is absent is as the system has it.
    On {
        idle: Option<Duration>,
        interval: Option<Duration>,
        count: Option<u32>,
    },
}

impl FromStr for Keepalive {
    type Err = String;

    /// `on`, `off`, or `idle:interval:count` of which some may be left out, such as `30m::10`.
    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || {
            format!(
                "`so_keepalive={text}` is none of on, off and `idle:interval:count` such as `30m::10`"
            )
        };
        let (idle, interval, count) = match text {
            "off" => return Ok(Self::Off),
            "on" => ("", "", ""),
            _ => {
                let mut parts = text.split(':');
                match (parts.next(), parts.next(), parts.next(), parts.next()) {
                    (Some(idle), Some(interval), Some(count), None) if text != "::" => {
                        (idle, interval, count)
                    }
                    _ => return Err(malformed()),
                }
            }
        };
        // The kernel counts whole seconds, from one on, in fifteen bits.
        let optional = |part: &str| {
            if part.is_empty() {
                return Some(None);
            }
            let limits = Duration::from_secs(1)..=Duration::from_secs(32_767);
            let time = part.parse::<Seconds>().ok().map(|seconds| seconds.0);
            time.filter(|time| limits.contains(time)).map(Some)
        };
        let number = |part: &str| part.parse().ok().filter(|count| (1..=127).contains(count));
        Ok(Self::On {
            idle: optional(idle).ok_or_else(malformed)?,
            interval: optional(interval).ok_or_else(malformed)?,
            count: match count {
                "" => None,
                _ => Some(number(count).ok_or_else(malformed)?),
            },
        })
    }
}

impl Display for Keepalive {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (idle, interval, count) = match self {
            Self::Off => return formatter.write_str("off"),
            Self::On {
                idle: None,
                interval: None,
                count: None,
            } => return formatter.write_str("on"),
            Self::On {
                idle,
                interval,
                count,
            } => (idle, interval, count),
        };
        let seconds = |time: &Option<Duration>| {
            time.map_or_else(String::new, |time| format!("{}s", time.as_secs_f64()))
        };
        write!(formatter, "{}:{}:", seconds(idle), seconds(interval))?;
        count.map_or(Ok(()), |count| count.fmt(formatter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_the_same_again() {
        for text in ["on", "off", "30m::10", ":75s:", "1:2:3"] {
            let value: Keepalive = text.parse().unwrap();
            assert_eq!(value.to_string().parse(), Ok(value), "{text}");
        }
    }

    #[test]
    fn keep_alive_times_that_mean_nothing_are_refused() {
        for text in [
            "", "yes", "::", "1:2", "1:2:3:4", "0::", "a::", "::0", "::128", "40000::",
        ] {
            assert!(text.parse::<Keepalive>().is_err(), "{text}");
        }
    }
}

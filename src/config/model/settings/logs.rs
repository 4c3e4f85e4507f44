//! Where the logs go: settings such as `stdout plain`, `off` or a path.

use std::path::PathBuf;
use std::str::FromStr;

use super::written;

/// Where a line for each request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    Off,
    On {
        /// Relative to the working directory; absent = standard output.
        path: Option<PathBuf>,
        /// In the format of Kong's log rather than as JSON.
        plain: bool,
    },
}

impl Default for AccessLog {
    fn default() -> Self {
        Self::On {
            path: None,
            plain: false,
        }
    }
}

written!(AccessLog, "access-log", "string");

impl FromStr for AccessLog {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (place, format) = match text.trim().split_once(char::is_whitespace) {
            Some((place, format)) => (place, format.trim_start()),
            None => (text.trim(), ""),
        };
        let plain = match format {
            "" => false,
            "plain" => true,
            _ => {
                return Err(format!(
                    "only `plain` may follow the place of a log, found `{format}`"
                ));
            }
        };
        match (place, plain) {
            ("", _) => Err("must be stdout, off or a path".into()),
            ("off", false) => Ok(Self::Off),
            ("off", true) => Err("a log that is `off` has no format".into()),
            ("stdout" | "/dev/stdout", plain) => Ok(Self::On { path: None, plain }),
            (place, _) if place.starts_with("syslog:") => {
                Err("a log goes to stdout or to a file, not to syslog".into())
            }
            (place, _) if place.contains(char::is_control) => {
                Err(format!("{place:?} is not a path"))
            }
            (path, plain) => Ok(Self::On {
                path: Some(path.into()),
                plain,
            }),
        }
    }
}

/// Where the gateway's own log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ErrorLog {
    #[default]
    Stderr,
    Off,
    /// Relative to the working directory.
    Path(PathBuf),
}

written!(ErrorLog, "error-log", "string");

impl FromStr for ErrorLog {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => Err("must be stderr, off or a path".into()),
            "stderr" | "/dev/stderr" => Ok(Self::Stderr),
            "off" => Ok(Self::Off),
            place if place.starts_with("syslog:") => {
                Err("a log goes to stderr or to a file, not to syslog".into())
            }
            place if place.contains(char::is_whitespace) => Err(format!(
                "nothing may follow the place of this log, found {place:?}; its level is `log_level`"
            )),
            place if place.contains(char::is_control) => Err(format!("{place:?} is not a path")),
            path => Ok(Self::Path(path.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_log_has_a_place_and_perhaps_a_format() {
        assert_eq!("off".parse(), Ok(AccessLog::Off));
        for (text, path, plain) in [
            ("stdout", None, false),
            ("/dev/stdout", None, false),
            ("stdout plain", None, true),
            ("logs/access.log", Some("logs/access.log"), false),
            ("/a.log  plain", Some("/a.log"), true),
        ] {
            let path = path.map(PathBuf::from);
            assert_eq!(text.parse(), Ok(AccessLog::On { path, plain }), "{text}");
        }
        for (text, expected) in [
            ("", "must be stdout, off or a path"),
            ("off plain", "has no format"),
            (
                "/var/log/access.log combined",
                "only `plain` may follow the place of a log, found `combined`",
            ),
            ("syslog:server=localhost", "not to syslog"),
            ("/a\0b", "is not a path"),
        ] {
            let error = text.parse::<AccessLog>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn the_error_log_has_a_place_and_no_format() {
        assert_eq!("/dev/stderr".parse(), Ok(ErrorLog::Stderr));
        assert_eq!("off".parse(), Ok(ErrorLog::Off));
        assert_eq!("/a.log".parse(), Ok(ErrorLog::Path("/a.log".into())));
        for (text, expected) in [
            ("", "must be stderr, off or a path"),
            ("/a.log notice", "its level is `log_level`"),
            ("syslog:server=localhost", "not to syslog"),
        ] {
            let error = text.parse::<ErrorLog>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}

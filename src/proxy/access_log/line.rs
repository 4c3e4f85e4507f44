//! How a line of the access log looks: a JSON object, or what Kong writes. Whatever a client sent,
//! a line is valid UTF-8, has one line break, and shows no credential that was recognised.

use std::{
    borrow::Cow,
    io::Write,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use chrono::{DateTime, SecondsFormat, Utc};
use http::Version;
use percent_encoding::percent_decode_str;
use serde::{Serialize, Serializer};

/// What stands in place of a credential.
const MASK: &str = "REDACTED";

/// One moment by both clocks, to tell the time of others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) unix_milliseconds: i64,
}

impl Now {
    /// The time of day at `instant`, which is past.
    pub(super) fn at(self, instant: Instant) -> DateTime<Utc> {
        let since = self.instant.saturating_duration_since(instant).as_millis();
        let since = i64::try_from(since).unwrap_or(i64::MAX);
        DateTime::from_timestamp_millis(self.unix_milliseconds.saturating_sub(since))
            .unwrap_or_default()
    }
}

/// What is told of a request. Texts are empty where there is nothing to tell.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    #[serde(rename = "timestamp", serialize_with = "rfc3339")]
    pub(super) started_at: DateTime<Utc>,
    pub(super) method: &'a str,
    /// Path and query.
    pub(super) path: Cow<'a, str>,
    pub(super) client_ip: IpAddr,
    /// The id of the credential.
    pub(super) api_key: &'a str,
    pub(super) consumer: String,
    #[serde(rename = "status_code")]
    pub(super) status: u16,
    pub(super) response_time_ms: f64,
    pub(super) backend: String,
    pub(super) error: &'a str,
    pub(super) route: &'a str,
    pub(super) service: Cow<'a, str>,
    pub(super) request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) correlation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upstream_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upstream_latency_ms: Option<f64>,
    pub(super) gateway_latency_ms: f64,
    #[serde(rename = "bytes_received")]
    pub(super) received_bytes: u64,
    #[serde(rename = "bytes_sent")]
    pub(super) sent_bytes: u64,
    pub(super) tries: Vec<Try>,
    /// Absent without TLS.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<Tls<'a>>,
}

/// One try to get a response.
#[derive(Debug, Serialize)]
pub(super) struct Try {
    pub(super) address: SocketAddr,
    /// A status, or the code of a reason.
    pub(super) outcome: Cow<'static, str>,
    /// Until the head of the response, or the failure.
    pub(super) time_ms: f64,
}

/// What is told of the TLS connection.
#[derive(Debug, Serialize)]
pub(super) struct Tls<'a> {
    #[serde(rename = "tls_version")]
    pub(super) version: &'a str,
    #[serde(rename = "tls_cipher")]
    pub(super) cipher: &'a str,
    /// The name that the client asked for.
    #[serde(rename = "tls_server_name", skip_serializing_if = "Option::is_none")]
    pub(super) server_name: Option<&'a str>,
    #[serde(
        rename = "client_cert_subject",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) client_subject: Option<&'a str>,
    #[serde(
        rename = "client_cert_fingerprint",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) client_fingerprint: Option<&'a str>,
}

/// What only Kong's format tells. Texts are as the client sent them.
#[derive(Debug)]
pub(super) struct Extras<'a> {
    /// Absent if what came was no request.
    pub(super) version: Option<Version>,
    pub(super) referer: &'a [u8],
    pub(super) user_agent: &'a [u8],
    pub(super) body_bytes_sent: u64,
}

impl Line<'_> {
    /// Appends the line as JSON.
    pub(super) fn write_json(&self, lines: &mut Vec<u8>) {
        serde_json::to_writer(&mut *lines, self).expect("texts and numbers are always JSON");
        lines.push(b'\n');
    }

    /// Appends the line in Kong's format, `masked` being the query arguments that no line may show.
    pub(super) fn write_plain(&self, extras: &Extras<'_>, masked: &[String], lines: &mut Vec<u8>) {
        let time = self.started_at.format("%d/%b/%Y:%H:%M:%S +0000");
        // Writing to memory does not fail.
        let _ = write!(lines, "{} - ", self.client_ip);
        if self.consumer.is_empty() {
            lines.push(b'-');
        } else {
            escape_word(&self.consumer, lines);
        }
        let _ = write!(lines, " [{time}] \"");
        match extras.version {
            Some(version) => {
                escape(self.method.as_bytes(), lines);
                lines.push(b' ');
                escape(self.path.as_bytes(), lines);
                let _ = write!(lines, " {version:?}");
            }
            None => lines.push(b'-'),
        }
        let _ = write!(lines, "\" {} {} \"", self.status, extras.body_bytes_sent);
        let referer = String::from_utf8_lossy(extras.referer);
        escape_or_dash(self::masked(&referer, masked).as_bytes(), lines);
        lines.extend_from_slice(b"\" \"");
        escape_or_dash(extras.user_agent, lines);
        let _ = writeln!(lines, "\" kong_request_id: \"{}\"", self.request_id);
    }
}

fn rfc3339<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// A duration as a log tells it: to the microsecond.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a request does not take 285 years"
    )]
    let microseconds = duration.as_micros() as f64;
    microseconds / 1000.0
}

/// `target` with a mask for the values of the query arguments called one of `names`, which are
/// compared as a server would read them.
pub fn masked<'t>(target: &'t str, names: &[String]) -> Cow<'t, str> {
    let Some((path, query)) = target.split_once('?').filter(|_| !names.is_empty()) else {
        return Cow::Borrowed(target);
    };
    let is_secret = |name: &str| {
        names
            .iter()
            .any(|secret| percent_decode_str(name).eq(secret.bytes()))
    };
    let mut shown = format!("{path}?");
    for (place, argument) in query.split('&').enumerate() {
        if place > 0 {
            shown.push('&');
        }
        match argument.split_once('=') {
            Some((name, _)) if is_secret(name) => {
                shown.push_str(name);
                shown.push('=');
                shown.push_str(MASK);
            }
            _ => shown.push_str(argument),
        }
    }
    Cow::Owned(shown)
}

fn escape_or_dash(text: &[u8], lines: &mut Vec<u8>) {
    if text.is_empty() {
        lines.push(b'-');
    } else {
        escape(text, lines);
    }
}

/// A text that stands between blanks.
fn escape_word(text: &str, lines: &mut Vec<u8>) {
    for (place, word) in text.split(' ').enumerate() {
        if place > 0 {
            lines.extend_from_slice(b"\\x20");
        }
        escape(word.as_bytes(), lines);
    }
}

/// As nginx does: quotes, backslashes and everything that is not printable ASCII as `\xHH`.
fn escape(text: &[u8], lines: &mut Vec<u8>) {
    for &byte in text {
        if matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\') {
            lines.push(byte);
        } else {
            // Writing to memory does not fail.
            let _ = write!(lines, "\\x{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line<'static> {
        Line {
            started_at: DateTime::from_timestamp_millis(1_738_324_800_123).expect("a time"),
            method: "GET",
            path: Cow::Borrowed("/orders?id=1"),
            client_ip: "192.0.2.1".parse().expect("an address"),
            api_key: "5d9f5d5e-0000-4000-8000-000000000000",
            consumer: "alice".into(),
            status: 200,
            response_time_ms: milliseconds(Duration::from_nanos(1_420_300)),
            backend: "http://10.0.0.1:8080".into(),
            error: "",
            route: "list",
            service: Cow::Borrowed("orders"),
            request_id: "0123456789abcdef0123456789abcdef",
            correlation_id: None,
            upstream_status: Some(200),
            upstream_latency_ms: Some(1.0),
            gateway_latency_ms: 0.25,
            received_bytes: 80,
            sent_bytes: 300,
            tries: vec![Try {
                address: SocketAddr::from(([127, 0, 0, 1], 8080)),
                outcome: Cow::Borrowed("200"),
                time_ms: 1.5,
            }],
            tls: None,
        }
    }

    fn json(line: &Line<'_>) -> String {
        let mut bytes = Vec::new();
        line.write_json(&mut bytes);
        String::from_utf8(bytes).expect("UTF-8")
    }

    fn plain(line: &Line<'_>, extras: &Extras<'_>, masked: &[String]) -> String {
        let mut bytes = Vec::new();
        line.write_plain(extras, masked, &mut bytes);
        String::from_utf8(bytes).expect("UTF-8")
    }

    const CURL: Extras<'_> = Extras {
        version: Some(Version::HTTP_11),
        referer: b"",
        user_agent: b"curl/8",
        body_bytes_sent: 12,
    };

    #[test]
    fn a_line_of_json_tells_everything() {
        assert_eq!(
            json(&line()),
            "{\"timestamp\":\"2025-01-31T12:00:00.123Z\",\"method\":\"GET\",\"path\":\"/orders?id=1\",\
             \"client_ip\":\"192.0.2.1\",\"api_key\":\"5d9f5d5e-0000-4000-8000-000000000000\",\
             \"consumer\":\"alice\",\"status_code\":200,\"response_time_ms\":1.42,\
             \"backend\":\"http://10.0.0.1:8080\",\"error\":\"\",\"route\":\"list\",\"service\":\"orders\",\
             \"request_id\":\"0123456789abcdef0123456789abcdef\",\"upstream_status\":200,\
             \"upstream_latency_ms\":1.0,\"gateway_latency_ms\":0.25,\"bytes_received\":80,\
             \"bytes_sent\":300,\"tries\":[{\"address\":\"127.0.0.1:8080\",\"outcome\":\"200\",\"time_ms\":1.5}]}\n"
        );
    }

    #[test]
    fn a_client_cannot_break_a_line_of_json() {
        let mut line = line();
        line.path = Cow::Borrowed("/\"\n\u{0}\u{fffd}\\");
        let text = json(&line);
        assert_eq!(text.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["path"], "/\"\n\u{0}\u{fffd}\\");
    }

    #[test]
    fn a_plain_line_is_kongs() {
        assert_eq!(
            plain(&line(), &CURL, &[]),
            "192.0.2.1 - alice [31/Jan/2025:12:00:00 +0000] \"GET /orders?id=1 HTTP/1.1\" 200 12 \
             \"-\" \"curl/8\" kong_request_id: \"0123456789abcdef0123456789abcdef\"\n"
        );
    }

    #[test]
    fn a_client_cannot_break_a_plain_line() {
        let mut line = line();
        line.consumer = "two words".into();
        let extras = Extras {
            referer: b"http://a/?apikey=secret&b=1",
            user_agent: b"\" x\n\xff",
            ..CURL
        };
        let text = plain(&line, &extras, &["apikey".into()]);
        assert!(text.contains(" - two\\x20words ["), "{text}");
        assert!(text.contains("\"http://a/?apikey=REDACTED&b=1\""), "{text}");
        assert!(text.contains("\"\\x22 x\\x0A\\xFF\""), "{text}");
    }

    #[test]
    fn what_was_no_request_has_no_request_line() {
        let extras = Extras {
            version: None,
            ..CURL
        };
        assert!(plain(&line(), &extras, &[]).contains("+0000] \"-\" 200"));
    }

    #[test]
    fn a_tls_connection_tells_what_was_negotiated_and_who_came() {
        let mut line = line();
        assert!(!json(&line).contains("tls"));
        line.tls = Some(Tls {
            version: "TLSv1.3",
            cipher: "TLS_AES_128_GCM_SHA256",
            server_name: Some("a.test"),
            client_subject: None,
            client_fingerprint: None,
        });
        let end = "}],\"tls_version\":\"TLSv1.3\",\"tls_cipher\":\"TLS_AES_128_GCM_SHA256\",\"tls_server_name\":\"a.test\"}\n";
        assert!(json(&line).ends_with(end), "{}", json(&line));
        if let Some(tls) = &mut line.tls {
            tls.client_subject = Some("CN=alice");
            tls.client_fingerprint = Some("ab");
        }
        let end = ",\"client_cert_subject\":\"CN=alice\",\"client_cert_fingerprint\":\"ab\"}\n";
        assert!(json(&line).ends_with(end), "{}", json(&line));
    }

    #[test]
    fn credentials_in_the_query_are_masked_however_their_name_is_written() {
        let names = ["apikey".to_owned(), "k".to_owned()];
        for (target, expected) in [
            ("/a?apikey=secret&b=1", "/a?apikey=REDACTED&b=1"),
            ("/a?b=1&api%6Bey=secret", "/a?b=1&api%6Bey=REDACTED"),
            ("/a?k=one&k=two=three", "/a?k=REDACTED&k=REDACTED"),
            ("/a?key=x&apikey", "/a?key=x&apikey"),
            ("/apikey=x", "/apikey=x"),
        ] {
            assert_eq!(masked(target, &names), expected);
        }
        assert_eq!(masked("/a?apikey=x", &[]), "/a?apikey=x");
    }
}

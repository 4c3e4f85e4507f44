//! `tollgate probe`: a client that sends the requests of a scenario to a running gateway and judges the answers.
//! Its exit code says whether what the scenario expects has happened. It measures no throughput.

mod answer;
mod calls;
mod figures;
mod reasons;
mod report;
mod scenario;
mod verdict;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, uri::PathAndQuery};

use self::{
    calls::{Call, Plan},
    reasons::Reasons,
    report::Report,
    scenario::Scenario,
    verdict::Verdict,
};
use super::{Format, USAGE, say};
use crate::{
    client::{Base, Failure},
    config::model::settings::Seconds,
};

/// The longest time that an option takes.
const DURATION_MAX: Duration = Duration::from_hours(1);

const AFTER_HELP: &str = "\
Exit code: 0 if what the scenario expects has happened, 1 if not, 2 for arguments that are not understood.

Who answered is judged by the headers that the gateway adds: X-Kong-Upstream-Latency, X-Kong-Proxy-Latency or Via on \
an upstream's answer, X-Kong-Response-Latency on its own. The name of an origin is its header X-Backend or the field \
`backend` of its body, as `tollgate mock` answers.

Examples, for a running `tollgate demo`:
  tollgate probe user --count 30
  tollgate probe slow --concurrency 10 --count 20
  tollgate probe auth --key demo-key
  tollgate probe rate-limit --count 150
  tollgate probe breaker

and for another gateway:
  tollgate probe user --url http://127.0.0.1:8080 -H 'Host: shop.test' --path /cart --format json";

/// Arguments of `tollgate probe`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// What to try out
    #[arg(value_enum)]
    scenario: Scenario,
    /// Where the gateway listens; a path in it is put before that of each request
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    url: String,
    /// Path and query to ask for instead of the scenario's
    #[arg(long, value_parser = path)]
    path: Option<String>,
    /// How many requests to send, of each kind if there are several
    ///
    /// The default is 10, for `slow` 4, for `auth` 1, for `rate-limit` 150.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: Option<u32>,
    /// How many requests to have under way at a time; 1 unless the scenario says otherwise
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    concurrency: Option<u32>,
    /// How far apart requests start, such as `500ms` or `2s`
    ///
    /// The default is 500ms for `breaker`, and none for the others.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    interval: Option<Duration>,
    /// How long each answer may take
    #[arg(long, value_name = "TIME", value_parser = timeout, default_value = "10s")]
    timeout: Duration,
    /// The API key to send; `auth` compares requests with and without it
    ///
    /// `auth` has the key of the default configuration, `demo-key`, if none is given. The key is never printed.
    #[arg(long)]
    key: Option<String>,
    /// The header that carries the key
    #[arg(long, value_name = "NAME", default_value = "apikey")]
    key_header: HeaderName,
    /// One more header of every request, as `Name: value`; can be repeated
    #[arg(long, short = 'H', value_name = "HEADER")]
    header: Vec<String>,
    /// Where operators reach the gateway: its `/metrics` tell the reasons of its own answers
    ///
    /// If nobody is there, the probe goes on without the reasons.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8001")]
    admin: String,
    /// How the result is written: for people, or as one JSON document
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let plan = plan(arguments).and_then(|plan| Ok((plan, base("--admin", &arguments.admin)?)));
    let (plan, admin) = match plan {
        Ok(plan) => plan,
        Err(message) => {
            say(&format!("error: {message}"));
            return ExitCode::from(USAGE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("error: cannot start an event loop: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let report = runtime.block_on(probe(arguments, plan, admin));
    match arguments.format {
        Format::Text => print(&report.text()),
        Format::Json => print(&report.json()),
    }
    if nobody_listens(&report.calls) {
        say(
            "no gateway answers there; start one with `tollgate demo`, or name its address with `--url`",
        );
    }
    if report.verdict.held {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn probe(arguments: &Arguments, plan: Plan, admin: Base) -> Report {
    let scenario = arguments.scenario;
    let url = plan.base.url(&plan.path);
    let kinds = plan.kinds.clone();
    let text = arguments.format == Format::Text;
    if text {
        print(&format!("{}\n", Report::title(scenario, &url, plan.count)));
    }
    let mut reasons = Reasons::watch(admin, arguments.timeout).await;
    let live = text && scenario.is_a_sequence();
    let calls = calls::make(plan, reasons.as_mut(), |call| {
        if live {
            print(&report::line(call));
        }
    })
    .await;
    if live {
        print("");
    }
    let reasons = match &mut reasons {
        None => None,
        Some(reasons) => {
            reasons.new_ones().await;
            Some(reasons.all())
        }
    };
    Report {
        scenario,
        url,
        kinds,
        verdict: Verdict::of(scenario, &calls),
        calls,
        reasons,
    }
}

/// What to send, or what is wrong with which option. What may be secret is read here and not by clap, whose messages
/// show the whole value.
fn plan(arguments: &Arguments) -> Result<Plan, String> {
    let scenario = arguments.scenario;
    if scenario.is_a_sequence() && arguments.concurrency.is_some_and(|count| count > 1) {
        return Err(format!(
            "--concurrency: `{}` sends one request after the other; leave the option out",
            scenario.as_str()
        ));
    }
    let headers: HeaderMap = arguments
        .header
        .iter()
        .map(|text| header(text))
        .collect::<Result<_, _>>()?;
    let key = arguments.key.as_deref().map(key).transpose()?;
    let kinds = scenario.kinds(&headers, &arguments.key_header, key.as_ref());
    let number = |given: Option<u32>, default: usize| {
        given.map_or(default, |given| usize::try_from(given).unwrap_or(default))
    };
    Ok(Plan {
        base: base("--url", &arguments.url)?,
        path: arguments
            .path
            .clone()
            .unwrap_or_else(|| scenario.path().to_owned()),
        count: number(arguments.count, scenario.count()) * kinds.len(),
        kinds,
        concurrency: number(arguments.concurrency, scenario.concurrency()),
        interval: arguments.interval.unwrap_or_else(|| scenario.interval()),
        timeout: arguments.timeout,
        reason_of_each: scenario.is_a_sequence(),
    })
}

fn base(flag: &str, text: &str) -> Result<Base, String> {
    text.parse().map_err(|message| format!("{flag}: {message}"))
}

fn nobody_listens(calls: &[Call]) -> bool {
    let refused = |call: &Call| matches!(call.outcome, Err(Failure::Connect { .. }));
    calls.iter().all(refused)
}

/// Writes a line to stdout. If nobody reads it, the exit code says enough.
fn print(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn path(text: &str) -> Result<String, String> {
    let parsed = text.parse::<PathAndQuery>();
    match parsed {
        Ok(path) if text.starts_with('/') && path.as_str() == text => Ok(text.to_owned()),
        _ => Err(format!(
            "`{text}` is not a path; write `/` and what follows, percent-encoded, such as `/api/user?id=1`"
        )),
    }
}

/// At most an hour, so that no sum of times is beyond what a clock can tell.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = text.parse::<Seconds>()?.0;
    if duration > DURATION_MAX {
        return Err(format!("`{text}` is too long; write at most `1h`"));
    }
    Ok(duration)
}

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration(text)?;
    if timeout.is_zero() {
        return Err("no answer takes no time at all; write a time such as `10s`".to_owned());
    }
    Ok(timeout)
}

/// A value that is not shown, neither when it is printed for debugging nor in the message about it.
fn key(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| "--key: a key with these characters cannot be sent in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// The message does not show the value, which may be a credential.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || "--header: it has no name or cannot be sent; write `Name: value`".to_owned();
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = name.trim().parse().map_err(|_| wrong())?;
    let value = value.trim().parse().map_err(|_| wrong())?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_with_a_slash_and_are_sent_as_they_are() {
        assert_eq!(path("/a?b=c"), Ok("/a?b=c".to_owned()));
        for text in ["", "a", "http://a/b", "/a b", "/a#b", "*"] {
            assert!(path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn headers_have_a_name_and_a_value() {
        let (name, value) = header("Host: shop.test:80").expect("a header");
        assert_eq!(
            (name.as_str(), value.as_bytes()),
            ("host", &b"shop.test:80"[..])
        );
        for text in ["Host", ": x", "a b: c", "a: b\nc"] {
            assert!(header(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        let value = key("s3cr3t").expect("a key");
        assert!(!format!("{value:?}").contains("s3cr3t"));
        let message = key("s3cr3t\n").expect_err("refused");
        assert!(!message.contains("s3cr3t"), "{message}");
    }

    #[test]
    fn an_answer_must_be_given_some_time() {
        assert_eq!(timeout("250ms"), Ok(Duration::from_millis(250)));
        assert!(timeout("0").is_err() && timeout("soon").is_err());
        assert!(duration("1h").is_ok() && duration("1000000000d").is_err());
    }
}

//! Sends the requests of a probe, several at a time and at a pace, and collects what came of each.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use http_body_util::Full;
use tokio::{sync::mpsc, time::Instant};

use super::{
    answer::{Answer, Source},
    reasons::Reasons,
};
use crate::client::{Base, Client, Failure, Received};

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("tollgate-probe/", env!("CARGO_PKG_VERSION")));

/// A kind of request.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    /// What the report calls it, if a probe has several.
    pub(super) label: &'static str,
    pub(super) headers: HeaderMap,
    /// Sends a body and wants to see it in the answer.
    pub(super) echo: bool,
}

/// What is sent.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) base: Base,
    /// Path and query.
    pub(super) path: String,
    /// They take turns.
    pub(super) kinds: Vec<Kind>,
    /// Requests of all kinds together.
    pub(super) count: usize,
    /// How many are under way at a time, unless `reason_of_each` makes it one.
    pub(super) concurrency: usize,
    /// From the start of one to the earliest start of the next.
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    /// Sends one after the other, and asks for the reason of each answer of the gateway's own, not only for their sum.
    pub(super) reason_of_each: bool,
}

/// What came of one request.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// From 1, in the order of their starts.
    pub(super) number: usize,
    /// The index of its kind.
    pub(super) kind: usize,
    /// Start and end, from the start of the first.
    pub(super) began: Duration,
    pub(super) ended: Duration,
    pub(super) outcome: Result<Answer, Failure>,
    /// The reason code, if the gateway answered by itself and it could be found out.
    pub(super) reason: Option<String>,
    /// The answer should show what was sent, and does not.
    pub(super) echo_missing: bool,
}

impl Call {
    pub(super) fn took(&self) -> Duration {
        self.ended.saturating_sub(self.began)
    }

    pub(super) fn source(&self) -> Source {
        match &self.outcome {
            Ok(answer) => answer.source.clone(),
            Err(_) => Source::Nobody,
        }
    }

    /// None without an answer.
    pub(super) fn status(&self) -> Option<u16> {
        self.outcome
            .as_ref()
            .ok()
            .map(|answer| answer.status.as_u16())
    }

    pub(super) fn is_by_gateway(&self) -> bool {
        self.outcome.as_ref().is_ok_and(Answer::is_by_gateway)
    }

    /// Answered with 2xx and, if asked for, with what was sent.
    pub(super) fn succeeded(&self) -> bool {
        let answered = self.outcome.as_ref();
        answered.is_ok_and(|answer| answer.status.is_success()) && !self.echo_missing
    }

    /// What came, in a few words: `503 from the gateway (no_healthy_upstream)`.
    pub(super) fn summary(&self) -> String {
        let answer = match &self.outcome {
            Ok(answer) => answer,
            Err(failure) => return failure.to_string(),
        };
        let mut text = format!("{} from {}", answer.status.as_u16(), answer.source);
        if let Some(reason) = &self.reason {
            let _ = write!(text, " ({reason})");
        } else if let Some(message) = &answer.message {
            let _ = write!(text, " (\"{message}\")");
        }
        if self.echo_missing {
            text.push_str(" without what was sent");
        }
        text
    }
}

/// Sends everything; `seen` gets each call as it ends. The calls come back in the order of their starts.
pub(super) async fn make(
    plan: Plan,
    reasons: Option<&mut Reasons>,
    seen: impl FnMut(&Call),
) -> Vec<Call> {
    let caller = Caller::new(plan);
    if caller.plan.reason_of_each {
        return make_a_sequence(caller, reasons, seen).await;
    }
    make_at_once(caller, seen).await
}

/// One after the other. The reason of each is asked for before the next is sent, else it could be that of the next.
async fn make_a_sequence(
    caller: Caller,
    mut reasons: Option<&mut Reasons>,
    mut seen: impl FnMut(&Call),
) -> Vec<Call> {
    let mut client = caller.client();
    let mut calls = Vec::new();
    while let Some(index) = caller.next() {
        let mut call = caller.call(index, &mut client).await;
        if call.is_by_gateway()
            && let Some(reasons) = reasons.as_deref_mut()
        {
            call.reason = only(reasons.new_ones().await.into_keys());
        }
        seen(&call);
        calls.push(call);
    }
    calls
}

/// Several at a time, each of the workers with a connection of its own.
async fn make_at_once(caller: Caller, mut seen: impl FnMut(&Call)) -> Vec<Call> {
    let (results, mut ended) = mpsc::unbounded_channel();
    let caller = Arc::new(caller);
    for _ in 0..caller.plan.concurrency.min(caller.plan.count) {
        let (caller, results) = (Arc::clone(&caller), results.clone());
        tokio::spawn(async move {
            let mut client = caller.client();
            while let Some(index) = caller.next() {
                if results.send(caller.call(index, &mut client).await).is_err() {
                    return;
                }
            }
        });
    }
    drop(results);
    let mut calls = Vec::new();
    while let Some(call) = ended.recv().await {
        seen(&call);
        calls.push(call);
    }
    calls.sort_by_key(|call| call.number);
    calls
}

/// The one item, if there is exactly one.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    items.next().filter(|_| items.next().is_none())
}

/// What the workers share.
struct Caller {
    plan: Plan,
    next: AtomicUsize,
    start: Instant,
}

impl Caller {
    fn new(plan: Plan) -> Self {
        Self {
            plan,
            next: AtomicUsize::new(0),
            start: Instant::now(),
        }
    }

    fn client(&self) -> Client {
        Client::new(self.plan.base.clone(), self.plan.timeout)
    }

    /// The index of a request that nobody has sent yet, if one is left.
    fn next(&self) -> Option<usize> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        (index < self.plan.count).then_some(index)
    }

    /// Waits until the request is due, and sends it.
    async fn call(&self, index: usize, client: &mut Client) -> Call {
        let Self { plan, start, .. } = self;
        if !plan.interval.is_zero() {
            let turns = u32::try_from(index).unwrap_or(u32::MAX);
            tokio::time::sleep_until(*start + plan.interval.saturating_mul(turns)).await;
        }
        let number = index + 1;
        let kind = index % plan.kinds.len();
        let marker = format!("tollgate-probe-{number}");
        let request = request(plan, &plan.kinds[kind], &marker);
        let began = start.elapsed();
        let received = client.send(request).await;
        let ended = start.elapsed();
        let shown = |received: &Received| !plan.kinds[kind].echo || contains(received, &marker);
        Call {
            number,
            kind,
            began,
            ended,
            echo_missing: received.as_ref().is_ok_and(|received| !shown(received)),
            outcome: received.map(|received| Answer::of(&received)),
            reason: None,
        }
    }
}

fn contains(received: &Received, marker: &str) -> bool {
    String::from_utf8_lossy(&received.body).contains(marker)
}

fn request(plan: &Plan, kind: &Kind, marker: &str) -> Request<Full<Bytes>> {
    let body = if kind.echo {
        Full::from(marker.to_owned())
    } else {
        Full::default()
    };
    let mut request = Request::new(body);
    if kind.echo {
        *request.method_mut() = Method::POST;
    }
    *request.uri_mut() = plan
        .base
        .target(&plan.path)
        .parse()
        .expect("a checked prefix and a checked path make a target");
    let headers = request.headers_mut();
    headers.insert(header::USER_AGENT, USER_AGENT);
    let host = HeaderValue::from_str(&plan.base.authority);
    headers.insert(header::HOST, host.expect("an authority is visible ASCII"));
    for (name, value) in &kind.headers {
        headers.insert(name, value.clone());
    }
    request
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::probe::answer::tests::answer;

    /// Calls of one kind, a tenth of a second apart, with these answers.
    pub(crate) fn calls(answers: &[(u16, Source)]) -> Vec<Call> {
        (1..)
            .zip(answers)
            .map(|(number, (status, source))| Call {
                number,
                kind: 0,
                began: Duration::from_millis(100) * u32::try_from(number).expect("few calls"),
                ended: Duration::from_millis(101) * u32::try_from(number).expect("few calls"),
                outcome: Ok(answer(*status, source.clone())),
                reason: None,
                echo_missing: false,
            })
            .collect()
    }

    #[test]
    fn a_call_is_told_in_a_few_words() {
        let mut call = calls(&[(503, Source::Gateway)]).remove(0);
        assert_eq!(call.summary(), "503 from the gateway");
        if let Ok(answer) = &mut call.outcome {
            answer.message = Some("try later".to_owned());
        }
        assert_eq!(call.summary(), "503 from the gateway (\"try later\")");
        call.reason = Some("no_healthy_upstream".to_owned());
        assert_eq!(call.summary(), "503 from the gateway (no_healthy_upstream)");
        call.outcome = Err(Failure::Timeout(Duration::from_secs(1)));
        assert_eq!(call.summary(), "no whole answer within 1s");
        assert_eq!((call.source(), call.status()), (Source::Nobody, None));
    }

    #[test]
    fn several_reasons_at_once_are_none() {
        assert_eq!(only([1].into_iter()), Some(1));
        assert_eq!(only([1, 2].into_iter()), None);
        assert_eq!(only(std::iter::empty::<u8>()), None);
    }
}

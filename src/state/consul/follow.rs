//! The loop of blocking queries: ask with the index of the last answer, take the answer over, ask again.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use ahash::RandomState;
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use tracing::{info, warn};

use super::{Agent, Standing, polls::Polls};
use crate::{
    client::{Client, Received},
    state::clock::Clock,
};

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("tollgate/", env!("CARGO_PKG_VERSION")));
const TOKEN: &str = "x-consul-token";
const INDEX: &str = "x-consul-index";
/// The longest answer that is read.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How much longer than asked for an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The shortest time between an answer and the next question, so that a catalog that changes all the
/// time keeps nobody busy.
const PAUSE: Duration = Duration::from_millis(100);
/// The same where the index says nothing: it went back, there is none, or the answer is doubted.
const PAUSE_WITHOUT_INDEX: Duration = Duration::from_millis(500);
/// Between failures, doubled each time.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Something that Consul is asked for.
pub(super) trait Subject: Send + Sync + 'static {
    /// What an answer says.
    type List: Send;

    fn agent(&self) -> &Agent;

    /// Path and query, without `index` and `wait`.
    fn path(&self) -> String;

    /// # Errors
    /// Why `body` is no answer: a sentence for the log.
    fn read(&self, body: &[u8]) -> Result<Self::List, String>;

    /// Whether nothing would be left of what is known.
    fn leaves_nothing(&self, list: &Self::List) -> bool;

    fn adopt(&self, list: Self::List);

    /// There was no answer that can be used.
    fn note_failure(&self);

    fn note(&self, change: impl FnOnce(&mut Standing));

    /// What it is called in the log.
    fn name(&self) -> &str;
}

/// `path` with parameters, encoded.
pub(super) fn query<'p>(
    path: &str,
    parameters: impl Iterator<Item = (&'static str, &'p str)>,
) -> String {
    let mut encoded = form_urlencoded::Serializer::new(String::new());
    encoded.extend_pairs(parameters);
    match encoded.finish() {
        none if none.is_empty() => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

/// Where the loop is.
#[derive(Debug, Default)]
struct Place {
    /// That of the last answer; 0 asks for an answer at once.
    index: u64,
    failures: u32,
    /// The last answer left nothing, and was not believed.
    is_doubted: bool,
}

/// Asks for `subject` until nobody holds it any more, each time when it has its turn.
pub(super) async fn follow<T: Subject>(subject: Weak<T>, polls: &Arc<Polls>, clock: &Clock) {
    let random = RandomState::new();
    let mut place = Place::default();
    let mut client = None;
    loop {
        let Some((agent, path)) = subject
            .upgrade()
            .map(|subject| (subject.agent().clone(), subject.path()))
        else {
            return;
        };
        let turn = polls.turn(place.index > 0).await;
        let asked = client.get_or_insert_with(|| {
            Client::new(agent.address.clone(), PATIENCE)
                .secured(agent.security.clone())
                .with_body_bytes_max(BODY_BYTES_MAX)
        });
        let wait = polls.wait(agent.wait);
        let answer = ask(asked, &agent, &path, place.index, wait).await;
        if polls.is_crowded() {
            // The next one whose turn it is needs the connection.
            client = None;
        }
        drop(turn);
        let Some(subject) = subject.upgrade() else {
            return;
        };
        let pause = take_over(&subject, answer, &mut place, &random, clock);
        drop(subject);
        tokio::time::sleep(pause).await;
    }
}

async fn ask(
    client: &mut Client,
    agent: &Agent,
    path: &str,
    index: u64,
    wait: Duration,
) -> Result<Received, String> {
    let (target, timeout) = if index > 0 {
        let separator = if path.contains('?') { '&' } else { '?' };
        let seconds = wait.as_secs();
        // Consul waits up to a sixteenth longer, so that not all come back at once.
        let timeout = wait + wait / 16 + PATIENCE;
        let target = format!("{path}{separator}index={index}&wait={seconds}s");
        (target, timeout)
    } else {
        (path.to_owned(), PATIENCE)
    };
    let mut request = Request::get(agent.address.target(&target))
        .header(header::HOST, &agent.address.authority)
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(token) = &agent.token {
        let mut token = HeaderValue::from_str(token.expose())
            .map_err(|_| "the token cannot be sent in a header".to_owned())?;
        token.set_sensitive(true);
        request = request.header(TOKEN, token);
    }
    let request = request
        .body(Full::<Bytes>::default())
        .map_err(|error| error.to_string())?;
    let received = client
        .send_within(request, timeout)
        .await
        .map_err(|failure| failure.to_string())?;
    match received.status {
        StatusCode::OK => Ok(received),
        status => Err(format!("consul answered {}", status.as_u16())),
    }
}

/// Takes an answer over. How long to wait before the next question.
fn take_over<T: Subject>(
    subject: &Arc<T>,
    answer: Result<Received, String>,
    place: &mut Place,
    random: &RandomState,
    clock: &Clock,
) -> Duration {
    let read = answer.and_then(|received| {
        let index = received.headers.get(INDEX);
        let index = index.and_then(|index| index.to_str().ok()?.parse().ok());
        Ok((index.unwrap_or(0), subject.read(&received.body)?))
    });
    let (name, agent) = (subject.name(), subject.agent());
    match read {
        Ok((index, list)) => {
            let was_down = place.failures > 0;
            place.failures = 0;
            let is_doubted = subject.leaves_nothing(&list) && !place.is_doubted;
            place.is_doubted = is_doubted;
            // An index that went back belongs to another history, which has to be read from its start.
            place.index = if is_doubted || index < place.index {
                0
            } else {
                index
            };
            subject.note(|standing| {
                *standing = Standing {
                    is_up: Some(true),
                    index,
                    last_success: Some(clock.unix_seconds()),
                    is_doubted,
                    ..Standing::default()
                };
            });
            if was_down {
                info!(name, ?agent, "consul answers again");
            }
            if is_doubted {
                warn!(
                    name,
                    ?agent,
                    "consul knows nothing of it any more: asking again"
                );
            } else {
                subject.adopt(list);
            }
            if place.index == 0 {
                PAUSE_WITHOUT_INDEX
            } else {
                PAUSE
            }
        }
        Err(cause) => {
            if place.failures == 0 {
                warn!(
                    name,
                    ?agent,
                    cause,
                    "consul does not answer: what is known stays"
                );
            }
            let pause = backoff(place.failures, random);
            // What comes next may be another Consul: its first answer must not wait for a change.
            *place = Place {
                failures: place.failures.saturating_add(1),
                ..Place::default()
            };
            subject.note_failure();
            subject.note(|standing| {
                standing.is_up = Some(false);
                standing.error = Some(cause);
                standing.failures = place.failures;
                standing.is_doubted = false;
            });
            pause
        }
    }
}

/// From 1 to 30 seconds, doubled with each failure, and up to a half less by chance.
fn backoff(failures: u32, random: &RandomState) -> Duration {
    let longest = BACKOFF_MIN.saturating_mul(1 << failures.min(16));
    let longest = longest.min(BACKOFF_MAX);
    let draw = u32::try_from(random.hash_one(failures) % 1000).unwrap_or(0);
    let less = longest / 2000 * draw;
    longest.saturating_sub(less).max(BACKOFF_MIN)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::state::consul::{Service, ServiceKey, tests::agent};

    struct Rig {
        service: Arc<Service>,
        place: Place,
    }

    impl Rig {
        fn new() -> Self {
            let key = ServiceKey {
                agent: agent("t"),
                service: "users".to_owned(),
                tags: Vec::new(),
                passing: true,
            };
            let service = Service::new(key, Arc::default(), CancellationToken::new());
            Self {
                service: Arc::new(service),
                place: Place::default(),
            }
        }

        /// How many instances are known behind this answer, and the index of the next question.
        fn answer(&mut self, index: &str, body: &str) -> (usize, u64) {
            let mut headers = HeaderMap::new();
            headers.insert(INDEX, HeaderValue::from_str(index).expect("a value"));
            self.take(Ok(Received {
                status: StatusCode::OK,
                headers,
                body: Bytes::copy_from_slice(body.as_bytes()),
            }))
        }

        fn fail(&mut self) -> (usize, u64) {
            self.take(Err("refused".to_owned()))
        }

        fn take(&mut self, answer: Result<Received, String>) -> (usize, u64) {
            let random = RandomState::new();
            let clock = Clock::system();
            take_over(&self.service, answer, &mut self.place, &random, &clock);
            (self.service.feed().records().len(), self.place.index)
        }
    }

    const ONE: &str = r#"[{"Service": {"Address": "10.0.0.1", "Port": 80}}]"#;

    #[test]
    fn an_index_that_went_back_or_is_none_begins_anew() {
        let mut rig = Rig::new();
        assert_eq!(rig.answer("7", ONE), (1, 7));
        assert_eq!(rig.answer("9", ONE), (1, 9));
        assert_eq!(rig.answer("3", ONE), (1, 0));
        assert_eq!(rig.answer("3", ONE), (1, 3));
        for none in ["0", "", "x", "-5"] {
            assert_eq!(rig.answer(none, ONE), (1, 0), "{none:?}");
        }
    }

    #[test]
    fn a_drop_to_zero_is_believed_when_it_was_seen_twice() {
        let mut rig = Rig::new();
        rig.answer("7", ONE);
        assert_eq!(rig.answer("8", "[]"), (1, 0));
        assert!(rig.service.standing().is_doubted);
        assert_eq!(rig.answer("8", ONE), (1, 8));
        assert_eq!(rig.answer("9", "[]"), (1, 0));
        assert_eq!(rig.fail(), (1, 0));
        assert_eq!(rig.answer("9", "[]"), (1, 0), "a failure lies between");
        assert_eq!(rig.answer("9", "[]"), (0, 9));
        assert!(!rig.service.standing().is_doubted);
    }

    #[test]
    fn nothing_at_first_is_an_answer_and_a_failure_is_none() {
        let mut rig = Rig::new();
        rig.fail();
        assert!(rig.service.feed().is_answered() && !rig.service.feed().is_known());
        assert_eq!(rig.service.standing().is_up, Some(false));
        rig.answer("1", "[]");
        assert!(rig.service.feed().is_known());
        assert_eq!(rig.service.standing().is_up, Some(true));
    }

    #[test]
    fn what_was_known_survives_failures_and_garbage() {
        let mut rig = Rig::new();
        rig.answer("7", ONE);
        assert_eq!(rig.fail(), (1, 0));
        assert_eq!(rig.answer("8", "<html>"), (1, 0));
        let standing = rig.service.standing();
        assert_eq!((standing.is_up, standing.failures), (Some(false), 2));
        assert!(
            standing
                .error
                .is_some_and(|error| error.contains("no list"))
        );
    }

    #[test]
    fn failures_are_retried_after_1_to_30_seconds() {
        let random = RandomState::new();
        assert_eq!(backoff(0, &random), BACKOFF_MIN);
        for failures in 0..100 {
            let pause = backoff(failures, &random);
            assert!((BACKOFF_MIN..=BACKOFF_MAX).contains(&pause), "{pause:?}");
        }
        assert!(backoff(50, &random) >= BACKOFF_MAX / 2);
    }
}

//! Whether a request goes upstream once more after a try that failed, when, and where not. It decides;
//! what a try is, and what it tells of its target, is elsewhere.

use std::time::{Duration, Instant};

use pingora_core::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session;

use super::{
    exchange::{Exchange, FailedTry, Forward, TryOutcome},
    failure, health, lease, verify,
};
use crate::{
    entity::reason::Reason,
    plugin::Reply,
    snapshot::{Retry, Route, Service},
    state::State,
    upstream::{Balancer, Member, search::Search},
};

/// What a try ends with whose status is one to try again for.
const REPEATED_STATUS: ErrorType = ErrorType::Custom("a status for which tries are repeated");
/// How long a request head may be that the kernel takes whole or not at all.
const ONE_WRITE_BYTES_MAX: usize = 1024;

/// How the tries of a request are repeated: as its route says, else as the service says.
pub(super) fn policy<'s>(route: &'s Route, service: &'s Service) -> &'s Retry {
    route.retry().unwrap_or(&service.retry)
}

impl Forward {
    /// Notes at `now` that the request is about to be forwarded, before its first try.
    pub(super) fn begin(&mut self, route: &Route, service: &Service, now: Instant) {
        if self.is_begun {
            return;
        }
        self.is_begun = true;
        // Without retries nobody asks what the requests are.
        if service.retries > 0 {
            service.budget.request(now);
        }
        let total = route.total_timeout().unwrap_or(service.total_timeout);
        self.deadline = total.and_then(|total| now.checked_add(total));
    }

    /// How long one try at `now` may wait, whatever the service says; `None`: as long as that.
    ///
    /// # Errors
    /// The answer, if the time for all tries is over.
    pub(super) fn patience(
        &self,
        policy: &Retry,
        now: Instant,
    ) -> Result<Option<Duration>, Box<Reply>> {
        let Some(deadline) = self.deadline else {
            return Ok(policy.per_try);
        };
        match deadline.saturating_duration_since(now) {
            Duration::ZERO => Err(Box::new(self.out_of_time(Reason::NoTarget))),
            left => Ok(Some(
                policy.per_try.map_or(left, |per_try| per_try.min(left)),
            )),
        }
    }

    /// The answer when the time for all tries is over. If none was made it has the `reason` why:
    /// waiting within the gateway says nothing of the upstream.
    pub(super) fn out_of_time(&self, reason: Reason) -> Reply {
        if self.has_tried() {
            failure::total_timeout()
        } else {
            failure::out_of_time(reason)
        }
    }

    /// Whether anybody was asked.
    pub(super) fn has_tried(&self) -> bool {
        self.tries > 0 || !self.failed_tries.is_empty()
    }

    /// Whether the time for all tries is over at `now`.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }
}

/// Decides on another try after no connection was made: nothing was sent, so any method may.
pub(super) fn after_connect_failure(exchange: &mut Exchange, error: &mut Error, state: &State) {
    if error.etype() == &ErrorType::InvalidCert {
        if let (Some(service), Some(dial)) = (exchange.service(), &exchange.forward.dial) {
            let to = exchange
                .forward
                .member
                .as_ref()
                .map(|member| member.address);
            verify::complain(service, (to, dial.server_name()), error, &state.clock);
        }
        after_bad_certificate(exchange, error, state);
        return;
    }
    note_failure(exchange, error, state);
    rule_out_member(exchange);
    decide(exchange, error, true, state);
}

/// Notes what the failure of a try shows of its target. If others had taken a part of the time for all tries, and it
/// is over, that is nothing.
fn note_failure(exchange: &mut Exchange, error: &Error, state: &State) {
    let is_timeout = matches!(
        error.etype(),
        ErrorType::ConnectTimedout | ErrorType::ReadTimedout | ErrorType::WriteTimedout
    );
    let forward = &mut exchange.forward;
    let was_cut_short =
        is_timeout && !forward.failed_tries.is_empty() && forward.is_late(state.clock.instant());
    if was_cut_short {
        forward.permit = None;
    } else {
        health::note_failure(exchange, error);
    }
}

/// Decides on another try after a connection failed.
///
/// A request that an HTTP/2 upstream says it did not look at may go again, whatever it is, and so may
/// one of which nothing was written. Else one of a method that may be repeated goes again until the
/// first byte of a response was passed on. Any other was sent, so its effect is unknown and it may
/// not. A connection from the pool that turned out to be closed says nothing of its target: that try
/// is repeated once on a new connection, and not counted; a stream that was reset is the target's
/// word. An upstream that is silent while the client still owes its body waits as we do: the client
/// is told.
pub(super) fn after_exchange_failure(
    session: &mut Session,
    exchange: &mut Exchange,
    error: &mut Error,
    from_pool: bool,
    state: &State,
) {
    lease::name_trouble(error);
    if error.etype() == &REPEATED_STATUS {
        error.set_retry(true);
        return;
    }
    if error.etype() == &ErrorType::InvalidCert {
        after_bad_certificate(exchange, error, state);
        return;
    }
    let is_upstreams = error.esource() == &ErrorSource::Upstream;
    if is_upstreams
        && error.etype() == &ErrorType::ReadTimedout
        && !session.as_downstream_mut().is_body_done()
    {
        let reply = if exchange.forward.is_late(state.clock.instant()) {
            failure::out_of_time(Reason::RequestTimeout)
        } else {
            failure::request_timeout()
        };
        exchange.outcome.failure = Some(Box::new(reply));
        error.set_retry(false);
        return;
    }
    let was_reset = h2_cause(error).is_some_and(h2::Error::is_reset);
    let is_stale = from_pool
        && !exchange.forward.is_stale_repeated
        && !was_reset
        && matches!(
            error.etype(),
            ErrorType::ConnectionClosed
                | ErrorType::ReadError
                | ErrorType::WriteError
                | ErrorType::H2Error
        );
    let is_safe = is_upstreams
        && can_be_replayed(session)
        && (may_go_again(exchange)
            || was_not_looked_at(error)
            || (is_stale && nothing_was_written(exchange, error)));
    if !is_stale {
        note_failure(exchange, error, state);
    }
    if is_safe && is_stale && !exchange.forward.is_late(state.clock.instant()) {
        note_failed_try(exchange, TryOutcome::Stale, state);
        let forward = &mut exchange.forward;
        forward.is_stale_repeated = true;
        forward.needs_new_connection = true;
        forward.tries = forward.tries.saturating_sub(1);
        error.set_retry(true);
        return;
    }
    rule_out_member(exchange);
    decide(exchange, error, is_safe, state);
}

/// Decides on another try after the certificate of a connection was not accepted: nothing was sent,
/// so any method may, but only somewhere else.
fn after_bad_certificate(exchange: &mut Exchange, error: &mut Error, state: &State) {
    health::note_failure(exchange, error);
    let has_another = with_search(exchange, |search, balancer, member| {
        search.distrust(balancer, member)
    });
    decide(exchange, error, has_another.unwrap_or(false), state);
}

/// Whether the request goes again because of the `status` of its response, of which nothing was passed
/// on yet.
///
/// # Errors
/// What ends this try, if so.
pub(super) fn check_status(
    session: &Session,
    exchange: &mut Exchange,
    status: u16,
    state: &State,
) -> pingora_core::Result<()> {
    let is_wanted = exchange
        .retry()
        .is_some_and(|retry| retry.statuses.contains(&status))
        && may_go_again(exchange)
        && can_be_replayed(session);
    if !is_wanted {
        return Ok(());
    }
    rule_out_member(exchange);
    if !may_try_again(exchange, state) {
        return Ok(());
    }
    note_failed_try(exchange, TryOutcome::Status(status), state);
    Err(Error::explain(REPEATED_STATUS, status.to_string()).into_up())
}

/// Notes that the try failed, and whether there is another.
fn decide(exchange: &mut Exchange, error: &mut Error, is_safe: bool, state: &State) {
    let another = is_safe && may_try_again(exchange, state);
    let is_upstreams = error.esource() == &ErrorSource::Upstream;
    if is_upstreams && let Some(reply) = failure::reply(error) {
        note_failed_try(exchange, TryOutcome::Failed(reply.reason), state);
    }
    if !another && is_upstreams && exchange.forward.is_late(state.clock.instant()) {
        exchange.outcome.failure = Some(Box::new(failure::total_timeout()));
    }
    error.set_retry(another);
}

/// Whether the number of tries, the time and the budget allow another; if so it is counted, and how
/// long it waits is settled.
fn may_try_again(exchange: &mut Exchange, state: &State) -> bool {
    let Exchange {
        snapshot,
        route,
        forward,
        ..
    } = exchange;
    let Some((route, service)) = route
        .and_then(|route| snapshot.routes.get(route))
        .and_then(|route| Some((route, snapshot.service(route, forward.directions.service)?)))
    else {
        return false;
    };
    if forward.tries > u32::from(service.retries) {
        return false;
    }
    let policy = policy(route, service);
    let pause = policy.pause(forward.tries, chance(state));
    let now = state.clock.instant();
    if forward.is_late(now + pause) {
        return false;
    }
    if let Some(share) = policy.budget
        && !has_untried(forward, service)
        && !service.budget.spend(share, now)
    {
        service.repeats.refused.inc();
        return false;
    }
    service.repeats.made.inc();
    forward.pause = pause;
    true
}

/// Whether a try may go where none went before.
fn has_untried(forward: &Forward, service: &Service) -> bool {
    let usable = |member: &Member| {
        let guard = forward.directions.guard.as_ref();
        guard.is_none_or(|guard| guard.check(&service.facts, member.address).is_ok())
    };
    forward.search.has_untried(&service.balancer, usable)
}

/// From 0 to 1, by chance.
fn chance(state: &State) -> f64 {
    // The first bits of a random UUID are all random.
    let bits = state.identifiers.uuid().as_u128() >> 96;
    f64::from(u32::try_from(bits).unwrap_or(0)) / f64::from(u32::MAX)
}

fn note_failed_try(exchange: &mut Exchange, outcome: TryOutcome, state: &State) {
    health::judge_try(exchange, outcome);
    let forward = &mut exchange.forward;
    if let (Some(member), Some(began)) = (&forward.member, forward.try_began.take()) {
        forward.failed_tries.push(FailedTry {
            address: member.address,
            outcome,
            took: state.clock.instant().saturating_duration_since(began),
        });
    }
}

/// Whether a request of its method may be sent again that its upstream may have seen.
fn may_go_again(exchange: &Exchange) -> bool {
    exchange
        .retry()
        .is_some_and(|retry| retry.methods.contains(&exchange.head.method))
}

/// Whether the whole request is still here, and nothing of a response was passed on.
fn can_be_replayed(session: &Session) -> bool {
    !session.as_ref().retry_buffer_truncated()
        && session
            .response_written()
            .is_none_or(|head| head.status.is_informational() && head.status != 101)
}

/// Whether an HTTP/2 upstream says that it did nothing for the request (RFC 9113 §8.7).
fn was_not_looked_at(error: &Error) -> bool {
    h2_cause(error).is_some_and(|cause| {
        cause.is_remote()
            && ((cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM))
                || (cause.is_go_away() && cause.reason() == Some(h2::Reason::NO_ERROR)))
    })
}

fn h2_cause(error: &Error) -> Option<&h2::Error> {
    error.root_cause().downcast_ref()
}

/// Whether the very first write on an idle connection was refused: a head this short is one write, of
/// which the kernel takes something or reports an error, never both.
fn nothing_was_written(exchange: &Exchange, error: &Error) -> bool {
    let is_plain = exchange
        .service()
        .is_some_and(|service| service.tls.is_none() && !service.protocol.is_grpc());
    let is_of_the_head = error
        .context
        .as_ref()
        .is_some_and(|context| context.as_str().contains("request header"));
    let head = &exchange.head;
    let fields = head.headers.iter();
    let bytes: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    let target = head.uri.path_and_query();
    let target_bytes = target.map_or(0, |target| target.as_str().len());
    is_plain
        && is_of_the_head
        && error.etype() == &ErrorType::WriteError
        && bytes + target_bytes <= ONE_WRITE_BYTES_MAX
}

/// Notes that the member of the current try is of no use.
fn rule_out_member(exchange: &mut Exchange) {
    with_search(exchange, |search, _, member| search.rule_out(member));
}

/// Tells the search something of the member of the current try.
fn with_search<T>(
    exchange: &mut Exchange,
    tell: impl FnOnce(&mut Search, &Balancer, &Member) -> T,
) -> Option<T> {
    let Exchange {
        snapshot,
        route,
        forward,
        ..
    } = exchange;
    let member = forward.member.as_ref()?;
    let route = snapshot.routes.get((*route)?)?;
    let service = snapshot.service(route, forward.directions.service)?;
    Some(tell(&mut forward.search, &service.balancer, member))
}

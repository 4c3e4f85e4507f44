//! How an upstream picks its members as it is written → as it runs.

use std::time::Duration;

use http::HeaderName;

use crate::{
    config::{
        Upstream,
        model::upstream::{self as written, HashInput},
    },
    upstream::{
        Algorithm,
        algorithm::{Cookie, Hashing, Input},
    },
};

/// The algorithm of an upstream.
pub(super) fn algorithm(upstream: &Upstream) -> Algorithm {
    match upstream.algorithm {
        written::Algorithm::RoundRobin => Algorithm::RoundRobin,
        written::Algorithm::LeastConnections => Algorithm::LeastConnections,
        written::Algorithm::Latency => Algorithm::Latency,
        written::Algorithm::ConsistentHashing => Algorithm::ConsistentHashing(Box::new(Hashing {
            on: input(upstream, upstream.hash_on, true),
            fallback: input(upstream, upstream.hash_fallback, false),
            slots: upstream.slots,
        })),
        written::Algorithm::StickySessions => {
            let name = upstream.sticky_sessions_cookie.as_deref();
            Algorithm::StickySessions(cookie(name, &upstream.sticky_sessions_cookie_path))
        }
    }
}

/// The time in which a new member gets its whole weight.
pub(super) fn slow_start(upstream: &Upstream) -> Duration {
    Duration::try_from_secs_f64(upstream.slow_start).unwrap_or_default()
}

/// What is hashed. Fields that it needs are there, or the configuration was refused.
fn input(upstream: &Upstream, input: HashInput, is_first: bool) -> Option<Input> {
    let text = |first: &Option<String>, second: &Option<String>| {
        if is_first { first } else { second }.clone()
    };
    let input = match input {
        HashInput::None => return None,
        HashInput::Consumer => Input::Consumer,
        HashInput::Ip => Input::Ip,
        HashInput::Header => {
            let name = text(&upstream.hash_on_header, &upstream.hash_fallback_header)?;
            Input::Header(HeaderName::try_from(name).ok()?)
        }
        HashInput::Cookie => {
            let name = upstream.hash_on_cookie.as_deref();
            Input::Cookie(cookie(name, &upstream.hash_on_cookie_path))
        }
        HashInput::Path => Input::Path,
        HashInput::QueryArg => Input::QueryArg(text(
            &upstream.hash_on_query_arg,
            &upstream.hash_fallback_query_arg,
        )?),
        HashInput::UriCapture => Input::UriCapture(text(
            &upstream.hash_on_uri_capture,
            &upstream.hash_fallback_uri_capture,
        )?),
    };
    Some(input)
}

fn cookie(name: Option<&str>, path: &str) -> Cookie {
    Cookie {
        name: name.unwrap_or_default().to_owned(),
        path: path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_has_its_own_fields_and_cookies_share_theirs() {
        let upstream = Upstream {
            algorithm: written::Algorithm::ConsistentHashing,
            hash_on: HashInput::Header,
            hash_on_header: Some("X-User".to_owned()),
            hash_fallback: HashInput::Cookie,
            hash_on_cookie: Some("sid".to_owned()),
            ..Upstream::default()
        };
        let Algorithm::ConsistentHashing(hashing) = algorithm(&upstream) else {
            unreachable!("that is what is written");
        };
        assert_eq!(
            hashing.on,
            Some(Input::Header(HeaderName::from_static("x-user")))
        );
        let cookie = cookie(Some("sid"), "/");
        assert_eq!(hashing.fallback, Some(Input::Cookie(cookie)));
    }

    #[test]
    fn a_slow_start_may_have_fractions_of_a_second() {
        let upstream = Upstream {
            slow_start: 0.5,
            ..Upstream::default()
        };
        assert_eq!(slow_start(&upstream), Duration::from_millis(500));
    }
}

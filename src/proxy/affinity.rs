//! What of a request decides where it goes, for the algorithms that ask for it, and the cookies by
//! which the next request of a client finds the same place.

use http::{HeaderValue, header};
use uuid::Uuid;

use super::{
    exchange::{Exchange, Forward},
    receive::raw_path,
};
use crate::{
    entity::message::Headers,
    snapshot::Service,
    upstream::{
        Algorithm, Key,
        algorithm::{Cookie, Hashing, Input},
    },
};

/// What the balancer of `service` asks of the request: a key, and where a cookie was
/// asked for that the request does not have, the one that it gets.
pub(super) fn key(service: &Service, exchange: &Exchange) -> (Key, Option<HeaderValue>) {
    match service.balancer.algorithm() {
        Algorithm::RoundRobin | Algorithm::LeastConnections | Algorithm::Latency => {
            (Key::Nothing, None)
        }
        Algorithm::ConsistentHashing(hashing) => {
            let read = hashed_by(hashing, |input| read(input, exchange));
            read.map_or((Key::Nothing, None), |(_, key, cookie)| (key, cookie))
        }
        Algorithm::StickySessions(cookie) => {
            let id = value_of(&exchange.head.headers, &cookie.name);
            let id = id.and_then(|id| std::str::from_utf8(id).ok());
            let id = id.and_then(|id| u64::from_str_radix(id, 16).ok());
            (id.map_or(Key::Nothing, Key::Session), None)
        }
    }
}

/// The input that decides, of those that the request has.
pub(super) fn deciding<'s>(service: &'s Service, exchange: &Exchange) -> Option<&'s Input> {
    match service.balancer.algorithm() {
        Algorithm::ConsistentHashing(hashing) => {
            hashed_by(hashing, |input| read(input, exchange)).map(|(input, ..)| input)
        }
        _ => None,
    }
}

/// The cookie for the response, where the client is to bring one next time and does not have it.
pub(super) fn cookie(service: &Service, forward: &Forward) -> Option<HeaderValue> {
    if let Some(cookie) = &forward.cookie {
        return Some(cookie.clone());
    }
    let Algorithm::StickySessions(cookie) = service.balancer.algorithm() else {
        return None;
    };
    let session = forward.member.as_ref()?.session;
    if forward.key == Key::Session(session) {
        return None;
    }
    set_cookie(cookie, &format!("{session:016x}"))
}

/// What was read of an input: its key, and the cookie that comes into being by that.
type Read = (Key, Option<HeaderValue>);

fn hashed_by(
    hashing: &Hashing,
    read: impl Fn(&Input) -> Option<Read>,
) -> Option<(&Input, Key, Option<HeaderValue>)> {
    let mut inputs = [&hashing.on, &hashing.fallback].into_iter().flatten();
    inputs.find_map(|input| read(input).map(|(key, cookie)| (input, key, cookie)))
}

/// What the request has for `input`; what is empty counts as missing.
fn read(input: &Input, exchange: &Exchange) -> Option<Read> {
    let head = &exchange.head;
    let key = |value: &[u8]| (!value.is_empty()).then(|| (Key::of_value(value), None));
    let normal_path = exchange.normal_path.as_deref();
    let path = || normal_path.unwrap_or_else(|| raw_path(head));
    match input {
        Input::Consumer => match exchange.consumer() {
            Some(consumer) => key(consumer.id_header.as_bytes()),
            None => key(exchange.identity.credential.as_ref()?.as_bytes()),
        },
        Input::Ip => Some((Key::of_ip(exchange.client.ip), None)),
        Input::Header(name) => {
            let mut lines = head.headers.get_all(name);
            let first = lines.next()?.as_bytes();
            match lines.next() {
                None => key(first),
                Some(second) => {
                    let lines = [first, second.as_bytes()].into_iter();
                    let rest = head.headers.get_all(name).skip(2);
                    let lines: Vec<&[u8]> = lines.chain(rest.map(HeaderValue::as_bytes)).collect();
                    key(&lines.join(&b", "[..]))
                }
            }
        }
        Input::Cookie(cookie) => {
            if let Some(value) = value_of(&head.headers, &cookie.name) {
                return key(value);
            }
            let fresh = Uuid::new_v4().hyphenated().to_string();
            Some((Key::of_value(fresh.as_bytes()), set_cookie(cookie, &fresh)))
        }
        Input::Path => key(path()),
        Input::QueryArg(name) => {
            let query = exchange
                .forward
                .directions
                .query
                .as_deref()
                .or_else(|| head.uri.query())?;
            let pairs = form_urlencoded::parse(query.as_bytes());
            let mut values: Vec<_> = pairs
                .filter(|(found, _)| found == name)
                .map(|(_, value)| value)
                .collect();
            values.sort_unstable();
            key(values.join(",").as_bytes())
        }
        Input::UriCapture(group) => {
            let regex = exchange.snapshot.router.regex(exchange.pattern?);
            let captures = regex.captures(path())?;
            let found = match group.parse() {
                Ok(number) => captures.get(number),
                Err(_) => captures.name(group),
            };
            key(found?.as_bytes())
        }
    }
}

/// The value of a cookie that is not empty.
pub(super) fn value_of<'h>(headers: &'h Headers, name: &str) -> Option<&'h [u8]> {
    let lines = headers.get_all(header::COOKIE);
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let (found, value) = pair.split_at_checked(pair.iter().position(|byte| *byte == b'=')?)?;
        let value = value.get(1..)?.trim_ascii();
        (found.trim_ascii() == name.as_bytes() && !value.is_empty()).then_some(value)
    })
}

fn set_cookie(cookie: &Cookie, value: &str) -> Option<HeaderValue> {
    let Cookie { name, path } = cookie;
    let text = format!("{name}={value}; Path={path}; HttpOnly; SameSite=Lax");
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_in_any_line_and_place() {
        let mut headers = Headers::default();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; sid=x=y ;b"));
        headers.append(header::COOKIE, HeaderValue::from_static("sid2=2"));
        assert_eq!(value_of(&headers, "sid"), Some(&b"x=y"[..]));
        assert_eq!(value_of(&headers, "sid2"), Some(&b"2"[..]));
        assert_eq!(value_of(&headers, "b"), None);
        assert_eq!(value_of(&headers, "si"), None);
    }

    #[test]
    fn a_cookie_is_for_the_gateway_alone() {
        let cookie = Cookie {
            name: "sid".into(),
            path: "/a".into(),
        };
        let value = set_cookie(&cookie, "1").expect("a header");
        assert_eq!(value, "sid=1; Path=/a; HttpOnly; SameSite=Lax");
    }
}

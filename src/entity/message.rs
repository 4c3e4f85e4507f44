//! Heads of messages: a request line or a status, and the fields behind it in the order in which they came.

use std::borrow::Borrow;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, request};

use super::fields::Fields;

/// Room for what is usually added to a head.
const ADDED_LINES: usize = 12;

/// The fields of a head, line by line.
///
/// A look-up walks over the lines, unless a glance tells that there is none of that name. Heads have few, so that
/// is less work than to hash names, and what is set goes to the end without a search for its place.
#[derive(Debug, Default, Clone)]
pub struct Headers {
    lines: Vec<Line>,
    /// A bit for every mark that a line has or had; several marks share one.
    seen: u64,
}

#[derive(Debug, Clone)]
struct Line {
    mark: Mark,
    field: Fields,
    name: HeaderName,
    value: HeaderValue,
}

/// Tells most names apart at a glance: the length and the end, where names differ that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark(u64);

impl Mark {
    fn of(name: &HeaderName) -> Self {
        let name = name.as_str().as_bytes();
        let end = name.last_chunk::<7>();
        let end = end.map_or(0, |&[a, b, c, d, e, f, g]| {
            u64::from_le_bytes([a, b, c, d, e, f, g, 0])
        });
        Self((end << 8) | (name.len() as u64 & 0xff))
    }

    /// One of 64 bits.
    const fn bit(self) -> u64 {
        // Fibonacci hashing: the upper bits of the product depend on all of the mark.
        1 << (self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58)
    }
}

impl Headers {
    /// No fields, with room for `lines`.
    pub fn with_capacity(lines: usize) -> Self {
        Self {
            lines: Vec::with_capacity(lines),
            seen: 0,
        }
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The value of the first line of `name`.
    pub fn get(&self, name: impl Borrow<HeaderName>) -> Option<&HeaderValue> {
        self.get_all(name).next()
    }

    /// The values of all lines of `name`.
    pub fn get_all<N: Borrow<HeaderName>>(&self, name: N) -> impl Iterator<Item = &HeaderValue> {
        let mark = Mark::of(name.borrow());
        let lines = self.lines_like(mark).iter();
        lines.filter_map(move |line| line.is(name.borrow(), mark).then_some(&line.value))
    }

    /// All lines, or none if none has this mark.
    fn lines_like(&self, mark: Mark) -> &[Line] {
        if self.seen & mark.bit() == 0 {
            return &[];
        }
        &self.lines
    }

    /// Whether there is a line of `name`.
    pub fn contains_key(&self, name: impl Borrow<HeaderName>) -> bool {
        self.get(name).is_some()
    }

    /// Every line.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.lines.iter().map(|line| (&line.name, &line.value))
    }

    /// Every line, with what is special about its name.
    pub fn iter_fields(&self) -> impl Iterator<Item = (Fields, &HeaderName, &HeaderValue)> {
        let lines = self.lines.iter();
        lines.map(|line| (line.field, &line.name, &line.value))
    }

    /// What is special about the names.
    pub fn fields(&self) -> Fields {
        let lines = self.lines.iter();
        lines.fold(Fields::default(), |fields, line| fields.and(line.field))
    }

    /// The names, each once.
    pub fn keys(&self) -> impl Iterator<Item = &HeaderName> {
        let lines = self.lines.iter().enumerate();
        lines.filter_map(|(place, line)| {
            let mut before = self.lines.iter().take(place);
            before
                .all(|other| !other.is(&line.name, line.mark))
                .then_some(&line.name)
        })
    }

    /// Makes `value` the only line of `name`.
    pub fn insert<N: Borrow<HeaderName> + Into<HeaderName>>(
        &mut self,
        name: N,
        value: HeaderValue,
    ) {
        let mark = Mark::of(name.borrow());
        let same = |line: &Line| line.is(name.borrow(), mark);
        let Some(first) = self.lines_like(mark).iter().position(same) else {
            return self.push(mark, name.into(), value);
        };
        let mut place = 0;
        self.lines.retain(|line| {
            place += 1;
            place <= first + 1 || !same(line)
        });
        if let Some(line) = self.lines.get_mut(first) {
            line.value = value;
        }
    }

    /// Adds a line behind all others.
    pub fn append(&mut self, name: impl Into<HeaderName>, value: HeaderValue) {
        let name = name.into();
        self.push(Mark::of(&name), name, value);
    }

    fn push(&mut self, mark: Mark, name: HeaderName, value: HeaderValue) {
        self.seen |= mark.bit();
        self.lines.push(Line {
            mark,
            field: Fields::of_name(name.as_str()),
            name,
            value,
        });
    }

    /// Removes every line whose name is not to stay.
    pub fn retain(&mut self, stays: impl Fn(&HeaderName) -> bool) {
        self.lines.retain(|line| stays(&line.name));
    }

    /// Removes every line of `name`. Whether there was one.
    pub fn remove(&mut self, name: impl Borrow<HeaderName>) -> bool {
        let mark = Mark::of(name.borrow());
        if self.lines_like(mark).is_empty() {
            return false;
        }
        let before = self.lines.len();
        self.lines.retain(|line| !line.is(name.borrow(), mark));
        self.lines.len() < before
    }
}

impl Line {
    /// Whether it is of `name`, which has this mark.
    fn is(&self, name: &HeaderName, mark: Mark) -> bool {
        self.mark == mark && self.name == *name
    }
}

impl FromIterator<(HeaderName, HeaderValue)> for Headers {
    fn from_iter<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(lines: I) -> Self {
        let mut headers = Self::default();
        for (name, value) in lines {
            headers.append(name, value);
        }
        headers
    }
}

impl From<HeaderMap> for Headers {
    fn from(map: HeaderMap) -> Self {
        let mut headers = Self::with_capacity(map.len() + ADDED_LINES);
        let mut last = None;
        for (name, value) in map {
            // Further lines of a name come without it.
            let Some(name) = name.or_else(|| last.clone()) else {
                continue;
            };
            headers.append(name.clone(), value);
            last = Some(name);
        }
        headers
    }
}

impl From<Headers> for HeaderMap {
    fn from(headers: Headers) -> Self {
        let mut map = Self::with_capacity(headers.lines.len());
        for line in headers.lines {
            map.append(line.name, line.value);
        }
        map
    }
}

/// The head of a request.
#[derive(Debug, Default, Clone)]
pub struct RequestHead {
    pub method: Method,
    /// Path and query, or `*`.
    pub uri: Uri,
    pub version: Version,
    pub headers: Headers,
}

impl From<request::Parts> for RequestHead {
    fn from(parts: request::Parts) -> Self {
        Self {
            method: parts.method,
            uri: parts.uri,
            version: parts.version,
            headers: parts.headers.into(),
        }
    }
}

/// The head of a response.
#[derive(Debug, Default, Clone)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub version: Version,
    pub headers: Headers,
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, COOKIE, HOST};

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> Headers {
        let line = |&(name, value): &_| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        lines.iter().map(line).collect()
    }

    fn shown(headers: &Headers) -> Vec<String> {
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().expect("text"))
        };
        headers.iter().map(line).collect()
    }

    #[test]
    fn lines_keep_their_order_and_what_is_inserted_replaces_all_of_its_name() {
        let mut headers = headers(&[("cookie", "a"), ("host", "h"), ("cookie", "b"), ("te", "x")]);

        assert_eq!(
            headers.get(COOKIE).map(HeaderValue::as_bytes),
            Some(&b"a"[..])
        );
        assert_eq!(headers.get_all(&COOKIE).count(), 2);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["cookie", "host", "te"]);

        headers.insert(COOKIE, HeaderValue::from_static("c"));
        headers.insert(&ACCEPT, HeaderValue::from_static("d"));

        assert_eq!(
            shown(&headers),
            ["cookie: c", "host: h", "te: x", "accept: d"]
        );
        assert!(headers.remove(HOST));
        assert!(!headers.remove(&HOST));
        assert_eq!(headers.len(), 3);
    }

    #[test]
    fn names_of_one_bit_do_not_stand_in_for_each_other() {
        let mut headers = Headers::default();
        // Of more than 64 names some share their bit.
        let names = (0..100).map(|number| format!("x-{number}").parse().expect("a name"));
        let names: Vec<HeaderName> = names.collect();
        for (number, name) in (0_u64..).zip(&names) {
            assert!(!headers.contains_key(name), "{name}");
            assert!(!headers.remove(name), "{name}");
            headers.insert(name, number.into());
        }
        for (number, name) in names.iter().enumerate() {
            let value = headers.get(name).map(HeaderValue::as_bytes);
            assert_eq!(value, Some(number.to_string().as_bytes()), "{name}");
        }
        assert_eq!(headers.len(), names.len());
    }

    #[test]
    fn the_fields_are_those_of_the_lines_that_are_there() {
        let mut headers = headers(&[("host", "h"), ("x-forwarded-for", "a"), ("accept", "*")]);
        let all = Fields::HOST.and(Fields::FORWARDED_FOR).and(Fields::X);
        assert_eq!(headers.fields(), all);
        headers.remove(HOST);
        assert_eq!(headers.fields(), Fields::FORWARDED_FOR.and(Fields::X));
        headers.retain(|_| false);
        assert_eq!(headers.fields(), Fields::default());
    }

    #[test]
    fn a_map_and_back_keeps_every_line() {
        let headers = headers(&[("cookie", "a"), ("cookie", "b"), ("host", "h")]);

        let map = HeaderMap::from(headers);

        assert_eq!(map.get_all(COOKIE).iter().count(), 2);
        assert_eq!(
            shown(&Headers::from(map)),
            ["cookie: a", "cookie: b", "host: h"]
        );
    }
}

//! Header access of the views: thin, so that a header map is touched once and never copied.

use http::{HeaderName, HeaderValue, request, response};

/// The headers of the request: what the client sent, and what will go upstream.
#[derive(Debug)]
pub struct RequestHeaders<'a>(pub(super) &'a mut request::Parts);

impl RequestHeaders<'_> {
    /// The first value of `name`.
    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.0.headers.get(name)
    }

    /// All values of `name`, one for each line.
    pub fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &HeaderValue> {
        self.0.headers.get_all(name).iter()
    }

    /// Whether there is a header `name`.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.0.headers.contains_key(name)
    }

    /// The name of every header, once each.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.headers.keys()
    }

    /// Every header in order; a repeated name comes once for each line.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.headers.iter()
    }

    /// Replaces every line of `name` by one.
    pub fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        self.0.headers.insert(name.clone(), value);
    }

    /// Removes every line of `name`.
    pub fn remove(&mut self, name: &HeaderName) {
        self.0.headers.remove(name);
    }
}

/// The headers of the response on its way to the client.
#[derive(Debug)]
pub struct ResponseHeaders<'a>(pub(super) &'a mut response::Parts);

impl ResponseHeaders<'_> {
    /// The first value of `name`.
    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.0.headers.get(name)
    }

    /// Replaces every line of `name` by one.
    pub fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        self.0.headers.insert(name.clone(), value);
    }

    /// Removes every line of `name`.
    pub fn remove(&mut self, name: &HeaderName) {
        self.0.headers.remove(name);
    }
}

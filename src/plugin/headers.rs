//! Header access of the views: thin, so that headers are touched once and never copied.

use http::{HeaderName, HeaderValue};

use crate::entity::message::Headers;

/// The headers of the request: what the client sent, and what will go upstream.
#[derive(Debug)]
pub struct RequestHeaders<'a>(pub(super) &'a mut Headers);

impl RequestHeaders<'_> {
    /// The first value of `name`.
    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.0.get(name)
    }

    /// All values of `name`, one for each line.
    pub fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &HeaderValue> {
        self.0.get_all(name)
    }

    /// Whether there is a header `name`.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.0.contains_key(name)
    }

    /// Every header in order; a repeated name comes once for each line.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter()
    }

    /// Replaces every line of `name` by one.
    pub fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        self.0.insert(name, value);
    }

    /// Sets `name`, of which there is no line.
    pub(super) fn add(&mut self, name: &HeaderName, value: HeaderValue) {
        self.0.append(name, value);
    }

    /// Removes every line of `name`.
    pub fn remove(&mut self, name: &HeaderName) {
        self.0.remove(name);
    }
}

/// The headers of the response on its way to the client.
#[derive(Debug)]
pub struct ResponseHeaders<'a>(pub(super) &'a mut Headers);

impl ResponseHeaders<'_> {
    /// The first value of `name`.
    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.0.get(name)
    }

    /// Replaces every line of `name` by one.
    pub fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        self.0.insert(name, value);
    }

    /// Removes every line of `name`.
    pub fn remove(&mut self, name: &HeaderName) {
        self.0.remove(name);
    }
}

//! Whether a request has what a rule asks for.

use std::{borrow::Cow, collections::BTreeMap};

use http::{HeaderName, header::COOKIE};

use super::{TrafficSplit, configuration::When};
use crate::{
    entity::consumer::{ConsumerIndex, GroupIndex},
    plugin::{ConfigError, Env, Request},
};

/// A name with the values that will do.
type Wanted<N> = (N, Box<[Box<[u8]>]>);

/// What a request must have; what is empty is not asked for.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    headers: Box<[Wanted<HeaderName>]>,
    cookies: Box<[Wanted<Box<[u8]>>]>,
    query: Box<[Wanted<Box<str>>]>,
    consumers: Box<[ConsumerIndex]>,
    groups: Box<[GroupIndex]>,
}

impl Conditions {
    /// Reads the conditions of the rule at `place`.
    ///
    /// # Errors
    /// A list without values, something that is no name of a header, somebody who is unknown.
    pub(super) fn read(
        place: &str,
        when: Option<&When>,
        env: &Env<'_, TrafficSplit>,
    ) -> Result<Self, ConfigError> {
        let Some(when) = when else {
            return Ok(Self::default());
        };
        let place = format!("{place}.when");
        let header = |name: &str| {
            name.parse::<HeaderName>().map_err(|_| {
                let message = format!("`{name}` is not a header name");
                ConfigError::at(format!("{place}.headers"), message)
            })
        };
        let consumers = when.consumers.iter().enumerate();
        let groups = when.consumer_groups.iter().enumerate();
        Ok(Self {
            headers: wanted(&format!("{place}.headers"), &when.headers, header)?,
            cookies: wanted(&format!("{place}.cookies"), &when.cookies, |name| {
                Ok(name.as_bytes().into())
            })?,
            query: wanted(&format!("{place}.query"), &when.query, |name| {
                Ok(name.into())
            })?,
            consumers: consumers
                .map(|(index, name)| env.consumer(format!("{place}.consumers[{index}]"), name))
                .collect::<Result<_, _>>()?,
            groups: groups
                .map(|(index, name)| {
                    env.consumer_group(format!("{place}.consumer_groups[{index}]"), name)
                })
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether `request` has all of it.
    pub(super) fn hold(&self, request: &Request<'_>) -> bool {
        self.headers.iter().all(|(name, values)| {
            let mut lines = request.headers.get_all(name);
            lines.any(|line| is_one_of(line.as_bytes(), values))
        }) && self.cookies.iter().all(|(name, values)| {
            cookies(request).any(|(cookie, value)| cookie == &**name && is_one_of(value, values))
        }) && self.query.iter().all(|(name, values)| {
            let arguments = form_urlencoded::parse(request.query().unwrap_or_default().as_bytes());
            let mut named = arguments.filter(|(argument, _)| *argument == **name);
            named.any(|(_, value)| is_one_of(value.as_bytes(), values))
        }) && self.is_from_one_of_them(request)
    }

    fn is_from_one_of_them(&self, request: &Request<'_>) -> bool {
        if self.consumers.is_empty() && self.groups.is_empty() {
            return true;
        }
        let caller = request.about.consumers.caller(request.identity.consumer);
        let is_listed = |consumer| self.consumers.contains(&consumer);
        (self.consumers.is_empty() || caller.consumer.is_some_and(is_listed))
            && (self.groups.is_empty()
                || caller
                    .groups
                    .iter()
                    .any(|group| self.groups.contains(group)))
    }
}

/// The cookies of a request, in order: name and value.
pub(super) fn cookies<'r>(request: &'r Request<'_>) -> impl Iterator<Item = (&'r [u8], &'r [u8])> {
    let lines = request.headers.get_all(&COOKIE);
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| {
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            let (name, value) = pair.split_at_checked(equals)?;
            Some((name.trim_ascii(), value.get(1..)?.trim_ascii()))
        })
}

fn is_one_of(value: &[u8], wanted: &[Box<[u8]>]) -> bool {
    wanted.iter().any(|wanted| **wanted == *value)
}

fn wanted<N>(
    place: &str,
    written: &BTreeMap<String, Vec<String>>,
    name: impl Fn(&str) -> Result<N, ConfigError>,
) -> Result<Box<[Wanted<N>]>, ConfigError> {
    written
        .iter()
        .map(|(written, values)| {
            if values.is_empty() {
                let message = format!("`{written}` has no value, so no request could fit");
                return Err(ConfigError::at(Cow::Owned(place.to_owned()), message));
            }
            let values = values.iter().map(|value| value.as_bytes().into());
            Ok((name(written)?, values.collect()))
        })
        .collect()
}

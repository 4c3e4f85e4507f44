//! How a plugin ends a request: with a reply of its own, or with a fault that the gateway answers.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;
use thiserror::Error;

use crate::entity::reason::Reason;

/// Ends the access phase.
#[derive(Debug)]
pub enum Halt {
    /// An answer to the client.
    Reply(Box<Reply>),
    /// Trouble of ours: logged once, counted, answered 500 with a body that reveals nothing.
    Fault(Fault),
}

/// What went wrong inside a plugin. The text goes to the log only.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// A response that the gateway writes itself. The proxy adds the usual headers and, for a message,
/// formats the body by the client's `Accept`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub reason: Reason,
    pub body: Body,
    pub headers: SmallVec<[(HeaderName, HeaderValue); 2]>,
}

/// The body of a [`Reply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A sentence for the client, formatted as JSON, HTML, XML or plain text by its `Accept`.
    Message(Cow<'static, str>),
    /// Bytes as they are.
    Raw {
        content_type: HeaderValue,
        bytes: Bytes,
    },
    Empty,
}

impl Reply {
    /// A reply with a message.
    pub fn message(status: u16, reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            reason,
            body: Body::Message(message.into()),
            headers: SmallVec::new(),
        }
    }

    /// A reply without a body.
    pub fn empty(status: u16, reason: Reason) -> Self {
        Self {
            status,
            reason,
            body: Body::Empty,
            headers: SmallVec::new(),
        }
    }

    /// A reply with bytes as they are.
    pub fn raw(status: u16, reason: Reason, content_type: HeaderValue, bytes: Bytes) -> Self {
        Self {
            status,
            reason,
            body: Body::Raw {
                content_type,
                bytes,
            },
            headers: SmallVec::new(),
        }
    }

    /// The same reply with one more header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl From<Reply> for Halt {
    fn from(reply: Reply) -> Self {
        Self::Reply(Box::new(reply))
    }
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

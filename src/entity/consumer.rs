//! A consumer, the groups of consumers, and how a request names them.

use http::HeaderValue;
use uuid::Uuid;

use super::identifier::uuid_header;

/// The place of a consumer in the directory, [`super::consumers::Consumers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerIndex(pub u32);

/// A consumer: somebody who uses the APIs behind the gateway.
///
/// At least one of `username` and `custom_id` is there. The `*_header` fields hold the same texts
/// ready to be sent upstream, so that no request formats them again.
#[derive(Debug, Clone)]
pub struct Consumer {
    pub id: Uuid,
    pub username: Option<String>,
    pub custom_id: Option<String>,
    pub tags: Vec<String>,
    pub id_header: HeaderValue,
    pub username_header: Option<HeaderValue>,
    pub custom_id_header: Option<HeaderValue>,
}

impl Consumer {
    /// Builds a consumer. Control characters in the names were refused by the configuration check;
    /// a name that is no header value all the same is simply not sent upstream.
    pub fn new(
        id: Uuid,
        username: Option<String>,
        custom_id: Option<String>,
        tags: Vec<String>,
    ) -> Self {
        let header = |text: &Option<String>| {
            text.as_ref()
                .and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok())
        };
        Self {
            id,
            id_header: uuid_header(id),
            username_header: header(&username),
            custom_id_header: header(&custom_id),
            username,
            custom_id,
            tags,
        }
    }

    /// The name for logs and metrics: `username`, else `custom_id`, else the id.
    pub fn label(&self) -> String {
        self.username
            .clone()
            .or_else(|| self.custom_id.clone())
            .unwrap_or_else(|| self.id.to_string())
    }
}

/// The place of a consumer group in the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupIndex(pub u32);

/// A consumer group: consumers that share plugins.
#[derive(Debug, Clone)]
pub struct ConsumerGroup {
    pub id: Uuid,
    pub name: String,
}

/// Whose request it is, as far as plugins are chosen by that.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller<'a> {
    pub consumer: Option<ConsumerIndex>,
    /// The consumer's groups, by name.
    pub groups: &'a [GroupIndex],
}

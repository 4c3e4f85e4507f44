//! A hash of what a configuration says, whatever it looks like: comments, whitespace and the order of keys do not count.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::check::IGNORED_KEYS;
use super::consul_files::ConsulFiles;
use super::model::{Document, EntityKind};
use super::node::{Entry, Kind, Node};
use super::pem_files::PemFile;

/// 32 hex digits that change when, and only when, the configuration does. `files`, `consul` and `texts` are what stands
/// in files that it names.
pub(super) fn of<'f>(
    documents: &[Arc<Document>],
    files: impl Iterator<Item = &'f PemFile>,
    consul: &ConsulFiles,
    texts: &[String],
) -> String {
    let mut hasher = Hasher(Sha256::new());
    for kind in EntityKind::ALL {
        hasher.tag(b'L', kind.list().as_bytes());
        for document in documents {
            for entity in document
                .root
                .get(kind.list())
                .map(Node::items)
                .unwrap_or_default()
            {
                hasher.node(entity, true);
            }
        }
    }
    for document in documents {
        for path in ["_transform", "_info.skip_hash_for_basic_auth"] {
            if let Some(switch) = document.root.at(path) {
                hasher.tag(b'T', path.as_bytes());
                hasher.node(switch, false);
            }
        }
    }
    if let Some(gateway) = documents
        .iter()
        .find_map(|document| document.root.get("gateway"))
    {
        hasher.node(gateway, false);
    }
    for text in texts {
        hasher.tag(b'f', text.as_bytes());
    }
    for file in files {
        hasher.tag(b'F', file.text.expose().as_bytes());
    }
    for text in consul.texts() {
        hasher.tag(b'C', text.expose().as_bytes());
    }
    let digest = hasher.0.finalize();
    digest
        .iter()
        .take(16)
        .fold(String::with_capacity(32), |mut text, byte| {
            for digit in [byte >> 4, byte & 15] {
                text.extend(char::from_digit(u32::from(digit), 16));
            }
            text
        })
}

struct Hasher(Sha256);

impl Hasher {
    /// The length goes in too, so that no two different trees give the same bytes.
    fn tag(&mut self, tag: u8, bytes: &[u8]) {
        self.0.update([tag]);
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// `entity`: keys that every entity may carry and nobody reads do not count.
    fn node(&mut self, node: &Node, entity: bool) {
        match &node.kind {
            Kind::Null => self.tag(b'0', &[]),
            Kind::Bool(value) => self.tag(b'b', &[u8::from(*value)]),
            Kind::Integer(value) => self.tag(b'i', &value.to_le_bytes()),
            Kind::Float(value) => self.tag(b'f', &value.to_bits().to_le_bytes()),
            Kind::String(text) => self.tag(b's', text.as_bytes()),
            Kind::Sequence(items) => {
                self.tag(b'l', &(items.len() as u64).to_le_bytes());
                for item in items {
                    self.node(item, entity);
                }
            }
            Kind::Mapping(entries) => self.mapping(entries, entity),
        }
    }

    fn mapping(&mut self, entries: &[Entry], entity: bool) {
        let counts = |entry: &&Entry| {
            let ignored = entity && IGNORED_KEYS.contains(&entry.key.as_str());
            !ignored && !entry.value.is_null()
        };
        let mut sorted: Vec<&Entry> = entries.iter().filter(counts).collect();
        sorted.sort_by(|left, right| left.key.cmp(&right.key));
        self.tag(b'm', &(sorted.len() as u64).to_le_bytes());
        for entry in sorted {
            self.tag(b'k', entry.key.as_bytes());
            self.node(&entry.value, entity && entry.key != "config");
        }
    }
}

//! Duplicate keys are reported and removed, `<<` merges put in their place.

use std::collections::HashMap;

use super::super::diagnostics::{Code, Diagnostics};
use super::super::node::{Entry, Kind, Node, Path};

/// Removes duplicate keys, with a diagnostic each, and puts `<<` merges in their place.
pub(super) struct Cleaner<'a> {
    pub(super) diagnostics: &'a mut Diagnostics,
}

impl Cleaner<'_> {
    pub(super) fn clean(&mut self, node: &mut Node, path: Path<'_>) {
        match &mut node.kind {
            Kind::Sequence(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.clean(item, path.index(index));
                }
            }
            Kind::Mapping(entries) => {
                self.remove_duplicates(entries, path);
                for entry in entries.iter_mut() {
                    let Entry { key, value, .. } = entry;
                    self.clean(value, path.key(key));
                }
                if entries.iter().any(|entry| entry.key == "<<") {
                    self.merge(entries, path);
                }
            }
            _ => {}
        }
    }

    fn remove_duplicates(&mut self, entries: &mut Vec<Entry>, path: Path<'_>) {
        let mut first: HashMap<&str, u32> = HashMap::new();
        let mut duplicates = Vec::new();
        if entries.len() <= 16 {
            for (index, entry) in entries.iter().enumerate() {
                if let Some(earlier) = entries
                    .iter()
                    .take(index)
                    .find(|earlier| earlier.key == entry.key)
                {
                    duplicates.push((index, earlier.key_span.line));
                }
            }
        } else {
            for (index, entry) in entries.iter().enumerate() {
                match first.get(entry.key.as_str()) {
                    Some(line) => duplicates.push((index, *line)),
                    None => drop(first.insert(&entry.key, entry.key_span.line)),
                }
            }
        }
        for (index, line) in duplicates.into_iter().rev() {
            let entry = entries.remove(index);
            let message = format!(
                "the key `{}` is given twice; the first one is in line {line}",
                entry.key
            );
            self.diagnostics.error(
                Code::DuplicateKey,
                entry.key_span,
                path.key(&entry.key).to_string(),
                message,
            );
        }
    }

    /// YAML 1.1's merge key: fields of the merged records that the record itself does not have; the first one wins.
    fn merge(&mut self, entries: &mut Vec<Entry>, path: Path<'_>) {
        let Some(at) = entries.iter().position(|entry| entry.key == "<<") else {
            return;
        };
        let merge = entries.remove(at);
        let sources = match merge.value.kind {
            Kind::Sequence(items) => items,
            kind => vec![Node {
                kind,
                ..merge.value
            }],
        };
        for source in sources {
            let Kind::Mapping(fields) = source.kind else {
                let message = format!(
                    "`<<` merges a record or a list of records, found {}",
                    source.described()
                );
                self.diagnostics.error(
                    Code::WrongType,
                    source.span,
                    path.key("<<").to_string(),
                    message,
                );
                continue;
            };
            for field in fields {
                if !entries.iter().any(|entry| entry.key == field.key) {
                    entries.push(field);
                }
            }
        }
    }
}

//! A difference as text for people and as JSON. The same configurations give the same text.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{
    entities::Described,
    fields::{FieldChange, shown},
    moved::Moved,
    state::{Fate, Told},
};
use crate::config::{diagnostics::one_line, model::EntityKind};

/// How many requests are shown to people.
const MOVED_MAX: usize = 20;

/// Everything that differs.
#[derive(Debug)]
pub(super) struct Report {
    /// Of the old and the new configuration.
    pub(super) hashes: [String; 2],
    pub(super) settings: Vec<SettingChange>,
    pub(super) entities: Vec<Changed>,
    pub(super) moved: Vec<Moved>,
    pub(super) state: Fate,
}

/// A setting of the gateway that differs.
#[derive(Debug)]
pub(super) struct SettingChange {
    pub(super) change: FieldChange,
    pub(super) needs_restart: bool,
}

/// An entity that differs.
#[derive(Debug)]
pub(super) struct Changed {
    kind: EntityKind,
    label: String,
    /// In the new configuration; in the old one if it is removed.
    place: String,
    change: Change,
}

/// How an entity differs.
#[derive(Debug)]
pub(super) enum Change {
    Added,
    Removed,
    Changed(Vec<FieldChange>),
    /// It comes behind others that it came before, or the other way round.
    Moved,
}

impl Changed {
    pub(super) fn of(kind: EntityKind, entity: &Described, change: Change) -> Self {
        Self {
            kind,
            label: entity.label.clone(),
            place: entity.place.clone(),
            change,
        }
    }
}

impl Change {
    const fn sign(&self) -> char {
        match self {
            Self::Added => '+',
            Self::Removed => '-',
            Self::Changed(_) | Self::Moved => '~',
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed(_) => "changed",
            Self::Moved => "moved",
        }
    }

    fn fields(&self) -> &[FieldChange] {
        match self {
            Self::Changed(fields) => fields,
            Self::Added | Self::Removed | Self::Moved => &[],
        }
    }
}

impl Report {
    /// Whether a reload would change nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.settings.is_empty() && self.entities.is_empty()
    }

    /// What differs, what becomes of the state, and a line that sums up.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if self.is_empty() {
            let [old, new] = &self.hashes;
            text.push_str(if old == new {
                "no difference\n"
            } else {
                "no difference but in spelling: the hash changes, nothing else does\n"
            });
            return text;
        }
        if !self.settings.is_empty() {
            text.push_str("gateway\n");
            for setting in &self.settings {
                let restart = if setting.needs_restart {
                    "  needs a restart"
                } else {
                    ""
                };
                let _ = writeln!(text, "  ~ {}{restart}", field(&setting.change));
            }
        }
        for list in self.entities.chunk_by(|one, next| one.kind == next.kind) {
            let kind = list.first().map_or("", |first| first.kind.list());
            let _ = writeln!(text, "{kind}");
            for changed in list {
                let moved = match changed.change {
                    Change::Moved => " is in another order",
                    _ => "",
                };
                let line = format!(
                    "{} {}{moved}  {}",
                    changed.change.sign(),
                    changed.label,
                    changed.place
                );
                let _ = writeln!(text, "  {}", one_line(&line));
                for change in changed.change.fields() {
                    let _ = writeln!(text, "      {}", field(change));
                }
            }
        }
        if !self.moved.is_empty() {
            text.push_str("requests that another route takes\n");
            for moved in self.moved.iter().take(MOVED_MAX) {
                let Moved {
                    request,
                    old_route,
                    new_route,
                } = moved;
                let line = format!("{request}: {old_route} → {new_route}");
                let _ = writeln!(text, "  {}", one_line(&line));
            }
            if let rest @ 1.. = self.moved.len().saturating_sub(MOVED_MAX) {
                let _ = writeln!(text, "  and {rest} more");
            }
        }
        state(&mut text, "state that goes", &self.state.lost);
        state(&mut text, "state that begins anew", &self.state.new);
        let _ = writeln!(text, "{}", self.summary());
        text
    }

    fn summary(&self) -> String {
        let count = |name: &str| {
            let of_name = |changed: &&Changed| changed.change.name() == name;
            self.entities.iter().filter(of_name).count()
        };
        let counts = ["added", "removed", "changed", "moved"]
            .into_iter()
            .map(|name| (name, count(name)))
            .filter(|(name, count)| *count > 0 || *name != "moved")
            .map(|(name, count)| format!("{count} {name}"));
        let kept = &self.state.kept;
        let mut kinds: Vec<&str> = kept.iter().map(|told| told.what).collect();
        kinds.dedup();
        let kept: Vec<String> = kinds
            .into_iter()
            .map(|kind| {
                let of_kind = kept.iter().filter(|told| told.what == kind);
                format!("{kind} {}", of_kind.count())
            })
            .collect();
        let kept = if kept.is_empty() {
            "nothing".to_owned()
        } else {
            kept.join(", ")
        };
        let restart = if self.settings.iter().any(|setting| setting.needs_restart) {
            "; a restart is needed for some settings"
        } else {
            ""
        };
        format!(
            "{}; state kept: {kept}{restart}",
            counts.collect::<Vec<_>>().join(", ")
        )
    }

    /// One JSON object.
    pub(super) fn json(&self) -> String {
        let [old, new] = &self.hashes;
        let settings: Vec<Value> = self
            .settings
            .iter()
            .map(|setting| {
                json!({
                    "field": setting.change.field,
                    "old": setting.change.old,
                    "new": setting.change.new,
                    "needs_restart": setting.needs_restart,
                })
            })
            .collect();
        let entities: Vec<Value> = self
            .entities
            .iter()
            .map(|changed| {
                json!({
                    "kind": changed.kind.singular(),
                    "label": changed.label,
                    "place": changed.place,
                    "change": changed.change.name(),
                    "fields": changed.change.fields(),
                })
            })
            .collect();
        let report = json!({
            "old_hash": old,
            "new_hash": new,
            "gateway": settings,
            "entities": entities,
            "moved_requests": self.moved,
            "state": self.state,
        });
        format!("{report:#}\n")
    }
}

/// A line for people.
fn field(change: &FieldChange) -> String {
    let (old, new) = (shown(change.old.as_ref()), shown(change.new.as_ref()));
    let line = if old == new {
        // Secrets, and texts that differ behind where they are cut.
        format!("{}: {new} (another value)", change.field)
    } else {
        format!("{}: {old} → {new}", change.field)
    };
    one_line(&line).into_owned()
}

fn state(text: &mut String, heading: &str, list: &[Told]) {
    if list.is_empty() {
        return;
    }
    let _ = writeln!(text, "{heading}");
    for told in list {
        let line = format!("{} of {}", told.what, told.of);
        let _ = writeln!(text, "  {}", one_line(&line));
    }
}

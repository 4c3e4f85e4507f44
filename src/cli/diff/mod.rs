//! `tollgate diff`: what a reload from one configuration to another would change, and what state it would keep.
//! It does what a reload does, with a state of its own, and serves nobody.

mod entities;
mod fields;
mod moved;
mod report;
mod state;

use std::{
    collections::{HashMap, HashSet},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use uuid::Uuid;

use self::{
    entities::all,
    fields::{compare, of_settings},
    moved::moved,
    report::{Change, Changed, Report, SettingChange},
    state::{Fate, Names, connections},
};
use super::{Candidate, Format, LoadError, MISTAKE, say};
use crate::{
    compile::Compiler,
    config::{Gateway, Loaded, model::EntityKind},
    reload::needs_restart,
    state::State,
};

/// Kinds of which the order in the files means something: it decides between equals.
const ORDERED: [EntityKind; 2] = [EntityKind::Route, EntityKind::Target];

/// Arguments of `tollgate diff`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file that is live
    old: PathBuf,
    /// The configuration file that would take its place
    new: PathBuf,
    /// How differences are written: text for people, or one JSON object
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let report = match difference(&arguments.old, &arguments.new) {
        Ok(report) => report,
        Err(error) => {
            say(&error.to_string());
            return ExitCode::from(MISTAKE);
        }
    };
    let written = match arguments.format {
        Format::Text => report.text(),
        Format::Json => report.json(),
    };
    // If nobody reads it, the exit code says enough.
    let _ = io::stdout().write_all(written.as_bytes());
    if report.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn difference(old: &Path, new: &Path) -> Result<Report, LoadError> {
    let state = Arc::new(State::new());
    let compiler = Compiler::new(Arc::clone(&state))?;
    let old = Candidate::load_with(&compiler, old)?;
    let (held_before, connections_before) = (state.inventory(), connections(&old.snapshot));
    // As in a reload the new snapshot is made while the old one is live, and then the old one goes.
    let new = Candidate::load_with(&compiler, new)?;
    let moved = moved(&old, &new);
    let Candidate {
        loaded: old,
        snapshot,
        ..
    } = old;
    drop(snapshot);
    let held_after = state.inventory();
    let names = Names::of(&old.config, &new.loaded.config);
    Ok(Report {
        hashes: [&old, &new.loaded].map(|loaded| loaded.config.hash.clone()),
        settings: settings(&old.config.gateway, &new.loaded.config.gateway),
        entities: entities(&old, &new.loaded),
        moved,
        state: Fate::of(
            &names.tell(held_before).chain(connections_before).collect(),
            &names
                .tell(held_after)
                .chain(connections(&new.snapshot))
                .collect(),
        ),
    })
}

fn settings(old: &Gateway, new: &Gateway) -> Vec<SettingChange> {
    let restart: Vec<&str> = needs_restart(old, new).collect();
    compare(&of_settings(old), &of_settings(new))
        .into_iter()
        .map(|change| SettingChange {
            needs_restart: restart.contains(&change.field.as_str()),
            change,
        })
        .collect()
}

/// What differs, kind by kind: what the new configuration has in its order, then what it lacks.
fn entities(old: &Loaded, new: &Loaded) -> Vec<Changed> {
    let mut changes = Vec::new();
    for kind in EntityKind::ALL {
        let before = all(kind, old);
        let after = all(kind, new);
        let earlier: HashMap<Uuid, usize> = before
            .iter()
            .enumerate()
            .map(|(index, entity)| (entity.id, index))
            .collect();
        let mut last = 0;
        for entity in &after {
            let found = earlier.get(&entity.id).copied();
            let Some((index, same)) = found.and_then(|index| Some((index, before.get(index)?)))
            else {
                changes.push(Changed::of(kind, entity, Change::Added));
                continue;
            };
            let fields = compare(&same.fields, &entity.fields);
            if !fields.is_empty() {
                changes.push(Changed::of(kind, entity, Change::Changed(fields)));
            }
            if index < last && ORDERED.contains(&kind) {
                changes.push(Changed::of(kind, entity, Change::Moved));
            }
            last = last.max(index);
        }
        let kept: HashSet<Uuid> = after.iter().map(|entity| entity.id).collect();
        let removed = before.iter().filter(|entity| !kept.contains(&entity.id));
        changes.extend(removed.map(|entity| Changed::of(kind, entity, Change::Removed)));
    }
    changes
}

//! The files that are named for TLS to Consul, by settings and by upstreams. They are watched and loaded like those of
//! certificates; what is in them is for others to judge.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::diagnostics::{Code, Diagnostics, Span};
use super::model::discovery::Access;
use super::model::settings::FilePath;
use super::named_files::NamedFiles;
use super::{Config, pem_files};
use crate::entity::Secret;

/// What is in the files, by their names as they are written. What could not be read is missing, and a diagnostic.
#[derive(Debug, Default)]
pub struct ConsulFiles(BTreeMap<String, Secret<String>>);

impl ConsulFiles {
    /// What is in a file.
    pub fn text(&self, file: &FilePath) -> Option<&Secret<String>> {
        self.0.get(&file.0)
    }

    /// What is in each of them.
    pub fn texts(&self) -> impl Iterator<Item = &Secret<String>> {
        self.0.values()
    }
}

/// How Consul is asked, and where that is written.
pub struct WrittenAccess<'a> {
    pub access: Access<'a>,
    place: Written<'a>,
}

enum Written<'a> {
    Settings,
    Upstream(&'a super::Place),
}

impl WrittenAccess<'_> {
    /// Where a field is written, and its dotted path.
    pub fn at(&self, config: &Config, field: &str) -> (Span, String) {
        match self.place {
            Written::Settings => {
                let field = format!("discovery.consul.{field}");
                (config.setting_at(&field), format!("gateway.{field}"))
            }
            Written::Upstream(place) => {
                let field = format!("discovery.{field}");
                (place.at(&field), place.path_of(&field))
            }
        }
    }
}

/// Every way in which Consul is asked, that of the settings first.
pub fn accesses(config: &Config) -> impl Iterator<Item = WrittenAccess<'_>> {
    let routes = config.gateway.discovery.as_ref();
    let routes = routes.and_then(|discovery| discovery.consul.as_ref());
    let routes = routes.map(|routes| WrittenAccess {
        access: routes.access(),
        place: Written::Settings,
    });
    let upstreams = config.upstreams.iter().filter_map(|upstream| {
        Some(WrittenAccess {
            access: upstream.fields.discovery.as_ref()?.access(),
            place: Written::Upstream(&upstream.place),
        })
    });
    routes.into_iter().chain(upstreams)
}

/// Reads the files that `config` names, each once. `folder` is where relative paths begin, `files` what is known of
/// them. Every file is added to `watch`, also one that cannot be read.
pub(super) fn read(
    config: &Config,
    (folder, files): (&Path, &NamedFiles),
    watch: &mut Vec<PathBuf>,
    diagnostics: &mut Diagnostics,
) -> ConsulFiles {
    let mut found: BTreeMap<String, Result<Secret<String>, String>> = BTreeMap::new();
    for written in accesses(config) {
        for (field, FilePath(name)) in written.access.files() {
            let file = folder.join(name);
            let text = found.entry(name.clone()).or_insert_with(|| {
                watch.push(file.clone());
                files.text(&file, pem_files::text)
            });
            if let Err(problem) = text {
                let (span, path) = written.at(config, field);
                let message = format!("the file `{}` cannot be read: {problem}", file.display());
                diagnostics.error(Code::UnreadableFile, span, path, message);
            }
        }
    }
    let readable = found.into_iter();
    ConsulFiles(
        readable
            .filter_map(|(name, text)| Some((name, text.ok()?)))
            .collect(),
    )
}

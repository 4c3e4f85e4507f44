//! What stands in the files that settings name: read once and kept with the documents, so that these can be put
//! together again as they were, whatever is on the disk by then.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::entity::Secret;

/// The texts of files, each with the reason where there is none.
#[derive(Debug, Default)]
pub(super) struct NamedFiles(Mutex<HashMap<PathBuf, Result<Secret<String>, String>>>);

impl NamedFiles {
    /// The text of `file`, which `read` reads the first time.
    ///
    /// # Errors
    /// That of `read`.
    pub(super) fn text(
        &self,
        file: &Path,
        read: impl FnOnce(&Path) -> Result<String, String>,
    ) -> Result<Secret<String>, String> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(file) {
            return known.clone();
        }
        let text = read(file).map(Secret::new);
        known.insert(file.to_owned(), text.clone());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_it_was_when_it_was_first_asked_for() {
        let files = NamedFiles::default();
        let text = |file: &str, now: Result<&str, &str>| {
            let now = now.map(str::to_owned).map_err(str::to_owned);
            let text = files.text(Path::new(file), |_| now);
            text.map(|text| text.expose().clone())
        };
        assert_eq!(text("a", Ok("old")), Ok("old".to_owned()));
        assert_eq!(text("b", Err("gone")), Err("gone".to_owned()));
        assert_eq!(text("a", Err("gone")), Ok("old".to_owned()));
        assert_eq!(text("b", Ok("new")), Err("gone".to_owned()));
    }
}

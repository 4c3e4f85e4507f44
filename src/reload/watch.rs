//! Watches the configuration files and takes a change over in place.
//!
//! File events only wake the loop; what is loaded and when is decided by comparing the files'
//! metadata, so a lost event costs a second and a superfluous one costs nothing. A file that
//! arrives by rename or symlink is complete and is taken at once. One that is written in place is
//! taken when it has rested, because a prefix of a YAML file is often valid YAML. Certificates and
//! keys, which come in pairs, are given that time however they arrive.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{ModifyKind, RenameMode},
};
use tracing::warn;

use crate::state::clock::Clock;

/// How long a file written in place must rest.
const REST: Duration = Duration::from_millis(100);
/// How long a file that never rests is waited for.
const REST_MAX: Duration = Duration::from_secs(2);
/// How often the files are looked at where no event tells of a change.
const LOOK: Duration = Duration::from_secs(1);

/// What wakes the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    /// A file was replaced as a whole.
    Replaced,
    /// A file is being written, or is gone.
    Touched,
    /// Load now, changed or not.
    Asked,
    /// A registry names other services.
    Discovered,
}

/// Asks the loop to load the files again.
#[derive(Debug, Clone)]
pub struct Ask {
    wakes: Sender<Wake>,
    /// Whether the loop has yet to look at what a registry says.
    discovered: Arc<AtomicBool>,
}

impl Ask {
    /// Loads the files again, changed or not.
    pub fn reload(&self) {
        // The loop ends with the process only.
        let _ = self.wakes.send(Wake::Asked);
    }

    /// Takes over what a registry says now, without loading the files. However often that is said
    /// before the loop comes to it, it is done once.
    pub fn follow_registry(&self) {
        if !self.discovered.swap(true, Ordering::AcqRel) {
            // The loop ends with the process only.
            let _ = self.wakes.send(Wake::Discovered);
        }
    }
}

/// The files of a configuration under watch.
#[derive(Debug)]
pub struct Watch {
    paths: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    watcher: Option<RecommendedWatcher>,
    wakes: Receiver<Wake>,
    /// Whether a wake for the registry is under way.
    discovered: Arc<AtomicBool>,
    clock: Clock,
    seen: Fingerprint,
}

impl Watch {
    /// Watches `paths`: first the configuration file, then the folder of fragments if there is one, and the files
    /// that settings name. A
    /// configuration that is in no file has none, and is loaded again when asked only. Without file events (a file system that has none, no descriptors) the files are looked at
    /// every second.
    pub fn new(paths: Vec<PathBuf>, clock: Clock) -> (Self, Ask) {
        let (sender, wakes) = channel();
        let events = sender.clone();
        let watch_files = || {
            notify::recommended_watcher(move |event| {
                if let Some(wake) = wake_of(event) {
                    let _ = events.send(wake);
                }
            })
            .inspect_err(|error| warn!(%error, "no file events: files are looked at every second"))
            .ok()
        };
        let watcher = if paths.is_empty() {
            None
        } else {
            watch_files()
        };
        let discovered = Arc::new(AtomicBool::new(false));
        let mut watch = Self {
            discovered: Arc::clone(&discovered),
            seen: fingerprint(&paths),
            paths: Vec::new(),
            folders: Vec::new(),
            watcher,
            wakes,
            clock,
        };
        watch.follow(paths);
        let ask = Ask {
            wakes: sender,
            discovered,
        };
        (watch, ask)
    }

    /// Calls `load` after each change, for ever. `load` gives the paths to watch from then on. Calls `follow` when a
    /// registry says something else.
    pub fn run(mut self, mut load: impl FnMut() -> Vec<PathBuf>, mut follow: impl FnMut()) {
        while let Some(()) = self.changed(&mut follow) {
            // What changes while it is being read will differ from this and be read again.
            self.seen = fingerprint(&self.paths);
            let paths = load();
            self.follow(paths);
        }
    }

    /// Waits for a change that is complete. `None` when nobody can ask any more.
    fn changed(&mut self, follow: &mut impl FnMut()) -> Option<()> {
        let mut pending: Option<Pending> = None;
        loop {
            let now = self.clock.instant();
            let wait = pending
                .as_ref()
                .map_or(LOOK, |pending| pending.due.saturating_duration_since(now));
            match self.wakes.recv_timeout(wait) {
                Ok(Wake::Asked) => return Some(()),
                Ok(Wake::Discovered) => {
                    // What is said from here on needs another look.
                    self.discovered.swap(false, Ordering::AcqRel);
                    follow();
                    let now = self.clock.instant();
                    let rests = pending.as_ref().is_some_and(|pending| pending.due > now);
                    // A registry that is never silent must not hide the files.
                    if !rests && self.has_rested(&mut pending) {
                        return Some(());
                    }
                }
                // A rename is told as two events, the first of which looks like a file that is gone:
                // what is pending because of it need not be waited for.
                Ok(Wake::Replaced) => {
                    let current = fingerprint(&self.paths);
                    if self.differs_in_yaml(&current) {
                        return Some(());
                    }
                    self.touch(&mut pending);
                }
                Ok(Wake::Touched) => self.touch(&mut pending),
                Err(RecvTimeoutError::Timeout) => {
                    if self.has_rested(&mut pending) {
                        return Some(());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Looks at the files. Whether a change that was waited out is complete.
    fn has_rested(&self, pending: &mut Option<Pending>) -> bool {
        let current = fingerprint(&self.paths);
        match pending {
            None if current != self.seen => self.touch(pending),
            None => {}
            Some(_) if current == self.seen => *pending = None,
            Some(waiting) => {
                let now = self.clock.instant();
                if current == waiting.last || now >= waiting.latest {
                    return true;
                }
                waiting.extend(now, current);
            }
        }
        false
    }

    /// Whether something else than the files that the settings name has changed.
    fn differs_in_yaml(&self, current: &Fingerprint) -> bool {
        let main = self.paths.first();
        let is_document = |path: &PathBuf| Some(path) == main || is_yaml(path);
        let documents = |all: &Fingerprint| -> Fingerprint {
            let kept = all.iter().filter(|(path, _)| is_document(path));
            kept.map(|(path, print)| (path.clone(), *print)).collect()
        };
        documents(current) != documents(&self.seen)
    }

    /// Something was written in a watched folder; waits only if it was one of the files.
    fn touch(&self, pending: &mut Option<Pending>) {
        let current = fingerprint(&self.paths);
        if current == self.seen {
            return;
        }
        let now = self.clock.instant();
        match pending {
            Some(pending) => pending.extend(now, current),
            None => {
                *pending = Some(Pending {
                    due: now + REST,
                    latest: now + REST_MAX,
                    last: current,
                });
            }
        }
    }

    /// Watches the folders that `paths` are in; events of a file itself end with its inode.
    fn follow(&mut self, paths: Vec<PathBuf>) {
        let mut folders: Vec<PathBuf> = paths
            .iter()
            .flat_map(|path| [parent(path), path.clone()])
            .filter(|path| path.is_dir())
            .collect();
        folders.sort();
        folders.dedup();
        if let Some(watcher) = &mut self.watcher {
            for gone in self.folders.iter().filter(|path| !folders.contains(path)) {
                // A folder that is gone took its watch along.
                let _ = watcher.unwatch(gone);
            }
            for new in folders.iter().filter(|path| !self.folders.contains(path)) {
                if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                    warn!(folder = %new.display(), %error, "no file events for this folder");
                }
            }
        }
        self.folders = folders;
        self.paths = paths;
    }
}

/// A change that is waited out.
#[derive(Debug)]
struct Pending {
    due: Instant,
    latest: Instant,
    last: Fingerprint,
}

impl Pending {
    fn extend(&mut self, now: Instant, current: Fingerprint) {
        self.due = (now + REST).min(self.latest);
        self.last = current;
    }
}

/// Which file is which, and whether it changed: device, inode, size, time of change.
type Fingerprint = BTreeMap<PathBuf, (u64, u64, u64, i64, i64)>;

fn fingerprint(paths: &[PathBuf]) -> Fingerprint {
    let mut found = Fingerprint::new();
    for path in paths {
        note(path, &mut found);
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            if is_yaml(&entry.path()) {
                note(&entry.path(), &mut found);
            }
        }
    }
    found
}

fn note(path: &Path, found: &mut Fingerprint) {
    if let Ok(metadata) = fs::metadata(path)
        && metadata.is_file()
    {
        found.insert(
            path.to_owned(),
            (
                metadata.dev(),
                metadata.ino(),
                metadata.size(),
                metadata.mtime(),
                metadata.mtime_nsec(),
            ),
        );
    }
}

fn is_yaml(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ending == "yaml" || ending == "yml")
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn wake_of(event: notify::Result<notify::Event>) -> Option<Wake> {
    let event = event.ok()?;
    match event.kind {
        EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) => {
            Some(Wake::Replaced)
        }
        // A symlink is whole the moment it exists.
        EventKind::Create(_)
            if event
                .paths
                .iter()
                .all(|path| fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())) =>
        {
            Some(Wake::Replaced)
        }
        EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Any => {
            Some(Wake::Touched)
        }
        EventKind::Access(_) | EventKind::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, thread};

    use super::*;

    /// Watches a folder with `gateway.yaml` and gives a channel of what was read at each load.
    fn watching(folder: &Path) -> Receiver<String> {
        let file = folder.join("gateway.yaml");
        let (loaded, loads) = channel();
        let paths = vec![file.clone(), folder.join("conf.d")];
        let (watch, ask) = Watch::new(paths.clone(), Clock::system());
        thread::spawn(move || {
            let _ask = ask;
            let load = || {
                let text = fs::read_to_string(&file).unwrap_or_else(|_| "unreadable".into());
                let _ = loaded.send(text);
                paths.clone()
            };
            watch.run(load, || {});
        });
        loads
    }

    #[test]
    fn whatever_a_registry_says_meanwhile_is_one_wake() {
        let (watch, ask) = Watch::new(Vec::new(), Clock::system());
        for _ in 0..3 {
            ask.follow_registry();
        }
        assert_eq!(watch.wakes.try_iter().count(), 1);
    }

    fn next(loads: &Receiver<String>) -> String {
        loads
            .recv_timeout(Duration::from_secs(10))
            .expect("a change is noticed")
    }

    #[test]
    fn a_renamed_file_is_taken_at_once_and_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gateway.yaml");
        fs::write(&file, "one").expect("written");
        let loads = watching(folder.path());
        let fresh = folder.path().join("fresh");
        fs::write(&fresh, "two").expect("written");
        fs::rename(&fresh, &file).expect("renamed");
        assert_eq!(next(&loads), "two");
    }

    #[test]
    fn a_file_written_in_pieces_is_taken_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gateway.yaml");
        fs::write(&file, "old").expect("written");
        let loads = watching(folder.path());
        let mut writer = fs::File::create(&file).expect("truncated");
        for piece in ["a", "b", "c"] {
            writer.write_all(piece.as_bytes()).expect("written");
            writer.flush().expect("flushed");
            thread::sleep(Duration::from_millis(30));
        }
        drop(writer);
        assert_eq!(next(&loads), "abc");
    }

    #[test]
    fn a_swapped_symlink_is_a_change() {
        let folder = tempfile::tempdir().expect("a folder");
        for version in ["1", "2"] {
            fs::create_dir(folder.path().join(version)).expect("a folder");
            fs::write(folder.path().join(version).join("gateway.yaml"), version).expect("written");
        }
        std::os::unix::fs::symlink("1", folder.path().join("..data")).expect("a link");
        std::os::unix::fs::symlink("..data/gateway.yaml", folder.path().join("gateway.yaml"))
            .expect("a link");
        let loads = watching(folder.path());
        std::os::unix::fs::symlink("2", folder.path().join("..new")).expect("a link");
        fs::rename(folder.path().join("..new"), folder.path().join("..data")).expect("swapped");
        assert_eq!(next(&loads), "2");
    }

    #[test]
    fn fragments_come_and_go() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("gateway.yaml"), "main").expect("written");
        fs::create_dir(folder.path().join("conf.d")).expect("a folder");
        let loads = watching(folder.path());
        let fragment = folder.path().join("conf.d/10-a.yaml");
        fs::write(&fragment, "x").expect("written");
        assert_eq!(next(&loads), "main");
        fs::remove_file(&fragment).expect("removed");
        assert_eq!(next(&loads), "main");
    }

    #[test]
    fn a_certificate_and_its_key_are_taken_together() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name);
        for name in ["gateway.yaml", "a.crt", "a.key"] {
            fs::write(file(name), "old").expect("written");
        }
        let paths = vec![file("gateway.yaml"), file("a.crt"), file("a.key")];
        let (loaded, loads) = channel();
        let (watch, ask) = Watch::new(paths.clone(), Clock::system());
        thread::spawn(move || {
            let _ask = ask;
            let load = || {
                let read = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default();
                let _ = loaded.send(paths.iter().map(read).collect::<Vec<_>>().join(" "));
                paths.clone()
            };
            watch.run(load, || {});
        });
        for name in ["a.crt", "a.key"] {
            fs::write(file("fresh"), "new").expect("written");
            fs::rename(file("fresh"), file(name)).expect("renamed");
        }
        assert_eq!(next(&loads), "old new new");
    }

    #[test]
    fn other_files_in_the_folder_are_no_change() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("gateway.yaml"), "main").expect("written");
        let loads = watching(folder.path());
        fs::write(folder.path().join("gateway.yaml.swp"), "x").expect("written");
        assert!(loads.recv_timeout(Duration::from_millis(500)).is_err());
    }
}

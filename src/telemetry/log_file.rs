//! A place where whole lines are appended: standard output, or a file that may be rotated, vanish,
//! or be unwritable for a while. Nothing here is for a thread that serves requests: it may block.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use tracing::{error, info};

/// How often a path is looked at: whether it still leads to the open file, or leads anywhere again.
const LOOK: Duration = Duration::from_secs(1);
/// How long trouble is silent after it was logged.
const SILENCE: Duration = Duration::from_secs(10);
/// How long a pipe that is full is left alone, where whoever made it asked not to be waited for.
const FULL_PAUSE: Duration = Duration::from_millis(10);
/// No more than this is written at once, in whole lines: to a pipe it goes in one piece (`PIPE_BUF`),
/// so that nothing that another writes to the same pipe comes between.
const PIECE_BYTES_MAX: usize = 4096;
/// Owner and group only: requests are nobody else's business.
const MODE: u32 = 0o640;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    Stdout,
    /// Created if it is not there.
    Path(PathBuf),
}

/// Appends lines to a destination and survives what happens to it.
#[derive(Debug)]
pub struct LogFile {
    /// What the log is called when it is in trouble.
    name: &'static str,
    to: Destination,
    open: Option<File>,
    /// When the path was last looked at.
    looked_at: Option<Instant>,
    /// The rest of a line that was written in part: nothing else may come before it.
    torn: Vec<u8>,
    trouble: Trouble,
}

/// What the operator was told.
#[derive(Debug, Default)]
struct Trouble {
    said_at: Option<Instant>,
    /// Lines lost since it began.
    lost: u64,
}

impl LogFile {
    /// Opens `to` at the next write or [`Self::look`].
    pub fn new(name: &'static str, to: Destination) -> Self {
        Self {
            name,
            to,
            open: None,
            looked_at: None,
            torn: Vec::new(),
            trouble: Trouble::default(),
        }
    }

    /// Where lines go.
    pub fn destination(&self) -> &Destination {
        &self.to
    }

    /// Lines go to `to` from now on.
    pub fn redirect(&mut self, to: Destination) {
        self.to = to;
        self.close();
    }

    /// Closes the file; the next look or write opens whatever its path leads to then.
    pub fn close(&mut self) {
        self.open = None;
        self.looked_at = None;
        self.torn.clear();
    }

    /// Opens the destination if it is not open, or if its path leads elsewhere since it was; at
    /// most once a second. Whether there is an open file now.
    pub fn look(&mut self, now: Instant) -> bool {
        if self.looked_at.is_some_and(|at| now - at < LOOK) {
            return self.open.is_some();
        }
        self.looked_at = Some(now);
        if let Some(file) = &self.open
            && leads_to(&self.to, file)
        {
            return true;
        }
        self.torn.clear();
        match open(&self.to) {
            Ok(file) => {
                self.open = Some(file);
                true
            }
            Err(cause) => {
                self.open = None;
                self.complain(&cause, 0, now);
                false
            }
        }
    }

    /// Appends `lines`, each with its line break. Gives the number of those that are lost because
    /// they could not be written: the log goes on as soon as it can.
    pub fn write(&mut self, lines: &[u8], now: Instant) -> u64 {
        if !self.look(now) {
            let lost = count_lines(lines);
            self.trouble.lost += lost;
            return lost;
        }
        let Some(file) = &mut self.open else { return 0 };
        match append(file, &mut self.torn, lines) {
            Ok(()) => {
                self.recover();
                0
            }
            Err((cause, lost)) => {
                self.complain(&cause, lost, now);
                lost
            }
        }
    }

    fn complain(&mut self, cause: &io::Error, lost: u64, now: Instant) {
        self.trouble.lost += lost;
        if self.trouble.said_at.is_some_and(|at| now - at < SILENCE) {
            return;
        }
        self.trouble.said_at = Some(now);
        error!(
            to = %self.to,
            error = %cause,
            lines_lost = self.trouble.lost,
            "{} cannot be written; it goes on when it can", self.name
        );
    }

    fn recover(&mut self) {
        if self.trouble.said_at.is_some() {
            let lost = std::mem::take(&mut self.trouble).lost;
            info!(to = %self.to, lines_lost = lost, "{} is written again", self.name);
        }
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => formatter.write_str("stdout"),
            Self::Path(path) => path.display().fmt(formatter),
        }
    }
}

fn open(to: &Destination) -> io::Result<File> {
    match to {
        // A descriptor of our own, without the buffer of `io::Stdout`.
        Destination::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
        Destination::Path(path) => OpenOptions::new()
            .append(true)
            .create(true)
            .mode(MODE)
            .open(path),
    }
}

fn leads_to(to: &Destination, file: &File) -> bool {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let at = |path: &Path| path.metadata().map(identity);
    match to {
        Destination::Stdout => true,
        Destination::Path(path) => {
            at(path).is_ok_and(|found| file.metadata().is_ok_and(|open| identity(open) == found))
        }
    }
}

fn count_lines(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

/// Writes `torn` and `lines`. After an error no line is written in part but one, whose rest is then
/// in `torn`; the number of lines of which nothing is written comes with the error.
fn append(to: &mut impl Write, torn: &mut Vec<u8>, lines: &[u8]) -> Result<(), (io::Error, u64)> {
    let (written, outcome) = write_some(to, torn);
    torn.drain(..written);
    outcome.map_err(|cause| (cause, count_lines(lines)))?;
    let (written, outcome) = write_some(to, lines);
    outcome.map_err(|cause| {
        let (done, rest) = lines.split_at(written);
        if done.last().is_none_or(|&last| last == b'\n') {
            return (cause, count_lines(rest));
        }
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let (begun, lost) = rest.split_at(end);
        torn.extend_from_slice(begun);
        (cause, count_lines(lost))
    })
}

/// Writes as much as it can; gives how many bytes that was.
fn write_some(to: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match to.write(piece(rest)) {
            Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => thread::sleep(FULL_PAUSE),
            Err(cause) => return (written, Err(cause)),
        }
    }
    (written, Ok(()))
}

/// As many of `lines` as go in one piece, at least one.
fn piece(lines: &[u8]) -> &[u8] {
    let Some(head) = lines.get(..PIECE_BYTES_MAX) else {
        return lines;
    };
    let end = memchr::memrchr(b'\n', head).or_else(|| memchr::memchr(b'\n', lines));
    end.and_then(|end| lines.get(..=end)).unwrap_or(lines)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any instant will do")]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    /// A disk with room for so many bytes.
    struct Disk {
        room: usize,
        holds: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.room -= count;
            self.holds.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(path: &Path) -> LogFile {
        LogFile::new("the test's log", Destination::Path(path.to_owned()))
    }

    #[test]
    fn a_line_that_a_full_disk_tore_is_completed_before_the_next() {
        let mut disk = Disk {
            room: 6,
            holds: Vec::new(),
        };
        let mut torn = Vec::new();
        let lost = append(&mut disk, &mut torn, b"one\ntwo\nthree\n").map_err(|(_, lost)| lost);
        assert_eq!((lost, torn.as_slice()), (Err(1), &b"o\n"[..]));
        let lost = append(&mut disk, &mut torn, b"four\n").map_err(|(_, lost)| lost);
        assert_eq!(lost, Err(1));
        disk.room = 100;
        append(&mut disk, &mut torn, b"five\n").expect("there is room");
        assert_eq!(disk.holds, b"one\ntwo\nfive\n");
        assert!(torn.is_empty());
    }

    #[test]
    fn a_disk_that_is_full_between_two_lines_tears_none() {
        let mut disk = Disk {
            room: 4,
            holds: Vec::new(),
        };
        let mut torn = Vec::new();
        let lost = append(&mut disk, &mut torn, b"one\ntwo\n").map_err(|(_, lost)| lost);
        assert_eq!((lost, torn.len()), (Err(1), 0));
    }

    #[test]
    fn a_pipe_gets_whole_lines_in_pieces_that_it_takes_at_once() {
        let line = [[b'x'; 99].as_slice(), b"\n"].concat();
        assert_eq!(piece(&line.repeat(40)).len(), 4000);
        assert_eq!(piece(&line.repeat(41)).len(), 4000);
        let long = [[b'x'; 5000].as_slice(), b"\n"].concat();
        assert_eq!(piece(&long.repeat(2)).len(), 5001);
    }

    #[test]
    fn a_file_is_appended_to_and_closed_to_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let now = Instant::now();
        assert_eq!(log(&path).write(b"one\n", now), 0);
        assert_eq!(log(&path).write(b"two\n", now), 0);
        assert_eq!(fs::read(&path).expect("a file"), b"one\ntwo\n");
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o137, 0);
    }

    #[test]
    fn a_renamed_file_is_left_when_it_is_looked_at_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        let (mut log, now) = (log(&path), Instant::now());
        assert_eq!(log.write(b"one\n", now), 0);
        fs::rename(&path, &old).expect("renamed");
        assert_eq!(log.write(b"two\n", now), 0);
        assert_eq!(log.write(b"three\n", now + LOOK), 0);
        assert_eq!(fs::read(&old).expect("a file"), b"one\ntwo\n");
        assert_eq!(fs::read(&path).expect("a file"), b"three\n");
    }

    #[test]
    fn a_path_that_leads_nowhere_costs_lines_until_it_leads_somewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("logs/access.log");
        let (mut log, now) = (log(&path), Instant::now());
        assert_eq!(log.write(b"one\ntwo\n", now), 2);
        fs::create_dir(folder.path().join("logs")).expect("a folder");
        assert_eq!(log.write(b"three\n", now), 1, "not looked at again so soon");
        assert_eq!(log.write(b"four\n", now + LOOK), 0);
        assert_eq!(fs::read(&path).expect("a file"), b"four\n");
    }

    #[test]
    fn a_full_device_costs_lines_and_nothing_else() {
        let (mut log, now) = (log(Path::new("/dev/full")), Instant::now());
        assert_eq!(log.write(b"one\n", now), 1);
        assert_eq!(log.write(b"two\nthree\n", now), 2);
        assert_eq!(log.trouble.lost, 3);
    }
}

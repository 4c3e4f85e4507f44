//! Runs the binary's commands that end by themselves.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::wait::{PATIENCE, Stopwatch, wait_for};

/// What a finished command left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The exit code; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

/// Runs `tollgate` with these arguments in `folder` until it exits; fails the test if it does not.
pub(crate) fn tollgate(folder: &Path, arguments: &[&str]) -> Outcome {
    let watch = Stopwatch::start();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // Read while it runs: a full pipe would stop it.
    let stdout = read(child.stdout.take().expect("a piped stdout"));
    let stderr = read(child.stderr.take().expect("a piped stderr"));
    let mut exited = || child.try_wait().expect("a child's state can be asked for");
    let ended = wait_for_exit(&mut exited);
    if !ended {
        child.kill().expect("a running child can be killed");
    }
    let took = watch.elapsed();
    let status = child.wait().expect("a child's end");
    let text = |reader: JoinHandle<String>| reader.join().expect("a child's output");
    let (stdout, stderr) = (text(stdout), text(stderr));
    assert!(
        ended,
        "`tollgate {}` did not end; stderr: {stderr}",
        arguments.join(" ")
    );
    Outcome {
        code: status.code(),
        stdout,
        stderr,
        took,
    }
}

fn read(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a readable pipe");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait_for_exit<T>(exited: &mut impl FnMut() -> Option<T>) -> bool {
    let watch = Stopwatch::start();
    wait_for("never", PATIENCE * 4, || {
        if exited().is_some() {
            return Some(true);
        }
        (watch.elapsed() > PATIENCE).then_some(false)
    })
}

/// Runs `tollgate check` on this document, saved as `gateway.yaml` in the current folder.
pub(crate) fn check(yaml: &str) -> Outcome {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("gateway.yaml"), yaml).expect("a file in a temporary folder");
    tollgate(folder.path(), &["check", "--config", "gateway.yaml"])
}

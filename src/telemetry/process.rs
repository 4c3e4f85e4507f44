//! What the operating system knows about this process, read from `/proc` when somebody asks.
//! Elsewhere than on Linux it knows nothing, and the families are simply not there.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

use super::{
    families,
    page::{Page, number},
};

/// The unit of CPU times in `/proc`: fixed by Linux' interface, whatever the kernel's own tick.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time and age, in ticks.
#[derive(Debug, PartialEq, Eq)]
struct Ticks {
    cpu: u64,
    started_after_boot: u64,
}

/// The resident memory of this process, in bytes.
pub fn resident_bytes() -> Option<u64> {
    parse_resident(&fs::read_to_string("/proc/self/status").ok()?)
}

/// The number of open file descriptors.
pub fn open_fds() -> Option<u64> {
    let listed = fs::read_dir("/proc/self/fd").ok()?.count();
    // The listing itself needs one, which is gone by now.
    u64::try_from(listed.saturating_sub(1)).ok()
}

/// The most file descriptors that may be open: the soft limit.
fn max_fds() -> Option<u64> {
    getrlimit(Resource::RLIMIT_NOFILE)
        .ok()
        .map(|(soft, _)| soft)
}

pub(super) fn write(page: &mut Page) {
    if let Some(open) = open_fds() {
        page.family(&families::OPEN_FDS)
            .gauge(&[], number(open))
            .end();
    }
    if let Some(most) = max_fds() {
        page.family(&families::MAX_FDS)
            .gauge(&[], number(most))
            .end();
    }
    if let Some(resident) = resident_bytes() {
        page.family(&families::RESIDENT_MEMORY)
            .gauge(&[], number(resident))
            .end();
    }
    let Some(ticks) = fs::read_to_string("/proc/self/stat")
        .ok()
        .and_then(|stat| parse_ticks(&stat))
    else {
        return;
    };
    page.family(&families::CPU_SECONDS)
        .counter(&[], number(ticks.cpu) / TICKS_PER_SECOND)
        .end();
    if let Some(boot) = fs::read_to_string("/proc/stat")
        .ok()
        .and_then(|stat| parse_boot_time(&stat))
    {
        let started = number(boot) + number(ticks.started_after_boot) / TICKS_PER_SECOND;
        page.family(&families::START_TIME).gauge(&[], started).end();
    }
}

/// `VmRSS:   1234 kB` of `/proc/self/status`.
fn parse_resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// The fields 14, 15 and 22 of `/proc/self/stat`. The second is the program's name in brackets,
/// which may contain anything.
fn parse_ticks(stat: &str) -> Option<Ticks> {
    let (_, behind_name) = stat.rsplit_once(") ")?;
    let mut fields = behind_name.split_ascii_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Ticks {
        cpu: user + system,
        started_after_boot: fields.nth(6)?.parse().ok()?,
    })
}

/// `btime 1738324800` of `/proc/stat`, in Unix seconds.
fn parse_boot_time(stat: &str) -> Option<u64> {
    stat.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_program_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 120 30 0 0 20 0 9 0 5000 1 2 3";
        assert_eq!(
            parse_ticks(stat),
            Some(Ticks {
                cpu: 150,
                started_after_boot: 5000
            })
        );
        assert_eq!(parse_ticks("garbage"), None);
    }

    #[test]
    fn memory_and_boot_time_are_found_among_other_lines() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t2\n";
        assert_eq!(parse_resident(status), Some(2_097_152));
        assert_eq!(parse_resident("Name:\tx\n"), None);
        assert_eq!(
            parse_boot_time("cpu 1 2\nbtime 1738324800\n"),
            Some(1_738_324_800)
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_and_files() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000));
        let open = open_fds().expect("a number of descriptors");
        assert!(open >= 3);
        assert!(max_fds().is_some_and(|most| most >= open));
    }
}

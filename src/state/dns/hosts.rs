//! The hosts file: addresses of names that no server is asked for. It is read anew for each look-up,
//! as the system's resolver does, so a change needs no reload and a long list takes no memory.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::IpAddr,
    path::Path,
};

/// A line longer than this is not looked at to its end.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// The most addresses of one name.
const ADDRESSES_MAX: usize = 256;

/// The addresses that the file gives `host`; none also if it cannot be read.
pub(super) fn addresses(file: &Path, host: &str) -> Vec<IpAddr> {
    let is_file = std::fs::metadata(file).is_ok_and(|metadata| metadata.is_file());
    match File::open(file) {
        Ok(opened) if is_file => of_lines(BufReader::new(opened), host),
        _ => Vec::new(),
    }
}

fn of_lines(mut lines: impl BufRead, host: &str) -> Vec<IpAddr> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let mut addresses = Vec::new();
    let mut line = Vec::new();
    while addresses.len() < ADDRESSES_MAX {
        line.clear();
        let mut bounded = std::io::Read::take(&mut lines, LINE_BYTES_MAX);
        match bounded.read_until(b'\n', &mut line) {
            Ok(count) if count > 0 => addresses.extend(of_line(&line, host)),
            _ => break,
        }
    }
    addresses
}

/// `ADDRESS NAME…`, maybe with a comment at its end.
fn of_line(line: &[u8], host: &str) -> Option<IpAddr> {
    let text = std::str::from_utf8(line).ok()?;
    let text = text.split('#').next()?;
    let mut words = text.split_whitespace();
    let address = words.next()?;
    let names_it = |name: &str| {
        let name = name.strip_suffix('.').unwrap_or(name);
        name.eq_ignore_ascii_case(host)
    };
    words.any(names_it).then(|| address.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\u{feff}\n# 10.0.0.9 a.test\n10.0.0.1\ta.test A-alias # b.test\r\n\
                        ::1 a.test\nnonsense a.test\n10.0.0.2 b.test.\n";

    fn found(host: &str) -> Vec<String> {
        let addresses = of_lines(FILE.as_bytes(), host).into_iter();
        addresses.map(|address| address.to_string()).collect()
    }

    #[test]
    fn every_line_that_names_the_host_gives_an_address() {
        assert_eq!(found("a.test"), ["10.0.0.1", "::1"]);
        assert_eq!(found("a-ALIAS"), ["10.0.0.1"]);
        assert_eq!(found("b.test"), ["10.0.0.2"]);
        assert_eq!(found("test"), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_is_none_gives_nothing() {
        for path in ["/no/such/file", "/", "/dev/zero"] {
            assert!(addresses(Path::new(path), "a.test").is_empty());
        }
    }
}

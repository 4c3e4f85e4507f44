//! From the path that was matched to the path that the upstream gets: `strip_path`,
//! `path_handling`, wire encoding.
//!
//! Normalising comes before routing and lives with the entities.

use std::borrow::Cow;

use crate::entity::path::{PathHandling, is_reserved};

/// The path for the upstream, in the form of `request_path`, that is not yet encoded for the wire.
///
/// `service_path` begins with `/` (`None` is `/`); `request_path` is normalised. `cut` is how many
/// bytes `strip_path` takes off the request path, see
/// [`MatchedPath::cut_len`](super::MatchedPath::cut_len); `None` keeps it whole. What is left after
/// the cut cannot climb: `/route../req` cut by `/route` goes on as `/req`.
pub fn join(
    service_path: Option<&str>,
    request_path: &[u8],
    cut: Option<usize>,
    handling: PathHandling,
) -> Vec<u8> {
    let service = service_path.unwrap_or("/").as_bytes();
    let rest = match cut {
        Some(len) => without_leading_dots(request_path.get(len..).unwrap_or_default()),
        None => request_path,
    };
    match handling {
        PathHandling::V0 => join_with_one_slash(service, request_path, rest, cut.is_some()),
        PathHandling::V1 => concatenate(service, rest, cut.is_some()),
    }
}

/// Whether [`join`] gives back `request_path` for a service without a path: what is cut is the slash that comes
/// before what is left.
pub fn is_kept(request_path: &[u8], cut: usize) -> bool {
    let is_plain = match request_path {
        [b'/'] => true,
        [b'/', next, ..] => next.is_ascii_alphanumeric(),
        _ => false,
    };
    is_plain && cut == 1
}

fn join_with_one_slash(
    service: &[u8],
    request_path: &[u8],
    rest: &[u8],
    is_stripped: bool,
) -> Vec<u8> {
    let folder = service.strip_suffix(b"/").unwrap_or(service);
    if !is_stripped {
        // A request for the root adds nothing to a service path.
        return if request_path == b"/" {
            service.to_vec()
        } else {
            [folder, request_path].concat()
        };
    }
    if !rest.is_empty() {
        let slash: &[u8] = if rest.starts_with(b"/") { b"" } else { b"/" };
        return [folder, slash, rest].concat();
    }
    // All was cut: the client's trailing slash decides, not the service's.
    let wants_slash = request_path.len() > 1 && request_path.ends_with(b"/");
    if folder.is_empty() || wants_slash {
        [folder, b"/"].concat()
    } else {
        folder.to_vec()
    }
}

fn concatenate(service: &[u8], rest: &[u8], is_stripped: bool) -> Vec<u8> {
    let drops_slash = !is_stripped || service.ends_with(b"/");
    let rest = if drops_slash {
        rest.strip_prefix(b"/").unwrap_or(rest)
    } else {
        rest
    };
    [service, rest].concat()
}

/// A prefix need not end at a `/`, so what follows it may be `../…` although the whole path was
/// normal.
fn without_leading_dots(rest: &[u8]) -> &[u8] {
    match rest {
        b"." | b".." => b"",
        [b'.', b'/', after @ ..] | [b'.', b'.', b'/', after @ ..] => after,
        _ => rest,
    }
}

/// The path as it may stand in a request line: every byte outside unreserved, reserved and `%`
/// becomes `%XX`.
///
/// It undoes what normalising decoded; `%` stays, for it begins a triplet that normalising kept.
pub fn encode_for_wire(path: &[u8]) -> Cow<'_, str> {
    if is_fit_for_wire(path)
        && let Ok(text) = std::str::from_utf8(path)
    {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(path.len() + 16);
    for &byte in path {
        if is_wire_safe(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(hex_digit(byte >> 4));
            encoded.push(hex_digit(byte & 0xf));
        }
    }
    Cow::Owned(encoded)
}

/// Whether [`encode_for_wire`] changes nothing of `path`.
pub fn is_fit_for_wire(path: &[u8]) -> bool {
    path.iter().all(|byte| is_wire_safe(*byte))
}

fn is_wire_safe(byte: u8) -> bool {
    WIRE_SAFE[byte as usize]
}

/// Which bytes may stand in a request line as they are.
static WIRE_SAFE: [bool; 256] = {
    let mut safe = [false; 256];
    let mut byte = 0_u8;
    loop {
        safe[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~')
            || is_reserved(byte);
        if byte == u8::MAX {
            break safe;
        }
        byte += 1;
    }
};

fn hex_digit(value: u8) -> char {
    char::from(if value < 10 {
        b'0' + value
    } else {
        b'A' + value - 10
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entity::path::{is_normal, normalise};

    /// The columns: service path, route prefix (`-`: a route without paths), request path; then the
    /// upstream path for v0 with `strip_path` and without, and for v1 with and without.
    const KONG: &str = "
        /          /         /              /               /                     /              /
        /          /         /route/        /route/         /route/               /route/        /route/
        /          /route    /route         /               /route                /              /route
        /          /route    /route/        /               /route/               /              /route/
        /          /route    /routereq      /req            /routereq             /req           /routereq
        /          /route/   /route/req     /req            /route/req            /req           /route/req
        /srv       /rou      /roureq        /srv/req        /srv/roureq           /srvreq        /srvroureq
        /srv/      /rou      /rou           /srv            /srv/rou              /srv/          /srv/rou
        /service   /         /              /service        /service              /service       /service
        /service   /         /route         /service/route  /service/route        /serviceroute  /serviceroute
        /service   /route    /route         /service        /service/route        /service       /serviceroute
        /service   /route    /route/        /service/       /service/route/       /service/      /serviceroute/
        /service   /route    /routereq      /service/req    /service/routereq     /servicereq    /serviceroutereq
        /service   /route/   /route/        /service/       /service/route/       /service       /serviceroute/
        /service   /route/   /route/req     /service/req    /service/route/req    /servicereq    /serviceroute/req
        /service/  /         /route/        /service/route/ /service/route/       /service/route/ /service/route/
        /service/  /route    /route         /service        /service/route        /service/      /service/route
        /service/  /route    /route/        /service/       /service/route/       /service/      /service/route/
        /service/  /route    /routereq      /service/req    /service/routereq     /service/req   /service/routereq
        /service/  /route/   /route/req     /service/req    /service/route/req    /service/req   /service/route/req
        /service   -         /              /service        /service              /service       /service
        /service   -         /route/        /service/route/ /service/route/       /serviceroute/ /serviceroute/
        /service   /route    /route../req   /service/req    /service/route../req  /servicereq    /serviceroute../req
    ";

    proptest! {
        #[test]
        fn a_path_that_is_kept_is_what_joining_gives(path in "/[a-z./%-]{0,6}", cut in 0_usize..3) {
            let path = path.as_bytes();
            if is_kept(path, cut) {
                for handling in [PathHandling::V0, PathHandling::V1] {
                    prop_assert_eq!(join(None, path, Some(cut), handling), path);
                }
            }
        }
    }

    #[test]
    fn the_slash_before_a_name_is_kept() {
        for (path, cut, kept) in [
            ("/", 1, true),
            ("/a", 1, true),
            ("/a", 2, false),
            ("/../a", 1, false),
        ] {
            assert_eq!(is_kept(path.as_bytes(), cut), kept, "{path}");
        }
    }

    #[test]
    fn paths_are_joined_as_kong_does() {
        let mut rows = 0;
        for row in KONG.lines().filter(|line| !line.trim().is_empty()) {
            let columns: Vec<&str> = row.split_whitespace().collect();
            let [service, route, request, expected @ ..] = columns.as_slice() else {
                unreachable!()
            };
            let cut = Some(if *route == "-" { 1 } else { route.len() });
            let joined = [
                (cut, PathHandling::V0),
                (None, PathHandling::V0),
                (cut, PathHandling::V1),
                (None, PathHandling::V1),
            ]
            .map(|(cut, handling)| join(Some(service), request.as_bytes(), cut, handling))
            .map(|path| String::from_utf8(path).unwrap());
            assert_eq!(joined.as_slice(), expected, "{row}");
            rows += 1;
        }
        assert_eq!(rows, 23);
    }

    #[test]
    fn no_service_path_is_the_root() {
        assert_eq!(join(None, b"/route/x", Some(6), PathHandling::V0), b"/x");
        assert_eq!(join(None, b"/route", None, PathHandling::V0), b"/route");
    }

    #[test]
    fn the_rest_of_a_cut_path_cannot_climb() {
        for (request, expected) in [
            ("/route..", "/srv"),
            ("/route.", "/srv"),
            ("/route../x", "/srv/x"),
            ("/route./x", "/srv/x"),
            ("/route...", "/srv/..."),
        ] {
            assert_eq!(
                join(Some("/srv"), request.as_bytes(), Some(6), PathHandling::V0),
                expected.as_bytes()
            );
        }
    }

    #[test]
    fn what_normalising_decoded_is_encoded_again() {
        for (raw, wire) in [
            ("/a%2fb", "/a%2Fb"),
            ("/a%20b", "/a%20b"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/café", "/caf%C3%A9"),
            ("/a%25b", "/a%25b"),
            ("/%61", "/a"),
            ("/%00%ff", "/%00%FF"),
            ("/a\"<>^`{|}\\", "/a%22%3C%3E%5E%60%7B%7C%7D%5C"),
            ("/!*'();:@&=+$,[]-._~", "/!*'();:@&=+$,[]-._~"),
        ] {
            assert_eq!(encode_for_wire(&normalise(raw.as_bytes())), wire, "{raw}");
        }
        assert!(matches!(encode_for_wire(b"/a/b"), Cow::Borrowed("/a/b")));
    }

    proptest! {
        #[test]
        fn a_join_keeps_out_dot_segments_and_survives_the_wire(
            request in "(/|\\.|a|%2e|\u{e9}){0,8}",
            service in "(/|\\.|a){0,6}",
            cut in prop::option::of(1_usize..8),
            is_v1: bool,
        ) {
            let request = normalise(request.as_bytes());
            let service = String::from_utf8(normalise(service.as_bytes()).into_owned()).unwrap();
            let handling = if is_v1 { PathHandling::V1 } else { PathHandling::V0 };
            let joined = join(Some(&service), &request, cut.map(|len| len.min(request.len())), handling);
            prop_assert_eq!(joined.first(), Some(&b'/'));
            prop_assert!(is_normal(&joined), "{}", String::from_utf8_lossy(&joined));
            let wire = encode_for_wire(&joined);
            prop_assert!(wire.is_ascii());
            prop_assert_eq!(&*normalise(wire.as_bytes()), &*joined);
        }
    }
}

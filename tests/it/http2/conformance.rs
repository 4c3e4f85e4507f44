//! What RFC 9113 and RFC 7541 say of frames that break their rules, and of those that only look so: the cases of
//! h2spec by subject. A stream's error may as well end the connection. The code for frames and settings that are
//! malformed is the library's, which calls all of them a protocol error.

use crate::harness::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PRIORITY,
    RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, block, frame, get_block,
};
use crate::harness::{Gate, Gateway, Origin, Reply, Request, Stopwatch, one_service};

use super::SOON;

const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
/// Of what is malformed in itself: the code of the RFC, and that of the library.
const SIZE: &[u32] = &[FRAME_SIZE, PROTOCOL];
const RANGE: &[u32] = &[FLOW_CONTROL, PROTOCOL];
const COMPRESSION: u32 = 9;

const PUSH_PROMISE: u8 = 5;
const UNKNOWN: u8 = 0x16;
const ACK: u8 = 1;
const PADDED: u8 = 8;
const PRIORITISED: u8 = 0x20;

/// What must come of it.
#[derive(Clone, Copy, Debug)]
enum Comes {
    /// The connection ends, with one of these codes if it says why.
    End(&'static [u32]),
    /// The stream is reset with one of these codes, or the connection ends.
    Reset(&'static [u32]),
    /// Nothing: the connection goes on.
    Nothing,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    Goaway(u32),
    Closed,
    Silence,
    Reset(u32),
    /// A PING behind it was answered.
    Pong,
}

impl Comes {
    fn allows(self, came: Came) -> bool {
        match (self, came) {
            (Self::End(_) | Self::Reset(_), Came::Closed) | (Self::Nothing, Came::Pong) => true,
            (Self::End(codes) | Self::Reset(codes), Came::Goaway(code))
            | (Self::Reset(codes), Came::Reset(code)) => codes.contains(&code),
            _ => false,
        }
    }
}

/// Sends a PING and, when it is answered, another one, since answers overtake what concerns streams; reads until
/// something decides.
fn came(raw: &mut Raw) -> Came {
    let mut has_pong = false;
    raw.send(PING, 0, 0, b"whatnow?");
    loop {
        let watch = Stopwatch::start();
        let Some(frame) = raw.next_within(SOON) else {
            return if watch.elapsed() < SOON {
                Came::Closed
            } else {
                Came::Silence
            };
        };
        if let Some((_, code)) = frame.goaway() {
            return Came::Goaway(code);
        }
        if let Some(code) = frame.reset_code() {
            return Came::Reset(code);
        }
        if frame.kind == PING && frame.flags == ACK && frame.payload == b"whatnow?" {
            if has_pong {
                return Came::Pong;
            }
            has_pong = true;
            raw.send(PING, 0, 0, b"whatnow?");
        }
    }
}

struct Site {
    gateway: Gateway,
    _origin: Origin,
    gate: Gate,
}

impl Site {
    /// `/held` waits for the gate, everything else is answered.
    fn new() -> Self {
        let gate = Gate::new();
        let held = gate.clone();
        let origin = Origin::start(move |request| match request.target.as_str() {
            "/held" => Reply::ok("late").after(&held),
            _ => Reply::ok("hello"),
        });
        let gateway = Gateway::start_with_http2("", &one_service(&origin));
        Self {
            gateway,
            _origin: origin,
            gate,
        }
    }

    /// Sends each on a connection of its own, and looks what comes of it.
    #[track_caller]
    fn sees(&self, cases: &[(&str, Vec<u8>, Comes)]) {
        let mut wrong = Vec::new();
        for (name, bytes, comes) in cases {
            let mut raw = Raw::connect(self.gateway.port());
            raw.write(bytes);
            let came = came(&mut raw);
            if !comes.allows(came) {
                wrong.push(format!("{name}: {came:?} instead of {comes:?}"));
            }
        }
        self.gate.open();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(self.gateway.send(&Request::get("/")).status, 200);
        assert!(self.gateway.metric("tollgate_panics_total") < 0.5);
    }
}

/// A request without a body, of which the answer waits.
fn held(stream: u32) -> Vec<u8> {
    frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        stream,
        &get_block("/held"),
    )
}

/// The head of a request whose body follows.
fn open(stream: u32) -> Vec<u8> {
    let head = block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a.test"),
        (":path", "/held"),
    ]);
    frame(HEADERS, END_HEADERS, stream, &head)
}

fn then(first: Vec<u8>, rest: Vec<u8>) -> Vec<u8> {
    [first, rest].concat()
}

fn setting(identifier: u16, value: u32) -> Vec<u8> {
    [&identifier.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

#[test]
fn what_is_no_preface_ends_the_connection() {
    let site = Site::new();
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    ] {
        let mut raw = Raw::connect_silently(site.gateway.port());
        raw.write(bytes);
        assert!(raw.ends_within(SOON).is_some(), "{bytes:?}");
    }
    assert_eq!(site.gateway.get("/").status, 200);
}

#[test]
fn what_nobody_knows_is_ignored() {
    let reserved = then(
        held(1),
        frame(WINDOW_UPDATE, 0, 0, &0x8000_0001_u32.to_be_bytes()),
    );
    Site::new().sees(&[
        (
            "4.1: an unknown kind of frame",
            frame(UNKNOWN, 0, 0, &[0; 8]),
            Comes::Nothing,
        ),
        (
            "4.1: unknown flags of a PING",
            frame(PING, 0x16, 0, &[0; 8]),
            Comes::Nothing,
        ),
        (
            "4.1: the reserved bit of a stream",
            frame(PING, 0, 0x8000_0000, &[0; 8]),
            Comes::Nothing,
        ),
        (
            "6.9: the reserved bit of an increment",
            reserved,
            Comes::Nothing,
        ),
        (
            "6.5.2: an unknown setting",
            frame(SETTINGS, 0, 0, &setting(0xff, 1)),
            Comes::Nothing,
        ),
        (
            "6.4: an unknown code of a reset",
            then(held(1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 0xff])),
            Comes::Nothing,
        ),
        (
            "5.5: an unknown kind amid a header block",
            then(
                frame(HEADERS, END_STREAM, 1, &get_block("/")),
                frame(UNKNOWN, 0, 0, &[0; 8]),
            ),
            Comes::End(&[PROTOCOL]),
        ),
        (
            "6.7: an answer that nobody asked for",
            frame(PING, ACK, 0, &[0; 8]),
            Comes::Nothing,
        ),
        (
            "5.1: PRIORITY of an idle stream",
            frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]),
            Comes::Nothing,
        ),
    ]);
}

#[test]
fn frames_have_their_sizes() {
    Site::new().sees(&[
        (
            "4.2: DATA over the limit",
            then(open(1), frame(DATA, END_STREAM, 1, &vec![0; 16_385])),
            Comes::Reset(SIZE),
        ),
        (
            "4.2: HEADERS over the limit",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &vec![0; 16_385]),
            Comes::End(SIZE),
        ),
        (
            "6.3: PRIORITY of four bytes",
            then(held(1), frame(PRIORITY, 0, 1, &[0; 4])),
            Comes::Reset(SIZE),
        ),
        (
            "6.4: RST_STREAM of three bytes",
            then(held(1), frame(RST_STREAM, 0, 1, &[0; 3])),
            Comes::End(SIZE),
        ),
        (
            "6.5: SETTINGS of three bytes",
            frame(SETTINGS, 0, 0, &[0; 3]),
            Comes::End(SIZE),
        ),
        (
            "6.5: an answer to settings that says something",
            frame(SETTINGS, ACK, 0, &[0]),
            Comes::End(SIZE),
        ),
        (
            "6.7: PING of six bytes",
            frame(PING, 0, 0, &[0; 6]),
            Comes::End(SIZE),
        ),
        (
            "6.9: WINDOW_UPDATE of three bytes",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
            Comes::End(SIZE),
        ),
    ]);
}

#[test]
fn frames_belong_to_streams_or_to_none() {
    let zero = |kind, payload: &[u8]| frame(kind, 0, 0, payload);
    let end: Comes = Comes::End(&[PROTOCOL]);
    Site::new().sees(&[
        ("6.1: DATA", zero(DATA, b"a"), end),
        (
            "6.2: HEADERS",
            frame(HEADERS, END_HEADERS | END_STREAM, 0, &get_block("/")),
            end,
        ),
        ("6.3: PRIORITY", zero(PRIORITY, &[0, 0, 0, 0, 1]), end),
        ("6.4: RST_STREAM", zero(RST_STREAM, &[0; 4]), end),
        ("6.5: SETTINGS", frame(SETTINGS, 0, 1, &[]), end),
        ("6.7: PING", frame(PING, 0, 1, &[0; 8]), end),
        ("6.8: GOAWAY", frame(GOAWAY, 0, 1, &[0; 8]), end),
        (
            "6.10: CONTINUATION",
            zero(CONTINUATION, &get_block("/")),
            end,
        ),
    ]);
}

#[test]
fn streams_begin_live_and_end_in_their_order() {
    let held_then = |frame: Vec<u8>| then(held(1), frame);
    let both: Comes = Comes::Reset(&[STREAM_CLOSED, PROTOCOL]);
    let end: Comes = Comes::End(&[PROTOCOL]);
    let self_dependent = frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 1]);
    Site::new().sees(&[
        (
            "5.1: DATA on an idle stream",
            frame(DATA, END_STREAM, 1, b"a"),
            end,
        ),
        (
            "5.1: a reset of an idle stream",
            frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]),
            end,
        ),
        (
            "5.1: an increment of an idle stream",
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            end,
        ),
        (
            "5.1: CONTINUATION on an idle stream",
            frame(CONTINUATION, END_HEADERS, 1, &get_block("/")),
            end,
        ),
        (
            "5.1: DATA behind the end",
            held_then(frame(DATA, END_STREAM, 1, b"a")),
            both,
        ),
        ("5.1: HEADERS behind the end", held_then(held(1)), both),
        (
            "5.1: CONTINUATION behind the end",
            held_then(frame(CONTINUATION, END_HEADERS, 1, &get_block("/"))),
            Comes::End(&[PROTOCOL, STREAM_CLOSED]),
        ),
        ("5.1.1: an even number", held(2), end),
        (
            "5.1.1: a number lower than the last",
            then(held(5), held(3)),
            Comes::End(&[PROTOCOL, STREAM_CLOSED]),
        ),
        (
            "5.3.1 of RFC 7540: a stream that depends on itself",
            held_then(self_dependent),
            Comes::Reset(&[PROTOCOL]),
        ),
        (
            "8.4: a push from a client",
            held_then(frame(
                PUSH_PROMISE,
                END_HEADERS,
                1,
                &then(vec![0, 0, 0, 2], get_block("/")),
            )),
            end,
        ),
    ]);
}

#[test]
fn header_blocks_are_whole_and_undisturbed() {
    let begun = || frame(HEADERS, END_STREAM, 1, &get_block("/"));
    let padded = then(vec![255], get_block("/"));
    let end: Comes = Comes::End(&[PROTOCOL]);
    Site::new().sees(&[
        (
            "4.3: PRIORITY amid a block",
            then(begun(), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
            end,
        ),
        (
            "4.3: HEADERS of another stream amid a block",
            then(begun(), held(3)),
            end,
        ),
        (
            "6.10: CONTINUATION of another stream",
            then(begun(), frame(CONTINUATION, END_HEADERS, 3, &[])),
            end,
        ),
        (
            "6.10: DATA amid a block",
            then(begun(), frame(DATA, END_STREAM, 1, b"a")),
            end,
        ),
        (
            "6.10: CONTINUATION behind a block",
            then(held(1), frame(CONTINUATION, END_HEADERS, 1, &[])),
            end,
        ),
        (
            "6.2: padding longer than the frame",
            frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &padded),
            end,
        ),
        (
            "6.1: padding of DATA longer than the frame",
            then(open(1), frame(DATA, END_STREAM | PADDED, 1, &[200, 0])),
            end,
        ),
        (
            "5.3.1 of RFC 7540: a stream that depends on itself from the start",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM | PRIORITISED,
                1,
                &then(vec![0, 0, 0, 1, 1], get_block("/held")),
            ),
            Comes::Reset(&[PROTOCOL]),
        ),
    ]);
}

#[test]
fn windows_and_settings_stay_in_their_ranges() {
    let largest = || frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes());
    let on_stream = || frame(WINDOW_UPDATE, 0, 1, &0x7fff_ffff_u32.to_be_bytes());
    Site::new().sees(&[
        (
            "6.9: an increment of zero",
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
            Comes::End(&[PROTOCOL]),
        ),
        (
            "6.9: an increment of zero on a stream",
            then(held(1), frame(WINDOW_UPDATE, 0, 1, &[0; 4])),
            Comes::Reset(&[PROTOCOL]),
        ),
        (
            "6.9.1: a window over 2^31-1",
            then(largest(), largest()),
            Comes::End(&[FLOW_CONTROL]),
        ),
        (
            "6.9.1: a stream's window over 2^31-1",
            then(held(1), then(on_stream(), on_stream())),
            Comes::Reset(&[FLOW_CONTROL]),
        ),
        (
            "6.5.2: ENABLE_PUSH of 2",
            frame(SETTINGS, 0, 0, &setting(2, 2)),
            Comes::End(&[PROTOCOL]),
        ),
        (
            "6.5.2: INITIAL_WINDOW_SIZE over 2^31-1",
            frame(SETTINGS, 0, 0, &setting(4, 0x8000_0000)),
            Comes::End(RANGE),
        ),
        (
            "6.5.2: MAX_FRAME_SIZE below 2^14",
            frame(SETTINGS, 0, 0, &setting(5, 16_383)),
            Comes::End(&[PROTOCOL]),
        ),
        (
            "6.5.2: MAX_FRAME_SIZE over 2^24-1",
            frame(SETTINGS, 0, 0, &setting(5, 1 << 24)),
            Comes::End(&[PROTOCOL]),
        ),
        (
            "6.5.3: several values of one setting",
            frame(SETTINGS, 0, 0, &then(setting(4, 100), setting(4, 1))),
            Comes::Nothing,
        ),
    ]);
}

#[test]
fn header_compression_is_decoded_strictly() {
    let end: Comes = Comes::End(&[COMPRESSION, PROTOCOL]);
    let with = |rest: &[u8]| {
        let block = then(get_block("/held"), rest.to_vec());
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
    };
    Site::new().sees(&[
        (
            "4.2: a table that grows over its limit",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &then(vec![0x3f, 0xe1, 0xff, 0x03], get_block("/held")),
            ),
            end,
        ),
        (
            "4.2: a size of the table behind a field",
            with(&[0x20]),
            end,
        ),
        (
            "5.2: padding of more than seven bits",
            with(&[
                0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x84, 0x49, 0x50, 0x9f, 0xff,
            ]),
            end,
        ),
        (
            "5.2: padding of zeros",
            with(&[
                0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x83, 0x49, 0x50, 0x90,
            ]),
            end,
        ),
        (
            "5.2: the symbol for the end",
            with(&[
                0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x87, 0x49, 0x51, 0xff, 0xff, 0xff, 0xfa,
                0x7f,
            ]),
            end,
        ),
        ("6.1: the index zero", with(&[0x80]), end),
        (
            "2.3.3: an index that names nothing",
            with(&[0xff, 0x80, 0x01]),
            end,
        ),
        (
            "2.3.3: a name that names nothing",
            with(&[0x7f, 0x80, 0x01, 0x01, b'a']),
            end,
        ),
        (
            "a block that ends amid a field",
            with(&[0x00, 0x05, b'a']),
            end,
        ),
    ]);
}

#[test]
fn windows_that_shrink_and_grow_let_the_answer_through_as_they_allow() {
    let site = Site::new();
    // INITIAL_WINDOW_SIZE 3.
    let mut raw = Raw::connect_with(site.gateway.port(), &[(4, 3)]);
    raw.get(1, "/");
    let is_data = |frame: &Frame| frame.kind == DATA && frame.stream == 1;
    assert_eq!(raw.until("three bytes", is_data).payload, b"hel");

    // Now it is less than nothing, then nothing, then two.
    raw.send(SETTINGS, 0, 0, &setting(4, 1));
    raw.send(WINDOW_UPDATE, 0, 1, &2_u32.to_be_bytes());
    assert_eq!(came(&mut raw), Came::Pong, "nothing is sent meanwhile");
    raw.send(SETTINGS, 0, 0, &setting(4, 3));

    let rest = raw.until("the rest", is_data);
    assert_eq!(rest.payload, b"lo");
}

//! The heads of HTTP/2 frames, read as the bytes go by in either direction (RFC 9113 §4.1). Nothing
//! is kept but the nine bytes of one head; payloads are passed over.

/// Bytes of a frame's head.
const HEAD_BYTES: usize = 9;
/// What a client sends before its first frame.
pub(in crate::proxy) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// What the head of a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    /// Bytes of its payload.
    pub length: u32,
    pub kind: u8,
    flags: u8,
}

impl Frame {
    /// Whether it carries a message onward, so that a stream cannot do without it.
    pub(super) fn is_useful(self) -> bool {
        match self.kind {
            DATA => self.length > 0 || self.flags & END_STREAM != 0,
            HEADERS => true,
            CONTINUATION => self.length > 0,
            _ => false,
        }
    }

    /// Whether it is a part of a header block, and not the last one.
    pub(super) fn leaves_block_open(self) -> bool {
        self.is_of_block() && self.flags & END_HEADERS == 0
    }

    pub(super) fn is_of_block(self) -> bool {
        matches!(self.kind, HEADERS | CONTINUATION)
    }
}

/// Where in a sequence of frames one direction of a connection stands.
#[derive(Debug)]
pub(super) struct Frames {
    head: [u8; HEAD_BYTES],
    head_here: usize,
    /// Bytes to pass over before the next head.
    skip: usize,
}

impl Frames {
    /// Frames behind `skip` bytes of something else.
    pub(super) fn behind(skip: usize) -> Self {
        Self {
            head: [0; HEAD_BYTES],
            head_here: 0,
            skip,
        }
    }

    /// Reads on; tells of every head that became complete.
    pub(super) fn read(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Frame)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let wanted = (HEAD_BYTES - self.head_here).min(bytes.len());
            if wanted == 0 {
                return;
            }
            let (here, rest) = bytes.split_at(wanted);
            if let Some(place) = self.head.get_mut(self.head_here..self.head_here + wanted) {
                place.copy_from_slice(here);
            }
            self.head_here += wanted;
            bytes = rest;
            if self.head_here == HEAD_BYTES {
                self.head_here = 0;
                let [high, middle, low, kind, flags, ..] = self.head;
                let length = u32::from_be_bytes([0, high, middle, low]);
                self.skip = usize::try_from(length).unwrap_or(usize::MAX);
                seen(Frame {
                    length,
                    kind,
                    flags,
                });
            }
        }
    }

    /// Whether a frame has begun that is not here to its end.
    pub(super) fn is_within_frame(&self) -> bool {
        self.skip > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn heads_are_found_however_the_bytes_are_cut() {
        let mut bytes = PREFACE.to_vec();
        bytes.extend(frame(HEADERS, END_HEADERS, b"abc"));
        bytes.extend(frame(DATA, END_STREAM, b""));
        bytes.extend(frame(RST_STREAM, 0, &[0; 4]));
        for size in [1, 2, 7, 9, 10, 1000] {
            let mut frames = Frames::behind(PREFACE.len());
            let mut kinds = Vec::new();
            for piece in bytes.chunks(size) {
                frames.read(piece, |frame| kinds.push((frame.kind, frame.length)));
            }
            assert_eq!(kinds, [(HEADERS, 3), (DATA, 0), (RST_STREAM, 4)], "{size}");
            assert!(!frames.is_within_frame());
        }
    }

    #[test]
    fn empty_frames_are_useful_only_if_they_end_something() {
        let only = |bytes: &[u8]| {
            let mut found = None;
            Frames::behind(0).read(bytes, |frame| found = Some(frame));
            found.expect("a frame")
        };
        assert!(!only(&frame(DATA, 0, b"")).is_useful());
        assert!(only(&frame(DATA, END_STREAM, b"")).is_useful());
        assert!(only(&frame(DATA, 0, b"a")).is_useful());
        assert!(!only(&frame(6, 0, &[0; 8])).is_useful());
        assert!(only(&frame(HEADERS, 0, b"a")).leaves_block_open());
        assert!(!only(&frame(CONTINUATION, END_HEADERS, b"a")).leaves_block_open());
    }
}

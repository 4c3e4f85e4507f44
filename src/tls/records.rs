//! Where the records of a TLS connection begin and end in the bytes that come: RFC 8446 §5.1, and RFC 5246 §6.2.1 before
//! it. Only their lengths are read.

/// A type, a version of two bytes, and the length of what follows in two more.
const HEADER_BYTES: u8 = 5;
/// Where in it the length is.
const LENGTH_AT: u8 = 3;

/// How far the last record has come, in a connection that is followed from its first byte on.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// How many bytes of its header; 0 where one has ended and the next has not begun.
    header: u8,
    /// How many bytes it still lacks behind its header, as far as the header has told.
    lacking: usize,
}

impl Records {
    /// Takes the next bytes. Returns whether they are one record, from its first byte to its last, and nothing else.
    pub(super) fn take(&mut self, bytes: &[u8]) -> bool {
        let begins = self.header == 0;
        let mut ended = 0_usize;
        let mut rest = bytes;
        while let Some((&byte, behind)) = rest.split_first() {
            if self.header < HEADER_BYTES {
                if self.header >= LENGTH_AT {
                    self.lacking = self.lacking << 8 | usize::from(byte);
                }
                self.header += 1;
                rest = behind;
            } else {
                let (taken, behind) = rest.split_at(self.lacking.min(rest.len()));
                self.lacking -= taken.len();
                rest = behind;
            }
            if self.header == HEADER_BYTES && self.lacking == 0 {
                self.header = 0;
                ended += 1;
            }
        }
        begins && ended == 1 && self.header == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(length: u16) -> Vec<u8> {
        let mut bytes = vec![23, 3, 3];
        bytes.extend(length.to_be_bytes());
        bytes.resize(bytes.len() + usize::from(length), 0xff);
        bytes
    }

    /// What is said of each piece of `bytes`, cut at `cuts`.
    fn said(bytes: &[u8], cuts: &[usize]) -> Vec<bool> {
        let mut records = Records::default();
        let mut at = 0;
        cuts.iter()
            .chain([&bytes.len()])
            .map(|&end| {
                let piece = bytes.get(at..end).expect("cuts are in order");
                at = end;
                records.take(piece)
            })
            .collect()
    }

    #[test]
    fn one_record_is_told_from_none_and_from_several() {
        assert_eq!(said(&record(300), &[]), [true]);
        assert_eq!(said(&record(0), &[]), [true]);
        assert_eq!(said(&[], &[]), [false]);
        let two = [record(7), record(300)].concat();
        assert_eq!(said(&two, &[]), [false]);
        assert_eq!(said(&two, &[12]), [true, true]);
    }

    #[test]
    fn a_piece_of_a_record_is_none_wherever_it_is_cut() {
        let two = [record(300), record(20)].concat();
        for cut in 1..305 {
            assert_eq!(said(&two, &[cut, 305]), [false, false, true], "at {cut}");
        }
        for cut in 306..two.len() {
            assert_eq!(said(&two, &[305, cut]), [true, false, false], "at {cut}");
        }
    }

    #[test]
    fn a_piece_with_the_end_of_one_record_and_the_beginning_of_another_is_none() {
        let three = [record(10), record(10), record(10)].concat();
        assert_eq!(said(&three, &[10, 25]), [false, false, false]);
        assert_eq!(said(&three, &[10, 30]), [false, false, true]);
        let bytes: Vec<usize> = (1..three.len()).collect();
        assert!(said(&three, &bytes).iter().all(|&one| !one));
    }
}

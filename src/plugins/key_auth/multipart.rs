//! The parts of a `multipart/form-data` body (RFC 7578) that is held in memory: their names,
//! contents and places, within a limit of parts. It decodes no transfer encoding.

use std::ops::Range;

use memchr::memmem::Finder;

/// The most parts of one body; one with more is unreadable.
const PARTS_MAX: usize = 100;

/// The most header lines of one part; RFC 7578 knows three.
const PART_HEADERS_MAX: usize = 16;

/// One part of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'b> {
    /// The form field, if the part says which.
    pub(super) field: Option<Vec<u8>>,
    pub(super) content: &'b [u8],
    /// From the part's delimiter to the next one: what to cut out to remove the part.
    pub(super) span: Range<usize>,
}

/// The parts of `body`; `None` if it is not well-formed or has too many.
pub(super) fn parts<'b>(body: &'b [u8], boundary: &[u8]) -> Option<Vec<Part<'b>>> {
    let delimiters = Delimiters::new(body, boundary)?;
    let mut parts = Vec::new();
    let mut open = delimiters.next(0)?;
    while !open.closes {
        if parts.len() == PARTS_MAX {
            return None;
        }
        let next = delimiters.next(open.end)?;
        let text = body.get(open.end..next.start)?;
        let (field, content) = read(text.strip_suffix(b"\r\n").unwrap_or(text))?;
        parts.push(Part {
            field,
            content,
            span: open.start..next.start,
        });
        open = next;
    }
    Some(parts)
}

/// `body` without the parts of form field `name`; `None` if there is none, or it is unreadable.
pub(super) fn without(body: &[u8], boundary: &[u8], name: &str) -> Option<Vec<u8>> {
    let parts = parts(body, boundary)?;
    let mut rest = Vec::with_capacity(body.len());
    let mut kept_from = 0;
    for part in parts.iter().filter(|part| part.is_named(name)) {
        rest.extend_from_slice(body.get(kept_from..part.span.start)?);
        kept_from = part.span.end;
    }
    rest.extend_from_slice(body.get(kept_from..)?);
    (kept_from > 0).then_some(rest)
}

impl Part<'_> {
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.field.as_deref() == Some(name.as_bytes())
    }
}

/// The field and the content of a part.
fn read(text: &[u8]) -> Option<(Option<Vec<u8>>, &[u8])> {
    let mut lines = [httparse::EMPTY_HEADER; PART_HEADERS_MAX];
    let Ok(httparse::Status::Complete((head_bytes, headers))) =
        httparse::parse_headers(text, &mut lines)
    else {
        // A part may be empty, and then has no head that could end.
        return text.is_empty().then_some((None, text));
    };
    let field = headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-disposition"))
        .and_then(|header| parameter(header.value, "name"));
    Some((field, text.get(head_bytes..)?))
}

/// A line that begins with the boundary.
struct Delimiter {
    start: usize,
    end: usize,
    /// It is the last one.
    closes: bool,
}

struct Delimiters<'b> {
    body: &'b [u8],
    finder: Finder<'static>,
}

impl<'b> Delimiters<'b> {
    /// `None` for a boundary that RFC 2046, section 5.1.1, does not allow by its length.
    fn new(body: &'b [u8], boundary: &[u8]) -> Option<Self> {
        (1..=70).contains(&boundary.len()).then(|| Self {
            body,
            finder: Finder::new(&[b"--", boundary].concat()).into_owned(),
        })
    }

    /// The first delimiter at or after `from`.
    fn next(&self, mut from: usize) -> Option<Delimiter> {
        loop {
            let start = from + self.finder.find(self.body.get(from..)?)?;
            let end = start + self.finder.needle().len();
            if let Some(delimiter) = self.delimiter(start, end) {
                return Some(delimiter);
            }
            from = end;
        }
    }

    /// The delimiter whose dashes and boundary are at `start..end`, if it is one: on a line of its
    /// own, with nothing but blanks or the closing dashes behind it.
    fn delimiter(&self, start: usize, end: usize) -> Option<Delimiter> {
        let (before, after) = (self.body.get(..start)?, self.body.get(end..)?);
        if !(before.is_empty() || before.ends_with(b"\r\n")) {
            return None;
        }
        if after.starts_with(b"--") {
            return Some(Delimiter {
                start,
                end: end + 2,
                closes: true,
            });
        }
        let blanks = after
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count();
        after
            .get(blanks..)?
            .starts_with(b"\r\n")
            .then_some(Delimiter {
                start,
                end: end + blanks + 2,
                closes: false,
            })
    }
}

/// The parameter `wanted` of a header such as `form-data; name="key"`.
pub(super) fn parameter(header: &[u8], wanted: &str) -> Option<Vec<u8>> {
    let (_, mut rest) = split_at_byte(header, b';');
    while let Some(text) = rest {
        let (name, value) = split_at_byte(text, b'=');
        let (value, behind) = parameter_value(value?.trim_ascii_start());
        if name.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()) {
            return Some(value);
        }
        rest = behind;
    }
    None
}

/// A parameter's value, a token or a quoted string, and what follows its semicolon.
fn parameter_value(text: &[u8]) -> (Vec<u8>, Option<&[u8]>) {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let (token, behind) = split_at_byte(text, b';');
        return (token.trim_ascii_end().to_vec(), behind);
    };
    let mut value = Vec::new();
    let mut bytes = quoted.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => break,
            b'\\' => value.extend(bytes.next()),
            _ => value.push(byte),
        }
    }
    (value, split_at_byte(bytes.as_slice(), b';').1)
}

/// What is before the first `byte`, and what is behind it.
fn split_at_byte(text: &[u8], byte: u8) -> (&[u8], Option<&[u8]>) {
    let mut halves = text.splitn(2, |&candidate| candidate == byte);
    (halves.next().unwrap_or_default(), halves.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"preamble\r\n--cut\r\n\
        Content-Disposition: form-data; name=\"note\"; filename=\"a;b.txt\"\r\n\
        Content-Type: text/plain\r\n\r\n\
        two\r\nlines --cut and --cutter\r\n--cutter\r\n--cut  \r\n\
        content-disposition: form-data; name=apikey\r\n\r\n\
        secret\r\n--cut\r\n\r\nno field\r\n--cut--\r\nepilogue";

    fn fields(body: &[u8]) -> Option<Vec<(Option<&str>, &str)>> {
        // The fields live as long as the test needs them.
        let parts = Box::leak(Box::new(parts(body, b"cut")?));
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        Some(
            parts
                .iter()
                .map(|part| {
                    let content = String::from_utf8(part.content.to_vec()).unwrap();
                    (part.field.as_deref().map(text), &*content.leak())
                })
                .collect(),
        )
    }

    #[test]
    fn parts_are_told_by_field_and_content() {
        assert_eq!(
            fields(BODY).unwrap(),
            [
                (Some("note"), "two\r\nlines --cut and --cutter\r\n--cutter"),
                (Some("apikey"), "secret"),
                (None, "no field"),
            ]
        );
    }

    #[test]
    fn empty_parts_and_no_parts_are_well_formed() {
        assert_eq!(fields(b"--cut--").unwrap(), []);
        assert_eq!(fields(b"--cut\r\n--cut--").unwrap(), [(None, "")]);
        assert_eq!(
            fields(b"--cut\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n--cut--").unwrap(),
            [(Some("a"), "")]
        );
    }

    #[test]
    fn a_body_without_its_end_or_with_a_broken_part_is_unreadable() {
        for body in [
            &b""[..],
            b"--cut",
            b"--cut\r\n",
            b"--cut\r\nContent-Disposition: form-data; name=a\r\n\r\nx",
            b"--cut\r\nno header\r\n\r\nx\r\n--cut--",
            b"--cut\r\nContent-Disposition: form-data\r\n--cut--",
            b"x--cut--",
        ] {
            assert_eq!(fields(body), None, "{}", body.escape_ascii());
        }
    }

    #[test]
    fn more_than_a_hundred_parts_are_unreadable() {
        let body =
            |count: usize| [b"--cut\r\n\r\nx\r\n".repeat(count), b"--cut--".to_vec()].concat();
        assert_eq!(parts(&body(100), b"cut").unwrap().len(), 100);
        assert_eq!(parts(&body(101), b"cut"), None);
    }

    #[test]
    fn a_boundary_has_1_to_70_bytes() {
        assert_eq!(parts(b"----", b""), None);
        assert!(parts(format!("--{0}--", "b".repeat(70)).as_bytes(), &[b'b'; 70]).is_some());
        assert_eq!(
            parts(format!("--{0}--", "b".repeat(71)).as_bytes(), &[b'b'; 71]),
            None
        );
    }

    #[test]
    fn a_removed_part_leaves_every_other_byte() {
        let rest = without(BODY, b"cut", "apikey").unwrap();
        let cut = b"--cut  \r\ncontent-disposition: form-data; name=apikey\r\n\r\nsecret\r\n";
        let start = BODY
            .windows(cut.len())
            .position(|window| window == cut)
            .unwrap();
        assert_eq!(rest, [&BODY[..start], &BODY[start + cut.len()..]].concat());
        assert_eq!(without(BODY, b"cut", "other"), None);
    }

    #[test]
    fn every_part_of_the_field_is_removed() {
        let part = |name: &str| {
            format!("--cut\r\nContent-Disposition: form-data; name={name}\r\n\r\nx\r\n")
        };
        let body = format!("{}{}{}--cut--", part("k"), part("a"), part("k"));
        let rest = without(body.as_bytes(), b"cut", "k").unwrap();
        assert_eq!(
            String::from_utf8(rest).unwrap(),
            format!("{}--cut--", part("a"))
        );
    }

    #[test]
    fn parameters_are_tokens_or_quoted_strings() {
        let found = |header: &str| {
            parameter(header.as_bytes(), "name").map(|value| String::from_utf8(value).unwrap())
        };
        assert_eq!(found("form-data; name=a").as_deref(), Some("a"));
        assert_eq!(
            found("form-data;NAME = \"a\\\"b;c\" ; x=y").as_deref(),
            Some("a\"b;c")
        );
        assert_eq!(
            found("form-data; filename=\"; name=x\"; name=a ;").as_deref(),
            Some("a")
        );
        assert_eq!(found("form-data; name=\"open").as_deref(), Some("open"));
        assert_eq!(found("form-data; name"), None);
        assert_eq!(found("name=a"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_body_and_no_header_makes_the_reader_panic(
            body in "(--cut|--|\r\n|name=|;|\"|\\\\|Content-Disposition: |x| )*",
        ) {
            for part in parts(body.as_bytes(), b"cut").unwrap_or_default() {
                proptest::prop_assert!(part.span.end <= body.len());
            }
            without(body.as_bytes(), b"cut", "x");
            parameter(body.as_bytes(), "name");
        }
    }
}

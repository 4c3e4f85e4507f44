//! Reads the server name out of a ClientHello. The context of a handshake depends on the name and must be known
//! before OpenSSL sees the first byte, or a session could be resumed under the rules of another name.
//!
//! It judges nothing: OpenSSL reads the same bytes, and what is malformed fails there.

/// The longest ClientHello that is read, record headers included.
pub(super) const HELLO_BYTES_MAX: usize = 32 * 1024;

const RECORD_HANDSHAKE: u8 = 22;
const MESSAGE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const NAME_HOST: u8 = 0;
const RECORD_HEADER_BYTES: usize = 5;
const MESSAGE_HEADER_BYTES: usize = 4;

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hello {
    /// The beginning of a ClientHello.
    Unfinished,
    /// A whole one, with the name that it asks for in lower case, or something only OpenSSL can judge.
    Complete(Option<Box<str>>),
    /// No TLS at all.
    Foreign,
}

/// Looks at the bytes that came so far.
pub(super) fn read(bytes: &[u8]) -> Hello {
    match bytes.first() {
        None => return Hello::Unfinished,
        Some(&RECORD_HANDSHAKE) => {}
        Some(_) => return Hello::Foreign,
    }
    let Some((header, body)) = bytes.split_at_checked(RECORD_HEADER_BYTES) else {
        return Hello::Unfinished;
    };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    let Some(fragment) = body.get(..length) else {
        return Hello::Unfinished;
    };
    // Nearly always the first record holds all of it.
    match message(fragment) {
        Message::Whole(hello) => Hello::Complete(server_name(hello)),
        Message::Other => Hello::Complete(None),
        Message::Part => joined(bytes),
    }
}

enum Message<'b> {
    Whole(&'b [u8]),
    Part,
    Other,
}

/// The body of the first handshake message.
fn message(bytes: &[u8]) -> Message<'_> {
    let Some((header, body)) = bytes.split_at_checked(MESSAGE_HEADER_BYTES) else {
        return Message::Part;
    };
    if header[0] != MESSAGE_CLIENT_HELLO {
        return Message::Other;
    }
    let length = u32::from_be_bytes([0, header[1], header[2], header[3]]);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > HELLO_BYTES_MAX {
        return Message::Other;
    }
    body.get(..length).map_or(Message::Part, Message::Whole)
}

/// The same for a message that goes over several records.
fn joined(bytes: &[u8]) -> Hello {
    let mut rest = bytes;
    let mut fragments = Vec::with_capacity(bytes.len());
    while let Some((header, body)) = rest.split_at_checked(RECORD_HEADER_BYTES) {
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[0] != RECORD_HANDSHAKE || length == 0 {
            return Hello::Complete(None);
        }
        let Some((fragment, next)) = body.split_at_checked(length) else {
            return Hello::Unfinished;
        };
        fragments.extend_from_slice(fragment);
        match message(&fragments) {
            Message::Whole(hello) => return Hello::Complete(server_name(hello)),
            Message::Other => return Hello::Complete(None),
            Message::Part => rest = next,
        }
    }
    Hello::Unfinished
}

/// The host name of the extension `server_name`, if there is one that can be a host name.
fn server_name(hello: &[u8]) -> Option<Box<str>> {
    let mut cursor = Cursor(hello);
    cursor.take(2 + 32)?;
    cursor.vector8()?;
    cursor.vector16()?;
    cursor.vector8()?;
    let mut extensions = Cursor(cursor.vector16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let body = extensions.vector16()?;
        if kind == EXTENSION_SERVER_NAME {
            let mut names = Cursor(Cursor(body).vector16()?);
            let is_host = names.take(1)? == [NAME_HOST];
            let name = names.vector16()?;
            return is_host.then(|| text(name)).flatten();
        }
    }
    None
}

fn text(name: &[u8]) -> Option<Box<str>> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let fits = !name.is_empty() && name.len() <= 255 && name.iter().all(u8::is_ascii_graphic);
    let name = std::str::from_utf8(name).ok().filter(|_| fits)?;
    Some(name.to_ascii_lowercase().into_boxed_str())
}

struct Cursor<'b>(&'b [u8]);

impl<'b> Cursor<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Option<&'b [u8]> {
        let length = self.take(1)?;
        self.take(usize::from(length[0]))
    }

    fn vector16(&mut self) -> Option<&'b [u8]> {
        let length = self.number16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vector16(bytes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(bytes.len()).expect("short");
        [&length.to_be_bytes(), bytes].concat()
    }

    /// A ClientHello for `name` as one handshake message.
    fn hello(name: Option<&str>) -> Vec<u8> {
        let mut extensions = [&[0, 43][..], &vector16(&[2, 3, 4])].concat();
        if let Some(name) = name {
            let entry = [&[0][..], &vector16(name.as_bytes())].concat();
            extensions.extend([0, 0]);
            extensions.extend(vector16(&vector16(&entry)));
        }
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend(vector16(&[0x13, 0x01]));
        body.extend([1, 0]);
        body.extend(vector16(&extensions));
        let length = u32::try_from(body.len()).expect("short").to_be_bytes();
        [&[1, length[1], length[2], length[3]], body.as_slice()].concat()
    }

    fn records(message: &[u8], bytes_each: usize) -> Vec<u8> {
        let records = message.chunks(bytes_each);
        records
            .flat_map(|part| [&[22, 3, 1][..], &vector16(part)].concat())
            .collect()
    }

    fn complete(name: &str) -> Hello {
        Hello::Complete(Some(name.into()))
    }

    #[test]
    fn the_name_is_found_in_lower_case_and_without_a_final_dot() {
        let read_name = |name| read(&records(&hello(Some(name)), 4096));
        assert_eq!(read_name("A.Test"), complete("a.test"));
        assert_eq!(read_name("a.test."), complete("a.test"));
        assert_eq!(read_name("a b"), Hello::Complete(None));
        assert_eq!(read(&records(&hello(None), 4096)), Hello::Complete(None));
    }

    #[test]
    fn a_hello_in_pieces_is_unfinished_until_its_last_byte() {
        for bytes_each in [1, 7, 60, 4096] {
            let all = records(&hello(Some("a.test")), bytes_each);
            for end in 0..all.len() {
                assert_eq!(read(&all[..end]), Hello::Unfinished, "{end}");
            }
            assert_eq!(read(&all), complete("a.test"));
        }
    }

    #[test]
    fn other_protocols_are_foreign_and_other_messages_are_left_to_openssl() {
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), Hello::Foreign);
        assert_eq!(read(&[0x80, 0x2e, 1, 0, 2]), Hello::Foreign);
        assert_eq!(read(&records(&[2, 0, 0, 1, 0], 99)), Hello::Complete(None));
        assert_eq!(
            read(&[22, 3, 1, 0, 0, 22, 3, 1, 0, 0]),
            Hello::Complete(None)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_upset_it(mut bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0_usize..200, to in any::<u8>()) {
            read(&bytes);
            bytes.insert(0, 22);
            read(&bytes);
            let mut nearly = records(&hello(Some("a.test")), 4096);
            if let Some(byte) = nearly.get_mut(at) {
                *byte = to;
            }
            read(&nearly);
        }
    }
}

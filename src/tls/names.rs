//! Distinguished names as text: RFC 4514, and nothing but visible ASCII, so that a name can stand in a header.

/// Joins the parts of a name, which come with the most specific one first.
pub(super) fn distinguished<'p>(parts: impl Iterator<Item = (&'p str, &'p [u8])>) -> String {
    let mut name = String::new();
    for (kind, value) in parts {
        if !name.is_empty() {
            name.push(',');
        }
        name.push_str(kind);
        name.push('=');
        escape(value, &mut name);
    }
    name
}

fn escape(value: &[u8], name: &mut String) {
    let last = value.len().saturating_sub(1);
    for (place, &byte) in value.iter().enumerate() {
        let at_edge = place == 0 || place == last;
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => {
                name.push('\\');
                name.push(char::from(byte));
            }
            b' ' if at_edge => name.push_str("\\ "),
            b'#' if place == 0 => name.push_str("\\#"),
            b' '..=b'~' => name.push(char::from(byte)),
            _ => {
                name.push('\\');
                for digit in [byte >> 4, byte & 15] {
                    name.extend(
                        char::from_digit(u32::from(digit), 16)
                            .map(|digit| digit.to_ascii_uppercase()),
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(parts: &[(&str, &str)]) -> String {
        distinguished(parts.iter().map(|(kind, value)| (*kind, value.as_bytes())))
    }

    #[test]
    fn parts_are_joined_by_commas() {
        assert_eq!(
            name(&[("CN", "orders"), ("O", "Example"), ("C", "DE")]),
            "CN=orders,O=Example,C=DE"
        );
    }

    #[test]
    fn nothing_in_a_value_can_look_like_another_part() {
        assert_eq!(name(&[("CN", "a,O=b+c")]), "CN=a\\,O\\=b\\+c");
        assert_eq!(name(&[("CN", " #a ")]), "CN=\\ #a\\ ");
        assert_eq!(name(&[("CN", "#a")]), "CN=\\#a");
        assert_eq!(name(&[("CN", "a\r\nb")]), "CN=a\\0D\\0Ab");
        assert_eq!(name(&[("CN", "ä")]), "CN=\\C3\\A4");
    }
}

//! A key in a request body: where it is, and the body without it. Forms (urlencoded and multipart)
//! and JSON objects; every other body, and one that cannot be read, has no key.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use http::HeaderValue;
use serde::{
    Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use super::{Presented, arguments, multipart, sole};

/// How the fields of a body are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MediaType {
    Form,
    Json,
    Multipart { boundary: Vec<u8> },
}

impl MediaType {
    /// The media type that a `Content-Type` names; `None` for one that has no fields.
    pub(super) fn of(content_type: &HeaderValue) -> Option<Self> {
        let value = content_type.as_bytes();
        let essence = value.split(|&byte| byte == b';').next()?.trim_ascii();
        if essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
            Some(Self::Form)
        } else if essence.eq_ignore_ascii_case(b"application/json") {
            Some(Self::Json)
        } else if essence.eq_ignore_ascii_case(b"multipart/form-data") {
            let boundary = multipart::parameter(value, "boundary")?;
            Some(Self::Multipart { boundary })
        } else {
            None
        }
    }
}

/// A whole body that has fields.
pub(super) struct Fields {
    pub(super) media_type: MediaType,
    pub(super) body: Bytes,
}

impl Fields {
    /// What is presented as field `name`.
    pub(super) fn value(&self, name: &str) -> Option<Presented<Cow<'_, [u8]>>> {
        match &self.media_type {
            MediaType::Form => sole(arguments::values(&self.body, name)),
            MediaType::Json => json_value(&self.body, name),
            MediaType::Multipart { boundary } => sole(
                multipart::parts(&self.body, boundary)?
                    .into_iter()
                    .filter(|part| part.is_named(name))
                    .map(|part| Cow::Borrowed(part.content)),
            ),
        }
    }

    /// The body without field `name`; `None` if it has no such field.
    pub(super) fn without(&self, name: &str) -> Option<Bytes> {
        let rest = match &self.media_type {
            MediaType::Form => arguments::without(&self.body, name),
            MediaType::Json => json_without(&self.body, name),
            MediaType::Multipart { boundary } => multipart::without(&self.body, boundary, name),
        };
        rest.map(Bytes::from)
    }
}

fn json_value(body: &[u8], name: &str) -> Option<Presented<Cow<'static, [u8]>>> {
    let mut found = None;
    each_member(body, |member, value| {
        // Of a repeated member the last one counts, as for most readers of JSON.
        if member == name {
            found = Some(value);
        }
    })
    .ok()?;
    let value = found?.get();
    if value.starts_with('[') {
        return Some(Presented::Several);
    }
    let text: String = serde_json::from_str(value).ok()?;
    Some(Presented::One(Cow::Owned(text.into_bytes())))
}

fn json_without(body: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut rest = Vec::with_capacity(body.len());
    let mut found = false;
    each_member(body, |member, value| {
        if member == name {
            found = true;
            return;
        }
        rest.push(if rest.is_empty() { b'{' } else { b',' });
        rest.extend_from_slice(Value::from(member).to_string().as_bytes());
        rest.push(b':');
        rest.extend_from_slice(value.get().as_bytes());
    })
    .ok()?;
    if rest.is_empty() {
        rest.push(b'{');
    }
    rest.push(b'}');
    found.then_some(rest)
}

/// Calls `visit` with each member of a JSON object in order. Values come as they were written:
/// numbers keep their digits, and nesting is skipped over rather than followed.
fn each_member<'b>(
    body: &'b [u8],
    visit: impl FnMut(&str, &'b RawValue),
) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    reader.deserialize_map(EachMember(visit))?;
    reader.end()
}

struct EachMember<F>(F);

impl<'de, F: FnMut(&str, &'de RawValue)> Visitor<'de> for EachMember<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((member, value)) = map.next_entry::<String, _>()? {
            (self.0)(&member, value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media_type(text: &'static str) -> Option<MediaType> {
        MediaType::of(&HeaderValue::from_static(text))
    }

    fn json(body: &'static str) -> Fields {
        Fields {
            media_type: MediaType::Json,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn media_types_are_compared_without_case_and_parameters() {
        assert_eq!(
            media_type("Application/X-WWW-Form-Urlencoded; charset=utf-8"),
            Some(MediaType::Form)
        );
        assert_eq!(
            media_type("application/json ;charset=utf-8"),
            Some(MediaType::Json)
        );
        assert_eq!(
            media_type("multipart/form-data; boundary=\"a b\""),
            Some(MediaType::Multipart {
                boundary: b"a b".to_vec()
            })
        );
        for unsupported in ["multipart/form-data", "text/plain", "application/jsonp", ""] {
            assert_eq!(media_type(unsupported), None, "{unsupported}");
        }
    }

    #[test]
    fn a_string_member_is_a_key_and_an_array_several() {
        let one = json(r#"{"a":1,"apikey":"\u0078"}"#);
        assert!(matches!(one.value("apikey"), Some(Presented::One(key)) if *key == *b"x"));
        let several = json(r#"{"apikey":["x"]}"#);
        assert!(matches!(several.value("apikey"), Some(Presented::Several)));
    }

    #[test]
    fn any_other_json_has_no_key() {
        for body in [
            r#"{"apikey":7}"#,
            r#"{"apikey":null}"#,
            r#"{"apikey":{"apikey":"x"}}"#,
            r#"{"a":{"apikey":"x"}}"#,
            r#"["apikey"]"#,
            r#"{"apikey":"x""#,
            r#"{"apikey":"x"} {}"#,
            "",
        ] {
            assert!(json(body).value("apikey").is_none(), "{body}");
        }
    }

    #[test]
    fn of_a_repeated_member_the_last_one_counts_and_all_are_removed() {
        let fields = json(r#"{"apikey":"x","a":1,"apikey":"y"}"#);
        assert!(matches!(fields.value("apikey"), Some(Presented::One(key)) if *key == *b"y"));
        assert_eq!(fields.without("apikey").unwrap(), r#"{"a":1}"#);
    }

    #[test]
    fn other_members_keep_their_order_and_digits() {
        let fields =
            json(r#"{"z":1.10, "apikey":"x", "n":123456789012345678901234567890, "a":{"b":[ ]}}"#);
        assert_eq!(
            fields.without("apikey").unwrap(),
            r#"{"z":1.10,"n":123456789012345678901234567890,"a":{"b":[ ]}}"#
        );
        assert_eq!(fields.without("other"), None);
        assert_eq!(json(r#"{"apikey":1}"#).without("apikey").unwrap(), "{}");
        let escaped = json(r#"{"\"\n":1,"api\u006bey":"x"}"#);
        assert_eq!(escaped.without("apikey").unwrap(), r#"{"\"\n":1}"#);
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        let body = format!(
            "{{\"a\":{}{},\"apikey\":\"x\"}}",
            "[".repeat(200_000),
            "]".repeat(200_000)
        );
        let fields = Fields {
            media_type: MediaType::Json,
            body: body.into(),
        };
        assert!(matches!(fields.value("apikey"), Some(Presented::One(_))));
    }
}

//! Which of the fields that are treated specially a head has at all, found in one walk over its
//! names: most heads have few of them, and a walk costs less than a look-up for each.

use std::ops::BitOr;

use http::HeaderMap;

/// A set of field names, some of them by group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fields(u16);

impl Fields {
    pub(super) const CONNECTION: Self = Self(1);
    pub(super) const UPGRADE: Self = Self(1 << 1);
    pub(super) const TE: Self = Self(1 << 2);
    pub(super) const TRAILER: Self = Self(1 << 3);
    pub(super) const EXPECT: Self = Self(1 << 4);
    /// What else concerns one connection only: see [`super::hop_by_hop`].
    pub(super) const HOP: Self = Self(1 << 5);
    pub(super) const CONTENT_LENGTH: Self = Self(1 << 6);
    pub(super) const TRANSFER_ENCODING: Self = Self(1 << 7);
    pub(super) const VIA: Self = Self(1 << 8);
    pub(super) const SERVER: Self = Self(1 << 9);
    /// `X-Forwarded-…`.
    pub(super) const FORWARDED: Self = Self(1 << 10);
    /// Any name that begins with an X.
    pub(super) const X: Self = Self(1 << 11);

    /// The fields of `headers`.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), |fields, name| {
            fields | Self::of_name(name.as_str())
        })
    }

    fn of_name(name: &str) -> Self {
        match name {
            "connection" => Self::CONNECTION,
            "upgrade" => Self::UPGRADE,
            "te" => Self::TE,
            "trailer" => Self::TRAILER,
            "expect" => Self::EXPECT,
            "keep-alive" | "proxy" | "proxy-connection" | "http2-settings" => Self::HOP,
            "content-length" => Self::CONTENT_LENGTH,
            "transfer-encoding" => Self::TRANSFER_ENCODING,
            "via" => Self::VIA,
            "server" => Self::SERVER,
            name if name.starts_with("x-forwarded-") => Self::FORWARDED | Self::X,
            name if name.starts_with('x') => Self::X,
            _ => Self::default(),
        }
    }

    /// Whether any of `fields` is there.
    pub(super) const fn has(self, fields: Self) -> bool {
        self.0 & fields.0 != 0
    }
}

impl BitOr for Fields {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_head_has_the_fields_of_its_names_and_no_others() {
        let mut headers = HeaderMap::new();
        assert_eq!(Fields::of(&headers), Fields::default());
        for name in [
            "host",
            "te",
            "proxy-connection",
            "x-forwarded-for",
            "accept",
        ] {
            headers.insert(name, HeaderValue::from_static("a"));
        }
        let fields = Fields::of(&headers);
        for there in [Fields::TE, Fields::HOP, Fields::FORWARDED, Fields::X] {
            assert!(fields.has(there), "{there:?}");
        }
        for absent in [Fields::CONNECTION, Fields::VIA, Fields::TRAILER] {
            assert!(!fields.has(absent), "{absent:?}");
        }
        assert!(fields.has(Fields::CONNECTION | Fields::TE));
    }
}

//! Which of the fields that are treated specially a head has at all, found in one walk over its
//! names: most heads have few of them, and a walk costs less than a look-up for each.

use std::ops::BitOr;

use crate::entity::message::Headers;

/// A set of field names, some of them by group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fields(u32);

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
    pub(super) const HOST: Self = Self(1 << 10);
    pub(super) const DATE: Self = Self(1 << 11);
    pub(super) const FORWARDED_FOR: Self = Self(1 << 12);
    pub(super) const FORWARDED_PROTO: Self = Self(1 << 13);
    pub(super) const FORWARDED_HOST: Self = Self(1 << 14);
    pub(super) const FORWARDED_PORT: Self = Self(1 << 15);
    pub(super) const FORWARDED_PATH: Self = Self(1 << 16);
    pub(super) const FORWARDED_PREFIX: Self = Self(1 << 17);
    pub(super) const REAL_IP: Self = Self(1 << 18);
    pub(super) const REQUEST_ID: Self = Self(1 << 19);
    /// `X-Client-Cert-…`.
    pub(super) const CERTIFICATE: Self = Self(1 << 20);
    /// Any name that begins with an X.
    pub(super) const X: Self = Self(1 << 21);

    /// The fields of `headers`.
    pub(super) fn of(headers: &Headers) -> Self {
        headers.iter().fold(Self::default(), |fields, (name, _)| {
            fields | Self::of_name(name.as_str())
        })
    }

    /// The field of this name, in lower case.
    pub(super) fn of_name(name: &str) -> Self {
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
            "host" => Self::HOST,
            "date" => Self::DATE,
            name if name.starts_with('x') => Self::X | Self::of_extension(name),
            _ => Self::default(),
        }
    }

    fn of_extension(name: &str) -> Self {
        match name {
            "x-forwarded-for" => Self::FORWARDED_FOR,
            "x-forwarded-proto" => Self::FORWARDED_PROTO,
            "x-forwarded-host" => Self::FORWARDED_HOST,
            "x-forwarded-port" => Self::FORWARDED_PORT,
            "x-forwarded-path" => Self::FORWARDED_PATH,
            "x-forwarded-prefix" => Self::FORWARDED_PREFIX,
            "x-real-ip" => Self::REAL_IP,
            "x-kong-request-id" => Self::REQUEST_ID,
            name if name.starts_with("x-client-cert-") => Self::CERTIFICATE,
            _ => Self::default(),
        }
    }

    /// Whether any of `fields` is there.
    pub(super) const fn has(self, fields: Self) -> bool {
        self.0 & fields.0 != 0
    }

    /// These and `others`.
    pub(super) const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

impl BitOr for Fields {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn a_head_has_the_fields_of_its_names_and_no_others() {
        let mut headers = Headers::default();
        assert_eq!(Fields::of(&headers), Fields::default());
        for name in [
            "host",
            "te",
            "proxy-connection",
            "x-forwarded-for",
            "accept",
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("a"));
        }
        let fields = Fields::of(&headers);
        for there in [Fields::TE, Fields::HOP, Fields::FORWARDED_FOR, Fields::X] {
            assert!(fields.has(there), "{there:?}");
        }
        for absent in [Fields::CONNECTION, Fields::VIA, Fields::FORWARDED_HOST] {
            assert!(!fields.has(absent), "{absent:?}");
        }
        assert!(fields.has(Fields::CONNECTION | Fields::TE));
    }
}

//! The fields that are treated specially, as sets: what a name is is found once, when its line comes into a head.

/// A set of field names, some of them by group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fields(u32);

impl Fields {
    pub const CONNECTION: Self = Self(1);
    pub const UPGRADE: Self = Self(1 << 1);
    pub const TE: Self = Self(1 << 2);
    pub const TRAILER: Self = Self(1 << 3);
    pub const EXPECT: Self = Self(1 << 4);
    /// What else concerns one connection only and is not passed on.
    pub const HOP: Self = Self(1 << 5);
    pub const CONTENT_LENGTH: Self = Self(1 << 6);
    pub const TRANSFER_ENCODING: Self = Self(1 << 7);
    pub const VIA: Self = Self(1 << 8);
    pub const SERVER: Self = Self(1 << 9);
    pub const HOST: Self = Self(1 << 10);
    pub const DATE: Self = Self(1 << 11);
    pub const FORWARDED_FOR: Self = Self(1 << 12);
    pub const FORWARDED_PROTO: Self = Self(1 << 13);
    pub const FORWARDED_HOST: Self = Self(1 << 14);
    pub const FORWARDED_PORT: Self = Self(1 << 15);
    pub const FORWARDED_PATH: Self = Self(1 << 16);
    pub const FORWARDED_PREFIX: Self = Self(1 << 17);
    pub const REAL_IP: Self = Self(1 << 18);
    pub const REQUEST_ID: Self = Self(1 << 19);
    /// `X-Client-Cert-…`.
    pub const CERTIFICATE: Self = Self(1 << 20);
    /// Any name that begins with an X.
    pub const X: Self = Self(1 << 21);

    /// The field of this name, in lower case.
    pub fn of_name(name: &str) -> Self {
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
            name if name.starts_with('x') => Self::X.and(Self::of_extension(name)),
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

    /// Whether any of `fields` is in it.
    pub const fn has(self, fields: Self) -> bool {
        self.0 & fields.0 != 0
    }

    /// These and `others`.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_own_field_and_of_its_group() {
        for (name, expected) in [
            ("te", Fields::TE),
            ("proxy-connection", Fields::HOP),
            ("x-forwarded-for", Fields::FORWARDED_FOR.and(Fields::X)),
            ("x-client-cert-serial", Fields::CERTIFICATE.and(Fields::X)),
            ("x-anything", Fields::X),
            ("accept", Fields::default()),
        ] {
            assert_eq!(Fields::of_name(name), expected, "{name}");
        }
    }

    #[test]
    fn a_set_has_its_members_and_no_others() {
        let set = Fields::TE.and(Fields::HOP);
        assert!(set.has(Fields::CONNECTION.and(Fields::TE)));
        assert!(!set.has(Fields::CONNECTION.and(Fields::VIA)));
        assert!(!Fields::default().has(set));
    }
}

//! The values of settings that concern TLS and are neither a switch nor a path.

use std::str::FromStr;

use super::settings::{FilePath, Written, written};

/// Versions of TLS, such as `TLSv1.2 TLSv1.3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsVersions {
    pub tls12: bool,
    pub tls13: bool,
}

impl Written for TlsVersions {
    const FORMAT: &'static str = "tls-versions";
}

impl FromStr for TlsVersions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut versions = Self::default();
        for word in text.split_whitespace() {
            match word {
                "TLSv1.2" => versions.tls12 = true,
                "TLSv1.3" => versions.tls13 = true,
                "SSLv2" | "SSLv3" | "TLSv1" | "TLSv1.1" => {
                    return Err(format!(
                        "`{word}` is broken and not supported: write `TLSv1.2 TLSv1.3`"
                    ));
                }
                _ => return Err(format!("`{word}` is none of TLSv1.2, TLSv1.3")),
            }
        }
        if versions == Self::default() {
            return Err("names no version: write `TLSv1.2 TLSv1.3`".into());
        }
        Ok(versions)
    }
}

/// Whose word about an upstream's certificate is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedCertificates {
    /// The authorities of the system.
    System,
    /// A file in PEM, as it is written.
    File(String),
}

impl Written for TrustedCertificates {
    const FORMAT: &'static str = "trusted-certificates";
}

impl FromStr for TrustedCertificates {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "system" => Ok(Self::System),
            path => path.parse::<FilePath>().map(|path| Self::File(path.0)),
        }
    }
}

/// The parameters of DHE, as they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DhParameters {
    /// A group of RFC 7919.
    Group(DhGroup),
    /// The parameters themselves, in PEM.
    Pem(String),
    /// A file in PEM.
    File(FilePath),
}

/// A group of RFC 7919, called by the bits of its prime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhGroup {
    Ffdhe2048,
    Ffdhe3072,
    Ffdhe4096,
    Ffdhe6144,
    Ffdhe8192,
}

written!(DhParameters, "dh-parameters", "string");

impl FromStr for DhParameters {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let group = match text {
            "ffdhe2048" => DhGroup::Ffdhe2048,
            "ffdhe3072" => DhGroup::Ffdhe3072,
            "ffdhe4096" => DhGroup::Ffdhe4096,
            "ffdhe6144" => DhGroup::Ffdhe6144,
            "ffdhe8192" => DhGroup::Ffdhe8192,
            _ if text.starts_with("ffdhe") && !text.contains(['.', '/']) => {
                return Err(format!(
                    "`{text}` is none of ffdhe2048, ffdhe3072, ffdhe4096, ffdhe6144, ffdhe8192"
                ));
            }
            _ if text.trim_start().starts_with("-----BEGIN") => {
                return Ok(Self::Pem(text.to_owned()));
            }
            path => return path.parse().map(Self::File),
        };
        Ok(Self::Group(group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_dhe_are_a_group_a_file_or_themselves() {
        let group = DhParameters::Group(DhGroup::Ffdhe3072);
        assert_eq!("ffdhe3072".parse(), Ok(group));
        let file = DhParameters::File(FilePath("dh.pem".to_owned()));
        assert_eq!("dh.pem".parse(), Ok(file));
        let pem = "-----BEGIN DH PARAMETERS-----\n";
        assert_eq!(pem.parse(), Ok(DhParameters::Pem(pem.to_owned())));
        let error = "ffdhe1024".parse::<DhParameters>().unwrap_err();
        assert!(error.contains("none of ffdhe2048"), "{error}");
    }

    #[test]
    fn versions_of_tls_are_those_that_are_safe() {
        let both = TlsVersions {
            tls12: true,
            tls13: true,
        };
        assert_eq!("TLSv1.2 TLSv1.3".parse(), Ok(both));
        for (text, expected) in [
            ("TLSv1.1 TLSv1.2", "`TLSv1.1` is broken"),
            ("TLSv2", "none of TLSv1.2, TLSv1.3"),
            ("", "names no version"),
        ] {
            let error = text.parse::<TlsVersions>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}

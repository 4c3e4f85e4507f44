//! Credentials of consumers as authentication plugins find them in the directory of consumers.
//! What a credential proves, and how, is the plugins' business.

use std::fmt;

use http::HeaderValue;
use openssl::{
    nid::Nid,
    pkey::{Id, PKey, PKeyRef, Public},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Secret, consumer::ConsumerIndex, identifier::uuid_header};

/// One key of a consumer for `key-auth`.
#[derive(Debug, Clone)]
pub struct KeyCredential {
    pub id: Uuid,
    pub id_header: HeaderValue,
    pub consumer: ConsumerIndex,
    /// Unix seconds after which the key is unknown; absent = never.
    pub expires_at: Option<i64>,
}

impl KeyCredential {
    pub fn new(id: Uuid, consumer: ConsumerIndex, expires_at: Option<i64>) -> Self {
        Self {
            id,
            id_header: uuid_header(id),
            consumer,
            expires_at,
        }
    }
}

/// The password of a consumer for `basic-auth`.
#[derive(Debug, Clone)]
pub struct BasicCredential {
    pub id: Uuid,
    pub consumer: ConsumerIndex,
    pub password: Password,
}

/// A password as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// Kong's form: SHA-1 of the password followed by the consumer's id as text.
    Sha1([u8; 20]),
    /// A hash that says itself how it was made: argon2id or bcrypt.
    SelfDescribing(String),
}

/// What the self-describing hashes begin with.
const SELF_DESCRIBING: [&str; 3] = ["$argon2id$", "$2b$", "$2y$"];

impl Password {
    /// What is kept of a password that a document shows.
    pub fn plain(password: &str, consumer: Uuid) -> Self {
        if let Some(password) = Self::self_describing(password) {
            return password;
        }
        Self::Sha1(openssl::sha::sha1(
            format!("{password}{consumer}").as_bytes(),
        ))
    }

    /// A hash that a document shows; `None` if it is none.
    pub fn hashed(hash: &str) -> Option<Self> {
        if let Some(password) = Self::self_describing(hash) {
            return Some(password);
        }
        if hash.len() != 40 || hash.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        let mut bytes = [0; 20];
        for (byte, index) in bytes.iter_mut().zip((0..40).step_by(2)) {
            *byte = u8::from_str_radix(hash.get(index..index + 2)?, 16).ok()?;
        }
        Some(Self::Sha1(bytes))
    }

    fn self_describing(text: &str) -> Option<Self> {
        SELF_DESCRIBING
            .iter()
            .any(|mark| text.starts_with(mark))
            .then(|| Self::SelfDescribing(text.to_owned()))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// What verifies the tokens of a consumer for `jwt`.
#[derive(Debug, Clone)]
pub struct JwtCredential {
    pub id: Uuid,
    pub consumer: ConsumerIndex,
    /// What tokens name the credential by, ready to be sent upstream; absent if it cannot be sent.
    pub key_header: Option<HeaderValue>,
    pub algorithm: JwtAlgorithm,
    pub verification: JwtVerification,
}

/// What a signature is verified with.
#[derive(Debug, Clone)]
pub enum JwtVerification {
    Secret(Secret<String>),
    PublicKey(PKey<Public>),
}

/// How a token is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum JwtAlgorithm {
    #[default]
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    ES256,
    ES384,
    ES512,
    PS256,
    PS384,
    PS512,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// The fewest bits of an RSA key.
const RSA_BITS_MIN: u32 = 2048;

impl JwtAlgorithm {
    /// The name in the header of a token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Whether who verifies a token could also sign it.
    pub const fn is_symmetric(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }

    /// Whether tokens of this algorithm can be verified with `key`.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn fits(self, key: &PKeyRef<Public>) -> Result<(), String> {
        let name = self.as_str();
        let curve = |nid: Nid, called: &str| {
            let key = key.ec_key().ok();
            let found = key.and_then(|key| key.group().curve_name());
            (found == Some(nid))
                .then_some(())
                .ok_or_else(|| format!("{name} needs a key on the curve {called}"))
        };
        match self {
            Self::HS256 | Self::HS384 | Self::HS512 => {
                Err(format!("{name} is verified with a secret, not with a key"))
            }
            Self::RS256 | Self::RS384 | Self::RS512 | Self::PS256 | Self::PS384 | Self::PS512 => {
                match key.id() {
                    Id::RSA if key.bits() >= RSA_BITS_MIN => Ok(()),
                    Id::RSA => Err(format!(
                        "an RSA key of {} bits is too small: at least {RSA_BITS_MIN} are needed",
                        key.bits()
                    )),
                    _ => Err(format!("{name} needs an RSA key")),
                }
            }
            Self::ES256 => curve(Nid::X9_62_PRIME256V1, "P-256"),
            Self::ES384 => curve(Nid::SECP384R1, "P-384"),
            Self::ES512 => curve(Nid::SECP521R1, "P-521"),
            Self::EdDsa => match key.id() {
                Id::ED25519 | Id::ED448 => Ok(()),
                _ => Err(format!("{name} needs an Ed25519 or Ed448 key")),
            },
        }
    }
}

/// The secret by which `hmac-auth` knows a consumer.
#[derive(Debug, Clone)]
pub struct HmacCredential {
    pub id: Uuid,
    pub consumer: ConsumerIndex,
    pub secret: Secret<String>,
}

/// An application of a consumer that asks for tokens of `oauth2`.
#[derive(Debug, Clone)]
pub struct Oauth2Credential {
    pub id: Uuid,
    pub consumer: ConsumerIndex,
    /// What the application is called.
    pub name: String,
    /// Absent only for a public application.
    pub client_secret: Option<Secret<String>>,
    pub hash_secret: bool,
    pub redirect_uris: Vec<String>,
    pub client_type: ClientType,
}

/// Whether an application can keep a secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientType {
    /// It runs where nobody else looks.
    #[default]
    Confidential,
    /// It runs in its users' hands.
    Public,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::public_key::{parse, samples};

    #[test]
    fn a_password_is_kept_as_kong_keeps_it() {
        let consumer = Uuid::parse_str("0b0b0b0b-0000-4000-8000-000000000001").unwrap();
        let hash = "14c8e25c95c82ff076b68c6924a2757c0be4bb93";
        let plain = Password::plain("kong", consumer);
        assert_eq!(Some(&plain), Password::hashed(hash).as_ref());
        assert_eq!(format!("{plain:?}"), "***");
        assert_ne!(Password::plain(hash, consumer), plain);
    }

    #[test]
    fn what_is_no_hash_is_told_from_one() {
        assert_eq!(Password::hashed("kong"), None);
        assert_eq!(
            Password::hashed("14C8E25C95C82FF076B68C6924A2757C0BE4BB93"),
            None
        );
        assert_eq!(Password::hashed(&"é".repeat(20)), None);
        let bcrypt = "$2b$12$abcdefghijklmnopqrstuv";
        assert_eq!(
            Password::plain(bcrypt, Uuid::nil()),
            Password::hashed(bcrypt).unwrap()
        );
    }

    #[test]
    fn an_algorithm_takes_the_keys_of_its_kind() {
        let rsa = samples::public_pem(&samples::rsa(2048));
        let p256 = samples::public_pem(&samples::curve(Nid::X9_62_PRIME256V1));
        let ed25519 = samples::public_pem(&PKey::generate_ed25519().unwrap());
        let fits = |algorithm: JwtAlgorithm, pem: &str| algorithm.fits(&parse(pem).unwrap());
        for algorithm in [JwtAlgorithm::RS256, JwtAlgorithm::PS512] {
            assert_eq!(fits(algorithm, &rsa), Ok(()));
            assert!(fits(algorithm, &p256).is_err());
        }
        assert_eq!(fits(JwtAlgorithm::ES256, &p256), Ok(()));
        assert!(fits(JwtAlgorithm::ES384, &p256).is_err());
        assert!(fits(JwtAlgorithm::ES256, &rsa).is_err());
        assert_eq!(fits(JwtAlgorithm::EdDsa, &ed25519), Ok(()));
        assert!(fits(JwtAlgorithm::EdDsa, &rsa).is_err());
        let small = samples::public_pem(&samples::rsa(1024));
        assert!(
            fits(JwtAlgorithm::RS256, &small)
                .unwrap_err()
                .contains("1024")
        );
    }
}

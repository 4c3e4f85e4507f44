//! A certificate that nobody trusts, for listeners that were given none: enough to encrypt, and to see that TLS works.

use openssl::{
    asn1::Asn1Time,
    bn::{BigNum, MsbOption},
    ec::{EcGroup, EcKey},
    error::ErrorStack,
    hash::MessageDigest,
    nid::Nid,
    pkey::PKey,
    x509::{
        X509Builder, X509NameBuilder,
        extension::{BasicConstraints, ExtendedKeyUsage, SubjectAlternativeName},
    },
};

const NAME: &str = "localhost";
const DAYS: u32 = 3650;
const SERIAL_BITS: i32 = 127;

/// A new certificate for `localhost` and its key, both in PEM.
///
/// # Errors
/// When OpenSSL has no randomness.
pub fn self_signed() -> Result<(String, String), ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_nid(Nid::COMMONNAME, NAME)?;
    let name = name.build();
    let mut serial = BigNum::new()?;
    serial.rand(SERIAL_BITS, MsbOption::MAYBE_ZERO, false)?;

    let mut builder = X509Builder::new()?;
    builder.set_version(2)?;
    builder.set_serial_number(&*serial.to_asn1_integer()?)?;
    builder.set_subject_name(&name)?;
    builder.set_issuer_name(&name)?;
    builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    builder.set_not_after(&*Asn1Time::days_from_now(DAYS)?)?;
    builder.set_pubkey(&key)?;
    builder.append_extension(BasicConstraints::new().critical().build()?)?;
    builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
    let names = SubjectAlternativeName::new()
        .dns(NAME)
        .build(&builder.x509v3_context(None, None))?;
    builder.append_extension(names)?;
    builder.sign(&key, MessageDigest::sha256())?;

    let text = |pem: Vec<u8>| String::from_utf8(pem).unwrap_or_default();
    Ok((
        text(builder.build().to_pem()?),
        text(key.private_key_to_pem_pkcs8()?),
    ))
}

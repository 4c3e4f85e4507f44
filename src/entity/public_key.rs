//! Public keys as operators write them: PEM of the key itself or of a certificate that has it.
//! Nothing is verified with them here.

use openssl::{
    pkey::{PKey, Public},
    x509::X509,
};

/// Reads a public key.
///
/// # Errors
/// A sentence for the operator that shows nothing of the text, which may be a private key by mistake.
pub fn parse(pem: &str) -> Result<PKey<Public>, String> {
    if pem.contains("PRIVATE KEY-----") {
        return Err("this is a private key; only the public one belongs here".to_owned());
    }
    let key = PKey::public_key_from_pem(pem.as_bytes());
    key.or_else(|_| X509::from_pem(pem.as_bytes())?.public_key())
        .map_err(|_| "invalid key: this is no PEM of a public key or certificate".to_owned())
}

#[cfg(test)]
pub(crate) mod samples {
    use openssl::{
        ec::{EcGroup, EcKey},
        nid::Nid,
        pkey::{PKey, Private},
        rsa::Rsa,
    };

    /// A new RSA key.
    pub(crate) fn rsa(bits: u32) -> PKey<Private> {
        PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
    }

    /// A new key on a curve.
    pub(crate) fn curve(curve: Nid) -> PKey<Private> {
        let group = EcGroup::from_curve_name(curve).unwrap();
        PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
    }

    /// The public half as PEM.
    pub(crate) fn public_pem(key: &PKey<Private>) -> String {
        String::from_utf8(key.public_key_to_pem().unwrap()).unwrap()
    }

    /// The private half as PEM.
    pub(crate) fn private_pem(key: &PKey<Private>) -> String {
        String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use openssl::{asn1::Asn1Time, hash::MessageDigest, x509::X509Builder};

    use super::*;

    #[test]
    fn a_key_is_read_from_its_pem_and_from_a_certificate() {
        let key = samples::rsa(2048);
        let public = parse(&samples::public_pem(&key)).unwrap();
        assert!(public.public_eq(&key));

        let mut certificate = X509Builder::new().unwrap();
        certificate.set_pubkey(&key).unwrap();
        certificate
            .set_not_before(&Asn1Time::days_from_now(0).unwrap())
            .unwrap();
        certificate
            .set_not_after(&Asn1Time::days_from_now(1).unwrap())
            .unwrap();
        certificate.sign(&key, MessageDigest::sha256()).unwrap();
        let certificate = String::from_utf8(certificate.build().to_pem().unwrap()).unwrap();
        assert!(parse(&certificate).unwrap().public_eq(&key));
    }

    #[test]
    fn what_is_no_public_key_is_refused_without_being_shown() {
        let private = samples::private_pem(&samples::rsa(2048));
        assert!(parse(&private).unwrap_err().contains("private key"));
        assert!(!parse("hunter2").unwrap_err().contains("hunter2"));
    }
}

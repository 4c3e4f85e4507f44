//! The parameters of DHE, which TLS 1.2 needs from the server: the groups of RFC 7919, and the operator's own.

use openssl::{
    bn::BigNum,
    dh::Dh,
    error::{Error, ErrorStack},
    pkey::Params,
    ssl::{SslContextBuilder, SslMethod},
};

/// Where the parameters come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DhParameters {
    Group(DhGroup),
    /// As they are written.
    Pem(String),
}

/// A group of RFC 7919, called by the bits of its prime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DhGroup {
    Ffdhe2048,
    Ffdhe3072,
    Ffdhe4096,
    Ffdhe6144,
    Ffdhe8192,
}

impl DhParameters {
    /// Whether OpenSSL takes them.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn check(&self) -> Result<(), String> {
        let parameters = self.read().map_err(|_| {
            "are no parameters in PEM (`-----BEGIN DH PARAMETERS-----` …)".to_owned()
        })?;
        let taken = SslContextBuilder::new(SslMethod::tls_server())
            .and_then(|mut context| context.set_tmp_dh(&parameters));
        taken.map_err(|problem| {
            let reason = problem.errors().iter().find_map(Error::reason);
            format!(
                "OpenSSL refuses the parameters: {}",
                reason.unwrap_or("they are of no use")
            )
        })
    }

    pub(super) fn read(&self) -> Result<Dh<Params>, ErrorStack> {
        match self {
            Self::Group(group) => group.parameters(),
            Self::Pem(text) => Dh::params_from_pem(text.as_bytes()),
        }
    }
}

impl DhGroup {
    /// The bits of the prime, and the number that RFC 7919 adds so that it is one.
    const fn prime(self) -> (i32, u32) {
        match self {
            Self::Ffdhe2048 => (2048, 560_316),
            Self::Ffdhe3072 => (3072, 2_625_351),
            Self::Ffdhe4096 => (4096, 5_736_041),
            Self::Ffdhe6144 => (6144, 15_705_020),
            Self::Ffdhe8192 => (8192, 10_965_728),
        }
    }

    /// `p = 2^b - 2^(b-64) + ([2^(b-130) e] + X) 2^64 - 1`, and 2 generates half of the numbers below it.
    fn parameters(self) -> Result<Dh<Params>, ErrorStack> {
        let (bits, added) = self.prime();
        let mut prime = digits_of_e(bits - 130)?;
        prime.add_word(added)?;
        prime = shifted(&prime, 64)?;
        prime = &prime + &power_of_two(bits)?;
        prime = &prime - &power_of_two(bits - 64)?;
        prime.sub_word(1)?;
        let mut order = BigNum::new()?;
        order.rshift1(&prime)?;
        Dh::from_pqg(prime, Some(order), BigNum::from_u32(2)?)
    }
}

/// Euler's number times 2 to the `bits`, rounded down: the sum of 1/n!, with some more bits for what is cut off.
fn digits_of_e(bits: i32) -> Result<BigNum, ErrorStack> {
    const GUARD: i32 = 64;
    let mut term = power_of_two(bits + GUARD)?;
    let mut sum = BigNum::new()?;
    let mut n = 0;
    while term.num_bits() > 0 {
        sum = &sum + &term;
        n += 1;
        term.div_word(n)?;
    }
    let mut rounded = BigNum::new()?;
    rounded.rshift(&sum, GUARD)?;
    Ok(rounded)
}

fn power_of_two(exponent: i32) -> Result<BigNum, ErrorStack> {
    shifted(&BigNum::from_u32(1)?, exponent)
}

fn shifted(number: &BigNum, bits: i32) -> Result<BigNum, ErrorStack> {
    let mut product = BigNum::new()?;
    product.lshift(number, bits)?;
    Ok(product)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::{super::facts::hex, *};

    /// The digests are those of the primes as RFC 7919 prints them.
    #[test]
    fn the_groups_are_those_of_the_standard() {
        for (group, expected) in [
            (
                DhGroup::Ffdhe2048,
                "9cd3b7f336872f46c09428d1bbc19877a4d440512cda8d1c1cf0cd6e33698966",
            ),
            (
                DhGroup::Ffdhe3072,
                "0eaf67db3a839156d5013494a5318a772b5697d270d721f37f092efc69ea5a17",
            ),
            (
                DhGroup::Ffdhe4096,
                "4648414224ac881b3d0dc59b466f96d06a558278776807797ecf1f66ff397b3e",
            ),
            (
                DhGroup::Ffdhe6144,
                "227ac9066b3ddd9e193670cda2388fa884f65ba0cf98b742d1fe77a6687c79c7",
            ),
            (
                DhGroup::Ffdhe8192,
                "770b14efaf6f049929c523113b3fa99a8d11dab1b18af3609590122075d19833",
            ),
        ] {
            let parameters = group.parameters().expect("computed");
            let digest = Sha256::digest(parameters.prime_p().to_vec());
            assert_eq!(hex(&digest), expected, "{group:?}");
            assert_eq!(DhParameters::Group(group).check(), Ok(()));
        }
    }

    #[test]
    fn parameters_that_are_none_or_too_weak_are_told() {
        let problem = |pem: String| DhParameters::Pem(pem).check().expect_err("no good");
        assert!(problem("x".to_owned()).starts_with("are no parameters"));
        let group = DhGroup::Ffdhe2048.parameters().expect("computed");
        let pem = |parameters: &Dh<Params>| {
            String::from_utf8(parameters.params_to_pem().expect("written")).expect("text")
        };
        assert_eq!(DhParameters::Pem(pem(&group)).check(), Ok(()));
        let weak = problem(pem(&Dh::get_1024_160().expect("known")));
        assert!(weak.contains("dh key too small"), "{weak}");
    }
}

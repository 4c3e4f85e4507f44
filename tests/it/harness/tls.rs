//! The client's side of TLS, by OpenSSL: a connection that may or may not be encrypted, and what a client asks for.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use openssl::ssl::{
    ShutdownState, Ssl, SslContextBuilder, SslMethod, SslRef, SslStream, SslVerifyMode, SslVersion,
};
use openssl::x509::X509;

use super::certificates::Issued;

/// How a client shakes hands.
#[derive(Clone)]
pub(crate) struct Tls {
    name: Option<String>,
    certificate: Option<Issued>,
    alpn: Option<&'static [u8]>,
    versions: Option<SslVersion>,
    ciphers: Option<&'static str>,
    signatures: Option<&'static str>,
}

impl Tls {
    /// A client that asks for this name, shows no certificate and takes whatever it gets.
    pub(crate) fn to(name: &str) -> Self {
        Self {
            name: Some(name.to_owned()),
            ..Self::to_nobody()
        }
    }

    /// A client that asks for no name.
    pub(crate) fn to_nobody() -> Self {
        Self {
            name: None,
            certificate: None,
            alpn: None,
            versions: None,
            ciphers: None,
            signatures: None,
        }
    }

    pub(crate) fn showing(mut self, certificate: &Issued) -> Self {
        self.certificate = Some(certificate.clone());
        self
    }

    /// In the form of the wire: a length before each protocol.
    pub(crate) fn offering(mut self, protocols: &'static [u8]) -> Self {
        self.alpn = Some(protocols);
        self
    }

    pub(crate) fn only(mut self, version: SslVersion) -> Self {
        self.versions = Some(version);
        self
    }

    pub(crate) fn with_ciphers(mut self, ciphers: &'static str) -> Self {
        self.ciphers = Some(ciphers);
        self
    }

    /// The signatures that the client can verify, such as `RSA-PSS+SHA256`.
    pub(crate) fn verifying(mut self, signatures: &'static str) -> Self {
        self.signatures = Some(signatures);
        self
    }

    fn context(&self) -> SslContextBuilder {
        let mut builder = SslContextBuilder::new(SslMethod::tls_client()).expect("a context");
        builder.set_verify(SslVerifyMode::NONE);
        if let Some(shown) = &self.certificate {
            builder.set_certificate(&shown.certificate).expect("set");
            builder.set_private_key(&shown.key).expect("set");
        }
        if let Some(alpn) = self.alpn {
            builder.set_alpn_protos(alpn).expect("set");
        }
        if let Some(version) = self.versions {
            builder.set_min_proto_version(Some(version)).expect("set");
            builder.set_max_proto_version(Some(version)).expect("set");
        }
        if let Some(ciphers) = self.ciphers {
            builder.set_cipher_list(ciphers).expect("set");
        }
        if let Some(signatures) = self.signatures {
            builder.set_sigalgs_list(signatures).expect("set");
        }
        builder
    }

    pub(super) fn shake_hands(&self, stream: TcpStream) -> Result<Wire, String> {
        let context = self.context().build();
        let mut ssl = Ssl::new(&context).expect("a connection");
        if let Some(name) = &self.name {
            ssl.set_hostname(name).expect("set");
        }
        let stream = ssl.connect(stream).map_err(|error| error.to_string())?;
        Ok(Wire::Tls(Box::new(stream)))
    }
}

/// A connection of a client.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<SslStream<TcpStream>>),
}

impl Wire {
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref(),
        }
    }

    pub(super) fn ssl(&self) -> Option<&SslRef> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(stream.ssl()),
        }
    }

    /// Whether the peer announced its end.
    pub(super) fn heard_goodbye(&mut self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_shutdown().contains(ShutdownState::RECEIVED),
        }
    }

    /// Nothing more will be sent.
    pub(super) fn half_close(&mut self) -> io::Result<()> {
        if let Self::Tls(stream) = self {
            stream.shutdown().map_err(io::Error::other)?;
        }
        self.tcp().shutdown(std::net::Shutdown::Write)
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// The common name of a certificate.
pub(crate) fn common_name(certificate: &X509) -> String {
    let name = certificate.subject_name();
    let entry = name
        .entries_by_nid(openssl::nid::Nid::COMMONNAME)
        .next()
        .expect("a common name");
    entry.data().to_string().expect("text")
}

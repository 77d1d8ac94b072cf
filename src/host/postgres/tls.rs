//! TLS to PostgreSQL by libpq's keywords: `sslmode`, `sslrootcert`, `sslcert`, `sslkey`.
//!
//! What counts is libpq's meaning (manual, "SSL Support"): `prefer` and `require` encrypt and trust any
//! server, unless a root certificate is given; `verify-ca` wants a certificate that a root vouches for,
//! `verify-full` the server's name in it as well. A certificate that is itself among the roots is trusted,
//! whatever it says of being an authority; a name that stands only in the subject counts, as there.
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature_with_raw_key};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    /// # Errors
    /// A word that libpq does not know.
    pub fn parse(word: &str) -> Result<SslMode, String> {
        Ok(match word {
            "disable" => SslMode::Disable,
            "allow" => SslMode::Allow,
            "" | "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            other => {
                return Err(format!(
                    "sslmode `{other}` is none of disable, allow, prefer, require, verify-ca, verify-full"
                ));
            }
        })
    }
}

/// The last value of `name` among libpq's keywords; an empty one counts as absent.
pub fn keyword<'a>(options: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = options.iter().rev().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
}

/// A client's side of TLS by these keywords. The files are read anew for each connection, so that
/// replaced ones count at once. Blocks for as long as that takes.
///
/// # Errors
/// A file that is missing, unreadable or not what its keyword promises; with the keyword and the file.
pub fn client(options: &[(String, String)], mode: SslMode) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Verifier::new(options, mode, &provider)?);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some(path) = keyword(options, "sslcert") else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates("sslcert", path)?;
    let at = keyword(options, "sslkey").unwrap_or(path);
    let key = PrivateKeyDer::from_pem_file(at).map_err(|error| {
        format!("sslkey: {at}: {error}; it must be a private key in PEM without a password")
    })?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| format!("sslcert {path} and sslkey {at} do not belong together: {error}"))
}

fn certificates(keyword: &str, path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(Path::new(path)).and_then(|found| found.collect());
    let found = read.map_err(|error| format!("{keyword}: {path}: {error}"))?;
    if found.is_empty() {
        return Err(format!("{keyword}: {path} holds no certificate in PEM"));
    }
    Ok(found)
}

#[derive(Debug)]
struct Verifier {
    /// `None`: any certificate will do.
    roots: Option<Roots>,
    checks_name: bool,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    chains: Arc<WebPkiServerVerifier>,
}

impl Verifier {
    fn new(
        options: &[(String, String)],
        mode: SslMode,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Verifier, String> {
        let given = keyword(options, "sslrootcert");
        let must = matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull);
        let roots = match given {
            None if must => {
                return Err(
                    "sslmode verify-ca and verify-full need sslrootcert: name the file with \
                            the root certificates, or `system`"
                        .into(),
                );
            }
            Some("system") => Some(Roots::of_system(provider)?),
            Some(path) if must || mode == SslMode::Require => Some(Roots::of(path, provider)?),
            _ => None,
        };
        let checks_name = mode == SslMode::VerifyFull || given == Some("system");
        Ok(Verifier { roots, checks_name, provider: provider.clone() })
    }
}

impl Roots {
    fn of(path: &str, provider: &Arc<CryptoProvider>) -> Result<Roots, String> {
        Roots::new(certificates("sslrootcert", path)?, provider)
            .map_err(|error| format!("sslrootcert: {path}: {error}"))
    }

    fn of_system(provider: &Arc<CryptoProvider>) -> Result<Roots, String> {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            return Err("sslrootcert: the system has no root certificates: install them".into());
        }
        Roots::new(found.certs, provider).map_err(|error| format!("sslrootcert: {error}"))
    }

    fn new(
        certificates: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Roots, String> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(certificates.iter().cloned());
        let chains = WebPkiServerVerifier::builder_with_provider(store.into(), provider.clone())
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Roots { certificates, chains })
    }

    /// The certificate is one of the roots, or a root vouches for it.
    fn vouch(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.certificates.iter().any(|root| root.as_ref() == certificate.as_ref()) {
            return in_time(certificate, now);
        }
        let chain = self.chains.verify_server_cert(certificate, intermediates, name, &[], now);
        match chain {
            Ok(_) => Ok(()),
            // The chain stands; of the name we judge ourselves.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    let bad = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
    X509Certificate::from_der(certificate.as_ref()).map(|(_, it)| it).map_err(bad)
}

fn in_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let validity = parsed(certificate)?.validity().clone();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < validity.not_before.timestamp() {
        return Err(Error::InvalidCertificate(CertificateError::NotValidYet));
    }
    if now > validity.not_after.timestamp() {
        return Err(Error::InvalidCertificate(CertificateError::Expired));
    }
    Ok(())
}

/// As libpq: the alternative names decide; where there is none, the subject's common name.
fn has_name(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), Error> {
    let by_alternatives = rustls::server::ParsedCertificate::try_from(certificate)
        .and_then(|own| rustls::client::verify_server_name(&own, name));
    if by_alternatives.is_ok() {
        return Ok(());
    }
    let parsed = parsed(certificate)?;
    let alternatives = parsed.subject_alternative_name().ok().flatten();
    let common = parsed.subject().iter_common_name().find_map(|name| name.as_str().ok());
    let same = common.is_some_and(|common| common.eq_ignore_ascii_case(&name.to_str()));
    if alternatives.is_none() && same { Ok(()) } else { by_alternatives }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            roots.vouch(certificate, intermediates, name, now)?;
        }
        if self.checks_name {
            has_name(certificate, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // By the key alone: certificates of version 1 are still made by openssl's older tools.
        let parsed = parsed(certificate)?;
        let key = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

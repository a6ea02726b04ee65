//! Whom an array's client trusts.
//!
//! Appliances come with certificates that no authority has signed. The right answers are a CA file and a pinned
//! fingerprint, so each refusal tells the fingerprint that was shown and the keys to put it into.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};

/// Whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::volume) enum Trust {
    /// Whom the system trusts.
    System,
    /// The authorities of a PEM file, or the very certificates in it.
    Authorities(PathBuf),
    /// One certificate: its SHA-256 in lower-case hexadecimal digits.
    Pinned(String),
    /// Anybody, which gives the credentials to whoever answers.
    Anybody,
}

/// The fingerprint of the last certificate that was refused.
pub(super) type Refused = Arc<Mutex<Option<String>>>;

/// The TLS side of a client that trusts only this, and notes whom it refused.
pub(super) fn client_config(trust: &Trust, refused: Refused) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier { judge: judge(trust, &provider)?, provider: Arc::clone(&provider), refused };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}

fn judge(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Judge, String> {
    Ok(match trust {
        Trust::System => {
            let verifier = rustls_platform_verifier::Verifier::new(Arc::clone(provider));
            let verifier =
                verifier.map_err(|error| format!("the system's certificates cannot be read: {error}"))?;
            Judge::Authorities { verifier: Arc::new(verifier), themselves: Vec::new() }
        }
        Trust::Authorities(path) => {
            let certificates = read_certificates(path)?;
            let mut roots = RootCertStore::empty();
            let (usable, _) = roots.add_parsable_certificates(certificates.iter().cloned());
            if usable == 0 {
                return Err(format!("{} holds no certificate that can be used", path.display()));
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
            let verifier = verifier.build().map_err(|error| format!("{}: {error}", path.display()))?;
            Judge::Authorities { verifier, themselves: certificates }
        }
        Trust::Pinned(fingerprint) => Judge::Pinned(fingerprint.clone()),
        Trust::Anybody => Judge::Anybody,
    })
}

fn read_certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: String| format!("{}: {error}", path.display());
    let pem = std::fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| wrong(format!("is not PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(wrong("holds no certificate; it must be PEM (-----BEGIN CERTIFICATE-----)".into()));
    }
    Ok(certificates)
}

/// A client that trusts whoever shows the first certificate of this PEM file, under whatever name.
pub(crate) fn pinned_to(path: &std::path::Path) -> Result<ClientConfig, String> {
    let certificates = read_certificates(path)?;
    let first = certificates.first().ok_or("holds no certificate")?;
    // As the configuration writes it.
    let fingerprint = fingerprint(first).replace(':', "").to_lowercase();
    client_config(&Trust::Pinned(fingerprint), Refused::default())
}

/// SHA-256 of a certificate as `openssl x509 -fingerprint -sha256` prints it.
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let bytes: Vec<_> = Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}

#[derive(Debug)]
enum Judge {
    Authorities { verifier: Arc<dyn ServerCertVerifier>, themselves: Vec<CertificateDer<'static>> },
    Pinned(String),
    Anybody,
}

impl Judge {
    fn verdict(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        staple: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self {
            Judge::Authorities { themselves, .. } if themselves.iter().any(|known| known == shown) => {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            Judge::Authorities { verifier, .. } => {
                verifier.verify_server_cert(shown, between, name, staple, now)
            }
            Judge::Pinned(pinned) if fingerprint(shown).replace(':', "").eq_ignore_ascii_case(pinned) => {
                Ok(ServerCertVerified::assertion())
            }
            Judge::Pinned(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
            Judge::Anybody => Ok(ServerCertVerified::assertion()),
        }
    }
}

/// Asks the judge about the certificate; that the peer holds its key is checked in every case.
#[derive(Debug)]
struct Verifier {
    judge: Judge,
    provider: Arc<CryptoProvider>,
    refused: Refused,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        staple: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.judge.verdict(shown, between, name, staple, now);
        if verdict.is_err() {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(fingerprint(shown));
        }
        verdict
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
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why the certificate was refused, with the cure; nothing if `error` is something else. `keys` is what the names of the
/// backend's TLS options begin with.
pub(super) fn refusal(
    error: &(dyn std::error::Error + 'static),
    refused: &Refused,
    keys: &str,
) -> Option<String> {
    let Error::InvalidCertificate(reason) = find(error)? else { return None };
    let shown = refused.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default();
    let why = match reason {
        CertificateError::UnknownIssuer | CertificateError::Other(_) => {
            "no authority that is trusted has signed its certificate".to_owned()
        }
        CertificateError::ApplicationVerificationFailure => {
            return Some(format!(
                "its certificate is not the pinned one but has the fingerprint {shown}; if it was renewed, put that into \
                 {keys}_cert_fingerprint"
            ));
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is for another name ({reason})")
        }
        other => format!("its certificate is not valid: {other}"),
    };
    Some(format!(
        "{why}; name the authority in {keys}_ca_file, or, having compared it on the array itself, the certificate's fingerprint \
         {shown} in {keys}_cert_fingerprint"
    ))
}

/// The TLS error among the causes of an error. `io::Error` hides what it wraps from `source`.
fn find<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Error>() {
            return Some(found);
        }
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

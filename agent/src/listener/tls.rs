//! TLS for a listener: certificate chain and key from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

use super::ktls;

/// Why the TLS files of a listener cannot be used. The sentence names the configuration key.
#[derive(Debug, Error)]
#[error("{key}: {}: {reason}", path.display())]
pub struct TlsError {
    /// The configuration key of the file.
    pub key: String,
    /// The file.
    pub path: PathBuf,
    /// What is wrong and what would be right. Never any of the key itself.
    pub reason: String,
}

/// Loads a listener's certificate chain (server first) and private key. `api` is the configuration table of the
/// listener, such as `api.client`. Only HTTP/1.1 is offered by ALPN (RFC 7301). With `kernel`, connections are handed to
/// the kernel after their handshake where it can have them; the first call finds that out and must come before the sandbox.
pub fn load(api: &str, chain: &Path, key: &Path, kernel: bool) -> Result<Arc<ServerConfig>, TlsError> {
    let certificate =
        |reason: String| TlsError { key: format!("{api}.ssl-cert"), path: chain.to_owned(), reason };
    let private =
        |reason: String| TlsError { key: format!("{api}.ssl-privkey"), path: key.to_owned(), reason };

    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| certificate(reason(&error)))?;
    if certificates.is_empty() {
        return Err(certificate(
            "holds no certificate; a PEM file with the server's certificate first is needed".into(),
        ));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| private(match error {
        pem::Error::NoItemsFound => {
            "holds no private key that can be used; an unencrypted PEM key (PKCS#8, PKCS#1 or SEC1) is needed".into()
        }
        other => reason(&other),
    }))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| certificate(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certificates, secret)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                private("does not belong to the certificate of ssl-cert".into())
            }
            rustls::Error::InvalidCertificate(_) => certificate(error.to_string()),
            other => private(other.to_string()),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // This alone tells the listener to use the kernel.
    config.enable_secret_extraction = ktls::taken().is_ok() && kernel;
    Ok(Arc::new(config))
}

/// Whether the kernel makes the records of such connections, and why not, for the log.
pub fn kernel(config: &ServerConfig) -> String {
    match ktls::taken() {
        Err(reason) => format!("no: {reason}"),
        Ok(_) if !config.enable_secret_extraction => "no: ssl-kernel is false".into(),
        Ok(taken) => {
            let suites = config.crypto_provider().cipher_suites.iter().map(|suite| suite.suite());
            match suites.filter(|suite| !taken.contains(suite)).collect::<Vec<_>>() {
                refused if refused.is_empty() => "yes".into(),
                refused => format!("yes, but for {refused:?}"),
            }
        }
    }
}

fn reason(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => format!("cannot be read: {error}"),
        other => format!("is not a PEM file: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        _dir: tempfile::TempDir,
        chain: PathBuf,
        key: PathBuf,
    }

    fn files(chain: &str, key: &str) -> Files {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { chain: dir.path().join("c.pem"), key: dir.path().join("k.pem"), _dir: dir };
        std::fs::write(&files.chain, chain).unwrap();
        std::fs::write(&files.key, key).unwrap();
        files
    }

    fn error_for(chain: &str, key: &str) -> String {
        let files = files(chain, key);
        load("api.client", &files.chain, &files.key, true).unwrap_err().to_string()
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_matching_pair_is_loaded_for_http1_only() {
        let (chain, key) = pair();
        let files = files(&chain, &key);
        let config = load("api.client", &files.chain, &files.key, true).unwrap();
        assert_eq!(config.alpn_protocols, [b"http/1.1".to_vec()]);
    }

    #[test]
    fn each_mistake_names_the_key_and_the_file() {
        let (chain, key) = pair();
        let (_, other_key) = pair();
        let foreign = error_for(&chain, &other_key);
        assert!(
            foreign.starts_with("api.client.ssl-privkey: ") && foreign.contains("does not belong"),
            "{foreign}"
        );
        let swapped = error_for(&key, &chain);
        assert!(
            swapped.starts_with("api.client.ssl-cert: ") && swapped.contains("no certificate"),
            "{swapped}"
        );
        let no_key = error_for(&chain, "");
        assert!(
            no_key.starts_with("api.client.ssl-privkey: ") && no_key.contains("no private key"),
            "{no_key}"
        );
        let missing =
            load("api.manager", Path::new("/nonexistent"), Path::new("/nonexistent"), true).unwrap_err();
        assert!(
            missing
                .to_string()
                .starts_with("api.manager.ssl-cert: /nonexistent: cannot be read: No such file")
        );
    }
}

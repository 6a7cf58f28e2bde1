//! TLS settings made from files: towards servers in libpq's words (manual, section "Protection
//! Provided in Different Modes"), and towards clients.
//!
//! It decides what a certificate must show. It does not decide whether TLS is used at all (that is
//! the dialer's part: `disable` never asks, `prefer` accepts a no), and it moves no bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    self, CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use crate::config::{ClientTls, ServerTls, TlsMode};

/// PostgreSQL's name in ALPN (manual, section "SSL Session Encryption").
pub const ALPN: &[u8] = b"postgresql";

/// Settings from which no TLS can be made. The operator's to mend; trying again does not help.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("could not read {what} \"{path}\": {source}")]
    Unreadable {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{what} \"{path}\" is not valid PEM: {source}")]
    NotPem {
        what: &'static str,
        path: PathBuf,
        source: pem::Error,
    },
    #[error("{what} \"{path}\" holds no {item}")]
    Empty {
        what: &'static str,
        path: PathBuf,
        item: &'static str,
    },
    #[error("{what} \"{path}\" cannot be used: {source}")]
    Unusable {
        what: &'static str,
        path: PathBuf,
        source: rustls::Error,
    },
    #[error(
        "certificate \"{certificate}\" and private key \"{key}\" cannot be used together: {source}"
    )]
    Pair {
        certificate: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
    #[error("no root certificate is set and the system's could not be loaded: {reason}")]
    NoSystemRoots { reason: String },
    #[error("TLS could not be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// What a server's certificate must show before anything is sent to it.
///
/// * `disable`, `prefer` and `require` look at nothing, unless a root certificate is set: then
///   they ask for what `verify-ca` asks, as libpq does. `prefer` never falls back to plain text
///   from a certificate that is refused.
/// * `verify-ca` asks for a chain to a root certificate, whatever name it certifies.
/// * `verify-full` also asks for the host's name or address among the subject alternative names;
///   the common name does not count.
///
/// Without a root certificate the `verify-*` modes trust the system's. A certificate that is itself
/// in the root file is trusted as it stands, so that a self-signed server works.
pub fn client_config(tls: &ServerTls) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let name = match (tls.mode, &tls.root_cert) {
        (TlsMode::Disable | TlsMode::Prefer | TlsMode::Require, None) => None,
        (TlsMode::VerifyFull, _) => Some(NameCheck::Matches),
        (_, _) => Some(NameCheck::Any),
    };
    let verifier: Arc<dyn ServerCertVerifier> = match name {
        None => Arc::new(Unverified {
            provider: provider.clone(),
        }),
        Some(name) => Arc::new(Verified::new(&provider, tls.root_cert.as_deref(), name)?),
    };
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// What clients are shown. `postgresql` is offered in ALPN and a client may leave ALPN out; that
/// direct TLS must have agreed on it is for the caller to check.
pub fn server_config(tls: &ClientTls) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let chain = certificates("certificate", &tls.certificate)?;
    let key = private_key(&tls.key)?;
    let provider = Arc::new(ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|source| TlsError::Pair {
            certificate: tls.certificate.clone(),
            key: tls.key.clone(),
            source,
        })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(what, path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::NotPem {
            what,
            path: path.to_owned(),
            source,
        })?;
    if found.is_empty() {
        return Err(TlsError::Empty {
            what,
            path: path.to_owned(),
            item: "certificate",
        });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let what = "private key";
    let text = zeroize::Zeroizing::new(read(what, path)?);
    PrivateKeyDer::from_pem_slice(&text).map_err(|source| match source {
        pem::Error::NoItemsFound => TlsError::Empty {
            what,
            path: path.to_owned(),
            item: "unencrypted private key",
        },
        source => TlsError::NotPem {
            what,
            path: path.to_owned(),
            source,
        },
    })
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Unreadable {
        what,
        path: path.to_owned(),
        source,
    })
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        let reason = match loaded.errors.first() {
            Some(error) => error.to_string(),
            None => "none found".to_owned(),
        };
        return Err(TlsError::NoSystemRoots { reason });
    }
    Ok(roots)
}

/// Which names a certificate may be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameCheck {
    Any,
    Matches,
}

/// Asks for a chain to a trusted root, and for the name where that is wanted.
#[derive(Debug)]
struct Verified {
    chain: Arc<WebPkiServerVerifier>,
    /// The root file's certificates, byte for byte; a server may present one of them as its own.
    trusted: Vec<CertificateDer<'static>>,
    name: NameCheck,
}

impl Verified {
    fn new(
        provider: &Arc<CryptoProvider>,
        root_cert: Option<&Path>,
        name: NameCheck,
    ) -> Result<Verified, TlsError> {
        let (roots, trusted) = match root_cert {
            None => (system_roots()?, Vec::new()),
            Some(path) => {
                let what = "root certificate";
                let trusted = certificates(what, path)?;
                let mut roots = RootCertStore::empty();
                for certificate in &trusted {
                    let unusable = |source| TlsError::Unusable {
                        what,
                        path: path.to_owned(),
                        source,
                    };
                    roots.add(certificate.clone()).map_err(unusable)?;
                }
                (roots, trusted)
            }
        };
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Verified {
            chain,
            trusted,
            name,
        })
    }
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.trusted.iter().any(|trusted| trusted == end_entity) {
            if self.name == NameCheck::Matches {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let verdict = self.chain.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verdict {
            // The name is looked at last: the chain has been found good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.name == NameCheck::Any => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Asks for nothing but that the server holds the key of whatever certificate it shows.
#[derive(Debug)]
struct Unverified {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests;

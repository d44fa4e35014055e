//! TLS for the listeners: what is loaded from the certificate files, and the handshake of a connection.
//!
//! All files are read and checked when the server starts. A handshake runs in the task of its own connection and ends in
//! a limited time, so that no client can hold up another.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ServerConfig, WebPkiClientVerifier};
use tokio_rustls::rustls::{Error as TlsError, InvalidMessage, RootCertStore};
use tokio_rustls::server::TlsStream;

/// A client has so long for its part of the handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Certificate, key and the rules by which clients are accepted.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    asks_for_certificates: bool,
    handshake_limit: Duration,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Tls").field(&self.description()).finish()
    }
}

impl Tls {
    /// Reads the server's certificate chain and its key (PKCS#8, PKCS#1 or SEC1), all in PEM. With `client_ca`, only
    /// clients with a certificate of one of these authorities are accepted.
    pub fn load(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> anyhow::Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .context("choosing the versions of TLS")?;
        let builder = match client_ca {
            Some(path) => {
                let roots = Arc::new(authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .build()
                    .with_context(|| format!("using the authorities in {}", path.display()))?;
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let config = builder.with_single_cert(certificates(certificate)?, private_key(key)?);
        let config = config.map_err(|error| match error {
            TlsError::InconsistentKeys(_) => anyhow!(
                "the key in {} is not that of the certificate in {}",
                key.display(),
                certificate.display()
            ),
            error => anyhow!(error).context(format!(
                "using the certificate in {} with the key in {}",
                certificate.display(),
                key.display()
            )),
        })?;
        Ok(Tls {
            acceptor: Arc::new(config).into(),
            asks_for_certificates: client_ca.is_some(),
            handshake_limit: HANDSHAKE_LIMIT,
        })
    }

    /// The same with another limit for the client's part of the handshake, which is 10 seconds otherwise.
    #[must_use]
    pub fn with_handshake_limit(self, handshake_limit: Duration) -> Self {
        Tls { handshake_limit, ..self }
    }

    /// What a client needs.
    pub(crate) fn description(&self) -> &'static str {
        match self.asks_for_certificates {
            true => "over TLS, with a client certificate",
            false => "over TLS",
        }
    }

    /// The handshake. The error says what the person who runs the client can do.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: S,
    ) -> anyhow::Result<TlsStream<S>> {
        match timeout(self.handshake_limit, self.acceptor.accept(socket)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                let advice = advice(&error);
                Err(anyhow!(error).context(format!("no TLS handshake{advice}")))
            }
            Err(_) => bail!("no TLS handshake within {:?}", self.handshake_limit),
        }
    }
}

/// What a failed handshake means for the client, where that is known.
fn advice(error: &io::Error) -> &'static str {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    match inner {
        Some(TlsError::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            " (the client does not use TLS)"
        }
        Some(TlsError::NoCertificatesPresented) => {
            " (the client shows no certificate, --client-ca asks for one)"
        }
        Some(TlsError::InvalidCertificate(_)) => " (the client's certificate is not accepted)",
        Some(TlsError::AlertReceived(_)) => {
            " (the client does not accept the server's certificate, or gives up)"
        }
        _ => "",
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let certificates = certificates.with_context(|| format!("{} is no valid PEM", path.display()))?;
    ensure!(
        !certificates.is_empty(),
        "{} holds no certificate (-----BEGIN CERTIFICATE-----)",
        path.display()
    );
    Ok(certificates)
}

fn private_key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        PemError::NoItemsFound if String::from_utf8_lossy(&text).contains("ENCRYPTED PRIVATE KEY") => {
            anyhow!("the key in {} is encrypted; give one without a password", path.display())
        }
        PemError::NoItemsFound => {
            anyhow!("{} holds no private key (-----BEGIN PRIVATE KEY-----)", path.display())
        }
        error => anyhow!(error).context(format!("{} is no valid PEM", path.display())),
    })
}

fn authorities(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .with_context(|| format!("a certificate in {} cannot be an authority", path.display()))?;
    }
    Ok(roots)
}

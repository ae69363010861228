//! HTTPS: the certificate and its key, which are read again when their files change, and the handshake of a connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use crate::connection::IDLE_DRAIN_TIME;
use crate::connection_state::{ConnectionState, Phase};
use crate::server::{MAX_BUFFER_BYTES, ServeSettings};

/// How often the files are read: a new certificate is promised to count within ten seconds.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// The protocol that the handshake agrees on (ALPN).
const PROTOCOL: &[u8] = b"http/1.1";

/// Why no certificate can be loaded. Names the setting at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

impl TlsError {
    /// The error about a setting that is of no use without the setting `missing`.
    pub(crate) fn needs(given: &str, missing: &str) -> Self {
        TlsError(format!("{given} is set, but {missing} is not"))
    }
}

/// A certificate with its key. All listeners of a process share it.
///
/// A reload replaces the whole configuration, with its memory of sessions: a session that is resumed would go on with the old
/// certificate.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    state: Mutex<ReloadState>,
}

/// The PEM files of a certificate with its chain, and of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// `TLS_CERT_FILE`
    pub cert: PathBuf,
    /// `TLS_KEY_FILE`
    pub key: PathBuf,
}

#[derive(Debug)]
struct ReloadState {
    /// The digest of the contents in use.
    loaded: [u8; 32],
    /// Why the present files are not in use.
    failure: Option<TlsError>,
}

/// What the files have.
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl TlsFiles {
    fn read(&self) -> Result<Contents, TlsError> {
        let read = |name: &str, file: &Path| {
            // Without the path: `/readyz` shows no folders.
            let cause = |error: io::Error| TlsError(format!("{name}: the file cannot be read: {error}"));
            fs::read(file).map_err(cause)
        };
        Ok(Contents { cert: read("TLS_CERT_FILE", &self.cert)?, key: read("TLS_KEY_FILE", &self.key)? })
    }
}

impl Contents {
    /// Contents are compared, and not the time of a change: Kubernetes swaps links.
    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.cert.len().to_be_bytes());
        digest.update(&self.cert);
        digest.update(&self.key);
        digest.finalize().into()
    }

    fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let invalid = |name: &str, cause: String| TlsError(format!("{name}: {cause}"));
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.cert).collect();
        let chain = chain.map_err(|error| invalid("TLS_CERT_FILE", error.to_string()))?;
        if chain.is_empty() {
            return Err(invalid("TLS_CERT_FILE", "the file has no certificate in PEM form".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| {
            invalid("TLS_KEY_FILE", "the file has no private key in PEM form without a password".to_owned())
        })?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    TlsError("TLS_KEY_FILE: the key is not that of the certificate in TLS_CERT_FILE".to_owned())
                }
                error => invalid("TLS_CERT_FILE, TLS_KEY_FILE", error.to_string()),
            })?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Arc::new(config))
    }
}

impl Tls {
    /// Loads the certificate and its key.
    pub fn open(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let contents = files.read()?;
        let config = ArcSwap::new(contents.config()?);
        let state = Mutex::new(ReloadState { loaded: contents.digest(), failure: None });
        Ok(Arc::new(Tls { files, config, state }))
    }

    /// Why the present files are not in use, if so.
    pub fn warning(&self) -> Option<String> {
        let state = self.state.lock();
        state.failure.as_ref().map(|failure| format!("an older TLS certificate is in use: {failure}"))
    }

    /// Reads the files, and uses what they have from the next connection on. A pair that cannot be used changes nothing.
    pub fn reload(&self) {
        let mut state = self.state.lock();
        let failure = self.files.read().and_then(|contents| self.adopt(&contents, &mut state.loaded)).err();
        if failure != state.failure {
            match &failure {
                Some(failure) => error!(%failure, "the TLS certificate cannot be loaded, the one before stays in use"),
                None => info!("the TLS certificate can be loaded again"),
            }
            state.failure = failure;
        }
    }

    fn adopt(&self, contents: &Contents, loaded: &mut [u8; 32]) -> Result<(), TlsError> {
        let digest = contents.digest();
        if digest != *loaded {
            self.config.store(contents.config()?);
            *loaded = digest;
            info!("a new TLS certificate is in use");
        }
        Ok(())
    }

    /// Reloads the files again and again until `shutdown` is cancelled.
    pub(crate) async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(tokio::time::sleep(RELOAD_INTERVAL)).await.is_some() {
            let tls = Arc::clone(&self);
            // A file system may be slow.
            if let Err(error) = tokio::task::spawn_blocking(move || tls.reload()).await {
                error!(%error, "reading the TLS certificate failed");
            }
        }
    }

    /// Performs the handshake on a new connection. `None` if it fails, takes too long, or the connection loses its slot. Until the
    /// first byte arrives the connection is idle, with the time that any idle connection has; then the handshake has the time of a
    /// request's head.
    pub(crate) async fn handshake(
        &self,
        stream: TcpStream,
        state: &ConnectionState,
        settings: &ServeSettings,
        shutdown: &CancellationToken,
    ) -> Option<TlsStream<TcpStream>> {
        state.set_phase(Phase::Idle { since: Instant::now() });
        let first = async |time| matches!(timeout(time, stream.peek(&mut [0])).await, Ok(Ok(1..)));
        let has_begun = match state.ending.run_until_cancelled(first(settings.idle_timeout)).await {
            Some(has_begun) => has_begun,
            None => shutdown.is_cancelled() && first(IDLE_DRAIN_TIME).await,
        };
        if !has_begun {
            return None;
        }
        state.set_phase(Phase::Head);
        let acceptor = TlsAcceptor::from(self.config.load_full());
        match timeout(settings.header_read_timeout, acceptor.accept(stream)).await {
            Ok(Ok(mut stream)) => {
                stream.get_mut().1.set_buffer_limit(Some(MAX_BUFFER_BYTES));
                state.set_phase(Phase::Response);
                Some(stream)
            }
            Ok(Err(error)) => {
                debug!(%error, "TLS handshake failed"); // the peer's fault
                None
            }
            Err(_) => {
                debug!("TLS handshake not done in time");
                None
            }
        }
    }
}

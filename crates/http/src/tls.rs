//! TLS of the door's own: 1.2 and 1.3 by rustls, one certificate, read again when its files change.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::settings::TlsFiles;

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Longest file, bytes: a chain has a few KiB.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Permissions of others than the owner.
const OTHERS: u32 = 0o077;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// No certificate, or no key, in its file.
    #[error("{} holds no {what} in PEM", .0.display(), what = .1)]
    Empty(PathBuf, &'static str),
    /// Others may read the key, or somebody else owns it.
    #[error("{} must belong to the server's user or root, and nobody else may read it (chmod 600)", .0.display())]
    Exposed(PathBuf),
    /// The key is not that of the certificate, or of a kind that is not known.
    #[error("the certificate and its key cannot be used together")]
    Pair(#[source] rustls::Error),
    /// The settings contradict themselves: a fault of ours.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

impl TlsError {
    /// The file that it is about.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            TlsError::File(path, _) | TlsError::Empty(path, _) | TlsError::Exposed(path) => {
                Some(path)
            }
            TlsError::Pair(_) | TlsError::Setup(_) => None,
        }
    }
}

/// The server's certificate as it stands in its files.
pub(crate) struct Tls {
    files: TlsFiles,
    current: Arc<Current>,
    config: Arc<ServerConfig>,
}

/// The certificate that new connections get.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self.0.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

impl Tls {
    /// Reads both files.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub(crate) fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let current = Arc::new(Current(RwLock::new(Arc::new(read(&files)?))));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Current>::clone(&current));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls {
            files,
            current,
            config: Arc::new(config),
        })
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.config).into()
    }

    /// Reads the files again whenever they change, until `stop`. What cannot be used changes nothing.
    pub(crate) async fn keep_current(&self, stop: CancellationToken) {
        let mut seen = self.stamps();
        while stop
            .run_until_cancelled(tokio::time::sleep(LOOK_EVERY))
            .await
            .is_some()
        {
            let found = self.stamps();
            if found == seen {
                continue;
            }
            match read(&self.files) {
                Ok(pair) => {
                    *self
                        .current
                        .0
                        .write()
                        .unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
                    tracing::info!("the certificate was read again");
                    seen = found;
                }
                // Often one of two files is not written yet: so it is tried again at each look.
                Err(error) => {
                    tracing::error!(error = chain(&error), "the certificate stays as it was")
                }
            }
        }
    }

    /// What changes when a file is written or replaced.
    fn stamps(&self) -> [Option<(u64, u64, SystemTime)>; 2] {
        [&self.files.certificate, &self.files.key].map(|path| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.ino(), found.len(), found.modified().ok()?))
        })
    }
}

/// Whether the files can be used.
///
/// # Errors
/// See [`TlsError`].
pub(crate) fn check(files: &TlsFiles) -> Result<(), TlsError> {
    read(files).map(drop)
}

fn read(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let (_, certificates) = read_file(&files.certificate)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&certificates)
        .collect::<Result<_, _>>()
        .unwrap_or_default();
    if certificates.is_empty() {
        return Err(TlsError::Empty(files.certificate.clone(), "certificate"));
    }
    let (found, key) = read_file(&files.key)?;
    let is_trusted = [0, rustix::process::geteuid().as_raw()].contains(&found.uid());
    if !is_trusted || found.mode() & OTHERS != 0 {
        return Err(TlsError::Exposed(files.key.clone()));
    }
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| TlsError::Empty(files.key.clone(), "private key"))?;
    CertifiedKey::from_der(certificates, key, &ring::default_provider()).map_err(TlsError::Pair)
}

fn read_file(path: &Path) -> Result<(std::fs::Metadata, Vec<u8>), TlsError> {
    let read = || {
        let file = File::open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut content = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut content)?;
        Ok((found, content))
    };
    read().map_err(|error| TlsError::File(path.to_owned(), error))
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

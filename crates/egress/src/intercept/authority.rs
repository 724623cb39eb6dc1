//! The authority of one installation: its certificate is believed inside of sandboxes that have TLS opened, and nowhere
//! else. What it signs stands for one host each, and for a day.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustix::fs::OFlags;
use rustls::{
    ServerConfig,
    crypto::ring::sign::any_ecdsa_type,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::{CertifiedKey, SigningKey},
};

use crate::destination::HostName;

/// In the directory of the authority: its key.
const KEY_FILE: &str = "key.pem";
/// Its certificate.
const CERTIFICATE_FILE: &str = "certificate.pem";
/// No key or certificate in PEM is longer.
const MAX_PEM_BYTES: u64 = 16 * 1024;
/// How long the authority is believed. Sessions live for days; who makes the directory anew makes another authority.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long one of its certificates is: clients inside ask for one with each connection.
const LEAF_LIFE: Duration = Duration::from_secs(24 * 3600);
/// A certificate is made anew when less than this is left of it.
const LEAF_SPARE: Duration = Duration::from_secs(3600);
/// Clocks of sandboxes are the host's; a guest kernel's may be behind.
const BEFORE: Duration = Duration::from_secs(3600);
/// Certificates that are kept. Past it all are made anew, which takes a tenth of a millisecond each.
const MAX_LEAVES: usize = 256;
/// What clients show as the issuer.
const NAME: &str = "Claude Code Container MCP Server: opened by rule, this machine only";

/// An authority that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Its directory or files cannot be made or read.
    #[error("{path} cannot be used")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others could read or change its key.
    #[error(
        "{0} is open to others than its owner: chmod 600 it, or remove the directory to get another authority"
    )]
    Open(PathBuf),
    /// What stands there is not what was written.
    #[error(
        "{0} is no key or certificate of an authority: remove the directory to get another one"
    )]
    Malformed(PathBuf, #[source] Option<rcgen::Error>),
}

/// The authority of an installation.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// Of all leaves: they differ by name alone, and none leaves this process.
    leaf_key: KeyPair,
    signing: Arc<dyn SigningKey>,
    leaves: Mutex<HashMap<HostName, Leaf>>,
}

struct Leaf {
    key: Arc<CertifiedKey>,
    end: SystemTime,
}

impl Authority {
    /// The one that stands in a directory; made there, with a key that its owner alone can read, where there is none.
    ///
    /// # Errors
    /// When its files cannot be made or read, are open to others, or are not what was written.
    pub fn open(directory: &Path) -> Result<Arc<Self>, AuthorityError> {
        let (key_path, path) = (directory.join(KEY_FILE), directory.join(CERTIFICATE_FILE));
        let key = match read(&key_path, true)? {
            Some(pem) => KeyPair::from_pem(&pem)
                .map_err(|error| AuthorityError::Malformed(key_path.clone(), Some(error)))?,
            None => make_key(directory, &key_path)?,
        };
        let pem = match read(&path, false)? {
            Some(pem) => pem,
            None => {
                let signed = params().and_then(|params| params.self_signed(&key));
                let pem = signed
                    .map(|certificate| certificate.pem())
                    .map_err(|error| AuthorityError::Malformed(path.clone(), Some(error)))?;
                put(directory, &path, &pem).map_err(in_file(&path))?;
                pem
            }
        };
        Self::new(key, pem).map_err(|error| AuthorityError::Malformed(path, error))
    }

    fn new(key: KeyPair, pem: String) -> Result<Arc<Self>, Option<rcgen::Error>> {
        use rustls::pki_types::pem::PemObject;

        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| None)?;
        if !is_of(&certificate, &key) {
            return Err(None);
        }
        let leaf_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let signing = any_ecdsa_type(&der).map_err(|_| None)?;
        let issuer = Issuer::new(params()?, key);
        Ok(Arc::new(Authority {
            pem,
            issuer,
            certificate,
            leaf_key,
            signing,
            leaves: Mutex::default(),
        }))
    }

    /// Its certificate, PEM: what a sandbox is to believe beside the roots of the machine.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// For the side of a tunnel that a client inside is on: HTTP/1.1 alone, nothing resumed.
    pub(crate) fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Leaves(Arc::clone(self))));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn leaf(&self, host: &HostName) -> Result<Arc<CertifiedKey>, rcgen::Error> {
        let now = SystemTime::now();
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = leaves.get(host)
            && leaf.end > now + LEAF_SPARE
        {
            return Ok(Arc::clone(&leaf.key));
        }
        let end = now + LEAF_LIFE;
        let mut params = CertificateParams::new([host.as_str().to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        (params.not_before, params.not_after) = ((now - BEFORE).into(), end.into());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(&self.leaf_key, &self.issuer)?;
        let chain = vec![signed.der().clone(), self.certificate.clone()];
        let key = Arc::new(CertifiedKey::new(chain, Arc::clone(&self.signing)));
        if leaves.len() >= MAX_LEAVES {
            leaves.clear();
        }
        let kept = Leaf {
            key: Arc::clone(&key),
            end,
        };
        leaves.insert(host.clone(), kept);
        Ok(key)
    }
}

/// What a client is shown: the name was compared with the tunnel's before.
#[derive(Debug)]
struct Leaves(Arc<Authority>);

impl ResolvesServerCert for Leaves {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = HostName::parse(hello.server_name()?.as_bytes()).ok()?;
        let leaf = self.0.leaf(&host);
        leaf.inspect_err(|error| tracing::error!(%error, "no certificate for an opened tunnel"))
            .ok()
    }
}

/// What stands in its certificate, and as the issuer in those that it signs.
fn params() -> Result<CertificateParams, rcgen::Error> {
    let now = SystemTime::now();
    let mut params = CertificateParams::new([])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, NAME);
    (params.not_before, params.not_after) = ((now - BEFORE).into(), (now + AUTHORITY_LIFE).into());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(params)
}

/// Whether a certificate is of that key and of that name: both are files, and one could have been replaced. Both stand in it
/// as a whole (RFC 5280, section 4.1).
fn is_of(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    [key.public_key_raw(), NAME.as_bytes()]
        .into_iter()
        .all(|part| certificate.windows(part.len()).any(|window| window == part))
}

fn make_key(directory: &Path, path: &Path) -> Result<KeyPair, AuthorityError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(in_file(directory))?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|error| AuthorityError::Malformed(path.to_owned(), Some(error)))?;
    put(directory, path, &key.serialize_pem()).map_err(in_file(path))?;
    Ok(key)
}

/// Writes a new file that its owner alone can read, whole or not at all.
fn put(directory: &Path, path: &Path, text: &str) -> io::Result<()> {
    let aside = path.with_extension("new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(directory)?.sync_all()
}

fn read(path: &Path, is_secret: bool) -> Result<Option<String>, AuthorityError> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(in_file(path)(error)),
    };
    let metadata = file.metadata().map_err(in_file(path))?;
    let others = if is_secret { 0o077 } else { 0o022 };
    let own = rustix::process::geteuid().as_raw();
    if !metadata.is_file() || metadata.mode() & others != 0 || metadata.uid() != own {
        return Err(AuthorityError::Open(path.to_owned()));
    }
    let mut text = String::new();
    file.take(MAX_PEM_BYTES)
        .read_to_string(&mut text)
        .map_err(in_file(path))?;
    Ok(Some(text))
}

fn in_file(path: &Path) -> impl Fn(io::Error) -> AuthorityError {
    let path = path.to_owned();
    move |source| AuthorityError::File {
        path: path.clone(),
        source,
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

//! A service that takes records by HTTP: one POST for a batch, one record a line, and whatever 2xx it answers means that it
//! has them.
//!
//! Over TLS, or on this machine. Redirects are not followed. Where a secret is configured, a batch is signed:
//! `X-Claude-Code-Mcp-Signature: sha256=HEX`, HMAC-SHA256 over the time of `X-Claude-Code-Mcp-Timestamp` (seconds since 1970),
//! a dot, and the body.

use std::{
    fs::{File, OpenOptions},
    io::Read,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use model::Secret;
use ring::hmac;
use rustix::fs::OFlags;
use ureq::{
    Agent,
    http::Uri,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

use super::{
    SinkError,
    worker::{Message, Target, Undelivered},
};

/// How long a service may take for one batch, from connecting to the end of its answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest file with a secret or certificates, bytes.
const MAX_FILE_BYTES: u64 = 256 << 10;
/// Shortest secret, bytes: 128 bits, below which a key is what is guessed (NIST SP 800-107 §5.3.2).
const MIN_SECRET_BYTES: usize = 16;

/// A webhook, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    url: Uri,
    secret_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

impl WebhookSettings {
    /// A webhook at that address. `secret_file` holds what batches are signed with, `ca_file` certificates (PEM) that are
    /// believed instead of this machine's.
    ///
    /// # Errors
    /// With what is wrong with the address.
    pub fn new(
        url: &str,
        secret_file: Option<PathBuf>,
        ca_file: Option<PathBuf>,
    ) -> Result<Self, &'static str> {
        let url: Uri = url.parse().map_err(|_| "it is no address")?;
        let host = url.host().ok_or("it names no host")?;
        if url
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err("an address with a password would be told in logs: use `secret_file`");
        }
        match url.scheme_str() {
            Some("https") => {}
            Some("http") if is_here(host) => {}
            Some("http") => return Err("http:// is for this machine alone: use https://"),
            Some(_) | None => return Err("it must begin with https://"),
        }
        Ok(WebhookSettings {
            url,
            secret_file,
            ca_file,
        })
    }
}

fn is_here(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address: Option<std::net::IpAddr> = bare.parse().ok();
    host == "localhost" || address.is_some_and(|address| address.is_loopback())
}

pub(super) struct Webhook {
    agent: Agent,
    url: Uri,
    secret: Option<Secret<Vec<u8>>>,
}

impl Webhook {
    pub(super) fn new(settings: &WebhookSettings, sink: &str) -> Result<Self, SinkError> {
        let unusable = |path: &Path| {
            let (sink, path) = (sink.to_owned(), path.to_owned());
            move |why: String| SinkError::File { sink, path, why }
        };
        let secret = settings.secret_file.as_deref().map(|path| {
            let bytes = secret(path).map_err(unusable(path))?;
            Ok(Secret::new(bytes))
        });
        let roots = match settings.ca_file.as_deref() {
            Some(path) => certificates(path).map_err(unusable(path))?,
            None => own_certificates(),
        };
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("claude-code-mcp/", env!("CARGO_PKG_VERSION")))
            .timeout_global(Some(TIMEOUT))
            .build();
        Ok(Webhook {
            agent: Agent::new_with_config(config),
            url: settings.url.clone(),
            secret: secret.transpose()?,
        })
    }

    fn post(&self, body: &str) -> Result<(), String> {
        let time = Timestamp::now().as_second();
        let mut request = self
            .agent
            .post(&self.url)
            .header("content-type", "application/x-ndjson")
            .header("x-claude-code-mcp-timestamp", time.to_string());
        if let Some(secret) = &self.secret {
            let signature = signature(secret.expose(), time, body);
            request = request.header("x-claude-code-mcp-signature", format!("sha256={signature}"));
        }
        let response = request.send(body).map_err(|error| error.to_string())?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(format!("it answered {}", response.status().as_u16())),
        }
    }
}

impl Target for Webhook {
    fn deliver(&mut self, messages: &[Message]) -> Result<(), Undelivered> {
        let mut body = String::new();
        for message in messages {
            body.push_str(&message.text);
            body.push('\n');
        }
        self.post(&body).map_err(Undelivered::nothing)
    }
}

fn signature(secret: &[u8], time: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signed = format!("{time}.{body}");
    hex::encode(hmac::sign(&key, signed.as_bytes()))
}

/// The secret without the line end that editors leave.
fn secret(path: &Path) -> Result<Vec<u8>, String> {
    let file = open(path)?;
    let found = file.metadata().map_err(|error| error.to_string())?;
    if found.mode() & 0o077 != 0 {
        return Err("others may read it: chmod 600".to_owned());
    }
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != own && found.uid() != 0 {
        return Err("it belongs to another user".to_owned());
    }
    let mut bytes = read(file)?;
    while bytes.last().is_some_and(|byte| b"\r\n".contains(byte)) {
        bytes.pop();
    }
    match bytes.len() < MIN_SECRET_BYTES {
        true => Err(format!("a secret has at least {MIN_SECRET_BYTES} bytes")),
        false => Ok(bytes),
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let bytes = read(open(path)?)?;
    let mut found = Vec::new();
    for item in parse_pem(&bytes) {
        match item.map_err(|error| error.to_string())? {
            PemItem::Certificate(certificate) => found.push(certificate),
            PemItem::PrivateKey(_) => return Err("it holds a private key".to_owned()),
            _ => return Err("it holds something else than certificates".to_owned()),
        }
    }
    match found.is_empty() {
        true => Err("it holds no certificate".to_owned()),
        false => Ok(found),
    }
}

fn own_certificates() -> Vec<Certificate<'static>> {
    let found = rustls_native_certs::load_native_certs().certs;
    found
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect()
}

fn open(path: &Path) -> Result<File, String> {
    let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK).bits();
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(i32::try_from(flags).unwrap_or_default());
    let file = options.open(path).map_err(|error| error.to_string())?;
    match file.metadata() {
        Ok(found) if found.is_file() => Ok(file),
        Ok(_) => Err("it is no file".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn read(file: File) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    match bytes.len() as u64 > MAX_FILE_BYTES {
        true => Err(format!("it is longer than {MAX_FILE_BYTES} bytes")),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tls_or_this_machine_is_sent_anything() {
        for good in [
            "https://siem.example/in",
            "http://127.0.0.1:80/",
            "http://[::1]:80/x",
            "http://localhost:1/",
        ] {
            assert!(WebhookSettings::new(good, None, None).is_ok(), "{good}");
        }
        for bad in [
            "http://siem.example/in",
            "http://127.0.0.1.siem.example/",
            "https://me:secret@siem.example/",
            "ftp://127.0.0.1/",
            "/in",
            "siem.example",
            "",
        ] {
            assert!(WebhookSettings::new(bad, None, None).is_err(), "{bad}");
        }
    }

    /// RFC 4231 has no case with a dot in it: reckoned with `openssl dgst -sha256 -hmac`.
    #[test]
    fn the_signature_is_hmac_sha256_over_time_dot_body() {
        let found = signature(b"0123456789abcdef", 1_700_000_000, "{}\n");
        assert_eq!(
            found,
            "9762b6da9e539b8a12f2592a576916bb7d0e48ef60ccbf1c013f9b7158f9344f"
        );
    }
}

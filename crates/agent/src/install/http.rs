//! Requests to an index and downloads that go on where they ended. TLS by rustls with the certificates of this machine.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};
use ureq::{
    Agent, Body,
    http::{Response, StatusCode},
    tls::{Certificate, RootCerts, TlsConfig},
};
use url::{Host, Url};

use super::{InstallError, Progress, store::file};

/// How long a name, a connection or an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest listing of an index, bytes: the pinned project's has 700 files in half a megabyte.
const MAX_LISTING_BYTES: u64 = 32 << 20;
/// Bytes that are read at once.
const CHUNK_BYTES: usize = 256 << 10;
/// A download that ends early is gone on with so often.
const ATTEMPTS: u32 = 3;

/// How the network is used.
#[derive(Debug, Clone)]
pub struct Network {
    /// By way of this proxy. `Proxy::try_from_env` reads `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    pub proxy: Option<ureq::Proxy>,
    /// A download that brings nothing for so long is cut.
    pub stall: Duration,
}

impl Default for Network {
    fn default() -> Self {
        Network {
            proxy: None,
            stall: Duration::from_secs(60),
        }
    }
}

pub(super) struct Http {
    agent: Agent,
}

/// What a download is to be.
#[derive(Debug)]
pub(super) struct Wanted {
    pub url: Url,
    /// Its size, where it is known.
    pub bytes: Option<u64>,
    /// Its hash, where it is known.
    pub sha256: Option<String>,
    /// The most that is taken.
    pub limit: u64,
}

/// How one attempt went.
enum Attempt {
    Whole,
    /// It can be gone on with.
    Cut(Option<io::Error>),
}

impl Http {
    pub(super) fn new(network: &Network) -> Self {
        let found = rustls_native_certs::load_native_certs();
        let roots = found
            .certs
            .iter()
            .map(|certificate| Certificate::from_der(certificate).to_owned());
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots.collect())))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .proxy(network.proxy.clone())
            .http_status_as_error(false)
            .user_agent(concat!("claude-code-mcp/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(ANSWER_TIMEOUT))
            .timeout_connect(Some(ANSWER_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_per_read(Some(network.stall))
            .build();
        Http {
            agent: Agent::new_with_config(config),
        }
    }

    /// Asks for a document.
    ///
    /// # Errors
    /// When nothing answers, or too much.
    pub(super) fn document(&self, url: &Url, accept: &str) -> Result<Document, InstallError> {
        let response = self.get(url, &[("accept", accept)])?;
        let status = response.status();
        let header = response.headers().get("content-type");
        let kind = header
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
            .to_owned();
        let mut text = Vec::new();
        let mut body = response
            .into_body()
            .into_reader()
            .take(MAX_LISTING_BYTES + 1);
        body.read_to_end(&mut text)
            .map_err(|source| InstallError::Cut {
                url: shown(url),
                got: text.len() as u64,
                wanted: "?".to_owned(),
                source: Some(source),
            })?;
        if text.len() as u64 > MAX_LISTING_BYTES {
            return Err(InstallError::TooLarge {
                what: shown(url),
                limit: MAX_LISTING_BYTES,
            });
        }
        Ok(Document { status, kind, text })
    }

    /// Fetches a file to `place`, going on with what is there, and gives back the whole of it. A file with another hash is
    /// deleted.
    ///
    /// # Errors
    /// When it is not there, ends early several times, is too large, or has another hash.
    pub(super) fn fetch(
        &self,
        wanted: &Wanted,
        place: &Path,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<File, InstallError> {
        let mut part = Part::open(place, wanted)?;
        let mut attempts = 0;
        while wanted.bytes != Some(part.bytes) {
            match self.attempt(wanted, &mut part, tell)? {
                Attempt::Whole => break,
                Attempt::Cut(source) => {
                    attempts += 1;
                    if attempts == ATTEMPTS {
                        return Err(InstallError::Cut {
                            url: shown(&wanted.url),
                            got: part.bytes,
                            wanted: wanted
                                .bytes
                                .map_or_else(|| "?".to_owned(), |bytes| bytes.to_string()),
                            source,
                        });
                    }
                }
            }
        }
        part.finish(wanted)
    }

    fn attempt(
        &self,
        wanted: &Wanted,
        part: &mut Part<'_>,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<Attempt, InstallError> {
        let range = format!("bytes={}-", part.bytes);
        // A compressed answer could not be gone on with.
        let headers = [("accept-encoding", "identity"), ("range", range.as_str())];
        let asked = if part.bytes == 0 {
            &headers[..1]
        } else {
            &headers[..]
        };
        let response = self.get(&wanted.url, asked)?;
        match response.status() {
            StatusCode::OK => part.start_over()?,
            StatusCode::PARTIAL_CONTENT if goes_on(&response, part.bytes) => {}
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                part.start_over()?;
                return Ok(Attempt::Cut(None));
            }
            status => {
                return Err(InstallError::Status {
                    url: shown(&wanted.url),
                    status: status.as_u16(),
                });
            }
        }
        let mut body = response.into_body().into_reader();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = match body.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Attempt::Cut(Some(error))),
            };
            part.add(&chunk[..read], wanted)?;
            tell(Progress::Fetched {
                bytes: part.bytes,
                total: wanted.bytes,
            });
        }
        let short = wanted.bytes.is_some_and(|bytes| part.bytes < bytes);
        Ok(if short {
            Attempt::Cut(None)
        } else {
            Attempt::Whole
        })
    }

    fn get(&self, url: &Url, headers: &[(&str, &str)]) -> Result<Response<Body>, InstallError> {
        check(url)?;
        let mut bare = url.clone();
        let _ = bare.set_username("");
        let _ = bare.set_password(None);
        let mut request = self.agent.get(bare.as_str());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(credentials) = credentials(url) {
            request = request.header("authorization", credentials);
        }
        // What comes over TLS never goes on without.
        let request = request.config().https_only(url.scheme() == "https").build();
        request.call().map_err(|source| InstallError::Unreachable {
            url: shown(url),
            source: Box::new(source),
        })
    }
}

/// An answer.
pub(super) struct Document {
    pub status: StatusCode,
    pub kind: String,
    pub text: Vec<u8>,
}

/// A file that comes in parts.
struct Part<'place> {
    place: &'place Path,
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl<'place> Part<'place> {
    fn open(place: &'place Path, wanted: &Wanted) -> Result<Self, InstallError> {
        let mut options = File::options();
        let file_of = options
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(place)
            .map_err(file("open", place))?;
        let mut part = Part {
            place,
            file: file_of,
            hash: Sha256::new(),
            bytes: 0,
        };
        let bytes = io::copy(&mut part.file, &mut HashWriter(&mut part.hash));
        part.bytes = bytes.map_err(file("read", place))?;
        if part.bytes > wanted.bytes.unwrap_or(wanted.limit) {
            part.start_over()?;
        }
        Ok(part)
    }

    fn start_over(&mut self) -> Result<(), InstallError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map_err(file("write", self.place))?;
        self.hash = Sha256::new();
        self.bytes = 0;
        Ok(())
    }

    fn add(&mut self, chunk: &[u8], wanted: &Wanted) -> Result<(), InstallError> {
        let bytes = self.bytes + chunk.len() as u64;
        let limit = wanted.bytes.unwrap_or(wanted.limit);
        if bytes > limit {
            self.start_over()?;
            return Err(InstallError::TooLarge {
                what: shown(&wanted.url),
                limit,
            });
        }
        self.file
            .write_all(chunk)
            .map_err(file("write", self.place))?;
        self.hash.update(chunk);
        self.bytes = bytes;
        Ok(())
    }

    fn finish(mut self, wanted: &Wanted) -> Result<File, InstallError> {
        let found = hex::encode(self.hash.finalize());
        match &wanted.sha256 {
            Some(pinned) if *pinned != found => {
                std::fs::remove_file(self.place).map_err(file("remove", self.place))?;
                Err(InstallError::Mismatch {
                    what: shown(&wanted.url),
                    found,
                    wanted: pinned.clone(),
                })
            }
            Some(_) | None => {
                self.file.rewind().map_err(file("read", self.place))?;
                Ok(self.file)
            }
        }
    }
}

struct HashWriter<'hash>(&'hash mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the answer begins where we ended.
fn goes_on(response: &Response<Body>, bytes: u64) -> bool {
    let range = response.headers().get("content-range");
    let range = range.and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {bytes}-")))
}

fn credentials(url: &Url) -> Option<String> {
    let password = url.password().unwrap_or("");
    let decoded = |text: &str| {
        let bytes = percent_encoding::percent_decode_str(text);
        bytes.decode_utf8().ok().map(String::from)
    };
    if url.username().is_empty() && password.is_empty() {
        return None;
    }
    let pair = format!("{}:{}", decoded(url.username())?, decoded(password)?);
    Some(format!("Basic {}", BASE64_STANDARD.encode(pair)))
}

/// Whether we ask there at all: over TLS, or on this machine.
fn check(url: &Url) -> Result<(), InstallError> {
    let is_here = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_here => Ok(()),
        _ => Err(InstallError::Url {
            url: shown(url),
            why: "is no https:// address",
        }),
    }
}

/// A URL for messages and records: without user, password and query.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tls_or_this_machine_is_asked_and_no_password_is_shown() {
        for good in [
            "https://example.org/simple/",
            "http://127.0.0.1:1/",
            "http://[::1]:1/",
            "http://localhost/",
        ] {
            check(&Url::parse(good).unwrap()).unwrap();
        }
        for bad in [
            "http://example.org/simple/",
            "http://127.0.0.1.example.org/",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "http://192.0.2.1/",
        ] {
            assert!(check(&Url::parse(bad).unwrap()).is_err(), "{bad}");
        }
        let url = Url::parse("https://me:se%40cret@example.org/x?token=1#y").unwrap();
        assert_eq!(shown(&url), "https://example.org/x");
        let encoded = BASE64_STANDARD.encode("me:se@cret");
        assert_eq!(credentials(&url), Some(format!("Basic {encoded}")));
        // In a password, unlike in a form, these stand for themselves.
        let url = Url::parse("https://me:a+b&c=d%2Be@example.org/").unwrap();
        let encoded = BASE64_STANDARD.encode("me:a+b&c=d+e");
        assert_eq!(credentials(&url), Some(format!("Basic {encoded}")));
        assert_eq!(credentials(&Url::parse("https://x/").unwrap()), None);
    }
}

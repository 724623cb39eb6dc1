//! Where the pinned file is to be found: a Python package index, by its simple API in JSON (PEP 691), or an npm registry.

use serde::Deserialize;
use ureq::http::StatusCode;
use url::Url;

use super::{
    InstallError, Pin,
    http::{Document, Http, Wanted, shown},
    pins::is_digest,
};

/// The index that is asked where none is named.
pub const DEFAULT_INDEX: &str = "https://pypi.org/simple/";
/// The registry that is asked where none is named.
pub const DEFAULT_REGISTRY: &str = "https://registry.npmjs.org/";
/// Largest archive that is fetched, bytes: three times the pinned one.
pub(super) const MAX_ARCHIVE_BYTES: u64 = 512 << 20;
/// The JSON form of the simple API.
const LISTING: &str = "application/vnd.pypi.simple.v1+json";

/// What of an index is wanted.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Another version of the SDK than the pinned one.
    pub sdk_version: Option<String>,
    /// Also a file that its makers withdrew.
    pub accept_yanked: bool,
}

#[derive(Debug, Deserialize)]
struct Listing {
    files: Vec<ListedFile>,
}

#[derive(Debug, Deserialize)]
struct ListedFile {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: Hashes,
    #[serde(default)]
    yanked: Yanked,
    #[serde(default)]
    size: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct Hashes {
    #[serde(default)]
    sha256: Option<String>,
}

/// `false`, `true`, or the reason.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Yanked {
    Flag(bool),
    Reason(String),
}

impl Default for Yanked {
    fn default() -> Self {
        Yanked::Flag(false)
    }
}

impl Yanked {
    fn reason(&self) -> Option<&str> {
        match self {
            Yanked::Flag(false) => None,
            Yanked::Flag(true) => Some("no reason is given"),
            Yanked::Reason(reason) => Some(reason),
        }
    }
}

/// The address of an index, as people write it.
///
/// # Errors
/// When it is none.
pub fn address(text: &str) -> Result<Url, InstallError> {
    let refused = |why| InstallError::Url {
        // It may hold a password, and what is no URL cannot be stripped of it.
        url: "the address of the index".to_owned(),
        why,
    };
    let mut url = Url::parse(text).map_err(|_| refused("is no URL"))?;
    if url.cannot_be_a_base() {
        return Err(refused("is no https:// address"));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

/// Finds the wheel in a Python package index.
///
/// # Errors
/// When it is not there any more, or the index does not answer as one.
pub(super) fn in_index(
    http: &Http,
    index: &Url,
    pin: &Pin,
    wish: &Wish,
) -> Result<Wanted, InstallError> {
    let url = join(index, &format!("{}/", pin.project))?;
    let document = http.document(&url, LISTING)?;
    let listing = listing(&url, &document, pin)?;
    let name = match &wish.sdk_version {
        Some(version) => pin.wheel_name.replace(&pin.project_version, version),
        None => pin.wheel_name.clone(),
    };
    let newest = newest(&listing, pin);
    let Some(found) = listing.files.iter().find(|found| found.filename == name) else {
        return Err(InstallError::Withdrawn {
            file: name,
            index: shown(index),
            newest,
        });
    };
    if let Some(reason) = found.yanked.reason().filter(|_| !wish.accept_yanked) {
        return Err(InstallError::Yanked {
            file: name,
            reason: plain(reason),
            newest,
        });
    }
    let said = found.hashes.sha256.clone().filter(|hash| is_digest(hash));
    let wanted = Wanted {
        url: join(&url, &found.url)?,
        bytes: found.size.filter(|bytes| *bytes <= MAX_ARCHIVE_BYTES),
        sha256: said,
        limit: MAX_ARCHIVE_BYTES,
    };
    if wish.sdk_version.is_some() {
        return Ok(wanted);
    }
    match &wanted.sha256 {
        Some(said) if *said != pin.wheel.sha256 => Err(InstallError::Mismatch {
            what: format!("{name} of {}", shown(index)),
            found: said.clone(),
            wanted: pin.wheel.sha256.clone(),
        }),
        Some(_) | None => Ok(Wanted {
            bytes: Some(pin.wheel.bytes),
            sha256: Some(pin.wheel.sha256.clone()),
            ..wanted
        }),
    }
}

fn listing(url: &Url, document: &Document, pin: &Pin) -> Result<Listing, InstallError> {
    match document.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            return Err(InstallError::Withdrawn {
                file: pin.wheel_name.clone(),
                index: shown(url),
                newest: None,
            });
        }
        status => {
            return Err(InstallError::Status {
                url: shown(url),
                status: status.as_u16(),
            });
        }
    }
    let answer = |why: String| InstallError::Answer {
        url: shown(url),
        why,
    };
    if !document.kind.contains("json") {
        return Err(answer(format!(
            "lists its files as {:?}, not in JSON (PEP 691)",
            document.kind
        )));
    }
    serde_json::from_slice(&document.text)
        .map_err(|error| answer(format!("lists its files in a form of its own: {error}")))
}

/// The newest version with a wheel for this platform that is not withdrawn.
fn newest(listing: &Listing, pin: &Pin) -> Option<String> {
    let (before, after) = pin.wheel_name.split_once(&pin.project_version)?;
    let numbers = |version: &str| -> Option<Vec<u64>> {
        version.split('.').map(|part| part.parse().ok()).collect()
    };
    let usable = listing
        .files
        .iter()
        .filter(|file| file.yanked.reason().is_none());
    let versions = usable.filter_map(|file| {
        let version = file.filename.strip_prefix(before)?.strip_suffix(after)?;
        Some((numbers(version)?, version.to_owned()))
    });
    versions.max().map(|(_, version)| version)
}

/// The package of an npm registry: the name of its file is fixed, and the program in it has the pinned hash.
///
/// # Errors
/// When the address cannot be made.
pub(super) fn in_registry(registry: &Url, pin: &Pin) -> Result<Wanted, InstallError> {
    let file = pin.npm_package.rsplit('/').next().unwrap_or_default();
    let path = format!("{}/-/{file}-{}.tgz", pin.npm_package, pin.version);
    Ok(Wanted {
        url: join(registry, &path)?,
        bytes: None,
        sha256: None,
        limit: MAX_ARCHIVE_BYTES,
    })
}

fn join(base: &Url, path: &str) -> Result<Url, InstallError> {
    base.join(path).map_err(|_| InstallError::Answer {
        url: shown(base),
        why: "names a file by something that is no URL".to_owned(),
    })
}

/// Text of strangers for our messages.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(200)
        .collect()
}

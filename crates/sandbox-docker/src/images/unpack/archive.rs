//! What an archive holds: the layers of one image, or a root file system. Nothing is written here.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Component, Path},
};

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use tar::Archive;

use super::{
    UnpackError,
    layer::{self, Budget},
};

/// Largest description of an image, bytes; real ones have some kilobytes.
const MAX_DESCRIPTION_BYTES: u64 = 4 << 20;
/// Most entries of an archive of layers: engines allow 127 layers, with a handful of entries each. One with more is a
/// root file system.
const MAX_ARCHIVE_ENTRIES: usize = 5_000;
/// Most layers. Engines allow 127.
const MAX_LAYERS: usize = 1_000;
/// Links between entries that are followed: `docker save` writes a layer that is there twice as a link.
const MAX_LINKS: usize = 8;
/// Indexes within indexes that are followed in an OCI layout.
const MAX_INDEXES: usize = 4;

/// A part of a file, read without moving anybody else's position.
pub(super) struct Slice<'file> {
    file: &'file File,
    at: u64,
    end: u64,
}

impl<'file> Slice<'file> {
    pub(super) fn new(file: &'file File, at: u64, size: u64) -> Self {
        Slice {
            file,
            at,
            end: at.saturating_add(size),
        }
    }

    /// The same part, as it is when it is not compressed any more.
    pub(super) fn inflated(&self) -> Result<Box<dyn Read + 'file>, UnpackError> {
        let again = Slice { ..*self };
        let mut magic = [0; 4];
        let mut head = Slice { ..*self };
        // A shorter one is compressed by nothing.
        let _ = head.read_exact(&mut magic);
        match magic {
            magic if is_gzip(&magic) => Ok(Box::new(MultiGzDecoder::new(again))),
            [0x28, 0xb5, 0x2f, 0xfd] => Err(UnpackError::Format(
                "a layer is compressed by zstd; `docker save` writes layers that are not"
                    .to_owned(),
            )),
            _ => Ok(Box::new(again)),
        }
    }
}

impl Read for Slice<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

pub(super) fn is_gzip(magic: &[u8]) -> bool {
    magic.starts_with(&[0x1f, 0x8b])
}

/// What an archive holds.
pub(super) enum Contents {
    /// A root file system.
    Root { size: u64 },
    /// An image.
    Image {
        /// Digest of its configuration.
        digest: String,
        /// Where each layer stands, lowest first, and the digest of what it is when it is not compressed.
        layers: Vec<(Place, String)>,
    },
}

/// Where an entry's data stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    at: u64,
    size: u64,
}

impl Contents {
    /// The layers, lowest first.
    pub(super) fn layers<'file>(&self, file: &'file File) -> Vec<Slice<'file>> {
        match self {
            Contents::Root { size } => vec![Slice::new(file, 0, *size)],
            Contents::Image { layers, .. } => layers
                .iter()
                .map(|(place, _)| Slice::new(file, place.at, place.size))
                .collect(),
        }
    }

    /// Looks at everything before anything is written; the digest of the whole.
    ///
    /// # Errors
    /// What is too large, or not what the configuration says.
    pub(super) fn measure(
        &self,
        file: &File,
        budget: &mut Budget<'_>,
    ) -> Result<String, UnpackError> {
        let mut found = Vec::new();
        for slice in self.layers(file) {
            found.push(layer::measure(&slice, budget)?);
        }
        match self {
            Contents::Root { .. } => Ok(found.concat()),
            Contents::Image { digest, layers } => {
                for (number, (found, (_, expected))) in found.iter().zip(layers).enumerate() {
                    expect(&format!("layer {}", number + 1), found, expected)?;
                }
                Ok(digest.clone())
            }
        }
    }
}

fn expect(what: &str, found: &str, expected: &str) -> Result<(), UnpackError> {
    if found == expected {
        return Ok(());
    }
    Err(UnpackError::Digest {
        what: what.to_owned(),
        found: found.to_owned(),
        expected: expected.to_owned(),
    })
}

/// Looks what it is.
pub(super) fn contents(file: &File) -> Result<Contents, UnpackError> {
    let size = file.metadata().map_err(UnpackError::Read)?.len();
    let index = match Index::of(file, size)? {
        Some(index) => index,
        None => return Ok(Contents::Root { size }),
    };
    if index.has("manifest.json") {
        return saved(&index);
    }
    if index.has("index.json") && index.has("oci-layout") {
        return layout(&index);
    }
    Ok(Contents::Root { size })
}

/// One image of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

/// What an image's configuration says of its layers.
#[derive(Deserialize)]
struct Configuration {
    rootfs: DiffIds,
}

#[derive(Deserialize)]
struct DiffIds {
    diff_ids: Vec<String>,
}

/// What an OCI layout refers to things with.
#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// An index or a manifest of an OCI layout.
#[derive(Deserialize)]
struct Described {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

fn saved(index: &Index<'_>) -> Result<Contents, UnpackError> {
    let mut images: Vec<Saved> = read(&index.bytes("manifest.json")?)?;
    let (Some(image), true) = (images.pop(), images.is_empty()) else {
        return Err(format("it does not hold exactly one image"));
    };
    image_of(index, &index.bytes(&image.config)?, &image.layers)
}

fn layout(index: &Index<'_>) -> Result<Contents, UnpackError> {
    let mut described: Described = read(&index.bytes("index.json")?)?;
    for _ in 0..MAX_INDEXES {
        if let (Some(config), Some(layers)) = (&described.config, &described.layers) {
            let layers: Vec<_> = layers.iter().map(|layer| blob(&layer.digest)).collect();
            let bytes = index.blob(&config.digest)?;
            return image_of(index, &bytes, &layers);
        }
        let manifests = described.manifests.unwrap_or_default();
        let ours: Vec<_> = manifests.iter().filter(|one| is_ours(one)).collect();
        let [only] = ours[..] else {
            return Err(format(
                "it does not hold exactly one image for this machine",
            ));
        };
        described = read(&index.blob(&only.digest)?)?;
    }
    Err(format("its indexes do not end"))
}

fn is_ours(descriptor: &Descriptor) -> bool {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    descriptor
        .platform
        .as_ref()
        .is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture)
}

fn image_of(
    index: &Index<'_>,
    configuration: &[u8],
    layers: &[String],
) -> Result<Contents, UnpackError> {
    let DiffIds { diff_ids } = read::<Configuration>(configuration)?.rootfs;
    if diff_ids.len() != layers.len() || layers.len() > MAX_LAYERS {
        return Err(format("its layers are not those of its configuration"));
    }
    let mut places = Vec::with_capacity(layers.len());
    for (layer, digest) in layers.iter().zip(diff_ids) {
        places.push((index.place(layer)?, digest));
    }
    Ok(Contents::Image {
        digest: digest_of(configuration),
        layers: places,
    })
}

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

pub(super) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, UnpackError> {
    serde_json::from_slice(bytes).map_err(|error| UnpackError::Format(error.to_string()))
}

fn format(what: &str) -> UnpackError {
    UnpackError::Format(what.to_owned())
}

/// Where everything stands in an archive of layers.
struct Index<'file> {
    file: &'file File,
    entries: HashMap<String, Found>,
}

enum Found {
    Data(Place),
    Link(String),
}

impl<'file> Index<'file> {
    /// `None` for an archive with so many entries that it is no archive of layers.
    fn of(file: &'file File, size: u64) -> Result<Option<Self>, UnpackError> {
        let mut archive = Archive::new(Slice::new(file, 0, size));
        let mut entries = HashMap::new();
        let unreadable = |error| match size {
            0 => format("it is empty"),
            _ => UnpackError::Read(error),
        };
        for entry in archive.entries().map_err(unreadable)?.raw(true) {
            let entry = entry.map_err(unreadable)?;
            if entries.len() == MAX_ARCHIVE_ENTRIES {
                return Ok(None);
            }
            let Some(name) = normal(&String::from_utf8_lossy(&entry.path_bytes())) else {
                continue;
            };
            let kind = entry.header().entry_type();
            let found = if kind.is_file() || kind.is_contiguous() {
                Found::Data(Place {
                    at: entry.raw_file_position(),
                    size: entry.size(),
                })
            } else if kind.is_symlink() {
                let to = entry.link_name_bytes().unwrap_or_default();
                let beside = Path::new(&name).parent().unwrap_or(Path::new(""));
                let to = beside.join(String::from_utf8_lossy(&to).as_ref());
                let Some(to) = normal(&to.to_string_lossy()) else {
                    continue;
                };
                Found::Link(to)
            } else {
                continue;
            };
            entries.insert(name, found);
        }
        Ok(Some(Index { file, entries }))
    }

    fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    fn place(&self, name: &str) -> Result<Place, UnpackError> {
        let mut name = name.to_owned();
        for _ in 0..MAX_LINKS {
            match self.entries.get(&name) {
                Some(Found::Data(place)) => return Ok(*place),
                Some(Found::Link(to)) => name.clone_from(to),
                None => break,
            }
        }
        Err(format(&format!("it lacks {name}")))
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, UnpackError> {
        let place = self.place(name)?;
        if place.size > MAX_DESCRIPTION_BYTES {
            return Err(format(&format!("its {name} is too long")));
        }
        let mut bytes = Vec::new();
        Slice::new(self.file, place.at, place.size)
            .read_to_end(&mut bytes)
            .map_err(UnpackError::Read)?;
        Ok(bytes)
    }

    /// A description of an OCI layout, which is what its name says.
    fn blob(&self, digest: &str) -> Result<Vec<u8>, UnpackError> {
        let bytes = self.bytes(&blob(digest))?;
        expect("a description", &digest_of(&bytes), digest)?;
        Ok(bytes)
    }
}

/// The path without `.` and `..`, as text; `None` when it leads out.
fn normal(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => drop(parts.pop()?),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Some(parts.join("/"))
}

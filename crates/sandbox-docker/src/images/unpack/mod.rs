//! `image unpack`: an image's files as a directory, so that the embedded runtime can show them.
//!
//! What arrives is not trusted. It is measured first, layer by layer, and compared with what its configuration says of it;
//! then written into a fresh directory that nobody else can enter yet, every path resolved by the kernel as if that
//! directory were the whole machine. All belongs to whoever unpacks; no set-id bits, no devices, no extended attributes,
//! nothing that others may write. The directory gets its name when it is whole.
//!
//! Reading order: [`unpack_file`], `archive` (what an archive holds), `layer` (how one is applied), `root` (writing).

mod archive;
mod layer;
mod root;

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use model::Reason;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tokio_util::sync::CancellationToken;

use self::{
    archive::{Contents, Slice, is_gzip},
    layer::Budget,
    root::Root,
};
use super::{ImageError, Images};

/// Most that an image may unpack to, bytes, its archive within.
const MAX_BYTES: u64 = 32 << 30;

/// What was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Where it stands.
    pub directory: PathBuf,
    /// Digest of the image's configuration, which names all its layers; of the archive where there is none.
    pub digest: String,
    /// It stood there already; nothing was written.
    pub was_there: bool,
    /// Files, directories and links that were written.
    pub entries: u64,
    /// Devices, pipes and sockets, which were left out.
    pub left_out: u64,
    /// Bytes of files.
    pub size_bytes: u64,
}

/// Why it was not unpacked. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive.
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    /// It is none.
    #[error("the archive is not understood: {0}")]
    Format(String),
    /// A path that leads out of it.
    #[error("the archive holds the path {0:?}, which leads out of it")]
    Escape(String),
    /// It is not what its configuration says.
    #[error("{what} is not what the image's configuration says: {found} instead of {expected}")]
    Digest {
        /// What.
        what: String,
        /// Its digest.
        found: String,
        /// The digest in the configuration.
        expected: String,
    },
    /// Too much.
    #[error("the archive holds more than {0}")]
    TooLarge(String),
    /// Writing.
    #[error("cannot {step} {path:?}")]
    Write {
        /// What, as a phrase after "cannot".
        step: &'static str,
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something is there.
    #[error("{path} exists", path = .0.display())]
    Exists(PathBuf),
    /// No session could run a command in it.
    #[error("it holds no /bin/sh, so no session can run a command in it")]
    NoShell,
    /// The caller wanted no more.
    #[error("interrupted; nothing is left of it")]
    Interrupted,
}

impl UnpackError {
    pub(super) fn reason(&self) -> Reason {
        match self {
            UnpackError::Exists(_) => Reason::InvalidArgument,
            UnpackError::TooLarge(_) => Reason::TooLarge,
            UnpackError::Read(_)
            | UnpackError::Format(_)
            | UnpackError::Escape(_)
            | UnpackError::Digest { .. }
            | UnpackError::Write { .. }
            | UnpackError::NoShell
            | UnpackError::Interrupted => Reason::ImageNotUnpacked,
        }
    }

    pub(super) fn hint(&self) -> &'static str {
        match self {
            UnpackError::Read(_) | UnpackError::Format(_) => {
                "name an image that the engine has, what `docker save` wrote, an OCI layout as a tar, or a tar of a root file \
                 system"
            }
            UnpackError::Escape(_) | UnpackError::Digest { .. } => {
                "do not use this archive; get it again from where you trust"
            }
            UnpackError::TooLarge(_) => "use a smaller image",
            UnpackError::Write { .. } => {
                "see that there is room, and that the directory can be written"
            }
            UnpackError::Exists(_) => "name a directory that does not exist yet",
            UnpackError::NoShell => "use an image with a POSIX shell",
            UnpackError::Interrupted => "start it again when it suits",
        }
    }
}

impl Images {
    /// Fetches an image with all its layers into an unnamed file on the file system of `beside`.
    ///
    /// # Errors
    /// When there is no such image, or a session may not be made of it.
    pub async fn fetch(
        &self,
        name: &str,
        beside: &Path,
        stop: &CancellationToken,
    ) -> Result<File, ImageError> {
        let image = self.find(name).await?;
        let image = image.ok_or_else(|| ImageError::Missing(name.to_owned()))?;
        let id = self.rules.admit(name, &image, jiff::Timestamp::now())?;
        let mut file = tempfile::tempfile_in(beside).map_err(|source| ImageError::Step {
            step: "make a file for the image's layers",
            source,
        })?;
        let mut room = MAX_BYTES;
        let saving = self.engine.save(&id, |part| {
            room = room
                .checked_sub(part.len() as u64)
                .ok_or(io::ErrorKind::FileTooLarge)?;
            file.write_all(part)
        });
        tokio::select! {
            saved = saving => saved?,
            () = stop.cancelled() => return Err(ImageError::Interrupted),
        }
        Ok(file)
    }
}

/// Unpacks an archive: what `docker save` writes, an OCI layout as a tar, or a root file system; also compressed by gzip.
/// Without a `directory` it goes below `place`, under its digest. May block for long.
///
/// # Errors
/// See [`UnpackError`].
pub fn unpack_file(
    archive: File,
    directory: Option<&Path>,
    place: &Path,
    stop: &CancellationToken,
) -> Result<Unpacked, UnpackError> {
    let parent = match directory {
        Some(directory) if fs::symlink_metadata(directory).is_ok() => {
            return Err(UnpackError::Exists(directory.to_owned()));
        }
        Some(directory) => match directory.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Err(UnpackError::Exists(directory.to_owned())),
        },
        None => place,
    };
    let archive = plain(archive, parent)?;
    let contents = archive::contents(&archive)?;
    let mut budget = Budget::new(stop);
    let digest = contents.measure(&archive, &mut budget)?;
    let directory = match directory {
        Some(directory) => directory.to_owned(),
        None => place.join(digest.replace(':', "-")),
    };
    let mut unpacked = Unpacked {
        directory,
        digest,
        was_there: true,
        entries: 0,
        left_out: 0,
        size_bytes: 0,
    };
    if !unpacked.directory.exists() {
        unpacked.was_there = false;
        write_all(&archive, &contents, &mut budget, parent, &mut unpacked)?;
    }
    Ok(unpacked)
}

fn write_all(
    archive: &File,
    contents: &Contents,
    budget: &mut Budget<'_>,
    parent: &Path,
    unpacked: &mut Unpacked,
) -> Result<(), UnpackError> {
    let failed = |step, path: &Path| {
        let path = path.display().to_string();
        move |source| UnpackError::Write { step, path, source }
    };
    // 0700 until it is whole; gone when anything fails.
    let unfinished = tempfile::Builder::new()
        .prefix(".unfinished-")
        .tempdir_in(parent)
        .map_err(failed("make a directory in", parent))?;
    let root = Root::open(unfinished.path())?;
    for slice in contents.layers(archive) {
        layer::apply(&slice, &root, budget, unpacked)?;
    }
    if !root.has_shell() {
        return Err(UnpackError::NoShell);
    }
    fs::set_permissions(unfinished.path(), Permissions::from_mode(0o755))
        .map_err(failed("open up", unfinished.path()))?;
    let to = &unpacked.directory;
    match renameat_with(CWD, unfinished.path(), CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => {
            // It is no temporary directory any more.
            let _ = unfinished.keep();
            Ok(())
        }
        Err(rustix::io::Errno::EXIST) => Err(UnpackError::Exists(to.clone())),
        Err(error) => Err(failed("give its name to", to)(error.into())),
    }
}

/// The archive itself, or what it is when it is not compressed any more.
fn plain(archive: File, beside: &Path) -> Result<File, UnpackError> {
    let mut magic = [0; 4];
    // A shorter one is no archive, and found out later.
    let _ = archive.read_at(&mut magic, 0);
    if !is_gzip(&magic) {
        return Ok(archive);
    }
    let size = archive.metadata().map_err(UnpackError::Read)?.len();
    let mut inflated = tempfile::tempfile_in(beside).map_err(|source| UnpackError::Write {
        step: "make a file in",
        path: beside.display().to_string(),
        source,
    })?;
    let slice = Slice::new(&archive, 0, size);
    let mut limited = io::Read::take(MultiGzDecoder::new(slice), MAX_BYTES + 1);
    let copied = io::copy(&mut limited, &mut inflated).map_err(UnpackError::Read)?;
    if copied > MAX_BYTES {
        return Err(too_many_bytes());
    }
    Ok(inflated)
}

fn too_many_bytes() -> UnpackError {
    UnpackError::TooLarge(format!("{} GiB", MAX_BYTES >> 30))
}

#[cfg(test)]
mod tests;

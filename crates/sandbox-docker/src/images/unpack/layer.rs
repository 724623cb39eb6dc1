//! One layer: measured, then its deletions, then its entries. Deletions come first wherever they stand in it, since they
//! are about lower layers alone (OCI image specification, "Whiteouts").

use std::{
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tar::{Archive, Entry};
use tokio_util::sync::CancellationToken;

use super::{MAX_BYTES, UnpackError, Unpacked, archive::Slice, root::Root, too_many_bytes};

/// Most entries of all layers together: a machine with everything installed has half a million files.
const MAX_ENTRIES: u64 = 2_000_000;
/// Longest name or extended header, bytes. Paths end at 4,096.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;
/// A file with this before its name says that lower layers' file of that name is gone.
const WHITEOUT: &[u8] = b".wh.";
/// A file of this name says that all that lower layers have in its directory is gone.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other files that begin so are an old storage driver's own.
const INTERNAL: &[u8] = b".wh..wh.";

/// What may still be unpacked, and whether anybody still wants it.
pub(super) struct Budget<'stop> {
    entries: u64,
    measured: u64,
    written: u64,
    stop: &'stop CancellationToken,
}

impl<'stop> Budget<'stop> {
    pub(super) fn new(stop: &'stop CancellationToken) -> Self {
        Budget {
            entries: MAX_ENTRIES,
            measured: MAX_BYTES,
            written: MAX_BYTES,
            stop,
        }
    }

    fn entry(&mut self, size: u64) -> Result<(), UnpackError> {
        self.entries = self
            .entries
            .checked_sub(1)
            .ok_or_else(|| UnpackError::TooLarge(format!("{MAX_ENTRIES} files")))?;
        self.measured = self.measured.checked_sub(size).ok_or_else(too_many_bytes)?;
        self.goes_on()
    }

    fn goes_on(&self) -> Result<(), UnpackError> {
        if self.stop.is_cancelled() {
            return Err(UnpackError::Interrupted);
        }
        Ok(())
    }
}

/// The digest of what a layer is when it is not compressed.
///
/// # Errors
/// When it holds too much, or names that would take too much memory to read.
pub(super) fn measure(slice: &Slice<'_>, budget: &mut Budget<'_>) -> Result<String, UnpackError> {
    let mut reader = Hashing {
        inner: slice.inflated()?.take(MAX_BYTES + 1),
        hash: Sha256::new(),
    };
    let mut archive = Archive::new(&mut reader);
    for entry in archive.entries().map_err(UnpackError::Read)?.raw(true) {
        let entry = entry.map_err(UnpackError::Read)?;
        let kind = entry.header().entry_type();
        let is_extension = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        if is_extension && entry.size() > MAX_EXTENSION_BYTES {
            return Err(UnpackError::TooLarge(format!(
                "{MAX_EXTENSION_BYTES} bytes in one name"
            )));
        }
        budget.entry(entry.size())?;
    }
    io::copy(&mut reader, &mut io::sink()).map_err(UnpackError::Read)?;
    if reader.inner.limit() == 0 {
        return Err(too_many_bytes());
    }
    Ok(format!("sha256:{}", hex::encode(reader.hash.finalize())))
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// Applies a layer that was measured.
///
/// # Errors
/// See [`UnpackError`].
pub(super) fn apply(
    slice: &Slice<'_>,
    root: &Root,
    budget: &mut Budget<'_>,
    unpacked: &mut Unpacked,
) -> Result<(), UnpackError> {
    each_entry(slice, |_, path| {
        budget.goes_on()?;
        match whiteout(&path)? {
            Whiteout::None | Whiteout::Internal => Ok(()),
            Whiteout::Of(path) => root.remove(&path),
            Whiteout::AllOf(directory) => root.empty(&directory),
        }
    })?;
    each_entry(slice, |entry, path| {
        budget.goes_on()?;
        if !matches!(whiteout(&path)?, Whiteout::None) {
            return Ok(());
        }
        write(entry, &path, root, budget, unpacked)
    })
}

fn each_entry(
    slice: &Slice<'_>,
    mut take: impl FnMut(&mut Entry<'_, Box<dyn Read + '_>>, PathBuf) -> Result<(), UnpackError>,
) -> Result<(), UnpackError> {
    let mut archive = Archive::new(slice.inflated()?);
    for entry in archive.entries().map_err(UnpackError::Read)? {
        let mut entry = entry.map_err(UnpackError::Read)?;
        let path = inner_path(&entry.path_bytes())?;
        take(&mut entry, path)?;
    }
    Ok(())
}

/// The path below the root. One that begins with `/` means the image's root, too.
fn inner_path(bytes: &[u8]) -> Result<PathBuf, UnpackError> {
    let path = Path::new(std::ffi::OsStr::from_bytes(bytes));
    let mut inner = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => inner.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(UnpackError::Escape(path.display().to_string()));
            }
        }
    }
    Ok(inner)
}

#[derive(Debug, PartialEq, Eq)]
enum Whiteout {
    None,
    Internal,
    Of(PathBuf),
    AllOf(PathBuf),
}

fn whiteout(path: &Path) -> Result<Whiteout, UnpackError> {
    let name = path.file_name().map_or(&b""[..], OsStrExt::as_bytes);
    let parent = path.parent().unwrap_or(Path::new(""));
    if name == OPAQUE {
        return Ok(Whiteout::AllOf(parent.to_owned()));
    }
    if name.starts_with(INTERNAL) {
        return Ok(Whiteout::Internal);
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(Whiteout::None),
        Some(b"" | b"." | b"..") => Err(UnpackError::Escape(path.display().to_string())),
        Some(of) => Ok(Whiteout::Of(parent.join(std::ffi::OsStr::from_bytes(of)))),
    }
}

fn write(
    entry: &mut Entry<'_, Box<dyn Read + '_>>,
    path: &Path,
    root: &Root,
    budget: &mut Budget<'_>,
    unpacked: &mut Unpacked,
) -> Result<(), UnpackError> {
    let kind = entry.header().entry_type();
    if path.as_os_str().is_empty() {
        // The root itself, which is there.
        return Ok(());
    }
    let mode = entry.header().mode().map_err(UnpackError::Read)?;
    let modified = entry.header().mtime().unwrap_or_default();
    if kind.is_dir() {
        root.directory(path, mode)?;
    } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
        let mut limited = entry.take(budget.written);
        let written = root.file(path, mode, modified, &mut limited)?;
        budget.written -= written;
        if budget.written == 0 {
            return Err(too_many_bytes());
        }
        unpacked.size_bytes += written;
    } else if kind.is_symlink() {
        let target = entry.link_name_bytes().unwrap_or_default();
        root.link(path, std::ffi::OsStr::from_bytes(&target))?;
    } else if kind.is_hard_link() {
        let target = entry.link_name_bytes().unwrap_or_default();
        root.hard_link(path, &inner_path(&target)?)?;
    } else {
        // Devices, pipes, and what tar alone knows.
        unpacked.left_out += 1;
        return Ok(());
    }
    unpacked.entries += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiteouts_are_told_from_files() {
        let of = |path: &str| whiteout(Path::new(path));
        assert_eq!(of("a/b").unwrap(), Whiteout::None);
        assert_eq!(of("a/.wh.b").unwrap(), Whiteout::Of("a/b".into()));
        assert_eq!(of(".wh.b").unwrap(), Whiteout::Of("b".into()));
        assert_eq!(of("a/.wh..wh..opq").unwrap(), Whiteout::AllOf("a".into()));
        assert_eq!(of("a/.wh..wh.plnk").unwrap(), Whiteout::Internal);
        for path in ["a/.wh.", "a/.wh..", "a/.wh..."] {
            assert!(matches!(of(path), Err(UnpackError::Escape(_))), "{path}");
        }
    }

    #[test]
    fn paths_stay_below_the_root() {
        for (path, inner) in [
            ("./a//b/", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            ("./", ""),
        ] {
            assert_eq!(inner_path(path.as_bytes()).unwrap(), Path::new(inner));
        }
        for path in ["..", "a/../../b", "/../x"] {
            assert!(inner_path(path.as_bytes()).is_err(), "{path}");
        }
    }
}

//! Opening below a directory without following a link or ever leaving it, with or without openat2(2).

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, fstat, openat, openat2},
    io::{self, Errno},
};

/// No link is followed, no magic link entered, the starting directory never left.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// Opens a path below a directory. It holds no `..`; an empty one means the directory itself.
///
/// # Errors
/// `ELOOP` or `ENOTDIR` for a link, and as openat(2).
pub fn open(directory: impl AsFd, path: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let path = if path.is_empty() { b"." } else { path };
    match openat2(&directory, path, flags, mode, BENEATH) {
        // EPERM: a filter that is older than the call. Whoever is refused for another reason is refused again.
        Err(Errno::NOSYS | Errno::PERM) => step_by_step(directory, path, flags, mode),
        opened => opened,
    }
}

/// Opens a directory below another, on the same mount.
///
/// # Errors
/// `EXDEV` for another mount, and as [`open`].
pub fn open_on_same_mount(directory: impl AsFd, name: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let resolve = BENEATH | ResolveFlags::NO_XDEV;
    match openat2(&directory, name, flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => {
            let opened = step_by_step(&directory, name, flags, Mode::empty())?;
            // Kernels without the call give each mount a device of its own.
            let same = fstat(&opened)?.st_dev == fstat(&directory)?.st_dev;
            if same { Ok(opened) } else { Err(Errno::XDEV) }
        }
        opened => opened,
    }
}

fn step_by_step(
    directory: impl AsFd,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    let mut parts = path
        .split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .peekable();
    let on_the_way = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        if part == b".." {
            return Err(Errno::XDEV);
        }
        let last = parts.peek().is_none();
        let (flags, mode) = if last {
            (flags | OFlags::NOFOLLOW, mode)
        } else {
            (on_the_way, Mode::empty())
        };
        let below = match &here {
            Some(here) => openat(here, part, flags, mode),
            None => openat(&directory, part, flags, mode),
        }?;
        if last {
            return Ok(below);
        }
        here = Some(below);
    }
    openat(&directory, ".", flags, mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn both_ways_open_the_same_and_follow_no_link() {
        let ground = tempfile::tempdir().unwrap();
        fs::create_dir_all(ground.path().join("a/b")).unwrap();
        fs::write(ground.path().join("a/b/file"), "here").unwrap();
        symlink("b", ground.path().join("a/link")).unwrap();
        symlink("b/file", ground.path().join("a/link-to-file")).unwrap();
        symlink("/etc", ground.path().join("out")).unwrap();
        let root = openat(
            CWD,
            ground.path(),
            OFlags::PATH | OFlags::DIRECTORY,
            Mode::empty(),
        )
        .unwrap();
        let read = OFlags::RDONLY | OFlags::CLOEXEC;
        for path in ["a/b/file", "./a/b/file", "a", "", ".", "a//b"] {
            let one = open(&root, path.as_bytes(), read, Mode::empty()).unwrap();
            let other = step_by_step(&root, path.as_bytes(), read, Mode::empty()).unwrap();
            let inode = |file: &OwnedFd| fstat(file).unwrap().st_ino;
            assert_eq!(inode(&one), inode(&other), "{path}");
        }
        for path in [
            "a/link/file",
            "a/link-to-file",
            "out/passwd",
            "out",
            "a/../a",
            "..",
        ] {
            for opened in [
                open(&root, path.as_bytes(), read, Mode::empty()),
                step_by_step(&root, path.as_bytes(), read, Mode::empty()),
            ] {
                // Staying below by `..` is allowed by the one and refused by the other: no caller writes it.
                if path != "a/../a" {
                    assert!(opened.is_err(), "{path}");
                }
            }
        }
    }
}

//! Where the server's files stand, and how their directories are made private.

use std::{
    fs::DirBuilder,
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// Longest path of the socket, bytes. The kernel's `sockaddr_un` holds 108 with the terminating null byte (unix(7));
/// the rest is kept free.
const SOCKET_PATH_BYTES: usize = 100;
/// How much of a digest names the state directory in a shared directory, bytes. Enough that no two of one user's state
/// directories meet.
const DIGEST_BYTES: usize = 8;
/// Access for the owner alone.
const PRIVATE_MODE: u32 = 0o700;

/// The state directory and what stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The state directory; private to its user.
    pub state_dir: PathBuf,
    runtime_dir: Option<PathBuf>,
    uid: u32,
}

impl Paths {
    /// The paths of that state directory. `runtime_dir` is `$XDG_RUNTIME_DIR`.
    pub const fn new(state_dir: PathBuf, runtime_dir: Option<PathBuf>, uid: u32) -> Self {
        Paths {
            state_dir,
            runtime_dir,
            uid,
        }
    }

    /// Held by the elected server while it runs; says which process that is and where it listens.
    pub fn lock_file(&self) -> PathBuf {
        self.state_dir.join("server.lock")
    }

    /// Held by the one front that is just starting a server.
    pub fn start_lock_file(&self) -> PathBuf {
        self.state_dir.join("start.lock")
    }

    /// The key of the hashes under which callers stand in the audit log.
    pub fn audit_identity_key(&self) -> PathBuf {
        self.state_dir.join("audit-identity.key")
    }

    /// The pepper of the keys of remote callers.
    pub fn pepper(&self) -> PathBuf {
        self.state_dir.join("keys.pepper")
    }

    /// The log of a server that was started on demand.
    pub fn log_file(&self) -> PathBuf {
        self.state_dir.join("server.log")
    }

    /// `$XDG_RUNTIME_DIR`.
    pub fn runtime_dir(&self) -> Option<&Path> {
        self.runtime_dir.as_deref()
    }

    /// The user whose server this is.
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// Where the socket may stand, best first; all of them short enough. The server takes the first whose directory it
    /// can make private, and writes into the lock file which one that was, so that a client with another
    /// `XDG_RUNTIME_DIR` finds it too.
    pub fn socket_candidates(&self) -> Vec<PathBuf> {
        let digest = Sha256::digest(self.state_dir.as_os_str().as_bytes());
        let name = format!("{}.sock", hex::encode(&digest[..DIGEST_BYTES]));
        let runtime = self
            .runtime_dir
            .as_ref()
            .map(|runtime| runtime.join("claude-code-mcp").join(&name));
        let user_runtime =
            PathBuf::from(format!("/run/user/{}/claude-code-mcp", self.uid)).join(&name);
        let temporary = PathBuf::from(format!("/tmp/claude-code-mcp-{}", self.uid)).join(&name);
        runtime
            .into_iter()
            .chain([self.state_dir.join("server.sock"), user_runtime, temporary])
            .filter(|path| path.as_os_str().len() <= SOCKET_PATH_BYTES)
            .collect()
    }
}

/// A directory that is not private to this user.
#[derive(Debug, thiserror::Error)]
pub enum PathsError {
    /// It cannot be made or looked at.
    #[error("cannot make the directory {path}", path = path.display())]
    Make {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else could change what stands in it.
    #[error("the directory {path} {why}", path = path.display())]
    NotPrivate {
        /// Which.
        path: PathBuf,
        /// Why, as a phrase after the directory.
        why: &'static str,
    },
}

/// Makes the directory with mode 0700, or checks the one that is there. Missing parents are made likewise.
///
/// # Errors
/// When it cannot be made, or belongs to somebody else, is a link, or is open to others.
pub fn make_private_directory(path: &Path, uid: u32) -> Result<(), PathsError> {
    let made = DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_MODE)
        .create(path);
    made.map_err(|source| PathsError::Make {
        path: path.to_path_buf(),
        source,
    })?;
    check_private_directory(path, uid)
}

/// See [`make_private_directory`]; makes nothing.
///
/// # Errors
/// When it is not there, or not private.
pub fn check_private_directory(path: &Path, uid: u32) -> Result<(), PathsError> {
    let refused = |why| PathsError::NotPrivate {
        path: path.to_path_buf(),
        why,
    };
    let metadata = std::fs::symlink_metadata(path).map_err(|source| PathsError::Make {
        path: path.to_path_buf(),
        source,
    })?;
    if !metadata.is_dir() {
        return Err(refused("is a link or no directory at all"));
    }
    if metadata.uid() != uid {
        return Err(refused("belongs to another user"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(refused("is open to other users; close it with chmod 700"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_socket_path_always_fits_the_kernels_limit() {
        let deep = PathBuf::from(format!("/{}", "d".repeat(200)));
        let short = PathBuf::from("/home/u/.local/state/claude-code-mcp");
        let cases = [
            (short.clone(), None),
            (short, Some(deep.clone())),
            (deep.clone(), Some(deep)),
        ];
        for (state_dir, runtime) in cases {
            let candidates = Paths::new(state_dir.clone(), runtime, 1000).socket_candidates();
            assert!(
                candidates
                    .iter()
                    .all(|path| path.as_os_str().len() <= SOCKET_PATH_BYTES)
            );
            let in_state = candidates.contains(&state_dir.join("server.sock"));
            assert_eq!(in_state, state_dir.as_os_str().len() < 90);
            assert!(
                candidates
                    .last()
                    .is_some_and(|path| path.starts_with("/tmp/claude-code-mcp-1000"))
            );
        }
    }

    #[test]
    fn two_state_directories_never_share_a_socket() {
        let runtime = Some(PathBuf::from("/run/user/1000"));
        let one = Paths::new("/a".into(), runtime.clone(), 1000).socket_candidates();
        let other = Paths::new("/b".into(), runtime, 1000).socket_candidates();
        assert!(one[0].starts_with("/run/user/1000/claude-code-mcp"));
        assert!(one.iter().all(|path| !other.contains(path)));
    }

    #[test]
    fn a_directory_that_is_open_to_others_or_a_link_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let private = scratch.path().join("new/inner");
        make_private_directory(&private, uid).unwrap();
        assert_eq!(std::fs::metadata(&private).unwrap().mode() & 0o777, 0o700);

        let open = scratch.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(
            make_private_directory(&open, uid),
            Err(PathsError::NotPrivate { .. })
        ));

        let link = scratch.path().join("link");
        std::os::unix::fs::symlink(&private, &link).unwrap();
        assert!(matches!(
            make_private_directory(&link, uid),
            Err(PathsError::NotPrivate { .. })
        ));
        assert!(matches!(
            make_private_directory(&private, uid + 1),
            Err(PathsError::NotPrivate { .. })
        ));
    }
}

//! What the application decides about the backend.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use model::OwnerId;
use sandbox::BackendError;

use crate::images::ImageRules;

/// Where an engine of the whole machine listens.
const ROOTFUL_SOCKET: &str = "/var/run/docker.sock";
/// Name of a user's own engine's socket in the user's runtime directory.
const ROOTLESS_SOCKET_NAME: &str = "docker.sock";

/// How the backend is set up. The same for its whole life.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// The server's state directory, mode 0700. The backend owns `docker/` in it and nothing else.
    pub state_directory: PathBuf,
    /// The installation: part of every object's name, and a label of every container.
    pub owner: OwnerId,
    /// `DOCKER_HOST`, if set: `unix://` and an absolute path.
    pub docker_host: Option<String>,
    /// `XDG_RUNTIME_DIR`, if set: a user's own engine listens there, and is preferred. One of another user is not used.
    pub runtime_directory: Option<PathBuf>,
    /// Frames travel over the standard streams of every container, also where the host's socket could be mounted.
    pub attached_streams: bool,
    /// Which images sessions may be made of.
    pub image_rules: ImageRules,
}

impl DockerConfig {
    /// The usual setup: the engine of the whole machine.
    pub fn new(state_directory: PathBuf, owner: OwnerId) -> Self {
        DockerConfig {
            state_directory,
            owner,
            docker_host: None,
            runtime_directory: None,
            attached_streams: false,
            image_rules: ImageRules::default(),
        }
    }

    /// Whether anything stands where the engine's socket is looked for; nothing is asked.
    pub fn socket_exists(&self) -> bool {
        self.socket().is_ok_and(|socket| socket.exists())
    }

    /// The engine's socket.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] for an engine that is not reached by a unix socket.
    pub(crate) fn socket(&self) -> Result<PathBuf, BackendError> {
        if let Some(host) = self.docker_host.as_deref().filter(|host| !host.is_empty()) {
            let path = host.strip_prefix("unix://").map(Path::new);
            return match path.filter(|path| path.is_absolute()) {
                Some(path) => Ok(path.to_owned()),
                None => Err(BackendError::Unsupported(format!(
                    "the engine at DOCKER_HOST={host}: only unix:// and an absolute path, since projects are mounted"
                ))),
            };
        }
        let own = self
            .runtime_directory
            .as_ref()
            .map(|directory| directory.join(ROOTLESS_SOCKET_NAME))
            .filter(|socket| is_own(socket));
        Ok(own.unwrap_or_else(|| PathBuf::from(ROOTFUL_SOCKET)))
    }
}

/// Whoever made the socket decides what is at its other end, and is told where projects are.
fn is_own(socket: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(socket).is_ok_and(|found| found.uid() == own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> DockerConfig {
        DockerConfig::new("/nowhere".into(), OwnerId::from_bytes([1; 8]))
    }

    #[test]
    fn the_named_engine_comes_first_then_the_users_own_then_the_machines() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config();
        assert_eq!(config.socket().unwrap(), Path::new(ROOTFUL_SOCKET));
        config.runtime_directory = Some(directory.path().to_owned());
        assert_eq!(
            config.socket().unwrap(),
            Path::new(ROOTFUL_SOCKET),
            "no engine there"
        );
        let own = directory.path().join("docker.sock");
        std::fs::write(&own, "").unwrap();
        assert_eq!(config.socket().unwrap(), own);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&own, Some(1234), None).unwrap();
            let found = config.socket().unwrap();
            assert_eq!(found, Path::new(ROOTFUL_SOCKET), "another user's engine");
        }
        config.docker_host = Some("unix:///run/other.sock".to_owned());
        assert_eq!(config.socket().unwrap(), Path::new("/run/other.sock"));
    }

    #[test]
    fn an_engine_elsewhere_is_refused() {
        for host in [
            "tcp://10.0.0.1:2376",
            "ssh://me@there",
            "unix://relative",
            "/var/run/docker.sock",
        ] {
            let mut config = config();
            config.docker_host = Some(host.to_owned());
            assert!(
                matches!(config.socket(), Err(BackendError::Unsupported(_))),
                "{host}"
            );
        }
    }
}

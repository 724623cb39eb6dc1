//! What the application decides about the backend.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use model::OwnerId;
use sandbox::BackendError;

use crate::{
    address::{Address, Tcp},
    images::ImageRules,
};

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
    /// `DOCKER_HOST`, if set: the one engine that is asked. Without it engines are looked for.
    pub docker_host: Option<String>,
    /// How an engine at `tcp://` is reached.
    pub tcp: Tcp,
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
            tcp: Tcp::default(),
            runtime_directory: None,
            attached_streams: false,
            image_rules: ImageRules::default(),
        }
    }

    /// The same for each engine that may be meant, best first: the one that is configured, else a user's own before the
    /// machine's. Nothing is asked; what does not exist is left out unless it is the last.
    pub fn candidates(&self) -> Vec<DockerConfig> {
        if self.configured().is_some() {
            return vec![self.clone()];
        }
        let own = self.own_socket();
        let sockets = own.into_iter().chain([PathBuf::from(ROOTFUL_SOCKET)]);
        sockets
            .map(|socket| DockerConfig {
                docker_host: Some(format!("unix://{}", socket.display())),
                ..self.clone()
            })
            .collect()
    }

    /// Whether an engine is configured, or anything stands where its socket is looked for; nothing is asked.
    pub fn may_exist(&self) -> bool {
        match self.address() {
            Ok(Address::Unix(socket)) => socket.exists(),
            Ok(Address::Tls { .. } | Address::Plain { .. }) | Err(_) => true,
        }
    }

    /// Where the engine is, for people.
    pub fn engine_name(&self) -> String {
        self.address().map_or_else(
            |_| self.docker_host.clone().unwrap_or_default(),
            |address| address.to_string(),
        )
    }

    /// Where the engine is: the first of all that may be meant.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] for an address that is not spoken to, with the reason and what to do.
    pub(crate) fn address(&self) -> Result<Address, BackendError> {
        match self.configured() {
            Some(host) => Address::parse(host, &self.tcp),
            None => Ok(Address::Unix(
                self.own_socket()
                    .unwrap_or_else(|| PathBuf::from(ROOTFUL_SOCKET)),
            )),
        }
    }

    fn configured(&self) -> Option<&str> {
        self.docker_host.as_deref().filter(|host| !host.is_empty())
    }

    fn own_socket(&self) -> Option<PathBuf> {
        let socket = self.runtime_directory.as_ref()?.join(ROOTLESS_SOCKET_NAME);
        is_own(&socket).then_some(socket)
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

    fn names(config: &DockerConfig) -> Vec<String> {
        let candidates = config.candidates();
        candidates.iter().map(DockerConfig::engine_name).collect()
    }

    #[test]
    fn the_named_engine_is_the_only_one_and_the_users_own_comes_before_the_machines() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config();
        assert_eq!(names(&config), [ROOTFUL_SOCKET]);
        config.runtime_directory = Some(directory.path().to_owned());
        assert_eq!(names(&config), [ROOTFUL_SOCKET], "no engine there");
        let own = directory.path().join("docker.sock");
        std::fs::write(&own, "").unwrap();
        assert_eq!(names(&config), [own.to_str().unwrap(), ROOTFUL_SOCKET]);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&own, Some(1234), None).unwrap();
            assert_eq!(names(&config), [ROOTFUL_SOCKET], "another user's engine");
        }
        config.docker_host = Some(String::new());
        assert_eq!(names(&config), [ROOTFUL_SOCKET], "as good as none");
        config.docker_host = Some("unix:///run/other.sock".to_owned());
        assert_eq!(names(&config), ["/run/other.sock"]);
    }

    #[test]
    fn what_cannot_be_spoken_to_is_refused_when_it_is_opened_and_not_passed_over() {
        let mut config = config();
        config.docker_host = Some("ssh://me@there".to_owned());
        assert_eq!(names(&config), ["ssh://me@there"]);
        assert!(config.may_exist());
        let refused = config.address().unwrap_err();
        assert!(
            matches!(refused, BackendError::Unavailable { .. }),
            "{refused:?}"
        );
    }
}

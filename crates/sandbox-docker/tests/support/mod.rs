//! What the tests share: an image of the test's own, a filter in front of the engine, a backend with a state directory of
//! its own, and a census.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(unused_imports, reason = "each test program uses its part")]

mod base;
#[path = "../../../../tests/support/certificates.rs"]
mod certificates;
mod filter;
#[path = "../../../../tests/support/gvisor.rs"]
mod gvisor;
mod image;
#[path = "../../../../tests/support/inside.rs"]
mod inside;
#[path = "../../../../tests/support/skip.rs"]
mod skip;
#[path = "../../../../tests/support/world.rs"]
pub mod world;

pub use base::make_base;
pub use certificates::{Authority, For};
pub use filter::{Fault, Filter};
pub use gvisor::Gvisor;
pub use image::{
    ENGINE_SOCKET, HOSTILE_CHANGES, IMAGE, engine, engine_at, make_image, make_image_at,
    without_engine,
};
pub use inside::{
    Inside, host_directory, only_work_is_left, processes_that_see, protect_project, protected,
    protected_paths_hold, small_spec,
};
pub use skip::skip;
pub use world::OwnEngine;

use std::{collections::HashMap, fs, os::unix::fs::PermissionsExt, path::PathBuf};

use bollard::{
    models::ContainerSummary,
    query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder},
};
use model::{Kernel, OwnerId, RootFileSystem, RuntimeClass, SandboxSpec, SessionId};
use sandbox::{Backend, Link};
use sandbox_docker::{Docker, DockerConfig, calls};
use tempfile::TempDir;

/// Where a test plays.
pub enum Scene {
    /// The machine's engine, by the host's socket.
    Usual,
    /// The machine's engine, over the standard streams.
    Attached,
    /// An engine that has gVisor.
    Gvisor(Gvisor),
    /// An engine of the test's own, by its socket.
    Own(OwnEngine),
}

/// A backend with a state directory, a project and a filter of its own.
pub struct Ground {
    pub scene: Scene,
    pub directory: TempDir,
    pub docker: Docker,
    pub owner: OwnerId,
    pub config: DockerConfig,
    pub filter: Filter,
}

impl Ground {
    /// `None`, said loudly, where there is no engine or this is not root.
    pub async fn new(leg: &str) -> Option<Self> {
        Self::at(Scene::Usual, leg).await
    }

    /// The same on an engine that has gVisor, where there is one.
    pub async fn with_gvisor(leg: &str) -> Option<Self> {
        Self::at(Scene::Gvisor(Gvisor::engine(leg)?), leg).await
    }

    pub async fn at(scene: Scene, leg: &str) -> Option<Self> {
        let socket = match &scene {
            Scene::Usual | Scene::Attached => {
                if without_engine(leg).await {
                    return None;
                }
                PathBuf::from(ENGINE_SOCKET)
            }
            Scene::Gvisor(gvisor) => gvisor.socket.clone(),
            Scene::Own(own) => own.socket.clone(),
        };
        make_image_at(&socket, IMAGE, HOSTILE_CHANGES).await;
        let directory = tempfile::Builder::new()
            .prefix("docker-")
            .tempdir_in("/var/tmp")
            .unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
        fs::create_dir(directory.path().join("project")).unwrap();
        let filter = Filter::before(&directory.path().join("engine.sock"), socket, calls::find);
        let mut id = [0; 8];
        id.copy_from_slice(&SessionId::random().unwrap().as_bytes()[..8]);
        let owner = OwnerId::from_bytes(id);
        let mut config = DockerConfig::new(directory.path().join("state"), owner);
        config.docker_host = Some(format!("unix://{}", filter.socket.display()));
        config.attached_streams = matches!(scene, Scene::Attached);
        let docker = Docker::open(config.clone()).unwrap();
        Some(Ground {
            scene,
            directory,
            docker,
            owner,
            config,
            filter,
        })
    }

    pub fn project(&self) -> PathBuf {
        self.directory.path().join("project")
    }

    pub fn spec(&self) -> SandboxSpec {
        let root = RootFileSystem::Image(IMAGE.to_owned());
        let mut spec = small_spec(self.owner, root, &self.project());
        if let Scene::Gvisor(_) = self.scene {
            spec.runtime = Some(gvisor_class("runsc"));
            // Its kernel alone takes some fifty tasks of the host's.
            spec.limits.pids.value = 256;
        }
        spec
    }

    /// The engine itself, past the filter.
    pub fn engine(&self) -> bollard::Docker {
        engine_at(&self.filter.engine)
    }

    /// The same server again, with another way to the engine.
    pub fn reopen(&mut self, change: impl FnOnce(&mut DockerConfig)) {
        change(&mut self.config);
        self.docker = Docker::open(self.config.clone()).unwrap();
    }

    pub async fn start(&self) -> Running<'_> {
        self.start_spec(self.spec()).await
    }

    pub async fn start_spec(&self, spec: SandboxSpec) -> Running<'_> {
        let mut link = self
            .docker
            .create(&spec)
            .await
            .unwrap_or_else(|error| panic!("{error:?}"));
        let inside =
            Inside::greet(link.connections.recv().await.expect("the supervisor dials")).await;
        Running {
            ground: self,
            spec,
            link,
            inside,
        }
    }

    /// Everything of this owner that a census of the machine finds.
    pub async fn census(&self) -> Vec<String> {
        let mut found = Vec::new();
        for place in ["sessions", "trash"] {
            let path = self.directory.path().join("state/docker").join(place);
            let entries = fs::read_dir(path).unwrap();
            found.extend(entries.map(|entry| format!("file {:?}", entry.unwrap().path())));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let name = self.directory.path().to_str().unwrap();
        let ours = mounts.lines().filter(|line| line.contains(name));
        found.extend(ours.map(|line| format!("mount {line}")));
        let containers = containers(&self.engine(), self.owner).await;
        found.extend(
            containers
                .iter()
                .map(|container| format!("container {:?}", container.names)),
        );
        found.extend(
            processes_that_see(&self.directory)
                .into_iter()
                .map(|pid| format!("process {pid}")),
        );
        found
    }

    /// Nothing is left, and the engine was asked nothing that is not on the list.
    pub async fn is_clean(&self) {
        assert_eq!(self.census().await, Vec::<String>::new());
        assert_eq!(self.filter.refused(), Vec::<String>::new());
    }
}

/// All containers with that owner's label, asked of the engine itself.
async fn containers(engine: &bollard::Docker, owner: OwnerId) -> Vec<ContainerSummary> {
    let label = format!("claude-code-mcp.owner={owner}");
    let filters = HashMap::from([("label", vec![label.as_str()])]);
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&filters)
        .build();
    engine.list_containers(Some(options)).await.unwrap()
}

/// What an operator writes who has gVisor under that name.
pub fn gvisor_class(name: &str) -> RuntimeClass {
    RuntimeClass {
        name: name.to_owned(),
        kernel: Kernel::Guest,
    }
}

/// A test that fails leaves no containers either.
impl Drop for Ground {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let (owner, engine) = (self.owner, self.engine());
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let options = RemoveContainerOptionsBuilder::new().force(true).build();
                let left = containers(&engine, owner).await;
                for id in left.into_iter().filter_map(|one| one.id) {
                    let _ = engine.remove_container(&id, Some(options.clone())).await;
                }
            });
        });
        let _ = cleaning.join();
    }
}

/// A sandbox and a client in it.
pub struct Running<'ground> {
    pub ground: &'ground Ground,
    pub spec: SandboxSpec,
    pub link: Link,
    pub inside: Inside,
}

impl Running<'_> {
    /// The output of a command that succeeds.
    pub async fn output(&mut self, command: &str) -> String {
        let (code, text) = self.inside.shell(command).await;
        assert_eq!(code, 0, "{command}: {text}");
        text
    }

    /// The output of a command that must fail.
    pub async fn refused(&mut self, command: &str) -> String {
        let (code, text) = self.inside.shell(command).await;
        assert_ne!(code, 0, "{command} went through: {text}");
        text
    }

    pub async fn destroy(self) {
        self.ground.docker.destroy(self.spec.session).await.unwrap();
        self.ground.is_clean().await;
    }
}

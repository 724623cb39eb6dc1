//! What the tests share: a backend in a directory of its own, a client that speaks the wire, and running as another user.

#![allow(dead_code, reason = "each test program uses its part")]

#[path = "../../../../tests/support/inside.rs"]
mod inside;
#[path = "../../../../tests/support/skip.rs"]
mod skip;
#[allow(unused_imports, reason = "each test program uses its part")]
pub use inside::{
    Inside, host_directory, only_work_is_left, processes_that_see, protect_project, protected,
    protected_paths_hold, small_spec,
};
pub use skip::skip;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
    process::Command,
};

use model::{OwnerId, RootFileSystem, SandboxSpec, SessionId};
use sandbox::{Backend, Link};
use sandbox_native::{Native, NativeConfig};
use tempfile::TempDir;

/// An uid that no account of the machine has.
pub const STRANGER: u32 = 54_321;
const AS_USER: &str = "SANDBOX_NATIVE_TEST_AS_USER";

/// True in the process that [`as_ordinary_user`] started.
pub fn is_ordinary_user() -> bool {
    std::env::var_os(AS_USER).is_some() || !is_root()
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says whether the calling test shall go on, as an ordinary user. As root it runs itself again as one, and is done.
pub fn as_ordinary_user(test: &str) -> bool {
    if is_ordinary_user() {
        return true;
    }
    let status = Command::new("setpriv")
        .args([
            &format!("--reuid={STRANGER}"),
            &format!("--regid={STRANGER}"),
            "--clear-groups",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(AS_USER, "1")
        .env_remove("TMPDIR")
        .current_dir("/")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed as an ordinary user");
    false
}

/// Says loudly that a root leg is left out.
pub fn as_root(test: &str) -> bool {
    if !is_root() {
        skip("root", &format!("{test}: not root"));
    }
    is_root()
}

/// A backend with a state directory and a project of its own.
pub struct Ground {
    pub directory: TempDir,
    pub native: Native,
    pub owner: OwnerId,
    pub config: NativeConfig,
}

pub fn helper() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_sandbox-native-helper"))
}

impl Ground {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut NativeConfig)) -> Self {
        Self::in_directory(
            tempfile::Builder::new()
                .prefix("native-")
                .tempdir_in("/tmp")
                .unwrap(),
            change,
        )
    }

    pub fn in_directory(directory: TempDir, change: impl FnOnce(&mut NativeConfig)) -> Self {
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
        fs::create_dir(directory.path().join("project")).unwrap();
        let mut id = [0; 8];
        id.copy_from_slice(&SessionId::random().unwrap().as_bytes()[..8]);
        let owner = OwnerId::from_bytes(id);
        let mut config = NativeConfig::new(directory.path().join("state"), owner);
        config.helper = helper();
        change(&mut config);
        let native = Native::open(config.clone()).unwrap();
        Ground {
            directory,
            native,
            owner,
            config,
        }
    }

    pub fn project(&self) -> PathBuf {
        self.directory.path().join("project")
    }

    pub fn give_project_to(&self, owner: u32) {
        chown(self.project(), Some(owner), Some(owner)).unwrap();
    }

    pub fn spec(&self) -> SandboxSpec {
        small_spec(self.owner, RootFileSystem::HostSystem, &self.project())
    }

    pub async fn start(&self) -> Running<'_> {
        self.start_spec(self.spec()).await
    }

    pub async fn start_spec(&self, spec: SandboxSpec) -> Running<'_> {
        let mut link = self
            .native
            .create(&spec)
            .await
            .unwrap_or_else(|error| panic!("{error:?}"));
        let inside =
            Inside::greet(link.connections.recv().await.expect("the supervisor dials")).await;
        Running {
            ground: self,
            session: spec.session,
            link,
            inside,
        }
    }

    /// Everything of this owner that a census of the machine finds.
    pub fn census(&self, session: SessionId) -> Vec<String> {
        let mut found = Vec::new();
        let name = session.object_name(&self.owner);
        for file in ["sessions", "ranges", "trash"] {
            let path = self.directory.path().join("state/native").join(file);
            found.extend(
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| format!("file {:?}", entry.unwrap().path())),
            );
        }
        for controller in fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            let group = controller.path().join("claude-code-mcp").join(&name);
            found.extend(group.exists().then(|| format!("cgroup {group:?}")));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        found.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&session.to_string()))
                .map(|l| format!("mount {l}")),
        );
        found.extend(
            processes_that_see(&self.directory)
                .into_iter()
                .map(|pid| format!("process {pid}")),
        );
        found
    }
}

/// A sandbox and a client in it.
pub struct Running<'ground> {
    pub ground: &'ground Ground,
    pub session: SessionId,
    pub link: Link,
    pub inside: Inside,
}

impl Running<'_> {
    /// Runs a shell command: exit code (or negative signal), output and errors.
    pub async fn shell(&mut self, command: &str) -> (i32, String) {
        self.inside.shell(command).await
    }

    /// The output of a command that succeeds.
    pub async fn output(&mut self, command: &str) -> String {
        let (code, text) = self.shell(command).await;
        assert_eq!(code, 0, "{command}: {text}");
        text
    }

    /// The output of a command that must fail.
    pub async fn refused(&mut self, command: &str) -> String {
        let (code, text) = self.shell(command).await;
        assert_ne!(code, 0, "{command} went through: {text}");
        text
    }

    pub async fn destroy(self) {
        self.ground.native.destroy(self.session).await.unwrap();
        assert_eq!(self.ground.census(self.session), Vec::<String>::new());
    }
}

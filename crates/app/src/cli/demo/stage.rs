//! Where the demo plays: a directory of its own with project, secret and state, a front as a child process, and a count
//! of what is left.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use model::OwnerId;
use sandbox::Backend;
use sandbox_docker::{Docker, DockerConfig, Tcp};
use tokio::process::Child;

use super::{CliError, Client, Context, project};
use crate::{
    backends::docker_config,
    cli::{context::this_program, output::note},
    config::BackendChoice,
};

/// How long the front and the server may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(8);

/// See the module. Removed when dropped.
pub struct Stage {
    base: tempfile::TempDir,
    walls: Walls,
    /// What the demo's server is told of the configuration.
    settings: Vec<String>,
    engine: DockerConfig,
}

/// What the session is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walls {
    /// The embedded runtime.
    Native,
    /// A container.
    Docker,
}

impl Walls {
    /// Those that were asked for. The demo needs no engine unless somebody wants to see one.
    pub fn of(context: &Context, asked: Option<&str>) -> Self {
        let configured = context.config.backend == BackendChoice::Docker;
        match asked {
            Some("docker") => Walls::Docker,
            None if configured => Walls::Docker,
            Some(_) | None => Walls::Native,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Walls::Native => "native",
            Walls::Docker => "docker",
        }
    }
}

fn over_tcp(tcp: &Tcp) -> Vec<String> {
    let certificates = tcp.certificates.iter();
    let path = certificates.map(|path| format!("docker_cert_path={}", path.display()));
    path.chain([
        format!("docker_tls_verify={}", tcp.tls_verify),
        format!(
            "dangerously_plain_loopback_engine={}",
            tcp.dangerously_plain_on_loopback
        ),
    ])
    .collect()
}

/// A file of the host that is none of the session's business.
pub struct Secret {
    /// Where it stands.
    pub path: PathBuf,
    /// What it holds.
    pub content: String,
}

impl Stage {
    /// Makes the directories and the sample project.
    pub fn build(context: &Context, walls: Walls) -> Result<Self, CliError> {
        let base = tempfile::Builder::new()
            .prefix("claude-code-mcp-demo-")
            .tempdir()
            .map_err(CliError::Terminal)?;
        let mut settings = vec![format!("backend={}", walls.name())];
        if walls == Walls::Docker {
            settings.push(format!("image={}", context.config.image));
            let host = context.config.docker_host.as_ref();
            settings.extend(host.map(|host| format!("docker_host={host}")));
            settings.extend(over_tcp(&context.config.docker_tcp));
        }
        let nobody = OwnerId::from_bytes([0; 8]);
        let engine = docker_config(&context.config, &base.path().join("state"), nobody);
        let stage = Stage {
            base,
            walls,
            settings,
            engine,
        };
        for (relative, content) in project::FILES {
            let path = stage.project().join(relative);
            let parent = path.parent().unwrap_or(&path);
            fs::create_dir_all(parent)
                .and_then(|()| fs::write(&path, content))
                .map_err(|source| CliError::File {
                    path: path.clone(),
                    source,
                })?;
        }
        let secret = stage.secret();
        fs::write(&secret.path, &secret.content).map_err(|source| CliError::File {
            path: secret.path,
            source,
        })?;
        Ok(stage)
    }

    /// The sample project.
    pub fn project(&self) -> PathBuf {
        self.base.path().join("project")
    }

    /// See [`Secret`].
    pub fn secret(&self) -> Secret {
        let content = format!("token of {}", self.base.path().display());
        Secret {
            path: self.base.path().join("secret-of-the-host"),
            content,
        }
    }

    fn state(&self) -> PathBuf {
        self.base.path().join("state")
    }

    /// The audit log of the demo's server.
    pub fn audit_log(&self) -> PathBuf {
        self.state().join("audit.jsonl")
    }

    /// A front as an MCP client starts it, and the client on it.
    pub async fn client(&self) -> Result<((Client, Child), String), CliError> {
        let mut front = self
            .program(&["stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| CliError::File {
                path: this_program(),
                source,
            })?;
        let (Some(stdin), Some(stdout)) = (front.stdin.take(), front.stdout.take()) else {
            return Err(CliError::Terminal(std::io::ErrorKind::BrokenPipe.into()));
        };
        let client = Client::open(tokio::io::join(stdout, stdin), "claude-code-mcp demo").await?;
        Ok(((client, front), String::new()))
    }

    /// The program again, with a state directory of its own and nothing of the caller's configuration.
    fn program(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(this_program());
        command
            .arg("--state-dir")
            .arg(self.state())
            .args(self.settings.iter().flat_map(|setting| ["--set", setting]))
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.base.path())
            .current_dir(self.project())
            .kill_on_drop(true);
        command
    }

    /// Ends front and server.
    pub async fn stop(&self, mut front: Child) -> Result<(), CliError> {
        if tokio::time::timeout(END_TIMEOUT, front.wait())
            .await
            .is_err()
        {
            note("the front did not end by itself");
        }
        let stopped = self
            .program(&["server", "stop"])
            .stdout(Stdio::null())
            .status();
        match tokio::time::timeout(END_TIMEOUT, stopped).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(source)) => Err(CliError::File {
                path: this_program(),
                source,
            }),
            Err(_) => {
                note("the server did not end in time");
                Ok(())
            }
        }
    }

    /// Every path in the project.
    pub fn project_paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        let mut open = vec![self.project()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open.push(entry.path());
                }
                paths.push(entry.path().display().to_string());
            }
        }
        paths.sort_unstable();
        paths
    }

    /// Everything that a session makes and that is still there.
    ///
    /// # Errors
    /// When the engine does not say what it has.
    pub async fn left_behind(&self, project_before: &[String]) -> Result<Vec<String>, CliError> {
        let mut left = Vec::new();
        let now = self.project_paths();
        left.extend(
            now.iter()
                .filter(|path| !project_before.contains(path))
                .map(|path| format!("file {path}")),
        );
        left.extend(
            project_before
                .iter()
                .filter(|path| !now.contains(path))
                .map(|path| format!("missing file {path}")),
        );
        let sessions = self.state().join(self.walls.name()).join("sessions");
        let instances = fs::read_dir(sessions).into_iter().flatten().flatten();
        left.extend(
            instances
                .filter(|entry| entry.file_name().to_string_lossy().starts_with("s-"))
                .map(|entry| format!("instance {}", entry.path().display())),
        );
        left.extend(
            self.processes()
                .into_iter()
                .map(|pid| format!("process {pid}")),
        );
        left.extend(
            self.cgroups()
                .into_iter()
                .map(|path| format!("cgroup {}", path.display())),
        );
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let base = self.base.path().display().to_string();
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&base))
                .map(|line| format!("mount {line}")),
        );
        left.extend(self.containers().await?);
        Ok(left)
    }

    /// Containers of the demo's installation, running or not, as the engine says it.
    async fn containers(&self) -> Result<Vec<String>, CliError> {
        let Some(owner) = self.owner().filter(|_| self.walls == Walls::Docker) else {
            return Ok(Vec::new());
        };
        let failed = |error| CliError::Build(anyhow::Error::new(error));
        let mut config = self.engine.clone();
        config.owner = owner.parse().map_err(failed)?;
        let docker =
            Docker::open(config).map_err(|error| CliError::Build(anyhow::Error::new(error)))?;
        let listed = docker
            .list()
            .await
            .map_err(|error| CliError::Build(anyhow::Error::new(error)))?;
        Ok(listed
            .iter()
            .map(|found| format!("container of {}", found.session))
            .collect())
    }

    /// Processes that see the demo's state directory among their mounts: only its sandboxes do.
    fn processes(&self) -> Vec<u32> {
        let own = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let marker = self.state().join(self.walls.name()).display().to_string();
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &u32| {
                let mounts =
                    fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
                mounts != own && mounts.contains(&marker)
            })
            .collect()
    }

    /// Control groups with the name of the demo's installation.
    fn cgroups(&self) -> Vec<PathBuf> {
        let Some(prefix) = self.object_prefix() else {
            return Vec::new();
        };
        let mut found = Vec::new();
        let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    if entry.file_name().to_string_lossy().starts_with(&prefix) {
                        found.push(entry.path());
                    }
                    open.push(entry.path());
                }
            }
        }
        found
    }

    fn object_prefix(&self) -> Option<String> {
        let owner = self.owner()?;
        let digits = owner.strip_prefix("o-")?.get(..8)?;
        Some(format!("claude-code-{digits}"))
    }

    fn owner(&self) -> Option<String> {
        let owner = fs::read_to_string(self.state().join(Path::new("state.db.owner"))).ok()?;
        Some(owner.trim().to_owned())
    }
}

//! What the tests of the backends share: a client that speaks the wire, host directories, a census of processes.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test program uses its part, and fails by panicking"
)]

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use model::{
    HostDirectory, Limit, Limits, OwnerId, ProtectedPath, Protection, RootFileSystem, SandboxSpec,
    SessionId,
};
use sandbox::Connection;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::{
    Decoder, Exit, MAX_CHUNK_BYTES, MAX_TO_HOST_BYTES, MAX_TO_SUPERVISOR_BYTES, OutputMode,
    PROTOCOL_VERSION, Reply, Request, StartSpec, Stdin, Stream, ToHost, ToSupervisor, Welcome,
};

/// Processes that see this directory's project or state among their mounts: all of a sandbox share its mounts.
pub fn processes_that_see(directory: &TempDir) -> Vec<String> {
    let name = directory.path().file_name().unwrap().to_str().unwrap();
    let numbers = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let own = fs::read_link("/proc/self/ns/mnt").unwrap();
    numbers
        .filter(|pid| pid.bytes().all(|digit| digit.is_ascii_digit()))
        .filter(|pid| {
            fs::read_link(format!("/proc/{pid}/ns/mnt")).is_ok_and(|namespace| namespace != own)
        })
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/mountinfo"))
                .is_ok_and(|mounts| mounts.contains(name))
        })
        .collect()
}

pub fn host_directory(path: &Path) -> HostDirectory {
    let path = fs::canonicalize(path).unwrap();
    let found = fs::metadata(&path).unwrap();
    HostDirectory {
        path,
        device: found.dev(),
        inode: found.ino(),
        uid: found.uid(),
        gid: found.gid(),
    }
}

pub fn protected(relative: &str, protection: model::Protection) -> ProtectedPath {
    ProtectedPath {
        relative: relative.into(),
        protection,
    }
}

/// A new session on that project, with limits that a test can reach.
pub fn small_spec(owner: OwnerId, root: RootFileSystem, project: &Path) -> SandboxSpec {
    let limit = Limit::default_of;
    SandboxSpec {
        session: SessionId::random().unwrap(),
        owner,
        root,
        runtime: None,
        workspace: host_directory(project),
        protected: Vec::new(),
        mounts: Vec::new(),
        agent: None,
        managed_settings: None,
        certificates: None,
        limits: Limits {
            memory_bytes: limit(256 << 20),
            cpu_millis: limit(1_000),
            pids: limit(64),
            open_files: limit(512),
            file_bytes: limit(64 << 20),
            temporary_bytes: limit(64 << 20),
            state_bytes: limit(64 << 20),
        },
        accept_soft_limits: false,
        layers: Vec::new(),
        lease_ms: 60_000,
    }
}

/// Fills a project and protects every kind of path in it.
pub fn protect_project(project: &Path) -> Vec<ProtectedPath> {
    fs::create_dir_all(project.join(".git/hooks")).unwrap();
    fs::write(project.join(".git/config"), "[core]\n").unwrap();
    fs::create_dir_all(project.join("src")).unwrap();
    vec![
        protected(".git", Protection::Pinned),
        protected(".git/config", Protection::ReadOnly),
        protected(".git/hooks", Protection::ReadOnly),
        protected(".envrc", Protection::Masked { directory: false }),
        protected(".husky", Protection::Masked { directory: true }),
    ]
}

/// Attacks on what [`protect_project`] protects, and what must go through beside it.
pub async fn protected_paths_hold(inside: &mut Inside, project: &Path) {
    assert!(project.join(".envrc").exists() && project.join(".husky").exists());
    for attempt in [
        "echo evil >> .git/config",
        "echo evil > .git/hooks/pre-commit",
        "rm .git/config",
        "mv .git other",
        "mv .git/hooks elsewhere",
        "echo evil > .envrc",
        "rm .envrc",
        "chmod 777 .envrc",
        "echo evil > .husky/pre-commit",
        "rmdir .husky",
        "mv .husky x",
        "ln -sf /etc/passwd .envrc",
    ] {
        let (code, text) = inside.shell(attempt).await;
        assert_ne!(code, 0, "{attempt} went through: {text}");
    }
    let fine = "echo fine > .git/index && echo fine > src/main.rs && mkdir new && mv src renamed";
    assert_eq!(inside.shell(fine).await, (0, String::new()));
}

/// Once the sandbox is gone, nothing is left of it but its work.
pub fn only_work_is_left(project: &Path) {
    assert!(!project.join(".envrc").exists() && !project.join(".husky").exists());
    let config = fs::read_to_string(project.join(".git/config")).unwrap();
    assert_eq!(config, "[core]\n");
    assert!(project.join("renamed/main.rs").exists());
}

/// The host's end of a control connection.
pub struct Inside {
    connection: Connection,
    decoder: Decoder,
    next_id: u64,
    pub attestation: wire::Attestation,
}

impl Inside {
    pub async fn greet(connection: Connection) -> Self {
        let decoder = Decoder::new(MAX_TO_HOST_BYTES);
        let mut inside = Inside {
            connection,
            decoder,
            next_id: 1,
            attestation: wire::Attestation::default(),
        };
        let ToHost::Hello(hello) = inside.next().await else {
            panic!("no hello")
        };
        inside.attestation = hello.attestation;
        inside
            .send(&ToSupervisor::Welcome(Welcome {
                protocol: PROTOCOL_VERSION,
                lease_ms: 60_000,
            }))
            .await;
        inside
    }

    async fn send(&mut self, message: &ToSupervisor) {
        self.connection
            .write_all(&wire::encode(message, MAX_TO_SUPERVISOR_BYTES).unwrap())
            .await
            .unwrap();
    }

    async fn next(&mut self) -> ToHost {
        loop {
            if let Some(message) = self.decoder.next().unwrap() {
                return message;
            }
            let mut buffer = vec![0; 65_536];
            let count = self.connection.read(&mut buffer).await.unwrap();
            assert_ne!(count, 0, "the supervisor hung up");
            self.decoder.push(&buffer[..count]);
        }
    }

    pub async fn ask(&mut self, request: Request) -> Reply {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&ToSupervisor::Request { id, request }).await;
        match self.next().await {
            ToHost::Reply {
                id: answered,
                result,
            } if answered == id => result.unwrap(),
            other @ (ToHost::Hello(_)
            | ToHost::TransferHello { .. }
            | ToHost::RelayHello { .. }
            | ToHost::Reply { .. }
            | ToHost::Transfer(_)) => {
                panic!("an unexpected frame: {other:?}")
            }
        }
    }

    pub async fn shell(&mut self, command: &str) -> (i32, String) {
        let execution = *SessionId::random().unwrap().as_bytes();
        let environment = [
            "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME=/home/agent",
            "LC_ALL=C.UTF-8",
        ];
        self.ask(Request::Start(Box::new(StartSpec {
            execution,
            argv: ["/bin/sh", "-c", &format!("exec 2>&1; {command}")]
                .map(|word| word.as_bytes().to_vec())
                .to_vec(),
            cwd: b"/workspace".to_vec(),
            env: environment.map(|line| line.as_bytes().to_vec()).to_vec(),
            stdin: Stdin::Null,
            terminal: None,
            deadline_ms: Some(60_000),
            grace_ms: 0,
            output: OutputMode::DropOldest {
                keep_bytes: 1 << 20,
            },
        })))
        .await;
        let status = loop {
            let Reply::Status(status) = self
                .ask(Request::Wait {
                    execution,
                    wait_ms: 30_000,
                })
                .await
            else {
                panic!("no status")
            };
            if let Some(ended) = status.ended {
                break ended;
            }
        };
        let mut text = Vec::new();
        loop {
            let (offset, max_bytes) = (text.len() as u64, MAX_CHUNK_BYTES as u32);
            let read = Request::Read {
                execution,
                stream: Stream::Stdout,
                offset,
                max_bytes,
                wait_ms: 1_000,
            };
            let Reply::Output(chunk) = self.ask(read).await else {
                panic!("no output")
            };
            text.extend(&chunk.data);
            if chunk.status.ended && chunk.data.is_empty() {
                break;
            }
        }
        self.ask(Request::Forget { execution }).await;
        let code = match status.exit {
            Exit::Code(code) => code,
            Exit::Signal(signal) => -signal,
            Exit::Lost => -1_000,
        };
        (code, String::from_utf8_lossy(&text).into_owned())
    }
}

//! What the tests of the real binary share: a machine of their own (state, project, user), an MCP client over stdio that
//! speaks raw JSON-RPC, and a census of everything that a session makes.
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "each test program uses a part of it; a test fails by panicking and tells by standard error"
)]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

pub mod agent;
pub mod census;
pub mod certificates;
pub mod claude_code;
pub mod client;
pub mod door;
pub mod engine;
#[path = "../../crates/sandbox-docker/tests/support/filter.rs"]
pub mod filter;
pub mod gvisor;
#[path = "../../crates/sandbox-docker/tests/support/image.rs"]
pub mod image;
pub mod issuer;
pub mod lab;
pub mod operations;
pub mod race;
mod skip;
pub mod stage;
pub mod world;
use census::{cgroups, mounts_below, object_prefix};
pub use client::Client;
pub use skip::skip;

/// An ordinary user of the tests: any id without an account, so without subordinate ids and groups.
pub const ORDINARY_UID: u32 = 12_345;
/// How long a test waits for what takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How much of a server's log a failed test shows.
const LOG_LINES: usize = 40;

/// As whom the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// uid 0.
    Root,
    /// Without privileges. When the test itself is not root, whoever runs it.
    Ordinary,
}

/// Users that this machine can play. A missing one is told loudly, and is a failure where `REQUIRE` names it.
pub fn users() -> Vec<User> {
    if rustix::process::geteuid().is_root() {
        vec![User::Root, User::Ordinary]
    } else {
        skip("root", "the tests do not run as root");
        vec![User::Ordinary]
    }
}

/// The program under test, at a place that every user can execute.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let built = Path::new(env!("CARGO_BIN_EXE_claude-code-mcp"));
        let reachable = built.ancestors().skip(1).all(|directory| {
            fs::metadata(directory).is_ok_and(|found| found.permissions().mode() & 0o005 == 0o005)
        });
        if reachable {
            return built.to_owned();
        }
        let copy =
            std::env::temp_dir().join(format!("claude-code-mcp-under-test-{}", std::process::id()));
        fs::copy(built, &copy).expect("a copy of the program");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("its mode");
        copy
    })
}

/// A place for one test: state directory, home, project.
pub struct Machine {
    pub user: User,
    base: PathBuf,
    pub project: PathBuf,
    environment: Vec<(String, String)>,
    /// Socket of the engine that servers of this machine may have asked for containers.
    engine: PathBuf,
}

impl Machine {
    pub fn new(user: User) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let base = std::env::temp_dir().join(format!("ccm-{}-{count}", std::process::id()));
        let project = base.join("project");
        fs::create_dir_all(&project).expect("a project");
        for directory in ["state", "home", "run"] {
            fs::create_dir(base.join(directory)).expect("a directory");
        }
        let machine = Machine {
            user,
            base,
            project,
            environment: Vec::new(),
            engine: image::ENGINE_SOCKET.into(),
        };
        for directory in ["project", "state", "home", "run"] {
            machine.give(&machine.base.join(directory));
        }
        for (name, mode) in [("state", 0o700), ("run", 0o700)] {
            fs::set_permissions(machine.base.join(name), fs::Permissions::from_mode(mode))
                .expect("its mode");
        }
        machine
    }

    /// Sets a variable for everything that runs on this machine from now on.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Has sessions of this machine made by another engine than the usual one.
    pub fn use_engine(&mut self, socket: &Path) -> &mut Self {
        self.engine = socket.to_owned();
        self.set("CLAUDE_CODE_MCP_BACKEND", "docker")
            .set("DOCKER_HOST", &format!("unix://{}", socket.display()))
    }

    pub fn base(&self) -> &Path {
        &self.base
    }

    pub fn state(&self) -> PathBuf {
        self.base.join("state/claude-code-mcp")
    }

    pub fn audit_log(&self) -> PathBuf {
        self.state().join("audit.jsonl")
    }

    /// Gives a path to the machine's user.
    pub fn give(&self, path: &Path) {
        if let Some(uid) = self.uid() {
            chown(path, Some(uid), Some(uid)).expect("an owner");
        }
    }

    pub fn write(&self, relative: &str, content: &str) -> PathBuf {
        let path = self.project.join(relative);
        let mut missing: Vec<_> = path
            .ancestors()
            .skip(1)
            .take_while(|directory| !directory.exists())
            .map(Path::to_owned)
            .collect();
        while let Some(directory) = missing.pop() {
            fs::create_dir(&directory).expect("a directory");
            self.give(&directory);
        }
        fs::write(&path, content).expect("a file");
        self.give(&path);
        path
    }

    fn uid(&self) -> Option<u32> {
        (self.user == User::Ordinary && rustix::process::geteuid().is_root())
            .then_some(ORDINARY_UID)
    }

    /// A command on this machine, as its user, in its project.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = self.command_of_the_tester(program);
        if let Some(uid) = self.uid() {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// What starts the program as the machine's user, for a client that itself runs as whoever runs the tests: its
    /// interpreter may stand where nobody else can go.
    pub fn front(&self) -> Vec<String> {
        let program = program().display().to_string();
        match self.uid() {
            Some(uid) => vec![
                "/usr/bin/setpriv".to_owned(),
                format!("--reuid={uid}"),
                format!("--regid={uid}"),
                "--clear-groups".to_owned(),
                program,
            ],
            None => vec![program],
        }
    }

    /// A command on this machine, in its project, as whoever runs the tests.
    pub fn command_of_the_tester(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.base.join("home"))
            .env("XDG_STATE_HOME", self.base.join("state"))
            .env("XDG_RUNTIME_DIR", self.base.join("run"))
            .env("CLAUDE_CODE_MCP_IDLE_EXIT_SECONDS", "1")
            // Whatever engine and image this machine has; a test that is about them sets it again.
            .env("CLAUDE_CODE_MCP_BACKEND", "native")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.project);
        command
    }

    /// The command line of the program.
    pub fn cli(&self, arguments: &[&str]) -> std::process::Output {
        self.command(program())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the program runs")
    }

    /// The same with a terminal as its standard input, as a person has.
    pub fn cli_on_terminal(&self, arguments: &[&str]) -> std::process::Output {
        let master =
            rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY)
                .expect("a terminal");
        rustix::pty::grantpt(&master).expect("granted");
        rustix::pty::unlockpt(&master).expect("unlocked");
        let name = rustix::pty::ptsname(&master, Vec::new()).expect("its name");
        let terminal = fs::File::open(name.to_str().expect("a path")).expect("its other end");
        self.command(program())
            .args(arguments)
            .stdin(terminal)
            .output()
            .expect("the program runs")
    }

    /// A stdio front with its client, greeted.
    pub fn client(&self) -> Client {
        self.client_that_can(&serde_json::json!({}))
    }

    /// The same, of a client with those capabilities.
    pub fn client_that_can(&self, capabilities: &serde_json::Value) -> Client {
        Client::start(
            self,
            capabilities,
            &serde_json::json!({ "name": "tests", "version": "1" }),
        )
    }

    /// The same, of a client that names itself so.
    pub fn client_that_is(&self, client_info: &serde_json::Value) -> Client {
        Client::start(self, &serde_json::json!({}), client_info)
    }

    /// Pid of the elected server, if one runs.
    pub fn server_pid(&self) -> Option<i32> {
        let lock = fs::read_to_string(self.state().join("server.lock")).ok()?;
        let digits: String = lock
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(char::is_ascii_digit)
            .collect();
        digits
            .parse()
            .ok()
            .filter(|pid| Path::new(&format!("/proc/{pid}")).exists())
    }

    /// The end of the server's log: what an `internal` error was is told nowhere else.
    fn tell_server_log(&self) {
        let log = fs::read_to_string(self.state().join("server.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
            eprintln!("server: {line}");
        }
    }

    /// Waits until the server has ended by itself. A server that is leaving takes its address away first and its last
    /// records come then, so it is the lock that tells.
    pub fn wait_for_server_end(&self) {
        let server = self.server_pid();
        until("the server has ended", || {
            !self.is_locked()
                && !server.is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists())
        });
    }

    /// A server of this machine may have asked an engine for containers.
    fn uses_engine(&self) -> bool {
        let is_docker = |(name, value): &(String, String)| {
            name == "CLAUDE_CODE_MCP_BACKEND" && value != "native"
        };
        self.environment.iter().any(is_docker)
    }

    /// Containers of this machine's sessions, running or not, as the engine itself tells.
    pub fn containers(&self) -> BTreeSet<String> {
        object_prefix(&self.state())
            .filter(|_| self.uses_engine())
            .map(|prefix| engine::containers(&self.engine, &prefix))
            .unwrap_or_default()
    }

    fn is_locked(&self) -> bool {
        use rustix::fs::{FlockOperation, flock};
        fs::File::open(self.state().join("server.lock"))
            .is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockShared).is_err())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell_server_log();
        }
        if let Some(pid) = self.server_pid().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        for pid in self.sandbox_pids() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        // What a failed test leaves would stay on the machine for ever.
        if let Some(prefix) = object_prefix(&self.state()) {
            for cgroup in cgroups(&prefix) {
                let _ = fs::remove_dir(cgroup);
            }
            if self.uses_engine() {
                engine::remove_containers(&self.engine, &prefix);
            }
        }
        for mount in mounts_below(&self.base) {
            let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
        }
        let _ = fs::remove_dir_all(&self.base);
    }
}

/// Waits for a condition.
///
/// # Panics
/// When it does not come true in [`PATIENCE`].
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Every path below a directory, links not followed.
pub fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found
}

/// Tests that watch processes of the whole machine, or load it, run one at a time.
pub fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// As [`alone`], also where each test is a program of its own: for what loads the whole machine.
///
/// # Panics
/// When the lock cannot be made.
pub fn alone_on_the_machine() -> fs::File {
    let uid = rustix::process::geteuid().as_raw();
    let path = std::env::temp_dir().join(format!("claude-code-mcp-tests-{uid}.lock"));
    let lock = fs::File::create(path).expect("a lock file");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("the lock");
    lock
}

//! A test in network and mount namespaces of its own, with an engine of its own in them: one that listens with TLS, or maps
//! ids. Nothing of the machine's engine, network or accounts is touched.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};

use super::skip;

/// Set in the test program that runs in namespaces of its own.
const INSIDE: &str = "CLAUDE_CODE_MCP_TEST_IN_OWN_WORLD";
/// An engine of one's own is up within a second or two, on a busy machine later.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where ids of a mapped engine begin.
pub const FIRST_ID: u32 = 1_300_000;

/// Whether this is the test within namespaces of its own. Outside it runs there, to its end: the caller returns. Where that
/// cannot be done it says so loudly. `test` is its name as the test program has it.
///
/// # Panics
/// When it fails there.
pub fn is_inside(test: &str) -> bool {
    is_inside_with(test, "docker", &["dockerd", "unshare", "setpriv", "ip"])
}

/// The same for a test of another leg, which needs root and these programs.
///
/// # Panics
/// When it fails there.
pub fn is_inside_with(test: &str, leg: &str, programs: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let missing = programs.iter().find(|name| !is_there(name));
    if !rustix::process::geteuid().is_root() || missing.is_some() {
        let why = missing.map_or("not root".to_owned(), |name| format!("no {name}"));
        skip(leg, &format!("{test}: {why}"));
        return false;
    }
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "--"])
        .args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare");
    assert!(status.success(), "{test} failed in namespaces of its own");
    false
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// What stands between the test and an engine of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apart {
    /// Nothing.
    Not,
    /// It does not see what is mounted after it was started, whether that is another host's files or this server's mounts.
    Mounts,
    /// It sees the test's files and mounts, and its processes have other numbers: another host that shares a file system.
    Processes,
    /// It is an ordinary user's, in a user namespace.
    Rootless,
}

impl Apart {
    /// What ends the engine: `unshare` takes no other, and tells the engine to end.
    fn end_signal(self) -> (Signal, &'static str) {
        match self {
            Apart::Processes => (Signal::KILL, "KILL"),
            Apart::Not | Apart::Mounts | Apart::Rootless => (Signal::TERM, "TERM"),
        }
    }

    /// What the engine is started by.
    fn wrapper(self) -> &'static [&'static str] {
        match self {
            Apart::Not => &[],
            Apart::Mounts => &["unshare", "--mount", "--propagation", "private", "--"],
            Apart::Processes => &[
                "unshare",
                "--mount",
                "--propagation",
                "slave",
                "--pid",
                "--fork",
                "--kill-child=TERM",
                "--mount-proc",
                "--",
            ],
            Apart::Rootless => &[
                "setpriv",
                "--reuid=54321",
                "--regid=54321",
                "--clear-groups",
                "unshare",
                "--user",
                "--map-root-user",
                "--mount",
                "--",
                "sh",
                "-c",
                AS_ROOTLESS,
            ],
        }
    }
}

/// What the usual way to start a rootless engine makes; it begins with its directory.
const AS_ROOTLESS: &str = "export HOME=$0 XDG_RUNTIME_DIR=$0 ROOTLESSKIT_STATE_DIR=$0 PATH=$0:$PATH; \
    mount -t tmpfs tmpfs /run && ln -sf /bin/true $0/rootlesskit-docker-proxy && \
    exec \"$@\" --rootless --group=0 --storage-driver=vfs";

/// An engine of the test's own, in its namespaces. Ends with it.
pub struct OwnEngine {
    pub directory: tempfile::TempDir,
    pub socket: PathBuf,
    apart: Apart,
    daemon: Option<Child>,
}

impl OwnEngine {
    /// Listens at a socket.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(apart: Apart) -> Self {
        Self::with(apart, &[])
    }

    /// Listens with TLS besides, at port 2376 of loopback, with the certificates `engine.pem` and `ca.pem` there.
    pub fn with_tls(apart: Apart, certificates: &Path) -> Self {
        Self::with(apart, &tls(certificates))
    }

    /// Gives its containers a user namespace. The accounts are those of these namespaces alone.
    pub fn remapped() -> Self {
        let map = tempfile::NamedTempFile::new().expect("a file");
        fs::write(map.path(), format!("daemon:{FIRST_ID}:65536\n")).expect("the map");
        for file in ["/etc/subuid", "/etc/subgid"] {
            let mounted = Command::new("mount")
                .arg("--bind")
                .arg(map.path())
                .arg(file)
                .status();
            assert!(mounted.expect("mount").success(), "{file}");
        }
        Self::with(Apart::Not, &["--userns-remap=daemon:daemon".to_owned()])
    }

    /// Ends it and starts it with other certificates.
    pub fn restart_with_tls(&mut self, certificates: &Path) {
        self.end();
        self.begin(&tls(certificates));
    }

    fn with(apart: Apart, arguments: &[String]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("engine-")
            .tempdir_in("/var/tmp")
            .expect("a directory");
        // A mapped engine's containers get at their files.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).expect("mode");
        if apart == Apart::Rootless {
            chown(directory.path(), Some(54_321), Some(54_321)).expect("its own");
        }
        let settings = "{\"shutdown-timeout\": 1}";
        fs::write(directory.path().join("daemon.json"), settings).expect("settings");
        let mut engine = OwnEngine {
            socket: directory.path().join("docker.sock"),
            directory,
            apart,
            daemon: None,
        };
        engine.begin(arguments);
        engine
    }

    fn begin(&mut self, arguments: &[String]) {
        let at = |name: &str| self.directory.path().join(name).display().to_string();
        let log = fs::File::create(at("log")).expect("a log");
        let daemon = Command::new("setpriv")
            .args(["--pdeathsig", self.apart.end_signal().1])
            .args(self.apart.wrapper())
            .args((self.apart == Apart::Rootless).then_some(self.directory.path()))
            .args(["dockerd", "--config-file", &at("daemon.json")])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec")])
            .args(["--pidfile", &at("pid")])
            .arg(format!("--host=unix://{}", at("docker.sock")))
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("dockerd");
        self.daemon = Some(daemon);
        let until = Instant::now() + PATIENCE;
        while UnixStream::connect(&self.socket).is_err() {
            assert!(
                Instant::now() < until,
                "the engine does not start: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn end(&mut self) {
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        // Not killed: it takes its containers and its own mounts with it.
        let pid = Pid::from_child(&daemon);
        let _ = rustix::process::kill_process(pid, self.apart.end_signal().0);
        let _ = daemon.wait();
        // Where another process stands between, it ends a little later.
        while UnixStream::connect(&self.socket).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        self.end();
    }
}

fn tls(certificates: &Path) -> Vec<String> {
    let at = |name: &str| certificates.join(name).display().to_string();
    vec![
        "--host=tcp://127.0.0.1:2376".to_owned(),
        "--tlsverify".to_owned(),
        format!("--tlscacert={}", at("ca.pem")),
        format!("--tlscert={}", at("engine.pem")),
        format!("--tlskey={}", at("engine-key.pem")),
    ]
}

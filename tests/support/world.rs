//! A test in network and mount namespaces of its own, with an engine of its own in them: one that listens with TLS, or maps
//! ids. Nothing of the machine's engine, network or accounts is touched.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

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
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let programs = ["dockerd", "unshare", "setpriv", "ip"];
    let missing = programs.into_iter().find(|name| !is_there(name));
    if !rustix::process::geteuid().is_root() || missing.is_some() {
        let why = missing.map_or("not root".to_owned(), |name| format!("no {name}"));
        skip("docker", &format!("{test}: {why}"));
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

/// An engine of the test's own, in its namespaces. Ends with it.
pub struct OwnEngine {
    pub directory: tempfile::TempDir,
    pub socket: PathBuf,
    daemon: Option<Child>,
}

impl OwnEngine {
    /// Listens at a socket, with those arguments besides.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("engine-")
            .tempdir_in("/var/tmp")
            .expect("a directory");
        // A mapped engine's containers get at their files.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).expect("mode");
        let socket = directory.path().join("docker.sock");
        fs::write(
            directory.path().join("daemon.json"),
            "{\"shutdown-timeout\": 1}",
        )
        .expect("settings");
        let mut engine = OwnEngine {
            directory,
            socket,
            daemon: None,
        };
        engine.begin(arguments);
        engine
    }

    /// Listens with TLS besides, at port 2376 of loopback, with the certificates `engine.pem` and `ca.pem` there.
    pub fn with_tls(certificates: &Path) -> Self {
        Self::start(
            &tls_arguments(certificates)
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        )
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
        Self::start(&["--userns-remap=daemon:daemon"])
    }

    /// Ends it and starts it with other certificates.
    pub fn restart_with_tls(&mut self, certificates: &Path) {
        self.end();
        let arguments = tls_arguments(certificates);
        self.begin(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }

    fn begin(&mut self, arguments: &[&str]) {
        let at = |name: &str| self.directory.path().join(name).display().to_string();
        let log = fs::File::create(self.directory.path().join("log")).expect("a log");
        let daemon = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "dockerd"])
            .args([
                "--config-file",
                &at("daemon.json"),
                "--data-root",
                &at("data"),
            ])
            .args(["--exec-root", &at("exec"), "--pidfile", &at("pid")])
            .arg(format!("--host=unix://{}", self.socket.display()))
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
        let pid = rustix::process::Pid::from_child(&daemon);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = daemon.wait();
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        self.end();
    }
}

fn tls_arguments(certificates: &Path) -> Vec<String> {
    let at = |name: &str| certificates.join(name).display().to_string();
    vec![
        "--host=tcp://127.0.0.1:2376".to_owned(),
        "--tlsverify".to_owned(),
        format!("--tlscacert={}", at("ca.pem")),
        format!("--tlscert={}", at("engine.pem")),
        format!("--tlskey={}", at("engine-key.pem")),
    ]
}

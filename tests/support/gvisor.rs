//! An engine that has gVisor: the one that the environment names, or one of this test's own.

use std::{
    fs::File,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::skip;

/// Names the engine that `scripts/test` started for all tests.
const ENGINE_VARIABLE: &str = "GVISOR_ENGINE";
/// An engine of one's own is up within a second or two, on a busy machine later.
const PATIENCE: Duration = Duration::from_secs(60);

/// The engine. One of the test's own ends with it.
pub struct Gvisor {
    pub socket: PathBuf,
    own: Option<(Child, tempfile::TempDir)>,
}

impl Gvisor {
    /// `None`, said loudly, where there is none and none can be started.
    pub fn engine(leg: &str) -> Option<Self> {
        match std::env::var_os(ENGINE_VARIABLE) {
            Some(socket) => Some(Gvisor {
                socket: socket.into(),
                own: None,
            }),
            None => Self::own(leg),
        }
    }

    /// One of the test's own, in its mount namespace: another one would not see what a server mounts there.
    pub fn own(leg: &str) -> Option<Self> {
        let is_root = rustix::process::geteuid().is_root();
        let missing = ["dockerd", "runsc"]
            .into_iter()
            .find(|name| !is_there(name));
        if let (true, None) = (is_root, missing) {
            return Some(Self::start());
        }
        let why = missing.map_or_else(|| "not root".to_owned(), |name| format!("no {name}"));
        skip("gvisor", &format!("{leg}: {why}"));
        None
    }

    fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("gvisor-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/gvisor-engine");
        let log = File::create(directory.path().join("log")).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .arg(script)
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let socket = directory.path().join("docker.sock");
        let until = Instant::now() + PATIENCE;
        while UnixStream::connect(&socket).is_err() {
            let log = std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "the engine does not start: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Gvisor {
            socket,
            own: Some((child, directory)),
        }
    }
}

impl Drop for Gvisor {
    fn drop(&mut self) {
        let Some((child, _)) = &mut self.own else {
            return;
        };
        // Not killed: it takes its containers and its own mounts with it.
        let _ = Command::new("kill").arg(child.id().to_string()).status();
        let _ = child.wait();
    }
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

//! The socket where supervisors dial, in a server that is out of descriptors: who dials waits, and gets in when there are some
//! again (R2). Everything that a session's programs send to the proxy comes over it.
#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and tells by standard error"
)]

use std::{
    fs::File,
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, getpid, pidfd_open, setrlimit};
use sandbox_host::link::{SOCKET_NAME, bind, serve};

/// In whose environment this stands, that process is the one with few descriptors.
const INNER: &str = "SHORTAGE_INNER";
/// Descriptors of that process.
const FEW: u64 = 48;
/// Connections that wait meanwhile.
const DIALED: usize = 5;

#[test]
fn who_dials_while_descriptors_are_out_is_taken_when_there_are_some_again() {
    if std::env::var_os(INNER).is_some() {
        return with_few_descriptors();
    }
    let inner = Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            "who_dials_while_descriptors_are_out_is_taken_when_there_are_some_again",
            "--nocapture",
        ])
        .env(INNER, "1")
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&inner.stderr).into_owned();
    assert!(inner.status.success(), "{told}");
    assert!(told.contains("taken after the shortage"), "{told}");
}

fn with_few_descriptors() {
    let few = Rlimit {
        current: Some(FEW),
        maximum: Some(FEW),
    };
    setrlimit(Resource::Nofile, few).expect("a limit");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let base = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(base.path().join("socket")).expect("its place");
        let listener = bind(base.path()).expect("a socket");
        let own = getpid();
        let pidfd = pidfd_open(own, PidfdFlags::empty()).expect("this process");
        let mut link = serve(listener, Pid::as_raw(Some(own)), pidfd).expect("a link");
        let dial = || UnixStream::connect(base.path().join("socket").join(SOCKET_NAME));
        // Positive control: while there are descriptors, who dials is taken.
        let first = dial().expect("a connection");
        assert!(taken(&mut link, Duration::from_secs(5)).await);
        let dialed: Vec<_> = (0..DIALED).map(|_| dial().expect("a connection")).collect();
        let mut eaten = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            eaten.push(file);
        }
        assert!(!eaten.is_empty(), "nothing was out");
        assert!(!taken(&mut link, Duration::from_millis(350)).await);
        drop(eaten);
        for _ in &dialed {
            assert!(taken(&mut link, Duration::from_secs(5)).await);
        }
        eprintln!("taken after the shortage");
        drop(first);
    });
}

/// Whether a connection comes in that time.
async fn taken(link: &mut sandbox::Link, patience: Duration) -> bool {
    tokio::time::timeout(patience, link.connections.recv())
        .await
        .is_ok_and(|connection| connection.is_some())
}

//! A host for tests: runs the real supervisor as pid 1 of a private pid, mount and user namespace, as an ordinary user,
//! and speaks the wire protocol with it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::missing_docs_in_private_items
)]

#[path = "../../../../tests/support/skip.rs"]
mod skip;

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        net::{UnixListener, UnixStream},
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use wire::*;

pub const DEFAULT_LEASE_MS: u32 = 60_000;
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Sandbox {
    pub directory: tempfile::TempDir,
    listener: UnixListener,
    child: Child,
    pub connection: Connection,
    pub hello: Hello,
}

pub struct Connection {
    stream: UnixStream,
    decoder: Decoder,
    next_id: u64,
    early: Vec<(u64, Result<Reply, Fault>)>,
}

pub struct Options {
    pub lease_ms: u32,
    pub soft: SoftLimits,
    /// `RLIMIT_NOFILE`, where it is not the tests' own.
    pub open_files: Option<u64>,
    pub binary: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        // The whole suite also runs against another build, the static one of a release for example.
        let other = std::env::var_os("SUPERVISOR_BINARY");
        let binary = other.map_or_else(
            || PathBuf::from(env!("CARGO_BIN_EXE_supervisor")),
            PathBuf::from,
        );
        Options {
            lease_ms: DEFAULT_LEASE_MS,
            soft: SoftLimits::default(),
            open_files: None,
            binary,
        }
    }
}

/// `None`, loudly, where this machine gives an ordinary user no namespaces.
pub fn sandbox() -> Option<Sandbox> {
    sandbox_with(Options::default())
}

/// As [`sandbox`], with other settings.
pub fn sandbox_with(options: Options) -> Option<Sandbox> {
    if !namespaces_available() {
        skip::skip(
            "unprivileged",
            "user namespaces are not available to an ordinary user here",
        );
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let uid = agent_uid();
    for name in ["", "host", "workspace", "state", "outside"] {
        let path = directory.path().join(name);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        give(&path, uid);
    }
    let binary = directory.path().join("supervisor");
    // Not with `fs::copy`: a fork of another test's thread would hold the copy open for writing ("text file busy").
    assert!(
        Command::new("cp")
            .arg(&options.binary)
            .arg(&binary)
            .status()
            .unwrap()
            .success()
    );
    let listener = UnixListener::bind(directory.path().join("host/host.sock")).unwrap();
    fs::set_permissions(
        directory.path().join("host/host.sock"),
        fs::Permissions::from_mode(0o666),
    )
    .unwrap();
    let arguments = SupervisorArguments {
        socket: Some(text(&directory.path().join("host/host.sock"))),
        writable: vec![
            text(&directory.path().join("workspace")),
            text(&directory.path().join("state")),
        ],
        spool: text(&directory.path().join("state")),
        lease_ms: options.lease_ms,
        soft: options.soft,
    };
    let mut command = isolated(uid);
    if let Some(open_files) = options.open_files {
        command.args(["prlimit", &format!("--nofile={open_files}")]);
    }
    command.arg(&binary).args(arguments.to_argv());
    let mut child = command.spawn().unwrap();
    let stream = accept(&listener, &mut child);
    let mut connection = Connection::new(stream);
    let ToHost::Hello(hello) = connection.receive() else {
        panic!("the first frame is no greeting")
    };
    connection.welcome(options.lease_ms);
    Some(Sandbox {
        directory,
        listener,
        child,
        connection,
        hello: *hello,
    })
}

fn isolated(uid: u32) -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "-U",
        "--map-user=1000",
        "--map-group=1000",
        "-m",
        "-p",
        "-f",
        "--mount-proc",
        "--kill-child",
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(uid).gid(uid);
    }
    command
}

fn namespaces_available() -> bool {
    isolated(agent_uid())
        .arg("true")
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Root's tests run the sandbox as an ordinary user of its own, so that RLIMIT_NPROC counts nobody else.
fn agent_uid() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let nth = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 64;
    match rustix::process::geteuid() {
        root if root.is_root() => 700_000 + (std::process::id() % 10_000) * 64 + nth,
        own => own.as_raw(),
    }
}

fn give(path: &Path, uid: u32) {
    if rustix::process::geteuid().is_root() {
        chown(path, Some(uid), Some(uid)).unwrap();
    }
}

pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn accept(listener: &UnixListener, child: &mut Child) -> UnixStream {
    listener.set_nonblocking(true).unwrap();
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return stream;
            }
            Err(_) => {
                if let Some(status) = child.try_wait().unwrap() {
                    panic!("the supervisor ended: {status}");
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    panic!("the supervisor did not dial");
}

impl Sandbox {
    pub fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    pub fn workspace(&self) -> String {
        text(&self.path("workspace"))
    }

    /// Gives a file that the test wrote to the agent.
    pub fn give(&self, path: &Path) {
        let uid =
            std::os::unix::fs::MetadataExt::uid(&fs::metadata(self.path("workspace")).unwrap());
        give(path, uid);
    }

    pub fn shell(&mut self, script: &str) -> StartSpec {
        let mut spec = spec(&["/bin/bash", "-c", script]);
        spec.cwd = self.workspace().into_bytes();
        spec
    }

    /// Starts, waits for the end, reads both streams.
    pub fn run(&mut self, script: &str) -> (ExecutionStatus, String, String) {
        let spec = self.shell(script);
        let key = self.connection.start(&spec);
        let status = self.connection.wait(key);
        let [out, err] = [Stream::Stdout, Stream::Stderr].map(|stream| {
            String::from_utf8_lossy(&self.connection.read_all(key, stream)).into_owned()
        });
        (status, out, err)
    }

    /// Drops the connection and takes the next one that the supervisor dials, without a welcome.
    pub fn redial(&mut self) -> Hello {
        self.connection
            .stream
            .shutdown(std::net::Shutdown::Both)
            .unwrap();
        self.connection = Connection::new(accept(&self.listener, &mut self.child));
        let ToHost::Hello(hello) = self.connection.receive() else {
            panic!("no greeting")
        };
        *hello
    }

    pub fn accept_data(&mut self) -> Connection {
        Connection::new(accept(&self.listener, &mut self.child))
    }

    /// The next connection that is no control connection, as it is.
    pub fn accept_raw(&mut self) -> UnixStream {
        accept(&self.listener, &mut self.child)
    }

    pub fn nothing_dials_within(&self, silence: Duration) -> bool {
        std::thread::sleep(silence);
        self.listener.set_nonblocking(true).unwrap();
        self.listener.accept().is_err()
    }

    /// Pid 1 as the host sees it.
    pub fn supervisor_pid(&self) -> u32 {
        let unshare = self.child.id();
        let children =
            fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
        children.trim().parse().unwrap()
    }

    /// All processes of the sandbox, as the host sees them, pid 1 included.
    pub fn processes(&self) -> Vec<u32> {
        let mut found = vec![self.supervisor_pid()];
        let mut index = 0;
        while index < found.len() {
            let pid = found[index];
            index += 1;
            let children =
                fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .map(|pid| pid.parse::<u32>().unwrap()),
            );
        }
        found
    }

    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.supervisor_pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// What pid 1 has used of a processor.
    pub fn processor_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.supervisor_pid())).unwrap();
        let fields = stat.rsplit(')').next().unwrap().split_whitespace();
        let ticks: u64 = fields
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().unwrap())
            .sum();
        ticks as f64 / 100.0
    }

    /// Waits until pid 1 has ended; true for a clean exit.
    pub fn ended_within(&mut self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success() && status.signal().is_none();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // `--kill-child` ends pid 1 with it, and the kernel everything else.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Connection {
    fn new(stream: UnixStream) -> Self {
        Connection {
            stream,
            decoder: Decoder::new(MAX_TO_HOST_BYTES),
            next_id: 1,
            early: Vec::new(),
        }
    }

    pub fn welcome(&mut self, lease_ms: u32) {
        self.send(&ToSupervisor::Welcome(Welcome {
            protocol: PROTOCOL_VERSION,
            lease_ms,
        }));
    }

    pub fn send(&mut self, message: &ToSupervisor) {
        self.send_raw(&encode(message, MAX_TO_SUPERVISOR_BYTES).unwrap());
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn receive(&mut self) -> ToHost {
        self.try_receive()
            .expect("the supervisor closed the connection")
    }

    /// `None` when the connection was closed.
    pub fn try_receive(&mut self) -> Option<ToHost> {
        let mut buffer = vec![0; 256 * 1024];
        loop {
            if let Some(message) = self.decoder.next().unwrap() {
                return Some(message);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(read) => self.decoder.push(&buffer[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    pub fn ask(&mut self, request: Request) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&ToSupervisor::Request { id, request });
        id
    }

    pub fn reply(&mut self, id: u64) -> Result<Reply, Fault> {
        if let Some(index) = self.early.iter().position(|(early, _)| *early == id) {
            return self.early.swap_remove(index).1;
        }
        loop {
            match self.receive() {
                ToHost::Reply { id: found, result } if found == id => return result,
                ToHost::Reply { id, result } => self.early.push((id, result)),
                ToHost::Hello(_)
                | ToHost::TransferHello { .. }
                | ToHost::RelayHello { .. }
                | ToHost::Transfer(_) => {
                    panic!("no reply")
                }
            }
        }
    }

    pub fn call(&mut self, request: Request) -> Result<Reply, Fault> {
        let id = self.ask(request);
        self.reply(id)
    }

    pub fn fault(&mut self, request: Request) -> FaultKind {
        self.call(request).expect_err("it should be refused").kind
    }

    pub fn start(&mut self, spec: &StartSpec) -> ExecutionKey {
        match self.call(Request::Start(Box::new(spec.clone()))) {
            Ok(Reply::Status(status)) => assert_eq!(status.execution, spec.execution),
            other => panic!("{other:?}"),
        }
        spec.execution
    }

    pub fn wait_for(&mut self, execution: ExecutionKey, wait_ms: u32) -> ExecutionStatus {
        match self.call(Request::Wait { execution, wait_ms }) {
            Ok(Reply::Status(status)) => status,
            other => panic!("{other:?}"),
        }
    }

    pub fn wait(&mut self, execution: ExecutionKey) -> ExecutionStatus {
        let status = self.wait_for(execution, 15_000);
        assert!(status.ended.is_some(), "it did not end: {status:?}");
        status
    }

    pub fn read(
        &mut self,
        execution: ExecutionKey,
        stream: Stream,
        offset: u64,
        wait_ms: u32,
    ) -> OutputChunk {
        let max_bytes = u32::try_from(MAX_CHUNK_BYTES).unwrap();
        match self.call(Request::Read {
            execution,
            stream,
            offset,
            max_bytes,
            wait_ms,
        }) {
            Ok(Reply::Output(chunk)) => chunk,
            other => panic!("{other:?}"),
        }
    }

    /// From offset 0 to the end.
    pub fn read_all(&mut self, execution: ExecutionKey, stream: Stream) -> Vec<u8> {
        let mut all = Vec::new();
        let mut offset = 0;
        loop {
            let chunk = self.read(execution, stream, offset, 10_000);
            offset = chunk.offset + chunk.data.len() as u64;
            all.extend(chunk.data);
            if chunk.status.ended && offset >= chunk.status.total_bytes {
                return all;
            }
        }
    }

    /// Reads until `wanted` has come.
    pub fn read_until(&mut self, execution: ExecutionKey, stream: Stream, wanted: &str) -> String {
        let (mut all, mut offset) = (String::new(), 0);
        while !all.contains(wanted) {
            let chunk = self.read(execution, stream, offset, 10_000);
            assert!(!chunk.data.is_empty(), "{wanted:?} did not come: {all:?}");
            offset = chunk.offset + chunk.data.len() as u64;
            all.push_str(&String::from_utf8_lossy(&chunk.data));
        }
        all
    }
}

pub fn key() -> ExecutionKey {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let mut key = [0; 16];
    key[..8].copy_from_slice(
        &NEXT
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed)
            .to_le_bytes(),
    );
    key
}

pub fn spec(argv: &[&str]) -> StartSpec {
    StartSpec {
        execution: key(),
        argv: argv.iter().map(|part| part.as_bytes().to_vec()).collect(),
        cwd: b"/".to_vec(),
        env: vec![b"PATH=/usr/bin:/bin".to_vec(), b"LC_ALL=C".to_vec()],
        stdin: Stdin::Null,
        terminal: None,
        deadline_ms: None,
        grace_ms: 0,
        output: OutputMode::DropOldest {
            keep_bytes: 1 << 20,
        },
    }
}

pub fn ended(status: &ExecutionStatus) -> Ended {
    status.ended.expect("it has ended")
}

/// Polls until it is true.
pub fn eventually(limit: Duration, what: &str, mut test: impl FnMut() -> bool) {
    let until = Instant::now() + limit;
    while !test() {
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

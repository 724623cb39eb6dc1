//! What is said on the wire.

use serde::{Deserialize, Serialize};

/// Raised with every change of meaning. Host and supervisor come from one build, so they differ only across an update
/// of the server under a running sandbox: the host then keeps the sandbox until its lease ends and starts nothing new.
pub const PROTOCOL_VERSION: u16 = 4;
/// Executions that one supervisor remembers, running and ended together. The oldest ended one makes place.
pub const MAX_EXECUTIONS: usize = 256;
/// Requests that may be open at once; one more is answered [`FaultKind::TooMany`].
pub const MAX_OPEN_REQUESTS: usize = 1024;
/// Longest wait of one request, milliseconds: an abandoned one is gone after that.
pub const MAX_WAIT_MS: u32 = 60_000;
/// Mounts that an attestation lists at most.
pub const MAX_MOUNT_FACTS: usize = 512;

/// Environment that a supervisor keeps for all executions, bytes, one more for each variable (its end as the kernel
/// counts it). Twice the most that one call may give, so that the defaults beside it always fit; together with the
/// largest start it stays below the 2 MiB that the kernel gives arguments and environment with a stack of 8 MiB.
pub const MAX_ENVIRONMENT_BYTES: usize = 256 * 1024;

/// Loopback ports that one supervisor listens on for the host.
pub const MAX_RELAY_PORTS: usize = 8;
/// Connections from inside that are carried to the host at once; more wait until one has ended.
pub const MAX_RELAYED: usize = 256;
/// Longest datagram that is carried, bytes, and longest answer to one: what resolvers that announce a size for their
/// answers commonly take.
pub const MAX_DATAGRAM_BYTES: usize = 4096;
/// Datagrams that wait for the host's answer at once; more wait in the kernel, which drops what it has no room for. A
/// package manager asks for some dozens of names together, each twice.
pub const MAX_OPEN_DATAGRAMS: usize = 64;
/// How long a datagram waits for its answer, milliseconds. Whoever sent it has asked again by then.
pub const DATAGRAM_TIMEOUT_MS: u64 = 5_000;

/// The host's name for an execution, 128 random bits.
pub type ExecutionKey = [u8; 16];

/// Host to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToSupervisor {
    /// The first frame on a control connection, once the peer is accepted.
    Welcome(Welcome),
    /// A request; exactly one [`ToHost::Reply`] with the same id follows.
    Request {
        /// Chosen by the host, unique among open requests.
        id: u64,
        /// What is asked.
        request: Request,
    },
    /// A frame of file content, on a data connection only.
    Transfer(TransferFrame),
}

/// Supervisor to host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// The first frame on a control connection.
    Hello(Box<Hello>),
    /// The first frame on a data connection.
    TransferHello {
        /// Which [`Request::OpenTransfer`] it belongs to.
        transfer: u64,
    },
    /// The first frame on a data connection that carries a connection from inside; only its bytes follow.
    RelayHello {
        /// The port of [`Request::OpenRelay`] that was connected to.
        port: u16,
    },
    /// The answer to a request.
    Reply {
        /// The request's id.
        id: u64,
        /// The answer.
        result: Result<Reply, Fault>,
    },
    /// A frame of file content, on a data connection only.
    Transfer(TransferFrame),
}

/// The supervisor presents itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the supervisor.
    pub protocol: u16,
    /// Random, one for each start of a supervisor: tells a reconnect from a new sandbox.
    pub epoch: [u8; 16],
    /// What the supervisor reads of its own confinement. Taken before anything untrusted ran, and kept.
    pub attestation: Attestation,
}

/// The host accepts the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`PROTOCOL_VERSION`] of the host.
    pub protocol: u16,
    /// New length of the lease from now, milliseconds.
    pub lease_ms: u32,
}

/// What the host can ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The lease ends that long from now. → [`Reply::Done`]
    RenewLease {
        /// Milliseconds.
        lease_ms: u32,
    },
    /// Replace the environment of every later start. A start's own variables win by name. Kept in the supervisor's
    /// memory alone, as long as the sandbox lives. → [`Reply::Done`], or [`FaultKind::Invalid`] over
    /// [`MAX_ENVIRONMENT_BYTES`], for an entry without `=` or with a NUL; what was there before then stays.
    SetEnvironment {
        /// `NAME=value` each, no name twice.
        env: Vec<Vec<u8>>,
    },
    /// Start an execution. A second start of the same key is the first one's answer. → [`Reply::Status`]
    Start(Box<StartSpec>),
    /// Write to standard input. → [`Reply::Accepted`], less than given when the buffer is full.
    WriteStdin {
        /// Which execution.
        execution: ExecutionKey,
        /// At most [`crate::MAX_CHUNK_BYTES`].
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
        /// Close the input once all of `data` is accepted and written.
        close: bool,
    },
    /// Send a signal to the main process of an execution. → [`Reply::Done`]
    Signal {
        /// Which execution.
        execution: ExecutionKey,
        /// Signal number, 1 to 64.
        signal: i32,
    },
    /// Resize an execution's terminal. → [`Reply::Done`]
    Resize {
        /// Which execution.
        execution: ExecutionKey,
        /// The new size.
        size: TerminalSize,
    },
    /// End an execution's whole tree: SIGTERM, then SIGKILL after the grace. → [`Reply::Done`] at once; wait for the end
    /// with [`Request::Wait`].
    Cancel {
        /// Which execution.
        execution: ExecutionKey,
        /// Milliseconds between SIGTERM and SIGKILL.
        grace_ms: u32,
    },
    /// Read output from an offset on. → [`Reply::Output`] as soon as there is a byte at or after `offset`, the stream has
    /// ended, or the wait is over (then empty). In [`OutputMode::Lossless`] it also acknowledges all before `offset`.
    Read {
        /// Which execution.
        execution: ExecutionKey,
        /// Which stream.
        stream: Stream,
        /// First byte wanted.
        offset: u64,
        /// At most [`crate::MAX_CHUNK_BYTES`].
        max_bytes: u32,
        /// Milliseconds, at most [`MAX_WAIT_MS`].
        wait_ms: u32,
    },
    /// Wait for the end of an execution. → [`Reply::Status`] when it ended (its tree is then gone and its output is
    /// complete) or the wait is over.
    Wait {
        /// Which execution.
        execution: ExecutionKey,
        /// Milliseconds, at most [`MAX_WAIT_MS`].
        wait_ms: u32,
    },
    /// All executions that are remembered. → [`Reply::Executions`]
    List,
    /// Forget an ended execution and its output. → [`Reply::Done`]
    Forget {
        /// Which execution.
        execution: ExecutionKey,
    },
    /// Open a transfer: the supervisor dials a data connection that starts with [`ToHost::TransferHello`].
    /// → [`Reply::Done`] once it has dialled.
    OpenTransfer(TransferSpec),
    /// Listen on this port of the loopback interface, as long as the sandbox lives. Every connection there becomes a
    /// data connection that starts with [`ToHost::RelayHello`] and goes on with the bytes as they come, both ways. While
    /// no host is connected, connections wait. A second request for the same port changes nothing, but that it can add
    /// datagrams. → [`Reply::Done`], or [`FaultKind::System`] when the port is taken, [`FaultKind::TooMany`] over
    /// [`MAX_RELAY_PORTS`].
    OpenRelay {
        /// Which port, not 0.
        port: u16,
        /// What is taken there.
        takes: RelayTakes,
    },
    /// End the sandbox now. No reply: the connection closes.
    Shutdown,
}

/// What a relayed port takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelayTakes {
    /// TCP connections.
    Streams,
    /// These, and UDP datagrams. Each becomes a data connection of its own, as if a client had connected, sent this one
    /// message, and waited for one answer: before either stands its length, two bytes, the higher one first, as in DNS
    /// over TCP (RFC 7766, section 8). Over [`MAX_DATAGRAM_BYTES`], empty, or without an answer within
    /// [`DATAGRAM_TIMEOUT_MS`]: dropped, as datagrams may be.
    StreamsAndDatagrams,
}

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartSpec {
    /// The execution's key.
    pub execution: ExecutionKey,
    /// Program (looked up in the `PATH` that it gets when it has no slash) and arguments; at least one.
    pub argv: Vec<Vec<u8>>,
    /// Absolute working directory.
    pub cwd: Vec<u8>,
    /// Its own environment, `NAME=value` each; the rest comes from [`Request::SetEnvironment`].
    pub env: Vec<Vec<u8>>,
    /// Standard input.
    pub stdin: Stdin,
    /// Run on a new terminal of that size: standard input, output and error are the terminal, output comes as stdout.
    pub terminal: Option<TerminalSize>,
    /// SIGKILL the whole tree after that long. Enforced by the supervisor, server or not.
    pub deadline_ms: Option<u64>,
    /// SIGTERM is sent that long before the deadline's SIGKILL would be due after it: at the deadline the tree gets
    /// SIGTERM, and SIGKILL this much later. Milliseconds; 0 kills at once.
    pub grace_ms: u32,
    /// What happens to output that nobody reads.
    pub output: OutputMode,
}

/// What stands on standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// `/dev/null`.
    Null,
    /// A pipe (or the terminal) fed by [`Request::WriteStdin`].
    Open,
}

/// What happens to output that nobody reads. The numbers count bytes of each stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputMode {
    /// The last `keep_bytes` are kept; the program never waits.
    DropOldest {
        /// Kept for each stream.
        keep_bytes: u64,
    },
    /// Nothing is dropped: the program waits once `window_bytes` are unacknowledged.
    Lossless {
        /// Unacknowledged bytes for each stream.
        window_bytes: u64,
    },
}

/// Size of a terminal, character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// An output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The supervisor's answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done,
    /// So many bytes of standard input were taken.
    Accepted(u32),
    /// An execution.
    Status(ExecutionStatus),
    /// All executions, at most [`MAX_EXECUTIONS`].
    Executions(Vec<ExecutionStatus>),
    /// A piece of output.
    Output(OutputChunk),
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputChunk {
    /// Offset of the first byte of `data`; greater than asked when what was asked is no longer kept.
    pub offset: u64,
    /// At most as much as asked.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
    /// Where the stream stands.
    pub status: StreamStatus,
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StreamStatus {
    /// First byte that is still kept.
    pub kept_from: u64,
    /// Bytes so far.
    pub total_bytes: u64,
    /// No more will come.
    pub ended: bool,
}

/// Where an execution stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionStatus {
    /// Its key.
    pub execution: ExecutionKey,
    /// How it ended; `None` while it runs.
    pub ended: Option<Ended>,
    /// Running time so far or in all, microseconds.
    pub duration_us: u64,
    /// Standard output.
    pub stdout: StreamStatus,
    /// Standard error.
    pub stderr: StreamStatus,
}

/// How an execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// What its main process left.
    pub exit: Exit,
    /// Who ended it.
    pub cause: Cause,
    /// Processes of its tree that outlived the main process and were killed.
    pub swept: u32,
}

/// What a main process left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// An exit code, 0 to 255.
    Code(i32),
    /// A signal.
    Signal(i32),
    /// Unknown: its stub was killed from inside before it could report.
    Lost,
}

/// Who ended an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// The program itself (or a signal from inside).
    Itself,
    /// Its deadline.
    Deadline,
    /// [`Request::Cancel`].
    Cancelled,
    /// A soft limit that the supervisor watches.
    SoftLimit,
    /// Its stub was killed from inside; the tree was swept.
    StubKilled,
}

/// A request that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What kind.
    pub kind: FaultKind,
    /// `errno`, where a system call failed, else 0.
    pub errno: i32,
    /// Which step, for our log; at most 256 bytes.
    pub step: String,
}

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// No such execution.
    UnknownExecution,
    /// The execution has ended.
    Ended,
    /// Standard input is closed.
    StdinClosed,
    /// It has no terminal.
    NoTerminal,
    /// As many executions or open requests as there may be.
    TooMany,
    /// The request itself makes no sense.
    Invalid,
    /// The working directory cannot be entered.
    BadCwd,
    /// The program cannot be executed (`errno` says why).
    CannotExecute,
    /// A system call failed (`errno` and `step` say which); resources are short, usually.
    System,
    /// A path of a transfer cannot be used.
    BadPath,
}

/// What the supervisor reads of its own confinement, before it has started anything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attestation {
    /// Name, release and version of the kernel that answers (uname(2)), at most 256 bytes.
    pub kernel: String,
    /// Effective uid.
    pub uid: u32,
    /// Effective gid.
    pub gid: u32,
    /// Process id as seen inside: 1.
    pub pid: u32,
    /// Inheritable, permitted, effective, bounding, ambient.
    pub capabilities: [u64; 5],
    /// `PR_GET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// `Seccomp` of `/proc/self/status`: 2 is a filter.
    pub seccomp_mode: u32,
    /// `Seccomp_filters` of `/proc/self/status`; 1 where a kernel shows a filter and does not count them (before 5.9, and
    /// gVisor's).
    pub seccomp_filters: u32,
    /// Landlock ABI of the kernel; 0: none.
    pub landlock_abi: u32,
    /// The Landlock domain is in force, proved by an access that it refused.
    pub landlock_in_force: bool,
    /// The process cannot be dumped or traced.
    pub not_dumpable: bool,
    /// Inodes of `/proc/self/ns/{user,mnt,pid,net,ipc,uts,cgroup}`; 0 where one cannot be read.
    pub namespaces: [u64; 7],
    /// A write to the root file system fails with EROFS.
    pub root_read_only: bool,
    /// Names of network interfaces, at most 16.
    pub interfaces: Vec<String>,
    /// Soft limits of `RLIMIT_NOFILE`, `RLIMIT_NPROC`, `RLIMIT_FSIZE`, `RLIMIT_CORE`.
    pub rlimits: [u64; 4],
    /// Mounts, at most [`MAX_MOUNT_FACTS`].
    pub mounts: Vec<MountFact>,
}

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountFact {
    /// Mount point inside.
    pub target: String,
    /// File system type.
    pub kind: String,
    /// `MS_RDONLY` on the mount or the file system.
    pub read_only: bool,
    /// `nosuid`.
    pub nosuid: bool,
    /// `nodev`.
    pub nodev: bool,
    /// Size option of a tmpfs, bytes; 0 where there is none.
    pub size_bytes: u64,
}

/// Limits that the supervisor watches where the kernel cannot. 0: not watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SoftLimits {
    /// Resident memory of all processes together (proportional share where the kernel tells it), bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes below `/state`.
    pub state_bytes: u64,
}

/// A transfer to open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferSpec {
    /// Chosen by the host, unique among open transfers.
    pub transfer: u64,
    /// Which way, and where.
    pub kind: TransferKind,
    /// The sending side stops, and the receiving side refuses, beyond so many entries.
    pub max_entries: u64,
    /// … and so many bytes of content.
    pub max_bytes: u64,
}

/// Which way a transfer goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferKind {
    /// Read the tree or file at this absolute path inside, and send it.
    Export {
        /// Absolute path inside.
        path: Vec<u8>,
    },
    /// Receive a tree or file and put it at this absolute path inside. A tree: the path must not exist, or be a directory
    /// that it is merged into. A file: the path must not exist, or be a regular file or a link, which it replaces by one
    /// rename. Nothing of it is visible at the destination before all of it has come. A refusal of the root itself names
    /// the last part of the path.
    Import {
        /// Absolute path inside.
        path: Vec<u8>,
        /// Paths relative to `path` that must not be written (protected paths of a workspace), compared by whole
        /// components at any depth when they start with `**/`.
        refuse: Vec<Vec<u8>>,
    },
}

/// One frame of a transfer, either way: entries parents first, each file followed by its content, then an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferFrame {
    /// The next entry.
    Entry(Entry),
    /// Content of the file entry before it, at most [`crate::MAX_CHUNK_BYTES`].
    Data(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The last frame of the sender, and the receiver's answer to it.
    End(TransferEnd),
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Relative to the root of the transfer, `/` between parts; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, `0o777` at most: setuid, setgid and sticky never travel.
    pub mode: u32,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file with so many bytes to follow.
    File {
        /// Bytes.
        size: u64,
    },
    /// A symbolic link; its target is relative and stays inside the tree.
    Link {
        /// The target.
        target: Vec<u8>,
    },
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferEnd {
    /// All of it.
    Complete {
        /// Entries sent or written.
        entries: u64,
        /// Bytes of content.
        bytes: u64,
    },
    /// Stopped; nothing of it stays.
    Refused {
        /// What kind.
        fault: Fault,
        /// The entry at fault, relative to the root of the transfer.
        path: Vec<u8>,
    },
}

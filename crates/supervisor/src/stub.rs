//! The two processes of an execution: its stub and its main process. Runs after a fork of pid 1.
//!
//! ```text
//! pid 1 ── stub (subreaper, never execs, so never dumpable)
//!            └── main process (new session, exec) ── whatever it starts; orphans come back to the stub
//! ```
//! The stub tells pid 1 through a socket that nothing else can open: /proc/<stub>/fd is closed to the agent, and the main
//! process loses its copy when it execs. It keeps the main process as a zombie until it is killed itself, so the main
//! process's id cannot be taken by another process while pid 1 may still signal it.

use std::{
    ffi::CString,
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::{
    io::{self, Errno},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    process::{
        Pid, Resource, Rlimit, Signal, WaitOptions, chdir, getpid, ioctl_tiocsctty, kill_process,
        set_child_subreaper, setrlimit, setsid, waitpid,
    },
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
};

use crate::sys::{self, CStringArray, Forked};

/// Bytes of one message from the stub.
pub const REPORT_BYTES: usize = 9;
/// What `PATH` is when the environment has none.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";

/// What a stub tells pid 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The main process executes the program.
    Started(i32),
    /// It could not: the step and its errno.
    Failed(Step, i32),
    /// The main process ended with this raw wait status.
    Exited(i32),
}

/// The steps of a start that happen after the forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Forking the main process, its session, terminal, descriptors.
    Prepare,
    /// Entering the working directory.
    Cwd,
    /// Executing the program.
    Execute,
}

impl Report {
    fn encode(self) -> [u8; REPORT_BYTES] {
        let (tag, first, second) = match self {
            Report::Started(pid) => (0, pid, 0),
            Report::Failed(step, errno) => (1, step as i32, errno),
            Report::Exited(status) => (2, status, 0),
        };
        let mut bytes = [tag; REPORT_BYTES];
        bytes[1..5].copy_from_slice(&first.to_le_bytes());
        bytes[5..].copy_from_slice(&second.to_le_bytes());
        bytes
    }

    /// Reads one message.
    pub fn decode(bytes: &[u8; REPORT_BYTES]) -> Option<Self> {
        let number = |at: usize| Some(i32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let (first, second) = (number(1)?, number(5)?);
        match (bytes[0], first) {
            (0, pid) => Some(Report::Started(pid)),
            (1, 0) => Some(Report::Failed(Step::Prepare, second)),
            (1, 1) => Some(Report::Failed(Step::Cwd, second)),
            (1, 2) => Some(Report::Failed(Step::Execute, second)),
            (2, status) => Some(Report::Exited(status)),
            _ => None,
        }
    }
}

/// Two ends for reports. Sockets: unlike a pipe's, their other end cannot be had through `/proc/<pid>/fd`, not even where
/// that is open to the agent (an old gVisor).
///
/// # Errors
/// When no descriptors are left.
pub fn report_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// Everything a start needs, made before the forks.
pub struct Program {
    /// Arguments, the program first.
    pub arguments: CStringArray,
    /// Environment.
    pub environment: CStringArray,
    /// Where to look the program up, in this order: complete paths.
    pub candidates: Vec<CString>,
    /// Working directory.
    pub cwd: CString,
    /// Standard input, output, error.
    pub stdio: [OwnedFd; 3],
    /// Standard output is a terminal that becomes the controlling one.
    pub terminal: bool,
    /// `RLIMIT_NOFILE` as the sandbox was given it: pid 1 raised its own.
    pub nofile: Rlimit,
}

/// The paths under which a program may be found: itself when it has a slash, else one for each part of `PATH`.
pub fn candidates(program: &[u8], environment: &[&[u8]]) -> Vec<Vec<u8>> {
    if program.contains(&b'/') {
        return vec![program.to_vec()];
    }
    let path = environment
        .iter()
        .find_map(|entry| entry.strip_prefix(b"PATH="));
    let directories = path.unwrap_or(DEFAULT_PATH).split(|byte| *byte == b':');
    directories
        .map(|directory| {
            if directory.is_empty() {
                b".".as_slice()
            } else {
                directory
            }
        })
        .map(|directory| [directory, b"/", program].concat())
        .collect()
}

/// The stub's life.
pub fn run(program: &Program, report: &OwnedFd) -> ! {
    match start_main(program, report) {
        Ok(main) => watch(main, report),
        Err((step, errno)) => {
            tell(report, Report::Failed(step, errno.raw_os_error()));
            sys::exit_now(0)
        }
    }
}

fn start_main(program: &Program, report: &OwnedFd) -> Result<Pid, (Step, Errno)> {
    let prepare = |errno| (Step::Prepare, errno);
    match set_child_subreaper(Some(getpid())) {
        // gVisor lets no process but pid 1 be one: orphans then come to pid 1, which kills them as escapees.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(prepare(errno)),
    }
    let (failure_reader, failure_writer) = report_pair().map_err(prepare)?;
    let main = match sys::fork().map_err(prepare)? {
        Forked::Child => become_program(program, &failure_writer),
        Forked::Parent(main) => main,
    };
    // Closed here and not with everything else: an owner must not close a number that is no longer its own.
    drop(failure_writer);
    let executed = await_exec(&failure_reader, report);
    match executed {
        Ok(()) => tell(report, Report::Started(main.as_raw_nonzero().get())),
        // Whatever went wrong, nothing of a start that is reported as failed may go on.
        Err(_) => drop(kill_process(main, Signal::KILL)),
    }
    executed.map(|()| main)
}

fn await_exec(failure_reader: &OwnedFd, report: &OwnedFd) -> Result<(), (Step, Errno)> {
    let prepare = |errno| (Step::Prepare, errno);
    // Everything that is pid 1's goes: the host's socket, the pipes of other executions, this one's output. Their owners
    // stand in frames that the stub never returns to.
    sys::close_all_except(&[failure_reader.as_raw_fd(), report.as_raw_fd()]).map_err(prepare)?;
    let mut failure = [0u8; REPORT_BYTES];
    let read = retry(|| io::read(failure_reader, &mut failure)).map_err(prepare)?;
    match (read, Report::decode(&failure)) {
        (0, _) => Ok(()),
        (_, Some(Report::Failed(step, errno))) => Err((step, Errno::from_raw_os_error(errno))),
        (_, Some(Report::Started(_) | Report::Exited(_)) | None) => Err((Step::Prepare, Errno::IO)),
    }
}

/// Reaps orphans until the main process ends, tells so, and waits to be killed.
fn watch(main: Pid, report: &OwnedFd) -> ! {
    loop {
        match sys::wait_without_reaping() {
            Ok((pid, status)) if pid == main => {
                tell(report, Report::Exited(status));
                break;
            }
            Ok((pid, _)) => {
                let _ = waitpid(Some(pid), WaitOptions::empty());
            }
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    loop {
        // Every signal is blocked, so only the SIGKILL of pid 1 (or of an attacker) ends this.
        rustix::event::pause();
    }
}

fn become_program(program: &Program, failure: &OwnedFd) -> ! {
    let (step, errno) = match prepare(program) {
        Err(failed) => failed,
        Ok(()) => (Step::Execute, execute_first(program)),
    };
    tell(failure, Report::Failed(step, errno.raw_os_error()));
    sys::exit_now(127)
}

fn prepare(program: &Program) -> Result<(), (Step, Errno)> {
    let failed = |errno| (Step::Prepare, errno);
    setsid().map_err(failed)?;
    let [stdin, stdout, stderr] = &program.stdio;
    if program.terminal {
        ioctl_tiocsctty(stdout).map_err(failed)?;
    }
    // The sources stand above 2 (the Rust runtime opens 0 to 2 at start where they are closed), so no copy overwrites
    // another's source.
    dup2_stdin(stdin)
        .and_then(|()| dup2_stdout(stdout))
        .and_then(|()| dup2_stderr(stderr))
        .map_err(failed)?;
    setrlimit(Resource::Nofile, program.nofile).map_err(failed)?;
    sys::mark_all_close_on_exec().map_err(failed)?;
    sys::reset_signals().map_err(failed)?;
    chdir(program.cwd.as_c_str()).map_err(|errno| (Step::Cwd, errno))
}

/// Like execvp(3), but scripts without an interpreter line stay an error.
fn execute_first(program: &Program) -> Errno {
    let mut refused = Errno::NOENT;
    for candidate in &program.candidates {
        match sys::execute(candidate, &program.arguments, &program.environment) {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => refused = Errno::ACCESS,
            errno => return errno,
        }
    }
    refused
}

fn tell(pid_1: &OwnedFd, report: Report) {
    // One message; a reader that is gone means that pid 1 is.
    let _ = retry(|| io::write(pid_1, &report.encode()));
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_read_back_what_they_wrote() {
        for report in [
            Report::Started(7),
            Report::Exited(9),
            Report::Failed(Step::Prepare, 11),
            Report::Failed(Step::Cwd, 2),
            Report::Failed(Step::Execute, 13),
        ] {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
    }

    #[test]
    fn the_given_path_decides_where_a_program_is_looked_up() {
        let environment: [&[u8]; 2] = [b"HOME=/", b"PATH=/a::/b"];
        assert_eq!(
            candidates(b"x", &environment),
            [b"/a/x".to_vec(), b"./x".to_vec(), b"/b/x".to_vec()]
        );
        assert_eq!(candidates(b"./x", &environment), [b"./x".to_vec()]);
        assert_eq!(candidates(b"x", &[])[0], b"/usr/local/bin/x");
    }
}

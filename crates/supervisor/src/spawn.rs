//! Starting an execution: its descriptors, then the stub.

use std::{ffi::CString, os::fd::OwnedFd};

use rustix::{
    fs::{CWD, Mode, OFlags, fcntl_getfl, fcntl_setfl, openat},
    io::{self, fcntl_dupfd_cloexec},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Rlimit},
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use wire::{Fault, FaultKind, OutputMode, StartSpec, Stdin, TerminalSize};

use crate::{
    fault::{fault, system},
    input::{Input, InputKind},
    output::{MAX_KEEP_BYTES, Output},
    stub::{self, Program},
    sys::{self, CStringArray, Forked},
};

/// Pid 1's side of a new execution.
pub struct Spawned {
    /// The stub.
    pub stub: Pid,
    /// Where it reports.
    pub report: OwnedFd,
    /// Standard input.
    pub input: Input,
    /// Standard output, or the terminal.
    pub stdout: Output,
    /// Standard error.
    pub stderr: Output,
    /// A slave of the terminal that keeps it open while the execution runs: a master without slaves hangs up, and a
    /// program may close and open its terminal.
    pub terminal: Option<OwnedFd>,
}

/// Forks the stub. `env` is all of the environment, that of `spec` included. Whether the program could be executed comes
/// through [`Spawned::report`].
pub fn spawn(spec: &StartSpec, env: &[&[u8]], nofile: &Rlimit) -> Result<Spawned, Fault> {
    check(spec)?;
    let invalid = || fault(FaultKind::Invalid, "a NUL in a string");
    let arguments = CStringArray::new(spec.argv.iter().map(Vec::as_slice)).ok_or_else(invalid)?;
    let environment = CStringArray::new(env.iter().copied()).ok_or_else(invalid)?;
    let candidates = stub::candidates(&spec.argv[0], env);
    let candidates = candidates
        .into_iter()
        .map(CString::new)
        .collect::<Result<_, _>>()
        .map_err(|_| invalid())?;
    let cwd = CString::new(spec.cwd.as_slice()).map_err(|_| invalid())?;
    let Ends { ours, theirs } = match spec.terminal {
        Some(size) => terminal_ends(spec, size),
        None => pipe_ends(spec),
    }
    .map_err(system("make pipes or a terminal"))?;
    let (report, stub_report) = stub::report_pair().map_err(system("make a pair of sockets"))?;
    set_nonblocking(&report).map_err(system("set up a socket"))?;
    let terminal = spec.terminal.is_some();
    let program = Program {
        arguments,
        environment,
        candidates,
        cwd,
        stdio: theirs,
        terminal,
        nofile: *nofile,
    };
    let stub = match sys::fork().map_err(system("fork"))? {
        Forked::Child => stub::run(&program, &stub_report),
        Forked::Parent(stub) => stub,
    };
    Ok(Spawned {
        stub,
        report,
        input: ours.input,
        stdout: ours.stdout,
        stderr: ours.stderr,
        terminal: ours.terminal,
    })
}

fn check(spec: &StartSpec) -> Result<(), Fault> {
    let invalid = |step| Err(fault(FaultKind::Invalid, step));
    if spec.argv.first().is_none_or(Vec::is_empty) {
        return invalid("no program");
    }
    if spec.cwd.first() != Some(&b'/') {
        return invalid("the working directory is not absolute");
    }
    if spec.env.iter().any(|entry| !entry.contains(&b'=')) {
        return invalid("an environment entry without a value");
    }
    match spec.output {
        OutputMode::DropOldest { keep_bytes } if keep_bytes > MAX_KEEP_BYTES => {
            invalid("too much output to keep")
        }
        OutputMode::Lossless { window_bytes: 0 } => invalid("a window of nothing"),
        OutputMode::Lossless { window_bytes } if window_bytes > MAX_KEEP_BYTES => {
            invalid("too much output to keep")
        }
        OutputMode::DropOldest { .. } | OutputMode::Lossless { .. } => Ok(()),
    }
}

struct Ends {
    ours: Ours,
    theirs: [OwnedFd; 3],
}

struct Ours {
    input: Input,
    stdout: Output,
    stderr: Output,
    terminal: Option<OwnedFd>,
}

fn pipe_ends(spec: &StartSpec) -> io::Result<Ends> {
    let (stdin, input) = match spec.stdin {
        Stdin::Null => (dev_null()?, None),
        Stdin::Open => {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            set_nonblocking(&writer)?;
            (reader, Some(writer))
        }
    };
    let output = || -> io::Result<(Output, OwnedFd)> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        // The two ends are separate files: the program's end stays blocking.
        set_nonblocking(&reader)?;
        Ok((Output::new(Some(reader), spec.output), writer))
    };
    let ((stdout, their_stdout), (stderr, their_stderr)) = (output()?, output()?);
    let ours = Ours {
        input: Input::new(input, InputKind::Pipe),
        stdout,
        stderr,
        terminal: None,
    };
    Ok(Ends {
        ours,
        theirs: [stdin, their_stdout, their_stderr],
    })
}

fn terminal_ends(spec: &StartSpec, size: TerminalSize) -> io::Result<Ends> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    // By descriptor, not by name: the name is right only where /dev/ptmx and /dev/pts are one instance.
    let slave = ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?;
    tcsetwinsize(&slave, window_size(size))?;
    set_nonblocking(&master)?;
    let duplicate = |of: &OwnedFd| fcntl_dupfd_cloexec(of, 3);
    let (stdin, input) = match spec.stdin {
        Stdin::Null => (dev_null()?, None),
        Stdin::Open => (duplicate(&slave)?, Some(duplicate(&master)?)),
    };
    let theirs = [stdin, duplicate(&slave)?, duplicate(&slave)?];
    let ours = Ours {
        input: Input::new(input, InputKind::Terminal),
        stdout: Output::new(Some(master), spec.output),
        stderr: Output::new(None, spec.output),
        terminal: Some(slave),
    };
    Ok(Ends { ours, theirs })
}

/// The kernel's form of a size.
pub fn window_size(size: TerminalSize) -> Winsize {
    Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn dev_null() -> io::Result<OwnedFd> {
    openat(
        CWD,
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn set_nonblocking(descriptor: &OwnedFd) -> io::Result<()> {
    fcntl_setfl(descriptor, fcntl_getfl(descriptor)? | OFlags::NONBLOCK)
}

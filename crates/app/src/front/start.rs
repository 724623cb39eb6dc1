//! Starts a server that outlives the front: its own session, no terminal, no parent that a client would end with it.
//!
//! ```text
//! front ─ spawn `serve --on-demand` ─► stage: setsid, spawn `serve --on-demand --detached`, exit
//!   ▲                                    └─► server: lock, build, listen, one line on the pipe
//!   └──────────────── pipe ◄──────────────────────────────────┘
//! ```
//! The pipe is the stage's and the server's standard output: its end without a line means that the server died.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use crate::server::open_log_file;

/// After that long a person wants to know what is going on.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);
/// Lines of the log that an error shows.
const LOG_LINES: usize = 10;
/// Bytes of the log that an error shows.
const LOG_BYTES: u64 = 4096;
/// Longest line on the pipe, bytes.
const READY_LINE_BYTES: usize = 4096;

/// How starting a server went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// It listens.
    Ready,
    /// Another process is the server, or is still giving it up.
    AnotherHoldsTheLock,
}

/// Starts servers. Fronts hold a lock while they call it.
pub trait Starter {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// When it died or was not ready in time.
    fn start(&self, deadline: Instant) -> Result<Started, StartError>;
}

/// Why no server was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its log cannot be opened.
    #[error("cannot open the server's log {path}", path = path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program cannot be executed.
    #[error("cannot execute {program}", program = program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its answer cannot be read.
    #[error("cannot read the server's answer")]
    Answer(#[source] io::Error),
    /// It could not start and said why.
    #[error("{0}")]
    Failed(String),
    /// It died.
    #[error("it died; the last lines of {log}:\n{lines}", log = log.display())]
    Died {
        /// The log.
        log: PathBuf,
        /// Its end, as far as this server wrote it.
        lines: String,
    },
    /// It did not listen in time.
    #[error("it was not ready in time; see {log}", log = log.display())]
    Timeout {
        /// The log.
        log: PathBuf,
    },
}

/// The line that a server writes on the pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum ReadyLine {
    /// It listens.
    Ready,
    /// Another process holds the lock.
    Taken,
    /// It cannot start.
    Failed {
        /// Why.
        message: String,
    },
}

impl ReadyLine {
    /// Writes the line on standard output, which then becomes `/dev/null`: the front waits for its end.
    ///
    /// # Errors
    /// When `/dev/null` cannot be opened. A front that is gone is no error.
    pub fn send(&self) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        let mut output = io::stdout().lock();
        let _ = output.write_all(&line).and_then(|()| output.flush());
        rustix::stdio::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
        Ok(())
    }
}

/// Starts this program as server.
#[derive(Debug)]
pub struct ProgramStarter {
    /// The program.
    pub program: PathBuf,
    /// Configuration flags to hand on, before `serve`.
    pub arguments: Vec<OsString>,
    /// The server's log.
    pub log: PathBuf,
    /// Say on standard error what is going on when it takes long.
    pub progress: bool,
}

impl Starter for ProgramStarter {
    fn start(&self, deadline: Instant) -> Result<Started, StartError> {
        let log = open_log_file(&self.log).map_err(|source| StartError::Log {
            path: self.log.clone(),
            source,
        })?;
        let begin = log.metadata().map_or(0, |metadata| metadata.len());
        let failed = |source| StartError::Spawn {
            program: self.program.clone(),
            source,
        };
        let mut stage = Command::new(&self.program)
            .args(&self.arguments)
            .args(["serve", "--on-demand"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let pipe = stage
            .stdout
            .take()
            .ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        let line = self.await_line(pipe, deadline);
        // The stage has exited, or never will: it only spawns. Not waited for in the second case.
        let _ = stage.try_wait();
        let line = line?;
        match serde_json::from_slice(&line) {
            Ok(ReadyLine::Ready) => Ok(Started::Ready),
            Ok(ReadyLine::Taken) => Ok(Started::AnotherHoldsTheLock),
            Ok(ReadyLine::Failed { message }) => Err(StartError::Failed(message)),
            Err(_) => Err(StartError::Died {
                log: self.log.clone(),
                lines: last_lines(&self.log, begin),
            }),
        }
    }
}

impl ProgramStarter {
    /// What the pipe says until its first line ends, or it does.
    fn await_line(
        &self,
        mut pipe: impl Read + AsFd,
        deadline: Instant,
    ) -> Result<Vec<u8>, StartError> {
        let mut line = Vec::new();
        let mut announced = false;
        let begin = Instant::now();
        loop {
            if !announced && self.progress && begin.elapsed() >= PROGRESS_AFTER {
                let _ = writeln!(io::stderr(), "claude-code-mcp: starting the server…");
                announced = true;
            }
            if Instant::now() >= deadline {
                return Err(StartError::Timeout {
                    log: self.log.clone(),
                });
            }
            if !is_readable(&pipe).map_err(StartError::Answer)? {
                continue;
            }
            let mut chunk = [0; 512];
            let count = pipe.read(&mut chunk).map_err(StartError::Answer)?;
            line.extend_from_slice(chunk.get(..count).unwrap_or_default());
            if count == 0 || line.ends_with(b"\n") || line.len() > READY_LINE_BYTES {
                return Ok(line);
            }
        }
    }
}

fn is_readable(pipe: &impl AsFd) -> io::Result<bool> {
    let wait = Timespec {
        tv_sec: 0,
        tv_nsec: 200_000_000,
    };
    let mut polled = [PollFd::new(pipe, PollFlags::IN)];
    match poll(&mut polled, Some(&wait)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// The end of the log, from `begin` on. Control characters are left out: it goes to a terminal.
fn last_lines(log: &Path, begin: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(
            begin.max(end.saturating_sub(LOG_BYTES)).min(end),
        ))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            format!(
                "  {}",
                line.chars()
                    .filter(|letter| !letter.is_control())
                    .collect::<String>()
            )
        })
        .collect();
    if lines.is_empty() {
        "  (nothing)".to_owned()
    } else {
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A program that stands for the server: what it writes and how it ends is up to the script.
    fn outcome(script: &str) -> Result<Started, String> {
        let scratch = tempfile::tempdir().unwrap();
        let program = scratch.path().join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let log = scratch.path().join("server.log");
        std::fs::write(&log, "an older line\n").unwrap();
        let starter = ProgramStarter {
            program,
            arguments: Vec::new(),
            log: log.clone(),
            progress: false,
        };
        let started = starter.start(Instant::now() + Duration::from_secs(1));
        started.map_err(|error| error.to_string().replace(&log.display().to_string(), "LOG"))
    }

    #[test]
    fn the_servers_own_word_decides() {
        assert_eq!(outcome(r#"echo '{"state":"ready"}'"#), Ok(Started::Ready));
        assert_eq!(
            outcome(r#"echo '{"state":"taken"}'"#),
            Ok(Started::AnotherHoldsTheLock)
        );
        assert_eq!(
            outcome(r#"echo '{"state":"failed","message":"no luck"}'"#),
            Err("no luck".into())
        );
    }

    #[test]
    fn a_server_that_dies_is_reported_with_the_last_lines_of_its_log() {
        let said =
            outcome("for i in 1 2 3 4 5 6 7 8 9 10 11; do echo \"line $i\" >&2; done; exit 3")
                .unwrap_err();
        assert!(
            said.starts_with("it died; the last lines of LOG:\n  line 2\n"),
            "{said}"
        );
        assert!(
            said.ends_with("line 11") && !said.contains("older"),
            "{said}"
        );
        assert_eq!(
            outcome("exit 0").unwrap_err(),
            "it died; the last lines of LOG:\n  (nothing)"
        );
    }

    #[test]
    fn a_server_that_hangs_is_given_up() {
        assert_eq!(
            outcome("exec sleep 3").unwrap_err(),
            "it was not ready in time; see LOG"
        );
    }
}

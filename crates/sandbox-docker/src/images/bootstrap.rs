//! A base from Debian's packages, where no registry can be reached: `mmdebstrap` writes a root file system as a tar, which
//! is passed on to the engine as it comes.
//!
//! mmdebstrap runs in a process group of its own, so that a terminal's Ctrl-C reaches us alone: its group is told to end,
//! and waited for, since only it knows what it has mounted. What it leaves is not deleted while anything is mounted there.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, stream};
use rustix::process::{Pid, Signal, kill_process_group};
use sandbox_host::delete;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStderr, ChildStdout, Command},
    sync::oneshot,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    ImageError,
    build::{LastLines, Progress, Tell},
    recipe,
};
use crate::engine::{Engine, Pulse};

/// Debian 12.
const SUITE: &str = "bookworm";
/// What the image is made of, for its label.
pub(super) const SUITE_NAME: &str = "debian packages: bookworm, minbase";
const PROGRAM: &str = "mmdebstrap";
/// How long mmdebstrap may take to clean up.
const END_LIMIT: Duration = Duration::from_secs(30);
/// Bytes that are passed on at a time.
const PART_BYTES: usize = 256 * 1024;

/// Makes an image of that name.
///
/// # Errors
/// See [`ImageError`]. mmdebstrap has ended when this returns.
pub(super) async fn import(
    engine: &Engine,
    name: &str,
    labels: &HashMap<String, String>,
    scratch: &Path,
    stop: &CancellationToken,
    tell: Tell<'_>,
) -> Result<(), ImageError> {
    tell(Progress::Step("make a root file system of Debian packages"));
    let sources = sources().await?;
    let scratch = Scratch::make(scratch)?;
    let mut bootstrap = match Bootstrap::start(&scratch.0, &sources) {
        Ok(bootstrap) => bootstrap,
        Err(error) => {
            scratch.remove()?;
            return Err(error);
        }
    };
    let imported = {
        let pulse = Pulse::new();
        let (ended, end) = oneshot::channel();
        let tar = tar(bootstrap.stdout()?, end, pulse.clone());
        let importing = async {
            let path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
            let mut changes = recipe::instructions(labels);
            changes.push(path.to_owned());
            engine.import(name, changes, tar, &pulse).await?;
            Ok(())
        };
        let watching = bootstrap.watch(ended, &pulse, tell);
        tokio::select! {
            done = async { tokio::try_join!(importing, watching) } => done.map(drop),
            () = stop.cancelled() => Err(ImageError::Interrupted),
        }
    };
    bootstrap.end().await?;
    scratch.remove()?;
    imported
}

/// Debian's package sources as this machine is set up, in apt's one-line style; without any, mmdebstrap takes its own.
async fn sources() -> Result<Vec<String>, ImageError> {
    let format = "$(ORIGIN)|$(RELEASE)|deb $(REPO_URI) $(RELEASE) $(COMPONENT)";
    let told = Command::new("apt-get")
        .args(["indextargets", "--format", format, "Created-By: Packages"])
        .stdin(Stdio::null())
        .output()
        .await;
    let told = match told {
        // Then there is no mmdebstrap either, which says more.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        told => told.map_err(|source| ImageError::Step {
            step: "ask apt-get for its sources",
            source,
        })?,
    };
    Ok(sources_of_suite(&String::from_utf8_lossy(&told.stdout)))
}

fn sources_of_suite(told: &str) -> Vec<String> {
    let of_suite = |release: &str| {
        release
            .strip_prefix(SUITE)
            .is_some_and(|rest| ["", "-updates", "-security"].contains(&rest))
    };
    let mut sources: Vec<String> = told
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, '|');
            let (origin, release, source) = (parts.next()?, parts.next()?, parts.next()?);
            (origin == "Debian" && of_suite(release)).then(|| source.to_owned())
        })
        .collect();
    sources.sort_unstable();
    sources.dedup();
    sources
}

/// A directory for mmdebstrap's own ones.
struct Scratch(PathBuf);

impl Scratch {
    fn make(place: &Path) -> Result<Self, ImageError> {
        let step = |source| ImageError::Step {
            step: "make a scratch directory",
            source,
        };
        let random = model::SessionId::random().map_err(|error| step(io::Error::other(error)))?;
        let name = format!(
            "claude-code-mcp-image-{}",
            hex::encode(&random.as_bytes()[..8])
        );
        let path = place.join(name);
        // apt's own user must get through.
        fs::DirBuilder::new()
            .mode(0o711)
            .create(&path)
            .map_err(step)?;
        Ok(Scratch(path))
    }

    /// An mmdebstrap that was ended leaves directories of its helpers. Nothing is deleted while something is mounted below.
    fn remove(self) -> Result<(), ImageError> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let path = self.0;
        let below = path.to_string_lossy().into_owned();
        if mounts.is_empty() || mounts.contains(&below) || delete(&path).is_err() {
            return Err(ImageError::LeftBehind { path });
        }
        Ok(())
    }
}

struct Bootstrap {
    child: Child,
    group: Option<Pid>,
}

impl Bootstrap {
    fn start(scratch: &Path, sources: &[String]) -> Result<Self, ImageError> {
        let hook = format!("chroot \"$1\" /bin/sh -euc '{}'", recipe::account_script());
        let child = Command::new(PROGRAM)
            .args(["--variant=minbase", "--format=tar"])
            .arg(format!("--include={}", recipe::PACKAGES.join(",")))
            .arg(format!("--customize-hook={hook}"))
            .args([SUITE, "-"])
            .args(sources)
            .env("TMPDIR", scratch)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(not_started)?;
        let group = child
            .id()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        Ok(Bootstrap { child, group })
    }

    fn stdout(&mut self) -> Result<ChildStdout, ImageError> {
        self.child.stdout.take().ok_or_else(no_pipe)
    }

    /// Tells what mmdebstrap says until it ends, and whoever reads its output how.
    async fn watch(
        &mut self,
        ended: oneshot::Sender<()>,
        pulse: &Pulse,
        tell: Tell<'_>,
    ) -> Result<(), ImageError> {
        let stderr = self.child.stderr.take().ok_or_else(no_pipe)?;
        let last = listen(stderr, pulse, tell).await;
        let status = self.child.wait().await.map_err(|source| ImageError::Step {
            step: "wait for mmdebstrap",
            source,
        })?;
        if !status.success() {
            return Err(ImageError::Mmdebstrap { last: last.text() });
        }
        // Whoever reads may have given up; then there is nothing to tell.
        let _ = ended.send(());
        tell(Progress::Step("import it into the engine"));
        Ok(())
    }

    /// It has ended when this returns.
    async fn end(&mut self) -> Result<ExitStatus, ImageError> {
        let step = |source| ImageError::Step {
            step: "end mmdebstrap",
            source,
        };
        if let Some(status) = self.child.try_wait().map_err(step)? {
            return Ok(status);
        }
        self.signal(Signal::TERM);
        if let Ok(status) = timeout(END_LIMIT, self.child.wait()).await {
            return status.map_err(step);
        }
        self.signal(Signal::KILL);
        self.child.wait().await.map_err(step)
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // It may have ended just now.
            let _ = kill_process_group(group, signal);
        }
    }
}

fn not_started(source: io::Error) -> ImageError {
    if source.kind() == io::ErrorKind::NotFound {
        return ImageError::NoMmdebstrap;
    }
    ImageError::Step {
        step: "start mmdebstrap",
        source,
    }
}

fn no_pipe() -> ImageError {
    ImageError::Step {
        step: "read what mmdebstrap writes",
        source: io::ErrorKind::BrokenPipe.into(),
    }
}

async fn listen(stderr: ChildStderr, pulse: &Pulse, tell: Tell<'_>) -> LastLines {
    let mut last = LastLines::default();
    let mut lines = BufReader::new(stderr).split(b'\n');
    let mut alive = tokio::time::interval(Duration::from_secs(5));
    loop {
        let line = tokio::select! {
            line = lines.next_segment() => line,
            // As long as it runs it has time limits of its own: apt's.
            _ = alive.tick() => { pulse.beat(); continue; }
        };
        let Ok(Some(line)) = line else { return last };
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_start_matches("I: ").trim();
        if !line.is_empty() {
            last.push(line);
            tell(Progress::Detail(line));
        }
    }
}

/// What mmdebstrap writes. Ends as a whole only when mmdebstrap has ended well: half a tar must not become an image.
fn tar(
    stdout: ChildStdout,
    end: oneshot::Receiver<()>,
    pulse: Pulse,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold(Some((stdout, end)), move |state| {
        let pulse = pulse.clone();
        async move {
            let Some((mut stdout, end)) = state else {
                return Ok(None);
            };
            let mut part = bytes::BytesMut::with_capacity(PART_BYTES);
            if stdout.read_buf(&mut part).await? > 0 {
                pulse.beat();
                return Ok(Some((part.freeze(), Some((stdout, end)))));
            }
            match end.await {
                Ok(()) => Ok(None),
                Err(_) => Err(io::Error::other("mmdebstrap did not end well")),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debians_sources_of_the_suite_are_taken() {
        let told = "\
Debian|bookworm|deb http://here/debian/ bookworm main\n\
Debian|bookworm|deb http://here/debian/ bookworm main\n\
Debian|bookworm-security|deb http://here/security/ bookworm-security main\n\
Debian|bookworm-backports|deb http://here/debian/ bookworm-backports main\n\
Debian|trixie|deb http://here/debian/ trixie main\n\
Node|bookworm|deb http://there/ bookworm main\n\
nonsense\n";
        assert_eq!(
            sources_of_suite(told),
            [
                "deb http://here/debian/ bookworm main",
                "deb http://here/security/ bookworm-security main",
            ]
        );
        assert!(sources_of_suite("").is_empty());
    }
}

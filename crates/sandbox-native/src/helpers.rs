//! The server's side of its helpers. One is started ahead, after the first creation: it stands executed and linked, reads
//! its channel, and knows nothing yet, so that the next creation need not wait for a start. It ends when the channel
//! closes, so it never outlives the server.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use sandbox::BackendError;

use crate::{
    channel,
    config::NativeConfig,
    plan::{Answer, Order},
};

/// How long the helper may take: a healthy machine needs milliseconds, a thrashing one seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the next helper's start waits for the sandbox just made to greet and to begin its first execution, which come
/// within milliseconds: on a machine with few cores, they would share one with it.
const PAUSE: Duration = Duration::from_millis(25);

/// Starts helpers, and keeps one ready.
pub(crate) struct Helpers(Arc<Ahead>);

struct Ahead {
    config: NativeConfig,
    ready: Mutex<Option<Helper>>,
}

/// A helper without an order. Dropped, it is ended.
struct Helper {
    process: Child,
    channel: UnixStream,
}

impl Helpers {
    /// Starts nothing yet.
    pub fn new(config: &NativeConfig) -> Self {
        Helpers(Arc::new(Ahead {
            config: config.clone(),
            ready: Mutex::new(None),
        }))
    }

    /// Tells a helper what to do and waits for its answer.
    ///
    /// # Errors
    /// When none can be started, or it ends without an answer or takes too long.
    pub fn ask(
        &self,
        order: &Order,
        program: Option<&OwnedFd>,
    ) -> Result<(Answer, Option<OwnedFd>), BackendError> {
        let program = program.map(AsFd::as_fd);
        let waiting = self.0.take();
        // One that died meanwhile got nothing of the order: another one takes its place.
        let told = waiting.filter(|helper| channel::send(&helper.channel, order, program).is_ok());
        let helper = match told {
            Some(helper) => helper,
            None => {
                let helper =
                    Helper::start(&self.0.config).map_err(|e| step("start the helper", e))?;
                channel::send(&helper.channel, order, program)
                    .map_err(|e| step("tell the helper", e))?;
                helper
            }
        };
        let answer = channel::receive(&helper.channel).map_err(|error| {
            tracing::error!(%error, "the helper gave no answer");
            step("hear from the helper", error)
        })?;
        let next = matches!(answer.0, Answer::Created { .. }).then(|| Arc::downgrade(&self.0));
        helper.let_end(next);
        Ok(answer)
    }

    /// The process that waits for the next creation, if one does.
    #[cfg(test)]
    fn waiting(&self) -> Option<u32> {
        let ready = self.0.ready.lock().unwrap_or_else(PoisonError::into_inner);
        Some(ready.as_ref()?.process.id())
    }
}

impl Ahead {
    fn take(&self) -> Option<Helper> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.take()
    }

    /// Does nothing when one is ready.
    fn start_next(&self) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.is_some() {
            return;
        }
        match Helper::start(&self.config) {
            Ok(helper) => *ready = Some(helper),
            // The next creation tries again, and says why.
            Err(error) => tracing::debug!(%error, "no helper could be started ahead"),
        }
    }
}

impl Helper {
    fn start(config: &NativeConfig) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        for set in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            set(&ours, Some(PATIENCE))?;
        }
        let process = Command::new(&config.helper)
            .args(&config.helper_arguments)
            .arg0("claude-code-mcp-helper")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Helper {
            process,
            channel: ours,
        })
    }

    /// It has nothing left to do but end; nobody needs to wait for that. Then the next one is started.
    fn let_end(mut self, next: Option<Weak<Ahead>>) {
        let reaper = std::thread::Builder::new().name("helper-reaper".to_owned());
        let spawned = reaper.spawn(move || {
            let _ = self.process.wait();
            let Some(next) = next else { return };
            std::thread::sleep(PAUSE);
            if let Some(ahead) = next.upgrade() {
                ahead.start_next();
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no helper is started ahead");
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Both are no-ops for one that was waited for.
        let _ = self.process.kill().and_then(|()| self.process.wait());
    }
}

fn step(step: &str, source: io::Error) -> BackendError {
    BackendError::Step {
        step: step.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, path::Path};

    use model::OwnerId;

    use super::*;

    /// A helper that reads its channel to the end.
    fn helpers(directory: &Path) -> Helpers {
        let mut config = NativeConfig::new(directory.to_owned(), OwnerId::from_bytes([7; 8]));
        config.helper = "/bin/cat".into();
        config.helper_arguments = Vec::new();
        Helpers::new(&config)
    }

    fn alive(pid: u32) -> bool {
        Path::new("/proc").join(pid.to_string()).exists()
    }

    #[test]
    fn one_helper_waits_and_ends_with_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let helpers = helpers(directory.path());
        assert_eq!(
            helpers.waiting(),
            None,
            "nothing is started before it is needed"
        );
        helpers.0.start_next();
        let pid = helpers.waiting().unwrap();
        helpers.0.start_next();
        assert_eq!(helpers.waiting(), Some(pid), "one is enough");
        assert!(alive(pid));
        drop(helpers);
        assert!(!alive(pid));
    }

    #[test]
    fn a_waiting_helper_ends_when_its_channel_closes() {
        let directory = tempfile::tempdir().unwrap();
        let helpers = helpers(directory.path());
        helpers.0.start_next();
        let mut helper = helpers.0.take().unwrap();
        helper.channel.shutdown(std::net::Shutdown::Both).unwrap();
        assert!(helper.process.wait().unwrap().success());
    }

    #[test]
    fn a_helper_that_died_while_it_waited_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("helper");
        // Answers a probe like the helper does; the first one ends at once.
        let answer = "\\010\\000\\000\\000\"Probed\"";
        let text = format!(
            "#!/bin/sh\nif mkdir {0}/first 2>/dev/null; then exit 0; fi\nprintf '{answer}' >&0\n",
            directory.path().display()
        );
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut config =
            NativeConfig::new(directory.path().to_owned(), OwnerId::from_bytes([7; 8]));
        config.helper = script;
        let helpers = Helpers::new(&config);
        helpers.0.start_next();
        let dead = helpers.waiting().unwrap();
        while !std::fs::read_to_string(format!("/proc/{dead}/stat"))
            .unwrap()
            .contains(") Z ")
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        let order = Order::Probe(crate::plan::Identity::Single { uid: 1, gid: 1 });
        assert!(matches!(
            helpers.ask(&order, None),
            Ok((Answer::Probed, None))
        ));
        assert_eq!(helpers.waiting(), None, "a probe starts none ahead");
    }
}

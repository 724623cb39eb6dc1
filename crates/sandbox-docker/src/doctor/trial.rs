//! One short sandbox, made like a session's, in which the supervisor's program tries the walls from inside; and what the
//! engine says of its container. Asks nothing of the engine that sessions do not ask.

use std::time::Duration;

use model::{SUPERVISOR_DIRECTORY, SandboxSpec, SessionId};
use sandbox::{
    Backend, BackendError, HostView, Supervisor, SupervisorError, Weakness, verify,
    wire::{
        Exit, MAX_CHUNK_BYTES, MAX_TRIAL_BYTES, OutputMode, StartSpec, Stdin, Stream, TRIAL_OPTION,
        TrialError, TrialFinding, read_trial,
    },
};

use super::benchmark::{self, Item};
use crate::{Docker, host_config::PROGRAM_NAME, inspection::live};

/// Longest time for a supervisor to greet.
const GREETING: Duration = Duration::from_secs(5);
/// Longest time for the probes themselves; they take some milliseconds.
const PROBES: Duration = Duration::from_secs(10);
/// How long the sandbox lives if nobody removes it: longer than all of the above.
pub const TRIAL_LEASE: Duration = Duration::from_secs(30);

/// What a trial found.
#[derive(Debug)]
pub struct Trial {
    /// Every probe, and what became of it.
    pub findings: Vec<TrialFinding>,
    /// The benchmark over the trial's container.
    pub benchmark: Vec<Item>,
    /// What makes the sandbox weaker than the profile, if anything: a session would have been refused.
    pub weakness: Option<Weakness>,
}

/// A trial that was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum TrialFailure {
    /// The sandbox could not be made, looked at or removed.
    #[error("the trial's sandbox could not be made or removed")]
    Sandbox(#[from] BackendError),
    /// Its supervisor did not answer as it must.
    #[error("the trial's supervisor did not answer as it must")]
    Supervisor(#[from] SupervisorError),
    /// The host's own namespaces cannot be read.
    #[error("the host's own namespaces cannot be read")]
    Host(#[source] std::io::Error),
    /// The program ended otherwise than it must.
    #[error("the trial ended with {exit:?}: {said}")]
    Ended {
        /// How.
        exit: Option<Exit>,
        /// What it said of it.
        said: String,
    },
    /// What it printed is no report.
    #[error("the trial's report cannot be read")]
    Report(#[from] TrialError),
}

impl Docker {
    /// Makes the sandbox, tries its walls and removes it again, whatever is found. A caller that stops waiting must call
    /// [`Backend::destroy`] for the spec's session.
    ///
    /// # Errors
    /// [`TrialFailure`]: nothing is known of the walls then.
    pub async fn try_walls(&self, spec: &SandboxSpec) -> Result<Trial, TrialFailure> {
        let trial = self.try_in(spec).await;
        self.destroy(spec.session).await?;
        trial
    }

    async fn try_in(&self, spec: &SandboxSpec) -> Result<Trial, TrialFailure> {
        let link = self.create(spec).await?;
        let (supervisor, hello) = Supervisor::attach(link, TRIAL_LEASE, GREETING).await?;
        let outside = self.inspect(spec.session).await?;
        let host = HostView::read().map_err(TrialFailure::Host)?;
        let weakness = verify(spec, &hello.attestation, &outside, &host).err();
        let findings = read_trial(&report(&supervisor).await?)?;
        let info = self.engine().info().await?;
        let live = live(self.engine(), &spec.owner, spec.session).await?;
        let live = live.ok_or(BackendError::NotFound)?;
        Ok(Trial {
            findings,
            benchmark: benchmark::judge(&live.found, &info),
            weakness,
        })
    }
}

/// The program is the very file that is pid 1, run as the agent's programs are: forked, confined and limited like them.
async fn report(supervisor: &Supervisor) -> Result<String, TrialFailure> {
    let execution = *SessionId::random()
        .map_err(|error| BackendError::Step {
            step: "make a random identifier".to_owned(),
            source: std::io::Error::other(error),
        })?
        .as_bytes();
    let program = format!("{SUPERVISOR_DIRECTORY}/{PROGRAM_NAME}");
    let deadline = u64::try_from(PROBES.as_millis()).ok();
    supervisor
        .start(StartSpec {
            execution,
            argv: vec![program.into_bytes(), TRIAL_OPTION.into()],
            cwd: b"/".to_vec(),
            env: Vec::new(),
            stdin: Stdin::Null,
            terminal: None,
            deadline_ms: deadline,
            grace_ms: 0,
            output: OutputMode::DropOldest {
                keep_bytes: MAX_TRIAL_BYTES as u64 + 1,
            },
        })
        .await?;
    let status = supervisor.wait(execution, PROBES).await?;
    let exit = status.ended.map(|ended| ended.exit);
    if exit != Some(Exit::Code(0)) {
        let said = read(supervisor, execution, Stream::Stderr).await?;
        return Err(TrialFailure::Ended { exit, said });
    }
    read(supervisor, execution, Stream::Stdout).await
}

/// The first bytes of a stream that has ended, or is about to; a report fits into them.
async fn read(
    supervisor: &Supervisor,
    execution: [u8; 16],
    stream: Stream,
) -> Result<String, TrialFailure> {
    let mut bytes = Vec::new();
    while bytes.len() <= MAX_TRIAL_BYTES {
        let (offset, most) = (bytes.len() as u64, MAX_CHUNK_BYTES as u32);
        let chunk = supervisor
            .read(execution, stream, offset, most, PROBES)
            .await?;
        if chunk.data.is_empty() {
            break;
        }
        bytes.extend(&chunk.data);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

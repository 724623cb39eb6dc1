//! The walls of sessions on the engine, tried: one sandbox as a session's, on an empty project, for the length of a trial.

use std::{
    error::Error,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use model::{BackendName, HostDirectory, Kernel, OwnerId, RootFileSystem, SandboxSpec, SessionId};
use policy::Policy;
use sandbox::{
    Backend, BackendError,
    wire::{Probe, TrialFinding, TrialOutcome},
};
use sandbox_docker::{
    Docker,
    doctor::{Item, ItemState, TRIAL_LEASE, Trial},
};
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use super::{
    capability::{scratch, why},
    engine::chosen,
};
use crate::{config::Config, wiring};

/// How long all of it may take: the engine's calls have limits of their own.
const PATIENCE: Duration = Duration::from_secs(45);

/// See the module.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WallsReport {
    /// The walls were tried, nothing that sessions rely on went through, and the container is as it must be.
    pub(super) ok: bool,
    /// Why not, one sentence each; empty when `ok`.
    pub(super) problems: Vec<String>,
    /// Whose kernel was tried.
    pub(super) kernel: Kernel,
    /// Each probe.
    pub(super) probes: Vec<Tried>,
    /// The CIS Docker Benchmark, section 5, over the container.
    pub(super) benchmark: Vec<Item>,
}

/// A probe and what became of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tried {
    /// What was tried, in words.
    pub(super) tries: &'static str,
    /// Sessions rely on it being blocked.
    pub(super) relied_on: bool,
    /// What the answer means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<String>,
    #[serde(flatten)]
    pub(super) finding: TrialFinding,
}

impl Tried {
    /// It went through, and must not.
    pub(super) fn is_breach(&self) -> bool {
        self.relied_on && self.finding.outcome == TrialOutcome::Possible
    }
}

impl WallsReport {
    /// For what is judged by behavior.
    pub(super) fn findings(&self) -> Vec<TrialFinding> {
        self.probes
            .iter()
            .map(|tried| tried.finding.clone())
            .collect()
    }
}

/// Tries them.
pub(super) async fn probe(config: &Config) -> WallsReport {
    let kernel = config
        .runtime_classes
        .first()
        .map_or(Kernel::Shared, |class| class.kernel);
    match carry_out(config, kernel).await {
        Ok(trial) => judge(trial, kernel),
        Err(error) => WallsReport {
            ok: false,
            problems: vec![format!("the walls could not be tried: {}", reason(&*error))],
            kernel,
            probes: Vec::new(),
            benchmark: Vec::new(),
        },
    }
}

/// All that led to it, and what to do where that is known.
fn reason(error: &(dyn Error + 'static)) -> String {
    let mut causes = vec![error];
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push(cause);
        source = cause.source();
    }
    let texts: Vec<_> = causes.iter().map(ToString::to_string).collect();
    let backend = causes
        .iter()
        .find_map(|cause| cause.downcast_ref::<BackendError>());
    let remedy = backend.map(|error| why(error).1).unwrap_or_default();
    match remedy.is_empty() {
        true => texts.join(": "),
        false => format!("{}; what to do: {remedy}", texts.join(": ")),
    }
}

type Failure = Box<dyn Error + Send + Sync>;

async fn carry_out(config: &Config, kernel: Kernel) -> Result<Trial, Failure> {
    let (scratch, owner) = scratch()?;
    // The agent must be able to reach what is mounted from below it.
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o711))?;
    let project = scratch.path().join("project");
    fs::create_dir(&project)?;
    let docker = chosen(config, scratch.path(), owner).await.engine?.docker;
    let spec = spec(config, owner, kernel, &project)?;
    let (mut interrupted, mut terminated) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let tried = tokio::select! {
        tried = timeout(PATIENCE, docker.try_walls(&spec)) => tried,
        _ = interrupted.recv() => return stopped(&docker, &spec, "it was interrupted").await,
        _ = terminated.recv() => return stopped(&docker, &spec, "it was interrupted").await,
    };
    match tried {
        Ok(trial) => Ok(trial?),
        Err(_) => stopped(&docker, &spec, "it took too long").await,
    }
}

/// Leaves nothing behind.
async fn stopped(docker: &Docker, spec: &SandboxSpec, why: &str) -> Result<Trial, Failure> {
    docker.destroy(spec.session).await?;
    Err(why.into())
}

/// What a session gets that names nothing but its project, without Claude Code and its settings: a trial runs none.
fn spec(
    config: &Config,
    owner: OwnerId,
    kernel: Kernel,
    project: &Path,
) -> Result<SandboxSpec, Failure> {
    let path = fs::canonicalize(project)?;
    let found = fs::metadata(&path)?;
    Ok(SandboxSpec {
        session: SessionId::random()?,
        owner,
        root: RootFileSystem::Image(config.image.clone()),
        runtime: config.runtime_classes.first().cloned(),
        workspace: HostDirectory {
            path,
            device: found.dev(),
            inode: found.ino(),
            uid: found.uid(),
            gid: found.gid(),
        },
        protected: Vec::new(),
        mounts: Vec::new(),
        agent: None,
        managed_settings: None,
        certificates: None,
        limits: wiring::limits(config)?,
        accept_soft_limits: config.dangerously_accept_soft_limits,
        layers: Policy::required_layers(BackendName::Docker, kernel)?,
        lease_ms: u32::try_from(TRIAL_LEASE.as_millis())?,
    })
}

fn judge(trial: Trial, kernel: Kernel) -> WallsReport {
    let probes: Vec<_> = trial
        .findings
        .into_iter()
        .map(|finding| tried(finding, kernel))
        .collect();
    let breaches = probes
        .iter()
        .filter(|tried| tried.is_breach())
        .map(|tried| {
            format!(
                "from inside a sandbox it is possible to {} ({})",
                tried.tries,
                tried.finding.probe.as_str()
            )
        });
    let failed = trial
        .benchmark
        .iter()
        .filter(|item| item.state == ItemState::Fail);
    let failed = failed.map(|item| {
        format!(
            "CIS {}: not so that {} ({})",
            item.id, item.title, item.evidence
        )
    });
    let weak = trial.weakness.iter().map(ToString::to_string);
    let problems: Vec<_> = breaches.chain(failed).chain(weak).collect();
    WallsReport {
        ok: problems.is_empty(),
        problems,
        kernel,
        probes,
        benchmark: trial.benchmark,
    }
}

fn tried(finding: TrialFinding, kernel: Kernel) -> Tried {
    Tried {
        tries: finding.probe.tries(),
        relied_on: is_relied_on(finding.probe, kernel),
        answer: finding
            .errno
            .map(|errno| std::io::Error::from_raw_os_error(errno).to_string()),
        finding,
    }
}

/// With a kernel of the sandbox's own, what that kernel lets happen happens to it alone: it is the wall, whatever it allows
/// inside. What counts then is what leads out of it.
fn is_relied_on(probe: Probe, kernel: Kernel) -> bool {
    let leads_out = matches!(
        probe,
        Probe::HostDescriptor | Probe::NetworkInterface | Probe::OwnProgram | Probe::WriteRoot
    );
    probe.is_relied_on() && (kernel == Kernel::Shared || leads_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(open: Option<Probe>) -> Trial {
        let finding = |&probe: &Probe| TrialFinding {
            probe,
            outcome: match open == Some(probe) {
                true => TrialOutcome::Possible,
                false => TrialOutcome::Blocked,
            },
            errno: Some(1),
            detail: String::new(),
        };
        Trial {
            findings: Probe::ALL.iter().map(finding).collect(),
            benchmark: vec![Item {
                id: "5.1".to_owned(),
                title: "all is well",
                state: ItemState::Pass,
                evidence: String::new(),
            }],
            weakness: None,
        }
    }

    #[test]
    fn one_way_out_that_sessions_rely_on_is_a_problem_with_its_name() {
        assert!(judge(trial(None), Kernel::Shared).ok);
        for probe in Probe::ALL {
            let report = judge(trial(Some(*probe)), Kernel::Shared);
            assert_eq!(report.ok, !probe.is_relied_on(), "{probe:?}");
            let named = report
                .problems
                .iter()
                .all(|problem| problem.contains(probe.as_str()));
            assert!(named, "{:?}", report.problems);
        }
    }

    #[test]
    fn a_kernel_of_its_own_is_asked_only_for_what_leads_out_of_it() {
        for (probe, ok) in [(Probe::Mount, true), (Probe::HostDescriptor, false)] {
            assert_eq!(judge(trial(Some(probe)), Kernel::Guest).ok, ok, "{probe:?}");
        }
    }

    #[test]
    fn a_failed_item_is_a_problem_and_one_that_does_not_apply_is_none() {
        for (state, ok) in [
            (ItemState::Fail, false),
            (ItemState::NotApplicable, true),
            (ItemState::Pass, true),
        ] {
            let mut trial = trial(None);
            trial.benchmark[0].state = state;
            assert_eq!(judge(trial, Kernel::Shared).ok, ok, "{state:?}");
        }
    }
}

//! A configuration as a whole, with what it leads to: whether a server would start with it, and how one that runs takes it over.
//!
//! ```text
//! read again ─► judged ─► on the audit log ─► in force
//!      └───────────┴─────────────┴──► rejected: nothing changed, and that is on the audit log
//! ```

use std::sync::Arc;

use audit::{AuditError, AuditLog, Event, Parameter};
use model::BackendName;
use policy::PolicyError;
use session::{Sessions, Settings};
use tokio::sync::Mutex;

use crate::{
    agent_program,
    config::{
        Change, Config, Environment, FileLookedFor, Flags, Inspected, Problem, Reread, Running,
        Written, inspect,
    },
    network, provider,
    server::{ChangedKey, ReloadOutcome, Reloaded},
    start_files, wiring,
};

/// Problems that an answer tells: its line is bounded.
const MAX_TOLD: usize = 32;
/// Characters of a problem in an answer.
const MAX_TOLD_CHARACTERS: usize = 500;
/// The event of a value that changed.
const CHANGE: &str = "server.config_change";
/// The event of a configuration that changed nothing.
const REJECTED: &str = "server.config_rejected";

/// Lets a running server read its configuration again.
pub(crate) struct Reloader {
    running: Mutex<Running>,
    backends: Vec<BackendName>,
    sessions: Sessions,
    audit: AuditLog,
}

/// What is put in force, all of it made before any of it is.
struct Next {
    settings: Settings,
    budgets: egress::DailyBudgets,
    prices: egress::Prices,
}

impl Reloader {
    pub(crate) fn new(
        running: Running,
        backends: Vec<BackendName>,
        sessions: Sessions,
        audit: AuditLog,
    ) -> Self {
        Reloader {
            running: Mutex::new(running),
            backends,
            sessions,
            audit,
        }
    }

    /// One at a time, and to its end whatever becomes of who asked.
    pub(crate) async fn reload(self: Arc<Self>) -> Reloaded {
        let reloading = tokio::spawn(async move { self.reload_now().await });
        reloading.await.unwrap_or_else(|error| {
            tracing::error!(%error, "reading the configuration again failed");
            let problems = vec![format!("it failed: {error}")];
            rejected(problems, None)
        })
    }

    async fn reload_now(&self) -> Reloaded {
        let mut running = self.running.lock().await;
        // What rotated the log's file from outside says so by the same signal.
        if let Err(error) = self.audit.reopen().await {
            tracing::error!(%error, "the audit log was not opened again");
        }
        let (reread, next) = match self.prepare(&running).await {
            Ok(prepared) => prepared,
            Err(problems) => return self.reject(&problems, running.config()).await,
        };
        if let Err(error) = self.record(&reread.changes).await {
            let what = Problem::other("audit_unavailable", format!("the audit log: {error}"));
            return self.reject(&[what], running.config()).await;
        }
        let ledger = self.sessions.ledger();
        ledger.replace_terms(next.budgets, next.prices);
        let narrowed_sessions = self.sessions.reconfigure(next.settings).await;
        let reloaded = accepted(&reread, narrowed_sessions);
        running.take_over(reread);
        let changed: Vec<_> = reloaded.changed.iter().map(|one| &one.key).collect();
        tracing::info!(
            ?changed,
            needs_restart = ?reloaded.needs_restart,
            narrowed_sessions,
            "the configuration was read again"
        );
        reloaded
    }

    /// Everything that can go wrong, off the async threads.
    async fn prepare(&self, running: &Running) -> Result<(Reread, Next), Vec<Problem>> {
        let (running, backends) = (running.clone(), self.backends.clone());
        let before = self.sessions.interception();
        let prepared = tokio::task::spawn_blocking(move || {
            let reread = running.read_again()?;
            let wrong = problems(&reread.config);
            if !wrong.is_empty() {
                return Err(wrong);
            }
            let next = Next::of(&reread.config, backends, before);
            let next =
                next.map_err(|error| vec![Problem::other("unusable", format!("{error:#}"))])?;
            Ok((reread, next))
        });
        prepared
            .await
            .unwrap_or_else(|error| Err(vec![Problem::other("internal", error.to_string())]))
    }

    /// Every change is on disk before any of it counts.
    async fn record(&self, changes: &[Change]) -> Result<(), AuditError> {
        for change in changes {
            let event = Event {
                action: CHANGE,
                session: None,
                parameters: parameters(change),
            };
            self.audit.event(event).await?;
        }
        Ok(())
    }

    async fn reject(&self, problems: &[Problem], standing: &Config) -> Reloaded {
        let told: Vec<String> = problems.iter().take(MAX_TOLD).map(told).collect();
        for problem in &told {
            tracing::error!("the configuration is not taken over: {problem}");
        }
        let mut parameters = vec![("problems", Parameter::Number(problems.len() as u64))];
        if let Some(first) = problems.first() {
            parameters.push(("code", Parameter::Word(first.code.to_owned())));
            let key = first.key.clone().map(Parameter::Word);
            parameters.extend(key.map(|key| ("key", key)));
        }
        let event = Event {
            action: REJECTED,
            session: None,
            parameters,
        };
        if let Err(error) = self.audit.event(event).await {
            tracing::error!(%error, "that a configuration was rejected is not in the audit log");
        }
        rejected(told, Some(standing.source()))
    }
}

impl Next {
    fn of(
        config: &Config,
        backends: Vec<BackendName>,
        before: Option<Arc<egress::intercept::Interception>>,
    ) -> anyhow::Result<Self> {
        let (budgets, prices) = provider::terms(&config.provider)?;
        Ok(Next {
            settings: Settings {
                policy: Arc::new(wiring::policy(config, backends)?),
                agent: agent_program::lookup(config),
                allow_protected_changes: config.allow_protected_changes,
                providers: provider::providers(&config.provider)?,
                credentials: network::credentials(config, before)?,
            },
            budgets,
            prices,
        })
    }
}

fn accepted(reread: &Reread, narrowed_sessions: u32) -> Reloaded {
    let changed = reread.changes.iter().map(|change| ChangedKey {
        key: change.key.to_owned(),
        applies: change.applies.as_str().to_owned(),
    });
    Reloaded {
        outcome: match reread.changes.is_empty() {
            true => ReloadOutcome::Unchanged,
            false => ReloadOutcome::Changed,
        },
        changed: changed.collect(),
        needs_restart: reread.pending.iter().map(|key| (*key).to_owned()).collect(),
        narrowed_sessions,
        problems: Vec::new(),
        source: Some(reread.config.source()),
    }
}

const fn rejected(problems: Vec<String>, source: Option<FileLookedFor>) -> Reloaded {
    Reloaded {
        outcome: ReloadOutcome::Rejected,
        changed: Vec::new(),
        needs_restart: Vec::new(),
        narrowed_sessions: 0,
        problems,
        source,
    }
}

/// The key, what it was and what it is: digests, and the values themselves where they are no secret.
fn parameters(change: &Change) -> Vec<(&'static str, Parameter)> {
    let mut parameters = vec![
        ("key", Parameter::Word(change.key.to_owned())),
        (
            "applies",
            Parameter::Word(change.applies.as_str().to_owned()),
        ),
    ];
    let sides = [
        (&change.old, "old", "old_value"),
        (&change.new, "new", "new_value"),
    ];
    for (written, digest, value) in sides {
        match written {
            None => parameters.push((value, Parameter::Word("default".to_owned()))),
            Some(Written {
                shown,
                is_redacted,
                sha256,
                bytes,
            }) => {
                let (sha256, bytes) = (*sha256, *bytes);
                parameters.push((digest, Parameter::Content { sha256, bytes }));
                if !is_redacted {
                    parameters.push((value, Parameter::Word(shown.clone())));
                }
            }
        }
    }
    parameters
}

fn told(problem: &Problem) -> String {
    let place = problem.place.as_ref();
    let place = place.map_or_else(String::new, |place| format!("{place}: "));
    let whole = format!("{place}{} ({})", problem.message, problem.hint);
    whole.chars().take(MAX_TOLD_CHARACTERS).collect()
}

/// Everything that keeps a server from starting with that configuration, as far as that can be told without starting it.
pub(crate) fn inspect_whole(flags: &Flags, environment: &Environment) -> Inspected {
    let mut found = inspect(flags, environment);
    if let Some(config) = &found.config {
        found.problems.extend(problems(config));
        found.problems.extend(start_files::problems(config));
    }
    found
}

/// What is wrong with a configuration whose values are fine by themselves.
pub(crate) fn problems(config: &Config) -> Vec<Problem> {
    let of_policy = wiring::policy(config, vec![BackendName::Native]).err();
    let of_policy = of_policy.map(|error| of_policy_error(config, &error));
    let files = provider::problems(&config.provider)
        .into_iter()
        .chain(network::problems(config));
    of_policy
        .into_iter()
        .chain(files.map(|error| of_file(config, &error)))
        .collect()
}

fn of_policy_error(config: &Config, error: &anyhow::Error) -> Problem {
    let option = error.downcast_ref::<PolicyError>().and_then(|error| {
        if let PolicyError::Option { option, .. } = error {
            Some(option.clone())
        } else {
            None
        }
    });
    Problem {
        code: "contradiction",
        place: option.as_deref().and_then(|key| config.place_of(key)),
        key: option,
        message: format!("{error:#}"),
        hint: "Change this key, or the one that it goes with.".to_owned(),
    }
}

/// The key stands in backquotes at the end of what is said.
fn of_file(config: &Config, error: &anyhow::Error) -> Problem {
    let message = format!("{error:#}");
    let key = message.split('`').nth(1).map(str::to_owned);
    config.unusable_file(key, message)
}

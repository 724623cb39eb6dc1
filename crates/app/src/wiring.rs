//! Builds the house.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use async_trait::async_trait;
use audit::{AuditConfig, AuditLog, Event, IdentityKey, Parameter, sinks::Sinks};
use control::{
    Control, EgressAudit, KeeperSettings, KeyRing, Parts, Road, ServerFacts, TokenRights, TurnAudit,
};
use model::{BackendName, Limit, Limits};
use policy::{Policy, PolicyConfig, PolicyError};
use sandbox::{Capability, HostView};
use session::{Sessions, Setup};
use store::{Pepper, Store};
use tokio::{sync::mpsc, task::AbortHandle};

use crate::{
    agent_program,
    audit_anchor::StateDatabase,
    audit_sinks::{self, StandardError},
    backends::{self, Found},
    config::{Config, Running},
    network, provider,
    reload::Reloader,
    server::{House, Reloaded},
    start_files,
};

/// Between two rounds of the reconciler.
const RECONCILE_EVERY: Duration = Duration::from_secs(15);
/// How long ended sessions are remembered: long enough to read tomorrow why last night's work ended.
const REMEMBER_ENDED: Duration = Duration::from_secs(24 * 3600);
/// How long the end of a server waits for what was used to be on record, and for sinks to take the last records.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);
/// Executions that run in one session at once: an agent, its shells, and room.
const MAX_RUNNING_EXECUTIONS: u32 = 32;

/// Builds everything behind the doors and puts right what an earlier server left.
///
/// # Errors
/// When any part of it cannot be built: the server then does not start.
pub async fn build(
    running: Running,
    standard_error: StandardError,
) -> anyhow::Result<Arc<dyn House>> {
    let config = running.config();
    let database = config.paths.state_dir.join("state.db");
    let (store, opened) = Store::open(&database).context("the state database cannot be used")?;
    let identity_key = IdentityKey::open(&config.paths.audit_identity_key())
        .context(start_files::IDENTITY_KEY_UNUSABLE)?;
    let audit = AuditLog::open(AuditConfig {
        path: config.audit_log.clone(),
        owner: store.owner(),
        identity_key,
        rotation: config.audit_rotation,
        anchor: Some(Box::new(StateDatabase {
            store: store.clone(),
            log: config.audit_log.clone(),
        })),
    })
    .context(start_files::LOG_UNUSABLE)?;
    sandbox_native::become_subreaper()
        .context("the server cannot look after its sandboxes' processes")?;
    let Found {
        backends,
        names,
        capability,
        notes,
    } = backends::find(config, store.owner()).await?;
    let backend = *names.first().context("no backend works here")?;
    let runtime_classes = if names.contains(&BackendName::Docker) {
        config
            .runtime_classes
            .iter()
            .map(|class| class.name.clone())
            .collect()
    } else {
        Vec::new()
    };
    let policy = Arc::new(policy(config, names.clone())?);
    let egress = provider::egress(config, &store, Arc::new(EgressAudit::new(audit.clone())))?;
    let keys = keys(config, &store)?;
    let (reap, reap_requests) = mpsc::unbounded_channel();
    let sessions = Sessions::new(Setup {
        store,
        backends,
        agent: agent_program::lookup(config),
        policy,
        host_view: HostView::read().context("the server's own namespaces cannot be read")?,
        allow_protected_changes: config.allow_protected_changes,
        egress,
        network: network::network(config)?,
        turns: Arc::new(TurnAudit::new(audit.clone())),
        transcripts: config.paths.state_dir.join("transcripts"),
        reap,
    });
    let mut warnings: Vec<String> = capability
        .advice
        .iter()
        .map(|advice| format!("{}; what to do: {}.", advice.missing, advice.remedy))
        .chain(notes)
        .collect();
    if let Some(aside) = opened.quarantined {
        tracing::error!(path = %aside.display(), "the state database was damaged and is set aside");
        warnings.push(
            "The state database was damaged and set aside; sessions of before are removed."
                .to_owned(),
        );
    }
    if keys.lost_its_pepper() {
        let lost = "The file `keys.pepper` of the state directory was lost, and no key made before is valid: make new ones.";
        tracing::error!("{lost}");
        warnings.push(lost.to_owned());
    }
    announce(&audit, &capability).await?;
    let sinks = audit_sinks::start(config, standard_error)?;
    let control = Control::new(Parts {
        audit: audit.clone(),
        sessions,
        server: facts(runtime_classes, backend, capability, warnings),
        keys: Arc::clone(&keys),
        tokens: token_rights(config),
    });
    let settings = KeeperSettings {
        reconcile_every: RECONCILE_EVERY,
        remember_ended: REMEMBER_ENDED,
    };
    let keeper =
        tokio::spawn(control::keep(control.clone(), reap_requests, settings)).abort_handle();
    let reloader = Reloader::new(running, names, control.sessions().clone(), audit.clone());
    Ok(Arc::new(Wired {
        reloader: Arc::new(reloader),
        control,
        audit,
        keys,
        keeper,
        sinks: Mutex::new(Some(sinks)),
    }))
}

/// What those may who come with an access token.
fn token_rights(config: &Config) -> TokenRights {
    let TokenRights {
        roots,
        max_sessions,
    } = &config.token_rights;
    TokenRights {
        roots: roots.iter().map(|root| canonical(root)).collect(),
        max_sessions: *max_sessions,
    }
}

/// The keys of remote callers, and the pepper without which they say nothing.
fn keys(config: &Config, store: &Store) -> anyhow::Result<Arc<KeyRing>> {
    let path = config.paths.pepper();
    let pepper = Pepper::open(&path).context(start_files::PEPPER_UNUSABLE)?;
    KeyRing::open(store.clone(), pepper).context("the API keys cannot be read")
}

/// What a session gets that names no limits.
///
/// # Errors
/// Never for the profile that is built in; a test reads it.
pub(crate) fn limits(config: &Config) -> Result<Limits, PolicyError> {
    let mut limits = Policy::default_limits()?;
    for (name, value) in &config.limits {
        limits.set(*name, Limit::default_of(*value));
    }
    Ok(limits)
}

/// The decisions, as configured.
///
/// # Errors
/// When the configuration contradicts itself.
pub(crate) fn policy(config: &Config, backends: Vec<BackendName>) -> anyhow::Result<Policy> {
    let limits = limits(config).context("the built-in hardening profile is broken")?;
    let home = std::env::home_dir()
        .filter(|home| home.is_absolute())
        .unwrap_or_else(|| PathBuf::from("/root"));
    let policy = Policy::new(PolicyConfig {
        project_roots: config
            .project_roots
            .iter()
            .map(|root| canonical(root))
            .collect(),
        home: canonical(&home),
        state_directory: canonical(&config.paths.state_dir),
        server_uid: rustix::process::geteuid().as_raw(),
        limits,
        max_sessions: config.max_concurrent_sessions,
        callers: config.callers.clone(),
        default_ttl: config.default_session_timeout,
        max_ttl: config.max_session_timeout,
        default_idle: config.default_idle_timeout,
        max_execution_timeout: config.max_execution_timeout,
        max_running_executions: MAX_RUNNING_EXECUTIONS,
        lease: config.lease,
        allow_protected_changes: config.allow_protected_changes,
        dangerously_accept_soft_limits: config.dangerously_accept_soft_limits,
        operator_mounts: Vec::new(),
        backends,
        runtime_classes: config.runtime_classes.clone(),
        caller_may_answer: config.caller_may_answer,
        permissions: Some(permissions(config)),
        dangerously_trust_project_settings: config.dangerously_trust_project_settings,
        permission_timeout: config.permission_timeout,
        network: network::ceiling(config),
    })?;
    Ok(policy)
}

/// Rules as Claude Code's settings have them.
fn permissions(config: &Config) -> String {
    let rules =
        serde_json::json!({"allow": config.permission_allow, "deny": config.permission_deny});
    rules.to_string()
}

/// The path without links, or as it is where it does not exist: nothing lies below it then.
fn canonical(path: &std::path::Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn facts(
    runtime_classes: Vec<String>,
    backend: BackendName,
    capability: Capability,
    warnings: Vec<String>,
) -> ServerFacts {
    ServerFacts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uid: rustix::process::geteuid().as_raw(),
        posture: capability.posture,
        backend,
        rung: capability.rung,
        runtime_classes,
        warnings,
    }
}

/// The first records of a server: that it started, and how it stands towards the machine.
async fn announce(audit: &AuditLog, capability: &Capability) -> anyhow::Result<()> {
    let word = |text: &str| Parameter::Word(text.to_owned());
    let start = vec![
        ("version", word(env!("CARGO_PKG_VERSION"))),
        ("posture", word(&capability.posture)),
    ];
    audit
        .event(Event {
            action: "server.start",
            session: None,
            parameters: start,
        })
        .await?;
    Ok(())
}

struct Wired {
    reloader: Arc<Reloader>,
    control: Control,
    audit: AuditLog,
    keys: Arc<KeyRing>,
    keeper: AbortHandle,
    /// Until the end of the server.
    sinks: Mutex<Option<Sinks>>,
}

#[async_trait]
impl House for Wired {
    fn road(&self) -> Arc<dyn Road> {
        Arc::new(self.control.clone())
    }

    fn has_keys(&self) -> bool {
        self.keys.has_a_usable_key()
    }

    async fn live_sessions(&self) -> u32 {
        // Not knowing is no reason to end: as long as the store fails, somebody may still have a session.
        self.control.sessions().count().await.unwrap_or(u32::MAX)
    }

    async fn session_owners(&self) -> BTreeMap<String, u32> {
        let owners = self.control.sessions().count_by_owner().await;
        owners.unwrap_or_default()
    }

    async fn reload(&self) -> Reloaded {
        Arc::clone(&self.reloader).reload().await
    }

    async fn shutdown(&self) {
        self.control.close();
        self.keeper.abort();
        let stop = Event {
            action: "server.stop",
            session: None,
            parameters: Vec::new(),
        };
        if !self.control.sessions().flush_usage(FLUSH_PATIENCE).await {
            tracing::warn!("what was used of model providers last is not on record");
        }
        if let Err(error) = self.audit.event(stop).await {
            tracing::warn!(%error, "the end of the server is not in the audit log");
        }
        self.audit.flush().await;
        let sinks = self
            .sinks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(sinks) = sinks {
            let _ = tokio::task::spawn_blocking(move || sinks.shutdown(FLUSH_PATIENCE)).await;
        }
    }
}

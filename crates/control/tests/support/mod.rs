//! What every house of these tests is built of.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use control::ServerFacts;
use model::{
    BackendName, CommandLine, CreateSession, ExecuteCommand, ExecutionId, Reason, Refusal,
    SessionId,
};
use policy::{Policy, PolicyConfig};
use session::{Beginning, TurnLog, Turns};

/// The user who runs the tests, and so the server.
pub fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// What the server is.
pub fn facts() -> ServerFacts {
    ServerFacts {
        version: "0".into(),
        uid: uid(),
        posture: "test".into(),
        backend: BackendName::Fake,
        rung: "test".into(),
        runtime_classes: Vec::new(),
        warnings: Vec::new(),
    }
}

/// What is configured by default, below that directory, but for what a test wants otherwise.
pub fn policy(base: &Path, change: impl FnOnce(&mut PolicyConfig)) -> Policy {
    let mut config = PolicyConfig {
        caller_may_answer: false,
        permissions: None,
        dangerously_trust_project_settings: false,
        permission_timeout: Duration::from_secs(300),
        project_roots: Vec::new(),
        home: base.join("home"),
        state_directory: base.join("state"),
        server_uid: uid(),
        limits: Policy::default_limits().expect("the profile"),
        max_sessions: 8,
        callers: policy::CallerLimits::default(),
        default_ttl: Duration::from_secs(3600),
        max_ttl: Duration::from_secs(7200),
        default_idle: Duration::from_secs(1800),
        max_execution_timeout: Duration::from_secs(600),
        max_running_executions: 4,
        lease: Duration::from_secs(60),
        allow_protected_changes: false,
        dangerously_accept_soft_limits: false,
        operator_mounts: Vec::new(),
        backends: vec![BackendName::Fake],
        runtime_classes: Vec::new(),
        network: policy::NetworkConfig::default(),
    };
    change(&mut config);
    Policy::new(config).expect("a policy")
}

/// Ways to the network, with the machine's resolver.
pub fn network() -> session::Network {
    session::Network {
        proxy: egress::proxy::Proxy::new(egress::proxy::ProxyLimits::default()),
        resolver: Arc::new(egress::destination::SystemResolver::default()),
        credentials: session::Credentials::default(),
    }
}

/// Where nothing can be put on record: prompts that waited do not begin. It holds no log, so a server that is forgotten leaves that
/// to the next one.
pub struct NoTurns;

impl TurnLog for NoTurns {
    fn of(&self, _session: SessionId, _owner: &str) -> Arc<dyn Turns> {
        Arc::new(NoTurns)
    }
}

impl Turns for NoTurns {
    fn begin(&self, _prompt: ExecutionId) -> Beginning<'_> {
        let refusal = Refusal::new(Reason::AuditUnavailable, "There is no log.", "");
        Box::pin(std::future::ready(Err(refusal)))
    }
}

/// A session on that project, with nothing else said.
pub fn session_on(project_path: PathBuf) -> CreateSession {
    CreateSession {
        agent: model::AgentRequest::default(),
        network: model::NetworkRequest::default(),
        project_path,
        name: None,
        backend: None,
        runtime_class: None,
        mounts: Vec::new(),
        limits: Vec::new(),
        docker_options: model::DockerOptions::default(),
        ttl: None,
        idle: None,
        env: BTreeMap::new(),
        idempotency_key: None,
    }
}

/// The words of that line as a command, waited for so long.
pub fn command(session: SessionId, line: &str, wait: Duration) -> ExecuteCommand {
    ExecuteCommand {
        session,
        command: CommandLine::Argv(line.split(' ').map(str::to_owned).collect()),
        cwd: None,
        env: BTreeMap::new(),
        stdin: None,
        keep_stdin_open: false,
        terminal: None,
        timeout: None,
        wait,
    }
}

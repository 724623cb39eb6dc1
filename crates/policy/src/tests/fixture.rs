//! One ordinary user's server, and what its tests ask of every refusal.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use model::{
    BackendName, CommandLine, ConversationChoice, CreateSession, ExecuteCommand, ExecutePrompt,
    HostDirectory, Principal, PromptOptions, Reason, Refusal, RemoteCaller, RemoteKind, Scopes,
    Secret, SessionId, WhenBusy,
};

use crate::{CreateFacts, EntryKind, PathFacts, Policy, PolicyConfig};

pub(super) const UID: u32 = 1000;
pub(super) const OWNER: &str = "uid:1000";
pub(super) const HOME: &str = "/home/alice";
pub(super) const STATE: &str = "/home/alice/.local/state/claude-code-mcp";
/// The operator's root.
pub(super) const OPERATOR_ROOT: &str = "/srv/code";
/// The client's root.
pub(super) const CLIENT_ROOT: &str = "/home/alice/work";
pub(super) const PROJECT: &str = "/srv/code/app";
/// What callers may let sessions reach.
pub(super) const ALLOWED: &str = "registry.example";
pub(super) const SESSION: SessionId = SessionId::from_bytes([7; 16]);

pub(super) fn config() -> PolicyConfig {
    PolicyConfig {
        project_roots: vec![OPERATOR_ROOT.into()],
        home: HOME.into(),
        state_directory: STATE.into(),
        server_uid: UID,
        limits: Policy::default_limits().unwrap(),
        max_sessions: 10,
        default_ttl: Duration::from_secs(3600),
        max_ttl: Duration::from_secs(24 * 3600),
        default_idle: Duration::from_secs(1800),
        max_execution_timeout: Duration::from_secs(3600),
        max_running_executions: 8,
        lease: Duration::from_secs(60),
        allow_protected_changes: false,
        dangerously_accept_soft_limits: false,
        operator_mounts: Vec::new(),
        backends: vec![BackendName::Native, BackendName::Docker],
        runtime_classes: Vec::new(),
        caller_may_answer: false,
        permissions: None,
        dangerously_trust_project_settings: false,
        permission_timeout: std::time::Duration::from_secs(300),
        network: crate::NetworkConfig {
            allow: vec![ALLOWED.parse().unwrap()],
            ..crate::NetworkConfig::default()
        },
    }
}

pub(super) fn policy() -> Policy {
    Policy::new(config()).unwrap()
}

pub(super) fn alice() -> Principal {
    Principal::LocalUser {
        uid: UID,
        roots: vec![CLIENT_ROOT.into()],
    }
}

/// The name of the remote caller of these tests.
pub(super) const REMOTE: &str = "key:zzzzzzzzzzzz";

/// Somebody with a key for the operator's root and these scopes.
pub(super) fn remote(scopes: Scopes) -> Principal {
    Principal::Remote(Box::new(RemoteCaller {
        name: REMOTE.to_owned(),
        kind: RemoteKind::ApiKey {
            id: "zzzzzzzzzzzz".parse().unwrap(),
        },
        scopes,
        roots: vec![OPERATOR_ROOT.into()],
        max_sessions: None,
        calls_per_minute: None,
    }))
}

pub(super) fn create(project: impl Into<PathBuf>) -> CreateSession {
    CreateSession {
        agent: model::AgentRequest::default(),
        project_path: project.into(),
        name: None,
        backend: None,
        runtime_class: None,
        mounts: Vec::new(),
        limits: Vec::new(),
        docker_options: model::DockerOptions::default(),
        ttl: None,
        idle: None,
        env: BTreeMap::new(),
        network: model::NetworkRequest::default(),
        idempotency_key: None,
    }
}

pub(super) fn prompt() -> ExecutePrompt {
    ExecutePrompt {
        session: SESSION,
        prompt: Secret::new("Make the tests pass".to_owned()),
        conversation: ConversationChoice::Latest,
        options: PromptOptions::default(),
        when_busy: WhenBusy::Queue,
        timeout: None,
        wait: Duration::from_secs(20),
    }
}

pub(super) fn command(command: CommandLine) -> ExecuteCommand {
    ExecuteCommand {
        session: SESSION,
        command,
        cwd: None,
        env: BTreeMap::new(),
        stdin: None,
        keep_stdin_open: false,
        terminal: None,
        timeout: None,
        wait: Duration::from_secs(20),
    }
}

pub(super) fn directory(path: impl Into<PathBuf>) -> HostDirectory {
    HostDirectory {
        path: path.into(),
        device: 1,
        inode: 2,
        uid: UID,
        gid: UID,
    }
}

/// An empty project at that canonical path, and mounts that resolve to these.
pub(super) fn facts(policy: &Policy, project: impl Into<PathBuf>, mounts: &[&str]) -> CreateFacts {
    CreateFacts {
        project: PathFacts::Directory(directory(project)),
        mounts: mounts
            .iter()
            .map(|mount| PathFacts::Directory(directory(*mount)))
            .collect(),
        existing: policy
            .protected_candidates()
            .iter()
            .map(|path| (path.clone(), EntryKind::Missing))
            .collect(),
    }
}

/// Where a careless lookup would end up: `..` resolved, everything exists, no links.
pub(super) fn resolved(path: &Path) -> PathBuf {
    let mut resolved = PathBuf::from("/");
    for component in path.components() {
        match component {
            std::path::Component::ParentDir => drop(resolved.pop()),
            std::path::Component::Normal(name) => resolved.push(name),
            std::path::Component::RootDir
            | std::path::Component::CurDir
            | std::path::Component::Prefix(_) => {}
        }
    }
    resolved
}

/// The refusal, which must be of use to its reader.
pub(super) fn refused<T>(result: Result<T, Refusal>, context: &str) -> Refusal {
    let Err(refusal) = result else {
        panic!("admitted: {context}")
    };
    let sentence = |text: &str| {
        text.len() > 10 && text.len() < 600 && text.ends_with('.') && !text.contains('\0')
    };
    assert!(sentence(&refusal.message), "{context}: {refusal:?}");
    assert!(sentence(&refusal.hint), "{context}: {refusal:?}");
    assert_ne!(refusal.reason, Reason::Internal, "{context}: {refusal:?}");
    refusal
}

/// Refused with this code for this argument.
pub(super) fn refused_as<T>(
    result: Result<T, Refusal>,
    reason: Reason,
    field: &str,
    context: &str,
) -> Refusal {
    let refusal = refused(result, context);
    assert_eq!(
        (refusal.reason, refusal.field.as_deref()),
        (reason, Some(field)),
        "{context}: {refusal:?}"
    );
    refusal
}

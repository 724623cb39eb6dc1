//! Records for the tests.

use model::{BackendName, ExecutionId, ExecutionState, SessionId, SessionState};
use store::{ExecutionRecord, SessionRecord, Store};

#[allow(dead_code)]
/// A live session of `uid:0` without an idempotency key.
pub fn session() -> SessionRecord {
    SessionRecord {
        id: SessionId::random().unwrap(),
        principal: "uid:0".to_owned(),
        name: "brave-otter".to_owned(),
        state: SessionState::Creating,
        backend: BackendName::Native,
        project_path: "/home/user/project".into(),
        created_at_ms: 1_000,
        expires_at_ms: 3_601_000,
        idle_ms: 600_000,
        last_used_at_ms: 1_000,
        idempotency_key: None,
        arguments_digest: [7; 32],
        spec: None,
        attestation: None,
        agent: None,
        network: None,
        ended_because: None,
        ended_at_ms: None,
    }
}

/// A running execution of that session.
#[allow(dead_code)]
pub fn execution(session: SessionId) -> ExecutionRecord {
    ExecutionRecord {
        id: ExecutionId::random().unwrap(),
        session,
        state: ExecutionState::Running,
        started_at_ms: 2_000,
        ended_at_ms: None,
        timeout_ms: Some(60_000),
        exit_code: None,
        signal: None,
        oom_killed: false,
        duration_ms: 0,
        failure: None,
        protected_changes: None,
        prompt: None,
    }
}

/// A store in a directory of its own.
#[allow(dead_code)]
pub fn fresh() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let (store, report) = Store::open(&directory.path().join("state.db")).unwrap();
    assert!(report.created);
    (directory, store)
}

//! A log in a directory of its own, and what goes into it.

#![allow(dead_code)]

use std::path::{Path, PathBuf};

use audit::{
    AuditConfig, AuditLog, Closing, Durability, Event, IdentityKey, Intent, Parameter, Record,
};
use model::{ClientInfo, OwnerId, SessionId, Source};

/// The owner of all test logs.
pub const OWNER: OwnerId = OwnerId::from_bytes([7; 8]);

/// A runtime as the server has it.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// A directory and the path of a log in it.
pub fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    (directory, path)
}

/// Opens a log that must open.
pub fn open(path: &Path) -> AuditLog {
    AuditLog::open(config(path)).unwrap()
}

/// A log that is never rotated.
pub fn config(path: &Path) -> AuditConfig {
    AuditConfig::new(path.to_owned(), OWNER, IdentityKey::from_bytes(&[7; 32]))
}

/// An intent of the local user.
pub fn intent(action: &'static str) -> Intent {
    Intent {
        action,
        session: Some(SessionId::from_bytes([9; 16])),
        principal: "uid:1000".to_owned(),
        client: ClientInfo {
            name: "claude-code".to_owned(),
            version: "2.1".to_owned(),
        },
        source: Source::LOCAL,
        target: None,
        parameters: vec![
            ("command", Parameter::content(b"make test")),
            ("cwd", Parameter::Path("/workspace".into())),
            ("timeout_ms", Parameter::Number(60_000)),
        ],
    }
}

/// An event without session.
pub fn event(action: &'static str) -> Event {
    Event {
        action,
        session: None,
        parameters: vec![("posture", Parameter::Word("embedded-rootless".to_owned()))],
    }
}

/// Begins and closes one durable operation.
pub async fn operate(log: &AuditLog, action: &'static str) {
    let entry = log
        .begin(intent(action), Durability::Durable)
        .await
        .unwrap();
    entry.close(Closing::Ok).await.unwrap();
}

/// All records; the log must be readable.
pub fn records(path: &Path) -> Vec<Record> {
    audit::read(path).unwrap().map(Result::unwrap).collect()
}

/// The last record of that action.
pub fn last(path: &Path, action: &str) -> Record {
    records(path)
        .into_iter()
        .rfind(|record| record.body.action == action)
        .unwrap()
}

/// Path of a file beside the log.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    format!("{}{suffix}", path.display()).into()
}

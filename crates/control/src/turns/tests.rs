//! What stands in the log of prompts that had to wait.

use std::path::Path;

use audit::{AuditConfig, IdentityKey, Phase, Record};
use model::OwnerId;

use super::*;

const SESSION: SessionId = SessionId::from_bytes([3; 16]);
const PROMPT: ExecutionId = ExecutionId::from_bytes([4; 16]);

fn log(directory: &Path) -> AuditLog {
    AuditLog::open(AuditConfig::new(
        directory.join("audit.jsonl"),
        OwnerId::from_bytes([1; 8]),
        IdentityKey::from_bytes(&[1; 32]),
    ))
    .unwrap()
}

fn records(directory: &Path) -> Vec<Record> {
    let records = audit::read(&directory.join("audit.jsonl")).unwrap();
    let records = records.map(Result::unwrap);
    records
        .filter(|record| record.body.action == BEGIN)
        .collect()
}

#[tokio::test]
async fn that_a_prompt_begins_is_on_the_disk_first_and_how_it_went_follows() {
    let directory = tempfile::tempdir().unwrap();
    let log = log(directory.path());
    let turns = TurnAudit::new(log.clone()).of(SESSION, "uid:7");
    let begun = turns.begin(PROMPT).await.unwrap();
    let intents = records(directory.path());
    let [intent] = intents.as_slice() else {
        panic!("{intents:?}");
    };
    let body = &intent.body;
    assert_eq!(
        (body.phase, body.session_id, body.actor.id.as_deref()),
        (Phase::Intent, Some(SESSION), Some("uid:7"))
    );
    let target = body.target.as_ref().unwrap();
    assert_eq!(target.id, PROMPT.to_string());
    begun.end(Ok(()));
    let failed = turns.begin(PROMPT).await.unwrap();
    failed.end(Err(Reason::AgentUnavailable));
    // Cancelled, say, before it could begin.
    drop(turns.begin(PROMPT).await.unwrap());
    log.flush().await;
    let results = records(directory.path()).into_iter();
    let results: Vec<_> = results
        .filter(|record| record.body.phase == Phase::Result)
        .map(|record| (record.body.result, record.body.reason))
        .collect();
    let wanted = [
        ("ok", None),
        ("failed", Some("agent_unavailable")),
        ("aborted", None),
    ];
    let wanted = wanted.map(|(result, reason)| (result.to_owned(), reason.map(str::to_owned)));
    assert_eq!(results, wanted);
}

#[tokio::test]
async fn a_prompt_of_which_nothing_can_be_recorded_does_not_begin() {
    let directory = tempfile::tempdir().unwrap();
    let log = log(directory.path());
    let turns = TurnAudit::new(log.clone()).of(SESSION, "uid:7");
    assert!(turns.begin(PROMPT).await.is_ok(), "the control");
    // A log that somebody else writes to takes no more records.
    let path = directory.path().join("audit.jsonl");
    let mut other = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    std::io::Write::write_all(&mut other, b"x").unwrap();
    let refusal = turns.begin(PROMPT).await.err().unwrap();
    assert_eq!(refusal.reason, Reason::AuditUnavailable);
}

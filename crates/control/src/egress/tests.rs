//! What stands in the log of a session's traffic.

use std::path::Path;

use ::egress::proxy::{Ending, Way};
use audit::{AuditConfig, IdentityKey, Phase, Record};
use model::OwnerId;

use super::*;

const SESSION: SessionId = SessionId::from_bytes([3; 16]);

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
        .filter(|record| record.body.action.starts_with("egress."))
        .collect()
}

fn decision(denied: Option<&'static str>) -> Decision {
    Decision {
        way: Way::Connect,
        host: "example.com".to_owned(),
        port: Some(443),
        method: None,
        rule: denied.is_none().then(|| "allow/1".to_owned()),
        credential: denied.is_none().then(|| "hub".to_owned()),
        denied,
    }
}

fn end(ending: Ending) -> TunnelEnd {
    TunnelEnd {
        bytes_up: 5,
        bytes_down: 7,
        duration: Duration::from_millis(1),
        ending,
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn a_connection_is_on_the_disk_before_it_is_allowed_and_its_end_follows() {
    let directory = directory();
    let log = log(directory.path());
    let ledger = SessionLedger::new(log.clone(), SESSION, "uid:7".to_owned());
    let ticket = ledger.decided(SESSION, &decision(None)).await.unwrap();
    let begun = records(directory.path());
    assert_eq!(begun.len(), 1);
    assert_eq!(
        (begun[0].body.phase, begun[0].body.session_id),
        (Phase::Intent, Some(SESSION))
    );
    assert_eq!(begun[0].body.actor.id.as_deref(), Some("uid:7"));
    for (name, value) in [
        ("host", "example.com"),
        ("rule", "allow/1"),
        ("way", "connect"),
    ] {
        assert_eq!(begun[0].body.parameters[name], value);
    }
    ledger.ended(SESSION, ticket, &end(Ending::Complete));
    // An end that nobody knows is none.
    ledger.ended(SESSION, Ticket(99), &end(Ending::Complete));
    log.flush().await;
    let all = records(directory.path());
    assert_eq!(all.len(), 2);
    let body = &all[1].body;
    assert_eq!((body.result.as_str(), &body.op), ("ok", &begun[0].body.op));
    assert_eq!(body.parameters["bytes_down"], 7);
    assert!(body.duration_ms.is_some());
}

#[tokio::test]
async fn how_it_ended_decides_the_result() {
    let directory = directory();
    let log = log(directory.path());
    let ledger = SessionLedger::new(log.clone(), SESSION, "uid:7".to_owned());
    for ending in [
        Ending::Idle,
        Ending::Refused,
        Ending::RuleGone,
        Ending::Unused,
        Ending::Broken,
    ] {
        let ticket = ledger.decided(SESSION, &decision(None)).await.unwrap();
        ledger.ended(SESSION, ticket, &end(ending));
    }
    let left = ledger.decided(SESSION, &decision(None)).await.unwrap();
    assert_eq!(left, Ticket(6));
    // A session that ends leaves nothing open.
    drop(ledger);
    log.flush().await;
    let results: Vec<_> = records(directory.path())
        .into_iter()
        .filter(|record| record.body.phase == Phase::Result)
        .map(|record| record.body.result)
        .collect();
    assert_eq!(
        results,
        ["ok", "denied", "denied", "aborted", "aborted", "aborted"]
    );
}

/// It was `denied (network_not_allowed)`.
#[tokio::test]
async fn an_allowed_host_whose_name_does_not_resolve_is_on_record_as_that_and_not_as_denied() {
    let directory = directory();
    let log = log(directory.path());
    let ledger = SessionLedger::new(log.clone(), SESSION, "uid:7".to_owned());
    let codes = ["resolution_failed", "connection_failed", "host_not_allowed"];
    for code in codes {
        let decided = ledger.decided(SESSION, &decision(Some(code))).await;
        assert!(decided.is_ok(), "{code}");
    }
    log.flush().await;
    let written: Vec<_> = records(directory.path())
        .into_iter()
        .map(|record| {
            let reason = record.body.reason.unwrap_or_default();
            (record.body.result, reason)
        })
        .collect();
    let told: Vec<_> = written
        .iter()
        .map(|(result, reason)| (result.as_str(), reason.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("failed", "resolution_failed"),
            ("failed", "connection_failed"),
            ("denied", "network_not_allowed"),
        ]
    );
}

/// It was port 0.
#[tokio::test]
async fn where_no_port_was_said_none_is_on_record() {
    let directory = directory();
    let log = log(directory.path());
    let ledger = SessionLedger::new(log.clone(), SESSION, "uid:7".to_owned());
    for port in [None, Some(80)] {
        let asked = Decision {
            port,
            ..decision(Some("raw_address"))
        };
        ledger.decided(SESSION, &asked).await.unwrap();
    }
    log.flush().await;
    let all = records(directory.path());
    assert!(!all[0].body.parameters.contains_key("port"));
    assert_eq!(all[1].body.parameters["port"], 80, "the control");
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_allowed() {
    let directory = directory();
    let log = log(directory.path());
    let ledger = SessionLedger::new(log.clone(), SESSION, "uid:7".to_owned());
    assert!(ledger.decided(SESSION, &decision(None)).await.is_ok());
    // A log that somebody else writes to takes no more records.
    let path = directory.path().join("audit.jsonl");
    let mut other = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    std::io::Write::write_all(&mut other, b"x").unwrap();
    assert!(ledger.decided(SESSION, &decision(None)).await.is_err());
    // A refusal stays one.
    assert!(
        ledger
            .decided(SESSION, &decision(Some("host_not_allowed")))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_flood_of_refusals_is_counted_and_does_not_fill_the_disk() {
    let directory = directory();
    let log = log(directory.path());
    let ledger = SessionLedger::new(log.clone(), SESSION, "uid:7".to_owned());
    let flood = || async {
        for _ in 0..1_000 {
            ledger
                .decided(SESSION, &decision(Some("host_not_allowed")))
                .await
                .unwrap();
        }
    };
    let written = |action: &str| {
        let records = records(directory.path()).into_iter();
        records
            .filter(|record| record.body.action == action)
            .collect::<Vec<_>>()
    };
    flood().await;
    // The log's writer is a thread that knows no such time: only the wait is short.
    tokio::time::pause();
    tokio::time::sleep(WINDOW + Duration::from_secs(1)).await;
    tokio::time::resume();
    log.flush().await;
    let single = written(CONNECT);
    assert_eq!(single.len() as u64, MAX_DENIALS);
    assert_eq!(
        single[0].body.reason.as_deref(),
        Some("network_not_allowed")
    );
    assert_eq!(single[0].body.parameters["code"], "host_not_allowed");
    let counted = written(COUNTED);
    assert_eq!(counted.len(), 1);
    assert_eq!(counted[0].body.parameters["count"], 1_000 - MAX_DENIALS);
    // The next window begins anew, and the end of the session tells the rest.
    flood().await;
    drop(ledger);
    log.flush().await;
    assert_eq!(written(CONNECT).len() as u64, 2 * MAX_DENIALS);
    assert_eq!(written(COUNTED).len(), 2);
}

#[tokio::test]
async fn requests_to_the_provider_pass_the_same_way() {
    use ::egress::{Ending, Observer};
    let directory = directory();
    let log = log(directory.path());
    let ledger = SessionLedger::new(log.clone(), SESSION, "uid:7".to_owned());
    let mut record = request();
    let ticket = ledger.request_begins(SESSION, &record).await.unwrap();
    assert_eq!(records(directory.path()).len(), 1);
    record.status = Some(200);
    record.ending = Ending::Complete;
    record.tokens.output = 9;
    ledger.request_ended(SESSION, Some(ticket), &record);
    record.denied = Some("max_requests");
    record.ending = Ending::Denied;
    ledger.request_ended(SESSION, None, &record);
    log.flush().await;
    let all = records(directory.path());
    assert_eq!(all.len(), 3);
    assert_eq!(all[1].body.parameters["output_tokens"], 9);
    assert_eq!(all[1].body.parameters["status"], 200);
    assert_eq!(all[2].body.reason.as_deref(), Some("limit_reached"));
    assert_eq!(all[2].body.parameters["code"], "max_requests");
}

fn request() -> RequestRecord {
    RequestRecord {
        method: "POST",
        shape: "/v1/messages",
        model: Some("claude-opus-5-5".to_owned()),
        stream: true,
        status: None,
        tokens: ::egress::Tokens::default(),
        cost: None,
        reckoned: false,
        bytes_up: 10,
        bytes_down: 20,
        duration: Duration::ZERO,
        ending: ::egress::Ending::ClientGone,
        denied: None,
    }
}

#[tokio::test]
async fn a_session_has_so_many_connections_a_minute_and_the_refusal_says_so() {
    let directory = directory();
    let ledger = SessionLedger::new(log(directory.path()), SESSION, "uid:7".to_owned());
    lock(&ledger.counts).allowed = MAX_ALLOWED - 1;
    assert!(
        ledger.decided(SESSION, &decision(None)).await.is_ok(),
        "the control"
    );
    let refused = ledger.decided(SESSION, &decision(None)).await;
    let Err(Unrecorded::TooMany { per_minute }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(per_minute, MAX_ALLOWED);
}

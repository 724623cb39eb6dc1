//! The audit log with durability, beside a bare write and `fdatasync` of as many bytes.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    time::Instant,
};

use audit::{AuditConfig, AuditLog, Closing, Durability, IdentityKey, Intent, Parameter};
use model::{ClientInfo, OwnerId, SessionId, Source};

use crate::report::{Bound, Report, Row, Samples};

/// Rounds of each contender.
const ROUNDS: usize = 5;
/// Operations of a round.
const OPERATIONS: u64 = 2_000;
/// About what a record has, bytes.
const RECORD_BYTES: usize = 400;

pub fn measure(report: &mut Report) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("audit.jsonl");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let log = AuditLog::open(AuditConfig::new(
        path.clone(),
        OwnerId::from_bytes([7; 8]),
        IdentityKey::from_bytes(&[7; 32]),
    ))
    .expect("a log");
    let (mut one, mut eight, mut bare) = Default::default();
    for _ in 0..ROUNDS {
        operations(&runtime, &log, 1, Durability::Durable, &mut one);
        operations(&runtime, &log, 8, Durability::Durable, &mut eight);
        bare_writes(&directory.path().join("bare"), &mut bare);
    }
    report.add(
        Row::new("audit, durable operations, 8 callers", "/s", eight)
            .promise(Bound::AtLeast(2_000.0))
            .peer("bare write + fdatasync", &bare),
    );
    report.add(
        Row::new("audit, durable operations, 1 caller", "/s", one)
            .peer("bare write + fdatasync", &bare),
    );
    for _ in 0..50 {
        operations(
            &runtime,
            &log,
            8,
            Durability::Buffered,
            &mut Samples::default(),
        );
    }
    drop(log);
    let mut verified = Samples::default();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let found = audit::verify(&path).expect("an unbroken log");
        verified.push(found.records as f64 / started.elapsed().as_secs_f64());
    }
    report.add(
        Row::new("audit, verification", "records/s", verified).promise(Bound::AtLeast(500_000.0)),
    );
}

fn intent() -> Intent {
    Intent {
        action: "execution.start",
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
            ("timeout_ms", Parameter::Number(60_000)),
        ],
    }
}

/// An operation is an intent and its result.
fn operations(
    runtime: &tokio::runtime::Runtime,
    log: &AuditLog,
    callers: u64,
    durability: Durability,
    samples: &mut Samples,
) {
    let started = Instant::now();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let log = log.clone();
                tokio::spawn(async move {
                    for _ in 0..OPERATIONS / callers {
                        let entry = log.begin(intent(), durability).await.expect("an entry");
                        entry.close(Closing::Ok).await.expect("closed");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        log.flush().await;
    });
    samples.push(OPERATIONS as f64 / started.elapsed().as_secs_f64());
}

fn bare_writes(path: &Path, samples: &mut Samples) {
    let mut file: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("a file");
    let record = [b'x'; RECORD_BYTES];
    let started = Instant::now();
    for _ in 0..OPERATIONS {
        file.write_all(&record)
            .and_then(|()| file.sync_data())
            .expect("written");
    }
    samples.push(OPERATIONS as f64 / started.elapsed().as_secs_f64());
}

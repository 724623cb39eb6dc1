//! How fast the log is on this machine: durable operations (intent and result, each synced) and verification.
//! `cargo bench -p audit`; the promise is 2,000 operations/s and 500,000 records/s on the reference machine.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Instant;

use audit::{AuditConfig, AuditLog, Closing, Durability, Intent, Parameter};
use model::{ClientInfo, OwnerId, SessionId};

fn intent() -> Intent {
    Intent {
        action: "execution.start",
        session: Some(SessionId::from_bytes([9; 16])),
        principal: "uid:1000".to_owned(),
        client: ClientInfo {
            name: "claude-code".to_owned(),
            version: "2.1".to_owned(),
        },
        parameters: vec![
            ("command", Parameter::content(b"make test")),
            ("timeout_ms", Parameter::Number(60_000)),
        ],
    }
}

fn operate(
    runtime: &tokio::runtime::Runtime,
    log: &AuditLog,
    callers: u64,
    each: u64,
    durability: Durability,
) -> f64 {
    let started = Instant::now();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let log = log.clone();
                tokio::spawn(async move {
                    for _ in 0..each {
                        log.begin(intent(), durability)
                            .await
                            .unwrap()
                            .close(Closing::Ok)
                            .await
                            .unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        log.flush().await;
    });
    (callers * each) as f64 / started.elapsed().as_secs_f64()
}

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let log = AuditLog::open(AuditConfig {
        path: path.clone(),
        owner: OwnerId::from_bytes([7; 8]),
    })
    .unwrap();
    for (callers, each) in [(1, 1_000), (8, 1_000), (64, 200)] {
        let rate = operate(&runtime, &log, callers, each, Durability::Durable);
        println!("durable operations, {callers:>2} callers: {rate:>9.0}/s");
    }
    for _ in 0..50 {
        operate(&runtime, &log, 8, 500, Durability::Buffered);
    }
    drop(log);
    let started = Instant::now();
    let report = audit::verify(&path).unwrap();
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "verify, {} records: {:>9.0} records/s",
        report.records,
        report.records as f64 / seconds
    );
    let started = Instant::now();
    drop(
        AuditLog::open(AuditConfig {
            path,
            owner: OwnerId::from_bytes([7; 8]),
        })
        .unwrap(),
    );
    println!(
        "open after a run of that size: {:.1} ms",
        started.elapsed().as_secs_f64() * 1e3
    );
}

//! Every record of a scenario fits `docs/audit-record.schema.json` (A1), and what is no record does not.

use std::fs;

use crate::common::{beside, config, event, intent, open, operate, place, runtime};
use crate::json_schema::fits;
use audit::{AuditConfig, AuditLog, Closing, Durability, Intent, Parameter, Rotation, Target};
use model::{Reason, Source, Transport};
use serde_json::{Value, json};

fn schema() -> Value {
    let schema = include_str!("../../../docs/audit-record.schema.json");
    serde_json::from_str(schema).unwrap()
}

#[test]
fn every_record_of_a_scenario_fits_the_schema() {
    let (_directory, path) = place();
    let rotation = Rotation {
        size_bytes: Some(8 << 10),
        keep_files: Some(3),
        ..Rotation::default()
    };
    let log = AuditLog::open(AuditConfig {
        rotation,
        ..config(&path)
    })
    .unwrap();
    runtime().block_on(async {
        let remote = Intent {
            session: None,
            principal: "key:abc".to_owned(),
            source: Source {
                transport: Transport::Http,
                address: Some([192, 0, 2, 1].into()),
            },
            target: Some(Target {
                kind: "project",
                id: "\u{202e}/a\n".to_owned(),
            }),
            parameters: vec![
                ("big", Parameter::Number(u64::MAX)),
                ("path", Parameter::Path("/x".repeat(2000).into())),
            ],
            ..intent("session.create")
        };
        for closing in [
            Closing::Ok,
            Closing::Denied(Reason::LimitReached),
            Closing::Failed(Reason::Internal),
            Closing::Aborted,
        ] {
            for durability in [
                Durability::Durable,
                Durability::Reserve,
                Durability::Buffered,
            ] {
                let entry = log.begin(remote.clone(), durability).await.unwrap();
                entry.close(closing).await.unwrap();
            }
        }
        log.event(event("session.expired")).await.unwrap();
        fs::rename(&path, beside(&path, ".1")).unwrap();
        log.reopen().await.unwrap();
        let _lost = log.begin(remote, Durability::Durable).await.unwrap();
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(0)
            .unwrap();
        for _ in 0..40 {
            operate(&log, "execution.start").await;
        }
    });
    drop(log);
    drop(open(&path));
    let schema = schema();
    let mut actions = std::collections::BTreeSet::new();
    for file in audit::log_files(&path).unwrap() {
        for line in fs::read_to_string(file).unwrap().lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            assert!(fits(&schema, &record), "{line}");
            actions.insert(record["action"].as_str().unwrap().to_owned());
        }
    }
    for own in [
        "audit.open",
        "audit.checkpoint",
        "audit.rotate",
        "audit.pruned",
    ] {
        assert!(actions.contains(own), "{own} is missing: {actions:?}");
    }
}

/// Positive control: each change makes it no record.
#[test]
fn what_is_no_record_does_not_fit() {
    let (_directory, path) = place();
    let log = open(&path);
    runtime().block_on(operate(&log, "session.create"));
    drop(log);
    let text = fs::read_to_string(&path).unwrap();
    let good: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    let schema = schema();
    assert!(fits(&schema, &good));
    for field in good.as_object().unwrap().keys() {
        let mut without = good.clone();
        without.as_object_mut().unwrap().remove(field);
        assert!(!fits(&schema, &without), "without {field}");
    }
    for (field, value) in [
        ("v", json!(1)),
        ("seq", json!("7")),
        ("timestamp", json!("2026-11-22 10:53:02Z")),
        ("phase", json!("done")),
        ("op", Value::Null),
        ("actor", json!({"id": "uid:0", "hash": "sha256:00"})),
        (
            "source",
            json!({"transport": "carrier pigeon", "address": null}),
        ),
        ("decision", json!("allow")),
        ("parameters", json!({"a": ["b"]})),
        ("result", json!("ok")),
        ("mac", json!("00")),
        ("more", json!(1)),
    ] {
        let mut changed = good.clone();
        changed[field] = value;
        assert!(!fits(&schema, &changed), "{field}");
    }
}

//! What stands in the log.

use std::{fs, os::unix::fs::MetadataExt};

use crate::common::{event, intent, last, open, operate, place, records, runtime};
use audit::{Closing, Durability, Intent, MAX_RECORD_BYTES, Parameter, Phase, Target};
use model::{ClientInfo, Reason, SessionId, Source};

#[test]
fn every_record_has_the_five_fields() {
    let (_directory, path) = place();
    let log = open(&path);
    runtime().block_on(async {
        operate(&log, "session.create").await;
        log.event(event("server.start")).await.unwrap();
        log.begin(intent("session.list"), Durability::Buffered)
            .await
            .unwrap()
            .close(Closing::Ok)
            .await
            .unwrap();
        log.flush().await;
    });
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 5);
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let timestamp = value["timestamp"].as_str().unwrap();
        assert!(
            timestamp.len() == 27
                && timestamp.ends_with('Z')
                && timestamp.parse::<jiff::Timestamp>().is_ok()
        );
        assert!(value.as_object().unwrap().contains_key("session_id"));
        assert!(value["action"].is_string() && value["result"].is_string());
        let actor = value["actor"]["hash"].as_str().unwrap();
        assert!(actor.starts_with("hmac-sha256:") && actor.len() == 76);
        for key in [
            "v",
            "seq",
            "phase",
            "op",
            "client",
            "source",
            "target",
            "decision",
            "parameters",
            "reason",
            "duration_ms",
            "key",
            "prev",
            "mac",
            "hash",
        ] {
            assert!(
                value.as_object().unwrap().contains_key(key),
                "{key} is missing in {line}"
            );
        }
    }
}

#[test]
fn an_operation_leaves_its_intent_and_its_result() {
    let (_directory, path) = place();
    let log = open(&path);
    let made = SessionId::random().unwrap();
    let operation = runtime().block_on(async {
        let asked = Intent {
            session: None,
            ..intent("session.create")
        };
        let mut entry = log.begin(asked, Durability::Durable).await.unwrap();
        assert_eq!(
            records(&path).len(),
            2,
            "the intent is in the file before begin returns"
        );
        entry.set_session(made);
        let operation = entry.operation().to_owned();
        entry
            .close(Closing::Denied(Reason::LimitReached))
            .await
            .unwrap();
        operation
    });
    let [_, intent, result] = &records(&path)[..] else {
        panic!("three records")
    };
    assert_eq!(
        (intent.body.phase, intent.body.result.as_str()),
        (Phase::Intent, "pending")
    );
    assert_eq!(
        (intent.body.session_id, result.body.session_id),
        (None, Some(made))
    );
    assert_eq!(
        (result.body.phase, result.body.result.as_str()),
        (Phase::Result, "denied")
    );
    assert_eq!(result.body.reason.as_deref(), Some("limit_reached"));
    assert_eq!(intent.body.op.as_deref(), Some(operation.as_str()));
    assert_eq!(intent.body.op, result.body.op);
    assert_eq!(intent.body.actor, result.body.actor);
    assert!(result.body.duration_ms.is_some());
    assert_eq!(
        (
            intent.body.decision.as_deref(),
            result.body.decision.as_deref()
        ),
        (None, Some("deny"))
    );
    let target = result.body.target.as_ref().unwrap();
    assert_eq!(
        (target.kind.as_str(), target.id.clone()),
        ("session", made.to_string())
    );
    assert_eq!(result.body.source.transport, "local");
}

#[test]
fn an_entry_that_is_dropped_is_aborted() {
    let (_directory, path) = place();
    let log = open(&path);
    runtime().block_on(async {
        drop(
            log.begin(intent("session.destroy"), Durability::Reserve)
                .await
                .unwrap(),
        );
        drop(
            log.begin(intent("session.list"), Durability::Buffered)
                .await
                .unwrap(),
        );
        log.flush().await;
    });
    assert_eq!(last(&path, "session.destroy").body.result, "aborted");
    assert_eq!(last(&path, "session.list").body.result, "aborted");
}

#[test]
fn a_call_that_is_given_up_while_it_begins_leaves_no_open_intent() {
    let (_directory, path) = place();
    let log = open(&path);
    runtime().block_on(async {
        for _ in 0..50 {
            let log = log.clone();
            let task = tokio::spawn(async move { operate(&log, "session.create").await });
            tokio::task::yield_now().await;
            task.abort();
            let _ = task.await;
        }
        log.flush().await;
    });
    assert_eq!(audit::verify(&path).unwrap().open_intents, []);
}

#[test]
fn callers_are_told_apart_and_only_local_names_are_written() {
    let (_directory, path) = place();
    let log = open(&path);
    runtime().block_on(async {
        for principal in ["uid:1000", "uid:1001", "key:k_7f3a", "uid:1000"] {
            let asked = Intent {
                principal: principal.to_owned(),
                ..intent("session.create")
            };
            log.begin(asked, Durability::Durable)
                .await
                .unwrap()
                .close(Closing::Ok)
                .await
                .unwrap();
        }
    });
    let actors: Vec<_> = records(&path)
        .into_iter()
        .filter(|record| record.body.phase == Phase::Intent)
        .collect();
    let ids: Vec<_> = actors
        .iter()
        .map(|record| record.body.actor.id.as_deref())
        .collect();
    assert_eq!(
        ids,
        [Some("uid:1000"), Some("uid:1001"), None, Some("uid:1000")]
    );
    let hashes: Vec<_> = actors
        .iter()
        .map(|record| record.body.actor.hash.as_str())
        .collect();
    assert_eq!(hashes[0], hashes[3]);
    assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2] && hashes[0] != hashes[2]);
    assert!(!fs::read_to_string(&path).unwrap().contains("k_7f3a"));
}

#[test]
fn content_never_reaches_the_file() {
    let (directory, path) = place();
    let log = open(&path);
    let canary = "CANARY-sk-ant-0123456789";
    runtime().block_on(async {
        let asked = Intent {
            parameters: vec![
                ("command", Parameter::content(canary.as_bytes())),
                (
                    "prompt",
                    Parameter::content(format!("please use {canary}").as_bytes()),
                ),
                ("env", Parameter::content(canary.as_bytes())),
                ("name", Parameter::Word("positive-control".to_owned())),
            ],
            ..intent("execution.start")
        };
        log.begin(asked, Durability::Durable)
            .await
            .unwrap()
            .close(Closing::Ok)
            .await
            .unwrap();
    });
    let files: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(
        files.len(),
        7,
        "log, head, reserve and the files of four keys: {files:?}"
    );
    let all: Vec<u8> = files
        .iter()
        .flat_map(|file| fs::read(file).unwrap())
        .collect();
    let holds = |needle: &str| {
        all.windows(needle.len())
            .any(|window| window == needle.as_bytes())
    };
    assert!(holds("positive-control") && holds("\"bytes\":24"));
    for form in [
        canary,
        &hex_of(canary),
        &canary.replace('-', "\\u002d"),
        &canary[..12],
    ] {
        assert!(!holds(form), "{form}");
    }
}

fn hex_of(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn hostile_texts_can_forge_nothing_in_any_field() {
    let hostile = [
        "\"}\n{\"v\":1,\"seq\":1,\"result\":\"ok\"",
        "a\r\nb",
        "\u{1b}[2J\u{1b}]0;title\u{7}",
        "\u{2028}\u{2029}\u{85}",
        "\u{202e}gnp.exe\u{2066}",
        "\0\u{7f}\u{9b}",
        "\u{feff}\u{200b}\u{e0041}",
        "\\u000a\\\\\"",
        ",\"hash\":\"0000000000000000000000000000000000000000000000000000000000000000\"}",
        &"x".repeat(1 << 20),
        &"\"".repeat(5_000),
        &"\u{10ffff}".repeat(5_000),
        "",
    ];
    let (_directory, path) = place();
    let log = open(&path);
    runtime().block_on(async {
        for text in hostile {
            let names = [
                "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p",
                "q", "r",
            ];
            let mut parameters = names
                .map(|name| (name, Parameter::Path(text.into())))
                .to_vec();
            parameters[0].1 = Parameter::Word(text.to_owned());
            let asked = Intent {
                action: "session.create",
                session: None,
                principal: format!("uid:{text}"),
                client: ClientInfo {
                    name: text.to_owned(),
                    version: text.to_owned(),
                },
                source: Source::LOCAL,
                target: Some(Target {
                    kind: "project",
                    id: text.to_owned(),
                }),
                parameters,
            };
            log.begin(asked, Durability::Durable)
                .await
                .unwrap()
                .close(Closing::Ok)
                .await
                .unwrap();
        }
    });
    let bytes = fs::read(&path).unwrap();
    let text = std::str::from_utf8(&bytes).unwrap();
    assert_eq!(text.lines().count(), 1 + 2 * hostile.len());
    assert!(text.lines().all(|line| line.len() < MAX_RECORD_BYTES));
    assert!(
        text.chars()
            .all(|c| c == '\n' || c == '"' || c == '\\' || c.escape_debug().len() == 1)
    );
    audit::verify(&path).unwrap();
    // What a reader decodes is printable as well: `jq -r` shows no escape sequence.
    for record in records(&path) {
        let decoded = format!(
            "{}{}{}",
            record.body.client.name,
            record.body.client.version,
            record.body.actor.id.unwrap()
        );
        assert!(!decoded.chars().any(char::is_control));
    }
}

#[test]
fn the_files_are_for_the_owner_alone() {
    let (directory, path) = place();
    let _log = open(&path);
    for entry in fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().mode() & 0o777,
            0o600,
            "{:?}",
            entry.path()
        );
    }
}

#[test]
fn eight_threads_leave_one_dense_chain() {
    const THREADS: u64 = 8;
    const EACH: u64 = 500;
    let (_directory, path) = place();
    let log = open(&path);
    let started = std::time::Instant::now();
    runtime().block_on(async {
        let tasks: Vec<_> = (0..THREADS)
            .map(|_| {
                let log = log.clone();
                tokio::spawn(async move {
                    for _ in 0..EACH {
                        operate(&log, "execution.start").await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    let elapsed = started.elapsed();
    println!(
        "{:.0} durable operations/s with {THREADS} callers",
        (THREADS * EACH) as f64 / elapsed.as_secs_f64()
    );
    let report = audit::verify(&path).unwrap();
    assert_eq!(report.records, 1 + 2 * THREADS * EACH + report.checkpoints);
    // One for each thousand records, rounded up to whole batches.
    assert!(
        (6..=8).contains(&report.checkpoints),
        "{}",
        report.checkpoints
    );
    assert_eq!(report.open_intents, []);
    assert_eq!(report.warnings, []);
    assert!(
        records(&path)
            .iter()
            .zip(1..)
            .all(|(record, seq)| record.seq == seq)
    );
}

//! A log of several files: rotated by the server, by another program, cut, removed, pruned (A2, A4).

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::common::{beside, config, intent, open, operate, place, records, runtime};
use audit::{
    AuditConfig, AuditError, AuditLog, Closing, Cursor, Durability, FaultKind, Follower, Phase,
    Record, Rotation, Verification, VerifyError, Warning,
};

fn rotating(path: &Path, rotation: Rotation) -> AuditLog {
    AuditLog::open(AuditConfig {
        rotation,
        ..config(path)
    })
    .unwrap()
}

/// Small files: about forty records.
const SMALL: Rotation = Rotation {
    size_bytes: Some(32 << 10),
    interval: None,
    keep_files: None,
    keep: None,
};

fn all_records(path: &Path) -> Vec<Record> {
    let files = audit::log_files(path).unwrap();
    files.iter().flat_map(|file| records(file)).collect()
}

async fn operations(log: &AuditLog, count: usize) {
    for _ in 0..count {
        operate(log, "execution.start").await;
    }
}

fn fault(path: &Path) -> (u64, FaultKind) {
    match audit::verify(path) {
        Err(VerifyError::Tampered(fault)) => (fault.seq, fault.kind),
        other => panic!("{other:?}"),
    }
}

/// A log of five files and more, closed.
fn rotated() -> (tempfile::TempDir, PathBuf) {
    let (directory, path) = place();
    let log = rotating(&path, SMALL);
    runtime().block_on(operations(&log, 150));
    drop(log);
    assert!(audit::log_files(&path).unwrap().len() >= 5);
    (directory, path)
}

#[test]
fn the_chain_goes_on_from_file_to_file_and_from_run_to_run() {
    let (_directory, path) = rotated();
    runtime().block_on(operate(&open(&path), "session.create"));
    let files = audit::log_files(&path).unwrap();
    let all = all_records(&path);
    assert!(all.iter().zip(1..).all(|(record, seq)| record.seq == seq));
    for file in &files[1..] {
        let header = &records(file)[0];
        assert_eq!(header.body.action, "audit.rotate");
        assert_eq!(header.body.parameters["previous_last_seq"], header.seq - 1);
    }
    for file in &files[..files.len() - 1] {
        let first = records(file)[0].seq;
        assert_eq!(*file, beside(&path, &format!(".{first:012}")));
    }
    let report = audit::verify(&path).unwrap();
    assert_eq!(
        (report.records, report.files),
        (all.len() as u64, files.len())
    );
    assert!(report.macs_checked && report.warnings.is_empty() && report.open_intents.is_empty());
    assert!(report.checkpoints as usize >= files.len() - 1);
}

#[test]
fn a_file_that_is_missing_exchanged_or_changed_is_found() {
    let (_directory, path) = rotated();
    let files = audit::log_files(&path).unwrap();
    let firsts: Vec<u64> = files.iter().map(|file| records(file)[0].seq).collect();
    for (at, file) in files.iter().enumerate().take(files.len() - 1) {
        let good = fs::read(file).unwrap();
        fs::remove_file(file).unwrap();
        assert_eq!(fault(&path), (firsts[at], FaultKind::Deleted), "file {at}");
        let cut = good.len() - 300;
        fs::write(file, &good[..cut]).unwrap();
        let (seq, kind) = fault(&path);
        assert!(
            seq < firsts[at + 1] && kind == FaultKind::TruncatedLine,
            "{kind}"
        );
        let mut changed = good.clone();
        changed[cut] ^= 1;
        fs::write(file, &changed).unwrap();
        assert!(fault(&path).0 < firsts[at + 1]);
        fs::write(file, &good).unwrap();
    }
    let newest = fs::read(&path).unwrap();
    fs::write(
        &path,
        &newest[..newest.iter().position(|byte| *byte == b'\n').unwrap() + 1],
    )
    .unwrap();
    assert_eq!(fault(&path).1, FaultKind::TailMissing);
    fs::write(&path, &newest).unwrap();
    audit::verify(&path).unwrap();
}

#[test]
fn an_intent_of_an_older_file_is_closed_by_the_next_start() {
    let (_directory, path) = place();
    let log = rotating(&path, SMALL);
    let operation = runtime().block_on(async {
        let entry = log
            .begin(intent("session.create"), Durability::Durable)
            .await
            .unwrap();
        operations(&log, 60).await;
        let operation = entry.operation().to_owned();
        // As a kill leaves it: no result is ever written.
        std::mem::forget(entry);
        operation
    });
    // The forgotten entry keeps the log open; a copy of its files is what the next start finds.
    let (_copy, copied) = place();
    for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
        let from = entry.unwrap().path();
        fs::copy(&from, copied.with_file_name(from.file_name().unwrap())).unwrap();
    }
    assert!(audit::log_files(&copied).unwrap().len() > 2);
    drop(open(&copied));
    let unknown: Vec<_> = all_records(&copied)
        .into_iter()
        .filter(|record| record.body.result == "unknown")
        .collect();
    assert_eq!(unknown.len(), 1);
    assert_eq!(unknown[0].body.op.as_ref(), Some(&operation));
    assert_eq!(audit::verify(&copied).unwrap().open_intents, []);
    drop(log);
}

/// `create` of logrotate: the file is renamed, and a signal follows; or none does, and the next record finds out.
#[test]
fn a_log_that_another_program_renames_goes_on_in_a_new_file() {
    for signal in [true, false] {
        let (_directory, path) = place();
        let log = open(&path);
        runtime().block_on(async {
            let entry = log
                .begin(intent("execution.start"), Durability::Durable)
                .await
                .unwrap();
            fs::rename(&path, beside(&path, "-20261126")).unwrap();
            if signal {
                log.reopen().await.unwrap();
                log.reopen().await.unwrap();
            }
            entry.close(Closing::Ok).await.unwrap();
            operate(&log, "session.create").await;
            assert!(log.is_healthy());
        });
        drop(log);
        assert_eq!(audit::log_files(&path).unwrap().len(), 2);
        let header = &records(&path)[0].body;
        assert_eq!(
            (
                header.action.as_str(),
                header.parameters["because"].as_str()
            ),
            ("audit.rotate", Some("renamed_outside"))
        );
        let report = audit::verify(&path).unwrap();
        assert_eq!((report.warnings, report.open_intents), (vec![], vec![]));
        runtime().block_on(operate(&open(&path), "session.create"));
        audit::verify(&path).unwrap();
    }
}

#[test]
fn a_log_that_was_renamed_while_no_server_ran_goes_on_in_a_new_file() {
    let (_directory, path) = place();
    let log = open(&path);
    runtime().block_on(operate(&log, "session.create"));
    drop(log);
    fs::rename(&path, beside(&path, ".1")).unwrap();
    drop(open(&path));
    let report = audit::verify(&path).unwrap();
    assert_eq!((report.files, report.warnings), (2, vec![]));
    assert_eq!(records(&path)[0].body.action, "audit.rotate");
}

/// `copytruncate` of logrotate, a plain removal, and a cut in the middle: told in the log, which goes on.
#[test]
fn a_log_that_is_emptied_cut_or_removed_says_so_and_goes_on() {
    type Attack = fn(&Path);
    let attacks: [(&str, Attack, u64); 4] = [
        (
            "truncated_outside",
            |path| {
                fs::copy(path, beside(path, ".1")).unwrap();
                truncate(path, 0);
            },
            4,
        ),
        ("truncated_outside", |path| truncate(path, 0), 1),
        (
            "truncated_outside",
            |path| {
                let text = fs::read_to_string(path).unwrap();
                let line = text.find('\n').unwrap();
                truncate(path, line as u64 + 100);
            },
            2,
        ),
        ("removed_outside", |path| fs::remove_file(path).unwrap(), 1),
    ];
    for (kind, apply, first_missing) in attacks {
        let (_directory, path) = place();
        let log = open(&path);
        runtime().block_on(async {
            operate(&log, "session.create").await;
            log.flush().await;
            apply(&path);
            operate(&log, "session.create").await;
            assert!(log.is_healthy());
        });
        drop(log);
        let gap = all_records(&path)
            .into_iter()
            .find(|record| record.body.action == "audit.gap")
            .unwrap();
        let told = &gap.body.parameters;
        assert_eq!(told["kind"], kind);
        assert_eq!(told["missing_to_seq"], 3, "{kind}");
        let report = audit::verify(&path).unwrap();
        assert!(
            report.warnings.contains(&Warning::Gap { seq: gap.seq }),
            "{kind}"
        );
        // Where the copy is beside the log nothing is missing at all.
        let seqs: Vec<u64> = all_records(&path).iter().map(|record| record.seq).collect();
        let missing = (1..=3).filter(|seq| !seqs.contains(seq)).min();
        assert_eq!(missing.unwrap_or(4), first_missing, "{kind} {seqs:?}");
        drop(open(&path));
        audit::verify(&path).unwrap();
    }
}

fn truncate(path: &Path, bytes: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(bytes).unwrap();
}

#[test]
fn old_files_go_only_after_the_log_says_so_and_the_rest_verifies() {
    let (_directory, path) = place();
    let rotation = Rotation {
        keep_files: Some(2),
        ..SMALL
    };
    let log = rotating(&path, rotation);
    runtime().block_on(operations(&log, 150));
    drop(log);
    let files = audit::log_files(&path).unwrap();
    assert_eq!(files.len(), 3);
    let report = audit::verify(&path).unwrap();
    assert_eq!(report.pruned_up_to, Some(report.first_seq - 1));
    assert_eq!(report.warnings, []);
    assert!(report.first_seq > 100);
    // One more than was told of.
    fs::remove_file(&files[0]).unwrap();
    assert_eq!(fault(&path), (1, FaultKind::Deleted));
    let from = records(&files[1])[0].seq;
    let allowed = Verification {
        from_seq: Some(from),
        ..Verification::default()
    };
    let report = allowed.run(&path).unwrap();
    assert_eq!(report.warnings, [Warning::StartsAt { seq: from }]);
}

#[test]
fn files_older_than_the_days_that_are_kept_go_at_the_next_start() {
    let (_directory, path) = rotated();
    let before = audit::log_files(&path).unwrap().len();
    let kept = |keep| Rotation {
        keep: Some(keep),
        ..Rotation::default()
    };
    let log = rotating(&path, kept(Duration::from_secs(3600)));
    runtime().block_on(operate(&log, "session.create"));
    drop(log);
    assert_eq!(audit::log_files(&path).unwrap().len(), before);
    let log = rotating(&path, kept(Duration::ZERO));
    runtime().block_on(operate(&log, "session.create"));
    drop(log);
    assert_eq!(audit::log_files(&path).unwrap().len(), 1);
    assert!(audit::verify(&path).unwrap().pruned_up_to.is_some());
}

#[test]
fn a_file_that_is_old_enough_is_not_written_any_more() {
    let (_directory, path) = place();
    let rotation = Rotation {
        interval: Some(Duration::ZERO),
        ..Rotation::default()
    };
    let log = rotating(&path, rotation);
    runtime().block_on(operations(&log, 2));
    drop(log);
    assert!(audit::log_files(&path).unwrap().len() >= 2);
    audit::verify(&path).unwrap();
}

/// What a crash between the two steps of a rotation leaves, and one before the first.
#[test]
fn a_rotation_that_was_cut_off_is_finished_or_undone_by_the_next_start() {
    let (_directory, path) = rotated();
    let files = audit::log_files(&path).unwrap();
    let last_old = &files[files.len() - 2];
    fs::rename(last_old, beside(&path, ".next")).unwrap();
    audit::verify(&path).unwrap();
    drop(open(&path));
    assert_eq!(audit::log_files(&path).unwrap(), files);
    for prepared in ["", "{\"v\":2,\"seq\":1000000,\"timestamp\":\"20"] {
        fs::write(beside(&path, ".next"), prepared).unwrap();
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(beside(&path, ".next"), mode).unwrap();
        audit::verify(&path).unwrap();
        drop(open(&path));
        assert!(!beside(&path, ".next").exists());
        assert_eq!(audit::log_files(&path).unwrap(), files);
    }
}

/// A4: an operator may let a group read the log, and an old file that a crash left half renamed has that mode, too. Secrets beside
/// it may not.
#[test]
fn a_rotation_that_was_cut_off_is_settled_where_a_group_reads_the_log() {
    let (_directory, path) = rotated();
    let of_a_group = |path: &Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
    };
    let files = audit::log_files(&path).unwrap();
    files.iter().for_each(|file| of_a_group(file));
    fs::rename(&files[files.len() - 2], beside(&path, ".next")).unwrap();
    drop(open(&path));
    assert_eq!(audit::log_files(&path).unwrap(), files);
    audit::verify(&path).unwrap();
    of_a_group(&beside(&path, ".key"));
    let refused = AuditLog::open(config(&path)).map(drop);
    assert!(
        matches!(refused, Err(AuditError::Unsafe { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_follower_gets_every_durable_record_once_and_in_order_across_rotations_and_restarts() {
    let (_directory, path) = place();
    let log = rotating(&path, SMALL);
    let mut seen = Vec::new();
    let mut cursor = Cursor::default();
    runtime().block_on(async {
        for round in 0..12 {
            operations(&log, 10).await;
            log.flush().await;
            // Every other time from a kept place, as a program does that was restarted.
            let mut follower = Follower::new(&path, cursor);
            while let Some(found) = follower.next().unwrap() {
                assert_eq!(found.missing, 0);
                let record: Record = serde_json::from_slice(&found.line).unwrap();
                assert_eq!(record.seq, found.seq);
                seen.push(found.seq);
                if round % 3 == 0 && seen.len() % 7 == 0 {
                    follower = Follower::new(&path, follower.cursor());
                }
            }
            cursor = follower.cursor();
        }
    });
    drop(log);
    let mut follower = Follower::new(
        &path,
        Cursor {
            offset: 17,
            ..cursor
        },
    );
    while let Some(found) = follower.next().unwrap() {
        seen.push(found.seq);
    }
    let all = all_records(&path).len() as u64;
    assert_eq!(seen, (1..=all).collect::<Vec<_>>());
    assert!(audit::log_files(&path).unwrap().len() >= 5);
    let intents = all_records(&path);
    assert!(
        intents
            .iter()
            .any(|record| record.body.phase == Phase::Intent)
    );
}

#[test]
fn a_follower_counts_what_was_pruned_before_it_came() {
    let (_directory, path) = place();
    let log = rotating(
        &path,
        Rotation {
            keep_files: Some(1),
            ..SMALL
        },
    );
    runtime().block_on(operations(&log, 150));
    drop(log);
    let first = records(&audit::log_files(&path).unwrap()[0])[0].seq;
    let found = Follower::new(&path, Cursor::default())
        .next()
        .unwrap()
        .unwrap();
    assert_eq!((found.seq, found.missing), (first, first - 1));
}

/// It was taken for a log that another program rotates all the time.
#[test]
fn a_log_in_a_directory_that_is_not_there_was_said_to_change_all_the_time() {
    let (_directory, path) = rotated();
    let missing = path.with_file_name("missing").join("audit.jsonl");
    assert_eq!(audit::log_files(&missing).unwrap(), Vec::<PathBuf>::new());
    match audit::verify(&missing) {
        Err(VerifyError::Io(error)) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        other => panic!("{other:?}"),
    }
    assert!(audit::log_files(&path).unwrap().len() > 1, "the control");
    audit::verify(&path).unwrap();
}

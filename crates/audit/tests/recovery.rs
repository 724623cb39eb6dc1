//! What the next start makes of what it finds.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use crate::common::{beside, config, intent, last, open, operate, place, records, runtime};
use audit::{AuditError, AuditLog, Durability, Warning};

fn refused(path: &Path) -> AuditError {
    let content = || path.is_file().then(|| fs::read(path).unwrap());
    let before = content();
    match AuditLog::open(config(path)) {
        Ok(_) => panic!("{path:?} was opened"),
        Err(error) => {
            assert_eq!(content(), before, "a refused log must not be touched");
            error
        }
    }
}

fn written() -> (tempfile::TempDir, PathBuf) {
    let (directory, path) = place();
    let log = open(&path);
    runtime().block_on(async {
        for _ in 0..3 {
            operate(&log, "execution.start").await;
        }
    });
    drop(log);
    (directory, path)
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new()
        .append(true)
        .open(path)
        .unwrap()
        .write_all(bytes)
        .unwrap();
}

fn torn_files(directory: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.to_string_lossy().contains(".torn-"))
        .collect()
}

#[test]
fn a_reopened_log_goes_on_where_it_ended() {
    let (directory, path) = written();
    assert_eq!(records(&path).len(), 8);
    runtime().block_on(operate(&open(&path), "session.create"));
    let report = audit::verify(&path).unwrap();
    assert_eq!((report.records, report.warnings), (12, vec![]));
    assert_eq!((report.checkpoints, report.macs_checked), (2, true));
    assert!(torn_files(directory.path()).is_empty());
}

#[test]
fn a_second_writer_is_refused_until_the_first_has_gone() {
    let (_directory, path) = place();
    let log = open(&path);
    assert!(matches!(refused(&path), AuditError::InUse { .. }));
    let clone = log.clone();
    drop(log);
    assert!(matches!(refused(&path), AuditError::InUse { .. }));
    drop(clone);
    open(&path);
}

/// Every length that a torn write can leave, each kept aside and told about.
#[test]
fn a_torn_last_line_is_kept_aside_and_a_gap_is_recorded() {
    let next_line = b"{\"v\":2,\"seq\":9,\"timestamp\":\"2026-11-22T10:53:02.123456Z\",\"phase\":\"intent\",\"op\":\"x-1\"";
    for torn in [1, 2, 9, 40, next_line.len()] {
        let (directory, path) = written();
        let good = fs::read(&path).unwrap();
        append(&path, &next_line[..torn]);
        drop(open(&path));
        let gap = last(&path, "audit.gap").body;
        assert_eq!(
            (
                gap.parameters["kind"].as_str(),
                gap.parameters["bytes"].as_u64()
            ),
            (Some("torn_tail"), Some(torn as u64))
        );
        let aside = torn_files(directory.path());
        assert_eq!(fs::read(&aside[0]).unwrap(), &next_line[..torn]);
        let report = audit::verify(&path).unwrap();
        assert_eq!(
            (report.records, report.warnings),
            (10, vec![Warning::Gap { seq: 9 }])
        );
        assert!(fs::read(&path).unwrap().starts_with(&good));
    }
}

#[test]
fn a_torn_first_record_is_repaired_too() {
    let (_directory, path) = place();
    fs::write(&path, "{\"v\":2,\"seq\":1,\"time").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    drop(open(&path));
    assert_eq!(audit::verify(&path).unwrap().records, 2);
}

#[test]
fn a_foreign_file_is_left_alone() {
    for content in [
        "hello\n",
        "{\"level\":\"info\"}\n",
        "{\"v\":3,\"seq\":1}\n",
        "\0\0\0\0",
        "{\"v\":2,\"seq\":1,\n",
    ] {
        let (directory, path) = place();
        fs::write(&path, content).unwrap();
        assert!(
            matches!(refused(&path), AuditError::Foreign { .. }),
            "{content:?}"
        );
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "nothing is put beside it"
        );
    }
}

#[test]
fn a_durable_record_that_was_changed_stops_the_start() {
    let (_directory, path) = written();
    let good = fs::read_to_string(&path).unwrap();
    let edited = good
        .replacen("execution.start", "execution.stolen", 3)
        .replacen("execution.stolen", "execution.start", 2);
    assert_ne!(edited, good);
    fs::write(&path, edited).unwrap();
    assert!(matches!(refused(&path), AuditError::Broken { seq: 4, .. }));
    fs::write(&path, good).unwrap();
    open(&path);
}

#[test]
fn a_missing_tail_is_recorded_with_its_numbers_and_these_are_not_used_again() {
    for (kept, from) in [(5, 6), (0, 1)] {
        let (_directory, path) = written();
        let own: String = fs::read_to_string(&path)
            .unwrap()
            .lines()
            .take(kept)
            .map(|line| format!("{line}\n"))
            .collect();
        fs::write(&path, own).unwrap();
        drop(open(&path));
        let gap = last(&path, "audit.gap");
        let parameters = &gap.body.parameters;
        assert_eq!(
            (
                gap.seq,
                parameters["missing_from_seq"].as_u64(),
                parameters["missing_to_seq"].as_u64()
            ),
            (9, Some(from), Some(8))
        );
        assert_eq!(
            audit::verify(&path).unwrap().warnings,
            [Warning::Gap { seq: 9 }]
        );
        drop(open(&path));
        assert_eq!(audit::verify(&path).unwrap().records, kept as u64 + 3);
    }
}

#[test]
fn a_log_of_an_earlier_format_is_told_from_a_foreign_file() {
    let (_directory, path) = place();
    fs::write(&path, "{\"v\":1,\"seq\":1,\"timestamp\":\"\"}\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(refused(&path), AuditError::Format { .. }));
}

#[test]
fn intents_of_a_killed_run_are_closed_as_unknown() {
    let (_directory, path) = place();
    let log = open(&path);
    let (lost, done) = runtime().block_on(async {
        let done = log
            .begin(intent("execution.start"), Durability::Durable)
            .await
            .unwrap();
        let lost = log
            .begin(intent("session.create"), Durability::Durable)
            .await
            .unwrap();
        let operations = (lost.operation().to_owned(), done.operation().to_owned());
        done.close(audit::Closing::Ok).await.unwrap();
        // As a kill leaves it: the log as it is now.
        fs::copy(&path, beside(&path, ".killed")).unwrap();
        for suffix in [
            ".head",
            ".key",
            ".signing-key",
            ".public-key",
            ".verify-key",
        ] {
            fs::copy(
                beside(&path, suffix),
                beside(&path, &format!(".killed{suffix}")),
            )
            .unwrap();
        }
        drop(lost);
        operations
    });
    drop(log);
    let path = beside(&path, ".killed");
    assert_eq!(audit::verify(&path).unwrap().open_intents.len(), 1);
    drop(open(&path));
    let unknown: Vec<_> = records(&path)
        .into_iter()
        .filter(|record| record.body.result == "unknown")
        .collect();
    assert_eq!(unknown.len(), 1);
    assert_eq!(unknown[0].body.op.as_ref(), Some(&lost));
    assert_eq!(unknown[0].body.action, "session.create");
    assert_ne!(lost, done);
    assert_eq!(last(&path, "audit.open").body.parameters["recovered"], 1);
    assert_eq!(audit::verify(&path).unwrap().open_intents, []);
    drop(open(&path));
    assert_eq!(
        last(&path, "audit.open").body.parameters["recovered"],
        0,
        "closed once, not at each start"
    );
}

#[test]
fn an_unwritable_or_unsafe_path_is_an_error_at_start() {
    let (directory, path) = place();
    let missing = directory.path().join("no/audit.log");
    assert!(matches!(refused(&missing), AuditError::Open { .. }));
    assert!(matches!(
        refused(Path::new("/")),
        AuditError::BadPath { .. }
    ));
    assert!(matches!(
        refused(Path::new("/dev/full")),
        AuditError::Open { .. } | AuditError::Unsafe { .. }
    ));
    assert!(matches!(
        refused(directory.path()),
        AuditError::Open { .. } | AuditError::Unsafe { .. }
    ));

    fs::write(directory.path().join("target"), "").unwrap();
    symlink("target", &path).unwrap();
    assert!(matches!(refused(&path), AuditError::Open { .. }), "a link");
    fs::remove_file(&path).unwrap();

    fs::hard_link(directory.path().join("target"), &path).unwrap();
    assert!(
        matches!(refused(&path), AuditError::Unsafe { .. }),
        "a second name"
    );
    fs::remove_file(&path).unwrap();

    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    assert!(
        matches!(refused(&path), AuditError::Unsafe { .. }),
        "others may write the file"
    );
    fs::remove_file(&path).unwrap();

    for (mode, safe) in [
        (0o777, false),
        (0o770, false),
        (0o1777, true),
        (0o755, true),
    ] {
        fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
        let opened = AuditLog::open(config(&path));
        assert_eq!(opened.is_ok(), safe, "{mode:o}");
        assert!(safe || matches!(opened, Err(AuditError::Unsafe { .. })));
    }
}

#[test]
fn a_pipe_or_device_is_refused_and_hangs_nobody() {
    let (directory, path) = place();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let refused = AuditLog::open(config(&path));
    assert!(matches!(refused, Err(AuditError::Unsafe { .. })));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_log_that_somebody_writes_to_or_replaces_by_a_file_of_theirs_takes_no_more_changes() {
    type Attack = fn(&Path);
    let attacks: [(&str, Attack); 2] = [
        ("replaced", |path| {
            fs::rename(path, beside(path, ".1")).unwrap();
            fs::write(path, "theirs").unwrap();
        }),
        ("written to", |path| append(path, b"forged\n")),
    ];
    for (attack, apply) in attacks {
        let (_directory, path) = place();
        let log = open(&path);
        runtime().block_on(async {
            operate(&log, "session.create").await;
            apply(&path);
            let refused = log
                .begin(intent("session.create"), Durability::Durable)
                .await;
            assert!(
                matches!(refused, Err(AuditError::Unavailable { .. })),
                "{attack}"
            );
            assert!(!log.is_healthy(), "{attack}");
            assert!(log.reopen().await.is_err(), "{attack}");
            log.begin(intent("session.destroy"), Durability::Reserve)
                .await
                .unwrap()
                .close(audit::Closing::Ok)
                .await
                .unwrap();
        });
    }
}

//! Each system call on the log's files in turn fails, or is the last one of its program (A1, A2): nothing is changed
//! without a durable intent, ending things always works, and the next start finds a log that verifies, seals included.
//!
//! The faults are made by strace, for the files of the log alone. A write that takes a part only is in `faults.rs`.

use std::{
    collections::HashSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use crate::common::{beside, config, intent, open, place, records, runtime};
use audit::{AuditConfig, AuditError, AuditLog, Closing, Durability, Phase, Record, Rotation};

const CHILD_LOG: &str = "AUDIT_TEST_CHILD_LOG";
/// What the log's files are changed with.
const CALLS: [&str; 8] = [
    "write",
    "pwrite64",
    "fdatasync",
    "fsync",
    "ftruncate",
    "renameat",
    "renameat2",
    "unlinkat",
];
const ERRORS: [&str; 4] = ["EIO", "ENOSPC", "EROFS", "EINTR"];
/// Suffixes of files that are changed.
const FILES: [&str; 9] = [
    "",
    ".head",
    ".key",
    ".key.new",
    ".next",
    ".reserve",
    ".signing-key.new",
    ".public-key.new",
    ".verify-key.new",
];

/// Not a test by itself: a server's life with a rotation, a file that is renamed, creations and destructions. What it
/// changes it writes down elsewhere, after the intent and before the result.
#[test]
fn child_that_works() {
    let Some(path) = std::env::var_os(CHILD_LOG) else {
        return;
    };
    let path = PathBuf::from(path);
    let mut changes = fs::File::create(path.with_file_name("changes")).unwrap();
    let rotation = Rotation {
        size_bytes: Some(5 << 10),
        ..Rotation::default()
    };
    let Ok(log) = AuditLog::open(AuditConfig {
        rotation,
        ..config(&path)
    }) else {
        return;
    };
    runtime().block_on(async {
        for round in 0..6 {
            match log
                .begin(intent("session.create"), Durability::Durable)
                .await
            {
                Ok(entry) => {
                    writeln!(changes, "{}", entry.operation()).unwrap();
                    let _ = entry.close(Closing::Ok).await;
                }
                Err(AuditError::Unavailable { .. }) => {}
                Err(other) => panic!("{other}"),
            }
            let destroyed = log
                .begin(intent("session.destroy"), Durability::Reserve)
                .await;
            let _ = destroyed.expect("ending works").close(Closing::Ok).await;
            if round == 3 {
                fs::rename(&path, beside(&path, ".1")).unwrap();
                let _ = log.reopen().await;
            }
        }
    });
}

/// Runs the child with that fault at the `at`th such call; whether the fault came.
fn run_with(path: &Path, call: &str, fault: &str, at: usize) -> bool {
    let trace = path.with_file_name("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o"]).arg(&trace);
    for suffix in FILES {
        strace.arg("-P").arg(beside(path, suffix));
    }
    let output = strace
        .arg("-P")
        .arg(path.parent().unwrap())
        .arg("-e")
        .arg(format!("trace={call}"))
        .arg("-e")
        .arg(format!("inject={call}:{fault}:when={at}"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "injected::child_that_works", "--nocapture"])
        .env(CHILD_LOG, path)
        .output()
        .unwrap();
    let told = fs::read_to_string(&trace).unwrap();
    let killed = told.contains("killed by SIGKILL");
    assert!(
        output.status.success() || killed,
        "{call} {fault} {at}: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    killed || told.contains("(INJECTED)")
}

/// The next start, without a fault.
fn check_after(path: &Path, what: &str) {
    let changes = fs::read_to_string(path.with_file_name("changes")).unwrap_or_default();
    let before = audit::log_files(path).unwrap_or_default();
    let on_disk: Vec<u8> = before
        .iter()
        .flat_map(|file| fs::read(file).unwrap())
        .collect();
    let on_disk = String::from_utf8_lossy(&on_disk).into_owned();
    for operation in changes.lines() {
        assert!(
            on_disk.contains(&format!("\"phase\":\"intent\",\"op\":\"{operation}\"")),
            "{what}: {operation} was changed without an intent on disk"
        );
    }
    drop(open(path));
    let report = audit::verify(path).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(
        report.macs_checked && report.open_intents.is_empty(),
        "{what}"
    );
    let all: Vec<Record> = audit::log_files(path)
        .unwrap()
        .iter()
        .flat_map(|file| records(file))
        .collect();
    let results: HashSet<_> = all
        .iter()
        .filter(|record| record.body.phase == Phase::Result)
        .filter_map(|record| record.body.op.as_deref())
        .collect();
    for operation in changes.lines() {
        assert!(
            results.contains(operation),
            "{what}: {operation} has no result"
        );
    }
}

/// Every `step`th call of each kind, until the program makes no more of them. Returns how many faults came.
fn inject(fault: impl Fn(usize) -> String, step: usize) -> usize {
    let mut count = 0;
    for call in CALLS {
        for at in (1..).step_by(step) {
            let (_directory, path) = place();
            let fault = fault(at);
            if !run_with(&path, call, &fault, at) {
                break;
            }
            count += 1;
            check_after(&path, &format!("{call} {fault} {at}"));
        }
    }
    count
}

fn has_strace() -> bool {
    let found = Command::new("strace").arg("-V").output().is_ok();
    if !found {
        crate::skip::skip("strace", "strace is not installed");
    }
    found
}

fn error(at: usize) -> String {
    format!("error={}", ERRORS[at % ERRORS.len()])
}

#[test]
fn a_program_that_is_killed_at_a_call_leaves_a_log_that_goes_on() {
    if has_strace() {
        assert!(inject(|_| "signal=KILL".to_owned(), 6) > 8);
    }
}

#[test]
fn a_call_that_fails_changes_nothing_that_is_not_on_record() {
    if has_strace() {
        assert!(inject(error, 6) > 8);
    }
}

#[test]
#[ignore = "long; scripts/soak audit runs it"]
fn every_call_fails_once_with_each_error_and_is_the_last_one_once() {
    if !has_strace() {
        return;
    }
    let started = std::time::Instant::now();
    let mut count = inject(|_| "signal=KILL".to_owned(), 1);
    for kind in ERRORS {
        count += inject(|_| format!("error={kind}"), 1);
    }
    println!("{count} faults, one at a time: {:.1?}", started.elapsed());
}

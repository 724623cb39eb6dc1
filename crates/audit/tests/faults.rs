//! What happens when the disk is full or gone. Every fault here is made by the kernel, in a process of its own: a limit
//! on the size of files (a write beyond it fails like on a full disk, also in the middle), or a tiny file system.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use crate::common::{beside, config, event, intent, last, open, operate, place, records, runtime};
use audit::{AuditConfig, AuditError, AuditLog, Closing, Durability, Phase, Rotation, Warning};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const CHILD_LOG: &str = "AUDIT_TEST_CHILD_LOG";

/// Runs one of the tests below, which is none without its variable, in a shell that prepares the process.
fn run_child(name: &str, prepare: &str, log: &Path) -> Output {
    Command::new("sh")
        .args([
            "-c",
            &format!("{prepare} exec \"$0\" --exact faults::{name} --nocapture --test-threads=1"),
        ])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD_LOG, log)
        .output()
        .unwrap()
}

fn assert_passed(output: &Output) {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

/// Files may grow to this size only (`None`: as before). The reserve and the head file are not concerned: their blocks
/// exist, and a limit is about growing.
fn limit_files(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(
        Resource::Fsize,
        Rlimit {
            current: bytes.or(maximum),
            maximum,
        },
    )
    .unwrap();
}

async fn refused(log: &AuditLog) -> bool {
    match log
        .begin(intent("session.create"), Durability::Durable)
        .await
    {
        Ok(entry) => {
            entry.close(Closing::Ok).await.unwrap();
            false
        }
        Err(AuditError::Unavailable { .. }) => true,
        Err(other) => panic!("{other}"),
    }
}

async fn destroy(log: &AuditLog) -> Result<(), AuditError> {
    log.begin(intent("session.destroy"), Durability::Reserve)
        .await
        .unwrap()
        .close(Closing::Ok)
        .await
}

fn count(path: &Path, action: &str, result: &str) -> usize {
    records(path)
        .iter()
        .filter(|record| record.body.action == action && record.body.result == result)
        .count()
}

/// With the limit at every offset of the next records in turn, so that writes break off in the middle of a line, too.
#[test]
fn child_full_disk() {
    let Some(path) = std::env::var_os(CHILD_LOG) else {
        return;
    };
    let path = Path::new(&path);
    let log = open(path);
    runtime().block_on(async {
        operate(&log, "session.create").await;
        for round in 0..24 {
            let before = fs::metadata(path).unwrap().len();
            limit_files(Some(before + round * 61));
            let mut creates_refused = 0;
            while !refused(&log).await {}
            creates_refused += 1;
            assert!(!log.is_healthy());
            let full = fs::read(path).unwrap();
            assert!(full.ends_with(b"\n"), "round {round}: half a line was left");
            assert!(refused(&log).await);
            creates_refused += 1;
            destroy(&log).await.unwrap();
            log.event(event("session.expired")).await.unwrap();
            log.begin(intent("session.list"), Durability::Buffered)
                .await
                .unwrap()
                .close(Closing::Ok)
                .await
                .unwrap();
            log.flush().await;
            assert_eq!(
                fs::read(path).unwrap(),
                full,
                "round {round}: the log grew on a full disk"
            );

            limit_files(None);
            operate(&log, "session.create").await;
            assert!(log.is_healthy());
            let gap = last(path, "audit.gap").body.parameters;
            assert_eq!(
                gap["refused"].as_u64(),
                Some(creates_refused),
                "round {round}"
            );
            // Four when an intent still found room in the log, and its result did not.
            let from_reserve = gap["from_reserve"].as_u64().unwrap();
            assert!(
                (3..=4).contains(&from_reserve),
                "round {round}: {from_reserve}"
            );
            assert_eq!(
                (gap["lost"].as_u64(), gap["lost_reads"].as_u64()),
                (Some(0), Some(1)),
                "round {round}"
            );
        }
    });
    drop(log);
    let report = audit::verify(path).unwrap();
    assert_eq!(report.open_intents, []);
    assert_eq!(report.warnings.len(), 24);
    assert_eq!(
        count(path, "session.destroy", "ok"),
        24,
        "all from the reserve"
    );
}

#[test]
fn on_a_full_disk_creation_is_refused_destruction_works_and_the_log_stays_whole() {
    let (_directory, path) = place();
    // The signal that the kernel sends with the error is ignored, as the server does for a broken pipe.
    assert_passed(&run_child("child_full_disk", "trap '' XFSZ;", &path));
}

/// The reserve ends, too: then destruction goes on all the same and the loss is counted.
#[test]
fn child_full_reserve() {
    let Some(path) = std::env::var_os(CHILD_LOG) else {
        return;
    };
    let path = Path::new(&path);
    let log = open(path);
    runtime().block_on(async {
        operate(&log, "session.create").await;
        limit_files(Some(0));
        assert!(refused(&log).await);
        // Not even the reserve takes a write now.
        let closed = destroy(&log).await;
        assert!(
            matches!(closed, Err(AuditError::Unavailable { .. })),
            "the result is not on disk"
        );
        assert!(log.event(event("session.expired")).await.is_err());
        limit_files(None);
        operate(&log, "session.create").await;
    });
    drop(log);
    let gap = last(path, "audit.gap").body.parameters;
    assert_eq!(
        (
            gap["lost"].as_u64(),
            gap["refused"].as_u64(),
            gap["from_reserve"].as_u64()
        ),
        (Some(3), Some(1), Some(0))
    );
    assert_eq!(audit::verify(path).unwrap().open_intents, []);
}

#[test]
fn when_the_reserve_fails_too_destruction_goes_on_and_the_loss_is_counted() {
    let (_directory, path) = place();
    assert_passed(&run_child("child_full_reserve", "trap '' XFSZ;", &path));
}

/// The server dies while records wait in the reserve: the next start brings them into the log.
#[test]
fn child_killed_on_a_full_disk() {
    let Some(path) = std::env::var_os(CHILD_LOG) else {
        return;
    };
    let path = Path::new(&path);
    let log = open(path);
    runtime().block_on(async {
        let _open = log
            .begin(intent("execution.start"), Durability::Durable)
            .await
            .unwrap();
        limit_files(Some(fs::metadata(path).unwrap().len()));
        assert!(refused(&log).await);
        destroy(&log).await.unwrap();
        let pid = rustix::process::getpid();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    });
}

#[test]
fn records_in_the_reserve_survive_a_kill() {
    let (_directory, path) = place();
    let output = run_child("child_killed_on_a_full_disk", "trap '' XFSZ;", &path);
    assert!(!output.status.success());
    assert_eq!(
        count(&path, "session.destroy", "ok"),
        0,
        "positive control: it is not in the log yet"
    );
    drop(open(&path));
    assert_eq!(count(&path, "session.destroy", "ok"), 1);
    assert_eq!(count(&path, "execution.start", "unknown"), 1);
    let report = audit::verify(&path).unwrap();
    assert_eq!((report.open_intents, report.warnings), (vec![], vec![]));
    drop(open(&path));
    assert_eq!(count(&path, "session.destroy", "ok"), 1, "once");
}

/// The disk is full, logs are rotated from outside, and then there is room again: the new file begins with what was in the
/// reserve. Or there was room all the time.
#[test]
fn child_whose_file_is_renamed() {
    let Some(path) = std::env::var_os(CHILD_LOG) else {
        return;
    };
    let path = Path::new(&path);
    let log = open(path);
    runtime().block_on(async {
        let _open = log
            .begin(intent("execution.start"), Durability::Durable)
            .await
            .unwrap();
        let is_full = path.with_file_name("full").exists();
        if is_full {
            limit_files(Some(fs::metadata(path).unwrap().len()));
            assert!(refused(&log).await);
            destroy(&log).await.unwrap();
        }
        fs::rename(path, beside(path, ".1")).unwrap();
        limit_files(None);
        operate(&log, "session.create").await;
        assert!(log.is_healthy());
        let first = &records(path)[0].body;
        assert_eq!(first.action == "session.destroy", is_full, "{first:?}");
        let pid = rustix::process::getpid();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    });
}

/// A1: an intent of before is closed, wherever in the new file its header stands.
#[test]
fn an_intent_is_closed_after_a_rename_from_outside_also_where_the_reserve_was_used() {
    for is_full in [false, true] {
        let (_directory, path) = place();
        if is_full {
            fs::write(path.with_file_name("full"), "").unwrap();
        }
        let output = run_child("child_whose_file_is_renamed", "trap '' XFSZ;", &path);
        assert!(!output.status.success());
        let old = beside(&path, ".1");
        assert_eq!(count(&old, "execution.start", "pending"), 1, "the control");
        drop(open(&path));
        assert_eq!(count(&path, "execution.start", "unknown"), 1, "{is_full}");
        assert_eq!(audit::verify(&path).unwrap().open_intents, [], "{is_full}");
        drop(open(&path));
        assert_eq!(count(&path, "execution.start", "unknown"), 1, "once");
    }
}

/// A real full file system, in namespaces of its own.
#[test]
fn child_tiny_file_system() {
    let Some(path) = std::env::var_os(CHILD_LOG) else {
        return;
    };
    let path = Path::new(&path);
    let log = open(path);
    runtime().block_on(async {
        let filler = path.with_file_name("filler");
        while !refused(&log).await {
            // Eat the space in large steps, then byte by byte.
            let size = fs::metadata(&filler).map_or(0, |found| found.len());
            for step in [1 << 16, 1 << 12] {
                let file = fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&filler)
                    .unwrap();
                let _ = std::io::Write::write_all(&mut &file, &vec![1; step]);
            }
            assert!(size < 8 << 20, "the file system has no end");
        }
        for _ in 0..100 {
            destroy(&log).await.unwrap();
        }
        assert!(refused(&log).await);
        fs::remove_file(&filler).unwrap();
        operate(&log, "session.create").await;
    });
    drop(log);
    assert_eq!(count(path, "session.destroy", "ok"), 100);
    assert_eq!(last(path, "audit.gap").body.parameters["from_reserve"], 200);
    let report = audit::verify(path).unwrap();
    assert!(
        matches!(report.warnings[..], [Warning::Gap { .. }]),
        "{:?}",
        report.warnings
    );
}

#[test]
fn on_a_full_file_system_the_reserve_has_its_own_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let mounted = directory.path().join("tiny");
    fs::create_dir(&mounted).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=2m,mode=700 tiny '{}' &&",
        mounted.display()
    );
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
        .arg(format!(
            "{script} exec \"$0\" --exact faults::child_tiny_file_system --nocapture"
        ))
        .arg(std::env::current_exe().unwrap())
        .env(CHILD_LOG, mounted.join("audit.log"))
        .output();
    match output {
        Ok(output) if output.status.success() => assert_passed(&output),
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("unshare") => {
            crate::skip::skip(
                "unprivileged",
                "no user namespaces here; the size limit of the other tests stands in",
            );
        }
        Ok(output) => assert_passed(&output),
        Err(error) => crate::skip::skip("unprivileged", &format!("no unshare here: {error}")),
    }
}

/// A sync that fails takes what was written since the last one with it: results, which do not wait for theirs, among it.
#[test]
fn child_whose_fifth_sync_fails() {
    let Some(path) = std::env::var_os(CHILD_LOG) else {
        return;
    };
    let path = Path::new(&path);
    let log = open(path);
    runtime().block_on(async {
        // Each intent is one sync of the writer's; the opening's are another thread's, and fewer.
        for _ in 0..4 {
            operate(&log, "session.create").await;
        }
        while refused(&log).await {}
        log.flush().await;
    });
    drop(log);
    assert_eq!(last(path, "audit.gap").body.parameters["from_reserve"], 1);
    assert_eq!(count(path, "session.create", "ok"), 5);
    let report = audit::verify(path).unwrap();
    assert_eq!(report.open_intents, []);
}

#[test]
fn a_sync_that_fails_takes_no_result_with_it() {
    if Command::new("strace").arg("-V").output().is_err() {
        return crate::skip::skip("strace", "strace is not installed");
    }
    let (_directory, path) = place();
    let strace = "exec strace -f -o /dev/null -e trace=fdatasync -e inject=fdatasync:error=EIO:when=5 \"$0\" \
                  --exact faults::child_whose_fifth_sync_fails --nocapture;";
    assert_passed(&run_child("", strace, &path));
}

/// Operations of the log that is rotated when the result of the last one is written.
const OPERATIONS: usize = 6;
/// Size at which it is.
const CHILD_SIZE: &str = "AUDIT_TEST_CHILD_SIZE";

/// A size that a log has with the last result, and not without it.
fn size_at_the_last_result() -> u64 {
    let (_directory, path) = place();
    let log = open(&path);
    let size = || fs::metadata(&path).unwrap().len();
    runtime().block_on(async {
        for _ in 1..OPERATIONS {
            operate(&log, "session.create").await;
        }
        let last = log
            .begin(intent("session.create"), Durability::Durable)
            .await
            .unwrap();
        let without = size();
        last.close(Closing::Ok).await.unwrap();
        u64::midpoint(without, size())
    })
}

/// Results are answered for before they are synced, and a rotation syncs them: one that fails there loses none of them.
#[test]
fn child_one_of_whose_syncs_fails() {
    let (Some(path), Ok(size)) = (std::env::var_os(CHILD_LOG), std::env::var(CHILD_SIZE)) else {
        return;
    };
    let path = Path::new(&path);
    let log = AuditLog::open(AuditConfig {
        rotation: Rotation {
            size_bytes: Some(size.parse().unwrap()),
            ..Rotation::default()
        },
        ..config(path)
    })
    .unwrap();
    runtime().block_on(async {
        for _ in 0..OPERATIONS {
            while refused(&log).await {}
        }
        log.flush().await;
    });
    drop(log);
    let files = audit::log_files(path).unwrap();
    let all = files.iter().flat_map(|file| records(file));
    let results: Vec<_> = all
        .filter(|record| record.body.phase == Phase::Result)
        .map(|record| record.body.result)
        .collect();
    assert_eq!(results, vec!["ok"; OPERATIONS]);
    assert_eq!(audit::verify(path).unwrap().open_intents, []);
}

/// A1, A4: the sync within a rotation, and those around it.
#[test]
fn a_sync_that_fails_in_a_rotation_takes_no_result_with_it() {
    if Command::new("strace").arg("-V").output().is_err() {
        return crate::skip::skip("strace", "strace is not installed");
    }
    let size = size_at_the_last_result();
    let mut files = Vec::new();
    // The writer syncs for each intent, then in the rotation, and on a slow machine after results in between; the opening's
    // syncs are fewer. Where these lie otherwise in each run, the rotation's may be missed: so again.
    let faults = (5..=2 * OPERATIONS).cycle().take(5 * OPERATIONS);
    for at in faults {
        let (_directory, path) = place();
        let strace = format!(
            "export {CHILD_SIZE}={size}; exec strace -f -o /dev/null -e trace=fdatasync \
             -e inject=fdatasync:error=EIO:when={at} \"$0\" --exact faults::child_one_of_whose_syncs_fails --nocapture;"
        );
        assert_passed(&run_child("", &strace, &path));
        files.push(audit::log_files(&path).unwrap().len());
        if files.contains(&1) && files.contains(&2) {
            return;
        }
    }
    panic!(
        "the control: some fault keeps the log from being rotated, and some does not: {files:?}"
    );
}

/// Not a test by itself: the process that [`acknowledged_records_survive_a_kill`] kills.
#[test]
fn child_that_operates_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD_LOG) else {
        return;
    };
    let log = open(Path::new(&path));
    runtime().block_on(async {
        loop {
            let entry = log
                .begin(intent("execution.start"), Durability::Durable)
                .await
                .unwrap();
            let operation = entry.operation().to_owned();
            println!("begun {operation}");
            entry.close(Closing::Ok).await.unwrap();
            println!("closed {operation}");
        }
    });
}

#[test]
fn acknowledged_records_survive_a_kill() {
    use std::{collections::HashMap, io::BufRead, process::Stdio, time::Duration};
    let (_directory, path) = place();
    let (mut begun, mut closed) = (Vec::new(), Vec::new());
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "faults::child_that_operates_until_it_is_killed",
                "--nocapture",
            ])
            .env(CHILD_LOG, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(100 + 13 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in reader.join().unwrap() {
            match line.split_once(' ') {
                Some(("begun", operation)) => begun.push(operation.to_owned()),
                Some(("closed", operation)) => closed.push(operation.to_owned()),
                _ => {}
            }
        }
        drop(open(&path));
        let report = audit::verify(&path).unwrap();
        assert_eq!(report.open_intents, [], "round {round}");
        let results: HashMap<_, _> = records(&path)
            .into_iter()
            .filter(|record| record.body.phase == audit::Phase::Result)
            .map(|record| (record.body.op.unwrap(), record.body.result))
            .collect();
        assert!(
            begun
                .iter()
                .all(|operation| results.contains_key(operation)),
            "round {round}: an intent is lost"
        );
        assert!(
            closed.iter().all(|operation| results[operation] == "ok"),
            "round {round}: a result is lost"
        );
    }
    assert!(
        closed.len() > 20,
        "only {} operations: the test proves nothing",
        closed.len()
    );
}

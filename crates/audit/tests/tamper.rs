//! Every change of a log is found.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use crate::common::{beside, event, intent, open, operate, place, runtime};
use audit::{Durability, FaultKind, VerifyError, Warning};

/// A closed log of that many operations: `audit.open`, two records each, and the checkpoint of its end.
fn log_of(operations: usize) -> (tempfile::TempDir, PathBuf) {
    let (directory, path) = place();
    let log = open(&path);
    runtime().block_on(async {
        for _ in 1..operations {
            operate(&log, "execution.start").await;
        }
        log.event(event("session.expired")).await.unwrap();
        log.event(event("server.stop")).await.unwrap();
    });
    drop(log);
    let records = audit::verify(&path).unwrap().records;
    assert_eq!(records, 2 + 2 * operations as u64);
    (directory, path)
}

/// Of 62 records.
fn log_of_sixty() -> (tempfile::TempDir, PathBuf) {
    log_of(30)
}

fn fault(path: &Path, bytes: &[u8]) -> Option<(u64, FaultKind)> {
    fs::write(path, bytes).unwrap();
    match audit::verify(path) {
        Ok(_) => None,
        Err(VerifyError::Tampered(fault)) => Some((fault.seq, fault.kind)),
        Err(error) => panic!("{error}"),
    }
}

/// Flips these bits of the bytes of these lines, one at a time: each is found in its record. Written in place: a file that is cut
/// and written anew costs a flush each time.
fn flip_bits(path: &Path, lines: impl Fn(u64) -> bool, bits: impl Fn(usize) -> Range<u32>) {
    use std::os::unix::fs::FileExt;
    let good = fs::read(path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let mut record = 1;
    for (at, byte) in good.iter().enumerate() {
        for bit in bits(at).filter(|_| lines(record)) {
            file.write_all_at(&[byte ^ 1 << bit], at as u64).unwrap();
            match audit::verify(path) {
                Err(VerifyError::Tampered(fault)) => assert_eq!(fault.seq, record, "byte {at}"),
                other => panic!("byte {at} of record {record}: {other:?}"),
            }
        }
        file.write_all_at(&[*byte], at as u64).unwrap();
        record += u64::from(*byte == b'\n');
    }
    assert!(audit::verify(path).is_ok());
}

/// Every byte of a small log, with another bit each time; see [`every_bit_line_and_offset_of_two_hundred_records`].
#[test]
fn a_flipped_bit_in_any_byte_is_found_in_its_record() {
    let (_directory, path) = log_of(3);
    flip_bits(
        &path,
        |_| true,
        |at| {
            let bit = at as u32 % 8;
            bit..bit + 1
        },
    );
}

/// A2, all of it. Some minutes without optimization.
#[test]
#[ignore = "long; scripts/soak audit runs it"]
fn every_bit_line_and_offset_of_two_hundred_records() {
    let started = std::time::Instant::now();
    // A log of its own for each: one has the odd lines, the other one the even ones.
    let threads = [0, 1].map(|half| {
        std::thread::spawn(move || {
            let (_directory, path) = log_of(99);
            flip_bits(&path, |line| line % 2 == half, |_| 0..8);
            cut_at_offsets(&path, |offset| offset as u64 % 2 == half);
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
    let (_directory, path) = log_of(99);
    change_every_line(&path);
    println!(
        "every bit, line and offset of 200 records: {:.1?}",
        started.elapsed()
    );
}

#[test]
fn every_line_that_is_deleted_swapped_doubled_moved_or_cut_is_found_and_named() {
    let (_directory, path) = log_of(10);
    change_every_line(&path);
}

fn change_every_line(path: &Path) {
    let good = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let join = |lines: &[&str]| format!("{}\n", lines.join("\n")).into_bytes();
    let last = lines.len() - 1;
    for at in 0..lines.len() {
        let seq = at as u64 + 1;
        let mut deleted = lines.clone();
        deleted.remove(at);
        let kind = if at == last {
            FaultKind::TailMissing
        } else {
            FaultKind::Deleted
        };
        assert_eq!(
            fault(path, &join(&deleted)),
            Some((seq, kind)),
            "deleted {seq}"
        );

        let mut doubled = lines.clone();
        doubled.insert(at, lines[at]);
        assert_eq!(
            fault(path, &join(&doubled)),
            Some((seq + 1, FaultKind::Inserted)),
            "doubled {seq}"
        );

        let cut = &lines[at][..lines[at].len() / 2];
        let mut shortened = lines.clone();
        shortened[at] = cut;
        assert_eq!(
            fault(path, &join(&shortened)),
            Some((seq, FaultKind::TruncatedLine)),
            "cut {seq}"
        );

        let mut forged = lines.clone();
        let altered = lines[at].replace("\"actor\":{\"id\":\"", "\"actor\":{\"id\":\"x");
        assert_ne!(altered, lines[at]);
        forged[at] = &altered;
        assert_eq!(
            fault(path, &join(&forged)),
            Some((seq, FaultKind::Edited)),
            "edited {seq}"
        );

        let mut strange = lines.clone();
        strange.insert(at, "{\"result\":\"ok\"}");
        assert_eq!(
            fault(path, &join(&strange)),
            Some((seq, FaultKind::Inserted)),
            "inserted before {seq}"
        );

        if at < last {
            let mut swapped = lines.clone();
            swapped.swap(at, at + 1);
            assert_eq!(
                fault(path, &join(&swapped)),
                Some((seq, FaultKind::Reordered)),
                "swapped {seq}"
            );
        }
    }
    assert_eq!(fault(path, good.as_bytes()), None);
}

#[test]
fn a_log_cut_at_any_offset_is_found() {
    let (_directory, path) = log_of(10);
    cut_at_offsets(&path, |offset| offset % 29 == 0);
}

/// At each end of a line and at the offsets that are chosen, from the end on: what is left is cut again.
fn cut_at_offsets(path: &Path, chosen: impl Fn(usize) -> bool) {
    let good = fs::read(path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let mut whole = good.iter().filter(|byte| **byte == b'\n').count() as u64;
    for length in (0..good.len()).rev() {
        whole -= u64::from(good[length] == b'\n');
        let is_line_end = length == 0 || good[length - 1] == b'\n';
        if !is_line_end && !chosen(length) {
            continue;
        }
        file.set_len(length as u64).unwrap();
        let kind = if is_line_end {
            FaultKind::TailMissing
        } else {
            FaultKind::TruncatedLine
        };
        match audit::verify(path) {
            Err(VerifyError::Tampered(fault)) => {
                assert_eq!((fault.seq, fault.kind), (whole + 1, kind), "{length}");
            }
            other => panic!("{length}: {other:?}"),
        }
    }
}

#[test]
fn another_complete_chain_is_not_this_one() {
    let (_directory, path) = log_of_sixty();
    let (_other_directory, other) = log_of_sixty();
    let forged = fs::read(&other).unwrap();
    // The keys are others.
    assert_eq!(fault(&path, &forged), Some((1, FaultKind::Forged)));
    // Who has no verification key sees another end than was noted; and where that is exchanged, too, other signatures.
    fs::remove_file(beside(&path, ".verify-key")).unwrap();
    assert_eq!(fault(&path, &forged), Some((62, FaultKind::Forked)));
    for known in [".head", ".key"] {
        fs::copy(beside(&other, known), beside(&path, known)).unwrap();
    }
    assert_eq!(fault(&path, &forged), Some((62, FaultKind::BadSignature)));
}

#[test]
fn without_its_head_file_a_log_verifies_with_a_warning() {
    let (_directory, path) = log_of_sixty();
    assert_eq!(audit::verify(&path).unwrap().warnings, []);
    for bytes in [None, Some(&b"noise"[..])] {
        match bytes {
            None => fs::remove_file(beside(&path, ".head")).unwrap(),
            Some(bytes) => fs::write(beside(&path, ".head"), bytes).unwrap(),
        }
        assert_eq!(audit::verify(&path).unwrap().warnings, [Warning::NoHead]);
    }
}

#[test]
fn an_open_intent_is_reported() {
    let (_directory, path) = place();
    let log = open(&path);
    runtime().block_on(async {
        operate(&log, "session.create").await;
        let entry = log
            .begin(intent("execution.start"), Durability::Durable)
            .await
            .unwrap();
        let report = audit::verify(&path).unwrap();
        assert_eq!(report.open_intents.len(), 1);
        assert_eq!(
            (
                report.open_intents[0].seq,
                report.open_intents[0].action.as_str()
            ),
            (4, "execution.start")
        );
        assert_eq!(report.open_intents[0].operation, entry.operation());
    });
    drop(log);
    assert_eq!(
        audit::verify(&path).unwrap().open_intents,
        [],
        "the entry was dropped: aborted"
    );
}

/// A log with a clock that went back is made by a server with such a clock; here the lines are made by hand.
#[test]
fn a_clock_that_goes_back_is_a_warning_and_breaks_no_chain() {
    let (_directory, path) = log_of_sixty();
    fs::remove_file(beside(&path, ".verify-key")).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let last = text.lines().nth(60).unwrap();
    let line = chained(last, &[("timestamp", "2001-01-01T00:00:00.000000Z")]);
    let forged = text.replacen(last, &line, 1);
    let (kept, _) = forged.split_at(forged.find(&line).unwrap() + line.len() + 1);
    fs::write(&path, kept).unwrap();
    for known in [".head", ".key"] {
        fs::remove_file(beside(&path, known)).unwrap();
    }
    let report = audit::verify(&path).unwrap();
    assert_eq!(
        (report.records, report.warnings),
        (61, vec![Warning::NoHead, Warning::ClockRegress { seq: 61 }])
    );
}

/// The record with other values, and hashes that fit: what somebody makes who has no key.
fn chained(line: &str, changes: &[(&str, &str)]) -> String {
    use sha2::{Digest, Sha256};
    let record: serde_json::Value = serde_json::from_str(line).unwrap();
    let mut changed = line.to_owned();
    for (field, value) in changes {
        let old = record[field].as_str().unwrap();
        changed = changed.replacen(
            &format!("\"{field}\":\"{old}\""),
            &format!("\"{field}\":\"{value}\""),
            1,
        );
    }
    let (hashed, _) = changed.split_once(",\"mac\":").unwrap();
    let prev = hex::decode(record["prev"].as_str().unwrap()).unwrap();
    let mac = hex::decode(record["mac"].as_str().unwrap()).unwrap();
    let digest = Sha256::new()
        .chain_update(b"claude-code-mcp audit record v2\0")
        .chain_update(prev)
        .chain_update(hashed)
        .finalize();
    let hash = Sha256::new()
        .chain_update(b"record\0")
        .chain_update(digest)
        .chain_update(&mac)
        .finalize();
    format!(
        "{hashed},\"mac\":\"{}\",\"hash\":\"{}\"}}",
        hex::encode(mac),
        hex::encode(hash)
    )
}

/// Somebody who may write every file and computes the whole chain anew has no key: the seals show it, and without the
/// verification key the signature of the next checkpoint does.
#[test]
fn a_chain_that_is_computed_anew_lacks_seals_and_signatures() {
    let (_directory, path) = log_of_sixty();
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines[30] = chained(&lines[30], &[("timestamp", "2020-01-01T00:00:00.000000Z")]);
    for at in 31..lines.len() {
        let before: serde_json::Value = serde_json::from_str(&lines[at - 1]).unwrap();
        let record: serde_json::Value = serde_json::from_str(&lines[at]).unwrap();
        let old = record["prev"].as_str().unwrap().to_owned();
        let new = before["hash"].as_str().unwrap();
        let linked = lines[at].replace(&old, new);
        lines[at] = chained(&linked, &[]);
    }
    let forged = format!("{}\n", lines.join("\n"));
    assert_eq!(
        fault(&path, forged.as_bytes()),
        Some((31, FaultKind::Forged))
    );
    for known in [".verify-key", ".head", ".key"] {
        fs::remove_file(beside(&path, known)).unwrap();
    }
    assert_eq!(
        fault(&path, forged.as_bytes()),
        Some((62, FaultKind::BadSignature))
    );
    assert_eq!(fault(&path, text.as_bytes()), None, "positive control");
}

#[test]
fn a_record_has_one_spelling() {
    let (_directory, path) = log_of_sixty();
    fs::remove_file(beside(&path, ".verify-key")).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let line = text.lines().nth(1).unwrap();
    let record: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(record["action"], "execution.start");
    let refused = |respelled: &str| {
        let forged = text.replacen(line, respelled, 1);
        let found = fault(&path, forged.as_bytes());
        assert_eq!(found, Some((2, FaultKind::NotCanonical)), "{respelled}");
    };
    for (as_written, otherwise) in [
        ("\"result\":\"pending\"", "\"result\": \"pending\""),
        ("\"result\":\"pending\"", "\"result\":\"p\\u0065nding\""),
        ("\"result\":\"pending\"", "\"result\":\"pending\"\t"),
        ("\"timeout_ms\":60000", "\"timeout_ms\":6e4"),
        ("\"timeout_ms\":60000", "\"a\":1,\"timeout_ms\":60000"),
        (
            "\"cwd\":\"/workspace\"",
            "\"cwd\":\"/\",\"cwd\":\"/workspace\"",
        ),
        (
            "\"reason\":null,\"duration_ms\":null",
            "\"duration_ms\":null,\"reason\":null",
        ),
    ] {
        assert!(line.contains(as_written), "{as_written}");
        let respelled = chained(&line.replacen(as_written, otherwise, 1), &[]);
        refused(&respelled);
    }
    // Which no reader of JSON takes, either.
    refused(&chained(line, &[("result", "pend\ting")]));
}

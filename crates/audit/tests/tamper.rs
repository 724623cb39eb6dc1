//! Every change of a log is found.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm
)]

mod common;

use std::{fs, path::PathBuf};

use audit::{Durability, FaultKind, VerifyError, Warning};
use common::{beside, event, intent, open, operate, place, runtime};

/// A closed log of 61 records.
fn log_of_sixty() -> (tempfile::TempDir, PathBuf) {
    let (directory, path) = place();
    let log = open(&path);
    runtime().block_on(async {
        for _ in 0..29 {
            operate(&log, "execution.start").await;
        }
        log.event(event("session.expired")).await.unwrap();
        log.event(event("server.stop")).await.unwrap();
    });
    drop(log);
    assert_eq!(audit::verify(&path).unwrap().records, 61);
    (directory, path)
}

fn fault(path: &PathBuf, bytes: &[u8]) -> Option<(u64, FaultKind)> {
    fs::write(path, bytes).unwrap();
    match audit::verify(path) {
        Ok(_) => None,
        Err(VerifyError::Tampered(fault)) => Some((fault.seq, fault.kind)),
        Err(error) => panic!("{error}"),
    }
}

/// Every byte, with another bit each time; eight rounds would be every bit. Written in place: a file that is cut and
/// written anew costs a flush each time.
#[test]
fn a_flipped_bit_in_any_byte_is_found_in_its_record() {
    use std::os::unix::fs::FileExt;
    let (_directory, path) = log_of_sixty();
    let good = fs::read(&path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let mut record = 1;
    for (at, byte) in good.iter().enumerate() {
        file.write_all_at(&[byte ^ 1 << (at % 8)], at as u64)
            .unwrap();
        match audit::verify(&path) {
            Err(VerifyError::Tampered(fault)) => assert_eq!(fault.seq, record, "byte {at}"),
            other => panic!("byte {at} of record {record}: {other:?}"),
        }
        file.write_all_at(&[*byte], at as u64).unwrap();
        record += u64::from(*byte == b'\n');
    }
    assert!(audit::verify(&path).is_ok());
}

#[test]
fn every_line_that_is_deleted_swapped_doubled_moved_or_cut_is_found_and_named() {
    let (_directory, path) = log_of_sixty();
    let good = fs::read_to_string(&path).unwrap();
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
            fault(&path, &join(&deleted)),
            Some((seq, kind)),
            "deleted {seq}"
        );

        let mut doubled = lines.clone();
        doubled.insert(at, lines[at]);
        assert_eq!(
            fault(&path, &join(&doubled)),
            Some((seq + 1, FaultKind::Inserted)),
            "doubled {seq}"
        );

        let cut = &lines[at][..lines[at].len() / 2];
        let mut shortened = lines.clone();
        shortened[at] = cut;
        assert_eq!(
            fault(&path, &join(&shortened)),
            Some((seq, FaultKind::TruncatedLine)),
            "cut {seq}"
        );

        let mut forged = lines.clone();
        let altered = lines[at]
            .replace("uid:1000", "uid:1001")
            .replace("embedded", "imbedded");
        forged[at] = &altered;
        if at > 0 {
            assert_eq!(
                fault(&path, &join(&forged)),
                Some((seq, FaultKind::Edited)),
                "edited {seq}"
            );
        }

        let mut strange = lines.clone();
        strange.insert(at, "{\"result\":\"ok\"}");
        assert_eq!(
            fault(&path, &join(&strange)),
            Some((seq, FaultKind::Inserted)),
            "inserted before {seq}"
        );

        if at < last {
            let mut swapped = lines.clone();
            swapped.swap(at, at + 1);
            assert_eq!(
                fault(&path, &join(&swapped)),
                Some((seq, FaultKind::Reordered)),
                "swapped {seq}"
            );
        }
    }
    assert_eq!(fault(&path, good.as_bytes()), None);
}

#[test]
fn a_log_cut_at_any_offset_is_found() {
    let (_directory, path) = log_of_sixty();
    let good = fs::read(&path).unwrap();
    let (mut at_line_ends, mut within_lines) = (0, 0);
    for length in (0..good.len())
        .filter(|length| *length == 0 || good[length - 1] == b'\n' || length % 7 == 0)
    {
        let (seq, kind) =
            fault(&path, &good[..length]).unwrap_or_else(|| panic!("{length}: not found"));
        let whole = good[..length].iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!(seq, whole + 1);
        match kind {
            FaultKind::TailMissing => at_line_ends += 1,
            FaultKind::TruncatedLine => within_lines += 1,
            other => panic!("{length}: {other:?}"),
        }
    }
    assert!(
        at_line_ends == 61 && within_lines > 1000,
        "{at_line_ends} {within_lines}"
    );
}

#[test]
fn another_complete_chain_is_not_this_one() {
    let (_directory, path) = log_of_sixty();
    let (_other_directory, other) = log_of_sixty();
    let forged = fs::read(other).unwrap();
    assert_eq!(fault(&path, &forged), Some((61, FaultKind::Forked)));
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

/// The clock is part of what is hashed, so a log with a clock that went back is made by a server with such a clock; here
/// the line is made by hand.
#[test]
fn a_clock_that_goes_back_is_a_warning_and_breaks_no_chain() {
    use sha2::{Digest, Sha256};
    let (_directory, path) = log_of_sixty();
    let text = fs::read_to_string(&path).unwrap();
    let last = text.lines().last().unwrap();
    let prev = &last[last.len() - 66..last.len() - 2];
    let (hashed, _) = last.split_once(",\"prev\":").unwrap();
    let (_, rest) = hashed.split_once("\"phase\"").unwrap();
    let body = format!(
        "{{\"v\":1,\"seq\":62,\"timestamp\":\"2001-01-01T00:00:00.000000Z\",\"phase\"{rest},\"prev\":\"{prev}\""
    );
    let hash = Sha256::new()
        .chain_update(b"claude-code-mcp audit record v1\0")
        .chain_update(hex::decode(prev).unwrap())
        .chain_update(&body)
        .chain_update("}")
        .finalize();
    fs::write(
        &path,
        format!("{text}{body},\"hash\":\"{}\"}}\n", hex::encode(hash)),
    )
    .unwrap();
    let report = audit::verify(&path).unwrap();
    assert_eq!(
        (report.records, report.warnings),
        (62, vec![Warning::ClockRegress { seq: 62 }])
    );
}

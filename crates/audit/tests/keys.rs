//! The log's keys: who has what can check, or forge, what (A2).

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use crate::common::{beside, config, open, operate, place, records, runtime};
use audit::{
    Anchor, AnchorError, Anchored, AuditConfig, AuditError, AuditLog, FaultKind, IdentityKey,
    Verification, VerificationKey, VerifyError, Warning, identity_hash,
};

fn written(runs: usize) -> (tempfile::TempDir, PathBuf) {
    let (directory, path) = place();
    for _ in 0..runs {
        runtime().block_on(operate(&open(&path), "execution.start"));
    }
    (directory, path)
}

fn refused(path: &Path) -> AuditError {
    let before = fs::read(path).unwrap();
    match AuditLog::open(config(path)) {
        Ok(_) => panic!("it was opened"),
        Err(error) => {
            assert_eq!(fs::read(path).unwrap(), before);
            error
        }
    }
}

fn kind(verification: Verification, path: &Path) -> FaultKind {
    match verification.run(path) {
        Err(VerifyError::Tampered(fault)) => fault.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_verification_key_is_taken_away_once_and_checks_every_record_afterwards() {
    let (_directory, path) = written(2);
    let report = audit::verify(&path).unwrap();
    assert!(report.macs_checked && report.verification_key_beside);
    let key = audit::verification_key(&path).unwrap().unwrap();
    let text = key.to_text().to_string();
    audit::remove_verification_key(&path).unwrap();
    assert!(audit::verification_key(&path).unwrap().is_none());
    runtime().block_on(operate(&open(&path), "execution.start"));
    let without = audit::verify(&path).unwrap();
    assert!(!without.macs_checked && !without.verification_key_beside);
    let with = |text: &str| Verification {
        key: VerificationKey::parse(text),
        ..Verification::default()
    };
    assert!(with(&text).run(&path).unwrap().macs_checked);
    let (_other, other) = written(1);
    let others = audit::verification_key(&other).unwrap().unwrap().to_text();
    assert_eq!(kind(with(&others), &path), FaultKind::Forged);
    for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
        let content = fs::read(entry.unwrap().path()).unwrap();
        let digits = text.rsplit(':').next().unwrap().as_bytes();
        assert!(!content.windows(digits.len()).any(|found| found == digits));
    }
}

/// Each run and each checkpoint moves on, and of a run's keys only the last one is on disk.
#[test]
fn the_key_on_disk_is_a_later_one_than_any_record_but_the_last_was_sealed_with() {
    let (_directory, path) = place();
    let mut numbers = Vec::new();
    for run in 1..=3 {
        runtime().block_on(operate(&open(&path), "execution.start"));
        let (number, since) = audit::KeyFiles::read(&path).unwrap().current.unwrap();
        let last = records(&path).pop().unwrap();
        assert_eq!(
            (last.body.action.as_str(), last.seq),
            ("audit.checkpoint", since)
        );
        assert_eq!((number, last.key), (2 * run, 2 * run - 1));
        numbers.extend(records(&path).iter().map(|record| record.key));
    }
    assert!(
        records(&path)
            .windows(2)
            .all(|pair| pair[0].key <= pair[1].key)
    );
    assert_eq!(
        fs::read_to_string(beside(&path, ".key"))
            .unwrap()
            .matches("audit key v1")
            .count(),
        1
    );
}

/// A crash before the key file is written leaves an older key in it: it leads to the one that is wanted.
#[test]
fn an_older_key_file_is_brought_up_and_the_log_still_verifies() {
    let (_directory, path) = written(1);
    let old = fs::read(beside(&path, ".key")).unwrap();
    runtime().block_on(operate(&open(&path), "execution.start"));
    fs::write(beside(&path, ".key"), &old).unwrap();
    runtime().block_on(operate(&open(&path), "execution.start"));
    let report = audit::verify(&path).unwrap();
    assert!(report.macs_checked && report.warnings.is_empty());
    assert_ne!(fs::read(beside(&path, ".key")).unwrap(), old);
}

#[test]
fn a_key_that_is_damaged_missing_or_open_to_others_stops_the_start() {
    for suffix in [".key", ".signing-key"] {
        let (_directory, path) = written(1);
        let file = beside(&path, suffix);
        let good = fs::read(&file).unwrap();
        let mut damaged = good.clone();
        damaged.iter_mut().for_each(|byte| *byte ^= 1);
        fs::write(&file, damaged).unwrap();
        assert!(matches!(refused(&path), AuditError::Key { .. }), "{suffix}");
        fs::remove_file(&file).unwrap();
        assert!(matches!(refused(&path), AuditError::Key { .. }), "{suffix}");
        fs::write(&file, &good).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        assert!(
            matches!(refused(&path), AuditError::Unsafe { .. }),
            "{suffix}"
        );
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        open(&path);
    }
}

/// Records after the last checkpoint of a log whose keys are another installation's: the start does not continue them.
#[test]
fn a_log_that_the_key_did_not_seal_is_not_continued() {
    let (_directory, path) = written(1);
    let (_other, other) = written(1);
    fs::copy(&other, &path).unwrap();
    fs::remove_file(beside(&path, ".head")).unwrap();
    assert!(matches!(refused(&path), AuditError::Broken { .. }));
}

/// The key file knows the record since which its key is used: a log that was cut before it shows, whatever else is gone.
#[test]
fn a_log_that_is_older_than_its_key_lacks_its_tail() {
    let (_directory, path) = written(1);
    let old = fs::read(&path).unwrap();
    runtime().block_on(operate(&open(&path), "execution.start"));
    fs::write(&path, &old).unwrap();
    fs::remove_file(beside(&path, ".head")).unwrap();
    assert_eq!(kind(Verification::default(), &path), FaultKind::TailMissing);
}

#[test]
fn signatures_are_those_of_the_key_that_is_given() {
    let (_directory, path) = written(1);
    let (_other, other) = written(1);
    let public = |path: &Path| audit::KeyFiles::read(path).unwrap().public_key;
    let with = |key| Verification {
        public_key: key,
        ..Verification::default()
    };
    let report = with(public(&path)).run(&path).unwrap();
    assert_eq!((report.checkpoints, report.public_key), (1, public(&path)));
    assert_eq!(kind(with(public(&other)), &path), FaultKind::BadSignature);
    let announced = &records(&path)[0].body.parameters["public_key"];
    assert_eq!(
        announced.as_str().unwrap(),
        public(&path).unwrap().to_string()
    );
}

/// Remembers in memory, as the state database does on disk.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Option<Anchored>>>);

impl Anchor for Memory {
    fn note(&mut self, last: Anchored) -> Result<(), AnchorError> {
        *self.0.lock().unwrap() = Some(last);
        Ok(())
    }

    fn read(&mut self) -> Result<Option<Anchored>, AnchorError> {
        Ok(*self.0.lock().unwrap())
    }
}

fn anchored(path: &Path, memory: &Memory) -> Result<AuditLog, AuditError> {
    AuditLog::open(AuditConfig {
        anchor: Some(Box::new(memory.clone())),
        ..config(path)
    })
}

/// Whoever may write everything beside the log can put all of it back to an earlier state; the anchor is elsewhere.
#[test]
fn a_log_that_is_put_back_or_exchanged_with_all_files_beside_it_does_not_fit_its_anchor() {
    let (directory, path) = place();
    let memory = Memory::default();
    runtime().block_on(operate(
        &anchored(&path, &memory).unwrap(),
        "execution.start",
    ));
    let earlier: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|file| (file.clone(), fs::read(file).unwrap()))
        .collect();
    runtime().block_on(operate(
        &anchored(&path, &memory).unwrap(),
        "execution.start",
    ));
    let end = memory.0.lock().unwrap().unwrap();
    assert_eq!(end.seq, records(&path).last().unwrap().seq);
    for (file, content) in earlier {
        fs::write(file, content).unwrap();
    }
    audit::verify(&path).unwrap();
    let with = |anchor| Verification {
        anchors: vec![anchor],
        ..Verification::default()
    };
    assert_eq!(kind(with(end), &path), FaultKind::TailMissing);
    let forked = Anchored {
        seq: 2,
        hash: [1; 32],
    };
    assert_eq!(kind(with(forked), &path), FaultKind::Forked);
    drop(anchored(&path, &memory).unwrap());
    let gap = crate::common::last(&path, "audit.gap");
    assert_eq!(gap.body.parameters["missing_to_seq"], end.seq);
    assert_eq!(
        audit::verify(&path).unwrap().warnings,
        [Warning::Gap { seq: gap.seq }]
    );

    let (_other, other) = written(3);
    *memory.0.lock().unwrap() = Some(Anchored {
        seq: records(&other).last().unwrap().seq,
        hash: [1; 32],
    });
    assert!(matches!(
        anchored(&other, &memory),
        Err(AuditError::Broken { .. })
    ));
}

#[test]
fn hashes_of_callers_need_the_installations_key() {
    let (directory, _) = place();
    let file = directory.path().join("identity.key");
    let key = IdentityKey::open(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let again = IdentityKey::open(&file).unwrap();
    assert_eq!(identity_hash(&key, "uid:1"), identity_hash(&again, "uid:1"));
    assert_ne!(identity_hash(&key, "uid:1"), identity_hash(&key, "uid:2"));
    let other = IdentityKey::from_bytes(&[7; 32]);
    assert_ne!(identity_hash(&key, "uid:1"), identity_hash(&other, "uid:1"));
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    assert!(IdentityKey::open(&file).is_err());
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, "short\n").unwrap();
    assert!(IdentityKey::open(&file).is_err());
}

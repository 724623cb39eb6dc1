//! What the store promises to its callers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout
)]

mod common;

use std::sync::{Arc, Barrier};

use common::{execution, fresh, session};
use model::{BackendName, ExecutionId, ExecutionState, SessionId, SessionState};
use proptest::prelude::*;
use store::{
    ExecutionChange, ExecutionRecord, Filter, MAX_EVENT_BYTES, MAX_EVENTS_PER_SESSION, Reserved,
    SessionChange, SessionRecord, Store, StoreError,
};

#[test]
fn reopening_keeps_everything() {
    let (directory, store) = fresh();
    let (owner, record) = (store.owner(), session());
    let run = execution(record.id);
    assert_eq!(store.reserve_session(&record, 1).unwrap(), Reserved::New);
    store.insert_execution(&run).unwrap();
    store.add_event(record.id, 5, "session ready").unwrap();
    drop(store);

    let (store, report) = Store::open(&directory.path().join("state.db")).unwrap();
    assert_eq!(report, store::OpenReport::default());
    assert_eq!(store.owner(), owner);
    assert_eq!(store.session(record.id).unwrap(), Some(record.clone()));
    assert_eq!(store.execution(run.id).unwrap(), Some(run));
    assert_eq!(
        store.events(record.id, 10).unwrap()[0].text,
        "session ready"
    );
}

#[test]
fn thirty_two_racing_reservations_fill_exactly_ten_places() {
    let (_directory, store) = fresh();
    let start = Arc::new(Barrier::new(32));
    let threads: Vec<_> = (0..32)
        .map(|_| {
            let (store, start) = (store.clone(), start.clone());
            std::thread::spawn(move || {
                start.wait();
                store.reserve_session(&session(), 10).unwrap()
            })
        })
        .collect();
    let outcomes: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| **outcome == Reserved::New)
            .count(),
        10
    );
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| **outcome == Reserved::LimitReached { live: 10 })
            .count(),
        22
    );
    assert_eq!(
        store
            .sessions(Filter {
                live_only: true,
                ..Filter::default()
            })
            .unwrap()
            .len(),
        10
    );
}

#[test]
fn two_processes_racing_for_one_place_get_one() {
    let (directory, store) = fresh();
    let (other, _) = Store::open(&directory.path().join("state.db")).unwrap();
    for limit in 1..=20 {
        let outcomes = std::thread::scope(|scope| {
            let one = scope.spawn(|| store.reserve_session(&session(), limit).unwrap());
            let two = scope.spawn(|| other.reserve_session(&session(), limit).unwrap());
            [one.join().unwrap(), two.join().unwrap()]
        });
        assert_eq!(
            outcomes
                .iter()
                .filter(|outcome| **outcome == Reserved::New)
                .count(),
            1
        );
    }
}

#[test]
fn an_ended_session_gives_its_place_back() {
    let (_directory, store) = fresh();
    let first = session();
    store.reserve_session(&first, 1).unwrap();
    assert_eq!(
        store.reserve_session(&session(), 1).unwrap(),
        Reserved::LimitReached { live: 1 }
    );
    for ended in [
        SessionState::Failed,
        SessionState::Expired,
        SessionState::Destroyed,
    ] {
        let change = SessionChange {
            state: Some(ended),
            ..SessionChange::default()
        };
        let live = store
            .sessions(Filter {
                live_only: true,
                ..Filter::default()
            })
            .unwrap()
            .remove(0);
        assert!(
            store
                .update_session(live.id, &[SessionState::Creating], &change)
                .unwrap()
        );
        assert_eq!(store.reserve_session(&session(), 1).unwrap(), Reserved::New);
    }
}

#[test]
fn an_idempotency_key_makes_one_session_per_principal_and_arguments() {
    let (_directory, store) = fresh();
    let keyed = |principal: &str, key: Option<&str>, digest: u8| SessionRecord {
        principal: principal.to_owned(),
        idempotency_key: key.map(str::to_owned),
        arguments_digest: [digest; 32],
        ..session()
    };
    let first = keyed("uid:0", Some("k"), 1);
    assert_eq!(store.reserve_session(&first, 9).unwrap(), Reserved::New);
    let existing = Reserved::Existing(Box::new(first.clone()));
    for (principal, key, digest, expected) in [
        ("uid:0", Some("k"), 1, existing.clone()),
        ("uid:0", Some("k"), 2, Reserved::Conflict),
        ("uid:0", Some("K"), 1, Reserved::New),
        ("uid:1", Some("k"), 1, Reserved::New),
        ("uid:0", None, 1, Reserved::New),
        ("uid:0", None, 1, Reserved::New),
    ] {
        let outcome = store
            .reserve_session(&keyed(principal, key, digest), 9)
            .unwrap();
        assert_eq!(outcome, expected, "{principal} {key:?} {digest}");
    }
    // Also when there is no place left, and when the session is gone: the answer to a repeated call is the same.
    assert_eq!(
        store
            .reserve_session(&keyed("uid:0", Some("k"), 1), 0)
            .unwrap(),
        existing
    );
    let change = SessionChange {
        state: Some(SessionState::Destroyed),
        ..SessionChange::default()
    };
    assert!(
        store
            .update_session(first.id, &[SessionState::Creating], &change)
            .unwrap()
    );
    match store
        .reserve_session(&keyed("uid:0", Some("k"), 1), 9)
        .unwrap()
    {
        Reserved::Existing(found) => {
            assert_eq!((found.id, found.state), (first.id, SessionState::Destroyed))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn thirty_two_racing_calls_with_one_key_make_one_session() {
    let (_directory, store) = fresh();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..32)
            .map(|_| {
                scope.spawn(|| {
                    let record = SessionRecord {
                        idempotency_key: Some("once".to_owned()),
                        ..session()
                    };
                    store.reserve_session(&record, 10).unwrap()
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| **outcome == Reserved::New)
            .count(),
        1
    );
    assert_eq!(store.sessions(Filter::default()).unwrap().len(), 1);
}

#[test]
fn a_change_applies_only_in_an_expected_state() {
    let (_directory, store) = fresh();
    let record = session();
    store.reserve_session(&record, 1).unwrap();
    let ready = SessionChange {
        state: Some(SessionState::Ready),
        spec: Some(b"{}".to_vec()),
        expires_at_ms: Some(9),
        ..SessionChange::default()
    };
    assert!(!store.update_session(record.id, &[], &ready).unwrap());
    assert!(
        !store
            .update_session(
                record.id,
                &[SessionState::Ready, SessionState::Busy],
                &ready
            )
            .unwrap()
    );
    assert_eq!(store.session(record.id).unwrap(), Some(record.clone()));
    assert!(
        store
            .update_session(
                record.id,
                &[SessionState::Unknown, SessionState::Creating],
                &ready
            )
            .unwrap()
    );
    let expected = SessionRecord {
        state: SessionState::Ready,
        spec: Some(b"{}".to_vec()),
        expires_at_ms: 9,
        ..record.clone()
    };
    assert_eq!(store.session(record.id).unwrap(), Some(expected));
    assert!(
        !store
            .update_session(SessionId::random().unwrap(), &SessionState::ALL, &ready)
            .unwrap()
    );
}

#[test]
fn of_many_racing_changes_from_one_state_one_wins() {
    let (_directory, store) = fresh();
    let record = session();
    store.reserve_session(&record, 1).unwrap();
    let won: usize = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    let change = SessionChange {
                        state: Some(SessionState::Ready),
                        ..SessionChange::default()
                    };
                    usize::from(
                        store
                            .update_session(record.id, &[SessionState::Creating], &change)
                            .unwrap(),
                    )
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).sum()
    });
    assert_eq!(won, 1);
}

#[test]
fn sessions_are_listed_by_owner_and_by_life_oldest_first() {
    let (_directory, store) = fresh();
    let of = |principal: &str| SessionRecord {
        principal: principal.to_owned(),
        ..session()
    };
    let (first, second, foreign) = (of("uid:0"), of("uid:0"), of("uid:1"));
    for record in [&first, &second, &foreign] {
        store.reserve_session(record, 9).unwrap();
    }
    let change = SessionChange {
        state: Some(SessionState::Failed),
        ..SessionChange::default()
    };
    store
        .update_session(first.id, &[SessionState::Creating], &change)
        .unwrap();
    let ids = |filter| {
        store
            .sessions(filter)
            .unwrap()
            .iter()
            .map(|found| found.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(Filter::default()), [first.id, second.id, foreign.id]);
    assert_eq!(
        ids(Filter {
            principal: Some("uid:0"),
            live_only: false
        }),
        [first.id, second.id]
    );
    assert_eq!(
        ids(Filter {
            principal: Some("uid:0"),
            live_only: true
        }),
        [second.id]
    );
    assert_eq!(
        ids(Filter {
            principal: Some("uid:0' OR 1=1 --"),
            live_only: false
        }),
        []
    );
}

#[test]
fn touching_never_goes_back() {
    let (_directory, store) = fresh();
    let record = session();
    store.reserve_session(&record, 1).unwrap();
    for (at_ms, expected) in [(5_000, 5_000), (4_000, 5_000), (6_000, 6_000)] {
        store.touch(record.id, at_ms).unwrap();
        assert_eq!(
            store.session(record.id).unwrap().unwrap().last_used_at_ms,
            expected
        );
    }
}

#[test]
fn executions_are_listed_newest_first_and_change_by_comparison() {
    let (_directory, store) = fresh();
    let record = session();
    store.reserve_session(&record, 1).unwrap();
    let runs: Vec<_> = (0..5).map(|_| execution(record.id)).collect();
    runs.iter()
        .for_each(|run| store.insert_execution(run).unwrap());
    let newest: Vec<_> = store
        .executions(record.id, 2)
        .unwrap()
        .into_iter()
        .map(|run| run.id)
        .collect();
    assert_eq!(newest, [runs[4].id, runs[3].id]);

    let exited = ExecutionChange {
        state: Some(ExecutionState::Exited),
        exit_code: Some(-1),
        oom_killed: Some(true),
        duration_ms: Some(12),
        ended_at_ms: Some(2_012),
        ..ExecutionChange::default()
    };
    assert!(
        !store
            .update_execution(runs[0].id, &[ExecutionState::Queued], &exited)
            .unwrap()
    );
    assert!(
        store
            .update_execution(runs[0].id, &[ExecutionState::Running], &exited)
            .unwrap()
    );
    assert!(
        !store
            .update_execution(runs[0].id, &[ExecutionState::Running], &exited)
            .unwrap()
    );
    let expected = ExecutionRecord {
        state: ExecutionState::Exited,
        exit_code: Some(-1),
        oom_killed: true,
        duration_ms: 12,
        ended_at_ms: Some(2_012),
        ..runs[0].clone()
    };
    assert_eq!(store.execution(runs[0].id).unwrap(), Some(expected));
}

#[test]
fn an_execution_or_event_needs_its_session() {
    let (_directory, store) = fresh();
    let nobody = SessionId::random().unwrap();
    assert!(store.insert_execution(&execution(nobody)).is_err());
    assert!(store.add_event(nobody, 1, "lost").is_err());
}

#[test]
fn events_are_capped_in_size_and_number() {
    let (_directory, store) = fresh();
    let record = session();
    store.reserve_session(&record, 1).unwrap();
    store
        .add_event(record.id, 1, &"ä".repeat(MAX_EVENT_BYTES))
        .unwrap();
    assert_eq!(
        store.events(record.id, 1).unwrap()[0].text,
        "ä".repeat(MAX_EVENT_BYTES / 2)
    );
    for at_ms in 0..u64::from(MAX_EVENTS_PER_SESSION) + 5 {
        store.add_event(record.id, at_ms, "tick").unwrap();
    }
    let kept = store.events(record.id, u32::MAX).unwrap();
    assert_eq!(kept.len(), MAX_EVENTS_PER_SESSION as usize);
    assert_eq!(
        kept.iter().map(|event| event.at_ms).collect::<Vec<_>>(),
        (5..1_005).collect::<Vec<_>>()
    );
    assert_eq!(
        store
            .events(record.id, 2)
            .unwrap()
            .iter()
            .map(|event| event.at_ms)
            .collect::<Vec<_>>(),
        [1_003, 1_004]
    );
}

#[test]
fn purging_removes_ended_sessions_with_all_their_rows_and_no_live_one() {
    let (_directory, store) = fresh();
    let ended = |at_ms| SessionRecord {
        state: SessionState::Destroyed,
        ended_at_ms: Some(at_ms),
        ..session()
    };
    let (old, recent, live) = (
        ended(10),
        ended(100),
        SessionRecord {
            last_used_at_ms: 1,
            ..session()
        },
    );
    for record in [&old, &recent, &live] {
        store.reserve_session(record, 9).unwrap();
        store.insert_execution(&execution(record.id)).unwrap();
        store.add_event(record.id, 1, "made").unwrap();
    }
    assert_eq!(store.purge_ended_before(100).unwrap(), 1);
    assert_eq!(store.session(old.id).unwrap(), None);
    assert_eq!(
        (
            store.executions(old.id, 9).unwrap().len(),
            store.events(old.id, 9).unwrap().len()
        ),
        (0, 0)
    );
    for kept in [&recent, &live] {
        assert!(store.session(kept.id).unwrap().is_some());
        assert_eq!(
            (
                store.executions(kept.id, 9).unwrap().len(),
                store.events(kept.id, 9).unwrap().len()
            ),
            (1, 1)
        );
    }
}

#[test]
fn a_number_beyond_the_database_is_refused_and_nothing_is_reserved() {
    let (_directory, store) = fresh();
    let record = SessionRecord {
        expires_at_ms: u64::MAX,
        ..session()
    };
    assert!(matches!(
        store.reserve_session(&record, 1),
        Err(StoreError::OutOfRange {
            column: "expires_at_ms"
        })
    ));
    assert_eq!(store.session(record.id).unwrap(), None);
    let largest = SessionRecord {
        expires_at_ms: i64::MAX as u64,
        ..session()
    };
    assert_eq!(store.reserve_session(&largest, 1).unwrap(), Reserved::New);
    assert_eq!(store.session(largest.id).unwrap(), Some(largest));
}

const MAX_MS: u64 = i64::MAX as u64;

prop_compose! {
    fn any_session()(
        id: [u8; 16], principal in ".{0,20}", name in ".{0,20}", state in 0..SessionState::ALL.len(),
        backend in 0..BackendName::ALL.len(), path in prop::collection::vec(1..=255_u8, 0..40),
        times in prop::array::uniform4(0..=MAX_MS), key in prop::option::of(".{0,20}"), arguments_digest: [u8; 32],
        blobs in prop::array::uniform2(prop::option::of(prop::collection::vec(any::<u8>(), 0..40))),
        ended_because in prop::option::of(".{0,20}"), ended_at_ms in prop::option::of(0..=MAX_MS),
    ) -> SessionRecord {
        use std::os::unix::ffi::OsStringExt;
        let [spec, attestation] = blobs;
        let [created_at_ms, expires_at_ms, idle_ms, last_used_at_ms] = times;
        SessionRecord {
            id: SessionId::from_bytes(id), principal, name, state: SessionState::ALL[state],
            backend: BackendName::ALL[backend], project_path: std::ffi::OsString::from_vec(path).into(),
            created_at_ms, expires_at_ms, idle_ms, last_used_at_ms, idempotency_key: key, arguments_digest,
            spec, attestation, agent: None, network: None, ended_because, ended_at_ms,
        }
    }
}

prop_compose! {
    fn any_execution()(
        id: [u8; 16], state in 0..ExecutionState::ALL.len(), started_at_ms in 0..=MAX_MS,
        optional in prop::array::uniform2(prop::option::of(0..=MAX_MS)), exit_code: Option<i32>, signal: Option<i32>,
        oom_killed: bool, duration_ms in 0..=MAX_MS, failure in prop::option::of(".{0,20}"),
        protected_changes in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
    ) -> ExecutionRecord {
        let [ended_at_ms, timeout_ms] = optional;
        ExecutionRecord {
            id: ExecutionId::from_bytes(id), session: SessionId::from_bytes([0; 16]),
            state: ExecutionState::ALL[state], started_at_ms, ended_at_ms, timeout_ms, exit_code, signal, oom_killed,
            duration_ms, failure, protected_changes, prompt: None,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_in_comes_out(record in any_session(), mut run in any_execution()) {
        thread_local!(static STORE: (tempfile::TempDir, Store) = fresh());
        STORE.with(|(_, store)| -> Result<(), TestCaseError> {
            run.session = record.id;
            store.reserve_session(&record, u32::MAX).unwrap();
            store.insert_execution(&run).unwrap();
            prop_assert_eq!(store.execution(run.id).unwrap(), Some(run));
            prop_assert_eq!(store.session(record.id).unwrap(), Some(record));
            Ok(())
        })?;
    }
}

/// The end of the audit log is kept for the log that it is of, and read beside an open store (A2).
#[test]
fn the_end_of_the_audit_log_is_kept() {
    let (directory, store) = fresh();
    let path = directory.path().join("state.db");
    let (log, other) = (
        std::path::Path::new("/a b/log"),
        std::path::Path::new("/log"),
    );
    assert_eq!(store.audit_head(log).unwrap(), None);
    for seq in [3, u64::MAX] {
        store.set_audit_head(log, seq, &[0xab; 32]).unwrap();
        assert_eq!(store.audit_head(log).unwrap(), Some((seq, [0xab; 32])));
        assert_eq!(
            Store::read_audit_head(&path, log).unwrap(),
            Some((seq, [0xab; 32]))
        );
    }
    assert_eq!(store.audit_head(other).unwrap(), None);
    let nowhere = directory.path().join("none.db");
    assert_eq!(Store::read_audit_head(&nowhere, log).unwrap(), None);
}

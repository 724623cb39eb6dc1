//! What the store does with files that are damaged, foreign, newer, or left by a killed process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout
)]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use common::{fresh, session};
use model::SessionId;
use store::{Bounds, Filter, Store, StoreError};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn every_file_is_for_the_owner_alone() {
    let (directory, store) = fresh();
    store.reserve_session(&session(), &Bounds::live(1)).unwrap();
    let names: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(names.len() >= 3, "{names:?}");
    names
        .iter()
        .for_each(|path| assert_eq!(mode(path), 0o600, "{path:?}"));
}

#[test]
fn a_file_that_others_may_read_is_closed_to_them() {
    let (directory, store) = fresh();
    drop(store);
    let path = directory.path().join("state.db");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    Store::open(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn a_linked_directory_is_fine_and_a_linked_file_is_not() {
    let (directory, store) = fresh();
    drop(store);
    let other = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(directory.path(), other.path().join("linked")).unwrap();
    assert!(
        !Store::open(&other.path().join("linked/state.db"))
            .unwrap()
            .1
            .created
    );
    std::os::unix::fs::symlink(
        directory.path().join("state.db"),
        other.path().join("state.db"),
    )
    .unwrap();
    assert!(matches!(
        Store::open(&other.path().join("state.db")),
        Err(StoreError::Foreign { .. })
    ));
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let (directory, store) = fresh();
    let record = session();
    store.reserve_session(&record, &Bounds::live(1)).unwrap();
    drop(store);
    let path = directory.path().join("state.db");
    let set = |version: i64| {
        rusqlite::Connection::open(&path)
            .unwrap()
            .pragma_update(None, "user_version", version)
            .unwrap()
    };
    set(5);
    assert!(matches!(
        Store::open(&path),
        Err(StoreError::Newer {
            found: 5,
            supported: 4
        })
    ));
    set(4);
    assert_eq!(
        Store::open(&path).unwrap().0.session(record.id).unwrap(),
        Some(record)
    );
}

/// As the first schema left it: without the columns that prompts need.
#[test]
fn a_file_of_the_first_schema_is_brought_up_to_date_with_what_stands_in_it() {
    let (directory, store) = fresh();
    let record = session();
    store.reserve_session(&record, &Bounds::live(1)).unwrap();
    drop(store);
    let path = directory.path().join("state.db");
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(
            "DROP TABLE api_keys; DROP TABLE session_usage; DROP TABLE daily_usage; ALTER TABLE sessions DROP COLUMN agent; \
             ALTER TABLE sessions DROP COLUMN network; ALTER TABLE sessions DROP COLUMN memory_bytes; \
             ALTER TABLE sessions DROP COLUMN cpu_millis; ALTER TABLE sessions DROP COLUMN disk_bytes; \
             ALTER TABLE executions DROP COLUMN prompt; PRAGMA user_version = 1;",
        )
        .unwrap();
    for _ in 0..2 {
        let (store, opened) = Store::open(&path).unwrap();
        assert!(opened.quarantined.is_none());
        assert_eq!(store.session(record.id).unwrap(), Some(record.clone()));
    }
}

/// As the second schema left it: without the tables that budgets need.
#[test]
fn a_file_of_the_second_schema_gets_the_tables_of_usage() {
    let (directory, store) = fresh();
    let record = session();
    store.reserve_session(&record, &Bounds::live(1)).unwrap();
    drop(store);
    let path = directory.path().join("state.db");
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch("DROP TABLE api_keys; DROP TABLE session_usage; DROP TABLE daily_usage; ALTER TABLE sessions DROP COLUMN network; \
             ALTER TABLE sessions DROP COLUMN memory_bytes; ALTER TABLE sessions DROP COLUMN cpu_millis; \
             ALTER TABLE sessions DROP COLUMN disk_bytes; PRAGMA user_version = 2;")
        .unwrap();
    let (store, opened) = Store::open(&path).unwrap();
    assert!(opened.quarantined.is_none());
    assert_eq!(store.session(record.id).unwrap(), Some(record.clone()));
    let usage = store::UsageRecord {
        requests: 3,
        ..store::UsageRecord::default()
    };
    store.add_usage(&[(record.id, usage)], &[]).unwrap();
    assert_eq!(store.session_usage(record.id).unwrap(), usage);
    // The same file, which says that it is of this schema and lacks a table, is damaged.
    drop(store);
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch("DROP TABLE daily_usage")
        .unwrap();
    assert!(Store::open(&path).unwrap().1.quarantined.is_some());
}

/// As the third schema left it: without the table of keys.
#[test]
fn a_file_of_the_third_schema_gets_the_table_of_keys() {
    let (directory, store) = fresh();
    let record = session();
    store.reserve_session(&record, &Bounds::live(1)).unwrap();
    drop(store);
    let path = directory.path().join("state.db");
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(
            "DROP TABLE api_keys; ALTER TABLE sessions DROP COLUMN memory_bytes; \
             ALTER TABLE sessions DROP COLUMN cpu_millis; ALTER TABLE sessions DROP COLUMN disk_bytes; \
             PRAGMA user_version = 3;",
        )
        .unwrap();
    let (store, opened) = Store::open(&path).unwrap();
    assert!(opened.quarantined.is_none());
    assert_eq!(store.session(record.id).unwrap(), Some(record));
    assert_eq!(store.keys().unwrap(), []);
}

#[test]
fn a_database_of_something_else_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE bookmarks (url TEXT)")
        .unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(
        Store::open(&path),
        Err(StoreError::Foreign { .. })
    ));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_missing_directory_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(
        Store::open(&directory.path().join("no/state.db")),
        Err(StoreError::File { .. })
    ));
}

/// Every way to damage the file ends in a working, empty store with the same owner, and the damaged file is kept.
#[test]
fn a_damaged_file_is_put_aside_and_the_owner_is_kept() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 5] = [
        ("no database at all", |bytes| {
            *bytes = b"this is not a database, but it is long enough to be one".repeat(40)
        }),
        ("header overwritten", |bytes| bytes[..16].fill(b'x')),
        ("cut in half", |bytes| bytes.truncate(bytes.len() / 2)),
        ("a page of noise", |bytes| bytes[4096..8192].fill(0xa5)),
        ("schema page of noise", |bytes| bytes[100..4096].fill(0x5a)),
    ];
    for (damage, apply) in damages {
        let (directory, store) = fresh();
        let owner = store.owner();
        store.reserve_session(&session(), &Bounds::live(1)).unwrap();
        drop(store);
        let path = directory.path().join("state.db");
        let mut bytes = fs::read(&path).unwrap();
        apply(&mut bytes);
        fs::write(&path, &bytes).unwrap();

        let (store, report) = Store::open(&path).unwrap();
        let aside = report
            .quarantined
            .unwrap_or_else(|| panic!("{damage}: not found out"));
        assert_eq!(fs::read(aside).unwrap(), bytes, "{damage}");
        assert_eq!(store.owner(), owner, "{damage}");
        assert_eq!(store.sessions(Filter::default()).unwrap(), [], "{damage}");
        store.reserve_session(&session(), &Bounds::live(1)).unwrap();
        drop(store);
        assert_eq!(
            Store::open(&path).unwrap().1,
            store::OpenReport::default(),
            "{damage}"
        );
    }
}

#[test]
fn a_missing_table_counts_as_damage() {
    let (directory, store) = fresh();
    drop(store);
    let path = directory.path().join("state.db");
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch("DROP TABLE events")
        .unwrap();
    assert!(Store::open(&path).unwrap().1.quarantined.is_some());
}

#[test]
fn unknown_values_are_errors() {
    for (column, value) in [
        ("state", "'sleeping'"),
        ("backend", "'podman'"),
        ("id", "'s-1'"),
        ("created_at_ms", "-1"),
    ] {
        let (directory, store) = fresh();
        let record = session();
        store.reserve_session(&record, &Bounds::live(1)).unwrap();
        assert!(store.sessions(Filter::default()).is_ok());
        let path = directory.path().join("state.db");
        let change = format!("UPDATE sessions SET {column} = {value}");
        rusqlite::Connection::open(&path)
            .unwrap()
            .execute_batch(&change)
            .unwrap();
        match store.sessions(Filter::default()) {
            Err(
                StoreError::UnknownValue { column: found, .. }
                | StoreError::OutOfRange { column: found },
            ) => {
                assert_eq!(found, column);
            }
            other => panic!("{column}: {other:?}"),
        }
    }
}

const CHILD_DIRECTORY: &str = "STORE_TEST_CHILD_DIRECTORY";

/// Not a test by itself: the process that [`acknowledged_rows_survive_a_kill`] kills.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else {
        return;
    };
    let (store, _) = Store::open(&Path::new(&directory).join("state.db")).unwrap();
    loop {
        let record = session();
        store
            .reserve_session(&record, &Bounds::live(u32::MAX))
            .unwrap();
        store.add_event(record.id, 1, "made").unwrap();
        println!("acknowledged {}", record.id);
    }
}

#[test]
fn acknowledged_rows_survive_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<SessionId> = Vec::new();
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "child_that_writes_until_it_is_killed",
                "--nocapture",
            ])
            .env(CHILD_DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || {
            let ids = lines
                .map_while(Result::ok)
                .filter_map(|line| line.rsplit(' ').next()?.parse().ok());
            ids.collect::<Vec<SessionId>>()
        });
        std::thread::sleep(Duration::from_millis(120 + 17 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(reader.join().unwrap());
        let (store, report) = Store::open(&directory.path().join("state.db")).unwrap();
        assert_eq!(report.quarantined, None);
        for id in &acknowledged {
            assert!(
                store.session(*id).unwrap().is_some(),
                "round {round}: {id} is lost"
            );
            assert_eq!(
                store.events(*id, 9).unwrap().len(),
                1,
                "round {round}: the event of {id} is lost"
            );
        }
    }
    assert!(
        acknowledged.len() > 20,
        "only {} rows: the test proves nothing",
        acknowledged.len()
    );
}

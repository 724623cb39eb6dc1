//! Keys on record, and the pepper beside them (P2a): what is written comes back after a restart, a rotation is whole, and a
//! pepper that is no secret any more is never used.

#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, os::unix::fs::PermissionsExt};

use common::fresh;
use model::{KeyId, Scope, Scopes};
use store::{KeyRecord, Pepper, Store};

fn key() -> KeyRecord {
    let id = KeyId::random().unwrap();
    KeyRecord {
        id,
        identity: id,
        name: "build".to_owned(),
        secret_hash: [9; 32],
        scopes: Scopes::NONE.with(Scope::SessionsRun).with(Scope::Files),
        roots: vec!["/srv/code".into(), "/srv/other code".into()],
        max_sessions: Some(3),
        calls_per_minute: Some(60),
        created_at_ms: 1_000,
        expires_at_ms: Some(9_000),
        revoked_at_ms: None,
        last_used_at_ms: None,
        replaced_by: None,
        end_is_told: false,
    }
}

#[test]
fn keys_outlive_the_server_with_all_that_changed() {
    let (directory, store) = fresh();
    let (first, second) = (key(), key());
    store.add_key(&first).unwrap();
    store
        .add_key(&KeyRecord {
            roots: Vec::new(),
            max_sessions: None,
            calls_per_minute: None,
            expires_at_ms: None,
            ..second.clone()
        })
        .unwrap();
    store.key_was_used(first.id, 2_000).unwrap();
    store.key_was_used(first.id, 1_500).unwrap();
    store.revoke_key(first.id, 3_000).unwrap();
    store.revoke_key(first.id, 4_000).unwrap();
    store.key_end_is_told(first.id).unwrap();
    drop(store);
    let (store, _) = Store::open(&directory.path().join("state.db")).unwrap();
    let keys = store.keys().unwrap();
    let changed = KeyRecord {
        last_used_at_ms: Some(2_000),
        revoked_at_ms: Some(3_000),
        end_is_told: true,
        ..first.clone()
    };
    assert_eq!(keys[0], changed);
    assert_eq!((keys[1].id, keys[1].roots.len()), (second.id, 0));
    assert!(store.add_key(&first).is_err(), "an id is taken once");
}

#[test]
fn a_rotation_is_whole_and_never_lengthens_the_old_key() {
    let (_directory, store) = fresh();
    let old = key();
    store.add_key(&old).unwrap();
    let new = KeyRecord {
        identity: old.id,
        ..key()
    };
    store.replace_key(old.id, 50_000, &new).unwrap();
    let keys = store.keys().unwrap();
    assert_eq!(keys[0].expires_at_ms, Some(9_000), "it ended earlier");
    assert_eq!(keys[0].replaced_by, Some(new.id));
    assert_eq!(keys[1], new);
    // The same id a second time: the old key keeps its end.
    assert!(store.replace_key(old.id, 1, &new).is_err());
    assert_eq!(store.keys().unwrap()[0].expires_at_ms, Some(9_000));
    store
        .replace_key(
            old.id,
            2_000,
            &KeyRecord {
                identity: old.id,
                ..key()
            },
        )
        .unwrap();
    assert_eq!(store.keys().unwrap()[0].expires_at_ms, Some(2_000));
}

#[test]
fn the_pepper_stays_and_one_that_others_may_read_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.pepper");
    let made = Pepper::open(&path).unwrap();
    let read = Pepper::open(&path).unwrap();
    assert!(made.is_new && !read.is_new);
    assert_eq!(made.bytes, read.bytes);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(Pepper::open(&path).is_err(), "others may read it");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, [1; 31]).unwrap();
    assert!(Pepper::open(&path).is_err(), "too short");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(directory.path().join("elsewhere"), &path).unwrap();
    assert!(Pepper::open(&path).is_err(), "a link");
    fs::remove_file(&path).unwrap();
    assert_ne!(Pepper::open(&path).unwrap().bytes, made.bytes);
}

//! A key changes while requests run: none of them fails, and none of the new ones carries the old key.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::*;
use egress::{Credential, Form, Guard, KeyFileError, Source};

/// A file with a key, as its owner writes it: beside the old one, and then in its place.
fn write(path: &Path, key: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, format!("{key}\n")).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&beside, path).unwrap();
}

fn from_file(path: &Path) -> Credential {
    let source = Source::file(path.to_owned(), Guard::OwnerOnly, Form::ApiKey);
    Credential::Source(source.unwrap())
}

/// A provider that takes the keys of a list that changes, and answers slowly in a stream.
async fn provider(taken: Arc<Mutex<Vec<&'static str>>>, refused: Arc<AtomicUsize>) -> Upstream {
    Upstream::start(move |request| {
        let is_taken = |key: &&str| request.contains(&format!("x-api-key: {key}\r\n"));
        if !taken.lock().unwrap().iter().any(is_taken) {
            refused.fetch_add(1, Ordering::SeqCst);
            return answer("401 Unauthorized", "", r#"{"type":"error"}"#);
        }
        let mut pieces = vec![chunked("text/event-stream"), chunk(START)];
        for _ in 0..5 {
            pieces.extend([Piece::Wait(Duration::from_millis(60)), chunk(delta(40))]);
        }
        pieces.extend([chunk(end(10)), last_chunk()]);
        pieces
    })
    .await
}

/// So many requests at once, each on a connection of its own; how many came to their end.
async fn whole_streams(bench: &Arc<Bench>, count: usize) -> usize {
    let asked: Vec<_> = (0..count)
        .map(|_| {
            let bench = Arc::clone(bench);
            tokio::spawn(async move { bench.ask(BODY).await })
        })
        .collect();
    let mut whole = 0;
    for answer in asked {
        let said = answer.await.unwrap();
        if status(&said) != 200 || !said.contains("message_stop") {
            eprintln!("not whole: {said}");
        }
        whole += usize::from(status(&said) == 200 && said.contains("message_stop"));
    }
    whole
}

fn bench_of(url: &str, credential: Credential) -> Arc<Bench> {
    let mut setting = Setting::first_party(url);
    setting.credential = Some(credential);
    setting.caps.max_concurrent = 400;
    setting.caps.max_connections = 400;
    Arc::new(setting.bench())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_streams_live_through_a_rotation_and_a_revocation() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    write(&path, "key-1");
    let taken = Arc::new(Mutex::new(vec!["key-1"]));
    let refused = Arc::new(AtomicUsize::new(0));
    let upstream = provider(Arc::clone(&taken), Arc::clone(&refused)).await;
    let bench = bench_of(&upstream.url, from_file(&path));

    // The overlap: both keys are good while the file changes under a hundred streams.
    let running = {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move { whole_streams(&bench, 100).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    taken.lock().unwrap().push("key-2");
    write(&path, "key-2");
    assert_eq!(running.await.unwrap(), 100);
    assert_eq!(refused.load(Ordering::SeqCst), 0);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(whole_streams(&bench, 5).await, 5);
    let asked = upstream.asked();
    let last = &asked[asked.len() - 5..];
    assert!(
        last.iter()
            .all(|request| request.contains("x-api-key: key-2"))
    );

    // Twenty rotations with hardly an overlap: the old key is revoked as soon as the new one is written. Who still carries
    // it is refused once, and sent again with the new one.
    for key in ["key-3", "key-4"].iter().cycle().take(20) {
        let running = {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move { whole_streams(&bench, 30).await })
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
        taken.lock().unwrap().push(key);
        write(&path, key);
        *taken.lock().unwrap() = vec![key];
        assert_eq!(running.await.unwrap(), 30);
        // Two rotations within one request are more than its one repetition can bridge.
        assert_eq!(whole_streams(&bench, 1).await, 1);
    }
    assert!(refused.load(Ordering::SeqCst) > 0, "nothing was sent again");
}

#[tokio::test]
async fn a_refusal_without_a_newer_key_is_passed_on_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    write(&path, "revoked");
    let refused = Arc::new(AtomicUsize::new(0));
    let upstream = provider(Arc::default(), Arc::clone(&refused)).await;
    let bench = bench_of(&upstream.url, from_file(&path));
    let said = bench.ask(BODY).await;
    assert_eq!((status(&said), rule(&said)), (401, None), "{said}");
    assert_eq!(refused.load(Ordering::SeqCst), 1);
    // A key that never changes has nothing newer either.
    let bench = bench_of(&upstream.url, Credential::ApiKey(secret("revoked")));
    assert_eq!(status(&bench.ask(BODY).await), 401);
    assert_eq!(refused.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_key_before_stands_in_where_the_provider_takes_no_new_one_and_ends_with_a_good_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    write(&path, "key-1");
    let taken = Arc::new(Mutex::new(vec!["key-1"]));
    let refused = Arc::new(AtomicUsize::new(0));
    let upstream = provider(Arc::clone(&taken), Arc::clone(&refused)).await;
    let bench = bench_of(&upstream.url, from_file(&path));
    assert_eq!(whole_streams(&bench, 1).await, 1);
    // A slip of the operator's hand: nobody is stopped, and the provider is not asked twice for each request.
    write(&path, "slip");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(whole_streams(&bench, 1).await, 1);
    assert_eq!(refused.load(Ordering::SeqCst), 1);
    assert_eq!(whole_streams(&bench, 10).await, 10);
    assert_eq!(refused.load(Ordering::SeqCst), 1);
    assert!(upstream.asked().last().unwrap().contains("key-1"));
    // Put right, the new key is the one.
    taken.lock().unwrap().push("key-2");
    write(&path, "key-2");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(whole_streams(&bench, 1).await, 1);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(whole_streams(&bench, 1).await, 1);
    assert!(upstream.asked().last().unwrap().contains("key-2"));
    assert_eq!(refused.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_key_that_was_refused_itself_stands_in_for_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    write(&path, "revoked");
    let taken = Arc::new(Mutex::new(vec!["revoked"]));
    let refused = Arc::new(AtomicUsize::new(0));
    let upstream = provider(Arc::clone(&taken), Arc::clone(&refused)).await;
    let bench = bench_of(&upstream.url, from_file(&path));
    assert_eq!(whole_streams(&bench, 1).await, 1);
    taken.lock().unwrap().clear();
    write(&path, "slip");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // Both are refused, and then only the new one is tried: once for each request.
    for tries in [2, 4, 5, 6] {
        assert_eq!(status(&bench.ask(BODY).await), 401);
        assert_eq!(refused.load(Ordering::SeqCst), tries);
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    // Replaced after its refusal, it is not the one before of anything.
    taken.lock().unwrap().push("key-2");
    write(&path, "key-2");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(whole_streams(&bench, 1).await, 1);
}

#[tokio::test]
async fn a_key_that_is_set_anew_serves_what_the_old_one_was_refused_for() {
    let taken = Arc::new(Mutex::new(vec!["key-1"]));
    let refused = Arc::new(AtomicUsize::new(0));
    let held_back = Arc::clone(&taken);
    let upstream = Upstream::start(move |request| {
        if request.contains("x-api-key: key-2") {
            return json(&message(1, 1));
        }
        held_back.lock().unwrap().clear();
        let mut slow = vec![Piece::Wait(Duration::from_millis(300))];
        slow.extend(answer("401 Unauthorized", "", "{}"));
        slow
    })
    .await;
    let bench = bench_of(&upstream.url, Credential::ApiKey(secret("key-1")));
    let asking = {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move { bench.ask(BODY).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    let key = Credential::ApiKey(secret("key-2"));
    bench.session.set_credential(Some(key)).unwrap();
    assert_eq!(status(&asking.await.unwrap()), 200);
    assert_eq!(refused.load(Ordering::SeqCst), 0);
    assert_eq!(bench.session.usage().requests, 1);
}

#[tokio::test]
async fn a_file_that_is_written_in_place_or_lost_serves_its_last_key_for_a_while() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    write(&path, "key-1");
    let upstream = Upstream::saying(json(&message(1, 1))).await;
    let bench = bench_of(&upstream.url, from_file(&path));
    assert_eq!(status(&bench.ask(BODY).await), 200);
    for broken in ["", "two\nlines"] {
        fs::write(&path, broken).unwrap();
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(status(&bench.ask(BODY).await), 200, "{broken:?}");
    }
    fs::remove_file(&path).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(status(&bench.ask(BODY).await), 200);
    let asked = upstream.asked();
    assert!(
        asked
            .iter()
            .all(|request| request.contains("x-api-key: key-1"))
    );
    // Not for ever: a file that was taken away is a key that was taken away.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let said = bench.ask(BODY).await;
    assert_eq!(
        (status(&said), rule(&said)),
        (503, Some("credential_source")),
        "{said}"
    );
    assert!(
        !said.contains(&*directory.path().to_string_lossy()),
        "{said}"
    );
    write(&path, "key-2");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(status(&bench.ask(BODY).await), 200);
}

#[test]
fn a_file_that_others_could_read_change_or_choose_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let open = |path: &Path, guard| Source::file(path.to_owned(), guard, Form::ApiKey);
    write(&path, "key-1");
    open(&path, Guard::OwnerOnly).unwrap();
    for (mode, guard, refused) in [
        (0o400, Guard::OwnerOnly, false),
        (0o640, Guard::OwnerOnly, true),
        (0o604, Guard::OwnerOnly, true),
        (0o620, Guard::OwnerOnly, true),
        (0o602, Guard::OwnerWrites, true),
        (0o644, Guard::OwnerWrites, false),
        (0o460, Guard::Systemd, true),
        (0o444, Guard::Systemd, true),
        (0o400, Guard::Systemd, false),
    ] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let said = open(&path, guard).err();
        assert_eq!(
            matches!(said, Some(KeyFileError::Open)),
            refused,
            "{mode:o} {guard:?}"
        );
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let error = |path: &Path| open(path, Guard::OwnerOnly).unwrap_err();
    assert!(matches!(error(&link), KeyFileError::Link));
    assert!(matches!(error(directory.path()), KeyFileError::NotAFile));
    assert!(matches!(
        error(&directory.path().join("none")),
        KeyFileError::Read(_)
    ));
    write(&path, &"x".repeat(9000));
    assert!(matches!(error(&path), KeyFileError::TooLong(_)));
    write(&path, "canary\ncanary");
    let malformed = error(&path);
    assert!(matches!(malformed, KeyFileError::Malformed(_)));
    assert!(!format!("{malformed} {malformed:?}").contains("canary"));
    if rustix::process::geteuid().is_root() {
        write(&path, "key-1");
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        assert!(matches!(error(&path), KeyFileError::Foreign));
    } else {
        eprintln!("SKIPPED: only root can make a file that belongs to another user");
    }
}

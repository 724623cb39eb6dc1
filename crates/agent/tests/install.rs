//! Installing from a fake index, a fake registry and files: what goes right, what goes wrong, and what is left then.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod support;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use agent::install::{InstallError, MAX_PROGRAM_BYTES, Source, Wish, address};
use support::{
    Answer, FakeIndex, Ground, MEMBER, WHEEL, answer, facts, json, listing, package, patient, pin,
    program, wheel, wheel_of,
};

const FILE: &str = "/files/sdk-1.2.3-py3-none-any.whl";
const LISTING: &str = "/simple/sdk/";
const CHILD: &str = "AGENT_TEST_CHILD_INSTALLS_FROM";

fn good_index() -> FakeIndex {
    FakeIndex::start([(LISTING, listing("")), (FILE, answer(wheel()))])
}

#[test]
fn an_index_brings_the_program_once_and_for_all() {
    let (ground, index) = (Ground::new(), good_index());
    let done = ground.install(index.source()).unwrap();
    assert!(!done.was_there && done.installed.current);
    let record = &done.installed.record;
    assert!(record.pinned && record.version.as_deref() == Some("9.9.9"));
    assert_eq!(record.sha256, pin().program.sha256);
    assert_eq!(record.source, format!("{}{FILE}", index.url));
    let file = done.installed.program();
    assert!(fs::read(&file).unwrap() == program());
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o555);
    let directory = done.installed.host_directory().unwrap();
    assert_eq!(
        fs::metadata(&directory.path).unwrap().ino(),
        directory.inode
    );
    assert_eq!(fs::read_dir(&directory.path).unwrap().count(), 1);
    ground.store.verify(&done.installed).unwrap();
    assert!(!ground.part().exists(), "the archive is not kept");
    // Once more asks nobody.
    let asked = index.requests();
    let again = ground.install(index.source()).unwrap();
    assert!(again.was_there && again.installed == done.installed);
    assert_eq!(index.requests(), asked);
    assert_eq!(ground.store.list().unwrap(), [done.installed]);
}

#[test]
fn a_registry_and_files_bring_the_same_program() {
    let path = "/@makers/claude-any/-/claude-any-9.9.9.tgz";
    let registry = FakeIndex::start([(path, answer(package()))]);
    let ground = Ground::new();
    let source = Source::Registry {
        url: address(&registry.url).unwrap(),
        network: patient(),
    };
    let done = ground.install(source).unwrap();
    assert_eq!(done.installed.record.sha256, pin().program.sha256);
    for (name, content) in [
        ("x.whl", wheel()),
        ("x.tgz", package()),
        ("claude", program()),
    ] {
        let ground = Ground::new();
        let done = ground.install(ground.file(name, &content)).unwrap();
        assert!(done.installed.record.pinned, "{name}");
        assert!(fs::read(done.installed.program()).unwrap() == program());
        let again = ground.install(ground.file(name, &content)).unwrap();
        assert!(again.was_there, "{name}");
        assert_eq!(ground.names().len(), 2, "{:?}", ground.names());
    }
}

/// What the error must be, by its code, and words that it and its hint must have.
struct Wrong {
    what: &'static str,
    answers: Vec<(&'static str, Answer)>,
    code: &'static str,
    words: &'static [&'static str],
}

fn status(status: u16) -> Answer {
    Answer {
        status,
        ..answer("")
    }
}

fn wrong_indexes() -> Vec<Wrong> {
    let wrong = |what, answers, code, words| Wrong {
        what,
        answers,
        code,
        words,
    };
    let mut other = wheel();
    other[100] ^= 1;
    let mut longer = wheel();
    longer.push(0);
    let hash = |digit: &str| format!(", \"hashes\": {{\"sha256\": \"{}\"}}", digit.repeat(64));
    vec![
        wrong(
            "a yanked file",
            vec![
                (
                    LISTING,
                    listing(", \"yanked\": \"to free\\u001b[1m space\""),
                ),
                (FILE, answer(wheel())),
            ],
            "agent_pin_withdrawn",
            &[
                "to free[1m space",
                "newest one there is 1.10.0",
                "--sdk-version 1.10.0 --accept-unpinned",
                "--accept-yanked",
            ],
        ),
        wrong(
            "a file that is no longer listed",
            vec![(
                LISTING,
                json(&format!(
                    "{{\"files\": [{}]}}",
                    r#"{"filename": "sdk-1.3.0-py3-none-any.whl", "url": "x"}"#
                )),
            )],
            "agent_pin_withdrawn",
            &[
                WHEEL,
                "newest one there is 1.3.0",
                "--from-file",
                "Update claude-code-mcp",
            ],
        ),
        wrong(
            "a project that is gone",
            vec![],
            "agent_pin_withdrawn",
            &[WHEEL],
        ),
        wrong(
            "a file that is listed and gone",
            vec![(LISTING, listing(""))],
            "agent_pin_withdrawn",
            &[WHEEL],
        ),
        wrong(
            "an index that lists another hash",
            vec![(LISTING, listing(&hash("a"))), (FILE, answer(wheel()))],
            "agent_hash_mismatch",
            &["aaaaaaaa"],
        ),
        wrong(
            "a file with one other bit",
            vec![(LISTING, listing("")), (FILE, answer(other))],
            "agent_hash_mismatch",
            &["is pinned", "Nothing was installed"],
        ),
        wrong(
            "a file that is longer",
            vec![(LISTING, listing("")), (FILE, answer(longer))],
            "agent_archive_refused",
            &["larger than"],
        ),
        wrong(
            "a file that always ends early",
            vec![
                (LISTING, listing("")),
                (
                    FILE,
                    Answer {
                        cut_after: Some(1000),
                        ..answer(wheel())
                    },
                ),
            ],
            "agent_download_interrupted",
            &["3000 bytes", "goes on from there"],
        ),
        wrong(
            "a file that stands still",
            vec![
                (LISTING, listing("")),
                (
                    FILE,
                    Answer {
                        pace: Some((Duration::from_secs(5), 10)),
                        ..answer(wheel())
                    },
                ),
            ],
            "agent_download_interrupted",
            &["0 bytes"],
        ),
        wrong(
            "a server that is out of order",
            vec![(LISTING, status(503))],
            "agent_source_failed",
            &["503"],
        ),
        wrong(
            "a file that one may not have",
            vec![(LISTING, listing("")), (FILE, status(403))],
            "agent_source_failed",
            &["403", "--index"],
        ),
        wrong(
            "an index in HTML",
            vec![(
                LISTING,
                Answer {
                    headers: vec![("content-type", "text/html".to_owned())],
                    ..answer("<a>")
                },
            )],
            "agent_source_failed",
            &["text/html", "PEP 691"],
        ),
        wrong(
            "a listing that is none",
            vec![(LISTING, json("[1]"))],
            "agent_source_failed",
            &["in a form of its own"],
        ),
        wrong(
            "a file elsewhere without TLS",
            vec![(
                LISTING,
                json(&format!(
                    "{{\"files\": [{{\"filename\": \"{WHEEL}\", \"url\": \"http://192.0.2.1/x\"}}]}}"
                )),
            )],
            "agent_url_refused",
            &["192.0.2.1"],
        ),
    ]
}

#[test]
fn every_wrong_index_is_told_and_leaves_nothing() {
    for case in wrong_indexes() {
        let ground = Ground::new();
        let index = FakeIndex::start(case.answers);
        let error = ground.install(index.source()).expect_err(case.what);
        let told = format!("{error} {}", error.hint());
        assert_eq!(error.code(), case.code, "{}: {told}", case.what);
        for word in case.words {
            assert!(told.contains(word), "{}: {word:?} in {told}", case.what);
        }
        assert!(!told.contains(char::is_control), "{told:?}");
        assert!(ground.is_empty(), "{}: {:?}", case.what, ground.names());
        // The control: the same store takes it from a good one.
        ground.install(good_index().source()).expect(case.what);
    }
}

#[test]
fn nobody_listening_is_told_apart() {
    let ground = Ground::new();
    let source = Source::Index {
        url: address("http://127.0.0.1:1/simple").unwrap(),
        wish: Wish::default(),
        network: patient(),
    };
    let error = ground.install(source).unwrap_err();
    assert_eq!(error.code(), "agent_source_unreachable");
    assert!(error.hint().contains("HTTPS_PROXY") && error.hint().contains("--from-file"));
}

#[test]
fn what_was_withdrawn_or_is_not_pinned_is_taken_only_when_it_is_asked_for() {
    let ground = Ground::new();
    let yanked = FakeIndex::start([
        (LISTING, listing(", \"yanked\": true")),
        (FILE, answer(wheel())),
    ]);
    let wish = Wish {
        accept_yanked: true,
        ..Wish::default()
    };
    ground.install(yanked.source_with(wish)).unwrap();

    let mut newer = program();
    newer[1000] ^= 1;
    let wheel = wheel_of(&[
        (MEMBER, &newer),
        ("sdk/_bundled/claude.version", b"10.0.0 (Claude Code)\n"),
    ]);
    let index = FakeIndex::start([
        (LISTING, listing("")),
        ("/simple/files/newest.whl", answer(wheel)),
    ]);
    let wish = Wish {
        sdk_version: Some("1.10.0".to_owned()),
        ..Wish::default()
    };
    let refused = ground.install(index.source_with(wish.clone())).unwrap_err();
    assert_eq!(refused.code(), "agent_unpinned");
    assert!(
        refused.to_string().contains(&facts(&newer).sha256),
        "{refused}"
    );
    assert!(refused.hint().contains("--accept-unpinned"));
    let done = ground.install_as(index.source_with(wish), true).unwrap();
    assert_eq!(done.installed.record.version.as_deref(), Some("10.0.0"));
    assert!(!done.installed.record.pinned && done.installed.current);
    assert_eq!(ground.store.list().unwrap().len(), 2);
}

#[test]
fn a_download_goes_on_where_it_ended() {
    let ground = Ground::new();
    let cut = Answer {
        cut_after: Some(1 << 20),
        ..answer(wheel())
    };
    let index = FakeIndex::start([(LISTING, listing("")), (FILE, cut)]);
    // Three megabytes in three attempts of one, and a little: the fourth is the next run's.
    let error = ground.install(index.source()).unwrap_err();
    assert!(
        matches!(error, InstallError::Cut { got, .. } if got == 3 << 20),
        "{error}"
    );
    ground.install(index.source()).unwrap();
    let from = |bytes: u64| format!("{FILE} from {bytes}");
    assert_eq!(
        index.requests(),
        [
            LISTING.to_owned(),
            FILE.to_owned(),
            from(1 << 20),
            from(2 << 20),
            LISTING.to_owned(),
            from(3 << 20)
        ]
    );
    // A server that does not know how sends all of it again.
    let ground = Ground::new();
    fs::create_dir_all(ground.part().parent().unwrap()).unwrap();
    fs::write(ground.part(), &wheel()[..5000]).unwrap();
    let whole = Answer {
        ranges: false,
        ..answer(wheel())
    };
    ground
        .install(FakeIndex::start([(LISTING, listing("")), (FILE, whole)]).source())
        .unwrap();
    // And what was fetched before and is something else does not stay in the way.
    let ground = Ground::new();
    fs::create_dir_all(ground.part().parent().unwrap()).unwrap();
    fs::write(ground.part(), vec![7; 5000]).unwrap();
    let error = ground.install(good_index().source()).unwrap_err();
    assert_eq!(error.code(), "agent_hash_mismatch");
    ground.install(good_index().source()).unwrap();
}

/// Run by the test below in a process of its own.
#[test]
fn child_installs() {
    let Ok(text) = std::env::var(CHILD) else {
        return;
    };
    let (url, directory) = text.split_once(' ').unwrap();
    let order = agent::install::Order {
        pin: pin(),
        source: Source::Index {
            url: address(url).unwrap(),
            wish: Wish::default(),
            network: agent::install::Network::default(),
        },
        accept_unpinned: false,
    };
    let store = agent::install::Store::new(Path::new(directory));
    agent::install::install(&store, &order, &mut |_| {}).unwrap();
}

#[test]
fn a_kill_leaves_nothing_that_is_seen_and_the_next_one_goes_on() {
    let ground = Ground::new();
    let slow = Answer {
        pace: Some((Duration::from_millis(20), 64 << 10)),
        ..answer(wheel())
    };
    let index = FakeIndex::start([(LISTING, listing("")), (FILE, slow)]);
    let child = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_installs"])
            .env(
                CHILD,
                format!("{}/simple {}", index.url, ground.directory.path().display()),
            )
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut first = child();
    let fetched = || fs::metadata(ground.part()).map_or(0, |found| found.len());
    let began = Instant::now();
    while fetched() < 500_000 {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "nothing is fetched"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(ground.is_empty(), "{:?}", ground.names());
    let kept = fetched();
    // Two at once: one waits, and finds it there.
    let (mut one, mut other) = (child(), child());
    assert!(one.wait().unwrap().success() && other.wait().unwrap().success());
    let went_on = index
        .requests()
        .into_iter()
        .filter(|asked| asked.starts_with(FILE));
    assert_eq!(
        went_on.collect::<Vec<_>>(),
        [FILE.to_owned(), format!("{FILE} from {kept}")]
    );
    let installed = ground.store.current().unwrap().unwrap();
    ground.store.verify(&installed).unwrap();
    assert_eq!(ground.names().len(), 2, "{:?}", ground.names());
}

#[test]
fn a_kill_while_it_unpacks_is_swept() {
    let ground = Ground::new();
    let _ = ground.install(good_index().source()).unwrap();
    let left = ground.store.root().join("making-x");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("claude"), "half").unwrap();
    assert_eq!(ground.store.list().unwrap().len(), 1);
    ground.install(good_index().source()).unwrap();
    assert!(!left.exists());
}

#[test]
fn hostile_archives_bring_nothing() {
    let patched = |from: &[u8], to: &[u8]| {
        // The uncompressed size in the central directory (APPNOTE 4.3.12: 24 bytes from its signature), program's entry.
        let mut wheel = wheel_of(&[(MEMBER, &program())]);
        let place = wheel
            .windows(4)
            .rposition(|window| window == b"PK\x01\x02")
            .unwrap()
            + 24;
        assert_eq!(&wheel[place..place + 4], from);
        wheel[place..place + 4].copy_from_slice(to);
        wheel
    };
    let size = u32::try_from(program().len()).unwrap().to_le_bytes();
    let linked = || {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default();
        writer.add_symlink(MEMBER, "/etc/passwd", options).unwrap();
        writer.finish().unwrap().into_inner()
    };
    let other_machine = || {
        let mut program = program();
        program[18] ^= 0xff;
        program
    };
    let too_large = u32::try_from(MAX_PROGRAM_BYTES + 1).unwrap().to_le_bytes();
    let half = wheel().len() / 2;
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "names that lead elsewhere",
            wheel_of(&[
                ("../claude", &program()),
                ("/tmp/claude-code-mcp-was-here", &program()),
                ("sdk/_bundled/../_bundled/claude", &program()),
                ("SDK/_BUNDLED/CLAUDE", &program()),
            ]),
            "holds no program at",
        ),
        (
            "no program",
            wheel_of(&[("sdk/x", b"x")]),
            "holds no program at",
        ),
        ("a link", linked(), "holds no program at"),
        (
            "a size beyond all bounds",
            patched(&size, &too_large),
            "is larger than",
        ),
        (
            "a size that is too small",
            patched(&size, &[9, 0, 0, 0]),
            "",
        ),
        (
            "a wheel cut short",
            wheel()[..half].to_vec(),
            "is a damaged wheel",
        ),
        (
            "a package cut short",
            package()[..half].to_vec(),
            "is damaged",
        ),
        ("an empty file", Vec::new(), "is neither"),
        ("a script", b"#!/bin/sh\n".to_vec(), "is neither"),
        (
            "a script in a wheel",
            wheel_of(&[(MEMBER, b"#!/bin/sh\n")]),
            "no program for Linux",
        ),
        (
            "a program for another machine",
            other_machine(),
            "another kind of machine",
        ),
    ];
    for (what, content, words) in table {
        let ground = Ground::new();
        // Not even when anything is accepted.
        let error = ground
            .install_as(ground.file("x", &content), true)
            .expect_err(what);
        assert_eq!(error.code(), "agent_archive_refused", "{what}: {error}");
        assert!(error.to_string().contains(words), "{what}: {error}");
        assert!(ground.is_empty(), "{what}: {:?}", ground.names());
        assert!(!Path::new("/tmp/claude-code-mcp-was-here").exists());
        assert!(!ground.directory.path().join("claude").exists());
    }
}

#[test]
fn a_file_that_is_not_pinned_needs_a_word() {
    let ground = Ground::new();
    let mut other = program();
    other[5000] ^= 1;
    let error = ground.install(ground.file("claude", &other)).unwrap_err();
    assert_eq!(error.code(), "agent_unpinned");
    assert!(ground.is_empty());
    let done = ground
        .install_as(ground.file("claude", &other), true)
        .unwrap();
    assert!(!done.installed.record.pinned);
    assert_eq!(done.installed.record.sha256, facts(&other).sha256);
    // The program of the store is a copy: its owner may go on with the file.
    fs::write(ground.directory.path().join("claude"), "changed").unwrap();
    ground.store.verify(&done.installed).unwrap();
}

#[test]
fn removing_verifying_and_finding() {
    let ground = Ground::new();
    let first = ground
        .install(ground.file("a", &program()))
        .unwrap()
        .installed;
    let mut other = program();
    other[5000] ^= 1;
    let second = ground
        .install_as(ground.file("b", &other), true)
        .unwrap()
        .installed;
    let store = &ground.store;
    assert_eq!(store.current().unwrap().unwrap().record, second.record);
    let digits = &first.record.sha256[..8];
    for name in [
        digits.to_owned(),
        format!("sha256:{digits}"),
        format!("sha256-{digits}"),
    ] {
        assert_eq!(store.find(&name).unwrap().record, first.record);
    }
    for name in ["", "abc", "0000000000", "../../etc"] {
        assert_eq!(store.find(name).unwrap_err().code(), "agent_not_installed");
    }
    // Damage is found, and mended by installing again.
    let file = first.program();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let mut content = program();
    content[7000] ^= 1;
    fs::write(&file, content).unwrap();
    let damaged = store.verify(&store.find(digits).unwrap()).unwrap_err();
    assert_eq!(damaged.code(), "agent_damaged");
    let again = ground.install(ground.file("a", &program())).unwrap();
    assert!(!again.was_there);
    store.verify(&again.installed).unwrap();
    // What others can write to is not mounted.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(
        again.installed.host_directory().unwrap_err().code(),
        "agent_damaged"
    );
    fs::set_permissions(&file, fs::Permissions::from_mode(0o555)).unwrap();
    again.installed.host_directory().unwrap();

    let lock = store.lock(|| {}).unwrap();
    store
        .remove(&lock, &store.current().unwrap().unwrap())
        .unwrap();
    assert!(store.current().unwrap().is_none());
    store
        .remove(&lock, &store.find(&second.record.sha256).unwrap())
        .unwrap();
    assert!(ground.is_empty(), "{:?}", ground.names());
    // A link to nothing is no silent none.
    std::os::unix::fs::symlink(
        format!("sha256-{}", first.record.sha256),
        store.root().join("current"),
    )
    .unwrap();
    assert_eq!(store.current().unwrap_err().code(), "agent_damaged");
}

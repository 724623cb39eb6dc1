//! Trees going in and out.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm
)]

mod harness;

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    time::Duration,
};

use harness::*;
use wire::*;

const LIMIT: u64 = 1 << 24;

/// Entries with their content.
type Tree = Vec<(Entry, Vec<u8>)>;

fn directory(path: &str, mode: u32) -> (Entry, Vec<u8>) {
    (
        Entry {
            path: path.into(),
            kind: EntryKind::Directory,
            mode,
            mtime: 1_000_000_000,
        },
        Vec::new(),
    )
}

fn file(path: &str, mode: u32, content: &[u8]) -> (Entry, Vec<u8>) {
    let kind = EntryKind::File {
        size: content.len() as u64,
    };
    (
        Entry {
            path: path.into(),
            kind,
            mode,
            mtime: 1_000_000_001,
        },
        content.to_vec(),
    )
}

fn link(path: &str, target: &str) -> (Entry, Vec<u8>) {
    (
        Entry {
            path: path.into(),
            kind: EntryKind::Link {
                target: target.into(),
            },
            mode: 0o777,
            mtime: 5,
        },
        Vec::new(),
    )
}

fn open(
    sandbox: &mut Sandbox,
    kind: TransferKind,
    max_entries: u64,
    max_bytes: u64,
) -> Result<Connection, Fault> {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let transfer = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let spec = TransferSpec {
        transfer,
        kind,
        max_entries,
        max_bytes,
    };
    sandbox.connection.call(Request::OpenTransfer(spec))?;
    let mut data = sandbox.accept_data();
    assert_eq!(data.receive(), ToHost::TransferHello { transfer });
    Ok(data)
}

fn import_with(
    sandbox: &mut Sandbox,
    path: &str,
    refuse: &[&str],
    limits: (u64, u64),
    entries: &[(Entry, Vec<u8>)],
) -> TransferEnd {
    let refuse = refuse
        .iter()
        .map(|pattern| pattern.as_bytes().to_vec())
        .collect();
    let kind = TransferKind::Import {
        path: path.into(),
        refuse,
    };
    let mut data = open(sandbox, kind, limits.0, limits.1).unwrap();
    let mut bytes = 0;
    for (entry, content) in entries {
        data.send(&ToSupervisor::Transfer(TransferFrame::Entry(entry.clone())));
        for chunk in content.chunks(MAX_CHUNK_BYTES) {
            data.send(&ToSupervisor::Transfer(TransferFrame::Data(chunk.to_vec())));
        }
        bytes += content.len() as u64;
    }
    let end = TransferEnd::Complete {
        entries: entries.len() as u64,
        bytes,
    };
    data.send(&ToSupervisor::Transfer(TransferFrame::End(end)));
    match data.receive() {
        ToHost::Transfer(TransferFrame::End(end)) => end,
        other => panic!("{other:?}"),
    }
}

fn import(sandbox: &mut Sandbox, path: &str, entries: &[(Entry, Vec<u8>)]) -> TransferEnd {
    import_with(sandbox, path, &[], (LIMIT, LIMIT), entries)
}

fn export_with(
    sandbox: &mut Sandbox,
    path: &str,
    limits: (u64, u64),
) -> (Vec<(Entry, Vec<u8>)>, TransferEnd) {
    let mut data = open(
        sandbox,
        TransferKind::Export { path: path.into() },
        limits.0,
        limits.1,
    )
    .unwrap();
    let mut entries: Vec<(Entry, Vec<u8>)> = Vec::new();
    loop {
        match data.receive() {
            ToHost::Transfer(TransferFrame::Entry(entry)) => entries.push((entry, Vec::new())),
            ToHost::Transfer(TransferFrame::Data(bytes)) => {
                entries.last_mut().unwrap().1.extend(bytes)
            }
            ToHost::Transfer(TransferFrame::End(end)) => {
                data.send(&ToSupervisor::Transfer(TransferFrame::End(end.clone())));
                return (entries, end);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn export(sandbox: &mut Sandbox, path: &str) -> (Vec<(Entry, Vec<u8>)>, TransferEnd) {
    export_with(sandbox, path, (LIMIT, LIMIT))
}

fn refused(end: &TransferEnd) -> (FaultKind, String) {
    match end {
        TransferEnd::Refused { fault, path } => {
            (fault.kind, String::from_utf8_lossy(path).into_owned())
        }
        TransferEnd::Complete { .. } => panic!("it should be refused"),
    }
}

fn tree() -> Tree {
    vec![
        directory("", 0o755),
        directory("closed", 0o555),
        directory("closed/inner", 0o500),
        file("closed/inner/big", 0o640, &vec![7; 300_001]),
        file("empty", 0o600, b""),
        link("link", "closed/inner"),
        file("run", 0o755, b"#!/bin/sh\n"),
    ]
}

/// Nothing but these names stands in the workspace.
fn names(sandbox: &Sandbox) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(sandbox.path("workspace"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_tree_goes_in_and_comes_back_the_same() {
    let Some(mut sandbox) = sandbox() else { return };
    let path = format!("{}/new", sandbox.workspace());
    let complete = TransferEnd::Complete {
        entries: 7,
        bytes: 300_011,
    };
    assert_eq!(import(&mut sandbox, &path, &tree()), complete);
    assert_eq!(names(&sandbox), ["new"]);
    let facts = fs::metadata(sandbox.path("workspace/new/closed")).unwrap();
    assert_eq!(
        (facts.mode() & 0o7777, facts.mtime()),
        (0o555, 1_000_000_000)
    );
    let (back, end) = export(&mut sandbox, &path);
    assert_eq!(end, complete);
    let without_link_modes = |tree: Vec<(Entry, Vec<u8>)>| {
        tree.into_iter()
            .map(|(entry, content)| (entry.path, entry.kind, entry.mtime, content))
            .collect::<Vec<_>>()
    };
    assert!(without_link_modes(back) == without_link_modes(tree()));
    let (back, _) = export(&mut sandbox, &format!("{path}/run"));
    assert_eq!(back, [file("", 0o755, b"#!/bin/sh\n")]);
    assert_eq!(
        import(
            &mut sandbox,
            &format!("{path}2"),
            &[file("", 0o644, b"alone")]
        ),
        TransferEnd::Complete {
            entries: 1,
            bytes: 5
        }
    );
    assert_eq!(fs::read(sandbox.path("workspace/new2")).unwrap(), b"alone");
}

#[test]
fn a_tree_is_merged_into_an_existing_directory() {
    let Some(mut sandbox) = sandbox() else { return };
    sandbox.run("mkdir -p sub/keep; echo old > sub/replaced; echo kept > sub/keep/file; ln -s nowhere linked; chmod 750 sub");
    let workspace = sandbox.workspace();
    let entries = [
        directory("", 0o700),
        directory("sub", 0o700),
        file("sub/replaced", 0o600, b"new"),
        directory("sub/fresh", 0o555),
        file("sub/fresh/file", 0o444, b"x"),
        file("linked", 0o644, b"no link now"),
    ];
    assert!(matches!(
        import(&mut sandbox, &workspace, &entries),
        TransferEnd::Complete { .. }
    ));
    assert_eq!(names(&sandbox), ["linked", "sub"]);
    let read = |path: &str| fs::read_to_string(sandbox.path(path)).unwrap();
    assert_eq!(read("workspace/sub/replaced"), "new");
    assert_eq!(read("workspace/sub/keep/file"), "kept\n");
    assert_eq!(read("workspace/sub/fresh/file"), "x");
    assert_eq!(read("workspace/linked"), "no link now");
    assert_eq!(
        fs::metadata(sandbox.path("workspace/sub")).unwrap().mode() & 0o777,
        0o750,
        "what exists keeps its mode"
    );
    assert_eq!(
        fs::metadata(sandbox.path("workspace/sub/fresh"))
            .unwrap()
            .mode()
            & 0o777,
        0o555
    );
}

#[test]
fn a_file_takes_the_place_of_a_file_or_a_link_at_once() {
    let Some(mut sandbox) = sandbox() else { return };
    sandbox.run("echo old > file; ln file other; ln -s file link; ln -s nowhere dangling");
    let before = names(&sandbox);
    for name in ["file", "link", "dangling"] {
        let path = format!("{}/{name}", sandbox.workspace());
        let end = import(&mut sandbox, &path, &[file("", 0o640, name.as_bytes())]);
        assert!(matches!(end, TransferEnd::Complete { .. }), "{end:?}");
    }
    assert_eq!(names(&sandbox), before);
    for name in ["file", "link", "dangling"] {
        let path = sandbox.path(&format!("workspace/{name}"));
        let facts = fs::symlink_metadata(&path).unwrap();
        assert!(facts.is_file(), "{name}");
        assert_eq!(facts.mode() & 0o7777, 0o640);
        assert_eq!(fs::read(path).unwrap(), name.as_bytes());
    }
    assert_eq!(
        fs::read_to_string(sandbox.path("workspace/other")).unwrap(),
        "old\n",
        "replaced by rename, not written into"
    );
}

#[test]
fn what_is_of_another_kind_is_in_the_way() {
    let Some(mut sandbox) = sandbox() else { return };
    sandbox.run("mkdir directory; echo x > file; mkfifo fifo");
    for (name, entry) in [
        ("directory", file("", 0o644, b"x")),
        ("file", directory("", 0o755)),
        ("fifo", file("", 0o644, b"x")),
    ] {
        let path = format!("{}/{name}", sandbox.workspace());
        match import(&mut sandbox, &path, &[entry]) {
            TransferEnd::Refused { fault, path } => {
                assert_eq!(fault.kind, FaultKind::BadPath, "{name}");
                assert!(
                    fault.step.contains("of another kind is in the way"),
                    "{fault:?}"
                );
                assert_eq!(path, name.as_bytes());
            }
            TransferEnd::Complete { .. } => panic!("{name} was replaced"),
        }
    }
}

#[test]
fn what_must_not_go_in_leaves_nothing_behind() {
    let Some(mut sandbox) = sandbox() else { return };
    sandbox.run(
        "mkdir taken; mkdir taken/dir; echo x > taken/file; mkfifo taken/fifo; ln -s /tmp out",
    );
    let before = names(&sandbox);
    let workspace = sandbox.workspace();
    let root = || directory("", 0o755);
    let long = "x".repeat(256);
    let deep = vec!["d"; 65].join("/");
    let mut cases: Vec<(&str, String, Tree, &str)> = Vec::new();
    let new = format!("{workspace}/new");
    for bad in [
        "../up", "/abs", "a/../b", ".", "..", "a//b", "a/", "nul\0", &long, &deep,
    ] {
        cases.push((
            "path",
            new.clone(),
            vec![root(), file(bad, 0o644, b"x")],
            bad,
        ));
    }
    for target in ["/etc/passwd", "..", "../x", "a/../../x", ""] {
        cases.push(("link", new.clone(), vec![root(), link("l", target)], "l"));
    }
    cases.push(("link as root", new.clone(), vec![link("", "x")], "new"));
    cases.push((
        "through a link",
        new.clone(),
        vec![
            root(),
            directory("d", 0o755),
            link("l", "d"),
            file("l/f", 0o644, b"x"),
        ],
        "l/f",
    ));
    cases.push((
        "setuid",
        new.clone(),
        vec![root(), file("s", 0o4755, b"x")],
        "s",
    ));
    cases.push((
        "twice",
        new.clone(),
        vec![root(), file("f", 0o644, b"x"), file("f", 0o644, b"y")],
        "f",
    ));
    cases.push((
        "no parent",
        new.clone(),
        vec![root(), file("d/f", 0o644, b"x")],
        "d/f",
    ));
    cases.push(("no root", new.clone(), vec![file("f", 0o644, b"x")], "f"));
    cases.push((
        "file for directory",
        format!("{workspace}/taken"),
        vec![root(), file("dir", 0o644, b"x")],
        "dir",
    ));
    cases.push((
        "directory for file",
        format!("{workspace}/taken"),
        vec![root(), directory("file", 0o755)],
        "file",
    ));
    cases.push((
        "for a fifo",
        format!("{workspace}/taken"),
        vec![root(), file("fifo", 0o644, b"x")],
        "fifo",
    ));
    cases.push((
        "file into directory",
        format!("{workspace}/taken"),
        vec![file("", 0o644, b"x")],
        "taken",
    ));
    cases.push((
        "file onto a fifo",
        format!("{workspace}/taken/fifo"),
        vec![file("", 0o644, b"x")],
        "fifo",
    ));
    cases.push((
        "directory onto a file",
        format!("{workspace}/taken/file"),
        vec![root()],
        "file",
    ));
    cases.push((
        "below a file",
        format!("{workspace}/taken/file/x"),
        vec![file("", 0o644, b"x")],
        "x",
    ));
    cases.push((
        "no such parent",
        format!("{workspace}/a/b"),
        vec![root()],
        "b",
    ));
    cases.push((
        "through a link",
        format!("{workspace}/out/x"),
        vec![root()],
        "x",
    ));
    cases.push((
        "outside",
        format!("{}/x", text(&sandbox.path("outside"))),
        vec![root()],
        "x",
    ));
    for (name, path, entries, at) in cases {
        let end = import(&mut sandbox, &path, &entries);
        assert_eq!(refused(&end).1, *at, "{name} {at}: {end:?}");
        assert_eq!(names(&sandbox), before, "{name} {at}");
    }
    for path in ["relative", "/", "/a/../b", ""] {
        let kind = TransferKind::Import {
            path: path.into(),
            refuse: Vec::new(),
        };
        assert_eq!(
            open(&mut sandbox, kind, 1, 1).err().unwrap().kind,
            FaultKind::BadPath,
            "{path}"
        );
    }
    let mut taken: Vec<_> = fs::read_dir(sandbox.path("workspace/taken"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    taken.sort();
    assert_eq!(taken, ["dir", "fifo", "file"]);
    assert!(
        matches!(
            import(&mut sandbox, &new, &[root(), file("f", 0o644, b"x")]),
            TransferEnd::Complete { .. }
        ),
        "the positive control"
    );
}

#[test]
fn protected_paths_and_limits_are_refused() {
    let Some(mut sandbox) = sandbox() else { return };
    let workspace = sandbox.workspace();
    let refuse = [".git/hooks", "**/.envrc"];
    let root = || directory("", 0o755);
    for (entries, at) in [
        (
            vec![
                root(),
                directory(".git", 0o755),
                directory(".git/hooks", 0o755),
            ],
            ".git/hooks",
        ),
        (vec![root(), link(".git", "x")], ".git"),
        (
            vec![root(), directory("a", 0o755), file("a/.envrc", 0o644, b"x")],
            "a/.envrc",
        ),
    ] {
        let end = import_with(&mut sandbox, &workspace, &refuse, (LIMIT, LIMIT), &entries);
        assert_eq!(refused(&end), (FaultKind::BadPath, at.to_owned()));
    }
    let entries = [
        root(),
        file("a", 0o644, b"12345"),
        file("b", 0o644, b"12345"),
    ];
    for limits in [(2, LIMIT), (LIMIT, 9)] {
        let end = import_with(&mut sandbox, &workspace, &refuse, limits, &entries);
        assert_eq!(refused(&end), (FaultKind::TooMany, "b".to_owned()));
    }
    assert_eq!(names(&sandbox), Vec::<String>::new());
    let end = import_with(&mut sandbox, &workspace, &refuse, (3, 10), &entries);
    assert_eq!(
        end,
        TransferEnd::Complete {
            entries: 3,
            bytes: 10
        }
    );
    let (_, end) = export_with(&mut sandbox, &workspace, (3, 10));
    assert_eq!(
        end,
        TransferEnd::Complete {
            entries: 3,
            bytes: 10
        }
    );
    for limits in [(2, 10), (3, 9)] {
        let (_, end) = export_with(&mut sandbox, &workspace, limits);
        assert_eq!(refused(&end).0, FaultKind::TooMany);
    }
}

#[test]
fn what_must_not_come_out_is_refused_by_name() {
    let Some(mut sandbox) = sandbox() else { return };
    for (script, at) in [
        ("mkfifo bad", "bad"),
        (
            "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => \"bad\", Listen => 1) or die'",
            "bad",
        ),
        ("ln -s /etc/passwd bad", "bad"),
        ("mkdir d; ln -s ../../x d/bad", "d/bad"),
        ("echo x > bad; chmod 4755 bad", "bad"),
        ("echo x > bad; chmod 2755 bad", "bad"),
        ("echo x > bad; chmod 000 bad", "bad"),
    ] {
        let path = format!("{}/t", sandbox.workspace());
        let (status, _, err) = sandbox.run(&format!(
            "rm -rf t; mkdir t; cd t; echo fine > fine; {script}"
        ));
        assert_eq!(ended(&status).exit, Exit::Code(0), "{script}: {err}");
        let (_, end) = export(&mut sandbox, &path);
        assert_eq!(refused(&end).1, at, "{script}");
    }
    let none = format!("{}/none", sandbox.workspace());
    let (_, end) = export(&mut sandbox, &none);
    assert_eq!(refused(&end).0, FaultKind::BadPath);
    let (_, end) = export(&mut sandbox, "/proc/self/root");
    assert_eq!(refused(&end).0, FaultKind::BadPath);
}

#[test]
fn links_that_change_under_an_export_lead_nowhere() {
    let Some(mut sandbox) = sandbox() else { return };
    let spec = sandbox.shell("mkdir -p t/a; echo in > t/a/f; mkdir /proc/self/x 2>/dev/null; echo ready; while :; do mv t/a t/b; ln -s /etc t/a; rm t/a; mv t/b t/a; done");
    let execution = sandbox.connection.start(&spec);
    sandbox
        .connection
        .read_until(execution, Stream::Stdout, "ready");
    let path = format!("{}/t", sandbox.workspace());
    for _ in 0..60 {
        let (entries, _) = export(&mut sandbox, &path);
        for (entry, _) in entries {
            assert!(
                ["", "a", "a/f", "b", "b/f"]
                    .contains(&String::from_utf8_lossy(&entry.path).as_ref()),
                "{entry:?}"
            );
        }
    }
}

#[test]
fn nothing_is_visible_before_the_end_and_a_killed_worker_leaves_nothing() {
    let Some(mut sandbox) = sandbox() else { return };
    for kill in [false, true] {
        let path = format!("{}/new", sandbox.workspace());
        let kind = TransferKind::Import {
            path: path.into_bytes(),
            refuse: Vec::new(),
        };
        let mut data = open(&mut sandbox, kind, LIMIT, LIMIT).unwrap();
        for (entry, _) in [
            directory("", 0o755),
            directory("d", 0o755),
            file("d/f", 0o644, b"12345"),
        ] {
            data.send(&ToSupervisor::Transfer(TransferFrame::Entry(entry)));
        }
        eventually(Duration::from_secs(2), "it is staged", || {
            names(&sandbox)
                .iter()
                .any(|name| name.starts_with(".incoming-"))
        });
        assert!(!names(&sandbox).contains(&"new".to_owned()));
        if kill {
            // The agent shares the worker's uid; the supervisor's children that are no shell are workers.
            sandbox.run(
                "for p in $(cat /proc/1/task/1/children); do [ $p = $PPID ] || kill -KILL $p; done",
            );
        }
        drop(data);
        eventually(
            Duration::from_secs(2),
            "the staging directory is gone",
            || names(&sandbox).is_empty(),
        );
    }
}

#[test]
fn a_mode_that_forbids_its_owner_is_no_obstacle() {
    let Some(mut sandbox) = sandbox() else { return };
    let workspace = sandbox.workspace();
    let entries = [
        directory("", 0o755),
        directory("d", 0o000),
        directory("d/e", 0o000),
        file("d/e/f", 0o000, b"x"),
    ];
    assert!(matches!(
        import(&mut sandbox, &workspace, &entries),
        TransferEnd::Complete { .. }
    ));
    assert_eq!(
        fs::metadata(sandbox.path("workspace/d")).unwrap().mode() & 0o777,
        0
    );
    fs::set_permissions(
        sandbox.path("workspace/d"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    symlink("x", sandbox.path("workspace/unused")).unwrap();
}

//! What a transfer may and may not do to the host.

use std::{fs, os::unix::fs::PermissionsExt, os::unix::fs::symlink, path::Path};

use rustix::fs::Mode;
use sandbox::{
    ExportFrame,
    wire::{Entry, EntryKind, TransferFrame},
};

use super::*;
use crate::protected::Protects;

const BUDGET: Budget = Budget {
    entries: 1_000,
    bytes: 1_000_000,
};

struct Rules;

impl Protects for Rules {
    fn directory(&self, relative: &Path) -> Option<String> {
        relative
            .ends_with(".git/hooks")
            .then(|| "the host runs it".to_owned())
    }

    fn file(&self, relative: &Path) -> Option<String> {
        relative
            .ends_with(".envrc")
            .then(|| "the host runs it".to_owned())
    }
}

fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OPEN_DIRECTORY, Mode::empty()).unwrap()
}

fn directory(path: &str) -> ExportFrame {
    ExportFrame::Entry(Entry {
        path: path.into(),
        kind: EntryKind::Directory,
        mode: 0o755,
        mtime: 1,
    })
}

fn file(path: &str, size: u64) -> ExportFrame {
    ExportFrame::Entry(Entry {
        path: path.into(),
        kind: EntryKind::File { size },
        mode: 0o7755,
        mtime: 1,
    })
}

fn link(path: &str, target: &str) -> ExportFrame {
    ExportFrame::Entry(Entry {
        path: path.into(),
        kind: EntryKind::Link {
            target: target.into(),
        },
        mode: 0o777,
        mtime: 1,
    })
}

fn data(text: &str) -> ExportFrame {
    ExportFrame::Data(text.into())
}

fn write(
    base: &Path,
    destination: &str,
    frames: Vec<ExportFrame>,
) -> Result<Totals, TransferError> {
    let mut writer = TreeWriter::new(
        &open(base),
        Path::new(destination),
        None,
        "test",
        &Rules,
        BUDGET,
    )?;
    for frame in frames {
        writer.frame(frame)?;
    }
    writer.finish()
}

/// Names of everything below a directory.
fn census(base: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut open = vec![base.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            names.push(
                entry
                    .path()
                    .strip_prefix(base)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
        }
    }
    names.sort_unstable();
    names
}

#[test]
fn a_tree_read_here_is_written_the_same_there() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(from.path().join("src/empty")).unwrap();
    fs::write(from.path().join("src/a.txt"), vec![7; 300_000]).unwrap();
    fs::set_permissions(
        from.path().join("src/a.txt"),
        fs::Permissions::from_mode(0o750),
    )
    .unwrap();
    symlink("a.txt", from.path().join("src/b.txt")).unwrap();
    let base = open(to.path());
    let mut writer =
        TreeWriter::new(&base, Path::new("copy"), None, "test", &Rules, BUDGET).unwrap();
    let sent = read_tree(
        &open(from.path()),
        Path::new("src"),
        BUDGET,
        &mut |frame| match frame {
            TransferFrame::Entry(entry) => writer.frame(ExportFrame::Entry(entry)),
            TransferFrame::Data(data) => writer.frame(ExportFrame::Data(data)),
            TransferFrame::End(_) => unreachable!("a reader sends no end"),
        },
    )
    .unwrap();
    let written = writer.finish().unwrap();
    assert_eq!(sent, written);
    assert_eq!(
        sent,
        Totals {
            files: 1,
            directories: 2,
            links: 1,
            bytes: 300_000
        }
    );
    assert_eq!(
        census(to.path()),
        ["copy", "copy/a.txt", "copy/b.txt", "copy/empty"]
    );
    assert_eq!(
        fs::read(to.path().join("copy/b.txt")).unwrap(),
        vec![7; 300_000]
    );
    assert_eq!(
        fs::metadata(to.path().join("copy/a.txt"))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777,
        0o750
    );
}

#[test]
fn special_bits_do_not_travel() {
    let to = tempfile::tempdir().unwrap();
    write(to.path(), "x", vec![file("", 0)]).unwrap();
    assert_eq!(
        fs::metadata(to.path().join("x"))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777,
        0o755
    );
}

#[test]
fn hostile_trees_are_refused_and_leave_nothing_behind() {
    let good = vec![
        directory(""),
        directory("a"),
        file("a/f", 2),
        data("hi"),
        link("a/l", "f"),
    ];
    let with = |frames: Vec<ExportFrame>| [vec![directory(""), directory("a")], frames].concat();
    let hostile: Vec<(&str, Vec<ExportFrame>)> = vec![
        ("parent", with(vec![file("../x", 0)])),
        ("parent inside", with(vec![file("a/../../x", 0)])),
        ("absolute", with(vec![file("/etc/x", 0)])),
        ("current directory", with(vec![file("./x", 0)])),
        ("double root", with(vec![directory("")])),
        ("no root", vec![file("a", 0)]),
        ("below a file", vec![file("", 0), file("x", 0)]),
        ("parent missing", with(vec![file("b/x", 0)])),
        (
            "same name twice",
            with(vec![file("a/x", 0), file("a/x", 0)]),
        ),
        ("absolute link", with(vec![link("a/l", "/etc/passwd")])),
        ("link out", with(vec![link("a/l", "../../x")])),
        (
            "link out in the middle",
            with(vec![link("a/l", "b/../../../x/y")]),
        ),
        (
            "link that climbs after it descended",
            with(vec![link("a/l", "b/../f")]),
        ),
        ("empty link", with(vec![link("a/l", "")])),
        ("root is a link", vec![link("", "a")]),
        ("too little content", with(vec![file("a/x", 3), data("hi")])),
        ("too much content", with(vec![file("a/x", 1), data("hi")])),
        ("content without a file", with(vec![data("hi")])),
        (
            "content after a directory",
            with(vec![file("a/x", 1), data("x"), directory("b"), data("hi")]),
        ),
        ("a NUL in a name", with(vec![file("a/x\0y", 0)])),
        (
            "a name too long",
            with(vec![file(&format!("a/{}", "x".repeat(256)), 0)]),
        ),
        (
            "too deep",
            with(vec![directory(&format!("a/{}", ["d"; 70].join("/")))]),
        ),
        (
            "protected directory",
            with(vec![directory(".git"), directory(".git/hooks")]),
        ),
        (
            "below a protected directory",
            with(vec![file(".git/hooks/pre-commit", 0)]),
        ),
        ("protected file, nested", with(vec![file("a/.envrc", 0)])),
        ("nothing at all", vec![]),
        ("too many bytes", with(vec![file("a/x", 1_000_001)])),
        (
            "too many entries",
            with((0..1_000).map(|n| file(&format!("a/{n}"), 0)).collect()),
        ),
    ];
    for (name, frames) in hostile {
        let to = tempfile::tempdir().unwrap();
        assert!(write(to.path(), "out", frames).is_err(), "{name} was taken");
        assert_eq!(
            census(to.path()),
            Vec::<String>::new(),
            "{name} left something"
        );
        write(to.path(), "out", good.clone()).unwrap();
        assert_eq!(
            census(to.path()),
            ["out", "out/a", "out/a/f", "out/a/l"],
            "the control of {name}"
        );
    }
}

#[test]
fn destinations_out_of_the_base_are_refused() {
    let outside = tempfile::tempdir().unwrap();
    let to = tempfile::tempdir().unwrap();
    symlink(outside.path(), to.path().join("out")).unwrap();
    symlink(outside.path().join("x"), to.path().join("file")).unwrap();
    for destination in [
        "out/x",
        "../x",
        "/tmp/claude-code-mcp-must-not-exist",
        "",
        ".",
        "missing/x",
        ".envrc",
        "sub/.git/hooks",
    ] {
        assert!(
            write(to.path(), destination, vec![file("", 0)]).is_err(),
            "{destination:?} was taken"
        );
    }
    write(to.path(), "file", vec![file("", 2), data("hi")]).unwrap();
    assert!(
        fs::symlink_metadata(to.path().join("file"))
            .unwrap()
            .is_file(),
        "the link itself was replaced"
    );
    assert_eq!(census(outside.path()), Vec::<String>::new());
}

#[test]
fn a_merge_replaces_files_and_stops_before_it_starts_when_something_is_in_the_way() {
    let to = tempfile::tempdir().unwrap();
    fs::create_dir_all(to.path().join("out/sub/dir")).unwrap();
    fs::write(to.path().join("out/kept"), "kept").unwrap();
    fs::write(to.path().join("out/f"), "old").unwrap();
    let tree = |last: ExportFrame| {
        vec![
            directory(""),
            file("f", 3),
            data("new"),
            directory("sub"),
            last,
        ]
    };
    let refused = write(to.path(), "out", tree(file("sub/dir", 0)));
    assert!(
        matches!(refused, Err(TransferError::InTheWay { path }) if path == Path::new("sub/dir"))
    );
    assert_eq!(fs::read_to_string(to.path().join("out/f")).unwrap(), "old");
    write(to.path(), "out", tree(file("sub/g", 0))).unwrap();
    assert_eq!(fs::read_to_string(to.path().join("out/f")).unwrap(), "new");
    assert_eq!(
        census(to.path()),
        [
            "out",
            "out/f",
            "out/kept",
            "out/sub",
            "out/sub/dir",
            "out/sub/g"
        ]
    );
}

#[test]
fn what_is_not_a_file_a_directory_or_an_inner_link_is_not_sent() {
    let from = tempfile::tempdir().unwrap();
    let read = |source: &str| {
        read_tree(&open(from.path()), Path::new(source), BUDGET, &mut |_| {
            Ok(())
        })
    };
    fs::create_dir(from.path().join("good")).unwrap();
    symlink("../outside", from.path().join("good-link")).unwrap();
    assert!(read("good").is_ok());
    for kind in ["fifo", "socket", "link", "absolute", "setuid", "setgid"] {
        let directory = from.path().join(kind);
        fs::create_dir(&directory).unwrap();
        let entry = directory.join("entry");
        match kind {
            "fifo" => {
                rustix::fs::mknodat(rustix::fs::CWD, &entry, FileType::Fifo, Mode::RWXU, 0).unwrap()
            }
            "socket" => drop(std::os::unix::net::UnixListener::bind(&entry).unwrap()),
            "link" => symlink("../good", &entry).unwrap(),
            "absolute" => symlink("/etc/passwd", &entry).unwrap(),
            mode => {
                fs::write(&entry, "").unwrap();
                let mode = if mode == "setuid" { 0o4755 } else { 0o2755 };
                fs::set_permissions(&entry, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
        assert!(
            matches!(read(kind), Err(TransferError::Refused { .. })),
            "{kind} was sent"
        );
    }
    for source in [
        "good-link",
        "link/entry",
        "link/entry/x",
        "../x",
        "/etc/passwd",
    ] {
        assert!(read(source).is_err(), "{source} was sent");
    }
    assert!(matches!(
        read("missing"),
        Err(TransferError::Missing { .. })
    ));
}

#[test]
fn a_transfer_that_is_dropped_leaves_nothing() {
    let to = tempfile::tempdir().unwrap();
    let mut writer = TreeWriter::new(
        &open(to.path()),
        Path::new("x"),
        None,
        "test",
        &Rules,
        BUDGET,
    )
    .unwrap();
    for frame in [directory(""), directory("a"), file("a/f", 9), data("half")] {
        writer.frame(frame).unwrap();
    }
    assert!(!census(to.path()).is_empty(), "it is staged");
    drop(writer);
    assert_eq!(census(to.path()), Vec::<String>::new());
}

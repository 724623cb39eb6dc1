//! The arrows of the house: which crate may know which. `ARCHITECTURE.md` shows the same table.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};

/// Crate, and the crates of this workspace that it may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("wire", &[]),
    ("policy", &["model"]),
    ("audit", &["model"]),
    ("store", &["model"]),
    ("scripted-api", &[]),
    ("supervisor", &["wire"]),
    ("egress", &["model"]),
    ("sandbox", &["model", "wire"]),
    ("sandbox-host", &["sandbox", "model", "wire"]),
    (
        "sandbox-native",
        &["sandbox-host", "sandbox", "model", "wire"],
    ),
    (
        "sandbox-docker",
        &["sandbox-host", "sandbox", "model", "wire"],
    ),
    ("agent", &["model", "sandbox"]),
    (
        "session",
        &["model", "policy", "store", "sandbox", "agent", "egress"],
    ),
    (
        "control",
        &["model", "policy", "audit", "store", "session", "egress"],
    ),
    ("mcp", &["control", "model"]),
    ("http-door", &["mcp", "control", "model"]),
    ("fuzz", &["agent", "egress", "wire"]),
    (
        "app",
        &[
            "model",
            "wire",
            "policy",
            "audit",
            "store",
            "sandbox",
            "sandbox-host",
            "sandbox-native",
            "sandbox-docker",
            "session",
            "control",
            "mcp",
            "http-door",
            "agent",
            "egress",
            "scripted-api",
        ],
    ),
];

#[test]
fn every_crate_uses_only_what_it_may() {
    let arrows: BTreeMap<&str, BTreeSet<&str>> = ARROWS
        .iter()
        .map(|(name, uses)| (*name, uses.iter().copied().collect()))
        .collect();
    let metadata = cargo_metadata::MetadataCommand::new()
        .no_deps()
        .exec()
        .expect("cargo metadata");
    let members: BTreeSet<&str> = metadata
        .packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    assert_eq!(
        members,
        arrows.keys().copied().collect(),
        "a crate without arrows, or arrows without a crate"
    );
    for package in &metadata.packages {
        let used: BTreeSet<&str> = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind != cargo_metadata::DependencyKind::Development)
            .map(|dependency| dependency.name.as_str())
            .filter(|name| members.contains(name))
            .collect();
        let allowed = &arrows[package.name.as_str()];
        let forbidden: Vec<_> = used.difference(allowed).collect();
        assert!(
            forbidden.is_empty(),
            "{} must not know {forbidden:?}",
            package.name
        );
    }
}

#[test]
fn unsafe_code_is_fenced() {
    let allowed = [
        "crates/supervisor/",
        "crates/sandbox-host/src/kernel.rs",
        "crates/sandbox-native/src/enter",
    ];
    let deny_only = ["sandbox-native", "sandbox-host"];
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = 0;
    for file in rust_files(&root.join("crates")) {
        let text = std::fs::read_to_string(&file).expect("a source file");
        let relative = file
            .strip_prefix(&root)
            .expect("below the root")
            .display()
            .to_string();
        let has_unsafe = text.lines().any(|line| {
            let code = line.split("//").next().unwrap_or_default();
            code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl")
        });
        if has_unsafe {
            found += 1;
            assert!(
                allowed.iter().any(|place| relative.starts_with(place)),
                "unsafe code in {relative}"
            );
        }
        if file.ends_with("src/lib.rs") && !deny_only.iter().any(|name| relative.contains(name)) {
            assert!(
                text.contains("#![forbid(unsafe_code)]"),
                "{relative} does not forbid unsafe code"
            );
        }
    }
    assert!(
        found > 0,
        "the search found no unsafe code where there is some: it looks in the wrong place"
    );
}

#[test]
fn only_the_app_reads_the_environment() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for name in [
        "model",
        "wire",
        "policy",
        "audit",
        "store",
        "scripted-api",
        "sandbox",
        "sandbox-host",
        "sandbox-docker",
        "session",
        "control",
        "mcp",
        "http",
        "agent",
        "egress",
    ] {
        for file in rust_files(&root.join("crates").join(name).join("src")) {
            let text = std::fs::read_to_string(&file).expect("a source file");
            assert!(
                !text.contains("env::var"),
                "{} reads the environment",
                file.display()
            );
        }
    }
}

/// Where one program is made of all test files, one that is in none would be no test.
#[test]
fn every_test_file_is_part_of_a_program() {
    let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = 0;
    for directory in std::fs::read_dir(crates).expect("the crates").flatten() {
        let tests = directory.path().join("tests");
        let Ok(program) = std::fs::read_to_string(tests.join("main.rs")) else {
            continue;
        };
        for file in std::fs::read_dir(&tests).expect("the tests").flatten() {
            let file = file.path();
            let name = file.file_stem().unwrap_or_default().display().to_string();
            if file.extension().is_some_and(|extension| extension == "rs") && name != "main" {
                found += 1;
                let is_part = program.lines().any(|line| line == format!("mod {name};"));
                assert!(is_part, "{} is no part of main.rs", file.display());
            }
        }
    }
    assert!(found > 0, "the search found no test files");
}

fn rust_files(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory)
            .expect("a directory")
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

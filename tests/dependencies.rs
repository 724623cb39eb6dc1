//! What the product is made of: licences and banned crates, without any tool to install (SC, U3). `deny.toml` says the
//! same for `cargo deny`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

/// Licences that may be in the product.
const ALLOWED: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that must not be in the product.
const BANNED: &[&str] = &["tokio-tar", "openssl-sys", "aws-lc-sys", "libcontainer"];

#[test]
fn every_dependency_has_an_allowed_licence_and_none_is_banned() {
    let metadata = cargo_metadata::MetadataCommand::new()
        .other_options([
            "--locked".to_owned(),
            "--filter-platform=x86_64-unknown-linux-gnu".to_owned(),
        ])
        .exec()
        .expect("cargo metadata");
    assert!(
        metadata.packages.len() > 50,
        "the list is not the whole graph"
    );
    for package in &metadata.packages {
        assert!(
            !BANNED.contains(&package.name.as_str()),
            "{} is banned",
            package.name
        );
        let Some(license) = &package.license else {
            panic!("{} names no licence", package.name)
        };
        assert!(
            is_allowed(license),
            "{} has the licence {license}",
            package.name
        );
    }
}

#[test]
fn what_moves_fast_is_pinned_exactly() {
    let manifest = include_str!("../Cargo.toml");
    assert!(manifest.contains("rmcp = { version = \"=3.9.0\""));
}

#[test]
fn a_licence_that_only_names_forbidden_ones_is_refused() {
    for allowed in [
        "MIT",
        "MIT OR Apache-2.0",
        "MIT/Apache-2.0",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "GPL-3.0 OR MIT",
    ] {
        assert!(is_allowed(allowed), "{allowed}");
    }
    for refused in ["GPL-3.0", "MIT AND GPL-3.0", "AGPL-3.0 OR GPL-2.0", ""] {
        assert!(!is_allowed(refused), "{refused}");
    }
}

/// Whether an SPDX expression can be met with allowed licences: every AND part needs one allowed OR part.
fn is_allowed(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], " ").replace('/', " OR ");
    plain.split(" AND ").all(|part| {
        part.split(" OR ")
            .any(|licence| ALLOWED.contains(&licence.trim()))
    })
}

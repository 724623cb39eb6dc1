//! Transfers: where from, where to, and what is never written.

use std::path::Path;

use model::{Reason, TransferDirection, TransferFiles};

use super::fixture::*;
use crate::TransferParts;

fn admit(
    direction: TransferDirection,
    source: &str,
    destination: &str,
) -> Result<TransferParts, model::Refusal> {
    let asked = TransferFiles {
        session: SESSION,
        direction,
        source: source.into(),
        destination: destination.into(),
    };
    policy()
        .admit_transfer(&alice(), &asked, Some(OWNER), Path::new(PROJECT))
        .map(|permit| permit.into_parts())
}

fn into(source: &str, destination: &str) -> Result<TransferParts, model::Refusal> {
    admit(TransferDirection::ToContainer, source, destination)
}

fn out_of(source: &str, destination: &str) -> Result<TransferParts, model::Refusal> {
    admit(TransferDirection::FromContainer, source, destination)
}

#[test]
fn a_permit_names_the_root_to_stay_beneath() {
    let parts = into("/srv/code/app/data/x.csv", "/workspace/data/").unwrap();
    assert_eq!(parts.host_root, Path::new(PROJECT));
    assert_eq!(parts.host_relative, Path::new("data/x.csv"));
    assert_eq!(parts.container, Path::new("/workspace/data"));
    let parts = out_of("/tmp/out", "/srv/code/other/out").unwrap();
    assert_eq!(
        (parts.host_root.as_path(), parts.host_relative.as_path()),
        (Path::new(OPERATOR_ROOT), Path::new("other/out"))
    );
    let parts = into(PROJECT, "/state/copy").unwrap();
    assert_eq!(parts.host_relative, Path::new(""));
}

#[test]
fn protected_paths_are_written_on_neither_side() {
    #[rustfmt::skip]
    let protected = [".git", ".git/hooks", ".git/hooks/pre-commit", ".git/config", ".git/objects/00", ".envrc", ".vscode/tasks.json",
        ".claude/settings.json", ".mcp.json", "sub/.git/hooks/x", "sub/.envrc", ".GIT/hooks", ".Vscode", "a/b/.husky/_/h", ".gitmodules"];
    for path in protected {
        refused_as(
            into("/srv/code/app/x", &format!("/workspace/{path}")),
            Reason::PathProtected,
            "destPath",
            path,
        );
        refused_as(
            out_of("/tmp/x", &format!("{PROJECT}/{path}")),
            Reason::PathProtected,
            "destPath",
            path,
        );
        refused_as(
            out_of("/tmp/x", &format!("{CLIENT_ROOT}/{path}")),
            Reason::PathProtected,
            "destPath",
            path,
        );
        assert!(
            out_of(&format!("/workspace/{path}"), "/srv/code/app/x").is_ok(),
            "reading {path} is no danger"
        );
        assert!(
            into("/srv/code/app/x", &format!("/tmp/{path}")).is_ok(),
            "{path} outside the workspace stays inside"
        );
    }
    for path in [
        "src/main.rs",
        ".gitignore",
        "x.git/config2",
        "envrc",
        ".github/workflows/x.yml",
    ] {
        assert!(
            into("/srv/code/app/x", &format!("/workspace/{path}")).is_ok(),
            "{path}"
        );
        assert!(
            out_of("/tmp/x", &format!("{PROJECT}/{path}")).is_ok(),
            "{path}"
        );
    }
}

#[test]
fn what_a_tree_must_not_write_travels_with_the_permit() {
    let refuse = into("/srv/code/app/x", "/workspace/sub").unwrap().refuse;
    for pattern in [
        "**/.git",
        "**/.git/hooks",
        "**/.envrc",
        "**/.claude",
        "**/.mcp.json",
    ] {
        assert!(
            refuse.iter().any(|found| found == pattern),
            "{pattern} in {refuse:?}"
        );
    }
    assert_eq!(
        out_of("/tmp/x", "/srv/code/app/sub").unwrap().refuse,
        refuse
    );
    assert_eq!(
        into("/srv/code/app/x", "/tmp").unwrap().refuse,
        Vec::<String>::new()
    );
}

#[test]
fn a_project_stays_reachable_when_its_root_is_no_longer_configured() {
    let mut config = config();
    config.project_roots.clear();
    let policy = crate::Policy::new(config).unwrap();
    let ask = |source: &str| {
        let asked = TransferFiles {
            session: SESSION,
            direction: TransferDirection::ToContainer,
            source: source.into(),
            destination: "/tmp/x".into(),
        };
        policy
            .admit_transfer(&alice(), &asked, Some(OWNER), Path::new(PROJECT))
            .map(drop)
    };
    assert_eq!(ask("/srv/code/app/x"), Ok(()));
    refused_as(
        ask("/srv/code/other"),
        Reason::PathNotAllowed,
        "sourcePath",
        "beside the project",
    );
}

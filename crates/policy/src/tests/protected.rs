//! Protected paths: the plan, the match, and agreement of the data with the issue it serves.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use model::Protection;

use crate::{EntryKind, ProtectedPaths, RuleKind};

fn paths() -> ProtectedPaths {
    ProtectedPaths::load().unwrap()
}

fn plan(existing: &[(&str, EntryKind)]) -> Vec<String> {
    let existing: BTreeMap<_, _> = existing
        .iter()
        .map(|(path, kind)| (PathBuf::from(path), *kind))
        .collect();
    let shown = |protection| match protection {
        Protection::Pinned => "pinned",
        Protection::ReadOnly => "read-only",
        Protection::Masked { directory: true } => "masked directory",
        Protection::Masked { directory: false } => "masked file",
    };
    let plan = paths().plan(&existing);
    plan.iter()
        .map(|path| format!("{} {}", path.relative.display(), shown(path.protection)))
        .collect()
}

#[test]
fn every_name_matches_at_any_depth_and_in_any_guise() {
    let paths = paths();
    #[rustfmt::skip]
    let table = [
        // exact, nested, below
        (".git/hooks", true), (".git/hooks/pre-commit", true), ("a/.git/hooks/x", true), ("a/b/c/.git/config", true),
        (".git/config", true), (".git/commondir", true), (".git/modules/x/config", true), (".git/worktrees/x/commondir", true),
        (".envrc", true), ("a/.envrc", true), (".vscode/tasks.json", true), ("a/.idea/workspace.xml", true), (".claude", true),
        (".claude/hooks/x.sh", true), (".mcp.json", true), ("a/.mcp.json", true), (".husky/pre-commit", true), (".gitmodules", true),
        (".devcontainer/devcontainer.json", true), ("mise.toml", true),
        // other file systems' idea of the same name
        (".GIT/hooks", true), (".Git/Config", true), (".ENVRC", true), (".VSCode/settings.json", true), (".mcp.JSON", true),
        (".g\u{200c}it/hooks", true), (".git\u{feff}/config", true), (".git./hooks", true), (".git /config", true), (".envrc...", true),
        (".git::$INDEX_ALLOCATION/hooks", true), ("git~1/hooks", true), ("GIT~1/config", true), (".git/hooks:stream", true),
        // dirty spelling of a clean path
        ("./.envrc", true), ("a//.git/./hooks", true),
        // harmless neighbours
        (".git", false), ("a/.git", false), (".git/HEAD", false), (".git/index", false), (".git/objects/aa/bb", false),
        (".git/refs/heads/hooks", false), (".git/info/exclude", false), ("hooks/pre-commit", false), ("config", false),
        ("git/hooks", false), (".gitx/hooks", false), (".git/hooksx", false), (".envrc.example", false), ("envrc", false),
        (".vscodeignore", false), ("src/vscode/tasks.json", false), (".gitignore", false), ("claude/settings.json", false), ("", false),
        // fullwidth letters are other names on every file system
        (".ｇｉｔ/hooks", false),
        // package directories: editors' settings are noise there, git and direnv are not
        ("node_modules/x/.vscode/tasks.json", false), ("a/node_modules/x/y/.husky/h", false), ("vendor/x/.idea/x", false),
        ("node_modules/x/.git/hooks/h", true), ("node_modules/x/.envrc", true), ("a/.vscode/node_modules/x", true),
        ("node_modulesx/.vscode/t", true), ("NODE_MODULES/x/.vscode/t", true),
    ];
    for (path, protected) in table {
        assert_eq!(
            paths.matches(Path::new(path)).is_some(),
            protected,
            "{path}"
        );
    }
}

#[test]
fn a_dot_git_that_is_no_directory_is_protected() {
    let paths = paths();
    for path in [".git", "a/.git", ".GIT", "git~1"] {
        let matches = |kind| {
            paths
                .matches_entry(Path::new(path), kind)
                .map(|rule| rule.kind())
        };
        assert_eq!(matches(EntryKind::File), Some(RuleKind::GitLink), "{path}");
        assert_eq!(matches(EntryKind::Other), Some(RuleKind::GitLink), "{path}");
        assert_eq!(matches(EntryKind::Directory), None, "{path}");
    }
    assert!(
        paths
            .matches_entry(Path::new(".git/config"), EntryKind::File)
            .is_some()
    );
    assert!(
        paths
            .matches_entry(Path::new(".git/HEAD"), EntryKind::File)
            .is_none()
    );
}

#[test]
fn handing_out_or_writing_the_inside_of_a_repository_is_touching_it() {
    let paths = paths();
    for path in [
        ".git",
        ".git/HEAD",
        "a/.git/objects",
        ".claude",
        "x/.vscode/y",
    ] {
        assert!(paths.touches(Path::new(path)).is_some(), "{path}");
    }
    for path in ["", "src", "x.git", "x.git/hooks"] {
        assert!(paths.touches(Path::new(path)).is_none(), "{path}");
    }
}

#[test]
fn an_empty_project_gets_placeholders_at_its_top_only() {
    insta::assert_snapshot!(plan(&[]).join("\n"), @r"
    .claude masked directory
    .codex masked directory
    .cursor masked directory
    .devcontainer masked directory
    .envrc masked file
    .gemini masked directory
    .gitmodules masked file
    .husky masked directory
    .idea masked directory
    .mcp.json masked file
    .vscode masked directory
    .zed masked directory
    ");
}

#[test]
fn a_repository_is_pinned_its_parts_are_read_only_or_masked() {
    use EntryKind::{Directory, File};
    let existing = [
        (".git", Directory),
        (".git/hooks", Directory),
        (".git/config", File),
        (".git/modules", Directory),
        (".envrc", File),
        (".claude", Directory),
        (".vscode", File),
        (".pre-commit-config.yaml", File),
    ];
    insta::assert_snapshot!(plan(&existing).join("\n"), @r"
    .git pinned
    .claude read-only
    .codex masked directory
    .cursor masked directory
    .devcontainer masked directory
    .envrc read-only
    .gemini masked directory
    .git/config read-only
    .git/config.worktree masked file
    .git/hooks read-only
    .git/modules read-only
    .git/worktrees masked directory
    .gitmodules masked file
    .husky masked directory
    .idea masked directory
    .mcp.json masked file
    .pre-commit-config.yaml read-only
    .vscode read-only
    .zed masked directory
    ");
}

#[test]
fn nothing_is_planned_below_a_dot_git_that_is_a_file() {
    let plan = plan(&[(".git", EntryKind::File)]);
    assert!(plan.contains(&".git read-only".to_owned()), "{plan:?}");
    assert!(
        !plan.iter().any(|line| line.starts_with(".git/")),
        "{plan:?}"
    );
}

#[test]
fn parents_come_before_children_and_nothing_is_planned_twice() {
    let paths = paths();
    let existing = |kind| {
        paths
            .candidates()
            .iter()
            .map(|path| (path.clone(), kind))
            .collect::<BTreeMap<_, _>>()
    };
    for kind in [EntryKind::Missing, EntryKind::File, EntryKind::Directory] {
        let plan = paths.plan(&existing(kind));
        for (index, path) in plan.iter().enumerate() {
            assert!(
                plan[..index]
                    .iter()
                    .all(|before| before.relative != path.relative),
                "{path:?}"
            );
            assert!(
                plan[..index]
                    .iter()
                    .all(|before| !before.relative.starts_with(&path.relative)),
                "{path:?}"
            );
            let parent = path.relative.parent().unwrap();
            let pinned = plan[..index]
                .iter()
                .any(|before| before.relative == parent && before.protection == Protection::Pinned);
            assert!(parent.as_os_str().is_empty() || pinned, "{path:?}");
        }
    }
}

#[test]
fn a_plan_without_what_is_gone_is_the_plan_that_never_saw_it() {
    let paths = paths();
    let with = |files: &[&str]| {
        let directory = (PathBuf::from(".git"), EntryKind::Directory);
        let files = files
            .iter()
            .map(|file| (PathBuf::from(file), EntryKind::File));
        paths.plan(&files.chain([directory]).collect())
    };
    let before = with(&[".envrc", "mise.toml", ".mcp.json", ".git/config"]);
    let gone = [".envrc", "mise.toml", ".git/config"].map(PathBuf::from);
    let after = paths.plan_without(&before, &gone.into());
    assert_eq!(after, with(&[".mcp.json"]));
    assert_ne!(after, before);
}

#[test]
fn links_and_special_files_at_protected_paths_are_told() {
    let paths = paths();
    for odd in [".git", ".git/hooks", ".envrc", ".claude"] {
        let existing = BTreeMap::from([(PathBuf::from(odd), EntryKind::Other)]);
        assert_eq!(paths.unpinnable(&existing), Some(Path::new(odd)));
    }
    let fine = BTreeMap::from([
        (PathBuf::from(".envrc"), EntryKind::File),
        (PathBuf::from("src"), EntryKind::Other),
    ]);
    assert_eq!(paths.unpinnable(&fine), None);
}

#[test]
fn a_destination_on_the_way_to_a_protected_path_refuses_the_rest_of_it() {
    let refuse = |destination: &str| paths().refuse_patterns(Path::new(destination));
    for destination in [".git", "a/b/.git", ".GIT", "GIT~1"] {
        assert!(
            refuse(destination).contains(&"hooks".to_owned()),
            "{destination}"
        );
    }
    for destination in ["", "a", ".gitx"] {
        assert!(
            !refuse(destination).contains(&"hooks".to_owned()),
            "{destination}"
        );
    }
}

#[test]
fn what_the_issue_names_is_protected_and_masked() {
    let paths = paths();
    #[rustfmt::skip]
    let named = [".git/hooks", ".git/config", ".gitmodules", ".envrc", ".vscode", ".idea", ".claude", ".mcp.json", ".husky"];
    let existing = BTreeMap::from([(PathBuf::from(".git"), EntryKind::Directory)]);
    let plan = paths.plan(&existing);
    for name in named {
        let masked = |path: &model::ProtectedPath| {
            path.relative == Path::new(name) && matches!(path.protection, Protection::Masked { .. })
        };
        assert!(plan.iter().any(masked), "{name}");
    }
}

//! New sessions: what a permit holds, and why one is refused.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use model::{
    BackendName, BindMount, CreateSession, LimitName, LimitRequest, MountRequest, Principal,
    Protection, Reason, Refusal, Requirement, Secret,
};

use super::fixture::*;
use crate::{CreateFacts, CreateParts, EntryKind, PathFacts, Policy, PolicyConfig};

fn admit(
    change: impl FnOnce(&mut CreateSession, &mut CreateFacts),
) -> Result<CreateParts, Refusal> {
    admit_with(config(), change)
}

fn admit_with(
    config: PolicyConfig,
    change: impl FnOnce(&mut CreateSession, &mut CreateFacts),
) -> Result<CreateParts, Refusal> {
    let policy = Policy::new(config).unwrap();
    let (mut asked, mut facts) = (create(PROJECT), facts(&policy, PROJECT, &[]));
    change(&mut asked, &mut facts);
    policy
        .admit_create(&alice(), &asked, facts)
        .map(|permit| permit.into_parts())
}

/// Adds a mount whose host path is what it says it is.
fn add(
    asked: &mut CreateSession,
    facts: &mut CreateFacts,
    host: &str,
    container: &str,
    read_only: bool,
) {
    asked.mounts.push(MountRequest {
        host_path: host.into(),
        container_path: container.into(),
        read_only,
    });
    facts.mounts.push(PathFacts::Directory(directory(host)));
}

#[test]
fn a_permit_holds_everything_that_a_sandbox_is_made_of() {
    let parts = admit(|asked, facts| {
        asked.name = Some("fix".into());
        asked.ttl = Some(Duration::from_secs(600));
        asked.env.insert("A".into(), Secret::new("b".into()));
        asked.limits.push(LimitRequest {
            limit: LimitName::Pids,
            value: 64,
        });
        add(asked, facts, "/srv/code/data", "/data", false);
        facts.existing.insert(".git".into(), EntryKind::Directory);
        facts.existing.insert(".git/config".into(), EntryKind::File);
    })
    .unwrap();
    assert_eq!(parts.owner, OWNER);
    assert_eq!(parts.name.as_deref(), Some("fix"));
    assert_eq!(parts.backend, BackendName::Native);
    assert_eq!(parts.workspace, directory(PROJECT));
    assert_eq!(
        parts.mounts,
        [BindMount {
            source: directory("/srv/code/data"),
            target: "/data".into(),
            read_only: false
        }]
    );
    assert_eq!(
        (parts.limits.pids.value, parts.limits.pids.named),
        (64, true)
    );
    assert!(!parts.limits.memory_bytes.named);
    assert_eq!(
        (parts.ttl, parts.idle),
        (Duration::from_secs(600), Duration::from_secs(600)),
        "idle never exceeds the lifetime"
    );
    assert_eq!(parts.lease, Duration::from_secs(60));
    assert_eq!(
        parts.env.get("A").map(Secret::expose).map(String::as_str),
        Some("b")
    );
    assert_eq!(parts.bounds.sessions, 10);
    assert!(!parts.accept_soft_limits && !parts.allow_protected_changes);
    assert!(
        parts
            .layers
            .iter()
            .any(|(layer, how)| *layer == model::Layer::Seccomp && *how == Requirement::Required)
    );
    let protection = |path: &str| {
        parts
            .protected
            .iter()
            .find(|found| found.relative == Path::new(path))
            .map(|found| found.protection)
    };
    assert_eq!(protection(".git"), Some(Protection::Pinned));
    assert_eq!(protection(".git/config"), Some(Protection::ReadOnly));
    assert_eq!(
        protection(".git/hooks"),
        Some(Protection::Masked { directory: true })
    );
}

#[test]
fn lifetimes_are_cut_at_the_maximum() {
    let parts = admit(|asked, _| {
        asked.ttl = Some(Duration::MAX);
        asked.idle = Some(Duration::MAX);
    })
    .unwrap();
    assert_eq!(
        (parts.ttl, parts.idle),
        (Duration::from_secs(86_400), Duration::from_secs(86_400))
    );
    refused_as(
        admit(|asked, _| asked.ttl = Some(Duration::ZERO)),
        Reason::InvalidArgument,
        "ttlSeconds",
        "zero",
    );
    refused_as(
        admit(|asked, _| asked.idle = Some(Duration::ZERO)),
        Reason::InvalidArgument,
        "idleSeconds",
        "zero",
    );
}

#[test]
fn a_path_outside_the_roots_names_the_option_to_set_and_a_forbidden_one_does_not() {
    for (outside, helps) in [("/srv/other", true), ("/", false), (HOME, false)] {
        let result = admit(|asked, facts| {
            asked.project_path = outside.into();
            facts.project = PathFacts::Directory(directory(outside));
        });
        let refusal = refused(result, outside);
        for option in ["CLAUDE_CODE_MCP_PROJECT_ROOTS", "project_roots = [...]"] {
            assert_eq!(refusal.hint.contains(option), helps, "{refusal:?}");
        }
        assert_eq!(refusal.field.as_deref(), Some("projectPath"));
    }
}

#[test]
fn what_is_not_there_is_told_only_below_a_root() {
    let ask = |path: &str, found: PathFacts| {
        admit(|asked, facts| {
            asked.project_path = path.into();
            facts.project = found;
        })
    };
    let table = [
        (PathFacts::Missing, Reason::PathNotFound),
        (PathFacts::NotDirectory, Reason::PathForbidden),
        (PathFacts::Unreadable, Reason::PathForbidden),
    ];
    let outside: Vec<_> = table
        .iter()
        .map(|(found, _)| refused(ask("/srv/other/x", found.clone()), "outside"))
        .collect();
    assert!(
        outside
            .iter()
            .all(|refusal| *refusal == outside[0] && refusal.reason == Reason::PathNotAllowed),
        "{outside:?}"
    );
    for (found, reason) in table {
        refused_as(
            ask("/srv/code/x", found.clone()),
            reason,
            "projectPath",
            &format!("{found:?}"),
        );
    }
}

#[test]
fn without_root_only_the_users_own_directories_are_written() {
    let owned_by = |uid: u32, server_uid: u32| {
        let mut config = config();
        config.server_uid = server_uid;
        let policy = Policy::new(config).unwrap();
        let mut facts = facts(&policy, PROJECT, &[]);
        let mut project = directory(PROJECT);
        project.uid = uid;
        facts.project = PathFacts::Directory(project);
        let who = Principal::LocalUser {
            uid: server_uid,
            roots: Vec::new(),
        };
        policy.admit_create(&who, &create(PROJECT), facts).map(drop)
    };
    assert_eq!(owned_by(UID, UID), Ok(()));
    for uid in [0, 1000, 1234] {
        assert_eq!(owned_by(uid, 0), Ok(()), "root maps every owner");
    }
    for uid in [0, 1234] {
        refused_as(
            owned_by(uid, UID),
            Reason::WorkspaceNotMappable,
            "projectPath",
            &uid.to_string(),
        );
    }
}

#[test]
fn foreign_mounts_are_read_only_or_refused() {
    let mount = |read_only| {
        admit(|asked, facts| {
            add(asked, facts, "/srv/code/shared", "/data", read_only);
            let mut shared = directory("/srv/code/shared");
            shared.uid = 0;
            facts.mounts = vec![PathFacts::Directory(shared)];
        })
    };
    assert!(mount(true).is_ok());
    refused_as(
        mount(false),
        Reason::WorkspaceNotMappable,
        "mcpMounts[0].hostPath",
        "writable",
    );
}

#[test]
fn no_mount_leads_round_the_protected_paths() {
    let mount = |host: &str, read_only| {
        admit(|asked, facts| add(asked, facts, host, "/data", read_only)).map(drop)
    };
    for host in [
        "/srv/code/app/.git",
        "/srv/code/app/.git/hooks",
        "/srv/code/app",
        "/srv/code/app/src",
        "/srv/code",
        "/srv/code/b/.vscode",
        "/srv/code/b/.git/objects",
    ] {
        refused_as(
            mount(host, false),
            Reason::PathProtected,
            "mcpMounts[0].hostPath",
            host,
        );
        assert_eq!(mount(host, true), Ok(()), "reading {host} is no danger");
    }
    assert_eq!(mount("/srv/code/app2", false), Ok(()));
}

#[test]
fn a_protected_directory_is_no_project() {
    let ask = |path: &str, roots: &[&str]| {
        let policy = policy();
        let who = Principal::LocalUser {
            uid: UID,
            roots: roots.iter().map(PathBuf::from).collect(),
        };
        policy
            .admit_create(&who, &create(path), facts(&policy, path, &[]))
            .map(drop)
    };
    for path in [
        "/srv/code/app/.git",
        "/srv/code/app/.git/hooks",
        "/srv/code/app/.claude",
        "/srv/code/app/.GIT/refs",
        "/srv/code/a/.husky",
    ] {
        refused_as(ask(path, &[]), Reason::PathProtected, "projectPath", path);
    }
    // A person who starts the client there has chosen it (Claude Code keeps its worktrees there), except inside `.git`.
    let worktree = "/srv/code/app/.claude/worktrees/x";
    refused_as(
        ask(worktree, &[]),
        Reason::PathProtected,
        "projectPath",
        worktree,
    );
    assert_eq!(ask(worktree, &[worktree]), Ok(()));
    refused_as(
        ask("/srv/code/app/.git", &["/srv/code/app/.git"]),
        Reason::PathProtected,
        "projectPath",
        "started in .git",
    );
}

#[test]
fn mounts_are_apart_and_few() {
    let targets = |targets: &[&str]| {
        admit(|asked, facts| {
            for (index, target) in targets.iter().enumerate() {
                add(asked, facts, &format!("/srv/code/m{index}"), target, true);
            }
        })
        .map(drop)
    };
    assert_eq!(targets(&["/data", "/data2", "/mnt/a", "/mnt/b"]), Ok(()));
    for clash in [
        ["/data", "/data"],
        ["/data", "/data/x"],
        ["/data/x", "/data"],
        ["/data", "//data/"],
    ] {
        refused_as(
            targets(&clash),
            Reason::InvalidArgument,
            "mcpMounts[1].containerPath",
            &format!("{clash:?}"),
        );
    }
    let many: Vec<_> = (0..=crate::MAX_MOUNTS)
        .map(|index| format!("/m{index}"))
        .collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(targets(&many[1..]), Ok(()));
    refused_as(
        targets(&many),
        Reason::TooLarge,
        "mcpMounts",
        "one too many",
    );
}

#[test]
fn the_operators_mounts_come_first_and_callers_stay_off_them() {
    let mut config = config();
    let tools = BindMount {
        source: directory("/home/alice/.cargo/bin"),
        target: "/home/alice/.cargo/bin".into(),
        read_only: true,
    };
    config.operator_mounts.push(tools.clone());
    let mount = |target: &str| {
        admit_with(config.clone(), |asked, facts| {
            add(asked, facts, "/srv/code/data", target, true)
        })
    };
    assert_eq!(mount("/data").unwrap().mounts[0], tools);
    for clash in [
        "/home/alice",
        "/home/alice/.cargo/bin",
        "/home/alice/.cargo/bin/x",
    ] {
        refused_as(
            mount(clash),
            Reason::InvalidArgument,
            "mcpMounts[0].containerPath",
            clash,
        );
    }
}

#[test]
fn facts_that_were_not_looked_up_refuse_the_session() {
    let internal =
        |change: fn(&mut CreateSession, &mut CreateFacts)| admit(change).unwrap_err().reason;
    assert_eq!(
        internal(|_, facts| facts
            .existing
            .retain(|path, _| path != Path::new(".git/hooks"))),
        Reason::Internal
    );
    assert_eq!(
        internal(|_, facts| facts.existing.clear()),
        Reason::Internal
    );
    assert_eq!(
        internal(|_, facts| facts.mounts.push(PathFacts::Missing)),
        Reason::Internal
    );
    let mount = MountRequest {
        host_path: "/srv/code/x".into(),
        container_path: "/data".into(),
        read_only: true,
    };
    assert_eq!(
        admit(|asked, _| asked.mounts.push(mount))
            .unwrap_err()
            .reason,
        Reason::Internal
    );
}

#[test]
fn a_protected_path_that_is_a_link_refuses_the_session() {
    for odd in [".git", ".git/config", ".claude"] {
        let result = admit(|_, facts| facts.existing.extend([(odd.into(), EntryKind::Other)]));
        let refusal = refused_as(result, Reason::PathUnsafe, "projectPath", odd);
        assert!(refusal.message.contains(odd));
    }
}

#[test]
fn another_backend_is_not_here() {
    assert!(admit(|asked, _| asked.backend = Some(BackendName::Native)).is_ok());
    refused_as(
        admit(|asked, _| asked.backend = Some(BackendName::Fake)),
        Reason::BackendUnavailable,
        "backend",
        "fake",
    );
}

#[test]
fn credentials_stay_forbidden_below_a_root_that_holds_another_users_home() {
    let mut config = config();
    config.project_roots = vec!["/home/bob".into()];
    let policy = Policy::new(config).unwrap();
    let ask = |asked: &str, real: &str| {
        policy
            .admit_create(&alice(), &create(asked), facts(&policy, real, &[]))
            .map(drop)
    };
    assert_eq!(ask("/home/bob/project", "/home/bob/project"), Ok(()));
    for (asked, real) in [
        ("/home/bob/.ssh", "/home/bob/.ssh"),
        ("/home/bob/link", "/home/bob/.ssh"),
    ] {
        refused_as(
            ask(asked, real),
            Reason::PathForbidden,
            "projectPath",
            asked,
        );
    }
    let transfer = |source: &str| {
        let asked = model::TransferFiles {
            session: SESSION,
            direction: model::TransferDirection::ToContainer,
            source: source.into(),
            destination: "/tmp/x".into(),
        };
        policy
            .admit_transfer(
                &alice(),
                &asked,
                Some(OWNER),
                Path::new("/home/bob/project"),
            )
            .map(drop)
    };
    assert_eq!(transfer("/home/bob/project/x"), Ok(()));
    assert_eq!(transfer("/home/bob/x"), Ok(()));
    refused_as(
        transfer("/home/bob/.ssh/id_ed25519"),
        Reason::PathForbidden,
        "sourcePath",
        "a key",
    );
}

#[test]
fn a_forbidden_path_is_called_so_whether_it_exists_or_not() {
    for found in [
        PathFacts::Missing,
        PathFacts::NotDirectory,
        PathFacts::Unreadable,
    ] {
        let result = admit(|asked, facts| {
            asked.project_path = "/home/alice/.ssh".into();
            facts.project = found;
        });
        refused_as(result, Reason::PathForbidden, "projectPath", "keys");
    }
}

#[test]
fn keys_of_two_providers_or_of_one_that_is_not_asked_are_refused() {
    let key = || Some(Secret::new("key".to_owned()));
    let field = |change: &dyn Fn(&mut model::ProviderRequest)| {
        let refused = admit(|asked, _| change(&mut asked.agent.provider));
        refused.err().and_then(|refusal| refusal.field)
    };
    let aws = |asked: &mut model::ProviderRequest| {
        (asked.aws_access_key_id, asked.aws_secret_access_key) = (key(), key());
    };
    assert_eq!(field(&aws), None);
    let with = |more: fn(&mut model::ProviderRequest)| {
        field(&|asked| {
            aws(asked);
            more(asked);
        })
    };
    assert_eq!(with(|asked| asked.use_bedrock = Some(true)), None);
    let due = |name: &str| Some(name.to_owned());
    let not_asked = with(|asked| asked.use_bedrock = Some(false));
    assert_eq!(not_asked, due("awsAccessKeyId"));
    let two = with(|asked| asked.api_key = Some(Secret::new("key".to_owned())));
    assert_eq!(two, due("apiKey"));
    let half = field(&|asked| asked.aws_session_token = key());
    assert_eq!(half, due("awsSessionToken"));
}

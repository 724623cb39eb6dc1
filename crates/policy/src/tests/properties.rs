//! For any input: no permit outside the roots, no limit weaker than the profile, no protected name unseen.

use std::{
    path::{Component, Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use model::{CommandLine, LimitName, LimitRequest, MountRequest, TransferDirection, TransferFiles};
use proptest::prelude::*;

use super::fixture::*;
use crate::{PathFacts, Policy, ProtectedPaths, SessionTimes};

/// Parts that matter to some rule, and some that do not.
fn part() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "srv",
        "code",
        "app",
        "codex",
        "home",
        "alice",
        "work",
        "bob",
        "root",
        "etc",
        "proc",
        "run",
        "var",
        "lib",
        "docker",
        ".ssh",
        ".config",
        "gcloud",
        ".local",
        "state",
        "claude-code-mcp",
        ".git",
        ".GIT",
        "hooks",
        "config",
        ".claude",
        ".envrc",
        "..",
        ".",
        "",
        "tmp",
        "usr",
        "bin",
        "workspace",
        "agent",
        "data",
        "~",
        "node_modules",
    ]);
    prop_oneof![9 => known.prop_map(str::to_owned), 1 => "\\PC{0,6}", 1 => any::<char>().prop_map(String::from)]
}

fn path() -> impl Strategy<Value = String> {
    let parts = prop::collection::vec(part(), 0..6);
    let start = prop::sample::select(vec![
        "/",
        "/",
        "",
        "/srv/code/",
        "/srv/code/app/",
        "/home/alice/work/",
        "/home/alice/",
        "/workspace/",
        "/tmp/",
    ]);
    (start, parts).prop_map(|(start, parts)| format!("{start}{}", parts.join("/")))
}

/// An oracle of its own: below a root by text, and none of the places that must never be given away.
fn acceptable(path: &Path) -> bool {
    let below_a_root = [OPERATOR_ROOT, CLIENT_ROOT]
        .iter()
        .any(|root| path.starts_with(root));
    below_a_root && clean(path)
}

fn clean(path: &Path) -> bool {
    let text = path.to_str().unwrap_or_default();
    let tidy = !text.contains("//")
        && (text == "/" || !text.ends_with('/'))
        && !text.contains(|letter: char| letter.is_control());
    path.is_absolute()
        && tidy
        && path
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

fn in_git(path: &Path) -> bool {
    path.iter().any(|part| part.eq_ignore_ascii_case(".git"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_permit_leaves_the_roots(project in path(), real in path(), mounts in prop::collection::vec((path(), path(), path(), any::<bool>()), 0..3)) {
        let policy = policy();
        let mut asked = create(&project);
        let mut facts = facts(&policy, &real, &[]);
        for (host, real, target, read_only) in &mounts {
            asked.mounts.push(MountRequest { host_path: host.into(), container_path: target.into(), read_only: *read_only });
            facts.mounts.push(PathFacts::Directory(directory(real)));
        }
        if let Ok(permit) = policy.admit_create(&alice(), &asked, facts) {
            let parts = permit.into_parts();
            prop_assert!(acceptable(&parts.workspace.path) && !in_git(&parts.workspace.path), "{:?}", parts.workspace);
            for (index, mount) in parts.mounts.iter().enumerate() {
                prop_assert!(acceptable(&mount.source.path), "{mount:?}");
                prop_assert!(mount.read_only || !in_git(&mount.source.path), "{mount:?}");
                prop_assert!(clean(&mount.target) && mount.target != Path::new("/"), "{mount:?}");
                prop_assert!(!["/workspace", "/state", "/tmp", "/usr", "/etc", "/proc", "/run", "/home/agent"].iter().any(|own| mount.target.starts_with(own)), "{mount:?}");
                for other in &parts.mounts[..index] {
                    prop_assert!(!other.target.starts_with(&mount.target) && !mount.target.starts_with(&other.target));
                }
            }
        }
    }

    #[test]
    fn a_clean_project_below_a_root_is_admitted(parts in prop::collection::vec("[a-z]{1,8}", 0..4)) {
        let policy = policy();
        let project = parts.iter().fold(PathBuf::from(OPERATOR_ROOT), |path, part| path.join(part));
        prop_assert!(policy.admit_create(&alice(), &create(&project), facts(&policy, &project, &[])).is_ok());
    }

    #[test]
    fn no_transfer_leaves_its_trees_or_writes_protected_paths(source in path(), destination in path(), inwards: bool) {
        let policy = policy();
        let direction = if inwards { TransferDirection::ToContainer } else { TransferDirection::FromContainer };
        let asked = TransferFiles { session: SESSION, direction, source: source.into(), destination: destination.into() };
        if let Ok(permit) = policy.admit_transfer(&alice(), &asked, Some(OWNER), Path::new(PROJECT)) {
            let parts = permit.into_parts();
            prop_assert!(parts.host_relative.components().all(|part| matches!(part, Component::Normal(_))), "{parts:?}");
            prop_assert!(acceptable(&parts.host_root.join(&parts.host_relative).components().collect::<PathBuf>()), "{parts:?}");
            prop_assert!(clean(&parts.container), "{parts:?}");
            prop_assert!(["/workspace", "/state", "/tmp", "/home/agent"].iter().any(|tree| parts.container.starts_with(tree)), "{parts:?}");
            let written = if inwards { parts.container.strip_prefix("/workspace").ok() } else { Some(parts.host_relative.as_path()) };
            if let Some(written) = written {
                prop_assert!(policy.protected().matches(written).is_none() && !in_git(written), "{parts:?}");
                prop_assert!(parts.refuse.iter().any(|pattern| pattern == "**/.git/hooks"));
            }
        }
    }

    #[test]
    fn effective_limits_are_never_weaker_than_the_profile(requests in prop::collection::vec((0..7_usize, prop_oneof![any::<u64>(), 0..5000_u64, (0..64_u32).prop_map(|bits| 1 << bits)]), 0..8)) {
        let policy = policy();
        let profile = config().limits;
        let mut asked = create(PROJECT);
        asked.limits = requests.iter().map(|(index, value)| LimitRequest { limit: LimitName::ALL[*index], value: *value }).collect();
        match policy.admit_create(&alice(), &asked, facts(&policy, PROJECT, &[])) {
            Ok(permit) => {
                let limits = permit.into_parts().limits;
                for name in LimitName::ALL {
                    let (limit, profile) = (limits.get(name), profile.get(name));
                    let wanted = asked.limits.iter().find(|request| request.limit == name);
                    prop_assert!(limit.value <= profile.value && limit.value > 0);
                    prop_assert_eq!(limit.named, wanted.is_some());
                    prop_assert_eq!(limit.value, wanted.map_or(profile.value, |request| request.value), "taken as asked or refused, never bent");
                }
            }
            Err(refusal) => {
                let within = |request: &LimitRequest| request.value <= profile.get(request.limit).value && request.value >= 16 << 20;
                let memory_only = asked.limits.len() == 1 && asked.limits[0].limit == LimitName::MemoryBytes;
                prop_assert!(!(memory_only && within(&asked.limits[0])), "{refusal:?}");
            }
        }
    }

    #[test]
    fn an_extension_stays_between_the_old_end_and_the_maximum(created in 0..1_000_000_u64, lives in 1..200_000_u64, age in 0..200_000_u64, by: u64) {
        let policy = policy();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let times = SessionTimes { created_at: at(created), expires_at: at(created + lives), now: at(created + age) };
        if let Ok(permit) = policy.admit_extend(&alice(), SESSION, Some(OWNER), Duration::from_secs(by), times) {
            prop_assert!(permit.expires_at() > times.expires_at);
            prop_assert!(permit.expires_at() <= times.created_at + config().max_ttl);
            prop_assert!(times.now < times.expires_at);
        }
    }

    #[test]
    fn any_command_is_bounded_or_refused(argv in prop::collection::vec(any::<String>(), 0..6), cwd in prop::option::of(path()), timeout in prop::option::of(any::<u64>())) {
        let mut asked = command(CommandLine::Argv(argv));
        asked.cwd = cwd.map(PathBuf::from);
        asked.timeout = timeout.map(Duration::from_secs);
        if let Ok(permit) = policy().admit_command(&alice(), &asked, Some(OWNER)) {
            let parts = permit.into_parts();
            prop_assert!(clean(&parts.cwd), "{:?}", parts.cwd);
            prop_assert!(parts.deadline <= config().max_execution_timeout && !parts.deadline.is_zero());
            let CommandLine::Argv(argv) = parts.command else { return Err(TestCaseError::fail("another command")) };
            prop_assert!(!argv.is_empty() && argv.iter().all(|argument| !argument.contains('\0')));
        }
    }

    #[test]
    fn a_protected_name_is_seen_at_any_depth_and_in_any_case(before in prop::collection::vec("[a-z]{1,6}", 0..4), after in prop::collection::vec("\\PC{1,6}", 0..3), rule: prop::sample::Index, upper: u64) {
        let paths: &ProtectedPaths = &ProtectedPaths::load().unwrap();
        let rule = rule.get(paths.rules());
        prop_assume!(rule.kind() != crate::RuleKind::GitLink && !before.iter().any(|part| part == "vendor"));
        let text: String = rule.path().to_str().unwrap().chars().enumerate()
            .map(|(index, letter)| if upper >> (index % 64) & 1 == 1 { letter.to_ascii_uppercase() } else { letter })
            .collect();
        let path = before.iter().fold(PathBuf::new(), |path, part| path.join(part)).join(text);
        prop_assert!(paths.matches(&path).is_some(), "{path:?}");
        prop_assert!(paths.matches(&after.iter().fold(path.clone(), |path, part| path.join(part.replace('/', "-")))).is_some());
    }

    #[test]
    fn no_text_makes_a_decision_panic(text in any::<String>(), bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        use std::os::unix::ffi::OsStrExt;
        let policy: Policy = policy();
        let raw = Path::new(std::ffi::OsStr::from_bytes(&bytes));
        for path in [Path::new(&text), raw] {
            let _ = policy.admit_create(&alice(), &create(path), facts(&policy, path, &[])).map(drop);
            let _ = policy.protected().matches(path);
            let _ = policy.protected().refuse_patterns(path);
        }
    }
}

/// P2a: whoever asks and whatever, no permit for a session of somebody else, but to look at it and to end it with `admin`.
mod ownership {
    use super::*;
    use crate::{ExecutionVerb, SessionVerb};
    use model::{AnsweredBy, ExecutionId, Principal, Scope, Scopes};

    fn principal() -> impl Strategy<Value = Principal> {
        prop_oneof![
            (0..3_u32).prop_map(|uid| Principal::LocalUser {
                uid: UID + uid,
                roots: Vec::new()
            }),
            (0..32_u8, "[a-c]").prop_map(|(bits, name)| {
                let scopes = Scope::ALL.into_iter().enumerate();
                let scopes = scopes.filter(|(index, _)| bits & (1 << index) != 0);
                let scopes: Scopes = scopes.map(|(_, scope)| scope).collect();
                let mut who = remote(scopes);
                if let Principal::Remote(caller) = &mut who {
                    caller.name = format!("key:{name}");
                }
                who
            }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn nobody_gets_a_permit_for_a_foreign_session(
            who in principal(),
            owner in prop::option::of(prop_oneof!["key:[a-c]", "uid:100[0-2]", "oauth:[a-c]", "system"]),
        ) {
            static POLICY: std::sync::LazyLock<Policy> = std::sync::LazyLock::new(policy);
            let policy = &*POLICY;
            let owner = owner.as_deref();
            let is_own = owner == Some(who.name().as_str());
            let is_admin = who.remote().is_some_and(|caller| caller.scopes.contains(Scope::Admin));
            for verb in [SessionVerb::Read, SessionVerb::Logs, SessionVerb::Transcript, SessionVerb::Destroy] {
                let admitted = policy.admit_session(&who, verb, SESSION, owner).is_ok();
                let over = is_admin && matches!(verb, SessionVerb::Read | SessionVerb::Destroy);
                prop_assert!(!admitted || owner.is_some() && (is_own || over), "{:?} {:?} {:?}", who, verb, owner);
            }
            let execution = ExecutionId::from_bytes([1; 16]);
            for verb in [
                ExecutionVerb::Read, ExecutionVerb::Cancel, ExecutionVerb::Respond { bytes: 1 }, ExecutionVerb::Resize,
                ExecutionVerb::Answer(AnsweredBy::Person),
            ] {
                prop_assert!(is_own || policy.admit_execution(&who, verb, execution, owner).is_err());
            }
            prop_assert!(is_own || policy.admit_command(&who, &command(CommandLine::Shell("true".into())), owner).is_err());
            prop_assert!(is_own || policy.admit_prompt(&who, &prompt(), owner).is_err());
            match policy.admit_listing(&who) {
                Ok(permit) => prop_assert_eq!(permit.owner().is_none(), is_admin),
                Err(refusal) => prop_assert_eq!(refusal.reason, model::Reason::InsufficientScope),
            }
        }
    }
}

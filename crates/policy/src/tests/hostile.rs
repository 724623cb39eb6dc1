//! Hostile paths, targets and names: a category × encoding table, each with its positive control.

use std::path::{Path, PathBuf};

use model::{MountRequest, Principal, Reason, TransferDirection, TransferFiles};

use super::fixture::*;
use crate::{PathFacts, Policy};

/// Where no session may be, whatever it is called.
const CATEGORIES: [&str; 26] = [
    "/",
    "/home",
    HOME,
    STATE,
    "/home/alice/.local/state/claude-code-mcp/sessions/x",
    "/home/alice/.local/state",
    "/home/alice/.ssh",
    "/home/alice/.aws/sso",
    "/home/alice/.config",
    "/home/alice/.config/gcloud",
    "/home/alice/.claude/projects",
    "/home/alice/.netrc",
    "/home/bob/.gnupg",
    "/root",
    "/root/project",
    "/etc",
    "/etc/ssl/private",
    "/proc/self/root/srv/code/app",
    "/sys/fs/cgroup",
    "/dev/shm",
    "/run/user/1000",
    "/var/run/docker.sock",
    "/var/lib/docker/volumes",
    "/srv",
    "/srv/codex",
    "/srv/other/project",
];

type Encoding = (&'static str, fn(&str) -> String);

/// Ways to write a path that mean the same to the kernel.
const SAME: [Encoding; 5] = [
    ("as is", str::to_owned),
    ("trailing slash", |path| format!("{path}/")),
    ("doubled slashes", |path| path.replace('/', "//")),
    ("dots", |path| path.replace('/', "/./")),
    ("trailing dot", |path| format!("{path}/.")),
];

/// Ways to write a path that are never taken, whatever it names.
const NEVER: [Encoding; 16] = [
    ("dot dot from a root", |path| {
        format!("/srv/code/app/../../..{path}")
    }),
    ("dot dot at the end", |path| format!("{path}/x/..")),
    ("dot dot that stays", |path| {
        format!("{path}/../{}", path.rsplit('/').next().unwrap_or("x"))
    }),
    ("relative", |path| {
        path.trim_start_matches('/').to_owned() + "x"
    }),
    ("relative with dot", |path| format!(".{path}")),
    ("tilde", |path| format!("~{path}")),
    ("variable", |path| format!("$HOME{path}")),
    ("file URL", |path| format!("file://{path}")),
    ("NUL at the end", |path| format!("{path}\0")),
    ("NUL in the middle", |path| format!("/srv/code/app\0{path}")),
    ("line feed", |path| format!("{path}\n")),
    ("carriage return", |path| format!("{path}\r/x")),
    ("escape", |path| format!("{path}/\u{1b}[2J")),
    ("right to left", |path| format!("{path}/\u{202e}cod")),
    ("long name", |path| format!("{path}/{}", "a".repeat(256))),
    ("long path", |path| {
        format!("{path}{}", "/aaaaaaaaa".repeat(450))
    }),
];

fn mount(host: impl Into<PathBuf>, container: impl Into<PathBuf>) -> MountRequest {
    MountRequest {
        host_path: host.into(),
        container_path: container.into(),
        read_only: true,
    }
}

/// Asks for that path in every role that a host path has; everything exists, and the lookup resolved it to `real`.
fn ask(policy: &Policy, path: &str, real: &Path, check: impl Fn(Result<(), model::Refusal>, &str)) {
    let who = alice();
    let mut project_facts = facts(policy, real, &[]);
    check(
        policy
            .admit_create(&who, &create(path), project_facts.clone())
            .map(drop),
        "projectPath",
    );

    let mut with_mount = create(PROJECT);
    with_mount.mounts.push(mount(path, "/data"));
    project_facts.project = PathFacts::Directory(directory(PROJECT));
    project_facts
        .mounts
        .push(PathFacts::Directory(directory(real)));
    check(
        policy
            .admit_create(&who, &with_mount, project_facts)
            .map(drop),
        "mcpMounts[0].hostPath",
    );
}

fn transfer(
    policy: &Policy,
    direction: TransferDirection,
    host: &str,
    container: &str,
) -> Result<(), model::Refusal> {
    let (source, destination) = match direction {
        TransferDirection::ToContainer => (host.into(), container.into()),
        TransferDirection::FromContainer => (container.into(), host.into()),
    };
    let asked = TransferFiles {
        session: SESSION,
        direction,
        source,
        destination,
    };
    policy
        .admit_transfer(&alice(), &asked, Some(OWNER), Path::new(PROJECT))
        .map(drop)
}

#[test]
fn no_hostile_host_path_is_admitted_however_it_is_written() {
    let policy = policy();
    let mut tried = 0;
    for category in CATEGORIES {
        for (encoding, encode) in SAME.iter().chain(&NEVER) {
            let path = encode(category);
            let context = format!("{category}, {encoding}");
            ask(
                &policy,
                &path,
                &resolved(Path::new(&path)),
                |result, field| {
                    let refusal = refused(result, &context);
                    assert_eq!(refusal.field.as_deref(), Some(field), "{context}");
                },
            );
            for direction in [
                TransferDirection::ToContainer,
                TransferDirection::FromContainer,
            ] {
                refused(
                    transfer(&policy, direction, &path, "/workspace/x"),
                    &context,
                );
            }
            tried += 1;
        }
    }
    assert!(tried > 500, "{tried}");
}

#[test]
fn a_good_path_is_admitted_in_every_writing_that_means_the_same() {
    let policy = policy();
    for (encoding, encode) in SAME {
        for good in [
            PROJECT,
            "/srv/code",
            "/home/alice/work/x",
            "/srv/code/ünï cödé",
            "/srv/code/．．/x",
            "/srv/code/...",
            "/srv/code/~",
        ] {
            let path = encode(good);
            ask(&policy, &path, Path::new(good), |result, field| {
                assert_eq!(result, Ok(()), "{good}, {encoding}, {field}")
            });
            for direction in [
                TransferDirection::ToContainer,
                TransferDirection::FromContainer,
            ] {
                assert_eq!(
                    transfer(&policy, direction, &path, "/workspace/x"),
                    Ok(()),
                    "{good}, {encoding}"
                );
            }
        }
    }
}

#[test]
fn a_good_path_is_refused_in_every_writing_that_is_never_taken() {
    let policy = policy();
    for (encoding, encode) in NEVER {
        let path = encode(PROJECT);
        ask(&policy, &path, Path::new(PROJECT), |result, field| {
            refused_as(result, Reason::InvalidArgument, field, encoding);
        });
    }
}

#[test]
fn a_link_in_a_root_leads_nowhere_else() {
    let policy = policy();
    for real in CATEGORIES {
        ask(
            &policy,
            "/srv/code/link",
            Path::new(real),
            |result, field| {
                let refusal = refused(result, real);
                assert_eq!(refusal.field.as_deref(), Some(field));
                assert!(
                    real.len() < 3 || !refusal.message.contains(real),
                    "the target is not told: {refusal:?}"
                );
            },
        );
    }
    ask(
        &policy,
        "/srv/code/link",
        Path::new("/srv/code/real"),
        |result, _| assert_eq!(result, Ok(())),
    );
    for unresolved in ["/srv/code/../../etc", "/srv/code//x", "srv/code/x", ""] {
        ask(
            &policy,
            "/srv/code/link",
            Path::new(unresolved),
            |result, _| drop(refused(result, unresolved)),
        );
    }
}

#[test]
fn a_path_that_is_not_utf_8_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let policy = policy();
    let path = Path::new(std::ffi::OsStr::from_bytes(b"/srv/code/a\xff"));
    refused_as(
        policy.admit_create(&alice(), &create(path), facts(&policy, path, &[])),
        Reason::InvalidArgument,
        "projectPath",
        "bytes",
    );
}

#[test]
fn no_hostile_mount_target_is_admitted_however_it_is_written() {
    let targets = [
        "/",
        "/proc",
        "/proc/self",
        "/sys",
        "/dev",
        "/dev/shm",
        "/run",
        "/run/supervisor",
        "/var/run",
        "/etc",
        "/etc/passwd",
        "/usr",
        "/usr/local/bin",
        "/bin",
        "/sbin",
        "/lib",
        "/lib64",
        "/tmp",
        "/tmp/x",
        "/home",
        "/home/agent",
        "/home/agent/.ssh",
        "/state",
        "/state/x",
        "/workspace",
        "/workspace/src",
        "/var",
    ];
    let policy = policy();
    let ask = |target: &str| {
        let mut asked = create(PROJECT);
        asked.mounts.push(mount("/srv/code/data", target));
        policy
            .admit_create(
                &alice(),
                &asked,
                facts(&policy, PROJECT, &["/srv/code/data"]),
            )
            .map(drop)
    };
    for (encoding, encode) in SAME {
        for target in targets {
            let context = format!("{target}, {encoding}");
            refused_as(
                ask(&encode(target)),
                Reason::PathForbidden,
                "mcpMounts[0].containerPath",
                &context,
            );
        }
        assert_eq!(ask(&encode("/data")), Ok(()), "{encoding}");
    }
    for (encoding, encode) in NEVER {
        refused_as(
            ask(&encode("/data")),
            Reason::InvalidArgument,
            "mcpMounts[0].containerPath",
            encoding,
        );
    }
}

#[test]
fn no_hostile_path_inside_is_an_end_of_a_transfer() {
    let policy = policy();
    let outside = [
        "/",
        "/etc/passwd",
        "/proc/1/root",
        "/run/supervisor",
        "/workspaces",
        "/home",
        "/home/agentx",
        "/usr/bin",
        "/dev/shm/x",
    ];
    for direction in [
        TransferDirection::ToContainer,
        TransferDirection::FromContainer,
    ] {
        let field = if direction == TransferDirection::ToContainer {
            "destPath"
        } else {
            "sourcePath"
        };
        for (encoding, encode) in SAME {
            for path in outside {
                let result = transfer(&policy, direction, "/srv/code/app/x", &encode(path));
                refused_as(
                    result,
                    Reason::PathNotAllowed,
                    field,
                    &format!("{path}, {encoding}"),
                );
            }
            for path in [
                "/workspace",
                "/workspace/x",
                "/state/x",
                "/tmp/x",
                "/home/agent/x",
            ] {
                assert_eq!(
                    transfer(&policy, direction, "/srv/code/app/x", &encode(path)),
                    Ok(()),
                    "{path}, {encoding}"
                );
            }
        }
        for (encoding, encode) in NEVER {
            let result = transfer(
                &policy,
                direction,
                "/srv/code/app/x",
                &encode("/workspace/x"),
            );
            refused_as(result, Reason::InvalidArgument, field, encoding);
        }
    }
}

#[test]
fn hostile_session_names_and_keys_are_refused() {
    let policy = policy();
    let long = "a".repeat(65);
    let names = [
        "",
        " ",
        ".",
        "..",
        "-rf",
        "a/b",
        "a\\b",
        "a\0",
        "a\nb",
        "a\u{202e}b",
        "a\u{200b}b",
        "$(x)",
        "`x`",
        "<b>",
        "a;b",
        "a ",
        "😀",
        &long,
    ];
    for name in names {
        let mut asked = create(PROJECT);
        asked.name = Some(name.to_owned());
        refused_as(
            policy.admit_create(&alice(), &asked, facts(&policy, PROJECT, &[])),
            Reason::InvalidArgument,
            "sessionName",
            name,
        );
    }
    for name in [
        "a",
        "fix-login 2",
        "Größe",
        "プロジェクト",
        "v1.2_x",
        &"a".repeat(64),
    ] {
        let mut asked = create(PROJECT);
        asked.name = Some(name.to_owned());
        assert!(
            policy
                .admit_create(&alice(), &asked, facts(&policy, PROJECT, &[]))
                .is_ok(),
            "{name}"
        );
    }
    for (key, good) in [
        ("", false),
        ("a b", false),
        ("ä", false),
        ("a\n", false),
        (&"a".repeat(129), false),
        ("7f-1", true),
        (&"a".repeat(128), true),
    ] {
        let mut asked = create(PROJECT);
        asked.idempotency_key = Some(key.to_owned());
        let result = policy.admit_create(&alice(), &asked, facts(&policy, PROJECT, &[]));
        if good {
            assert!(result.is_ok(), "{key}");
        } else {
            refused_as(result, Reason::InvalidArgument, "idempotencyKey", key);
        }
    }
}

#[test]
fn hostile_client_roots_are_dropped_and_good_ones_kept() {
    let policy = policy();
    let roots = |roots: Vec<PathBuf>| policy.roots_of(&Principal::LocalUser { uid: UID, roots });
    for category in CATEGORIES
        .into_iter()
        .filter(|category| !category.starts_with("/srv"))
    {
        for (encoding, encode) in SAME {
            assert_eq!(
                roots(vec![encode(category).into()]),
                [Path::new(OPERATOR_ROOT)],
                "{category}, {encoding}"
            );
        }
    }
    for (encoding, encode) in NEVER {
        assert_eq!(
            roots(vec![encode("/srv/mine").into()]),
            [Path::new(OPERATOR_ROOT)],
            "{encoding}"
        );
    }
    assert_eq!(
        roots(vec!["/srv/mine/".into(), "/srv/code".into()]),
        [Path::new("/srv/code"), Path::new("/srv/mine")]
    );
    let flood = (0..10_000).map(|n| format!("/srv/r{n}").into()).collect();
    assert!(
        roots(flood).len() < 100,
        "a client cannot flood the server with roots"
    );
}

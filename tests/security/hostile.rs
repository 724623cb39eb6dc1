//! Hostile paths, names and trees, by category and encoding, through the tools, in both directions: each is refused with
//! a stable code and leaves nothing behind, or what arrives is harmless. Counted at the end: more than 100 rows.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt, net::UnixListener},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    place::places,
    probe::{Sandbox, each, snapshot},
    support::{Machine, User, until, walk},
};

/// Codes with which a hostile path or tree may be refused.
const REFUSALS: [&str; 8] = [
    "invalid_argument",
    "path_forbidden",
    "path_not_allowed",
    "path_not_found",
    "path_protected",
    "path_unsafe",
    "too_large",
    "transfer_entry_refused",
];

/// Everything outside of the project that a transfer could touch by mistake.
struct Outside {
    directory: PathBuf,
    before: Vec<(PathBuf, String)>,
}

impl Outside {
    fn plant(machine: &Machine) -> Self {
        let directory = machine.base().join("outside");
        fs::create_dir_all(directory.join("sub")).expect("a directory");
        for name in ["canary", "sub/canary"] {
            fs::write(directory.join(name), "a secret of the host").expect("a canary");
        }
        for path in ["", "canary", "sub", "sub/canary"] {
            machine.give(&directory.join(path));
        }
        let before = snapshot(&directory);
        Outside { directory, before }
    }

    fn assert_untouched(&self, row: &str) {
        assert_eq!(snapshot(&self.directory), self.before, "{row}");
    }
}

/// Spellings of a path that lead from `base` to `outside/canary` next to it, or would if somebody decoded them.
fn spellings(base: &str, outside: &str, neighbor: &str) -> Vec<(&'static str, String)> {
    let dots =
        |dots: &str, slash: &str| format!("{base}{slash}{dots}{slash}{neighbor}{slash}canary");
    vec![
        ("traversal", dots("..", "/")),
        ("traversal, doubled slashes", dots("..", "//")),
        (
            "traversal, through .",
            format!("{base}/./../{neighbor}/canary"),
        ),
        (
            "traversal, through a directory",
            format!("{base}/sub/../../{neighbor}/canary"),
        ),
        (
            "traversal, through a missing one",
            format!("{base}/missing/../../{neighbor}/canary"),
        ),
        ("traversal at the end", format!("{base}/sub/..")),
        (
            "traversal to the root",
            format!("{base}/{}etc/passwd", "../".repeat(40)),
        ),
        ("percent", dots("%2e%2e", "/")),
        ("percent, slashes too", dots("%2e%2e", "%2f")),
        ("percent, twice", dots("%252e%252e", "/")),
        ("backslashes", dots("..", "\\")),
        ("two-dot leader", dots("\u{2025}", "/")),
        ("full-width dots", dots("\u{ff0e}\u{ff0e}", "/")),
        ("division slash", dots("..", "\u{2215}")),
        ("zero-width space in dots", dots(".\u{200b}.", "/")),
        ("right-to-left mark", dots("\u{202e}..", "/")),
        ("newline after dots", dots("..\n", "/")),
        ("carriage return", dots("..\r", "/")),
        ("escape sequence", dots("\u{1b}[2J..", "/")),
        ("null", dots("..\0", "/")),
        ("null at the end", format!("{base}/x\0/../canary")),
        ("delete", dots("\u{7f}", "/")),
        ("absolute", format!("{outside}/canary")),
        ("absolute, doubled slash", format!("/{outside}/canary")),
        (
            "absolute, through proc",
            format!("/proc/self/root{outside}/canary"),
        ),
        (
            "absolute, through the working directory",
            "/proc/self/cwd/../outside/canary".to_owned(),
        ),
        ("descriptor", "/dev/fd/0".to_owned()),
        ("descriptor of the server", "/proc/self/fd/5".to_owned()),
        ("memory of the server", "/proc/self/mem".to_owned()),
        ("device", "/dev/zero".to_owned()),
        ("shadow", "/etc/shadow".to_owned()),
        ("home", "~/canary".to_owned()),
        ("variable", "$HOME/canary".to_owned()),
        ("url", format!("file://{outside}/canary")),
        ("relative", "../outside/canary".to_owned()),
        ("empty", String::new()),
        ("dot", ".".to_owned()),
        ("dots", "..".to_owned()),
        ("root", "/".to_owned()),
        ("roots", "//".to_owned()),
        ("space", " ".to_owned()),
        ("through a link", format!("{base}/link/canary")),
        ("the link itself as a directory", format!("{base}/link/")),
        ("a link to a file", format!("{base}/linkfile")),
        ("a long name", format!("{base}/{}", "n".repeat(300))),
        ("a long path", format!("{base}/{}x", "d/".repeat(3_000))),
        ("a deep path", format!("{base}/{}x", "d/".repeat(1_500))),
    ]
}

/// Calls the tool with a hostile argument. What is refused leaves the project as it was.
fn attempt(sandbox: &mut Sandbox, row: &str, arguments: &Value, outside: &Outside) -> bool {
    let mut arguments = arguments.clone();
    arguments["sessionId"] = json!(sandbox.session);
    let before = snapshot(&sandbox.machine.project);
    eprintln!("{row}");
    let answer = sandbox.client.tool("transfer_files", arguments);
    outside.assert_untouched(row);
    match answer {
        Err(error) => {
            let code = error["code"].as_str().unwrap_or_default();
            assert!(REFUSALS.contains(&code), "{row}: {error:#}");
            assert!(!error.to_string().contains("a secret of the host"), "{row}");
            assert_eq!(snapshot(&sandbox.machine.project), before, "{row}");
            false
        }
        Ok(_) => true,
    }
}

#[test]
fn hostile_paths_on_the_host_are_refused_or_taken_literally() {
    each(|sandbox| {
        let outside = Outside::plant(&sandbox.machine);
        let project = sandbox.machine.project.clone();
        fs::create_dir(project.join("sub")).expect("a directory");
        sandbox.machine.give(&project.join("sub"));
        std::os::unix::fs::symlink(&outside.directory, project.join("link")).expect("a link");
        std::os::unix::fs::symlink(outside.directory.join("canary"), project.join("linkfile"))
            .expect("a link");
        sandbox.sh("echo mine > /tmp/mine");
        let base = project.display().to_string();
        let away = outside.directory.display().to_string();
        let mut rows = 0;
        for (name, path) in spellings(&base, &away, "outside") {
            rows += 2;
            let row = format!("{name} as the source");
            let into =
                json!({ "direction": "to_container", "sourcePath": path, "destPath": "/tmp/got" });
            let came = attempt(sandbox, &row, &into, &outside);
            let got = sandbox.sh("grep -rs secret /tmp/got; rm -rf /tmp/got").out;
            assert_eq!(got, "", "{row}: a secret came in");
            // Taken literally nothing of these names exists, but a link may be copied as a link.
            assert!(
                !came || name.contains("link") || name == "traversal at the end",
                "{row} came through"
            );

            let row = format!("{name} as the destination");
            let out = json!({ "direction": "from_container", "sourcePath": "/tmp/mine", "destPath": path });
            if attempt(sandbox, &row, &out, &outside) {
                let made: Vec<PathBuf> = walk(&project)
                    .into_iter()
                    .filter(|found| fs::read_to_string(found).is_ok_and(|text| text == "mine\n"))
                    .collect();
                assert_eq!(made.len(), 1, "{row}: {made:?}");
                fs::remove_file(&made[0]).expect("removed");
            }
        }
        assert!(rows >= 90, "{rows}");
        let control = json!({ "direction": "from_container", "sourcePath": "/tmp/mine", "destPath": project.join("plain") });
        assert!(attempt(sandbox, "the control", &control, &outside));
        assert_eq!(
            fs::read_to_string(project.join("plain")).expect("a file"),
            "mine\n"
        );
    });
}

#[test]
fn hostile_paths_inside_are_refused_or_taken_literally() {
    each(|sandbox| {
        let outside = Outside::plant(&sandbox.machine);
        sandbox.machine.write("mine", "mine\n");
        sandbox.sh("mkdir -p /tmp/sub; ln -s /etc /tmp/link; ln -s /etc/passwd /tmp/linkfile; ln -s /etc /workspace/elink");
        let mut rows = 0;
        for (name, path) in spellings("/tmp", "/etc", "etc") {
            let path = path
                .replace("canary", "passwd")
                .replace("/etc/shadow", "/proc/1/environ");
            rows += 2;
            let row = format!("{name} as the source inside");
            let got = sandbox.machine.project.join("got");
            let out = json!({ "direction": "from_container", "sourcePath": path, "destPath": got });
            let _came = attempt(sandbox, &row, &out, &outside);
            for found in walk(&sandbox.machine.project) {
                let text = fs::read(&found).unwrap_or_default();
                assert!(
                    fs::symlink_metadata(&found).is_ok_and(|kind| kind.is_symlink())
                        || !String::from_utf8_lossy(&text).contains("agent:x:"),
                    "{row}: a file of the system came out at {found:?}"
                );
            }
            let _ = fs::remove_file(&got);
            let _ = fs::remove_dir_all(&got);

            let row = format!("{name} as the destination inside");
            let into = json!({
                "direction": "to_container", "sourcePath": sandbox.machine.project.join("mine"), "destPath": path,
            });
            attempt(sandbox, &row, &into, &outside);
            let touched = sandbox
                .sh("grep -rlsx mine /etc /run /dev/shm; cut -c1-4 /tmp/mine 2>/dev/null")
                .out;
            assert_eq!(touched, "", "{row}");
            sandbox.sh("find /workspace /tmp /home /state -mindepth 1 -maxdepth 1 ! -name sub ! -name 'link*' ! -name elink ! -name mine ! -name '.*' -exec rm -rf {} +");
        }
        assert!(rows >= 90, "{rows}");
        let through = json!({ "direction": "from_container", "sourcePath": "/workspace/elink/passwd", "destPath": sandbox.machine.project.join("x") });
        assert!(!attempt(
            sandbox,
            "through a link of the workspace",
            &through,
            &outside
        ));
        let control = json!({ "direction": "from_container", "sourcePath": "/workspace/mine", "destPath": sandbox.machine.project.join("copy") });
        assert!(attempt(sandbox, "the control", &control, &outside));
    });
}

/// Trees that a session makes in `/tmp/t`, by Perl, and whether they may come out.
const TREES: [(&str, &str, Verdict); 26] = [
    (
        "an absolute link",
        "symlink '/etc/passwd', 'a'",
        Verdict::Either,
    ),
    (
        "a link up",
        "symlink '../../../../etc/passwd', 'a'",
        Verdict::Either,
    ),
    ("a link to itself", "symlink 'a', 'a'", Verdict::Either),
    (
        "a loop of links",
        "symlink 'b', 'a'; symlink 'a', 'b'",
        Verdict::Either,
    ),
    (
        "a link to proc",
        "symlink '/proc/self/root', 'a'",
        Verdict::Either,
    ),
    (
        "a link and what is below it",
        "symlink '/tmp', 'a'; mkdir 'b'; symlink '../a/x', 'b/c'",
        Verdict::Either,
    ),
    (
        "a link with a newline",
        "symlink \"x\\ny\", 'a'",
        Verdict::Either,
    ),
    ("a fifo", "POSIX::mkfifo('a', 0600)", Verdict::Refused),
    (
        "a socket",
        "socket(my $s, PF_UNIX, SOCK_STREAM, 0); bind($s, pack_sockaddr_un('a'))",
        Verdict::Refused,
    ),
    (
        "a hard link",
        "open(F, '>', 'a'); link 'a', 'b'",
        Verdict::Either,
    ),
    (
        "a name with a newline",
        "open(F, '>', \"a\\nb\")",
        Verdict::Either,
    ),
    (
        "a name with an escape",
        "open(F, '>', \"\\e[2Ja\")",
        Verdict::Either,
    ),
    (
        "a name of invalid UTF-8",
        "open(F, '>', \"\\xff\\xfe\")",
        Verdict::Either,
    ),
    (
        "an overlong slash",
        "open(F, '>', \"..\\xc0\\xaf..\\xc0\\xafx\")",
        Verdict::Either,
    ),
    (
        "a name with a backslash",
        "open(F, '>', '..\\\\..\\\\x')",
        Verdict::Either,
    ),
    (
        "a name of dots",
        "open(F, '>', '...'); mkdir '.. '; mkdir '. .'",
        Verdict::Either,
    ),
    (
        "a name like an option",
        "open(F, '>', '-rf'); open(F, '>', '--help')",
        Verdict::Either,
    ),
    ("a long name", "open(F, '>', 'n' x 255)", Verdict::Either),
    (
        "a name in two cases",
        "open(F, '>', 'A'); open(F, '>', 'a')",
        Verdict::Either,
    ),
    (
        "a deep tree",
        "for (1 .. 400) { mkdir 'd'; chdir 'd' }",
        Verdict::Either,
    ),
    (
        "a wide tree",
        "for (1 .. 3000) { open(F, '>', $_) }",
        Verdict::Either,
    ),
    (
        "a file larger than all",
        "open(F, '>', 'a'); truncate(F, 3 * 1024 ** 3)",
        Verdict::Refused,
    ),
    (
        "a file that cannot be read",
        "open(F, '>', 'a'); chmod 0, 'a'",
        Verdict::Either,
    ),
    (
        "a directory that cannot be read",
        "mkdir 'a'; open(F, '>', 'a/b'); chmod 0, 'a'",
        Verdict::Either,
    ),
    (
        "a protected name",
        "mkdir 'a'; mkdir 'a/.git'; mkdir 'a/.git/hooks'; open(F, '>', 'a/.git/hooks/pre-commit')",
        Verdict::Refused,
    ),
    (
        "a protected name in disguise",
        "mkdir 'a'; mkdir \"a/.G\\xe2\\x80\\x8cIT\"; mkdir \"a/.G\\xe2\\x80\\x8cIT/hooks\"; open(F, '>', \"a/.G\\xe2\\x80\\x8cIT/hooks/pre-commit\")",
        Verdict::Refused,
    ),
];

#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Refused,
    /// Refused, or what arrives is harmless.
    Either,
}

/// What arrived has nothing in it that acts by itself, and is its owner's.
fn assert_harmless(root: &Path, owner: u32, row: &str) {
    for path in walk(root).into_iter().chain([root.to_owned()]) {
        let Ok(found) = fs::symlink_metadata(&path) else {
            continue;
        };
        let kind = found.file_type();
        assert!(
            kind.is_file() || kind.is_dir() || kind.is_symlink(),
            "{row}: {path:?} is {kind:?}"
        );
        assert_eq!(found.uid(), owner, "{row}: {path:?}");
        if !kind.is_symlink() {
            assert_eq!(
                found.mode() & 0o6000,
                0,
                "{row}: {path:?} {:o}",
                found.mode()
            );
        } else {
            let target = fs::read_link(&path).expect("a link");
            let depth = path
                .parent()
                .and_then(|parent| parent.strip_prefix(root).ok())
                .map_or(0, |below| below.components().count());
            let up = target
                .components()
                .filter(|part| *part == std::path::Component::ParentDir)
                .count();
            assert!(
                target.is_relative() && up <= depth,
                "{row}: {path:?} leads out, to {target:?}"
            );
        }
    }
}

#[test]
fn hostile_trees_from_inside_do_no_harm_on_the_host() {
    each(|sandbox| {
        let outside = Outside::plant(&sandbox.machine);
        let owner = fs::metadata(&sandbox.machine.project)
            .expect("the project")
            .uid();
        let to = sandbox.machine.project.join("arrived");
        for (row, make, verdict) in TREES {
            sandbox.perl(&format!("mkdir '/tmp/t' or die; chdir '/tmp/t'; {make}; 1"));
            let out =
                json!({ "direction": "from_container", "sourcePath": "/tmp/t", "destPath": to });
            let came = attempt(sandbox, row, &out, &outside);
            assert!(!came || verdict == Verdict::Either, "{row} came out");
            if came {
                assert_harmless(&to, owner, row);
                fs::remove_dir_all(&to).expect("removed");
            }
            sandbox.sh("chmod -R u+rwx /tmp/t; rm -rf /tmp/t");
        }
        sandbox.sh("mkdir -p /tmp/t/a && echo fine > /tmp/t/a/b");
        let out = json!({ "direction": "from_container", "sourcePath": "/tmp/t", "destPath": to });
        assert!(attempt(sandbox, "the control", &out, &outside));
        assert_harmless(&to, owner, "the control");
        assert_eq!(
            fs::read_to_string(to.join("a/b")).expect("a file"),
            "fine\n"
        );
    });
}

/// Makes a tree on the host, in a directory that exists.
type Make = fn(&Path);

#[test]
fn hostile_trees_of_the_host_are_not_carried_in() {
    let trees: [(&str, Make, Verdict); 12] = [
        (
            "a link out",
            |at| link("../../outside/canary", &at.join("a")),
            Verdict::Either,
        ),
        (
            "an absolute link",
            |at| {
                link(
                    at.join("../../outside/canary").to_str().expect("text"),
                    &at.join("a"),
                )
            },
            Verdict::Either,
        ),
        (
            "a link to a directory outside",
            |at| link("../../outside", &at.join("a")),
            Verdict::Either,
        ),
        (
            "a fifo",
            |at| make_node(&at.join("a"), "p"),
            Verdict::Refused,
        ),
        (
            "a device",
            |at| make_node(&at.join("a"), "c"),
            Verdict::Refused,
        ),
        (
            "a socket",
            |at| drop(UnixListener::bind(at.join("a")).expect("a socket")),
            Verdict::Refused,
        ),
        (
            "a name with a newline",
            |at| write(&at.join("a\nb")),
            Verdict::Either,
        ),
        (
            "a name of invalid UTF-8",
            |at| write(&at.join(OsStr::from_bytes(b"\xff\xfe"))),
            Verdict::Either,
        ),
        (
            "a long name",
            |at| write(&at.join("n".repeat(255))),
            Verdict::Either,
        ),
        (
            "a deep tree",
            |at| {
                let mut path = at.to_owned();
                for _ in 0..300 {
                    path.push("d");
                }
                fs::create_dir_all(path).expect("directories");
            },
            Verdict::Either,
        ),
        (
            "a file larger than all",
            |at| {
                fs::File::create(at.join("a"))
                    .expect("a file")
                    .set_len(3 << 30)
                    .expect("its size")
            },
            Verdict::Refused,
        ),
        (
            "a file of nobody's",
            |at| {
                write(&at.join("a"));
                fs::set_permissions(
                    at.join("a"),
                    std::os::unix::fs::PermissionsExt::from_mode(0o6755),
                )
                .expect("its mode");
            },
            Verdict::Either,
        ),
    ];
    for place in places() {
        let mut sandbox = Sandbox::new(place);
        let outside = Outside::plant(&sandbox.machine);
        let from = sandbox.machine.project.join("tree");
        for (row, make, verdict) in trees {
            if row == "a device" && !rustix::process::geteuid().is_root() {
                continue;
            }
            fs::create_dir(&from).expect("a directory");
            make(&from);
            for path in walk(&from).iter().chain([&from]) {
                if place.user() == User::Ordinary && rustix::process::geteuid().is_root() {
                    let id = Some(crate::support::ORDINARY_UID);
                    std::os::unix::fs::lchown(path, id, id).expect("an owner");
                }
            }
            let into = json!({ "direction": "to_container", "sourcePath": from, "destPath": "/home/agent/arrived" });
            let came = attempt(&mut sandbox, row, &into, &outside);
            assert!(!came || verdict == Verdict::Either, "{row} came in");
            let inside = "cd /home/agent; find . -name arrived -prune -exec find {} ! -type f ! -type d ! -type l \\; ; \
                          find arrived -perm /6000 2>/dev/null; grep -rs secret arrived; find . -mindepth 1 -maxdepth 1 ! -name arrived";
            // The refusal comes first, and what was staged by then goes right behind it.
            until("what was staged is taken away", || {
                let staged = "for d in /home/agent/.incoming-*; do test -e $d && echo $d; done";
                sandbox.sh(staged).out.is_empty()
            });
            let found = sandbox.sh(inside).out;
            assert_eq!(found, "", "{row}");
            sandbox.sh("rm -rf /home/agent/arrived");
            fs::remove_dir_all(&from).expect("removed");
        }
        sandbox.machine.write("tree/a/b", "fine\n");
        let into = json!({ "direction": "to_container", "sourcePath": from, "destPath": "/home/agent/arrived" });
        assert!(attempt(&mut sandbox, "the control", &into, &outside));
        assert_eq!(sandbox.sh("cat /home/agent/arrived/a/b").out, "fine");
    }
}

fn link(target: &str, at: &Path) {
    std::os::unix::fs::symlink(target, at).expect("a link");
}

fn write(at: &Path) {
    fs::write(at, "x").expect("a file");
}

fn make_node(at: &Path, kind: &str) {
    let mut command = std::process::Command::new("/usr/bin/mknod");
    command.arg(at).arg(kind);
    if kind == "c" {
        command.args(["1", "3"]);
    }
    assert!(command.status().expect("mknod runs").success());
}

#[test]
fn hostile_projects_and_mounts_are_refused_and_leave_nothing() {
    for place in places() {
        let machine = place.machine();
        let outside = Outside::plant(&machine);
        fs::create_dir(machine.project.join("sub")).expect("a directory");
        machine.give(&machine.project.join("sub"));
        link(
            outside.directory.to_str().expect("text"),
            &machine.project.join("link"),
        );
        machine.write("plain", "x");
        let _socket = UnixListener::bind(machine.project.join("socket")).expect("a socket");
        let mut client = machine.client();
        let base = machine.project.display().to_string();
        let away = outside.directory.display().to_string();
        let before = (machine.census(), snapshot(&machine.project));
        let mut rows = 0;
        let mut refuse = |client: &mut crate::support::Client, row: &str, arguments: Value| {
            rows += 1;
            let error = match client.tool("create_session", arguments) {
                Err(error) => error,
                Ok(made) => panic!("{row} was made: {made:#}"),
            };
            let code = error["code"].as_str().unwrap_or_default();
            assert!(REFUSALS.contains(&code), "{row}: {error:#}");
            outside.assert_untouched(row);
        };
        let system = [
            "/", "/etc", "/usr", "/bin", "/boot", "/dev", "/proc", "/sys", "/run", "/root",
            "/home", "/var", "/var/lib", "/var/run", "/tmp",
        ];
        for (name, path) in spellings(&base, &away, "outside") {
            // What is a directory of the project under another spelling is no attack.
            if ["traversal at the end"].contains(&name) {
                continue;
            }
            refuse(
                &mut client,
                &format!("{name} as the project"),
                json!({ "projectPath": path }),
            );
            let mount = json!([{ "hostPath": path, "containerPath": "/mnt/x" }]);
            refuse(
                &mut client,
                &format!("{name} as a mount"),
                json!({ "projectPath": base, "mcpMounts": mount }),
            );
        }
        for path in system {
            refuse(&mut client, path, json!({ "projectPath": path }));
            let mount = json!([{ "hostPath": path, "containerPath": "/mnt/x" }]);
            refuse(
                &mut client,
                path,
                json!({ "projectPath": base, "mcpMounts": mount }),
            );
        }
        for name in ["plain", "socket", "link", "link/sub", "missing"] {
            refuse(
                &mut client,
                name,
                json!({ "projectPath": format!("{base}/{name}") }),
            );
        }
        for target in [
            "/",
            "/proc",
            "/proc/self",
            "/sys",
            "/dev",
            "/dev/shm",
            "/etc",
            "/usr/bin",
            "/bin",
            "/lib",
            "/run/supervisor",
            "/workspace",
            "/workspace/x",
            "/state",
            "/tmp/../etc",
            "relative",
            "",
            "/a\0b",
            "/a\nb",
            "//etc",
            "/./etc",
        ] {
            let mount = json!([{ "hostPath": format!("{base}/sub"), "containerPath": target }]);
            refuse(
                &mut client,
                &format!("a mount at {target:?}"),
                json!({ "projectPath": base, "mcpMounts": mount }),
            );
        }
        assert!(rows > 100, "{rows}");
        assert_eq!((machine.census(), snapshot(&machine.project)), before);
        let session = client.create(&machine.project);
        assert_eq!(client.output(&session, "cat plain"), "x", "the control");
        client.destroy(&session);
    }
}

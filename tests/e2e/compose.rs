//! `compose lint` as scripts use it (C2), and the container of `deploy/compose.yaml` (T1.1).

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
};

use serde_json::Value;

use crate::support::{
    Machine, User,
    engine::ask,
    image::{HOSTILE_CHANGES, IMAGE, make_image, without_engine},
    program, skip, users,
};

fn lint(arguments: &[&str]) -> (Option<i32>, String, String) {
    let machine = Machine::new(User::Ordinary);
    let output = machine.cli(&[&["compose", "lint"], arguments].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn exit_codes_tell_findings_from_none_and_from_what_cannot_be_judged() {
    let machine = Machine::new(User::Ordinary);
    let guide = machine.write("guide.yaml", include_str!("guide-compose.yaml"));
    let ours = machine.write("ours.yaml", include_str!("../../deploy/compose.yaml"));
    let garbage = machine.write("garbage.yaml", "services: [\n");
    let large = machine.write("large.yaml", &"#".repeat(1024 * 1024 + 1));
    let path = |path: &Path| path.display().to_string();

    let (code, out, _) = lint(&[&path(&guide), "--json"]);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &report["ok"]), (Some(1), &Value::Bool(false)));
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(13));
    let (code, out, _) = lint(&[&path(&guide)]);
    assert_eq!(code, Some(1));
    assert!(
        out.contains("guide.yaml:9: critical engine_socket_read_only: mcp-server:"),
        "{out}"
    );

    let (code, out, _) = lint(&[&path(&ours)]);
    assert_eq!(code, Some(0), "{out}");
    for unreadable in [&path(&garbage), &path(&large), "/nowhere", "/"] {
        let (code, out, err) = lint(&[unreadable]);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{unreadable}");
        assert!(err.contains("cannot judge"), "{err}");
    }
}

/// The filter in which the server runs must let through what its sessions may call, or they would be told otherwise inside.
#[test]
fn the_containers_filter_lets_through_what_sessions_may_call() {
    let parse = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    let sessions = parse(include_str!("../../profiles/seccomp.json"));
    let server = parse(include_str!("../../deploy/seccomp-server.json"));
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let names = |entry: &Value| -> Vec<String> {
        let one = entry["name"].as_str().map(str::to_owned);
        let many = list(&entry["names"]);
        one.into_iter()
            .chain(many.iter().filter_map(Value::as_str).map(str::to_owned))
            .collect()
    };
    let let_through: Vec<String> = list(&server["syscalls"]).iter().flat_map(names).collect();
    let asked = ["allow", "allow_if"].map(|part| list(&sessions[part]));
    for name in asked.iter().flatten().flat_map(names) {
        assert!(let_through.contains(&name), "{name}");
    }
    for forbidden in [
        "bpf",
        "ptrace",
        "io_uring_setup",
        "userfaultfd",
        "keyctl",
        "init_module",
        "perf_event_open",
    ] {
        assert!(!let_through.contains(&forbidden.to_owned()), "{forbidden}");
    }
}

/// Options of an engine's container, each with the words of our file that say the same.
const OPTIONS: &[(&[&str], &str)] = &[
    (&["--user", "1000:1000"], "user: \"1000:1000\""),
    (&["--read-only"], "read_only: true"),
    (&["--cap-drop", "ALL"], "cap_drop: [ALL]"),
    (
        &["--security-opt", "no-new-privileges:true"],
        "- no-new-privileges:true",
    ),
    (
        &["--security-opt", "systempaths=unconfined"],
        "- systempaths=unconfined",
    ),
    (&["--memory", "8g"], "mem_limit: 8g"),
    (&["--memory-swap", "8g"], "memswap_limit: 8g"),
    (&["--pids-limit", "2048"], "pids_limit: 2048"),
    (&["--ulimit", "core=0"], "core: 0"),
    (
        &["--tmpfs", "/tmp:size=64m,mode=1777,nosuid,nodev"],
        "- /tmp:size=64m,mode=1777,nosuid,nodev",
    ),
    (
        &[
            "--tmpfs",
            "/run:size=16m,mode=0755,uid=1000,gid=1000,nosuid,nodev",
        ],
        "- /run:size=16m,mode=0755,uid=1000,gid=1000,nosuid,nodev",
    ),
    (
        &["--env", "CLAUDE_CODE_MCP_BACKEND=native"],
        "CLAUDE_CODE_MCP_BACKEND: native",
    ),
    (
        &["--env", "CLAUDE_CODE_MCP_STATE_DIR=/state"],
        "CLAUDE_CODE_MCP_STATE_DIR: /state",
    ),
    (
        &["--env", "CLAUDE_CODE_MCP_PROJECT_ROOTS=/projects"],
        "CLAUDE_CODE_MCP_PROJECT_ROOTS: /projects",
    ),
];

/// In a container as our file has it: no root, no capability, no socket of an engine.
#[test]
fn a_server_in_the_container_of_our_file_makes_sessions() {
    if ask(without_engine("a server in a container")) {
        return;
    }
    if !users().contains(&User::Root) || !Path::new("/usr/local/bin/docker").exists() {
        skip(
            "docker",
            "a server in a container: not root, or no docker command",
        );
        return;
    }
    ask(make_image(IMAGE, HOSTILE_CHANGES));
    let ours = include_str!("../../deploy/compose.yaml");
    let machine = Machine::new(User::Root);
    let seccomp = machine.write(
        "seccomp.json",
        include_str!("../../deploy/seccomp-server.json"),
    );
    machine.write("projects/p/file", "from the host");
    let state = machine.base().join("state-of-the-container");
    fs::create_dir(&state).expect("a directory");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).expect("its mode");
    for path in ["projects/p", "projects/p/file"].map(|path| machine.project.join(path)) {
        chown(path, Some(1000), Some(1000)).expect("its owner");
    }
    chown(&state, Some(1000), Some(1000)).expect("its owner");
    let mut command = Command::new("docker");
    command.args(["run", "--rm", "--network", "none", "--workdir", "/"]);
    // The image of the tests is hostile to whoever believes it.
    command.args(["--env", "LD_PRELOAD=", "--env", "PATH=/usr/bin:/bin"]);
    for (option, words) in OPTIONS {
        assert!(
            ours.contains(words),
            "our file says something else than {words:?}"
        );
        command.args(*option);
    }
    let mount = |from: &Path, to: &str| format!("{}:{to}", from.display());
    let script = "set -e; cd /projects/p; grep CapBnd /proc/self/status; ccm=/usr/local/bin/claude-code-mcp; \
                  $ccm session create . --name box >/dev/null; \
                  $ccm session exec box -- /bin/sh -c 'cat file; echo; echo written > new; id -u; cat /proc/net/dev | wc -l'; \
                  $ccm session destroy box; cat new; $ccm server stop";
    let output = command
        .arg("--security-opt")
        .arg(format!("seccomp={}", seccomp.display()))
        .args([
            "--volume",
            &mount(program(), "/usr/local/bin/claude-code-mcp:ro"),
        ])
        .args(["--volume", &library("libgcc_s.so.1")])
        .args(["--volume", &mount(&state, "/state")])
        .args([
            "--volume",
            &mount(&machine.project.join("projects"), "/projects"),
        ])
        .args([
            "--env",
            "HOME=/state",
            "--entrypoint",
            "/bin/sh",
            IMAGE,
            "-c",
            script,
        ])
        .output()
        .expect("docker runs");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    for line in [
        "CapBnd:\t0000000000000000",
        "from the host",
        "1000",
        "3",
        "written",
    ] {
        assert!(
            out.lines().any(|found| found.trim() == line),
            "{line:?} is missing in {out}"
        );
    }
}

/// A library of this machine's that the program needs and the image has not.
fn library(name: &str) -> String {
    let listed = Command::new("ldd").arg(program()).output().expect("ldd");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let path = text
        .split_whitespace()
        .find(|word| word.starts_with('/') && word.ends_with(name))
        .expect("the program needs it");
    format!("{path}:{path}:ro")
}

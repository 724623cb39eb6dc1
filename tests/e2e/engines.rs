//! Which engine is used, and how it is reached (S6, T1.0, T1.2), through the real binary.

use std::path::Path;

use serde_json::json;

use crate::support::{
    Machine, User,
    certificates::Authority,
    engine::ask,
    image,
    world::{self, Apart, OwnEngine},
};

/// A machine whose sessions come from that engine, which has the tests' image.
fn machine_on(engine: &OwnEngine, certificates: &Path) -> Machine {
    ask(image::make_image_at(
        &engine.socket,
        image::IMAGE,
        image::HOSTILE_CHANGES,
    ));
    let mut machine = Machine::new(User::Root);
    machine
        .set("CLAUDE_CODE_MCP_BACKEND", "docker")
        .set("DEFAULT_CLAUDE_IMAGE", image::IMAGE)
        .set("DOCKER_HOST", "tcp://127.0.0.1:2376")
        .set("DOCKER_TLS_VERIFY", "1")
        .set("DOCKER_CERT_PATH", &certificates.display().to_string());
    machine
}

#[test]
fn a_session_over_tls_from_create_to_destroy() {
    if !world::is_inside("engines::a_session_over_tls_from_create_to_destroy") {
        return;
    }
    let certificates = tempfile::tempdir().expect("a directory");
    Authority::equip(certificates.path());
    let engine = OwnEngine::with_tls(Apart::Not, certificates.path());
    let machine = machine_on(&engine, certificates.path());
    let mut client = machine.client();
    let info = client
        .tool("get_server_info", json!({}))
        .expect("information");
    assert_eq!(info["posture"], "docker-rootful", "{info:#}");
    assert!(info.to_string().contains("over TLS"), "{info:#}");
    let session = client.create(&machine.project);
    assert_eq!(client.output(&session, "id -u"), "1000");
    client.destroy(&session);
}

#[test]
fn an_engine_on_another_host_carries_no_session_and_says_so() {
    if !world::is_inside("engines::an_engine_on_another_host_carries_no_session_and_says_so") {
        return;
    }
    let certificates = tempfile::tempdir().expect("a directory");
    Authority::equip(certificates.path());
    let engine = OwnEngine::with_tls(Apart::Mounts, certificates.path());
    let machine = machine_on(&engine, certificates.path());
    // Made after the engine was started: it does not see what is there.
    let state = machine.state();
    std::fs::create_dir_all(&state).expect("the state directory");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "mode=0700", "tmpfs"])
        .arg(&state)
        .status();
    assert!(mounted.expect("mount").success());
    let mut client = machine.client();
    let info = client
        .tool("get_server_info", json!({}))
        .expect("information");
    assert_eq!(info["posture"], "docker-remote", "{info:#}");
    let refused = client
        .tool("create_session", json!({ "projectPath": machine.project }))
        .expect_err("refused");
    assert_eq!(refused["code"], "engine_not_local", "{refused:#}");
    let hint = refused["hint"].as_str().expect("a hint");
    assert!(hint.contains("native backend"), "{refused:#}");
}

#[test]
fn plain_tcp_is_no_way_for_a_server_that_was_told_to_use_it_and_loud_for_another() {
    let mut machine = Machine::new(User::Root);
    machine
        .set("CLAUDE_CODE_MCP_BACKEND", "auto")
        .set("DOCKER_HOST", "tcp://127.0.0.1:2375");
    let mut client = machine.client();
    let info = client
        .tool("get_server_info", json!({}))
        .expect("information");
    let warnings = info["warnings"].to_string();
    assert!(
        warnings.contains("tcp://127.0.0.1:2375 is not used")
            && warnings.contains("DOCKER_TLS_VERIFY"),
        "{info:#}"
    );
    let session = client.create(&machine.project);
    assert_eq!(client.output(&session, "echo works"), "works");
    client.destroy(&session);
}

#[test]
fn a_users_own_engine_that_is_rootless_is_passed_over_loudly_for_the_machines() {
    let test =
        "engines::a_users_own_engine_that_is_rootless_is_passed_over_loudly_for_the_machines";
    if !world::is_inside(test) {
        return;
    }
    let rootless = OwnEngine::start(Apart::Rootless);
    let rootful = OwnEngine::start(Apart::Not);
    let mut machine = machine_on(&rootful, Path::new("/nowhere"));
    let runtime = tempfile::tempdir().expect("a directory");
    let own = runtime.path().join("docker.sock");
    std::os::unix::fs::symlink(&rootless.socket, &own).expect("a link of our own");
    // In these namespaces alone it is the machine's.
    let mounted = std::process::Command::new("mount")
        .arg("--bind")
        .args([&rootful.socket, Path::new("/var/run/docker.sock")])
        .status();
    assert!(mounted.expect("mount").success());
    machine
        .set("CLAUDE_CODE_MCP_BACKEND", "auto")
        .set("DOCKER_HOST", "")
        .set("DOCKER_TLS_VERIFY", "")
        .set("XDG_RUNTIME_DIR", &runtime.path().display().to_string());
    let mut client = machine.client();
    let info = client
        .tool("get_server_info", json!({}))
        .expect("information");
    assert_eq!(info["posture"], "docker-rootful", "{info:#}");
    let warnings = info["warnings"].to_string();
    assert!(
        warnings.contains(&format!("{} is not used", own.display()))
            && warnings.contains("rootless"),
        "{info:#}"
    );
    let session = client.create(&machine.project);
    assert_eq!(client.output(&session, "id -u"), "1000");
    client.destroy(&session);
}

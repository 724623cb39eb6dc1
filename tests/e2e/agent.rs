//! The real Claude Code in every kind of sandbox: there, read-only, shared, and told about (S2, T2.3).

use std::{
    fs,
    os::unix::fs::MetadataExt,
    thread,
    time::{Duration, Instant},
};

use bollard::query_parameters::RemoveImageOptions;
use serde_json::{Value, json};

use crate::{
    base::make_base,
    support::{
        Client, Machine, User,
        agent::{bring, install},
        claude_code,
        engine::{self, machine},
        gvisor::Gvisor,
        image::{self, HOSTILE_CHANGES, IMAGE, make_image_at},
        users,
    },
};

fn create(client: &mut Client, machine: &Machine) -> Result<Value, Value> {
    client.tool("create_session", json!({ "projectPath": machine.project }))
}

fn id(created: &Value) -> String {
    created["sessionId"].as_str().expect("an id").to_owned()
}

/// In a machine where it is installed: two sessions, and what both see of it.
fn it_runs_and_cannot_be_changed(machine: &Machine, is_shared_file: bool) {
    let mut client = machine.client();
    let info = client
        .tool("get_server_info", json!({}))
        .expect("an answer");
    let told = info["claudeCode"].as_str().expect("a text");
    assert!(told.starts_with("2.") && told.contains("pinned"), "{told}");
    let version = told.split(',').next().expect("a version").to_owned();
    let path = machine.cli(&["agent", "path"]);
    let path = String::from_utf8(path.stdout).expect("a path");
    let file = fs::metadata(path.trim()).expect("the program");
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let session = id(&create(&mut client, machine).expect("a session"));
        let said = client.output(&session, "command -v claude; claude --version");
        assert_eq!(
            said,
            format!("/opt/claude-code/claude\n{version} (Claude Code)")
        );
        if is_shared_file {
            let seen = client.output(&session, "stat -c '%d %i %a' /opt/claude-code/claude");
            assert_eq!(seen, format!("{} {} 555", file.dev(), file.ino()));
        }
        let policy = client.output(&session, "cat /etc/claude-code/managed-settings.json");
        let policy: Value = serde_json::from_str(&policy).expect("JSON");
        assert!(policy.is_object(), "{policy}");
        for place in ["/opt/claude-code", "/etc/claude-code"] {
            let wrong = client.run(&session, &format!("touch {place}/x && rm {place}/*"));
            assert_ne!(wrong["exitCode"], 0, "{wrong:#}");
        }
        let wrong = client.run(&session, "echo x >> /opt/claude-code/claude");
        assert_ne!(wrong["exitCode"], 0, "{wrong:#}");
        // The control: a copy can be changed, where the agent may write.
        client.output(&session, "cd /tmp && head -c 99 /opt/claude-code/claude > claude && echo x >> claude && rm claude");
        sessions.push(session);
    }
    for session in sessions {
        client
            .tool("destroy_session", json!({ "sessionId": session }))
            .expect("it ends");
    }
    let whole = machine.cli(&["agent", "verify"]);
    assert!(whole.status.success(), "{whole:?}");
}

#[test]
fn claude_code_runs_in_sandboxes_of_the_embedded_runtime() {
    let Some(program) = claude_code::binary() else {
        return;
    };
    for user in users() {
        let machine = Machine::new(user);
        install(&machine, &program);
        it_runs_and_cannot_be_changed(&machine, true);
    }
}

#[test]
fn claude_code_runs_in_containers() {
    let Some(program) = claude_code::binary() else {
        return;
    };
    let Some(machine) = machine("Claude Code in containers") else {
        return;
    };
    install(&machine, &program);
    it_runs_and_cannot_be_changed(&machine, true);
}

#[test]
fn claude_code_runs_with_a_kernel_of_its_own() {
    let Some(program) = claude_code::binary() else {
        return;
    };
    let Some(engine) = Gvisor::engine("Claude Code with gVisor") else {
        return;
    };
    engine::runtime().block_on(make_image_at(&engine.socket, IMAGE, HOSTILE_CHANGES));
    let mut machine = Machine::new(User::Root);
    machine
        .use_engine(&engine.socket)
        .set("DEFAULT_CLAUDE_IMAGE", IMAGE)
        .set("CLAUDE_CODE_MCP_RUNTIME_CLASSES", "runsc");
    install(&machine, &program);
    // That kernel numbers files itself.
    it_runs_and_cannot_be_changed(&machine, false);
}

#[test]
fn what_is_installed_or_removed_counts_for_the_next_session() {
    let Some(program) = claude_code::binary() else {
        return;
    };
    let machine = Machine::new(users()[0]);
    let mut client = machine.client();
    let mut without = create(&mut client, &machine).expect("a session");
    let none = client.run(&id(&without), "command -v /opt/claude-code/claude");
    assert_ne!(none["exitCode"], 0, "{none:#}");
    let info = client
        .tool("get_server_info", json!({}))
        .expect("an answer");
    let told = info["claudeCode"].as_str().expect("a text");
    assert!(told.contains("claude-code-mcp agent install"), "{told}");

    install(&machine, &program);
    let with = id(&create(&mut client, &machine).expect("a session"));
    client.output(&with, "claude --version");

    // Not while a session has it; afterwards the next one finds none.
    let listed = machine.cli(&["--json", "agent", "list"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let hash = listed[0]["sha256"].as_str().expect("a hash").to_owned();
    let remove = || machine.cli(&["--json", "agent", "remove", &hash[..10]]);
    let refused = remove();
    let reply: Value = serde_json::from_slice(&refused.stdout).expect("JSON");
    assert_eq!(reply["error"]["code"], "agent_in_use", "{reply:#}");
    client.output(&with, "claude --version");
    client.destroy(&with);
    // Whose sandbox has a program is seen by its hash alone, and other tests have sessions with the same one.
    let deadline = Instant::now() + Duration::from_secs(120);
    while !remove().status.success() {
        assert!(Instant::now() < deadline, "somebody has it for ever");
        thread::sleep(Duration::from_millis(100));
    }
    without = create(&mut client, &machine).expect("a session");
    let none = client.run(&id(&without), "command -v /opt/claude-code/claude");
    assert_ne!(none["exitCode"], 0, "{none:#}");
}

#[test]
fn a_configured_program_that_is_not_there_or_was_changed_refuses_sessions() {
    let mut machine = Machine::new(users()[0]);
    machine.set("CLAUDE_CODE_MCP_AGENT", "0123456789");
    let mut client = machine.client();
    let refused = create(&mut client, &machine).expect_err("no session");
    assert_eq!(refused["code"], "agent_unavailable", "{refused:#}");
    let hint = refused["hint"].as_str().expect("a hint");
    assert!(hint.contains("claude-code-mcp agent"), "{hint}");
    drop(client);
    machine.wait_for_server_end();
    // The control: where it does not matter, the same call makes a session.
    machine.set("CLAUDE_CODE_MCP_AGENT", "none");
    let mut client = machine.client();
    create(&mut client, &machine).expect("a session");
    drop(client);
    machine.set("CLAUDE_CODE_MCP_AGENT", "../../etc");
    let wrong = machine.cli(&["agent", "list"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}

#[test]
fn only_the_pinned_program_is_taken_without_a_word() {
    let Some(program) = claude_code::binary() else {
        return;
    };
    let machine = Machine::new(users()[0]);
    let changed = machine.base().join("changed");
    let mut content = fs::read(bring(&machine, &program)).expect("the program");
    content[100_000] ^= 1;
    fs::write(&changed, content).expect("a file");
    let file = changed.display().to_string();
    let refused = machine.cli(&["--json", "agent", "install", "--from-file", &file]);
    assert_eq!(refused.status.code(), Some(1));
    let reply: Value = serde_json::from_slice(&refused.stdout).expect("JSON");
    assert_eq!(reply["error"]["code"], "agent_unpinned", "{reply:#}");
    let own = machine.cli(&["--json", "agent", "install", "--use", &file]);
    let reply: Value = serde_json::from_slice(&own.stdout).expect("JSON");
    assert_eq!(reply["pinned"], false, "{reply:#}");
    let told = String::from_utf8_lossy(&own.stderr).into_owned();
    assert!(told.contains("nobody but you vouches"), "{told}");
}

#[test]
fn an_image_can_hold_it() {
    let Some(program) = claude_code::binary() else {
        return;
    };
    let Some(mut machine) = machine("Claude Code in an image") else {
        return;
    };
    let (base, name) = (
        "claude-code-mcp-test-base:1",
        "claude-code-mcp-test-with-agent:1",
    );
    engine::runtime().block_on(make_base(base));
    let build = [
        "image",
        "build",
        "--base",
        base,
        "--tag",
        name,
        "--with-agent",
    ];
    let none = machine.cli(&build);
    let told = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(
        !none.status.success() && told.contains("agent_not_installed"),
        "{told}"
    );
    install(&machine, &program);
    let built = machine.cli(&build);
    let told = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(built.status.success(), "{told}");
    assert!(told.contains("publish it nowhere"), "{told}");
    let found = engine::runtime()
        .block_on(image::engine().inspect_image(name))
        .expect("the image");
    let labels = found
        .config
        .and_then(|config| config.labels)
        .expect("labels");
    assert!(
        labels["claude-code-mcp.agent"].contains("proprietary"),
        "{labels:?}"
    );

    machine
        .set("DEFAULT_CLAUDE_IMAGE", name)
        .set("CLAUDE_CODE_MCP_AGENT", "none");
    let mut client = machine.client();
    let session = id(&create(&mut client, &machine).expect("a session"));
    let seen = client.output(
        &session,
        "command -v claude; stat -c '%a %u' $(command -v claude)",
    );
    assert_eq!(seen, "/opt/claude-code/claude\n555 0");
    client.output(&session, "claude --version");
    let wrong = client.run(&session, "echo x >> /opt/claude-code/claude");
    assert_ne!(wrong["exitCode"], 0, "{wrong:#}");
    client.destroy(&session);
    drop(client);
    let removed = image::engine();
    let removed = removed.remove_image(name, None::<RemoveImageOptions>, None);
    engine::runtime().block_on(removed).expect("it is removed");
}

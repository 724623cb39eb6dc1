//! The security guide's own example, word for word, on each backend (C1).

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    image::{HOSTILE_CHANGES, IMAGE, make_image, without_engine},
    support::{Client, Machine, User, alone_on_the_machine, skip, users},
};

const GUIDE: &str = include_str!("guide.json");
/// The guide's project.
const PROJECT: &str = "/app";

/// `/app`, made for a test and removed with it, one at a time on the machine.
struct App {
    _alone: fs::File,
}

impl App {
    /// `None`, said loudly, where it cannot be had.
    fn make(leg: &str) -> Option<App> {
        let alone = alone_on_the_machine();
        if !users().contains(&User::Root) || fs::create_dir(PROJECT).is_err() {
            skip(
                "guide",
                &format!("{leg}: not root, or there is something at {PROJECT}"),
            );
            return None;
        }
        Some(App { _alone: alone })
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(PROJECT);
    }
}

fn guide() -> Value {
    let guide: Value = serde_json::from_str(GUIDE).expect("JSON");
    assert_eq!(guide["tool"], "create_session");
    guide["arguments"].clone()
}

fn limit(created: &Value, name: &str) -> (Value, Value) {
    let limits = created["hardening"]["limits"].as_array().expect("limits");
    let found = limits
        .iter()
        .find(|limit| limit["limit"] == name)
        .expect("every limit is listed");
    (found["inForce"].clone(), found["enforcement"].clone())
}

/// Creates the guide's session and reads back what it promises, from the kernel and from inside.
fn holds(client: &mut Client) {
    let created = client
        .tool("create_session", guide())
        .expect("the guide's session");
    let session = created["sessionId"].as_str().expect("an id").to_owned();
    assert_eq!(
        limit(&created, "memoryBytes"),
        (json!(2_u64 << 30), json!("hard"))
    );
    assert_eq!(limit(&created, "cpuMillis"), (json!(500), json!("hard")));
    for name in ["noNewPrivileges", "emptyCapabilities", "readOnlyRoot"] {
        let layers = created["hardening"]["layers"].as_array().expect("layers");
        let found = layers.iter().find(|layer| layer["layer"] == name);
        assert_eq!(found.expect("listed")["inForce"], true, "{name}");
    }
    let status = client.output(&session, "cat /proc/self/status");
    for line in [
        "NoNewPrivs:\t1",
        "CapBnd:\t0000000000000000",
        "CapEff:\t0000000000000000",
    ] {
        assert!(status.contains(line), "{line} in {status}");
    }
    let refused = client.run(&session, "touch /made");
    assert!(
        refused["stderr"]["text"]
            .as_str()
            .expect("text")
            .contains("Read-only")
    );
    // Half a CPU, measured: processor time of a loop that runs for five seconds.
    let script = "my $b = time; 1 while time == $b; $b = time; my @a = times; 1 while time < $b + 5; my @z = times; \
                  print(($z[0] + $z[1] - $a[0] - $a[1]) / 5)";
    let busy =
        json!({ "sessionId": session, "argv": ["/usr/bin/perl", "-e", script], "waitSeconds": 20 });
    let ran = client.tool("execute_command", busy).expect("an execution");
    let share = ran["stdout"]["text"]
        .as_str()
        .and_then(|text| text.parse::<f64>().ok());
    let share = share.unwrap_or_else(|| panic!("{ran:#}"));
    assert!((0.45..=0.55).contains(&share), "{share} of a CPU");
    client.destroy(&session);
}

#[test]
fn the_guides_example_holds_on_the_embedded_backend_with_half_a_cpu() {
    let Some(_app) = App::make("the guide on the embedded backend") else {
        return;
    };
    let mut machine = Machine::new(User::Root);
    machine.set("CLAUDE_CODE_MCP_PROJECT_ROOTS", PROJECT);
    holds(&mut machine.client());
}

#[test]
fn the_guides_example_holds_on_an_engine_with_half_a_cpu() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    if runtime.block_on(without_engine("the guide on an engine")) {
        return;
    }
    let Some(_app) = App::make("the guide on an engine") else {
        return;
    };
    runtime.block_on(make_image(IMAGE, HOSTILE_CHANGES));
    let mut machine = Machine::new(User::Root);
    machine
        .set("CLAUDE_CODE_MCP_PROJECT_ROOTS", PROJECT)
        .set("CLAUDE_CODE_MCP_BACKEND", "docker")
        .set("DEFAULT_CLAUDE_IMAGE", IMAGE);
    holds(&mut machine.client());
}

#[test]
fn options_that_would_widen_are_refused_with_their_rule_and_change_nothing() {
    let machine = Machine::new(users()[0]);
    let before = machine.census();
    let mut client = machine.client();
    for (options, code, field) in [
        (
            json!({ "Privileged": true }),
            "policy_denied",
            "dockerOpts.Privileged",
        ),
        (
            json!({ "CapAdd": ["SYS_ADMIN"] }),
            "policy_denied",
            "dockerOpts.CapAdd",
        ),
        (
            json!({ "Binds": ["/:/host"] }),
            "policy_denied",
            "dockerOpts.Binds",
        ),
        (
            json!({ "NetworkMode": "host" }),
            "policy_denied",
            "dockerOpts.NetworkMode",
        ),
        (
            json!({ "SecurityOpt": ["no-new-privileges", "seccomp:unconfined"] }),
            "policy_denied",
            "dockerOpts.SecurityOpt[1]",
        ),
        (
            json!({ "MaskedPaths": [] }),
            "policy_denied",
            "dockerOpts.MaskedPaths",
        ),
        (
            json!({ "memory": "2g" }),
            "invalid_argument",
            "dockerOpts.memory",
        ),
        (
            json!({ "Memory": -1 }),
            "invalid_argument",
            "dockerOpts.Memory",
        ),
        (
            json!({ "Memory": 1.5 }),
            "invalid_argument",
            "dockerOpts.Memory",
        ),
        (
            json!({ "CpuQuota": "50000" }),
            "invalid_argument",
            "dockerOpts.CpuQuota",
        ),
        (
            json!({ "Ulimits": [[[[[[[[1]]]]]]]] }),
            "invalid_argument",
            "dockerOpts.Ulimits[0][0][0][0]",
        ),
    ] {
        let refused = client
            .tool(
                "create_session",
                json!({ "projectPath": machine.project, "dockerOpts": options }),
            )
            .expect_err("refused");
        assert_eq!(refused["code"], code, "{options}: {refused:#}");
        assert_eq!(refused["field"], field, "{options}: {refused:#}");
    }
    assert_eq!(machine.census(), before);
    let log = fs::read_to_string(machine.audit_log()).expect("the log");
    assert!(log.contains("\"policy_denied\""), "refusals are on record");
    assert!(!log.contains("SYS_ADMIN"), "by digest, not by content");
    // The control: what narrows nothing and widens nothing is taken.
    let harmless = json!({ "projectPath": machine.project, "dockerOpts": { "Privileged": false, "CapDrop": ["ALL"] } });
    let session = client.create_with(harmless);
    client.destroy(&session);
    assert!(Path::new(&machine.project).exists());
}

//! The security guide's own example, word for word, on each backend (C1).

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    image::{HOSTILE_CHANGES, IMAGE, make_image, without_engine},
    support::{Client, Machine, User, alone_on_the_machine, skip, until, users},
};

const GUIDE: &str = include_str!("guide.json");
/// The guide's project.
const PROJECT: &str = "/app";
/// How often half a CPU is measured at most, where the rest of the machine leaves less.
const MEASUREMENTS: usize = 5;

/// `/app`, made for a test and removed with it, one at a time on the machine.
struct App {
    _alone: fs::File,
}

impl App {
    /// `None`, said loudly, where it cannot be had.
    fn make(leg: &str) -> Option<App> {
        let alone = alone_on_the_machine();
        if !users().contains(&User::Root) {
            let why = format!("{leg}: only root makes a directory at {PROJECT}");
            skip("guide", &why);
            return None;
        }
        // What stands there is somebody's: a session would write into it, and the test would remove it.
        if let Err(error) = fs::create_dir(PROJECT) {
            let why = format!(
                "{leg}: {PROJECT} cannot be made ({error}); move away what stands there, the guide names no other place"
            );
            skip("guide", &why);
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
    assert_eq!(
        created["dockerOptsInForce"],
        json!({
            "Memory": 2_u64 << 30, "CpuQuota": 50_000, "CpuPeriod": 100_000, "PidsLimit": 512,
            "Ulimits": [
                { "Name": "nofile", "Soft": 4096, "Hard": 4096 },
                { "Name": "fsize", "Soft": 4_u64 << 30, "Hard": 4_u64 << 30 },
            ],
            "CapDrop": ["ALL"], "ReadonlyRootfs": true, "SecurityOpt": ["no-new-privileges"], "NetworkMode": "none",
        })
    );
    let cpu_group = control_group_of(client, &session);
    let throttled = || {
        let counters =
            fs::read_to_string(cpu_group.join("cpu.stat")).expect("the group's counters");
        let found = counters
            .lines()
            .find_map(|line| line.strip_prefix("nr_throttled "));
        found.expect("a counter").parse::<u64>().expect("a number")
    };
    let throttled_before = throttled();
    // Others can take of a busy machine's time, so a share below is measured again; one above is a limit that does not hold.
    let share = (0..MEASUREMENTS)
        .map(|_| share_of_a_cpu(client, &session))
        .find(|share| *share >= 0.45)
        .expect("a machine that has half a CPU to give");
    assert!(share <= 0.55, "{share} of a CPU");
    // In up to fifty periods: not in those in which the rest of a busy machine kept the loop below its quota.
    assert!(throttled() > throttled_before, "never throttled");
    // What is in force, asked for in its own words, is the same again.
    let again = json!({ "projectPath": PROJECT, "dockerOpts": created["dockerOptsInForce"] });
    client.destroy(&session);
    let same = client
        .tool("create_session", again)
        .expect("a session like it");
    assert_eq!(same["dockerOptsInForce"], created["dockerOptsInForce"]);
    client.destroy(same["sessionId"].as_str().expect("an id"));
}

/// Processor time of a loop that runs for five seconds, for each of them.
fn share_of_a_cpu(client: &mut Client, session: &str) -> f64 {
    let script = "my $b = time; 1 while time == $b; $b = time; my @a = times; 1 while time < $b + 5; my @z = times; \
                  print(($z[0] + $z[1] - $a[0] - $a[1]) / 5)";
    let busy =
        json!({ "sessionId": session, "argv": ["/usr/bin/perl", "-e", script], "waitSeconds": 20 });
    let ran = client.tool("execute_command", busy).expect("an execution");
    let share = ran["stdout"]["text"]
        .as_str()
        .and_then(|text| text.parse().ok());
    share.unwrap_or_else(|| panic!("{ran:#}"))
}

/// Options beyond the guide's, read back from inside.
fn narrows(client: &mut Client) {
    let options = json!({
        "Tmpfs": { "/tmp": "rw,nosuid,nodev,size=8m" }, "ShmSize": "1m", "PidsLimit": 100,
        "Ulimits": [
            { "Name": "nofile", "Soft": 200, "Hard": 400 },
            { "Name": "nproc", "Soft": 60, "Hard": 60 },
            { "Name": "core", "Soft": 0, "Hard": 0 },
        ],
        "CapDrop": ["NET_RAW", "CAP_SYS_ADMIN"], "NetworkMode": "none", "Init": true,
    });
    let arguments = json!({ "projectPath": PROJECT, "dockerOpts": options });
    let created = client
        .tool("create_session", arguments)
        .expect("a narrow session");
    let in_force = &created["dockerOptsInForce"];
    assert_eq!(in_force["PidsLimit"], 60, "{created:#}");
    assert_eq!(in_force["CapDrop"], json!(["ALL"]), "{created:#}");
    let session = created["sessionId"].as_str().expect("an id");
    let script = "ulimit -n; ulimit -Hn; ulimit -c; for place in /tmp /dev/shm; do stat -f -c '%b*%S' $place; done; \
                  grep -E ' (/tmp|/dev/shm) ' /proc/self/mounts | grep nosuid | grep -c nodev";
    let told = client.output(session, script);
    let bytes = |product: &str| {
        let numbers = product
            .split('*')
            .map(|number| number.parse::<u64>().expect("a number"));
        numbers.product::<u64>()
    };
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[..3], ["200", "200", "0"], "{told}");
    assert_eq!(
        [bytes(lines[3]), bytes(lines[4])],
        [8 << 20, 1 << 20],
        "{told}"
    );
    assert_eq!(lines[5], "2", "both nosuid and nodev: {told}");
    client.destroy(session);
}

/// The directory of the host's CPU controller in which a session's processes are, found by one of them.
fn control_group_of(client: &mut Client, session: &str) -> PathBuf {
    let seconds = format!("8{:05}", std::process::id() % 100_000);
    let sleep = json!({ "sessionId": session, "argv": ["/bin/sleep", seconds], "waitSeconds": 0 });
    let started = client.tool("execute_command", sleep).expect("a sleeper");
    let command = format!("/bin/sleep\0{seconds}\0");
    let mut found = None;
    until("the sleeper is seen from the host", || {
        let processes = fs::read_dir("/proc").expect("processes").flatten();
        found = processes
            .map(|process| process.path())
            .find(|process| {
                fs::read(process.join("cmdline")).is_ok_and(|line| line == command.as_bytes())
            })
            .and_then(|process| fs::read_to_string(process.join("cgroup")).ok());
        found.is_some()
    });
    client
        .tool(
            "cancel_execution",
            json!({ "executionId": started["executionId"] }),
        )
        .expect("its end");
    cpu_directory(&found.expect("its groups"))
}

/// Version 1's `3:cpu,cpuacct:/path`, where the controller is there, else version 2's `0::/path`.
fn cpu_directory(groups: &str) -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let mounted = |kind: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let has_option = option.is_empty() || fields[3].split(',').any(|found| found == option);
            (fields[2] == kind && has_option).then(|| PathBuf::from(fields[1]))
        })
    };
    let path = |wanted: &dyn Fn(&str) -> bool| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?;
            let path = fields.next()?;
            controllers
                .split(',')
                .any(wanted)
                .then(|| path.trim_start_matches('/'))
        })
    };
    if let (Some(path), Some(mount)) = (path(&|name| name == "cpu"), mounted("cgroup", "cpu")) {
        return mount.join(path);
    }
    let path = path(&str::is_empty).expect("a group of version 2");
    mounted("cgroup2", "").expect("its mount").join(path)
}

#[test]
fn the_guides_example_holds_on_the_embedded_backend_with_half_a_cpu() {
    let Some(_app) = App::make("the guide on the embedded backend") else {
        return;
    };
    let mut machine = Machine::new(User::Root);
    machine.set("CLAUDE_CODE_MCP_PROJECT_ROOTS", PROJECT);
    let mut client = machine.client();
    holds(&mut client);
    narrows(&mut client);
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
    let mut client = machine.client();
    holds(&mut client);
    narrows(&mut client);
}

#[test]
fn the_command_line_takes_the_same_options() {
    let machine = Machine::new(users()[0]);
    let create =
        |options: &str| machine.cli(&["session", "create", "--json", "--docker-opts", options]);
    let options =
        r#"{"Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 100}], "CapDrop": ["ALL"]}"#;
    let file = machine.write("options.json", options);
    for flag in [options.to_owned(), format!("@{}", file.display())] {
        let created = create(&flag);
        assert!(created.status.success(), "{created:?}");
        let session: Value = serde_json::from_slice(&created.stdout).expect("a session");
        let limit = &session["dockerOptsInForce"]["Ulimits"][0];
        assert_eq!(limit["Soft"], 100, "{session:#}");
        let id = session["sessionId"].as_str().expect("an id");
        let told = machine.cli(&["session", "exec", id, "--", "sh", "-c", "ulimit -n"]);
        assert_eq!(String::from_utf8_lossy(&told.stdout), "100\n");
        assert!(machine.cli(&["session", "destroy", id]).status.success());
    }
    for (options, code, says) in [
        (r#"{"Privileged": true}"#, 1, "rule H13"),
        (r#"{"Memory": 1.5}"#, 2, "rule F03"),
        (r#"{"Memory": "1g", "Memory": "2g"}"#, 2, "given twice"),
        ("Memory=1g", 2, "JSON"),
    ] {
        let refused = create(options);
        assert_eq!(refused.status.code(), Some(code), "{options}: {refused:?}");
        let told = [refused.stdout, refused.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        assert!(told.contains(says), "{options}: {told}");
    }
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

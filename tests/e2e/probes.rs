//! `doctor --probe` on an engine that does not as it is asked, and where there is none; and the same trial where nothing keeps it
//! from anything. `docker` has the engine that does as it is asked.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Stdio};

use sandbox::wire::{Probe, TRIAL_OPTION, TrialFinding, TrialOutcome, read_trial};
use sandbox_docker::calls::Call;
use serde_json::{Value, json};

use crate::support::{
    Machine, User,
    engine::machine,
    filter::{Fault, Filter},
    skip,
};

/// Runs with a root of its own that has nothing but the program and `/proc`, in namespaces of its own. `$1`: a directory;
/// `$2`: the program. The machine's root stays below `/outside`, where no probe looks.
const WEAK_PLACE: &str = "set -e
    mount --make-rprivate /
    mount -t tmpfs none \"$1\"
    cd \"$1\"
    mkdir proc tmp outside
    cp \"$2\" supervisor
    mount -t proc proc proc
    pivot_root . outside
    exec /supervisor";
/// What goes through there. What does not needs capabilities over the machine itself (bpf, device files, control groups), or
/// something that the place has not: other interfaces, a leaked descriptor, a kernel with AF_ALG.
const OPEN_THERE: [Probe; 13] = [
    Probe::Mount,
    Probe::UserNamespace,
    Probe::Keyring,
    Probe::Trace,
    Probe::ProcessMemory,
    Probe::IoUring,
    Probe::VsockSocket,
    Probe::NetfilterSocket,
    Probe::RouteSocket,
    Probe::PerfEvents,
    Probe::UserFaults,
    Probe::HiddenProcFiles,
    Probe::WriteRoot,
];

const CREATE: Call = ("POST", "/containers/create");
const REMOVE: Call = ("DELETE", "/containers/{id}");

/// A directory for all that is made for a moment.
fn scratch(machine: &mut Machine) -> PathBuf {
    let scratch = machine.base().join("scratch");
    fs::create_dir(&scratch).expect("a directory");
    machine.set("TMPDIR", scratch.to_str().expect("its name"));
    scratch
}

fn doctor(machine: &Machine, arguments: &[&str]) -> (Option<i32>, Value) {
    let told = machine.cli(&[&["doctor", "--json"], arguments].concat());
    let report = serde_json::from_slice(&told.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {told:?}"));
    (told.status.code(), report)
}

fn probes(report: &Value) -> &Vec<Value> {
    let probes = &report["docker"]["walls"]["probes"];
    probes
        .as_array()
        .unwrap_or_else(|| panic!("no probes: {report:#}"))
}

fn texts(value: &Value) -> String {
    let lines = value.as_array().into_iter().flatten();
    lines
        .filter_map(Value::as_str)
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn walls_that_could_not_be_tried_are_no_success() {
    let mut machine = Machine::new(User::Root);
    let nowhere = machine.base().join("nowhere.sock");
    machine.set("DOCKER_HOST", &format!("unix://{}", nowhere.display()));
    let (code, report) = doctor(&machine, &["--probe"]);
    let problems = texts(&report["docker"]["walls"]["problems"]);
    assert_eq!((code, &report["ok"]), (Some(1), &json!(false)));
    assert!(
        problems.contains("what to do: install and start Docker"),
        "{problems}"
    );
    assert_eq!(probes(&report).len(), 0);
    let (code, report) = doctor(&machine, &[]);
    assert_eq!(
        (code, &report["ok"]),
        (Some(0), &json!(true)),
        "the control: {report:#}"
    );
}

/// Takes the filter of system calls and the read-only root from a container, and leaves the rest.
fn weakened(body: &[u8]) -> Vec<u8> {
    let mut body: Value = serde_json::from_slice(body).expect("a container's body");
    body["HostConfig"]["SecurityOpt"] = json!(["no-new-privileges", "seccomp=unconfined"]);
    body["HostConfig"]["ReadonlyRootfs"] = json!(false);
    serde_json::to_vec(&body).expect("a body")
}

#[test]
fn an_engine_that_weakens_its_containers_is_told_by_what_goes_through_and_by_the_exit_code() {
    let Some(mut machine) = machine("doctor --probe on a weak engine") else {
        return;
    };
    let filter = Filter::start(&machine.base().join("engine.sock"));
    filter.break_call(Some((CREATE, Fault::Changed(weakened))));
    machine.use_engine(&filter.socket);
    let scratch = scratch(&mut machine);
    let (code, report) = doctor(&machine, &["--probe"]);
    assert_eq!((code, &report["ok"]), (Some(1), &json!(false)));
    let problems = texts(&report["docker"]["walls"]["problems"]);
    for open in [Probe::IoUring, Probe::Keyring, Probe::Trace] {
        assert!(problems.contains(open.as_str()), "{open:?} in {problems}");
        let found = probes(&report)
            .iter()
            .find(|one| one["probe"] == open.as_str());
        assert_eq!(found.expect("the probe")["outcome"], "possible");
    }
    // What capabilities and the kernel's own permissions keep from is still kept.
    assert!(!problems.contains("corePattern"), "{problems}");
    // What a fault is judged by went through: what was said to keep sessions from it does not count.
    let advisories = report["docker"]["advisories"].as_array().expect("a list");
    let by_uring = advisories.iter().find(|one| one["id"] == "CVE-2023-2598");
    assert_eq!(by_uring.expect("the row")["behavior"], "possible");
    let told = machine.cli(&["doctor", "--probe"]);
    let text = String::from_utf8_lossy(&told.stdout);
    assert_eq!(told.status.code(), Some(1));
    assert!(text.contains("io_uring"), "the reason, for people: {text}");
    assert!(filter.made().contains(&REMOVE));
    assert_eq!(fs::read_dir(scratch).expect("it").count(), 0);
}

#[test]
fn the_trial_says_possible_where_nothing_keeps_from_it() {
    if !rustix::process::geteuid().is_root() {
        skip("root", "a weak place for a trial");
        return;
    }
    let machine = Machine::new(User::Root);
    let program = machine.base().join("supervisor");
    fs::write(&program, sandbox_host::supervisor_binary()).expect("the program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
    let place = machine.base().join("place");
    fs::create_dir(&place).expect("a directory");
    let script = format!("{WEAK_PLACE} {TRIAL_OPTION}");
    let output = machine
        .command_of_the_tester("/usr/bin/unshare".as_ref())
        .args(["--user", "--map-root-user", "--mount", "--pid", "--fork"])
        .args(["--net", "--kill-child", "sh", "-c", &script, "sh"])
        .args([&place, &program])
        .stdin(Stdio::null())
        .output()
        .expect("unshare");
    let denied = String::from_utf8_lossy(&output.stderr);
    if denied.contains("unshare failed") {
        skip(
            "user-namespaces",
            &format!("a weak place for a trial: {denied}"),
        );
        return;
    }
    let findings = read_trial(&String::from_utf8_lossy(&output.stdout));
    let findings = findings.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let possible = |found: &&TrialFinding| found.outcome == TrialOutcome::Possible;
    for probe in OPEN_THERE {
        let found = findings.iter().find(|found| found.probe == probe);
        assert!(found.iter().any(possible), "{found:?}");
    }
    // The place had a network and a root of its own, so these hold there, too: the trial does not call everything possible.
    for probe in [Probe::NetworkInterface, Probe::HostDescriptor] {
        let found = findings.iter().find(|found| found.probe == probe);
        assert!(!found.iter().any(possible), "{found:?}");
    }
    let left = fs::read_dir("/").expect("the root").flatten();
    let left = left.filter(|entry| entry.file_name().to_string_lossy().contains("-trial-"));
    assert_eq!(left.count(), 0, "what a probe makes it takes away");
}

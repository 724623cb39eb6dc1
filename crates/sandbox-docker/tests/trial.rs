//! The trial of the walls: in a session's sandbox every probe that sessions rely on is blocked, and in weak containers of the
//! same engine each of them goes through.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking and say what they skip"
)]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use model::{Layer, Requirement};
use sandbox::{
    Backend,
    wire::{Probe, TRIAL_OPTION, TrialFinding, TrialOutcome, read_trial},
};
use sandbox_docker::{
    calls,
    doctor::{Behavior, ItemState, stand},
};
use support::{Ground, IMAGE};

/// What no weak container of this machine can show: its kernel has no such sockets. The profile's own test is among those of
/// the system calls, where the filter's answer is told from the kernel's.
const WITHOUT_CONTROL: [Probe; 1] = [Probe::CryptoSocket];

#[tokio::test]
async fn every_way_out_is_blocked_in_a_sessions_sandbox_and_nothing_stays() {
    let Some(ground) = Ground::new("a trial").await else {
        return;
    };
    let mut spec = ground.spec();
    spec.layers = vec![(Layer::Seccomp, Requirement::Required)];
    let trial = ground.docker.try_walls(&spec).await.unwrap();
    for finding in &trial.findings {
        let wanted = if finding.probe == Probe::RouteSocket {
            TrialOutcome::Possible
        } else {
            TrialOutcome::Blocked
        };
        assert_eq!(finding.outcome, wanted, "{finding:?}");
        assert_eq!(
            finding.probe.is_relied_on(),
            wanted == TrialOutcome::Blocked
        );
    }
    let su = trial
        .findings
        .iter()
        .find(|found| found.probe == Probe::SetUserId);
    let su = &su.unwrap().detail;
    assert_eq!(
        su, "/usr/bin/su ran as uid 1000",
        "it was tried by running it"
    );
    for item in &trial.benchmark {
        assert_ne!(item.state, ItemState::Fail, "{item:?}");
    }
    assert!(
        trial
            .benchmark
            .iter()
            .filter(|item| item.state == ItemState::Pass)
            .count()
            > 25
    );
    assert_eq!(trial.weakness, None);

    let versions = ground.docker.about().await.unwrap().versions;
    let by_behavior = |findings| {
        let all = stand(&versions, findings).unwrap().into_iter();
        all.filter(|found| found.behavior == Behavior::Blocked)
            .count()
    };
    assert!(by_behavior(&trial.findings) >= 9);
    assert_eq!(by_behavior(&[]), 0, "the control");

    let made = ground.filter.made();
    for call in calls::SESSIONS
        .iter()
        .filter(|call| call.0 == "DELETE" || call.1.ends_with("/create"))
    {
        assert!(made.contains(call), "{call:?} in {made:?}");
    }
    assert_eq!(ground.filter.refused(), Vec::<String>::new());
    assert_eq!(ground.docker.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_layer_that_is_required_and_missing_is_told() {
    let Some(ground) = Ground::new("a weak trial").await else {
        return;
    };
    let mut spec = ground.spec();
    // An engine without userns-remap has none.
    spec.layers = vec![(Layer::UserNamespace, Requirement::Required)];
    match ground.docker.try_walls(&spec).await {
        // Refused before it is made, or told of it: never passed over.
        Err(error) => assert!(format!("{error:?}").contains("UserNamespace"), "{error:?}"),
        Ok(trial) => assert_eq!(
            trial.weakness.unwrap().layers[0].layer,
            Layer::UserNamespace
        ),
    }
    assert_eq!(ground.docker.list().await.unwrap(), []);
}

#[tokio::test]
async fn every_probe_goes_through_where_the_walls_are_weak() {
    let Some(ground) = Ground::new("weak containers for a trial").await else {
        return;
    };
    let program = ground.directory.path().join("program");
    fs::create_dir(&program).unwrap();
    let file = program.join("supervisor");
    fs::write(&file, sandbox_host::supervisor_binary()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let volume = format!("{}:/t", program.display());
    let weak = |options: &[&str], script: &str| {
        let socket = format!("unix://{}", ground.filter.engine.display());
        let output = Command::new("docker")
            .args([
                "--host",
                &socket,
                "run",
                "--rm",
                "--workdir",
                "/",
                "--volume",
                &volume,
            ])
            .args([
                "--security-opt",
                "seccomp=unconfined",
                "--security-opt",
                "systempaths=unconfined",
            ])
            // The image's own words are hostile on purpose.
            .args(["--env", "PATH=/usr/bin:/bin", "--env", "LD_PRELOAD="])
            .args(options)
            .args(["--entrypoint", "/bin/sh", IMAGE, "-c", script])
            .stdin(Stdio::null())
            .output()
            .expect("Docker's client");
        let text = String::from_utf8_lossy(&output.stdout);
        read_trial(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    };
    let plain = format!("exec /t/supervisor {TRIAL_OPTION}");
    // Root with capabilities, the machine's network and its control groups; nothing is written to any of them.
    let root = weak(
        &[
            "--network",
            "host",
            "--cap-add",
            "SYS_ADMIN",
            "--cap-add",
            "SYS_PTRACE",
            "--volume",
            "/sys/fs/cgroup:/sys/fs/cgroup",
        ],
        &plain,
    );
    // A user without no_new_privs.
    let user = weak(&["--network", "none", "--user", "1000:1000"], &plain);
    // A root of its own with a descriptor and a working directory left outside, and /dev as a link.
    let leaking = "mkdir -p /r/proc /r/tmp && cp /t/supervisor /r/ && ln -s /proc /r/dev && \
        perl -e 'BEGIN { $^F = 100 } my ($from, $to, $kind) = (\"proc\", \"/r/proc\", \"proc\"); \
        syscall(165, $from, $to, $kind, 0, 0) == 0 or die; opendir(my $outside, \"/usr\") or die; \
        chroot(\"/r\") or die; exec(\"/supervisor\", \"--trial\")'";
    let leaking = weak(&["--network", "none", "--cap-add", "SYS_ADMIN"], leaking);

    let mut best: BTreeMap<&str, TrialFinding> = BTreeMap::new();
    for finding in [root, user, leaking].into_iter().flatten() {
        let name = finding.probe.as_str();
        if finding.outcome == TrialOutcome::Possible || !best.contains_key(name) {
            best.insert(name, finding);
        }
    }
    for finding in best.values() {
        let wanted = match WITHOUT_CONTROL.contains(&finding.probe) {
            true => [TrialOutcome::Possible, TrialOutcome::Unknown],
            false => [TrialOutcome::Possible; 2],
        };
        assert!(wanted.contains(&finding.outcome), "{finding:?}");
    }
    assert_eq!(best.len(), Probe::ALL.len());
}

/// The machine itself is no place to try anything.
#[test]
fn outside_of_a_sandbox_nothing_is_tried() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("supervisor");
    fs::write(&file, sandbox_host::supervisor_binary()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap();
    if namespace.as_os_str() != "pid:[4026531836]" {
        support::skip(
            "first pid namespace",
            "a trial outside: the tests are in a container themselves",
        );
        return;
    }
    let output = Command::new(&file).arg(TRIAL_OPTION).output().unwrap();
    assert_eq!(output.status.code(), Some(70), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("outside of a sandbox"));
}

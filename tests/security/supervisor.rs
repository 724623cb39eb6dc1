//! Attacks on the supervisor, which has the agent's uid: command it, speak for it, starve it, end it, look into it,
//! outlive it, renew its lease, forge its results.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{
    place::places,
    probe::{Sandbox, each},
    support::{Machine, PATIENCE, alone_on_the_machine, until},
};

/// Within how much a cancelled execution must have ended, whatever it does: grace included.
const CANCEL: Duration = Duration::from_millis(2_000);

fn kill_server(machine: &Machine) {
    let pid = machine.server_pid().expect("a server");
    kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("killed");
    until("the server is dead", || {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_or(true, |stat| stat.contains(") Z "))
    });
}

/// Connects to the host's socket as an agent can, says something, and tells what came back.
const DIAL: &str = r#"
sub dial {
    socket(my $s, PF_UNIX, SOCK_STREAM, 0) or return err();
    connect($s, pack_sockaddr_un("/run/supervisor/host.sock")) or return err();
    local $SIG{PIPE} = "IGNORE";
    syswrite($s, $_[0]) if length $_[0];
    my $got = sysread($s, my $answer, 65536);
    return defined $got ? ($got == 0 ? "closed" : "answered " . unpack("H*", $answer)) : err();
}
"#;

#[test]
fn an_agent_that_dials_the_host_is_hung_up_on() {
    each(|sandbox| {
        let frames = [
            "''",
            "\"\\0\" x 4",
            "\"\\xff\" x 65536",
            "pack('V', 5) . 'hello'",
            "pack('V', 0xffffffff)",
            "pack('N', 16) . '{\"Hello\":{\"v\":1}}'",
        ];
        for frame in frames {
            let answer = sandbox.perl(&format!("{DIAL} print dial({frame})"));
            let wanted = sandbox.place.expected().dialling;
            assert!(wanted.contains(&answer.as_str()), "{frame}: {answer}");
        }
        sandbox.still_works();
        let many = sandbox.perl(&format!(
            "{DIAL} my %a; $a{{dial('x' x 100)}}++ for 1 .. 500; print join ',', sort keys %a"
        ));
        assert!(!many.contains("answered"), "{many}");
        sandbox.still_works();
    });
}

#[test]
fn an_agent_cannot_speak_for_the_supervisor_to_a_server_that_comes_back() {
    for place in places() {
        let mut sandbox = Sandbox::new(place);
        let hammer = format!(
            "{DIAL} $SIG{{TERM}} = 'IGNORE'; while (1) {{ dial(pack('V', 5) . 'hello'); select(undef, undef, undef, 0.001) }}"
        );
        let script = format!("use strict; use Errno; use Socket; sub err {{ $! + 0 }} {hammer}");
        let arguments = json!({
            "sessionId": sandbox.session, "argv": ["/usr/bin/perl", "-e", script], "waitSeconds": 0,
        });
        let started = sandbox
            .client
            .tool("execute_command", arguments)
            .expect("an execution");
        let execution = started["executionId"].as_str().expect("its id").to_owned();
        kill_server(&sandbox.machine);
        sandbox.client = sandbox.machine.client();
        let deadline = Instant::now() + PATIENCE;
        let session = sandbox.session.clone();
        while sandbox
            .client
            .tool(
                "execute_command",
                json!({ "sessionId": session, "command": "true" }),
            )
            .is_err()
        {
            assert!(
                Instant::now() < deadline,
                "the supervisor never got through"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        sandbox.still_works();
        assert_eq!(sandbox.look(&execution, 0)["state"], "running");
        sandbox.cancel(&execution);
        sandbox.still_works();
        sandbox.destroy();
        assert!(sandbox.machine.sandbox_pids().is_empty());
    }
}

#[test]
fn a_cancel_while_the_next_server_takes_over_is_carried_out_or_refused() {
    each(|sandbox| {
        let execution = sandbox.start("sleep 600");
        kill_server(&sandbox.machine);
        sandbox.client = sandbox.machine.client();
        let cancel = json!({ "executionId": execution });
        until("a cancel is accepted", || {
            sandbox
                .client
                .tool("cancel_execution", cancel.clone())
                .is_ok()
        });
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let looked = sandbox.look(&execution, 1);
            if looked["state"] == "killed" {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "it was accepted and lost: {looked:#}"
            );
        }
    });
}

#[test]
fn an_agent_cannot_slow_pin_or_limit_the_supervisor() {
    each(|sandbox| {
        let Scheduling { nice, policy, cpu } = Scheduling::of(sandbox);
        let nicer = (nice + 5).min(19);
        let probes = [
            (
                "prlimit64",
                "call(302, PID, 7, pack('Q2', 3, 3), 0)".to_owned(),
            ),
            (
                "sched_setaffinity",
                format!(
                    "do {{ my $m = \"\\0\" x 128; vec($m, {cpu}, 1) = 1; call(203, PID, 128, $m) }}"
                ),
            ),
            (
                "sched_setscheduler",
                format!("call(144, PID, {policy}, pack('l', 0))"),
            ),
            (
                "sched_setscheduler to idle",
                format!("call(144, PID, {IDLE}, pack('l', 0))"),
            ),
            (
                "sched_setattr",
                format!(
                    "call(314, PID, pack('L2 Q l L Q3', 48, {policy}, 0, {nice}, 0, 0, 0, 0), 0)"
                ),
            ),
            ("setpriority", format!("call(141, 0, PID, {nicer})")),
            ("ioprio_set", "call(251, 1, PID, 3 << 13)".to_owned()),
        ];
        for (name, probe) in probes {
            let on = |pid: &str| format!("print {}", probe.replace("PID", pid));
            assert_eq!(sandbox.perl(&on("1")), "EPERM", "{name}");
            let untaken = sandbox.place.expected().untaken.contains(&name);
            assert_eq!(
                sandbox.perl(&on("0")) == "ok",
                !untaken,
                "the control of {name}"
            );
        }
        for (name, probe) in [
            ("the user's priority", "call(141, 2, 1000, 5)"),
            ("the user's priority by 0", "call(141, 2, 0, 5)"),
            ("the supervisor's process group", "call(141, 1, 1, 5)"),
            ("the user's priority of IO", "call(251, 3, 1000, 3 << 13)"),
            ("joining the supervisor's process group", "call(109, 0, 1)"),
        ] {
            assert_eq!(sandbox.perl(&format!("print {probe}")), "EPERM", "{name}");
        }
        for file in [
            "oom_score_adj",
            "autogroup",
            "comm",
            "coredump_filter",
            "timerslack_ns",
            "clear_refs",
        ] {
            let denied = sandbox.perl(&format!("print writes('/proc/1/{file}')"));
            assert!(
                ["EACCES", "EPERM", "ENOENT"].contains(&denied.as_str()),
                "{file}: {denied}"
            );
        }
        let now = sandbox.sh("cut -d' ' -f19 /proc/1/stat").out;
        assert_eq!(now, nice.to_string());
    });
}

/// `SCHED_IDLE`: the one that anybody may take, whatever they have.
const IDLE: u32 = 5;

/// What a sandbox's processes have of whoever started them: may be anything, and is what the controls may ask for.
struct Scheduling {
    nice: i32,
    policy: u32,
    cpu: u32,
}

impl Scheduling {
    fn of(sandbox: &mut Sandbox) -> Self {
        // Of pid 1 and of what it starts alike (proc_pid_stat(5)); the first processor that it may run on.
        let said = sandbox.sh(
            "cut -d' ' -f19,41 /proc/1/stat; sed -n 's/^Cpus_allowed_list:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/self/status",
        );
        let mut words = said.out.split_whitespace().map(str::to_owned);
        let mut next = || words.next().and_then(|word| word.parse::<i32>().ok());
        let (nice, policy) = (next().expect("a priority"), next().expect("a policy"));
        Scheduling {
            nice,
            policy: policy.unsigned_abs(),
            // A kernel of the sandbox's own may not say.
            cpu: next().unwrap_or(0).unsigned_abs(),
        }
    }
}

#[test]
fn an_agent_cannot_look_into_the_supervisor() {
    each(|sandbox| {
        for file in [
            "mem",
            "maps",
            "smaps",
            "environ",
            "auxv",
            "pagemap",
            "stack",
            "syscall",
            "io",
            "cwd/x",
            "root/etc/passwd",
            "exe",
            "fd/0",
            "fd/1",
            "fd/2",
            "fd/3",
            "fd/4",
            "fd/5",
            "map_files/x",
        ] {
            let expected = sandbox.place.expected();
            if expected.opens_descriptors && file.starts_with("fd/") {
                continue;
            }
            for way in ["reads", "writes"] {
                let denied = sandbox.perl(&format!("print {way}('/proc/1/{file}')"));
                let is_open = way == "reads" && expected.open_files_of_others.contains(&file);
                let lacks = denied == "ENOENT" && expected.lacks_of_proc.contains(&file);
                assert!(
                    lacks || is_open || ["EACCES", "EPERM"].contains(&denied.as_str()),
                    "{way} {file}: {denied}"
                );
                assert_eq!(denied == "ok", is_open, "{way} {file}: {denied}");
            }
        }
        if sandbox.place.expected().opens_descriptors {
            writing_to_what_the_supervisor_has_open_says_nothing(sandbox);
        }
        for file in ["mem", "maps", "environ"] {
            assert_ne!(
                sandbox.perl(&format!("print reads('/proc/self/{file}')")),
                "EACCES",
                "the control {file}"
            );
        }
    });
}

/// Frames of no key, ended and too long, to everything that can be opened (`O_WRONLY | O_NONBLOCK`). What is stolen of the
/// streams instead, and ends the session, stands in the journeys with gVisor.
fn writing_to_what_the_supervisor_has_open_says_nothing(sandbox: &mut Sandbox) {
    let forged = sandbox.perl(
        "$SIG{PIPE} = 'IGNORE'; my $n = 0; for my $f (0 .. 30) { sysopen(my $h, \"/proc/1/fd/$f\", 2049) or next; \
         syswrite($h, \"\\0\" . \"\\1\\2\\3\" x 9 . \"\\0\" . 'A' x 70000 . \"\\0\") and $n++ } print $n",
    );
    assert_ne!(forged, "0", "the control: this kernel lets it");
    sandbox.still_works();
}

#[test]
fn an_agent_cannot_look_into_its_stub_or_write_to_its_report() {
    each(|sandbox| {
        let stub = "my ($stub) = (getppid());";
        let is = sandbox.perl(&format!(
            "{stub} open(my $f, '<', \"/proc/$stub/comm\"); print <$f>"
        ));
        assert!(
            !is.contains("perl"),
            "the parent of a command is its stub: {is}"
        );
        let list = format!("{stub} opendir(my $d, \"/proc/$stub/fd\") or print err()");
        let expected = sandbox.place.expected();
        let listed = if expected.opens_descriptors {
            ""
        } else {
            "EACCES"
        };
        assert_eq!(sandbox.perl(&list), listed);
        for file in ["mem", "environ", "fd/0", "fd/3", "fd/4", "exe", "cwd/x"] {
            if expected.opens_descriptors && file.starts_with("fd/") {
                continue;
            }
            for way in ["reads", "writes"] {
                let denied = sandbox.perl(&format!("{stub} print {way}(\"/proc/$stub/{file}\")"));
                let is_open = way == "reads" && expected.open_files_of_others.contains(&file);
                let wanted = if is_open { "ok" } else { "EACCES" };
                assert_eq!(denied, wanted, "{way} {file}");
            }
        }
        if expected.opens_descriptors {
            // Its one descriptor is a socket, which no path opens.
            let open = sandbox.perl(&format!(
                "{stub} opendir(my $d, \"/proc/$stub/fd\"); my @fds = grep {{ /\\d/ }} readdir $d; my (@open, $f); \
                 for (@fds) {{ push @open, $_ if sysopen($f, \"/proc/$stub/fd/$_\", 2049) || sysopen($f, \"/proc/$stub/fd/$_\", 2048) }} \
                 print scalar(@fds) . \" listed, open: @open\""
            ));
            assert_eq!(open, "1 listed, open:");
        }
    });
}

#[test]
fn no_signal_from_inside_reaches_the_supervisor() {
    each(|sandbox| {
        let sent = sandbox.perl("my $n = 0; for my $s (1 .. 64) { $n++ if kill($s, 1) } print $n");
        let refused = sandbox.place.expected().refuses_signals;
        let wanted = if refused { "0" } else { "64" };
        assert_eq!(sent, wanted, "where they can be sent the kernel drops them");
        sandbox.still_works();
        for signal in ["STOP", "KILL", "TERM", "TSTP", "SEGV"] {
            sandbox.sh(&format!("kill -{signal} 1; kill -{signal} 1"));
            sandbox.still_works();
        }
        let control = sandbox.sh("sleep 60 & kill -KILL $!; wait $!; echo $?");
        assert_eq!(control.out, "137", "the control: signals work on others");
    });
}

#[test]
fn an_agent_that_kills_its_stub_ends_itself_and_nothing_else() {
    each(|sandbox| {
        let ran = sandbox.sh(
            "setsid sleep 7777 & (trap '' TERM; sleep 7778) & sleep 0.1; kill -9 $PPID; sleep 7779",
        );
        assert_eq!(ran.all["state"], "killed", "{:#}", ran.all);
        let left = sandbox.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep 777[789]'");
        assert_eq!(left.out, "0");
        sandbox.still_works();
        let control = sandbox
            .sh("sleep 0.3 & cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep 0[.]3'");
        assert_ne!(control.out, "0", "the control: the look sees a sleep");
    });
}

#[test]
fn an_agent_that_stops_its_stub_can_still_be_cancelled() {
    each(|sandbox| {
        let execution =
            sandbox.start("kill -STOP $PPID; trap '' TERM; while :; do sleep 7776; done");
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        sandbox.cancel(&execution);
        let ended = sandbox.look(&execution, 10);
        assert_eq!(ended["state"], "killed", "{ended:#}");
        assert!(begun.elapsed() < CANCEL, "{:?}", begun.elapsed());
        let left = sandbox.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep 777[6]'");
        assert_eq!(left.out, "0");
    });
}

#[test]
fn a_signal_to_every_process_spares_the_supervisor() {
    each(|sandbox| {
        let other = sandbox.start("sleep 600");
        let ran = sandbox.sh("kill -9 -1; sleep 60");
        assert_eq!(ran.all["state"], "killed", "{:#}", ran.all);
        let other = sandbox.look(&other, 5);
        assert_eq!(other["state"], "killed", "{other:#}");
        sandbox.still_works();
    });
}

#[test]
fn a_starving_machine_does_not_keep_a_cancel_from_working() {
    let _alone = alone_on_the_machine();
    each(|sandbox| {
        let hostile = "trap '' TERM HUP INT; ulimit -n 4096; \
            perl -e '$SIG{TERM} = \"IGNORE\"; my @f; while (open(my $h, \"<\", \"/dev/null\")) { push @f, $h } \
                for (1 .. 100) { my $c = fork; last unless defined $c; if (!$c) { setpgrp; 1 while 1 } } sleep 600'";
        let execution = sandbox.start(hostile);
        std::thread::sleep(Duration::from_millis(800));
        let begun = Instant::now();
        sandbox.cancel(&execution);
        let ended = sandbox.look(&execution, 10);
        assert_eq!(ended["state"], "killed", "{ended:#}");
        assert!(begun.elapsed() < CANCEL, "{:?}", begun.elapsed());
        sandbox.still_works();
        let spinning = sandbox.sh("ls -d /proc/[0-9]* | wc -l").out;
        assert!(
            spinning.parse::<u32>().expect("a number") <= 6,
            "{spinning}"
        );
    });
}

#[test]
fn no_agent_renews_the_lease_of_a_dead_server() {
    for place in places() {
        let mut machine = place.machine();
        machine.set("CLAUDE_CODE_MCP_LEASE_SECONDS", "2");
        let mut sandbox = Sandbox::on(place, machine, json!({}));
        let stubborn = format!(
            "use strict; use Errno; use Socket; sub err {{ $! + 0 }} {DIAL} $SIG{{$_}} = 'IGNORE' for qw(TERM HUP INT CONT); \
             for (1 .. 8) {{ my $c = fork // last; if (!$c) {{ POSIX::setsid() if $INC{{'POSIX.pm'}}; \
             while (1) {{ kill('CONT', 1); dial(pack('V', 5) . 'renew') }} }} }} sleep 600"
        );
        let arguments = json!({
            "sessionId": sandbox.session, "argv": ["/usr/bin/perl", "-e", stubborn], "waitSeconds": 0,
        });
        sandbox
            .client
            .tool("execute_command", arguments)
            .expect("an execution");
        assert!(!sandbox.machine.sandbox_pids().is_empty(), "the control");
        std::thread::sleep(Duration::from_millis(2_500));
        assert!(
            !sandbox.machine.sandbox_pids().is_empty(),
            "the control: with its server the session outlives its lease"
        );
        kill_server(&sandbox.machine);
        let begun = Instant::now();
        until("every process is gone", || {
            sandbox.machine.sandbox_pids().is_empty()
        });
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "{:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn output_that_looks_like_the_protocol_is_output() {
    each(|sandbox| {
        let text = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        let ran = sandbox.sh(&format!(
            "printf '%s\\n' '{text}'; printf '\\033]0;x\\007\\000\\377' ; printf 'x' >&2; exit 3"
        ));
        assert!(ran.out.contains(text), "{ran:#?}");
        assert_eq!((ran.code, ran.err.as_str()), (3, "x"));
        sandbox.still_works();
    });
}

//! Containers of a Docker engine through MCP, and the same container by the engine's own command line: create, execute,
//! destroy, in turn.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use bollard::{models::HostConfig, query_parameters::InspectContainerOptions};

use crate::{
    report::{Bound, Report, Row, Samples},
    setting,
    speed::ms,
    support::{
        Client, Machine, User,
        engine::ask,
        image::{HOSTILE_CHANGES, IMAGE, engine, make_image, without_engine},
        skip,
    },
};

const WARM_UP: usize = 2;
/// Executions of each for one session.
const EXECUTIONS: usize = 30;

pub fn measure(report: &mut Report) {
    if ask(without_engine("benchmarks")) || !has_command_line() {
        return report.note("no figure of Docker: no engine, no `docker` command, or not root");
    }
    ask(make_image(IMAGE, HOSTILE_CHANGES));
    let mut machine = Machine::new(User::Root);
    machine
        .set("CLAUDE_CODE_MCP_BACKEND", "docker")
        .set("CLAUDE_CODE_MCP_IDLE_EXIT_SECONDS", "60")
        .set("DEFAULT_CLAUDE_IMAGE", IMAGE);
    let mut client = machine.client();
    let peer = Peer::like_ours(&machine, &mut client);
    report.note(format!("`docker {}`", peer.shown()));
    let (mut ours, mut theirs) = (Figures::default(), Figures::default());
    for round in 0..WARM_UP + setting("BENCH_DOCKER_SAMPLES", 20) {
        if round == WARM_UP {
            (ours, theirs) = (Figures::default(), Figures::default());
        }
        // Each goes first in turn.
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                one_of_ours(&machine, &mut client, &mut ours);
            } else {
                peer.one(&mut theirs);
            }
        }
    }
    tell(report, ours, &theirs);
}

fn has_command_line() -> bool {
    let found = Command::new("docker").arg("--version").output().is_ok();
    if !found {
        skip("docker", "benchmarks: no docker command to compare with");
    }
    found
}

#[derive(Default)]
struct Figures {
    create: Samples,
    execute: Samples,
    destroy: Samples,
}

fn tell(report: &mut Report, ours: Figures, theirs: &Figures) {
    let row = |figure: &str, samples| Row::new(format!("Docker: {figure}"), "ms", samples);
    report.add(
        row("create_session", ours.create)
            .peer("docker run -d", &theirs.create)
            .ratio_promise(Bound::AtMost(1.15)),
    );
    report.add(
        row("execute_command true", ours.execute)
            .promise(Bound::AtMost(3.0))
            .peer("docker exec", &theirs.execute)
            .ratio_promise(Bound::AtMost(1.0 / 20.0)),
    );
    report.add(
        row("destroy_session", ours.destroy)
            .promise(Bound::AtMost(500.0))
            .peer("docker rm -f", &theirs.destroy),
    );
}

fn one_of_ours(machine: &Machine, client: &mut Client, figures: &mut Figures) {
    let started = Instant::now();
    let session = client.create(&machine.project);
    figures.create.push(ms(started.elapsed()));
    for _ in 0..EXECUTIONS {
        let started = Instant::now();
        client.output(&session, "true");
        figures.execute.push(ms(started.elapsed()));
    }
    let started = Instant::now();
    client.destroy(&session);
    figures.destroy.push(ms(started.elapsed()));
}

/// `docker run -d` with the options of one of our containers, as the engine tells them.
struct Peer {
    options: Vec<String>,
    name: String,
}

impl Peer {
    fn like_ours(machine: &Machine, client: &mut Client) -> Self {
        let asked = serde_json::json!({ "projectPath": machine.project });
        let made = client.tool("create_session", asked).expect("a session");
        let name = made["containerName"].as_str().expect("a name").to_owned();
        let look = async {
            engine()
                .inspect_container(&name, None::<InspectContainerOptions>)
                .await
        };
        let found = ask(look).expect("our container");
        client.destroy(made["sessionId"].as_str().expect("an id"));
        let directory = machine.base().join("peer");
        let config = found.host_config.expect("its configuration");
        Peer {
            options: options(&config, &directory, &machine.project),
            name: format!("claude-code-mcp-bench-{}", std::process::id()),
        }
    }

    /// The command for a reader: without the paths of this run.
    fn shown(&self) -> String {
        let words = self
            .options
            .iter()
            .map(|word| match word.split_once("source=") {
                Some((before, rest)) => {
                    let target = rest.split_once(',').map_or("", |(_, target)| target);
                    format!("{before}source=…,{target}")
                }
                None if word.starts_with("seccomp=") => "seccomp=<our profile>".to_owned(),
                None => word.clone(),
            });
        format!(
            "run -d {} {IMAGE} 3600",
            words.collect::<Vec<_>>().join(" ")
        )
    }

    fn one(&self, figures: &mut Figures) {
        let mut run = vec!["run", "-d", "--name", &self.name];
        run.extend(self.options.iter().map(String::as_str));
        run.extend([IMAGE, "3600"]);
        let started = Instant::now();
        docker(&run);
        figures.create.push(ms(started.elapsed()));
        // Each takes some fifty of ours.
        for _ in 0..EXECUTIONS / 10 {
            let started = Instant::now();
            docker(&["exec", &self.name, "/bin/sh", "-c", "true"]);
            figures.execute.push(ms(started.elapsed()));
        }
        let started = Instant::now();
        docker(&["rm", "-f", &self.name]);
        figures.destroy.push(ms(started.elapsed()));
    }
}

fn docker(arguments: &[&str]) {
    let output = Command::new("docker")
        .args(arguments)
        .env_remove("DOCKER_HOST")
        .stdin(Stdio::null())
        .output()
        .expect("docker runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {errors}");
}

/// What `docker run` has a word for: all but the paths that are hidden, of which it hides as many by itself.
fn options(config: &HostConfig, directory: &Path, project: &Path) -> Vec<String> {
    let mut options = Vec::new();
    let mut add = |name: &str, value: String| options.extend([format!("--{name}"), value]);
    add("network", config.network_mode.clone().unwrap_or_default());
    add("ipc", config.ipc_mode.clone().unwrap_or_default());
    add("cgroupns", "private".to_owned());
    add("user", "1000:1000".to_owned());
    add("workdir", "/".to_owned());
    add("hostname", "sandbox".to_owned());
    add("log-driver", "none".to_owned());
    add("entrypoint", "/bin/sleep".to_owned());
    for dropped in config.cap_drop.iter().flatten() {
        add("cap-drop", dropped.clone());
    }
    for option in config.security_opt.iter().flatten() {
        add("security-opt", in_a_file(option, directory));
    }
    let numbers = [
        ("memory", config.memory),
        ("memory-swap", config.memory_swap),
        ("memory-swappiness", config.memory_swappiness),
        ("cpu-period", config.cpu_period),
        ("cpu-quota", config.cpu_quota),
        ("pids-limit", config.pids_limit),
        ("oom-score-adj", config.oom_score_adj),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            add(name, value.to_string());
        }
    }
    for limit in config.ulimits.iter().flatten() {
        let (name, soft) = (
            limit.name.clone().unwrap_or_default(),
            limit.soft.unwrap_or(0),
        );
        add(
            "ulimit",
            format!("{name}={soft}:{}", limit.hard.unwrap_or(0)),
        );
    }
    for (target, with) in config.tmpfs.iter().flatten() {
        add("tmpfs", format!("{target}:{with}"));
    }
    for mount in config.mounts.iter().flatten() {
        let target = mount.target.clone().unwrap_or_default();
        let source = if target == "/workspace" {
            project.to_owned()
        } else {
            own_place(directory, &target)
        };
        add(
            "mount",
            format!("type=bind,source={},target={target}", source.display()),
        );
    }
    options.extend(["--read-only".to_owned(), "--no-healthcheck".to_owned()]);
    options
}

/// The command line takes a system-call profile from a file.
fn in_a_file(option: &str, directory: &Path) -> String {
    let Some(profile) = option.strip_prefix("seccomp=") else {
        return option.to_owned();
    };
    fs::create_dir_all(directory).expect("a directory");
    let path = directory.join("seccomp.json");
    fs::write(&path, profile).expect("the profile");
    format!("seccomp={}", path.display())
}

/// Targets that are files inside are files here.
fn own_place(directory: &Path, target: &str) -> PathBuf {
    let path = directory.join(target.trim_start_matches('/'));
    if !["/etc/hosts", "/etc/resolv.conf"].contains(&target) {
        fs::create_dir_all(&path).expect("a directory");
        return path;
    }
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs::write(&path, "").expect("a file");
    path
}

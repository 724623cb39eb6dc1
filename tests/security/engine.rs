//! What is special to containers of an engine: the engine itself, others' containers beside ours, what an image says, what
//! has led out of containers before, and the end without a server.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use bollard::{
    models::ContainerCreateBody,
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, RemoveImageOptions,
    },
};
use rustix::process::{Pid, Signal, kill_process};
use sandbox_docker::calls;
use serde_json::{Value, json};

use crate::{
    place::{Place, places},
    probe::Sandbox,
    support::{
        Machine,
        engine::{ask, containers, remove_container},
        filter::Filter,
        image::{IMAGE, engine_at, make_image_at, make_image_from},
        until, walk,
    },
};

/// Places whose sessions are containers of an engine, and its socket.
fn each_engine(attack: impl Fn(Place, &Path)) {
    for place in places() {
        match place {
            Place::NativeAsRoot | Place::NativeAsOrdinary => {}
            Place::Docker | Place::DockerGvisor => attack(place, &place.engine()),
        }
    }
}

#[test]
fn the_engines_socket_is_not_there_by_any_name() {
    each_engine(|place, socket| {
        let mut sandbox = Sandbox::new(place);
        let dial = |address: &str| {
            format!(
                "socket(my $s, PF_UNIX, SOCK_STREAM, 0); print connect($s, {address}) ? 'ok' : err()"
            )
        };
        let path = |path: &str| dial(&format!("pack_sockaddr_un('{path}')"));
        for name in [
            &socket.display().to_string(),
            "/var/run/docker.sock",
            "/run/docker.sock",
            "/run/containerd/containerd.sock",
            "/run/docker/containerd/containerd.sock",
            "/proc/1/root/run/docker.sock",
            "/proc/self/root/var/run/docker.sock",
        ] {
            let answer = sandbox.perl(&path(name));
            assert!(
                ["ENOENT", "EACCES"].contains(&answer.as_str()),
                "{name}: {answer}"
            );
        }
        for name in ["docker", "/var/run/docker.sock", "/containerd-shim/x"] {
            let answer = sandbox.perl(&dial(&format!("pack('S a*', AF_UNIX, \"\\0{name}\")")));
            assert_eq!(answer, "ECONNREFUSED", "{name}");
        }
        let sockets = "find / -xdev -type s 2>/dev/null; \
            find /workspace /state /tmp /run /home /dev /etc -type s 2>/dev/null";
        let ours = "/run/supervisor/host.sock";
        let is_there = !place.expected().dialling.contains(&"ENOENT");
        let found = sandbox.sh(sockets).out;
        assert_eq!(found, if is_there { ours } else { "" });
        let own = sandbox.perl(&path(ours));
        assert_eq!(own, if is_there { "ok" } else { "ENOENT" });
        let control = "socket(my $s, PF_UNIX, SOCK_STREAM, 0); bind($s, pack_sockaddr_un('/tmp/own')) or die; listen($s, 1); ";
        let own = sandbox.perl(&format!("{control}{}", path("/tmp/own")));
        assert_eq!(own, "ok", "the control inside");
        let found = sandbox.sh(sockets).out;
        assert!(found.contains("/tmp/own"), "the control: {found}");
        assert_eq!(
            sandbox.perl_outside(&path(&socket.display().to_string())),
            "ok",
            "the control outside"
        );
    });
}

#[test]
fn nothing_but_the_listed_calls_is_ever_asked_of_the_engine() {
    each_engine(|place, socket| {
        let mut machine = place.machine();
        let filter = Filter::before(
            &machine.base().join("engine.sock"),
            socket.to_owned(),
            calls::find,
        );
        machine.set(
            "DOCKER_HOST",
            &format!("unix://{}", filter.socket.display()),
        );
        machine.write("in", "in");
        let mut sandbox = Sandbox::on(place, machine, json!({}));
        sandbox.still_works();
        let (session, project) = (sandbox.session.clone(), sandbox.machine.project.clone());
        for (direction, source, target) in [
            ("to_container", project.join("in"), "/tmp/in".into()),
            ("from_container", "/tmp/in".into(), project.join("out")),
        ] {
            let arguments = json!({ "sessionId": session, "direction": direction, "sourcePath": source, "destPath": target });
            sandbox
                .client
                .tool("transfer_files", arguments)
                .expect("a transfer");
        }
        for tool in ["get_session", "get_session_logs", "list_sessions"] {
            let arguments = if tool == "list_sessions" {
                json!({})
            } else {
                json!({ "sessionId": session })
            };
            sandbox.client.tool(tool, arguments).expect("an answer");
        }
        let running = sandbox.start("sleep 600");
        kill_server(&sandbox.machine);
        sandbox.client = sandbox.machine.client();
        sandbox.still_works();
        sandbox.cancel(&running);
        sandbox.destroy();
        assert_eq!(filter.refused(), Vec::<String>::new());
        let made = filter.made();
        assert!(
            made.contains(&("POST", "/containers/create")),
            "the control: {made:?}"
        );
        // The control of the filter: what joins a container from outside is seen, and does not pass.
        for call in [
            "POST /v1.41/containers/x/exec",
            "PUT /v1.41/containers/x/archive",
        ] {
            say(&filter.socket, call);
            assert_eq!(filter.refused().last().map(String::as_str), Some(call));
        }
    });
}

/// Sends a request without a body, and waits for the end of its answer.
fn say(socket: &Path, request: &str) {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("the filter listens");
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    )
    .expect("said");
    let _ = stream.read_to_end(&mut Vec::new());
}

fn kill_server(machine: &Machine) {
    let pid = machine.server_pid().expect("a server");
    kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("killed");
    until("the server is gone", || machine.server_pid().is_none());
}

/// A container that this server never made, removed at the end of the test.
struct Foreign {
    engine: PathBuf,
    name: String,
}

impl Foreign {
    fn make(engine: &Path, name: &str, labels: &[(&str, &str)]) -> Self {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let body = ContainerCreateBody {
            image: Some(IMAGE.to_owned()),
            labels: Some(labels.collect()),
            ..ContainerCreateBody::default()
        };
        ask(async {
            engine_at(engine)
                .create_container(Some(options), body)
                .await
        })
        .expect("a container");
        Foreign {
            engine: engine.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        remove_container(&self.engine, &self.name);
    }
}

#[test]
fn containers_of_others_are_neither_listed_nor_touched() {
    each_engine(|place, socket| {
        let mut machine = place.machine();
        machine.set("CLAUDE_CODE_MCP_LEASE_SECONDS", "2");
        let mut sandbox = Sandbox::on(place, machine, json!({}));
        let ours = sandbox.created["containerName"]
            .as_str()
            .expect("a name")
            .to_owned();
        let found = ask(async {
            engine_at(socket)
                .inspect_container(&ours, None::<InspectContainerOptions>)
                .await
        })
        .expect("our container");
        let labels = found
            .config
            .and_then(|config| config.labels)
            .expect("its labels");
        let owner = labels["claude-code-mcp.owner"].as_str();
        let session = labels["claude-code-mcp.session"].as_str();
        let prefix = &ours[..ours.rfind('-').expect("parts")];
        let other = "o-00000000000000ff";
        let unmade = "s-000000000000000000000000000000ff";
        let theirs = [
            ("ours in name only", format!("{prefix}-ffffffff"), vec![]),
            (
                "ours in name, and another owner's by label",
                format!("{prefix}-eeeeeeee"),
                vec![
                    ("claude-code-mcp.owner", other),
                    ("claude-code-mcp.session", session),
                ],
            ),
            (
                "another installation's",
                "claude-code-00000000-dddddddd".to_owned(),
                vec![
                    ("claude-code-mcp.owner", other),
                    ("claude-code-mcp.session", unmade),
                ],
            ),
            (
                "ours by label, of no session",
                "somebody-elses".to_owned(),
                vec![
                    ("claude-code-mcp.owner", owner),
                    ("claude-code-mcp.session", "no-session"),
                ],
            ),
            (
                "with our labels, under a name that is not the session's",
                "yet-another-ones".to_owned(),
                vec![
                    ("claude-code-mcp.owner", owner),
                    ("claude-code-mcp.session", unmade),
                ],
            ),
        ];
        let planted: Vec<_> = theirs
            .iter()
            .map(|(_, name, labels)| Foreign::make(socket, name, labels))
            .collect();
        let all_there = |when: &str| {
            for (what, name, _) in &theirs {
                assert_eq!(containers(socket, name).len(), 1, "{what}, {when}");
            }
        };
        let listed = sandbox
            .client
            .tool("list_sessions", json!({}))
            .expect("a list");
        assert_eq!(
            listed["sessions"].as_array().map(Vec::len),
            Some(1),
            "{listed:#}"
        );
        // A server that is killed, and one that comes back when the lease is over, which removes what is left.
        kill_server(&sandbox.machine);
        until("the lease is over", || {
            sandbox.machine.sandbox_pids().is_empty()
        });
        assert_eq!(
            containers(socket, &ours).len(),
            1,
            "the control: it is there, ended"
        );
        sandbox.client = sandbox.machine.client();
        until("the control: ours is reaped", || {
            containers(socket, &ours).is_empty()
        });
        all_there("after reaping");
        let again = sandbox.client.create(&sandbox.machine.project);
        sandbox.client.destroy(&again);
        all_there("after destroying");
        drop(planted);
    });
}

#[test]
fn an_image_decides_nothing_about_its_container() {
    each_engine(|place, socket| {
        // Its entry point, user, directory, environment, label, check and triggers are hostile: see HOSTILE_CHANGES.
        let mut sandbox = Sandbox::new(place);
        let image = ask(async { engine_at(socket).inspect_image(IMAGE).await }).expect("the image");
        let config = image.config.expect("its configuration");
        assert!(
            config
                .env
                .is_some_and(|env| env.iter().any(|one| one.contains("evil"))),
            "the control"
        );
        assert!(
            config.on_build.is_some_and(|all| !all.is_empty()),
            "the control"
        );
        assert_eq!(
            config.working_dir.as_deref(),
            Some("/proc/self/fd/8"),
            "the control"
        );
        // The supervisor's own is the image's, and it takes no notice of it.
        let shown = place.expected().open_files_of_others.contains(&"environ");
        let processes = if shown { "self" } else { "[0-9]*" };
        let environment = sandbox
            .sh(&format!("env; cat /proc/{processes}/environ 2>/dev/null"))
            .out;
        assert!(!environment.contains("evil"), "{environment}");
        assert_eq!(
            sandbox.sh("pwd -P; id -u; id -g; id -G").out,
            "/workspace\n1000\n1000\n1000"
        );
        let name = sandbox.created["containerName"]
            .as_str()
            .expect("a name")
            .to_owned();
        let found = ask(async {
            engine_at(socket)
                .inspect_container(&name, None::<InspectContainerOptions>)
                .await
        })
        .expect("the container");
        assert_eq!(found.path.as_deref(), Some("/run/supervisor/supervisor"));
        assert!(
            found
                .state
                .expect("a state")
                .health
                .is_none_or(|health| health.log.is_none())
        );
        let mut targets: BTreeSet<_> = found
            .mounts
            .unwrap_or_default()
            .into_iter()
            .filter_map(|mount| mount.destination)
            .collect();
        // Where the kernel sees no mounts of the host, each protected path is a mount of its own.
        if place == Place::DockerGvisor {
            targets.retain(|target| !target.starts_with("/workspace/."));
        }
        let wanted = [
            "/etc/claude-code",
            "/etc/hosts",
            "/etc/resolv.conf",
            "/run/supervisor",
            "/state",
            "/workspace",
        ]
        .map(str::to_owned);
        assert_eq!(targets, wanted.into());
    });
}

#[test]
fn an_image_with_volumes_is_refused() {
    each_engine(|place, socket| {
        let name = "claude-code-mcp-test-with-volumes:3";
        ask(make_image_at(socket, name, "VOLUME /data"));
        let mut machine = place.machine();
        machine.set("DEFAULT_CLAUDE_IMAGE", name);
        let mut client = machine.client();
        let asked = json!({ "projectPath": machine.project });
        let refused = client
            .tool("create_session", asked)
            .expect_err("it has volumes");
        assert!(refused.to_string().contains("/data"), "{refused:#}");
        assert_eq!(machine.containers(), BTreeSet::new());
        drop(client);
        let _ = ask(async {
            engine_at(socket)
                .remove_image(name, None::<RemoveImageOptions>, None)
                .await
        });
        Sandbox::new(place).still_works();
    });
}

/// CVE-2024-21626 and its kind: something of the host that a runtime left open, as a directory or a descriptor.
#[test]
fn nothing_of_the_host_is_left_open() {
    each_engine(|place, _| {
        let mut sandbox = Sandbox::new(place);
        let look = "print POSIX::getcwd(), \"\\n\"; for my $p (glob '/proc/[0-9]*') { \
            for my $l (\"$p/cwd\", \"$p/root\", glob \"$p/fd/*\") { my $t = readlink $l; print \"$t\\n\" if defined $t } }";
        let found = sandbox.perl(look);
        let known = |target: &&str| {
            ["/workspace", "/", "/dev/null"].contains(target)
                || target.starts_with("pipe:[")
                || target.starts_with("/proc/")
                || place
                    .expected()
                    .links_of_others
                    .iter()
                    .any(|known| target.starts_with(known))
        };
        let unknown: Vec<_> = found.lines().filter(|target| !known(target)).collect();
        assert_eq!(unknown, Vec::<&str>::new(), "{found}");
        assert!(found.starts_with("/workspace\n"), "{found}");
        let opened = sandbox.perl(&format!("open(my $f, '<', '/etc/passwd'); {look}"));
        assert!(opened.contains("/etc/passwd"), "the control: {opened}");
        // A directory above the root would be one of the host.
        let up = "my @a = stat '/'; my @b = stat('/' . '../' x 40); print \"$a[0]:$a[1]\" eq \"$b[0]:$b[1]\" ? 'same' : 'other'";
        assert_eq!(sandbox.perl(up), "same");
        let reachable = sandbox.sh("cat /proc/self/mountinfo").out;
        assert!(!reachable.contains("(unreachable)"), "{reachable}");
    });
}

#[test]
fn a_container_ends_with_its_lease_when_no_server_comes_back() {
    each_engine(|place, socket| {
        let mut machine = place.machine();
        machine.set("CLAUDE_CODE_MCP_LEASE_SECONDS", "2");
        let mut sandbox = Sandbox::on(place, machine, json!({}));
        let name = sandbox.created["containerName"]
            .as_str()
            .expect("a name")
            .to_owned();
        sandbox.start("trap '' TERM HUP INT; while :; do sleep 1; done");
        let running = |name: &str| -> Value {
            let name = name.to_owned();
            let found = ask(async {
                engine_at(socket)
                    .inspect_container(&name, None::<InspectContainerOptions>)
                    .await
            });
            json!(
                found
                    .expect("it is there")
                    .state
                    .and_then(|state| state.running)
            )
        };
        std::thread::sleep(std::time::Duration::from_millis(2_500));
        assert_eq!(
            running(&name),
            json!(true),
            "the control: its server keeps it"
        );
        kill_server(&sandbox.machine);
        until("the engine says that it has ended", || {
            running(&name) == json!(false)
        });
        assert!(sandbox.machine.sandbox_pids().is_empty());
        let groups = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(
            !groups.contains(&sandbox.machine.state().display().to_string()),
            "{groups}"
        );
    });
}

/// Links of an image at the places where something is mounted lead nowhere but into the image: an engine resolves them
/// there, the container then does not show what was asked, and the session is refused.
#[test]
fn an_image_whose_mount_points_are_links_is_refused_and_does_not_reach_the_host() {
    each_engine(|place, socket| {
        for points in ["workspace", "state run tmp home/agent"] {
            let name = "claude-code-mcp-test-with-links:3";
            let mut machine = place.machine();
            let outside = machine.base().join("outside");
            fs::create_dir(&outside).expect("a directory");
            let out = format!(
                "{}{}",
                "../".repeat(20),
                &outside.display().to_string()[1..]
            );
            let links = format!("mkdir home; for at in {points}; do ln -s {out} $at; done");
            ask(make_image_from(socket, name, &links));
            machine.set("DEFAULT_CLAUDE_IMAGE", name);
            let mut client = machine.client();
            let asked = json!({ "projectPath": machine.project });
            client.tool("create_session", asked).expect_err(points);
            assert_eq!(machine.containers(), BTreeSet::new(), "{points}");
            assert_eq!(walk(&outside), Vec::<PathBuf>::new(), "{points}");
            assert_eq!(walk(&machine.project), Vec::<PathBuf>::new(), "{points}");
            drop(client);
            let removed = async {
                engine_at(socket)
                    .remove_image(name, None::<RemoveImageOptions>, None)
                    .await
            };
            ask(removed).expect("removed");
        }
        // The control: the same image without links.
        Sandbox::new(place).still_works();
    });
}

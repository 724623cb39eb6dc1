//! Other programs that start a command in a sandbox, with options as near to ours as they have them: `/usr` of the host
//! read-only, `/proc`, `/dev`, a tmpfs, every namespace of its own. None of them is driven through a protocol, and bwrap
//! sets no cgroup.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{Machine, User};

/// What every contender prints.
const WORD: &str = "ready";

/// Gives the command for a name of a container, or why there is none.
type Make = Result<Box<dyn Fn(&str) -> Command>, String>;

/// A contender that works here.
pub struct Peer {
    pub name: &'static str,
    make: Box<dyn Fn(&str) -> Command>,
    runs: u64,
}

impl Peer {
    /// From starting the program to the first line of the command inside; its end is awaited outside of the clock.
    pub fn first_output(&mut self) -> Duration {
        self.try_once().expect("a peer that ran before")
    }

    fn try_once(&mut self) -> Result<Duration, String> {
        self.runs += 1;
        let mut command = (self.make)(&format!("bench-{}-{}", std::process::id(), self.runs));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output");
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(|error| error.to_string())?;
        let elapsed = started.elapsed();
        let output = child
            .wait_with_output()
            .map_err(|error| error.to_string())?;
        if line.trim() == WORD {
            return Ok(elapsed);
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(errors.lines().last().unwrap_or("no output").to_owned())
    }
}

/// Who takes part, why others do not, and what has to live as long as they do.
pub struct Peers {
    pub peers: Vec<Peer>,
    pub missing: Vec<String>,
    _without_unified: Option<WithoutUnified>,
}

impl Peers {
    /// Tries each of them once.
    pub fn find(machine: &Machine) -> Self {
        let mut found = Peers {
            peers: Vec::new(),
            missing: Vec::new(),
            _without_unified: None,
        };
        found.consider("bwrap", bwrap(machine));
        found.consider("runc", runtime("runc", &[], machine));
        if !found.consider("crun", runtime("crun", &[], machine)) && machine.user == User::Root {
            match WithoutUnified::new() {
                Some(without) => {
                    let enter = ["nsenter", "--mount", "--target", &without.pid()];
                    let make = runtime("crun", &enter.map(str::to_owned), machine);
                    found.consider("crun, unified hierarchy hidden (one exec more)", make);
                    found._without_unified = Some(without);
                }
                None => found
                    .missing
                    .push("crun without the unified hierarchy: it cannot be hidden".to_owned()),
            }
        }
        found
    }

    fn consider(&mut self, name: &'static str, make: Make) -> bool {
        let tried = make.and_then(|make| {
            let mut peer = Peer {
                name,
                make,
                runs: 0,
            };
            peer.try_once().map(|_| peer)
        });
        match tried {
            Ok(peer) => self.peers.push(peer),
            Err(why) => {
                self.missing.push(format!("{name}: {why}"));
                return false;
            }
        }
        true
    }
}

fn bwrap(machine: &Machine) -> Make {
    let program = installed("bwrap")?;
    let options = [
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--ro-bind",
        "/usr",
        "/usr",
        "--symlink",
        "usr/bin",
        "/bin",
        "--symlink",
        "usr/lib",
        "/lib",
        "--symlink",
        "usr/lib64",
        "/lib64",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
        "--bind",
    ];
    let start = Start::of(machine);
    let project = machine.project.clone();
    Ok(Box::new(move |_| {
        let mut command = start.command(&program);
        command.args(options).arg(&project).arg("/workspace");
        command.args(["--chdir", "/workspace", "sh", "-c", "echo ready"]);
        command
    }))
}

/// runc or crun on a bundle, maybe behind another program.
fn runtime(name: &str, before: &[String], machine: &Machine) -> Make {
    let program = installed(name)?;
    let kind = if before.is_empty() { "plain" } else { "hidden" };
    let base = machine.base().join(format!("{name}-{kind}"));
    let (bundle, state) = (base.join("bundle"), base.join("state"));
    for directory in [
        "rootfs/usr",
        "rootfs/proc",
        "rootfs/dev",
        "rootfs/sys",
        "rootfs/tmp",
        "rootfs/workspace",
    ] {
        fs::create_dir_all(bundle.join(directory)).map_err(|error| error.to_string())?;
    }
    fs::create_dir_all(&state).map_err(|error| error.to_string())?;
    for (link, target) in [
        ("bin", "usr/bin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
    ] {
        symlink(target, bundle.join("rootfs").join(link)).map_err(|error| error.to_string())?;
    }
    for path in [&base, &bundle, &state, &bundle.join("rootfs")] {
        machine.give(path);
    }
    let start = Start::of(machine);
    let mut spec = start.command(&program);
    spec.arg("spec").current_dir(&bundle);
    if machine.user == User::Ordinary {
        spec.arg("--rootless");
    }
    let made = spec.output().map_err(|error| error.to_string())?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).trim().to_owned());
    }
    fit(&bundle.join("config.json"), &machine.project)?;
    let before = before.to_vec();
    Ok(Box::new(move |id| {
        let mut command = match before.split_first() {
            Some((first, rest)) => {
                let mut command = start.command(Path::new(first));
                command.args(rest).arg(&program);
                command
            }
            None => start.command(&program),
        };
        command.arg("--root").arg(&state);
        command.args(["run", "--bundle"]).arg(&bundle).arg(id);
        command
    }))
}

/// Changes the default configuration to the command and the root file system of the others.
fn fit(path: &Path, project: &Path) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let mut spec: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["sh", "-c", "echo ready"]);
    spec["process"]["cwd"] = json!("/workspace");
    let mounts = spec["mounts"].as_array_mut().ok_or("no mounts")?;
    mounts.push(json!({ "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"] }));
    mounts.push(json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }));
    mounts.push(json!({ "destination": "/workspace", "type": "bind", "source": project, "options": ["rbind", "rw"] }));
    fs::write(path, spec.to_string()).map_err(|error| error.to_string())
}

/// What a machine's commands start from, without borrowing the machine.
struct Start {
    uid: Option<u32>,
    base: PathBuf,
}

impl Start {
    fn of(machine: &Machine) -> Self {
        let lowered = machine.user == User::Ordinary && rustix::process::geteuid().is_root();
        Start {
            uid: lowered.then_some(crate::support::ORDINARY_UID),
            base: machine.base().to_owned(),
        }
    }

    fn command(&self, program: &Path) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("XDG_RUNTIME_DIR", self.base.join("run"))
            .current_dir(&self.base);
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }
}

fn installed(name: &str) -> Result<PathBuf, String> {
    ["/usr/bin", "/usr/sbin", "/usr/local/bin"]
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.exists())
        .ok_or_else(|| "not installed".to_owned())
}

/// A mount namespace in which the unified cgroup hierarchy beside version 1 is not to be seen: crun refuses such hybrids.
struct WithoutUnified(Child);

impl WithoutUnified {
    fn new() -> Option<Self> {
        let script = "umount /sys/fs/cgroup/unified && echo ready && exec sleep 3600";
        let mut child = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        let stdout = child.stdout.take()?;
        let read = BufReader::new(stdout).read_line(&mut line);
        let without = WithoutUnified(child);
        (read.is_ok() && line.trim() == WORD).then_some(without)
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for WithoutUnified {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

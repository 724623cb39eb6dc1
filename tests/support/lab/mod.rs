//! A laboratory: an internet of the test's own, in a network namespace beside that of the program under test.
//!
//! ```text
//!  test, server, sandboxes              names, web, traps (a thread of the test in the other namespace)
//!  192.168.50.2 ── eth0 ──────── eth0 ── 192.168.50.1, and on lo: 93.184.216.34, 10.0.0.5, 169.254.169.254, …
//!  /etc/resolv.conf: 8.8.8.8
//! ```
//!
//! Addresses look public, so that nothing is refused for looking private, and belong to nobody here: both namespaces have no
//! other way out. Everything that arrives is in the [`Log`]: what a probe is told is one thing, what came through another.
//!
//! A test begins with [`world::is_inside`](super::world) for the laboratory, then calls [`Lab::start`].

pub mod addresses;
mod authority;
pub mod content;
mod log;
mod names;
mod traps;
pub mod tunnel;
mod web;

use std::{
    fs::{self, File},
    net::IpAddr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

pub use log::{Event, Log};

use super::world;

/// How long a namespace may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether this is the test within namespaces of its own, as [`world::is_inside`]; outside it is run there.
pub fn is_inside(test: &str) -> bool {
    world::is_inside_with(
        test,
        "laboratory",
        &["unshare", "setpriv", "nsenter", "ip", "git"],
    )
}

/// An internet that runs. Dropping it ends it.
pub struct Lab {
    pub log: Log,
    directory: tempfile::TempDir,
    holder: Child,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Lab {
    /// Makes the other namespace, its addresses and servers, and this one's way there.
    ///
    /// # Panics
    /// When anything of it cannot be had.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("lab-")
            .tempdir_in("/var/tmp")
            .expect("a directory");
        let authority = authority::Authority::new();
        fs::write(directory.path().join("ca.pem"), authority.pem()).expect("the authority");
        content::make(&directory.path().join("www"));
        let holder = hold();
        connect(&holder);
        resolve_here(directory.path());
        let log = Log::default();
        let namespace = File::open(format!("/proc/{}/ns/net", holder.id())).expect("its network");
        let (ready, is_ready) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let plan = Plan {
            log: log.clone(),
            www: directory.path().join("www"),
            authority,
        };
        let thread = std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("entered");
            serve(plan, &ready, stopped);
        });
        is_ready.recv().expect("the laboratory serves");
        Lab {
            log,
            directory,
            holder,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Certificate of the authority that vouches for the laboratory's names, PEM.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A command in the internet itself.
    pub fn there(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "-t", &self.holder.id().to_string(), "--", program]);
        command
    }

    /// A place for files of a test.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

struct Plan {
    log: Log,
    www: PathBuf,
    authority: authority::Authority,
}

fn serve(plan: Plan, ready: &mpsc::Sender<()>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        names::serve(&plan.log).await;
        web::serve(&plan.log, &plan.www, &plan.authority).await;
        traps::serve(&plan.log).await;
        let _ = ready.send(());
        let _ = stopped.await;
    });
}

/// A process whose network namespace is the internet; it ends with the test.
fn hold() -> Child {
    let holder = Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--net",
            "sleep",
            "infinity",
        ])
        .stdin(Stdio::null())
        .spawn()
        .expect("a namespace");
    let own = fs::read_link("/proc/self/ns/net").expect("the own network");
    let until = Instant::now() + PATIENCE;
    // Until it is `sleep`, its namespace may still be ours, or its signals not yet set.
    while fs::read_to_string(format!("/proc/{}/comm", holder.id())).unwrap_or_default() != "sleep\n"
    {
        assert!(Instant::now() < until, "no namespace");
        std::thread::sleep(Duration::from_millis(5));
    }
    let theirs = fs::read_link(format!("/proc/{}/ns/net", holder.id())).expect("its network");
    assert_ne!(own, theirs);
    holder
}

/// A wire between both, the addresses, and one road: everything is there.
fn connect(holder: &Child) {
    let pid = holder.id().to_string();
    let here = [
        format!("link add eth0 type veth peer name eth0 netns {pid}"),
        format!("addr add {}/24 dev eth0", addresses::HOST),
        format!("addr add {}/64 dev eth0 nodad", addresses::HOST_V6),
        "link set eth0 up".to_owned(),
        format!("route add default via {}", addresses::ROUTER),
        format!("route add ::/0 via {}", addresses::ROUTER_V6),
    ];
    let mut there = vec![
        "link set lo up".to_owned(),
        format!("addr add {}/24 dev eth0", addresses::ROUTER),
        format!("addr add {}/64 dev eth0 nodad", addresses::ROUTER_V6),
        "link set eth0 up".to_owned(),
    ];
    there.extend(addresses::ALL.iter().map(|address| {
        let ip: IpAddr = address.parse().expect("an address");
        // Of the sixth version it would be tentative, and not to be bound, for a moment.
        let rest = if ip.is_ipv4() {
            "/32 dev lo"
        } else {
            "/128 dev lo nodad"
        };
        format!("addr add {address}{rest}")
    }));
    // The link first: the other end needs it.
    ip(Command::new("ip").arg("-batch").arg("-"), &here[..1]);
    ip(
        Command::new("nsenter").args(["--net", "-t", &pid, "--", "ip", "-batch", "-"]),
        &there,
    );
    ip(Command::new("ip").arg("-batch").arg("-"), &here[1..]);
}

fn ip(command: &mut Command, lines: &[String]) {
    use std::io::Write;
    let mut child = command.stdin(Stdio::piped()).spawn().expect("ip");
    let mut stdin = child.stdin.take().expect("its input");
    stdin
        .write_all(lines.join("\n").as_bytes())
        .and_then(|()| stdin.write_all(b"\n"))
        .expect("written");
    drop(stdin);
    assert!(child.wait().expect("ip ends").success(), "{lines:?}");
}

/// Only in this mount namespace.
fn resolve_here(directory: &Path) {
    let file = directory.join("resolv.conf");
    let text = format!(
        "nameserver {}\noptions timeout:2 attempts:1\n",
        addresses::RESOLVER
    );
    fs::write(&file, text).expect("written");
    let mounted = Command::new("mount")
        .arg("--bind")
        .arg(&file)
        .arg(fs::canonicalize("/etc/resolv.conf").expect("its file"))
        .status();
    assert!(mounted.expect("mount").success());
}

//! Where attacks are carried out, and what is expected to differ there. A place that is added is an entry of [`Place::ALL`]
//! and a row of expectations; nothing is left out in silence.

use std::{cell::OnceCell, path::PathBuf};

use serde_json::{Value, json};

use crate::support::{
    Machine, User, engine,
    gvisor::Gvisor,
    image::{ENGINE_SOCKET, HOSTILE_CHANGES, IMAGE, make_image, make_image_at, without_engine},
    users,
};

/// The walls of a session, and as whom the server runs that builds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The embedded runtime, by root.
    NativeAsRoot,
    /// The embedded runtime, by an ordinary user.
    NativeAsOrdinary,
    /// A container of the machine's engine with its usual runtime, runc.
    Docker,
    /// A container of an engine that has gVisor: the runtime class `runsc`.
    DockerGvisor,
}

/// What an attack finds that differs from place to place. Everything that is not here is the same everywhere.
#[derive(Debug)]
pub struct Expected {
    /// Answer of the calls that take another identity. A user namespace in which the agent's id is the only one has no
    /// other one to name; everywhere else it is the missing capability that is in the way.
    pub other_identity: &'static str,
    /// Whether memory and CPU are limited by the kernel: an ordinary user has no control group to do it with.
    pub has_control_groups: bool,
    /// Answer of making a file in `/dev`. An engine leaves it writable for root, whom nobody inside can become.
    pub making_a_device_file: &'static str,
    /// Writable mounts outside of `/dev/`. An engine's `/dev` is writable by root alone, see above.
    pub writable_mounts: &'static [&'static str],
    /// Mounts that honour the set-user-id bit, and so hold by no-new-privileges alone: an engine mounts the root of a
    /// container without `nosuid`, and has no option for it.
    pub mounts_with_privileges: &'static [&'static str],
    /// `/sys` is shown, read-only and of the container's own network. An engine always mounts it.
    pub shows_sys: bool,
    /// Name of the mounted program of the supervisor as `/proc/<pid>/exe` shows it.
    pub supervisors_program: &'static str,
    /// Whether a session that takes all watches of files (inotify) leaves none for its siblings. The kernel counts them
    /// for the user, which is uid 1000 of the host in every container of an engine that maps no ids.
    pub shares_watches: bool,
    /// Answer of calls that are forbidden and newer than the library with which an engine filters: as for unknown ones.
    pub newest_calls: &'static str,
    /// What becomes of a call in the numbers of another width (x32).
    pub x32: &'static str,
    /// Answers to changing what is read-only. Whose kernel looks at permissions first says so, and the mounts are looked at
    /// by another test.
    pub read_only: &'static [&'static str],
    /// Devices besides the harmless ones: they lead into the guest's kernel.
    pub more_devices: &'static [&'static str],
    /// Mounts are shown with the flags that hold in them.
    pub shows_mount_flags: bool,
    /// A setting of the machine that can be read.
    pub readable_setting: &'static str,
    /// What `/proc/<pid>/status` does not show: a set of capabilities that is always a part of others (capabilities(7)), and a
    /// flag that the supervisor asks the kernel for itself.
    pub untold: &'static [&'static str],
    /// Answer of connecting to where no route leads.
    pub no_route: &'static str,
    /// What makes a bomb of processes or memory end: the execution, or the sandbox with it.
    pub bombs_end_the_session: bool,
    /// Signals to the supervisor are refused, not dropped.
    pub refuses_signals: bool,
    /// Fewest processes with which a session can be made.
    pub fewest_processes: u64,
    /// Whether Landlock is in force. A kernel without it says so in the reply.
    pub has_landlock: bool,
    /// Answers of dialling the host's socket: hung up on, or no such thing where frames travel over the standard streams.
    pub dialling: &'static [&'static str],
    /// Files of the supervisor and of stubs in `/proc` that can be read: gVisor of 2022 asks for the same uid alone, not
    /// for whether somebody may be traced. Nothing in them is secret: there is no key in an environment or an argument.
    pub open_files_of_others: &'static [&'static str],
    /// Their open files can be listed and opened, too: frames carry a code, so that writing there says nothing.
    pub opens_descriptors: bool,
    /// Links of `/proc/<pid>` that are seen for that reason, of the supervisor's own files, by how they begin.
    pub links_of_others: &'static [&'static str],
    /// Files that `/proc/<pid>` does not have.
    pub lacks_of_proc: &'static [&'static str],
    /// Calls of scheduling that are refused to everybody, so that there is no control.
    pub untaken: &'static [&'static str],
    /// Where the supervisor's memory can be seen: a process of a guest's kernel is none of the host's.
    pub supervisor_is_on_the_host: bool,
    /// What a session prints that prints without end, bytes; fewer where each takes longer.
    pub flood_bytes: u64,
    /// Whether the number of files in memory has a limit of its own; else they end with the memory of the session.
    pub counts_files_in_memory: bool,
    /// Whether the number of watches of files (inotify) has a limit of its own; else they end with the memory of the session.
    pub counts_watches: bool,
    /// Answers of making a queue of messages: the limit of the user's, or one that the guest's kernel keeps in its own memory.
    pub making_a_queue: &'static [&'static str],
    /// Answers of calls that should look absent.
    pub absent: &'static [&'static str],
    /// Whether the kernel knows `fchmodat2`, `pidfd_open` and more than one personality; else the filter's answer has no
    /// control but that other calls work.
    pub knows_newer_calls: bool,
    /// Whether calls in the numbers of another architecture are ended; else they are taken in this one's numbers.
    pub ends_other_architectures: bool,
}

const NATIVE: Expected = Expected {
    other_identity: "EPERM",
    has_control_groups: true,
    making_a_device_file: "EROFS",
    writable_mounts: &[
        "/home/agent",
        "/proc",
        "/run",
        "/state",
        "/tmp",
        "/workspace",
    ],
    mounts_with_privileges: &[],
    shows_sys: false,
    supervisors_program: "memfd",
    shares_watches: false,
    newest_calls: "EPERM",
    x32: "ENOSYS",
    read_only: &["EROFS"],
    more_devices: &[],
    shows_mount_flags: true,
    readable_setting: "/proc/sys/kernel/core_pattern",
    untold: &[],
    no_route: "ENETUNREACH",
    bombs_end_the_session: false,
    refuses_signals: false,
    fewest_processes: 64,
    has_landlock: true,
    dialling: &["closed", "ECONNRESET"],
    open_files_of_others: &[],
    opens_descriptors: false,
    links_of_others: &[],
    lacks_of_proc: &[],
    untaken: &[],
    supervisor_is_on_the_host: true,
    flood_bytes: 200_000_000,
    counts_files_in_memory: true,
    counts_watches: true,
    making_a_queue: &["EMFILE", "ENOMEM", "ENOSPC", "EPERM", "EACCES"],
    absent: &["ENOSYS"],
    knows_newer_calls: true,
    ends_other_architectures: true,
};

const NATIVE_AS_ORDINARY: Expected = Expected {
    other_identity: "EINVAL",
    has_control_groups: false,
    ..NATIVE
};

const DOCKER: Expected = Expected {
    making_a_device_file: "EACCES",
    writable_mounts: &[
        "/dev",
        "/home/agent",
        "/proc",
        "/run",
        "/state",
        "/tmp",
        "/workspace",
    ],
    mounts_with_privileges: &["/", "/etc/hostname"],
    shows_sys: true,
    supervisors_program: "/run/supervisor/supervisor",
    shares_watches: true,
    newest_calls: "ENOSYS",
    // The engine's library ends whoever uses numbers of a width that its filter was not made for.
    x32: "signal 31",
    ..NATIVE
};

const GVISOR: Expected = Expected {
    mounts_with_privileges: &[],
    shares_watches: false,
    // The guest's filter has one answer for all.
    newest_calls: "EPERM",
    x32: "EPERM",
    read_only: &["EROFS", "EACCES", "EINVAL", "EPERM"],
    more_devices: &["/dev/fuse", "/dev/net/tun"],
    shows_mount_flags: false,
    readable_setting: "/proc/sys/vm/overcommit_memory",
    untold: &["CapAmb", "NoNewPrivs"],
    no_route: "EHOSTUNREACH",
    // Its kernel is a process of the host's in the same control group, and ends when it gets no more.
    bombs_end_the_session: true,
    refuses_signals: true,
    fewest_processes: 128,
    has_landlock: false,
    dialling: &["ENOENT"],
    open_files_of_others: &["maps", "smaps", "environ", "auxv"],
    opens_descriptors: true,
    links_of_others: &["socket:[", "host:[", "anon_inode:[", "/state", "/proc"],
    lacks_of_proc: &["pagemap", "stack", "syscall", "map_files/x"],
    untaken: &["sched_setscheduler to idle", "sched_setattr", "ioprio_set"],
    supervisor_is_on_the_host: false,
    flood_bytes: 40_000_000,
    counts_files_in_memory: false,
    counts_watches: false,
    making_a_queue: &["ok"],
    // Its filter has one answer for all; what is left to the kernel itself is absent.
    absent: &["EPERM", "ENOSYS"],
    knows_newer_calls: false,
    // It has one table of calls, and one filter over it, by whatever instruction they are made.
    ends_other_architectures: false,
    ..DOCKER
};

impl Place {
    const ALL: [Place; 4] = [
        Place::NativeAsRoot,
        Place::NativeAsOrdinary,
        Place::Docker,
        Place::DockerGvisor,
    ];

    pub fn user(self) -> User {
        match self {
            Place::NativeAsRoot | Place::Docker | Place::DockerGvisor => User::Root,
            Place::NativeAsOrdinary => User::Ordinary,
        }
    }

    pub fn expected(self) -> &'static Expected {
        match self {
            Place::NativeAsRoot => &NATIVE,
            Place::NativeAsOrdinary => &NATIVE_AS_ORDINARY,
            Place::Docker => &DOCKER,
            Place::DockerGvisor => &GVISOR,
        }
    }

    /// A machine whose sessions are made there.
    pub fn machine(self) -> Machine {
        let mut machine = Machine::new(self.user());
        match self {
            Place::NativeAsRoot | Place::NativeAsOrdinary => {}
            Place::Docker => {
                machine
                    .set("CLAUDE_CODE_MCP_BACKEND", "docker")
                    .set("DEFAULT_CLAUDE_IMAGE", IMAGE);
            }
            Place::DockerGvisor => {
                machine
                    .use_engine(&self.engine())
                    .set("DEFAULT_CLAUDE_IMAGE", IMAGE)
                    .set("CLAUDE_CODE_MCP_RUNTIME_CLASSES", "runsc");
            }
        }
        machine
    }

    /// Socket of the engine that makes its sessions.
    ///
    /// # Panics
    /// Where there is none.
    pub fn engine(self) -> PathBuf {
        match self {
            Place::NativeAsRoot | Place::NativeAsOrdinary => panic!("{self:?} has no engine"),
            Place::Docker => ENGINE_SOCKET.into(),
            Place::DockerGvisor => gvisor_socket("a machine").expect("it is here"),
        }
    }

    /// What `create_session` must answer about where it is.
    pub fn confirm(self, created: &Value) {
        let (backend, own_kernel) = match self {
            Place::NativeAsRoot | Place::NativeAsOrdinary => ("native", false),
            Place::Docker => ("docker", false),
            Place::DockerGvisor => ("docker", true),
        };
        assert_eq!(created["backend"], json!(backend), "{created:#}");
        assert_eq!(in_force(created, "guestKernel"), own_kernel, "{created:#}");
    }

    /// Whether this machine has it. A missing one is told loudly, and is a failure where `REQUIRE` names its leg.
    fn is_here(self) -> bool {
        match self {
            Place::NativeAsRoot | Place::NativeAsOrdinary => users().contains(&self.user()),
            Place::Docker => {
                let test = std::thread::current();
                let leg = test.name().unwrap_or("an attack").to_owned();
                engine::ask(async move {
                    if without_engine(&leg).await {
                        return false;
                    }
                    make_image(IMAGE, HOSTILE_CHANGES).await;
                    true
                })
            }
            Place::DockerGvisor => {
                let test = std::thread::current();
                let Some(socket) = gvisor_socket(test.name().unwrap_or("an attack")) else {
                    return false;
                };
                engine::ask(async move { make_image_at(&socket, IMAGE, HOSTILE_CHANGES).await });
                true
            }
        }
    }
}

thread_local! {
    /// An engine of the test's own ends with the test.
    static ENGINE: OnceCell<Option<Gvisor>> = const { OnceCell::new() };
}

/// Where an engine listens that has gVisor.
fn gvisor_socket(leg: &str) -> Option<PathBuf> {
    ENGINE.with(|engine| {
        let engine = engine.get_or_init(|| Gvisor::engine(leg));
        engine.as_ref().map(|engine| engine.socket.clone())
    })
}

/// Whether the reply says that a layer is in force.
pub fn in_force(created: &Value, layer: &str) -> bool {
    let layers = created["hardening"]["layers"].as_array().expect("layers");
    let found = layers.iter().find(|found| found["layer"] == layer);
    found.is_some_and(|found| found["inForce"] == json!(true))
}

/// All places that this machine has.
pub fn places() -> Vec<Place> {
    let mut places = Place::ALL.to_vec();
    places.retain(|place| place.is_here());
    places
}

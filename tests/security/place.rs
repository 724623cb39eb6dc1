//! Where attacks are carried out, and what is expected to differ there. A place that is added is an entry of [`Place::ALL`]
//! and a row of expectations; nothing is left out in silence.

use serde_json::{Value, json};

use crate::support::{
    Machine, User, engine,
    image::{HOSTILE_CHANGES, IMAGE, make_image, without_engine},
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
    mounts_with_privileges: &["/", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"],
    shows_sys: true,
    supervisors_program: "/run/supervisor/supervisor",
    shares_watches: true,
    newest_calls: "ENOSYS",
    // The engine's library ends whoever uses numbers of a width that its filter was not made for.
    x32: "signal 31",
    ..NATIVE
};

impl Place {
    const ALL: [Place; 3] = [Place::NativeAsRoot, Place::NativeAsOrdinary, Place::Docker];

    pub fn user(self) -> User {
        match self {
            Place::NativeAsRoot | Place::Docker => User::Root,
            Place::NativeAsOrdinary => User::Ordinary,
        }
    }

    pub fn expected(self) -> &'static Expected {
        match self {
            Place::NativeAsRoot => &NATIVE,
            Place::NativeAsOrdinary => &NATIVE_AS_ORDINARY,
            Place::Docker => &DOCKER,
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
        }
        machine
    }

    /// What `create_session` must answer about where it is.
    pub fn confirm(self, created: &Value) {
        let backend = match self {
            Place::NativeAsRoot | Place::NativeAsOrdinary => "native",
            Place::Docker => "docker",
        };
        assert_eq!(created["backend"], json!(backend), "{created:#}");
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
        }
    }
}

/// All places that this machine has.
pub fn places() -> Vec<Place> {
    let mut places = Place::ALL.to_vec();
    places.retain(|place| place.is_here());
    places
}

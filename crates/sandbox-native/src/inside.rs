//! What the new process does to itself, from its birth in the namespaces to the execution of the supervisor. Nothing
//! untrusted runs before its last step, and every step that fails ends it.
//!
//! ```text
//! control groups → wait for the id maps → ids → private mounts → new root → pivot → names, lo
//!   → wait for "go" → cgroup namespace → rlimits → keyring → capabilities, ids → no_new_privs → seccomp → execute
//! ```

use std::{
    convert::Infallible,
    ffi::CString,
    fs::{self, File},
    io::{Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crate::{
    cgroup,
    enter::{self, MountAttributes},
    plan::{At, Failure, FailureKind, Identity, Plan},
    root_file_system,
    sources::{self, Sources},
};
use model::{AGENT_GID, AGENT_UID, LimitName};
use rustix::{
    fs::{CWD, Mode, OFlags, open},
    net::{AddressFamily, SocketType, socket},
    process::{
        Gid, Resource, Rlimit, Signal, Uid, getrlimit, set_parent_process_death_signal, setrlimit,
        setsid, umask,
    },
    thread::{
        CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
        set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};
use sandbox_host::OwnerMaps;

/// The name that the machine has inside.
const HOST_NAME: &[u8] = b"sandbox";
/// Locked memory of one process, bytes: the kernel's default before it became generous.
const MEMORY_LOCK_BYTES: u64 = 64 * 1024;
/// Signals that may wait for the agent's uid.
const PENDING_SIGNALS: u64 = 4096;
/// Watches of files: a quarter of the instances that the kernel gives each user (128, `fs/notify/inotify`), and so many
/// directories as a large project has.
const WATCH_LIMITS: [(&str, &str); 2] = [
    ("max_inotify_instances", "32"),
    ("max_inotify_watches", "65536"),
];
/// Highest capability number that a kernel may know: the sets have 64 bits.
const LAST_CAPABILITY: u32 = 63;

/// What the parent prepared for the child.
pub(crate) struct Birth<'plan> {
    /// What to build.
    pub plan: &'plan Plan,
    /// Ways into the control groups.
    pub doors: Vec<File>,
    /// Mounts that root made beforehand; an ordinary user's child makes its own.
    pub sources: Option<Sources>,
    /// The supervisor.
    pub program: BorrowedFd<'plan>,
}

/// Becomes the supervisor. Returns only when a step failed.
pub(crate) fn become_supervisor(
    birth: Birth<'_>,
    mut go: impl Read,
) -> Result<Infallible, Failure> {
    let plan = birth.plan;
    // Before anything else: what is made from here on counts for the sandbox.
    for mut door in birth.doors {
        door.write_all(cgroup::MYSELF)
            .at("enter the control groups")?;
    }
    wait_for_helper(&mut go);
    enter_ids(plan.identity)?;
    limit_watches();
    die_with_parent(true)?;
    // A mask first: modes of what is made below are exact.
    umask(Mode::empty());
    make_mounts_private()?;
    let sources = match birth.sources {
        Some(sources) => sources,
        None => sources::open_all(plan, &mut OwnerMaps::new(plan.identity.owners()))?,
    };
    root_file_system::build(plan, sources)?;
    umask(Mode::from_raw_mode(0o022));
    rustix::system::sethostname(HOST_NAME).at("set the host name")?;
    let internet = socket(AddressFamily::INET, SocketType::DGRAM, None).at("open a socket")?;
    enter::switch_loopback_on(internet.as_fd()).at("switch the loopback interface on")?;
    drop(internet);
    setsid().at("leave the session of processes")?;
    // From here on it is in its control groups, and written down.
    wait_for_helper(&mut go);
    enter::enter_cgroup_namespace().at("enter a cgroup namespace")?;
    let arguments = arguments(plan)?;
    no_standard_streams()?;
    set_resource_limits(plan)?;
    // A kernel without keyrings has nothing to leave.
    let _ = enter::join_new_session_keyring();
    drop_privileges(plan.identity)?;
    enter::close_on_execution_from(3).at("close descriptors")?;
    die_with_parent(false)?;
    seccompiler::apply_filter(&plan.filter.program()).map_err(|_| Failure {
        kind: FailureKind::Step,
        step: "install the system-call filter".to_owned(),
        errno: std::io::Error::last_os_error().raw_os_error().unwrap_or(0),
    })?;
    enter::reset_signals().at("reset signals")?;
    let error = enter::execute(birth.program, &arguments);
    Err(Failure::at("execute the supervisor", &error))
}

/// The helper says one byte when the ids are mapped and one when all else on its side is done; it closes the pipe when
/// something failed there. It knows what, so this process ends without a word: a report is always the first failure.
fn wait_for_helper(go: &mut impl Read) {
    let mut byte = [0];
    if go.read_exact(&mut byte).is_err() {
        enter::end_now(1);
    }
}

/// Takes an id that exists in the new user namespace.
pub(crate) fn enter_ids(identity: Identity) -> Result<(), Failure> {
    match identity {
        Identity::Range { .. } => set_ids(0, 0),
        // These are the agent's already.
        Identity::Subordinate { .. } | Identity::Single { .. } => Ok(()),
    }
}

/// What the sandbox takes counts for whoever made its user namespace, too: one sandbox must not use up root's.
fn limit_watches() {
    for (name, value) in WATCH_LIMITS {
        // Where `/proc/sys` is read-only, in a container say, the host's own limits hold alone.
        let _ = fs::write(format!("/proc/sys/user/{name}"), value);
    }
}

fn set_ids(uid: u32, gid: u32) -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_groups(&[]).at("drop supplementary groups")?;
    set_thread_res_gid(gid, gid, gid).at("set the group id")?;
    set_thread_res_uid(uid, uid, uid).at("set the user id")
}

fn die_with_parent(yes: bool) -> Result<(), Failure> {
    set_parent_process_death_signal(yes.then_some(Signal::KILL))
        .at("tie this process to the helper")
}

/// Nothing mounted here reaches the host, and nothing mounted there later reaches us.
pub(crate) fn make_mounts_private() -> Result<(), Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open("/", flags, Mode::empty()).at("open the root directory")?;
    let change = MountAttributes {
        recursive: true,
        private: true,
        ..MountAttributes::default()
    };
    enter::set_mount_attributes(root.as_fd(), change).at("make mounts private")
}

fn arguments(plan: &Plan) -> Result<Vec<CString>, Failure> {
    let words =
        std::iter::once("supervisor").chain(plan.supervisor_arguments.iter().map(String::as_str));
    words
        .map(|word| {
            CString::new(word)
                .map_err(std::io::Error::from)
                .at("pass an argument")
        })
        .collect()
}

/// Descriptors 0 to 2 are the sandbox's own `/dev/null`: nothing of the server's is left to write to.
fn no_standard_streams() -> Result<(), Failure> {
    let null =
        open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).at("open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).at("replace standard input")?;
    rustix::stdio::dup2_stdout(&null).at("replace standard output")?;
    rustix::stdio::dup2_stderr(&null).at("replace standard error")
}

fn set_resource_limits(plan: &Plan) -> Result<(), Failure> {
    let asked = |name: LimitName| plan.spec.limits.get(name).value;
    let limits = [
        (Resource::Nofile, asked(LimitName::OpenFiles)),
        (Resource::Fsize, asked(LimitName::FileBytes)),
        (Resource::Nproc, asked(LimitName::Pids)),
        (Resource::Core, 0),
        (Resource::Memlock, MEMORY_LOCK_BYTES),
        (Resource::Sigpending, PENDING_SIGNALS),
        (Resource::Msgqueue, 0),
        (Resource::Nice, 0),
        (Resource::Rtprio, 0),
    ];
    for (resource, value) in limits {
        // Never above what the server itself has: raising it would need a capability of the host.
        let value = getrlimit(resource)
            .maximum
            .map_or(value, |maximum| value.min(maximum));
        setrlimit(
            resource,
            Rlimit {
                current: Some(value),
                maximum: Some(value),
            },
        )
        .at("set a resource limit")?;
    }
    Ok(())
}

/// Empties all five capability sets for good and becomes the agent.
fn drop_privileges(identity: Identity) -> Result<(), Failure> {
    for capability in 0..=LAST_CAPABILITY {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << capability))
        {
            // Beyond the last capability that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            result => result.at("drop a capability from the bounding set")?,
        }
    }
    clear_ambient_capability_set().at("clear the ambient capabilities")?;
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(bits).at("lock the secure bits")?;
    match identity {
        Identity::Range { .. } | Identity::Subordinate { .. } => set_ids(AGENT_UID, AGENT_GID)?,
        // The kernel forbids to change groups in a namespace of a single id.
        Identity::Single { .. } => {}
    }
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )
    .at("empty the capability sets")?;
    set_no_new_privs(true).at("set no_new_privs")
}

/// A handle of that directory.
pub(crate) fn open_directory(path: &str) -> Result<OwnedFd, rustix::io::Errno> {
    rustix::fs::openat(
        CWD,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

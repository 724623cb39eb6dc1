//! What a container is made of: decided by us alone, from the spec. Nothing of it comes from labels, from the image, or
//! from what a client said.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountType, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum,
};
use model::{AGENT_GID, AGENT_UID, SUPERVISOR_DIRECTORY, SandboxSpec};
use sandbox::{MASKED_PROC_FILES, wire::SupervisorArguments};
use sandbox_host::{MIN_TEMPORARY_BYTES, Temporary, supervisor_arguments};

use crate::{
    record::{OWNER_LABEL, SESSION_LABEL},
    staging::Staged,
};

/// Name of the supervisor's program in the directory with the host's socket.
pub(crate) const PROGRAM_NAME: &str = "supervisor";
/// Period of the CPU quota, microseconds: the kernel's default.
const CPU_PERIOD_US: i64 = 100_000;
/// Smallest quota that the kernel takes, microseconds.
const CPU_QUOTA_MIN_US: i64 = 1_000;
/// Victim of the kernel before any process of the host, the server among them.
const OOM_SCORE: i64 = 500;
/// Locked memory of one process, bytes: the kernel's default before it became generous.
const MEMORY_LOCK_BYTES: i64 = 64 * 1024;
/// Signals that may wait for the agent's uid. All containers share it.
const PENDING_SIGNALS: i64 = 4096;
/// What `/proc` and `/sys` tell about the machine, besides [`MASKED_PROC_FILES`]: hidden.
const MASKED_DIRECTORIES: [&str; 5] = [
    "/proc/scsi",
    "/proc/asound",
    "/proc/acpi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// What `/proc` lets root of the machine change: read-only.
const READ_ONLY_PATHS: [&str; 4] = ["/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq"];
/// Control groups are of no use inside, and version 1 shows them in a tmpfs that is writable.
const HIDDEN_CONTROL_GROUPS: (&str, &str) = ("/sys/fs/cgroup", "ro,nosuid,nodev,noexec,size=4k");
/// The first port that the agent may listen on, in the container's own network namespace alone: the one for names, which
/// the supervisor takes before anything else runs. Some engines open all of them, some none.
const FIRST_PORT: (&str, &str) = ("net.ipv4.ip_unprivileged_port_start", "53");

/// The supervisor's program inside.
pub(crate) fn supervisor_program() -> String {
    format!("{SUPERVISOR_DIRECTORY}/{PROGRAM_NAME}")
}

/// What the spec does not say.
pub(crate) struct Making<'making> {
    /// The image, by id.
    pub image: &'making str,
    /// The system-call profile in the engine's form.
    pub seccomp: &'making str,
    /// Swapping can be forbidden by itself.
    pub swappiness: bool,
    /// The mounts.
    pub staged: &'making [Staged],
    /// Frames travel over the container's standard streams.
    pub attached: bool,
}

/// The whole body of the call that creates a container.
pub(crate) fn container(spec: &SandboxSpec, making: &Making<'_>) -> ContainerCreateBody {
    let labels = [
        (OWNER_LABEL, spec.owner.to_string()),
        (SESSION_LABEL, spec.session.to_string()),
    ];
    let never = vec!["NONE".to_owned()];
    ContainerCreateBody {
        image: Some(making.image.to_owned()),
        entrypoint: Some(vec![supervisor_program()]),
        cmd: Some(arguments(spec, making.attached).to_argv()),
        user: Some(agent()),
        working_dir: Some("/".to_owned()),
        hostname: Some("sandbox".to_owned()),
        env: Some(Vec::new()),
        labels: Some(labels.map(|(name, value)| (name.to_owned(), value)).into()),
        healthcheck: Some(HealthConfig {
            test: Some(never),
            ..HealthConfig::default()
        }),
        attach_stdin: Some(making.attached),
        attach_stdout: Some(making.attached),
        attach_stderr: Some(false),
        open_stdin: Some(making.attached),
        // A server that goes does not take the input away from the next one.
        stdin_once: Some(false),
        tty: Some(false),
        host_config: Some(host_config(spec, making)),
        ..ContainerCreateBody::default()
    }
}

fn arguments(spec: &SandboxSpec, attached: bool) -> SupervisorArguments {
    let arguments = supervisor_arguments(spec, false);
    SupervisorArguments {
        socket: arguments.socket.filter(|_| !attached),
        ..arguments
    }
}

/// The user and group of everything inside. Both by number: names are the image's.
pub(crate) fn agent() -> String {
    format!("{AGENT_UID}:{AGENT_GID}")
}

/// What the engine is told about the system calls.
pub(crate) fn seccomp_option(profile: &str) -> String {
    format!("seccomp={profile}")
}

fn host_config(spec: &SandboxSpec, making: &Making<'_>) -> HostConfig {
    let temporary = Temporary::split(spec.limits.temporary_bytes.value);
    let isolated = HostConfig {
        network_mode: Some("none".to_owned()),
        readonly_rootfs: Some(true),
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec![
            "no-new-privileges".to_owned(),
            seccomp_option(making.seccomp),
        ]),
        pid_mode: Some(String::new()),
        ipc_mode: Some("private".to_owned()),
        uts_mode: Some(String::new()),
        userns_mode: Some(String::new()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        masked_paths: Some(masked_paths()),
        readonly_paths: Some(READ_ONLY_PATHS.map(str::to_owned).to_vec()),
        mounts: Some(making.staged.iter().map(bind).collect()),
        tmpfs: Some(tmpfs(&temporary)),
        sysctls: Some(HashMap::from([(
            FIRST_PORT.0.to_owned(),
            FIRST_PORT.1.to_owned(),
        )])),
        log_config: Some(HostConfigLogConfig {
            typ: Some("none".to_owned()),
            config: None,
        }),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        auto_remove: Some(false),
        init: Some(false),
        runtime: spec.runtime.as_ref().map(|class| class.name.clone()),
        ..HostConfig::default()
    };
    limited(spec, making.swappiness, isolated)
}

/// CPU by quota and period: an engine refuses more `NanoCpus` than the machine has.
fn limited(spec: &SandboxSpec, swappiness: bool, isolated: HostConfig) -> HostConfig {
    let limits = &spec.limits;
    let memory = number(limits.memory_bytes.value);
    let quota = number(limits.cpu_millis.value).saturating_mul(CPU_PERIOD_US / 1000);
    HostConfig {
        memory: Some(memory),
        // Both together: none of it may be swap.
        memory_swap: Some(memory),
        memory_swappiness: swappiness.then_some(0),
        oom_kill_disable: None,
        oom_score_adj: Some(OOM_SCORE),
        cpu_period: Some(CPU_PERIOD_US),
        cpu_quota: Some(quota.max(CPU_QUOTA_MIN_US)),
        pids_limit: Some(number(limits.pids.value)),
        ulimits: Some(ulimits(spec)),
        ..isolated
    }
}

/// No `nproc`: without a user namespace all containers and the host's user of that number share one count, and one
/// session could keep the others from starting a process. The control group counts each for itself.
fn ulimits(spec: &SandboxSpec) -> Vec<ResourcesUlimits> {
    let limits = [
        ("nofile", number(spec.limits.open_files.value)),
        ("fsize", number(spec.limits.file_bytes.value)),
        ("core", 0),
        ("memlock", MEMORY_LOCK_BYTES),
        ("sigpending", PENDING_SIGNALS),
        ("msgqueue", 0),
        ("nice", 0),
        ("rtprio", 0),
    ];
    limits
        .map(|(name, value)| ResourcesUlimits {
            name: Some(name.to_owned()),
            soft: Some(value),
            hard: Some(value),
        })
        .to_vec()
}

fn tmpfs(temporary: &Temporary) -> HashMap<String, String> {
    let own = |bytes: u64, mode: &str| {
        let bytes = bytes.max(MIN_TEMPORARY_BYTES);
        let inodes = Temporary::inodes(bytes);
        format!(
            "rw,exec,nosuid,nodev,size={bytes},nr_inodes={inodes},mode={mode},uid={AGENT_UID},gid={AGENT_GID}"
        )
    };
    let (hidden, options) = HIDDEN_CONTROL_GROUPS;
    HashMap::from([
        ("/tmp".to_owned(), own(temporary.tmp, "1777")),
        ("/home/agent".to_owned(), own(temporary.home, "700")),
        ("/run".to_owned(), own(temporary.run, "755")),
        // Instead of the engine's own, which bounds the bytes and not the number of files.
        ("/dev/shm".to_owned(), own(temporary.shared_memory, "1777")),
        (hidden.to_owned(), options.to_owned()),
    ])
}

fn masked_paths() -> Vec<String> {
    let files = MASKED_PROC_FILES.iter().map(|name| format!("/proc/{name}"));
    files.chain(MASKED_DIRECTORIES.map(str::to_owned)).collect()
}

fn bind(staged: &Staged) -> Mount {
    Mount {
        target: Some(staged.target.to_string_lossy().into_owned()),
        source: Some(staged.source.to_string_lossy().into_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(staged.told_read_only),
        bind_options: Some(MountBindOptions {
            // With the protected paths that are mounted below it, and cut off from the host.
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            non_recursive: Some(false),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

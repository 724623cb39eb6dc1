//! The command line of a sandbox's supervisor.

use model::{STATE_PATH, SUPERVISOR_DIRECTORY, SandboxSpec, WORKSPACE_PATH};
use wire::{SoftLimits, SupervisorArguments};

use crate::link::SOCKET_NAME;

/// What the supervisor is told about its sandbox. `watches_memory`: no control group holds the memory.
pub fn supervisor_arguments(spec: &SandboxSpec, watches_memory: bool) -> SupervisorArguments {
    let mut writable: Vec<String> = [
        WORKSPACE_PATH,
        STATE_PATH,
        "/tmp",
        "/home/agent",
        "/run",
        "/dev/shm",
    ]
    .map(String::from)
    .to_vec();
    let mounts = spec.mounts.iter().filter(|mount| !mount.read_only);
    writable.extend(mounts.filter_map(|mount| Some(mount.target.to_str()?.to_owned())));
    SupervisorArguments {
        socket: Some(format!("{SUPERVISOR_DIRECTORY}/{}", SOCKET_NAME)),
        writable,
        spool: STATE_PATH.to_owned(),
        lease_ms: spec.lease_ms,
        soft: SoftLimits {
            memory_bytes: if watches_memory {
                spec.limits.memory_bytes.value
            } else {
                0
            },
            // RLIMIT_NPROC holds them where no control group does.
            pids: 0,
            state_bytes: spec.limits.state_bytes.value,
        },
    }
}

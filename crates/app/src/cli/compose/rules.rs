//! What a Compose file can have wrong: each rule once, with why it matters and what to write in its place. `lint.rs` says
//! when a rule is broken.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Weakens nothing by itself.
    Low,
    /// A layer is missing that would hold when another one fails.
    Medium,
    /// A wall is missing.
    High,
    /// The service is as good as root on the host.
    Critical,
}

impl Severity {
    pub fn word(self) -> &'static str {
        match self {
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }
}

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// Stable; scripts may rely on it.
    pub id: &'static str,
    pub severity: Severity,
    pub why: &'static str,
    pub fix: &'static str,
}

/// The rule of that id.
///
/// Ids are written in `lint.rs` alone, where a test finds each of them here.
pub fn rule(id: &'static str) -> &'static Rule {
    const UNKNOWN: Rule = Rule {
        id: "unknown_rule",
        severity: Severity::High,
        why: "The linter names a rule that it does not have.",
        fix: "Report this as a fault of claude-code-mcp.",
    };
    RULES.iter().find(|rule| rule.id == id).unwrap_or(&UNKNOWN)
}

/// All rules, the worst first.
pub const RULES: &[Rule] = &[
    Rule {
        id: "engine_socket",
        severity: Severity::Critical,
        why: "Whoever reaches the engine's API is root on the host: it starts a privileged container with / mounted at a word.",
        fix: "Do not mount it. The embedded backend of claude-code-mcp makes sandboxes without an engine; where sessions must be \
              containers of the engine, run the server on the host, not in a container.",
    },
    Rule {
        id: "engine_socket_read_only",
        severity: Severity::Critical,
        why: "`:ro` protects the socket's file from being replaced or removed, nothing else. Requests pass: with the socket \
              mounted read-only, POST /containers/create with Privileged and /:/host answers 201.",
        fix: "Take the mount away. No mount option restricts what is asked over a socket.",
    },
    Rule {
        id: "engine_over_network",
        severity: Severity::Critical,
        why: "An engine's API at a TCP port is root on the host for everybody who reaches the port, other containers among them.",
        fix: "Do not give a service the engine's address, and publish neither port 2375 nor 2376.",
    },
    Rule {
        id: "privileged",
        severity: Severity::Critical,
        why: "Every capability, every device of the host, and neither seccomp nor AppArmor: the container is no wall.",
        fix: "Remove it, and grant what is really needed by name.",
    },
    Rule {
        id: "host_path",
        severity: Severity::Critical,
        why: "The directory holds what the host trusts (accounts, keys, programs that root runs, sockets, other containers).",
        fix: "Mount the one project directory that is worked on, or a named volume.",
    },
    Rule {
        id: "capability_added",
        severity: Severity::High,
        why: "Most capabilities are a way to root on the host, or to other containers' traffic.",
        fix: "Remove cap_add. For a port below 1024 NET_BIND_SERVICE alone is enough.",
    },
    Rule {
        id: "host_network",
        severity: Severity::High,
        why: "The service shares the host's interfaces: it reaches every loopback service, the cloud's metadata address and \
              abstract sockets, and listens in the host's name.",
        fix: "Use a network of its own, or network_mode: none.",
    },
    Rule {
        id: "host_namespace",
        severity: Severity::High,
        why: "The service sees, and may signal or read, what belongs to the host or to another container.",
        fix: "Remove pid, ipc, uts, cgroup or userns_mode: each container has its own without them.",
    },
    Rule {
        id: "device",
        severity: Severity::High,
        why: "A device leads past the container's file system and limits: a disk holds the host's files, /dev/mem its memory.",
        fix: "Remove devices and device_cgroup_rules.",
    },
    Rule {
        id: "unconfined",
        severity: Severity::High,
        why: "It turns off the filter of system calls, AppArmor or SELinux labels, which is what holds when a kernel call has a fault.",
        fix: "Remove it, or name a profile of your own (seccomp=./profile.json, apparmor=NAME).",
    },
    Rule {
        id: "unmasked_paths",
        severity: Severity::High,
        why: "systempaths=unconfined uncovers /proc/sys, /proc/kcore and others: root inside changes the host's kernel with them.",
        fix: "Remove it, or run the service without root, capabilities and new privileges (user, cap_drop: [ALL], \
              no-new-privileges:true): then the kernel's own permissions are in the way.",
    },
    Rule {
        id: "published_everywhere",
        severity: Severity::High,
        why: "A port without an address is published at all of the host's, 0.0.0.0 and ::, past most host firewalls.",
        fix: "Name the address: \"127.0.0.1:8080:8080\".",
    },
    Rule {
        id: "secret_in_environment",
        severity: Severity::High,
        why: "Variables are shown by docker inspect, stand in /proc/*/environ, and are inherited by every child, and often \
              committed with the file.",
        fix: "Use `secrets:`, and hand over a path: a variable whose name ends in _FILE, or api_key_file of claude-code-mcp.",
    },
    Rule {
        id: "internal_network",
        severity: Severity::Medium,
        why: "`internal: true` takes the way out, not the ways in between: the service still reaches every port of the host \
              that listens on 0.0.0.0, by the bridge's own address, and every other container on the network. And it is the \
              server's network: it says nothing about that of its sessions.",
        fix: "Use network_mode: none where nothing is to be reached. Else, with Docker 28 or newer, isolate the bridge: \
              driver_opts: {com.docker.network.bridge.gateway_mode_ipv4: isolated, \
              com.docker.network.bridge.enable_icc: \"false\"}. On older engines drop its packets in the host's INPUT chain \
              (DOCKER-USER does not see them).",
    },
    Rule {
        id: "capabilities_kept",
        severity: Severity::Medium,
        why: "Fourteen capabilities are left by default, among them DAC_OVERRIDE, SETUID, MKNOD and NET_RAW.",
        fix: "cap_drop: [ALL]",
    },
    Rule {
        id: "new_privileges",
        severity: Severity::Medium,
        why: "A setuid program in the image gives its caller root inside.",
        fix: "security_opt: [\"no-new-privileges:true\"]",
    },
    Rule {
        id: "root_user",
        severity: Severity::Medium,
        why: "Without a user the image decides, which mostly is root: uid 0 of the host, unless ids are mapped.",
        fix: "user: \"1000:1000\"",
    },
    Rule {
        id: "writable_root",
        severity: Severity::Medium,
        why: "Whoever gets in can replace programs and stay; what is written has no limit.",
        fix: "read_only: true, and tmpfs or volumes for what must be written.",
    },
    Rule {
        id: "no_memory_limit",
        severity: Severity::Medium,
        why: "One runaway process takes the host's memory, and the kernel then kills somebody else's.",
        fix: "mem_limit: 2g, or deploy.resources.limits.memory",
    },
    Rule {
        id: "no_cpu_limit",
        severity: Severity::Medium,
        why: "A busy loop in every thread leaves nothing for its neighbors.",
        fix: "cpus: 2, or deploy.resources.limits.cpus",
    },
    Rule {
        id: "no_process_limit",
        severity: Severity::Medium,
        why: "A fork bomb fills the host's table of processes.",
        fix: "pids_limit: 512, or deploy.resources.limits.pids",
    },
    Rule {
        id: "latest_tag",
        severity: Severity::Medium,
        why: "What it stands for changes under you; nobody can say later what was running.",
        fix: "Name a version, best by digest: image: name@sha256:…",
    },
    Rule {
        id: "not_seen",
        severity: Severity::Medium,
        why: "It comes from outside of this file, so the linter cannot judge it.",
        fix: "Lint what Compose makes of it: docker compose config > whole.yaml, then lint that.",
    },
    Rule {
        id: "unlimited_log",
        severity: Severity::Low,
        why: "The default log driver (json-file) keeps everything: a service that prints fills the host's disk.",
        fix: "logging: {driver: local, options: {max-size: 10m, max-file: \"3\"}}",
    },
    Rule {
        id: "obsolete_version",
        severity: Severity::Low,
        why: "Compose has ignored `version` since 2020; it suggests rules that do not apply.",
        fix: "Remove the line.",
    },
];

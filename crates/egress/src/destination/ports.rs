//! Ports that a rule alone does not open: behind them stands what commands machines, or what sends mail in their name.

/// A port and why it is guarded.
struct Guarded {
    port: u16,
    _reason: &'static str,
}

const GUARDED: [Guarded; 9] = [
    guarded(
        25,
        "SMTP between servers: mail sent from here is mail of this machine's owner",
    ),
    guarded(2375, "Docker's API in clear: root on that machine"),
    guarded(2376, "Docker's API over TLS"),
    guarded(2377, "Docker Swarm's managers"),
    guarded(2379, "etcd for clients: the whole state of a cluster"),
    guarded(2380, "etcd between its members"),
    guarded(6443, "Kubernetes' API"),
    guarded(10250, "the kubelet's API: commands in every pod of a node"),
    guarded(10255, "the kubelet's API that asks nobody who he is"),
];

const fn guarded(port: u16, reason: &'static str) -> Guarded {
    Guarded {
        port,
        _reason: reason,
    }
}

/// Whether a port opens only by a rule that the operator marked `private`.
pub fn is_guarded_port(port: u16) -> bool {
    GUARDED.iter().any(|guarded| guarded.port == port)
}

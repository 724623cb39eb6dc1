//! Which layers are in force.

use model::{Layer, LayerInForce};

use super::HostView;
use crate::Inspection;

/// `/proc/self/ns/*`, in the order of [`wire::Attestation::namespaces`].
pub(super) const NAMESPACE_FILES: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// `Seccomp:` of `/proc/self/status` when a filter is loaded (`SECCOMP_MODE_FILTER`).
const SECCOMP_MODE_FILTER: u32 = 2;

/// The views that a layer is judged by.
#[derive(Clone, Copy)]
struct Views<'a> {
    inside: &'a wire::Attestation,
    outside: &'a Inspection,
    host: &'a HostView,
}

/// Whether it is there, and what was read.
type Seen = (bool, String);

pub(super) fn in_force(
    inside: &wire::Attestation,
    outside: &Inspection,
    host: &HostView,
) -> Vec<LayerInForce> {
    let views = Views {
        inside,
        outside,
        host,
    };
    Layer::ALL
        .iter()
        .map(|layer| views.combine(*layer))
        .collect()
}

impl Views<'_> {
    fn combine(self, layer: Layer) -> LayerInForce {
        let (shown, evidence) = self.seen_inside(layer);
        let contradicted = self
            .outside
            .layers
            .iter()
            .find(|found| found.layer == layer && !found.in_force);
        match contradicted {
            Some(found) => LayerInForce {
                layer,
                in_force: false,
                evidence: format!("{evidence}; from outside: {}", found.evidence),
            },
            None => LayerInForce {
                layer,
                in_force: shown,
                evidence,
            },
        }
    }

    fn seen_inside(self, layer: Layer) -> Seen {
        let inside = self.inside;
        match layer {
            Layer::UserNamespace => self.own_namespace(layer, 0),
            Layer::MountNamespace => self.own_namespace(layer, 1),
            Layer::PidNamespace => {
                let (own, evidence) = self.own_namespace(layer, 2);
                (
                    own && inside.pid == 1,
                    format!("{evidence}, pid {}", inside.pid),
                )
            }
            Layer::NetworkNamespace => {
                let (own, evidence) = self.own_namespace(layer, 3);
                let alone = inside.interfaces.iter().all(|name| name == "lo");
                (
                    own && alone,
                    format!("{evidence}, interfaces {:?}", inside.interfaces),
                )
            }
            Layer::IpcNamespace => self.own_namespace(layer, 4),
            Layer::UtsNamespace => self.own_namespace(layer, 5),
            Layer::CgroupNamespace => self.own_namespace(layer, 6),
            Layer::Seccomp => {
                let (mode, filters) = (inside.seccomp_mode, inside.seccomp_filters);
                (
                    mode == SECCOMP_MODE_FILTER && filters > 0,
                    format!("Seccomp: {mode}, {filters} filters"),
                )
            }
            Layer::NoNewPrivileges => (
                inside.no_new_privs,
                format!("NoNewPrivs: {}", u8::from(inside.no_new_privs)),
            ),
            Layer::EmptyCapabilities => empty_capabilities(inside.capabilities),
            Layer::ReadOnlyRoot => read_only_root(inside),
            Layer::Landlock => {
                let (abi, refused) = (inside.landlock_abi, inside.landlock_in_force);
                (
                    abi > 0 && refused,
                    format!("ABI {abi}, an access refused: {refused}"),
                )
            }
            Layer::GuestKernel => self.guest_kernel(),
            Layer::NotRoot => (
                inside.uid != 0 && inside.gid != 0,
                format!("uid {}, gid {} inside", inside.uid, inside.gid),
            ),
        }
    }

    /// Its kernel is not the host's, and whoever started it says the same: inside alone, a name proves nothing.
    fn guest_kernel(self) -> Seen {
        let (inside, host) = (&self.inside.kernel, &self.host.kernel);
        let differs = !inside.is_empty() && !host.is_empty() && inside != host;
        (
            differs && self.affirmed(Layer::GuestKernel),
            format!("the kernel inside is {inside:?}"),
        )
    }

    fn affirmed(self, layer: Layer) -> bool {
        let mut layers = self.outside.layers.iter();
        layers.any(|seen| seen.layer == layer && seen.in_force)
    }

    /// The inode differs from the host's. Where the host's is unknown, only the outside can tell.
    fn own_namespace(self, layer: Layer, index: usize) -> Seen {
        // Its numbers say nothing about those of the host.
        if self.guest_kernel().0 {
            return (true, "in a kernel of its own".to_owned());
        }
        let (found, hosts) = (self.inside.namespaces[index], self.host.namespaces[index]);
        let own = found != 0
            && if hosts == 0 {
                self.affirmed(layer)
            } else {
                found != hosts
            };
        (own, format!("{} namespace {found}", NAMESPACE_FILES[index]))
    }
}

fn empty_capabilities(sets: [u64; 5]) -> Seen {
    let [inheritable, permitted, effective, bounding, ambient] = sets;
    let evidence = format!(
        "CapInh {inheritable:x}, CapPrm {permitted:x}, CapEff {effective:x}, CapBnd {bounding:x}, CapAmb {ambient:x}"
    );
    (sets == [0; 5], evidence)
}

fn read_only_root(inside: &wire::Attestation) -> Seen {
    let mounted = inside
        .mounts
        .iter()
        .filter(|mount| mount.target == "/")
        .all(|mount| mount.read_only);
    let refused = inside.root_read_only;
    (
        refused && mounted,
        format!("a write refused with EROFS: {refused}, mounted read-only: {mounted}"),
    )
}

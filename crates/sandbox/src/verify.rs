//! Is a running sandbox as strong as its spec asks?
//!
//! Two views are combined: what the supervisor read inside before anything untrusted ran, and what the backend reads
//! outside. A layer counts only when the inside shows it and the outside does not contradict. What this does not stop:
//! a supervisor that was replaced before it could attest, which is the backend's business (sealed image, checked peer).

mod layers;
mod limits;
mod mounts;

pub use mounts::MASKED_PROC_FILES;

use std::{fmt, fs, io, os::unix::fs::MetadataExt};

use model::{Attestation, Enforcement, Layer, LayerInForce, LimitName, Requirement, SandboxSpec};

use crate::Inspection;

/// What the host knows of itself, for comparison.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostView {
    /// Inodes of the host's `/proc/self/ns/{user,mnt,pid,net,ipc,uts,cgroup}`; 0 where unknown. Where one is unknown,
    /// the layer counts only if the outside affirms it.
    pub namespaces: [u64; 7],
    /// The host's kernel in the words of [`wire::Attestation::kernel`]; empty where unknown.
    pub kernel: String,
}

/// What uname(2) says, one file for each word.
const KERNEL_FILES: [&str; 3] = ["ostype", "osrelease", "version"];

impl HostView {
    /// The view of this process.
    ///
    /// # Errors
    /// When `/proc/self/ns` cannot be read.
    pub fn read() -> io::Result<Self> {
        let mut namespaces = [0; 7];
        for (inode, name) in namespaces.iter_mut().zip(layers::NAMESPACE_FILES) {
            *inode = match fs::metadata(format!("/proc/self/ns/{name}")) {
                Ok(found) => found.ino(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                Err(error) => return Err(error),
            };
        }
        Ok(HostView {
            namespaces,
            kernel: kernel()?,
        })
    }
}

fn kernel() -> io::Result<String> {
    let mut words = Vec::new();
    for name in KERNEL_FILES {
        let word = fs::read_to_string(format!("/proc/sys/kernel/{name}"))?;
        words.push(word.trim().to_owned());
    }
    Ok(words.join(" "))
}

/// A limit that does not hold as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeakLimit {
    /// Which.
    pub limit: LimitName,
    /// What was asked.
    pub asked: u64,
    /// What was found, if anything.
    pub in_force: Option<u64>,
    /// How strongly it holds.
    pub enforcement: Enforcement,
}

/// A mount that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFlaw {
    /// Mount point inside.
    pub target: String,
    /// What is wrong with it, as a phrase after "is".
    pub flaw: &'static str,
}

/// All that makes a sandbox weaker than its spec.
#[derive(Debug, Clone, PartialEq, Eq, Default, thiserror::Error)]
pub struct Weakness {
    /// Required layers that were not found in force.
    pub layers: Vec<LayerInForce>,
    /// Limits that do not hold as asked.
    pub limits: Vec<WeakLimit>,
    /// Mounts that are not as they must be.
    pub mounts: Vec<MountFlaw>,
    /// What is wrong with the supervisor itself, as phrases after "the supervisor".
    pub supervisor: Vec<&'static str>,
}

impl Weakness {
    fn is_empty(&self) -> bool {
        self.layers.is_empty()
            && self.limits.is_empty()
            && self.mounts.is_empty()
            && self.supervisor.is_empty()
    }
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sandbox is weaker than its profile:")?;
        let mut separator = " ";
        let mut item = |f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>| {
            let written = write!(f, "{separator}{text}");
            separator = "; ";
            written
        };
        for layer in &self.layers {
            item(
                f,
                format_args!("{:?} is not in force ({})", layer.layer, layer.evidence),
            )?;
        }
        for limit in &self.limits {
            let found = limit
                .in_force
                .map_or_else(|| "nothing".to_owned(), |value| value.to_string());
            let (name, asked) = (limit.limit.as_str(), limit.asked);
            item(
                f,
                format_args!(
                    "{name} {asked} was asked, {found} is in force ({:?})",
                    limit.enforcement
                ),
            )?;
        }
        for mount in &self.mounts {
            item(
                f,
                format_args!("the mount {:?} is {}", mount.target, mount.flaw),
            )?;
        }
        for flaw in &self.supervisor {
            item(f, format_args!("the supervisor {flaw}"))?;
        }
        Ok(())
    }
}

/// Combines what the supervisor reads inside with what the backend reads outside.
///
/// # Errors
/// [`Weakness`] with everything that is missing: required layers, limits weaker than asked, limits that were named but
/// are not hard (softly held ones pass with `accept_soft_limits`), writable mounts beyond the expected.
pub fn verify(
    spec: &SandboxSpec,
    inside: &wire::Attestation,
    outside: &Inspection,
    host: &HostView,
) -> Result<Attestation, Weakness> {
    let layers = layers::in_force(inside, outside, host);
    let limits = limits::in_force(&spec.limits, inside, outside);
    let required = |layer: Layer| spec.layers.contains(&(layer, Requirement::Required));
    let weakness = Weakness {
        layers: layers
            .iter()
            .filter(|found| !found.in_force && required(found.layer))
            .cloned()
            .collect(),
        limits: limits::weaknesses(spec, &limits),
        mounts: mounts::flaws(spec, inside),
        supervisor: supervisor_flaws(inside, outside),
    };
    if weakness.is_empty() {
        Ok(Attestation {
            layers,
            limits,
            rung: outside.rung.clone(),
        })
    } else {
        Err(weakness)
    }
}

/// Nothing that the supervisor guards holds if the agent can take it over.
fn supervisor_flaws(inside: &wire::Attestation, outside: &Inspection) -> Vec<&'static str> {
    let mut flaws = Vec::new();
    if !outside.running {
        flaws.push("is not running");
    }
    if !inside.not_dumpable {
        flaws.push("can be dumped and traced");
    }
    flaws
}

#[cfg(test)]
mod tests;

//! What protects a process, read from outside: `/proc/<pid>`, never what was asked.

use std::{collections::BTreeMap, fs, io};

use model::{Layer, LayerInForce, LimitName};

/// Namespaces: layer, name below `ns/`.
const NAMESPACES: [(Layer, &str); 7] = [
    (Layer::UserNamespace, "user"),
    (Layer::MountNamespace, "mnt"),
    (Layer::PidNamespace, "pid"),
    (Layer::NetworkNamespace, "net"),
    (Layer::IpcNamespace, "ipc"),
    (Layer::UtsNamespace, "uts"),
    (Layer::CgroupNamespace, "cgroup"),
];
const CAPABILITY_SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

/// One process, seen from outside.
#[derive(Debug, Clone)]
pub struct Outside {
    /// Layers that the outside can see, sorted.
    pub layers: Vec<LayerInForce>,
    resources: String,
    mounts: String,
    command_line: String,
}

impl Outside {
    /// Looks.
    ///
    /// # Errors
    /// When the process is gone, or the kernel does not let us look.
    pub fn read(pid: i32) -> io::Result<Self> {
        let status = Status::read(pid)?;
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
        let mut layers = Vec::new();
        for (layer, name) in NAMESPACES {
            let own = fs::read_link(format!("/proc/self/ns/{name}"))?;
            let its = fs::read_link(format!("/proc/{pid}/ns/{name}"))?;
            layers.push(LayerInForce {
                layer,
                in_force: own != its,
                evidence: format!("{}", its.display()),
            });
        }
        layers.push(seccomp(&status));
        layers.push(flag(Layer::NoNewPrivileges, &status, "NoNewPrivs", "1"));
        layers.push(capabilities(&status));
        layers.push(read_only_root(&mounts));
        layers.push(not_root(&status));
        layers.sort_by_key(|found| found.layer);
        Ok(Outside {
            layers,
            resources: fs::read_to_string(format!("/proc/{pid}/limits"))?,
            mounts,
            command_line: fs::read_to_string(format!("/proc/{pid}/cmdline"))?,
        })
    }

    /// A limit that the process carries itself, by its own limits, its mounts, or what its supervisor was told to watch.
    pub fn read_back(&self, limit: LimitName) -> Option<u64> {
        match limit {
            LimitName::OpenFiles => self.resource("Max open files"),
            LimitName::FileBytes => self.resource("Max file size"),
            LimitName::TemporaryBytes => Some(temporary_bytes(&self.mounts)),
            LimitName::MemoryBytes => watched_by(&self.command_line, "--soft-memory-bytes"),
            LimitName::StateBytes => watched_by(&self.command_line, "--soft-state-bytes"),
            LimitName::CpuMillis | LimitName::Pids => None,
        }
    }

    /// The hard limit of that line of `/proc/<pid>/limits`.
    pub fn resource(&self, name: &str) -> Option<u64> {
        resource(&self.resources, name)
    }
}

/// `/proc/<pid>/status`, by field.
struct Status(BTreeMap<String, String>);

impl Status {
    fn read(pid: i32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Ok(Status(
            fields
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
        ))
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

fn flag(layer: Layer, status: &Status, field: &str, wanted: &str) -> LayerInForce {
    let found = status.get(field);
    LayerInForce {
        layer,
        in_force: found == wanted,
        evidence: format!("{field}: {found}"),
    }
}

fn seccomp(status: &Status) -> LayerInForce {
    let (mode, filters) = (status.get("Seccomp"), status.get("Seccomp_filters"));
    LayerInForce {
        layer: Layer::Seccomp,
        in_force: mode == "2",
        evidence: format!("Seccomp: {mode}, filters: {filters}"),
    }
}

fn capabilities(status: &Status) -> LayerInForce {
    let sets = CAPABILITY_SETS.map(|name| (name, status.get(name)));
    let empty = sets
        .iter()
        .all(|(_, bits)| !bits.is_empty() && bits.bytes().all(|digit| digit == b'0'));
    let evidence = sets
        .map(|(name, bits)| format!("{name}: {bits}"))
        .join(", ");
    LayerInForce {
        layer: Layer::EmptyCapabilities,
        in_force: empty,
        evidence,
    }
}

fn not_root(status: &Status) -> LayerInForce {
    let uids = status.get("Uid");
    let in_force = !uids.is_empty() && uids.split_whitespace().all(|uid| uid != "0");
    LayerInForce {
        layer: Layer::NotRoot,
        in_force,
        evidence: format!("Uid on the host: {uids}"),
    }
}

fn read_only_root(mounts: &str) -> LayerInForce {
    let root = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .rfind(|fields| fields.get(4) == Some(&"/"));
    let options = root
        .as_ref()
        .and_then(|fields| fields.get(5))
        .map_or("", |options| *options);
    let in_force = options.split(',').any(|option| option == "ro");
    LayerInForce {
        layer: Layer::ReadOnlyRoot,
        in_force,
        evidence: format!("mount options of /: {options}"),
    }
}

/// What the supervisor was told to watch, from its command line; `None` for nothing.
fn watched_by(command_line: &str, option: &str) -> Option<u64> {
    let mut words = command_line.split('\0');
    words.find(|word| *word == option)?;
    words.next()?.parse().ok().filter(|value| *value > 0)
}

/// The hard limit of that line of `/proc/<pid>/limits`.
fn resource(resources: &str, name: &str) -> Option<u64> {
    resources.lines().find_map(|line| {
        line.strip_prefix(name)?
            .split_whitespace()
            .nth(1)?
            .parse()
            .ok()
    })
}

/// Sizes of the writable tmpfs together, bytes. The kernel prints kibibytes.
fn temporary_bytes(mounts: &str) -> u64 {
    let writable = ["/tmp", "/home/agent", "/run", "/dev/shm"];
    let sizes = mounts.lines().filter_map(|line| {
        let target = line.split(' ').nth(4)?;
        let options = line.split_once(" - tmpfs ")?.1;
        let size = options
            .split([',', ' '])
            .find_map(|option| option.strip_prefix("size="))?;
        let kibibytes: u64 = size.strip_suffix('k')?.parse().ok()?;
        writable.contains(&target).then_some(kibibytes * 1024)
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_sizes_are_read_from_the_kernels_tables() {
        let resources = "Limit                     Soft Limit           Hard Limit           Units     \n\
                         Max file size             unlimited            1048576              bytes     \n\
                         Max open files            1024                 4096                 files     \n";
        assert_eq!(resource(resources, "Max open files"), Some(4096));
        assert_eq!(resource(resources, "Max file size"), Some(1_048_576));
        let mounts = "1 0 0:1 / / ro,nosuid shared:1 - tmpfs tmpfs rw,size=1024k\n\
                      2 1 0:2 / /tmp rw,nosuid,nodev - tmpfs tmpfs rw,size=64k,nr_inodes=9\n\
                      3 1 0:3 / /run rw - tmpfs tmpfs rw,size=36k\n";
        assert_eq!(temporary_bytes(mounts), 100 * 1024);
        assert!(read_only_root(mounts).in_force);
        assert!(!read_only_root("1 0 0:1 / / rw - tmpfs tmpfs rw").in_force);
    }

    #[test]
    fn a_missing_field_never_counts_as_protection() {
        let status = Status(BTreeMap::new());
        assert!(
            !capabilities(&status).in_force
                && !not_root(&status).in_force
                && !seccomp(&status).in_force
        );
    }
}

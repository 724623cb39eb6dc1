//! What each treatment accepts.

use model::{LimitName, OptionValue, Reason, Refusal, TEMPORARY_PLACES};

use super::{
    read::Read,
    table::{Field, Treatment, shown},
    values::{Place, size},
};

/// The kernel's bounds of a period, microseconds.
const PERIOD_US: std::ops::RangeInclusive<i64> = 1_000..=1_000_000;
/// The least quota of a period, microseconds (the kernel's `min_cfs_quota_period`).
const MIN_QUOTA_US: i64 = 1_000;
/// Limits of a process that narrow one of ours. A uid of a session's own counts its processes as `nproc` does.
const NARROWING_ULIMITS: [(&str, LimitName); 3] = [
    ("nofile", LimitName::OpenFiles),
    ("fsize", LimitName::FileBytes),
    ("nproc", LimitName::Pids),
];
/// Limits of a process that are 0 in every session.
const ULIMITS_OF_ZERO: [&str; 4] = ["core", "msgqueue", "nice", "rtprio"];
/// Options of a temporary place, besides its size, that say what holds anyway.
const TMPFS_OPTIONS: [&str; 3] = ["rw", "nosuid", "nodev"];
/// Where `ShmSize` counts.
const SHARED_MEMORY: &str = "/dev/shm";
/// All capabilities, as an engine says it.
const ALL_CAPABILITIES: &str = "ALL";
/// The kernel's capabilities without their `CAP_` (`linux/capability.h` of 6.18).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl Field {
    pub(super) fn judge(
        &self,
        path: &str,
        value: &OptionValue,
        read: &mut Read,
    ) -> Result<(), Refusal> {
        let place = self.place(path);
        match self.treatment {
            Treatment::Bytes => {
                let bytes = place.bytes(value)?;
                if self.limit == Some(LimitName::MemoryBytes) {
                    read.memory = Some(bytes);
                }
                self.lower(bytes, &place, read);
            }
            Treatment::Count => {
                let count = place.positive(value)?.unsigned_abs();
                self.lower(count, &place, read);
            }
            Treatment::MemoryAndSwap => read.memory_and_swap = Some(place.bytes(value)?),
            Treatment::CpuQuota => read.quota_us = Some(quota(&place, value)?),
            Treatment::CpuPeriod => read.period_us = Some(period(&place, value)?),
            Treatment::NanoCpus => read.nano_cpus = Some(place.positive(value)?),
            Treatment::Ulimits => self.ulimits(&place, value, read)?,
            Treatment::Tmpfs => self.tmpfs(&place, value, read)?,
            Treatment::SharedMemory if value.says_nothing() => {}
            Treatment::SharedMemory => {
                narrow_temporary(SHARED_MEMORY, place.bytes(value)?, &place, read);
            }
            Treatment::Capabilities => self.capabilities(&place, value)?,
            Treatment::OnlyTrue if *value == OptionValue::Boolean(true) => {}
            Treatment::OnlyTrueOrNothing
                if *value == OptionValue::Boolean(true) || value.says_nothing() => {}
            Treatment::OnlyNone if *value == OptionValue::Text("none".to_owned()) => {}
            Treatment::NoNewPrivileges => {
                for (index, option) in place.texts(value)?.into_iter().enumerate() {
                    if !["no-new-privileges", "no-new-privileges=true"].contains(&option) {
                        return Err(self.denied(&format!("{path}[{index}]")));
                    }
                }
            }
            Treatment::Nothing if value.says_nothing() => {}
            Treatment::OnlyTrue
            | Treatment::OnlyTrueOrNothing
            | Treatment::OnlyNone
            | Treatment::Nothing
            | Treatment::Absent => return Err(self.denied(path)),
        }
        Ok(())
    }

    fn lower(&self, value: u64, place: &Place<'_>, read: &mut Read) {
        if let Some(limit) = self.limit {
            read.lower(limit, value, place);
        }
    }

    /// `[{"Name": "nofile", "Soft": 1024, "Hard": 2048}]`
    fn ulimits(
        &self,
        place: &Place<'_>,
        value: &OptionValue,
        read: &mut Read,
    ) -> Result<(), Refusal> {
        for (index, entry) in place.list(value)?.iter().enumerate() {
            let path = format!("{}[{index}]", place.path);
            let Some([name, soft, hard]) = ulimit(entry) else {
                return Err(self
                    .place(&path)
                    .malformed("is no limit", "Give Name, Soft and Hard, and nothing else."));
            };
            let OptionValue::Text(name) = name else {
                return Err(self
                    .place(&format!("{path}.Name"))
                    .malformed("must be a text", "Write it as `nofile`."));
            };
            let zero = OptionValue::Integer(0);
            if ULIMITS_OF_ZERO.contains(&name.as_str()) && (soft, hard) == (&zero, &zero) {
                continue;
            }
            let Some((_, limit)) = NARROWING_ULIMITS.iter().find(|(known, _)| known == name) else {
                return Err(self.denied(&format!("{path}.Name")));
            };
            let soft = self.place(&format!("{path}.Soft")).positive(soft)?;
            let hard = self.place(&format!("{path}.Hard")).positive(hard)?;
            if soft > hard {
                return Err(self.place(&path).malformed(
                    "has a soft limit above its hard one",
                    "Give Soft at most Hard.",
                ));
            }
            // What a program meets is the soft one.
            read.lower(*limit, soft.unsigned_abs(), &self.place(&path));
        }
        Ok(())
    }

    /// `{"/tmp": "nosuid,nodev,size=64m"}`
    fn tmpfs(
        &self,
        place: &Place<'_>,
        value: &OptionValue,
        read: &mut Read,
    ) -> Result<(), Refusal> {
        if value.says_nothing() {
            return Ok(());
        }
        let OptionValue::Object(entries) = value else {
            return Err(place.malformed(
                "must be an object of places and their options",
                "Give {\"/tmp\": \"size=64m\"}.",
            ));
        };
        for (target, options) in entries {
            let path = format!("{}.{}", place.path, shown(target));
            if !TEMPORARY_PLACES.iter().any(|(ours, _)| ours == target) {
                return Err(self.denied(&path));
            }
            let OptionValue::Text(options) = options else {
                return Err(self
                    .place(&path)
                    .malformed("must be a text", "Write it as \"size=64m\"."));
            };
            for option in options.split(',').filter(|_| !options.is_empty()) {
                if TMPFS_OPTIONS.contains(&option) {
                    continue;
                }
                let Some(written) = option.strip_prefix("size=") else {
                    return Err(self.denied(&path));
                };
                let bytes = size(written).ok_or_else(|| {
                    self.place(&path).malformed(
                        "must have a size above 0",
                        "Write it as \"size=64m\", in bytes or with k, m or g.",
                    )
                })?;
                narrow_temporary(target, bytes, &self.place(&path), read);
            }
        }
        Ok(())
    }

    fn capabilities(&self, place: &Place<'_>, value: &OptionValue) -> Result<(), Refusal> {
        for (index, name) in place.texts(value)?.into_iter().enumerate() {
            let bare = name.strip_prefix("CAP_").unwrap_or(name);
            if name != ALL_CAPABILITIES && !CAPABILITIES.contains(&bare) {
                return Err(self.place(&format!("{}[{index}]", place.path)).malformed(
                    "is no capability of the kernel",
                    "Write it as `ALL`, `NET_RAW` or `CAP_NET_RAW`.",
                ));
            }
        }
        Ok(())
    }

    fn place<'a>(&'a self, path: &'a str) -> Place<'a> {
        Place {
            path,
            rule: &self.rule,
        }
    }

    fn denied(&self, path: &str) -> Refusal {
        Refusal::new(
            Reason::PolicyDenied,
            format!("`{path}` is refused by rule {}: {}", self.rule, self.reason),
            "Leave it out: options can only narrow what a session may do.",
        )
        .in_field(path)
    }
}

fn quota(place: &Place<'_>, value: &OptionValue) -> Result<i64, Refusal> {
    let quota = place.positive(value)?;
    if quota < MIN_QUOTA_US {
        return Err(place.malformed(
            "is less than the kernel's least quota",
            "Give at least 1000 µs.",
        ));
    }
    Ok(quota)
}

fn period(place: &Place<'_>, value: &OptionValue) -> Result<i64, Refusal> {
    let period = place.positive(value)?;
    if !PERIOD_US.contains(&period) {
        return Err(place.malformed(
            "is no period that the kernel knows",
            "Give 1000 to 1000000 µs.",
        ));
    }
    Ok(period)
}

/// Name, soft and hard of one entry, which has nothing else.
fn ulimit(entry: &OptionValue) -> Option<[&OptionValue; 3]> {
    let OptionValue::Object(entries) = entry else {
        return None;
    };
    let of = |wanted: &str| {
        let found = entries.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value)
    };
    let found = [of("Name")?, of("Soft")?, of("Hard")?];
    (entries.len() == 3).then_some(found)
}

/// The places share one limit in fixed parts: the whole shrinks until that place has no more than so many bytes.
fn narrow_temporary(target: &str, bytes: u64, place: &Place<'_>, read: &mut Read) {
    if let Some((_, sixteenths)) = TEMPORARY_PLACES.iter().find(|(ours, _)| *ours == target) {
        let whole = (bytes / sixteenths).saturating_mul(16);
        read.lower(LimitName::TemporaryBytes, whole, place);
    }
}

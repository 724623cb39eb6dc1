//! The profile for a kernel of the sandbox's own (gVisor with `--oci-seccomp`).
//!
//! That kernel takes the entries in their order, the first one that matches decides, every refusal is EPERM, and a filter
//! has at most 4096 instructions: an inequality is therefore a refusal of the one value in front of the permission, where
//! the host's form needs an alternative for each bit.
//!
//! It also lets everybody of pid 1's uid signal pid 1 (the host's kernel does not, nor does it let Landlock's domain be
//! left): so calls that name it are refused here. A signal that arrives when a file becomes readable can be chosen and
//! sent to anybody: choosing it is refused.

use sandbox_host::{SeccompArgument, SeccompProfile};

use super::{
    EngineCondition, EngineProfile, Entry, Pattern, SeccompError, alternatives, answer,
    architecture, patterns, plain,
};

/// Calls that send a signal, and which argument names the process.
const SIGNALS: [(&str, u8); 6] = [
    ("kill", 0),
    ("tkill", 0),
    ("tgkill", 0),
    ("tgkill", 1),
    ("rt_sigqueueinfo", 0),
    ("rt_tgsigqueueinfo", 0),
];
/// The supervisor.
const FIRST_PROCESS: u64 = 1;
/// `F_SETSIG` of the kernel's `fcntl.h`.
const F_SETSIG: u64 = 10;
/// Arguments of these are 32 bits wide, whatever stands above.
const LOW_HALF: u64 = 0xFFFF_FFFF;
/// Answered by that kernel itself with ENOSYS, on which programs fall back; EPERM they take for a failure.
const LEFT_TO_THE_KERNEL: [&str; 2] = ["clone3", "rseq"];

pub(super) fn translate(profile: &SeccompProfile) -> Result<EngineProfile, SeccompError> {
    let mut refused: Vec<Entry> = SIGNALS
        .iter()
        .map(|(name, index)| refuse(name, *index, LOW_HALF, FIRST_PROCESS))
        .collect();
    refused.push(refuse("fcntl", 1, LOW_HALF, F_SETSIG));
    let mut allowed = Vec::new();
    for entry in &profile.allow_if {
        let (unequal, others): (Vec<_>, Vec<_>) = entry
            .args
            .iter()
            .partition(|condition| condition.op == "ne");
        for condition in unequal {
            let [one] =
                equal(condition).ok_or_else(|| SeccompError::Condition(entry.name.clone()))?;
            refused.push(refuse(&entry.name, condition.index, one.mask, one.bits));
        }
        let others: Vec<SeccompArgument> = others.into_iter().map(copy).collect();
        if others.is_empty() {
            allowed.push(plain(vec![entry.name.clone()], None));
            continue;
        }
        for args in alternatives(&entry.name, &others)? {
            allowed.push(Entry {
                names: vec![entry.name.clone()],
                action: "SCMP_ACT_ALLOW",
                errno_ret: None,
                args,
            });
        }
    }
    let names = profile
        .allow
        .iter()
        .flat_map(|entry| entry.names.iter().cloned());
    let left = LEFT_TO_THE_KERNEL.map(str::to_owned);
    let plainly = plain(names.chain(left).collect(), None);
    Ok(EngineProfile {
        default_action: "SCMP_ACT_ERRNO",
        default_errno_ret: answer(&profile.default.condition)?,
        architectures: vec![architecture()?],
        syscalls: refused
            .into_iter()
            .chain(allowed)
            .chain([plainly])
            .collect(),
    })
}

fn refuse(name: &str, index: u8, mask: u64, bits: u64) -> Entry {
    Entry {
        args: vec![EngineCondition {
            index,
            value: mask,
            value_two: bits,
            op: "SCMP_CMP_MASKED_EQ",
        }],
        ..plain(vec![name.to_owned()], Some(EPERM))
    }
}

/// `EPERM` of the kernel's `errno-base.h`.
const EPERM: u32 = 1;

/// What an inequality excludes.
fn equal(condition: &SeccompArgument) -> Option<[Pattern; 1]> {
    let same = SeccompArgument {
        op: "eq".to_owned(),
        ..copy(condition)
    };
    patterns(&same)?.try_into().ok()
}

fn copy(condition: &SeccompArgument) -> SeccompArgument {
    SeccompArgument {
        index: condition.index,
        op: condition.op.clone(),
        value: condition.value,
        mask: condition.mask,
        width: condition.width,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> EngineProfile {
        translate(&SeccompProfile::shipped().unwrap()).unwrap()
    }

    /// What that kernel does: the first entry that matches decides.
    fn allows(profile: &EngineProfile, name: &str, args: [u64; 6]) -> bool {
        let matches = |entry: &&Entry| {
            entry.names.iter().any(|found| found == name)
                && entry
                    .args
                    .iter()
                    .all(|one| args[usize::from(one.index)] & one.value == one.value_two)
        };
        profile
            .syscalls
            .iter()
            .find(matches)
            .is_some_and(|entry| entry.action == "SCMP_ACT_ALLOW")
    }

    #[test]
    fn nobody_signals_the_first_process_and_everybody_else_can_be() {
        let profile = shipped();
        for (name, index) in SIGNALS {
            for target in [1, 1 << 32 | 1, u64::MAX << 32 | 1] {
                let mut args = [7; 6];
                args[usize::from(index)] = target;
                assert!(!allows(&profile, name, args), "{name} {target:x}");
            }
            for target in [0, 2, 17, LOW_HALF] {
                let mut args = [7; 6];
                args[usize::from(index)] = target;
                assert!(allows(&profile, name, args), "{name} {target:x}");
            }
        }
        assert!(!allows(&profile, "fcntl", [3, F_SETSIG, 9, 0, 0, 0]));
        assert!(allows(&profile, "fcntl", [3, 4, 9, 0, 0, 0]));
    }

    #[test]
    fn it_means_the_same_as_the_profile_where_they_can_be_compared() {
        let (guest, host) = (
            shipped(),
            super::super::translate(&SeccompProfile::shipped().unwrap()).unwrap(),
        );
        let host_allows = |name: &str, args: [u64; 6]| {
            host.syscalls.iter().any(|entry| {
                entry.action == "SCMP_ACT_ALLOW"
                    && entry.names.iter().any(|found| found == name)
                    && entry
                        .args
                        .iter()
                        .all(|one| args[usize::from(one.index)] & one.value == one.value_two)
            })
        };
        let values = [
            0,
            1,
            2,
            3,
            5,
            10,
            16,
            17,
            22,
            38,
            40,
            0o4755,
            0o755,
            0o100_644,
            0o020_644,
            0o060_644,
            21_522,
            21_523,
            21_532,
            0x1000_0000,
            0x0002_0000,
            4_194_368,
            LOW_HALF,
            1 << 32 | 22,
        ];
        let (mut compared, mut both) = (0, 0);
        for name in syscalls::Sysno::iter().map(|call| call.name()) {
            if LEFT_TO_THE_KERNEL.contains(&name) {
                continue;
            }
            for one in values {
                for other in values {
                    for args in [
                        [2, one, other, 0, 0, 0],
                        [one, other, 0, 0, 0, 0],
                        [one, 2, other, other, 0, 0],
                    ] {
                        let signals = SIGNALS.iter().any(|(call, index)| {
                            *call == name && args[usize::from(*index)] & LOW_HALF == FIRST_PROCESS
                        });
                        let sets = name == "fcntl" && args[1] & LOW_HALF == F_SETSIG;
                        let expected = host_allows(name, args) && !signals && !sets;
                        assert_eq!(allows(&guest, name, args), expected, "{name} {args:x?}");
                        compared += 1;
                        both += usize::from(expected);
                    }
                }
            }
        }
        assert!(
            both > 1000 && compared - both > 1000,
            "{both} of {compared}"
        );
    }
}

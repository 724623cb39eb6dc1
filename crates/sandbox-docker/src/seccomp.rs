//! The system-call profile in the engine's form.
//!
//! The engine's library compares whole 64-bit arguments, and knows no two conditions on one argument. The kernel reads
//! many arguments as 32 bits, so "not 22" of 64 bits would let 2³² + 22 through. Hence every condition becomes a set of
//! alternatives, each of which fixes some of the bits that the kernel reads: "not 22" is "differs in the highest bit, or
//! agrees there and differs in the next, …". The profile's other comparisons become such patterns as well.
//!
//! A name that an engine's library does not know is left out by the engine, and the call then refused.

use std::collections::{BTreeMap, BTreeSet};

use model::Kernel;
use sandbox_host::{SeccompArgument, SeccompProfile};
use serde::Serialize;
use syscalls::Sysno;

mod guest;

/// `EPERM` and `ENOSYS` of the kernel's `errno-base.h` and `errno.h`.
const ERRNOS: [(&str, u32); 2] = [("EPERM", 1), ("ENOSYS", 38)];
/// Most alternatives of one entry: more would make a filter longer than the kernel takes.
const MAX_ALTERNATIVES: usize = 256;

/// Why there is no profile. None of it happens with the one that ships: a test translates it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeccompError {
    #[error("the system-call profile does not parse")]
    Parse(#[from] serde_json::Error),
    #[error("the answer {0} of the system-call profile is unknown")]
    Answer(String),
    #[error("a condition on {0} cannot be said to an engine")]
    Condition(String),
    #[error("system calls of {0} are not known")]
    Architecture(&'static str),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EngineProfile {
    default_action: &'static str,
    default_errno_ret: u32,
    architectures: Vec<&'static str>,
    syscalls: Vec<Entry>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    names: Vec<String>,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<EngineCondition>,
}

/// The argument's bits in `value` are those of `value_two`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EngineCondition {
    index: u8,
    value: u64,
    value_two: u64,
    op: &'static str,
}

/// The profile that ships, in each form.
pub(crate) struct Profiles {
    shared: String,
    guest: String,
}

impl Profiles {
    /// Translates it.
    ///
    /// # Errors
    /// See [`SeccompError`].
    pub fn shipped() -> Result<Self, SeccompError> {
        let profile = SeccompProfile::shipped()?;
        Ok(Profiles {
            shared: serde_json::to_string(&translate(&profile)?)?,
            guest: serde_json::to_string(&guest::translate(&profile)?)?,
        })
    }

    /// The one for sandboxes with that kernel.
    pub fn of(&self, kernel: Kernel) -> &str {
        match kernel {
            Kernel::Shared => &self.shared,
            Kernel::Guest => &self.guest,
        }
    }
}

fn translate(profile: &SeccompProfile) -> Result<EngineProfile, SeccompError> {
    let unknown = answer(&profile.default.unknown)?;
    let mut syscalls = Vec::new();
    let mut named = BTreeSet::new();
    for entry in &profile.allow {
        named.extend(entry.names.iter().map(String::as_str));
        syscalls.push(plain(entry.names.clone(), None));
    }
    for entry in &profile.allow_if {
        named.insert(&entry.name);
        for args in alternatives(&entry.name, &entry.args)? {
            syscalls.push(Entry {
                names: vec![entry.name.clone()],
                action: "SCMP_ACT_ALLOW",
                errno_ret: None,
                args,
            });
        }
    }
    for entry in &profile.deny {
        named.extend(entry.names.iter().map(String::as_str));
        syscalls.push(plain(entry.names.clone(), Some(answer(&entry.errno)?)));
    }
    // Named one by one: the default answers for calls whose conditions do not hold as well, and old engines have only
    // one default.
    let others = Sysno::iter()
        .map(|call| call.name())
        .filter(|name| !named.contains(name))
        .map(str::to_owned);
    syscalls.push(plain(others.collect(), Some(unknown)));
    Ok(EngineProfile {
        default_action: "SCMP_ACT_ERRNO",
        default_errno_ret: answer(&profile.default.condition)?,
        architectures: vec![architecture()?],
        syscalls,
    })
}

fn plain(names: Vec<String>, errno: Option<u32>) -> Entry {
    Entry {
        names,
        action: if errno.is_some() {
            "SCMP_ACT_ERRNO"
        } else {
            "SCMP_ACT_ALLOW"
        },
        errno_ret: errno,
        args: Vec::new(),
    }
}

fn answer(name: &str) -> Result<u32, SeccompError> {
    let found = ERRNOS.iter().find(|(known, _)| *known == name);
    found
        .map(|(_, number)| *number)
        .ok_or_else(|| SeccompError::Answer(name.to_owned()))
}

fn architecture() -> Result<&'static str, SeccompError> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("SCMP_ARCH_X86_64"),
        "aarch64" => Ok("SCMP_ARCH_AARCH64"),
        other => Err(SeccompError::Architecture(other)),
    }
}

/// Some bits of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pattern {
    mask: u64,
    bits: u64,
}

impl Pattern {
    /// Both at once; `None` when they contradict each other.
    fn and(self, other: Pattern) -> Option<Pattern> {
        let common = self.mask & other.mask;
        (self.bits & common == other.bits & common).then_some(Pattern {
            mask: self.mask | other.mask,
            bits: self.bits | other.bits,
        })
    }
}

/// The alternatives under which all conditions hold, each with one condition for an argument.
fn alternatives(
    name: &str,
    conditions: &[SeccompArgument],
) -> Result<Vec<Vec<EngineCondition>>, SeccompError> {
    let refused = || SeccompError::Condition(name.to_owned());
    let mut by_argument: BTreeMap<u8, Vec<Pattern>> = BTreeMap::new();
    for condition in conditions {
        let patterns = patterns(condition).ok_or_else(refused)?;
        let known = by_argument.entry(condition.index);
        let known = known.or_insert_with(|| vec![Pattern { mask: 0, bits: 0 }]);
        *known = known
            .iter()
            .flat_map(|one| patterns.iter().filter_map(|other| one.and(*other)))
            .collect();
        remove_implied(known);
    }
    let mut found: Vec<Vec<(u8, Pattern)>> = vec![Vec::new()];
    for (index, patterns) in &by_argument {
        found = found
            .iter()
            .flat_map(|before| {
                patterns.iter().map(move |pattern| {
                    before.iter().copied().chain([(*index, *pattern)]).collect()
                })
            })
            .collect();
    }
    // No condition at all would allow the call whatever its arguments.
    if conditions.is_empty() || found.is_empty() || found.len() > MAX_ALTERNATIVES {
        return Err(refused());
    }
    let condition = |(index, Pattern { mask, bits })| EngineCondition {
        index,
        value: mask,
        value_two: bits,
        op: "SCMP_CMP_MASKED_EQ",
    };
    Ok(found
        .into_iter()
        .map(|one| one.into_iter().map(condition).collect())
        .collect())
}

/// A pattern that fixes more bits of the same values than another one adds nothing to it.
fn remove_implied(patterns: &mut Vec<Pattern>) {
    let all = patterns.clone();
    let implied = |one: &Pattern, other: &Pattern| {
        one != other && one.mask & other.mask == other.mask && one.bits & other.mask == other.bits
    };
    patterns.retain(|one| !all.iter().any(|other| implied(one, other)));
    let mut seen: Vec<Pattern> = Vec::new();
    patterns.retain(|one| {
        let new = !seen.contains(one);
        seen.push(*one);
        new
    });
}

/// The condition as alternatives; `None` for one that is not understood.
fn patterns(condition: &SeccompArgument) -> Option<Vec<Pattern>> {
    let all = match condition.width {
        32 => u64::from(u32::MAX),
        64 => u64::MAX,
        _ => return None,
    };
    let value = condition.value;
    if value & !all != 0 {
        return None;
    }
    match (condition.op.as_str(), condition.mask) {
        ("eq", None) => Some(vec![Pattern {
            mask: all,
            bits: value,
        }]),
        ("masked_eq", Some(mask)) if mask & !all == 0 && value & !mask == 0 => {
            Some(vec![Pattern { mask, bits: value }])
        }
        ("ne", None) => Some(differing(all, value).collect()),
        ("le", None) => Some(
            lower(all, value)
                .chain([Pattern {
                    mask: all,
                    bits: value,
                }])
                .collect(),
        ),
        _ => None,
    }
}

/// Agrees with `value` above one bit, and differs in it.
fn differing(all: u64, value: u64) -> impl Iterator<Item = Pattern> {
    each_bit(all).map(move |bit| {
        let above = all & !(bit | (bit - 1));
        Pattern {
            mask: above | bit,
            bits: (value & above) | (!value & bit),
        }
    })
}

/// Agrees with `value` above one bit that is set there, and has it not.
fn lower(all: u64, value: u64) -> impl Iterator<Item = Pattern> {
    differing(all, value).filter(move |pattern| pattern.bits < value & pattern.mask)
}

fn each_bit(all: u64) -> impl Iterator<Item = u64> {
    (0..u64::BITS)
        .map(|place| 1 << place)
        .filter(move |bit| all & bit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(op: &str, value: u64, mask: Option<u64>, width: u8) -> SeccompArgument {
        let op = op.to_owned();
        SeccompArgument {
            index: 0,
            op,
            value,
            mask,
            width,
        }
    }

    /// What the engine's library would say.
    fn allows(alternatives: &[Vec<EngineCondition>], value: u64) -> bool {
        alternatives
            .iter()
            .any(|all| all.iter().all(|one| value & one.value == one.value_two))
    }

    fn check(conditions: &[SeccompArgument], means: impl Fn(u64) -> bool) {
        let found = alternatives("call", conditions).unwrap();
        let interesting = [
            0,
            1,
            2,
            3,
            4,
            21,
            22,
            23,
            21_521,
            21_522,
            21_523,
            21_532,
            0x8000_0000,
            0xffff_ffff,
        ];
        let upper = [0, 1 << 32, 0xffff_ffff << 32];
        for value in interesting
            .iter()
            .flat_map(|low| upper.map(|high| low | high))
        {
            let seen = if conditions[0].width == 32 {
                value & 0xffff_ffff
            } else {
                value
            };
            assert_eq!(allows(&found, value), means(seen), "{value:#x}");
        }
    }

    #[test]
    fn conditions_mean_the_same_on_the_bits_that_the_kernel_reads() {
        check(&[argument("eq", 22, None, 32)], |value| value == 22);
        check(&[argument("ne", 22, None, 32)], |value| value != 22);
        check(&[argument("ne", 22, None, 64)], |value| value != 22);
        check(&[argument("le", 2, None, 32)], |value| value <= 2);
        check(&[argument("le", 0, None, 32)], |value| value == 0);
        check(&[argument("masked_eq", 2, Some(3), 32)], |value| {
            value & 3 == 2
        });
    }

    #[test]
    fn two_conditions_on_one_argument_hold_both() {
        let both = [
            argument("ne", 21_522, None, 32),
            argument("ne", 21_532, None, 32),
        ];
        check(&both, |value| value != 21_522 && value != 21_532);
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        for wrong in [
            argument("ge", 1, None, 32),
            argument("eq", 1, None, 16),
            argument("eq", 1 << 32, None, 32),
            argument("masked_eq", 4, Some(3), 32),
        ] {
            assert!(alternatives("call", &[wrong]).is_err());
        }
        assert!(alternatives("call", &[]).is_err());
    }

    #[test]
    fn the_profile_that_ships_is_translated_and_no_call_is_forgotten() {
        let profile = translate(&SeccompProfile::shipped().unwrap()).unwrap();
        let named: BTreeSet<_> = profile
            .syscalls
            .iter()
            .flat_map(|entry| &entry.names)
            .collect();
        for call in Sysno::iter() {
            assert!(named.contains(&call.name().to_owned()), "{}", call.name());
        }
        assert!(profile.syscalls.len() < 600, "{}", profile.syscalls.len());
        assert_eq!(profile.default_action, "SCMP_ACT_ERRNO");
        // One unconditional rule would undo all conditions of its call.
        for entry in profile
            .syscalls
            .iter()
            .filter(|entry| entry.args.is_empty())
        {
            for name in &entry.names {
                let count = profile
                    .syscalls
                    .iter()
                    .filter(|other| other.names.contains(name))
                    .count();
                assert_eq!(count, 1, "{name}");
            }
        }
    }
}

//! The system-call filter: `profiles/seccomp.json`, compiled.
//!
//! Two filters are stacked, since one program of `seccompiler` knows two answers only. Both must allow a call; where both
//! refuse, the one installed last answers. The first lets through what is allowed under its conditions and says `EPERM`
//! to the rest; the second says `ENOSYS` to whatever the profile does not mention, so that programs fall back as they
//! would on an older kernel.

use std::{collections::BTreeMap, str::FromStr};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use serde::Deserialize;
use syscalls::Sysno;

const PROFILE: &str = include_str!("../../../profiles/seccomp.json");

/// Why there is no filter. None of it happens with the profile that ships: a test compiles it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeccompError {
    #[error("the system-call profile does not parse")]
    Parse(#[from] serde_json::Error),
    #[error("the system-call profile does not compile")]
    Compile(#[from] seccompiler::BackendError),
    #[error("the answer {0} of the system-call profile is unknown")]
    Answer(String),
    #[error("the comparison {0} of the system-call profile is unknown")]
    Comparison(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    default: DefaultAnswers,
    allow: Vec<Allow>,
    allow_if: Vec<AllowIf>,
    deny: Vec<Deny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DefaultAnswers {
    unknown: String,
    condition: String,
    #[cfg_attr(
        not(test),
        allow(
            dead_code,
            reason = "for readers of the profile; a test wants it there"
        )
    )]
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Allow {
    names: Vec<String>,
    #[cfg_attr(
        not(test),
        allow(
            dead_code,
            reason = "for readers of the profile; a test wants it there"
        )
    )]
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowIf {
    name: String,
    args: Vec<Argument>,
    #[cfg_attr(
        not(test),
        allow(
            dead_code,
            reason = "for readers of the profile; a test wants it there"
        )
    )]
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deny {
    names: Vec<String>,
    errno: String,
    #[cfg_attr(
        not(test),
        allow(
            dead_code,
            reason = "for readers of the profile; a test wants it there"
        )
    )]
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Argument {
    index: u8,
    op: String,
    value: u64,
    mask: Option<u64>,
    width: u8,
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The filters, in the order in which they must be installed.
pub(crate) fn filters() -> Result<[BpfProgram; 2], SeccompError> {
    compile(&serde_json::from_str(PROFILE)?)
}

fn compile(profile: &Profile) -> Result<[BpfProgram; 2], SeccompError> {
    let mut conditions = Rules::new();
    let mut known = Rules::new();
    for number in profile
        .allow
        .iter()
        .flat_map(|group| &group.names)
        .filter_map(|name| number(name))
    {
        conditions.insert(number, Vec::new());
        known.insert(number, Vec::new());
    }
    for entry in &profile.allow_if {
        let Some(number) = number(&entry.name) else {
            continue;
        };
        let arguments: Result<Vec<_>, _> = entry.args.iter().map(Argument::condition).collect();
        conditions
            .entry(number)
            .or_default()
            .push(SeccompRule::new(arguments?)?);
        known.insert(number, Vec::new());
    }
    let refused = answer(&profile.default.condition)?;
    let unknown = answer(&profile.default.unknown)?;
    for entry in &profile.deny {
        // What is denied with the answer of unknown calls is simply unknown to the second filter.
        if answer(&entry.errno)? == refused {
            known.extend(
                entry
                    .names
                    .iter()
                    .filter_map(|name| number(name))
                    .map(|number| (number, Vec::new())),
            );
        }
    }
    // The second filter is installed under the first.
    conditions.insert(i64::from(Sysno::seccomp.id()), Vec::new());
    Ok([program(conditions, refused)?, program(known, unknown)?])
}

fn program(rules: Rules, otherwise: u32) -> Result<BpfProgram, SeccompError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Errno(otherwise),
        SeccompAction::Allow,
        architecture,
    )?;
    Ok(filter.try_into()?)
}

/// The call's number here; `None` for a call that this architecture does not have.
fn number(name: &str) -> Option<i64> {
    Sysno::from_str(name).ok().map(|call| i64::from(call.id()))
}

fn answer(errno: &str) -> Result<u32, SeccompError> {
    match errno {
        "EPERM" => Ok(libc::EPERM.unsigned_abs()),
        "ENOSYS" => Ok(libc::ENOSYS.unsigned_abs()),
        _ => Err(SeccompError::Answer(errno.to_owned())),
    }
}

impl Argument {
    fn condition(&self) -> Result<SeccompCondition, SeccompError> {
        let operator = match (self.op.as_str(), self.mask) {
            ("eq", None) => SeccompCmpOp::Eq,
            ("ne", None) => SeccompCmpOp::Ne,
            ("le", None) => SeccompCmpOp::Le,
            ("masked_eq", Some(mask)) => SeccompCmpOp::MaskedEq(mask),
            _ => return Err(SeccompError::Comparison(self.op.clone())),
        };
        let width = match self.width {
            32 => SeccompCmpArgLen::Dword,
            64 => SeccompCmpArgLen::Qword,
            other => return Err(SeccompError::Comparison(format!("of {other} bits"))),
        };
        Ok(SeccompCondition::new(
            self.index, width, operator, self.value,
        )?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn profile() -> Profile {
        serde_json::from_str(PROFILE).unwrap()
    }

    #[test]
    fn the_profile_compiles_within_the_kernels_limit() {
        for filter in filters().unwrap() {
            assert!(
                !filter.is_empty() && filter.len() < 4096,
                "{}",
                filter.len()
            );
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn every_call_of_the_profile_exists() {
        let profile = profile();
        let names = profile.allow.iter().flat_map(|entry| &entry.names);
        let names = names.chain(profile.allow_if.iter().map(|entry| &entry.name));
        for name in names.chain(profile.deny.iter().flat_map(|entry| &entry.names)) {
            assert!(number(name).is_some(), "no system call is called {name}");
        }
    }

    #[test]
    fn no_entry_is_redundant() {
        let profile = profile();
        let mut seen = BTreeSet::new();
        for name in profile.allow.iter().flat_map(|entry| &entry.names) {
            assert!(seen.insert(name.clone()), "{name} is allowed twice");
        }
        let conditional: BTreeSet<_> = profile
            .allow_if
            .iter()
            .map(|entry| entry.name.clone())
            .collect();
        for name in conditional
            .iter()
            .chain(profile.deny.iter().flat_map(|entry| &entry.names))
        {
            assert!(seen.insert(name.clone()), "{name} stands in two lists");
        }
        let mut rules = BTreeSet::new();
        for entry in &profile.allow_if {
            assert!(
                rules.insert(format!("{} {:?}", entry.name, entry.args)),
                "{} has a rule twice",
                entry.name
            );
        }
    }

    #[test]
    fn every_entry_says_why() {
        let profile = profile();
        let reasons = profile.allow.iter().map(|entry| &entry.reason);
        let reasons = reasons.chain(profile.allow_if.iter().map(|entry| &entry.reason));
        let reasons = reasons.chain(profile.deny.iter().map(|entry| &entry.reason));
        for reason in reasons.chain([&profile.default.reason]) {
            assert!(reason.len() > 10, "{reason:?} is no reason");
        }
    }

    #[test]
    fn an_unknown_answer_or_comparison_is_refused() {
        assert!(answer("EPERM").is_ok());
        assert!(matches!(answer("EIO"), Err(SeccompError::Answer(_))));
        let argument = |op: &str, mask| Argument {
            index: 0,
            op: op.to_owned(),
            value: 0,
            mask,
            width: 32,
        };
        assert!(argument("masked_eq", Some(1)).condition().is_ok());
        assert!(argument("masked_eq", None).condition().is_err());
        assert!(argument("like", None).condition().is_err());
    }
}

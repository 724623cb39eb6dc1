//! The system-call filter: `profiles/seccomp.json`, compiled.
//!
//! One program of `seccompiler` knows two answers only and looks for a call's number in a row. So it compiles the calls
//! that have conditions, and a search tree over the numbers stands before them: what is allowed, refused (`EPERM`) or
//! unknown (`ENOSYS`, so that programs fall back as they would on an older kernel) is answered there, in some eight steps,
//! and only what has conditions goes on to them. A test compares the whole with two plain filters of `seccompiler`.

use std::{collections::BTreeMap, str::FromStr};

use sandbox_host::{SeccompArgument as Argument, SeccompProfile as Profile};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};
use serde::{Deserialize, Serialize};
use syscalls::Sysno;

/// With that many instructions each program of `seccompiler` checks the architecture and loads the call's number.
const PROLOGUE: usize = 4;
/// `BPF_RET | BPF_K`, see linux/bpf_common.h for these.
const BPF_RETURN: u16 = 0x06;
/// `BPF_JMP | BPF_JA`.
const BPF_JUMP: u16 = 0x05;
/// `BPF_JMP | BPF_JGE | BPF_K`.
const BPF_JUMP_IF_AT_LEAST: u16 = 0x35;

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

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The filter as it is handed to a new process: code, both jumps and operand of each instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Filter(Vec<(u16, u8, u8, u32)>);

impl Filter {
    /// Compiles the profile: once for each server.
    pub fn compile() -> Result<Self, SeccompError> {
        let program = compile(&Profile::shipped()?)?;
        Ok(Filter(
            program
                .iter()
                .map(|one| (one.code, one.jt, one.jf, one.k))
                .collect(),
        ))
    }

    /// As the kernel wants it.
    pub fn program(&self) -> BpfProgram {
        let instruction = |&(code, jt, jf, k)| sock_filter { code, jt, jf, k };
        self.0.iter().map(instruction).collect()
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is let through.
    Allow,
    /// It fails with that error.
    Refuse(u32),
    /// Its arguments decide.
    Conditions,
}

fn compile(profile: &Profile) -> Result<BpfProgram, SeccompError> {
    let refused = answer(&profile.default.condition)?;
    let unknown = Verdict::Refuse(answer(&profile.default.unknown)?);
    let mut program = program(conditions(profile)?, refused)?;
    let tree = search(&ranges(&verdicts(profile)?, unknown), 0);
    // Behind its check of the architecture and the loading of the number, which the tree needs as well.
    program.splice(PROLOGUE..PROLOGUE, tree);
    Ok(program)
}

/// The calls whose arguments decide, each with its alternatives.
fn conditions(profile: &Profile) -> Result<Rules, SeccompError> {
    let mut rules = Rules::new();
    for entry in &profile.allow_if {
        let Some(number) = number(&entry.name) else {
            continue;
        };
        let arguments: Result<Vec<_>, _> = entry.args.iter().map(condition).collect();
        let rule = SeccompRule::new(arguments?)?;
        rules.entry(i64::from(number)).or_default().push(rule);
    }
    Ok(rules)
}

fn verdicts(profile: &Profile) -> Result<BTreeMap<u32, Verdict>, SeccompError> {
    let mut verdicts = BTreeMap::new();
    let mut add = |names: &[String], verdict| {
        let numbers = names.iter().filter_map(|name| number(name));
        verdicts.extend(numbers.map(|number| (number, verdict)));
    };
    for entry in &profile.deny {
        add(&entry.names, Verdict::Refuse(answer(&entry.errno)?));
    }
    for entry in &profile.allow {
        add(&entry.names, Verdict::Allow);
    }
    for entry in &profile.allow_if {
        add(std::slice::from_ref(&entry.name), Verdict::Conditions);
    }
    Ok(verdicts)
}

/// Where a verdict begins, for all numbers from 0 on: each holds up to the next.
fn ranges(verdicts: &BTreeMap<u32, Verdict>, otherwise: Verdict) -> Vec<(u32, Verdict)> {
    let mut ranges = vec![(0, otherwise)];
    for (&number, &verdict) in verdicts {
        for (start, verdict) in [(number, verdict), (number + 1, otherwise)] {
            // A verdict for this number replaces the one that began after the number before it.
            ranges.pop_if(|(last, _)| *last == start);
            if ranges.last().is_none_or(|(_, before)| *before != verdict) {
                ranges.push((start, verdict));
            }
        }
    }
    ranges
}

/// A search tree over the ranges. What is left to the conditions jumps over the `after` instructions that follow.
fn search(ranges: &[(u32, Verdict)], after: usize) -> BpfProgram {
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let [(start, verdict), ..] = upper else {
        return BpfProgram::new();
    };
    if lower.is_empty() {
        return vec![match verdict {
            Verdict::Allow => plain(BPF_RETURN, libc::SECCOMP_RET_ALLOW),
            Verdict::Refuse(errno) => plain(BPF_RETURN, libc::SECCOMP_RET_ERRNO | errno),
            Verdict::Conditions => jump(after),
        }];
    }
    let above = search(upper, after);
    let below = search(lower, after + above.len());
    // One step or none ahead, to a jump that reaches any distance: conditional ones reach 255 instructions.
    let compare = sock_filter {
        code: BPF_JUMP_IF_AT_LEAST,
        jt: 0,
        jf: 1,
        k: *start,
    };
    [vec![compare, jump(below.len())], below, above].concat()
}

fn jump(distance: usize) -> sock_filter {
    // Programs have 4,096 instructions at most: a distance that does not fit is refused by the kernel.
    plain(BPF_JUMP, u32::try_from(distance).unwrap_or(u32::MAX))
}

fn plain(code: u16, k: u32) -> sock_filter {
    let (jt, jf) = (0, 0);
    sock_filter { code, jt, jf, k }
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
fn number(name: &str) -> Option<u32> {
    u32::try_from(Sysno::from_str(name).ok()?.id()).ok()
}

fn answer(errno: &str) -> Result<u32, SeccompError> {
    match errno {
        "EPERM" => Ok(libc::EPERM.unsigned_abs()),
        "ENOSYS" => Ok(libc::ENOSYS.unsigned_abs()),
        _ => Err(SeccompError::Answer(errno.to_owned())),
    }
}

fn condition(argument: &Argument) -> Result<SeccompCondition, SeccompError> {
    let operator = match (argument.op.as_str(), argument.mask) {
        ("eq", None) => SeccompCmpOp::Eq,
        ("ne", None) => SeccompCmpOp::Ne,
        ("le", None) => SeccompCmpOp::Le,
        ("masked_eq", Some(mask)) => SeccompCmpOp::MaskedEq(mask),
        _ => return Err(SeccompError::Comparison(argument.op.clone())),
    };
    let width = match argument.width {
        32 => SeccompCmpArgLen::Dword,
        64 => SeccompCmpArgLen::Qword,
        other => return Err(SeccompError::Comparison(format!("of {other} bits"))),
    };
    Ok(SeccompCondition::new(
        argument.index,
        width,
        operator,
        argument.value,
    )?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn profile() -> Profile {
        Profile::shipped().unwrap()
    }

    #[test]
    fn the_profile_compiles_within_the_kernels_limit() {
        let filter = Filter::compile().unwrap().program();
        assert!(
            filter.len() > 100 && filter.len() < 1024,
            "{}",
            filter.len()
        );
    }

    #[test]
    fn ranges_begin_where_the_verdict_changes() {
        use Verdict::{Allow, Conditions, Refuse};
        let verdicts = [
            (0, Allow),
            (1, Allow),
            (2, Conditions),
            (5, Refuse(38)),
            (6, Allow),
        ];
        assert_eq!(
            ranges(&BTreeMap::from(verdicts), Refuse(38)),
            [
                (0, Allow),
                (2, Conditions),
                (3, Refuse(38)),
                (6, Allow),
                (7, Refuse(38))
            ]
        );
    }

    /// A call as the filters see it.
    #[derive(Debug, Clone, Copy)]
    struct Call {
        number: u32,
        architecture: u32,
        arguments: [u64; 6],
    }

    impl Call {
        fn word(&self, offset: u32) -> u32 {
            match offset {
                0 => self.number,
                4 => self.architecture,
                _ => {
                    let argument = self.arguments[(offset as usize - 16) / 8];
                    (argument >> (offset % 8 * 8)) as u32
                }
            }
        }
    }

    /// What the kernel does with the instructions that occur.
    fn run(program: &[sock_filter], call: &Call) -> u32 {
        let (mut accumulator, mut at) = (0, 0);
        loop {
            let one = &program[at];
            let choose = |yes: bool| usize::from(if yes { one.jt } else { one.jf });
            at += 1;
            match one.code {
                0x20 => accumulator = call.word(one.k),
                0x54 => accumulator &= one.k,
                0x05 => at += one.k as usize,
                0x15 => at += choose(accumulator == one.k),
                0x25 => at += choose(accumulator > one.k),
                0x35 => at += choose(accumulator >= one.k),
                0x06 => return one.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    /// The profile as two filters of `seccompiler`, the second installed last: the strictest answer counts, among equals
    /// that of the last one.
    struct Plain([BpfProgram; 2]);

    impl Plain {
        fn compile(profile: &Profile) -> Self {
            let mut first = conditions(profile).unwrap();
            let mut second: Rules = first.keys().map(|number| (*number, Vec::new())).collect();
            let unconditional = profile.allow.iter().flat_map(|entry| &entry.names);
            for number in unconditional.filter_map(|name| number(name)) {
                first.insert(i64::from(number), Vec::new());
                second.insert(i64::from(number), Vec::new());
            }
            let refused = profile.deny.iter().filter(|entry| entry.errno == "EPERM");
            for number in refused
                .flat_map(|entry| &entry.names)
                .filter_map(|name| number(name))
            {
                second.insert(i64::from(number), Vec::new());
            }
            Plain([
                program(first, libc::EPERM as u32).unwrap(),
                program(second, libc::ENOSYS as u32).unwrap(),
            ])
        }

        fn run(&self, call: &Call) -> u32 {
            let [first, second] = self.0.each_ref().map(|filter| run(filter, call));
            match (first, second) {
                (first, libc::SECCOMP_RET_ALLOW) => first,
                (_, second) => second,
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_filter_answers_every_call_as_two_plain_filters_would() {
        const ARCHITECTURE: u32 = 0xc000_003e;
        let (filter, profile) = (Filter::compile().unwrap().program(), profile());
        let plain = Plain::compile(&profile);
        let mut answers = BTreeSet::new();
        let mut check = |number, architecture, arguments| {
            let call = Call {
                number,
                architecture,
                arguments,
            };
            let answer = run(&filter, &call);
            assert_eq!(answer, plain.run(&call), "{call:x?}");
            answers.insert(answer);
        };
        // Up to 600, those of the x32 interface, and the ends.
        let foreign = (0x4000_0000..0x4000_0258).chain([i32::MAX as u32, 1 << 31, u32::MAX]);
        for number in (0..600).chain(foreign) {
            for arguments in [[0; 6], [1; 6], [u64::MAX; 6]] {
                check(number, ARCHITECTURE, arguments);
                check(number, 0x4000_0003, arguments);
            }
        }
        let mut values = BTreeSet::from([0, 1, 2, 0o7777, 1 << 32, u64::MAX]);
        for argument in profile.allow_if.iter().flat_map(|entry| &entry.args) {
            let mask = argument.mask.unwrap_or(0);
            values.extend([
                argument.value,
                argument.value + 1,
                mask,
                argument.value | 1 << 32,
            ]);
        }
        for number in conditions(&profile).unwrap().into_keys() {
            for (one, other) in [(0, 1), (0, 2), (1, 2), (2, 3)] {
                for (first, second) in values
                    .iter()
                    .flat_map(|a| values.iter().map(move |b| (*a, *b)))
                {
                    let mut arguments = [0; 6];
                    (arguments[one], arguments[other]) = (first, second);
                    check(number as u32, ARCHITECTURE, arguments);
                }
            }
        }
        let errno = |number: i32| libc::SECCOMP_RET_ERRNO | number as u32;
        let all = [
            libc::SECCOMP_RET_KILL_PROCESS,
            libc::SECCOMP_RET_ALLOW,
            errno(libc::EPERM),
            errno(libc::ENOSYS),
        ];
        assert_eq!(answers, BTreeSet::from(all));
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
        assert!(condition(&argument("masked_eq", Some(1))).is_ok());
        assert!(condition(&argument("masked_eq", None)).is_err());
        assert!(condition(&argument("like", None)).is_err());
    }
}

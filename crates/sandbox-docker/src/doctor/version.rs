//! Versions as engines, their parts and kernels tell them, and what one says of a fault.

/// A version: three numbers, and how finished it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    numbers: [u64; 3],
    stage: Stage,
}

/// What stands before a release, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Alpha(u64),
    Beta(u64),
    Candidate(u64),
    Release,
}

/// A version as somebody built it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Build {
    pub version: Version,
    /// More stands behind the version: a distribution's build, which may hold repairs of later versions.
    pub rebuilt: bool,
}

/// Words that a release of the maker's own may end with.
const EDITIONS: [&str; 2] = ["-ce", "-ee"];

impl Build {
    /// Reads `v1.1.5+ds1-1`, `1.4.0-rc.3`, `1.0-rc6`, `20.10.24+dfsg1`, `6.18.44-fc`. `None` when no number comes first.
    pub fn parse(text: &str) -> Option<Build> {
        let text = text.trim();
        let mut rest = text.strip_prefix('v').unwrap_or(text);
        let mut numbers = [0; 3];
        for (place, number) in numbers.iter_mut().enumerate() {
            let digits = if place == 0 {
                rest
            } else {
                match rest.strip_prefix('.') {
                    Some(digits) if digits.starts_with(|c: char| c.is_ascii_digit()) => digits,
                    Some(_) | None => break,
                }
            };
            (*number, rest) = leading_number(digits)?;
        }
        let (stage, rest) = stage(rest);
        Some(Build {
            version: Version { numbers, stage },
            rebuilt: !rest.is_empty() && !EDITIONS.contains(&rest),
        })
    }
}

impl Version {
    /// Releases that get repairs together: those with the same first two numbers.
    fn branch(&self) -> [u64; 2] {
        [self.numbers[0], self.numbers[1]]
    }
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

type StageOf = fn(u64) -> Stage;

fn stage(text: &str) -> (Stage, &str) {
    let kinds: [(&str, StageOf); 3] = [
        ("alpha", Stage::Alpha),
        ("beta", Stage::Beta),
        ("rc", Stage::Candidate),
    ];
    let word = text.trim_start_matches(['-', '~', '.']);
    for (name, of) in kinds {
        if let Some(rest) = word.strip_prefix(name) {
            let digits = rest.strip_prefix('.').unwrap_or(rest);
            let (number, rest) = leading_number(digits).unwrap_or((0, rest));
            return (of(number), rest);
        }
    }
    (Stage::Release, text)
}

/// What a version says of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByVersion {
    /// It never had the fault, or has it no longer.
    Without,
    /// It comes before the one without.
    Before,
    /// Nothing: it is not told, or the ones without the fault are not known.
    Unknown,
}

/// Compares with the first version that has the fault, and with the first one of each branch that does not. A branch between
/// those that were repaired was not.
pub(super) fn by_version(
    found: Option<Version>,
    since: Option<Version>,
    fixed: &[Version],
) -> ByVersion {
    let Some(found) = found else {
        return ByVersion::Unknown;
    };
    if since.is_some_and(|since| found < since) {
        return ByVersion::Without;
    }
    let Some(newest) = fixed.iter().max() else {
        return ByVersion::Unknown;
    };
    let of_branch = fixed.iter().find(|fix| fix.branch() == found.branch());
    if found >= *of_branch.unwrap_or(newest) {
        ByVersion::Without
    } else {
        ByVersion::Before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Build::parse(text).unwrap().version
    }

    #[test]
    fn versions_are_told_apart_whatever_stands_behind_them() {
        let in_order = [
            "1.0-alpha1",
            "1.0-beta.2",
            "1.0-rc6",
            "1.0-rc7",
            "1.0.0-rc93",
            "v1.0.0~rc95+ds1",
            "1.0.0",
            "1.1.5+ds1-1+deb12u1",
            "1.1.12",
            "1.4.0-rc.2",
            "1.4.0-rc.3+dev",
            "1.4.0",
            "1.6.20~ds1",
            "5.10.102-amd64",
            "5.15",
            "6.1.0-13-amd64",
            "6.18.44-fc-v669",
            "18.09.9-ce",
            "19.03.1",
            "20.10.24+dfsg1",
            "28.2.2-0ubuntu1~22.04.1",
            "29.0.0-rc.1",
            "29.0.0",
        ];
        for pair in in_order.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
        for (one, other) in [
            ("v1.1.5", "1.1.5+ds1"),
            ("5.15", "5.15.0"),
            ("1.4.0-rc.3", "1.4.0~rc3"),
            ("19.03.1-ce", "19.03.1"),
        ] {
            assert_eq!(version(one), version(other), "{one} {other}");
        }
        for nothing in ["", "v", "unknown", "-rc1", "99999999999999999999.0"] {
            assert_eq!(Build::parse(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_distributions_build_is_known() {
        for rebuilt in [
            "20.10.24+dfsg1",
            "1.6.20~ds1",
            "28.2.2-0ubuntu1",
            "6.1.0-13-amd64",
            "1.4.0-rc.3+dev",
        ] {
            assert!(Build::parse(rebuilt).unwrap().rebuilt, "{rebuilt}");
        }
        for own in ["28.2.2", "v1.1.12", "1.4.0-rc.3", "18.09.9-ce", "6.18.44"] {
            assert!(!Build::parse(own).unwrap().rebuilt, "{own}");
        }
    }

    #[test]
    fn each_branch_has_its_own_repair() {
        let runc = ["1.2.8", "1.3.3", "1.4.0-rc.3"].map(version);
        let kernel = ["5.10.102", "5.15.25", "5.16.11"].map(version);
        let none: [Version; 0] = [];
        for (found, since, fixed, wanted) in [
            ("1.1.12", None, &runc[..], ByVersion::Before),
            ("1.2.7", None, &runc, ByVersion::Before),
            ("1.2.8", None, &runc, ByVersion::Without),
            ("1.3.2", None, &runc, ByVersion::Before),
            ("1.3.10", None, &runc, ByVersion::Without),
            ("1.4.0-rc.2", None, &runc, ByVersion::Before),
            ("1.4.0-rc.3", None, &runc, ByVersion::Without),
            ("1.5.0-rc.1", None, &runc, ByVersion::Without),
            ("5.4.200", Some("5.8"), &kernel, ByVersion::Without),
            ("5.8.0", Some("5.8"), &kernel, ByVersion::Before),
            ("5.10.101", Some("5.8"), &kernel, ByVersion::Before),
            ("5.10.102", Some("5.8"), &kernel, ByVersion::Without),
            ("5.11.22", Some("5.8"), &kernel, ByVersion::Before),
            ("5.17", Some("5.8"), &kernel, ByVersion::Without),
            ("6.18.44", None, &none, ByVersion::Unknown),
        ] {
            let said = by_version(Some(version(found)), since.map(version), fixed);
            assert_eq!(said, wanted, "{found}");
        }
        assert_eq!(by_version(None, None, &runc), ByVersion::Unknown);
    }
}

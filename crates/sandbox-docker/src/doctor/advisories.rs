//! Known faults of what containers stand on (`profiles/advisories.json`), and how this machine stands to each: by what a
//! trial of the walls showed, where there was one and the row names the probes that decide; else by version, and by what of
//! ours keeps sessions from it.

use sandbox::wire::{Probe, TrialFinding, TrialOutcome};
use serde::{Deserialize, Serialize};

use super::{
    Versions,
    version::{Build, ByVersion, Version, by_version},
};

/// What a fault is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Component {
    /// The Docker engine.
    Engine,
    /// What it has its containers kept by.
    Containerd,
    /// What starts them.
    Runc,
    /// The kernel that they share.
    Kernel,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[expect(dead_code, reason = "for readers of the file")]
    about: String,
    advisories: Vec<Advisory>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Advisory {
    id: String,
    component: Component,
    allows: String,
    since: Option<String>,
    fixed: Vec<String>,
    blocked_by: Option<String>,
    /// Sessions are safe from it when a trial finds all of these blocked; the way is open when one is possible.
    #[serde(default)]
    decided_by: Vec<Probe>,
    #[expect(dead_code, reason = "for readers of the file; a test asks for it")]
    reason: String,
}

/// How a machine stands to a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// The version is without it.
    Fixed,
    /// The version may have it; sessions do not come near it.
    Blocked,
    /// Neither the version nor anything of ours says that sessions are safe from it.
    Unknown,
    /// The version has it; whoever rebuilt it may have repaired it.
    PerhapsAffected,
    /// The version has it.
    Affected,
}

impl Verdict {
    /// Something is to be done.
    pub fn is_problem(self) -> bool {
        match self {
            Verdict::Unknown | Verdict::PerhapsAffected | Verdict::Affected => true,
            Verdict::Fixed | Verdict::Blocked => false,
        }
    }
}

/// What a trial says of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Behavior {
    /// Each probe that decides was blocked.
    Blocked,
    /// One of them went through.
    Possible,
    /// There was no trial, no probe decides, or one showed nothing.
    NotShown,
}

/// One fault, and how this machine stands to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// `CVE-…` or `GHSA-…`.
    pub id: String,
    /// What it is in.
    pub component: Component,
    /// What it allows, in words.
    pub allows: String,
    /// The version found; `None` when it is not told.
    pub version: Option<String>,
    /// The first versions without it, one for each branch; empty where they are not known.
    pub fixed_in: Vec<String>,
    /// What of ours keeps sessions from it, in words.
    pub blocked_by: Option<String>,
    /// Probes that decide it, by name.
    pub decided_by: Vec<Probe>,
    /// What they showed. Where they were blocked, that outranks the version; where one is possible, nothing of ours keeps
    /// sessions from it, and the version decides.
    pub behavior: Behavior,
    /// All of it together.
    pub verdict: Verdict,
    /// What to do, if anything; empty otherwise.
    pub remedy: String,
}

/// The table does not parse. Never happens with the one that ships: a test reads it.
#[derive(Debug, thiserror::Error)]
#[error("the table of advisories does not parse")]
pub struct TableError(#[from] serde_json::Error);

/// Goes through the table. `findings` are a trial's; none without one.
///
/// # Errors
/// When it does not parse.
pub fn stand(versions: &Versions, findings: &[TrialFinding]) -> Result<Vec<Standing>, TableError> {
    let table: Table = serde_json::from_str(include_str!("../../../../profiles/advisories.json"))?;
    Ok(table
        .advisories
        .into_iter()
        .map(|advisory| judge(advisory, versions, findings))
        .collect())
}

fn judge(advisory: Advisory, versions: &Versions, findings: &[TrialFinding]) -> Standing {
    let version = versions.of(advisory.component);
    let build = version.and_then(Build::parse);
    let behavior = behavior(&advisory.decided_by, findings);
    let verdict = verdict(&advisory, build, behavior);
    Standing {
        remedy: remedy(&advisory, verdict),
        id: advisory.id,
        component: advisory.component,
        allows: advisory.allows,
        version: version.map(str::to_owned),
        fixed_in: advisory.fixed,
        blocked_by: advisory.blocked_by,
        decided_by: advisory.decided_by,
        behavior,
        verdict,
    }
}

fn behavior(decided_by: &[Probe], findings: &[TrialFinding]) -> Behavior {
    let outcome = |probe: &Probe| {
        let mut found = findings.iter().filter(|found| found.probe == *probe);
        found.next().map(|found| found.outcome)
    };
    let is = |wanted| move |probe: &Probe| outcome(probe) == Some(wanted);
    if decided_by.iter().any(is(TrialOutcome::Possible)) {
        Behavior::Possible
    } else if !decided_by.is_empty() && decided_by.iter().all(is(TrialOutcome::Blocked)) {
        Behavior::Blocked
    } else {
        Behavior::NotShown
    }
}

fn verdict(advisory: &Advisory, build: Option<Build>, behavior: Behavior) -> Verdict {
    if behavior == Behavior::Blocked {
        return Verdict::Blocked;
    }
    let parsed = |text: &String| Some(Build::parse(text)?.version);
    let fixed: Vec<Version> = advisory.fixed.iter().filter_map(parsed).collect();
    let since = advisory.since.as_ref().and_then(parsed);
    let is_kept_from = advisory.blocked_by.is_some() && behavior != Behavior::Possible;
    match by_version(build.map(|build| build.version), since, &fixed) {
        ByVersion::Without => Verdict::Fixed,
        ByVersion::Before | ByVersion::Unknown if is_kept_from => Verdict::Blocked,
        ByVersion::Unknown => Verdict::Unknown,
        ByVersion::Before if build.is_some_and(|build| build.rebuilt) => Verdict::PerhapsAffected,
        ByVersion::Before => Verdict::Affected,
    }
}

fn remedy(advisory: &Advisory, verdict: Verdict) -> String {
    let name = advisory.component.name();
    let newer = if advisory.fixed.is_empty() {
        format!("run the newest {name} of your distribution")
    } else {
        format!("run {name} {} or later", advisory.fixed.join(", "))
    };
    match verdict {
        Verdict::Fixed | Verdict::Blocked => String::new(),
        Verdict::Affected => newer,
        Verdict::PerhapsAffected => {
            format!("{newer}, or see whether your distribution repaired its own")
        }
        Verdict::Unknown => format!("{newer}, or use a runtime with a kernel of its own"),
    }
}

impl Component {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Component::Engine => "Docker",
            Component::Containerd => "containerd",
            Component::Runc => "runc",
            Component::Kernel => "kernel",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn versions(engine: &str, containerd: &str, runc: &str, kernel: &str) -> Versions {
        let some = |text: &str| Some(text.to_owned());
        Versions {
            engine: some(engine),
            containerd: some(containerd),
            runc: some(runc),
            kernel: some(kernel),
        }
    }

    fn of(id: &str, versions: &Versions) -> Standing {
        let all = stand(versions, &[]).unwrap();
        all.into_iter().find(|one| one.id == id).unwrap()
    }

    #[test]
    fn the_table_reads_and_is_whole() {
        let text = include_str!("../../../../profiles/advisories.json");
        let table: Table = serde_json::from_str(text).unwrap();
        let raw: serde_json::Value = serde_json::from_str(text).unwrap();
        let ids: BTreeSet<_> = table.advisories.iter().map(|row| &row.id).collect();
        assert_eq!(ids.len(), table.advisories.len(), "an id stands twice");
        for (row, raw) in table
            .advisories
            .iter()
            .zip(raw["advisories"].as_array().unwrap())
        {
            assert!(raw["reason"].as_str().unwrap().len() > 5, "{}", row.id);
            for version in row.fixed.iter().chain(&row.since) {
                assert!(Build::parse(version).is_some(), "{}: {version}", row.id);
            }
        }
    }

    #[test]
    fn an_old_a_patched_and_a_new_engine_stand_differently() {
        let old = versions("20.10.7", "1.4.1", "1.0.0", "5.10.50");
        let debian = versions(
            "20.10.24+dfsg1",
            "1.6.20~ds1",
            "1.1.5+ds1-1+deb12u1",
            "5.10.50-amd64",
        );
        let new = versions("29.7.0", "2.1.0", "1.5.1", "6.18.44");
        for (id, on_old, on_debian, on_new) in [
            // Rows without a wall of ours: the version decides.
            (
                "CVE-2022-0847",
                Verdict::Affected,
                Verdict::PerhapsAffected,
                Verdict::Fixed,
            ),
            (
                "CVE-2026-41579",
                Verdict::Affected,
                Verdict::PerhapsAffected,
                Verdict::Fixed,
            ),
            // Rows with one.
            (
                "CVE-2024-21626",
                Verdict::Blocked,
                Verdict::Blocked,
                Verdict::Fixed,
            ),
            (
                "CVE-2020-15257",
                Verdict::Blocked,
                Verdict::Fixed,
                Verdict::Fixed,
            ),
            (
                "CVE-2026-41567",
                Verdict::Blocked,
                Verdict::Blocked,
                Verdict::Fixed,
            ),
            // No version is known.
            (
                "CVE-2026-31431",
                Verdict::Blocked,
                Verdict::Blocked,
                Verdict::Blocked,
            ),
            (
                "CVE-2026-43284",
                Verdict::Unknown,
                Verdict::Unknown,
                Verdict::Unknown,
            ),
        ] {
            for (found, wanted) in [(&old, on_old), (&debian, on_debian), (&new, on_new)] {
                let standing = of(id, found);
                assert_eq!(standing.verdict, wanted, "{id} on {found:?}");
                assert_eq!(
                    standing.remedy.is_empty(),
                    !wanted.is_problem(),
                    "{standing:?}"
                );
            }
        }
    }

    fn trial(outcome: impl Fn(Probe) -> TrialOutcome) -> Vec<TrialFinding> {
        let finding = |&probe: &Probe| TrialFinding {
            probe,
            outcome: outcome(probe),
            errno: None,
            detail: String::new(),
        };
        Probe::ALL.iter().map(finding).collect()
    }

    #[test]
    fn what_a_trial_showed_outranks_the_version() {
        let old = versions("20.10.7", "1.4.1", "1.0.0", "5.10.50");
        let blocked = trial(|_| TrialOutcome::Blocked);
        let all = stand(&old, &blocked).unwrap();
        let decided = |found: &&Standing| !found.decided_by.is_empty();
        assert!(all.iter().filter(decided).count() >= 8);
        for found in all.iter().filter(decided) {
            assert_eq!(
                (found.behavior, found.verdict),
                (Behavior::Blocked, Verdict::Blocked),
                "{found:?}"
            );
        }
        // One open way is enough, and what was said to keep sessions from it counts no longer.
        for found in all.iter().filter(decided) {
            for open in &found.decided_by {
                let findings = trial(|probe| match probe == *open {
                    true => TrialOutcome::Possible,
                    false => TrialOutcome::Blocked,
                });
                let again = stand(&old, &findings).unwrap();
                let again = again.into_iter().find(|one| one.id == found.id).unwrap();
                assert_eq!(again.behavior, Behavior::Possible);
                assert_ne!(again.verdict, Verdict::Blocked, "{again:?}");
            }
        }
        // What showed nothing leaves it to the version and to what is known of our walls.
        let unknown = trial(|_| TrialOutcome::Unknown);
        for (shown, without) in stand(&old, &unknown)
            .unwrap()
            .iter()
            .zip(stand(&old, &[]).unwrap())
        {
            assert_eq!(*shown, without);
        }
    }

    #[test]
    fn a_version_that_is_not_told_proves_nothing() {
        let standing = of("CVE-2022-0847", &Versions::default());
        assert_eq!(standing.verdict, Verdict::Unknown);
        assert_eq!(standing.version, None);
    }
}

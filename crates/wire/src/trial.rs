//! What a trial of the walls says: which of the things that lead out of sandboxes were tried from inside, and what became
//! of each. Pure data, one line each, so that a person can run a trial by hand and read it.

use serde::{Deserialize, Serialize};

/// The option that makes the supervisor's program carry out a trial, as a program in a sandbox and not as its pid 1.
pub const TRIAL_OPTION: &str = "--trial";
/// Longest report that is read, bytes: a line for each probe, with room.
pub const MAX_TRIAL_BYTES: usize = 16 * 1024;
/// Longest detail of a finding, bytes.
pub const MAX_TRIAL_DETAIL_BYTES: usize = 256;

macro_rules! probes {
    ($($variant:ident $name:literal $tries:literal,)*) => {
        /// One thing that is tried. Each is harmless where it is possible: what it makes it takes away again.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub enum Probe {
            $(#[doc = $tries] $variant,)*
        }

        impl Probe {
            /// Every probe, in the order in which they are tried.
            pub const ALL: &[Probe] = &[$(Probe::$variant,)*];

            /// The name in reports.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Probe::$variant => $name,)*
                }
            }

            /// What is tried, in words.
            pub const fn tries(self) -> &'static str {
                match self {
                    $(Probe::$variant => $tries,)*
                }
            }
        }
    };
}

probes! {
    Mount "mount" "mount a file system",
    UserNamespace "userNamespace" "make a user namespace, and with it capabilities",
    Keyring "keyring" "add a key to a keyring of the kernel",
    Trace "trace" "trace a process of its own (ptrace)",
    ProcessMemory "processMemory" "read the memory of another process (process_vm_readv)",
    CorePattern "corePattern" "open /proc/sys/kernel/core_pattern for writing",
    ReleaseAgent "releaseAgent" "open a control group's release_agent for writing",
    MakeDevice "makeDevice" "make a device file",
    IoUring "ioUring" "set up an io_uring",
    CryptoSocket "cryptoSocket" "open a socket to the kernel's cryptography (AF_ALG)",
    VsockSocket "vsockSocket" "open a socket to the virtual machine's host (AF_VSOCK)",
    NetfilterSocket "netfilterSocket" "open a socket to the kernel's firewall (NETLINK_NETFILTER)",
    RouteSocket "routeSocket" "open a socket that lists network interfaces (NETLINK_ROUTE)",
    Bpf "bpf" "make a map for programs in the kernel (bpf)",
    PerfEvents "perfEvents" "open a performance event",
    UserFaults "userFaults" "handle page faults itself (userfaultfd)",
    OwnProgram "ownProgram" "open the running program's own file for writing (/proc/self/exe)",
    HostDescriptor "hostDescriptor" "leave the root by an open directory or the working directory",
    HiddenProcFiles "hiddenProcFiles" "read /proc/kcore, keys, timer_list, interrupts",
    LinkedDevices "linkedDevices" "find /dev to be a link of the image",
    SetUserId "setUserId" "become root by a set-user-ID program of the image",
    NetworkInterface "networkInterface" "see a network interface other than lo",
    WriteRoot "writeRoot" "make a file in /, /usr or /etc",
}

impl Probe {
    /// The probe of that name.
    pub fn find(name: &str) -> Option<Probe> {
        let mut all = Probe::ALL.iter().copied();
        all.find(|probe| probe.as_str() == name)
    }

    /// Sessions rely on it being blocked. What is left is allowed on purpose, and tried to show that a trial can say so:
    /// `getifaddrs` of every C library needs it, and there is nothing to see but `lo`.
    pub const fn is_relied_on(self) -> bool {
        !matches!(self, Probe::RouteSocket)
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TrialOutcome {
    /// It was refused, or there is nothing to reach.
    Blocked,
    /// It went through.
    Possible,
    /// Neither was shown: the kernel lacks it, or answered something else.
    Unknown,
}

impl TrialOutcome {
    /// The name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            TrialOutcome::Blocked => "blocked",
            TrialOutcome::Possible => "possible",
            TrialOutcome::Unknown => "unknown",
        }
    }

    fn find(name: &str) -> Option<TrialOutcome> {
        let all = [
            TrialOutcome::Blocked,
            TrialOutcome::Possible,
            TrialOutcome::Unknown,
        ];
        all.into_iter().find(|outcome| outcome.as_str() == name)
    }
}

/// A probe and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrialFinding {
    /// What was tried.
    pub probe: Probe,
    /// What became of it.
    pub outcome: TrialOutcome,
    /// The kernel's answer, `errno`; `None` where it was no refusal of the kernel's.
    pub errno: Option<i32>,
    /// What was seen, in words; may be empty.
    pub detail: String,
}

/// A report that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrialError {
    /// More than [`MAX_TRIAL_BYTES`].
    #[error("the report is too long")]
    TooLong,
    /// A line that is no finding.
    #[error("line {0} of the report is no finding")]
    Line(usize),
    /// A probe reported twice.
    #[error("the probe {0} is reported twice")]
    Twice(&'static str),
    /// A probe that is not reported: the trial did not come to its end.
    #[error("the probe {0} is not reported")]
    Missing(&'static str),
}

impl TrialFinding {
    /// As a line, without its end.
    pub fn to_line(&self) -> String {
        let errno = self.errno.map_or("-".to_owned(), |errno| errno.to_string());
        let (probe, outcome) = (self.probe.as_str(), self.outcome.as_str());
        let detail = clean(&self.detail);
        format!("{probe} {outcome} {errno} {detail}")
            .trim_end()
            .to_owned()
    }

    fn parse(line: &str) -> Option<TrialFinding> {
        let mut words = line.splitn(4, ' ');
        let probe = Probe::find(words.next()?)?;
        let outcome = TrialOutcome::find(words.next()?)?;
        let errno = match words.next()? {
            "-" => None,
            number => Some(
                number
                    .parse()
                    .ok()
                    .filter(|errno| (1..4096).contains(errno))?,
            ),
        };
        Some(TrialFinding {
            probe,
            outcome,
            errno,
            detail: clean(words.next().unwrap_or_default()),
        })
    }
}

/// One line without control characters, no longer than a detail may be.
fn clean(text: &str) -> String {
    let mut clean = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if clean.len() + character.len_utf8() > MAX_TRIAL_DETAIL_BYTES {
            break;
        }
        clean.push(character);
    }
    clean.trim().to_owned()
}

/// Reads a report: every probe exactly once, in any order; they come in the order of [`Probe::ALL`].
///
/// # Errors
/// [`TrialError`] for the first thing that is not as it must be.
pub fn read_trial(text: &str) -> Result<Vec<TrialFinding>, TrialError> {
    if text.len() > MAX_TRIAL_BYTES {
        return Err(TrialError::TooLong);
    }
    let mut findings: Vec<TrialFinding> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let finding = TrialFinding::parse(line).ok_or(TrialError::Line(number + 1))?;
        if findings.iter().any(|found| found.probe == finding.probe) {
            return Err(TrialError::Twice(finding.probe.as_str()));
        }
        findings.push(finding);
    }
    findings.sort_by_key(|finding| finding.probe);
    let is_missing = |probe: &Probe| !findings.iter().any(|found| found.probe == *probe);
    match Probe::ALL.iter().find(|probe| is_missing(probe)) {
        Some(missing) => Err(TrialError::Missing(missing.as_str())),
        None => Ok(findings),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all() -> Vec<TrialFinding> {
        let finding = |(index, &probe): (usize, &Probe)| TrialFinding {
            probe,
            outcome: [
                TrialOutcome::Blocked,
                TrialOutcome::Possible,
                TrialOutcome::Unknown,
            ][index % 3],
            errno: (index % 2 == 0).then_some(1),
            detail: ["", "two words"][index % 2].to_owned(),
        };
        Probe::ALL.iter().enumerate().map(finding).collect()
    }

    fn text(findings: &[TrialFinding]) -> String {
        let lines = findings.iter().map(|finding| finding.to_line() + "\n");
        lines.collect()
    }

    #[test]
    fn a_report_reads_back_as_it_was_written_in_any_order() {
        assert_eq!(read_trial(&text(&all())), Ok(all()));
        let reversed: Vec<_> = all().into_iter().rev().collect();
        assert_eq!(read_trial(&text(&reversed)), Ok(all()));
        assert!(text(&all()).len() < MAX_TRIAL_BYTES / 4);
    }

    #[test]
    fn a_name_in_reports_is_the_one_in_structured_results() {
        // What stands in tables of data is read by serde.
        for probe in Probe::ALL {
            let bytes = postcard::to_allocvec(probe).unwrap();
            assert_eq!(postcard::from_bytes::<Probe>(&bytes), Ok(*probe));
            assert_eq!(Probe::find(probe.as_str()), Some(*probe));
            let variant = format!("{probe:?}");
            let (first, rest) = variant.split_at(1);
            assert_eq!(probe.as_str(), first.to_lowercase() + rest);
        }
    }

    #[test]
    fn a_report_that_is_short_doubled_strange_or_long_is_none() {
        let short = &all()[1..];
        assert_eq!(read_trial(&text(short)), Err(TrialError::Missing("mount")));
        let doubled = text(&all()) + "bpf blocked 1\n";
        assert_eq!(read_trial(&doubled), Err(TrialError::Twice("bpf")));
        for strange in [
            "",
            "mount",
            "mount fine 1",
            "escape blocked 1",
            "mount blocked x",
            "mount blocked 0",
        ] {
            let text = text(short) + strange + "\n";
            assert_eq!(
                read_trial(&text),
                Err(TrialError::Line(Probe::ALL.len())),
                "{strange}"
            );
        }
        let long = " ".repeat(MAX_TRIAL_BYTES + 1);
        assert_eq!(read_trial(&long), Err(TrialError::TooLong));
    }

    proptest! {
        #[test]
        fn a_detail_never_makes_another_line(detail in ".{0,600}") {
            let mut findings = all();
            findings[0].detail = detail + "\nmount possible -\u{85}\r\n";
            let line = findings[0].to_line();
            prop_assert_eq!(line.lines().count(), 1);
            prop_assert!(line.len() < MAX_TRIAL_DETAIL_BYTES + 64);
            prop_assert!(read_trial(&text(&findings)).is_ok());
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
            let _ = read_trial(&text);
        }
    }
}

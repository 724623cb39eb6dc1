//! Deliberately broken fakes, to prove that the contract suite can fail: one for each of its lines.

/// A way to break the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// The supervisor never greets.
    NeverGreets,
    /// A sandbox is missing from the list.
    ListsNothing,
    /// A second create of a session succeeds.
    CreatesTwice,
    /// Destroying leaves remains in the list.
    DestroyLeavesRemains,
    /// Destroying twice is an error.
    DestroysOnce,
    /// Destroying leaves the link open.
    DestroyKeepsTheLink,
    /// Sessions that never were are found.
    InventsSessions,
    /// Limits that are twice what was asked.
    HoldsNoLimits,
    /// A named limit that cannot be enforced is accepted.
    AcceptsWhatItCannotEnforce,
    /// Usage of a living sandbox is refused.
    KnowsNoUsage,
    /// Pausing does nothing.
    NeverPauses,
    /// Every program ends with 0.
    LosesExitCodes,
    /// Standard error arrives on standard output.
    MixesStreams,
    /// Arguments are split at spaces.
    SplitsArguments,
    /// Programs run in `/`, wherever they should.
    IgnoresDirectory,
    /// The environment holds more than was given.
    LeaksEnvironment,
    /// The environment of the session is thrown away.
    LosesTheEnvironment,
    /// Nobody listens on relayed ports.
    RelaysNothing,
    /// Datagrams to relayed ports go nowhere.
    RelaysNoDatagrams,
    /// Ports that are not relayed lead to the host, too.
    RelaysEverything,
    /// The agent can have names looked up somewhere else.
    LetsTheResolverBeChanged,
    /// Certificates are thrown away.
    LosesCertificates,
    /// The agent can replace the certificates.
    LetsCertificatesBeReplaced,
    /// Standard input is thrown away.
    DropsInput,
    /// Programs that do not exist are started.
    RunsAnything,
    /// Deadlines pass.
    IgnoresDeadlines,
    /// Cancelling does nothing.
    IgnoresCancel,
    /// Background processes outlive their execution.
    LeavesTheTree,
    /// Signals do nothing.
    IgnoresSignals,
    /// A second start of a key runs again.
    StartsAgain,
    /// Waiting for an end returns at once.
    WaitNeverWaits,
    /// Forgetting does nothing.
    NeverForgets,
    /// Output comes from one byte before where it was asked.
    OffsetsAreOff,
    /// The first bytes are kept instead of the last.
    KeepsTheHead,
    /// Lossless output is lost when the window is full.
    LosslessLoses,
    /// Waiting for output returns at once.
    ReadNeverWaits,
    /// Executions are forgotten when a server comes back.
    ForgetsAtReconnect,
    /// The sandbox outlives its lease.
    IgnoresLease,
    /// The lease cannot be renewed.
    IgnoresRenewal,
    /// The sandbox does not end when told to.
    IgnoresShutdown,
    /// Content and modes of transferred files change.
    CorruptsTransfers,
    /// Protected paths are written by a transfer.
    IgnoresRefusals,
    /// A transfer moves more than its limit.
    IgnoresTransferLimits,
}

impl Break {
    /// Every one of them.
    pub const ALL: &[Break] = &[
        Break::NeverGreets,
        Break::ListsNothing,
        Break::CreatesTwice,
        Break::DestroyLeavesRemains,
        Break::DestroysOnce,
        Break::DestroyKeepsTheLink,
        Break::InventsSessions,
        Break::HoldsNoLimits,
        Break::AcceptsWhatItCannotEnforce,
        Break::KnowsNoUsage,
        Break::NeverPauses,
        Break::LosesExitCodes,
        Break::MixesStreams,
        Break::SplitsArguments,
        Break::IgnoresDirectory,
        Break::LeaksEnvironment,
        Break::LosesTheEnvironment,
        Break::RelaysNothing,
        Break::RelaysNoDatagrams,
        Break::RelaysEverything,
        Break::LetsTheResolverBeChanged,
        Break::LosesCertificates,
        Break::LetsCertificatesBeReplaced,
        Break::DropsInput,
        Break::RunsAnything,
        Break::IgnoresDeadlines,
        Break::IgnoresCancel,
        Break::LeavesTheTree,
        Break::IgnoresSignals,
        Break::StartsAgain,
        Break::WaitNeverWaits,
        Break::NeverForgets,
        Break::OffsetsAreOff,
        Break::KeepsTheHead,
        Break::LosslessLoses,
        Break::ReadNeverWaits,
        Break::ForgetsAtReconnect,
        Break::IgnoresLease,
        Break::IgnoresRenewal,
        Break::IgnoresShutdown,
        Break::CorruptsTransfers,
        Break::IgnoresRefusals,
        Break::IgnoresTransferLimits,
    ];

    /// The name of the contract's line that must notice.
    pub const fn line(self) -> &'static str {
        match self {
            Break::NeverGreets => "a new sandbox greets",
            Break::ListsNothing => "a running sandbox is listed",
            Break::CreatesTwice => "a session has one sandbox",
            Break::DestroyLeavesRemains => "destroying leaves nothing behind",
            Break::DestroysOnce => "destroying is idempotent",
            Break::DestroyKeepsTheLink => "destroying closes the link",
            Break::InventsSessions => "an unknown session is not found",
            Break::HoldsNoLimits => "what is in force is what was asked",
            Break::AcceptsWhatItCannotEnforce => {
                "a named limit that cannot be enforced is refused before creation"
            }
            Break::KnowsNoUsage => "usage of a running sandbox is known",
            Break::NeverPauses => "a paused sandbox stands still until it is resumed",
            Break::LosesExitCodes => "exit codes arrive",
            Break::MixesStreams => "output and error come apart",
            Break::SplitsArguments => "arguments arrive byte for byte",
            Break::IgnoresDirectory => "programs run in their directory",
            Break::LeaksEnvironment => "programs get exactly their environment",
            Break::LosesTheEnvironment => {
                "the environment of a session reaches every execution, and a start's own wins"
            }
            Break::RelaysNothing => {
                "connections to a relayed port reach the host, and its answers come back"
            }
            Break::RelaysNoDatagrams => {
                "connections and datagrams to the port for names reach the host, and its answers come back"
            }
            Break::RelaysEverything => "a port that is not relayed refuses at once",
            Break::LetsTheResolverBeChanged => {
                "names are asked of loopback, whatever the agent does"
            }
            Break::LosesCertificates | Break::LetsCertificatesBeReplaced => {
                "certificates stand where programs find them, and nobody replaces them"
            }
            Break::DropsInput => "input arrives and ends",
            Break::RunsAnything => "an unknown program is refused with its errno",
            Break::IgnoresDeadlines => "a deadline ends a stubborn tree within a second",
            Break::IgnoresCancel => "cancelling ends a stubborn program",
            Break::LeavesTheTree => "cancelling ends the whole tree",
            Break::IgnoresSignals => "signals arrive",
            Break::StartsAgain => "starting is idempotent by key",
            Break::WaitNeverWaits => "waiting lasts until the end",
            Break::NeverForgets => "an ended execution is forgotten when asked",
            Break::OffsetsAreOff => "output is exact at every offset",
            Break::KeepsTheHead => "dropping output keeps the tail",
            Break::LosslessLoses => "lossless output loses nothing",
            Break::ReadNeverWaits => "reading waits for the first byte",
            Break::ForgetsAtReconnect => "executions survive a new server",
            Break::IgnoresLease => "a lease that runs out ends the sandbox",
            Break::IgnoresRenewal => "a renewed lease goes on",
            Break::IgnoresShutdown => "a shutdown ends the sandbox",
            Break::CorruptsTransfers => "a tree survives the way in and out",
            Break::IgnoresRefusals => "a transfer keeps off refused paths",
            Break::IgnoresTransferLimits => "a transfer keeps to its limits",
        }
    }
}

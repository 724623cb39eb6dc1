//! What callers may do at most, and how much of the machine sessions may be promised.
//!
//! | class | actions | limited by |
//! |---|---|---|
//! | free | ending things, and all that is the server's own | nothing |
//! | create | `create_session` | calls, creates |
//! | execute | commands and prompts | calls, executions, the session's calls |
//! | transfer | files | calls, transfers, the session's calls |
//! | other | looking, answering, standard input, changing a session | calls, the session's calls where one is named |

use std::{num::NonZeroU32, time::Duration};

use model::Action;

use crate::{MachineFacts, Rate};

/// What one caller may do, whoever it is. The defaults are far above what people and agents do, and far enough below what a
/// server on two processors carries (2,000 recorded operations a second) that nobody who runs wild takes it from the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerLimits {
    /// How often.
    pub rates: RateLimits,
    /// Calls under way at one time.
    pub max_open_calls: u32,
    /// Live sessions of one caller.
    pub max_sessions: Option<NonZeroU32>,
    /// Live sessions on one project, whosever they are.
    pub max_sessions_per_project: Option<NonZeroU32>,
    /// How much more may be promised to sessions than the machine has.
    pub overcommit: Overcommit,
    /// How long a new session waits for a place.
    pub queue_wait: Duration,
}

/// How often a caller may call; `None`: as often as it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// All calls but those that end something.
    pub calls: Option<Rate>,
    /// New sessions.
    pub creates: Option<Rate>,
    /// Commands and prompts.
    pub executions: Option<Rate>,
    /// Transfers of files.
    pub transfers: Option<Rate>,
    /// Calls to one session.
    pub session_calls: Option<Rate>,
}

/// Percent of what the machine has; `None`: what is promised of it is not looked at. Limits of sessions are ceilings that few of them reach,
/// so promising the machine once only would leave most of it idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overcommit {
    /// Of memory and swap.
    pub memory: Option<u32>,
    /// Of processors.
    pub cpu: Option<u32>,
    /// Of the free space where the state directory is.
    pub disk: Option<u32>,
}

/// What sessions may be promised in all, one included that is being decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceBounds {
    /// Live sessions of this server.
    pub sessions: u32,
    /// Of the caller.
    pub sessions_of_caller: Option<u32>,
    /// On the project.
    pub sessions_of_project: Option<u32>,
    /// Memory and swap, bytes.
    pub memory_bytes: Option<u64>,
    /// CPU time, thousandths of one CPU.
    pub cpu_millis: Option<u64>,
    /// Space where the state directory is, bytes.
    pub disk_bytes: Option<u64>,
}

/// How calls are told apart by what they cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallClass {
    /// Never limited.
    Free,
    /// A new session.
    Create,
    /// A command or a prompt.
    Execute,
    /// A transfer of files.
    Transfer,
    /// All else.
    Other,
}

impl Default for CallerLimits {
    fn default() -> Self {
        CallerLimits {
            rates: RateLimits::default(),
            max_open_calls: 512,
            max_sessions: None,
            max_sessions_per_project: None,
            overcommit: Overcommit::default(),
            queue_wait: Duration::ZERO,
        }
    }
}

impl Default for RateLimits {
    fn default() -> Self {
        RateLimits {
            calls: Rate::new(60_000, 10_000),
            creates: Rate::new(600, 600),
            executions: Rate::new(6_000, 6_000),
            transfers: Rate::new(3_000, 3_000),
            session_calls: Rate::new(30_000, 10_000),
        }
    }
}

impl RateLimits {
    /// Nothing is limited.
    pub const NONE: RateLimits = RateLimits {
        calls: None,
        creates: None,
        executions: None,
        transfers: None,
        session_calls: None,
    };
}

impl Default for Overcommit {
    /// Memory: an agent takes 0.3 to 0.7 GiB of the profile's 2, so ten sessions fit on 5 GiB. Processors are shared fairly by
    /// the kernel: ten of the profile's sessions fit on one. Disk: a session's state is megabytes of the profile's 2 GiB.
    fn default() -> Self {
        Overcommit {
            memory: Some(400),
            cpu: Some(2_000),
            disk: Some(400),
        }
    }
}

impl CallClass {
    /// Of what is asked.
    pub const fn of(action: &Action) -> Self {
        match action {
            Action::CancelExecution(_)
            | Action::DestroySession(_)
            | Action::RevokeKey { .. }
            | Action::ReapSession { .. }
            | Action::AdoptSession(_)
            | Action::RemoveRemains { .. } => CallClass::Free,
            Action::CreateSession(_) => CallClass::Create,
            Action::ExecuteCommand(_) | Action::ExecutePrompt(_) => CallClass::Execute,
            Action::TransferFiles(_) | Action::WriteFile(_) | Action::ReadFile(_) => {
                CallClass::Transfer
            }
            Action::AnswerExecution { .. }
            | Action::GetExecution(_)
            | Action::RespondExecution { .. }
            | Action::ResizeTerminal { .. }
            | Action::ListSessions { .. }
            | Action::GetSession(_)
            | Action::GetSessionLogs { .. }
            | Action::ReadTranscript(_)
            | Action::ExtendSession { .. }
            | Action::WidenNetwork(_)
            | Action::AnswerNetwork(_)
            | Action::CreateKey(_)
            | Action::RotateKey { .. }
            | Action::ListKeys
            | Action::GetServerInfo => CallClass::Other,
        }
    }

    /// The name in replies: what there are too many of.
    pub const fn noun(self) -> &'static str {
        match self {
            CallClass::Free | CallClass::Other => "calls",
            CallClass::Create => "new sessions",
            CallClass::Execute => "commands and prompts",
            CallClass::Transfer => "transfers",
        }
    }
}

impl CallerLimits {
    /// What sessions may be promised on that machine; `own_maximum` is the caller's, where it has one of its own.
    pub(crate) fn bounds(
        &self,
        sessions: u32,
        own_maximum: Option<u32>,
        machine: &MachineFacts,
    ) -> PlaceBounds {
        let of_caller = [self.max_sessions.map(NonZeroU32::get), own_maximum];
        PlaceBounds {
            sessions,
            sessions_of_caller: of_caller.into_iter().flatten().min(),
            sessions_of_project: self.max_sessions_per_project.map(NonZeroU32::get),
            memory_bytes: times(self.overcommit.memory, machine.memory_bytes),
            cpu_millis: times(self.overcommit.cpu, machine.cpu_millis),
            disk_bytes: times(self.overcommit.disk, machine.disk_bytes),
        }
    }
}

fn times(percent: Option<u32>, has: u64) -> Option<u64> {
    let promised = u128::from(has) * u128::from(percent?) / 100;
    Some(u64::try_from(promised).unwrap_or(u64::MAX))
}

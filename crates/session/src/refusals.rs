//! Errors of the walls as refusals: a stable code, a sentence, and what to do next.

use model::{Kernel, Layer, Reason, Refusal, SessionState};
use sandbox::{
    BackendError, SupervisorError, TransferError as ClientError, Weakness,
    wire::{Fault, FaultKind},
};

use crate::transfer::TransferError;

pub(crate) fn session_not_found() -> Refusal {
    Refusal::new(
        Reason::SessionNotFound,
        "There is no session of that id.",
        "List your sessions with list_sessions, or create one with create_session.",
    )
    .in_field("sessionId")
}

pub(crate) fn execution_not_found() -> Refusal {
    Refusal::new(
        Reason::ExecutionNotFound,
        "There is no execution of that id.",
        "Use the executionId that execute_command returned.",
    )
    .in_field("executionId")
}

pub(crate) fn conversation_not_found() -> Refusal {
    Refusal::new(
        Reason::ConversationNotFound,
        "The session has no conversation of that id.",
        "Leave it out to go on with the latest one, or use one that execute_in_session returned.",
    )
    .in_field("conversationId")
}

pub(crate) fn no_conversation() -> Refusal {
    Refusal::new(
        Reason::ConversationNotFound,
        "The session has no conversation: nobody gave it a prompt.",
        "execute_in_session begins one (claude-code-mcp session prompt). What else happened in the session is in its logs: \
         get_session_logs without `transcript` (claude-code-mcp session logs).",
    )
}

/// Cannot happen on the road: it asks for the permit of what it does.
pub(crate) fn other_permit() -> Refusal {
    Refusal::new(
        Reason::PolicyDenied,
        "The permit is for something else.",
        "Ask for what is to be done.",
    )
}

pub(crate) fn execution_ended() -> Refusal {
    Refusal::new(
        Reason::ExecutionEnded,
        "The execution has ended.",
        "Start another one.",
    )
    .in_field("executionId")
}

pub(crate) fn made_by_another_version() -> Refusal {
    Refusal::new(
        Reason::SessionFailed,
        "The session was made by another version of the server.",
        "Destroy it and create a new one.",
    )
}

/// A prompt is no program that reads.
pub(crate) fn no_stdin() -> Refusal {
    Refusal::new(
        Reason::StdinClosed,
        "A prompt has no standard input.",
        "Send another prompt with execute_in_session; answer what Claude Code asks by permissionId.",
    )
    .in_field("executionId")
}

pub(crate) fn too_many_executions(running: u32) -> Refusal {
    Refusal::new(
        Reason::LimitReached,
        format!("{running} executions are running in the session, as many as may."),
        "Wait until one has ended, or cancel one with cancel_execution.",
    )
    .retry_after_ms(1_000)
}

/// Why a session in that state does not work.
pub(crate) fn not_live(state: SessionState, because: Option<&str>) -> Refusal {
    let because = because.unwrap_or("no reason is on record");
    match state {
        SessionState::Creating
        | SessionState::Unknown
        | SessionState::Ready
        | SessionState::Busy => Refusal::new(
            Reason::SessionNotReady,
            "The session is not ready yet.",
            "Try again in a moment; get_session tells its state.",
        )
        .retry_after_ms(500),
        SessionState::Paused => Refusal::new(
            Reason::SessionNotReady,
            "The session is paused by the operator.",
            "Wait until the operator lets it go on, or create another session.",
        ),
        SessionState::Expired => Refusal::new(
            Reason::SessionExpired,
            format!("The session has expired: {because}."),
            "Create a new session; give it a longer ttlSeconds or idleSeconds if it needs them.",
        ),
        SessionState::Destroyed => Refusal::new(
            Reason::SessionDestroyed,
            "The session was destroyed.",
            "Create a new session with create_session.",
        ),
        SessionState::Failed => Refusal::new(
            Reason::SessionFailed,
            format!("The session failed: {because}."),
            "Read get_session_logs for what happened, then create a new session.",
        ),
    }
    .in_field("sessionId")
}

pub(crate) fn backend(error: &BackendError) -> Refusal {
    let refusal = match error {
        BackendError::Unavailable { why, remedy } => {
            Refusal::new(Reason::BackendUnavailable, format!("Sandboxes cannot be built here: {why}."), remedy.clone())
        }
        BackendError::EngineElsewhere { why } => Refusal::new(
            Reason::EngineNotLocal,
            format!("The Docker engine is not on the server's host ({why}), and the project is."),
            "Use an engine of the host that the server runs on, or the native backend. An engine elsewhere cannot carry \
             sessions yet: that needs workspaces that are copied to it.",
        ),
        BackendError::EngineUnfit { why, remedy } => Refusal::new(
            Reason::EngineUnfit,
            format!("The Docker engine cannot carry sessions: {why}."),
            remedy.clone(),
        ),
        BackendError::ImageRefused { why, remedy } => {
            Refusal::new(Reason::ImageRefused, format!("No session is made here: {why}."), remedy.clone())
        }
        BackendError::LimitUnenforceable { limit, why } => Refusal::new(
            Reason::LimitUnenforceable,
            format!("The limit {} cannot be enforced by the kernel here: {why}.", limit.as_str()),
            "Leave the limit out, run the server where it can be enforced (`claude-code-mcp doctor` tells how), or let \
             the operator set dangerously_accept_soft_limits.",
        )
        .in_field(format!("limits.{}", limit.as_str())),
        BackendError::LayerUnavailable { layer, why } => Refusal::new(
            Reason::HardeningNotInForce,
            format!("The protection {layer:?} is required and cannot be had here: {why}."),
            "`claude-code-mcp doctor` tells what this machine lacks and how to get it.",
        ),
        BackendError::RuntimeUnknown { name, known } => Refusal::new(
            Reason::BackendUnavailable,
            format!("The engine has no runtime `{name}`; it has {}.", known.join(", ")),
            "Register the runtime with the engine (`runtimes` in its daemon.json), or use another runtimeClass.",
        )
        .in_field("runtimeClass"),
        BackendError::WorkspaceNotMappable(why) => Refusal::new(
            Reason::WorkspaceNotMappable,
            format!("The project cannot be mounted so that its files stay its owner's: {why}."),
            "Use a project that belongs to the user who runs the server, on a file system with idmapped mounts (ext4, \
             xfs, btrfs, tmpfs), or a copy of it in such a place.",
        )
        .in_field("projectPath"),
        BackendError::PathChanged { .. } | BackendError::ProtectedGone { .. } => Refusal::new(
            Reason::PathUnsafe,
            "A directory changed, or became a link, while the session was being made.",
            "Check what changes the directory, then try again.",
        ),
        BackendError::NotFound => {
            Refusal::new(Reason::SessionFailed, "The session's sandbox is gone.", "Create a new session.")
        }
        BackendError::Unsupported(what) => {
            Refusal::new(Reason::BackendUnavailable, format!("Not possible here: {what}."), "Do without it.")
        }
        BackendError::Timeout(_) => unresponsive(),
        BackendError::AlreadyExists | BackendError::Step { .. } => Refusal::internal(error),
    };
    refusal.with_cause(error)
}

fn unresponsive() -> Refusal {
    Refusal::new(
        Reason::SandboxUnresponsive,
        "The session's sandbox did not answer in time.",
        "Try again; if it stays so, destroy the session and create a new one.",
    )
}

pub(crate) fn supervisor(error: &SupervisorError) -> Refusal {
    let refusal = match error {
        SupervisorError::Fault(fault) => fault_of(fault),
        SupervisorError::Timeout(_) | SupervisorError::Interrupted(_) => unresponsive(),
        SupervisorError::Ended | SupervisorError::Protocol(_) => {
            not_live(SessionState::Failed, Some("its sandbox ended"))
        }
        SupervisorError::Version { .. } => made_by_another_version(),
        SupervisorError::TooManyOpen => Refusal::new(
            Reason::RateLimited,
            "Too many calls to this session are waiting.",
            "Wait for some of them.",
        )
        .retry_after_ms(1_000),
        SupervisorError::Unsendable(_) => Refusal::new(
            Reason::TooLarge,
            "The command and its environment are too large.",
            "Pass less, or use files.",
        ),
    };
    refusal.with_cause(error)
}

fn fault_of(fault: &Fault) -> Refusal {
    match fault.kind {
        FaultKind::UnknownExecution => execution_not_found(),
        FaultKind::Ended => Refusal::new(Reason::ExecutionEnded, "The execution has ended.", "Start another one."),
        FaultKind::StdinClosed => Refusal::new(
            Reason::StdinClosed,
            "The program's standard input is closed.",
            "Start it with keepStdinOpen to write to it later.",
        ),
        FaultKind::TooMany => Refusal::new(
            Reason::LimitReached,
            "The session has as many executions as it can hold.",
            "Wait until one has ended, or cancel one.",
        ),
        FaultKind::BadCwd => Refusal::new(
            Reason::CommandNotStarted,
            format!("The working directory cannot be entered: {}.", errno(fault.errno)),
            "Give a directory that exists inside the session, such as /workspace.",
        )
        .in_field("cwd"),
        FaultKind::CannotExecute => Refusal::new(
            Reason::CommandNotStarted,
            format!("The program cannot be executed: {}.", errno(fault.errno)),
            "Check its name and that it is installed in the session; use `command` for a shell line.",
        )
        .in_field("argv"),
        FaultKind::System => Refusal::new(
            Reason::CommandNotStarted,
            format!("The session is short of resources: {}.", errno(fault.errno)),
            "End other executions of the session, or create one with higher limits.",
        ),
        FaultKind::BadPath => Refusal::new(
            Reason::PathNotFound,
            format!("The path inside the session cannot be used: {}.", errno(fault.errno)),
            "Give a path that exists inside the session.",
        ),
        FaultKind::NoTerminal | FaultKind::Invalid => {
            Refusal::new(Reason::InvalidArgument, "The execution cannot do that.", "Check the arguments.")
        }
    }
}

/// The system's words for an error number.
fn errno(number: i32) -> String {
    if number == 0 {
        "no further reason".to_owned()
    } else {
        rustix::io::Errno::from_raw_os_error(number).to_string()
    }
}

pub(crate) fn weakness(weakness: &Weakness, kernel: Kernel) -> Refusal {
    let unfiltered = weakness
        .layers
        .iter()
        .any(|layer| layer.layer == Layer::Seccomp);
    let layers: Vec<_> = weakness
        .layers
        .iter()
        .map(|layer| format!("{:?}", layer.layer))
        .collect();
    let limits: Vec<_> = weakness
        .limits
        .iter()
        .map(|limit| limit.limit.as_str().to_owned())
        .collect();
    let mounts: Vec<_> = weakness
        .mounts
        .iter()
        .map(|mount| format!("{} {}", mount.target, mount.flaw))
        .collect();
    let supervisor: Vec<_> = weakness
        .supervisor
        .iter()
        .map(|&flaw| flaw.to_owned())
        .collect();
    let all = [layers, limits, mounts, supervisor].concat().join(", ");
    let mut refusal = Refusal::new(
        Reason::HardeningNotInForce,
        format!("The sandbox was weaker than its profile, so it was removed: {all}."),
        match kernel {
            Kernel::Guest if unfiltered => {
                "Register the runtime with the engine so that it keeps the profile: gVisor's runsc needs the runtime argument \
                 --oci-seccomp."
            }
            Kernel::Guest | Kernel::Shared => {
                "`claude-code-mcp doctor` tells what this machine can enforce and how to get what is missing."
            }
        },
    );
    refusal.detail = Some(format!("{weakness:?}"));
    refusal
}

pub(crate) fn client_transfer(error: &ClientError) -> Refusal {
    let refusal = match error {
        ClientError::Refused { fault, path } => {
            let path = String::from_utf8_lossy(path).into_owned();
            let what = if fault.step.is_empty() {
                "it is not transferred"
            } else {
                &fault.step
            };
            match (fault.kind, fault.errno) {
                (FaultKind::BadPath, 2) => Refusal::new(
                    Reason::PathNotFound,
                    "The path does not exist inside the session.",
                    "Give a path that exists inside the session.",
                ),
                (FaultKind::BadPath | FaultKind::Invalid, _) => Refusal::new(
                    Reason::TransferEntryRefused,
                    format!("The entry {path:?} is refused: {}.", printable(what)),
                    "Only regular files, directories and links inside the tree are transferred.",
                ),
                _ => Refusal::new(
                    Reason::TransferEntryRefused,
                    format!(
                        "The entry {path:?} failed inside the session: {}.",
                        errno(fault.errno)
                    ),
                    "Check the path, its permissions and the space inside the session.",
                ),
            }
        }
        ClientError::LinkLeaves { path } => Refusal::new(
            Reason::TransferEntryRefused,
            format!(
                "The link {:?} may lead out of the tree.",
                String::from_utf8_lossy(path)
            ),
            "Remove the link, or transfer a tree that holds its target.",
        ),
        ClientError::TooManyEntries(limit) => Refusal::new(
            Reason::TooLarge,
            format!("The tree has more than {limit} entries."),
            "Transfer a part of it.",
        ),
        ClientError::TooManyBytes(limit) => Refusal::new(
            Reason::TooLarge,
            format!("The tree has more than {limit} bytes."),
            "Transfer a part of it.",
        ),
        ClientError::Invalid(what) => Refusal::new(
            Reason::TransferEntryRefused,
            format!(
                "The tree holds what is not transferred: {}.",
                printable(what)
            ),
            "Only regular files, directories and links inside the tree are transferred.",
        ),
        ClientError::Stalled | ClientError::Dropped | ClientError::Protocol(_) => unresponsive(),
    };
    refusal.with_cause(error)
}

/// Words that come from inside, fit for one line.
fn printable(words: &str) -> String {
    words
        .chars()
        .filter(|c| !c.is_control())
        .take(120)
        .collect()
}

pub(crate) fn host_transfer(error: &TransferError) -> Refusal {
    let refusal = match error {
        TransferError::Missing { path } => Refusal::new(
            Reason::PathNotFound,
            format!("The path {path:?} does not exist in the project."),
            "Give a path that exists.",
        ),
        TransferError::Refused { path, what } => Refusal::new(
            Reason::TransferEntryRefused,
            format!("The entry {path:?} is {what}."),
            "Only regular files, directories and links inside the tree are transferred.",
        ),
        TransferError::Protected { path, reason } => Refusal::new(
            Reason::PathProtected,
            format!("The path {path:?} is protected: {reason}."),
            "Transfer to another name and let a person put it in place.",
        ),
        TransferError::InTheWay { path } => Refusal::new(
            Reason::TransferEntryRefused,
            format!("Something of another kind stands at {path:?}."),
            "Remove it, or choose another destination.",
        ),
        TransferError::TooLarge { limit, unit } => Refusal::new(
            Reason::TooLarge,
            format!("The tree has more than {limit} {unit}."),
            "Transfer a part of it.",
        ),
        TransferError::Broken(_) => unresponsive(),
        TransferError::Io { step, path, source } => Refusal::new(
            Reason::TransferEntryRefused,
            format!("The server cannot {step} {path:?}: {}.", source.kind()),
            "Check the path, its permissions and the space on the disk.",
        ),
    };
    refusal.with_cause(error)
}

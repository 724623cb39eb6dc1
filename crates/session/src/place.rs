//! How a new session gets its place: at once where there is one, else in the line, for as long as the operator lets it wait.

use std::{future::Future, sync::Arc, time::Duration};

use model::{Reason, Refusal, SessionId};
use policy::{CreateParts, Hears, PlaceBounds};
use store::{Bounds, Reserved, Resource, SessionRecord, Shortage, Whose};
use tokio::time::Instant;

use crate::{
    queue::Crowded,
    sessions::{Inner, now_ms},
};

/// When another try makes sense where sessions would have to end first: they live for minutes.
const RETRY_MS: u64 = 5_000;
/// Own sessions that a refusal names.
const MAX_NAMED: usize = 5;

/// What became of the wish for a place.
pub(crate) enum Place {
    /// The session is on record, and has its place.
    Taken,
    /// An earlier call with the same key made that one.
    Existing(SessionId),
}

impl Inner {
    /// Reserves a place. The times of the record are those of the moment at which it has one.
    pub(crate) async fn place(
        &self,
        record: &mut SessionRecord,
        parts: &CreateParts,
        gone: impl Future<Output = ()> + Send,
    ) -> Result<Place, Refusal> {
        let bounds = bounds(&parts.bounds);
        let decided_by = self.settings();
        let mut shortage = None;
        if parts.queue_wait.is_zero() || self.queue.is_empty() {
            match outcome(self.reserve(record, bounds).await?)? {
                Ok(place) => return Ok(place),
                Err(short) if parts.queue_wait.is_zero() => {
                    return Err(refusal(&short, parts.hears));
                }
                Err(short) => shortage = Some(short),
            }
        }
        let waiting = self.queue.join(&record.principal).map_err(crowded)?;
        let deadline = Instant::now() + parts.queue_wait;
        tokio::pin!(gone);
        loop {
            tokio::select! {
                () = waiting.turn() => {}
                () = tokio::time::sleep_until(deadline) => {
                    let short = shortage.map(|short| refusal(&short, parts.hears));
                    return Err(waited(short, waiting.position(), parts.queue_wait));
                }
                () = &mut gone => return Err(abandoned()),
            }
            if !Arc::ptr_eq(&decided_by, &self.settings()) {
                // What was decided holds no longer: another decision is made for another call.
                let message = "The configuration changed while it waited for a place.".to_owned();
                return Err(limit_reached(message, "Call again."));
            }
            let lifetime_ms = record.expires_at_ms.saturating_sub(record.created_at_ms);
            record.created_at_ms = now_ms();
            record.last_used_at_ms = record.created_at_ms;
            record.expires_at_ms = record.created_at_ms.saturating_add(lifetime_ms);
            match outcome(self.reserve(record, bounds).await?)? {
                Ok(Place::Taken) => {
                    waiting.got_one();
                    return Ok(Place::Taken);
                }
                Ok(existing) => return Ok(existing),
                Err(short) => {
                    shortage = Some(short);
                    waiting.pass_on();
                }
            }
        }
    }
}

fn outcome(reserved: Reserved) -> Result<Result<Place, Shortage>, Refusal> {
    match reserved {
        Reserved::New => Ok(Ok(Place::Taken)),
        Reserved::Existing(record) => Ok(Ok(Place::Existing(record.id))),
        Reserved::Conflict => Err(conflict()),
        Reserved::Short(shortage) => Ok(Err(shortage)),
    }
}

const fn bounds(decided: &PlaceBounds) -> Bounds {
    Bounds {
        sessions: decided.sessions,
        sessions_of_caller: decided.sessions_of_caller,
        sessions_of_project: decided.sessions_of_project,
        memory_bytes: decided.memory_bytes,
        cpu_millis: decided.cpu_millis,
        disk_bytes: decided.disk_bytes,
    }
}

fn conflict() -> Refusal {
    Refusal::new(
        Reason::IdempotencyConflict,
        "The idempotencyKey was used before with other arguments.",
        "Use a new key for a new session, or repeat the call exactly.",
    )
    .in_field("idempotencyKey")
}

fn limit_reached(message: String, hint: impl Into<String>) -> Refusal {
    Refusal::new(Reason::LimitReached, message, hint).retry_after_ms(RETRY_MS)
}

/// What is short, as that caller may hear it. Our log has the whole of it where the caller has not.
///
/// What this does not stop: finding out how much is left by asking for less and less.
fn refusal(shortage: &Shortage, hears: Hears) -> Refusal {
    let whole = told_to_operator(shortage);
    match hears {
        Hears::OfAll => whole,
        Hears::OfItsOwn => {
            let mut refusal = told_of_own(shortage);
            refusal.detail = Some(whole.message);
            refusal
        }
    }
}

/// How much is promised to all, and what of that is the caller's own.
fn told_to_operator(shortage: &Shortage) -> Refusal {
    match shortage {
        Shortage::Sessions { of: Whose::Server, live, .. } => limit_reached(
            format!("{live} sessions are live, as many as the server allows."),
            "Destroy one with destroy_session, or let the operator raise MAX_CONCURRENT_SESSIONS.",
        ),
        Shortage::Sessions { of: Whose::Caller, live, .. } => limit_reached(
            format!("{live} of your sessions are live, as many as one caller may have."),
            "Destroy one with destroy_session; the operator can raise max_sessions_per_caller, or the number of your key.",
        ),
        Shortage::Sessions { of: Whose::Project, live, .. } => limit_reached(
            format!("{live} sessions are live on this project, as many as one project may have."),
            "Work in one of yours, or destroy it with destroy_session; the operator can raise max_sessions_per_project.",
        )
        .in_field("projectPath"),
        Shortage::Resource { of, asked, promised, capacity, own } => {
            let amount = |value| amount(*of, value);
            let own = match own.is_empty() {
                true => "None of them is yours.".to_owned(),
                false => named(*of, own),
            };
            let message = format!(
                "There is too little {}: live sessions are promised {} of the {} that may be promised here, and this one asks \
                 for {}. {own}",
                noun(*of),
                amount(*promised),
                amount(*capacity),
                amount(*asked),
            );
            let (limit, key) = keys(*of);
            let hint = format!(
                "Destroy a session with destroy_session, or ask for less in {limit}; the operator can raise {key}."
            );
            limit_reached(message, hint).in_field(limit)
        }
    }
}

/// That the server is short of it, and when to come back: how much others have is not told.
fn told_of_own(shortage: &Shortage) -> Refusal {
    let seconds = RETRY_MS / 1_000;
    match shortage {
        Shortage::Sessions {
            of: Whose::Caller, ..
        } => told_to_operator(shortage),
        Shortage::Sessions {
            of: Whose::Server, ..
        } => limit_reached(
            "As many sessions are live as the server allows.".to_owned(),
            format!(
                "Try again in {seconds} s, or destroy a session of yours with destroy_session."
            ),
        ),
        Shortage::Sessions {
            of: Whose::Project, ..
        } => limit_reached(
            "As many sessions are live on this project as one project may have.".to_owned(),
            format!("Try again in {seconds} s, or work in one of yours."),
        )
        .in_field("projectPath"),
        Shortage::Resource { of, asked, own, .. } => {
            let (limit, _) = keys(*of);
            let mut message = format!(
                "The server is short of {} at the moment: there is too little for this session, which asks for {}.",
                noun(*of),
                amount(*of, *asked),
            );
            if !own.is_empty() {
                message = format!("{message} {}", named(*of, own));
            }
            let hint = format!(
                "Try again in {seconds} s, destroy a session of yours with destroy_session, or ask for less in {limit}."
            );
            limit_reached(message, hint).in_field(limit)
        }
    }
}

/// The caller's argument, and the operator's key.
const fn keys(of: Resource) -> (&'static str, &'static str) {
    match of {
        Resource::Memory => ("limits.memoryBytes", "overcommit_memory_percent"),
        Resource::Cpu => ("limits.cpuMillis", "overcommit_cpu_percent"),
        Resource::Disk => ("limits.stateBytes", "overcommit_disk_percent"),
    }
}

const fn noun(of: Resource) -> &'static str {
    match of {
        Resource::Memory => "memory",
        Resource::Cpu => "processor time",
        Resource::Disk => "disk space",
    }
}

fn amount(of: Resource, value: u64) -> String {
    match of {
        Resource::Memory | Resource::Disk => format!("{} MiB", value.div_ceil(1 << 20)),
        Resource::Cpu => format!("{}.{:03} CPUs", value / 1_000, value % 1_000),
    }
}

/// The caller's own, by name. Nobody else's are told of.
fn named(of: Resource, own: &[(SessionId, u64)]) -> String {
    let named: Vec<_> = own
        .iter()
        .take(MAX_NAMED)
        .map(|(id, promised)| format!("{id} ({})", amount(of, *promised)))
        .collect();
    let others = match own.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("Yours: {}{others}.", named.join(", "))
}

fn waited(short: Option<Refusal>, position: usize, wait: Duration) -> Refusal {
    let seconds = wait.as_secs();
    let mut refusal = short.unwrap_or_else(|| {
        let hint = "Try again in a moment, or destroy a session with destroy_session.";
        limit_reached("Others wait for a place, too.".to_owned(), hint)
    });
    refusal.message = format!(
        "{} It waited {seconds} s for a place, and was number {position} in the line.",
        refusal.message
    );
    refusal
}

fn crowded(crowded: Crowded) -> Refusal {
    let message = match crowded {
        Crowded::Caller(waiting) => {
            format!("{waiting} new sessions of yours wait for a place, as many as may.")
        }
        Crowded::Everybody(waiting) => {
            format!("{waiting} new sessions wait for a place, as many as may.")
        }
    };
    limit_reached(
        message,
        "Wait for them, or destroy a session with destroy_session.",
    )
}

/// Nobody reads it but the audit log.
fn abandoned() -> Refusal {
    limit_reached(
        "Its caller went away while it waited for a place.".to_owned(),
        "Call again and wait for the answer.",
    )
}

//! Which audited operation each call to an engine belongs to. A place is a position in the log, or in whatever holds the log's
//! writes and the calls in one order: no clock is read.
#![allow(
    dead_code,
    clippy::expect_used,
    reason = "each test program uses a part of it; a test fails by panicking"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use audit::{Body, Phase};
use model::SessionId;
use sandbox::wire::{ExecutionKey, Request, TransferKind};

/// What a call does to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Afterwards something is another.
    Changes,
    /// It looks, and nothing is another.
    Observes,
}

/// A call to an engine, or to the supervisor that the engine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineCall {
    pub name: String,
    pub effect: Effect,
    /// The session that it concerns; `None` where it concerns all, or where what recorded it cannot tell.
    pub session: Option<SessionId>,
    /// The execution that it begins or is about.
    pub execution: Option<ExecutionKey>,
    /// Before the first byte of it left.
    pub begun: u64,
    /// After its answer came; `None` while it is open.
    pub ended: Option<u64>,
}

/// What a request is called here, and what it does.
pub fn of_request(request: &Request) -> (&'static str, Effect) {
    match request {
        Request::RenewLease { .. } => ("RenewLease", Effect::Changes),
        Request::SetEnvironment { .. } => ("SetEnvironment", Effect::Changes),
        Request::Start(_) => ("Start", Effect::Changes),
        Request::WriteStdin { .. } => ("WriteStdin", Effect::Changes),
        Request::Signal { .. } => ("Signal", Effect::Changes),
        // On the log as what only reads: a size lasts no longer than the terminal.
        Request::Resize { .. } => ("Resize", Effect::Observes),
        Request::Cancel { .. } => ("Cancel", Effect::Changes),
        Request::Read { .. } => ("Read", Effect::Observes),
        Request::Wait { .. } => ("Wait", Effect::Observes),
        Request::List => ("List", Effect::Observes),
        Request::Forget { .. } => ("Forget", Effect::Changes),
        Request::OpenTransfer(spec) => match spec.kind {
            TransferKind::Export { .. } => ("Export", Effect::Observes),
            TransferKind::Import { .. } => ("Import", Effect::Changes),
        },
        Request::OpenRelay { .. } => ("OpenRelay", Effect::Changes),
        Request::Shutdown => ("Shutdown", Effect::Changes),
    }
}

/// The execution that a request names, if it names one.
pub fn execution_of(request: &Request) -> Option<ExecutionKey> {
    match request {
        Request::Start(spec) => Some(spec.execution),
        Request::WriteStdin { execution, .. }
        | Request::Signal { execution, .. }
        | Request::Resize { execution, .. }
        | Request::Cancel { execution, .. }
        | Request::Read { execution, .. }
        | Request::Wait { execution, .. }
        | Request::Forget { execution } => Some(*execution),
        Request::RenewLease { .. }
        | Request::SetEnvironment { .. }
        | Request::List
        | Request::OpenTransfer(_)
        | Request::OpenRelay { .. }
        | Request::Shutdown => None,
    }
}

/// An operation of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub id: String,
    pub action: String,
    pub session: Option<SessionId>,
    /// It has an intent, without which nothing may be changed.
    pub has_intent: bool,
    /// Its intent is durable from here on. One that only reads has none: it began when the call was handed in.
    pub from: u64,
    /// Its result is not written before.
    pub to: u64,
}

impl Operation {
    fn concerns(&self, call: &EngineCall) -> bool {
        match (call.effect, call.session, self.session) {
            // Nothing changes without an intent.
            (Effect::Changes, _, _) if !self.has_intent => false,
            (_, Some(called), Some(own)) => called == own,
            // Some look at every session, as lists do.
            (effect, Some(_), None) => effect == Effect::Observes,
            (_, None, _) => true,
        }
    }

    fn holds(&self, call: &EngineCall) -> bool {
        let ended = call.ended.unwrap_or(u64::MAX);
        self.concerns(call) && self.from <= call.begun && ended <= self.to
    }
}

/// A kind of call that also comes outside of every operation, and why it may.
#[derive(Debug, Clone, Copy)]
pub struct Background {
    pub name: &'static str,
    pub because: &'static str,
    /// It may only as what is left of the operation that started its execution.
    pub carries_on: bool,
}

impl Background {
    pub const fn new(name: &'static str, because: &'static str) -> Self {
        Background {
            name,
            because,
            carries_on: false,
        }
    }

    /// One that may only as what is left of the operation that started its execution.
    pub const fn carrying_on(name: &'static str, because: &'static str) -> Self {
        Background {
            name,
            because,
            carries_on: true,
        }
    }
}

/// Where a record of the log stands.
pub struct Placed {
    pub body: Body,
    pub begins: u64,
    /// It is durable from here on.
    pub ends: u64,
}

/// The records of a log that is one file, by where they stand in it.
pub fn records(log: &Path) -> Vec<Placed> {
    let bytes = fs::read(log).expect("the log");
    let records = audit::read(log).expect("the log");
    let mut at = 0;
    let mut placed = Vec::new();
    for (line, record) in bytes.split_inclusive(|byte| *byte == b'\n').zip(records) {
        let begins = at;
        at += line.len() as u64;
        placed.push(Placed {
            body: record.expect("a record").body,
            begins,
            ends: at,
        });
    }
    placed
}

/// The operations among records. `handed_in`: places at which callers handed in calls, for those without an intent; without such a
/// place they hold nothing, and are left out.
pub fn operations(
    records: impl IntoIterator<Item = Placed>,
    handed_in: &BTreeSet<u64>,
) -> Vec<Operation> {
    let mut operations = Vec::<Operation>::new();
    let mut known = BTreeMap::<String, usize>::new();
    for Placed { body, begins, ends } in records {
        let Some(id) = body.op else { continue };
        match (body.phase, known.get(&id)) {
            (Phase::Intent, _) => {
                known.insert(id.clone(), operations.len());
                operations.push(Operation {
                    id,
                    action: body.action,
                    session: body.session_id,
                    has_intent: true,
                    from: ends,
                    to: u64::MAX,
                });
            }
            (Phase::Result, Some(&opened)) => {
                let opened = &mut operations[opened];
                opened.to = begins;
                opened.session = body.session_id.or(opened.session);
            }
            (Phase::Result, None) => {
                let from = handed_in.range(..=begins).next_back();
                operations.extend(from.map(|from| Operation {
                    id,
                    action: body.action,
                    session: body.session_id,
                    has_intent: false,
                    from: *from,
                    to: begins,
                }));
            }
            (Phase::Event, _) => {}
        }
    }
    operations
}

/// What was found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Calls that no operation holds, or more than one.
    pub findings: Vec<String>,
    /// What each call that lies in an operation is called, by the operation's action.
    pub held: BTreeSet<(String, String)>,
    /// The kinds of calls that came outside and may.
    pub outside: BTreeSet<&'static str>,
}

/// Holds every call against the operations.
pub fn judge(calls: &[EngineCall], operations: &[Operation], background: &[Background]) -> Verdict {
    let holders = |call| operations.iter().filter(move |one| one.holds(call));
    let started = |call: &EngineCall| {
        let start = |one: &&EngineCall| one.name == "Start" && one.execution == call.execution;
        call.execution.is_some()
            && calls
                .iter()
                .find(start)
                .is_some_and(|start| start.begun <= call.begun && holders(start).count() == 1)
    };
    let mut verdict = Verdict::default();
    for call in calls {
        let known = background.iter().find(|one| one.name == call.name);
        let known = known.filter(|known| !known.carries_on || started(call));
        match (holders(call).collect::<Vec<_>>().as_slice(), known) {
            ([holder], _) => {
                let held = (holder.action.clone(), call.name.clone());
                verdict.held.insert(held);
            }
            ([], Some(known)) => {
                verdict.outside.insert(known.name);
            }
            ([], None) => verdict
                .findings
                .push(format!("outside of every operation: {call:?}")),
            (several, _) => {
                let names: Vec<_> = several
                    .iter()
                    .map(|one| format!("{} {}", one.action, one.id))
                    .collect();
                let names = names.join(", ");
                verdict
                    .findings
                    .push(format!("in several operations ({names}): {call:?}"));
            }
        }
    }
    verdict
}

//! The tables of executions and events. Both are bounded per session: the oldest rows go first.

use model::{ExecutionId, ExecutionState, SessionId};
use rusqlite::{Connection, TransactionBehavior, named_params, params};

use crate::{
    EventRecord, ExecutionChange, ExecutionRecord, Store, StoreError,
    error::failed_to,
    rows::{self, number, optional_number},
};

/// Ended executions that are kept of one session. An agent runs hundreds in a day; ten thousand rows are about 2 MB.
pub const MAX_EXECUTIONS_PER_SESSION: u32 = 10_000;
/// Events that are kept of one session.
pub const MAX_EVENTS_PER_SESSION: u32 = 1_000;
/// Longest text of an event, bytes.
pub const MAX_EVENT_BYTES: usize = 1024;

const INSERT: &str = "
INSERT INTO executions (id, session, state, started_at_ms, ended_at_ms, timeout_ms, exit_code, signal, oom_killed,
    duration_ms, failure, protected_changes, prompt)
VALUES (:id, :session, :state, :started_at_ms, :ended_at_ms, :timeout_ms, :exit_code, :signal, :oom_killed,
    :duration_ms, :failure, :protected_changes, :prompt)";

impl Store {
    /// Inserts an execution of an existing session. Beyond [`MAX_EXECUTIONS_PER_SESSION`] the oldest ended ones go.
    ///
    /// # Errors
    /// When the database fails, or there is no such session.
    pub fn insert_execution(&self, record: &ExecutionRecord) -> Result<(), StoreError> {
        let mut connection = self.connection();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed_to("begin an insertion"))?;
        insert(&transaction, record)?;
        let sql = format!(
            "DELETE FROM executions WHERE session = ?1 AND state IN ({}) AND number <= (SELECT number FROM executions \
             WHERE session = ?1 ORDER BY number DESC LIMIT 1 OFFSET {MAX_EXECUTIONS_PER_SESSION})",
            state_list(
                ExecutionState::ALL
                    .into_iter()
                    .filter(|state| state.is_final())
            )
        );
        transaction
            .prepare_cached(&sql)
            .and_then(|mut statement| statement.execute([record.session.to_string()]))
            .map_err(failed_to("drop old executions"))?;
        transaction
            .commit()
            .map_err(failed_to("commit an execution"))
    }

    /// Changes an execution whose state is one of `expected` (none matches an empty list). `false`: it was not.
    ///
    /// # Errors
    /// When the database fails.
    pub fn update_execution(
        &self,
        id: ExecutionId,
        expected: &[ExecutionState],
        change: &ExecutionChange,
    ) -> Result<bool, StoreError> {
        let sql = format!(
            "UPDATE executions SET state = COALESCE(:state, state), \
             started_at_ms = COALESCE(:started_at_ms, started_at_ms), \
             ended_at_ms = COALESCE(:ended_at_ms, ended_at_ms), exit_code = COALESCE(:exit_code, exit_code), \
             signal = COALESCE(:signal, signal), oom_killed = COALESCE(:oom_killed, oom_killed), \
             duration_ms = COALESCE(:duration_ms, duration_ms), failure = COALESCE(:failure, failure), \
             protected_changes = COALESCE(:protected_changes, protected_changes), \
             prompt = COALESCE(:prompt, prompt) \
             WHERE id = :id AND state IN ({})",
            state_list(expected.iter().copied())
        );
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(&sql)
            .map_err(failed_to("change an execution"))?;
        let changed = statement
            .execute(named_params! {
                ":id": id.to_string(),
                ":state": change.state.map(ExecutionState::as_str),
                ":started_at_ms": optional_number("started_at_ms", change.started_at_ms)?,
                ":ended_at_ms": optional_number("ended_at_ms", change.ended_at_ms)?,
                ":exit_code": change.exit_code,
                ":signal": change.signal,
                ":oom_killed": change.oom_killed,
                ":duration_ms": optional_number("duration_ms", change.duration_ms)?,
                ":failure": change.failure,
                ":protected_changes": change.protected_changes,
                ":prompt": change.prompt,
            })
            .map_err(failed_to("change an execution"))?;
        Ok(changed == 1)
    }

    /// One execution.
    ///
    /// # Errors
    /// When the database fails or holds an unknown value.
    pub fn execution(&self, id: ExecutionId) -> Result<Option<ExecutionRecord>, StoreError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT * FROM executions WHERE id = ?1")
            .map_err(failed_to("read an execution"))?;
        let mut found = statement
            .query([id.to_string()])
            .map_err(failed_to("read an execution"))?;
        found
            .next()
            .map_err(failed_to("read an execution"))?
            .map(rows::execution)
            .transpose()
    }

    /// The executions of a session that have not ended on record, oldest first.
    ///
    /// # Errors
    /// When the database fails or holds an unknown value.
    pub fn open_executions(&self, session: SessionId) -> Result<Vec<ExecutionRecord>, StoreError> {
        let open = ExecutionState::ALL.into_iter();
        let sql = format!(
            "SELECT * FROM executions WHERE session = ?1 AND state IN ({}) ORDER BY number",
            state_list(open.filter(|state| !state.is_final()))
        );
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(&sql)
            .map_err(failed_to("list open executions"))?;
        let mut found = statement
            .query([session.to_string()])
            .map_err(failed_to("list open executions"))?;
        let mut executions = Vec::new();
        while let Some(row) = found.next().map_err(failed_to("list open executions"))? {
            executions.push(rows::execution(row)?);
        }
        Ok(executions)
    }

    /// The newest `limit` executions of a session, newest first.
    ///
    /// # Errors
    /// When the database fails or holds an unknown value.
    pub fn executions(
        &self,
        session: SessionId,
        limit: u32,
    ) -> Result<Vec<ExecutionRecord>, StoreError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(
                "SELECT * FROM executions WHERE session = ?1 ORDER BY number DESC LIMIT ?2",
            )
            .map_err(failed_to("list executions"))?;
        let mut found = statement
            .query(params![session.to_string(), limit])
            .map_err(failed_to("list executions"))?;
        let mut executions = Vec::new();
        while let Some(row) = found.next().map_err(failed_to("list executions"))? {
            executions.push(rows::execution(row)?);
        }
        Ok(executions)
    }

    /// Adds a line to a session's log; a text over [`MAX_EVENT_BYTES`] is cut. Beyond [`MAX_EVENTS_PER_SESSION`] the
    /// oldest go.
    ///
    /// # Errors
    /// When the database fails, or there is no such session.
    pub fn add_event(&self, session: SessionId, at_ms: u64, text: &str) -> Result<(), StoreError> {
        let at_ms = number("at_ms", at_ms)?;
        let mut connection = self.connection();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed_to("begin an event"))?;
        transaction
            .prepare_cached("INSERT INTO events (session, at_ms, text) VALUES (?1, ?2, ?3)")
            .and_then(|mut statement| {
                statement.execute(params![session.to_string(), at_ms, cut(text)])
            })
            .map_err(failed_to("insert an event"))?;
        let sql = format!(
            "DELETE FROM events WHERE session = ?1 AND number <= (SELECT number FROM events \
             WHERE session = ?1 ORDER BY number DESC LIMIT 1 OFFSET {MAX_EVENTS_PER_SESSION})"
        );
        transaction
            .prepare_cached(&sql)
            .and_then(|mut statement| statement.execute([session.to_string()]))
            .map_err(failed_to("drop old events"))?;
        transaction.commit().map_err(failed_to("commit an event"))
    }

    /// The newest `tail` lines of a session's log, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub fn events(&self, session: SessionId, tail: u32) -> Result<Vec<EventRecord>, StoreError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT * FROM events WHERE session = ?1 ORDER BY number DESC LIMIT ?2")
            .map_err(failed_to("list events"))?;
        let mut found = statement
            .query(params![session.to_string(), tail])
            .map_err(failed_to("list events"))?;
        let mut events = Vec::new();
        while let Some(row) = found.next().map_err(failed_to("list events"))? {
            events.push(rows::event(row)?);
        }
        events.reverse();
        Ok(events)
    }
}

fn insert(connection: &Connection, record: &ExecutionRecord) -> Result<(), StoreError> {
    let mut statement = connection
        .prepare_cached(INSERT)
        .map_err(failed_to("insert an execution"))?;
    statement
        .execute(named_params! {
            ":id": record.id.to_string(),
            ":session": record.session.to_string(),
            ":state": record.state.as_str(),
            ":started_at_ms": number("started_at_ms", record.started_at_ms)?,
            ":ended_at_ms": optional_number("ended_at_ms", record.ended_at_ms)?,
            ":timeout_ms": optional_number("timeout_ms", record.timeout_ms)?,
            ":exit_code": record.exit_code,
            ":signal": record.signal,
            ":oom_killed": record.oom_killed,
            ":duration_ms": number("duration_ms", record.duration_ms)?,
            ":failure": record.failure,
            ":protected_changes": record.protected_changes,
            ":prompt": record.prompt,
        })
        .map_err(failed_to("insert an execution"))?;
    Ok(())
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_EVENT_BYTES)]
}

/// A list for `IN (…)`. The names are constants of ours without quotes.
fn state_list(states: impl Iterator<Item = ExecutionState>) -> String {
    states
        .map(|state| format!("'{}'", state.as_str()))
        .collect::<Vec<_>>()
        .join(", ")
}

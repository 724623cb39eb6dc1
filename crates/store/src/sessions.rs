//! The table of sessions.

use std::os::unix::ffi::OsStrExt;

use model::{SessionId, SessionState};
use rusqlite::{Connection, TransactionBehavior, named_params, params};

use crate::{
    Bounds, Filter, Reserved, SessionChange, SessionRecord, Store, StoreError,
    error::failed_to,
    promises,
    rows::{self, number, optional_number},
};

const INSERT: &str = "
INSERT INTO sessions (id, principal, name, state, backend, project_path, created_at_ms, expires_at_ms, idle_ms,
    last_used_at_ms, idempotency_key, arguments_digest, memory_bytes, cpu_millis, disk_bytes, spec, attestation, agent, network,
    ended_because, ended_at_ms)
VALUES (:id, :principal, :name, :state, :backend, :project_path, :created_at_ms, :expires_at_ms, :idle_ms,
    :last_used_at_ms, :idempotency_key, :arguments_digest, :memory_bytes, :cpu_millis, :disk_bytes, :spec, :attestation, :agent, :network,
    :ended_because, :ended_at_ms)";

impl Store {
    /// Takes a place within these bounds and inserts the row, all in one transaction: exact however many callers race.
    ///
    /// # Errors
    /// When the database fails; nothing is reserved then.
    pub fn reserve_session(
        &self,
        record: &SessionRecord,
        bounds: &Bounds,
    ) -> Result<Reserved, StoreError> {
        let mut connection = self.connection();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed_to("begin a reservation"))?;
        if let Some(existing) = with_same_key(&transaction, record)? {
            let same = existing.arguments_digest == record.arguments_digest;
            return Ok(if same {
                Reserved::Existing(Box::new(existing))
            } else {
                Reserved::Conflict
            });
        }
        if let Some(shortage) = promises::shortage(&transaction, record, bounds)? {
            return Ok(Reserved::Short(shortage));
        }
        insert(&transaction, record)?;
        transaction
            .commit()
            .map_err(failed_to("commit a reservation"))?;
        Ok(Reserved::New)
    }

    /// Changes a session whose state is one of `expected` (none matches an empty list). `false`: it was not.
    ///
    /// # Errors
    /// When the database fails.
    pub fn update_session(
        &self,
        id: SessionId,
        expected: &[SessionState],
        change: &SessionChange,
    ) -> Result<bool, StoreError> {
        let sql = format!(
            "UPDATE sessions SET state = COALESCE(:state, state), \
             expires_at_ms = COALESCE(:expires_at_ms, expires_at_ms), \
             last_used_at_ms = COALESCE(:last_used_at_ms, last_used_at_ms), \
             spec = COALESCE(:spec, spec), attestation = COALESCE(:attestation, attestation), \
             agent = COALESCE(:agent, agent), network = COALESCE(:network, network), \
             ended_because = COALESCE(:ended_because, ended_because), \
             ended_at_ms = COALESCE(:ended_at_ms, ended_at_ms) \
             WHERE id = :id AND state IN ({})",
            state_list(expected.iter().copied())
        );
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(&sql)
            .map_err(failed_to("change a session"))?;
        let changed = statement
            .execute(named_params! {
                ":id": id.to_string(),
                ":state": change.state.map(SessionState::as_str),
                ":expires_at_ms": optional_number("expires_at_ms", change.expires_at_ms)?,
                ":last_used_at_ms": optional_number("last_used_at_ms", change.last_used_at_ms)?,
                ":spec": change.spec,
                ":attestation": change.attestation,
                ":agent": change.agent,
                ":network": change.network,
                ":ended_because": change.ended_because,
                ":ended_at_ms": optional_number("ended_at_ms", change.ended_at_ms)?,
            })
            .map_err(failed_to("change a session"))?;
        Ok(changed == 1)
    }

    /// One session.
    ///
    /// # Errors
    /// When the database fails or holds an unknown value.
    pub fn session(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT * FROM sessions WHERE id = ?1")
            .map_err(failed_to("read a session"))?;
        let mut found = statement
            .query([id.to_string()])
            .map_err(failed_to("read a session"))?;
        found
            .next()
            .map_err(failed_to("read a session"))?
            .map(rows::session)
            .transpose()
    }

    /// Sessions, oldest first.
    ///
    /// # Errors
    /// When the database fails or holds an unknown value.
    pub fn sessions(&self, filter: Filter<'_>) -> Result<Vec<SessionRecord>, StoreError> {
        let sql = format!(
            "SELECT * FROM sessions WHERE (?1 IS NULL OR principal = ?1) AND (?2 = 0 OR state IN ({})) ORDER BY number",
            live_states()
        );
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(&sql)
            .map_err(failed_to("list sessions"))?;
        let mut found = statement
            .query(params![filter.principal, filter.live_only])
            .map_err(failed_to("list sessions"))?;
        let mut sessions = Vec::new();
        while let Some(row) = found.next().map_err(failed_to("list sessions"))? {
            sessions.push(rows::session(row)?);
        }
        Ok(sessions)
    }

    /// The session was used; a time before the one on record changes nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub fn touch(&self, id: SessionId, at_ms: u64) -> Result<(), StoreError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(
                "UPDATE sessions SET last_used_at_ms = ?2 WHERE id = ?1 AND last_used_at_ms < ?2",
            )
            .map_err(failed_to("touch a session"))?;
        statement
            .execute(params![id.to_string(), number("last_used_at_ms", at_ms)?])
            .map_err(failed_to("touch a session"))?;
        Ok(())
    }

    /// Removes sessions that are no longer live and ended before `ms`, with their executions and events. Returns how
    /// many sessions. Their idempotency keys can be used again.
    ///
    /// # Errors
    /// When the database fails.
    pub fn purge_ended_before(&self, ms: u64) -> Result<u64, StoreError> {
        let sql = format!(
            "DELETE FROM sessions WHERE state NOT IN ({}) AND COALESCE(ended_at_ms, last_used_at_ms) < ?1",
            live_states()
        );
        let removed = self
            .connection()
            .execute(&sql, [number("ended_at_ms", ms)?])
            .map_err(failed_to("purge ended sessions"))?;
        Ok(removed as u64)
    }
}

fn with_same_key(
    connection: &Connection,
    record: &SessionRecord,
) -> Result<Option<SessionRecord>, StoreError> {
    let Some(key) = &record.idempotency_key else {
        return Ok(None);
    };
    let mut statement = connection
        .prepare_cached("SELECT * FROM sessions WHERE principal = ?1 AND idempotency_key = ?2")
        .map_err(failed_to("look for a key"))?;
    let mut found = statement
        .query([&record.principal, key])
        .map_err(failed_to("look for a key"))?;
    found
        .next()
        .map_err(failed_to("look for a key"))?
        .map(rows::session)
        .transpose()
}

fn insert(connection: &Connection, record: &SessionRecord) -> Result<(), StoreError> {
    let mut statement = connection
        .prepare_cached(INSERT)
        .map_err(failed_to("insert a session"))?;
    statement
        .execute(named_params! {
            ":id": record.id.to_string(),
            ":principal": record.principal,
            ":name": record.name,
            ":state": record.state.as_str(),
            ":backend": record.backend.as_str(),
            ":project_path": record.project_path.as_os_str().as_bytes(),
            ":created_at_ms": number("created_at_ms", record.created_at_ms)?,
            ":expires_at_ms": number("expires_at_ms", record.expires_at_ms)?,
            ":idle_ms": number("idle_ms", record.idle_ms)?,
            ":last_used_at_ms": number("last_used_at_ms", record.last_used_at_ms)?,
            ":idempotency_key": record.idempotency_key,
            ":arguments_digest": record.arguments_digest.as_slice(),
            ":memory_bytes": number("memory_bytes", record.promise.memory_bytes)?,
            ":cpu_millis": number("cpu_millis", record.promise.cpu_millis)?,
            ":disk_bytes": number("disk_bytes", record.promise.disk_bytes)?,
            ":spec": record.spec,
            ":attestation": record.attestation,
            ":agent": record.agent,
            ":network": record.network,
            ":ended_because": record.ended_because,
            ":ended_at_ms": optional_number("ended_at_ms", record.ended_at_ms)?,
        })
        .map_err(failed_to("insert a session"))?;
    Ok(())
}

pub(crate) fn live_states() -> String {
    state_list(
        SessionState::ALL
            .into_iter()
            .filter(|state| state.is_live()),
    )
}

/// A list for `IN (…)`. The names are constants of ours without quotes.
fn state_list(states: impl Iterator<Item = SessionState>) -> String {
    states
        .map(|state| format!("'{}'", state.as_str()))
        .collect::<Vec<_>>()
        .join(", ")
}

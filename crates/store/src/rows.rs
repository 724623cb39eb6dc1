//! Between rows and records. A text or number that this program does not know is an error, never a guess.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf, str::FromStr};

use model::{BackendName, ExecutionState, SessionState};
use rusqlite::{Row, types::FromSql};

use crate::{EventRecord, ExecutionRecord, SessionRecord, StoreError, error::failed_to};

/// Longest unknown value that an error shows, characters.
const MAX_SHOWN_CHARS: usize = 64;

impl StoreError {
    pub(crate) fn unknown(column: &'static str, value: &str) -> Self {
        StoreError::UnknownValue {
            column,
            value: value.chars().take(MAX_SHOWN_CHARS).collect(),
        }
    }
}

/// A number for the database, which has 63 bits.
pub(crate) fn number(column: &'static str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::OutOfRange { column })
}

/// As [`number`].
pub(crate) fn optional_number(
    column: &'static str,
    value: Option<u64>,
) -> Result<Option<i64>, StoreError> {
    value.map(|value| number(column, value)).transpose()
}

pub(crate) fn session(row: &Row<'_>) -> Result<SessionRecord, StoreError> {
    let digest: Vec<u8> = get(row, "arguments_digest")?;
    Ok(SessionRecord {
        id: parse(row, "id")?,
        principal: get(row, "principal")?,
        name: get(row, "name")?,
        state: named(row, "state", &SessionState::ALL, SessionState::as_str)?,
        backend: named(row, "backend", &BackendName::ALL, BackendName::as_str)?,
        project_path: PathBuf::from(OsString::from_vec(get(row, "project_path")?)),
        created_at_ms: unsigned(row, "created_at_ms")?,
        expires_at_ms: unsigned(row, "expires_at_ms")?,
        idle_ms: unsigned(row, "idle_ms")?,
        last_used_at_ms: unsigned(row, "last_used_at_ms")?,
        idempotency_key: get(row, "idempotency_key")?,
        arguments_digest: digest.try_into().map_err(|_| StoreError::OutOfRange {
            column: "arguments_digest",
        })?,
        spec: get(row, "spec")?,
        attestation: get(row, "attestation")?,
        agent: get(row, "agent")?,
        network: get(row, "network")?,
        ended_because: get(row, "ended_because")?,
        ended_at_ms: optional_unsigned(row, "ended_at_ms")?,
    })
}

pub(crate) fn execution(row: &Row<'_>) -> Result<ExecutionRecord, StoreError> {
    Ok(ExecutionRecord {
        id: parse(row, "id")?,
        session: parse(row, "session")?,
        state: named(row, "state", &ExecutionState::ALL, ExecutionState::as_str)?,
        started_at_ms: unsigned(row, "started_at_ms")?,
        ended_at_ms: optional_unsigned(row, "ended_at_ms")?,
        timeout_ms: optional_unsigned(row, "timeout_ms")?,
        exit_code: get(row, "exit_code")?,
        signal: get(row, "signal")?,
        oom_killed: get(row, "oom_killed")?,
        duration_ms: unsigned(row, "duration_ms")?,
        failure: get(row, "failure")?,
        protected_changes: get(row, "protected_changes")?,
        prompt: get(row, "prompt")?,
    })
}

pub(crate) fn event(row: &Row<'_>) -> Result<EventRecord, StoreError> {
    Ok(EventRecord {
        at_ms: unsigned(row, "at_ms")?,
        text: get(row, "text")?,
    })
}

pub(crate) fn get<T: FromSql>(row: &Row<'_>, column: &'static str) -> Result<T, StoreError> {
    row.get(column).map_err(failed_to("read a row"))
}

pub(crate) fn unsigned(row: &Row<'_>, column: &'static str) -> Result<u64, StoreError> {
    u64::try_from(get::<i64>(row, column)?).map_err(|_| StoreError::OutOfRange { column })
}

pub(crate) fn optional_unsigned(
    row: &Row<'_>,
    column: &'static str,
) -> Result<Option<u64>, StoreError> {
    let value: Option<i64> = get(row, column)?;
    value
        .map(|value| u64::try_from(value).map_err(|_| StoreError::OutOfRange { column }))
        .transpose()
}

pub(crate) fn parse<T: FromStr>(row: &Row<'_>, column: &'static str) -> Result<T, StoreError> {
    let text: String = get(row, column)?;
    text.parse().map_err(|_| StoreError::unknown(column, &text))
}

fn named<T: Copy>(
    row: &Row<'_>,
    column: &'static str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, StoreError> {
    let text: String = get(row, column)?;
    all.iter()
        .copied()
        .find(|value| name(*value) == text)
        .ok_or_else(|| StoreError::unknown(column, &text))
}

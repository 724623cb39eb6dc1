//! The tables, and how a file is told to be ours.

use rusqlite::{Connection, TransactionBehavior};

use crate::{StoreError, error::failed_to};

/// `application_id` of our files: `CCMS` in ASCII. A database with another one is somebody else's.
const APPLICATION_ID: i64 = 0x4343_4d53;

/// Schema of this program. A higher number in a file means a newer program wrote it. Each issue that changes the tables
/// raises it and adds a step to [`migrate`].
pub(crate) const SCHEMA_VERSION: i64 = 4;

/// Names of all tables: a file that lacks one is damaged.
const TABLES: [&str; 7] = [
    "api_keys",
    "daily_usage",
    "events",
    "executions",
    "meta",
    "session_usage",
    "sessions",
];

/// `STRICT` refuses values of a wrong type; `number` keeps the order of insertion whatever the clock says.
const VERSION_1: &str = "
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    principal TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    backend TEXT NOT NULL,
    project_path BLOB NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    idle_ms INTEGER NOT NULL,
    last_used_at_ms INTEGER NOT NULL,
    idempotency_key TEXT,
    arguments_digest BLOB NOT NULL,
    spec BLOB,
    attestation BLOB,
    ended_because TEXT,
    ended_at_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX sessions_by_key ON sessions (principal, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX sessions_by_state ON sessions (state);
CREATE TABLE executions (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    state TEXT NOT NULL,
    started_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER,
    timeout_ms INTEGER,
    exit_code INTEGER,
    signal INTEGER,
    oom_killed INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    failure TEXT,
    protected_changes BLOB
) STRICT;
CREATE INDEX executions_by_session ON executions (session, number);
CREATE TABLE events (
    number INTEGER PRIMARY KEY,
    session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    at_ms INTEGER NOT NULL,
    text TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_session ON events (session, number);
";

/// Claude Code: what a session's is, and what became of prompts.
const VERSION_2: &str = "
ALTER TABLE sessions ADD COLUMN agent BLOB;
ALTER TABLE executions ADD COLUMN prompt BLOB;
";

/// What a session may reach; and what was used of model providers: by each session, and by each caller day by day. A day outlives its sessions.
const VERSION_3: &str = "
ALTER TABLE sessions ADD COLUMN network BLOB;
CREATE TABLE session_usage (
    session TEXT PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    requests INTEGER NOT NULL,
    denied INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    cache_write_1h_tokens INTEGER NOT NULL,
    cost_pico_usd INTEGER NOT NULL,
    bytes_up INTEGER NOT NULL,
    bytes_down INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE daily_usage (
    day INTEGER NOT NULL,
    caller TEXT NOT NULL,
    requests INTEGER NOT NULL,
    denied INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    cache_write_1h_tokens INTEGER NOT NULL,
    cost_pico_usd INTEGER NOT NULL,
    bytes_up INTEGER NOT NULL,
    bytes_down INTEGER NOT NULL,
    PRIMARY KEY (day, caller)
) STRICT, WITHOUT ROWID;
";

/// Keys of remote callers. Rows stay when a key has ended: sessions and the audit log speak of it.
const VERSION_4: &str = "
CREATE TABLE api_keys (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    identity TEXT NOT NULL,
    name TEXT NOT NULL,
    secret_hash BLOB NOT NULL,
    scopes TEXT NOT NULL,
    roots BLOB NOT NULL,
    max_sessions INTEGER,
    calls_per_minute INTEGER,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER,
    revoked_at_ms INTEGER,
    last_used_at_ms INTEGER,
    replaced_by TEXT,
    end_is_told INTEGER NOT NULL
) STRICT;
";

/// What a file turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Ours, with this schema or an older one.
    Ours,
    /// Nothing in it yet.
    Empty,
    /// Somebody else's tables.
    Foreign,
    /// Ours by its number, but tables are missing.
    Damaged,
}

/// Looks at a file without changing it.
pub(crate) fn recognize(connection: &Connection) -> Result<Found, StoreError> {
    let application_id = pragma(connection, "application_id")?;
    let version = pragma(connection, "user_version")?;
    let tables = table_names(connection)?;
    if application_id == APPLICATION_ID {
        return match version {
            found if found > SCHEMA_VERSION => Err(StoreError::Newer {
                found,
                supported: SCHEMA_VERSION,
            }),
            SCHEMA_VERSION if tables != TABLES => Ok(Found::Damaged),
            found if found < 1 => Ok(Found::Damaged),
            _ => Ok(Found::Ours),
        };
    }
    let empty = application_id == 0 && version == 0 && tables.is_empty();
    Ok(if empty { Found::Empty } else { Found::Foreign })
}

/// Brings an empty or older file to [`SCHEMA_VERSION`], all or nothing.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failed_to("begin the migration"))?;
    // Looked at again under the lock: another process may just have done it.
    let version = pragma(&transaction, "user_version")?;
    if version < 1 {
        transaction
            .execute_batch(VERSION_1)
            .map_err(failed_to("make its tables"))?;
    }
    if version < 2 {
        transaction
            .execute_batch(VERSION_2)
            .map_err(failed_to("add what prompts need"))?;
    }
    if version < 3 {
        transaction
            .execute_batch(VERSION_3)
            .map_err(failed_to("add networks and budgets"))?;
    }
    if version < 4 {
        transaction
            .execute_batch(VERSION_4)
            .map_err(failed_to("add keys"))?;
    }
    transaction
        .execute_batch(&format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
        ))
        .map_err(failed_to("note its schema"))?;
    transaction
        .commit()
        .map_err(failed_to("commit the migration"))
}

fn pragma(connection: &Connection, name: &str) -> Result<i64, StoreError> {
    connection
        .pragma_query_value(None, name, |row| row.get(0))
        .map_err(failed_to("read its header"))
}

fn table_names(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
    let mut statement = connection
        .prepare(query)
        .map_err(failed_to("list its tables"))?;
    let names = statement
        .query_map([], |row| row.get(0))
        .map_err(failed_to("list its tables"))?;
    names
        .collect::<Result<_, _>>()
        .map_err(failed_to("list its tables"))
}

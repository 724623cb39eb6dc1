//! The table of API keys. A key's secret is not in it: only what it comes to under the pepper, which lies in a file of its own.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

use model::{KeyId, Scopes};
use rusqlite::{Connection, Row, TransactionBehavior, named_params, params};

use crate::{
    Store, StoreError,
    error::failed_to,
    rows::{self, number, optional_number},
};

const INSERT: &str = "
INSERT INTO api_keys (id, identity, name, secret_hash, scopes, roots, max_sessions, calls_per_minute, created_at_ms,
    expires_at_ms, revoked_at_ms, last_used_at_ms, replaced_by, end_is_told)
VALUES (:id, :identity, :name, :secret_hash, :scopes, :roots, :max_sessions, :calls_per_minute, :created_at_ms,
    :expires_at_ms, :revoked_at_ms, :last_used_at_ms, :replaced_by, :end_is_told)";

/// A key on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Which.
    pub id: KeyId,
    /// The first key of its line; see [`model::KeyView::identity`].
    pub identity: KeyId,
    /// What people call it.
    pub name: String,
    /// HMAC-SHA256 of its secret under the pepper.
    pub secret_hash: [u8; 32],
    /// What it may do.
    pub scopes: Scopes,
    /// Directories below which its projects are.
    pub roots: Vec<PathBuf>,
    /// Live sessions that it may have at once.
    pub max_sessions: Option<u32>,
    /// Calls a minute that it may make.
    pub calls_per_minute: Option<u32>,
    /// When it was made.
    pub created_at_ms: u64,
    /// From when on it is refused.
    pub expires_at_ms: Option<u64>,
    /// When it was revoked.
    pub revoked_at_ms: Option<u64>,
    /// When it was last used, coarsely.
    pub last_used_at_ms: Option<u64>,
    /// The key that came in its place.
    pub replaced_by: Option<KeyId>,
    /// That its time is over stands in the audit log.
    pub end_is_told: bool,
}

impl Store {
    /// Puts a key on record.
    ///
    /// # Errors
    /// When the database fails; there is no such key then.
    pub fn add_key(&self, key: &KeyRecord) -> Result<(), StoreError> {
        insert(&self.connection(), key)
    }

    /// Puts a key on record that takes the place of another, which ends at that time or earlier: both or neither.
    ///
    /// # Errors
    /// When the database fails; nothing is changed then.
    pub fn replace_key(
        &self,
        old: KeyId,
        old_expires_at_ms: u64,
        new: &KeyRecord,
    ) -> Result<(), StoreError> {
        let mut connection = self.connection();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed_to("begin to replace a key"))?;
        insert(&transaction, new)?;
        transaction
            .execute(
                "UPDATE api_keys SET replaced_by = ?2, expires_at_ms = MIN(COALESCE(expires_at_ms, ?3), ?3) WHERE id = ?1",
                params![old.as_str(), new.id.as_str(), number("expires_at_ms", old_expires_at_ms)?],
            )
            .map_err(failed_to("replace a key"))?;
        transaction.commit().map_err(failed_to("replace a key"))
    }

    /// Notes that a key is revoked. The first time stays.
    ///
    /// # Errors
    /// When the database fails.
    pub fn revoke_key(&self, id: KeyId, at_ms: u64) -> Result<(), StoreError> {
        self.set(
            "UPDATE api_keys SET revoked_at_ms = COALESCE(revoked_at_ms, ?2) WHERE id = ?1",
            id,
            at_ms,
        )
    }

    /// Notes when a key was last used.
    ///
    /// # Errors
    /// When the database fails.
    pub fn key_was_used(&self, id: KeyId, at_ms: u64) -> Result<(), StoreError> {
        self.set(
            "UPDATE api_keys SET last_used_at_ms = MAX(COALESCE(last_used_at_ms, ?2), ?2) WHERE id = ?1",
            id,
            at_ms,
        )
    }

    /// Notes that the audit log has a key's end.
    ///
    /// # Errors
    /// When the database fails.
    pub fn key_end_is_told(&self, id: KeyId) -> Result<(), StoreError> {
        self.set("UPDATE api_keys SET end_is_told = ?2 WHERE id = ?1", id, 1)
    }

    /// Every key, oldest first, those that have ended included.
    ///
    /// # Errors
    /// When the database fails, or a row has a value that this program does not know: it never guesses what a key may do.
    pub fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT * FROM api_keys ORDER BY number")
            .map_err(failed_to("read keys"))?;
        let mut found = statement.query([]).map_err(failed_to("read keys"))?;
        let mut keys = Vec::new();
        while let Some(row) = found.next().map_err(failed_to("read keys"))? {
            keys.push(key(row)?);
        }
        Ok(keys)
    }

    fn set(&self, sql: &str, id: KeyId, value: u64) -> Result<(), StoreError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(sql)
            .map_err(failed_to("change a key"))?;
        statement
            .execute(params![id.as_str(), number("at_ms", value)?])
            .map_err(failed_to("change a key"))?;
        Ok(())
    }
}

fn insert(connection: &Connection, key: &KeyRecord) -> Result<(), StoreError> {
    let mut statement = connection
        .prepare_cached(INSERT)
        .map_err(failed_to("add a key"))?;
    statement
        .execute(named_params! {
            ":id": key.id.as_str(),
            ":identity": key.identity.as_str(),
            ":name": key.name,
            ":secret_hash": key.secret_hash,
            ":scopes": key.scopes.to_string(),
            ":roots": joined(&key.roots),
            ":max_sessions": key.max_sessions,
            ":calls_per_minute": key.calls_per_minute,
            ":created_at_ms": number("created_at_ms", key.created_at_ms)?,
            ":expires_at_ms": optional_number("expires_at_ms", key.expires_at_ms)?,
            ":revoked_at_ms": optional_number("revoked_at_ms", key.revoked_at_ms)?,
            ":last_used_at_ms": optional_number("last_used_at_ms", key.last_used_at_ms)?,
            ":replaced_by": key.replaced_by.as_ref().map(KeyId::as_str),
            ":end_is_told": key.end_is_told,
        })
        .map_err(failed_to("add a key"))?;
    Ok(())
}

fn key(row: &Row<'_>) -> Result<KeyRecord, StoreError> {
    let hash: Vec<u8> = rows::get(row, "secret_hash")?;
    let replaced_by: Option<String> = rows::get(row, "replaced_by")?;
    Ok(KeyRecord {
        id: rows::parse(row, "id")?,
        identity: rows::parse(row, "identity")?,
        name: rows::get(row, "name")?,
        secret_hash: hash.try_into().map_err(|_| StoreError::OutOfRange {
            column: "secret_hash",
        })?,
        scopes: rows::parse(row, "scopes")?,
        roots: parted(&rows::get::<Vec<u8>>(row, "roots")?),
        max_sessions: rows::get(row, "max_sessions")?,
        calls_per_minute: rows::get(row, "calls_per_minute")?,
        created_at_ms: rows::unsigned(row, "created_at_ms")?,
        expires_at_ms: rows::optional_unsigned(row, "expires_at_ms")?,
        revoked_at_ms: rows::optional_unsigned(row, "revoked_at_ms")?,
        last_used_at_ms: rows::optional_unsigned(row, "last_used_at_ms")?,
        replaced_by: replaced_by
            .map(|text| {
                text.parse()
                    .map_err(|_| StoreError::unknown("replaced_by", &text))
            })
            .transpose()?,
        end_is_told: rows::get(row, "end_is_told")?,
    })
}

/// Paths in one column. No path has a NUL in it.
fn joined(paths: &[PathBuf]) -> Vec<u8> {
    let paths: Vec<&[u8]> = paths
        .iter()
        .map(|path| path.as_os_str().as_bytes())
        .collect();
    paths.join(&0)
}

fn parted(bytes: &[u8]) -> Vec<PathBuf> {
    let parts = bytes
        .split(|byte| *byte == 0)
        .filter(|part| !part.is_empty());
    parts
        .map(|part| PathBuf::from(OsString::from_vec(part.to_vec())))
        .collect()
}

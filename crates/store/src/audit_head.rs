//! Where the end of the audit log is noted beside the log itself.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::{Store, StoreError, error::failed_to};

const KEY: &str = "audit_head";
/// How long a reader waits for a writer.
const READ_PATIENCE: Duration = Duration::from_secs(2);

impl Store {
    /// As [`Store::audit_head`], of the database file `path`, which is only read: a server may have it open. `None` also
    /// where there is none.
    ///
    /// # Errors
    /// See [`Store::audit_head`].
    pub fn read_audit_head(path: &Path, log: &Path) -> Result<Option<(u64, [u8; 32])>, StoreError> {
        if !path.exists() {
            return Ok(None);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed_to("open"))?;
        connection
            .busy_timeout(READ_PATIENCE)
            .map_err(failed_to("set its waiting time"))?;
        read(&connection, log)
    }

    /// The number and the hash of the last record of the audit log `log` that was noted; `None` if none of this log was.
    ///
    /// # Errors
    /// When the database cannot be read, or holds something else there.
    pub fn audit_head(&self, log: &Path) -> Result<Option<(u64, [u8; 32])>, StoreError> {
        read(&self.connection(), log)
    }

    /// Notes the last record of the audit log `log`.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn set_audit_head(&self, log: &Path, seq: u64, hash: &[u8; 32]) -> Result<(), StoreError> {
        let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("{seq} {digits} {}", log.to_string_lossy());
        let query = "INSERT INTO meta (key, value) VALUES (?1, ?2)
            ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.connection()
            .prepare_cached(query)
            .and_then(|mut statement| statement.execute([KEY, &text]))
            .map_err(failed_to("note the end of the audit log"))?;
        Ok(())
    }
}

fn read(connection: &Connection, log: &Path) -> Result<Option<(u64, [u8; 32])>, StoreError> {
    let text: Option<String> = connection
        .query_row("SELECT value FROM meta WHERE key = ?1", [KEY], |row| {
            row.get(0)
        })
        .optional()
        .map_err(failed_to("read the end of the audit log"))?;
    let Some(text) = text else { return Ok(None) };
    let (seq, hash, path) = parse(&text).ok_or_else(|| StoreError::unknown(KEY, &text))?;
    Ok((path == log.to_string_lossy()).then_some((seq, hash)))
}

fn parse(text: &str) -> Option<(u64, [u8; 32], &str)> {
    let (seq, rest) = text.split_once(' ')?;
    let (digits, path) = rest.split_once(' ')?;
    let mut hash = [0; 32];
    if digits.len() != 2 * hash.len() || !digits.is_ascii() {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some((seq.parse().ok()?, hash, path))
}

//! Opening the file: who may read it, whether it is ours, whether it is whole, and what happens when it is not.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use model::OwnerId;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::{
    StoreError,
    error::failed_to,
    schema::{self, Found},
};

/// How long a statement waits for another process's lock. Only a backup or a person with `sqlite3` holds one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Prepared statements that are kept: about twice as many as there are in this crate.
const CACHED_STATEMENTS: usize = 64;
/// The write-ahead file is cut to this size after a checkpoint, bytes.
const JOURNAL_SIZE_LIMIT_BYTES: u32 = 4 << 20;
/// Owner only: paths and names of people's projects are in it.
const FILE_MODE: u32 = 0o600;
/// Longest finding of a check that is passed on, characters.
const MAX_FINDING_CHARS: usize = 200;

/// How the store was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// There was none; it was made.
    pub created: bool,
    /// The file was damaged, stands here now, and an empty one took its place: rebuild from the backends.
    pub quarantined: Option<PathBuf>,
}

/// Opens `path`, or makes it; puts a damaged one aside.
pub(crate) fn open(path: &Path) -> Result<(Connection, OwnerId, OpenReport), StoreError> {
    let path = &resolve(path)?;
    let mut report = OpenReport {
        created: make_private(path)?,
        quarantined: None,
    };
    let mut connection = match open_checked(path) {
        Err(error) if error.is_damage() => {
            tracing::error!(error = %error, "the state database is damaged and is put aside");
            report.quarantined = Some(quarantine(path)?);
            make_private(path)?;
            open_checked(path)?
        }
        other => other?,
    };
    let owner = settle_owner(&mut connection, path)?;
    Ok((connection, owner, report))
}

/// The directory may be reached through links (a linked home); the file itself may not be one.
fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "no file name");
    let name = path
        .file_name()
        .ok_or_else(invalid)
        .map_err(in_file("open", path))?;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    Ok(parent
        .canonicalize()
        .map_err(in_file("open the directory of", path))?
        .join(name))
}

/// Makes the file before SQLite does, so that it (and the files that SQLite puts beside it, which copy its mode) is
/// never readable by others. Returns whether it is new.
fn make_private(path: &Path) -> Result<bool, StoreError> {
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)
    {
        Ok(file) => {
            file.sync_all().map_err(in_file("create", path))?;
            sync_directory(path)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::symlink_metadata(path).map_err(in_file("look at", path))?;
            if !metadata.is_file() {
                return Err(StoreError::Foreign {
                    path: path.to_owned(),
                });
            }
            if metadata.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(path, Permissions::from_mode(FILE_MODE))
                    .map_err(in_file("protect", path))?;
            }
            Ok(false)
        }
        Err(error) => Err(in_file("create", path)(error)),
    }
}

fn open_checked(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed_to("open"))?;
    connection
        .busy_timeout(BUSY_TIMEOUT)
        .map_err(failed_to("set its waiting time"))?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    let found = schema::recognize(&connection)?;
    match found {
        Found::Foreign => {
            return Err(StoreError::Foreign {
                path: path.to_owned(),
            });
        }
        Found::Damaged => {
            return Err(StoreError::Damaged {
                found: "tables are missing".to_owned(),
            });
        }
        Found::Ours => check_pages(&connection)?,
        Found::Empty => {}
    }
    configure(&connection)?;
    schema::migrate(&mut connection)?;
    Ok(connection)
}

fn check_pages(connection: &Connection) -> Result<(), StoreError> {
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(failed_to("check itself"))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(StoreError::Damaged {
        found: verdict.chars().take(MAX_FINDING_CHARS).collect(),
    })
}

/// `NORMAL`: a commit survives whatever happens to this process; a power cut may take the last ones, and takes every
/// sandbox with it, so that no row is lost of anything that still exists. What was done is on the audit log, durably. `trusted_schema` off: a prepared file cannot make us
/// call functions.
fn configure(connection: &Connection) -> Result<(), StoreError> {
    let mode: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(failed_to("set its journal"))?;
    if mode != "wal" {
        tracing::warn!(%mode, "the state database has no write-ahead journal on this file system");
    }
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; \
             PRAGMA cell_size_check = ON; PRAGMA journal_size_limit = {JOURNAL_SIZE_LIMIT_BYTES};"
        ))
        .map_err(failed_to("configure itself"))
}

/// Renames the damaged file and what SQLite keeps beside it: a stale write-ahead file must not reach the new one.
fn quarantine(path: &Path) -> Result<PathBuf, StoreError> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    let aside = beside(path, &format!(".corrupt-{now}"));
    for suffix in ["-wal", "-shm"] {
        match fs::rename(beside(path, suffix), beside(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(in_file("put aside", path)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    fs::rename(path, &aside).map_err(in_file("put aside", path))?;
    sync_directory(path)?;
    Ok(aside)
}

/// The owner's id names every object of this installation, so it must outlive a damaged database: a copy stands beside
/// it in `state.db.owner`.
fn settle_owner(connection: &mut Connection, path: &Path) -> Result<OwnerId, StoreError> {
    let copy_path = beside(path, ".owner");
    let copy = fs::read_to_string(&copy_path)
        .ok()
        .and_then(|text| text.trim().parse::<OwnerId>().ok());
    let stored = connection
        .query_row("SELECT value FROM meta WHERE key = 'owner'", [], |row| {
            row.get::<_, String>(0)
        })
        .optional()
        .map_err(failed_to("read its owner"))?;
    let owner = match (stored, copy) {
        (Some(text), _) => text
            .parse()
            .map_err(|_| StoreError::unknown("owner", &text))?,
        (None, Some(copy)) => copy,
        (None, None) => OwnerId::random().map_err(StoreError::Random)?,
    };
    connection
        .execute(
            "INSERT OR IGNORE INTO meta (key, value) VALUES ('owner', ?1)",
            [owner.to_string()],
        )
        .map_err(failed_to("keep its owner"))?;
    if copy != Some(owner) {
        write_whole(&copy_path, format!("{owner}\n").as_bytes())?;
    }
    Ok(owner)
}

pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    use io::Write;
    let fresh = beside(path, ".new");
    let _ = fs::remove_file(&fresh);
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(in_file("write", path))?;
    sync_directory(path)
}

fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(in_file("sync the directory of", path))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(crate) fn in_file(step: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::File {
        step,
        path: path.to_owned(),
        source,
    }
}

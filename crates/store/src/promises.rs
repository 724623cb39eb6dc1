//! What live sessions hold of the server's places and are promised of its machine.

use std::os::unix::ffi::OsStrExt;

use model::SessionId;
use rusqlite::{Connection, params};

use crate::{
    Bounds, Promise, Resource, SessionRecord, Shortage, StoreError, Whose,
    error::failed_to,
    rows::{get, parse, promise, unsigned},
    sessions::live_states,
};

/// All live sessions together.
struct Held {
    sessions: u32,
    of_caller: u32,
    of_project: u32,
    promised: Promise,
}

/// What is in the way of one more session; nothing where it fits.
pub(crate) fn shortage(
    connection: &Connection,
    record: &SessionRecord,
    bounds: &Bounds,
) -> Result<Option<Shortage>, StoreError> {
    let held = held(connection, record)?;
    let counts = [
        (Whose::Server, held.sessions, Some(bounds.sessions)),
        (Whose::Caller, held.of_caller, bounds.sessions_of_caller),
        (Whose::Project, held.of_project, bounds.sessions_of_project),
    ];
    for (of, live, limit) in counts {
        if let Some(limit) = limit
            && live >= limit
        {
            return Ok(Some(Shortage::Sessions { of, live, limit }));
        }
    }
    let capacities = [
        (Resource::Memory, bounds.memory_bytes),
        (Resource::Cpu, bounds.cpu_millis),
        (Resource::Disk, bounds.disk_bytes),
    ];
    for (of, capacity) in capacities {
        let (asked, promised) = (of.part(&record.promise), of.part(&held.promised));
        if let Some(capacity) = capacity
            && promised.saturating_add(asked) > capacity
        {
            let own = own(connection, &record.principal, of)?;
            return Ok(Some(Shortage::Resource {
                of,
                asked,
                promised,
                capacity,
                own,
            }));
        }
    }
    Ok(None)
}

impl Resource {
    const fn part(self, promise: &Promise) -> u64 {
        match self {
            Resource::Memory => promise.memory_bytes,
            Resource::Cpu => promise.cpu_millis,
            Resource::Disk => promise.disk_bytes,
        }
    }

    const fn column(self) -> &'static str {
        match self {
            Resource::Memory => "memory_bytes",
            Resource::Cpu => "cpu_millis",
            Resource::Disk => "disk_bytes",
        }
    }
}

fn held(connection: &Connection, record: &SessionRecord) -> Result<Held, StoreError> {
    let sql = format!(
        "SELECT COUNT(*) AS sessions, COUNT(*) FILTER (WHERE principal = ?1) AS of_caller, \
         COUNT(*) FILTER (WHERE project_path = ?2) AS of_project, COALESCE(SUM(memory_bytes), 0) AS memory_bytes, \
         COALESCE(SUM(cpu_millis), 0) AS cpu_millis, COALESCE(SUM(disk_bytes), 0) AS disk_bytes \
         FROM sessions WHERE state IN ({})",
        live_states()
    );
    let mut statement = connection
        .prepare_cached(&sql)
        .map_err(failed_to("count sessions"))?;
    let project = record.project_path.as_os_str().as_bytes();
    let mut rows = statement
        .query(params![record.principal, project])
        .map_err(failed_to("count sessions"))?;
    let row = rows
        .next()
        .map_err(failed_to("count sessions"))?
        .ok_or(StoreError::OutOfRange { column: "sessions" })?;
    Ok(Held {
        sessions: get(row, "sessions")?,
        of_caller: get(row, "of_caller")?,
        of_project: get(row, "of_project")?,
        promised: promise(row)?,
    })
}

fn own(
    connection: &Connection,
    principal: &str,
    of: Resource,
) -> Result<Vec<(SessionId, u64)>, StoreError> {
    let column = of.column();
    let sql = format!(
        "SELECT id, {column} FROM sessions WHERE principal = ?1 AND state IN ({}) ORDER BY {column} DESC, number",
        live_states()
    );
    let mut statement = connection
        .prepare_cached(&sql)
        .map_err(failed_to("list promises"))?;
    let mut found = statement
        .query([principal])
        .map_err(failed_to("list promises"))?;
    let mut own = Vec::new();
    while let Some(row) = found.next().map_err(failed_to("list promises"))? {
        own.push((parse(row, "id")?, unsigned(row, column)?));
    }
    Ok(own)
}

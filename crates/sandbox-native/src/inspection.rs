//! What is in force in a running sandbox, read from outside: `/proc/<pid>` and the control groups, never what was asked.

use std::io;

use model::{LimitInForce, LimitName};
use sandbox::{Inspection, LimitCapability};
use sandbox_host::Outside;

use crate::{probe::enforcement, record::Record};

/// Reads it.
///
/// # Errors
/// When the process is gone, or the kernel does not let us look.
pub(crate) fn inspect(record: &Record, pid: i32, rung: String) -> io::Result<Inspection> {
    let outside = Outside::read(pid)?;
    let limits = LimitName::ALL
        .iter()
        .filter_map(|limit| read_back(record, *limit, &outside))
        .collect();
    Ok(Inspection {
        running: true,
        rung,
        layers: outside.layers,
        limits,
    })
}

fn read_back(record: &Record, limit: LimitName, outside: &Outside) -> Option<LimitInForce> {
    let LimitCapability {
        enforcement,
        mechanism,
        ..
    } = enforcement(limit, &record.hierarchy);
    let in_force = if record.hierarchy.holds(limit).is_some() {
        record.hierarchy.read_back(&record.object_name, limit)
    } else {
        match limit {
            LimitName::Pids => outside.resource("Max processes"),
            LimitName::CpuMillis => return None,
            LimitName::MemoryBytes => Some(outside.read_back(limit)?),
            LimitName::OpenFiles
            | LimitName::FileBytes
            | LimitName::TemporaryBytes
            | LimitName::StateBytes => outside.read_back(limit),
        }
    };
    Some(LimitInForce {
        limit,
        asked: record.limits.get(limit).value,
        in_force,
        enforcement,
        mechanism,
    })
}

//! What must outlive the server: sessions, executions and their events, what was used of providers, in one SQLite file.
//!
//! Reading order: the rows ([`SessionRecord`], [`ExecutionRecord`]), the store ([`Store`]) and how it opens
//! ([`OpenReport`]). Everything here blocks: callers use `spawn_blocking`.

#![forbid(unsafe_code)]

mod audit_head;
mod error;
mod executions;
mod open;
mod records;
mod rows;
mod schema;
mod sessions;
mod store;
mod usage;

pub use error::StoreError;
pub use executions::{MAX_EVENT_BYTES, MAX_EVENTS_PER_SESSION, MAX_EXECUTIONS_PER_SESSION};
pub use open::OpenReport;
pub use records::{
    EventRecord, ExecutionChange, ExecutionRecord, Filter, Reserved, SessionChange, SessionRecord,
};
pub use store::Store;
pub use usage::{DayRecord, USAGE_DAYS_KEPT, UsageRecord};

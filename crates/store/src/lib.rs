//! What must outlive the server: sessions, executions and their events, what was used of providers, API keys, in one SQLite file.
//!
//! Reading order: the rows ([`SessionRecord`], [`ExecutionRecord`]), the store ([`Store`]) and how it opens
//! ([`OpenReport`]). Everything here blocks: callers use `spawn_blocking`.

#![forbid(unsafe_code)]

mod audit_head;
mod error;
mod executions;
mod keys;
mod open;
mod pepper;
mod promises;
mod records;
mod rows;
mod schema;
mod sessions;
mod store;
mod usage;

pub use error::StoreError;
pub use executions::{MAX_EVENT_BYTES, MAX_EVENTS_PER_SESSION, MAX_EXECUTIONS_PER_SESSION};
pub use keys::KeyRecord;
pub use open::OpenReport;
pub use pepper::{PEPPER_BYTES, Pepper};
pub use records::{
    Bounds, EventRecord, ExecutionChange, ExecutionRecord, Filter, Promise, Reserved, Resource,
    SessionChange, SessionRecord, Shortage, Whose,
};
pub use store::Store;
pub use usage::{DayRecord, USAGE_DAYS_KEPT, UsageRecord};

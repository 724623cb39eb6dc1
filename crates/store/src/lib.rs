//! What must outlive the server: sessions, executions and their events, in one SQLite file.
//!
//! Reading order: the rows ([`SessionRecord`], [`ExecutionRecord`]), the store ([`Store`]) and how it opens
//! ([`OpenReport`]). Everything here blocks: callers use `spawn_blocking`.

#![forbid(unsafe_code)]

mod error;
mod records;
mod store;

pub use error::StoreError;
pub use records::{
    EventRecord, ExecutionChange, ExecutionRecord, Filter, Reserved, SessionChange, SessionRecord,
};
pub use store::{OpenReport, Store};

//! The write-ahead, hash-chained, fail-closed audit log: one JSON record per line, durable before anything changes.
//!
//! Reading order: what is recorded ([`Intent`], [`Parameter`], [`Event`], [`Closing`]), the log ([`AuditLog`],
//! [`Entry`]), one line of it ([`Record`]), how it is checked ([`verify`]), and how it goes to others ([`export`], [`sinks`]).
//!
//! What this does not stop: somebody who may write the file can recompute the whole chain, as it has no key yet, and
//! nothing on the same disk survives its owner's wish to delete it. What it does stop: any change of a record, a line
//! or the tail that is not a complete forgery of log and head file.

#![forbid(unsafe_code)]

mod entry;
mod error;
pub mod export;
mod files;
mod head;
mod intent;
mod ledger;
mod lines;
mod log;
mod log_files;
mod read;
mod record;
mod recovery;
mod reserve;
pub mod sinks;
mod tag;
mod text;
mod verify;
mod writer;

pub use entry::Entry;
pub use error::AuditError;
pub use intent::{Closing, Durability, Event, Intent, Parameter};
pub use log::{AuditConfig, AuditLog};
pub use log_files::log_files;
pub use read::{ReadError, Records, read};
pub use record::{Actor, Body, Client, MAX_PARAMETERS, MAX_RECORD_BYTES, Phase, Record};
pub use tag::identity_hash;
pub use text::{MAX_PATH_BYTES, MAX_WORD_BYTES};
pub use verify::{Fault, FaultKind, OpenIntent, VerifyError, VerifyReport, Warning, verify};

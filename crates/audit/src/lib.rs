//! The write-ahead, hash-chained, fail-closed audit log: one JSON record per line, durable before anything changes.
//!
//! Reading order: what is recorded ([`Intent`], [`Parameter`], [`Event`], [`Closing`]), the log ([`AuditLog`],
//! [`Entry`]), one line of it ([`Record`]), how it is checked ([`verify`]), and how it goes to others ([`export`], [`sinks`]).
//!
//! What this does not stop: nothing on a machine survives its owner's wish to delete it, and who has taken the machine can
//! forge what is recorded from then on. What it does stop: any change of a record, a line or the tail that is not a
//! complete forgery; and, for who keeps the verification key elsewhere, a forgery of anything older than the last
//! checkpoint.

#![forbid(unsafe_code)]

mod anchor;
mod entry;
mod error;
pub mod export;
mod files;
mod follow;
mod head;
mod identity;
mod intent;
mod key_files;
mod keys;
mod ledger;
mod lines;
mod log;
mod ratchet;
mod read;
mod record;
mod recovery;
mod reserve;
mod rotation;
mod segments;
mod sign;
pub mod sinks;
mod spelling;
mod start;
mod text;
mod verify;
mod writer;

pub use anchor::{Anchor, AnchorError, Anchored};
pub use entry::Entry;
pub use error::AuditError;
pub use follow::{Cursor, Followed, Follower};
pub use head::durable_seq;
pub use identity::{IdentityKey, identity_hash};
pub use intent::{Closing, Durability, Event, Intent, Parameter, Target};
pub use key_files::{KeyFiles, remove_verification_key, verification_key};
pub use log::{AuditConfig, AuditLog};
pub use ratchet::VerificationKey;
pub use read::{ReadError, Records, read};
pub use record::{
    Actor, Body, Client, MAX_PARAMETERS, MAX_RECORD_BYTES, Object, Origin, Phase, Record,
};
pub use rotation::Rotation;
pub use segments::log_files;
pub use sign::PublicKey;
pub use text::{MAX_PATH_BYTES, MAX_WORD_BYTES};
pub use verify::{
    Fault, FaultKind, OpenIntent, Verification, VerifyError, VerifyReport, Warning, verify,
};

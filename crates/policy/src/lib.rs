//! Who may do what: pure decisions, no IO, and the only place that can make a permit.
//!
//! Reading order: what the operator configured ([`PolicyConfig`]), what was looked up before the decision
//! ([`CreateFacts`]), the decisions ([`Policy`]), what they hand out ([`CreatePermit`] and its siblings). The security
//! data stands in `profiles/*.json`, a reason for each entry, and is built into the program.
//!
//! Work without a decision does not compile. A permit can be spent,
//!
//! ```
//! fn spend(permit: policy::SessionPermit, listing: policy::ListingPermit) -> Option<String> {
//!     let (_session, _verb) = permit.into_parts();
//!     listing.into_parts()
//! }
//! ```
//!
//! but not made outside this crate,
//!
//! ```compile_fail,E0451
//! let forged = policy::ListingPermit { owner: None };
//! ```
//!
//! not copied, and not spent twice:
//!
//! ```compile_fail,E0599
//! fn twice(permit: policy::SessionPermit) -> [policy::SessionPermit; 2] {
//!     [permit.clone(), permit]
//! }
//! ```
//!
//! ```compile_fail,E0382
//! fn twice(permit: policy::SessionPermit) {
//!     let _ = permit.into_parts();
//!     let _ = permit.into_parts();
//! }
//! ```
//!
//! What this does not stop: a path that changes between decision and use. Permits carry the device and inode that were
//! looked at, and whoever opens the path again compares them.

#![forbid(unsafe_code)]

mod admission;
mod callers;
mod command;
mod config;
mod create;
mod docker_options;
mod environment;
mod facts;
mod folding;
mod forbidden;
mod hardening;
mod keys;
mod lexical;
mod limits;
mod managed_settings;
mod mounts;
mod network;
mod permit;
mod prompt;
mod protected;
mod rate;
mod roles;
mod roots;
mod transfer;

#[cfg(test)]
mod tests;

pub use admission::{ExecutionVerb, Policy, SessionBounds, SessionTimes, SessionVerb, SystemVerb};
pub use callers::{CallClass, CallerLimits, Overcommit, PlaceBounds, RateLimits};
pub use command::{
    MAX_ARGUMENT_BYTES, MAX_ARGUMENTS, MAX_COMMAND_BYTES, MAX_STDIN_BYTES, MAX_WAIT,
};
pub use config::{MAX_QUEUE_WAIT, PolicyConfig, PolicyError};
pub use create::{MAX_IDEMPOTENCY_KEY_BYTES, MAX_NAME_CHARACTERS};
pub use environment::{MAX_ENVIRONMENT_BYTES, MAX_ENVIRONMENT_VARIABLES};
pub use facts::{CreateFacts, EntryKind, MachineFacts, PathFacts};
pub use forbidden::{OfferedPaths, why_host_path_is_forbidden};
pub use keys::{KeyListPermit, KeyPermit, KeyVerb, MAX_KEY_OVERLAP, MAX_KEY_ROOTS, NewKeyPermit};
pub use limits::key as limit_key;
pub use mounts::MAX_MOUNTS;
pub use network::{MAX_NETWORK_RULES, NetworkConfig, OfferedCredential, Standing};
pub use permit::{
    CommandParts, CommandPermit, CreateParts, CreatePermit, ExecutionPermit, ExtendPermit, Hears,
    ListingPermit, NetworkAnswerPermit, PromptPermit, SessionPermit, SystemPermit, TransferParts,
    TransferPermit, WidenPermit,
};
pub use prompt::{AgentParts, MAX_PROMPT_BYTES, PromptParts};
pub use protected::{ProtectedPaths, Rule, RuleKind, WhenMissing};
pub use rate::{Bucket, Buckets, Fill, Moment, Rate, TooEarly};
pub use transfer::{
    FileParts, FilePermit, MAX_INLINE_FILE_BYTES, MAX_TRANSFER_BYTES, MAX_TRANSFER_ENTRIES,
};

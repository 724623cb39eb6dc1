//! The embedded runtime: sandboxes from the kernel's own parts, without a daemon and without an image.
//!
//! Reading order: [`Native`] (the verbs), `creation` (what the server does for one sandbox), `helpers` (the server's side
//! of the next), `helper` (the re-executed,
//! single-threaded process that makes the namespaces), `inside` (what the new process does to itself before it becomes
//! the supervisor), `enter` (the only unsafe code), then cgroups, ownership, records, the seccomp profile, the probe.
//!
//! What this does not stop: a fault of the kernel itself. All sandboxes share it.

#![deny(unsafe_code)]

mod busy;
mod cgroup;
mod channel;
mod config;
mod creation;
mod enter;
mod helper;
mod helpers;
mod idmap;
mod inside;
mod inspection;
mod native;
mod plan;
mod probe;
mod record;
mod removal;
mod root_file_system;
mod seccomp;
mod sources;

pub use config::{CgroupChoice, NativeConfig};
pub use helper::{become_subreaper, helper_main};
pub use native::Native;

/// The first argument that tells the application's `main` to call [`helper_main`].
pub const HELPER_ARGUMENT: &str = "__sandbox-helper";

//! This machine, as the backends that build sandboxes on it need it: mounts of the host's directories that map owners and
//! keep protected paths, placeholders in the project, the socket of a sandbox, and what the kernel says of a process.
//!
//! Reading order: [`open_host_directory`], [`OwnerMaps`], [`protect`] and [`placeholder`] (what the agent may write, and as
//! whom), [`link`] (where its supervisor dials in), [`Outside`] and [`Groups`] (what is in force, read back), then
//! processes, deletion, the supervisor's program, the profile of system calls, and [`kernel`], which has the only unsafe code.

#![deny(unsafe_code)]

mod arguments;
mod deletion;
mod directories;
mod failure;
mod groups;
pub mod kernel;
mod layout;
pub mod link;
mod outside;
mod owners;
pub mod placeholder;
mod process;
mod profile;
mod program;
mod protect;
mod temporary;

pub use arguments::supervisor_arguments;
pub use deletion::delete;
pub use directories::{
    NO_DEVICES, NO_EXECUTION, NO_SUID, READ_ONLY, agent_directory, open_host_directory, open_same,
    open_verified, open_without_links, own_directory, own_file,
};
pub use failure::{At, Failure, FailureKind};
pub use groups::{Groups, host_has_swap, mount_points};
pub use layout::{Layout, Outlives, private_directory, read_record, write_record};
pub use outside::Outside;
pub use owners::{OwnerMaps, Owners, RANGE_IDS, write_map};
pub use process::{ProcessRecord, boot_id, ended, kill, living, reap, start_ticks};
pub use profile::{Allow, AllowIf, DefaultAnswers, Deny, SeccompArgument, SeccompProfile};
pub use program::{sealed_supervisor, supervisor_binary};
pub use protect::{cover, open_beneath, protect, tree_of};
pub use temporary::{MIN_TEMPORARY_BYTES, Temporary};

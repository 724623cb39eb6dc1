//! Claude Code itself.
//!
//! Reading order: [`install`] (how its program gets onto this machine, checked, where all sandboxes share it).

#![forbid(unsafe_code)]

pub mod install;

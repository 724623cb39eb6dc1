//! Claude Code: how its program gets onto this machine, and how it is driven in a sandbox.
//!
//! Reading order: [`install`] (the program, checked, where all sandboxes share it); [`protocol`] (the words), `turn` (what a
//! prompt's events add up to, told by `words`), [`journal`] and `past` (what is kept of them and found again), [`transcript`] (the same for people), [`Program`]
//! and `process` (what runs inside), then [`Conversation`] and its `actor` (who drives it), with [`Turns`] (what is on record of a
//! prompt that had to wait) and `host_tools` (what Claude Code can ask of us).

#![forbid(unsafe_code)]

mod actor;
mod conversation;
mod host_tools;
pub mod install;
pub mod journal;
mod past;
mod process;
mod program;
pub mod protocol;
pub mod transcript;
mod turn;
mod turns;
mod words;

pub use conversation::{
    Conversation, Kept, MAX_WAITING_PROMPTS, Opened, Progress, Prompt, Refused, Setup,
};
pub use program::{Patience, Program};
pub use turns::{Beginning, Operation, Turns};

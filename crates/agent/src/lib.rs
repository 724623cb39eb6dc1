//! Claude Code: the program in the sandbox, and how it is driven.
//!
//! Reading order: [`protocol`] (the words), `turn` (what a prompt's events add up to), `journal` (what is kept of them), then
//! [`Conversation`] (who drives one).

#![forbid(unsafe_code)]

pub mod protocol;
mod turn;
mod words;

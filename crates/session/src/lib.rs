//! Sessions: their lifecycle, their executions, their leases, and how they are found again after a restart.
//!
//! Every verb takes a permit that only policy makes, and consumes it: work without a decision does not compile.
//! Reading order: [`Sessions`] (the verbs of sessions), [`Backends`] (the walls they are made with), `create` (the steps of a new one) with `place` and `queue` (how it gets its place),
//! `end` (how it ends), `execution` (one running
//! command) with `commands`, `watch`, `output` and `heard` round it, `keeper` (who renews the lease and sees the end),
//! `prompts` (Claude Code's work) with `turns` (what is on record of one that had to wait), `recover` (after a restart),
//! `settings` (what changes while the server runs), [`protected`] and [`transfer`] (what a session does to the project on the host).

#![forbid(unsafe_code)]

mod backends;
mod commands;
mod create;
mod end;
mod environment;
mod execution;
mod files;
mod heard;
mod inline_files;
mod keeper;
mod live;
mod logs;
mod network;
mod output;
mod place;
mod prompts;
pub mod protected;
mod providers;
mod queue;
mod recover;
mod refusals;
mod sessions;
mod settings;
mod transcripts;
pub mod transfer;
mod turns;
mod usage;
mod view;
mod watch;

pub use agent::{Beginning, Operation, Turns};
pub use backends::Backends;
pub use network::{Credentials, Network, Offered};
pub use providers::{Egress, NoEgress, ProviderName, Providers, Traffic, TrafficLog};
pub use recover::{Remains, Survey};
pub use sessions::{AgentLookup, AgentProgram, ReapRequest, Sessions, Setup};
pub use settings::Settings;
pub use turns::TurnLog;
pub use usage::{UsageBook, UsageBookError};

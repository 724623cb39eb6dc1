//! The front door: the program `claude-code-mcp`. Alone reads the environment and configuration files, alone names
//! concrete backends.
//!
//! ```text
//! claude-code-mcp            front ──┐ handshake, then bytes
//! claude-code-mcp session …  cli   ──┴─► unix socket ─► server ─► mcp or stream door ─► the one road (House)
//! claude-code-mcp serve      server, elected by flock, started on demand by the two above
//! ```

#![forbid(unsafe_code)]

mod agent_program;
mod audit_anchor;
pub mod audit_sinks;
mod backends;
pub mod cli;
pub mod config;
pub mod front;
mod network;
mod provider;
mod reload;
pub mod server;
mod start_files;
pub mod stream;
pub mod wiring;

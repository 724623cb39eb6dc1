//! The fronts: what every client process does to reach the server. Blocking and small; no runtime, no MCP.
//!
//! Reading order: [`connect`] finds the server or has it started, `start` starts it, [`stdio`] then copies bytes.

mod connect;
mod offer;
mod start;
pub mod stdio;

pub use connect::{Connected, FrontError, connect, connect_existing};
pub use offer::offered_roots;
pub use start::{ProgramStarter, ReadyLine, StartError, Started, Starter};
pub use stdio::CopyError;

//! The MCP service: turns tool calls into [`model::Action`]s on the one road, and outcomes into replies.
//!
//! No other crate knows MCP. Reading order: `connection` ([`serve`]: one byte stream, both eras of the specification),
//! `http` ([`HttpService`]: the same by requests of HTTP, each with its caller),
//! `lines` (what a line says besides its arguments), `service` (what the server answers), `call` (one call, whatever happens on the way), `person` (how the person at the
//! client is asked), `tools` (one file per tool), `listing` (all of them as text),
//! `arguments` and `schema` (the published schema is the check that runs), [`reply`] and `shape` (what comes back, and
//! how much of it), `text` (output of untrusted programs made harmless).
//!
//! Absent by intent: this crate decides nothing. It has no policy, no state that outlives a connection, and no way to
//! a session but [`control::Road::handle`].

#![forbid(unsafe_code)]

mod arguments;
mod call;
mod connection;
mod flow;
mod http;
mod lines;
mod listing;
mod person;
mod progress;
pub mod reply;
mod schema;
mod service;
mod shape;
mod text;
mod tools;

pub use self::http::{HttpAnswer, HttpBody, HttpCaller, HttpService, MAX_HTTP_BODY_BYTES};
pub use connection::{McpError, Peer, serve};
pub use service::{INSTRUCTIONS, REMOTE_INSTRUCTIONS, SERVER_NAME, Service};
pub use tools::{required_scopes, tool_list};

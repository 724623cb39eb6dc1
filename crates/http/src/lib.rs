//! The HTTP door: one listener, over TCP or a unix socket, for MCP's Streamable HTTP.
//!
//! Reading order: [`Settings`] (where the door stands and who may come in, and which of that is refused before anything
//! listens), `listener` ([`Door`]: sockets, TLS, how many connections), `connection` (one of them), `request` (the order
//! of checks of one request), `names` (`Host` and `Origin`), `peer` (whose address it is), `bearer` (the token),
//! `body`, `answer` and `challenge` (what is said), `metadata` (RFC 9728), `oauth` (access tokens), `tls`.
//!
//! Absent by intent: there is nobody without a name here. Every request to `/mcp` presents a key or a token, on a
//! loopback address as anywhere, and the road decides about it. No token is passed on, kept or printed.

#![forbid(unsafe_code)]

mod answer;
mod bearer;
mod body;
mod challenge;
mod connection;
mod listener;
mod metadata;
mod names;
pub mod oauth;
mod peer;
mod places;
mod request;
mod settings;
mod stall;
mod tls;

pub use listener::{Door, DoorError};
pub use settings::{Limits, Listen, ListenError, OAuth, Settings, SettingsError, TlsFiles};

//! The stream protocol: one execution, its exact bytes both ways. `session exec` and `session shell` speak it with the
//! server, because text in MCP replies is cleaned for models and therefore not exact.
//!
//! ```text
//! client ─ request line (JSON) ─► server
//! client ◄─ started │ refused ─ server
//! client ─ input, end of input, resize, cancel ─► server      at most one input is under way: `accepted` frees the next
//! client ◄─ stdout, stderr, lost, accepted, ended ─ server    nothing follows `ended` or `refused`
//! ```
//! A frame is its kind (one byte), the length of its payload (four bytes, big-endian) and the payload, at most 64 KiB.

mod frame;
mod request;

pub use frame::{ClientFrame, Ending, FrameError, MAX_PAYLOAD_BYTES, ServerFrame, TerminalSize};
pub use request::{MAX_REQUEST_BYTES, StreamRequest};

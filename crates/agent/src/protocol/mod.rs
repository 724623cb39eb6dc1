//! The words of Claude Code's `stream-json` protocol: one JSON object a line, both ways. Pure; tolerates what it does not
//! know, since the program on the other side is newer tomorrow, and what is malformed, since it runs beside the agent.

mod event;
mod input;
mod lines;

pub use event::{
    ApiFailure, Ask, Block, Delta, Event, Lifecycle, MAX_ANSWER_BYTES, State, TooLong, ToolResult,
    TurnResult, parse,
};
pub use input::{
    answer_mcp, answer_permission, initialize, interrupt, refuse_request, user_message,
};
pub use lines::{Line, Lines, MAX_LINE_BYTES};

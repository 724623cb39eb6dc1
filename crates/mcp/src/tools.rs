//! The tools.

/// Every tool as `tools/list` shows it, in that order.
pub fn tool_list() -> Vec<rmcp::model::Tool> {
    Vec::new()
}

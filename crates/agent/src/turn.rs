//! What the events of one prompt add up to. Pure: the same events give the same view, live or read again after a restart.
//! Pieces of answers are not kept, so all that must be known then follows from whole ones.

use std::{collections::BTreeMap, path::Path};

use model::{
    ConversationId, MAX_CHANGED_FILES, PermissionDenial, PromptStop, PromptView, WORKSPACE_PATH,
};
use serde_json::Value;

use crate::{
    protocol::{ApiFailure, Block, Delta, Event, Lifecycle, State, TooLong, TurnResult},
    words,
};

/// Words of a running answer that are kept to show, bytes.
const MAX_HEARD_BYTES: usize = 4096;
/// Denials that a view lists.
const MAX_DENIALS: usize = 100;
/// Tools that are known to run at once.
const MAX_TOOLS: usize = 256;
/// Longest path that is listed, bytes: the kernel's PATH_MAX.
const MAX_PATH_BYTES: usize = 4096;
/// What is said instead of a structured answer that is too long.
const NO_STRUCTURED_OUTPUT: &str =
    "[The structured answer is longer than 1 MiB and is not passed on.]";

/// One prompt, from its message to the end of its turns.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    /// The `uuid` of its message.
    message: String,
    view: PromptView,
    phase: Phase,
    /// Tools that run: by use, what is said of them.
    tools: BTreeMap<String, String>,
    /// What the model says right now.
    heard: String,
    failure: Option<ApiFailure>,
    /// The answer that was counted last.
    counted: Option<String>,
    /// Claude Code took the message.
    received: bool,
    /// The message's own turn is over.
    answered: bool,
    over: bool,
    /// Cost of the conversation before it, dollars.
    cost_before: f64,
    total_cost: Option<f64>,
}

/// What is waited for; it says how long that may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The model's answer has not begun.
    Model,
    /// The model's answer comes.
    Streaming,
    /// Tools run.
    Tools,
}

impl Turn {
    pub(crate) fn new(conversation: ConversationId, message: String, cost_before: f64) -> Self {
        Turn {
            message,
            view: PromptView::new(conversation),
            phase: Phase::Model,
            tools: BTreeMap::new(),
            heard: String::new(),
            failure: None,
            counted: None,
            received: false,
            answered: false,
            over: false,
            cost_before,
            total_cost: None,
        }
    }

    pub(crate) const fn view(&self) -> &PromptView {
        &self.view
    }

    pub(crate) const fn view_mut(&mut self) -> &mut PromptView {
        &mut self.view
    }

    pub(crate) const fn phase(&self) -> Phase {
        self.phase
    }

    /// Claude Code has the message: it must not be sent again.
    pub(crate) const fn is_received(&self) -> bool {
        self.received
    }

    /// All that the prompt set going has ended.
    pub(crate) const fn is_over(&self) -> bool {
        self.over
    }

    /// Cost of the conversation by now, dollars.
    pub(crate) fn total_cost(&self) -> f64 {
        self.total_cost.unwrap_or(self.cost_before)
    }

    pub(crate) fn doing(&mut self, words: impl Into<String>) {
        self.view.doing = words.into();
    }

    /// Takes an event. False when it changed nothing that anybody sees.
    pub(crate) fn take(&mut self, event: &Event) -> bool {
        match event {
            Event::Lifecycle { message, state } if *message == self.message => {
                self.received = true;
                self.answered |= matches!(state, Lifecycle::Completed | Lifecycle::Cancelled);
                return false;
            }
            Event::State(State::Idle) => {
                self.over = self.answered;
                return self.over;
            }
            Event::Init { model, .. } => {
                self.received = true;
                if self.view.model.is_none() {
                    self.view.model.clone_from(model);
                }
                self.doing("waiting for the model");
            }
            Event::Delta(delta) => return self.delta(delta),
            Event::Assistant {
                answer,
                blocks,
                of_subagent,
                failure,
            } => {
                if !of_subagent && failure.is_none() {
                    self.count(answer.as_deref());
                }
                self.answer(blocks, *of_subagent, failure.as_ref());
            }
            Event::ToolResults(results) => {
                for result in results {
                    self.tools.remove(&result.id);
                }
                self.tell_tools();
            }
            Event::Retry {
                attempt,
                most,
                delay_ms,
                failure,
            } => {
                self.phase = Phase::Model;
                self.failure = Some(failure.clone());
                self.doing(words::retry(failure, *attempt, *most, *delay_ms));
            }
            Event::Result(result) => self.result(result),
            Event::Lifecycle { .. }
            | Event::State(State::Running | State::RequiresAction)
            | Event::Request { .. }
            | Event::Withdrawn { .. }
            | Event::Response { .. }
            | Event::Other
            | Event::Garbage => return false,
        }
        true
    }

    fn delta(&mut self, delta: &Delta) -> bool {
        match delta {
            Delta::Begins => {
                self.heard.clear();
                self.phase = Phase::Streaming;
                self.doing("thinking");
            }
            Delta::Text(words) => {
                self.phase = Phase::Streaming;
                self.heard.push_str(words);
                let excess = self.heard.len().saturating_sub(MAX_HEARD_BYTES);
                if excess > 0 {
                    let cut = self.heard.ceil_char_boundary(excess);
                    self.heard.drain(..cut);
                }
                self.doing(words::saying(&self.heard));
            }
            Delta::Goes => {
                self.phase = Phase::Streaming;
                return false;
            }
            Delta::Ends => self.tell_tools(),
        }
        true
    }

    /// An answer comes in parts, one for each block.
    fn count(&mut self, answer: Option<&str>) {
        if answer.is_some() && self.counted.as_deref() != answer {
            self.view.turns = self.view.turns.saturating_add(1);
            self.counted = answer.map(str::to_owned);
        }
    }

    fn answer(&mut self, blocks: &[Block], of_subagent: bool, failure: Option<&ApiFailure>) {
        if let Some(failure) = failure {
            self.failure = Some(failure.clone());
        }
        for block in blocks {
            match block {
                Block::Text(text) if !of_subagent => self.view.result = Some(text.clone()),
                Block::Text(_) | Block::Thinking => {}
                Block::ToolUse { id, name, input } => {
                    self.view.tool_uses = self.view.tool_uses.saturating_add(1);
                    self.phase = Phase::Tools;
                    if self.tools.len() < MAX_TOOLS {
                        self.tools.insert(id.clone(), words::tool(name, input));
                    }
                    self.changed(name, input);
                }
            }
        }
    }

    /// Files that Claude Code's own tools write, as they are named.
    fn changed(&mut self, tool: &str, input: &Value) {
        let field = match tool {
            "Write" | "Edit" | "MultiEdit" => "file_path",
            "NotebookEdit" => "notebook_path",
            _ => return,
        };
        let path = input.get(field).and_then(Value::as_str);
        let Some(path) = path.filter(|path| path.len() <= MAX_PATH_BYTES) else {
            return;
        };
        let path = Path::new(path);
        let relative = path.strip_prefix(WORKSPACE_PATH).unwrap_or(path);
        let files = &mut self.view.changed_files;
        if files.len() < MAX_CHANGED_FILES && !files.iter().any(|known| known == relative) {
            files.push(relative.to_owned());
        }
    }

    fn tell_tools(&mut self) {
        if let Some(words) = self.tools.values().next() {
            self.phase = Phase::Tools;
            self.view.doing = match self.tools.len() {
                1 => words.clone(),
                several => format!("{words}, and {} more", several - 1),
            };
        } else {
            self.phase = Phase::Model;
            self.doing("waiting for the model");
        }
    }

    fn result(&mut self, result: &TurnResult) {
        self.tools.clear();
        self.phase = Phase::Model;
        let view = &mut self.view;
        if result.text.is_some() {
            view.result.clone_from(&result.text);
        }
        match &result.structured_output {
            Some(Ok(json)) => view.structured_output = Some(json.clone()),
            Some(Err(TooLong)) => view.result = Some(NO_STRUCTURED_OUTPUT.to_owned()),
            None => {}
        }
        let (sum, more) = (&mut view.usage, &result.usage);
        sum.input = sum.input.saturating_add(more.input);
        sum.output = sum.output.saturating_add(more.output);
        sum.cache_read = sum.cache_read.saturating_add(more.cache_read);
        sum.cache_write = sum.cache_write.saturating_add(more.cache_write);
        if let Some(total) = result.total_cost_usd.filter(|total| total.is_finite()) {
            self.total_cost = Some(total);
            let cost = (total - self.cost_before).max(0.0);
            view.cost_micro_usd = Some((cost * 1e6).round() as u64);
        }
        let room = MAX_DENIALS.saturating_sub(view.denials.len());
        let denials = result.denials.iter().take(room);
        view.denials
            .extend(denials.map(|(tool, input)| PermissionDenial {
                tool: words::short(tool),
                summary: words::tool(tool, input),
            }));
        view.stop = Some(stop_of(result, self.failure.as_ref()));
        view.doing = match &view.stop {
            Some(PromptStop::Completed) | None => "done".to_owned(),
            Some(other) => format!("ended: {}", other.as_str()),
        };
    }
}

/// `subtype` is `success` for failures of the provider, too.
fn stop_of(result: &TurnResult, failure: Option<&ApiFailure>) -> PromptStop {
    let terminal = result.terminal_reason.as_deref().unwrap_or_default();
    match result.subtype.as_str() {
        "error_max_turns" => PromptStop::TurnLimit,
        "error_max_budget_usd" => PromptStop::BudgetLimit,
        _ if terminal.starts_with("aborted") => PromptStop::Interrupted,
        _ if !result.is_error => PromptStop::Completed,
        // Told as a failure of the provider, and none.
        _ if result.stop_reason.as_deref() == Some("refusal") => PromptStop::Refused,
        _ => {
            let kind = failure
                .map(|failure| failure.kind.clone())
                .unwrap_or_default();
            let status = result
                .api_status
                .or(failure.and_then(|failure| failure.status));
            match kind.is_empty() && status.is_none() {
                true => PromptStop::Refused,
                false => PromptStop::Provider { kind, status },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::parse;

    fn played(lines: &[&str]) -> Turn {
        let conversation = "6f1f9a52-5e8d-4c37-9b0e-0a4cf2b7d911".parse().unwrap();
        let mut turn = Turn::new(conversation, "u1".to_owned(), 1.0);
        for line in lines {
            turn.take(&parse(line.as_bytes()));
        }
        turn
    }

    const BEGIN: &str = r#"{"type":"stream_event","event":{"type":"message_start"}}"#;
    const END: &str = r#"{"type":"stream_event","event":{"type":"message_stop"}}"#;
    const TOOL: &str = r#"{"type":"assistant","message":{"id":"msg_1","content":[{"type":"tool_use","id":"t1","name":"Write","input":{"file_path":"/workspace/src/a.rs"}}]}}"#;
    const DONE: &str = r#"{"type":"command_lifecycle","command_uuid":"u1","state":"completed"}"#;
    const IDLE: &str = r#"{"type":"system","subtype":"session_state_changed","state":"idle"}"#;
    const RESULT: &str = r#"{"type":"result","subtype":"success","is_error":false,"result":"all good","total_cost_usd":1.25,"usage":{"input_tokens":5,"output_tokens":7},"terminal_reason":"completed"}"#;

    #[test]
    fn a_prompt_is_over_when_its_message_is_answered_and_nothing_runs() {
        let turn = played(&[BEGIN, TOOL, END]);
        assert_eq!(turn.view().doing, "writing /workspace/src/a.rs");
        assert_eq!(turn.phase(), Phase::Tools);
        assert!(!played(&[IDLE]).is_over(), "idle before its turn");
        assert!(
            !played(&[RESULT, DONE]).is_over(),
            "something may still run"
        );
        let turn = played(&[BEGIN, TOOL, END, RESULT, DONE, IDLE]);
        assert!(turn.is_over());
        let view = turn.view();
        assert_eq!(view.stop, Some(PromptStop::Completed));
        assert_eq!(view.result.as_deref(), Some("all good"));
        assert_eq!(view.cost_micro_usd, Some(250_000));
        assert_eq!(view.changed_files, [Path::new("src/a.rs")]);
        assert_eq!((view.turns, view.tool_uses, view.usage.output), (1, 1, 7));
    }

    #[test]
    fn what_must_be_known_after_a_restart_does_not_hang_on_pieces_that_are_not_kept() {
        let text = r#"{"type":"assistant","message":{"id":"msg_1","content":[{"type":"text","text":"I write."}]}}"#;
        let next = TOOL.replace("msg_1", "msg_2").replace("t1", "t2");
        let other = TOOL.replace("msg_1", "msg_3").replace(
            r#""type":"assistant""#,
            r#""type":"assistant","parent_tool_use_id":"t1""#,
        );
        let live = played(&[BEGIN, text, TOOL, END, &other, BEGIN, &next, END]);
        let kept = played(&[text, TOOL, &other, &next]);
        for turn in [live, kept] {
            assert_eq!((turn.view().turns, turn.phase()), (2, Phase::Tools));
        }
    }

    #[test]
    fn a_model_that_falls_silent_behind_a_tools_use_is_not_taken_for_a_tool() {
        let goes = r#"{"type":"stream_event","event":{"type":"message_delta"}}"#;
        assert_eq!(played(&[BEGIN, TOOL, goes]).phase(), Phase::Streaming);
        assert_eq!(played(&[BEGIN, TOOL, goes, END]).phase(), Phase::Tools);
    }

    #[test]
    fn whatever_a_sandbox_says_of_itself_a_view_stays_small() {
        let long = "y".repeat(3 << 20);
        let mut lines = vec![
            format!(r#"{{"type":"system","subtype":"init","model":"{long}"}}"#),
            format!(r#"{{"type":"assistant","message":{{"content":[]}},"error":"{long}"}}"#),
            format!(
                r#"{{"type":"result","is_error":true,"result":"{long}","structured_output":{{"a":"{long}"}}}}"#
            ),
        ];
        for number in 0..1000 {
            lines.push(TOOL.replace("t1", &format!("t{number}")));
            lines.push(TOOL.replace("src/a.rs", &format!("{number}{}", "z".repeat(8000))));
        }
        let turn = played(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let bytes = serde_json::to_vec(turn.view()).unwrap().len();
        assert!(bytes < 1 << 20, "{bytes}");
        assert!(turn.tools.len() <= MAX_TOOLS);
        assert_eq!(turn.view().tool_uses, 2000);
        assert_eq!(turn.view().result.as_deref(), Some(NO_STRUCTURED_OUTPUT));
    }

    #[test]
    fn another_messages_end_is_not_this_ones() {
        let other = DONE.replace("u1", "u2");
        assert!(!played(&[&other, IDLE]).is_over());
    }

    #[test]
    fn tokens_of_several_results_add_up_and_money_does_not() {
        let later = RESULT.replace("1.25", "1.5");
        let turn = played(&[RESULT, &later, DONE, IDLE]);
        assert_eq!(turn.view().usage.input, 10);
        assert_eq!(turn.view().cost_micro_usd, Some(500_000));
    }

    #[test]
    fn how_it_ended_is_read_from_what_happened_not_from_success() {
        let stop = |lines: &[&str]| played(lines).view().stop.clone();
        let failed = r#"{"type":"assistant","message":{"content":[]},"error":"rate_limit","api_error_status":429}"#;
        let error = r#"{"type":"result","subtype":"success","is_error":true,"result":"API Error","terminal_reason":"api_error","api_error_status":429}"#;
        assert_eq!(
            stop(&[failed, error]),
            Some(PromptStop::Provider {
                kind: "rate_limit".to_owned(),
                status: Some(429)
            })
        );
        for (subtype, reason, due) in [
            ("error_max_turns", "", PromptStop::TurnLimit),
            (
                "error_max_budget_usd",
                "budget_exhausted",
                PromptStop::BudgetLimit,
            ),
            (
                "error_during_execution",
                "aborted_tools",
                PromptStop::Interrupted,
            ),
        ] {
            let line = format!(
                r#"{{"type":"result","subtype":"{subtype}","is_error":true,"terminal_reason":"{reason}"}}"#
            );
            assert_eq!(stop(&[&line]), Some(due));
        }
        let refused = r#"{"type":"result","subtype":"success","is_error":true,"terminal_reason":"api_error"}"#;
        assert_eq!(stop(&[refused]), Some(PromptStop::Refused));
        let flagged = r#"{"type":"assistant","message":{"content":[]},"error":"invalid_request"}"#;
        let refused = refused.replace("}", r#","stop_reason":"refusal"}"#);
        assert_eq!(stop(&[flagged, &refused]), Some(PromptStop::Refused));
    }

    #[test]
    fn what_it_says_is_shown_as_it_comes() {
        let text = r#"{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"I will look "}}}"#;
        let turn = played(&[BEGIN, text, text]);
        assert_eq!(turn.view().doing, "saying: I will look I will look");
        let long = format!(
            r#"{{"type":"stream_event","event":{{"type":"content_block_delta","delta":{{"type":"text_delta","text":"{}"}}}}}}"#,
            "é".repeat(9000)
        );
        assert!(played(&[&long]).heard.len() <= MAX_HEARD_BYTES);
    }
}

//! A script is data: turns, each with a rule when it answers and what it answers.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::{
    fill,
    request::{Provider, Purpose},
};

/// What the scripted API answers, written down beforehand. TOML and JSON hold the same fields; `turns` is called `turn`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// How people call it.
    pub name: String,
    /// One line: what happens.
    pub description: String,
    /// One line: what a test with it proves.
    pub proves: String,
    /// Put before the first text of every answer.
    pub label: String,
    /// What [`Turn::times`] counts over.
    pub count_per: CountPer,
    /// The first one that fits and is not used up answers.
    #[serde(rename = "turn")]
    pub turns: Vec<Turn>,
}

/// What the uses of a turn are counted over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountPer {
    /// One conversation of Claude Code, as its session id tells; requests without an id share one count.
    #[default]
    Conversation,
    /// The whole life of this API.
    Server,
}

/// One answer, and when it is given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Turn {
    /// When it fits.
    pub when: When,
    /// How many requests it answers before it is used up; none: any number.
    pub times: Option<u32>,
    /// The content, in order. In strings, see [`Block`].
    pub say: Vec<Block>,
    /// The numbers that cost and budgets are computed from.
    pub usage: Usage,
    /// `end_turn`, `tool_use`, `max_tokens`, `refusal`, …; none: what the content implies.
    pub stop_reason: Option<String>,
    /// Milliseconds before the response's headers.
    pub delay_ms: u64,
    /// Milliseconds between two events of a stream.
    pub pace_ms: u64,
    /// What goes wrong.
    pub fault: Option<Fault>,
}

/// When a turn fits: everything that is set must hold. Of the main conversation unless `purpose` says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// All of them stand in the prompt: the last text of the user that the client did not add.
    pub prompt_contains: Vec<String>,
    /// All of them stand in earlier prompts of the same request.
    pub earlier_contains: Vec<String>,
    /// So many tool results came since the prompt.
    pub tool_results: Option<u32>,
    /// It stands in the last tool result since the prompt.
    pub result_contains: Option<String>,
    /// What the client wants the answer for.
    pub purpose: Purpose,
    /// Whether a stream is asked for.
    pub stream: Option<bool>,
    /// Whose wire it comes over.
    pub provider: Option<Provider>,
    /// It stands in the model's name.
    pub model_contains: Option<String>,
}

/// One block of content. Strings, those inside a tool's input too, may hold `{{cwd}}` (the client's working directory),
/// `{{prompt}}`, `{{prompt:MARK}}` (the rest of the line after MARK in the prompt), `{{memory:MARK}}` (the same, in the latest
/// earlier prompt that has the mark; `nothing` where none has), `{{result}}` (the last tool result), and `{{word:PREFIX}}` (the
/// first longer word in the latest tool result that has one beginning so).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Block {
    /// What the assistant says.
    Text(String),
    /// What it thinks; signed with a signature that says it is scripted.
    Thinking(String),
    /// A tool that it calls.
    Tool {
        /// The tool's name, as the client knows it.
        name: String,
        /// The tool's input.
        #[serde(default)]
        input: Value,
    },
}

/// Token numbers of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the provider's own names, which say it")]
pub struct Usage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cache_creation_input_tokens: u64,
    pub cache_read_input_tokens: u64,
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            input_tokens: 100,
            output_tokens: 20,
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: 0,
        }
    }
}

/// What goes wrong with an answer. Of a whole (not streamed) answer, a stall sends no headers, a cut hangs up, and a stream
/// error becomes the status of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// An error instead of an answer, in the provider's own shape.
    Status {
        /// 400 to 599, as Anthropic counts; Bedrock knows fewer and gets the nearest.
        status: u16,
        /// None: a usual wording.
        #[serde(default)]
        message: Option<String>,
        /// The header `retry-after`, in seconds.
        #[serde(default)]
        retry_after_seconds: Option<u64>,
    },
    /// The connection stays open and no headers ever come.
    Hang,
    /// The connection is closed without a byte.
    HangUp,
    /// The stream says nothing more after so many events; the connection stays open.
    Stall {
        /// Events that are still sent, pings included.
        after_events: usize,
    },
    /// The connection is closed in mid-stream, after so many events.
    Cut {
        /// Events that are still sent, pings included.
        after_events: usize,
    },
    /// The stream ends with an error of the provider, after so many events.
    StreamError {
        /// Events that are still sent, pings included.
        after_events: usize,
        /// `overloaded_error`, `api_error`, …; translated for Bedrock.
        #[serde(default = "overloaded")]
        error_type: String,
        /// The error's text.
        #[serde(default = "overloaded_text")]
        message: String,
    },
}

fn overloaded() -> String {
    "overloaded_error".to_owned()
}

fn overloaded_text() -> String {
    "Overloaded".to_owned()
}

/// Why a script cannot be played.
#[derive(Debug, Error)]
pub enum ScriptError {
    /// The file could not be read.
    #[error("the script {path} could not be read")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The name ends neither in `.toml` nor in `.json`.
    #[error("the script {0} is neither .toml nor .json; rename it")]
    Extension(String),
    /// Not TOML, or not a script.
    #[error("the script is not understood")]
    Toml(#[from] toml::de::Error),
    /// Not JSON, or not a script.
    #[error("the script is not understood")]
    Json(#[from] serde_json::Error),
    /// Understood, but it makes no sense.
    #[error("turn {turn} of the script: {what}")]
    Turn {
        /// Which turn, from 1.
        turn: usize,
        /// What to change.
        what: String,
    },
    /// It answers nothing.
    #[error("the script has no turn; add at least one [[turn]]")]
    Empty,
    /// No scenario of that name.
    #[error("there is no scenario {0}; `scripted-api --list` shows them")]
    Unknown(String),
}

impl Script {
    /// Turns that are used up one after the other, whatever is asked.
    #[must_use]
    pub fn in_order(turns: impl IntoIterator<Item = Turn>) -> Self {
        Self::of(turns.into_iter().map(|turn| turn.times(1)))
    }

    /// Turns as they are.
    #[must_use]
    pub fn of(turns: impl IntoIterator<Item = Turn>) -> Self {
        Self {
            turns: turns.into_iter().collect(),
            ..Self::default()
        }
    }

    /// The same script with a mark before each answer's text.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Reads a script from TOML and checks it.
    ///
    /// # Errors
    /// Text that is no script, or one that makes no sense.
    pub fn from_toml(text: &str) -> Result<Self, ScriptError> {
        toml::from_str::<Self>(text)?.checked()
    }

    /// Reads a script from JSON and checks it.
    ///
    /// # Errors
    /// Text that is no script, or one that makes no sense.
    pub fn from_json(text: &str) -> Result<Self, ScriptError> {
        serde_json::from_str::<Self>(text)?.checked()
    }

    /// Reads a `.toml` or `.json` file and checks it.
    ///
    /// # Errors
    /// A file that cannot be read, of another kind, or that is no script.
    pub fn load(path: &Path) -> Result<Self, ScriptError> {
        let text = fs::read_to_string(path).map_err(|source| ScriptError::Read {
            path: path.display().to_string(),
            source,
        })?;
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => Self::from_toml(&text),
            Some("json") => Self::from_json(&text),
            _ => Err(ScriptError::Extension(path.display().to_string())),
        }
    }

    /// The script, if it can be played.
    ///
    /// # Errors
    /// A turn that says nothing and has no fault, a status that is no error, a placeholder that does not exist.
    pub fn checked(self) -> Result<Self, ScriptError> {
        if self.turns.is_empty() {
            return Err(ScriptError::Empty);
        }
        for (index, turn) in self.turns.iter().enumerate() {
            turn.check().map_err(|what| ScriptError::Turn {
                turn: index + 1,
                what,
            })?;
        }
        Ok(self)
    }
}

impl Turn {
    /// A turn that says this, any number of times, whatever is asked.
    #[must_use]
    pub fn say(blocks: impl IntoIterator<Item = Block>) -> Self {
        Self {
            say: blocks.into_iter().collect(),
            ..Self::default()
        }
    }

    /// A turn that fails.
    #[must_use]
    pub fn fault(fault: Fault) -> Self {
        Self {
            fault: Some(fault),
            ..Self::default()
        }
    }

    /// The same turn under a rule.
    #[must_use]
    pub fn when(mut self, when: When) -> Self {
        self.when = when;
        self
    }

    /// The same turn, used up after so many requests.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// The same turn with these token numbers.
    #[must_use]
    pub fn usage(mut self, input_tokens: u64, output_tokens: u64) -> Self {
        self.usage.input_tokens = input_tokens;
        self.usage.output_tokens = output_tokens;
        self
    }

    /// The same turn, failing like this while it speaks.
    #[must_use]
    pub fn failing(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// The same turn with so many milliseconds between two events.
    #[must_use]
    pub fn pace_ms(mut self, pace_ms: u64) -> Self {
        self.pace_ms = pace_ms;
        self
    }

    fn check(&self) -> Result<(), String> {
        match &self.fault {
            None | Some(Fault::Stall { .. } | Fault::Cut { .. } | Fault::StreamError { .. })
                if self.say.is_empty() =>
            {
                return Err("says nothing; give it `say`".to_owned());
            }
            Some(Fault::Status { status, .. }) if !(400..600).contains(status) => {
                return Err(format!("the status {status} is no error; use 400 to 599"));
            }
            _ => {}
        }
        self.say.iter().try_for_each(|block| match block {
            Block::Text(text) | Block::Thinking(text) => fill::check(text),
            Block::Tool { input, .. } if !(input.is_object() || input.is_null()) => {
                Err("a tool's input must be a table".to_owned())
            }
            Block::Tool { input, .. } => fill::check_value(input),
        })
    }
}

impl When {
    /// When all of these stand in the prompt.
    #[must_use]
    pub fn prompt<S: Into<String>>(contains: impl IntoIterator<Item = S>) -> Self {
        Self {
            prompt_contains: contains.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// The same rule, and so many tool results since the prompt.
    #[must_use]
    pub fn tool_results(mut self, count: u32) -> Self {
        self.tool_results = Some(count);
        self
    }
}

impl Block {
    /// A text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A thought.
    #[must_use]
    pub fn thinking(text: impl Into<String>) -> Self {
        Self::Thinking(text.into())
    }

    /// A call of a tool.
    #[must_use]
    pub fn tool(name: impl Into<String>, input: Value) -> Self {
        Self::Tool {
            name: name.into(),
            input,
        }
    }
}

impl Fault {
    /// An error with the usual wording.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Status {
            status,
            message: None,
            retry_after_seconds: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(toml: &str) -> String {
        let error = Script::from_toml(toml).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error} {}", source.unwrap_or_default())
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_says_what_to_change() {
        let good = "[[turn]]\nsay = [{ text = 'hello' }]";
        assert_eq!(
            Script::from_toml(good).unwrap().turns,
            [Turn::say([Block::text("hello")])]
        );
        for (toml, part) in [
            ("", "has no turn"),
            ("[[turn]]", "says nothing"),
            ("[[turn]]\nsay = [{ txt = 'hello' }]", "txt"),
            ("[[turn]]\nsay = [{ text = '{{cwt}}' }]", "{{cwt}}"),
            ("[[turn]]\nfault = { kind = 'status', status = 200 }", "200"),
            (
                "[[turn]]\nfault = { kind = 'status', status = 500, retry = 1 }",
                "retry",
            ),
            (
                "[[turn]]\nwhen = { prompt = 'x' }\nsay = [{ text = 'hello' }]",
                "prompt",
            ),
            (
                "[[turn]]\nsay = [{ tool = { name = 'Bash', input = 'ls' } }]",
                "a table",
            ),
        ] {
            let error = refused(toml);
            assert!(error.contains(part), "{toml}: {error}");
        }
    }

    #[test]
    fn toml_and_json_hold_the_same() {
        let script = Script::in_order([
            Turn::fault(Fault::status(429)),
            Turn::say([
                Block::thinking("hm"),
                Block::tool("Bash", serde_json::json!({"command": "ls"})),
            ])
            .failing(Fault::Cut { after_events: 3 }),
        ]);
        let toml = toml::to_string(&script).unwrap();
        assert_eq!(Script::from_toml(&toml).unwrap(), script);
        let json = serde_json::to_string(&script).unwrap();
        assert_eq!(Script::from_json(&json).unwrap(), script);
    }
}

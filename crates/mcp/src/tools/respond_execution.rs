//! `respond_execution`

use base64::{Engine, engine::general_purpose::STANDARD};
use model::{Action, AnsweredBy, ExecutionId, Outcome, PermissionAnswer, Refusal, Secret};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Definition, Hints, execute_command::MAX_STDIN_BYTES, fields, unexpected};
use crate::{arguments::invalid, call::Caller, reply::RespondReply};

/// Base64 of [`MAX_STDIN_BYTES`], characters.
const MAX_BASE64_CHARACTERS: usize = MAX_STDIN_BYTES.div_ceil(3) * 4;

pub(super) struct RespondExecution;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Parameters {
    /// The execution, as execute_command named it: x- and 32 hexadecimal digits.
    #[schemars(length(min = 1, max = 64))]
    execution_id: String,
    /// Text for standard input, at most 1 MiB; add the newline that the program waits for. Give either stdin or
    /// stdinBase64.
    #[schemars(with = "String", length(max = MAX_STDIN_BYTES))]
    #[serde(default = "nothing")]
    stdin: Option<Secret<String>>,
    /// Bytes for standard input in standard base64 with padding, at most 1 MiB.
    #[schemars(with = "String", length(max = MAX_BASE64_CHARACTERS))]
    #[serde(default = "nothing")]
    stdin_base64: Option<Secret<String>>,
    /// Close standard input afterwards: the program sees its end. Default: false.
    #[serde(default)]
    close: bool,
    /// Answer what Claude Code asks in a prompt instead: the permissionId of pendingPermissions. Give allow or answer with it.
    #[schemars(length(min = 1, max = 128))]
    permission_id: Option<String>,
    /// Whether Claude Code may do what it asks for.
    allow: Option<bool>,
    /// Words for Claude Code: the answer to its question, or why it may not.
    #[schemars(length(min = 1, max = 65_536))]
    answer: Option<String>,
}

const fn nothing() -> Option<Secret<String>> {
    None
}

impl Parameters {
    /// The answer to a question, where this is one.
    fn answer(&self) -> Result<Option<(String, PermissionAnswer)>, Refusal> {
        let Some(id) = &self.permission_id else {
            return match self.allow.is_some() || self.answer.is_some() {
                true => Err(invalid(
                    "permissionId",
                    "`permissionId` is missing: it says what is answered.",
                )),
                false => Ok(None),
            };
        };
        if self.stdin.is_some() || self.stdin_base64.is_some() || self.close {
            return Err(invalid(
                "stdin",
                "`permissionId` and standard input exclude each other.",
            ));
        }
        let answer = match (self.allow, &self.answer) {
            (Some(true), None) => PermissionAnswer::Allow,
            (Some(false), why) => PermissionAnswer::Deny(
                why.clone()
                    .unwrap_or_else(|| "The user said no.".to_owned()),
            ),
            (None, Some(words)) => PermissionAnswer::Words(words.clone()),
            (Some(true), Some(_)) | (None, None) => {
                return Err(invalid(
                    "allow",
                    "Give `allow` for a permission, or `answer` for a question.",
                ));
            }
        };
        Ok(Some((id.clone(), answer)))
    }
}

struct Response {
    execution: ExecutionId,
    data: Vec<u8>,
    close: bool,
}

impl TryFrom<Parameters> for Response {
    type Error = Refusal;

    fn try_from(parameters: Parameters) -> Result<Response, Refusal> {
        let execution = fields::execution_id(&parameters.execution_id)?;
        let (field, data) = match (parameters.stdin, parameters.stdin_base64) {
            (Some(text), None) => ("stdin", text.expose().clone().into_bytes()),
            (None, Some(text)) => ("stdinBase64", decode(text.expose())?),
            (None, None) if parameters.close => ("close", Vec::new()),
            (None, None) => {
                return Err(invalid(
                    "stdin",
                    "`stdin` is missing. Give input in it or in `stdinBase64`, or set `close`.",
                ));
            }
            (Some(_), Some(_)) => {
                return Err(invalid(
                    "stdinBase64",
                    "`stdin` and `stdinBase64` exclude each other.",
                ));
            }
        };
        if data.len() > MAX_STDIN_BYTES {
            return Err(invalid(
                field,
                format!("`{field}` is longer than {MAX_STDIN_BYTES} bytes."),
            ));
        }
        Ok(Response {
            execution,
            data,
            close: parameters.close,
        })
    }
}

fn decode(text: &str) -> Result<Vec<u8>, Refusal> {
    // The decoder's own words repeat a byte of the value.
    STANDARD.decode(text).map_err(|_repeats_input| {
        invalid(
            "stdinBase64",
            "`stdinBase64` must be standard base64 with padding.",
        )
    })
}

impl Definition for RespondExecution {
    const NAME: &'static str = "respond_execution";
    const TITLE: &'static str = "Write to an execution's standard input";
    const DESCRIPTION: &'static str = "Writes to the standard input of a running execution that was started with \
        keepStdinOpen, and closes it on demand. Use it to answer a program that asks; then read what it says with \
        get_execution and the last cursors.\n\n\
        All of the input is taken, or none: while the program reads too slowly the call is refused with stdin_full and \
        retryAfterMs, and after the end of the program or a close with execution_ended or stdin_closed. Calling twice writes \
        twice. The execution goes on after a disconnect or a cancelled request; what was written stays written.";
    const HINTS: Hints = Hints {
        read_only: false,
        destructive: true,
        idempotent: false,
    };
    type Parameters = Parameters;
    type Reply = RespondReply;

    async fn run(parameters: Parameters, caller: Caller) -> Result<RespondReply, Refusal> {
        if let Some((question, answer)) = parameters.answer()? {
            let execution = fields::execution_id(&parameters.execution_id)?;
            return respond(&caller, execution, question, answer).await;
        }
        let Response {
            execution,
            data,
            close,
        } = Response::try_from(parameters)?;
        let bytes_written = data.len() as u64;
        let action = Action::RespondExecution {
            execution,
            data: Secret::new(data),
            close,
        };
        let outcome = caller.ask(action).await?;
        if !matches!(outcome, Outcome::Done | Outcome::Execution(_)) {
            return Err(unexpected(Self::NAME));
        }
        Ok(RespondReply {
            execution_id: execution.to_string(),
            bytes_written,
            stdin_closed: close,
            message: message(bytes_written, close),
        })
    }
}

/// Answers what Claude Code asks.
async fn respond(
    caller: &Caller,
    execution: ExecutionId,
    question: String,
    answer: PermissionAnswer,
) -> Result<RespondReply, Refusal> {
    let by = match caller.is_person {
        true => AnsweredBy::Person,
        false => AnsweredBy::Caller,
    };
    let action = Action::AnswerExecution {
        execution,
        question,
        answer,
        by,
    };
    caller.ask(action).await?;
    Ok(RespondReply {
        execution_id: execution.to_string(),
        bytes_written: 0,
        stdin_closed: false,
        message: "Claude Code has the answer; go on waiting with get_execution.".to_owned(),
    })
}

fn message(bytes: u64, close: bool) -> String {
    let closed = if close { " and closed it" } else { "" };
    format!(
        "Wrote {bytes} bytes to standard input{closed}; read what the program says with get_execution."
    )
}

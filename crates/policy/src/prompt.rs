//! May Claude Code be given this to do, and be that in a session?

use std::time::Duration;

use model::{
    AgentRequest, ConversationChoice, ExecutePrompt, Principal, PromptOptions, ProviderRequest,
    Reason, Refusal, Scope, Secret, SessionId, WhenBusy,
};

use crate::{
    Policy,
    command::MAX_WAIT,
    permit::PromptPermit,
    roles::{Need, Work},
};

/// Longest prompt, bytes. A prompt is read by a model; what is longer belongs into a file.
pub const MAX_PROMPT_BYTES: usize = 256 * 1024;
/// Longest words after the system prompt, and longest schema, bytes: arguments of a program, of which Linux takes 128 KiB each.
const MAX_WORDS_BYTES: usize = 64 * 1024;
/// Longest name of a model, tool or region, bytes.
const MAX_NAME_BYTES: usize = 200;
/// Tools that are named at once.
const MAX_TOOLS: usize = 100;
/// Turns that can be asked for.
const MAX_TURNS: u32 = 10_000;
/// Dollars that can be asked for, in millionths.
const MAX_BUDGET_MICRO_USD: u64 = 10_000 * 1_000_000;
/// Longest configuration of MCP servers, bytes.
const MAX_MCP_BYTES: usize = 64 * 1024;
/// Longest key, bytes.
const MAX_KEY_BYTES: usize = 4096;

/// The prompt as it may be worked on.
#[derive(Debug)]
pub struct PromptParts {
    /// In which session.
    pub session: SessionId,
    /// Its words.
    pub prompt: Secret<String>,
    /// In which conversation.
    pub conversation: ConversationChoice,
    /// How.
    pub options: PromptOptions,
    /// While the conversation is busy.
    pub when_busy: WhenBusy,
    /// It ends after that long. Always set: the operator's maximum where the caller named none.
    pub deadline: Duration,
    /// Answer after at most that long.
    pub wait: Duration,
    /// Executions running in the session, this one included, must not exceed it.
    pub max_running_executions: u32,
}

impl Policy {
    /// Decides on a prompt. `owner` is who owns the session, `None` when there is no such session.
    ///
    /// # Errors
    /// [`Reason::SessionNotFound`] for an unknown or foreign session; [`Reason::InvalidArgument`] or [`Reason::TooLarge`]
    /// for what is asked.
    pub fn admit_prompt(
        &self,
        principal: &Principal,
        asked: &ExecutePrompt,
        owner: Option<&str>,
    ) -> Result<PromptPermit, Refusal> {
        self.require_owner(principal, owner, Need::new(Work::New, Scope::SessionsRun))?;
        let prompt = asked.prompt.expose();
        if prompt.trim().is_empty() {
            return Err(invalid(
                "The prompt is empty.",
                "Say what Claude Code is to do.",
                "prompt",
            ));
        }
        check_size(
            prompt,
            MAX_PROMPT_BYTES,
            "prompt",
            "Put what is long into a file of the project and name it.",
        )?;
        check_options(&asked.options)?;
        Ok(PromptPermit {
            parts: PromptParts {
                session: asked.session,
                prompt: asked.prompt.clone(),
                conversation: asked.conversation,
                options: asked.options.clone(),
                when_busy: asked.when_busy,
                deadline: self.deadline(asked.timeout)?,
                wait: asked.wait.min(MAX_WAIT),
                max_running_executions: self.config.max_running_executions,
            },
        })
    }
}

/// What Claude Code is to be in a session.
pub(crate) fn check_agent(asked: &AgentRequest) -> Result<(), Refusal> {
    if let Some(servers) = &asked.mcp_servers {
        let hint = "Name fewer servers, or start them by a script of the project.";
        check_size(servers, MAX_MCP_BYTES, "mcpConfig", hint)?;
    }
    check_provider(&asked.provider)
}

fn check_provider(asked: &ProviderRequest) -> Result<(), Refusal> {
    for (name, field) in [
        (&asked.aws_region, "awsRegion"),
        (&asked.bedrock_model, "bedrockModel"),
        (&asked.bedrock_small_model, "bedrockSmallModel"),
    ] {
        if let Some(name) = name {
            check_name(name, field)?;
        }
    }
    for (key, field) in [
        (&asked.api_key, "apiKey"),
        (&asked.aws_access_key_id, "awsAccessKeyId"),
        (&asked.aws_secret_access_key, "awsSecretAccessKey"),
        (&asked.aws_session_token, "awsSessionToken"),
    ] {
        let Some(key) = key.as_ref().map(Secret::expose) else {
            continue;
        };
        if key.is_empty()
            || key.len() > MAX_KEY_BYTES
            || !key.bytes().all(|byte| byte.is_ascii_graphic())
        {
            let message = format!("`{field}` is no key: a key is printable ASCII without spaces.");
            return Err(invalid(
                message,
                "Look for a line break or a missing part.",
                field,
            ));
        }
    }
    if asked.aws_access_key_id.is_some() != asked.aws_secret_access_key.is_some() {
        let message = "`awsAccessKeyId` and `awsSecretAccessKey` belong together.";
        return Err(invalid(
            message,
            "Give both, or neither.",
            "awsSecretAccessKey",
        ));
    }
    if asked.aws_session_token.is_some() && asked.aws_access_key_id.is_none() {
        let message = "`awsSessionToken` is part of a key, and there is none.";
        let hint = "Give awsAccessKeyId and awsSecretAccessKey with it, or leave it out.";
        return Err(invalid(message, hint, "awsSessionToken"));
    }
    if asked.aws_access_key_id.is_some() && asked.use_bedrock == Some(false) {
        let message = "`awsAccessKeyId` is a key for Amazon Bedrock, and `useBedrock` is false.";
        return Err(invalid(message, "Leave one of them out.", "awsAccessKeyId"));
    }
    if asked.api_key.is_some() && asked.aws_access_key_id.is_some() {
        let message = "`apiKey` is a key of Anthropic, and `awsAccessKeyId` one of Amazon.";
        return Err(invalid(message, "Give the keys of one provider.", "apiKey"));
    }
    if asked.api_key.is_some() && asked.use_bedrock == Some(true) {
        let message = "`apiKey` is a key of Anthropic, and `useBedrock` asks Amazon.";
        return Err(invalid(message, "Leave one of them out.", "apiKey"));
    }
    Ok(())
}

fn check_options(options: &PromptOptions) -> Result<(), Refusal> {
    if let Some(model) = &options.model {
        check_name(model, "model")?;
    }
    let allowed = options.tools.as_deref().unwrap_or_default();
    for (tools, field) in [
        (allowed, "tools"),
        (&options.disallowed_tools, "disallowedTools"),
    ] {
        if tools.len() > MAX_TOOLS {
            let message = format!("`{field}` names more than {MAX_TOOLS} tools.");
            return Err(invalid(message, "Name fewer.", field));
        }
        for tool in tools {
            check_tool(tool, field)?;
        }
    }
    if options
        .max_turns
        .is_some_and(|turns| !(1..=MAX_TURNS).contains(&turns))
    {
        let hint = format!("Use 1 to {MAX_TURNS}, or leave it out.");
        return Err(invalid("`maxTurns` is out of range.", hint, "maxTurns"));
    }
    if options
        .max_budget_micro_usd
        .is_some_and(|budget| !(1..=MAX_BUDGET_MICRO_USD).contains(&budget))
    {
        let hint = format!(
            "Use more than 0 and at most {} dollars, or leave it out.",
            MAX_BUDGET_MICRO_USD / 1_000_000
        );
        return Err(invalid(
            "`maxBudgetUsd` is out of range.",
            hint,
            "maxBudgetUsd",
        ));
    }
    for (words, field) in [
        (&options.append_system_prompt, "appendSystemPrompt"),
        (&options.output_schema, "outputSchema"),
    ] {
        let Some(words) = words else { continue };
        check_size(
            words,
            MAX_WORDS_BYTES,
            field,
            "Put what is long into the prompt or a file.",
        )?;
        if words.contains('\0') {
            return Err(invalid(
                format!("`{field}` holds a null byte."),
                "Take it out.",
                field,
            ));
        }
    }
    Ok(())
}

/// Names become arguments of a program and headers of requests.
fn check_name(name: &str, field: &str) -> Result<(), Refusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/@[]-".contains(&byte);
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(plain);
    if fits && !name.starts_with('-') {
        return Ok(());
    }
    let message = format!("`{field}` is no name.");
    let hint = format!(
        "Use 1 to {MAX_NAME_BYTES} letters, digits and `._:/@[]-`, not beginning with `-`."
    );
    Err(invalid(message, hint, field))
}

/// A tool, or a rule such as `Bash(git *)`; a list of them is joined by commas.
fn check_tool(tool: &str, field: &str) -> Result<(), Refusal> {
    let fits = (1..=MAX_NAME_BYTES).contains(&tool.len())
        && tool.starts_with(|first: char| first.is_ascii_alphabetic() || first == '*')
        && !tool.contains(|c: char| c.is_control() || c == ',');
    if fits {
        return Ok(());
    }
    let message = format!("`{field}` holds what is no tool.");
    let hint =
        "Name tools such as `Read` or `Bash`, or rules such as `Bash(git *)`, without commas.";
    Err(invalid(message, hint, field))
}

fn check_size(text: &str, most: usize, field: &str, hint: &str) -> Result<(), Refusal> {
    if text.len() <= most {
        return Ok(());
    }
    let message = format!(
        "`{field}` has {} bytes, more than the {most} that it may have.",
        text.len()
    );
    Err(Refusal::new(Reason::TooLarge, message, hint).in_field(field))
}

fn invalid(message: impl Into<String>, hint: impl Into<String>, field: &str) -> Refusal {
    Refusal::new(Reason::InvalidArgument, message, hint).in_field(field)
}

/// What of a session is Claude Code's, as decided.
#[derive(Debug, Clone, Default)]
pub struct AgentParts {
    /// See [`AgentRequest`].
    pub request: AgentRequest,
    /// Rules for permissions, JSON: the operator's.
    pub permissions: Option<String>,
    /// The project's own settings, hooks and MCP servers count.
    pub trust_project: bool,
    /// How long a question waits for an answer.
    pub patience: Duration,
}

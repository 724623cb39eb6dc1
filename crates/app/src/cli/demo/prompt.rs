//! A prompt to the real Claude Code: by the scripted API, which is no model and says so, or by the real one, where there is
//! a key and whoever looks on says yes.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::PathBuf,
};

use agent::install::{Installed, Store};
use mcp::reply::{ExecutionReply, PromptReply};
use scripted_api::{Block, Script, ScriptedApi, Turn};
use serde::Serialize;
use serde_json::{Value, json};
use session::ProviderName;

use super::{CliError, Client, Context, execute};
use crate::{
    agent_program::{chosen, describe},
    cli::{
        agent::install_pinned,
        output::note,
        prompt::{Ended, Follower, Interrupts, Look, OnInterrupt, Teller, of_prompt},
    },
    config::{AwsCredentials, ProviderConfig},
};

/// What Claude Code is asked to do.
const WORDS: &str = "`sh greet.sh --help` should print a line that begins with `usage:` and greet nobody. \
    Change greet.sh so, leave all else alone, and run the tests with `sh run-tests.sh`.";
/// Whether it was done, asked by the demo itself.
const CHECK: &str = "sh greet.sh --help | grep '^usage:' && sh run-tests.sh";
/// Longest that it may take, seconds.
const TIMEOUT_SECONDS: u64 = 90;
/// Most that the real model may cost, dollars.
const BUDGET_USD: f64 = 0.5;
/// Stands before all that the scripted API says.
const LABEL: &str = "[scripted, no model] ";
/// A made-up key: the scripted API takes any.
const SCRIPTED_KEY: &str = "sk-ant-scripted-demo";
/// Variables that hold a provider's credentials, or say how it is reached.
const CREDENTIALS: [&str; 8] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "AWS_BEARER_TOKEN_BEDROCK",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "HTTPS_PROXY",
    "https_proxy",
];

/// Variables by which credentials of AWS and Google are found.
const SETTINGS: [&str; 14] = [
    "HOME",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_EC2_METADATA_DISABLED",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "CLOUDSDK_CONFIG",
    "GCE_METADATA_HOST",
];

/// With what the prompt is played.
pub enum Cast {
    /// Not at all, and why.
    Skipped(String),
    /// With this.
    Plays(Box<Players>),
}

/// Claude Code, and who answers it.
pub struct Players {
    /// The program.
    pub program: Installed,
    /// The store it stands in.
    pub store: std::path::PathBuf,
    /// Variables of the demo's server.
    pub variables: Vec<(String, std::ffi::OsString)>,
    /// What the demo's server is told of the configuration.
    pub settings: Vec<String>,
    model: Model,
}

enum Model {
    /// Lives as long as this.
    Scripted(#[expect(dead_code, reason = "dropped, it ends")] ScriptedApi),
    Real(ProviderName),
}

/// How it went, as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Played {
    /// Nobody answered but a script.
    pub scripted: bool,
    /// How it ended.
    pub stop: Option<String>,
    /// The answer.
    pub answer: Option<String>,
    /// What the demo found afterwards.
    pub checked: bool,
    /// Files that were changed.
    pub changed_files: Vec<String>,
    /// What it cost by Claude Code's price list; of the scripted API nothing is billed.
    pub cost_usd: Option<f64>,
}

/// Finds out who plays, asking on a terminal what only a person may decide.
pub async fn cast(context: &Context) -> Result<Cast, CliError> {
    let Some(program) = program(context)? else {
        return Ok(Cast::Skipped(
            "Claude Code is not installed: claude-code-mcp agent install".to_owned(),
        ));
    };
    let provider = &context.config.provider;
    let name = provider.default_provider();
    let question = format!(
        "Ask the real model of {} one small prompt, for at most ${BUDGET_USD:.2}? Else a script answers. [y/N] ",
        spoken(name)
    );
    let is_real = provider.may_have_credential(name) && asked(context, &question)?;
    let (variables, settings, model) = match is_real {
        true => (
            credentials(context, name),
            settings(provider, name),
            Model::Real(name),
        ),
        false => {
            let api = ScriptedApi::start(script())
                .await
                .map_err(|error| CliError::Build(anyhow::Error::new(error)))?;
            let variables = vec![("ANTHROPIC_API_KEY".to_owned(), SCRIPTED_KEY.into())];
            let settings = vec![
                "provider=anthropic".to_owned(),
                format!("anthropic_base_url={}", api.url()),
            ];
            (variables, settings, Model::Scripted(api))
        }
    };
    let store = Store::new(&context.config.paths.state_dir);
    Ok(Cast::Plays(Box::new(Players {
        program,
        store: store.root().to_owned(),
        variables,
        settings,
        model,
    })))
}

/// The Claude Code that is installed, or fetched now where a person says so.
fn program(context: &Context) -> Result<Option<Installed>, CliError> {
    let found = || chosen(&context.config.agent, &context.config.paths.state_dir);
    if let Ok(Some(program)) = found() {
        return Ok(Some(program));
    }
    let question = "Claude Code is not installed. Fetch the pinned one now, for this demo and for sessions? [y/N] ";
    if !asked(context, question)? {
        return Ok(None);
    }
    if let Err(error) = install_pinned(context) {
        note(&format!("it was not fetched: {}", error.chain()));
    }
    Ok(found().ok().flatten())
}

/// Whether a person says yes; no where there is none.
fn asked(context: &Context, question: &str) -> Result<bool, CliError> {
    if context.output.json || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(false);
    }
    let mut out = io::stderr();
    write!(out, "{question}")
        .and_then(|()| out.flush())
        .map_err(CliError::Terminal)?;
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(CliError::Terminal)?;
    Ok(matches!(
        line.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}

const fn spoken(name: ProviderName) -> &'static str {
    match name {
        ProviderName::FirstParty => "Anthropic",
        ProviderName::Bedrock => "Amazon Bedrock",
        ProviderName::Vertex => "Google Vertex AI",
    }
}

fn credentials(context: &Context, name: ProviderName) -> Vec<(String, std::ffi::OsString)> {
    let mut names = CREDENTIALS.to_vec();
    if name != ProviderName::FirstParty {
        // Where the tools of AWS and Google keep their settings.
        names.extend(SETTINGS);
    }
    let found = names.into_iter().filter_map(|name| {
        let value = context.environment.get(name)?;
        Some((name.to_owned(), value.to_owned()))
    });
    found.collect()
}

fn settings(provider: &ProviderConfig, name: ProviderName) -> Vec<String> {
    let word = match name {
        ProviderName::FirstParty => "anthropic",
        ProviderName::Bedrock => "bedrock",
        ProviderName::Vertex => "vertex",
    };
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let list = |words: &[String]| (!words.is_empty()).then(|| json!(words).to_string());
    let role = provider.aws.role.as_ref();
    let named = [
        ("provider", Some(word.to_owned())),
        ("api_key_file", path(&provider.api_key_file)),
        ("auth_token_file", path(&provider.auth_token_file)),
        ("auth_token_command", list(&provider.auth_token_command)),
        ("bedrock_token_file", path(&provider.bedrock_token_file)),
        (
            "aws_credentials",
            (provider.aws.credentials == AwsCredentials::DefaultChain)
                .then(|| "default-chain".to_owned()),
        ),
        ("aws_profile", provider.aws.profile.clone()),
        ("aws_role_arn", role.map(|role| role.arn.clone())),
        (
            "aws_external_id",
            role.and_then(|role| role.external_id.clone()),
        ),
        (
            "aws_source_identity",
            role.map(|role| role.source_identity.to_string()),
        ),
        (
            "aws_session_policy",
            role.map(|role| if role.narrowed { "bedrock" } else { "none" }.to_owned()),
        ),
        (
            "vertex_credentials",
            provider.uses_google_default().then(|| "default".to_owned()),
        ),
        ("anthropic_base_url", provider.first_party_base_url.clone()),
        ("aws_region", provider.aws_region.clone()),
        ("bedrock_base_url", provider.bedrock_base_url.clone()),
        ("vertex_project", provider.vertex_project.clone()),
        ("vertex_region", provider.vertex_region.clone()),
        ("vertex_base_url", provider.vertex_base_url.clone()),
        ("vertex_token_command", list(&provider.vertex_token_command)),
        ("model", provider.model.clone()),
        ("small_model", provider.small_model.clone()),
    ];
    let given = named
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", value?)));
    given.collect()
}

/// What the scripted API says: what a model might.
fn script() -> Script {
    let edit = json!({
        "file_path": "/workspace/greet.sh",
        "old_string": "# Greets whoever is named.\n",
        "new_string": "# Greets whoever is named.\nif [ \"$1\" = --help ]; then echo 'usage: greet.sh [NAME]'; exit 0; fi\n",
    });
    let test = json!({
        "command": "sh greet.sh --help && sh run-tests.sh", "description": "Try it and run the tests",
    });
    Script::in_order([
        Turn::say([
            Block::text("I look at the program first."),
            Block::tool("Read", json!({ "file_path": "/workspace/greet.sh" })),
        ])
        .usage(2_000, 60),
        Turn::say([
            Block::text("Now the line that --help prints."),
            Block::tool("Edit", edit),
        ])
        .usage(2_300, 120),
        Turn::say([Block::tool("Bash", test)]).usage(2_500, 70),
        Turn::say([Block::text(
            "greet.sh --help prints its usage now, and the tests pass.",
        )])
        .usage(2_600, 30),
    ])
    .label(LABEL)
}

impl Players {
    /// Who answers, for people.
    pub fn who(&self) -> String {
        let program = describe(&self.program);
        match &self.model {
            Model::Scripted(_) => format!(
                "Claude Code {program}\nSCRIPTED: no model answers, a script does; nothing leaves this machine"
            ),
            Model::Real(name) => format!("Claude Code {program}\nthe model of {}", spoken(*name)),
        }
    }

    /// Gives the prompt, shows what is done, and looks whether it was.
    pub async fn play(
        &self,
        context: &Context,
        client: &Client,
        session: &str,
    ) -> Result<Played, CliError> {
        let is_scripted = matches!(self.model, Model::Scripted(_));
        let mut interrupts = Interrupts::new()?;
        let call = json!({
            "sessionId": session, "prompt": WORDS, "waitSeconds": 0, "timeoutSeconds": TIMEOUT_SECONDS,
            "maxBudgetUsd": (!is_scripted).then_some(BUDGET_USD).map_or(Value::Null, Value::from),
        });
        let started: ExecutionReply = client.ask("execute_in_session", call).await?;
        let look = match context.output.json {
            true => Look::Quiet,
            false => Look::All,
        };
        let teller = Teller::new(context.output, look, "      ");
        let id = &started.execution_id;
        let follower = Follower::new(client, session, id, teller, OnInterrupt::Cancel);
        let Some(Ended { reply, .. }) = follower.follow(&mut interrupts).await? else {
            return Err(CliError::Usage("the demo was left".to_owned()));
        };
        let prompt: &PromptReply = of_prompt(&reply)?;
        let check = execute(client, session, CHECK).await?;
        Ok(Played {
            scripted: is_scripted,
            stop: prompt.stop.clone(),
            answer: prompt.result.clone(),
            checked: check.exit_code == Some(0),
            changed_files: prompt.changed_files.clone(),
            cost_usd: prompt.cost_usd.filter(|_| !is_scripted),
        })
    }
}

impl Played {
    /// Everything was as promised.
    pub fn held(&self) -> bool {
        self.stop.as_deref() == Some("completed") && self.checked
    }

    /// In words for people.
    pub fn words(&self) -> String {
        let cost = match (self.scripted, self.cost_usd) {
            (true, _) => "scripted: nothing was billed".to_owned(),
            (false, Some(cost)) => format!("cost ${cost:.4}"),
            (false, None) => "cost unknown".to_owned(),
        };
        let checked = match self.checked {
            true => "the demo ran the program and its tests again: they pass",
            false => "FAILED: the demo ran the program and its tests again, and they do not pass",
        };
        format!(
            "{}\n{}; changed: {}; {cost}\n{checked}",
            self.answer.as_deref().unwrap_or("no answer"),
            self.stop.as_deref().unwrap_or("failed"),
            self.changed_files.join(", ")
        )
    }
}

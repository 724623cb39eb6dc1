//! `session …`: what every MCP client can do, for people and scripts.

mod approve;
mod attach;
mod cp;
mod create;
mod destroy;
mod docker_options;
mod exec;
mod logs;
mod network;
mod prompt;
mod resolve;
mod run;
mod shell;
mod show;
mod transcript;
mod variables;

use serde_json::json;

use super::{
    CliError, Context, EXIT_OK, EXIT_REFUSED,
    arguments::SessionCommand,
    block_on,
    client::{Client, read},
};
pub(super) use create::existing;
pub(super) use network::network;
use resolve::resolve;
pub(super) use show::short_id;
pub(super) use variables::variables;

/// Carries out one command on sessions.
pub(super) fn run(context: &Context, command: SessionCommand) -> Result<u8, CliError> {
    match command {
        SessionCommand::Create(arguments) => block_on(create::run(context, *arguments)),
        SessionCommand::List { all } => block_on(show::list(context, all)),
        SessionCommand::Show { session } => block_on(show::show(context, &session)),
        SessionCommand::Exec(arguments) => {
            block_on(exec::run(context, arguments)).map_err(CliError::of_a_run)
        }
        SessionCommand::Prompt(arguments) => block_on(prompt::run(context, &arguments)),
        SessionCommand::Attach { target } => block_on(attach::run(context, &target)),
        SessionCommand::Approve(arguments) => block_on(approve::run(context, &arguments)),
        SessionCommand::Transcript {
            session,
            conversation,
        } => block_on(transcript::run(context, &session, conversation.as_deref())),
        SessionCommand::Shell { session } => {
            block_on(shell::run(context, &session)).map_err(CliError::of_a_run)
        }
        SessionCommand::Logs {
            session,
            tail,
            follow,
        } => block_on(logs::run(context, &session, tail, follow)),
        SessionCommand::Cp {
            source,
            destination,
        } => block_on(cp::run(context, &source, &destination)),
        SessionCommand::Destroy { sessions, all } => {
            block_on(destroy::run(context, &sessions, all))
        }
        SessionCommand::Allow { session, hosts } => {
            block_on(network::allow(context, &session, &hosts))
        }
        SessionCommand::Deny { session, target } => {
            block_on(network::deny(context, &session, &target))
        }
        SessionCommand::Extend { session, by } => block_on(extend(context, &session, by)),
    }
}

async fn extend(context: &Context, session: &str, by: std::time::Duration) -> Result<u8, CliError> {
    let client = Client::connect(context, Vec::new()).await?;
    let session_id = resolve(&client, session).await?;
    let content = client
        .call(
            "extend_session",
            json!({ "sessionId": session_id, "seconds": by.as_secs().max(1) }),
        )
        .await?;
    if context.output.json {
        context.output.json(&content)?;
    } else {
        let reply: mcp::reply::SessionReply = read("extend_session", content)?;
        context.output.line(&format!(
            "{} ends at {}",
            reply.session_name, reply.expires_at
        ))?;
    }
    Ok(EXIT_OK)
}

//! `session prompt`

use mcp::reply::ExecutionReply;
use serde_json::json;

use super::{
    super::arguments::{SessionPromptArguments, WordsArguments},
    CliError, Client, Context, EXIT_OK, read,
    resolve::resolve,
};
use crate::cli::{
    EXIT_SIGNAL_BASE,
    prompt::{Follower, Interrupts, Look, OnInterrupt, Teller, order, report, words},
};

/// Signal of Ctrl-C.
const SIGINT: u8 = 2;

pub(super) async fn run(
    context: &Context,
    arguments: &SessionPromptArguments,
) -> Result<u8, CliError> {
    let words = words(&WordsArguments {
        prompt: arguments.prompt.clone(),
        prompt_file: arguments.prompt_file.clone(),
    })?;
    let mut interrupts = Interrupts::new()?;
    let client = Client::connect(context, Vec::new()).await?;
    let session_id = resolve(&client, &arguments.session).await?;
    let mut call = order(&session_id, &words, &arguments.options);
    call["conversationId"] = json!(arguments.conversation);
    call["newConversation"] = json!(arguments.new);
    call["whenBusy"] = json!(arguments.refuse_busy.then_some("refuse"));
    let content = client.call("execute_in_session", call).await?;
    let started: ExecutionReply = read("execute_in_session", content.clone())?;
    if arguments.detach {
        match context.output.json {
            true => context.output.json(&content)?,
            false => context.output.line(&started.execution_id)?,
        }
        return Ok(EXIT_OK);
    }
    let look = match arguments.options.quiet {
        true => Look::Quiet,
        false => Look::All,
    };
    let teller = Teller::new(context.output, look, "");
    let id = &started.execution_id;
    let follower = Follower::new(&client, &session_id, id, teller, OnInterrupt::Cancel);
    match follower.follow(&mut interrupts).await? {
        Some(ended) => report(context, &ended),
        None => Ok(EXIT_SIGNAL_BASE + SIGINT),
    }
}

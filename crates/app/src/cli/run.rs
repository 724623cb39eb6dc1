//! `run`: one prompt in a session of its own, which is destroyed whatever happens.

use mcp::reply::{ExecutionReply, ServerInfoReply, SessionReply};
use serde_json::{Value, json};

use super::{
    CliError, Context, EXIT_REFUSED, EXIT_SIGNAL_BASE,
    arguments::RunArguments,
    block_on,
    client::{Client, read},
    output::note,
    prompt::{Follower, Interrupts, Look, OnInterrupt, Teller, order, report, words},
    session::{existing, network, short_id, variables},
};

/// Signal of Ctrl-C.
const SIGINT: u8 = 2;
/// What the session lives longer than its prompt, seconds: to be made, to end, to be destroyed.
const TTL_MARGIN_SECONDS: u64 = 120;

pub(super) fn run(context: &Context, arguments: &RunArguments) -> Result<u8, CliError> {
    block_on(play(context, arguments))
}

async fn play(context: &Context, arguments: &RunArguments) -> Result<u8, CliError> {
    let words = words(&arguments.words)?;
    let project = existing(&arguments.project)?;
    let call = creation(context, arguments, &project)?;
    // From here on a signal ends the prompt, not this process: what it made is to be taken away again.
    let mut interrupts = Interrupts::new()?;
    let client = Client::connect(context, vec![project.clone()]).await?;
    // No session is made that could not do what it is for.
    let server: ServerInfoReply = client.ask("get_server_info", json!({})).await?;
    if let Some(refused) = server.prompts_refused {
        return Err(CliError::Refused(refused));
    }
    let created = client.call("create_session", call).await?;
    let session: SessionReply = read("create_session", created)?;
    let id = &session.session_id;
    let order = order(id, &words, &arguments.options);
    let given = client.ask("execute_in_session", order).await;
    let has_transcript = given.is_ok();
    let ended = match given {
        Ok(started) => follow(context, &client, &started, arguments, &mut interrupts).await,
        Err(error) => Err(error),
    };
    if arguments.keep {
        note(&format!(
            "the session stays: {} {id}, until {}",
            session.session_name, session.expires_at
        ));
        return ended;
    }
    match (destroy(context, client, id).await, ended) {
        (Ok(()), ended) => {
            if has_transcript && !context.output.json {
                let short = short_id(id);
                note(&format!(
                    "the session is destroyed; claude-code-mcp session transcript {short} shows for a day what was done"
                ));
            }
            ended
        }
        (Err(error), ended) => {
            note(&format!(
                "the session {id} could not be destroyed: {}",
                error.chain()
            ));
            // A success that leaves something behind is none.
            ended.map(|code| code.max(EXIT_REFUSED))
        }
    }
}

fn creation(
    context: &Context,
    arguments: &RunArguments,
    project: &std::path::Path,
) -> Result<Value, CliError> {
    let timeout = arguments.options.timeout.filter(|_| !arguments.keep);
    Ok(json!({
        "projectPath": project,
        "backend": arguments.backend,
        "strictPermissions": arguments.strict,
        "network": network(&arguments.network),
        "env": variables(context, &arguments.environment)?,
        "ttlSeconds": timeout.map(|timeout| timeout.as_secs().saturating_add(TTL_MARGIN_SECONDS)),
    }))
}

/// Follows the prompt to its end.
async fn follow(
    context: &Context,
    client: &Client,
    started: &ExecutionReply,
    arguments: &RunArguments,
    interrupts: &mut Interrupts,
) -> Result<u8, CliError> {
    let look = match arguments.options.quiet {
        true => Look::Quiet,
        false => Look::All,
    };
    let teller = Teller::new(context.output, look, "");
    let follower = Follower::new(
        client,
        &started.session_id,
        &started.execution_id,
        teller,
        OnInterrupt::Cancel,
    );
    match follower.follow(interrupts).await? {
        Some(ended) => report(context, &ended),
        None => Ok(EXIT_SIGNAL_BASE + SIGINT),
    }
}

/// Destroys the session, by a new connection where the first one broke.
async fn destroy(context: &Context, client: Client, session_id: &str) -> Result<(), CliError> {
    let call = || json!({ "sessionId": session_id });
    match client.call("destroy_session", call()).await {
        Err(CliError::Conversation(_)) => {
            drop(client);
            let again = Client::connect(context, Vec::new()).await?;
            again.call("destroy_session", call()).await?;
        }
        answer => drop(answer?),
    }
    Ok(())
}

//! `session destroy`

use mcp::reply::{DestroyReply, SessionListReply};
use serde_json::{Value, json};

use super::{
    CliError, Client, Context, EXIT_OK, EXIT_REFUSED, read,
    resolve::{is_live, resolve},
    show::note_sessions_of_others,
};
use crate::cli::output::report;

pub(super) async fn run(context: &Context, sessions: &[String], all: bool) -> Result<u8, CliError> {
    let client = Client::connect(context, Vec::new()).await?;
    let names = if all {
        live(&client).await?
    } else {
        sessions.to_vec()
    };
    let (mut results, mut code) = (Vec::new(), EXIT_OK);
    for name in names {
        match destroy(&client, &name).await {
            Ok(content) => {
                if !context.output.json {
                    let reply: DestroyReply = read("destroy_session", content.clone())?;
                    context
                        .output
                        .line(&format!("destroyed {}", reply.session_id))?;
                }
                results.push(content);
            }
            // The others are still to be destroyed.
            Err(error) => {
                report(&error, context.output.json);
                code = EXIT_REFUSED;
            }
        }
    }
    if all && results.is_empty() && code == EXIT_OK && !context.output.json {
        context.output.line("no session of yours is live")?;
        note_sessions_of_others(context)?;
    }
    match (context.output.json, all, results.as_slice()) {
        (true, false, [one]) => context.output.json(one)?,
        (true, _, several) => context.output.json(several)?,
        (false, ..) => {}
    }
    Ok(code)
}

async fn live(client: &Client) -> Result<Vec<String>, CliError> {
    let list: SessionListReply = client.ask("list_sessions", json!({})).await?;
    let live = list
        .sessions
        .into_iter()
        .filter(|session| is_live(session.state));
    Ok(live.map(|session| session.session_id).collect())
}

async fn destroy(client: &Client, name: &str) -> Result<Value, CliError> {
    let session_id = resolve(client, name).await?;
    client
        .call("destroy_session", json!({ "sessionId": session_id }))
        .await
}

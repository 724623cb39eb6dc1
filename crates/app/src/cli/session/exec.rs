//! `session exec`

use std::io::IsTerminal;

use mcp::reply::ExecutionReply;
use serde_json::json;

use super::{
    super::arguments::ExecArguments,
    CliError, Client, Context, EXIT_OK, read,
    resolve::resolve,
    run::{Sink, run as run_stream},
    variables::variables,
};
use crate::stream::StreamRequest;

pub(super) async fn run(context: &Context, arguments: ExecArguments) -> Result<u8, CliError> {
    let client = Client::connect(context, Vec::new()).await?;
    let session_id = resolve(&client, &arguments.session).await?;
    let env = variables(context, &arguments.environment)?;
    let timeout_seconds = arguments.timeout.map(|timeout| timeout.as_secs().max(1));
    if arguments.detach {
        let call = json!({
            "sessionId": session_id, "argv": arguments.command, "cwd": arguments.cwd, "env": env,
            "timeoutSeconds": timeout_seconds, "waitSeconds": 0,
        });
        return detach(context, &client, call).await;
    }
    let request = StreamRequest {
        session_id,
        argv: arguments.command,
        cwd: arguments
            .cwd
            .map(|cwd| std::path::Path::new("/workspace").join(cwd)),
        env,
        timeout_seconds,
        terminal: None,
        stdin: !std::io::stdin().is_terminal(),
    };
    let sink = if context.output.json {
        Sink::Drop
    } else {
        Sink::Pass
    };
    let run = run_stream(context, &request, sink).await?;
    run.say_notes();
    if context.output.json {
        let call = json!({ "executionId": run.execution_id, "waitSeconds": 0 });
        context
            .output
            .json(&client.call("get_execution", call).await?)?;
    }
    Ok(run.exit_code())
}

async fn detach(
    context: &Context,
    client: &Client,
    call: serde_json::Value,
) -> Result<u8, CliError> {
    let content = client.call("execute_command", call).await?;
    if context.output.json {
        context.output.json(&content)?;
    } else {
        let reply: ExecutionReply = read("execute_command", content)?;
        context.output.line(&reply.execution_id)?;
    }
    Ok(EXIT_OK)
}

//! `session attach`: looks on at what runs. Leaving ends nothing.

use std::io::{self, Write};

use mcp::reply::{
    ErrorBody, ExecutionKind, ExecutionReply, ExecutionStateName, SessionReply, StreamReply,
};
use model::{ExecutionId, Reason};
use serde_json::json;

use super::{CliError, Client, Context, read, resolve::resolve};
use crate::cli::{
    EXIT_NOT_RUN, EXIT_SIGNAL_BASE, EXIT_TIMED_OUT,
    output::note,
    prompt::{Asking, Follower, Interrupts, Look, OnInterrupt, Person, Teller, report},
};

/// Signal of Ctrl-C.
const SIGINT: u8 = 2;
/// How long one look at a command waits for news, seconds.
const LOOK_SECONDS: u64 = 20;
/// The same where a person may be asked something meanwhile.
const ASKING_LOOK_SECONDS: u64 = 1;

pub(super) async fn run(context: &Context, target: &str) -> Result<u8, CliError> {
    let mut interrupts = Interrupts::new()?;
    let client = Client::connect(context, Vec::new()).await?;
    let execution = meant(&client, target).await?;
    if execution.kind == ExecutionKind::Command {
        return tokio::select! {
            code = follow_command(&client, &execution) => code,
            () = interrupts.next() => left(&execution),
        };
    }
    let follower = Follower::new(
        &client,
        &execution.session_id,
        &execution.execution_id,
        Teller::new(context.output, Look::All, ""),
        OnInterrupt::Leave,
    );
    match follower.follow(&mut interrupts).await? {
        Some(ended) => report(context, &ended),
        None => left(&execution),
    }
}

fn left(execution: &ExecutionReply) -> Result<u8, CliError> {
    note(&format!("left; {} goes on", execution.execution_id));
    Ok(EXIT_SIGNAL_BASE + SIGINT)
}

/// The execution that is named, or the one that runs in the session that is named; of several, the only prompt.
async fn meant(client: &Client, target: &str) -> Result<ExecutionReply, CliError> {
    if target.parse::<ExecutionId>().is_ok() {
        return look(client, target).await;
    }
    let session_id = resolve(client, target).await?;
    let session: SessionReply = client
        .ask("get_session", json!({ "sessionId": session_id }))
        .await?;
    let mut running = Vec::new();
    for id in &session.running_executions {
        running.push(look(client, id).await?);
    }
    let prompts = running
        .iter()
        .filter(|execution| execution.kind == ExecutionKind::Prompt);
    let choice = match (prompts.clone().count(), running.len()) {
        (1, _) => prompts.clone().next(),
        (_, 1) => running.first(),
        _ => None,
    };
    choice
        .cloned()
        .ok_or_else(|| CliError::Refused(unclear(target, &running)))
}

async fn look(client: &Client, id: &str) -> Result<ExecutionReply, CliError> {
    let call = json!({ "executionId": id, "waitSeconds": 0 });
    client.ask("get_execution", call).await
}

fn unclear(target: &str, running: &[ExecutionReply]) -> ErrorBody {
    let names: Vec<_> = running
        .iter()
        .map(|execution| execution.execution_id.as_str())
        .collect();
    let (code, message, hint) = match names.is_empty() {
        true => (
            Reason::ExecutionNotFound,
            format!("nothing runs in {target:?}"),
            "claude-code-mcp session logs shows what happened; session transcript, where a prompt was given, what was said and done.",
        ),
        false => (
            Reason::InvalidArgument,
            format!("several run in {target:?}: {}", names.join(", ")),
            "Give the id of one of them.",
        ),
    };
    ErrorBody {
        code: code.code().to_owned(),
        message,
        hint: hint.to_owned(),
        field: None,
        retry_after_ms: None,
    }
}

/// Prints what a command prints, from its first kept byte on, until it ends. Whoever sits at the terminal is asked for hosts that
/// the session wants to reach meanwhile.
async fn follow_command(client: &Client, execution: &ExecutionReply) -> Result<u8, CliError> {
    let id = &execution.execution_id;
    let mut asking = Person::is_there().then(|| Asking::new(client, &execution.session_id));
    let seconds = match asking {
        Some(_) => ASKING_LOOK_SECONDS,
        None => LOOK_SECONDS,
    };
    let (mut stdout, mut stderr) = (0, 0);
    loop {
        let call = json!({
            "executionId": id, "stdoutCursor": stdout, "stderrCursor": stderr, "waitSeconds": seconds,
        });
        let content = client.call("get_execution", call).await?;
        let reply: ExecutionReply = read("get_execution", content)?;
        pass(&mut io::stdout(), &reply.stdout)?;
        pass(&mut io::stderr(), &reply.stderr)?;
        let has_all = |stream: &StreamReply, before: u64| {
            stream.cursor >= stream.bytes_total || stream.cursor == before
        };
        let is_read = has_all(&reply.stdout, stdout) && has_all(&reply.stderr, stderr);
        (stdout, stderr) = (reply.stdout.cursor, reply.stderr.cursor);
        if reply.state.is_final() && is_read {
            return Ok(exit_code(&reply));
        }
        if let Some(asking) = &mut asking {
            let wanted = asking.wanted_host().await?;
            asking.step(wanted, None).await?;
        }
    }
}

fn pass(out: &mut impl Write, stream: &StreamReply) -> Result<(), CliError> {
    out.write_all(stream.text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(CliError::Terminal)
}

fn exit_code(reply: &ExecutionReply) -> u8 {
    match (reply.state, reply.exit_code, reply.signal) {
        (ExecutionStateName::TimedOut, ..) => EXIT_TIMED_OUT,
        (ExecutionStateName::Failed, ..) => EXIT_NOT_RUN,
        (_, Some(code), _) => u8::try_from(code & 0xff).unwrap_or(EXIT_NOT_RUN),
        (_, None, Some(signal)) => {
            EXIT_SIGNAL_BASE.saturating_add(u8::try_from(signal & 0x7f).unwrap_or_default())
        }
        (_, None, None) => EXIT_NOT_RUN,
    }
}

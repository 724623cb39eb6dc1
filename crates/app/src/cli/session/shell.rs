//! `session shell`

use std::{collections::BTreeMap, io::IsTerminal};

use super::{
    super::terminal::{self, RawTerminal},
    CliError, Client, Context,
    resolve::resolve,
    run::{Sink, run as run_stream},
};
use crate::stream::StreamRequest;

/// The best shell that is there.
const SHELL: &str = "command -v bash >/dev/null 2>&1 && exec bash; exec sh";

pub(super) async fn run(context: &Context, session: &str) -> Result<u8, CliError> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        let sentence = "a shell needs a terminal; run a command with `claude-code-mcp session exec SESSION -- COMMAND`";
        return Err(CliError::Usage(sentence.to_owned()));
    }
    if context.output.json {
        return Err(CliError::Usage(
            "a shell has no structured result; leave --json out".to_owned(),
        ));
    }
    let client = Client::connect(context, Vec::new()).await?;
    let session_id = resolve(&client, session).await?;
    let term = context
        .environment
        .get("TERM")
        .and_then(|term| term.to_str())
        .unwrap_or("xterm-256color");
    let request = StreamRequest {
        session_id,
        argv: ["/bin/sh", "-c", SHELL].map(str::to_owned).to_vec(),
        cwd: None,
        env: BTreeMap::from([("TERM".to_owned(), term.to_owned())]),
        timeout_seconds: None,
        terminal: Some(terminal::size()),
        stdin: true,
    };
    let raw = RawTerminal::enter().map_err(CliError::Terminal)?;
    let run = run_stream(context, &request, Sink::Pass).await;
    drop(raw);
    let run = run?;
    run.say_notes();
    Ok(run.exit_code())
}

//! `session transcript`

use mcp::reply::{LogLineReply, LogsReply, TranscriptKindName};
use serde_json::json;

use super::{CliError, Client, Context, EXIT_OK, resolve::resolve};
use crate::cli::output::{Color, aligned, note};

/// Lines of one page.
const PAGE_LINES: u32 = 500;

pub(super) async fn run(
    context: &Context,
    session: &str,
    conversation: Option<&str>,
) -> Result<u8, CliError> {
    let client = Client::connect(context, Vec::new()).await?;
    let session_id = resolve(&client, session).await?;
    let (mut cursor, mut conversation) = (0, conversation.map(str::to_owned));
    loop {
        let page: LogsReply = client
            .ask(
                "get_session_logs",
                json!({
                    "sessionId": session_id, "transcript": true, "tail": PAGE_LINES,
                    "conversationId": conversation, "cursor": cursor,
                }),
            )
            .await?;
        for line in &page.lines {
            match context.output.json {
                true => context.output.json_line(line)?,
                false => print(context, line)?,
            }
        }
        cursor = page.cursor.unwrap_or(cursor);
        if conversation.is_none() && !context.output.json {
            let id = page.conversation_id.as_deref().unwrap_or_default();
            note(&format!(
                "conversation {id}, the one that was written to last"
            ));
        }
        // The same one to the end, also when another is written to meanwhile.
        conversation = page.conversation_id.or(conversation);
        if !page.truncated {
            return Ok(EXIT_OK);
        }
    }
}

fn print(context: &Context, line: &LogLineReply) -> Result<(), CliError> {
    let output = context.output;
    let Some(kind) = line.kind else { return Ok(()) };
    let (word, color) = match kind {
        // Told by what follows and what went before.
        TranscriptKindName::Begun | TranscriptKindName::Ended => return Ok(()),
        TranscriptKindName::Prompt => ("prompt", Color::Green),
        TranscriptKindName::Says => ("says", Color::Green),
        TranscriptKindName::Uses => ("uses", Color::Dim),
        TranscriptKindName::Gives => ("gives", Color::Dim),
        TranscriptKindName::Fails => ("fails", Color::Red),
        TranscriptKindName::Asks => ("asks", Color::Yellow),
        TranscriptKindName::Waits => ("waits", Color::Yellow),
    };
    let mut lines = line.text.lines();
    let first = lines.next().unwrap_or_default();
    let word = output.paint(color, &format!("{word:<6}"));
    output.line(&format!("{}  {word}  {first}", aligned(&line.at)))?;
    for more in lines {
        output.line(&format!("                                  {more}"))?;
    }
    Ok(())
}

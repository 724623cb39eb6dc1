//! `session logs`

use std::time::Duration;

use mcp::reply::{LogLineReply, LogsReply, SessionReply};
use serde_json::{Value, json};

use super::{
    CliError, Client, Context, EXIT_OK, read,
    resolve::{is_live, resolve},
};

use crate::cli::output::aligned;

/// Pause between two looks with `--follow`.
const FOLLOW_PAUSE: Duration = Duration::from_millis(500);
/// Lines that a look with `--follow` asks for: the most that the tool gives.
const FOLLOW_TAIL: u32 = 1000;

pub(super) async fn run(
    context: &Context,
    session: &str,
    tail: u32,
    follow: bool,
) -> Result<u8, CliError> {
    let client = Client::connect(context, Vec::new()).await?;
    let session_id = resolve(&client, session).await?;
    let content = look(&client, &session_id, tail).await?;
    let seen = read::<LogsReply>("get_session_logs", content.clone())?.lines;
    if context.output.json && !follow {
        context.output.json(&content)?;
        return Ok(EXIT_OK);
    }
    print(context, &seen)?;
    if follow {
        keep_printing(context, &client, &session_id, seen).await?;
    }
    Ok(EXIT_OK)
}

/// Prints new lines until the session ends.
async fn keep_printing(
    context: &Context,
    client: &Client,
    session_id: &str,
    mut seen: Vec<LogLineReply>,
) -> Result<(), CliError> {
    loop {
        let session: SessionReply = client
            .ask("get_session", json!({ "sessionId": session_id }))
            .await?;
        let reply: LogsReply = read(
            "get_session_logs",
            look(client, session_id, FOLLOW_TAIL).await?,
        )?;
        let first_new = first_new(&seen, &reply.lines);
        print(context, reply.lines.get(first_new..).unwrap_or_default())?;
        seen = reply.lines;
        if !is_live(session.state) {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW_PAUSE).await;
    }
}

async fn look(client: &Client, session_id: &str, tail: u32) -> Result<Value, CliError> {
    client
        .call(
            "get_session_logs",
            json!({ "sessionId": session_id, "tail": tail }),
        )
        .await
}

/// Where in `now` the lines begin that were not there in `before`: after the last run of lines that both have.
fn first_new(before: &[LogLineReply], now: &[LogLineReply]) -> usize {
    (0..=now.len())
        .rev()
        .find(|end| now.get(..*end).is_some_and(|head| ends_alike(before, head)))
        .unwrap_or(0)
}

/// The longer one ends with the shorter one.
fn ends_alike(before: &[LogLineReply], head: &[LogLineReply]) -> bool {
    let common = before.len().min(head.len());
    (common > 0 || before.is_empty())
        && before.get(before.len() - common..) == head.get(head.len() - common..)
}

fn print(context: &Context, lines: &[LogLineReply]) -> Result<(), CliError> {
    for line in lines {
        if context.output.json {
            context.output.json_line(line)?;
        } else {
            context
                .output
                .line(&format!("{}  {}", aligned(&line.at), line.text))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<LogLineReply> {
        texts
            .iter()
            .map(|text| LogLineReply {
                at: String::new(),
                text: (*text).to_owned(),
                kind: None,
                execution_id: None,
            })
            .collect()
    }

    #[test]
    fn times_have_one_width() {
        for time in [
            "2026-01-01T00:00:00Z",
            "2026-01-01T00:00:00.5Z",
            "2026-01-01T00:00:00.123456789Z",
        ] {
            assert_eq!(
                aligned(time).len(),
                "2026-01-01T00:00:00.000Z".len(),
                "{time}"
            );
        }
        assert_eq!(
            aligned("2026-01-01T00:00:00.5Z"),
            "2026-01-01T00:00:00.500Z"
        );
    }

    #[test]
    fn following_prints_each_line_once() {
        let new = |before: &[&str], now: &[&str]| first_new(&lines(before), &lines(now));
        assert_eq!(new(&["a", "b"], &["a", "b", "c"]), 2);
        assert_eq!(
            new(&["b"], &["a", "b", "c", "d"]),
            2,
            "the first look was shorter"
        );
        assert_eq!(
            new(&["a", "b", "c"], &["b", "c", "d"]),
            2,
            "old lines fell out"
        );
        assert_eq!(new(&["a", "a"], &["a", "a"]), 2);
        assert_eq!(new(&["a"], &["a"]), 1);
        assert_eq!(new(&["a", "b"], &["x", "y"]), 0, "everything is new");
    }
}

//! `session list` and `session show`

use std::time::Duration;

use jiff::Timestamp;
use mcp::reply::{SessionListReply, SessionReply, SessionStateName};
use serde_json::json;

use super::{
    CliError, Client, Context, EXIT_OK, network, read,
    resolve::{is_live, resolve},
};
use crate::{
    cli::{
        output::{Color, Output, note},
        server::owners,
    },
    config::units::{counted, format_duration, format_size},
    server::handshake::Mode,
};

/// Digits of an id that a table shows; they are enough to name the session.
const SHORT_ID_BYTES: usize = 14;

pub(super) async fn list(context: &Context, all: bool) -> Result<u8, CliError> {
    let client = Client::connect(context, Vec::new()).await?;
    let content = client
        .call("list_sessions", json!({ "includeEnded": all }))
        .await?;
    if context.output.json {
        context.output.json(&content)?;
        return Ok(EXIT_OK);
    }
    note_sessions_of_others(context)?;
    let reply: SessionListReply = read("list_sessions", content)?;
    if reply.sessions.is_empty() {
        context.output.line(match all {
            true => "no sessions, and none on record that have ended; claude-code-mcp session create makes one",
            false => "no sessions; claude-code-mcp session create makes one",
        })?;
        return Ok(EXIT_OK);
    }
    let now = Timestamp::now();
    let rows = reply
        .sessions
        .iter()
        .map(|session| row(context.output, session, now));
    context.output.table(
        &[
            "SESSION", "NAME", "STATE", "BACKEND", "AGE", "LEFT", "RUNNING", "SPENT", "PROJECT",
        ],
        rows,
    )?;
    Ok(EXIT_OK)
}

/// Sessions belong to whoever made them: those of others are in no list of ours, and live all the same.
pub(super) fn note_sessions_of_others(context: &Context) -> Result<(), CliError> {
    let Some(standing) = context.connect_existing(Mode::Status)? else {
        return Ok(());
    };
    let live = counted(standing.reply.sessions.into(), "session");
    if let Some(owners) = owners(&standing.reply) {
        note(&format!("{live} live on this server: {owners}"));
    }
    Ok(())
}

fn row(output: Output, session: &SessionReply, now: Timestamp) -> Vec<String> {
    let left = match &session.ended_at {
        Some(ended) => format!("ended {} ago", since(ended, now)),
        None if is_live(session.state) => between(now, &session.expires_at),
        None => "-".to_owned(),
    };
    vec![
        short_id(&session.session_id).to_owned(),
        session.session_name.clone(),
        state(output, session.state),
        session.backend.clone(),
        since(&session.created_at, now),
        left,
        session.running_executions.len().to_string(),
        spent(session),
        session.project_path.clone(),
    ]
}

/// What its model provider cost by the price table; with a plus where that is not all of it.
fn spent(session: &SessionReply) -> String {
    match &session.provider_usage {
        None => "-".to_owned(),
        Some(usage) if usage.unpriced_requests > 0 => format!("{}+", dollars(usage.cost_usd)),
        Some(usage) => dollars(usage.cost_usd),
    }
}

/// As much of an id as a table shows.
pub(in crate::cli) fn short_id(id: &str) -> &str {
    id.get(..SHORT_ID_BYTES).unwrap_or(id)
}

fn state(output: Output, state: SessionStateName) -> String {
    let (color, word) = match state {
        SessionStateName::Creating => (Color::Yellow, "creating"),
        SessionStateName::Ready => (Color::Green, "ready"),
        SessionStateName::Busy => (Color::Green, "busy"),
        SessionStateName::Paused => (Color::Yellow, "paused"),
        SessionStateName::Expired => (Color::Dim, "expired"),
        SessionStateName::Destroyed => (Color::Dim, "destroyed"),
        SessionStateName::Failed => (Color::Red, "failed"),
        SessionStateName::Unknown => (Color::Yellow, "unknown"),
    };
    output.paint(color, word)
}

fn since(then: &str, now: Timestamp) -> String {
    then.parse::<Timestamp>()
        .map_or_else(|_| "?".to_owned(), |then| distance(then, now))
}

fn between(now: Timestamp, then: &str) -> String {
    then.parse::<Timestamp>()
        .map_or_else(|_| "?".to_owned(), |then| distance(now, then))
}

fn distance(from: Timestamp, to: Timestamp) -> String {
    let seconds = u64::try_from(to.as_second() - from.as_second()).unwrap_or_default();
    format_duration(Duration::from_secs(seconds))
}

pub(super) async fn show(context: &Context, session: &str) -> Result<u8, CliError> {
    let client = Client::connect(context, Vec::new()).await?;
    let session_id = resolve(&client, session).await?;
    let content = client
        .call("get_session", json!({ "sessionId": session_id }))
        .await?;
    if context.output.json {
        context.output.json(&content)?;
        return Ok(EXIT_OK);
    }
    let reply: SessionReply = read("get_session", content)?;
    facts(context.output, &reply)?;
    context.output.line("")?;
    network::show(context.output, reply.network.as_ref())?;
    network::show_pending(context.output, &reply)?;
    hardening(context.output, &reply)?;
    Ok(EXIT_OK)
}

fn facts(output: Output, reply: &SessionReply) -> Result<(), CliError> {
    let mut lines = vec![
        ("session", reply.session_id.clone()),
        ("name", reply.session_name.clone()),
        ("state", state(output, reply.state)),
        ("project", reply.project_path.clone()),
        ("backend", reply.backend.clone()),
        ("created", reply.created_at.clone()),
        ("ends", ends(reply)),
        ("running", reply.running_executions.join(" ")),
    ];
    if !is_live(reply.state) {
        let parts = [reply.ended_at.clone(), reply.ended_because.clone()];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        lines.push(("ended", parts.join(": ")));
    }
    if let Some(usage) = &reply.usage {
        let memory = usage
            .memory_bytes
            .map(|bytes| format!("{} of memory", format_size(bytes)));
        let processes = usage.pids.map(|count| match count {
            1 => "1 process".to_owned(),
            count => format!("{count} processes"),
        });
        let cpu = usage
            .cpu_us
            .map(|time| format!("{}.{} s of CPU", time / 1_000_000, time / 100_000 % 10));
        lines.push((
            "uses",
            [memory, processes, cpu]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(", "),
        ));
    }
    lines.extend(provider(reply));
    for (name, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        output.line(&format!("{name:<9} {value}"))?;
    }
    Ok(())
}

/// When it will end; nothing for one that has.
fn ends(reply: &SessionReply) -> String {
    if !is_live(reply.state) {
        return String::new();
    }
    let idle = format_duration(Duration::from_secs(reply.idle_seconds));
    format!("{}, or idle for {idle}", reply.expires_at)
}

/// What it used of its model provider, and what is left: `$0.0125, 3 requests, 100 tokens, 1 refused`.
fn provider(reply: &SessionReply) -> Vec<(&'static str, String)> {
    let Some(usage) = &reply.provider_usage else {
        return Vec::new();
    };
    let tokens = &usage.tokens;
    let all = [
        tokens.input,
        tokens.output,
        tokens.cache_read,
        tokens.cache_write,
    ];
    let mut spent = format!(
        "{}, {}, {}",
        dollars(usage.cost_usd),
        counted(usage.requests, "request"),
        counted(all.into_iter().fold(0, u64::saturating_add), "token")
    );
    if usage.unpriced_requests > 0 {
        spent.push_str(&format!(", {} of unknown price", usage.unpriced_requests));
    }
    if usage.denied > 0 {
        spent.push_str(&format!(", {} refused", usage.denied));
    }
    let mut lines = vec![("spent", spent)];
    for left in &usage.left {
        let whose = match left.scope.as_str() {
            "session" => "of the session's",
            "callerDay" => "of yours today",
            "serverDay" => "of the server's today",
            other => other,
        };
        let amounts = [
            left.usd.map(dollars),
            left.requests.map(|count| counted(count, "request")),
            left.tokens.map(|count| counted(count, "token")),
        ];
        let amounts: Vec<_> = amounts.into_iter().flatten().collect();
        lines.push(("left", format!("{} {whose}", amounts.join(", "))));
    }
    lines
}

/// Dollars and cents, finer where there is less than a cent.
fn dollars(amount: f64) -> String {
    match amount {
        amount if amount > 0.0 && amount < 0.01 => format!("${amount:.6}"),
        amount => format!("${amount:.2}"),
    }
}

fn hardening(output: Output, reply: &SessionReply) -> Result<(), CliError> {
    let Some(hardening) = &reply.hardening else {
        return Ok(());
    };
    output.line("")?;
    let layers = hardening.layers.iter().map(|layer| {
        let word = if layer.in_force {
            output.paint(Color::Green, "yes")
        } else {
            output.paint(Color::Red, "no")
        };
        vec![layer.layer.clone(), word, layer.evidence.clone()]
    });
    output.table(&["LAYER", "IN FORCE", "READ BACK"], layers)?;
    output.line("")?;
    let limits = hardening.limits.iter().map(|limit| {
        let value = limit
            .in_force
            .map_or_else(|| "-".to_owned(), |value| value.to_string());
        let color = if limit.enforcement == "hard" {
            Color::Green
        } else {
            Color::Yellow
        };
        vec![
            limit.limit.clone(),
            value,
            output.paint(color, &limit.enforcement),
            limit.mechanism.clone(),
        ]
    });
    output.table(&["LIMIT", "VALUE", "HOLDS", "BY"], limits)
}

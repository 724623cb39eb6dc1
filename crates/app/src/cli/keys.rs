//! `keys …`: keys for callers from elsewhere. The server does it, one that runs or one that is started for it, so that there is
//! one place that decides and one log.

use std::time::Duration;

use mcp::reply::{KeyListReply, KeyReply, NewKeyReply, RevokedKeyReply};
use serde_json::json;

use super::{
    CliError, Context, EXIT_OK,
    arguments::{CreateKeyArguments, KeysCommand},
    block_on,
    client::{Client, read},
    output::{Color, Output, aligned, note},
};

/// Carries out one command on keys.
pub(super) fn run(context: &Context, command: KeysCommand) -> Result<u8, CliError> {
    match command {
        KeysCommand::Create(arguments) => block_on(create(context, *arguments)),
        KeysCommand::List => block_on(list(context)),
        KeysCommand::Rotate { key, overlap } => block_on(rotate(context, &key, overlap)),
        KeysCommand::Revoke {
            key,
            destroy_sessions,
        } => block_on(revoke(context, &key, destroy_sessions)),
    }
}

async fn create(context: &Context, arguments: CreateKeyArguments) -> Result<u8, CliError> {
    let roots = arguments
        .roots
        .iter()
        .map(|root| absolute(root))
        .collect::<Result<Vec<_>, _>>()?;
    let call = json!({
        "name": arguments.name,
        "scopes": arguments.scopes,
        "roots": roots,
        "maxSessions": arguments.max_sessions,
        "callsPerMinute": arguments.calls_per_minute,
        "expiresSeconds": arguments.expires.map(|time| time.as_secs().max(1)),
    });
    let client = Client::connect(context, Vec::new()).await?;
    let reply: NewKeyReply = client.ask("create_key", call).await?;
    shown_once(context.output, &reply)
}

async fn rotate(context: &Context, key: &str, overlap: Option<Duration>) -> Result<u8, CliError> {
    let client = Client::connect(context, Vec::new()).await?;
    let call = json!({ "keyId": key, "overlapSeconds": overlap.map(|time| time.as_secs()) });
    let reply: NewKeyReply = client.ask("rotate_key", call).await?;
    shown_once(context.output, &reply)
}

/// The key alone on standard output, so that a script can take it; all words on standard error.
fn shown_once(output: Output, reply: &NewKeyReply) -> Result<u8, CliError> {
    if output.json {
        output.json(reply)?;
        return Ok(EXIT_OK);
    }
    output.line(&reply.secret)?;
    let KeyReply {
        key_id,
        name,
        scopes,
        expires_at,
        ..
    } = &reply.key;
    let end = expires_at
        .as_ref()
        .map_or("until it is revoked".to_owned(), |end| {
            format!("until {end}")
        });
    note(&format!(
        "key {key_id} ({name}): {}, valid {end}",
        scopes.join(" ")
    ));
    if let Some(old) = &reply.replaces {
        let end = old.expires_at.as_deref().unwrap_or_default();
        note(&format!(
            "it takes the place of {}, which ends at {end}",
            old.key_id
        ));
    }
    note("it is shown this once: keep it where secrets are kept");
    Ok(EXIT_OK)
}

async fn list(context: &Context) -> Result<u8, CliError> {
    let client = Client::connect(context, Vec::new()).await?;
    let content = client.call("list_keys", json!({})).await?;
    let output = context.output;
    if output.json {
        output.json(&content)?;
        return Ok(EXIT_OK);
    }
    let reply: KeyListReply = read("list_keys", content)?;
    if reply.keys.is_empty() {
        output.line("there is no key; claude-code-mcp keys create makes one")?;
        return Ok(EXIT_OK);
    }
    let time = |time: &Option<String>| time.as_deref().map_or("-".to_owned(), aligned);
    let rows = reply.keys.iter().map(|key| {
        let color = match key.state.as_str() {
            "active" => Color::Green,
            _ => Color::Dim,
        };
        vec![
            key.key_id.clone(),
            output.paint(color, &key.state),
            key.name.clone(),
            key.scopes.join(" "),
            time(&key.expires_at),
            time(&key.last_used_at),
            key.roots.join(" "),
        ]
    });
    let header = [
        "KEY",
        "STATE",
        "NAME",
        "SCOPES",
        "EXPIRES",
        "LAST USED",
        "ROOTS",
    ];
    output.table(&header, rows)?;
    Ok(EXIT_OK)
}

async fn revoke(context: &Context, key: &str, destroy_sessions: bool) -> Result<u8, CliError> {
    let client = Client::connect(context, Vec::new()).await?;
    let call = json!({ "keyId": key, "destroySessions": destroy_sessions });
    let content = client.call("revoke_key", call).await?;
    let output = context.output;
    if output.json {
        output.json(&content)?;
        return Ok(EXIT_OK);
    }
    let reply: RevokedKeyReply = read("revoke_key", content)?;
    output.line(&format!("{} is revoked", reply.key.key_id))?;
    for session in &reply.destroyed_sessions {
        output.line(&format!("destroyed {session}"))?;
    }
    if reply.sessions_left > 0 {
        let left = reply.sessions_left;
        note(&format!(
            "{left} of its sessions live on until their time is over; --destroy-sessions ends them"
        ));
    }
    Ok(EXIT_OK)
}

/// Where the directory is, seen from here; links stay as they are.
fn absolute(path: &std::path::Path) -> Result<String, CliError> {
    let path = std::path::absolute(path).map_err(CliError::Runtime)?;
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| CliError::Usage("a directory's name must be valid UTF-8".to_owned()))
}

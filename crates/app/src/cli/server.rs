//! `server status`, `server reload` and `server stop`.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{CliError, Context, EXIT_OK, EXIT_REFUSED, arguments::ServerCommand};
use crate::{
    config::units::{counted, format_duration},
    server::{
        ReloadOutcome, Reloaded,
        handshake::{Mode, Owner, Reply},
        read_address,
    },
};

/// How long a server may take to end: it promises 5 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// How the names of owners begin that are keys.
const KEY_OWNER: &str = "key:";
/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

pub(super) fn run(context: &Context, command: &ServerCommand) -> Result<u8, CliError> {
    match command {
        ServerCommand::Status => status(context),
        ServerCommand::Reload => reload(context),
        ServerCommand::Stop { force } => stop(context, *force),
    }
}

fn standing(context: &Context) -> Result<Option<Reply>, CliError> {
    Ok(context
        .connect_existing(Mode::Status)?
        .map(|connected| connected.reply))
}

fn status(context: &Context) -> Result<u8, CliError> {
    let state_dir = context.config.paths.state_dir.display().to_string();
    let Some(reply) = standing(context)? else {
        if context.output.json {
            context
                .output
                .json(&json!({ "running": false, "stateDirectory": state_dir }))?;
        } else {
            context.output.line(&format!(
                "no server runs for {state_dir}; the next client starts one"
            ))?;
        }
        return Ok(EXIT_REFUSED);
    };
    let socket =
        read_address(&context.config.paths).map(|address| address.socket.display().to_string());
    if context.output.json {
        context.output.json(&json!({
            "running": true, "version": reply.version, "pid": reply.server_pid, "uptimeSeconds": reply.uptime_seconds,
            "clients": reply.clients, "sessions": reply.sessions, "ownSessions": reply.own_sessions, "otherSessions": reply.others,
            "stateDirectory": state_dir, "socket": socket, "http": reply.http,
        }))?;
        return Ok(EXIT_OK);
    }
    let uptime = format_duration(Duration::from_secs(reply.uptime_seconds));
    let rows = [
        (
            "running",
            format!(
                "version {}, process {}, up {uptime}",
                reply.version, reply.server_pid
            ),
        ),
        ("clients", reply.clients.to_string()),
        (
            "sessions",
            match owners(&reply) {
                Some(owners) => format!("{} live: {owners}", reply.sessions),
                None => format!("{} live", reply.sessions),
            },
        ),
        ("state", state_dir),
        ("socket", socket.unwrap_or_default()),
        (
            "http",
            reply.http.unwrap_or_else(|| "not served".to_owned()),
        ),
    ];
    for (name, value) in rows {
        context.output.line(&format!("{name:<9} {value}"))?;
    }
    Ok(EXIT_OK)
}

fn reload(context: &Context) -> Result<u8, CliError> {
    let Some(connected) = context.connect_existing(Mode::Reload)? else {
        return stopped(
            context,
            "no server runs; the next one reads its configuration",
        );
    };
    let Some(reloaded) = connected.reply.reloaded else {
        let why = "the running server does not know how to read its configuration again; end it with `server stop`";
        return Err(CliError::StillRuns(why.to_owned()));
    };
    if context.output.json {
        context.output.json(&reloaded)?;
    } else {
        for line in told(&reloaded) {
            context.output.line(&line)?;
        }
    }
    Ok(match reloaded.outcome {
        ReloadOutcome::Changed | ReloadOutcome::Unchanged => EXIT_OK,
        ReloadOutcome::Rejected => EXIT_REFUSED,
    })
}

/// What came of it, for people.
fn told(reloaded: &Reloaded) -> Vec<String> {
    let source = reloaded.source.iter();
    let mut lines: Vec<String> = source
        .map(|source| format!("configuration file: {source}"))
        .collect();
    match reloaded.outcome {
        ReloadOutcome::Unchanged => lines.push("nothing is configured otherwise".to_owned()),
        ReloadOutcome::Rejected => {
            lines.push("the configuration is wrong, and nothing was changed:".to_owned());
            lines.extend(
                reloaded
                    .problems
                    .iter()
                    .map(|problem| format!("  {problem}")),
            );
        }
        ReloadOutcome::Changed => {
            lines.push("changed:".to_owned());
            lines.extend(reloaded.changed.iter().map(|one| {
                let when = match one.applies.as_str() {
                    "at_once" => "at once",
                    "new_sessions" => "for new sessions",
                    _ => "after a restart",
                };
                format!("  {} counts {when}", one.key)
            }));
        }
    }
    if reloaded.narrowed_sessions > 0 {
        lines.push(format!(
            "{} less of the network now",
            match reloaded.narrowed_sessions {
                1 => "1 session reaches".to_owned(),
                count => format!("{count} sessions reach"),
            }
        ));
    }
    if !reloaded.needs_restart.is_empty() {
        lines.push(format!(
            "needs a restart (claude-code-mcp server stop): {}",
            reloaded.needs_restart.join(", ")
        ));
    }
    lines
}

fn stop(context: &Context, force: bool) -> Result<u8, CliError> {
    let Some(reply) = standing(context)? else {
        return stopped(context, "no server runs");
    };
    if reply.sessions > 0 && !force {
        return Err(CliError::StillRuns(still_live(
            &reply,
            context.config.lease,
        )));
    }
    if context.connect_existing(Mode::Stop)?.is_none() {
        return stopped(context, "no server runs");
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    while is_alive(reply.server_pid) {
        if Instant::now() > deadline {
            return Err(CliError::StillRuns(format!(
                "process {} has not ended yet",
                reply.server_pid
            )));
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    stopped(context, "the server has ended")
}

/// What keeps a server from stopping, and what ends it. `session destroy --all` ends the asker's own sessions alone.
fn still_live(reply: &Reply, lease: Duration) -> String {
    let live = counted(reply.sessions.into(), "session");
    let end = match owners(reply) {
        None => "; destroy them first (claude-code-mcp session destroy --all)".to_owned(),
        Some(owners) => format!(": {owners}; {}", ends(reply)),
    };
    let lease = format_duration(lease);
    format!(
        "{live} still live{end}, or use --force: they then end when their lease of {lease} runs out, unless another server \
         takes them over"
    )
}

/// What ends each kind of them.
fn ends(reply: &Reply) -> String {
    let mut ways = Vec::new();
    if reply.own_sessions > Some(0) {
        ways.push("yours (claude-code-mcp session destroy --all)");
    }
    let is_of_a_key = |other: &Owner| other.owner.starts_with(KEY_OWNER);
    if reply.others.iter().any(is_of_a_key) {
        ways.push("those of a key (claude-code-mcp keys revoke KEY --destroy-sessions)");
    }
    match ways.is_empty() {
        true => "wait until their owners end them".to_owned(),
        false => format!("end {}", ways.join(" and ")),
    }
}

/// Whose the live sessions are, where some are not the asker's: `1 yours, 2 of key:abcdefghij23`.
pub(super) fn owners(reply: &Reply) -> Option<String> {
    if reply.others.is_empty() {
        return None;
    }
    let own = reply.own_sessions.unwrap_or_default();
    let mut told: Vec<_> = (own > 0)
        .then(|| format!("{own} yours"))
        .into_iter()
        .collect();
    let mut left = reply.sessions.saturating_sub(own);
    for Owner { owner, sessions } in &reply.others {
        told.push(format!("{sessions} of {owner}"));
        left = left.saturating_sub(*sessions);
    }
    if left > 0 {
        told.push(format!("{left} of others"));
    }
    Some(told.join(", "))
}

fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}

fn stopped(context: &Context, sentence: &str) -> Result<u8, CliError> {
    if context.output.json {
        context
            .output
            .json(&json!({ "running": false, "message": sentence }))?;
    } else {
        context.output.line(sentence)?;
    }
    Ok(EXIT_OK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::handshake::{PROTOCOL, Verdict};

    fn standing(sessions: u32, own_sessions: Option<u32>, others: &[(&str, u32)]) -> Reply {
        let others = others.iter().map(|(owner, sessions)| Owner {
            owner: (*owner).to_owned(),
            sessions: *sessions,
        });
        Reply {
            protocol: PROTOCOL,
            version: "1.2.3".to_owned(),
            server_pid: 1,
            verdict: Verdict::Welcome,
            message: None,
            clients: 0,
            sessions,
            http: None,
            own_sessions,
            others: others.collect(),
            uptime_seconds: 0,
            reloaded: None,
        }
    }

    /// `session destroy --all` was named, which finds none of them.
    #[test]
    fn a_stop_that_sessions_of_others_keep_back_named_a_way_that_ends_none_of_them() {
        let told = |reply: &Reply| still_live(reply, Duration::from_secs(30));
        let (all, revoke) = (
            "session destroy --all",
            "keys revoke KEY --destroy-sessions",
        );
        let remote = told(&standing(2, Some(0), &[("key:abcdefghij23", 2)]));
        assert!(!remote.contains(all), "{remote}");
        assert!(
            remote.contains(revoke) && remote.contains(": 2 of key:abcdefghij23;"),
            "{remote}"
        );
        let mixed = told(&standing(
            4,
            Some(1),
            &[("oauth:ab", 2), ("key:abcdefghij23", 1)],
        ));
        assert!(
            mixed.contains("4 sessions still live: 1 yours, 2 of oauth:ab, 1 of key:abcdefghij23;"),
            "{mixed}"
        );
        assert!(mixed.contains(all) && mixed.contains(revoke), "{mixed}");
        let token = told(&standing(1, Some(0), &[("oauth:ab", 1)]));
        assert!(!token.contains(all) && !token.contains(revoke), "{token}");
        assert!(
            token.contains("wait until their owners end them"),
            "{token}"
        );
        let many = told(&standing(5, Some(0), &[("key:abcdefghij23", 2)]));
        assert!(
            many.contains("2 of key:abcdefghij23, 3 of others"),
            "{many}"
        );
        // The controls: one's own alone, and a server that does not tell whose they are.
        for own in [Some(1), None] {
            let own = told(&standing(1, own, &[]));
            assert!(
                own.contains("1 session still live; destroy them first"),
                "{own}"
            );
            assert!(own.contains(all) && !own.contains(revoke), "{own}");
        }
    }
}

//! Which session a person means: its id, a unique beginning of it, or its name.

use mcp::reply::{ErrorBody, SessionListReply, SessionReply, SessionStateName};
use model::{Reason, SessionId};
use serde_json::json;

use super::super::{CliError, client::Client};

/// Shortest beginning of an id that counts as one; shorter ones are too likely to be a slip.
const MIN_PREFIX_DIGITS: usize = 4;

/// The id of the session that is meant.
pub(super) async fn resolve(client: &Client, text: &str) -> Result<String, CliError> {
    if text.parse::<SessionId>().is_ok() {
        return Ok(text.to_owned());
    }
    // Those that have ended are many, and seldom meant.
    let list = |ended: bool| client.ask("list_sessions", json!({ "includeEnded": ended }));
    let live: SessionListReply = list(false).await?;
    let is_unknown = |error: &ErrorBody| error.code == Reason::SessionNotFound.code();
    match choose(&live.sessions, text) {
        Err(error) if is_unknown(&error) => {
            let all: SessionListReply = list(true).await?;
            choose(&all.sessions, text).map_err(CliError::Refused)
        }
        chosen => chosen.map_err(CliError::Refused),
    }
}

/// A session that can still do something.
pub(super) const fn is_live(state: SessionStateName) -> bool {
    match state {
        SessionStateName::Creating
        | SessionStateName::Ready
        | SessionStateName::Busy
        | SessionStateName::Paused
        | SessionStateName::Unknown => true,
        SessionStateName::Expired | SessionStateName::Destroyed | SessionStateName::Failed => false,
    }
}

/// Live sessions go before ended ones, names before beginnings of ids.
fn choose(sessions: &[SessionReply], text: &str) -> Result<String, ErrorBody> {
    let digits = text.strip_prefix("s-").unwrap_or(text);
    let by_name = |session: &&SessionReply| session.session_name == text;
    let by_prefix = |session: &&SessionReply| {
        digits.len() >= MIN_PREFIX_DIGITS
            && session
                .session_id
                .strip_prefix("s-")
                .is_some_and(|id| id.starts_with(digits))
    };
    let live: Vec<&SessionReply> = sessions
        .iter()
        .filter(|session| is_live(session.state))
        .collect();
    let ended: Vec<&SessionReply> = sessions
        .iter()
        .filter(|session| !is_live(session.state))
        .collect();
    for candidates in [live, ended] {
        for meant in [
            candidates
                .iter()
                .copied()
                .filter(by_name)
                .collect::<Vec<_>>(),
            candidates.iter().copied().filter(by_prefix).collect(),
        ] {
            match meant.as_slice() {
                [] => {}
                [one] => return Ok(one.session_id.clone()),
                several => return Err(ambiguous(text, several)),
            }
        }
    }
    Err(ErrorBody {
        code: Reason::SessionNotFound.code().to_owned(),
        message: format!("there is no session {text:?}"),
        hint: not_found_hint(digits),
        field: None,
        retry_after_ms: None,
    })
}

fn not_found_hint(digits: &str) -> String {
    let list = "claude-code-mcp session list --all shows every session that is on record";
    let is_beginning = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    match is_beginning && digits.len() < MIN_PREFIX_DIGITS {
        true => format!("A beginning of an id needs {MIN_PREFIX_DIGITS} digits or more; {list}."),
        false => format!("{list}."),
    }
}

fn ambiguous(text: &str, several: &[&SessionReply]) -> ErrorBody {
    let ids: Vec<&str> = several
        .iter()
        .map(|session| session.session_id.as_str())
        .collect();
    ErrorBody {
        code: Reason::InvalidArgument.code().to_owned(),
        message: format!("{text:?} can mean {}", ids.join(" or ")),
        hint: "Give more of the id.".to_owned(),
        field: None,
        retry_after_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(digit: char, name: &str, state: SessionStateName) -> SessionReply {
        SessionReply {
            pending_network_requests: Vec::new(),
            session_id: format!("s-{}{digit}", "0123456789abcdef0123456789abcde"),
            session_name: name.to_owned(),
            state,
            backend: "native".to_owned(),
            project_path: "/p".to_owned(),
            container_name: "c".to_owned(),
            created_at: String::new(),
            expires_at: String::new(),
            idle_seconds: 1,
            limits: None,
            network: None,
            hardening: None,
            docker_opts_in_force: None,
            usage: None,
            provider_usage: None,
            running_executions: Vec::new(),
            ended_because: None,
            ended_at: None,
            message: String::new(),
        }
    }

    #[test]
    fn names_prefixes_and_live_sessions_are_found_and_doubt_is_refused() {
        let one = session('1', "app", SessionStateName::Ready);
        let old = session('2', "app", SessionStateName::Expired);
        let two = session('3', "other", SessionStateName::Busy);
        let all = [old.clone(), one.clone(), two.clone()];
        assert_eq!(choose(&all, "app").unwrap(), one.session_id);
        assert_eq!(choose(&all, &two.session_id[2..]).unwrap(), two.session_id);
        assert_eq!(choose(&all, &old.session_id).unwrap(), old.session_id);
        assert_eq!(
            choose(std::slice::from_ref(&two), "s-0123").unwrap(),
            two.session_id
        );
        let doubt = choose(&all, "0123").unwrap_err();
        assert!(doubt.message.contains(&one.session_id) && doubt.message.contains(&two.session_id));
        assert!(
            choose(&all, "068")
                .unwrap_err()
                .hint
                .contains("needs 4 digits")
        );
        assert!(!choose(&all, "0680").unwrap_err().hint.contains("digits"));
        for missing in ["ap", "012", "ffff", ""] {
            assert_eq!(
                choose(&all, missing).unwrap_err().code,
                "session_not_found",
                "{missing}"
            );
        }
    }
}

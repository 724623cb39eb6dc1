//! `session approve`: what Claude Code asks in a session, shown or answered.
//!
//! An answer of it is a person's on record, so it must come from a terminal: a model whose client gives it a shell has none
//! there. What this does not stop: a model that makes itself one (`script`, `</dev/tty`). It is the same user, who can do all
//! that the person can; only the client's own rules for its shell keep it from that.

use std::io::IsTerminal;

use mcp::reply::{ErrorBody, ExecutionReply, PendingKindName, PendingReply, SessionReply};
use model::Reason;
use serde_json::{Value, json};

use super::{
    super::arguments::ApproveArguments, CliError, Client, Context, EXIT_OK, resolve::resolve,
};
use crate::cli::prompt::{answer, describe};

pub(super) async fn run(context: &Context, arguments: &ApproveArguments) -> Result<u8, CliError> {
    let words = words(arguments)?;
    if words.is_some() {
        let is_terminal = std::io::stdin().is_terminal();
        may_answer(is_terminal, context.config.caller_may_answer).map_err(CliError::Refused)?;
    }
    let client = Client::connect(context, Vec::new()).await?;
    let session_id = resolve(&client, &arguments.session).await?;
    let waiting = waiting(&client, &session_id).await?;
    let Some(words) = words else {
        show(context, &waiting, arguments.permission.as_deref())?;
        return Ok(EXIT_OK);
    };
    let (execution, pending) =
        choose(&waiting, arguments.permission.as_deref()).map_err(CliError::Refused)?;
    if pending.kind == PendingKindName::Permission && !arguments.yes && !arguments.no {
        return Err(CliError::Usage(
            "Claude Code asks for a permission, not for words: say --yes, or --no (with --answer why not)".to_owned(),
        ));
    }
    let reply = answer(&client, execution, &pending.permission_id, words).await?;
    match context.output.json {
        true => context.output.json(&reply)?,
        false => context
            .output
            .line(&format!("{} {}", done(arguments), pending.permission_id))?,
    }
    Ok(EXIT_OK)
}

const fn done(arguments: &ApproveArguments) -> &'static str {
    match (arguments.yes, arguments.no) {
        (true, _) => "allowed",
        (false, true) => "denied",
        (false, false) => "answered",
    }
}

/// Whoever may be anybody answers only where the operator lets anybody answer.
fn may_answer(is_terminal: bool, caller_may_answer: bool) -> Result<(), ErrorBody> {
    if is_terminal || caller_may_answer {
        return Ok(());
    }
    Err(ErrorBody {
        code: Reason::PolicyDenied.code().to_owned(),
        message: "a person answers, and here is no terminal: standard input is not one".to_owned(),
        hint: "Answer at a terminal. The operator lets programs and models answer with caller_may_answer = true."
            .to_owned(),
        field: None,
        retry_after_ms: None,
    })
}

/// What is answered; `None` to only look.
fn words(arguments: &ApproveArguments) -> Result<Option<Value>, CliError> {
    match (arguments.yes, arguments.no, &arguments.answer) {
        (true, ..) => Ok(Some(json!({ "allow": true }))),
        (_, true, None) => Ok(Some(json!({ "allow": false }))),
        (_, true, Some(why)) => Ok(Some(json!({ "allow": false, "answer": why }))),
        (false, false, Some(words)) => Ok(Some(json!({ "answer": words }))),
        (false, false, None) if arguments.permission.is_some() => Err(CliError::Usage(
            "say --yes, --no or --answer TEXT with the permission".to_owned(),
        )),
        (false, false, None) => Ok(None),
    }
}

/// What waits in a session, each with its prompt.
async fn waiting(
    client: &Client,
    session_id: &str,
) -> Result<Vec<(String, PendingReply)>, CliError> {
    let session: SessionReply = client
        .ask("get_session", json!({ "sessionId": session_id }))
        .await?;
    let mut waiting = Vec::new();
    for id in session.running_executions {
        let call = json!({ "executionId": id, "waitSeconds": 0 });
        let execution: ExecutionReply = client.ask("get_execution", call).await?;
        let asked = execution.prompt.map(|prompt| prompt.pending_permissions);
        waiting.extend(
            asked
                .into_iter()
                .flatten()
                .map(|pending| (id.clone(), pending)),
        );
    }
    Ok(waiting)
}

fn show(
    context: &Context,
    waiting: &[(String, PendingReply)],
    permission: Option<&str>,
) -> Result<(), CliError> {
    debug_assert!(
        permission.is_none(),
        "a permission without an answer is refused"
    );
    if context.output.json {
        let replies: Vec<_> = waiting.iter().map(|(_, pending)| pending).collect();
        return context.output.json(&replies);
    }
    if waiting.is_empty() {
        return context.output.line("nothing waits for an answer");
    }
    for (_, pending) in waiting {
        context.output.line(&describe(pending))?;
    }
    Ok(())
}

/// The one that is meant: by its id, a beginning of it, or because there is no other.
fn choose<'a>(
    waiting: &'a [(String, PendingReply)],
    named: Option<&str>,
) -> Result<(&'a str, &'a PendingReply), ErrorBody> {
    let is_meant = |pending: &PendingReply| {
        named.is_none_or(|named| !named.is_empty() && pending.permission_id.starts_with(named))
    };
    let exact = waiting
        .iter()
        .find(|(_, pending)| named == Some(pending.permission_id.as_str()));
    let meant: Vec<_> = match exact {
        Some(one) => vec![one],
        None => waiting
            .iter()
            .filter(|(_, pending)| is_meant(pending))
            .collect(),
    };
    match meant.as_slice() {
        [(execution, pending)] => Ok((execution, pending)),
        [] => Err(refusal(
            Reason::QuestionNotFound,
            "nothing waits for that answer",
        )),
        _ => Err(refusal(
            Reason::InvalidArgument,
            "several wait for an answer",
        )),
    }
}

fn refusal(reason: Reason, message: &str) -> ErrorBody {
    ErrorBody {
        code: reason.code().to_owned(),
        message: message.to_owned(),
        hint: "claude-code-mcp session approve SESSION lists what waits; name one of them."
            .to_owned(),
        field: None,
        retry_after_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(id: &str) -> (String, PendingReply) {
        let pending = PendingReply {
            permission_id: id.to_owned(),
            kind: PendingKindName::Permission,
            tool: String::new(),
            summary: String::new(),
            input: String::new(),
            denied_at: String::new(),
        };
        ("x".to_owned(), pending)
    }

    #[test]
    fn only_a_terminal_or_the_operators_word_makes_an_answer() {
        assert!(may_answer(true, false).is_ok());
        assert!(may_answer(false, true).is_ok());
        assert_eq!(may_answer(false, false).unwrap_err().code, "policy_denied");
    }

    #[test]
    fn one_is_answered_and_doubt_is_refused() {
        let chosen = |waiting: &[&str], named| {
            let waiting: Vec<_> = waiting.iter().map(|id| pending(id)).collect();
            choose(&waiting, named)
                .map(|(_, pending)| pending.permission_id.clone())
                .map_err(|error| error.code)
        };
        assert_eq!(chosen(&["abc"], None).unwrap(), "abc");
        assert_eq!(chosen(&["abc", "abd"], Some("abd")).unwrap(), "abd");
        assert_eq!(chosen(&["abc", "bcd"], Some("a")).unwrap(), "abc");
        assert_eq!(chosen(&["ab", "abc"], Some("ab")).unwrap(), "ab");
        assert_eq!(
            chosen(&["abc", "abd"], None).unwrap_err(),
            "invalid_argument"
        );
        assert_eq!(
            chosen(&["abc", "abd"], Some("ab")).unwrap_err(),
            "invalid_argument"
        );
        assert_eq!(
            chosen(&["abc"], Some("")).unwrap_err(),
            "question_not_found"
        );
        assert_eq!(
            chosen(&["abc"], Some("x")).unwrap_err(),
            "question_not_found"
        );
        assert_eq!(chosen(&[], None).unwrap_err(), "question_not_found");
    }
}

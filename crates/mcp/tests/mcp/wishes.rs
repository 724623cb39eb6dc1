//! What something in a session wants to reach and a person may allow, put to the person at the client in every era; and that
//! nobody else's word counts.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use model::{
    Action, AnsweredBy, Awaited, ExecutionState, ExecutionView, NetworkQuestion, NetworkTarget,
    Outcome, Reason, Refusal,
};
use serde_json::{Value, json};

use crate::{
    client::{Client, ERAS, Era},
    scripted::{Answer, ScriptedRoad, execution, execution_id, prompt, session_id},
};

const LEGACY: [Era; 2] = [Era::Legacy("2025-06-18"), Era::Legacy("2025-11-25")];

/// Where to, yes or no, and whose word.
type Answers = Arc<Mutex<Vec<(String, bool, AnsweredBy)>>>;

fn target(host: &str) -> NetworkTarget {
    NetworkTarget {
        host: host.to_owned(),
        port: 443,
    }
}

/// A session that was refused these hosts, whose executions have ended or go on as `is_over` says until all is answered.
fn refused(hosts: &[&str], is_over: bool) -> (Arc<ScriptedRoad>, Answers) {
    let answers = Answers::default();
    let open: Vec<_> = hosts.iter().map(|host| target(host)).collect();
    let (open, given) = (Mutex::new(open), answers.clone());
    let road = ScriptedRoad::new(move |action| {
        let mut open = open.lock().unwrap();
        if let Action::AnswerNetwork(answer) = action {
            assert_eq!(answer.session, session_id());
            if !open.contains(&answer.target) {
                return Answer::Now(Err(Refusal::new(
                    Reason::QuestionNotFound,
                    "Gone.",
                    "Look.",
                )));
            }
            open.retain(|asked| *asked != answer.target);
            let said = (answer.target.to_string(), answer.allow, answer.by);
            given.lock().unwrap().push(said);
            return Answer::Now(Ok(Outcome::Session(Box::new(crate::scripted::session()))));
        }
        let is_prompt = matches!(action, Action::ExecutePrompt(_));
        let mut view = if is_prompt { prompt() } else { execution() };
        if !is_over && !open.is_empty() {
            view = running(view);
        }
        let question = |target: &NetworkTarget| NetworkQuestion {
            target: target.clone(),
            denied_at_ms: 1_790_000_000_000,
        };
        view.network_questions = open.iter().map(question).collect();
        let outcome = Ok(Outcome::Execution(Box::new(view)));
        match action {
            Action::GetExecution(get) if !get.wait.is_zero() => {
                let at_once = get.awaited == Awaited::EndOrWish && !open.is_empty();
                let wait = if at_once {
                    Duration::ZERO
                } else {
                    get.wait.min(Duration::from_secs(1))
                };
                Answer::After(wait, outcome)
            }
            _ => Answer::Now(outcome),
        }
    });
    (Arc::new(road), answers)
}

fn running(view: ExecutionView) -> ExecutionView {
    ExecutionView {
        state: ExecutionState::Running,
        exit_code: None,
        ..view
    }
}

fn call(tool: &str, wait_seconds: u64) -> Value {
    let session = session_id().to_string();
    let arguments = match tool {
        "get_execution" => {
            json!({"executionId": execution_id().to_string(), "waitSeconds": wait_seconds})
        }
        "execute_command" => {
            json!({"sessionId": session, "command": "curl", "waitSeconds": wait_seconds})
        }
        _ => json!({"sessionId": session, "prompt": "work", "waitSeconds": wait_seconds}),
    };
    json!({"name": tool, "arguments": arguments})
}

async fn able(road: &Arc<ScriptedRoad>, era: Era) -> Client {
    Client::able(road.clone(), era, json!({"elicitation": {}})).await
}

async fn form(client: &mut Client) -> Value {
    loop {
        let message = client.receive().await;
        if message["method"] == json!("elicitation/create") {
            return message;
        }
        assert!(message.get("result").is_none(), "no form: {message}");
    }
}

async fn fill(client: &mut Client, form: &Value, result: Value) {
    client
        .send(&json!({"jsonrpc": "2.0", "id": form["id"], "result": result}))
        .await;
}

fn yes() -> Value {
    json!({"action": "accept", "content": {"decision": "allow for this session"}})
}

fn told(answer: &Value) -> &str {
    answer["result"]["structuredContent"]["message"]
        .as_str()
        .unwrap_or_else(|| panic!("no message: {answer}"))
}

fn said(answers: &Answers) -> Vec<(String, bool)> {
    let answers = answers.lock().unwrap();
    assert!(answers.iter().all(|(_, _, by)| *by == AnsweredBy::Person));
    answers
        .iter()
        .map(|(target, allow, _)| (target.clone(), *allow))
        .collect()
}

fn starts(road: &ScriptedRoad) -> usize {
    let calls = road.calls();
    let is_start =
        |action: &Action| matches!(action, Action::ExecutePrompt(_) | Action::ExecuteCommand(_));
    calls.iter().filter(|call| is_start(&call.action)).count()
}

#[tokio::test(start_paused = true)]
async fn a_person_is_asked_one_host_after_the_other_and_the_caller_is_told_what_they_said() {
    for era in LEGACY {
        for tool in ["execute_command", "get_execution", "execute_in_session"] {
            for is_over in [true, false] {
                let (road, answers) = refused(&["a.example.com", "b.example.com"], is_over);
                let mut client = able(&road, era).await;
                let id = client.start("tools/call", call(tool, 20)).await;
                for (host, result) in [("a.", yes()), ("b.", json!({"action": "decline"}))] {
                    let shown = form(&mut client).await;
                    let message = shown["params"]["message"].as_str().unwrap();
                    assert!(
                        message.contains(&format!("reach {host}example.com:443")),
                        "{message}"
                    );
                    fill(&mut client, &shown, result).await;
                }
                let answer = client.answer(id).await;
                assert!(
                    told(&answer).contains("a.example.com:443 meanwhile: try it again."),
                    "{answer}"
                );
                assert!(
                    told(&answer).contains("no to b.example.com:443 meanwhile"),
                    "{answer}"
                );
                let due = [
                    ("a.example.com:443".to_owned(), true),
                    ("b.example.com:443".to_owned(), false),
                ];
                assert_eq!(said(&answers), due, "{era:?} {tool}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_where_nobody_can_be_or_nobody_waits() {
    for era in ERAS {
        for (capabilities, wait) in [(json!({}), 20), (json!({"elicitation": {}}), 0)] {
            for tool in ["execute_command", "get_execution", "execute_in_session"] {
                let (road, answers) = refused(&["a.example.com"], true);
                let mut client = Client::able(road, era, capabilities.clone()).await;
                let answer = client.request("tools/call", call(tool, wait)).await;
                assert_eq!(
                    answer["result"]["structuredContent"]["state"],
                    json!("exited"),
                    "{era:?} {tool} {answer}"
                );
                assert!(said(&answers).is_empty());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_fails_to_ask_is_not_asked_again_by_that_call() {
    for wrong in [
        json!({"action": "accept", "content": {"decision": "allow once"}}),
        json!({"action": "accept"}),
    ] {
        let (road, answers) = refused(&["a.example.com"], true);
        let mut client = able(&road, LEGACY[1]).await;
        let id = client
            .start("tools/call", call("execute_command", 20))
            .await;
        let shown = form(&mut client).await;
        fill(&mut client, &shown, wrong).await;
        let answer = client.answer(id).await;
        assert!(!told(&answer).contains("example.com"), "{answer}");
        assert!(said(&answers).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_modern_client_gets_one_host_at_a_time_as_a_result_and_starts_nothing_twice() {
    for tool in ["execute_command", "get_execution", "execute_in_session"] {
        let (road, answers) = refused(&["a.example.com", "b.example.com"], true);
        let mut client = able(&road, Era::Modern).await;
        let mut params = call(tool, 20);
        for host in ["a.example.com:443", "b.example.com:443"] {
            let asked = client.request("tools/call", params.clone()).await;
            let requests = asked["result"]["inputRequests"].as_object();
            let requests = requests.unwrap_or_else(|| panic!("{tool}: {asked}"));
            let names: Vec<_> = requests.keys().collect();
            assert_eq!(names, [&format!("network {} {host}", session_id())]);
            params["requestState"] = asked["result"]["requestState"].clone();
            params["inputResponses"] = json!({ names[0]: yes() });
        }
        let answer = client.request("tools/call", params.clone()).await;
        for host in ["a", "b"] {
            let word = format!("reach {host}.example.com:443 meanwhile");
            assert!(told(&answer).contains(&word), "{answer}");
        }
        assert_eq!(said(&answers).len(), 2);
        assert_eq!(starts(&road), usize::from(tool != "get_execution"));
        // The answers are good once.
        let stale = client.request("tools/call", params).await;
        let code = &stale["result"]["structuredContent"]["error"]["code"];
        assert_eq!(*code, json!("question_not_found"), "{stale}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_was_asked_for_does_nothing() {
    let (road, answers) = refused(&["a.example.com"], true);
    let mut client = able(&road, Era::Modern).await;
    let asked = client
        .request("tools/call", call("execute_command", 20))
        .await;
    let state = asked["result"]["requestState"].clone();
    assert!(state.is_string(), "{asked}");
    let named = |host: &str| format!("network {} {host}:443", session_id());
    // Without a state, with an invented one, of another call.
    let mut other = call("execute_command", 20);
    other["arguments"]["command"] = json!("wget");
    for (mut forged, state) in [
        (call("execute_command", 20), Value::Null),
        (call("execute_command", 20), json!("AAAAAAAAAAAAAAAAAAAAAA")),
        (other, state.clone()),
    ] {
        if !state.is_null() {
            forged["requestState"] = state;
        }
        forged["inputResponses"] = json!({ named("a.example.com"): yes() });
        let answer = client.request("tools/call", forged).await;
        let code = &answer["result"]["structuredContent"]["error"]["code"];
        assert_eq!(*code, json!("question_not_found"), "{answer}");
    }
    // By a tool, as a model would.
    for (tool, arguments) in [
        (
            "allow_network",
            json!({"sessionId": session_id().to_string(), "allow": ["a.example.com"]}),
        ),
        (
            "deny_network",
            json!({"sessionId": session_id().to_string(), "target": "a.example.com"}),
        ),
    ] {
        let answer = client
            .request("tools/call", json!({"name": tool, "arguments": arguments}))
            .await;
        assert!(
            answer["error"]["message"]
                .as_str()
                .is_some_and(|it| it.contains("unknown tool")),
            "{answer}"
        );
    }
    assert!(said(&answers).is_empty());
    // Another host than the one that was asked about is no answer; the right one is.
    let mut right = call("execute_command", 20);
    right["requestState"] = state;
    right["inputResponses"] =
        json!({ named("evil.example"): yes(), named("a.example.com"): yes() });
    client.request("tools/call", right).await;
    assert_eq!(said(&answers), [("a.example.com:443".to_owned(), true)]);
}

//! What Claude Code asks, put to the person at the client: in every era, and what becomes of it when nobody answers.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use model::{
    Action, AnsweredBy, ExecutionState, ExecutionView, Outcome, PendingKind, PendingPermission,
    PermissionAnswer, PromptStop, Reason, Refusal,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    client::{Client, Era},
    scripted::{Answer, ScriptedRoad, execution_id, prompt, session_id},
};

const LEGACY: [Era; 2] = [Era::Legacy("2025-06-18"), Era::Legacy("2025-11-25")];
const DEADLINE: Duration = Duration::from_secs(300);

type Answers = Arc<Mutex<Vec<(String, PermissionAnswer, AnsweredBy)>>>;

/// A prompt that asks so many questions at once, and ends when all are answered or denied.
fn asking(questions: &[PendingKind]) -> (Arc<ScriptedRoad>, Answers) {
    let answers = Answers::default();
    let pending: Vec<_> = questions.iter().enumerate().map(question).collect();
    let open = Arc::new(Mutex::new(pending));
    let started = Instant::now();
    let given = answers.clone();
    let road = ScriptedRoad::new(move |action| {
        let mut open = open.lock().unwrap();
        if started.elapsed() >= DEADLINE {
            open.clear();
        }
        match action {
            Action::AnswerExecution {
                question,
                answer,
                by,
                ..
            } => {
                if !open.iter().any(|asked| asked.id == *question) {
                    let refusal = Refusal::new(Reason::QuestionNotFound, "Gone.", "Look.");
                    return Answer::Now(Err(refusal));
                }
                open.retain(|asked| asked.id != *question);
                given
                    .lock()
                    .unwrap()
                    .push((question.clone(), answer.clone(), *by));
                Answer::Now(Ok(Outcome::Execution(Box::new(view(&open)))))
            }
            Action::GetExecution(get) if !get.wait.is_zero() => {
                let wait = get.wait.min(Duration::from_secs(1));
                Answer::After(wait, Ok(Outcome::Execution(Box::new(view(&open)))))
            }
            _ => Answer::Now(Ok(Outcome::Execution(Box::new(view(&open))))),
        }
    });
    (Arc::new(road), answers)
}

fn question((index, kind): (usize, &PendingKind)) -> PendingPermission {
    PendingPermission {
        id: format!("q-{index}"),
        kind: *kind,
        tool: "Bash".to_owned(),
        summary: format!("running step {index}"),
        input: r#"{"command":"step"}"#.to_owned(),
        denied_at_ms: 1_790_000_000_000,
    }
}

fn view(open: &[PendingPermission]) -> ExecutionView {
    let mut view = prompt();
    if let (Some(prompt), false) = (&mut view.prompt, open.is_empty()) {
        view.state = ExecutionState::Running;
        view.exit_code = None;
        prompt.stop = None::<PromptStop>;
        prompt.pending = open.to_vec();
    }
    view
}

fn call(tool: &str, wait_seconds: u64) -> Value {
    let arguments = match tool {
        "get_execution" => {
            json!({"executionId": execution_id().to_string(), "waitSeconds": wait_seconds})
        }
        _ => {
            json!({"sessionId": session_id().to_string(), "prompt": "work", "waitSeconds": wait_seconds})
        }
    };
    json!({"name": tool, "arguments": arguments})
}

async fn able(road: &Arc<ScriptedRoad>, era: Era) -> Client {
    Client::able(road.clone(), era, json!({"elicitation": {}})).await
}

/// The next form that the server has shown.
async fn form(client: &mut Client) -> Value {
    loop {
        let message = client.receive().await;
        if message["method"] == json!("elicitation/create") {
            return message;
        }
        assert_eq!(
            message["method"],
            json!("notifications/progress"),
            "{message}"
        );
    }
}

async fn fill(client: &mut Client, form: &Value, result: Value) {
    client
        .send(&json!({"jsonrpc": "2.0", "id": form["id"], "result": result}))
        .await;
}

fn state(answer: &Value) -> &Value {
    assert!(answer.get("error").is_none(), "{answer}");
    &answer["result"]["structuredContent"]["state"]
}

fn allow() -> Value {
    json!({"action": "accept", "content": {"decision": "allow once"}})
}

fn said(answers: &Answers) -> Vec<(String, PermissionAnswer)> {
    let answers = answers.lock().unwrap();
    assert!(answers.iter().all(|(_, _, by)| *by == AnsweredBy::Person));
    answers
        .iter()
        .map(|(question, answer, _)| (question.clone(), answer.clone()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_person_is_asked_one_question_after_the_other_while_the_call_goes_on() {
    for era in LEGACY {
        for tool in ["execute_in_session", "get_execution"] {
            let kinds = [
                PendingKind::Permission,
                PendingKind::Question,
                PendingKind::Permission,
                PendingKind::Permission,
            ];
            let (road, answers) = asking(&kinds);
            let mut client = able(&road, era).await;
            let id = client.start("tools/call", call(tool, 20)).await;
            let results = [
                allow(),
                json!({"action": "accept", "content": {"answer": "port 80"}}),
                json!({"action": "accept", "content": {"decision": "deny", "reason": "use make"}}),
                json!({"action": "cancel"}),
            ];
            for (index, result) in results.into_iter().enumerate() {
                let shown = form(&mut client).await;
                let message = shown["params"]["message"].as_str().unwrap();
                assert!(
                    message.contains(&format!("running step {index}")),
                    "{message}"
                );
                fill(&mut client, &shown, result).await;
            }
            assert_eq!(state(&client.answer(id).await), "exited", "{era:?} {tool}");
            let no = || PermissionAnswer::Deny("The user said no.".to_owned());
            let due = [
                ("q-0".to_owned(), PermissionAnswer::Allow),
                (
                    "q-1".to_owned(),
                    PermissionAnswer::Words("port 80".to_owned()),
                ),
                (
                    "q-2".to_owned(),
                    PermissionAnswer::Deny("use make".to_owned()),
                ),
                ("q-3".to_owned(), no()),
            ];
            assert_eq!(said(&answers), due, "{era:?} {tool}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_declared_no_forms_is_asked_nothing() {
    for capabilities in [
        json!({}),
        json!({"elicitation": {"url": {}}}),
        json!({"sampling": {}}),
    ] {
        for era in crate::client::ERAS {
            let (road, answers) = asking(&[PendingKind::Permission]);
            let mut client = Client::able(road, era, capabilities.clone()).await;
            let answer = client
                .request("tools/call", call("execute_in_session", 20))
                .await;
            assert_eq!(state(&answer), "running", "{era:?}");
            let pending = &answer["result"]["structuredContent"]["pendingPermissions"];
            assert_eq!(pending[0]["permissionId"], json!("q-0"), "{answer}");
            assert!(said(&answers).is_empty());
        }
    }
}

/// A call by HTTP of a client that says in `_meta` that it shows forms, and the message that answers it.
async fn by_http(road: Arc<ScriptedRoad>, version: &str, params: Value) -> Value {
    let (answer, _) = crate::remote::by_http(road, version, params).await;
    answer
}

/// S1, S4: by HTTP in the old era no request of ours gets to a client, so whoever asks nobody there is told so at once instead of
/// waiting for an answer to a form that was never shown.
#[tokio::test(start_paused = true)]
async fn by_http_in_the_old_era_nobody_is_asked_whatever_the_client_declares() {
    for tool in ["execute_in_session", "get_execution"] {
        let (road, answers) = asking(&[PendingKind::Permission]);
        let begun = Instant::now();
        let answer = by_http(road, "2025-11-25", call(tool, 20)).await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "{tool}: {answer}");
        assert_eq!(state(&answer), "running", "{tool}: {answer}");
        let pending = &answer["result"]["structuredContent"]["pendingPermissions"];
        assert_eq!(pending[0]["permissionId"], json!("q-0"), "{answer}");
        assert!(said(&answers).is_empty());
        // The control: the same call in the era in which a call's result asks.
        let (road, _) = asking(&[PendingKind::Permission]);
        let answer = by_http(road, "2026-07-28", call(tool, 20)).await;
        let result = &answer["result"];
        assert_eq!(result["resultType"], json!("input_required"), "{answer}");
        assert!(result["inputRequests"]["q-0"].is_object(), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_wait_has_nobody_asked() {
    for era in crate::client::ERAS {
        let (road, _) = asking(&[PendingKind::Permission]);
        let mut client = able(&road, era).await;
        let answer = client.request("tools/call", call("get_execution", 0)).await;
        assert_eq!(state(&answer), "running", "{era:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_person_who_never_answers_holds_the_call_to_the_questions_deadline_and_no_longer() {
    let (road, answers) = asking(&[PendingKind::Permission]);
    let mut client = able(&road, LEGACY[1]).await;
    let begun = Instant::now();
    let mut params = call("execute_in_session", 5);
    params["_meta"] = json!({"progressToken": "t"});
    let id = client.start("tools/call", params).await;
    let shown = form(&mut client).await;
    assert_eq!(state(&client.answer(id).await), "exited");
    let took = begun.elapsed();
    assert!(
        took >= DEADLINE && took < DEADLINE + Duration::from_secs(10),
        "{took:?}"
    );
    assert!(said(&answers).is_empty());
    let progress = |message: &&Value| message["method"] == json!("notifications/progress");
    assert!(client.notifications.iter().filter(progress).count() > 250);
    // The form is taken back, so that nobody fills it in for nothing.
    let is_back = |message: &Value| {
        message["method"] == json!("notifications/cancelled")
            && message["params"]["requestId"] == shown["id"]
    };
    while !client.notifications.iter().any(is_back) {
        let message = client.receive().await;
        client.notifications.push(message);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_fails_to_ask_leaves_the_question_to_others() {
    let garbage = json!({"action": "accept", "content": {"decision": "sure"}});
    for is_error in [true, false] {
        let (road, answers) = asking(&[PendingKind::Permission]);
        let mut client = able(&road, LEGACY[1]).await;
        let id = client.start("tools/call", call("get_execution", 20)).await;
        let shown = form(&mut client).await;
        match is_error {
            true => {
                let error = json!({"code": -32601, "message": "no"});
                client
                    .send(&json!({"jsonrpc": "2.0", "id": shown["id"], "error": error}))
                    .await;
            }
            false => fill(&mut client, &shown, garbage.clone()).await,
        }
        let answer = client.answer(id).await;
        assert_eq!(state(&answer), "running");
        assert!(said(&answers).is_empty());
        // Somebody else.
        let mut other = able(&road, LEGACY[0]).await;
        let id = other.start("tools/call", call("get_execution", 20)).await;
        let shown = form(&mut other).await;
        fill(&mut other, &shown, allow()).await;
        assert_eq!(state(&other.answer(id).await), "exited");
        assert_eq!(said(&answers).len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_leaves_the_question_to_others() {
    let (road, answers) = asking(&[PendingKind::Permission]);
    let mut client = able(&road, LEGACY[1]).await;
    client.start("tools/call", call("get_execution", 20)).await;
    form(&mut client).await;
    client.close().await.unwrap();
    let mut other = able(&road, LEGACY[1]).await;
    let id = other.start("tools/call", call("get_execution", 20)).await;
    let shown = form(&mut other).await;
    fill(&mut other, &shown, json!({"action": "decline"})).await;
    assert_eq!(state(&other.answer(id).await), "exited");
    assert_eq!(said(&answers).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_first_answer_counts_and_the_other_form_is_taken_back() {
    let (road, answers) = asking(&[PendingKind::Permission]);
    let mut first = able(&road, LEGACY[0]).await;
    let mut second = able(&road, LEGACY[1]).await;
    let waiting = first.start("tools/call", call("get_execution", 20)).await;
    let other = second.start("tools/call", call("get_execution", 20)).await;
    let shown = form(&mut first).await;
    let stale = form(&mut second).await;
    fill(&mut first, &shown, json!({"action": "decline"})).await;
    assert_eq!(state(&first.answer(waiting).await), "exited");
    // Too late, whether it has seen that the form was taken back or not.
    fill(&mut second, &stale, allow()).await;
    assert_eq!(state(&second.answer(other).await), "exited");
    let due = [(
        "q-0".to_owned(),
        PermissionAnswer::Deny("The user said no.".to_owned()),
    )];
    assert_eq!(said(&answers), due);
}

#[tokio::test(start_paused = true)]
async fn two_calls_of_one_client_show_one_form() {
    let (road, answers) = asking(&[PendingKind::Permission]);
    let mut client = able(&road, LEGACY[1]).await;
    let first = client.start("tools/call", call("get_execution", 20)).await;
    let shown = form(&mut client).await;
    let second = client.start("tools/call", call("get_execution", 20)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    fill(&mut client, &shown, allow()).await;
    let mut ended = Vec::new();
    while ended.len() < 2 {
        let message = client.receive().await;
        assert_ne!(
            message["method"],
            json!("elicitation/create"),
            "a second form"
        );
        if message.get("result").is_some() {
            ended.push(message["id"].clone());
        }
    }
    assert!(ended.contains(&json!(first)) && ended.contains(&json!(second)));
    assert_eq!(said(&answers).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_modern_client_gets_the_questions_as_a_result_and_comes_back_with_answers() {
    for tool in ["execute_in_session", "get_execution"] {
        let (road, answers) = asking(&[PendingKind::Permission, PendingKind::Question]);
        let mut client = able(&road, Era::Modern).await;
        let first = client.request("tools/call", call(tool, 20)).await;
        let result = &first["result"];
        assert_eq!(result["resultType"], json!("input_required"), "{first}");
        let asked = &result["inputRequests"]["q-0"];
        assert_eq!(asked["method"], json!("elicitation/create"), "{first}");
        assert_eq!(asked["params"]["mode"], json!("form"), "{first}");
        // Half of the answers: the rest is asked again.
        let mut again = call(tool, 20);
        again["requestState"] = result["requestState"].clone();
        again["inputResponses"] = json!({"q-0": allow(), "q-7": allow()});
        let second = client.request("tools/call", again.clone()).await;
        let requests = second["result"]["inputRequests"].as_object().unwrap();
        assert_eq!(requests.keys().collect::<Vec<_>>(), ["q-1"], "{second}");
        let mut third = call(tool, 20);
        third["requestState"] = second["result"]["requestState"].clone();
        third["inputResponses"] = json!({"q-1": {"action": "accept", "content": {"answer": "80"}}});
        let last = client.request("tools/call", third).await;
        assert_eq!(state(&last), "exited", "{tool}");
        let due = [
            ("q-0".to_owned(), PermissionAnswer::Allow),
            ("q-1".to_owned(), PermissionAnswer::Words("80".to_owned())),
        ];
        assert_eq!(said(&answers), due);
        let starts = |road: &ScriptedRoad| {
            let calls = road.calls();
            let prompts = calls
                .iter()
                .filter(|call| matches!(call.action, Action::ExecutePrompt(_)));
            prompts.count()
        };
        let due = usize::from(tool == "execute_in_session");
        assert_eq!(starts(&road), due, "the prompt is given once");
        // A state is good for one call.
        let stale = client.request("tools/call", again).await;
        assert_eq!(
            stale["result"]["structuredContent"]["error"]["code"],
            json!("question_not_found")
        );
        assert_eq!(starts(&road), due);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_too_late_takes_no_other_with_it() {
    let (road, answers) = asking(&[PendingKind::Permission, PendingKind::Permission]);
    let mut client = able(&road, Era::Modern).await;
    let first = client
        .request("tools/call", call("get_execution", 20))
        .await;
    // Meanwhile somebody else denies the first one.
    let id = execution_id().to_string();
    let arguments = json!({"executionId": id, "permissionId": "q-0", "allow": false});
    let other = json!({"name": "respond_execution", "arguments": arguments});
    able(&road, Era::Modern)
        .await
        .request("tools/call", other)
        .await;
    let mut again = call("get_execution", 20);
    again["requestState"] = first["result"]["requestState"].clone();
    again["inputResponses"] = json!({"q-0": allow(), "q-1": allow()});
    let last = client.request("tools/call", again).await;
    assert_eq!(state(&last), "exited", "{last}");
    let said = answers.lock().unwrap().clone();
    let said: Vec<_> = said
        .iter()
        .map(|(id, answer, _)| (id.as_str(), answer))
        .collect();
    assert!(
        matches!(said[0], ("q-0", PermissionAnswer::Deny(_))),
        "{said:?}"
    );
    assert_eq!(said[1..], [("q-1", &PermissionAnswer::Allow)]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_answered_that_was_not_asked_of_that_call() {
    let (road, answers) = asking(&[PendingKind::Permission]);
    let mut client = able(&road, Era::Modern).await;
    let first = client
        .request("tools/call", call("execute_in_session", 20))
        .await;
    let state = first["result"]["requestState"].clone();
    assert!(state.is_string(), "{first}");
    let responses = json!({"q-0": allow()});
    let mut other_arguments = call("execute_in_session", 20);
    other_arguments["arguments"]["prompt"] = json!("another");
    other_arguments["requestState"] = state.clone();
    let mut other_tool = call("get_execution", 20);
    other_tool["requestState"] = state.clone();
    let mut invented = call("execute_in_session", 20);
    invented["requestState"] = json!("AAAAAAAAAAAAAAAAAAAAAA");
    let without = call("execute_in_session", 20);
    for mut wrong in [other_arguments, other_tool, invented, without] {
        wrong["inputResponses"] = responses.clone();
        let answer = client.request("tools/call", wrong.clone()).await;
        let code = &answer["result"]["structuredContent"]["error"]["code"];
        assert_eq!(*code, json!("question_not_found"), "{wrong} {answer}");
    }
    // Nor on another connection.
    let mut other = able(&road, Era::Modern).await;
    let mut right = call("execute_in_session", 20);
    right["requestState"] = state;
    right["inputResponses"] = responses;
    let answer = other.request("tools/call", right.clone()).await;
    assert_eq!(answer["result"]["isError"], json!(true), "{answer}");
    assert!(said(&answers).is_empty());
    // The same on its own connection does answer.
    client.request("tools/call", right).await;
    assert_eq!(said(&answers).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_modern_client_is_sent_around_only_so_often() {
    let (road, _) = asking(&[PendingKind::Permission]);
    let mut client = able(&road, Era::Modern).await;
    let mut params = call("get_execution", 20);
    for round in 0..9 {
        let answer = client.request("tools/call", params.clone()).await;
        if round == 8 {
            assert_eq!(state(&answer), "running");
            return;
        }
        params["requestState"] = answer["result"]["requestState"].clone();
        assert!(
            params["requestState"].is_string(),
            "round {round}: {answer}"
        );
        params["inputResponses"] = json!({});
    }
}

//! Calls that take their time: progress, cancels, shutdown, and a road that breaks.

use std::time::Duration;

use model::Outcome;
use serde_json::{Value, json};

use crate::{
    client::{Client, ERAS, Era},
    scripted::{Answer, ScriptedRoad, execution, healthy},
    tools::{least, structured},
};

fn slow(seconds: u64) -> ScriptedRoad {
    ScriptedRoad::new(move |action| {
        Answer::After(Duration::from_secs(seconds), Ok(healthy(action)))
    })
}

fn call_params(tool: &str, token: Option<&str>) -> Value {
    let mut params = json!({"name": tool, "arguments": least(tool)});
    if let Some(token) = token {
        params["_meta"] = json!({"progressToken": token});
    }
    params
}

#[tokio::test(start_paused = true)]
async fn a_client_with_a_token_sees_progress_once_a_second() {
    for era in ERAS {
        let mut client = Client::open(slow(5), era).await;
        let answer = client
            .request("tools/call", call_params("execute_command", Some("t-1")))
            .await;
        structured("execute_command", &answer["result"]);
        let progress: Vec<f64> = client
            .notifications
            .iter()
            .map(|notification| {
                assert_eq!(notification["method"], json!("notifications/progress"));
                assert_eq!(notification["params"]["progressToken"], json!("t-1"));
                notification["params"]["progress"].as_f64().unwrap()
            })
            .collect();
        assert!((4..=5).contains(&progress.len()), "{era:?}: {progress:?}");
        assert!(
            progress.windows(2).all(|pair| pair[1] - pair[0] > 0.9),
            "{progress:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_token_hears_nothing_before_the_answer() {
    let mut client = Client::open(slow(5), Era::Legacy("2025-11-25")).await;
    client
        .request("tools/call", call_params("execute_command", None))
        .await;
    assert!(client.notifications.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_does_not_hold_up_its_calls() {
    let mut client = Client::open(slow(30), Era::Legacy("2025-11-25")).await;
    for number in 0..40 {
        client
            .start(
                "tools/call",
                call_params(
                    "execute_command",
                    Some(&format!("token-{number}-{}", "x".repeat(200))),
                ),
            )
            .await;
    }
    // Far more progress than the pipe takes, and nobody reads it: every call still gets to its end.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut answers = 0;
    while answers < 40 {
        answers += usize::from(client.receive().await.get("result").is_some());
    }
    assert_eq!(client.road.calls().len(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_not_read_from() {
    const REQUESTS: usize = 3000;
    let mut client = Client::open(ScriptedRoad::healthy(), Era::Legacy("2025-11-25")).await;
    let mut sent = 0;
    while sent < REQUESTS {
        let start = client.start("tools/call", call_params("list_sessions", None));
        if tokio::time::timeout(Duration::from_secs(5), start)
            .await
            .is_err()
        {
            break;
        }
        sent += 1;
    }
    assert!(sent < REQUESTS, "the pipe never filled");
    // What is in the two pipes, and what was in work when the answers' pipe was full.
    let carried_out = client.road.calls().len();
    assert!(
        carried_out < sent && carried_out < 500,
        "{carried_out} of {sent}"
    );
    for _ in 0..carried_out {
        assert!(client.receive().await["result"].is_object());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_ends_the_wait_and_is_not_answered() {
    for era in ERAS {
        let road = ScriptedRoad::new(|action| match action {
            model::Action::ListSessions { .. } => Answer::Now(Ok(healthy(action))),
            _ => Answer::Never,
        });
        let mut client = Client::open(road, era).await;
        let id = client
            .start("tools/call", call_params("execute_command", None))
            .await;
        // One call was cancelled; the next one on the same connection is answered, and nothing else is.
        let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id, "reason": "enough"}});
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.send(&cancel).await;
        structured(
            "list_sessions",
            &client.call("list_sessions", json!({})).await,
        );
        let names: Vec<_> = client
            .road
            .calls()
            .iter()
            .map(|call| call.action.name())
            .collect();
        assert_eq!(
            names,
            ["execution.start", "session.list"],
            "a cancelled wait must not cancel the work"
        );
        client.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn calls_run_side_by_side() {
    let mut client = Client::open(slow(10), Era::Modern).await;
    let started = tokio::time::Instant::now();
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(
            client
                .start("tools/call", call_params("list_sessions", None))
                .await,
        );
    }
    for _ in &ids {
        assert!(client.receive().await["result"].is_object());
    }
    assert!(started.elapsed() < Duration::from_secs(12));
}

#[tokio::test(start_paused = true)]
async fn one_call_too_many_is_told_when_to_come_back() {
    let mut client = Client::open(slow(10), Era::Legacy("2025-11-25")).await;
    for _ in 0..65 {
        client
            .start("tools/call", call_params("list_sessions", None))
            .await;
    }
    let first = client.receive().await;
    let error = &first["result"]["structuredContent"]["error"];
    assert_eq!(
        (&error["code"], &error["retryAfterMs"]),
        (&json!("rate_limited"), &json!(1000)),
        "{first}"
    );
    for _ in 0..64 {
        assert_eq!(client.receive().await["result"]["isError"], json!(false));
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_are_answered_at_shutdown() {
    for era in ERAS {
        let mut client = Client::open(ScriptedRoad::new(|_| Answer::Never), era).await;
        let id = client
            .start("tools/call", call_params("execute_command", None))
            .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.shutdown.cancel();
        let answer = client.answer(id).await;
        assert_eq!(
            answer["result"]["structuredContent"]["error"]["code"],
            json!("shutting_down"),
            "{era:?}: {answer}"
        );
        assert!(client.end().await);
        client.server.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn shutdown_before_any_word_is_a_quiet_end() {
    let mut client = Client::silent(ScriptedRoad::healthy(), Era::Modern);
    client.shutdown.cancel();
    assert!(client.end().await);
    client.server.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_ends_the_connection_within_seconds() {
    let mut client = Client::open(ScriptedRoad::new(|_| Answer::Never), Era::Modern).await;
    client
        .start("tools/call", call_params("execute_command", None))
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let started = tokio::time::Instant::now();
    client.close().await.unwrap();
    assert!(
        started.elapsed() <= Duration::from_secs(6),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_panic_below_is_one_failed_call() {
    for era in ERAS {
        let road = ScriptedRoad::new(|action| match action {
            model::Action::ExecuteCommand(_) => Answer::Panic,
            other => Answer::Now(Ok(healthy(other))),
        });
        let mut client = Client::open(road, era).await;
        let result = client
            .call("execute_command", least("execute_command"))
            .await;
        assert_eq!(
            result["structuredContent"]["error"]["code"],
            json!("internal")
        );
        structured(
            "list_sessions",
            &client.call("list_sessions", json!({})).await,
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_still_running_is_a_result() {
    let road = ScriptedRoad::new(|_| {
        let view = model::ExecutionView {
            state: model::ExecutionState::Running,
            exit_code: None,
            duration_ms: 20_000,
            ..execution()
        };
        Answer::After(
            Duration::from_secs(20),
            Ok(Outcome::Execution(Box::new(view))),
        )
    });
    let mut client = Client::open(road, Era::Modern).await;
    let content = structured(
        "execute_command",
        &client
            .call("execute_command", least("execute_command"))
            .await,
    );
    assert_eq!(content["state"], json!("running"));
    assert!(
        content["message"]
            .as_str()
            .unwrap()
            .contains(content["executionId"].as_str().unwrap())
    );
}

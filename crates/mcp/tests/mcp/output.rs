//! Output of untrusted programs on its way to a model.

use model::{
    Action, ExecutionState, ExecutionView, GetExecution, Outcome, ProtectedChange, StreamView,
};
use serde_json::{Value, json};

use crate::{
    client::{Client, Era},
    scripted::{Answer, ScriptedRoad, execution, execution_id, session_id, stream},
    tools::{least, structured},
};

/// Most text of output in one reply, bytes.
const MAX_TEXT: usize = 24 * 1024;
/// What the scripted server hands out in one read, bytes.
const PAGE: u64 = 64 * 1024;

async fn shown(view: ExecutionView) -> Value {
    let road =
        ScriptedRoad::new(move |_| Answer::Now(Ok(Outcome::Execution(Box::new(view.clone())))));
    let mut client = Client::open(road, Era::Modern).await;
    structured(
        "execute_command",
        &client
            .call("execute_command", least("execute_command"))
            .await,
    )
}

/// A server that keeps `bytes` and answers reads from any cursor, a page at a time.
fn keeper(bytes: Vec<u8>, state: ExecutionState) -> ScriptedRoad {
    ScriptedRoad::new(move |action| {
        let from = match action {
            Action::GetExecution(GetExecution { stdout_cursor, .. }) => *stdout_cursor,
            _ => 0,
        };
        let total = bytes.len() as u64;
        let from = from.min(total);
        let to = total.min(from + PAGE);
        let range = usize::try_from(from).unwrap()..usize::try_from(to).unwrap();
        let stdout = StreamView {
            bytes: bytes[range].to_vec(),
            offset: from,
            total_bytes: total,
            cursor: to,
            truncated: to < total,
        };
        Answer::Now(Ok(Outcome::Execution(Box::new(ExecutionView {
            state,
            stdout,
            ..execution()
        }))))
    })
}

#[tokio::test]
async fn output_that_is_no_longer_kept_is_said_to_be_so() {
    let words = "no longer kept";
    let content = shown(execution()).await;
    assert!(
        !content["message"].to_string().contains(words) && content["stdout"]["truncated"] == false
    );
    let content = shown(ExecutionView {
        stdout: stream(b""),
        output_lost: true,
        ..execution()
    })
    .await;
    assert!(
        content["message"].to_string().contains(words),
        "{content:#}"
    );
    for name in ["stdout", "stderr"] {
        assert_eq!(content[name]["truncated"], json!(true));
    }
}

#[tokio::test]
async fn terminal_tricks_and_hidden_characters_do_not_reach_the_model() {
    let hostile = b"\x1b[2J\x1b]0;pwned\x07ok\x00\x9b31m\xff \xe2\x80\xaetxt.exe\xe2\x80\x8b\xf3\xa0\x81\x81\ttab\r\nend";
    let content = shown(ExecutionView {
        stdout: stream(hostile),
        stderr: stream(hostile),
        ..execution()
    })
    .await;
    let expected = "ok\\u{0}\u{fffd}31m\u{fffd} \\u{202e}txt.exe\\u{200b}\\u{e0041}\ttab\nend";
    for name in ["stdout", "stderr"] {
        assert_eq!(content[name]["text"], json!(expected));
        assert_eq!(content[name]["bytesTotal"], json!(hostile.len()));
        assert_eq!(
            (&content[name]["cursor"], &content[name]["truncated"]),
            (&json!(hostile.len()), &json!(false))
        );
    }
}

#[tokio::test]
async fn a_huge_output_shows_its_start_and_its_very_end() {
    let text: String = (0..200_000).map(|n| format!("line {n}\n")).collect();
    let mut client = Client::open(
        keeper(text.clone().into_bytes(), ExecutionState::Exited),
        Era::Modern,
    )
    .await;
    let content = structured(
        "execute_command",
        &client
            .call("execute_command", least("execute_command"))
            .await,
    );
    let stdout = &content["stdout"];
    let shown = stdout["text"].as_str().unwrap();
    assert!(shown.starts_with("line 0\n") && shown.ends_with("line 199999\n"));
    assert!(shown.len() <= MAX_TEXT && shown.len() > 12_000);
    assert_eq!(
        (
            &stdout["truncated"],
            &stdout["cursor"],
            &stdout["bytesTotal"]
        ),
        (&json!(true), &json!(text.len()), &json!(text.len()))
    );
    assert!(
        content["message"]
            .as_str()
            .unwrap()
            .contains("get_execution")
    );
    let from = stdout["omittedFrom"].as_u64().unwrap() as usize;
    let (head, tail) = shown.split_once("\n[... ").unwrap();
    assert_eq!(head, &text[..from]);
    assert!(tail.ends_with(&text[from + stdout["omittedBytes"].as_u64().unwrap() as usize..]));
}

#[tokio::test]
async fn a_reader_with_cursors_gets_every_byte_once() {
    let text: String = (0..30_000).map(|n| format!("{n} é漢😀\n")).collect();
    let mut client = Client::open(
        keeper(text.clone().into_bytes(), ExecutionState::Exited),
        Era::Modern,
    )
    .await;
    let (mut cursor, mut read) = (0, String::new());
    loop {
        let arguments = json!({"executionId": execution_id().to_string(), "stdoutCursor": cursor, "waitSeconds": 0});
        let content = structured(
            "get_execution",
            &client.call("get_execution", arguments).await,
        );
        let page = content["stdout"]["text"].as_str().unwrap();
        assert!(page.len() <= MAX_TEXT && content["stdout"].get("omittedFrom").is_none());
        read.push_str(page);
        assert_eq!(content["stdout"]["offset"], json!(cursor));
        cursor = content["stdout"]["cursor"].as_u64().unwrap();
        if content["stdout"]["truncated"] == json!(false) {
            break;
        }
    }
    assert_eq!(read, text);
}

#[tokio::test]
async fn a_character_that_is_cut_off_waits_for_its_rest() {
    // "a", then two of the three bytes of a character.
    let half = StreamView {
        bytes: b"a\xe6\xbc".to_vec(),
        offset: 0,
        total_bytes: 3,
        cursor: 3,
        truncated: false,
    };
    let running = ExecutionView {
        state: ExecutionState::Running,
        exit_code: None,
        stdout: half.clone(),
        ..execution()
    };
    let content = shown(running.clone()).await;
    assert_eq!(
        (&content["stdout"]["text"], &content["stdout"]["cursor"]),
        (&json!("a"), &json!(1))
    );
    // Once the execution is over, nothing will follow: the bytes are shown for what they are.
    let content = shown(ExecutionView {
        state: ExecutionState::Exited,
        stdout: half,
        ..execution()
    })
    .await;
    assert_eq!(
        (&content["stdout"]["text"], &content["stdout"]["cursor"]),
        (&json!("a\u{fffd}"), &json!(3))
    );
}

#[tokio::test(start_paused = true)]
async fn half_a_character_is_no_news_to_a_reader_who_waits() {
    let road = ScriptedRoad::new(|_| {
        let stdout = StreamView {
            bytes: b"\xe6\xbc".to_vec(),
            offset: 5,
            total_bytes: 7,
            cursor: 7,
            truncated: false,
        };
        let view = ExecutionView {
            state: ExecutionState::Running,
            exit_code: None,
            stdout,
            ..execution()
        };
        Answer::Now(Ok(Outcome::Execution(Box::new(view))))
    });
    let mut client = Client::open(road, Era::Modern).await;
    let started = tokio::time::Instant::now();
    let arguments =
        json!({"executionId": execution_id().to_string(), "stdoutCursor": 5, "waitSeconds": 2});
    let content = structured(
        "get_execution",
        &client.call("get_execution", arguments).await,
    );
    assert_eq!(
        (&content["stdout"]["text"], &content["stdout"]["cursor"]),
        (&json!(""), &json!(5))
    );
    assert!(started.elapsed() >= std::time::Duration::from_secs(2));
    assert!(client.road.calls().len() < 15);
}

#[tokio::test]
async fn what_is_no_longer_kept_is_said() {
    let stdout = StreamView {
        bytes: b"late".to_vec(),
        offset: 1000,
        total_bytes: 1004,
        cursor: 1004,
        truncated: true,
    };
    let content = shown(ExecutionView {
        stdout,
        ..execution()
    })
    .await;
    assert_eq!(
        (
            &content["stdout"]["offset"],
            &content["stdout"]["truncated"]
        ),
        (&json!(1000), &json!(true))
    );
}

#[tokio::test]
async fn every_end_of_an_execution_is_a_result_with_its_sentence() {
    let ends = [
        (ExecutionState::Exited, Some(1), None, "Exited with code 1"),
        (
            ExecutionState::Exited,
            Some(127),
            None,
            "Exited with code 127",
        ),
        (ExecutionState::Killed, None, Some(9), "Killed by signal 9"),
        (ExecutionState::TimedOut, None, Some(9), "timeoutSeconds"),
        (ExecutionState::Failed, None, None, "failure says why"),
        (ExecutionState::Queued, None, None, "get_execution"),
        (ExecutionState::Running, None, None, "cancel_execution"),
    ];
    for (state, exit_code, signal, words) in ends {
        let failure =
            (state == ExecutionState::Failed).then(|| "no such program\u{1b}[0m".to_owned());
        let content = shown(ExecutionView {
            state,
            exit_code,
            signal,
            failure,
            oom_killed: true,
            ..execution()
        })
        .await;
        let message = content["message"].as_str().unwrap();
        assert!(
            message.contains(words) && message.contains("out of memory"),
            "{message}"
        );
        assert_eq!(
            (
                content.get("exitCode").is_some(),
                content.get("signal").is_some()
            ),
            (exit_code.is_some(), signal.is_some())
        );
        assert_eq!(content["state"], json!(state.as_str()));
    }
}

#[tokio::test]
async fn protected_changes_are_listed_up_to_a_bound_and_told() {
    let change = |n: usize| ProtectedChange {
        path: format!("sub{n}/.git/hooks/\u{202e}x").into(),
        moved_to: Some(".quarantine/x".into()),
        reason: "git runs it".to_owned(),
    };
    let content = shown(ExecutionView {
        protected_changes: (0..70).map(change).collect(),
        ..execution()
    })
    .await;
    assert_eq!(content["protectedChanges"].as_array().unwrap().len(), 50);
    assert_eq!(
        content["protectedChanges"][0]["path"],
        json!("sub0/.git/hooks/\\u{202e}x")
    );
    assert!(content["message"].as_str().unwrap().contains("70 paths"));
}

#[tokio::test]
async fn a_long_log_keeps_its_latest_lines() {
    let road = ScriptedRoad::new(|action| match action {
        Action::GetSessionLogs { session, .. } => {
            let line = |n: usize| model::LogLine {
                at: std::time::SystemTime::UNIX_EPOCH,
                text: format!("{n} {}", "\u{1b}[31mx\u{0}".repeat(500)),
            };
            Answer::Now(Ok(Outcome::Logs(*session, (0..1000).map(line).collect())))
        }
        other => Answer::Now(Ok(crate::scripted::healthy(other))),
    });
    let mut client = Client::open(road, Era::Modern).await;
    let arguments = json!({"sessionId": session_id().to_string(), "tail": 1000});
    let result = client.call("get_session_logs", arguments).await;
    let content = structured("get_session_logs", &result);
    let lines = content["lines"].as_array().unwrap();
    assert!(
        lines.last().unwrap()["text"]
            .as_str()
            .unwrap()
            .starts_with("999 x\\u{0}x")
    );
    assert_eq!(content["truncated"], json!(true));
    let size: usize = lines
        .iter()
        .map(|line| line["text"].as_str().unwrap().len())
        .sum();
    assert!(size <= MAX_TEXT && !content.to_string().contains('\u{1b}'));
}

//! Every tool: what it asks the road for, what it answers, and how it passes on a refusal.

use std::{path::Path, time::Duration};

use mcp::{reply, tool_list};
use model::{
    Action, BackendName, CommandLine, LimitName, Outcome, Reason, Refusal, TranscriptStart,
    TransferDirection,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    client::{Client, ERAS, Era},
    scripted::{Answer, ScriptedRoad, execution_id, session_id},
    validate::validate,
};

/// The least that each tool takes.
pub fn least(tool: &str) -> Value {
    let session = session_id().to_string();
    let execution = execution_id().to_string();
    match tool {
        "create_session" => json!({"projectPath": "/home/user/project"}),
        "execute_in_session" => json!({"sessionId": session, "prompt": "work"}),
        "execute_command" => json!({"sessionId": session, "command": "true"}),
        "get_execution" | "cancel_execution" => json!({"executionId": execution}),
        "respond_execution" => json!({"executionId": execution, "stdin": "y\n"}),
        "list_sessions" | "get_server_info" => json!({}),
        "get_session" | "destroy_session" | "get_session_logs" => json!({"sessionId": session}),
        "transfer_files" => {
            json!({"sessionId": session, "direction": "to_container", "sourcePath": "/src", "destPath": "/tmp/dest"})
        }
        "extend_session" => json!({"sessionId": session, "seconds": 60}),
        other => panic!("no such tool: {other}"),
    }
}

fn output_schema(tool: &str) -> Value {
    let tool = tool_list()
        .into_iter()
        .find(|known| known.name == tool)
        .unwrap();
    Value::Object((*tool.output_schema.unwrap()).clone())
}

/// The structured content of a result that is no error and fits its schema.
pub fn structured(tool: &str, result: &Value) -> Value {
    assert_eq!(result["isError"], json!(false), "{tool}: {result}");
    let content = result["structuredContent"].clone();
    validate(&output_schema(tool), &content, tool).unwrap();
    let mirrored = result["content"][0]["text"].as_str().unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(mirrored).unwrap(),
        content,
        "{tool}"
    );
    assert!(
        content["message"]
            .as_str()
            .is_some_and(|message| message.ends_with('.')),
        "{tool}: {content}"
    );
    content
}

/// A typed client reads exactly what was written.
fn read_back<T: Serialize + DeserializeOwned>(content: &Value) {
    let typed: T = serde_json::from_value(content.clone()).unwrap();
    assert_eq!(&serde_json::to_value(typed).unwrap(), content);
}

async fn asked(tool: &str, arguments: Value) -> Action {
    let mut client = Client::open(ScriptedRoad::healthy(), Era::Legacy("2025-11-25")).await;
    structured(tool, &client.call(tool, arguments).await);
    let calls = client.road.calls();
    // get_execution looks first whether it is a prompt.
    let due = if tool == "get_execution" { 2 } else { 1 };
    assert_eq!(calls.len(), due, "{tool}");
    calls[due - 1].action.clone()
}

#[tokio::test]
async fn every_tool_answers_in_every_era_what_its_schema_says() {
    for era in ERAS {
        let mut client = Client::open(ScriptedRoad::healthy(), era).await;
        for tool in tool_list() {
            let name = tool.name.as_ref();
            let content = structured(name, &client.call(name, least(name)).await);
            match name {
                "create_session" | "get_session" | "extend_session" => {
                    read_back::<reply::SessionReply>(&content)
                }
                "execute_in_session" | "execute_command" | "get_execution" | "cancel_execution" => {
                    read_back::<reply::ExecutionReply>(&content);
                }
                "respond_execution" => read_back::<reply::RespondReply>(&content),
                "list_sessions" => read_back::<reply::SessionListReply>(&content),
                "destroy_session" => read_back::<reply::DestroyReply>(&content),
                "get_session_logs" => read_back::<reply::LogsReply>(&content),
                "transfer_files" => read_back::<reply::TransferReply>(&content),
                "get_server_info" => read_back::<reply::ServerInfoReply>(&content),
                other => panic!("{other} has no reply type"),
            }
        }
        assert_eq!(client.road.calls().len(), tool_list().len() + 1);
    }
}

#[tokio::test]
async fn a_transcript_is_clean_and_says_where_to_read_on() {
    let mut client = Client::open(ScriptedRoad::healthy(), Era::Legacy("2025-11-25")).await;
    let session = session_id().to_string();
    let transcript = json!({"sessionId": session, "transcript": true});
    let result = client.call("get_session_logs", transcript).await;
    let content = structured("get_session_logs", &result);
    read_back::<reply::LogsReply>(&content);
    assert_eq!(content["cursor"], 4096);
    assert_eq!(content["truncated"], true);
    assert_eq!(content["lines"][0]["kind"], "says");
    assert_eq!(content["lines"][0]["text"], "done\\u{202e}");
    for wrong in [
        json!({"sessionId": session, "cursor": 1}),
        json!({"sessionId": session, "executionId": execution_id().to_string()}),
        json!({"sessionId": session, "transcript": true, "conversationId": "x".repeat(36)}),
        json!({"sessionId": session, "transcript": true, "cursor": 1, "executionId": execution_id().to_string()}),
    ] {
        let result = client.call("get_session_logs", wrong.clone()).await;
        assert_eq!(
            result["structuredContent"]["error"]["code"], "invalid_argument",
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn replies_are_what_was_reviewed() {
    let mut client = Client::open(ScriptedRoad::healthy(), Era::Legacy("2025-11-25")).await;
    for tool in tool_list() {
        let result = client.call(&tool.name, least(&tool.name)).await;
        insta::assert_json_snapshot!(format!("reply_{}", tool.name), result["structuredContent"]);
    }
}

#[tokio::test]
async fn every_reason_reaches_the_caller_with_code_hint_and_field_but_without_its_causes() {
    for reason in Reason::ALL {
        let road = ScriptedRoad::new(move |_| {
            let mut refusal = Refusal::new(*reason, "What is wrong.", "What to do.")
                .in_field("sessionId")
                .retry_after_ms(1500);
            refusal.detail = Some("canary in the chain of causes".to_owned());
            Answer::Now(Err(refusal))
        });
        let mut client = Client::open(road, Era::Modern).await;
        for tool in tool_list() {
            let result = client.call(&tool.name, least(&tool.name)).await;
            assert_eq!(result["isError"], json!(true), "{result}");
            let error = json!({"error": {
                "code": reason.code(), "message": "What is wrong.", "hint": "What to do.",
                "field": "sessionId", "retryAfterMs": 1500,
            }});
            assert_eq!(result["structuredContent"], error, "{}", tool.name);
            validate(&output_schema(&tool.name), &error, &tool.name).unwrap();
            assert!(validate(&output_schema(&tool.name), &json!({}), &tool.name).is_err());
            assert_eq!(result["content"][0]["text"], json!(error.to_string()));
            assert!(!result.to_string().contains("canary"));
            read_back::<reply::ErrorReply>(&result["structuredContent"]);
        }
    }
}

#[tokio::test]
async fn an_outcome_of_another_kind_is_an_internal_error_not_a_wrong_reply() {
    for tool in tool_list() {
        let road = ScriptedRoad::new(|_| Answer::Now(Ok(Outcome::Sessions(vec![]))));
        let expected = if tool.name == "list_sessions" {
            json!(null)
        } else {
            json!("internal")
        };
        let mut client = Client::open(road, Era::Modern).await;
        let result = client.call(&tool.name, least(&tool.name)).await;
        assert_eq!(
            result["structuredContent"]["error"]["code"], expected,
            "{}",
            tool.name
        );
    }
}

#[tokio::test]
async fn ended_sessions_are_listed_where_they_are_asked_for_with_the_time_of_their_end() {
    for (arguments, expected) in [
        (json!({}), false),
        (json!({"includeEnded": false}), false),
        (json!({"includeEnded": true}), true),
    ] {
        let Action::ListSessions { ended } = asked("list_sessions", arguments).await else {
            panic!("no list")
        };
        assert_eq!(ended, expected);
    }
    let mut client = Client::open(ScriptedRoad::healthy(), Era::Modern).await;
    let result = client
        .call("list_sessions", json!({"includeEnded": true}))
        .await;
    let content = structured("list_sessions", &result);
    assert_eq!(content["sessions"][0].get("endedAt"), None);
    let ended = content["sessions"][1]["endedAt"].as_str();
    assert!(ended.is_some_and(|at| at.ends_with('Z')), "{content}");
}

#[tokio::test]
async fn a_lifetime_that_the_operator_does_not_give_is_said_to_be_cut() {
    let mut client = Client::open(ScriptedRoad::healthy(), Era::Modern).await;
    for (ttl, cut) in [(3600, false), (7200, true)] {
        let arguments = json!({"projectPath": "/p", "ttlSeconds": ttl});
        let result = client.call("create_session", arguments).await;
        let content = structured("create_session", &result);
        let message = content["message"].as_str().unwrap();
        assert_eq!(message.contains("cut to 3600"), cut, "{message}");
    }
}

#[tokio::test]
async fn create_session_passes_everything_on() {
    let action = asked(
        "create_session",
        json!({
            "projectPath": "/home/user/project", "sessionName": "my session é", "backend": "native",
            "mcpMounts": [
                {"hostPath": "/data", "containerPath": "/mnt/data"},
                {"hostPath": "/out", "containerPath": "/mnt/out", "readOnly": false},
            ],
            "ttlSeconds": 3600, "idleSeconds": 600.0, "env": {"TOKEN": "canary", "_": ""},
            "idempotencyKey": "k-1", "limits": {"memoryBytes": 1_073_741_824, "pids": 100},
        }),
    )
    .await;
    assert!(!format!("{action:?}").contains("canary"));
    let Action::CreateSession(create) = action else {
        panic!("{action:?}")
    };
    assert_eq!(create.project_path, Path::new("/home/user/project"));
    assert_eq!(
        (create.name.as_deref(), create.backend),
        (Some("my session é"), Some(BackendName::Native))
    );
    assert_eq!(
        (create.ttl, create.idle),
        (
            Some(Duration::from_secs(3600)),
            Some(Duration::from_secs(600))
        )
    );
    assert_eq!(
        create
            .mounts
            .iter()
            .map(|mount| mount.read_only)
            .collect::<Vec<_>>(),
        [true, false]
    );
    assert_eq!(create.mounts[0].container_path, Path::new("/mnt/data"));
    assert_eq!(create.env["TOKEN"].expose(), "canary");
    assert_eq!(create.idempotency_key.as_deref(), Some("k-1"));
    let limits: Vec<_> = create
        .limits
        .iter()
        .map(|limit| (limit.limit, limit.value))
        .collect();
    assert_eq!(
        limits,
        [
            (LimitName::MemoryBytes, 1_073_741_824),
            (LimitName::Pids, 100)
        ]
    );
}

#[tokio::test]
async fn create_session_asks_for_nothing_that_was_not_named() {
    let Action::CreateSession(create) = asked("create_session", least("create_session")).await
    else {
        panic!()
    };
    assert!(
        create.name.is_none()
            && create.backend.is_none()
            && create.ttl.is_none()
            && create.idle.is_none()
    );
    assert!(create.mounts.is_empty() && create.limits.is_empty() && create.env.is_empty());
}

#[tokio::test]
async fn execute_command_passes_a_shell_line_or_an_argument_list_on() {
    let session = session_id().to_string();
    let line = json!({
        "sessionId": session, "command": "echo \"$A\"\n", "cwd": "src/../lib", "env": {"A": "1"}, "stdin": "in\u{0}put",
        "keepStdinOpen": true, "timeoutSeconds": 5, "waitSeconds": 0,
    });
    let Action::ExecuteCommand(execute) = asked("execute_command", line).await else {
        panic!()
    };
    assert_eq!(
        execute.command,
        CommandLine::Shell("echo \"$A\"\n".to_owned())
    );
    assert_eq!(
        execute.cwd.as_deref(),
        Some(Path::new("/workspace/src/../lib"))
    );
    assert_eq!(execute.stdin.as_ref().unwrap().expose(), b"in\0put");
    assert!(execute.keep_stdin_open && execute.terminal.is_none());
    assert_eq!(
        (execute.timeout, execute.wait),
        (Some(Duration::from_secs(5)), Duration::ZERO)
    );

    let list = json!({"sessionId": session, "argv": ["printf", "%s", "", "a b"], "cwd": "/tmp"});
    let Action::ExecuteCommand(execute) = asked("execute_command", list).await else {
        panic!()
    };
    let argv = ["printf", "%s", "", "a b"].map(str::to_owned).to_vec();
    assert_eq!(execute.command, CommandLine::Argv(argv));
    assert_eq!(execute.cwd.as_deref(), Some(Path::new("/tmp")));
    assert!(execute.stdin.is_none() && !execute.keep_stdin_open);
    assert_eq!(
        (execute.timeout, execute.wait),
        (None, Duration::from_secs(20))
    );
}

#[tokio::test]
async fn the_other_tools_pass_their_arguments_on() {
    let session = session_id().to_string();
    let execution = execution_id().to_string();
    let get = json!({"executionId": execution, "stdoutCursor": 7, "stderrCursor": u64::MAX, "waitSeconds": 45});
    let Action::GetExecution(get) = asked("get_execution", get).await else {
        panic!()
    };
    assert_eq!(
        (get.stdout_cursor, get.stderr_cursor, get.wait),
        (7, u64::MAX, Duration::from_secs(45))
    );

    for (arguments, bytes, closes) in [
        (
            json!({"executionId": execution, "stdin": "é"}),
            "é".as_bytes(),
            false,
        ),
        (
            json!({"executionId": execution, "stdinBase64": "AP8=", "close": true}),
            b"\x00\xff",
            true,
        ),
        (json!({"executionId": execution, "close": true}), b"", true),
    ] {
        let Action::RespondExecution { data, close, .. } =
            asked("respond_execution", arguments).await
        else {
            panic!()
        };
        assert_eq!((data.expose().as_slice(), close), (bytes, closes));
    }

    for (arguments, lines) in [
        (json!({"sessionId": session}), 100),
        (json!({"sessionId": session, "tail": 1000}), 1000),
    ] {
        let Action::GetSessionLogs { tail, .. } = asked("get_session_logs", arguments).await else {
            panic!()
        };
        assert_eq!(tail, lines);
    }

    let conversation = "6f1f9a52-5e8d-4c37-9b0e-0a4cf2b7d911";
    for (arguments, from) in [
        (json!({"transcript": true}), TranscriptStart::Cursor(0)),
        (
            json!({"transcript": true, "cursor": 7, "conversationId": conversation}),
            TranscriptStart::Cursor(7),
        ),
        (
            json!({"transcript": true, "executionId": execution}),
            TranscriptStart::Prompt(execution_id()),
        ),
    ] {
        let mut arguments = arguments;
        arguments["sessionId"] = json!(session);
        let Action::ReadTranscript(request) = asked("get_session_logs", arguments).await else {
            panic!()
        };
        assert_eq!(request.from, from);
    }

    let inwards = json!({"sessionId": session, "direction": "to_container", "sourcePath": "/a", "destPath": "b"});
    let Action::TransferFiles(transfer) = asked("transfer_files", inwards).await else {
        panic!()
    };
    assert_eq!(transfer.direction, TransferDirection::ToContainer);
    assert_eq!(
        (transfer.source.as_path(), transfer.destination.as_path()),
        (Path::new("/a"), Path::new("/workspace/b"))
    );
    let outwards = json!({"sessionId": session, "direction": "from_container", "sourcePath": "/state/a", "destPath": "/b"});
    let Action::TransferFiles(transfer) = asked("transfer_files", outwards).await else {
        panic!()
    };
    assert_eq!(transfer.direction, TransferDirection::FromContainer);
    assert_eq!(transfer.source, Path::new("/state/a"));

    let Action::ExtendSession { by, .. } = asked("extend_session", least("extend_session")).await
    else {
        panic!()
    };
    assert_eq!(by, Duration::from_secs(60));
}

#[tokio::test]
async fn a_cancel_without_a_view_is_followed_by_a_look() {
    let road = ScriptedRoad::new(|action| match action {
        Action::CancelExecution(_) => Answer::Now(Ok(Outcome::Done)),
        other => Answer::Now(Ok(crate::scripted::healthy(other))),
    });
    let mut client = Client::open(road, Era::Modern).await;
    let content = structured(
        "cancel_execution",
        &client
            .call("cancel_execution", least("cancel_execution"))
            .await,
    );
    assert_eq!(content["state"], json!("exited"));
    assert_eq!(client.road.calls().len(), 2);
}

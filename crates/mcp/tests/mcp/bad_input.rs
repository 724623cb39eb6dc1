//! Bad input: each row is answered with its code, its field and a helpful sentence, and never reaches the road.

use mcp::tool_list;
use serde_json::{Value, json};

use crate::{
    bad_rows::{
        CANARY, Row, not_yet, with, wrong_numbers, wrong_structures, wrong_texts, wrong_types,
    },
    client::{Client, Era},
    scripted::ScriptedRoad,
    tools::{least, structured},
};

/// Longest sentence that a mistake is answered with, bytes: the list of a tool's arguments is in it.
const MAX_MESSAGE: usize = 600;

async fn assert_refused(rows: Vec<Row>, says: &[&str]) {
    let mut client = Client::open(ScriptedRoad::healthy(), Era::Legacy("2025-11-25")).await;
    for Row {
        tool,
        arguments,
        field,
    } in rows
    {
        let shown: String = arguments.to_string().chars().take(200).collect();
        let result = client.call(&tool, arguments).await;
        let error = &result["structuredContent"]["error"];
        assert_eq!(
            (&result["isError"], &error["code"]),
            (&json!(true), &json!("invalid_argument")),
            "{tool} {shown}: {result}"
        );
        assert_eq!(error["field"], json!(field), "{tool} {shown}: {error}");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains(&format!("`{field}`")) && message.ends_with('.'),
            "{message}"
        );
        assert!(
            message.len() <= MAX_MESSAGE && !message.contains(CANARY),
            "{message}"
        );
        assert!(says.iter().all(|word| message.contains(word)), "{message}");
        assert!(!error["hint"].as_str().unwrap().is_empty());
    }
    assert!(client.road.calls().is_empty(), "something reached the road");
    // The positive control: the very same conversation carries out what is right.
    for tool in tool_list() {
        structured(
            &tool.name,
            &client.call(&tool.name, least(&tool.name)).await,
        );
    }
    // get_execution looks first whether it is a prompt.
    assert_eq!(client.road.calls().len(), tool_list().len() + 1);
}

#[tokio::test]
async fn wrong_types_nulls_unknown_and_missing_arguments_are_refused() {
    let rows = wrong_types();
    assert!(rows.len() > 200, "{}", rows.len());
    assert_refused(rows, &[]).await;
}

#[tokio::test]
async fn numbers_out_of_range_are_refused() {
    assert_refused(wrong_numbers(), &["must be a whole number"]).await;
}

#[tokio::test]
async fn malformed_and_huge_texts_are_refused() {
    assert_refused(wrong_texts(), &[]).await;
}

#[tokio::test]
async fn contradictions_and_malformed_structures_are_refused() {
    assert_refused(wrong_structures(), &[]).await;
}

#[tokio::test]
async fn arguments_of_later_versions_are_refused_by_name_never_dropped() {
    assert_refused(not_yet(), &["is not supported yet"]).await;
}

#[tokio::test]
async fn an_unknown_argument_is_answered_with_what_was_meant_and_what_is_allowed() {
    let mut client = Client::open(ScriptedRoad::healthy(), Era::Modern).await;
    for (tool, wrong, meant) in [
        ("get_session", "session_id", "sessionId"),
        ("create_session", "ProjectPath", "projectPath"),
        ("execute_command", "wait-seconds", "waitSeconds"),
    ] {
        let result = client.call(tool, with(tool, wrong, json!("x"))).await;
        let message = result["structuredContent"]["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            message.contains(&format!("Did you mean `{meant}`?"))
                && message.contains("Allowed are: "),
            "{message}"
        );
    }
    let name = format!("{CANARY}\u{1b}[31m\u{202e}{}", "x".repeat(1_000_000));
    let result = client
        .call("get_session", with("get_session", &name, json!(1)))
        .await;
    let error = result["structuredContent"]["error"].to_string();
    assert!(
        error.len() < 1000 && !error.contains(['\u{1b}', '\u{202e}']),
        "{error}"
    );
    assert!(client.road.calls().is_empty());
}

#[tokio::test]
async fn arguments_that_are_no_object_are_a_protocol_error() {
    let mut client = Client::open(ScriptedRoad::healthy(), Era::Legacy("2025-11-25")).await;
    for arguments in [json!([]), json!("x"), json!(7)] {
        client
            .start(
                "tools/call",
                json!({"name": "list_sessions", "arguments": arguments}),
            )
            .await;
        let answer = client.receive().await;
        assert!(answer["error"]["code"].is_i64(), "{answer}");
    }
    assert!(client.road.calls().is_empty());
}

/// One raw call of `create_session`, which no parser has been over.
async fn call_raw(client: &mut Client, id: u64, arguments: &str) -> Value {
    let line = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"create_session","arguments":{arguments}}}}}"#
    );
    client.send_raw(&line).await;
    client.answer(id).await["result"].clone()
}

#[tokio::test]
async fn an_argument_that_is_given_twice_is_refused_by_name() {
    let mut client = Client::open(ScriptedRoad::healthy(), Era::Legacy("2025-11-25")).await;
    for (id, arguments, field) in [
        (
            900,
            r#"{"projectPath":"/p","projectPath":"/q"}"#,
            "projectPath",
        ),
        (
            901,
            r#"{"projectPath":"/p","\u0070rojectPath":"/p"}"#,
            "projectPath",
        ),
        (
            902,
            r#"{"projectPath":"/p","env":{},"ttlSeconds":1,"env":{}}"#,
            "env",
        ),
        (
            903,
            r#"{"projectPath":"/p","limits":{"pids":9,"pids":8}}"#,
            "limits.pids",
        ),
    ] {
        let refused = call_raw(&mut client, id, arguments).await;
        let error = &refused["structuredContent"]["error"];
        assert_eq!(error["code"], "invalid_argument", "{arguments}: {refused}");
        assert_eq!(error["field"], field, "{arguments}: {refused}");
    }
    assert!(client.road.calls().is_empty());
    let control = call_raw(&mut client, 910, r#"{"projectPath":"/p","env":{}}"#).await;
    assert!(control["isError"] != json!(true), "{control}");
}

#[tokio::test]
async fn options_reach_the_road_as_they_were_written() {
    let mut client = Client::open(ScriptedRoad::healthy(), Era::Legacy("2025-11-25")).await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for (index, (options, told)) in [
        (r#"{"Memory":"1g","Memory":"2g"}"#, vec!["1g", "2g"]),
        (r#"{"Memory":1.5}"#, vec!["NoWholeNumber"]),
        (r#"{"Memory":1e999}"#, vec!["NoJson"]),
        (deep.as_str(), vec!["NoObject"]),
        ("7", vec!["NoObject"]),
    ]
    .into_iter()
    .enumerate()
    {
        let arguments = format!(r#"{{"projectPath":"/p","dockerOpts":{options}}}"#);
        call_raw(&mut client, 900 + index as u64, &arguments).await;
        let calls = client.road.calls();
        assert_eq!(calls.len(), index + 1);
        let told_to_the_road = format!("{:?}", calls[index].action);
        for part in told {
            assert!(told_to_the_road.contains(part), "{told_to_the_road}");
        }
    }
}

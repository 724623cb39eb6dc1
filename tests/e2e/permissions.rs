//! Sessions with `strictPermissions`: what the real Claude Code asks, who may answer, and what the audit log says of it.

use std::{
    fs,
    time::{Duration, Instant},
};

use scripted_api::{Block, Script, Turn, When, by_prompt};
use serde_json::{Value, json};

use crate::support::{
    Client, Machine, alone,
    stage::{Stage, finish, start},
    users,
};

/// A strict session's stage; `set` are variables of the server.
fn stage(set: &[(&str, &str)]) -> Option<Stage> {
    stage_with(by_prompt().expect("the scenarios"), set)
}

fn stage_with(script: Script, set: &[(&str, &str)]) -> Option<Stage> {
    let mut machine = Machine::new(users()[0]);
    machine.set("CLAUDE_CODE_MCP_BACKEND", "native");
    for (name, value) in set {
        machine.set(name, value);
    }
    Stage::of(machine, script)
}

fn strict(stage: &Stage, client: &mut Client) -> String {
    client.create_with(json!({ "projectPath": stage.machine.project, "strictPermissions": true }))
}

/// A client whose person can be asked.
fn asking(stage: &Stage) -> Client {
    stage.machine.client_that_can(&json!({ "elicitation": {} }))
}

/// Calls and leaves the answer for later.
fn post(client: &mut Client, tool: &str, arguments: Value) -> u64 {
    client.post(
        "tools/call",
        json!({ "name": tool, "arguments": arguments }),
    )
}

fn touch(session: &str, file: &str) -> Value {
    json!({ "sessionId": session, "prompt": format!("[[run]] RUN: touch {file}"), "waitSeconds": 40 })
}

/// Waits until something stands in `pendingPermissions`.
fn pending(client: &mut Client, started: &Value) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let look = json!({ "executionId": started["executionId"], "waitSeconds": 10 });
        let seen = client.tool("get_execution", look).expect("the execution");
        if seen["pendingPermissions"].get(0).is_some() {
            return seen;
        }
        assert!(
            Instant::now() < deadline && seen["state"] == "running",
            "nothing is asked: {seen:#}"
        );
    }
}

/// Who answered, and what, by the audit log.
fn answers_on_record(stage: &Stage) -> Vec<(String, String)> {
    let log = fs::read_to_string(stage.machine.audit_log()).expect("the audit log");
    let word = |record: &Value, name: &str| {
        let found = find(record, name).unwrap_or_else(|| panic!("no {name} in {record:#}"));
        found.as_str().expect("a word").to_owned()
    };
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|record| record.to_string().contains("prompt.answer"))
        .filter(|record| find(record, "answered_by").is_some())
        .map(|record| (word(&record, "answered_by"), word(&record, "answer")))
        .collect()
}

fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => fields
            .get(name)
            .or_else(|| fields.values().find_map(|value| find(value, name))),
        Value::Array(values) => values.iter().find_map(|value| find(value, name)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn record(by: &str, answer: &str) -> (String, String) {
    (by.to_owned(), answer.to_owned())
}

#[test]
fn a_person_at_the_client_allows_or_denies() {
    let _alone = alone();
    let Some(stage) = stage(&[]) else { return };
    let mut client = asking(&stage);
    let session = strict(&stage, &mut client);
    let allow = json!({ "action": "accept", "content": { "decision": "allow once" } });
    let deny =
        json!({ "action": "accept", "content": { "decision": "deny", "reason": "Not today." } });
    let table = [
        ("allowed", allow, true),
        ("denied", deny, false),
        ("declined", json!({ "action": "decline" }), false),
        ("dismissed", json!({ "action": "cancel" }), false),
    ];
    for (file, result, is_allowed) in table {
        let id = post(&mut client, "execute_in_session", touch(&session, file));
        let form = client.request_of_the_server("elicitation/create");
        let message = form["params"]["message"].as_str().expect("a message");
        assert!(
            message.contains("Bash") && message.contains(&format!("touch {file}")),
            "{message}"
        );
        assert!(
            !stage.machine.project.join(file).exists(),
            "it was done before it was allowed"
        );
        client.send(&json!({ "jsonrpc": "2.0", "id": form["id"], "result": result }));
        let answer = client.answer(id).expect("an answer")["structuredContent"].clone();
        let done = finish(&mut client, answer);
        assert_eq!(done["stop"], "completed", "{done:#}");
        assert_eq!(
            stage.machine.project.join(file).exists(),
            is_allowed,
            "{file}"
        );
        let denials = done["permissionDenials"].as_array().map_or(0, Vec::len);
        assert_eq!(denials, usize::from(!is_allowed), "{done:#}");
    }
    let due = [
        ("person", "allow"),
        ("person", "deny"),
        ("person", "deny"),
        ("person", "deny"),
    ];
    assert_eq!(
        answers_on_record(&stage),
        due.map(|(by, answer)| record(by, answer))
    );
}

#[test]
fn a_question_of_claude_code_reaches_the_person_in_words() {
    let _alone = alone();
    let script = Script::of([
        Turn::say([Block::tool(
            "mcp__host__ask_caller",
            json!({ "question": "Which port?" }),
        )])
        .when(When::prompt(["start"]).tool_results(0)),
        Turn::say([Block::text("It said: {{result}}")]),
    ]);
    let Some(stage) = stage_with(
        script,
        &[("CLAUDE_CODE_MCP_PERMISSION_ALLOW", "mcp__host__ask_caller")],
    ) else {
        return;
    };
    let mut client = asking(&stage);
    let session = strict(&stage, &mut client);
    let prompt = json!({ "sessionId": session, "prompt": "start", "waitSeconds": 40 });
    let id = post(&mut client, "execute_in_session", prompt);
    let form = client.request_of_the_server("elicitation/create");
    assert!(
        form["params"]["message"]
            .as_str()
            .expect("words")
            .contains("> Which port?"),
        "{form}"
    );
    let result = json!({ "action": "accept", "content": { "answer": "Port 8471." } });
    client.send(&json!({ "jsonrpc": "2.0", "id": form["id"], "result": result }));
    let answer = client.answer(id).expect("an answer")["structuredContent"].clone();
    let done = finish(&mut client, answer);
    assert!(
        done["result"]
            .as_str()
            .expect("a result")
            .contains("Port 8471."),
        "{done:#}"
    );
    assert_eq!(answers_on_record(&stage), [record("person", "words")]);
}

#[test]
fn a_modern_client_gets_the_question_as_a_result() {
    let _alone = alone();
    let Some(stage) = stage(&[]) else { return };
    let mut client = asking(&stage);
    let session = strict(&stage, &mut client);
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": { "elicitation": { "form": {} } },
        "io.modelcontextprotocol/clientInfo": { "name": "tests", "version": "1" },
    });
    let mut params = json!({ "name": "execute_in_session", "arguments": touch(&session, "modern"), "_meta": meta });
    let asked = client
        .request("tools/call", params.clone())
        .expect("a result");
    assert_eq!(asked["resultType"], "input_required", "{asked:#}");
    let (id, _) = asked["inputRequests"]
        .as_object()
        .and_then(|all| all.iter().next())
        .expect("a request");
    params["inputResponses"] =
        json!({ id: { "action": "accept", "content": { "decision": "allow once" } } });
    params["requestState"] = asked["requestState"].clone();
    let answer =
        client.request("tools/call", params).expect("a result")["structuredContent"].clone();
    let done = finish(&mut client, answer);
    assert_eq!(done["stop"], "completed", "{done:#}");
    assert!(stage.machine.project.join("modern").exists());
    assert_eq!(answers_on_record(&stage), [record("person", "allow")]);
}

fn respond(seen: &Value, allow: bool) -> Value {
    json!({
        "executionId": seen["executionId"],
        "permissionId": seen["pendingPermissions"][0]["permissionId"],
        "allow": allow,
    })
}

#[test]
fn a_client_that_cannot_ask_lists_what_is_pending_and_a_person_elsewhere_answers() {
    let _alone = alone();
    let Some(stage) = stage(&[]) else { return };
    let mut client = stage.machine.client();
    let session = strict(&stage, &mut client);
    let started = start(
        &mut client,
        &session,
        "[[run]] RUN: touch elsewhere",
        json!({}),
    );
    let seen = pending(&mut client, &started);
    let asked = &seen["pendingPermissions"][0];
    assert_eq!(
        (&asked["tool"], &asked["kind"]),
        (&json!("Bash"), &json!("permission")),
        "{seen:#}"
    );
    // The calling model may not.
    let refused = client
        .tool("respond_execution", respond(&seen, true))
        .expect_err("refused");
    assert_eq!(refused["code"], "policy_denied", "{refused:#}");
    assert!(!stage.machine.project.join("elsewhere").exists());
    // A person may.
    let answered = stage
        .machine
        .cli_on_terminal(&["session", "approve", &session, "--yes"]);
    let said = String::from_utf8_lossy(&answered.stderr);
    assert!(answered.status.success(), "{said}");
    let done = finish(&mut client, seen);
    assert_eq!(done["stop"], "completed", "{done:#}");
    assert!(stage.machine.project.join("elsewhere").exists());
    assert!(answers_on_record(&stage).contains(&record("person", "allow")));
}

#[test]
fn the_calling_model_answers_where_the_operator_lets_it() {
    let _alone = alone();
    let Some(stage) = stage(&[("CLAUDE_CODE_MCP_CALLER_MAY_ANSWER", "true")]) else {
        return;
    };
    let mut client = stage.machine.client();
    let session = strict(&stage, &mut client);
    let started = start(&mut client, &session, "[[run]] RUN: touch model", json!({}));
    let seen = pending(&mut client, &started);
    client
        .tool("respond_execution", respond(&seen, true))
        .expect("answered");
    let again = client
        .tool("respond_execution", respond(&seen, false))
        .expect_err("a second answer");
    assert!(
        ["question_not_found", "execution_ended"]
            .contains(&again["code"].as_str().expect("a code")),
        "{again:#}"
    );
    let done = finish(&mut client, seen);
    assert!(stage.machine.project.join("model").exists(), "{done:#}");
    assert!(answers_on_record(&stage).contains(&record("caller", "allow")));
}

#[test]
fn what_nobody_answers_is_denied_at_its_deadline_and_the_prompt_goes_on() {
    let _alone = alone();
    let Some(stage) = stage(&[("CLAUDE_CODE_MCP_PERMISSION_TIMEOUT", "4")]) else {
        return;
    };
    let mut client = asking(&stage);
    let session = strict(&stage, &mut client);
    let began = Instant::now();
    let mut arguments = touch(&session, "nobody");
    arguments["waitSeconds"] = json!(1);
    let id = post(&mut client, "execute_in_session", arguments);
    let answer = client.answer(id).expect("an answer")["structuredContent"].clone();
    let done = finish(&mut client, answer);
    assert!(
        began.elapsed() > Duration::from_secs(4),
        "denied before its deadline"
    );
    assert_eq!(
        (&done["stop"], &done["state"]),
        (&json!("completed"), &json!("exited")),
        "{done:#}"
    );
    assert_eq!(done["permissionDenials"][0]["tool"], "Bash", "{done:#}");
    assert!(!stage.machine.project.join("nobody").exists());
    assert_eq!(answers_on_record(&stage), []);
}

#[test]
fn rules_of_the_operator_come_before_anybody_is_asked() {
    let _alone = alone();
    let Some(stage) = stage(&[
        ("CLAUDE_CODE_MCP_PERMISSION_ALLOW", "Bash(touch ruled-in)"),
        ("CLAUDE_CODE_MCP_PERMISSION_DENY", "Bash(touch ruled-out)"),
        ("CLAUDE_CODE_MCP_PERMISSION_TIMEOUT", "3"),
    ]) else {
        return;
    };
    let mut client = asking(&stage);
    let session = strict(&stage, &mut client);
    for (file, is_allowed, is_asked) in [
        ("ruled-in", true, false),
        ("ruled-out", false, false),
        ("unruled", false, true),
    ] {
        let id = post(&mut client, "execute_in_session", touch(&session, file));
        if is_asked {
            client.request_of_the_server("elicitation/create");
        }
        let began = Instant::now();
        let answer = client.answer(id).expect("an answer")["structuredContent"].clone();
        let done = finish(&mut client, answer);
        assert_eq!(done["stop"], "completed", "{done:#}");
        assert_eq!(
            stage.machine.project.join(file).exists(),
            is_allowed,
            "{file}: {done:#}"
        );
        let waited = began.elapsed() > Duration::from_millis(2500);
        assert!(is_asked == waited || !is_asked, "{file}");
    }
    assert_eq!(answers_on_record(&stage), []);
}

//! A caller from elsewhere at this door: names of projects instead of paths, files by content, tools for keys (P2a).

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt;
use mcp::{HttpCaller, HttpService};
use model::{
    Action, Credentials, ExecutionState, Outcome, ReadFile, Reason, Refusal, Scope, Scopes, Secret,
    Source, WriteFile,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Client, ERAS, Era, client_info},
    scripted::{Answer, ScriptedRoad, healthy, session_id, upload_id},
    tools::{least, structured},
};

const LEGACY: Era = Era::Legacy("2025-11-25");
/// No call by HTTP waits longer.
const PATIENCE: Duration = Duration::from_secs(60);

fn key() -> Credentials {
    Credentials::ApiKey(Secret::new("ccmcp_canary".to_owned()))
}

async fn remote(era: Era) -> Client {
    Client::presenting(ScriptedRoad::healthy(), era, key(), false).await
}

/// The code and the field of a refusal.
async fn refused(client: &mut Client, tool: &str, arguments: Value) -> (String, String) {
    let result = client.call(tool, arguments).await;
    let error = &result["structuredContent"]["error"];
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    (text("code"), text("field"))
}

#[tokio::test]
async fn a_remote_caller_names_a_project_and_a_local_one_a_path() {
    for era in ERAS {
        let mut client = remote(era).await;
        structured(
            "create_session",
            &client
                .call("create_session", json!({"projectPath": "app/sub"}))
                .await,
        );
        let calls = client.road.calls();
        let Action::CreateSession(asked) = &calls[0].action else {
            panic!()
        };
        assert_eq!(asked.project_path, std::path::Path::new("app/sub"));
        assert_eq!(calls[0].credentials, key());
    }
    let mut client = Client::open(ScriptedRoad::healthy(), LEGACY).await;
    let refused = refused(
        &mut client,
        "create_session",
        json!({"projectPath": "app/sub"}),
    )
    .await;
    assert_eq!(
        refused,
        ("invalid_argument".to_owned(), "projectPath".to_owned())
    );
}

#[tokio::test]
async fn a_file_goes_by_content_as_text_or_in_base_64_in_pieces() {
    let session = session_id().to_string();
    let mut client = remote(LEGACY).await;
    let mut call = async |arguments: Value| {
        let mut all = json!({"sessionId": session, "direction": "to_container", "destPath": "a"});
        all.as_object_mut()
            .unwrap()
            .extend(arguments.as_object().unwrap().clone());
        let reply = structured("transfer_files", &client.call("transfer_files", all).await);
        let calls = client.road.calls();
        let Action::WriteFile(asked) = calls.last().unwrap().action.clone() else {
            panic!()
        };
        (reply, asked)
    };
    let (reply, asked) = call(json!({"content": "hé\n"})).await;
    assert_eq!(asked.content.expose(), "hé\n".as_bytes());
    assert!(asked.is_last && asked.upload.is_none() && asked.offset == 0);
    assert_eq!(asked.destination, std::path::Path::new("/workspace/a"));
    assert_eq!(
        (&reply["files"], &reply["handle"]),
        (&json!(1), &Value::Null)
    );
    assert_eq!(reply["sha256"], "ab".repeat(32));
    let (reply, asked) = call(json!({"contentBase64": "AP8=", "more": true})).await;
    assert_eq!(asked.content.expose(), &[0, 255]);
    assert_eq!(reply["handle"], upload_id().to_string());
    assert_eq!(
        (&reply["files"], &reply["nextOffset"]),
        (&json!(0), &json!(2))
    );
    let (_, WriteFile { upload, offset, .. }) =
        call(json!({"content": "x", "handle": reply["handle"], "offset": 2})).await;
    assert_eq!((upload, offset), (Some(upload_id()), 2));
}

#[tokio::test]
async fn content_comes_back_as_it_is_as_text_only_where_it_shows_as_what_it_is() {
    let session = session_id().to_string();
    for (bytes, text, base64) in [
        (b"plain\n\ttext".to_vec(), Some("plain\n\ttext"), None),
        (b"\x1b[31mred".to_vec(), None, Some("G1szMW1yZWQ=")),
        ("\u{202e}x".as_bytes().to_vec(), None, Some("4oCueA==")),
        (vec![0xff, 0], None, Some("/wA=")),
        (Vec::new(), Some(""), None),
    ] {
        let road = ScriptedRoad::new(move |action| {
            let mut outcome = healthy(action);
            if let model::Outcome::FileRead(chunk) = &mut outcome {
                chunk.content.clone_from(&bytes);
            }
            Answer::Now(Ok(outcome))
        });
        let mut client = Client::presenting(road, LEGACY, key(), false).await;
        let call = json!({"sessionId": session, "direction": "from_container", "sourcePath": "/tmp/a", "length": 7});
        let reply = structured("transfer_files", &client.call("transfer_files", call).await);
        assert_eq!(reply["content"], text.map_or(Value::Null, Value::from));
        assert_eq!(
            reply["contentBase64"],
            base64.map_or(Value::Null, Value::from)
        );
        assert_eq!(reply["handle"], upload_id().to_string());
        let calls = client.road.calls();
        let Action::ReadFile(ReadFile { offset, length, .. }) = calls[0].action else {
            panic!()
        };
        assert_eq!((offset, length), (0, 7));
    }
}

#[tokio::test]
async fn arguments_of_a_transfer_that_do_not_go_together_are_refused_by_name() {
    let session = session_id().to_string();
    let mut client = remote(LEGACY).await;
    let way = |direction: &str, rest: Value| {
        let mut all = json!({"sessionId": session, "direction": direction});
        all.as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        all
    };
    for (direction, rest, field) in [
        ("to_container", json!({"destPath": "a"}), "sourcePath"),
        ("to_container", json!({"content": "x"}), "destPath"),
        (
            "to_container",
            json!({"destPath": "a", "content": "x", "contentBase64": "eA=="}),
            "contentBase64",
        ),
        (
            "to_container",
            json!({"destPath": "a", "contentBase64": "e"}),
            "contentBase64",
        ),
        (
            "to_container",
            json!({"destPath": "a", "content": "x", "length": 1}),
            "length",
        ),
        (
            "to_container",
            json!({"destPath": "a", "content": "x", "handle": "u-1"}),
            "handle",
        ),
        (
            "to_container",
            json!({"destPath": "a", "content": "x".repeat(262_145)}),
            "content",
        ),
        (
            "to_container",
            json!({"sourcePath": "/a", "destPath": "a", "content": "x"}),
            "content",
        ),
        ("from_container", json!({}), "sourcePath"),
        (
            "from_container",
            json!({"sourcePath": "a", "content": "x"}),
            "content",
        ),
        (
            "from_container",
            json!({"sourcePath": "a", "length": 262_145}),
            "length",
        ),
        (
            "from_container",
            json!({"sourcePath": "a", "destPath": "/b", "offset": 1}),
            "offset",
        ),
    ] {
        let arguments = way(direction, rest.clone());
        let refused = refused(&mut client, "transfer_files", arguments).await;
        assert_eq!(
            refused,
            ("invalid_argument".to_owned(), field.to_owned()),
            "{direction} {rest}"
        );
    }
    assert!(client.road.calls().is_empty());
}

/// Tools for keys are there for a person and for callers from elsewhere, and no list shows them.
#[tokio::test]
async fn keys_are_managed_by_people_and_from_elsewhere_and_never_by_a_program_of_this_machine() {
    let create = json!({"name": "ci", "scopes": ["files", "admin"], "roots": ["/srv"], "expiresSeconds": 60});
    for (credentials, is_person, root) in [
        (crate::client::credentials(), true, "/srv"),
        (key(), false, "team"),
    ] {
        let mut client =
            Client::presenting(ScriptedRoad::healthy(), LEGACY, credentials, is_person).await;
        let mut create = create.clone();
        create["roots"] = json!([root]);
        let made = client.call("create_key", create).await["structuredContent"].clone();
        assert_eq!(made["secret"], "ccmcp_a-secret");
        let Action::CreateKey(asked) = client.road.calls()[0].action.clone() else {
            panic!()
        };
        assert_eq!(asked.scopes.to_string(), "files admin");
        assert_eq!(asked.roots, [std::path::Path::new(root)]);
        for (tool, arguments) in [
            ("list_keys", json!({})),
            (
                "rotate_key",
                json!({"keyId": "abcdefghij23", "overlapSeconds": 0}),
            ),
            (
                "revoke_key",
                json!({"keyId": "abcdefghij23", "destroySessions": true}),
            ),
        ] {
            let result = client.call(tool, arguments).await;
            assert_eq!(result["isError"], json!(false), "{result}");
            assert!(
                !result.to_string().contains("a-secret") || tool == "rotate_key",
                "{result}"
            );
        }
    }
    let mut program = Client::open(ScriptedRoad::healthy(), LEGACY).await;
    let params = json!({"name": "create_key", "arguments": create});
    let answer = program.request("tools/call", params).await;
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("unknown tool"),
        "{answer}"
    );
    let listed = mcp::tool_list();
    assert!(listed.iter().all(|tool| !tool.name.contains("key")));
}

/// What a door tells of a tool's scopes is what the road asks.
#[tokio::test]
async fn the_scopes_of_a_tool_are_those_of_its_action() {
    for tool in mcp::tool_list() {
        let name = tool.name.as_ref();
        let mut client = Client::open(ScriptedRoad::healthy(), LEGACY).await;
        client.call(name, least(name)).await;
        let calls = client.road.calls();
        let scopes = mcp::required_scopes(name).unwrap();
        assert_eq!(
            calls.last().unwrap().action.scopes(),
            Some(scopes),
            "{name}"
        );
    }
    let admin = Some(model::Scopes::NONE.with(Scope::Admin));
    assert_eq!(mcp::required_scopes("create_key"), admin);
    assert_eq!(mcp::required_scopes("nothing"), None);
}

/// A call by HTTP of a client that says in `_meta` that it shows forms: the message that answers it, and what the door is told that
/// the caller lacks.
pub async fn by_http(
    road: Arc<ScriptedRoad>,
    version: &str,
    params: Value,
) -> (Value, Option<Scopes>) {
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    posted(road, version, message).await
}

/// The same, of any request.
async fn posted(
    road: Arc<ScriptedRoad>,
    version: &str,
    mut message: Value,
) -> (Value, Option<Scopes>) {
    message["params"]["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
        "io.modelcontextprotocol/clientInfo": client_info(),
    });
    let mut request = http::Request::post("/mcp")
        .header("Host", "localhost")
        .header("Content-Type", "application/json")
        .header("Accept", "application/json, text/event-stream")
        .header("MCP-Protocol-Version", version)
        .header("Mcp-Method", message["method"].as_str().expect("a method"));
    if let Some(name) = message["params"]["name"].as_str() {
        request = request.header("Mcp-Name", name);
    }
    let (head, ()) = request.body(()).expect("a request").into_parts();
    let caller = HttpCaller {
        credentials: key(),
        name: "key:canary".to_owned(),
        source: Source::LOCAL,
    };
    let service = HttpService::new(road, CancellationToken::new());
    let answering = async {
        let answer = service
            .answer(head, message.to_string().as_bytes(), caller)
            .await;
        let body = answer.response.into_body().collect().await;
        (body.expect("a body").to_bytes(), answer.lacking)
    };
    let answered = tokio::time::timeout(PATIENCE, answering).await;
    let (body, lacking) = answered.expect("an answer in time");
    let message = serde_json::from_slice(&body)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&body)));
    (message, lacking)
}

/// S1, P2a: a client that is told to get more scopes gets them and calls again. So it is told that where nothing was done yet, and
/// never once work has begun: it would be done twice.
#[tokio::test]
async fn what_is_lacking_is_told_to_the_door_only_where_nothing_was_begun() {
    let lacking = |lacks: fn(&Action) -> bool| {
        Arc::new(ScriptedRoad::new(move |action| {
            if lacks(action) {
                let refusal = Refusal::new(Reason::InsufficientScope, "It lacks.", "Get it.");
                return Answer::Now(Err(refusal));
            }
            let mut outcome = healthy(action);
            if let Outcome::Execution(view) = &mut outcome {
                view.state = ExecutionState::Running;
                view.exit_code = None;
            }
            Answer::Now(Ok(outcome))
        }))
    };
    let call = json!({
        "name": "execute_in_session",
        "arguments": {"sessionId": session_id().to_string(), "prompt": "work", "waitSeconds": 20},
    });
    for version in ["2025-11-25", "2026-07-28"] {
        // The control: nothing runs.
        let road = lacking(|action| matches!(action, Action::ExecutePrompt(_)));
        let (answer, lacks) = by_http(road, version, call.clone()).await;
        assert_eq!(lacks, Some(Scopes::NONE.with(Scope::SessionsRun)));
        let error = &answer["result"]["structuredContent"]["error"];
        assert_eq!(error["code"], "insufficient_scope", "{answer}");
        // It runs, and its caller may not look at it.
        let road = lacking(|action| matches!(action, Action::GetExecution(_)));
        let (answer, lacks) = by_http(road.clone(), version, call.clone()).await;
        assert_eq!(lacks, None, "{answer}");
        let reply = &answer["result"]["structuredContent"];
        assert_eq!(reply["state"], "running", "{answer}");
        let begun = |call: &model::Call| matches!(call.action, Action::ExecutePrompt(_));
        let calls = road.calls();
        assert_eq!(calls.iter().filter(|call| begun(call)).count(), 1);
        assert!(calls.len() > 1, "the control: it did look");
    }
}

/// The list by HTTP is set into the answer as text, whatever else stands there.
#[tokio::test]
async fn the_list_by_http_is_that_of_every_connection() {
    let ids = [
        json!(1),
        json!("1"),
        json!(r#"[{"name":"*","description":"every tool","inputSchema":{}}]"#),
    ];
    let listed = serde_json::to_value(mcp::tool_list()).unwrap();
    for version in ["2025-06-18", "2025-11-25", "2026-07-28"] {
        for id in &ids {
            let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/list", "params": {}});
            let road = Arc::new(ScriptedRoad::healthy());
            let (answer, _) = posted(road, version, message).await;
            assert_eq!(&answer["id"], id);
            assert_eq!(answer["result"]["tools"], listed, "{version}");
        }
    }
}

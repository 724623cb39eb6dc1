//! Openings, the list, and everything that the server does not do, in each era.

use std::sync::Arc;

use mcp::{INSTRUCTIONS, McpError, REMOTE_INSTRUCTIONS, SERVER_NAME};
use model::{Credentials, Secret};
use serde_json::{Value, json};

use crate::{
    client::{Client, ERAS, Era, client_info, credentials},
    scripted::ScriptedRoad,
};

#[tokio::test]
async fn both_openings_tell_name_version_and_instructions() {
    for era in ERAS {
        let mut client = Client::silent(ScriptedRoad::healthy(), era);
        let opening = client.opening().await;
        let result = &opening["result"];
        assert_eq!(
            result["instructions"],
            json!(INSTRUCTIONS),
            "{era:?}: {opening}"
        );
        assert_eq!(result["capabilities"], json!({"tools": {}}), "{era:?}");
        let info = match era {
            Era::Legacy(version) => {
                assert_eq!(result["protocolVersion"], json!(version));
                &result["serverInfo"]
            }
            Era::Modern => {
                assert_eq!(
                    result["supportedVersions"],
                    json!(["2025-06-18", "2025-11-25", "2026-07-28"])
                );
                &result["_meta"]["io.modelcontextprotocol/serverInfo"]
            }
        };
        assert_eq!(
            (&info["name"], &info["version"]),
            (&json!(SERVER_NAME), &json!(env!("CARGO_PKG_VERSION")))
        );
        client.close().await.unwrap();
    }
}

/// As a remote caller is told by HTTP: what counts is who calls, not the road.
#[tokio::test]
async fn a_caller_with_a_key_is_told_of_names_of_projects_and_a_local_one_of_paths() {
    let key = || Credentials::ApiKey(Secret::new("ccmcp_canary".to_owned()));
    for era in ERAS {
        for (credentials, instructions) in
            [(key(), REMOTE_INSTRUCTIONS), (credentials(), INSTRUCTIONS)]
        {
            let road = Arc::new(ScriptedRoad::healthy());
            let mut client = Client::of(road, era, credentials, false);
            let opening = client.opening().await;
            assert_eq!(
                opening["result"]["instructions"],
                json!(instructions),
                "{era:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_client_that_names_an_unknown_revision_is_offered_a_known_one() {
    for asked in ["2024-11-05", "2026-07-28", "2099-01-01"] {
        let mut client = Client::silent(ScriptedRoad::healthy(), Era::Legacy(asked));
        assert_eq!(
            client.opening().await["result"]["protocolVersion"],
            json!("2025-11-25"),
            "{asked}"
        );
    }
}

#[tokio::test]
async fn a_probe_that_finds_the_new_era_may_still_open_the_old_one() {
    let mut client = Client::silent(ScriptedRoad::healthy(), Era::Modern);
    assert!(client.opening().await["result"]["supportedVersions"].is_array());
    let params =
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client_info()});
    client
        .send(&json!({"jsonrpc": "2.0", "id": 99, "method": "initialize", "params": params}))
        .await;
    assert_eq!(
        client.answer(99).await["result"]["protocolVersion"],
        json!("2025-11-25")
    );
    client
        .send(&json!({"jsonrpc": "2.0", "id": 100, "method": "tools/list"}))
        .await;
    assert_eq!(
        client.answer(100).await["result"]["tools"]
            .as_array()
            .unwrap()
            .len(),
        13
    );
}

#[tokio::test]
async fn the_list_is_the_same_every_time_and_everywhere() {
    let mut lists = Vec::new();
    for era in ERAS {
        let mut client = Client::open(ScriptedRoad::healthy(), era).await;
        for _ in 0..2 {
            let answer = client.request("tools/list", json!({})).await;
            if era == Era::Modern {
                assert_eq!(answer["result"]["cacheScope"], json!("public"));
                assert!(
                    answer["result"]["ttlMs"]
                        .as_u64()
                        .is_some_and(|ttl| ttl > 0)
                );
                assert_eq!(answer["result"]["resultType"], json!("complete"));
            }
            assert!(answer["result"].get("nextCursor").is_none());
            lists.push(answer["result"]["tools"].to_string());
        }
        let answer = client.request("tools/list", json!({"cursor": "x"})).await;
        assert_eq!(answer["error"]["code"], json!(-32602));
    }
    assert!(lists.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test]
async fn what_is_not_offered_is_not_found() {
    let methods = [
        ("prompts/list", json!({})),
        ("prompts/get", json!({"name": "x"})),
        ("resources/list", json!({})),
        ("resources/templates/list", json!({})),
        ("resources/read", json!({"uri": "x://y"})),
        ("resources/subscribe", json!({"uri": "x://y"})),
        (
            "completion/complete",
            json!({"ref": {"type": "ref/prompt", "name": "x"}, "argument": {"name": "a", "value": "b"}}),
        ),
        ("logging/setLevel", json!({"level": "info"})),
        ("tasks/get", json!({"taskId": "x"})),
        ("no/such/method", json!({})),
    ];
    for era in ERAS {
        let mut client = Client::open(ScriptedRoad::healthy(), era).await;
        for (method, params) in &methods {
            let answer = client.request(method, params.clone()).await;
            assert_eq!(
                answer["error"]["code"],
                json!(-32601),
                "{era:?} {method}: {answer}"
            );
        }
        // And the conversation goes on.
        assert!(client.request("tools/list", json!({})).await["result"].is_object());
        assert!(client.road.calls().is_empty());
    }
}

#[tokio::test]
async fn an_unknown_tool_is_a_protocol_error_that_names_the_known_ones() {
    for era in ERAS {
        let mut client = Client::open(ScriptedRoad::healthy(), era).await;
        for name in [
            "execute",
            "",
            "create_session ",
            "\u{1b}[31m\u{202e}",
            &"x".repeat(1_000_000),
        ] {
            let answer = client
                .request("tools/call", json!({"name": name, "arguments": {}}))
                .await;
            assert_eq!(answer["error"]["code"], json!(-32602), "{answer}");
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(
                message.contains("execute_command") && message.len() < 500,
                "{message}"
            );
            assert!(!message.contains(['\u{1b}', '\u{202e}']));
        }
        assert!(client.road.calls().is_empty());
    }
}

#[tokio::test]
async fn every_call_carries_the_transport_s_credentials_and_the_client_s_name() {
    for era in ERAS {
        let mut client = Client::open(ScriptedRoad::healthy(), era).await;
        client.call("list_sessions", json!({})).await;
        let calls = client.road.calls();
        let [call] = calls.as_slice() else {
            panic!("{calls:?}")
        };
        assert_eq!(call.credentials, credentials());
        assert_eq!(
            (call.client.name.as_str(), call.client.version.as_str()),
            ("raw-client", "7.1"),
            "{era:?}"
        );
    }
}

#[tokio::test]
async fn a_client_s_name_is_cut_and_cleaned() {
    let mut client = Client::silent(ScriptedRoad::healthy(), Era::Legacy("2025-11-25"));
    let name = format!("\u{1b}[31mevil\u{202e}\n{}", "x".repeat(100_000));
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": name, "version": "1\u{0}"},
    });
    client.request("initialize", params).await;
    client.call("list_sessions", json!({})).await;
    let recorded = client.road.calls()[0].client.clone();
    assert!(
        recorded.name.starts_with("evil\\u{202e} xxx") && recorded.name.len() <= 67,
        "{recorded:?}"
    );
    assert_eq!(recorded.version, "1\\u{0}");
}

#[tokio::test]
async fn rubbish_on_the_line_does_not_end_the_conversation() {
    for era in ERAS {
        let mut client = Client::open(ScriptedRoad::healthy(), era).await;
        for line in [
            "",
            "rubbish",
            "{",
            "\u{0}\u{1}",
            "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/call\",\"params\":{\"n\":1e999}}",
        ] {
            client.send_raw(line).await;
        }
        // JSON that is no message is told so.
        client.send_raw("[]").await;
        assert_eq!(client.receive().await["error"]["code"], json!(-32600));
        assert!(client.request("tools/list", json!({})).await["result"].is_object());
    }
}

#[tokio::test]
async fn a_line_beyond_the_limit_is_dropped_and_the_next_one_is_served() {
    let mut client = Client::open(ScriptedRoad::healthy(), Era::Legacy("2025-11-25")).await;
    client.send_raw(&"x".repeat(9 * 1024 * 1024)).await;
    assert!(client.request("tools/list", json!({})).await["result"].is_object());
}

#[tokio::test]
async fn a_client_that_leaves_is_no_error_whenever_it_leaves() {
    let silent = Client::silent(ScriptedRoad::healthy(), Era::Modern);
    silent.close().await.unwrap();
    for era in ERAS {
        Client::open(ScriptedRoad::healthy(), era)
            .await
            .close()
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_client_that_speaks_out_of_turn_is_an_error_of_the_opening() {
    let mut client = Client::silent(ScriptedRoad::healthy(), Era::Modern);
    client
        .send(&json!({"jsonrpc": "2.0", "id": 1, "result": {}}))
        .await;
    assert!(matches!(client.close().await, Err(McpError::Opening(_))));
}

#[tokio::test]
async fn a_call_before_any_opening_is_refused_and_not_carried_out() {
    let mut client = Client::silent(ScriptedRoad::healthy(), Era::Legacy("2025-11-25"));
    let answer: Value = client
        .request(
            "tools/call",
            json!({"name": "list_sessions", "arguments": {}}),
        )
        .await;
    assert_eq!(answer["error"]["code"], json!(-32602));
    assert!(client.road.calls().is_empty());
}

//! kill -9 of the server while clients wait by HTTP (S1, S3, T3.4, A1, A2): they see it, and what was under way is accounted for. After
//! a start on the same state the session goes on, for its creator and for nobody else.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    thread::{self, JoinHandle},
};

use serde_json::{Value, json};

use crate::{
    http::ALL,
    support::{
        Machine,
        door::{Answered, HttpClient, HttpServer, key},
        until, users,
    },
};

/// The log as it is on disk, without a line that the end of its writer cut.
fn records(log: &Path) -> Vec<Value> {
    let log = std::fs::read_to_string(log).expect("the audit log");
    log.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Operations without a result, with what they are.
fn open(log: &Path) -> BTreeMap<String, String> {
    let mut open = BTreeMap::new();
    for record in records(log) {
        let Some(operation) = record["op"].as_str() else {
            continue;
        };
        match record["phase"].as_str() {
            Some("intent") => {
                let action = record["action"].as_str().expect("an action");
                open.insert(operation.to_owned(), action.to_owned());
            }
            _ => drop(open.remove(operation)),
        }
    }
    open
}

/// A client that waits for the answer to a call, on a connection of its own.
fn waits(
    server: &HttpServer,
    key: &str,
    tool: &'static str,
    arguments: Value,
) -> JoinHandle<io::Result<Answered>> {
    let mut client = HttpClient::connect(server, key);
    let id = client.post(tool, &arguments).expect("sent");
    thread::spawn(move || client.answer(id))
}

/// What the new server says, once it has taken the session up again.
fn eventually(client: &mut HttpClient, tool: &str, arguments: &Value) -> Value {
    let mut said = Value::Null;
    until("the session is taken up again", || {
        match client.tool(tool, arguments.clone()) {
            Ok(content) => said = content,
            Err(error) => {
                assert_eq!(error["code"], "session_not_ready", "{error:#}");
                return false;
            }
        }
        true
    });
    said
}

#[test]
fn a_server_killed_under_clients_that_wait_goes_on_for_them_and_leaves_nothing_unaccounted_for() {
    for user in users() {
        let mut machine = Machine::new(user);
        machine
            .set("MAX_CONCURRENT_SESSIONS", "1")
            .set("CLAUDE_CODE_MCP_QUEUE_WAIT", "45");
        machine.write("app/hello.txt", "hello");
        let before = machine.census();
        let server = HttpServer::start(&machine, &[]);
        let (own, others) = (key(&machine, &ALL, &[]), key(&machine, &ALL, &[]));
        let log = machine.audit_log();

        let mut client = HttpClient::connect(&server, &own);
        let created = client.tool("create_session", json!({ "projectPath": "app" }));
        let session = created.expect("a session")["sessionId"].clone();
        let counts = "echo kept > /state/kept; for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.3; done; exit 5";
        let counting = client
            .tool(
                "execute_command",
                json!({ "sessionId": session, "command": counts, "waitSeconds": 0 }),
            )
            .expect("an execution");
        // One waits for what it has begun, one reads what it began before, one has no place for its session yet.
        let begun = json!({ "sessionId": session, "command": "sleep 600", "waitSeconds": 45 });
        let read = json!({ "executionId": counting["executionId"], "waitSeconds": 45 });
        let waiting = [
            waits(&server, &own, "execute_command", begun),
            waits(&server, &own, "get_execution", read.clone()),
            waits(
                &server,
                &others,
                "create_session",
                json!({ "projectPath": "app" }),
            ),
        ];
        let due = ["execution.start", "session.create"];
        until("all of it is under way", || {
            let open = open(&log);
            due.iter()
                .all(|due| open.values().any(|action| action == due))
        });
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()));

        server.kill();
        for waiting in waiting {
            let ended = waiting.join().expect("no panic");
            let kind = ended.map_err(|error| error.kind());
            let gone = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset];
            assert!(
                matches!(&kind, Err(kind) if gone.contains(kind)),
                "{kind:?}"
            );
        }
        assert!(client.call("list_sessions", &json!({})).is_err());
        let dangling = open(&log);
        for due in due {
            let found = dangling.values().filter(|action| *action == due).count();
            assert_eq!(found, 1, "{dangling:?}");
        }

        let server = HttpServer::start(&machine, &[]);
        let all = records(&log);
        for (operation, action) in &dangling {
            let is_its = |record: &&Value| {
                record["op"] == json!(operation) && record["phase"] == json!("result")
            };
            let results: Vec<_> = all.iter().filter(is_its).collect();
            let [result] = results[..] else {
                panic!("{action}: {results:#?}");
            };
            assert_eq!(result["action"], json!(action));
            assert_eq!(result["result"], "unknown", "{result:#}");
            assert_eq!(result["parameters"]["recovered"], true, "{result:#}");
        }
        assert!(machine.cli(&["audit", "verify"]).status.success());

        // To another key it is as if it never was; its creator finds it with all that is in it.
        let mut stranger = HttpClient::connect(&server, &others);
        let look = json!({ "sessionId": session });
        let refused = stranger
            .tool("get_session", look.clone())
            .expect_err("foreign");
        assert_eq!(refused["code"], "session_not_found", "{refused:#}");
        let listed = stranger.tool("list_sessions", json!({})).expect("a list");
        assert_eq!(listed["sessions"], json!([]));
        let mut client = HttpClient::connect(&server, &own);
        let listed = client.tool("list_sessions", json!({})).expect("a list");
        assert_eq!(listed["sessions"][0]["sessionId"], session, "{listed:#}");
        let kept = json!({ "sessionId": session, "command": "cat hello.txt /state/kept" });
        let kept = eventually(&mut client, "execute_command", &kept);
        assert_eq!(kept["stdout"]["text"], "hellokept\n", "{kept:#}");
        let counted = eventually(&mut client, "get_execution", &read);
        assert_eq!(counted["exitCode"], 5, "{counted:#}");
        assert_eq!(counted["stdout"]["text"], "1\n2\n3\n4\n5\n6\n7\n8\n");

        // What the third had waited for was never begun, and is to be had now.
        client.tool("destroy_session", look).expect("destroyed");
        let made = stranger
            .tool("create_session", json!({ "projectPath": "app" }))
            .expect("a place");
        let made = json!({ "sessionId": made["sessionId"] });
        stranger.tool("destroy_session", made).expect("destroyed");
        until("nothing is left", || machine.census() == before);
    }
}

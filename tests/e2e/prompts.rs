//! Prompts: the real Claude Code in real sandboxes without a network interface, against the scripted Messages API (S2, S3,
//! S4, P2b). Every answer of a model here is scripted.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use scripted_api::{Accept, Block, KeyPair, Turn, When, by_prompt};
use serde_json::{Value, json};

use crate::support::{
    Machine, alone, engine,
    stage::{CANARY, Stage, finish, prompt, start},
    until, users,
};

/// Keys that must never be seen inside, or in anything that is kept; beside [`CANARY`].
const AWS_ID: &str = "AKIACANARY7F3A9C51XX";
const AWS_SECRET: &str = "canarysecret7f3a9c51/abcdefghijklmnop0000";
const GOOGLE: &str = "ya29.canary-7f3a9c51";

fn writes_tests_and_remembers(stage: &Stage) {
    let mut client = stage.machine.client();
    let session = client.create(&stage.machine.project);
    let done = prompt(&mut client, &session, "[[write-test]] go", json!({}));
    assert_eq!(done["stop"], "completed", "{done:#}");
    assert_eq!(
        (&done["kind"], &done["exitCode"]),
        (&json!("prompt"), &json!(0))
    );
    assert_eq!(done["changedFiles"], json!(["greet.sh"]));
    assert!(done["costUsd"].as_f64().expect("a cost") > 0.0, "{done:#}");
    assert!(stage.machine.project.join("greet.sh").is_file());
    // No interface but lo, and the conversation is resumed with its memory.
    assert_eq!(
        client.output(&session, "ls /sys/class/net 2>/dev/null || echo lo"),
        "lo"
    );
    let said = prompt(
        &mut client,
        &session,
        "[[memory]] Remember: blue elephants",
        json!({}),
    );
    assert_eq!(said["stop"], "completed", "{said:#}");
    let asked = prompt(&mut client, &session, "[[memory]] What was it?", json!({}));
    let answer = asked["result"].as_str().expect("an answer");
    assert!(answer.contains("blue elephants"), "{asked:#}");
    assert_eq!(asked["conversationId"], said["conversationId"]);
    // A new one remembers nothing: that it did before is no accident.
    let fresh = prompt(
        &mut client,
        &session,
        "[[memory]] What was it?",
        json!({ "newConversation": true }),
    );
    assert!(
        !fresh["result"]
            .as_str()
            .expect("an answer")
            .contains("elephants"),
        "{fresh:#}"
    );
    let named = json!({ "conversationId": said["conversationId"] });
    let back = prompt(&mut client, &session, "[[memory]] What was it?", named);
    assert!(
        back["result"]
            .as_str()
            .expect("an answer")
            .contains("blue elephants"),
        "{back:#}"
    );
    client.destroy(&session);
}

#[test]
fn claude_code_writes_tests_and_remembers_in_embedded_sandboxes() {
    let _alone = alone();
    for user in users() {
        let Some(stage) = Stage::native(user) else {
            return;
        };
        writes_tests_and_remembers(&stage);
        nothing_kept_holds_a_key(&stage);
    }
}

#[test]
fn claude_code_writes_tests_and_remembers_on_docker() {
    let _alone = alone();
    let Some(machine) = engine::machine("prompts on Docker") else {
        return;
    };
    let Some(stage) = Stage::of(machine, by_prompt().expect("the scenarios")) else {
        return;
    };
    writes_tests_and_remembers(&stage);
    nothing_kept_holds_a_key(&stage);
}

/// Does it in the embedded sandboxes of every user, and on Docker; what is missing is told loudly.
fn everywhere(leg: &str, act: impl Fn(&Stage)) {
    let _alone = alone();
    let native = users().into_iter().filter_map(Stage::native);
    let docker = engine::machine(leg)
        .and_then(|machine| Stage::of(machine, by_prompt().expect("the scenarios")));
    for stage in native.chain(docker) {
        act(&stage);
    }
}

#[test]
fn how_a_prompt_ends_is_told_and_the_conversation_goes_on() {
    everywhere("how prompts end on Docker", ends_are_told);
}

fn ends_are_told(stage: &Stage) {
    let mut client = stage.machine.client();
    let session = client.create(&stage.machine.project);
    let mut ends = |words: &str, more: Value, stop: &str| {
        let done = prompt(&mut client, &session, words, more);
        assert_eq!(done["stop"], stop, "{words}: {done:#}");
        done
    };
    let done = ends("[[loop]] x", json!({ "maxTurns": 3 }), "turnLimit");
    assert_eq!(done["turns"], 3, "{done:#}");
    let done = ends(
        "[[dear-loop]] x",
        json!({ "maxBudgetUsd": 3.5 }),
        "budgetLimit",
    );
    assert!(done["costUsd"].as_f64().expect("a cost") >= 3.5, "{done:#}");
    for (words, status, kind) in [
        ("[[status-401]] x", Some(401), "authentication_failed"),
        ("[[status-403]] x", Some(403), ""),
        ("[[status-404]] x", Some(404), ""),
        ("[[status-400]] x", Some(400), ""),
        ("[[status-413]] x", Some(413), ""),
    ] {
        // Unanswered prompts stay in a conversation, and the script goes by the first: each has its own.
        let done = ends(words, json!({ "newConversation": true }), "providerError");
        let error = &done["providerError"];
        assert_eq!(error["status"].as_u64(), status, "{done:#}");
        assert!(
            error["kind"].as_str().expect("a kind").contains(kind),
            "{done:#}"
        );
        assert!(
            !done["result"].as_str().expect("words").is_empty(),
            "{done:#}"
        );
    }
    for words in ["[[flaky]] x", "[[cut-once]] x", "[[limited-once]] x"] {
        ends(words, json!({ "newConversation": true }), "completed");
    }
    ends(
        "[[refusal]] x",
        json!({ "newConversation": true }),
        "refused",
    );
    ends(
        "[[text]] still there?",
        json!({ "newConversation": true }),
        "completed",
    );
    // What would be tried again for minutes ends at its deadline; here side by side.
    let began = Instant::now();
    let late = [
        "[[status-429]] x",
        "[[status-500]] x",
        "[[status-529]] x",
        "[[hang-up]] x",
        "[[stall]] x",
        "[[hang]] x",
        "[[cut]] x",
    ];
    let options = json!({ "timeoutSeconds": 6, "newConversation": true });
    let running = late.map(|words| start(&mut client, &session, words, options.clone()));
    for (words, execution) in late.iter().zip(running) {
        let done = finish(&mut client, execution);
        assert_eq!(done["stop"], "timedOut", "{words}: {done:#}");
        assert_eq!(done["state"], "timedOut", "{words}: {done:#}");
    }
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_provider_that_cannot_be_reached_is_told_within_the_deadline() {
    let _alone = alone();
    let Some(mut stage) = Stage::native(users()[0]) else {
        return;
    };
    // A port that nobody listens on.
    stage
        .machine
        .set("ANTHROPIC_BASE_URL", "http://127.0.0.1:1");
    let mut client = stage.machine.client();
    let session = client.create(&stage.machine.project);
    let began = Instant::now();
    let done = prompt(&mut client, &session, "x", json!({ "timeoutSeconds": 5 }));
    assert_eq!(done["stop"], "timedOut", "{done:#}");
    assert!(
        done["doing"].as_str().expect("words").contains("timedOut"),
        "{done:#}"
    );
    assert!(began.elapsed() < Duration::from_secs(15));
}

#[test]
fn a_prompt_is_interrupted_and_one_that_is_killed_is_gone_on_with() {
    everywhere("interrupted prompts on Docker", interrupted_and_killed);
}

fn interrupted_and_killed(stage: &Stage) {
    let mut client = stage.machine.client();
    let session = client.create(&stage.machine.project);
    let said = prompt(
        &mut client,
        &session,
        "[[memory]] Remember: blue elephants",
        json!({}),
    );
    for words in ["[[slow]] x", "[[long-tool]] x", "[[hang]] x"] {
        let running = start(
            &mut client,
            &session,
            words,
            json!({ "newConversation": true }),
        );
        std::thread::sleep(Duration::from_millis(1500));
        let cancel = json!({ "executionId": running["executionId"] });
        let began = Instant::now();
        let cancelled = client.tool("cancel_execution", cancel).expect("an end");
        assert_eq!(
            (&cancelled["state"], &cancelled["stop"]),
            (&json!("killed"), &json!("interrupted")),
            "{words}"
        );
        assert!(began.elapsed() < Duration::from_secs(8), "{words}");
    }
    // SIGKILL, as the kernel does it for memory.
    let named = json!({ "conversationId": said["conversationId"] });
    let running = start(&mut client, &session, "[[long-tool]] x", named);
    let processes = |name: &str| {
        format!(
            "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = {name} ] && echo ${{p#/proc/}}; done; true"
        )
    };
    until("Claude Code runs its tool", || {
        !client.output(&session, &processes("sleep")).is_empty()
    });
    let claude = client.output(&session, &processes("claude"));
    client.run(
        &session,
        &format!("kill -KILL {}", claude.replace('\n', " ")),
    );
    let ended = finish(&mut client, running);
    assert_eq!(
        (&ended["state"], &ended["stop"]),
        (&json!("failed"), &json!("agentEnded")),
        "{ended:#}"
    );
    assert!(
        ended["failure"].as_str().expect("why").contains("killed"),
        "{ended:#}"
    );
    let asked = prompt(&mut client, &session, "[[memory]] What was it?", json!({}));
    assert_eq!(asked["conversationId"], said["conversationId"]);
    assert!(
        asked["result"]
            .as_str()
            .expect("an answer")
            .contains("blue elephants"),
        "{asked:#}"
    );
}

#[test]
fn a_prompt_survives_its_client_and_a_kill_of_the_server() {
    let _alone = alone();
    let Some(stage) = Stage::native(users()[0]) else {
        return;
    };
    let mut client = stage.machine.client();
    let session = client.create(&stage.machine.project);
    let running = start(&mut client, &session, "[[slow]] x", json!({}));
    let next = start(&mut client, &session, "[[text]] after it", json!({}));
    assert_eq!(next["state"], "queued", "{next:#}");
    std::thread::sleep(Duration::from_millis(2000));
    let server = stage.machine.server_pid().expect("a server");
    drop(client);
    let server = rustix::process::Pid::from_raw(server).expect("a pid");
    rustix::process::kill_process(server, rustix::process::Signal::KILL).expect("killed");
    std::thread::sleep(Duration::from_millis(500));
    let mut other = stage.machine.client();
    let look = json!({ "executionId": running["executionId"], "waitSeconds": 0 });
    let mut found = json!({});
    until("the prompt is found again", || {
        match other.tool("get_execution", look.clone()) {
            Ok(execution) => {
                found = execution;
                true
            }
            Err(_) => false,
        }
    });
    let done = finish(&mut other, found);
    assert_eq!(done["stop"], "completed", "{done:#}");
    let look = json!({ "executionId": next["executionId"], "waitSeconds": 0 });
    let next = other.tool("get_execution", look).expect("the next one");
    let next = finish(&mut other, next);
    assert_eq!(next["stop"], "completed", "{next:#}");
    assert_eq!(next["conversationId"], done["conversationId"]);
}

#[test]
fn ten_conversations_work_side_by_side() {
    let _alone = alone();
    let Some(mut stage) = Stage::native(users()[0]) else {
        return;
    };
    let below = stage.machine.base().join("projects");
    fs::create_dir(&below).expect("a directory");
    stage.machine.give(&below);
    let named = below.display().to_string();
    stage
        .machine
        .set("MAX_CONCURRENT_SESSIONS", "12")
        .set("CLAUDE_CODE_MCP_PROJECT_ROOTS", &named);
    let mut client = stage.machine.client();
    let sessions: Vec<String> = (0..10)
        .map(|number| {
            let project = below.join(format!("project-{number}"));
            fs::create_dir(&project).expect("a project");
            stage.machine.give(&project);
            client.create(&project)
        })
        .collect();
    let running: Vec<Value> = sessions
        .iter()
        .enumerate()
        .map(|(number, session)| {
            start(
                &mut client,
                session,
                &format!("[[memory]] Remember: number {number}"),
                json!({}),
            )
        })
        .collect();
    for execution in running {
        let done = finish(&mut client, execution);
        assert_eq!(done["stop"], "completed", "{done:#}");
    }
    let mut memory = Vec::new();
    for (number, session) in sessions.iter().enumerate() {
        let asked = prompt(&mut client, session, "[[memory]] What was it?", json!({}));
        let answer = asked["result"].as_str().expect("an answer");
        assert!(answer.contains(&format!("number {number}")), "{asked:#}");
        let seen = client
            .tool("get_session", json!({ "sessionId": session }))
            .expect("it");
        memory.push(seen["usage"]["memoryBytes"].as_u64().unwrap_or_default() / 1024 / 1024);
    }
    eprintln!("MiB of memory of each session with an idle Claude Code: {memory:?}");
}

/// A session without a provider says so, and does everything else.
#[test]
fn without_a_key_prompts_are_refused_with_what_to_do() {
    let _alone = alone();
    let Some(mut stage) = Stage::native(users()[0]) else {
        return;
    };
    stage.machine.set("ANTHROPIC_API_KEY", "");
    let mut client = stage.machine.client();
    let session = client.create(&stage.machine.project);
    let arguments = json!({ "sessionId": session, "prompt": "x" });
    let refused = client
        .tool("execute_in_session", arguments)
        .expect_err("refused");
    assert_eq!(refused["code"], "provider_unavailable", "{refused:#}");
    assert!(
        refused["hint"]
            .as_str()
            .expect("a hint")
            .contains("ANTHROPIC_API_KEY")
    );
    assert_eq!(client.output(&session, "echo works"), "works");
    // A caller's own key is as good, and is not kept.
    let own = client.create_with(json!({ "projectPath": stage.machine.project, "apiKey": CANARY }));
    let done = prompt(&mut client, &own, "[[text]] x", json!({}));
    assert_eq!(done["stop"], "completed", "{done:#}");
    drop(client);
    nothing_of_a_session_holds_a_key(&stage, json!({ "apiKey": CANARY }));
}

#[test]
fn bedrock_and_vertex_are_asked_with_credentials_of_the_host() {
    let _alone = alone();
    let signed = Accept::Signature(KeyPair {
        access_key_id: AWS_ID.to_owned(),
        secret_access_key: AWS_SECRET.to_owned(),
        session_token: None,
        region: Some("us-east-1".to_owned()),
    });
    let mut machine = Machine::new(users()[0]);
    machine.set("CLAUDE_CODE_MCP_BACKEND", "native");
    let Some(mut stage) = Stage::with(machine, by_prompt().expect("the scenarios"), signed) else {
        return;
    };
    let url = stage.api.url();
    stage
        .machine
        .set("CLAUDE_CODE_USE_BEDROCK", "1")
        .set("AWS_REGION", "us-east-1")
        .set("AWS_ACCESS_KEY_ID", AWS_ID)
        .set("AWS_SECRET_ACCESS_KEY", AWS_SECRET)
        .set("ANTHROPIC_BEDROCK_BASE_URL", &url);
    works_without_a_key_inside(&stage);
    let bearer = Accept::Bearer(GOOGLE.to_owned());
    let mut machine = Machine::new(users()[0]);
    machine.set("CLAUDE_CODE_MCP_BACKEND", "native");
    let Some(mut stage) = Stage::with(machine, by_prompt().expect("the scenarios"), bearer) else {
        return;
    };
    let url = format!("{}/v1", stage.api.url());
    stage
        .machine
        .set("CLAUDE_CODE_USE_VERTEX", "1")
        .set("CLOUD_ML_REGION", "us-east5")
        .set("ANTHROPIC_VERTEX_PROJECT_ID", "my-proj")
        .set(
            "CLAUDE_CODE_MCP_VERTEX_TOKEN_COMMAND",
            &format!("echo,{GOOGLE}"),
        )
        .set("ANTHROPIC_VERTEX_BASE_URL", &url);
    works_without_a_key_inside(&stage);
}

fn works_without_a_key_inside(stage: &Stage) {
    let mut client = stage.machine.client();
    let session = client.create(&stage.machine.project);
    let done = prompt(&mut client, &session, "[[write-test]] go", json!({}));
    assert_eq!(done["stop"], "completed", "{done:#}");
    assert!(!stage.api.main_requests().is_empty(), "the API was asked");
    drop(client);
    nothing_kept_holds_a_key(stage);
}

/// Where a key could stand: in the sandbox's environments and memory files, its disks, the server's state, log and audit.
/// The search finds what is planted, so that finding nothing means something.
fn nothing_kept_holds_a_key(stage: &Stage) {
    nothing_of_a_session_holds_a_key(stage, json!({}));
}

fn nothing_of_a_session_holds_a_key(stage: &Stage, mut arguments: Value) {
    let mut client = stage.machine.client();
    arguments["projectPath"] = json!(stage.machine.project);
    let session = client.create_with(arguments);
    let done = prompt(
        &mut client,
        &session,
        "[[run]] RUN: env; cat /proc/*/environ | tr '\\0' '\\n'",
        json!({}),
    );
    assert_eq!(done["stop"], "completed", "{done:#}");
    // Spelled so that it does not find itself.
    let search = "grep -airl '7f3a9[c]51' /proc/[0-9]*/environ /proc/[0-9]*/cmdline /state /tmp /home /run /workspace /etc \
                  2>/dev/null; true";
    assert_eq!(client.output(&session, search), "", "inside");
    client.output(&session, "printf '7f3a%s' 9c51 > /tmp/planted");
    assert_eq!(client.output(&session, search), "/tmp/planted");
    for container in stage.machine.containers() {
        let inspected = Command::new("docker")
            .args(["inspect", &container])
            .output()
            .expect("docker runs");
        let told = String::from_utf8_lossy(&inspected.stdout).to_ascii_lowercase();
        assert!(told.contains(&container), "{container} is inspected");
        assert!(!told.contains("7f3a9c51"), "{container} tells a key");
    }
    client.destroy(&session);
    drop(client);
    let holds = |directory: &Path| {
        crate::support::walk(directory).into_iter().find(|path| {
            let is_program = path.components().any(|part| part.as_os_str() == "agent");
            !is_program
                && fs::read(path).is_ok_and(|bytes| {
                    let bytes = bytes.to_ascii_lowercase();
                    bytes.windows(8).any(|window| window == b"7f3a9c51")
                })
        })
    };
    assert_eq!(holds(&stage.machine.state()), None, "in the server's state");
    let planted = stage.machine.state().join("planted");
    fs::write(&planted, CANARY).expect("planted");
    assert_eq!(holds(&stage.machine.state()), Some(planted.clone()));
    fs::remove_file(planted).expect("removed");
}

/// An MCP server of the caller's, as small as can be.
const SERVER: &str = r#"
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    method = asked.get("method")
    if "id" not in asked:
        continue
    if method == "initialize":
        version = asked["params"]["protocolVersion"]
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "probe", "version": "1"}}
    elif method == "tools/list":
        result = {"tools": [{"name": "ping", "description": "Answers.", "inputSchema": {"type": "object"}}]}
    elif method == "tools/call":
        interfaces = ",".join(sorted(open("/proc/net/dev").read().split("\n")[i].split(":")[0].strip() for i in range(2, 3)))
        result = {"content": [{"type": "text", "text": "pong from uid %d with %s" % (__import__("os").getuid(), interfaces)}]}
    else:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no"}}), flush=True)
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"#;

#[test]
fn servers_of_mcp_config_run_inside_and_the_hosts_tools_are_there() {
    let _alone = alone();
    let calls = |mark: &str, tool: &str, input: Value| {
        let when = |results| When {
            prompt_contains: vec![mark.to_owned()],
            tool_results: Some(results),
            ..When::default()
        };
        let call = Block::Tool {
            name: tool.to_owned(),
            input,
        };
        [
            Turn::say([call]).when(when(0)),
            Turn::say([Block::text("{{result}}")]).when(when(1)),
        ]
    };
    let mut script = by_prompt().expect("the scenarios");
    script.turns.splice(
        0..0,
        calls("PING", "mcp__probe__ping", json!({}))
            .into_iter()
            .chain(calls(
                "TELL",
                "mcp__host__report_progress",
                json!({ "text": "half of it is done" }),
            )),
    );
    let mut machine = Machine::new(users()[0]);
    machine.set("CLAUDE_CODE_MCP_BACKEND", "native");
    machine.write("server.py", SERVER);
    let Some(stage) = Stage::of(machine, script) else {
        return;
    };
    let mut client = stage.machine.client();
    let server = json!({ "command": "/usr/bin/python3", "args": ["/workspace/server.py"] });
    let session = client.create_with(json!({
        "projectPath": stage.machine.project, "mcpConfig": { "mcpServers": { "probe": server } },
    }));
    let done = prompt(&mut client, &session, "PING", json!({}));
    let told = done["result"].as_str().expect("an answer");
    assert!(told.contains("pong from uid 1000 with lo"), "{done:#}");
    let done = prompt(&mut client, &session, "TELL", json!({}));
    assert!(
        done["result"]
            .as_str()
            .expect("an answer")
            .contains("shown"),
        "{done:#}"
    );
    // Without it there is no such tool.
    let plain = client.create(&stage.machine.project);
    let done = prompt(&mut client, &plain, "PING", json!({}));
    assert!(
        !done["result"].as_str().unwrap_or_default().contains("pong"),
        "{done:#}"
    );
    let wrong = json!({ "projectPath": stage.machine.project, "mcpConfig": { "probe": 7 } });
    let refused = client.tool("create_session", wrong).expect_err("refused");
    assert_eq!(
        (&refused["code"], &refused["field"]),
        (&json!("invalid_argument"), &json!("mcpConfig"))
    );
}

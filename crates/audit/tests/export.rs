//! A4: the log in the words of others. Every action that the product has, with every way to end, becomes an event that the
//! definitions of the OCSF allow, and a line of CEF that is read back as it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::common::{intent, open, place, runtime};
use crate::validator::Definitions;
use audit::{
    Closing, Durability, Event, Intent, Parameter,
    export::{Filter, Format, Line, Pattern, Reader},
};
use model::{ClientInfo, Reason, SessionId};
use serde_json::{Value, json};

const HOST: &str = "host.example";

/// Every name of an action in the sources: those of `model::Action`, and those that the server itself records.
fn every_action() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = Vec::new();
    let mut directories: Vec<PathBuf> = ["model", "control", "audit", "app", "http", "policy"]
        .map(|name| root.join(name).join("src"))
        .into();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    let lines = sources.iter().flat_map(|source| source.lines());
    let names = lines.filter(|line| {
        line.contains("Action::") && line.contains("=> \"")
            || line.contains("action: \"")
            || line.contains(": &str = \"") && line.contains('.')
    });
    names
        .flat_map(|line| line.split('"').skip(1).step_by(2))
        .filter(|word| is_action(word))
        .map(str::to_owned)
        .collect()
}

fn is_action(word: &str) -> bool {
    const AREAS: [&str; 12] = [
        "session",
        "execution",
        "prompt",
        "files",
        "server",
        "egress",
        "audit",
        "sink",
        "auth",
        "key",
        "config",
        "limit",
    ];
    let Some((area, verb)) = word.split_once('.') else {
        return false;
    };
    let is_verb = !verb.is_empty()
        && verb
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    AREAS.contains(&area) && is_verb
}

/// A record as the log has it, and as it will have it with more fields.
fn record(action: &str, phase: &str, result: &str, more: bool) -> Line {
    let mut line = json!({
        "v": 1, "seq": 41, "timestamp": "2026-11-22T10:53:02.123456Z", "phase": phase, "op": "5e1f-3", "action": action,
        "session_id": "0909", "actor": { "id": "uid:1000", "hash": "sha256:ab" },
        "client": { "name": "claude-code", "version": "2.1" },
        "parameters": {
            "host": "registry.example", "port": 443, "bytes_up": 12, "bytes_down": 34, "execution": "e-1", "count": 3,
            "command": { "sha256": "00", "bytes": 9 }
        },
        "result": result, "reason": (result == "denied").then_some("policy_denied"),
        "duration_ms": (phase == "result").then_some(12), "prev": "00", "hash": "11",
    });
    if more {
        line["actor"] = json!({ "id": null, "hash": "hmac1:cd" });
        line["source"] = json!({ "transport": "http", "address": "192.0.2.7" });
        line["target"] = json!({ "type": "session", "id": "0909" });
        line["decision"] = json!("allow");
        line["mac"] = json!("ff");
        line["parameters"] = json!({});
        line["session_id"] = Value::Null;
        line["op"] = Value::Null;
    }
    Line::read(line.to_string().as_bytes()).unwrap()
}

fn outcomes() -> Vec<(&'static str, &'static str)> {
    let mut all = vec![("intent", "pending")];
    for phase in ["result", "event"] {
        all.extend(["ok", "denied", "failed", "aborted", "unknown"].map(|result| (phase, result)));
    }
    all
}

#[test]
fn every_action_is_an_event_that_the_schema_allows() {
    let definitions = Definitions::read();
    let actions = every_action();
    for needed in [
        "session.create",
        "egress.connect",
        "audit.gap",
        "server.start",
        "execution.read",
        "session.remove_remains",
    ] {
        assert!(
            actions.contains(needed),
            "the search for names finds {needed}: {actions:?}"
        );
    }
    assert!(actions.len() >= 28, "{actions:?}");
    let more = [
        "auth.ok",
        "auth.fail",
        "auth.lockout",
        "key.create",
        "key.rotate",
        "key.revoke",
        "config.reload",
        "audit.rotate",
        "audit.pruned",
        "audit.checkpoint",
        "sink.gap",
        "unheard.of",
        "nodot",
        "session.new_verb",
    ];
    let actions = actions.into_iter().chain(more.map(str::to_owned));
    let mut classes = BTreeMap::<u64, u32>::new();
    for action in actions {
        for (phase, result) in outcomes() {
            for more in [false, true] {
                let line = record(&action, phase, result, more);
                let text = Format::Ocsf.render(&line, HOST);
                let event: Value = serde_json::from_str(&text).unwrap();
                let flaws = definitions.flaws(&event);
                assert!(
                    flaws.is_empty(),
                    "{action} {phase} {result}: {flaws:#?}\n{event:#}"
                );
                *classes
                    .entry(event["class_uid"].as_u64().unwrap())
                    .or_default() += 1;
            }
        }
    }
    let gap: Value =
        serde_json::from_str(&Format::Ocsf.render(&record("sink.gap", "event", "ok", true), HOST))
            .unwrap();
    assert_eq!(
        (&gap["class_uid"], &gap["severity"]),
        (&json!(1008), &json!("High"))
    );
    let used: Vec<_> = classes.keys().copied().collect();
    assert_eq!(used, [1008, 3002, 3004, 4001, 6002, 6003]);
}

/// The control: what the schema does not allow is found.
#[test]
fn an_event_that_is_wrong_is_found_to_be() {
    let definitions = Definitions::read();
    let right: Value = serde_json::from_str(
        &Format::Ocsf.render(&record("session.create", "result", "ok", false), HOST),
    )
    .unwrap();
    assert_eq!(definitions.flaws(&right), Vec::<String>::new());
    type Spoil = fn(&mut Value);
    let spoiled: [(&str, Spoil); 12] = [
        ("api", |event| {
            drop(event.as_object_mut().unwrap().remove("api"))
        }),
        ("colour", |event| event["colour"] = json!("red")),
        ("type_uid", |event| event["type_uid"] = json!(600_302)),
        ("severity_id", |event| event["severity_id"] = json!(7)),
        ("time", |event| event["time"] = json!("now")),
        ("class_uid", |event| event["class_uid"] = json!(6004)),
        ("category_uid", |event| event["category_uid"] = json!(3)),
        ("activity_id", |event| event["activity_id"] = json!(5)),
        ("activity_name", |event| {
            event["activity_name"] = json!("Destroy")
        }),
        ("actor", |event| event["actor"] = json!({})),
        ("src_endpoint.ip", |event| {
            event["src_endpoint"]["ip"] = json!("everywhere")
        }),
        ("resources", |event| {
            event["resources"] = json!({ "uid": "1" })
        }),
    ];
    for (named, spoil) in spoiled {
        let mut event = right.clone();
        spoil(&mut event);
        let flaws = definitions.flaws(&event);
        assert!(
            flaws.iter().any(|flaw| flaw.contains(named)),
            "{named}: {flaws:?}"
        );
    }
}

#[test]
fn what_an_event_says_is_what_the_record_says() {
    let event: Value = serde_json::from_str(
        &Format::Ocsf.render(&record("session.create", "result", "denied", false), HOST),
    )
    .unwrap();
    assert_eq!(event["type_name"], "API Activity: Create");
    assert_eq!(event["time"], 1_795_344_782_123_u64);
    assert_eq!(event["status"], "Failure");
    assert_eq!(event["status_code"], "policy_denied");
    assert_eq!(event["severity"], "Low");
    assert_eq!(event["api"]["operation"], "session.create");
    assert_eq!(event["api"]["request"]["uid"], "5e1f-3");
    assert_eq!(event["actor"]["user"]["uid"], "sha256:ab");
    assert_eq!(event["actor"]["user"]["name"], "uid:1000");
    assert_eq!(event["resources"][0]["uid"], "0909");
    assert_eq!(event["metadata"]["uid"], "11");
    assert_eq!(event["unmapped"]["parameters"]["command"]["bytes"], 9);
    let event: Value = serde_json::from_str(
        &Format::Ocsf.render(&record("egress.connect", "result", "denied", false), HOST),
    )
    .unwrap();
    assert_eq!(event["type_name"], "Network Activity: Refuse");
    assert_eq!(
        event["dst_endpoint"],
        json!({ "hostname": "registry.example", "port": 443 })
    );
    assert_eq!(event["traffic"]["bytes"], 46);
    let event: Value = serde_json::from_str(
        &Format::Ocsf.render(&record("auth.fail", "event", "denied", true), HOST),
    )
    .unwrap();
    assert_eq!(
        (&event["status"], &event["is_remote"]),
        (&json!("Failure"), &json!(true))
    );
    assert_eq!(event["src_endpoint"]["ip"], "192.0.2.7");
}

/// Reads a line of CEF as a collector does.
fn read_cef(line: &str) -> (Vec<String>, BTreeMap<String, String>) {
    assert!(!line.contains(['\n', '\r']));
    let mut head = vec![String::new()];
    let mut characters = line.strip_prefix("CEF:").unwrap().chars();
    while head.len() < 8 {
        match characters.next().unwrap() {
            '\\' => head.last_mut().unwrap().push(characters.next().unwrap()),
            '|' => head.push(String::new()),
            other => head.last_mut().unwrap().push(other),
        }
    }
    head.pop();
    // A key begins after a space and ends at an equals sign that no backslash escapes.
    let rest: String = characters.collect();
    let mut pairs = BTreeMap::new();
    let mut value = String::new();
    let mut key = String::new();
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next().unwrap() {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                escaped => value.push(escaped),
            },
            '=' => {
                let (before, next) = value.rsplit_once(' ').unwrap_or(("", &value));
                let next = next.to_owned();
                if !key.is_empty() {
                    pairs.insert(key, before.to_owned());
                }
                key = next;
                value = String::new();
            }
            other => value.push(other),
        }
    }
    pairs.insert(key, value);
    (head, pairs)
}

#[test]
fn hostile_values_are_read_back_from_cef_as_they_were() {
    let hostile = "a|b\\c=d e=f\\n | \\| act=forged CEF:0|x";
    let mut line = record("session.create", "intent", "pending", false);
    line.record.client.name = hostile.to_owned();
    line.record.client.version = String::new();
    line.record.action = "session|create\\x=y".to_owned();
    line.record.reason = Some("two\nlines\r".to_owned());
    let (head, pairs) = read_cef(&Format::Cef.render(&line, HOST));
    assert_eq!(
        head[..3],
        ["0", "claude-code-mcp", "Claude Code Container MCP Server"]
    );
    assert_eq!(head[4], "session|create\\x=y");
    assert_eq!(pairs["requestClientApplication"], hostile);
    assert_eq!(pairs["act"], "session|create\\x=y");
    assert_eq!(pairs["reason"], "two\nlines\r");
    assert_eq!(pairs["rt"], "1795344782123");
    assert_eq!(
        (pairs["cs1Label"].as_str(), pairs["cs1"].as_str()),
        ("session", "0909")
    );
    let parameters: Value = serde_json::from_str(&pairs["cs5"]).unwrap();
    assert_eq!(parameters["host"], "registry.example");
}

#[test]
fn every_action_is_a_line_of_cef() {
    for action in every_action() {
        for (phase, result) in outcomes() {
            let (head, pairs) =
                read_cef(&Format::Cef.render(&record(&action, phase, result, true), HOST));
            assert_eq!(head[4], action);
            let severity: u8 = head[6].parse().unwrap();
            assert!(severity <= 10 && pairs["outcome"] == result && pairs["src"] == "192.0.2.7");
        }
    }
}

/// What stands in a real log is found by each of the conditions, and only that.
#[test]
fn a_search_finds_what_fits_all_conditions() {
    let (_directory, path) = place();
    let log = open(&path);
    let (one, other) = (
        SessionId::from_bytes([1; 16]),
        SessionId::from_bytes([2; 16]),
    );
    runtime().block_on(async {
        for (session, principal, closing) in [
            (one, "uid:1000", Closing::Ok),
            (other, "uid:1000", Closing::Denied(Reason::LimitReached)),
            (other, "key:k1", Closing::Failed(Reason::Internal)),
        ] {
            let asked = Intent {
                session: Some(session),
                principal: principal.to_owned(),
                client: ClientInfo::default(),
                parameters: vec![("name", Parameter::Word("hay needle hay".to_owned()))],
                ..intent("session.create")
            };
            let entry = log.begin(asked, Durability::Durable).await.unwrap();
            entry.close(closing).await.unwrap();
        }
        let stop = Event {
            action: "server.stop",
            session: None,
            parameters: Vec::new(),
        };
        log.event(stop).await.unwrap();
        log.flush().await;
    });
    let all: Vec<Line> = Reader::open(&path).unwrap().map(Result::unwrap).collect();
    assert_eq!(all.len(), 8);
    let text = fs::read_to_string(&path).unwrap();
    let rendered: Vec<_> = all
        .iter()
        .map(|line| Format::Jsonl.render(line, HOST))
        .collect();
    assert_eq!(
        rendered.join("\n") + "\n",
        text,
        "JSON lines are the log's own"
    );
    let found = |filter: Filter| -> Vec<u64> {
        all.iter()
            .filter(|line| filter.takes(line))
            .map(|line| line.record.seq)
            .collect()
    };
    let key_tag = all[5].record.actor.hash.clone();
    let operation = all[3].record.op.clone();
    let moment = all[3].record.timestamp;
    assert_eq!(found(Filter::default()), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(
        found(Filter {
            session: Some(one.to_string()),
            ..Filter::default()
        }),
        [2, 3]
    );
    assert_eq!(
        found(Filter {
            session: Some(other.to_string()[..8].to_owned()),
            ..Filter::default()
        }),
        [4, 5, 6, 7]
    );
    assert_eq!(
        found(Filter {
            session: Some(String::new()),
            ..Filter::default()
        }),
        [] as [u64; 0]
    );
    assert_eq!(
        found(Filter {
            actors: vec!["uid:1000".to_owned()],
            ..Filter::default()
        }),
        [2, 3, 4, 5]
    );
    assert_eq!(
        found(Filter {
            actors: vec![key_tag],
            ..Filter::default()
        }),
        [6, 7]
    );
    assert_eq!(
        found(Filter {
            action: Some(Pattern::new("s*.s*")),
            ..Filter::default()
        }),
        [8]
    );
    assert_eq!(
        found(Filter {
            result: Some("denied".to_owned()),
            ..Filter::default()
        }),
        [5]
    );
    assert_eq!(
        found(Filter {
            operation,
            ..Filter::default()
        }),
        [4, 5]
    );
    assert_eq!(
        found(Filter {
            text: Some("needle".to_owned()),
            result: Some("pending".to_owned()),
            ..Filter::default()
        }),
        [2, 4, 6]
    );
    let since = found(Filter {
        since: Some(moment),
        ..Filter::default()
    });
    let until = found(Filter {
        until: Some(moment),
        ..Filter::default()
    });
    assert!(since.contains(&4) && !until.contains(&4));
    assert_eq!([until, since].concat(), [1, 2, 3, 4, 5, 6, 7, 8]);
}

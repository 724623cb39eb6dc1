//! A3: a secret that a caller gives in any field of any tool is in nothing that the server keeps.
//!
//! The fields are those of the published schemas, so that a new one cannot be forgotten: each gets a canary of its own, in a call that is
//! right otherwise. Then the state directory, the audit log, the server's log at its most talkative, the sinks' files and the
//! exports are searched for each canary, in the spellings in which programs write such things down. What is kept on purpose
//! is listed with its reason, and an entry of the list that nothing bears out fails the test.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use aho_corasick::AhoCorasick;
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use crate::support::{Client, Machine, users, walk};

/// Where a value may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    /// In the audit log, and so in whatever gets it, and in the state database.
    Log,
    /// In the state database.
    Database,
    /// In the transcript of a conversation, which is removed when its session is forgotten.
    Transcript,
}

impl Where {
    fn has(self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_database = name.starts_with("state.db");
        let is_transcript = path
            .components()
            .any(|part| part.as_os_str() == "transcripts");
        match self {
            Where::Database => is_database,
            Where::Transcript => is_transcript,
            Where::Log => !is_transcript && name != "server.log",
        }
    }
}

/// Fields whose value is kept: where, and why.
const KEPT: &[(&str, Where, &str)] = &[
    (
        "create_session.sessionName",
        Where::Log,
        "the name by which its owner finds the session",
    ),
    ("create_session.projectPath", Where::Log, ASKED),
    ("create_session.mcpMounts[].hostPath", Where::Log, ASKED),
    ("create_session.runtimeClass", Where::Log, ASKED),
    ("create_session.network.allow[]", Where::Log, ASKED),
    ("create_session.network.presets[]", Where::Log, ASKED),
    ("create_session.network.rules[].host", Where::Log, ASKED),
    (
        "create_session.idempotencyKey",
        Where::Database,
        "the next call with it must find the session",
    ),
    (
        "create_session.awsRegion",
        Where::Database,
        "the session's provider is the same after a restart",
    ),
    ("execute_in_session.model", Where::Log, ASKED),
    ("execute_in_session.model", Where::Transcript, SAID),
    ("execute_in_session.prompt", Where::Transcript, SAID),
    (
        "execute_in_session.appendSystemPrompt",
        Where::Transcript,
        SAID,
    ),
    ("execute_in_session.outputSchema{}", Where::Transcript, SAID),
    ("execute_in_session.tools[]", Where::Transcript, SAID),
    (
        "execute_in_session.disallowedTools[]",
        Where::Transcript,
        SAID,
    ),
    ("execute_command.cwd", Where::Log, ASKED),
    ("transfer_files.sourcePath", Where::Log, ASKED),
    ("transfer_files.destPath", Where::Log, ASKED),
    ("initialize.clientInfo.name", Where::Log, CALLER),
    ("initialize.clientInfo.version", Where::Log, CALLER),
];

const ASKED: &str = "which file, host, model or kind of walls was asked for is what the log is for";
const SAID: &str = "a conversation goes on from its transcript after the server was killed";
const CALLER: &str = "the program that calls, as it names itself";

/// The canary of a field: letters and digits, so that it is a right value of most.
fn canary(number: usize) -> String {
    format!("cnry{number:03}q7f3a9c51x")
}

/// How programs write a text down.
fn spellings(text: &str) -> Vec<(&'static str, String)> {
    let escaped = |prefix: &str| {
        text.bytes()
            .map(|byte| format!("{prefix}{byte:02x}"))
            .collect::<String>()
    };
    let mut all = vec![
        ("plain", text.to_owned()),
        ("hexadecimal", hex::encode(text)),
        ("for a URL", escaped("%")),
        ("as JSON's numbers", escaped("\\u00")),
        (
            "in UTF-16",
            text.bytes()
                .flat_map(|byte| [char::from(byte), '\0'])
                .collect(),
        ),
    ];
    // Base64 of a longer text spells it in one of three ways; the digits at both ends depend on the neighbors.
    for skipped in 0..3 {
        let padded = format!("{}{text}", "\0".repeat(skipped));
        for (name, encoded) in [
            ("base64", BASE64_STANDARD_NO_PAD.encode(&padded)),
            ("base64 for a URL", BASE64_URL_SAFE_NO_PAD.encode(&padded)),
        ] {
            let whole = padded.len() / 3 * 4;
            all.push((name, encoded[[0, 2, 3][skipped]..whole].to_owned()));
        }
    }
    all
}

/// A search for many canaries at once, whatever the case.
struct Search {
    automaton: AhoCorasick,
    /// Of each pattern: the field.
    fields: Vec<String>,
}

impl Search {
    fn new(canaries: &BTreeMap<String, String>) -> Self {
        let mut fields = Vec::new();
        let mut patterns = Vec::new();
        for (field, canary) in canaries {
            for (_, pattern) in spellings(canary) {
                fields.push(field.clone());
                patterns.push(pattern);
            }
        }
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(patterns);
        Search {
            automaton: automaton.expect("a search"),
            fields,
        }
    }

    /// Which fields' canaries stand where.
    fn below(&self, directories: &[&Path]) -> BTreeMap<String, BTreeSet<PathBuf>> {
        let mut found = BTreeMap::<String, BTreeSet<PathBuf>>::new();
        for path in directories.iter().flat_map(|directory| walk(directory)) {
            let mut texts = vec![path.as_os_str().as_encoded_bytes().to_vec()];
            texts.extend(fs::read(&path));
            for text in texts {
                for hit in self.automaton.find_overlapping_iter(&text) {
                    let field = &self.fields[hit.pattern().as_usize()];
                    found.entry(field.clone()).or_default().insert(path.clone());
                }
            }
        }
        found
    }
}

/// A field that takes a text: its path in the arguments.
type Field = Vec<Step>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Name(String),
    /// The first of a list.
    Item,
    /// A name of the caller's own.
    AnyName,
}

/// Every place of a schema that takes a text of the caller's.
fn fields(schema: &Value, root: &Value, path: &Field, out: &mut BTreeMap<String, Field>) {
    let schema = match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => root
            .pointer(reference.trim_start_matches('#'))
            .expect("what a schema refers to"),
        None => schema,
    };
    for choices in ["anyOf", "oneOf", "allOf"] {
        for choice in schema[choices].as_array().into_iter().flatten() {
            fields(choice, root, path, out);
        }
    }
    let below = |step: Step| [path.as_slice(), &[step]].concat();
    let named = schema["properties"].as_object();
    for (name, field) in named.into_iter().flatten() {
        fields(field, root, &below(Step::Name(name.clone())), out);
    }
    if schema["items"].is_object() {
        fields(&schema["items"], root, &below(Step::Item), out);
    }
    if schema["additionalProperties"].is_object() {
        fields(
            &schema["additionalProperties"],
            root,
            &below(Step::AnyName),
            out,
        );
    }
    let is = |kind: &str| {
        let said = &schema["type"];
        said == kind
            || said
                .as_array()
                .is_some_and(|several| several.contains(&json!(kind)))
    };
    let is_free = is("object")
        && named.is_none_or(Map::is_empty)
        && !schema["additionalProperties"].is_object();
    if is("string") {
        out.insert(spelled(path), path.clone());
    } else if is_free {
        let path = below(Step::AnyName);
        out.insert(spelled(&path), path);
    }
}

fn spelled(path: &Field) -> String {
    path.iter()
        .map(|step| match step {
            Step::Name(name) => format!(".{name}"),
            Step::Item => "[]".to_owned(),
            Step::AnyName => "{}".to_owned(),
        })
        .collect()
}

/// Puts a value at a path. What is on the way and not there yet is made; a name of the caller's own is that of a variable.
fn put(arguments: &mut Value, path: &[Step], value: Value) {
    let Some((step, rest)) = path.split_first() else {
        *arguments = value;
        return;
    };
    let next = match step {
        Step::Name(name) => &mut arguments[name.as_str()],
        Step::AnyName => &mut arguments["CNRY_NAME"],
        Step::Item => {
            if !arguments.is_array() {
                *arguments = json!([null]);
            }
            &mut arguments[0]
        }
    };
    put(next, rest, value);
}

/// Arguments with which a tool does something. A tool that is not here fails the test.
fn right(tool: &str, machine: &Machine, session: &str, execution: &str) -> Value {
    match tool {
        "create_session" => json!({ "projectPath": machine.project }),
        "execute_in_session" => json!({ "sessionId": session, "prompt": "go", "waitSeconds": 0 }),
        "execute_command" => json!({ "sessionId": session, "command": "true" }),
        "get_execution" => json!({ "executionId": execution, "waitSeconds": 0 }),
        // Another than the one that the other tools are tried on.
        "cancel_execution" => json!({ "executionId": "e-none" }),
        "respond_execution" => json!({ "executionId": execution, "stdin": "x" }),
        "get_session" | "get_session_logs" => json!({ "sessionId": session }),
        "destroy_session" => json!({ "sessionId": "s-none" }),
        "extend_session" => json!({ "sessionId": session, "seconds": 60 }),
        "transfer_files" => json!({
            "sessionId": session, "direction": "to_container", "sourcePath": machine.project.join("file"), "destPath": "/tmp/file",
        }),
        "list_sessions" | "get_server_info" => json!({}),
        _ => panic!("how is {tool} called?"),
    }
}

/// Fields that stand beside others only, and fields in whose place another one goes.
fn fit(field: &str, arguments: &mut Value) {
    let Some(object) = arguments.as_object_mut() else {
        return;
    };
    match field {
        "execute_command.argv[]" => drop(object.remove("command")),
        "respond_execution.stdinBase64" => drop(object.remove("stdin")),
        "respond_execution.answer" => {
            object.remove("stdin");
            object.insert("permissionId".to_owned(), json!("p"));
        }
        "create_session.mcpMounts[].hostPath" => put(
            arguments,
            &[
                Step::Name("mcpMounts".to_owned()),
                Step::Item,
                Step::Name("containerPath".to_owned()),
            ],
            json!("/mnt/x"),
        ),
        "create_session.mcpMounts[].containerPath" => {
            let project = arguments["projectPath"].clone();
            put(
                arguments,
                &[
                    Step::Name("mcpMounts".to_owned()),
                    Step::Item,
                    Step::Name("hostPath".to_owned()),
                ],
                project,
            );
        }
        _ if field.starts_with("create_session.aws") => {
            object.insert("useBedrock".to_owned(), json!(true));
        }
        _ => {}
    }
}

/// The value with a canary that a field of that name takes best.
fn value(field: &str, canary: &str) -> Value {
    let name = field
        .rsplit(['.', '[', '{'])
        .find(|part| part.chars().any(char::is_alphabetic))
        .unwrap_or_default();
    match name {
        "projectPath" | "hostPath" | "sourcePath" => json!(format!("/srv/{canary}")),
        "containerPath" | "destPath" | "cwd" => json!(format!("/tmp/{canary}")),
        "paths" => json!(format!("/{canary}/")),
        "host" | "allow" => json!(format!("{canary}.example.com")),
        "stdinBase64" => json!(BASE64_STANDARD_NO_PAD.encode(canary)),
        "command" => json!(format!(": {canary}")),
        "argv" => json!("true"),
        _ => json!(canary),
    }
}

fn call(client: &mut Client, tool: &str, arguments: &Value) -> Option<Value> {
    client.tool(tool, arguments.clone()).ok()
}

/// One call for each field; how many of them did something.
fn call_all(
    client: &mut Client,
    machine: &Machine,
    canaries: &mut BTreeMap<String, String>,
) -> usize {
    let listed = client.request("tools/list", json!({})).expect("the tools");
    let session = client.create(&machine.project);
    let asked = json!({ "sessionId": session, "command": "exec cat >/dev/null", "keepStdinOpen": true, "waitSeconds": 0 });
    let execution = client.tool("execute_command", asked).expect("an execution");
    let execution = execution["executionId"]
        .as_str()
        .expect("its id")
        .to_owned();
    let mut done = 0;
    for tool in listed["tools"].as_array().expect("tools") {
        let name = tool["name"].as_str().expect("its name");
        let mut found = BTreeMap::new();
        fields(
            &tool["inputSchema"],
            &tool["inputSchema"],
            &Vec::new(),
            &mut found,
        );
        // And what no schema has.
        found.insert(
            ".unheardOf".to_owned(),
            vec![Step::Name("unheardOf".to_owned())],
        );
        for (spelled, path) in found {
            let field = format!("{name}{spelled}");
            let canary = canary(canaries.len());
            let mut arguments = right(name, machine, &session, &execution);
            put(&mut arguments, &path, value(&field, &canary));
            fit(&field, &mut arguments);
            if field == "execute_command.argv[]" {
                arguments["argv"] = json!(["true", canary]);
            }
            if let Some(Step::AnyName) = path.last() {
                // The name, too, where it is the caller's own.
                let mut by_name = right(name, machine, &session, &execution);
                put(
                    &mut by_name,
                    &path[..path.len() - 1],
                    json!({ format!("N_{canary}"): "1" }),
                );
                call(client, name, &by_name).and_then(|made| end(client, name, &made));
            }
            canaries.insert(field, canary);
            if let Some(made) = call(client, name, &arguments) {
                done += 1;
                end(client, name, &made);
            }
        }
    }
    client.destroy(&session);
    done
}

/// A session that a call made is not needed.
fn end(client: &mut Client, tool: &str, made: &Value) -> Option<()> {
    let session = made["sessionId"]
        .as_str()
        .filter(|_| tool == "create_session")?;
    client
        .tool("destroy_session", json!({ "sessionId": session }))
        .ok()
        .map(drop)
}

/// A client that names itself by canaries, and calls something.
fn named_client(machine: &Machine, canaries: &mut BTreeMap<String, String>) {
    let (name, version) = (canary(canaries.len()), canary(canaries.len() + 1));
    let mut client = machine.client_that_is(&json!({ "name": name, "version": version }));
    client.tool("list_sessions", json!({})).expect("an answer");
    canaries.insert("initialize.clientInfo.name".to_owned(), name);
    canaries.insert("initialize.clientInfo.version".to_owned(), version);
}

#[test]
fn a_secret_in_any_field_of_any_tool_is_in_nothing_that_is_kept() {
    for user in users() {
        let mut machine = Machine::new(user);
        let artifacts = machine.base().join("artifacts");
        fs::create_dir(&artifacts).expect("a directory");
        machine.give(&artifacts);
        let second = artifacts.join("second.jsonl");
        let sinks = format!(
            "{{ second = {{ kind = \"file\", path = \"{0}\" }}, ocsf = {{ kind = \"file\", format = \"ocsf\", path = \"{0}.ocsf\" }} }}",
            second.display()
        );
        // The server's own credentials, and the most that it can say.
        let servers = canary(900);
        machine
            .set("CLAUDE_CODE_MCP_AUDIT_SINKS", &sinks)
            .set("CLAUDE_CODE_MCP_LOG", "trace")
            .set("CLAUDE_CODE_MCP_NETWORK_ALLOW", "*.example.com")
            .set("ANTHROPIC_API_KEY", &servers);
        machine.write("file", "content");
        let mut canaries = BTreeMap::from([("the server's key".to_owned(), servers)]);
        let mut client = machine.client();
        let done = call_all(&mut client, &machine, &mut canaries);
        drop(client);
        named_client(&machine, &mut canaries);
        assert!(done >= 15, "{done} calls did something");
        machine.wait_for_server_end();
        export(&machine, &artifacts);
        let search = Search::new(&canaries);
        let found = search.below(&[
            &machine.state(),
            &artifacts,
            &machine.base().join("run"),
            &machine.base().join("home"),
        ]);
        check(&machine, &found);
        controls(&search, &canaries, &artifacts);
    }
}

/// Everything that is told of the log.
fn export(machine: &Machine, artifacts: &Path) {
    for format in ["jsonl", "ocsf", "cef"] {
        let out = machine.cli(&["audit", "export", "--format", format]);
        assert!(out.status.success() && !out.stdout.is_empty(), "{out:?}");
        fs::write(artifacts.join(format!("export.{format}")), out.stdout).expect("written");
    }
    let told = machine.cli(&["audit", "search"]);
    fs::write(artifacts.join("search.txt"), told.stdout).expect("written");
}

fn check(machine: &Machine, found: &BTreeMap<String, BTreeSet<PathBuf>>) {
    let may = |field: &str, path: &Path| {
        let mut entries = KEPT.iter().filter(|(kept, ..)| *kept == field);
        entries.any(|(_, place, _)| place.has(path))
    };
    let mut leaked = found.clone();
    for (field, paths) in &mut leaked {
        paths.retain(|path| !may(field, path));
    }
    leaked.retain(|_, paths| !paths.is_empty());
    assert!(
        leaked.is_empty(),
        "kept although nothing says why: {leaked:#?}"
    );
    let unused: Vec<_> = KEPT
        .iter()
        .filter(|(field, ..)| !found.contains_key(*field))
        .collect();
    assert!(
        unused.is_empty(),
        "said to be kept, and not found: {unused:?}"
    );
    // What stands in the log is found in every place that gets it, so these places were searched.
    let name = &found["initialize.clientInfo.name"];
    let places = [
        "audit.jsonl",
        "second.jsonl",
        "second.jsonl.ocsf",
        "export.jsonl",
        "export.ocsf",
        "export.cef",
    ];
    for place in places {
        assert!(
            name.iter().any(|path| path.ends_with(place)),
            "{place}: {name:?}"
        );
    }
    assert!(
        machine.state().join("server.log").exists() && machine.state().join("state.db").exists()
    );
}

/// Each spelling of a canary is found where it is planted.
fn controls(search: &Search, canaries: &BTreeMap<String, String>, artifacts: &Path) {
    let secret = "create_session.apiKey";
    for (at, (kind, spelling)) in spellings(&canaries[secret]).into_iter().enumerate() {
        let place = artifacts.join(format!("planted-{at}"));
        fs::create_dir(&place).expect("a directory");
        let file = place.join("file");
        let text = format!(
            "before {} after",
            if at % 2 == 0 {
                spelling
            } else {
                spelling.to_ascii_uppercase()
            }
        );
        fs::write(&file, text).expect("planted");
        assert_eq!(
            search.below(&[&place]),
            BTreeMap::from([(secret.to_owned(), BTreeSet::from([file]))]),
            "{kind}"
        );
    }
    // As programs really write it.
    let whole = artifacts.join("planted-whole");
    fs::create_dir(&whole).expect("a directory");
    for (at, before) in ["", "a", "ab", "abc"].iter().enumerate() {
        let text = BASE64_STANDARD_NO_PAD.encode(format!("{before}{}:x", canaries[secret]));
        fs::write(whole.join(at.to_string()), text).expect("planted");
    }
    assert_eq!(search.below(&[&whole])[secret].len(), 4);
}

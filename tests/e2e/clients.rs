//! Clients that others wrote (S1): the official Python SDK over stdio and the MCP Inspector's command line over stdio and HTTP, in
//! both eras.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use serde_json::{Value, json};

use crate::{
    http::ALL,
    support::{
        Machine,
        door::{HttpServer, key},
        program, skip, users,
    },
};

const PYTHON_SDK: &str = "mcp==2.3.0";
/// The Inspector's command line, bundled into one file that runs on Node 20.
const INSPECTOR_BUNDLE: &str = "inspector-cli-2.12.0-node20-bundle.tgz";

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A Python with the SDK, under `target/`.
///
/// # Errors
/// Why there is none.
pub(crate) fn python() -> Result<PathBuf, String> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PYTHON.get_or_init(make_python).clone()
}

fn make_python() -> Result<PathBuf, String> {
    let target = root().canonicalize().map_err(|error| error.to_string())?;
    let directory = target.join("target/python-client");
    let python = directory.join("bin/python");
    let works = |python: &Path| {
        Command::new(python)
            .args([
                "-c",
                "from importlib.metadata import version as v; assert v('mcp') == '2.3.0'",
            ])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if !works(&python) {
        run(Command::new("python3").args(["-m", "venv"]).arg(&directory))?;
        run(Command::new(directory.join("bin/pip")).args(["install", "--quiet", PYTHON_SDK]))?;
    }
    if works(&python) {
        Ok(python)
    } else {
        Err("the SDK does not import".to_owned())
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn told(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The client runs as whoever runs the tests, the front and the server as each user.
fn journey(mode: &str, protocol: &str) {
    let python = match python() {
        Ok(python) => python,
        Err(why) => return skip("python", &why),
    };
    let script = root().join("tests/clients/journey.py");
    for user in users() {
        let machine = Machine::new(user);
        machine.write("hello.txt", "hello");
        let script = std::fs::read_to_string(&script).expect("the journey");
        let output = machine
            .command_of_the_tester(&python)
            .arg("-c")
            .arg(script)
            .arg(&machine.project)
            .arg(mode)
            .args(machine.front())
            .stdin(Stdio::null())
            .output()
            .expect("python runs");
        assert!(
            output.status.success(),
            "{user:?} {mode}: {}",
            told(&output)
        );
        let seen: Value = serde_json::from_slice(&output.stdout).expect("a report");
        assert_eq!(seen["protocol"], protocol, "{seen}");
        machine.wait_for_server_end();
        assert!(machine.sandbox_pids().is_empty());
    }
}

#[test]
fn the_python_sdk_in_the_legacy_era() {
    journey("legacy", "2025-11-25");
}

#[test]
fn the_python_sdk_in_the_modern_era() {
    journey("2026-07-28", "2026-07-28");
}

#[test]
fn the_python_sdk_left_to_choose() {
    journey("auto", "2026-07-28");
}

/// The Inspector, unpacked.
///
/// # Errors
/// Why there is none.
fn inspector(unpacked: &Path) -> Result<PathBuf, String> {
    let bundle = std::env::var_os("INSPECTOR_BUNDLE").map_or_else(
        || root().join("../shared/tools").join(INSPECTOR_BUNDLE),
        PathBuf::from,
    );
    if !bundle.exists() {
        return Err("INSPECTOR_BUNDLE names no bundle of the Inspector".to_owned());
    }
    run(Command::new("node").arg("--version"))?;
    run(Command::new("tar")
        .arg("xzf")
        .arg(&bundle)
        .arg("-C")
        .arg(unpacked))?;
    Ok(unpacked.join("ic/clients/cli/build/index.js"))
}

/// By which way the Inspector reaches the server.
enum Way {
    Stdio,
    Http { server: HttpServer, key: String },
}

/// One run of the Inspector is one client, from its greeting to its goodbye.
struct Inspector {
    machine: Machine,
    script: PathBuf,
    era: &'static str,
    way: Way,
}

impl Inspector {
    /// Unpacked and on a machine of its own; `None`, said loudly, where there is none.
    fn on(machine: Machine, era: &'static str, way: impl FnOnce(&Machine) -> Way) -> Option<Self> {
        let unpacked = machine.base().join("inspector");
        std::fs::create_dir(&unpacked).expect("a directory");
        let script = match inspector(&unpacked) {
            Ok(script) => script,
            Err(why) => {
                skip("inspector", &why);
                return None;
            }
        };
        run(Command::new("chmod").args(["-R", "a+rX"]).arg(&unpacked)).expect("readable by all");
        let way = way(&machine);
        Some(Inspector {
            machine,
            script,
            era,
            way,
        })
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let way = match &self.way {
            Way::Stdio => self.over_stdio(),
            Way::Http { server, key } => over_http(server, key),
        };
        self.run_by(&way, arguments)
    }

    fn run_by(&self, way: &[String], arguments: &[&str]) -> Output {
        let node = ["/usr/local/bin/node", "/usr/bin/node"]
            .into_iter()
            .map(Path::new)
            .find(|path| path.exists())
            .unwrap_or(Path::new("node"));
        self.machine
            .command(node)
            .env("MCP_INSPECTOR_SECRET_STORE", "memory")
            .arg(&self.script)
            .arg("--cli")
            .args(way)
            .args(["--protocol-era", self.era])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("node runs")
    }

    /// The Inspector hands on a few variables of its environment only, so the machine's own are named.
    fn over_stdio(&self) -> Vec<String> {
        let base = self.machine.base();
        let variables = [
            format!("XDG_STATE_HOME={}", base.join("state").display()),
            format!("XDG_RUNTIME_DIR={}", base.join("run").display()),
            // Each run is a client of its own: the server has to wait for the next.
            "CLAUDE_CODE_MCP_IDLE_EXIT_SECONDS=5".to_owned(),
        ];
        let variables = variables
            .into_iter()
            .flat_map(|variable| ["-e".to_owned(), variable]);
        [program().display().to_string()]
            .into_iter()
            .chain(variables)
            .collect()
    }

    fn tool(&self, name: &str, arguments: &[(&str, &str)]) -> Value {
        let pairs: Vec<String> = arguments
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut line = vec!["--method", "tools/call", "--tool-name", name];
        for pair in &pairs {
            line.extend(["--tool-arg", pair.as_str()]);
        }
        let output = self.run(&line);
        assert!(output.status.success(), "{name}: {}", told(&output));
        let result: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{name}: {error}: {}", told(&output)));
        assert_ne!(result["isError"], json!(true), "{name}: {result:#}");
        result["structuredContent"].clone()
    }
}

fn over_http(server: &HttpServer, key: &str) -> Vec<String> {
    let header = format!("Authorization: Bearer {key}");
    let words = [
        &server.url,
        "--transport",
        "http",
        "--header",
        header.as_str(),
    ];
    words.map(str::to_owned).to_vec()
}

/// Its look at the schemas, which finds nothing that some client could not read.
fn lists(inspector: &Inspector) {
    let listed = inspector.run(&["--method", "tools/list", "--strict"]);
    assert!(listed.status.success(), "{}", told(&listed));
    let list: Value = serde_json::from_slice(&listed.stdout).expect("a list");
    assert_eq!(list["tools"].as_array().map(Vec::len), Some(13));
}

/// A session from its beginning to its end, on a project that is called so.
fn works(inspector: &Inspector, project: &str, transfer: &[(&str, &str)]) {
    let created = inspector.tool("create_session", &[("projectPath", project)]);
    let session = created["sessionId"].as_str().expect("an id").to_owned();
    let ran = inspector.tool(
        "execute_command",
        &[
            ("sessionId", &session),
            ("command", "cat hello.txt; exit 4"),
        ],
    );
    assert_eq!(
        (&ran["stdout"]["text"], &ran["exitCode"]),
        (&json!("hello"), &json!(4))
    );
    let mut arguments = vec![("sessionId", session.as_str())];
    arguments.extend([
        ("direction", "to_container"),
        ("destPath", "/tmp/hello.txt"),
    ]);
    arguments.extend(transfer);
    inspector.tool("transfer_files", &arguments);
    let carried = inspector.tool(
        "execute_command",
        &[("sessionId", &session), ("command", "cat /tmp/hello.txt")],
    );
    assert_eq!(carried["stdout"]["text"], "hello", "{carried:#}");
    let destroyed = inspector.tool("destroy_session", &[("sessionId", &session)]);
    assert_eq!(destroyed["state"], "destroyed", "{destroyed:#}");
    let left = inspector.tool("list_sessions", &[]);
    assert_eq!(left["sessions"], json!([]));
    let audited = std::fs::read_to_string(inspector.machine.audit_log()).expect("an audit log");
    assert!(
        audited.contains(&session),
        "another server than this machine's has answered"
    );
}

fn is_refused(inspector: &Inspector, project: &str, code: &str) {
    let path = format!("projectPath={project}");
    let create = ["--method", "tools/call", "--tool-name", "create_session"];
    let refused = inspector.run(&[&create[..], &["--tool-arg", &path]].concat());
    assert!(told(&refused).contains(code), "{}", told(&refused));
}

fn inspect(era: &'static str) {
    for user in users() {
        let machine = Machine::new(user);
        machine.write("hello.txt", "hello");
        let Some(inspector) = Inspector::on(machine, era, |_| Way::Stdio) else {
            return;
        };
        lists(&inspector);
        let project = inspector.machine.project.display().to_string();
        let source = format!("{project}/hello.txt");
        works(&inspector, &project, &[("sourcePath", &source)]);
        is_refused(&inspector, "/etc", "path_forbidden");
    }
}

fn inspect_over_http(era: &'static str) {
    for user in users() {
        let machine = Machine::new(user);
        machine.write("app/hello.txt", "hello");
        let way = |machine: &Machine| Way::Http {
            server: HttpServer::start(machine, &[]),
            key: key(machine, &ALL, &[]),
        };
        let Some(inspector) = Inspector::on(machine, era, way) else {
            return;
        };
        lists(&inspector);
        works(&inspector, "app", &[("content", "hello")]);
        // A path of this machine is no name.
        is_refused(&inspector, "/etc", "path_not_allowed");
        let Way::Http { server, key } = &inspector.way else {
            unreachable!("it is by HTTP");
        };
        // Whose key is not known gets nothing, not even the list.
        let stranger = format!("ccmcp_{}{}", "a".repeat(12), &key[18..]);
        let list = ["--method", "tools/list"];
        let unknown = inspector.run_by(&over_http(server, &stranger), &list);
        assert_eq!(unknown.status.code(), Some(3), "{}", told(&unknown));
        let nobody = [server.url.as_str(), "--transport", "http"].map(str::to_owned);
        let unnamed = inspector.run_by(&nobody, &list);
        assert_eq!(unnamed.status.code(), Some(3), "{}", told(&unnamed));
    }
}

#[test]
fn the_inspector_in_the_legacy_era() {
    inspect("legacy");
}

#[test]
fn the_inspector_in_the_modern_era() {
    inspect("modern");
}

#[test]
fn the_inspector_over_http_in_the_legacy_era() {
    inspect_over_http("legacy");
}

#[test]
fn the_inspector_over_http_in_the_modern_era() {
    inspect_over_http("modern");
}

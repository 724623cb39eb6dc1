//! An MCP client that speaks raw JSON-RPC.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Machine, program};

/// An MCP client on a stdio front, in the 2025-11-25 era.
pub struct Client {
    pub child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
    next_id: u64,
    pub greeting: Value,
}

impl Client {
    pub(super) fn start(machine: &Machine, capabilities: &Value, client_info: &Value) -> Self {
        let mut child = machine
            .command(program())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the front starts");
        let stdout = BufReader::new(child.stdout.take().expect("its output"));
        let stderr = BufReader::new(child.stderr.take().expect("its errors"));
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let message =
                    serde_json::from_str(&line).unwrap_or_else(|_| json!({ "garbage": line }));
                if send.send(message).is_err() {
                    break;
                }
            }
        });
        std::thread::spawn(move || {
            stderr
                .lines()
                .map_while(Result::ok)
                .for_each(|line| eprintln!("front: {line}"))
        });
        let stdin = child.stdin.take();
        let mut client = Client {
            child,
            stdin,
            lines,
            next_id: 0,
            greeting: Value::Null,
        };
        client.greeting = client
            .request(
                "initialize",
                json!({
                    "protocolVersion": "2025-11-25",
                    "capabilities": capabilities,
                    "clientInfo": client_info,
                }),
            )
            .expect("a greeting");
        client.notify("notifications/initialized", json!({}));
        client
    }

    pub fn send(&mut self, message: &Value) {
        let stdin = self.stdin.as_mut().expect("an open input");
        writeln!(stdin, "{message}")
            .and_then(|()| stdin.flush())
            .expect("the front reads");
    }

    /// Sends bytes that no serializer has been over, and a line feed.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("an open input");
        stdin
            .write_all(&[bytes, b"\n"].concat())
            .and_then(|()| stdin.flush())
            .expect("the front reads");
    }

    pub fn notify(&mut self, method: &str, params: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    /// Sends a request without waiting for its answer.
    pub fn post(&mut self, method: &str, params: Value) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        id
    }

    /// The answer to a request: `Err` is a protocol error.
    pub fn answer(&mut self, id: u64) -> Result<Value, Value> {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let message = match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => panic!("no answer to request {id}"),
                Err(RecvTimeoutError::Disconnected) => return Err(json!("the front has ended")),
            };
            assert!(
                message.get("garbage").is_none(),
                "standard output carries something else: {message}"
            );
            if message["id"] == json!(id) {
                return match message.get("error") {
                    Some(error) => Err(error.clone()),
                    None => Ok(message["result"].clone()),
                };
            }
        }
    }

    /// The next answer to any request, with its id.
    pub fn next_answer(&mut self) -> (u64, Value) {
        loop {
            let message = self
                .lines
                .recv_timeout(Duration::from_secs(90))
                .expect("an answer");
            if let (Some(id), None) = (message["id"].as_u64(), message.get("method")) {
                return (id, message["result"].clone());
            }
        }
    }

    pub fn request(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.post(method, params);
        self.answer(id)
    }

    /// The answer to a request, or else what the server asks its client before.
    pub fn answer_or_request(&mut self, id: u64) -> Result<Value, Value> {
        loop {
            let message = self
                .lines
                .recv_timeout(Duration::from_secs(90))
                .expect("an answer");
            if message["id"] == json!(id) && message.get("method").is_none() {
                return Ok(message["result"].clone());
            }
            if message.get("method").is_some() && message.get("id").is_some() {
                return Err(message);
            }
        }
    }

    /// The next request of the server, to its client.
    pub fn request_of_the_server(&mut self, method: &str) -> Value {
        loop {
            let message = self
                .lines
                .recv_timeout(Duration::from_secs(90))
                .expect("a request of the server");
            if message["method"] == json!(method) {
                return message;
            }
        }
    }

    /// Calls a tool: `Ok` is its structured content, `Err` its error object.
    pub fn tool(&mut self, name: &str, arguments: Value) -> Result<Value, Value> {
        self.tool_raw(name, &arguments.to_string())
    }

    /// As [`Self::tool`], with arguments that no serializer has been over.
    pub fn tool_raw(&mut self, name: &str, arguments: &str) -> Result<Value, Value> {
        self.next_id += 1;
        let id = self.next_id;
        let stdin = self.stdin.as_mut().expect("an open input");
        writeln!(
            stdin,
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{name}","arguments":{arguments}}}}}"#
        )
        .and_then(|()| stdin.flush())
        .expect("the front reads");
        let result = self.answer(id)?;
        let content = result["structuredContent"].clone();
        if result["isError"] == json!(true) {
            Err(content["error"].clone())
        } else {
            Ok(content)
        }
    }

    /// Creates a session on a project.
    pub fn create(&mut self, project: &Path) -> String {
        self.create_with(json!({ "projectPath": project }))
    }

    pub fn create_with(&mut self, arguments: Value) -> String {
        let session = self.tool("create_session", arguments).expect("a session");
        session["sessionId"].as_str().expect("its id").to_owned()
    }

    /// Runs a shell line to its end and gives the execution.
    pub fn run(&mut self, session: &str, line: &str) -> Value {
        let arguments = json!({ "sessionId": session, "command": line, "waitSeconds": 40, "timeoutSeconds": 60 });
        self.tool("execute_command", arguments)
            .expect("an execution")
    }

    /// Standard output of a shell line that must succeed.
    pub fn output(&mut self, session: &str, line: &str) -> String {
        let execution = self.run(session, line);
        assert_eq!(execution["exitCode"], json!(0), "{line}: {execution:#}");
        execution["stdout"]["text"]
            .as_str()
            .unwrap_or_default()
            .trim_end()
            .to_owned()
    }

    pub fn destroy(&mut self, session: &str) {
        self.tool("destroy_session", json!({ "sessionId": session }))
            .expect("destroyed");
    }

    /// Closes standard input, as a client does that ends.
    pub fn close(mut self) -> std::process::ExitStatus {
        self.stdin = None;
        self.child.wait().expect("the front ends")
    }
}

/// Layers that a created session lists as not in force.
pub fn missing_layers(created: &Value) -> Vec<&str> {
    created["hardening"]["layers"]
        .as_array()
        .expect("layers")
        .iter()
        .filter(|layer| layer["inForce"] != json!(true))
        .map(|layer| layer["layer"].as_str().expect("its name"))
        .collect()
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

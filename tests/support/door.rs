//! A server with an HTTP door, keys for it, and a client that speaks raw JSON-RPC over one connection.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};

use super::{Machine, program};

/// A call waits at most 45 s; what is not answered after twice that is not answered at all.
const UNANSWERED: Duration = Duration::from_secs(90);
/// What a server said last, for a test that fails.
const KEPT_LINES: usize = 40;

/// A server in the foreground with an HTTP door at a port of loopback.
pub struct HttpServer {
    child: Child,
    /// Where MCP is served.
    pub url: String,
    said: Arc<Mutex<VecDeque<String>>>,
}

impl HttpServer {
    /// Starts it with these arguments besides, and waits until it listens.
    pub fn start(machine: &Machine, more: &[&str]) -> Self {
        let mut child = machine
            .command(program())
            .args(["serve", "--http", "127.0.0.1:0"])
            .args(more)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let lines = BufReader::new(child.stderr.take().expect("its log")).lines();
        let mut lines = lines.map_while(Result::ok);
        let said = Arc::new(Mutex::new(VecDeque::new()));
        let url = lines.find_map(|line| {
            let url = line
                .split_once("url=\"")
                .and_then(|(_, rest)| rest.split_once('"'));
            let url = url.map(|(url, _)| url.to_owned());
            keep(&said, line);
            url
        });
        let url = url.unwrap_or_else(|| panic!("it does not say where it listens: {said:?}"));
        // What it says later must not fill the pipe.
        let later = Arc::clone(&said);
        std::thread::spawn(move || lines.for_each(|line| keep(&later, line)));
        HttpServer { child, url, said }
    }

    pub fn address(&self) -> SocketAddr {
        let rest = self.url.strip_prefix("http://").expect("a URL");
        let (address, _) = rest.split_once('/').expect("a path");
        address.parse().expect("an address")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9; returns when it is dead.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            for line in self.said.lock().into_iter().flat_map(|said| said.clone()) {
                eprintln!("server: {line}");
            }
        }
    }
}

fn keep(said: &Mutex<VecDeque<String>>, line: String) {
    let mut said = said.lock().expect("lines");
    if said.len() == KEPT_LINES {
        said.pop_front();
    }
    said.push_back(line);
}

/// Makes a key with these scopes, for projects below the machine's own; `more`: further arguments of `keys create`.
pub fn key(machine: &Machine, scopes: &[&str], more: &[&str]) -> String {
    let root = machine.project.display().to_string();
    let mut arguments = vec!["keys", "create", "--name", "tests", "--root", &root];
    arguments.extend(scopes.iter().flat_map(|scope| ["--scope", scope]));
    arguments.extend(more);
    let made = machine.cli(&arguments);
    assert!(made.status.success(), "{made:?}");
    String::from_utf8_lossy(&made.stdout).trim().to_owned()
}

/// An MCP client over one connection, in the 2025-11-25 era.
pub struct HttpClient {
    stream: BufReader<TcpStream>,
    /// The head of each request, up to the length of its body.
    head: String,
    next_id: u64,
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Answered {
    /// Its structured content.
    Done(Value),
    /// The error object of its result.
    Refused(Value),
    /// No result of a tool: the status, and the body.
    Status(u16, Value),
}

impl HttpClient {
    pub fn connect(server: &HttpServer, key: &str) -> Self {
        let address = server.address();
        let stream = TcpStream::connect(address).expect("the door");
        stream.set_read_timeout(Some(UNANSWERED)).expect("bounded");
        stream.set_nodelay(true).expect("at once");
        HttpClient {
            stream: BufReader::new(stream),
            head: format!(
                "POST /mcp HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
                 Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\n"
            ),
            next_id: 0,
        }
    }

    /// Sends a call without waiting for its answer.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn post(&mut self, name: &str, arguments: &Value) -> io::Result<u64> {
        self.next_id += 1;
        let params = json!({ "name": name, "arguments": arguments });
        let body = json!({ "jsonrpc": "2.0", "id": self.next_id, "method": "tools/call", "params": params })
            .to_string();
        let request = format!("{}Content-Length: {}\r\n\r\n{body}", self.head, body.len());
        self.stream.get_mut().write_all(request.as_bytes())?;
        Ok(self.next_id)
    }

    /// The answer to that call.
    ///
    /// # Errors
    /// When the connection ends before it is there.
    pub fn answer(&mut self, id: u64) -> io::Result<Answered> {
        let (status, body) = self.read()?;
        if status != 200 || body["result"].is_null() {
            return Ok(Answered::Status(status, body));
        }
        assert_eq!(body["id"], json!(id), "another call's answer: {body}");
        let content = &body["result"]["structuredContent"];
        Ok(match body["result"]["isError"] == json!(true) {
            true => Answered::Refused(content["error"].clone()),
            false => Answered::Done(content.clone()),
        })
    }

    /// A call and its answer.
    ///
    /// # Errors
    /// When the connection ends before it is there.
    pub fn call(&mut self, name: &str, arguments: &Value) -> io::Result<Answered> {
        let id = self.post(name, arguments)?;
        self.answer(id)
    }

    /// Calls a tool: `Ok` is its structured content, `Err` its error object.
    pub fn tool(&mut self, name: &str, arguments: Value) -> Result<Value, Value> {
        match self.call(name, &arguments).expect("an answer") {
            Answered::Done(content) => Ok(content),
            Answered::Refused(error) => Err(error),
            Answered::Status(status, body) => panic!("{name}: {status} {body}"),
        }
    }

    fn read(&mut self) -> io::Result<(u16, Value)> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        let mut length = 0;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().map_err(|_| io::ErrorKind::InvalidData)?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((status, serde_json::from_slice(&body)?))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

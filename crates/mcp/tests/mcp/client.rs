//! A client that speaks raw JSON-RPC, so that the tests see what is on the wire.

use std::{sync::Arc, time::Duration};

use mcp::{McpError, Peer, serve};
use model::{Credentials, Source};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::scripted::ScriptedRoad;

/// No test waits longer for one line.
const PATIENCE: Duration = Duration::from_secs(120);
/// A pipe's usual capacity, bytes.
const PIPE_BYTES: usize = 64 * 1024;

/// How a conversation is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// `initialize` of that revision.
    Legacy(&'static str),
    /// `_meta` in each request.
    Modern,
}

/// Every era that the server promises.
pub const ERAS: [Era; 3] = [
    Era::Legacy("2025-06-18"),
    Era::Legacy("2025-11-25"),
    Era::Modern,
];

/// See the module.
pub struct Client {
    pub road: Arc<ScriptedRoad>,
    pub shutdown: CancellationToken,
    /// Notifications that came in between.
    pub notifications: Vec<Value>,
    pub server: JoinHandle<Result<(), McpError>>,
    era: Era,
    writer: WriteHalf<DuplexStream>,
    lines: Lines<BufReader<ReadHalf<DuplexStream>>>,
    next_id: u64,
    capabilities: Value,
}

/// What the transport says about the test's client.
pub fn credentials() -> Credentials {
    Credentials::LocalPeer {
        uid: 1000,
        pid: 4242,
        roots: vec!["/home/user/project".into()],
    }
}

/// What the client says about itself.
pub fn client_info() -> Value {
    json!({"name": "raw-client", "version": "7.1"})
}

impl Client {
    /// A connection on which nothing was said.
    pub fn silent(road: ScriptedRoad, era: Era) -> Client {
        Client::on(Arc::new(road), era)
    }

    fn on(road: Arc<ScriptedRoad>, era: Era) -> Client {
        Client::of(road, era, credentials(), false)
    }

    /// A connection that is open for calls, of whoever presents these credentials.
    pub async fn presenting(
        road: ScriptedRoad,
        era: Era,
        credentials: Credentials,
        is_person: bool,
    ) -> Client {
        let mut client = Client::of(Arc::new(road), era, credentials, is_person);
        client.opening().await;
        client
    }

    /// A connection on which nothing was said, of whoever presents these credentials.
    pub fn of(
        road: Arc<ScriptedRoad>,
        era: Era,
        credentials: Credentials,
        is_person: bool,
    ) -> Client {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let shutdown = CancellationToken::new();
        let peer = Peer {
            credentials,
            source: Source::LOCAL,
            is_person,
        };
        let server = tokio::spawn(serve(theirs, road.clone(), peer, shutdown.clone()));
        let (reader, writer) = tokio::io::split(ours);
        let lines = BufReader::new(reader).lines();
        Client {
            road,
            shutdown,
            notifications: Vec::new(),
            server,
            era,
            writer,
            lines,
            next_id: 0,
            capabilities: json!({}),
        }
    }

    /// A connection that is open for calls, of a client with those capabilities.
    pub async fn able(road: Arc<ScriptedRoad>, era: Era, capabilities: Value) -> Client {
        let mut client = Client::on(road, era);
        client.capabilities = capabilities;
        client.opening().await;
        client
    }

    /// A connection that is open for calls.
    pub async fn open(road: ScriptedRoad, era: Era) -> Client {
        let mut client = Client::silent(road, era);
        client.opening().await;
        client
    }

    /// Says what opens the era and returns the answer.
    pub async fn opening(&mut self) -> Value {
        match self.era {
            Era::Legacy(version) => {
                let params = json!({"protocolVersion": version, "capabilities": self.capabilities, "clientInfo": client_info()});
                let answer = self.request("initialize", params).await;
                self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
                    .await;
                answer
            }
            Era::Modern => self.request("server/discover", json!({})).await,
        }
    }

    /// Writes one line.
    pub async fn send(&mut self, message: &Value) {
        self.send_raw(&message.to_string()).await;
    }

    /// Writes one line that need not be JSON.
    pub async fn send_raw(&mut self, line: &str) {
        self.writer
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }

    /// Reads one message.
    pub async fn receive(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line())
            .await
            .expect("an answer in time");
        serde_json::from_str(&line.unwrap().expect("the connection is open")).unwrap()
    }

    /// Reads to the end of the stream; `None` when it does not come.
    pub async fn end(&mut self) -> bool {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line())
            .await
            .expect("an end in time");
        line.unwrap().is_none()
    }

    /// Sends a request without waiting for its answer; returns its id.
    pub async fn start(&mut self, method: &str, mut params: Value) -> u64 {
        self.next_id += 1;
        if self.era == Era::Modern {
            let meta = &mut params["_meta"];
            meta["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
            meta["io.modelcontextprotocol/clientCapabilities"] = self.capabilities.clone();
            meta["io.modelcontextprotocol/clientInfo"] = client_info();
        }
        let id = self.next_id;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
            .await;
        id
    }

    /// The answer to a request, whole; notifications before it are kept.
    pub async fn answer(&mut self, id: u64) -> Value {
        loop {
            let message = self.receive().await;
            if message.get("id") == Some(&json!(id)) {
                return message;
            }
            assert!(
                message.get("method").is_some(),
                "an answer to nothing: {message}"
            );
            self.notifications.push(message);
        }
    }

    /// A request and its answer.
    pub async fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.start(method, params).await;
        self.answer(id).await
    }

    /// A tool's result; a protocol error is a failed test.
    pub async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let answer = self
            .request("tools/call", json!({"name": tool, "arguments": arguments}))
            .await;
        assert!(answer.get("error").is_none(), "{tool}: {answer}");
        answer["result"].clone()
    }

    /// Closes the connection and waits for the server's end of it.
    pub async fn close(self) -> Result<(), McpError> {
        drop((self.writer, self.lines));
        tokio::time::timeout(PATIENCE, self.server)
            .await
            .expect("an end in time")
            .unwrap()
    }
}

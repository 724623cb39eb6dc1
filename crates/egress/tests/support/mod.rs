//! A provider that says what a test wants, byte for byte, and a client that does the same.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each test file uses a part of it, and a test fails by panicking"
)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use egress::{
    Caps, Credential, Ledger, ModelList, Observer, Provider, Recording, Relay, RelayLimits,
    RequestRecord, SessionConfig, SessionRelay, Ticket, Trust, Unrecorded, Usage,
};
use model::{Secret, SessionId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpStream},
};

/// The provider's key. It must appear nowhere on the client's side.
pub const KEY: &str = "sk-ant-canary-0123456789";

/// What the client inside presents.
pub const TOKEN: &str = "relay-token-of-the-session";

/// A part of a provider's answer.
#[derive(Clone)]
pub enum Piece {
    Bytes(Vec<u8>),
    Wait(Duration),
    /// Nothing more, and the connection stays open.
    Hang,
    /// The connection is closed.
    Close,
}

pub fn bytes(text: impl AsRef<[u8]>) -> Piece {
    Piece::Bytes(text.as_ref().to_vec())
}

type Handler = dyn Fn(&str) -> Vec<Piece> + Send + Sync;

/// A provider on loopback that keeps what it was asked.
pub struct Upstream {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Upstream {
    /// Answers every request with these pieces.
    pub async fn saying(pieces: Vec<Piece>) -> Self {
        Self::start(move |_| pieces.clone()).await
    }

    /// Answers a request, head and body as one text, with what the handler says.
    pub async fn start(handler: impl Fn(&str) -> Vec<Piece> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let handler: Arc<Handler> = Arc::new(handler);
        let kept = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&handler), Arc::clone(&kept)));
            }
        });
        Upstream { url, asked, task }
    }

    /// What it was asked, head and body of each request.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(mut stream: TcpStream, handler: Arc<Handler>, asked: Arc<Mutex<Vec<String>>>) {
    while let Some(request) = read_message(&mut stream).await {
        let pieces = handler(&request);
        asked.lock().unwrap().push(request);
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Piece::Wait(time) => tokio::time::sleep(time).await,
                Piece::Hang => std::future::pending().await,
                Piece::Close => return,
            }
        }
    }
}

/// Head and body of one message with a content-length.
async fn read_message(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some(end) = text.find("\r\n\r\n") {
            let length = text[..end]
                .lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, value)| value.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                return Some(text.into_owned());
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// An answer with a length.
pub fn answer(status: &str, headers: &str, body: &str) -> Vec<Piece> {
    let length = body.len();
    vec![bytes(format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}"
    ))]
}

/// An answer of JSON.
pub fn json(body: &str) -> Vec<Piece> {
    answer("200 OK", "content-type: application/json\r\n", body)
}

/// The beginning of an answer in chunks of this content type.
pub fn chunked(content_type: &str) -> Piece {
    bytes(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
    ))
}

/// A chunk.
pub fn chunk(data: impl AsRef<[u8]>) -> Piece {
    let data = data.as_ref();
    let mut whole = format!("{:x}\r\n", data.len()).into_bytes();
    whole.extend_from_slice(data);
    whole.extend_from_slice(b"\r\n");
    Piece::Bytes(whole)
}

/// The end of an answer in chunks.
pub fn last_chunk() -> Piece {
    bytes("0\r\n\r\n")
}

/// A message of the Messages API with this usage.
pub fn message(input: u64, output: u64) -> String {
    format!(
        r#"{{"type":"message","content":[],"usage":{{"input_tokens":{input},"output_tokens":{output}}}}}"#
    )
}

pub const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":10,\"output_tokens\":1,\"cache_read_input_tokens\":5,\"cache_creation_input_tokens\":2}}}\n\n";

/// A delta with so many bytes of text.
pub fn delta(bytes: usize) -> String {
    let text = "x".repeat(bytes);
    format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
    )
}

/// The end of a stream with this number of output tokens.
pub fn end(output: u64) -> String {
    format!(
        "event: message_delta\ndata: {{\"type\":\"message_delta\",\"usage\":{{\"output_tokens\":{output}}}}}\n\nevent: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
    )
}

/// Keeps the records of a session.
#[derive(Default)]
pub struct Records {
    /// The models of requests that were about to go out.
    pub begun: Mutex<Vec<Option<String>>>,
    /// No request can be put on record.
    pub is_full: bool,
    /// The session has made too many.
    pub is_crowded: bool,
    pub ended: Mutex<Vec<(Option<Ticket>, RequestRecord)>>,
}

impl Observer for Records {
    fn request_begins<'a>(&'a self, _: SessionId, record: &'a RequestRecord) -> Recording<'a> {
        let mut begun = self.begun.lock().unwrap();
        begun.push(record.model.clone());
        let ticket = Ticket(begun.len() as u64);
        let (is_full, is_crowded) = (self.is_full, self.is_crowded);
        Box::pin(async move {
            match (is_full, is_crowded) {
                (true, _) => Err(Unrecorded::Failed("the disk is full".to_owned())),
                (false, true) => Err(Unrecorded::TooMany { per_minute: 7 }),
                (false, false) => Ok(ticket),
            }
        })
    }

    fn request_ended(&self, _: SessionId, ticket: Option<Ticket>, record: &RequestRecord) {
        self.ended.lock().unwrap().push((ticket, record.clone()));
    }
}

/// A relay with one session.
pub struct Bench {
    pub relay: Relay,
    pub session: Arc<SessionRelay>,
    pub records: Arc<Records>,
}

/// What a test changes of the usual bench.
pub struct Setting {
    pub provider: Provider,
    pub credential: Option<Credential>,
    pub models: ModelList,
    pub caps: Caps,
    pub ledger: Ledger,
    pub caller: &'static str,
    pub used_before: Usage,
    pub limits: RelayLimits,
    pub trust: Trust,
}

pub fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

impl Setting {
    pub fn first_party(url: &str) -> Self {
        Setting {
            provider: Provider::first_party(Some(url)).unwrap(),
            credential: Some(Credential::ApiKey(secret(KEY))),
            models: ModelList::default(),
            caps: Caps::default(),
            ledger: Ledger::unlimited().unwrap(),
            caller: "uid:0",
            used_before: Usage::default(),
            limits: RelayLimits::default(),
            trust: Trust {
                machine: false,
                extra_pem: Vec::new(),
            },
        }
    }

    pub fn bench(self) -> Bench {
        self.bench_with(Records::default())
    }

    pub fn bench_with(self, records: Records) -> Bench {
        let records = Arc::new(records);
        let config = SessionConfig {
            session: SessionId::from_bytes(Default::default()),
            caller: self.caller.to_owned(),
            ledger: self.ledger,
            provider: self.provider,
            credential: self.credential,
            models: self.models,
            caps: self.caps,
            token: secret(TOKEN),
            used_before: self.used_before,
            observer: Arc::clone(&records) as Arc<dyn Observer>,
        };
        Bench {
            relay: Relay::new(self.limits, &self.trust).unwrap(),
            session: SessionRelay::new(config).unwrap(),
            records,
        }
    }
}

impl Bench {
    /// A connection from inside.
    pub fn connect(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        let relay = self.relay.clone();
        let session = Arc::clone(&self.session);
        tokio::spawn(async move { relay.serve(theirs, session).await });
        ours
    }

    /// Sends bytes over a connection of their own; gives back all that comes until it is closed.
    pub async fn send(&self, request: &str) -> String {
        String::from_utf8_lossy(&self.send_for_bytes(request).await).into_owned()
    }

    /// As [`Bench::send`], for answers that are no text.
    pub async fn send_for_bytes(&self, request: &str) -> Vec<u8> {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer));
        let _ = read.await.expect("an answer in time");
        answer
    }

    /// A usual request with this body.
    pub async fn ask(&self, body: &str) -> String {
        self.send(&post("/v1/messages?beta=true", body)).await
    }

    /// The records so far, once there are `count` of them.
    pub async fn records(&self, count: usize) -> Vec<RequestRecord> {
        let records = self.told(count).await;
        records.into_iter().map(|(_, record)| record).collect()
    }

    /// The same, each with the ticket of its beginning.
    pub async fn told(&self, count: usize) -> Vec<(Option<Ticket>, RequestRecord)> {
        for _ in 0..500 {
            let records = self.records.ended.lock().unwrap().clone();
            if records.len() >= count {
                return records;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("there are no {count} records");
    }
}

pub const BODY: &str =
    r#"{"model":"claude-opus-5-5","max_tokens":32000,"stream":true,"messages":[]}"#;

/// A request as Claude Code makes it, on a connection that closes after it.
pub fn post(path: &str, body: &str) -> String {
    post_with(path, body, "")
}

pub fn post_with(path: &str, body: &str, headers: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\nanthropic-version: 2023-06-01\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The status of an answer.
pub fn status(answer: &str) -> u16 {
    let code = answer.split(' ').nth(1);
    code.and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("no status in `{answer}`"))
}

/// The rule that refused.
pub fn rule(answer: &str) -> Option<&str> {
    let line = answer
        .lines()
        .find(|line| line.starts_with("x-relay-denied: "))?;
    line.split_once(": ").map(|(_, rule)| rule)
}

/// The body of an answer in chunks.
pub fn dechunk(answer: &[u8]) -> Vec<u8> {
    let head_end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let mut rest = &answer[head_end.unwrap() + 4..];
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        body.extend_from_slice(&rest[end + 2..end + 2 + length]);
        rest = &rest[end + 2 + length + 2..];
    }
    body
}

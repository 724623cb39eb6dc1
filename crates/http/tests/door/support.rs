//! A door over a road that answers from a script, and a client that writes what it likes.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use control::{Authenticated, RateView, Road};
use http_door::{Door, Settings};
use mcp::HttpService;
use model::{Action, Call, Credentials, Outcome, Reason, Refusal, Scope, Scopes, Source};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// How long a test waits for what takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// A key that the road knows.
pub const KEY: &str = "ccmcp_good";
/// A call that a healthy road answers at once.
pub const LIST_SESSIONS: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_sessions","arguments":{}}}"#;
/// A call that waits until its client or the server leaves.
pub const WAIT: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"get_execution","arguments":{"executionId":"x-00000000000000000000000000000000"}}}"#;
/// What needs no call.
pub const LIST_TOOLS: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#;

/// Knows one key and whatever token the door has checked; `get_execution` never ends.
#[derive(Default)]
pub struct TestRoad {
    pub calls: Mutex<Vec<Call>>,
    pub sources: Mutex<Vec<Source>>,
    /// Waits that were given up.
    pub dropped: Arc<Mutex<usize>>,
}

struct Dropped(Arc<Mutex<usize>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        *self.0.lock().unwrap() += 1;
    }
}

fn scopes(credentials: &Credentials) -> Scopes {
    match credentials {
        Credentials::AccessToken(token) => token.scopes,
        Credentials::ApiKey(_) | Credentials::LocalPeer { .. } | Credentials::System => {
            Scopes::NONE.with(Scope::SessionsRead)
        }
    }
}

#[async_trait]
impl Road for TestRoad {
    async fn handle(&self, call: Call) -> Result<Outcome, Refusal> {
        self.calls.lock().unwrap().push(call.clone());
        let needed = call.action.scopes();
        if needed.is_some_and(|needed| !scopes(&call.credentials).contains_all(needed)) {
            return Err(Refusal::new(
                Reason::InsufficientScope,
                "It lacks a scope.",
                "Get it.",
            ));
        }
        match call.action {
            Action::GetExecution(_) => {
                let _dropped = Dropped(Arc::clone(&self.dropped));
                std::future::pending().await
            }
            _ => Ok(Outcome::Sessions(Vec::new())),
        }
    }

    async fn authenticate(
        &self,
        credentials: &Credentials,
        source: &Source,
    ) -> Result<Authenticated, Refusal> {
        self.sources.lock().unwrap().push(*source);
        let name = match credentials {
            Credentials::ApiKey(key) if key.expose() == KEY => "key:good".to_owned(),
            Credentials::ApiKey(key) if key.expose() == "ccmcp_limited" => {
                let refusal = Refusal::new(Reason::RateLimited, "Too often.", "Wait.");
                return Err(refusal.retry_after_ms(1_500));
            }
            Credentials::AccessToken(token) => format!("oauth:{}", token.subject),
            Credentials::ApiKey(_) | Credentials::LocalPeer { .. } | Credentials::System => {
                return Err(Refusal::new(
                    Reason::Unauthenticated,
                    "Nobody knows it.",
                    "Get one.",
                ));
            }
        };
        let scopes = scopes(credentials);
        let rate = Some(RateView {
            per_minute: 60,
            burst: 10,
            window_seconds: 10,
            remaining: 7,
            reset_seconds: 3,
        });
        Ok(Authenticated { name, scopes, rate })
    }

    fn authentication_failed(&self, source: &Source, why: &'static str) -> Refusal {
        self.sources.lock().unwrap().push(*source);
        Refusal::new(Reason::Unauthenticated, why, "Get another one.")
    }
}

/// An open door with its road.
pub struct Open {
    pub address: Option<SocketAddr>,
    pub road: Arc<TestRoad>,
    pub stop: CancellationToken,
    pub serving: JoinHandle<()>,
}

/// Settings of a door on a loopback address.
pub fn loopback() -> Settings {
    Settings::new("127.0.0.1:0".parse().unwrap())
}

pub async fn open(settings: Settings) -> Open {
    let road = Arc::new(TestRoad::default());
    let stop = CancellationToken::new();
    let service = HttpService::new(Arc::clone(&road) as Arc<dyn Road>, stop.clone());
    open_with(settings, road, service, stop).await
}

pub async fn open_with(
    settings: Settings,
    road: Arc<TestRoad>,
    service: HttpService,
    stop: CancellationToken,
) -> Open {
    let door = Door::open(settings, true).await.expect("the door opens");
    let address = door.address();
    let serving =
        tokio::spawn(door.serve(Arc::clone(&road) as Arc<dyn Road>, service, stop.clone()));
    Open {
        address,
        road,
        stop,
        serving,
    }
}

impl Open {
    pub fn port(&self) -> u16 {
        self.address.expect("TCP").port()
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address.expect("TCP"))
            .await
            .expect("connects")
    }

    /// Sends that text on a connection of its own and reads until it closes.
    pub async fn raw(&self, text: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        exchange(&mut stream, text.as_ref()).await
    }

    /// A POST of a message with a key, as clients send it; `headers` as lines that replace or add.
    pub async fn post(&self, message: &str, headers: &[(&str, &str)]) -> Answer {
        let text = request("POST", "/mcp", self.port(), headers, message);
        Answer::of(&self.raw(text).await)
    }
}

/// Writes, and reads to the end.
pub async fn exchange<S>(stream: &mut S, bytes: &[u8]) -> String
where
    S: AsyncReadExt + AsyncWriteExt + Unpin,
{
    // The other side may close before it has read everything.
    let _refused = stream.write_all(bytes).await;
    let mut read = Vec::new();
    let reading = stream.read_to_end(&mut read);
    let _reset = tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("the connection closes");
    String::from_utf8_lossy(&read).into_owned()
}

/// The text of a request. A header with an empty value is left out.
pub fn request(
    method: &str,
    path: &str,
    port: u16,
    headers: &[(&str, &str)],
    body: &str,
) -> String {
    let host = format!("127.0.0.1:{port}");
    let (bearer, length) = (format!("Bearer {KEY}"), body.len().to_string());
    let usual = [
        ("Host", host.as_str()),
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
        ("Content-Length", length.as_str()),
        ("Connection", "close"),
    ];
    let replaced = |name: &str| {
        headers
            .iter()
            .any(|(other, _)| other.eq_ignore_ascii_case(name))
    };
    let usual = usual.iter().filter(|(name, _)| !replaced(name));
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    for (name, value) in usual.chain(headers).filter(|(_, value)| !value.is_empty()) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n" + body
}

/// An answer, taken apart.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let headers = lines.filter_map(|line| line.split_once(": "));
        Answer {
            status: status.and_then(|status| status.parse().ok()).unwrap_or(0),
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect(),
            body: body.to_owned(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of a refusal of the door.
    pub fn code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

/// Waits for a condition.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

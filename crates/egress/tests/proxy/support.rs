//! A session with its proxy, a resolver of our own, servers on loopback, and a record to look at.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each test uses a part of it, and a test fails by panicking"
)]

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use egress::{
    destination::{HostName, Reach, ReachLimits, Resolve, RuleSet},
    proxy::{
        Decision, Ending, Opening, Proxy, ProxyLimits, ProxyPort, Recorder, Recording,
        SessionEgress, Ticket, TunnelEnd, Unrecorded,
    },
};
use model::{EgressRule, NamedRule, NetworkPolicy, SessionId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// For what must come at once.
pub const SOON: Duration = Duration::from_secs(5);

/// Names that lead to loopback unless a test says otherwise.
#[derive(Default)]
pub struct Names(Mutex<HashMap<String, Vec<IpAddr>>>);

impl Names {
    pub fn say(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.0.lock().unwrap().insert(name.to_owned(), addresses);
    }
}

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, host: &HostName) -> io::Result<Vec<IpAddr>> {
        let known = self.0.lock().unwrap().get(host.as_str()).cloned();
        Ok(known.unwrap_or_else(|| vec![Ipv4Addr::LOCALHOST.into()]))
    }
}

/// Keeps everything in memory.
#[derive(Default)]
pub struct Record {
    pub decisions: Mutex<Vec<Decision>>,
    pub ends: Mutex<Vec<(Ticket, TunnelEnd)>>,
    pub is_full: AtomicBool,
    pub is_crowded: AtomicBool,
    count: AtomicU64,
}

impl Recorder for Record {
    fn decided<'a>(&'a self, _session: SessionId, decision: &'a Decision) -> Recording<'a> {
        Box::pin(async move {
            if self.is_full.load(SeqCst) {
                return Err(Unrecorded::Failed("the disk is full".to_owned()));
            }
            if self.is_crowded.load(SeqCst) && decision.denied.is_none() {
                return Err(Unrecorded::TooMany { per_minute: 7 });
            }
            self.decisions.lock().unwrap().push(decision.clone());
            Ok(Ticket(self.count.fetch_add(1, SeqCst)))
        })
    }

    fn ended(&self, _session: SessionId, ticket: Ticket, end: &TunnelEnd) {
        self.ends.lock().unwrap().push((ticket, *end));
    }
}

impl Record {
    /// Codes of refusals, in their order.
    pub fn denied(&self) -> Vec<&'static str> {
        let decisions = self.decisions.lock().unwrap();
        decisions
            .iter()
            .filter_map(|decision| decision.denied)
            .collect()
    }

    /// Waits until these are the codes of all refusals.
    pub async fn has_denied(&self, due: &[&str]) {
        let waiting = async {
            while self.denied() != due {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = timeout(SOON, waiting).await;
        assert!(waited.is_ok(), "{:?}", self.denied());
    }

    pub fn allowed(&self) -> Vec<Decision> {
        let decisions = self.decisions.lock().unwrap();
        decisions
            .iter()
            .filter(|decision| decision.denied.is_none())
            .cloned()
            .collect()
    }

    /// Waits until so many have ended.
    pub async fn ended(&self, count: usize) -> Vec<TunnelEnd> {
        timeout(SOON, async {
            while self.ends.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
        .expect("they end");
        let ends = self.ends.lock().unwrap();
        ends.iter().map(|(_, end)| *end).collect()
    }

    pub async fn ending(&self) -> Ending {
        self.ended(1).await[0].ending
    }
}

/// A session under test.
pub struct Session {
    pub proxy: Proxy,
    pub egress: Arc<SessionEgress>,
    pub record: Arc<Record>,
    pub names: Arc<Names>,
}

/// Rules that may lead to loopback.
pub fn private(rules: &[&str]) -> RuleSet {
    rule_set(rules, true)
}

pub fn rule_set(rules: &[&str], private: bool) -> RuleSet {
    let named = rules.iter().enumerate().map(|(index, text)| NamedRule {
        name: format!("allow/{}", index + 1),
        rule: EgressRule {
            private,
            ..text.parse().unwrap()
        },
    });
    RuleSet::new(NetworkPolicy {
        rules: named.collect(),
        ..NetworkPolicy::default()
    })
}

pub fn quick() -> ProxyLimits {
    ProxyLimits {
        head_timeout: Duration::from_millis(300),
        hello_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(500),
        linger_timeout: Duration::from_millis(300),
        ..ProxyLimits::default()
    }
}

impl Session {
    pub fn new(rules: RuleSet) -> Self {
        Session::with(rules, ProxyLimits::default())
    }

    pub fn with(rules: RuleSet, limits: ProxyLimits) -> Self {
        Session::opening(rules, limits, None)
    }

    /// One that may open TLS.
    pub fn opening(rules: RuleSet, limits: ProxyLimits, opening: Option<Opening>) -> Self {
        let record = Arc::new(Record::default());
        let names = Arc::new(Names::default());
        let proxy = Proxy::new(limits);
        let resolver: Arc<dyn Resolve> = Arc::clone(&names) as _;
        let recorder: Arc<dyn Recorder> = Arc::clone(&record) as _;
        let reach = Reach::new(resolver, ReachLimits::default());
        let egress = SessionEgress::new(
            SessionId::from_bytes([7; 16]),
            rules,
            reach,
            opening,
            recorder,
            &limits,
        );
        Session {
            proxy,
            egress,
            record,
            names,
        }
    }

    /// A connection to a port of the proxy.
    pub fn dial(&self, port: ProxyPort) -> DuplexStream {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (proxy, egress) = (self.proxy.clone(), Arc::clone(&self.egress));
        tokio::spawn(async move { proxy.serve(far, port, egress).await });
        near
    }

    /// The proxy behind a port of this machine, for programs.
    pub async fn listen(&self, port: ProxyPort) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (proxy, egress) = (self.proxy.clone(), Arc::clone(&self.egress));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (proxy, egress) = (proxy.clone(), Arc::clone(&egress));
                tokio::spawn(async move { proxy.serve(stream, port, egress).await });
            }
        });
        address
    }

    /// Sends this to the HTTP port, and gives all that comes back.
    pub async fn say(&self, text: impl AsRef<[u8]>) -> String {
        let mut client = self.dial(ProxyPort::Http);
        client.write_all(text.as_ref()).await.unwrap();
        all(&mut client).await
    }

    /// A tunnel by CONNECT; the answer when there is none.
    pub async fn connect(&self, target: &str) -> Result<DuplexStream, String> {
        let mut client = self.dial(ProxyPort::Http);
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let answer = head_of(&mut client).await;
        match answer.starts_with("HTTP/1.1 200 ") {
            true => Ok(client),
            false => Err(answer + &all(&mut client).await),
        }
    }
}

/// Everything until the end, which has to come soon.
pub async fn all<S: AsyncReadExt + Unpin>(stream: &mut S) -> String {
    let mut bytes = Vec::new();
    let read = timeout(SOON, stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("the connection ends");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An answer's head.
pub async fn head_of<S: AsyncReadExt + Unpin>(stream: &mut S) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        while !bytes.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => bytes.push(byte),
                Err(_) => break,
            }
        }
    };
    timeout(SOON, reading).await.expect("an answer comes");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a refusal of HTTP says: its status and its code; that it says how to ask.
pub fn refusal(answer: &str) -> (u16, String) {
    let status = answer.get(9..12).and_then(|text| text.parse().ok());
    let code = answer
        .lines()
        .find_map(|line| line.strip_prefix("x-egress-denied: "))
        .unwrap_or_else(|| panic!("no refusal: {answer:?}"));
    assert!(
        answer.contains(&format!("egress denied ({code}): ")),
        "{answer}"
    );
    assert!(!answer.contains("127.0.0.1"), "{answer}");
    (status.unwrap(), code.to_owned())
}

/// A server of one kind, and what it received.
pub struct Server {
    pub port: u16,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Server {
    /// Says this at once, and then returns whatever comes.
    pub async fn echo(greeting: &'static [u8]) -> Self {
        Self::start(move |mut stream, _| async move {
            stream.write_all(greeting).await.unwrap();
            let (mut reader, mut writer) = stream.split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
            let _ = writer.shutdown().await;
        })
        .await
    }

    /// Answers each connection with these bytes once a head, or all that was said of a body, has come; then closes.
    pub async fn http(answer: &'static str) -> Self {
        Self::start(move |mut stream, received| async move {
            let mut bytes = Vec::new();
            let mut piece = [0; 4096];
            while !is_whole(&bytes) {
                match stream.read(&mut piece).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => bytes.extend_from_slice(&piece[..count]),
                }
            }
            if !bytes.is_empty() {
                received.lock().unwrap().push(bytes);
            }
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await
    }

    pub async fn start<F, R>(handler: F) -> Self
    where
        F: Fn(TcpStream, Arc<Mutex<Vec<Vec<u8>>>>) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(handler(stream, Arc::clone(&kept)));
            }
        });
        Server { port, received }
    }

    pub fn received(&self) -> Vec<String> {
        let received = self.received.lock().unwrap();
        received
            .iter()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .collect()
    }
}

fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|digits| digits.parse().ok());
    let chunked = head.contains("transfer-encoding: chunked");
    match length {
        Some(length) => body.len() >= length,
        None => !chunked || body.ends_with("0\r\n\r\n"),
    }
}

//! The proxy of sandboxes beside a direct connection, and beside tinyproxy where it is installed: what it adds to the first
//! byte, what a single stream gets through, and what many tunnels hold.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use egress::{
    destination::{HostName, Reach, ReachLimits, Resolve, RuleSet},
    proxy::{
        Decision, Proxy, ProxyLimits, ProxyPort, Recorder, Recording, SessionEgress, Ticket,
        TunnelEnd,
    },
};
use model::{EgressRule, NamedRule, NetworkPolicy, SessionId};

use crate::{
    host,
    report::{Bound, Report, Row, Samples},
};

/// Connections of each contender, in turn.
const CONNECTIONS: usize = 300;
/// Bytes of one stream, and streams of each contender.
const STREAM_BYTES: u64 = 2 << 30;
const STREAMS: usize = 3;
/// Tunnels at a time.
const TUNNELS: usize = 500;
/// The server's and the client's own buffers.
const PIECE_BYTES: usize = 256 * 1024;

pub fn measure(report: &mut Report) {
    let server = serve();
    let (runtime, proxy) = listen(server);
    let tiny = Tinyproxy::start();
    let ways = [
        Some(Way::Direct),
        Some(Way::Proxy(proxy)),
        tiny.as_ref().map(|tiny| Way::Proxy(tiny.address)),
    ];
    let mut first = [Samples::default(), Samples::default(), Samples::default()];
    for _ in 0..CONNECTIONS {
        for (way, samples) in ways.iter().zip(&mut first) {
            way.iter()
                .for_each(|way| samples.push(first_byte_ms(*way, server)));
        }
    }
    let mut through = [Samples::default(), Samples::default(), Samples::default()];
    for _ in 0..STREAMS {
        for (way, samples) in ways.iter().zip(&mut through) {
            way.iter()
                .for_each(|way| samples.push(gigabytes_per_second(*way, server)));
        }
    }
    let [direct, ours, theirs] = &first;
    let added = |samples: &Samples| Samples::from(samples.median() - direct.median());
    let row = Row::new("egress proxy, added to the first byte", "ms", added(ours));
    report.add(with_peer(
        row.promise(Bound::AtMost(0.3)),
        &tiny,
        added(theirs),
    ));
    let [direct, ours, theirs] = &through;
    let row = Row::new("egress proxy, one stream", "GB/s", ours.clone());
    report.add(row.promise(Bound::AtLeast(1.0)).peer("direct", direct));
    if tiny.is_some() {
        let row = Row::new("egress proxy, one stream", "GB/s", ours.clone());
        report.add(row.peer("tinyproxy", theirs));
    } else {
        report.note(
            "tinyproxy is not installed: no peer for the egress proxy but a direct connection"
                .to_owned(),
        );
    }
    for (figure, held) in [
        ("500 idle tunnels", hold(proxy, server, b'e')),
        (
            "500 tunnels that nobody reads from",
            hold(proxy, server, b'd'),
        ),
    ] {
        let row = Row::new(
            format!("egress proxy, memory of {figure}"),
            "MiB",
            held.into(),
        );
        report.add(row.promise(Bound::AtMost(64.0)));
    }
    drop(runtime);
}

fn with_peer(row: Row, tiny: &Option<Tinyproxy>, theirs: Samples) -> Row {
    match tiny {
        Some(_) => row.peer("tinyproxy", &theirs),
        None => row,
    }
}

/// How the server is reached.
#[derive(Clone, Copy)]
enum Way {
    Direct,
    Proxy(SocketAddr),
}

impl Way {
    fn connect(self, server: SocketAddr) -> io::Result<TcpStream> {
        let Way::Proxy(proxy) = self else {
            return TcpStream::connect(server);
        };
        let mut stream = TcpStream::connect(proxy)?;
        stream.set_nodelay(true)?;
        let target = format!("localhost:{}", server.port());
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            answer.push(byte[0]);
        }
        assert!(
            answer.starts_with(b"HTTP/1.") && answer[9..].starts_with(b"200"),
            "{answer:?}"
        );
        Ok(stream)
    }
}

/// From nothing to the first byte of the server.
fn first_byte_ms(way: Way, server: SocketAddr) -> f64 {
    let started = Instant::now();
    let mut stream = way.connect(server).expect("a connection");
    stream.write_all(b"e").expect("written");
    stream.read_exact(&mut [0]).expect("an echo");
    started.elapsed().as_secs_f64() * 1e3
}

fn gigabytes_per_second(way: Way, server: SocketAddr) -> f64 {
    let mut stream = way.connect(server).expect("a connection");
    let mut piece = vec![0; PIECE_BYTES];
    let started = Instant::now();
    stream.write_all(b"d").expect("written");
    let mut left = STREAM_BYTES;
    while left > 0 {
        let count = stream.read(&mut piece).expect("bytes");
        assert!(count > 0, "the stream broke off");
        left = left.saturating_sub(count as u64);
    }
    STREAM_BYTES as f64 / started.elapsed().as_secs_f64() / 1e9
}

/// By how much the process grows with so many tunnels, MiB; what the tunnels' ends in this process hold is counted with them.
fn hold(proxy: SocketAddr, server: SocketAddr, word: u8) -> f64 {
    let own = i32::try_from(std::process::id()).expect("a pid");
    let before = host::resident_kib(own);
    let tunnels: Vec<TcpStream> = (0..TUNNELS)
        .map(|_| {
            let mut stream = Way::Proxy(proxy).connect(server).expect("a tunnel");
            stream.write_all(&[word]).expect("written");
            stream
        })
        .collect();
    thread::sleep(Duration::from_secs(2));
    let after = host::resident_kib(own);
    drop(tunnels);
    thread::sleep(Duration::from_millis(500));
    after.saturating_sub(before) as f64 / 1024.0
}

/// Answers `e` with one byte and `d` with a stream, until nobody reads it.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("its address");
    let answer = |mut stream: TcpStream| -> io::Result<()> {
        let mut word = [0];
        stream.read_exact(&mut word)?;
        if word == *b"e" {
            stream.write_all(b"e")?;
            // Until the client hangs up.
            return stream.read(&mut word).map(drop);
        }
        static PIECE: [u8; PIECE_BYTES] = [7; PIECE_BYTES];
        loop {
            stream.write_all(&PIECE)?;
        }
    };
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::Builder::new()
                .stack_size(64 * 1024)
                .spawn(move || answer(stream))
                .expect("a thread");
        }
    });
    address
}

/// The proxy as a server runs it, but for the way through the supervisor and the record.
fn listen(server: SocketAddr) -> (tokio::runtime::Runtime, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let limits = ProxyLimits {
        max_connections: TUNNELS + 10,
        max_tunnels: TUNNELS + 10,
        ..ProxyLimits::default()
    };
    let rule = EgressRule {
        private: true,
        ..format!("localhost:{}", server.port())
            .parse()
            .expect("a rule")
    };
    let rules = RuleSet::new(NetworkPolicy {
        rules: vec![NamedRule {
            name: "allow/1".to_owned(),
            rule,
        }],
        ..NetworkPolicy::default()
    });
    let reach = Reach::new(Arc::new(Loopback), ReachLimits::default());
    let session = SessionId::from_bytes([7; 16]);
    let session = SessionEgress::new(session, rules, reach, None, Arc::new(Forgetful), &limits);
    let proxy = Proxy::new(limits);
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .expect("a listener");
    let address = listener.local_addr().expect("its address");
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (proxy, session) = (proxy.clone(), Arc::clone(&session));
            stream.set_nodelay(true).expect("an option");
            tokio::spawn(async move { proxy.serve(stream, ProxyPort::Http, session).await });
        }
    });
    (runtime, address)
}

struct Loopback;

#[async_trait]
impl Resolve for Loopback {
    async fn resolve(&self, _host: &HostName) -> io::Result<Vec<IpAddr>> {
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    }
}

/// What recording costs is measured with the audit log.
struct Forgetful;

impl Recorder for Forgetful {
    fn decided<'a>(&'a self, _session: SessionId, _decision: &'a Decision) -> Recording<'a> {
        Box::pin(async { Ok(Ticket(0)) })
    }

    fn ended(&self, _session: SessionId, _ticket: Ticket, _end: &TunnelEnd) {}
}

/// The peer from the distribution.
struct Tinyproxy {
    process: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Tinyproxy {
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().ok()?;
        let free = TcpListener::bind("127.0.0.1:0").ok()?;
        let address = free.local_addr().ok()?;
        drop(free);
        let configuration = directory.path().join("tinyproxy.conf");
        let text = format!(
            "Port {}\nListen 127.0.0.1\nTimeout 60\nMaxClients 600\nLogLevel Critical\n",
            address.port()
        );
        std::fs::write(&configuration, text).ok()?;
        let process = Command::new("tinyproxy")
            .arg("-d")
            .arg("-c")
            .arg(configuration)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let tiny = Tinyproxy {
            process,
            address,
            _directory: directory,
        };
        let answers = (0..50).any(|_| {
            thread::sleep(Duration::from_millis(20));
            TcpStream::connect(address).is_ok()
        });
        answers.then_some(tiny)
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

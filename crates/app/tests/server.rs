//! The server and its fronts over the real socket, with a scripted house behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test helper that fails must fail its test, and a script answers only what its test asks"
)]

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use app::{
    front::{FrontError, Started, connect, connect_existing},
    server::{
        handshake::{MAX_LINE_BYTES, Mode, Reply, Verdict},
        read_address,
    },
    stream::{ClientFrame, ServerFrame, StreamRequest, TerminalSize},
};
use support::{Fixture, InProcess};

fn raw(fixture: &Fixture) -> UnixStream {
    let stream = UnixStream::connect(read_address(&fixture.paths).unwrap().socket).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

fn reply(stream: &UnixStream) -> Reply {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

#[test]
fn twenty_racing_fronts_start_exactly_one_server() {
    let fixture = Fixture::new();
    let starter = InProcess::new(&fixture);
    let connections: Vec<_> = std::thread::scope(|scope| {
        let fronts: Vec<_> = (0..20)
            .map(|_| {
                scope.spawn(|| {
                    connect(&fixture.paths, &fixture.greeting(Mode::Mcp), &starter).unwrap()
                })
            })
            .collect();
        fronts
            .into_iter()
            .map(|front| front.join().unwrap())
            .collect()
    });
    assert_eq!(fixture.starts.load(Ordering::SeqCst), 1);
    assert_eq!(connections.len(), 20);
    assert_eq!(
        connections
            .iter()
            .filter(|connected| connected.started)
            .count(),
        1
    );
    let status = connect_existing(&fixture.paths, &fixture.greeting(Mode::Status))
        .unwrap()
        .unwrap()
        .reply;
    assert_eq!(
        (status.clients, status.server_pid),
        (20, std::process::id())
    );
}

#[test]
fn what_a_killed_server_left_does_not_stop_the_next_one() {
    let fixture = Fixture::new();
    let socket = fixture.paths.state_dir.join("server.sock");
    drop(fixture.serve().unwrap());
    // As after SIGKILL: a socket that nobody listens on, and an address in an unlocked file.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let address = format!(
        r#"{{"pid":1,"socket":{:?},"version":"0.1.0"}}"#,
        socket.display().to_string()
    );
    std::fs::write(fixture.paths.lock_file(), address).unwrap();
    let starter = InProcess::new(&fixture);
    let connected = connect(&fixture.paths, &fixture.greeting(Mode::Mcp), &starter).unwrap();
    assert!(connected.started);
    assert_eq!(connected.reply.verdict, Verdict::Welcome);
}

#[test]
fn a_server_that_cannot_start_is_reported_by_every_front() {
    struct Broken;
    impl app::front::Starter for Broken {
        fn start(&self, _: Instant) -> Result<Started, app::front::StartError> {
            Err(app::front::StartError::Failed(
                "the audit log cannot be written".to_owned(),
            ))
        }
    }
    let fixture = Fixture::new();
    let begin = Instant::now();
    let error = connect(&fixture.paths, &fixture.greeting(Mode::Mcp), &Broken).unwrap_err();
    assert!(matches!(error, FrontError::Start(_)));
    assert!(begin.elapsed() < Duration::from_secs(2));
}

#[test]
fn first_lines_that_are_none_are_refused_and_the_server_goes_on() {
    let fixture = Fixture::new();
    let _running = fixture.serve().unwrap();
    let oversized = vec![b'x'; usize::try_from(MAX_LINE_BYTES).unwrap() + 1];
    for (line, expected) in [
        (
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            "the client's first line is not understood",
        ),
        (
            b"{}\n".to_vec(),
            "the client's first line is not understood",
        ),
        (oversized, "the client's first line is too long"),
    ] {
        let mut stream = raw(&fixture);
        stream.write_all(&line).unwrap();
        let reply = reply(&stream);
        assert_eq!(
            (reply.verdict, reply.message.as_deref()),
            (Verdict::Refused, Some(expected))
        );
    }
    let mut other = fixture.greeting(Mode::Mcp);
    other.protocol = 99;
    let refused = connect(&fixture.paths, &other, &InProcess::new(&fixture)).unwrap_err();
    assert!(matches!(refused, FrontError::Refused(message) if message.contains("handshake")));
    let status = connect_existing(&fixture.paths, &fixture.greeting(Mode::Status))
        .unwrap()
        .unwrap()
        .reply;
    assert_eq!(status.clients, 0);
}

#[test]
fn a_silent_client_is_sent_away_after_five_seconds() {
    let fixture = Fixture::new();
    let _running = fixture.serve().unwrap();
    let begin = Instant::now();
    let mut stream = raw(&fixture);
    stream.write_all(b"{\"protocol\":").unwrap();
    assert_eq!(
        reply(&stream).message.as_deref(),
        Some("the client did not introduce itself in time")
    );
    assert!((4..8).contains(&begin.elapsed().as_secs()));
}

#[test]
fn more_connections_than_the_bound_are_refused_at_once() {
    let fixture = Fixture::new();
    let _running = fixture.serve().unwrap();
    let held: Vec<_> = (0..256).map(|_| raw(&fixture)).collect();
    let refused = reply(&raw(&fixture));
    assert_eq!(
        refused.message.as_deref(),
        Some("the server has 256 connections already")
    );
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(5);
    while connect_existing(&fixture.paths, &fixture.greeting(Mode::Status)).is_err() {
        assert!(Instant::now() < deadline, "no place became free");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_idle_server_ends_but_neither_under_a_client_nor_under_a_session() {
    let mut fixture = Fixture::new();
    fixture.idle_exit = Some(Duration::from_millis(200));
    let pause = || std::thread::sleep(Duration::from_millis(600));
    let starter = InProcess::new(&fixture);
    let connected = connect(&fixture.paths, &fixture.greeting(Mode::Mcp), &starter).unwrap();
    let running = starter.running.lock().unwrap().pop().unwrap();
    pause();
    assert!(!running.has_ended(), "a client is connected");
    fixture.house.sessions.store(1, Ordering::SeqCst);
    drop(connected);
    pause();
    assert!(!running.has_ended(), "a session is alive");
    fixture.house.sessions.store(0, Ordering::SeqCst);
    assert!(running.wait() < Duration::from_secs(2));
    assert!(!fixture.paths.state_dir.join("server.sock").exists());
    assert_eq!(fixture.house.shutdowns.load(Ordering::SeqCst), 1);
    assert!(
        connect_existing(&fixture.paths, &fixture.greeting(Mode::Status))
            .unwrap()
            .is_none()
    );
    assert!(
        connect(&fixture.paths, &fixture.greeting(Mode::Mcp), &starter)
            .unwrap()
            .started
    );
}

#[test]
fn an_older_idle_server_is_replaced_and_a_busy_one_is_kept_with_a_word() {
    let mut old = Fixture::new();
    old.version = "0.9.0".to_owned();
    let running = old.serve().unwrap();
    let mut newer = Fixture::new();
    newer.paths = old.paths.clone();
    old.house.sessions.store(2, Ordering::SeqCst);
    let starter = InProcess::new(&newer);
    let kept = connect(&newer.paths, &newer.greeting(Mode::Mcp), &starter).unwrap();
    assert_eq!(kept.reply.version, "0.9.0");
    assert!(
        kept.reply
            .message
            .unwrap()
            .contains("older version 0.9.0 and is kept")
    );
    drop(kept.stream);
    old.house.sessions.store(0, Ordering::SeqCst);
    while connect_existing(&old.paths, &old.greeting(Mode::Status))
        .unwrap()
        .unwrap()
        .reply
        .clients
        > 0
    {
        std::thread::sleep(Duration::from_millis(10));
    }
    let replaced = connect(&newer.paths, &newer.greeting(Mode::Mcp), &starter).unwrap();
    assert_eq!(replaced.reply.version, "1.0.0");
    assert_eq!(newer.starts.load(Ordering::SeqCst), 1);
    assert!(running.wait() < Duration::from_secs(1));
}

#[test]
fn a_server_that_is_told_to_stop_is_gone_within_five_seconds_even_if_its_house_hangs() {
    let fixture = Fixture::new();
    let running = fixture.serve().unwrap();
    fixture
        .house
        .hangs_at_shutdown
        .store(true, Ordering::SeqCst);
    let client = connect(
        &fixture.paths,
        &fixture.greeting(Mode::Mcp),
        &InProcess::new(&fixture),
    )
    .unwrap();
    let leaving = connect_existing(&fixture.paths, &fixture.greeting(Mode::Stop))
        .unwrap()
        .unwrap();
    assert_eq!(leaving.reply.verdict, Verdict::Leaving);
    assert!(running.wait() < Duration::from_secs(5));
    assert_eq!(fixture.house.shutdowns.load(Ordering::SeqCst), 1);
    let mut rest = Vec::new();
    (&client.stream).read_to_end(&mut rest).unwrap();
    drop(fixture.serve().unwrap());
}

#[test]
fn mcp_is_spoken_after_the_handshake() {
    let fixture = Fixture::new();
    let _running = fixture.serve().unwrap();
    let mut stream = connect(
        &fixture.paths,
        &fixture.greeting(Mode::Mcp),
        &InProcess::new(&fixture),
    )
    .unwrap()
    .stream;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let initialize = concat!(
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","#,
        r#""capabilities":{},"clientInfo":{"name":"test","version":"1"}}}"#,
        "\n"
    );
    stream.write_all(initialize.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    let answer: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(answer["id"], 1);
    assert!(answer["result"]["serverInfo"]["name"].is_string(), "{line}");
}

// === the stream door ===

fn request(stdin: bool, terminal: Option<TerminalSize>) -> StreamRequest {
    StreamRequest {
        session_id: format!("s-{}", "02".repeat(16)),
        argv: vec!["cat".to_owned()],
        cwd: None,
        env: Default::default(),
        timeout_seconds: None,
        terminal,
        stdin,
    }
}

async fn open(fixture: &Fixture, request: &StreamRequest) -> tokio::net::UnixStream {
    let connected = connect(
        &fixture.paths,
        &fixture.greeting(Mode::Stream),
        &InProcess::new(fixture),
    )
    .unwrap();
    connected.stream.set_nonblocking(true).unwrap();
    let mut stream = tokio::net::UnixStream::from_std(connected.stream).unwrap();
    let mut line = serde_json::to_vec(request).unwrap();
    line.push(b'\n');
    tokio::io::AsyncWriteExt::write_all(&mut stream, &line)
        .await
        .unwrap();
    stream
}

async fn frame(stream: &mut tokio::net::UnixStream) -> ServerFrame {
    let read = tokio::time::timeout(Duration::from_secs(10), ServerFrame::read(stream));
    read.await
        .expect("a frame in time")
        .unwrap()
        .expect("a frame, not the end")
}

#[tokio::test]
async fn a_stream_carries_exact_bytes_both_ways_and_the_exit_code() {
    let fixture = Fixture::new();
    let _running = fixture.serve().unwrap();
    fixture.house.road.fill(3);
    let mut stream = open(&fixture, &request(true, None)).await;
    assert!(matches!(frame(&mut stream).await, ServerFrame::Started(id) if id.starts_with("x-")));
    let pieces: Vec<Vec<u8>> = (0..8_u8)
        .map(|piece| (0..60_000).map(|at| (at % 251) as u8 ^ piece).collect())
        .collect();
    let (mut output, mut accepted, mut sent) = (Vec::new(), 0, 0);
    ClientFrame::Input(pieces[0].clone())
        .write(&mut stream)
        .await
        .unwrap();
    let ending = loop {
        match frame(&mut stream).await {
            ServerFrame::Stdout(bytes) => output.extend(bytes),
            ServerFrame::Accepted => {
                accepted += 1;
                sent += 1;
                match pieces.get(sent) {
                    Some(piece) => ClientFrame::Input(piece.clone())
                        .write(&mut stream)
                        .await
                        .unwrap(),
                    None if sent == pieces.len() => {
                        ClientFrame::InputEnd.write(&mut stream).await.unwrap()
                    }
                    None => {}
                }
            }
            ServerFrame::Ended(ending) => break ending,
            other => panic!("unexpected {other:?}"),
        }
    };
    assert!(output == pieces.concat(), "bytes were changed or lost");
    assert!(accepted >= pieces.len());
    assert_eq!(
        (ending.state.as_str(), ending.exit_code),
        ("exited", Some(7))
    );
    assert_eq!(ServerFrame::read(&mut stream).await.unwrap(), None);
}

#[tokio::test]
async fn a_refused_stream_says_code_and_hint() {
    let fixture = Fixture::new();
    let _running = fixture.serve().unwrap();
    let mut wrong = request(false, None);
    wrong.session_id = "nonsense".to_owned();
    let mut stream = open(&fixture, &wrong).await;
    let ServerFrame::Refused(error) = frame(&mut stream).await else {
        panic!("not refused")
    };
    assert_eq!(
        (error.code.as_str(), error.field.as_deref()),
        ("invalid_argument", Some("sessionId"))
    );
    assert!(fixture.house.road.names().is_empty());
}

#[tokio::test]
async fn cancel_and_resize_reach_the_execution_while_its_input_is_full() {
    let fixture = Fixture::new();
    let _running = fixture.serve().unwrap();
    fixture.house.road.fill(usize::from(u16::MAX));
    let mut stream = open(&fixture, &request(true, None)).await;
    assert!(matches!(frame(&mut stream).await, ServerFrame::Started(_)));
    ClientFrame::Input(vec![1; 100])
        .write(&mut stream)
        .await
        .unwrap();
    ClientFrame::Resize(TerminalSize {
        rows: 1,
        columns: 2,
    })
    .write(&mut stream)
    .await
    .unwrap();
    ClientFrame::Cancel.write(&mut stream).await.unwrap();
    let ServerFrame::Ended(ending) = frame(&mut stream).await else {
        panic!("not ended")
    };
    assert_eq!((ending.state.as_str(), ending.signal), ("killed", Some(15)));
    assert!(fixture.house.road.names().contains(&"execution.resize"));
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_terminals_execution_and_no_other() {
    for (terminal, is_cancelled) in [
        (
            Some(TerminalSize {
                rows: 24,
                columns: 80,
            }),
            true,
        ),
        (None, false),
    ] {
        let fixture = Fixture::new();
        let running = fixture.serve().unwrap();
        let mut stream = open(&fixture, &request(true, terminal)).await;
        assert!(matches!(frame(&mut stream).await, ServerFrame::Started(_)));
        drop(stream);
        let deadline = Instant::now() + Duration::from_secs(5);
        while connect_existing(&fixture.paths, &fixture.greeting(Mode::Status))
            .unwrap()
            .unwrap()
            .reply
            .clients
            > 0
        {
            assert!(Instant::now() < deadline, "the connection is still counted");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(running);
        assert_eq!(
            fixture.house.road.names().contains(&"execution.cancel"),
            is_cancelled
        );
    }
}

/// Whose the live sessions are is told to who asks how the server stands, and apart from their own.
#[test]
fn a_server_says_whose_its_sessions_are() {
    let fixture = Fixture::new();
    let _running = fixture.serve().unwrap();
    let own = format!("uid:{}", rustix::process::geteuid().as_raw());
    let owners = [
        (own, 2),
        ("key:abcdefghij23".to_owned(), 1),
        ("oauth:ab".to_owned(), 3),
    ];
    *fixture.house.owners.lock().unwrap() = owners.into_iter().collect();
    let asked = |mode| {
        let connected = connect_existing(&fixture.paths, &fixture.greeting(mode));
        connected.unwrap().unwrap().reply
    };
    let status = asked(Mode::Status);
    assert_eq!(status.own_sessions, Some(2));
    let others: Vec<_> = status
        .others
        .iter()
        .map(|other| (other.owner.as_str(), other.sessions))
        .collect();
    assert_eq!(others, [("oauth:ab", 3), ("key:abcdefghij23", 1)]);
    let mcp = asked(Mode::Mcp);
    assert_eq!((mcp.own_sessions, mcp.others.len()), (None, 0));
}

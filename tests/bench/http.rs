//! The HTTP door: requests of one core, and what it costs to know who asks.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Stdio},
    time::Instant,
};

use crate::{
    report::{Bound, Report, Row, Samples},
    support::{Machine, program, users},
};

/// Rounds.
const ROUNDS: usize = 5;
/// Requests of a round.
const REQUESTS: usize = 5_000;
/// Requests that are written before the first answer is read, as of so many clients.
const AHEAD: usize = 16;

pub fn measure(report: &mut Report) {
    let mut machine = Machine::new(users()[0]);
    unlimited(&mut machine);
    let (mut server, address) = start(&machine);
    let key = key(&machine);
    let list = message(
        &address,
        &key,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#,
    );
    let wrong = message(&address, &key, "{");
    let health = format!("GET /health HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes();
    let mut stream = BufReader::new(TcpStream::connect(&address).expect("the door"));
    let (mut rate, mut known, mut unknown) =
        (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        let started = Instant::now();
        for _ in 0..REQUESTS / AHEAD {
            stream
                .get_mut()
                .write_all(&list.repeat(AHEAD))
                .expect("requests");
            (0..AHEAD).for_each(|_| answer(&mut stream, "200"));
        }
        rate.push(REQUESTS as f64 / started.elapsed().as_secs_f64());
        unknown.push(each(&mut stream, &health, "200"));
        known.push(each(&mut stream, &wrong, "400"));
    }
    let _ended = server.kill();
    let _reaped = server.wait();
    let added: f64 = known.median() - unknown.median();
    report.add(
        Row::new("HTTP tools/list on one core", "requests/s", rate)
            .promise(Bound::AtLeast(5_000.0)),
    );
    // With everything else that a request has and a question after the server's health has not: an upper bound.
    report.add(Row::new("HTTP: a key is known", "ms", added.into()).promise(Bound::AtMost(0.1)));
}

/// The caller of a measurement is quicker than its rate allows.
fn unlimited(machine: &mut Machine) {
    let file = machine.base().join("config.toml");
    std::fs::write(&file, "rate_calls_per_minute = 0\n").expect("a configuration");
    machine.set("CLAUDE_CODE_MCP_CONFIG", &file.display().to_string());
}

/// Milliseconds of one request and its answer.
fn each(stream: &mut BufReader<TcpStream>, request: &[u8], status: &str) -> f64 {
    let started = Instant::now();
    for _ in 0..1_000 {
        stream.get_mut().write_all(request).expect("a request");
        answer(stream, status);
    }
    started.elapsed().as_secs_f64()
}

/// A server on the first processor alone; this program keeps to whatever is left.
fn start(machine: &Machine) -> (Child, String) {
    let mut child = machine
        .command("/usr/bin/taskset".as_ref())
        .args(["-c", "0"])
        .arg(program())
        .args(["serve", "--http", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let lines = BufReader::new(child.stderr.take().expect("its log")).lines();
    let mut lines = lines.map_while(Result::ok);
    let address = lines
        .find_map(|line| Some(line.split_once("http://")?.1.split_once('/')?.0.to_owned()))
        .expect("it says where it listens");
    std::thread::spawn(move || lines.for_each(drop));
    (child, address)
}

fn key(machine: &Machine) -> String {
    let made = machine.cli(&[
        "keys",
        "create",
        "--name",
        "bench",
        "--scope",
        "sessions:read",
    ]);
    assert!(made.status.success(), "{made:?}");
    String::from_utf8_lossy(&made.stdout).trim().to_owned()
}

fn message(address: &str, key: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Reads one answer of that status to its end.
fn answer(stream: &mut BufReader<TcpStream>, status: &str) {
    let mut line = String::new();
    stream.read_line(&mut line).expect("a status line");
    assert_eq!(line.split(' ').nth(1), Some(status), "{line}");
    let mut length = 0;
    loop {
        line.clear();
        stream.read_line(&mut line).expect("a line");
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
}

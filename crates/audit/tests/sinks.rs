//! A4: sinks get every record, in order, at least once, whatever becomes of them or of the server; and none of them ever
//! holds up a call.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::common::{config, event, open, operate, place, runtime};
use audit::{
    AuditConfig, AuditLog, Rotation,
    export::Format,
    sinks::{
        Facility, SinkKind, SinkSettings, Sinks, Source, SyslogAddress, WebhookSettings, health_of,
    },
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
/// A call is held up by nothing but the disk.
const NOT_HELD_UP: Duration = Duration::from_secs(2);

fn source(log: &Path) -> Source {
    Source {
        log: log.to_owned(),
        state_directory: log.parent().unwrap().to_owned(),
        host: "host.example".to_owned(),
    }
}

fn sink(kind: SinkKind) -> SinkSettings {
    SinkSettings {
        name: "one".to_owned(),
        kind,
        format: Format::Jsonl,
        max_lag: None,
    }
}

/// Operations, two records each; returns once they are durable.
fn write(log: &AuditLog, operations: usize) {
    runtime().block_on(async {
        for _ in 0..operations {
            operate(log, "session.create").await;
        }
        log.event(event("server.posture")).await.unwrap();
        log.flush().await;
    });
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn until_taken(sinks: &Sinks) {
    until("everything is taken", || {
        sinks.health().iter().all(|sink| sink.lag == 0)
    });
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn numbers(records: &[Value]) -> Vec<u64> {
    records
        .iter()
        .filter_map(|record| record["seq"].as_u64())
        .collect()
}

/// What is written while the sink is away comes after its return, and no record twice where nothing went wrong.
#[test]
fn a_second_file_is_the_log_again_also_after_restarts() {
    let (directory, path) = place();
    let second = directory.path().join("second.jsonl");
    let log = open(&path);
    let settings = [sink(SinkKind::File {
        path: second.clone(),
    })];
    for round in 1..=3 {
        write(&log, 20);
        let sinks = Sinks::start(&source(&path), &settings).unwrap();
        if round == 2 {
            write(&log, 600);
        }
        sinks.shutdown(PATIENCE);
        assert_eq!(
            fs::read(&second).unwrap(),
            fs::read(&path).unwrap(),
            "round {round}"
        );
    }
    let mode = fs::metadata(&second).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Moved away by its operator, it is made anew and goes on with the next record.
    let sinks = Sinks::start(&source(&path), &settings).unwrap();
    fs::rename(&second, directory.path().join("second.1")).unwrap();
    write(&log, 1);
    until_taken(&sinks);
    sinks.shutdown(PATIENCE);
    let both = [
        fs::read(directory.path().join("second.1")).unwrap(),
        fs::read(&second).unwrap(),
    ];
    assert_eq!(both.concat(), fs::read(&path).unwrap());
}

/// A4: what a kill in the middle of a write left in the second file swallows no record after it.
#[test]
fn half_a_line_in_a_second_file_is_ended_before_the_next_record() {
    for (left, then) in [("", ""), ("{\"v\":2,\"seq\":1", "{\"v\":2,\"seq\":1\n")] {
        let (directory, path) = place();
        let second = directory.path().join("second.jsonl");
        let log = open(&path);
        let settings = [sink(SinkKind::File {
            path: second.clone(),
        })];
        write(&log, 3);
        Sinks::start(&source(&path), &settings)
            .unwrap()
            .shutdown(PATIENCE);
        let before = fs::read_to_string(&path).unwrap();
        let mut file = fs::OpenOptions::new().append(true).open(&second).unwrap();
        file.write_all(left.as_bytes()).unwrap();
        write(&log, 3);
        Sinks::start(&source(&path), &settings)
            .unwrap()
            .shutdown(PATIENCE);
        let log = fs::read_to_string(&path).unwrap();
        let after = log.strip_prefix(&before).unwrap();
        assert_eq!(after.lines().count(), 7, "the control: there is more");
        assert_eq!(
            fs::read_to_string(&second).unwrap(),
            format!("{before}{then}{after}")
        );
    }
}

/// A service of the test: `answer` says for each request what it is answered with; `None` hangs up.
struct Service {
    url: String,
    taken: Arc<Mutex<Vec<Request>>>,
}

#[derive(Debug, Clone)]
struct Request {
    head: String,
    body: String,
    status: u16,
}

impl Service {
    fn start(answer: impl Fn(usize) -> Option<u16> + Send + Sync + 'static) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/in", listener.local_addr().unwrap());
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer, count) = (
            taken.clone(),
            Arc::new(answer),
            Arc::new(AtomicUsize::new(0)),
        );
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, answer, count) = (seen.clone(), answer.clone(), count.clone());
                std::thread::spawn(move || {
                    serve(stream, |head, body| {
                        let status = answer(count.fetch_add(1, Ordering::SeqCst))?;
                        seen.lock().unwrap().push(Request { head, body, status });
                        Some(status)
                    })
                });
            }
        });
        Service { url, taken }
    }

    /// What it answered well, as one text.
    fn text(&self) -> String {
        let taken = self.taken.lock().unwrap();
        let well = taken.iter().filter(|request| request.status == 200);
        well.map(|request| request.body.as_str()).collect()
    }
}

fn serve(stream: TcpStream, mut answer: impl FnMut(String, String) -> Option<u16>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.parse::<usize>().unwrap())
        });
        let mut body = vec![0; length.unwrap()];
        reader.read_exact(&mut body).unwrap();
        let Some(status) = answer(head, String::from_utf8(body).unwrap()) else {
            return;
        };
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
        if (&stream).write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn webhook(url: &str, secret: Option<PathBuf>) -> SinkSettings {
    sink(SinkKind::Webhook(
        WebhookSettings::new(url, secret, None).unwrap(),
    ))
}

#[test]
fn a_webhook_that_fails_gets_everything_in_order_and_signed() {
    let (directory, path) = place();
    let secret = directory.path().join("secret");
    fs::write(&secret, "0123456789abcdef0123\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let log = open(&path);
    write(&log, 300);
    // Fails, hangs up, answers, fails again in the middle, redirects.
    let service = Service::start(|count| match count {
        0 | 4 => Some(503),
        1 => None,
        3 => Some(302),
        _ => Some(200),
    });
    let sinks = Sinks::start(&source(&path), &[webhook(&service.url, Some(secret))]).unwrap();
    until("the failure is known", || {
        sinks.health()[0].last_error.is_some() || sinks.health()[0].lag == 0
    });
    write(&log, 300);
    until_taken(&sinks);
    assert_eq!(sinks.health()[0].last_error, None);
    sinks.shutdown(PATIENCE);
    assert_eq!(
        service.text(),
        fs::read_to_string(&path).unwrap(),
        "each once: what was refused was not taken"
    );
    for request in service.taken.lock().unwrap().iter() {
        let header = |name: &str| {
            let mut lines = request.head.lines();
            let found = lines.find_map(|line| {
                line.split_once(": ")
                    .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            });
            found.unwrap().1.to_owned()
        };
        assert_eq!(header("content-type"), "application/x-ndjson");
        let signed = format!("{}.{}", header("x-claude-code-mcp-timestamp"), request.body);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"0123456789abcdef0123");
        let expected = format!(
            "sha256={}",
            hex::encode(ring::hmac::sign(&key, signed.as_bytes()))
        );
        assert_eq!(header("x-claude-code-mcp-signature"), expected);
    }
}

/// A service that is down while the server ends gets what it missed from the next one.
#[test]
fn what_a_dead_service_missed_comes_after_the_next_start() {
    let (_directory, path) = place();
    let log = open(&path);
    write(&log, 10);
    let dead = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let sinks = Sinks::start(&source(&path), &[webhook(&format!("http://{dead}/"), None)]).unwrap();
    until("the failure is known", || {
        sinks.health()[0].last_error.is_some()
    });
    let started = Instant::now();
    sinks.shutdown(PATIENCE);
    assert!(
        started.elapsed() < NOT_HELD_UP,
        "a dead service does not hold up the end"
    );
    let health = health_of(&path, path.parent().unwrap(), &["one".to_owned()]);
    assert!(
        health[0].lag >= 21 && health[0].last_error.is_some(),
        "{health:?}"
    );
    write(&log, 10);
    let service = Service::start(|_| Some(200));
    let sinks = Sinks::start(&source(&path), &[webhook(&service.url, None)]).unwrap();
    until_taken(&sinks);
    sinks.shutdown(PATIENCE);
    assert_eq!(service.text(), fs::read_to_string(&path).unwrap());
    let health = health_of(&path, path.parent().unwrap(), &["one".to_owned()]);
    assert_eq!(
        (health[0].lag, &health[0].last_error, health[0].missed),
        (0, &None, 0)
    );
}

/// A service that takes connections and never answers, and a pipe nobody reads in the place of a file: calls go on, and so
/// does another sink.
#[test]
fn sinks_that_hang_hold_up_nothing() {
    let (directory, path) = place();
    let log = open(&path);
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let pipe = directory.path().join("pipe");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::Mode::from_raw_mode(0o600),
    )
    .unwrap();
    let second = directory.path().join("second.jsonl");
    let named = |name: &str, settings: SinkSettings| SinkSettings {
        name: name.to_owned(),
        ..settings
    };
    let settings = [
        named(
            "hanging",
            webhook(&format!("http://{}/", hanging.local_addr().unwrap()), None),
        ),
        named("pipe", sink(SinkKind::File { path: pipe })),
        named(
            "well",
            sink(SinkKind::File {
                path: second.clone(),
            }),
        ),
    ];
    let sinks = Sinks::start(&source(&path), &settings).unwrap();
    let _connected = hanging.accept().expect("it connects");
    let started = Instant::now();
    write(&log, 200);
    assert!(
        started.elapsed() < PATIENCE / 2,
        "calls went on while a sink hung"
    );
    until("the other sink has it", || sinks.health()[2].lag == 0);
    assert_eq!(fs::read(&second).unwrap(), fs::read(&path).unwrap());
    let health = sinks.health();
    assert!(health[0].lag > 400 && health[1].lag > 400, "{health:?}");
    assert!(
        health[1].last_error.is_some(),
        "a pipe is refused: {health:?}"
    );
    let started = Instant::now();
    sinks.shutdown(Duration::from_millis(300));
    assert!(
        started.elapsed() < NOT_HELD_UP,
        "the end waits no longer than it was told to"
    );
}

#[test]
fn what_waits_too_long_is_left_out_and_told() {
    let (_directory, path) = place();
    let log = open(&path);
    write(&log, 100);
    let end = lines(&fs::read_to_string(&path).unwrap()).len() as u64;
    for format in Format::ALL {
        let service = Service::start(|_| Some(200));
        let settings = SinkSettings {
            name: format.as_str().to_owned(),
            max_lag: Some(10),
            format,
            ..webhook(&service.url, None)
        };
        let sinks = Sinks::start(&source(&path), &[settings]).unwrap();
        until_taken(&sinks);
        assert_eq!(sinks.health()[0].missed, end - 10);
        sinks.shutdown(PATIENCE);
        let text = service.text();
        assert_eq!(text.lines().count(), 11);
        match format {
            Format::Jsonl => {
                let taken = lines(&text);
                assert_eq!(taken[0]["action"], "sink.gap");
                assert_eq!(taken[0]["parameters"]["records"], end - 10);
                assert_eq!(taken[0]["parameters"]["kind"], "max_lag");
                assert_eq!(numbers(&taken), (end - 9..=end).collect::<Vec<_>>());
            }
            Format::Ocsf => {
                let taken = lines(&text);
                assert_eq!(taken[0]["class_uid"], 1008);
                assert_eq!(taken[0]["unmapped"]["parameters"]["last_seq"], end - 10);
                assert_eq!(taken[1]["metadata"]["sequence"], end - 9);
            }
            Format::Cef => assert!(text.starts_with("CEF:0|") && text.contains("|sink.gap|")),
        }
    }
}

/// The log was deleted and begun anew: the sink gets all of the new one.
#[test]
fn another_log_is_noticed_and_read_from_its_beginning() {
    let (directory, path) = place();
    let second = directory.path().join("second.jsonl");
    let settings = [sink(SinkKind::File {
        path: second.clone(),
    })];
    let log = open(&path);
    write(&log, 5);
    let sinks = Sinks::start(&source(&path), &settings).unwrap();
    sinks.shutdown(PATIENCE);
    drop(log);
    let before = fs::read_to_string(&second).unwrap();
    for more in [1, 30] {
        let fresh = tempfile::tempdir().unwrap();
        let log = open(&fresh.path().join("audit.log"));
        write(&log, more);
        drop(log);
        let elsewhere = Source {
            log: fresh.path().join("audit.log"),
            ..source(&path)
        };
        let sinks = Sinks::start(&elsewhere, &settings).unwrap();
        sinks.shutdown(PATIENCE);
        let text = fs::read_to_string(&second).unwrap();
        let new = lines(&text[before.len()..]);
        let own = lines(&fs::read_to_string(fresh.path().join("audit.log")).unwrap());
        let notices = new
            .iter()
            .filter(|line| line["parameters"]["kind"] == "another_log")
            .count();
        assert!(notices >= 1, "{more}: {new:?}");
        assert_eq!(
            new[new.len() - own.len()..],
            own,
            "shorter or longer than the one before"
        );
    }
}

/// Files come and go while a sink is away or works; what was pruned before it came is told.
#[test]
fn a_rotated_log_is_followed_and_what_was_pruned_is_told() {
    let (directory, path) = place();
    let second = directory.path().join("second.jsonl");
    let settings = [sink(SinkKind::File {
        path: second.clone(),
    })];
    let rotation = Rotation {
        size_bytes: Some(64 << 10),
        ..Rotation::default()
    };
    let log = AuditLog::open(AuditConfig {
        rotation,
        ..config(&path)
    })
    .unwrap();
    let whole = |path: &Path| -> Vec<u8> {
        audit::log_files(path)
            .unwrap()
            .iter()
            .flat_map(|file| fs::read(file).unwrap())
            .collect()
    };
    write(&log, 300);
    let sinks = Sinks::start(&source(&path), &settings).unwrap();
    for _ in 0..4 {
        write(&log, 100);
    }
    until_taken(&sinks);
    sinks.shutdown(PATIENCE);
    assert!(audit::log_files(&path).unwrap().len() >= 4);
    assert!(
        fs::read(&second).unwrap() == whole(&path),
        "each record once"
    );
    let count = lines(std::str::from_utf8(&whole(&path)).unwrap()).len() as u64;
    write(&log, 300);
    drop(log);
    // The files that the sink had and two more are gone.
    let rotation = Rotation {
        keep_files: Some(1),
        ..rotation
    };
    let log = AuditLog::open(AuditConfig {
        rotation,
        ..config(&path)
    })
    .unwrap();
    write(&log, 1);
    until("files are pruned", || {
        audit::log_files(&path).unwrap().len() <= 2
    });
    let sinks = Sinks::start(&source(&path), &settings).unwrap();
    until_taken(&sinks);
    let missed = sinks.health()[0].missed;
    sinks.shutdown(PATIENCE);
    let taken = lines(&fs::read_to_string(&second).unwrap());
    let gaps: Vec<_> = taken
        .iter()
        .filter(|line| line["action"] == "sink.gap")
        .collect();
    assert_eq!(gaps.len(), 1);
    let first = gaps[0]["parameters"]["first_seq"].as_u64().unwrap();
    let last = gaps[0]["parameters"]["last_seq"].as_u64().unwrap();
    assert_eq!((first, last - first + 1), (count + 1, missed));
    let numbers = numbers(&taken);
    let end = *numbers.last().unwrap();
    assert_eq!(
        numbers,
        (1..=count).chain(last + 1..=end).collect::<Vec<_>>()
    );
}

#[test]
fn syslog_gets_messages_of_rfc_5424() {
    let (directory, path) = place();
    let socket = directory.path().join("log");
    let daemon = UnixDatagram::bind(&socket).unwrap();
    let log = open(&path);
    write(&log, 3);
    let kind = SinkKind::Syslog {
        address: SyslogAddress::Datagram(socket),
        facility: Facility::named("local3").unwrap(),
    };
    let sinks = Sinks::start(&source(&path), &[sink(kind)]).unwrap();
    daemon.set_read_timeout(Some(PATIENCE)).unwrap();
    let own = fs::read_to_string(&path).unwrap();
    for (at, line) in own.lines().enumerate() {
        let mut bytes = vec![0; 64 << 10];
        let length = daemon.recv(&mut bytes).unwrap();
        let message = std::str::from_utf8(&bytes[..length]).unwrap();
        let record: Value = serde_json::from_str(line).unwrap();
        let words: Vec<_> = message.splitn(6, ' ').collect();
        // local3 is 19, informational 6.
        assert_eq!(words[0], "<158>1");
        assert_eq!(words[1], record["timestamp"]);
        assert_eq!((words[2], words[3]), ("host.example", "claude-code-mcp"));
        assert_eq!(words[4], std::process::id().to_string());
        let rest = format!(
            "{} [meta sequenceId=\"{}\"] {line}",
            record["action"].as_str().unwrap(),
            at + 1
        );
        assert_eq!(words[5], rest);
    }
    until_taken(&sinks);
    sinks.shutdown(PATIENCE);
}

#[test]
fn syslog_over_tcp_counts_octets_and_is_taken_up_again() {
    let (_directory, path) = place();
    let log = open(&path);
    write(&log, 3);
    let daemon = TcpListener::bind("127.0.0.1:0").unwrap();
    let kind = SinkKind::Syslog {
        address: SyslogAddress::tcp(daemon.local_addr().unwrap()).unwrap(),
        facility: Facility::LOG_AUDIT,
    };
    let sinks = Sinks::start(&source(&path), &[sink(kind)]).unwrap();
    let read = |count: usize| -> Vec<u64> {
        let (stream, _) = daemon.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut reader = BufReader::new(stream);
        let one = |_| {
            let mut length = Vec::new();
            reader.read_until(b' ', &mut length).unwrap();
            let length: usize = std::str::from_utf8(&length)
                .unwrap()
                .trim()
                .parse()
                .unwrap();
            let mut message = vec![0; length];
            reader.read_exact(&mut message).unwrap();
            let message = String::from_utf8(message).unwrap();
            assert!(
                message.starts_with("<110>1 "),
                "log audit is 13, informational 6: {message}"
            );
            let json = &message[message.find('{').unwrap()..];
            serde_json::from_str::<Value>(json).unwrap()["seq"]
                .as_u64()
                .unwrap()
        };
        (0..count).map(one).collect()
    };
    let first = lines(&fs::read_to_string(&path).unwrap()).len() as u64;
    assert_eq!(read(first as usize), (1..=first).collect::<Vec<_>>());
    // The daemon went away; what comes then goes over a new connection.
    until("the first part is taken", || sinks.health()[0].lag == 0);
    write(&log, 1);
    assert_eq!(read(3), [first + 1, first + 2, first + 3]);
    sinks.shutdown(PATIENCE);
    assert!(SyslogAddress::tcp("192.0.2.1:601".parse().unwrap()).is_none());
}

#[test]
fn the_journal_gets_fields() {
    let (directory, path) = place();
    let socket = directory.path().join("journal");
    let journal = UnixDatagram::bind(&socket).unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    let log = open(&path);
    write(&log, 1);
    let sinks = Sinks::start(&source(&path), &[sink(SinkKind::Journald { socket })]).unwrap();
    for line in fs::read_to_string(&path).unwrap().lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let mut bytes = vec![0; 64 << 10];
        let length = journal.recv(&mut bytes).unwrap();
        let fields = std::str::from_utf8(&bytes[..length]).unwrap();
        let field = |name: &str| {
            let mut lines = fields.lines();
            lines
                .find_map(|line| line.strip_prefix(&format!("{name}=")))
                .map(str::to_owned)
        };
        assert!(fields.ends_with('\n') && fields.lines().all(|line| line.contains('=')));
        assert_eq!(field("MESSAGE").as_deref(), Some(line));
        assert_eq!(field("PRIORITY").as_deref(), Some("6"));
        assert_eq!(
            field("SYSLOG_IDENTIFIER").as_deref(),
            Some("claude-code-mcp-audit")
        );
        assert_eq!(field("AUDIT_SEQ"), Some(record["seq"].to_string()));
        assert_eq!(field("AUDIT_ACTION").as_deref(), record["action"].as_str());
        assert_eq!(
            field("AUDIT_SESSION").as_deref(),
            record["session_id"].as_str()
        );
    }
    until_taken(&sinks);
    sinks.shutdown(PATIENCE);
}

#[test]
fn a_secret_that_others_can_read_or_guess_keeps_the_server_from_starting() {
    let (directory, path) = place();
    let _log = open(&path);
    let secret = directory.path().join("secret");
    let start = || {
        Sinks::start(
            &source(&path),
            &[webhook("http://127.0.0.1:9/", Some(secret.clone()))],
        )
    };
    assert!(start().is_err(), "it is not there");
    for (mode, text, starts) in [
        (0o644, "0123456789abcdef", false),
        (0o600, "0123456789abcde\n", false),
        (0o600, "0123456789abcdef\n", true),
    ] {
        fs::write(&secret, text).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(start().is_ok(), starts, "{mode:o} {text:?}");
    }
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&secret, &link).unwrap();
    assert!(
        Sinks::start(
            &source(&path),
            &[webhook("http://127.0.0.1:9/", Some(link))]
        )
        .is_err()
    );
}

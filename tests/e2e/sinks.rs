//! A4: sinks of a real server: what the log has, they get, the last records of the server included; a webhook that hangs
//! holds up no call and no end; a webhook that cannot prove who it is gets nothing; `doctor` tells.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    time::Instant,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};

use crate::support::{
    Machine, PATIENCE,
    certificates::{Authority, For},
    until, users,
};

#[test]
fn sinks_get_what_the_log_has_and_a_hanging_one_holds_up_nothing() {
    let mut machine = Machine::new(users()[0]);
    let place = machine.base().join("second");
    fs::create_dir(&place).expect("a directory");
    machine.give(&place);
    let second = place.join("audit.jsonl");
    let hanging = TcpListener::bind("127.0.0.1:0").expect("a port");
    let sinks = format!(
        "{{ copy = {{ kind = \"file\", path = \"{}\" }}, siem = {{ kind = \"webhook\", url = \"http://{}/\" }}, own = {{ kind = \"stderr\" }} }}",
        second.display(),
        hanging.local_addr().expect("its address")
    );
    machine.set("CLAUDE_CODE_MCP_AUDIT_SINKS", &sinks);
    let mut client = machine.client();
    let session = client.create(&machine.project);
    let _connected = hanging.accept().expect("the webhook is asked");
    assert_eq!(client.output(&session, "echo still here"), "still here");
    client.destroy(&session);
    drop(client);
    let ending = Instant::now();
    machine.wait_for_server_end();
    assert!(ending.elapsed() < PATIENCE);
    let log = fs::read(machine.audit_log()).expect("the log");
    assert!(String::from_utf8_lossy(&log).contains("server.stop"));
    let second = fs::read(&second).expect("the second file");
    assert!(String::from_utf8_lossy(&second).contains("server.stop"));
    // The log signs its end when nobody can read on any more; that record comes with the next server.
    assert!(log.starts_with(&second), "the second file is the log");
    let told = machine.cli(&["doctor", "--json"]);
    let told: Value = serde_json::from_slice(&told.stdout).expect("a report");
    let of = |name: &str| {
        let sinks = told["auditSinks"].as_array().expect("sinks");
        sinks
            .iter()
            .find(|sink| sink["name"] == name)
            .expect("the sink")
            .clone()
    };
    let copy = of("copy");
    assert!(
        copy["waiting"].as_u64() <= Some(1) && copy["missed"] == 0 && copy.get("problem").is_none(),
        "{told:#}"
    );
    assert!(of("siem")["waiting"].as_u64() > Some(5), "{told:#}");
    let server_log =
        fs::read_to_string(machine.state().join("server.log")).expect("the server's log");
    assert!(
        server_log.contains("nobody reads standard error"),
        "{server_log}"
    );
}

#[test]
fn a_tail_that_follows_shows_what_comes() {
    use std::{
        io::{BufRead, BufReader},
        process::Stdio,
    };
    let machine = Machine::new(users()[0]);
    let mut client = machine.client();
    client.tool("list_sessions", json!({})).expect("an answer");
    let mut tail = machine
        .command(crate::support::program())
        .args([
            "audit",
            "tail",
            "-n",
            "9",
            "--follow",
            "--action",
            "session.create",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(tail.stdout.take().expect("its output")).lines();
    let session = client.create(&machine.project);
    let intent = lines.next().expect("a line").expect("text");
    assert!(
        intent.contains("intent") && intent.contains("session.create"),
        "{intent}"
    );
    let result = lines.next().expect("a line").expect("text");
    assert!(
        result.contains("result") && result.contains(&session[..14]),
        "{result}"
    );
    tail.kill().expect("killed");
    tail.wait().expect("ended");
    client.destroy(&session);
    let found = machine.cli(&[
        "audit",
        "search",
        "--action",
        "session.*",
        "--session",
        &session,
        "--actor",
        "nobody",
    ]);
    assert_eq!(found.status.code(), Some(1), "nothing fits");
}

/// A service that takes records by HTTPS, at a port of loopback.
struct Service {
    port: u16,
    seen: Arc<Mutex<Seen>>,
}

/// What reached it.
#[derive(Default)]
struct Seen {
    connections: usize,
    /// Why there was no request on a connection.
    broken: Vec<String>,
    /// Bodies of requests, one after the other.
    taken: String,
}

impl Service {
    /// One with a certificate of that authority.
    fn start(authority: &Authority, purpose: For, expired: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        authority.sign(directory.path(), purpose, expired);
        let certificate = CertificateDer::from_pem_file(directory.path().join("engine.pem"));
        let key = PrivateKeyDer::from_pem_file(directory.path().join("engine-key.pem"));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.expect("read")], key.expect("read"))
            .expect("a pair");
        let (config, seen) = (Arc::new(config), Arc::<Mutex<Seen>>::default());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let seeing = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (config, seen) = (Arc::clone(&config), Arc::clone(&seeing));
                std::thread::spawn(move || {
                    seen.lock().expect("seen").connections += 1;
                    if let Err(why) = serve(stream, config, &seen) {
                        seen.lock().expect("seen").broken.push(why.to_string());
                    }
                });
            }
        });
        Service { port, seen }
    }

    fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().expect("seen"))
    }
}

/// Answers requests until the client leaves.
fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    seen: &Mutex<Seen>,
) -> Result<(), std::io::Error> {
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut reader = BufReader::new(StreamOwned::new(connection, stream));
    let mut is_first = true;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match reader.read_line(&mut head) {
                // It keeps a connection for as long as it likes.
                Ok(0) | Err(_) if !is_first => return Ok(()),
                Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(why) => return Err(why),
            }
        }
        is_first = false;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let is_it = name.eq_ignore_ascii_case("content-length");
            is_it.then(|| value.parse::<usize>().expect("a length"))
        });
        let mut body = vec![0; length.expect("a length")];
        reader.read_exact(&mut body)?;
        let body = String::from_utf8(body).expect("text");
        seen.lock().expect("seen").taken.push_str(&body);
        let answer = b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n";
        reader.get_mut().write_all(answer)?;
        reader.get_mut().flush()?;
    }
}

/// What `doctor` says of each sink.
fn told_of_sinks(machine: &Machine) -> Vec<Value> {
    let told = machine.cli(&["doctor", "--json"]);
    let told: Value = serde_json::from_slice(&told.stdout).expect("a report");
    told["auditSinks"].as_array().expect("sinks").clone()
}

/// The authority's certificate where the machine's user can read it.
fn believe(machine: &Machine, authority: &Authority, file: &Path) {
    let directory = tempfile::tempdir().expect("a directory");
    authority.write(directory.path());
    fs::copy(directory.path().join("ca.pem"), file).expect("written");
    machine.give(file);
}

/// By `ca_file` alone: not the machine's authorities beside it, not another's, and none of them for another name or past its time. What
/// a sink did not get for that it gets as soon as it is set right.
#[test]
fn a_webhook_over_tls_gets_records_when_it_proves_by_the_named_authority_who_it_is_and_else_nothing()
 {
    let mut machine = Machine::new(users()[0]);
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (right, wrong) = (
        machine.base().join("right.pem"),
        machine.base().join("wrong.pem"),
    );
    believe(&machine, &ours, &right);
    believe(&machine, &theirs, &wrong);
    let elsewhere = For::EngineCalled("elsewhere.example");
    let services = [
        (
            "right",
            Some(&right),
            Service::start(&ours, For::Engine, false),
        ),
        (
            "wrong",
            Some(&wrong),
            Service::start(&ours, For::Engine, false),
        ),
        ("none", None, Service::start(&ours, For::Engine, false)),
        (
            "name",
            Some(&right),
            Service::start(&ours, elsewhere, false),
        ),
        (
            "late",
            Some(&right),
            Service::start(&ours, For::Engine, true),
        ),
    ];
    let sinks: Vec<_> = services
        .iter()
        .map(|(name, authority, service)| {
            let url = format!("https://127.0.0.1:{}/in", service.port);
            let believed = authority.map(|file| format!(", ca_file = \"{}\"", file.display()));
            let believed = believed.unwrap_or_default();
            format!("{name} = {{ kind = \"webhook\", url = \"{url}\"{believed} }}")
        })
        .collect();
    machine.set(
        "CLAUDE_CODE_MCP_AUDIT_SINKS",
        &format!("{{ {} }}", sinks.join(", ")),
    );
    let mut client = machine.client();
    let session = client.create(&machine.project);
    client.destroy(&session);
    let [(_, _, trusted), refused @ ..] = &services;
    until("the record is there", || {
        trusted.seen(|seen| seen.taken.contains("session.destroy"))
    });
    for (name, _, service) in refused {
        until("the others were tried", || {
            service.seen(|seen| !seen.broken.is_empty() || !seen.taken.is_empty())
        });
        let taken = service.seen(|seen| seen.taken.clone());
        assert_eq!(taken, "", "{name}");
    }
    drop(client);
    machine.wait_for_server_end();
    let log = fs::read_to_string(machine.audit_log()).expect("the log");
    let taken = trusted.seen(|seen| seen.taken.clone());
    // The log signs its end when nobody can read on any more.
    assert!(
        taken.contains("server.stop") && log.starts_with(&taken),
        "{taken}"
    );

    let server_log =
        fs::read_to_string(machine.state().join("server.log")).expect("the server's log");
    let told = told_of_sinks(&machine);
    for (name, ..) in &services {
        let of = told.iter().find(|sink| sink["name"] == **name);
        let of = of.expect("the sink");
        let problem = of["problem"].as_str().unwrap_or_default();
        let is_warned = server_log.lines().any(|line| {
            line.contains("the audit sink takes nothing")
                && line.contains(&format!("sink=\"{name}\""))
        });
        match *name {
            "right" => {
                assert!(
                    of["waiting"].as_u64() <= Some(1) && problem.is_empty(),
                    "{of:#}"
                );
                assert!(!is_warned, "{server_log}");
            }
            _ => {
                assert!(
                    of["waiting"].as_u64() > Some(5) && of["missed"] == 0,
                    "{of:#}"
                );
                assert!(problem.contains("certificate"), "{of:#}");
                assert!(is_warned, "{name}: {server_log}");
            }
        }
    }
    for (name, _, service) in refused {
        until("every connection has ended", || {
            service.seen(|seen| seen.broken.len() == seen.connections)
        });
        assert_eq!(service.seen(|seen| seen.taken.clone()), "", "{name}");
    }

    // Set right, it gets all of it: it was the authority that was wrong, and nothing else.
    believe(&machine, &ours, &wrong);
    let mut client = machine.client();
    client.tool("list_sessions", json!({})).expect("an answer");
    let (_, _, mended) = &refused[0];
    until("what it missed is there", || {
        mended.seen(|seen| seen.taken.contains("session.list"))
    });
    let taken = mended.seen(|seen| seen.taken.clone());
    assert!(
        taken.starts_with(&log[..log.find('\n').expect("a line")]),
        "{taken}"
    );
    assert!(taken.contains(&session));
}

/// What is no certificate keeps the server from starting: it would believe nobody, or somebody else than its operator meant.
#[test]
fn a_ca_file_without_certificates_keeps_the_server_from_starting() {
    let mut machine = Machine::new(users()[0]);
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::equip(directory.path());
    let file = machine.base().join("ca.pem");
    let sink = format!(
        "{{ siem = {{ kind = \"webhook\", url = \"https://127.0.0.1:9/\", ca_file = \"{}\" }} }}",
        file.display()
    );
    machine.set("CLAUDE_CODE_MCP_AUDIT_SINKS", &sink);
    let key = fs::read_to_string(directory.path().join("key.pem")).expect("a key");
    let refuses = |why: &str| {
        let started = machine.cli(&["serve", "--http", "127.0.0.1:0"]);
        let said = String::from_utf8_lossy(&started.stderr).into_owned();
        assert!(!started.status.success(), "{why}: {said}");
        assert!(said.contains("siem") && said.contains(why), "{why}: {said}");
    };
    refuses("No such file");
    for (content, why) in [
        ("", "no certificate"),
        ("no PEM", "no certificate"),
        (key.as_str(), "private key"),
    ] {
        fs::write(&file, content).expect("written");
        machine.give(&file);
        refuses(why);
    }
    believe(&machine, &authority, &file);
    let mut client = machine.client();
    client
        .tool("list_sessions", json!({}))
        .expect("the control: it starts");
}

//! A filter between the backend and the engine: lets through what is on the list of calls, one request for each
//! connection, and remembers the rest.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use sandbox_docker::calls::{self, Call};

use super::image::ENGINE_SOCKET;

/// Longest head of a request, bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The filter; its thread ends with the test.
pub struct Filter {
    pub socket: PathBuf,
    /// The engine's own.
    pub engine: PathBuf,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    made: BTreeSet<Call>,
    refused: Vec<String>,
    broken: Option<(Call, Fault)>,
    passed: Vec<Passed>,
    log: Option<PathBuf>,
}

impl Seen {
    /// How long the log is now; 0 before there is one.
    fn position(&self) -> u64 {
        let found = self.log.as_ref().map(std::fs::metadata);
        found.map_or(0, |found| found.map_or(0, |found| found.len()))
    }
}

/// A request, and how long the log that was named was before the engine heard of it and before the last of the answer was passed
/// on; `None` while there is more to come.
#[derive(Debug, Clone)]
pub struct Passed {
    pub call: Call,
    pub path: String,
    pub begun: u64,
    pub ended: Option<u64>,
}

/// What happens to a call instead.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The engine never hears of it.
    Refused,
    /// The engine does it, and nobody hears of that.
    Unheard,
    /// Nobody hears anything for so long, and the engine never of it.
    Silent(Duration),
    /// Whoever asked is hung up on, and the engine does it so much later, without mounts: as one does that had looked
    /// for their sources by then.
    Late(Duration),
    /// The engine is asked for something else: the body of the request as this makes it.
    Changed(fn(&[u8]) -> Vec<u8>),
}

impl Filter {
    /// In front of the machine's engine; lets through what servers ask.
    pub fn start(socket: &Path) -> Self {
        Self::before(socket, ENGINE_SOCKET.into(), calls::find)
    }

    /// In front of the machine's engine; lets through what `find` finds.
    pub fn start_for(socket: &Path, find: fn(&str, &str) -> Option<Call>) -> Self {
        Self::before(socket, ENGINE_SOCKET.into(), find)
    }

    /// In front of the engine at that socket.
    pub fn before(socket: &Path, engine: PathBuf, find: fn(&str, &str) -> Option<Call>) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let filter = Filter {
            socket: socket.to_owned(),
            engine: engine.clone(),
            seen: Arc::clone(&seen),
        };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (seen, engine) = (Arc::clone(&seen), engine.clone());
                thread::spawn(move || {
                    let _ = pass(client, &engine, &seen, find);
                });
            }
        });
        filter
    }

    /// Breaks that call from now on.
    pub fn break_call(&self, call: Option<(Call, Fault)>) {
        self.seen.lock().unwrap().broken = call;
    }

    /// From now on it is noted how long that file was at each request. It is only ever appended to.
    pub fn beside(&self, log: PathBuf) {
        self.seen.lock().unwrap().log = Some(log);
    }

    /// Every request that was let through or broken, in order.
    pub fn passed(&self) -> Vec<Passed> {
        self.seen.lock().unwrap().passed.clone()
    }

    pub fn made(&self) -> BTreeSet<Call> {
        self.seen.lock().unwrap().made.clone()
    }

    pub fn refused(&self) -> Vec<String> {
        self.seen.lock().unwrap().refused.clone()
    }
}

fn pass(
    mut client: UnixStream,
    engine: &Path,
    seen: &Mutex<Seen>,
    find: fn(&str, &str) -> Option<Call>,
) -> io::Result<()> {
    let (head, mut body) = read_head(&mut client)?;
    let mut lines = head.split("\r\n");
    let request = lines.next().unwrap_or_default().to_owned();
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let call = find(method, path);
    let is_stream = calls::ATTACHED.iter().any(|found| call == Some(*found));
    let (fault, number) = match call {
        Some(call) => {
            let mut seen = seen.lock().unwrap();
            seen.made.insert(call);
            let passed = Passed {
                call,
                path: path.to_owned(),
                begun: seen.position(),
                ended: None,
            };
            seen.passed.push(passed);
            let fault = seen
                .broken
                .filter(|(broken, _)| *broken == call)
                .map(|(_, fault)| fault);
            (fault, seen.passed.len() - 1)
        }
        None => {
            seen.lock()
                .unwrap()
                .refused
                .push(format!("{method} {path}"));
            return client.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        }
    };
    let note_end = || {
        let mut seen = seen.lock().unwrap();
        let ended = seen.position();
        seen.passed[number].ended = Some(ended);
    };
    if let Some(Fault::Refused) = fault {
        note_end();
        return client.write_all(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n");
    }
    if let Some(Fault::Silent(silence)) = fault {
        thread::sleep(silence);
        return Ok(());
    }
    let header = |line: &&str, name: &str| line.to_ascii_lowercase().starts_with(name);
    let length: usize = lines
        .clone()
        .find(|line| header(line, "content-length:"))
        .and_then(|line| line.split(':').nth(1)?.trim().parse().ok())
        .unwrap_or(0);
    let have = body.len();
    body.resize(length.max(have), 0);
    client.read_exact(&mut body[have..])?;
    let mut replaced = "connection:";
    let mut length = String::new();
    let change = match fault {
        Some(Fault::Changed(change)) => Some(change),
        Some(Fault::Late(_)) => Some(without_mounts as fn(&[u8]) -> Vec<u8>),
        Some(Fault::Refused | Fault::Unheard | Fault::Silent(_)) | None => None,
    };
    if let Some(change) = change {
        body = change(&body);
        length = format!("Content-Length: {}\r\n", body.len());
        replaced = "content-length:";
    }
    let headers = lines
        .filter(|line| !line.is_empty() && !header(line, "connection:") && !header(line, replaced))
        .fold(length, |all, line| all + line + "\r\n");
    if let Some(Fault::Late(delay)) = fault {
        client.shutdown(Shutdown::Both)?;
        thread::sleep(delay);
    }
    let mut engine = UnixStream::connect(engine)?;
    // So that a second request on the same connection cannot pass unseen.
    let connection = if is_stream { "Upgrade" } else { "close" };
    engine
        .write_all(format!("{request}\r\n{headers}Connection: {connection}\r\n\r\n").as_bytes())?;
    engine.write_all(&body)?;
    if is_stream {
        let (mut from, mut to) = (client.try_clone()?, engine.try_clone()?);
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
        let ended = io::copy(&mut engine, &mut client);
        let _ = client.shutdown(Shutdown::Both);
        return ended.map(drop);
    }
    if let Some(Fault::Unheard | Fault::Late(_)) = fault {
        return io::copy(&mut engine, &mut io::sink()).map(drop);
    }
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = engine.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        // Before whoever asked can know of it.
        note_end();
        client.write_all(&buffer[..count])?;
    }
}

fn without_mounts(body: &[u8]) -> Vec<u8> {
    let mut body: serde_json::Value = serde_json::from_slice(body).unwrap();
    body["HostConfig"]["Mounts"] = serde_json::json!([]);
    body.to_string().into_bytes()
}

fn read_head(client: &mut UnixStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            bytes.truncate(end + 2);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), body));
        }
        let count = client.read(&mut buffer)?;
        if count == 0 || bytes.len() > MAX_HEAD_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend(&buffer[..count]);
    }
}

//! A fake index on loopback, a small program with a pin of its own, and a store in a directory of its own.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Cursor, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use agent::install::{
    Done, FileFacts, InstallError, Network, Order, Pin, Source, Store, Wish, address, install,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use zip::{ZipWriter, write::SimpleFileOptions};

pub const WHEEL: &str = "sdk-1.2.3-py3-none-any.whl";
pub const MEMBER: &str = "sdk/_bundled/claude";

/// A program of three megabytes that looks like one for this machine and does not compress to nothing.
pub fn program() -> Vec<u8> {
    let mut program = vec![0; 3 << 20];
    let mut state = 1_u32;
    for byte in &mut program {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    program[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let machine: u16 = if cfg!(target_arch = "x86_64") {
        62
    } else {
        183
    };
    program[18..20].copy_from_slice(&machine.to_le_bytes());
    program
}

pub fn facts(bytes: &[u8]) -> FileFacts {
    FileFacts {
        bytes: bytes.len() as u64,
        sha256: hex::encode(Sha256::digest(bytes)),
    }
}

/// A wheel with these members.
pub fn wheel_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        writer
            .start_file(*name, SimpleFileOptions::default())
            .unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

pub fn wheel() -> Vec<u8> {
    wheel_of(&[
        ("sdk/__init__.py", b"pass"),
        (MEMBER, &program()),
        ("sdk/_bundled/claude.version", b"9.9.9 (Claude Code)\n"),
    ])
}

pub fn package() -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut package = tar::Builder::new(gzip);
    for (name, content) in [
        ("package/package.json", b"{}".to_vec()),
        ("package/claude", program()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_cksum();
        package
            .append_data(&mut header, name, &content[..])
            .unwrap();
    }
    package.into_inner().unwrap().finish().unwrap()
}

pub fn pin() -> Pin {
    Pin {
        version: "9.9.9".to_owned(),
        platform: "any".to_owned(),
        program: facts(&program()),
        project: "sdk".to_owned(),
        project_version: "1.2.3".to_owned(),
        wheel_name: WHEEL.to_owned(),
        wheel: facts(&wheel()),
        wheel_member: MEMBER.to_owned(),
        npm_package: "@makers/claude-any".to_owned(),
        npm_member: "package/claude".to_owned(),
    }
}

/// A store in a directory of its own.
pub struct Ground {
    pub directory: TempDir,
    pub store: Store,
}

impl Ground {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Ground {
            store: Store::new(directory.path()),
            directory,
        }
    }

    pub fn install(&self, source: Source) -> Result<Done, InstallError> {
        self.install_as(source, false)
    }

    pub fn install_as(&self, source: Source, accept_unpinned: bool) -> Result<Done, InstallError> {
        let order = Order {
            pin: pin(),
            source,
            accept_unpinned,
        };
        install(&self.store, &order, &mut |_| {})
    }

    pub fn file(&self, name: &str, content: &[u8]) -> Source {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        Source::File(path)
    }

    /// Every name in the store but the lock: what a kill or a failure left.
    pub fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.store.root()) else {
            return Vec::new();
        };
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !["lock", "records", "downloads"].contains(&name.as_str()))
            .collect();
        names.sort();
        names
    }

    /// Nothing is visible, and no record tells of what is not there.
    pub fn is_empty(&self) -> bool {
        let records = fs::read_dir(self.store.root().join("records"));
        self.store.list().unwrap().is_empty()
            && self.store.current().unwrap().is_none()
            && records.is_ok_and(|records| records.count() == 0)
            && self.names().is_empty()
    }

    pub fn part(&self) -> PathBuf {
        self.store
            .root()
            .join(format!("downloads/archive-{WHEEL}.part"))
    }
}

/// One answer of the fake index.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Hangs up after so many bytes.
    pub cut_after: Option<usize>,
    /// Waits so long before each chunk of so many bytes.
    pub pace: Option<(Duration, usize)>,
    /// Takes `Range` into account.
    pub ranges: bool,
}

pub fn answer(body: impl Into<Vec<u8>>) -> Answer {
    Answer {
        status: 200,
        headers: Vec::new(),
        body: body.into(),
        cut_after: None,
        pace: None,
        ranges: true,
    }
}

/// A listing in JSON with these further fields of the pinned wheel.
pub fn listing(fields: &str) -> Answer {
    let files = format!(
        r#"{{"meta": {{"api-version": "1.1"}}, "name": "sdk", "files": [
            {{"filename": "sdk-1.2.4-py3-none-any.whl", "url": "../files/new.whl", "hashes": {{}}}},
            {{"filename": "sdk-1.10.0-py3-none-any.whl", "url": "../files/newest.whl", "hashes": {{}}, "yanked": false}},
            {{"filename": "sdk-2.0.0-py3-none-any.whl", "url": "../files/x.whl", "hashes": {{}}, "yanked": "a fault"}},
            {{"filename": "{WHEEL}", "url": "../../files/{WHEEL}" {fields}}}]}}"#
    );
    json(&files)
}

pub fn json(text: &str) -> Answer {
    let kind = "application/vnd.pypi.simple.v1+json".to_owned();
    Answer {
        headers: vec![("content-type", kind)],
        ..answer(text)
    }
}

/// A server on loopback that answers these paths, and what it was asked.
pub struct FakeIndex {
    pub url: String,
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl FakeIndex {
    pub fn start(answers: impl IntoIterator<Item = (&'static str, Answer)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers: HashMap<_, _> = answers.into_iter().collect();
        let (answers, asked) = (Arc::new(answers), Arc::new(Mutex::new(Vec::new())));
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answers, log) = (answers.clone(), log.clone());
                std::thread::spawn(move || serve(&stream, &answers, &log));
            }
        });
        FakeIndex { url, asked }
    }

    pub fn source(&self) -> Source {
        self.source_with(Wish::default())
    }

    pub fn source_with(&self, wish: Wish) -> Source {
        Source::Index {
            url: address(&format!("{}/simple", self.url)).unwrap(),
            wish,
            network: patient(),
        }
    }

    pub fn requests(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

pub fn patient() -> Network {
    Network {
        proxy: None,
        stall: Duration::from_millis(400),
    }
}

fn serve(stream: &TcpStream, answers: &HashMap<&str, Answer>, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    let range = headers.iter().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("range: bytes=")
            .map(str::to_owned)
    });
    let from = range.and_then(|range| range.trim_end_matches('-').parse::<usize>().ok());
    let mut note = path.clone();
    if let Some(from) = from {
        note.push_str(&format!(" from {from}"));
    }
    log.lock().unwrap().push(note);
    let missing = Answer {
        status: 404,
        ..answer("")
    };
    let answer = answers.get(path.as_str()).unwrap_or(&missing);
    // A client that hangs up is not our fault.
    let _ = send(stream, answer, from.filter(|_| answer.ranges));
}

fn send(mut stream: &TcpStream, answer: &Answer, from: Option<usize>) -> std::io::Result<()> {
    let (status, body) = match from {
        Some(from) if from < answer.body.len() => (206, &answer.body[from..]),
        Some(_) => (416, &[][..]),
        None => (answer.status, &answer.body[..]),
    };
    write!(stream, "HTTP/1.1 {status} Answer\r\nconnection: close\r\n")?;
    write!(stream, "content-length: {}\r\n", body.len())?;
    if let (Some(from), 206) = (from, status) {
        let all = answer.body.len();
        write!(stream, "content-range: bytes {from}-{}/{all}\r\n", all - 1)?;
    }
    for (name, value) in &answer.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    write!(stream, "\r\n")?;
    let body = &body[..answer.cut_after.unwrap_or(body.len()).min(body.len())];
    match answer.pace {
        None => stream.write_all(body),
        Some((pause, bytes)) => body.chunks(bytes).try_for_each(|chunk| {
            std::thread::sleep(pause);
            stream.write_all(chunk)
        }),
    }
}

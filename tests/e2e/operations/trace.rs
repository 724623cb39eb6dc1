//! What `strace -f -yy` wrote of a server and of all that it started. The tracer sees one event at a time, and whatever is caused
//! by a system call comes after its end: the number of a line is a place in one order of all of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use audit::Record;
use model::SessionId;
use regex_lite::Regex;
use sandbox::wire::{
    Decoder, ExecutionKey, MAX_TO_HOST_BYTES, MAX_TO_SUPERVISOR_BYTES, Request, ToHost,
    ToSupervisor,
};
use serde_json::{Value, json};

use crate::support::operations::{Effect, EngineCall, Placed, execution_of, of_request};

/// System calls that reach an engine, or the log; and what is heard of a supervisor, which tells what a connection is for.
pub const TRACED: &str = "trace=clone,clone3,fork,vfork,execve,execveat,mount,umount2,open_tree,move_mount,mount_setattr,fsmount,\
    pivot_root,unshare,setns,kill,pidfd_send_signal,mkdir,mkdirat,rmdir,unlink,unlinkat,rename,renameat,renameat2,write,writev,\
    pwrite64,sendto,recvfrom,fdatasync,fsync";
/// Bytes of a write that are kept: more than any has that is read here.
pub const LONGEST: &str = "70000";
/// What the server's own processes beside itself are called.
const HELPER: &str = "\"claude-code-mcp-helper\"";

/// What Claude Code is told, by what the line on its standard input is.
pub const INITIALIZE: &str = "Claude Code: initialize";
pub const MESSAGE: &str = "Claude Code: message";
pub const INTERRUPT: &str = "Claude Code: interrupt";
pub const PERMISSION: &str = "Claude Code: permission";
/// What its driver's own tools are, which it asks by itself.
pub const TOOLS: &str = "Claude Code: tools";
pub const END_OF_INPUT: &str = "Claude Code: end of input";
pub const KILL: &str = "Claude Code: kill";
/// Bytes for something inside that dialled a relayed port.
pub const RELAYED: &str = "relayed";

/// One system call.
#[derive(Debug, Clone)]
struct SystemCall {
    process: i32,
    name: String,
    arguments: String,
    /// What its first argument stands for, where that is a descriptor.
    descriptor: String,
    result: String,
    begun: u64,
    ended: Option<u64>,
}

impl SystemCall {
    /// The bytes that it wrote.
    fn data(&self) -> Vec<u8> {
        assert!(self.name != "writev", "not read here: {self:?}");
        let (_, data) = self.arguments.split_once(">, \"").expect("data");
        let data = unescaped(data);
        let written: usize = self.result.parse().unwrap_or_default();
        data[..written.min(data.len())].to_vec()
    }

    /// The bytes that it took in, if any came.
    fn heard(&self) -> Option<Vec<u8>> {
        self.result.parse::<usize>().ok().filter(|came| *came > 0)?;
        let (_, data) = self.arguments.split_once(">, \"")?;
        Some(unescaped(data))
    }

    fn writes(&self) -> bool {
        ["write", "writev", "pwrite64", "sendto"].contains(&self.name.as_str())
    }

    fn makes_process(&self) -> bool {
        ["clone", "clone3", "fork", "vfork"].contains(&self.name.as_str())
    }

    /// The process that it made, by its number outside.
    fn child(&self) -> Option<i32> {
        if !self.makes_process() {
            return None;
        }
        let outside = self.result.split_once("/* ").map(|(_, number)| number);
        let number = outside.unwrap_or(&self.result);
        number.split(' ').next()?.parse().ok()
    }
}

/// What the first argument stands for, where that is a descriptor.
fn descriptor(arguments: &str) -> &str {
    let number = arguments.bytes().take_while(u8::is_ascii_digit).count();
    let Some(after) = arguments[number..].strip_prefix('<') else {
        return "";
    };
    // What follows: another argument, the end, or the end of a line that another process's cuts off.
    let ends = [">, ", ">)", "> <unfinished"];
    let end = ends.iter().filter_map(|end| after.find(end)).min();
    &after[..end.unwrap_or(after.len())]
}

/// A string as strace writes it, up to its end.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => {
                assert!(rest.next() != Some(b'.'), "cut off: {text}");
                return bytes;
            }
            b'\\' => match rest.next().expect("what is escaped") {
                b'n' => bytes.push(b'\n'),
                b't' => bytes.push(b'\t'),
                b'r' => bytes.push(b'\r'),
                b'f' => bytes.push(0x0c),
                b'v' => bytes.push(0x0b),
                digit @ b'0'..=b'7' => {
                    let mut value = u32::from(digit - b'0');
                    for _ in 0..2 {
                        let Some(digit) = rest.next_if(|next| (b'0'..=b'7').contains(next)) else {
                            break;
                        };
                        value = value * 8 + u32::from(digit - b'0');
                    }
                    bytes.push(u8::try_from(value).expect("a byte"));
                }
                other => bytes.push(other),
            },
            other => bytes.push(other),
        }
    }
    panic!("without an end: {text}");
}

/// Whose a system call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Server,
    /// A process that the server started, until it becomes a supervisor.
    Helper,
    /// A supervisor, or what it started.
    Inside,
}

/// Servers, one after the other.
pub struct Trace {
    calls: Vec<SystemCall>,
    /// The first process of each server, and where its trace begins.
    servers: Vec<(i32, u64)>,
    log: PathBuf,
}

impl Trace {
    /// Reads the traces of servers that have ended, in their order.
    pub fn read(traces: &[PathBuf], log: &Path) -> Self {
        let mut trace = Trace {
            calls: Vec::new(),
            servers: Vec::new(),
            log: log.to_owned(),
        };
        let mut place = 0;
        for path in traces {
            let text = String::from_utf8_lossy(&fs::read(path).expect("a trace")).into_owned();
            let mut open = BTreeMap::new();
            for (number, line) in text.lines().enumerate() {
                place += 1;
                let (process, rest) = line.split_once(' ').expect("a process and what it did");
                let process = process.parse().expect("its number");
                if number == 0 {
                    trace.servers.push((process, place));
                }
                trace.take(place, process, rest.trim_start(), &mut open);
            }
        }
        trace
    }

    fn take(&mut self, place: u64, process: i32, line: &str, open: &mut BTreeMap<i32, usize>) {
        if line.starts_with("+++") || line.starts_with("---") {
            return;
        }
        if let Some(resumed) = line.strip_prefix("<... ") {
            let Some(number) = open.remove(&process) else {
                return;
            };
            let call = &mut self.calls[number];
            call.ended = Some(place);
            call.result = result(resumed);
            if call.name == "recvfrom" {
                let (_, came) = resumed.split_once("resumed>").expect("what came");
                let begun = call.arguments.trim_end_matches("<unfinished ...>");
                call.arguments = format!("{} {}", begun.trim_end(), came.trim_start());
            }
            return;
        }
        let (name, arguments) = line.split_once('(').expect("a system call");
        let is_open = arguments.ends_with("<unfinished ...>");
        if is_open {
            open.insert(process, self.calls.len());
        }
        self.calls.push(SystemCall {
            process,
            name: name.to_owned(),
            descriptor: descriptor(arguments).to_owned(),
            arguments: arguments.to_owned(),
            result: if is_open {
                String::new()
            } else {
                result(arguments)
            },
            begun: place,
            ended: (!is_open).then_some(place),
        });
    }

    /// The records of the log, by when they were written and when they were durable.
    pub fn records(&self) -> Vec<Placed> {
        let log = self.log.display().to_string();
        let of_log: Vec<_> = self
            .calls
            .iter()
            .filter(|call| call.descriptor == log)
            .collect();
        let mut placed = Vec::new();
        let mut written = Vec::new();
        for write in of_log.iter().filter(|call| call.writes()) {
            let synced = of_log.iter().find(|call| {
                call.name == "fdatasync" && Some(call.begun) > write.ended && call.result == "0"
            });
            let durable = synced.and_then(|synced| synced.ended);
            let data = write.data();
            for line in data.split_inclusive(|byte| *byte == b'\n') {
                let record: Record = serde_json::from_slice(line).expect("a record");
                placed.push(Placed {
                    body: record.body,
                    begins: write.begun,
                    ends: durable.unwrap_or(u64::MAX),
                });
            }
            written.extend(data);
        }
        let whole = fs::read(&self.log).expect("the log");
        assert!(written == whole, "every write of the log was seen");
        placed
    }

    /// Everything that the servers and their helpers did to sandboxes.
    pub fn engine_calls(&self) -> Vec<EngineCall> {
        let roles = Roles::of(self);
        let mut sockets = Sockets::default();
        let mut found = Vec::new();
        let mut strangers = BTreeSet::new();
        let starts = self.starts();
        for call in &self.calls {
            match roles.of_call(call) {
                Some(Role::Inside) => {}
                Some(Role::Server | Role::Helper) if call.name == "recvfrom" => {
                    if is_unnamed(&call.descriptor) {
                        sockets.hear(call);
                    }
                }
                Some(Role::Server) if call.writes() && is_unnamed(&call.descriptor) => {
                    found.extend(sockets.take(call));
                }
                Some(role @ (Role::Server | Role::Helper)) => {
                    found.extend(engine_call(call, role, &roles, &starts));
                }
                None => {
                    strangers.insert(format!("{call:?}"));
                }
            }
        }
        assert!(
            strangers.is_empty(),
            "nobody knows whose these are: {strangers:#?}"
        );
        found
    }

    /// When each server began, and when it said on the log that it has started.
    fn starts(&self) -> Vec<(u64, u64)> {
        let log = self.log.display().to_string();
        let says_so = |call: &&SystemCall| {
            call.writes() && call.descriptor == log && call.arguments.contains("server.start")
        };
        let told: Vec<_> = self.calls.iter().filter(says_so).collect();
        let start = |(_, begun): &(i32, u64)| {
            let told = told.iter().find(|call| call.begun > *begun);
            (*begun, told.map_or(u64::MAX, |told| told.begun))
        };
        self.servers.iter().map(start).collect()
    }
}

fn engine_call(
    call: &SystemCall,
    role: Role,
    roles: &Roles,
    starts: &[(u64, u64)],
) -> Option<EngineCall> {
    let named = if call.writes() {
        &call.descriptor
    } else {
        &call.arguments
    };
    let session = session(named);
    let name = match (call.name.as_str(), role) {
        ("execve", _) if call.arguments.contains(HELPER) => "start of a helper".to_owned(),
        ("kill" | "pidfd_send_signal", Role::Server) => match roles.helper_told(call) {
            true => "end of a helper".to_owned(),
            false => call.name.clone(),
        },
        ("fdatasync" | "fsync", _) => return None,
        // Threads, and what becomes a helper.
        ("clone" | "clone3" | "fork" | "vfork", Role::Server) => return None,
        ("write" | "writev" | "pwrite64" | "sendto", _) if session.is_none() => return None,
        (
            "mkdir" | "mkdirat" | "rmdir" | "unlink" | "unlinkat" | "rename" | "renameat"
            | "renameat2",
            Role::Server,
        ) if session.is_none() => return None,
        (name, Role::Server) => name.to_owned(),
        (name, Role::Helper | Role::Inside) => format!("helper: {name}"),
    };
    // What a server tries of the machine before it says that it has started concerns no session.
    let is_starting = session.is_none()
        && starts
            .iter()
            .any(|(begun, told)| (*begun..*told).contains(&call.begun));
    Some(EngineCall {
        name: if is_starting {
            "start-up".to_owned()
        } else {
            name
        },
        effect: Effect::Changes,
        session,
        execution: None,
        begun: call.begun,
        ended: call.ended,
    })
}

fn result(text: &str) -> String {
    let (_, result) = text.rsplit_once(" = ").unwrap_or_default();
    result.to_owned()
}

/// What each process was, and when.
struct Roles {
    /// Parent, and when it was made.
    parents: BTreeMap<i32, (i32, u64)>,
    executed: BTreeMap<i32, Vec<(u64, bool, bool)>>,
    servers: Vec<i32>,
    /// Who was killed before it was told which process it had made, and when it began to.
    untold: Vec<(i32, u64)>,
    /// When each process is seen first.
    seen: BTreeMap<i32, u64>,
}

impl Roles {
    fn of(trace: &Trace) -> Self {
        let mut roles = Roles {
            parents: BTreeMap::new(),
            executed: BTreeMap::new(),
            servers: trace.servers.iter().map(|(process, _)| *process).collect(),
            untold: Vec::new(),
            seen: BTreeMap::new(),
        };
        for call in &trace.calls {
            roles.seen.entry(call.process).or_insert(call.begun);
            if let Some(child) = call.child() {
                roles.parents.insert(child, (call.process, call.begun));
            } else if call.makes_process() && !call.result.starts_with('-') {
                roles.untold.push((call.process, call.begun));
            }
            if call.name.starts_with("execve")
                && call.result == "0"
                && let Some(ended) = call.ended
            {
                let is_helper = call.arguments.contains(HELPER);
                let becomes = (ended, is_helper, call.name == "execveat");
                roles
                    .executed
                    .entry(call.process)
                    .or_default()
                    .push(becomes);
            }
        }
        roles
    }

    fn of_call(&self, call: &SystemCall) -> Option<Role> {
        self.at(call.process, call.begun)
    }

    fn at(&self, process: i32, place: u64) -> Option<Role> {
        let mut executed = self.executed.get(&process).into_iter().flatten();
        let last = executed.rfind(|(at, ..)| *at < place);
        match last {
            Some((_, true, _)) => Some(Role::Helper),
            Some((_, _, true)) => Some(Role::Inside),
            Some(_) | None if self.servers.contains(&process) => Some(Role::Server),
            Some(_) | None => {
                let Some((parent, made)) = self.parents.get(&process) else {
                    return self.of_stranger(process);
                };
                let inherited = self.at(*parent, *made)?;
                Some(match (inherited, last) {
                    // Another program that the server runs.
                    (Role::Server, Some(_)) => Role::Helper,
                    (inherited, _) => inherited,
                })
            }
        }
    }

    /// One whose maker was killed before it was told: of those, the last one that began to make any before this one was seen.
    fn of_stranger(&self, process: i32) -> Option<Role> {
        let seen = self.seen.get(&process)?;
        let mut makers = self.untold.iter();
        let (maker, begun) = makers.rfind(|(maker, begun)| *maker != process && begun < seen)?;
        self.at(*maker, *begun)
    }

    /// Whether whom a signal is for is a helper.
    fn helper_told(&self, call: &SystemCall) -> bool {
        let told = match call.descriptor.strip_prefix("pid:") {
            Some(process) => process,
            None => call.arguments.split(',').next().unwrap_or_default(),
        };
        let told = told.parse().ok();
        told.is_some_and(|process| self.at(process, call.begun) == Some(Role::Helper))
    }
}

/// A socket that is no client's: those have the address that clients dial. A supervisor's has none that strace can tell.
fn is_unnamed(descriptor: &str) -> bool {
    descriptor.starts_with("UNIX") && !descriptor.contains("/run/claude-code-mcp/")
}

/// The session whose directory or control group is named.
fn session(text: &str) -> Option<SessionId> {
    static NAMES: LazyLock<Regex> = LazyLock::new(|| {
        let names =
            "/native/(?:sessions|trash)/s-([0-9a-f]{32})|claude-code-[0-9a-f]{8}-([0-9a-f]{32})";
        Regex::new(names).expect("a pattern")
    });
    let found = NAMES.captures(text)?;
    let digits = found.get(1).or_else(|| found.get(2))?;
    format!("s-{}", digits.as_str()).parse().ok()
}

/// What was said on the connections of supervisors.
#[derive(Default)]
struct Sockets {
    /// `None` where something came that is no frame.
    told: BTreeMap<String, Option<Decoder>>,
    /// Those on which something came.
    greeted: BTreeSet<String>,
    /// Those that carry a connection of something inside.
    relayed: BTreeSet<String>,
    /// Executions that are Claude Code.
    agents: BTreeSet<ExecutionKey>,
}

impl Sockets {
    /// What came first on a connection tells what it is for.
    fn hear(&mut self, call: &SystemCall) {
        if self.greeted.contains(&call.descriptor) {
            return;
        }
        let Some(data) = call.heard() else {
            return;
        };
        self.greeted.insert(call.descriptor.clone());
        let mut decoder = Decoder::new(MAX_TO_HOST_BYTES);
        decoder.push(&data);
        if let Ok(Some(ToHost::RelayHello { .. })) = decoder.next() {
            self.relayed.insert(call.descriptor.clone());
        }
    }

    /// The calls that are whole with this write. What is no frame is one by itself.
    fn take(&mut self, call: &SystemCall) -> Vec<EngineCall> {
        if self.relayed.contains(&call.descriptor) {
            return vec![said(call, RELAYED, Effect::Changes, None)];
        }
        let socket = self.told.entry(call.descriptor.clone());
        let state = socket.or_insert_with(|| Some(Decoder::new(MAX_TO_SUPERVISOR_BYTES)));
        let Some(decoder) = state else {
            return vec![said(call, "no frame", Effect::Changes, None)];
        };
        decoder.push(&call.data());
        let mut calls = Vec::new();
        loop {
            match decoder.next::<ToSupervisor>() {
                Ok(Some(frame)) => calls.push(frame_said(call, &frame, &mut self.agents)),
                Ok(None) => return calls,
                Err(_) => {
                    *state = None;
                    calls.push(said(call, "no frame", Effect::Changes, None));
                    return calls;
                }
            }
        }
    }
}

fn frame_said(
    call: &SystemCall,
    frame: &ToSupervisor,
    agents: &mut BTreeSet<ExecutionKey>,
) -> EngineCall {
    match frame {
        ToSupervisor::Welcome(_) => said(call, "Welcome", Effect::Changes, None),
        ToSupervisor::Request { request, .. } => {
            let (mut name, effect) = of_request(request);
            match request {
                Request::Start(spec) if is_claude_code(&spec.argv) => {
                    agents.insert(spec.execution);
                }
                Request::WriteStdin {
                    execution,
                    data,
                    close,
                } if agents.contains(execution) => name = line(data, *close).unwrap_or(name),
                Request::Cancel { execution, .. } if agents.contains(execution) => name = KILL,
                Request::RenewLease { .. }
                | Request::SetEnvironment { .. }
                | Request::Start(_)
                | Request::WriteStdin { .. }
                | Request::Signal { .. }
                | Request::Resize { .. }
                | Request::Cancel { .. }
                | Request::Read { .. }
                | Request::Wait { .. }
                | Request::List
                | Request::Forget { .. }
                | Request::OpenTransfer(_)
                | Request::OpenRelay { .. }
                | Request::Shutdown => {}
            }
            said(call, name, effect, execution_of(request))
        }
        ToSupervisor::Transfer(_) => said(call, "content", Effect::Changes, None),
    }
}

fn is_claude_code(argv: &[Vec<u8>]) -> bool {
    argv.first()
        .is_some_and(|program| program.ends_with(b"/claude"))
}

/// What a line to Claude Code is; `None` where it is none of these, or not whole.
fn line(data: &[u8], close: bool) -> Option<&'static str> {
    if close {
        return data.is_empty().then_some(END_OF_INPUT);
    }
    let line: Value = serde_json::from_slice(data.strip_suffix(b"\n")?).ok()?;
    let answer = &line["response"]["response"];
    let result = &answer["mcp_response"]["result"];
    // A notification is answered with nothing.
    let is_of_tools = result.get("protocolVersion").is_some()
        || result.get("tools").is_some()
        || *result == json!({});
    match (line["type"].as_str()?, line["request"]["subtype"].as_str()) {
        ("user", _) => Some(MESSAGE),
        ("control_request", Some("initialize")) => Some(INITIALIZE),
        ("control_request", Some("interrupt")) => Some(INTERRUPT),
        ("control_response", _) if answer.get("behavior").is_some() => Some(PERMISSION),
        ("control_response", _) if is_of_tools => Some(TOOLS),
        _ => None,
    }
}

fn said(
    call: &SystemCall,
    name: &str,
    effect: Effect,
    execution: Option<ExecutionKey>,
) -> EngineCall {
    EngineCall {
        name: name.to_owned(),
        effect,
        session: None,
        execution,
        begun: call.begun,
        ended: call.ended,
    }
}

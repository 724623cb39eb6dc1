//! The HTTP door under load (P2c, D3, S1): sixteen clients with mixed rights at the same time against the real server. Limits are exact,
//! nobody sees what is another's, every request is answered, and the server's memory stays bounded. `SOAK=1` makes ten times as
//! many calls (`scripts/soak limits`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    Machine, alone_on_the_machine,
    door::{Answered, HttpClient, HttpServer, key},
    users,
};

const CALLERS: usize = 16;
/// Live sessions of the server: fewer than callers that may make one.
const PLACES: usize = 6;
/// Calls a minute of those that have a bound of their own; as many may come at once.
const PER_MINUTE: u64 = 120;
/// What the load may add to the server's memory, KiB.
const MAX_GROWTH_KIB: u64 = 64 * 1024;
/// What no caller has made.
const UNKNOWN_SESSION: &str = "s-00000000000000000000000000000000";
const UNKNOWN_EXECUTION: &str = "x-00000000000000000000000000000000";

/// Calls of each.
fn calls() -> usize {
    match std::env::var_os("SOAK") {
        Some(_) => 10_000,
        None => 1_000,
    }
}

/// One caller: what it may do, and what is its own.
struct Caller {
    number: usize,
    key: String,
    reads: bool,
    runs: bool,
    carries: bool,
    /// Has a bound of its own on calls a minute.
    is_bounded: bool,
    /// When its bucket was full for the last time.
    began: Instant,
    /// Calls that were let onto the road and count against its bound.
    admitted: u64,
    session: Option<String>,
    execution: Option<String>,
}

impl Caller {
    fn new(machine: &Machine, number: usize) -> Self {
        let scopes: &[&str] = match number % 4 {
            0 => &["sessions:read"],
            1 => &["sessions:read", "sessions:run", "files", "network"],
            2 => &["sessions:read", "sessions:run"],
            _ => &["sessions:run"],
        };
        let is_bounded = number.is_multiple_of(3);
        let per_minute = PER_MINUTE.to_string();
        let mut more = vec!["--max-sessions", "1"];
        if is_bounded {
            more.extend(["--calls-per-minute", &per_minute]);
        }
        machine.write(&format!("app-{number}/own.txt"), &canary(number));
        Caller {
            number,
            key: key(machine, scopes, &more),
            reads: scopes.contains(&"sessions:read"),
            runs: scopes.contains(&"sessions:run"),
            carries: scopes.contains(&"files"),
            is_bounded,
            began: Instant::now(),
            admitted: 0,
            session: None,
            execution: None,
        }
    }

    /// Whatever an answer says, nothing of another's is in it.
    fn sees_only_its_own(&self, answered: &Answered) {
        let (Answered::Done(said) | Answered::Refused(said)) = answered else {
            panic!("no result of a tool: {answered:?}");
        };
        let said = said.to_string();
        let own = canary(self.number);
        let mut all = said.match_indices("canary-of-");
        let strange = all.find(|(at, _)| !said[*at..].starts_with(&own));
        assert_eq!(strange, None, "{}: {said}", self.number);
    }

    fn is_own(&self, session: &str) -> bool {
        self.session.as_deref() == Some(session)
    }

    fn sessions(&self) -> Vec<&str> {
        self.session.as_deref().into_iter().collect()
    }
}

/// What stands in a caller's project alone.
fn canary(number: usize) -> String {
    format!("canary-of-{number:02}")
}

/// What there is of all callers, for those who would look at others'.
struct World {
    server: HttpServer,
    sessions: Vec<String>,
    executions: Vec<String>,
}

/// What an answer must be, unless the caller's bound is reached.
#[derive(Debug, PartialEq)]
enum Due {
    Done,
    /// With that code.
    Refused(&'static str),
}

/// What is asked.
#[derive(Debug, Clone)]
enum Asked {
    List,
    Info,
    Session(String),
    Execution(String),
    Destroy(String),
    Run(String),
    Carry(String),
    Create,
}

impl Asked {
    fn call(&self, number: usize) -> (&'static str, Value) {
        match self {
            Asked::List => ("list_sessions", json!({})),
            Asked::Info => ("get_server_info", json!({})),
            Asked::Session(id) => ("get_session", json!({ "sessionId": id })),
            Asked::Execution(id) => ("get_execution", json!({ "executionId": id })),
            Asked::Destroy(id) => ("destroy_session", json!({ "sessionId": id })),
            Asked::Run(id) => (
                "execute_command",
                json!({ "sessionId": id, "command": "cat own.txt", "waitSeconds": 40 }),
            ),
            Asked::Carry(id) => (
                "transfer_files",
                json!({ "sessionId": id, "direction": "from_container", "sourcePath": "own.txt" }),
            ),
            Asked::Create => (
                "create_session",
                json!({ "projectPath": format!("app-{number}") }),
            ),
        }
    }

    /// By what the caller may do, and whose it is.
    fn due(&self, me: &Caller) -> Due {
        let of_session = |may: bool, id: &str| match may {
            false => Due::Refused("insufficient_scope"),
            true if me.is_own(id) => Due::Done,
            true => Due::Refused("session_not_found"),
        };
        match self {
            Asked::List | Asked::Info if me.reads => Due::Done,
            Asked::List | Asked::Info => Due::Refused("insufficient_scope"),
            Asked::Session(id) => of_session(me.reads, id),
            Asked::Destroy(id) | Asked::Run(id) => of_session(me.runs, id),
            Asked::Carry(id) => of_session(me.carries, id),
            Asked::Execution(_) if !me.reads => Due::Refused("insufficient_scope"),
            Asked::Execution(id) if me.execution.as_ref() == Some(id) => Due::Done,
            Asked::Execution(_) => Due::Refused("execution_not_found"),
            // All places are taken.
            Asked::Create if me.runs => Due::Refused("limit_reached"),
            Asked::Create => Due::Refused("insufficient_scope"),
        }
    }

    /// Ending things is never limited.
    fn is_free(&self) -> bool {
        matches!(self, Asked::Destroy(_))
    }

    /// By chance. Nobody ends what is its own.
    fn by(dice: u64, me: &Caller, world: &World) -> Self {
        let (kind, dice) = (dice % 80, dice >> 8);
        let any = |all: &[String], unknown: &str| {
            let at = dice as usize % (all.len() + 1);
            all.get(at).cloned().unwrap_or_else(|| unknown.to_owned())
        };
        let session = any(&world.sessions, UNKNOWN_SESSION);
        match kind {
            0..=3 => Asked::Create,
            4 | 5 => Asked::Info,
            // Seldom: of so many in one session the output of the first must still be kept.
            6 => match &me.session {
                Some(own) => Asked::Run(own.clone()),
                None => Asked::Run(session),
            },
            7..=11 if !me.is_own(&session) => Asked::Run(session),
            12..=15 => Asked::Carry(session),
            16..=23 if !me.is_own(&session) => Asked::Destroy(session),
            24..=37 => Asked::Execution(any(&world.executions, UNKNOWN_EXECUTION)),
            38..=51 => Asked::Session(session),
            _ => Asked::List,
        }
    }
}

/// Refusals for what is not the caller's, by tool: those for a foreign and for an unknown id must be one.
type NotFound = BTreeMap<&'static str, BTreeSet<String>>;

impl Caller {
    /// One call, judged. Gives the content, where it was carried out.
    fn one(
        &mut self,
        client: &mut HttpClient,
        asked: &Asked,
        not_found: &mut NotFound,
    ) -> Option<Value> {
        let (tool, arguments) = asked.call(self.number);
        let answered = client.call(tool, &arguments).expect("an answer");
        self.sees_only_its_own(&answered);
        match answered {
            Answered::Refused(error) if error["code"] == "rate_limited" => {
                assert!(self.is_bounded && !asked.is_free(), "{asked:?}: {error:#}");
                assert!(error["retryAfterMs"].as_u64().is_some(), "{error:#}");
                return None;
            }
            Answered::Refused(error) => {
                let code = error["code"].as_str().unwrap_or_default();
                let due = asked.due(self);
                let found = matches!(due, Due::Refused(due) if due == code);
                assert!(found, "{asked:?} is due {due:?}: {error:#}");
                if code.ends_with("_not_found") {
                    let told = error.to_string();
                    not_found.entry(tool).or_default().insert(told);
                }
            }
            Answered::Done(content) => {
                assert_eq!(asked.due(self), Due::Done, "{asked:?}: {content:#}");
                self.check(asked, &content);
                if !asked.is_free() {
                    self.admitted += 1;
                }
                return Some(content);
            }
            Answered::Status(..) => unreachable!("it is a result of a tool"),
        }
        if !asked.is_free() {
            self.admitted += 1;
        }
        None
    }

    fn check(&self, asked: &Asked, content: &Value) {
        match asked {
            Asked::List => {
                let listed = content["sessions"].as_array().expect("a list");
                let listed: Vec<_> = listed.iter().map(|it| it["sessionId"].clone()).collect();
                assert_eq!(json!(listed), json!(self.sessions()), "{}", self.number);
            }
            Asked::Info => {
                let own = json!(self.sessions().len());
                assert_eq!(content["ownSessions"], own, "{content:#}");
            }
            Asked::Session(id) => assert_eq!(content["sessionId"], json!(id)),
            Asked::Run(_) | Asked::Execution(_) => {
                let text = content["stdout"]["text"].as_str().unwrap_or_default();
                assert_eq!(text, canary(self.number), "{content:#}");
            }
            Asked::Carry(_) => assert_eq!(content["content"], json!(canary(self.number))),
            Asked::Destroy(_) | Asked::Create => {}
        }
    }

    /// Never more than the bound and what a minute's share refilled; and none is shed before.
    fn is_within_its_bound(&self) {
        if !self.is_bounded {
            return;
        }
        let refilled = PER_MINUTE * self.began.elapsed().as_millis() as u64 / 60_000 + 1;
        let admitted = self.admitted;
        assert!(
            admitted <= PER_MINUTE + refilled,
            "{admitted} of {}",
            self.number
        );
        assert!(admitted >= PER_MINUTE, "{admitted} of {}", self.number);
    }
}

/// Everybody makes a session twice at the same time: exactly as many as there are places are made, one of each caller at most.
fn race(server: &HttpServer, callers: &mut [Caller]) {
    let start = Barrier::new(2 * callers.len());
    let raced: Vec<Vec<Answered>> = std::thread::scope(|scope| {
        let start = &start;
        let racers: Vec<_> = callers
            .iter()
            .map(|caller| {
                let racer = move || {
                    let mut client = HttpClient::connect(server, &caller.key);
                    let (tool, arguments) = Asked::Create.call(caller.number);
                    start.wait();
                    client.call(tool, &arguments).expect("an answer")
                };
                [scope.spawn(racer), scope.spawn(racer)]
            })
            .collect();
        let finish = |both: [std::thread::ScopedJoinHandle<'_, Answered>; 2]| {
            both.map(|racer| racer.join().expect("no panic")).to_vec()
        };
        racers.into_iter().map(finish).collect()
    });
    for (caller, both) in callers.iter_mut().zip(raced) {
        for answered in both {
            caller.sees_only_its_own(&answered);
            caller.admitted += 1;
            match answered {
                Answered::Done(made) => {
                    assert!(caller.runs, "{made:#}");
                    let id = made["sessionId"].as_str().expect("an id").to_owned();
                    let earlier = caller.session.replace(id);
                    assert_eq!(earlier, None, "two of {}", caller.number);
                }
                Answered::Refused(error) => {
                    let due = match caller.runs {
                        true => "limit_reached",
                        false => "insufficient_scope",
                    };
                    assert_eq!(error["code"], due, "{}: {error:#}", caller.number);
                }
                Answered::Status(..) => unreachable!("it is a result of a tool"),
            }
        }
    }
    let made = callers.iter().filter(|caller| caller.session.is_some());
    assert_eq!(made.count(), PLACES);
}

/// Resident memory of the server, KiB.
fn resident(server: &HttpServer) -> u64 {
    let path = format!("/proc/{}/status", server.pid());
    let status = std::fs::read_to_string(path).expect("the server's status");
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.expect("its memory").split_ascii_whitespace().next();
    words.and_then(|word| word.parse().ok()).expect("a number")
}

/// Looks on with the eyes of an administrator, who sees all sessions, until it is over. Gives the most memory that the server had.
fn look_on(world: &World, admin: &str, over: &AtomicBool) -> u64 {
    let mut client = HttpClient::connect(&world.server, admin);
    let all: BTreeSet<&str> = world.sessions.iter().map(String::as_str).collect();
    let mut most = 0;
    while !over.load(SeqCst) {
        most = most.max(resident(&world.server));
        let listed = client.tool("list_sessions", json!({})).expect("a list");
        let listed = listed["sessions"].as_array().expect("a list");
        let ids = listed.iter().filter_map(|it| it["sessionId"].as_str());
        assert_eq!(ids.collect::<BTreeSet<_>>(), all);
        std::thread::sleep(Duration::from_millis(20));
    }
    most
}

/// Says that it is over, also where the work panics: whoever looks on would never end.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// All calls of one caller, one after the other. Gives what was said of what is not the caller's.
fn work(world: &World, me: &mut Caller) -> NotFound {
    let mut client = HttpClient::connect(&world.server, &me.key);
    let mut not_found = NotFound::new();
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(me.number as u64 + 1) | 1;
    for _ in 0..calls() {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let asked = Asked::by(dice >> 3, me, world);
        let _content = me.one(&mut client, &asked, &mut not_found);
    }
    me.is_within_its_bound();
    not_found
}

/// Everybody at once. Gives what was said of what is not the caller's, and the most memory that the server had.
fn storm(world: &World, callers: &mut [Caller], admin: &str) -> (NotFound, u64) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| look_on(world, admin, &over));
        let told = Over(&over);
        let workers: Vec<_> = callers
            .iter_mut()
            .map(|caller| scope.spawn(move || work(world, caller)))
            .collect();
        let mut all = NotFound::new();
        for worker in workers {
            for (tool, told) in worker.join().expect("no panic") {
                all.entry(tool).or_default().extend(told);
            }
        }
        drop(told);
        (all, watch.join().expect("no panic"))
    })
}

#[test]
fn sixteen_clients_with_mixed_rights_stay_within_their_limits_and_see_only_their_own() {
    let _alone = alone_on_the_machine();
    let mut machine = Machine::new(users()[0]);
    machine.set("MAX_CONCURRENT_SESSIONS", &PLACES.to_string());
    for resource in ["MEMORY", "CPU", "DISK"] {
        // Places are what is short here, on whatever machine.
        machine.set(
            &format!("CLAUDE_CODE_MCP_OVERCOMMIT_{resource}_PERCENT"),
            "0",
        );
    }
    let server = HttpServer::start(&machine, &[]);
    let mut callers: Vec<_> = (0..CALLERS)
        .map(|number| Caller::new(&machine, number))
        .collect();
    let admin = key(&machine, &["admin"], &[]);
    race(&server, &mut callers);

    // What whoever has a session does first is there for others to look at.
    let mut not_found = NotFound::new();
    for caller in &mut callers {
        let Some(session) = caller.session.clone() else {
            continue;
        };
        let mut client = HttpClient::connect(&server, &caller.key);
        let ran = caller.one(&mut client, &Asked::Run(session), &mut not_found);
        let ran = ran.expect("it runs");
        caller.execution = ran["executionId"].as_str().map(str::to_owned);
    }
    let sessions = callers.iter().filter_map(|it| it.session.clone());
    let executions = callers.iter().filter_map(|it| it.execution.clone());
    let world = World {
        sessions: sessions.collect(),
        executions: executions.collect(),
        server,
    };
    assert_eq!(
        (world.sessions.len(), world.executions.len()),
        (PLACES, PLACES)
    );

    let (before, began) = (resident(&world.server), Instant::now());
    let (not_found, most) = storm(&world, &mut callers, &admin);
    eprintln!(
        "{CALLERS} clients x {} calls in {:?}, {before} KiB before, {most} at most",
        calls(),
        began.elapsed()
    );
    assert!(
        most < before + MAX_GROWTH_KIB,
        "{before} KiB before, {most}"
    );
    // A foreign id and an unknown one: the same words, whoever asks.
    let tools: Vec<_> = not_found.keys().copied().collect();
    let looked_at = [
        "destroy_session",
        "execute_command",
        "get_execution",
        "get_session",
        "transfer_files",
    ];
    assert_eq!(tools, looked_at);
    for (tool, told) in &not_found {
        assert_eq!(told.len(), 1, "{tool}: {told:#?}");
    }

    // A place that is given back is somebody else's.
    let owner = callers.iter().position(|it| it.session.is_some());
    let other = callers
        .iter()
        .position(|it| it.runs && it.session.is_none() && !it.is_bounded);
    let (owner, other) = (&callers[owner.expect("one")], &callers[other.expect("one")]);
    let mut client = HttpClient::connect(&world.server, &owner.key);
    let own = json!({ "sessionId": owner.session });
    client.tool("destroy_session", own).expect("destroyed");
    let mut client = HttpClient::connect(&world.server, &other.key);
    let (tool, arguments) = Asked::Create.call(other.number);
    client.tool(tool, arguments).expect("a place");
    assert!(machine.cli(&["audit", "verify"]).status.success());
    let mut client = HttpClient::connect(&world.server, &admin);
    let listed = client.tool("list_sessions", json!({})).expect("a list");
    for session in listed["sessions"].as_array().expect("a list") {
        let id = json!({ "sessionId": session["sessionId"] });
        client.tool("destroy_session", id).expect("destroyed");
    }
    assert!(machine.sandbox_pids().is_empty());
}

//! Every call to an engine lies inside exactly one audited operation: a full scenario on the road, over a fake engine behind a
//! recorder, held against the log that the road wrote (A1). `tests/e2e/operations.rs` does the same with real engines.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod house;
mod judged;
#[path = "../../../tests/support/operations.rs"]
mod operations;
mod recorder;
mod support;

use std::{collections::BTreeSet, time::Duration};

use house::{House, PATIENCE, directories, until};
use model::{
    Action, AnsweredBy, Awaited, CreateSession, ExecutePrompt, ExecutionState, ReadFile, Secret,
    SessionId, Terminal, TransferDirection, TransferFiles, WidenNetwork, WriteFile,
};
use operations::Background;
use recorder::Tape;
use sandbox::{Backend, BackendError, fake::Verb, wire::MAX_CHUNK_BYTES};

/// What also comes between operations. A kind that is not among these is a finding, and so is one here that never comes.
const BACKGROUND: &[Background] = &[
    Background::new(
        "list",
        "the reconciler looks what there is; each thing that it does about it is an operation",
    ),
    Background::new(
        "stats",
        "looks whether the kernel killed for memory, at the end of an execution whose caller no longer waits",
    ),
    Background::new(
        "Wait",
        "one question for the end of an execution stays open as long as that runs",
    ),
    Background::new(
        "Read",
        "a question for more output stays open after the caller who waited for it has left",
    ),
    Background::new(
        "RenewLease",
        "lets go on what an operation began, no longer than that allowed; a record three times in each lease would tell nothing",
    ),
    Background::new(
        "Welcome",
        "the greeting of a supervisor that dials again: the same connection to the same sandbox goes on",
    ),
];

/// What comes besides where a command brings more input than its program reads.
const CARRIED_ON: Background = Background::carrying_on(
    "WriteStdin",
    "the rest of the input that came with a command, of which the intent has the digest, as the program reads it",
);

const LONG: Duration = Duration::from_secs(10);

/// The lease of a scenario in which nothing is to happen by time alone.
const QUIET: Duration = Duration::from_secs(600);

/// A session from its making to its end, by everything that a caller can do with it.
async fn whole_life(house: &House) {
    let session = house.create(|_| {}).await.expect("a session");
    house.run(session, "echo hi", |_| {}).await;
    let fed = house
        .run(session, "cat", |asked| {
            asked.stdin = Some(Secret::new(b"in".to_vec()));
            asked.wait = Duration::ZERO;
        })
        .await;
    house.read(fed, LONG, Awaited::End).await;
    let open = house
        .run(session, "cat", |asked| {
            asked.keep_stdin_open = true;
            asked.terminal = Some(Terminal {
                rows: 24,
                columns: 80,
            });
            asked.wait = Duration::ZERO;
        })
        .await;
    let terminal = Terminal {
        rows: 50,
        columns: 80,
    };
    let resize = Action::ResizeTerminal {
        execution: open,
        terminal,
    };
    house.handle(resize).await.expect("resized");
    let respond = Action::RespondExecution {
        execution: open,
        data: Secret::new(b"more".to_vec()),
        close: true,
    };
    house.handle(respond).await.expect("taken");
    house.read(open, LONG, Awaited::End).await;
    let long = house
        .run(session, "sleep 600", |asked| asked.wait = Duration::ZERO)
        .await;
    house.read(long, Duration::ZERO, Awaited::News).await;
    let cancelled = house.handle(Action::CancelExecution(long)).await;
    cancelled.expect("cancelled");
    files(house, session).await;
    for action in [
        Action::WidenNetwork(WidenNetwork {
            session,
            allow: vec!["a.example.com".parse().expect("a rule")],
            by: AnsweredBy::Person,
        }),
        Action::ExtendSession {
            session,
            by: Duration::from_secs(60),
        },
        Action::GetSession(session),
        Action::ListSessions { ended: false },
        Action::GetSessionLogs { session, tail: 10 },
        Action::GetServerInfo,
        Action::DestroySession(session),
    ] {
        let name = action.name();
        let done = house.handle(action).await;
        done.unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
    }
}

async fn files(house: &House, session: SessionId) {
    let project = house.project();
    for action in [
        Action::TransferFiles(TransferFiles {
            session,
            direction: TransferDirection::ToContainer,
            source: project.join("in.txt"),
            destination: "/workspace/copy.txt".into(),
        }),
        Action::TransferFiles(TransferFiles {
            session,
            direction: TransferDirection::FromContainer,
            source: "/workspace/copy.txt".into(),
            destination: project.join("out.txt"),
        }),
        Action::WriteFile(WriteFile {
            session,
            destination: "/workspace/written.txt".into(),
            content: Secret::new(b"written".to_vec()),
            upload: None,
            offset: 0,
            is_last: true,
        }),
        Action::ReadFile(ReadFile {
            session,
            source: "/workspace/written.txt".into(),
            download: None,
            offset: 0,
            length: 100,
        }),
    ] {
        let name = action.name();
        let done = house.handle(action).await;
        done.unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
    }
}

/// A session that may have a provider.
fn for_prompts(asked: &mut CreateSession) {
    asked.agent.provider.api_key = Some(Secret::new("key".to_owned()));
}

/// No process that runs fits it.
fn with_others(asked: &mut ExecutePrompt) {
    asked.options.model = Some("other".to_owned());
}

/// Prompts that begin at once and that wait for their turn, each on the process that is there and on another one.
async fn prompts(house: &House) {
    let session = house.create(for_prompts).await.expect("a session");
    house
        .prompt(session, "wait for /workspace/go", |_| {})
        .await;
    for with in [|_: &mut ExecutePrompt| {}, with_others] {
        let queued = house.prompt(session, "next", with).await;
        assert_eq!(queued.state, ExecutionState::Queued);
    }
    house.fake.put_file(session, "/workspace/go", b"");
    // No call waits for them: it would hold what is done for them as well.
    house.until_done_times(2, "prompt.begin", session).await;
    let from = house.tape.calls().len();
    // On an idle process that does not fit: the call waits until there is another.
    let last = house.prompt(session, "last", |_| {}).await;
    assert!(house.tape.heard("Start", from));
    let last = house.read(last.id, LONG, Awaited::End).await;
    assert_eq!(last.state, ExecutionState::Exited, "{last:?}");
    let destroyed = house.handle(Action::DestroySession(session)).await;
    destroyed.expect("destroyed");
}

/// Sessions that end without a caller, and some that never come to be.
async fn ends_without_a_caller(house: &House) {
    let killed = house.create(|_| {}).await.expect("a session");
    house.fake.kill(killed);
    house.until_done("session.reap", killed).await;
    let expires = |asked: &mut CreateSession| asked.ttl = Some(Duration::from_secs(1));
    let expired = house.create(expires).await.expect("a session");
    house.until_done("session.reap", expired).await;
    house.fake.fail(Verb::Inspect, || {
        BackendError::Unsupported("a test".to_owned())
    });
    house.create(|_| {}).await.expect_err("it is not verified");
    house.fake.heal(Verb::Inspect);
}

/// A server that is killed, and what the next one finds: sessions that go on, one that is gone, and what is nobody's.
async fn restart(house: House) -> House {
    let goes_on = house.create(|_| {}).await.expect("a session");
    let also = house.create(|_| {}).await.expect("a session");
    let gone = house.create(|_| {}).await.expect("a session");
    let prompted = house.create(for_prompts).await.expect("a session");
    house
        .prompt(prompted, "wait for /workspace/go", |_| {})
        .await;
    let waits = house.prompt(prompted, "next", with_others).await;
    // Of the same engine, and on nobody's record.
    let unseen = Tape::beside("/nowhere".into());
    let other = House::on(directories(), house.fake.clone(), unseen, QUIET);
    let nobodys = other.create(|_| {}).await.expect("a session");
    drop(other.kill().await);
    let remains = house.kill().await;
    remains.fake.kill(gone);
    let house = remains.restart(QUIET).await;
    for (action, session) in [
        ("session.adopt", goes_on),
        ("session.adopt", also),
        ("session.adopt", prompted),
        ("session.reap", gone),
        ("session.remove_remains", nobodys),
    ] {
        house.until_done(action, session).await;
    }
    house.run(goes_on, "echo still", |_| {}).await;
    house.fake.put_file(prompted, "/workspace/go", b"");
    house.until_done("prompt.begin", prompted).await;
    let waited = house.read(waits.id, LONG, Awaited::End).await;
    assert_eq!(waited.state, ExecutionState::Exited, "{waited:?}");
    for session in [goes_on, also, prompted] {
        let ended = house.handle(Action::DestroySession(session)).await;
        ended.expect("destroyed");
    }
    house
}

/// What a scenario must have shown, or else it proves nothing: an action, and a call that lies inside it.
const SHOWN: &[(&str, &str)] = &[
    ("session.create", "create"),
    ("session.create", "Welcome"),
    ("session.create", "inspect"),
    ("session.create", "SetEnvironment"),
    ("session.create", "OpenRelay"),
    ("session.create", "destroy"),
    ("execution.start", "Start"),
    ("execution.start", "WriteStdin"),
    ("execution.stdin", "WriteStdin"),
    ("execution.resize", "Resize"),
    ("execution.read", "Read"),
    ("execution.cancel", "Cancel"),
    ("files.transfer", "Import"),
    ("files.transfer", "Export"),
    ("files.transfer", "content"),
    ("files.write", "Import"),
    ("files.write", "content"),
    ("files.read", "Export"),
    ("files.read", "content"),
    ("session.read", "stats"),
    ("session.list", "stats"),
    ("session.destroy", "destroy"),
    ("session.reap", "destroy"),
    ("session.adopt", "connect"),
    ("session.adopt", "Welcome"),
    ("session.adopt", "OpenRelay"),
    ("session.adopt", "List"),
    ("session.remove_remains", "destroy"),
    ("prompt.start", "Start"),
    ("prompt.start", "WriteStdin"),
    ("prompt.begin", "Start"),
    ("prompt.begin", "WriteStdin"),
    ("prompt.begin", "Forget"),
];

#[tokio::test]
async fn every_call_of_a_full_scenario_lies_inside_exactly_one_audited_operation() {
    let house = House::new(QUIET).await;
    whole_life(&house).await;
    prompts(&house).await;
    ends_without_a_caller(&house).await;
    let house = restart(house).await;
    let verdict = house.verdict().await;
    assert_eq!(verdict.findings, Vec::<String>::new());
    let missing: Vec<_> = SHOWN
        .iter()
        .filter(|(action, call)| {
            let shown = ((*action).to_owned(), (*call).to_owned());
            !verdict.held.contains(&shown)
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?}: {:?}", verdict.held);
}

/// Starts executions that nobody waits for until such a call has come after the operation of one.
async fn until_outside(house: &House, session: SessionId, name: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !house.verdict().await.outside.contains(name) {
        assert!(tokio::time::Instant::now() < deadline, "{name} never came");
        let from = house.tape.calls().len();
        house
            .run(session, "sleep 0.1", |asked| asked.wait = Duration::ZERO)
            .await;
        until(name, || house.tape.heard(name, from)).await;
    }
}

#[tokio::test]
async fn what_comes_between_operations_is_told_by_name_and_all_of_it_comes() {
    // Renewed three times in each.
    let house = House::new(Duration::from_secs(6)).await;
    let session = house.create(|_| {}).await.expect("a session");
    // Until one has ended after its operation.
    until_outside(&house, session, "stats").await;
    // Longer than the caller waits, who leaves a question open.
    let longer = house
        .run(session, "sleep 600", |asked| asked.wait = Duration::ZERO)
        .await;
    house
        .read(longer, Duration::from_millis(50), Awaited::News)
        .await;
    // More than is taken by a program that does not read.
    house
        .run(session, "sleep 600", |asked| {
            asked.stdin = Some(Secret::new(vec![0; 2 * MAX_CHUNK_BYTES]));
            asked.wait = Duration::ZERO;
        })
        .await;
    let from = house.tape.calls().len();
    until("it is offered again", || {
        house.tape.heard("WriteStdin", from)
    })
    .await;
    let from = house.tape.calls().len();
    house.fake.disconnect(session);
    until("it dials again", || house.tape.heard("Welcome", from)).await;
    until("its lease is renewed", || {
        house.tape.heard("RenewLease", from)
    })
    .await;
    let all = [BACKGROUND, &[CARRIED_ON]].concat();
    let verdict = house.verdict_by(&all).await;
    assert_eq!(verdict.findings, Vec::<String>::new());
    let known: BTreeSet<_> = all.iter().map(|known| known.name).collect();
    assert_eq!(verdict.outside, known);
    assert!(all.iter().all(|known| !known.because.is_empty()));
    assert!(
        !house.verdict().await.findings.is_empty(),
        "the control: what carries on is a finding where that is not listed"
    );
}

#[tokio::test]
async fn a_prompt_that_waited_began_though_the_log_could_not_be_written() {
    let house = House::new(QUIET).await;
    let session = house.create(for_prompts).await.expect("a session");
    house
        .prompt(session, "wait for /workspace/go", |_| {})
        .await;
    let control = house
        .prompt(session, "wait for /workspace/on", |_| {})
        .await;
    let refused = house.prompt(session, "next", with_others).await;
    house.fake.put_file(session, "/workspace/go", b"");
    house.until_done("prompt.begin", session).await;
    // A log that somebody else writes to takes no more records.
    let log = house.base.path().join("state/audit.jsonl");
    let other = std::fs::OpenOptions::new().append(true).open(log);
    std::io::Write::write_all(&mut other.expect("the log"), b"x").expect("written");
    let from = house.tape.calls().len();
    house.fake.put_file(session, "/workspace/on", b"");
    let control = house.read(control.id, LONG, Awaited::End).await;
    assert_eq!(control.state, ExecutionState::Exited, "it had begun");
    let refused = house.read(refused.id, LONG, Awaited::End).await;
    assert_eq!(refused.state, ExecutionState::Failed, "{refused:?}");
    let why = refused.failure.expect("why");
    assert!(why.starts_with("audit_unavailable: "), "{why}");
    assert!(!house.tape.heard("Start", from) && !house.tape.heard("WriteStdin", from));
}

#[tokio::test]
async fn a_call_beside_the_road_is_found() {
    let house = House::new(QUIET).await;
    let session = house.create(|_| {}).await.expect("a session");
    house.run(session, "true", |_| {}).await;
    assert_eq!(
        house.verdict().await.findings,
        Vec::<String>::new(),
        "the control"
    );
    house.recorder.destroy(session).await.expect("destroyed");
    let findings = house.verdict().await.findings;
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let found = &findings[0];
    assert!(
        found.starts_with("outside of every operation") && found.contains("\"destroy\""),
        "{found}"
    );
}

#[tokio::test]
async fn a_call_that_two_operations_on_one_session_claim_is_found() {
    let house = House::new(QUIET).await;
    let session = house.create(|_| {}).await.expect("a session");
    let from = house.tape.calls().len();
    // Open for as long as its command runs.
    let waits = house.run(session, "sleep 600", |_| {});
    let other = async {
        until("the first one has begun", || house.tape.heard("Wait", from)).await;
        house
            .run(session, "true", |asked| asked.wait = Duration::ZERO)
            .await;
        house.handle(Action::DestroySession(session)).await
    };
    let (_, destroyed) = tokio::join!(waits, other);
    destroyed.expect("destroyed");
    let findings = house.verdict().await.findings;
    let twice = |name: &str| {
        let name = format!("{name:?}");
        findings
            .iter()
            .any(|found| found.starts_with("in several operations") && found.contains(&name))
    };
    assert!(twice("Start") && twice("destroy"), "{findings:#?}");
}

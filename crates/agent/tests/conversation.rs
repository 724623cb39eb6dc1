//! Conversations against a sandbox that is played, with servers that are killed in between.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod inside;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use agent::{
    Beginning, Conversation, Kept, Opened, Operation, Patience, Program, Progress, Prompt, Setup,
    Turns,
    journal::{Entry, Journal},
};
use inside::Inside;
use model::{ConversationId, ExecutionId, PromptOptions, PromptStop, Reason, Refusal, Secret};
use sandbox::Supervisor;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

const IDLE: &str = r#"{"type":"system","subtype":"session_state_changed","state":"idle"}"#;
const RESULT: &str = r#"{"type":"result","subtype":"success","is_error":false,"result":"all good","terminal_reason":"completed"}"#;
const DELTA: &str = r#"{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"I look"}}}"#;

/// A conversation and its sandbox, which outlives servers.
struct House {
    inside: Inside,
    supervisor: Supervisor,
    id: ConversationId,
    directory: tempfile::TempDir,
    record: Arc<Record>,
}

/// What is on record of prompts that had to wait.
#[derive(Default)]
struct Record {
    inside: Inside,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    is_broken: bool,
    /// Which prompts asked to begin, and what had been done inside by then.
    asked: Vec<(ExecutionId, Done)>,
    /// How what was begun has ended.
    ended: Vec<Result<(), Reason>>,
}

/// How many processes were started, how many messages the latest was told, and whether its input was closed.
type Done = (usize, usize, bool);

impl Record {
    fn asked(&self) -> Vec<(ExecutionId, Done)> {
        self.log.lock().unwrap().asked.clone()
    }

    fn ended(&self) -> Vec<Result<(), Reason>> {
        self.log.lock().unwrap().ended.clone()
    }
}

struct OnRecord(Arc<Record>);

impl Turns for OnRecord {
    fn begin(&self, prompt: ExecutionId) -> Beginning<'_> {
        let mut log = self.0.log.lock().unwrap();
        log.asked.push((prompt, done(&self.0.inside)));
        let begun: Result<Box<dyn Operation>, _> = match log.is_broken {
            false => Ok(Box::new(OnRecord(self.0.clone()))),
            true => {
                let refusal =
                    Refusal::new(Reason::AuditUnavailable, "It is full.", "Make room in it.");
                Err(refusal)
            }
        };
        Box::pin(std::future::ready(begun))
    }
}

impl Operation for OnRecord {
    fn end(self: Box<Self>, how: Result<(), Reason>) {
        self.0.log.lock().unwrap().ended.push(how);
    }
}

fn done(inside: &Inside) -> Done {
    let told = match inside.started() {
        0 => Vec::new(),
        _ => inside.told(),
    };
    let messages = told.iter().filter(|line| line["type"] == "user").count();
    (inside.started(), messages, inside.is_told_to_end())
}

impl House {
    async fn new() -> Self {
        let inside = Inside::default();
        let record = Record {
            inside: inside.clone(),
            ..Record::default()
        };
        House {
            supervisor: inside.attach().await,
            record: Arc::new(record),
            inside,
            id: ConversationId::random().unwrap(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn journal(&self) -> PathBuf {
        self.directory.path().join("journal.jsonl")
    }

    /// A server that takes the conversation up, with those prompts open on record.
    fn open(&self, open: &[ExecutionId]) -> Opened {
        let open: HashSet<_> = open.iter().copied().collect();
        let setup = Setup {
            supervisor: self.supervisor.clone(),
            program: Arc::new(Program {
                path: "claude".to_owned(),
                env: Vec::new(),
                strict: true,
                mcp_servers: serde_json::Map::new(),
                permissions: json!({}),
                trust_project: false,
            }),
            patience: Patience::default(),
            turns: Arc::new(OnRecord(self.record.clone())),
        };
        Kept::read(self.id, &self.journal(), &open)
            .unwrap()
            .drive(setup)
    }

    /// A prompt that Claude Code has taken; the `uuid` of its message.
    async fn begin(
        &self,
        conversation: &Conversation,
    ) -> (ExecutionId, watch::Receiver<Progress>, String) {
        let execution = ExecutionId::random().unwrap();
        let progress = conversation.submit(prompt(execution), false).await.unwrap();
        let message = self.inside.hears(|line| line["type"] == "user").await;
        let message = message["uuid"].as_str().unwrap().to_owned();
        self.inside.say(&lifecycle(&message, "started"));
        self.inside.is_acknowledged().await;
        (execution, progress, message)
    }

    fn complete(&self, message: &str) {
        self.inside.say(RESULT);
        self.inside.say(&lifecycle(message, "completed"));
        self.inside.say(IDLE);
    }
}

fn prompt(execution: ExecutionId) -> Prompt {
    Prompt {
        execution,
        text: Secret::new("mend it".to_owned()),
        options: PromptOptions::default(),
        deadline_ms: None,
    }
}

type Make = fn(ExecutionId) -> Prompt;

/// One that the process of another does not fit.
fn other_prompt(execution: ExecutionId) -> Prompt {
    let options = PromptOptions {
        model: Some("other".to_owned()),
        ..PromptOptions::default()
    };
    Prompt {
        options,
        ..prompt(execution)
    }
}

fn lifecycle(message: &str, state: &str) -> String {
    json!({"type": "command_lifecycle", "command_uuid": message, "state": state}).to_string()
}

fn asks(id: &str) -> String {
    let request =
        json!({"subtype": "can_use_tool", "tool_name": "Write", "input": {"file_path": "/etc/x"}});
    json!({"type": "control_request", "request_id": id, "request": request}).to_string()
}

async fn ended(progress: &mut watch::Receiver<Progress>) -> Progress {
    progress
        .wait_for(|progress| progress.is_ended)
        .await
        .unwrap()
        .clone()
}

fn only(opened: &mut Opened) -> watch::Receiver<Progress> {
    assert_eq!(opened.prompts.len(), 1);
    opened.prompts.pop().unwrap().1
}

#[tokio::test(start_paused = true)]
async fn no_line_is_lost_with_a_server_that_was_killed_while_an_answer_came() {
    let house = House::new().await;
    let opened = house.open(&[]);
    let (execution, progress, message) = house.begin(&opened.conversation).await;
    for _ in 0..3 {
        house.inside.say(DELTA);
        house.inside.is_acknowledged().await;
    }
    drop((opened, progress));
    let mut opened = house.open(&[execution]);
    // The first line after the pieces decides.
    house.complete(&message);
    let end = ended(&mut only(&mut opened)).await;
    assert_eq!(end.view.stop, Some(PromptStop::Completed));
    assert_eq!(end.view.result.as_deref(), Some("all good"));
}

#[tokio::test(start_paused = true)]
async fn a_line_that_a_server_read_half_is_read_whole_by_the_next() {
    let house = House::new().await;
    let opened = house.open(&[]);
    let (execution, progress, message) = house.begin(&opened.conversation).await;
    let (begin, rest) = RESULT.split_at(40);
    for byte in begin.as_bytes() {
        house.inside.write(&[*byte]);
        house.inside.is_acknowledged().await;
    }
    drop((opened, progress));
    let mut opened = house.open(&[execution]);
    house.inside.say(rest);
    house.inside.say(&lifecycle(&message, "completed"));
    house.inside.say(IDLE);
    let end = ended(&mut only(&mut opened)).await;
    assert_eq!(end.view.result.as_deref(), Some("all good"));
}

#[tokio::test(start_paused = true)]
async fn a_long_line_costs_its_length_not_the_square_of_it() {
    let house = House::new().await;
    let opened = house.open(&[]);
    let (_, mut progress, message) = house.begin(&opened.conversation).await;
    let long = 4 << 20;
    for _ in 0..40 {
        house.inside.write(&vec![b'x'; long / 40]);
        house.inside.is_acknowledged().await;
    }
    house.inside.say("");
    house.complete(&message);
    ended(&mut progress).await;
    let kept = house.journal().metadata().unwrap().len();
    assert!(kept < 2 * long as u64, "{kept}");
}

#[tokio::test(start_paused = true)]
async fn a_prompt_whose_message_arrived_is_not_sent_again_after_a_restart() {
    let house = House::new().await;
    let (execution, key) = (
        ExecutionId::random().unwrap(),
        ExecutionId::random().unwrap(),
    );
    let mut journal = Journal::open(&house.journal(), |_, _| ()).unwrap();
    let Prompt { options, .. } = prompt(execution);
    for entry in [
        Entry::Prompt {
            execution,
            text: "mend it".to_owned(),
            options: options.clone(),
            deadline_ms: None,
        },
        Entry::Process {
            process: key,
            options,
        },
        // The server was killed before it put on record that the message was written.
        Entry::Begun {
            execution,
            message: "m".to_owned(),
        },
    ] {
        journal.add(&entry).unwrap();
    }
    house.inside.has_process(*key.as_bytes());
    let mut opened = house.open(&[execution]);
    house.inside.say(&lifecycle("m", "started"));
    house.inside.is_acknowledged().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(house.inside.cancelled(), 0);
    house.complete("m");
    let end = ended(&mut only(&mut opened)).await;
    assert_eq!(end.view.stop, Some(PromptStop::Completed));
}

#[tokio::test(start_paused = true)]
async fn who_gives_a_prompt_hears_when_its_turn_has_begun_and_at_once_where_another_is_before_it() {
    let house = House::new().await;
    let opened = house.open(&[]);
    let give = async || {
        let prompt = prompt(ExecutionId::random().unwrap());
        let given = opened.conversation.submit(prompt, false).await;
        let is_queued = given.unwrap().borrow().is_queued;
        let told = house.inside.told();
        let messages = told.iter().filter(|line| line["type"] == "user").count();
        (house.inside.started(), messages, is_queued)
    };
    assert_eq!(give().await, (1, 1, false));
    assert_eq!(give().await, (1, 1, true), "another is before it");
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_answer_is_lost_leaves_one_process_and_not_two() {
    let house = House::new().await;
    house.inside.lose_answers_to_starts(2);
    let opened = house.open(&[]);
    let (_, mut progress, message) = house.begin(&opened.conversation).await;
    house.complete(&message);
    assert_eq!(
        ended(&mut progress).await.view.stop,
        Some(PromptStop::Completed)
    );
    assert_eq!((house.inside.started(), house.inside.cancelled()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_closes_its_output_is_ended_and_keeps_nobody_waiting() {
    let house = House::new().await;
    let opened = house.open(&[]);
    let (_, mut progress, _) = house.begin(&opened.conversation).await;
    let since = Instant::now();
    house.inside.close_output();
    let end = ended(&mut progress).await;
    assert_eq!(end.view.stop, Some(PromptStop::AgentEnded));
    assert_eq!(house.inside.cancelled(), 1);
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn how_a_prompt_ended_is_told_by_the_next_server_to_who_has_not_heard_of_it() {
    let house = House::new().await;
    let opened = house.open(&[]);
    let (execution, mut progress, message) = house.begin(&opened.conversation).await;
    house.complete(&message);
    let end = ended(&mut progress).await;
    drop(opened);
    let mut opened = house.open(&[execution]);
    let again = ended(&mut only(&mut opened)).await;
    assert_eq!((again.view, again.failure), (end.view, None));
    drop(opened.conversation);
    assert!(
        house.open(&[]).prompts.is_empty(),
        "everybody has heard of it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_prompt_that_is_over_on_record_is_over_even_where_its_end_could_not_be_written() {
    let house = House::new().await;
    let opened = house.open(&[]);
    let (_, progress, _) = house.begin(&opened.conversation).await;
    drop((opened, progress));
    let opened = house.open(&[]);
    assert!(opened.prompts.is_empty());
    house.inside.until(|| house.inside.cancelled() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_question_is_withdrawn_survives_a_restart_with_its_time_and_dies_with_its_prompt() {
    let house = House::new().await;
    let opened = house.open(&[]);
    let (execution, mut progress, message) = house.begin(&opened.conversation).await;
    let pending = |progress: &Progress| -> Vec<(String, u64)> {
        let pending = progress.view.pending.iter();
        pending
            .map(|asked| (asked.id.clone(), asked.denied_at_ms))
            .collect()
    };
    for id in ["a", "b"] {
        house.inside.say(&asks(id));
    }
    progress
        .wait_for(|now| pending(now).len() == 2)
        .await
        .unwrap();
    house
        .inside
        .say(r#"{"type":"control_cancel_request","request_id":"a"}"#);
    progress
        .wait_for(|now| pending(now).len() == 1)
        .await
        .unwrap();
    let before = pending(&progress.borrow());
    assert_eq!(before[0].0, "b");
    drop((opened, progress));
    std::thread::sleep(Duration::from_millis(20));
    let mut opened = house.open(&[execution]);
    let mut progress = only(&mut opened);
    let after = pending(&progress.borrow());
    assert!(
        after[0].1.abs_diff(before[0].1) < 10,
        "{before:?} {after:?}"
    );
    house.complete(&message);
    ended(&mut progress).await;
    // The next one has its turn, and another server takes it up.
    let next = ExecutionId::random().unwrap();
    let mut progress = opened
        .conversation
        .submit(prompt(next), false)
        .await
        .unwrap();
    progress.wait_for(|now| !now.is_queued).await.unwrap();
    drop((opened, progress));
    let mut opened = house.open(&[next]);
    assert_eq!(pending(&only(&mut opened).borrow()), []);
}

#[tokio::test(start_paused = true)]
async fn no_more_questions_wait_than_may_and_the_rest_is_denied_at_once() {
    let house = House::new().await;
    let opened = house.open(&[]);
    let (_, progress, _) = house.begin(&opened.conversation).await;
    for number in 0..70 {
        house.inside.say(&asks(&format!("q{number}")));
    }
    let denied = |line: &Value| line["response"]["request_id"] == "q69";
    let answer = house.inside.hears(denied).await;
    assert_eq!(
        answer["response"]["response"]["behavior"], "deny",
        "{answer}"
    );
    assert_eq!(progress.borrow().view.pending.len(), 64);
}

/// A prompt that waits until another is over; its progress.
async fn waits(house: &House, make: Make) -> (Opened, ExecutionId, watch::Receiver<Progress>) {
    let opened = house.open(&[]);
    let (_, mut first, message) = house.begin(&opened.conversation).await;
    let waiting = ExecutionId::random().unwrap();
    let given = opened.conversation.submit(make(waiting), false).await;
    assert_eq!(house.record.asked(), [], "nothing is done for it yet");
    house.complete(&message);
    ended(&mut first).await;
    (opened, waiting, given.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_prompt_that_waited_was_begun_in_no_operation() {
    let fits: (Make, Done) = (prompt, (1, 2, false));
    for (make, begun) in [fits, (other_prompt, (2, 1, false))] {
        let house = House::new().await;
        let (_opened, waiting, mut progress) = waits(&house, make).await;
        progress.wait_for(|now| !now.is_queued).await.unwrap();
        house.inside.until(|| done(&house.inside) == begun).await;
        house
            .inside
            .until(|| house.record.ended() == [Ok(())])
            .await;
        // Before the process that does not fit was told to end, too.
        assert_eq!(house.record.asked(), [(waiting, (1, 1, false))]);

        let house = House::new().await;
        house.record.log.lock().unwrap().is_broken = true;
        let (opened, waiting, mut progress) = waits(&house, make).await;
        let end = ended(&mut progress).await;
        assert_eq!(end.view.stop, Some(PromptStop::AgentEnded));
        let why = "audit_unavailable: It is full. Make room in it.";
        assert_eq!(end.failure.as_deref(), Some(why));
        assert_eq!(house.record.asked(), [(waiting, (1, 1, false))]);
        assert_eq!(done(&house.inside), (1, 1, false), "nothing was done");
        // The conversation goes on with a prompt that a call brings.
        let next = prompt(ExecutionId::random().unwrap());
        opened.conversation.submit(next, false).await.unwrap();
        assert_eq!(done(&house.inside), (1, 2, false));
    }
}

#[tokio::test(start_paused = true)]
async fn who_gave_a_prompt_with_other_options_heard_of_it_before_its_process_was_started() {
    let house = House::new().await;
    let opened = house.open(&[]);
    let (_, mut first, message) = house.begin(&opened.conversation).await;
    house.complete(&message);
    ended(&mut first).await;
    let next = other_prompt(ExecutionId::random().unwrap());
    let (conversation, inside) = (opened.conversation.clone(), house.inside.clone());
    // A task of its own looks as soon as it hears.
    let heard = tokio::spawn(async move {
        let given = conversation.submit(next, false).await.unwrap();
        let is_queued = given.borrow().is_queued;
        (is_queued, done(&inside))
    });
    assert_eq!(heard.await.unwrap(), (false, (2, 1, false)));
    assert_eq!(house.record.asked(), [], "all of it is part of the call");
}

#[tokio::test(start_paused = true)]
async fn a_prompt_whose_process_could_not_be_started_was_on_record_as_begun() {
    let house = House::new().await;
    let (opened, _, _) = {
        house.inside.refuse_starts_after(1);
        waits(&house, other_prompt).await
    };
    let failed = [Err(Reason::AgentUnavailable)];
    house.inside.until(|| house.record.ended() == failed).await;
    assert_eq!(house.inside.started(), 1);
    drop(opened);
}

#[tokio::test(start_paused = true)]
async fn what_waited_or_has_to_be_repeated_after_a_restart_was_begun_in_no_operation() {
    let house = House::new().await;
    let opened = house.open(&[]);
    let (first, progress, message) = house.begin(&opened.conversation).await;
    let waiting = ExecutionId::random().unwrap();
    let given = opened.conversation.submit(prompt(waiting), false).await;
    drop((opened, progress, given));
    let opened = house.open(&[first, waiting]);
    assert_eq!(house.record.asked(), []);
    house.complete(&message);
    house
        .inside
        .until(|| house.record.ended() == [Ok(())])
        .await;
    assert_eq!(house.record.asked(), [(waiting, (1, 1, false))]);
    // Its message does not arrive, so the next server gives it to another process.
    drop(opened);
    let mut journal = Journal::open(&house.journal(), |_, _| ()).unwrap();
    let begun = Entry::Begun {
        execution: waiting,
        message: "lost".to_owned(),
    };
    journal.add(&begun).unwrap();
    drop(journal);
    let _opened = house.open(&[waiting]);
    house.inside.until(|| house.inside.started() == 2).await;
    house.inside.until(|| house.record.ended().len() == 2).await;
    assert_eq!(house.record.asked().len(), 2);
    assert_eq!(house.record.asked()[1].0, waiting);
}

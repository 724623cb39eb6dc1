//! The same with prompts: the real Claude Code in the embedded engine, against the scripted Messages API.
//!
//! Whoever waits for a prompt waits by reads, which change nothing: the operation that began it is over when Claude Code has its
//! message. What its driver does from then on is therefore outside, as the table tells; a start of Claude Code never is, and
//! neither is a message: one that was queued begins in an operation of its own.

use std::{collections::BTreeMap, fs};

use rustix::process::Signal;
use scripted_api::by_prompt;
use serde_json::json;

use super::{
    TOLD_OUTSIDE, Traced, call, has_strace, holds, judge_requests, of_calls, signal_server,
    without_docker,
};
use crate::{
    operations::trace::{
        END_OF_INPUT, INITIALIZE, INTERRUPT, KILL, MESSAGE, PERMISSION, RELAYED, TOOLS, Trace,
    },
    support::{
        User, alone,
        engine::machine,
        filter::Filter,
        operations::{Background, Operation, judge},
        stage::{Stage, finish, prompt, start},
        until, users,
    },
};

/// What comes besides where Claude Code works: each but the last only to a process that an audited operation started.
const GOES_ON: &[Background] = &[
    Background::carrying_on(
        TOOLS,
        "Claude Code asks by itself which tools its driver has, when that began a prompt; who waits for that only reads",
    ),
    Background::carrying_on(
        END_OF_INPUT,
        "a process that has nothing to do is ended where another conversation got a prompt, whose caller does not wait for that",
    ),
    Background::carrying_on(
        KILL,
        "the same, where it has not ended in time; the caller of a prompt that is cancelled waits for it, and no one else does",
    ),
    Background::carrying_on(
        "Forget",
        "a process that has ended is given back when that is seen, which no caller waits for",
    ),
    Background::new(
        RELAYED,
        "bytes on a connection that something inside made, of which its supervisor hears nothing; what is asked on it is \
         `egress.model` on the log",
    ),
];

/// Prompts whose caller waits, reads until the end of three that wait for each other, cancels, and begins another conversation.
fn prompts(stage: &Stage) {
    let mut client = stage.machine.client();
    let session = client.create(&stage.machine.project);
    let said = prompt(
        &mut client,
        &session,
        "[[memory]] Remember: blue elephants",
        json!({ "waitSeconds": 45 }),
    );
    assert_eq!(said["stop"], "completed", "{said:#}");
    // For as long as the other one is to wait.
    let waits = "[[run]] RUN: until [ -e go ]; do sleep 0.1; done";
    let running = start(&mut client, &session, waits, json!({}));
    // The process that is there fits one of them, and not the other.
    let queued = [json!({}), json!({ "disallowedTools": ["WebFetch"] })].map(|options| {
        let queued = start(&mut client, &session, "[[text]] in the queue", options);
        assert_eq!(queued["state"], "queued", "{queued:#}");
        queued
    });
    stage.machine.write("go", "");
    for execution in [running].into_iter().chain(queued) {
        let done = finish(&mut client, execution);
        assert_eq!(done["stop"], "completed", "{done:#}");
        assert_eq!(done["conversationId"], said["conversationId"]);
    }
    let hangs = start(&mut client, &session, "[[hang]] x", json!({}));
    until("the model is asked", || {
        let requests = stage.api.main_requests();
        let mut asked = requests.iter().map(|request| request.body.to_string());
        asked.any(|body| body.contains("[[hang]]"))
    });
    let conversation = said["conversationId"].as_str().expect("an id");
    assert!(works_for(conversation), "the control: it is seen");
    let cancel = json!({ "executionId": hangs["executionId"] });
    let cancelled = call(&mut client, "cancel_execution", cancel);
    assert_eq!(cancelled["stop"], "interrupted", "{cancelled:#}");
    assert_eq!(cancelled["conversationId"], said["conversationId"]);
    let other = start(
        &mut client,
        &session,
        "[[text]] x",
        json!({ "newConversation": true }),
    );
    until("the idle process has ended", || !works_for(conversation));
    let other = finish(&mut client, other);
    assert_eq!(other["stop"], "completed", "{other:#}");
    client.destroy(&session);
}

/// A prompt that asks for a permission, which a person gives.
fn permission(stage: &Stage) {
    let mut client = stage.machine.client();
    let strict = json!({ "projectPath": stage.machine.project, "strictPermissions": true });
    let session = client.create_with(strict);
    let asks = start(&mut client, &session, "[[run]] RUN: touch it", json!({}));
    let look = json!({ "executionId": asks["executionId"], "waitSeconds": 0 });
    until("it asks", || {
        let seen = call(&mut client, "get_execution", look.clone());
        seen["pendingPermissions"].get(0).is_some()
    });
    let approve = ["session", "approve", session.as_str(), "--yes"];
    let answered = stage.machine.cli_on_terminal(&approve);
    assert!(answered.status.success(), "{answered:?}");
    let done = finish(&mut client, asks);
    assert_eq!(done["stop"], "completed", "{done:#}");
    client.destroy(&session);
}

/// Whether a process of Claude Code is there that has this conversation.
fn works_for(conversation: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let mut lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| {
        line.split(|byte| *byte == 0)
            .any(|argument| argument == conversation.as_bytes())
    })
}

#[test]
fn every_system_call_for_a_prompt_lies_inside_exactly_one_audited_operation() {
    let _alone = alone();
    if !has_strace() || !users().contains(&User::Root) {
        return;
    }
    let Some(mut stage) = Stage::native(User::Root) else {
        return;
    };
    without_docker(&mut stage.machine);
    let machine = &stage.machine;
    let trace = machine.base().join("prompts.trace");
    let traced = Traced::start(machine, &trace);
    prompts(&stage);
    permission(&stage);
    signal_server(machine, Signal::TERM);
    traced.ended();

    let trace = Trace::read(&[trace], &machine.audit_log());
    let calls = trace.engine_calls();
    let operations = of_calls(trace.records());
    let table = [TOLD_OUTSIDE, GOES_ON].concat();
    let verdict = judge(&calls, &operations, &table);
    holds(
        &verdict,
        &[
            ("prompt.start", "Start"),
            ("prompt.start", INITIALIZE),
            ("prompt.start", MESSAGE),
            ("prompt.begin", MESSAGE),
            ("prompt.begin", END_OF_INPUT),
            ("prompt.begin", "Start"),
            ("prompt.begin", INITIALIZE),
            ("prompt.answer", PERMISSION),
            ("execution.cancel", INTERRUPT),
        ],
    );
    // The control: what each of them holds is found where that operation is not on the log.
    let is_found = |missing: &Operation| {
        let others = operations.iter().filter(|one| one.id != missing.id);
        let others: Vec<_> = others.cloned().collect();
        !judge(&calls, &others, &table).findings.is_empty()
    };
    let mut controls = BTreeMap::new();
    for one in operations.iter().filter(|one| is_found(one)) {
        *controls.entry(one.action.as_str()).or_insert(0) += 1;
    }
    let wanted = [
        ("execution.cancel", 1),
        ("prompt.answer", 1),
        ("prompt.begin", 2),
        // All but those that queued their prompts.
        ("prompt.start", 5),
        ("session.create", 2),
        ("session.destroy", 2),
    ];
    assert_eq!(controls, BTreeMap::from(wanted), "the controls");
}

#[test]
fn a_prompt_asks_an_engine_nothing_outside_of_an_audited_operation() {
    let _alone = alone();
    let Some(machine) = machine("prompts and requests to an engine") else {
        return;
    };
    let Some(mut stage) = Stage::of(machine, by_prompt().expect("the scenarios")) else {
        return;
    };
    let filter = Filter::start(&stage.machine.base().join("engine.sock"));
    filter.beside(stage.machine.audit_log());
    stage.machine.use_engine(&filter.socket);
    prompts(&stage);
    let verdict = judge_requests(&stage.machine, &filter);
    holds(
        &verdict,
        &[
            ("session.create", "POST /containers/create"),
            ("session.destroy", "DELETE /containers/{id}"),
        ],
    );
    // Claude Code is started by the supervisor, which needs no engine for it.
    let asked = verdict
        .held
        .iter()
        .any(|(action, _)| action.starts_with("prompt."));
    assert!(!asked, "{:#?}", verdict.held);
}

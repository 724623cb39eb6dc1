//! What the next server makes of what an earlier one left, on the fake backend (T3.4, S3).

use std::time::Duration;

use crate::support::{House, LONG, SHORT};
use model::{CreateSession, ExecutionState, ReapCause, Reason, Secret, SessionState};
use sandbox::{
    BackendError,
    fake::{Fake, FakeOptions, Verb},
};

#[tokio::test]
async fn a_restarted_server_takes_up_sessions_executions_and_their_output() {
    let house = House::new();
    let session = house.create().await.expect("a session").id;
    let running = house
        .run(
            session,
            &["sh", "-c", "echo before; sleep 1; exit 4"],
            SHORT,
        )
        .await
        .expect("running");
    assert_eq!(running.state, ExecutionState::Running);
    let house = house.restart();
    let refused = house
        .run(session, &["true"], SHORT)
        .await
        .expect_err("not yet");
    assert_eq!(refused.reason, Reason::SessionNotReady);
    let recovered = house.reconcile().await.expect("recovered");
    assert_eq!(recovered.lost, [session]);
    assert_eq!(
        house.reconcile().await.expect("again"),
        session::Survey::default(),
        "nothing is done twice"
    );
    let read = house.read_to_end(running.id).await;
    assert_eq!(
        (read.state, read.exit_code),
        (ExecutionState::Exited, Some(4)),
        "{read:?}"
    );
    assert_eq!(read.stdout.bytes, b"before\n");
}

#[tokio::test]
async fn a_session_is_taken_up_again_however_much_was_done_since_its_oldest_execution() {
    let house = House::new();
    let session = house.create().await.expect("a session").id;
    let running = house
        .run(session, &["sh", "-c", "sleep 2; exit 4"], SHORT)
        .await
        .expect("running");
    let row = house
        .store
        .execution(running.id)
        .expect("rows")
        .expect("it");
    for _ in 0..1_100 {
        let later = store::ExecutionRecord {
            id: model::ExecutionId::random().expect("an id"),
            state: ExecutionState::Exited,
            ..row.clone()
        };
        house.store.insert_execution(&later).expect("on record");
    }
    let house = house.restart();
    assert_eq!(house.reconcile().await.expect("recovered").lost, [session]);
    let read = house.read_to_end(running.id).await;
    assert_eq!(read.exit_code, Some(4), "{read:?}");
}

#[tokio::test]
async fn what_ended_before_a_restart_is_no_news_after_it() {
    let house = House::new();
    let session = house.create().await.expect("a session").id;
    let told = |house: &House, id: model::ExecutionId| {
        let events = house.store.events(session, 1_000).expect("a log");
        let of_it = |event: &&store::EventRecord| event.text.contains(&id.to_string());
        events.iter().filter(of_it).count()
    };
    let ended = house.run(session, &["true"], LONG).await.expect("done").id;
    while told(&house, ended) == 0 {
        tokio::time::sleep(SHORT).await;
    }
    let house = house.restart();
    assert_eq!(house.reconcile().await.expect("recovered").lost, [session]);
    // By the time that a later one is told, this one would have been, too.
    let later = house.run(session, &["true"], LONG).await.expect("done").id;
    while told(&house, later) == 0 {
        tokio::time::sleep(SHORT).await;
    }
    assert_eq!(told(&house, ended), 1);
}

#[tokio::test]
async fn how_a_prompt_ended_is_put_on_record_by_the_next_server_if_the_last_one_could_not() {
    let house = House::new();
    let mut request = house.request();
    request.agent.provider.api_key = Some(Secret::new("key".to_owned()));
    let session = house.create_with(request).await.expect("a session").id;
    let failed = house.prompt(session).await.expect("taken");
    let why = failed.failure.expect("a failure");
    assert!(why.contains("could not be started"), "{why}");
    // The last server was killed before it wrote the row.
    let open = store::ExecutionChange {
        state: Some(ExecutionState::Running),
        failure: Some("nobody knows".to_owned()),
        ..store::ExecutionChange::default()
    };
    let done = [ExecutionState::Failed];
    let reopened = || {
        let reopened = house.store.update_execution(failed.id, &done, &open);
        reopened.expect("a store")
    };
    // The row is written beside the answer, at times a little later.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !reopened() {
        assert!(std::time::Instant::now() < deadline, "it is not on record");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let house = house.restart();
    assert_eq!(house.reconcile().await.expect("recovered").lost, [session]);
    let read = house.read_to_end(failed.id).await;
    assert_eq!(read.failure, Some(why));
    assert!(read.prompt.is_some());
}

#[tokio::test]
async fn what_a_session_used_of_its_provider_outlives_the_server_and_the_session() {
    let house = House::new();
    let session = house.create().await.expect("a session").id;
    let used = |view: model::SessionView| {
        let usage = view.provider_usage.expect("it has a provider");
        (usage.requests, usage.tokens.output, usage.cost_micro_usd)
    };
    assert_eq!(used(house.get(session).await.expect("it")), (0, 0, 0));
    let usage = store::UsageRecord {
        requests: 3,
        output_tokens: 50,
        cost_pico_usd: 1_000_001,
        ..store::UsageRecord::default()
    };
    house
        .store
        .add_usage(&[(session, usage)], &[])
        .expect("on record");
    let house = house.restart();
    // Not at hand yet, at hand again, and ended: the same sums, in microdollars rounded up.
    assert_eq!(used(house.get(session).await.expect("it")), (3, 50, 2));
    house.reconcile().await.expect("recovered");
    assert_eq!(used(house.get(session).await.expect("it")), (3, 50, 2));
    house.destroy(session).await.expect("destroyed");
    assert_eq!(used(house.get(session).await.expect("it")), (3, 50, 2));
}

#[tokio::test]
async fn the_environment_of_a_session_survives_a_restart_and_stands_in_no_file() {
    const CANARY: &str = "canary-71c0e4";
    let house = House::new();
    let secret = |value: &str| Secret::new(value.to_owned());
    let request = CreateSession {
        name: Some("control-5d2b".to_owned()),
        env: [("TOKEN", CANARY), ("HOME", "/elsewhere")]
            .map(|(name, value)| (name.to_owned(), secret(value)))
            .into(),
        ..house.request()
    };
    let session = house.create_with(request).await.expect("a session").id;
    let env = async |house: &House| {
        let ran = house.run(session, &["env"], LONG).await.expect("it ran");
        String::from_utf8(ran.stdout.bytes).expect("text")
    };
    let before = env(&house).await;
    for line in [
        format!("TOKEN={CANARY}"),
        "HOME=/elsewhere".into(),
        "USER=agent".into(),
    ] {
        assert!(
            before.lines().any(|found| found == line),
            "{line} in {before}"
        );
    }
    let house = house.restart();
    house.reconcile().await.expect("recovered");
    assert_eq!(env(&house).await, before);
    let state = house.base.path().join("state");
    assert!(
        files_with(&state, "control-5d2b") > 0,
        "the look finds nothing"
    );
    assert_eq!(files_with(&state, CANARY), 0);
}

/// How many files below hold that text.
fn files_with(directory: &std::path::Path, text: &str) -> usize {
    let entries = std::fs::read_dir(directory).expect("a directory");
    entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            if path.is_dir() {
                return files_with(&path, text);
            }
            let bytes = std::fs::read(&path).expect("a file");
            usize::from(
                bytes
                    .windows(text.len())
                    .any(|found| found == text.as_bytes()),
            )
        })
        .sum()
}

#[tokio::test]
async fn what_is_gone_after_a_restart_is_ended_and_what_nobody_owns_is_removed() {
    let house = House::new();
    let dead = house.create().await.expect("a session").id;
    let running = house
        .run(dead, &["sleep", "60"], SHORT)
        .await
        .expect("running")
        .id;
    house.fake.kill(dead);
    let mut house = house.restart();
    let recovered = house.reconcile().await.expect("recovered");
    assert_eq!(recovered.orphaned, [dead]);
    assert_eq!(house.reap_next().await.because, ReapCause::Orphaned);
    assert_eq!(
        house.get(dead).await.expect("still known").state,
        SessionState::Failed
    );
    assert_eq!(house.sandboxes().await, 0);
    let _ = running;
    let other = House::on(house.fake.clone());
    let foreign = other.create().await.expect("a session").id;
    let recovered = house.reconcile().await.expect("recovered");
    assert_eq!(
        recovered.remains,
        [session::Remains {
            session: foreign,
            backend: model::BackendName::Fake,
        }],
        "a sandbox that this record does not know is removed"
    );
}

#[tokio::test]
async fn sessions_of_walls_that_do_not_answer_wait_for_them() {
    let house = House::new();
    let session = house.create().await.expect("a session").id;
    let house = house.restart();
    house.fake.fail(Verb::List, || {
        BackendError::Timeout("asking a restarting engine".to_owned())
    });
    house.reconcile().await.expect_err("no answer");
    let view = house.get(session).await.expect("it is on record");
    assert!(view.state.is_live(), "neither ended nor removed: {view:?}");
    house.fake.heal(Verb::List);
    assert_eq!(house.reconcile().await.expect("surveyed").lost, [session]);
    house
        .run(session, &["true"], LONG)
        .await
        .expect("it goes on");
}

#[tokio::test]
async fn a_session_that_a_killed_server_was_making_is_unwound_by_the_next() {
    let house = House::on(Fake::with_options(FakeOptions {
        silent_supervisor: true,
        ..FakeOptions::default()
    }));
    tokio::time::timeout(SHORT * 4, house.create())
        .await
        .expect_err("killed in the middle");
    assert_eq!(
        (
            house.sandboxes().await,
            house.sessions.count().await.expect("a count")
        ),
        (1, 1)
    );
    let mut house = house.restart();
    assert_eq!(
        house.reconcile().await.expect("recovered").orphaned.len(),
        1
    );
    assert_eq!(house.reap_next().await.because, ReapCause::Orphaned);
    assert_eq!(
        (
            house.sandboxes().await,
            house.sessions.count().await.expect("a count")
        ),
        (0, 0)
    );
}

#[tokio::test]
async fn a_session_that_is_being_made_is_left_alone_by_the_reconciler() {
    let house = House::on(Fake::with_options(FakeOptions {
        silent_supervisor: true,
        ..FakeOptions::default()
    }));
    let (created, recovered) =
        tokio::join!(tokio::time::timeout(SHORT * 4, house.create()), async {
            tokio::time::sleep(SHORT).await;
            house.reconcile().await
        });
    created.expect_err("still being made");
    assert_eq!(recovered.expect("recovered"), session::Survey::default());
}

#[tokio::test]
async fn an_execution_that_is_no_longer_at_hand_is_read_from_record_and_supervisor() {
    let house = House::new();
    let session = house.create().await.expect("a session").id;
    let mut ids = Vec::new();
    for number in 0..300 {
        let ran = house
            .run(session, &["echo", &number.to_string()], LONG)
            .await
            .expect("an execution");
        ids.push(ran.id);
    }
    let old = house.read(ids[200], SHORT).await.expect("the execution");
    assert_eq!(
        (old.state, old.exit_code, old.stdout.bytes.as_slice()),
        (ExecutionState::Exited, Some(0), &b"200\n"[..])
    );
    house.destroy(session).await.expect("destroyed");
    let gone = house.read(ids[200], SHORT).await.expect("the execution");
    assert_eq!(
        (gone.state, gone.exit_code, gone.stdout.bytes.len()),
        (ExecutionState::Exited, Some(0), 0)
    );
}

#[tokio::test]
async fn a_cancel_before_the_next_server_has_the_session_is_refused_and_not_lost() {
    let house = House::new();
    let session = house.create().await.expect("a session").id;
    let running = house
        .run(session, &["sleep", "60"], SHORT)
        .await
        .expect("running")
        .id;
    let house = house.restart();
    let cancel = async || {
        let owner = house.owner().name();
        let verb = policy::ExecutionVerb::Cancel;
        let permit = house
            .policy
            .admit_execution(&house.owner(), verb, running, Some(&owner))
            .expect("a permit");
        house.sessions.cancel(permit).await
    };
    assert_eq!(
        cancel().await.expect_err("not yet").reason,
        Reason::SessionNotReady
    );
    house.reconcile().await.expect("recovered");
    assert_eq!(
        cancel().await.expect("cancelled").state,
        ExecutionState::Killed
    );
}

//! A session's life on the fake backend: every step of its creation failed in turn, limits, leases (T3.2, D3, S3).

use std::time::Duration;

use crate::support::{House, LONG, SHORT};
use model::{ExecutionState, ReapCause, Reason, Secret, SessionState};
use sandbox::{
    BackendError,
    fake::{Fake, FakeOptions, Verb},
};

#[tokio::test]
async fn a_session_lives_works_and_leaves_nothing() {
    let house = House::new();
    let session = house.create().await.expect("a session");
    assert_eq!(session.state, SessionState::Ready);
    assert!(session.attestation.is_some());
    let ran = house
        .run(session.id, &["echo", "hi"], LONG)
        .await
        .expect("an execution");
    assert_eq!(
        (ran.state, ran.exit_code),
        (ExecutionState::Exited, Some(0))
    );
    assert_eq!(ran.stdout.bytes, b"hi\n");
    house.destroy(session.id).await.expect("destroyed");
    house.destroy(session.id).await.expect("destroyed again");
    assert_eq!(house.sandboxes().await, 0);
    assert_eq!(
        house.get(session.id).await.expect("still known").state,
        SessionState::Destroyed
    );
    let refused = house
        .run(session.id, &["true"], LONG)
        .await
        .expect_err("a refusal");
    assert_eq!(refused.reason, Reason::SessionDestroyed);
}

#[tokio::test]
async fn output_that_is_no_longer_kept_is_not_told_as_none() {
    let house = House::new();
    let session = house.create().await.expect("a session");
    let first = house
        .run(session.id, &["echo", "hi"], LONG)
        .await
        .expect("an execution");
    let told = async |house: &House, id| {
        let view = house.read(id, SHORT).await.expect("on record");
        assert_eq!(view.exit_code, Some(0));
        (view.stdout.bytes, view.output_lost)
    };
    let (lost, kept) = ((Vec::new(), true), |text: &[u8]| (text.to_vec(), false));
    assert_eq!(told(&house, first.id).await, kept(b"hi\n"));
    let mut latest = first.id;
    for _ in 0..sandbox::wire::MAX_EXECUTIONS {
        let ran = house.run(session.id, &["echo", "ho"], LONG).await;
        latest = ran.expect("an execution").id;
    }
    assert_eq!(told(&house, first.id).await, lost);
    assert_eq!(told(&house, latest).await, kept(b"ho\n"));
    // The next server knows no more of it than what is on record.
    let house = house.restart();
    house.reconcile().await.expect("a survey");
    assert_eq!(told(&house, first.id).await, lost);
    assert_eq!(told(&house, latest).await, kept(b"ho\n"));
    house.destroy(session.id).await.expect("destroyed");
    assert_eq!(told(&house, latest).await, lost);
}

#[tokio::test]
async fn placeholders_that_a_neighbor_took_away_since_the_decision_are_decided_on_again() {
    let gone = [".envrc", "mise.toml"];
    let house = House::on(Fake::with_options(FakeOptions {
        gone_paths: gone.iter().map(Into::into).collect(),
        ..FakeOptions::default()
    }));
    let created = house.create_where(house.request(), &gone).await;
    let record = house
        .store
        .session(created.expect("a session").id)
        .expect("a store");
    let spec = record.expect("a record").spec.expect("a spec");
    let spec: model::SandboxSpec = serde_json::from_slice(&spec).expect("its spec");
    let how = |name: &str| {
        let path = spec.protected.iter().find(|path| path.relative == *name);
        path.map(|path| path.protection)
    };
    let masked = model::Protection::Masked { directory: false };
    assert_eq!(how(".envrc"), Some(masked), "as if it had been missing");
    assert_eq!(how("mise.toml"), None, "left to the scan, as if missing");
}

#[tokio::test]
async fn each_failing_step_of_a_creation_leaves_nothing_and_frees_the_place() {
    let step = || BackendError::Step {
        step: "do it".into(),
        source: std::io::ErrorKind::Other.into(),
    };
    let failing = |verb| {
        let fake = Fake::new();
        fake.fail(verb, step);
        fake
    };
    let options = |options: FakeOptions| Fake::with_options(options);
    let table = [
        ("create_sandbox", failing(Verb::Create), Reason::Internal),
        ("inspect", failing(Verb::Inspect), Reason::Internal),
        (
            "verify_hardening: a layer",
            options(FakeOptions {
                absent_layers: vec![model::Layer::Seccomp],
                ..FakeOptions::default()
            }),
            Reason::HardeningNotInForce,
        ),
        (
            "verify_hardening: a limit",
            options(FakeOptions {
                weakened_limits: vec![(model::LimitName::MemoryBytes, u64::MAX / 2)],
                ..FakeOptions::default()
            }),
            Reason::HardeningNotInForce,
        ),
    ];
    for (name, fake, reason) in table {
        let house = House::on(fake);
        for _ in 0..5 {
            let refused = house.create().await.expect_err(name);
            assert_eq!(refused.reason, reason, "{name}: {refused:?}");
            assert_eq!(house.sandboxes().await, 0, "{name} left a sandbox");
            assert_eq!(
                house.sessions.count().await.expect("a count"),
                0,
                "{name} kept its place"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_never_dials_fails_the_creation_in_time() {
    let house = House::on(Fake::with_options(FakeOptions {
        silent_supervisor: true,
        ..FakeOptions::default()
    }));
    let refused = house.create().await.expect_err("a refusal");
    assert_eq!(refused.reason, Reason::SandboxUnresponsive, "{refused:?}");
    assert_eq!(house.sandboxes().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_does_not_take_the_environment_fails_the_creation_in_time() {
    let house = House::on(Fake::with_options(FakeOptions {
        hanging_supervisor: true,
        ..FakeOptions::default()
    }));
    let refused = house.create().await.expect_err("a refusal");
    assert_eq!(refused.reason, Reason::SandboxUnresponsive, "{refused:?}");
    assert_eq!(house.sandboxes().await, 0);
    assert_eq!(house.sessions.count().await.expect("a count"), 0);
}

#[tokio::test]
async fn limits_of_sessions_and_executions_are_exact() {
    let house = House::new();
    let created = futures::future::join_all((0..10).map(|_| house.create())).await;
    let made: Vec<_> = created.iter().flatten().collect();
    assert_eq!(made.len(), 3);
    assert!(
        created
            .iter()
            .filter_map(|one| one.as_ref().err())
            .all(|one| one.reason == Reason::LimitReached)
    );
    let session = made[0].id;
    let first = house
        .run(session, &["sleep", "5"], SHORT)
        .await
        .expect("one");
    house
        .run(session, &["sleep", "5"], SHORT)
        .await
        .expect("two");
    let refused = house
        .run(session, &["true"], SHORT)
        .await
        .expect_err("three");
    assert_eq!(refused.reason, Reason::LimitReached);
    let permit = house
        .policy
        .admit_execution(
            &house.owner(),
            policy::ExecutionVerb::Cancel,
            first.id,
            Some(&house.owner().name()),
        )
        .expect("a permit");
    let cancelled = house.sessions.cancel(permit).await.expect("cancelled");
    assert_eq!(cancelled.state, ExecutionState::Killed);
    house
        .run(session, &["true"], LONG)
        .await
        .expect("its place is free");
}

#[tokio::test]
async fn a_refused_prompt_makes_no_conversation_and_is_not_the_latest() {
    let house = House::new();
    let mut request = house.request();
    request.agent.provider.api_key = Some(Secret::new("key".to_owned()));
    let session = house.create_with(request).await.expect("a session").id;
    let failed = house.prompt(session).await.expect("taken");
    assert_eq!(failed.state, ExecutionState::Failed, "{failed:?}");
    let before: Vec<_> = house.transcripts(session).into_keys().collect();
    let latest = house
        .transcripts(session)
        .remove("latest")
        .expect("a latest one");
    assert_eq!(before, [format!("{latest}.jsonl"), "latest".to_owned()]);
    for _ in 0..2 {
        house
            .run(session, &["sleep", "5"], SHORT)
            .await
            .expect("a place");
    }
    let refused = house.prompt(session).await.expect_err("no place");
    assert_eq!(refused.reason, Reason::LimitReached);
    let after: Vec<_> = house.transcripts(session).into_keys().collect();
    assert_eq!(after, before);
    assert_eq!(house.transcripts(session)["latest"], latest);
}

#[tokio::test]
async fn a_sandbox_that_dies_is_reported_and_its_executions_are_lost() {
    let mut house = House::new();
    let session = house.create().await.expect("a session").id;
    let running = house
        .run(session, &["sleep", "60"], SHORT)
        .await
        .expect("running")
        .id;
    house.fake.kill(session);
    assert_eq!(house.reap_next().await.because, ReapCause::SandboxEnded);
    let read = house.read(running, LONG).await.expect("the execution");
    assert_eq!(read.state, ExecutionState::Failed);
    assert!(read.failure.is_some());
    assert_eq!(
        house.get(session).await.expect("still known").state,
        SessionState::Failed
    );
}

#[tokio::test]
async fn lifetime_and_idle_time_end_sessions_and_a_running_execution_is_not_idle() {
    let mut house = House::new();
    let mut request = house.request();
    request.ttl = Some(Duration::from_secs(2));
    let old = house.create_with(request).await.expect("a session").id;
    house
        .run(old, &["sleep", "60"], SHORT)
        .await
        .expect("running");
    let mut request = house.request();
    request.idle = Some(Duration::from_secs(1));
    let idle = house
        .create_with(request.clone())
        .await
        .expect("a session")
        .id;
    let busy = house.create_with(request).await.expect("a session").id;
    house
        .run(busy, &["sleep", "60"], SHORT)
        .await
        .expect("running");
    let first = house.reap_next().await;
    assert_eq!((first.session, first.because), (idle, ReapCause::Idle));
    let second = house.reap_next().await;
    assert_eq!(
        (second.session, second.because),
        (old, ReapCause::Lifetime),
        "a running execution ends at the lifetime"
    );
    assert_eq!(
        house.get(busy).await.expect("a session").state,
        SessionState::Busy
    );
}

#[tokio::test]
async fn an_idempotency_key_makes_one_session_however_many_race() {
    let house = House::new();
    let mut request = house.request();
    request.idempotency_key = Some("once".to_owned());
    let created =
        futures::future::join_all((0..8).map(|_| house.create_with(request.clone()))).await;
    let ids: std::collections::BTreeSet<_> = created
        .into_iter()
        .map(|one| one.expect("a session").id)
        .collect();
    assert_eq!(ids.len(), 1);
    request.ttl = Some(Duration::from_secs(77));
    let refused = house.create_with(request).await.expect_err("another call");
    assert_eq!(refused.reason, Reason::IdempotencyConflict);
}

#[tokio::test]
async fn a_deadline_ends_an_execution_and_output_is_read_by_cursor() {
    let house = House::new();
    let session = house.create().await.expect("a session").id;
    let ended = house
        .run_for(
            session,
            &["sh", "-c", "echo begun; sleep 60"],
            LONG,
            Some(Duration::from_secs(1)),
        )
        .await
        .expect("an execution");
    assert_eq!(ended.state, ExecutionState::TimedOut);
    assert_eq!(ended.stdout.bytes, b"begun\n");
    let many = house
        .run(session, &["head", "-c", "1000000", "/dev/zero"], LONG)
        .await
        .expect("an execution");
    assert_eq!(many.stdout.total_bytes, 1_000_000);
    assert!(many.stdout.truncated, "a view is bounded");
    assert_eq!(many.stdout.cursor, 1_000_000, "it shows the end");
    let from_start = house.read(many.id, SHORT).await.expect("the execution");
    assert_eq!(
        (from_start.stdout.offset, from_start.stdout.truncated),
        (0, true),
        "a cursor reads from where it stands"
    );
}

#[tokio::test]
async fn a_protected_file_that_appears_is_reported_with_the_execution_that_made_it_and_moved_aside()
{
    let house = House::new();
    let session = house.create().await.expect("a session").id;
    let hook = house.project().join("sub/.git/hooks/pre-commit");
    let running = house
        .run(session, &["sleep", "0.3"], SHORT)
        .await
        .expect("running");
    std::fs::create_dir_all(hook.parent().expect("a parent")).expect("a directory");
    std::fs::write(&hook, "#!/bin/sh").expect("a hook");
    let ended = house.read_to_end(running.id).await;
    assert_eq!(ended.protected_changes.len(), 1, "{ended:?}");
    assert!(!hook.exists());
    let moved = ended.protected_changes[0].moved_to.as_ref().expect("moved");
    assert!(house.project().join(moved).exists());
}

#[tokio::test]
async fn waiting_for_news_neither_spins_nor_piles_up_questions() {
    let house = House::new();
    let session = house.create().await.expect("a session").id;
    let running = house
        .run(session, &["sh", "-c", "echo one; sleep 2; echo two"], SHORT)
        .await
        .expect("running");
    assert_eq!(running.stdout.bytes, b"one\n");
    let begun = std::time::Instant::now();
    let impatient = Duration::from_millis(100);
    for _ in 0..5 {
        let nothing = house
            .read_from(running.id, 4, impatient)
            .await
            .expect("the execution");
        assert_eq!(nothing.stdout.bytes, b"");
    }
    assert!(
        begun.elapsed() >= impatient * 5,
        "a wait without news came back early"
    );
    let waits = (0..2_000).map(|_| house.read_from(running.id, 4, LONG));
    for view in futures::future::join_all(waits).await {
        assert_eq!(
            view.expect("a place for every question").stdout.bytes,
            b"two\n"
        );
    }
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
}

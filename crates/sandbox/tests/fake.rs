//! The fake's own knobs: what other crates' tests rely on.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a set-up that fails fails its test"
)]

use std::time::Duration;

use model::{
    Enforcement, HostDirectory, Layer, Limit, LimitName, Limits, OwnerId, Requirement,
    RootFileSystem, SandboxSpec, SessionId,
};
use sandbox::{
    Backend, BackendError, EndReason, HostView, Supervisor, SupervisorError,
    fake::{Fake, FakeOptions, Verb},
    verify,
};
use wire::{Exit, OutputMode, StartSpec, Stdin, Stream};

const LEASE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(5);

fn spec() -> SandboxSpec {
    let limit = Limit::default_of(1000);
    SandboxSpec {
        session: SessionId::random().unwrap(),
        owner: OwnerId::from_bytes([1; 8]),
        root: RootFileSystem::HostSystem,
        runtime: None,
        workspace: HostDirectory {
            path: "/project".into(),
            device: 1,
            inode: 1,
            uid: 1000,
            gid: 1000,
        },
        protected: Vec::new(),
        mounts: Vec::new(),
        agent: None,
        managed_settings: None,
        certificates: None,
        limits: Limits {
            memory_bytes: limit,
            cpu_millis: limit,
            pids: limit,
            open_files: limit,
            file_bytes: limit,
            temporary_bytes: limit,
            state_bytes: limit,
        },
        accept_soft_limits: false,
        layers: vec![(Layer::Seccomp, Requirement::Required)],
        lease_ms: 60_000,
    }
}

fn start(argv: &[&str]) -> StartSpec {
    StartSpec {
        execution: *SessionId::random().unwrap().as_bytes(),
        argv: argv
            .iter()
            .map(|argument| argument.as_bytes().to_vec())
            .collect(),
        cwd: b"/workspace".to_vec(),
        env: Vec::new(),
        stdin: Stdin::Null,
        terminal: None,
        deadline_ms: None,
        grace_ms: 0,
        output: OutputMode::DropOldest { keep_bytes: 1000 },
    }
}

async fn create(fake: &Fake, spec: &SandboxSpec) -> (Supervisor, wire::Hello) {
    let link = fake.create(spec).await.unwrap();
    Supervisor::attach(link, LEASE, PATIENCE).await.unwrap()
}

async fn run(supervisor: &Supervisor, argv: &[&str]) -> (Exit, Vec<u8>) {
    let start = start(argv);
    let key = start.execution;
    supervisor.start(start).await.unwrap();
    let ended = supervisor.wait(key, PATIENCE).await.unwrap().ended.unwrap();
    let output = supervisor
        .read(key, Stream::Stdout, 0, 1000, Duration::ZERO)
        .await
        .unwrap();
    (ended.exit, output.data)
}

#[tokio::test(start_paused = true)]
async fn a_verb_fails_as_told_until_it_is_healed() {
    let (fake, spec) = (Fake::new(), spec());
    fake.fail(Verb::Create, || BackendError::Unsupported("as told".into()));
    assert!(matches!(
        fake.create(&spec).await,
        Err(BackendError::Unsupported(_))
    ));
    assert_eq!(fake.list().await.unwrap(), []);
    fake.heal(Verb::Create);
    create(&fake, &spec).await;
    fake.fail(Verb::Destroy, || BackendError::Timeout("as told".into()));
    assert!(matches!(
        fake.destroy(spec.session).await,
        Err(BackendError::Timeout(_))
    ));
    assert_eq!(fake.list().await.unwrap().len(), 1, "nothing was done");
}

#[tokio::test(start_paused = true)]
async fn weakened_sandboxes_do_not_verify() {
    let good = FakeOptions::default();
    let weakened = [
        FakeOptions {
            absent_layers: vec![Layer::Seccomp],
            ..good.clone()
        },
        FakeOptions {
            weakened_limits: vec![(LimitName::MemoryBytes, 2000)],
            ..good.clone()
        },
        FakeOptions {
            weakened_limits: vec![(LimitName::OpenFiles, 2000)],
            ..good.clone()
        },
    ];
    for (options, passes) in [(good, true)]
        .into_iter()
        .chain(weakened.map(|options| (options, false)))
    {
        let (fake, spec) = (Fake::with_options(options.clone()), spec());
        let (_supervisor, hello) = create(&fake, &spec).await;
        let outside = fake.inspect(spec.session).await.unwrap();
        let verdict = verify(&spec, &hello.attestation, &outside, &HostView::default());
        assert_eq!(verdict.is_ok(), passes, "{options:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_named_limit_that_the_machine_cannot_hold_is_refused() {
    let enforcement = vec![
        (LimitName::Pids, Enforcement::Soft),
        (LimitName::CpuMillis, Enforcement::None),
    ];
    let fake = Fake::with_options(FakeOptions {
        enforcement,
        ..FakeOptions::default()
    });
    let mut soft = spec();
    soft.limits.pids.named = true;
    assert!(matches!(
        fake.create(&soft).await,
        Err(BackendError::LimitUnenforceable {
            limit: LimitName::Pids,
            ..
        })
    ));
    soft.accept_soft_limits = true;
    assert!(fake.create(&soft).await.is_ok());
    let mut none = SandboxSpec {
        accept_soft_limits: true,
        ..spec()
    };
    none.limits.cpu_millis.named = true;
    assert!(fake.create(&none).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn silent_and_hanging_supervisors_run_into_the_clients_deadlines() {
    let silent = Fake::with_options(FakeOptions {
        silent_supervisor: true,
        ..FakeOptions::default()
    });
    let link = silent.create(&spec()).await.unwrap();
    assert!(matches!(
        Supervisor::attach(link, LEASE, PATIENCE).await.map(drop),
        Err(SupervisorError::Timeout(_))
    ));
    let hanging = Fake::with_options(FakeOptions {
        hanging_supervisor: true,
        ..FakeOptions::default()
    });
    let (supervisor, _) = create(&hanging, &spec()).await;
    assert!(matches!(
        supervisor.list().await,
        Err(SupervisorError::Timeout(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_killed_sandbox_ends_its_client_and_leaves_remains() {
    let (fake, spec) = (Fake::new(), spec());
    let (supervisor, _) = create(&fake, &spec).await;
    fake.kill(spec.session);
    assert_eq!(supervisor.ended().await, EndReason::Gone);
    assert!(matches!(
        fake.connect(spec.session).await,
        Err(BackendError::NotFound)
    ));
    assert!(!fake.inspect(spec.session).await.unwrap().running);
    assert_eq!(
        fake.list()
            .await
            .unwrap()
            .iter()
            .map(|listed| listed.running)
            .collect::<Vec<_>>(),
        [false]
    );
    fake.destroy(spec.session).await.unwrap();
    assert_eq!(fake.list().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_connection_is_dialled_again() {
    let (fake, spec) = (Fake::new(), spec());
    let (supervisor, _) = create(&fake, &spec).await;
    for _ in 0..5 {
        fake.disconnect(spec.session);
        assert_eq!(
            run(&supervisor, &["echo", "hello"]).await,
            (Exit::Code(0), b"hello\n".to_vec())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn files_are_seen_from_both_sides() {
    let (fake, spec) = (Fake::new(), spec());
    let (supervisor, _) = create(&fake, &spec).await;
    fake.put_file(spec.session, "/workspace/a/b", b"content");
    assert_eq!(
        run(&supervisor, &["cat", "/workspace/a/b"]).await,
        (Exit::Code(0), b"content".to_vec())
    );
    run(
        &supervisor,
        &["sh", "-c", "echo one > made; echo two > made"],
    )
    .await;
    assert_eq!(
        fake.file(spec.session, "/workspace/made"),
        Some(b"two\n".to_vec())
    );
    assert_eq!(fake.file(spec.session, "/workspace/missing"), None);
}

#[tokio::test(start_paused = true)]
async fn a_flood_ends_at_its_deadline() {
    let (fake, spec) = (Fake::new(), spec());
    let (supervisor, _) = create(&fake, &spec).await;
    let flood = StartSpec {
        deadline_ms: Some(50),
        ..start(&["yes"])
    };
    let key = flood.execution;
    supervisor.start(flood).await.unwrap();
    let status = supervisor.wait(key, PATIENCE).await.unwrap();
    assert_eq!(status.ended.unwrap().exit, Exit::Signal(9));
    assert_eq!(status.stdout.total_bytes - status.stdout.kept_from, 1000);
}

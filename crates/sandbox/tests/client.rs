//! The client of an honest supervisor: reconnects, callers that leave, transfers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "what is not due fails its test"
)]

mod peer;

use std::time::Duration;

use peer::{KEY, LEASE, PATIENCE, attached, fault, frame, hello, link, status};
use sandbox::{EndReason, Supervisor, SupervisorError, TransferError, TransferLimits};
use tokio::time::{Instant, sleep, timeout};
use wire::{
    Entry, EntryKind, ExecutionStatus, FaultKind, OutputChunk, OutputMode, Reply, Request,
    StartSpec, Stdin, Stream, StreamStatus, TerminalSize, ToHost, TransferEnd, TransferFrame,
};

const SECOND: Duration = Duration::from_secs(1);
const LIMITS: TransferLimits = TransferLimits {
    max_entries: 3,
    max_bytes: 1 << 20,
};

fn start_spec() -> StartSpec {
    StartSpec {
        execution: KEY,
        argv: vec![b"true".to_vec()],
        cwd: b"/".to_vec(),
        env: Vec::new(),
        stdin: Stdin::Null,
        terminal: None,
        deadline_ms: None,
        grace_ms: 0,
        output: OutputMode::DropOldest { keep_bytes: 1 },
    }
}

#[tokio::test(start_paused = true)]
async fn attaching_says_what_went_wrong() {
    let attach = |link| Supervisor::attach(link, LEASE, PATIENCE);

    let (silent, _dialler) = link();
    assert!(matches!(
        attach(silent).await.map(drop),
        Err(SupervisorError::Timeout(_))
    ));

    let (closed, dialler) = link();
    drop(dialler);
    assert_eq!(attach(closed).await.map(drop), Err(SupervisorError::Ended));

    let (newer, dialler) = link();
    let mut hello = hello();
    hello.protocol += 1;
    let theirs = hello.protocol;
    let mut peer = dialler.dial().await;
    peer.say(&ToHost::Hello(Box::new(hello))).await;
    let ours = wire::PROTOCOL_VERSION;
    assert_eq!(
        attach(newer).await.map(drop),
        Err(SupervisorError::Version { theirs, ours })
    );

    let (garbage, dialler) = link();
    dialler.dial().await.write(&[0xff; 8]).await;
    assert!(matches!(
        attach(garbage).await.map(drop),
        Err(SupervisorError::Protocol(_))
    ));

    // A data connection that an earlier server asked for, and a connection that closes, stand in nobody's way.
    let (late, dialler) = link();
    let mut data = dialler.dial().await;
    data.say(&ToHost::TransferHello { transfer: 1 }).await;
    drop(dialler.dial().await);
    let _control = dialler.greet().await;
    assert!(attach(late).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_welcome_carries_the_lease_and_a_reconnect_the_renewed_one() {
    let (link, dialler) = link();
    let mut first = dialler.greet().await;
    let (supervisor, _) = Supervisor::attach(link, Duration::from_millis(1234), PATIENCE)
        .await
        .unwrap();
    assert_eq!(first.welcome().await.lease_ms, 1234);
    let answering = async {
        let (id, request) = first.request().await;
        assert_eq!(request, Request::RenewLease { lease_ms: 5678 });
        first.reply(id, Reply::Done).await;
    };
    let (renewed, ()) = tokio::join!(
        supervisor.renew_lease(Duration::from_millis(5678)),
        answering
    );
    assert_eq!(renewed, Ok(()));
    drop(first);
    sleep(SECOND).await;
    assert!(!supervisor.is_connected());
    assert_eq!(dialler.greet().await.welcome().await.lease_ms, 5678);
    assert!(supervisor.is_connected());
}

#[tokio::test(start_paused = true)]
async fn what_can_be_repeated_is_asked_again_after_a_reconnect() {
    let (supervisor, dialler, mut first) = attached().await;
    let mut requests = Vec::new();
    let script = async {
        for _ in 0..5 {
            requests.push(first.request().await.1);
        }
        sleep(SECOND).await;
        drop(first);
        let mut second = dialler.greet().await;
        second.welcome().await;
        let status = status(KEY);
        for _ in 0..5 {
            let (id, request) = second.request().await;
            let reply = match &request {
                Request::Start(_) => Reply::Status(status.clone()),
                Request::Wait { wait_ms, .. } => {
                    assert_eq!(*wait_ms, 4000, "a second of the wait is over");
                    Reply::Status(status.clone())
                }
                Request::List => Reply::Executions(Vec::new()),
                Request::SetEnvironment { .. } | Request::Cancel { .. } => Reply::Done,
                other => panic!("{other:?}"),
            };
            second.reply(id, reply).await;
        }
        second
    };
    let (set, started, waited, listed, cancelled, _second) = tokio::join!(
        supervisor.set_environment(vec![b"A=b".to_vec()]),
        supervisor.start(start_spec()),
        supervisor.wait(KEY, 5 * SECOND),
        supervisor.list(),
        supervisor.cancel(KEY, SECOND),
        script,
    );
    assert_eq!(set, Ok(()));
    assert!(started.is_ok() && waited.is_ok() && cancelled.is_ok());
    assert_eq!(listed, Ok(Vec::new()));
    assert_eq!(requests.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_could_happen_twice_is_interrupted_by_a_reconnect() {
    let (supervisor, dialler, mut first) = attached().await;
    let size = TerminalSize {
        rows: 1,
        columns: 1,
    };
    let script = async {
        for _ in 0..4 {
            first.request().await;
        }
        drop(first);
        let mut second = dialler.greet().await;
        second.welcome().await;
        assert!(
            timeout(SECOND, second.request()).await.is_err(),
            "none of them is sent again"
        );
    };
    let (written, signalled, resized, exported, ()) = tokio::join!(
        supervisor.write_stdin(KEY, b"x", false),
        supervisor.signal(KEY, 15),
        supervisor.resize(KEY, size),
        supervisor.export(b"/x", LIMITS),
        script,
    );
    for result in [written.map(drop), signalled, resized, exported.map(drop)] {
        assert!(
            matches!(result, Err(SupervisorError::Interrupted(_))),
            "{result:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_waits_for_the_next_connection() {
    let (supervisor, dialler, first) = attached().await;
    drop(first);
    sleep(SECOND).await;
    let script = async {
        sleep(SECOND).await;
        let mut second = dialler.greet().await;
        second.welcome().await;
        let (id, request) = second.request().await;
        assert!(matches!(request, Request::WriteStdin { close: true, .. }));
        second.reply(id, Reply::Accepted(1)).await;
        second
    };
    let (written, _second) = tokio::join!(supervisor.write_stdin(KEY, b"x", true), script);
    assert_eq!(written, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn replies_that_were_on_the_way_count_although_the_supervisor_hung_up() {
    let (supervisor, dialler, mut first) = attached().await;
    let script = async {
        let (id, _) = first.request().await;
        first.reply(id, Reply::Accepted(1)).await;
        drop(first);
        dialler
    };
    let (written, _dialler) = tokio::join!(supervisor.write_stdin(KEY, b"x", false), script);
    assert_eq!(written, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_is_forgotten_and_its_late_answer_harmless() {
    let (supervisor, _dialler, mut peer) = attached().await;
    assert!(
        timeout(SECOND, supervisor.wait(KEY, 30 * SECOND))
            .await
            .is_err()
    );
    let (late, _) = peer.request().await;
    let script = async {
        peer.reply(late, Reply::Status(status(KEY))).await;
        let (id, request) = peer.request().await;
        assert_eq!(request, Request::List);
        peer.reply(id, Reply::Executions(Vec::new())).await;
        peer
    };
    let (listed, _peer) = tokio::join!(supervisor.list(), script);
    assert_eq!(listed, Ok(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_before_its_request_was_sent_takes_it_back() {
    let (supervisor, dialler, first) = attached().await;
    drop(first);
    sleep(SECOND).await;
    assert!(
        timeout(SECOND, supervisor.start(start_spec()))
            .await
            .is_err()
    );
    let mut second = dialler.greet().await;
    second.welcome().await;
    assert!(
        timeout(SECOND, second.request()).await.is_err(),
        "it was sent all the same"
    );
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_checked_although_nobody_waits_for_it() {
    let (supervisor, _dialler, mut peer) = attached().await;
    assert!(
        timeout(SECOND, supervisor.wait(KEY, 30 * SECOND))
            .await
            .is_err()
    );
    let (late, _) = peer.request().await;
    peer.reply(late, Reply::Done).await;
    assert!(matches!(supervisor.ended().await, EndReason::Broken(_)));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_sandbox_ends_every_wait() {
    let (supervisor, dialler, peer) = attached().await;
    let ending = async {
        sleep(SECOND).await;
        drop((dialler, peer));
    };
    let (waited, ended, ()) = tokio::join!(
        supervisor.wait(KEY, 30 * SECOND),
        supervisor.ended(),
        ending
    );
    assert_eq!(waited, Err(SupervisorError::Ended));
    assert_eq!(ended, EndReason::Gone);
    assert_eq!(supervisor.list().await, Err(SupervisorError::Ended));
    assert_eq!(supervisor.shutdown().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_hangs_up_and_stops_listening() {
    let (supervisor, dialler, mut peer) = attached().await;
    let clone = supervisor.clone();
    drop(supervisor);
    sleep(SECOND).await;
    assert!(!dialler.0.is_closed());
    drop(clone);
    assert_eq!(peer.hear().await, None);
    assert!(dialler.0.is_closed());
}

#[tokio::test(start_paused = true)]
async fn large_waits_and_chunks_are_cut_to_what_the_wire_allows() {
    let (supervisor, _dialler, mut peer) = attached().await;
    let script = async {
        let (id, request) = peer.request().await;
        let Request::Read {
            max_bytes, wait_ms, ..
        } = request
        else {
            panic!("{request:?}")
        };
        assert_eq!(
            (max_bytes as usize, wait_ms),
            (wire::MAX_CHUNK_BYTES, wire::MAX_WAIT_MS)
        );
        let status = StreamStatus {
            kept_from: 0,
            total_bytes: 1 << 20,
            ended: false,
        };
        let data = vec![1; wire::MAX_CHUNK_BYTES];
        peer.reply(
            id,
            Reply::Output(OutputChunk {
                offset: 0,
                data,
                status,
            }),
        )
        .await;
        let (id, request) = peer.request().await;
        let Request::WriteStdin { data, close, .. } = request else {
            panic!("{request:?}")
        };
        assert_eq!((data.len(), close), (wire::MAX_CHUNK_BYTES, false));
        peer.reply(id, Reply::Accepted(data.len() as u32)).await;
    };
    let asking = async {
        let chunk = supervisor
            .read(KEY, Stream::Stdout, 0, u32::MAX, Duration::MAX)
            .await
            .unwrap();
        assert_eq!(chunk.data.len(), wire::MAX_CHUNK_BYTES);
        let written = supervisor.write_stdin(KEY, &vec![0; 1 << 20], true).await;
        assert_eq!(written, Ok(wire::MAX_CHUNK_BYTES));
    };
    tokio::join!(asking, script);
    let huge = StartSpec {
        argv: vec![vec![b'x'; wire::MAX_TO_SUPERVISOR_BYTES]],
        ..start_spec()
    };
    assert!(matches!(
        supervisor.start(huge).await,
        Err(SupervisorError::Unsendable(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn renewing_and_ending_overtake_what_stands_in_line() {
    let (supervisor, dialler, first) = attached().await;
    drop(first);
    sleep(SECOND).await;
    let script = async {
        sleep(SECOND).await;
        let mut second = dialler.greet().await;
        second.welcome().await;
        assert!(matches!(second.request().await.1, Request::Shutdown));
        assert!(matches!(
            second.request().await.1,
            Request::RenewLease { .. }
        ));
        assert!(matches!(second.request().await.1, Request::List));
        drop((second, dialler));
    };
    let renewing = async {
        sleep(SECOND / 10).await;
        tokio::join!(supervisor.renew_lease(SECOND), async {
            sleep(SECOND / 10).await;
            supervisor.shutdown().await
        })
    };
    let (listed, (renewed, shut_down), ()) = tokio::join!(supervisor.list(), renewing, script);
    assert_eq!(shut_down, Ok(()));
    assert_eq!(
        (listed.map(drop), renewed),
        (Err(SupervisorError::Ended), Err(SupervisorError::Ended))
    );
}

#[tokio::test(start_paused = true)]
async fn progress_is_remembered_across_a_reconnect() {
    let (supervisor, dialler, mut first) = attached().await;
    let grown = |total_bytes| {
        let stdout = StreamStatus {
            kept_from: 0,
            total_bytes,
            ended: false,
        };
        Reply::Status(ExecutionStatus {
            stdout,
            ..status(KEY)
        })
    };
    let script = async {
        let (id, _) = first.request().await;
        first.reply(id, grown(10)).await;
        first.request().await;
        drop(first);
        let mut second = dialler.greet().await;
        second.welcome().await;
        let (id, _) = second.request().await;
        second.reply(id, grown(9)).await;
        second
    };
    let asking = async {
        supervisor.wait(KEY, Duration::ZERO).await.unwrap();
        supervisor.wait(KEY, Duration::ZERO).await
    };
    let (shrunk, _second) = tokio::join!(asking, script);
    assert!(matches!(shrunk, Err(SupervisorError::Protocol(what)) if what.contains("shrank")));
}

fn file(path: &str, size: u64) -> TransferFrame {
    TransferFrame::Entry(Entry {
        path: path.into(),
        kind: EntryKind::File { size },
        mode: 0o644,
        mtime: 0,
    })
}

/// Opens an import and gives both ends of it.
async fn import() -> (
    Supervisor,
    sandbox::Import,
    peer::Peer,
    (peer::Dialler, peer::Peer),
) {
    let (supervisor, dialler, mut control) = attached().await;
    let mut data = dialler.dial().await;
    let opening = async {
        let (id, request) = control.request().await;
        let Request::OpenTransfer(spec) = request else {
            panic!("{request:?}")
        };
        data.say(&ToHost::TransferHello {
            transfer: spec.transfer,
        })
        .await;
        control.reply(id, Reply::Done).await;
    };
    let (import, ()) = tokio::join!(supervisor.import(b"/x", Vec::new(), LIMITS), opening);
    (supervisor, import.unwrap(), data, (dialler, control))
}

#[tokio::test(start_paused = true)]
async fn an_import_ends_with_the_counts_of_both_sides() {
    let (supervisor, mut import, mut data, _rest) = import().await;
    import.send(file("", 3)).await.unwrap();
    import
        .send(TransferFrame::Data(b"abc".to_vec()))
        .await
        .unwrap();
    let script = async {
        let mut last = None;
        while !matches!(last, Some(TransferFrame::End(_))) {
            last = data.transfer().await;
        }
        data.say(&ToHost::Transfer(last.unwrap())).await;
    };
    let (finished, ()) = tokio::join!(import.finish(), script);
    assert_eq!(
        finished,
        Ok(TransferEnd::Complete {
            entries: 1,
            bytes: 3
        })
    );
    assert!(supervisor.is_connected());
}

#[tokio::test(start_paused = true)]
async fn an_import_sends_nothing_that_breaks_the_rules() {
    let (supervisor, mut import, mut data, _rest) = import().await;
    import.send(file("", 3)).await.unwrap();
    for wrong in [
        file("a", 0),
        TransferFrame::Data(vec![0; 4]),
        TransferFrame::Data(Vec::new()),
    ] {
        assert!(import.send(wrong.clone()).await.is_err(), "{wrong:?}");
    }
    assert!(
        matches!(import.finish().await, Err(TransferError::Invalid(_))),
        "content is missing"
    );
    assert_eq!(data.transfer().await, Some(file("", 3)));
    assert_eq!(data.transfer().await, None);
    assert!(
        supervisor.is_connected(),
        "our own mistakes do not blame the supervisor"
    );
}

#[tokio::test(start_paused = true)]
async fn an_import_hears_a_refusal_while_it_sends() {
    let (_supervisor, mut import, mut data, _rest) = import().await;
    import.send(file("", 1 << 20)).await.unwrap();
    let refusal = TransferEnd::Refused {
        fault: fault(FaultKind::System),
        path: b"x".to_vec(),
    };
    data.say(&ToHost::Transfer(TransferFrame::End(refusal)))
        .await;
    let error = import
        .send(TransferFrame::Data(vec![0; 1000]))
        .await
        .unwrap_err();
    assert_eq!(
        error,
        TransferError::Refused {
            fault: fault(FaultKind::System),
            path: b"x".to_vec()
        }
    );
}

#[tokio::test(start_paused = true)]
async fn an_import_that_is_claimed_complete_too_early_breaks_the_sandbox() {
    let (supervisor, mut import, mut data, _rest) = import().await;
    import.send(file("", 10)).await.unwrap();
    data.write(&frame(&ToHost::Transfer(TransferFrame::End(
        TransferEnd::Complete {
            entries: 1,
            bytes: 10,
        },
    ))))
    .await;
    assert!(matches!(
        import.send(TransferFrame::Data(vec![0; 9])).await,
        Err(TransferError::Protocol(_))
    ));
    assert!(matches!(supervisor.ended().await, EndReason::Broken(_)));
}

#[tokio::test(start_paused = true)]
async fn transfers_are_few_and_a_finished_one_makes_place() {
    let (supervisor, _dialler, mut control) = attached().await;
    let faults = async {
        loop {
            let (id, _) = control.request().await;
            sleep(SECOND).await;
            control
                .say(&ToHost::Reply {
                    id,
                    result: Err(fault(FaultKind::BadPath)),
                })
                .await;
        }
    };
    let asking = async {
        let opened =
            futures::future::join_all((0..9).map(|_| supervisor.export(b"/x", LIMITS))).await;
        let refused = |result: &&Result<_, _>| matches!(result, Err(SupervisorError::TooManyOpen));
        assert_eq!(opened.iter().filter(refused).count(), 1);
        assert!(matches!(
            supervisor.export(b"/x", LIMITS).await.map(drop),
            Err(SupervisorError::Fault(_))
        ));
    };
    tokio::select! {
        () = asking => {}
        () = faults => {}
    }
}

#[tokio::test(start_paused = true)]
async fn every_wait_has_a_deadline() {
    let (supervisor, _dialler, _peer) = attached().await;
    let started = Instant::now();
    assert!(matches!(
        supervisor.wait(KEY, 5 * SECOND).await,
        Err(SupervisorError::Timeout(_))
    ));
    assert_eq!(started.elapsed(), 15 * SECOND);
    assert!(matches!(
        supervisor.shutdown().await,
        Err(SupervisorError::Timeout(_))
    ));
}

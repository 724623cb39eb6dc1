//! A supervisor that was taken over: whatever it says, the client notices and does not hang.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a set-up that fails fails its test"
)]

mod peer;

use std::time::Duration;

use peer::{KEY, LEASE, PATIENCE, Peer, attached, fault, frame, hello, link, status};
use proptest::prelude::*;
use sandbox::{EndReason, Supervisor, SupervisorError, TransferError, TransferLimits};
use tokio::time::timeout;
use wire::{
    Cause, Ended, Entry, EntryKind, ExecutionStatus, Exit, Fault, FaultKind, MAX_EXECUTIONS,
    OutputChunk, Reply, Stream, StreamStatus, ToHost, TransferEnd, TransferFrame,
};

/// What the client asks while the supervisor misbehaves.
#[derive(Debug, Clone, Copy)]
enum Ask {
    Read,
    Wait,
    Write,
    List,
}

impl Ask {
    async fn of(self, supervisor: &Supervisor) -> Result<(), SupervisorError> {
        match self {
            Ask::Read => supervisor
                .read(KEY, Stream::Stdout, 10, 4, Duration::ZERO)
                .await
                .map(drop),
            Ask::Wait => supervisor.wait(KEY, Duration::ZERO).await.map(drop),
            Ask::Write => supervisor.write_stdin(KEY, b"abc", false).await.map(drop),
            Ask::List => supervisor.list().await.map(drop),
        }
    }
}

fn ok(reply: Reply) -> impl Fn(u64) -> Vec<u8> {
    move |id| {
        frame(&ToHost::Reply {
            id,
            result: Ok(reply.clone()),
        })
    }
}

fn chunk(offset: u64, data: &[u8], kept_from: u64, total_bytes: u64) -> Reply {
    let status = StreamStatus {
        kept_from,
        total_bytes,
        ended: false,
    };
    Reply::Output(OutputChunk {
        offset,
        data: data.to_vec(),
        status,
    })
}

fn ended(exit: Exit) -> Option<Ended> {
    Some(Ended {
        exit,
        cause: Cause::Itself,
        swept: 0,
    })
}

fn stream(total_bytes: u64, ended: bool) -> StreamStatus {
    StreamStatus {
        kept_from: 0,
        total_bytes,
        ended,
    }
}

type Answer = Box<dyn Fn(u64) -> Vec<u8>>;

/// Plays one answer to each ask and returns the last result.
async fn play(asks: &[(Ask, Answer)]) -> (Supervisor, Result<(), SupervisorError>) {
    let (supervisor, dialler, mut peer) = attached().await;
    let mut last = Ok(());
    for (ask, answer) in asks {
        let answering = async {
            let (id, _) = peer.request().await;
            peer.write(&answer(id)).await;
        };
        (last, ()) = tokio::join!(ask.of(&supervisor), answering);
    }
    // What follows a complete answer is noticed even if nobody waits for it.
    tokio::time::sleep(Duration::from_millis(10)).await;
    // The sandbox stays there: only what it said can end it.
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        drop((dialler, peer));
    });
    (supervisor, last)
}

fn cases() -> Vec<(&'static str, Vec<(Ask, Answer)>)> {
    fn one(ask: Ask, answer: impl Fn(u64) -> Vec<u8> + 'static) -> Vec<(Ask, Answer)> {
        vec![(ask, Box::new(answer))]
    }
    fn wait(status: ExecutionStatus) -> (Ask, Answer) {
        (Ask::Wait, Box::new(ok(Reply::Status(status))))
    }
    let honest = || {
        frame(&ToHost::Reply {
            id: 1,
            result: Ok(Reply::Done),
        })
    };
    let with = |stdout| ExecutionStatus {
        stdout,
        ..status(KEY)
    };
    let over = |exit| ExecutionStatus {
        ended: ended(exit),
        ..status(KEY)
    };
    let long_step = Fault {
        step: "s".repeat(257),
        ..fault(FaultKind::System)
    };
    vec![
        (
            "nobody asked for",
            one(Ask::List, |_| {
                frame(&ToHost::Reply {
                    id: 999,
                    result: Ok(Reply::Done),
                })
            }),
        ),
        (
            "nobody asked for",
            one(Ask::List, |id| ok(Reply::Executions(vec![]))(id).repeat(2)),
        ),
        ("over the limit", one(Ask::List, |_| vec![0xff; 4])),
        (
            "does not decode",
            one(Ask::List, |_| {
                [&8u32.to_le_bytes()[..], &[0xff; 8]].concat()
            }),
        ),
        (
            "after its message",
            one(Ask::List, move |_| {
                let mut longer = honest();
                longer.push(0);
                longer[0] += 1;
                longer
            }),
        ),
        ("wrong kind", one(Ask::Read, ok(Reply::Done))),
        ("wrong kind", one(Ask::List, ok(Reply::Status(status(KEY))))),
        ("wrong kind", one(Ask::Wait, ok(chunk(10, b"", 0, 10)))),
        (
            "another execution",
            one(Ask::Wait, ok(Reply::Status(status([8; 16])))),
        ),
        (
            "more output came than asked",
            one(Ask::Read, ok(chunk(10, b"12345", 0, 15))),
        ),
        (
            "before the offset",
            one(Ask::Read, ok(chunk(9, b"1234", 0, 13))),
        ),
        (
            "behind the end",
            one(Ask::Read, ok(chunk(10, b"1234", 0, 13))),
        ),
        (
            "behind the end",
            one(Ask::Read, ok(chunk(u64::MAX, b"1", u64::MAX, u64::MAX))),
        ),
        ("behind the end", one(Ask::Read, ok(chunk(9, b"1", 0, 9)))),
        ("still kept", one(Ask::Read, ok(chunk(12, b"1", 11, 13)))),
        (
            "keeps more than it has",
            one(Ask::Read, ok(chunk(10, b"", 12, 11))),
        ),
        ("more input", one(Ask::Write, ok(Reply::Accepted(4)))),
        (
            "more executions",
            one(
                Ask::List,
                ok(Reply::Executions(
                    (0..=MAX_EXECUTIONS)
                        .map(|number| status((number as u128).to_le_bytes()))
                        .collect(),
                )),
            ),
        ),
        (
            "listed twice",
            one(
                Ask::List,
                ok(Reply::Executions(vec![status(KEY), status(KEY)])),
            ),
        ),
        (
            "exit code is out of range",
            vec![wait(over(Exit::Code(256)))],
        ),
        (
            "exit code is out of range",
            vec![wait(over(Exit::Code(-1)))],
        ),
        ("signal is out of range", vec![wait(over(Exit::Signal(65)))]),
        ("signal is out of range", vec![wait(over(Exit::Signal(0)))]),
        (
            "ended twice",
            vec![wait(over(Exit::Code(0))), wait(over(Exit::Code(1)))],
        ),
        (
            "ended twice",
            vec![wait(over(Exit::Code(0))), wait(status(KEY))],
        ),
        (
            "shrank",
            vec![wait(with(stream(10, false))), wait(with(stream(9, false)))],
        ),
        (
            "after its end",
            vec![wait(with(stream(10, true))), wait(with(stream(11, true)))],
        ),
        (
            "after its end",
            vec![wait(with(stream(10, true))), wait(with(stream(10, false)))],
        ),
        (
            "too long a step",
            one(Ask::List, move |id| {
                frame(&ToHost::Reply {
                    id,
                    result: Err(long_step.clone()),
                })
            }),
        ),
        (
            "greeted twice",
            one(Ask::List, |_| frame(&ToHost::Hello(Box::new(hello())))),
        ),
        (
            "greeted twice",
            one(Ask::List, |_| frame(&ToHost::TransferHello { transfer: 1 })),
        ),
        (
            "control connection",
            one(Ask::List, |_| {
                frame(&ToHost::Transfer(TransferFrame::Data(vec![1])))
            }),
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn honest_answers_pass() {
    let honest: Vec<(Ask, Answer)> = vec![
        (Ask::Wait, Box::new(ok(Reply::Status(status(KEY))))),
        (Ask::Read, Box::new(ok(chunk(10, b"1234", 0, 14)))),
        (Ask::Read, Box::new(ok(chunk(12, b"12", 12, 14)))),
        (Ask::Write, Box::new(ok(Reply::Accepted(3)))),
        (
            Ask::List,
            Box::new(ok(Reply::Executions(vec![ExecutionStatus {
                stdout: StreamStatus {
                    kept_from: 12,
                    ..stream(14, true)
                },
                ended: ended(Exit::Code(255)),
                ..status(KEY)
            }]))),
        ),
        (
            Ask::Read,
            Box::new(|id| {
                frame(&ToHost::Reply {
                    id,
                    result: Err(fault(FaultKind::UnknownExecution)),
                })
            }),
        ),
    ];
    for count in 1..=honest.len() {
        let (supervisor, last) = play(&honest[..count]).await;
        assert_eq!(last.is_ok(), count < honest.len(), "{last:?}");
        assert!(supervisor.is_connected());
        assert!(
            timeout(PATIENCE, supervisor.ended()).await.is_err(),
            "nothing ended it"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_beyond_the_end_is_the_end() {
    let (_, last) = play(&[(Ask::Read, Box::new(ok(chunk(3, b"", 0, 3))))]).await;
    assert_eq!(last, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn every_violation_breaks_the_sandbox() {
    for (violation, asks) in cases() {
        let (supervisor, last) = play(&asks).await;
        let reason = timeout(PATIENCE, supervisor.ended()).await;
        let Ok(EndReason::Broken(what)) = reason else {
            panic!("{violation}: {reason:?} after {last:?}")
        };
        assert!(
            what.contains(violation),
            "{violation:?} was due, {what:?} was found"
        );
        assert!(!supervisor.is_connected());
        // Nothing is asked of it any more.
        assert_eq!(
            supervisor.list().await,
            Err(SupervisorError::Protocol(what))
        );
    }
}

/// What a second connection may say, and what comes of it.
#[tokio::test(start_paused = true)]
async fn another_supervisor_in_its_place_breaks_the_sandbox() {
    let mut other_epoch = hello();
    other_epoch.epoch = [2; 16];
    let mut other_attestation = hello();
    other_attestation.attestation.uid = 5;
    let mut many_mounts = hello();
    let mount = wire::MountFact {
        target: String::new(),
        kind: String::new(),
        read_only: true,
        nosuid: true,
        nodev: true,
        size_bytes: 0,
    };
    many_mounts.attestation.mounts = vec![mount; wire::MAX_MOUNT_FACTS + 1];
    let greet = |hello| frame(&ToHost::Hello(Box::new(hello)));
    let openings: [(Option<&str>, Vec<u8>); 6] = [
        (None, greet(hello())),
        (Some("another supervisor"), greet(other_epoch)),
        (Some("another attestation"), greet(other_attestation)),
        (Some("more mounts"), greet(many_mounts)),
        (
            Some("without a greeting"),
            frame(&ToHost::Reply {
                id: 1,
                result: Ok(Reply::Done),
            }),
        ),
        (Some("over the limit"), vec![0xff; 4]),
    ];
    for (violation, opening) in openings {
        let (supervisor, dialler, first) = attached().await;
        drop(first);
        let mut second = dialler.dial().await;
        second.write(&opening).await;
        match (violation, timeout(PATIENCE, supervisor.ended()).await) {
            (None, Err(_)) => assert!(supervisor.is_connected()),
            (Some(violation), Ok(EndReason::Broken(what))) => {
                assert!(what.contains(violation), "{what}")
            }
            (violation, reason) => panic!("{violation:?}: {reason:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_redials_all_the_time_breaks_the_sandbox() {
    let (supervisor, dialler, _first) = attached().await;
    let mut connections = Vec::new();
    for _ in 0..31 {
        connections.push(dialler.greet().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let reason = timeout(PATIENCE, supervisor.ended()).await;
    assert!(matches!(reason, Ok(EndReason::Broken(what)) if what.contains("redials")));
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_question_breaks_the_sandbox() {
    let (supervisor, dialler, mut first) = attached().await;
    let script = async {
        let (id, _) = first.request().await;
        drop(first);
        // The question is still to be asked on the new connection, and its number is known.
        let mut second = dialler.dial().await;
        let greeting = frame(&ToHost::Hello(Box::new(hello())));
        second
            .write(&[greeting, ok(Reply::Executions(Vec::new()))(id)].concat())
            .await;
        (dialler, second)
    };
    let (listed, _rest) = tokio::join!(supervisor.list(), script);
    assert!(
        matches!(listed, Err(SupervisorError::Protocol(what)) if what.contains("nobody asked for"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_never_answers_costs_bounded_time_and_room() {
    let (supervisor, _dialler, _peer) = attached().await;
    let hanging = supervisor.wait(KEY, Duration::from_secs(1)).await;
    assert_eq!(
        hanging,
        Err(SupervisorError::Timeout("waiting for an execution"))
    );
    let asked = (0..2000).map(|_| supervisor.wait(KEY, Duration::from_secs(1)));
    let results = futures::future::join_all(asked).await;
    let refused = results
        .iter()
        .filter(|result| **result == Err(SupervisorError::TooManyOpen))
        .count();
    assert!(refused > 1000, "{refused} were refused");
}

#[tokio::test(start_paused = true)]
async fn silent_connections_hold_up_nobody() {
    let (link, dialler) = link();
    let silent = [
        dialler.dial().await,
        dialler.dial().await,
        dialler.dial().await,
    ];
    let _peer = dialler.greet().await;
    assert!(Supervisor::attach(link, LEASE, PATIENCE).await.is_ok());
    drop(silent);
}

const LIMITS: TransferLimits = TransferLimits {
    max_entries: 3,
    max_bytes: 100,
};

fn entry(path: &str, kind: EntryKind) -> TransferFrame {
    TransferFrame::Entry(Entry {
        path: path.into(),
        kind,
        mode: 0o755,
        mtime: 0,
    })
}

/// An export whose frames are these.
async fn export(frames: Vec<TransferFrame>) -> (Supervisor, Result<usize, TransferError>) {
    let (supervisor, dialler, mut control) = attached().await;
    let mut data = dialler.dial().await;
    let playing = async {
        let (id, request) = control.request().await;
        let wire::Request::OpenTransfer(spec) = request else {
            panic!("{request:?}")
        };
        control.reply(id, Reply::Done).await;
        data.say(&ToHost::TransferHello {
            transfer: spec.transfer,
        })
        .await;
        for frame in frames {
            data.say(&ToHost::Transfer(frame)).await;
        }
    };
    let (export, ()) = tokio::join!(supervisor.export(b"/x", LIMITS), playing);
    let mut export = export.unwrap();
    let mut count = 0;
    let result = loop {
        match export.next().await {
            Ok(Some(_)) => count += 1,
            Ok(None) => break Ok(count),
            Err(error) => break Err(error),
        }
    };
    // Keeps the connections until the result is there.
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop((dialler, control, data));
    (supervisor, result)
}

fn complete(entries: u64, bytes: u64) -> TransferFrame {
    TransferFrame::End(TransferEnd::Complete { entries, bytes })
}

#[tokio::test(start_paused = true)]
async fn a_hostile_export_breaks_the_sandbox() {
    let root = || entry("", EntryKind::Directory);
    let file = |size| entry("f", EntryKind::File { size });
    let data = |count| TransferFrame::Data(vec![0; count]);
    let (_, honest) = export(vec![root(), file(2), data(1), data(1), complete(2, 2)]).await;
    assert_eq!(honest, Ok(4));

    let hostile = [
        vec![entry("../x", EntryKind::Directory)],
        vec![root(), entry("../x", EntryKind::Directory)],
        vec![root(), entry("/etc", EntryKind::Directory)],
        vec![root(), root()],
        vec![root(), entry("a/b", EntryKind::Directory)],
        vec![root(), file(101)],
        vec![root(), file(u64::MAX)],
        vec![root(), file(2), data(3)],
        vec![root(), file(2), data(0)],
        vec![root(), data(1)],
        vec![root(), file(2), data(1), complete(2, 1)],
        vec![root(), file(2), data(2), complete(2, 3)],
        vec![root(), file(2), data(2), complete(3, 2)],
        vec![complete(0, 0)],
        (0..4)
            .map(|number| {
                entry(
                    if number == 0 {
                        ""
                    } else {
                        ["", "a", "b", "c"][number]
                    },
                    EntryKind::Directory,
                )
            })
            .collect(),
    ];
    for frames in hostile {
        let (supervisor, result) = export(frames.clone()).await;
        assert!(
            matches!(result, Err(TransferError::Protocol(_))),
            "{frames:?}: {result:?}"
        );
        assert!(
            matches!(supervisor.ended().await, EndReason::Broken(_)),
            "{frames:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_out_of_the_tree_stops_an_export_and_no_more() {
    let link = EntryKind::Link {
        target: b"../../etc".to_vec(),
    };
    let (_, result) = export(vec![entry("", EntryKind::Directory), entry("l", link)]).await;
    assert_eq!(
        result,
        Err(TransferError::LinkLeaves {
            path: b"l".to_vec()
        })
    );
}

#[tokio::test(start_paused = true)]
async fn an_export_that_stands_still_or_drops_ends() {
    let (_, result) = export(vec![entry("", EntryKind::Directory)]).await;
    assert_eq!(result, Err(TransferError::Stalled));
    let (supervisor, dialler, mut control) = attached().await;
    let opening = async {
        let (id, _) = control.request().await;
        control.reply(id, Reply::Done).await;
        // Another number than asked: nobody waits for that one.
        let mut data = dialler.dial().await;
        data.say(&ToHost::TransferHello { transfer: 1 }).await;
    };
    let (export, ()) = tokio::join!(supervisor.export(b"/x", LIMITS), opening);
    assert!(matches!(export.map(drop), Err(SupervisorError::Timeout(_))));
}

/// Answers everything with arbitrary bytes, on both kinds of connection.
async fn babble(pieces: Vec<Vec<u8>>, after_greeting: bool) {
    let (link, dialler) = link();
    let peers: Vec<Peer> = if after_greeting {
        vec![dialler.greet().await]
    } else {
        Vec::new()
    };
    let speaking = async {
        let mut peers = peers;
        for piece in pieces {
            if peers.is_empty() {
                peers.push(dialler.dial().await);
            }
            for peer in &mut peers {
                peer.write(&piece).await;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let asking = async {
        let Ok((supervisor, _)) = Supervisor::attach(link, LEASE, PATIENCE).await else {
            return;
        };
        let wait = Duration::from_millis(20);
        let _ = supervisor.read(KEY, Stream::Stdout, 0, 100, wait).await;
        let _ = supervisor.wait(KEY, wait).await;
        let _ = supervisor.export(b"/x", LIMITS).await;
    };
    // Simulated time: whatever waits longer than all its deadlines together waits for ever.
    let (answered, ()) = tokio::join!(timeout(Duration::from_secs(120), asking), speaking);
    answered.unwrap();
}

/// Bytes that are partly well-formed frames, so that more than the envelope is reached.
fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    let framed = prop::collection::vec(any::<u8>(), 0..60)
        .prop_map(|body| [&u32::try_from(body.len()).unwrap().to_le_bytes()[..], &body].concat());
    let reply = (1u64..4, any::<u32>()).prop_map(|(id, count)| {
        frame(&ToHost::Reply {
            id,
            result: Ok(Reply::Accepted(count)),
        })
    });
    let output = (
        1u64..3,
        any::<u64>(),
        any::<u64>(),
        prop::collection::vec(any::<u8>(), 0..150),
    )
        .prop_map(|(id, offset, total, data)| {
            let status = StreamStatus {
                kept_from: offset,
                total_bytes: total,
                ended: false,
            };
            let chunk = OutputChunk {
                offset,
                data,
                status,
            };
            frame(&ToHost::Reply {
                id,
                result: Ok(Reply::Output(chunk)),
            })
        });
    prop::collection::vec(prop_oneof![noise, framed, reply, output], 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn arbitrary_bytes_never_panic_or_hang_the_client(pieces in pieces(), after_greeting: bool) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(babble(pieces, after_greeting));
    }
}

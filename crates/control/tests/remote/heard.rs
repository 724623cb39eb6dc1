//! What remote callers name and hear of: no path of the host, and files by their content.

use std::path::Path;

use sandbox::{BackendError, fake::Verb};

use super::*;

/// No reply and no refusal to a remote caller names a directory of the host.
#[tokio::test]
async fn a_remote_caller_hears_no_path_of_the_host() {
    let house = House::new();
    let (id, who) = house.key(ALL, None).await;
    let (_, admin) = house.key("admin", None).await;
    let session = house.create(&who, "app").await.expect("a session");
    let Ok(Outcome::Session(view)) = house.call(&who, Action::GetSession(session)).await else {
        panic!("no session")
    };
    assert_eq!(view.project_path, Path::new("app"));
    let path = house.root().join("app").display().to_string();
    let long = Duration::from_secs(5);
    let actions = [
        create(&path, None),
        create("../more/both", None),
        create("nothing", None),
        create("app", Some("k")),
        create("other", Some("k")),
        run(session, "true", long),
        run(session, "no-such-program", long),
        Action::ListSessions { ended: true },
        Action::GetServerInfo,
        Action::GetSessionLogs { session, tail: 50 },
        write(session, "/workspace/a", b"x", 0, None, true),
        write(session, "/workspace/.git/hooks/a", b"x", 0, None, true),
        read(session, "/workspace/none", 0, 1, None),
        Action::TransferFiles(model::TransferFiles {
            session,
            direction: model::TransferDirection::ToContainer,
            source: path.clone().into(),
            destination: "/workspace/b".into(),
        }),
        Action::DestroySession(session),
        Action::GetSession(session),
        Action::ListKeys,
        Action::RevokeKey {
            key: id,
            destroy_sessions: false,
        },
    ];
    let base = house
        .base
        .path()
        .canonicalize()
        .expect("a path")
        .display()
        .to_string();
    let mut heard = String::new();
    for action in actions {
        for who in [&who, &admin] {
            let name = action.name();
            let said = match house.call(who, action.clone()).await {
                Ok(outcome) => format!("{outcome:?}"),
                Err(mut refusal) => {
                    refusal.detail = None;
                    format!("{refusal:?}")
                }
            };
            for hidden in [base.as_str(), "roots-of-canary", "/somewhere/on/the/host"] {
                assert!(!said.contains(hidden), "{name} tells {hidden}: {said}");
            }
            heard.push_str(&said);
        }
    }
    assert!(
        heard.contains("path_not_allowed") || heard.contains("PathNotAllowed"),
        "{heard}"
    );
    let Ok(Outcome::Keys(keys)) = house.call(&local(), Action::ListKeys).await else {
        panic!("no keys")
    };
    assert_eq!(
        keys[0].roots,
        [house.root()],
        "the control: whoever sits here sees it"
    );
}

/// P2a, S6: a backend that fails names sockets, files and programs of the host: a remote caller learns that it fails, whoever sits
/// here learns why.
#[tokio::test]
async fn a_remote_caller_hears_that_a_backend_fails_and_not_what_it_says_of_the_host() {
    let house = House::new();
    let (_, who) = house.key(ALL, None).await;
    house.fake.fail(Verb::Create, || BackendError::Unavailable {
        why: "nothing listens at /run/user/7/docker.sock".to_owned(),
        remedy: "start it by /usr/lib/systemd/user/docker.service".to_owned(),
    });
    let refusal = house.create(&who, "app").await.expect_err("it fails");
    assert_eq!(refusal.reason, Reason::BackendUnavailable);
    let words = format!("{} {}", refusal.message, refusal.hint);
    assert!(!words.contains('/') && !words.contains("docker"), "{words}");
    let local = create(&house.root().join("app").display().to_string(), None);
    let told = house.call(&local_within(&house), local).await;
    let told = told.expect_err("it fails");
    let words = format!("{} {}", told.message, told.hint);
    assert!(
        words.contains("/run/user/7/docker.sock") && words.contains("docker.service"),
        "the control: {told:?}"
    );
    house.fake.heal(Verb::Create);
    house
        .create(&who, "app")
        .await
        .expect("the control: a session");
}

/// Content goes in and out, in one piece and in several; a handle is its owner's, in its session, in its order.
#[tokio::test]
async fn files_go_by_content_in_pieces() {
    let house = House::new();
    let (_, who) = house.key(ALL, None).await;
    let session = house.create(&who, "app").await.expect("a session");
    let wrote = |outcome| match outcome {
        Ok(Outcome::FileWritten(written)) => written,
        other => panic!("not written: {other:?}"),
    };
    let chunk = |outcome| match outcome {
        Ok(Outcome::FileRead(chunk)) => chunk,
        other => panic!("not read: {other:?}"),
    };
    let whole = wrote(
        house
            .call(
                &who,
                write(session, "/workspace/small", b"hello", 0, None, true),
            )
            .await,
    );
    assert_eq!((whole.bytes, whole.upload), (5, None));
    let back = chunk(
        house
            .call(&who, read(session, "/workspace/small", 0, 100, None))
            .await,
    );
    assert_eq!(
        (back.content.as_slice(), back.download),
        (b"hello".as_slice(), None)
    );
    assert_eq!(back.sha256, whole.sha256);
    // 600 KiB in three pieces.
    let content: Vec<u8> = (0..600 * 1024_u32).map(|n| (n % 251) as u8).collect();
    let pieces: Vec<&[u8]> = content.chunks(model::MAX_INLINE_BYTES).collect();
    let first = wrote(
        house
            .call(
                &who,
                write(session, "/workspace/large", pieces[0], 0, None, false),
            )
            .await,
    );
    let handle = first.upload.expect("a handle");
    let large = |piece: &[u8], offset, last| {
        write(
            session,
            "/workspace/large",
            piece,
            offset,
            Some(handle),
            last,
        )
    };
    let (_, stranger) = house.key(ALL, None).await;
    let theirs = house.create(&stranger, "other").await.expect("a session");
    let foreign = write(
        theirs,
        "/workspace/large",
        pieces[1],
        first.bytes,
        Some(handle),
        true,
    );
    assert_eq!(
        reason(house.call(&stranger, foreign).await),
        Reason::InvalidArgument
    );
    assert_eq!(
        reason(house.call(&who, large(pieces[1], 1, false)).await),
        Reason::InvalidArgument
    );
    house
        .call(&who, read(session, "/workspace/large", 0, 1, None))
        .await
        .expect_err("it is not there before its last piece");
    let second = wrote(house.call(&who, large(pieces[1], first.bytes, false)).await);
    let third = wrote(house.call(&who, large(pieces[2], second.bytes, true)).await);
    assert_eq!((third.bytes, third.upload), (content.len() as u64, None));
    assert_eq!(
        reason(house.call(&who, large(b"x", third.bytes, true)).await),
        Reason::InvalidArgument
    );
    let (mut got, mut download) = (Vec::new(), None);
    loop {
        let offset = got.len() as u64;
        let piece = chunk(
            house
                .call(
                    &who,
                    read(session, "/workspace/large", offset, u64::MAX, download),
                )
                .await,
        );
        assert_eq!(
            (piece.total_bytes, piece.sha256),
            (content.len() as u64, third.sha256)
        );
        assert!(piece.content.len() <= model::MAX_INLINE_BYTES);
        got.extend_from_slice(&piece.content);
        download = piece.download;
        if download.is_none() {
            break;
        }
    }
    assert!(got == content);
    // Four under way, and no fifth.
    for n in 0..5 {
        let begun = house
            .call(&who, write(session, "/tmp/x", b"x", 0, None, false))
            .await;
        match n {
            0..4 => drop(wrote(begun)),
            _ => assert_eq!(reason(begun), Reason::LimitReached),
        }
    }
}

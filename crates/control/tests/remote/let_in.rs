//! Who is let in and until when, and what is theirs.

use super::*;

/// A key is one as long as it is whole, known, not over and not revoked, and whoever is not let in learns nothing.
#[tokio::test]
async fn a_key_is_let_in_until_it_ends_and_every_failure_is_alike_and_on_the_log() {
    let house = House::new();
    let (id, good) = house.key(ALL, None).await;
    let Credentials::ApiKey(text) = &good else {
        panic!("a key")
    };
    let known = house
        .control
        .authenticate(&good, &SOURCE)
        .await
        .expect("known");
    assert_eq!(known.name, format!("key:{id}"));
    assert_eq!(known.scopes.to_string(), ALL);
    // The same id with another secret; another key; half of one; nothing.
    let other = model::ApiKey {
        id,
        ..model::ApiKey::random().expect("random bytes")
    };
    let (short_id, short) = house.key(ALL, Some(Duration::from_secs(1))).await;
    let wrong = [
        other.text(),
        model::ApiKey::random().expect("random bytes").text(),
        Secret::new(text.expose()[..60].to_owned()),
        Secret::new(String::new()),
    ];
    let mut refusals = loop {
        match house.control.authenticate(&short, &SOURCE).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(refusal) => break vec![refusal],
        }
    };
    for text in wrong {
        let who = Credentials::ApiKey(text);
        refusals.push(
            house
                .control
                .authenticate(&who, &SOURCE)
                .await
                .expect_err("wrong"),
        );
        refusals.push(
            house
                .call(&who, Action::GetServerInfo)
                .await
                .expect_err("wrong"),
        );
    }
    assert!(
        refusals.iter().all(|refusal| *refusal == refusals[0]),
        "{refusals:?}"
    );
    assert_eq!(refusals[0].reason, Reason::Unauthenticated);
    house.logged("auth.fail", 9).await;
    house.logged("key.first_use", 1).await;
    house.control.tell_ended_keys().await;
    house.logged("key.expire", 1).await;
    let log =
        std::fs::read_to_string(house.base.path().join("state/audit.jsonl")).expect("the log");
    for why in [
        "unknown",
        "malformed",
        "expired",
        "192.0.2.7",
        short_id.as_str(),
    ] {
        assert!(log.contains(why), "{why}: {log}");
    }
    // Neither a key nor any part of its secret is anywhere on the disk.
    let secret = model::ApiKey::parse(text.expose()).expect("a key").secret;
    for file in [
        "state/audit.jsonl",
        "state/state.db",
        "state/state.db-wal",
        "state/keys.pepper",
    ] {
        let bytes = std::fs::read(house.base.path().join(file)).expect("a file");
        let has = |text: &str| {
            bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        };
        assert!(!has(secret.expose()), "{file}");
        assert!(
            file != "state/state.db-wal" || has(id.as_str()),
            "the control: the id is on record"
        );
    }
}

/// A flood of strangers is counted, not written.
#[tokio::test]
async fn a_flood_of_failures_does_not_fill_the_log() {
    let house = House::new();
    for number in 0..500 {
        let who = Credentials::ApiKey(Secret::new("ccmcp_nothing".to_owned()));
        let source = Source {
            transport: Transport::Http,
            address: Some(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number))),
        };
        assert_eq!(
            reason(house.control.authenticate(&who, &source).await),
            Reason::Unauthenticated
        );
    }
    house.logged("auth.fail", 30).await;
    let written = house
        .records()
        .iter()
        .filter(|r| r.body.action == "auth.fail")
        .count();
    assert_eq!(written, 30);
}

/// P2c: failures are limited by where they come from, without a look at the keys; what was right there before goes on.
#[tokio::test]
async fn after_many_failures_an_address_is_not_listened_to_but_for_keys_that_were_right_there() {
    let house = House::new();
    let (_, known) = house.key(ALL, None).await;
    let (_, late) = house.key(ALL, None).await;
    let ask =
        async |who: &Credentials, source: &Source| house.control.authenticate(who, source).await;
    assert!(ask(&known, &SOURCE).await.is_ok());
    let guess = Credentials::ApiKey(Secret::new("ccmcp_guess".to_owned()));
    let mut seen = Vec::new();
    for _ in 0..20 {
        seen.push(reason(ask(&guess, &SOURCE).await));
    }
    let looked_at = seen
        .iter()
        .filter(|it| **it == Reason::Unauthenticated)
        .count();
    assert_eq!(looked_at, 11, "{seen:?}");
    let refused = ask(&late, &SOURCE).await.expect_err("not listened to");
    assert_eq!(refused.reason, Reason::RateLimited);
    assert!(
        refused.retry_after_ms.is_some_and(|told| told <= 1_000),
        "{refused:?}"
    );
    assert!(
        house.control.may_authenticate(&SOURCE).is_err(),
        "nor to tokens"
    );
    assert!(
        ask(&known, &SOURCE).await.is_ok(),
        "it was right there before"
    );
    let elsewhere = Source {
        transport: Transport::Http,
        address: Some(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1))),
    };
    assert!(ask(&late, &elsewhere).await.is_ok(), "another address");
    // What a door finds wrong counts as well.
    for _ in 0..11 {
        let answer = house.control.authentication_failed(&elsewhere, "signature");
        assert_eq!(answer.reason, Reason::Unauthenticated);
    }
    assert!(house.control.may_authenticate(&elsewhere).is_err());
}

/// Revocation holds at once, also for a call that waits; the sessions stay unless they are to end, too.
#[tokio::test]
async fn a_revoked_key_ends_waits_within_a_second_and_its_sessions_when_asked() {
    let house = House::new();
    let (id, who) = house.key(ALL, None).await;
    let session = house.create(&who, "app").await.expect("a session");
    let waiting = house.call(&who, run(session, "sleep 60", Duration::from_secs(40)));
    let revoking = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let revoke = |destroy_sessions| Action::RevokeKey {
            key: id,
            destroy_sessions,
        };
        let Ok(Outcome::KeyRevoked(first)) = house.call(&local(), revoke(false)).await else {
            panic!("not revoked")
        };
        (first, tokio::time::Instant::now(), revoke(true))
    };
    let (answer, (first, revoked_at, again)) = tokio::join!(
        async { (waiting.await, tokio::time::Instant::now()) },
        revoking
    );
    assert_eq!(reason(answer.0), Reason::Unauthenticated);
    assert!(answer.1.saturating_duration_since(revoked_at) < Duration::from_secs(1));
    assert_eq!((first.left, first.destroyed.len()), (1, 0));
    assert_eq!(
        reason(house.call(&who, Action::GetSession(session)).await),
        Reason::Unauthenticated
    );
    assert_eq!(
        house.fake.list().await.expect("a list").len(),
        1,
        "the session lives on"
    );
    let Ok(Outcome::KeyRevoked(second)) = house.call(&local(), again).await else {
        panic!("not revoked")
    };
    assert_eq!(
        (second.left, second.destroyed.as_slice()),
        (0, [session].as_slice())
    );
    assert!(house.fake.list().await.expect("a list").is_empty());
    house.logged("session.reap", 2).await;
    let house = house.restart();
    assert_eq!(
        reason(house.control.authenticate(&who, &SOURCE).await),
        Reason::Unauthenticated
    );
}

/// Sessions belong to the line of a key: they are there after a rotation and after a restart, and for nobody else.
#[tokio::test]
async fn sessions_belong_to_their_creator_through_rotation_and_restart() {
    let house = House::new();
    let (id, old) = house.key(ALL, None).await;
    let (_, stranger) = house.key(ALL, None).await;
    let holder = token("somebody", ALL, Duration::from_secs(600));
    let session = house.create(&old, "app").await.expect("a session");
    let tokens = house
        .create(&holder, "other")
        .await
        .expect("a session of a token's holder");
    let overlap = Duration::from_secs(600);
    let rotate = Action::RotateKey { key: id, overlap };
    let Ok(Outcome::KeyMade(made)) = house.call(&local(), rotate).await else {
        panic!("not rotated")
    };
    assert_eq!(
        (made.key.identity, made.replaces.map(|key| key.id)),
        (id, Some(id))
    );
    let new = Credentials::ApiKey(made.text);
    let mut house = house.restart();
    let reap = house.reap.take().expect("once");
    let settings = KeeperSettings {
        reconcile_every: Duration::from_millis(50),
        remember_ended: Duration::from_secs(3600),
    };
    let keeper = tokio::spawn(control::keep(house.control.clone(), reap, settings));
    for who in [&old, &new] {
        assert_eq!(house.list(who).await, [session]);
    }
    let ran = house
        .call(&new, run(session, "true", Duration::from_secs(10)))
        .await;
    ran.expect("the session is taken up, by its owner");
    assert_eq!(house.list(&holder).await, [tokens]);
    assert!(house.list(&stranger).await.is_empty());
    assert!(house.list(&local()).await.is_empty());
    let unknown = SessionId::from_bytes([9; 16]);
    let actions: [fn(SessionId) -> Action; 5] = [
        Action::GetSession,
        Action::DestroySession,
        |session| Action::GetSessionLogs { session, tail: 5 },
        |session| run(session, "true", Duration::ZERO),
        |session| read(session, "/workspace/x", 0, 1, None),
    ];
    for who in [&stranger, &holder, &local()] {
        for action in actions {
            let foreign = house.call(who, action(session)).await.expect_err("foreign");
            let missing = house.call(who, action(unknown)).await.expect_err("unknown");
            assert_eq!(foreign, missing, "foreign is unknown");
            assert_eq!(foreign.reason, Reason::SessionNotFound);
        }
    }
    let (_, admin) = house.key("admin", None).await;
    assert_eq!(house.list(&admin).await.len(), 2, "admin sees all");
    assert_eq!(
        reason(
            house
                .call(&admin, run(session, "true", Duration::ZERO))
                .await
        ),
        Reason::InsufficientScope
    );
    house
        .call(&admin, Action::DestroySession(session))
        .await
        .expect("and ends all");
    keeper.abort();
}

/// P2a, rotation under load: whoever calls with the old key or with the new one, no call fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_under_load_fails_no_call() {
    let house = Arc::new(House::new());
    let (id, old) = house.key(ALL, None).await;
    let session = house.create(&old, "app").await.expect("a session");
    let (sender, receiver) = tokio::sync::watch::channel(old);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (house, receiver) = (house.clone(), receiver.clone());
        callers.spawn(async move {
            for _ in 0..100 {
                let who = receiver.borrow().clone();
                let seen = house.call(&who, Action::GetSession(session)).await;
                seen.expect("no call fails");
                tokio::task::yield_now().await;
            }
        });
    }
    let mut current = id;
    for _ in 0..5 {
        let overlap = Duration::from_secs(600);
        let rotate = Action::RotateKey {
            key: current,
            overlap,
        };
        let Ok(Outcome::KeyMade(made)) = house.call(&local(), rotate).await else {
            panic!("not rotated")
        };
        current = made.key.id;
        sender.send_replace(Credentials::ApiKey(made.text));
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("no call fails");
    }
    // The control: without an overlap the old one ends at once.
    let last = receiver.borrow().clone();
    let rotate = Action::RotateKey {
        key: current,
        overlap: Duration::ZERO,
    };
    house.call(&local(), rotate).await.expect("rotated");
    let refused = house.call(&last, Action::GetSession(session)).await;
    assert_eq!(reason(refused), Reason::Unauthenticated);
}

/// An idempotency key is its caller's own.
#[tokio::test]
async fn two_callers_with_the_same_idempotency_key_have_two_sessions() {
    let house = House::new();
    let (_, one) = house.key(ALL, None).await;
    let (_, two) = house.key(ALL, None).await;
    let mut ids = Vec::new();
    for who in [&one, &two, &one] {
        let Ok(Outcome::Session(view)) = house.call(who, create("app", Some("same"))).await else {
            panic!("no session")
        };
        ids.push(view.id);
    }
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[0], ids[2]);
}

/// A token is refused when its time is over, also in a call that waits for longer.
#[tokio::test]
async fn a_token_ends_with_its_time() {
    let house = House::new();
    let who = token("somebody", ALL, Duration::from_secs(600));
    let known = house
        .control
        .authenticate(&who, &SOURCE)
        .await
        .expect("known");
    assert!(
        known.name.starts_with("oauth:") && known.name.len() == 22,
        "{}",
        known.name
    );
    let other = token("somebody else", ALL, Duration::from_secs(60));
    assert_ne!(
        house
            .control
            .authenticate(&other, &SOURCE)
            .await
            .expect("known")
            .name,
        known.name
    );
    let session = house.create(&who, "app").await.expect("a session");
    let short = token("somebody", ALL, Duration::from_secs(1));
    let waits = house.call(&short, run(session, "sleep 60", Duration::from_secs(40)));
    let answer = tokio::time::timeout(Duration::from_secs(20), waits)
        .await
        .expect("it waits no longer");
    assert_eq!(reason(answer), Reason::Unauthenticated);
    assert_eq!(
        house.list(&who).await,
        [session],
        "the same subject has the same sessions"
    );
}

/// P2a: whoever has the key that comes in another's place has its sessions, so that is for its holder and the server's user; and a
/// line that has ended, or goes on elsewhere, is not taken up again.
#[tokio::test]
async fn a_key_is_rotated_by_its_holder_once_and_not_after_its_end() {
    let house = House::new();
    let rotate = |key| Action::RotateKey {
        key,
        overlap: Duration::from_secs(600),
    };
    let (victim, _) = house.key(ALL, None).await;
    let (own, admin) = house.key(&format!("{ALL} admin"), None).await;
    let refused = house.call(&admin, rotate(victim)).await;
    assert_eq!(
        refused.expect_err("another's key").reason,
        Reason::PolicyDenied
    );
    // The control: its own, once.
    let Ok(Outcome::KeyMade(made)) = house.call(&admin, rotate(own)).await else {
        panic!("not rotated")
    };
    let again = house.call(&local(), rotate(own)).await;
    assert_eq!(
        again.expect_err("it has an heir").reason,
        Reason::KeyNotFound
    );
    let revoke = Action::RevokeKey {
        key: made.key.id,
        destroy_sessions: false,
    };
    house.call(&local(), revoke).await.expect("revoked");
    let ended = house.call(&local(), rotate(made.key.id)).await;
    assert_eq!(ended.expect_err("it has ended").reason, Reason::KeyNotFound);
    assert!(house.call(&local(), rotate(victim)).await.is_ok());
}

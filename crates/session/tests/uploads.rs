//! Files that come in pieces, on the fake backend (S5, T3.1): how many may be under way on the server, and that they end with their
//! session.

use crate::support::House;
use model::{FileWritten, Reason, Refusal, Secret, SessionId, WriteFile};
use sandbox::fake::Fake;

/// Files under way in one session, and on the server.
const PER_SESSION: usize = 4;
const IN_ALL: usize = 64;

fn house() -> House {
    House::configured(Fake::new(), &[], |config| config.max_sessions = 20)
}

/// The first piece of a file.
async fn begin(house: &House, session: SessionId) -> Result<FileWritten, Refusal> {
    let asked = WriteFile {
        session,
        destination: "/workspace/file".into(),
        content: Secret::new(b"piece".to_vec()),
        upload: None,
        offset: 0,
        is_last: false,
    };
    let owner = house.sessions.owner(session).await?;
    let permit = house
        .policy
        .admit_write_file(&house.owner(), &asked, owner.as_deref())?;
    house.sessions.write_file(permit, &asked).await
}

async fn refused(house: &House, session: SessionId) -> String {
    let refusal = begin(house, session).await.expect_err("no room");
    assert_eq!(refusal.reason, Reason::LimitReached, "{refusal:?}");
    refusal.message
}

#[tokio::test]
async fn so_many_files_are_under_way_on_the_server_and_those_of_a_session_end_with_it() {
    let mut house = house();
    let mut full = Vec::new();
    for _ in 0..IN_ALL / PER_SESSION {
        let session = house.create().await.expect("a session").id;
        for _ in 0..PER_SESSION {
            begin(&house, session).await.expect("room for it");
        }
        full.push(session);
    }
    let last = house.create().await.expect("a session").id;
    assert!(refused(&house, last).await.contains("on this server"));
    assert!(refused(&house, full[0]).await.contains("in this session"));

    // By its owner, or by itself: whatever ends a session makes room.
    house.destroy(full[0]).await.expect("destroyed");
    for _ in 0..PER_SESSION {
        begin(&house, last).await.expect("room for it");
    }
    let more = house.create().await.expect("a session").id;
    assert!(refused(&house, more).await.contains("on this server"));
    house.fake.kill(full[1]);
    assert_eq!(house.reap_next().await.session, full[1]);
    begin(&house, more).await.expect("room for it");
}

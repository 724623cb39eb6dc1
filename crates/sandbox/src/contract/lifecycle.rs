//! A sandbox comes, is what it should be, and goes.

use std::{sync::Arc, time::Duration};

use model::{Enforcement, Limit, LimitName, SessionId};
use tokio::time::timeout;

use super::{
    Harness, Verdict,
    room::{Found, PATIENCE, Room, during, expect, in_session, new_session},
};
use crate::{Backend, BackendError, EndReason, Listed, verify};

/// How long a paused sandbox is watched for a sign of life.
const STILLNESS: Duration = Duration::from_millis(500);

pub(super) async fn greets(room: Room) -> Found {
    expect(room.supervisor.is_connected(), || {
        "the supervisor greeted and went away".to_owned()
    })?;
    let executions = room
        .supervisor
        .list()
        .await
        .map_err(during("listing executions"))?;
    expect(executions.is_empty(), || {
        "a new sandbox remembers executions".to_owned()
    })
}

pub(super) async fn listed(
    backend: &dyn Backend,
    session: SessionId,
) -> Result<Option<Listed>, String> {
    let list = backend.list().await.map_err(during("listing sandboxes"))?;
    Ok(list.into_iter().find(|listed| listed.session == session))
}

pub(super) async fn is_listed(room: Room) -> Found {
    match listed(&*room.backend, room.spec.session).await? {
        Some(Listed { running: true, .. }) => Ok(()),
        Some(Listed { running: false, .. }) => Err("it is listed as dead".to_owned()),
        None => Err("it is not listed".to_owned()),
    }
}

pub(super) async fn exists_once(room: Room) -> Found {
    match room.backend.create(&room.spec).await {
        Err(BackendError::AlreadyExists) => {}
        Err(other) => return Err(during("another error was due")(other)),
        Ok(_) => return Err("a second sandbox was created".to_owned()),
    }
    room.supervisor
        .list()
        .await
        .map_err(during("asking the first one"))
        .map(drop)
}

pub(super) async fn leaves_nothing(room: Room) -> Found {
    let session = room.spec.session;
    room.backend
        .destroy(session)
        .await
        .map_err(during("destroying"))?;
    let left = listed(&*room.backend, session).await?;
    expect(left.is_none(), || format!("it is still listed: {left:?}"))?;
    expect_not_found(room.backend.stats(session).await)
}

pub(super) async fn destroys_again(room: Room) -> Found {
    for time in ["first", "second"] {
        room.backend
            .destroy(room.spec.session)
            .await
            .map_err(during(time))?;
    }
    room.backend
        .destroy(new_session()?)
        .await
        .map_err(during("what never was"))
}

pub(super) async fn closes_the_link(room: Room) -> Found {
    room.backend
        .destroy(room.spec.session)
        .await
        .map_err(during("destroying"))?;
    match timeout(PATIENCE, room.supervisor.ended()).await {
        Ok(EndReason::Gone) => Ok(()),
        Ok(EndReason::Broken(what)) => Err(what),
        Err(_) => Err("the link is still open".to_owned()),
    }
}

fn expect_not_found<T>(result: Result<T, BackendError>) -> Found {
    match result {
        Err(BackendError::NotFound) => Ok(()),
        Err(other) => Err(during("another error was due")(other)),
        Ok(_) => Err("it was found".to_owned()),
    }
}

pub(super) async fn unknown_session(harness: Arc<dyn Harness>) -> Result<Verdict, String> {
    let (backend, session) = (harness.backend(), new_session()?);
    expect_not_found(backend.connect(session).await)?;
    expect_not_found(backend.inspect(session).await)?;
    expect_not_found(backend.stats(session).await)?;
    Ok(Verdict::Kept)
}

pub(super) async fn is_as_asked(room: Room) -> Found {
    let outside = room
        .backend
        .inspect(room.spec.session)
        .await
        .map_err(during("inspecting"))?;
    let attestation = verify(
        &room.spec,
        &room.hello.attestation,
        &outside,
        &room.harness.host_view(),
    );
    attestation.map_err(during("verifying")).map(drop)
}

pub(super) async fn refuses_unenforceable(harness: Arc<dyn Harness>) -> Result<Verdict, String> {
    in_session(harness, |backend, mut spec| async move {
        let capability = backend
            .capability()
            .await
            .map_err(during("asking what it can enforce"))?;
        let weak = |limit: &LimitName| capability.enforcement(*limit) < Enforcement::Hard;
        let Some(limit) = LimitName::ALL.into_iter().find(weak) else {
            return Ok(Verdict::Skipped(
                "every limit is hard on this machine".to_owned(),
            ));
        };
        spec.limits.set(
            limit,
            Limit {
                named: true,
                ..spec.limits.get(limit)
            },
        );
        spec.accept_soft_limits = false;
        match backend.create(&spec).await {
            Err(BackendError::LimitUnenforceable { limit: named, .. }) if named == limit => {}
            Err(other) => return Err(during("another error was due")(other)),
            Ok(_) => return Err(format!("{limit:?} was accepted")),
        }
        let left = listed(&*backend, spec.session).await?;
        expect(left.is_none(), || {
            "the refused sandbox is listed".to_owned()
        })?;
        Ok(Verdict::Kept)
    })
    .await
}

pub(super) async fn knows_usage(room: Room) -> Found {
    let usage = room
        .backend
        .stats(room.spec.session)
        .await
        .map_err(during("asking"))?;
    expect(usage.pids != Some(0), || {
        "a running sandbox without a process".to_owned()
    })
}

pub(super) async fn pauses(room: Room) -> Result<Verdict, String> {
    let session = room.spec.session;
    match room.backend.pause(session).await {
        Err(BackendError::Unsupported(why)) => return Ok(Verdict::Skipped(why)),
        paused => paused.map_err(during("pausing"))?,
    }
    let sign_of_life = timeout(STILLNESS, room.supervisor.list()).await;
    room.backend
        .resume(session)
        .await
        .map_err(during("resuming"))?;
    expect(sign_of_life.is_err(), || {
        "it answered while it was paused".to_owned()
    })?;
    room.supervisor
        .list()
        .await
        .map_err(during("asking after the pause"))?;
    Ok(Verdict::Kept)
}

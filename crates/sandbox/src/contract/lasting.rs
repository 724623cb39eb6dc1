//! What outlives a server, and what does not outlive its lease.

use std::{sync::Arc, time::Duration};

use model::SessionId;
use tokio::time::{Instant, sleep, timeout};
use wire::{FaultKind, MAX_ENVIRONMENT_BYTES, StartSpec, Stream};

use super::{
    Harness, Verdict,
    lifecycle::listed,
    room::{
        Found, PATH, PATIENCE, Room, attach, command, during, expect, expect_fault, in_session,
        read_all, script,
    },
};
use crate::{Backend, EndReason, Listed};

/// A lease that is short, and long enough for a busy machine to renew in time.
const SHORT_LEASE: Duration = Duration::from_millis(1500);
/// A lease that no line outlives.
const LONG_LEASE: Duration = Duration::from_secs(120);
/// How long a sandbox may take to be gone once its lease is over.
const PROMISED_END: Duration = Duration::from_secs(1);

pub(super) async fn new_server(harness: Arc<dyn Harness>) -> Result<Verdict, String> {
    in_session(harness, |backend, spec| async move {
        let link = backend.create(&spec).await.map_err(during("creating"))?;
        let (first, hello) = attach(link, LONG_LEASE).await?;
        let start = script("echo early; sleep 1; echo late")?;
        let key = start.execution;
        first.start(start).await.map_err(during("starting"))?;
        let read = first
            .read(key, Stream::Stdout, 0, 1024, PATIENCE)
            .await
            .map_err(during("reading"))?;
        expect(read.data == b"early\n", || {
            "the first line did not come".to_owned()
        })?;
        drop(first);
        let link = backend
            .connect(spec.session)
            .await
            .map_err(during("connecting again"))?;
        let (second, hello_again) = attach(link, LONG_LEASE).await?;
        expect(hello.epoch == hello_again.epoch, || {
            "another supervisor greeted".to_owned()
        })?;
        expect(hello == hello_again, || {
            "the attestation changed".to_owned()
        })?;
        let all = read_all(&second, key, Stream::Stdout).await?;
        expect(all == b"early\nlate\n", || {
            format!("{:?} came", String::from_utf8_lossy(&all))
        })?;
        Ok(Verdict::Kept)
    })
    .await
}

pub(super) async fn kept_environment(room: Room) -> Found {
    let kept = [PATH, "KEPT=session", "SHARED=session"];
    let env = kept.iter().map(|entry| entry.as_bytes().to_vec());
    room.supervisor
        .set_environment(env.collect())
        .await
        .map_err(during("setting the environment"))?;
    expect_environment(&room, &[], &kept).await?;
    let own = ["SHARED=own", "OWN=x"];
    expect_environment(&room, &own, &[PATH, "KEPT=session", "SHARED=own", "OWN=x"]).await?;
    expect_fault(
        room.supervisor
            .set_environment(vec![vec![b'='; MAX_ENVIRONMENT_BYTES]])
            .await,
        FaultKind::Invalid,
    )?;
    let Room {
        backend,
        harness,
        spec,
        supervisor,
        hello,
    } = room;
    drop(supervisor);
    let link = backend
        .connect(spec.session)
        .await
        .map_err(during("connecting again"))?;
    let (supervisor, _) = attach(link, LONG_LEASE).await?;
    let later = Room {
        backend,
        harness,
        spec,
        supervisor,
        hello,
    };
    expect_environment(&later, &[], &kept).await
}

/// A program that is started with `own` must find `due`, each once. It is itself found by the `PATH` among them. That
/// there is nothing else is another line.
async fn expect_environment(room: &Room, own: &[&str], due: &[&str]) -> Found {
    let start = StartSpec {
        env: own.iter().map(|entry| entry.as_bytes().to_vec()).collect(),
        ..command(&["env"])?
    };
    let ran = room.run(start).await?;
    let found = String::from_utf8_lossy(&ran.stdout).into_owned();
    let asked = |line: &&str| {
        ["PATH=", "KEPT=", "SHARED=", "OWN="]
            .iter()
            .any(|name| line.starts_with(name))
    };
    let mut found: Vec<&str> = found.lines().filter(asked).collect();
    let mut due = due.to_vec();
    found.sort_unstable();
    due.sort_unstable();
    expect(found == due, || format!("{due:?} was due, {found:?} came"))
}

pub(super) async fn lease_ends(harness: Arc<dyn Harness>) -> Result<Verdict, String> {
    in_session(harness, |backend, spec| async move {
        let link = backend.create(&spec).await.map_err(during("creating"))?;
        let (supervisor, _) = attach(link, SHORT_LEASE).await?;
        let started = Instant::now();
        supervisor
            .list()
            .await
            .map_err(during("asking before the end"))?;
        let ended = timeout(SHORT_LEASE + PROMISED_END, supervisor.ended()).await;
        expect(ended == Ok(EndReason::Gone), || {
            format!("at the end of the lease: {ended:?}")
        })?;
        let lived = started.elapsed();
        expect(lived > SHORT_LEASE / 2, || {
            format!("it ended after {lived:?} already")
        })?;
        expect_dead(&*backend, spec.session).await?;
        Ok(Verdict::Kept)
    })
    .await
}

pub(super) async fn lease_renewed(harness: Arc<dyn Harness>) -> Result<Verdict, String> {
    in_session(harness, |backend, spec| async move {
        let link = backend.create(&spec).await.map_err(during("creating"))?;
        let (supervisor, _) = attach(link, SHORT_LEASE).await?;
        for _ in 0..5 {
            supervisor
                .renew_lease(SHORT_LEASE)
                .await
                .map_err(during("renewing"))?;
            sleep(SHORT_LEASE / 3).await;
        }
        supervisor
            .list()
            .await
            .map_err(during("asking after five renewals"))?;
        Ok(Verdict::Kept)
    })
    .await
}

pub(super) async fn shutdown(room: Room) -> Found {
    room.supervisor
        .shutdown()
        .await
        .map_err(during("shutting down"))?;
    expect_dead(&*room.backend, room.spec.session).await
}

/// The list must say so soon; the link may close a moment before the process is gone.
async fn expect_dead(backend: &dyn Backend, session: SessionId) -> Found {
    let until = Instant::now() + PROMISED_END;
    while let Some(Listed { running: true, .. }) = listed(backend, session).await? {
        expect(Instant::now() < until, || {
            "it is listed as running".to_owned()
        })?;
        sleep(PROMISED_END / 20).await;
    }
    Ok(())
}

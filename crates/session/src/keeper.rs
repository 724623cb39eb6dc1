//! The keeper of one session: renews its lease, and sees when its lifetime, its idle time or its sandbox has ended.
//! It ends nothing itself: it reports, and the report goes over the road like every other call.

use std::{sync::Arc, time::Duration};

use model::ReapCause;
use sandbox::SupervisorError;
use tokio::time::Instant;

use crate::{
    live::Live,
    sessions::{Inner, ReapRequest, now_ms},
};

/// Renewals in the length of one lease: two may fail before the sandbox ends itself.
const RENEWALS_PER_LEASE: u32 = 3;

impl Inner {
    /// Starts the keeper of a session that became live.
    pub(crate) fn keep(self: &Arc<Self>, live: &Arc<Live>) {
        // The keeper holds the session weakly, else nothing would ever drop it.
        let (inner, weak) = (Arc::downgrade(self), Arc::downgrade(live));
        let (interval, supervisor) = (live.lease / RENEWALS_PER_LEASE, live.supervisor.clone());
        let task = tokio::spawn(async move {
            let ended = supervisor.ended();
            tokio::pin!(ended);
            let mut renew_at = Instant::now() + interval;
            loop {
                let Some(live) = weak.upgrade() else { return };
                let (next, because) = next_event(&live, renew_at);
                tokio::select! {
                    reason = &mut ended => {
                        tracing::info!(session = %live.id, ?reason, "a sandbox ended");
                        report(&inner, &live, ReapCause::SandboxEnded);
                        return;
                    }
                    () = live.moved.notified() => {}
                    () = tokio::time::sleep_until(next) => match because {
                        // Looked at again: it may have been used or extended meanwhile.
                        Some(because) if next_event(&live, renew_at).1 == Some(because) && next <= Instant::now() => {
                            report(&inner, &live, because);
                            return;
                        }
                        Some(_) => {}
                        None => {
                            renew_at = Instant::now() + renew(&live, interval).await;
                            if let Some(inner) = inner.upgrade() {
                                inner.remember_use(&live).await;
                            }
                        }
                    },
                }
            }
        });
        live.keep_with(task.abort_handle());
    }

    /// Keeps the time of last use on record, so that a restart does not start the idle time anew for ever.
    async fn remember_use(&self, live: &Live) {
        if live.idle_ends().is_none() {
            let (session, at) = (live.id, now_ms());
            if let Err(refusal) = self.stored(move |store| store.touch(session, at)).await {
                tracing::warn!(%session, detail = ?refusal.detail, "the time of last use is not on record");
            }
        }
    }
}

/// What comes first, and whether it ends the session.
fn next_event(live: &Live, renew_at: Instant) -> (Instant, Option<ReapCause>) {
    let mut next = (renew_at, None);
    if let Some(idle) = live.idle_ends().filter(|idle| *idle < next.0) {
        next = (idle, Some(ReapCause::Idle));
    }
    let expires = live.expires();
    if expires <= next.0 {
        next = (expires, Some(ReapCause::Lifetime));
    }
    next
}

/// Renews the lease, never beyond the session's lifetime. Returns when to renew next.
async fn renew(live: &Live, interval: Duration) -> Duration {
    let rest = live.expires().saturating_duration_since(Instant::now());
    // A second more than is left: the server ends the session at its end, the lease is for when there is no server.
    let lease = live.lease.min(rest + Duration::from_secs(1));
    match live.supervisor.renew_lease(lease).await {
        Ok(()) => interval,
        Err(SupervisorError::Ended | SupervisorError::Protocol(_)) => interval,
        Err(error) => {
            tracing::warn!(session = %live.id, %error, "a lease was not renewed");
            interval / 4
        }
    }
}

fn report(inner: &std::sync::Weak<Inner>, live: &Live, because: ReapCause) {
    let Some(inner) = inner.upgrade() else { return };
    if inner
        .setup
        .reap
        .send(ReapRequest {
            session: live.id,
            because,
        })
        .is_err()
    {
        tracing::error!(session = %live.id, ?because, "nobody listens for sessions that must be ended");
    }
}

//! The server's own calls: sessions that must be ended, and the reconciler. They pass the same road.

use std::time::Duration;

use futures::future::join_all;
use model::{
    Action, BackendName, Call, ClientInfo, Credentials, Outcome, Principal, Refusal, Source,
};
use policy::SystemVerb;
use session::ReapRequest;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Interval, MissedTickBehavior},
};

use crate::{Control, Road};

/// Who calls, in the audit log, when a session must be ended.
const REAPER: &str = "reaper";
/// Who calls, in the audit log, when record and reality differ.
const RECONCILER: &str = "reconciler";
/// Sessions that are taken up side by side: each waits up to a second for its supervisor to dial.
const ADOPTIONS_AT_ONCE: usize = 64;

/// How often the server looks after itself.
#[derive(Debug, Clone, Copy)]
pub struct KeeperSettings {
    /// Between two rounds of reconciling.
    pub reconcile_every: Duration,
    /// How long ended sessions are remembered.
    pub remember_ended: Duration,
}

/// Runs until the channel of reap requests closes. Each backend has rounds of its own: an engine that hangs keeps neither
/// the sessions of another one nor those that must be ended waiting.
pub async fn keep(
    control: Control,
    mut reap: mpsc::UnboundedReceiver<ReapRequest>,
    settings: KeeperSettings,
) {
    let mut rounds = JoinSet::new();
    for backend in control.sessions().backends() {
        let control = control.clone();
        rounds.spawn(async move {
            let mut interval = every(settings.reconcile_every);
            loop {
                interval.tick().await;
                control.reconcile_or_tell(backend).await;
            }
        });
    }
    let forgetting = control.clone();
    rounds.spawn(async move {
        let mut interval = every(settings.reconcile_every);
        loop {
            interval.tick().await;
            forgetting.forget_or_tell(settings.remember_ended).await;
            forgetting.tell_ended_keys().await;
        }
    });
    while let Some(request) = reap.recv().await {
        tokio::spawn(end(control.clone(), request));
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn end(control: Control, request: ReapRequest) {
    let action = Action::ReapSession {
        session: request.session,
        because: request.because,
    };
    if let Err(refusal) = control.own(REAPER, action).await {
        tracing::warn!(session = %request.session, %refusal, "a session was not ended completely; it is tried again");
    }
}

impl Control {
    async fn reconcile_or_tell(&self, backend: BackendName) {
        if let Err(refusal) = self.reconcile(backend).await {
            tracing::warn!(backend = backend.as_str(), %refusal, detail = ?refusal.detail, "reconciling failed; it is tried again");
        }
    }

    async fn forget_or_tell(&self, age: Duration) {
        if let Err(refusal) = self.sessions().forget_ended(age).await {
            tracing::warn!(%refusal, detail = ?refusal.detail, "ended sessions were not forgotten");
        }
    }

    /// Makes record and reality of one backend one. Looking changes nothing; each thing that is found is a call of its own.
    ///
    /// # Errors
    /// When the store cannot be read, or the backend does not answer.
    pub async fn reconcile(&self, backend: BackendName) -> Result<(), Refusal> {
        let permit = self
            .policy()
            .admit_system(&Principal::System, SystemVerb::Survey)?;
        let survey = self.sessions().survey(permit, backend).await?;
        for some in survey.lost.chunks(ADOPTIONS_AT_ONCE) {
            let adopted = some
                .iter()
                .map(|session| self.own(RECONCILER, Action::AdoptSession(*session)));
            for (session, adopted) in some.iter().zip(join_all(adopted).await) {
                if let Err(refusal) = adopted {
                    tracing::warn!(%session, %refusal, "not taken up yet");
                }
            }
        }
        for session in survey.orphaned {
            self.sessions().report_orphan(session);
        }
        for session::Remains { session, backend } in survey.remains {
            let action = Action::RemoveRemains { session, backend };
            if let Err(refusal) = self.own(RECONCILER, action).await {
                tracing::warn!(%session, %refusal, "remains were not removed; it is tried again");
            }
        }
        Ok(())
    }

    /// A call of the server's own.
    async fn own(&self, name: &str, action: Action) -> Result<Outcome, Refusal> {
        self.handle(Call {
            credentials: Credentials::System,
            source: Source::SYSTEM,
            client: ClientInfo {
                name: name.to_owned(),
                version: String::new(),
            },
            action,
        })
        .await
    }
}

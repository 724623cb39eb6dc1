//! The server's own calls: sessions that must be ended, and the reconciler. They pass the same road.

use std::time::Duration;

use futures::future::join_all;
use model::{Action, Call, ClientInfo, Credentials, Outcome, Principal, Refusal};
use policy::SystemVerb;
use session::ReapRequest;
use tokio::{sync::mpsc, time::MissedTickBehavior};

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

/// Runs until the channel of reap requests closes.
pub async fn keep(
    control: Control,
    mut reap: mpsc::UnboundedReceiver<ReapRequest>,
    settings: KeeperSettings,
) {
    let mut interval = tokio::time::interval(settings.reconcile_every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            request = reap.recv() => match request {
                Some(request) => { tokio::spawn(end(control.clone(), request)); }
                None => return,
            },
            _ = interval.tick() => {
                if let Err(refusal) = control.reconcile().await {
                    tracing::warn!(%refusal, detail = ?refusal.detail, "reconciling failed; it is tried again");
                }
                if let Err(refusal) = control.sessions().forget_ended(settings.remember_ended).await {
                    tracing::warn!(%refusal, detail = ?refusal.detail, "ended sessions were not forgotten");
                }
            }
        }
    }
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
    /// Makes record and reality one. Looking changes nothing; each thing that is found is a call of its own.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn reconcile(&self) -> Result<(), Refusal> {
        let permit = self
            .policy()
            .admit_system(&Principal::System, SystemVerb::Survey)?;
        let survey = self.sessions().survey(permit).await?;
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
            client: ClientInfo {
                name: name.to_owned(),
                version: String::new(),
            },
            action,
        })
        .await
    }
}

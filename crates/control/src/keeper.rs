//! The server's own calls: sessions that must be ended, and the reconciler. They pass the same road.

use std::time::Duration;

use audit::{Event, Parameter};
use model::{Action, Call, ClientInfo, Credentials, Principal, Refusal, SessionId};
use policy::SystemVerb;
use session::ReapRequest;
use tokio::{sync::mpsc, time::MissedTickBehavior};

use crate::{Control, Road};

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
    let call = Call {
        credentials: Credentials::System,
        client: ClientInfo {
            name: "reaper".to_owned(),
            version: String::new(),
        },
        action: Action::ReapSession {
            session: request.session,
            because: request.because,
        },
    };
    if let Err(refusal) = control.handle(call).await {
        tracing::warn!(session = %request.session, %refusal, "a session was not ended completely; it is tried again");
    }
}

impl Control {
    /// Makes record and reality one, and puts what was done on the audit log.
    ///
    /// # Errors
    /// When the store or the backend cannot be read.
    pub async fn reconcile(&self) -> Result<(), Refusal> {
        let permit = self
            .policy()
            .admit_system(&Principal::System, SystemVerb::Recover)?;
        let recovered = self.sessions().reconcile(permit).await?;
        for session in recovered.adopted {
            self.tell("session.adopted", session).await;
        }
        for session in recovered.removed {
            self.tell("session.remains_removed", session).await;
        }
        Ok(())
    }

    async fn tell(&self, action: &'static str, session: SessionId) {
        let event = Event {
            action,
            session: Some(session),
            parameters: vec![("by", Parameter::Word("reconciler".into()))],
        };
        if let Err(error) = self.audit().event(event).await {
            tracing::warn!(%error, %session, action, "an event is not in the audit log");
        }
    }
}

//! What is done with keys, as calls on the road.

use std::time::Duration;

use audit::{Entry, Parameter};
use model::{
    Action, Call, ClientInfo, CreateKey, Credentials, KeyId, Outcome, Principal, ReapCause,
    Refusal, RemoteCaller, RemoteKind, RevokedKey, Scope, Scopes, SessionId, Source,
};
use policy::KeyVerb;
use tokio::sync::oneshot;

use crate::{facts, road::Inner};

/// Who calls, in the audit log, when sessions end with the key of their owner.
const REVOCATION: &str = "key revocation";

impl Inner {
    pub(crate) async fn create_key(
        &self,
        principal: &Principal,
        request: &CreateKey,
        entry: &mut Entry,
    ) -> Result<Outcome, Refusal> {
        let facts = facts::for_key(&self.policy(), principal, request).await?;
        let permit = self.policy().admit_new_key(principal, request, &facts)?;
        let made = self.identities.keys().create(permit).await?;
        entry.note("key", Parameter::Word(made.key.id.to_string()));
        Ok(Outcome::KeyMade(Box::new(made)))
    }

    pub(crate) async fn rotate_key(
        &self,
        principal: &Principal,
        key: KeyId,
        overlap: Duration,
        entry: &mut Entry,
    ) -> Result<Outcome, Refusal> {
        let keys = self.identities.keys();
        let (verb, found) = (KeyVerb::Rotate { overlap }, keys.get(key));
        let permit = self
            .policy()
            .admit_key(principal, key, verb, found.as_ref())?;
        let made = keys.rotate(permit).await?;
        entry.note("new_key", Parameter::Word(made.key.id.to_string()));
        Ok(Outcome::KeyMade(Box::new(made)))
    }

    pub(crate) async fn revoke_key(
        &self,
        principal: &Principal,
        key: KeyId,
        destroy_sessions: bool,
    ) -> Result<Outcome, Refusal> {
        let keys = self.identities.keys();
        let found = keys.get(key);
        let permit = self
            .policy()
            .admit_key(principal, key, KeyVerb::Revoke, found.as_ref())?;
        let key = keys.revoke(permit).await?;
        let mut left = self.sessions_of(key.identity).await?;
        let mut destroyed = Vec::new();
        if destroy_sessions {
            // One that is not wholly gone keeps none of the others: the reconciler removes what is left of it.
            for session in std::mem::take(&mut left) {
                match self.end_with_key(session).await {
                    Ok(()) => destroyed.push(session),
                    Err(refusal) => {
                        tracing::warn!(%session, %refusal, detail = ?refusal.detail, "a session of a revoked key is not gone yet");
                        left.push(session);
                    }
                }
            }
        }
        Ok(Outcome::KeyRevoked(Box::new(RevokedKey {
            key,
            destroyed,
            left: u32::try_from(left.len()).unwrap_or(u32::MAX),
        })))
    }

    /// Live sessions of a line of keys.
    async fn sessions_of(&self, identity: KeyId) -> Result<Vec<SessionId>, Refusal> {
        let owner = Principal::Remote(Box::new(RemoteCaller {
            name: identity.owner_name(),
            kind: RemoteKind::ApiKey { id: identity },
            scopes: Scopes::NONE.with(Scope::SessionsRead),
            roots: Vec::new(),
            max_sessions: None,
            calls_per_minute: None,
        }));
        let permit = self.policy().admit_listing(&owner)?;
        let sessions = self.sessions.list(permit, false).await?;
        Ok(sessions.into_iter().map(|view| view.id).collect())
    }

    /// A call of the server's own for each session, so that each end is on the log as such.
    async fn end_with_key(&self, session: SessionId) -> Result<(), Refusal> {
        let call = Call {
            credentials: Credentials::System,
            client: ClientInfo {
                name: REVOCATION.to_owned(),
                version: String::new(),
            },
            source: Source::SYSTEM,
            action: Action::ReapSession {
                session,
                because: ReapCause::KeyRevoked,
            },
        };
        let (_here, gone) = oneshot::channel();
        Box::pin(self.handle(Principal::System, call, gone))
            .await
            .map(drop)
    }
}

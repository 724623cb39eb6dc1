//! Who may do what: the one place.
//!
//! | principal | own sessions | sessions of others | keys | the server's own work |
//! |---|---|---|---|---|
//! | the server's user | everything | nothing | everything | – |
//! | another user of the machine | – | nothing | – | – |
//! | a key or token | what its scopes say | nothing | – | – |
//! | a key or token with `admin` | what its other scopes say; look at, end | list, look at, end | those that may do no more than itself | – |
//! | the server itself | – | look at, end | – | everything |
//!
//! Whatever stands not here is refused. `admin` implies no other scope: it looks at a session as a list shows it and ends it,
//! but reads no log, no output and no file, and runs nothing. Scopes are looked at first, so that a caller without them learns
//! nothing about what exists. The snapshot of the whole table, every role and every action, stands in the tests.

use model::{Principal, Reason, Refusal, RemoteCaller, Scope, Scopes};

use crate::{Policy, admission::not_for_the_server};

/// What kind of work a decision is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Brings something new into a session or keeps it alive: never the server's own idea.
    New,
    /// Looks at it or ends it.
    Upkeep,
}

/// What a caller needs to be for something that is done with a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    work: Work,
    scope: Scope,
    /// `admin` does as well, and then for sessions of everybody.
    or_admin: bool,
}

impl Need {
    pub(crate) const fn new(work: Work, scope: Scope) -> Self {
        Need {
            work,
            scope,
            or_admin: false,
        }
    }

    pub(crate) const fn or_admin(self) -> Self {
        Need {
            or_admin: true,
            ..self
        }
    }
}

/// Whether a session is there for a caller.
pub(crate) enum Access {
    Granted,
    /// Unknown or foreign: the caller cannot tell which.
    Hidden,
    NotForTheServer,
}

impl Policy {
    /// `owner` is who owns the session, `None` when there is none.
    ///
    /// # Errors
    /// [`Reason::InsufficientScope`], whatever there is.
    pub(crate) fn access(
        &self,
        principal: &Principal,
        owner: Option<&str>,
        need: Need,
    ) -> Result<Access, Refusal> {
        Ok(match principal {
            Principal::System if need.work == Work::New => Access::NotForTheServer,
            Principal::System => granted(owner.is_some()),
            Principal::LocalUser { uid, .. } => {
                let is_own = owner.is_some_and(|owner| owner == principal.name());
                granted(*uid == self.config.server_uid && is_own)
            }
            Principal::Remote(caller) => {
                let over = need.or_admin && caller.scopes.contains(Scope::Admin);
                if !over {
                    require(caller, Scopes::NONE.with(need.scope))?;
                }
                granted(owner.is_some_and(|owner| over || owner == caller.name))
            }
        })
    }

    /// As [`Policy::access`], for what is done with a session.
    pub(crate) fn require_owner(
        &self,
        principal: &Principal,
        owner: Option<&str>,
        need: Need,
    ) -> Result<(), Refusal> {
        match self.access(principal, owner, need)? {
            Access::Granted => Ok(()),
            Access::NotForTheServer => Err(not_for_the_server()),
            Access::Hidden => {
                let message = "There is no session of this id.";
                let hint = "`list_sessions` shows your sessions; `create_session` makes a new one.";
                Err(Refusal::new(Reason::SessionNotFound, message, hint).in_field("sessionId"))
            }
        }
    }

    /// The name under which this caller owns what it makes, if it may make anything. A remote one needs these scopes.
    pub(crate) fn maker(&self, principal: &Principal, scopes: Scopes) -> Result<String, Refusal> {
        match principal {
            Principal::LocalUser { uid, .. } if *uid != self.config.server_uid => {
                let message = "This server belongs to another user.";
                let hint = "Start a server of your own.";
                Err(Refusal::new(Reason::PolicyDenied, message, hint))
            }
            Principal::LocalUser { .. } => Ok(principal.name()),
            Principal::Remote(caller) => {
                require(caller, scopes)?;
                Ok(caller.name.clone())
            }
            Principal::System => Err(not_for_the_server()),
        }
    }

    /// Whether this caller may look at what the server is: everybody whom it knows.
    ///
    /// # Errors
    /// [`Reason::InsufficientScope`] for a remote caller that may not read at all.
    pub fn admit_server_info(&self, principal: &Principal) -> Result<(), Refusal> {
        match principal {
            Principal::LocalUser { .. } | Principal::System => Ok(()),
            Principal::Remote(caller) if caller.scopes.contains(Scope::Admin) => Ok(()),
            Principal::Remote(caller) => require(caller, Scopes::NONE.with(Scope::SessionsRead)),
        }
    }
}

const fn granted(is_granted: bool) -> Access {
    if is_granted {
        Access::Granted
    } else {
        Access::Hidden
    }
}

/// All of these scopes, or a refusal that names them all, so that a client can ask for them at once.
pub(crate) fn require(caller: &RemoteCaller, scopes: Scopes) -> Result<(), Refusal> {
    if caller.scopes.contains_all(scopes) {
        return Ok(());
    }
    let message = format!("This needs a key or token with the scopes `{scopes}`.");
    let hint = format!(
        "Ask whoever runs the server for one: `claude-code-mcp keys create --scope '{scopes}' …`."
    );
    Err(Refusal::new(Reason::InsufficientScope, message, hint))
}

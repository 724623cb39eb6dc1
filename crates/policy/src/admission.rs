//! The decisions about sessions and executions that exist, and what all decisions share.
//!
//! Who may do what stands in `roles`.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use model::{
    AnswerNetwork, AnsweredBy, BackendName, EgressRule, ExecutionId, Kernel, Layer, LimitName,
    Limits, NetworkOffer, NetworkPolicy, Principal, Reason, Refusal, Requirement, Scope, Scopes,
    SessionId, WidenNetwork,
};

use crate::{
    ExecutionPermit, ExtendPermit, ListingPermit, NetworkAnswerPermit, PolicyConfig, PolicyError,
    SessionPermit, SystemPermit, WidenPermit,
    command::MAX_STDIN_BYTES,
    docker_options::HostConfig,
    forbidden::ForbiddenPaths,
    hardening::Hardening,
    managed_settings,
    network::Ceiling,
    protected::ProtectedPaths,
    roles::{Access, Need, Work, require},
    roots::Roots,
};

/// Decides. Holds the configuration and the built-in security data; looks at nothing else and keeps no state.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(crate) config: PolicyConfig,
    pub(crate) forbidden: ForbiddenPaths,
    pub(crate) protected: ProtectedPaths,
    pub(crate) hardening: Hardening,
    pub(crate) managed_settings: String,
    pub(crate) host_config: HostConfig,
    pub(crate) network: Ceiling,
}

/// What is done with a session that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionVerb {
    /// Look at it.
    Read,
    /// Read its log.
    Logs,
    /// Read what was said in its conversations.
    Transcript,
    /// End it and remove everything of it.
    Destroy,
}

/// What is done with an execution that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutionVerb {
    /// Read its state and output.
    Read,
    /// End it and its whole process tree.
    Cancel,
    /// Write to its standard input.
    Respond {
        /// How much.
        bytes: usize,
    },
    /// Its terminal's window changed.
    Resize,
    /// Answer what Claude Code asks in it.
    Answer(AnsweredBy),
}

/// What the server does on its own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemVerb {
    /// Compare what is on record with what exists. Changes nothing.
    Survey,
    /// Take up again a session of an earlier server.
    Adopt(SessionId),
    /// End a session whose lifetime or idle time ran out, or whose sandbox is gone.
    Reap(SessionId),
    /// Remove the remains of a sandbox that no session needs.
    RemoveRemains(SessionId),
}

/// When a session began and ends, and what time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionTimes {
    /// When it was asked for.
    pub created_at: SystemTime,
    /// When its lifetime ends.
    pub expires_at: SystemTime,
    /// Now.
    pub now: SystemTime,
}

impl Policy {
    /// Reads the built-in data and checks the configuration.
    ///
    /// # Errors
    /// A configuration that makes no sense, naming the option.
    pub fn new(config: PolicyConfig) -> Result<Self, PolicyError> {
        let forbidden = ForbiddenPaths::load(&config.home, &config.state_directory)?;
        let hardening = Hardening::load()?;
        let host_config = HostConfig::load()?;
        config.check(&forbidden, &hardening)?;
        let network = Ceiling::new(&config.network)?;
        Ok(Policy {
            config,
            forbidden,
            protected: ProtectedPaths::load()?,
            hardening,
            managed_settings: managed_settings::load()?,
            host_config,
            network,
        })
    }

    /// The limits of the built-in profile: where a configuration starts.
    ///
    /// # Errors
    /// Never for the data that is built in; a test reads it.
    pub fn default_limits() -> Result<Limits, PolicyError> {
        Ok(Hardening::load()?.defaults())
    }

    /// What sandboxes of that backend with that kernel must show, by the built-in profile.
    ///
    /// # Errors
    /// As for [`Policy::default_limits`].
    pub fn required_layers(
        backend: BackendName,
        kernel: Kernel,
    ) -> Result<Vec<(Layer, Requirement)>, PolicyError> {
        Ok(Hardening::load()?.layers(backend, kernel))
    }

    /// The most that a configuration can name for a limit.
    ///
    /// # Errors
    /// As for [`Policy::default_limits`].
    pub fn limit_ceiling(name: LimitName) -> Result<u64, PolicyError> {
        Ok(Hardening::load()?.range(name).ceiling)
    }

    /// Relative paths of a project whose kind must be looked up, without following links, before
    /// [`Policy::admit_create`]; parents come before children.
    pub fn protected_candidates(&self) -> &[PathBuf] {
        self.protected.candidates()
    }

    /// Paths that the host would execute or trust.
    pub const fn protected(&self) -> &ProtectedPaths {
        &self.protected
    }

    /// Directories of the server itself and of its user, which nobody elsewhere has any business to know.
    pub fn own_directories(&self) -> [&Path; 2] {
        [&self.config.state_directory, &self.config.home]
    }

    /// Directories below which this caller may have sessions: the operator's and the caller's roots, without `/`, the home
    /// itself, system and credential directories, the state directory, and parents of any of these. Roots must be
    /// canonical; one that contains a link matches nothing.
    pub fn roots_of(&self, principal: &Principal) -> Vec<PathBuf> {
        Roots::of(principal, &self.config.project_roots, &self.forbidden).into_vec()
    }

    /// Decides on a session that exists. `owner` is who owns it, `None` when there is no such session.
    ///
    /// # Errors
    /// [`Reason::SessionNotFound`], the same for an unknown and a foreign session.
    pub fn admit_session(
        &self,
        principal: &Principal,
        verb: SessionVerb,
        session: SessionId,
        owner: Option<&str>,
    ) -> Result<SessionPermit, Refusal> {
        let need = match verb {
            SessionVerb::Read => Need::new(Work::Upkeep, Scope::SessionsRead).or_admin(),
            SessionVerb::Logs | SessionVerb::Transcript => {
                Need::new(Work::Upkeep, Scope::SessionsRead)
            }
            SessionVerb::Destroy => Need::new(Work::Upkeep, Scope::SessionsRun).or_admin(),
        };
        self.require_owner(principal, owner, need)?;
        Ok(SessionPermit { session, verb })
    }

    /// Decides on an execution that exists. `owner` is who owns its session, `None` when there is no such execution.
    ///
    /// # Errors
    /// [`Reason::ExecutionNotFound`], the same for an unknown and a foreign execution; [`Reason::TooLarge`] for more
    /// standard input than one call can bring.
    pub fn admit_execution(
        &self,
        principal: &Principal,
        verb: ExecutionVerb,
        execution: ExecutionId,
        owner: Option<&str>,
    ) -> Result<ExecutionPermit, Refusal> {
        let need = match verb {
            ExecutionVerb::Read => Need::new(Work::Upkeep, Scope::SessionsRead),
            ExecutionVerb::Cancel => Need::new(Work::Upkeep, Scope::SessionsRun),
            ExecutionVerb::Respond { .. } | ExecutionVerb::Resize | ExecutionVerb::Answer(_) => {
                Need::new(Work::New, Scope::SessionsRun)
            }
        };
        match self.access(principal, owner, need)? {
            Access::Granted => {}
            Access::NotForTheServer => return Err(not_for_the_server()),
            Access::Hidden => {
                let message = "There is no execution of this id.";
                let hint = "`get_session` names a session's running executions; ended ones are kept for a while only.";
                return Err(
                    Refusal::new(Reason::ExecutionNotFound, message, hint).in_field("executionId")
                );
            }
        }
        match verb {
            ExecutionVerb::Respond { bytes } if bytes > MAX_STDIN_BYTES => {
                let message = format!(
                    "{bytes} bytes are more standard input than the {MAX_STDIN_BYTES} of one call."
                );
                Err(Refusal::new(Reason::TooLarge, message, "Send it in pieces.").in_field("data"))
            }
            ExecutionVerb::Answer(AnsweredBy::Caller) if !self.config.caller_may_answer => {
                let message = "The calling model may not answer what Claude Code asks.";
                let hint = "Tell your user: a person answers in a client that asks them, or with \
                            `claude-code-mcp session approve`. The operator can allow it with `caller_may_answer`.";
                Err(Refusal::new(Reason::PolicyDenied, message, hint).in_field("answer"))
            }
            ExecutionVerb::Read
            | ExecutionVerb::Cancel
            | ExecutionVerb::Answer(_)
            | ExecutionVerb::Respond { .. }
            | ExecutionVerb::Resize => Ok(ExecutionPermit { execution, verb }),
        }
    }

    /// Decides on what a session that runs may reach beside what it reaches already.
    ///
    /// # Errors
    /// [`Reason::SessionNotFound`]; [`Reason::PolicyDenied`] when it is not a person's word; [`Reason::InvalidArgument`] for
    /// a rule that makes no sense; [`Reason::NetworkNotAllowed`] for one past the operator's ceiling.
    pub fn admit_widen(
        &self,
        principal: &Principal,
        asked: &WidenNetwork,
        owner: Option<&str>,
    ) -> Result<WidenPermit, Refusal> {
        self.require_owner(principal, owner, Need::new(Work::New, Scope::Network))?;
        require_person(asked.by)?;
        Ok(WidenPermit {
            session: asked.session,
            rules: self.network.added(&asked.allow)?,
        })
    }

    /// Decides on an answer to what a session that runs asked to reach. No configuration lets the calling model give it.
    ///
    /// # Errors
    /// As for [`Policy::admit_widen`]; a no needs no rule, so nothing is past the ceiling for it.
    pub fn admit_network_answer(
        &self,
        principal: &Principal,
        asked: &AnswerNetwork,
        owner: Option<&str>,
    ) -> Result<NetworkAnswerPermit, Refusal> {
        self.require_owner(principal, owner, Need::new(Work::New, Scope::Network))?;
        require_person(asked.by)?;
        let rule = asked.target.rule().map_err(|error| {
            let hint = "Name one host and one port, such as example.com:443.";
            Refusal::new(Reason::InvalidArgument, format!("{error}."), hint).in_field("target")
        })?;
        let rules = match asked.allow {
            true => Some(self.network.added(&[rule])?),
            false => None,
        };
        Ok(NetworkAnswerPermit {
            session: asked.session,
            target: asked.target.clone(),
            rules,
        })
    }

    /// All that a session may ever reach; where the operator says so, at private addresses.
    pub fn network_ceiling(&self) -> &[EgressRule] {
        self.network.rules()
    }

    /// What callers may ask for, to tell them.
    pub fn network_told(&self) -> NetworkOffer {
        self.network.offer()
    }

    /// What of an earlier decision the operator allows now.
    pub fn network_within(&self, decided: &NetworkPolicy) -> NetworkPolicy {
        self.network.within(decided)
    }

    /// Decides on a later end of a session. The new end is cut at the operator's maximum lifetime.
    ///
    /// # Errors
    /// [`Reason::SessionNotFound`]; [`Reason::SessionExpired`]; [`Reason::InvalidArgument`] for no time at all;
    /// [`Reason::LimitReached`] when it already lives as long as allowed.
    pub fn admit_extend(
        &self,
        principal: &Principal,
        session: SessionId,
        owner: Option<&str>,
        by: Duration,
        times: SessionTimes,
    ) -> Result<ExtendPermit, Refusal> {
        self.require_owner(principal, owner, Need::new(Work::New, Scope::SessionsRun))?;
        if by.is_zero() {
            let hint = "Name how many seconds longer it should live.";
            return Err(Refusal::new(
                Reason::InvalidArgument,
                "An extension by nothing changes nothing.",
                hint,
            )
            .in_field("seconds"));
        }
        if times.now >= times.expires_at {
            return Err(Refusal::new(
                Reason::SessionExpired,
                "The session's lifetime is over.",
                "Create a new session.",
            ));
        }
        let maximum = self.config.max_ttl;
        let latest = times
            .created_at
            .checked_add(maximum)
            .unwrap_or(times.expires_at);
        let expires_at = times
            .expires_at
            .checked_add(by)
            .map_or(latest, |asked| asked.min(latest));
        if expires_at <= times.expires_at {
            let message = format!(
                "The session already lives as long as a session may: {} seconds.",
                maximum.as_secs()
            );
            let hint = "Create a new session, or let the operator raise `max_session_timeout` in the configuration file.";
            return Err(Refusal::new(Reason::LimitReached, message, hint).in_field("seconds"));
        }
        Ok(ExtendPermit {
            session,
            expires_at,
        })
    }

    /// Which sessions this caller may list: its own; the server and `admin` all; somebody else none.
    ///
    /// # Errors
    /// [`Reason::InsufficientScope`].
    pub fn admit_listing(&self, principal: &Principal) -> Result<ListingPermit, Refusal> {
        let owner = match principal {
            Principal::LocalUser { .. } => Some(principal.name()),
            Principal::Remote(caller) if caller.scopes.contains(Scope::Admin) => None,
            Principal::Remote(caller) => {
                require(caller, Scopes::NONE.with(Scope::SessionsRead))?;
                Some(caller.name.clone())
            }
            Principal::System => None,
        };
        Ok(ListingPermit { owner })
    }

    /// Decides on what only the server does.
    ///
    /// # Errors
    /// [`Reason::PolicyDenied`] for everybody else.
    pub fn admit_system(
        &self,
        principal: &Principal,
        verb: SystemVerb,
    ) -> Result<SystemPermit, Refusal> {
        match principal {
            Principal::System => Ok(SystemPermit { verb }),
            Principal::LocalUser { .. } | Principal::Remote(_) => {
                let message = "Only the server itself does that.";
                Err(Refusal::new(
                    Reason::PolicyDenied,
                    message,
                    "Use `destroy_session` for a session of yours.",
                ))
            }
        }
    }
}

/// What a session reaches is never the calling model's to say.
fn require_person(by: AnsweredBy) -> Result<(), Refusal> {
    match by {
        AnsweredBy::Person => Ok(()),
        AnsweredBy::Caller => {
            let message = "The calling model may not let a session reach more.";
            let hint = "Tell your user: a person does so in a client that asks them, or with `claude-code-mcp session allow \
                        SESSION HOST[:PORT]`.";
            Err(Refusal::new(Reason::PolicyDenied, message, hint))
        }
    }
}

pub(crate) fn not_for_the_server() -> Refusal {
    Refusal::new(
        Reason::PolicyDenied,
        "The server does not start work on its own account.",
        "Call as a user.",
    )
}

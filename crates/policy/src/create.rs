//! May this caller have this session?

use std::{path::Path, time::Duration};

use model::{
    BackendName, CreateSession, Kernel, LimitRequest, Limits, Principal, Reason, Refusal,
    RuntimeClass, Scope, Scopes,
};

use crate::{
    AgentParts, CallerLimits, CreateFacts, CreateParts, CreatePermit, Hears, MachineFacts,
    PlaceBounds, Policy, environment, lexical, limits, mounts::HostRules, prompt, roots::Roots,
};

/// Longest name of a session, characters: fits a line of a list.
pub const MAX_NAME_CHARACTERS: usize = 64;
/// Longest idempotency key, bytes: room for two UUIDs and a word.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 128;

/// Least processes and threads of a sandbox with a kernel of its own: that kernel (gVisor's) alone takes some fifty of the
/// host's, and two for each of the guest's, and ends with the sandbox when it gets no more.
const GUEST_KERNEL_TASKS: u64 = 128;

impl Policy {
    /// Decides on a new session.
    ///
    /// # Errors
    /// [`Reason::PathNotAllowed`], [`Reason::PathForbidden`], [`Reason::PathProtected`], [`Reason::PathNotFound`],
    /// [`Reason::PathUnsafe`] or [`Reason::WorkspaceNotMappable`] for the project and the mounts;
    /// [`Reason::NetworkNotAllowed`] for what it would reach; [`Reason::InvalidArgument`], [`Reason::TooLarge`] or
    /// [`Reason::PolicyDenied`] for the rest.
    pub fn admit_create(
        &self,
        principal: &Principal,
        asked: &CreateSession,
        facts: CreateFacts,
    ) -> Result<CreatePermit, Refusal> {
        let scopes = Scopes::NONE.with(Scope::SessionsRun);
        let owner = match asked.network.asks_for_something() {
            true => self.maker(principal, scopes.with(Scope::Network))?,
            false => self.maker(principal, scopes)?,
        };
        self.check_plain_arguments(asked)?;
        if facts.mounts.len() != asked.mounts.len() {
            return Err(not_looked_up("mcpMounts"));
        }
        let roots = Roots::of(principal, &self.config.project_roots, &self.forbidden);
        let rules = HostRules {
            roots: &roots,
            forbidden: &self.forbidden,
            protected: &self.protected,
            server_uid: self.config.server_uid,
        };
        let workspace = match principal.remote() {
            Some(_) => {
                refuse_mounts(asked)?;
                rules.named_project(&asked.project_path, &facts.project, "projectPath")?
            }
            None => rules.directory(&asked.project_path, &facts.project, "projectPath")?,
        };
        rules.writable(&workspace, "projectPath")?;
        let mounts = rules.mounts(
            &workspace,
            &self.config.operator_mounts,
            &asked.mounts,
            &facts.mounts,
        )?;
        let backend = self.backend(asked.backend)?;
        let runtime = self.runtime(backend, asked.runtime_class.as_deref())?;
        let kernel = runtime
            .as_ref()
            .map_or(Kernel::Shared, |class| class.kernel);
        let named = self.named_limits(asked)?;
        let limits = limits::narrow(&self.config.limits, &named, &self.hardening)?;
        check_tasks(kernel, &limits)?;
        self.check_protectable(&facts)?;
        let network = self.network.policy(&asked.network)?;
        let ttl = asked
            .ttl
            .unwrap_or(self.config.default_ttl)
            .min(self.config.max_ttl);
        Ok(CreatePermit {
            parts: CreateParts {
                owner,
                name: asked.name.clone(),
                backend,
                runtime,
                workspace,
                protected: self.protected.plan(&facts.existing),
                mounts,
                managed_settings: self.managed_settings.clone(),
                limits,
                accept_soft_limits: self.config.dangerously_accept_soft_limits,
                layers: self.hardening.layers(backend, kernel),
                ttl,
                idle: asked.idle.unwrap_or(self.config.default_idle).min(ttl),
                lease: self.config.lease,
                network,
                may_widen: self.network.allows_anything(),
                env: asked.env.clone(),
                agent: AgentParts {
                    request: asked.agent.clone(),
                    permissions: self.config.permissions.clone(),
                    trust_project: self.config.dangerously_trust_project_settings,
                    patience: self.config.permission_timeout,
                },
                bounds: self.bounds(principal, &facts.machine),
                hears: hears(principal),
                queue_wait: self.config.callers.queue_wait,
                idempotency_key: asked.idempotency_key.clone(),
                allow_protected_changes: self.config.allow_protected_changes,
            },
        })
    }

    /// What live sessions of this caller must not exceed, one that is asked for included.
    pub fn bounds(&self, principal: &Principal, machine: &MachineFacts) -> PlaceBounds {
        let own_maximum = principal.remote().and_then(|caller| caller.max_sessions);
        let config = &self.config;
        config
            .callers
            .bounds(config.max_sessions, own_maximum, machine)
    }

    /// The backend that a session would have which asks for that one or for none; nothing where this server has it not.
    pub fn backend_for(&self, asked: Option<BackendName>) -> Option<BackendName> {
        self.backend(asked).ok()
    }

    /// What each caller may do at most.
    pub const fn callers(&self) -> &CallerLimits {
        &self.config.callers
    }

    /// Where the server keeps its own files.
    pub fn state_directory(&self) -> &Path {
        &self.config.state_directory
    }

    fn check_plain_arguments(&self, asked: &CreateSession) -> Result<(), Refusal> {
        check_name(asked.name.as_deref(), "sessionName")?;
        check_idempotency_key(asked.idempotency_key.as_deref())?;
        check_time(asked.ttl, "ttlSeconds")?;
        check_time(asked.idle, "idleSeconds")?;
        prompt::check_agent(&asked.agent)?;
        environment::check(&asked.env, &self.hardening)
    }

    /// What the caller names, in either way; of two for one limit the least. An option of an engine above the profile's
    /// value asks for the profile's.
    fn named_limits(&self, asked: &CreateSession) -> Result<Vec<LimitRequest>, Refusal> {
        let mut named = asked.limits.clone();
        for option in self.host_config.judge(&asked.docker_options)? {
            let floor = self.hardening.range(option.limit).floor;
            if option.value < floor {
                return Err(option.below(floor));
            }
            let value = option.value.min(self.config.limits.get(option.limit).value);
            match named.iter_mut().find(|found| found.limit == option.limit) {
                Some(found) => found.value = found.value.min(value),
                None => named.push(LimitRequest {
                    limit: option.limit,
                    value,
                }),
            }
        }
        Ok(named)
    }

    /// The class that was asked for, or the operator's first; only an engine has any.
    fn runtime(
        &self,
        backend: BackendName,
        asked: Option<&str>,
    ) -> Result<Option<RuntimeClass>, Refusal> {
        let ours = match backend {
            BackendName::Docker => self.config.runtime_classes.as_slice(),
            BackendName::Native | BackendName::Fake => &[],
        };
        let Some(name) = asked else {
            return Ok(ours.first().cloned());
        };
        if let Some(class) = ours.iter().find(|class| class.name == name) {
            return Ok(Some(class.clone()));
        }
        let names: Vec<_> = ours
            .iter()
            .map(|class| format!("`{}`", class.name))
            .collect();
        let hint = match (backend, names.as_slice()) {
            (BackendName::Docker, []) => {
                "Leave it out, or let the operator allow it with `runtime_classes`.".to_owned()
            }
            (BackendName::Docker, names) => format!(
                "Leave it out, name {}, or let the operator allow it with `runtime_classes`.",
                names.join(" or ")
            ),
            (BackendName::Native | BackendName::Fake, _) => {
                "Leave it out, or name the backend `docker`: only an engine has runtime classes."
                    .to_owned()
            }
        };
        Err(Refusal::new(
            Reason::PolicyDenied,
            "The operator allows no such runtime class.",
            hint,
        )
        .in_field("runtimeClass"))
    }

    /// The one that was asked for, or the first of this server's.
    fn backend(&self, asked: Option<BackendName>) -> Result<BackendName, Refusal> {
        let ours = &self.config.backends;
        let found = match asked {
            None => ours.first(),
            Some(name) => ours.iter().find(|backend| **backend == name),
        };
        found.copied().ok_or_else(|| {
            let names: Vec<_> = ours.iter().map(|name| format!("`{}`", name.as_str())).collect();
            let missing = asked.map_or("that works", BackendName::as_str);
            Refusal::new(
                Reason::BackendUnavailable,
                format!("This server has no backend `{missing}`."),
                format!(
                    "Leave it out or name {}: what works here was found out when the server started.",
                    names.join(" or ")
                ),
            )
            .in_field("backend")
        })
    }

    fn check_protectable(&self, facts: &CreateFacts) -> Result<(), Refusal> {
        if self
            .protected_candidates()
            .iter()
            .any(|candidate| !facts.existing.contains_key(candidate))
        {
            return Err(not_looked_up("projectPath"));
        }
        let Some(path) = self.protected.unpinnable(&facts.existing) else {
            return Ok(());
        };
        let message = format!(
            "`{}` of the project is a link or special file, which cannot be protected.",
            path.display()
        );
        let hint = "Replace it by the file or directory itself, and try again.";
        Err(Refusal::new(Reason::PathUnsafe, message, hint).in_field("projectPath"))
    }
}

/// A remote caller names no directory of this host but its projects.
fn refuse_mounts(asked: &CreateSession) -> Result<(), Refusal> {
    if asked.mounts.is_empty() {
        return Ok(());
    }
    let message = "A remote caller cannot mount directories of the server's disk.";
    let hint =
        "Leave `mcpMounts` out; carry files with `transfer_files`, or ask whoever runs the server.";
    Err(Refusal::new(Reason::PolicyDenied, message, hint).in_field("mcpMounts"))
}

/// Our own fault, and no reason to be lenient.
fn not_looked_up(field: &str) -> Refusal {
    let message = "The server did not look at everything that the decision needs.";
    Refusal::new(
        Reason::Internal,
        message,
        "Try again; the server's log says more.",
    )
    .in_field(field)
}

/// The operator: whoever sits here, and whoever administers the server from elsewhere.
fn hears(principal: &Principal) -> Hears {
    let is_operator = principal
        .remote()
        .is_none_or(|caller| caller.scopes.contains(Scope::Admin));
    match is_operator {
        true => Hears::OfAll,
        false => Hears::OfItsOwn,
    }
}

fn check_tasks(kernel: Kernel, limits: &Limits) -> Result<(), Refusal> {
    let asked = limits.pids.value;
    if kernel == Kernel::Shared || asked >= GUEST_KERNEL_TASKS {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::InvalidArgument,
        format!("`limits.pids` is {asked}, and a runtime class with a kernel of its own needs {GUEST_KERNEL_TASKS}."),
        format!("Give {GUEST_KERNEL_TASKS} or more, or leave the limit out."),
    )
    .in_field("limits.pids"))
}

/// A name for people, of a session or a key.
pub(crate) fn check_name(name: Option<&str>, field: &str) -> Result<(), Refusal> {
    let Some(name) = name else { return Ok(()) };
    let allowed =
        |character: char| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_' | '.');
    let fits = !name.is_empty() && name.chars().count() <= MAX_NAME_CHARACTERS;
    let starts = name.chars().next().is_some_and(char::is_alphanumeric);
    if fits
        && starts
        && !name.ends_with(' ')
        && name
            .chars()
            .all(|character| allowed(character) && !lexical::is_deceptive(character))
    {
        return Ok(());
    }
    let message = "The name has characters or a length that a name cannot have.";
    let hint = format!(
        "Use 1 to {MAX_NAME_CHARACTERS} letters, digits, spaces, `-`, `_` or `.`, beginning with a letter or digit."
    );
    Err(Refusal::new(Reason::InvalidArgument, message, hint).in_field(field))
}

fn check_idempotency_key(key: Option<&str>) -> Result<(), Refusal> {
    let Some(key) = key else { return Ok(()) };
    if !key.is_empty()
        && key.len() <= MAX_IDEMPOTENCY_KEY_BYTES
        && key.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Ok(());
    }
    let hint = format!(
        "Use 1 to {MAX_IDEMPOTENCY_KEY_BYTES} printable ASCII characters without spaces, such as a UUID."
    );
    Err(Refusal::new(
        Reason::InvalidArgument,
        "The idempotency key is empty, too long or has other characters.",
        hint,
    )
    .in_field("idempotencyKey"))
}

fn check_time(time: Option<Duration>, field: &str) -> Result<(), Refusal> {
    match time {
        Some(time) if time < Duration::from_secs(1) => Err(Refusal::new(
            Reason::InvalidArgument,
            "The time is shorter than a second.",
            "Use at least 1, or leave it out.",
        )
        .in_field(field)),
        Some(_) | None => Ok(()),
    }
}

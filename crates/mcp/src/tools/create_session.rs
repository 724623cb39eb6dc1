//! `create_session`

use std::{collections::BTreeMap, time::Duration};

use model::{
    Action, AgentRequest, BackendName, CreateSession as Create, DockerOptions, EgressRule,
    LimitName, LimitRequest, MountRequest, NetworkRequest, Outcome, ProviderRequest, Refusal,
    Secret,
};
use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Definition, Hints, fields, unexpected};
use crate::{
    arguments::invalid,
    call::{Caller, internal},
    reply::SessionReply,
    shape,
};

/// Characters of a session's name.
const MAX_NAME_CHARACTERS: u64 = 64;
/// Longest name of a runtime class that a configuration can give, bytes.
const MAX_RUNTIME_CLASS: u64 = 64;
/// Further host directories of one session.
const MAX_MOUNTS: usize = 16;
/// Named sets of hosts of one session.
const MAX_PRESETS: usize = 16;
/// Rules of one session in each list.
const MAX_RULES: usize = 128;

/// Arguments of the original and of later versions. They are refused by name, never dropped: whoever passes one counts
/// on it.
const NOT_YET: [(&str, &str); 3] = [
    (
        "image",
        "Leave it out; the operator decides what sessions see as their root file system.",
    ),
    (
        "workspace",
        "Leave it out; the project is mounted so that changes are made in place.",
    ),
    ("from", "Leave it out; sessions cannot be forked yet."),
];

pub(super) struct CreateSession;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Parameters {
    /// Absolute path of the project directory on the host. It becomes /workspace, and changes made there are made in
    /// the real files. It must lie in a directory that the client works in or that the operator allows. A client on another
    /// machine gives the project's name instead, such as app or team/app.
    #[schemars(length(min = 1, max = 4095))]
    project_path: String,
    /// Name for people, 1 to 64 characters. Default: one is made up.
    #[schemars(length(min = 1, max = MAX_NAME_CHARACTERS))]
    session_name: Option<String>,
    /// What the walls are made of. Default: what the server has chosen for this machine.
    backend: Option<Backend>,
    /// On an engine: by which of the runtime classes of get_server_info, such as runsc, whose sessions have a kernel of
    /// their own. Default: the operator's first.
    #[schemars(length(min = 1, max = MAX_RUNTIME_CLASS))]
    runtime_class: Option<String>,
    /// Further host directories, at most 16.
    #[serde(default)]
    #[schemars(length(max = MAX_MOUNTS))]
    mcp_mounts: Vec<Mount>,
    /// Lifetime in seconds from now. A longer one than maxSessionSeconds of get_server_info is cut to that, and the reply
    /// says so. Default: the server's default, see get_server_info.
    #[schemars(range(min = 1, max = fields::MAX_LIFETIME_SECONDS))]
    ttl_seconds: Option<u64>,
    /// End the session after so many seconds without a running execution or a call. Default: the server's default.
    #[schemars(range(min = 1, max = fields::MAX_LIFETIME_SECONDS))]
    idle_seconds: Option<u64>,
    /// Environment variables of every execution, at most 256. Whatever runs inside can read them: pass no secrets that
    /// the code must not see.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    env: BTreeMap<String, Secret<String>>,
    /// Which hosts what runs inside may reach, by names the operator allows; get_server_info tells which. Default: none but the model
    /// provider, and what the operator gives every session. Nothing of it can be widened by a later call of yours.
    network: Option<Network>,
    /// Nothing is allowed to Claude Code but what a person or a rule of the operator allows; what it asks stands in
    /// pendingPermissions. Default: false, all is allowed, and the sandbox is the wall.
    #[serde(default)]
    strict_permissions: bool,
    /// Further MCP servers for Claude Code, which run inside: an object as in its .mcp.json, or the value of its mcpServers.
    mcp_config: Option<serde_json::Map<String, serde_json::Value>>,
    /// A key of Anthropic for this session instead of the server's. It stays with the server and is never inside; a restart of
    /// the server forgets it.
    #[schemars(with = "Option<String>")]
    api_key: Option<Secret<String>>,
    /// Ask Amazon Bedrock instead of Anthropic.
    use_bedrock: Option<bool>,
    /// Region of Amazon Bedrock.
    #[schemars(length(min = 1, max = 64))]
    aws_region: Option<String>,
    /// Keys for Amazon Bedrock for this session; they stay with the server.
    #[schemars(with = "Option<String>")]
    aws_access_key_id: Option<Secret<String>>,
    /// See awsAccessKeyId.
    #[schemars(with = "Option<String>")]
    aws_secret_access_key: Option<Secret<String>>,
    /// Of temporary keys.
    #[schemars(with = "Option<String>")]
    aws_session_token: Option<Secret<String>>,
    /// Model of Amazon Bedrock.
    #[schemars(length(min = 1, max = 200))]
    bedrock_model: Option<String>,
    /// Model of Amazon Bedrock for small work.
    #[schemars(length(min = 1, max = 200))]
    bedrock_small_model: Option<String>,
    /// Any text of 1 to 128 characters. A second call with the same key and arguments returns the session of the first
    /// instead of making another, so a call whose answer was lost can be repeated.
    #[schemars(length(min = 1, max = 128))]
    idempotency_key: Option<String>,
    /// The same protections in the words of the Docker Engine's HostConfig, on every backend. They only narrow: Memory
    /// ("2g"), CpuQuota, CpuPeriod, NanoCpus, PidsLimit, Ulimits, Tmpfs, ShmSize, CapDrop, ReadonlyRootfs, SecurityOpt,
    /// NetworkMode. Whatever would widen is refused, with the rule; dockerOptsInForce of the reply says what holds.
    #[schemars(with = "Option<std::collections::BTreeMap<String, serde_json::Value>>")]
    docker_opts: Option<serde_json::Map<String, serde_json::Value>>,
    /// Resource limits. They can only narrow the server's; a limit named here is enforced by the kernel, or the call is
    /// refused. Default: the server's limits, shown in the reply.
    limits: Option<Limits>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Network {
    /// Named sets of hosts, such as github, debian, crates, pypi, npm.
    #[serde(default)]
    #[schemars(length(max = MAX_PRESETS))]
    presets: Vec<String>,
    /// Hosts: host, host:port or host:port,port, the host exact or *.suffix, by name and not by address; port 443 where none is
    /// named.
    #[serde(default)]
    #[schemars(length(max = MAX_RULES))]
    allow: Vec<String>,
    /// Hosts of which only some requests are allowed.
    #[serde(default)]
    #[schemars(length(max = MAX_RULES))]
    rules: Vec<NetworkRule>,
    /// Credentials of the operator's, by name: requests to their destinations are given them on their way out, where the
    /// sandbox's placeholder stands. They are never inside.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64)))]
    credentials: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NetworkRule {
    /// Exact, or *.suffix.
    #[schemars(length(min = 1, max = 255))]
    host: String,
    /// Default: 443.
    #[serde(default)]
    #[schemars(length(max = 16), inner(range(min = 1, max = 65_535)))]
    ports: Vec<u16>,
    /// Methods of HTTP in capital letters. Default: all.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 1, max = 16)))]
    methods: Vec<String>,
    /// How paths must begin. Default: any.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 1, max = 256)))]
    paths: Vec<String>,
}

impl Network {
    fn request(self) -> Result<NetworkRequest, Refusal> {
        let texts = self.allow.iter().enumerate();
        let texts = texts
            .map(|(index, text)| fields::network_rule(&format!("network.allow[{index}]"), text));
        let rules = self.rules.into_iter().enumerate();
        let rules = rules.map(|(index, rule)| rule.rule(&format!("network.rules[{index}]")));
        Ok(NetworkRequest {
            presets: self.presets,
            allow: texts.chain(rules).collect::<Result<_, _>>()?,
            credentials: self.credentials,
        })
    }
}

impl NetworkRule {
    fn rule(self, field: &str) -> Result<EgressRule, Refusal> {
        let host = fields::network_host(&format!("{field}.host"), &self.host)?;
        let usual = EgressRule::on(host);
        Ok(EgressRule {
            ports: match self.ports.is_empty() {
                true => usual.ports.clone(),
                false => self.ports,
            },
            methods: self.methods,
            paths: self.paths,
            ..usual
        })
    }
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Backend {
    /// The embedded runtime.
    Native,
    /// A Docker engine on this machine.
    Docker,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mount {
    /// Absolute path of a directory on the host.
    #[schemars(length(min = 1, max = 4095))]
    host_path: String,
    /// Absolute path inside.
    #[schemars(length(min = 1, max = 4095))]
    container_path: String,
    /// Mount it read-only. Default: true.
    #[serde(default = "yes")]
    read_only: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Limits {
    /// Memory and swap together, bytes.
    #[schemars(range(min = 1))]
    memory_bytes: Option<u64>,
    /// CPU time, thousandths of one CPU: 1500 is one and a half CPUs.
    #[schemars(range(min = 1))]
    cpu_millis: Option<u64>,
    /// Processes and threads.
    #[schemars(range(min = 1))]
    pids: Option<u64>,
    /// Open files of one process.
    #[schemars(range(min = 1))]
    open_files: Option<u64>,
    /// Size of a single file, bytes.
    #[schemars(range(min = 1))]
    file_bytes: Option<u64>,
    /// /tmp, home and other temporary places together, bytes.
    #[schemars(range(min = 1))]
    temporary_bytes: Option<u64>,
}

impl Limits {
    fn requests(&self) -> Vec<LimitRequest> {
        let named = [
            (LimitName::MemoryBytes, self.memory_bytes),
            (LimitName::CpuMillis, self.cpu_millis),
            (LimitName::Pids, self.pids),
            (LimitName::OpenFiles, self.open_files),
            (LimitName::FileBytes, self.file_bytes),
            (LimitName::TemporaryBytes, self.temporary_bytes),
        ];
        named
            .into_iter()
            .filter_map(|(limit, value)| {
                Some(LimitRequest {
                    limit,
                    value: value?,
                })
            })
            .collect()
    }
}

impl Parameters {
    fn into_action(
        self,
        docker_options: DockerOptions,
        is_remote: bool,
    ) -> Result<Action, Refusal> {
        for (field, text) in [
            ("sessionName", &self.session_name),
            ("idempotencyKey", &self.idempotency_key),
        ] {
            text.as_deref()
                .map_or(Ok(()), |text| fields::no_controls(field, text))?;
        }
        let env = fields::environment(self.env)?;
        if fields::environment_bytes(&env) > fields::MAX_START_BYTES {
            return Err(invalid(
                "env",
                format!("`env` is larger than {} bytes.", fields::MAX_START_BYTES),
            ));
        }
        Ok(Action::CreateSession(Box::new(Create {
            project_path: fields::project_path("projectPath", &self.project_path, is_remote)?,
            name: self.session_name,
            backend: self.backend.map(|backend| match backend {
                Backend::Native => BackendName::Native,
                Backend::Docker => BackendName::Docker,
            }),
            runtime_class: self.runtime_class,
            mounts: mounts(&self.mcp_mounts)?,
            limits: self
                .limits
                .map(|limits| limits.requests())
                .unwrap_or_default(),
            ttl: self.ttl_seconds.map(Duration::from_secs),
            idle: self.idle_seconds.map(Duration::from_secs),
            env,
            docker_options,
            network: self.network.unwrap_or_default().request()?,
            agent: AgentRequest {
                strict_permissions: self.strict_permissions,
                mcp_servers: self.mcp_config.map(mcp_servers).transpose()?,
                provider: ProviderRequest {
                    api_key: self.api_key,
                    use_bedrock: self.use_bedrock,
                    aws_region: self.aws_region,
                    aws_access_key_id: self.aws_access_key_id,
                    aws_secret_access_key: self.aws_secret_access_key,
                    aws_session_token: self.aws_session_token,
                    bedrock_model: self.bedrock_model,
                    bedrock_small_model: self.bedrock_small_model,
                },
            },
            idempotency_key: self.idempotency_key,
        })))
    }
}

/// What stands in `mcpServers`, or is the value of it; each server an object.
fn mcp_servers(mut config: serde_json::Map<String, serde_json::Value>) -> Result<String, Refusal> {
    let wrong = || {
        invalid(
            "mcpConfig",
            "`mcpConfig` must be an object of servers, such as {\"files\": {\"command\": \"npx\", \"args\": […]}}.",
        )
    };
    let servers = match config.remove("mcpServers") {
        Some(serde_json::Value::Object(servers)) if config.is_empty() => servers,
        Some(_) => return Err(wrong()),
        None => config,
    };
    match servers.values().all(serde_json::Value::is_object) {
        true => Ok(serde_json::Value::Object(servers).to_string()),
        false => Err(wrong()),
    }
}

/// The options as they stood on the line, of which the arguments kept only that they were there.
fn docker_options(
    argument: Option<&JsonObject>,
    said: Option<DockerOptions>,
) -> Result<DockerOptions, Refusal> {
    match (argument, said) {
        (None, None) => Ok(DockerOptions::default()),
        (Some(rest), Some(options)) if rest.is_empty() => Ok(options),
        _ => Err(internal("options of an engine that are not the line's")),
    }
}

fn mounts(mounts: &[Mount]) -> Result<Vec<MountRequest>, Refusal> {
    let request = |(index, mount): (usize, &Mount)| {
        let inside = format!("mcpMounts[{index}].containerPath");
        if !mount.container_path.starts_with('/') {
            let message = format!(
                "`{inside}` must be an absolute path inside the session, beginning with /."
            );
            return Err(invalid(inside, message));
        }
        Ok(MountRequest {
            host_path: fields::host_path(
                &format!("mcpMounts[{index}].hostPath"),
                &mount.host_path,
            )?,
            container_path: fields::inner_path(&inside, &mount.container_path)?,
            read_only: mount.read_only,
        })
    };
    mounts.iter().enumerate().map(request).collect()
}

impl Definition for CreateSession {
    const NAME: &'static str = "create_session";
    const TITLE: &'static str = "Create a sandbox session";
    const DESCRIPTION: &'static str = "Creates an isolated session on a project directory of the host: a hardened \
        sandbox, by default without network, in which execute_in_session gives Claude Code work and execute_command runs commands. Use one session per project or experiment; \
        several run in parallel.\n\n\
        The project stands at /workspace and is changed in place; /state is kept for the session, /tmp and home live in \
        memory, everything else is read-only. Files that the host itself would execute or trust (such as .git/hooks) \
        cannot be written. The reply tells in hardening which protections and limits were found in force after start.\n\n\
        Lifetime: the session ends at expiresAt (ttlSeconds from now), or after idleSeconds without a running execution \
        or a call, or with destroy_session; extend_session moves expiresAt. Everything but the project is then gone, and \
        its id is answered session_expired or session_destroyed: create a new one. It belongs to the user, not to the \
        connection: a disconnect or a cancelled request does not end it, and list_sessions finds it again. Repeat a call \
        whose answer was lost with the same idempotencyKey.";
    const HINTS: Hints = Hints {
        read_only: false,
        destructive: false,
        idempotent: false,
    };
    type Parameters = Parameters;
    type Reply = SessionReply;

    fn refuse_early(arguments: &JsonObject) -> Result<(), Refusal> {
        match NOT_YET
            .iter()
            .find(|(name, _)| arguments.contains_key(*name))
        {
            Some((name, advice)) => Err(invalid(
                *name,
                format!("`{name}` is not supported yet by this server. {advice}"),
            )),
            None => Ok(()),
        }
    }

    async fn run(parameters: Parameters, mut caller: Caller) -> Result<SessionReply, Refusal> {
        let said = caller.said.docker_options.take();
        let options = docker_options(parameters.docker_opts.as_ref(), said)?;
        let asked = parameters.ttl_seconds.map(Duration::from_secs);
        let action = parameters.into_action(options, caller.is_remote())?;
        let Outcome::Session(view) = caller.ask(action).await? else {
            return Err(unexpected(Self::NAME));
        };
        let mut reply = shape::session(&view);
        let lifetime = view.expires_at.duration_since(view.created_at);
        if let Some(lifetime) = lifetime.ok().filter(|lifetime| asked > Some(*lifetime)) {
            let most = lifetime.as_secs();
            reply.message.push_str(&format!(
                " ttlSeconds was cut to {most}, the operator's longest lifetime."
            ));
        }
        Ok(reply)
    }
}

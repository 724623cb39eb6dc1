//! What the audit log hears of a call: names, numbers and paths as they are; commands, input and values of the
//! environment as digest and length only.

use std::time::Duration;

use audit::{Parameter, Target};
use model::{
    Action, CommandLine, ConversationChoice, CreateKey, CreateSession, EgressRule, ExecuteCommand,
    ExecutePrompt, ExecutionId, PermissionAnswer, SessionId, TransferDirection,
};

/// The session that an action names.
pub(crate) const fn session(action: &Action) -> Option<SessionId> {
    match action {
        Action::ExecuteCommand(request) => Some(request.session),
        Action::ExecutePrompt(request) => Some(request.session),
        Action::TransferFiles(request) => Some(request.session),
        Action::WriteFile(request) => Some(request.session),
        Action::ReadFile(request) => Some(request.session),
        Action::ReadTranscript(request) => Some(request.session),
        Action::WidenNetwork(request) => Some(request.session),
        Action::AnswerNetwork(request) => Some(request.session),
        Action::GetSession(session)
        | Action::DestroySession(session)
        | Action::GetSessionLogs { session, .. }
        | Action::ExtendSession { session, .. }
        | Action::ReapSession { session, .. }
        | Action::AdoptSession(session)
        | Action::RemoveRemains { session, .. } => Some(*session),
        Action::CreateSession(_)
        | Action::GetExecution(_)
        | Action::CancelExecution(_)
        | Action::RespondExecution { .. }
        | Action::AnswerExecution { .. }
        | Action::ResizeTerminal { .. }
        | Action::ListSessions { .. }
        | Action::GetServerInfo
        | Action::CreateKey(_)
        | Action::RotateKey { .. }
        | Action::RevokeKey { .. }
        | Action::ListKeys => None,
    }
}

/// The execution that an action names.
pub(crate) const fn execution(action: &Action) -> Option<ExecutionId> {
    match action {
        Action::GetExecution(request) => Some(request.execution),
        Action::CancelExecution(execution)
        | Action::RespondExecution { execution, .. }
        | Action::AnswerExecution { execution, .. }
        | Action::ResizeTerminal { execution, .. } => Some(*execution),
        Action::CreateSession(_)
        | Action::ExecuteCommand(_)
        | Action::ExecutePrompt(_)
        | Action::TransferFiles(_)
        | Action::WriteFile(_)
        | Action::ReadFile(_)
        | Action::ReadTranscript(_)
        | Action::WidenNetwork(_)
        | Action::AnswerNetwork(_)
        | Action::GetSession(_)
        | Action::DestroySession(_)
        | Action::GetSessionLogs { .. }
        | Action::ExtendSession { .. }
        | Action::ReapSession { .. }
        | Action::AdoptSession(_)
        | Action::RemoveRemains { .. }
        | Action::ListSessions { .. }
        | Action::CreateKey(_)
        | Action::RotateKey { .. }
        | Action::RevokeKey { .. }
        | Action::ListKeys
        | Action::GetServerInfo => None,
    }
}

/// What an action is about, where that is no session.
pub(crate) fn target(action: &Action) -> Option<Target> {
    let (kind, id) = match action {
        Action::CreateSession(request) => (
            "project",
            request.project_path.to_string_lossy().into_owned(),
        ),
        Action::GetExecution(request) => ("execution", request.execution.to_string()),
        Action::CancelExecution(execution)
        | Action::RespondExecution { execution, .. }
        | Action::AnswerExecution { execution, .. }
        | Action::ResizeTerminal { execution, .. } => ("execution", execution.to_string()),
        Action::CreateKey(request) => ("key", request.name.clone()),
        Action::RotateKey { key, .. } | Action::RevokeKey { key, .. } => ("key", key.to_string()),
        Action::ListSessions { .. } | Action::ListKeys | Action::GetServerInfo => {
            ("server", String::new())
        }
        Action::ExecuteCommand(_)
        | Action::ExecutePrompt(_)
        | Action::TransferFiles(_)
        | Action::WriteFile(_)
        | Action::ReadFile(_)
        | Action::ReadTranscript(_)
        | Action::WidenNetwork(_)
        | Action::AnswerNetwork(_)
        | Action::GetSession(_)
        | Action::DestroySession(_)
        | Action::GetSessionLogs { .. }
        | Action::ExtendSession { .. }
        | Action::ReapSession { .. }
        | Action::AdoptSession(_)
        | Action::RemoveRemains { .. } => return None,
    };
    Some(Target { kind, id })
}

/// The details of an action.
pub(crate) fn parameters(action: &Action) -> Vec<(&'static str, Parameter)> {
    match action {
        Action::CreateSession(request) => create(request),
        Action::ExecuteCommand(request) => command(request),
        Action::ExecutePrompt(request) => prompt(request),
        Action::AnswerExecution {
            execution,
            question,
            answer,
            by,
        } => vec![
            ("execution", word(execution)),
            ("question", Parameter::content(question.as_bytes())),
            (
                "answer",
                word(match answer {
                    PermissionAnswer::Allow => "allow",
                    PermissionAnswer::Deny(_) => "deny",
                    PermissionAnswer::Words(_) => "words",
                }),
            ),
            ("answered_by", word(by.as_str())),
        ],
        Action::GetExecution(request) => vec![("execution", word(request.execution))],
        Action::CancelExecution(execution) => vec![("execution", word(execution))],
        Action::RespondExecution {
            execution,
            data,
            close,
        } => vec![
            ("execution", word(execution)),
            ("stdin", Parameter::content(data.expose())),
            ("close", word(close)),
        ],
        Action::ResizeTerminal {
            execution,
            terminal,
        } => vec![
            ("execution", word(execution)),
            ("rows", Parameter::Number(terminal.rows.into())),
            ("columns", Parameter::Number(terminal.columns.into())),
        ],
        Action::GetSessionLogs { tail, .. } => vec![("tail", Parameter::Number((*tail).into()))],
        Action::ReadTranscript(request) => request
            .conversation
            .map(|conversation| ("conversation", word(conversation)))
            .into_iter()
            .collect(),
        Action::TransferFiles(request) => vec![
            (
                "direction",
                word(match request.direction {
                    TransferDirection::ToContainer => "to_container",
                    TransferDirection::FromContainer => "from_container",
                }),
            ),
            ("source", Parameter::Path(request.source.clone())),
            ("destination", Parameter::Path(request.destination.clone())),
        ],
        Action::WriteFile(request) => {
            let mut parameters = vec![
                ("destination", Parameter::Path(request.destination.clone())),
                ("content", Parameter::content(request.content.expose())),
                ("offset", Parameter::Number(request.offset)),
                ("last", word(request.is_last)),
            ];
            parameters.extend(request.upload.map(|id| ("handle", word(id))));
            parameters
        }
        Action::ReadFile(request) => {
            let mut parameters = vec![
                ("source", Parameter::Path(request.source.clone())),
                ("offset", Parameter::Number(request.offset)),
                ("length", Parameter::Number(request.length)),
            ];
            parameters.extend(request.download.map(|id| ("handle", word(id))));
            parameters
        }
        Action::CreateKey(request) => key(request),
        Action::RotateKey { key, overlap } => {
            vec![("key", word(key)), ("overlap_seconds", seconds(*overlap))]
        }
        Action::RevokeKey {
            key,
            destroy_sessions,
        } => vec![
            ("key", word(key)),
            ("destroy_sessions", word(destroy_sessions)),
        ],
        Action::ExtendSession { by, .. } => vec![("seconds", seconds(*by))],
        Action::WidenNetwork(request) => {
            let mut parameters = vec![("answered_by", word(request.by.as_str()))];
            parameters.extend(rules(&request.allow));
            parameters
        }
        Action::AnswerNetwork(request) => vec![
            ("answered_by", word(request.by.as_str())),
            ("answer", word(if request.allow { "allow" } else { "deny" })),
            ("host", word(&request.target.host)),
            ("port", Parameter::Number(request.target.port.into())),
        ],
        Action::RemoveRemains { backend, .. } => vec![("backend", word(backend.as_str()))],
        Action::ReapSession { because, .. } => vec![("because", word(format!("{because:?}")))],
        Action::ListSessions { .. }
        | Action::GetSession(_)
        | Action::DestroySession(_)
        | Action::AdoptSession(_)
        | Action::GetServerInfo
        | Action::ListKeys => Vec::new(),
    }
}

fn create(request: &CreateSession) -> Vec<(&'static str, Parameter)> {
    let mut parameters = vec![("project", Parameter::Path(request.project_path.clone()))];
    if let Some(name) = &request.name {
        parameters.push(("name", word(name)));
    }
    if let Some(backend) = request.backend {
        parameters.push(("backend", word(backend.as_str())));
    }
    if let Some(class) = &request.runtime_class {
        parameters.push(("runtime_class", word(class)));
    }
    for mount in &request.mounts {
        let access = if mount.read_only {
            "mount_read_only"
        } else {
            "mount_writable"
        };
        parameters.push((access, Parameter::Path(mount.host_path.clone())));
    }
    for limit in &request.limits {
        parameters.push((limit.limit.as_str(), Parameter::Number(limit.value)));
    }
    if !request.docker_options.0.is_empty() {
        let told = format!("{:?}", request.docker_options);
        parameters.push(("docker_options", Parameter::content(told.as_bytes())));
    }
    if let Some(ttl) = request.ttl {
        parameters.push(("ttl_seconds", seconds(ttl)));
    }
    if let Some(idle) = request.idle {
        parameters.push(("idle_seconds", seconds(idle)));
    }
    if !request.network.presets.is_empty() {
        parameters.push(("presets", word(request.network.presets.join(","))));
    }
    parameters.extend(rules(&request.network.allow));
    let agent = &request.agent;
    if agent.strict_permissions {
        parameters.push(("strict_permissions", word("yes")));
    }
    if let Some(servers) = &agent.mcp_servers {
        parameters.push(("mcp_servers", Parameter::content(servers.as_bytes())));
    }
    if agent.provider.has_secret() {
        parameters.push(("provider_credential", word("given with the call")));
    }
    if agent.provider.use_bedrock == Some(true) {
        parameters.push(("provider", word("bedrock")));
    }
    parameters.push((
        "environment_variables",
        Parameter::Number(request.env.len() as u64),
    ));
    parameters
}

fn key(request: &CreateKey) -> Vec<(&'static str, Parameter)> {
    let mut parameters = vec![
        ("name", word(&request.name)),
        ("scopes", word(request.scopes)),
    ];
    let roots = request.roots.iter();
    parameters.extend(roots.map(|root| ("root", Parameter::Path(root.clone()))));
    if let Some(bound) = request.max_sessions {
        parameters.push(("max_sessions", Parameter::Number(bound.into())));
    }
    if let Some(bound) = request.calls_per_minute {
        parameters.push(("calls_per_minute", Parameter::Number(bound.into())));
    }
    if let Some(time) = request.valid_for {
        parameters.push(("valid_seconds", seconds(time)));
    }
    parameters
}

/// As many rules as fit one word; how many there are, and the digest of all, so that a longer list can be compared.
fn rules(rules: &[EgressRule]) -> Vec<(&'static str, Parameter)> {
    if rules.is_empty() {
        return Vec::new();
    }
    let all: Vec<String> = rules.iter().map(ToString::to_string).collect();
    let all = all.join(" ");
    vec![
        ("allow", word(&all)),
        ("rules", Parameter::Number(rules.len() as u64)),
        ("rules_digest", Parameter::content(all.as_bytes())),
    ]
}

fn command(request: &ExecuteCommand) -> Vec<(&'static str, Parameter)> {
    let line = match &request.command {
        CommandLine::Shell(line) => line.as_bytes().to_vec(),
        CommandLine::Argv(argv) => argv.join("\0").into_bytes(),
    };
    let mut parameters = vec![("command", Parameter::content(&line))];
    if let Some(cwd) = &request.cwd {
        parameters.push(("cwd", Parameter::Path(cwd.clone())));
    }
    if let Some(stdin) = &request.stdin {
        parameters.push(("stdin", Parameter::content(stdin.expose())));
    }
    if let Some(timeout) = request.timeout {
        parameters.push(("timeout_seconds", seconds(timeout)));
    }
    if request.terminal.is_some() {
        parameters.push(("terminal", word("yes")));
    }
    parameters
}

fn prompt(request: &ExecutePrompt) -> Vec<(&'static str, Parameter)> {
    let mut parameters = vec![(
        "prompt",
        Parameter::content(request.prompt.expose().as_bytes()),
    )];
    match request.conversation {
        ConversationChoice::Latest => {}
        ConversationChoice::New => parameters.push(("conversation", word("new"))),
        ConversationChoice::Named(id) => parameters.push(("conversation", word(id))),
    }
    if let Some(model) = &request.options.model {
        parameters.push(("model", word(model)));
    }
    if let Some(turns) = request.options.max_turns {
        parameters.push(("max_turns", Parameter::Number(turns.into())));
    }
    if let Some(budget) = request.options.max_budget_micro_usd {
        parameters.push(("max_budget_micro_usd", Parameter::Number(budget)));
    }
    if let Some(timeout) = request.timeout {
        parameters.push(("timeout_seconds", seconds(timeout)));
    }
    parameters
}

fn word(value: impl ToString) -> Parameter {
    Parameter::Word(value.to_string())
}

fn seconds(duration: Duration) -> Parameter {
    Parameter::Number(duration.as_secs())
}

//! Arguments that several tools take, parsed into nouns that cannot be malformed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use model::{
    Action, EgressRule, ExecutionId, HostPattern, IdError, KeyId, Refusal, RuleError, Secret,
    SessionId, UploadId, WORKSPACE_PATH,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{arguments::invalid, text};

/// Longest path, bytes: `PATH_MAX` of Linux without its final NUL.
pub(super) const MAX_PATH_BYTES: usize = 4095;
/// Longest wait of one call, seconds: several clients give up after 60.
pub(super) const MAX_WAIT_SECONDS: u64 = 45;
/// Wait of a call that names none, seconds.
pub(super) const DEFAULT_WAIT_SECONDS: u64 = 20;
/// Longest time that can be named at all, seconds: 30 days. The operator's maximum is what counts, and is lower.
pub(super) const MAX_LIFETIME_SECONDS: u64 = 30 * 24 * 60 * 60;
/// Environment variables of one call or session.
pub(super) const MAX_VARIABLES: usize = 256;
/// One string of an environment or an argument list, bytes: `MAX_ARG_STRLEN` of Linux (128 KiB) without its final NUL.
pub(super) const MAX_STRING_BYTES: usize = 128 * 1024 - 1;
/// Arguments and environment of one start together, bytes. The frame to the supervisor holds 1 MiB with its envelope.
pub(super) const MAX_START_BYTES: usize = 768 * 1024;

/// Arguments of a tool that takes nothing but a session.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SessionParameters {
    /// The session, as create_session or list_sessions named it: s- and 32 hexadecimal digits.
    #[schemars(length(min = 1, max = 64))]
    pub(super) session_id: String,
}

/// Arguments of a tool that takes nothing but an execution.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ExecutionParameters {
    /// The execution, as execute_command named it: x- and 32 hexadecimal digits.
    #[schemars(length(min = 1, max = 64))]
    pub(super) execution_id: String,
}

/// Arguments of a tool that takes nothing.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParameters {}

/// A session id.
pub(super) fn session_id(text: &str) -> Result<SessionId, Refusal> {
    id(
        "sessionId",
        text,
        "create_session and list_sessions give session ids",
    )
}

/// An execution id.
pub(super) fn execution_id(text: &str) -> Result<ExecutionId, Refusal> {
    id(
        "executionId",
        text,
        "execute_command and get_session give execution ids",
    )
}

fn id<T: FromStr<Err = IdError>>(field: &str, text: &str, source: &str) -> Result<T, Refusal> {
    text.parse()
        .map_err(|error: IdError| invalid(field, format!("`{field}` is {error}; {source}.")))
}

/// A key's id.
pub(super) fn key_id(text: &str) -> Result<KeyId, Refusal> {
    text.parse().map_err(|_no_id| {
        let message = "`keyId` is no id of a key: 12 letters a to z and digits 2 to 7; `claude-code-mcp keys list` shows them.";
        invalid("keyId", message)
    })
}

/// The id of a file under way.
pub(super) fn upload_id(field: &str, text: &str) -> Result<UploadId, Refusal> {
    id(field, text, "the reply before gave it")
}

/// The name of a project: of a remote caller relative, and never a path of the host; else an absolute path of it.
pub(super) fn project_path(field: &str, path: &str, is_remote: bool) -> Result<PathBuf, Refusal> {
    match is_remote {
        true => path_text(field, path).map(Path::to_owned),
        false => host_path(field, path),
    }
}

/// An absolute path of the host. Whether it may be used is for the policy to say.
pub(super) fn host_path(field: &str, path: &str) -> Result<PathBuf, Refusal> {
    let path = path_text(field, path)?;
    if !path.is_absolute() {
        return Err(invalid(
            field,
            format!("`{field}` must be an absolute path of the host, beginning with /."),
        ));
    }
    Ok(path.to_owned())
}

/// A rule of a session's network, as text.
pub(super) fn network_rule(field: &str, text: &str) -> Result<EgressRule, Refusal> {
    text.parse()
        .map_err(|error: RuleError| invalid(field, not_a_rule(field, &error)))
}

/// A host of such a rule.
pub(super) fn network_host(field: &str, text: &str) -> Result<HostPattern, Refusal> {
    text.parse()
        .map_err(|error: RuleError| invalid(field, not_a_rule(field, &error)))
}

/// The error repeats what was written, escaped, and no more of it than a name may have.
fn not_a_rule(field: &str, error: &RuleError) -> String {
    text::sentence(&format!("`{field}` is no rule: {error}."))
}

/// A path inside a session; a relative one is meant from `/workspace`.
pub(super) fn inner_path(field: &str, path: &str) -> Result<PathBuf, Refusal> {
    Ok(Path::new(WORKSPACE_PATH).join(path_text(field, path)?))
}

fn path_text<'a>(field: &str, path: &'a str) -> Result<&'a Path, Refusal> {
    if path.len() > MAX_PATH_BYTES {
        return Err(invalid(
            field,
            format!("`{field}` is longer than the {MAX_PATH_BYTES} bytes of a path."),
        ));
    }
    no_controls(field, path)?;
    Ok(Path::new(path))
}

/// Text that is shown and logged later: nothing in it may act without being seen.
pub(super) fn no_controls(field: &str, value: &str) -> Result<(), Refusal> {
    if value.chars().any(text::acts_unseen_in_line) {
        return Err(invalid(
            field,
            format!(
                "`{field}` must not contain control characters, newlines or invisible characters."
            ),
        ));
    }
    Ok(())
}

/// Text for a program: anything but NUL, which no argument or variable of Linux can hold.
pub(super) fn no_nul(field: &str, value: &str) -> Result<(), Refusal> {
    if value.contains('\0') {
        return Err(invalid(
            field,
            format!("`{field}` must not contain a NUL character."),
        ));
    }
    if value.len() > MAX_STRING_BYTES {
        return Err(invalid(
            field,
            format!("`{field}` is longer than {MAX_STRING_BYTES} bytes."),
        ));
    }
    Ok(())
}

/// An environment. Values never appear in a refusal.
pub(super) fn environment(
    variables: BTreeMap<String, Secret<String>>,
) -> Result<BTreeMap<String, Secret<String>>, Refusal> {
    if variables.len() > MAX_VARIABLES {
        return Err(invalid(
            "env",
            format!("`env` has more than {MAX_VARIABLES} variables."),
        ));
    }
    for (name, value) in &variables {
        let field = format!("env.{}", text::name(name));
        let mut characters = name.chars();
        let starts_well = characters
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if !starts_well || !characters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
            let message = format!(
                "`{field}` is not a variable name: letters, digits and _ only, no digit first."
            );
            return Err(invalid(field, message));
        }
        no_nul(&field, name)?;
        no_nul(&field, value.expose())?;
    }
    Ok(variables)
}

/// The size of an environment, bytes.
pub(super) fn environment_bytes(variables: &BTreeMap<String, Secret<String>>) -> usize {
    variables
        .iter()
        .map(|(name, value)| name.len() + value.expose().len() + 2)
        .sum()
}

/// A wait; the schema has checked its bounds.
pub(super) fn wait(seconds: Option<u64>) -> Duration {
    Duration::from_secs(
        seconds
            .unwrap_or(DEFAULT_WAIT_SECONDS)
            .min(MAX_WAIT_SECONDS),
    )
}

/// The action on the session that the arguments name.
pub(super) fn on_session(
    parameters: &SessionParameters,
    action: fn(SessionId) -> Action,
) -> Result<Action, Refusal> {
    session_id(&parameters.session_id).map(action)
}

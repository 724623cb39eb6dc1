//! `session create`

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use mcp::reply::SessionReply;
use serde_json::json;

use super::{
    super::arguments::CreateArguments, CliError, Client, Context, EXIT_OK,
    docker_options::docker_options, network::network, read, variables::variables,
};
use crate::{
    cli::output::{Color, note},
    config::units::format_duration,
};

/// The longest lifetime that can be configured.
const LONGEST_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

pub(super) async fn run(context: &Context, arguments: CreateArguments) -> Result<u8, CliError> {
    let project = existing(&arguments.path)?;
    let mounts = arguments
        .mounts
        .iter()
        .map(|text| Mount::parse(text))
        .collect::<Result<Vec<_>, _>>()?;
    let offered = std::iter::once(project.clone())
        .chain(mounts.iter().map(|mount| mount.host.clone()))
        .collect();
    let limits = json!({ "memoryBytes": arguments.memory, "cpuMillis": arguments.cpus, "pids": arguments.pids });
    let named = arguments.memory.is_some() || arguments.cpus.is_some() || arguments.pids.is_some();
    let call = json!({
        "projectPath": project,
        "sessionName": arguments.name,
        "backend": arguments.backend,
        "runtimeClass": arguments.runtime_class,
        "ttlSeconds": lifetime(context, arguments.ttl)?,
        "idleSeconds": arguments.idle.map(|idle| idle.as_secs().max(1)),
        "env": variables(context, &arguments.environment)?,
        "limits": named.then(|| without_nulls(limits)),
        "dockerOpts": docker_options(arguments.docker_opts.as_deref())?,
        "network": network(&arguments.network),
        "mcpMounts": mounts.iter().map(Mount::json).collect::<Vec<_>>(),
    });
    let client = Client::connect(context, offered).await?;
    let content = client.call("create_session", call).await?;
    if context.output.json {
        context.output.json(&content)?;
        return Ok(EXIT_OK);
    }
    let reply: SessionReply = read("create_session", content)?;
    say(context, &reply)?;
    if let Some(lifetime) = cut(arguments.ttl, &reply) {
        note(&format!(
            "no session of this server lives longer than {} (`max_session_timeout`), so that is its lifetime",
            format_duration(lifetime)
        ));
    }
    Ok(EXIT_OK)
}

fn say(context: &Context, reply: &SessionReply) -> Result<(), CliError> {
    let output = context.output;
    let name = output.paint(Color::Green, &reply.session_name);
    output.line(&format!("{name}  {}", reply.session_id))?;
    output.line(&format!("  project  {} at /workspace", reply.project_path))?;
    output.line(&format!("  walls    {}", reply.backend))?;
    output.line(&format!("  ends     {}", reply.expires_at))?;
    output.line(&format!(
        "  try      claude-code-mcp session shell {}",
        reply.session_name
    ))
}

/// What became of a lifetime that is longer than the server gives.
fn cut(asked: Option<Duration>, reply: &SessionReply) -> Option<Duration> {
    let time = |text: &str| Some(text.parse::<Timestamp>().ok()?.as_second());
    let lifetime = time(&reply.expires_at)?.checked_sub(time(&reply.created_at)?)?;
    let lifetime = Duration::from_secs(u64::try_from(lifetime).ok()?);
    // Times are told to the millisecond, so a second is lost at most.
    (asked? > lifetime + Duration::from_secs(1)).then_some(lifetime)
}

/// The lifetime that is asked for, where any server could give it.
fn lifetime(context: &Context, asked: Option<Duration>) -> Result<Option<u64>, CliError> {
    match asked {
        Some(asked) if asked > LONGEST_TTL => Err(CliError::Usage(format!(
            "--ttl: no session lives longer than {}, and by this configuration none longer than {} (`max_session_timeout`)",
            format_duration(LONGEST_TTL),
            format_duration(context.config.max_session_timeout)
        ))),
        asked => Ok(asked.map(|asked| asked.as_secs().max(1))),
    }
}

fn without_nulls(value: serde_json::Value) -> serde_json::Value {
    let serde_json::Value::Object(fields) = value else {
        return value;
    };
    fields
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .collect()
}

/// The path that is really meant, so that neither links nor `..` stand in the way later.
pub(in crate::cli) fn existing(path: &Path) -> Result<PathBuf, CliError> {
    path.canonicalize().map_err(|source| CliError::File {
        path: path.to_path_buf(),
        source,
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    host: PathBuf,
    inside: String,
    read_only: bool,
}

impl Mount {
    fn parse(text: &str) -> Result<Self, CliError> {
        let wrong = || {
            CliError::Usage(format!(
                "--mount {text}: write HOST:INSIDE, or HOST:INSIDE:rw to let it be written"
            ))
        };
        let (rest, read_only) = match text.rsplit_once(':') {
            Some((rest, "rw")) => (rest, false),
            Some((rest, "ro")) => (rest, true),
            _ => (text, true),
        };
        let (host, inside) = rest.rsplit_once(':').ok_or_else(wrong)?;
        if host.is_empty() || !inside.starts_with('/') {
            return Err(wrong());
        }
        Ok(Mount {
            host: existing(Path::new(host))?,
            inside: inside.to_owned(),
            read_only,
        })
    }

    fn json(&self) -> serde_json::Value {
        json!({ "hostPath": self.host, "containerPath": self.inside, "readOnly": self.read_only })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_that_was_cut_is_noticed() {
        let reply = |created: &str, expires: &str| {
            serde_json::from_value::<SessionReply>(json!({
                "sessionId": "s-1", "sessionName": "a", "state": "ready", "backend": "native", "projectPath": "/p",
                "containerName": "c", "createdAt": created, "expiresAt": expires, "idleSeconds": 1,
                "runningExecutions": [], "message": "",
            }))
            .unwrap()
        };
        let day = reply("2026-01-01T00:00:00.5Z", "2026-01-02T00:00:00.5Z");
        let days = |count: u64| Some(Duration::from_secs(count * 86_400));
        assert_eq!(cut(days(2), &day), days(1));
        assert_eq!(cut(days(1), &day), None);
        assert_eq!(cut(None, &day), None);
    }

    #[test]
    fn mounts_are_read_only_unless_said_otherwise() {
        let mount = |text| {
            Mount::parse(text)
                .ok()
                .map(|mount| (mount.host, mount.inside, mount.read_only))
        };
        let usr = || PathBuf::from("/usr");
        assert_eq!(mount("/usr:/data"), Some((usr(), "/data".into(), true)));
        assert_eq!(mount("/usr:/data:ro"), Some((usr(), "/data".into(), true)));
        assert_eq!(mount("/usr:/data:rw"), Some((usr(), "/data".into(), false)));
        for wrong in [
            "/usr",
            "/usr:data",
            ":/data",
            "/missing-here:/data",
            "/usr:/data:rx",
            "",
        ] {
            assert_eq!(mount(wrong), None, "{wrong}");
        }
    }
}

//! `doctor`: what this machine enforces, what it lacks, and whether the configuration can work.
//!
//! Nothing is taken on trust: the backend probes by doing, files are tried as the server would use them, and with `--probe`
//! the walls of a sandbox from the engine are tried from inside.

mod agent;
mod capability;
mod engine;
mod files;
mod path_entries;
mod print;
mod sinks;
mod walls;

use model::BackendName;
use serde::Serialize;

use super::{
    CliError, Context, EXIT_OK, EXIT_REFUSED, VERSION, arguments::DoctorArguments, block_on,
};
use crate::{
    config::{BackendChoice, Config, FileLookedFor, Offer},
    server::handshake::Mode,
};

/// All that is found out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// A session can be built here, what the server needs can be written, and the walls held where they were tried.
    ok: bool,
    version: &'static str,
    backend: capability::BackendReport,
    docker: engine::EngineReport,
    claude_code: agent::AgentReport,
    path: path_entries::PathReport,
    configuration_file: Option<String>,
    #[serde(skip)]
    configuration_source: FileLookedFor,
    /// Why a server would not start with this configuration, where it is none of the above.
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration_problem: Option<String>,
    state_directory: files::Usable,
    audit_log: files::Usable,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audit_sinks: Vec<sinks::SinkReport>,
    server: ServerReport,
    /// What the walls of sessions are made of that name none; `null` where none can be made.
    default_backend: Option<&'static str>,
}

/// Whether a server runs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServerReport {
    running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

pub(super) fn run(context: &Context, arguments: DoctorArguments) -> Result<u8, CliError> {
    let (backend, docker) = block_on(async {
        Ok((
            capability::probe(&context.config).await,
            engine::probe(&context.config, arguments.probe).await,
        ))
    })?;
    let has_walls = match context.config.backend {
        BackendChoice::Auto => backend.usable || docker.usable,
        BackendChoice::Native => backend.usable,
        BackendChoice::Docker => docker.usable,
    };
    // As `backends::find` chooses.
    let default_backend = match context.config.backend {
        BackendChoice::Auto if docker.usable => "docker",
        BackendChoice::Auto | BackendChoice::Native => "native",
        BackendChoice::Docker => "docker",
    };
    let walls_hold = docker.walls.as_ref().is_none_or(|walls| walls.ok);
    let state_directory =
        files::directory(&context.config.paths.state_dir, context.environment.uid());
    let audit_log = files::file(&context.config.audit_log, &context.config.paths.state_dir);
    let claude_code = agent::examine(&context.config);
    let configuration_problem = would_refuse_to_start(&context.config)
        .err()
        .map(|error| format!("{error:#}"));
    let report = Report {
        ok: has_walls
            && walls_hold
            && state_directory.usable
            && audit_log.usable
            && claude_code.problem.is_none()
            && configuration_problem.is_none(),
        version: VERSION,
        backend,
        docker,
        claude_code,
        configuration_problem,
        path: path_entries::examine(
            context.environment.get("PATH"),
            context.environment.home().as_deref(),
            &context.config.extra_read_only,
            &Offer::new(&context.environment, &context.config.paths.state_dir)?,
        ),
        configuration_file: context.config.source().file,
        configuration_source: context.config.source(),
        state_directory,
        audit_log,
        audit_sinks: sinks::examine(&context.config),
        server: server(context),
        default_backend: has_walls.then_some(default_backend),
    };
    if context.output.json {
        context.output.json(&report)?;
    } else {
        print::report(context.output, &report, arguments.verbose)?;
    }
    Ok(if report.ok { EXIT_OK } else { EXIT_REFUSED })
}

/// What a server reads and decides at its start, beside walls and files of its own.
fn would_refuse_to_start(config: &Config) -> anyhow::Result<()> {
    crate::provider::check_files(&config.provider)?;
    crate::network::check_credentials(config)?;
    crate::wiring::policy(config, vec![BackendName::Native]).map(drop)
}

fn server(context: &Context) -> ServerReport {
    let nothing = ServerReport {
        running: false,
        version: None,
        pid: None,
        sessions: None,
        problem: None,
    };
    match context.connect_existing(Mode::Status) {
        Ok(Some(connected)) => ServerReport {
            running: true,
            version: Some(connected.reply.version),
            pid: Some(connected.reply.server_pid),
            sessions: Some(connected.reply.sessions),
            problem: None,
        },
        Ok(None) => nothing,
        Err(error) => ServerReport {
            problem: Some(error.chain()),
            ..nothing
        },
    }
}

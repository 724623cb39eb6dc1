//! `agent …`: Claude Code itself, fetched, listed and checked. No server is needed, and none ever fetches it.

use std::io::{self, IsTerminal};

use ::agent::install::{
    DEFAULT_INDEX, DEFAULT_REGISTRY, InstallError, Installed, Network, Order, Pins, Progress,
    Proxy, Source, Store, Wish, address, install,
};
use indicatif::{ProgressBar, ProgressStyle};
use mcp::reply::ErrorBody;
use serde::Serialize;

use super::{
    CliError, Context, EXIT_OK, EXIT_REFUSED,
    arguments::{AgentCommand, InstallArguments},
    output::{Color, note},
};
use crate::{
    agent_program::{SHORT_HASH_DIGITS, chosen, describe},
    config::{AgentChoice, make_private_directory, units::format_size},
};

/// Variables that name a Python package index, as its usual clients read them; the first that is set counts.
const INDEX_VARIABLES: [&str; 3] = ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"];
/// The same of npm's.
const REGISTRY_VARIABLES: [&str; 2] = ["npm_config_registry", "NPM_CONFIG_REGISTRY"];

/// One program, as `--json` prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AgentReply {
    sha256: String,
    version: Option<String>,
    pinned: bool,
    current: bool,
    size_bytes: u64,
    program: String,
    source: String,
    installed_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl From<&Installed> for AgentReply {
    fn from(installed: &Installed) -> Self {
        let record = &installed.record;
        AgentReply {
            sha256: record.sha256.clone(),
            version: record.version.clone(),
            pinned: record.pinned,
            current: installed.current,
            size_bytes: record.bytes,
            program: installed.program().display().to_string(),
            source: record.source.clone(),
            installed_at: record.installed_at.to_string(),
            problem: None,
        }
    }
}

pub(super) fn run(context: &Context, command: AgentCommand) -> Result<u8, CliError> {
    let store = Store::new(&context.config.paths.state_dir);
    match command {
        AgentCommand::Install(arguments) => fetch(context, &store, &arguments),
        AgentCommand::List => list(context, &store),
        AgentCommand::Path { hash } => path(context, &store, hash.as_deref()),
        AgentCommand::Verify { hash } => verify(context, &store, hash.as_deref()),
        AgentCommand::Remove { hash, unused } => remove(context, &store, &hash, unused),
    }
}

fn fetch(context: &Context, store: &Store, arguments: &InstallArguments) -> Result<u8, CliError> {
    let own = arguments.use_own.is_some();
    let order = Order {
        pin: Pins::built_in()
            .and_then(|pins| pins.here())
            .map_err(refused)?,
        source: source(context, arguments)?,
        accept_unpinned: arguments.accept_unpinned || own,
    };
    make_private_directory(&context.config.paths.state_dir, context.environment.uid())?;
    let mut bar = Bar::new();
    let done = install(store, &order, &mut |progress| bar.tell(progress));
    drop(bar);
    let done = done.map_err(refused)?;
    let installed = &done.installed;
    if context.output.json {
        context.output.json(&AgentReply::from(installed))?;
    } else {
        let word = if done.was_there {
            "was there"
        } else {
            "installed"
        };
        context
            .output
            .line(&format!("{word}: Claude Code {}", describe(installed)))?;
        context.output.line(&format!(
            "new sessions find it at {}/{}",
            model::AGENT_DIRECTORY,
            model::AGENT_PROGRAM_NAME
        ))?;
    }
    if !installed.record.pinned {
        note(&format!(
            "nobody but you vouches for SHA-256 {}: it is not the pinned program",
            installed.record.sha256
        ));
    }
    if let AgentChoice::None | AgentChoice::Hash(_) = &context.config.agent
        && chosen(&context.config.agent, &context.config.paths.state_dir)
            .ok()
            .flatten()
            .is_none_or(|meant| meant.record.sha256 != installed.record.sha256)
    {
        note("the configuration names another one (`agent`): sessions do not get this one");
    }
    Ok(EXIT_OK)
}

/// Fetches the pinned program from its usual place, as `agent install` does without flags.
pub(super) fn install_pinned(context: &Context) -> Result<(), CliError> {
    let arguments = InstallArguments {
        source: "pypi".to_owned(),
        index: None,
        from_file: None,
        use_own: None,
        sdk_version: None,
        accept_unpinned: false,
        accept_yanked: false,
    };
    let store = Store::new(&context.config.paths.state_dir);
    fetch(context, &store, &arguments).map(drop)
}

fn source(context: &Context, arguments: &InstallArguments) -> Result<Source, CliError> {
    if let Some(file) = arguments.use_own.as_ref().or(arguments.from_file.as_ref()) {
        return Ok(Source::File(file.clone()));
    }
    let npm = arguments.source == "npm";
    let (variables, usual) = if npm {
        (REGISTRY_VARIABLES.as_slice(), DEFAULT_REGISTRY)
    } else {
        (INDEX_VARIABLES.as_slice(), DEFAULT_INDEX)
    };
    let mut named = variables
        .iter()
        .filter_map(|name| context.environment.get(name)?.to_str());
    let text = arguments.index.as_deref().or_else(|| named.next());
    let url = address(text.unwrap_or(usual)).map_err(refused)?;
    let network = Network {
        proxy: Proxy::try_from_env(),
        ..Network::default()
    };
    if npm {
        return Ok(Source::Registry { url, network });
    }
    let wish = Wish {
        sdk_version: arguments.sdk_version.clone(),
        accept_yanked: arguments.accept_yanked,
    };
    Ok(Source::Index { url, wish, network })
}

fn list(context: &Context, store: &Store) -> Result<u8, CliError> {
    let programs = store.list().map_err(refused)?;
    if context.output.json {
        let replies: Vec<_> = programs.iter().map(AgentReply::from).collect();
        context.output.json(&replies)?;
        return Ok(EXIT_OK);
    }
    if programs.is_empty() {
        note("none is installed: claude-code-mcp agent install");
        return Ok(EXIT_OK);
    }
    let rows = programs.iter().map(|program| {
        let record = &program.record;
        vec![
            record.sha256.chars().take(SHORT_HASH_DIGITS).collect(),
            record.version.clone().unwrap_or_else(|| "-".to_owned()),
            format_size(record.bytes),
            match (program.current, record.pinned) {
                (true, true) => context.output.paint(Color::Green, "new sessions get it"),
                (true, false) => context
                    .output
                    .paint(Color::Yellow, "new sessions get it; not pinned"),
                (false, true) => "pinned".to_owned(),
                (false, false) => "not pinned".to_owned(),
            },
            file_name(&record.source).to_owned(),
        ]
    });
    let header = ["HASH", "VERSION", "SIZE", "STATUS", "FROM"];
    context.output.table(&header, rows.collect::<Vec<_>>())?;
    Ok(EXIT_OK)
}

/// The end of a URL or path.
fn file_name(source: &str) -> &str {
    source.rsplit('/').next().unwrap_or(source)
}

fn path(context: &Context, store: &Store, hash: Option<&str>) -> Result<u8, CliError> {
    let program = match hash {
        Some(hash) => store.find(hash).map_err(refused)?,
        None => chosen(&context.config.agent, &context.config.paths.state_dir)
            .and_then(|found| found.ok_or_else(none_installed))
            .map_err(refused)?,
    };
    if context.output.json {
        context.output.json(&AgentReply::from(&program))?;
    } else {
        context
            .output
            .line(&program.program().display().to_string())?;
    }
    Ok(EXIT_OK)
}

fn verify(context: &Context, store: &Store, hash: Option<&str>) -> Result<u8, CliError> {
    let programs = match hash {
        Some(hash) => vec![store.find(hash).map_err(refused)?],
        None => store.list().map_err(refused)?,
    };
    if programs.is_empty() {
        return Err(refused(none_installed()));
    }
    let mut replies = Vec::new();
    for program in &programs {
        let problem = store.verify(program).err().map(|error| chain(&error));
        if !context.output.json {
            let word = match &problem {
                None => context.output.paint(Color::Green, "is whole"),
                Some(problem) => context.output.paint(Color::Red, problem),
            };
            context
                .output
                .line(&format!("{} {word}", program.record.sha256))?;
        }
        replies.push(AgentReply {
            problem,
            ..AgentReply::from(program)
        });
    }
    if context.output.json {
        context.output.json(&replies)?;
    }
    let whole = replies.iter().all(|reply| reply.problem.is_none());
    Ok(if whole { EXIT_OK } else { EXIT_REFUSED })
}

fn remove(
    context: &Context,
    store: &Store,
    hashes: &[String],
    unused: bool,
) -> Result<u8, CliError> {
    let waiting = || note("another process changes the store; waiting");
    let lock = store.lock(waiting).map_err(refused)?;
    let mut going = Vec::new();
    if unused {
        going = store.list().map_err(refused)?;
        let kept = chosen(&context.config.agent, &context.config.paths.state_dir);
        let kept = kept.ok().flatten().map(|program| program.record.sha256);
        going.retain(|program| !program.current && Some(&program.record.sha256) != kept.as_ref());
    }
    for hash in hashes {
        going.push(store.find(hash).map_err(refused)?);
    }
    going.dedup_by(|one, other| one.record.sha256 == other.record.sha256);
    if going.is_empty() && !context.output.json {
        context
            .output
            .line("nothing is installed that new sessions do not get")?;
    }
    for program in &going {
        store.remove(&lock, program).map_err(refused)?;
        if !context.output.json {
            context
                .output
                .line(&format!("removed {}", program.record.sha256))?;
        }
    }
    if context.output.json {
        let replies: Vec<_> = going.iter().map(AgentReply::from).collect();
        context.output.json(&replies)?;
    }
    Ok(EXIT_OK)
}

/// The error as every other refusal, with its code and hint.
pub(super) fn refused(error: InstallError) -> CliError {
    CliError::Refused(ErrorBody {
        code: error.code().to_owned(),
        message: chain(&error),
        hint: error.hint(),
        field: None,
        retry_after_ms: None,
    })
}

pub(super) fn none_installed() -> InstallError {
    InstallError::NotInstalled("no Claude Code is installed".to_owned())
}

/// The error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let words: Vec<_> = causes.map(ToString::to_string).collect();
    words.join(": ")
}

/// How far it is, on standard error: on a terminal a bar with bytes and rate, else a line for each step.
struct Bar {
    bar: Option<ProgressBar>,
    step: &'static str,
}

impl Bar {
    fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let template =
                "{spinner} {prefix}  {bytes} of {total_bytes}  {bytes_per_sec}  {elapsed}";
            let style = ProgressStyle::with_template(template);
            let bar = ProgressBar::no_length();
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar
        });
        Bar { bar, step: "" }
    }

    fn tell(&mut self, progress: Progress) {
        let (step, position) = match progress {
            Progress::Waiting => ("another process installs; waiting", None),
            Progress::Asking => ("asking the index", None),
            Progress::Fetched { bytes, total } => ("fetching", Some((bytes, total))),
            Progress::Unpacked { bytes } => ("unpacking", Some((bytes, None))),
        };
        if self.step != step {
            self.step = step;
            match &self.bar {
                Some(bar) => {
                    bar.reset();
                    bar.set_prefix(step);
                }
                None => note(step),
            }
        }
        if let (Some(bar), Some((bytes, total))) = (&self.bar, position) {
            if let Some(total) = total {
                bar.set_length(total);
            }
            bar.set_position(bytes);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

//! The command line. Reading order: [`arguments`] (what can be typed), [`run`], one file per command.

mod agent;
pub mod arguments;
mod audit_log;
mod client;
mod compose;
mod configuration;
mod context;
mod demo;
mod doctor;
mod door;
mod error;
mod hand_over;
mod image;
mod keys;
mod output;
mod prompt;
mod run;
mod serve;
mod server;
mod session;
mod stdio;
mod terminal;

use std::process::ExitCode;

use clap::CommandFactory;

use arguments::{Command, CommandLine, ServerCommand};
pub use compose::ComposeError;
pub use context::{Context, VERSION};
pub use error::{
    CliError, EXIT_AGENT_ENDED, EXIT_BUDGET_LIMIT, EXIT_MODEL_REFUSED, EXIT_NOT_RUN, EXIT_OK,
    EXIT_PROVIDER_ERROR, EXIT_REFUSED, EXIT_SIGNAL_BASE, EXIT_STALLED, EXIT_TIMED_OUT,
    EXIT_TURN_LIMIT, EXIT_USAGE,
};
pub use output::Output;

use crate::config::{Environment, Flags, Place, Problem, inspect, load};

/// Loads the configuration and does what the command line says. Errors are on standard error when this returns.
pub fn run(command_line: CommandLine, environment: Environment) -> ExitCode {
    let json = command_line.json;
    match dispatch(command_line, environment) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::report(&error, json);
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch(command_line: CommandLine, environment: Environment) -> Result<u8, CliError> {
    let CommandLine {
        configuration,
        json,
        command,
    } = command_line;
    if let Some(Command::Completions { shell }) = command {
        // Not at once to where they go: `generate` panics when nobody reads on.
        let mut script = Vec::new();
        clap_complete::generate(
            shell,
            &mut CommandLine::command(),
            "claude-code-mcp",
            &mut script,
        );
        let script = String::from_utf8_lossy(&script);
        Output::new(false, true).line(script.trim_end())?;
        return Ok(EXIT_OK);
    }
    let environment = match &command {
        Some(Command::Serve(arguments)) => serve::environment(arguments, environment)?,
        _ => environment,
    };
    let mut flags = Flags::from(&configuration);
    if let Some(Command::Serve(arguments)) = &command {
        flags.of_command = arguments.as_keys();
    }
    let output = Output::new(json, environment.no_color());
    if let Some(Command::Config(command)) = &command {
        return configuration::run(output, flags, &environment, command);
    }
    let config = match (load(&flags, &environment), &command) {
        // A server that runs is spoken to all the same: its configuration is its own, and what is wrong here is to be told by it.
        (Err(error), Some(Command::Server(command))) => {
            let found = inspect(&flags, &environment);
            let is_in_doubt = |problem| is_in_doubt(problem, &flags, command);
            match found.config {
                Some(config) if !found.problems.iter().any(is_in_doubt) => config,
                Some(_) | None => return Err(error.into()),
            }
        }
        (read, _) => read?,
    };
    let context = Context {
        config,
        environment,
        flags,
        output,
    };
    match command {
        None => stdio::run(&context, stdio::Invocation::ByDefault),
        Some(Command::Stdio) => stdio::run(&context, stdio::Invocation::ByName),
        Some(Command::Serve(arguments)) => serve::run(&context, &arguments),
        Some(Command::Run(arguments)) => run::run(&context, &arguments),
        Some(Command::Session(command)) => session::run(&context, command),
        Some(Command::Keys(command)) => keys::run(&context, command),
        Some(Command::Server(command)) => server::run(&context, &command),
        Some(Command::Audit(command)) => audit_log::run(&context, &command),
        Some(Command::Compose(command)) => compose::run(&context, &command),
        Some(Command::Image(command)) => image::run(&context, command),
        Some(Command::Agent(command)) => agent::run(&context, command),
        Some(Command::Demo(arguments)) => demo::run(&context, &arguments),
        Some(Command::Doctor(arguments)) => doctor::run(&context, arguments),
        // Answered above, before a configuration is needed.
        Some(Command::Config(_) | Command::Completions { .. }) => Ok(EXIT_OK),
    }
}

/// Whether what is wrong leaves open which server is meant, or is said by this very call.
fn is_in_doubt(problem: &Problem, flags: &Flags, command: &ServerCommand) -> bool {
    match (&problem.place, problem.key.as_deref()) {
        (Some(Place::File { .. }), Some(key)) => key == "state_dir",
        // The file as a whole: whether it names a state directory is not known.
        (Some(Place::File { .. }), None) => {
            flags.config.is_some() || matches!(command, ServerCommand::Stop { .. })
        }
        (Some(Place::Variable(_) | Place::Flag(_)) | None, _) => true,
    }
}

/// A runtime for a command that talks to the server: one thread is enough.
fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    runtime.block_on(work)
}

#[cfg(test)]
mod tests;

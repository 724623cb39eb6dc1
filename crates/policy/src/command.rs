//! May this command run in this session?

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use model::{CommandLine, ExecuteCommand, Principal, Reason, Refusal, Scope, WORKSPACE_PATH};

use crate::{
    CommandParts, CommandPermit, Policy, environment, mounts,
    roles::{Need, Work},
};

/// Arguments of one command, its program included.
pub const MAX_ARGUMENTS: usize = 4096;
/// All arguments of one command together, bytes; with the environments they fit the frame of 1 MiB to the supervisor.
pub const MAX_COMMAND_BYTES: usize = 512 * 1024;
/// One argument (or the line for the shell), bytes: the kernel's `MAX_ARG_STRLEN` without its NUL.
pub const MAX_ARGUMENT_BYTES: usize = 128 * 1024 - 1;
/// Standard input given with the command, bytes; more goes by `respond_execution` or `transfer_files`.
pub const MAX_STDIN_BYTES: usize = 1024 * 1024;
/// Longest wait of one call: clients give up on a tool after 60 s.
pub const MAX_WAIT: Duration = Duration::from_secs(45);

/// Where a working directory makes no sense: those are not directories of files, and a path through `/proc/self/fd` once
/// led out of containers (CVE-2024-21626).
const NO_WORKING_DIRECTORY: [&str; 3] = ["/proc", "/sys", "/dev"];

impl Policy {
    /// Decides on a command. `owner` is who owns the session, `None` when there is no such session.
    ///
    /// # Errors
    /// [`Reason::SessionNotFound`] for an unknown or foreign session; [`Reason::InvalidArgument`], [`Reason::TooLarge`] or
    /// [`Reason::PolicyDenied`] for what is asked.
    pub fn admit_command(
        &self,
        principal: &Principal,
        asked: &ExecuteCommand,
        owner: Option<&str>,
    ) -> Result<CommandPermit, Refusal> {
        self.require_owner(principal, owner, Need::new(Work::New, Scope::SessionsRun))?;
        check_command(&asked.command)?;
        environment::check(&asked.env, &self.hardening)?;
        if asked
            .stdin
            .as_ref()
            .is_some_and(|stdin| stdin.expose().len() > MAX_STDIN_BYTES)
        {
            let message = format!("Standard input has more than {MAX_STDIN_BYTES} bytes.");
            return Err(too_large(
                message,
                "Send it in pieces with `respond_execution`, or as a file with `transfer_files`.",
                "stdin",
            ));
        }
        if asked
            .terminal
            .is_some_and(|terminal| terminal.rows == 0 || terminal.columns == 0)
        {
            return Err(invalid(
                "A terminal has at least one row and one column.",
                "Use 24 rows and 80 columns.",
                "terminal",
            ));
        }
        Ok(CommandPermit {
            parts: CommandParts {
                session: asked.session,
                command: asked.command.clone(),
                cwd: working_directory(asked.cwd.as_deref())?,
                env: asked.env.clone(),
                stdin: asked.stdin.clone(),
                keep_stdin_open: asked.keep_stdin_open,
                terminal: asked.terminal,
                deadline: self.deadline(asked.timeout)?,
                wait: asked.wait.min(MAX_WAIT),
                max_running_executions: self.config.max_running_executions,
            },
        })
    }

    /// Refused beyond the maximum rather than cut: who asks for two hours should know that the command gets one.
    pub(crate) fn deadline(&self, asked: Option<Duration>) -> Result<Duration, Refusal> {
        let maximum = self.config.max_execution_timeout;
        let deadline = asked.unwrap_or(maximum);
        if deadline > maximum {
            let message = format!(
                "{} seconds are more than a command may run here.",
                deadline.as_secs()
            );
            let hint = format!(
                "Ask for at most {} seconds, or leave it out. The operator can raise `max_execution_timeout` in the configuration file.",
                maximum.as_secs()
            );
            return Err(invalid(message, hint, "timeoutSeconds"));
        }
        if deadline.is_zero() {
            return Err(invalid(
                "A command cannot run for zero seconds.",
                "Use at least 1, or leave it out.",
                "timeoutSeconds",
            ));
        }
        Ok(deadline)
    }
}

fn check_command(command: &CommandLine) -> Result<(), Refusal> {
    match command {
        CommandLine::Shell(line) if line.trim().is_empty() => Err(invalid(
            "The command is empty.",
            "Give a line for the shell, such as `ls -l`.",
            "command",
        )),
        CommandLine::Shell(line) => check_argument(line, "command"),
        CommandLine::Argv(argv) => check_argv(argv),
    }
}

fn check_argv(argv: &[String]) -> Result<(), Refusal> {
    if argv.first().is_none_or(String::is_empty) {
        return Err(invalid(
            "There is no program to run.",
            "Put the program first, such as [\"ls\", \"-l\"].",
            "argv",
        ));
    }
    if argv.len() > MAX_ARGUMENTS {
        let message = format!(
            "{} arguments are more than the {MAX_ARGUMENTS} of one command.",
            argv.len()
        );
        return Err(too_large(
            message,
            "Write them to a file in the session, and let the program read it.",
            "argv",
        ));
    }
    let bytes: usize = argv.iter().map(|argument| argument.len() + 1).sum();
    if bytes > MAX_COMMAND_BYTES {
        let message = format!(
            "The arguments have {bytes} bytes, more than the {MAX_COMMAND_BYTES} of one command."
        );
        return Err(too_large(
            message,
            "Write them to a file in the session, or use `stdin`.",
            "argv",
        ));
    }
    argv.iter()
        .enumerate()
        .try_for_each(|(index, argument)| check_argument(argument, &format!("argv[{index}]")))
}

fn check_argument(argument: &str, field: &str) -> Result<(), Refusal> {
    if argument.len() > MAX_ARGUMENT_BYTES {
        let message = format!(
            "The kernel takes no argument of more than {MAX_ARGUMENT_BYTES} bytes; this one has {}.",
            argument.len()
        );
        return Err(too_large(
            message,
            "Use `stdin`, or write a script to a file and run that.",
            field,
        ));
    }
    if argument.contains('\0') {
        return Err(invalid(
            "A command cannot contain a NUL.",
            "Remove it; pass binary data by `stdin`.",
            field,
        ));
    }
    Ok(())
}

fn working_directory(asked: Option<&Path>) -> Result<PathBuf, Refusal> {
    let Some(asked) = asked else {
        return Ok(PathBuf::from(WORKSPACE_PATH));
    };
    let cwd = mounts::clean(asked, "cwd")?;
    if NO_WORKING_DIRECTORY
        .iter()
        .any(|tree| cwd.starts_with(tree))
    {
        let message = "A command cannot start in /proc, /sys or /dev.";
        return Err(invalid(
            message,
            "Use `/workspace` or a directory below it; leave it out for `/workspace`.",
            "cwd",
        ));
    }
    Ok(cwd)
}

fn invalid(message: impl Into<String>, hint: impl Into<String>, field: &str) -> Refusal {
    Refusal::new(Reason::InvalidArgument, message, hint).in_field(field)
}

fn too_large(message: impl Into<String>, hint: &str, field: &str) -> Refusal {
    Refusal::new(Reason::TooLarge, message, hint).in_field(field)
}

//! Commands: bounds, deadlines, working directories.

use std::{path::Path, time::Duration};

use model::{CommandLine, Reason, Secret, Terminal};

use super::fixture::*;
use crate::{CommandParts, MAX_ARGUMENT_BYTES, MAX_ARGUMENTS, MAX_STDIN_BYTES, MAX_WAIT};

fn admit(change: impl FnOnce(&mut model::ExecuteCommand)) -> Result<CommandParts, model::Refusal> {
    let mut asked = command(CommandLine::Shell("ls".into()));
    change(&mut asked);
    policy()
        .admit_command(&alice(), &asked, Some(OWNER))
        .map(|permit| permit.into_parts())
}

fn argv(argv: impl IntoIterator<Item = String>) -> Result<CommandParts, model::Refusal> {
    let argv = argv.into_iter().collect();
    admit(|asked| asked.command = CommandLine::Argv(argv))
}

#[test]
fn an_ordinary_command_gets_the_defaults() {
    let parts = admit(|_| {}).unwrap();
    assert_eq!(parts.cwd, Path::new("/workspace"));
    assert_eq!(parts.deadline, Duration::from_secs(3600));
    assert_eq!(parts.wait, Duration::from_secs(20));
    assert_eq!(parts.max_running_executions, 8);
    assert_eq!(parts.command, CommandLine::Shell("ls".into()));
    assert_eq!(parts.session, SESSION);
}

#[test]
fn arguments_are_bounded_to_the_byte() {
    assert!(argv(vec!["x".to_owned(); MAX_ARGUMENTS]).is_ok());
    refused_as(
        argv(vec!["x".to_owned(); MAX_ARGUMENTS + 1]),
        Reason::TooLarge,
        "argv",
        "count",
    );
    assert!(argv(vec!["x".repeat(MAX_ARGUMENT_BYTES)]).is_ok());
    refused_as(
        argv(vec!["x".repeat(MAX_ARGUMENT_BYTES + 1)]),
        Reason::TooLarge,
        "argv[0]",
        "one argument",
    );
    assert!(
        argv(vec!["x".repeat(MAX_ARGUMENT_BYTES); 4]).is_ok(),
        "512 KiB with the NULs"
    );
    let more = vec!["x".repeat(MAX_ARGUMENT_BYTES); 4]
        .into_iter()
        .chain([String::new()]);
    refused_as(argv(more), Reason::TooLarge, "argv", "all together");
    let line = |bytes: usize| admit(|asked| asked.command = CommandLine::Shell("x".repeat(bytes)));
    assert!(line(MAX_ARGUMENT_BYTES).is_ok());
    refused_as(
        line(MAX_ARGUMENT_BYTES + 1),
        Reason::TooLarge,
        "command",
        "a long line",
    );
}

#[test]
fn empty_commands_and_nuls_are_refused() {
    refused_as(argv([]), Reason::InvalidArgument, "argv", "nothing");
    refused_as(
        argv([String::new()]),
        Reason::InvalidArgument,
        "argv",
        "no program",
    );
    refused_as(
        argv(["ls".into(), "a\0b".into()]),
        Reason::InvalidArgument,
        "argv[1]",
        "NUL",
    );
    for line in ["", " \n\t", "a\0b"] {
        refused_as(
            admit(|asked| asked.command = CommandLine::Shell(line.into())),
            Reason::InvalidArgument,
            "command",
            line,
        );
    }
    assert!(
        argv(["printf".into(), String::new(), "\n".into()]).is_ok(),
        "later arguments may be empty"
    );
}

#[test]
fn a_timeout_over_the_maximum_is_refused_and_a_wait_is_cut() {
    let timeout = |timeout| admit(|asked| asked.timeout = Some(timeout));
    assert_eq!(
        timeout(Duration::from_secs(5)).unwrap().deadline,
        Duration::from_secs(5)
    );
    assert_eq!(
        timeout(Duration::from_secs(3600)).unwrap().deadline,
        Duration::from_secs(3600)
    );
    let refusal = refused_as(
        timeout(Duration::from_secs(3601)),
        Reason::InvalidArgument,
        "timeoutSeconds",
        "over",
    );
    assert!(
        refusal.hint.contains("3600") && refusal.hint.contains("max_execution_timeout"),
        "{refusal:?}"
    );
    refused_as(
        timeout(Duration::MAX),
        Reason::InvalidArgument,
        "timeoutSeconds",
        "far over",
    );
    refused_as(
        timeout(Duration::ZERO),
        Reason::InvalidArgument,
        "timeoutSeconds",
        "zero",
    );
    assert_eq!(
        admit(|asked| asked.wait = Duration::MAX).unwrap().wait,
        MAX_WAIT
    );
    assert_eq!(
        admit(|asked| asked.wait = Duration::ZERO).unwrap().wait,
        Duration::ZERO
    );
}

#[test]
fn a_working_directory_is_absolute_clean_and_real() {
    let cwd = |cwd: &str| admit(|asked| asked.cwd = Some(cwd.into())).map(|parts| parts.cwd);
    for good in [
        "/workspace/src",
        "/",
        "/tmp",
        "/workspace//src/",
        "/usr/share",
    ] {
        assert_eq!(cwd(good).unwrap(), resolved(Path::new(good)), "{good}");
    }
    #[rustfmt::skip]
    let bad = ["", "src", "./src", "~", "/workspace/../etc", "/workspace/..", "/a\0", "/a\nb", "/proc/self/fd/7", "/proc/self/fd/8/../..",
        "/dev/fd/9", "/sys", "//proc//self/cwd"];
    for bad in bad {
        refused_as(cwd(bad), Reason::InvalidArgument, "cwd", bad);
    }
}

#[test]
fn standard_input_and_terminals_are_bounded() {
    let stdin = |bytes| admit(|asked| asked.stdin = Some(Secret::new(vec![0; bytes])));
    assert!(stdin(MAX_STDIN_BYTES).is_ok());
    refused_as(
        stdin(MAX_STDIN_BYTES + 1),
        Reason::TooLarge,
        "stdin",
        "one more",
    );
    let terminal = |rows, columns| admit(|asked| asked.terminal = Some(Terminal { rows, columns }));
    assert!(terminal(24, 80).is_ok());
    refused_as(
        terminal(0, 80),
        Reason::InvalidArgument,
        "terminal",
        "no rows",
    );
    refused_as(
        terminal(24, 0),
        Reason::InvalidArgument,
        "terminal",
        "no columns",
    );
}

#[test]
fn the_environment_of_a_command_is_checked() {
    let env = |name: &str| {
        admit(|asked| {
            drop(
                asked
                    .env
                    .insert(name.to_owned(), Secret::new("canary".to_owned())),
            )
        })
    };
    assert!(env("PATH").is_ok());
    let refusal = refused_as(
        env("ANTHROPIC_API_KEY"),
        Reason::PolicyDenied,
        "env.ANTHROPIC_API_KEY",
        "a key",
    );
    assert!(!format!("{refusal:?}").contains("canary"));
}

//! The command line from outside: what can be typed, and what the help says.

use clap::{CommandFactory, Parser};

use super::arguments::{Command, CommandLine, SessionCommand};

fn parse(line: &str) -> Result<CommandLine, clap::Error> {
    CommandLine::try_parse_from(std::iter::once("claude-code-mcp").chain(line.split_whitespace()))
}

#[test]
fn the_definition_is_sound() {
    CommandLine::command().debug_assert();
}

#[test]
fn every_help_is_as_recorded() {
    let mut pages = String::new();
    collect(&mut CommandLine::command().term_width(100), "", &mut pages);
    insta::assert_snapshot!(pages);
}

fn collect(command: &mut clap::Command, path: &str, pages: &mut String) {
    let path = format!("{path}{}", command.get_name());
    let help = command.render_long_help();
    pages.push_str(&format!("===== {path} =====\n{help}\n"));
    for inner in command
        .get_subcommands_mut()
        .filter(|inner| !inner.is_hide_set())
    {
        let mut inner = inner.clone().term_width(100);
        collect(&mut inner, &format!("{path} "), pages);
    }
}

#[test]
fn what_follows_the_dashes_belongs_to_the_command() {
    let parsed = parse("session exec app --timeout 90s -e A=1 -- ls --json -l").unwrap();
    let Some(Command::Session(SessionCommand::Exec(exec))) = parsed.command else {
        panic!("not exec")
    };
    assert_eq!(exec.command, ["ls", "--json", "-l"]);
    assert_eq!(exec.environment.env, ["A=1"]);
    assert_eq!(exec.timeout, Some(std::time::Duration::from_secs(90)));
    assert!(!parsed.json);
    assert!(parse("session list --json").unwrap().json);
}

#[test]
fn wrong_lines_are_refused_with_the_usage_exit_code() {
    for line in [
        "session exec app -- true",
        "run --prompt - --strict --keep",
        "run -p --help-me --max-budget-usd 0.5",
        "session prompt app - --new",
        "session approve app p --no --answer because",
        "keys create --name a --scope files --scope admin --expires 90d --root /srv",
        "keys rotate abcdefghij23 --overlap 0",
        "audit search --result denied",
        "audit tail --result pending",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
    for line in [
        "session exec app",
        "session exec app true",
        "session destroy",
        "session destroy a --all",
        "session create . --memory lots",
        "session create . --cpus 1.2345",
        "session logs app --tail 0",
        "session logs app --tail 1001",
        "session extend app",
        "serve --detached",
        "run",
        "run --prompt a --prompt-file b",
        "run --prompt a --allow --strict",
        "run --prompt a --max-budget-usd 0",
        "run --prompt a --max-turns 0",
        "session prompt app",
        "session prompt app a --new --conversation b",
        "session approve app p --yes --no",
        "keys create --name a",
        "keys create --scope files",
        "keys create --name a --scope sudo",
        "keys create --name a --scope files --max-sessions 0",
        "keys revoke",
        "audit export --format xml",
        "nonsense",
        "session",
    ] {
        assert_eq!(
            parse(line).unwrap_err().exit_code(),
            i32::from(super::EXIT_USAGE),
            "{line}"
        );
    }
    assert!(parse("").unwrap().command.is_none());
}

/// It was taken, and fitted nothing: the records that were looked for seemed not to be there.
#[test]
fn a_result_that_no_record_has_was_searched_for() {
    for command in ["search", "tail", "export"] {
        let refused = parse(&format!("audit {command} --result nonsense")).unwrap_err();
        assert_eq!(refused.kind(), clap::error::ErrorKind::InvalidValue);
        let said = refused.to_string();
        for value in ["ok", "denied", "failed", "aborted", "unknown", "pending"] {
            assert!(said.contains(value), "{said}");
            assert!(parse(&format!("audit {command} --result {value}")).is_ok());
        }
    }
}

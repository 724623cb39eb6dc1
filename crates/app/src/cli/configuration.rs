//! `config check`, `config show` and `config schema`: work on any configuration, also on one that no server starts with.

use serde_json::json;

use super::{
    CliError, EXIT_OK, EXIT_REFUSED, Output,
    arguments::ConfigCommand,
    output::{Color, note},
};
use crate::{
    config::{
        Config, Environment, FileLookedFor, Flags, Inspected, Place, Problem, Shown, inspect,
        schema, shown,
    },
    reload,
};

pub(super) fn run(
    output: Output,
    mut flags: Flags,
    environment: &Environment,
    command: &ConfigCommand,
) -> Result<u8, CliError> {
    match command {
        ConfigCommand::Check { file } => {
            flags.config = file.clone().or(flags.config);
            check(output, reload::inspect_whole(&flags, environment))
        }
        ConfigCommand::Show { effective } => show(
            output,
            &inspect(&flags, environment),
            environment,
            *effective,
        ),
        ConfigCommand::Schema => output.json(&schema()).map(|()| EXIT_OK),
    }
}

fn check(output: Output, found: Inspected) -> Result<u8, CliError> {
    let is_fine = found.problems.is_empty();
    if output.json {
        let FileLookedFor { file, looked_for } = source(&found).unwrap_or_default();
        output.json(&json!({
            "ok": is_fine,
            "file": file,
            "lookedFor": looked_for,
            "problems": found.problems,
            "warnings": found.warnings,
        }))?;
    } else {
        print_problems(output, &found)?;
    }
    Ok(if is_fine { EXIT_OK } else { EXIT_REFUSED })
}

fn print_problems(output: Output, found: &Inspected) -> Result<(), CliError> {
    name_file(output, found)?;
    for problem in &found.problems {
        output.line(&line(output, problem))?;
        output.line(&format!("  what to do: {}", problem.hint))?;
    }
    for warning in &found.warnings {
        let word = output.paint(Color::Yellow, "warning");
        output.line(&format!("{word}: {warning}"))?;
    }
    match found.problems.len() {
        0 => output.line("the configuration is fine"),
        1 => output.line("1 problem: a server would not start"),
        count => output.line(&format!("{count} problems: a server would not start")),
    }
}

/// Nothing where so much is wrong that there is no configuration at all.
fn source(found: &Inspected) -> Option<FileLookedFor> {
    found.config.as_ref().map(Config::source)
}

fn name_file(output: Output, found: &Inspected) -> Result<(), CliError> {
    match source(found) {
        Some(source) => output.line(&format!("configuration file: {source}")),
        None => Ok(()),
    }
}

/// `FILE:LINE: error[code]: sentence`, as compilers say it.
fn line(output: Output, problem: &Problem) -> String {
    let place = problem.place.as_ref();
    let place = place.map_or_else(String::new, |place| format!("{place}: "));
    let word = output.paint(Color::Red, "error");
    format!("{place}{word}[{}]: {}", problem.code, problem.message)
}

fn show(
    output: Output,
    found: &Inspected,
    environment: &Environment,
    effective: bool,
) -> Result<u8, CliError> {
    for problem in &found.problems {
        note(&format!("left out: {}", problem.message));
    }
    for warning in &found.warnings {
        note(warning);
    }
    let rows: Vec<Shown> = found.config.iter().flat_map(shown).collect();
    let rows: Vec<Shown> = rows
        .into_iter()
        .filter(|row| effective || row.place.is_some())
        .collect();
    let secrets: Vec<&str> = environment.secrets().map(|(name, _)| name).collect();
    if output.json {
        let FileLookedFor { file, looked_for } = source(found).unwrap_or_default();
        output.json(&json!({
            "file": file, "lookedFor": looked_for,
            "ok": found.problems.is_empty(), "keys": rows, "secretVariables": secrets, "warnings": found.warnings,
        }))?;
    } else {
        let place = |place: &Option<Place>| {
            let written = place.as_ref().map(Place::to_string);
            written.unwrap_or_else(|| "default".to_owned())
        };
        let hidden = secrets.iter().map(|name| {
            vec![
                (*name).to_owned(),
                "[secret]".to_owned(),
                format!("variable {name}"),
            ]
        });
        let keys = rows
            .iter()
            .map(|row| vec![row.key.to_owned(), row.text.clone(), place(&row.place)]);
        let table: Vec<_> = keys.chain(hidden).collect();
        name_file(output, found)?;
        match table.is_empty() {
            true => output
                .line("nothing is configured; `config show --effective` shows the defaults")?,
            false => output.table(&["key", "value", "from"], table)?,
        }
    }
    match found.problems.is_empty() {
        true => Ok(EXIT_OK),
        false => Ok(EXIT_REFUSED),
    }
}

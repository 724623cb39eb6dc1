//! `config check`, `config show` and `config schema`: work on any configuration, also on one that no server starts with.

use serde_json::json;

use super::{
    CliError, EXIT_OK, EXIT_REFUSED, Output,
    arguments::ConfigCommand,
    output::{Color, note},
};
use crate::{
    config::{Environment, Flags, Inspected, Place, Problem, Shown, inspect, schema, shown},
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
        let file = found
            .config
            .as_ref()
            .and_then(|config| config.file.as_ref());
        output.json(&json!({
            "ok": is_fine,
            "file": file.map(|path| path.display().to_string()),
            "problems": found.problems,
            "warnings": found.warnings,
        }))?;
    } else {
        print_problems(output, &found)?;
    }
    Ok(if is_fine { EXIT_OK } else { EXIT_REFUSED })
}

fn print_problems(output: Output, found: &Inspected) -> Result<(), CliError> {
    for problem in &found.problems {
        output.line(&line(output, problem))?;
        output.line(&format!("  what to do: {}", problem.hint))?;
    }
    for warning in &found.warnings {
        let word = output.paint(Color::Yellow, "warning");
        output.line(&format!("{word}: {warning}"))?;
    }
    match (found.problems.len(), &found.config) {
        (0, Some(config)) => match &config.file {
            Some(file) => output.line(&format!("{} is fine", file.display())),
            None => output.line("there is no configuration file, and the rest is fine"),
        },
        (1, _) => output.line("1 problem: a server would not start"),
        (count, _) => output.line(&format!("{count} problems: a server would not start")),
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
        output.json(&json!({
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

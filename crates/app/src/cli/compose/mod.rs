//! `compose lint`: what is wrong with a Compose file, as findings with the reason and what to write instead.
//!
//! Reading order: [`rules`] (what can be wrong), [`lint`] (the file), `service.rs` and `mounts.rs` (each service),
//! `variables.rs`, [`document`] (YAML, bounded).

mod document;
mod lint;
mod mounts;
mod rules;
mod service;
mod variables;

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde::Serialize;

use super::{
    CliError, Context, EXIT_OK, EXIT_REFUSED,
    arguments::ComposeCommand,
    output::{Color, Output},
};
use document::{DocumentError, MAX_FILE_BYTES, Node};
use lint::{Finding, NotCompose};
use rules::Severity;

/// Why a file could not be judged.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// It is larger than [`MAX_FILE_BYTES`].
    #[error("it is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    /// It is not UTF-8.
    #[error("it is not UTF-8")]
    Encoding,
    /// Its YAML.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// What the YAML says.
    #[error(transparent)]
    NotCompose(#[from] NotCompose),
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    file: String,
    findings: &'a [Finding],
}

pub(super) fn run(context: &Context, command: &ComposeCommand) -> Result<u8, CliError> {
    let ComposeCommand::Lint { file } = command;
    let findings = judge(file).map_err(|source| CliError::Compose {
        path: file.clone(),
        source,
    })?;
    let report = Report {
        ok: findings.is_empty(),
        file: file.display().to_string(),
        findings: &findings,
    };
    if context.output.json {
        context.output.json(&report)?;
    } else {
        print(context.output, &report)?;
    }
    Ok(if report.ok { EXIT_OK } else { EXIT_REFUSED })
}

/// All findings of a file; `-` is standard input.
fn judge(file: &Path) -> Result<Vec<Finding>, ComposeError> {
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file)?)
    };
    let mut bytes = Vec::new();
    source.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ComposeError::TooLarge);
    }
    let text = String::from_utf8(bytes).map_err(|_| ComposeError::Encoding)?;
    Ok(lint::lint(&Node::parse(&text)?)?)
}

fn print(output: Output, report: &Report<'_>) -> Result<(), CliError> {
    let file = &report.file;
    for finding in report.findings {
        let color = match finding.severity {
            Severity::Critical | Severity::High => Color::Red,
            Severity::Medium => Color::Yellow,
            Severity::Low => Color::Dim,
        };
        let severity = output.paint(color, finding.severity.word());
        let service = finding.service.as_deref();
        let whose = service.map_or(String::new(), |service| format!("{}: ", printable(service)));
        let Finding {
            line, id, why, fix, ..
        } = finding;
        let found = printable(&finding.found);
        output.line(&format!("{file}:{line}: {severity} {id}: {whose}{found}"))?;
        output.line(&format!("  why  {why}"))?;
        output.line(&format!("  fix  {fix}"))?;
    }
    let count = report.findings.len();
    let verdict = match count {
        0 => "nothing found".to_owned(),
        1 => "1 finding".to_owned(),
        _ => format!("{count} findings"),
    };
    output.line(&format!("{file}: {verdict}"))
}

/// The file may be hostile; the terminal is not to obey it.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests;

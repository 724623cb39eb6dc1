//! The report for people: what asks for something first-hand, the rest counted; `verbose` lists all.

mod backend;
mod engine;

use serde::Serialize;

use super::{Report, ServerReport, agent::AgentReport, files::Usable, sinks::SinkReport};
use crate::{
    cli::{
        CliError,
        output::{Color, Output},
    },
    config::units::counted,
};

/// Width of the words that begin lines.
const MARGIN: usize = 11;

/// Where it goes, and how much of it.
#[derive(Clone, Copy)]
struct Printer {
    output: Output,
    verbose: bool,
}

impl Printer {
    /// A line with its word in the margin.
    fn row(self, word: &str, text: &str) -> Result<(), CliError> {
        self.output.line(&format!("{word:<MARGIN$}{text}"))
    }

    /// What is wrong or missing, and what to do.
    fn advice(self, color: Color, word: &str, what: &str, remedy: &str) -> Result<(), CliError> {
        let word = self.output.paint(color, word);
        self.row("", &format!("{word}: {what}"))?;
        if remedy.is_empty() {
            return Ok(());
        }
        self.row("", &format!("  what to do: {remedy}"))
    }
}

/// Prints it.
pub(super) fn report(output: Output, report: &Report, verbose: bool) -> Result<(), CliError> {
    let printer = Printer { output, verbose };
    backend::print(printer, &report.backend)?;
    output.line("")?;
    engine::print(printer, &report.docker)?;
    output.line("")?;
    usable(printer, "state", &report.state_directory)?;
    usable(printer, "audit log", &report.audit_log)?;
    for sink in &report.audit_sinks {
        printer.row("audit sink", &sink_line(output, sink))?;
    }
    printer.row("config", &report.configuration_source.to_string())?;
    if let Some(problem) = &report.configuration_problem {
        printer.row("", &output.paint(Color::Red, problem))?;
    }
    server(printer, &report.server)?;
    agent(printer, &report.claude_code)?;
    path(output, report)?;
    output.line("")?;
    verdict(output, report)
}

fn verdict(output: Output, report: &Report) -> Result<(), CliError> {
    let walls = report.docker.walls.as_ref();
    let problems = walls.map(|walls| &walls.problems[..]).unwrap_or_default();
    for problem in problems {
        output.line(&output.paint(Color::Red, problem))?;
    }
    let untried = walls.is_some_and(|walls| walls.probes.is_empty());
    let verdict = match (report.ok, problems.is_empty()) {
        (false, _) if untried => output.paint(
            Color::Red,
            "nothing is known of the engine's walls until the above is put right",
        ),
        (true, _) => {
            let backend = report.default_backend.unwrap_or_default();
            let text =
                format!("sessions can be created here; those that name no backend get {backend}");
            output.paint(Color::Green, &text)
        }
        (false, false) => output.paint(
            Color::Red,
            "do not run untrusted code on this engine until the above is put right",
        ),
        (false, true) => output.paint(
            Color::Red,
            "no session can be created here until the above is put right",
        ),
    };
    output.line(&verdict)
}

/// A name as it stands in replies.
fn name(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(_) | Err(_) => String::new(),
    }
}

fn usable(printer: Printer, name: &str, found: &Usable) -> Result<(), CliError> {
    let output = printer.output;
    let word = match (&found.problem, found.exists) {
        (Some(problem), _) => output.paint(Color::Red, problem),
        (None, true) => output.paint(Color::Green, "can be written"),
        (None, false) => output.paint(Color::Green, "will be made"),
    };
    printer.row(name, &format!("{}: {word}", found.path))
}

fn sink_line(output: Output, sink: &SinkReport) -> String {
    let missed = match sink.missed {
        0 => String::new(),
        missed => format!(", {missed} missed"),
    };
    let word = match &sink.problem {
        Some(problem) => output.paint(Color::Red, problem),
        None if sink.waiting == 0 => output.paint(Color::Green, "has all records"),
        None => "gets records while a server runs".to_owned(),
    };
    format!(
        "{} ({}), {} waiting{missed}: {word}",
        sink.name, sink.kind, sink.waiting
    )
}

fn server(printer: Printer, server: &ServerReport) -> Result<(), CliError> {
    let text = match (&server.problem, server.pid) {
        (Some(problem), _) => printer.output.paint(Color::Red, problem),
        (None, Some(pid)) => {
            let version = server.version.as_deref().unwrap_or_default();
            let sessions = counted(server.sessions.unwrap_or_default().into(), "session");
            format!("version {version}, process {pid}, {sessions} live")
        }
        (None, None) => "none runs; the next client starts one".to_owned(),
    };
    printer.row("server", &text)
}

fn agent(printer: Printer, agent: &AgentReport) -> Result<(), CliError> {
    let text = match (&agent.problem, &agent.found) {
        (Some(problem), _) => printer.output.paint(Color::Red, problem),
        (None, Some(found)) => found.clone(),
        (None, None) => "none but what the root file system of sessions brings".to_owned(),
    };
    printer.row("claude", &text)?;
    match &agent.remedy {
        Some(remedy) => printer.row("", &format!("  what to do: {remedy}")),
        None => Ok(()),
    }
}

fn path(output: Output, report: &Report) -> Result<(), CliError> {
    if let Some(line) = &report.path.configuration_line {
        output.line("")?;
        output.line("sessions do not see these entries of PATH:")?;
        for entry in &report.path.not_visible {
            output.line(&format!("  {}", entry.display()))?;
        }
        output.line("this line of the configuration offers them read-only:")?;
        output.line(&format!("  {line}"))?;
    }
    for note in &report.path.notes {
        output.line(&format!("  note: {note}"))?;
    }
    Ok(())
}

//! The report for people.

use model::Enforcement;
use sandbox_docker::doctor::Verdict;
use serde::Serialize;

use super::{
    Report, ServerReport, agent::AgentReport, capability::BackendReport, engine::EngineReport,
    files::Usable,
};
use crate::cli::{
    CliError,
    output::{Color, Output},
};

pub(super) fn report(output: Output, report: &Report) -> Result<(), CliError> {
    backend(output, &report.backend)?;
    output.line("")?;
    engine(output, &report.docker)?;
    output.line("")?;
    usable(output, "state", &report.state_directory)?;
    usable(output, "audit log", &report.audit_log)?;
    let file = report
        .configuration_file
        .as_deref()
        .unwrap_or("none; the defaults hold");
    output.line(&format!("{:<10} {file}", "config"))?;
    server(output, &report.server)?;
    agent(output, &report.claude_code)?;
    path(output, report)?;
    output.line("")?;
    let verdict = if report.ok {
        output.paint(Color::Green, "sessions can be created here")
    } else {
        output.paint(
            Color::Red,
            "no session can be created here until the above is put right",
        )
    };
    output.line(&verdict)
}

fn backend(output: Output, backend: &BackendReport) -> Result<(), CliError> {
    if backend.usable {
        output.line(&format!(
            "{:<10} {}: {}",
            "backend", backend.name, backend.rung
        ))?;
        output.line(&format!("{:<10} {}", "posture", backend.posture))?;
    } else {
        output.line(&format!(
            "{:<10} {} cannot work here",
            "backend", backend.name
        ))?;
    }
    if !backend.layers.is_empty() {
        output.line("")?;
        let rows = backend.layers.iter().map(|layer| {
            let word = if layer.available {
                output.paint(Color::Green, "yes")
            } else {
                output.paint(Color::Red, "no")
            };
            vec![name(&layer.layer), word]
        });
        output.table(&["LAYER", "AVAILABLE"], rows)?;
        output.line("")?;
        let rows = backend.limits.iter().map(|limit| {
            let color = match limit.enforcement {
                Enforcement::Hard => Color::Green,
                Enforcement::Soft => Color::Yellow,
                Enforcement::None => Color::Red,
            };
            vec![
                limit.limit.to_owned(),
                output.paint(color, &name(&limit.enforcement)),
                limit.mechanism.clone(),
            ]
        });
        output.table(&["LIMIT", "HOLDS", "BY"], rows)?;
    }
    for missing in &backend.missing {
        output.line("")?;
        output.line(&format!(
            "{} {}",
            output.paint(Color::Yellow, "missing:"),
            missing.what
        ))?;
        if !missing.remedy.is_empty() {
            output.line(&format!("  to get it: {}", missing.remedy))?;
        }
    }
    Ok(())
}

fn engine(output: Output, engine: &EngineReport) -> Result<(), CliError> {
    let word = if engine.usable {
        "usable"
    } else {
        "not usable"
    };
    let rung = if engine.rung.is_empty() {
        "no engine"
    } else {
        &engine.rung
    };
    output.line(&format!("{:<10} {word}: {rung}", "docker"))?;
    if !engine.engine.is_empty() {
        output.line(&format!("{:<10} {}", "engine", engine.engine))?;
    }
    let meaning = match engine.posture.as_str() {
        "docker-remote" => Some("the engine is on another host, and carries no session yet"),
        _ if engine.equals_root => Some("whoever may speak to the engine is root on this machine"),
        _ => None,
    };
    if let Some(meaning) = meaning {
        output.line(&format!("{:<10} {}: {meaning}", "posture", engine.posture))?;
    }
    for missing in &engine.missing {
        output.line(&format!("{:<10} {}", "", missing.what))?;
        if !missing.remedy.is_empty() {
            output.line(&format!("{:<10}   to get it: {}", "", missing.remedy))?;
        }
    }
    advisories(output, engine)
}

/// Known faults: those that ask for something, and how many do not.
fn advisories(output: Output, engine: &EngineReport) -> Result<(), CliError> {
    if !engine.runtimes.is_empty() {
        let runtimes = engine.runtimes.join(", ");
        output.line(&format!("{:<10} {runtimes}", "runtimes"))?;
    }
    let count = |verdict| {
        let standings = engine.advisories.iter();
        standings.filter(|found| found.verdict == verdict).count()
    };
    if !engine.advisories.is_empty() {
        output.line(&format!(
            "{:<10} of {} known faults of engine, runc, containerd and kernel {} are repaired here and {} kept from \
             sessions by our own walls (by version; --json lists all)",
            "advisories",
            engine.advisories.len(),
            count(Verdict::Fixed),
            count(Verdict::Blocked)
        ))?;
    }
    for found in engine
        .advisories
        .iter()
        .filter(|found| found.verdict.is_problem())
    {
        let version = found.version.as_deref().unwrap_or("of unknown version");
        output.line(&format!(
            "{:<10} {} ({} {version}, {}): {}",
            "",
            found.id,
            found.component.name(),
            name(&found.verdict),
            found.allows
        ))?;
        output.line(&format!("{:<10}   what to do: {}", "", found.remedy))?;
    }
    Ok(())
}

/// A name as it stands in replies.
fn name(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(_) | Err(_) => String::new(),
    }
}

fn usable(output: Output, name: &str, found: &Usable) -> Result<(), CliError> {
    let word = match (&found.problem, found.exists) {
        (Some(problem), _) => output.paint(Color::Red, problem),
        (None, true) => output.paint(Color::Green, "can be written"),
        (None, false) => output.paint(Color::Green, "will be made"),
    };
    output.line(&format!("{name:<10} {}: {word}", found.path))
}

fn server(output: Output, server: &ServerReport) -> Result<(), CliError> {
    let text = match (&server.problem, server.pid) {
        (Some(problem), _) => output.paint(Color::Red, problem),
        (None, Some(pid)) => {
            let version = server.version.as_deref().unwrap_or_default();
            format!(
                "version {version}, process {pid}, {} sessions live",
                server.sessions.unwrap_or_default()
            )
        }
        (None, None) => "none runs; the next client starts one".to_owned(),
    };
    output.line(&format!("{:<10} {text}", "server"))
}

fn agent(output: Output, agent: &AgentReport) -> Result<(), CliError> {
    let text = match (&agent.problem, &agent.found) {
        (Some(problem), _) => output.paint(Color::Red, problem),
        (None, Some(found)) => found.clone(),
        (None, None) => "none but what the root file system of sessions brings".to_owned(),
    };
    output.line(&format!("{:<10} {text}", "claude"))?;
    match &agent.remedy {
        Some(remedy) => output.line(&format!("{:<10}   to get it: {remedy}", "")),
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

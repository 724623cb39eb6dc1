//! The Docker engine: what it means to use it, what is known of it, and what trying its walls showed.

use sandbox::wire::TrialOutcome;
use sandbox_docker::doctor::{Access, Behavior, Item, ItemState, Standing, Verdict};

use super::{Printer, name};
use crate::cli::{
    CliError,
    doctor::{
        engine::EngineReport,
        walls::{Tried, WallsReport},
    },
    output::{Color, Output},
};

pub(super) fn print(printer: Printer, engine: &EngineReport) -> Result<(), CliError> {
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
    printer.row("docker", &format!("{word}: {rung}"))?;
    if !engine.engine.is_empty() {
        printer.row("engine", &engine.engine)?;
    }
    if let Some(found) = &engine.access {
        access(printer, engine, found)?;
    }
    for missing in &engine.missing {
        printer.advice(Color::Yellow, "missing", &missing.what, &missing.remedy)?;
    }
    if !engine.runtimes.is_empty() {
        printer.row("runtimes", &engine.runtimes.join(", "))?;
    }
    advisories(printer, &engine.advisories)?;
    match &engine.walls {
        Some(found) => walls(printer, found),
        None if engine.usable => printer.row(
            "walls",
            "not tried; `claude-code-mcp doctor --probe` starts one short sandbox and tries them from inside",
        ),
        None => Ok(()),
    }
}

fn access(printer: Printer, engine: &EngineReport, access: &Access) -> Result<(), CliError> {
    let posture = &engine.posture;
    if posture == "docker-remote" {
        let meaning = "the engine is on another host, and carries no session yet";
        printer.row("posture", &format!("{posture}: {meaning}"))?;
    } else if access.equals_root {
        printer.row(
            "posture",
            &format!("{posture}: whoever may speak to the engine is root on its machine"),
        )?;
    } else if !posture.is_empty() {
        printer.row("posture", posture)?;
    }
    // Who it is comes last, and is what most people want to know.
    let skipped = match printer.verbose {
        true => 0,
        false => access.why.len().saturating_sub(1),
    };
    for reason in access.why.iter().skip(skipped) {
        printer.row("", &format!("  {reason}"))?;
    }
    for found in &access.findings {
        printer.advice(Color::Red, "finding", &found.what, &found.remedy)?;
    }
    Ok(())
}

/// Known faults: those that ask for something, and how many do not.
fn advisories(printer: Printer, advisories: &[Standing]) -> Result<(), CliError> {
    if advisories.is_empty() {
        return Ok(());
    }
    let count = |is: fn(&&Standing) -> bool| advisories.iter().filter(is).count();
    let by_behavior = |found: &&Standing| found.behavior == Behavior::Blocked;
    let by_walls = |found: &&Standing| {
        found.verdict == Verdict::Blocked && found.behavior != Behavior::Blocked
    };
    printer.row(
        "advisories",
        &format!(
            "{} known faults: {} blocked by behavior, {} kept from sessions by our walls, {} repaired by version, {} to look at",
            advisories.len(),
            count(by_behavior),
            count(by_walls),
            count(|found| found.verdict == Verdict::Fixed),
            count(|found| found.verdict.is_problem()),
        ),
    )?;
    for found in advisories.iter().filter(|found| found.verdict.is_problem()) {
        let version = found.version.as_deref().unwrap_or("of unknown version");
        let what = format!(
            "{} ({} {version}, {}{}): {}",
            found.id,
            found.component.name(),
            name(&found.verdict),
            match found.behavior {
                Behavior::Possible => ", open by behavior",
                Behavior::Blocked | Behavior::NotShown => "",
            },
            found.allows
        );
        printer.advice(Color::Yellow, "advisory", &what, &found.remedy)?;
    }
    if printer.verbose {
        printer.output.line("")?;
        let rows = advisories
            .iter()
            .map(|found| advisory(printer.output, found));
        printer
            .output
            .table(&["FAULT", "IN", "STANDS", "BECAUSE"], rows)?;
        printer.output.line("")?;
    }
    Ok(())
}

fn advisory(output: Output, found: &Standing) -> Vec<String> {
    let color = match found.verdict {
        Verdict::Fixed | Verdict::Blocked => Color::Green,
        Verdict::Unknown | Verdict::PerhapsAffected => Color::Yellow,
        Verdict::Affected => Color::Red,
    };
    let probes = || {
        found
            .decided_by
            .iter()
            .map(|probe| probe.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let because = match (found.behavior, found.verdict) {
        (Behavior::Blocked, _) => format!("by behavior: {} blocked", probes()),
        (Behavior::Possible, _) => format!("by behavior: one of {} is possible", probes()),
        (Behavior::NotShown, Verdict::Blocked) => found.blocked_by.clone().unwrap_or_default(),
        (Behavior::NotShown, Verdict::Fixed) => "by version".to_owned(),
        (Behavior::NotShown, _) => found.remedy.clone(),
    };
    let version = found.version.as_deref().unwrap_or("?");
    vec![
        found.id.clone(),
        format!("{} {version}", found.component.name()),
        output.paint(color, &name(&found.verdict)),
        because,
    ]
}

fn walls(printer: Printer, walls: &WallsReport) -> Result<(), CliError> {
    // What went wrong stands at the end of the report.
    if walls.probes.is_empty() {
        return printer.row(
            "walls",
            &printer.output.paint(Color::Red, "could not be tried"),
        );
    }
    let relied: Vec<_> = walls
        .probes
        .iter()
        .filter(|tried| tried.relied_on)
        .collect();
    let of = |outcome| {
        let found = relied
            .iter()
            .filter(|tried| tried.finding.outcome == outcome);
        found.count()
    };
    let (blocked, possible) = (of(TrialOutcome::Blocked), of(TrialOutcome::Possible));
    let text = format!(
        "{} ways out tried from inside: {blocked} blocked, {possible} possible, {} unknown",
        relied.len(),
        of(TrialOutcome::Unknown)
    );
    let color = match blocked == relied.len() {
        true => Color::Green,
        false if possible == 0 => Color::Yellow,
        false => Color::Red,
    };
    printer.row("walls", &printer.output.paint(color, &text))?;
    for tried in &walls.probes {
        if tried.is_breach() || (tried.relied_on && tried.finding.outcome == TrialOutcome::Unknown)
        {
            let text = format!("{}: {}", tried.tries, answer(tried));
            printer.advice(color, tried.finding.outcome.as_str(), &text, "")?;
        }
    }
    if printer.verbose {
        printer.output.line("")?;
        let rows = walls
            .probes
            .iter()
            .map(|tried| probe(printer.output, tried));
        printer
            .output
            .table(&["PROBE", "TRIES TO", "IS", "ANSWER"], rows)?;
        printer.output.line("")?;
    }
    benchmark(printer, &walls.benchmark)
}

fn answer(tried: &Tried) -> String {
    let parts = [
        tried.answer.as_deref().unwrap_or_default(),
        &tried.finding.detail,
    ];
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("; ")
}

fn probe(output: Output, tried: &Tried) -> Vec<String> {
    let (color, word) = match (tried.finding.outcome, tried.relied_on) {
        (TrialOutcome::Blocked, _) => (Color::Green, "blocked"),
        (TrialOutcome::Possible, true) => (Color::Red, "possible"),
        (TrialOutcome::Possible, false) => (Color::Dim, "possible, by design"),
        (TrialOutcome::Unknown, _) => (Color::Yellow, "unknown"),
    };
    vec![
        tried.finding.probe.as_str().to_owned(),
        tried.tries.to_owned(),
        output.paint(color, word),
        answer(tried),
    ]
}

fn benchmark(printer: Printer, items: &[Item]) -> Result<(), CliError> {
    let of = |state| items.iter().filter(|item| item.state == state).count();
    let failed = of(ItemState::Fail);
    let text = format!(
        "CIS Docker section 5, as the engine reads the container back: {} pass, {failed} fail, {} not applicable",
        of(ItemState::Pass),
        of(ItemState::NotApplicable)
    );
    let color = match failed {
        0 => Color::Green,
        _ => Color::Red,
    };
    printer.row("benchmark", &printer.output.paint(color, &text))?;
    if !printer.verbose {
        return Ok(());
    }
    printer.output.line("")?;
    let rows = items.iter().map(|item| item_row(printer.output, item));
    printer
        .output
        .table(&["ITEM", "TITLE", "IS", "EVIDENCE"], rows)
}

fn item_row(output: Output, item: &Item) -> Vec<String> {
    let word = match item.state {
        ItemState::Pass => output.paint(Color::Green, "pass"),
        ItemState::Fail => output.paint(Color::Red, "fail"),
        ItemState::NotApplicable => output.paint(Color::Dim, "n/a"),
    };
    vec![
        item.id.clone(),
        item.title.to_owned(),
        word,
        item.evidence.clone(),
    ]
}

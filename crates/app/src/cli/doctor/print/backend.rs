//! The embedded runtime.

use model::Enforcement;

use super::{Printer, name};
use crate::cli::{
    CliError,
    doctor::capability::{BackendReport, LimitReport},
    output::{Color, Output},
};

pub(super) fn print(printer: Printer, backend: &BackendReport) -> Result<(), CliError> {
    if backend.usable {
        printer.row("backend", &format!("{}: {}", backend.name, backend.rung))?;
        printer.row("posture", &backend.posture)?;
    } else {
        printer.row("backend", &format!("{} cannot work here", backend.name))?;
    }
    if !backend.layers.is_empty() {
        if printer.verbose {
            tables(printer.output, backend)?;
        } else {
            summary(printer, backend)?;
        }
    }
    for missing in &backend.missing {
        printer.advice(Color::Yellow, "missing", &missing.what, &missing.remedy)?;
    }
    Ok(())
}

fn summary(printer: Printer, backend: &BackendReport) -> Result<(), CliError> {
    let absent = backend.layers.iter().filter(|layer| !layer.available);
    let absent: Vec<_> = absent.map(|layer| name(&layer.layer)).collect();
    let of = |enforcement| {
        let limits = backend.limits.iter();
        let of = limits.filter(move |limit: &&LimitReport| limit.enforcement == enforcement);
        of.map(|limit| limit.limit).collect::<Vec<_>>()
    };
    let all = backend.layers.len();
    let but = match absent.is_empty() {
        true => String::new(),
        false => format!("; not: {}", absent.join(", ")),
    };
    printer.row("layers", &format!("{} of {all}{but}", all - absent.len()))?;
    let kinds = [
        (Enforcement::Hard, Color::Green),
        (Enforcement::Soft, Color::Yellow),
        (Enforcement::None, Color::Red),
    ];
    let kinds = kinds.into_iter().filter_map(|(enforcement, color)| {
        let limits = of(enforcement);
        let word = printer.output.paint(color, &name(&enforcement));
        (!limits.is_empty()).then(|| format!("{word}: {}", limits.join(", ")))
    });
    printer.row("limits", &kinds.collect::<Vec<_>>().join("; "))
}

fn tables(output: Output, backend: &BackendReport) -> Result<(), CliError> {
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
    output.table(&["LIMIT", "HOLDS", "BY"], rows)
}

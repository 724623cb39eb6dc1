//! `audit verify`: whether the log is as it was written.

use std::path::Path;

use serde_json::json;

use super::{super::EXIT_OK, CliError, Context, failed};

pub(super) fn run(context: &Context, path: &Path) -> Result<u8, CliError> {
    let report = audit::verify(path).map_err(|error| failed(path, error))?;
    let warnings: Vec<String> = report.warnings.iter().map(warning).collect();
    if context.output.json {
        let open: Vec<_> = report
            .open_intents
            .iter()
            .map(|open| json!({ "seq": open.seq, "operation": open.operation, "action": open.action }))
            .collect();
        context.output.json(&json!({
            "path": path.display().to_string(), "ok": true, "records": report.records, "lastSeq": report.last_seq,
            "lastHash": report.last_hash, "openIntents": open, "warnings": warnings,
        }))?;
        return Ok(EXIT_OK);
    }
    context.output.line(&format!(
        "{} records, none changed, none missing: {}",
        report.records,
        path.display()
    ))?;
    context.output.line(&format!(
        "last      {} {}",
        report.last_seq, report.last_hash
    ))?;
    for open in &report.open_intents {
        context.output.line(&format!(
            "open      {} {} ({})",
            open.seq, open.action, open.operation
        ))?;
    }
    for warning in warnings {
        context.output.line(&format!("warning   {warning}"))?;
    }
    Ok(EXIT_OK)
}

fn warning(warning: &audit::Warning) -> String {
    match warning {
        audit::Warning::ClockRegress { seq } => {
            format!("ClockRegress: the clock went back before record {seq}")
        }
        audit::Warning::Gap { seq } => {
            format!("Gap: records were lost before record {seq}, and the log says so itself")
        }
        audit::Warning::NoHead => {
            "NoHead: there is no head file beside the log, so records missing at its end would not be found; \
             the next server that starts makes one"
                .to_owned()
        }
        audit::Warning::WriteInProgress => {
            "WriteInProgress: a running server is writing the last line".to_owned()
        }
    }
}

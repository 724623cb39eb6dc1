//! `audit key`.

use std::{
    io::{self, Write},
    path::Path,
};

use serde_json::json;

use super::{
    super::{CliError, Context, EXIT_OK, arguments::AuditKeyCommand, output::note},
    failed,
};

pub(super) fn run(context: &Context, command: &AuditKeyCommand) -> Result<u8, CliError> {
    let configured = &context.config.audit_log;
    match command {
        AuditKeyCommand::Show { path } => show_key(context, path.as_deref().unwrap_or(configured)),
        AuditKeyCommand::Export { path } => {
            export_key(context, path.as_deref().unwrap_or(configured))
        }
    }
}

fn show_key(context: &Context, path: &Path) -> Result<u8, CliError> {
    let found = audit::KeyFiles::read(path).map_err(|error| failed(path, error))?;
    let public = found.public_key.as_ref().map(ToString::to_string);
    if context.output.json {
        let current = found.current;
        context.output.json(&json!({
            "path": path.display().to_string(), "publicKey": public,
            "verificationKeyBeside": found.has_verification_key,
            "currentKey": current.map(|(number, _)| number), "currentSince": current.map(|(_, seq)| seq),
        }))?;
        return Ok(EXIT_OK);
    }
    let public = public.unwrap_or("none: the log has not been opened yet".to_owned());
    context.output.line(&format!("public        {public}"))?;
    if let Some((number, seq)) = found.current {
        context.output.line(&format!(
            "current       number {number}, since record {seq}"
        ))?;
    }
    context.output.line(match found.has_verification_key {
        true => {
            "verification  still beside the log: `audit key export` prints it and takes it away"
        }
        false => "verification  not on this machine",
    })?;
    Ok(EXIT_OK)
}

/// The key alone on standard output, so that it can be piped to where it is kept. It is removed here once it is out.
fn export_key(context: &Context, path: &Path) -> Result<u8, CliError> {
    let key = audit::verification_key(path).map_err(|error| failed(path, error))?;
    let key = key.ok_or_else(|| {
        CliError::Usage(format!(
            "no verification key stands beside {}: it was taken away before, or the log has not been opened yet",
            path.display()
        ))
    })?;
    let text = key.to_text();
    let mut out = io::stdout();
    let written = if context.output.json {
        writeln!(out, "{}", json!({ "verificationKey": *text }))
    } else {
        writeln!(out, "{}", *text)
    };
    written
        .and_then(|()| out.flush())
        .map_err(CliError::Terminal)?;
    audit::remove_verification_key(path).map_err(|error| failed(path, error))?;
    note(
        "keep this key where this machine is not, and check with `audit verify --key FILE`; it is not on this machine any more",
    );
    Ok(EXIT_OK)
}

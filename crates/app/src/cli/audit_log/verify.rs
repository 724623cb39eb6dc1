//! `audit verify`.

use std::{io, path::Path};

use anyhow::Context as _;
use audit::{Anchored, PublicKey, Verification, VerificationKey, VerifyReport};
use serde_json::json;
use store::Store;

use super::{
    super::{CliError, Context, EXIT_OK, output::note},
    failed,
};

/// What a log is checked against, as it was given.
pub(super) struct Against<'a> {
    pub key: Option<&'a Path>,
    pub public_key: Option<&'a str>,
    pub anchors: &'a [String],
    pub from: Option<u64>,
}

pub(super) fn run(context: &Context, path: &Path, against: &Against<'_>) -> Result<u8, CliError> {
    let mut anchors = Vec::new();
    for text in against.anchors {
        anchors.push(parse_anchor(text).ok_or_else(|| {
            CliError::Usage(format!(
                "--anchor {text} is no number and hash: `123:` and 64 digits"
            ))
        })?);
    }
    let public_key = against.public_key.map(|text| {
        PublicKey::parse(text).ok_or_else(|| {
            CliError::Usage("--public-key is none that `audit key show` prints".to_owned())
        })
    });
    let verification = Verification {
        key: against.key.map(verification_key).transpose()?,
        public_key: public_key.transpose()?,
        anchors: anchors.into_iter().chain(noted(context, path)).collect(),
        from_seq: against.from,
    };
    let report = verification
        .run(path)
        .map_err(|error| failed(path, error))?;
    if let Some(from) = against.from.filter(|from| *from > report.last_seq) {
        return Err(CliError::Usage(format!(
            "--from {from}: the log ends with record {}",
            report.last_seq
        )));
    }
    if context.output.json {
        context.output.json(&as_json(path, &report))?;
    } else {
        for line in told(path, &report) {
            context.output.line(&line)?;
        }
    }
    Ok(EXIT_OK)
}

/// What the state database knows of the configured log's end. The server may be running: it is only read.
fn noted(context: &Context, path: &Path) -> Option<Anchored> {
    let database = context.config.paths.state_dir.join("state.db");
    match Store::read_audit_head(&database, path) {
        Ok(found) => found.map(|(seq, hash)| Anchored { seq, hash }),
        Err(error) => {
            note(&format!(
                "the state database does not tell where the log ended: {error}"
            ));
            None
        }
    }
}

fn verification_key(path: &Path) -> Result<VerificationKey, CliError> {
    let read = || -> anyhow::Result<VerificationKey> {
        let text = if path == Path::new("-") {
            io::read_to_string(io::stdin())
        } else {
            std::fs::read_to_string(path)
        };
        let text = text.context("it cannot be read")?;
        VerificationKey::parse(&text).context("it holds no key that `audit key export` printed")
    };
    read().map_err(|error| CliError::Usage(format!("--key {}: {error:#}", path.display())))
}

fn parse_anchor(text: &str) -> Option<Anchored> {
    let (seq, digits) = text.split_once(':')?;
    let mut hash = [0; 32];
    hex::decode_to_slice(digits, &mut hash).ok()?;
    Some(Anchored {
        seq: seq.parse().ok()?,
        hash,
    })
}

fn as_json(path: &Path, report: &VerifyReport) -> serde_json::Value {
    let open: Vec<_> = report
        .open_intents
        .iter()
        .map(|open| json!({ "seq": open.seq, "operation": open.operation, "action": open.action }))
        .collect();
    let warnings: Vec<String> = report.warnings.iter().map(warning).collect();
    json!({
        "path": path.display().to_string(), "ok": true, "files": report.files, "records": report.records,
        "firstSeq": report.first_seq, "lastSeq": report.last_seq, "lastHash": report.last_hash,
        "prunedUpTo": report.pruned_up_to, "checkpoints": report.checkpoints, "macsChecked": report.macs_checked,
        "verificationKeyBeside": report.verification_key_beside,
        "publicKey": report.public_key.as_ref().map(ToString::to_string),
        "openIntents": open, "warnings": warnings,
    })
}

fn told(path: &Path, report: &VerifyReport) -> Vec<String> {
    let missing = match report.pruned_up_to {
        Some(seq) => format!("none missing, pruned up to {seq}"),
        None => "none missing".to_owned(),
    };
    let files = match report.files {
        1 => String::new(),
        files => format!(" and {} files before it", files - 1),
    };
    let mut lines = vec![
        format!(
            "{} records, none changed, {missing}: {}{files}",
            report.records,
            path.display()
        ),
        format!("last      {}:{}", report.last_seq, report.last_hash),
        format!(
            "seals     {}",
            match (report.macs_checked, report.verification_key_beside) {
                (false, _) =>
                    "not checked: --key takes the verification key that `audit key export` printed",
                (true, false) => "all checked",
                (true, true) =>
                    "all checked, with the key that still stands beside the log: `audit key export` takes it away",
            }
        ),
    ];
    let key = report.public_key.as_ref();
    lines.push(format!(
        "signed    {} checkpoints, by {}",
        report.checkpoints,
        key.map_or("no key".to_owned(), ToString::to_string)
    ));
    lines.extend(report.open_intents.iter().map(|open| {
        format!(
            "open      {} {} ({})",
            open.seq, open.action, open.operation
        )
    }));
    let warnings = report.warnings.iter();
    lines.extend(warnings.map(|found| format!("warning   {}", warning(found))));
    lines
}

fn warning(warning: &audit::Warning) -> String {
    match warning {
        audit::Warning::ClockRegress { seq } => {
            format!("ClockRegress: the clock went back before record {seq}")
        }
        audit::Warning::Gap { seq } => {
            format!("Gap: records were lost before record {seq}, and the log says so itself")
        }
        audit::Warning::StartsAt { seq } => {
            format!("StartsAt: the first record is {seq}, as --from says; nothing is known of those before")
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

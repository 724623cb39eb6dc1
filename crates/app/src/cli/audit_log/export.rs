//! `audit export`.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use audit::export::Format;

use super::{
    super::EXIT_OK, CliError, Context, arguments::ExportArguments, filter, log, note, records,
};
use crate::audit_sinks;

pub(super) fn run(context: &Context, arguments: &ExportArguments) -> Result<u8, CliError> {
    let path = log(context, arguments.path.as_ref())?;
    let filter = filter(context, &arguments.filter)?;
    let format = Format::named(&arguments.format)
        .ok_or_else(|| CliError::Usage("--format is one of jsonl, ocsf, cef".to_owned()))?;
    let host = audit_sinks::host();
    let lines = records(&path, &filter)?;
    let Some(place) = &arguments.output else {
        let mut out = BufWriter::new(io::stdout().lock());
        for line in lines {
            let line = format.render(&line?, &host);
            match writeln!(out, "{line}") {
                // A reader that has seen enough is no error.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(EXIT_OK),
                written => written.map_err(CliError::Terminal)?,
            }
        }
        return match out.flush() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(EXIT_OK),
            flushed => flushed.map(|()| EXIT_OK).map_err(CliError::Terminal),
        };
    };
    let failed = |source| CliError::File {
        path: place.clone(),
        source,
    };
    let mut out = BufWriter::new(make(place).map_err(failed)?);
    let mut count = 0_u64;
    for line in lines {
        writeln!(out, "{}", format.render(&line?, &host)).map_err(failed)?;
        count += 1;
    }
    let file = out
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    note(&format!("{count} records in {}", place.display()));
    Ok(EXIT_OK)
}

/// A file that was not there before, so that no export overwrites another.
fn make(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

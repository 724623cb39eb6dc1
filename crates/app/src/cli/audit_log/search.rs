//! `audit search`.

use super::{
    super::{EXIT_OK, EXIT_REFUSED, output::note},
    CliError, Context,
    arguments::SearchArguments,
    filter, log, records, show,
};

pub(super) fn run(context: &Context, arguments: &SearchArguments) -> Result<u8, CliError> {
    let path = log(context, arguments.path.as_ref())?;
    let filter = filter(context, &arguments.filter)?;
    let mut found = false;
    for line in records(&path, &filter)? {
        show::print(context, &line?)?;
        found = true;
    }
    if found {
        return Ok(EXIT_OK);
    }
    note(&format!("no record in {} fits", path.display()));
    Ok(EXIT_REFUSED)
}

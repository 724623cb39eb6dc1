//! `audit tail`.

use std::{collections::VecDeque, path::Path, time::Duration};

use audit::{
    export::{Filter, Line},
    sinks::Follow,
};

use super::{
    super::EXIT_OK, CliError, Context, arguments::TailArguments, failed, filter, log, note,
    records, show,
};

/// How often a log that is followed is looked at.
const POLL: Duration = Duration::from_millis(200);

pub(super) fn run(context: &Context, arguments: &TailArguments) -> Result<u8, CliError> {
    let path = log(context, arguments.path.as_ref())?;
    let filter = filter(context, &arguments.filter)?;
    let keep = usize::try_from(arguments.lines).unwrap_or(usize::MAX);
    let mut last = VecDeque::new();
    // Where following begins: behind what was read and is durable, whatever of it is shown. What is not durable yet is not
    // looked for, nor shown twice.
    let (mut seq, mut hash, mut shown) = (0, String::new(), 0);
    let durable = audit::durable_seq(&path).unwrap_or(u64::MAX);
    let everything = Filter::default();
    for line in records(&path, &everything)? {
        let line = line?;
        shown = line.record.seq;
        if shown <= durable {
            seq = shown;
            hash.clone_from(&line.record.hash);
        }
        if filter.takes(&line) {
            last.push_back(line);
            if last.len() > keep {
                last.pop_front();
            }
        }
    }
    last.iter()
        .try_for_each(|line| show::print(context, line))?;
    if arguments.follow {
        follow(
            context,
            &path,
            &filter,
            Follow::new(&path, seq, &hash, None),
            shown,
        )?;
    }
    Ok(EXIT_OK)
}

/// Until it is interrupted.
fn follow(
    context: &Context,
    path: &Path,
    filter: &Filter,
    mut follow: Follow,
    shown: u64,
) -> Result<(), CliError> {
    loop {
        let batch = follow.read().map_err(|error| failed(path, error))?;
        if let Some(notice) = &batch.notice {
            note(&notice.to_string());
        }
        let wanted = |line: &&Line| line.record.seq > shown && filter.takes(line);
        for line in batch.lines.iter().filter(wanted) {
            show::print(context, line)?;
        }
        if batch.lines.is_empty() {
            std::thread::sleep(POLL);
        }
    }
}

//! Where the words of a prompt come from: the command line, a file, standard input.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::cli::{CliError, arguments::WordsArguments};

/// What stands for standard input.
const STDIN: &str = "-";
/// Longest prompt, bytes: `execute_in_session` takes no longer one.
const MAX_PROMPT_BYTES: u64 = 256 * 1024;

/// The words of a prompt.
///
/// # Errors
/// When there are none, too many, or they are not UTF-8.
pub(in crate::cli) fn words(arguments: &WordsArguments) -> Result<String, CliError> {
    let text = match (&arguments.prompt, &arguments.prompt_file) {
        (Some(text), _) if text != STDIN => text.clone(),
        (None, Some(path)) if path != Path::new(STDIN) => {
            let opened = File::open(path);
            let read = opened.and_then(read);
            read.map_err(|source| CliError::File {
                path: path.clone(),
                source,
            })?
        }
        _ => read(io::stdin()).map_err(CliError::Terminal)?,
    };
    if text.trim().is_empty() {
        return Err(CliError::Usage("the prompt is empty".to_owned()));
    }
    if text.len() as u64 > MAX_PROMPT_BYTES {
        return Err(CliError::Usage(format!(
            "the prompt is longer than {MAX_PROMPT_BYTES} bytes; put what is long into a file of the project"
        )));
    }
    Ok(text)
}

fn read(from: impl Read) -> io::Result<String> {
    let mut text = String::new();
    from.take(MAX_PROMPT_BYTES + 1).read_to_string(&mut text)?;
    Ok(text)
}

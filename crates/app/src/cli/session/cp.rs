//! `session cp`

use std::path::{Path, PathBuf};

use mcp::reply::TransferReply;
use serde_json::json;

use super::{CliError, Client, Context, EXIT_OK, read, resolve::resolve};
use crate::config::units::{counted, counted_as, format_size};

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Here(&'a str),
    Inside { session: &'a str, path: &'a str },
}

impl<'a> Place<'a> {
    /// A colon before any slash separates session and path, as in `docker cp`.
    fn parse(text: &'a str) -> Self {
        match text.split_once(':') {
            Some((session, path)) if !session.is_empty() && !session.contains('/') => {
                Place::Inside { session, path }
            }
            _ => Place::Here(text),
        }
    }
}

pub(super) async fn run(
    context: &Context,
    source: &str,
    destination: &str,
) -> Result<u8, CliError> {
    let (session, direction, from, to, offered) = match (
        Place::parse(source),
        Place::parse(destination),
    ) {
        (Place::Here(here), Place::Inside { session, path }) => {
            let from = existing(here)?;
            let to = into_directory(path, path.ends_with('/'), name_of(&from)?);
            let offered = offered_for(&from);
            (session, "to_container", from, to, offered)
        }
        (Place::Inside { session, path }, Place::Here(here)) => {
            let directory = here.ends_with('/') || Path::new(here).is_dir();
            let to = into_directory(
                &absolute(here)?.to_string_lossy(),
                directory,
                name_of(Path::new(path))?,
            );
            let offered = offered_for(&to);
            (session, "from_container", PathBuf::from(path), to, offered)
        }
        (Place::Here(_), Place::Here(_)) | (Place::Inside { .. }, Place::Inside { .. }) => {
            let sentence = "one side must be SESSION:PATH and the other a path here; write ./name for a local name with \
                            a colon";
            return Err(CliError::Usage(sentence.to_owned()));
        }
    };
    let client = Client::connect(context, offered).await?;
    let session_id = resolve(&client, session).await?;
    let call = json!({ "sessionId": session_id, "direction": direction, "sourcePath": from, "destPath": to });
    let content = client.call("transfer_files", call).await?;
    if context.output.json {
        context.output.json(&content)?;
    } else {
        let reply: TransferReply = read("transfer_files", content)?;
        let size = format_size(reply.bytes);
        context.output.line(&format!(
            "{}, {}, {size}",
            counted(reply.files, "file"),
            counted_as(reply.directories, "directory", "directories")
        ))?;
    }
    Ok(EXIT_OK)
}

fn existing(text: &str) -> Result<PathBuf, CliError> {
    Path::new(text)
        .canonicalize()
        .map_err(|source| CliError::File {
            path: PathBuf::from(text),
            source,
        })
}

/// The absolute path with the links of its parent resolved; its last part need not exist.
fn absolute(text: &str) -> Result<PathBuf, CliError> {
    let failed = |source| CliError::File {
        path: PathBuf::from(text),
        source,
    };
    let path = Path::new(text);
    if path.exists() {
        return path.canonicalize().map_err(failed);
    }
    let path = std::path::absolute(path).map_err(failed)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize().map_err(failed)?.join(name)),
        _ => Ok(path),
    }
}

fn name_of(path: &Path) -> Result<&std::ffi::OsStr, CliError> {
    path.file_name()
        .ok_or_else(|| CliError::Usage(format!("{} has no name to copy it under", path.display())))
}

fn into_directory(path: &str, directory: bool, name: &std::ffi::OsStr) -> PathBuf {
    let path = if path.is_empty() {
        Path::new("/workspace")
    } else {
        Path::new(path)
    };
    if directory || path == Path::new("/workspace") {
        path.join(name)
    } else {
        path.to_path_buf()
    }
}

/// What is offered to the server for this copy: the directory itself, else the one that holds the file.
fn offered_for(path: &Path) -> Vec<PathBuf> {
    let directory = if path.is_dir() {
        Some(path)
    } else {
        path.parent()
    };
    directory.map(Path::to_path_buf).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_before_any_slash_names_a_session() {
        assert_eq!(
            Place::parse("app:/tmp/x"),
            Place::Inside {
                session: "app",
                path: "/tmp/x"
            }
        );
        assert_eq!(
            Place::parse("app:x:y"),
            Place::Inside {
                session: "app",
                path: "x:y"
            }
        );
        for here in ["./a:b", "/a:b", ":x", "plain", "."] {
            assert_eq!(Place::parse(here), Place::Here(here));
        }
    }

    #[test]
    fn a_directory_as_destination_gets_the_copy_inside() {
        let into = |path, directory| into_directory(path, directory, "data".as_ref());
        assert_eq!(into("/tmp/", true), Path::new("/tmp/data"));
        assert_eq!(into("/tmp/other", false), Path::new("/tmp/other"));
        assert_eq!(into("", false), Path::new("/workspace/data"));
    }
}

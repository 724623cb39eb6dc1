//! `image unpack`

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use sandbox_docker::images::{ImageError, Progress, Unpacked, unpack_file};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{images, other_images, refused, steps::Steps};
use crate::{
    cli::{CliError, Context, EXIT_OK, arguments::UnpackArguments},
    config::{make_private_directory, units::format_size},
    server::stop_on_signals,
};

/// What `--json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UnpackReply {
    directory: PathBuf,
    digest: String,
    /// It stood there already.
    was_there: bool,
    entries: u64,
    /// Devices, pipes and sockets of the image.
    left_out: u64,
    size_bytes: u64,
}

pub(super) async fn run(context: &Context, arguments: &UnpackArguments) -> Result<u8, CliError> {
    let stop = stop_on_signals().map_err(CliError::Runtime)?;
    let place = place(context)?;
    let mut steps = Steps::new();
    let to = arguments.to.as_deref().map(absolute).transpose()?;
    to.as_deref().map_or(Ok(()), has_place)?;
    let archive = match arguments.source.as_deref() {
        Some(source) if is_file(source) => open(Path::new(source))?,
        source => {
            let name = source.unwrap_or(&context.config.image);
            steps.tell(Progress::Step(&format!("read {name} from the engine")));
            let images = if *name == context.config.image {
                images(context).await?
            } else {
                other_images(context).await?
            };
            images.fetch(name, &place, &stop).await.map_err(refused)?
        }
    };
    steps.tell(Progress::Step("check and unpack its layers"));
    let unpacked = unpack(archive, to, place, stop).await?;
    steps.done();
    drop(steps);
    tell(context, unpacked)?;
    Ok(EXIT_OK)
}

/// Where unpacked images stand: in the private state directory.
fn place(context: &Context) -> Result<PathBuf, CliError> {
    let state = &context.config.paths.state_dir;
    let uid = context.environment.uid();
    make_private_directory(state, uid)?;
    let place = state.join("images");
    make_private_directory(&place, uid)?;
    Ok(place)
}

fn is_file(source: &str) -> bool {
    let endings = [".tar", ".tar.gz", ".tgz"];
    let looks_so =
        source.starts_with(['/', '.']) || endings.iter().any(|end| source.ends_with(end));
    looks_so || Path::new(source).is_file()
}

fn open(path: &Path) -> Result<File, CliError> {
    File::open(path).map_err(|source| CliError::File {
        path: path.to_owned(),
        source,
    })
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|source| CliError::File {
        path: path.to_owned(),
        source,
    })
}

/// Looked at before an image is read, which takes long.
fn has_place(to: &Path) -> Result<(), CliError> {
    let parent = to.parent().unwrap_or(to);
    match parent.is_dir() {
        true => Ok(()),
        false => Err(CliError::Usage(format!(
            "--to {}: the directory {} must exist; the image gets one of its own in it",
            to.display(),
            parent.display()
        ))),
    }
}

async fn unpack(
    archive: File,
    to: Option<PathBuf>,
    place: PathBuf,
    stop: CancellationToken,
) -> Result<Unpacked, CliError> {
    let work =
        tokio::task::spawn_blocking(move || unpack_file(archive, to.as_deref(), &place, &stop));
    let done = work
        .await
        .map_err(|error| CliError::Runtime(std::io::Error::other(error)))?;
    done.map_err(|error| refused(ImageError::Unpack(error)))
}

fn tell(context: &Context, unpacked: Unpacked) -> Result<(), CliError> {
    if context.output.json {
        return context.output.json(&UnpackReply {
            directory: unpacked.directory,
            digest: unpacked.digest,
            was_there: unpacked.was_there,
            entries: unpacked.entries,
            left_out: unpacked.left_out,
            size_bytes: unpacked.size_bytes,
        });
    }
    let directory = unpacked.directory.display();
    if unpacked.was_there {
        context
            .output
            .line(&format!("{directory} is there already"))?;
    } else {
        context.output.line(&format!(
            "unpacked {} into {directory}: {} entries, {}; {} devices and the like left out",
            unpacked.digest,
            unpacked.entries,
            format_size(unpacked.size_bytes),
            unpacked.left_out
        ))?;
    }
    context.output.line(&format!(
        "for the configuration: native_root = \"{directory}\""
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_needs_its_parent_before_anything_is_read() {
        let scratch = tempfile::tempdir().unwrap();
        assert!(has_place(&scratch.path().join("one")).is_ok());
        let missing = has_place(&scratch.path().join("roots/one")).unwrap_err();
        assert_eq!(missing.exit_code(), crate::cli::EXIT_USAGE);
    }
}

//! `image …`: images for sessions, made, listed and unpacked. These commands speak to the engine themselves; no server
//! is needed, and none ever makes these calls.

pub(super) mod build;
mod list;
mod steps;
mod unpack;

use mcp::reply::ErrorBody;
use model::OwnerId;
use sandbox_docker::{
    DockerConfig,
    images::{ImageError, ImageRules, Images},
};

use super::{CliError, Context, arguments::ImageCommand, block_on};
use crate::backends::engines::{self, docker_config};

pub(super) fn run(context: &Context, command: ImageCommand) -> Result<u8, CliError> {
    match command {
        ImageCommand::Build(arguments) => block_on(build::run(context, &arguments)),
        ImageCommand::List => block_on(list::run(context)),
        ImageCommand::Unpack(arguments) => block_on(unpack::run(context, &arguments)),
    }
}

/// The engine's images.
pub(super) async fn images(context: &Context) -> Result<Images, CliError> {
    Images::new(&engine(context).await).map_err(refused)
}

/// The same for an image that sessions are not made of: it is neither pinned nor too old.
async fn other_images(context: &Context) -> Result<Images, CliError> {
    let any = DockerConfig {
        image_rules: ImageRules::default(),
        ..engine(context).await
    };
    Images::new(&any).map_err(refused)
}

/// Images belong to the engine, not to an installation: to the one that sessions would be made on.
async fn engine(context: &Context) -> DockerConfig {
    let nobody = OwnerId::from_bytes([0; 8]);
    let all = docker_config(&context.config, &context.config.paths.state_dir, nobody);
    engines::carrying(all).await
}

/// The error as every other refusal, with its code and hint.
pub(super) fn refused(error: ImageError) -> CliError {
    let message = chain(&error);
    CliError::Refused(ErrorBody {
        code: error.reason().code().to_owned(),
        message,
        hint: error.hint(),
        field: None,
        retry_after_ms: None,
    })
}

/// The error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let words: Vec<_> = causes.map(ToString::to_string).collect();
    words.join(": ")
}

//! `image build`

use std::time::Instant;

use ::agent::install::Store;
use sandbox_docker::images::{
    AgentLayer, Base, BuildOrder, BuiltImage, DEFAULT_BASE, ImageError, Images,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{chain, images, refused, steps::Steps};
use crate::{
    agent_program::{chosen, describe},
    cli::{CliError, Context, EXIT_OK, VERSION, agent, arguments::BuildArguments, output::note},
    config::units::format_size,
    server::stop_on_signals,
};

/// What `--json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BuildReply {
    name: String,
    id: String,
    base: String,
    size_bytes: u64,
    elapsed_ms: u64,
}

pub(super) async fn run(context: &Context, arguments: &BuildArguments) -> Result<u8, CliError> {
    let stop = stop_on_signals().map_err(CliError::Runtime)?;
    let began = Instant::now();
    let order = BuildOrder {
        tag: arguments
            .tag
            .clone()
            .unwrap_or_else(|| context.config.image.clone()),
        base: base(arguments),
        version: VERSION.to_owned(),
        agent: arguments.with_agent.then(|| agent(context)).transpose()?,
    };
    let mut steps = Steps::new();
    let built = images(context)
        .await?
        .build(&order, &stop, &mut |progress| steps.tell(progress))
        .await
        .map_err(refused)?;
    steps.done();
    drop(steps);
    tell(context, built, began)?;
    Ok(EXIT_OK)
}

/// The installed Claude Code, read once more: what is in an image is not looked at again.
fn agent(context: &Context) -> Result<AgentLayer, CliError> {
    let state = &context.config.paths.state_dir;
    let found = chosen(&context.config.agent, state).map_err(agent::refused)?;
    let installed = found.ok_or_else(|| agent::refused(agent::none_installed()))?;
    Store::new(state)
        .verify(&installed)
        .map_err(agent::refused)?;
    note(
        "Claude Code is proprietary: keep an image that holds it to yourself, and publish it nowhere",
    );
    Ok(AgentLayer {
        program: installed.program(),
        description: describe(&installed),
    })
}

fn base(arguments: &BuildArguments) -> Base {
    if arguments.bootstrap {
        return of_packages();
    }
    Base::Image {
        name: arguments.base.clone(),
        fresh: arguments.pull,
    }
}

fn of_packages() -> Base {
    Base::Bootstrap {
        scratch: std::env::temp_dir(),
    }
}

fn tell(context: &Context, built: BuiltImage, began: Instant) -> Result<(), CliError> {
    let elapsed = began.elapsed();
    if context.config.image == built.name
        && let Some(pinned) = context
            .config
            .image_digest
            .as_ref()
            .filter(|pin| **pin != built.id)
    {
        note(&format!(
            "image_digest pins {pinned}: sessions are refused until it says {}",
            built.id
        ));
    }
    if context.output.json {
        return context.output.json(&BuildReply {
            name: built.name,
            id: built.id,
            base: built.base,
            size_bytes: built.size_bytes,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        });
    }
    context.output.line(&format!(
        "built {} in {:.1} s: {}, {}, on {}",
        built.name,
        elapsed.as_secs_f64(),
        built.id,
        format_size(built.size_bytes),
        built.base
    ))
}

/// The configured image, built if it is missing: on a base from its registry, else from Debian's packages. What was done.
///
/// # Errors
/// When neither can be had.
pub(in crate::cli) async fn provide(context: &Context) -> Result<String, CliError> {
    let images = images(context).await?;
    let name = &context.config.image;
    let listed = images.list(name).await.map_err(refused)?;
    if listed.iter().any(|image| image.is_default) {
        return Ok(format!("the engine has {name}"));
    }
    let stop = stop_on_signals().map_err(CliError::Runtime)?;
    let on_base = Base::Image {
        name: DEFAULT_BASE.to_owned(),
        fresh: false,
    };
    let built = match make(&images, name, on_base, &stop).await {
        Err(error @ ImageError::Pull { .. }) => {
            note(&format!(
                "{}; the image is made of Debian packages instead",
                chain(&error)
            ));
            make(&images, name, of_packages(), &stop).await
        }
        built => built,
    };
    let built = built.map_err(refused)?;
    Ok(format!("built {} on {}", built.name, built.base))
}

async fn make(
    images: &Images,
    name: &str,
    base: Base,
    stop: &CancellationToken,
) -> Result<BuiltImage, ImageError> {
    let order = BuildOrder {
        tag: name.to_owned(),
        base,
        version: VERSION.to_owned(),
        agent: None,
    };
    let mut steps = Steps::new();
    images
        .build(&order, stop, &mut |progress| steps.tell(progress))
        .await
}

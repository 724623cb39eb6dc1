//! `image build`: under a name of its own first; only what is whole gets the name that was asked for.
//!
//! ```text
//! find or fetch the base ─► build on it ─┐
//!                                        ├─► look at it ─► name it ─► take the first name away
//! mmdebstrap ─► import ──────────────────┘                              (also after every failure)
//! ```
//!
//! Before it is looked at, Claude Code goes into it where that is asked for (`agent_layer`).

use std::{collections::HashMap, path::PathBuf};

use bytes::Bytes;
use futures::stream;
use jiff::Timestamp;
use sandbox::BackendError;
use tokio_util::sync::CancellationToken;

use super::{
    ImageError, Images, agent_layer, bootstrap,
    name::{as_tag, is_digest, is_image_name, to_pull},
    recipe,
    rules::volumes,
};
use crate::creation::step;

/// What an image is made on where nothing else is named.
pub const DEFAULT_BASE: &str = "debian:bookworm-slim";
/// Names of images that are not whole yet begin with this.
const UNFINISHED: &str = "claude-code-mcp-unfinished";
/// A base that has everything is built on without a network: nobody's package scripts run.
const NO_NETWORK: &str = "none";
/// The engine's own choice.
const USUAL_NETWORK: &str = "default";
/// Lines of a failed build that are told.
pub(super) const LAST_LINES: usize = 12;

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// An image that the engine has, or fetches.
    Image {
        /// Its name.
        name: String,
        /// Ask the registry for a newer one although the engine has it.
        fresh: bool,
    },
    /// Packages of Debian, by the sources of this machine.
    Bootstrap {
        /// Where mmdebstrap may make its directories.
        scratch: PathBuf,
    },
}

/// The Claude Code that goes into an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentLayer {
    /// Its program on this machine.
    pub program: PathBuf,
    /// Its version, as far as it is known, and its hash: for the label.
    pub description: String,
}

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildOrder {
    /// The name that it gets.
    pub tag: String,
    /// What it is made of.
    pub base: Base,
    /// The version of the program, for its label.
    pub version: String,
    /// Also this, where every session finds it. Such an image is not for others.
    pub agent: Option<AgentLayer>,
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// What it was made of.
    pub base: String,
    /// Its size, bytes.
    pub size_bytes: u64,
}

/// What is told while it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'word> {
    /// A step begins.
    Step(&'word str),
    /// A word of the step that goes on.
    Detail(&'word str),
}

/// Hears of progress.
pub type Tell<'teller> = &'teller mut (dyn FnMut(Progress<'_>) + Send);

impl Images {
    /// Builds an image and gives it its name, which is taken from the image that bore it.
    ///
    /// # Errors
    /// See [`ImageError`]. After each, and when `stop` is cancelled, nothing is left but a base that was fetched.
    pub async fn build(
        &self,
        order: &BuildOrder,
        stop: &CancellationToken,
        tell: Tell<'_>,
    ) -> Result<BuiltImage, ImageError> {
        let name = as_tag(&order.tag).ok_or_else(|| ImageError::Name(order.tag.clone()))?;
        let unfinished = unfinished_name()?;
        let made = self.make(order, &unfinished, stop, tell).await;
        let made = match (made, &order.agent) {
            (Ok(base), Some(agent)) => tokio::select! {
                put = self.put_agent(&unfinished, agent, tell) => put.map(|()| base),
                () = stop.cancelled() => Err(ImageError::Interrupted),
            },
            (made, _) => made,
        };
        let named = match made {
            Ok(base) => self.finish(&unfinished, &name, base, tell).await,
            Err(error) => Err(error),
        };
        let untagged = self.engine.untag(&unfinished).await;
        let built = named?;
        untagged?;
        Ok(built)
    }

    /// Makes it under that name; what it was made of.
    async fn make(
        &self,
        order: &BuildOrder,
        name: &str,
        stop: &CancellationToken,
        tell: Tell<'_>,
    ) -> Result<String, ImageError> {
        match &order.base {
            Base::Bootstrap { scratch } => {
                let base = bootstrap::SUITE_NAME.to_owned();
                let labels = recipe::labels(&order.version, &base, Timestamp::now());
                bootstrap::import(&self.engine, name, &labels, scratch, stop, tell).await?;
                Ok(base)
            }
            Base::Image { name: base, fresh } => {
                let work = async {
                    self.provide(base, *fresh, tell).await?;
                    self.build_on(base, name, &order.version, tell).await
                };
                tokio::select! {
                    built = work => built.map(|()| base.clone()),
                    // The engine ends a build whose asker is gone.
                    () = stop.cancelled() => Err(ImageError::Interrupted),
                }
            }
        }
    }

    /// The engine has the base afterwards.
    async fn provide(&self, base: &str, fresh: bool, tell: Tell<'_>) -> Result<(), ImageError> {
        let to_pull = to_pull(base);
        if !is_image_name(base) || (to_pull.is_none() && !is_digest(base)) {
            return Err(ImageError::Name(base.to_owned()));
        }
        if !fresh && self.engine.image(base).await?.is_some() {
            tell(Progress::Step(&format!("use {base}, which the engine has")));
            return Ok(());
        }
        let to_pull = to_pull.ok_or_else(|| ImageError::Missing(base.to_owned()))?;
        tell(Progress::Step(&format!(
            "fetch {to_pull} from its registry"
        )));
        let mut words = |word: &str| tell(Progress::Detail(word));
        let pulled = self.engine.pull(&to_pull, &mut words).await;
        pulled.map_err(|source| {
            // No engine at all is no fault of the registry.
            if matches!(source, BackendError::Unavailable { .. }) {
                return ImageError::Engine(source);
            }
            ImageError::Pull {
                base: to_pull,
                source,
            }
        })
    }

    async fn build_on(
        &self,
        base: &str,
        name: &str,
        version: &str,
        tell: Tell<'_>,
    ) -> Result<(), ImageError> {
        let found = self.engine.image(base).await?;
        let found = found.ok_or_else(|| ImageError::Missing(base.to_owned()))?;
        let declared = volumes(&found);
        if !declared.is_empty() {
            return Err(ImageError::Volumes {
                base: base.to_owned(),
                volumes: declared.join(", "),
            });
        }
        // By its id, so that nobody can put another one in its place meanwhile.
        let from = found.id.as_deref().unwrap_or(base);
        let user = found
            .config
            .as_ref()
            .and_then(|config| config.user.as_deref());
        let labels = recipe::labels(version, base, Timestamp::now());
        let mut last = LastLines::default();
        for network in [NO_NETWORK, USUAL_NETWORK] {
            tell(Progress::Step(&match network {
                NO_NETWORK => "build on it, without a network".to_owned(),
                _ => format!(
                    "build on it, with {} from its packages",
                    recipe::PACKAGES.join(", ")
                ),
            }));
            let mut words = |word: &str| {
                last.push(word);
                tell(Progress::Detail(word));
            };
            let context =
                context(from, user, network != NO_NETWORK, &labels).map_err(|source| {
                    ImageError::Step {
                        step: "write the build's context",
                        source,
                    }
                })?;
            let context = stream::once(async { Ok(context) });
            let built = self.engine.build(name, context, network, &mut words);
            match built.await {
                Ok(()) => return Ok(()),
                Err(error) if network == NO_NETWORK && is_incomplete(&error) => {}
                Err(source @ BackendError::Step { .. }) => {
                    return Err(ImageError::Build {
                        base: base.to_owned(),
                        last: last.text(),
                        source,
                    });
                }
                Err(error) => return Err(ImageError::Engine(error)),
            }
        }
        Err(ImageError::Missing(name.to_owned()))
    }

    /// Puts Claude Code into the image of that name.
    async fn put_agent(
        &self,
        name: &str,
        agent: &AgentLayer,
        tell: Tell<'_>,
    ) -> Result<(), ImageError> {
        tell(Progress::Step(&format!(
            "put Claude Code {} into it",
            agent.description
        )));
        let found = self.engine.image(name).await?;
        let from = found
            .and_then(|image| image.id)
            .ok_or_else(|| ImageError::Missing(name.to_owned()))?;
        let context = agent_layer::context(&from, agent).await;
        let context = context.map_err(|source| ImageError::Step {
            step: "read Claude Code's program",
            source,
        })?;
        let mut last = LastLines::default();
        let mut words = |word: &str| {
            last.push(word);
            tell(Progress::Detail(word));
        };
        let built = self.engine.build(name, context, NO_NETWORK, &mut words);
        match built.await {
            Err(source @ BackendError::Step { .. }) => Err(ImageError::Build {
                base: from,
                last: last.text(),
                source,
            }),
            built => built.map_err(ImageError::Engine),
        }
    }

    /// What is whole gets its name.
    async fn finish(
        &self,
        unfinished: &str,
        name: &str,
        base: String,
        tell: Tell<'_>,
    ) -> Result<BuiltImage, ImageError> {
        tell(Progress::Step(&format!("name it {name}")));
        let image = self.engine.image(unfinished).await?;
        let image = image.ok_or_else(|| ImageError::Missing(unfinished.to_owned()))?;
        let rules = super::ImageRules::default();
        let id = rules.admit(unfinished, &image, Timestamp::now())?;
        self.engine.tag(&id, name).await?;
        Ok(BuiltImage {
            name: name.to_owned(),
            id,
            base,
            size_bytes: image
                .size
                .and_then(|size| u64::try_from(size).ok())
                .unwrap_or_default(),
        })
    }
}

fn unfinished_name() -> Result<String, ImageError> {
    let id = model::SessionId::random()
        .map_err(|error| step("make a random name", std::io::Error::other(error)))?;
    Ok(format!("{UNFINISHED}:{}", hex::encode(&id.as_bytes()[..8])))
}

/// The install script said that it needs a network.
fn is_incomplete(error: &BackendError) -> bool {
    let BackendError::Step { source, .. } = error else {
        return false;
    };
    let said = format!("returned a non-zero code: {}", recipe::NEEDS_NETWORK);
    source.to_string().contains(&said)
}

/// A tar with the Dockerfile. On a base whose user is root the first step is the only one that can fail, so that a failed
/// build leaves no layer; on another one an empty layer may stay, which has no name and which the engine prunes.
fn context(
    from: &str,
    user: Option<&str>,
    network: bool,
    labels: &HashMap<String, String>,
) -> std::io::Result<Bytes> {
    let is_root = user.is_none_or(|user| ["", "0", "root", "0:0", "root:root"].contains(&user));
    let become_root = if is_root { "" } else { "USER 0:0\n" };
    let script = serde_json::to_string(&["/bin/sh", "-c", &recipe::install_script(network)])?;
    let rest = recipe::instructions(labels).join("\n");
    let dockerfile = format!("FROM {from}\n{become_root}RUN {script}\n{rest}\n");
    let mut header = tar::Header::new_gnu();
    header.set_size(dockerfile.len() as u64);
    header.set_mode(0o644);
    let mut context = tar::Builder::new(Vec::new());
    context.append_data(&mut header, "Dockerfile", dockerfile.as_bytes())?;
    Ok(context.into_inner()?.into())
}

/// The end of what something said.
#[derive(Default)]
pub(super) struct LastLines(std::collections::VecDeque<String>);

impl LastLines {
    pub(super) fn push(&mut self, line: &str) {
        if self.0.len() == LAST_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
    }

    pub(super) fn text(&self) -> String {
        let lines: Vec<_> = self.0.iter().map(String::as_str).collect();
        lines.join("\n")
    }
}

//! Images for sessions: made here, listed, pinned, and unpacked for the embedded runtime.
//!
//! Reading order: [`Images`] (the commands' verbs), `build` (on a base that the engine has or fetches), `bootstrap` (from
//! Debian's packages), `recipe` (what both make), `list`, `rules` (which image a session may be made of), `unpack`.

mod agent_layer;
mod bootstrap;
mod build;
mod error;
mod list;
mod name;
mod recipe;
mod rules;
mod unpack;

use crate::{config::DockerConfig, engine::Engine};

pub use build::{AgentLayer, Base, BuildOrder, BuiltImage, DEFAULT_BASE, Progress, Tell};
pub use error::ImageError;
pub use list::ListedImage;
pub use name::is_digest;
pub(crate) use name::is_image_name;
pub use rules::ImageRules;
pub use unpack::{UnpackError, Unpacked, unpack_file};

/// The engine's images.
pub struct Images {
    engine: Engine,
    rules: ImageRules,
}

impl Images {
    /// Asks the engine nothing yet.
    ///
    /// # Errors
    /// When the engine is of a kind that cannot be used.
    pub fn new(config: &DockerConfig) -> Result<Self, ImageError> {
        Ok(Images {
            engine: Engine::new(config.address()?),
            rules: config.image_rules.clone(),
        })
    }
}

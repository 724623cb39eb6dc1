//! `image list`: the images that this tool made, and the one that sessions are made of.

use std::time::Duration;

use bollard::models::ImageInspect;
use jiff::Timestamp;
use sandbox::BackendError;

use super::{
    ImageError, Images,
    recipe::{BASE_LABEL, IMAGE_LABEL},
    rules::{ImageRules, age},
};

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedImage {
    /// All names that it has; none when another image took its last one.
    pub names: Vec<String>,
    /// Its id.
    pub id: String,
    /// Its size, bytes.
    pub size_bytes: u64,
    /// When it was made, as the engine says it (RFC 3339).
    pub created: Option<String>,
    /// How long ago that is.
    pub age: Option<Duration>,
    /// What it was made of, if it says so.
    pub base: Option<String>,
    /// The version of this tool that made it, if it did.
    pub made_by: Option<String>,
    /// Sessions are made of it.
    pub is_default: bool,
    /// Why no session can be made of it.
    pub obstacle: Option<String>,
}

impl Images {
    /// All images of this tool, and the configured one, which comes first.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn list(&self, configured: &str) -> Result<Vec<ListedImage>, ImageError> {
        let default = self.find(configured).await?;
        let default_id = default.as_ref().and_then(|image| image.id.clone());
        let mut ids: Vec<String> = default_id.iter().cloned().collect();
        for image in self.engine.images(IMAGE_LABEL).await? {
            if !ids.contains(&image.id) {
                ids.push(image.id);
            }
        }
        let mut listed = Vec::new();
        for id in ids {
            // One that went meanwhile is none.
            if let Some(image) = self.engine.image(&id).await? {
                listed.push(self.describe(id, &image, &default_id, configured));
            }
        }
        Ok(listed)
    }

    /// The image of that name, also where only its pinned digest leads to it.
    pub(super) async fn find(&self, name: &str) -> Result<Option<ImageInspect>, ImageError> {
        Ok(crate::creation::look_up(&self.engine, &self.rules, name).await?)
    }

    fn describe(
        &self,
        id: String,
        image: &ImageInspect,
        default_id: &Option<String>,
        configured: &str,
    ) -> ListedImage {
        let now = Timestamp::now();
        let is_default = default_id.as_ref() == Some(&id);
        let rules = ImageRules {
            // Only the configured image is pinned.
            digest: self.rules.digest.clone().filter(|_| is_default),
            ..self.rules.clone()
        };
        let names = image.repo_tags.clone().unwrap_or_default();
        let name = if is_default {
            configured
        } else {
            names.first().map_or(id.as_str(), String::as_str)
        };
        let obstacle = match rules.admit(name, image, now) {
            Ok(_) => None,
            Err(BackendError::ImageRefused { why, .. }) => Some(why),
            Err(error) => Some(error.to_string()),
        };
        let label = |key: &str| {
            let config = image.config.as_ref()?;
            config.labels.as_ref()?.get(key).cloned()
        };
        ListedImage {
            base: label(BASE_LABEL),
            made_by: label(IMAGE_LABEL),
            size_bytes: image
                .size
                .and_then(|size| u64::try_from(size).ok())
                .unwrap_or_default(),
            created: image.created.clone(),
            age: age(image, now),
            names,
            id,
            is_default,
            obstacle,
        }
    }
}

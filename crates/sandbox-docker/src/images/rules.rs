//! Which image a session may be made of: without volumes, young enough, and the one that the operator pinned. Pure.

use std::time::Duration;

use bollard::models::ImageInspect;
use jiff::Timestamp;
use sandbox::BackendError;

/// What makes a new image, for whoever is refused.
const MAKE_ANOTHER: &str = "make a new one: `claude-code-mcp image build`";

/// What the operator asks of images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageRules {
    /// No session is made of an older one.
    pub max_age: Option<Duration>,
    /// The image's id, or the digest that its registry knows it by.
    pub digest: Option<String>,
}

impl ImageRules {
    /// The image's id, which nobody can make another image bear, if a session may be made of it.
    ///
    /// # Errors
    /// [`BackendError::ImageRefused`] says why not.
    pub(crate) fn admit(
        &self,
        name: &str,
        image: &ImageInspect,
        now: Timestamp,
    ) -> Result<String, BackendError> {
        let refused = |why: String, remedy: &str| BackendError::ImageRefused {
            why: format!("the image {name} {why}"),
            remedy: remedy.to_owned(),
        };
        let volumes = volumes(image);
        if !volumes.is_empty() {
            let why = format!(
                "declares volumes ({}), which would be writable and outlive the session",
                volumes.join(", ")
            );
            return Err(refused(why, "use an image without volumes"));
        }
        let id = image.id.as_deref().filter(|id| id.starts_with("sha256:"));
        let Some(id) = id else {
            return Err(refused("has no id".to_owned(), MAKE_ANOTHER));
        };
        if let Some(pinned) = self.digest.as_deref().filter(|pin| !bears(image, pin)) {
            let why = format!("is {id}, and the configuration pins {pinned}");
            return Err(refused(
                why,
                "find out who changed what the name stands for, then pin the image that you trust (`image_digest`)",
            ));
        }
        self.check_age(image, now)
            .map_err(|why| refused(why, MAKE_ANOTHER))?;
        Ok(id.to_owned())
    }

    /// Why the image is too old, as a phrase after its name.
    fn check_age(&self, image: &ImageInspect, now: Timestamp) -> Result<(), String> {
        let Some(max_age) = self.max_age else {
            return Ok(());
        };
        let Some(age) = age(image, now) else {
            return Err(
                "does not say when it was made, and a maximum age is configured".to_owned(),
            );
        };
        if age > max_age {
            return Err(format!(
                "is {} old, and `image_max_age` allows {}",
                words(age),
                words(max_age)
            ));
        }
        Ok(())
    }
}

/// What it declares as volumes.
pub(super) fn volumes(image: &ImageInspect) -> &[String] {
    let config = image.config.as_ref();
    config
        .and_then(|config| config.volumes.as_deref())
        .unwrap_or_default()
}

/// How long ago it was made. One from the future is new.
pub(super) fn age(image: &ImageInspect, now: Timestamp) -> Option<Duration> {
    let created: Timestamp = image.created.as_deref()?.parse().ok()?;
    Some(Duration::try_from(now.duration_since(created)).unwrap_or_default())
}

fn bears(image: &ImageInspect, digest: &str) -> bool {
    let of_registries = image.repo_digests.iter().flatten();
    image.id.as_deref() == Some(digest)
        || of_registries
            .filter_map(|known| known.split_once('@'))
            .any(|(_, known)| known == digest)
}

fn words(age: Duration) -> String {
    let seconds = age.as_secs();
    match (seconds / 86_400, seconds / 3600, seconds / 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, _) => format!("{hours} h"),
        (days, _, _) => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ImageConfig;

    use super::*;

    const NOW: &str = "2026-11-26T12:00:00Z";

    fn id(digit: &str) -> String {
        format!("sha256:{}", digit.repeat(64))
    }

    fn image() -> ImageInspect {
        ImageInspect {
            id: Some(id("a")),
            created: Some("2026-11-25T12:00:00.123456789Z".to_owned()),
            repo_digests: Some(vec![format!("name@{}", id("b"))]),
            ..ImageInspect::default()
        }
    }

    fn check(rules: &ImageRules, image: &ImageInspect) -> Result<String, String> {
        match rules.admit("name:1", image, NOW.parse().unwrap()) {
            Ok(id) => Ok(id),
            Err(BackendError::ImageRefused { why, .. }) => Err(why),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_image_is_as_old_as_its_making() {
        let days = |days: u64| ImageRules {
            max_age: Some(Duration::from_secs(days * 86_400)),
            digest: None,
        };
        assert_eq!(check(&ImageRules::default(), &image()), Ok(id("a")));
        assert_eq!(check(&days(2), &image()), Ok(id("a")));
        let old = ImageInspect {
            created: Some("2026-11-20T12:00:00Z".to_owned()),
            ..image()
        };
        let why = check(&days(2), &old).unwrap_err();
        assert!(
            why.contains("6 days old") && why.contains("allows 2 days"),
            "{why}"
        );
        for unknown in [None, Some("yesterday".to_owned())] {
            let unknown = ImageInspect {
                created: unknown,
                ..image()
            };
            assert!(check(&days(9999), &unknown).is_err(), "fails closed");
            assert!(check(&ImageRules::default(), &unknown).is_ok());
        }
        let future = ImageInspect {
            created: Some("2027-01-01T00:00:00Z".to_owned()),
            ..image()
        };
        assert!(check(&days(1), &future).is_ok());
    }

    #[test]
    fn a_pinned_image_is_that_very_one() {
        let pinned = |digest: String| ImageRules {
            max_age: None,
            digest: Some(digest),
        };
        assert_eq!(check(&pinned(id("a")), &image()), Ok(id("a")), "its id");
        assert_eq!(
            check(&pinned(id("b")), &image()),
            Ok(id("a")),
            "a registry's digest"
        );
        let why = check(&pinned(id("c")), &image()).unwrap_err();
        assert!(why.contains(&id("a")) && why.contains(&id("c")), "{why}");
    }

    #[test]
    fn an_image_with_volumes_or_without_an_id_is_refused() {
        let with = ImageInspect {
            config: Some(ImageConfig {
                volumes: Some(vec!["/data".to_owned()]),
                ..ImageConfig::default()
            }),
            ..image()
        };
        let why = check(&ImageRules::default(), &with).unwrap_err();
        assert!(why.contains("/data"), "{why}");
        let without = ImageInspect {
            id: None,
            ..image()
        };
        assert!(check(&ImageRules::default(), &without).is_err());
    }
}

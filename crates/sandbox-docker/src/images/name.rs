//! Names of images, as they are put into paths and Dockerfiles.

/// What a digest begins with. Engines know no other kind.
const DIGEST_PREFIX: &str = "sha256:";
/// Digits of a SHA-256.
const DIGEST_DIGITS: usize = 64;

/// Names and ids only: the name becomes part of a path.
pub(crate) fn is_image_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-:/@".contains(&byte);
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(plain)
        && !name.contains("..")
}

/// Whether that is a whole digest: `sha256:` and 64 small hexadecimal digits.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix(DIGEST_PREFIX).is_some_and(|digits| {
        digits.len() == DIGEST_DIGITS
            && digits
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

/// A name that an image can be given: `place/name:tag`, with a tag where it has none.
pub(super) fn as_tag(name: &str) -> Option<String> {
    let bare = name.rsplit('/').next().unwrap_or(name);
    let small = name.bytes().all(|byte| !byte.is_ascii_uppercase())
        || name.rsplit_once(':').is_some_and(|(repository, _)| {
            repository.bytes().all(|byte| !byte.is_ascii_uppercase())
        });
    if !is_image_name(name) || name.contains('@') || !small || name.starts_with(DIGEST_PREFIX) {
        return None;
    }
    match bare.split_once(':') {
        None => Some(format!("{name}:latest")),
        Some((base, tag)) if !base.is_empty() && !tag.is_empty() && !tag.contains(':') => {
            Some(name.to_owned())
        }
        Some(_) => None,
    }
}

/// The name with which a registry is asked: without a tag it would be asked for all of them.
pub(super) fn to_pull(name: &str) -> Option<String> {
    if name.contains('@') && is_image_name(name) {
        return Some(name.to_owned());
    }
    as_tag(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_told_from_ids_digests_and_nonsense() {
        for (name, expected) in [
            ("claude-code-custom", Some("claude-code-custom:latest")),
            ("claude-code-custom:1", Some("claude-code-custom:1")),
            ("host:5000/place/name", Some("host:5000/place/name:latest")),
            ("host:5000/place/name:V1", Some("host:5000/place/name:V1")),
            ("Upper", None),
            ("name:", None),
            ("a:b:c", None),
            ("name@sha256:00", None),
            ("sha256:00ff", None),
            ("../x", None),
            ("a b", None),
            ("", None),
        ] {
            assert_eq!(as_tag(name).as_deref(), expected, "{name:?}");
        }
        let pinned = format!("name@sha256:{}", "0".repeat(64));
        assert_eq!(to_pull(&pinned).as_deref(), Some(pinned.as_str()));
    }

    #[test]
    fn digests_are_whole() {
        assert!(is_digest(&format!("sha256:{}", "0f".repeat(32))));
        for text in [
            "",
            "sha256:",
            "sha256:00",
            &"0f".repeat(32),
            &format!("sha256:{}", "0F".repeat(32)),
            &format!("sha512:{}", "0f".repeat(32)),
        ] {
            assert!(!is_digest(text), "{text}");
        }
    }
}

//! Which models a session may ask for.

/// Longest name of a model that is taken: the longest of Bedrock's ARNs are about 200 bytes.
pub(crate) const MAX_MODEL_BYTES: usize = 256;

/// An entry of the list that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a model or a `prefix*`: `*` stands only at the end, and a name has 1 to {MAX_MODEL_BYTES} bytes"
)]
pub struct ModelListError(String);

/// Models by exact name or by `prefix*`. An empty list allows every model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelList(Vec<Pattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    Prefix(String),
}

impl ModelList {
    /// The list of these entries.
    ///
    /// # Errors
    /// When an entry is empty, too long, or has a `*` anywhere but at its end.
    pub fn new<T: AsRef<str>>(
        entries: impl IntoIterator<Item = T>,
    ) -> Result<Self, ModelListError> {
        entries
            .into_iter()
            .map(|entry| pattern(entry.as_ref()))
            .collect::<Result<_, _>>()
            .map(ModelList)
    }

    /// Whether this model may be asked for.
    pub fn allows(&self, model: &str) -> bool {
        self.0.is_empty()
            || self.0.iter().any(|pattern| match pattern {
                Pattern::Exact(name) => name == model,
                Pattern::Prefix(prefix) => model.starts_with(prefix.as_str()),
            })
    }
}

fn pattern(entry: &str) -> Result<Pattern, ModelListError> {
    let refuse = || ModelListError(entry.chars().take(MAX_MODEL_BYTES).collect());
    if entry.is_empty() || entry.len() > MAX_MODEL_BYTES {
        return Err(refuse());
    }
    match entry.strip_suffix('*') {
        Some(prefix) if prefix.contains('*') => Err(refuse()),
        Some(prefix) => Ok(Pattern::Prefix(prefix.to_owned())),
        None if entry.contains('*') => Err(refuse()),
        None => Ok(Pattern::Exact(entry.to_owned())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn exact_names_and_prefixes() {
        let list = ModelList::new(["claude-opus-5-5", "claude-haiku-*"]).unwrap();
        for (model, allowed) in [
            ("claude-opus-5-5", true),
            ("claude-opus-5-5-20260101", false),
            ("claude-haiku-5-5", true),
            ("claude-haiku", false),
            ("CLAUDE-OPUS-5-5", false),
            ("", false),
        ] {
            assert_eq!(list.allows(model), allowed, "{model}");
        }
        assert!(ModelList::default().allows("anything"));
    }

    #[test]
    fn an_entry_that_means_something_else_is_refused() {
        for bad in ["", "a*b", "**", "*a"] {
            assert!(ModelList::new([bad]).is_err(), "{bad}");
        }
        assert!(ModelList::new(["*"]).unwrap().allows("x"));
    }
}

//! Text.

/// One line.
pub(crate) fn sentence(text: &str) -> String {
    text.to_owned()
}

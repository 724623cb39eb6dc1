//! Texts that cannot forge a line.
/// Longest word, bytes.
pub const MAX_WORD_BYTES: usize = 128;
/// Longest path, bytes.
pub const MAX_PATH_BYTES: usize = 1024;

//! Bytes into lines.

/// Longest line that is kept, bytes: an answer with a picture or a whole file in it is a few megabytes.
pub const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// A complete line, and where it ends in its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Without the newline; `None` for one over [`MAX_LINE_BYTES`], which is thrown away.
    pub bytes: Option<Vec<u8>>,
    /// Offset of the byte after its newline.
    pub end: u64,
}

/// Cuts a stream into lines. Holds at most one line.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    oversized: bool,
    /// Offset of the byte after the last one that was pushed.
    offset: u64,
}

impl Lines {
    /// Lines of a stream that goes on at that offset, of whose present line `partial` has come.
    pub const fn at(offset: u64, partial: Vec<u8>) -> Self {
        Lines {
            partial,
            oversized: false,
            offset,
        }
    }

    /// Offset of the next byte.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// What has come of the line that is not complete.
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// Bytes before that offset are lost: the line that they belong to is thrown away.
    pub fn skip_to(&mut self, offset: u64) {
        if offset > self.offset {
            self.offset = offset;
            self.partial = Vec::new();
            self.oversized = true;
        }
    }

    /// Adds bytes as they came; the lines that are complete now.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.offset += piece.len() as u64;
            let (content, is_end) = match piece.split_last() {
                Some((b'\n', content)) => (content, true),
                _ => (piece, false),
            };
            if self.oversized || self.partial.len() + content.len() > MAX_LINE_BYTES {
                self.oversized = true;
                self.partial = Vec::new();
            } else {
                self.partial.extend_from_slice(content);
            }
            if is_end {
                let line = std::mem::take(&mut self.partial);
                lines.push(Line {
                    bytes: (!self.oversized).then_some(line),
                    end: self.offset,
                });
                self.oversized = false;
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_they_come(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200), cut in 1usize..20) {
            let mut whole = Lines::default();
            let due = whole.push(&bytes);
            let mut pieces = Lines::default();
            let found: Vec<Line> = bytes.chunks(cut).flat_map(|piece| pieces.push(piece)).collect();
            prop_assert_eq!(&found, &due);
            prop_assert_eq!(pieces.partial(), whole.partial());
            prop_assert_eq!(pieces.offset(), bytes.len() as u64);
        }
    }

    #[test]
    fn a_line_that_is_too_long_costs_no_memory_and_only_itself() {
        let mut lines = Lines::default();
        for _ in 0..(MAX_LINE_BYTES / 1024 + 2) {
            assert_eq!(lines.push(&[b'x'; 1024]), []);
        }
        assert_eq!(lines.partial().len(), 0);
        let found = lines.push(b"\nnext\n");
        assert_eq!(found[0].bytes, None);
        assert_eq!(found[1].bytes.as_deref(), Some(&b"next"[..]));
    }

    #[test]
    fn a_line_whose_beginning_is_lost_is_thrown_away() {
        let mut lines = Lines::at(10, b"half".to_vec());
        lines.skip_to(20);
        let found = lines.push(b"rest\nnext\n");
        assert_eq!((found[0].bytes.clone(), found[0].end), (None, 25));
        assert_eq!(found[1].bytes.as_deref(), Some(&b"next"[..]));
    }
}

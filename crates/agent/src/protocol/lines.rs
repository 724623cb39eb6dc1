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

    /// What of the incomplete line has come behind that offset.
    pub fn partial_from(&self, offset: u64) -> &[u8] {
        let begin = self.offset - self.partial.len() as u64;
        let known = offset.saturating_sub(begin).min(self.partial.len() as u64);
        &self.partial[known as usize..]
    }

    /// Takes bytes up to that offset that belong to the same line: to the one that is incomplete if they begin where it
    /// stands, and to a later one if they do not.
    pub fn resume(&mut self, end: u64, bytes: &[u8]) {
        if self.offset + bytes.len() as u64 == end {
            self.push(bytes);
        } else {
            *self = Lines::at(end, bytes.to_vec());
        }
    }

    /// Bytes before that offset are gone. Usually they were whole lines, as those are acknowledged without being kept that
    /// decide nothing. Where they were half a line, its rest is no JSON object: a piece of one never is.
    pub fn skip_to(&mut self, offset: u64) {
        if offset > self.offset {
            *self = Lines::at(offset, Vec::new());
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
    fn the_line_after_a_gap_is_not_lost_and_the_rest_of_one_is_no_event() {
        let mut lines = Lines::at(10, br#"{"half":"#.to_vec());
        lines.skip_to(20);
        let found = lines.push(b"{\"type\":\"system\"}\n");
        let whole = found[0].bytes.as_deref().unwrap();
        assert_eq!((whole, found[0].end), (&br#"{"type":"system"}"#[..], 38));
        let event = r#"{"type":"system","a":{"b":[{"c":"{\"d\":{\"type\":\"result\"}}"}]},"e":{"type":"result"}}"#;
        for cut in 1..event.len() {
            let rest = &event.as_bytes()[cut..];
            assert_eq!(super::super::parse(rest), super::super::Event::Garbage);
        }
    }

    proptest! {
        #[test]
        fn pieces_of_an_incomplete_line_add_up_to_it(texts in prop::collection::vec("[a-c\n]{0,6}", 1..12)) {
            let (mut live, mut kept) = (Lines::default(), Lines::default());
            let mut recorded = 0;
            for text in texts {
                live.push(text.as_bytes());
                let piece = live.partial_from(recorded);
                if !piece.is_empty() {
                    kept.resume(live.offset(), piece);
                    recorded = live.offset();
                    prop_assert_eq!(kept.partial(), live.partial());
                    prop_assert_eq!(kept.offset(), live.offset());
                }
            }
        }
    }
}

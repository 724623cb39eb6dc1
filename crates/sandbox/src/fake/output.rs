//! The output of a simulated execution.

use std::collections::VecDeque;

use wire::{OutputChunk, OutputMode, StreamStatus};

use super::Break;

/// One stream: the bytes from `kept_from` on.
pub(super) struct Output {
    mode: OutputMode,
    kept_from: u64,
    bytes: VecDeque<u8>,
    ended: bool,
    broken: Option<Break>,
}

impl Output {
    pub(super) fn new(mode: OutputMode, broken: Option<Break>) -> Self {
        Output {
            mode,
            kept_from: 0,
            bytes: VecDeque::new(),
            ended: false,
            broken,
        }
    }

    pub(super) fn status(&self) -> StreamStatus {
        StreamStatus {
            kept_from: self.kept_from,
            total_bytes: self.total(),
            ended: self.ended,
        }
    }

    fn total(&self) -> u64 {
        self.kept_from + self.bytes.len() as u64
    }

    /// Takes what fits; tells how much that was.
    pub(super) fn append(&mut self, data: &[u8]) -> usize {
        if self.ended {
            return data.len();
        }
        match self.mode {
            OutputMode::DropOldest { keep_bytes } => {
                self.append_dropping(data, usize::try_from(keep_bytes).unwrap_or(usize::MAX));
                data.len()
            }
            OutputMode::Lossless { window_bytes } => {
                let room = usize::try_from(window_bytes)
                    .unwrap_or(usize::MAX)
                    .saturating_sub(self.bytes.len());
                let taken = data.len().min(room);
                self.bytes.extend(&data[..taken]);
                if self.broken == Some(Break::LosslessLoses) {
                    data.len()
                } else {
                    taken
                }
            }
        }
    }

    fn append_dropping(&mut self, data: &[u8], keep: usize) {
        if self.broken == Some(Break::KeepsTheHead) {
            let room = keep.saturating_sub(self.bytes.len()).min(data.len());
            self.bytes.extend(&data[..room]);
            return;
        }
        self.bytes.extend(data);
        let dropped = self.bytes.len().saturating_sub(keep);
        self.bytes.drain(..dropped);
        self.kept_from += dropped as u64;
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Whether a read there has an answer now.
    pub(super) fn has(&self, offset: u64) -> bool {
        self.total() > offset || self.ended
    }

    /// A piece from there on; for a lossless stream all before it is acknowledged.
    pub(super) fn read(&mut self, offset: u64, max_bytes: usize) -> OutputChunk {
        self.acknowledge_if_lossless(offset);
        let from = offset.clamp(self.kept_from, self.total());
        let start = usize::try_from(from - self.kept_from).unwrap_or(usize::MAX);
        let wrong = usize::from(self.broken == Some(Break::OffsetsAreOff) && offset > 0);
        let end = start.saturating_add(max_bytes).min(self.bytes.len());
        let (start, end) = (start.saturating_sub(wrong), end.saturating_sub(wrong));
        let data = self.bytes.make_contiguous()[start..end].to_vec();
        OutputChunk {
            offset: from,
            data,
            status: self.status(),
        }
    }

    /// Says that nothing before that offset is needed any more.
    pub(super) fn acknowledge_if_lossless(&mut self, offset: u64) {
        if let OutputMode::DropOldest { .. } = self.mode {
            return;
        }
        let acknowledged = offset.clamp(self.kept_from, self.total()) - self.kept_from;
        self.bytes.drain(
            ..usize::try_from(acknowledged)
                .unwrap_or(usize::MAX)
                .min(self.bytes.len()),
        );
        self.kept_from += acknowledged;
    }
}

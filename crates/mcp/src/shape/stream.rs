//! Output streams in replies of bounded size.

use model::StreamView;

use crate::{
    reply::StreamReply,
    text::{self, Window},
};

/// Text of output in one reply, bytes, both streams together. Clients spill or cut what is above 25,000 tokens or
/// 50,000 characters, and show no more of the rest than a path; a fifth of that leaves room for several calls.
pub(crate) const MAX_REPLY_TEXT_BYTES: usize = 24 * 1024;
/// Of one stream, when the other leaves room, bytes.
const MAX_STREAM_BYTES: usize = 16 * 1024;
/// Share of the end of a stream whose middle is left out: failures are told at the end.
const TAIL_QUARTERS: usize = 3;
/// The longest end of a stream that a reply shows, bytes.
pub(crate) const TAIL_BYTES: u64 = (MAX_STREAM_BYTES / 4 * TAIL_QUARTERS) as u64;
/// Room for the line that stands for a left-out middle, bytes.
const MARKER_BYTES: usize = 64;

/// One stream as it was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'a> {
    /// From the asked cursor on.
    pub(crate) first: &'a StreamView,
    /// A later read near the end of the stream, when `first` does not reach it.
    pub(crate) last: Option<&'a StreamView>,
    /// Everything from the cursor on, page by page; else start and end of it.
    pub(crate) paged: bool,
    /// The execution is over: nothing will follow.
    pub(crate) ended: bool,
}

/// Both streams within the size of a reply. The one that says less leaves room to the other.
pub(crate) fn both(stdout: Shown<'_>, stderr: Shown<'_>) -> (StreamReply, StreamReply) {
    let need = |stream: Shown<'_>| stream.reply(MAX_STREAM_BYTES).text.len();
    let (out, err) = budgets(need(stdout), need(stderr));
    (stdout.reply(out), stderr.reply(err))
}

fn budgets(stdout: usize, stderr: usize) -> (usize, usize) {
    let half = MAX_REPLY_TEXT_BYTES / 2;
    let left_by = |other: usize| (MAX_REPLY_TEXT_BYTES - other.min(half)).min(MAX_STREAM_BYTES);
    (left_by(stderr), left_by(stdout))
}

impl Shown<'_> {
    fn reply(self, budget: usize) -> StreamReply {
        let view = self.latest();
        let complete = self.ended && self.first.cursor >= view.total_bytes;
        let whole = text::head(&self.first.bytes, budget, complete);
        let reaches_end = self.last.is_none() && !whole.full;
        if self.paged || reaches_end {
            return self.contiguous(whole);
        }
        self.abridged(budget)
    }

    fn latest(self) -> StreamView {
        let newest = self.last.unwrap_or(self.first);
        StreamView {
            bytes: Vec::new(),
            ..*newest
        }
    }

    fn contiguous(self, window: Window) -> StreamReply {
        StreamReply {
            bytes_total: self.latest().total_bytes,
            truncated: self.first.truncated || window.full,
            cursor: self.first.offset + window.end as u64,
            offset: self.first.offset,
            text: window.text,
            omitted_from: None,
            omitted_bytes: None,
        }
    }

    fn abridged(self, budget: usize) -> StreamReply {
        let budget = budget.saturating_sub(MARKER_BYTES);
        let head_budget = budget / 4 * (4 - TAIL_QUARTERS);
        let head = text::head(&self.first.bytes, head_budget, false);
        let head_end = self.first.offset + head.end as u64;
        let source = self.last.unwrap_or(self.first);
        let complete = self.ended && source.cursor >= source.total_bytes;
        let from = usize::try_from(head_end.saturating_sub(source.offset)).unwrap_or(usize::MAX);
        let tail = text::tail(&source.bytes, from, budget - head_budget, complete);
        let tail_start = source.offset + tail.start as u64;
        let omitted = tail_start.saturating_sub(head_end);
        StreamReply {
            text: format!(
                "{}\n[... {omitted} bytes left out ...]\n{}",
                head.text, tail.text
            ),
            bytes_total: source.total_bytes,
            truncated: true,
            cursor: source.offset + tail.end as u64,
            offset: self.first.offset,
            omitted_from: Some(head_end),
            omitted_bytes: Some(omitted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(bytes: &[u8]) -> StreamView {
        let total = bytes.len() as u64;
        StreamView {
            bytes: bytes.to_vec(),
            offset: 0,
            total_bytes: total,
            cursor: total,
            truncated: false,
        }
    }

    fn shown(view: &StreamView, paged: bool, ended: bool) -> Shown<'_> {
        Shown {
            first: view,
            last: None,
            paged,
            ended,
        }
    }

    #[test]
    fn small_output_is_shown_whole() {
        let (out, err) = (view(b"hello\n"), view(b""));
        let (out, err) = both(shown(&out, false, true), shown(&err, false, true));
        assert_eq!(
            (out.text.as_str(), out.cursor, out.truncated),
            ("hello\n", 6, false)
        );
        assert_eq!(err, StreamReply::default());
    }

    #[test]
    fn a_huge_stream_keeps_its_start_and_more_of_its_end() {
        let lines: String = (0..100_000).map(|line| format!("line {line}\n")).collect();
        let (out, err) = (view(lines.as_bytes()), view(b""));
        let (out, _) = both(shown(&out, false, true), shown(&err, false, true));
        assert!(out.text.starts_with("line 0\n") && out.text.ends_with("line 99999\n"));
        assert!(out.text.len() <= MAX_STREAM_BYTES && out.truncated);
        assert_eq!(out.cursor, lines.len() as u64);
        let from = usize::try_from(out.omitted_from.unwrap()).unwrap();
        let to = from + usize::try_from(out.omitted_bytes.unwrap()).unwrap();
        let (head, tail) = out.text.split_once("\n[... ").unwrap();
        assert_eq!(head, &lines[..from]);
        assert_eq!(tail.split_once("...]\n").unwrap().1, &lines[to..]);
    }

    #[test]
    fn two_huge_streams_share_the_reply() {
        let bytes = vec![b'x'; 1_000_000];
        let (out, err) = (view(&bytes), view(&bytes));
        for paged in [false, true] {
            let (out, err) = both(shown(&out, paged, false), shown(&err, paged, false));
            assert!(out.text.len() + err.text.len() <= MAX_REPLY_TEXT_BYTES);
            assert!(out.text.len() > 11_000 && err.text.len() > 11_000);
        }
    }

    #[test]
    fn hostile_bytes_do_not_blow_the_reply_up() {
        for byte in [0x00, 0x1b, 0x80, 0xff, b'\r'] {
            let bytes = vec![byte; 300_000];
            let stream = view(&bytes);
            for paged in [false, true] {
                let (out, err) = both(shown(&stream, paged, true), shown(&stream, paged, true));
                assert!(
                    out.text.len() + err.text.len() <= MAX_REPLY_TEXT_BYTES,
                    "{byte:#x}"
                );
            }
        }
    }

    #[test]
    fn pages_put_together_are_the_stream() {
        let text: String = (0..20_000).map(|n| format!("{n} é漢😀 ")).collect();
        let (mut cursor, mut read) = (0, String::new());
        while cursor < text.len() {
            let rest = &text.as_bytes()[cursor..];
            // A reader sees a growing stream at any cut, also in the middle of a character.
            let known = view(&rest[..rest.len().min(9_001)]);
            let reply = shown(&known, true, known.bytes.len() == rest.len()).reply(7_000);
            assert!(reply.cursor > 0);
            cursor += usize::try_from(reply.cursor).unwrap();
            read.push_str(&reply.text);
        }
        assert_eq!(read, text);
    }
}

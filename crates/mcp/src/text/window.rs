//! Clean text of bounded size from the start or the end of a piece of a stream.

use std::collections::VecDeque;

use super::units::{Piece, Units};

/// How far into a tail a newline is looked for, bytes, so that it begins with a whole line.
const LINE_SEARCH_BYTES: usize = 512;

/// Clean text and which bytes it stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Window {
    /// The text.
    pub(crate) text: String,
    /// First byte that it stands for.
    pub(crate) start: usize,
    /// First byte after it. What follows was cut off by the budget, or is held back.
    pub(crate) end: usize,
    /// The budget was used up before the bytes were.
    pub(crate) full: bool,
}

/// As much from the start of `bytes` as fits `budget` bytes of text.
pub(crate) fn head(bytes: &[u8], budget: usize, complete: bool) -> Window {
    let mut window = Window::default();
    for unit in Units::new(bytes, complete) {
        if window.text.len() + unit.piece.len() > budget {
            window.full = true;
            break;
        }
        unit.piece.write(&mut window.text);
        window.end = unit.end;
    }
    window
}

/// As much from the end of `bytes`, from byte `from` on, as fits `budget` bytes of text; it begins with a whole line
/// where one begins near.
pub(crate) fn tail(bytes: &[u8], from: usize, budget: usize, complete: bool) -> Window {
    // No unit is shorter in text than in bytes but the removed ones, so this look-back is enough to fill most of it.
    let earliest = bytes.len().saturating_sub(budget).max(from);
    let start = earliest + bytes.get(earliest..).map_or(0, line_or_character_start);
    let mut kept: VecDeque<(usize, Piece)> = VecDeque::new();
    let (mut length, mut end) = (0, start);
    for unit in Units::new(bytes.get(start..).unwrap_or_default(), complete) {
        kept.push_back((start + unit.start, unit.piece));
        length += unit.piece.len();
        end = start + unit.end;
        while length > budget {
            length -= kept.pop_front().map_or(length, |(_, piece)| piece.len());
        }
    }
    let mut text = String::with_capacity(length);
    kept.iter().for_each(|(_, piece)| piece.write(&mut text));
    Window {
        text,
        start: kept.front().map_or(end, |(at, _)| *at),
        end,
        full: false,
    }
}

/// Offset of the first line that begins in the first bytes, else of the first character.
fn line_or_character_start(bytes: &[u8]) -> usize {
    let search = bytes
        .get(..LINE_SEARCH_BYTES.min(bytes.len() / 2))
        .unwrap_or_default();
    match search.iter().position(|byte| *byte == b'\n') {
        Some(newline) => newline + 1,
        None => bytes
            .iter()
            .take(3)
            .take_while(|byte| matches!(byte, 0x80..=0xbf))
            .count(),
    }
}

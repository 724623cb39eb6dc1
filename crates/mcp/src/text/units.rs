//! Bytes taken apart into characters, escape sequences and rubbish.

/// Longest CSI or two-byte escape sequence that is looked for, bytes. Real ones are below 40.
const MAX_SEQUENCE_BYTES: usize = 128;
/// Longest string sequence (OSC, DCS, …) that is looked for, bytes. Links and titles are below that.
const MAX_STRING_BYTES: usize = 4096;

const ESCAPE: u8 = 0x1b;
const BELL: u8 = 0x07;

/// One indivisible piece of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    /// First byte.
    pub(super) start: usize,
    /// First byte after it.
    pub(super) end: usize,
    /// What it becomes.
    pub(super) piece: Piece,
}

/// What a unit becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// Itself.
    Visible(char),
    /// `\u{...}`.
    SpelledOut(char),
    /// Nothing: an escape sequence.
    Removed,
    /// U+FFFD: no UTF-8.
    Invalid,
}

impl Piece {
    /// Appends it to a text.
    pub(super) fn write(self, text: &mut String) {
        match self {
            Piece::Visible(character) => text.push(character),
            Piece::SpelledOut(character) => text.extend(character.escape_unicode()),
            Piece::Removed => {}
            Piece::Invalid => text.push(char::REPLACEMENT_CHARACTER),
        }
    }

    /// Bytes that it takes in a text.
    pub(super) fn len(self) -> usize {
        match self {
            Piece::Visible(character) => character.len_utf8(),
            Piece::SpelledOut(character) => character.escape_unicode().len(),
            Piece::Removed => 0,
            Piece::Invalid => char::REPLACEMENT_CHARACTER.len_utf8(),
        }
    }
}

/// Iterates over the units of `bytes`, and stops before one that is cut off by their end.
pub(super) struct Units<'a> {
    bytes: &'a [u8],
    position: usize,
    complete: bool,
}

impl<'a> Units<'a> {
    /// `complete`: nothing will ever follow, so what is cut off stays so and is shown as it is.
    pub(super) const fn new(bytes: &'a [u8], complete: bool) -> Self {
        Units {
            bytes,
            position: 0,
            complete,
        }
    }

    fn next_at(&self, start: usize) -> Option<(usize, Piece)> {
        let rest = self.bytes.get(start..)?;
        match *rest.first()? {
            ESCAPE => match escape_sequence(rest) {
                Sequence::Whole(length) => Some((length, Piece::Removed)),
                Sequence::CutOff if !self.complete => None,
                Sequence::CutOff | Sequence::None => Some((1, Piece::SpelledOut('\u{1b}'))),
            },
            b'\r' => match rest.get(1) {
                Some(b'\n') => Some((2, Piece::Visible('\n'))),
                None if !self.complete => None,
                Some(_) | None => Some((1, Piece::Visible('\n'))),
            },
            _ => self.character(rest),
        }
    }

    fn character(&self, rest: &[u8]) -> Option<(usize, Piece)> {
        let window = rest.get(..4).unwrap_or(rest);
        let (valid, bad) = match std::str::from_utf8(window) {
            Ok(text) => (text, None),
            Err(error) => {
                let valid = window.get(..error.valid_up_to()).unwrap_or_default();
                (
                    std::str::from_utf8(valid).unwrap_or_default(),
                    Some(error.error_len()),
                )
            }
        };
        if let Some(character) = valid.chars().next() {
            let piece = if acts_unseen(character) {
                Piece::SpelledOut(character)
            } else {
                Piece::Visible(character)
            };
            return Some((character.len_utf8(), piece));
        }
        match bad.flatten() {
            Some(length) => Some((length, Piece::Invalid)),
            // Cut off: by the end of the bytes, as a window of four holds every whole character.
            None if !self.complete => None,
            None => Some((window.len(), Piece::Invalid)),
        }
    }
}

impl Iterator for Units<'_> {
    type Item = Unit;

    fn next(&mut self) -> Option<Unit> {
        let start = self.position;
        let (length, piece) = self.next_at(start)?;
        self.position = start + length;
        Some(Unit {
            start,
            end: self.position,
            piece,
        })
    }
}

enum Sequence {
    Whole(usize),
    CutOff,
    None,
}

/// Recognizes an ECMA-48 sequence at the start of `rest`, which begins with ESC.
fn escape_sequence(rest: &[u8]) -> Sequence {
    match rest.get(1) {
        None => Sequence::CutOff,
        Some(b'[') => finished_by(rest, 2, |byte| matches!(byte, 0x20..=0x3f)),
        Some(b']' | b'P' | b'X' | b'^' | b'_') => string_sequence(rest),
        Some(0x20..=0x7e) => finished_by(rest, 1, |byte| matches!(byte, 0x20..=0x2f)),
        Some(_) => Sequence::None,
    }
}

/// A sequence that goes on with `inner` bytes and ends with the first other one, if that is a final byte.
fn finished_by(rest: &[u8], from: usize, inner: impl Fn(u8) -> bool) -> Sequence {
    for (index, byte) in rest.iter().enumerate().take(MAX_SEQUENCE_BYTES).skip(from) {
        if inner(*byte) {
            continue;
        }
        let is_final = matches!(byte, 0x30..=0x7e);
        return if is_final {
            Sequence::Whole(index + 1)
        } else {
            Sequence::None
        };
    }
    if rest.len() < MAX_SEQUENCE_BYTES {
        Sequence::CutOff
    } else {
        Sequence::None
    }
}

/// A string sequence: up to BEL or ESC \.
fn string_sequence(rest: &[u8]) -> Sequence {
    for (index, byte) in rest.iter().enumerate().take(MAX_STRING_BYTES).skip(2) {
        match (*byte, rest.get(index + 1)) {
            (BELL, _) => return Sequence::Whole(index + 1),
            (ESCAPE, Some(b'\\')) => return Sequence::Whole(index + 2),
            (ESCAPE, Some(_)) => return Sequence::None,
            _ => {}
        }
    }
    if rest.len() < MAX_STRING_BYTES {
        Sequence::CutOff
    } else {
        Sequence::None
    }
}

/// Characters that change what is seen without being seen (Unicode 16: controls, `Bidi_Control`,
/// `Default_Ignorable_Code_Point` but for the emoji variation selectors, line and paragraph separators, interlinear
/// annotations).
pub(super) const fn acts_unseen(character: char) -> bool {
    matches!(character,
        '\u{0}'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

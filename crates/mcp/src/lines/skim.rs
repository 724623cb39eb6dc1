//! Where the arguments of a call stand in its line.
//!
//! A line that is no JSON is skimmed as far as it goes: whoever parses it then refuses it.

use std::{collections::BTreeSet, ops::Range};

use tokio_util::bytes::BytesMut;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
const OPTIONS: &str = "dockerOpts";
/// Levels below the arguments that are looked into for names that stand twice: no argument has more.
const MAX_LEVELS: usize = 3;
/// Names of one object that are remembered: four times as many as an environment may have.
const MAX_NAMES: usize = 1_024;

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Skimmed {
    /// Where values of `params.arguments.dockerOpts` stand.
    pub(super) options: Vec<Range<usize>>,
    /// Another argument, or a field of one, that is given twice, or `arguments` or `params` itself.
    pub(super) twice: Option<String>,
}

impl Skimmed {
    pub(super) fn of(line: &[u8]) -> Self {
        let mut skimmed = Skimmed::default();
        let start = start(line);
        for parameters in skimmed.only(parts(line, start), "params") {
            for arguments in skimmed.only(parts(line, parameters.start), "arguments") {
                skimmed.arguments(line, arguments.start);
            }
        }
        skimmed
    }

    /// The values of that name, of which there should be no two.
    fn only(&mut self, parts: Parts<'_>, name: &str) -> Vec<Range<usize>> {
        let named = parts.filter(|part| part.name.as_deref() == Some(name));
        let values: Vec<_> = named.map(|part| part.value).collect();
        if values.len() > 1 {
            self.twice = Some(name.to_owned());
        }
        values
    }

    fn arguments(&mut self, line: &[u8], start: usize) {
        let arguments = parts(line, start);
        let options = arguments.filter(|part| part.name.as_deref() == Some(OPTIONS));
        self.options.extend(options.map(|part| part.value));
        if self.twice.is_none() {
            self.twice = given_twice(line, start, "", MAX_LEVELS);
        }
    }

    /// The line with an empty object in place of each of the options.
    pub(super) fn without_options(&self, line: &[u8]) -> BytesMut {
        let mut rest = BytesMut::with_capacity(line.len() + 1);
        let mut from = 0;
        for options in &self.options {
            rest.extend_from_slice(&line[from..options.start]);
            rest.extend_from_slice(b"{}");
            from = options.end;
        }
        rest.extend_from_slice(&line[from..]);
        rest
    }
}

/// Where the value begins.
fn start(line: &[u8]) -> usize {
    match line.starts_with(BYTE_ORDER_MARK) {
        true => BYTE_ORDER_MARK.len(),
        false => 0,
    }
}

/// The path of the first member of a message, of its parameters or of their `_meta` whose name stands there twice, or of
/// what has more members than are remembered. The arguments are not looked into.
pub(super) fn message_given_twice(line: &[u8]) -> Option<String> {
    let members = |path: &str, start| match parts(line, start).nth(MAX_NAMES) {
        Some(_) => Some(path.to_owned()),
        None => given_twice(line, start, path, 0),
    };
    let named = |start, name| {
        let mut parts = parts(line, start);
        parts
            .find(|part| part.name.as_deref() == Some(name))
            .map(|part| part.value.start)
    };
    let message = start(line);
    let twice = members("", message);
    let Some(parameters) = named(message, "params") else {
        return twice;
    };
    let twice = twice.or_else(|| members("params", parameters));
    let Some(meta) = named(parameters, "_meta") else {
        return twice;
    };
    twice.or_else(|| members("params._meta", meta))
}

/// The path of the first argument, or field of one, whose name stands in its object twice. Options are not looked into.
fn given_twice(line: &[u8], start: usize, path: &str, levels: usize) -> Option<String> {
    let mut seen = BTreeSet::new();
    for (index, part) in parts(line, start).enumerate() {
        let here = match &part.name {
            None => format!("{path}[{index}]"),
            Some(name) if path.is_empty() => name.clone(),
            Some(name) => format!("{path}.{name}"),
        };
        if here == OPTIONS {
            continue;
        }
        if let Some(name) = part.name
            && seen.len() < MAX_NAMES
            && !seen.insert(name)
        {
            return Some(here);
        }
        let below = levels
            .checked_sub(1)
            .and_then(|levels| given_twice(line, part.value.start, &here, levels));
        if below.is_some() {
            return below;
        }
    }
    None
}

/// A member of an object, or an element of a list.
struct Part {
    name: Option<String>,
    value: Range<usize>,
}

/// The parts of the object or list that stands there; none where there is neither.
fn parts(line: &[u8], start: usize) -> Parts<'_> {
    let mut cursor = Cursor { line, at: start };
    let opening = cursor.next();
    Parts {
        cursor,
        named: opening == Some(b'{'),
        more: matches!(opening, Some(b'{' | b'[')),
    }
}

struct Parts<'a> {
    cursor: Cursor<'a>,
    named: bool,
    more: bool,
}

impl Parts<'_> {
    fn name(&mut self) -> Option<String> {
        if self.cursor.next_is() != Some(b'"') {
            return None;
        }
        let name = self.cursor.value();
        // A name that is no text is refused by whoever parses the line.
        let name = serde_json::from_slice(&self.cursor.line[name]).unwrap_or_default();
        (self.cursor.next() == Some(b':')).then_some(name)
    }
}

impl Iterator for Parts<'_> {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        if !self.more {
            return None;
        }
        self.more = false;
        let name = if self.named { Some(self.name()?) } else { None };
        let value = self.cursor.value();
        if value.is_empty() {
            return None;
        }
        self.more = self.cursor.next() == Some(b',');
        Some(Part { name, value })
    }
}

struct Cursor<'a> {
    line: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// The next byte that is no space, which stays.
    fn next_is(&mut self) -> Option<u8> {
        while matches!(self.line.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        self.line.get(self.at).copied()
    }

    /// The next byte that is no space.
    fn next(&mut self) -> Option<u8> {
        let byte = self.next_is()?;
        self.at += 1;
        Some(byte)
    }

    /// Goes over one value of whatever kind. Without recursion: depth is not to be trusted.
    fn value(&mut self) -> Range<usize> {
        let mut depth = 0_usize;
        let first = self.next_is();
        let start = self.at;
        if !matches!(first, Some(b'"' | b'{' | b'[')) {
            self.at += self.line[start..]
                .iter()
                .take_while(|byte| !b",]} \t\r\n".contains(byte))
                .count();
            return start..self.at;
        }
        while let Some(byte) = self.line.get(self.at) {
            self.at += 1;
            match byte {
                b'"' => self.rest_of_text(),
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => continue,
            }
            if depth == 0 {
                break;
            }
        }
        start..self.at
    }

    fn rest_of_text(&mut self) {
        while let Some(byte) = self.line.get(self.at) {
            self.at += 1;
            match byte {
                b'"' => return,
                b'\\' => self.at = self.line.len().min(self.at + 1),
                _ => {}
            }
        }
    }
}

//! Where the arguments of a call stand in its line.
//!
//! A line that is no JSON is skimmed as far as it goes: whoever parses it then refuses it.

use std::ops::Range;

use tokio_util::bytes::BytesMut;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
const OPTIONS: &str = "dockerOpts";

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Skimmed {
    /// Where values of `params.arguments.dockerOpts` stand.
    pub(super) options: Vec<Range<usize>>,
    /// Another argument that is given twice, or `arguments` or `params` itself.
    pub(super) twice: Option<String>,
}

impl Skimmed {
    pub(super) fn of(line: &[u8]) -> Self {
        let mut skimmed = Skimmed::default();
        let start = if line.starts_with(BYTE_ORDER_MARK) {
            BYTE_ORDER_MARK.len()
        } else {
            0
        };
        for parameters in skimmed.only(members(line, start), "params") {
            for arguments in skimmed.only(members(line, parameters.start), "arguments") {
                skimmed.arguments(members(line, arguments.start));
            }
        }
        skimmed
    }

    /// The values of that name, of which there should be no two.
    fn only(&mut self, members: Vec<Member>, name: &str) -> Vec<Range<usize>> {
        let named = members.into_iter().filter(|member| member.name == name);
        let values: Vec<_> = named.map(|member| member.value).collect();
        if values.len() > 1 {
            self.twice = Some(name.to_owned());
        }
        values
    }

    fn arguments(&mut self, members: Vec<Member>) {
        for (index, member) in members.iter().enumerate() {
            if member.name == OPTIONS {
                self.options.push(member.value.clone());
            } else if members[..index]
                .iter()
                .any(|other| other.name == member.name)
            {
                self.twice.get_or_insert_with(|| member.name.clone());
            }
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

/// A member of an object.
struct Member {
    name: String,
    value: Range<usize>,
}

/// The members of the object that stands there; none where there is no object.
fn members(line: &[u8], start: usize) -> Vec<Member> {
    let mut cursor = Cursor { line, at: start };
    let mut members = Vec::new();
    if cursor.next() != Some(b'{') {
        return members;
    }
    while let Some(b'"') = cursor.next_is() {
        let name = cursor.value();
        if cursor.next() != Some(b':') {
            break;
        }
        let value = cursor.value();
        // A name that is no text is refused by whoever parses the line.
        let name = serde_json::from_slice(&line[name]).unwrap_or_default();
        members.push(Member { name, value });
        if cursor.next() != Some(b',') {
            break;
        }
    }
    members
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

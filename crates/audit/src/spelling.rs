//! Whether a line is spelled as this program spells records: one spelling for each record, so that two readers cannot
//! understand the same bytes differently.
//!
//! That is JSON without white space, fields in the order of [`crate::Record`], keys of `parameters` in the order of their
//! bytes and none twice, numbers as digits without leading zeros, and strings in UTF-8 with no escape but `\"` and
//! `\\` (what else would need one is spelled out before, see `text.rs`).

use memchr::memchr2;

/// How the two fields of an object begin.
type Pair = [&'static [u8]; 2];

/// How each field of a record begins, in their order, and how those of the objects among them do. The fields of other objects have
/// the order of their bytes.
const FIELDS: [(&[u8], Option<Pair>); 20] = [
    (b"{\"v\":", None),
    (b",\"seq\":", None),
    (b",\"timestamp\":", None),
    (b",\"phase\":", None),
    (b",\"op\":", None),
    (b",\"action\":", None),
    (b",\"session_id\":", None),
    (b",\"actor\":", Some([b"{\"id\":", b",\"hash\":"])),
    (b",\"client\":", Some([b"{\"name\":", b",\"version\":"])),
    (
        b",\"source\":",
        Some([b"{\"transport\":", b",\"address\":"]),
    ),
    (b",\"target\":", Some([b"{\"type\":", b",\"id\":"])),
    (b",\"decision\":", None),
    (b",\"parameters\":", None),
    (b",\"result\":", None),
    (b",\"reason\":", None),
    (b",\"duration_ms\":", None),
    (b",\"key\":", None),
    (b",\"prev\":", None),
    (b",\"mac\":", None),
    (b",\"hash\":", None),
];
/// Objects within objects: a parameter that is a digest and a length.
const MAX_DEPTH: usize = 3;

/// Whether this line, without its line feed, is a record in its one spelling.
pub(crate) fn is_canonical(line: &[u8]) -> bool {
    // To the end in any case, so that many bytes are looked at in one step.
    let has_control = line
        .iter()
        .fold(false, |found, byte| found | (*byte < 0x20));
    let mut rest = Rest(line);
    !has_control
        && rest.record().is_some()
        && rest.0.is_empty()
        && std::str::from_utf8(line).is_ok()
}

/// What is left of a line.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn record(&mut self) -> Option<()> {
        for (begin, object) in &FIELDS {
            self.skip(begin)?;
            match object {
                Some(fields) if !self.is_null() => self.object(fields)?,
                Some(_) | None => self.value(1)?,
            }
        }
        self.skip(b"}")
    }

    fn object(&mut self, fields: &Pair) -> Option<()> {
        for begin in fields {
            self.skip(begin)?;
            self.value(2)?;
        }
        self.skip(b"}")
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        match self.0.first()? {
            b'"' => self.string().map(drop),
            b'{' => self.map(depth),
            b'0'..=b'9' => self.number(),
            b'n' => self.skip(b"null"),
            b't' => self.skip(b"true"),
            b'f' => self.skip(b"false"),
            _ => None,
        }
    }

    fn map(&mut self, depth: usize) -> Option<()> {
        self.skip(b"{")?;
        if depth == MAX_DEPTH || self.skip(b"}").is_some() {
            return (depth < MAX_DEPTH).then_some(());
        }
        let mut last: Option<&[u8]> = None;
        loop {
            let name = self.string()?;
            if last.is_some_and(|last| last >= name) {
                return None;
            }
            last = Some(name);
            self.skip(b":")?;
            self.value(depth + 1)?;
            if self.skip(b",").is_none() {
                return self.skip(b"}");
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit());
        let (number, rest) = self.0.split_at(digits.count());
        self.0 = rest;
        (number == b"0" || !number.starts_with(b"0")).then_some(())
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        self.skip(b"\"")?;
        let text = self.0;
        let mut at = 0;
        loop {
            at += memchr2(b'"', b'\\', text.get(at..)?)?;
            if text[at] == b'"' {
                break;
            }
            matches!(text.get(at + 1)?, b'"' | b'\\').then_some(())?;
            at += 2;
        }
        self.0 = &text[at + 1..];
        Some(&text[..at])
    }

    fn is_null(&self) -> bool {
        self.0.starts_with(b"null")
    }

    fn skip(&mut self, bytes: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(bytes)?;
        Some(())
    }
}

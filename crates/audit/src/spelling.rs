//! Whether a line is spelled as this program spells records: one spelling for each record, so that two readers cannot
//! understand the same bytes differently.
//!
//! That is JSON without white space, fields in the order of [`crate::Record`], keys of `parameters` in the order of their
//! bytes and none twice, numbers as digits without leading zeros, and strings in UTF-8 with no escape but `\"` and
//! `\\` (what else would need one is spelled out before, see `text.rs`).

/// The fields of a record, in their order.
const FIELDS: [&str; 20] = [
    "v",
    "seq",
    "timestamp",
    "phase",
    "op",
    "action",
    "session_id",
    "actor",
    "client",
    "source",
    "target",
    "decision",
    "parameters",
    "result",
    "reason",
    "duration_ms",
    "key",
    "prev",
    "mac",
    "hash",
];
/// The fields of the objects in a record; those of others have the order of their bytes.
const OBJECTS: [(&str, [&str; 2]); 4] = [
    ("actor", ["id", "hash"]),
    ("client", ["name", "version"]),
    ("source", ["transport", "address"]),
    ("target", ["type", "id"]),
];
/// Objects within objects: a parameter that is a digest and a length.
const MAX_DEPTH: usize = 3;

/// Whether this line, without its line feed, is a record in its one spelling.
pub(crate) fn is_canonical(line: &[u8]) -> bool {
    let mut rest = Rest(line);
    rest.record().is_some() && rest.0.is_empty() && std::str::from_utf8(line).is_ok()
}

/// What is left of a line.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn record(&mut self) -> Option<()> {
        for (at, field) in FIELDS.iter().enumerate() {
            self.skip(if at == 0 { b"{" } else { b"," })?;
            self.name(field)?;
            match OBJECTS.iter().find(|(object, _)| object == field) {
                Some((_, fields)) if !self.is_null() => self.object(fields)?,
                Some(_) | None => self.value(1)?,
            }
        }
        self.skip(b"}")
    }

    fn object(&mut self, fields: &[&str; 2]) -> Option<()> {
        self.skip(b"{")?;
        self.name(fields[0])?;
        self.value(2)?;
        self.skip(b",")?;
        self.name(fields[1])?;
        self.value(2)?;
        self.skip(b"}")
    }

    fn name(&mut self, name: &str) -> Option<()> {
        self.skip(b"\"")?;
        self.skip(name.as_bytes())?;
        self.skip(b"\":")
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
            match text.get(at)? {
                b'"' => break,
                b'\\' if matches!(text.get(at + 1)?, b'"' | b'\\') => at += 2,
                b'\\' | 0..0x20 => return None,
                _ => at += 1,
            }
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

//! How values are read, and how it is said that one is none.

use model::{OptionValue, Reason, Refusal};

/// Entries of a list of options: all capabilities there are, and room.
pub(super) const MAX_ENTRIES: usize = 64;

/// Where in the options, and by which rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) path: &'a str,
    pub(super) rule: &'a str,
}

impl Place<'_> {
    /// This is no value of the option.
    pub(super) fn malformed(&self, what: &str, hint: &str) -> Refusal {
        let Place { path, rule } = self;
        let message = format!("`{path}` {what} (rule {rule}).");
        Refusal::new(Reason::InvalidArgument, message, hint).in_field(*path)
    }

    pub(super) fn positive(&self, value: &OptionValue) -> Result<i64, Refusal> {
        if let OptionValue::Integer(number) = value
            && *number > 0
        {
            return Ok(*number);
        }
        Err(self.malformed(
            "must be a whole number above 0",
            "0 and less mean no limit to an engine.",
        ))
    }

    /// A number of bytes, or a text as `docker run --memory` takes it: digits and b, k, m, g or t, in powers of 1,024.
    pub(super) fn bytes(&self, value: &OptionValue) -> Result<u64, Refusal> {
        let size = if let OptionValue::Text(text) = value {
            size(text)
        } else {
            self.positive(value).ok().map(i64::unsigned_abs)
        };
        size.ok_or_else(|| {
            self.malformed(
                "must be a size above 0",
                "Give bytes as a number, or a text such as \"512m\" or \"2g\".",
            )
        })
    }

    pub(super) fn list<'a>(&self, value: &'a OptionValue) -> Result<&'a [OptionValue], Refusal> {
        if let OptionValue::List(entries) = value
            && entries.len() <= MAX_ENTRIES
        {
            return Ok(entries);
        }
        Err(self.malformed(
            "must be a list of at most 64 entries",
            "Give a list, as the engine takes it.",
        ))
    }

    pub(super) fn texts<'a>(&self, value: &'a OptionValue) -> Result<Vec<&'a str>, Refusal> {
        let text = |(index, entry): (usize, &'a OptionValue)| {
            if let OptionValue::Text(text) = entry {
                return Ok(text.as_str());
            }
            let path = format!("{}[{index}]", self.path);
            let place = Place {
                path: &path,
                ..*self
            };
            Err(place.malformed("must be a text", "Give a list of texts."))
        };
        self.list(value)?.iter().enumerate().map(text).collect()
    }
}

/// Above 0 and no more than an engine's 63 bits.
pub(super) fn size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(digits);
    let shift = match unit {
        "" | "b" | "B" => 0,
        "k" | "K" | "kb" | "KB" | "KiB" => 10,
        "m" | "M" | "mb" | "MB" | "MiB" => 20,
        "g" | "G" | "gb" | "GB" | "GiB" => 30,
        "t" | "T" | "tb" | "TB" | "TiB" => 40,
        _ => return None,
    };
    let number: u64 = digits.parse().ok()?;
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes > 0 && i64::try_from(*bytes).is_ok())
}

//! What a person or a script sees: tables and sentences, or exactly the structured result.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Table, presets};
use serde::Serialize;

use super::{CliError, door::worded};

/// Where results go and in which form.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Structured results instead of text.
    pub json: bool,
    color: bool,
    may_color: bool,
}

/// A color of a word.
#[derive(Debug, Clone, Copy)]
pub enum Color {
    /// All is well.
    Green,
    /// Worth a look.
    Yellow,
    /// Something is wrong.
    Red,
    /// Less important.
    Dim,
}

impl Output {
    /// Colors only for a terminal, and not where `NO_COLOR` is set.
    pub fn new(json: bool, no_color: bool) -> Self {
        Output {
            json,
            color: !no_color && !json && io::stdout().is_terminal(),
            may_color: !no_color,
        }
    }

    /// The same for standard error.
    pub fn for_errors(self) -> Self {
        Output {
            json: self.json,
            color: self.may_color && io::stderr().is_terminal(),
            may_color: self.may_color,
        }
    }

    /// The word in that color, or as it is.
    pub fn paint(self, color: Color, word: &str) -> String {
        let code = match color {
            Color::Green => 32,
            Color::Yellow => 33,
            Color::Red => 31,
            Color::Dim => 2,
        };
        if self.color {
            format!("\u{1b}[{code}m{word}\u{1b}[0m")
        } else {
            word.to_owned()
        }
    }

    /// A line for people.
    pub fn line(self, text: &str) -> Result<(), CliError> {
        writeln!(io::stdout(), "{text}").or_else(ignore_closed)
    }

    /// A structured result.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| CliError::Terminal(error.into()))?;
        self.line(&text)
    }

    /// A structured result on one line, for streams of them.
    pub fn json_line<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CliError> {
        let text =
            serde_json::to_string(value).map_err(|error| CliError::Terminal(error.into()))?;
        self.line(&text)
    }

    /// A table.
    pub fn table(
        self,
        header: &[&str],
        rows: impl IntoIterator<Item = Vec<String>>,
    ) -> Result<(), CliError> {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_header(header.to_vec());
        for row in rows {
            table.add_row(row);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text = table.to_string();
        for line in text.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }
}

/// A time of a reply with a fixed number of digits, so that columns line up; as it is where it is none.
pub fn aligned(time: &str) -> String {
    time.parse::<jiff::Timestamp>().map_or_else(
        |_| time.to_owned(),
        |time| time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
    )
}

/// A remark on standard error.
pub fn note(text: &str) {
    // Nobody to tell when standard error is closed.
    let _ = writeln!(io::stderr(), "claude-code-mcp: {text}");
}

/// A reader that has seen enough (`| head`) is no error.
fn ignore_closed(error: io::Error) -> Result<(), CliError> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Ok(())
    } else {
        Err(CliError::Terminal(error))
    }
}

/// The error on standard error, with code and hint.
pub fn report(error: &CliError, json: bool) {
    let mut out = io::stderr();
    let innermost = if let CliError::NotRun(inner) = error {
        inner
    } else {
        error
    };
    let refused = if let CliError::Refused(body) = innermost {
        Some(body)
    } else {
        None
    };
    if let (true, Some(body)) = (json, refused) {
        let reply = mcp::reply::ErrorReply {
            error: body.clone(),
        };
        let text = serde_json::to_string_pretty(&reply).unwrap_or_default();
        // The structured result is the output, also when it says no.
        let _ = writeln!(io::stdout(), "{text}");
        return;
    }
    let _ = writeln!(out, "error: {}", worded(&error.chain()));
    if let Some(field) = refused.and_then(|body| body.field.as_deref()) {
        let _ = writeln!(out, "field: {}", worded(field));
    }
    if let Some(hint) = error.hint() {
        let _ = writeln!(out, "hint: {}", worded(hint));
    }
}

//! What Claude Code does, for whoever looks on: lines on standard error, and on a terminal one more that moves.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use mcp::reply::{LogLineReply, TranscriptKindName};

use crate::cli::output::{Color, Output};

/// How often the moving line moves.
const TICK: Duration = Duration::from_millis(120);

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Look {
    /// All that is done.
    All,
    /// Nothing.
    Quiet,
}

/// See the module.
pub(in crate::cli) struct Teller {
    look: Look,
    output: Output,
    /// Stands before each line.
    indent: &'static str,
    bar: Option<ProgressBar>,
    /// What was said last. As the answer it is for standard output, so it waits for what follows.
    held: Option<String>,
}

impl Teller {
    pub(in crate::cli) fn new(output: Output, look: Look, indent: &'static str) -> Self {
        let mut teller = Teller {
            look,
            output: output.for_errors(),
            indent,
            bar: None,
            held: None,
        };
        teller.resume();
        teller
    }

    /// Takes the moving line away: something else is to stand there.
    pub(super) fn pause(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Goes on after [`Teller::pause`].
    pub(super) fn resume(&mut self) {
        if self.look == Look::All && io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(TICK);
            self.bar = Some(bar);
        }
    }

    /// What is done right now, for the moving line; what is done is told by the transcript.
    pub(super) fn doing(&self, words: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(words.to_owned());
        }
    }

    /// A line of the transcript.
    pub(super) fn line(&mut self, line: &LogLineReply) {
        let Some(kind) = line.kind else { return };
        if !matches!(kind, TranscriptKindName::Ended) {
            self.release();
        }
        let short = first_line(&line.text);
        match kind {
            TranscriptKindName::Prompt | TranscriptKindName::Begun | TranscriptKindName::Ended => {}
            TranscriptKindName::Says => self.held = Some(line.text.clone()),
            TranscriptKindName::Uses => self.print(&format!("> {}", line.text)),
            TranscriptKindName::Gives if short.is_empty() => {}
            TranscriptKindName::Gives => self.print(&self.paint(Color::Dim, &format!("  {short}"))),
            TranscriptKindName::Fails => self.print(&self.paint(Color::Red, &format!("! {short}"))),
            TranscriptKindName::Asks => {
                self.print(&self.paint(Color::Yellow, &format!("? asks for leave: {short}")));
            }
            TranscriptKindName::Waits => self.print(&self.paint(Color::Yellow, &line.text)),
        }
    }

    /// Prints what was held back, since more followed.
    fn release(&mut self) {
        if let Some(said) = self.held.take() {
            for line in said.lines() {
                self.print(line);
            }
        }
    }

    /// Prints what was held back unless it is the answer.
    pub(super) fn close(&mut self, answer: Option<&str>) {
        if self.held.as_deref() != answer {
            self.release();
        }
        self.pause();
    }

    fn paint(&self, color: Color, words: &str) -> String {
        self.output.paint(color, words)
    }

    pub(super) fn print(&self, line: &str) {
        if self.look == Look::Quiet {
            return;
        }
        let line = format!("{}{line}", self.indent);
        match &self.bar {
            Some(bar) => bar.println(line),
            // Nobody to tell when standard error is closed.
            None => drop(writeln!(io::stderr(), "{line}")),
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.pause();
    }
}

/// The first line that says something, and how many follow.
fn first_line(text: &str) -> String {
    let mut lines = text
        .lines()
        .map(str::trim_end)
        .skip_while(|line| line.is_empty());
    let Some(first) = lines.next() else {
        return String::new();
    };
    match lines.filter(|line| !line.is_empty()).count() {
        0 => first.to_owned(),
        more => format!("{first} (and {more} more lines)"),
    }
}

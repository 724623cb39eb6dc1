//! Rows of promise, measurement and peer; the table and the JSON of them.

use std::{path::Path, process::ExitCode};

use serde_json::{Value, json};

use crate::host;

/// Measurements of one thing, in the order in which they were made.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The value below which this share of them lies.
    fn at(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let index = (last as f64 * share).round() as usize;
        sorted.get(index).copied().unwrap_or(f64::NAN)
    }

    pub fn median(&self) -> f64 {
        self.at(0.5)
    }
}

impl From<f64> for Samples {
    fn from(value: f64) -> Self {
        Samples(vec![value])
    }
}

/// What was promised of a number.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Bound::AtMost(limit) => value <= limit,
            Bound::AtLeast(limit) => value >= limit,
        }
    }

    fn show(self) -> String {
        match self {
            Bound::AtMost(limit) => format!("≤ {}", number(limit)),
            Bound::AtLeast(limit) => format!("≥ {}", number(limit)),
        }
    }
}

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    figure: String,
    user: String,
    unit: &'static str,
    measured: Samples,
    promise: Option<Bound>,
    peer: Option<(String, Samples)>,
    ratio: Option<f64>,
    ratio_promise: Option<Bound>,
}

impl Row {
    pub fn new(figure: impl Into<String>, unit: &'static str, measured: Samples) -> Self {
        Row {
            figure: figure.into(),
            user: "root".to_owned(),
            unit,
            measured,
            promise: None,
            peer: None,
            ratio: None,
            ratio_promise: None,
        }
    }

    pub fn user(mut self, user: &str) -> Self {
        self.user = user.to_owned();
        self
    }

    pub fn promise(mut self, bound: Bound) -> Self {
        self.promise = Some(bound);
        self
    }

    /// A peer of the same run, in the same unit; the ratio is ours to theirs.
    pub fn peer(mut self, name: &str, samples: &Samples) -> Self {
        self.ratio = Some(self.measured.median() / samples.median());
        self.peer = Some((name.to_owned(), samples.clone()));
        self
    }

    pub fn ratio_promise(mut self, bound: Bound) -> Self {
        self.ratio_promise = Some(bound);
        self
    }

    /// Whether what was promised holds; nothing where nothing was.
    fn met(&self) -> Option<bool> {
        let value = self
            .promise
            .map(|bound| bound.holds(self.measured.median()));
        let ratio = self
            .ratio_promise
            .map(|bound| self.ratio.is_some_and(|ratio| bound.holds(ratio)));
        match (value, ratio) {
            (None, None) => None,
            (value, ratio) => Some(value.unwrap_or(true) && ratio.unwrap_or(true)),
        }
    }

    fn promised(&self) -> String {
        let value = self
            .promise
            .map(|bound| format!("{} {}", bound.show(), self.unit));
        let ratio = self
            .ratio_promise
            .map(|bound| format!("{} × peer", bound.show()));
        match (value, ratio) {
            (Some(value), Some(ratio)) => format!("{value}, {ratio}"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => "–".to_owned(),
        }
    }

    fn line(&self) -> String {
        let spread = if self.measured.0.len() > 1 {
            format!(" (p95 {})", number(self.measured.at(0.95)))
        } else {
            String::new()
        };
        let peer = self.peer.as_ref().map_or_else(
            || "–".to_owned(),
            |(name, samples)| format!("{name}: {} {}", number(samples.median()), self.unit),
        );
        let ratio = self
            .ratio
            .map_or_else(|| "–".to_owned(), |ratio| format!("{} ×", number(ratio)));
        let met = match self.met() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "–",
        };
        format!(
            "| {} | {} | {} | {} {}{spread} | {peer} | {ratio} | {met} |",
            self.figure,
            self.user,
            self.promised(),
            number(self.measured.median()),
            self.unit,
        )
    }

    fn json(&self) -> Value {
        json!({
            "figure": self.figure, "user": self.user, "unit": self.unit, "promise": self.promised(),
            "median": self.measured.median(), "p95": self.measured.at(0.95), "samples": self.measured.0,
            "peer": self.peer.as_ref().map(|(name, samples)| json!({ "name": name, "median": samples.median(), "samples": samples.0 })),
            "ratio": self.ratio, "met": self.met(),
        })
    }
}

/// Everything that was measured.
pub struct Report {
    rows: Vec<Row>,
    notes: Vec<String>,
    load_before: String,
}

impl Report {
    pub fn new() -> Self {
        Report {
            rows: Vec::new(),
            notes: Vec::new(),
            load_before: host::load(),
        }
    }

    pub fn add(&mut self, row: Row) {
        eprintln!("{}", row.line());
        self.rows.push(row);
    }

    /// Something that a reader of the table must know, such as a peer that does not run here.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        eprintln!("note: {note}");
        self.notes.push(note);
    }

    /// Prints the table, ready to be pasted, and says by the exit code whether every promise is met.
    pub fn finish(self, json_path: Option<&Path>) -> ExitCode {
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        let (machine, load_after) = (host::machine(), host::load());
        println!(
            "Measured {date} on {machine}; load average {} before, {load_after} after (1, 5, 15 min).\n",
            self.load_before
        );
        println!("| figure | as | promise | measured (median) | peer | ratio | met |");
        println!("|---|---|---|---|---|---|---|");
        self.rows.iter().for_each(|row| println!("{}", row.line()));
        println!();
        self.notes.iter().for_each(|note| println!("- {note}"));
        let missed: Vec<_> = self
            .rows
            .iter()
            .filter(|row| row.met() == Some(false))
            .collect();
        if let Some(path) = json_path {
            let rows: Vec<_> = self.rows.iter().map(Row::json).collect();
            let document = json!({
                "date": date, "machine": machine, "loadBefore": self.load_before, "loadAfter": load_after,
                "rows": rows, "notes": self.notes, "met": missed.is_empty(),
            });
            std::fs::write(path, format!("{document:#}\n")).expect("the file for the rows");
            eprintln!("written: {}", path.display());
        }
        if missed.is_empty() {
            return ExitCode::SUCCESS;
        }
        eprintln!("{} promises are not met:", missed.len());
        missed.iter().for_each(|row| eprintln!("{}", row.line()));
        ExitCode::FAILURE
    }
}

/// Three significant digits, thousands apart.
fn number(value: f64) -> String {
    if value.abs() < 10.0 {
        let text = format!("{value:.2}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    if value.abs() < 100.0 {
        return format!("{value:.1}").trim_end_matches(".0").to_owned();
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

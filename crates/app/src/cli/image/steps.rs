//! What goes on, on standard error: on a terminal a line that moves and, when a step is done, how long it took; else a
//! plain line when it begins.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use sandbox_docker::images::Progress;

use crate::cli::output::note;

/// How often a terminal's line moves.
const TICK: Duration = Duration::from_millis(120);

/// See the module.
pub(super) struct Steps {
    bar: Option<ProgressBar>,
    running: Option<(String, Instant)>,
}

impl Steps {
    pub(super) fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{spinner} {prefix}  {elapsed}  {wide_msg:.dim}");
            let bar = ProgressBar::new_spinner();
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(TICK);
            bar
        });
        Steps { bar, running: None }
    }

    pub(super) fn tell(&mut self, progress: Progress<'_>) {
        match (progress, &self.bar) {
            (Progress::Step(step), _) => self.step(step),
            (Progress::Detail(detail), Some(bar)) => bar.set_message(detail.to_owned()),
            // Whoever reads a file wants to know the steps.
            (Progress::Detail(_), None) => {}
        }
    }

    fn step(&mut self, step: &str) {
        self.done();
        match &self.bar {
            Some(bar) => {
                bar.reset_elapsed();
                bar.set_message("");
                bar.set_prefix(step.to_owned());
            }
            None => note(step),
        }
        self.running = Some((step.to_owned(), Instant::now()));
    }

    /// The step that runs has come to its end.
    pub(super) fn done(&mut self) {
        if let (Some((step, began)), Some(bar)) = (self.running.take(), &self.bar) {
            let seconds = began.elapsed().as_secs_f64();
            bar.println(format!("  {step}  {seconds:.1} s"));
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

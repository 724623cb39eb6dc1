//! The contract suite: what every backend must do, one named line each.
//!
//! It runs against any [`Harness`], and says of each line whether it was kept, broken, or could not be asked on this
//! machine. That the suite itself can fail is proved by [`crate::fake::Break`]: one broken fake for each line. The
//! commands that it runs are `/bin/sh` and coreutils, and `bash` where it is there.

mod execution;
mod files;
mod lasting;
mod lifecycle;
mod output;
mod relay;
mod room;
mod transfer;

use std::{future::Future, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use model::SandboxSpec;
use tokio::time::timeout;

use crate::{Backend, HostView};
use room::in_room;

/// Longest time of one line; the slowest ones wait for a lease of seconds to run out.
const LINE_TIMEOUT: Duration = Duration::from_secs(60);

/// A backend under test.
pub trait Harness: Send + Sync {
    /// The backend.
    fn backend(&self) -> Arc<dyn Backend>;
    /// A valid spec of a new session, which the backend can build.
    fn spec(&self) -> SandboxSpec;
    /// The host's own view, for the comparison of namespaces.
    fn host_view(&self) -> HostView;
}

/// How a line went when it did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The backend keeps it.
    Kept,
    /// It cannot be asked of this backend on this machine, and why.
    Skipped(String),
}

/// A check of one line. The error says what was found instead.
pub type Check = fn(Arc<dyn Harness>) -> BoxFuture<'static, Result<Verdict, String>>;

/// One line of the contract.
pub struct Line {
    /// Its name, a whole sentence.
    pub name: &'static str,
    /// The check.
    pub check: Check,
}

/// The contract.
pub const LINES: &[Line] = &[
    line("a new sandbox greets", |harness| {
        Box::pin(in_room(harness, lifecycle::greets))
    }),
    line("a running sandbox is listed", |harness| {
        Box::pin(in_room(harness, lifecycle::is_listed))
    }),
    line("a session has one sandbox", |harness| {
        Box::pin(in_room(harness, lifecycle::exists_once))
    }),
    line("destroying leaves nothing behind", |harness| {
        Box::pin(in_room(harness, lifecycle::leaves_nothing))
    }),
    line("destroying is idempotent", |harness| {
        Box::pin(in_room(harness, lifecycle::destroys_again))
    }),
    line("destroying closes the link", |harness| {
        Box::pin(in_room(harness, lifecycle::closes_the_link))
    }),
    line("an unknown session is not found", |harness| {
        Box::pin(lifecycle::unknown_session(harness))
    }),
    line("what is in force is what was asked", |harness| {
        Box::pin(in_room(harness, lifecycle::is_as_asked))
    }),
    line(
        "a named limit that cannot be enforced is refused before creation",
        |harness| Box::pin(lifecycle::refuses_unenforceable(harness)),
    ),
    line("usage of a running sandbox is known", |harness| {
        Box::pin(in_room(harness, lifecycle::knows_usage))
    }),
    line(
        "a paused sandbox stands still until it is resumed",
        |harness| Box::pin(in_room(harness, lifecycle::pauses)),
    ),
    line("exit codes arrive", |harness| {
        Box::pin(in_room(harness, execution::exit_codes))
    }),
    line("output and error come apart", |harness| {
        Box::pin(in_room(harness, execution::streams_apart))
    }),
    line("arguments arrive byte for byte", |harness| {
        Box::pin(in_room(harness, execution::arguments))
    }),
    line("programs run in their directory", |harness| {
        Box::pin(in_room(harness, execution::directory))
    }),
    line("programs get exactly their environment", |harness| {
        Box::pin(in_room(harness, execution::environment))
    }),
    line(
        "the environment of a session reaches every execution, and a start's own wins",
        |harness| Box::pin(in_room(harness, lasting::kept_environment)),
    ),
    line("input arrives and ends", |harness| {
        Box::pin(in_room(harness, execution::input))
    }),
    line("an unknown program is refused with its errno", |harness| {
        Box::pin(in_room(harness, execution::unknown_program))
    }),
    line(
        "a deadline ends a stubborn tree within a second",
        |harness| Box::pin(in_room(harness, execution::deadline)),
    ),
    line("cancelling ends a stubborn program", |harness| {
        Box::pin(in_room(harness, execution::cancel_stubborn))
    }),
    line("cancelling ends the whole tree", |harness| {
        Box::pin(in_room(harness, execution::cancel_tree))
    }),
    line("signals arrive", |harness| {
        Box::pin(in_room(harness, execution::signals))
    }),
    line("starting is idempotent by key", |harness| {
        Box::pin(in_room(harness, execution::starts_once))
    }),
    line("waiting lasts until the end", |harness| {
        Box::pin(in_room(harness, execution::waits))
    }),
    line("an ended execution is forgotten when asked", |harness| {
        Box::pin(in_room(harness, execution::forgets))
    }),
    line("output is exact at every offset", |harness| {
        Box::pin(in_room(harness, output::offsets))
    }),
    line("dropping output keeps the tail", |harness| {
        Box::pin(in_room(harness, output::keeps_the_tail))
    }),
    line("lossless output loses nothing", |harness| {
        Box::pin(in_room(harness, output::lossless))
    }),
    line("reading waits for the first byte", |harness| {
        Box::pin(in_room(harness, output::reading_waits))
    }),
    line(
        "connections to a relayed port reach the host, and its answers come back",
        |harness| Box::pin(in_room(harness, relay::both_ways)),
    ),
    line(
        "connections and datagrams to the port for names reach the host, and its answers come back",
        |harness| Box::pin(in_room(harness, relay::names)),
    ),
    line("a port that is not relayed refuses at once", |harness| {
        Box::pin(in_room(harness, relay::refuses))
    }),
    line(
        "names are asked of loopback, whatever the agent does",
        |harness| Box::pin(in_room(harness, files::resolver)),
    ),
    line(
        "certificates stand where programs find them, and nobody replaces them",
        |harness| Box::pin(files::certificates(harness)),
    ),
    line("executions survive a new server", |harness| {
        Box::pin(lasting::new_server(harness))
    }),
    line("a lease that runs out ends the sandbox", |harness| {
        Box::pin(lasting::lease_ends(harness))
    }),
    line("a renewed lease goes on", |harness| {
        Box::pin(lasting::lease_renewed(harness))
    }),
    line("a shutdown ends the sandbox", |harness| {
        Box::pin(in_room(harness, lasting::shutdown))
    }),
    line("a tree survives the way in and out", |harness| {
        Box::pin(in_room(harness, transfer::round_trip))
    }),
    line("a transfer keeps off refused paths", |harness| {
        Box::pin(in_room(harness, transfer::refused_paths))
    }),
    line("a transfer keeps to its limits", |harness| {
        Box::pin(in_room(harness, transfer::limits))
    }),
];

const fn line(name: &'static str, check: Check) -> Line {
    Line { name, check }
}

/// How the suite went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Lines that were kept.
    pub kept: Vec<&'static str>,
    /// Lines that could not be asked, and why.
    pub skipped: Vec<(&'static str, String)>,
    /// Lines that were broken, and how.
    pub broken: Vec<(&'static str, String)>,
}

/// Runs every line, one after the other.
pub async fn run(harness: Arc<dyn Harness>) -> Report {
    let mut report = Report::default();
    for Line { name, check } in LINES {
        match within(LINE_TIMEOUT, check(Arc::clone(&harness))).await {
            Ok(Verdict::Kept) => report.kept.push(name),
            Ok(Verdict::Skipped(why)) => report.skipped.push((name, why)),
            Err(found) => report.broken.push((name, found)),
        }
    }
    report
}

async fn within<T>(
    limit: Duration,
    check: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    timeout(limit, check)
        .await
        .unwrap_or_else(|_| Err(format!("not done after {limit:?}")))
}

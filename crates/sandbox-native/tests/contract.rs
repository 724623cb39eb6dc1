//! The contract suite on the real backend, every layer required: as root and as an ordinary user.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking and say what they skip"
)]

mod support;

use std::sync::{Arc, Mutex};

use model::{Layer, Requirement, SandboxSpec, SessionId};
use sandbox::{
    Backend, BackendError, HostView,
    contract::{self, Harness, LINES, Report},
};
use support::{Ground, as_ordinary_user, as_root, skip};

/// Lines that depend on the machine: a freezer, a limit that is not hard. Any other that cannot be asked is a failure.
const MAY_BE_SKIPPED: [&str; 2] = [
    "a named limit that cannot be enforced is refused before creation",
    "a paused sandbox stands still until it is resumed",
];

struct OnNative {
    ground: Ground,
    sessions: Mutex<Vec<SessionId>>,
}

impl Harness for OnNative {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(self.ground.native.clone())
    }

    fn spec(&self) -> SandboxSpec {
        let layers = Layer::ALL
            .into_iter()
            .filter(|layer| *layer != Layer::GuestKernel)
            .map(|layer| (layer, Requirement::Required));
        let spec = SandboxSpec {
            layers: layers.collect(),
            ..self.ground.spec()
        };
        self.sessions.lock().unwrap().push(spec.session);
        spec
    }

    fn host_view(&self) -> HostView {
        HostView::read().unwrap()
    }
}

/// Runs the suite as whoever this process is.
async fn the_contract_is_kept(leg: &str) {
    let ground = Ground::new();
    if let Err(BackendError::Unavailable { why, remedy }) = ground.native.capability().await {
        return skip(leg, &format!("{why}; {remedy}"));
    }
    let harness = Arc::new(OnNative {
        ground,
        sessions: Mutex::default(),
    });
    let report = contract::run(harness.clone()).await;
    judge(leg, &report);
    let sessions = harness.sessions.lock().unwrap();
    assert!(!sessions.is_empty());
    for session in sessions.iter() {
        assert_eq!(harness.ground.census(*session), Vec::<String>::new());
    }
}

fn judge(leg: &str, report: &Report) {
    eprintln!(
        "{leg}: {} of {} lines kept, {} skipped",
        report.kept.len(),
        LINES.len(),
        report.skipped.len()
    );
    assert!(report.broken.is_empty(), "{leg}: {:#?}", report.broken);
    for (line, why) in &report.skipped {
        assert!(MAY_BE_SKIPPED.contains(line), "{leg}: {line}: {why}");
        // A leg of its own, so that a machine that can ask the line may require it.
        skip(&format!("{leg}: {line}"), why);
    }
    assert_eq!(report.kept.len() + report.skipped.len(), LINES.len());
}

#[tokio::test]
async fn root_keeps_the_contract() {
    if as_root("root_keeps_the_contract") {
        the_contract_is_kept("root").await;
    }
}

#[tokio::test]
async fn an_ordinary_user_keeps_the_contract() {
    if as_ordinary_user("an_ordinary_user_keeps_the_contract") {
        the_contract_is_kept("unprivileged").await;
    }
}

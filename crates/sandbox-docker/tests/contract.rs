//! The contract suite on a real engine, every layer required that an engine has.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking and say what they skip"
)]

mod support;

use std::sync::{Arc, Mutex};

use model::{Requirement, SandboxSpec, SessionId};
use sandbox::{
    Backend, HostView,
    contract::{self, Harness, LINES},
};
use support::Ground;

struct OnDocker {
    ground: Ground,
    layers: Vec<model::Layer>,
    sessions: Mutex<Vec<SessionId>>,
}

impl Harness for OnDocker {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(self.ground.docker.clone())
    }

    fn spec(&self) -> SandboxSpec {
        let required = self.layers.iter();
        let spec = SandboxSpec {
            layers: required
                .map(|layer| (*layer, Requirement::Required))
                .collect(),
            ..self.ground.spec()
        };
        self.sessions.lock().unwrap().push(spec.session);
        spec
    }

    fn host_view(&self) -> HostView {
        HostView::read().unwrap()
    }
}

#[tokio::test]
async fn docker_keeps_the_contract() {
    let Some(ground) = Ground::new("docker_keeps_the_contract").await else {
        return;
    };
    let layers = ground.docker.capability().await.unwrap().layers;
    assert!(layers.len() >= 11, "{layers:?}");
    let harness = Arc::new(OnDocker {
        ground,
        layers,
        sessions: Mutex::default(),
    });
    let report = contract::run(harness.clone()).await;
    eprintln!("{} of {} lines kept", report.kept.len(), LINES.len());
    assert!(report.broken.is_empty(), "{:#?}", report.broken);
    assert_eq!(report.skipped, []);
    assert_eq!(report.kept.len(), LINES.len());
    assert!(!harness.sessions.lock().unwrap().is_empty());
    harness.ground.is_clean().await;
    // What is listed and never made would be a wider list than it need be.
    let made = harness.ground.filter.made();
    let listed = sandbox_docker::calls::SESSIONS
        .iter()
        .chain(sandbox_docker::calls::DOCTOR)
        .chain(sandbox_docker::calls::IMAGES);
    for call in listed {
        assert!(made.contains(call), "{call:?} is listed and was never made");
    }
}

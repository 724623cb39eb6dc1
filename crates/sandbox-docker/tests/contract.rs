//! The contract suite on a real engine, every layer required that an engine has.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking and say what they skip"
)]

mod support;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use model::{Layer, Requirement, SandboxSpec, SessionId};
use sandbox::{
    Backend, HostView,
    contract::{self, Harness, LINES},
};
use sandbox_docker::calls::{self, Call};
use support::{Ground, OwnEngine, Scene, world};

struct OnDocker {
    ground: Ground,
    layers: Vec<Layer>,
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
    let made = keeps_the_contract(ground).await;
    for call in calls::SESSIONS
        .iter()
        .chain(calls::DOCTOR)
        .chain(calls::IMAGES)
    {
        assert!(made.contains(call), "{call:?} is listed and was never made");
    }
    assert!(!made.contains(&calls::ATTACHED[0]));
}

/// Decision 3 of the design: the same frames over the standard streams.
#[tokio::test]
async fn docker_keeps_the_contract_over_standard_streams() {
    let leg = "docker_keeps_the_contract_over_standard_streams";
    let Some(ground) = Ground::at(Scene::Attached, leg).await else {
        return;
    };
    let made = keeps_the_contract(ground).await;
    assert!(made.contains(&calls::ATTACHED[0]));
}

/// P1a: a runtime class with a kernel of its own.
#[tokio::test]
async fn gvisor_keeps_the_contract() {
    let Some(ground) = Ground::with_gvisor("gvisor_keeps_the_contract").await else {
        return;
    };
    let made = keeps_the_contract(ground).await;
    assert!(made.contains(&calls::ATTACHED[0]));
}

/// T1.2: an engine that maps the ids of its containers gives them a user namespace beside all the rest.
#[tokio::test]
async fn an_engine_that_maps_ids_keeps_the_contract() {
    let leg = "an_engine_that_maps_ids_keeps_the_contract";
    if !world::is_inside(leg) {
        return;
    }
    let scene = Scene::Own(OwnEngine::remapped());
    let ground = Ground::at(scene, leg).await.unwrap();
    let capability = ground.docker.capability().await.unwrap();
    assert!(capability.layers.contains(&Layer::UserNamespace));
    assert!(capability.rung.contains("userns-remap"), "{capability:?}");
    keeps_the_contract(ground).await;
}

/// The calls that were made.
async fn keeps_the_contract(ground: Ground) -> BTreeSet<Call> {
    let layers = match ground.scene {
        // All but Landlock, which that kernel has not.
        Scene::Gvisor(_) => {
            let mut layers = Layer::ALL.to_vec();
            layers.retain(|layer| *layer != Layer::Landlock);
            layers
        }
        Scene::Usual | Scene::Attached | Scene::Own(_) => {
            ground.docker.capability().await.unwrap().layers
        }
    };
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
    harness.ground.filter.made()
}

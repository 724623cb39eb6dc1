//! The contract suite on the fake, and the proof that each of its lines can fail.
//!
//! Time is simulated: the clock moves on when nothing else can happen.

#![allow(clippy::unwrap_used, reason = "a set-up that fails fails its test")]

use std::{collections::BTreeSet, sync::Arc};

use model::{
    Enforcement, HostDirectory, Layer, Limit, LimitName, Limits, OwnerId, ProtectedPath,
    Protection, Requirement, RootFileSystem, SandboxSpec, SessionId,
};
use sandbox::{
    Backend, HostView,
    contract::{self, Harness, LINES, Report},
    fake::{Break, Fake, FakeOptions},
};

struct OnFake {
    fake: Fake,
}

impl Harness for OnFake {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(self.fake.clone())
    }

    fn spec(&self) -> SandboxSpec {
        let limit = Limit::default_of(1 << 30);
        let mut limits = Limits {
            memory_bytes: limit,
            cpu_millis: limit,
            pids: limit,
            open_files: limit,
            file_bytes: limit,
            temporary_bytes: limit,
            state_bytes: limit,
        };
        limits.memory_bytes.named = true;
        let layers = [
            Layer::Seccomp,
            Layer::NetworkNamespace,
            Layer::NotRoot,
            Layer::ReadOnlyRoot,
        ];
        SandboxSpec {
            session: SessionId::random().unwrap(),
            owner: OwnerId::from_bytes([1; 8]),
            root: RootFileSystem::HostSystem,
            runtime: None,
            workspace: HostDirectory {
                path: "/project".into(),
                device: 1,
                inode: 1,
                uid: 1000,
                gid: 1000,
            },
            protected: vec![ProtectedPath {
                relative: ".git".into(),
                protection: Protection::ReadOnly,
            }],
            mounts: Vec::new(),
            agent: None,
            managed_settings: None,
            certificates: None,
            limits,
            accept_soft_limits: false,
            layers: layers.map(|layer| (layer, Requirement::Required)).to_vec(),
            lease_ms: 30_000,
        }
    }

    fn host_view(&self) -> HostView {
        HostView::read().unwrap()
    }
}

async fn run(broken: Option<Break>) -> Report {
    // One limit is only soft, so that no line is skipped.
    let enforcement = vec![(LimitName::StateBytes, Enforcement::Soft)];
    let fake = Fake::with_options(FakeOptions {
        enforcement,
        broken,
        ..FakeOptions::default()
    });
    contract::run(Arc::new(OnFake { fake })).await
}

#[tokio::test(start_paused = true)]
async fn the_honest_fake_keeps_every_line() {
    let report = run(None).await;
    assert_eq!(report.broken, []);
    assert_eq!(report.skipped, []);
    assert_eq!(report.kept.len(), LINES.len());
}

#[tokio::test(start_paused = true)]
async fn a_line_that_cannot_be_asked_is_reported_as_skipped() {
    let report = contract::run(Arc::new(OnFake { fake: Fake::new() })).await;
    assert_eq!(report.broken, []);
    let skipped: Vec<_> = report.skipped.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        skipped,
        ["a named limit that cannot be enforced is refused before creation"]
    );
}

/// What these break, other lines are built on: each of them may fail a few more than its own.
const BROAD: [Break; 9] = [
    Break::LosesExitCodes,
    Break::RelaysNothing,
    Break::DestroysOnce,
    Break::InventsSessions,
    Break::IgnoresCancel,
    Break::LeavesTheTree,
    Break::WaitNeverWaits,
    Break::OffsetsAreOff,
    Break::ReadNeverWaits,
];

fn most_failures(broken: Break) -> usize {
    if broken == Break::NeverGreets {
        LINES.len()
    } else if BROAD.contains(&broken) {
        5
    } else {
        1
    }
}

#[tokio::test(start_paused = true)]
async fn every_broken_fake_fails_its_line() {
    for broken in Break::ALL {
        let report = run(Some(*broken)).await;
        let failed: Vec<_> = report.broken.iter().map(|(name, _)| *name).collect();
        assert!(
            failed.contains(&broken.line()),
            "{broken:?} failed only {failed:?}"
        );
        assert!(
            failed.len() <= most_failures(*broken),
            "{broken:?}: {:#?}",
            report.broken
        );
    }
}

#[test]
fn every_line_has_a_broken_fake_and_every_broken_fake_a_line() {
    let lines: BTreeSet<&str> = LINES.iter().map(|line| line.name).collect();
    let broken: BTreeSet<&str> = Break::ALL.iter().map(|broken| broken.line()).collect();
    assert_eq!(lines, broken);
    assert_eq!(lines.len(), LINES.len(), "two lines have one name");
}

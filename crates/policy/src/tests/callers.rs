//! What callers may do at most, and what sessions may be promised (P2c, D3).

use std::{num::NonZeroU32, time::Duration};

use super::fixture::*;
use crate::{CallerLimits, MachineFacts, Overcommit, PlaceBounds, Policy, PolicyConfig};

fn bounds(change: impl FnOnce(&mut CallerLimits), machine: MachineFacts) -> PlaceBounds {
    let mut config = config();
    change(&mut config.callers);
    Policy::new(config).unwrap().bounds(&alice(), &machine)
}

/// How many sessions of the profile fit into these bounds.
fn fitting(bounds: &PlaceBounds) -> u64 {
    let profile = Policy::default_limits().unwrap();
    [
        bounds
            .memory_bytes
            .map(|all| all / profile.memory_bytes.value),
        bounds.cpu_millis.map(|all| all / profile.cpu_millis.value),
        bounds.disk_bytes.map(|all| all / profile.state_bytes.value),
        Some(bounds.sessions.into()),
    ]
    .into_iter()
    .flatten()
    .min()
    .unwrap()
}

#[test]
fn the_defaults_let_a_small_laptop_have_the_ten_sessions_of_the_default_and_a_tiny_machine_fewer() {
    let laptop = MachineFacts {
        memory_bytes: 5 << 30,
        cpu_millis: 1_000,
        disk_bytes: 5 << 30,
    };
    let unchanged = |_: &mut CallerLimits| {};
    assert_eq!(fitting(&bounds(unchanged, laptop)), 10);
    for (machine, sessions) in [
        (
            MachineFacts {
                memory_bytes: 1 << 30,
                ..laptop
            },
            2,
        ),
        (
            MachineFacts {
                cpu_millis: 500,
                ..laptop
            },
            5,
        ),
        (
            MachineFacts {
                disk_bytes: 1 << 30,
                ..laptop
            },
            2,
        ),
        (
            MachineFacts {
                disk_bytes: 0,
                ..laptop
            },
            0,
        ),
    ] {
        assert_eq!(
            fitting(&bounds(unchanged, machine)),
            sessions,
            "{machine:?}"
        );
    }
}

#[test]
fn a_factor_multiplies_what_the_machine_has_and_none_leaves_it_out() {
    let machine = MachineFacts {
        memory_bytes: 1_001,
        cpu_millis: 3_000,
        disk_bytes: u64::MAX,
    };
    let found = bounds(
        |callers| {
            callers.overcommit = Overcommit {
                memory: Some(150),
                cpu: None,
                disk: Some(200),
            }
        },
        machine,
    );
    assert_eq!(
        (found.memory_bytes, found.cpu_millis, found.disk_bytes),
        (Some(1_501), None, Some(u64::MAX)),
    );
}

#[test]
fn callers_and_projects_are_bounded_where_the_operator_says_so() {
    let found = bounds(|_| {}, MACHINE);
    assert_eq!(
        (found.sessions_of_caller, found.sessions_of_project),
        (None, None)
    );
    let found = bounds(
        |callers| {
            callers.max_sessions = NonZeroU32::new(4);
            callers.max_sessions_per_project = NonZeroU32::new(2);
        },
        MACHINE,
    );
    assert_eq!(
        (found.sessions_of_caller, found.sessions_of_project),
        (Some(4), Some(2))
    );
}

#[test]
fn what_no_server_could_keep_is_no_configuration() {
    for (option, change) in [
        (
            "max_calls_per_caller",
            (|callers| callers.max_open_calls = 0) as fn(&mut CallerLimits),
        ),
        ("queue_wait", |callers| {
            callers.queue_wait = Duration::from_secs(46)
        }),
    ] {
        let mut config = config();
        change(&mut config.callers);
        let error = Policy::new(config).unwrap_err().to_string();
        assert!(error.contains(&format!("`{option}`")), "{error}");
    }
    let longest = PolicyConfig {
        callers: CallerLimits {
            queue_wait: crate::MAX_QUEUE_WAIT,
            ..CallerLimits::default()
        },
        ..config()
    };
    assert!(Policy::new(longest).is_ok(), "the control");
}

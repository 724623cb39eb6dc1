//! Whatever is accepted is no weaker than the profile.

use model::{LimitName, OptionValue as V};
use proptest::prelude::*;

use super::{OPEN, admit, list, text, ulimit};

/// What some option or other takes, so that much of it is accepted.
fn likely_value() -> impl Strategy<Value = V> {
    let number = prop_oneof![1_i64..100, 1_000_i64..100_000, 1_i64 << 20..1 << 34];
    let size = "(1[6-9]|[1-9][0-9]{2})[mg]";
    let name = prop_oneof!["nofile", "fsize", "nproc", "core", "memlock", "nofil"];
    let limits = (name, number.clone(), number.clone()).prop_map(|(name, soft, more)| {
        let zero = name == "core";
        let (soft, hard) = if zero {
            (0, 0)
        } else {
            (soft, soft.saturating_add(more))
        };
        ulimit(&name, soft, hard)
    });
    let place = prop_oneof!["/tmp", "/run", "/home/agent", "/dev/shm", "/etc"];
    let options = prop_oneof!["", "rw,nosuid,nodev", "exec", "suid,dev"];
    let tmpfs = (place, options, size).prop_map(|(place, options, size)| {
        let separator = if options.is_empty() { "" } else { "," };
        V::Object(vec![(
            place,
            V::Text(format!("{options}{separator}size={size}")),
        )])
    });
    prop_oneof![
        Just(V::Boolean(true)),
        number.prop_map(V::Integer),
        size.prop_map(V::Text),
        prop::collection::vec(limits, 0..3).prop_map(V::List),
        tmpfs,
        Just(list([text("ALL")])),
        Just(list([text("no-new-privileges")])),
        Just(text("none")),
    ]
}

fn any_value() -> impl Strategy<Value = V> {
    let leaf = prop_oneof![
        Just(V::Null),
        any::<bool>().prop_map(V::Boolean),
        any::<i64>().prop_map(V::Integer),
        (1_i64..5_000_000_000).prop_map(V::Integer),
        "[0-9]{1,6}[bkmgt]?".prop_map(V::Text),
        prop_oneof![
            Just("no-new-privileges"),
            Just("ALL"),
            Just("none"),
            Just("host")
        ]
        .prop_map(text),
    ];
    prop_oneof![
        4 => leaf.clone(),
        1 => prop::collection::vec(leaf, 0..3).prop_map(V::List),
        6 => likely_value(),
    ]
}

fn any_options() -> impl Strategy<Value = Vec<(String, V)>> {
    let names = [
        "Memory",
        "MemorySwap",
        "CpuQuota",
        "CpuPeriod",
        "NanoCpus",
        "PidsLimit",
        "CapDrop",
        "ReadonlyRootfs",
        "SecurityOpt",
        "NetworkMode",
        "Privileged",
        "CapAdd",
        "Binds",
        "PidMode",
        "Init",
        "Ulimits",
        "Tmpfs",
        "ShmSize",
        "User",
        "Runtime",
    ];
    prop::collection::btree_map(prop::sample::select(names.to_vec()), any_value(), 0..5).prop_map(
        |options| {
            options
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()
        },
    )
}

/// What the property below holds of: with options of every kind accepted, or it would hold of nothing.
#[test]
fn the_property_meets_every_field_that_narrows() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut accepted = std::collections::BTreeSet::new();
    for _ in 0..4_000 {
        let options = any_options().new_tree(&mut runner).unwrap().current();
        if admit(options.clone()).is_ok() {
            let given = options
                .into_iter()
                .filter(|(_, value)| !value.says_nothing());
            accepted.extend(given.map(|(name, _)| name));
        }
    }
    for field in OPEN
        .iter()
        .filter(|field| !["MemorySwap", "CpuPeriod"].contains(field))
    {
        assert!(
            accepted.contains(*field),
            "{field} is never accepted: {accepted:?}"
        );
    }
    assert!(!accepted.contains("Privileged") && !accepted.contains("User"));
}

proptest! {
    #[test]
    fn no_options_make_a_session_weaker_than_the_profile(options in any_options()) {
        let plain = admit(Vec::new()).unwrap().into_parts();
        let Ok(permit) = admit(options) else { return Ok(()) };
        let parts = permit.into_parts();
        for limit in LimitName::ALL {
            prop_assert!(parts.limits.get(limit).value <= plain.limits.get(limit).value);
        }
        for layer in &plain.layers {
            prop_assert!(parts.layers.contains(layer), "{:?} is gone", layer);
        }
        prop_assert_eq!(parts.protected, plain.protected);
        prop_assert_eq!(parts.mounts, plain.mounts);
        prop_assert_eq!(parts.accept_soft_limits, plain.accept_soft_limits);
    }
}

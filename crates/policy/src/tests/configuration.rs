//! The operator's configuration, and limits that only narrow.

use std::time::Duration;

use model::{BindMount, LimitName, LimitRequest, Reason};

use super::fixture::*;
use crate::{Policy, PolicyConfig};

fn limits(limits: Vec<LimitRequest>) -> Result<model::Limits, model::Refusal> {
    let policy = policy();
    let mut asked = create(PROJECT);
    asked.limits = limits;
    policy
        .admit_create(&alice(), &asked, facts(&policy, PROJECT, &[]))
        .map(|permit| permit.into_parts().limits)
}

#[test]
fn a_configuration_that_makes_no_sense_names_its_option() {
    type Change = fn(&mut PolicyConfig);
    let table: [(&str, Change); 21] = [
        ("project_roots[0]", |config| {
            config.project_roots = vec!["code".into()]
        }),
        ("project_roots[0]", |config| {
            config.project_roots = vec!["/srv/../code".into()]
        }),
        ("project_roots[1]", |config| {
            config.project_roots.push(HOME.into())
        }),
        ("project_roots[1]", |config| {
            config.project_roots.push("/".into())
        }),
        ("project_roots[1]", |config| {
            config.project_roots.push("/etc/nginx".into())
        }),
        ("home", |config| config.home = "".into()),
        ("state_directory", |config| {
            config.state_directory = "/".into()
        }),
        ("limits.memory", |config| {
            config.limits.memory_bytes.value = 1
        }),
        ("limits.pids", |config| config.limits.pids.value = u64::MAX),
        ("limits.temporary", |config| {
            config.limits.temporary_bytes.value = config.limits.memory_bytes.value + 1
        }),
        ("max_concurrent_sessions", |config| config.max_sessions = 0),
        ("max_running_executions", |config| {
            config.max_running_executions = 0
        }),
        ("default_session_timeout", |config| {
            config.default_ttl = config.max_ttl * 2
        }),
        ("default_session_timeout", |config| {
            config.default_ttl = Duration::ZERO
        }),
        ("max_session_timeout", |config| {
            config.max_ttl = Duration::from_secs(31 * 86_400)
        }),
        ("default_idle_timeout", |config| {
            config.default_idle = Duration::ZERO
        }),
        ("max_execution_timeout", |config| {
            config.max_execution_timeout = config.max_ttl * 2
        }),
        ("lease_seconds", |config| config.lease = Duration::ZERO),
        ("mounts", |config| {
            config
                .operator_mounts
                .push(operator("/home/alice/.ssh", "/keys", true))
        }),
        ("mounts", |config| {
            config
                .operator_mounts
                .push(operator("/opt/tools", "/usr/tools", true))
        }),
        ("mounts", |config| {
            config
                .operator_mounts
                .push(operator("/opt/tools", "/opt/tools", false))
        }),
    ];
    for (option, change) in table {
        let mut config = config();
        change(&mut config);
        let Err(error) = Policy::new(config) else {
            panic!("{option} was taken")
        };
        let error = error.to_string();
        assert!(error.contains(&format!("`{option}`")), "{option}: {error}");
    }
    let mut config = config();
    config
        .operator_mounts
        .push(operator("/opt/tools", "/opt/tools", true));
    assert!(Policy::new(config).is_ok());
}

fn operator(source: &str, target: &str, read_only: bool) -> BindMount {
    BindMount {
        source: directory(source),
        target: target.into(),
        read_only,
    }
}

#[test]
fn a_limit_only_narrows() {
    let limit =
        |limit, value| limits(vec![LimitRequest { limit, value }]).map(|limits| limits.get(limit));
    assert_eq!(
        limit(LimitName::MemoryBytes, 2 << 30).unwrap().value,
        2 << 30,
        "the guide's \"2g\""
    );
    assert_eq!(
        limit(LimitName::CpuMillis, 500).unwrap().value,
        500,
        "the guide's CpuQuota"
    );
    assert_eq!(
        limit(LimitName::MemoryBytes, 16 << 20).unwrap().value,
        16 << 20
    );
    let refusal = refused_as(
        limit(LimitName::MemoryBytes, (2 << 30) + 1),
        Reason::InvalidArgument,
        "limits.memoryBytes",
        "over",
    );
    assert!(
        refusal.message.contains("2147483648") && refusal.hint.contains("`limits.memory`"),
        "{refusal:?}"
    );
    refused_as(
        limit(LimitName::MemoryBytes, (16 << 20) - 1),
        Reason::InvalidArgument,
        "limits.memoryBytes",
        "under",
    );
    refused_as(
        limit(LimitName::Pids, 7),
        Reason::InvalidArgument,
        "limits.pids",
        "under",
    );
    refused_as(
        limit(LimitName::Pids, 0),
        Reason::InvalidArgument,
        "limits.pids",
        "zero",
    );
    refused_as(
        limit(LimitName::StateBytes, u64::MAX),
        Reason::InvalidArgument,
        "limits.stateBytes",
        "huge",
    );
    let twice = vec![
        LimitRequest {
            limit: LimitName::Pids,
            value: 64
        };
        2
    ];
    refused_as(
        limits(twice),
        Reason::InvalidArgument,
        "limits.pids",
        "twice",
    );
}

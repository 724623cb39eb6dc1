//! What protects a session, in the words of an engine: from what was read back, never from what was asked.

use model::{Attestation, Enforcement, Layer, LimitName};

use crate::reply::{DockerOptionsReply, UlimitReply};

/// Period in which a quota is told, microseconds (the kernel's default).
const CPU_PERIOD_US: u64 = 100_000;

/// Only what the kernel holds: an engine knows nothing softer. Given to create_session as its dockerOpts, it asks for the same.
pub(super) fn in_force(attestation: &Attestation) -> DockerOptionsReply {
    let limit = |name: LimitName| {
        let found = attestation.limits.iter().find(|found| found.limit == name);
        found
            .filter(|found| found.enforcement == Enforcement::Hard)
            .and_then(|found| found.in_force)
    };
    let layer = |name: Layer| {
        let mut layers = attestation.layers.iter();
        layers.any(|found| found.layer == name && found.in_force)
    };
    let words =
        |name: Layer, word: &str| layer(name).then(|| word.to_owned()).into_iter().collect();
    let ulimit = |name: &str, limit_name: LimitName| {
        limit(limit_name).map(|value| UlimitReply {
            name: name.to_owned(),
            soft: value,
            hard: value,
        })
    };
    let cpu_millis = limit(LimitName::CpuMillis);
    DockerOptionsReply {
        memory: limit(LimitName::MemoryBytes),
        cpu_quota: cpu_millis.map(|millis| millis.saturating_mul(CPU_PERIOD_US / 1_000)),
        cpu_period: cpu_millis.map(|_| CPU_PERIOD_US),
        pids_limit: limit(LimitName::Pids),
        ulimits: [
            ulimit("nofile", LimitName::OpenFiles),
            ulimit("fsize", LimitName::FileBytes),
        ]
        .into_iter()
        .flatten()
        .collect(),
        cap_drop: words(Layer::EmptyCapabilities, "ALL"),
        readonly_rootfs: layer(Layer::ReadOnlyRoot).then_some(true),
        security_opt: words(Layer::NoNewPrivileges, "no-new-privileges"),
        network_mode: layer(Layer::NetworkNamespace).then(|| "none".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use model::{LayerInForce, LimitInForce};

    use super::*;

    fn attestation(enforcement: Enforcement, in_force: Option<u64>, layers: bool) -> Attestation {
        let limit = |limit| LimitInForce {
            limit,
            asked: 7_000,
            in_force,
            enforcement,
            mechanism: String::new(),
        };
        let layer = |layer| LayerInForce {
            layer,
            in_force: layers,
            evidence: String::new(),
        };
        Attestation {
            layers: Layer::ALL.map(layer).to_vec(),
            limits: LimitName::ALL.map(limit).to_vec(),
            rung: String::new(),
        }
    }

    #[test]
    fn what_was_read_back_is_told_and_not_what_was_asked() {
        let told = in_force(&attestation(Enforcement::Hard, Some(500), true));
        let told = serde_json::to_value(told).unwrap();
        assert_eq!(
            told,
            serde_json::json!({
                "Memory": 500, "CpuQuota": 50_000, "CpuPeriod": 100_000, "PidsLimit": 500,
                "Ulimits": [
                    { "Name": "nofile", "Soft": 500, "Hard": 500 },
                    { "Name": "fsize", "Soft": 500, "Hard": 500 },
                ],
                "CapDrop": ["ALL"], "ReadonlyRootfs": true, "SecurityOpt": ["no-new-privileges"], "NetworkMode": "none",
            })
        );
    }

    #[test]
    fn what_is_not_in_force_is_absent() {
        for (enforcement, in_force_) in [
            (Enforcement::Soft, Some(500)),
            (Enforcement::None, None),
            (Enforcement::Hard, None),
        ] {
            let told = in_force(&attestation(enforcement, in_force_, false));
            assert_eq!(told, DockerOptionsReply::default());
        }
    }
}

//! Sessions in replies.

use std::time::{Duration, SystemTime};

use model::{
    Attestation, BudgetLeft, BudgetScope, Enforcement, LimitName, NetworkPolicy, NetworkQuestion,
    ProviderUsageView, SessionState, SessionView,
};

use super::{docker_options, prompt::tokens};
use crate::{
    reply::{
        BudgetLeftReply, HardeningReply, LayerReply, LimitReply, LimitsReply, NetworkReply,
        NetworkRuleReply, PendingNetworkReply, ProviderUsageReply, SessionReply, UsageReply,
    },
    text,
};

/// RFC 3339 in UTC.
pub(crate) fn timestamp(at: SystemTime) -> String {
    // A time that the calendar cannot hold (year 10,000) is shown as the last or first that it can.
    let limit = if at < SystemTime::UNIX_EPOCH {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    };
    jiff::Timestamp::try_from(at).unwrap_or(limit).to_string()
}

/// A session in full.
pub(crate) fn session(view: &SessionView) -> SessionReply {
    SessionReply {
        limits: view.attestation.as_ref().map(limits),
        hardening: view.attestation.as_ref().map(hardening),
        docker_opts_in_force: view.attestation.as_ref().map(docker_options::in_force),
        network: view.network.as_ref().map(network),
        pending_network_requests: view.network_questions.iter().map(pending_network).collect(),
        ..listed_session(view)
    }
}

/// A session among others: without limits and hardening, which would make a list too long to read.
pub(crate) fn listed_session(view: &SessionView) -> SessionReply {
    SessionReply {
        session_id: view.id.to_string(),
        session_name: text::sentence(&view.name),
        state: view.state.into(),
        backend: view.backend.as_str().to_owned(),
        project_path: text::sentence(&view.project_path.to_string_lossy()),
        container_name: view.container_name.clone(),
        created_at: timestamp(view.created_at),
        expires_at: timestamp(view.expires_at),
        idle_seconds: view.idle_seconds,
        limits: None,
        hardening: None,
        docker_opts_in_force: None,
        network: None,
        pending_network_requests: Vec::new(),
        usage: view.usage.as_ref().map(|usage| UsageReply {
            memory_bytes: usage.memory_bytes,
            cpu_us: usage.cpu_us,
            pids: usage.pids,
            oom_kills: usage.oom_kills,
        }),
        provider_usage: view.provider_usage.as_ref().map(provider_usage),
        running_executions: view
            .running_executions
            .iter()
            .map(ToString::to_string)
            .collect(),
        ended_because: view.ended_because.as_deref().map(text::sentence),
        ended_at: view.ended_at.map(timestamp),
        message: message(view),
    }
}

fn provider_usage(usage: &ProviderUsageView) -> ProviderUsageReply {
    ProviderUsageReply {
        requests: usage.requests,
        denied: usage.denied,
        tokens: tokens(&usage.tokens),
        cost_usd: dollars(usage.cost_micro_usd),
        unpriced_requests: usage.unpriced_requests,
        left: usage.left.iter().map(budget_left).collect(),
    }
}

fn budget_left(left: &BudgetLeft) -> BudgetLeftReply {
    let scope = match left.scope {
        BudgetScope::Session => "session",
        BudgetScope::CallerDay => "callerDay",
        BudgetScope::ServerDay => "serverDay",
    };
    BudgetLeftReply {
        scope: scope.to_owned(),
        requests: left.requests,
        tokens: left.tokens,
        usd: left.micro_usd.map(dollars),
    }
}

fn dollars(micro: u64) -> f64 {
    micro as f64 / 1e6
}

fn limits(attestation: &Attestation) -> LimitsReply {
    let mut limits = LimitsReply::default();
    for limit in &attestation.limits {
        let place = match limit.limit {
            LimitName::MemoryBytes => &mut limits.memory_bytes,
            LimitName::CpuMillis => &mut limits.cpu_millis,
            LimitName::Pids => &mut limits.pids,
            LimitName::OpenFiles => &mut limits.open_files,
            LimitName::FileBytes => &mut limits.file_bytes,
            LimitName::TemporaryBytes => &mut limits.temporary_bytes,
            LimitName::StateBytes => &mut limits.state_bytes,
        };
        *place = match limit.enforcement {
            Enforcement::None => None,
            Enforcement::Soft | Enforcement::Hard => limit.in_force.or(Some(limit.asked)),
        };
    }
    limits
}

fn network(network: &NetworkPolicy) -> NetworkReply {
    let rules = network.rules.iter().map(|named| NetworkRuleReply {
        name: named.name.clone(),
        host: named.rule.host.to_string(),
        ports: named.rule.ports.clone(),
        methods: named.rule.methods.clone(),
        paths: named.rule.paths.clone(),
        private: named.rule.private,
    });
    NetworkReply {
        rules: rules.collect(),
        credentials: network.credentials.clone(),
    }
}

fn pending_network(question: &NetworkQuestion) -> PendingNetworkReply {
    PendingNetworkReply {
        host: text::sentence(&question.target.host),
        port: question.target.port,
        denied_at: timestamp(SystemTime::UNIX_EPOCH + Duration::from_millis(question.denied_at_ms)),
    }
}

fn hardening(attestation: &Attestation) -> HardeningReply {
    HardeningReply {
        rung: text::sentence(&attestation.rung),
        layers: attestation
            .layers
            .iter()
            .map(|layer| LayerReply {
                layer: camel_case(&layer.layer),
                in_force: layer.in_force,
                evidence: text::sentence(&layer.evidence),
            })
            .collect(),
        limits: attestation
            .limits
            .iter()
            .map(|limit| LimitReply {
                limit: limit.limit.as_str().to_owned(),
                asked: limit.asked,
                in_force: limit.in_force,
                enforcement: camel_case(&limit.enforcement),
                mechanism: text::sentence(&limit.mechanism),
            })
            .collect(),
    }
}

/// The name that the noun itself has in JSON.
fn camel_case(noun: &impl serde::Serialize) -> String {
    serde_json::to_value(noun)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn message(view: &SessionView) -> String {
    let id = view.id;
    let ends = timestamp(view.expires_at);
    match view.state {
        SessionState::Creating => {
            format!("Still being built; call get_session with sessionId {id} in a moment.")
        }
        SessionState::Ready => format!(
            "Ready: run commands with execute_command and sessionId {id}. It ends at {ends} or after {} s unused.",
            view.idle_seconds
        ),
        SessionState::Busy => format!(
            "{} executions are running; more can be started with execute_command. It ends at {ends}, whatever runs.",
            view.running_executions.len()
        ),
        SessionState::Paused => {
            "Stopped by the operator; nothing runs until it is resumed.".to_owned()
        }
        SessionState::Expired => {
            "Its time ran out and everything in it is gone; create a new one.".to_owned()
        }
        SessionState::Destroyed => {
            "Destroyed; everything in it is gone. Create a new one to go on.".to_owned()
        }
        SessionState::Failed => {
            "It failed and everything in it is gone; endedBecause says why. Create a new one."
                .to_owned()
        }
        SessionState::Unknown => {
            "Not yet found again after a restart of the server; call get_session in a few seconds."
                .to_owned()
        }
    }
}

//! What the options add up to, while they are read.

use model::{LimitName, Reason, Refusal};

use super::{table::HostConfig, values::Place};
use crate::limits;

/// An engine's period of CPU time where none is named, microseconds (the kernel's `cpu.cfs_period_us`).
const DEFAULT_PERIOD_US: i64 = 100_000;

/// A limit that an option names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OptionLimit {
    /// Which limit.
    pub(crate) limit: LimitName,
    /// Its value, in the unit of the limit.
    pub(crate) value: u64,
    path: String,
    rule: String,
}

impl OptionLimit {
    /// The refusal of a value with which no session works.
    pub(crate) fn below(&self, floor: u64) -> Refusal {
        let Self {
            limit, path, rule, ..
        } = self;
        let message = format!(
            "`{path}` comes to {}, too little for a session to work (rule {rule}).",
            limits::show(*limit, self.value)
        );
        let hint = format!("Ask for at least {}.", limits::show(*limit, floor));
        Refusal::new(Reason::InvalidArgument, message, hint).in_field(path.clone())
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Read {
    limits: Vec<OptionLimit>,
    pub(super) memory: Option<u64>,
    pub(super) memory_and_swap: Option<u64>,
    pub(super) quota_us: Option<i64>,
    pub(super) period_us: Option<i64>,
    pub(super) nano_cpus: Option<i64>,
}

impl Read {
    /// Of several requests for one limit, the least counts.
    pub(super) fn lower(&mut self, limit: LimitName, value: u64, place: &Place<'_>) {
        let asked = OptionLimit {
            limit,
            value,
            path: place.path.to_owned(),
            rule: place.rule.to_owned(),
        };
        match self.limits.iter_mut().find(|found| found.limit == limit) {
            Some(found) if found.value <= value => {}
            Some(found) => *found = asked,
            None => self.limits.push(asked),
        }
    }

    /// # Errors
    /// [`Reason::InvalidArgument`] for options that contradict each other.
    pub(super) fn finish(mut self, table: &HostConfig) -> Result<Vec<OptionLimit>, Refusal> {
        let place = |path: &'static str| Place {
            path,
            rule: table.rule(path.trim_start_matches("dockerOpts.")),
        };
        if self.memory_and_swap.is_some() && self.memory_and_swap != self.memory {
            return Err(place("dockerOpts.MemorySwap").malformed(
                "differs from Memory",
                "Leave it out: memory and swap together are limited by Memory.",
            ));
        }
        if self.nano_cpus.is_some() && self.quota_us.is_some() {
            return Err(place("dockerOpts.NanoCpus")
                .malformed("is given beside CpuQuota", "Give one of them."));
        }
        if self.period_us.is_some() && self.quota_us.is_none() {
            return Err(place("dockerOpts.CpuPeriod")
                .malformed("is given without CpuQuota", "Give both, or neither."));
        }
        let period = i128::from(self.period_us.unwrap_or(DEFAULT_PERIOD_US));
        let millis = match (self.quota_us, self.nano_cpus) {
            (Some(quota), _) => Some((i128::from(quota) * 1_000 / period, "dockerOpts.CpuQuota")),
            (None, Some(nano)) => Some((i128::from(nano) / 1_000_000, "dockerOpts.NanoCpus")),
            (None, None) => None,
        };
        if let Some((millis, path)) = millis {
            let millis = u64::try_from(millis).unwrap_or(u64::MAX);
            self.lower(LimitName::CpuMillis, millis, &place(path));
        }
        Ok(self.limits)
    }
}

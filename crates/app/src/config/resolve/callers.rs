//! What callers may do at most, and what sessions may be promised.

use std::num::NonZeroU32;

use policy::{CallerLimits, Overcommit, Rate, RateLimits};

use super::Reader;
use crate::config::{ConfigError, Key, keys};

impl Reader<'_> {
    pub(super) fn callers(&self) -> Result<CallerLimits, ConfigError> {
        let limited = |key| Ok::<_, ConfigError>(NonZeroU32::new(self.count(key)?));
        let percent = |key| Ok::<_, ConfigError>(limited(key)?.map(NonZeroU32::get));
        Ok(CallerLimits {
            rates: RateLimits {
                calls: self.rate(&keys::RATE_CALLS_PER_MINUTE)?,
                creates: self.rate(&keys::RATE_CREATES_PER_MINUTE)?,
                executions: self.rate(&keys::RATE_EXECUTIONS_PER_MINUTE)?,
                transfers: self.rate(&keys::RATE_TRANSFERS_PER_MINUTE)?,
                session_calls: self.rate(&keys::RATE_SESSION_CALLS_PER_MINUTE)?,
            },
            max_open_calls: self.count(&keys::MAX_CALLS_PER_CALLER)?,
            max_sessions: limited(&keys::MAX_SESSIONS_PER_CALLER)?,
            max_sessions_per_project: limited(&keys::MAX_SESSIONS_PER_PROJECT)?,
            overcommit: Overcommit {
                memory: percent(&keys::OVERCOMMIT_MEMORY_PERCENT)?,
                cpu: percent(&keys::OVERCOMMIT_CPU_PERCENT)?,
                disk: percent(&keys::OVERCOMMIT_DISK_PERCENT)?,
            },
            queue_wait: self.seconds(&keys::QUEUE_WAIT)?,
        })
    }

    /// So many a minute, and no more than those or the burst at once; none where it is not limited.
    fn rate(&self, key: &'static Key) -> Result<Option<Rate>, ConfigError> {
        let per_minute = self.count(key)?;
        let burst = self.count(&keys::RATE_BURST)?.min(per_minute);
        Ok(Rate::new(per_minute, burst))
    }
}

//! What the audit log hears of calls that were too much: of each caller the first of a minute one by one, the others as a number.
//! Nothing was done for any of them, so nobody waits for the log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use audit::{AuditLog, Closing, Intent, Parameter};
use model::{ClientInfo, Reason, Source};
use policy::Moment;

use crate::limit::{FLOOD_WINDOW, Flood, Told};

/// Calls that were counted, in the log.
const COUNTED: &str = "call.limited_more";
/// All callers beyond those that are told apart, in the log.
const OTHERS: &str = "others";

/// Clones tell the same log.
#[derive(Clone)]
pub(crate) struct Shed(Arc<Inner>);

struct Inner {
    audit: AuditLog,
    flood: Mutex<Flood<String>>,
}

impl Shed {
    pub(crate) fn new(audit: AuditLog) -> Self {
        let flood = Mutex::new(Flood::new());
        Shed(Arc::new(Inner { audit, flood }))
    }

    /// One more call of that caller was too much. What was asked is looked at only where it is written: it may be large.
    pub(crate) fn tell(&self, caller: String, now: Moment, intent: impl FnOnce() -> Intent) {
        let told = self.0.flood().note(caller, now);
        match told {
            Told::Written => {
                let closing = Closing::Denied(Reason::RateLimited);
                self.0.audit.write_behind(intent(), closing);
            }
            Told::Counted { is_first: false } => {}
            Told::Counted { is_first: true } => {
                let inner = Arc::downgrade(&self.0);
                tokio::spawn(async move {
                    tokio::time::sleep(FLOOD_WINDOW).await;
                    if let Some(inner) = inner.upgrade() {
                        inner.tell_counted();
                    }
                });
            }
        }
    }
}

impl Inner {
    fn tell_counted(&self) {
        let (counted, others) = self.flood().take();
        let others = (others > 0).then(|| (OTHERS.to_owned(), others));
        for (principal, count) in counted.into_iter().chain(others) {
            let intent = Intent {
                action: COUNTED,
                session: None,
                principal,
                client: ClientInfo::default(),
                source: Source::SYSTEM,
                target: None,
                parameters: vec![("count", Parameter::Number(count))],
            };
            let closing = Closing::Denied(Reason::RateLimited);
            self.audit.write_behind(intent, closing);
        }
    }

    fn flood(&self) -> MutexGuard<'_, Flood<String>> {
        self.flood.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tell_counted();
    }
}

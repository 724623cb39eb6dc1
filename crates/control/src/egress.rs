//! What the audit log hears of a session's traffic: which host, which rule, which model, how much, how it ended. Nothing of what
//! was said, no path, no header.
//!
//! Every decision passes [`SessionLedger::audited_decision`], those of the proxy and those of the relay to the provider: what is
//! allowed goes on once it is durable on the log, and not at all else. What is refused is written behind, and a sandbox that
//! has itself refused without end is counted instead of filling the disk.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ::egress::{
    Recording, RequestRecord, Ticket, Unrecorded,
    proxy::{Decision, Recorder, TunnelEnd},
};
use audit::{AuditLog, Closing, Durability, Entry, Intent, Parameter};
use model::{ClientInfo, Reason, SessionId, Source};
use session::{Traffic, TrafficLog};
use tokio::time::Instant;

/// Refusals of a session that are written one by one within [`WINDOW`]; the others of it are counted.
const MAX_DENIALS: u64 = 30;
/// Connections and requests of a session that are allowed within [`WINDOW`]: each is two lines on the disk. A build that
/// fetches its dependencies makes some hundreds.
const MAX_ALLOWED: u64 = 3_000;
/// What is counted together.
const WINDOW: Duration = Duration::from_secs(60);
/// Who acts, in the log, when something inside a session asks.
const CLIENT: &str = "sandbox";
/// A connection of a session, in the log.
const CONNECT: &str = "egress.connect";
/// A request to the model provider, in the log.
const REQUEST: &str = "egress.model";
/// Refusals that were counted, in the log.
const COUNTED: &str = "egress.denied_more";

/// The log of all traffic of a server.
#[derive(Clone)]
pub struct EgressAudit(AuditLog);

impl EgressAudit {
    /// Traffic is written to that log.
    pub fn new(audit: AuditLog) -> Self {
        EgressAudit(audit)
    }
}

impl TrafficLog for EgressAudit {
    fn of(&self, session: SessionId, owner: &str) -> Arc<dyn Traffic> {
        SessionLedger::new(self.0.clone(), session, owner.to_owned())
    }
}

/// One session's.
pub(crate) struct SessionLedger {
    audit: AuditLog,
    session: SessionId,
    owner: String,
    /// What is allowed and not over yet.
    open: Mutex<HashMap<u64, Entry>>,
    next: AtomicU64,
    counts: Mutex<Counts>,
    /// For what goes on when a window is over.
    own: Weak<SessionLedger>,
}

/// Of one window.
struct Counts {
    since: Instant,
    allowed: u64,
    denied: u64,
    /// Refusals that are not written one by one.
    counted: u64,
}

/// One decision.
struct Decided {
    action: &'static str,
    details: Vec<(&'static str, Parameter)>,
    /// The code of the refusal, and how the log closes it.
    refused: Option<(&'static str, Closing)>,
}

impl SessionLedger {
    fn new(audit: AuditLog, session: SessionId, owner: String) -> Arc<Self> {
        Arc::new_cyclic(|own| SessionLedger {
            audit,
            session,
            owner,
            open: Mutex::default(),
            next: AtomicU64::new(1),
            counts: Mutex::new(Counts {
                since: Instant::now(),
                allowed: 0,
                denied: 0,
                counted: 0,
            }),
            own: own.clone(),
        })
    }

    /// The one way of a decision about traffic into the log. What is allowed is durable there when the answer comes; what is
    /// refused is handed over at once, and its answer need not be waited for.
    fn audited_decision(&self, decided: Decided) -> Recording<'_> {
        let Decided {
            action,
            details,
            refused,
        } = decided;
        match refused {
            None => Box::pin(self.allowed(action, details)),
            Some((code, closing)) => {
                self.refused(action, details, code, closing);
                Box::pin(std::future::ready(Ok(Ticket(0))))
            }
        }
    }

    async fn allowed(
        &self,
        action: &'static str,
        details: Vec<(&'static str, Parameter)>,
    ) -> Result<Ticket, Unrecorded> {
        if self.counted(|counts| {
            counts.allowed += 1;
            counts.allowed > MAX_ALLOWED
        }) {
            let per_minute = MAX_ALLOWED;
            return Err(Unrecorded::TooMany { per_minute });
        }
        let entry = self
            .audit
            .begin(self.intent(action, details), Durability::Durable)
            .await
            .map_err(|error| Unrecorded::Failed(error.to_string()))?;
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.open).insert(ticket, entry);
        Ok(Ticket(ticket))
    }

    fn refused(
        &self,
        action: &'static str,
        mut details: Vec<(&'static str, Parameter)>,
        code: &str,
        closing: Closing,
    ) {
        let (is_counted, is_first) = self.counted(|counts| {
            counts.denied += 1;
            let is_counted = counts.denied > MAX_DENIALS;
            counts.counted += u64::from(is_counted);
            (is_counted, counts.counted == 1)
        });
        if is_counted {
            if is_first {
                self.tell_when_the_window_is_over();
            }
            return;
        }
        details.push(("code", word(code)));
        self.audit
            .write_behind(self.intent(action, details), closing);
    }

    /// Something allowed is over.
    fn over(
        &self,
        ticket: Ticket,
        details: impl IntoIterator<Item = (&'static str, Parameter)>,
        closing: Closing,
    ) {
        if let Some(mut entry) = lock(&self.open).remove(&ticket.0) {
            for (name, value) in details {
                entry.note(name, value);
            }
            entry.close_later(closing);
        }
    }

    fn tell_when_the_window_is_over(&self) {
        let own = self.own.clone();
        tokio::spawn(async move {
            tokio::time::sleep(WINDOW).await;
            if let Some(own) = own.upgrade() {
                own.tell_counted();
            }
        });
    }

    /// Writes how many refusals were counted since the last time.
    fn tell_counted(&self) {
        let counted = mem::take(&mut lock(&self.counts).counted);
        if counted == 0 {
            return;
        }
        let details = vec![("count", Parameter::Number(counted))];
        let intent = self.intent(COUNTED, details);
        self.audit
            .write_behind(intent, Closing::Denied(Reason::NetworkNotAllowed));
    }

    /// Counts within the window of now.
    fn counted<T>(&self, count: impl FnOnce(&mut Counts) -> T) -> T {
        let mut counts = lock(&self.counts);
        if counts.since.elapsed() >= WINDOW {
            counts.since = Instant::now();
            counts.allowed = 0;
            counts.denied = 0;
        }
        count(&mut counts)
    }

    fn intent(&self, action: &'static str, parameters: Vec<(&'static str, Parameter)>) -> Intent {
        Intent {
            action,
            session: Some(self.session),
            principal: self.owner.clone(),
            client: ClientInfo {
                name: CLIENT.to_owned(),
                version: String::new(),
            },
            source: Source::LOCAL,
            target: None,
            parameters,
        }
    }
}

impl Drop for SessionLedger {
    fn drop(&mut self) {
        self.tell_counted();
    }
}

impl ::egress::Observer for SessionLedger {
    fn request_begins<'a>(
        &'a self,
        _session: SessionId,
        record: &'a RequestRecord,
    ) -> Recording<'a> {
        self.audited_decision(Decided {
            action: REQUEST,
            details: asked(record),
            refused: None,
        })
    }

    fn request_ended(&self, _session: SessionId, ticket: Option<Ticket>, record: &RequestRecord) {
        if let Some(ticket) = ticket {
            return self.over(ticket, answered(record), closing(record));
        }
        let rule = record.denied.unwrap_or("other");
        let decided = Decided {
            action: REQUEST,
            details: asked(record),
            refused: Some((rule, Closing::Denied(reason(rule)))),
        };
        drop(self.audited_decision(decided));
    }
}

impl Recorder for SessionLedger {
    fn decided<'a>(&'a self, _session: SessionId, decision: &'a Decision) -> Recording<'a> {
        let mut details = vec![
            ("way", word(decision.way.as_str())),
            ("host", word(&decision.host)),
        ];
        let port = decision.port.map(|port| Parameter::Number(port.into()));
        details.extend(port.map(|port| ("port", port)));
        details.extend(decision.method.map(|method| ("method", word(method))));
        details.extend(decision.rule.as_ref().map(|rule| ("rule", word(rule))));
        let credential = decision.credential.as_ref();
        details.extend(credential.map(|name| ("credential", word(name))));
        self.audited_decision(Decided {
            action: CONNECT,
            details,
            refused: decision.denied.map(|code| (code, refusal(code))),
        })
    }

    fn ended(&self, _session: SessionId, ticket: Ticket, end: &TunnelEnd) {
        use ::egress::proxy::Ending;
        let details = [
            ("ending", word(end.ending.as_str())),
            ("bytes_up", Parameter::Number(end.bytes_up)),
            ("bytes_down", Parameter::Number(end.bytes_down)),
        ];
        let closing = match end.ending {
            Ending::Complete | Ending::Idle => Closing::Ok,
            Ending::Refused | Ending::RuleGone => Closing::Denied(Reason::NetworkNotAllowed),
            Ending::Unused | Ending::Broken | Ending::Cut => Closing::Aborted,
        };
        self.over(ticket, details, closing);
    }
}

/// How the log closes what the proxy refuses. What the rules allow and what could not be done all the same has failed, and was
/// not denied.
fn refusal(code: &str) -> Closing {
    match code {
        "resolution_failed" => Closing::Failed(Reason::ResolutionFailed),
        "connection_failed" => Closing::Failed(Reason::ConnectionFailed),
        "credential_unavailable" => Closing::Failed(Reason::CredentialUnavailable),
        "internal" => Closing::Failed(Reason::Internal),
        "audit_unavailable" => Closing::Denied(Reason::AuditUnavailable),
        "rate_limited" => Closing::Denied(Reason::RateLimited),
        "too_many" => Closing::Denied(Reason::LimitReached),
        _ => Closing::Denied(Reason::NetworkNotAllowed),
    }
}

/// What a request asks for.
fn asked(record: &RequestRecord) -> Vec<(&'static str, Parameter)> {
    let mut details = vec![
        ("request", word(record.shape)),
        ("method", word(record.method)),
        ("bytes_up", Parameter::Number(record.bytes_up)),
    ];
    if let Some(model) = &record.model {
        details.push(("model", word(model)));
    }
    details
}

/// What became of it.
fn answered(record: &RequestRecord) -> Vec<(&'static str, Parameter)> {
    let tokens = &record.tokens;
    let mut details = vec![
        ("ending", word(format!("{:?}", record.ending))),
        ("bytes_down", Parameter::Number(record.bytes_down)),
        ("input_tokens", Parameter::Number(tokens.input)),
        ("output_tokens", Parameter::Number(tokens.output)),
        ("cache_read_tokens", Parameter::Number(tokens.cache_read)),
        (
            "cache_write_tokens",
            Parameter::Number(tokens.cache_creation),
        ),
    ];
    if let Some(cost) = record.cost {
        details.push(("cost_usd", word(cost)));
    }
    if let Some(status) = record.status {
        details.push(("status", Parameter::Number(status.into())));
    }
    if record.reckoned {
        details.push(("tokens", word("reckoned")));
    }
    if let Some(rule) = record.denied {
        details.push(("code", word(rule)));
    }
    details
}

fn closing(record: &RequestRecord) -> Closing {
    use ::egress::Ending;
    match record.ending {
        Ending::Complete => Closing::Ok,
        Ending::Denied | Ending::CapReached => {
            Closing::Denied(reason(record.denied.unwrap_or("max_")))
        }
        Ending::ClientGone => Closing::Aborted,
        Ending::UpstreamBroken | Ending::Stalled => Closing::Failed(Reason::ProviderUnavailable),
    }
}

/// What a rule of the relay is among the reasons of the log.
fn reason(rule: &str) -> Reason {
    match rule {
        "audit_unavailable" => Reason::AuditUnavailable,
        "no_credential" | "credential_command" | "credential_source" | "connection_failed"
        | "response_timeout" => Reason::ProviderUnavailable,
        "internal" => Reason::Internal,
        "budget_held" => Reason::LimitReached,
        "rate_limited" => Reason::RateLimited,
        limit if limit.starts_with("max_") => Reason::LimitReached,
        _ => Reason::PolicyDenied,
    }
}

fn word(text: impl ToString) -> Parameter {
    Parameter::Word(text.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

//! What one session may reach, and the order of checks: form and name (where the words are read), rule, room, and then record
//! and way at the same time.

use std::{
    fmt,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use http::{Method, request::Parts};
use model::{EgressRule, NamedRule, SessionId};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};

use super::{
    limits::ProxyLimits,
    names::{Budget, Told},
    record::{Decision, Ending, Recorder, Ticket, TunnelEnd, Unrecorded, Way},
    synthetic::Synthetic,
    traffic::Traffic,
};
use crate::{
    destination::{Denial, HostName, Reach, RuleSet},
    intercept::{Broker, Claim, Interception},
};

/// The port where nothing but TLS passes.
pub(crate) const TLS_PORT: u16 = 443;
/// Characters of a host that are recorded where it is no name.
const MAX_WRITTEN_CHARS: usize = 80;

/// The way out of one session.
pub struct SessionEgress {
    session: SessionId,
    rules: watch::Sender<Arc<RuleSet>>,
    reach: Reach,
    opening: RwLock<Option<Arc<Opening>>>,
    recorder: Arc<dyn Recorder>,
    connections: Arc<Semaphore>,
    tunnels: Arc<Semaphore>,
    max_tunnels: usize,
    names: Mutex<Names>,
    allowed: AtomicU64,
    denied: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
}

struct Names {
    synthetic: Synthetic,
    budget: Budget,
    told: Told,
}

/// What a session whose sandbox believes the installation's authority has opened, and for which credentials.
#[derive(Debug)]
pub struct Opening {
    /// Both sides of its opened tunnels.
    pub interception: Arc<Interception>,
    /// Its credentials.
    pub broker: Broker,
}

/// What a session has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EgressCounts {
    /// Connections and requests that were allowed.
    pub allowed: u64,
    /// Those that were refused, questions to the stub DNS among them.
    pub denied: u64,
    /// Bytes from the sandbox, of what has ended.
    pub bytes_up: u64,
    /// Bytes to the sandbox, of what has ended.
    pub bytes_down: u64,
    /// What is open now.
    pub open: usize,
}

/// One thing that is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub way: Way,
    pub host: HostName,
    pub port: u16,
    /// What it says, where that is read.
    pub http: Option<Spoken>,
    /// The name of the credential that it is given.
    pub credential: Option<String>,
}

/// A request of HTTP, as far as rules speak of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spoken {
    pub method: Method,
    pub path: String,
    /// A header makes another method or path of it, at servers that know such headers.
    pub is_overridden: bool,
}

/// A connection that was allowed, recorded and made.
pub(crate) struct Admitted {
    pub upstream: TcpStream,
    pub pass: Pass,
}

/// By what it was allowed. Its end is recorded once, at the latest when it is dropped.
pub(crate) struct Pass {
    session: Arc<SessionEgress>,
    ask: Ask,
    was_private: bool,
    rules: watch::Receiver<Arc<RuleSet>>,
    ticket: Ticket,
    traffic: Arc<Traffic>,
    is_finished: bool,
    _place: OwnedSemaphorePermit,
}

impl SessionEgress {
    /// The way out of a session, with the rules that it begins with. Without an `opening` no rule about methods or paths lets
    /// TLS pass.
    pub fn new(
        session: SessionId,
        rules: RuleSet,
        reach: Reach,
        opening: Option<Opening>,
        recorder: Arc<dyn Recorder>,
        limits: &ProxyLimits,
    ) -> Arc<Self> {
        Arc::new(SessionEgress {
            session,
            rules: watch::Sender::new(Arc::new(rules)),
            reach,
            opening: RwLock::new(opening.map(Arc::new)),
            recorder,
            connections: Arc::new(Semaphore::new(limits.max_connections)),
            tunnels: Arc::new(Semaphore::new(limits.max_tunnels)),
            max_tunnels: limits.max_tunnels,
            names: Mutex::new(Names {
                synthetic: Synthetic::new(),
                budget: Budget::new(limits.names_per_second, limits.names_burst),
                told: Told::default(),
            }),
            allowed: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
        })
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<RuleSet> {
        Arc::clone(&self.rules.borrow())
    }

    /// Puts other rules in force, at once and as a whole. What is open and not allowed by them is closed.
    pub fn replace_rules(&self, rules: RuleSet) {
        self.rules.send_replace(Arc::new(rules));
    }

    /// What it has done so far.
    pub fn counts(&self) -> EgressCounts {
        EgressCounts {
            allowed: self.allowed.load(Relaxed),
            denied: self.denied.load(Relaxed),
            bytes_up: self.bytes_up.load(Relaxed),
            bytes_down: self.bytes_down.load(Relaxed),
            open: self.max_tunnels - self.tunnels.available_permits(),
        }
    }

    /// Room for one more connection, whatever it will ask for.
    pub(crate) fn connection_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }

    /// Puts other credentials in force, for requests from now on. A session that has nothing opened keeps it so: its sandbox
    /// believes no authority.
    pub fn replace_opening(&self, opening: Option<Opening>) {
        let mut standing = self.opening.write().unwrap_or_else(PoisonError::into_inner);
        if standing.is_some() {
            *standing = opening.map(Arc::new);
        }
    }

    fn opening(&self) -> Option<Arc<Opening>> {
        let standing = self.opening.read();
        standing.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the TLS of a tunnel is opened; it stays closed where there is no rule for it at all.
    pub(crate) fn is_opened(&self, ask: &Ask) -> bool {
        let (rules, opening) = (self.rules(), self.opening());
        rules.find(&ask.host, ask.port).is_ok_and(|first| {
            opening.is_some_and(|opening| {
                first.rule.opens_tls() || opening.broker.is_bound(&ask.host, ask.port)
            })
        })
    }

    /// What a request holds of the session's placeholders.
    ///
    /// # Errors
    /// `placeholder_misplaced`, for all that is not opened.
    pub(crate) fn claim(&self, ask: &Ask, head: &Parts) -> Result<Option<Claim>, Denial> {
        match self.opening() {
            Some(opening) => opening.broker.claim(ask, head, ask.way == Way::Https),
            None => Ok(None),
        }
    }

    pub(crate) fn interception(&self) -> Option<Arc<Interception>> {
        self.opening()
            .map(|opening| Arc::clone(&opening.interception))
    }

    /// Decides, records and connects; what a person could allow becomes a question to them. A refusal is not recorded here,
    /// since many come from earlier: see [`SessionEgress::refused`].
    pub(crate) async fn admit(self: &Arc<Self>, ask: Ask) -> Result<Admitted, Denial> {
        match self.admit_reusing(ask, None).await? {
            (Some(upstream), pass) => Ok(Admitted { upstream, pass }),
            (None, _) => Err(Denial::Internal("nothing was dialed")),
        }
    }

    /// The same where a connection to that host and port may be at hand: `kept` says whether it was dialed by a rule that may
    /// lead to private addresses. It serves only for a rule of the same kind; then nothing is dialed.
    pub(crate) async fn admit_reusing(
        self: &Arc<Self>,
        ask: Ask,
        kept: Option<bool>,
    ) -> Result<(Option<TcpStream>, Pass), Denial> {
        let traffic = Traffic::new();
        // From here on a change is noticed, whatever happens in between.
        let mut rules = self.rules.subscribe();
        let snapshot = Arc::clone(&rules.borrow_and_update());
        let rule = judge(&snapshot, &ask).map_err(|denial| snapshot.asked(denial))?;
        let place = Arc::clone(&self.tunnels)
            .try_acquire_owned()
            .map_err(|_| Denial::TooMany {
                what: "connections",
                limit: self.max_tunnels as u64,
            })?;
        let decision = ask.decision(Some(rule.name.clone()), None);
        let (recorded, dialled) =
            tokio::join!(self.recorder.decided(self.session, &decision), async {
                match kept == Some(rule.rule.private) {
                    true => Ok(None),
                    false => {
                        let dialled = self.reach.dial(&ask.host, ask.port, rule).await;
                        dialled.map(|dialled| Some(dialled.stream))
                    }
                }
            },);
        let ticket = recorded.map_err(|unrecorded| match unrecorded {
            Unrecorded::TooMany { per_minute } => Denial::RateLimited { per_minute },
            error @ Unrecorded::Failed(_) => {
                tracing::error!(%error, "no connection is made");
                Denial::AuditUnavailable
            }
        })?;
        let was_private = rule.rule.private;
        let mut pass = Pass {
            session: Arc::clone(self),
            ask,
            was_private,
            rules,
            ticket,
            traffic,
            is_finished: false,
            _place: place,
        };
        match dialled {
            Ok(stream) => {
                self.allowed.fetch_add(1, Relaxed);
                Ok((stream, pass))
            }
            Err(denial) => {
                pass.finish(Ending::Unused);
                Err(denial)
            }
        }
    }

    /// Records a refusal. That it cannot be recorded does not make it less of one.
    pub(crate) fn refused(
        &self,
        asked: Asked<'_>,
        denial: &Denial,
    ) -> impl Future<Output = ()> + Send + use<'_> {
        self.denied.fetch_add(1, Relaxed);
        let mut decision = asked.decision();
        decision.rule = denial.rule().map(str::to_owned);
        decision.denied = Some(denial.code());
        async move {
            if let Err(error) = self.recorder.decided(self.session, &decision).await {
                tracing::error!(%error, "a refusal is not on record");
            }
        }
    }

    /// Whether the stub DNS answers one more question now.
    pub(crate) fn may_ask_name(&self) -> Result<(), Denial> {
        self.with_names(|names| names.budget.take(Instant::now()))
    }

    /// Whether a refusal of the stub DNS is worth a record: a resolver repeats its questions many times.
    pub(crate) fn is_news(&self, written: &str) -> bool {
        self.with_names(|names| names.told.is_news(written))
    }

    pub(crate) fn address_of(&self, name: &HostName) -> Ipv4Addr {
        self.with_names(|names| names.synthetic.address_of(name))
    }

    pub(crate) fn name_of(&self, address: Ipv4Addr) -> Option<HostName> {
        self.with_names(|names| names.synthetic.name_of(address))
    }

    fn with_names<T>(&self, act: impl FnOnce(&mut Names) -> T) -> T {
        act(&mut self.names.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The rule by which something is allowed.
fn judge<'a>(rules: &'a RuleSet, ask: &'a Ask) -> Result<&'a NamedRule, Denial> {
    let first = rules.find(&ask.host, ask.port)?;
    match &ask.http {
        // The least restricting rule comes first: there is none that leaves TLS closed. Who can open it does not ask here.
        None if first.rule.opens_tls() => Err(Denial::Unsupported(
            "a closed tunnel by a rule with methods or paths",
        )),
        None => Ok(first),
        Some(_) if ask.port == TLS_PORT && ask.way == Way::Http => Err(Denial::NotTls {
            host: ask.host.clone(),
            port: ask.port,
        }),
        Some(spoken) => judge_request(rules, ask, spoken),
    }
}

fn judge_request<'a>(
    rules: &'a RuleSet,
    ask: &'a Ask,
    spoken: &Spoken,
) -> Result<&'a NamedRule, Denial> {
    let Spoken { method, path, .. } = spoken;
    let host = || ask.host.clone();
    let of_method: Vec<_> = rules
        .matching(&ask.host, ask.port)
        .filter(|named| has_method(&named.rule, method))
        .collect();
    let has_path = |named: &&NamedRule| has_path(&named.rule, path);
    if let Some(found) = of_method.iter().copied().find(has_path) {
        if spoken.is_overridden && found.rule.opens_tls() {
            return Err(Denial::BadRequest(
                "a header would make another method or path of it, which a rule is about",
            ));
        }
        return Ok(found);
    }
    match of_method.first() {
        Some(named) => Err(Denial::PathNotAllowed {
            host: host(),
            rule: named.name.clone(),
        }),
        None => {
            let named = rules.find(&ask.host, ask.port)?;
            Err(Denial::MethodNotAllowed {
                host: host(),
                method: method.as_str().chars().take(MAX_WRITTEN_CHARS).collect(),
                rule: named.name.clone(),
            })
        }
    }
}

/// Whether a rule allows a method.
pub(crate) fn has_method(rule: &EgressRule, method: &Method) -> bool {
    rule.methods.is_empty()
        || rule
            .methods
            .iter()
            .any(|allowed| allowed == method.as_str())
}

/// Whether a rule allows a path.
pub(crate) fn has_path(rule: &EgressRule, path: &str) -> bool {
    let begins = || {
        rule.paths
            .iter()
            .any(|allowed| path.starts_with(allowed.as_str()))
    };
    rule.paths.is_empty() || (!is_ambiguous(path) && begins())
}

/// Whether servers could take a path for another one: by dots, by slashes that are written otherwise, by parameters.
fn is_ambiguous(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let encoded = ["%2e", "%2f", "%5c", "%25", "%00", "%3b", "%3f", "%23"];
    lower.contains("//")
        || lower.contains(['\\', ';'])
        || encoded.iter().any(|text| lower.contains(text))
        || lower
            .split('/')
            .any(|segment| [".", ".."].contains(&segment))
}

impl Ask {
    fn decision(&self, rule: Option<String>, denied: Option<&'static str>) -> Decision {
        Decision {
            way: self.way,
            host: self.host.as_str().to_owned(),
            port: Some(self.port),
            method: self.http.as_ref().map(|spoken| method_name(&spoken.method)),
            credential: self.credential.clone(),
            rule,
            denied,
        }
    }
}

/// What was asked, as far as it was understood.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked<'a> {
    /// All of it.
    Whole(&'a Ask),
    /// Only how, what stood where the host belongs, and the port where one could be read.
    Written(Way, &'a [u8], Option<u16>),
}

impl Asked<'_> {
    fn decision(self) -> Decision {
        match self {
            Asked::Whole(ask) => ask.decision(None, None),
            Asked::Written(way, host, port) => Decision {
                way,
                host: printable(host),
                port,
                method: None,
                credential: None,
                rule: None,
                denied: None,
            },
        }
    }
}

fn printable(bytes: &[u8]) -> String {
    bytes
        .escape_ascii()
        .map(char::from)
        .take(MAX_WRITTEN_CHARS)
        .collect()
}

fn method_name(method: &Method) -> &'static str {
    [
        "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "REPORT",
    ]
    .into_iter()
    .find(|known| method.as_str() == *known)
    .unwrap_or("other")
}

impl Pass {
    pub(crate) fn ask(&self) -> &Ask {
        &self.ask
    }

    pub(crate) fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// It was allowed by a rule that may lead to private addresses.
    pub(crate) const fn was_private(&self) -> bool {
        self.was_private
    }

    /// Until when its connection may be kept.
    pub(crate) fn allowed(&self) -> Allowed {
        Allowed {
            rules: self.rules.clone(),
            host: self.ask.host.clone(),
            port: self.ask.port,
            was_private: self.was_private,
        }
    }

    /// Connects once more, by what allows it now.
    pub(crate) async fn redial(&self) -> Result<TcpStream, Denial> {
        let rules = self.session.rules();
        let rule = judge(&rules, &self.ask)?;
        if rule.rule.private != self.was_private {
            // The connection is on record as one of the other kind.
            return Err(Denial::Unsupported("its rule became another one"));
        }
        let reach = &self.session.reach;
        let dialled = reach.dial(&self.ask.host, self.ask.port, rule).await?;
        Ok(dialled.stream)
    }

    /// It is over.
    pub(crate) fn finish(&mut self, ending: Ending) {
        if self.is_finished {
            return;
        }
        self.is_finished = true;
        let (bytes_up, bytes_down) = self.traffic.bytes();
        let session = &self.session;
        session.bytes_up.fetch_add(bytes_up, Relaxed);
        session.bytes_down.fetch_add(bytes_down, Relaxed);
        let end = TunnelEnd {
            bytes_up,
            bytes_down,
            duration: self.traffic.age(),
            ending,
        };
        session.recorder.ended(session.session, self.ticket, &end);
    }

    /// Returns once the session's rules do not allow the connection any more.
    pub(crate) async fn revoked(&mut self) {
        loop {
            if self.rules.changed().await.is_err() {
                // The session is gone: nobody can change them.
                return std::future::pending().await;
            }
            let snapshot = Arc::clone(&self.rules.borrow_and_update());
            let is_allowed = judge(&snapshot, &self.ask)
                .is_ok_and(|rule| rule.rule.private || !self.was_private);
            if !is_allowed {
                return;
            }
        }
    }
}

/// Whether a connection on which nothing is asked right now is still within the rules.
pub(crate) struct Allowed {
    rules: watch::Receiver<Arc<RuleSet>>,
    host: HostName,
    port: u16,
    was_private: bool,
}

impl Allowed {
    /// Returns once it is not.
    pub(crate) async fn gone(&mut self) {
        loop {
            if self.rules.changed().await.is_err() {
                // The session is gone, and so is who holds the connection.
                return std::future::pending().await;
            }
            let snapshot = Arc::clone(&self.rules.borrow_and_update());
            let found = snapshot.find(&self.host, self.port);
            if !found.is_ok_and(|named| named.rule.private || !self.was_private) {
                return;
            }
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.finish(Ending::Cut);
    }
}

impl fmt::Debug for SessionEgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionEgress")
            .field("session", &self.session)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

//! What a session may reach beside its model provider: on record, in force, and let to be more by a person.

mod credentials;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use egress::{
    destination::{Askable, HostName, Reach, ReachLimits, Resolve, RuleSet, Wishes},
    proxy::{Proxy, ProxyPort, SessionEgress},
};
use model::{
    EgressRule, NamedRule, NetworkPolicy, NetworkQuestion, NetworkTarget, Reason, Refusal,
    SessionId, SessionView,
};
use policy::{MAX_NETWORK_RULES, NetworkAnswerPermit, Policy, WidenPermit};
use sandbox::{Relayed, Supervisor};
use serde::{Deserialize, Serialize};
use store::{SessionChange, SessionRecord};
use tokio::{
    sync::{Mutex, mpsc},
    task::{AbortHandle, JoinSet},
};

use crate::{
    live::Live,
    providers::Traffic,
    refusals,
    sessions::{Inner, LIVE, Sessions},
    settings::Settings,
};

/// The set of rules that a person gave, in their names.
const PERSON: &str = "person";

/// In a session's log, when the operator's ceiling took something from it.
const NARROWED: &str = "it reaches less of the network, since the operator allows less";

/// Noes of people that a session has at most: far more than it asks for.
const MAX_DECLINED: usize = 64;

pub use credentials::{Credentials, Offered};

/// What stands on record of a session's network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    pub(crate) policy: NetworkPolicy,
    /// The ways out were opened when the session was made: its programs know of them.
    pub(crate) is_open: bool,
    /// Its sandbox has certificates, so that tunnels can be opened.
    #[serde(default)]
    pub(crate) opens_tls: bool,
    /// What stands inside for its credentials, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) placeholders: BTreeMap<String, String>,
    /// What a person said no to.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) declined: BTreeSet<NetworkTarget>,
}

impl NetworkRecord {
    /// As it stands on record; one that cannot be read is none, and reaches nothing.
    pub(crate) fn of(record: &SessionRecord) -> Option<Self> {
        serde_json::from_slice(record.network.as_deref()?).ok()
    }

    /// A yes takes back a no of before.
    fn without_what_is_allowed(mut self) -> Self {
        let set = RuleSet::new(self.policy.clone());
        self.declined.retain(|target| !allows(&set, target));
        self
    }
}

/// Whether something may be reached by these rules, whole.
fn allows(rules: &RuleSet, target: &NetworkTarget) -> bool {
    HostName::parse(target.host.as_bytes()).is_ok_and(|host| {
        rules
            .find(&host, target.port)
            .is_ok_and(|named| !named.rule.opens_tls())
    })
}

/// The way to hosts, for all sessions together.
pub struct Network {
    /// What serves their connections.
    pub proxy: Proxy,
    /// Who knows the addresses of names.
    pub resolver: Arc<dyn Resolve>,
    /// What their requests can be given.
    pub credentials: Credentials,
}

/// What stays of it as long as the server runs.
pub(crate) struct WaysOut {
    proxy: Proxy,
    resolver: Arc<dyn Resolve>,
}

/// What a session that is at hand may reach.
pub(crate) struct LiveNetwork {
    record: Mutex<NetworkRecord>,
    ways: Option<Ways>,
    wishes: Arc<Wishes>,
}

/// The ways out of a session.
struct Ways {
    egress: Arc<SessionEgress>,
    /// What a person could let it reach.
    askable: Mutex<Askable>,
    serving: Vec<AbortHandle>,
}

impl LiveNetwork {
    /// Whether the ways out are open, whatever they lead to.
    pub(crate) const fn is_open(&self) -> bool {
        self.ways.is_some()
    }

    /// What it was refused and a person may allow, oldest first.
    pub(crate) fn questions(&self) -> Vec<NetworkQuestion> {
        self.wishes.open()
    }

    /// Waits until something is asked.
    pub(crate) async fn asks(&self) {
        self.wishes
            .reached(|wishes| !wishes.open().is_empty())
            .await;
    }

    /// Waits until nobody waits for a person's word about it.
    pub(crate) async fn answered(&self, target: &NetworkTarget) {
        self.wishes.reached(|wishes| !wishes.is_open(target)).await;
    }
}

impl Ways {
    async fn put_in_force(&self, policy: NetworkPolicy) {
        let askable = self.askable.lock().await.clone();
        self.egress
            .replace_rules(RuleSet::new(policy).askable(askable));
    }
}

impl Drop for Ways {
    fn drop(&mut self) {
        self.serving.iter().for_each(AbortHandle::abort);
    }
}

impl Network {
    /// Apart: what stays, and what the operator can change.
    pub(crate) fn split(self) -> (WaysOut, Credentials) {
        let ways = WaysOut {
            proxy: self.proxy,
            resolver: self.resolver,
        };
        (ways, self.credentials)
    }
}

impl WaysOut {
    /// Opens the ways out of a sandbox, before anything untrusted runs where the session is new. `patience`: how long a person
    /// is waited for.
    pub(crate) async fn open(
        &self,
        session: SessionId,
        record: NetworkRecord,
        settings: &Settings,
        patience: Duration,
        supervisor: &Supervisor,
        traffic: Arc<dyn Traffic>,
    ) -> Result<LiveNetwork, Refusal> {
        let opening = settings.credentials.opening(session, &record);
        let wishes = Arc::new(Wishes::new(patience, record.declined.clone()));
        let mut ways = None;
        if record.is_open {
            let askable = askable(session, &settings.policy, &wishes);
            let egress = SessionEgress::new(
                session,
                RuleSet::new(record.policy.clone()).askable(askable.clone()),
                Reach::new(Arc::clone(&self.resolver), ReachLimits::default()),
                opening,
                traffic,
                self.proxy.limits(),
            );
            let mut opened = Ways {
                egress,
                askable: Mutex::new(askable),
                serving: Vec::new(),
            };
            for port in ProxyPort::ALL {
                let connections = match port {
                    ProxyPort::Http | ProxyPort::Socks => {
                        supervisor.open_relay(port.number()).await
                    }
                    ProxyPort::Names => supervisor.open_relay_with_datagrams(port.number()).await,
                };
                let connections = connections.map_err(|error| refusals::supervisor(&error))?;
                let serving = serve(self.proxy.clone(), connections, port, &opened.egress);
                opened.serving.push(serving);
            }
            ways = Some(opened);
        }
        Ok(LiveNetwork {
            record: Mutex::new(record),
            ways,
            wishes,
        })
    }
}

fn askable(session: SessionId, policy: &Policy, wishes: &Arc<Wishes>) -> Askable {
    let ceiling = policy.network_ceiling().to_vec();
    Askable::new(session, ceiling, Arc::clone(wishes))
}

/// Serves the connections to one port until the handle is aborted, or the sandbox ends.
fn serve(
    proxy: Proxy,
    mut connections: mpsc::Receiver<Relayed>,
    port: ProxyPort,
    egress: &Arc<SessionEgress>,
) -> AbortHandle {
    let egress = Arc::clone(egress);
    let serving = async move {
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                connection = connections.recv() => match connection {
                    Some(connection) => {
                        let (proxy, egress) = (proxy.clone(), Arc::clone(&egress));
                        open.spawn(async move { proxy.serve(connection, port, egress).await });
                    }
                    None => return,
                },
                Some(_) = open.join_next() => {}
            }
        }
    };
    tokio::spawn(serving).abort_handle()
}

impl Sessions {
    /// Lets a session reach more. It is on record before it is in force.
    ///
    /// # Errors
    /// [`Reason::NetworkNotAllowed`] for a session whose ways out were not opened; [`Reason::LimitReached`] for too many
    /// rules; when it is not live, or the store fails.
    pub async fn widen(&self, permit: WidenPermit) -> Result<SessionView, Refusal> {
        let (session, rules) = permit.into_parts();
        self.widen_by(session, rules, None).await
    }

    /// Takes a person's answer to what a session asked to reach. A yes counts while the question is open; a no also before
    /// anything is asked, and it stands for as long as the session does.
    ///
    /// # Errors
    /// [`Reason::QuestionNotFound`] when somebody else answered first, or nobody did in time; else as for [`Sessions::widen`].
    pub async fn answer_network(
        &self,
        permit: NetworkAnswerPermit,
    ) -> Result<SessionView, Refusal> {
        let (session, target, rules) = permit.into_parts();
        match rules {
            Some(rules) => self.widen_by(session, rules, Some(target)).await,
            None => self.decline(session, target).await,
        }
    }

    /// `answers`: the question that this is the answer to; once that is not open, nothing changes.
    async fn widen_by(
        &self,
        session: SessionId,
        rules: Vec<EgressRule>,
        answers: Option<NetworkTarget>,
    ) -> Result<SessionView, Refusal> {
        let live = self.0.ready(session).await?;
        let network = &live.network;
        let ways = network.ways.as_ref().ok_or_else(not_open)?;
        let mut standing = network.record.lock().await;
        if answers.is_some_and(|target| !network.wishes.is_open(&target)) {
            return Err(not_asked());
        }
        // Allowed by the ceiling of its decision; what counts is that of now.
        let policy = self.policy();
        let record = NetworkRecord {
            policy: policy.network_within(&with(&standing.policy, rules)?),
            declined: network.wishes.declined(),
            ..standing.clone()
        };
        let record = record.without_what_is_allowed();
        if !self.0.put_network(session, &record).await? {
            return Err(self.0.not_ready(session).await);
        }
        ways.put_in_force(record.policy.clone()).await;
        let set = RuleSet::new(record.policy.clone());
        network.wishes.settle(|target| allows(&set, target));
        *standing = record;
        drop(standing);
        self.0
            .note(session, "a person let it reach more of the network")
            .await;
        self.viewed(session).await
    }

    async fn decline(
        &self,
        session: SessionId,
        target: NetworkTarget,
    ) -> Result<SessionView, Refusal> {
        let live = self.0.ready(session).await?;
        let network = &live.network;
        if network.ways.is_none() {
            return Err(not_open());
        }
        let mut standing = network.record.lock().await;
        if allows(&RuleSet::new(standing.policy.clone()), &target) {
            return Err(not_asked());
        }
        let mut declined = network.wishes.declined();
        declined.insert(target.clone());
        if declined.len() > MAX_DECLINED {
            return Err(Refusal::new(
                Reason::LimitReached,
                format!("A session keeps {MAX_DECLINED} noes of people."),
                "What is not allowed is refused without one.",
            ));
        }
        let record = NetworkRecord {
            declined,
            ..standing.clone()
        };
        if !self.0.put_network(session, &record).await? {
            return Err(self.0.not_ready(session).await);
        }
        network.wishes.decline(target.clone());
        *standing = record;
        drop(standing);
        self.0
            .note(session, &format!("a person said no to {target}"))
            .await;
        self.viewed(session).await
    }

    async fn viewed(&self, session: SessionId) -> Result<SessionView, Refusal> {
        let record = self.0.record(session).await?;
        let record = record.ok_or_else(refusals::session_not_found)?;
        Ok(self.0.view(&record).await)
    }
}

impl Inner {
    /// The network of a session that an earlier server made. What the operator allows by now is what counts: rules past that
    /// are taken from the session, on record first.
    pub(crate) async fn recorded_network(
        &self,
        record: &SessionRecord,
    ) -> Result<NetworkRecord, Refusal> {
        let Some(found) = NetworkRecord::of(record) else {
            return Ok(NetworkRecord::default());
        };
        let narrowed = self.settings().policy.network_within(&found.policy);
        let is_narrower = narrowed != found.policy;
        let found = NetworkRecord {
            policy: narrowed,
            ..found
        };
        if is_narrower {
            self.put_network(record.id, &found).await?;
            self.note(record.id, NARROWED).await;
        }
        Ok(found)
    }

    /// Makes the network of a live session fit the settings in force: never more than the ceiling, credentials from where they
    /// come from now, and a person asked for what they can allow. Whether it lost something.
    pub(crate) async fn fit_network(&self, live: &Live) -> bool {
        let network = &live.network;
        let Some(ways) = &network.ways else {
            return false;
        };
        let mut standing = network.record.lock().await;
        // Read under the lock, so that the last settings win.
        let settings = self.settings();
        let record = NetworkRecord {
            policy: settings.policy.network_within(&standing.policy),
            ..standing.clone()
        };
        let is_narrower = record.policy != standing.policy;
        *ways.askable.lock().await = askable(live.id, &settings.policy, &network.wishes);
        ways.egress
            .replace_opening(settings.credentials.opening(live.id, &record));
        ways.put_in_force(record.policy.clone()).await;
        if is_narrower {
            // In force before it is on record: a restart would find out by itself.
            if let Err(refusal) = self.put_network(live.id, &record).await {
                tracing::error!(session = %live.id, detail = ?refusal.detail, "what a session lost is not on record");
            }
        }
        *standing = record;
        drop(standing);
        if is_narrower {
            self.note(live.id, NARROWED).await;
        }
        is_narrower
    }

    /// Puts on record what an open session may reach.
    async fn put_network(&self, id: SessionId, network: &NetworkRecord) -> Result<bool, Refusal> {
        let change = SessionChange {
            network: serde_json::to_vec(network).ok(),
            ..SessionChange::default()
        };
        self.stored(move |store| store.update_session(id, &LIVE, &change))
            .await
    }
}

/// The rules and what they get beside; a rule that stands already is not added again.
fn with(policy: &NetworkPolicy, added: Vec<EgressRule>) -> Result<NetworkPolicy, Refusal> {
    let mut rules = policy.rules.clone();
    let own = format!("{PERSON}/");
    let mut count = rules
        .iter()
        .filter(|named| named.name.starts_with(&own))
        .count();
    for rule in added {
        if !rules.iter().any(|named| named.rule.covers(&rule)) {
            count += 1;
            rules.push(NamedRule {
                name: format!("{own}{count}"),
                rule,
            });
        }
    }
    match rules.len() > MAX_NETWORK_RULES {
        true => Err(Refusal::new(
            Reason::LimitReached,
            format!("A session has at most {MAX_NETWORK_RULES} rules."),
            "Name suffixes such as *.example.com instead of each host.",
        )),
        false => Ok(NetworkPolicy {
            rules,
            credentials: policy.credentials.clone(),
        }),
    }
}

fn not_asked() -> Refusal {
    Refusal::new(
        Reason::QuestionNotFound,
        "Nothing waits for that answer; it may have been answered meanwhile, or nobody answered in time.",
        "Look at network and pendingNetworkRequests of get_session.",
    )
}

fn not_open() -> Refusal {
    Refusal::new(
        Reason::NetworkNotAllowed,
        "The session was made without ways out, when the operator allowed nothing.",
        "Create a new session.",
    )
}

//! What a session may reach beside its model provider: on record, in force, and let to be more by a person.

mod credentials;

use std::{collections::BTreeMap, sync::Arc};

use egress::{
    destination::{Askable, Reach, ReachLimits, Resolve, RuleSet},
    proxy::{Proxy, ProxyPort, SessionEgress},
};
use model::{EgressRule, NamedRule, NetworkPolicy, Reason, Refusal, SessionId};
use policy::{MAX_NETWORK_RULES, Policy, WidenPermit};
use sandbox::{Relayed, Supervisor};
use serde::{Deserialize, Serialize};
use store::{SessionChange, SessionRecord};
use tokio::{
    sync::{Mutex, mpsc},
    task::{AbortHandle, JoinSet},
};

use crate::{
    providers::Traffic,
    refusals,
    sessions::{Inner, LIVE, Sessions},
};

/// The set of rules that a person gave, in their names.
const PERSON: &str = "person";

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
    #[serde(default)]
    pub(crate) placeholders: BTreeMap<String, String>,
}

impl NetworkRecord {
    /// As it stands on record; one that cannot be read is none, and reaches nothing.
    pub(crate) fn of(record: &SessionRecord) -> Option<Self> {
        serde_json::from_slice(record.network.as_deref()?).ok()
    }
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

/// What a session that is at hand may reach.
pub(crate) struct LiveNetwork {
    record: Mutex<NetworkRecord>,
    ways: Option<Ways>,
}

/// The ways out of a session.
struct Ways {
    egress: Arc<SessionEgress>,
    /// What a person could let it reach.
    askable: Askable,
    serving: Vec<AbortHandle>,
}

impl LiveNetwork {
    /// Whether the ways out are open, whatever they lead to.
    pub(crate) const fn is_open(&self) -> bool {
        self.ways.is_some()
    }
}

impl Ways {
    fn put_in_force(&self, policy: NetworkPolicy) {
        let rules = RuleSet::new(policy).askable(self.askable.clone());
        self.egress.replace_rules(rules);
    }
}

impl Drop for Ways {
    fn drop(&mut self) {
        self.serving.iter().for_each(AbortHandle::abort);
    }
}

impl Network {
    /// Opens the ways out of a sandbox, before anything untrusted runs where the session is new.
    pub(crate) async fn open(
        &self,
        session: SessionId,
        record: NetworkRecord,
        policy: &Policy,
        supervisor: &Supervisor,
        traffic: Arc<dyn Traffic>,
    ) -> Result<LiveNetwork, Refusal> {
        let opening = self.credentials.opening(session, &record)?;
        let NetworkRecord {
            policy: rules,
            is_open,
            ..
        } = record.clone();
        let mut ways = None;
        if is_open {
            let askable = Askable::new(session, policy.network_ceiling().to_vec());
            let egress = SessionEgress::new(
                session,
                RuleSet::new(rules.clone()).askable(askable.clone()),
                Reach::new(Arc::clone(&self.resolver), ReachLimits::default()),
                opening,
                traffic,
                self.proxy.limits(),
            );
            let mut opened = Ways {
                egress,
                askable,
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
        })
    }
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
    pub async fn widen(&self, permit: WidenPermit) -> Result<model::SessionView, Refusal> {
        let (session, rules) = permit.into_parts();
        let live = self.0.ready(session).await?;
        let network = &live.network;
        let ways = network.ways.as_ref().ok_or_else(not_open)?;
        let mut record = network.record.lock().await;
        let wider = NetworkRecord {
            policy: with(&record.policy, rules)?,
            ..record.clone()
        };
        if !self.0.put_network(session, &wider).await? {
            return Err(self.0.not_ready(session).await);
        }
        ways.put_in_force(wider.policy.clone());
        *record = wider;
        drop(record);
        self.0
            .note(session, "a person let it reach more of the network")
            .await;
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
        let narrowed = NetworkRecord {
            policy: self.setup.policy.network_within(&found.policy),
            ..found.clone()
        };
        if narrowed != found {
            self.put_network(record.id, &narrowed).await?;
            self.note(
                record.id,
                "it reaches less of the network, since the operator allows less",
            )
            .await;
        }
        Ok(narrowed)
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

fn not_open() -> Refusal {
    Refusal::new(
        Reason::NetworkNotAllowed,
        "The session was made without ways out, when the operator allowed nothing.",
        "Create a new session.",
    )
}

//! Which model provider a session's Claude Code reaches, through the relay on the host; no key of it is ever inside.

use std::sync::Arc;

use egress::{
    AwsKeys, Caps, Credential, Ledger, ModelList, Observer, PricesError, Provider, Recording,
    Relay, RelayLimits, RequestRecord, SessionConfig, SessionRelay, Ticket, Trust, TrustError,
    Unrecorded, Usage, Used,
    proxy::{Decision, Recorder, TunnelEnd},
};
use model::{ProviderRequest, Reason, Refusal, Secret, SessionId};
use sandbox::Relayed;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use crate::usage::UsageBook;

/// Port of the sandbox's loopback interface that leads to the relay.
pub(crate) const RELAY_PORT: u16 = 9180;
/// Bytes of a token that a session's Claude Code presents to the relay.
const TOKEN_BYTES: usize = 24;

/// What the operator has configured.
pub struct Providers {
    /// The one that a session has when its caller names none.
    pub default: ProviderName,
    /// Where the first party is reached, if not at its own address.
    pub first_party_base_url: Option<String>,
    /// As whom.
    pub first_party: Option<Credential>,
    /// The region of Amazon Bedrock.
    pub bedrock_region: Option<String>,
    /// Where it is reached, if not at its own address.
    pub bedrock_base_url: Option<String>,
    /// As whom.
    pub bedrock: Option<Credential>,
    /// The project of Google Vertex AI.
    pub vertex_project: Option<String>,
    /// Its region.
    pub vertex_region: Option<String>,
    /// Where it is reached, if not at its own address.
    pub vertex_base_url: Option<String>,
    /// As whom.
    pub vertex: Option<Credential>,
    /// The model that is asked when nobody names one.
    pub model: Option<String>,
    /// The model for small work.
    pub small_model: Option<String>,
    /// Models that may be asked, exact or with `*` at the end; empty: all.
    pub models: Vec<String>,
    /// What a session may use.
    pub caps: Caps,
}

/// What passes requests on, and for whom.
pub struct Egress {
    /// Shared by all sessions.
    pub relay: Relay,
    /// What is configured.
    pub providers: Providers,
    /// Where sessions' traffic is put on record.
    pub traffic: Arc<dyn TrafficLog>,
    /// Prices, and what callers may use and have used day by day.
    pub ledger: Ledger,
    /// What puts on record what is used; `None`: nothing does.
    pub usage: Option<Arc<UsageBook>>,
}

/// What stays of it as long as the server runs.
pub(crate) struct Relaying {
    relay: Relay,
    pub(crate) traffic: Arc<dyn TrafficLog>,
    pub(crate) ledger: Ledger,
    pub(crate) usage: Option<Arc<UsageBook>>,
}

/// Whose session it is, and what it has used before.
pub(crate) struct Account<'a> {
    pub(crate) session: SessionId,
    pub(crate) owner: &'a str,
    pub(crate) used_before: Used,
}

/// Keeps the record of all sessions' traffic.
pub trait TrafficLog: Send + Sync {
    /// That of one session, as long as it is at hand. `owner`: [`model::Principal::name`].
    fn of(&self, session: SessionId, owner: &str) -> Arc<dyn Traffic>;
}

/// Keeps the record of one session's traffic: what cannot be recorded does not pass.
pub trait Traffic: Observer + Recorder {}

impl<T: Observer + Recorder> Traffic for T {}

/// A provider's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProviderName {
    /// Anthropic, or a gateway that speaks its API.
    FirstParty,
    /// Amazon Bedrock.
    Bedrock,
    /// Google Vertex AI.
    Vertex,
}

/// What of a provider a session has; it stands on record, so it holds no secret of the provider's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Chosen {
    pub(crate) name: ProviderName,
    region: Option<String>,
    model: Option<String>,
    small_model: Option<String>,
    /// The credential came with the call that made the session: a server that is started again does not have it.
    has_own_credential: bool,
    /// What Claude Code presents to the relay: worthless anywhere else.
    token: String,
}

/// Why there is not even a way that leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum NoEgress {
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Trust(#[from] TrustError),
    /// The built-in prices are broken.
    #[error("the built-in prices cannot be read")]
    Prices(#[from] PricesError),
}

/// No record at all, so that nothing passes.
struct NoTraffic;

impl TrafficLog for NoTraffic {
    fn of(&self, _session: SessionId, _owner: &str) -> Arc<dyn Traffic> {
        Arc::new(NoTraffic)
    }
}

impl Observer for NoTraffic {
    fn request_begins<'a>(
        &'a self,
        _session: SessionId,
        _record: &'a RequestRecord,
    ) -> Recording<'a> {
        Box::pin(std::future::ready(Err(no_record())))
    }

    fn request_ended(&self, _session: SessionId, _ticket: Option<Ticket>, _record: &RequestRecord) {
    }
}

impl Recorder for NoTraffic {
    fn decided<'a>(&'a self, _session: SessionId, _decision: &'a Decision) -> Recording<'a> {
        Box::pin(std::future::ready(Err(no_record())))
    }

    fn ended(&self, _session: SessionId, _ticket: Ticket, _end: &TunnelEnd) {}
}

fn no_record() -> Unrecorded {
    Unrecorded::Failed("no traffic is recorded here".to_owned())
}

impl Egress {
    /// No provider at all: sessions do everything but prompts.
    ///
    /// # Errors
    /// When TLS cannot be set up, or the built-in prices cannot be read.
    pub fn none() -> Result<Self, NoEgress> {
        let trust = Trust {
            machine: false,
            extra_pem: Vec::new(),
        };
        Ok(Egress {
            relay: Relay::new(RelayLimits::default(), &trust)?,
            providers: Providers {
                default: ProviderName::FirstParty,
                first_party_base_url: None,
                first_party: None,
                bedrock_region: None,
                bedrock_base_url: None,
                bedrock: None,
                vertex_project: None,
                vertex_region: None,
                vertex_base_url: None,
                vertex: None,
                model: None,
                small_model: None,
                models: Vec::new(),
                caps: Caps::default(),
            },
            traffic: Arc::new(NoTraffic),
            ledger: Ledger::unlimited()?,
            usage: None,
        })
    }

    /// Apart: what stays, and what the operator can change.
    pub(crate) fn split(self) -> (Relaying, Providers) {
        let relaying = Relaying {
            relay: self.relay,
            traffic: self.traffic,
            ledger: self.ledger,
            usage: self.usage,
        };
        (relaying, self.providers)
    }
}

impl Providers {
    /// Settles what a new session has.
    pub(crate) fn choose(&self, asked: &ProviderRequest) -> Result<Chosen, Refusal> {
        let configured = self;
        let name = match asked.use_bedrock {
            Some(true) => ProviderName::Bedrock,
            Some(false) if configured.default == ProviderName::Bedrock => ProviderName::FirstParty,
            _ if asked.api_key.is_some() => ProviderName::FirstParty,
            // Whose keys they are says for which provider they are.
            None if asked.aws_access_key_id.is_some() => ProviderName::Bedrock,
            _ => configured.default,
        };
        let is_bedrock = name == ProviderName::Bedrock;
        let of_bedrock = |asked: &Option<String>| asked.clone().filter(|_| is_bedrock);
        let mut token = [0; TOKEN_BYTES];
        getrandom::fill(&mut token).map_err(|error| Refusal::internal(&error))?;
        Ok(Chosen {
            name,
            region: asked.aws_region.clone(),
            model: of_bedrock(&asked.bedrock_model).or_else(|| configured.model.clone()),
            small_model: of_bedrock(&asked.bedrock_small_model)
                .or_else(|| configured.small_model.clone()),
            has_own_credential: asked.has_secret(),
            token: hex::encode(token),
        })
    }

    /// The session's side of the relay. `asked` is what its caller said, where this server heard it.
    pub(crate) fn open(
        &self,
        ledger: &Ledger,
        account: &Account<'_>,
        chosen: &Chosen,
        asked: Option<&ProviderRequest>,
        traffic: Arc<dyn Traffic>,
    ) -> Result<Arc<SessionRelay>, Refusal> {
        let provider = self.provider(chosen)?;
        let credential = match (chosen.has_own_credential, asked) {
            (true, Some(asked)) => own_credential(chosen.name, asked),
            (true, None) => None,
            (false, _) => self.configured(chosen.name).cloned(),
        };
        let models = ModelList::new(&self.models).map_err(|error| Refusal::internal(&error))?;
        let config = SessionConfig {
            session: account.session,
            caller: account.owner.to_owned(),
            ledger: ledger.clone(),
            provider,
            credential,
            models,
            caps: self.caps,
            token: Secret::new(chosen.token.clone()),
            used_before: usage(&account.used_before),
            observer: traffic,
        };
        SessionRelay::new(config).map_err(|error| unavailable(&error.to_string()))
    }

    /// Refuses work that no provider could answer.
    pub(crate) fn require_credential(&self, chosen: &Chosen, heard: bool) -> Result<(), Refusal> {
        match chosen.has_own_credential {
            true if heard => Ok(()),
            true => Err(unavailable(
                "the session's own key was lost when the server was started again",
            )),
            false => self.require_configured(chosen.name),
        }
    }

    /// The same for a session yet to be made, whose caller says nothing about its provider.
    pub(crate) fn require_default_credential(&self) -> Result<(), Refusal> {
        self.require_configured(self.default)
    }

    fn require_configured(&self, name: ProviderName) -> Result<(), Refusal> {
        if self.configured(name).is_some() {
            return Ok(());
        }
        Err(unavailable(match name {
            ProviderName::FirstParty => "no key of Anthropic is configured",
            ProviderName::Bedrock => "no keys for Amazon Bedrock are configured",
            ProviderName::Vertex => "no token for Google Vertex AI is configured",
        }))
    }

    fn configured(&self, name: ProviderName) -> Option<&Credential> {
        match name {
            ProviderName::FirstParty => self.first_party.as_ref(),
            ProviderName::Bedrock => self.bedrock.as_ref(),
            ProviderName::Vertex => self.vertex.as_ref(),
        }
    }

    fn provider(&self, chosen: &Chosen) -> Result<Provider, Refusal> {
        let configured = self;
        let missing = |what: &str| unavailable(&format!("{what} is not configured"));
        let provider = match chosen.name {
            ProviderName::FirstParty => {
                Provider::first_party(configured.first_party_base_url.as_deref())
            }
            ProviderName::Bedrock => {
                let region = self
                    .region(chosen)
                    .ok_or_else(|| missing("the region of Amazon Bedrock"))?;
                Provider::bedrock(&region, configured.bedrock_base_url.as_deref())
            }
            ProviderName::Vertex => {
                let project = configured.vertex_project.as_deref();
                let project = project.ok_or_else(|| missing("the project of Google Vertex AI"))?;
                let region = self
                    .region(chosen)
                    .ok_or_else(|| missing("the region of Google Vertex AI"))?;
                Provider::vertex(project, &region, configured.vertex_base_url.as_deref())
            }
        };
        provider.map_err(|error| unavailable(&error.to_string()))
    }

    fn region(&self, chosen: &Chosen) -> Option<String> {
        match chosen.name {
            ProviderName::FirstParty => None,
            ProviderName::Bedrock => chosen
                .region
                .clone()
                .or_else(|| self.bedrock_region.clone()),
            ProviderName::Vertex => self.vertex_region.clone(),
        }
    }

    /// Variables of Claude Code's processes: everything leads to the relay.
    pub(crate) fn environment(&self, chosen: &Chosen) -> Vec<(String, String)> {
        let relay = format!("http://127.0.0.1:{RELAY_PORT}");
        let region = self.region(chosen).unwrap_or_default();
        let mut variables = match chosen.name {
            ProviderName::FirstParty => vec![("ANTHROPIC_BASE_URL", relay)],
            ProviderName::Bedrock => vec![
                ("CLAUDE_CODE_USE_BEDROCK", "1".to_owned()),
                ("CLAUDE_CODE_SKIP_BEDROCK_AUTH", "1".to_owned()),
                ("ANTHROPIC_BEDROCK_BASE_URL", relay),
                ("AWS_REGION", region),
            ],
            ProviderName::Vertex => vec![
                ("CLAUDE_CODE_USE_VERTEX", "1".to_owned()),
                ("CLAUDE_CODE_SKIP_VERTEX_AUTH", "1".to_owned()),
                ("ANTHROPIC_VERTEX_BASE_URL", format!("{relay}/v1")),
                ("CLOUD_ML_REGION", region),
                (
                    "ANTHROPIC_VERTEX_PROJECT_ID",
                    self.vertex_project.clone().unwrap_or_default(),
                ),
            ],
        };
        variables.push(("ANTHROPIC_AUTH_TOKEN", chosen.token.clone()));
        for (name, model) in [
            ("ANTHROPIC_MODEL", &chosen.model),
            ("ANTHROPIC_SMALL_FAST_MODEL", &chosen.small_model),
        ] {
            if let Some(model) = model {
                variables.push((name, model.clone()));
            }
        }
        variables
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

impl Relaying {
    /// Serves the connections of a session until the handle is aborted, or its sandbox ends.
    pub(crate) fn serve(
        &self,
        mut connections: mpsc::Receiver<Relayed>,
        session: Arc<SessionRelay>,
    ) -> AbortHandle {
        let relay = self.relay.clone();
        let serving = async move {
            let mut open = JoinSet::new();
            loop {
                tokio::select! {
                    connection = connections.recv() => match connection {
                        Some(connection) => {
                            let (relay, session) = (relay.clone(), session.clone());
                            open.spawn(async move {
                                if let Err(error) = relay.serve(connection, session).await {
                                    tracing::debug!(%error, "a connection to the provider ended early");
                                }
                            });
                        }
                        None => return,
                    },
                    Some(_) = open.join_next() => {}
                }
            }
        };
        tokio::spawn(serving).abort_handle()
    }
}

fn own_credential(name: ProviderName, asked: &ProviderRequest) -> Option<Credential> {
    match name {
        ProviderName::FirstParty => asked.api_key.clone().map(Credential::ApiKey),
        ProviderName::Bedrock => Some(Credential::Aws(AwsKeys {
            access_key_id: asked.aws_access_key_id.clone()?,
            secret_access_key: asked.aws_secret_access_key.clone()?,
            session_token: asked.aws_session_token.clone(),
        })),
        ProviderName::Vertex => None,
    }
}

fn usage(used: &Used) -> Usage {
    Usage {
        requests: used.requests,
        denied: used.denied,
        tokens: used.tokens,
        cost: used.cost,
        unpriced: used.unpriced,
        bytes_up: used.bytes_up,
        bytes_down: used.bytes_down,
        ..Usage::default()
    }
}

fn unavailable(why: &str) -> Refusal {
    Refusal::new(
        Reason::ProviderUnavailable,
        format!("Claude Code cannot reach a model: {why}."),
        "Set ANTHROPIC_API_KEY (or the variables of Bedrock or Vertex) where the server is started, or name it in the \
         configuration file. A server that is already running keeps the environment that it started with: end it (claude-code-mcp \
         server stop), and the next call starts one; a file it reads again (claude-code-mcp server reload). Commands and files work without it.",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_provider_is_the_one_whose_keys_are_given_or_the_one_that_is_configured() {
        let key = || Some(Secret::new("key".to_owned()));
        let aws = ProviderRequest {
            aws_access_key_id: key(),
            aws_secret_access_key: key(),
            ..ProviderRequest::default()
        };
        let anthropic = ProviderRequest {
            api_key: key(),
            ..ProviderRequest::default()
        };
        let mut egress = Egress::none().unwrap();
        for default in [ProviderName::FirstParty, ProviderName::Bedrock] {
            egress.providers.default = default;
            let chosen = |asked| egress.providers.choose(asked).unwrap().name;
            assert_eq!(chosen(&aws), ProviderName::Bedrock);
            assert_eq!(chosen(&anthropic), ProviderName::FirstParty);
            assert_eq!(chosen(&ProviderRequest::default()), default);
        }
    }
}

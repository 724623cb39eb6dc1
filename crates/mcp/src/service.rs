//! What the server answers: the opening of both eras, the list of tools, and their calls. Everything else that the
//! protocol knows is `method_not_found`, also the lists that rmcp would answer with nothing in them.

use std::{borrow::Cow, sync::Arc};

use control::Road;
use model::{ClientInfo, Credentials, Source};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CompleteRequestMethod,
        CompleteRequestParams, CompleteResult, Implementation, ListPromptsRequestMethod,
        ListPromptsResult, ListResourceTemplatesRequestMethod, ListResourceTemplatesResult,
        ListResourcesRequestMethod, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
        ProtocolVersion, ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    arguments,
    call::{self, Caller, Words, Work},
    connection::Peer,
    person::{Person, Rounds},
    text,
    tools::{self, Entry, Offer, find},
};

/// The server's name in both openings.
pub const SERVER_NAME: &str = "claude-code-container";

/// What a client's model reads first, in both openings. At most 2,000 characters: clients cut what is longer.
pub const INSTRUCTIONS: &str = include_str!("instructions.txt");

/// Revisions that are tested. Older ones know batches, which are not served.
const PROTOCOL_VERSIONS: &[ProtocolVersion] = &[
    ProtocolVersion::V_2025_06_18,
    ProtocolVersion::V_2025_11_25,
    ProtocolVersion::V_2026_07_28,
];

/// How long a client may keep the list of tools, milliseconds. It is compiled in, so only an update changes it.
const TOOL_LIST_TTL_MS: u64 = 5 * 60 * 1000;

/// Calls of one connection that may be open at once; one more is refused. An agent with many parallel waits stays below.
const MAX_OPEN_CALLS: usize = 64;

/// Longest name and version of a client that is recorded, bytes.
const MAX_CLIENT_TEXT_BYTES: usize = 64;

/// The server as one connection sees it.
pub(crate) struct Service {
    road: Arc<dyn Road>,
    credentials: Credentials,
    source: Source,
    is_person: bool,
    shutdown: CancellationToken,
    open_calls: Semaphore,
    /// Whose turn it is to ask the person at the client.
    turn: Arc<tokio::sync::Mutex<()>>,
    rounds: Rounds,
}

impl Service {
    pub(crate) fn new(
        road: Arc<dyn Road>,
        Peer {
            credentials,
            source,
            is_person,
        }: Peer,
        shutdown: CancellationToken,
    ) -> Self {
        Service {
            road,
            credentials,
            source,
            is_person,
            shutdown,
            open_calls: Semaphore::new(MAX_OPEN_CALLS),
            turn: Arc::default(),
            rounds: Rounds::default(),
        }
    }

    /// Which tools are there for the other side.
    const fn offer(&self) -> Offer {
        match (&self.credentials, self.is_person) {
            (_, true) => Offer::Person,
            (Credentials::ApiKey(_) | Credentials::AccessToken(_), false) => Offer::Remote,
            (Credentials::LocalPeer { .. } | Credentials::System, false) => Offer::Program,
        }
    }

    fn caller(&self, context: &RequestContext<RoleServer>) -> Caller {
        let client = context.client_info().map(|client| ClientInfo {
            name: text::line(&client.name, MAX_CLIENT_TEXT_BYTES),
            version: text::line(&client.version, MAX_CLIENT_TEXT_BYTES),
        });
        Caller {
            road: Arc::clone(&self.road),
            credentials: self.credentials.clone(),
            source: self.source,
            client: client.unwrap_or_default(),
            said: context.extensions.get().cloned().unwrap_or_default(),
            is_person: self.is_person,
            person: Person::of(context, &self.turn),
            back_to: None,
            told: None,
            words: Words::default(),
        }
    }

    /// Calls a tool; its result is the reply, or what the client is to ask its person first.
    async fn call(
        &self,
        entry: &'static Entry,
        mut request: CallToolRequestParams,
        mut caller: Caller,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let back = match self.rounds.back(&request) {
            Ok(back) => back,
            Err(refusal) => return Ok(call::refused(&refusal).into()),
        };
        let round = back.as_ref().map_or(0, |back| back.round);
        if let Some(back) = &back {
            caller.words = back.words.clone();
        }
        let (person, words) = (caller.person.clone(), caller.words.clone());
        let fingerprint = person
            .is_asked_by_result()
            .then(|| self.rounds.fingerprint(&request));
        let work = Work {
            entry,
            arguments: request.arguments.take().unwrap_or_default(),
            caller,
            back,
        };
        let result = call::carry_out(work, context, &self.shutdown).await?;
        let asking = fingerprint
            .zip(person.left())
            .and_then(|(fingerprint, ask)| self.rounds.result(fingerprint, round, &ask, words));
        Ok(asking.map_or_else(|| result.into(), CallToolResponse::from))
    }
}

impl ServerHandler for Service {
    fn get_info(&self) -> ServerConfig {
        let implementation = Implementation::new(SERVER_NAME, env!("CARGO_PKG_VERSION"))
            .with_title("Claude Code Container")
            .with_description("Hardened sandbox sessions for commands and coding agents");
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
            .with_server_info(implementation)
            .with_instructions(INSTRUCTIONS)
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(PROTOCOL_VERSIONS)
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        find(name, self.offer()).map(|entry| entry.tool.clone())
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        if request.is_some_and(|request| request.cursor.is_some()) {
            return Err(ErrorData::invalid_params(
                "tools/list has one page and gives no cursor",
                None,
            ));
        }
        let mut result = ListToolsResult::with_all_items(tools::tool_list());
        result.ttl_ms = Some(TOOL_LIST_TTL_MS);
        result.cache_scope = Some(CacheScope::Public);
        Ok(result)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(entry) = find(&request.name, self.offer()) else {
            return Err(tools::unknown(&request.name));
        };
        let Ok(_permit) = self.open_calls.try_acquire() else {
            return Ok(call::refused(&call::too_many()).into());
        };
        let caller = self.caller(&context);
        if let Some(argument) = &caller.said.twice {
            return Ok(call::refused(&arguments::given_twice(argument)).into());
        }
        self.call(entry, request, caller, &context).await
    }

    async fn complete(
        &self,
        _request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        Err(ErrorData::method_not_found::<CompleteRequestMethod>())
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Err(ErrorData::method_not_found::<ListPromptsRequestMethod>())
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Err(ErrorData::method_not_found::<ListResourcesRequestMethod>())
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Err(ErrorData::method_not_found::<
            ListResourceTemplatesRequestMethod,
        >())
    }
}

//! What the server answers: the opening of both eras, the list of tools, and their calls. Everything else that the
//! protocol knows is `method_not_found`, also the lists that rmcp would answer with nothing in them.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use control::Road;
use model::{ClientInfo, Credentials};
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
use tokio_util::sync::CancellationToken;

use crate::{
    arguments,
    call::{self, Caller, Words, Work},
    connection::Peer,
    http::{HttpCaller, HttpRequest},
    person::{Person, Rounds},
    text,
    tools::{self, Entry, Offer, find},
};

/// The server's name in both openings.
pub const SERVER_NAME: &str = "claude-code-container";

/// What a client's model reads first, in both openings. At most 2,000 characters: clients cut what is longer.
pub const INSTRUCTIONS: &str = include_str!("instructions.txt");
/// The same for callers from elsewhere, who name projects and no paths of this host.
pub const REMOTE_INSTRUCTIONS: &str = include_str!("instructions_remote.txt");

/// Revisions that are tested. Older ones know batches, which are not served.
pub(crate) const PROTOCOL_VERSIONS: &[ProtocolVersion] = &[
    ProtocolVersion::V_2025_06_18,
    ProtocolVersion::V_2025_11_25,
    ProtocolVersion::V_2026_07_28,
];

/// How long a client may keep the list of tools, milliseconds. It is compiled in, so only an update changes it.
const TOOL_LIST_TTL_MS: u64 = 5 * 60 * 1000;

/// Calls of one connection, or of one caller by HTTP, that may be open at once; one more is refused. An agent with many
/// parallel waits stays below.
const MAX_OPEN_CALLS: usize = 64;

/// Longest name and version of a client that is recorded, bytes.
const MAX_CLIENT_TEXT_BYTES: usize = 64;

/// The server as one connection, or one request of HTTP, sees it.
pub struct Service {
    road: Arc<dyn Road>,
    door: Door,
    shutdown: CancellationToken,
    desk: Arc<Desk>,
}

/// Where a call's caller is told.
enum Door {
    /// By the connection, once.
    Connection(Peer),
    /// By the request.
    Http,
}

/// What is kept between calls: of one connection, or of all callers by HTTP.
#[derive(Default)]
pub(crate) struct Desk {
    open_calls: OpenCalls,
    /// Whose turn it is to ask the person at the client. One by one only where the call goes on meanwhile, which it
    /// does on a connection alone.
    turn: Arc<tokio::sync::Mutex<()>>,
    rounds: Rounds,
}

/// How many calls each caller has open.
#[derive(Default)]
struct OpenCalls(Mutex<HashMap<String, usize>>);

impl OpenCalls {
    /// `None` when the caller has too many.
    fn enter(&self, caller: &str) -> Option<OpenCall<'_>> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(caller.to_owned()).or_default();
        if *count >= MAX_OPEN_CALLS {
            return None;
        }
        *count += 1;
        Some(OpenCall {
            calls: self,
            caller: caller.to_owned(),
        })
    }
}

struct OpenCall<'a> {
    calls: &'a OpenCalls,
    caller: String,
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        let mut counts = self.calls.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.caller);
            }
        }
    }
}

/// One call, and its caller.
struct Call {
    caller: Caller,
    /// Whom the desk keeps things for.
    name: String,
}

impl Service {
    /// That of one connection.
    pub(crate) fn new(road: Arc<dyn Road>, peer: Peer, shutdown: CancellationToken) -> Self {
        Service {
            road,
            door: Door::Connection(peer),
            shutdown,
            desk: Arc::default(),
        }
    }

    /// That of one request of HTTP; `desk` is shared by all of them.
    pub(crate) fn of_http(
        road: Arc<dyn Road>,
        desk: Arc<Desk>,
        shutdown: CancellationToken,
    ) -> Self {
        Service {
            road,
            door: Door::Http,
            shutdown,
            desk,
        }
    }

    /// A person calls, as the transport says. Never by HTTP: there is a program on the other side, with a model.
    const fn is_person(&self) -> bool {
        match &self.door {
            Door::Connection(peer) => peer.is_person,
            Door::Http => false,
        }
    }

    /// Whose turn it is to ask the person at the client, where they can be asked while a call goes on.
    fn turn(&self) -> Option<&Arc<tokio::sync::Mutex<()>>> {
        match &self.door {
            Door::Connection(_) => Some(&self.desk.turn),
            Door::Http => None,
        }
    }

    /// Which tools are there for the other side.
    const fn offer(&self) -> Offer {
        match &self.door {
            Door::Http => Offer::Remote,
            Door::Connection(Peer {
                is_person: true, ..
            }) => Offer::Person,
            Door::Connection(peer) => match peer.credentials {
                Credentials::ApiKey(_) | Credentials::AccessToken(_) => Offer::Remote,
                Credentials::LocalPeer { .. } | Credentials::System => Offer::Program,
            },
        }
    }

    fn find(&self, tool: &str) -> Option<&'static Entry> {
        find(tool, self.offer())
    }

    /// What is true for the other side: one from elsewhere shares no disk with this host.
    const fn instructions(&self) -> &'static str {
        match self.offer() {
            Offer::Remote => REMOTE_INSTRUCTIONS,
            Offer::Person | Offer::Program => INSTRUCTIONS,
        }
    }

    /// # Errors
    /// A request of HTTP that the door did not hand over: a fault of ours, and nobody's call.
    fn call_of(&self, context: &RequestContext<RoleServer>) -> Result<Call, ErrorData> {
        let (credentials, source, said, name, http) = match &self.door {
            Door::Connection(peer) => {
                let said = context.extensions.get().cloned().unwrap_or_default();
                (
                    peer.credentials.clone(),
                    peer.source,
                    said,
                    String::new(),
                    None,
                )
            }
            Door::Http => {
                let http = HttpRequest::of(&context.extensions)
                    .ok_or_else(|| ErrorData::internal_error("the request has no caller", None))?;
                let HttpCaller {
                    credentials,
                    name,
                    source,
                } = http.caller.clone();
                (credentials, source, http.said.clone(), name, Some(http))
            }
        };
        let client = match &http {
            Some(http) => http.client(context),
            None => context.client_info(),
        };
        let client = client.map(|client| ClientInfo {
            name: text::line(&client.name, MAX_CLIENT_TEXT_BYTES),
            version: text::line(&client.version, MAX_CLIENT_TEXT_BYTES),
        });
        let caller = Caller {
            road: Arc::clone(&self.road),
            credentials,
            client: client.unwrap_or_default(),
            source,
            said,
            is_person: self.is_person(),
            person: Person::of(context, self.turn()),
            http,
            back_to: None,
            told: None,
            words: Words::default(),
        };
        Ok(Call { caller, name })
    }

    /// Calls a tool; its result is the reply, or what the client is to ask its person first.
    async fn call(
        &self,
        entry: &'static Entry,
        mut request: CallToolRequestParams,
        call: Call,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Call { mut caller, name } = call;
        let rounds = &self.desk.rounds;
        let back = match rounds.back(&name, &request) {
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
            .then(|| rounds.fingerprint(&request));
        let work = Work {
            entry,
            arguments: request.arguments.take().unwrap_or_default(),
            caller,
            back,
        };
        let answer = call::carry_out(work, context, &self.shutdown).await?;
        let asking = fingerprint
            .zip(person.left())
            .and_then(|(fingerprint, ask)| rounds.result(&name, fingerprint, round, &ask, words));
        Ok(asking.map_or_else(|| call::result(answer).into(), CallToolResponse::from))
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
            .with_instructions(self.instructions())
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(PROTOCOL_VERSIONS)
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.find(name).map(|entry| entry.tool.clone())
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        if request.is_some_and(|request| request.cursor.is_some()) {
            return Err(ErrorData::invalid_params(
                "tools/list has one page and gives no cursor",
                None,
            ));
        }
        let list = match HttpRequest::of(&context.extensions) {
            Some(request) => request.list(),
            None => tools::tool_list(),
        };
        let mut result = ListToolsResult::with_all_items(list);
        result.ttl_ms = Some(TOOL_LIST_TTL_MS);
        result.cache_scope = Some(CacheScope::Public);
        Ok(result)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(entry) = self.find(&request.name) else {
            return Err(tools::unknown(&request.name));
        };
        let call = self.call_of(&context)?;
        let name = call.name.clone();
        let Some(_open) = self.desk.open_calls.enter(&name) else {
            return Ok(call::refused(&call::too_many()).into());
        };
        if let Some(argument) = &call.caller.said.twice {
            return Ok(call::refused(&arguments::given_twice(argument)).into());
        }
        self.call(entry, request, call, &context).await
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

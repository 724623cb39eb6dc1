//! The tools, one file each. This file is what they have in common and the order in which they are listed.

mod cancel_execution;
mod create_session;
mod destroy_session;
mod execute_command;
mod extend_session;
mod fields;
mod get_execution;
mod get_server_info;
mod get_session;
mod get_session_logs;
mod list_sessions;
mod respond_execution;
mod transfer_files;

use std::sync::{Arc, LazyLock};

use futures::{FutureExt, future::BoxFuture};
use model::Refusal;
use rmcp::{
    ErrorData,
    model::{JsonObject, Tool, ToolAnnotations},
};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    arguments,
    call::{Caller, internal},
    schema, text,
};

/// Every tool as `tools/list` shows it, in that order, which is the order in which they are met in a day's work.
pub fn tool_list() -> Vec<Tool> {
    TOOLS.iter().map(|entry| entry.tool.clone()).collect()
}

static TOOLS: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    vec![
        entry::<create_session::CreateSession>(),
        entry::<execute_command::ExecuteCommand>(),
        entry::<get_execution::GetExecution>(),
        entry::<cancel_execution::CancelExecution>(),
        entry::<respond_execution::RespondExecution>(),
        entry::<list_sessions::ListSessions>(),
        entry::<get_session::GetSession>(),
        entry::<destroy_session::DestroySession>(),
        entry::<get_session_logs::GetSessionLogs>(),
        entry::<transfer_files::TransferFiles>(),
        entry::<extend_session::ExtendSession>(),
        entry::<get_server_info::GetServerInfo>(),
    ]
});

/// One tool: what is said about it and how it is called.
pub(crate) struct Entry {
    /// As listed.
    pub(crate) tool: Tool,
    /// Checks the arguments, takes the road and makes the reply.
    pub(crate) run: fn(JsonObject, Caller) -> BoxFuture<'static, Result<Value, Refusal>>,
}

/// What a tool does to the world, for clients that ask their user before some calls. No tool reaches an open world:
/// sessions have no network.
struct Hints {
    read_only: bool,
    destructive: bool,
    idempotent: bool,
}

impl Hints {
    const READS: Hints = Hints {
        read_only: true,
        destructive: false,
        idempotent: true,
    };
}

/// One tool, by type.
trait Definition: 'static {
    const NAME: &'static str;
    const TITLE: &'static str;
    /// For the model: what, when, lifetimes, what a disconnect does. At most 2,048 characters: clients cut the rest.
    const DESCRIPTION: &'static str;
    const HINTS: Hints;
    /// The arguments as they come, in the names of the wire.
    type Parameters: DeserializeOwned + JsonSchema + Send;
    type Reply: Serialize + JsonSchema;

    /// A refusal that the schema cannot say, given before it is checked.
    fn refuse_early(_arguments: &JsonObject) -> Result<(), Refusal> {
        Ok(())
    }

    fn run(
        parameters: Self::Parameters,
        caller: Caller,
    ) -> impl Future<Output = Result<Self::Reply, Refusal>> + Send;
}

fn entry<D: Definition>() -> Entry {
    let annotations = ToolAnnotations::with_title(D::TITLE)
        .read_only(D::HINTS.read_only)
        .destructive(D::HINTS.destructive)
        .idempotent(D::HINTS.idempotent)
        .open_world(false);
    let tool = Tool::new(
        D::NAME,
        D::DESCRIPTION,
        schema::of_parameters::<D::Parameters>(),
    )
    .with_title(D::TITLE)
    .with_raw_output_schema(schema::of_reply::<D::Reply>())
    .with_annotations(annotations);
    Entry {
        tool,
        run: |arguments, caller| run::<D>(arguments, caller).boxed(),
    }
}

async fn run<D: Definition>(arguments: JsonObject, caller: Caller) -> Result<Value, Refusal> {
    let parameters = parse::<D>(arguments)?;
    let reply = D::run(parameters, caller).await?;
    serde_json::to_value(reply).map_err(|error| Refusal::internal(&error))
}

fn parse<D: Definition>(mut arguments: JsonObject) -> Result<D::Parameters, Refusal> {
    D::refuse_early(&arguments)?;
    let schema =
        find(D::NAME).map_or_else(Arc::default, |entry| Arc::clone(&entry.tool.input_schema));
    arguments::check(D::NAME, &schema, &mut arguments)?;
    // What passed the schema has the right shape, so a failure here is a schema that does not tell the truth. The
    // cause is kept to ourselves: serde repeats values.
    serde_json::from_value(Value::Object(arguments))
        .map_err(|_value_in_it| internal("arguments passed their schema but not their type"))
}

/// The tool of that name.
pub(crate) fn find(name: &str) -> Option<&'static Entry> {
    TOOLS.iter().find(|entry| entry.tool.name == name)
}

/// The protocol error for a tool that does not exist.
pub(crate) fn unknown(name: &str) -> ErrorData {
    let names: Vec<&str> = TOOLS.iter().map(|entry| entry.tool.name.as_ref()).collect();
    let message = format!(
        "unknown tool `{}`; there are: {}",
        text::name(name),
        names.join(", ")
    );
    ErrorData::invalid_params(message, Some(json!({ "tools": names })))
}

/// An outcome that does not fit the action: a fault of ours.
fn unexpected(tool: &str) -> Refusal {
    internal(&format!(
        "the road answered {tool} with an outcome of another kind"
    ))
}

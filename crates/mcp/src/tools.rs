//! The tools, one file each. This file is what they have in common and the order in which they are listed.

mod allow_network;
mod cancel_execution;
mod create_key;
mod create_session;
mod deny_network;
mod destroy_session;
mod execute_command;
mod execute_in_session;
mod extend_session;
mod fields;
mod get_execution;
mod get_server_info;
mod get_session;
mod get_session_logs;
mod list_keys;
mod list_sessions;
mod respond_execution;
mod revoke_key;
mod rotate_key;
mod transfer_files;

use std::sync::{Arc, LazyLock};

use futures::{FutureExt, future::BoxFuture};
use model::{Refusal, Scope, Scopes};
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
        entry::<execute_in_session::ExecuteInSession>(),
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

/// Tools of the command line alone: not listed, and not there for a client whose model calls.
static PERSON_TOOLS: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    vec![
        entry::<allow_network::AllowNetwork>(),
        entry::<deny_network::DenyNetwork>(),
    ]
});

/// Tools for whoever manages keys: the command line, and remote callers, of whom the road asks `admin`. Not listed, so that no
/// model comes upon them.
static KEY_TOOLS: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    vec![
        entry::<create_key::CreateKey>(),
        entry::<rotate_key::RotateKey>(),
        entry::<revoke_key::RevokeKey>(),
        entry::<list_keys::ListKeys>(),
    ]
});

/// What a remote caller needs for a tool; `None` where there is no such tool. With some arguments a call needs more, which the road
/// says.
pub fn required_scopes(tool: &str) -> Option<Scopes> {
    let scope = match tool {
        "get_execution" | "list_sessions" | "get_session" | "get_session_logs"
        | "get_server_info" => Scope::SessionsRead,
        "create_session" | "execute_in_session" | "execute_command" | "cancel_execution"
        | "respond_execution" | "destroy_session" | "extend_session" => Scope::SessionsRun,
        "transfer_files" => Scope::Files,
        "create_key" | "rotate_key" | "revoke_key" | "list_keys" => Scope::Admin,
        _ => return None,
    };
    Some(Scopes::NONE.with(scope))
}

/// For whom tools are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// A program of this machine, whose model calls.
    Program,
    /// A caller from elsewhere.
    Remote,
    /// A person at the command line.
    Person,
}

/// One tool: what is said about it and how it is called.
pub(crate) struct Entry {
    /// As listed.
    pub(crate) tool: Tool,
    /// Checks the arguments, takes the road and makes the reply.
    pub(crate) run: fn(JsonObject, Caller) -> BoxFuture<'static, Result<Value, Refusal>>,
}

/// What a tool does to the world, for clients that ask their user before some calls.
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
    /// What runs may reach hosts of an open world, where the session's network allows any.
    const OPEN_WORLD: bool = false;
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
        .open_world(D::OPEN_WORLD);
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
    let schema = find(D::NAME, Offer::Person)
        .map_or_else(Arc::default, |entry| Arc::clone(&entry.tool.input_schema));
    arguments::check(D::NAME, &schema, &mut arguments)?;
    // What passed the schema has the right shape, so a failure here is a schema that does not tell the truth. The
    // cause is kept to ourselves: serde repeats values.
    serde_json::from_value(Value::Object(arguments))
        .map_err(|_value_in_it| internal("arguments passed their schema but not their type"))
}

/// The tool of that name, as it is there for a person or for a program.
pub(crate) fn find(name: &str, offer: Offer) -> Option<&'static Entry> {
    let own = PERSON_TOOLS.iter().filter(|_| offer == Offer::Person);
    let keys = KEY_TOOLS.iter().filter(|_| offer != Offer::Program);
    TOOLS
        .iter()
        .chain(own)
        .chain(keys)
        .find(|entry| entry.tool.name == name)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Values that one schema or another takes, and some that none does.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-5i64..50).prop_map(Value::from),
            (-5i32..50).prop_map(|n| Value::from(f64::from(n))),
            any::<f64>().prop_map(Value::from),
            "[a-z/]{0,8}".prop_map(Value::from),
            prop_oneof!["native", "to_container", "from_container", "/p"].prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            let name = prop_oneof![
                "memoryBytes",
                "pids",
                "hostPath",
                "containerPath",
                "readOnly",
                "A"
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map(name, inner, 0..3)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn parse_only(tool: &str, arguments: JsonObject) -> Result<(), Refusal> {
        fn parsed<D: Definition>(arguments: JsonObject) -> Result<(), Refusal> {
            parse::<D>(arguments).map(|_| ())
        }
        match tool {
            "create_session" => parsed::<create_session::CreateSession>(arguments),
            "execute_in_session" => parsed::<execute_in_session::ExecuteInSession>(arguments),
            "execute_command" => parsed::<execute_command::ExecuteCommand>(arguments),
            "get_execution" => parsed::<get_execution::GetExecution>(arguments),
            "respond_execution" => parsed::<respond_execution::RespondExecution>(arguments),
            "get_session_logs" => parsed::<get_session_logs::GetSessionLogs>(arguments),
            "transfer_files" => parsed::<transfer_files::TransferFiles>(arguments),
            "extend_session" => parsed::<extend_session::ExtendSession>(arguments),
            "cancel_execution" => parsed::<cancel_execution::CancelExecution>(arguments),
            "get_session" | "destroy_session" => parsed::<get_session::GetSession>(arguments),
            _ => parsed::<list_sessions::ListSessions>(arguments),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_passes_a_schema_has_the_type(values in prop::collection::vec(prop::option::of(value()), 16)) {
            for entry in TOOLS.iter() {
                let properties = entry.tool.input_schema["properties"].as_object().unwrap();
                let arguments: JsonObject = properties
                    .keys()
                    .zip(values.iter().cycle())
                    .filter_map(|(name, value)| Some((name.clone(), value.clone()?)))
                    .collect();
                // Each argument alone, so that one that is wrong does not hide the next.
                for (name, value) in arguments {
                    let mut single = least(&entry.tool);
                    single.insert(name, value);
                    if let Err(refusal) = parse_only(&entry.tool.name, single.clone()) {
                        prop_assert_eq!(refusal.reason, model::Reason::InvalidArgument, "{} {:?}", entry.tool.name, single);
                    }
                }
            }
        }
    }

    fn least(tool: &Tool) -> JsonObject {
        let required = tool.input_schema.get("required").and_then(Value::as_array);
        let sample = |name: &str| match name {
            "seconds" => json!(1),
            "direction" => json!("to_container"),
            _ => json!("/x"),
        };
        required
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(|name| (name.to_owned(), sample(name)))
            .collect()
    }

    #[test]
    fn the_least_arguments_of_the_property_pass() {
        for entry in TOOLS.iter() {
            assert!(
                parse_only(&entry.tool.name, least(&entry.tool)).is_ok(),
                "{}",
                entry.tool.name
            );
        }
    }
}

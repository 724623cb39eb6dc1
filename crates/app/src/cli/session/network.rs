//! What a session reaches: asked for with its creation, or answered by `session allow` and `session deny`.

use mcp::reply::{NetworkReply, PendingNetworkReply, SessionReply};
use serde_json::{Value, json};

use super::{
    super::arguments::NetworkArguments, CliError, Client, Context, EXIT_OK, read, resolve,
};
use crate::cli::output::Output;

/// The port of a host that is named without one.
const DEFAULT_PORT: u16 = 443;

/// The argument of a creation; none where nothing is asked for.
pub(in crate::cli) fn network(arguments: &NetworkArguments) -> Option<Value> {
    let NetworkArguments {
        presets,
        hosts,
        credentials,
    } = arguments;
    let asks = [presets, hosts, credentials]
        .iter()
        .any(|list| !list.is_empty());
    asks.then(|| json!({ "presets": presets, "allow": hosts, "credentials": credentials }))
}

/// Lets a session that runs reach more. The server takes this from a person alone.
pub(super) async fn allow(
    context: &Context,
    session: &str,
    hosts: &[String],
) -> Result<u8, CliError> {
    let client = Client::connect(context, Vec::new()).await?;
    let session_id = resolve(&client, session).await?;
    let call = json!({ "sessionId": session_id, "allow": hosts });
    let content = client.call("allow_network", call).await?;
    if context.output.json {
        context.output.json(&content)?;
        return Ok(EXIT_OK);
    }
    let reply: SessionReply = read("allow_network", content)?;
    context
        .output
        .line(&format!("{} reaches now:", reply.session_name))?;
    show(context.output, reply.network.as_ref())?;
    Ok(EXIT_OK)
}

/// Says no to what a session wants to reach. The server takes this from a person alone.
pub(super) async fn deny(context: &Context, session: &str, target: &str) -> Result<u8, CliError> {
    let client = Client::connect(context, Vec::new()).await?;
    let session_id = resolve(&client, session).await?;
    let call = json!({ "sessionId": session_id, "target": target });
    let content = client.call("deny_network", call).await?;
    if context.output.json {
        context.output.json(&content)?;
        return Ok(EXIT_OK);
    }
    let reply: SessionReply = read("deny_network", content)?;
    let named = match target.contains(':') {
        true => target.to_owned(),
        false => format!("{target}:{DEFAULT_PORT}"),
    };
    context.output.line(&format!(
        "{} does not reach {named}, and is not asked about it again; `session allow` takes that back",
        reply.session_name
    ))?;
    Ok(EXIT_OK)
}

/// What waits for a person's word, and how to give it.
pub(super) fn show_pending(output: Output, reply: &SessionReply) -> Result<(), CliError> {
    for asked in &reply.pending_network_requests {
        let PendingNetworkReply {
            host,
            port,
            denied_at,
        } = asked;
        output.line(&format!(
            "it wants to reach {host}:{port}, and waits for your word until {denied_at}:"
        ))?;
        for word in ["allow", "deny"] {
            let id = &reply.session_id;
            output.line(&format!(
                "  claude-code-mcp session {word} {id} {host}:{port}"
            ))?;
        }
    }
    Ok(())
}

/// One line for each rule.
pub(super) fn show(output: Output, network: Option<&NetworkReply>) -> Result<(), CliError> {
    let rows = network.into_iter().flat_map(|network| &network.rules);
    let rows: Vec<Vec<String>> = rows
        .map(|rule| {
            let ports: Vec<String> = rule.ports.iter().map(u16::to_string).collect();
            let mut only = rule.methods.join(",");
            if !rule.paths.is_empty() {
                only = format!("{only} {}", rule.paths.join(" "));
            }
            let address = if rule.private {
                "may be private"
            } else {
                "public"
            };
            vec![
                rule.name.clone(),
                rule.host.clone(),
                ports.join(","),
                only.trim().to_owned(),
                address.to_owned(),
            ]
        })
        .collect();
    if rows.is_empty() {
        return output.line("network   none but its model provider");
    }
    output.table(&["RULE", "HOST", "PORTS", "ONLY", "ADDRESS"], rows)
}

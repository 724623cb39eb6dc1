//! What a session reaches: asked for with its creation, or by `session allow`.

use mcp::reply::{NetworkReply, SessionReply};
use serde_json::{Value, json};

use super::{
    super::arguments::NetworkArguments, CliError, Client, Context, EXIT_OK, read, resolve,
};
use crate::cli::output::Output;

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

//! What a document breaks of [`RULES`](super::rules::RULES): the file's own part here, each service in `service.rs`.

use serde::Serialize;

use super::{
    document::{Node, Value},
    rules::{Severity, rule},
    service,
    variables::Variables,
};

/// A broken rule, where, and what was found there. Values of variables are never shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub id: &'static str,
    pub severity: Severity,
    /// Counted from 1. What is missing is told at its service's name.
    pub line: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What stands there, or what does not.
    pub found: String,
    pub why: &'static str,
    pub fix: &'static str,
}

/// A document that Compose would not take either.
#[derive(Debug, thiserror::Error)]
pub enum NotCompose {
    /// No mapping, or no services in it.
    #[error("it is no Compose file: it has no `services`")]
    Services,
    /// A service without content.
    #[error("line {line}: the service {name:?} is no mapping")]
    Service {
        /// Where its name stands.
        line: usize,
        /// Its name.
        name: String,
    },
    /// The list of forbidden host paths.
    #[error("the list of forbidden host paths cannot be used")]
    Paths(#[from] policy::PolicyError),
}

/// What was found so far, and whose part is looked at.
#[derive(Default)]
pub(super) struct Findings {
    pub list: Vec<Finding>,
    pub service: Option<String>,
}

impl Findings {
    pub fn add(&mut self, id: &'static str, line: usize, found: impl Into<String>) {
        let rule = rule(id);
        self.list.push(Finding {
            id: rule.id,
            severity: rule.severity,
            line,
            service: self.service.clone(),
            found: found.into(),
            why: rule.why,
            fix: rule.fix,
        });
    }
}

/// All findings, in the order of their lines.
///
/// # Errors
/// The document is no Compose file.
pub fn lint(root: &Node) -> Result<Vec<Finding>, NotCompose> {
    let services = root.entry("services").ok_or(NotCompose::Services)?;
    if !matches!(services.node.value, Value::Mapping(_)) || services.node.entries().is_empty() {
        return Err(NotCompose::Services);
    }
    let mut findings = Findings::default();
    file(root, &mut findings);
    for entry in services.node.entries() {
        if !matches!(entry.node.value, Value::Mapping(_)) {
            return Err(NotCompose::Service {
                line: entry.line,
                name: entry.key.clone(),
            });
        }
        findings.service = Some(entry.key.clone());
        let mut variables = Variables::default();
        let node = variables.resolve(&entry.node);
        for (line, name) in variables.unknown {
            findings.add("not_seen", line, format!("the variable {name}"));
        }
        service::lint(&node, entry.line, root, &mut findings)?;
    }
    let mut list = findings.list;
    list.sort_by(|a, b| (a.line, b.severity, a.id).cmp(&(b.line, a.severity, b.id)));
    list.dedup();
    Ok(list)
}

fn file(root: &Node, findings: &mut Findings) {
    if let Some(version) = root.entry("version") {
        findings.add("obsolete_version", version.line, "version");
    }
    if let Some(include) = root.entry("include") {
        findings.add("not_seen", include.line, "include");
    }
    for network in root.at(&["networks"]).map_or(&[][..], Node::entries) {
        if let Some(internal) = network.node.entry("internal")
            && means_yes(&internal.node)
            && !is_isolated(&network.node)
        {
            let found = format!("internal: true in the network {}", network.key);
            findings.add("internal_network", internal.line, found);
        }
    }
}

/// A bridge that neither the host nor its own containers are reached by. Another driver's containers meet each other, too.
fn is_isolated(network: &Node) -> bool {
    let option = |name: &str| network.at(&["driver_opts", name]).and_then(Node::text);
    option("com.docker.network.bridge.gateway_mode_ipv4") == Some("isolated")
        && option("com.docker.network.bridge.enable_icc") == Some("false")
        && network
            .at(&["enable_ipv6"])
            .is_none_or(|ipv6| !means_yes(ipv6))
}

/// For what is dangerous: everything that is not plainly no.
pub(super) fn means_yes(node: &Node) -> bool {
    let text = node.text().unwrap_or("true").to_ascii_lowercase();
    !["false", "no", "n", "off", "0", "", "~", "null"].contains(&text.as_str())
}

/// For what protects: nothing but the word itself.
pub(super) fn is_true(node: Option<&Node>) -> bool {
    node.and_then(Node::text) == Some("true")
}

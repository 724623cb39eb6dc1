//! Where access tokens for this server come from: the metadata of a protected resource (RFC 9728).

use model::{Scope, Scopes};
use serde::Serialize;

use crate::settings::OAuth;

/// Where it stands, before the path of the resource.
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The document, and where it stands.
#[derive(Debug)]
pub(crate) struct Metadata {
    url: String,
    paths: Vec<String>,
    document: Document,
}

#[derive(Debug, Serialize)]
struct Document {
    resource: String,
    authorization_servers: Vec<String>,
    /// The least that is of use: clients ask for all of it at first. What a call needs beyond is said when it is made.
    scopes_supported: Vec<&'static str>,
    bearer_methods_supported: [&'static str; 1],
    resource_name: &'static str,
}

impl Metadata {
    pub(crate) fn new(oauth: &OAuth) -> Self {
        let resource = &oauth.audience;
        let after_scheme = resource.find("://").map_or(0, |at| at + 3);
        let path_at = resource[after_scheme..]
            .find('/')
            .map(|at| after_scheme + at);
        let (origin, path) = resource.split_at(path_at.unwrap_or(resource.len()));
        let path = path.trim_end_matches('/');
        let own = format!("{WELL_KNOWN}{path}");
        let least = Scopes::NONE.with(Scope::SessionsRead);
        Metadata {
            url: format!("{origin}{own}"),
            paths: vec![own, WELL_KNOWN.to_owned(), format!("{WELL_KNOWN}/mcp")],
            document: Document {
                resource: resource.clone(),
                authorization_servers: oauth.issuers.clone(),
                scopes_supported: least.iter().map(Scope::as_str).collect(),
                bearer_methods_supported: ["header"],
                resource_name: "Claude Code Container MCP Server",
            },
        }
    }

    /// Its URL, as clients reach it.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The document, where it stands at that path.
    pub(crate) fn at(&self, path: &str) -> Option<&impl Serialize> {
        self.paths
            .iter()
            .any(|own| own == path)
            .then_some(&self.document)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_well_known_part_stands_before_the_path_of_the_resource() {
        for (audience, url) in [
            (
                "https://h.example/mcp",
                "https://h.example/.well-known/oauth-protected-resource/mcp",
            ),
            (
                "https://h.example:8443/a/mcp",
                "https://h.example:8443/.well-known/oauth-protected-resource/a/mcp",
            ),
            (
                "https://h.example",
                "https://h.example/.well-known/oauth-protected-resource",
            ),
            (
                "https://h.example/",
                "https://h.example/.well-known/oauth-protected-resource",
            ),
        ] {
            let metadata = Metadata::new(&OAuth {
                issuers: vec!["https://id.example".to_owned()],
                audience: audience.to_owned(),
            });
            assert_eq!(metadata.url(), url);
            assert!(
                metadata
                    .at("/.well-known/oauth-protected-resource")
                    .is_some()
            );
            assert!(
                metadata
                    .at("/.well-known/oauth-protected-resource/other")
                    .is_none()
            );
            let document = serde_json::to_value(&metadata.document).unwrap();
            assert_eq!(document["resource"], audience);
            assert_eq!(document["authorization_servers"][0], "https://id.example");
        }
    }
}

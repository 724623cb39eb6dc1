//! Credentials that requests are given on their way out, and what stands for them inside: a placeholder in variables, and the
//! certificates by which the programs there believe who puts the credential in.

use std::{collections::BTreeMap, sync::Arc};

use egress::{
    intercept::{Binding, Bound, Broker, Interception},
    proxy::Opening,
};
use model::{CERTIFICATES_DIRECTORY, CERTIFICATES_NAME, NetworkPolicy, Reason, Refusal, SessionId};

use super::NetworkRecord;

/// Variables that name a file of certificates: OpenSSL's own, and those of programs that look elsewhere.
const CERTIFICATE_VARIABLES: [&str; 9] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
];
/// How a placeholder begins: whoever finds it in a log knows that it is none.
const PLACEHOLDER_PREFIX: &str = "ccm-placeholder-";
/// Random bytes of it. It is worth nothing outside of its session; it must only not be met by chance.
const PLACEHOLDER_BYTES: usize = 16;
/// Settings for git in variables (`git-config(1)`, `GIT_CONFIG_COUNT`).
const GIT_COUNT: &str = "GIT_CONFIG_COUNT";
/// The port of `https://` without one.
const HTTPS_PORT: u16 = 443;

/// A credential that sessions can have.
#[derive(Debug)]
pub struct Offered {
    /// Where it goes, and where it comes from.
    pub binding: Arc<Binding>,
    /// Variables that hold its placeholder inside.
    pub variables: Vec<String>,
    /// git uses it, with this name of a user.
    pub git_user: Option<String>,
}

/// All that sessions can have, and how their tunnels are opened.
#[derive(Debug, Default)]
pub struct Credentials {
    /// Both sides of opened tunnels; nothing where no session can ask for any.
    pub interception: Option<Arc<Interception>>,
    /// By name.
    pub offered: BTreeMap<String, Offered>,
}

impl Credentials {
    /// What the sandbox of a session has to believe.
    ///
    /// # Errors
    /// When it is to have tunnels opened and nobody can.
    pub(crate) fn certificates(&self, policy: &NetworkPolicy) -> Result<Option<String>, Refusal> {
        if !policy.opens_tls() {
            return Ok(None);
        }
        let interception = self.interception.as_ref().ok_or_else(|| {
            Refusal::new(
                Reason::NetworkNotAllowed,
                "This server does not open TLS, which the rules or credentials of the session need.",
                "Ask for hosts without methods, paths or credentials.",
            )
        })?;
        Ok(Some(interception.certificates().to_owned()))
    }

    /// Looks whether the credentials of a new session can be used, as far as that is known before they are.
    ///
    /// # Errors
    /// `credential_unavailable`, with the first that cannot.
    pub(crate) fn check(&self, policy: &NetworkPolicy) -> Result<(), Refusal> {
        for name in &policy.credentials {
            let Some(offered) = self.offered.get(name) else {
                continue;
            };
            offered.binding.check().map_err(|error| {
                let message = format!("The credential `{name}` cannot be used: {error}.");
                let hint = format!(
                    "Ask for none, or let the operator put right what `[credentials.{name}]` of the server's configuration names."
                );
                Refusal::new(Reason::CredentialUnavailable, message, hint)
                    .in_field("network.credentials")
            })?;
        }
        Ok(())
    }

    /// Placeholders for a new session.
    pub(crate) fn placeholders(
        policy: &NetworkPolicy,
    ) -> Result<BTreeMap<String, String>, Refusal> {
        let one = |name: &String| {
            let mut bytes = [0; PLACEHOLDER_BYTES];
            getrandom::fill(&mut bytes).map_err(|error| Refusal::internal(&error))?;
            Ok((
                name.clone(),
                format!("{PLACEHOLDER_PREFIX}{}", hex::encode(bytes)),
            ))
        };
        policy.credentials.iter().map(one).collect()
    }

    /// What a session has opened. A credential that cannot be used any more is left out: its placeholder stays one.
    pub(super) fn opening(&self, session: SessionId, record: &NetworkRecord) -> Option<Opening> {
        let interception = self.interception.as_ref().filter(|_| record.opens_tls)?;
        let mut bound = Vec::new();
        for name in &record.policy.credentials {
            let both = (self.offered.get(name), record.placeholders.get(name));
            if let (Some(offered), Some(placeholder)) = both {
                let binding = Arc::clone(&offered.binding);
                match Bound::new(binding, placeholder.clone(), session) {
                    Ok(one) => bound.push(one),
                    Err(error) => {
                        tracing::error!(%session, credential = name, %error, "a session does without a credential");
                    }
                }
            }
        }
        Some(Opening {
            interception: Arc::clone(interception),
            broker: Broker::new(bound),
        })
    }

    /// The variables of a session by which its programs find certificates and placeholders.
    pub(crate) fn variables(&self, record: &NetworkRecord) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        if record.opens_tls {
            let file = format!("{CERTIFICATES_DIRECTORY}/{CERTIFICATES_NAME}");
            variables.extend(CERTIFICATE_VARIABLES.map(|name| (name.to_owned(), file.clone())));
        }
        let mut git = Vec::new();
        for (name, placeholder) in &record.placeholders {
            let Some(offered) = self.offered.get(name) else {
                continue;
            };
            let named = offered.variables.iter();
            variables.extend(named.map(|name| (name.clone(), placeholder.clone())));
            if let Some(user) = &offered.git_user {
                git.extend(git_settings(&offered.binding, user, placeholder));
            }
        }
        if !git.is_empty() {
            variables.insert(GIT_COUNT.to_owned(), git.len().to_string());
        }
        for (index, (key, value)) in git.into_iter().enumerate() {
            variables.insert(format!("GIT_CONFIG_KEY_{index}"), key);
            variables.insert(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        variables
    }
}

/// For each host: no helper that stands elsewhere, and one that says the placeholder (`gitcredentials(7)`).
fn git_settings(binding: &Binding, user: &str, placeholder: &str) -> Vec<(String, String)> {
    let helper = format!(
        "!f() {{ test \"$1\" = get && printf 'username={user}\\npassword={placeholder}\\n'; }}; f"
    );
    let mut settings = Vec::new();
    for rule in &binding.destinations {
        for port in &rule.ports {
            let place = match *port {
                HTTPS_PORT => format!("https://{}", rule.host),
                port => format!("https://{}:{port}", rule.host),
            };
            let key = format!("credential.{place}.helper");
            settings.push((key.clone(), String::new()));
            settings.push((key, helper.clone()));
        }
    }
    settings
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use egress::{Credential, intercept::Carrier};
    use model::Secret;

    use super::*;

    fn credentials() -> Credentials {
        let destinations = ["hub.example", "hub.example:8443"].map(|text| text.parse().unwrap());
        let binding = Binding {
            name: "hub".to_owned(),
            destinations: destinations.to_vec(),
            carrier: Carrier::Authorization,
            credential: Credential::Bearer(Secret::new("the-real-one".to_owned())),
        };
        let offered = Offered {
            binding: Arc::new(binding),
            variables: vec!["HUB_TOKEN".to_owned()],
            git_user: Some("x".to_owned()),
        };
        Credentials {
            interception: None,
            offered: BTreeMap::from([("hub".to_owned(), offered)]),
        }
    }

    fn policy() -> NetworkPolicy {
        NetworkPolicy {
            credentials: vec!["hub".to_owned()],
            ..NetworkPolicy::default()
        }
    }

    #[test]
    fn inside_stand_a_placeholder_and_a_file_to_believe_and_nothing_of_the_credential() {
        let placeholders = Credentials::placeholders(&policy()).unwrap();
        let placeholder = placeholders["hub"].clone();
        assert_ne!(placeholders, Credentials::placeholders(&policy()).unwrap());
        let record = NetworkRecord {
            policy: policy(),
            is_open: true,
            opens_tls: true,
            placeholders,
            ..NetworkRecord::default()
        };
        let variables = credentials().variables(&record);
        assert_eq!(variables["HUB_TOKEN"], placeholder);
        assert_eq!(
            variables["GIT_SSL_CAINFO"],
            "/etc/claude-code-mcp/certificates.pem"
        );
        assert_eq!(variables["GIT_CONFIG_COUNT"], "4");
        assert_eq!(
            variables["GIT_CONFIG_KEY_3"],
            "credential.https://hub.example:8443.helper"
        );
        assert!(variables["GIT_CONFIG_VALUE_3"].contains(&placeholder));
        assert!(!format!("{variables:?}").contains("the-real-one"));
        assert!(
            credentials()
                .variables(&NetworkRecord::default())
                .is_empty()
        );
    }

    /// Its placeholder would have stayed one, and every request have failed.
    #[test]
    fn a_session_was_made_with_a_credential_too_short_to_be_used() {
        let with = |token: &str| {
            let mut credentials = credentials();
            let hub = credentials.offered.get_mut("hub").unwrap();
            let binding = Arc::get_mut(&mut hub.binding).unwrap();
            binding.credential = Credential::Bearer(Secret::new(token.to_owned()));
            credentials
        };
        let refused = with("abc").check(&policy()).unwrap_err();
        assert_eq!(refused.reason, Reason::CredentialUnavailable);
        let message = "The credential `hub` cannot be used: it must have 12 to 4096 bytes.";
        assert_eq!(refused.message, message);
        assert!(refused.hint.contains("`[credentials.hub]`"), "{refused:?}");
        assert_eq!(with("abc").check(&NetworkPolicy::default()), Ok(()));
        assert_eq!(credentials().check(&policy()), Ok(()), "the control");
    }

    #[test]
    fn a_session_that_needs_opened_tunnels_is_refused_where_nobody_opens_them() {
        assert_eq!(
            credentials().certificates(&NetworkPolicy::default()),
            Ok(None)
        );
        let refused = credentials().certificates(&policy()).unwrap_err();
        assert_eq!(refused.reason, Reason::NetworkNotAllowed);
    }
}

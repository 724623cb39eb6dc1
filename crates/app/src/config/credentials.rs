//! The table `credentials`: what requests of sessions may be given on their way out, where it comes from, and where it may go.

use std::path::PathBuf;

use http::HeaderName;
use model::{EgressRule, Secret};
use serde::Deserialize;

use super::{
    ConfigError, Environment,
    environment::CREDENTIAL_PREFIX,
    layers::Given,
    named_tables::{self, absolute},
};

/// Credentials in all.
pub(super) const MAX_CREDENTIALS: usize = 32;
/// Headers that say something else than who asks.
const OTHER_HEADERS: [&str; 8] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "content-type",
    "cookie",
    "accept-encoding",
    "expect",
];

/// A service whose destinations are known. GitHub: the paths of its API and of git over HTTPS take the token as bearer and as
/// the password of any user (docs.github.com, "Authenticating to the REST API", "Managing your personal access tokens").
struct Known {
    name: &'static str,
    destinations: &'static [&'static str],
    variables: &'static [&'static str],
    git_user: &'static str,
}

const KNOWN: [Known; 1] = [Known {
    name: "github",
    destinations: &["github.com", "api.github.com", "uploads.github.com"],
    variables: &["GITHUB_TOKEN", "GH_TOKEN"],
    git_user: "x-access-token",
}];

/// One credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialSettings {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub from: CredentialSource,
    /// Where it may go.
    pub destinations: Vec<EgressRule>,
    /// The header that carries it; `authorization` where there is none.
    pub header: Option<HeaderName>,
    /// Variables inside that hold its placeholder.
    pub variables: Vec<String>,
    /// git uses it, with that user.
    pub git_user: Option<String>,
    /// Every session has it that reaches one of its destinations.
    pub always: bool,
}

/// Where a credential comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialSource {
    /// A file, mode 0600.
    File(PathBuf),
    /// A command that prints it.
    Command(Vec<String>),
    /// A file that systemd made.
    Systemd(PathBuf),
    /// A variable of whoever started the server.
    Variable(Secret<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    file: Option<String>,
    command: Option<Vec<String>>,
    destinations: Option<Vec<String>>,
    header: Option<String>,
    variables: Option<Vec<String>>,
    git_user: Option<String>,
    #[serde(default)]
    always: bool,
}

/// Reads the table.
///
/// # Errors
/// For a credential without a source or a destination, and for whatever in it is not what it must be.
pub(super) fn read(
    given: &Given,
    environment: &Environment,
) -> Result<Vec<CredentialSettings>, ConfigError> {
    let wrong = |name, origin, why| ConfigError::Credential { name, origin, why };
    named_tables::read(given, MAX_CREDENTIALS, wrong, |name, table| {
        one(name, table, environment)
    })
}

fn one(name: &str, table: Table, environment: &Environment) -> Result<CredentialSettings, String> {
    let known = KNOWN.iter().find(|known| known.name == name);
    let usual = |list: fn(&Known) -> &'static [&'static str]| {
        let list = known.map(list).unwrap_or_default();
        list.iter()
            .map(|text| (*text).to_owned())
            .collect::<Vec<_>>()
    };
    let written = table
        .destinations
        .unwrap_or_else(|| usual(|known| known.destinations));
    if written.is_empty() {
        return Err(
            "`destinations` is missing: name hosts such as \"registry.example.com\"".to_owned(),
        );
    }
    let destinations = written
        .iter()
        .map(|text| destination(text))
        .collect::<Result<_, _>>()?;
    let variables = table
        .variables
        .unwrap_or_else(|| usual(|known| known.variables));
    if let Some(flawed) = variables.iter().find(|name| !is_variable(name)) {
        return Err(format!(
            "`{flawed}` in `variables` is no name of a variable"
        ));
    }
    let git_user = table
        .git_user
        .or_else(|| known.map(|known| known.git_user.to_owned()));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if git_user
        .as_ref()
        .is_some_and(|user| user.is_empty() || !user.bytes().all(plain))
    {
        return Err("`git_user` has letters, digits, dots, hyphens and underscores".to_owned());
    }
    Ok(CredentialSettings {
        from: source(name, table.file, table.command, environment)?,
        name: name.to_owned(),
        destinations,
        header: table.header.as_deref().map(header).transpose()?,
        variables,
        git_user,
        always: table.always,
    })
}

/// In this order: a file, a command, what systemd handed over, a variable.
fn source(
    name: &str,
    file: Option<String>,
    command: Option<Vec<String>>,
    environment: &Environment,
) -> Result<CredentialSource, String> {
    match (file, command) {
        (Some(_), Some(_)) => return Err("it has both `file` and `command`".to_owned()),
        (Some(file), None) => {
            return absolute(&file, "file", environment).map(CredentialSource::File);
        }
        (None, Some(command)) if command.is_empty() => {
            return Err("`command` names no program".to_owned());
        }
        (None, Some(command)) => return Ok(CredentialSource::Command(command)),
        (None, None) => {}
    }
    let handed = environment.get("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let handed = handed.map(|directory| directory.join(format!("credential-{name}")));
    if let Some(path) = handed.filter(|path| std::fs::symlink_metadata(path).is_ok()) {
        return Ok(CredentialSource::Systemd(path));
    }
    let variable = format!(
        "{CREDENTIAL_PREFIX}{}",
        name.to_ascii_uppercase().replace('-', "_")
    );
    match environment.get(&variable).and_then(std::ffi::OsStr::to_str) {
        Some(value) => Ok(CredentialSource::Variable(Secret::new(value.to_owned()))),
        None => Err(format!(
            "it comes from nowhere: give it `file` or `command`, or set the variable {variable}"
        )),
    }
}

/// `host`, `host:port`, each with the beginning of a path or without.
fn destination(text: &str) -> Result<EgressRule, String> {
    let (host, path) = match text.find('/') {
        // The rule says what is wrong with it.
        _ if text.contains("://") => (text, ""),
        Some(slash) => text.split_at(slash),
        None => (text, ""),
    };
    let rule: EgressRule = host
        .parse()
        .map_err(|error: model::RuleError| format!("in `destinations` {error}"))?;
    let paths = match path {
        "" | "/" => Vec::new(),
        path => vec![path.to_owned()],
    };
    Ok(EgressRule { paths, ..rule })
}

fn header(text: &str) -> Result<HeaderName, String> {
    let name: HeaderName = text
        .parse()
        .map_err(|_| "`header` is no name of a header".to_owned())?;
    match OTHER_HEADERS.contains(&name.as_str()) || name.as_str().starts_with("proxy-") {
        true => Err(format!("the header `{name}` carries no credential")),
        false => Ok(name),
    }
}

fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use toml::Value;

    use super::*;
    use crate::config::layers::Origin;

    fn read_with(text: &str, environment: &Environment) -> Result<Vec<CredentialSettings>, String> {
        let given = Given {
            value: Value::Table(text.parse().unwrap()),
            origin: Origin::Flag("--set"),
        };
        read(&given, environment).map_err(|error| error.to_string())
    }

    fn home() -> Environment {
        Environment::of(1000, [("HOME", "/home/me")])
    }

    #[test]
    fn github_is_known_and_another_service_is_described() {
        let read = read_with(
            r#"
            github = { file = "~/token", always = true }
            registry = { command = ["print", "it"], destinations = ["r.example:8443/npm/", "*.r.example"],
                         header = "Private-Token", variables = ["NPM_TOKEN"] }
            "#,
            &home(),
        )
        .unwrap();
        let [github, registry] = read.as_slice() else {
            panic!("{read:?}");
        };
        assert_eq!(github.from, CredentialSource::File("/home/me/token".into()));
        assert_eq!(github.destinations.len(), 3);
        assert_eq!(github.variables, ["GITHUB_TOKEN", "GH_TOKEN"]);
        assert_eq!(github.git_user.as_deref(), Some("x-access-token"));
        assert!(github.always && github.header.is_none());
        assert_eq!(registry.destinations[0].ports, [8443]);
        assert_eq!(registry.destinations[0].paths, ["/npm/"]);
        assert_eq!(registry.header.as_ref().unwrap(), "private-token");
        assert!(!registry.always && registry.git_user.is_none());
    }

    #[test]
    fn it_comes_from_a_variable_that_nothing_else_is_named_like() {
        let variable = "CLAUDE_CODE_MCP_CREDENTIAL_MY_HUB";
        let environment = home().with([(variable.to_owned(), "secret".to_owned())]);
        let text = r#"my-hub = { destinations = ["hub.example"] }"#;
        let read = read_with(text, &environment).unwrap();
        assert!(
            matches!(&read[0].from, CredentialSource::Variable(secret) if secret.expose() == "secret")
        );
        assert!(!format!("{read:?}").contains("secret\""));
        assert!(read_with(text, &home()).unwrap_err().contains(variable));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            (r#"github = 1"#, "expected"),
            (r#"github = { file = "/t", command = ["x"] }"#, "both"),
            (r#"github = { file = "t" }"#, "absolute"),
            (r#"github = { command = [] }"#, "no program"),
            (r#"github = { fiel = "/t" }"#, "unknown field"),
            (r#"hub = { file = "/t" }"#, "destinations"),
            (
                r#"hub = { file = "/t", destinations = ["10.0.0.1"] }"#,
                "no host",
            ),
            (
                r#"hub = { file = "/t", destinations = ["h.example"], header = "Host" }"#,
                "carries no",
            ),
            (
                r#"hub = { file = "/t", destinations = ["h.example"], header = "a b" }"#,
                "no name of a header",
            ),
            (
                r#"hub = { file = "/t", destinations = ["h.example"], variables = ["1A"] }"#,
                "1A",
            ),
            (
                r#"hub = { file = "/t", destinations = ["h.example"], git_user = "a'b" }"#,
                "git_user",
            ),
            (
                r#"Hub = { file = "/t", destinations = ["h.example"] }"#,
                "small letters",
            ),
        ] {
            let error = read_with(text, &home()).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}

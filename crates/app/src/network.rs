//! The way to hosts, and what the operator allows of it, as configured.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use egress::{
    Credential, Form, Guard, Source, Trust,
    destination::{SystemResolver, preset, preset_names},
    intercept::{Authority, Binding, Carrier, Interception},
    proxy::{Proxy, ProxyLimits},
};
use policy::{NetworkConfig, OfferedCredential};
use session::{Credentials, Network, Offered};

use crate::config::{Config, CredentialSettings, CredentialSource, NetworkSettings, token_command};

/// In the state directory: the authority of this installation.
const AUTHORITY_DIRECTORY: &str = "authority";

/// Builds it.
///
/// # Errors
/// When a credential does not come from where it should, or the installation's authority cannot be used.
pub(crate) fn network(config: &Config) -> anyhow::Result<Network> {
    Ok(Network {
        proxy: Proxy::new(ProxyLimits::default()),
        resolver: Arc::new(SystemResolver::default()),
        credentials: credentials(config, None)?,
    })
}

/// What requests can be given, and how tunnels are opened: as before where they were, since sandboxes believe that authority.
///
/// # Errors
/// As for [`network`].
pub(crate) fn credentials(
    config: &Config,
    before: Option<Arc<Interception>>,
) -> anyhow::Result<Credentials> {
    let settings = &config.network;
    let directory = config.paths.state_dir.join(AUTHORITY_DIRECTORY);
    let interception = match before {
        Some(before) => Some(before),
        None => may_open(settings)
            .then(|| interception(&directory))
            .transpose()?,
    };
    Ok(Credentials {
        interception,
        offered: settings
            .credentials
            .iter()
            .map(|one| Ok((one.name.clone(), offered(one)?)))
            .collect::<anyhow::Result<_>>()?,
    })
}

/// Which credentials cannot be had where they come from.
pub(crate) fn problems(config: &Config) -> Vec<anyhow::Error> {
    let looked = config.network.credentials.iter().map(offered);
    looked.filter_map(Result::err).collect()
}

/// Whether the credentials can be had where they come from.
///
/// # Errors
/// As for [`network`].
pub(crate) fn check_credentials(config: &Config) -> anyhow::Result<()> {
    problems(config).into_iter().next().map_or(Ok(()), Err)
}

/// The operator's side of decisions on it.
pub(crate) fn ceiling(config: &Config) -> NetworkConfig {
    let rules = |name| {
        let rules = preset(name).unwrap_or_default().iter();
        rules.map(|entry| entry.rule.clone()).collect()
    };
    let offered = config
        .network
        .credentials
        .iter()
        .map(|one| OfferedCredential {
            name: one.name.clone(),
            destinations: one.destinations.clone(),
            always: one.always,
        });
    NetworkConfig {
        known_presets: preset_names()
            .map(|name| (name.to_owned(), rules(name)))
            .collect(),
        presets: config.network.presets.clone(),
        allow: config.network.allow.clone(),
        default: config.network.default.clone(),
        private: config.network.private.clone(),
        credentials: offered.collect(),
        opens_tls: true,
    }
}

/// Whether any session can reach anything, and so something in opened tunnels.
fn may_open(settings: &NetworkSettings) -> bool {
    !(settings.presets.is_empty() && settings.allow.is_empty() && settings.default.is_empty())
}

fn interception(directory: &Path) -> anyhow::Result<Arc<Interception>> {
    let authority = Authority::open(directory)
        .context("the authority by which sandboxes believe opened tunnels cannot be used")?;
    Interception::new(&authority, &Trust::default()).context("opening tunnels cannot be set up")
}

fn offered(one: &CredentialSettings) -> anyhow::Result<Offered> {
    let shown = format!("`credentials.{}`", one.name);
    let credential = match &one.from {
        CredentialSource::File(path) => Source::file(path.clone(), Guard::OwnerOnly, Form::Bearer)
            .map(Credential::Source)
            .with_context(|| format!("{} cannot be used ({shown})", path.display()))?,
        CredentialSource::Systemd(path) => Source::file(path.clone(), Guard::Systemd, Form::Bearer)
            .map(Credential::Source)
            .with_context(|| format!("what systemd handed over cannot be used ({shown})"))?,
        CredentialSource::Command(argv) => {
            let command = token_command(argv).context("a command without words")?;
            Credential::Source(Source::command(command))
        }
        CredentialSource::Variable(secret) => Credential::Bearer(secret.clone()),
    };
    let binding = Binding {
        name: one.name.clone(),
        destinations: one.destinations.clone(),
        carrier: match &one.header {
            Some(name) => Carrier::of(name.clone()),
            None => Carrier::Authorization,
        },
        credential,
    };
    binding
        .check()
        .with_context(|| format!("the credential cannot be used ({shown})"))?;
    Ok(Offered {
        binding: Arc::new(binding),
        variables: one.variables.clone(),
        git_user: one.git_user.clone(),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::{
        config::{Environment, Flags, load},
        reload::inspect_whole,
    };

    /// A source in the file's words, where its bytes stand, and whether they are looked at before they are used.
    const SOURCES: [(&str, &str, bool); 4] = [
        ("file = \"DIRECTORY/token\"", "token", true),
        ("command = [\"cat\", \"DIRECTORY/token\"]", "token", false),
        ("", "credential-hub", true),
        ("", "", true),
    ];

    /// What a check says of that configuration with such a token, and whether a server would start with it.
    fn told(source: &str, file: &str, token: &str) -> (Vec<String>, bool) {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().to_str().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path
        };
        let source = source.replace("DIRECTORY", at);
        let flags = Flags {
            config: Some(write(
                "config.toml",
                &format!("[credentials.hub]\n{source}\ndestinations = [\"hub.example\"]\n"),
            )),
            state_dir: Some(directory.path().join("state")),
            ..Flags::default()
        };
        let mut variables = vec![("HOME", at), ("CREDENTIALS_DIRECTORY", at)];
        match file {
            "" => variables.push(("CLAUDE_CODE_MCP_CREDENTIAL_HUB", token)),
            file => drop(write(file, token)),
        }
        let uid = rustix::process::geteuid().as_raw();
        let environment = Environment::of(uid, variables);
        let found = inspect_whole(&flags, &environment).problems.into_iter();
        let config = load(&flags, &environment).unwrap();
        let starts = check_credentials(&config).is_ok() && credentials(&config, None).is_ok();
        let said = |problem: crate::config::Problem| {
            assert_eq!(problem.key.as_deref(), Some("credentials.hub"));
            assert!(problem.place.is_some(), "{problem:?}");
            problem.message
        };
        (found.map(said).collect(), starts)
    }

    /// The shortest was promised to have 12 bytes, and only what came in a variable was looked at.
    #[test]
    fn a_credential_of_three_bytes_passed_the_check_and_the_start() {
        let refused =
            "the credential cannot be used (`credentials.hub`): it must have 12 to 4096 bytes";
        for (source, file, is_looked_at) in SOURCES {
            let (problems, starts) = told(source, file, "abc");
            match is_looked_at {
                true => assert_eq!(problems, [refused], "{source} {file}"),
                false => assert_eq!(problems, [""; 0], "{source}"),
            }
            assert_eq!(starts, !is_looked_at, "{source} {file}");
            let control = told(source, file, "twelve-bytes");
            assert_eq!(control, (Vec::new(), true), "{source} {file}: the control");
        }
    }
}

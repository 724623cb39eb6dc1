//! The environment, as a value: read once at the start, never changed, replaced in tests.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
};

/// An environment variable beside those of the configuration keys.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub documentation: &'static str,
}

/// The configuration file to read instead of the usual one.
pub(super) const CONFIG_FILE: Variable = Variable {
    name: "CLAUDE_CODE_MCP_CONFIG",
    documentation: "The configuration file to read; it must exist. Flag: `--config`.",
};
const LOG: Variable = Variable {
    name: "CLAUDE_CODE_MCP_LOG",
    documentation: "What the server logs, as a filter of the `tracing` crate: `info` (default), `debug`, \
                    `session=debug,info`.",
};
const PROJECT_DIR: Variable = Variable {
    name: "CLAUDE_PROJECT_DIR",
    documentation: "Set by Claude Code: the project directory that the client hands over; its working directory \
                    otherwise.",
};
const HOME: Variable = Variable {
    name: "HOME",
    documentation: "The home directory.",
};
const XDG_CONFIG_HOME: Variable = Variable {
    name: "XDG_CONFIG_HOME",
    documentation: "Where the usual configuration file stands (`claude-code-mcp/config.toml`); `~/.config` otherwise.",
};
const XDG_STATE_HOME: Variable = Variable {
    name: "XDG_STATE_HOME",
    documentation: "Where the state directory stands; `~/.local/state` otherwise.",
};
const XDG_RUNTIME_DIR: Variable = Variable {
    name: "XDG_RUNTIME_DIR",
    documentation: "Where the server's socket stands (`claude-code-mcp/`); the state directory otherwise.",
};
const NO_COLOR: Variable = Variable {
    name: "NO_COLOR",
    documentation: "Set to anything: no colors in the command line's output.",
};

/// Read for `agent install` alone, as the usual clients of indexes and the usual programs of the network do.
const INDEX: Variable = Variable {
    name: "UV_DEFAULT_INDEX",
    documentation: "Python package index for `agent install`; also `UV_INDEX_URL` and `PIP_INDEX_URL`. Flag: `--index`.",
};
const REGISTRY: Variable = Variable {
    name: "npm_config_registry",
    documentation: "npm registry for `agent install --source npm`. Flag: `--index`.",
};
const HTTPS_PROXY: Variable = Variable {
    name: "HTTPS_PROXY",
    documentation: "Proxy for `agent install`; also `ALL_PROXY`, and `NO_PROXY` for exceptions. The certificates of the \
                    machine are trusted, or those in `SSL_CERT_FILE`.",
};

const CREDENTIAL: Variable = Variable {
    name: "CLAUDE_CODE_MCP_CREDENTIAL_NAME",
    documentation: "The credential of that name in the table `credentials` (`MY_HUB` for `my-hub`), where it has neither \
                    `file` nor `command`. The server takes it over like a key.",
};
const SYSTEMD: Variable = Variable {
    name: "CREDENTIALS_DIRECTORY",
    documentation: "Set by systemd for a service with `LoadCredential=`: the credentials `anthropic-api-key`, \
                    `anthropic-auth-token`, `aws-bearer-token-bedrock` and `credential-NAME` in it are used, after configured files and \
                    commands and before variables.",
};
const KEYS: Variable = Variable {
    name: "ANTHROPIC_API_KEY",
    documentation: "A key of Anthropic; also `ANTHROPIC_AUTH_TOKEN`, `AWS_BEARER_TOKEN_BEDROCK`, `AWS_ACCESS_KEY_ID`, \
                    `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, \
                    `AWS_CONTAINER_AUTHORIZATION_TOKEN`. The server takes them from whoever starts it and does \
                    not have them in its own environment, nor do the commands that it runs.",
};
const GOOGLE: Variable = Variable {
    name: "GOOGLE_APPLICATION_CREDENTIALS",
    documentation: "Google's credentials file; also `CLOUDSDK_CONFIG` and `GCE_METADATA_HOST`. Of AWS, the variables that \
                    its own tools read, such as `AWS_PROFILE`, `AWS_CONFIG_FILE`, `AWS_ENDPOINT_URL_STS`.",
};

/// Variables that hold a credential: the server takes them over and leaves them out of its own environment.
const SECRET_VARIABLES: [&str; 7] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "AWS_BEARER_TOKEN_BEDROCK",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
];

/// How variables begin that hold a credential of the table `credentials`.
pub(super) const CREDENTIAL_PREFIX: &str = "CLAUDE_CODE_MCP_CREDENTIAL_";

/// Whether a variable of that name holds a credential.
pub fn is_secret(name: &str) -> bool {
    SECRET_VARIABLES.contains(&name) || name.starts_with(CREDENTIAL_PREFIX)
}

/// Every variable that is read and is no configuration key's.
pub const OTHER_VARIABLES: &[Variable] = &[
    CONFIG_FILE,
    LOG,
    PROJECT_DIR,
    HOME,
    XDG_CONFIG_HOME,
    XDG_STATE_HOME,
    XDG_RUNTIME_DIR,
    NO_COLOR,
    KEYS,
    CREDENTIAL,
    SYSTEMD,
    GOOGLE,
    INDEX,
    REGISTRY,
    HTTPS_PROXY,
];

/// Environment variables and the user's id.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    uid: u32,
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        Environment {
            variables: std::env::vars_os().collect(),
            uid: rustix::process::geteuid().as_raw(),
        }
    }

    /// An environment with these variables, for a user with that id.
    pub fn of<'a>(uid: u32, variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Environment { variables, uid }
    }

    /// The same with further variables.
    pub fn with(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let further = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        self.variables.extend(further);
        self
    }

    /// The variable's value. An empty one counts as not set.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    /// The names of all that are set.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let set = self.variables.iter().filter(|(_, value)| !value.is_empty());
        set.filter_map(|(name, _)| name.to_str())
    }

    /// Those that hold a credential, by name.
    pub fn secrets(&self) -> impl Iterator<Item = (&str, &OsStr)> {
        self.variables.iter().filter_map(|(name, value)| {
            let name = name.to_str().filter(|name| is_secret(name))?;
            (!value.is_empty()).then_some((name, value.as_os_str()))
        })
    }

    /// The effective user id.
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// The home directory, if it is known and absolute.
    pub fn home(&self) -> Option<PathBuf> {
        self.absolute(HOME.name)
    }

    /// The filter of the server's log.
    pub fn log_filter(&self) -> Option<&str> {
        self.get(LOG.name)?.to_str()
    }

    /// The project directory that Claude Code names.
    pub fn project_dir(&self) -> Option<PathBuf> {
        self.absolute(PROJECT_DIR.name)
    }

    /// Colors are not wanted.
    pub fn no_color(&self) -> bool {
        self.get(NO_COLOR.name).is_some()
    }

    pub(super) fn config_home(&self) -> Option<PathBuf> {
        self.absolute(XDG_CONFIG_HOME.name)
            .or_else(|| Some(self.home()?.join(".config")))
    }

    pub(super) fn state_home(&self) -> Option<PathBuf> {
        self.absolute(XDG_STATE_HOME.name)
    }

    pub(super) fn runtime_dir(&self) -> Option<PathBuf> {
        self.absolute(XDG_RUNTIME_DIR.name)
    }

    /// The base directory specification says that a relative path in such a variable is to be ignored.
    fn absolute(&self, name: &str) -> Option<PathBuf> {
        self.get(name)
            .map(Path::new)
            .filter(|path| path.is_absolute())
            .map(Path::to_path_buf)
    }
}

/// Names alone: values may be credentials.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

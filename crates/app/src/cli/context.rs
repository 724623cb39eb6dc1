//! What every command needs: configuration, output, a way to the server.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{CliError, Output, output::note};
use crate::{
    config::{Config, Environment, Flags},
    front::{Connected, ProgramStarter, connect, connect_existing, offered_roots},
    server::handshake::{Greeting, MAX_ROOTS, Mode, PROTOCOL},
};

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// See the module.
#[derive(Debug)]
pub struct Context {
    /// The resolved configuration.
    pub config: Config,
    /// The environment it was read from.
    pub environment: Environment,
    /// The flags it was read from.
    pub flags: Flags,
    /// Where results go.
    pub output: Output,
}

impl Context {
    /// Connects to the server, which is started if none runs. `named` are directories that the person named on the
    /// command line; they are offered beside the working directory.
    pub fn connect(&self, mode: Mode, named: Vec<PathBuf>) -> Result<Connected, CliError> {
        let log = self.config.paths.log_file();
        let starter = ProgramStarter {
            program: this_program(),
            arguments: self.forwarded_flags(),
            log,
            progress: true,
        };
        let connected = connect(&self.config.paths, &self.greeting(mode, named), &starter)?;
        if let Some(message) = &connected.reply.message {
            note(message);
        }
        if !connected.started && (self.flags.config.is_some() || !self.flags.set.is_empty()) {
            note("the server was already running: it keeps the configuration that it started with");
        }
        Ok(connected)
    }

    /// Connects to the server if one runs.
    pub fn connect_existing(&self, mode: Mode) -> Result<Option<Connected>, CliError> {
        Ok(connect_existing(
            &self.config.paths,
            &self.greeting(mode, Vec::new()),
        )?)
    }

    fn greeting(&self, mode: Mode, named: Vec<PathBuf>) -> Greeting {
        let working_directory = std::env::current_dir().ok();
        let home = self.environment.home();
        let project_dir = self.environment.project_dir();
        let mut roots = offered_roots(
            project_dir.as_deref(),
            working_directory.as_deref(),
            home.as_deref(),
        );
        // The server may have been started by another client, with another configuration: this one's roots are its own.
        let configured = self.config.project_roots.iter().cloned();
        for directory in named.into_iter().chain(configured) {
            if !roots.contains(&directory) && roots.len() < MAX_ROOTS {
                roots.push(directory);
            }
        }
        let pid = std::process::id();
        Greeting {
            protocol: PROTOCOL,
            version: VERSION.to_owned(),
            mode,
            working_directory,
            roots,
            pid,
        }
    }

    /// The flags that a server must be started with to see the same configuration. Paths are made absolute, since it
    /// works elsewhere.
    fn forwarded_flags(&self) -> Vec<OsString> {
        let absolute = |path: &Path| {
            std::path::absolute(path)
                .unwrap_or_else(|_| path.to_path_buf())
                .into_os_string()
        };
        let mut flags = Vec::new();
        if let Some(config) = &self.flags.config {
            flags.extend([OsString::from("--config"), absolute(config)]);
        }
        if let Some(state_dir) = &self.flags.state_dir {
            flags.extend([OsString::from("--state-dir"), absolute(state_dir)]);
        }
        for set in &self.flags.set {
            flags.extend([OsString::from("--set"), OsString::from(set)]);
        }
        flags
    }
}

/// This very program, also after its file was replaced by a newer one.
pub fn this_program() -> PathBuf {
    std::env::current_exe()
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

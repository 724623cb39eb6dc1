//! Who else gets the records of the audit log, as configured.

use anyhow::Context;
use audit::sinks::{Health, SinkKind, Sinks, Source};

use crate::config::Config;

/// What is said where one cannot be started.
const UNUSABLE: &str = "the audit sinks cannot be started (`audit_sinks` in the configuration)";

/// What standard error of a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandardError {
    /// Whoever started it in the foreground reads it.
    OfTheOperator,
    /// The log file of a server that a client started.
    OwnLogFile,
}

/// Starts them.
///
/// # Errors
/// When a file that one of them names cannot be used: the server then does not start.
pub(crate) fn start(config: &Config, standard_error: StandardError) -> anyhow::Result<Sinks> {
    let mut settings = config.audit_sinks.clone();
    if standard_error == StandardError::OwnLogFile {
        settings.retain(|sink| {
            let is_read = sink.kind != SinkKind::Stderr;
            if !is_read {
                // The server's own log is started anew at some size, so it is no place for records.
                tracing::warn!(
                    sink = sink.name,
                    "nobody reads standard error of a server that a client started; this audit sink gets nothing"
                );
            }
            is_read
        });
    }
    let source = Source {
        log: config.audit_log.clone(),
        state_directory: config.paths.state_dir.clone(),
        host: host(),
    };
    Sinks::start(&source, &settings).context(UNUSABLE)
}

/// Which of them could not be started.
pub(crate) fn problems(config: &Config) -> Vec<anyhow::Error> {
    let unusable = Sinks::unusable(&config.audit_sinks).into_iter();
    unusable
        .map(|error| anyhow::Error::new(error).context(UNUSABLE))
        .collect()
}

/// How they are doing, whether or not a server runs.
pub(crate) fn health(config: &Config) -> Vec<Health> {
    let names: Vec<String> = config
        .audit_sinks
        .iter()
        .map(|sink| sink.name.clone())
        .collect();
    audit::sinks::health_of(&config.audit_log, &config.paths.state_dir, &names)
}

/// The name of this machine, for formats that have one.
pub(crate) fn host() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

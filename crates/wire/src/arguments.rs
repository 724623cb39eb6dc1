//! How a backend tells the supervisor what it needs before it can dial: on its command line, which the agent can read,
//! so nothing here is secret.

use crate::message::SoftLimits;

/// In place of a socket's path: standard input and output.
const STANDARD_STREAMS: &str = "-";

/// The supervisor's command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupervisorArguments {
    /// Absolute path of the host's socket inside the sandbox; `None`: the host is at the other end of standard input and
    /// output ([`crate::Carried`]).
    pub socket: Option<String>,
    /// Writable places (absolute): everything else is read-only to the Landlock domain.
    pub writable: Vec<String>,
    /// Directory of the session's disk where output is spooled in unnamed files.
    pub spool: String,
    /// The lease until the first [`crate::Welcome`], milliseconds.
    pub lease_ms: u32,
    /// Limits that the supervisor must watch.
    pub soft: SoftLimits,
}

/// A command line that is not one of [`SupervisorArguments::to_argv`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// An option that does not exist.
    #[error("unknown option {0}")]
    Unknown(String),
    /// An option without its value, or with one that does not parse.
    #[error("option {0} has no usable value")]
    Value(String),
    /// A required option is missing.
    #[error("option {0} is missing")]
    Missing(&'static str),
}

impl SupervisorArguments {
    /// The arguments after the program's name.
    pub fn to_argv(&self) -> Vec<String> {
        let mut argv = vec![
            "--socket".to_owned(),
            self.socket
                .clone()
                .unwrap_or_else(|| STANDARD_STREAMS.to_owned()),
            "--spool".to_owned(),
            self.spool.clone(),
        ];
        for path in &self.writable {
            argv.extend(["--writable".to_owned(), path.clone()]);
        }
        let numbers = [
            ("--lease-ms", u64::from(self.lease_ms)),
            ("--soft-memory-bytes", self.soft.memory_bytes),
            ("--soft-pids", self.soft.pids),
            ("--soft-state-bytes", self.soft.state_bytes),
        ];
        for (name, value) in numbers {
            argv.extend([name.to_owned(), value.to_string()]);
        }
        argv
    }

    /// Reads what [`SupervisorArguments::to_argv`] wrote.
    ///
    /// # Errors
    /// An unknown option, a missing or unusable value.
    pub fn parse(argv: impl IntoIterator<Item = String>) -> Result<Self, ArgumentError> {
        let mut argv = argv.into_iter();
        let (mut socket, mut spool, mut lease_ms) = (None, None, None);
        let (mut writable, mut soft) = (Vec::new(), SoftLimits::default());
        while let Some(option) = argv.next() {
            let value = argv
                .next()
                .ok_or_else(|| ArgumentError::Value(option.clone()))?;
            let number = || {
                value
                    .parse::<u64>()
                    .map_err(|_| ArgumentError::Value(option.clone()))
            };
            match option.as_str() {
                "--socket" => socket = Some(value),
                "--spool" => spool = Some(value),
                "--writable" => writable.push(value),
                "--lease-ms" => {
                    lease_ms = Some(
                        u32::try_from(number()?)
                            .map_err(|_| ArgumentError::Value(option.clone()))?,
                    );
                }
                "--soft-memory-bytes" => soft.memory_bytes = number()?,
                "--soft-pids" => soft.pids = number()?,
                "--soft-state-bytes" => soft.state_bytes = number()?,
                _ => return Err(ArgumentError::Unknown(option)),
            }
        }
        Ok(SupervisorArguments {
            socket: socket
                .ok_or(ArgumentError::Missing("--socket"))
                .map(|path| Some(path).filter(|path| path != STANDARD_STREAMS))?,
            writable,
            spool: spool.ok_or(ArgumentError::Missing("--spool"))?,
            lease_ms: lease_ms.ok_or(ArgumentError::Missing("--lease-ms"))?,
            soft,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_read_back_what_they_wrote() {
        let arguments = SupervisorArguments {
            socket: Some("/run/supervisor/host.sock".into()),
            writable: vec!["/workspace".into(), "/tmp".into()],
            spool: "/state".into(),
            lease_ms: 60_000,
            soft: SoftLimits {
                memory_bytes: 1,
                pids: 2,
                state_bytes: 3,
            },
        };
        let attached = SupervisorArguments {
            socket: None,
            ..arguments.clone()
        };
        for arguments in [arguments, attached] {
            assert_eq!(
                SupervisorArguments::parse(arguments.to_argv()),
                Ok(arguments)
            );
        }
    }

    #[test]
    fn unknown_options_are_refused() {
        let argv = ["--lease", "1"].map(String::from);
        assert_eq!(
            SupervisorArguments::parse(argv),
            Err(ArgumentError::Unknown("--lease".into()))
        );
    }
}

//! A command of this machine that prints a token.

use std::{
    process::Stdio,
    time::{Duration, SystemTime},
};

use model::Secret;
use tokio::io::AsyncReadExt;

use super::{
    Carried, CredentialError, Form,
    source::{Fetch, Fetched, Fetching},
};

/// Longest answer of a token command: tokens of Google and of single sign-on are below 4 KiB.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// A command that prints a bearer token, such as `gcloud auth print-access-token`. It runs on the host, with the server's
/// own environment, without a shell; its standard error is thrown away.
#[derive(Debug, Clone)]
pub struct TokenCommand {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The command is ended, with its process group, after this time.
    pub timeout: Duration,
    /// A token is asked for anew after this time. It must be shorter than the shortest life of a token when printed:
    /// Google's libraries renew one 225 s before its end, so [`TokenCommand::REFRESH_AFTER`] is below that.
    pub refresh_after: Duration,
}

impl TokenCommand {
    /// Default of `timeout`.
    pub const TIMEOUT: Duration = Duration::from_secs(30);
    /// Default of `refresh_after`.
    pub const REFRESH_AFTER: Duration = Duration::from_secs(180);
}

impl Fetch for TokenCommand {
    fn fetch(&self) -> Fetching<'_> {
        Box::pin(async {
            // From before the command: the token may be as old as its start.
            let begin = SystemTime::now();
            let token = run(self).await?;
            Ok(Fetched {
                carried: Carried::of(Form::Bearer, &token)?,
                end: begin.checked_add(self.refresh_after),
                expiry: None,
            })
        })
    }
}

async fn run(command: &TokenCommand) -> Result<Secret<String>, CredentialError> {
    let [program, arguments @ ..] = command.argv.as_slice() else {
        return Err(CredentialError::Command("is empty"));
    };
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|_| CredentialError::Command("could not be started: is it installed?"))?;
    let mut group = Group(child.id());
    let printed = async {
        let mut text = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout
                .take(MAX_TOKEN_BYTES as u64 + 1)
                .read_to_end(&mut text)
                .await
                .map_err(|_| CredentialError::Command("could not be read"))?;
        }
        let status = child.wait().await;
        if status.is_ok_and(|status| status.success()) {
            token(text)
        } else {
            Err(CredentialError::Command(
                "failed: run it by hand to see why",
            ))
        }
    };
    let Ok(outcome) = tokio::time::timeout(command.timeout, printed).await else {
        return Err(CredentialError::Command("took too long and was ended"));
    };
    // Waited for: its id may be another process's from now on.
    group.0 = None;
    outcome
}

fn token(text: Vec<u8>) -> Result<Secret<String>, CredentialError> {
    if text.len() > MAX_TOKEN_BYTES {
        return Err(CredentialError::Command("printed more than a token"));
    }
    let text = String::from_utf8(text)
        .map_err(|_| CredentialError::Command("printed something that is no token"))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(CredentialError::Command(
            "printed something that is no token",
        ));
    }
    Ok(Secret::new(token.to_owned()))
}

/// Ends the process group of a command when dropped before the command was waited for.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self
            .0
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw);
        if let Some(leader) = leader {
            // A group that ended by itself is no error.
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

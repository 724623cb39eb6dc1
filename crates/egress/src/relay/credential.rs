//! What is put into a request on its way out. It is held in memory only, and shown nowhere.

use std::{
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue, header};
use model::Secret;
use tokio::io::AsyncReadExt;

use super::provider::ProviderKind;

/// Longest answer of a token command: tokens of Google and of single sign-on are below 4 KiB.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// A credential that cannot be used. None of the texts holds a part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The provider takes another kind.
    #[error("{provider:?} does not take {credential}")]
    WrongKind {
        /// The session's provider.
        provider: ProviderKind,
        /// What was given.
        credential: &'static str,
    },
    /// Empty, or with characters that no header can carry.
    #[error("the {0} is empty or holds characters that a header cannot carry (a line break?)")]
    Malformed(&'static str),
    /// The command for a token did not give one.
    #[error("the command for the provider's token {0}")]
    Command(&'static str),
}

/// A provider's credential.
#[derive(Debug, Clone)]
pub enum Credential {
    /// An API key of the first party, sent as `x-api-key`.
    ApiKey(Secret<String>),
    /// A token sent as `authorization: Bearer`: a gateway's, `AWS_BEARER_TOKEN_BEDROCK`, or an access token of Google.
    Bearer(Secret<String>),
    /// Keys of AWS; requests are signed with them on this machine (SigV4).
    Aws(AwsKeys),
    /// A command of this machine that prints a bearer token.
    Command(TokenCommand),
}

/// Keys of AWS.
#[derive(Debug, Clone)]
pub struct AwsKeys {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: Secret<String>,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: Secret<String>,
    /// `AWS_SESSION_TOKEN`, of temporary keys.
    pub session_token: Option<Secret<String>>,
}

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

/// A credential as a session holds it: checked, and with the token that its command printed last.
pub(crate) struct Held {
    credential: Credential,
    printed: tokio::sync::Mutex<Option<(Instant, Secret<String>)>>,
}

/// What one request carries.
pub(crate) enum Presented {
    Header(HeaderName, HeaderValue),
    Signature(AwsKeys),
}

impl Presented {
    /// What an answer's headers must not hold.
    pub(crate) fn secrets(&self) -> Vec<HeaderValue> {
        match self {
            Presented::Header(_, value) => {
                let bytes = value.as_bytes();
                let bare = bytes.strip_prefix(b"Bearer ").unwrap_or(bytes);
                HeaderValue::from_bytes(bare).into_iter().collect()
            }
            Presented::Signature(keys) => [&keys.access_key_id, &keys.secret_access_key]
                .into_iter()
                .chain(&keys.session_token)
                .filter_map(|secret| HeaderValue::from_str(secret.expose()).ok())
                .collect(),
        }
    }
}

impl Held {
    pub(crate) fn new(
        credential: Credential,
        provider: ProviderKind,
    ) -> Result<Arc<Self>, CredentialError> {
        check(&credential, provider)?;
        Ok(Arc::new(Held {
            credential,
            printed: tokio::sync::Mutex::new(None),
        }))
    }

    /// What the next request carries. Runs the command where there is one and its last token is old; requests that come
    /// meanwhile wait for the same run.
    pub(crate) async fn present(&self) -> Result<Presented, CredentialError> {
        match &self.credential {
            Credential::ApiKey(key) => Ok(Presented::Header(
                HeaderName::from_static("x-api-key"),
                header_value("API key", key.expose())?,
            )),
            Credential::Bearer(token) => bearer(token),
            Credential::Aws(keys) => Ok(Presented::Signature(keys.clone())),
            Credential::Command(command) => bearer(&self.printed(command).await?),
        }
    }

    /// After a 401 of the provider: a printed token is not used again.
    pub(crate) async fn refused(&self) {
        *self.printed.lock().await = None;
    }

    async fn printed(&self, command: &TokenCommand) -> Result<Secret<String>, CredentialError> {
        let mut printed = self.printed.lock().await;
        if let Some((at, token)) = printed.as_ref()
            && at.elapsed() < command.refresh_after
        {
            return Ok(token.clone());
        }
        let at = Instant::now();
        let token = run(command).await?;
        *printed = Some((at, token.clone()));
        Ok(token)
    }
}

fn check(credential: &Credential, provider: ProviderKind) -> Result<(), CredentialError> {
    let (name, fits) = match credential {
        Credential::ApiKey(_) => ("an API key", provider == ProviderKind::FirstParty),
        Credential::Aws(_) => ("keys of AWS", provider == ProviderKind::Bedrock),
        Credential::Bearer(_) | Credential::Command(_) => ("a bearer token", true),
    };
    if !fits {
        return Err(CredentialError::WrongKind {
            provider,
            credential: name,
        });
    }
    match credential {
        Credential::ApiKey(key) => header_value("API key", key.expose()).map(drop),
        Credential::Bearer(token) => bearer(token).map(drop),
        Credential::Aws(keys) => {
            header_value("access key id", keys.access_key_id.expose())?;
            header_value("secret access key", keys.secret_access_key.expose())?;
            match &keys.session_token {
                Some(token) => header_value("session token", token.expose()).map(drop),
                None => Ok(()),
            }
        }
        Credential::Command(command) if command.argv.is_empty() => {
            Err(CredentialError::Command("is empty"))
        }
        Credential::Command(_) => Ok(()),
    }
}

fn bearer(token: &Secret<String>) -> Result<Presented, CredentialError> {
    header_value("bearer token", token.expose())?;
    let value = header_value("bearer token", &format!("Bearer {}", token.expose()))?;
    Ok(Presented::Header(header::AUTHORIZATION, value))
}

fn header_value(what: &'static str, text: &str) -> Result<HeaderValue, CredentialError> {
    if text.is_empty() || text.trim() != text {
        return Err(CredentialError::Malformed(what));
    }
    let mut value = HeaderValue::from_str(text).map_err(|_| CredentialError::Malformed(what))?;
    value.set_sensitive(true);
    Ok(value)
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

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    fn command(script: &str, refresh_after: Duration) -> Arc<Held> {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let command = TokenCommand {
            argv,
            timeout: Duration::from_secs(5),
            refresh_after,
        };
        Held::new(Credential::Command(command), ProviderKind::Vertex).unwrap()
    }

    async fn presented(held: &Held) -> Result<String, CredentialError> {
        match held.present().await? {
            Presented::Header(name, value) => {
                assert!(value.is_sensitive());
                Ok(format!("{name}: {}", value.to_str().unwrap()))
            }
            Presented::Signature(_) => Ok("signature".to_owned()),
        }
    }

    #[tokio::test]
    async fn each_credential_travels_as_its_provider_expects() {
        let held = Held::new(Credential::ApiKey(secret("k")), ProviderKind::FirstParty).unwrap();
        assert_eq!(presented(&held).await.unwrap(), "x-api-key: k");
        for provider in [
            ProviderKind::FirstParty,
            ProviderKind::Bedrock,
            ProviderKind::Vertex,
        ] {
            let held = Held::new(Credential::Bearer(secret("t")), provider).unwrap();
            assert_eq!(presented(&held).await.unwrap(), "authorization: Bearer t");
        }
    }

    #[test]
    fn a_credential_of_another_provider_is_refused() {
        let refused = Held::new(Credential::ApiKey(secret("k")), ProviderKind::Bedrock).err();
        assert!(matches!(refused, Some(CredentialError::WrongKind { .. })));
        for malformed in ["", "a\nb", " a", "a\r\nx-evil: 1"] {
            let error = Held::new(
                Credential::ApiKey(secret(malformed)),
                ProviderKind::FirstParty,
            )
            .err();
            assert!(
                matches!(error, Some(CredentialError::Malformed(_))),
                "{malformed:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_token_is_printed_once_until_it_is_old_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let count = directory.path().join("count");
        let script = format!("echo x >>{0}; wc -l <{0}", count.display());
        let held = command(&script, Duration::from_secs(60));
        let (first, second) = tokio::join!(presented(&held), presented(&held));
        assert_eq!(first.unwrap(), "authorization: Bearer 1");
        assert_eq!(second.unwrap(), "authorization: Bearer 1");
        held.refused().await;
        assert_eq!(presented(&held).await.unwrap(), "authorization: Bearer 2");
        let fleeting = command(&script, Duration::ZERO);
        assert_eq!(
            presented(&fleeting).await.unwrap(),
            "authorization: Bearer 3"
        );
        assert_eq!(
            presented(&fleeting).await.unwrap(),
            "authorization: Bearer 4"
        );
    }

    #[tokio::test]
    async fn a_command_that_gives_no_token_says_so_without_its_output() {
        for script in [
            "exit 3",
            "true",
            "printf 'two words'",
            "head -c 20000 /dev/zero | tr '\\0' x",
            "echo canary; exit 1",
        ] {
            let error = presented(&command(script, Duration::ZERO))
                .await
                .unwrap_err();
            assert!(matches!(error, CredentialError::Command(_)), "{script}");
            assert!(!error.to_string().contains("canary"));
        }
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_ended_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let script = format!("(sleep 1; touch {}) & sleep 30", mark.display());
        let argv = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
        let hanging = TokenCommand {
            argv,
            timeout: Duration::from_millis(200),
            refresh_after: Duration::ZERO,
        };
        let held = Held::new(Credential::Command(hanging), ProviderKind::Vertex).unwrap();
        assert!(presented(&held).await.is_err());
        tokio::time::sleep(Duration::from_millis(1300)).await;
        assert!(!mark.exists());
    }

    #[test]
    fn nothing_of_a_credential_is_shown() {
        let keys = AwsKeys {
            access_key_id: secret("canary"),
            secret_access_key: secret("canary"),
            session_token: Some(secret("canary")),
        };
        for credential in [
            Credential::ApiKey(secret("canary")),
            Credential::Bearer(secret("canary")),
            Credential::Aws(keys),
        ] {
            assert!(!format!("{credential:?}").contains("canary"));
        }
    }
}

//! One home and one working directory for runs of the CLI.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use scripted_api::ScriptedApi;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

/// A made-up key that runs bring unless they say otherwise.
pub const KEY: &str = "sk-ant-scripted-0000";

/// A run that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(90);

pub struct Cli {
    binary: PathBuf,
    directory: TempDir,
}

/// What a run said.
pub struct Run {
    pub code: Option<i32>,
    pub events: Vec<Value>,
    pub errors: String,
    pub took: Duration,
}

impl Cli {
    /// `None` where there is no CLI.
    pub fn new() -> Option<Self> {
        let binary = crate::claude_code::binary()?;
        let directory = tempfile::tempdir().unwrap();
        for name in ["home", "work", "tmp"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        Some(Self { binary, directory })
    }

    pub fn work(&self) -> PathBuf {
        self.place("work")
    }

    /// Runs one prompt against Anthropic's wire, without retries.
    pub async fn ask(&self, api: &ScriptedApi, prompt: &str, more: &[&str]) -> Run {
        let environment = [("CLAUDE_CODE_MAX_RETRIES", "0")];
        self.ask_with(api, prompt, more, &environment).await
    }

    /// The same with more of the environment.
    pub async fn ask_with(
        &self,
        api: &ScriptedApi,
        prompt: &str,
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> Run {
        let mut command = self.command(api, environment);
        command.args(["-p", prompt]).args(more).stdin(Stdio::null());
        ended(command, "").await
    }

    /// Lines of the control protocol, and the end of the input after them.
    pub async fn tell(&self, api: &ScriptedApi, lines: &str, more: &[&str]) -> Run {
        let mut command = self.command(api, &[]);
        command
            .args(["-p", "--input-format", "stream-json"])
            .args(more)
            .stdin(Stdio::piped());
        ended(command, lines).await
    }

    /// The CLI with nothing of this process's environment.
    pub fn command(&self, api: &ScriptedApi, environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.place("home"))
            .env("TMPDIR", self.place("tmp"))
            .env("CLAUDE_CODE_TMPDIR", self.place("tmp"))
            .env("ANTHROPIC_API_KEY", KEY)
            .env("ANTHROPIC_BASE_URL", api.url())
            .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
            // Where root runs the tests, the CLI wants to hear that it may skip its own questions.
            .env("IS_SANDBOX", "1")
            .envs(environment.iter().copied())
            .args([
                "--output-format",
                "stream-json",
                "--verbose",
                "--dangerously-skip-permissions",
            ])
            .current_dir(self.work())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    fn place(&self, name: &str) -> PathBuf {
        Path::new(self.directory.path()).join(name)
    }
}

async fn ended(mut command: Command, input: &str) -> Run {
    let started = Instant::now();
    let mut child = command.spawn().unwrap();
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.unwrap();
    }
    let output = timeout(LIMIT, child.wait_with_output())
        .await
        .expect("the run hangs")
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    Run {
        code: output.status.code(),
        events: told
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: started.elapsed(),
    }
}

impl Run {
    /// The last result.
    pub fn result(&self) -> &Value {
        let result = self.events.iter().rfind(|event| event["type"] == "result");
        result.unwrap_or_else(|| panic!("no result: {:?} {}", self.code, self.errors))
    }

    pub fn text(&self) -> &str {
        self.result()["result"].as_str().unwrap_or_default()
    }

    /// The kind of error that the CLI tells in its synthetic message.
    pub fn error(&self) -> &str {
        let mut errors = self
            .events
            .iter()
            .filter_map(|event| event["error"].as_str());
        errors.next_back().unwrap_or_default()
    }

    pub fn session(&self) -> String {
        self.result()["session_id"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn assert_good(&self) {
        assert_eq!(
            (self.code, &self.result()["is_error"]),
            (Some(0), &Value::Bool(false)),
            "{} {}",
            self.result(),
            self.errors
        );
    }

    #[track_caller]
    pub fn assert_failed(&self) {
        assert_eq!(
            (self.code, &self.result()["is_error"]),
            (Some(1), &Value::Bool(true)),
            "{} {}",
            self.result(),
            self.errors
        );
    }
}

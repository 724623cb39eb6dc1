//! `demo`: the main job on this machine, with nothing configured: a real server, a real MCP client over stdio, a session
//! on a sample project, attacks that must fail, a prompt to Claude Code, and a count of what is left afterwards.
//!
//! Reading order: [`run`] (the story), `stage` (where it plays), `attacks`, `prompt`, `project` (the sample).

mod attacks;
mod project;
mod prompt;
mod stage;

use std::time::{Duration, Instant};

use mcp::reply::{ExecutionReply, SessionReply};
use serde::Serialize;
use serde_json::{Value, json};

use self::{
    attacks::Verdict,
    prompt::{Cast, Played, Players},
    stage::{Stage, Walls},
};
use super::{
    CliError, Context, EXIT_OK, EXIT_REFUSED,
    arguments::DemoArguments,
    block_on,
    client::Client,
    image::build::provide,
    output::{Color, Output},
};

/// Processes of the demo's session: small, so that the fork bomb is quick.
const PIDS: u32 = 64;

/// What the demo tells as JSON.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Story {
    steps: Vec<Step>,
    attacks: Vec<Verdict>,
    /// What became of the prompt; absent when it was skipped.
    prompt: Option<Played>,
    /// Why there was none.
    prompt_skipped: Option<String>,
    left_behind: Vec<String>,
    total_ms: f64,
    passed: bool,
}

/// One step and how long it took.
#[derive(Debug, Serialize)]
struct Step {
    title: String,
    detail: String,
    milliseconds: f64,
}

/// Plays the story. The exit code says whether everything was as promised.
pub fn run(context: &Context, arguments: &DemoArguments) -> Result<u8, CliError> {
    let output = context.output;
    let began = Instant::now();
    let story = block_on(async {
        let mut teller = Teller {
            output,
            story: Story::default(),
        };
        play(context, arguments, &mut teller).await?;
        Ok(teller.story)
    })?;
    let mut story = story;
    story.total_ms = milliseconds(began.elapsed());
    story.passed = story.left_behind.is_empty()
        && story.attacks.iter().all(|attack| attack.held)
        && story.prompt.as_ref().is_none_or(Played::held);
    if output.json {
        output.json(&story)?;
    } else {
        close(output, &story)?;
    }
    Ok(if story.passed { EXIT_OK } else { EXIT_REFUSED })
}

async fn play(
    context: &Context,
    arguments: &DemoArguments,
    teller: &mut Teller,
) -> Result<(), CliError> {
    teller.headline("A hardened session on this machine, from create to destroy")?;
    let walls = Walls::of(context, arguments.backend.as_deref());
    if walls == Walls::Docker {
        teller
            .step("find the image of sessions, or build it", || async {
                Ok(((), provide(context).await?))
            })
            .await?;
    }
    let cast = prompt::cast(context).await?;
    let stage = Stage::build(context, walls, &cast)?;
    let mut before = stage.project_paths();
    let (client, front) = teller
        .step(
            "start the server, greet it as an MCP client over stdio",
            || stage.client(),
        )
        .await?;
    let session = teller.session(&client, &stage).await?;
    teller.project_tests(&client, &session).await?;
    teller.attacks(&client, &session, &stage).await?;
    teller.transfer(&client, &session, &stage).await?;
    teller.prompt(context, &cast, &client, &session).await?;
    before.extend(teller.made_by_prompt(&stage));
    teller.destroy(&client, &session).await?;
    drop(client);
    stage.stop(front).await?;
    teller.census(&stage, &before).await?;
    teller.audit(&stage)
}

/// Tells the story while it happens.
struct Teller {
    output: Output,
    story: Story,
}

impl Teller {
    fn headline(&self, text: &str) -> Result<(), CliError> {
        if self.output.json {
            Ok(())
        } else {
            self.output.line(&format!("\n{text}\n"))
        }
    }

    async fn step<T, F>(&mut self, title: &str, work: impl FnOnce() -> F) -> Result<T, CliError>
    where
        F: Future<Output = Result<(T, String), CliError>>,
    {
        let began = Instant::now();
        let (value, detail) = work().await?;
        self.note(title, &detail, began.elapsed())?;
        Ok(value)
    }

    fn note(&mut self, title: &str, detail: &str, took: Duration) -> Result<(), CliError> {
        let milliseconds = milliseconds(took);
        if !self.output.json {
            let number = self.story.steps.len() + 1;
            let time = self
                .output
                .paint(Color::Dim, &format!("{milliseconds:8.1} ms"));
            self.output
                .line(&format!("{number:2}  {title:<58} {time}"))?;
            for line in detail.lines() {
                self.output
                    .line(&self.output.paint(Color::Dim, &format!("      {line}")))?;
            }
        }
        self.story.steps.push(Step {
            title: title.to_owned(),
            detail: detail.to_owned(),
            milliseconds,
        });
        Ok(())
    }

    async fn session(&mut self, client: &Client, stage: &Stage) -> Result<String, CliError> {
        let session: SessionReply = self
            .step("create a session on a sample project", || async {
                let mut arguments =
                    json!({ "projectPath": stage.project(), "limits": { "pids": PIDS } });
                let session = match client
                    .ask::<SessionReply>("create_session", arguments.clone())
                    .await
                {
                    Err(CliError::Refused(refused)) if refused.code == "limit_unenforceable" => {
                        // An older kernel without a cgroup: the profile's own, softer limit has to do.
                        arguments["limits"] = Value::Null;
                        client.ask("create_session", arguments).await?
                    }
                    created => created?,
                };
                let detail = describe(&session);
                Ok((session, detail))
            })
            .await?;
        Ok(session.session_id)
    }

    async fn project_tests(&mut self, client: &Client, session: &str) -> Result<(), CliError> {
        self.step("run the project's tests inside", || async {
            let ran = execute(client, session, "sh run-tests.sh").await?;
            if ran.exit_code != Some(0) {
                return Err(broken("the sample project's tests failed inside", &ran));
            }
            Ok(((), ran.stdout.text.trim_end().to_owned()))
        })
        .await
    }

    async fn attacks(
        &mut self,
        client: &Client,
        session: &str,
        stage: &Stage,
    ) -> Result<(), CliError> {
        self.headline("    Five attacks that must fail, each with a control that must succeed")?;
        for attack in attacks::all(stage)? {
            let verdict = attack.run(client, session).await?;
            if !self.output.json {
                let word = if verdict.held {
                    self.output.paint(Color::Green, "held  ")
                } else {
                    self.output.paint(Color::Red, "BROKEN")
                };
                self.output.line(&format!(
                    "    {word}  {:<44} {}",
                    verdict.title, verdict.attack
                ))?;
                let control = format!("            control: {}", verdict.control);
                self.output.line(&self.output.paint(Color::Dim, &control))?;
            }
            self.story.attacks.push(verdict);
        }
        if self.output.json {
            Ok(())
        } else {
            self.output.line("")
        }
    }

    async fn transfer(
        &mut self,
        client: &Client,
        session: &str,
        stage: &Stage,
    ) -> Result<(), CliError> {
        self.step("copy a report out of the session", || async {
            execute(
                client,
                session,
                "mkdir -p /tmp/report && sh run-tests.sh > /tmp/report/tests.txt",
            )
            .await?;
            let destination = stage.project().join("report");
            let arguments = json!({
                "sessionId": session, "direction": "from_container",
                "sourcePath": "/tmp/report", "destPath": destination,
            });
            let report = client.call("transfer_files", arguments).await?;
            let content =
                std::fs::read_to_string(destination.join("tests.txt")).map_err(|source| {
                    CliError::File {
                        path: destination.clone(),
                        source,
                    }
                })?;
            std::fs::remove_dir_all(&destination).map_err(|source| CliError::File {
                path: destination,
                source,
            })?;
            Ok((
                (),
                format!(
                    "{} file, {} bytes, readable here",
                    report["files"],
                    content.len()
                ),
            ))
        })
        .await
    }

    async fn prompt(
        &mut self,
        context: &Context,
        cast: &Cast,
        client: &Client,
        session: &str,
    ) -> Result<(), CliError> {
        let players: &Players = match cast {
            Cast::Plays(players) => players,
            Cast::Skipped(why) => {
                let loud = self.output.paint(Color::Yellow, "SKIPPED");
                self.headline(&format!("    {loud}  a prompt to Claude Code: {why}"))?;
                self.story.prompt_skipped = Some(why.clone());
                return Ok(());
            }
        };
        self.headline(
            "    A prompt to Claude Code, which works inside, without a network and without a key",
        )?;
        for line in players.who().lines().filter(|_| !self.output.json) {
            self.output
                .line(&self.output.paint(Color::Dim, &format!("    {line}")))?;
        }
        let began = Instant::now();
        let played = players.play(context, client, session).await?;
        self.note(
            "Claude Code changed a file and ran the tests",
            &played.words(),
            began.elapsed(),
        )?;
        self.story.prompt = Some(played);
        Ok(())
    }

    /// Files that the prompt is known to have changed or made: those are no remains.
    fn made_by_prompt(&self, stage: &Stage) -> Vec<String> {
        let changed = self
            .story
            .prompt
            .iter()
            .flat_map(|played| &played.changed_files);
        changed
            .map(|file| stage.project().join(file))
            .filter(|path| path.exists())
            .map(|path| path.display().to_string())
            .collect()
    }

    async fn destroy(&mut self, client: &Client, session: &str) -> Result<(), CliError> {
        self.step("destroy the session", || async {
            client
                .call("destroy_session", json!({ "sessionId": session }))
                .await?;
            Ok(((), String::new()))
        })
        .await
    }

    async fn census(&mut self, stage: &Stage, before: &[String]) -> Result<(), CliError> {
        let began = Instant::now();
        let left = stage.left_behind(before).await?;
        let detail = if left.is_empty() {
            "no process, no cgroup, no container, no mount, no instance, no new file in the project"
                .to_owned()
        } else {
            left.join("\n")
        };
        self.story.left_behind = left;
        self.note("count what is left", &detail, began.elapsed())
    }

    fn audit(&mut self, stage: &Stage) -> Result<(), CliError> {
        let began = Instant::now();
        let log = stage.audit_log();
        let verified = audit::verify(&log)
            .map_err(|error| CliError::Conversation(anyhow::Error::new(error)))?;
        let records =
            audit::read(&log).map_err(|error| CliError::Conversation(anyhow::Error::new(error)))?;
        let (intents, told): (Vec<_>, Vec<_>) = records
            .flatten()
            .partition(|record| record.body.phase == audit::Phase::Intent);
        let mut lines = vec![format!(
            "{} records, the chain of hashes is whole: {} intents, each written before its deed, and these {}",
            verified.records,
            intents.len(),
            told.len()
        )];
        for record in told {
            let time = record.timestamp.get(11..23).unwrap_or_default();
            let reason = record
                .body
                .reason
                .map(|reason| format!(" ({reason})"))
                .unwrap_or_default();
            lines.push(format!(
                "{time}  {:<18} {}{reason}",
                record.body.action, record.body.result
            ));
        }
        self.note("read the audit log", &lines.join("\n"), began.elapsed())
    }
}

/// Runs a shell line to its end.
async fn execute(client: &Client, session: &str, line: &str) -> Result<ExecutionReply, CliError> {
    let arguments =
        json!({ "sessionId": session, "command": line, "timeoutSeconds": 20, "waitSeconds": 30 });
    client.ask("execute_command", arguments).await
}

fn describe(session: &SessionReply) -> String {
    let Some(hardening) = &session.hardening else {
        return String::new();
    };
    let layers: Vec<_> = hardening
        .layers
        .iter()
        .filter(|layer| layer.in_force)
        .map(|layer| layer.layer.as_str())
        .collect();
    let limits: Vec<_> = hardening
        .limits
        .iter()
        .map(|limit| format!("{} {}", limit.limit, word(&limit.enforcement)))
        .collect();
    format!(
        "{}\nin force: {}\nlimits: {}",
        hardening.rung,
        layers.join(", "),
        limits.join(", ")
    )
}

/// The name of an enumeration's value as it stands in replies.
fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn broken(what: &str, execution: &ExecutionReply) -> CliError {
    CliError::Conversation(anyhow::anyhow!(
        "{what}: {}{}",
        execution.stdout.text,
        execution.stderr.text
    ))
}

fn close(output: Output, story: &Story) -> Result<(), CliError> {
    let seconds = story.total_ms / 1000.0;
    if story.passed {
        let good = output.paint(Color::Green, "Everything held.");
        output.line(&format!(
            "\n{good} {seconds:.1} s in all. Next: register the server with your MCP client:"
        ))?;
        output.line(&format!(
            "    claude mcp add sandbox -- {}",
            super::context::this_program().display()
        ))
    } else {
        let bad = output.paint(Color::Red, "Something did not hold.");
        output.line(&format!(
            "\n{bad} See above; `claude-code-mcp doctor` tells what this machine can enforce."
        ))
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

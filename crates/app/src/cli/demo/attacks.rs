//! What an agent might try, each beside a control: the same deed where it is allowed. Only with a control that succeeds
//! does a failure prove anything.

use std::{
    net::{TcpListener, TcpStream},
    time::Duration,
};

use serde::Serialize;

use super::{CliError, Client, execute, stage::Stage};

/// How an attack went.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// What was tried.
    pub title: &'static str,
    /// It failed, and its control succeeded.
    pub held: bool,
    /// How it failed, or that it did not.
    pub attack: String,
    /// How the control went.
    pub control: String,
}

/// An attack and its control.
pub struct Attack {
    title: &'static str,
    /// Must fail inside.
    attack: String,
    control: Control,
    /// Must not have come out, whatever the exit code says.
    canary: Option<String>,
    /// Listens on the host; the attack must not get through to it.
    listener: Option<TcpListener>,
}

enum Control {
    /// Must succeed inside.
    Inside(&'static str, &'static str),
    /// Was tried on the host before.
    Host(&'static str, bool),
}

/// The five attacks.
pub fn all(stage: &Stage) -> Result<Vec<Attack>, CliError> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(CliError::Terminal)?;
    let address = listener.local_addr().map_err(CliError::Terminal)?;
    let reached = TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
        && listener.accept().is_ok();
    let secret = stage.secret();
    let read = std::fs::read_to_string(&secret.path).is_ok_and(|content| content == secret.content);
    let plain = |title, attack: &str, does, control| Attack {
        title,
        attack: attack.to_owned(),
        control: Control::Inside(does, control),
        canary: None,
        listener: None,
    };
    Ok(vec![
        Attack {
            title: "read a secret of the host",
            attack: format!("cat '{}'", secret.path.display()),
            control: Control::Host("the host's own user reads it", read),
            canary: Some(secret.content.clone()),
            listener: None,
        },
        Attack {
            title: "reach a service on the host's loopback",
            attack: format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{}'", address.port()),
            control: Control::Host("the host connects to it", reached),
            canary: None,
            listener: Some(listener),
        },
        plain(
            "plant a git hook that the host would run",
            "printf '#!/bin/sh\\nid' > .git/hooks/pre-commit",
            "writes elsewhere in the project",
            "echo note > note.txt && rm note.txt",
        ),
        plain(
            "become root in a namespace of its own",
            "unshare --user --map-root-user id",
            "runs the same program without asking for it",
            "unshare --version",
        ),
        plain(
            "start a thousand processes",
            "i=0; while [ $i -lt 1000 ]; do sleep 2 & i=$((i + 1)); done",
            "starts ten",
            "i=0; while [ $i -lt 10 ]; do sleep 0.1 & i=$((i + 1)); done; wait",
        ),
    ])
}

impl Attack {
    /// Tries it in the session, after its control.
    pub async fn run(self, client: &Client, session: &str) -> Result<Verdict, CliError> {
        let (control, controlled) = match self.control {
            Control::Host(does, done) => (does, done),
            Control::Inside(does, line) => (
                does,
                execute(client, session, line).await?.exit_code == Some(0),
            ),
        };
        let tried = execute(client, session, &self.attack).await?;
        let failed = tried.exit_code != Some(0);
        let leaked = self
            .canary
            .is_some_and(|canary| tried.stdout.text.contains(&canary));
        let reached = self.listener.is_some_and(|listener| was_reached(&listener));
        let words = tried.stderr.text.lines().next_back().unwrap_or_default();
        let words: String = words.chars().take(90).collect();
        let attack = match (failed && !leaked && !reached, words.is_empty()) {
            (true, true) => "failed".to_owned(),
            (true, false) => words,
            (false, _) => "SUCCEEDED".to_owned(),
        };
        let control_words = if controlled {
            control.to_owned()
        } else {
            format!("FAILED: {control}")
        };
        let held = failed && !leaked && !reached && controlled;
        Ok(Verdict {
            title: self.title,
            held,
            attack,
            control: control_words,
        })
    }
}

/// Whether somebody has connected. Not knowing counts as yes.
fn was_reached(listener: &TcpListener) -> bool {
    match listener
        .set_nonblocking(true)
        .and_then(|()| listener.accept())
    {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

//! The scripted Messages API as a process, for trying things by hand.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use clap::{ArgGroup, Parser};
use scripted_api::{
    Accept, KeyPair, Options, Recorded, Script, ScriptedApi, by_prompt, scenario, scenarios,
};

/// Answers like the Messages API, from a script: no model, no key, loopback only.
#[derive(Parser)]
#[command(name = "scripted-api", version)]
#[command(group = ArgGroup::new("what").args(["list", "scenario", "script"]).required(true))]
struct Arguments {
    /// Show the ready scenarios and end
    #[arg(long)]
    list: bool,
    /// A ready scenario; `by-prompt`: the prompt names one in double brackets
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// A script of your own, .toml or .json
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// The port on 127.0.0.1; 0: any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Put before each answer's text
    #[arg(long, default_value = "[scripted] ", value_name = "TEXT")]
    label: String,
    /// Accept this made-up x-api-key, and answer 401 without an accepted credential
    #[arg(long, value_name = "KEY")]
    accept_api_key: Vec<String>,
    /// Accept this made-up bearer token
    #[arg(long, value_name = "TOKEN")]
    accept_bearer: Vec<String>,
    /// Accept signatures of AWS with this made-up key pair
    #[arg(long, value_name = "ID:SECRET", value_parser = key_pair)]
    accept_signature: Vec<KeyPair>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut line = format!("scripted-api: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                line += &format!(": {cause}");
                source = cause.source();
            }
            let _ = writeln!(io::stderr(), "{line}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    if arguments.list {
        return list();
    }
    let script = script(&arguments)?;
    let keys = arguments.accept_api_key.into_iter().map(Accept::ApiKey);
    let tokens = arguments.accept_bearer.into_iter().map(Accept::Bearer);
    let pairs = arguments
        .accept_signature
        .into_iter()
        .map(Accept::Signature);
    let options = Options {
        port: arguments.port,
        accept: keys.chain(tokens).chain(pairs).collect(),
        on_end: Some(Arc::new(tell)),
    };
    let api = ScriptedApi::start_with(script.label(arguments.label), options).await?;
    writeln!(io::stdout(), "{}", api.url())?;
    tokio::signal::ctrl_c().await?;
    Ok(())
}

fn script(arguments: &Arguments) -> Result<Script, Box<dyn std::error::Error>> {
    Ok(match (&arguments.script, arguments.scenario.as_deref()) {
        (Some(path), _) => Script::load(path)?,
        (None, Some("by-prompt")) => by_prompt()?,
        (None, name) => scenario(name.unwrap_or_default())?,
    })
}

fn list() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = io::stdout().lock();
    writeln!(out, "{:<14} {:<84} PROVES", "NAME", "WHAT HAPPENS")?;
    for script in scenarios()? {
        writeln!(
            out,
            "{:<14} {:<84} {}",
            script.name, script.description, script.proves
        )?;
    }
    Ok(())
}

/// One line for each request, without credentials and contents.
fn tell(recorded: &Recorded) {
    let _ = writeln!(io::stderr(), "{recorded}");
}

fn key_pair(text: &str) -> Result<KeyPair, String> {
    let (id, secret) = text.split_once(':').ok_or("write ID:SECRET")?;
    Ok(KeyPair {
        access_key_id: id.to_owned(),
        secret_access_key: secret.to_owned(),
        session_token: None,
        region: None,
    })
}

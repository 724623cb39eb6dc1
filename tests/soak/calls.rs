//! Calls to a server that may be killed at any moment, and the work that a client does meanwhile.

use std::{
    cell::Cell,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    plan::Dice,
    support::{Client, Machine, PATIENCE},
};

/// How a call ended.
#[derive(Debug)]
pub enum Ended {
    Done(Value),
    /// The server's own refusal.
    Refused(Value),
    /// The front is gone, as it is after a kill.
    Gone,
    /// Anything that no kill explains, such as a call without an answer.
    Broken(String),
}

/// Calls a tool, also where the front may be dead.
pub fn call(client: &mut Client, tool: &str, arguments: Value) -> Ended {
    match attempt(|| client.tool(tool, arguments)) {
        Ok(Ok(content)) => Ended::Done(content),
        Ok(Err(error)) if error.as_str().is_some_and(is_gone) => Ended::Gone,
        Ok(Err(error)) => Ended::Refused(error),
        Err(panic) if is_gone(&panic) => Ended::Gone,
        Err(panic) => Ended::Broken(panic),
    }
}

/// Whether this is how the test client words a dead front.
pub fn is_gone(why: &str) -> bool {
    why.contains("the front has ended") || why.contains("the front reads")
}

/// A greeted client, or why there is none.
pub fn connect(machine: &Machine) -> Result<Client, String> {
    attempt(|| machine.client())
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs what may panic on a dead front, without the noise.
fn attempt<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(false);
    result.map_err(|panic| {
        panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "a panic without words".to_owned())
    })
}

/// What a client knows of the sessions that it was told of.
#[derive(Debug, Default)]
pub struct Known {
    /// Session, and the execution that still runs in it.
    pub live: BTreeMap<String, Option<String>>,
}

/// Sessions of one client at most.
const MAX_SESSIONS: usize = 3;

/// Works until the front is gone.
///
/// # Errors
/// What no kill explains.
pub fn work(
    client: &mut Client,
    machine: &Machine,
    dice: &mut Dice,
    known: &mut Known,
) -> Result<(), String> {
    loop {
        let chosen = known
            .live
            .keys()
            .nth(dice.below(known.live.len().max(1) as u64) as usize)
            .cloned();
        let goes_on = match (dice.below(10), chosen) {
            (0..3, _) if known.live.len() < MAX_SESSIONS => create(client, machine, known)?,
            (_, None) => create(client, machine, known)?,
            (0..6, Some(session)) => execute(client, &session, dice)?,
            (6, Some(session)) => begin(client, session, known)?,
            (7, Some(session)) => transfer(client, machine, &session, dice)?,
            (8, Some(_)) => step(call(client, "list_sessions", json!({})))?.is_some(),
            (_, Some(session)) => destroy(client, &session, known)?,
        };
        if !goes_on {
            return Ok(());
        }
    }
}

/// The content of a call, nothing when the front is gone.
fn step(ended: Ended) -> Result<Option<Value>, String> {
    match ended {
        Ended::Done(content) => Ok(Some(content)),
        Ended::Gone => Ok(None),
        Ended::Refused(error) => Err(format!("refused: {error}")),
        Ended::Broken(why) => Err(why),
    }
}

fn create(client: &mut Client, machine: &Machine, known: &mut Known) -> Result<bool, String> {
    let arguments = json!({ "projectPath": machine.project });
    let Some(created) = step(call(client, "create_session", arguments))? else {
        return Ok(false);
    };
    let session = created["sessionId"].as_str().ok_or("no session id")?;
    known.live.insert(session.to_owned(), None);
    Ok(true)
}

fn execute(client: &mut Client, session: &str, dice: &mut Dice) -> Result<bool, String> {
    let word = dice.below(1 << 32);
    let arguments = json!({ "sessionId": session, "command": format!("echo {word}; mkdir -p /tmp/d && cd /tmp/d && ls"), "waitSeconds": 30 });
    let Some(ended) = step(call(client, "execute_command", arguments))? else {
        return Ok(false);
    };
    if ended["stdout"]["text"] != json!(format!("{word}\n")) {
        return Err(format!("another output than {word}: {ended}"));
    }
    Ok(true)
}

/// Starts what still runs when the server is killed.
fn begin(client: &mut Client, session: String, known: &mut Known) -> Result<bool, String> {
    if known.live.get(&session).is_none_or(Option::is_some) {
        return Ok(true);
    }
    let arguments =
        json!({ "sessionId": session, "command": "echo begun; sleep 600", "waitSeconds": 0 });
    let Some(begun) = step(call(client, "execute_command", arguments))? else {
        return Ok(false);
    };
    let execution = begun["executionId"].as_str().ok_or("no execution id")?;
    known.live.insert(session, Some(execution.to_owned()));
    Ok(true)
}

fn transfer(
    client: &mut Client,
    machine: &Machine,
    session: &str,
    dice: &mut Dice,
) -> Result<bool, String> {
    let copy = format!("/tmp/copy-{}", dice.below(1 << 32));
    let arguments = json!({
        "sessionId": session, "direction": "to_container",
        "sourcePath": machine.project.join("README.md"), "destPath": copy,
    });
    Ok(step(call(client, "transfer_files", arguments))?.is_some())
}

fn destroy(client: &mut Client, session: &str, known: &mut Known) -> Result<bool, String> {
    // Once asked for, both ends of it are right.
    known.live.remove(session);
    let arguments = json!({ "sessionId": session });
    Ok(step(call(client, "destroy_session", arguments))?.is_some())
}

/// Every session that the client was told of goes on, and so does what runs in it.
///
/// # Errors
/// When one of them is lost.
pub fn check_known(client: &mut Client, known: &Known) -> Result<(), String> {
    for (session, execution) in &known.live {
        eventually(&format!("{session} works again"), || {
            let arguments =
                json!({ "sessionId": session, "command": "echo alive", "waitSeconds": 20 });
            match call(client, "execute_command", arguments) {
                Ended::Done(ended) if ended["stdout"]["text"] == "alive\n" => Ok(()),
                Ended::Done(other) | Ended::Refused(other) => Err(other.to_string()),
                Ended::Gone => Err("the front is gone".to_owned()),
                Ended::Broken(why) => Err(why),
            }
        })?;
        if let Some(execution) = execution {
            eventually(&format!("{execution} of {session} runs on"), || {
                let arguments = json!({ "executionId": execution, "waitSeconds": 0 });
                match call(client, "get_execution", arguments) {
                    Ended::Done(view)
                        if view["state"] == "running" && view["stdout"]["text"] == "begun\n" =>
                    {
                        Ok(())
                    }
                    other @ (Ended::Done(_)
                    | Ended::Refused(_)
                    | Ended::Gone
                    | Ended::Broken(_)) => Err(format!("{other:?}")),
                }
            })?;
        }
    }
    Ok(())
}

/// Destroys everything that the server knows of and that has not ended.
///
/// # Errors
/// When something stays.
pub fn destroy_all(client: &mut Client) -> Result<(), String> {
    eventually("everything is destroyed", || {
        let Ended::Done(listed) = call(client, "list_sessions", json!({})) else {
            return Err("no list".to_owned());
        };
        let open: Vec<_> = listed["sessions"]
            .as_array()
            .ok_or("no list")?
            .iter()
            .filter(|session| {
                !["destroyed", "expired", "failed"]
                    .contains(&session["state"].as_str().unwrap_or_default())
            })
            .cloned()
            .collect();
        for session in &open {
            let arguments = json!({ "sessionId": session["sessionId"] });
            match call(client, "destroy_session", arguments) {
                Ended::Done(_) => {}
                other @ (Ended::Refused(_) | Ended::Gone | Ended::Broken(_)) => {
                    return Err(format!("{session} is not destroyed: {other:?}"));
                }
            }
        }
        if open.is_empty() {
            Ok(())
        } else {
            Err(format!("still there: {open:?}"))
        }
    })
}

/// Tries until it goes well, or gives the last reason.
pub fn eventually(
    what: &str,
    mut attempt: impl FnMut() -> Result<(), String>,
) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(why) if Instant::now() > deadline => {
                return Err(format!("never came true: {what}; at last {why}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

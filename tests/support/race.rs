//! Many clients that create sessions at the same time.

use std::{collections::BTreeSet, thread};

use serde_json::json;

use super::Machine;

/// What became of a race.
pub struct Raced {
    /// Ids of the sessions that were made.
    pub made: BTreeSet<String>,
    /// Codes of the refusals.
    pub refused: Vec<String>,
}

/// So many clients, each with so many creations under way at once.
pub fn creations(machine: &Machine, clients: usize, each: usize) -> Raced {
    let answers: Vec<Result<String, String>> = thread::scope(|scope| {
        let racers: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = machine.client();
                    let arguments = json!({ "projectPath": machine.project });
                    let call = json!({ "name": "create_session", "arguments": arguments });
                    let posted: Vec<_> = (0..each)
                        .map(|_| client.post("tools/call", call.clone()))
                        .collect();
                    answers(&mut client, posted)
                })
            })
            .collect();
        racers
            .into_iter()
            .flat_map(|racer| racer.join().expect("no panic"))
            .collect()
    });
    Raced {
        made: answers.iter().flatten().cloned().collect(),
        refused: answers.into_iter().filter_map(Result::err).collect(),
    }
}

/// Answers come in any order; the client forgets those that it does not wait for, so they are read as they come.
fn answers(client: &mut super::Client, posted: Vec<u64>) -> Vec<Result<String, String>> {
    let mut waiting: BTreeSet<u64> = posted.into_iter().collect();
    let mut answers = Vec::new();
    while !waiting.is_empty() {
        let (id, result) = client.next_answer();
        assert!(waiting.remove(&id), "an answer to {id}");
        let content = &result["structuredContent"];
        answers.push(match content["sessionId"].as_str() {
            Some(session) => Ok(session.to_owned()),
            None => Err(content["error"]["code"]
                .as_str()
                .unwrap_or_default()
                .to_owned()),
        });
    }
    answers
}

/// Exactly so many live, the others were refused as they must be, and as many find a place again when these are gone.
///
/// # Errors
/// What is otherwise.
pub fn is_exact(
    machine: &Machine,
    clients: usize,
    each: usize,
    places: usize,
) -> Result<(), String> {
    let raced = creations(machine, clients, each);
    if raced.made.len() != places || raced.refused.len() != clients * each - places {
        return Err(format!(
            "{} made, refused: {:?}",
            raced.made.len(),
            raced.refused
        ));
    }
    if raced.refused.iter().any(|code| code != "limit_reached") {
        return Err(format!("refused otherwise: {:?}", raced.refused));
    }
    let mut client = machine.client();
    let listed = client
        .tool("list_sessions", json!({}))
        .map_err(|error| error.to_string())?;
    let live = listed["sessions"].as_array().map_or(0, Vec::len);
    if live != places {
        return Err(format!("{live} live"));
    }
    for session in &raced.made {
        client.destroy(session);
    }
    Ok(())
}

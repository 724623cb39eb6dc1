//! Leases run out: of sessions full of stubborn processes, and of sessions that were being made when their server died.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    calls::{connect, destroy_all, eventually},
    place::Place,
    plan::{Dice, Plan, scaled},
    support::{alone, users},
};

const LEASE_SECONDS: &str = "2";
/// From the kill to the end of the last process: the lease, a second, and another for a loaded machine.
const GONE_WITHIN: Duration = Duration::from_secs(4);

/// What does not want to end. Bounded, each.
const STUBBORN: &[&str] = &[
    "sleep 600",
    "trap '' TERM HUP INT; sleep 600 & wait; sleep 600",
    "setsid sh -c 'trap \"\" TERM; sleep 600' & (setsid setsid sleep 600 &) ; sleep 600",
    "for i in 1 2 3 4 5 6 7 8 9 10; do (trap '' TERM; sleep 600 & sleep 600) & done; wait",
    "kill -STOP $$; sleep 600",
];

#[test]
fn nothing_outlives_the_lease_of_a_dead_server() {
    let Some(mut plan) = Plan::begin("leases") else {
        return;
    };
    let _alone = alone();
    let users = users();
    let settings = [("CLAUDE_CODE_MCP_LEASE_SECONDS", LEASE_SECONDS)];
    let mut done = 0;
    for round in plan.rounds(scaled(10)) {
        let which = (round % users.len() as u64) as usize;
        let place = Place::new(users[which], &settings);
        let result = one_round(&place, plan.dice(round));
        done += 1;
        if plan.note(round, result) {
            break;
        }
    }
    plan.finish(done);
}

fn one_round(place: &Place, mut dice: Dice) -> Result<(), String> {
    let mut client = connect(&place.machine)?;
    let mut sessions = Vec::new();
    for _ in 0..=dice.below(3) {
        let session = client.create(&place.machine.project);
        for _ in 0..=dice.below(2) {
            let command = STUBBORN[dice.below(STUBBORN.len() as u64) as usize];
            client
                .tool(
                    "execute_command",
                    json!({ "sessionId": session, "command": command, "waitSeconds": 0 }),
                )
                .map_err(|error| format!("refused: {error}"))?;
        }
        sessions.push(session);
    }
    if dice.one_in(2) {
        let project = json!({ "projectPath": place.machine.project });
        client.post(
            "tools/call",
            json!({ "name": "create_session", "arguments": project }),
        );
        std::thread::sleep(dice.delay(16));
    }
    if !place.kill_server() {
        return Err("no server to kill".to_owned());
    }
    let killed = Instant::now();
    while !place.machine.sandbox_pids().is_empty() {
        if killed.elapsed() > GONE_WITHIN {
            let pids = place.machine.sandbox_pids();
            return Err(format!(
                "{pids:?} are there {:?} after the kill",
                killed.elapsed()
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut client = connect(&place.machine)?;
    for session in sessions {
        eventually("the session is known as failed", || {
            match client.tool("get_session", json!({ "sessionId": session })) {
                Ok(view) if view["state"] == "failed" => Ok(()),
                Ok(other) | Err(other) => Err(other.to_string()),
            }
        })?;
    }
    destroy_all(&mut client)?;
    place.settled()
}

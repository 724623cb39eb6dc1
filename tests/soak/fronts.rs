//! kill -9 of a front at random times: the server, its sessions and what runs in them go on.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    calls::{Known, check_known, connect, destroy_all, work},
    place::{Place, kill},
    plan::{Dice, Plan, scaled},
    support::{PATIENCE, alone, users},
};

/// Longest life of a front before its kill, as a power of two of microseconds: half a second.
const LIFE_BITS: u64 = 19;

#[test]
fn a_front_killed_at_any_time_ends_nothing_and_leaves_nothing() {
    let Some(mut plan) = Plan::begin("kills of the front") else {
        return;
    };
    let _alone = alone();
    let users = users();
    let mut places: Vec<_> = users.iter().map(|user| Place::new(*user, &[])).collect();
    let mut done = 0;
    for round in plan.rounds(scaled(60)) {
        let which = (round % users.len() as u64) as usize;
        let result = one_round(&places[which], plan.dice(round));
        done += 1;
        let failed = result.is_err();
        if plan.note(round, result) {
            break;
        }
        if failed {
            places[which] = Place::new(users[which], &[]);
        }
    }
    plan.finish(done);
}

fn one_round(place: &Place, mut dice: Dice) -> Result<(), String> {
    let mut standing = connect(&place.machine)?;
    let server = place.machine.server_pid();
    let delay = dice.delay(LIFE_BITS);
    let mut known = Known::default();
    let mut front = connect(&place.machine)?;
    let pid = i32::try_from(front.child.id()).map_err(|error| error.to_string())?;
    thread::scope(|scope| {
        scope.spawn(move || {
            thread::sleep(delay);
            kill(pid);
        });
        work(&mut front, &place.machine, &mut dice, &mut known)
    })?;
    drop(front);
    check_known(&mut standing, &known).map_err(|why| format!("{why}\n{}", place.log()))?;
    // A creation that nobody waits for any more finishes or is undone; either way it can be destroyed.
    let deadline = Instant::now() + PATIENCE;
    loop {
        destroy_all(&mut standing)?;
        match place.settled_within(Duration::from_secs(2)) {
            Ok(()) => break,
            Err(why) if Instant::now() > deadline => return Err(why),
            Err(_) => {}
        }
    }
    if place.machine.server_pid() != server {
        return Err(format!("another server than {server:?} runs now"));
    }
    Ok(())
}

//! kill -9 of the server at random times: while it starts, creates, executes, transfers, destroys.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    calls::{Known, check_known, connect, destroy_all, is_gone, work},
    place::Place,
    plan::{Dice, Plan, number, scaled},
    support::{alone, users},
};

/// Longest life of a server before its kill, as a power of two of microseconds: a second.
const LIFE_BITS: u64 = 20;
/// The same, for one that is killed while it starts: 65 ms.
const START_BITS: u64 = 16;
/// How long a front may take to see that its server is gone.
const NOTICED_WITHIN: Duration = Duration::from_millis(500);

#[test]
fn a_server_killed_at_any_time_loses_no_session_and_leaves_nothing() {
    let Some(mut plan) = Plan::begin("kills of the server") else {
        return;
    };
    let _alone = alone();
    let users = users();
    let mut places: Vec<_> = users.iter().map(|user| Place::new(*user, &[])).collect();
    let rounds = plan.rounds(number("SOAK_KILLS").unwrap_or_else(|| scaled(200)));
    let begun = Instant::now();
    let (mut done, mut carried) = (0, 0);
    for round in rounds {
        let which = (round % users.len() as u64) as usize;
        let result =
            one_round(&places[which], plan.dice(round)).map(|sessions| carried += sessions);
        done += 1;
        if done % 20 == 0 {
            eprintln!(
                "{done} kills in {} s, {carried} sessions were carried over",
                begun.elapsed().as_secs()
            );
        }
        let failed = result.is_err();
        let enough = plan.note(
            round,
            result.map_err(|why| format!("as {:?}: {why}", users[which])),
        );
        if enough {
            break;
        }
        if failed {
            // What is left there would fail all rounds that follow.
            places[which] = Place::new(users[which], &[]);
        }
    }
    for place in &places {
        let result = place.check_audit();
        plan.note(u64::MAX, result);
    }
    plan.finish(done);
}

/// Gives how many sessions lived through the kill.
fn one_round(place: &Place, mut dice: Dice) -> Result<usize, String> {
    let starting = dice.one_in(5);
    let delay = dice.delay(if starting { START_BITS } else { LIFE_BITS });
    if starting {
        place.stop_server();
    }
    let mut known = Known::default();
    // A killed server is why a front ends without a greeting, and how work ends.
    let over = AtomicBool::new(false);
    let worked = thread::scope(|scope| {
        let killer = scope.spawn(|| kill_until(place, starting, delay, &over));
        let worked = match connect(&place.machine) {
            Ok(mut client) => work(&mut client, &place.machine, &mut dice, &mut known),
            // It was killed while it started.
            Err(why) if is_gone(&why) => Ok(()),
            Err(why) => Err(why),
        };
        over.store(true, Ordering::Relaxed);
        killer.join().map(|()| worked)
    })
    .map_err(|_| "the killer has failed".to_owned())?;
    worked.map_err(|why| format!("before the kill, {why}\n{}", place.log()))?;
    recover(place, &known).map_err(|why| format!("killed after {delay:?}, {why}"))?;
    Ok(known.live.len())
}

/// Kills the server once, and again when the front, which was starting it, has started another.
fn kill_until(place: &Place, starting: bool, delay: Duration, over: &AtomicBool) {
    let is_over = || over.load(Ordering::Relaxed);
    while starting && place.machine.server_pid().is_none() && !is_over() {
        thread::sleep(Duration::from_micros(200));
    }
    loop {
        thread::sleep(delay);
        place.kill_server();
        let noticed = Instant::now();
        while noticed.elapsed() < NOTICED_WITHIN {
            if is_over() {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The next server finds all, and can remove all.
fn recover(place: &Place, known: &Known) -> Result<(), String> {
    let mut client = connect(&place.machine)?;
    check_known(&mut client, known).map_err(|why| format!("{why}\n{}", place.log()))?;
    destroy_all(&mut client).map_err(|why| format!("{why}\n{}", place.log()))?;
    drop(client);
    place.settled()
}

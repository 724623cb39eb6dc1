//! The limit of sessions, raced many times on the embedded runtime.

use crate::{
    place::Place,
    plan::{Plan, scaled},
    support::{alone, race, users},
};

#[test]
fn the_limit_of_sessions_is_exact_each_time() {
    let Some(mut plan) = Plan::begin("limits") else {
        return;
    };
    let _alone = alone();
    let settings = [("MAX_CONCURRENT_SESSIONS", "10")];
    let places: Vec<_> = users()
        .into_iter()
        .map(|user| Place::new(user, &settings))
        .collect();
    let mut done = 0;
    for round in plan.rounds(scaled(50)) {
        let place = &places[(round % places.len() as u64) as usize];
        let result = race::is_exact(&place.machine, 10, 10, 10).and_then(|()| place.settled());
        done += 1;
        if plan.note(round, result) {
            break;
        }
    }
    plan.finish(done);
}

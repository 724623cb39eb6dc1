//! The positive control: what the long runs look for is seen when it is there.

use serde_json::json;

use crate::{
    calls::{Known, check_known, connect, destroy_all},
    place::{Place, kill},
    plan::Plan,
    support::{alone, users},
};

use std::time::Duration;

/// For what should not be found in the time.
const SHORT: Duration = Duration::from_millis(300);

#[test]
fn the_census_sees_what_is_left_and_a_lost_session_is_noticed() {
    let Some(plan) = Plan::begin("positive control") else {
        return;
    };
    let _alone = alone();
    for user in users() {
        let place = Place::new(user, &[]);
        let mut client = connect(&place.machine).expect("a client");
        place.settled().expect("nothing is there");

        let session = client.create(&place.machine.project);
        let left = place.settled_within(SHORT);
        assert!(left.is_err(), "{user:?}: a live session is not seen");
        let supervisor = place.machine.sandbox_pids();
        assert!(!supervisor.is_empty(), "{user:?}: no process is seen");

        let known = Known {
            live: [(session, None)].into(),
        };
        check_known(&mut client, &known).expect("the session works");
        supervisor.into_iter().for_each(kill);
        let lost = check_known(&mut client, &known);
        assert!(lost.is_err(), "{user:?}: a lost session is not noticed");

        destroy_all(&mut client).expect("destroyed");
        place.settled().expect("nothing is left");
        let stray = place.machine.state().join("native/sessions/s-stray");
        std::fs::create_dir(&stray).expect("a directory");
        assert!(
            place.settled_within(SHORT).is_err(),
            "{user:?}: a stray record is not seen"
        );
        let listed = client.tool("list_sessions", json!({})).expect("a list");
        assert!(listed["sessions"].is_array(), "{listed:#}");
    }
    plan.finish(1);
}

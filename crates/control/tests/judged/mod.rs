//! The judge itself: what it lets pass, and what it finds.

use model::SessionId;

use crate::{
    BACKGROUND, CARRIED_ON,
    operations::{Effect, EngineCall, Operation, judge},
};

fn operation(id: &str, session: u8, from: u64, to: u64) -> Operation {
    Operation {
        id: id.to_owned(),
        action: "action".to_owned(),
        session: Some(SessionId::from_bytes([session; 16])),
        has_intent: true,
        from,
        to,
    }
}

fn call(name: &str, session: u8, begun: u64, ended: Option<u64>) -> EngineCall {
    EngineCall {
        name: name.to_owned(),
        effect: Effect::Changes,
        session: Some(SessionId::from_bytes([session; 16])),
        execution: None,
        begun,
        ended,
    }
}

#[test]
fn what_holds_a_call_is_one_operation_of_its_session_from_before_it_to_after_it() {
    let operations = [operation("a", 1, 10, 20), operation("b", 2, 15, 30)];
    let read = Operation {
        has_intent: false,
        ..operation("c", 3, 40, 50)
    };
    let operations = [operations.as_slice(), &[read]].concat();
    let found = |call: EngineCall| judge(&[call], &operations, BACKGROUND).findings.len();
    assert_eq!(found(call("destroy", 1, 10, Some(20))), 0, "the control");
    for (call, why) in [
        (
            call("destroy", 1, 9, Some(20)),
            "before the intent was durable",
        ),
        (
            call("destroy", 1, 10, Some(21)),
            "after the result was written",
        ),
        (call("destroy", 1, 10, None), "and never ended"),
        (call("destroy", 2, 10, Some(20)), "of another session"),
        (
            call("destroy", 3, 41, Some(42)),
            "a change in what only reads",
        ),
        (
            call("unheard of", 1, 50, Some(60)),
            "a kind that nobody listed",
        ),
    ] {
        assert_eq!(found(call), 1, "{why}");
    }
    assert_eq!(
        found(call("RenewLease", 1, 50, Some(60))),
        0,
        "a kind that is listed"
    );
    let [start, carried_on] = [("Start", 12), ("WriteStdin", 50)].map(|(name, at)| EngineCall {
        execution: Some([7; 16]),
        ..call(name, 1, at, Some(at))
    });
    let carried = |calls: &[EngineCall]| judge(calls, &operations, &[CARRIED_ON]).findings.len();
    assert_eq!(carried(&[start.clone(), carried_on.clone()]), 0);
    assert_eq!(
        carried(std::slice::from_ref(&carried_on)),
        1,
        "nothing began it"
    );
    let other = EngineCall {
        execution: Some([8; 16]),
        ..carried_on
    };
    assert_eq!(carried(&[start, other]), 1, "another execution's");
    let looks = |session| EngineCall {
        effect: Effect::Observes,
        ..call("inspect", session, 41, Some(42))
    };
    assert_eq!(
        (found(looks(3)), found(looks(1))),
        (0, 1),
        "what only reads may look"
    );
    let twice = [operation("a", 1, 10, 20), operation("b", 1, 15, 30)];
    let judged = judge(&[call("destroy", 1, 16, Some(18))], &twice, BACKGROUND);
    assert_eq!(judged.findings.len(), 1, "two claim it");
}

//! Role × action: who may do what, and that unknown and foreign look the same.

use std::{
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use model::{
    AnswerNetwork, AnsweredBy, CommandLine, ExecutionId, NetworkTarget, Principal, Reason,
    TransferDirection, TransferFiles, WidenNetwork,
};

use super::fixture::*;
use crate::{ExecutionVerb, Policy, SessionTimes, SessionVerb, SystemVerb};

const EXECUTION: ExecutionId = ExecutionId::from_bytes([9; 16]);

/// The verdict on every action, by name; `ok`, or the code.
fn verdicts(
    policy: &Policy,
    who: &Principal,
    owner: Option<&str>,
) -> Vec<(&'static str, &'static str)> {
    fn code<T>(result: Result<T, model::Refusal>) -> &'static str {
        match result {
            Ok(_) => "ok",
            Err(refusal) => refusal.reason.code(),
        }
    }
    let times = SessionTimes {
        created_at: UNIX_EPOCH,
        expires_at: UNIX_EPOCH + Duration::from_secs(60),
        now: UNIX_EPOCH + Duration::from_secs(1),
    };
    let transfer = TransferFiles {
        session: SESSION,
        direction: TransferDirection::ToContainer,
        source: "/srv/code/app/x".into(),
        destination: "/workspace/x".into(),
    };
    let session = |verb| code(policy.admit_session(who, verb, SESSION, owner));
    let execution = |verb| code(policy.admit_execution(who, verb, EXECUTION, owner));
    let widen = |by| {
        let asked = WidenNetwork {
            session: SESSION,
            allow: vec![ALLOWED.parse().unwrap()],
            by,
        };
        code(policy.admit_widen(who, &asked, owner))
    };
    let wish = |by, allow| {
        let asked = AnswerNetwork {
            session: SESSION,
            target: NetworkTarget {
                host: ALLOWED.to_owned(),
                port: 443,
            },
            allow,
            by,
        };
        code(policy.admit_network_answer(who, &asked, owner))
    };
    vec![
        (
            "create",
            code(policy.admit_create(who, &create(PROJECT), facts(policy, PROJECT, &[]))),
        ),
        (
            "command",
            code(policy.admit_command(who, &command(CommandLine::Shell("ls".into())), owner)),
        ),
        ("prompt", code(policy.admit_prompt(who, &prompt(), owner))),
        (
            "transfer",
            code(policy.admit_transfer(who, &transfer, owner, Path::new(PROJECT))),
        ),
        (
            "extend",
            code(policy.admit_extend(who, SESSION, owner, Duration::from_secs(1), times)),
        ),
        ("widen as a person", widen(AnsweredBy::Person)),
        ("widen as the calling model", widen(AnsweredBy::Caller)),
        (
            "allow what was asked as a person",
            wish(AnsweredBy::Person, true),
        ),
        (
            "refuse what was asked as a person",
            wish(AnsweredBy::Person, false),
        ),
        (
            "allow what was asked as the calling model",
            wish(AnsweredBy::Caller, true),
        ),
        (
            "refuse what was asked as the calling model",
            wish(AnsweredBy::Caller, false),
        ),
        ("read", session(SessionVerb::Read)),
        ("logs", session(SessionVerb::Logs)),
        ("transcript", session(SessionVerb::Transcript)),
        ("destroy", session(SessionVerb::Destroy)),
        ("execution read", execution(ExecutionVerb::Read)),
        ("cancel", execution(ExecutionVerb::Cancel)),
        ("stdin", execution(ExecutionVerb::Respond { bytes: 1 })),
        ("resize", execution(ExecutionVerb::Resize)),
        (
            "answer as a person",
            execution(ExecutionVerb::Answer(AnsweredBy::Person)),
        ),
        (
            "answer as the calling model",
            execution(ExecutionVerb::Answer(AnsweredBy::Caller)),
        ),
        ("survey", code(policy.admit_system(who, SystemVerb::Survey))),
        (
            "adopt",
            code(policy.admit_system(who, SystemVerb::Adopt(SESSION))),
        ),
        (
            "reap",
            code(policy.admit_system(who, SystemVerb::Reap(SESSION))),
        ),
        (
            "remove remains",
            code(policy.admit_system(who, SystemVerb::RemoveRemains(SESSION))),
        ),
    ]
}

#[test]
fn the_role_table_holds() {
    let policy = policy();
    let (denied, session, execution) =
        ("policy_denied", "session_not_found", "execution_not_found");
    let stranger = Principal::LocalUser {
        uid: 0,
        roots: vec![OPERATOR_ROOT.into()],
    };
    let (mine, theirs, unknown) = (Some(OWNER), Some("uid:0"), None);
    #[rustfmt::skip]
    let table = [
        // create, then work in a session and what it reaches, then upkeep of it, then executions, then the server's own
        (alice(), mine, ["ok", "ok", "ok", "ok", "ok", "ok", denied, "ok", "ok", denied, denied, "ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", denied], denied),
        (alice(), theirs, ["ok", session, session, session, session, session, session, session, session, session, session, session, session, session, session, execution, execution, execution, execution, execution, execution], denied),
        (alice(), unknown, ["ok", session, session, session, session, session, session, session, session, session, session, session, session, session, session, execution, execution, execution, execution, execution, execution], denied),
        (stranger.clone(), mine, [denied, session, session, session, session, session, session, session, session, session, session, session, session, session, session, execution, execution, execution, execution, execution, execution], denied),
        (stranger.clone(), theirs, [denied, session, session, session, session, session, session, session, session, session, session, session, session, session, session, execution, execution, execution, execution, execution, execution], denied),
        (Principal::System, mine, [denied, denied, denied, denied, denied, denied, denied, denied, denied, denied, denied, "ok", "ok", "ok", "ok", "ok", "ok", denied, denied, denied, denied], "ok"),
        (Principal::System, theirs, [denied, denied, denied, denied, denied, denied, denied, denied, denied, denied, denied, "ok", "ok", "ok", "ok", "ok", "ok", denied, denied, denied, denied], "ok"),
        (Principal::System, unknown, [denied, denied, denied, denied, denied, denied, denied, denied, denied, denied, denied, session, session, session, session, execution, execution, denied, denied, denied, denied], "ok"),
    ];
    for (who, owner, expected, system) in table {
        let verdicts = verdicts(&policy, &who, owner);
        let expected = expected.into_iter().chain([system; 4]);
        for ((action, verdict), expected) in verdicts.into_iter().zip(expected) {
            assert_eq!(
                verdict,
                expected,
                "{} on a session of {owner:?}: {action}",
                who.name()
            );
        }
    }
    assert_eq!(policy.admit_listing(&alice()).owner(), Some(OWNER));
    assert_eq!(
        policy.admit_listing(&stranger).into_parts().as_deref(),
        Some("uid:0")
    );
    assert_eq!(policy.admit_listing(&Principal::System).owner(), None);
}

#[test]
fn unknown_and_foreign_cannot_be_told_apart() {
    let policy = policy();
    let session = |owner| {
        policy
            .admit_session(&alice(), SessionVerb::Read, SESSION, owner)
            .unwrap_err()
    };
    assert_eq!(session(None), session(Some("uid:0")));
    let execution = |owner| {
        policy
            .admit_execution(&alice(), ExecutionVerb::Read, EXECUTION, owner)
            .unwrap_err()
    };
    assert_eq!(execution(None), execution(Some("uid:0")));
    // Nor by what is asked of it: ownership comes first.
    let broken = command(CommandLine::Argv(Vec::new()));
    let command = |owner| policy.admit_command(&alice(), &broken, owner).unwrap_err();
    assert_eq!(command(None), command(Some("uid:0")));
    assert_eq!(command(Some(OWNER)).reason, Reason::InvalidArgument);
}

#[test]
fn permits_say_what_they_are_for() {
    let policy = policy();
    let permit = policy
        .admit_session(&alice(), SessionVerb::Destroy, SESSION, Some(OWNER))
        .unwrap();
    assert_eq!((permit.session(), permit.verb()), permit.into_parts());
    let permit = policy
        .admit_execution(&alice(), ExecutionVerb::Cancel, EXECUTION, Some(OWNER))
        .unwrap();
    assert_eq!((permit.execution(), permit.verb()), permit.into_parts());
    let permit = policy
        .admit_system(&Principal::System, SystemVerb::Reap(SESSION))
        .unwrap();
    assert_eq!(permit.verb(), permit.into_parts());
}

#[test]
fn standard_input_of_one_call_is_bounded() {
    let policy = policy();
    let respond = |bytes| {
        policy.admit_execution(
            &alice(),
            ExecutionVerb::Respond { bytes },
            EXECUTION,
            Some(OWNER),
        )
    };
    assert!(respond(crate::MAX_STDIN_BYTES).is_ok());
    refused_as(
        respond(crate::MAX_STDIN_BYTES + 1),
        Reason::TooLarge,
        "data",
        "one byte more",
    );
}

#[test]
fn a_session_is_extended_up_to_the_maximum_and_never_shortened() {
    let policy = policy();
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    let day = 24 * 3600;
    let extend = |by: Duration, expires: u64, now: u64| {
        let times = SessionTimes {
            created_at: at(0),
            expires_at: at(expires),
            now: at(now),
        };
        policy
            .admit_extend(&alice(), SESSION, Some(OWNER), by, times)
            .map(|permit| permit.into_parts().1)
    };
    assert_eq!(extend(Duration::from_secs(60), 100, 50), Ok(at(160)));
    assert_eq!(extend(Duration::from_secs(2 * day), 100, 50), Ok(at(day)));
    assert_eq!(
        extend(Duration::MAX, 100, 50),
        Ok(at(day)),
        "an overflow is cut, too"
    );
    refused_as(
        extend(Duration::ZERO, 100, 50),
        Reason::InvalidArgument,
        "seconds",
        "nothing",
    );
    refused_as(
        extend(Duration::from_secs(1), day, 50),
        Reason::LimitReached,
        "seconds",
        "at the maximum",
    );
    refused_as(
        extend(Duration::from_secs(1), day + 100, 50),
        Reason::LimitReached,
        "seconds",
        "the maximum was lowered",
    );
    assert_eq!(
        refused(extend(Duration::from_secs(1), 100, 100), "over").reason,
        Reason::SessionExpired
    );
}

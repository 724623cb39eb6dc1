//! Role × action (P2a): who may do what, and that unknown and foreign look the same.

use std::{
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use model::{
    AnswerNetwork, AnsweredBy, CommandLine, CreateKey, CreateSession, ExecutionId, KeyView,
    NetworkRequest, NetworkTarget, Principal, ReadFile, Reason, RemoteCaller, RemoteKind, Scope,
    Scopes, TransferDirection, TransferFiles, WidenNetwork, WriteFile,
};

use super::fixture::*;
use crate::{ExecutionVerb, KeyVerb, PathFacts, Policy, SessionTimes, SessionVerb, SystemVerb};

/// A key's id.
const KEY: &str = "abcdefghij23";

const EXECUTION: ExecutionId = ExecutionId::from_bytes([9; 16]);

/// The verdict on every action, by name; `ok`, or the code.
fn verdicts(
    policy: &Policy,
    who: &Principal,
    owner: Option<&str>,
) -> Vec<(&'static str, &'static str)> {
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
    // Of a remote caller, a name.
    let project = match who.remote() {
        Some(_) => "app",
        None => PROJECT,
    };
    let plain = create(project);
    let networked = CreateSession {
        network: NetworkRequest {
            allow: vec![ALLOWED.parse().unwrap()],
            ..NetworkRequest::default()
        },
        ..plain.clone()
    };
    let create = |asked| code(policy.admit_create(who, asked, facts(policy, PROJECT, &[])));
    let key = |verb| code(policy.admit_key(who, KEY.parse().unwrap(), verb, Some(&lesser_key())));
    let new_key = CreateKey {
        name: "k".to_owned(),
        scopes: Scopes::NONE.with(Scope::Admin),
        roots: Vec::new(),
        max_sessions: None,
        calls_per_minute: None,
        valid_for: None,
    };
    let overlap = Duration::ZERO;
    let shell = CommandLine::Shell("ls".into());
    vec![
        ("session.create", create(&plain)),
        ("session.create with a network", create(&networked)),
        (
            "execution.start",
            code(policy.admit_command(who, &command(shell), owner)),
        ),
        (
            "prompt.start",
            code(policy.admit_prompt(who, &prompt(), owner)),
        ),
        (
            "files.transfer",
            code(policy.admit_transfer(who, &transfer, owner, Path::new(PROJECT))),
        ),
        (
            "files.write",
            code(policy.admit_write_file(who, &write_file(), owner)),
        ),
        (
            "files.read",
            code(policy.admit_read_file(who, &read_file(), owner)),
        ),
        (
            "session.extend",
            code(policy.admit_extend(who, SESSION, owner, Duration::from_secs(1), times)),
        ),
        ("session.widen_network, a person", widen(AnsweredBy::Person)),
        (
            "session.widen_network, the model",
            widen(AnsweredBy::Caller),
        ),
        (
            "session.answer_network yes, a person",
            wish(AnsweredBy::Person, true),
        ),
        (
            "session.answer_network no, a person",
            wish(AnsweredBy::Person, false),
        ),
        (
            "session.answer_network yes, the model",
            wish(AnsweredBy::Caller, true),
        ),
        (
            "session.answer_network no, the model",
            wish(AnsweredBy::Caller, false),
        ),
        ("session.read", session(SessionVerb::Read)),
        ("session.logs", session(SessionVerb::Logs)),
        ("session.transcript", session(SessionVerb::Transcript)),
        ("session.destroy", session(SessionVerb::Destroy)),
        ("execution.read", execution(ExecutionVerb::Read)),
        ("execution.cancel", execution(ExecutionVerb::Cancel)),
        (
            "execution.stdin",
            execution(ExecutionVerb::Respond { bytes: 1 }),
        ),
        ("execution.resize", execution(ExecutionVerb::Resize)),
        (
            "prompt.answer, a person",
            execution(ExecutionVerb::Answer(AnsweredBy::Person)),
        ),
        (
            "prompt.answer, the model",
            execution(ExecutionVerb::Answer(AnsweredBy::Caller)),
        ),
        (
            "session.list",
            match policy.admit_listing(who) {
                Ok(permit) if permit.owner().is_none() => "ok, of everybody",
                Ok(_) => "ok, own",
                Err(refusal) => refusal.reason.code(),
            },
        ),
        ("server.read", code(policy.admit_server_info(who))),
        ("key.create", code(policy.admit_new_key(who, &new_key, &[]))),
        ("key.rotate", key(KeyVerb::Rotate { overlap })),
        ("key.revoke", key(KeyVerb::Revoke)),
        ("key.list", code(policy.admit_key_list(who))),
        ("survey", code(policy.admit_system(who, SystemVerb::Survey))),
        (
            "session.adopt",
            code(policy.admit_system(who, SystemVerb::Adopt(SESSION))),
        ),
        (
            "session.reap",
            code(policy.admit_system(who, SystemVerb::Reap(SESSION))),
        ),
        (
            "session.remove_remains",
            code(policy.admit_system(who, SystemVerb::RemoveRemains(SESSION))),
        ),
    ]
}

fn code<T>(result: Result<T, model::Refusal>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(refusal) => refusal.reason.code(),
    }
}

fn write_file() -> WriteFile {
    WriteFile {
        session: SESSION,
        destination: "/workspace/x".into(),
        content: model::Secret::new(b"x".to_vec()),
        upload: None,
        offset: 0,
        is_last: true,
    }
}

fn read_file() -> ReadFile {
    ReadFile {
        session: SESSION,
        source: "/workspace/x".into(),
        download: None,
        offset: 0,
        length: 1,
    }
}

/// A key that may do no more than one with `admin` alone.
fn lesser_key() -> KeyView {
    KeyView {
        id: KEY.parse().unwrap(),
        identity: KEY.parse().unwrap(),
        name: "k".to_owned(),
        scopes: Scopes::NONE.with(Scope::Admin),
        roots: Vec::new(),
        max_sessions: None,
        calls_per_minute: None,
        created_at: UNIX_EPOCH,
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
        replaced_by: None,
    }
}

/// Every role: of the machine, of keys and tokens, of the server.
fn roles() -> Vec<(String, Principal)> {
    let stranger = Principal::LocalUser {
        uid: 0,
        roots: vec![OPERATOR_ROOT.into()],
    };
    let mut roles = vec![
        ("the server's user".to_owned(), alice()),
        ("another user".to_owned(), stranger),
    ];
    for scope in Scope::ALL {
        roles.push((format!("key, {scope}"), remote(Scopes::NONE.with(scope))));
    }
    roles.push(("key, all scopes".to_owned(), remote(Scopes::all())));
    roles.push(("key, no scope".to_owned(), remote(Scopes::NONE)));
    let mut token = remote(Scopes::known_of("openid sessions:read sessions:run"));
    if let Principal::Remote(caller) = &mut token {
        caller.name = "oauth:0123456789abcdef".to_owned();
        caller.kind = RemoteKind::AccessToken;
    }
    roles.push(("token, sessions:read sessions:run".to_owned(), token));
    roles.push(("the server itself".to_owned(), Principal::System));
    roles
}

/// P2a: role × action → decision, on the caller's own session, on somebody else's, and on none.
#[test]
fn the_role_table_is_as_recorded() {
    let policy = policy();
    let mut table = String::new();
    for (role, who) in roles() {
        let own = who.name();
        let [mine, theirs, none] =
            [Some(own.as_str()), Some("uid:77"), None].map(|owner| verdicts(&policy, &who, owner));
        table.push_str(&format!(
            "===== {role}\n{:<42}{:<24}{:<24}{}\n",
            "", "own", "foreign", "unknown"
        ));
        for ((action, mine), ((_, theirs), (_, none))) in
            mine.into_iter().zip(theirs.into_iter().zip(none))
        {
            // Who is no owner of what is asked learns nothing of whether it is there.
            assert!(
                theirs == none || theirs == "ok",
                "{role}: {action}: {theirs}, {none}"
            );
            table.push_str(&format!("{action:<42}{mine:<24}{theirs:<24}{none}\n"));
        }
    }
    insta::assert_snapshot!(table);
}

/// P2a: the scope that the model names for an action is the one that the decision asks for: with all others, it is refused.
#[test]
fn a_scope_that_is_missing_is_named_with_all_others_that_the_action_needs() {
    let policy = policy();
    let asked = CreateSession {
        network: NetworkRequest {
            presets: vec!["github".to_owned()],
            ..NetworkRequest::default()
        },
        ..create("app")
    };
    let admit = |scopes| {
        let facts = facts(&policy, PROJECT, &[]);
        policy.admit_create(&remote(scopes), &asked, facts)
    };
    for scopes in [
        Scopes::NONE,
        Scopes::NONE.with(Scope::SessionsRun),
        Scopes::NONE.with(Scope::Network).with(Scope::Admin),
    ] {
        let refusal = refused(admit(scopes), "a scope is missing");
        assert_eq!(refusal.reason, Reason::InsufficientScope);
        assert!(
            refusal.message.contains("`sessions:run network`"),
            "{refusal:?}"
        );
    }
    let action = model::Action::CreateSession(Box::new(asked.clone()));
    assert_eq!(action.scopes().unwrap().to_string(), "sessions:run network");
    let all = refused(admit(action.scopes().unwrap()), "no such preset");
    assert_eq!(all.reason, Reason::InvalidArgument, "past the scopes");
}

/// A remote caller names no path of the server's disk, and no refusal names one.
#[test]
fn a_remote_caller_names_projects_relative_to_its_roots_and_nothing_else() {
    let policy = policy();
    let who = remote(Scopes::all());
    let admit = |name: &str, found: PathFacts| {
        let facts = crate::CreateFacts {
            project: found,
            ..facts(&policy, PROJECT, &[])
        };
        policy.admit_create(&who, &create(name), facts)
    };
    let here = |path: &str| PathFacts::Directory(directory(path));
    for name in ["app", "./app", "app/", "app/sub", "."] {
        let permit = admit(name, here(PROJECT)).unwrap();
        assert_eq!(permit.parts().workspace.path, Path::new(PROJECT));
        assert_eq!(permit.parts().owner, REMOTE);
    }
    let not_there = [
        PathFacts::Missing,
        PathFacts::NotDirectory,
        PathFacts::Unreadable,
    ];
    let mut messages = std::collections::BTreeSet::new();
    for (name, found) in [
        ("/srv/code/app", here(PROJECT)),
        ("../app", here(PROJECT)),
        ("app/../../x", here(PROJECT)),
        ("", here(PROJECT)),
        ("app", here("/etc")),
        ("app", here("/home/alice/.ssh")),
        ("app", here("/srv/codex")),
        ("app", PathFacts::Ambiguous),
    ]
    .into_iter()
    .chain(not_there.map(|found| ("app", found)))
    {
        let refusal = refused_as(
            admit(name, found.clone()),
            Reason::PathNotAllowed,
            "projectPath",
            name,
        );
        for text in [&refusal.message, &refusal.hint] {
            for path in ["/srv", "/home", "/etc", "alice"] {
                assert!(!text.contains(path), "{text}");
            }
        }
        if name == "app" && found != PathFacts::Ambiguous {
            messages.insert(refusal.message);
        }
    }
    assert_eq!(
        messages.len(),
        1,
        "what is outside cannot be explored: {messages:?}"
    );
    // The operator's roots are for whoever sits at this machine.
    let elsewhere = Principal::Remote(Box::new(RemoteCaller {
        roots: vec!["/srv/team".into()],
        ..who.remote().unwrap().clone()
    }));
    let refusal = refused(
        policy.admit_create(&elsewhere, &create("app"), facts(&policy, PROJECT, &[])),
        "another root",
    );
    assert_eq!(refusal.reason, Reason::PathNotAllowed);
    let mounted = CreateSession {
        mounts: vec![model::MountRequest {
            host_path: "/srv/code/data".into(),
            container_path: "/data".into(),
            read_only: true,
        }],
        ..create("app")
    };
    let facts = facts(&policy, PROJECT, &["/srv/code/data"]);
    refused_as(
        policy.admit_create(&who, &mounted, facts),
        Reason::PolicyDenied,
        "mcpMounts",
        "a mount",
    );
}

/// A manager of keys elsewhere hands out nothing that it has not itself.
#[test]
fn admin_elsewhere_hands_out_no_more_than_it_has() {
    let policy = policy();
    let admin = remote(Scopes::NONE.with(Scope::Admin).with(Scope::Files));
    let asked = |scopes: &str, roots: &[&str]| CreateKey {
        name: "k".to_owned(),
        scopes: scopes.parse().unwrap(),
        roots: roots.iter().map(Into::into).collect(),
        max_sessions: None,
        calls_per_minute: None,
        valid_for: None,
    };
    let here = |path: &str| vec![PathFacts::Directory(directory(path))];
    let made = policy
        .admit_new_key(&admin, &asked("files admin", &["app"]), &here(PROJECT))
        .unwrap()
        .into_parts();
    assert_eq!(made.roots, [Path::new(PROJECT)]);
    let more = policy.admit_new_key(
        &admin,
        &asked("files sessions:run", &["app"]),
        &here(PROJECT),
    );
    assert_eq!(refused(more, "a scope more").reason, Reason::PolicyDenied);
    let path = policy.admit_new_key(&admin, &asked("files", &[PROJECT]), &here(PROJECT));
    refused_as(path, Reason::PathNotAllowed, "roots", "a path of the host");
    let greater = KeyView {
        scopes: Scopes::all(),
        ..lesser_key()
    };
    let overlap = Duration::ZERO;
    let rotate = |who: &Principal, key: Option<&KeyView>| {
        policy.admit_key(who, KEY.parse().unwrap(), KeyVerb::Rotate { overlap }, key)
    };
    assert_eq!(
        refused(rotate(&admin, Some(&greater)), "a greater key").reason,
        Reason::PolicyDenied
    );
    assert!(rotate(&alice(), Some(&greater)).is_ok());
    refused_as(
        rotate(&alice(), None),
        Reason::KeyNotFound,
        "keyId",
        "no key",
    );
    // The server's user: any directory that a session may have, and no other.
    let by_alice = |roots: &[&str], found: &[PathFacts]| {
        policy.admit_new_key(&alice(), &asked("sessions:run", roots), found)
    };
    assert!(by_alice(&["/data/x"], &here("/data/x")).is_ok());
    refused_as(
        by_alice(&["/etc"], &here("/etc")),
        Reason::PathForbidden,
        "roots",
        "/etc",
    );
    refused_as(
        by_alice(&["/nothing"], &[PathFacts::Missing]),
        Reason::PathNotFound,
        "roots",
        "missing",
    );
    refused_as(by_alice(&[], &[]), Reason::InvalidArgument, "roots", "none");
}

/// A remote caller carries content; by path it is refused, whatever the path.
#[test]
fn a_remote_caller_transfers_by_content_alone() {
    let policy = policy();
    let who = remote(Scopes::all());
    for (direction, field) in [
        (TransferDirection::ToContainer, "sourcePath"),
        (TransferDirection::FromContainer, "destPath"),
    ] {
        let asked = TransferFiles {
            session: SESSION,
            direction,
            source: "/workspace/x".into(),
            destination: "/workspace/x".into(),
        };
        let refusal = policy.admit_transfer(&who, &asked, Some(REMOTE), Path::new(PROJECT));
        refused_as(refusal, Reason::PathNotAllowed, field, "a path");
    }
    let write = |destination: &str, offset| {
        let asked = WriteFile {
            destination: destination.into(),
            offset,
            ..write_file()
        };
        policy.admit_write_file(&who, &asked, Some(REMOTE))
    };
    let parts = write("/workspace/x", 0).unwrap().into_parts();
    assert_eq!(
        (parts.owner.as_str(), parts.container.as_path()),
        (REMOTE, Path::new("/workspace/x"))
    );
    refused_as(
        write("/workspace/.git/hooks/x", 0),
        Reason::PathProtected,
        "destPath",
        "a hook",
    );
    refused_as(
        write("/etc/x", 0),
        Reason::PathNotAllowed,
        "destPath",
        "elsewhere inside",
    );
    refused_as(
        write("/tmp/x", crate::MAX_INLINE_FILE_BYTES),
        Reason::TooLarge,
        "content",
        "one byte more",
    );
    assert!(write("/tmp/x", crate::MAX_INLINE_FILE_BYTES - 1).is_ok());
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

//! Places and promises (D3): exact under a race, for the server, its callers, projects and what the machine has.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{fresh, session};
use store::{
    Bounds, Promise, Reserved, Resource, SessionChange, SessionRecord, Shortage, Store, Whose,
};

const GIB: u64 = 1 << 30;

fn of(caller: &str, project: &str) -> SessionRecord {
    SessionRecord {
        principal: caller.to_owned(),
        project_path: project.into(),
        promise: Promise {
            memory_bytes: 2 * GIB,
            cpu_millis: 2_000,
            disk_bytes: GIB,
        },
        ..session()
    }
}

fn full(of: Whose, live: u32, limit: u32) -> Reserved {
    Reserved::Short(Shortage::Sessions { of, live, limit })
}

#[test]
fn each_caller_and_each_project_has_a_bound_of_its_own() {
    let (_directory, store) = fresh();
    let bounds = Bounds {
        sessions_of_caller: Some(2),
        sessions_of_project: Some(3),
        ..Bounds::live(10)
    };
    let take = |caller, project| {
        store
            .reserve_session(&of(caller, project), &bounds)
            .unwrap()
    };
    assert_eq!(
        [take("a", "/p"), take("a", "/p")],
        [Reserved::New, Reserved::New]
    );
    assert_eq!(take("a", "/q"), full(Whose::Caller, 2, 2));
    assert_eq!(take("b", "/p"), Reserved::New, "another caller");
    assert_eq!(take("b", "/p"), full(Whose::Project, 3, 3));
    assert_eq!(take("b", "/p2"), Reserved::New, "another project");
}

#[test]
fn what_is_promised_never_exceeds_what_may_be_and_own_sessions_alone_are_named() {
    let bounded = |of: Resource| {
        let mut bounds = Bounds::live(100);
        match of {
            Resource::Memory => bounds.memory_bytes = Some(6 * GIB),
            Resource::Cpu => bounds.cpu_millis = Some(6_000),
            Resource::Disk => bounds.disk_bytes = Some(3 * GIB),
        }
        bounds
    };
    for resource in [Resource::Memory, Resource::Cpu, Resource::Disk] {
        let (_directory, store) = fresh();
        let bounds = bounded(resource);
        let (mine, theirs) = (of("mine", "/p"), of("theirs", "/p"));
        for record in [&mine, &theirs, &of("theirs", "/p")] {
            assert_eq!(
                store.reserve_session(record, &bounds).unwrap(),
                Reserved::New
            );
        }
        let Reserved::Short(Shortage::Resource {
            of: short,
            asked,
            promised,
            capacity,
            own,
        }) = store.reserve_session(&of("mine", "/p"), &bounds).unwrap()
        else {
            panic!("it had a place")
        };
        assert_eq!(
            (short, promised, capacity),
            (resource, 3 * asked, 3 * asked)
        );
        assert_eq!(own, [(mine.id, asked)]);
        // A session that ends gives back what it was promised.
        let ended = SessionChange {
            state: Some(model::SessionState::Destroyed),
            ..SessionChange::default()
        };
        assert!(
            store
                .update_session(theirs.id, &[model::SessionState::Creating], &ended)
                .unwrap()
        );
        assert_eq!(
            store.reserve_session(&of("mine", "/p"), &bounds).unwrap(),
            Reserved::New
        );
    }
}

#[test]
fn of_a_hundred_racing_callers_as_many_get_a_place_as_every_bound_has() {
    for (bounds, places) in [
        (
            Bounds {
                memory_bytes: Some(20 * GIB + 1),
                ..Bounds::live(100)
            },
            10,
        ),
        (
            Bounds {
                sessions_of_caller: Some(3),
                ..Bounds::live(100)
            },
            12,
        ),
        (
            Bounds {
                sessions_of_project: Some(7),
                ..Bounds::live(100)
            },
            7,
        ),
        (Bounds::live(10), 10),
    ] {
        let (_directory, store) = fresh();
        let places_taken: usize = std::thread::scope(|scope| {
            let (store, bounds) = (&store, &bounds);
            let racers: Vec<_> = (0..100)
                .map(|racer| {
                    let caller = format!("caller {}", racer % 4);
                    scope.spawn(move || {
                        let outcome = store.reserve_session(&of(&caller, "/p"), bounds).unwrap();
                        usize::from(outcome == Reserved::New)
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).sum()
        });
        assert_eq!(places_taken, places, "{bounds:?}");
    }
}

/// As the schema before left it: what sessions are promised stands in their spec alone.
#[test]
fn sessions_of_an_earlier_program_keep_their_promise() {
    let (directory, store) = fresh();
    let (finished, unfinished) = (of("a", "/p"), of("a", "/p"));
    for record in [&finished, &unfinished] {
        store.reserve_session(record, &Bounds::live(9)).unwrap();
    }
    let spec = r#"{"limits":{"memory_bytes":{"value":5,"named":false},"cpu_millis":{"value":6,"named":true},
        "state_bytes":{"value":7,"named":false}}}"#;
    let change = SessionChange {
        spec: Some(spec.into()),
        ..SessionChange::default()
    };
    assert!(
        store
            .update_session(finished.id, &model::SessionState::ALL, &change)
            .unwrap()
    );
    drop(store);
    let path = directory.path().join("state.db");
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(
            "DROP TABLE api_keys; ALTER TABLE sessions DROP COLUMN memory_bytes; ALTER TABLE sessions DROP COLUMN cpu_millis; \
             ALTER TABLE sessions DROP COLUMN disk_bytes; PRAGMA user_version = 3;",
        )
        .unwrap();
    let (store, opened) = Store::open(&path).unwrap();
    assert!(opened.quarantined.is_none());
    let promise = |id| store.session(id).unwrap().unwrap().promise;
    assert_eq!(
        promise(finished.id),
        Promise {
            memory_bytes: 5,
            cpu_millis: 6,
            disk_bytes: 7
        }
    );
    assert_eq!(promise(unfinished.id), Promise::default());
}

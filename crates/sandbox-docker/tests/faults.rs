//! Engines that are missing, hang, are too old, go away; creations that fail in the middle; servers that die.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking and say what they skip"
)]

mod support;

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use bollard::{
    models::ContainerCreateBody,
    query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptions},
};
use model::{OwnerId, ProtectedPath, Protection, RootFileSystem, SessionId};
use sandbox::{Backend, BackendError, Listed};
use sandbox_docker::{Docker, DockerConfig};
use support::{Fault, Filter, Ground, IMAGE, Inside, Scene, engine, protected, small_spec};

/// What the issue promises, and a little for a busy machine.
const PATIENCE: Duration = Duration::from_millis(5_500);
/// An uid that no account of the machine has.
const STRANGER: u32 = 54_321;
const AS_USER: &str = "SANDBOX_DOCKER_TEST_AS_USER";
/// The socket of an engine that a user may speak to.
const ENGINE_FOR_USER: &str = "SANDBOX_DOCKER_TEST_ENGINE_FOR_USER";

fn backend(directory: &Path) -> Docker {
    let mut config = DockerConfig::new(directory.join("state"), OwnerId::from_bytes([7; 8]));
    config.docker_host = Some(format!(
        "unix://{}",
        directory.join("engine.sock").display()
    ));
    Docker::open(config).unwrap()
}

/// A socket at which every connection is answered by `answer`.
fn fake_engine(directory: &Path, answer: fn(UnixStream)) {
    let listener = UnixListener::bind(directory.join("engine.sock")).unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || answer(client));
        }
    });
}

/// The error that every verb gives, and its words; within the time.
async fn refusal(docker: &Docker) -> (String, String) {
    let begin = Instant::now();
    let listing = docker.list().await.err().unwrap();
    let asking = docker.capability().await.err().unwrap();
    assert!(begin.elapsed() < 2 * PATIENCE, "{:?}", begin.elapsed());
    assert_eq!(listing.to_string(), asking.to_string());
    if let BackendError::Unavailable { why, remedy } = listing {
        (why, remedy)
    } else {
        panic!("{listing:?}")
    }
}

#[tokio::test]
async fn a_missing_engine_is_named_and_may_come_later() {
    let directory = tempfile::tempdir().unwrap();
    let docker = backend(directory.path());
    let (why, remedy) = refusal(&docker).await;
    assert!(
        why.contains("no engine at") && remedy.contains("install"),
        "{why}; {remedy}"
    );
    if support::without_engine("a_missing_engine_may_come_later").await {
        return;
    }
    let _filter = Filter::start(&directory.path().join("engine.sock"));
    docker.capability().await.unwrap();
    assert_eq!(docker.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_stopped_engine_is_told_from_a_missing_one() {
    let directory = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(directory.path().join("engine.sock")).unwrap());
    let (why, remedy) = refusal(&backend(directory.path())).await;
    assert!(
        why.contains("restarting") && remedy.contains("try again"),
        "{why}; {remedy}"
    );
}

#[tokio::test]
async fn a_hanging_engine_is_left_in_time() {
    let directory = tempfile::tempdir().unwrap();
    fake_engine(directory.path(), |client| {
        thread::sleep(Duration::from_secs(60));
        drop(client);
    });
    let (why, remedy) = refusal(&backend(directory.path())).await;
    assert!(
        why.contains("no answer within 5s") && remedy.contains("restart"),
        "{why}; {remedy}"
    );
}

#[tokio::test]
async fn an_engine_that_breaks_off_may_be_restarting() {
    let directory = tempfile::tempdir().unwrap();
    fake_engine(directory.path(), |mut client| {
        let _ = client.read(&mut [0; 1024]);
    });
    let (why, remedy) = refusal(&backend(directory.path())).await;
    assert!(
        why.contains("restarting") && remedy.contains("try again"),
        "{why}; {remedy}"
    );
}

#[tokio::test]
async fn an_old_engine_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fake_engine(directory.path(), |mut client| {
        let _ = client.read(&mut [0; 1024]);
        let body = r#"{"ApiVersion":"1.40","Version":"19.03"}"#;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
        let _ = write!(client, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
    });
    let (why, remedy) = refusal(&backend(directory.path())).await;
    assert!(
        why.contains("1.40") && why.contains("1.41") && remedy.contains("20.10"),
        "{why}; {remedy}"
    );
}

#[tokio::test]
async fn who_may_not_speak_to_the_engine_is_told() {
    let test = "who_may_not_speak_to_the_engine_is_told";
    if std::env::var_os(AS_USER).is_none() && rustix::process::geteuid().is_root() {
        let status = as_stranger(test).env(AS_USER, "1").status().unwrap();
        assert!(status.success());
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("engine.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o000)).unwrap();
    let (why, remedy) = refusal(&backend(directory.path())).await;
    assert!(
        why.contains("may not speak") && remedy.contains("as good as root"),
        "{why}; {remedy}"
    );
}

#[tokio::test]
async fn a_creation_that_fails_anywhere_leaves_nothing() {
    let Some(ground) = Ground::new("a_creation_that_fails").await else {
        return;
    };
    let broken = [
        (("GET", "/images/{name}/json"), Fault::Refused),
        (("POST", "/containers/create"), Fault::Refused),
        (("POST", "/containers/create"), Fault::Unheard),
        (("POST", "/containers/{id}/start"), Fault::Refused),
        (("POST", "/containers/{id}/start"), Fault::Unheard),
    ];
    for (call, fault) in broken {
        ground.docker.capability().await.unwrap();
        ground.filter.break_call(Some((call, fault)));
        let mut spec = ground.spec();
        spec.protected = vec![protected(".envrc", Protection::Masked { directory: false })];
        let failed = ground.docker.create(&spec).await;
        assert!(failed.is_err(), "{call:?} {fault:?}");
        ground.filter.break_call(None);
        ground.is_clean().await;
        assert!(
            !ground.project().join(".envrc").exists(),
            "{call:?} {fault:?}"
        );
    }
    ground.start().await.destroy().await;
}

/// Where frames travel over the standard streams, one more call can fail.
#[tokio::test]
async fn a_creation_whose_streams_cannot_be_had_leaves_nothing() {
    let leg = "a_creation_whose_streams_cannot_be_had";
    let Some(ground) = Ground::at(Scene::Attached, leg).await else {
        return;
    };
    let attaching = ("POST", "/containers/{id}/attach");
    ground.filter.break_call(Some((attaching, Fault::Refused)));
    let mut spec = ground.spec();
    spec.protected = vec![protected(".envrc", Protection::Masked { directory: false })];
    assert!(ground.docker.create(&spec).await.is_err());
    ground.filter.break_call(None);
    ground.is_clean().await;
    assert!(!ground.project().join(".envrc").exists());
    ground.start().await.destroy().await;
}

/// The steps on the host, each at the point where it can go wrong.
#[tokio::test]
async fn a_creation_that_fails_on_the_host_leaves_nothing() {
    let Some(ground) = Ground::new("a_creation_that_fails_on_the_host").await else {
        return;
    };
    let project = ground.project();
    fs::write(project.join("taken"), "the user's").unwrap();
    let masked = |path: &str| protected(path, Protection::Masked { directory: false });
    let faults: [(&str, Vec<ProtectedPath>); 3] = [
        (
            "a place that is taken",
            vec![masked(".envrc"), masked("taken")],
        ),
        (
            "what was there is gone",
            vec![protected("gone", Protection::ReadOnly), masked(".envrc")],
        ),
        (
            "a mount that cannot be made",
            vec![protected("gone", Protection::Pinned), masked(".envrc")],
        ),
    ];
    for (what, paths) in faults {
        let mut spec = ground.spec();
        spec.protected = paths;
        let failed = ground.docker.create(&spec).await.err().unwrap();
        let gone = matches!(failed, BackendError::ProtectedGone { .. });
        let changed = matches!(failed, BackendError::PathChanged { .. });
        assert!(gone || changed, "{what}: {failed:?}");
        assert_eq!(gone, what == "what was there is gone", "{failed:?}");
        ground.is_clean().await;
        assert!(!project.join(".envrc").exists(), "{what}");
    }
    assert_eq!(fs::read(project.join("taken")).unwrap(), b"the user's");
    ground.start().await.destroy().await;
}

#[tokio::test]
async fn a_creation_with_a_silent_engine_is_over_in_time_and_undone_afterwards() {
    let Some(ground) = Ground::new("a_creation_with_a_silent_engine").await else {
        return;
    };
    ground.docker.capability().await.unwrap();
    let starting = ("POST", "/containers/{id}/start");
    let silence = Duration::from_secs(60);
    ground
        .filter
        .break_call(Some((starting, Fault::Silent(silence))));
    // Silent from now on to all that undoing needs, too.
    let spec = ground.spec();
    let begin = Instant::now();
    let creating = ground.docker.create(&spec);
    let silencing = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let looking = ("GET", "/containers/{id}/json");
        let fault = Fault::Silent(Duration::from_secs(3));
        ground.filter.break_call(Some((looking, fault)));
    };
    let (created, ()) = tokio::join!(creating, silencing);
    assert!(created.is_err());
    let elapsed = begin.elapsed();
    assert!(elapsed < PATIENCE + Duration::from_secs(1), "{elapsed:?}");
    ground.filter.break_call(None);
    ground.docker.destroy(spec.session).await.unwrap();
    ground.is_clean().await;
}

#[tokio::test]
async fn a_container_that_the_engine_makes_after_nobody_waits_for_it_is_removed() {
    let Some(ground) = Ground::new("a_container_that_the_engine_makes_late").await else {
        return;
    };
    ground.docker.capability().await.unwrap();
    let creating = ("POST", "/containers/create");
    let late = Fault::Late(Duration::from_secs(1));
    ground.filter.break_call(Some((creating, late)));
    let spec = ground.spec();
    assert!(ground.docker.create(&spec).await.is_err());
    let exists = async || {
        let listed = ground.docker.list().await.unwrap();
        listed.iter().any(|listed| listed.session == spec.session)
    };
    let (begin, mut came) = (Instant::now(), false);
    loop {
        let is_there = exists().await;
        if came && !is_there {
            break;
        }
        came |= is_there;
        assert!(begin.elapsed() < 4 * PATIENCE, "came: {came}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ground.is_clean().await;
}

#[tokio::test]
async fn a_creation_that_cannot_be_undone_is_listed_and_removed_later() {
    let Some(ground) = Ground::new("a_creation_that_cannot_be_undone").await else {
        return;
    };
    let looking = ("GET", "/containers/{id}/json");
    ground.filter.break_call(Some((looking, Fault::Refused)));
    let mut spec = ground.spec();
    spec.protected = vec![protected(".envrc", Protection::Masked { directory: false })];
    assert!(ground.docker.create(&spec).await.is_err());
    let left = Listed {
        session: spec.session,
        running: true,
    };
    assert_eq!(ground.docker.list().await.unwrap(), [left]);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let sessions = ground.directory.path().join("state/docker/sessions");
    assert!(
        !mounts.contains(sessions.to_str().unwrap()),
        "the project stays mounted on the host while the engine does not answer"
    );
    ground.filter.break_call(None);
    ground.docker.destroy(spec.session).await.unwrap();
    assert!(!ground.project().join(".envrc").exists());
    ground.is_clean().await;
}

#[tokio::test]
async fn a_server_that_is_not_roots_is_refused_with_a_reason() {
    let test = "a_server_that_is_not_roots_is_refused_with_a_reason";
    if let Some(socket) = std::env::var_os(ENGINE_FOR_USER) {
        return refused_as_a_user(Path::new(&socket)).await;
    }
    let Some(ground) = Ground::new(test).await else {
        return;
    };
    let socket = &ground.filter.socket;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o666)).unwrap();
    let status = as_stranger(test).env(ENGINE_FOR_USER, socket).status();
    assert!(status.unwrap().success());
    ground.is_clean().await;
}

async fn refused_as_a_user(socket: &Path) {
    let directory = tempfile::tempdir().unwrap();
    let owner = OwnerId::from_bytes([9; 8]);
    let mut config = DockerConfig::new(directory.path().join("state"), owner);
    config.docker_host = Some(format!("unix://{}", socket.display()));
    let docker = Docker::open(config).unwrap();
    let capability = docker.capability().await.unwrap();
    let said = |words: &str| {
        capability
            .advice
            .iter()
            .any(|one| one.missing.contains(words))
    };
    assert!(said("no session can be made"), "{capability:?}");
    let root = RootFileSystem::Image(IMAGE.to_owned());
    let refused = docker
        .create(&small_spec(owner, root, directory.path()))
        .await;
    let refused = refused.err().unwrap();
    assert!(
        matches!(refused, BackendError::EngineUnfit { .. }),
        "{refused:?}"
    );
    assert_eq!(docker.list().await.unwrap(), []);
}

/// This test program again, as a user without any rights.
fn as_stranger(test: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([
            &format!("--reuid={STRANGER}"),
            &format!("--regid={STRANGER}"),
            "--clear-groups",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env_remove("TMPDIR")
        .current_dir("/");
    command
}

#[tokio::test]
async fn a_removal_that_fails_goes_on_later() {
    let Some(ground) = Ground::new("a_removal_that_fails").await else {
        return;
    };
    let running = ground.start().await;
    ground
        .filter
        .break_call(Some((("DELETE", "/containers/{id}"), Fault::Refused)));
    let session = running.spec.session;
    assert!(ground.docker.destroy(session).await.is_err());
    let still = Listed {
        session,
        running: true,
    };
    assert_eq!(ground.docker.list().await.unwrap(), [still]);
    ground.filter.break_call(None);
    running.destroy().await;
}

#[tokio::test]
async fn somebody_elses_container_of_the_name_is_left_alone() {
    let Some(ground) = Ground::new("somebody_elses_container").await else {
        return;
    };
    let spec = ground.spec();
    let name = spec.session.object_name(&ground.owner);
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        ..ContainerCreateBody::default()
    };
    let theirs = engine()
        .create_container(Some(options), body)
        .await
        .unwrap();
    let refused = ground.docker.create(&spec).await.err().unwrap();
    assert!(
        matches!(refused, BackendError::AlreadyExists),
        "{refused:?}"
    );
    ground.docker.destroy(spec.session).await.unwrap();
    assert_eq!(ground.docker.list().await.unwrap(), []);
    // It is still there to be removed.
    engine()
        .remove_container(&theirs.id, None::<RemoveContainerOptions>)
        .await
        .unwrap();
    ground.is_clean().await;
}

#[tokio::test]
async fn a_later_server_finds_and_ends_what_an_earlier_one_left() {
    let Some(ground) = Ground::new("a_later_server").await else {
        return;
    };
    let mut spec = ground.spec();
    spec.protected = vec![protected(".envrc", Protection::Masked { directory: false })];
    drop(ground.docker.create(&spec).await.unwrap());
    let half = half_made(&ground);
    let later = Docker::open(ground.config.clone()).unwrap();
    let mut listed = later.list().await.unwrap();
    listed.sort_by_key(|found| found.running);
    let wanted =
        [(half, false), (spec.session, true)].map(|(session, running)| Listed { session, running });
    assert_eq!(listed, wanted);
    let mut link = later.connect(spec.session).await.unwrap();
    let mut inside = Inside::greet(link.connections.recv().await.unwrap()).await;
    assert_eq!(inside.shell("echo alive").await, (0, "alive\n".to_owned()));
    fs::write(ground.project().join("precious"), "kept").unwrap();
    for session in [half, spec.session] {
        later.destroy(session).await.unwrap();
    }
    assert_eq!(
        fs::read_to_string(ground.project().join("precious")).unwrap(),
        "kept"
    );
    assert!(!ground.project().join(".envrc").exists());
    ground.is_clean().await;
}

/// What a server leaves that is killed between its mounts and its container.
fn half_made(ground: &Ground) -> SessionId {
    let session = SessionId::random().unwrap();
    let sessions = ground.directory.path().join("state/docker/sessions");
    let staged = sessions.join(session.to_string()).join("staging/workspace");
    fs::create_dir_all(&staged).unwrap();
    for target in [staged.clone(), staged.join("below")] {
        fs::create_dir_all(&target).unwrap();
        let mounted = Command::new("mount")
            .arg("--bind")
            .args([&ground.project(), &target])
            .status();
        assert!(mounted.unwrap().success());
    }
    assert_eq!(
        fs::metadata(&staged).unwrap().ino(),
        fs::metadata(ground.project()).unwrap().ino()
    );
    session
}

#[tokio::test]
async fn destroying_takes_half_a_second_at_most() {
    let Some(ground) = Ground::new("destroying_takes").await else {
        return;
    };
    let mut times = Vec::new();
    for paused in [false, false, true] {
        let running = ground.start().await;
        if paused {
            ground.docker.pause(running.spec.session).await.unwrap();
            ground.docker.pause(running.spec.session).await.unwrap();
        }
        let begin = Instant::now();
        ground.docker.destroy(running.spec.session).await.unwrap();
        times.push(begin.elapsed());
        drop(running);
        ground.is_clean().await;
    }
    eprintln!("destroying: {times:?}");
    times.sort_unstable();
    assert!(times[1] <= Duration::from_millis(500), "{times:?}");
}

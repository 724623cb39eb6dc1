//! Engines that are not simply at the machine's socket: behind TLS, on another host, mapping ids, rootless. Each refusal
//! beside something of the same kind that goes through.

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
    net::{TcpListener, TcpStream},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use model::{Layer, Requirement};
use rustix::mount::{UnmountFlags, unmount};
use sandbox::{Backend, BackendError, HostView, verify};
use sandbox_docker::{Docker, DockerConfig, Tcp};
use support::{
    Authority, For, Ground, OwnEngine, Running, Scene,
    world::{self, Apart},
};

/// What is promised for an engine that cannot be spoken to, and a little for a busy machine.
const PATIENCE: Duration = Duration::from_millis(5_500);
const TLS_HOST: &str = "tcp://127.0.0.1:2376";

fn over_tls(config: &mut DockerConfig, certificates: &Path) {
    config.docker_host = Some(TLS_HOST.to_owned());
    config.tcp = Tcp {
        tls_verify: true,
        certificates: Some(certificates.to_owned()),
        dangerously_plain_on_loopback: false,
    };
}

/// A new directory in there.
fn made(base: &Path, name: &str) -> PathBuf {
    let path = base.join(name);
    fs::create_dir(&path).unwrap();
    path
}

/// A copy of some files in a new directory, modes kept.
fn copied(from: &Path, names: &[&str], to: &Path) {
    for name in names {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

/// Why the engine cannot be spoken to, and what to do; within the time.
async fn refusal(config: &DockerConfig) -> String {
    let begin = Instant::now();
    let asked = Docker::open(config.clone()).unwrap().capability().await;
    assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
    match asked {
        Err(BackendError::Unavailable { why, remedy }) => {
            assert!(!remedy.is_empty(), "{why}");
            eprintln!("{why}; {remedy}");
            format!("{why}; {remedy}")
        }
        other => panic!("{other:?}"),
    }
}

/// Everything that a session is, read back: all layers that are offered, from inside, from outside and from the engine.
async fn is_hardened(running: &mut Running<'_>) {
    let ground = running.ground;
    let outside = ground.docker.inspect(running.spec.session).await.unwrap();
    let offered = ground.docker.capability().await.unwrap().layers;
    let mut spec = running.spec.clone();
    spec.layers = offered
        .iter()
        .map(|layer| (*layer, Requirement::Required))
        .collect();
    let view = HostView::read().unwrap();
    verify(&spec, &running.inside.attestation, &outside, &view).unwrap();
    // The control of the verdict: against itself as the host no namespace is its own.
    let mut itself = view;
    itself.namespaces = running.inside.attestation.namespaces;
    spec.layers = vec![(Layer::PidNamespace, Requirement::Required)];
    assert!(verify(&spec, &running.inside.attestation, &outside, &itself).is_err());
}

#[tokio::test]
async fn an_engine_behind_tls_on_this_host_works_like_the_one_at_the_socket() {
    let leg = "an_engine_behind_tls_on_this_host_works_like_the_one_at_the_socket";
    if !world::is_inside(leg) {
        return;
    }
    let certificates = tempfile::tempdir().unwrap();
    Authority::equip(certificates.path());
    let scene = Scene::Own(OwnEngine::with_tls(Apart::Not, certificates.path()));
    let mut ground = Ground::at(scene, leg).await.unwrap();
    for attached in [false, true] {
        ground.reopen(|config| {
            over_tls(config, certificates.path());
            config.attached_streams = attached;
        });
        let capability = ground.docker.capability().await.unwrap();
        assert_eq!(capability.posture, "docker-rootful");
        assert!(capability.rung.ends_with(", over TLS"), "{capability:?}");
        let mut running = ground.start().await;
        assert_eq!(running.output("echo $((6 * 7))").await, "42\n");
        is_hardened(&mut running).await;
        running.destroy().await;
    }
    assert!(ground.filter.made().is_empty(), "it went by the socket");
}

#[tokio::test]
async fn whoever_cannot_be_believed_is_refused_in_time_with_what_to_do() {
    let leg = "whoever_cannot_be_believed_is_refused_in_time_with_what_to_do";
    if !world::is_inside(leg) {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let right = made(base.path(), "right");
    let authority = Authority::equip(&right);
    let mut engine = OwnEngine::with_tls(Apart::Not, &right);
    let mut config = DockerConfig::new(
        base.path().join("state"),
        model::OwnerId::from_bytes([3; 8]),
    );
    let with = |config: &mut DockerConfig, certificates: &Path| over_tls(config, certificates);
    with(&mut config, &right);
    let answers = |config: &DockerConfig| Docker::open(config.clone()).unwrap();
    answers(&config).capability().await.unwrap();

    // Another authority than the engine's.
    let other = made(base.path(), "other-authority");
    copied(&right, &["cert.pem", "key.pem"], &other);
    Authority::new().write(&other);
    with(&mut config, &other);
    let said = refusal(&config).await;
    assert!(
        said.contains("was not signed by the authority in") && said.contains("ca.pem"),
        "{said}"
    );

    // A client's certificate that the engine's authority did not sign; one that has expired; none.
    let stranger = made(base.path(), "stranger");
    copied(&right, &["ca.pem"], &stranger);
    Authority::new().sign(&stranger, For::Client, false);
    with(&mut config, &stranger);
    let said = refusal(&config).await;
    assert!(
        said.contains("does not take our certificate") && said.contains("tlscacert"),
        "{said}"
    );
    authority.sign(&stranger, For::Client, true);
    let said = refusal(&config).await;
    assert!(said.contains("does not take our certificate"), "{said}");
    fs::remove_file(stranger.join("cert.pem")).unwrap();
    let said = refusal(&config).await;
    assert!(
        said.contains("cert.pem cannot be read") && said.contains("DOCKER_CERT_PATH"),
        "{said}"
    );

    // What others may read, change or own.
    let open = made(base.path(), "open");
    copied(&right, &["ca.pem", "cert.pem", "key.pem"], &open);
    with(&mut config, &open);
    for (name, mode, remedy) in [
        ("key.pem", 0o640, "chmod go-rwx"),
        ("key.pem", 0o604, "chmod go-rwx"),
        ("ca.pem", 0o664, "chmod go-w"),
        ("cert.pem", 0o646, "chmod go-w"),
    ] {
        let path = open.join(name);
        let usual = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let said = refusal(&config).await;
        assert!(
            said.contains(&format!("{mode:03o}")) && said.contains(remedy),
            "{said}"
        );
        fs::set_permissions(&path, usual).unwrap();
    }
    chown(open.join("ca.pem"), Some(54_321), None).unwrap();
    let said = refusal(&config).await;
    assert!(said.contains("belongs to user 54321"), "{said}");
    chown(open.join("ca.pem"), Some(0), None).unwrap();
    answers(&config).capability().await.unwrap();
    fs::write(open.join("key.pem"), "no key").unwrap();
    let said = refusal(&config).await;
    assert!(said.contains("key.pem cannot be used"), "{said}");

    // Nobody listens there; nobody there speaks TLS; somebody takes the connection and says nothing.
    with(&mut config, &right);
    config.docker_host = Some("tcp://127.0.0.1:2999".to_owned());
    let said = refusal(&config).await;
    assert!(
        said.contains("no way to the engine") && said.contains("2376"),
        "{said}"
    );
    config.docker_host = Some("tcp://no-such-host.invalid:2376".to_owned());
    let said = refusal(&config).await;
    assert!(said.contains("no way to the engine"), "{said}");
    config.docker_host = Some(answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let said = refusal(&config).await;
    assert!(
        said.contains("does not speak TLS") && said.contains("tlsverify"),
        "{said}"
    );
    config.docker_host = Some(answering(b""));
    let said = refusal(&config).await;
    assert!(
        said.contains("no answer within 5s") && said.contains("firewall"),
        "{said}"
    );

    // The engine's own certificate: expired, for another name; and the right one again.
    with(&mut config, &right);
    authority.sign(&right, For::Engine, true);
    engine.restart_with_tls(&right);
    let said = refusal(&config).await;
    assert!(
        said.contains("has expired") && said.contains("clock"),
        "{said}"
    );
    authority.sign(&right, For::EngineCalled("elsewhere.example"), false);
    engine.restart_with_tls(&right);
    let said = refusal(&config).await;
    assert!(
        said.contains("is for another name") && said.contains("subjectAltName"),
        "{said}"
    );
    authority.sign(&right, For::Engine, false);
    engine.restart_with_tls(&right);
    answers(&config).capability().await.unwrap();
}

/// Something that takes connections, says that, and waits.
fn answering(words: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = client.write_all(words);
                let _ = client.read_to_end(&mut Vec::new());
            });
        }
    });
    format!("tcp://{address}")
}

#[tokio::test]
async fn plain_tcp_is_refused_and_on_loopback_dangerously_accepted() {
    let leg = "plain_tcp_is_refused_and_on_loopback_dangerously_accepted";
    let Some(mut ground) = Ground::new(leg).await else {
        return;
    };
    let host = relay(ground.filter.socket.clone());
    let mut plain = ground.config.clone();
    plain.docker_host = Some(host.clone());
    let Err(BackendError::Unavailable { why, remedy }) = Docker::open(plain) else {
        panic!("spoken to")
    };
    assert!(
        why.contains("root") && remedy.contains("DOCKER_TLS_VERIFY"),
        "{why}; {remedy}"
    );
    ground.reopen(|config| {
        config.docker_host = Some(host);
        config.tcp.dangerously_plain_on_loopback = true;
    });
    let capability = ground.docker.capability().await.unwrap();
    assert!(
        capability.rung.ends_with("plain TCP on loopback"),
        "{capability:?}"
    );
    let mut running = ground.start().await;
    assert_eq!(running.output("echo fine").await, "fine\n");
    is_hardened(&mut running).await;
    running.destroy().await;
}

/// A port of loopback that leads to that socket.
fn relay(socket: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let engine = UnixStream::connect(&socket).unwrap();
            pass_both_ways(client, engine);
        }
    });
    format!("tcp://{address}")
}

fn pass_both_ways(client: TcpStream, engine: UnixStream) {
    let (mut from, mut to) = (client.try_clone().unwrap(), engine.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    thread::spawn(move || {
        let (mut client, mut engine) = (client, engine);
        let _ = std::io::copy(&mut engine, &mut client);
        let _ = client.shutdown(std::net::Shutdown::Write);
    });
}

#[tokio::test]
async fn files_on_an_engine_that_maps_ids_come_back_owned_by_their_owner() {
    let leg = "files_on_an_engine_that_maps_ids_come_back_owned_by_their_owner";
    if !world::is_inside(leg) {
        return;
    }
    let scene = Scene::Own(OwnEngine::remapped());
    let ground = Ground::at(scene, leg).await.unwrap();
    chown(ground.project(), Some(4242), Some(4343)).unwrap();
    let mut running = ground.start().await;
    running
        .output("echo mine > /workspace/made && echo kept > /state/file")
        .await;
    let made = fs::metadata(ground.project().join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (4242, 4343));
    is_hardened(&mut running).await;
    // What is uid 1000 inside is nobody's on the host.
    let state = ground.directory.path().join("state/docker/sessions");
    let state = state
        .join(running.spec.session.to_string())
        .join("state/file");
    assert_eq!(fs::metadata(state).unwrap().uid(), world::FIRST_ID + 1000);
    running.destroy().await;
}

/// What a session is refused with, and that nothing of it is left.
async fn refused_without_a_trace(ground: &Ground) -> BackendError {
    let refused = ground.docker.create(&ground.spec()).await.err().unwrap();
    eprintln!("{refused}");
    ground.is_clean().await;
    assert_eq!(ground.docker.list().await.unwrap(), []);
    refused
}

fn mount(arguments: &[&str]) {
    let status = std::process::Command::new("mount").args(arguments).status();
    assert!(status.unwrap().success(), "{arguments:?}");
}

#[tokio::test]
async fn an_engine_elsewhere_is_told_before_anything_is_made_and_carries_no_session() {
    let leg = "an_engine_elsewhere_is_told_before_anything_is_made_and_carries_no_session";
    if !world::is_inside(leg) {
        return;
    }
    let certificates = tempfile::tempdir().unwrap();
    Authority::equip(certificates.path());
    let mut engine = OwnEngine::with_tls(Apart::Mounts, certificates.path());
    // After the engine was started: what is there is this host's, and not the engine's.
    let aside = tempfile::tempdir().unwrap();
    let (theirs, aside) = (engine.directory.path().to_str().unwrap(), aside.path());
    mount(&["--bind", theirs, aside.to_str().unwrap()]);
    mount(&["-t", "tmpfs", "tmpfs", "/var/tmp"]);
    engine.socket = aside.join("docker.sock");
    let mut ground = Ground::at(Scene::Own(engine), leg).await.unwrap();
    ground.reopen(|config| over_tls(config, certificates.path()));
    let capability = ground.docker.capability().await.unwrap();
    assert_eq!(capability.posture, "docker-remote");
    let mut advice = capability.advice.iter();
    assert!(
        advice.any(|one| one.missing.contains("not on this host")),
        "{capability:?}"
    );
    let refused = refused_without_a_trace(&ground).await;
    assert!(
        matches!(refused, BackendError::EngineElsewhere { .. }),
        "{refused:?}"
    );
    // So that the engine's own directory can be removed.
    unmount("/var/tmp", UnmountFlags::DETACH).unwrap();
    drop(ground);
    unmount(aside, UnmountFlags::DETACH).unwrap();
}

#[tokio::test]
async fn an_engine_that_sees_files_but_shares_neither_mounts_nor_processes_is_found_out() {
    let leg = "an_engine_that_sees_files_but_shares_neither_mounts_nor_processes_is_found_out";
    if !world::is_inside(leg) {
        return;
    }
    mount(&["--make-rshared", "/"]);
    for (apart, why) in [
        (Apart::Mounts, "does not see the mounts"),
        (Apart::Processes, "no processes of this host"),
    ] {
        let scene = Scene::Own(OwnEngine::start(apart));
        let ground = Ground::at(scene, leg).await.unwrap();
        // It sees the files: so far it may be here.
        let capability = ground.docker.capability().await.unwrap();
        assert_eq!(capability.posture, "docker-rootful", "{apart:?}");
        let refused = refused_without_a_trace(&ground).await;
        assert!(
            matches!(&refused, BackendError::EngineElsewhere { why: said } if said.contains(why)),
            "{apart:?}: {refused:?}"
        );
    }
    // The control: with nothing between them a session is made.
    let scene = Scene::Own(OwnEngine::start(Apart::Not));
    let ground = Ground::at(scene, leg).await.unwrap();
    ground.start().await.destroy().await;
}

#[tokio::test]
async fn a_rootless_engine_is_refused_with_a_reason() {
    let leg = "a_rootless_engine_is_refused_with_a_reason";
    if !world::is_inside(leg) {
        return;
    }
    let engine = OwnEngine::start(Apart::Rootless);
    let base = tempfile::tempdir_in("/var/tmp").unwrap();
    let owner = model::OwnerId::from_bytes([5; 8]);
    let mut config = DockerConfig::new(base.path().join("state"), owner);
    config.docker_host = Some(format!("unix://{}", engine.socket.display()));
    let docker = Docker::open(config).unwrap();
    let capability = docker.capability().await.unwrap();
    assert_eq!(capability.posture, "docker-rootless");
    assert!(capability.rung.contains("rootless"), "{capability:?}");
    let root = model::RootFileSystem::Image("none:1".to_owned());
    let spec = support::small_spec(owner, root, base.path());
    let refused = docker.create(&spec).await.err().unwrap();
    assert!(
        matches!(&refused, BackendError::EngineUnfit { why, remedy }
            if why.contains("rootless") && remedy.contains("native backend")),
        "{refused:?}"
    );
    assert_eq!(docker.list().await.unwrap(), []);
}

//! An engine of a test's own, in a directory of its own, that may be stopped and started without anybody else's noticing.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bollard::query_parameters::ImportImageOptions;
use futures::{StreamExt, TryStreamExt};
use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, kill_process},
};

use crate::support::{
    engine::ask,
    image::{HOSTILE_CHANGES, IMAGE, engine, make_image, without_engine},
    skip, until,
};

/// How long a daemon may take to listen.
const START: Duration = Duration::from_secs(20);

/// What becomes of the containers while the engine is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Containers {
    /// They live on (`--live-restore`).
    LiveOn,
    /// The engine ends them when it ends.
    EndWithIt,
}

pub struct OwnEngine {
    directory: PathBuf,
    containers: Containers,
    daemon: Option<Child>,
}

impl OwnEngine {
    /// Starts one below that directory and gives it the test's image; `None`, said loudly, where that cannot be done.
    pub fn start(base: &Path, containers: Containers, leg: &str) -> Option<Self> {
        if ask(without_engine(leg)) {
            return None;
        }
        ask(make_image(IMAGE, HOSTILE_CHANGES));
        let driver = ask(async { engine().info().await }).ok()?.driver?;
        let directory = base.join("engine");
        fs::create_dir(&directory).expect("a directory");
        let settings = serde_json::json!({ "storage-driver": driver, "shutdown-timeout": 1 });
        fs::write(directory.join("daemon.json"), settings.to_string()).expect("its settings");
        let mut own = OwnEngine {
            directory,
            containers,
            daemon: None,
        };
        if let Err(why) = own.begin() {
            skip("docker", &format!("{leg}: no engine of its own: {why}"));
            return None;
        }
        own.load_image();
        Some(own)
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("docker.sock")
    }

    /// Starts the daemon, and waits until it answers.
    ///
    /// # Errors
    /// When there is no such program, or it ends, or it does not answer: what it said last.
    pub fn begin(&mut self) -> Result<(), String> {
        let at = |name: &str| self.directory.join(name).display().to_string();
        let log =
            fs::File::create(self.directory.join("log")).map_err(|error| error.to_string())?;
        // In a network namespace of its own: one without a bridge begins by deleting `docker0`, whoever made it.
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--", "dockerd"])
            .args([
                "--config-file",
                &at("daemon.json"),
                "--data-root",
                &at("data"),
            ])
            .args(["--exec-root", &at("exec"), "--pidfile", &at("pid")])
            .arg(format!("--host=unix://{}", self.socket().display()))
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if self.containers == Containers::LiveOn {
            command.arg("--live-restore");
        }
        let mut daemon = command
            .spawn()
            .map_err(|error| format!("dockerd: {error}"))?;
        let deadline = Instant::now() + START;
        while !self.answers() {
            let ended = daemon.try_wait().is_ok_and(|ended| ended.is_some());
            if ended || Instant::now() >= deadline {
                let _ = daemon.kill();
                let _ = daemon.wait();
                let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                return Err(log.lines().last().unwrap_or("it said nothing").to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Ends the daemon as a service manager does, and waits for it.
    pub fn stop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        let pid = Pid::from_child(&daemon);
        kill_process(pid, Signal::TERM).expect("told to end");
        until("the engine has ended", || {
            daemon.try_wait().is_ok_and(|ended| ended.is_some())
        });
        assert!(
            UnixStream::connect(self.socket()).is_err(),
            "somebody else listens"
        );
    }

    fn answers(&self) -> bool {
        self.socket().exists() && ask(async { self.client().ping().await.is_ok() })
    }

    fn client(&self) -> bollard::Docker {
        let version = bollard::ClientVersion {
            major_version: 1,
            minor_version: 41,
        };
        let socket = self.socket().display().to_string();
        bollard::Docker::connect_with_unix(&socket, 60, &version).expect("a client")
    }

    fn load_image(&self) {
        ask(async {
            let chunks: Vec<_> = engine()
                .export_image(IMAGE)
                .try_collect()
                .await
                .expect("the image");
            let body = bollard::body_full(chunks.concat().into());
            let own = self.client();
            let mut progress =
                Box::pin(own.import_image(ImportImageOptions::default(), body, None));
            while let Some(step) = progress.next().await {
                step.expect("loaded");
            }
        });
    }

    /// States of all containers, by name.
    pub fn containers(&self) -> Vec<String> {
        let options = bollard::query_parameters::ListContainersOptionsBuilder::new()
            .all(true)
            .build();
        let found = ask(async { self.client().list_containers(Some(options)).await });
        let states = found.expect("the engine answers").into_iter();
        states
            .map(|one| format!("{:?} {:?}", one.names, one.state))
            .collect()
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        if self.daemon.is_some() || self.begin().is_ok() {
            let own = self.client();
            let remove = async {
                let options = bollard::query_parameters::ListContainersOptionsBuilder::new()
                    .all(true)
                    .build();
                let found = own.list_containers(Some(options)).await.unwrap_or_default();
                for id in found.into_iter().filter_map(|one| one.id) {
                    let force = bollard::query_parameters::RemoveContainerOptionsBuilder::new()
                        .force(true)
                        .build();
                    let _ = own.remove_container(&id, Some(force)).await;
                }
            };
            ask(remove);
        }
        if let Some(mut daemon) = self.daemon.take() {
            let _ = kill_process(Pid::from_child(&daemon), Signal::TERM);
            let _ = daemon.wait();
        }
        // It mounts its directory over itself.
        let _ = unmount(self.directory.join("data"), UnmountFlags::DETACH);
    }
}

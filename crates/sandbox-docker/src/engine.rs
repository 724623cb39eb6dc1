//! The only place that speaks to the engine. Every call is on the list in [`crate::calls`] and has a time limit; what goes
//! wrong becomes an error that says what to do.

mod images;

use std::{
    collections::HashMap, error::Error as StdError, future::Future, io, path::Path, time::Duration,
};

use bollard::{
    ClientVersion,
    container::LogOutput,
    errors::Error,
    models::{
        ContainerCreateBody, ContainerInspectResponse, ContainerSummary, HostConfig, ImageInspect,
        Mount, MountType, SystemInfo, SystemVersion,
    },
    query_parameters::{
        AttachContainerOptionsBuilder, CreateContainerOptions, CreateContainerOptionsBuilder,
        InspectContainerOptions, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
        StartContainerOptions,
    },
};
use futures::StreamExt;
pub(crate) use images::Pulse;
use sandbox::{BackendError, carrier::Streams};
use tokio::{sync::OnceCell, time::timeout};
use tokio_util::io::StreamReader;

use crate::{
    address::Address,
    creation::blocking,
    host_config::supervisor_program,
    transport::{self, Identity, plain_client},
};

/// Longest answer that is waited for: a container starts within half a second, on a busy machine within two.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// The client's own limit, seconds: ours comes first, and says more.
const CLIENT_LIMIT_S: u64 = 10;
/// The newest version of the API that this was written against.
const NEWEST: ClientVersion = version(43);
/// The oldest one with all that is needed: that of Docker 20.10.
const OLDEST: ClientVersion = version(41);

const fn version(minor: usize) -> ClientVersion {
    ClientVersion {
        major_version: 1,
        minor_version: minor,
    }
}

/// The engine at an address. It need not be there yet, and may go and come back.
pub(crate) struct Engine {
    address: Address,
    client: OnceCell<bollard::Docker>,
}

impl Engine {
    /// Does not ask anything yet.
    pub fn new(address: Address) -> Self {
        Engine {
            address,
            client: OnceCell::new(),
        }
    }

    /// How it is reached, for people; nothing for a socket, which is the usual.
    pub fn transport(&self) -> Option<&'static str> {
        self.address.transport()
    }

    /// What the engine is and can.
    pub async fn info(&self) -> Result<SystemInfo, BackendError> {
        let client = self.client().await?;
        self.call("asking what it can", client.info()).await
    }

    /// Its version, and those of its parts.
    pub async fn version(&self) -> Result<SystemVersion, BackendError> {
        let client = self.client().await?;
        self.call("asking for its version", client.version()).await
    }

    /// The image of that name or id; `None` when there is none.
    pub async fn image(&self, name: &str) -> Result<Option<ImageInspect>, BackendError> {
        let client = self.client().await?;
        self.found("looking for the image", client.inspect_image(name))
            .await
    }

    /// Makes a container; its id.
    ///
    /// # Errors
    /// [`BackendError::AlreadyExists`] when there is one of that name.
    pub async fn create(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<String, BackendError> {
        let client = self.client().await?;
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let doing = "creating the container";
        match self
            .ask(doing, client.create_container(Some(options), body))
            .await?
        {
            Ok(made) => Ok(made.id),
            Err(error) if status(&error) == Some(409) => Err(BackendError::AlreadyExists),
            // They were made right before.
            Err(error) if misses_source(&error) => {
                Err(elsewhere("it does not see the directories of this host"))
            }
            Err(error) => Err(self.explain(doing, error)),
        }
    }

    /// Whether it sees that directory of this host: asks for a container with it, of an image that there is not. An engine
    /// looks at mounts before it looks for the image (Docker 20.10 to 29), so nothing is ever made.
    pub async fn sees(&self, directory: &Path, nonce: [u8; 32]) -> Result<Sight, BackendError> {
        let client = self.client().await?;
        let mount = Mount {
            target: Some("/here".to_owned()),
            source: Some(directory.to_string_lossy().into_owned()),
            typ: Some(MountType::BIND),
            read_only: Some(true),
            ..Mount::default()
        };
        let body = ContainerCreateBody {
            image: Some(format!("sha256:{}", hex::encode(nonce))),
            host_config: Some(HostConfig {
                mounts: Some(vec![mount]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let doing = "asking whether it is on this host";
        match self
            .ask(
                doing,
                client.create_container(None::<CreateContainerOptions>, body),
            )
            .await?
        {
            Err(error) if misses_source(&error) => Ok(Sight::Missing),
            Err(error) if status(&error) == Some(404) => Ok(Sight::There),
            // What no engine says that is one: nothing is proved.
            Err(Error::DockerResponseServerError { .. } | Error::JsonDataError { .. }) | Ok(_) => {
                Ok(Sight::Unknown)
            }
            Err(error) => Err(self.explain(doing, error)),
        }
    }

    /// Starts a container.
    pub async fn start(&self, id: &str) -> Result<(), BackendError> {
        let client = self.client().await?;
        let doing = "starting the container";
        match self
            .ask(
                doing,
                client.start_container(id, None::<StartContainerOptions>),
            )
            .await?
        {
            Ok(()) => Ok(()),
            Err(error) if misses_program(&error) => Err(elsewhere(
                "it does not see the mounts that this server makes",
            )),
            Err(error) => Err(self.explain(doing, error)),
        }
    }

    /// The standard streams of a container's first process, started or not. What it wrote before is gone.
    pub async fn attach(&self, id: &str) -> Result<Streams, BackendError> {
        let client = self.client().await?;
        let options = AttachContainerOptionsBuilder::new()
            .stream(true)
            .stdin(true)
            .stdout(true)
            .build();
        let attached = self
            .call(
                "attaching to the container",
                client.attach_container(id, Some(options)),
            )
            .await?;
        let output = attached.output.filter_map(|item| async move {
            match item {
                Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => {
                    Some(Ok(message))
                }
                Ok(LogOutput::StdErr { .. } | LogOutput::StdIn { .. }) => None,
                Err(error) => Some(Err(io::Error::other(error))),
            }
        });
        Ok(Streams {
            input: Box::new(attached.input),
            output: Box::new(StreamReader::new(Box::pin(output))),
        })
    }

    /// The container of that name or id; `None` when there is none.
    pub async fn container(
        &self,
        name: &str,
    ) -> Result<Option<ContainerInspectResponse>, BackendError> {
        let client = self.client().await?;
        self.found(
            "looking at the container",
            client.inspect_container(name, None::<InspectContainerOptions>),
        )
        .await
    }

    /// All containers with that label, dead ones included.
    pub async fn containers(&self, label: &str) -> Result<Vec<ContainerSummary>, BackendError> {
        let client = self.client().await?;
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        self.call("listing containers", client.list_containers(Some(options)))
            .await
    }

    /// Stops all processes of a container where they stand.
    pub async fn pause(&self, id: &str) -> Result<(), BackendError> {
        let client = self.client().await?;
        self.call("pausing the container", client.pause_container(id))
            .await
    }

    /// Lets them go on.
    pub async fn resume(&self, id: &str) -> Result<(), BackendError> {
        let client = self.client().await?;
        self.call("resuming the container", client.unpause_container(id))
            .await
    }

    /// Kills a container and removes it. Success also when somebody else did.
    pub async fn remove(&self, id: &str) -> Result<(), BackendError> {
        let client = self.client().await?;
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        let doing = "removing the container";
        match self
            .ask(doing, client.remove_container(id, Some(options)))
            .await?
        {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            Err(error) => Err(self.explain(doing, error)),
        }
    }

    /// Asks for the engine's version first, and again until it answers.
    async fn client(&self) -> Result<&bollard::Docker, BackendError> {
        self.client.get_or_try_init(|| self.negotiate()).await
    }

    async fn negotiate(&self) -> Result<bollard::Docker, BackendError> {
        let doing = "asking for its version";
        let client = self.connect(CLIENT_LIMIT_S, &NEWEST).await?;
        let client = self.call(doing, client.negotiate_version()).await?;
        let spoken = client.client_version();
        if spoken < OLDEST {
            return Err(BackendError::Unavailable {
                why: format!(
                    "the engine speaks version {spoken} of the API, and {OLDEST} is needed"
                ),
                remedy: "install Docker 20.10 or later".to_owned(),
            });
        }
        Ok(client)
    }

    /// A client with that time limit of its own, seconds. It connects with each call.
    async fn connect(
        &self,
        limit_s: u64,
        version: &ClientVersion,
    ) -> Result<bollard::Docker, BackendError> {
        let client = match &self.address {
            Address::Unix(socket) => {
                let socket = socket.to_string_lossy();
                bollard::Docker::connect_with_unix(&socket, limit_s, version)
            }
            Address::Tls {
                authority,
                certificates,
            } => {
                let certificates = certificates.clone();
                let identity = blocking(move || Identity::read(&certificates)).await?;
                identity.client(authority, limit_s, version)
            }
            Address::Plain { authority } => plain_client(authority, limit_s, version),
        };
        client.map_err(|error| self.explain("connecting", error))
    }

    async fn found<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<Option<T>, BackendError> {
        match self.ask(doing, call).await? {
            Ok(found) => Ok(Some(found)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(self.explain(doing, error)),
        }
    }

    async fn call<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, BackendError> {
        self.ask(doing, call)
            .await?
            .map_err(|error| self.explain(doing, error))
    }

    async fn ask<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, BackendError> {
        timeout(CALL_LIMIT, call)
            .await
            .map_err(|_| self.silent(doing))
    }

    fn silent(&self, doing: &str) -> BackendError {
        BackendError::Unavailable {
            why: format!("the engine gives no answer within {CALL_LIMIT:?} while {doing}"),
            remedy: match &self.address {
                Address::Unix(_) => {
                    "see whether `docker info` answers; if not, restart the engine".to_owned()
                }
                Address::Tls { .. } | Address::Plain { .. } => format!(
                    "see whether anything listens at {} and whether a firewall is on the way; if not, restart the engine",
                    self.address
                ),
            },
        }
    }

    fn explain(&self, doing: &str, error: Error) -> BackendError {
        let address = &self.address;
        let unavailable = |why: String, remedy: &str| BackendError::Unavailable {
            why,
            remedy: remedy.to_owned(),
        };
        if let Some((why, remedy)) = self.explain_tls(&error) {
            return BackendError::Unavailable { why, remedy };
        }
        if matches!(error, Error::SocketNotFoundError(_)) {
            return self.missing();
        }
        if matches!(error, Error::RequestTimeoutError) {
            return self.silent(doing);
        }
        if status(&error).is_none() && is_broken_off(&error) {
            return unavailable(
                format!("the engine at {address} broke off while {doing}: it may be restarting"),
                "try again in a few seconds; if that does not help, look at the engine's log",
            );
        }
        match (io_kind(&error), address) {
            (Some(io::ErrorKind::PermissionDenied), Address::Unix(_)) => unavailable(
                format!("this user may not speak to the engine at {address}"),
                "use the native backend, which needs neither an engine nor root; or run the server as root. Membership of \
                 the group `docker` is as good as root, and a rootless engine carries no sessions",
            ),
            (Some(io::ErrorKind::NotFound), Address::Unix(_)) => self.missing(),
            (Some(io::ErrorKind::ConnectionRefused), Address::Unix(_)) => unavailable(
                format!("no engine listens at {address}: it has stopped or is restarting"),
                "systemctl start docker, or try again in a few seconds",
            ),
            (_, Address::Tls { .. } | Address::Plain { .. }) if is_unconnected(&error) => {
                unavailable(
                    format!(
                        "there is no way to the engine at {address}: {}",
                        last(&error)
                    ),
                    "see whether the host and the port are right (2376 is the usual one with TLS), whether the engine listens \
                 there (`hosts` in its daemon.json), and whether a firewall is on the way",
                )
            }
            _ => BackendError::Step {
                step: format!("finish {doing}"),
                source: io::Error::other(error),
            },
        }
    }

    fn explain_tls(&self, error: &Error) -> Option<(String, String)> {
        let Address::Tls { certificates, .. } = &self.address else {
            return None;
        };
        transport::explain(error, &self.address.to_string(), certificates)
    }

    fn missing(&self) -> BackendError {
        BackendError::Unavailable {
            why: format!("there is no engine at {}", self.address),
            remedy: "install and start Docker, set DOCKER_HOST, or use the native backend"
                .to_owned(),
        }
    }
}

/// What an engine says of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It is there.
    There,
    /// It is not.
    Missing,
    /// It says something else.
    Unknown,
}

/// The refusal of everything that needs a host's directories.
pub(crate) fn elsewhere(why: &str) -> BackendError {
    BackendError::EngineElsewhere {
        why: why.to_owned(),
    }
}

/// The engine says that what is to be mounted does not exist.
fn misses_source(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 400, message }
        if message.contains("bind source path does not exist"))
}

/// The engine says that there is no supervisor's program to run, which is in a mount of ours: it found the empty directory
/// below.
fn misses_program(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { message, .. }
        if message.contains(&format!("exec: \"{}\"", supervisor_program())))
}

fn status(error: &Error) -> Option<u16> {
    if let Error::DockerResponseServerError { status_code, .. } = error {
        Some(*status_code)
    } else {
        None
    }
}

/// All errors on the way to the root of it.
fn chain<'error>(error: &'error Error) -> impl Iterator<Item = &'error (dyn StdError + 'static)> {
    let first: &'error (dyn StdError + 'static) = error;
    std::iter::successors(Some(first), |error| {
        let error: &'error (dyn StdError + 'static) = *error;
        error.source()
    })
}

/// The root of it.
fn last(error: &Error) -> String {
    chain(error)
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// There was no connection to begin with.
fn is_unconnected(error: &Error) -> bool {
    chain(error)
        .filter_map(|error| error.downcast_ref::<hyper_util::client::legacy::Error>())
        .any(hyper_util::client::legacy::Error::is_connect)
}

fn io_kind(error: &Error) -> Option<io::ErrorKind> {
    chain(error).find_map(|error| Some(error.downcast_ref::<io::Error>()?.kind()))
}

fn is_broken_off(error: &Error) -> bool {
    let kinds = [
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::UnexpectedEof,
    ];
    let words = [
        "connection closed before message completed",
        "connection reset",
    ];
    io_kind(error).is_some_and(|kind| kinds.contains(&kind))
        || chain(error).any(|error| words.iter().any(|word| error.to_string().contains(word)))
}

//! The sockets of the door, and what its connections share.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use control::Road;
use mcp::HttpService;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    body::Bodies,
    challenge::Challenges,
    connection,
    metadata::Metadata,
    names::Names,
    oauth::{OAuthError, Tokens},
    peer::Peer,
    places::{Place, Places},
    settings::{Listen, Settings, SettingsError},
    tls::{self, Tls, TlsError},
};

/// Pause after a failed accept: out of descriptors, most likely, and not for long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Mode of a unix socket: whoever may connect is asked for a token all the same.
const SOCKET_MODE: u32 = 0o600;

/// Why a door is not open.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// It must not be, with these settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// No certificate.
    #[error("the HTTP door has no certificate")]
    Tls(#[from] TlsError),
    /// No way to an issuer.
    #[error("access tokens cannot be checked")]
    OAuth(#[from] OAuthError),
    /// The address is taken, or not ours.
    #[error("cannot listen on {0}")]
    Listen(Listen, #[source] io::Error),
    /// Something else stands where the socket is to be made.
    #[error("{} is there already, and is no socket that was left behind", .0.display())]
    InTheWay(PathBuf),
}

impl DoorError {
    /// The file that it is about.
    pub fn path(&self) -> Option<&Path> {
        match self {
            DoorError::Tls(error) => error.path(),
            DoorError::InTheWay(path) => Some(path),
            DoorError::Settings(_) | DoorError::OAuth(_) | DoorError::Listen(..) => None,
        }
    }
}

/// A door that is open, and that nobody is let in by yet.
pub struct Door {
    settings: Settings,
    listener: Listener,
    tls: Option<Tls>,
    tokens: Option<Tokens>,
}

enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix {
        listener: UnixListener,
        /// Held for what its drop does.
        _socket: Socket,
    },
}

/// A socket in the file system, which goes when the door does.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_file(&self.0);
    }
}

/// What every request needs.
pub(crate) struct Inside {
    pub(crate) settings: Settings,
    pub(crate) names: Names,
    pub(crate) challenges: Challenges,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) bodies: Bodies,
    pub(crate) tokens: Option<Tokens>,
    pub(crate) road: Arc<dyn Road>,
    pub(crate) service: HttpService,
}

impl Door {
    /// Opens it; `has_keys`: somebody has a key. Clients that connect wait until [`Door::serve`].
    ///
    /// # Errors
    /// See [`DoorError`].
    pub async fn open(settings: Settings, has_keys: bool) -> Result<Self, DoorError> {
        settings.check(has_keys)?;
        let tls = settings.tls.clone().map(Tls::new).transpose()?;
        let tokens = settings.oauth.as_ref().map(Tokens::new).transpose()?;
        let failed = |error| DoorError::Listen(settings.listen.clone(), error);
        let listener = match &settings.listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                Listener::Tcp(listener, address)
            }
            Listen::Unix(path) => {
                clear(path).await?;
                let listener = UnixListener::bind(path).map_err(failed)?;
                let mode = std::fs::Permissions::from_mode(SOCKET_MODE);
                std::fs::set_permissions(path, mode).map_err(failed)?;
                Listener::Unix {
                    listener,
                    _socket: Socket(path.clone()),
                }
            }
        };
        Ok(Door {
            settings,
            listener,
            tls,
            tokens,
        })
    }

    /// Whether the files that these settings name can be used; opens nothing.
    ///
    /// # Errors
    /// [`DoorError::Tls`].
    pub fn check_files(settings: &Settings) -> Result<(), DoorError> {
        settings.tls.as_ref().map_or(Ok(()), tls::check)?;
        Ok(())
    }

    /// Where clients find it.
    pub fn url(&self) -> String {
        match &self.listener {
            Listener::Tcp(_, address) if self.tls.is_some() => format!("https://{address}/mcp"),
            Listener::Tcp(_, address) => format!("http://{address}/mcp"),
            Listener::Unix { .. } => format!("{}, path /mcp", self.settings.listen),
        }
    }

    /// The address that it listens on; none of a unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(_, address) => Some(*address),
            Listener::Unix { .. } => None,
        }
    }

    /// Lets clients in until `stop`. Then nobody is, what is under way is answered (`service` must know of `stop`, too, so
    /// that waits end), and what is not answered within [`crate::Limits::drain_time`] is cut off.
    pub async fn serve(self, road: Arc<dyn Road>, service: HttpService, stop: CancellationToken) {
        let Door {
            settings,
            listener,
            tls,
            tokens,
        } = self;
        let port = match &listener {
            Listener::Tcp(_, address) => address.port(),
            Listener::Unix { .. } => 0,
        };
        let metadata = settings.oauth.as_ref().map(Metadata::new);
        let inside = Arc::new(Inside {
            names: Names::new(&settings, port),
            challenges: Challenges::new(metadata.as_ref()),
            metadata,
            bodies: Bodies::new(&settings.limits),
            tokens,
            road,
            service,
            settings,
        });
        let limits = inside.settings.limits.clone();
        let house = House {
            places: Places::new(limits.connections, limits.connections_of_one),
            tls: tls.as_ref(),
            tasks: TaskTracker::new(),
            cut: CancellationToken::new(),
            stop: stop.clone(),
            inside,
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = house.accept(&listener) => {}
            () = house.keep_certificate() => {}
        }
        drop(listener);
        house.tasks.close();
        if timeout(limits.drain_time, house.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(open = house.tasks.len(), "connections by HTTP were cut off");
            house.cut.cancel();
        }
    }
}

/// A door that lets clients in.
struct House<'a> {
    inside: Arc<Inside>,
    places: Arc<Places>,
    tls: Option<&'a Tls>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Cuts off whatever is still open.
    cut: CancellationToken,
}

impl House<'_> {
    /// Runs until it is dropped.
    async fn accept(&self, listener: &Listener) {
        loop {
            let accepted = match listener {
                Listener::Tcp(listener, _) => listener
                    .accept()
                    .await
                    .map(|(stream, from)| self.tcp(stream, from)),
                Listener::Unix { listener, .. } => {
                    listener.accept().await.map(|(stream, _)| self.unix(stream))
                }
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "cannot accept a connection by HTTP");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    /// Runs until it is dropped.
    async fn keep_certificate(&self) {
        match self.tls {
            Some(tls) => tls.keep_current(self.stop.clone()).await,
            None => std::future::pending().await,
        }
    }

    fn tcp(&self, stream: TcpStream, from: SocketAddr) {
        let proxies = &self.inside.settings.proxies;
        let peer = Peer::tcp(from.ip(), proxies);
        let (is_proxy, address) = match peer {
            Peer::Tcp { address, is_proxy } => (is_proxy, address),
            Peer::Unix => return,
        };
        if self.is_in_the_clear() && !is_proxy && !address.is_loopback() {
            return tracing::debug!(
                "refused a connection that comes in the clear and from no proxy"
            );
        }
        let Some(place) = self.places.take((!is_proxy).then_some(address)) else {
            return tracing::debug!("refused a connection: there are too many");
        };
        // Answers are small and written whole.
        let _slower_without = stream.set_nodelay(true);
        match self.tls.map(Tls::acceptor) {
            None => self.spawn(place, |inside, stop| {
                connection::serve(stream, peer, inside, stop)
            }),
            Some(acceptor) => self.spawn(place, |inside, stop| async move {
                let patience = inside.settings.limits.tls_time;
                match timeout(patience, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => connection::serve(stream, peer, inside, stop).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a client did not come to TLS"),
                    Err(_elapsed) => tracing::debug!("a client took too long for TLS"),
                }
            }),
        }
    }

    /// Behind a proxy without TLS of our own only the proxy, and this machine, are let in.
    fn is_in_the_clear(&self) -> bool {
        self.tls.is_none()
    }

    fn unix(&self, stream: UnixStream) {
        let own = rustix::process::geteuid().as_raw();
        match stream.peer_cred() {
            Ok(peer) if [0, own].contains(&peer.uid()) => {}
            Ok(peer) => {
                return tracing::warn!(uid = peer.uid(), "refused a connection of another user");
            }
            Err(error) => {
                return tracing::warn!(%error, "refused a connection whose peer is not known");
            }
        }
        let Some(place) = self.places.take(None) else {
            return tracing::debug!("refused a connection: there are too many");
        };
        self.spawn(place, |inside, stop| {
            connection::serve(stream, Peer::Unix, inside, stop)
        });
    }

    fn spawn<F>(&self, place: Place, serve: impl FnOnce(Arc<Inside>, CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let serving = serve(Arc::clone(&self.inside), self.stop.clone());
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            // Given back only when the connection is gone.
            let _place = place;
            let _cut_off = cut.run_until_cancelled(serving).await;
        });
    }
}

/// Takes away a socket that a server left which was killed: one on which nobody answers.
async fn clear(path: &Path) -> Result<(), DoorError> {
    let Ok(found) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    let is_left = found.file_type().is_socket() && UnixStream::connect(path).await.is_err();
    let removed = is_left && std::fs::remove_file(path).is_ok();
    removed
        .then_some(())
        .ok_or_else(|| DoorError::InTheWay(path.to_owned()))
}

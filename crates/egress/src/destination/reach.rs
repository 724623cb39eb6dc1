//! The way to a host: its name is resolved once, every answer is judged, and a judged address is what is dialed. Nothing resolves
//! the name again on the way, so a name that changes its answers changes nothing.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use model::NamedRule;
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};

use super::{
    address::AddressClass,
    denial::{Denial, Unresolved},
    dial::{self, Connect},
    name::HostName,
    own::OwnAddresses,
    pins::Pins,
    ports::is_guarded_port,
    resolve::Resolve,
};

/// Names that one session looks up at a time, so that slow ones of its choice do not take everybody's places.
const MAX_LOOKUPS: usize = 4;

/// Addresses of one name that are tried.
const MAX_DIALED: usize = 8;

/// Times of one session.
#[derive(Debug, Clone, Copy)]
pub struct ReachLimits {
    /// How long resolving may take: a little more than one repetition of the system's resolver (5 s by default).
    pub resolve: Duration,
    /// How long connecting may take, over all addresses of a name.
    pub connect: Duration,
    /// How long a name keeps the addresses that it was judged by.
    pub pin: Duration,
}

impl Default for ReachLimits {
    fn default() -> Self {
        ReachLimits {
            resolve: Duration::from_secs(8),
            connect: Duration::from_secs(10),
            pin: Duration::from_secs(300),
        }
    }
}

/// A connection, and the address that was judged and dialed for it.
#[derive(Debug)]
pub struct Dialled {
    /// The connection.
    pub stream: TcpStream,
    /// Where it leads.
    pub address: SocketAddr,
}

/// The ways of one session.
pub struct Reach {
    resolver: Arc<dyn Resolve>,
    own_addresses: OwnAddresses,
    connect: Arc<Connect>,
    limits: ReachLimits,
    lookups: Semaphore,
    pins: Pins,
}

impl Reach {
    /// For one session; the resolver is everybody's.
    pub fn new(resolver: Arc<dyn Resolve>, limits: ReachLimits) -> Reach {
        Reach {
            resolver,
            own_addresses: OwnAddresses::of_this_machine(),
            connect: Arc::new(dial::connect),
            lookups: Semaphore::new(MAX_LOOKUPS),
            pins: Pins::new(limits.pin),
            limits,
        }
    }

    /// Connects to a host at a port, by a rule that [`RuleSet::find`](super::RuleSet::find) gave for them.
    ///
    /// # Errors
    /// `resolution_failed`; `private_address` if a single one of the answers is no public address (unless the rule is
    /// `private`, and then still for those that no rule opens); `connection_failed`. A rule for something else is refused as by
    /// [`RuleSet::find`](super::RuleSet::find).
    pub async fn dial(
        &self,
        host: &HostName,
        port: u16,
        rule: &NamedRule,
    ) -> Result<Dialled, Denial> {
        fits(host, port, rule)?;
        let addresses = match self.pins.find(host) {
            Some(pinned) => pinned,
            None => self.resolve(host).await?,
        };
        self.judge(host, &addresses, rule.rule.private)?;
        self.pins.keep(host, &addresses);
        let connected = self.connect(in_turn(&addresses, port)).await;
        connected.map_err(|error| {
            // The host may have moved.
            self.pins.forget(host);
            Denial::ConnectionFailed {
                host: host.clone(),
                port,
                why: error.kind(),
            }
        })
    }

    async fn resolve(&self, host: &HostName) -> Result<Vec<IpAddr>, Denial> {
        let failed = |why| Denial::ResolutionFailed {
            host: host.clone(),
            why,
        };
        let asking = async {
            let _place = self.lookups.acquire().await.map_err(io::Error::other)?;
            self.resolver.resolve(host).await
        };
        let found = timeout(self.limits.resolve, asking)
            .await
            .map_err(|_| failed(Unresolved::NoAnswer))?
            .map_err(|error| failed(unresolved(host, &error)))?;
        match found.is_empty() {
            true => Err(failed(Unresolved::NoSuchName)),
            false => Ok(found),
        }
    }

    /// One address that may not be reached refuses the name: a name with a public and a private answer is how rebinding
    /// begins. This is asked for every connection, of pinned addresses too: rules and the machine's addresses change.
    fn judge(&self, host: &HostName, addresses: &[IpAddr], private: bool) -> Result<(), Denial> {
        let own = match private {
            true => None,
            false => Some(self.own_addresses.now().map_err(|_| {
                Denial::Internal("the addresses of the server's machine cannot be read")
            })?),
        };
        let is_own = |address| own.as_ref().is_some_and(|own| own.contains(address));
        let forbidden = addresses.iter().find_map(|address| {
            let own_machine = || is_own(address).then_some(AddressClass::OwnMachine);
            let class = AddressClass::of(*address).or_else(own_machine)?;
            (!private || !class.opens_by_private()).then_some((*address, class))
        });
        match forbidden {
            None => Ok(()),
            Some((address, class)) => Err(Denial::PrivateAddress {
                host: host.clone(),
                class,
                address,
            }),
        }
    }

    async fn connect(&self, targets: Vec<SocketAddr>) -> io::Result<Dialled> {
        let connecting = dial::first_that_answers(&*self.connect, targets);
        let (stream, address) = timeout(self.limits.connect, connecting)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        // A port of this machine that nobody listens on may be chosen for our own end, and TCP then connects to itself.
        if stream.local_addr()? == address {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        stream.set_nodelay(true)?;
        Ok(Dialled { stream, address })
    }
}

fn unresolved(host: &HostName, error: &io::Error) -> Unresolved {
    let is = |kind| error.kind() == kind;
    if is(io::ErrorKind::NotFound) {
        return Unresolved::NoSuchName;
    }
    if is(io::ErrorKind::TimedOut) {
        return Unresolved::NoAnswer;
    }
    tracing::warn!(%host, %error, "the resolver of this machine failed");
    Unresolved::Failed
}

/// Whether a rule is one for this host and port. Who asks has looked already; a mistake there must not open the way.
fn fits(host: &HostName, port: u16, named: &NamedRule) -> Result<(), Denial> {
    if !named.rule.host.matches(host.as_str()) {
        return Err(Denial::HostNotAllowed {
            host: host.clone(),
            port,
            person: None,
        });
    }
    if !named.rule.ports.contains(&port) {
        return Err(Denial::PortNotAllowed {
            host: host.clone(),
            port,
            rule: named.name.clone(),
            ports: named.rule.ports.clone(),
            person: None,
        });
    }
    if is_guarded_port(port) && !named.rule.private {
        return Err(Denial::GuardedPort {
            host: host.clone(),
            port,
        });
    }
    Ok(())
}

/// The addresses in the resolver's order, but alternating between the families, so that a broken IPv6 costs one head start
/// (RFC 8305, section 4).
fn in_turn(addresses: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (mut leading, mut following): (Vec<IpAddr>, Vec<IpAddr>) = addresses
        .iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    leading.dedup();
    following.dedup();
    let mut following = following.into_iter();
    let mut turns = Vec::new();
    for address in leading {
        turns.push(address);
        turns.extend(following.next());
    }
    turns.extend(following);
    turns.truncate(MAX_DIALED);
    turns
        .into_iter()
        .map(|address| SocketAddr::new(address, port))
        .collect()
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reach")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

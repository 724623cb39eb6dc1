//! What arrived in the internet.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

/// Something that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A question about a name, as it was written, and the number of its type (1: A, 16: TXT, 28: AAAA).
    Asked { name: String, kind: u16 },
    /// A connection of TCP.
    Connected { to: SocketAddr },
    /// A greeting of TLS, with the name in it.
    Greeted {
        to: SocketAddr,
        name: Option<String>,
    },
    /// A request of HTTP.
    Requested {
        to: SocketAddr,
        tls: bool,
        method: String,
        host: String,
        path: String,
        headers: Vec<(String, String)>,
    },
    /// A datagram to a port where nothing answers.
    Datagram { to: SocketAddr, bytes: usize },
}

impl Event {
    /// The address at which it arrived; questions have one of the resolvers'.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Event::Asked { .. } => None,
            Event::Connected { to }
            | Event::Greeted { to, .. }
            | Event::Requested { to, .. }
            | Event::Datagram { to, .. } => Some(to.ip()),
        }
    }
}

/// All that arrived so far, in its order.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Event>>>);

impl Log {
    pub(super) fn add(&self, event: Event) {
        self.0.lock().expect("the log").push(event);
    }

    /// What arrived so far.
    pub fn all(&self) -> Vec<Event> {
        self.0.lock().expect("the log").clone()
    }

    /// What arrived since it was last taken.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.0.lock().expect("the log"))
    }

    /// Whether something arrived at that address.
    pub fn has_reached(&self, address: &str) -> bool {
        let ip: IpAddr = address.parse().expect("an address");
        self.all().iter().any(|event| event.address() == Some(ip))
    }

    /// Names that were asked for, as they were written.
    pub fn asked(&self) -> Vec<String> {
        let names = self.all().into_iter().filter_map(|event| {
            if let Event::Asked { name, .. } = event {
                Some(name)
            } else {
                None
            }
        });
        names.collect()
    }
}

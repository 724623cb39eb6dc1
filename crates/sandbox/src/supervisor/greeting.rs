//! Connections arrive on the link, and their first frame tells what they are for.

use std::time::Duration;

use futures::{
    future::BoxFuture,
    stream::{FuturesUnordered, StreamExt},
};
use tokio::{sync::mpsc, time::timeout};
use wire::{Hello, MAX_MOUNT_FACTS, ToHost};

use super::{
    channel::{Channel, ReadEnd},
    relayed::Relayed,
};
use crate::{Connection, Link};

/// Connections that may be in the middle of their greeting; the backend holds back the rest.
const MAX_GREETING: usize = 8;
/// Longest time from a connection to its first frame. An honest supervisor sends it at once.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// From the documentation of [`wire::Attestation::interfaces`].
const MAX_INTERFACES: usize = 16;

/// What a connection is for.
pub(super) enum Greeting {
    /// Requests and replies.
    Control(Box<Hello>, Channel),
    /// The content of one transfer.
    Data(u64, Channel),
    /// A connection from inside to that port.
    Relayed(u16, Relayed),
    /// None of these: an honest supervisor does not do that.
    Violation(String),
}

/// The connections of one link, greeted several at a time so that a silent one holds up nobody.
pub(super) struct Arrivals {
    connections: mpsc::Receiver<Connection>,
    greeting: FuturesUnordered<BoxFuture<'static, Option<Greeting>>>,
}

impl Arrivals {
    pub(super) fn new(link: Link) -> Self {
        Arrivals {
            connections: link.connections,
            greeting: FuturesUnordered::new(),
        }
    }

    /// The next connection that greeted; `None` once the sandbox has ended. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Greeting> {
        loop {
            let may_take = self.greeting.len() < MAX_GREETING;
            tokio::select! {
                Some(greeted) = self.greeting.next() => if let Some(greeting) = greeted {
                    return Some(greeting);
                },
                arrived = self.connections.recv(), if may_take => {
                    self.greeting.push(Box::pin(greet(arrived?)));
                }
            }
        }
    }
}

/// Reads the first frame. A connection that closes or stays silent before it is as if it had never come.
async fn greet(connection: Connection) -> Option<Greeting> {
    let mut channel = Channel::of_host(connection);
    let frame = timeout(GREETING_TIMEOUT, channel.next()).await.ok()?;
    Some(match frame {
        Ok(ToHost::Hello(hello)) => match check_hello(&hello) {
            Ok(()) => Greeting::Control(hello, channel),
            Err(what) => Greeting::Violation(what.to_owned()),
        },
        Ok(ToHost::TransferHello { transfer }) => Greeting::Data(transfer, channel),
        Ok(ToHost::RelayHello { port }) => Greeting::Relayed(port, channel.into_relayed()),
        Ok(ToHost::Reply { .. } | ToHost::Transfer(_)) => {
            Greeting::Violation("a connection began without a greeting".to_owned())
        }
        Err(ReadEnd::Garbage(error)) => Greeting::Violation(describe(&error)),
        Err(ReadEnd::Closed) => return None,
    })
}

fn check_hello(hello: &Hello) -> Result<(), &'static str> {
    if hello.attestation.mounts.len() > MAX_MOUNT_FACTS {
        return Err("an attestation lists more mounts than it may");
    }
    if hello.attestation.interfaces.len() > MAX_INTERFACES {
        return Err("an attestation lists more interfaces than it may");
    }
    Ok(())
}

/// A wire error with its cause in one line: it ends up in a text, where no source can follow.
pub(super) fn describe(error: &wire::WireError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

//! Connections from inside to ports of the loopback interface, carried to the host byte by byte, and datagrams to
//! them. There is no other way out of a sandbox: what becomes of them is the host's decision.
//!
//! Runs in the one loop of pid 1, which nothing inside can end, and the ports are taken before anything untrusted runs.

mod carried;
mod datagrams;

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    event::PollFlags,
    io::{self, Errno},
    net::{AddressFamily, SocketFlags, SocketType, accept_with, bind, listen, socket_with},
};
use wire::{Fault, FaultKind, MAX_RELAY_PORTS, MAX_RELAYED, MAX_TO_HOST_BYTES, RelayTakes, ToHost};

use self::{carried::Carried, datagrams::Datagrams};
use crate::{
    clock::Moment,
    fault::{fault, system},
    link::Link,
};

/// Connections that wait in the kernel while no host is connected, or too many are carried.
const BACKLOG: i32 = 128;
/// Pause after a connection could not be taken for want of descriptors or memory, milliseconds: it still stands there, and
/// the loop would do nothing else.
const SHORTAGE_PAUSE_MS: u64 = 100;

/// What all connections together hold that came and could not be sent, bytes. Beyond it a connection gets no more than
/// [`LEAST_READ_BYTES`] for each direction: all go on, and none takes the sandbox's memory.
const MAX_PENDING_BYTES: usize = 4 * 1024 * 1024;
/// Bytes.
const LEAST_READ_BYTES: usize = 4096;
/// Descriptors of one connection that is carried: its inner end, its outer one, and the other end of that where it is a
/// channel of standard input and output.
const DESCRIPTORS_EACH: u64 = 3;

/// The ports and what is carried.
pub struct Relays {
    /// Most connections and datagrams at once.
    most: usize,
    ports: Vec<Port>,
    carried: Vec<Carried>,
    datagrams: Datagrams,
    paused_until: Option<Moment>,
}

struct Port {
    number: u16,
    listener: OwnedFd,
}

/// What of it can go on.
#[derive(Clone, Copy)]
pub enum Ready {
    /// Somebody connected to the port of that index.
    Port(usize),
    /// The inner end of the connection of that index.
    Inside(usize),
    /// Its outer end.
    Host(usize),
    /// Something about datagrams.
    Datagrams(datagrams::Ready),
}

impl Relays {
    /// For a pid 1 that may have so many open files: half of them are for connections from inside, whatever those do.
    pub fn new(open_files: u64) -> Self {
        let affordable = open_files / 2 / DESCRIPTORS_EACH;
        Relays {
            most: usize::try_from(affordable).map_or(MAX_RELAYED, |most| most.min(MAX_RELAYED)),
            ports: Vec::new(),
            carried: Vec::new(),
            datagrams: Datagrams::default(),
            paused_until: None,
        }
    }

    /// Listens on a port. Success also when it listens there already. Where it fails, nothing new listens.
    pub fn open(&mut self, port: u16, takes: RelayTakes) -> Result<(), Fault> {
        if port == 0 {
            return Err(fault(FaultKind::Invalid, "no such port"));
        }
        let known = self.ports.iter().any(|known| known.number == port);
        if !known && self.ports.len() >= MAX_RELAY_PORTS {
            return Err(fault(FaultKind::TooMany, "too many ports"));
        }
        let listener = match known {
            true => None,
            false => Some(listener(port).map_err(system("listen on a loopback port"))?),
        };
        if takes == RelayTakes::StreamsAndDatagrams {
            let taken = self.datagrams.open(port);
            taken.map_err(system("take datagrams on a loopback port"))?;
        }
        self.ports.extend(listener.map(|listener| Port {
            number: port,
            listener,
        }));
        Ok(())
    }

    /// What to wait for. Connections are taken only while a host is there that can take them.
    pub fn interests(
        &self,
        host_takes: bool,
    ) -> impl Iterator<Item = (Ready, BorrowedFd<'_>, PollFlags)> {
        let has_room = self.carried.len() + self.datagrams.open_count() < self.most;
        let may_accept = host_takes && has_room && self.paused_until.is_none();
        let ports = self.ports.iter().enumerate().filter(move |_| may_accept);
        let ports =
            ports.map(|(index, port)| (Ready::Port(index), port.listener.as_fd(), PollFlags::IN));
        let ends = self.carried.iter().enumerate();
        let ends = ends.flat_map(|(index, carried)| {
            let [(inside, reads), (host, writes)] = carried.interests();
            [
                (Ready::Inside(index), inside, reads),
                (Ready::Host(index), host, writes),
            ]
        });
        // Without an interest an end would still report that it is closed, all the time.
        let ends = ends.filter(|(_, _, flags)| !flags.is_empty());
        let datagrams = self.datagrams.interests(host_takes && has_room);
        let datagrams =
            datagrams.map(|(ready, socket, flags)| (Ready::Datagrams(ready), socket, flags));
        ports.chain(ends).chain(datagrams)
    }

    /// Takes a connection, or moves what can be moved.
    pub fn advance(&mut self, ready: Ready, flags: PollFlags, link: &mut Link, buffer: &mut [u8]) {
        let room = self.room();
        match ready {
            Ready::Port(index) => self.accept(index, link),
            Ready::Inside(index) => {
                if let Some(carried) = self.carried.get_mut(index) {
                    carried.pump(first(buffer, room));
                }
            }
            Ready::Host(index) => {
                if let Some(carried) = self.carried.get_mut(index) {
                    carried.pump(first(buffer, room));
                    if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
                        carried.host_is_gone();
                    }
                }
            }
            Ready::Datagrams(ready) => self.datagrams.advance(ready, link, buffer),
        }
    }

    /// Lets go of what is over.
    pub fn sweep(&mut self, now: Moment) {
        self.carried.retain(|carried| !carried.is_over());
        self.datagrams.sweep(now);
        self.paused_until = self.paused_until.filter(|until| *until > now);
    }

    /// When time alone changes something.
    pub fn next_due(&self) -> Option<Moment> {
        let due = [self.datagrams.next_due(), self.paused_until];
        due.into_iter().flatten().min()
    }

    /// Bytes that may be read at once.
    fn room(&self) -> usize {
        let pending: usize = self.carried.iter().map(Carried::pending_bytes).sum();
        MAX_PENDING_BYTES
            .saturating_sub(pending)
            .max(LEAST_READ_BYTES)
    }

    fn accept(&mut self, index: usize, link: &mut Link) {
        let Some(port) = self.ports.get(index) else {
            return;
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let inside = match accept_with(&port.listener, flags) {
            Ok(inside) => inside,
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                self.paused_until = Some(Moment::now().after_ms(SHORTAGE_PAUSE_MS));
                return;
            }
            Err(_) => return,
        };
        let hello = ToHost::RelayHello { port: port.number };
        // Closed where the host cannot take it: the client sees a connection that ended, and tries again.
        let (Ok(hello), Ok(host)) = (wire::encode(&hello, MAX_TO_HOST_BYTES), link.dial_relayed())
        else {
            return;
        };
        self.carried.push(Carried::new(inside, host, hello));
    }
}

fn first(buffer: &mut [u8], most: usize) -> &mut [u8] {
    let most = most.min(buffer.len());
    &mut buffer[..most]
}

fn listener(port: u16) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

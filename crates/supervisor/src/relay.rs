//! Connections from inside to ports of the loopback interface, carried to the host byte by byte. There is no other way out
//! of a sandbox: what becomes of them is the host's decision.
//!
//! Runs in the one loop of pid 1, which nothing inside can end, and the ports are taken before anything untrusted runs.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    event::PollFlags,
    io::{self, Errno},
    net::{
        AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType, accept_with, bind, listen,
        send, shutdown, socket_with,
    },
};
use wire::{Fault, FaultKind, MAX_RELAY_PORTS, MAX_RELAYED, MAX_TO_HOST_BYTES, ToHost};

use crate::{
    fault::{fault, system},
    link::Link,
};

/// Connections that wait in the kernel while no host is connected, or too many are carried.
const BACKLOG: i32 = 128;
/// Turns of one connection before the next one's: pid 1 has other work.
const MAX_TURNS: usize = 8;

/// The ports and what is carried.
#[derive(Default)]
pub struct Relays {
    ports: Vec<Port>,
    carried: Vec<Carried>,
}

struct Port {
    number: u16,
    listener: OwnedFd,
}

struct Carried {
    inside: OwnedFd,
    host: OwnedFd,
    to_host: Flow,
    to_inside: Flow,
}

/// One direction of a connection.
#[derive(Default)]
struct Flow {
    /// Came and is not sent yet.
    pending: Vec<u8>,
    sent: usize,
    /// No more comes.
    ended: bool,
    /// The other side knows that, or is gone.
    over: bool,
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
}

impl Relays {
    /// Listens on a port. Success also when it listens there already.
    pub fn open(&mut self, port: u16) -> Result<(), Fault> {
        if self.ports.iter().any(|known| known.number == port) {
            return Ok(());
        }
        if port == 0 {
            return Err(fault(FaultKind::Invalid, "no such port"));
        }
        if self.ports.len() >= MAX_RELAY_PORTS {
            return Err(fault(FaultKind::TooMany, "too many ports"));
        }
        let listener = listener(port).map_err(system("listen on a loopback port"))?;
        self.ports.push(Port {
            number: port,
            listener,
        });
        Ok(())
    }

    /// What to wait for. Connections are taken only while a host is there.
    pub fn interests(
        &self,
        host_is_up: bool,
    ) -> impl Iterator<Item = (Ready, BorrowedFd<'_>, PollFlags)> {
        let may_accept = host_is_up && self.carried.len() < MAX_RELAYED;
        let ports = self.ports.iter().enumerate().filter(move |_| may_accept);
        let ports =
            ports.map(|(index, port)| (Ready::Port(index), port.listener.as_fd(), PollFlags::IN));
        let ends = self
            .carried
            .iter()
            .enumerate()
            .flat_map(|(index, carried)| {
                let inside = interest(&carried.to_host, &carried.to_inside);
                let host = interest(&carried.to_inside, &carried.to_host);
                [
                    (Ready::Inside(index), carried.inside.as_fd(), inside),
                    (Ready::Host(index), carried.host.as_fd(), host),
                ]
            });
        // Without an interest an end would still report that it is closed, all the time.
        ports.chain(ends.filter(|(_, _, flags)| !flags.is_empty()))
    }

    /// Takes a connection, or moves what can be moved.
    pub fn advance(&mut self, ready: Ready, flags: PollFlags, link: &mut Link, buffer: &mut [u8]) {
        match ready {
            Ready::Port(index) => self.accept(index, link),
            Ready::Inside(index) => {
                if let Some(carried) = self.carried.get_mut(index) {
                    carried.pump(buffer);
                }
            }
            Ready::Host(index) => {
                if let Some(carried) = self.carried.get_mut(index) {
                    carried.pump(buffer);
                    // Closed altogether: nobody reads what still comes from inside.
                    if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
                        carried.to_host.give_up();
                    }
                }
            }
        }
    }

    /// Lets go of connections that are over.
    pub fn sweep(&mut self) {
        self.carried
            .retain(|carried| !(carried.to_host.over && carried.to_inside.over));
    }

    fn accept(&mut self, index: usize, link: &mut Link) {
        let Some(port) = self.ports.get(index) else {
            return;
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(inside) = accept_with(&port.listener, flags) else {
            return;
        };
        let hello = ToHost::RelayHello { port: port.number };
        // Closed where the host cannot take it: the client sees a connection that ended, and tries again.
        let (Ok(hello), Ok(host)) = (wire::encode(&hello, MAX_TO_HOST_BYTES), link.dial_relayed())
        else {
            return;
        };
        let to_host = Flow {
            pending: hello,
            ..Flow::default()
        };
        self.carried.push(Carried {
            inside,
            host,
            to_host,
            to_inside: Flow::default(),
        });
    }
}

impl Carried {
    fn pump(&mut self, buffer: &mut [u8]) {
        self.to_host.pump(&self.inside, &self.host, buffer);
        self.to_inside.pump(&self.host, &self.inside, buffer);
    }
}

impl Flow {
    const fn has_pending(&self) -> bool {
        self.sent < self.pending.len()
    }

    fn pump(&mut self, from: &OwnedFd, to: &OwnedFd, buffer: &mut [u8]) {
        for _ in 0..MAX_TURNS {
            match self.turn(from, to, buffer) {
                Ok(true) => {}
                Ok(false) | Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => return self.give_up(),
            }
        }
    }

    /// Sends what is pending, else reads and sends more. True while there may be more to do.
    fn turn(&mut self, from: &OwnedFd, to: &OwnedFd, buffer: &mut [u8]) -> io::Result<bool> {
        if self.over {
            return Ok(false);
        }
        if self.has_pending() {
            self.sent += send_some(to, &self.pending[self.sent..])?;
            if !self.has_pending() {
                self.pending = Vec::new();
                self.sent = 0;
            }
            return Ok(true);
        }
        if self.ended {
            self.over = true;
            // The other side may have gone away first.
            let _ = shutdown(to, Shutdown::Write);
            return Ok(false);
        }
        let count = io::read(from, &mut *buffer)?;
        self.ended = count == 0;
        let sent = match send_some(to, &buffer[..count]) {
            Err(Errno::AGAIN | Errno::INTR) => 0,
            other => other?,
        };
        self.pending = buffer[sent..count].to_vec();
        Ok(true)
    }

    /// Nobody takes what comes.
    fn give_up(&mut self) {
        *self = Flow {
            ended: true,
            over: true,
            ..Flow::default()
        };
    }
}

fn send_some(to: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    send(to, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

/// What to wait for at one end: `out` reads from it, `back` writes to it.
fn interest(out: &Flow, back: &Flow) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, !out.ended && !out.has_pending());
    flags.set(
        PollFlags::OUT,
        back.has_pending() || (back.ended && !back.over),
    );
    flags
}

fn listener(port: u16) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

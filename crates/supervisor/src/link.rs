//! The connection to the host: dialled, greeted, lost and dialled again.
//!
//! ```text
//! Down ──due──► dial ──► Greeting ──Welcome──► Up
//!   ▲                       │                   │
//!   └──── closed, malformed, wrong protocol, no Welcome in time
//! ```
//! Nothing of a lost connection is kept: requests that were open are the host's to ask again. Where the host's socket
//! cannot be mounted, a connection is a channel of [`crate::carrier`] and everything else the same.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    event::PollFlags,
    io::{self, Errno},
    net::{
        AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send,
        socket_with,
    },
};
use wire::{Decoder, MAX_TO_HOST_BYTES, MAX_TO_SUPERVISOR_BYTES, ToHost, ToSupervisor};

use crate::{carrier::Carrier, clock::Moment};

/// First pause before dialling again, milliseconds.
const FIRST_PAUSE_MS: u64 = 50;
/// Longest pause, milliseconds: a server that comes back finds its sandboxes within about a second.
const LONGEST_PAUSE_MS: u64 = 1000;
/// How long the host may take to accept us, milliseconds.
const WELCOME_MS: u64 = 10_000;
/// Bytes waiting to be sent from which on no request is answered or read: a host that does not read gets no more.
const OUTGOING_BYTES: usize = 256 * 1024;

/// The connection.
pub struct Link {
    host: Host,
    state: State,
    pause_ms: u64,
}

/// Where the host is.
enum Host {
    Socket(SocketAddrUnix),
    Carrier(Box<Carrier>),
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Requests and replies.
    Control,
    /// The content of files.
    Content,
    /// A connection from inside.
    Relayed,
}

enum State {
    Down { dial_at: Moment },
    Connected(Box<Connection>),
}

struct Connection {
    socket: OwnedFd,
    decoder: Decoder,
    outgoing: Vec<u8>,
    sent: usize,
    /// `None` once welcomed.
    welcome_until: Option<Moment>,
}

impl Link {
    /// A connection that is due to be dialled: at a socket, or over standard input and output.
    pub fn new(socket: Option<&str>, now: Moment) -> io::Result<Self> {
        let host = match socket {
            Some(path) => Host::Socket(SocketAddrUnix::new(path)?),
            None => Host::Carrier(Box::new(Carrier::of_standard_streams()?)),
        };
        Ok(Link {
            host,
            state: State::Down { dial_at: now },
            pause_ms: FIRST_PAUSE_MS,
        })
    }

    /// Dials if that is due, and greets. True when a new connection stands.
    pub fn dial(&mut self, hello: &ToHost, now: Moment) -> bool {
        let State::Down { dial_at } = self.state else {
            return false;
        };
        if dial_at > now {
            return false;
        }
        match self.dial_host(Purpose::Control) {
            Ok(socket) => {
                let connection = Connection {
                    socket,
                    decoder: Decoder::new(MAX_TO_SUPERVISOR_BYTES),
                    outgoing: Vec::new(),
                    sent: 0,
                    welcome_until: Some(now.after_ms(WELCOME_MS)),
                };
                self.state = State::Connected(Box::new(connection));
                self.send(hello, now);
                true
            }
            Err(_) => {
                self.lose(now);
                false
            }
        }
    }

    /// A further connection to the host, for content; it does not block.
    pub fn dial_data(&mut self) -> io::Result<OwnedFd> {
        self.dial_host(Purpose::Content)
    }

    /// A further connection to the host, for one from inside; it does not block.
    pub fn dial_relayed(&mut self) -> io::Result<OwnedFd> {
        self.dial_host(Purpose::Relayed)
    }

    /// Whether connections from inside can be dialled on: else they wait where they are.
    pub fn takes_relayed(&self) -> bool {
        let has_room = match &self.host {
            Host::Socket(_) => true,
            Host::Carrier(carrier) => carrier.has_room_for(Purpose::Relayed),
        };
        self.up() && has_room
    }

    fn dial_host(&mut self, purpose: Purpose) -> io::Result<OwnedFd> {
        match &mut self.host {
            Host::Socket(address) => dial_socket(address),
            Host::Carrier(carrier) => carrier.dial(purpose),
        }
    }

    /// What the carrier waits for, where there is one.
    pub fn carrier_interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let carrier = match &self.host {
            Host::Socket(_) => None,
            Host::Carrier(carrier) => Some(carrier.interests()),
        };
        carrier.into_iter().flatten()
    }

    /// Moves what the carrier can move. A host that has just attached is dialled at once.
    pub fn pump_carrier(&mut self, buffer: &mut [u8], now: Moment) {
        let Host::Carrier(carrier) = &mut self.host else {
            return;
        };
        carrier.pump(buffer);
        if carrier.take_new() {
            self.pause_ms = FIRST_PAUSE_MS;
            self.state = State::Down { dial_at: now };
        }
    }

    /// Drops the connection; it is dialled again after a pause.
    pub fn lose(&mut self, now: Moment) {
        self.state = State::Down {
            dial_at: now.after_ms(self.pause_ms),
        };
        self.pause_ms = (self.pause_ms * 2).min(LONGEST_PAUSE_MS);
    }

    /// The host accepted us.
    pub fn welcomed(&mut self) {
        if let State::Connected(connection) = &mut self.state {
            connection.welcome_until = None;
        }
        self.pause_ms = FIRST_PAUSE_MS;
    }

    /// The greeting is over.
    pub fn up(&self) -> bool {
        matches!(&self.state, State::Connected(connection) if connection.welcome_until.is_none())
    }

    /// There is a connection, greeted or not.
    pub const fn connected(&self) -> bool {
        matches!(self.state, State::Connected(_))
    }

    /// When time alone changes something.
    pub const fn next_due(&self) -> Option<Moment> {
        match &self.state {
            State::Down { dial_at } => Some(*dial_at),
            State::Connected(connection) => connection.welcome_until,
        }
    }

    /// Gives up on a host that does not accept us.
    pub fn advance(&mut self, now: Moment) {
        let late = match &self.state {
            State::Connected(connection) => {
                connection.welcome_until.is_some_and(|until| until <= now)
            }
            State::Down { .. } => false,
        };
        if late {
            self.lose(now);
        }
    }

    /// The socket, and whether to wait for bytes to come and to go.
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, bool, bool)> {
        match &self.state {
            State::Connected(connection) => Some((
                connection.socket.as_fd(),
                connection.room(),
                !connection.outgoing.is_empty(),
            )),
            State::Down { .. } => None,
        }
    }

    /// Whether another reply may be queued.
    pub fn room(&self) -> bool {
        matches!(&self.state, State::Connected(connection) if connection.room())
    }

    /// Queues a message and sends what goes.
    pub fn send(&mut self, message: &ToHost, now: Moment) {
        let State::Connected(connection) = &mut self.state else {
            return;
        };
        // A message of ours that is too large is a fault of ours: the host must not wait for it for ever.
        match wire::encode(message, MAX_TO_HOST_BYTES) {
            Ok(frame) => connection.queue(frame),
            Err(_) => return self.lose(now),
        }
        self.flush(now);
    }

    /// Sends what goes.
    pub fn flush(&mut self, now: Moment) {
        let State::Connected(connection) = &mut self.state else {
            return;
        };
        if connection.flush().is_err() {
            self.lose(now);
        }
    }

    /// Takes what came.
    pub fn receive(&mut self, buffer: &mut [u8], now: Moment) {
        let State::Connected(connection) = &mut self.state else {
            return;
        };
        match io::read(&connection.socket, &mut *buffer) {
            Ok(0) => self.lose(now),
            Ok(read) => connection.decoder.push(&buffer[..read]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.lose(now),
        }
    }

    /// The next message, as long as there is room for its reply. What does not decode ends the connection.
    pub fn next(&mut self, now: Moment) -> Option<ToSupervisor> {
        let State::Connected(connection) = &mut self.state else {
            return None;
        };
        if !connection.room() {
            return None;
        }
        match connection.decoder.next() {
            Ok(message) => message,
            Err(_) => {
                self.lose(now);
                None
            }
        }
    }
}

fn dial_socket(address: &SocketAddrUnix) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, address)?;
    Ok(socket)
}

impl Connection {
    fn room(&self) -> bool {
        self.outgoing.len() - self.sent < OUTGOING_BYTES
    }

    fn queue(&mut self, frame: Vec<u8>) {
        if self.outgoing.is_empty() {
            self.outgoing = frame;
        } else {
            self.outgoing.drain(..self.sent);
            self.sent = 0;
            self.outgoing.extend_from_slice(&frame);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.outgoing.len() {
            match send(
                &self.socket,
                &self.outgoing[self.sent..],
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(sent) => self.sent += sent,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        self.outgoing = Vec::new();
        self.sent = 0;
        Ok(())
    }
}

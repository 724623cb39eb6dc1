//! One connection that is carried: two directions, each read only when what came before is sent.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    event::PollFlags,
    io::{self, Errno},
    net::{SendFlags, Shutdown, send, shutdown},
};

/// Turns of one connection before the next one's: pid 1 has other work.
const MAX_TURNS: usize = 8;

/// A connection from inside, and the one to the host that it leads to.
pub struct Carried {
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

impl Carried {
    /// The host hears `hello` before anything else.
    pub fn new(inside: OwnedFd, host: OwnedFd, hello: Vec<u8>) -> Self {
        let to_host = Flow {
            pending: hello,
            ..Flow::default()
        };
        Carried {
            inside,
            host,
            to_host,
            to_inside: Flow::default(),
        }
    }

    /// What to wait for at the inner end, and at the outer one.
    pub fn interests(&self) -> [(BorrowedFd<'_>, PollFlags); 2] {
        let inside = interest(&self.to_host, &self.to_inside);
        let host = interest(&self.to_inside, &self.to_host);
        [(self.inside.as_fd(), inside), (self.host.as_fd(), host)]
    }

    /// Moves what can be moved.
    pub fn pump(&mut self, buffer: &mut [u8]) {
        self.to_host.pump(&self.inside, &self.host, buffer);
        self.to_inside.pump(&self.host, &self.inside, buffer);
    }

    /// The host closed it altogether: nobody reads what still comes from inside.
    pub fn host_is_gone(&mut self) {
        self.to_host.give_up();
    }

    /// Bytes that came and are held.
    pub const fn pending_bytes(&self) -> usize {
        self.to_host.pending.len() + self.to_inside.pending.len()
    }

    /// Nothing more goes either way.
    pub const fn is_over(&self) -> bool {
        self.to_host.over && self.to_inside.over
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

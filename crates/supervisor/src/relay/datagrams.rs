//! Datagrams to relayed ports. Each becomes a connection to the host of its own that carries one message and waits for one
//! answer, both framed as in DNS over TCP (RFC 7766, section 8), so that the host speaks that alone.
//!
//! Nothing is kept of one that the host does not answer in time: whoever sent it asks again, as with every datagram.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    event::PollFlags,
    io::{self, Errno},
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, bind, recv,
        recvfrom, send, sendto, socket_with,
    },
};
use wire::{
    DATAGRAM_TIMEOUT_MS, MAX_DATAGRAM_BYTES, MAX_OPEN_DATAGRAMS, MAX_TO_HOST_BYTES, ToHost,
};

use crate::{clock::Moment, link::Link};

/// Datagrams taken from one port before pid 1 looks at its other work.
const MAX_TURNS: usize = 8;
/// Bytes of a frame's length.
const LENGTH_BYTES: usize = 2;

/// The ports that take datagrams, and those that wait for an answer.
#[derive(Default)]
pub struct Datagrams {
    ports: Vec<Port>,
    open: Vec<Question>,
}

struct Port {
    number: u16,
    socket: OwnedFd,
}

/// What of it can go on.
#[derive(Clone, Copy)]
pub enum Ready {
    /// Somebody sent to the port of that index.
    Port(usize),
    /// The host takes the datagram of that index, or answers it.
    Host(usize),
}

/// One datagram on its way to the host, and back.
struct Question {
    port: usize,
    sender: SocketAddrAny,
    host: OwnedFd,
    outgoing: Vec<u8>,
    sent: usize,
    answer: Vec<u8>,
    until: Moment,
    over: bool,
}

impl Datagrams {
    /// Takes datagrams there, too. Success also when it does already.
    pub fn open(&mut self, number: u16) -> io::Result<()> {
        if self.ports.iter().any(|port| port.number == number) {
            return Ok(());
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, number))?;
        self.ports.push(Port { number, socket });
        Ok(())
    }

    /// What to wait for. Datagrams are taken only while the host can take them.
    pub fn interests(
        &self,
        host_takes: bool,
    ) -> impl Iterator<Item = (Ready, BorrowedFd<'_>, PollFlags)> {
        let may_take = host_takes && self.open.len() < MAX_OPEN_DATAGRAMS;
        let ports = self.ports.iter().enumerate().filter(move |_| may_take);
        let ports = ports.map(|(index, port)| {
            let socket = port.socket.as_fd();
            (Ready::Port(index), socket, PollFlags::IN)
        });
        let hosts = self.open.iter().enumerate().map(|(index, question)| {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, question.sent < question.outgoing.len());
            (Ready::Host(index), question.host.as_fd(), flags)
        });
        ports.chain(hosts)
    }

    /// Takes datagrams, or moves one on.
    pub fn advance(&mut self, ready: Ready, link: &mut Link, buffer: &mut [u8]) {
        match ready {
            Ready::Port(index) => {
                let now = Moment::now();
                for _ in 0..MAX_TURNS {
                    if self.take(index, link, buffer, now).is_none() {
                        return;
                    }
                }
            }
            Ready::Host(index) => {
                let Some(question) = self.open.get_mut(index) else {
                    return;
                };
                if let Some(port) = self.ports.get(question.port) {
                    question.advance(&port.socket);
                }
            }
        }
    }

    /// Lets go of what is answered, and of what is not answered in time.
    pub fn sweep(&mut self, now: Moment) {
        self.open
            .retain(|question| !question.over && question.until > now);
    }

    /// When the next one has waited long enough.
    pub fn next_due(&self) -> Option<Moment> {
        self.open.iter().map(|question| question.until).min()
    }

    /// How many wait for an answer.
    pub const fn open_count(&self) -> usize {
        self.open.len()
    }

    /// `None` when there is nothing more to take now.
    fn take(
        &mut self,
        index: usize,
        link: &mut Link,
        buffer: &mut [u8],
        now: Moment,
    ) -> Option<()> {
        let port = self.ports.get(index)?;
        if self.open.len() >= MAX_OPEN_DATAGRAMS {
            return None;
        }
        // The whole length, even of what does not fit.
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        let (_, length, sender) = recvfrom(&port.socket, &mut *buffer, flags).ok()?;
        let (Some(sender), 1..=MAX_DATAGRAM_BYTES) = (sender, length) else {
            return Some(());
        };
        let hello = ToHost::RelayHello { port: port.number };
        let mut outgoing = wire::encode(&hello, MAX_TO_HOST_BYTES).ok()?;
        let length_field = u16::try_from(length).ok()?.to_be_bytes();
        outgoing.extend_from_slice(&length_field);
        outgoing.extend_from_slice(buffer.get(..length)?);
        let mut question = Question {
            port: index,
            sender,
            // Dropped where the host cannot take it.
            host: link.dial_relayed().ok()?,
            outgoing,
            sent: 0,
            answer: Vec::new(),
            until: now.after_ms(DATAGRAM_TIMEOUT_MS),
            over: false,
        };
        question.over = question.send().is_err();
        self.open.push(question);
        Some(())
    }
}

impl Question {
    fn advance(&mut self, socket: &OwnedFd) {
        let moved = self.send().and_then(|()| self.receive());
        match moved {
            Ok(None) | Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(Some(answer)) => {
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                // Whoever asked may be gone.
                let _ = sendto(socket, &answer, flags, &self.sender);
                self.over = true;
            }
            Err(_) => self.over = true,
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let rest = &self.outgoing[self.sent..];
        if rest.is_empty() {
            return Ok(());
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match send(&self.host, rest, flags) {
            Ok(count) => self.sent += count,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// The answer, once all of it is there.
    fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut piece = [0; LENGTH_BYTES + MAX_DATAGRAM_BYTES];
        let room = piece.len() - self.answer.len();
        let (_, count) = recv(&self.host, &mut piece[..room], RecvFlags::DONTWAIT)?;
        if count == 0 {
            return Err(Errno::PIPE);
        }
        self.answer.extend_from_slice(&piece[..count]);
        match answer(&self.answer) {
            Answer::Partial => Ok(None),
            Answer::Whole(message) => Ok(Some(message.to_vec())),
            Answer::Unfit => Err(Errno::MSGSIZE),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer<'bytes> {
    Partial,
    Whole(&'bytes [u8]),
    /// Longer than any datagram that is sent, or empty.
    Unfit,
}

fn answer(bytes: &[u8]) -> Answer<'_> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Answer::Partial;
    };
    let length = usize::from(u16::from_be_bytes(*length));
    if !(1..=MAX_DATAGRAM_BYTES).contains(&length) {
        return Answer::Unfit;
    }
    rest.get(..length).map_or(Answer::Partial, Answer::Whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_at_its_length_and_no_longer_than_a_datagram() {
        for partial in [&b""[..], b"\0", b"\0\x02", b"\0\x02a"] {
            assert_eq!(answer(partial), Answer::Partial, "{partial:?}");
        }
        assert_eq!(answer(b"\0\x02ab"), Answer::Whole(b"ab"));
        assert_eq!(answer(b"\0\x02abcd"), Answer::Whole(b"ab"));
        assert_eq!(answer(b"\0\0"), Answer::Unfit);
        assert_eq!(answer(b"\x10\x01"), Answer::Unfit);
        assert_eq!(answer(b"\x10\0"), Answer::Partial);
    }
}

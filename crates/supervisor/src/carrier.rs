//! The host over standard input and output, where its socket cannot be mounted: connections become channels of
//! [`wire::Carried`]. Each is a pair of sockets, one end of which is handed out as if it had been dialled.
//!
//! Runs in the one loop of pid 1, which nothing inside can end: a process of its own could be killed by the agent.

#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    event::PollFlags,
    fs::{CWD, Mode, OFlags, fcntl_getfl, fcntl_setfl, openat},
    io::{self, Errno},
    net::{
        AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType, send, shutdown, socketpair,
    },
    rand::{GetRandomFlags, getrandom},
};
use wire::{
    CARRIER_WINDOW_BYTES, Carried, CarrierKey, MAX_CARRIED_BYTES, MAX_CHANNELS,
    MAX_RELAYED_CHANNELS, Nonce, Opener, Sealer, Sender, Splitter, attach_request,
};

use crate::link::Purpose;

/// Bytes waiting to be sent from which on no channel is read: what is urgent waits for no more than these.
const OUTGOING_BYTES: usize = 64 * 1024;
/// Lowest number of the descriptors that stand for standard input and output afterwards.
const FIRST_DESCRIPTOR: i32 = 3;

/// The two streams and what they carry.
pub struct Carrier {
    /// `None` once nobody can ever write to it again.
    input: Option<OwnedFd>,
    output: OwnedFd,
    splitter: Splitter,
    /// `None` until the first host brings it.
    key: Option<CarrierKey>,
    attachment: Option<Attachment>,
    is_new: bool,
    outgoing: Vec<u8>,
    sent: usize,
}

struct Attachment {
    sealer: Sealer,
    opener: Opener,
    /// Urgent ones first.
    channels: Vec<Channel>,
    next_channel: u32,
}

struct Channel {
    number: u32,
    local: OwnedFd,
    /// Came from the host and is not taken yet.
    incoming: Vec<u8>,
    taken: usize,
    /// Taken, and the host does not know.
    uncredited: u32,
    /// What may be sent.
    credit: u32,
    /// Nothing more comes from the local end.
    ended: bool,
    /// Nothing more comes from the host; the local end hears that once `incoming` is taken.
    host_ended: bool,
    /// The host is done with it: it goes once `incoming` is taken.
    closing: bool,
}

impl Carrier {
    /// Takes over standard input and output; whatever else is written to them goes nowhere.
    ///
    /// # Errors
    /// When descriptors cannot be made.
    pub fn of_standard_streams() -> io::Result<Self> {
        let input = io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), FIRST_DESCRIPTOR)?;
        let output = io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), FIRST_DESCRIPTOR)?;
        for stream in [&input, &output] {
            fcntl_setfl(stream, fcntl_getfl(stream)? | OFlags::NONBLOCK)?;
        }
        let nowhere = openat(
            CWD,
            "/dev/null",
            OFlags::RDWR | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::stdio::dup2_stdin(&nowhere)?;
        rustix::stdio::dup2_stdout(&nowhere)?;
        Ok(Carrier {
            input: Some(input),
            output,
            splitter: Splitter::default(),
            key: None,
            attachment: None,
            is_new: false,
            outgoing: Vec::new(),
            sent: 0,
        })
    }

    /// Opens a channel; the end that is handed out does not block.
    ///
    /// # Errors
    /// `ENOTCONN` while no host is attached, `EMFILE` when there are as many channels as may be.
    pub fn dial(&mut self, purpose: Purpose) -> io::Result<OwnedFd> {
        if self.attachment.is_some() && !self.has_room_for(purpose) {
            return Err(Errno::MFILE);
        }
        let attachment = self.attachment.as_mut().ok_or(Errno::NOTCONN)?;
        let urgent = purpose == Purpose::Control;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (local, handed_out) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let number = attachment.next_channel;
        attachment.next_channel += 1;
        let channel = Channel {
            number,
            local,
            incoming: Vec::new(),
            taken: 0,
            uncredited: 0,
            credit: CARRIER_WINDOW_BYTES,
            ended: false,
            host_ended: false,
            closing: false,
        };
        let place = if urgent { 0 } else { attachment.channels.len() };
        attachment.channels.insert(place, channel);
        self.queue(&Carried::Open {
            channel: number,
            urgent,
        });
        Ok(handed_out)
    }

    /// Whether a channel for that can be opened: whatever inside connects to, there is room for what the host asks.
    pub fn has_room_for(&self, purpose: Purpose) -> bool {
        let most = match purpose {
            Purpose::Control | Purpose::Content => MAX_CHANNELS,
            Purpose::Relayed => MAX_RELAYED_CHANNELS,
        };
        let attachment = self.attachment.as_ref();
        attachment.is_some_and(|attachment| attachment.channels.len() < most)
    }

    /// A host attached since this was last asked.
    pub const fn take_new(&mut self) -> bool {
        std::mem::replace(&mut self.is_new, false)
    }

    /// What to wait for.
    pub fn interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let has_room = self.has_room();
        let channels = self
            .attachment
            .iter()
            .flat_map(|attachment| &attachment.channels);
        let channels = channels.filter_map(move |channel| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, channel.may_send() && has_room);
            flags.set(PollFlags::OUT, channel.has_incoming());
            // Without an interest it would still report that the other end is closed, all the time.
            (!flags.is_empty()).then(|| (channel.local.as_fd(), flags))
        });
        let input = self
            .input
            .iter()
            .map(|input| (input.as_fd(), PollFlags::IN));
        let output = (!self.outgoing.is_empty()).then(|| (self.output.as_fd(), PollFlags::OUT));
        input.chain(output).chain(channels)
    }

    /// Moves what can be moved.
    pub fn pump(&mut self, buffer: &mut [u8]) {
        self.receive(buffer);
        self.pump_channels(buffer);
        self.flush();
    }

    const fn has_room(&self) -> bool {
        self.outgoing.len() - self.sent < OUTGOING_BYTES
    }

    fn receive(&mut self, buffer: &mut [u8]) {
        let Some(input) = &self.input else { return };
        match io::read(input, &mut *buffer) {
            Ok(0) => {
                self.input = None;
                self.attachment = None;
            }
            Ok(read) => {
                self.splitter.push(&buffer[..read]);
                while let Some(frame) = self.splitter.next_frame() {
                    self.take_frame(&frame);
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.input = None,
        }
    }

    fn take_frame(&mut self, frame: &[u8]) {
        if frame.is_empty() {
            return;
        }
        let message = self
            .attachment
            .as_mut()
            .and_then(|attachment| attachment.opener.open(frame));
        match message {
            Some(message) => {
                if self.carry(message).is_none() {
                    self.lose();
                }
            }
            // The first request brings the key: nothing untrusted has run by then.
            None => match attach_request(self.key, frame) {
                Some((key, nonce)) => self.attach(key, nonce),
                None => self.lose(),
            },
        }
    }

    fn attach(&mut self, key: CarrierKey, host: Nonce) {
        self.attachment = None;
        let mut own = Nonce::default();
        if getrandom(&mut own, GetRandomFlags::empty()) != Ok(own.len()) {
            return;
        }
        let answer = Carried::Attached { nonce: own };
        let Ok(answer) = Sealer::new(&key, Sender::Supervisor, &[host]).seal(&answer) else {
            return;
        };
        // Half a frame may have gone out before: its end first.
        self.outgoing = [vec![0], answer].concat();
        self.sent = 0;
        self.key = Some(key);
        self.is_new = true;
        let nonces = [host, own];
        self.attachment = Some(Attachment {
            sealer: Sealer::new(&key, Sender::Supervisor, &nonces),
            opener: Opener::new(&key, Sender::Host, &nonces),
            channels: Vec::new(),
            next_channel: 0,
        });
    }

    /// `None` for what an honest host does not say.
    fn carry(&mut self, message: Carried) -> Option<()> {
        let attachment = self.attachment.as_mut()?;
        match message {
            Carried::Data { channel, bytes } => {
                if let Some(channel) = attachment.find(channel)? {
                    return channel.accept(&bytes);
                }
            }
            Carried::Credit { channel, bytes } => {
                if let Some(channel) = attachment.find(channel)? {
                    channel.credit = channel.credit.checked_add(bytes)?;
                    return (channel.credit <= CARRIER_WINDOW_BYTES).then_some(());
                }
            }
            Carried::End { channel } => {
                if let Some(channel) = attachment.find(channel)? {
                    channel.host_ended = true;
                }
            }
            Carried::Close { channel } => {
                if let Some(channel) = attachment.find(channel)? {
                    channel.closing = true;
                }
            }
            Carried::Attach { .. }
            | Carried::Attached { .. }
            | Carried::Open { .. }
            | Carried::Lost => return None,
        }
        Some(())
    }

    /// Believes nothing more until a host attaches anew, and says so.
    fn lose(&mut self) {
        self.queue(&Carried::Lost);
        self.attachment = None;
    }

    fn pump_channels(&mut self, buffer: &mut [u8]) {
        let numbers: Vec<u32> = match &self.attachment {
            Some(attachment) => attachment
                .channels
                .iter()
                .map(|found| found.number)
                .collect(),
            None => return,
        };
        for number in numbers {
            let has_room = self.has_room();
            let Some(channel) = self.channel(number) else {
                return;
            };
            let came = channel.pump(has_room, buffer);
            let credit = channel.credit_to_give();
            if let Some(bytes) = credit {
                self.queue(&Carried::Credit {
                    channel: number,
                    bytes,
                });
            }
            match came {
                Came::Nothing => {}
                Came::Bytes(count) => self.queue(&Carried::Data {
                    channel: number,
                    bytes: buffer[..count].to_vec(),
                }),
                Came::End => self.queue(&Carried::End { channel: number }),
            }
        }
        if let Some(attachment) = &mut self.attachment {
            attachment.channels.retain(|found| !found.is_over());
        }
    }

    fn channel(&mut self, number: u32) -> Option<&mut Channel> {
        let channels = &mut self.attachment.as_mut()?.channels;
        channels.iter_mut().find(|found| found.number == number)
    }

    fn queue(&mut self, message: &Carried) {
        let Some(attachment) = &mut self.attachment else {
            return;
        };
        // Content is cut to what a frame takes before it gets here.
        let Ok(frame) = attachment.sealer.seal(message) else {
            self.attachment = None;
            return;
        };
        self.outgoing.drain(..self.sent);
        self.sent = 0;
        self.outgoing.extend_from_slice(&frame);
    }

    fn flush(&mut self) {
        while self.sent < self.outgoing.len() {
            match io::write(&self.output, &self.outgoing[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Nobody can ever read again: the lease ends what is left.
                Err(_) => break,
            }
        }
        self.outgoing = Vec::new();
        self.sent = 0;
    }
}

/// What a channel's local end gave.
enum Came {
    Nothing,
    Bytes(usize),
    End,
}

impl Attachment {
    /// A channel that the host speaks of: `Some(None)` for one that is closed here already, `None` for one that never was.
    fn find(&mut self, number: u32) -> Option<Option<&mut Channel>> {
        let channels = self.channels.iter_mut();
        let found = channels.into_iter().find(|found| found.number == number);
        (found.is_some() || number < self.next_channel).then_some(found)
    }
}

impl Channel {
    const fn has_incoming(&self) -> bool {
        self.taken < self.incoming.len()
    }

    const fn may_send(&self) -> bool {
        self.credit > 0 && !self.ended && !self.closing
    }

    const fn is_over(&self) -> bool {
        self.closing && !self.has_incoming()
    }

    /// `None` for more than the host had credit for, and for what comes behind its end.
    fn accept(&mut self, bytes: &[u8]) -> Option<()> {
        if self.host_ended {
            return None;
        }
        self.incoming.drain(..self.taken);
        self.taken = 0;
        let unknown = self.incoming.len() + bytes.len() + self.uncredited as usize;
        self.incoming.extend_from_slice(bytes);
        (unknown <= CARRIER_WINDOW_BYTES as usize).then_some(())
    }

    fn pump(&mut self, has_room: bool, buffer: &mut [u8]) -> Came {
        self.hand_over();
        if !has_room || !self.may_send() {
            return Came::Nothing;
        }
        let most = MAX_CARRIED_BYTES
            .min(self.credit as usize)
            .min(buffer.len());
        match io::read(&self.local, &mut buffer[..most]) {
            Ok(count @ 1..) => {
                self.credit -= count as u32;
                Came::Bytes(count)
            }
            Err(Errno::AGAIN | Errno::INTR) => Came::Nothing,
            Ok(0) | Err(_) => {
                self.ended = true;
                Came::End
            }
        }
    }

    fn hand_over(&mut self) {
        while self.has_incoming() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match send(&self.local, &self.incoming[self.taken..], flags) {
                Ok(count) => {
                    self.taken += count;
                    self.uncredited += count as u32;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Its reader is gone; what it wrote before is still read.
                Err(_) => {
                    self.uncredited += (self.incoming.len() - self.taken) as u32;
                    self.taken = self.incoming.len();
                }
            }
        }
        if self.host_ended {
            // Once is enough, and more does no harm. The local end may have gone away first.
            let _ = shutdown(&self.local, Shutdown::Write);
        }
    }

    /// In portions, not for every byte.
    const fn credit_to_give(&mut self) -> Option<u32> {
        if self.uncredited >= CARRIER_WINDOW_BYTES / 2 {
            Some(std::mem::replace(&mut self.uncredited, 0))
        } else {
            None
        }
    }
}

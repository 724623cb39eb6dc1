//! A data connection: frames, one way and the other, blocking.

use std::{os::fd::OwnedFd, time::Duration};

use rustix::{
    io::{self, Errno},
    net::{SendFlags, Shutdown, send, shutdown, sockopt},
};
use wire::{
    Decoder, Fault, FaultKind, MAX_TO_HOST_BYTES, MAX_TO_SUPERVISOR_BYTES, ToHost, ToSupervisor,
    TransferEnd, TransferFrame,
};

use crate::fault::{failed, fault};

/// A host that neither sends nor takes anything for that long has given up.
const STALL: Duration = Duration::from_secs(30);
/// Frames read and thrown away after a refusal, so that the host can finish a write and read why.
const MAX_DRAINED_FRAMES: usize = 256;
const READ_BYTES: usize = 256 * 1024;

/// The connection.
pub struct Channel {
    socket: OwnedFd,
    decoder: Decoder,
    buffer: Vec<u8>,
}

/// Where a transfer stopped and why.
pub struct Stop {
    /// Why.
    pub fault: Fault,
    /// At which entry, relative to the root.
    pub path: Vec<u8>,
}

impl Stop {
    /// At an entry.
    pub fn at(path: &[u8], fault: Fault) -> Self {
        Stop {
            fault,
            path: path.to_vec(),
        }
    }

    /// A system call that failed at an entry.
    pub fn failed(path: &[u8], step: &str, errno: Errno) -> Self {
        Stop::at(path, failed(FaultKind::System, step, errno))
    }
}

impl Channel {
    /// Takes a connected, blocking socket.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        for timeout in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
            sockopt::set_socket_timeout(&socket, timeout, Some(STALL))?;
        }
        Ok(Channel {
            socket,
            decoder: Decoder::new(MAX_TO_SUPERVISOR_BYTES),
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Sends one message.
    pub fn send(&mut self, message: &ToHost) -> Result<(), Fault> {
        let frame = wire::encode(message, MAX_TO_HOST_BYTES)
            .map_err(|_| fault(FaultKind::BadPath, "encode a frame"))?;
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            match send(&self.socket, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(FaultKind::System, "send to the host", errno)),
            }
        }
        Ok(())
    }

    /// Sends a frame of the transfer.
    pub fn send_frame(&mut self, frame: TransferFrame) -> Result<(), Fault> {
        self.send(&ToHost::Transfer(frame))
    }

    /// The next frame of the transfer.
    pub fn receive(&mut self) -> Result<TransferFrame, Fault> {
        loop {
            match self.decoder.next() {
                Ok(Some(ToSupervisor::Transfer(frame))) => return Ok(frame),
                Ok(Some(ToSupervisor::Welcome(_) | ToSupervisor::Request { .. })) | Err(_) => {
                    return Err(fault(FaultKind::Invalid, "not a frame of a transfer"));
                }
                Ok(None) => {}
            }
            match io::read(&self.socket, &mut self.buffer) {
                Ok(0) => {
                    return Err(fault(
                        FaultKind::System,
                        "the host closed the data connection",
                    ));
                }
                Ok(read) => self.decoder.push(&self.buffer[..read]),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    return Err(failed(FaultKind::System, "receive from the host", errno));
                }
            }
        }
    }

    /// Says that the transfer stopped, and gives the host time to read it.
    pub fn refuse(&mut self, stop: Stop) {
        let end = TransferEnd::Refused {
            fault: stop.fault,
            path: stop.path,
        };
        if self.send_frame(TransferFrame::End(end)).is_err() {
            return;
        }
        let _ = shutdown(&self.socket, Shutdown::Write);
        for _ in 0..MAX_DRAINED_FRAMES {
            if self.receive().is_err() {
                return;
            }
        }
    }
}

//! Messages between server and helper: a length, JSON, and descriptors that travel with it.

use std::{
    io::{self, IoSlice, IoSliceMut, Read},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::{
    io::retry_on_intr,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use serde::{Serialize, de::DeserializeOwned};

use crate::plan::MAX_MESSAGE_BYTES;

const LENGTH_BYTES: usize = 4;
/// Descriptors that come with one message: the program one way, a pidfd the other.
const MAX_DESCRIPTORS: usize = 1;

/// Sends one message with at most one descriptor.
///
/// # Errors
/// When the peer is gone.
pub(crate) fn send<T: Serialize>(
    socket: &UnixStream,
    message: &T,
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend(body);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // A process that is stopped and goes on, or is traced, is interrupted in what has a timeout: nothing was sent then.
    let mut sent = retry_on_intr(|| {
        sendmsg(
            socket,
            &[IoSlice::new(&frame)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
    })?;
    while sent < frame.len() {
        let mut nothing = SendAncillaryBuffer::default();
        sent += retry_on_intr(|| {
            sendmsg(
                socket,
                &[IoSlice::new(&frame[sent..])],
                &mut nothing,
                SendFlags::NOSIGNAL,
            )
        })?;
    }
    Ok(())
}

/// Receives one message and its descriptor.
///
/// # Errors
/// When the peer is gone, or what it sends is too long or no message.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: &UnixStream,
) -> io::Result<(T, Option<OwnedFd>)> {
    let mut length = [0; LENGTH_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    // As in `send`; and nothing was received.
    let received = retry_on_intr(|| {
        recvmsg(
            socket.as_fd(),
            &mut [IoSliceMut::new(&mut length)],
            &mut control,
            flags,
        )
    })?;
    if received.bytes != LENGTH_BYTES {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut fd = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            fd = fds.next();
        }
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_MESSAGE_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut body = vec![0; length];
    let mut socket = socket;
    socket.read_exact(&mut body)?;
    Ok((serde_json::from_slice(&body)?, fd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_message_arrives_with_its_descriptor() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut pipe, end) = std::io::pipe().unwrap();
        send(&one, &vec!["word"; 1000], Some(end.as_fd())).unwrap();
        drop(end);
        let (words, fd) = receive::<Vec<String>>(&other).unwrap();
        assert_eq!(words.len(), 1000);
        std::fs::File::from(fd.unwrap()).write_all(b"x").unwrap();
        let mut byte = [0];
        pipe.read_exact(&mut byte).unwrap();
    }

    #[test]
    fn a_process_that_is_stopped_and_goes_on_hears_the_message_all_the_same() {
        let (one, other) = UnixStream::pair().unwrap();
        other
            .set_read_timeout(Some(std::time::Duration::from_secs(30)))
            .unwrap();
        let peer = std::thread::spawn(move || {
            let stop = "sleep 0.2; kill -STOP $PPID; sleep 0.1; kill -CONT $PPID";
            let mut shell = std::process::Command::new("sh");
            assert!(shell.args(["-c", stop]).status().unwrap().success());
            send(&one, &"word", None).unwrap();
        });
        assert_eq!(receive::<String>(&other).unwrap().0, "word");
        peer.join().unwrap();
    }

    #[test]
    fn a_length_over_the_limit_is_refused() {
        let (mut one, other) = UnixStream::pair().unwrap();
        one.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert_eq!(
            receive::<String>(&other).unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
    }
}

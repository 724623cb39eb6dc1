//! Copies bytes between standard input and output and the server. One chunk is under way in each direction, so a slow
//! reader slows its writer down and nothing piles up.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};

/// Bytes that are copied at once: what a pipe holds.
const CHUNK_BYTES: usize = 64 * 1024;
/// How long the server may still answer after the client has closed standard input: its drain takes 5 s at most.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// Why copying ended otherwise than by the client.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The server closed the connection while the client was still there.
    #[error("the server went away; restart this client to start another")]
    ServerGone,
    /// The connection or the client's pipe failed.
    #[error("copying failed")]
    Io(#[source] io::Error),
}

enum Event {
    /// The client closed standard input, or it failed.
    InputEnded(io::Result<()>),
    /// The server closed the connection, or the client reads no more.
    OutputEnded(io::Result<()>),
}

/// Copies until the client or the server ends the conversation.
///
/// # Errors
/// When the server ends it, or the connection fails.
pub fn copy(stream: UnixStream) -> Result<(), CopyError> {
    copy_between(stream, rustix::stdio::stdin(), rustix::stdio::stdout())
}

/// [`copy`] with other files for standard input and output. Threads that wait for a read stay behind until the process
/// ends, as nothing can interrupt it.
fn copy_between(
    stream: UnixStream,
    input: impl AsFd + Send + 'static,
    output: impl AsFd + Send + 'static,
) -> Result<(), CopyError> {
    let (events, arriving) = sync_channel(2);
    let (upward, downward) = (stream.try_clone().map_err(CopyError::Io)?, stream);
    let (input_events, output_events) = (events.clone(), events);
    spawn("input", move || {
        let copied = pump(
            |buffer| read_fd(input.as_fd(), buffer),
            |bytes| (&upward).write_all(bytes),
        );
        // Known before the server can react to it: its close is then no surprise.
        let _ = input_events.send(Event::InputEnded(copied));
        // Says to the server that no more will come; it answers what it has and closes.
        let _ = upward.shutdown(Shutdown::Write);
    })?;
    spawn("output", move || {
        let copied = pump(
            |buffer| (&downward).read(buffer),
            |bytes| write_fd(output.as_fd(), bytes),
        );
        let _ = output_events.send(Event::OutputEnded(copied));
    })?;
    outcome(&arriving)
}

fn outcome(arriving: &Receiver<Event>) -> Result<(), CopyError> {
    match arriving.recv() {
        Ok(Event::InputEnded(Ok(()))) => match arriving.recv_timeout(ANSWER_TIMEOUT) {
            Ok(Event::OutputEnded(ended)) => ended.or_else(ignore_departure),
            Ok(Event::InputEnded(_))
            | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(()),
        },
        Ok(Event::InputEnded(Err(error))) if is_departure(&error) => Err(CopyError::ServerGone),
        Ok(Event::OutputEnded(Err(error))) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Ok(Event::OutputEnded(Err(error))) if !is_departure(&error) => Err(CopyError::Io(error)),
        Ok(Event::InputEnded(Err(error))) => Err(CopyError::Io(error)),
        Ok(Event::OutputEnded(_)) | Err(_) => Err(CopyError::ServerGone),
    }
}

fn ignore_departure(error: io::Error) -> Result<(), CopyError> {
    if is_departure(&error) {
        Ok(())
    } else {
        Err(CopyError::Io(error))
    }
}

fn is_departure(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), CopyError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(|_| ())
        .map_err(CopyError::Io)
}

fn pump(
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => write(buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads without the standard library's buffer. A client may hand over files that do not block; those are waited for.
fn read_fd(file: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(file, &mut *buffer) {
            Err(rustix::io::Errno::AGAIN) => wait_for(file, PollFlags::IN)?,
            result => return Ok(result?),
        }
    }
}

fn write_fd(file: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(file, rest) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(rustix::io::Errno::AGAIN) => wait_for(file, PollFlags::OUT)?,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn wait_for(file: BorrowedFd<'_>, readiness: PollFlags) -> io::Result<()> {
    match poll(
        &mut [PollFd::from_borrowed_fd(file.as_fd(), readiness)],
        None,
    ) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// Client's ends of standard input and output, the server's end of the connection, and the front's result.
    fn start() -> (
        UnixStream,
        UnixStream,
        UnixStream,
        std::thread::JoinHandle<Result<(), CopyError>>,
    ) {
        let (client_input, front_input) = UnixStream::pair().unwrap();
        let (client_output, front_output) = UnixStream::pair().unwrap();
        let (server, front_server) = UnixStream::pair().unwrap();
        let front =
            std::thread::spawn(move || copy_between(front_server, front_input, front_output));
        (client_input, client_output, server, front)
    }

    #[test]
    fn bytes_pass_both_ways_and_the_clients_end_ends_it() {
        let (mut input, mut output, mut server, front) = start();
        let request = vec![b'q'; 300_000];
        let sent = request.clone();
        let writer = std::thread::spawn(move || {
            input.write_all(&sent).unwrap();
        });
        let mut received = Vec::new();
        server.read_to_end(&mut received).unwrap();
        writer.join().unwrap();
        assert_eq!(received, request);
        server
            .write_all(b"the answer comes after the end of input")
            .unwrap();
        drop(server);
        let mut answer = String::new();
        output.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "the answer comes after the end of input");
        assert!(front.join().unwrap().is_ok());
    }

    #[test]
    fn a_server_that_dies_is_an_error() {
        let (_input, _output, server, front) = start();
        let begin = Instant::now();
        drop(server);
        assert!(matches!(front.join().unwrap(), Err(CopyError::ServerGone)));
        assert!(begin.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_client_that_reads_no_more_ends_it_without_an_error() {
        let (_input, output, mut server, front) = start();
        drop(output);
        // The connection itself stays open here until the process ends, as the other thread waits for input.
        server
            .set_write_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        while server.write_all(&[b'x'; 4096]).is_ok() {}
        assert!(front.join().unwrap().is_ok());
    }

    #[test]
    fn a_slow_reader_slows_the_writer_down() {
        let (_input, output, mut server, _front) = start();
        server
            .set_write_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let mut written = 0_usize;
        while let Ok(count) = server.write(&[b'x'; 65_536]) {
            written += count;
            assert!(
                written < 8 << 20,
                "nobody reads, and still everything is taken"
            );
        }
        drop(output);
    }
}

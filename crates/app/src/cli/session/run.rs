//! One execution over the stream protocol: this process's terminal or pipes on one side, the session on the other.

use std::io::{self, Write};

use tokio::{
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use super::{super::terminal, CliError, Context};
use crate::{
    cli::{EXIT_NOT_RUN, EXIT_SIGNAL_BASE, EXIT_TIMED_OUT, output::note},
    server::handshake::Mode,
    stream::{ClientFrame, Ending, MAX_PAYLOAD_BYTES, ServerFrame, StreamRequest},
};

/// Signal of a write that nobody reads; the exit code of a program that it ended says 128 + 13.
const SIGPIPE: u8 = 13;

/// What becomes of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sink {
    /// Standard output and error of this process.
    Pass,
    /// Nothing: it is read in another way afterwards.
    Drop,
}

/// How a run ended.
pub(super) struct Run {
    /// The execution.
    pub(super) execution_id: String,
    /// Its end.
    pub(super) ending: Ending,
    /// Nobody read the output any more.
    pub(super) output_closed: bool,
    /// Bytes of output that were no longer kept when their turn came.
    pub(super) lost_bytes: u64,
}

impl Run {
    /// Says what a person should know beside the output.
    pub(super) fn say_notes(&self) {
        for text in &self.ending.notes {
            note(text);
        }
        if self.lost_bytes > 0 {
            note(&format!(
                "{} bytes of output came faster than they were read and were no longer kept; write them to a file inside \
                 and fetch it with `claude-code-mcp session cp`",
                self.lost_bytes
            ));
        }
    }

    /// The exit code that this process ends with. Output with a hole is no success.
    pub(super) fn exit_code(&self) -> u8 {
        if self.output_closed {
            return EXIT_SIGNAL_BASE + SIGPIPE;
        }
        match (
            self.ending.state.as_str(),
            self.ending.exit_code,
            self.ending.signal,
        ) {
            ("timedOut", ..) => EXIT_TIMED_OUT,
            ("failed", ..) => EXIT_NOT_RUN,
            (_, Some(0), _) if self.lost_bytes > 0 => EXIT_NOT_RUN,
            (_, Some(code), _) => u8::try_from(code & 0xff).unwrap_or(EXIT_NOT_RUN),
            (_, None, Some(signal)) => {
                EXIT_SIGNAL_BASE.saturating_add(u8::try_from(signal & 0x7f).unwrap_or_default())
            }
            (_, None, None) => EXIT_NOT_RUN,
        }
    }
}

/// Runs the request to its end.
pub(super) async fn run(
    context: &Context,
    request: &StreamRequest,
    sink: Sink,
) -> Result<Run, CliError> {
    let stream = context.connect(Mode::Stream, Vec::new())?.stream;
    stream.set_nonblocking(true).map_err(CliError::Runtime)?;
    let (reader, mut writer) = UnixStream::from_std(stream)
        .map_err(CliError::Runtime)?
        .into_split();
    let mut line = serde_json::to_vec(request).map_err(|error| CliError::Terminal(error.into()))?;
    line.push(b'\n');
    tokio::io::AsyncWriteExt::write_all(&mut writer, &line)
        .await
        .map_err(|error| CliError::Stream(error.into()))?;
    Bridge {
        writer,
        input: if request.stdin {
            Input::Ready
        } else {
            Input::Ended
        },
        chunks: if request.stdin {
            read_stdin()?
        } else {
            mpsc::channel(1).1
        },
        resizes: if request.terminal.is_some() {
            Some(watch(SignalKind::window_change())?)
        } else {
            None
        },
        interrupts: if request.terminal.is_none() {
            Some(watch(SignalKind::interrupt())?)
        } else {
            None
        },
        sink,
        execution_id: String::new(),
        output_closed: false,
        lost_bytes: 0,
    }
    .carry(reader)
    .await
}

fn watch(kind: SignalKind) -> Result<Signal, CliError> {
    signal(kind).map_err(CliError::Terminal)
}

/// Whether standard input may be read: the server takes one piece at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Ready,
    UnderWay,
    Ended,
}

struct Bridge {
    writer: OwnedWriteHalf,
    input: Input,
    chunks: mpsc::Receiver<Vec<u8>>,
    resizes: Option<Signal>,
    interrupts: Option<Signal>,
    sink: Sink,
    execution_id: String,
    output_closed: bool,
    lost_bytes: u64,
}

impl Bridge {
    async fn carry(mut self, reader: OwnedReadHalf) -> Result<Run, CliError> {
        let mut frames = read_frames(reader);
        loop {
            tokio::select! {
                frame = frames.recv() => {
                    let ended = match frame {
                        Some(frame) => self.take(frame?).await?,
                        None => return Err(lost_connection()),
                    };
                    if let Some(ending) = ended {
                        let Bridge { execution_id, output_closed, lost_bytes, .. } = self;
                        return Ok(Run { execution_id, ending, output_closed, lost_bytes });
                    }
                }
                chunk = self.chunks.recv(), if self.input == Input::Ready => {
                    self.input = if chunk.is_some() { Input::UnderWay } else { Input::Ended };
                    self.send(chunk.map_or(ClientFrame::InputEnd, ClientFrame::Input)).await?;
                }
                () = next(&mut self.resizes) => self.send(ClientFrame::Resize(terminal::size())).await?,
                () = next(&mut self.interrupts) => self.send(ClientFrame::Cancel).await?,
            }
        }
    }

    /// Takes one frame; gives the end if that was it.
    async fn take(&mut self, frame: ServerFrame) -> Result<Option<Ending>, CliError> {
        match frame {
            ServerFrame::Started(id) => self.execution_id = id,
            ServerFrame::Stdout(bytes) => {
                let written = self.pass(&mut io::stdout(), &bytes);
                self.notice(written).await?;
            }
            ServerFrame::Stderr(bytes) => {
                let written = self.pass(&mut io::stderr(), &bytes);
                self.notice(written).await?;
            }
            ServerFrame::Lost(count) if self.sink == Sink::Pass => {
                self.lost_bytes = self.lost_bytes.saturating_add(count)
            }
            ServerFrame::Lost(_) => {}
            ServerFrame::Accepted if self.input == Input::UnderWay => self.input = Input::Ready,
            ServerFrame::Accepted => {}
            ServerFrame::Refused(error) => return Err(CliError::Refused(error)),
            ServerFrame::Ended(ending) => return Ok(Some(ending)),
        }
        Ok(None)
    }

    fn pass(&self, out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
        if self.sink == Sink::Drop || self.output_closed {
            return Ok(());
        }
        out.write_all(bytes)?;
        out.flush()
    }

    /// When nobody reads any more the command is ended, as a pipe would end it.
    async fn notice(&mut self, written: io::Result<()>) -> Result<(), CliError> {
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.output_closed = true;
                self.send(ClientFrame::Cancel).await
            }
            Err(error) => Err(CliError::Terminal(error)),
        }
    }

    async fn send(&mut self, frame: ClientFrame) -> Result<(), CliError> {
        match frame.write(&mut self.writer).await {
            // The server has closed: what it said last is still to be read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result.map_err(|error| CliError::Stream(error.into())),
        }
    }
}

fn lost_connection() -> CliError {
    CliError::Stream(io::Error::from(io::ErrorKind::UnexpectedEof).into())
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Frames as they come. Reading one cannot be given up half-way, so it has its own task.
fn read_frames(reader: OwnedReadHalf) -> mpsc::Receiver<Result<ServerFrame, CliError>> {
    let (sender, frames) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut reader = tokio::io::BufReader::new(reader);
        loop {
            let frame = match ServerFrame::read(&mut reader).await {
                Ok(Some(frame)) => Ok(frame),
                Ok(None) => return,
                Err(error) => Err(CliError::Stream(error)),
            };
            let failed = frame.is_err();
            if sender.send(frame).await.is_err() || failed {
                return;
            }
        }
    });
    frames
}

/// Standard input in pieces. The thread stays behind when the run ends first: nothing can interrupt its read.
fn read_stdin() -> Result<mpsc::Receiver<Vec<u8>>, CliError> {
    let (sender, chunks) = mpsc::channel(1);
    let read = move || {
        let mut buffer = vec![0; MAX_PAYLOAD_BYTES];
        loop {
            let count = match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
                Ok(count) => count,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => 0,
            };
            let chunk = buffer.get(..count).unwrap_or_default().to_vec();
            if chunk.is_empty() || sender.blocking_send(chunk).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("input".to_owned())
        .spawn(read)
        .map_err(CliError::Runtime)?;
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_command() {
        let run = |state: &str, exit_code, signal| Run {
            execution_id: String::new(),
            ending: Ending {
                state: state.to_owned(),
                exit_code,
                signal,
                notes: Vec::new(),
            },
            output_closed: false,
            lost_bytes: 0,
        };
        assert_eq!(run("exited", Some(0), None).exit_code(), 0);
        assert_eq!(run("exited", Some(7), None).exit_code(), 7);
        assert_eq!(run("killed", None, Some(9)).exit_code(), 137);
        assert_eq!(run("timedOut", None, Some(15)).exit_code(), EXIT_TIMED_OUT);
        assert_eq!(run("failed", None, None).exit_code(), EXIT_NOT_RUN);
        assert_eq!(
            Run {
                output_closed: true,
                ..run("killed", None, Some(15))
            }
            .exit_code(),
            141
        );
        assert_eq!(
            Run {
                lost_bytes: 1,
                ..run("exited", Some(0), None)
            }
            .exit_code(),
            EXIT_NOT_RUN
        );
        assert_eq!(
            Run {
                lost_bytes: 1,
                ..run("exited", Some(3), None)
            }
            .exit_code(),
            3
        );
    }
}

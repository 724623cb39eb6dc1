//! Frames of the stream protocol.

use std::io;

use mcp::reply::ErrorBody;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest payload, bytes: what one read of a pipe gives.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024;
const HEADER_BYTES: usize = 5;

/// Size of a terminal, character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TerminalSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// What the client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientFrame {
    /// Bytes for standard input.
    Input(Vec<u8>),
    /// Standard input ends here.
    InputEnd,
    /// The terminal's window changed.
    Resize(TerminalSize),
    /// End the execution.
    Cancel,
}

/// How the execution ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ending {
    /// Its final state, as in replies.
    pub state: String,
    /// Its exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// What a person should know: a failure, files that were moved aside.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What the server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFrame {
    /// The execution's id: it runs.
    Started(String),
    /// Bytes of standard output.
    Stdout(Vec<u8>),
    /// Bytes of standard error.
    Stderr(Vec<u8>),
    /// That many bytes of output were no longer kept when their turn came.
    Lost(u64),
    /// The last input was handed over.
    Accepted,
    /// It ended.
    Ended(Ending),
    /// It was refused, or the server lets go of it.
    Refused(ErrorBody),
}

/// A frame that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection failed, or ended within a frame.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// A kind that does not exist.
    #[error("unknown kind of frame {0}")]
    UnknownKind(u8),
    /// Longer than [`MAX_PAYLOAD_BYTES`].
    #[error("a frame of {0} bytes is too long")]
    TooLong(u32),
    /// A payload that does not fit its kind.
    #[error("a frame of kind {0} has a payload that does not fit")]
    Payload(u8),
}

const INPUT: u8 = 1;
const INPUT_END: u8 = 2;
const RESIZE: u8 = 3;
const CANCEL: u8 = 4;
const STARTED: u8 = 16;
const STDOUT: u8 = 17;
const STDERR: u8 = 18;
const LOST: u8 = 19;
const ACCEPTED: u8 = 20;
const ENDED: u8 = 21;
const REFUSED: u8 = 22;

impl ClientFrame {
    /// Reads a frame; `None` at the end of the stream.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub async fn read(reader: &mut (impl AsyncRead + Unpin)) -> Result<Option<Self>, FrameError> {
        let Some((kind, payload)) = read(reader).await? else {
            return Ok(None);
        };
        Ok(Some(match kind {
            INPUT => ClientFrame::Input(payload),
            INPUT_END => ClientFrame::InputEnd,
            CANCEL => ClientFrame::Cancel,
            RESIZE => {
                let &[rows_high, rows_low, columns_high, columns_low] = payload.as_slice() else {
                    return Err(FrameError::Payload(kind));
                };
                ClientFrame::Resize(TerminalSize {
                    rows: u16::from_be_bytes([rows_high, rows_low]),
                    columns: u16::from_be_bytes([columns_high, columns_low]),
                })
            }
            other => return Err(FrameError::UnknownKind(other)),
        }))
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn write(&self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        match self {
            ClientFrame::Input(bytes) => write(writer, INPUT, bytes).await,
            ClientFrame::InputEnd => write(writer, INPUT_END, &[]).await,
            ClientFrame::Cancel => write(writer, CANCEL, &[]).await,
            ClientFrame::Resize(size) => {
                let payload = [size.rows.to_be_bytes(), size.columns.to_be_bytes()].concat();
                write(writer, RESIZE, &payload).await
            }
        }
    }
}

impl ServerFrame {
    /// Reads a frame; `None` at the end of the stream.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub async fn read(reader: &mut (impl AsyncRead + Unpin)) -> Result<Option<Self>, FrameError> {
        let Some((kind, payload)) = read(reader).await? else {
            return Ok(None);
        };
        let wrong = || FrameError::Payload(kind);
        Ok(Some(match kind {
            STARTED => ServerFrame::Started(String::from_utf8(payload).map_err(|_| wrong())?),
            STDOUT => ServerFrame::Stdout(payload),
            STDERR => ServerFrame::Stderr(payload),
            LOST => ServerFrame::Lost(u64::from_be_bytes(payload.try_into().map_err(|_| wrong())?)),
            ACCEPTED => ServerFrame::Accepted,
            ENDED => ServerFrame::Ended(serde_json::from_slice(&payload).map_err(|_| wrong())?),
            REFUSED => ServerFrame::Refused(serde_json::from_slice(&payload).map_err(|_| wrong())?),
            other => return Err(FrameError::UnknownKind(other)),
        }))
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn write(&self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        match self {
            ServerFrame::Started(id) => write(writer, STARTED, id.as_bytes()).await,
            ServerFrame::Stdout(bytes) => write(writer, STDOUT, bytes).await,
            ServerFrame::Stderr(bytes) => write(writer, STDERR, bytes).await,
            ServerFrame::Lost(count) => write(writer, LOST, &count.to_be_bytes()).await,
            ServerFrame::Accepted => write(writer, ACCEPTED, &[]).await,
            ServerFrame::Ended(ending) => write(writer, ENDED, &serde_json::to_vec(ending)?).await,
            ServerFrame::Refused(error) => {
                write(writer, REFUSED, &serde_json::to_vec(error)?).await
            }
        }
    }
}

async fn read(reader: &mut (impl AsyncRead + Unpin)) -> Result<Option<(u8, Vec<u8>)>, FrameError> {
    let kind = match reader.read_u8().await {
        Ok(kind) => kind,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let length = reader.read_u32().await?;
    let bytes = usize::try_from(length).map_err(|_| FrameError::TooLong(length))?;
    if bytes > MAX_PAYLOAD_BYTES {
        return Err(FrameError::TooLong(length));
    }
    let mut payload = vec![0; bytes];
    reader.read_exact(&mut payload).await?;
    Ok(Some((kind, payload)))
}

/// Longer payloads become several frames; only the bytes of streams are ever that long.
async fn write(writer: &mut (impl AsyncWrite + Unpin), kind: u8, payload: &[u8]) -> io::Result<()> {
    let mut rest = payload;
    loop {
        let (chunk, after) = rest.split_at(rest.len().min(MAX_PAYLOAD_BYTES));
        let length = u32::try_from(chunk.len()).map_err(io::Error::other)?;
        let mut frame = Vec::with_capacity(HEADER_BYTES + chunk.len());
        frame.push(kind);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(chunk);
        writer.write_all(&frame).await?;
        rest = after;
        if rest.is_empty() {
            return writer.flush().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_read_back_what_was_written() {
        let ending = Ending {
            state: "exited".into(),
            exit_code: Some(3),
            signal: None,
            notes: vec!["n".into()],
        };
        let frames = [
            ServerFrame::Started("x-1".into()),
            ServerFrame::Stdout(vec![0, 255, b'\n']),
            ServerFrame::Stderr(Vec::new()),
            ServerFrame::Lost(u64::MAX),
            ServerFrame::Accepted,
            ServerFrame::Ended(ending),
        ];
        let mut bytes = Vec::new();
        for frame in &frames {
            frame.write(&mut bytes).await.unwrap();
        }
        let mut reader = bytes.as_slice();
        for frame in frames {
            assert_eq!(ServerFrame::read(&mut reader).await.unwrap(), Some(frame));
        }
        assert_eq!(ServerFrame::read(&mut reader).await.unwrap(), None);

        let resize = ClientFrame::Resize(TerminalSize {
            rows: 24,
            columns: 300,
        });
        let mut bytes = Vec::new();
        resize.write(&mut bytes).await.unwrap();
        assert_eq!(
            ClientFrame::read(&mut bytes.as_slice()).await.unwrap(),
            Some(resize)
        );
    }

    #[tokio::test]
    async fn long_output_becomes_several_frames() {
        let bytes = vec![7; MAX_PAYLOAD_BYTES + 1];
        let mut wire = Vec::new();
        ServerFrame::Stdout(bytes).write(&mut wire).await.unwrap();
        let mut reader = wire.as_slice();
        let mut total = 0;
        while let Some(ServerFrame::Stdout(part)) = ServerFrame::read(&mut reader).await.unwrap() {
            total += part.len();
        }
        assert_eq!(total, MAX_PAYLOAD_BYTES + 1);
    }

    #[tokio::test]
    async fn hostile_frames_are_refused_before_memory_is_taken() {
        let cases: [&[u8]; 4] = [
            &[1, 255, 255, 255, 255],
            &[9, 0, 0, 0, 0],
            &[3, 0, 0, 0, 1, 0],
            &[1, 0, 0, 0, 5, 1],
        ];
        for bytes in cases {
            let mut reader = bytes;
            assert!(ClientFrame::read(&mut reader).await.is_err(), "{bytes:?}");
        }
    }
}

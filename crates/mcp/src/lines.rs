//! Lines of a client, and what a parser of JSON forgets of them.
//!
//! Of two members with one name rmcp's parser keeps the last, it rounds numbers, and it gives up a line that nests too
//! deeply. Options of an engine must not be judged by what is left of them: so they are cut out of the line and read by
//! `options` as they stand there, and the message carries them beside its arguments. Whatever this misses is empty or
//! refused, never obeyed: an argument that still has options in it did not come from here.
//!
//! The body of a request of HTTP is such a line, too, wherever it is broken: [`Body`].
//!
//! Reading order: [`Lines`] (the transport), `skim` (where things stand in a line), `options` (what they are).

mod options;
mod skim;

use std::io;

use futures::{FutureExt, StreamExt, future::BoxFuture};
use model::DockerOptions;
use rmcp::{
    ErrorData, RoleServer,
    model::{ClientRequest, JsonRpcMessage},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::{
        Transport,
        async_rw::{AsyncRwTransport, JsonRpcMessageCodec, JsonRpcMessageCodecError},
    },
};
use serde_json::error::Category;
use tokio::io::{AsyncRead, AsyncWrite, Empty};
use tokio_util::{
    bytes::{Bytes, BytesMut},
    codec::{AnyDelimiterCodec, AnyDelimiterCodecError, Decoder, FramedRead},
};

use skim::Skimmed;

/// What a call's line said besides its arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// `dockerOpts` as it stood there; an empty object stands in its place among the arguments.
    pub(crate) docker_options: Option<DockerOptions>,
    /// An argument, or a field of one, that is given twice.
    pub(crate) twice: Option<String>,
}

impl Said {
    fn of(line: &[u8], skimmed: Skimmed) -> Self {
        let docker_options = match skimmed.options.as_slice() {
            [] => None,
            [only] => Some(options::read(&line[only.clone()])),
            _ => Some(DockerOptions::unreadable(model::Unreadable::GivenTwice)),
        };
        Said {
            docker_options,
            twice: skimmed.twice,
        }
    }
}

/// The body of a request of HTTP.
pub(crate) struct Body {
    /// What is left of it for the parser.
    pub(crate) rest: Bytes,
    /// What it says besides.
    pub(crate) said: Said,
}

impl Body {
    /// Reads it.
    ///
    /// # Errors
    /// The path of a member of the message that stands there twice. Whoever stands between us and the client (a proxy
    /// that routes or logs by the method or the name of a tool) may have read the other one.
    pub(crate) fn read(body: &[u8]) -> Result<Self, String> {
        if let Some(member) = skim::message_given_twice(body) {
            return Err(member);
        }
        let skimmed = Skimmed::of(body);
        Ok(Body {
            rest: skimmed.without_options(body).freeze(),
            said: Said::of(body, skimmed),
        })
    }
}

/// The transport of one connection: newline-separated JSON-RPC.
pub(crate) struct Lines<R, W: AsyncWrite> {
    read: FramedRead<R, Split>,
    write: AsyncRwTransport<RoleServer, Empty, W>,
    /// An answer to a line that is no message. Kept here because `receive` can be dropped at any time.
    complaint: Option<BoxFuture<'static, io::Result<()>>>,
}

impl<R, W> Lines<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    /// Lines longer than so many bytes are dropped unread.
    pub(crate) fn new(read: R, write: W, max_line_bytes: usize) -> Self {
        Lines {
            read: FramedRead::new(read, Split::new(max_line_bytes)),
            write: AsyncRwTransport::new_server(tokio::io::empty(), write),
            complaint: None,
        }
    }
}

impl<R, W> Transport<RoleServer> for Lines<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    type Error = io::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.write.send(message)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            if let Some(complaint) = &mut self.complaint {
                let written = complaint.await;
                self.complaint = None;
                written.ok()?;
            }
            match self.read.next().await? {
                Ok(Line::Message(message)) => return Some(*message),
                Ok(Line::Nothing) => {}
                Ok(Line::NoMessage) => {
                    let error = ErrorData::invalid_request("Invalid request", None);
                    let answer = TxJsonRpcMessage::<RoleServer>::error(error, None);
                    self.complaint = Some(self.write.send(answer).boxed());
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be read");
                    return None;
                }
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.write.close().await
    }
}

/// One line.
enum Line {
    Message(Box<RxJsonRpcMessage<RoleServer>>),
    /// Nothing to answer: empty, too long, no JSON, or a notification that is none of ours.
    Nothing,
    /// JSON, but not of this protocol.
    NoMessage,
}

struct Split(AnyDelimiterCodec);

impl Split {
    fn new(max_line_bytes: usize) -> Self {
        let newline = || b"\n".to_vec();
        Split(AnyDelimiterCodec::new_with_max_length(
            newline(),
            newline(),
            max_line_bytes,
        ))
    }
}

impl Decoder for Split {
    type Item = Line;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Line>> {
        match self.0.decode(buffer) {
            Ok(line) => Ok(line.map(|line| read(&line))),
            Err(AnyDelimiterCodecError::MaxChunkLengthExceeded) => {
                tracing::warn!("a client's line is too long, and dropped");
                Ok(Some(Line::Nothing))
            }
            Err(AnyDelimiterCodecError::Io(error)) => Err(error),
        }
    }

    /// What has no end of line is no line.
    fn decode_eof(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Line>> {
        let line = self.decode(buffer)?;
        if line.is_none() {
            buffer.clear();
        }
        Ok(line)
    }
}

fn read(line: &[u8]) -> Line {
    if line.trim_ascii().is_empty() {
        return Line::Nothing;
    }
    let skimmed = Skimmed::of(line);
    let mut buffer = skimmed.without_options(line);
    buffer.extend_from_slice(b"\n");
    match JsonRpcMessageCodec::default().decode(&mut buffer) {
        Ok(Some(mut message)) => {
            attach(&mut message, line, skimmed);
            Line::Message(Box::new(message))
        }
        Ok(None) => Line::Nothing,
        // No id can be told, and an answer to noise invites more of it.
        Err(JsonRpcMessageCodecError::Serde(error)) => match error.classify() {
            Category::Syntax | Category::Eof => Line::Nothing,
            Category::Data | Category::Io => Line::NoMessage,
        },
        Err(error) => {
            tracing::debug!(%error, "a client's line could not be read");
            Line::Nothing
        }
    }
}

fn attach(message: &mut RxJsonRpcMessage<RoleServer>, line: &[u8], skimmed: Skimmed) {
    let JsonRpcMessage::Request(request) = message else {
        return;
    };
    let ClientRequest::CallToolRequest(call) = &mut request.request else {
        return;
    };
    call.extensions.insert(Said::of(line, skimmed));
}

#[cfg(test)]
mod tests;

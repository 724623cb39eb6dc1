//! Claude Code's program as a layer of an image, streamed: it is too large to be held in memory.

use std::{
    io::{self, Cursor},
    path::Path,
};

use bytes::Bytes;
use futures::Stream;
use model::{AGENT_DIRECTORY, AGENT_PROGRAM_NAME};
use tokio::{fs::File, io::AsyncReadExt};
use tokio_util::io::ReaderStream;

use super::build::AgentLayer;

/// Label that says which one is in it, and that such an image is not for others.
pub(crate) const AGENT_LABEL: &str = "claude-code-mcp.agent";
/// A tar is made of blocks of so many bytes, and ends with two empty ones.
const BLOCK_BYTES: u64 = 512;

/// The context of a build on `from`: a Dockerfile and the program.
///
/// # Errors
/// When the program cannot be read.
pub(super) async fn context(
    from: &str,
    agent: &AgentLayer,
) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static> {
    let dockerfile = format!(
        "FROM {from}\nCOPY {AGENT_PROGRAM_NAME} {AGENT_DIRECTORY}/{AGENT_PROGRAM_NAME}\nLABEL {AGENT_LABEL}={}\n",
        serde_json::to_string(&format!(
            "{}; proprietary, not to be published",
            agent.description
        ))?
    );
    let program = File::open(&agent.program).await?;
    let bytes = program.metadata().await?.len();
    let mut head = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(dockerfile.len() as u64);
    header.set_mode(0o644);
    head.append_data(&mut header, "Dockerfile", dockerfile.as_bytes())?;
    let mut head = std::mem::take(head.get_mut());
    let mut header = tar::Header::new_gnu();
    header.set_path(Path::new(AGENT_PROGRAM_NAME))?;
    header.set_size(bytes);
    header.set_mode(0o555);
    header.set_cksum();
    head.extend_from_slice(header.as_bytes());
    let padding = bytes.next_multiple_of(BLOCK_BYTES) - bytes;
    let tail = vec![0; usize::try_from(padding + 2 * BLOCK_BYTES).unwrap_or_default()];
    let whole = Cursor::new(head)
        .chain(program.take(bytes))
        .chain(Cursor::new(tail));
    Ok(ReaderStream::with_capacity(whole, 256 * 1024))
}

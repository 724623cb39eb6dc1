//! Files whose content comes with calls and goes back with replies, a piece at a time.
//!
//! A file of one piece goes straight in or out. One of more pieces is kept meanwhile, in a file without a name on the server's
//! disk, which vanishes with the server. The first piece gives it an id; that belongs to whoever began, is taken by one call at a
//! time, and is gone ten minutes after its last use.

use std::{
    collections::HashMap,
    io::SeekFrom,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use model::{
    FileChunk, FileWritten, MAX_INLINE_BYTES, ReadFile, Reason, Refusal, SessionId, UploadId,
    WORKSPACE_PATH, WriteFile,
};
use policy::{FileParts, FilePermit, MAX_INLINE_FILE_BYTES};
use sandbox::{
    ExportFrame, TransferLimits,
    wire::{Entry, EntryKind, MAX_CHUNK_BYTES, TransferEnd, TransferFrame},
};
use sha2::{Digest, Sha256};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
    time::Instant,
};

use crate::{
    live::{Live, ProtectedBy},
    refusals,
    sessions::Sessions,
    transfer::check_protected,
};

/// Files under way in one session at most.
const MAX_PER_SESSION: usize = 4;
/// Files under way on the server at most: 64 of 64 MiB at worst, on the disk that has the state database.
const MAX_IN_ALL: usize = 64;
/// How long one is kept that nobody goes on with.
const MAX_IDLE: Duration = Duration::from_secs(10 * 60);
/// Mode of a file that comes without one.
const FILE_MODE: u32 = 0o644;

/// The files under way.
#[derive(Default)]
pub(crate) struct Pieces(Mutex<HashMap<UploadId, Slot>>);

/// One file under way.
struct Slot {
    session: SessionId,
    owner: String,
    way: Way,
    touched: Instant,
    /// `None` while a call works on it.
    piece: Option<Piece>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

/// What there is of it.
struct Piece {
    file: File,
    bytes: u64,
    digest: Sha256,
}

impl Piece {
    async fn new(directory: &Path) -> Result<Self, Refusal> {
        let directory = directory.to_owned();
        let made = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&directory)?;
            tempfile::tempfile_in(&directory)
        });
        let file = made.await.map_err(|error| Refusal::internal(&error))?;
        Ok(Piece {
            file: File::from_std(file.map_err(|error| not_kept(&error))?),
            bytes: 0,
            digest: Sha256::new(),
        })
    }

    async fn append(&mut self, content: &[u8]) -> Result<(), Refusal> {
        let written = async {
            self.file.write_all(content).await?;
            self.file.flush().await
        };
        written.await.map_err(|error| not_kept(&error))?;
        self.digest.update(content);
        self.bytes += content.len() as u64;
        Ok(())
    }

    async fn read(&mut self, offset: u64, length: u64) -> Result<Vec<u8>, Refusal> {
        let length = length.min(self.bytes.saturating_sub(offset));
        let mut content = vec![0; usize::try_from(length).unwrap_or(MAX_INLINE_BYTES)];
        let read = async {
            self.file.seek(SeekFrom::Start(offset)).await?;
            self.file.read_exact(&mut content).await
        };
        read.await.map_err(|error| not_kept(&error))?;
        Ok(content)
    }

    fn sha256(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }
}

impl Pieces {
    /// Makes room for a file under way.
    fn open(&self, session: SessionId, owner: &str, way: Way) -> Result<UploadId, Refusal> {
        let id = UploadId::random().map_err(|error| Refusal::internal(&error))?;
        let mut slots = self.lock();
        sweep(&mut slots);
        let open = slots
            .values()
            .filter(|slot| slot.session == session)
            .count();
        if open >= MAX_PER_SESSION {
            let message = format!("{MAX_PER_SESSION} files are under way in this session already.");
            let hint = "Send the last piece of one, or read one to its end; what is left alone is dropped after ten minutes.";
            return Err(Refusal::new(Reason::LimitReached, message, hint));
        }
        if slots.len() >= MAX_IN_ALL {
            let message = "Too many files are under way on this server.";
            let hint = "Try again in a few minutes; what is left alone is dropped after ten.";
            return Err(Refusal::new(Reason::LimitReached, message, hint));
        }
        let slot = Slot {
            session,
            owner: owner.to_owned(),
            way,
            touched: Instant::now(),
            piece: None,
        };
        slots.insert(id, slot);
        Ok(id)
    }

    /// Takes a file under way, for one call.
    fn take(&self, id: UploadId, parts: &FileParts, way: Way) -> Result<Piece, Refusal> {
        let mut slots = self.lock();
        sweep(&mut slots);
        let is_theirs = |slot: &&mut Slot| {
            slot.session == parts.session && slot.owner == parts.owner && slot.way == way
        };
        let piece = slots
            .get_mut(&id)
            .filter(is_theirs)
            .and_then(|slot| slot.piece.take());
        piece.ok_or_else(|| {
            let message = "No file is under way by this handle, or another call works on it.";
            let hint = "Begin anew without a handle; one is dropped after ten minutes, with its session, and when a piece fails.";
            Refusal::new(Reason::InvalidArgument, message, hint).in_field("handle")
        })
    }

    fn put_back(&self, id: UploadId, piece: Piece) {
        if let Some(slot) = self.lock().get_mut(&id) {
            slot.touched = Instant::now();
            slot.piece = Some(piece);
        }
    }

    fn close(&self, id: UploadId) {
        self.lock().remove(&id);
    }

    /// Drops those of a session that ends; a call that works on one drops it when it is done.
    pub(crate) fn forget(&self, session: SessionId) {
        self.lock().retain(|_, slot| slot.session != session);
    }

    /// Drops what nobody goes on with.
    pub(crate) fn sweep(&self) {
        sweep(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UploadId, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sweep(slots: &mut HashMap<UploadId, Slot>) {
    // One that a call works on is not idle.
    slots.retain(|_, slot| slot.piece.is_none() || slot.touched.elapsed() < MAX_IDLE);
}

/// Closes a file under way unless it is kept: also when its call fails, or nobody waits for it any more.
struct Hold<'a> {
    pieces: &'a Pieces,
    id: UploadId,
    is_kept: bool,
}

impl Hold<'_> {
    /// The call goes on with it.
    fn keep_open(mut self) -> UploadId {
        self.is_kept = true;
        self.id
    }

    fn keep(mut self, piece: Piece) -> UploadId {
        self.pieces.put_back(self.id, piece);
        self.is_kept = true;
        self.id
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.pieces.close(self.id);
        }
    }
}

impl Sessions {
    /// Takes a piece of a file; the last one puts the file in its place, whole or not at all.
    ///
    /// # Errors
    /// `invalid_argument` for a piece that does not go on where the last one ended, or for a handle of somebody else's; as for
    /// [`Sessions::transfer`].
    pub async fn write_file(
        &self,
        permit: FilePermit,
        asked: &WriteFile,
    ) -> Result<FileWritten, Refusal> {
        let parts = permit.into_parts();
        let live = self.0.ready(parts.session).await?;
        live.touch();
        let content = asked.content.expose();
        if asked.upload.is_none() && asked.is_last {
            in_order(asked.offset, 0)?;
            self.put(&live, &parts, Content::Memory(content)).await?;
            return Ok(FileWritten {
                session: parts.session,
                upload: None,
                bytes: content.len() as u64,
                sha256: Sha256::digest(content).into(),
            });
        }
        let (id, mut piece) = match asked.upload {
            Some(id) => (id, self.0.pieces.take(id, &parts, Way::In)?),
            None => {
                in_order(asked.offset, 0)?;
                let id = self.0.pieces.open(parts.session, &parts.owner, Way::In)?;
                let hold = self.hold(id);
                let piece = Piece::new(&self.0.setup.transcripts).await?;
                (hold.keep_open(), piece)
            }
        };
        if let Err(refusal) = in_order(asked.offset, piece.bytes) {
            self.0.pieces.put_back(id, piece);
            return Err(refusal);
        }
        let hold = self.hold(id);
        piece.append(content).await?;
        let (bytes, sha256) = (piece.bytes, piece.sha256());
        let upload = if asked.is_last {
            self.put(&live, &parts, Content::Kept(&mut piece)).await?;
            None
        } else {
            Some(hold.keep(piece))
        };
        live.touch();
        Ok(FileWritten {
            session: parts.session,
            upload,
            bytes,
            sha256,
        })
    }

    /// Reads a piece of a file. What is left of it stays as it was at the first piece, whatever happens to the file.
    ///
    /// # Errors
    /// `transfer_entry_refused` for what is no regular file; `too_large`; `invalid_argument` for an offset beyond its end or a
    /// handle of somebody else's; as for [`Sessions::transfer`].
    pub async fn read_file(
        &self,
        permit: FilePermit,
        asked: &ReadFile,
    ) -> Result<FileChunk, Refusal> {
        let parts = permit.into_parts();
        let live = self.0.ready(parts.session).await?;
        live.touch();
        let (id, mut piece) = match asked.download {
            Some(id) => (id, self.0.pieces.take(id, &parts, Way::Out)?),
            None => {
                let id = self.0.pieces.open(parts.session, &parts.owner, Way::Out)?;
                let hold = self.hold(id);
                let piece = self.fetch(&live, &parts).await?;
                (hold.keep_open(), piece)
            }
        };
        if asked.offset > piece.bytes {
            let message = format!(
                "The file has {} bytes and no byte {}.",
                piece.bytes, asked.offset
            );
            self.0.pieces.put_back(id, piece);
            let hint = "Read on at `nextOffset` of the reply before.";
            return Err(Refusal::new(Reason::InvalidArgument, message, hint).in_field("offset"));
        }
        let hold = self.hold(id);
        let length = asked.length.min(MAX_INLINE_BYTES as u64);
        let content = piece.read(asked.offset, length).await?;
        let (total_bytes, sha256) = (piece.bytes, piece.sha256());
        let has_more = asked.offset + (content.len() as u64) < total_bytes;
        live.touch();
        Ok(FileChunk {
            session: parts.session,
            content,
            offset: asked.offset,
            total_bytes,
            sha256,
            download: has_more.then(|| hold.keep(piece)),
        })
    }

    fn hold(&self, id: UploadId) -> Hold<'_> {
        Hold {
            pieces: &self.0.pieces,
            id,
            is_kept: false,
        }
    }

    /// Puts a file in its place inside.
    async fn put(
        &self,
        live: &Arc<Live>,
        parts: &FileParts,
        mut content: Content<'_>,
    ) -> Result<(), Refusal> {
        if let Ok(place) = parts.container.strip_prefix(WORKSPACE_PATH) {
            check_protected(&ProtectedBy(&self.0.settings().policy), place)
                .map_err(|error| refusals::host_transfer(&error))?;
        }
        let refuse = parts
            .refuse
            .iter()
            .map(|pattern| pattern.clone().into_bytes());
        let limits = TransferLimits {
            max_entries: 1,
            max_bytes: MAX_INLINE_FILE_BYTES,
        };
        let mut import = live
            .supervisor
            .import(
                parts.container.as_os_str().as_bytes(),
                refuse.collect(),
                limits,
            )
            .await
            .map_err(|error| refusals::supervisor(&error))?;
        let size = content.bytes();
        let mut frame = TransferFrame::Entry(Entry {
            path: Vec::new(),
            kind: EntryKind::File { size },
            mode: FILE_MODE,
            mtime: now_seconds(),
        });
        let mut offset = 0;
        loop {
            import
                .send(frame)
                .await
                .map_err(|error| refusals::client_transfer(&error))?;
            if offset >= size {
                break;
            }
            let data = content.read(offset).await?;
            offset += data.len() as u64;
            frame = TransferFrame::Data(data);
        }
        let end = import.finish().await;
        match end.map_err(|error| refusals::client_transfer(&error))? {
            TransferEnd::Complete { .. } => {}
            TransferEnd::Refused { fault, path } => {
                let refused = sandbox::TransferError::Refused { fault, path };
                return Err(refusals::client_transfer(&refused));
            }
        }
        self.0
            .note(
                parts.session,
                format!("1 files, {size} bytes into the session"),
            )
            .await;
        Ok(())
    }

    /// Fetches a file from inside.
    async fn fetch(&self, live: &Arc<Live>, parts: &FileParts) -> Result<Piece, Refusal> {
        let limits = TransferLimits {
            max_entries: 1,
            max_bytes: MAX_INLINE_FILE_BYTES,
        };
        let mut export = live
            .supervisor
            .export(parts.container.as_os_str().as_bytes(), limits)
            .await
            .map_err(|error| refusals::supervisor(&error))?;
        let mut piece = Piece::new(&self.0.setup.transcripts).await?;
        while let Some(frame) = export
            .next()
            .await
            .map_err(|error| refusals::client_transfer(&error))?
        {
            match frame {
                ExportFrame::Entry(entry) => match entry.kind {
                    EntryKind::File { .. } => {}
                    EntryKind::Directory | EntryKind::Link { .. } => return Err(no_file()),
                },
                ExportFrame::Data(data) => piece.append(&data).await?,
            }
        }
        let bytes = piece.bytes;
        self.0
            .note(
                parts.session,
                format!("1 files, {bytes} bytes out of the session"),
            )
            .await;
        Ok(piece)
    }
}

/// What is put in place.
enum Content<'a> {
    Memory(&'a [u8]),
    Kept(&'a mut Piece),
}

impl Content<'_> {
    fn bytes(&self) -> u64 {
        match self {
            Content::Memory(content) => content.len() as u64,
            Content::Kept(piece) => piece.bytes,
        }
    }

    async fn read(&mut self, offset: u64) -> Result<Vec<u8>, Refusal> {
        match self {
            Content::Memory(content) => {
                let rest = usize::try_from(offset)
                    .ok()
                    .and_then(|from| content.get(from..));
                let rest = rest.unwrap_or_default();
                Ok(rest[..rest.len().min(MAX_CHUNK_BYTES)].to_vec())
            }
            Content::Kept(piece) => piece.read(offset, MAX_CHUNK_BYTES as u64).await,
        }
    }
}

fn in_order(offset: u64, expected: u64) -> Result<(), Refusal> {
    if offset == expected {
        return Ok(());
    }
    let message = format!("This piece begins at {offset}, and {expected} bytes are there.");
    let hint = "Send the pieces one after another, each at the `bytes` of the reply before.";
    Err(Refusal::new(Reason::InvalidArgument, message, hint).in_field("offset"))
}

fn no_file() -> Refusal {
    Refusal::new(
        Reason::TransferEntryRefused,
        "That is no regular file, and only a file has a content to send.",
        "Name a file; a directory can be packed into one first, such as with `tar -C DIR -czf /tmp/x.tgz .`.",
    )
    .in_field("sourcePath")
}

fn not_kept(error: &std::io::Error) -> Refusal {
    Refusal::new(
        Reason::Internal,
        "The server could not keep the file while it goes over.",
        "Try again; the server's log says more.",
    )
    .with_cause(error)
}

fn now_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}

//! Output that is kept: a few bytes in memory, the rest in an unnamed file of the session's disk, used as a ring.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::{
    fs::{AtFlags, MemfdFlags, Mode, OFlags, memfd_create, openat, unlinkat},
    io::{self, Errno, pread, pwrite},
    rand::{GetRandomFlags, getrandom},
};

/// Kept in memory before a file is made: most commands say less, and making a file costs more than running `true`.
const MEMORY_BYTES: usize = 2048;
/// Moved at once when a ring moves into memory.
const COPY_BYTES: usize = 16 * 1024;

/// What happens when the disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Forget; the offsets show the gap.
    Drop,
    /// Go on in memory: nothing may be lost.
    UseMemory,
}

/// The bytes of one stream from `kept_from` to `total`.
pub struct Spool {
    capacity: u64,
    when_full: WhenFull,
    kept_from: u64,
    total: u64,
    store: Store,
}

enum Store {
    /// All bytes so far.
    Memory(Vec<u8>),
    /// A ring of `capacity` bytes: offset `n` stands at `n % capacity`.
    Ring(OwnedFd),
}

impl Spool {
    /// Keeps the last `capacity` bytes.
    pub const fn new(capacity: u64, when_full: WhenFull) -> Self {
        Spool {
            capacity,
            when_full,
            kept_from: 0,
            total: 0,
            store: Store::Memory(Vec::new()),
        }
    }

    /// Bytes so far.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// First byte that is still kept.
    pub const fn kept_from(&self) -> u64 {
        self.kept_from
    }

    /// Says that nothing before that offset is needed any more.
    pub fn release(&mut self, offset: u64) {
        self.kept_from = self.kept_from.max(offset.min(self.total));
    }

    /// Adds bytes. Never fails: what cannot be kept is missing from `kept_from` on.
    pub fn append(&mut self, data: &[u8], directory: Option<BorrowedFd<'_>>) {
        if self.append_in_memory(data) {
            return;
        }
        let kept = match self.capacity {
            0 => Ok(()),
            _ => self
                .open_ring(directory)
                .and_then(|()| self.write_ring(data)),
        };
        if kept.is_err() {
            self.recover(data);
        }
        self.total += data.len() as u64;
        self.kept_from = self.kept_from.max(self.total.saturating_sub(self.capacity));
    }

    /// Up to `max` bytes from `offset` on, or from the first that is kept; with the offset they start at.
    pub fn read(&self, offset: u64, max: usize) -> io::Result<(u64, Vec<u8>)> {
        let from = offset.max(self.kept_from).min(self.total);
        let length = usize::try_from(self.total - from)
            .unwrap_or(usize::MAX)
            .min(max);
        let data = match &self.store {
            Store::Memory(bytes) => {
                let start = usize::try_from(from).unwrap_or(usize::MAX);
                bytes
                    .get(start..start.saturating_add(length))
                    .unwrap_or_default()
                    .to_vec()
            }
            Store::Ring(ring) => read_ring(ring, self.capacity, from, length)?,
        };
        Ok((from, data))
    }

    fn append_in_memory(&mut self, data: &[u8]) -> bool {
        let Store::Memory(bytes) = &mut self.store else {
            return false;
        };
        let after = bytes.len() + data.len();
        if after > MEMORY_BYTES || after as u64 > self.capacity {
            return false;
        }
        bytes.extend_from_slice(data);
        self.total += data.len() as u64;
        true
    }

    fn open_ring(&mut self, directory: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let Store::Memory(bytes) = &self.store else {
            return Ok(());
        };
        let kept = bytes
            .len()
            .min(usize::try_from(self.capacity).unwrap_or(usize::MAX));
        let first = self.total - kept as u64;
        let kept = &bytes[bytes.len() - kept..];
        let filled = |ring: OwnedFd| write_ring(&ring, self.capacity, first, kept).map(|()| ring);
        let on_disk = directory.and_then(|directory| unnamed_file(directory).and_then(filled).ok());
        let ring = match on_disk {
            Some(ring) => ring,
            None => memory_file().and_then(filled)?,
        };
        self.kept_from = self.kept_from.max(first);
        self.store = Store::Ring(ring);
        Ok(())
    }

    fn write_ring(&self, data: &[u8]) -> io::Result<()> {
        let keep = usize::try_from(self.capacity)
            .unwrap_or(usize::MAX)
            .min(data.len());
        let skipped = data.len() - keep;
        let Store::Ring(ring) = &self.store else {
            return Err(Errno::BADF);
        };
        write_ring(
            ring,
            self.capacity,
            self.total + skipped as u64,
            &data[skipped..],
        )
    }

    /// The disk takes no more.
    fn recover(&mut self, data: &[u8]) {
        let moved = match self.when_full {
            WhenFull::Drop => Err(Errno::NOSPC),
            WhenFull::UseMemory => self.move_to_memory().and_then(|()| self.write_ring(data)),
        };
        if moved.is_err() {
            if matches!(self.store, Store::Memory(_)) {
                // Not even a descriptor was left; offsets and memory would no longer agree.
                self.capacity = 0;
                self.store = Store::Memory(Vec::new());
            }
            // The ring may hold a half-written piece: nothing before the end of this data can be vouched for.
            self.kept_from = self.total + data.len() as u64;
        }
    }

    fn move_to_memory(&mut self) -> io::Result<()> {
        let fresh = memory_file()?;
        if let Store::Ring(old) = &self.store {
            let mut offset = self.kept_from;
            while offset < self.total {
                let length = usize::try_from(self.total - offset)
                    .unwrap_or(COPY_BYTES)
                    .min(COPY_BYTES);
                let piece = read_ring(old, self.capacity, offset, length)?;
                write_ring(&fresh, self.capacity, offset, &piece)?;
                offset += length as u64;
            }
        }
        self.store = Store::Ring(fresh);
        Ok(())
    }
}

fn unnamed_file(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match openat(directory, ".", flags | OFlags::TMPFILE, mode) {
        // Where files cannot be born without a name, it is taken from this one at once.
        Err(Errno::OPNOTSUPP) => {
            let mut random = [0; 8];
            getrandom(&mut random, GetRandomFlags::empty())?;
            let name = format!(".output-{:016x}", u64::from_le_bytes(random));
            let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let file = openat(directory, name.as_str(), flags, mode)?;
            unlinkat(directory, name.as_str(), AtFlags::empty())?;
            Ok(file)
        }
        opened => opened,
    }
}

fn memory_file() -> io::Result<OwnedFd> {
    memfd_create("output", MemfdFlags::CLOEXEC)
}

fn write_ring(ring: &OwnedFd, capacity: u64, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        let (position, length) = piece(capacity, offset, data.len());
        let written = pwrite(ring, &data[..length], position)?;
        if written == 0 {
            return Err(Errno::NOSPC);
        }
        data = &data[written..];
        offset += written as u64;
    }
    Ok(())
}

fn read_ring(ring: &OwnedFd, capacity: u64, mut offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut data = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let (position, part) = piece(capacity, offset, length - filled);
        let read = pread(ring, &mut data[filled..filled + part], position)?;
        if read == 0 {
            return Err(Errno::IO);
        }
        filled += read;
        offset += read as u64;
    }
    Ok(data)
}

/// Where an offset stands in the ring, and how much of `length` fits before the ring's end.
fn piece(capacity: u64, offset: u64, length: usize) -> (u64, usize) {
    let position = offset % capacity.max(1);
    let room = usize::try_from(capacity - position.min(capacity)).unwrap_or(usize::MAX);
    (position, length.min(room))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(capacity: u64, pieces: &[Vec<u8>]) {
        let mut spool = Spool::new(capacity, WhenFull::Drop);
        let mut all = Vec::new();
        for piece in pieces {
            spool.append(piece, None);
            all.extend_from_slice(piece);
        }
        assert_eq!(spool.total(), all.len() as u64);
        assert_eq!(
            spool.kept_from(),
            (all.len() as u64).saturating_sub(capacity)
        );
        let (from, data) = spool.read(0, usize::MAX).unwrap();
        assert_eq!(from, spool.kept_from());
        assert_eq!(data, all[usize::try_from(from).unwrap()..]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_ring_keeps_the_last_bytes(
            capacity in 0u64..6000,
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..8),
        ) {
            check(capacity, &pieces);
        }
    }

    #[test]
    fn reading_past_the_end_gives_nothing() {
        let mut spool = Spool::new(10, WhenFull::Drop);
        spool.append(b"abc", None);
        assert_eq!(spool.read(99, 5).unwrap(), (3, Vec::new()));
        assert_eq!(spool.read(1, 1).unwrap(), (1, b"b".to_vec()));
    }

    #[test]
    fn a_full_disk_drops_or_moves_to_memory_as_told() {
        for (when_full, kept) in [(WhenFull::Drop, 0), (WhenFull::UseMemory, 5000)] {
            let mut spool = Spool::new(10_000, when_full);
            // A descriptor that refuses writes stands for the full disk.
            spool.append(&[1; 3000], None);
            if let Store::Ring(ring) = &spool.store {
                rustix::fs::fcntl_add_seals(ring, rustix::fs::SealFlags::WRITE).unwrap_or(());
            }
            let sealed =
                memfd_create("full", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
            rustix::io::pwrite(&sealed, &[1; 3000], 0).unwrap();
            rustix::fs::fcntl_add_seals(&sealed, rustix::fs::SealFlags::WRITE).unwrap();
            spool.store = Store::Ring(sealed);
            spool.append(&[2; 2000], None);
            assert_eq!(spool.total(), 5000);
            assert_eq!(spool.total() - spool.kept_from(), kept, "{when_full:?}");
        }
    }
}

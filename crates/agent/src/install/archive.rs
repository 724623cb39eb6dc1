//! The one program out of a wheel, an npm package, or a file of its own. An archive is hostile until its hash says
//! otherwise: nothing of it becomes a path here, and only so much is read.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::Path,
};

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use zip::{ZipArchive, result::ZipError};

use super::{FileFacts, InstallError, Pin, Progress};

/// Largest program that is taken, bytes: nearly three times what the pinned one has (381 MB), which grew by half in a year.
pub const MAX_PROGRAM_BYTES: u64 = 1 << 30;
/// Bytes of an unpacked npm package that are looked through for the program: it holds little else.
const MAX_UNPACKED_BYTES: u64 = MAX_PROGRAM_BYTES + (64 << 20);
/// Bytes that are copied at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Longest text that names a version, bytes.
const MAX_VERSION_BYTES: u64 = 256;
/// Beside the program in a wheel: its version, as it says it itself.
const VERSION_SUFFIX: &str = ".version";
/// `e_machine` of the ELF header: its offset and the values of the machines that we know (elf(5)).
const ELF_MACHINE_OFFSET: usize = 18;
const ELF_MACHINES: [(&str, u16); 2] = [("x86_64", 62), ("aarch64", 183)];

/// What kind of file brings the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Wheel,
    Package,
    Program,
}

/// What came out.
#[derive(Debug)]
pub(super) struct Extracted {
    pub program: FileFacts,
    /// As the archive says, if it does.
    pub version: Option<String>,
}

/// What the file is, by its first bytes.
///
/// # Errors
/// [`InstallError::Archive`] when it is none of them.
fn kind_of(mut file: &File, what: &str) -> Result<Kind, InstallError> {
    let mut magic = [0; 4];
    file.rewind().map_err(|error| damaged(what, &error))?;
    let read = file
        .read(&mut magic)
        .map_err(|error| damaged(what, &error))?;
    file.rewind().map_err(|error| damaged(what, &error))?;
    match &magic[..read] {
        [b'P', b'K', ..] => Ok(Kind::Wheel),
        [0x1f, 0x8b, ..] => Ok(Kind::Package),
        [0x7f, b'E', b'L', b'F'] => Ok(Kind::Program),
        _ => Err(refused(
            what,
            "is neither a program, nor a wheel, nor a package of npm's",
        )),
    }
}

/// Copies the program out of `file` to `place`, hashing it on the way.
///
/// # Errors
/// When the archive is damaged or hostile, holds no program or one for another machine, or the disk fails.
pub(super) fn extract(
    file: &File,
    what: &str,
    pin: &Pin,
    place: &mut File,
    tell: &mut dyn FnMut(Progress),
) -> Result<Extracted, InstallError> {
    match kind_of(file, what)? {
        Kind::Wheel => from_wheel(file, what, pin, place, tell),
        Kind::Package => from_package(file, what, pin, place, tell),
        Kind::Program => {
            let mut copy = Copy { what, place, tell };
            let program = copy.all(BufReader::new(file), MAX_PROGRAM_BYTES)?;
            Ok(Extracted {
                program,
                version: None,
            })
        }
    }
}

fn from_wheel(
    file: &File,
    what: &str,
    pin: &Pin,
    place: &mut File,
    tell: &mut dyn FnMut(Progress),
) -> Result<Extracted, InstallError> {
    let broken = |error: ZipError| refused(what, &format!("is a damaged wheel: {error}"));
    let mut wheel = ZipArchive::new(BufReader::new(file)).map_err(broken)?;
    let version = version_of(&mut wheel, &pin.wheel_member);
    let member = match wheel.by_name(&pin.wheel_member) {
        Err(ZipError::FileNotFound) => return Err(no_program(what, &pin.wheel_member)),
        member => member.map_err(broken)?,
    };
    if !member.is_file() || member.is_symlink() {
        return Err(no_program(what, &pin.wheel_member));
    }
    if member.size() > MAX_PROGRAM_BYTES {
        return Err(InstallError::TooLarge {
            what: format!("the program in {what}"),
            limit: MAX_PROGRAM_BYTES,
        });
    }
    let program = Copy { what, place, tell }.all(member, MAX_PROGRAM_BYTES)?;
    Ok(Extracted { program, version })
}

/// `2.1.330 (Claude Code)` in a file beside the program.
fn version_of(wheel: &mut ZipArchive<BufReader<&File>>, member: &str) -> Option<String> {
    let file = wheel.by_name(&format!("{member}{VERSION_SUFFIX}")).ok()?;
    let mut text = String::new();
    file.take(MAX_VERSION_BYTES)
        .read_to_string(&mut text)
        .ok()?;
    let word = text.split_whitespace().next()?;
    let plain = |character: char| character.is_ascii_alphanumeric() || ".-+".contains(character);
    word.chars().all(plain).then(|| word.to_owned())
}

fn from_package(
    file: &File,
    what: &str,
    pin: &Pin,
    place: &mut File,
    tell: &mut dyn FnMut(Progress),
) -> Result<Extracted, InstallError> {
    let unpacked = GzDecoder::new(BufReader::new(file)).take(MAX_UNPACKED_BYTES);
    let mut package = tar::Archive::new(unpacked);
    for entry in package.entries().map_err(|error| damaged(what, &error))? {
        let entry = entry.map_err(|error| damaged(what, &error))?;
        if entry.path_bytes().as_ref() != pin.npm_member.as_bytes() {
            continue;
        }
        if !entry.header().entry_type().is_file() {
            return Err(no_program(what, &pin.npm_member));
        }
        let program = Copy { what, place, tell }.all(entry, MAX_PROGRAM_BYTES)?;
        return Ok(Extracted {
            program,
            version: None,
        });
    }
    Err(no_program(what, &pin.npm_member))
}

struct Copy<'work> {
    what: &'work str,
    place: &'work mut File,
    tell: &'work mut dyn FnMut(Progress),
}

impl Copy<'_> {
    fn all(&mut self, source: impl Read, limit: u64) -> Result<FileFacts, InstallError> {
        let mut source = source.take(limit + 1);
        let mut hash = Sha256::new();
        let mut place = BufWriter::new(&mut *self.place);
        let mut chunk = vec![0; CHUNK_BYTES];
        let (mut bytes, mut machine) = (0, None);
        loop {
            let read = fill(&mut source, &mut chunk).map_err(|error| damaged(self.what, &error))?;
            if read == 0 {
                break;
            }
            let part = &chunk[..read];
            machine.get_or_insert_with(|| machine_of(part));
            bytes += read as u64;
            if bytes > limit {
                return Err(InstallError::TooLarge {
                    what: format!("the program in {}", self.what),
                    limit,
                });
            }
            hash.update(part);
            place.write_all(part).map_err(|error| disk(&error))?;
            (self.tell)(Progress::Unpacked { bytes });
        }
        place.flush().map_err(|error| disk(&error))?;
        drop(place);
        self.check_machine(machine.flatten())?;
        self.place
            .seek(SeekFrom::Start(0))
            .map_err(|error| disk(&error))?;
        Ok(FileFacts {
            bytes,
            sha256: hex::encode(hash.finalize()),
        })
    }

    fn check_machine(&self, machine: Option<u16>) -> Result<(), InstallError> {
        let ours = ELF_MACHINES
            .iter()
            .find(|(name, _)| *name == std::env::consts::ARCH)
            .map(|(_, number)| *number);
        match machine {
            None => Err(refused(self.what, "holds no program for Linux (ELF)")),
            Some(_) if ours.is_none() || machine == ours => Ok(()),
            Some(_) => Err(refused(
                self.what,
                "holds a program for another kind of machine",
            )),
        }
    }
}

/// The kind of machine that a program is for; `None` when it is no ELF program.
fn machine_of(start: &[u8]) -> Option<u16> {
    let little_endian = start.get(5) == Some(&1);
    let bytes = start.get(ELF_MACHINE_OFFSET..ELF_MACHINE_OFFSET + 2)?;
    let number = [bytes[0], bytes[1]];
    (start.starts_with(b"\x7fELF") && little_endian).then(|| u16::from_le_bytes(number))
}

/// Reads until the chunk is full or the source ends.
fn fill(source: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        match source.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Size and hash of a file.
///
/// # Errors
/// When it cannot be read.
pub(super) fn measure(path: &Path) -> Result<FileFacts, InstallError> {
    let unread = |source| InstallError::File {
        step: "read",
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(unread)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        let read = fill(&mut file, &mut chunk).map_err(unread)?;
        if read == 0 {
            break;
        }
        hash.update(&chunk[..read]);
        bytes += read as u64;
    }
    Ok(FileFacts {
        bytes,
        sha256: hex::encode(hash.finalize()),
    })
}

fn refused(what: &str, why: &str) -> InstallError {
    InstallError::Archive {
        what: what.to_owned(),
        why: why.to_owned(),
    }
}

fn damaged(what: &str, error: &io::Error) -> InstallError {
    refused(what, &format!("is damaged: {error}"))
}

fn no_program(what: &str, member: &str) -> InstallError {
    refused(what, &format!("holds no program at {member}"))
}

fn disk(error: &io::Error) -> InstallError {
    InstallError::File {
        step: "write the program to",
        path: "the store".into(),
        source: io::Error::new(error.kind(), error.to_string()),
    }
}

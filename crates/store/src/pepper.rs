//! The pepper of an installation: 256 random bits that are never in the database, so that a copy of the database alone tells
//! nobody whether a guess at a key is right.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use model::Secret;
use rustix::fs::OFlags;
use zeroize::Zeroize;

use crate::{
    StoreError,
    open::{in_file, write_whole},
};

/// Its length, bytes.
pub const PEPPER_BYTES: usize = 32;

/// See the module.
pub struct Pepper {
    /// The bytes.
    pub bytes: Secret<[u8; PEPPER_BYTES]>,
    /// There was none; it was made. Keys of before are no keys any more.
    pub is_new: bool,
}

impl Pepper {
    /// Reads the file, or makes it where there is none: owner only, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be read or written, is no regular file of ours that others may not read, or has another length: a
    /// pepper is never guessed and never replaced.
    pub fn open(path: &Path) -> Result<Pepper, StoreError> {
        match read(path) {
            Ok(bytes) => Ok(Pepper {
                bytes,
                is_new: false,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bytes = [0; PEPPER_BYTES];
                getrandom::fill(&mut bytes).map_err(StoreError::Random)?;
                write_whole(path, &bytes)?;
                let secret = Secret::new(bytes);
                bytes.zeroize();
                Ok(Pepper {
                    bytes: secret,
                    is_new: true,
                })
            }
            Err(error) => Err(in_file("use", path)(error)),
        }
    }

    /// Whether the file could be opened; makes nothing.
    ///
    /// # Errors
    /// As for [`Pepper::open`], where the file is there.
    pub fn check(path: &Path) -> Result<(), StoreError> {
        match read(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(in_file("use", path)(error))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

fn read(path: &Path) -> io::Result<Secret<[u8; PEPPER_BYTES]>> {
    // Neither a link nor something that blocks when it is opened.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file: File = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let metadata = file.metadata()?;
    let why = if !metadata.is_file() {
        Some("it is no regular file")
    } else if metadata.mode() & 0o077 != 0 {
        Some("others may read it, so it is no secret any more")
    } else if metadata.len() != PEPPER_BYTES as u64 {
        Some("its length is wrong")
    } else {
        None
    };
    if let Some(why) = why {
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut bytes = [0; PEPPER_BYTES];
    file.read_exact(&mut bytes)?;
    let secret = Secret::new(bytes);
    bytes.zeroize();
    Ok(secret)
}

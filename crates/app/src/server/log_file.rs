//! The log of a server that was started on demand: its standard error, kept from growing without end.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use rustix::fs::OFlags;

/// The log is started anew at this size, bytes; one older part is kept beside it as `server.log.1`.
pub const MAX_LOG_BYTES: u64 = 4 << 20;

/// Opens the log for appending, never through a link. One that is too long is moved aside first.
///
/// # Errors
/// When the file cannot be opened.
pub fn open_log_file(path: &Path) -> io::Result<File> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.len() > MAX_LOG_BYTES) {
        std::fs::rename(path, older_part(path))?;
    }
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits()).unwrap_or_default();
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
}

fn older_part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

/// Writes the log. Clones share the file.
///
/// Standard error follows the file when it is started anew, so that the last words of a panic end up there as well.
#[derive(Debug, Clone)]
pub struct LogWriter(Arc<Mutex<Current>>);

#[derive(Debug)]
struct Current {
    path: PathBuf,
    file: File,
    bytes: u64,
    limit: u64,
    follow: bool,
}

impl LogWriter {
    /// Writes to that file, which becomes this process's standard error.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn as_stderr(path: &Path) -> io::Result<Self> {
        let writer = Self::new(path, MAX_LOG_BYTES, true)?;
        if let Ok(current) = writer.0.lock() {
            rustix::stdio::dup2_stderr(&current.file)?;
        }
        Ok(writer)
    }

    fn new(path: &Path, limit: u64, follow: bool) -> io::Result<Self> {
        let file = open_log_file(path)?;
        let bytes = file.metadata()?.len();
        Ok(LogWriter(Arc::new(Mutex::new(Current {
            path: path.to_path_buf(),
            file,
            bytes,
            limit,
            follow,
        }))))
    }
}

impl Current {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.bytes > self.limit {
            self.start_anew()?;
        }
        let written = self.file.write(line)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn start_anew(&mut self) -> io::Result<()> {
        std::fs::rename(&self.path, older_part(&self.path))?;
        self.file = open_log_file(&self.path)?;
        self.bytes = 0;
        if self.follow {
            rustix::stdio::dup2_stderr(&self.file)?;
        }
        Ok(())
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.0.lock() {
            Ok(mut current) => current.write(line),
            Err(_) => Err(io::Error::other("the log's lock is broken")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_and_its_older_part_stay_bounded() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("server.log");
        let mut writer = LogWriter::new(&path, 1000, false).unwrap();
        for number in 0..1000 {
            writeln!(writer, "line {number}").unwrap();
        }
        let size = |path: &Path| std::fs::metadata(path).unwrap().len();
        assert!(size(&path) <= 1100);
        assert!(size(&older_part(&path)) <= 1100);
        assert!(std::fs::read_to_string(&path).unwrap().contains("line 999"));
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_link_in_the_logs_place_is_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("server.log");
        let target = scratch.path().join("target");
        std::fs::write(&target, "").unwrap();
        assert!(open_log_file(&path).is_ok());
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(open_log_file(&path).is_err());
    }
}

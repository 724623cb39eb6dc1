//! The helper process.
use std::{io, process::ExitCode};

/// What a program does when it was executed as helper (first argument [`crate::HELPER_ARGUMENT`]). Must be called while
/// the process has a single thread.
pub fn helper_main() -> ExitCode {
    ExitCode::FAILURE
}

/// Makes this process the parent of its sandboxes once their helpers have ended, so that it can reap them. Concerns the
/// whole process: orphans of other children arrive here too.
///
/// # Errors
/// When the kernel refuses.
pub fn become_subreaper() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}
